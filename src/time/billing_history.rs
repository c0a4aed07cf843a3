//! The billing cycles of someone, one after the other.
//!
//! Where another cycle begins, the period of the one before ends, so that periods leave no gap and
//! never overlap.

use super::billing::BillingCycle;
use super::period::parse_bound;
use super::range::TimeRange;
use super::starts::{WindowStarts, check_range};
use super::timestamp::Timestamp;
use super::zone::parse_zone;
use crate::error::{Error, Result};

/// Cycles in one zone, each until the next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BillingHistory {
    first: BillingCycle,
    later: Vec<(Timestamp, BillingCycle)>,
}

impl From<BillingCycle> for BillingHistory {
    fn from(always: BillingCycle) -> Self {
        Self { first: always, later: Vec::new() }
    }
}

impl BillingHistory {
    /// The day of the first anchor, from its beginning in its zone.
    ///
    /// # Errors
    /// A zone that is none.
    pub fn anchored(&self) -> Result<Timestamp> {
        let anchor = self.first.anchor.to_string();
        let day = anchor.get(..10).unwrap_or(&anchor);
        parse_bound(day, &parse_zone(self.zone())?)
    }

    /// The first cycle, and those that begin later, by the instants at which they do.
    ///
    /// # Errors
    /// Invalid for cycles that do not come in order, and such of different zones.
    pub fn new(first: BillingCycle, later: Vec<(Timestamp, BillingCycle)>) -> Result<Self> {
        if later.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(Error::invalid("two billing cycles begin at one instant"));
        }
        if let Some((since, other)) = later.iter().find(|(_, cycle)| cycle.zone != first.zone) {
            return Err(Error::invalid(format!(
                "billing periods have one zone: {} until {since}, then {}",
                first.zone, other.zone
            )));
        }
        Ok(Self { first, later })
    }

    /// IANA name of the zone.
    pub fn zone(&self) -> &str {
        &self.first.zone
    }

    /// The cycles with the instants between which each holds; none is open.
    pub fn cycles(&self) -> impl Iterator<Item = (TimeRange, &BillingCycle)> {
        let since = self.later.iter().map(|(since, cycle)| (Some(*since), cycle));
        let starts = std::iter::once((None, &self.first)).chain(since);
        let ends = self.later.iter().map(|(since, _)| Some(*since)).chain([None]);
        starts.zip(ends).map(|((from, cycle), to)| (TimeRange { from, to }, cycle))
    }

    /// What decides where periods start, whichever of them the anchors are.
    pub fn phase(&self) -> String {
        let mut text = self.first.phase();
        for (since, cycle) in &self.later {
            text.push_str(&format!("; from {}: {}", since.micros(), cycle.phase()));
        }
        text
    }

    /// The periods that cover every instant of `[from, to)`, and `from` in any case.
    ///
    /// # Errors
    /// As [`BillingCycle::periods`].
    pub fn periods(&self, from: Timestamp, to: Timestamp) -> Result<WindowStarts> {
        if self.later.is_empty() {
            return self.first.periods(from, to);
        }
        check_range(from, to)?;
        let mut all: Vec<i64> = Vec::new();
        for (holds, cycle) in self.cycles() {
            let ended = holds.to.is_some_and(|end| end <= from);
            let begins_later = holds.from.is_some_and(|start| start > from && start >= to);
            if ended || begins_later {
                continue;
            }
            let begun = holds.from.map_or(from, |start| start.max(from));
            let periods = cycle.periods(begun, holds.to.map_or(to, |end| end.min(to)))?;
            let WindowStarts::Boundaries(starts) = periods else {
                return Err(Error::internal("billing periods without bounds of their own"));
            };
            let lowest = holds.from.map_or(i64::MIN, Timestamp::micros);
            let highest = holds.to.map_or(i64::MAX, Timestamp::micros);
            all.extend(starts.into_iter().map(|start| start.clamp(lowest, highest)));
        }
        // Where one cycle ends, the next begins.
        all.dedup();
        Ok(WindowStarts::Boundaries(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycle(anchor: &str, cycle: &str, zone: &str) -> BillingCycle {
        let (anchor, cycle) = (anchor.parse().unwrap(), cycle.parse().unwrap());
        BillingCycle { anchor, cycle, zone: zone.to_owned() }
    }

    fn at(date: &str) -> Timestamp {
        Timestamp::parse_rfc3339(&format!("{date}T00:00:00Z")).unwrap()
    }

    fn history() -> BillingHistory {
        let later = vec![
            (at("2026-05-10"), cycle("2026-05-10", "monthly", "UTC")),
            (at("2026-07-15"), cycle("2026-01-01", "quarterly", "UTC")),
        ];
        BillingHistory::new(cycle("2026-01-31", "monthly", "UTC"), later).unwrap()
    }

    fn starts(from: &str, to: &str) -> Vec<String> {
        let WindowStarts::Boundaries(starts) = history().periods(at(from), at(to)).unwrap() else {
            panic!("a grid")
        };
        let date = |micros: i64| Timestamp::from_micros(micros).to_string()[5..10].to_owned();
        starts.into_iter().map(date).collect()
    }

    #[test]
    fn a_period_ends_where_another_cycle_begins() {
        for (name, from, to, want) in [
            (
                "all of them",
                "2026-03-05",
                "2026-10-02",
                &["02-28", "03-31", "04-30", "05-10", "06-10", "07-10", "07-15", "10-01", "01-01"]
                    [..],
            ),
            ("within the first", "2026-03-05", "2026-03-06", &["02-28", "03-31"]),
            ("up to a change", "2026-05-01", "2026-05-10", &["04-30", "05-10"]),
            ("from a change", "2026-05-10", "2026-05-10", &["05-10", "06-10"]),
            ("no longer than the change", "2026-07-12", "2026-07-12", &["07-10", "07-15"]),
        ] {
            assert_eq!(starts(from, to), want, "{name}");
        }
    }

    #[test]
    fn every_instant_lies_in_one_period_of_the_cycle_that_holds() {
        let history = history();
        let (from, to) = (at("2026-01-01"), at("2026-12-31"));
        let all = history.periods(from, to).unwrap();
        for hour in 0..364 * 24 {
            let instant = Timestamp::from_micros(from.micros() + hour * 3_600_000_000);
            let alone = history.periods(instant, instant).unwrap();
            let start = all.start_of(instant.micros());
            assert_eq!(alone.start_of(instant.micros()), start, "{instant}");
            assert_eq!(alone.end_of(start), all.end_of(start), "{instant}");
            assert!(start <= instant.micros() && instant.micros() < all.end_of(start));
        }
    }

    #[test]
    fn cycles_out_of_order_and_of_several_zones_are_refused() {
        let first = || cycle("2026-01-31", "monthly", "UTC");
        let same = vec![(at("2026-05-10"), first()), (at("2026-05-10"), first())];
        let told = BillingHistory::new(first(), same).unwrap_err().to_string();
        assert!(told.contains("at one instant"), "{told}");
        let other = vec![(at("2026-05-10"), cycle("2026-01-31", "monthly", "Asia/Tokyo"))];
        let told = BillingHistory::new(first(), other).unwrap_err().to_string();
        assert!(told.contains("UTC until") && told.contains("then Asia/Tokyo"), "{told}");
    }
}
