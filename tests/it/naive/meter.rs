//! Meters and questions.

use std::collections::BTreeMap;

use bigdecimal::num_bigint::BigInt;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::billing::Billing;
use super::event::{Event, Value};
use super::filter::Filter;
use super::number::Round;
use super::window::{Window, first_instant};

/// Built-in fields that are texts.
pub(crate) const FIELDS: [&str; 5] =
    ["event_name", "idempotency_key", "customer_id", "resource_id", "source"];

/// Something that has a value for each event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand {
    Property(String),
    Field(&'static str),
    Lookup(String),
}

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aggregation {
    Count,
    CountUnique,
    Sum,
    Min,
    Max,
    Average,
    Latest,
    Earliest,
    /// In thousandths of a percent.
    Percentile(u32),
}

/// A table that maps texts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lookup {
    /// A property or a field.
    pub(crate) of: Operand,
    pub(crate) rows: BTreeMap<String, String>,
    pub(crate) otherwise: Option<String>,
}

/// How a value becomes a quantity.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unit {
    /// As written, above zero.
    pub(crate) factor: String,
    pub(crate) divides: bool,
    /// `None` is not at all.
    pub(crate) round: Option<(Round, i32)>,
}

/// A meter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Meter {
    pub(crate) name: String,
    /// Empty is every event.
    pub(crate) events: Vec<String>,
    pub(crate) filter: Option<Filter>,
    pub(crate) aggregation: Aggregation,
    /// `None` for a count.
    pub(crate) operand: Option<Operand>,
    pub(crate) lookups: BTreeMap<String, Lookup>,
    pub(crate) unit: Option<Unit>,
    pub(crate) zone: Option<String>,
    pub(crate) billing: Option<Billing>,
}

/// What stands in a window without a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    Zero,
    Null,
    Previous,
}

/// A bound of a range.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Bound {
    /// The beginning of a day in the question's zone.
    Date(Date),
    /// Microseconds.
    Instant(i64),
}

/// A question to one or more meters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Question {
    /// Names of meters.
    pub(crate) meters: Vec<String>,
    pub(crate) from: Option<Bound>,
    pub(crate) to: Option<Bound>,
    /// Names, as a person writes them.
    pub(crate) groups: Vec<String>,
    pub(crate) window: Option<Window>,
    pub(crate) fill: Option<Fill>,
    pub(crate) customer: Option<String>,
    pub(crate) filter: Option<Filter>,
    pub(crate) zone: Option<String>,
    pub(crate) top: Option<usize>,
}

impl Meter {
    /// Counts every event.
    pub(crate) fn count(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            events: Vec::new(),
            filter: None,
            aggregation: Aggregation::Count,
            operand: None,
            lookups: BTreeMap::new(),
            unit: None,
            zone: None,
            billing: None,
        }
    }

    /// The value that `operand` has for `event`.
    pub(crate) fn value(&self, operand: &Operand, event: &Event) -> Option<Value> {
        match operand {
            Operand::Property(name) => event.properties.get(name).cloned(),
            Operand::Field(name) => event.field(name),
            Operand::Lookup(name) => {
                let Some(lookup) = self.lookups.get(name) else {
                    return event.properties.get(name).cloned();
                };
                let key = self.value(&lookup.of, event).map(|value| value.text());
                let found = key.and_then(|key| lookup.rows.get(&key).cloned());
                let otherwise = || lookup.otherwise.clone().unwrap_or("unmapped".to_owned());
                Some(Value::Text(found.unwrap_or_else(otherwise)))
            }
        }
    }

    /// What a name means as a group: a field, else a lookup, else a property.
    pub(crate) fn resolve(&self, name: &str) -> Operand {
        if let Some(property) = name.strip_prefix("property.") {
            return Operand::Property(property.to_owned());
        }
        match FIELDS.into_iter().find(|field| *field == name) {
            Some(field) => Operand::Field(field),
            None if self.lookups.contains_key(name) => Operand::Lookup(name.to_owned()),
            None => Operand::Property(name.to_owned()),
        }
    }
}

impl Question {
    /// Asks one meter for its total over all of history.
    pub(crate) fn total(meter: &str) -> Self {
        Self {
            meters: vec![meter.to_owned()],
            from: None,
            to: None,
            groups: Vec::new(),
            window: None,
            fill: None,
            customer: None,
            filter: None,
            zone: None,
            top: None,
        }
    }

    /// The zone whose days and months are meant.
    pub(crate) fn zone<'q>(&'q self, meter: &'q Meter) -> &'q str {
        self.zone.as_deref().or(meter.zone.as_deref()).unwrap_or("UTC")
    }
}

impl Bound {
    /// The instant in microseconds.
    pub(crate) fn micros(&self, zone: &TimeZone) -> i64 {
        match self {
            Self::Date(date) => first_instant(date.at(0, 0, 0, 0), zone),
            Self::Instant(micros) => *micros,
        }
    }
}

/// A value with the order it takes among others; units of 10^-38.
pub(crate) type Amount = Option<BigInt>;
