//! `meterhouse events upsert`: names of events of which the newest of an identity wins.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, UInt64Array};
use arrow::record_batch::RecordBatch;

use super::actor::actor;
use super::flags::{Global, UpsertCommand};
use super::opening::{context, open_lake, resolve_at};
use super::outcome::{Failure, Outcome};
use super::output::{check_format, printable, say, write_rows};
use crate::catalogue::event_names;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::event::{EVENT_NAME_MAX_BYTES, shortened};
use crate::lake::upserts::{Declarer, Upsert};
use crate::plan::catalogue::CatalogueQuery;

/// Runs the command.
pub(super) async fn run(global: &Global, command: &UpsertCommand) -> Result<Outcome, Failure> {
    match command {
        UpsertCommand::Declare { names, reason, anew } => {
            declare(global, names, reason.clone(), *anew).await?;
        }
        UpsertCommand::Withdraw { names, reason } => {
            let names = checked(names)?;
            let lake = open_lake(global).await?;
            let version = lake.events.withdraw_upserts(&names, &declarer(reason.clone())).await?;
            if !global.quiet {
                say(&format!(
                    "{}: other content of an identity is a conflict again, as of table version \
                     {version}",
                    listed(&names)
                ));
            }
        }
        UpsertCommand::List { at, output } => {
            check_format(output.output)?;
            let lake = open_lake(global).await?;
            let snapshot = lake.events.snapshot(resolve_at(&lake, at.at.as_ref()).await?).await?;
            write_rows(output.output, &table(&lake.events.upserts(&snapshot).await?)?)?;
        }
    }
    Ok(Outcome::Done)
}

async fn declare(
    global: &Global,
    names: &[String],
    reason: Option<String>,
    anew: bool,
) -> Result<(), Failure> {
    let names = checked(names)?;
    let context = context(global, Vec::new()).await?;
    let declared = context.lake.events.declare_upserts(&names, &declarer(reason), anew).await?;
    if global.quiet {
        return Ok(());
    }
    let (new, version) = declared;
    let held: BTreeSet<String> = names.difference(&new).cloned().collect();
    if !held.is_empty() {
        say(&format!("{}: declared already", listed(&held)));
    }
    if !new.is_empty() {
        say(&format!(
            "{}: the newest event of an identity wins, as of table version {version}",
            listed(&new)
        ));
        let known = event_names(&context, &CatalogueQuery::default(), None).await?;
        let known: BTreeSet<String> = known.rows.into_iter().map(|row| row.name).collect();
        let unknown: BTreeSet<String> = new.difference(&known).cloned().collect();
        if !unknown.is_empty() {
            say(&format!("{}: no event has this name yet", listed(&unknown)));
        }
    }
    Ok(())
}

fn declarer(reason: Option<String>) -> Declarer {
    let now = Clock::System.now();
    let at_ms = now.micros().div_euclid(1_000);
    Declarer { by: actor(), at: now.to_string(), at_ms, reason }
}

/// Names that an event can have.
fn checked(names: &[String]) -> Result<BTreeSet<String>, Failure> {
    for name in names {
        if name.is_empty() {
            let text = "the name of an event is empty: no event has such a name";
            return Err(Failure::Arguments(text.to_owned()));
        }
        if name.len() > EVENT_NAME_MAX_BYTES {
            return Err(Failure::Arguments(format!(
                "event name `{}` has {} bytes, an event\'s has at most {EVENT_NAME_MAX_BYTES}",
                shortened(name),
                name.len()
            )));
        }
    }
    Ok(names.iter().cloned().collect())
}

fn listed(names: &BTreeSet<String>) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    printable(&names.join(", "))
}

fn table(declared: &[Upsert]) -> Result<RecordBatch> {
    let texts = |text: fn(&Upsert) -> Option<&str>| -> ArrayRef {
        Arc::new(declared.iter().map(text).collect::<StringArray>())
    };
    let since: UInt64Array = declared.iter().map(|upsert| Some(upsert.since)).collect();
    RecordBatch::try_from_iter_with_nullable([
        ("event_name", texts(|upsert| Some(&upsert.event_name)), false),
        ("since_version", Arc::new(since) as ArrayRef, false),
        ("at", texts(|upsert| Some(&upsert.at)), false),
        ("by", texts(|upsert| upsert.by.as_deref()), true),
        ("reason", texts(|upsert| upsert.reason.as_deref()), true),
    ])
    .map_err(|error| Error::internal("rows of declared names").with_source(error))
}
