//! `meterhouse events`: the events that did not get in, and the names of those that did; what
//! corrects others is `cli::correct`.

use std::sync::Arc;

use arrow::array::{AsArray, StringArray};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::flags::{EventsCommand, Global};
use super::opening::open_lake;
use super::outcome::{Failure, Outcome};
use super::output::{check_format, finish, rows};
use super::properties;
use super::{correct, event, upsert};
use crate::error::{Error, Result};
use crate::event::shortened;
use crate::ingest::quarantine;
use crate::render::{OutputFormat, Reader};
use crate::schema;

/// Runs the command.
pub(super) async fn run(global: &Global, command: &EventsCommand) -> Result<Outcome, Failure> {
    match command {
        EventsCommand::Void(flags) => return Box::pin(correct::void(global, flags)).await,
        EventsCommand::Amend(flags) => return Box::pin(correct::amend(global, flags)).await,
        EventsCommand::Replace(flags) => return Box::pin(correct::replace(global, flags)).await,
        EventsCommand::Revert(flags) => return Box::pin(correct::revert(global, flags)).await,
        EventsCommand::Show(flags) => return Box::pin(event::run(global, flags)).await,
        EventsCommand::Corrections { output } => {
            return correct::corrections(global, *output).await;
        }
        EventsCommand::Upsert(command) => return Box::pin(upsert::run(global, command)).await,
        EventsCommand::Names { unmetered, at, output } => {
            properties::names(global, *unmetered, at, output.output).await?;
        }
        EventsCommand::Rejected { output, limit } => {
            check_format(output.output)?;
            let lake = open_lake(global).await?;
            write(&quarantine::list(&lake, *limit).await?, output.output)?;
        }
    }
    Ok(Outcome::Done)
}

/// All columns but the identity, which only serves to list an event once.
fn write(batches: &[RecordBatch], format: OutputFormat) -> Result<()> {
    let all = schema::quarantine::schema();
    let shown: Vec<usize> = (0..all.fields().len())
        .filter(|&place| all.field(place).name() != schema::quarantine::ID)
        .collect();
    let defect = |error| Error::internal("columns of the quarantine").with_source(error);
    let schema = Arc::new(all.project(&shown).map_err(defect)?);
    let mut renderer = rows(format, &schema)?;
    for batch in batches {
        let mut batch = batch.project(&shown).map_err(defect)?;
        if format == OutputFormat::Table {
            batch = with_short_events(&batch).map_err(defect)?;
        }
        if renderer.write(&batch)? == Reader::Gone {
            return Ok(());
        }
    }
    finish(renderer)
}

/// The rows with only the beginning of each event's text, which is the last column: one large
/// event would make a table unreadable. Other forms carry it whole.
fn with_short_events(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut columns = batch.columns().to_vec();
    if let Some(texts) = columns.pop() {
        let short = texts.as_string::<i32>().iter().map(|text| text.map(shortened));
        columns.push(Arc::new(short.collect::<StringArray>()));
    }
    RecordBatch::try_new(batch.schema(), columns)
}
