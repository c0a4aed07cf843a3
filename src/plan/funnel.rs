//! How many events each step of a meter takes away: the plans behind an explanation.
//!
//! [`drop_plan`] counts in one scan what each condition drops; [`match_plan`] counts, among the
//! events that match, those that are skipped by each reason, and what else is told of them; what is
//! computed is computed for events that match only. [`corrected_plan`] counts the rows that
//! corrections made or ended. None of them has windows or groups.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::functions_aggregate::min_max::min;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, TableSource, cast, ident, lit, when,
};

use super::alone::{bounds, last_instant, placed};
use super::operand::{Operands, TableFacts, instant};
pub use super::skipped::reasons;
pub(super) use super::skipped::{counts, reason};
use super::{Built, UsageQuery, about_events, predicate, range, row_condition};
use crate::error::{Error, Result};
use crate::meter::{Filter, Meter, Period, Placing};
use crate::schema::{ENDED_BY, IDEMPOTENCY_KEY, INGESTED_AT, KIND, KIND_EVENT, MADE_BY, TIMESTAMP};
use crate::time::TimeRange;

/// Names of the columns of these plans.
pub mod output {
    /// Events that are asked for.
    pub const ASKED: &str = "asked";
    /// Events that match, in the range.
    pub const MATCHED: &str = "matched";
    /// Those of them that make the value.
    pub const COUNTED: &str = "counted";
    /// Events before the range that hold in it.
    pub const CARRIED: &str = "carried";
    /// Events behind the value that were received after the end of the range.
    pub const LATE: &str = "late";
    /// How many rows.
    pub const ROWS: &str = "rows";

    /// Events that the condition at `place` is the first to drop.
    pub fn dropped(place: usize) -> String {
        format!("dropped_{place}")
    }

    /// Events that the condition at `place` drops and no other one.
    pub fn alone(place: usize) -> String {
        format!("alone_{place}")
    }

    /// Whether an event meets the condition at `place`.
    pub fn meets(place: usize) -> String {
        format!("meets_{place}")
    }

    /// Events that are skipped for the reason at `place`.
    pub fn skipped(place: usize) -> String {
        format!("skipped_{place}")
    }

    /// The key of one of them.
    pub fn example(place: usize) -> String {
        format!("example_{place}")
    }

    /// Matched events whose value the lookup at `place` has a row for, no row for, or that have none.
    pub fn lookup(place: usize) -> [String; 3] {
        ["mapped", "unmapped", "absent"].map(|what| format!("{what}_{place}"))
    }

    /// The key of an event without a row in the lookup at `place`.
    pub fn unmapped(place: usize) -> String {
        format!("unmapped_example_{place}")
    }

    /// Matched events whose customer the teller at `place` tells.
    pub fn told(place: usize) -> String {
        format!("told_{place}")
    }
}

fn defect(error: datafusion::error::DataFusionError) -> Error {
    Error::internal("plan an explanation").with_source(error)
}

/// The conditions of a meter's filter that are told apart: those that all must hold.
pub fn conditions(meter: &Meter) -> Vec<&Filter> {
    match &meter.filter {
        Filter::All(parts) => parts.iter().collect(),
        whole @ (Filter::Any(_) | Filter::Not(_) | Filter::Test(_)) => vec![whole],
    }
}

pub(super) fn operands_of<'a>(
    meter: &'a Meter,
    facts: &'a TableFacts,
    at: Option<&'a Expr>,
) -> Operands<'a> {
    Operands { facts, lookups: &meter.lookups, customer: &meter.customer, at }
}

/// When an event of `meter` counts, if that is not its timestamp.
pub(super) fn placed_at(meter: &Meter, facts: &TableFacts) -> Option<Expr> {
    let operands = operands_of(meter, facts, None);
    meter.period.as_ref().map(|period| placed(period, operands).instant)
}

/// Counts the events that are asked for, and what each condition of the filter drops of them.
///
/// # Errors
/// A filter whose literal cannot be compared with its operand.
pub fn drop_plan(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    query: &UsageQuery,
    facts: &TableFacts,
) -> Result<LogicalPlan> {
    let at = placed_at(meter, facts);
    let operands = operands_of(meter, facts, at.as_ref());
    let mut asked = about_events(Some(meter), operands);
    asked.extend(query.customer.as_ref().map(|id| operands.customer().eq(lit(id.as_str()))));
    asked.extend(predicate::predicate(&query.filter, operands)?);
    let rows = scan(events, meter, query, operands, asked, query.range)?;
    let meets = conditions_met(meter, operands)?;
    let count_of = meets.len();
    let rows = rows.project(meets).map_err(defect)?;
    let met = |place: usize| ident(output::meets(place));
    let of = |all: Vec<Expr>| match conjunction(all) {
        Some(all) => count(lit(1_i64)).filter(all).build(),
        None => Ok(count(lit(1_i64))),
    };
    let mut counts = vec![count(lit(1_i64)).alias(output::ASKED)];
    let mut add = |all: Vec<Expr>, name: String| -> Built<()> {
        counts.push(of(all)?.alias(name));
        Ok(())
    };
    add((0..count_of).map(met).collect(), output::MATCHED.to_owned()).map_err(defect)?;
    for place in 0..count_of {
        let fails = Expr::Not(Box::new(met(place)));
        let first = (0..place).map(met).chain([fails.clone()]).collect();
        add(first, output::dropped(place)).map_err(defect)?;
        let others = (0..count_of).filter(|&other| other != place).map(met);
        add(others.chain([fails]).collect(), output::alone(place)).map_err(defect)?;
    }
    let no_groups: Vec<Expr> = Vec::new();
    rows.aggregate(no_groups, counts).and_then(LogicalPlanBuilder::build).map_err(defect)
}

/// Whether each condition is met, never null. One that asks nothing is met, and there is a column at
/// least.
fn conditions_met(meter: &Meter, operands: Operands<'_>) -> Result<Vec<Expr>> {
    let mut met = Vec::new();
    for (place, condition) in conditions(meter).into_iter().enumerate() {
        let holds = predicate::predicate(condition, operands)?;
        let holds = holds.map_or_else(|| lit(true), Expr::is_true);
        met.push(holds.alias(output::meets(place)));
    }
    if met.is_empty() {
        met.push(lit(true).alias(output::meets(0)));
    }
    Ok(met)
}

/// Whether the conditions of a meter hold, for each row of `events`, whatever its name.
///
/// # Errors
/// As [`drop_plan`].
pub fn conditions_plan(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    facts: &TableFacts,
) -> Result<LogicalPlan> {
    let at = placed_at(meter, facts);
    let met = conditions_met(meter, operands_of(meter, facts, at.as_ref()))?;
    let rows = range::scan(events, TimeRange::default(), facts.days, None)?;
    rows.project(met).and_then(LogicalPlanBuilder::build).map_err(defect)
}

/// Counts the matching events by what becomes of them.
///
/// # Errors
/// As [`drop_plan`].
pub fn match_plan(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    query: &UsageQuery,
    facts: &TableFacts,
) -> Result<LogicalPlan> {
    let at = placed_at(meter, facts);
    let operands = operands_of(meter, facts, at.as_ref());
    let condition = row_condition(meter, query, operands, true)?.into_iter().collect();
    let rows = scan(events, meter, query, operands, condition, query.range)?;
    matched(rows, meter, query, operands).map_err(defect)
}

const REASON: &str = "reason";
const TOLD_BY: &str = "told_by";

fn matched(
    rows: LogicalPlanBuilder,
    meter: &Meter,
    query: &UsageQuery,
    operands: Operands<'_>,
) -> Built<LogicalPlan> {
    let lookup = |place: usize| format!("lookup_{place}");
    let late = query.range.to.map(|to| ident(INGESTED_AT).gt_eq(instant(to.micros())));
    let mut columns = vec![
        reason(meter, operands)?.alias(REASON),
        late.unwrap_or_else(|| lit(false)).alias(output::LATE),
        cast(ident(IDEMPOTENCY_KEY), DataType::Utf8).alias(IDEMPOTENCY_KEY),
    ];
    for (place, table) in meter.lookups.values().enumerate() {
        let (of, to) = operands.mapped(table);
        let mut found = when(of.is_null(), lit(2_i64)).when(to.is_null(), lit(1_i64));
        columns.push(found.otherwise(lit(0_i64))?.alias(lookup(place)));
    }
    columns.push(told_by(meter, operands)?.alias(TOLD_BY));
    let rows = rows.project(columns)?;
    let is = |column: &str, code: usize| ident(column).eq(lit(code_of(code)));
    let counted = || is(REASON, 0);
    let of = |condition: Expr, name: &str| -> Built<Expr> {
        Ok(count(lit(1_i64)).filter(condition).build()?.alias(name))
    };
    let key = |condition: Expr, name: String| -> Built<Expr> {
        Ok(min(ident(IDEMPOTENCY_KEY)).filter(condition).build()?.alias(name))
    };
    let mut found = vec![
        of(lit(true), output::MATCHED)?,
        of(counted(), output::COUNTED)?,
        of(counted().and(ident(output::LATE)), output::LATE)?,
    ];
    for place in 0..reasons(meter).len() {
        let skipped = || is(REASON, place + 1);
        found.push(of(skipped(), &output::skipped(place))?);
        found.push(key(skipped(), output::example(place))?);
    }
    for place in 0..meter.lookups.len() {
        for (code, name) in output::lookup(place).iter().enumerate() {
            found.push(of(is(&lookup(place), code), name)?);
        }
        found.push(key(is(&lookup(place), 1), output::unmapped(place))?);
    }
    for place in 0..meter.customer.len() {
        found.push(of(is(TOLD_BY, place), &output::told(place))?);
    }
    let no_groups: Vec<Expr> = Vec::new();
    rows.aggregate(no_groups, found)?.build()
}

pub(super) fn code_of(code: usize) -> i64 {
    i64::try_from(code).unwrap_or(i64::MAX)
}

/// Counts the rows that would match and that a correction made or ended, by kind and corrections;
/// only a table that has seen a correction may be asked.
///
/// # Errors
/// As [`drop_plan`].
pub fn corrected_plan(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    query: &UsageQuery,
    facts: &TableFacts,
) -> Result<LogicalPlan> {
    let whatever_kind = TableFacts { corrections: false, ..facts.clone() };
    let at = placed_at(meter, &whatever_kind);
    let operands = operands_of(meter, &whatever_kind, at.as_ref());
    let mut all: Vec<Expr> = row_condition(meter, query, operands, true)?.into_iter().collect();
    let ended = ident(KIND).not_eq(lit(KIND_EVENT));
    all.push(ended.or(ident(MADE_BY).is_not_null()));
    let rows = scan(events, meter, query, operands, all, query.reads(meter))?;
    let by = [KIND, MADE_BY, ENDED_BY];
    let texts = by.map(|name| cast(ident(name), DataType::Utf8).alias(name));
    rows.project(texts)
        .and_then(|rows| rows.aggregate(by.map(ident), [count(lit(1_i64)).alias(output::ROWS)]))
        .and_then(|rows| rows.sort(by.map(|name| ident(name).sort(true, true))))
        .and_then(LogicalPlanBuilder::build)
        .map_err(defect)
}

/// The rows of `all` in the range that the meter means: by timestamp within `reads`, or by period.
pub(super) fn scan(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    query: &UsageQuery,
    operands: Operands<'_>,
    mut all: Vec<Expr>,
    reads: TimeRange,
) -> Result<LogicalPlanBuilder> {
    let Some(period) = &meter.period else {
        return range::scan(events, reads, operands.facts.days, conjunction(all).as_ref());
    };
    all.extend(in_period(period, query.range, operands).map_err(defect)?);
    range::scan(events, TimeRange::default(), operands.facts.days, conjunction(all).as_ref())
}

/// That an event with a period counts in the range, or is skipped there.
fn in_period(period: &Period, range: TimeRange, operands: Operands<'_>) -> Built<Option<Expr>> {
    if period.place != Placing::Prorate {
        return Ok(conjunction(bounds(&placed(period, operands).instant, range)));
    }
    let [start, end] = [&period.start, &period.end].map(|of| operands.instant(of, 0));
    let to = range.to.map(|to| start.clone().lt(instant(to.micros())));
    let from = range.from.map(|from| last_instant(period, operands).gt_eq(instant(from.micros())));
    let touches = conjunction(to.into_iter().chain(from)).unwrap_or_else(|| lit(true));
    let at = conjunction(bounds(&ident(TIMESTAMP), range)).unwrap_or_else(|| lit(true));
    when(start.lt_eq(end), touches).otherwise(at).map(Some)
}

/// The place of what tells the customer; one behind the last where nothing does.
fn told_by(meter: &Meter, operands: Operands<'_>) -> Built<Expr> {
    let nothing = lit(code_of(meter.customer.len()));
    let mut tellers = operands.told().into_iter().enumerate();
    let Some((_, first)) = tellers.next() else { return Ok(nothing) };
    let mut told = when(first.is_not_null(), lit(0_i64));
    for (place, teller) in tellers {
        told = told.when(teller.is_not_null(), lit(code_of(place)));
    }
    told.otherwise(nothing)
}
