//! Means of integers: the quotients of [`super::arithmetic`], in divisions of 64 bits for nearly all of them.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal256Array, Int64Array};
use arrow::datatypes::{DECIMAL256_MAX_PRECISION, i256};
use datafusion::common::Result;

use super::average::{AVERAGE_SCALE, half_even_narrow};

/// One, with the digits of a mean.
const ONE: i128 = 10_i128.pow(AVERAGE_SCALE.unsigned_abs() as u32);

/// `sums` by `counts`, rounded half-even to 12 digits; null where a side is, and for a count of zero.
pub(super) fn means(sums: &Int64Array, counts: &Int64Array) -> Result<ArrayRef> {
    let means = sums.iter().zip(counts).map(|(sum, count)| mean(sum?, count?).map(i256::from_i128));
    let means = means.collect::<Decimal256Array>();
    Ok(Arc::new(means.with_precision_and_scale(DECIMAL256_MAX_PRECISION, AVERAGE_SCALE)?))
}

/// `sum` by `count` with the digits of a mean; `None` for a count of zero.
fn mean(sum: i64, count: i64) -> Option<i128> {
    let with_digits = |number: i64| i128::from(number) * ONE;
    match (sum.checked_div(count), sum.checked_rem(count)) {
        // What is left has few digits where counts have, and a power of ten is even: its quotient is
        // rounded as that of the whole.
        (Some(whole), Some(rest)) => {
            Some(with_digits(whole) + half_even_narrow(with_digits(rest), i128::from(count))?)
        }
        // By zero, or the smallest of all numbers by -1.
        _ => half_even_narrow(with_digits(sum), i128::from(count)),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Decimal256Type;

    use super::*;
    use crate::decimal::Decimal;

    #[test]
    fn means_are_those_of_decimals_of_any_size() {
        let mut numbers: Vec<i64> = (-9..=9).collect();
        numbers.extend([i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1, 1 << 40, 1_000_003]);
        // Half of the last digit, to both sides of even.
        numbers.extend([2_000_000_000_000, -2_000_000_000_000, 4_000_000_000_000]);
        let mut seed = 1_u64;
        numbers.extend((0..60).map(|place| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed.cast_signed() >> (place % 60)
        }));
        let pairs = numbers.iter().flat_map(|sum| numbers.iter().map(|count| (*sum, *count)));
        let (sums, counts): (Vec<i64>, Vec<i64>) = pairs.unzip();
        let means =
            means(&Int64Array::from(sums.clone()), &Int64Array::from(counts.clone())).unwrap();
        let means = means.as_primitive::<Decimal256Type>();
        assert_eq!(means.len(), numbers.len() * numbers.len());
        for (row, (sum, count)) in sums.into_iter().zip(counts).enumerate() {
            let want = Decimal::from(sum).divide_half_even(&Decimal::from(count), 12);
            let have = means.is_valid(row).then(|| Decimal::from_scaled(means.value(row), 12));
            assert_eq!(have, want, "{sum} by {count}");
        }
    }

    #[test]
    fn a_mean_of_nothing_is_null() {
        let some = Int64Array::from(vec![Some(1), None, None, Some(7)]);
        let counts = Int64Array::from(vec![None, Some(1), None, Some(2)]);
        let means = means(&some, &counts).unwrap();
        let means = means.as_primitive::<Decimal256Type>();
        let values: Vec<Option<i256>> = means.iter().collect();
        assert_eq!(values, [None, None, None, Some(i256::from(3_500_000_000_000_i64))]);
    }
}
