//! Windows as a column to group by, the same for all or each customer's own.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, cast, ident, lit};

use super::{GroupKey, operand, output};
use crate::functions;
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
/// each is a date, the date itself is hashed.
pub(super) fn key(windows: &Windows) -> GroupKey {
    let starts = match windows {
        Windows::Shared(starts) => starts,
        Windows::PerCustomer(calendars) => return key_of_calendars(calendars),
    };
    let start = |instant| functions::window_start().call(vec![instant, lit(starts.to_literal())]);
    let name = output::WINDOW_START;
    if starts.all_utc_dates() {
        let key = GroupKey::new(name, ident(EVENT_DATE));
        GroupKey { shown: start(midnight(key.shown)), ..key }
    } else if starts.all_utc_midnights() {
        GroupKey::new(name, start(midnight(ident(EVENT_DATE))))
    } else {
        GroupKey::new(name, start(ident(TIMESTAMP)))
    }
}

fn key_of_calendars(calendars: &Calendars) -> GroupKey {
    let by_date = calendars.starts.iter().all(WindowStarts::all_utc_midnights);
    let instant = if by_date { midnight(ident(EVENT_DATE)) } else { ident(TIMESTAMP) };
    let literal = lit(calendars.starts_to_literal());
    let arguments = vec![instant, calendar(calendars), literal];
    GroupKey::new(output::WINDOW_START, functions::calendar_window_start().call(arguments))
}

/// The number of the calendar of an event's customer.
pub(super) fn calendar(calendars: &Calendars) -> Expr {
    let number = |place: usize| i64::try_from(place).ok();
    let list = |values: Vec<ScalarValue>, kind: &DataType| {
        lit(ScalarValue::List(ScalarValue::new_list_nullable(&values, kind)))
    };
    let customers = calendars.of_customer.keys().map(|name| ScalarValue::from(name.as_str()));
    let numbers = calendars.of_customer.values().map(|place| ScalarValue::Int64(number(*place)));
    functions::calendar().call(vec![
        operand::customer(),
        list(customers.collect(), &DataType::Utf8),
        list(numbers.collect(), &DataType::Int64),
        lit(ScalarValue::Int64(calendars.otherwise.and_then(number))),
    ])
}

/// The first instant of a date of UTC.
fn midnight(date: Expr) -> Expr {
    cast(cast(date, DataType::Timestamp(TimeUnit::Microsecond, None)), timestamp_type())
}
