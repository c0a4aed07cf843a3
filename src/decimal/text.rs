//! The canonical text of an exact number: no exponent, no trailing zeros, no `-0`.

use arrow::datatypes::i256;

/// The text of `scaled` / 10^`scale`.
pub fn text_of_scaled_i128(scaled: i128, scale: u8) -> String {
    let mut text = String::new();
    push_scaled_i128(&mut text, scaled, scale);
    text
}

/// Appends the text of `scaled` / 10^`scale`: of many numbers without a text for each.
pub fn push_scaled_i128(text: &mut String, scaled: i128, scale: u8) {
    if scale == 0 {
        text.push_str(&scaled.to_string());
        return;
    }
    let unit = 10_u64.checked_pow(u32::from(scale));
    let halves = unit.and_then(|unit| {
        let size = scaled.unsigned_abs();
        let (whole, fraction) = (size / u128::from(unit), size % u128::from(unit));
        Some((u64::try_from(whole).ok()?, u64::try_from(fraction).ok()?))
    });
    if let Some((whole, fraction)) = halves {
        push_halves(text, scaled < 0, whole, (fraction, usize::from(scale)));
        return;
    }
    let plain = plain_text(scaled < 0, &scaled.unsigned_abs().to_string(), usize::from(scale));
    text.push_str(&plain);
}

/// Appends the text of a number whose digits before and after the point, `scale` of them, are few: many times
/// faster than in 128 bits.
fn push_halves(text: &mut String, negative: bool, whole: u64, (fraction, scale): (u64, usize)) {
    let mut digits = [b'0'; 20];
    let mut rest = fraction;
    for digit in digits[..scale].iter_mut().rev() {
        *digit += u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
    }
    let length =
        digits[..scale].iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    let mut number = itoa::Buffer::new();
    if negative {
        text.push('-');
    }
    text.push_str(number.format(whole));
    if length > 0 {
        text.push('.');
        text.extend(digits[..length].iter().map(|digit| char::from(*digit)));
    }
}

/// The text of `scaled` / 10^`scale`.
pub fn text_of_scaled(scaled: i256, scale: u8) -> String {
    let mut text = String::new();
    push_scaled(&mut text, scaled, scale);
    text
}

/// Appends the text of `scaled` / 10^`scale`, as [`push_scaled_i128`].
pub fn push_scaled(text: &mut String, scaled: i256, scale: u8) {
    if let Some(narrow) = scaled.to_i128() {
        return push_scaled_i128(text, narrow, scale);
    }
    let whole = wide_text(scaled);
    text.push_str(&match whole.strip_prefix('-') {
        Some(digits) => plain_text(true, digits, usize::from(scale)),
        None => plain_text(false, &whole, usize::from(scale)),
    });
}

/// The text of a whole number: of its two halves where both fit, which is faster than that of a wide one.
fn wide_text(whole: i256) -> String {
    const HALF: usize = 38;
    let unit = i256::from_i128(10_i128.pow(38));
    let halves = (whole / unit).to_i128().zip((whole % unit).to_i128());
    match halves {
        Some((high, low)) if high != 0 => format!("{high}{:0HALF$}", low.unsigned_abs()),
        _ => whole.to_string(),
    }
}

/// The text of `digits` / 10^`scale`; `digits` has no leading zero unless it is `0`.
pub(super) fn plain_text(negative: bool, digits: &str, scale: usize) -> String {
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(scale));
    let leading_zeros = scale - fraction.len();
    let fraction = fraction.trim_end_matches('0');

    let mut text = String::with_capacity(digits.len() + leading_zeros + 3);
    if negative {
        text.push('-');
    }
    text.push_str(if whole.is_empty() { "0" } else { whole });
    if !fraction.is_empty() {
        text.push('.');
        text.extend(std::iter::repeat_n('0', leading_zeros));
        text.push_str(fraction);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaled_integers_become_canonical_text() {
        for (scaled, scale, want) in [
            (0, 0, "0"),
            (0, 18, "0"),
            (-5, 0, "-5"),
            (100, 0, "100"),
            (100, 2, "1"),
            (-100, 1, "-10"),
            (5, 3, "0.005"),
            (-50, 3, "-0.05"),
            (123_450, 3, "123.45"),
            (7, 40, "0.0000000000000000000000000000000000000007"),
            (i128::from(u64::MAX) * 10 + 5, 1, "18446744073709551615.5"),
            (-(i128::from(u64::MAX) + 1) * 10, 1, "-18446744073709551616"),
            (1, 19, "0.0000000000000000001"),
            (-10_i128.pow(19) * 7 - 10, 19, "-7.000000000000000001"),
            (1, 20, "0.00000000000000000001"),
            (i128::MIN, 38, "-1.70141183460469231731687303715884105728"),
        ] {
            assert_eq!(text_of_scaled_i128(scaled, scale), want, "{scaled} {scale}");
            assert_eq!(text_of_scaled(i256::from_i128(scaled), scale), want, "{scaled} {scale}");
        }
    }

    #[test]
    fn integers_beyond_128_bits_become_canonical_text() {
        let digits = "12345678901234567890123456789012345678901234567890";
        let scaled = i256::from_string(digits).unwrap();
        assert_eq!(text_of_scaled(scaled, 0), digits);
        assert_eq!(
            text_of_scaled(-scaled, 38),
            "-123456789012.3456789012345678901234567890123456789"
        );
        for text in [
            "340282366920938463463374607431768211456",
            "100000000000000000000000000000000000000000000",
            "-9999999999999999999999999999999999999999999999999999999999999999999999999999",
            "-1000000000000000000000000000000000000010000000000000000000000000000000000007",
        ] {
            assert_eq!(text_of_scaled(i256::from_string(text).unwrap(), 0), text);
        }
        let least =
            "-57896044618658097711785492504343953926634992332820282019728792003956564819968";
        assert_eq!(text_of_scaled(i256::MIN, 0), least);
    }
}
