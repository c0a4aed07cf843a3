//! An instant, and why a text is none.

use std::fmt;

use super::civil::{DAY, write_civil};
use super::epoch::EpochUnit;

/// An instant in microseconds UTC since 1970, of the years 0001 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Why a text is no instant; the message continues "timestamp `…`".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// Not written as RFC 3339 asks.
    #[error("is not RFC 3339 such as 2026-10-01T12:30:00Z")]
    NotRfc3339,
    /// RFC 3339 but for the missing offset.
    #[error("has no offset from UTC: end it in Z, or in one such as +02:00")]
    NoOffset,
    /// Not a civil date and time.
    #[error("is not a date and time such as 2026-10-01 12:30:00, nor a date alone")]
    NotCivil,
    /// Month 13, 30 February, year 0.
    #[error("names a date that does not exist")]
    NoSuchDate,
    /// Hour 24, minute 60.
    #[error("names a time of day beyond 23:59:59")]
    NoSuchTime,
    /// Offset +24:00, minute 60 of an offset.
    #[error("has an offset beyond 23:59")]
    NoSuchOffset,
    /// Second 60, which UTC microseconds cannot tell from the next minute's first.
    #[error("names second 60: a leap second cannot be stored, send second 59 or the next minute")]
    LeapSecond,
    /// Before year 1 or after year 9999.
    #[error("lies outside the years 0001 to 9999 UTC")]
    OutOfRange,
    /// Not a plain number.
    #[error("is not a number of {0} since 1970")]
    NotEpoch(EpochUnit),
    /// Does not follow the format given.
    #[error("does not follow the format `{format}`: {reason}")]
    NotInFormat {
        /// The format asked for.
        format: String,
        /// Where it departs from it.
        reason: String,
    },
}

impl Timestamp {
    /// The first instant of year 1.
    pub const MIN: Self = Self(-62_135_596_800_000_000);
    /// The last microsecond of year 9999.
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// The instant so many microseconds after 1970-01-01T00:00:00Z.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The UTC date, in days since 1970-01-01.
    pub fn date_days(self) -> i32 {
        i32::try_from(self.0.div_euclid(DAY)).expect("2^63 microseconds are fewer than 2^27 days")
    }

    /// The instant, where it lies within the years 0001 to 9999.
    pub(super) fn checked(micros: i64) -> Result<Self, TimestampError> {
        if (Self::MIN.0..=Self::MAX.0).contains(&micros) {
            Ok(Self(micros))
        } else {
            Err(TimestampError::OutOfRange)
        }
    }
}

/// RFC 3339 in UTC: `2026-10-01T12:30:00.25Z`, with a fraction only where there is one.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_civil(f, self.0)?;
        f.write_str("Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_print_as_rfc_3339() {
        for (micros, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (1_500_000, "1970-01-01T00:00:01.5Z"),
            (1_790_850_645_000_120, "2026-10-01T10:30:45.00012Z"),
            (Timestamp::MIN.micros(), "0001-01-01T00:00:00Z"),
            (Timestamp::MAX.micros(), "9999-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(Timestamp::from_micros(micros).to_string(), want);
        }
    }

    #[test]
    fn days_count_from_midnight_utc() {
        for (micros, want) in [(0, 0), (DAY - 1, 0), (DAY, 1), (-1, -1), (-DAY, -1), (-DAY - 1, -2)]
        {
            assert_eq!(Timestamp::from_micros(micros).date_days(), want);
        }
        assert_eq!(Timestamp::from_micros(i64::MIN).date_days(), -106_751_992);
    }
}
