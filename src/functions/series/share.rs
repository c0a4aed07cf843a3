//! `shares(value, start, end, at, spans, calendar)`: a value of a stretch of time, cut into windows.
//!
//! What belongs to the time up to an instant is value × elapsed ÷ length, rounded half-even to 18
//! fractional digits where it has more; a window's share is the difference between its two ends. So
//! the shares of adjacent windows always add up, and those of the whole stretch to the value itself. A stretch of no length is an instant,
//! and its value whole in the window that holds it. An event without a usable stretch is skipped, in
//! the window of `at`.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Decimal256Type, TimestampMicrosecondType, i256};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::super::average::half_even;
use super::super::number::WIDE_SCALE;
use super::area::{scale_of, wide_of};
use super::by_calendar::calendar_at;
use super::pieces::{Piece, list_type, lists};
use super::spans::{Spans, read_spans};
use crate::decimal::Decimal;

/// Fractional digits of a share that ends within its event: as many as a property's decimals have.
const SHARE_SCALE: i8 = 18;

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Shares {
    signature: Signature,
}

impl Shares {
    /// The function.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for Shares {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for Shares {
    fn name(&self) -> &'static str {
        "shares"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [value, _, _, _, _, _] = arguments else {
            return exec_err!("shares takes value, start, end, at, spans and calendar");
        };
        let instant = crate::schema::timestamp_type();
        Ok(vec![
            wide_of(value)?,
            instant.clone(),
            instant.clone(),
            instant,
            DataType::Utf8,
            DataType::Int64,
        ])
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(list_type(scale_of(&arguments[0])?.max(SHARE_SCALE)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [
            value,
            start,
            end,
            at,
            ColumnarValue::Scalar(ScalarValue::Utf8(Some(spans))),
            calendars,
        ] = args.args.as_slice()
        else {
            return exec_err!("shares takes value, start, end, at, a literal and a calendar");
        };
        let spans = read_spans(spans)?;
        let calendars = calendars.to_array(args.number_rows)?;
        let scale = scale_of(args.arg_fields[0].data_type())?;
        let out = scale.max(SHARE_SCALE);
        let widening = i256::from(10).wrapping_pow(u32::try_from(out - scale).unwrap_or(0));
        let rows = args.number_rows;
        let value = value.to_array(rows)?;
        let value = value.as_primitive::<Decimal256Type>();
        let instants = [start, end, at].map(|column| column.to_array(rows));
        let [start, end, at] = instants;
        let (start, end, at) = (start?, end?, at?);
        let [start, end, at] =
            [&start, &end, &at].map(|column| column.as_primitive::<TimestampMicrosecondType>());
        let mut cut = Vec::with_capacity(rows);
        for row in 0..rows {
            let instant = |column: &arrow::array::TimestampMicrosecondArray| {
                column.is_valid(row).then(|| column.value(row))
            };
            let value = value.is_valid(row).then(|| value.value(row));
            let spans = spans.of(calendar_at(&calendars, row));
            cut.push(match (instant(start), instant(end)) {
                (Some(start), Some(end)) if start <= end => {
                    let value = match value.map(|value| value.checked_mul(widening)) {
                        Some(None) => return exec_err!("a value to prorate has too many digits"),
                        value => value.flatten(),
                    };
                    pieces(value, (start, end), spans, out)?
                }
                // No usable stretch.
                _ => instant(at)
                    .and_then(|at| spans.holding(at))
                    .map(|window| Piece { window, value: None, events: 0, matched: 1 })
                    .into_iter()
                    .collect(),
            });
        }
        Ok(ColumnarValue::Array(Arc::new(lists(&cut, out)?)))
    }
}

/// The shares of the windows that the stretch touches.
fn pieces(
    value: Option<i256>,
    stretch: (i64, i64),
    spans: &Spans,
    scale: i8,
) -> Result<Vec<Piece>> {
    let (start, end) = stretch;
    let piece = |window, share: Option<i256>| Piece {
        window,
        value: share,
        events: i64::from(share.is_some()),
        matched: 1,
    };
    if start == end {
        return Ok(spans.holding(start).map(|window| piece(window, value)).into_iter().collect());
    }
    let mut pieces = Vec::new();
    for window in spans.windows_from(start) {
        let (from, to) = spans.bounds(window);
        let (from, to) = (from.max(start), to.min(end));
        if from >= end {
            break;
        }
        if from >= to {
            continue;
        }
        let share = match value {
            None => None,
            Some(value) => match [to, from].map(|at| up_to(value, at, stretch, scale)) {
                [Some(to), Some(from)] => to.checked_sub(from),
                _ => return exec_err!("a value to prorate has too many digits"),
            },
        };
        pieces.push(piece(window, share));
    }
    Ok(pieces)
}

/// What belongs to the time from the beginning of the stretch up to `instant`, of a value with
/// `scale` fractional digits.
fn up_to(value: i256, instant: i64, (start, end): (i64, i64), scale: i8) -> Option<i256> {
    if instant >= end {
        return Some(value);
    }
    let (elapsed, length) = (instant.checked_sub(start)?, end.checked_sub(start)?);
    // As many digits whatever the type of the column, so that layouts do not show.
    let cut = i256::from(10).checked_pow(u32::try_from(scale.checked_sub(SHARE_SCALE)?).ok()?)?;
    let narrow = || {
        let divisor = i256::from(length).checked_mul(cut)?;
        half_even(value.checked_mul(i256::from(elapsed))?, divisor)
    };
    let digits = SHARE_SCALE.unsigned_abs();
    let wide = || {
        let value = Decimal::from_scaled(value, scale.unsigned_abs());
        let product = &value * &Decimal::from(elapsed);
        let share = product.divide_half_even(&Decimal::from(length), digits.into())?;
        let power = i256::from(10).checked_pow(u32::from(WIDE_SCALE.unsigned_abs() - digits))?;
        share.to_number()?.to_wide().checked_div(power)
    };
    narrow().or_else(wide)?.checked_mul(cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::WindowStarts;

    #[test]
    fn shares_add_up_to_the_whole() {
        let windows = Some(WindowStarts::Boundaries(vec![0, 10, 20, 30]));
        let spans = Spans { from: 0, to: 30, windows };
        let of = |value: i64, stretch, spans: &Spans| {
            let pieces = pieces(Some(i256::from(value)), stretch, spans, SHARE_SCALE).unwrap();
            pieces.iter().map(|p| p.value.unwrap().to_i128().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(of(100, (0, 30), &spans), [33, 34, 33]);
        assert_eq!(of(100, (5, 25), &spans), [25, 50, 25]);
        assert_eq!(of(-100, (0, 30), &spans), [-33, -34, -33]);
        assert_eq!(of(7, (12, 13), &spans), [7]);
        assert_eq!(of(7, (20, 20), &spans), [7]);
        assert_eq!(of(7, (30, 30), &spans), Vec::<i128>::new());
        // What lies before and after the question is left out.
        assert_eq!(of(100, (-10, 40), &spans), [20, 20, 20]);
        assert_eq!(of(100, (-10, 0), &spans), Vec::<i128>::new());
        let cut = Spans { from: 5, to: 15, ..spans };
        assert_eq!(of(100, (0, 20), &cut), [25, 25]);
    }
}
