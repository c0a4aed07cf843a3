//! Exact numbers: big integers of units of 10^-38.

use std::cmp::Ordering;
use std::ops::Mul;

use bigdecimal::num_bigint::{BigInt, Sign};

/// Digits after the point that are kept, and before it.
pub(crate) const DIGITS: usize = 38;

/// What a text is when it is read as a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reading {
    /// So many units of 10^-38.
    Number(BigInt),
    /// A number of more digits than are kept.
    TooManyDigits,
    /// Anything else.
    NoNumber,
}

/// Reads `-?digits[.digits][e±digits]`, nothing around it.
pub(crate) fn read(text: &str) -> Reading {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let exponent_digits = exponent.map(|text| text.strip_prefix(['+', '-']).unwrap_or(text));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if ![Some(whole), fraction, exponent_digits].into_iter().flatten().all(all_digits) {
        return Reading::NoNumber;
    }
    let fraction = fraction.unwrap_or_default();
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Reading::Number(BigInt::ZERO);
    }
    let zeros = digits.len() - digits.trim_end_matches('0').len();
    // An exponent that no i64 holds is beyond every limit.
    let Ok(exponent) = exponent.map_or(Ok(0), |text| text.trim_start_matches('+').parse::<i64>())
    else {
        return Reading::TooManyDigits;
    };
    let count = |length: usize| i128::try_from(length).unwrap();
    let power = i128::from(exponent) - count(fraction.len()) + count(zeros);
    let fits = power >= -count(DIGITS) && power + count(significant.len()) <= count(DIGITS);
    if !fits {
        return Reading::TooManyDigits;
    }
    let power = u32::try_from(power + count(DIGITS)).unwrap();
    let units: BigInt = significant.parse::<BigInt>().unwrap() * ten_to(power);
    Reading::Number(if negative { -units } else { units })
}

/// 10 to the power of `exponent`.
pub(crate) fn ten_to(exponent: u32) -> BigInt {
    BigInt::from(10).pow(exponent)
}

/// One unit of every value: 10^38.
pub(crate) fn one() -> BigInt {
    ten_to(38)
}

/// The canonical text of `units` of 10^-`scale`: no exponent, no zeros at the end, no `-0`.
pub(crate) fn text(units: &BigInt, scale: usize) -> String {
    let digits = format!("{:0>width$}", units.magnitude().to_string(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let fraction = fraction.trim_end_matches('0');
    let sign = if units.sign() == Sign::Minus { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}")
}

/// How a quotient is made whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    /// Away from zero.
    Up,
    /// Towards zero.
    Down,
    /// To the nearest, a half away from zero.
    HalfUp,
    /// To the nearest, a half to the even one.
    HalfEven,
}

/// `dividend` ÷ `divisor`, which is above zero, made whole.
pub(crate) fn divide(dividend: &BigInt, divisor: &BigInt, round: Round) -> BigInt {
    let negative = dividend.sign() == Sign::Minus;
    let magnitude = BigInt::from(dividend.magnitude().clone());
    let (quotient, rest) = (&magnitude / divisor, &magnitude % divisor);
    let away = match (round, BigInt::from(2).mul(&rest).cmp(divisor)) {
        _ if rest == BigInt::ZERO => false,
        (Round::Up, _) | (Round::HalfUp | Round::HalfEven, Ordering::Greater) => true,
        (Round::HalfUp, Ordering::Equal) => true,
        (Round::HalfEven, Ordering::Equal) => quotient.bit(0),
        (Round::Down, _) | (Round::HalfUp | Round::HalfEven, Ordering::Less) => false,
    };
    let whole = if away { quotient + 1 } else { quotient };
    if negative { -whole } else { whole }
}

#[test]
fn numbers_are_read_and_written_exactly() {
    for (given, want) in [
        ("5.0", "5"),
        ("-0", "0"),
        ("007", "7"),
        ("1e3", "1000"),
        ("1E-3", "0.001"),
        ("-12.50e+1", "-125"),
        ("0e99999999999999999999", "0"),
        ("99999999999999999999999999999999999999", "99999999999999999999999999999999999999"),
        ("1e-38", "0.00000000000000000000000000000000000001"),
    ] {
        let Reading::Number(units) = read(given) else { panic!("{given} is a number") };
        assert_eq!(text(&units, DIGITS), want, "{given}");
    }
    for given in ["1e38", "1e-39", "1e99999999999999999999", "-1e400"] {
        assert_eq!(read(given), Reading::TooManyDigits, "{given}");
    }
    for given in ["", "-", "+5", " 5", "5 ", "1,000", "NaN", ".5", "5.", "1e", "0x1", "1e1.5"] {
        assert_eq!(read(given), Reading::NoNumber, "{given}");
    }
}

#[test]
fn quotients_are_rounded_as_asked() {
    use Round::{Down, HalfEven, HalfUp, Up};
    for (dividend, round, want) in [
        (5, Up, 3),
        (-5, Up, -3),
        (5, Down, 2),
        (5, HalfUp, 3),
        (-5, HalfUp, -3),
        (5, HalfEven, 2),
        (7, HalfEven, 4),
        (4, Up, 2),
    ] {
        let got = divide(&BigInt::from(dividend), &BigInt::from(2), round);
        assert_eq!(got, BigInt::from(want), "{dividend} ÷ 2, {round:?}");
    }
}
