//! Instants written as a number since 1970, where an input format says of what unit.

use std::fmt;

use arrow::datatypes::i256;

use super::timestamp::{Timestamp, TimestampError};
use crate::decimal::{Number, parse_number};

/// What a number since 1970 counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EpochUnit {
    /// Seconds.
    Seconds,
    /// Thousandths of a second.
    Millis,
    /// Millionths of a second.
    Micros,
    /// Billionths of a second.
    Nanos,
}

impl EpochUnit {
    /// Powers of ten from this unit down to the nanosecond.
    fn nanos_exponent(self) -> u32 {
        match self {
            Self::Seconds => 9,
            Self::Millis => 6,
            Self::Micros => 3,
            Self::Nanos => 0,
        }
    }
}

impl fmt::Display for EpochUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seconds => "seconds",
            Self::Millis => "milliseconds",
            Self::Micros => "microseconds",
            Self::Nanos => "nanoseconds",
        })
    }
}

impl Timestamp {
    /// The instant so many units after 1970-01-01T00:00:00Z, from an exact integer or decimal.
    ///
    /// Fraction digits finer than a microsecond are cut from the number as written, so that
    /// -1.9999999 seconds are -1999999 microseconds. Nanoseconds are rounded towards the past, as
    /// those of columns of instants are: -1 ns is the last microsecond of 1969.
    ///
    /// # Errors
    ///
    /// [`TimestampError::NotEpoch`] for what is no number, [`TimestampError::OutOfRange`].
    pub fn parse_epoch(text: &str, unit: EpochUnit) -> Result<Self, TimestampError> {
        let number = parse_number(text).map_err(|_| TimestampError::NotEpoch(unit))?;
        // Micros are units times 10^(exponent - 3): one division for each kind, so one cut.
        let exponent = unit.nanos_exponent();
        let micros = match number {
            Number::Integer(units) => {
                Some((i128::from(units) * 10_i128.pow(exponent)).div_euclid(1_000))
            }
            Number::Fixed(scaled) if unit == EpochUnit::Nanos => {
                Some(scaled.div_euclid(10_i128.pow(21)))
            }
            Number::Fixed(scaled) => Some(scaled / 10_i128.pow(21 - exponent)),
            Number::Wide(scaled) => {
                let divisor = i256::from_i128(10).wrapping_pow(41 - exponent);
                let past = unit == EpochUnit::Nanos
                    && scaled.is_negative()
                    && scaled.wrapping_rem(divisor) != i256::ZERO;
                let cut = scaled.wrapping_div(divisor);
                cut.wrapping_sub(if past { i256::ONE } else { i256::ZERO }).to_i128()
            }
        };
        let micros = micros.and_then(|micros| i64::try_from(micros).ok());
        Self::checked(micros.ok_or(TimestampError::OutOfRange)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use EpochUnit::{Micros, Millis, Nanos, Seconds};

    #[test]
    fn numbers_become_instants_to_the_microsecond() {
        for (text, unit, want) in [
            ("0", Seconds, 0),
            ("1704067200", Seconds, 1_704_067_200_000_000),
            ("1704067200.123456789", Seconds, 1_704_067_200_123_456),
            ("1.7040672E9", Seconds, 1_704_067_200_000_000),
            ("1704067200.00000000000000000001", Seconds, 1_704_067_200_000_000),
            ("1704067200.99999999999999999999", Seconds, 1_704_067_200_999_999),
            ("1704067200123", Millis, 1_704_067_200_123_000),
            ("1704067200123.4567", Millis, 1_704_067_200_123_456),
            ("1704067200123456", Micros, 1_704_067_200_123_456),
            ("1704067200123456.9", Micros, 1_704_067_200_123_456),
            ("1704067200123456.9999999999999999999", Micros, 1_704_067_200_123_456),
            ("1704067200123456789", Nanos, 1_704_067_200_123_456),
            ("1704067200123456789.5", Nanos, 1_704_067_200_123_456),
            ("1999.9999999999999999999999", Nanos, 1),
            ("253402300799999999999", Nanos, Timestamp::MAX.micros()),
            ("-1.9999999", Seconds, -1_999_999),
            ("-1500", Nanos, -2),
            ("-1", Nanos, -1),
            ("-1500.5", Nanos, -2),
            ("-1500.00000000000000000000000000001", Nanos, -2),
            ("-2000", Nanos, -2),
            ("-62135596800", Seconds, Timestamp::MIN.micros()),
        ] {
            let got = Timestamp::parse_epoch(text, unit);
            assert_eq!(got, Ok(Timestamp::from_micros(want)), "{text} {unit}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for (text, unit, want) in [
            ("", Seconds, TimestampError::NotEpoch(Seconds)),
            ("now", Millis, TimestampError::NotEpoch(Millis)),
            ("1e99", Nanos, TimestampError::NotEpoch(Nanos)),
            ("1704067200123", Seconds, TimestampError::OutOfRange),
            ("9223372036854775807", Seconds, TimestampError::OutOfRange),
            ("99999999999999999999", Seconds, TimestampError::OutOfRange),
            ("1e37", Seconds, TimestampError::OutOfRange),
            ("-1e37", Nanos, TimestampError::OutOfRange),
            ("-62135596801", Seconds, TimestampError::OutOfRange),
        ] {
            assert_eq!(Timestamp::parse_epoch(text, unit), Err(want), "{text}");
        }
    }
}
