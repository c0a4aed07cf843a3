//! `per_length(value, window, spans, days, calendar)`: a value divided by the length of its window, 12
//! fractional digits, half-even.
//!
//! The length is microseconds of the window as the range cuts it, or, where `days` says which days
//! there are, the number of days of the whole window. Where spans have no windows, their one window
//! may be null.

use std::sync::Arc;

use arrow::array::{AsArray, Decimal256Builder};
use arrow::datatypes::{
    DECIMAL256_MAX_PRECISION, DataType, Decimal256Type, TimestampMicrosecondType,
};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::super::average::{AVERAGE_SCALE, divide};
use super::super::sum::OVERFLOW;
use super::area::{scale_of, wide_of};
use super::by_calendar::calendar_at;
use super::spans::{Spans, read_parts, read_spans};
use crate::time::WindowStarts;

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct PerLength {
    signature: Signature,
}

impl PerLength {
    /// The function.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for PerLength {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for PerLength {
    fn name(&self) -> &'static str {
        "per_length"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [value, _, _, _, _] = arguments else {
            return exec_err!("per_length takes value, window, spans, days and calendar");
        };
        let instant = crate::schema::timestamp_type();
        Ok(vec![wide_of(value)?, instant, DataType::Utf8, DataType::Utf8, DataType::Int64])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Decimal256(DECIMAL256_MAX_PRECISION, AVERAGE_SCALE))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [
            values,
            windows,
            ColumnarValue::Scalar(ScalarValue::Utf8(Some(spans))),
            ColumnarValue::Scalar(ScalarValue::Utf8(Some(days))),
            calendars,
        ] = args.args.as_slice()
        else {
            return exec_err!("per_length takes value, window, two literals and a calendar");
        };
        let (spans, days) = (read_spans(spans)?, read_parts(days)?);
        let calendars = calendars.to_array(args.number_rows)?;
        let scale = scale_of(args.arg_fields[0].data_type())?;
        let (values, windows) =
            (values.to_array(args.number_rows)?, windows.to_array(args.number_rows)?);
        let values = values.as_primitive::<Decimal256Type>();
        let windows = windows.as_primitive::<TimestampMicrosecondType>();
        let mut quotients = Decimal256Builder::with_capacity(values.len())
            .with_precision_and_scale(DECIMAL256_MAX_PRECISION, AVERAGE_SCALE)?;
        for (row, (value, window)) in values.iter().zip(windows).enumerate() {
            let calendar = calendar_at(&calendars, row);
            let spans = spans.of(calendar);
            let window = window.or_else(|| spans.windows.is_none().then_some(spans.from));
            let (Some(value), Some(window)) = (value, window) else {
                quotients.append_null();
                continue;
            };
            let length = length(spans, days.as_ref().map(|days| days.of(calendar)), window);
            quotients.append_value(divide(value, scale, length).unwrap_or(OVERFLOW));
        }
        Ok(ColumnarValue::Array(Arc::new(quotients.finish())))
    }
}

fn length(spans: &Spans, days: Option<&WindowStarts>, window: i64) -> i64 {
    let Some(days) = days else {
        let (start, end) = spans.bounds(window);
        return end.saturating_sub(start);
    };
    let end = spans.windows.as_ref().map_or(spans.to, |windows| windows.end_of(window));
    let whole = Spans { from: window, to: end, windows: Some(days.clone()) };
    i64::try_from(whole.windows_from(window).count()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_as_long_as_the_range_leaves_it_but_has_all_its_days() {
        let windows = Some(WindowStarts::Boundaries(vec![0, 100, 200]));
        let spans = Spans { from: 40, to: 150, windows };
        let days = WindowStarts::Boundaries((0..=20).map(|day| day * 10).collect());
        assert_eq!([0, 100].map(|window| length(&spans, None, window)), [60, 50]);
        assert_eq!([0, 100].map(|window| length(&spans, Some(&days), window)), [10, 10]);
        let whole = Spans { windows: None, ..spans };
        assert_eq!(length(&whole, None, 40), 110);
        assert_eq!(length(&whole, Some(&days), 40), 11);
    }
}
