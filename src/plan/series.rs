//! The plans of what is followed over time: levels, values that come and go, reported quantities,
//! and events that are about a stretch of time.
//!
//! A group's events from the beginning of history to the end of the range become one list of
//! pieces, a value for each window; the list is unnested and its pieces grouped again. The windows
//! and bounds stand in the plan as literals.

use std::sync::Arc;

use datafusion::common::{ScalarValue, UnnestOptions};
use datafusion::functions::core::expr_fn::get_field;
use datafusion::functions_window::expr_fn::lead;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlanBuilder, TableSource, ident, in_list, lit, when,
};

use super::Windows;
use super::alone::placed;
use super::operand::{Operands, instant};
use super::{
    Aggregated, Built, Column, GroupKey, UsageQuery, group_keys, output, predicate, range,
    row_condition, windows,
};
use crate::error::{Error, Result};
use crate::functions;
use crate::functions::series::by_calendar::ByCalendar;
use crate::functions::series::change::Mode;
use crate::functions::series::pieces;
use crate::functions::series::spans::{Spans, parts_literal, spans_literal};
use crate::meter::{Activity, Field, Levels, Meter, Operand, Operation, Period, Report, Told};
use crate::schema::{INGESTED_AT, ORDINAL, TIMESTAMP, timestamp_type};
use crate::time::TimeRange;

/// Name of the list of pieces.
pub(super) const PIECES: &str = "pieces";

type Planned = Result<(Aggregated, Vec<GroupKey>)>;

fn defect(error: datafusion::error::DataFusionError) -> Error {
    Error::internal("plan usage").with_source(error)
}

/// The windows and bounds that a question has, which whoever resolves it must say.
fn spans(query: &UsageQuery) -> Result<&ByCalendar<Spans>> {
    query.spans.as_ref().ok_or_else(|| Error::internal("a question without its spans"))
}

fn parts(query: &UsageQuery) -> Expr {
    lit(parts_literal(query.parts.as_ref()))
}

/// The calendar of a group's customer; periods that differ between customers are only asked for by
/// customer.
fn calendar_of_group(query: &UsageQuery) -> Expr {
    let place = query.groups.iter().position(|of| *of == Operand::Field(Field::CustomerId));
    let customer =
        place.map_or_else(|| lit(ScalarValue::Utf8(None)), |place| ident(output::group(place)));
    windows::calendar(query.windows.as_ref(), customer)
}

/// The keys of the groups alone: windows come with the pieces.
fn keys_without_window(query: &UsageQuery, operands: Operands<'_>) -> Vec<GroupKey> {
    let mut keys = group_keys(query, operands, None);
    keys.retain(|key| key.name != output::WINDOW_START);
    keys
}

/// Everything up to the end of the range: what was before it counts in it.
fn scan(
    events: &Arc<dyn TableSource>,
    query: &UsageQuery,
    operands: Operands<'_>,
    condition: Option<&Expr>,
) -> Result<LogicalPlanBuilder> {
    let until = TimeRange { from: None, to: query.range.to };
    range::scan(events, until, operands.facts.days, condition)
}

/// The mean of a level over time.
pub(super) fn time_weighted(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    levels: &Levels,
    query: &UsageQuery,
    operands: Operands<'_>,
) -> Planned {
    let spans = spans(query)?;
    let keys = keys_without_window(query, operands);
    let changes = levels.told == Told::Change;
    let condition = row_condition(meter, query, operands, changes)?;
    let scan = scan(events, query, operands, condition.as_ref())?;
    let rows = match levels.told {
        Told::Change => with_changes(scan, &keys, &levels.of, operands),
        Told::Level => {
            let asked = predicate::predicate(&query.filter, operands)?;
            let customer = query.customer.as_ref().map(|name| operands.customer().eq(lit(name)));
            let asked = conjunction(asked.into_iter().chain(customer));
            with_levels(scan, &keys, levels, asked, operands)
        }
    };
    let literal = lit(spans_literal(spans));
    let area = functions::area().call(vec![
        ident(LEVEL),
        ident(TIMESTAMP),
        ident(UNTIL),
        literal.clone(),
        calendar_of_group(query),
    ]);
    let groups = rows
        .and_then(|rows| rows.aggregate(names(&keys), vec![area.alias(PIECES)]))
        .map_err(defect)?;
    let mean = |value: Expr, window: Expr| {
        let calendar = calendar_of_group(query);
        functions::per_length().call(vec![value, window, literal.clone(), lit(""), calendar])
    };
    taken_apart(groups, keys, query, spans, Some(&mean)).map_err(defect)
}

/// Names of the columns that an area is made of.
pub(super) const LEVEL: &str = "level";
pub(super) const UNTIL: &str = "until";

fn names(keys: &[GroupKey]) -> Vec<Expr> {
    keys.iter().map(|key| ident(&key.name)).collect()
}

/// Each event changes the level for good.
fn with_changes(
    scan: LogicalPlanBuilder,
    keys: &[GroupKey],
    of: &Operand,
    operands: Operands<'_>,
) -> Built<LogicalPlanBuilder> {
    let never = ScalarValue::TimestampMicrosecond(None, Some(Arc::from("UTC")));
    let keys = keys.iter().map(|key| key.expr.clone().alias(&key.name));
    let columns = [
        operands.number(of).alias(LEVEL),
        ident(TIMESTAMP),
        datafusion::logical_expr::cast(lit(never), timestamp_type()).alias(UNTIL),
    ];
    scan.project(keys.chain(columns).collect::<Vec<_>>())
}

/// Each event holds until the next of its series, whether that is asked for or not.
pub(super) fn with_levels(
    scan: LogicalPlanBuilder,
    keys: &[GroupKey],
    levels: &Levels,
    asked: Option<Expr>,
    operands: Operands<'_>,
) -> Built<LogicalPlanBuilder> {
    const ASKED: &str = "asked";
    const SKIPPED: &str = "skipped";
    let groups = keys.iter().map(|key| key.expr.clone().alias(&key.name));
    let series = |place: usize| format!("series_{place}");
    // Who sends a level ends it, whoever it is attributed to meanwhile.
    let sent = operands.as_sent();
    let per = levels.per.iter().enumerate();
    let per = per.map(|(place, of)| sent.text(of).alias(series(place)));
    let number = operands.number(&levels.of);
    let columns = [
        number.clone().alias(LEVEL),
        // An event without a number is none of the series.
        number.is_null().alias(SKIPPED),
        asked.unwrap_or_else(|| lit(true)).alias(ASKED),
        ident(TIMESTAMP),
        ident(INGESTED_AT),
        ident(ORDINAL),
    ];
    let rows = scan.project(groups.chain(per).chain(columns).collect::<Vec<_>>())?;
    let mut series: Vec<Expr> = (0..levels.per.len()).map(|place| ident(series(place))).collect();
    series.push(ident(SKIPPED));
    let order = [TIMESTAMP, INGESTED_AT, ORDINAL].map(|name| ident(name).sort(true, false));
    let next = lead(ident(TIMESTAMP), Some(1), None)
        .partition_by(series)
        .order_by(order.into())
        .build()?;
    let rows = rows.window(vec![next])?;
    // The engine names the column after the whole expression; it is the last one.
    let next_name = rows.schema().fields().last().map(|field| field.name().clone());
    let rows = rows.filter(ident(ASKED))?;
    let groups = keys.iter().map(|key| ident(&key.name));
    let columns =
        [ident(LEVEL), ident(TIMESTAMP), ident(next_name.unwrap_or_default()).alias(UNTIL)];
    rows.project(groups.chain(columns).collect::<Vec<_>>())
}

/// Values that come and go.
pub(super) fn active(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    activity: &Activity,
    query: &UsageQuery,
    operands: Operands<'_>,
) -> Planned {
    let spans = spans(query)?;
    let value = operands.text(&activity.of);
    let none = lit(ScalarValue::Boolean(None));
    let does = first_of_two(&activity.operation, operands)
        .and_then(|does| when(value.clone().is_null(), none).otherwise(does))
        .map_err(defect)?;
    let mode = if activity.by_days { Mode::ActiveDays } else { Mode::Active };
    let per: Vec<Expr> =
        std::iter::once(value).chain(activity.per.iter().map(|of| operands.text(of))).collect();
    let by = Followed { mode, does, value: lit(0_i64), per };
    let literal = lit(spans_literal(spans));
    let share = |value: Expr, window: Expr| {
        let calendar = calendar_of_group(query);
        functions::per_length().call(vec![value, window, literal.clone(), parts(query), calendar])
    };
    let share: Shown<'_> = if activity.by_days { Some(&share) } else { None };
    let (mut aggregated, keys) = followed(events, meter, by, query, operands, share)?;
    if let Some(value) = aggregated.columns.first_mut() {
        value.zero = true;
    }
    Ok((aggregated, keys))
}

/// A quantity that the sender keeps.
pub(super) fn reported(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    report: &Report,
    query: &UsageQuery,
    operands: Operands<'_>,
) -> Planned {
    let does = first_of_two(&report.operation, operands).map_err(defect)?;
    let per = report.per.iter().map(|of| operands.text(of)).collect();
    let value = operands.number(&report.of);
    let by = Followed { mode: Mode::Reported, does, value, per };
    followed(events, meter, by, query, operands, None)
}

/// What is followed of each series.
struct Followed {
    mode: Mode,
    does: Expr,
    value: Expr,
    per: Vec<Expr>,
}

/// True where an event does the first thing, false for the second, null where it says neither.
pub(super) fn first_of_two(operation: &Operation, operands: Operands<'_>) -> Built<Expr> {
    let said = operands.text(&operation.of);
    let among = |words: &[String]| {
        in_list(said.clone(), words.iter().map(|word| lit(word.as_str())).collect(), false)
    };
    let [first, second] = &operation.words;
    when(said.clone().is_null(), lit(operation.silent == 0))
        .when(among(first), lit(true))
        .when(among(second), lit(false))
        .end()
}

fn followed(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    by: Followed,
    query: &UsageQuery,
    operands: Operands<'_>,
    shown: Shown<'_>,
) -> Planned {
    let spans = spans(query)?;
    let keys = keys_without_window(query, operands);
    let condition = row_condition(meter, query, operands, true)?;
    let scan = scan(events, query, operands, condition.as_ref())?;
    let per = by.per.into_iter().enumerate();
    let per = per.map(|(place, of)| of.alias(format!("series_{place}")));
    let groups = keys.iter().map(|key| key.expr.clone().alias(&key.name)).chain(per);
    let resets = if by.mode == Mode::Active { lit("") } else { parts(query) };
    let follow = functions::follow().call(vec![
        lit(by.mode.as_str()),
        by.does,
        by.value,
        ident(TIMESTAMP),
        ident(INGESTED_AT),
        ident(ORDINAL),
        lit(spans_literal(spans)),
        resets,
        windows::calendar(query.windows.as_ref(), operands.customer()),
    ]);
    let groups =
        scan.aggregate(groups.collect::<Vec<_>>(), vec![follow.alias(PIECES)]).map_err(defect)?;
    taken_apart(groups, keys, query, spans, shown).map_err(defect)
}

/// Events that are about a stretch of time, each cut into the windows that it touches.
pub(super) fn prorated(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    period: &Period,
    query: &UsageQuery,
    operands: Operands<'_>,
) -> Planned {
    let spans = spans(query)?;
    // What holds for a time only, holds where a stretch begins.
    let begins = placed(period, operands).instant;
    let operands = Operands { at: Some(&begins), ..operands };
    let keys = keys_without_window(query, operands);
    let condition = row_condition(meter, query, operands, true)?;
    // A stretch may reach into the range from any instant.
    let scan = range::scan(events, TimeRange::default(), operands.facts.days, condition.as_ref())?;
    let operand = meter.aggregation.operands().into_iter().next();
    let value = operand.map_or_else(|| lit(1_i64), |of| operands.number(of));
    let cut = functions::shares().call(vec![
        value,
        operands.instant(&period.start, 0),
        operands.instant(&period.end, 0),
        ident(TIMESTAMP),
        lit(spans_literal(spans)),
        windows::calendar(query.windows.as_ref(), operands.customer()),
    ]);
    let groups = keys.iter().map(|key| key.expr.clone().alias(&key.name));
    let columns = groups.chain(std::iter::once(cut.alias(PIECES)));
    let rows = scan.project(columns.collect::<Vec<_>>()).map_err(defect)?;
    taken_apart(rows, keys, query, spans, None).map_err(defect)
}

/// What is made of a sum of values in a window.
type Shown<'s> = Option<&'s dyn Fn(Expr, Expr) -> Expr>;

/// The lists taken apart and grouped again, by window too where the question has windows.
fn taken_apart(
    lists: LogicalPlanBuilder,
    mut keys: Vec<GroupKey>,
    query: &UsageQuery,
    spans: &ByCalendar<Spans>,
    shown: Shown<'_>,
) -> Built<(Aggregated, Vec<GroupKey>)> {
    let part = |name: &str| get_field(ident(PIECES), name);
    let names = keys.iter().map(|key| ident(&key.name));
    // Whoever has no calendar has no windows.
    let start = match &query.windows {
        Some(Windows::PerCustomer(_)) => {
            let has_calendar = calendar_of_group(query).is_not_null();
            when(has_calendar, part(pieces::WINDOW)).end()?
        }
        Some(Windows::Shared(_)) | None => part(pieces::WINDOW),
    };
    let parts = [
        start.alias(output::WINDOW_START),
        part(pieces::VALUE).alias(output::value(0)),
        part(pieces::EVENTS).alias(output::events(0)),
        part(pieces::MATCHED).alias(output::matched(0)),
    ];
    let whole = names.clone().chain(std::iter::once(ident(PIECES))).collect::<Vec<_>>();
    let rows = lists
        .project(whole)?
        .unnest_column_with_options(PIECES, UnnestOptions::new().with_preserve_nulls(false))?
        .project(names.chain(parts).collect::<Vec<_>>())?;
    let mut window = instant(spans.otherwise.from);
    if query.windows.is_some() {
        let start = ident(output::WINDOW_START);
        keys.insert(0, GroupKey::new(output::WINDOW_START, start.clone()));
        window = start;
    }
    let names = keys.iter().map(|key| ident(&key.name)).collect::<Vec<_>>();
    let total = |name: String| functions::exact_sum().call(vec![ident(&name)]).alias(name);
    let groups = rows.aggregate(
        names,
        vec![total(output::value(0)), total(output::events(0)), total(output::matched(0))],
    )?;
    let mut value = Column::of(output::value(0), false);
    if let Some(shown) = shown {
        value.shown = shown(value.shown, window);
    }
    let columns =
        vec![value, Column::of(output::events(0), true), Column::of(output::matched(0), true)];
    Ok((Aggregated { groups, columns }, keys))
}

/// Whether a level's series never mix customers, so that one customer's events can be read alone.
pub(super) fn per_customer(levels: &Levels) -> bool {
    levels.per.contains(&Operand::Field(Field::CustomerId))
}
