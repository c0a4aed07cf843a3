//! The plan that answers a question from stored states and the events that are in none.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, ident, lit};

use super::columns::{BUCKET, EVENTS, LEVEL, MATCHED, VALUE, WEIGHTS};
use super::rows::{Key, defect, of_events, of_several, same_types, stored};
use super::{Kept, OverStates, Rows, innermost, kept};
use crate::error::{Error, Result};
use crate::functions;
use crate::functions::arithmetic::Arithmetic;
use crate::meter::{Aggregation, Meter, Operand};
use crate::plan::alone::outer_results;
use crate::plan::operand::{Operands, instant};
use crate::plan::{
    Aggregated, Built, Column, GroupKey, UsageQuery, all_lookups, order, output, predicate,
    project, range, row_condition, windows,
};
use crate::schema::TIMESTAMP;

/// The window of an inner result.
pub(super) const INNER_WINDOW: &str = "result_window";

/// The stored states of a level.
pub struct Stored<'a> {
    /// The states.
    pub rows: Rows<'a>,
    /// The name of their level.
    pub level: &'a str,
    /// Whether each of them is a row of the answer of its own, so that none must be put together.
    pub are_groups: bool,
}

/// The plan that answers a query, also as one of states, for `meter` from stored states of a level and
/// the events that are in no state: the columns and the order of [`crate::plan::usage_plan`].
///
/// # Errors
/// A filter whose literal cannot be compared with its operand.
pub fn answer_plan(
    meter: &Meter,
    (query, over): (&UsageQuery, &OverStates),
    stored_states: &Stored<'_>,
    tail: Option<&Rows<'_>>,
) -> Result<LogicalPlan> {
    let Stored { rows: states, level, are_groups } = stored_states;
    let kept = kept(meter).ok_or_else(|| Error::internal("a meter without states"))?;
    let of_states = &over.query;
    let lookups = BTreeMap::new();
    let bucket = ident(BUCKET);
    let operands =
        Operands { facts: states.facts, lookups: &lookups, customer: &[], at: Some(&bucket) };
    let keys = keys_of(of_states, operands, &bucket);
    let names: Vec<String> = keys.iter().map(|key| key.name.clone()).collect();
    let inner = inner_keys(of_states, &over.per, operands, &bucket);
    let inner_names: Vec<String> = inner.iter().map(|(name, _)| name.clone()).collect();
    let all_names = [names.as_slice(), inner_names.as_slice()].concat();
    let mut condition = vec![ident(LEVEL).eq(lit(*level))];
    condition.extend(query.range.from.map(|from| ident(BUCKET).gt_eq(instant(from.micros()))));
    condition.extend(query.range.to.map(|to| ident(BUCKET).lt(instant(to.micros()))));
    condition.extend(query.customer.as_ref().map(|of| operands.customer().eq(lit(of.as_str()))));
    condition.extend(predicate::predicate(&of_states.filter, operands)?);
    let by = pairs(&keys).into_iter().chain(inner).collect();
    let mut rows = stored(states, conjunction(condition), by, kept, operands).map_err(defect)?;
    if let Some(tail) = tail {
        let lookups = all_lookups(&[meter]);
        let operands =
            Operands { facts: tail.facts, lookups: &lookups, customer: &meter.customer, at: None };
        let at = ident(TIMESTAMP);
        let by = pairs(&keys_of(query, operands, &at));
        let by =
            by.into_iter().chain(inner_keys(query, super::per(meter), operands, &at)).collect();
        let condition = row_condition(meter, query, operands, true)?;
        let days = tail.facts.days;
        let scan = range::scan(&tail.source, query.range, days, condition.as_ref())?;
        let events = of_events(scan, (meter, kept), by, operands)?;
        let same = |rows: LogicalPlanBuilder| same_types(rows, &all_names, kept);
        let events = same(events).and_then(LogicalPlanBuilder::build).map_err(defect)?;
        rows = same(rows).and_then(|rows| rows.union(events)).map_err(defect)?;
    }
    let keys: Vec<GroupKey> = names.iter().map(|name| GroupKey::new(name, ident(name))).collect();
    let aggregated = match &meter.aggregation {
        Aggregation::Nested(nested) => finished(rows, &all_names, meter, false)
            .and_then(|inner| results(inner, &all_names))
            .and_then(|results| outer_results(results, &keys, nested)),
        _ => finished(rows, &names, meter, *are_groups && tail.is_none()),
    };
    let projected = project(aggregated.map_err(defect)?, &keys).map_err(defect)?;
    order(projected, query, &keys).and_then(LogicalPlanBuilder::build).map_err(defect)
}

/// The window and the groups of a query, of rows that happen at an instant of their own.
fn keys_of(query: &UsageQuery, operands: Operands<'_>, at: &Expr) -> Vec<GroupKey> {
    let window = query.windows.as_ref().map(|of| windows::key(of, operands, Some(at)));
    let groups = query.groups.iter().enumerate();
    let groups = groups.map(|(place, of)| GroupKey::new(&output::group(place), operands.text(of)));
    window.into_iter().chain(groups).collect()
}

fn pairs(keys: &[GroupKey]) -> Vec<Key> {
    keys.iter().map(|key| (key.name.clone(), key.expr.clone())).collect()
}

/// What inner results are told apart by, beside the groups.
fn inner_keys(query: &UsageQuery, per: &[Operand], operands: Operands<'_>, at: &Expr) -> Vec<Key> {
    let window = query.parts.iter().map(|parts| {
        let start = windows::own(parts, query.windows.as_ref(), operands, at);
        (INNER_WINDOW.to_owned(), start)
    });
    let per = per.iter().enumerate();
    let per = per.map(|(place, of)| (format!("result_of_{place}"), operands.text(of)));
    window.chain(per).collect()
}

/// Groups as inner results: columns as those of `plan::alone`.
fn results(inner: Aggregated, names: &[String]) -> Built<LogicalPlanBuilder> {
    let columns = inner.columns.into_iter().map(|column| {
        let of = if column.counts { cast(column.shown, DataType::Int64) } else { column.shown };
        of.alias(column.name)
    });
    inner.groups.project(names.iter().map(ident).chain(columns).collect::<Vec<_>>())
}

/// The answer of rows of states, by the columns `names`; of one for each group, where they are that.
fn finished(
    rows: LogicalPlanBuilder,
    names: &[String],
    meter: &Meter,
    are_groups: bool,
) -> Built<Aggregated> {
    let by: Vec<Expr> = names.iter().map(ident).collect();
    let sum = |name: &str| functions::exact_sum().call(vec![ident(name)]);
    let of_groups = |value: Option<Expr>, rows: LogicalPlanBuilder| {
        let counts = [(EVENTS, output::events(0)), (MATCHED, output::matched(0))];
        let weights = (kept(meter) == Some(Kept::Weighed)).then(|| (WEIGHTS, WEIGHTS.to_owned()));
        let sums = weights.into_iter().chain(counts);
        if are_groups {
            let value = value.map(|_| ident(VALUE).alias(output::value(0)));
            let counts = sums.map(|(of, name)| ident(of).alias(name));
            return rows.project(by.iter().cloned().chain(value).chain(counts).collect::<Vec<_>>());
        }
        let counts = sums.map(|(of, name)| sum(of).alias(name));
        let value = value.map(|value| value.alias(output::value(0)));
        rows.aggregate(by.clone(), value.into_iter().chain(counts).collect::<Vec<_>>())
    };
    let mut value = Column::of(output::value(0), false);
    let mean = |weights: &str| {
        let mean = functions::arithmetic(Arithmetic::Mean);
        mean.call(vec![ident(output::value(0)), ident(weights)])
    };
    let kept = kept(meter).unwrap_or(Kept::Count);
    let groups = match kept {
        Kept::Texts => {
            let each = by.iter().cloned().chain([ident(VALUE)]).collect::<Vec<_>>();
            let of_value = [sum(EVENTS).alias(EVENTS), sum(MATCHED).alias(MATCHED)];
            of_groups(Some(count(ident(VALUE))), rows.aggregate(each, of_value)?)?
        }
        Kept::Count => {
            value = Column { name: output::value(0), ..Column::of(output::matched(0), true) };
            of_groups(None, rows)?
        }
        Kept::Numbers => {
            let Aggregation::Percentile(_, percent) = innermost(meter) else {
                return datafusion::common::internal_err!("numbers are kept for percentiles");
            };
            let share = lit(i64::from(percent.millionths()));
            let times = vec![ident(VALUE), share, cast(ident(EVENTS), DataType::Int64)];
            of_groups(Some(functions::percentile().call(times)), rows)?
        }
        Kept::Weighed => {
            value.shown = mean(WEIGHTS);
            of_groups(Some(sum(VALUE)), rows)?
        }
        Kept::Sum | Kept::Min | Kept::Max | Kept::Latest | Kept::Earliest => {
            match innermost(meter) {
                Aggregation::Average(_) => value.shown = mean(&output::events(0)),
                // Weights that come to nothing.
                Aggregation::Count => value.zero = true,
                _ => {}
            }
            of_groups(Some(of_several(kept, ident(VALUE))), rows)?
        }
    };
    let columns =
        vec![value, Column::of(output::events(0), true), Column::of(output::matched(0), true)];
    Ok(Aggregated { groups, columns })
}
