//! The plans of meters that share theirs with no other: weights, expressions, events placed by a
//! period, results of results. What is followed over time is planned in `plan::series`.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::functions::core::expr_fn::greatest;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::functions_aggregate::min_max::{max, min};
use datafusion::logical_expr::utils::{conjunction, disjunction};
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlanBuilder, TableSource, cast, ident, lit, when,
};

use super::operand::{Operands, instant};
use super::{
    Aggregated, Built, Column, GroupKey, UsageQuery, counted_operand, group_keys, output, range,
    row_condition, series, value_of, windows,
};
use crate::error::{Error, Result};
use crate::functions;
use crate::functions::arithmetic::Arithmetic;
use crate::functions::number::wide_type;
use crate::meter::{Aggregation, Meter, Nested, Operand, Outer, Period, Placing};
use crate::schema::TIMESTAMP;
use crate::time::TimeRange;

/// The groups of one meter that stands alone, and the keys that they are grouped by.
pub(super) fn aggregated(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    query: &UsageQuery,
    operands: Operands<'_>,
) -> Result<(Aggregated, Vec<GroupKey>)> {
    let defect = |error| Error::internal("plan usage").with_source(error);
    if let Some(period) = meter.period.as_ref().filter(|p| p.place == Placing::Prorate) {
        return series::prorated(events, meter, period, query, operands);
    }
    let at = meter.period.as_ref().map(|period| placed(period, operands));
    // What holds for a time only, holds where the event counts.
    let operands = Operands { at: at.as_ref().map(|at| &at.instant), ..operands };
    let condition = row_condition(meter, query, operands, true)?;
    let reads = if at.is_some() { TimeRange::default() } else { query.range };
    let instants = at.as_ref().map(|at| conjunction(bounds(&at.instant, query.range)));
    let condition = conjunction(condition.into_iter().chain(instants.flatten()));
    let scan = range::scan(events, reads, operands.facts.days, condition.as_ref())?;
    let keys = group_keys(query, operands, at.as_ref().map(|at| &at.instant));
    let usable = at.as_ref().map(|at| at.known.clone());
    let aggregated = match &meter.aggregation {
        Aggregation::TimeWeighted(_) => {
            return series::time_weighted(events, meter, query, operands);
        }
        Aggregation::Active(activity) => {
            return series::active(events, meter, activity, query, operands);
        }
        Aggregation::Reported(_) => {
            return series::reported(events, meter, query, operands);
        }
        Aggregation::Nested(nested) => results(scan, &keys, nested, query, operands),
        Aggregation::Count
        | Aggregation::CountUnique(_)
        | Aggregation::Sum(_)
        | Aggregation::Min(_)
        | Aggregation::Max(_)
        | Aggregation::Average(_)
        | Aggregation::Latest(_)
        | Aggregation::Earliest(_)
        | Aggregation::Percentile(..) => simple(scan, &keys, meter, usable, operands),
    };
    Ok((aggregated.map_err(defect)?, keys))
}

/// Where an event with a period counts whole.
pub(super) struct Placed {
    /// The instant; that of the event where the period is none.
    pub(super) instant: Expr,
    /// Whether the period is one that does not end before it begins.
    pub(super) known: Expr,
}

pub(super) fn placed(period: &Period, operands: Operands<'_>) -> Placed {
    let (start, end) = (operands.instant(&period.start, 0), operands.instant(&period.end, 0));
    let told = match period.place {
        Placing::Prorate | Placing::Start => start.clone(),
        Placing::End => last_instant(period, operands),
    };
    // Null where one of both is.
    let known = start.lt_eq(end);
    let instant = when(known.clone(), told).otherwise(ident(TIMESTAMP));
    Placed { instant: instant.unwrap_or_else(|_| ident(TIMESTAMP)), known }
}

/// The last instant of a period: the one before its end, unless it has only one.
pub(super) fn last_instant(period: &Period, operands: Operands<'_>) -> Expr {
    greatest(vec![operands.instant(&period.start, 0), operands.instant(&period.end, -1)])
}

/// That an instant lies in a range.
pub(super) fn bounds(at: &Expr, range: TimeRange) -> Vec<Expr> {
    let from = range.from.map(|from| at.clone().gt_eq(instant(from.micros())));
    let to = range.to.map(|to| at.clone().lt(instant(to.micros())));
    from.into_iter().chain(to).collect()
}

/// How much an event counts, and whether that can be told.
pub(super) struct Weight {
    pub(super) number: Expr,
    pub(super) usable: Expr,
}

/// An event without a weight stands for itself; one whose weight is no number, or below zero, for
/// nothing that can be told.
pub(super) fn weight(of: &Operand, operands: Operands<'_>) -> Built<Weight> {
    let number = operands.number(of);
    let present = disjunction(operands.present(of)).unwrap_or_else(|| lit(false));
    let one = when(present, lit(ScalarValue::Int64(None))).otherwise(lit(1_i64))?;
    let number = functions::arithmetic(Arithmetic::Coalesce).call(vec![number, one]);
    let zero = cast(lit(0_i64), wide_type());
    let usable = cast(number.clone(), wide_type()).gt_eq(zero);
    Ok(Weight { number, usable })
}

fn simple(
    scan: LogicalPlanBuilder,
    keys: &[GroupKey],
    meter: &Meter,
    usable: Option<Expr>,
    operands: Operands<'_>,
) -> Built<Aggregated> {
    const WEIGHTS: &str = "weights";
    let weight = meter.weight.as_ref().map(|of| weight(of, operands)).transpose()?;
    let usable =
        conjunction(usable.into_iter().chain(weight.iter().map(|weight| weight.usable.clone())));
    let filtered = |expr: Expr| match &usable {
        Some(usable) => expr.filter(usable.clone()).build(),
        None => Ok(expr),
    };
    let sum = |of: Expr| functions::exact_sum().call(vec![of]);
    let times = |a: Expr, b: Expr| functions::arithmetic(Arithmetic::Multiply).call(vec![a, b]);
    let present = counted_operand(&meter.aggregation, operands);
    let mut aggregates = Vec::new();
    let mut value = Column::of(output::value(0), false);
    match (&meter.aggregation, &weight) {
        (Aggregation::Count, Some(weight)) => {
            aggregates.push(filtered(sum(weight.number.clone()))?.alias(output::value(0)));
            value.zero = true;
        }
        (Aggregation::Sum(of), Some(weight)) => {
            let weighed = times(operands.number(of), weight.number.clone());
            aggregates.push(filtered(sum(weighed))?.alias(output::value(0)));
        }
        (Aggregation::Average(of), Some(weight)) => {
            let number = operands.number(of);
            let weighed = times(number.clone(), weight.number.clone());
            aggregates.push(filtered(sum(weighed))?.alias(output::value(0)));
            let none = ScalarValue::Int64(None);
            let with_value = when(number.is_null(), lit(none)).otherwise(lit(1_i64))?;
            let weights = times(with_value, weight.number.clone());
            aggregates.push(filtered(sum(weights))?.alias(WEIGHTS));
            let mean = functions::arithmetic(Arithmetic::Mean);
            value.shown = mean.call(vec![ident(output::value(0)), ident(WEIGHTS)]);
        }
        (aggregation, _) => {
            value.zero = matches!(aggregation, Aggregation::Count | Aggregation::CountUnique(_));
            let computed = value_of(aggregation, operands);
            aggregates.push(filtered(computed)?.alias(output::value(0)));
        }
    }
    aggregates.push(filtered(count(present))?.alias(output::events(0)));
    aggregates.push(count(lit(1_i64)).alias(output::matched(0)));
    let keys: Vec<Expr> = keys.iter().map(|key| key.expr.clone().alias(&key.name)).collect();
    Ok(Aggregated {
        groups: scan.aggregate(keys, aggregates)?,
        columns: vec![
            value,
            Column::of(output::events(0), true),
            Column::of(output::matched(0), true),
        ],
    })
}

/// An aggregation of results: the inner one by the groups, its window and its operands, then the
/// outer one by the groups.
fn results(
    scan: LogicalPlanBuilder,
    keys: &[GroupKey],
    nested: &Nested,
    query: &UsageQuery,
    operands: Operands<'_>,
) -> Built<Aggregated> {
    let own_window = query.parts.iter().map(|parts| {
        windows::own(parts, query.windows.as_ref(), operands, &ident(TIMESTAMP))
            .alias("result_window")
    });
    let per = nested.per.iter().enumerate();
    let per = per.map(|(place, of)| operands.text(of).alias(format!("result_of_{place}")));
    let groups = keys.iter().map(|key| key.expr.clone().alias(&key.name));
    let inner: Vec<Expr> = groups.chain(own_window).chain(per).collect();
    let present = counted_operand(&nested.inner, operands);
    let results = scan.aggregate(
        inner,
        vec![
            value_of(&nested.inner, operands).alias(output::value(0)),
            count(present).alias(output::events(0)),
            count(lit(1_i64)).alias(output::matched(0)),
        ],
    )?;
    outer_results(results, keys, nested)
}

/// The outer aggregation of the inner results, which have the columns of an answer.
pub(super) fn outer_results(
    results: LogicalPlanBuilder,
    keys: &[GroupKey],
    nested: &Nested,
) -> Built<Aggregated> {
    let inner = ident(output::value(0));
    let result = functions::arithmetic(Arithmetic::Checked).call(vec![inner]);
    let value = match nested.outer {
        Outer::Count => count_udaf().call(vec![result]),
        Outer::Sum => functions::exact_sum().call(vec![result]),
        Outer::Min => min(result),
        Outer::Max => max(result),
        Outer::Average => functions::exact_avg().call(vec![result]),
        Outer::Percentile(percent) => {
            let share = lit(i64::from(percent.millionths()));
            functions::percentile().call(vec![result, share])
        }
    };
    let total = |name: String| functions::exact_sum().call(vec![ident(&name)]).alias(name);
    let outer: Vec<Expr> = keys.iter().map(|key| ident(&key.name)).collect();
    let groups = results.aggregate(
        outer,
        vec![value.alias(output::value(0)), total(output::events(0)), total(output::matched(0))],
    )?;
    let mut value = Column::of(output::value(0), false);
    value.zero = nested.outer == Outer::Count;
    let columns =
        vec![value, Column::of(output::events(0), true), Column::of(output::matched(0), true)];
    Ok(Aggregated { groups, columns })
}
