//! The table of statements: how lines and records become rows, and how they are read back.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt64Array,
};
use arrow::datatypes::{SchemaRef, UInt64Type};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::line::{Line, lines_of};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::reader::{BATCH_ROWS, StoredFile};
use crate::lake::snapshot::Snapshot;
use crate::lake::table::Table;
use crate::schema::statements::{self, KIND_CLOSING, KIND_LINE, KIND_REOPENING};
use crate::time::TimeRange;

/// What was closed, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Of this closing alone.
    pub id: String,
    /// Name of the meter.
    pub meter: String,
    /// Version of its definition.
    pub meter_version: String,
    /// The period, by a name that means the same at any time.
    pub period: String,
    /// First instant, RFC 3339 in UTC.
    pub from: String,
    /// End, exclusive, RFC 3339 in UTC.
    pub to: String,
    /// IANA zone that the period was told in.
    pub zone: String,
    /// Whether the lines are those of the customers whose own billing period this is, and no others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
    /// 1 for the first closing of the period, one more each time it was opened again.
    pub revision: i64,
    /// Version of the events that it is of.
    pub table_version: u64,
    /// Versions of the lake's lookup tables that the meter reads.
    pub lookups: BTreeMap<String, i64>,
    /// Name of the unit of what is billed, if the meter has one.
    pub unit: Option<String>,
    /// How many lines there are.
    pub lines: u64,
    /// SHA-256 over the lines: see [`Line::text`].
    pub sha256: String,
    /// The files of the table that hold the lines, in their order.
    pub files: Vec<String>,
    /// When it was closed, by whom and why.
    #[serde(flatten)]
    pub closed: Change,
}

/// Who did something to a period, when and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When, RFC 3339.
    pub at: String,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What says that a closing does not hold any more.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Reopening {
    id: String,
    #[serde(flatten)]
    change: Change,
}

impl Record {
    /// The bounds.
    ///
    /// # Errors
    /// A damaged record.
    pub fn range(&self) -> Result<TimeRange> {
        Ok(TimeRange {
            from: Some(super::instant(&self.from)?),
            to: Some(super::instant(&self.to)?),
        })
    }

    /// What the closing of this period is known by to the log: its version counts closings and
    /// reopenings, so that of two that happen at once one is refused.
    pub(super) fn app(&self) -> String {
        app(&self.meter, &self.from, &self.to)
    }
}

pub(super) fn app(meter: &str, from: &str, to: &str) -> String {
    format!("meterhouse.period/{meter}/{from}/{to}")
}

/// The rows of lines.
///
/// # Errors
/// A damaged record.
pub(super) fn line_rows(record: &Record, lines: &[Line]) -> Result<RecordBatch> {
    let texts = |text: fn(&Line) -> Option<&str>| -> ArrayRef {
        Arc::new(lines.iter().map(text).collect::<StringArray>())
    };
    let numbers = |number: fn(&Line) -> i64| -> ArrayRef {
        Arc::new(lines.iter().map(|line| Some(number(line))).collect::<Int64Array>())
    };
    let own = Own {
        customer: texts(|line| line.customer.as_deref()),
        value: texts(|line| line.value.as_deref()),
        converted: texts(|line| line.converted.as_deref()),
        billable: texts(|line| line.billable.as_deref()),
        events: numbers(|line| line.events),
        skipped: numbers(|line| line.skipped),
        text: texts(|_| None),
    };
    rows(KIND_LINE, record, own, lines.len())
}

/// The row of a record.
///
/// # Errors
/// A defect of ours.
pub(super) fn closing_row(record: &Record) -> Result<RecordBatch> {
    rows(KIND_CLOSING, record, Own::told(encode(record)?), 1)
}

/// The row that opens a period again.
///
/// # Errors
/// A defect of ours.
pub(super) fn reopening_row(record: &Record, change: &Change) -> Result<RecordBatch> {
    let reopening = Reopening { id: record.id.clone(), change: change.clone() };
    rows(KIND_REOPENING, record, Own::told(encode(&reopening)?), 1)
}

/// The column that names the meter.
const METER: &str = "meter";

/// The columns in which rows of a closing differ.
struct Own {
    customer: ArrayRef,
    value: ArrayRef,
    converted: ArrayRef,
    billable: ArrayRef,
    events: ArrayRef,
    skipped: ArrayRef,
    text: ArrayRef,
}

impl Own {
    /// Of one row that has a text alone.
    fn told(text: String) -> Self {
        let none = || -> ArrayRef { Arc::new(StringArray::from(vec![None::<&str>])) };
        let no_number = || -> ArrayRef { Arc::new(Int64Array::from(vec![None])) };
        Self {
            customer: none(),
            value: none(),
            converted: none(),
            billable: none(),
            events: no_number(),
            skipped: no_number(),
            text: Arc::new(StringArray::from(vec![Some(text)])),
        }
    }
}

fn rows(kind: &str, record: &Record, own: Own, count: usize) -> Result<RecordBatch> {
    let same = |text: &str| -> ArrayRef {
        Arc::new(std::iter::repeat_n(Some(text), count).collect::<StringArray>())
    };
    let instants = |text: &str| -> Result<ArrayRef> {
        let instants = vec![super::instant(text)?.micros(); count];
        Ok(Arc::new(TimestampMicrosecondArray::from(instants).with_timezone("UTC")))
    };
    let unit: StringArray = std::iter::repeat_n(record.unit.as_deref(), count).collect();
    let version = i64::try_from(record.table_version).unwrap_or(i64::MAX);
    let columns = vec![
        same(kind),
        same(&record.id),
        same(&record.meter),
        same(&record.meter_version),
        same(&record.period),
        instants(&record.from)?,
        instants(&record.to)?,
        same(&record.zone),
        Arc::new(Int64Array::from(vec![record.revision; count])),
        Arc::new(Int64Array::from(vec![version; count])),
        own.customer,
        own.value,
        own.converted,
        own.billable,
        Arc::new(unit),
        own.events,
        own.skipped,
        own.text,
    ];
    let schema: SchemaRef = Arc::new(statements::schema());
    RecordBatch::try_new(schema, columns)
        .map_err(|error| Error::internal("rows of statements").with_source(error))
}

fn encode(told: &impl Serialize) -> Result<String> {
    serde_json::to_string(told)
        .map_err(|error| Error::internal("the text of a record").with_source(error))
}

/// Files that are read at the same time.
const FILES_AT_ONCE: usize = 8;

/// The records of a version of the table, of all meters or of more than one, and what was opened again, by
/// the id of the closing.
///
/// # Errors
/// A file that cannot be read or is damaged.
pub(super) async fn records(
    table: &Table,
    snapshot: &Snapshot,
    meter: Option<&str>,
) -> Result<(Vec<Record>, Vec<(String, Change)>)> {
    let (mut closings, mut reopenings) = (Vec::new(), Vec::new());
    let read = record_files(snapshot, meter).into_iter().map(|path| StoredFile::get(table, path));
    let mut read = futures::stream::iter(read).buffered(FILES_AT_ONCE);
    while let Some(stored) = read.next().await {
        let stored = stored.map_err(|error| match error.kind() {
            ErrorKind::Corrupt => error.noting(
                "what was closed cannot be told without it: put back a copy of it, of a backup or of an \
                 earlier version that the store keeps",
            ),
            _ => error,
        })?;
        let wanted = [statements::KIND, statements::RECORD];
        for rows in stored.rows(Some(&wanted), None, BATCH_ROWS)? {
            let rows = stored.checked(rows)?;
            let texts = |place: usize| {
                let column = rows.columns().get(place).and_then(|c| c.as_string_opt::<i32>());
                column.ok_or_else(|| stored.damaged(&"a column is no text"))
            };
            // The columns come in the order of the file.
            let (kinds, told) = (texts(0)?, texts(1)?);
            for row in (0..rows.num_rows()).filter(|row| told.is_valid(*row)) {
                match kinds.value(row) {
                    KIND_CLOSING => closings.push(decode(told.value(row), &stored)?),
                    KIND_REOPENING => {
                        let Reopening { id, change } = decode(told.value(row), &stored)?;
                        reopenings.push((id, change));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok((closings, reopenings))
}

fn decode<T: DeserializeOwned>(text: &str, stored: &StoredFile) -> Result<T> {
    serde_json::from_str(text).map_err(|error| stored.damaged(&error))
}

/// The files that may hold records of a meter: lines have none.
fn record_files<'s>(snapshot: &'s Snapshot, meter: Option<&str>) -> Vec<&'s str> {
    let [least, greatest] = [snapshot.stats().min(METER), snapshot.stats().max(METER)];
    let bound = |bounds: &Option<ArrayRef>, place: usize| -> Option<String> {
        let texts = bounds.as_ref()?.as_string_opt::<i32>()?;
        texts.is_valid(place).then(|| texts.value(place).to_owned())
    };
    // A bound may be cut short; one that is higher holds all the same.
    let may_be_of = |place: usize| {
        meter.is_none_or(|meter| {
            bound(&least, place).is_none_or(|least| least.as_str() <= meter)
                && bound(&greatest, place).is_none_or(|greatest| greatest.as_str() >= meter)
        })
    };
    let without = snapshot.stats().null_count(statements::RECORD);
    let without: Option<&UInt64Array> =
        without.as_ref().map(|nulls| nulls.as_primitive::<UInt64Type>());
    let may_hold = |place: usize, rows: u64| {
        without.is_none_or(|nulls| nulls.is_null(place) || nulls.value(place) < rows)
    };
    let files = snapshot.files.iter().enumerate();
    let files = files.filter(|(place, file)| may_hold(*place, file.rows) && may_be_of(*place));
    files.map(|(_, file)| file.path.as_str()).collect()
}

/// Gives the lines of a closing, in their order, to `take`.
///
/// # Errors
/// A file that cannot be read or is damaged, and those of `take`.
pub(super) async fn each_line(
    table: &Table,
    record: &Record,
    mut take: impl FnMut(Vec<Line>) -> Result<()>,
) -> Result<()> {
    for path in &record.files {
        let stored = StoredFile::get(table, path).await.map_err(|error| {
            let Record { period, meter, .. } = record;
            error.noting(&format!(
                "it holds lines of the closed period `{period}` of meter `{meter}`"
            ))
        })?;
        for rows in stored.rows(None, None, BATCH_ROWS)? {
            take(lines_of(&stored.checked(rows)?)?)?;
        }
    }
    Ok(())
}
