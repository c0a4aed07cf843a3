//! Lines of closed periods as rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::error::ArrowError;

use super::format::{Format, Shape};
use super::record::{Basis, Computed};
use super::{Rows, stripe};
use crate::error::{Error, Result};
use crate::period::{Closing, Line, Record, each_lines};
use crate::schema::CUSTOMER_ID;
use crate::time::{Timestamp, format_in_zone, parse_zone};
use crate::usage::{Context, columns};

/// What the rows of closed periods are computed of: themselves.
pub(super) fn basis(closings: &[Closing]) -> Vec<Basis> {
    closings.iter().map(|closing| basis_of(&closing.record)).collect()
}

fn basis_of(record: &Record) -> Basis {
    Basis {
        meter: record.meter.clone(),
        meter_version: record.meter_version.clone(),
        table_version: record.table_version,
        lookups: record.lookups.clone(),
        closing: Some(record.id.clone()),
    }
}

/// Gives the lines of all closings to `rows`.
///
/// # Errors
/// A file that cannot be read; those of `rows`.
pub(super) async fn each(
    context: &Context,
    closings: &[Closing],
    rows: &mut Rows<'_>,
) -> Result<Vec<Computed>> {
    let mut computed = Vec::with_capacity(closings.len());
    let of_one = |pair: &[Closing]| pair[0].record.meter == pair[1].record.meter;
    let has_name = rows.export.events.is_some_and(|events| events.event_name.is_some());
    if has_name && !closings.windows(2).all(of_one) {
        return Err(Error::invalid(
            "one name of events is of one meter: export each meter to a file of its own",
        ));
    }
    // What folders' names tell is in no column of Parquet, where readers would have it twice.
    let is_told = rows.export.partitioned && rows.export.format == Format::Parquet;
    let unpartitioned = |lines: RecordBatch| match is_told {
        true => {
            let rest: Vec<usize> = (PARTITIONS..lines.num_columns()).collect();
            lines.project(&rest).map_err(defect)
        }
        false => Ok(lines),
    };
    let schema = unpartitioned(line_rows(None, &[])?)?.schema();
    rows.begin(&schema, Shape { days: true })?;
    for Closing { record, .. } in closings {
        let bounds = bounds_in_zone(record)?;
        let of = stripe::Of {
            meter: record.meter.clone(),
            from: Some(record.from.clone()),
            to: Some(record.to.clone()),
        };
        let (mut events, mut skipped) = (0, 0);
        each_lines(context, record, |lines| {
            events += lines.iter().map(|line| line.events).sum::<i64>();
            skipped += lines.iter().map(|line| line.skipped).sum::<i64>();
            rows.take(&unpartitioned(line_rows(Some((record, &bounds)), &lines)?)?, &of)
        })
        .await?;
        computed.push(Computed {
            basis: basis_of(record),
            from: Some(bounds.0),
            to: Some(bounds.1),
            zone: record.zone.clone(),
            unit: record.unit.clone(),
            events,
            skipped,
            revision: Some(record.revision),
            statement_sha256: Some(record.sha256.clone()),
        });
    }
    Ok(computed)
}

/// The bounds of a period, as they are told in its zone.
fn bounds_in_zone(record: &Record) -> Result<(String, String)> {
    let zone = parse_zone(&record.zone)?;
    let told = |text: &str| -> Result<String> {
        let instant = Timestamp::parse_rfc3339(text).map_err(|error| {
            Error::corrupt(format!("the instant `{text}` of a closed period {error}"))
        })?;
        Ok(format_in_zone(instant, &zone))
    };
    Ok((told(&record.from)?, told(&record.to)?))
}

fn line_rows(of: Option<(&Record, &(String, String))>, lines: &[Line]) -> Result<RecordBatch> {
    let same = |text: fn(&Record, &(String, String)) -> Option<String>| -> ArrayRef {
        let text = of.and_then(|(record, bounds)| text(record, bounds));
        Arc::new(std::iter::repeat_n(text, lines.len()).collect::<StringArray>())
    };
    let texts = |text: fn(&Line) -> Option<&str>| -> ArrayRef {
        Arc::new(lines.iter().map(text).collect::<StringArray>())
    };
    let numbers = |number: fn(&Line) -> i64| -> ArrayRef {
        Arc::new(lines.iter().map(|line| Some(number(line))).collect::<Int64Array>())
    };
    let of_all = |number: fn(&Record) -> i64| -> ArrayRef {
        let number = of.map(|(record, _)| number(record));
        Arc::new(std::iter::repeat_n(number, lines.len()).collect::<Int64Array>())
    };
    let version = |record: &Record| i64::try_from(record.table_version).unwrap_or(i64::MAX);
    RecordBatch::try_from_iter_with_nullable([
        (columns::METER, same(|record, _| Some(record.meter.clone())), false),
        ("period", same(|record, _| Some(record.period.clone())), false),
        ("period_start", same(|_, bounds| Some(bounds.0.clone())), false),
        ("period_end", same(|_, bounds| Some(bounds.1.clone())), false),
        ("zone", same(|record, _| Some(record.zone.clone())), false),
        (CUSTOMER_ID, texts(|line| line.customer.as_deref()), true),
        (columns::VALUE, texts(|line| line.value.as_deref()), true),
        (columns::CONVERTED, texts(|line| line.converted.as_deref()), true),
        (columns::BILLABLE, texts(|line| line.billable.as_deref()), true),
        ("unit", same(|record, _| record.unit.clone()), true),
        (columns::EVENTS, numbers(|line| line.events), false),
        (columns::SKIPPED, numbers(|line| line.skipped), false),
        ("revision", of_all(|record| record.revision), false),
        ("meter_version", same(|record, _| Some(record.meter_version.clone())), false),
        ("table_version", of_all(version), false),
    ])
    .map_err(defect)
}

/// The first columns: meter and period.
const PARTITIONS: usize = 2;

fn defect(error: ArrowError) -> Error {
    Error::internal("rows of statements").with_source(error)
}
