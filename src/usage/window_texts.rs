//! The columns of an answer that say what window a row is of.

use std::sync::Arc;

use arrow::array::builder::NullBufferBuilder;
use arrow::array::{Array, ArrayRef, BooleanBuilder, PrimitiveArray, StringArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::TimestampMicrosecondType;

use super::windows::ResolvedWindows;
use crate::error::{Error, Result};
use crate::plan::Windows;
use crate::time::{TimeRange, Timestamp, format_in_zone};

/// How one window is shown.
struct Shown {
    texts: [String; 2],
    partial: bool,
}

/// Start, end and, where `with_partial`, whether a bound of the range cuts them, for each row; all
/// null where a customer has no periods. Start and end are those of the part within the range.
///
/// # Errors
/// A defect of ours.
pub(super) fn window_columns(
    resolved: &ResolvedWindows,
    range: TimeRange,
    starts: &PrimitiveArray<TimestampMicrosecondType>,
    customers: Option<&StringArray>,
    with_partial: bool,
) -> Result<Vec<ArrayRef>> {
    let (mut from, mut to) = (Texts::new(starts.len()), Texts::new(starts.len()));
    let mut partial = BooleanBuilder::new();
    let window = |row: usize| {
        let start = starts.is_valid(row).then(|| starts.value(row));
        start.zip(calendar_of(&resolved.windows, customers, row))
    };
    let mut row = 0;
    while row < starts.len() {
        let of_row = window(row);
        let end = (row + 1..starts.len()).find(|next| window(*next) != of_row);
        let rows = end.unwrap_or(starts.len()) - row;
        row += rows;
        let Some((start, calendar)) = of_row else {
            from.append(None, rows);
            to.append(None, rows);
            partial.append_nulls(rows);
            continue;
        };
        let Shown { texts: [first, last], partial: is_cut } =
            shown(resolved, range, start, calendar);
        from.append(Some(&first), rows);
        to.append(Some(&last), rows);
        partial.append_n(rows, is_cut);
    }
    let mut columns: Vec<ArrayRef> = vec![Arc::new(from.finish()?), Arc::new(to.finish()?)];
    if with_partial {
        columns.push(Arc::new(partial.finish()));
    }
    Ok(columns)
}

/// Texts of which many are the same one after the other: written in one go, which takes a third of the time
/// of one by one.
struct Texts {
    bytes: Vec<u8>,
    lengths: Vec<usize>,
    nulls: NullBufferBuilder,
}

impl Texts {
    fn new(rows: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(rows * "2026-10-01T00:00:00Z".len()),
            lengths: Vec::with_capacity(rows),
            nulls: NullBufferBuilder::new(rows),
        }
    }

    fn append(&mut self, text: Option<&str>, rows: usize) {
        let bytes = text.unwrap_or_default().as_bytes();
        for _ in 0..rows {
            self.bytes.extend_from_slice(bytes);
        }
        self.lengths.extend(std::iter::repeat_n(bytes.len(), rows));
        match text {
            Some(_) => self.nulls.append_n_non_nulls(rows),
            None => self.nulls.append_n_nulls(rows),
        }
    }

    fn finish(mut self) -> Result<StringArray> {
        let offsets = OffsetBuffer::from_lengths(self.lengths);
        StringArray::try_new(offsets, self.bytes.into(), self.nulls.finish())
            .map_err(|error| Error::internal("texts of windows").with_source(error))
    }
}

/// The calendar that a row's window is of.
pub(super) fn calendar_of(
    windows: &Windows,
    customers: Option<&StringArray>,
    row: usize,
) -> Option<usize> {
    match windows {
        Windows::Shared(_) => Some(0),
        Windows::PerCustomer(calendars) => {
            let named = customers.filter(|customers| customers.is_valid(row));
            calendars.calendar_of(named.map(|customers| customers.value(row)))
        }
    }
}

fn shown(resolved: &ResolvedWindows, range: TimeRange, start: i64, calendar: usize) -> Shown {
    let starts = match &resolved.windows {
        Windows::Shared(starts) => Some(starts),
        Windows::PerCustomer(calendars) => calendars.starts.get(calendar),
    };
    let whole_end = starts.map_or(start, |starts| starts.end_of(start));
    let from = range.from.map_or(start, |bound| bound.micros().max(start));
    let to = range.to.map_or(whole_end, |bound| bound.micros().min(whole_end));
    let text = |instant: i64| {
        let instant = Timestamp::from_micros(instant);
        resolved
            .zones
            .get(calendar)
            .map_or_else(|| instant.to_string(), |zone| format_in_zone(instant, zone))
    };
    let partial = from != start || to != whole_end;
    Shown { texts: [text(from), text(to)], partial }
}
