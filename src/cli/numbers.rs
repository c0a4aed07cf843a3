//! Numbers in sentences: digits in groups of three, counts with their word, rates.

use std::time::Duration;

/// A number with commas between groups of three integer digits: `2,747,282,740`.
pub(super) fn grouped(number: u64) -> String {
    grouped_text(&number.to_string())
}

/// As [`grouped`], for the text of an exact decimal.
pub(super) fn grouped_text(number: &str) -> String {
    let (sign, digits) = match number.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", number),
    };
    let (integer, fraction) = match digits.split_once('.') {
        Some((integer, fraction)) => (integer, format!(".{fraction}")),
        None => (digits, String::new()),
    };
    let mut text = String::from(sign);
    for (place, digit) in integer.chars().enumerate() {
        if place > 0 && (integer.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + &fraction
}

/// `1 event`, `2 events`, `10,000 events`.
pub(super) fn counted(number: u64, word: &str) -> String {
    let plural = match (number, word.ends_with("ch")) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{} {word}{plural}", grouped(number))
}

/// A number of bytes to three digits or so: `999 B`, `1.2 kB`, `17.4 MB`.
pub(super) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    let (mut tenths, mut unit) = (u128::from(number) * 10, "B");
    for larger in UNITS {
        if tenths < 10_000 {
            break;
        }
        (tenths, unit) = (tenths / 1_000, larger);
    }
    if unit == "B" {
        format!("{number} B")
    } else {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

/// Events and bytes per second: `83,333 events/s, 25.3 MB/s`.
pub(super) fn rate(events: u64, bytes: u64, elapsed: Duration) -> String {
    let micros = elapsed.as_micros().max(1);
    let per_second = u128::from(events) * 1_000_000 / micros;
    // Bytes per microsecond are megabytes per second.
    let tenths = u128::from(bytes) * 10 / micros;
    let per_second = grouped_text(&per_second.to_string());
    format!("{per_second} events/s, {}.{} MB/s", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        for (number, want) in [
            ("0", "0"),
            ("999", "999"),
            ("1000", "1,000"),
            ("-123456", "-123,456"),
            ("2747282740", "2,747,282,740"),
            ("306906.299225849882", "306,906.299225849882"),
            ("0.5", "0.5"),
        ] {
            assert_eq!(grouped_text(number), want);
        }
        assert_eq!(counted(1, "event"), "1 event");
        assert_eq!(counted(10_000, "event"), "10,000 events");
    }

    #[test]
    fn bytes_have_a_unit_that_fits() {
        for (number, want) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (123_456, "123.4 kB"),
            (2_747_282_740, "2.7 GB"),
            (u64::MAX, "18446.7 PB"),
        ] {
            assert_eq!(bytes(number), want);
        }
    }

    #[test]
    fn rates_are_per_second() {
        let half = Duration::from_millis(500);
        assert_eq!(rate(10_000, 1_250_000, half), "20,000 events/s, 2.5 MB/s");
        assert_eq!(rate(0, 0, Duration::ZERO), "0 events/s, 0.0 MB/s");
    }
}
