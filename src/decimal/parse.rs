//! Numbers from text: `-?digits[.digits][(e|E)[+-]?digits]`, nothing around it.
//!
//! The one grammar for every place that reads a number. Exact, and without allocation; short texts,
//! nearly all there are, take a path of their own.

use arrow::datatypes::i256;

use super::number::Number;
use super::{FIXED_SCALE, WIDE_SCALE};

/// Why a text is not taken as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// It does not follow the grammar.
    #[error("is not a number such as -12.5 or 1e6")]
    NotANumber,
    /// Written without an exponent, it has more digits than are kept.
    #[error("has more digits than can be kept exactly")]
    TooManyDigits,
}

/// The number `text` stands for, leading zeros allowed.
///
/// # Errors
///
/// [`NumberError::TooManyDigits`] for more than 38 integer or 38 fractional digits that matter.
pub fn parse_number(text: &str) -> Result<Number, NumberError> {
    match parse_short(text.as_bytes()) {
        Some(number) => Ok(number),
        None => parse_any(text),
    }
}

/// The number whose canonical text is exactly `text`, where an integer of 64 bits or
/// decimal(38,18) holds it.
pub fn canonical_number(text: &str) -> Option<Number> {
    let bytes = text.as_bytes();
    let (negative, digits) = split_sign(bytes);
    match digits {
        [b'0'] if negative => return None,
        [b'0', b'0'..=b'9', ..] => return None,
        [b'0'..=b'9', ..] => {}
        _ => return None,
    }
    if digits.iter().any(|byte| matches!(byte, b'e' | b'E'))
        || (digits.ends_with(b"0") && digits.contains(&b'.'))
    {
        return None;
    }
    match parse_number(text) {
        Ok(number @ (Number::Integer(_) | Number::Fixed(_))) => Some(number),
        Ok(Number::Wide(_)) | Err(_) => None,
    }
}

/// The number `text` stands for, times 10^38; `None` where [`parse_number`] refuses it.
pub fn wide_of_text(text: &str) -> Option<i256> {
    parse_number(text).ok().map(Number::to_wide)
}

/// So many digits that neither an `i64` nor a shift to the fixed scale can overflow.
const SHORT_MAX: usize = 18;

const TEN_TO: [i128; 19] = {
    let mut powers = [1; 19];
    let mut exponent = 1;
    while exponent < powers.len() {
        powers[exponent] = powers[exponent - 1] * 10;
        exponent += 1;
    }
    powers
};

/// The number of a short text without an exponent; `None` leaves the text to [`parse_any`].
fn parse_short(bytes: &[u8]) -> Option<Number> {
    let (negative, digits) = split_sign(bytes);
    if digits.is_empty() || digits.len() > SHORT_MAX {
        return None;
    }
    let mut mantissa = 0_i64;
    for (position, &byte) in digits.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            let fraction = digits.get(position + 1..)?;
            return if byte == b'.' && position > 0 {
                parse_short_fraction(negative, mantissa, fraction)
            } else {
                None
            };
        }
        mantissa = mantissa * 10 + i64::from(digit);
    }
    Some(Number::Integer(if negative { -mantissa } else { mantissa }))
}

/// The number whose digits before the point are `mantissa`.
fn parse_short_fraction(negative: bool, mut mantissa: i64, fraction: &[u8]) -> Option<Number> {
    if fraction.is_empty() {
        return None;
    }
    for &byte in fraction {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        mantissa = mantissa * 10 + i64::from(digit);
    }
    let signed = if negative { -mantissa } else { mantissa };
    if fraction.iter().all(|&byte| byte == b'0') {
        let power = i64::try_from(TEN_TO[fraction.len()]).ok()?;
        return Some(Number::Integer(signed / power));
    }
    let shift = usize::from(FIXED_SCALE) - fraction.len();
    Some(Number::Fixed(i128::from(signed) * TEN_TO[shift]))
}

fn split_sign(bytes: &[u8]) -> (bool, &[u8]) {
    match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    }
}

fn parse_any(text: &str) -> Result<Number, NumberError> {
    let digits = Digits::scan(text).ok_or(NumberError::NotANumber)?;
    let limit = i64::from(WIDE_SCALE);
    if digits.whole_places() > limit || digits.fraction_places() > limit {
        return Err(NumberError::TooManyDigits);
    }
    let (mut whole, mut fraction) = (0_u128, 0_u128);
    let mut place = digits.first_place;
    for digit in digits.iter() {
        let half = if place >= 0 { &mut whole } else { &mut fraction };
        *half = *half * 10 + u128::from(digit);
        place -= 1;
    }
    whole *= power_of_ten(digits.zeros_before_point());
    fraction *= power_of_ten(limit - digits.fraction_places());
    Ok(Number::from_halves(digits.negative, whole, fraction))
}

/// 10^`exponent`, for the exponents of 0 to 38 that the limits leave.
fn power_of_ten(exponent: i64) -> u128 {
    10_u128.pow(u32::try_from(exponent).unwrap_or(0))
}

/// The digits of a number that matter: neither the first nor the last is zero.
///
/// Digits before and after the written point are kept as they stand in the text; together they are
/// one sequence, whose first digit counts 10^`first_place`. A zero has no digits.
#[derive(Debug)]
pub(super) struct Digits<'a> {
    /// Whether the text begins with `-`.
    pub(super) negative: bool,
    before_point: &'a [u8],
    after_point: &'a [u8],
    first_place: i64,
}

impl<'a> Digits<'a> {
    /// The digits of `text`; `None` where it does not follow the grammar.
    pub(super) fn scan(text: &'a str) -> Option<Self> {
        let (negative, rest) = split_sign(text.as_bytes());
        let (before_point, rest) = take_digits(rest)?;
        let (after_point, rest) = match rest {
            [b'.', rest @ ..] => take_digits(rest)?,
            rest => (&[][..], rest),
        };
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', rest @ ..] => exponent(rest)?,
            _ => return None,
        };
        Some(Self::trimmed(negative, before_point, after_point, exponent))
    }

    fn trimmed(negative: bool, before: &'a [u8], after: &'a [u8], exponent: i64) -> Self {
        let mut before_point = without_leading_zeros(before);
        let mut after_point = after;
        let mut first_place = exponent.saturating_add(length(before_point)) - 1;
        if before_point.is_empty() {
            after_point = without_leading_zeros(after);
            first_place -= length(after) - length(after_point);
        }
        after_point = without_trailing_zeros(after_point);
        if after_point.is_empty() {
            before_point = without_trailing_zeros(before_point);
        }
        Self { negative, before_point, after_point, first_place }
    }

    /// The digits' values, the first one first.
    pub(super) fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        self.before_point.iter().chain(self.after_point).map(|digit| digit - b'0')
    }

    fn count(&self) -> i64 {
        length(self.before_point) + length(self.after_point)
    }

    /// Places before the point when written without an exponent.
    pub(super) fn whole_places(&self) -> i64 {
        if self.count() == 0 { 0 } else { (self.first_place + 1).max(0) }
    }

    /// Places after the point when written without an exponent.
    pub(super) fn fraction_places(&self) -> i64 {
        if self.count() == 0 { 0 } else { (self.count() - self.first_place - 1).max(0) }
    }

    /// Zeros between the last digit and the point when written without an exponent.
    pub(super) fn zeros_before_point(&self) -> i64 {
        if self.count() == 0 { 0 } else { (self.first_place + 1 - self.count()).max(0) }
    }
}

/// At least one digit and what follows.
fn take_digits(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len());
    if end == 0 { None } else { Some(bytes.split_at(end)) }
}

/// Exponents beyond this are far beyond every limit on digits; stopping here keeps sums exact.
const EXPONENT_MAX: i64 = 1 << 60;

fn exponent(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes {
        [b'+', digits @ ..] => (false, digits),
        bytes => split_sign(bytes),
    };
    let (digits, []) = take_digits(digits)? else {
        return None;
    };
    let magnitude = digits.iter().fold(0_i64, |sum, digit| {
        sum.saturating_mul(10).saturating_add(i64::from(digit - b'0')).min(EXPONENT_MAX)
    });
    Some(if negative { -magnitude } else { magnitude })
}

fn without_leading_zeros(digits: &[u8]) -> &[u8] {
    let start = digits.iter().position(|&digit| digit != b'0').unwrap_or(digits.len());
    &digits[start..]
}

fn without_trailing_zeros(digits: &[u8]) -> &[u8] {
    let end = digits.iter().rposition(|&digit| digit != b'0').map_or(0, |last| last + 1);
    &digits[..end]
}

fn length(digits: &[u8]) -> i64 {
    i64::try_from(digits.len()).unwrap_or(EXPONENT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: i128 = 1_000_000_000_000_000_000;

    #[test]
    fn numbers_take_the_smallest_width_by_value() {
        for (text, want) in [
            ("0", Number::Integer(0)),
            ("-0", Number::Integer(0)),
            ("-0.000", Number::Integer(0)),
            ("0e100", Number::Integer(0)),
            ("0.00e-100", Number::Integer(0)),
            ("0e999999999999999999999", Number::Integer(0)),
            ("12e5", Number::Integer(1_200_000)),
            ("5", Number::Integer(5)),
            ("5.0", Number::Integer(5)),
            ("5e0", Number::Integer(5)),
            ("0.05E+2", Number::Integer(5)),
            ("01234", Number::Integer(1234)),
            ("000000000000000000000000000000000000000000007", Number::Integer(7)),
            ("0.00000000000000000000000000000000000000000000000e5", Number::Integer(0)),
            ("-9223372036854775808", Number::Integer(i64::MIN)),
            ("9223372036854775807.000", Number::Integer(i64::MAX)),
            ("9223372036854775808", Number::Fixed(9_223_372_036_854_775_808 * ONE)),
            ("99999999999999999999", Number::Fixed(99_999_999_999_999_999_999 * ONE)),
            ("0.5", Number::Fixed(ONE / 2)),
            ("-12.50", Number::Fixed(-12 * ONE - ONE / 2)),
            ("0.4567890123456789", Number::Fixed(456_789_012_345_678_900)),
            ("123456789012345.67", Number::Fixed(123_456_789_012_345_670 * (ONE / 1000))),
            ("1e-18", Number::Fixed(1)),
            ("1e-19", Number::Wide(i256::from_i128(10_i128.pow(19)))),
            ("1e-38", Number::Wide(i256::from_i128(1))),
            ("0.00000000000000000000000000000000000001", Number::Wide(i256::from_i128(1))),
        ] {
            assert_eq!(parse_number(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn texts_beside_the_grammar_are_no_numbers() {
        for text in [
            "", "-", "+5", " 5", "5 ", "1,000", ".5", "5.", "-.5", "5.e3", "e5", "5e", "5e+",
            "5e-", "5e1.5", "--5", "5-", "0x10", "NaN", "Infinity", "inf", "1_000", "٣", "1.2.3",
            "5f",
        ] {
            assert_eq!(parse_number(text), Err(NumberError::NotANumber), "{text}");
            assert_eq!(canonical_number(text), None, "{text}");
        }
    }

    #[test]
    fn digits_are_limited_after_normalisation() {
        let nines = "9".repeat(38);
        for (text, fits) in [
            (nines.clone(), true),
            (format!("-{nines}.{nines}"), true),
            (format!("9{nines}"), false),
            (format!("{nines}0"), false),
            (format!("0.{nines}0000"), true),
            (format!("0.0{nines}"), false),
            (format!("{nines}0000e-4"), true),
            ("1e37".to_owned(), true),
            ("1e38".to_owned(), false),
            ("1e-39".to_owned(), false),
            ("1e999999999".to_owned(), false),
            ("1e-99999999999999999999999999".to_owned(), false),
            (format!("0.{}1e60", "0".repeat(59)), true),
        ] {
            let got = parse_number(&text);
            assert_eq!(got.is_ok(), fits, "{text}: {got:?}");
            assert!(fits || got == Err(NumberError::TooManyDigits), "{text}");
        }
    }

    #[test]
    fn canonical_texts_are_told_from_others() {
        for (text, canonical) in [
            ("0", true),
            ("-1", true),
            ("10", true),
            ("1200", true),
            ("0.5", true),
            ("-0.5", true),
            ("10.01", true),
            ("99999999999999999999", true),
            ("-0", false),
            ("-0.0", false),
            ("00", false),
            ("01", false),
            ("-01", false),
            ("00.5", false),
            ("1.0", false),
            ("1.50", false),
            ("1e3", false),
            ("1E3", false),
            ("100000000000000000000", false),
            ("0.0000000000000000001", false),
        ] {
            assert_eq!(canonical_number(text).is_some(), canonical, "{text}");
        }
    }

    #[test]
    fn wide_values_carry_38_fractional_digits() {
        assert_eq!(wide_of_text("1.5"), i256::from_string(&format!("15{}", "0".repeat(37))));
        assert_eq!(wide_of_text("-1e-38"), Some(i256::from_i128(-1)));
        assert_eq!(wide_of_text("1e39"), None);
        assert_eq!(wide_of_text("x"), None);
    }

    /// What the text means, computed on decimal digit strings alone.
    fn plain_by_hand(negative: bool, whole: &str, fraction: &str, exponent: i32) -> String {
        let mut digits = format!("{}{whole}{fraction}{}", "0".repeat(100), "0".repeat(100));
        let point = 100 + i32::try_from(whole.len()).unwrap() + exponent;
        digits.insert(usize::try_from(point).unwrap(), '.');
        let plain = digits.trim_matches('0').trim_end_matches('.').to_owned();
        let plain =
            if plain.starts_with('.') || plain.is_empty() { format!("0{plain}") } else { plain };
        if negative && plain != "0" { format!("-{plain}") } else { plain }
    }

    proptest! {
        #[test]
        fn parsed_numbers_print_as_the_digits_written(
            negative: bool,
            whole in "[0-9]{1,24}",
            fraction in "[0-9]{0,24}",
            exponent in -14_i32..14,
        ) {
            let sign = if negative { "-" } else { "" };
            let point = if fraction.is_empty() { "" } else { "." };
            let text = format!("{sign}{whole}{point}{fraction}e{exponent}");
            let want = plain_by_hand(negative, &whole, &fraction, exponent);
            let number = parse_number(&text).unwrap();
            prop_assert_eq!(number.to_string(), want.clone());
            prop_assert_eq!(parse_number(&want), Ok(number));
            let narrow = !matches!(number, Number::Wide(_));
            prop_assert_eq!(canonical_number(&want), narrow.then_some(number));
        }

        #[test]
        fn the_short_path_agrees_with_the_long_one(text in "-?[0-9.e]{0,20}") {
            prop_assert_eq!(parse_number(&text), parse_any(&text));
        }
    }
}
