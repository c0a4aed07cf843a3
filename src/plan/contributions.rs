//! The events behind a number: each with its value and what it counted as.
//!
//! Rows come by timestamp and order of receipt. From the listed values the number can be made again:
//! their sum, mean, smallest, last and so on; of a level, value × time held ÷ length of the range; of
//! a quantity, the sum of what is held at the end; of what comes and goes, what is held at the end.

use std::sync::Arc;

use arrow::datatypes::{DECIMAL256_MAX_PRECISION, DataType};
use datafusion::common::{DataFusionError, ScalarValue, UnnestOptions};
use datafusion::functions::core::expr_fn::{coalesce, get_field};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, TableSource, cast, ident, lit, not,
    when,
};

use super::alone::weight;
use super::followed::{SAID, UNTIL, first_of_two, followed, of_series};
use super::funnel::{self, counts, operands_of, placed_at, reason, scan};
use super::operand::{Operands, TableFacts, instant};
use super::series::PIECES;
use super::{Built, GroupKey, UsageQuery, range, row_condition};
use crate::error::{Error, Result};
use crate::functions;
use crate::functions::arithmetic::Arithmetic;
use crate::functions::number::{WIDE_SCALE, wide_type};
use crate::functions::series::pieces;
use crate::functions::series::spans::Spans;
use crate::functions::sum::OVERFLOW;
use crate::meter::{Aggregation, Field, Meter, Operand, Operation, Period, Placing, Told};
use crate::schema::{CUSTOMER_ID, IDEMPOTENCY_KEY, INGESTED_AT, ORDINAL, SOURCE, TIMESTAMP};
use crate::time::TimeRange;

/// Names of the columns beside those of events.
pub mod output {
    /// The value that is aggregated, as a text; null for a count.
    pub const VALUE: &str = "value";
    /// What it counted as, as a text.
    pub const COUNTED_AS: &str = "counted_as";
    /// How much the event weighs.
    pub const WEIGHT: &str = "weight";
    /// Since when it holds within the range, where it is followed over time.
    pub const HELD_FROM: &str = "held_from";
    /// Until when.
    pub const HELD_UNTIL: &str = "held_until";
    /// Start of the window of an inner result.
    pub const RESULT_WINDOW: &str = "result_window";
    /// Why it is skipped: 0 for an event that counts.
    pub const REASON: &str = "reason";

    /// A text that tells the series or result to which the event belongs.
    pub fn series(place: usize) -> String {
        format!("series_{place}")
    }
}

/// The columns of events that every row has, in order.
pub const EVENT_COLUMNS: [&str; 6] =
    [IDEMPOTENCY_KEY, SOURCE, CUSTOMER_ID, TIMESTAMP, INGESTED_AT, ORDINAL];

fn defect(error: DataFusionError) -> Error {
    Error::internal("plan the events of a number").with_source(error)
}

/// The operands that tell the series or inner result of an event.
pub fn series_of(meter: &Meter) -> &[Operand] {
    match &meter.aggregation {
        Aggregation::TimeWeighted(levels) if levels.told == Told::Level => &levels.per,
        Aggregation::Active(activity) => &activity.per,
        Aggregation::Reported(report) => &report.per,
        Aggregation::Nested(nested) => &nested.per,
        _ => &[],
    }
}

/// The events behind the answer of `meter` to `query`, which has neither windows nor groups.
///
/// # Errors
/// A filter whose literal cannot be compared with its operand.
pub fn contributions_plan(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    query: &UsageQuery,
    facts: &TableFacts,
) -> Result<LogicalPlan> {
    let at = placed_at(meter, facts);
    let operands = operands_of(meter, facts, at.as_ref());
    let prorated = meter.period.as_ref().filter(|period| period.place == Placing::Prorate);
    let rows = match (&meter.aggregation, prorated) {
        (aggregation, _) if aggregation.carries() => held(events, meter, query, operands)?,
        (_, Some(period)) => shared(events, meter, period, query, operands)?,
        (_, None) => whole(events, meter, query, operands)?,
    };
    let order = [TIMESTAMP, INGESTED_AT, ORDINAL, IDEMPOTENCY_KEY];
    rows.sort(order.map(|name| ident(name).sort(true, false)))
        .and_then(LogicalPlanBuilder::build)
        .map_err(defect)
}

/// Counts the events behind the answer of a meter that follows something: those before the range,
/// and those received after it.
///
/// # Errors
/// As [`contributions_plan`].
pub fn carried_plan(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    query: &UsageQuery,
    facts: &TableFacts,
) -> Result<LogicalPlan> {
    let rows = held(events, meter, query, operands_of(meter, facts, None))?;
    let before = query.range.from.map(|from| ident(TIMESTAMP).lt(instant(from.micros())));
    let after = query.range.to.map(|to| ident(INGESTED_AT).gt_eq(instant(to.micros())));
    let of = |condition: Option<Expr>, name: &str| -> Built<Expr> {
        let condition = condition.unwrap_or_else(|| lit(false));
        Ok(count(lit(1_i64)).filter(condition).build()?.alias(name))
    };
    let build = || -> Built<LogicalPlan> {
        let counts = [of(before, funnel::output::CARRIED)?, of(after, funnel::output::LATE)?];
        rows.aggregate(Vec::<Expr>::new(), counts)?.build()
    };
    build().map_err(defect)
}

/// What becomes of each row of `events` that matches `meter`, in whatever range.
///
/// # Errors
/// As [`contributions_plan`].
pub fn verdict_plan(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    facts: &TableFacts,
) -> Result<LogicalPlan> {
    let at = placed_at(meter, facts);
    let operands = operands_of(meter, facts, at.as_ref());
    let condition = row_condition(meter, &UsageQuery::default(), operands, true)?;
    let rows = range::scan(events, TimeRange::default(), facts.days, condition.as_ref())?;
    let columns = || -> Built<Vec<Expr>> {
        let [value, counted_as] = value_and_count(meter, operands)?;
        let mut columns = vec![reason(meter, operands)?.alias(output::REASON), value, counted_as];
        columns.extend(weight_column(meter, operands)?);
        Ok(columns)
    };
    columns().and_then(|all| rows.project(all)?.build()).map_err(defect)
}

fn event_columns(operands: Operands<'_>) -> Vec<Expr> {
    EVENT_COLUMNS.map(|name| event_column(name, operands).alias(name)).into()
}

fn event_column(name: &str, operands: Operands<'_>) -> Expr {
    match name {
        CUSTOMER_ID => cast(operands.text(&Operand::Field(Field::CustomerId)), DataType::Utf8),
        TIMESTAMP | INGESTED_AT | ORDINAL => ident(name),
        text => cast(ident(text), DataType::Utf8),
    }
}

fn number_text(number: Expr) -> Expr {
    functions::canonical_text().call(vec![number])
}

fn series_columns(meter: &Meter, operands: Operands<'_>) -> Vec<Expr> {
    let series = series_of(meter).iter().enumerate();
    let text = |of: &Operand| cast(operands.text(of), DataType::Utf8);
    series.map(|(place, of)| text(of).alias(output::series(place))).collect()
}

fn weight_column(meter: &Meter, operands: Operands<'_>) -> Built<Option<Expr>> {
    let weight = meter.weight.as_ref().map(|of| weight(of, operands)).transpose()?;
    Ok(weight.map(|weight| number_text(weight.number).alias(output::WEIGHT)))
}

/// Events that count whole.
fn whole(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    query: &UsageQuery,
    operands: Operands<'_>,
) -> Result<LogicalPlanBuilder> {
    let condition = row_condition(meter, query, operands, true)?.into_iter().collect();
    let rows = scan(events, meter, query, operands, condition, query.reads(meter))?;
    let build = || -> Built<LogicalPlanBuilder> {
        let rows = match makes_empty_results(meter) {
            true => rows,
            false => rows.filter(counts(meter, operands)?.is_true())?,
        };
        let mut columns = event_columns(operands);
        columns.extend(value_and_count(meter, operands)?);
        columns.extend(weight_column(meter, operands)?);
        if let Some(parts) = query.parts.as_ref().filter(|_| is_nested(meter)) {
            let of = vec![ident(TIMESTAMP), lit(parts.otherwise.to_literal())];
            columns.push(functions::window_start().call(of).alias(output::RESULT_WINDOW));
        }
        columns.extend(series_columns(meter, operands));
        rows.project(columns)
    };
    build().map_err(defect)
}

/// Whether events without a value have a part in the number: the distinct values of a result that
/// has none are 0.
fn makes_empty_results(meter: &Meter) -> bool {
    let Aggregation::Nested(nested) = &meter.aggregation else { return false };
    matches!(nested.inner, Aggregation::CountUnique(_))
}

fn is_nested(meter: &Meter) -> bool {
    matches!(meter.aggregation, Aggregation::Nested(_))
}

/// The value of an event and what it counts as, if it counts whole.
fn value_and_count(meter: &Meter, operands: Operands<'_>) -> Built<[Expr; 2]> {
    let weight = meter.weight.as_ref().map(|of| weight(of, operands)).transpose()?;
    let none = || lit(ScalarValue::Utf8(None));
    let simple = match &meter.aggregation {
        Aggregation::Nested(nested) => &nested.inner,
        simple => simple,
    };
    let numbers = |of: &Operand| {
        let number = operands.number(of);
        let counted = match &weight {
            Some(weight) => {
                let of = vec![number.clone(), weight.number.clone()];
                product_text(functions::arithmetic(Arithmetic::Multiply).call(of))?
            }
            None => number_text(number.clone()),
        };
        Ok::<_, DataFusionError>([number_text(number), counted])
    };
    let [value, counted_as] = match simple {
        Aggregation::Count => {
            let one = || lit(1_i64);
            [none(), number_text(weight.as_ref().map_or_else(one, |w| w.number.clone()))]
        }
        Aggregation::CountUnique(of) => [operands.text(of), operands.text(of)],
        Aggregation::Active(activity) => {
            let words = ["add", "remove"];
            [operands.text(&activity.of), does(&activity.operation, words, operands)?]
        }
        Aggregation::Reported(report) => {
            let words = ["set", "change"];
            let does = does(&report.operation, words, operands)?;
            [number_text(operands.number(&report.of)), does]
        }
        Aggregation::TimeWeighted(levels) => numbers(&levels.of)?,
        Aggregation::Nested(_) => [none(), none()],
        Aggregation::Sum(of)
        | Aggregation::Min(of)
        | Aggregation::Max(of)
        | Aggregation::Average(of)
        | Aggregation::Latest(of)
        | Aggregation::Earliest(of)
        | Aggregation::Percentile(of, _) => numbers(of)?,
    };
    let text = |of: Expr, name: &str| cast(of, DataType::Utf8).alias(name);
    Ok([text(value, output::VALUE), text(counted_as, output::COUNTED_AS)])
}

/// The text of a product, or that it has too many digits to count: the events that make a meter fail
/// are found by it.
fn product_text(product: Expr) -> Built<Expr> {
    let mark = ScalarValue::Decimal256(Some(OVERFLOW), DECIMAL256_MAX_PRECISION, WIDE_SCALE);
    let is_beyond = cast(product.clone(), wide_type()).eq(lit(mark));
    let text = cast(number_text(product), DataType::Utf8);
    when(is_beyond, lit("more than 38 digits")).otherwise(text)
}

fn does(operation: &Operation, words: [&str; 2], operands: Operands<'_>) -> Built<Expr> {
    let first = first_of_two(operation, operands)?;
    when(first.clone(), lit(words[0])).when(not(first), lit(words[1])).end()
}

/// Events that are about a stretch of time, with the share that lies in the range.
fn shared(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    period: &Period,
    query: &UsageQuery,
    operands: Operands<'_>,
) -> Result<LogicalPlanBuilder> {
    let spans = spans(query)?;
    let condition = row_condition(meter, query, operands, true)?;
    let rows = range::scan(events, TimeRange::default(), operands.facts.days, condition.as_ref())?;
    let operand = meter.aggregation.operands().into_iter().next();
    let value = operand.map_or_else(|| lit(1_i64), |of| operands.number(of));
    let cut = functions::shares().call(vec![
        value.clone(),
        operands.instant(&period.start, 0),
        operands.instant(&period.end, 0),
        ident(TIMESTAMP),
        lit(spans.to_literal()),
        // Without windows there are no calendars.
        lit(ScalarValue::Int64(None)),
    ]);
    let build = || -> Built<LogicalPlanBuilder> {
        let rows = rows.filter(counts(meter, operands)?.is_true())?;
        let mut columns = event_columns(operands);
        columns.push(number_text(value).alias(output::VALUE));
        columns.push(cut.alias(PIECES));
        let share = number_text(get_field(ident(PIECES), pieces::VALUE));
        let mut shown: Vec<Expr> = EVENT_COLUMNS.map(ident).into();
        shown.extend([ident(output::VALUE), share.alias(output::COUNTED_AS)]);
        rows.project(columns)?
            .unnest_column_with_options(PIECES, UnnestOptions::new().with_preserve_nulls(false))?
            .project(shown)
    };
    build().map_err(defect)
}

fn spans(query: &UsageQuery) -> Result<&Spans> {
    let spans = query.spans.as_ref().map(|spans| &spans.otherwise);
    spans.ok_or_else(|| Error::internal("a question without its spans"))
}

/// What is followed, with the time for which it holds in the range.
fn held(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    query: &UsageQuery,
    operands: Operands<'_>,
) -> Result<LogicalPlanBuilder> {
    let spans = spans(query)?;
    let (from, to) = (instant(spans.from), instant(spans.to));
    let named = |name: &str| format!("event_{name}");
    let key = |name: &str, of: Expr| GroupKey::new(&named(name), of);
    let [value, counted_as] = value_and_count(meter, operands).map_err(defect)?;
    let events_and_values = EVENT_COLUMNS
        .map(|name| (name, event_column(name, operands)))
        .into_iter()
        .chain([(output::VALUE, value), (output::COUNTED_AS, counted_as)]);
    let mut keys: Vec<GroupKey> = events_and_values.map(|(name, of)| key(name, of)).collect();
    let series = series_of(meter).iter().enumerate();
    let adds = matches!(meter.aggregation, Aggregation::Active(_));
    keys.extend(series.map(|(place, of)| {
        // Values that are there count by whom they are attributed to.
        let of = if adds { operands.text(of) } else { of_series(of, operands) };
        key(&output::series(place), cast(of, DataType::Utf8))
    }));
    let rows = followed(events, meter, &keys, query, operands)?;
    let build = || -> Built<LogicalPlanBuilder> {
        let begun = ident(TIMESTAMP).gt(from.clone());
        let starts = when(begun, ident(TIMESTAMP)).otherwise(from.clone())?;
        let until = coalesce(vec![ident(UNTIL), to.clone()]);
        let ends = when(until.clone().lt(to.clone()), until).otherwise(to.clone())?;
        // What is held to the end of an open range has no end.
        let shown_end = match spans.to {
            i64::MAX => ident(UNTIL),
            _ => ends.clone(),
        };
        let within = ident(TIMESTAMP).gt_eq(from.clone());
        // Who was removed before the range has no part in it.
        let holds = if adds { ident(SAID).is_true() } else { ident(SAID).is_not_null() };
        let carried = holds.and(ends.clone().gt(from.clone()));
        let counts = ident(SAID).is_not_null().and(within).or(carried);
        let held = [starts.alias(output::HELD_FROM), shown_end.alias(output::HELD_UNTIL)];
        let shown = |name: &str| ident(named(name)).alias(name);
        let mut columns: Vec<Expr> = EVENT_COLUMNS.map(shown).into();
        columns.extend([output::VALUE, output::COUNTED_AS].map(shown));
        columns.extend(held);
        let series = 0..series_of(meter).len();
        columns.extend(series.map(|place| shown(&output::series(place))));
        rows.filter(counts)?.project(columns)
    };
    build().map_err(defect)
}
