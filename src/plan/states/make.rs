//! The plan that makes states: of events, of stored states, or of both.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, ident, lit};

use super::columns::{self, BUCKET, EVENTS, LEVEL, MATCHED, VALUE, WEIGHTS};
use super::rows::{Key, counts_and_place, defect, merged, of_events, same_types, stored};
use super::{By, Kept, Rows, kept, keys};
use crate::error::{Error, Result};
use crate::functions;
use crate::meter::{Meter, Operand};
use crate::plan::operand::{Operands, instant};
use crate::plan::{Built, UsageQuery, all_lookups, range, row_condition};
use crate::schema::{CUSTOMER_ID, TIMESTAMP};
use crate::time::{TimeRange, WindowStarts};

/// The start of the month of a bucket, in rows of new states.
pub const MONTH: &str = "month_start";

/// What states are made of.
pub enum Source<'a> {
    /// The events that happen within a range, and in none of the others.
    Events(&'a Rows<'a>, TimeRange, &'a [TimeRange]),
    /// The stored states of a level whose buckets begin in none of the ranges.
    States(&'a Rows<'a>, &'a str, &'a [TimeRange]),
}

/// The buckets of states, and the months that those lie in.
pub struct Buckets<'a> {
    /// The buckets.
    pub starts: &'a WindowStarts,
    /// The months.
    pub months: &'a WindowStarts,
    /// Whether rows come day by day, which is for questions about all customers and a short time,
    /// rather than customer by customer.
    pub days_first: bool,
}

/// The states of all sources together, one for each bucket and whatever they are told apart by: columns
/// [`MONTH`], [`CUSTOMER_ID`], the keys by name, [`BUCKET`] and what is kept; ordered by month, perhaps by
/// day of UTC, then by all keys. What they are not told apart by is null.
///
/// # Errors
/// A filter whose literal cannot be compared with its operand.
pub fn states_plan(
    meter: &Meter,
    by: &By,
    buckets: &Buckets<'_>,
    sources: &[Source<'_>],
) -> Result<LogicalPlan> {
    let kept = kept(meter).ok_or_else(|| Error::internal("a meter without states"))?;
    let names: Vec<String> = std::iter::once(CUSTOMER_ID.to_owned())
        .chain((0..keys(meter).len()).map(columns::key))
        .chain([BUCKET.to_owned()])
        .collect();
    let mut all: Option<LogicalPlanBuilder> = None;
    for source in sources {
        let mut rows = rows_of(source, (meter, kept), by, buckets)?;
        if sources.len() > 1 {
            rows = same_types(rows, &names, kept).map_err(defect)?;
        }
        all = Some(match all {
            None => rows,
            Some(others) => rows.build().and_then(|rows| others.union(rows)).map_err(defect)?,
        });
    }
    let rows = all.ok_or_else(|| Error::internal("states of nothing"))?;
    let month = start(ident(BUCKET), buckets.months).alias(MONTH);
    merged(rows, &names, kept)
        .and_then(|states| in_order(states, &names, kept, (month, buckets.days_first)))
        .and_then(LogicalPlanBuilder::build)
        .map_err(defect)
}

fn start(of: Expr, starts: &WindowStarts) -> Expr {
    functions::window_start().call(vec![of, lit(starts.to_literal())])
}

fn rows_of(
    source: &Source<'_>,
    (meter, kept): (&Meter, Kept),
    by: &By,
    buckets: &Buckets<'_>,
) -> Result<LogicalPlanBuilder> {
    let none = || lit(ScalarValue::Utf8(None));
    let told = |customer: Expr, text: &dyn Fn(usize) -> Expr, at: &str| -> Vec<Key> {
        let customer = if by.customer { customer } else { none() };
        let texts = (0..keys(meter).len()).map(|place| {
            let text = if by.keys.contains(&place) { text(place) } else { none() };
            (columns::key(place), text)
        });
        let bucket = (BUCKET.to_owned(), start(ident(at), buckets.starts));
        std::iter::once((CUSTOMER_ID.to_owned(), customer)).chain(texts).chain([bucket]).collect()
    };
    match source {
        Source::Events(events, within, without) => {
            let lookups = all_lookups(&[meter]);
            let operands = Operands {
                facts: events.facts,
                lookups: &lookups,
                customer: &meter.customer,
                at: None,
            };
            let known = keys(meter);
            let text = |place: usize| operands.text(&known[place]);
            let by = told(operands.customer(), &text, TIMESTAMP);
            let condition = row_condition(meter, &UsageQuery::default(), operands, false)?;
            let condition = conjunction(condition.into_iter().chain(outside(TIMESTAMP, without)));
            let days = events.facts.days;
            let scan = range::scan(&events.source, *within, days, condition.as_ref())?;
            of_events(scan, (meter, kept), by, operands)
        }
        Source::States(states, level, without) => {
            let lookups = BTreeMap::new();
            let operands =
                Operands { facts: states.facts, lookups: &lookups, customer: &[], at: None };
            let text = |place: usize| operands.text(&Operand::Property(columns::key(place)));
            let by = told(ident(CUSTOMER_ID), &text, BUCKET);
            let of_level = std::iter::once(ident(LEVEL).eq(lit(*level)));
            let condition = conjunction(of_level.chain(outside(BUCKET, without)));
            stored(states, condition, by, kept, operands).map_err(defect)
        }
    }
}

/// That an instant is in none of the ranges.
fn outside(column: &str, ranges: &[TimeRange]) -> Vec<Expr> {
    let outside = |range: &TimeRange| {
        let before = range.from.map(|from| ident(column).lt(instant(from.micros())));
        let after = range.to.map(|to| ident(column).gt_eq(instant(to.micros())));
        before.into_iter().chain(after).reduce(Expr::or).unwrap_or_else(|| lit(false))
    };
    ranges.iter().map(outside).collect()
}

/// States with their columns in the order in which they are stored, and so sorted.
fn in_order(
    states: LogicalPlanBuilder,
    names: &[String],
    kept: Kept,
    (month, days_first): (Expr, bool),
) -> Built<LogicalPlanBuilder> {
    let value = (kept != Kept::Count).then_some(VALUE);
    let weights = (kept == Kept::Weighed).then_some(WEIGHTS);
    let counts = [EVENTS, MATCHED].map(|name| cast(ident(name), DataType::Int64).alias(name));
    let place = counts_and_place(kept).skip(2).map(ident);
    let values = kept.tells_values_apart().then(|| VALUE.to_owned());
    let day = days_first.then(|| cast(ident(BUCKET), DataType::Date32));
    let by = names.iter().chain(&values).map(ident);
    let by = std::iter::once(ident(MONTH)).chain(day).chain(by);
    let sorts: Vec<_> = by.map(|of| of.sort(true, true)).collect();
    let columns = std::iter::once(month).chain(names.iter().map(ident));
    let columns = columns.chain(value.into_iter().chain(weights).map(ident));
    states.project(columns.chain(counts).chain(place).collect::<Vec<_>>())?.sort(sorts)
}
