//! Ranges and bounds as people write them: `2026-10`, `last-month`, `7d`, in the zone of the query.
//!
//! A period becomes absolute bounds at once, from the clock given; nothing later asks what "today"
//! was.

use jiff::tz::TimeZone;

use super::billing_period::BillingPeriod;
use super::civil::{DAY, Date, HOUR, date_of_days, days_in_month, days_of_date};
use super::range::TimeRange;
use super::timestamp::{Timestamp, TimestampError};
use super::zone::{first_instant_in_range, offset_at};
use crate::error::{Error, Result};

const PERIOD_FORMS: &str = "write a year (2026), quarter (2026-Q3), month (2026-10) or day \
    (2026-10-05), a range whose end is left out (2026-10-01..2026-10-15, either side may be open), \
    today, yesterday, this-week, last-week, this-month, last-month, this-year, last-year, \
    this-billing-period, last-billing-period, billing:2026-10, or the last days or hours (7d, 24h)";

const BOUND_FORMS: &str = "write a date (2026-10-01), a date and time in the query's zone \
    (2026-10-01 12:30:00), or RFC 3339 (2026-10-01T12:30:00+02:00)";

/// The range of a period, its calendar being the zone's and its clock `now`.
///
/// `7d` begins at the midnight seven days before today and ends now; `24h` is exactly the last 24
/// hours; weeks are ISO weeks.
///
/// # Errors
///
/// Invalid for any other text, with the forms there are, and for a range that ends before it
/// begins.
pub fn parse_period(text: &str, zone: &TimeZone, now: Timestamp) -> Result<TimeRange> {
    if let Some((from, to)) = text.split_once("..") {
        return written_range(text, from, to, zone);
    }
    let today = (now.micros().saturating_add(offset_at(zone, now.micros()))).div_euclid(DAY);
    if let Some((first, end)) = named_days(text, today) {
        return Ok(days_range(zone, first, end));
    }
    if let Some(range) = last_days_or_hours(text, zone, now, today) {
        return Ok(range);
    }
    match written_days(text) {
        Some(Ok((first, end))) => Ok(days_range(zone, first, end)),
        Some(Err(error)) => Err(Error::invalid(format!("period `{text}` {error}"))),
        None if BillingPeriod::named(text)?.is_some() => Err(Error::invalid(format!(
            "period `{text}` is a billing period, and there are none of what is asked here: write its \
             days, such as 2026-10-01..2026-11-01"
        ))),
        None => Err(Error::invalid(format!("unknown period `{text}`: {PERIOD_FORMS}"))),
    }
}

/// The instant of a bound: a date (its beginning in the zone), a date and time in the zone, or
/// RFC 3339.
///
/// # Errors
///
/// Invalid, saying what is wrong with it.
pub fn parse_bound(text: &str, zone: &TimeZone) -> Result<Timestamp> {
    let instant = match Timestamp::parse_rfc3339(text) {
        Err(TimestampError::NotRfc3339 | TimestampError::NoOffset) => {
            Timestamp::parse_local(text, zone)
        }
        instant => instant,
    };
    instant.map_err(|error| {
        Error::invalid(match error {
            TimestampError::NotCivil => format!("unknown time `{text}`: {BOUND_FORMS}"),
            error => format!("time `{text}` {error}"),
        })
    })
}

/// `from..to`, where either side may be missing.
fn written_range(text: &str, from: &str, to: &str, zone: &TimeZone) -> Result<TimeRange> {
    if from.is_empty() && to.is_empty() {
        return Err(Error::invalid(format!("period `{text}` has no bound: {PERIOD_FORMS}")));
    }
    let bound = |side: &str| match side {
        "" => Ok(None),
        side => parse_bound(side, zone).map(Some),
    };
    let range = TimeRange { from: bound(from)?, to: bound(to)? };
    if range.is_empty() {
        return Err(Error::invalid(format!(
            "period `{text}` is empty: its end, which is left out, must come after its beginning"
        )));
    }
    Ok(range)
}

/// The days of a named period, the last one excluded.
fn named_days(text: &str, today: i64) -> Option<(i64, i64)> {
    let Date { year, month, .. } = date_of_days(today);
    // 1970-01-01 was a Thursday, three days after a Monday.
    let monday = today - (today + 3).rem_euclid(7);
    Some(match text {
        "today" => (today, today + 1),
        "yesterday" => (today - 1, today),
        "this-week" => (monday, monday + 7),
        "last-week" => (monday - 7, monday),
        "this-month" => months_days(year, month, 1),
        "last-month" => months_days(year, month - 1, 1),
        "this-year" => months_days(year, 1, 12),
        "last-year" => months_days(year - 1, 1, 12),
        _ => return None,
    })
}

/// `7d` and `24h`, both ending now.
fn last_days_or_hours(
    text: &str,
    zone: &TimeZone,
    now: Timestamp,
    today: i64,
) -> Option<TimeRange> {
    let unit = text.get(text.len().checked_sub(1)?..)?;
    let count: u32 = text.get(..text.len() - 1)?.parse().ok().filter(|count| *count > 0)?;
    if text.starts_with('+') {
        return None;
    }
    let count = i64::from(count);
    let from = match unit {
        "d" => first_instant_in_range(zone, (today - count).saturating_mul(DAY)),
        "h" => now.micros().saturating_sub(count.saturating_mul(HOUR)),
        _ => return None,
    };
    let from = Timestamp::from_micros(from).max(Timestamp::MIN);
    Some(TimeRange { from: Some(from), to: Some(now) })
}

/// The days of `2026`, `2026-Q3`, `2026-10` or `2026-10-05`, the last one excluded; `None` for
/// another shape.
pub(super) fn written_days(text: &str) -> Option<Result<(i64, i64), TimestampError>> {
    let year = number(text.get(..4)?, 4)?;
    let parts: Vec<&str> = match text.get(4..)? {
        "" => Vec::new(),
        rest => rest.strip_prefix('-')?.split('-').collect(),
    };
    let (first_month, months, day) = match parts.as_slice() {
        [] => (1, 12, None),
        [part] => match part.strip_prefix(['Q', 'q']) {
            // A quarter's number beyond 4 becomes a month beyond 12, which does not exist.
            Some(quarter) => (number(quarter, 1)? * 3 - 2, 3, None),
            None => (number(part, 2)?, 1, None),
        },
        [month, day] => (number(month, 2)?, 1, Some(number(day, 2)?)),
        _ => return None,
    };
    let exists = year >= 1
        && (1..=12).contains(&first_month)
        && day.is_none_or(|day| day >= 1 && day <= days_in_month(year, first_month));
    Some(match day {
        _ if !exists => Err(TimestampError::NoSuchDate),
        None => Ok(months_days(year, first_month, months)),
        Some(day) => {
            let first = days_of_date(Date { year, month: first_month, day });
            Ok((first, first + 1))
        }
    })
}

/// A number of exactly so many digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    let fits = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}

/// The days of so many months from a month on, counted from the year's first and possibly outside
/// of it.
fn months_days(year: i64, month: i64, months: i64) -> (i64, i64) {
    let first_day = |month: i64| {
        let (years, month) = ((month - 1).div_euclid(12), (month - 1).rem_euclid(12) + 1);
        days_of_date(Date { year: year + years, month, day: 1 })
    };
    (first_day(month), first_day(month + months))
}

fn days_range(zone: &TimeZone, first: i64, end: i64) -> TimeRange {
    let start_of = |day: i64| Some(Timestamp::from_micros(first_instant_in_range(zone, day * DAY)));
    TimeRange { from: start_of(first), to: start_of(end) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{format_in_zone, parse_zone};

    fn shown(range: TimeRange, zone: &TimeZone) -> String {
        let side = |bound: Option<Timestamp>| {
            bound.map_or(String::new(), |instant| format_in_zone(instant, zone))
        };
        format!("{} {}", side(range.from), side(range.to)).replace("T00:00:00", "")
    }

    #[test]
    fn periods_become_bounds_in_the_zone() {
        let zone = parse_zone("Europe/Berlin").unwrap();
        // A Sunday, half past midnight in Berlin, still Saturday in UTC.
        let now = Timestamp::parse_rfc3339("2026-11-01T00:30:00+01:00").unwrap();
        for (text, want) in [
            ("2026", "2026-01-01+01:00 2027-01-01+01:00"),
            ("2026-10", "2026-10-01+02:00 2026-11-01+01:00"),
            ("2026-12", "2026-12-01+01:00 2027-01-01+01:00"),
            ("2026-Q3", "2026-07-01+02:00 2026-10-01+02:00"),
            ("2026-q4", "2026-10-01+02:00 2027-01-01+01:00"),
            ("2026-10-05", "2026-10-05+02:00 2026-10-06+02:00"),
            ("2026-10-25", "2026-10-25+02:00 2026-10-26+01:00"),
            ("2026-10-01..2026-10-15", "2026-10-01+02:00 2026-10-15+02:00"),
            ("2026-10-01..", "2026-10-01+02:00 "),
            ("..2026-10-01", " 2026-10-01+02:00"),
            (
                "2026-10-01 12:30..2026-10-02T00:00:00Z",
                "2026-10-01T12:30:00+02:00 2026-10-02T02:00:00+02:00",
            ),
            ("today", "2026-11-01+01:00 2026-11-02+01:00"),
            ("yesterday", "2026-10-31+01:00 2026-11-01+01:00"),
            ("this-week", "2026-10-26+01:00 2026-11-02+01:00"),
            ("last-week", "2026-10-19+02:00 2026-10-26+01:00"),
            ("this-month", "2026-11-01+01:00 2026-12-01+01:00"),
            ("last-month", "2026-10-01+02:00 2026-11-01+01:00"),
            ("this-year", "2026-01-01+01:00 2027-01-01+01:00"),
            ("last-year", "2025-01-01+01:00 2026-01-01+01:00"),
            ("7d", "2026-10-25+02:00 2026-11-01T00:30:00+01:00"),
            ("1d", "2026-10-31+01:00 2026-11-01T00:30:00+01:00"),
            ("24h", "2026-10-31T00:30:00+01:00 2026-11-01T00:30:00+01:00"),
            ("9999", "9999-01-01+01:00 10000-01-01T01:00:00+01:00"),
        ] {
            let range = parse_period(text, &zone, now).unwrap();
            assert_eq!(shown(range, &zone), want, "{text}");
        }
        let january = Timestamp::parse_rfc3339("2026-01-15T12:00:00Z").unwrap();
        let range = parse_period("last-month", &zone, january).unwrap();
        assert_eq!(shown(range, &zone), "2025-12-01+01:00 2026-01-01+01:00");
        let long = parse_period("4294967295d", &zone, now).unwrap();
        assert_eq!(long.from, Some(Timestamp::MIN));
    }

    #[test]
    fn other_texts_are_refused_with_the_forms_there_are() {
        let now = Timestamp::from_micros(0);
        for (text, part) in [
            ("", "unknown period ``: write a year (2026)"),
            ("october", "last-month"),
            ("Today", "unknown period `Today`"),
            ("26-10", "2026-10"),
            ("2026-1", "2026-10"),
            ("2026-Q3-01", "2026-Q3"),
            ("2026-10-", "unknown period"),
            ("2026-10-01-", "unknown period"),
            ("2026-10-05T12:00", "unknown period"),
            ("0d", "7d, 24h"),
            ("+7d", "7d, 24h"),
            ("d", "7d, 24h"),
            ("7w", "7d, 24h"),
            ("７d", "7d, 24h"),
            ("é", "unknown period"),
            ("last-billing-period", "is a billing period, and there are none"),
            ("billing:2026-10", "is a billing period, and there are none"),
            ("billing:2026-Q3", "write billing:2026-10 for the billing period"),
            ("2026-13", "names a date that does not exist"),
            ("2026-00", "names a date that does not exist"),
            ("2026-Q0", "names a date that does not exist"),
            ("2026-Q5", "names a date that does not exist"),
            ("2026-02-29", "names a date that does not exist"),
            ("0000", "names a date that does not exist"),
            ("..", "has no bound"),
            ("2026-10-01..2026-10-01", "is empty"),
            ("2026-10-02..2026-10-01", "is empty"),
            ("2026-10..2026-11", "unknown time `2026-10`: write a date"),
        ] {
            let error = parse_period(text, &TimeZone::UTC, now).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn bounds_are_dates_or_instants() {
        let zone = parse_zone("Asia/Kolkata").unwrap();
        for (text, want) in [
            ("2026-10-01", "2026-09-30T18:30:00Z"),
            ("2026-10-01 00:30", "2026-09-30T19:00:00Z"),
            ("2026-10-01T00:30:00", "2026-09-30T19:00:00Z"),
            ("2026-10-01T00:30:00Z", "2026-10-01T00:30:00Z"),
            ("2026-10-01T00:30:00.5+02:00", "2026-09-30T22:30:00.5Z"),
        ] {
            assert_eq!(parse_bound(text, &zone).unwrap().to_string(), want, "{text}");
        }
        for (text, part) in [
            ("tomorrow", "unknown time `tomorrow`: write a date (2026-10-01)"),
            ("2026-10-01T00:30Z", "RFC 3339"),
            ("2026-02-30", "time `2026-02-30` names a date that does not exist"),
            ("2026-10-01T25:00:00Z", "beyond 23:59:59"),
        ] {
            let error = parse_bound(text, &zone).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
