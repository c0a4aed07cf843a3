//! What a closed period says of one customer, and the text that its hash is made of.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::store::Record;
use crate::decimal::Decimal;
use crate::error::{Error, Result};
use crate::render::hexadecimal;
use crate::schema::CUSTOMER_ID;
use crate::time::{TimeRange, Timestamp};
use crate::usage::columns;

/// What a closed period says of one customer: the numbers of usage, as the texts that it printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The customer; `None` for events that have none.
    pub customer: Option<String>,
    /// In raw units, exact.
    pub value: Option<String>,
    /// In the meter's unit, if it has one.
    pub converted: Option<String>,
    /// As billed.
    pub billable: Option<String>,
    /// Events that made the value.
    pub events: i64,
    /// Events that matched and had no usable value.
    pub skipped: i64,
}

impl Line {
    /// Whether nothing was used, as where a level is carried on that is none.
    pub(super) fn is_of_nothing(&self) -> bool {
        let value = self.value.as_deref().and_then(|value| value.parse::<Decimal>().ok());
        self.events == 0 && self.skipped == 0 && value.is_none_or(|value| value.is_zero())
    }
}

/// A statement on its own: all that its line and the record say, in the order in which it is hashed.
#[derive(Serialize)]
struct Statement<'s> {
    meter: &'s str,
    meter_version: &'s str,
    from: &'s str,
    to: &'s str,
    zone: &'s str,
    table_version: u64,
    lookups: &'s std::collections::BTreeMap<String, i64>,
    customer_id: Option<&'s str>,
    value: Option<&'s str>,
    converted: Option<&'s str>,
    billable: Option<&'s str>,
    unit: Option<&'s str>,
    events: i64,
    skipped: i64,
}

impl Line {
    /// The text of the statement, one line of JSON. A closed period's SHA-256 is over these, each with a
    /// line feed behind it, by customer, whoever has none first.
    ///
    /// # Errors
    /// A defect of ours.
    pub fn text(&self, record: &Record) -> Result<String> {
        let statement = Statement {
            meter: &record.meter,
            meter_version: &record.meter_version,
            from: &record.from,
            to: &record.to,
            zone: &record.zone,
            table_version: record.table_version,
            lookups: &record.lookups,
            customer_id: self.customer.as_deref(),
            value: self.value.as_deref(),
            converted: self.converted.as_deref(),
            billable: self.billable.as_deref(),
            unit: record.unit.as_deref(),
            events: self.events,
            skipped: self.skipped,
        };
        serde_json::to_string(&statement)
            .map_err(|error| Error::internal("the text of a statement").with_source(error))
    }
}

/// What lines come to: how many there are, and the hash over their texts.
#[derive(Default)]
pub(super) struct Hashed {
    hasher: Sha256,
    count: u64,
}

impl Hashed {
    /// Adds the lines that come next.
    ///
    /// # Errors
    /// A defect of ours.
    pub(super) fn add(&mut self, record: &Record, lines: &[Line]) -> Result<()> {
        for line in lines {
            self.hasher.update(line.text(record)?.as_bytes());
            self.hasher.update(b"\n");
        }
        self.count += lines.len() as u64;
        Ok(())
    }

    /// How many lines there were, and their SHA-256.
    pub(super) fn finish(self) -> (u64, String) {
        (self.count, hexadecimal(&self.hasher.finalize()))
    }
}

/// The lines in rows that have the columns of usage by customer.
///
/// # Errors
/// A column that is missing or of another type.
pub(super) fn lines_of(rows: &RecordBatch) -> Result<Vec<Line>> {
    lines_of_some(rows, |_| Ok(true))
}

/// The lines in rows of usage by customer and billing period, of those whose period this is.
///
/// # Errors
/// As [`lines_of`].
pub(super) fn lines_of_period(rows: &RecordBatch, period: TimeRange) -> Result<Vec<Line>> {
    let missing = |name: &str| Error::internal(format!("rows of periods have no `{name}`"));
    let bound = |name: &str, row: usize| -> Result<Option<Timestamp>> {
        let column = rows.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
        let texts = column.ok_or_else(|| missing(name))?;
        texts.is_valid(row).then(|| super::instant(texts.value(row))).transpose()
    };
    // One that the range cuts is shown with the bounds of the range.
    let partial = rows.column_by_name(columns::PARTIAL).and_then(|column| column.as_boolean_opt());
    lines_of_some(rows, |row| {
        let cut = partial.is_some_and(|cut| cut.is_valid(row) && cut.value(row));
        let [from, to] = [columns::WINDOW_START, columns::WINDOW_END];
        Ok(!cut && bound(from, row)? == period.from && bound(to, row)? == period.to)
    })
}

fn lines_of_some(
    rows: &RecordBatch,
    is_wanted: impl Fn(usize) -> Result<bool>,
) -> Result<Vec<Line>> {
    let missing = |name: &str| Error::internal(format!("a statement has no column `{name}`"));
    let text = |name: &str, row: usize| -> Result<Option<String>> {
        let Some(column) = rows.column_by_name(name) else { return Ok(None) };
        let texts = column.as_string_opt::<i32>().ok_or_else(|| missing(name))?;
        Ok(texts.is_valid(row).then(|| texts.value(row).to_owned()))
    };
    let number = |name: &str, row: usize| -> Result<i64> {
        let column = rows.column_by_name(name).and_then(|c| c.as_primitive_opt::<Int64Type>());
        Ok(column.ok_or_else(|| missing(name))?.value(row))
    };
    let line = |row: usize| -> Result<Line> {
        Ok(Line {
            customer: text(CUSTOMER_ID, row)?,
            value: text(columns::VALUE, row)?,
            converted: text(columns::CONVERTED, row)?,
            billable: text(columns::BILLABLE, row)?,
            events: number(columns::EVENTS, row)?,
            skipped: number(columns::SKIPPED, row)?,
        })
    };
    let mut lines = Vec::with_capacity(rows.num_rows());
    for row in 0..rows.num_rows() {
        if is_wanted(row)? {
            lines.push(line(row)?);
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_events_and_value_is_of_nothing() {
        for (value, events, skipped, want) in [
            (Some("0"), 0, 0, true),
            (Some("0.000"), 0, 0, true),
            (None, 0, 0, true),
            (Some("3"), 0, 0, false),
            (Some("0"), 1, 0, false),
            (None, 0, 1, false),
        ] {
            let value = value.map(ToOwned::to_owned);
            let (customer, converted, billable) = (None, None, None);
            let line = Line { customer, value, converted, billable, events, skipped };
            assert_eq!(line.is_of_nothing(), want, "{line:?}");
        }
    }
}
