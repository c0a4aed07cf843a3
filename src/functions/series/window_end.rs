//! `window_end(at, windows, calendar)`: the end of the window that holds an instant, by the windows of
//! a calendar; of what was before them all, the start of the first, and behind them null.

use std::sync::Arc;

use arrow::array::{Array, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::by_calendar::calendar_at;
use super::spans::read_parts;
use crate::schema::timestamp_type;
use crate::time::{Timestamp, WindowStarts};

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct WindowEnd {
    signature: Signature,
}

impl WindowEnd {
    /// The function.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for WindowEnd {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for WindowEnd {
    fn name(&self) -> &'static str {
        "window_end"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [_, _, _] = arguments else {
            return exec_err!("window_end takes an instant, windows and a calendar");
        };
        Ok(vec![timestamp_type(), DataType::Utf8, DataType::Int64])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(timestamp_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [at, ColumnarValue::Scalar(ScalarValue::Utf8(Some(windows))), calendars] =
            args.args.as_slice()
        else {
            return exec_err!("window_end takes an instant, a literal and a calendar");
        };
        let windows = read_parts(windows)?;
        let at = at.to_array(args.number_rows)?;
        let calendars = calendars.to_array(args.number_rows)?;
        let at = at.as_primitive::<TimestampMicrosecondType>();
        let end = |row: usize| {
            let windows = windows.as_ref()?.of(calendar_at(&calendars, row));
            at.is_valid(row).then(|| end_of(windows, at.value(row)))?
        };
        let ends: TimestampMicrosecondArray = (0..at.len()).map(end).collect();
        Ok(ColumnarValue::Array(Arc::new(ends.with_data_type(timestamp_type()))))
    }
}

fn end_of(windows: &WindowStarts, instant: i64) -> Option<i64> {
    let start = windows.start_of(instant);
    let end = if start > instant { start } else { windows.end_of(start) };
    // Windows that go to the end of time have none.
    (end > instant && end < Timestamp::MAX.micros()).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_ends_where_the_next_begins() {
        let windows = WindowStarts::Boundaries(vec![0, 10, 25]);
        let ends = [-7, 0, 9, 10, 24].map(|instant| end_of(&windows, instant));
        assert_eq!(ends, [Some(0), Some(10), Some(10), Some(25), Some(25)]);
        // Behind them all nothing is known, and nothing asked.
        assert_eq!(end_of(&windows, 25), None);
        let all = [Timestamp::MIN, Timestamp::MAX].map(Timestamp::micros);
        assert_eq!(end_of(&WindowStarts::Boundaries(all.into()), 25), None);
    }
}
