//! Meters and questions.

use std::collections::BTreeMap;

use bigdecimal::num_bigint::BigInt;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::answer::Refused;
use super::billing::Billing;
use super::event::{Event, Value};
use super::filter::Filter;
use super::number::{self, Reading, Round, divide, one, ten_to};
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
    Computed(Box<Expression>),
}

/// A number computed from others.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expression {
    /// As written.
    Number(String),
    Value(Operand),
    /// `+`, `-`, `*` or `/`.
    Binary(Box<Expression>, char, Box<Expression>),
    /// The first one that there is.
    Coalesce(Vec<Expression>),
    /// `-`, `abs`, `ceil` or `floor` of one, `greatest` or `least` of some; nothing if one is not there.
    Call(&'static str, Vec<Expression>),
}

/// Where an event with a period counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placing {
    Prorate,
    Start,
    End,
}

/// What is computed.
#[derive(Debug, Clone, PartialEq)]
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
    /// The mean over time of a level, told by its changes or by levels of series.
    TimeWeighted {
        change: bool,
        per: Vec<Operand>,
    },
    /// Values that are added and removed.
    Active {
        operation: Operand,
        per: Vec<Operand>,
        by_days: bool,
    },
    /// A quantity that is set or changed.
    Reported {
        operation: Operand,
        per: Vec<Operand>,
        reset: Option<Window>,
    },
    /// The outer aggregation of the results of the inner one.
    Nested {
        outer: Box<Aggregation>,
        inner: Box<Aggregation>,
        window: Option<Window>,
        per: Vec<Operand>,
    },
}

/// A table that maps texts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lookup {
    /// A property or a field.
    pub(crate) of: Operand,
    pub(crate) rows: BTreeMap<String, String>,
    /// Rows that hold from one instant to another, in place of the others: key, bounds in
    /// microseconds, value. No two of a key hold at once.
    pub(crate) history: Option<Vec<(String, i64, i64, String)>>,
    pub(crate) otherwise: Option<String>,
}

impl Lookup {
    fn find(&self, key: &str, micros: i64) -> Option<String> {
        let Some(history) = &self.history else { return self.rows.get(key).cloned() };
        let holds = |(of, from, to, _): &&(String, i64, i64, String)| {
            of == key && *from <= micros && micros < *to
        };
        history.iter().find(holds).map(|(.., value)| value.clone())
    }
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
    /// How many events one stands for.
    pub(crate) weight: Option<Operand>,
    /// Start and end of what an event is about.
    pub(crate) period: Option<(Operand, Operand, Placing)>,
    /// What tells the customer, the first that is there; the field if none.
    pub(crate) customer: Vec<Operand>,
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
            weight: None,
            period: None,
            customer: Vec::new(),
            lookups: BTreeMap::new(),
            unit: None,
            zone: None,
            billing: None,
        }
    }

    /// The value that `operand` has for `event`.
    pub(crate) fn value(&self, operand: &Operand, event: &Event) -> Option<Value> {
        match operand {
            Operand::Field("customer_id") if !self.customer.is_empty() => {
                let last = self.customer.len() - 1;
                self.customer.iter().enumerate().find_map(|(place, operand)| match operand {
                    Operand::Lookup(name) if place < last && self.lookups.contains_key(name) => {
                        self.looked_up(&self.lookups[name], event).map(Value::Text)
                    }
                    // What is sent, as a text.
                    operand => self.sent(operand, event).map(|value| Value::Text(value.text())),
                })
            }
            operand => self.sent(operand, event),
        }
    }

    fn looked_up(&self, lookup: &Lookup, event: &Event) -> Option<String> {
        let key = self.sent(&lookup.of, event).map(|value| value.text());
        key.and_then(|key| lookup.find(&key, self.looked_up_at(event)))
    }

    /// The value, without attribution of customers.
    pub(crate) fn sent(&self, operand: &Operand, event: &Event) -> Option<Value> {
        match operand {
            Operand::Property(name) => event.properties.get(name).cloned(),
            Operand::Field(name) => event.field(name),
            Operand::Lookup(name) => {
                let Some(lookup) = self.lookups.get(name) else {
                    return event.properties.get(name).cloned();
                };
                let found = self.looked_up(lookup, event);
                let otherwise = || lookup.otherwise.clone().unwrap_or("unmapped".to_owned());
                Some(Value::Text(found.unwrap_or_else(otherwise)))
            }
            Operand::Computed(_) => self.number(operand, event).ok().flatten().map(Value::Number),
        }
    }

    /// The number that `operand` is for `event`.
    pub(crate) fn number(
        &self,
        operand: &Operand,
        event: &Event,
    ) -> Result<Option<BigInt>, Refused> {
        match operand {
            Operand::Computed(expression) => self.computed(expression, event),
            operand => Ok(self.value(operand, event).and_then(|value| value.number())),
        }
    }

    fn computed(&self, expression: &Expression, event: &Event) -> Result<Option<BigInt>, Refused> {
        let fits = |units: BigInt| match units.magnitude() < ten_to(76).magnitude() {
            true => Ok(Some(units)),
            false => Err(Refused::Digits),
        };
        match expression {
            Expression::Number(text) => match number::read(text) {
                Reading::Number(units) => Ok(Some(units)),
                other => panic!("{text} is {other:?}"),
            },
            Expression::Value(operand) => self.number(operand, event),
            Expression::Coalesce(all) => {
                let mut found = None;
                for one in all {
                    if let Expression::Value(operand) = one
                        && self.value(operand, event).is_some()
                    {
                        return self.computed(one, event);
                    }
                    found = found.or(self.computed(one, event)?);
                    if found.is_some() {
                        break;
                    }
                }
                Ok(found)
            }
            Expression::Call(function, arguments) => {
                let numbers = arguments.iter().map(|one| self.computed(one, event));
                let numbers: Vec<Option<BigInt>> = numbers.collect::<Result<_, _>>()?;
                let numbers: Option<Vec<BigInt>> = numbers.into_iter().collect();
                let Some(numbers) = numbers else { return Ok(None) };
                let first = numbers[0].clone();
                match *function {
                    "-" => fits(-first),
                    "abs" => fits(BigInt::from(first.magnitude().clone())),
                    "floor" | "ceil" => {
                        let part = ((&first % one()) + one()) % one();
                        let below = &first - &part;
                        let is_whole = part == BigInt::ZERO;
                        fits(if *function == "ceil" && !is_whole { below + one() } else { below })
                    }
                    "greatest" => Ok(numbers.into_iter().max()),
                    _ => Ok(numbers.into_iter().min()),
                }
            }
            Expression::Binary(left, sign, right) => {
                let sides = (self.computed(left, event)?, self.computed(right, event)?);
                let (Some(a), Some(b)) = sides else { return Ok(None) };
                match sign {
                    '+' => fits(a + b),
                    '-' => fits(a - b),
                    '*' => {
                        let product = a * b;
                        if &product % one() != BigInt::ZERO {
                            return Err(Refused::Digits);
                        }
                        fits(product / one())
                    }
                    _ if b == BigInt::ZERO => Ok(None),
                    _ => {
                        let (a, b) = if b < BigInt::ZERO { (-a, -b) } else { (a, b) };
                        fits(divide(&(a * ten_to(18)), &b, Round::HalfEven) * ten_to(20))
                    }
                }
            }
        }
    }

    /// The instant that `operand` tells, in microseconds.
    pub(crate) fn instant(&self, operand: &Operand, event: &Event) -> Option<i64> {
        // A period is told by what was sent.
        let Operand::Property(name) = operand else { panic!("no property {operand:?}") };
        let text = event.properties.get(name)?.text();
        text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond)
    }

    /// Start and end of what the event is about, if it is a stretch of time.
    pub(crate) fn stretch(&self, event: &Event) -> Option<(i64, i64)> {
        let (start, end, _) = self.period.as_ref()?;
        let stretch = self.instant(start, event).zip(self.instant(end, event));
        stretch.filter(|(start, end)| start <= end)
    }

    /// When what holds for a time is looked up.
    fn looked_up_at(&self, event: &Event) -> i64 {
        match (&self.period, self.stretch(event)) {
            (Some((_, _, Placing::Prorate)), Some((start, _))) => start,
            _ => self.micros(event),
        }
    }

    /// Where an event counts.
    pub(crate) fn micros(&self, event: &Event) -> i64 {
        let told = self.stretch(event).zip(self.period.as_ref());
        let told = told.and_then(|((start, end), (_, _, place))| match place {
            Placing::Start => Some(start),
            Placing::End => Some(start.max(end - 1)),
            Placing::Prorate => None,
        });
        told.unwrap_or(event.micros)
    }

    /// How much an event counts; nothing where that cannot be told.
    pub(crate) fn weight(&self, event: &Event) -> Option<BigInt> {
        if self.period.is_some() && self.stretch(event).is_none() {
            return None;
        }
        let Some(weight) = &self.weight else { return Some(one()) };
        match self.value(weight, event) {
            None => Some(one()),
            Some(value) => value.number().filter(|number| *number >= BigInt::ZERO),
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
