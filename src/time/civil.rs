//! The calendar as arithmetic: civil dates and times of day, read and written without a zone.
//!
//! A civil moment is counted in microseconds from 1970-01-01T00:00 of the same calendar, whatever
//! the zone. The arithmetic is the proleptic Gregorian calendar's, for any year.

use std::fmt;

pub(super) const SECOND: i64 = 1_000_000;
pub(super) const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;

/// Years, months and days repeat after 400 years.
const ERA_YEARS: i64 = 400;
const ERA_DAYS: i64 = 146_097;
/// Days from 0000-03-01, where the arithmetic starts, to 1970-01-01.
const DAYS_TO_1970: i64 = 719_468;

/// A date of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Date {
    pub(super) year: i64,
    pub(super) month: i64,
    pub(super) day: i64,
}

/// What is wrong with a civil text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is not written as asked.
    Shape,
    /// Month or day do not exist.
    NoSuchDate,
    /// Hour, minute or second do not exist.
    NoSuchTime,
    /// The second is 60.
    LeapSecond,
}

/// Days from 1970-01-01 to a date; months and days must exist.
// Years are taken to begin in March, so that the leap day is the last of its year and the lengths
// of the months before it follow one formula.
pub(super) fn days_of_date(Date { year, month, day }: Date) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year) = (year.div_euclid(ERA_YEARS), year.rem_euclid(ERA_YEARS));
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    era * ERA_DAYS + 365 * year + year / 4 - year / 100 + day_of_year - DAYS_TO_1970
}

/// The date so many days after 1970-01-01.
pub(super) fn date_of_days(days: i64) -> Date {
    let days = days + DAYS_TO_1970;
    let (era, day_of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    // Leap days before this one are taken out: every 4 years, but not every 100, but every 400.
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * ERA_YEARS + year;
    if month < 10 {
        Date { year, month: month + 3, day }
    } else {
        Date { year: year + 1, month: month - 9, day }
    }
}

/// How many days a month of a year has; 0 for a month that does not exist.
pub(super) fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 0,
    }
}

/// Reads `YYYY-MM-DD`: the days since 1970-01-01 and what follows.
#[inline]
pub(super) fn take_date(bytes: &[u8]) -> Result<(i64, &[u8]), Fault> {
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, rest @ ..] = bytes else {
        return Err(Fault::Shape);
    };
    let year = two_digits(*y0, *y1)? * 100 + two_digits(*y2, *y3)?;
    let (month, day) = (two_digits(*m0, *m1)?, two_digits(*d0, *d1)?);
    if year < 1 || day < 1 || day > days_in_month(year, month) {
        return Err(Fault::NoSuchDate);
    }
    Ok((days_of_date(Date { year, month, day }), rest))
}

/// Reads `HH:MM:SS` with any number of fraction digits: microseconds since midnight, finer digits
/// cut, and what follows.
#[inline]
pub(super) fn take_clock(bytes: &[u8]) -> Result<(i64, &[u8]), Fault> {
    let [h0, h1, b':', m0, m1, b':', s0, s1, rest @ ..] = bytes else {
        return Err(Fault::Shape);
    };
    let minutes = minutes_of_day(two_digits(*h0, *h1)?, two_digits(*m0, *m1)?)?;
    let second = two_digits(*s0, *s1)?;
    if second > 59 {
        return Err(if second == 60 { Fault::LeapSecond } else { Fault::NoSuchTime });
    }
    let (fraction, rest) = take_fraction(rest)?;
    Ok((minutes * MINUTE + second * SECOND + fraction, rest))
}

/// Reads `HH:MM`, a clock without seconds: microseconds since midnight and what follows.
pub(super) fn take_short_clock(bytes: &[u8]) -> Result<(i64, &[u8]), Fault> {
    let [h0, h1, b':', m0, m1, rest @ ..] = bytes else {
        return Err(Fault::Shape);
    };
    let minutes = minutes_of_day(two_digits(*h0, *h1)?, two_digits(*m0, *m1)?)?;
    Ok((minutes * MINUTE, rest))
}

/// Minutes since midnight.
pub(super) fn minutes_of_day(hour: i64, minute: i64) -> Result<i64, Fault> {
    if hour > 23 || minute > 59 { Err(Fault::NoSuchTime) } else { Ok(hour * 60 + minute) }
}

/// The number that two digits write.
#[inline]
pub(super) fn two_digits(tens: u8, units: u8) -> Result<i64, Fault> {
    let (tens, units) = (tens.wrapping_sub(b'0'), units.wrapping_sub(b'0'));
    if tens > 9 || units > 9 {
        return Err(Fault::Shape);
    }
    Ok(i64::from(tens * 10 + units))
}

/// Reads an optional `.` and digits: the microseconds they mean and what follows.
#[inline]
fn take_fraction(bytes: &[u8]) -> Result<(i64, &[u8]), Fault> {
    let [b'.', digits @ ..] = bytes else {
        return Ok((0, bytes));
    };
    let (mut micros, mut place, mut length) = (0, SECOND / 10, 0);
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        micros += i64::from(digit) * place;
        place /= 10;
        length += 1;
    }
    if length == 0 { Err(Fault::Shape) } else { Ok((micros, &digits[length..])) }
}

/// Writes a civil moment as `YYYY-MM-DDTHH:MM:SS`, with a fraction only where there is one.
pub(super) fn write_civil(f: &mut impl fmt::Write, civil_micros: i64) -> fmt::Result {
    let Date { year, month, day } = date_of_days(civil_micros.div_euclid(DAY));
    let of_day = civil_micros.rem_euclid(DAY);
    let (hour, minute) = (of_day / HOUR, of_day / MINUTE % 60);
    let (second, fraction) = (of_day / SECOND % 60, of_day % SECOND);
    write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
    if fraction != 0 {
        let digits = format!("{fraction:06}");
        write!(f, ".{}", digits.trim_end_matches('0'))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_agree_over_all_years_and_beyond() {
        let mut date = Date { year: -1, month: 1, day: 1 };
        let first = days_of_date(date);
        let last = days_of_date(Date { year: 10_001, month: 1, day: 1 });
        for days in first..last {
            assert_eq!(date_of_days(days), date);
            assert_eq!(days_of_date(date), days);
            date.day += 1;
            if date.day > days_in_month(date.year, date.month) {
                date = Date { year: date.year, month: date.month + 1, day: 1 };
            }
            if date.month > 12 {
                date = Date { year: date.year + 1, month: 1, day: 1 };
            }
        }
        assert_eq!(days_of_date(Date { year: 1970, month: 1, day: 1 }), 0);
    }
}
