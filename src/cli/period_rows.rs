//! Closings, their lines and what changed since as rows.
//!
//! Only puts into columns what it is given. Quantities stay texts, to the last digit.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray, UInt64Array};
use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;

use crate::error::{Error, Result};
use crate::period::{Adjustment, Closing, Line, Record};

/// A row for each closing.
pub(super) fn list_rows(all: &[Closing]) -> Result<RecordBatch> {
    let texts = |text: fn(&Closing) -> Option<&str>| -> ArrayRef {
        Arc::new(all.iter().map(text).collect::<StringArray>())
    };
    let lookups = |closing: &Closing| serde_json::to_string(&closing.record.lookups).ok();
    let lookups: StringArray = all.iter().map(lookups).collect();
    let revisions: Int64Array = all.iter().map(|c| Some(c.record.revision)).collect();
    let lines: UInt64Array = all.iter().map(|c| Some(c.record.lines)).collect();
    let versions: UInt64Array = all.iter().map(|c| Some(c.record.table_version)).collect();
    let state = |closing: &Closing| Some(if closing.holds() { "closed" } else { "reopened" });
    let states: StringArray = all.iter().map(state).collect();
    RecordBatch::try_from_iter_with_nullable([
        ("meter", texts(|c| Some(&c.record.meter)), false),
        ("period", texts(|c| Some(&c.record.period)), false),
        ("from", texts(|c| Some(&c.record.from)), false),
        ("to", texts(|c| Some(&c.record.to)), false),
        ("zone", texts(|c| Some(&c.record.zone)), false),
        ("state", Arc::new(states) as ArrayRef, false),
        ("revision", Arc::new(revisions) as ArrayRef, false),
        ("lines", Arc::new(lines) as ArrayRef, false),
        ("unit", texts(|c| c.record.unit.as_deref()), true),
        ("lookups", Arc::new(lookups) as ArrayRef, true),
        ("meter_version", texts(|c| Some(&c.record.meter_version)), false),
        ("table_version", Arc::new(versions) as ArrayRef, false),
        ("closed_at", texts(|c| Some(&c.record.closed.at)), false),
        ("by", texts(|c| c.record.closed.by.as_deref()), true),
        ("reason", texts(|c| c.record.closed.reason.as_deref()), true),
        ("sha256", texts(|c| Some(&c.record.sha256)), false),
    ])
    .map_err(defect)
}

/// The columns of lines that are numbers.
pub(super) const NUMBERS: [&str; 3] = ["value", "converted", "billable"];

/// A row for each line of a closing.
pub(super) fn line_rows(record: &Record, lines: &[Line]) -> Result<RecordBatch> {
    let texts = |text: fn(&Line) -> Option<&str>| -> ArrayRef {
        Arc::new(lines.iter().map(text).collect::<StringArray>())
    };
    let numbers = |number: fn(&Line) -> i64| -> ArrayRef {
        Arc::new(lines.iter().map(|line| Some(number(line))).collect::<Int64Array>())
    };
    let mut columns = vec![
        ("customer_id", texts(|line| line.customer.as_deref()), true),
        ("value", texts(|line| line.value.as_deref()), true),
    ];
    if record.unit.is_some() {
        columns.push(("converted", texts(|line| line.converted.as_deref()), true));
        columns.push(("billable", texts(|line| line.billable.as_deref()), true));
    }
    columns.push(("events", numbers(|line| line.events), false));
    columns.push(("skipped", numbers(|line| line.skipped), false));
    RecordBatch::try_from_iter_with_nullable(columns).map_err(defect)
}

/// The columns of adjustments that are numbers.
pub(super) const ADJUSTED: [&str; 6] =
    ["closed_value", "value", "difference", "closed_billable", "billable", "billable_difference"];

/// A row for each line that would be another; with billable quantities where there is a unit.
pub(super) fn adjustment_rows(found: &[Adjustment], with_unit: bool) -> Result<RecordBatch> {
    let texts = |text: &dyn Fn(&Adjustment) -> Option<String>| -> ArrayRef {
        Arc::new(found.iter().map(text).collect::<StringArray>())
    };
    let of = |side: fn(&Adjustment) -> &Option<Line>, text: fn(&Line) -> &Option<String>| {
        texts(&move |adjustment| side(adjustment).as_ref().and_then(|line| text(line).clone()))
    };
    let mut columns = vec![
        ("customer_id", texts(&|adjustment| adjustment.customer.clone()), true),
        (ADJUSTED[0], of(|a| &a.closed, |line| &line.value), true),
        (ADJUSTED[1], of(|a| &a.now, |line| &line.value), true),
        (ADJUSTED[2], texts(&|a| Some(a.difference.to_string())), false),
    ];
    if with_unit {
        let difference = texts(&|a| a.billable_difference.as_ref().map(ToString::to_string));
        columns.push((ADJUSTED[3], of(|a| &a.closed, |line| &line.billable), true));
        columns.push((ADJUSTED[4], of(|a| &a.now, |line| &line.billable), true));
        columns.push((ADJUSTED[5], difference, true));
    }
    let number = |side: fn(&Adjustment) -> &Option<Line>, number: fn(&Line) -> i64| -> ArrayRef {
        let numbers = found.iter().map(|adjustment| side(adjustment).as_ref().map(number));
        Arc::new(numbers.collect::<Int64Array>())
    };
    columns.push(("closed_events", number(|a| &a.closed, |line| line.events), true));
    columns.push(("events", number(|a| &a.now, |line| line.events), true));
    columns.push(("closed_skipped", number(|a| &a.closed, |line| line.skipped), true));
    columns.push(("skipped", number(|a| &a.now, |line| line.skipped), true));
    RecordBatch::try_from_iter_with_nullable(columns).map_err(defect)
}

/// The rows of each closing in one; with the bounds that they are of where customers have periods of their
/// own, so that a name may mean several.
///
/// # Errors
/// Closings with different units, whose quantities are not to be read as one column.
pub(super) fn together(closings: &[Closing], rows: &[RecordBatch]) -> Result<RecordBatch> {
    if let ([closing], [rows]) = (closings, rows)
        && !closing.record.own
    {
        return Ok(rows.clone());
    }
    let of_units: BTreeSet<Option<&String>> =
        closings.iter().map(|closing| closing.record.unit.as_ref()).collect();
    if of_units.len() > 1 {
        let name =
            |unit: Option<&String>| unit.map_or("none".to_owned(), |unit| format!("`{unit}`"));
        return Err(Error::invalid(format!(
            "these periods were closed with different units ({}): ask for each of them by its bounds \
             (`meterhouse periods list`)",
            of_units.into_iter().map(name).collect::<Vec<_>>().join(", ")
        )));
    }
    let rows = closings.iter().zip(rows).map(|(Closing { record, .. }, rows)| {
        behind(&["from", "to"], &[Some(&record.from), Some(&record.to)], rows)
    });
    let rows = rows.collect::<Result<Vec<_>>>()?;
    let Some(first) = rows.first() else { return Err(Error::internal("rows of no closing")) };
    concat_batches(&first.schema(), &rows).map_err(defect)
}

/// Adjustments of the closings that a name means in one.
///
/// # Errors
/// As [`together`].
pub(super) fn adjustments_of_name(found: &[(Closing, Vec<Adjustment>)]) -> Result<RecordBatch> {
    let rows = found.iter().map(|(closing, found)| {
        let with_unit = closing.record.unit.is_some();
        adjustment_rows(found, with_unit)
    });
    let closings: Vec<Closing> = found.iter().map(|(closing, _)| closing.clone()).collect();
    together(&closings, &rows.collect::<Result<Vec<_>>>()?)
}

/// What adjustments of any meters and periods are told to be of.
const OF_ALL: [&str; 5] = ["meter", "period", "from", "to", "unit"];

/// Adjustments of closings of any meters and periods in one, with what they are of.
///
/// # Errors
/// A defect of ours.
pub(super) fn adjustments_of_all(found: &[(Closing, Vec<Adjustment>)]) -> Result<RecordBatch> {
    let rows = found.iter().map(|(closing, found)| {
        let Record { meter, period, from, to, unit, .. } = &closing.record;
        let told = [Some(meter), Some(period), Some(from), Some(to), unit.as_ref()];
        behind(&OF_ALL, &told, &adjustment_rows(found, true)?)
    });
    let rows = rows.collect::<Result<Vec<_>>>()?;
    // There is a header in any case.
    let none = behind(&OF_ALL, &[None; OF_ALL.len()], &adjustment_rows(&[], true)?)?;
    concat_batches(&none.schema(), &rows).map_err(defect)
}

/// Rows behind columns of texts that are the same for all of them.
fn behind(names: &[&str], told: &[Option<&String>], rows: &RecordBatch) -> Result<RecordBatch> {
    let told = names.iter().zip(told).map(|(name, text)| {
        let column = StringArray::from(vec![text.map(String::as_str); rows.num_rows()]);
        (*name, Arc::new(column) as ArrayRef, *name == "unit")
    });
    let schema = rows.schema();
    let columns =
        schema.fields().iter().zip(rows.columns()).map(|(field, column)| {
            (field.name().as_str(), Arc::clone(column), field.is_nullable())
        });
    RecordBatch::try_from_iter_with_nullable(told.chain(columns)).map_err(defect)
}

fn defect(error: arrow::error::ArrowError) -> Error {
    Error::internal("rows of closed periods").with_source(error)
}
