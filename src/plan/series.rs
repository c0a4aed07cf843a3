//! The plans of what is followed over time: levels, values that come and go, reported quantities,
//! and events that are about a stretch of time.
//!
//! What an event says holds from its instant until another event ends it, whether that one is asked
//! for or not: so each event becomes a stretch of time ([`followed`]) before groups and the
//! conditions of the question have their say. The stretches of a group, from the beginning of history
//! to the end of the range, become one list of pieces, a value for each window; the list is unnested
//! and its pieces grouped again. The windows and bounds stand in the plan as literals.

use std::sync::Arc;

use datafusion::common::{ScalarValue, UnnestOptions};
use datafusion::functions::core::expr_fn::{coalesce, get_field};
use datafusion::functions_aggregate::min_max::min_udaf;
use datafusion::functions_window::expr_fn::lead;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlanBuilder, TableSource, WindowFrame, WindowFrameBound,
    WindowFrameUnits, WindowFunctionDefinition, ident, in_list, lit, when,
};

use super::Windows;
use super::alone::placed;
use super::operand::{Operands, instant};
use super::{
    Aggregated, Built, Column, GroupKey, Resets, UsageQuery, group_keys, output, predicate, range,
    row_condition, windows,
};
use crate::error::{Error, Result};
use crate::functions;
use crate::functions::series::area::Told as At;
use crate::functions::series::by_calendar::ByCalendar;
use crate::functions::series::pieces::{self, Of};
use crate::functions::series::spans::{Spans, parts_literal, spans_literal};
use crate::meter::{Activity, Aggregation, Field, Levels, Meter, Operand, Operation, Period, Told};
use crate::schema::{INGESTED_AT, ORDINAL, TIMESTAMP};
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

/// The mean of a level over time.
pub(super) fn time_weighted(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    query: &UsageQuery,
    operands: Operands<'_>,
) -> Planned {
    let literal = lit(spans_literal(spans(query)?));
    let mean = |value: Expr, window: Expr| {
        let calendar = calendar_of_group(query);
        functions::per_length().call(vec![value, window, literal.clone(), lit(""), calendar])
    };
    let keys = keys_without_window(query, operands);
    let rows = followed(events, meter, &keys, query, operands)?;
    let gathered = gathered(rows, &keys, Of::Levels(At::Area), lit(""), query)?;
    taken_apart(gathered, keys, query, spans(query)?, Some(&mean)).map_err(defect)
}

/// A quantity that the sender keeps.
pub(super) fn reported(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    query: &UsageQuery,
    operands: Operands<'_>,
) -> Planned {
    let keys = keys_without_window(query, operands);
    let rows = followed(events, meter, &keys, query, operands)?;
    let gathered = gathered(rows, &keys, Of::Levels(At::Last), lit(""), query)?;
    taken_apart(gathered, keys, query, spans(query)?, None).map_err(defect)
}

/// Values that come and go: each counts once in a group, whoever else adds it there.
pub(super) fn active(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    activity: &Activity,
    query: &UsageQuery,
    operands: Operands<'_>,
) -> Planned {
    let literal = lit(spans_literal(spans(query)?));
    let days = if activity.by_days { parts(query) } else { lit("") };
    let share = |value: Expr, window: Expr| {
        let calendar = calendar_of_group(query);
        functions::per_length().call(vec![value, window, literal.clone(), days.clone(), calendar])
    };
    let keys = keys_without_window(query, operands);
    let told_apart = std::iter::once(&activity.of).chain(&activity.per).enumerate();
    let mut with_values = keys_without_window(query, operands);
    with_values.extend(told_apart.map(|(place, of)| {
        let name = format!("active_{place}");
        GroupKey::new(&name, operands.text(of))
    }));
    let rows = followed(events, meter, &with_values, query, operands)?;
    let gathered = gathered(rows, &with_values, Of::Presence, days.clone(), query)?;
    let share: Shown<'_> = if activity.by_days { Some(&share) } else { None };
    let (mut aggregated, keys) =
        taken_apart(gathered, keys, query, spans(query)?, share).map_err(defect)?;
    if let Some(value) = aggregated.columns.first_mut() {
        value.zero = true;
    }
    Ok((aggregated, keys))
}

/// The stretches of each group made a list of pieces by an aggregate over time.
fn gathered(
    rows: LogicalPlanBuilder,
    keys: &[GroupKey],
    of: Of,
    days: Expr,
    query: &UsageQuery,
) -> Result<LogicalPlanBuilder> {
    const STATE: &str = "state";
    let aggregate = match of {
        Of::Levels(At::Area) => functions::area(),
        Of::Levels(At::Last) => functions::level(),
        Of::Presence => functions::presence(),
    };
    let literal = lit(spans_literal(spans(query)?));
    let calendar = calendar_of_group(query);
    let stretch = [ident(SAID), ident(TIMESTAMP), ident(UNTIL)];
    let state = aggregate.call(stretch.into_iter().chain([literal.clone(), calendar]).collect());
    let lists = functions::pieces(of).call(vec![ident(STATE), literal, days]).alias(PIECES);
    let shown = names(keys).into_iter().chain([lists]).collect::<Vec<_>>();
    rows.aggregate(names(keys), vec![state.alias(STATE)])
        .and_then(|groups| groups.project(shown))
        .map_err(defect)
}

fn names(keys: &[GroupKey]) -> Vec<Expr> {
    keys.iter().map(|key| ident(&key.name)).collect()
}

/// What an event says, null where it is skipped: a level, by how much one changes, or whether
/// something comes (or goes). With its `timestamp` and [`UNTIL`] it is a stretch.
pub(super) const SAID: &str = "said";
/// Until when that holds; null is for good.
pub(super) const UNTIL: &str = "until";

/// What ends what an event says.
enum Ends {
    Never,
    /// The next event of the series.
    Next,
    /// The next event of the series for which this holds.
    NextThat(Expr),
}

/// What is followed of each event.
struct Follow<'a> {
    said: Expr,
    /// What tells series apart.
    series: Vec<&'a Operand>,
    ends: Ends,
}

/// What is followed of the events of `meter`; nothing of one that follows nothing.
fn follow<'a>(meter: &'a Meter, operands: Operands<'_>) -> Built<Option<Follow<'a>>> {
    Ok(Some(match &meter.aggregation {
        Aggregation::TimeWeighted(Levels { of, told: Told::Change, .. }) => {
            Follow { said: operands.number(of), series: Vec::new(), ends: Ends::Never }
        }
        Aggregation::TimeWeighted(Levels { of, told: Told::Level, per }) => {
            Follow { said: operands.number(of), series: per.iter().collect(), ends: Ends::Next }
        }
        Aggregation::Active(activity) => {
            let value = operands.text(&activity.of);
            let adds = first_of_two(&activity.operation, operands)?;
            let none = lit(ScalarValue::Boolean(None));
            Follow {
                said: when(value.is_null(), none).otherwise(adds)?,
                series: std::iter::once(&activity.of).chain(&activity.per).collect(),
                ends: Ends::Next,
            }
        }
        // A change is a part of the quantity until the quantity is set anew.
        Aggregation::Reported(report) => {
            let sets = first_of_two(&report.operation, operands)?;
            Follow {
                said: when(sets.clone().is_not_null(), operands.number(&report.of)).end()?,
                series: report.per.iter().collect(),
                ends: Ends::NextThat(sets),
            }
        }
        Aggregation::Count
        | Aggregation::CountUnique(_)
        | Aggregation::Sum(_)
        | Aggregation::Min(_)
        | Aggregation::Max(_)
        | Aggregation::Average(_)
        | Aggregation::Latest(_)
        | Aggregation::Earliest(_)
        | Aggregation::Percentile(..)
        | Aggregation::Nested(_) => return Ok(None),
    }))
}

/// The events that are asked for, from the beginning of history to the end of the range, as
/// stretches: `keys`, [`SAID`], `timestamp`, [`UNTIL`].
///
/// Whether an event is asked for matters for what it says alone, not for what it ends.
pub(super) fn followed(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    keys: &[GroupKey],
    query: &UsageQuery,
    operands: Operands<'_>,
) -> Result<LogicalPlanBuilder> {
    let nothing = || Error::internal("a meter that follows nothing");
    let follow = follow(meter, operands).map_err(defect)?.ok_or_else(nothing)?;
    let ended = !matches!(follow.ends, Ends::Never);
    let condition = row_condition(meter, query, operands, !ended)?;
    let until = TimeRange { from: None, to: query.range.to };
    let scan = range::scan(events, until, operands.facts.days, condition.as_ref())?;
    let asked = match ended {
        true => {
            let customer = query.customer.as_ref().map(|name| operands.customer().eq(lit(name)));
            let asked = predicate::predicate(&query.filter, operands)?;
            conjunction(asked.into_iter().chain(customer))
        }
        false => None,
    };
    stretches(scan, keys, follow, asked, reset_end(query, operands), operands).map_err(defect)
}

/// Where a quantity that is reported at an event begins at nothing again, if it does.
fn reset_end(query: &UsageQuery, operands: Operands<'_>) -> Option<Expr> {
    let Resets { windows, calendars } = query.resets.as_ref()?;
    let calendar = windows::calendar(calendars.as_ref(), operands.customer());
    let arguments = vec![ident(TIMESTAMP), lit(parts_literal(Some(windows))), calendar];
    Some(functions::window_end().call(arguments))
}

fn stretches(
    scan: LogicalPlanBuilder,
    keys: &[GroupKey],
    follow: Follow<'_>,
    asked: Option<Expr>,
    reset: Option<Expr>,
    operands: Operands<'_>,
) -> Built<LogicalPlanBuilder> {
    const ASKED: &str = "asked";
    const SKIPPED: &str = "skipped";
    const RESET: &str = "reset";
    const ENDS: &str = "ends";
    let never = || lit(ScalarValue::TimestampMicrosecond(None, Some(Arc::from("UTC"))));
    let Follow { said, series, ends } = follow;
    let groups = keys.iter().map(|key| key.expr.clone().alias(&key.name));
    let kept = || names(keys).into_iter().chain([ident(SAID), ident(TIMESTAMP)]);
    if matches!(ends, Ends::Never) {
        let columns = [said.alias(SAID), ident(TIMESTAMP), never().alias(UNTIL)];
        return scan.project(groups.chain(columns).collect::<Vec<_>>());
    }
    let name = |place: usize| format!("series_{place}");
    // Who sends what ends it, whoever it is attributed to meanwhile.
    let sent = operands.as_sent();
    let told_apart = series.iter().enumerate();
    let told_apart = told_apart.map(|(place, of)| sent.text(of).alias(name(place)));
    let ends_others = match &ends {
        Ends::NextThat(sets) => {
            when(sets.clone().and(said.clone().is_not_null()), ident(TIMESTAMP)).end()?
        }
        Ends::Next | Ends::Never => ident(TIMESTAMP),
    };
    let columns = [
        // An event that says nothing is none of the series.
        said.clone().is_null().alias(SKIPPED),
        said.alias(SAID),
        ends_others.alias(ENDS),
        asked.unwrap_or_else(|| lit(true)).alias(ASKED),
        reset.unwrap_or_else(never).alias(RESET),
        ident(TIMESTAMP),
        ident(INGESTED_AT),
        ident(ORDINAL),
    ];
    let rows = scan.project(groups.chain(told_apart).chain(columns).collect::<Vec<_>>())?;
    let mut partition: Vec<Expr> = (0..series.len()).map(|place| ident(name(place))).collect();
    partition.push(ident(SKIPPED));
    let order = |ascending| {
        [TIMESTAMP, INGESTED_AT, ORDINAL]
            .map(|name| ident(name).sort(ascending, !ascending))
            .to_vec()
    };
    let next = match ends {
        Ends::Next | Ends::Never => lead(ident(ENDS), Some(1), None)
            .partition_by(partition)
            .order_by(order(true))
            .build()?,
        // The smallest of those behind it. From the last event on, only one is kept at a time.
        Ends::NextThat(_) => {
            let smallest = WindowFunctionDefinition::AggregateUDF(min_udaf());
            let behind = WindowFrame::new_bounds(
                WindowFrameUnits::Rows,
                WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
                WindowFrameBound::Preceding(ScalarValue::UInt64(Some(1))),
            );
            Expr::from(WindowFunction::new(smallest, vec![ident(ENDS)]))
                .partition_by(partition)
                .order_by(order(false))
                .window_frame(behind)
                .build()?
        }
    };
    let rows = rows.window(vec![next])?;
    // The engine names the column after the whole expression; it is the last one.
    let next = rows.schema().fields().last().map(|field| field.name().clone());
    let next = ident(next.unwrap_or_default());
    let until = when(ident(RESET).lt(next.clone()).is_true(), ident(RESET))
        .otherwise(coalesce(vec![next, ident(RESET)]))?;
    rows.filter(ident(ASKED))?.project(kept().chain([until.alias(UNTIL)]).collect::<Vec<_>>())
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

/// Whether the events of one customer end nothing of another's, and are ended by none: so that they
/// can be read alone.
pub(super) fn per_customer(meter: &Meter) -> bool {
    let customer = Operand::Field(Field::CustomerId);
    // Whom an event is attributed to may change within a series.
    meter.customer.is_empty()
        && match &meter.aggregation {
            Aggregation::TimeWeighted(levels) => levels.per.contains(&customer),
            Aggregation::Active(activity) => {
                activity.of == customer || activity.per.contains(&customer)
            }
            Aggregation::Reported(report) => report.per.contains(&customer),
            _ => true,
        }
}
