//! `meterhouse stats`: what lies in the lake, by day, by column or by event name.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Decimal128Array, StringArray, UInt64Array};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::flags::{Global, StatsBy, StatsFlags};
use super::numbers::{bytes, counted};
use super::opening::{context, resolve_at};
use super::outcome::{Failure, Outcome};
use super::output::{check_format, say, write_rows};
use super::sql::write_answer;
use crate::error::{Error, Result};
use crate::ingest::check::received_rows;
use crate::lake::footer::column_bytes;
use crate::lake::snapshot::Snapshot;

/// Events by name; counted in the rows, as files hold events of several names.
const BY_NAME: &str = "SELECT event_name, count(*) AS events, \
    count(DISTINCT customer_id) AS customers, min(timestamp) AS first, max(timestamp) AS last \
    FROM events GROUP BY event_name ORDER BY event_name";

/// Runs the command.
pub(super) async fn run(global: &Global, flags: &StatsFlags) -> Result<Outcome, Failure> {
    let format = flags.output.output;
    check_format(format)?;
    let context = context(global, Vec::new()).await?;
    let at = resolve_at(&context.lake, flags.at.at.as_ref()).await?;
    let snapshot = context.lake.events.snapshot(at).await?;
    match flags.by {
        StatsBy::Day => write_rows(format, &by_day(&snapshot)?)?,
        StatsBy::Column => {
            let bytes = column_bytes(&context.lake.events, &snapshot).await?;
            write_rows(format, &by_column(&bytes)?)?;
        }
        StatsBy::EventName => {
            let version = Some(snapshot.version);
            write_answer(&context, BY_NAME, version, format, global.quiet).await?;
        }
    }
    if !global.quiet {
        say(&total(&snapshot));
    }
    Ok(Outcome::Done)
}

fn by_day(snapshot: &Snapshot) -> Result<RecordBatch> {
    #[derive(Default)]
    struct Day {
        files: u64,
        bytes: u64,
        rows: u64,
    }
    let mut days: BTreeMap<Option<i32>, Day> = BTreeMap::new();
    for file in &snapshot.files {
        let day = days.entry(file.partition).or_default();
        day.files += 1;
        day.bytes += file.size;
        day.rows += file.rows;
    }
    let dates: Date32Array = days.keys().copied().collect();
    let numbers = |part: fn(&Day) -> u64| -> ArrayRef {
        Arc::new(days.values().map(|day| Some(part(day))).collect::<UInt64Array>())
    };
    RecordBatch::try_from_iter_with_nullable([
        ("event_date", Arc::new(dates) as ArrayRef, true),
        ("files", numbers(|day| day.files), false),
        ("bytes", numbers(|day| day.bytes), false),
        ("rows", numbers(|day| day.rows), false),
    ])
    .map_err(|error| wrong(&error))
}

fn by_column(bytes: &BTreeMap<String, u64>) -> Result<RecordBatch> {
    let mut columns: Vec<(&String, u64)> = bytes.iter().map(|(name, &size)| (name, size)).collect();
    columns.sort_by_key(|(name, size)| (Reverse(*size), *name));
    let all: u64 = bytes.values().sum();
    // Tenths of a percent, to the nearest.
    let share = |size: u64| {
        let tenths = (u128::from(size) * 2_000 + u128::from(all)) / u128::from(all.max(1)) / 2;
        i128::try_from(tenths).ok()
    };
    let shares = columns.iter().map(|(_, size)| share(*size)).collect::<Decimal128Array>();
    let shares = shares.with_precision_and_scale(5, 1).map_err(|error| wrong(&error))?;
    let names = StringArray::from_iter_values(columns.iter().map(|(name, _)| name));
    let sizes = UInt64Array::from_iter_values(columns.iter().map(|(_, size)| *size));
    RecordBatch::try_from_iter([
        ("column", Arc::new(names) as ArrayRef),
        ("bytes", Arc::new(sizes)),
        ("percent", Arc::new(shares)),
    ])
    .map_err(|error| wrong(&error))
}

fn wrong(error: &ArrowError) -> Error {
    Error::internal(format!("rows of statistics: {error}"))
}

fn total(snapshot: &Snapshot) -> String {
    let (files, rows) = (snapshot.files.len() as u64, received_rows(snapshot));
    let size: u64 = snapshot.files.iter().map(|file| file.size).sum();
    let each = match size.saturating_mul(10).checked_div(rows) {
        Some(tenths) => format!(", {}.{} bytes each", tenths / 10, tenths % 10),
        None => String::new(),
    };
    format!(
        "table version {}: {} in {}, {}{each}",
        snapshot.version,
        counted(rows, "event"),
        counted(files, "file"),
        bytes(size),
    )
}
