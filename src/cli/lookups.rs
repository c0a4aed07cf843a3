//! `meterhouse lookups`: the lookup tables that the lake keeps.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;

use super::actor::actor;
use super::flags::{Global, LookupsCommand};
use super::opening::{load_sound_meters, open_lake, open_target, resolve_at};
use super::outcome::{Failure, Outcome};
use super::output::{check_format, say, write_rows, write_text};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::lake::history::BY;
use crate::lake::table::Table;
use crate::meter::{
    Billing, Lookup, Meter, TablePlace, is_identifier, load_table, read_billing_rows,
};
use crate::registry::{self, Schedule};

/// Runs the command.
pub(super) async fn run(global: &Global, command: &LookupsCommand) -> Result<Outcome, Failure> {
    match command {
        LookupsCommand::Put { name, file, reason } => {
            put(global, name, file, reason.as_deref()).await?;
        }
        LookupsCommand::List { at, output } => {
            check_format(output.output)?;
            let lake = open_lake(global).await?;
            let snapshot = lake.events.snapshot(resolve_at(&lake, at.at.as_ref()).await?).await?;
            lake.events.learn_applications(&snapshot).await?;
            let (mut names, mut numbers, mut rows) = (Vec::new(), Vec::new(), Vec::new());
            for name in lake.events.lookup_names().await? {
                if let Some((number, text)) = lake.events.lookup(&snapshot, &name).await? {
                    names.push(name);
                    numbers.push(number);
                    rows.push(records(&String::from_utf8_lossy(&text)).unwrap_or(0));
                }
            }
            let batch = RecordBatch::try_from_iter([
                ("lookup", Arc::new(StringArray::from(names)) as ArrayRef),
                ("version", Arc::new(Int64Array::from(numbers)) as ArrayRef),
                ("rows", Arc::new(Int64Array::from(rows)) as ArrayRef),
            ]);
            let defect = |error| Error::internal("rows of lookups").with_source(error);
            write_rows(output.output, &batch.map_err(defect)?)?;
        }
        LookupsCommand::Show { name, at } => {
            let lake = open_lake(global).await?;
            let snapshot = lake.events.snapshot(resolve_at(&lake, at.at.as_ref()).await?).await?;
            let Some((_, text)) = lake.events.lookup(&snapshot, &checked(name)?).await? else {
                return Err(Error::not_found(format!(
                    "the lake has no lookup table `{name}` at version {}; `meterhouse lookups list` \
                     shows them",
                    snapshot.version
                ))
                .into());
            };
            write_text(&String::from_utf8_lossy(&text))?;
        }
    }
    Ok(Outcome::Done)
}

fn checked(name: &str) -> Result<String> {
    match is_identifier(name) {
        true => Ok(name.to_owned()),
        false => Err(Error::invalid(format!(
            "`{name}` is no name of a table: a lower-case letter, then letters, digits, `_` and `-`, \
             at most 63"
        ))),
    }
}

async fn put(global: &Global, name: &str, file: &Path, reason: Option<&str>) -> Result<()> {
    let name = checked(name)?;
    let csv = load_table(file)?;
    if csv.trim().is_empty() {
        return Err(Error::invalid(format!("{} is empty: a table has a header", file.display())));
    }
    if csv.trim_start().starts_with(['{', '[']) {
        return Err(Error::invalid(format!(
            "{} is JSON: a lookup table is CSV or Parquet",
            file.display()
        )));
    }
    let rows =
        records(&csv).map_err(|error| Error::invalid(format!("{}: {error}", file.display())))?;
    for meter in load_sound_meters(global)? {
        check(&meter, &name, &csv, file)?;
    }
    // Tables may be put before there are events.
    let lake = open_target(global, false).await?.lake;
    check_published(&lake.events, &name, &csv, file).await?;
    let mut info = BTreeMap::new();
    info.extend(actor().map(|actor| (BY.to_owned(), actor)));
    info.extend(reason.map(|reason| ("reason".to_owned(), reason.to_owned())));
    let now = Clock::System.now().micros() / 1_000;
    let put = lake.events.put_lookup(&name, &csv, info, now).await?;
    if !global.quiet {
        let done = if put.changed { "is" } else { "was already" };
        let rows = super::numbers::counted(rows.unsigned_abs(), "row");
        say(&format!(
            "lookup table `{name}` {done} version {} with {rows}, as of table version {}",
            put.number, put.version
        ));
    }
    Ok(())
}

/// That the published versions that hold at some time can read the table, if they name it.
async fn check_published(table: &Table, name: &str, csv: &str, file: &Path) -> Result<()> {
    for meter in registry::names(table).await? {
        let schedule = Schedule::of(&registry::publications(table, &meter).await?);
        for (version, meter) in registry::definitions(table, &meter, &schedule).await? {
            check(&meter, name, csv, file).map_err(|error| {
                Error::invalid(format!("the published version {version}, {error}"))
            })?;
        }
    }
    Ok(())
}

/// That `meter` can read the table, if it names it.
fn check(meter: &Meter, name: &str, csv: &str, file: &Path) -> Result<()> {
    let named = |lookup: &&Lookup| lookup.table == TablePlace::Lake(name.to_owned());
    for lookup in meter.lookups.values().filter(named) {
        let read = lookup.clone().read(csv, &file.display().to_string(), &meter.zone());
        read.map_err(|found| Error::invalid(format!("for meter `{}`: {found}", meter.name)))?;
    }
    if let Some(Billing::PerCustomer(table)) = &meter.billing
        && table.table == TablePlace::Lake(name.to_owned())
    {
        let read = read_billing_rows(csv, &file.display().to_string(), table);
        read.map_err(|found| Error::invalid(format!("for meter `{}`: {found}", meter.name)))?;
    }
    Ok(())
}

/// How many rows a table has; all of them can be read, and its columns told apart.
fn records(csv: &str) -> Result<i64> {
    let unreadable = |error| Error::invalid(format!("it is not readable as CSV: {error}"));
    let mut reader = csv::Reader::from_reader(csv.trim_start_matches('\u{feff}').as_bytes());
    let header = reader.headers().map_err(unreadable)?;
    for (place, title) in header.iter().enumerate() {
        if header.iter().take(place).any(|other| other == title) {
            return Err(Error::invalid(format!("its header has two columns `{title}`")));
        }
    }
    let mut rows = 0;
    for record in reader.records() {
        record.map_err(unreadable)?;
        rows += 1;
    }
    Ok(rows)
}
