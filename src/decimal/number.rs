//! A number of an event in the smallest width that holds it.

use std::fmt;

use arrow::datatypes::i256;

use super::text::{text_of_scaled, text_of_scaled_i128};
use super::{FIXED_SCALE, WIDE_SCALE};

const TEN_TO_18: i128 = 1_000_000_000_000_000_000;
const TEN_TO_20: i128 = 100 * TEN_TO_18;
pub(super) const TEN_TO_38: i128 = TEN_TO_18 * TEN_TO_20;

/// An exact number of at most 38 integer and 38 fractional digits.
///
/// A value has one representation, the first of these that holds it, so that equal values are
/// equal whatever text they came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Number {
    /// An integer of 64 bits.
    Integer(i64),
    /// The value times 10^18, of at most 38 digits: what decimal(38,18) holds.
    Fixed(i128),
    /// The value times 10^38, of at most 76 digits.
    Wide(i256),
}

impl Number {
    /// The number with this sign, integer part and fractional part (times 10^38), both of at most
    /// 38 digits.
    pub(super) fn from_halves(negative: bool, whole: u128, fraction: u128) -> Self {
        let signed = |magnitude: u128| {
            let magnitude = magnitude.cast_signed();
            if negative { -magnitude } else { magnitude }
        };
        if fraction == 0
            && let Ok(integer) = i64::try_from(signed(whole))
        {
            return Self::Integer(integer);
        }
        let (ten_to_18, ten_to_20) = (TEN_TO_18.cast_unsigned(), TEN_TO_20.cast_unsigned());
        if whole < ten_to_20 && fraction.is_multiple_of(ten_to_20) {
            return Self::Fixed(signed(whole * ten_to_18 + fraction / ten_to_20));
        }
        let shifted = i256::from_i128(signed(whole)).wrapping_mul(i256::from_i128(TEN_TO_38));
        Self::Wide(shifted.wrapping_add(i256::from_i128(signed(fraction))))
    }

    /// The value times 10^38.
    pub fn to_wide(self) -> i256 {
        match self {
            Self::Integer(value) => {
                i256::from_i128(i128::from(value)).wrapping_mul(i256::from_i128(TEN_TO_38))
            }
            Self::Fixed(scaled) => i256::from_i128(scaled).wrapping_mul(i256::from_i128(TEN_TO_20)),
            Self::Wide(scaled) => scaled,
        }
    }

    /// The value times 10^18; `None` where decimal(38,18) cannot hold it.
    pub fn to_fixed(self) -> Option<i128> {
        match self {
            Self::Integer(value) => Some(i128::from(value) * TEN_TO_18),
            Self::Fixed(scaled) => Some(scaled),
            Self::Wide(_) => None,
        }
    }
}

/// The canonical text: no exponent, no trailing zeros, no `-0`.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => fmt::Display::fmt(value, f),
            Self::Fixed(scaled) => f.pad(&text_of_scaled_i128(*scaled, FIXED_SCALE)),
            Self::Wide(scaled) => f.pad(&text_of_scaled(*scaled, WIDE_SCALE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decimal::parse_number;

    #[test]
    fn widths_of_one_value_agree() {
        for (text, fixed) in [
            ("0", Some(0)),
            ("-7", Some(-7 * TEN_TO_18)),
            ("9223372036854775807", Some(i128::from(i64::MAX) * TEN_TO_18)),
            ("0.000000000000000001", Some(1)),
            ("-99999999999999999999.999999999999999999", Some(1 - TEN_TO_38)),
            ("0.0000000000000000001", None),
            ("100000000000000000000", None),
        ] {
            let number = parse_number(text).unwrap();
            assert_eq!(number.to_fixed(), fixed, "{text}");
            assert_eq!(text_of_scaled(number.to_wide(), WIDE_SCALE), text, "{text}");
            assert_eq!(number.to_string(), text, "{text}");
        }
    }
}
