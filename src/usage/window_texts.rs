//! The columns of an answer that say what window a row is of.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanBuilder, PrimitiveArray, StringArray, StringBuilder};
use arrow::datatypes::TimestampMicrosecondType;

use super::windows::ResolvedWindows;
use crate::plan::Windows;
use crate::time::{TimeRange, Timestamp, format_in_zone};

/// The texts of one window, which the rows after it mostly have too.
struct Shown {
    start: i64,
    calendar: usize,
    texts: [String; 2],
    partial: bool,
}

/// Start, end and, where `with_partial`, whether a bound of the range cuts them, for each row; all
/// null where a customer has no periods. Start and end are those of the part within the range.
pub(super) fn window_columns(
    resolved: &ResolvedWindows,
    range: TimeRange,
    starts: &PrimitiveArray<TimestampMicrosecondType>,
    customers: Option<&StringArray>,
    with_partial: bool,
) -> Vec<ArrayRef> {
    let (mut from, mut to) = (StringBuilder::new(), StringBuilder::new());
    let mut partial = BooleanBuilder::new();
    let mut last: Option<Shown> = None;
    for (row, start) in starts.iter().enumerate() {
        let calendar = calendar_of(&resolved.windows, customers, row);
        let (Some(start), Some(calendar)) = (start, calendar) else {
            from.append_null();
            to.append_null();
            partial.append_null();
            continue;
        };
        let shown = match last.take() {
            Some(known) if known.start == start && known.calendar == calendar => known,
            _ => shown(resolved, range, start, calendar),
        };
        from.append_value(&shown.texts[0]);
        to.append_value(&shown.texts[1]);
        partial.append_value(shown.partial);
        last = Some(shown);
    }
    let mut columns: Vec<ArrayRef> = vec![Arc::new(from.finish()), Arc::new(to.finish())];
    if with_partial {
        columns.push(Arc::new(partial.finish()));
    }
    columns
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
    Shown { start, calendar, texts: [text(from), text(to)], partial }
}
