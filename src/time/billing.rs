//! Billing periods: an anchor and a cycle, from which every period starts.
//!
//! A start is reckoned from the anchor, never from the period before it, so that a day which a short
//! month does not have comes back in the next: an anchor on the 31st gives 28 February and then
//! 31 March. Periods run backwards from the anchor as well. A start that the clocks skip or repeat is
//! the first instant at which the calendar has reached it, as for every window.

use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;

use super::civil::{
    DAY, Date, Fault, date_of_days, days_in_month, days_of_date, take_clock, take_date,
    take_short_clock, write_civil,
};
use super::starts::{STARTS_MAX, WindowStarts, check_range, covering};
use super::timestamp::Timestamp;
use super::zone::{first_instant_in_range, offset_at, parse_zone};
use crate::error::{Error, Result};

/// The window whose length is a billing period, as it is written.
pub const BILLING_PERIOD: &str = "billing_period";

/// Most days of a cycle.
const DAYS_MAX: i64 = 3_660;

const CYCLES: &str =
    "write monthly, quarterly, annual, weekly, or a number of days such as `30 days`";

/// The civil moment at which a billing period begins, from which all others are reckoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Anchor {
    civil_micros: i64,
}

/// How long a billing period is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cycle(Length);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Length {
    Months(i64),
    Days(i64),
}

/// The billing periods of someone: where they are anchored, how long they are, in which zone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BillingCycle {
    /// Where a period begins.
    pub anchor: Anchor,
    /// How long each is.
    pub cycle: Cycle,
    /// IANA name of the zone of the anchor, known to the zone database.
    pub zone: String,
}

impl Cycle {
    /// From a day of one month to that of the next.
    pub const MONTHLY: Self = Self(Length::Months(1));
}

/// Reads `YYYY-MM-DD`, or that and a time of day: `YYYY-MM-DD[T ]HH:MM[:SS[.f]]`.
impl FromStr for Anchor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        read_anchor(text).map_err(|fault| {
            let why = match fault {
                Fault::Shape => "write a date such as 2023-01-31, or 2023-01-31T06:00",
                Fault::NoSuchDate => "there is no such date",
                Fault::NoSuchTime | Fault::LeapSecond => "there is no such time of day",
            };
            Error::invalid(format!("billing anchor `{text}` cannot be: {why}"))
        })
    }
}

fn read_anchor(text: &str) -> Result<Anchor, Fault> {
    let (days, rest) = take_date(text.as_bytes())?;
    let of_day = match rest {
        [] => 0,
        [b'T' | b't' | b' ', clock @ ..] => {
            let read = if clock.len() > "HH:MM".len() { take_clock } else { take_short_clock };
            match read(clock)? {
                (of_day, []) => of_day,
                _ => return Err(Fault::Shape),
            }
        }
        _ => return Err(Fault::Shape),
    };
    Ok(Anchor { civil_micros: days * DAY + of_day })
}

/// As it is read; the time of day only where there is one.
impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.civil_micros.rem_euclid(DAY) != 0 {
            return write_civil(f, self.civil_micros);
        }
        let Date { year, month, day } = date_of_days(self.civil_micros.div_euclid(DAY));
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// Reads `monthly`, `quarterly`, `annual`, `weekly`, `30 days`, `30d`.
impl FromStr for Cycle {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let length = match text {
            "monthly" => Length::Months(1),
            "quarterly" => Length::Months(3),
            "annual" => Length::Months(12),
            "weekly" => Length::Days(7),
            _ => Length::Days(days_of_cycle(text)?),
        };
        Ok(Self(length))
    }
}

fn days_of_cycle(text: &str) -> Result<i64> {
    let unknown = || Error::invalid(format!("unknown billing cycle `{text}`: {CYCLES}"));
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    if !matches!(unit, " days" | " day" | "days" | "day" | "d") {
        return Err(unknown());
    }
    let count: i64 = count.parse::<u32>().map_err(|_| unknown())?.into();
    if !(1..=DAYS_MAX).contains(&count) {
        return Err(Error::invalid(format!(
            "billing cycle `{text}` is not 1 to {DAYS_MAX} days long"
        )));
    }
    Ok(count)
}

/// The canonical name, which reads back as the same cycle.
impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Length::Months(1) => f.write_str("monthly"),
            Length::Months(3) => f.write_str("quarterly"),
            Length::Months(12) => f.write_str("annual"),
            Length::Months(count) => write!(f, "{count} months"),
            Length::Days(7) => f.write_str("weekly"),
            Length::Days(1) => f.write_str("1 day"),
            Length::Days(count) => write!(f, "{count} days"),
        }
    }
}

impl BillingCycle {
    /// What decides where periods start, whichever of them the anchor is: cycles of one phase and
    /// zone have the same periods.
    pub fn phase(&self) -> String {
        let civil = self.anchor.civil_micros;
        let (days, of_day) = (civil.div_euclid(DAY), civil.rem_euclid(DAY));
        match self.cycle.0 {
            Length::Months(count) => {
                let date = date_of_days(days);
                let month = (date.year * 12 + date.month - 1).rem_euclid(count);
                format!("{}: month {month}, day {}, {of_day} µs", self.cycle, date.day)
            }
            Length::Days(count) => {
                format!("{}: day {}, {of_day} µs", self.cycle, days.rem_euclid(count))
            }
        }
    }

    /// The periods that cover every instant of `[from, to)`, and `from` in any case.
    ///
    /// # Errors
    /// Invalid for a range that ends before it begins, one outside the years 0001 to 9999, and more
    /// than two million periods; for a zone that the database does not have.
    pub fn periods(&self, from: Timestamp, to: Timestamp) -> Result<WindowStarts> {
        check_range(from, to)?;
        let zone = parse_zone(&self.zone)?;
        covering(
            self.number_about(&zone, from),
            |number| first_instant_in_range(&zone, self.civil_start(number)),
            from,
            to,
        )
        .ok_or_else(|| {
            Error::invalid(format!(
                "the billing cycle `{}` from {from} to {to} makes more than {STARTS_MAX} periods: \
                 take a shorter range",
                self.cycle
            ))
        })
    }

    /// The number of the period that holds an instant, or of one next to it.
    fn number_about(&self, zone: &TimeZone, instant: Timestamp) -> i64 {
        let civil = instant.micros() + offset_at(zone, instant.micros());
        let anchor = self.anchor.civil_micros;
        match self.cycle.0 {
            Length::Months(count) => (months_of(civil) - months_of(anchor)).div_euclid(count),
            Length::Days(count) => (civil - anchor).div_euclid(count * DAY),
        }
    }

    /// The civil moment at which a period starts; 0 is the one that the anchor begins.
    fn civil_start(&self, number: i64) -> i64 {
        let anchor = self.anchor.civil_micros;
        match self.cycle.0 {
            Length::Days(count) => anchor + number * count * DAY,
            Length::Months(count) => {
                let months = months_of(anchor) + number * count;
                let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
                let day = date_of_days(anchor.div_euclid(DAY)).day.min(days_in_month(year, month));
                days_of_date(Date { year, month, day }) * DAY + anchor.rem_euclid(DAY)
            }
        }
    }
}

/// Months since the beginning of year 0.
fn months_of(civil_micros: i64) -> i64 {
    let date = date_of_days(civil_micros.div_euclid(DAY));
    date.year * 12 + date.month - 1
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;
    use jiff::civil::DateTime;

    use super::*;

    fn billing(anchor: &str, cycle: &str, zone: &str) -> BillingCycle {
        BillingCycle {
            anchor: anchor.parse().unwrap(),
            cycle: cycle.parse().unwrap(),
            zone: zone.to_owned(),
        }
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    fn starts(cycle: &BillingCycle, from: &str, to: &str) -> Vec<i64> {
        match cycle.periods(at(from), at(to)).unwrap() {
            WindowStarts::Boundaries(starts) => starts,
            grid @ WindowStarts::Grid { .. } => panic!("{grid:?}"),
        }
    }

    #[test]
    fn periods_start_on_the_anchors_day_or_the_months_last() {
        for (name, anchor, cycle, from, to, want) in [
            (
                "the 31st",
                "2023-01-31",
                "monthly",
                "2023-01-31T00:00:00Z",
                "2023-06-01T00:00:00Z",
                &["01-31", "02-28", "03-31", "04-30", "05-31", "06-30"][..],
            ),
            (
                "before the anchor",
                "2023-12-31",
                "monthly",
                "2023-02-01T00:00:00Z",
                "2023-04-15T00:00:00Z",
                &["01-31", "02-28", "03-31", "04-30"],
            ),
            (
                "a leap year's February",
                "2023-10-30",
                "monthly",
                "2024-01-30T00:00:00Z",
                "2024-03-30T00:00:00Z",
                &["01-30", "02-29", "03-30"],
            ),
            (
                "quarters from the end of November",
                "2023-11-30",
                "quarterly",
                "2024-01-01T00:00:00Z",
                "2024-09-01T00:00:00Z",
                &["11-30", "02-29", "05-30", "08-30", "11-30"],
            ),
            (
                "years from a leap day",
                "2024-02-29",
                "annual",
                "2024-03-01T00:00:00Z",
                "2028-03-01T00:00:00Z",
                &["02-29", "02-28", "02-28", "02-28", "02-29", "02-28"],
            ),
            (
                "weeks from a Wednesday",
                "2024-01-03",
                "weekly",
                "2024-01-03T00:00:00Z",
                "2024-01-18T00:00:00Z",
                &["01-03", "01-10", "01-17", "01-24"],
            ),
            (
                "30 days, backwards",
                "2024-03-31",
                "30 days",
                "2024-01-31T00:00:00Z",
                "2024-03-02T00:00:00Z",
                &["01-31", "03-01", "03-31"],
            ),
        ] {
            let starts = starts(&billing(anchor, cycle, "UTC"), from, to);
            let days: Vec<String> = starts
                .iter()
                .map(|start| Timestamp::from_micros(*start).to_string())
                .map(|text| text["2023-".len().."2023-01-31".len()].to_owned())
                .collect();
            assert_eq!(days, want, "{name}");
        }
    }

    /// The first instant of a civil moment, by asking for the zone's transitions.
    fn naive_instant(civil: DateTime, zone: &TimeZone) -> i64 {
        let ambiguous = zone.to_ambiguous_timestamp(civil);
        if matches!(ambiguous.offset(), jiff::tz::AmbiguousOffset::Gap { .. }) {
            let later = ambiguous.later().unwrap();
            let after = jiff::Timestamp::from_nanosecond(later.as_nanosecond() + 1).unwrap();
            return zone.preceding(after).next().unwrap().timestamp().as_microsecond();
        }
        ambiguous.earlier().unwrap().as_microsecond()
    }

    #[test]
    fn anchors_on_29_to_31_do_not_drift_in_five_years() {
        let zones = [
            "UTC",
            "Europe/Berlin",
            "America/New_York",
            "America/Santiago",
            "Africa/Cairo",
            "Asia/Kathmandu",
            "Australia/Lord_Howe",
            "Pacific/Apia",
        ];
        for zone_name in zones {
            let zone = parse_zone(zone_name).unwrap();
            for anchor in
                ["2023-01-29", "2023-01-30", "2023-01-31", "2023-03-31T02:30", "2024-08-31"]
            {
                for (cycle, months) in [("monthly", 1), ("quarterly", 3), ("annual", 12)] {
                    let billing = billing(anchor, cycle, zone_name);
                    let civil: DateTime = anchor.parse().unwrap_or_else(|_| {
                        anchor.parse::<jiff::civil::Date>().unwrap().to_datetime(Default::default())
                    });
                    // 30 months before the anchor and after it: each reckoned alone.
                    let want: Vec<i64> = (-30 / months..=30 / months)
                        .map(|number: i32| naive_instant(civil + (number * months).months(), &zone))
                        .collect();
                    let (from, to) = (want[0], want[want.len() - 1]);
                    let periods = billing
                        .periods(Timestamp::from_micros(from), Timestamp::from_micros(to))
                        .unwrap();
                    assert_eq!(
                        periods,
                        WindowStarts::Boundaries(want),
                        "{anchor} {cycle} {zone_name}"
                    );
                }
            }
        }
    }

    #[test]
    fn one_start_serves_wherever_the_range_begins() {
        let cycle = billing("2023-01-31T00:30", "monthly", "America/Santiago");
        let all = starts(&cycle, "2020-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
        for pair in all.windows(2) {
            for (instant, want) in [(pair[0], pair), (pair[1] - 1, pair)] {
                let instant = Timestamp::from_micros(instant);
                let alone = cycle.periods(instant, instant).unwrap();
                assert_eq!(alone, WindowStarts::Boundaries(want.to_vec()), "{instant}");
            }
        }
    }

    #[test]
    fn periods_exist_to_both_ends_of_time() {
        let cycle = billing("2023-01-31", "monthly", "Asia/Tokyo");
        let all = cycle.periods(Timestamp::MIN, Timestamp::MAX).unwrap();
        assert_eq!(all.start_of(Timestamp::MIN.micros()), Timestamp::MIN.micros());
        let last = all.start_of(Timestamp::MAX.micros());
        assert!(last <= Timestamp::MAX.micros() && all.end_of(last) > Timestamp::MAX.micros());
        let daily = billing("2023-01-31", "1 day", "UTC");
        let error = daily.periods(Timestamp::MIN, Timestamp::MAX).unwrap_err().to_string();
        assert!(error.contains("more than 2000000 periods: take a shorter range"), "{error}");
        assert!(cycle.periods(at("2026-01-02T00:00:00Z"), at("2026-01-01T00:00:00Z")).is_err());
    }

    #[test]
    fn cycles_of_one_phase_have_the_same_periods() {
        let phase = |anchor, cycle| billing(anchor, cycle, "UTC").phase();
        for (name, one, other, cycle, same) in [
            ("the 31st of any month", "2023-01-31", "2019-05-31", "monthly", true),
            ("a clamped day is another day", "2023-02-28", "2023-01-31", "monthly", false),
            ("another time", "2023-01-31", "2023-01-31T01:00", "monthly", false),
            ("the same quarters", "2023-01-15", "2022-10-15", "quarterly", true),
            ("other quarters", "2023-01-15", "2023-02-15", "quarterly", false),
            ("the same weeks", "2024-01-03", "2023-12-27", "weekly", true),
            ("other weeks", "2024-01-03", "2024-01-04", "weekly", false),
        ] {
            assert_eq!(phase(one, cycle) == phase(other, cycle), same, "{name}");
            let equal =
                starts(&billing(one, cycle, "UTC"), "2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z")
                    == starts(
                        &billing(other, cycle, "UTC"),
                        "2024-01-01T00:00:00Z",
                        "2025-01-01T00:00:00Z",
                    );
            assert_eq!(equal, same, "{name}");
        }
        assert_ne!(phase("2024-01-03", "weekly"), phase("2024-01-03", "14 days"));
    }

    #[test]
    fn anchors_and_cycles_read_and_print() {
        for (text, want) in [
            ("2023-01-31", "2023-01-31"),
            ("2023-01-31T00:00", "2023-01-31"),
            ("2023-01-31 06:30", "2023-01-31T06:30:00"),
            ("2023-01-31T06:30:15.5", "2023-01-31T06:30:15.5"),
        ] {
            let anchor: Anchor = text.parse().unwrap();
            assert_eq!(anchor.to_string(), want);
            assert_eq!(want.parse::<Anchor>().unwrap(), anchor);
        }
        for (text, want) in [
            ("monthly", "monthly"),
            ("quarterly", "quarterly"),
            ("annual", "annual"),
            ("weekly", "weekly"),
            ("7d", "weekly"),
            ("30 days", "30 days"),
            ("1 day", "1 day"),
        ] {
            let cycle: Cycle = text.parse().unwrap();
            assert_eq!(cycle.to_string(), want);
            assert_eq!(want.parse::<Cycle>().unwrap(), cycle);
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        for (text, part) in [
            ("2023-02-30", "billing anchor `2023-02-30` cannot be: there is no such date"),
            ("2023-13-01", "no such date"),
            ("2023-01-31T24:00", "no such time of day"),
            ("2023-01-31T10:00Z", "write a date such as 2023-01-31"),
            ("31", "write a date such as"),
            ("", "write a date such as"),
        ] {
            let error = text.parse::<Anchor>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        for (text, part) in [
            ("yearly", "unknown billing cycle `yearly`: write monthly"),
            ("", "unknown billing cycle"),
            ("days", "unknown billing cycle"),
            ("-3 days", "unknown billing cycle"),
            ("0 days", "is not 1 to 3660 days long"),
            ("99999 days", "is not 1 to 3660 days long"),
            ("99999999999 days", "unknown billing cycle"),
        ] {
            let error = text.parse::<Cycle>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
