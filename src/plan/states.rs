//! States: what is kept of all events of a bucket of time with the same keys, so that questions need
//! not read the events again.
//!
//! An event is a state of one, and states of the same keys make one state, exactly and in whatever
//! order. So making states of events, merging states, and answering from states beside events that
//! are in no state yet are the same: rows of states, grouped. What a state cannot tell exactly is not
//! planned here; the events are read then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::functions_aggregate::min_max::{max, min};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, TableSource, cast, ident, lit, when,
};

use super::operand::{Operands, instant};
use super::{
    Aggregated, Built, Column, GroupKey, TableFacts, UsageQuery, all_lookups, counted_operand,
    order, output, predicate, project, range, row_condition, windows,
};
use crate::error::{Error, Result};
use crate::functions;
use crate::functions::arithmetic::Arithmetic;
use crate::functions::number::wide_type;
use crate::meter::{Aggregation, Comparison, Field, Filter, Literal, Meter, Operand, resolve};
use crate::schema::{CUSTOMER_ID, INGESTED_AT, ORDINAL, TIMESTAMP, timestamp_type};
use crate::time::{TimeRange, WindowStarts};

/// Names of the columns of a row of states.
pub mod columns {
    /// Length of the bucket, and which keys the state is told apart by.
    pub const LEVEL: &str = "level";
    /// First instant of the bucket.
    pub const BUCKET: &str = "bucket";
    /// What the aggregation has come to: a property, whose kinds have columns of their own.
    pub const VALUE: &str = "value";
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

use columns::{AT, BUCKET, EVENTS, LEVEL, MATCHED, PLACE, RECEIVED, VALUE};

/// What a state keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// How many events there are.
    Count,
    /// The exact sum.
    Sum,
    /// The smallest number.
    Min,
    /// The largest number.
    Max,
    /// The number of the latest event, and its place in time.
    Latest,
    /// The number of the earliest event, and its place in time.
    Earliest,
    /// Every distinct text, each with a state of its own.
    Distinct,
}

/// What states of `meter` keep; `None` for a meter whose value no states give.
pub fn kept(meter: &Meter) -> Option<Kept> {
    if meter.period.is_some() || meter.weight.is_some() {
        return None;
    }
    match &meter.aggregation {
        Aggregation::Count => Some(Kept::Count),
        Aggregation::Sum(_) | Aggregation::Average(_) => Some(Kept::Sum),
        Aggregation::Min(_) => Some(Kept::Min),
        Aggregation::Max(_) => Some(Kept::Max),
        Aggregation::Latest(_) => Some(Kept::Latest),
        Aggregation::Earliest(_) => Some(Kept::Earliest),
        Aggregation::CountUnique(_) => Some(Kept::Distinct),
        Aggregation::Percentile(..)
        | Aggregation::TimeWeighted(_)
        | Aggregation::Active(_)
        | Aggregation::Reported(_)
        | Aggregation::Nested(_) => None,
    }
}

/// What states of `meter` are kept by, beside the customer: its dimensions.
pub fn keys(meter: &Meter) -> Vec<Operand> {
    let mut keys: Vec<Operand> = Vec::new();
    for name in &meter.dimensions {
        let operand = resolve(name, meter);
        if operand != Operand::Field(Field::CustomerId) && !keys.contains(&operand) {
            keys.push(operand);
        }
    }
    keys
}

/// A question as one of states.
#[derive(Debug, Clone)]
pub struct OverStates {
    /// What it reads of an event is read of the keys.
    query: UsageQuery,
    /// The places of those keys.
    pub keys: BTreeSet<usize>,
}

/// `query` as one of states; `None` where it reads something that states do not have.
pub fn over_states(meter: &Meter, query: &UsageQuery) -> Option<OverStates> {
    let known = keys(meter);
    let mut read = BTreeSet::new();
    let mut key = |operand: &Operand| match operand {
        Operand::Field(Field::CustomerId) => Some(operand.clone()),
        Operand::Field(field) if field.is_time() => None,
        operand => {
            let place = known.iter().position(|key| key == operand)?;
            read.insert(place);
            Some(Operand::Property(columns::key(place)))
        }
    };
    let query = UsageQuery {
        groups: query.groups.iter().map(&mut key).collect::<Option<_>>()?,
        filter: filter_of_keys(&query.filter, &mut key)?,
        ..query.clone()
    };
    Some(OverStates { query, keys: read })
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

/// A table of rows to plan over, and what is known of it.
#[derive(Clone)]
pub struct Rows<'a> {
    /// The table.
    pub source: Arc<dyn TableSource>,
    /// What its statistics tell.
    pub facts: &'a TableFacts,
}

fn defect(error: datafusion::error::DataFusionError) -> Error {
    Error::internal("plan states").with_source(error)
}

/// The states of the events of a range, by customer, keys and bucket: columns [`CUSTOMER_ID`], the keys
/// by name, [`BUCKET`], the start of the bucket's month and what is kept; ordered by month, then all keys.
///
/// # Errors
/// A filter whose literal cannot be compared with its operand.
pub fn states_of_events(
    events: &Rows<'_>,
    meter: &Meter,
    range: TimeRange,
    (buckets, months): (&WindowStarts, &WindowStarts),
) -> Result<LogicalPlan> {
    let kept = kept(meter).ok_or_else(|| Error::internal("a meter without states"))?;
    let lookups = all_lookups(&[meter]);
    let operands =
        Operands { facts: events.facts, lookups: &lookups, customer: &meter.customer, at: None };
    let start = |of: Expr, starts: &WindowStarts| {
        functions::window_start().call(vec![of, lit(starts.to_literal())])
    };
    let texts = keys(meter).into_iter().enumerate();
    let texts = texts.map(|(place, key)| (columns::key(place), operands.text(&key)));
    let by: Vec<(String, Expr)> = std::iter::once((CUSTOMER_ID.to_owned(), operands.customer()))
        .chain(texts)
        .chain([(BUCKET.to_owned(), start(ident(TIMESTAMP), buckets))])
        .collect();
    let names: Vec<String> = by.iter().map(|(name, _)| name.clone()).collect();
    let query = UsageQuery { range, ..UsageQuery::default() };
    let rows = of_events(events, (meter, kept), (&query, false), by, operands)?;
    let month = start(ident(BUCKET), months).alias(MONTH);
    merged(rows, &names, kept)
        .and_then(|states| in_order(states, &names, kept, Some(month)))
        .and_then(LogicalPlanBuilder::build)
        .map_err(defect)
}

/// The states of stored states of a level: those of the same customer and bucket, and of the same keys
/// at the places `kept_keys`, made one.
///
/// # Errors
/// A defect of ours: a plan that does not build.
pub fn states_of_states(
    states: &Rows<'_>,
    meter: &Meter,
    level: &str,
    kept_keys: &[usize],
) -> Result<LogicalPlan> {
    let kept = kept(meter).ok_or_else(|| Error::internal("a meter without states"))?;
    let lookups = BTreeMap::new();
    let operands = Operands { facts: states.facts, lookups: &lookups, customer: &[], at: None };
    let texts = (0..keys(meter).len()).map(|place| {
        let name = columns::key(place);
        let text = match kept_keys.contains(&place) {
            true => operands.text(&Operand::Property(name.clone())),
            false => lit(ScalarValue::Utf8(None)),
        };
        (name, text)
    });
    let by: Vec<(String, Expr)> = std::iter::once((CUSTOMER_ID.to_owned(), ident(CUSTOMER_ID)))
        .chain(texts)
        .chain([(BUCKET.to_owned(), ident(BUCKET))])
        .collect();
    let names: Vec<String> = by.iter().map(|(name, _)| name.clone()).collect();
    stored(states, Some(ident(LEVEL).eq(lit(level))), by, kept, operands)
        .and_then(|rows| merged(rows, &names, kept))
        .and_then(|states| in_order(states, &names, kept, None))
        .and_then(LogicalPlanBuilder::build)
        .map_err(defect)
}

/// The plan that answers a query, also as one of states, for `meter` from stored states of a level and
/// the events that are in no state: the columns and the order of [`super::usage_plan`].
///
/// # Errors
/// A filter whose literal cannot be compared with its operand.
pub fn answer_plan(
    meter: &Meter,
    (query, over): (&UsageQuery, &OverStates),
    (states, level): (&Rows<'_>, &str),
    tail: Option<&Rows<'_>>,
) -> Result<LogicalPlan> {
    let kept = kept(meter).ok_or_else(|| Error::internal("a meter without states"))?;
    let of_states = &over.query;
    let lookups = BTreeMap::new();
    let bucket = ident(BUCKET);
    let operands =
        Operands { facts: states.facts, lookups: &lookups, customer: &[], at: Some(&bucket) };
    let keys = texts_by(of_states, operands, &bucket);
    let mut condition = vec![ident(LEVEL).eq(lit(level))];
    condition.extend(query.range.from.map(|from| ident(BUCKET).gt_eq(instant(from.micros()))));
    condition.extend(query.range.to.map(|to| ident(BUCKET).lt(instant(to.micros()))));
    condition.extend(query.customer.as_ref().map(|of| operands.customer().eq(lit(of.as_str()))));
    condition.extend(predicate::predicate(&of_states.filter, operands)?);
    let condition = conjunction(condition);
    let mut rows = stored(states, condition, pairs(&keys), kept, operands).map_err(defect)?;
    if let Some(tail) = tail {
        let lookups = all_lookups(&[meter]);
        let operands =
            Operands { facts: tail.facts, lookups: &lookups, customer: &meter.customer, at: None };
        let by = pairs(&texts_by(query, operands, &ident(TIMESTAMP)));
        let events = of_events(tail, (meter, kept), (query, true), by, operands)?;
        let same = |rows: LogicalPlanBuilder| same_types(rows, &keys, kept);
        let events = same(events).and_then(LogicalPlanBuilder::build).map_err(defect)?;
        rows = same(rows).and_then(|rows| rows.union(events)).map_err(defect)?;
    }
    let keys: Vec<GroupKey> =
        keys.into_iter().map(|key| GroupKey::new(&key.name, ident(&key.name))).collect();
    let aggregated = finished(rows, &keys, meter).map_err(defect)?;
    let projected = project(aggregated, &keys).map_err(defect)?;
    order(projected, query, &keys).and_then(LogicalPlanBuilder::build).map_err(defect)
}

/// The start of the month of a bucket, in rows of new states.
pub const MONTH: &str = "month_start";

/// The window and the groups of a query, of rows that happen at an instant of their own.
fn texts_by(query: &UsageQuery, operands: Operands<'_>, at: &Expr) -> Vec<GroupKey> {
    let window = query.windows.as_ref().map(|of| windows::key(of, operands, Some(at)));
    let groups = query.groups.iter().enumerate();
    let groups = groups.map(|(place, of)| GroupKey::new(&output::group(place), operands.text(of)));
    window.into_iter().chain(groups).collect()
}

fn pairs(keys: &[GroupKey]) -> Vec<(String, Expr)> {
    keys.iter().map(|key| (key.name.clone(), key.expr.clone())).collect()
}

/// Each event of a query, or of a meter alone, as a state of one.
fn of_events(
    events: &Rows<'_>,
    (meter, kept): (&Meter, Kept),
    (query, asked): (&UsageQuery, bool),
    by: Vec<(String, Expr)>,
    operands: Operands<'_>,
) -> Result<LogicalPlanBuilder> {
    let condition = row_condition(meter, query, operands, asked)?;
    let scan = range::scan(&events.source, query.range, events.facts.days, condition.as_ref())?;
    let present = counted_operand(&meter.aggregation, operands);
    let counted = |of: Expr| when(of.is_not_null(), lit(1_i64)).otherwise(lit(0_i64));
    let micros = |column: &str| {
        when(present.clone().is_not_null(), cast(ident(column), DataType::Int64)).end()
    };
    let columns = || -> Built<Vec<Expr>> {
        let mut columns: Vec<Expr> = by.into_iter().map(|(name, of)| of.alias(name)).collect();
        if kept != Kept::Count {
            columns.push(present.clone().alias(VALUE));
        }
        columns.push(counted(present.clone())?.alias(EVENTS));
        columns.push(lit(1_i64).alias(MATCHED));
        if kept.has_place() {
            columns.push(micros(TIMESTAMP)?.alias(AT));
            columns.push(micros(INGESTED_AT)?.alias(RECEIVED));
            columns.push(micros(ORDINAL)?.alias(PLACE));
        }
        Ok(columns)
    };
    columns().and_then(|columns| scan.project(columns)).map_err(defect)
}

/// Stored states that meet a condition.
fn stored(
    states: &Rows<'_>,
    condition: Option<Expr>,
    by: Vec<(String, Expr)>,
    kept: Kept,
    operands: Operands<'_>,
) -> Built<LogicalPlanBuilder> {
    let mut scan = LogicalPlanBuilder::scan("states", Arc::clone(&states.source), None)?;
    if let Some(condition) = condition {
        scan = scan.filter(condition)?;
    }
    let value = Operand::Property(VALUE.to_owned());
    let value = match kept {
        Kept::Count => None,
        Kept::Distinct => Some(operands.text(&value)),
        Kept::Sum | Kept::Min | Kept::Max | Kept::Latest | Kept::Earliest => {
            Some(operands.number(&value))
        }
    };
    let by = by.into_iter().map(|(name, of)| of.alias(name));
    let value = value.map(|value| value.alias(VALUE));
    let rest = kept.counts_and_place().map(ident);
    scan.project(by.chain(value).chain(rest).collect::<Vec<_>>())
}

impl Kept {
    /// Whether it matters which of two states is the later one.
    pub fn has_place(self) -> bool {
        matches!(self, Self::Latest | Self::Earliest)
    }

    fn counts_and_place(self) -> impl Iterator<Item = &'static str> {
        let place: &[&str] = if self.has_place() { &[AT, RECEIVED, PLACE] } else { &[] };
        [EVENTS, MATCHED].into_iter().chain(place.iter().copied())
    }

    /// The value of several states, and of whatever else belongs to it.
    fn of_several(self, of: Expr) -> Expr {
        let instant = |column: &str| cast(ident(column), timestamp_type());
        let placed = || vec![of.clone(), instant(AT), instant(RECEIVED), ident(PLACE)];
        match self {
            Self::Min => min(of),
            Self::Max => max(of),
            Self::Latest => functions::latest().call(placed()),
            Self::Earliest => functions::earliest().call(placed()),
            Self::Count | Self::Sum | Self::Distinct => functions::exact_sum().call(vec![of]),
        }
    }
}

/// Rows of states made one for each of `names`, and for each value where every one is kept.
fn merged(rows: LogicalPlanBuilder, names: &[String], kept: Kept) -> Built<LogicalPlanBuilder> {
    let mut by: Vec<Expr> = names.iter().map(ident).collect();
    let mut merged = vec![
        functions::exact_sum().call(vec![ident(EVENTS)]).alias(EVENTS),
        functions::exact_sum().call(vec![ident(MATCHED)]).alias(MATCHED),
    ];
    match kept {
        Kept::Count => {}
        Kept::Distinct => by.push(ident(VALUE)),
        Kept::Sum | Kept::Min | Kept::Max => {
            merged.push(kept.of_several(ident(VALUE)).alias(VALUE))
        }
        Kept::Latest | Kept::Earliest => {
            let all = [VALUE, AT, RECEIVED, PLACE];
            merged.extend(all.map(|name| kept.of_several(ident(name)).alias(name)));
        }
    }
    rows.aggregate(by, merged)
}

/// States with their columns in the order in which they are stored, and so sorted.
fn in_order(
    states: LogicalPlanBuilder,
    names: &[String],
    kept: Kept,
    month: Option<Expr>,
) -> Built<LogicalPlanBuilder> {
    let value = (kept != Kept::Count).then_some(VALUE);
    let counts = [EVENTS, MATCHED].map(|name| cast(ident(name), DataType::Int64).alias(name));
    let place = kept.counts_and_place().skip(2).map(ident);
    let first: Vec<String> = month.iter().map(|_| MONTH.to_owned()).collect();
    let distinct = (kept == Kept::Distinct).then(|| VALUE.to_owned());
    let by: Vec<_> = first.iter().chain(names).chain(&distinct).collect();
    let sorts: Vec<_> = by.into_iter().map(|name| ident(name).sort(true, true)).collect();
    let columns = month.into_iter().chain(names.iter().map(ident)).chain(value.map(ident));
    states.project(columns.chain(counts).chain(place).collect::<Vec<_>>())?.sort(sorts)
}

/// The same rows with the types that both stored states and events can have.
fn same_types(
    rows: LogicalPlanBuilder,
    keys: &[GroupKey],
    kept: Kept,
) -> Built<LogicalPlanBuilder> {
    let by = keys.iter().map(|key| match key.name.as_str() {
        output::WINDOW_START => ident(&key.name),
        name => cast(ident(name), DataType::Utf8).alias(name),
    });
    let value = match kept {
        Kept::Count => None,
        Kept::Distinct => Some(DataType::Utf8),
        Kept::Sum | Kept::Min | Kept::Max | Kept::Latest | Kept::Earliest => Some(wide_type()),
    };
    let value = value.map(|of| cast(ident(VALUE), of).alias(VALUE));
    let rest = kept.counts_and_place().map(ident);
    rows.project(by.chain(value).chain(rest).collect::<Vec<_>>())
}

/// The answer of rows of states.
fn finished(rows: LogicalPlanBuilder, keys: &[GroupKey], meter: &Meter) -> Built<Aggregated> {
    let by: Vec<Expr> = keys.iter().map(|key| ident(&key.name)).collect();
    let sum = |name: &str| functions::exact_sum().call(vec![ident(name)]);
    let counts = || [sum(EVENTS).alias(output::events(0)), sum(MATCHED).alias(output::matched(0))];
    let mut value = Column::of(output::value(0), false);
    let groups = match kept(meter) {
        Some(Kept::Distinct) => {
            let each = by.iter().cloned().chain([ident(VALUE)]).collect::<Vec<_>>();
            let of_value = [sum(EVENTS).alias(EVENTS), sum(MATCHED).alias(MATCHED)];
            let distinct = count(ident(VALUE)).alias(output::value(0));
            let rows = rows.aggregate(each, of_value)?;
            rows.aggregate(by, std::iter::once(distinct).chain(counts()).collect::<Vec<_>>())?
        }
        Some(Kept::Count) | None => {
            value = Column { name: output::value(0), ..Column::of(output::matched(0), true) };
            rows.aggregate(by, counts())?
        }
        Some(kept) => {
            let of_all = kept.of_several(ident(VALUE)).alias(output::value(0));
            if matches!(meter.aggregation, Aggregation::Average(_)) {
                let mean = functions::arithmetic(Arithmetic::Mean);
                value.shown = mean.call(vec![ident(output::value(0)), ident(output::events(0))]);
            }
            rows.aggregate(by, std::iter::once(of_all).chain(counts()).collect::<Vec<_>>())?
        }
    };
    let columns =
        vec![value, Column::of(output::events(0), true), Column::of(output::matched(0), true)];
    Ok(Aggregated { groups, columns })
}
