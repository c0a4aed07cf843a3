//! Rollups: states of meters beside the events, so that what is asked every day need not be computed
//! from the events every day.
//!
//! A rollup belongs to one version of one meter and holds [states](crate::plan::states) by customer and of
//! all customers, by the meter's dimensions, all together, each alone and none, and by buckets of three
//! lengths: its [levels](Level). It is a Delta table of its own, partitioned by the month of the meter's
//! zone, each of whose files has all levels, one after the other, and says with every commit up to which
//! version of the events it goes.
//! What came later is added by [`refresh`], or read from the events by whoever asks: a rollup that is
//! behind makes an answer slower, never another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema};

use crate::error::{Error, ErrorKind, Result};
use crate::lake::commit::{Commit, CommitOutcome, Operation};
use crate::lake::snapshot::Snapshot;
use crate::lake::table::Table;
use crate::lake::tables::Lake;
use crate::meter::{Aggregation, Meter, version};
use crate::plan::TableFacts;
use crate::plan::states::columns::{
    AT, BUCKET, EVENTS, LEVEL, MATCHED, PLACE, RECEIVED, VALUE, WEIGHTS, key,
};
use crate::plan::states::{Kept, Value, kept, keys};
use crate::schema::{CUSTOMER_ID, ValueKind, timestamp_type};
use crate::table::EventsTable;
use crate::time::{TimeRange, Timestamp};

mod answer;
mod grain;
mod merge;
mod refresh;
mod slices;
mod write;

pub use answer::{Answerable, find};
pub use grain::{Grain, Level};
pub use merge::Merging;
pub use refresh::{Manner, Refreshed, refresh};

/// Partition: the first date of the month of a bucket, in the zone of the meter.
const MONTH: &str = "month";

/// Whose version (`txn` in the log) is the version of the events that a rollup goes up to.
const APP: &str = "meterhouse.rollup";

/// How the names of tables of states begin.
const NAME: &str = "rollup-";

/// How states are laid out: those of another one are in a table of another name.
const FORMAT: &str = "3";

/// Notes of every commit.
mod notes {
    pub(super) const METER: &str = "meter";
    pub(super) const METER_VERSION: &str = "meter_version";
    pub(super) const EVENTS_VERSION: &str = "events_version";
    /// Tells that version from another one of the same number.
    pub(super) const EVENTS_MARK: &str = "events_mark";
    /// The last month whose files were made one once it was over, by its first date in days since 1970.
    pub(super) const WHOLE_THROUGH: &str = "whole_through";
}

/// The rollup of a meter whose tables are read; `None` while there is none.
///
/// # Errors
/// A damaged table.
pub async fn open(lake: &Lake, meter: &Meter) -> Result<Option<Table>> {
    lake.derived(&table_name(lake, meter)).await
}

/// The tables of states of all meters and versions, by name; of a damaged one what is wrong with it.
///
/// # Errors
/// A store that cannot be read.
pub async fn tables(lake: &Lake) -> Result<Vec<(String, Result<Table>)>> {
    let mut tables = Vec::new();
    for name in lake.names(NAME).await? {
        // One that is just being made has nothing yet.
        if let Some(table) = lake.derived(&name).await.transpose() {
            tables.push((name, table));
        }
    }
    Ok(tables)
}

/// Takes the states out of a table that was not refreshed for `retention` though events came: nobody asks
/// that version of the meter, or asks it from the events. Whoever refreshes it makes it anew. Says how many
/// files have gone out of it; they lie there until vacuum takes them.
///
/// # Errors
/// A store that cannot be read or written.
pub async fn empty_if_idle(
    lake: &Lake,
    table: &Table,
    retention: Duration,
    now: Timestamp,
) -> Result<u64> {
    let states = table.snapshot(None).await?;
    let reached = reached(&states).await?;
    let behind = reached < Some(lake.events.snapshot(None).await?.version);
    let refreshed = table.history(Some(1)).await?.first().and_then(|last| last.committed_at);
    let micros = i64::try_from(retention.as_micros()).unwrap_or(i64::MAX);
    let idle = refreshed.is_some_and(|at| at.micros() < now.micros().saturating_sub(micros));
    if states.files.is_empty() || !behind || !idle {
        return Ok(0);
    }
    let commit = Commit {
        operation: Operation::Correct,
        remove: states.files.iter().map(|file| file.path.clone()).collect(),
        // Of no version of the events: whoever asks reads the events.
        info: BTreeMap::new(),
        at_ms: now.micros().div_euclid(1_000),
        ..Commit::default()
    };
    match table.commit(&states, commit).await {
        Ok(CommitOutcome::Committed(_)) => Ok(states.files.len() as u64),
        // It is refreshed just now.
        Ok(CommitOutcome::Lost { .. }) => Ok(0),
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(0),
        Err(error) => Err(error),
    }
}

/// The same as [`open`], made where it is missing.
///
/// # Errors
/// A meter that has no states; a place that cannot hold a table.
pub async fn open_or_create(lake: &Lake, meter: &Meter) -> Result<Table> {
    let Some(kept) = kept(meter) else {
        let what = match &meter.aggregation {
            Aggregation::Nested(_) => "results that whole quarters of an hour do not tell have",
            aggregation => &format!("`{}` has", aggregation.name()),
        };
        return Err(Error::invalid(format!(
            "meter `{}`: {what} no rollups; it is answered from the events",
            meter.name
        )));
    };
    let info = BTreeMap::from([
        (notes::METER.to_owned(), meter.name.clone()),
        (notes::METER_VERSION.to_owned(), version(meter)),
    ]);
    let (name, columns) = (table_name(lake, meter), schema(meter, kept));
    let made =
        Table::create(&lake.location, &lake.namespace, &name, &columns, &[MONTH], &info).await;
    made.map_err(|error| match error.kind() {
        ErrorKind::Corrupt => {
            error.noting("a rollup is made of the events: delete its folder, and refresh it")
        }
        _ => error,
    })
}

/// The name of the table: a hash of whatever its content depends on. How values are converted and whose
/// periods begin when is asked of states as it is of events.
fn table_name(lake: &Lake, meter: &Meter) -> String {
    let meter = &Meter { unit: None, billing: None, ..meter.clone() };
    let mut hasher = blake3::Hasher::new();
    let mut hash = |text: &str| {
        hasher.update(text.as_bytes());
        hasher.update(&[0]);
    };
    hash(FORMAT);
    hash(lake.events.table_id());
    hash(&version(meter));
    for level in Level::all(meter) {
        hash(&level.name());
    }
    // What a zone is called may come to mean other midnights.
    for (instant, offset) in grain::offsets(&meter.zone()) {
        hash(&format!("{instant} {offset}"));
    }
    for (name, number) in meter.table_versions() {
        hash(&name);
        hash(&number.to_string());
    }
    let digits = hasher.finalize().to_hex();
    format!("{NAME}{}", digits.get(..16).unwrap_or(digits.as_str()))
}

fn schema(meter: &Meter, kept: Kept) -> Schema {
    let mut fields = columns_of(meter, kept);
    fields.push(Field::new(MONTH, DataType::Date32, false));
    Schema::new(fields)
}

/// The columns of a file of states, in the order in which they are sorted.
fn columns_of(meter: &Meter, kept: Kept) -> Vec<Field> {
    let mut fields = vec![
        Field::new(LEVEL, DataType::Utf8, false),
        Field::new(CUSTOMER_ID, DataType::Utf8, true),
    ];
    fields.extend((0..keys(meter).len()).map(|place| ValueKind::Text.field(&key(place))));
    fields.push(Field::new(BUCKET, timestamp_type(), false));
    let kinds: &[ValueKind] = match kept.value() {
        None => &[],
        Some(Value::Text) => &[ValueKind::Text],
        Some(Value::Number) => &[ValueKind::Integer, ValueKind::Decimal, ValueKind::Text],
    };
    let numbers: &[&str] = if kept == Kept::Weighed { &[VALUE, WEIGHTS] } else { &[VALUE] };
    let of_kinds = |name: &&str| kinds.iter().map(|kind| kind.field(name)).collect::<Vec<_>>();
    fields.extend(numbers.iter().flat_map(of_kinds));
    fields.extend([EVENTS, MATCHED].map(|name| Field::new(name, DataType::Int64, false)));
    if kept.has_place() {
        fields.extend([AT, RECEIVED, PLACE].map(|name| Field::new(name, DataType::Int64, true)));
    }
    fields
}

/// Stored states, ready to be scanned, in their order if that matters, and what is known of them.
fn scanned(
    table: &Table,
    snapshot: Arc<Snapshot>,
    in_order: bool,
) -> Result<(Arc<EventsTable>, TableFacts)> {
    let states = Arc::new(EventsTable::new(table, snapshot)?.by_row_groups(in_order));
    let known = states.facts(TimeRange::default());
    let facts = TableFacts { properties: known.properties, ..TableFacts::default() };
    Ok((states, facts))
}

/// The version of the events that states go up to.
async fn reached(states: &Snapshot) -> Result<Option<u64>> {
    Ok(states.app_version(APP).await?.and_then(|at| u64::try_from(at).ok()))
}

/// How much there is of a rollup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// The version of the events that it goes up to.
    pub events_version: Option<u64>,
    /// Rows of states.
    pub rows: u64,
    /// Files.
    pub files: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

/// How much there is of the rollup of a meter whose tables are read; `None` while there is none.
///
/// # Errors
/// A damaged table.
pub async fn describe(lake: &Lake, meter: &Meter) -> Result<Option<Description>> {
    let Some(table) = open(lake, meter).await? else { return Ok(None) };
    let snapshot = table.snapshot(None).await?;
    Ok(Some(Description {
        events_version: reached(&snapshot).await?,
        rows: snapshot.rows(),
        files: snapshot.files.len() as u64,
        bytes: snapshot.files.iter().map(|file| file.size).sum(),
    }))
}
