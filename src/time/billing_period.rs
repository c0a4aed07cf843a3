//! One billing period, named relative to the clock or by a date: `last-billing-period`,
//! `billing:2026-10`.
//!
//! A month names the period that begins in it, a day the period that holds it. Where that is none or
//! several, nothing is chosen: the error says what may be meant.

use jiff::tz::TimeZone;

use super::billing_history::BillingHistory;
use super::civil::{DAY, Date, date_of_days};
use super::local::format_in_zone;
use super::period::written_days;
use super::range::TimeRange;
use super::timestamp::Timestamp;
use super::zone::{first_instant_in_range, offset_at, parse_zone};
use crate::error::{Error, Result};

/// What a month or day stands behind.
const PREFIX: &str = "billing:";

/// How many periods an error lists.
const LISTED: usize = 6;

/// A period that is named by billing periods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BillingPeriod {
    /// `this-billing-period`: the one that the clock is in.
    This,
    /// `last-billing-period`: the one before.
    Last,
    /// `billing:2026-10`: the one that begins in that month.
    BeginningIn {
        /// The first day of the month, days since 1970.
        first: i64,
        /// The first day of the next one.
        end: i64,
    },
    /// `billing:2026-10-15`: the one that holds that day.
    Holding {
        /// The day, days since 1970.
        day: i64,
    },
}

impl BillingPeriod {
    /// The period that a text names, if it is such a name.
    ///
    /// # Errors
    /// Invalid for `billing:` and what is neither a month nor a day.
    pub fn named(text: &str) -> Result<Option<Self>> {
        match (text, text.strip_prefix(PREFIX)) {
            ("this-billing-period", _) => Ok(Some(Self::This)),
            ("last-billing-period", _) => Ok(Some(Self::Last)),
            (_, Some(date)) => dated(text, date).map(Some),
            (_, None) => Ok(None),
        }
    }
}

fn dated(text: &str, date: &str) -> Result<BillingPeriod> {
    let (month, day) = ("2026-10".len(), "2026-10-15".len());
    let shape = date.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit());
    let days = (shape && (date.len() == month || date.len() == day)).then(|| written_days(date));
    match days.flatten() {
        Some(Ok((first, end))) if date.len() == month => {
            Ok(BillingPeriod::BeginningIn { first, end })
        }
        Some(Ok((day, _))) => Ok(BillingPeriod::Holding { day }),
        Some(Err(error)) => Err(Error::invalid(format!("period `{text}` {error}"))),
        None => Err(Error::invalid(format!(
            "unknown period `{text}`: write {PREFIX}2026-10 for the billing period that begins in that \
             month, or {PREFIX}2026-10-15 for the one that holds that day"
        ))),
    }
}

impl BillingHistory {
    /// The bounds of a period, as of `now`.
    ///
    /// # Errors
    /// As [`Self::periods`]; a month in which no period begins, or several; a day that does not exist
    /// or on which one period ends and the next begins.
    pub fn bounds(&self, period: BillingPeriod, now: Timestamp) -> Result<TimeRange> {
        let [from, to] = match period {
            BillingPeriod::This => self.around(now)?,
            BillingPeriod::Last => {
                let [start, _] = self.around(now)?;
                self.around(before(start))?
            }
            BillingPeriod::BeginningIn { first, end } => self.beginning_in(first, end)?,
            BillingPeriod::Holding { day } => self.holding(day)?,
        };
        Ok(TimeRange { from: Some(from), to: Some(to) })
    }

    /// The bounds of the period that holds an instant.
    ///
    /// # Errors
    /// As [`Self::periods`].
    pub fn around(&self, instant: Timestamp) -> Result<[Timestamp; 2]> {
        let periods = self.periods(instant, instant)?;
        let start = periods.start_of(instant.micros());
        Ok([start, periods.end_of(start)].map(Timestamp::from_micros))
    }

    /// Whether these are the bounds of a period.
    ///
    /// # Errors
    /// As [`Self::periods`].
    pub fn has_period(&self, bounds: [Timestamp; 2]) -> Result<bool> {
        Ok(self.around(bounds[0])? == bounds)
    }

    /// The bounds of every period that a name may mean, as of `now`: none, one, or several that begin in a
    /// month.
    ///
    /// # Errors
    /// As [`Self::bounds`], but for months.
    pub fn all_bounds(&self, period: BillingPeriod, now: Timestamp) -> Result<Vec<TimeRange>> {
        let BillingPeriod::BeginningIn { first, end } = period else {
            return Ok(vec![self.bounds(period, now)?]);
        };
        let range = |start: Timestamp| {
            let [from, to] = self.around(start)?;
            Ok(TimeRange { from: Some(from), to: Some(to) })
        };
        self.starts_in(first, end)?.into_iter().map(range).collect()
    }

    /// The starts of the periods that begin on one of these days, the last one excluded.
    fn starts_in(&self, first: i64, end: i64) -> Result<Vec<Timestamp>> {
        let zone = parse_zone(self.zone())?;
        let (from, to) = (beginning(&zone, first), beginning(&zone, end));
        let periods = self.periods(from, to)?;
        let mut starts = Vec::new();
        let mut start = periods.start_of(from.micros());
        while start < to.micros() {
            if start >= from.micros() {
                starts.push(Timestamp::from_micros(start));
            }
            start = periods.end_of(start);
        }
        Ok(starts)
    }

    /// The bounds of the only period that begins on one of these days, the last one excluded.
    fn beginning_in(&self, first: i64, end: i64) -> Result<[Timestamp; 2]> {
        let zone = parse_zone(self.zone())?;
        let from = beginning(&zone, first);
        let starts = self.starts_in(first, end)?;
        let Date { year, month, .. } = date_of_days(first);
        match starts.as_slice() {
            [only] => self.around(*only),
            [] => {
                let [held, until] = self.around(from)?.map(|bound| format_in_zone(bound, &zone));
                Err(Error::invalid(format!(
                    "no billing period begins in {year:04}-{month:02}: the one from {held} to {until} \
                     holds all of the month (`{PREFIX}{}`)",
                    date_text(first)
                )))
            }
            [sample, ..] => {
                let listed = starts.iter().take(LISTED).map(|start| format_in_zone(*start, &zone));
                let mut listed = listed.collect::<Vec<_>>().join(", ");
                if starts.len() > LISTED {
                    listed.push_str(&format!(" and {} more", starts.len() - LISTED));
                }
                Err(Error::invalid(format!(
                    "{} billing periods begin in {year:04}-{month:02}, at {listed}: name one by a day \
                     that it holds, such as `{PREFIX}{}`",
                    starts.len(),
                    date_text(first_whole_day(&zone, *sample))
                )))
            }
        }
    }

    /// The bounds of the period that holds a day.
    fn holding(&self, day: i64) -> Result<[Timestamp; 2]> {
        let zone = parse_zone(self.zone())?;
        let (from, to) = (beginning(&zone, day), beginning(&zone, day + 1));
        if from >= to {
            let (zone, day) = (self.zone(), date_text(day));
            return Err(Error::invalid(format!("{zone} has no day {day}: the calendar skips it")));
        }
        let (first, last) = (self.around(from)?, self.around(before(to))?);
        if first == last {
            return Ok(first);
        }
        let shown = |bound: Timestamp| format_in_zone(bound, &zone);
        Err(Error::invalid(format!(
            "one billing period ends at {} on {} and another begins: name a day that lies in one of \
             them, or write --from and --to",
            shown(first[1]),
            date_text(day)
        )))
    }
}

/// The first instant of a day.
fn beginning(zone: &TimeZone, day: i64) -> Timestamp {
    Timestamp::from_micros(first_instant_in_range(zone, day * DAY))
}

fn before(instant: Timestamp) -> Timestamp {
    Timestamp::from_micros(instant.micros() - 1)
}

/// The first day that begins at an instant or after it.
fn first_whole_day(zone: &TimeZone, instant: Timestamp) -> i64 {
    let civil = instant.micros() + offset_at(zone, instant.micros());
    let day = civil.div_euclid(DAY);
    if beginning(zone, day) >= instant { day } else { day + 1 }
}

fn date_text(day: i64) -> String {
    let Date { year, month, day } = date_of_days(day);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::super::billing::BillingCycle;
    use super::*;

    fn billing(anchor: &str, cycle: &str, zone: &str) -> BillingHistory {
        let cycle = BillingCycle {
            anchor: anchor.parse().unwrap(),
            cycle: cycle.parse().unwrap(),
            zone: zone.to_owned(),
        };
        cycle.into()
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    fn named(period: &str) -> BillingPeriod {
        BillingPeriod::named(period).unwrap().unwrap()
    }

    #[test]
    fn this_and_the_last_period_have_the_bounds_of_the_calendar() {
        let cycle = billing("2023-01-31", "monthly", "Europe/Berlin");
        let (this, last) = ("this-billing-period", "last-billing-period");
        let (january, february) = ("2026-01-30T23:00:00Z", "2026-02-27T23:00:00Z");
        let (march, april) = ("2026-03-30T22:00:00Z", "2026-04-29T22:00:00Z");
        for (now, period, from, to) in [
            ("2026-03-30T12:00:00Z", this, february, march),
            ("2026-03-30T12:00:00Z", last, january, february),
            (march, this, march, april),
            (march, last, february, march),
        ] {
            let got = cycle.bounds(named(period), at(now)).unwrap();
            assert_eq!(got, TimeRange { from: Some(at(from)), to: Some(at(to)) }, "{now} {period}");
        }
    }

    #[test]
    fn a_month_names_what_begins_in_it_and_a_day_what_holds_it() {
        let now = at("2000-01-01T00:00:00Z");
        for (anchor, cycle, zone, period, from, to) in [
            ("2023-01-31", "monthly", "UTC", "2026-02", "2026-02-28", "2026-03-31"),
            ("2023-01-31", "monthly", "UTC", "2026-02-27", "2026-01-31", "2026-02-28"),
            ("2023-01-31", "monthly", "UTC", "2026-02-28", "2026-02-28", "2026-03-31"),
            ("2023-01-15", "monthly", "UTC", "2022-10", "2022-10-15", "2022-11-15"),
            ("2023-01-01", "monthly", "UTC", "2026-10", "2026-10-01", "2026-11-01"),
            ("2023-01-15", "quarterly", "UTC", "2026-10", "2026-10-15", "2027-01-15"),
            ("2023-01-15", "quarterly", "UTC", "2026-11-30", "2026-10-15", "2027-01-15"),
            ("2026-02-20", "31 days", "UTC", "2026-03", "2026-03-23", "2026-04-23"),
            ("2026-01-07", "weekly", "UTC", "2026-10-15", "2026-10-14", "2026-10-21"),
            ("2023-01-15", "annual", "UTC", "2026-01", "2026-01-15", "2027-01-15"),
        ] {
            let cycle = billing(anchor, cycle, zone);
            let got = cycle.bounds(named(&format!("billing:{period}")), now).unwrap();
            let day = |day: &str| Some(at(&format!("{day}T00:00:00Z")));
            assert_eq!(got, TimeRange { from: day(from), to: day(to) }, "{cycle:?} {period}");
        }
        // Days are those of the cycle's zone, and a period begins at the anchor's time of day.
        let cycle = billing("2023-01-31T06:00", "monthly", "Pacific/Auckland");
        for (period, from, to) in [
            ("2026-09", "2026-09-30T06:00:00+13:00", "2026-10-31T06:00:00+13:00"),
            ("2026-10-01", "2026-09-30T06:00:00+13:00", "2026-10-31T06:00:00+13:00"),
            ("2026-09-29", "2026-08-31T06:00:00+12:00", "2026-09-30T06:00:00+13:00"),
        ] {
            let got = cycle.bounds(named(&format!("billing:{period}")), now).unwrap();
            assert_eq!(got, TimeRange { from: Some(at(from)), to: Some(at(to)) }, "{period}");
        }
    }

    /// Every month and day of some years, against the list of all periods.
    #[test]
    fn what_is_named_is_the_only_one_there_is() {
        let (zone, now) = ("America/Santiago", at("2000-01-01T00:00:00Z"));
        let tz = parse_zone(zone).unwrap();
        for (anchor, cycle) in [
            ("2023-01-31", "monthly"),
            ("2023-01-30T13:00", "monthly"),
            ("2024-08-31", "quarterly"),
            ("2024-02-29", "annual"),
            ("2026-01-07", "weekly"),
            ("2026-01-07", "30 days"),
            ("2026-01-07", "1 day"),
        ] {
            let cycle = billing(anchor, cycle, zone);
            let all = cycle.periods(at("2023-01-01T00:00:00Z"), at("2029-01-01T00:00:00Z"));
            let all = match all.unwrap() {
                super::super::WindowStarts::Boundaries(starts) => starts,
                grid @ super::super::WindowStarts::Grid { .. } => panic!("{grid:?}"),
            };
            let shown: Vec<String> = all
                .iter()
                .map(|start| format_in_zone(Timestamp::from_micros(*start), &tz))
                .collect();
            let bounds = |at: usize| TimeRange {
                from: Some(Timestamp::from_micros(all[at])),
                to: Some(Timestamp::from_micros(all[at + 1])),
            };
            for month in 0..48 {
                let name = format!("{}-{:02}", 2024 + month / 12, month % 12 + 1);
                let begins = (0..all.len()).filter(|at| shown[*at].starts_with(&name));
                let begins: Vec<usize> = begins.collect();
                let got = cycle.bounds(named(&format!("billing:{name}")), now);
                let whole = cycle.all_bounds(named(&format!("billing:{name}")), now).unwrap();
                assert_eq!(whole, begins.iter().map(|at| bounds(*at)).collect::<Vec<_>>());
                match begins.as_slice() {
                    [only] => assert_eq!(got.unwrap(), bounds(*only), "{cycle:?} {name}"),
                    several => {
                        let told = got.unwrap_err().to_string();
                        let none = several.is_empty();
                        assert_eq!(told.starts_with("no billing period"), none, "{told}");
                        for at in several.iter().take(LISTED) {
                            assert!(told.contains(&shown[*at]), "{told}");
                        }
                    }
                }
            }
            for day in 0..500 {
                let (noon, day) = ((19_723 + day) * DAY + 16 * 3_600_000_000, 19_723 + day);
                let holds = all.partition_point(|start| *start <= noon) - 1;
                let midnight = format!("{}T00:00", date_text(day));
                let cut = shown.iter().any(|start| {
                    start.starts_with(&midnight[..10])
                        && !start.starts_with(&midnight)
                        // The day on which the clocks are put forward at midnight begins at one.
                        && !(start.contains("T01:00:00") && anchor.len() == 10)
                });
                let got = cycle.bounds(BillingPeriod::Holding { day }, now);
                match cut {
                    true => assert!(got.unwrap_err().to_string().contains("and another begins")),
                    false => assert_eq!(got.unwrap(), bounds(holds), "{cycle:?} {midnight}"),
                }
            }
        }
    }

    #[test]
    fn what_is_none_or_several_is_refused_with_what_may_be_meant() {
        let now = at("2026-10-10T00:00:00Z");
        for (anchor, cycle, zone, period, want) in [
            (
                "2026-01-07",
                "weekly",
                "UTC",
                "billing:2026-10",
                "4 billing periods begin in 2026-10, at 2026-10-07T00:00:00Z, 2026-10-14T00:00:00Z, \
                 2026-10-21T00:00:00Z, 2026-10-28T00:00:00Z: name one by a day that it holds, such as \
                 `billing:2026-10-07`",
            ),
            (
                "2026-01-07T08:00",
                "1 day",
                "UTC",
                "billing:2026-10",
                "31 billing periods begin in 2026-10, at 2026-10-01T08:00:00Z, 2026-10-02T08:00:00Z, \
                 2026-10-03T08:00:00Z, 2026-10-04T08:00:00Z, 2026-10-05T08:00:00Z, \
                 2026-10-06T08:00:00Z and 25 more: name one by a day that it holds, such as \
                 `billing:2026-10-02`",
            ),
            (
                "2026-01-15",
                "quarterly",
                "UTC",
                "billing:2026-11",
                "no billing period begins in 2026-11: the one from 2026-10-15T00:00:00Z to \
                 2027-01-15T00:00:00Z holds all of the month (`billing:2026-11-01`)",
            ),
            (
                "2026-01-15T06:00",
                "monthly",
                "UTC",
                "billing:2026-10-15",
                "one billing period ends at 2026-10-15T06:00:00Z on 2026-10-15 and another begins: name \
                 a day that lies in one of them, or write --from and --to",
            ),
            (
                "2011-01-15",
                "monthly",
                "Pacific/Apia",
                "billing:2011-12-30",
                "Pacific/Apia has no day 2011-12-30: the calendar skips it",
            ),
        ] {
            let error = billing(anchor, cycle, zone).bounds(named(period), now).unwrap_err();
            assert_eq!(error.to_string(), want);
        }
        for (text, want) in [
            ("billing:2026-13", "period `billing:2026-13` names a date that does not exist"),
            ("billing:2026-02-29", "period `billing:2026-02-29` names a date that does not exist"),
            (
                "billing:2026",
                "unknown period `billing:2026`: write billing:2026-10 for the billing",
            ),
            ("billing:2026-Q3", "unknown period `billing:2026-Q3`"),
            ("billing:", "unknown period `billing:`"),
            ("billing:today", "unknown period `billing:today`"),
        ] {
            let told = BillingPeriod::named(text).unwrap_err().to_string();
            assert!(told.contains(want), "{told}");
        }
        assert_eq!(BillingPeriod::named("last-month").unwrap(), None);
    }
}
