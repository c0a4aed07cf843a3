//! Decimals of any precision, for the few exact steps after the sums are done.
//!
//! Addition and multiplication are exact. A quotient is either exact or rounded the way the caller
//! names; there is no default precision.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::iter::successors;
use std::ops::{Add, Mul, Sub};
use std::str::FromStr;
use std::sync::LazyLock;

use arrow::datatypes::i256;
use bigdecimal::BigDecimal;
use bigdecimal::num_bigint::{BigInt, Sign};

use super::number::Number;
use super::parse::{Digits, NumberError, parse_number};
use super::text::plain_text;
use super::{FIXED_SCALE, WIDE_SCALE};

/// Most digits a [`Decimal`] is read from, before and after the point together.
const TEXT_DIGITS_MAX: i64 = 200;

/// Fractional digits of a mean.
const MEAN_SCALE: i32 = 12;

/// An exact decimal of any precision.
///
/// Equality, order and hash are by value: `1.50` is `1.5`.
// Inside, the scale is never negative and the last fractional digit is never zero, so that one
// value has one representation.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Decimal(BigDecimal);

/// How a quotient is rounded to a number of digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoundingMode {
    /// Any remainder counts as a whole unit: 0.02 becomes 1, -0.02 becomes -1.
    AwayFromZero,
    /// A remainder is dropped.
    TowardsZero,
    /// To the nearest, a half away from zero.
    HalfUp,
    /// To the nearest, a half to the even neighbour.
    HalfEven,
}

impl Decimal {
    /// `scaled` / 10^`scale`.
    pub fn from_scaled(scaled: i256, scale: u8) -> Self {
        normalized(BigInt::from_signed_bytes_le(&scaled.to_le_bytes()), i64::from(scale))
    }

    /// `scaled` / 10^`scale`.
    pub fn from_scaled_i128(scaled: i128, scale: u8) -> Self {
        let (scaled, scale) = trimmed(scaled, i64::from(scale));
        Self(BigDecimal::new(BigInt::from(scaled), scale))
    }

    /// Whether the value is zero.
    pub fn is_zero(&self) -> bool {
        self.0.sign() == Sign::NoSign
    }

    /// Whether the value is above zero.
    pub fn is_positive(&self) -> bool {
        self.0.sign() == Sign::Plus
    }

    /// The same value as an event's number; `None` beyond 38 integer or 38 fractional digits.
    pub fn to_number(&self) -> Option<Number> {
        parse_number(&self.to_string()).ok()
    }

    /// The quotient where it ends within 38 fractional digits; `None` otherwise, and for a zero
    /// divisor.
    pub fn divide_exact(&self, divisor: &Self) -> Option<Self> {
        let division = Division::new(self, divisor, i32::from(WIDE_SCALE))?;
        division.is_exact().then(|| division.rounded(RoundingMode::TowardsZero))
    }

    /// The quotient rounded once, from its exact value, to `fraction_digits`, of which negative
    /// ones count from the point to the left (-2 rounds to hundreds); `None` for a zero divisor.
    pub fn divide_rounded(
        &self,
        divisor: &Self,
        fraction_digits: i32,
        mode: RoundingMode,
    ) -> Option<Self> {
        Some(Division::new(self, divisor, fraction_digits)?.rounded(mode))
    }

    /// The quotient rounded half-even to `fraction_digits`; `None` for a zero divisor.
    pub fn divide_half_even(&self, divisor: &Self, fraction_digits: u32) -> Option<Self> {
        let fraction_digits = i32::try_from(fraction_digits).ok()?;
        self.divide_rounded(divisor, fraction_digits, RoundingMode::HalfEven)
    }
}

/// `sum` / `count` with 12 fractional digits, rounded half-even; `None` for no values.
pub fn mean_half_even(sum: &Decimal, count: u64) -> Option<Decimal> {
    let count = Decimal(BigDecimal::from(count));
    sum.divide_rounded(&count, MEAN_SCALE, RoundingMode::HalfEven)
}

/// A division carried out to a number of fractional digits, with what is left over.
struct Division {
    /// The quotient times 10^`fraction_digits`, cut towards zero.
    quotient: BigInt,
    remainder: BigInt,
    divisor: BigInt,
    negative: bool,
    fraction_digits: i32,
}

impl Division {
    fn new(dividend: &Decimal, divisor: &Decimal, fraction_digits: i32) -> Option<Self> {
        if divisor.is_zero() {
            return None;
        }
        let (dividend, dividend_scale) = dividend.0.as_bigint_and_scale();
        let (divisor, divisor_scale) = divisor.0.as_bigint_and_scale();
        let shift = divisor_scale + i64::from(fraction_digits) - dividend_scale;
        let (mut dividend, mut divisor) = (dividend.into_owned(), divisor.into_owned());
        if shift >= 0 {
            dividend *= power_of_ten(shift).as_ref();
        } else {
            divisor *= power_of_ten(-shift).as_ref();
        }
        let negative = (dividend.sign() == Sign::Minus) != (divisor.sign() == Sign::Minus);
        let quotient = &dividend / &divisor;
        let remainder = dividend - &quotient * &divisor;
        Some(Self { quotient, remainder, divisor, negative, fraction_digits })
    }

    fn is_exact(&self) -> bool {
        self.remainder.sign() == Sign::NoSign
    }

    fn rounded(self, mode: RoundingMode) -> Decimal {
        let away = match mode {
            RoundingMode::TowardsZero => false,
            RoundingMode::AwayFromZero => !self.is_exact(),
            RoundingMode::HalfUp => self.remainder_to_half() != Ordering::Less,
            RoundingMode::HalfEven => match self.remainder_to_half() {
                Ordering::Less => false,
                Ordering::Equal => self.quotient.bit(0),
                Ordering::Greater => true,
            },
        };
        let step = match (away, self.negative) {
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => -1,
        };
        normalized(self.quotient + step, i64::from(self.fraction_digits))
    }

    /// How the size of what is left over compares with half of the divisor's.
    fn remainder_to_half(&self) -> Ordering {
        (self.remainder.magnitude() * 2_u32).cmp(self.divisor.magnitude())
    }
}

/// `digits` / 10^`scale` in its one representation.
fn normalized(mut digits: BigInt, mut scale: i64) -> Decimal {
    if scale < 0 {
        digits *= power_of_ten(-scale).as_ref();
        scale = 0;
    }
    // Nearly all are of this size, and dividing them takes a tenth of the time.
    if let Ok(small) = i128::try_from(&digits) {
        let (trimmed, fewer) = trimmed(small, scale);
        if fewer < scale {
            digits = BigInt::from(trimmed);
        }
        return Decimal(BigDecimal::new(digits, fewer));
    }
    for (chunk, _) in CHUNKS {
        let power = power_of_ten(chunk);
        while scale >= chunk && (&digits % power.as_ref()).sign() == Sign::NoSign {
            digits /= power.as_ref();
            scale -= chunk;
        }
    }
    Decimal(BigDecimal::new(digits, scale))
}

/// The zeros at the end of a fraction go in halving chunks, a handful of divisions instead of one for each:
/// how many there are, and ten to that power.
const CHUNKS: [(i64, i128); 6] = [
    (32, 10_i128.pow(32)),
    (16, 10_i128.pow(16)),
    (8, 100_000_000),
    (4, 10_000),
    (2, 100),
    (1, 10),
];

/// `digits` / 10^`scale` without zeros at the end of its fraction; `scale` is not negative.
fn trimmed(mut digits: i128, mut scale: i64) -> (i128, i64) {
    if digits == 0 {
        return (0, 0);
    }
    for (chunk, power) in CHUNKS {
        while scale >= chunk && digits % power == 0 {
            digits /= power;
            scale -= chunk;
        }
    }
    (digits, scale)
}

/// The powers that scales ask for, made once: of a product, twice as many digits as of a number.
static POWERS: LazyLock<Vec<BigInt>> = LazyLock::new(|| {
    let powers = successors(Some(BigInt::from(1)), |power| Some(power * 10));
    powers.take(2 * usize::from(WIDE_SCALE) + 1).collect()
});

/// 10^`exponent`; exponents are scales, so they are small and not negative.
fn power_of_ten(exponent: i64) -> Cow<'static, BigInt> {
    let known = usize::try_from(exponent).ok().and_then(|exponent| POWERS.get(exponent));
    known.map_or_else(
        || Cow::Owned(BigInt::from(10_u32).pow(u32::try_from(exponent).unwrap_or(0))),
        Cow::Borrowed,
    )
}

impl Add for &Decimal {
    type Output = Decimal;

    fn add(self, other: Self) -> Decimal {
        let (digits, scale) = (&self.0 + &other.0).into_bigint_and_scale();
        normalized(digits, scale)
    }
}

impl Sub for &Decimal {
    type Output = Decimal;

    fn sub(self, other: Self) -> Decimal {
        let (digits, scale) = (&self.0 - &other.0).into_bigint_and_scale();
        normalized(digits, scale)
    }
}

impl Mul for &Decimal {
    type Output = Decimal;

    fn mul(self, other: Self) -> Decimal {
        let (digits, scale) = (&self.0 * &other.0).into_bigint_and_scale();
        normalized(digits, scale)
    }
}

impl From<i64> for Decimal {
    fn from(value: i64) -> Self {
        Self(BigDecimal::from(value))
    }
}

impl From<Number> for Decimal {
    fn from(number: Number) -> Self {
        match number {
            Number::Integer(value) => Self::from(value),
            Number::Fixed(scaled) => Self::from_scaled_i128(scaled, FIXED_SCALE),
            Number::Wide(scaled) => Self::from_scaled(scaled, WIDE_SCALE),
        }
    }
}

/// Reads the grammar of [`parse_number`], with at most 200 digits before and after the point
/// together.
impl FromStr for Decimal {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Self, NumberError> {
        let digits = Digits::scan(text).ok_or(NumberError::NotANumber)?;
        if digits.whole_places() + digits.fraction_places() > TEXT_DIGITS_MAX {
            return Err(NumberError::TooManyDigits);
        }
        let mantissa = digits.iter().fold(BigInt::from(0), |sum, digit| sum * 10 + digit);
        let mantissa = if digits.negative { -mantissa } else { mantissa };
        Ok(normalized(mantissa, digits.fraction_places() - digits.zeros_before_point()))
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

/// The canonical text: no exponent, no trailing zeros, no `-0`.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (digits, scale) = self.0.as_bigint_and_scale();
        let negative = digits.sign() == Sign::Minus;
        let scale = usize::try_from(scale).unwrap_or(0);
        f.pad(&plain_text(negative, &digits.magnitude().to_string(), scale))
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decimal({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::hash::{DefaultHasher, Hash, Hasher};

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn hash(value: &Decimal) -> u64 {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn texts_print_canonically() {
        for (text, want) in [
            ("0", "0"),
            ("-0.00", "0"),
            ("007", "7"),
            ("1.50", "1.5"),
            ("100", "100"),
            ("1e3", "1000"),
            ("-12.5e-2", "-0.125"),
            (
                "1000000000.000000000000000000000000000000000000000000001",
                "1000000000.000000000000000000000000000000000000000000001",
            ),
        ] {
            assert_eq!(decimal(text).to_string(), want, "{text}");
        }
        assert_eq!("1e199".parse::<Decimal>().unwrap().to_string().len(), 200);
        assert_eq!("1e200".parse::<Decimal>(), Err(NumberError::TooManyDigits));
        assert_eq!("1e-201".parse::<Decimal>(), Err(NumberError::TooManyDigits));
        assert_eq!("1e999999999".parse::<Decimal>(), Err(NumberError::TooManyDigits));
        assert_eq!(" 1".parse::<Decimal>(), Err(NumberError::NotANumber));
    }

    #[test]
    fn values_compare_and_hash_alike_whatever_their_text() {
        for (one, other) in [("1.5", "1.500"), ("100", "1e2"), ("0", "-0.0"), ("5", "50e-1")] {
            let (one, other) = (decimal(one), decimal(other));
            assert_eq!(one, other);
            assert_eq!(hash(&one), hash(&other));
            assert_eq!(one.cmp(&other), Ordering::Equal);
        }
        assert_eq!(Decimal::from(100), Decimal::from_scaled_i128(10_000, 2));
        assert_eq!(hash(&Decimal::from(100)), hash(&(&decimal("12.5") * &decimal("8"))));
        assert!(decimal("-2") < decimal("-1.5") && decimal("9") < decimal("10"));
    }

    #[test]
    fn quotients_round_as_named() {
        use RoundingMode::{AwayFromZero, HalfEven, HalfUp, TowardsZero};
        for (dividend, divisor, digits, mode, want) in [
            ("0.02", "1", 0, AwayFromZero, "1"),
            ("-0.02", "1", 0, AwayFromZero, "-1"),
            ("2", "1", 0, AwayFromZero, "2"),
            ("-1.99", "1", 0, TowardsZero, "-1"),
            ("2.5", "1", 0, HalfEven, "2"),
            ("3.5", "1", 0, HalfEven, "4"),
            ("-2.5", "1", 0, HalfEven, "-2"),
            ("2.5", "1", 0, HalfUp, "3"),
            ("-2.5", "1", 0, HalfUp, "-3"),
            ("2.4999999999", "1", 0, HalfUp, "2"),
            ("1", "3", 5, HalfEven, "0.33333"),
            ("2", "-3", 5, HalfEven, "-0.66667"),
            ("123.456", "1", -2, HalfEven, "100"),
            ("150", "1", -2, HalfEven, "200"),
            ("250", "1", -2, HalfEven, "200"),
            ("1", "1", -3, AwayFromZero, "1000"),
            ("0", "7", 3, AwayFromZero, "0"),
        ] {
            let got = decimal(dividend).divide_rounded(&decimal(divisor), digits, mode);
            assert_eq!(got, Some(decimal(want)), "{dividend} / {divisor} to {digits} {mode:?}");
        }
        assert_eq!(decimal("1").divide_rounded(&decimal("0"), 2, HalfUp), None);
        assert_eq!(decimal("0.125").divide_half_even(&decimal("1"), 2), Some(decimal("0.12")));
    }

    #[test]
    fn exact_quotients_end_within_38_digits() {
        for (dividend, divisor, want) in [
            ("1", "8", Some("0.125")),
            ("20000000", "1000000000", Some("0.02")),
            ("1", "3", None),
            ("1", "0", None),
            ("3600", "3600", Some("1")),
            ("1", "1e38", Some("1e-38")),
            ("1", "1e39", None),
            ("1e60", "1e39", Some("1e21")),
            ("0", "3", Some("0")),
        ] {
            let got = decimal(dividend).divide_exact(&decimal(divisor));
            assert_eq!(got, want.map(decimal), "{dividend} / {divisor}");
        }
    }

    #[test]
    fn means_have_12_fractional_digits() {
        for (sum, count, want) in [
            ("123.4567890123456789", 2, Some("61.728394506173")),
            ("10", 4, Some("2.5")),
            ("1", 3, Some("0.333333333333")),
            ("-2", 3, Some("-0.666666666667")),
            ("0.000000000001", 2, Some("0")),
            ("0.000000000003", 2, Some("0.000000000002")),
            ("1", 0, None),
        ] {
            assert_eq!(mean_half_even(&decimal(sum), count), want.map(decimal), "{sum} / {count}");
        }
    }

    #[test]
    fn numbers_convert_both_ways() {
        for text in ["0", "-7", "0.5", "1e-38", "99999999999999999999", "1e37"] {
            let number = parse_number(text).unwrap();
            assert_eq!(Decimal::from(number), decimal(text), "{text}");
            assert_eq!(decimal(text).to_number(), Some(number), "{text}");
        }
        assert_eq!(decimal("1e38").to_number(), None);
    }

    #[test]
    fn a_value_is_the_same_whichever_way_it_comes() {
        for (scaled, scale, want) in [
            (i128::MIN, 0, "-170141183460469231731687303715884105728"),
            (i128::MIN, 38, "-1.70141183460469231731687303715884105728"),
            (i128::MAX, 3, "170141183460469231731687303715884105.727"),
            (-1_500, 3, "-1.5"),
            (10_i128.pow(38), 38, "1"),
            (-(10_i128.pow(38)), 6, "-100000000000000000000000000000000"),
            (0, 9, "0"),
        ] {
            let short = Decimal::from_scaled_i128(scaled, scale);
            let wide = Decimal::from_scaled(i256::from_i128(scaled), scale);
            // Beyond 128 bits on the way there.
            let sum = &(&short + &decimal("1e60")) - &decimal("1e60");
            for value in [&short, &wide, &sum] {
                assert_eq!(
                    (value.to_string().as_str(), hash(value)),
                    (want, hash(&short)),
                    "{want}"
                );
                assert_eq!(
                    (value, value.0.as_bigint_and_scale().1),
                    (&short, short.0.as_bigint_and_scale().1)
                );
            }
        }
    }

    proptest! {
        #[test]
        fn a_value_has_one_representation(digits in "[1-9][0-9]{0,50}0{0,40}", scale in 0_usize..90) {
            let padded = format!("{digits:0>width$}", width = scale + 1);
            let (whole, fraction) = padded.split_at(padded.len() - scale);
            let value = decimal(&[whole, fraction].join(if scale > 0 { "." } else { "" }));
            let (kept, kept_scale) = value.0.as_bigint_and_scale();
            let dropped = scale - usize::try_from(kept_scale).unwrap();
            prop_assert_eq!(format!("{kept}{}", "0".repeat(dropped)), digits);
            prop_assert!(kept_scale == 0 || !kept.to_string().ends_with('0'));
        }

        #[test]
        fn arithmetic_agrees_with_scaled_integers(
            a in -1_000_000_000_000_i64..1_000_000_000_000,
            b in -1_000_000_000_000_i64..1_000_000_000_000,
            a_scale in 0_u8..9,
            b_scale in 0_u8..9,
        ) {
            let scaled = |value: i64, scale: u8| {
                i128::from(value) * 10_i128.pow(u32::from(9 - scale))
            };
            let one = Decimal::from_scaled_i128(i128::from(a), a_scale);
            let other = Decimal::from_scaled_i128(i128::from(b), b_scale);
            let (a, b) = (scaled(a, a_scale), scaled(b, b_scale));
            prop_assert_eq!(&one + &other, Decimal::from_scaled_i128(a + b, 9));
            prop_assert_eq!(&one - &other, Decimal::from_scaled_i128(a - b, 9));
            let product = i256::from_i128(a).checked_mul(i256::from_i128(b)).unwrap();
            prop_assert_eq!(&one * &other, Decimal::from_scaled(product, 18));
            prop_assert_eq!(one.cmp(&other), a.cmp(&b));
            prop_assert_eq!(one == other, a == b);
            prop_assert_eq!(one.to_string().parse::<Decimal>().unwrap(), one.clone());
            if b != 0 {
                let quotient = one.divide_rounded(&other, 0, RoundingMode::TowardsZero);
                prop_assert_eq!(quotient, Some(Decimal::from_scaled_i128(a / b, 0)));
            }
        }
    }
}
