//! Windows as a column to group by, the same for all or each customer's own.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::{Expr, cast, ident, lit};

use super::operand::Operands;
use super::{GroupKey, output};
use crate::functions;
use crate::functions::series::by_calendar::ByCalendar;
use crate::schema::{EVENT_DATE, TIMESTAMP, timestamp_type};
use crate::time::{Calendars, WindowStarts};

/// The windows of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Windows {
    /// The same for all events.
    Shared(WindowStarts),
    /// Each customer's own; the answer must be grouped by customer to have a meaning.
    PerCustomer(Calendars),
}

/// The column of window starts.
///
/// Windows that begin at midnights of UTC are told from the partition, without any timestamp; where
/// each is a date, the date itself is hashed. `at` is the instant of an event, where that is not its
/// timestamp.
pub(super) fn key(windows: &Windows, operands: Operands<'_>, at: Option<&Expr>) -> GroupKey {
    let starts = match windows {
        Windows::Shared(starts) => starts,
        Windows::PerCustomer(calendars) => return key_of_calendars(calendars, operands, at),
    };
    let start = |instant| functions::window_start().call(vec![instant, lit(starts.to_literal())]);
    let name = output::WINDOW_START;
    if let Some(at) = at {
        GroupKey::new(name, start(at.clone()))
    } else if starts.all_utc_dates() {
        let key = GroupKey::new(name, ident(EVENT_DATE));
        GroupKey { shown: start(midnight(key.shown)), ..key }
    } else if starts.all_utc_midnights() {
        GroupKey::new(name, start(midnight(ident(EVENT_DATE))))
    } else {
        GroupKey::new(name, start(ident(TIMESTAMP)))
    }
}

fn key_of_calendars(calendars: &Calendars, operands: Operands<'_>, at: Option<&Expr>) -> GroupKey {
    let by_date = calendars.starts.iter().all(WindowStarts::all_utc_midnights);
    let instant = match at {
        Some(at) => at.clone(),
        None if by_date => midnight(ident(EVENT_DATE)),
        None => ident(TIMESTAMP),
    };
    let literal = lit(calendars.starts_to_literal());
    let arguments = vec![instant, calendar_of(calendars, operands.customer()), literal];
    GroupKey::new(output::WINDOW_START, functions::calendar_window_start().call(arguments))
}

/// The start of the window of the meter's own that has the instant `at`, in the calendar of an event's
/// customer.
pub(super) fn own(
    parts: &ByCalendar<WindowStarts>,
    windows: Option<&Windows>,
    operands: Operands<'_>,
    at: &Expr,
) -> Expr {
    let literal = lit(parts.otherwise.to_literal());
    let otherwise = functions::window_start().call(vec![at.clone(), literal]);
    if parts.of_calendars.is_empty() {
        return otherwise;
    }
    let of_calendars = Calendars { starts: parts.of_calendars.clone(), ..Calendars::default() };
    let number = calendar(windows, operands.customer());
    let arguments = vec![at.clone(), number, lit(of_calendars.starts_to_literal())];
    coalesce(vec![functions::calendar_window_start().call(arguments), otherwise])
}

/// The number of the calendar of a customer; null where the windows are the same for all.
pub(super) fn calendar(windows: Option<&Windows>, customer: Expr) -> Expr {
    match windows {
        Some(Windows::PerCustomer(calendars)) => calendar_of(calendars, customer),
        Some(Windows::Shared(_)) | None => lit(ScalarValue::Int64(None)),
    }
}

fn calendar_of(calendars: &Calendars, customer: Expr) -> Expr {
    let number = |place: usize| i64::try_from(place).ok();
    let list = |values: Vec<ScalarValue>, kind: &DataType| {
        lit(ScalarValue::List(ScalarValue::new_list_nullable(&values, kind)))
    };
    let customers = calendars.of_customer.keys().map(|name| ScalarValue::from(name.as_str()));
    let numbers = calendars.of_customer.values().map(|place| ScalarValue::Int64(number(*place)));
    functions::calendar().call(vec![
        customer,
        list(customers.collect(), &DataType::Utf8),
        list(numbers.collect(), &DataType::Int64),
        lit(ScalarValue::Int64(calendars.otherwise.and_then(number))),
    ])
}

/// The first instant of a date of UTC.
fn midnight(date: Expr) -> Expr {
    cast(cast(date, DataType::Timestamp(TimeUnit::Microsecond, None)), timestamp_type())
}
