//! Instants written in a zone's own calendar, read and printed.

use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;

use super::civil::{
    DAY, Date, Fault, MINUTE, days_of_date, take_clock, take_date, take_short_clock, write_civil,
};
use super::timestamp::{Timestamp, TimestampError};
use super::zone::{compatible_instant, first_instant, offset_at, offset_micros, parse_zone};

impl Timestamp {
    /// The instant of a date and time `YYYY-MM-DD[ T]HH:MM[:SS[.f]]` in a zone, or of the beginning
    /// of a date alone.
    ///
    /// A time that clocks show twice is the first one; one that they skip is as much later as they
    /// were put forward. Digits finer than a microsecond are cut.
    ///
    /// # Errors
    ///
    /// What is wrong with it: shape, date, time or range.
    pub fn parse_local(text: &str, zone: &TimeZone) -> Result<Self, TimestampError> {
        let (days, rest) = take_date(text.as_bytes()).map_err(refusal)?;
        let clock = match rest {
            [] => return Self::checked(first_instant(zone, days * DAY)),
            [b'T' | b't' | b' ', clock @ ..] => clock,
            _ => return Err(TimestampError::NotCivil),
        };
        let read = if clock.len() > "HH:MM".len() { take_clock } else { take_short_clock };
        let (of_day, []) = read(clock).map_err(refusal)? else {
            return Err(TimestampError::NotCivil);
        };
        Self::checked(compatible_instant(zone, days * DAY + of_day))
    }

    /// The instant of a text in a `strptime` format such as `%d/%b/%Y:%H:%M:%S %z`.
    ///
    /// An offset (`%z`), a zone (`%Q`) or epoch seconds (`%s`) in the format win over `zone`. At
    /// least a date must be in it; a missing time is midnight. Fractions have up to nine digits, of
    /// which those finer than a microsecond are cut; second 60 counts as 59.
    ///
    /// # Errors
    ///
    /// [`TimestampError::NotInFormat`] with where it departs, [`TimestampError::OutOfRange`].
    pub fn parse_format(text: &str, format: &str, zone: &TimeZone) -> Result<Self, TimestampError> {
        let departs =
            |reason: String| TimestampError::NotInFormat { format: format.to_owned(), reason };
        let parts =
            BrokenDownTime::parse(format, text).map_err(|error| departs(error.to_string()))?;
        if let Some(instant) = parts.timestamp() {
            return Self::checked(instant.as_microsecond());
        }
        let moment = parts.to_datetime().map_err(|error| departs(error.to_string()))?;
        let civil = civil_micros(moment);
        if let Some(offset) = parts.offset() {
            return Self::checked(civil - offset_micros(offset));
        }
        match parts.iana_time_zone() {
            None => Self::checked(compatible_instant(zone, civil)),
            Some(name) => {
                let zone = parse_zone(name).map_err(|error| departs(error.to_string()))?;
                Self::checked(compatible_instant(&zone, civil))
            }
        }
    }
}

/// RFC 3339 with the zone's offset at that instant, `Z` for the zone UTC; a fraction only where
/// there is one.
///
/// An offset with seconds, as zones had before standard time, is cut to whole minutes and the time
/// moved along, so that the text still means the same instant.
pub fn format_in_zone(instant: Timestamp, zone: &TimeZone) -> String {
    if *zone == TimeZone::UTC || zone.iana_name() == Some("Etc/UTC") {
        return instant.to_string();
    }
    let minutes = offset_at(zone, instant.micros()) / MINUTE;
    let mut text = String::with_capacity("2026-10-01T00:00:00.000000+00:00".len());
    let written = write_civil(&mut text, instant.micros().saturating_add(minutes * MINUTE));
    debug_assert!(written.is_ok(), "a string takes every text");
    let sign = if minutes < 0 { '-' } else { '+' };
    text.push_str(&format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60));
    text
}

fn civil_micros(moment: jiff::civil::DateTime) -> i64 {
    let date =
        Date { year: moment.year().into(), month: moment.month().into(), day: moment.day().into() };
    let minutes = i64::from(moment.hour()) * 60 + i64::from(moment.minute());
    let seconds = minutes * 60 + i64::from(moment.second());
    let micros = i64::from(moment.subsec_nanosecond()) / 1_000;
    days_of_date(date) * DAY + seconds * 1_000_000 + micros
}

fn refusal(fault: Fault) -> TimestampError {
    match fault {
        Fault::Shape => TimestampError::NotCivil,
        Fault::NoSuchDate => TimestampError::NoSuchDate,
        Fault::NoSuchTime => TimestampError::NoSuchTime,
        Fault::LeapSecond => TimestampError::LeapSecond,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> TimeZone {
        parse_zone(name).unwrap()
    }

    #[test]
    fn civil_texts_are_read_in_their_zone() {
        for (text, name, want) in [
            ("2026-10-01", "Europe/Berlin", "2026-09-30T22:00:00Z"),
            ("2026-10-01 12:30", "Europe/Berlin", "2026-10-01T10:30:00Z"),
            ("2026-10-01T12:30:45", "UTC", "2026-10-01T12:30:45Z"),
            ("2026-10-01 12:30:45.1234567", "Asia/Kathmandu", "2026-10-01T06:45:45.123456Z"),
            ("2026-03-29 02:30", "Europe/Berlin", "2026-03-29T01:30:00Z"),
            ("2026-10-25 02:30", "Europe/Berlin", "2026-10-25T00:30:00Z"),
            ("2018-11-04", "America/Sao_Paulo", "2018-11-04T03:00:00Z"),
        ] {
            let got = Timestamp::parse_local(text, &zone(name)).unwrap();
            assert_eq!(got.to_string(), want, "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_civil_moments() {
        use TimestampError::{LeapSecond, NoSuchDate, NoSuchTime, NotCivil, OutOfRange};
        for (text, want) in [
            ("", NotCivil),
            ("2026-10", NotCivil),
            ("2026-10-01T", NotCivil),
            ("2026-10-01T1", NotCivil),
            ("2026-10-01T10:30Z", NotCivil),
            ("2026-10-01T10:30:00Z", NotCivil),
            ("2026-10-01T10:30:00.", NotCivil),
            ("01.10.2026", NotCivil),
            ("2026-02-30", NoSuchDate),
            ("2026-02-28 24:00", NoSuchTime),
            ("2026-02-28 23:59:60", LeapSecond),
            ("0001-01-01", OutOfRange),
        ] {
            assert_eq!(Timestamp::parse_local(text, &zone("Asia/Tokyo")), Err(want), "{text}");
        }
    }

    #[test]
    fn formats_are_read_with_their_own_offset_or_in_the_zone() {
        for (text, format, want) in [
            ("01/Oct/2026:12:30:45 +0200", "%d/%b/%Y:%H:%M:%S %z", "2026-10-01T10:30:45Z"),
            ("01/Oct/2026:12:30:45", "%d/%b/%Y:%H:%M:%S", "2026-10-01T03:30:45Z"),
            ("12/1/2010 8:26", "%m/%d/%Y %H:%M", "2010-11-30T23:26:00Z"),
            ("2026-10-01", "%Y-%m-%d", "2026-09-30T15:00:00Z"),
            ("1790850645", "%s", "2026-10-01T10:30:45Z"),
            ("2026-10-01 12:30:45.1234569", "%Y-%m-%d %H:%M:%S%.f", "2026-10-01T03:30:45.123456Z"),
            ("2026-10-01 12:30 Europe/Berlin", "%Y-%m-%d %H:%M %Q", "2026-10-01T10:30:00Z"),
        ] {
            let got = Timestamp::parse_format(text, format, &zone("Asia/Tokyo")).unwrap();
            assert_eq!(got.to_string(), want, "{text}");
        }
        let error = Timestamp::parse_format("1 Oct", "%Y-%m-%d", &zone("UTC")).unwrap_err();
        assert!(
            error.to_string().starts_with("does not follow the format `%Y-%m-%d`: "),
            "{error}"
        );
        assert!(Timestamp::parse_format("12:30", "%H:%M", &zone("UTC")).is_err());
    }

    #[test]
    fn instants_print_with_the_offset_of_their_zone() {
        for (instant, name, want) in [
            ("2026-09-30T22:00:00Z", "Europe/Berlin", "2026-10-01T00:00:00+02:00"),
            ("2026-10-01T00:00:00Z", "UTC", "2026-10-01T00:00:00Z"),
            ("2026-01-01T00:00:00Z", "Europe/London", "2026-01-01T00:00:00+00:00"),
            ("2026-10-01T00:00:00.25Z", "America/St_Johns", "2026-09-30T21:30:00.25-02:30"),
            ("1890-01-01T00:00:00Z", "Europe/Berlin", "1890-01-01T00:53:00+00:53"),
            ("1880-01-01T00:00:00Z", "America/New_York", "1879-12-31T19:04:00-04:56"),
        ] {
            let instant = Timestamp::parse_rfc3339(instant).unwrap();
            let text = format_in_zone(instant, &zone(name));
            assert_eq!(text, want);
            assert_eq!(Timestamp::parse_rfc3339(&text), Ok(instant), "{want}");
        }
    }
}
