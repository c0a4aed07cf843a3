//! States: what is kept of all events of a bucket of time with the same keys, so that questions need
//! not read the events again.
//!
//! An event is a state of one, and states of the same keys make one state, exactly and in whatever
//! order. So making states of events, merging states, and answering from states beside events that
//! are in no state yet are the same: rows of states, grouped. What a state cannot tell exactly is not
//! planned here; the events are read then.

use std::collections::BTreeSet;

use super::UsageQuery;
use crate::meter::{Aggregation, Comparison, Field, Filter, Literal, Meter, Operand, resolve};
use crate::time::Window;

mod answer;
mod make;
mod rows;

pub use answer::{Stored, answer_plan};
pub use make::{Buckets, MONTH, Source, states_plan};
pub use rows::Rows;

/// Names of the columns of a row of states.
pub mod columns {
    /// Length of the bucket, and which keys the state is told apart by.
    pub const LEVEL: &str = "level";
    /// First instant of the bucket.
    pub const BUCKET: &str = "bucket";
    /// What the aggregation has come to: a property, whose kinds have columns of their own.
    pub const VALUE: &str = "value";
    /// What the weights of the events come to, for a mean: a property likewise.
    pub const WEIGHTS: &str = "weights";
    /// How many events made the value.
    pub const EVENTS: &str = "events";
    /// How many events matched, skipped ones included.
    pub const MATCHED: &str = "matched";
    /// When the event with the value happened, microseconds since 1970.
    pub const AT: &str = "value_at";
    /// When that event was received, likewise.
    pub const RECEIVED: &str = "value_received";
    /// Its place in its batch.
    pub const PLACE: &str = "value_place";

    /// The property that holds the key at `place`.
    pub fn key(place: usize) -> String {
        format!("key_{place}")
    }
}

/// What a state keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// How many events there are.
    Count,
    /// The exact sum.
    Sum,
    /// The exact sum, and that of the weights: a weighted mean needs both.
    Weighed,
    /// The smallest number.
    Min,
    /// The largest number.
    Max,
    /// The number of the latest event, and its place in time.
    Latest,
    /// The number of the earliest event, and its place in time.
    Earliest,
    /// Every distinct text, each with a state of its own.
    Texts,
    /// Every distinct number, each with a state of its own that tells how often it came.
    Numbers,
}

/// What a value of a state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text,
    /// An exact number.
    Number,
}

impl Kept {
    /// Whether it matters which of two states is the later one.
    pub fn has_place(self) -> bool {
        matches!(self, Self::Latest | Self::Earliest)
    }

    /// What a value of a state is; `None` where the counts tell it.
    pub fn value(self) -> Option<Value> {
        match self {
            Self::Count => None,
            Self::Texts => Some(Value::Text),
            Self::Sum
            | Self::Weighed
            | Self::Min
            | Self::Max
            | Self::Latest
            | Self::Earliest
            | Self::Numbers => Some(Value::Number),
        }
    }

    /// Whether every distinct value has a state of its own.
    pub fn tells_values_apart(self) -> bool {
        matches!(self, Self::Texts | Self::Numbers)
    }
}

/// What is computed of single events: the inner aggregation where results of results are asked for.
fn innermost(meter: &Meter) -> &Aggregation {
    match &meter.aggregation {
        Aggregation::Nested(nested) => &nested.inner,
        aggregation => aggregation,
    }
}

/// What states of `meter` keep; `None` for a meter whose value no states give: what is followed over
/// time hangs on the order of events, and what is prorated on the bounds that are asked for.
pub fn kept(meter: &Meter) -> Option<Kept> {
    if meter.period.is_some() || !has_results_of_buckets(meter) {
        return None;
    }
    match innermost(meter) {
        Aggregation::Average(_) if meter.weight.is_some() => Some(Kept::Weighed),
        // The sum of the weights.
        Aggregation::Count if meter.weight.is_some() => Some(Kept::Sum),
        Aggregation::Count => Some(Kept::Count),
        Aggregation::Sum(_) | Aggregation::Average(_) => Some(Kept::Sum),
        Aggregation::Min(_) => Some(Kept::Min),
        Aggregation::Max(_) => Some(Kept::Max),
        Aggregation::Latest(_) => Some(Kept::Latest),
        Aggregation::Earliest(_) => Some(Kept::Earliest),
        Aggregation::CountUnique(_) => Some(Kept::Texts),
        Aggregation::Percentile(..) => Some(Kept::Numbers),
        Aggregation::TimeWeighted(_)
        | Aggregation::Active(_)
        | Aggregation::Reported(_)
        | Aggregation::Nested(_) => None,
    }
}

/// Whether what a meter computes over, if it does so over results, can be told from buckets: windows of
/// whole quarters of an hour, and nothing that only an event tells.
fn has_results_of_buckets(meter: &Meter) -> bool {
    let Aggregation::Nested(nested) = &meter.aggregation else { return true };
    let quarters = |minutes: i64| minutes % 15 == 0;
    let of_event = |operand: &Operand| matches!(operand, Operand::Field(field) if field.is_time());
    nested.window.and_then(Window::minutes).is_none_or(quarters) && !nested.per.iter().any(of_event)
}

/// What states of `meter` may be told apart by, beside the customer: its dimensions, and what inner results
/// are told apart by.
pub fn keys(meter: &Meter) -> Vec<Operand> {
    let mut keys: Vec<Operand> = Vec::new();
    let dimensions = meter.dimensions.iter().map(|name| resolve(name, meter));
    for operand in dimensions.chain(per(meter).iter().cloned()) {
        if operand != Operand::Field(Field::CustomerId) && !keys.contains(&operand) {
            keys.push(operand);
        }
    }
    keys
}

/// What inner results are told apart by.
fn per(meter: &Meter) -> &[Operand] {
    match &meter.aggregation {
        Aggregation::Nested(nested) => &nested.per,
        _ => &[],
    }
}

/// What rows of states are told apart by, beside the bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct By {
    /// Whether by the customer.
    pub customer: bool,
    /// The places of keys among [`keys`].
    pub keys: BTreeSet<usize>,
}

impl By {
    /// Whether rows told apart by this can be grouped by all that `other` has.
    pub fn covers(&self, other: &Self) -> bool {
        (self.customer || !other.customer) && self.keys.is_superset(&other.keys)
    }
}

/// A question as one of states.
#[derive(Debug, Clone)]
pub struct OverStates {
    /// What it reads of an event is read of the keys.
    query: UsageQuery,
    /// What inner results are told apart by, likewise.
    per: Vec<Operand>,
    /// What it reads.
    pub by: By,
    /// What rows of its answer are told apart by: its groups, and the customer where it is of one.
    pub grouped: By,
}

/// `query` as one of states; `None` where it reads something that states do not have.
pub fn over_states(meter: &Meter, query: &UsageQuery) -> Option<OverStates> {
    let known = keys(meter);
    let mut by =
        By { customer: query.customer.is_some() || query.by_customer_calendars(), ..By::default() };
    let mut key = |operand: &Operand| match operand {
        Operand::Field(Field::CustomerId) => {
            by.customer = true;
            Some(operand.clone())
        }
        Operand::Field(field) if field.is_time() => None,
        operand => {
            let place = known.iter().position(|key| key == operand)?;
            by.keys.insert(place);
            Some(Operand::Property(columns::key(place)))
        }
    };
    let groups = query.groups.iter().map(&mut key).collect::<Option<_>>()?;
    let grouped = grouped(&known, query);
    let per = per(meter).iter().map(&mut key).collect::<Option<_>>()?;
    let filter = filter_of_keys(&query.filter, &mut key)?;
    let query = UsageQuery { groups, filter, ..query.clone() };
    Some(OverStates { query, per, by, grouped })
}

/// What a query is grouped by, of the keys that are known. A single customer is as good as a group.
fn grouped(known: &[Operand], query: &UsageQuery) -> By {
    let place = |operand: &Operand| known.iter().position(|key| key == operand);
    By {
        customer: query.customer.is_some()
            || query.groups.contains(&Operand::Field(Field::CustomerId)),
        keys: query.groups.iter().filter_map(place).collect(),
    }
}

fn filter_of_keys(
    filter: &Filter,
    key: &mut dyn FnMut(&Operand) -> Option<Operand>,
) -> Option<Filter> {
    let mut all = |parts: &[Filter]| -> Option<Vec<Filter>> {
        parts.iter().map(|part| filter_of_keys(part, key)).collect()
    };
    Some(match filter {
        Filter::All(parts) => Filter::All(all(parts)?),
        Filter::Any(parts) => Filter::Any(all(parts)?),
        Filter::Not(part) => Filter::Not(Box::new(filter_of_keys(part, key)?)),
        Filter::Test(test) => {
            // Keys are texts, and a text is no boolean.
            let boolean = |literal: &Literal| matches!(literal, Literal::Boolean(_));
            let asks_boolean = match &test.comparison {
                Comparison::Equals(literal)
                | Comparison::NotEquals(literal)
                | Comparison::GreaterThan(literal)
                | Comparison::GreaterOrEqual(literal)
                | Comparison::LessThan(literal)
                | Comparison::LessOrEqual(literal) => boolean(literal),
                Comparison::Between(low, high) => boolean(low) || boolean(high),
                Comparison::In(literals) | Comparison::NotIn(literals) => {
                    literals.iter().any(boolean)
                }
                Comparison::Contains(_)
                | Comparison::NotContains(_)
                | Comparison::StartsWith(_)
                | Comparison::EndsWith(_)
                | Comparison::Like(_)
                | Comparison::Exists
                | Comparison::NotExists => false,
            };
            if asks_boolean {
                return None;
            }
            Filter::Test(crate::meter::Test { operand: key(&test.operand)?, ..test.clone() })
        }
    })
}
