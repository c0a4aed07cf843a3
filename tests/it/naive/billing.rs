//! Billing periods, found by going from the anchor period by period.

use std::collections::BTreeMap;

use jiff::ToSpan;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::window::first_instant;

/// The length of a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    Months(i32),
    Days(i32),
}

/// Periods from an anchor, in a zone.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cycle {
    pub(crate) anchor: DateTime,
    pub(crate) length: Length,
    pub(crate) zone: String,
}

/// The cycles of a customer, one after the other: the first, and those that hold from a local time on,
/// in order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cycles {
    pub(crate) first: Cycle,
    pub(crate) later: Vec<(DateTime, Cycle)>,
}

/// The periods of a meter's customers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Billing {
    Shared(Cycles),
    PerCustomer { rows: BTreeMap<String, Cycles>, otherwise: Option<Cycles> },
}

impl From<Cycle> for Cycles {
    fn from(first: Cycle) -> Self {
        Self { first, later: Vec::new() }
    }
}

impl Cycles {
    /// Whether every period begins where a day of the zone does.
    pub(crate) fn begin_at_midnight(&self) -> bool {
        let later = self.later.iter().flat_map(|(since, cycle)| [*since, cycle.anchor]);
        let midnight = jiff::civil::Time::midnight();
        std::iter::once(self.first.anchor).chain(later).all(|at| at.time() == midnight)
    }

    pub(crate) fn zone(&self) -> &str {
        &self.first.zone
    }

    /// When each of the later ones begins, and the cycle.
    pub(crate) fn begun(&self) -> Vec<(i64, &Cycle)> {
        let zone = TimeZone::get(self.zone()).unwrap();
        self.later.iter().map(|(since, cycle)| (first_instant(*since, &zone), cycle)).collect()
    }

    /// Start and end of the period that holds the instant: the next cycle cuts that of the last.
    pub(crate) fn around(&self, micros: i64) -> (i64, i64) {
        let begun = self.begun();
        let (mut from, mut cycle, mut to) = (i64::MIN, &self.first, i64::MAX);
        for (since, later) in begun {
            if since <= micros {
                (from, cycle) = (since, later);
            } else {
                to = to.min(since);
            }
        }
        let (start, end) = cycle.around(micros);
        (start.max(from), end.min(to))
    }
}

impl Cycle {
    /// Start and end of the period that holds the instant, in microseconds.
    pub(crate) fn around(&self, micros: i64) -> (i64, i64) {
        let zone = TimeZone::get(&self.zone).unwrap();
        let start = |number: i32| {
            let civil = match self.length {
                // A day that a month does not have becomes its last.
                Length::Months(months) => self.anchor + (number * months).months(),
                Length::Days(days) => self.anchor + (number * days).days(),
            };
            first_instant(civil, &zone)
        };
        let mut number = 0;
        while start(number) > micros {
            number -= 1;
        }
        while start(number + 1) <= micros {
            number += 1;
        }
        (start(number), start(number + 1))
    }
}

impl Billing {
    /// The cycles of a customer.
    pub(crate) fn of(&self, customer: Option<&String>) -> Option<&Cycles> {
        match self {
            Self::Shared(cycle) => Some(cycle),
            Self::PerCustomer { rows, otherwise } => {
                customer.and_then(|customer| rows.get(customer)).or(otherwise.as_ref())
            }
        }
    }

    /// All cycles that a customer may have, or that of one customer.
    pub(crate) fn cycles(&self, customer: Option<&String>) -> Vec<&Cycles> {
        match (self, customer) {
            (Self::Shared(cycle), _) => vec![cycle],
            (Self::PerCustomer { .. }, Some(_)) => self.of(customer).into_iter().collect(),
            (Self::PerCustomer { rows, otherwise }, None) => {
                rows.values().chain(otherwise).collect()
            }
        }
    }
}

#[test]
fn periods_are_those_that_a_calendar_shows() {
    let period = |anchor: &str, length: Length, at: &str| {
        let cycle = Cycle { anchor: anchor.parse().unwrap(), length, zone: "UTC".to_owned() };
        let at: jiff::Timestamp = at.parse().unwrap();
        let (from, to) = cycle.around(at.as_microsecond());
        let text = |micros| jiff::Timestamp::from_microsecond(micros).unwrap().to_string();
        format!("{} {}", text(from), text(to))
    };
    for (name, got, want) in [
        (
            "February's last day",
            period("2023-01-31T00:00:00", Length::Months(1), "2023-03-30T00:00:00Z"),
            "2023-02-28T00:00:00Z 2023-03-31T00:00:00Z",
        ),
        (
            "before the anchor",
            period("2024-02-29T06:00:00", Length::Months(12), "2023-02-28T05:59:59Z"),
            "2022-02-28T06:00:00Z 2023-02-28T06:00:00Z",
        ),
        (
            "days",
            period("2024-01-10T00:00:00", Length::Days(10), "2024-01-09T23:00:00Z"),
            "2023-12-31T00:00:00Z 2024-01-10T00:00:00Z",
        ),
    ] {
        assert_eq!(got, want, "{name}");
    }
}
