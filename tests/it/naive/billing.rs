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

/// The periods of a meter's customers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Billing {
    Shared(Cycle),
    PerCustomer { rows: BTreeMap<String, Cycle>, otherwise: Option<Cycle> },
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
    /// The cycle of a customer.
    pub(crate) fn of(&self, customer: Option<&String>) -> Option<&Cycle> {
        match self {
            Self::Shared(cycle) => Some(cycle),
            Self::PerCustomer { rows, otherwise } => {
                customer.and_then(|customer| rows.get(customer)).or(otherwise.as_ref())
            }
        }
    }

    /// All cycles that a customer may have, or that of one customer.
    pub(crate) fn cycles(&self, customer: Option<&String>) -> Vec<&Cycle> {
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
