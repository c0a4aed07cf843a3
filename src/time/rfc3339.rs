//! Instants written as RFC 3339, read byte by byte: every event has one.
//!
//! Any offset, `T`, `t` or a space between date and time, `Z` or `z`, any number of fraction
//! digits. Digits finer than a microsecond are cut, never rounded. A leap second is refused.

use super::civil::{DAY, Fault, MINUTE, minutes_of_day, take_clock, take_date, two_digits};
use super::timestamp::{Timestamp, TimestampError};

impl Timestamp {
    /// The instant of an RFC 3339 text.
    ///
    /// # Errors
    ///
    /// What is wrong with it: shape, date, time, offset or range.
    pub fn parse_rfc3339(text: &str) -> Result<Self, TimestampError> {
        let (days, rest) = take_date(text.as_bytes()).map_err(refusal)?;
        let [b'T' | b't' | b' ', rest @ ..] = rest else {
            return Err(TimestampError::NotRfc3339);
        };
        let (of_day, rest) = take_clock(rest).map_err(refusal)?;
        let offset_minutes = match rest {
            [b'Z' | b'z'] => 0,
            [b'+', rest @ ..] => offset_minutes(rest)?,
            [b'-', rest @ ..] => -offset_minutes(rest)?,
            [] => return Err(TimestampError::NoOffset),
            _ => return Err(TimestampError::NotRfc3339),
        };
        Self::checked(days * DAY + of_day - offset_minutes * MINUTE)
    }
}

fn offset_minutes(bytes: &[u8]) -> Result<i64, TimestampError> {
    let [h0, h1, b':', m0, m1] = bytes else {
        return Err(TimestampError::NotRfc3339);
    };
    let (Ok(hours), Ok(minutes)) = (two_digits(*h0, *h1), two_digits(*m0, *m1)) else {
        return Err(TimestampError::NotRfc3339);
    };
    minutes_of_day(hours, minutes).map_err(|_| TimestampError::NoSuchOffset)
}

fn refusal(fault: Fault) -> TimestampError {
    match fault {
        Fault::Shape => TimestampError::NotRfc3339,
        Fault::NoSuchDate => TimestampError::NoSuchDate,
        Fault::NoSuchTime => TimestampError::NoSuchTime,
        Fault::LeapSecond => TimestampError::LeapSecond,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn instants_are_read_to_the_microsecond() {
        for (text, want) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-10-01T12:30:45+02:00", 1_790_850_645_000_000),
            ("2026-10-01t10:30:45z", 1_790_850_645_000_000),
            ("2026-10-01 10:30:45-00:00", 1_790_850_645_000_000),
            ("2026-10-01T05:00:45.5-05:30", 1_790_850_645_500_000),
            ("2026-10-01T10:30:45.1234567890123456789Z", 1_790_850_645_123_456),
            ("2026-10-01T10:30:45.9999999Z", 1_790_850_645_999_999),
            ("1969-12-31T23:59:59.9999999Z", -1),
            ("1969-12-31T23:59:59.0000009Z", -1_000_000),
            ("2024-02-29T23:59:59Z", 1_709_251_199_000_000),
            ("0001-01-01T00:00:00Z", Timestamp::MIN.micros()),
            ("9999-12-31T23:59:59.999999Z", Timestamp::MAX.micros()),
            ("0001-01-01T23:59:00+23:59", Timestamp::MIN.micros()),
        ] {
            assert_eq!(Timestamp::parse_rfc3339(text), Ok(Timestamp::from_micros(want)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_reason() {
        use TimestampError::{
            LeapSecond, NoOffset, NoSuchDate, NoSuchOffset, NoSuchTime, NotRfc3339, OutOfRange,
        };
        for (text, want) in [
            ("", NotRfc3339),
            ("1790850645", NotRfc3339),
            ("2026-10-01", NotRfc3339),
            ("2026-10-01T10:30Z", NotRfc3339),
            ("2026-10-01T10:30:45", NoOffset),
            ("2026-10-01T10:30:45.5", NoOffset),
            ("2026-10-01T10:30:45.Z", NotRfc3339),
            ("2026-10-01T10:30:45,5Z", NotRfc3339),
            ("2026-10-01T10:30:45Zx", NotRfc3339),
            ("2026-10-01T10:30:45 Z", NotRfc3339),
            ("2026-10-01T10:30:45+0200", NotRfc3339),
            ("2026-10-01T10:30:45+02", NotRfc3339),
            ("2026-10-01T10:30:45+02:00:00", NotRfc3339),
            ("2026-10-01_10:30:45Z", NotRfc3339),
            ("2026-1-01T10:30:45Z", NotRfc3339),
            ("+2026-10-01T10:30:45Z", NotRfc3339),
            ("2026-10-01T1:30:45Z", NotRfc3339),
            ("2026-10-01T10:30:45Z\n", NotRfc3339),
            ("２026-10-01T10:30:45Z", NotRfc3339),
            ("2026-13-01T10:30:45Z", NoSuchDate),
            ("2026-00-01T10:30:45Z", NoSuchDate),
            ("2026-02-29T10:30:45Z", NoSuchDate),
            ("1900-02-29T10:30:45Z", NoSuchDate),
            ("2026-10-00T10:30:45Z", NoSuchDate),
            ("0000-01-01T00:00:00Z", NoSuchDate),
            ("2026-10-01T24:00:00Z", NoSuchTime),
            ("2026-10-01T10:60:00Z", NoSuchTime),
            ("2026-10-01T10:30:61Z", NoSuchTime),
            ("2016-12-31T23:59:60Z", LeapSecond),
            ("2026-10-01T10:30:45+24:00", NoSuchOffset),
            ("2026-10-01T10:30:45-02:60", NoSuchOffset),
            ("0001-01-01T00:00:00+00:01", OutOfRange),
            ("9999-12-31T23:59:59-00:01", OutOfRange),
        ] {
            assert_eq!(Timestamp::parse_rfc3339(text), Err(want), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_instant_in_any_offset_reads_as_jiff_reads_it(
            micros in Timestamp::MIN.micros() + 2 * DAY..Timestamp::MAX.micros() - 3 * DAY,
            offset_minutes in -1439_i32..1440,
        ) {
            let instant = jiff::Timestamp::from_microsecond(micros).unwrap();
            let offset = jiff::tz::Offset::from_seconds(offset_minutes * 60).unwrap();
            let text = instant.display_with_offset(offset).to_string();
            prop_assert_eq!(Timestamp::parse_rfc3339(&text), Ok(Timestamp::from_micros(micros)));
            let ours = Timestamp::from_micros(micros);
            prop_assert_eq!(ours.to_string(), instant.to_string());
            prop_assert_eq!(Timestamp::parse_rfc3339(&ours.to_string()), Ok(ours));
        }

        #[test]
        fn what_we_take_jiff_takes_alike(
            date in "[12]9[79][0-9]-[01][0-9]-[0-3][0-9]",
            clock in "[Tt ][0-2][0-9]:[0-6][0-9]:[0-5][0-9](\\.[0-9]{1,9})?",
            offset in "Z|z|[+-][01][0-9]:[0-5][0-9]",
        ) {
            let text = format!("{date}{clock}{offset}");
            let ours = Timestamp::parse_rfc3339(&text).ok();
            let theirs = text.parse::<jiff::Timestamp>().ok();
            // Whole microseconds downwards, which is what cutting digits means.
            let theirs = theirs.map(|instant| {
                let micros = instant.as_nanosecond().div_euclid(1_000);
                Timestamp::from_micros(i64::try_from(micros).unwrap())
            });
            prop_assert_eq!(ours, theirs);
        }
    }
}
