//! Lengths and ticks: where a number stands between two others.

use crate::decimal::{Decimal, RoundingMode};

/// What [`share`] gives for the greatest value.
pub(super) const WHOLE: u32 = 10_000;

/// Where a value stands from `least` (0) to `greatest` ([`WHOLE`]): a length to be drawn, no number to be
/// told.
pub(super) fn share(value: &Decimal, (least, greatest): (&Decimal, &Decimal)) -> u32 {
    let (part, whole) = (value - least, greatest - least);
    let part = &part * &Decimal::from(i64::from(WHOLE));
    let quotient = part.divide_rounded(&whole, 0, RoundingMode::HalfEven);
    quotient.and_then(|quotient| quotient.to_string().parse().ok()).unwrap_or(0)
}

/// Round numbers from `least` to `greatest`, at most six, 0 among them.
pub(super) fn ticks(least: &Decimal, greatest: &Decimal) -> Vec<Decimal> {
    let zero = Decimal::from(0);
    let step = step(&(greatest - least));
    let Some(step) = step else { return vec![zero] };
    let mut ticks = vec![zero.clone()];
    let mut next = step.clone();
    while &next <= greatest {
        ticks.push(next.clone());
        next = &next + &step;
    }
    let mut next = &zero - &step;
    while &next >= least {
        ticks.insert(0, next.clone());
        next = &next - &step;
    }
    ticks
}

/// The least of 1, 2 and 5 times a power of ten that goes into `span` at most five times.
fn step(span: &Decimal) -> Option<Decimal> {
    if !span.is_positive() {
        return None;
    }
    let text = span.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    // The power of ten of the first digit that is not 0.
    let power = match whole {
        "0" => {
            let zeros = fraction.len() - fraction.trim_start_matches('0').len();
            -1 - i32::try_from(zeros).ok()?
        }
        whole => i32::try_from(whole.len()).ok()? - 1,
    };
    let candidates =
        (power - 1..=power + 1).flat_map(|power| [1, 2, 5].map(|digit| (digit, power)));
    let five = Decimal::from(5);
    candidates.filter_map(|(digit, power)| times_ten(digit, power)).find(|step| {
        span.divide_rounded(step, 3, RoundingMode::AwayFromZero).is_some_and(|times| times <= five)
    })
}

/// `digit` × 10^`power`.
fn times_ten(digit: u32, power: i32) -> Option<Decimal> {
    let zeros = "0".repeat(usize::try_from(power.unsigned_abs()).ok()?);
    let text = match power < 0 {
        true => format!("0.{}{digit}", zeros.get(1..)?),
        false => format!("{digit}{zeros}"),
    };
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn ticks_are_round_and_hold_nothing() {
        for (least, greatest, want) in [
            ("0", "10", "0 2 4 6 8 10"),
            ("0", "0.0123", "0 0.005 0.01"),
            ("0", "0.05", "0 0.01 0.02 0.03 0.04 0.05"),
            ("0", "999", "0 200 400 600 800"),
            ("-3", "7", "-2 0 2 4 6"),
            ("0", "0", "0"),
            (
                "0",
                "123456789012345678901234567890",
                "0 50000000000000000000000000000 100000000000000000000000000000",
            ),
        ] {
            let got: Vec<String> = ticks(&decimal(least), &decimal(greatest))
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(got.join(" "), want, "{least} to {greatest}");
        }
    }

    #[test]
    fn a_share_is_where_a_value_stands() {
        let of =
            |value, least, greatest| share(&decimal(value), (&decimal(least), &decimal(greatest)));
        assert_eq!(of("5", "0", "10"), 5_000);
        assert_eq!(of("0", "-10", "10"), 5_000);
        assert_eq!(of("1", "0", "3"), 3_333);
        assert_eq!(of("3", "0", "3"), WHOLE);
        assert_eq!(of("0", "0", "0"), 0);
    }
}
