//! `meterhouse rollups`: states of meters that are kept beside the events.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, UInt64Array};
use arrow::record_batch::RecordBatch;

use super::flags::{Global, RefreshFlags, RollupsCommand};
use super::numbers::{counted, grouped};
use super::opening::{context, list_meters, load_meter_files};
use super::outcome::{Failure, Outcome, all_or};
use super::output::{check_format, say, write_rows};
use crate::error::{Error, Result};
use crate::meter::{Meter, version};
use crate::plan::states::kept;
use crate::render::OutputFormat;
use crate::rollup::{self, Manner, Merging, Refreshed};
use crate::usage::{Context, with_tables};

/// Runs the command.
pub(super) async fn run(global: &Global, command: &RollupsCommand) -> Result<Outcome, Failure> {
    match command {
        RollupsCommand::Refresh(flags) => refresh(global, flags).await?,
        RollupsCommand::List { output } => {
            check_format(output.output)?;
            list(global, output.output).await?;
        }
    }
    Ok(Outcome::Done)
}

async fn refresh(global: &Global, flags: &RefreshFlags) -> Result<()> {
    let meters = match flags.meters.is_empty() {
        true => list_meters(global)?,
        false => {
            let named = load_meter_files(global, &flags.meters)?;
            named.into_iter().map(|(_, meter)| meter).collect()
        }
    };
    let (with, without): (Vec<Meter>, Vec<Meter>) =
        meters.into_iter().partition(|meter| kept(meter).is_some() || !flags.meters.is_empty());
    let context = context(global, Vec::new()).await?;
    // What is wrong with one meter is no matter of the others.
    let mut wrong: Vec<Error> = Vec::new();
    for meter in &with {
        match refresh_one(&context, meter, flags).await {
            Ok((meter, done)) if !global.quiet => say(&told(&meter, &done)),
            Ok(_) => {}
            Err(error) if error.to_string().contains(&format!("meter `{}`", meter.name)) => {
                wrong.push(error);
            }
            Err(error) => {
                let text = format!("meter `{}`: {error}", meter.name);
                wrong.push(Error::new(error.kind(), text).with_source(error));
            }
        }
    }
    if !without.is_empty() && !global.quiet {
        let names: Vec<&str> = without.iter().map(|meter| meter.name.as_str()).collect();
        say(&format!("answered from the events, without a rollup: {}", names.join(", ")));
    }
    all_or(wrong, &counted(with.len() as u64, "meter"), "refreshed")
}

async fn refresh_one(
    context: &Context,
    meter: &Meter,
    flags: &RefreshFlags,
) -> Result<(Meter, Refreshed)> {
    let merging = if flags.compact { Merging::Whole } else { Merging::Worth };
    let manner = Manner { merging, anew: flags.anew };
    let snapshot = context.lake.events.snapshot(None).await?;
    let meter = with_tables(&context.lake, &snapshot, meter).await?;
    let place = (&context.lake, &context.engine);
    let now = context.clock.now();
    let done = rollup::refresh(place, &meter, &snapshot, manner, now).await?;
    Ok((meter, done))
}

fn told(meter: &Meter, done: &Refreshed) -> String {
    let mut text = format!("{}@{}: ", meter.name, version(meter));
    if done.of_other_history {
        return format!(
            "{text}it goes up to version {0} of another history of the events, which were set back: they \
             are read until there is a version after {0} and it is made anew",
            done.events_version
        );
    }
    if done.rows_read == 0 && done.files_added == 0 {
        text.push_str("nothing new");
    } else {
        let (rows, files) = (grouped(done.rows_read), counted(done.files_added, "file"));
        text.push_str(&format!("{rows} rows read, {files} of states added"));
    }
    if done.days_anew > 0 {
        text.push_str(&format!(", {} made anew", counted(done.days_anew, "day")));
    }
    if done.files_merged > 0 {
        text.push_str(&format!(", {} merged", counted(done.files_merged, "file")));
    }
    format!("{text}; up to version {}", done.events_version)
}

async fn list(global: &Global, format: OutputFormat) -> Result<()> {
    let context = context(global, list_meters(global)?).await?;
    let rows = rows(&context).await?;
    write_rows(format, &rows)?;
    if rows.num_rows() == 0 && !global.quiet {
        say("no meter has a rollup; `meterhouse rollups refresh` makes them");
    }
    Ok(())
}

async fn rows(context: &Context) -> Result<RecordBatch> {
    let snapshot = context.lake.events.snapshot(None).await?;
    let (mut names, mut versions) = (Vec::new(), Vec::new());
    let mut numbers: [Vec<Option<u64>>; 5] = Default::default();
    for meter in context.meters.iter() {
        let meter = with_tables(&context.lake, &snapshot, meter).await?;
        let Some(known) = rollup::describe(&context.lake, &meter).await? else { continue };
        names.push(meter.name.clone());
        versions.push(version(&meter));
        let behind = known.events_version.map(|at| snapshot.version.saturating_sub(at));
        let all =
            [known.events_version, behind, Some(known.rows), Some(known.files), Some(known.bytes)];
        numbers.iter_mut().zip(all).for_each(|(column, number)| column.push(number));
    }
    let [reached, behind, rows, files, bytes] =
        numbers.map(|column| Arc::new(UInt64Array::from(column)) as ArrayRef);
    RecordBatch::try_from_iter_with_nullable([
        ("meter", Arc::new(StringArray::from(names)) as ArrayRef, false),
        ("version", Arc::new(StringArray::from(versions)) as ArrayRef, false),
        ("events_version", reached, true),
        ("versions_behind", behind, true),
        ("rows", rows, false),
        ("files", files, false),
        ("bytes", bytes, false),
    ])
    .map_err(|error| Error::internal("rows of rollups").with_source(error))
}
