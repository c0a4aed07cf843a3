//! The length of a query's windows, as it is written.

use std::fmt;
use std::str::FromStr;

use super::billing::BILLING_PERIOD;
use crate::error::Error;

const FORMS: &str = "write minute, hour, day, week, month, quarter, year or billing_period, or a \
    number of minutes that divides an hour (15m), of hours that divides a day (6h), or of months \
    that divides a year (2month)";

/// What the windows of a query go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Windowing {
    /// The calendar of a zone.
    Calendar(Window),
    /// Billing periods, which have an anchor.
    BillingPeriod,
}

impl Windowing {
    /// Whether every window begins with a day: those of billing periods mostly do.
    pub fn is_of_days(self) -> bool {
        match self {
            Self::Calendar(window) => window.is_of_days(),
            Self::BillingPeriod => true,
        }
    }
}

/// Reads what [`Window`] reads, and `billing_period`.
impl FromStr for Windowing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            BILLING_PERIOD => Ok(Self::BillingPeriod),
            text => text.parse().map(Self::Calendar),
        }
    }
}

impl fmt::Display for Windowing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Calendar(window) => window.fmt(f),
            Self::BillingPeriod => f.write_str(BILLING_PERIOD),
        }
    }
}

/// The windows a query divides time into, always whole ones of the zone's calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window(Step);

/// What lies between the starts of two windows; counts divide the next larger unit evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// Minutes, fewer than an hour has.
    Minutes(i64),
    /// Hours, fewer than a day has.
    Hours(i64),
    Day,
    /// ISO weeks, from Monday.
    Week,
    /// Months, counted from January.
    Months(i64),
}

impl Window {
    /// From one full minute to the next.
    pub const MINUTE: Self = Self(Step::Minutes(1));
    /// From one full hour to the next.
    pub const HOUR: Self = Self(Step::Hours(1));
    /// From one midnight to the next, of 23 to 25 hours.
    pub const DAY: Self = Self(Step::Day);
    /// From Monday to Monday.
    pub const WEEK: Self = Self(Step::Week);
    /// A calendar month.
    pub const MONTH: Self = Self(Step::Months(1));
    /// Three months, from January, April, July and October.
    pub const QUARTER: Self = Self(Step::Months(3));
    /// A calendar year.
    pub const YEAR: Self = Self(Step::Months(12));

    pub(super) fn step(self) -> Step {
        self.0
    }

    /// How many minutes it has, if it is a part of an hour.
    pub fn minutes(self) -> Option<i64> {
        match self.0 {
            Step::Minutes(minutes) => Some(minutes),
            Step::Hours(_) | Step::Day | Step::Week | Step::Months(_) => None,
        }
    }

    /// Whether every window begins with a day.
    pub fn is_of_days(self) -> bool {
        matches!(self.0, Step::Day | Step::Week | Step::Months(_))
    }
}

/// Reads a unit (`hour`), or a number and a unit (`15m`, `6h`, `2month`).
impl FromStr for Window {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || Error::invalid(format!("unknown window `{text}`: {FORMS}"));
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (count, unit) = text.split_at(digits);
        let count: i64 = match count {
            "" => 1,
            count => u32::from_str(count).map_err(|_| unknown())?.into(),
        };
        let step = match unit {
            "minute" | "minutes" | "min" => minutes(count),
            "hour" | "hours" => hours(count),
            "day" | "days" => one(count, Step::Day, "a week"),
            "week" | "weeks" => one(count, Step::Week, "a year"),
            "month" | "months" => months(count),
            "quarter" | "quarters" => months(count * 3),
            "year" | "years" => one(count, Step::Months(12), "a longer calendar unit"),
            // One letter alone is a typing error, not a window of one.
            "m" if digits > 0 => minutes(count),
            "h" if digits > 0 => hours(count),
            "d" if digits > 0 => one(count, Step::Day, "a week"),
            "w" if digits > 0 => one(count, Step::Week, "a year"),
            "y" if digits > 0 => one(count, Step::Months(12), "a longer calendar unit"),
            _ => return Err(unknown()),
        };
        step.map(Self).map_err(|whole| {
            Error::invalid(format!("window `{text}` does not divide {whole} evenly: {FORMS}"))
        })
    }
}

fn minutes(count: i64) -> Result<Step, &'static str> {
    match count {
        60 => Ok(Step::Hours(1)),
        count if divides(count, 60) => Ok(Step::Minutes(count)),
        _ => Err("an hour"),
    }
}

fn hours(count: i64) -> Result<Step, &'static str> {
    match count {
        24 => Ok(Step::Day),
        count if divides(count, 24) => Ok(Step::Hours(count)),
        _ => Err("a day"),
    }
}

fn months(count: i64) -> Result<Step, &'static str> {
    if divides(count, 12) { Ok(Step::Months(count)) } else { Err("a year") }
}

fn one(count: i64, step: Step, whole: &'static str) -> Result<Step, &'static str> {
    if count == 1 { Ok(step) } else { Err(whole) }
}

fn divides(count: i64, whole: i64) -> bool {
    count > 0 && whole % count == 0
}

/// The canonical name, which reads back as the same window.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Step::Minutes(1) => f.write_str("minute"),
            Step::Minutes(count) => write!(f, "{count}m"),
            Step::Hours(1) => f.write_str("hour"),
            Step::Hours(count) => write!(f, "{count}h"),
            Step::Day => f.write_str("day"),
            Step::Week => f.write_str("week"),
            Step::Months(1) => f.write_str("month"),
            Step::Months(3) => f.write_str("quarter"),
            Step::Months(12) => f.write_str("year"),
            Step::Months(count) => write!(f, "{count}month"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_read_and_print_canonically() {
        for (text, want) in [
            ("minute", "minute"),
            ("1m", "minute"),
            ("15m", "15m"),
            ("30minutes", "30m"),
            ("60m", "hour"),
            ("hour", "hour"),
            ("1h", "hour"),
            ("6h", "6h"),
            ("24h", "day"),
            ("day", "day"),
            ("1d", "day"),
            ("week", "week"),
            ("1w", "week"),
            ("month", "month"),
            ("2month", "2month"),
            ("6months", "6month"),
            ("3month", "quarter"),
            ("quarter", "quarter"),
            ("2quarter", "6month"),
            ("12month", "year"),
            ("year", "year"),
        ] {
            let window: Window = text.parse().unwrap();
            assert_eq!(window.to_string(), want, "{text}");
            assert_eq!(want.parse::<Window>().unwrap(), window, "{text}");
        }
        assert_eq!("15m".parse::<Window>().unwrap().step(), Step::Minutes(15));
        let windowing = |text: &str| text.parse::<Windowing>().map_err(|error| error.to_string());
        assert_eq!(windowing("billing_period"), Ok(Windowing::BillingPeriod));
        assert_eq!(windowing("day"), Ok(Windowing::Calendar(Window::DAY)));
        assert!(windowing("billing").unwrap_err().contains("quarter, year or billing_period"));
    }

    #[test]
    fn other_windows_are_refused_with_the_reason() {
        for (text, part) in [
            ("", "unknown window ``: write minute"),
            ("fortnight", "15m"),
            ("Hour", "unknown window `Hour`"),
            ("m", "unknown window"),
            ("15", "unknown window"),
            ("-15m", "unknown window"),
            ("15 m", "unknown window"),
            ("99999999999m", "unknown window"),
            ("0m", "does not divide an hour evenly"),
            ("7m", "does not divide an hour evenly"),
            ("90m", "does not divide an hour evenly"),
            ("5h", "does not divide a day evenly"),
            ("48h", "does not divide a day evenly"),
            ("2d", "does not divide a week evenly"),
            ("2w", "does not divide a year evenly"),
            ("5month", "does not divide a year evenly"),
            ("3quarter", "does not divide a year evenly"),
            ("2year", "does not divide"),
            ("billing_period", "unknown window `billing_period`"),
        ] {
            let error = text.parse::<Window>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
