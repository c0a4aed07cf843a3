//! The plans of what is followed over time: levels, values that come and go, reported quantities,
//! and events that are about a stretch of time.
//!
//! The stretches of a group's events, from the beginning of history to the end of the range, become
//! one list of pieces, a value for each window; the list is unnested and its pieces grouped again. The
//! windows and bounds stand in the plan as literals.

use std::sync::Arc;

use datafusion::common::{ScalarValue, UnnestOptions};
use datafusion::functions::core::expr_fn::get_field;
use datafusion::logical_expr::{
    AggregateUDF, Expr, LogicalPlanBuilder, TableSource, ident, lit, when,
};

use super::Windows;
use super::alone::placed;
use super::followed::{SAID, UNTIL, followed, names};
use super::operand::{Operands, instant};
use super::{
    Aggregated, Built, Column, GroupKey, UsageQuery, group_keys, output, range, row_condition,
    windows,
};
use crate::error::{Error, Result};
use crate::functions;
use crate::functions::series::area::Told as At;
use crate::functions::series::by_calendar::ByCalendar;
use crate::functions::series::pieces::{self, Of};
use crate::functions::series::spans::{Spans, parts_literal, shared_text, spans_literal};
use crate::meter::{Activity, Field, Meter, Operand, Period};
use crate::schema::TIMESTAMP;
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
    let lists = levels(rows, &keys, At::Area, query)?;
    taken_apart(lists, keys, query, spans(query)?, Some(&mean)).map_err(defect)
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
    let lists = levels(rows, &keys, At::Last, query)?;
    taken_apart(lists, keys, query, spans(query)?, None).map_err(defect)
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
    let parts_text = match activity.by_days {
        true => parts_literal(query.parts.as_ref()),
        false => String::new(),
    };
    let days = lit(parts_text.clone());
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
    let there = gathered(rows, &with_values, &functions::presence(), query)?;
    let texts = [spans_literal(spans(query)?), parts_text].map(|text| lit(shared_text(text)));
    let state = functions::present().call([ident(STATE)].into_iter().chain(texts).collect());
    let groups = there.aggregate(names(&keys), vec![state.alias(STATE)]).map_err(defect)?;
    let lists = listed(groups, &keys, Of::Present, days.clone(), query)?;
    let share: Shown<'_> = if activity.by_days { Some(&share) } else { None };
    let (mut aggregated, keys) =
        taken_apart(lists, keys, query, spans(query)?, share).map_err(defect)?;
    if let Some(value) = aggregated.columns.first_mut() {
        value.zero = true;
    }
    Ok((aggregated, keys))
}

/// Name of what an aggregate over time gathered of a group.
const STATE: &str = "state";

/// The stretches of each group gathered by an aggregate over time.
fn gathered(
    rows: LogicalPlanBuilder,
    keys: &[GroupKey],
    aggregate: &AggregateUDF,
    query: &UsageQuery,
) -> Result<LogicalPlanBuilder> {
    let stretch = [ident(SAID), ident(TIMESTAMP), ident(UNTIL)].into_iter();
    let spans = lit(shared_text(spans_literal(spans(query)?)));
    let state = aggregate.call(stretch.chain([spans, calendar_of_group(query)]).collect());
    rows.aggregate(names(keys), vec![state.alias(STATE)]).map_err(defect)
}

/// What was gathered of each group as a list of pieces.
fn listed(
    groups: LogicalPlanBuilder,
    keys: &[GroupKey],
    of: Of,
    days: Expr,
    query: &UsageQuery,
) -> Result<LogicalPlanBuilder> {
    let spans = lit(spans_literal(spans(query)?));
    let lists = functions::pieces(of).call(vec![ident(STATE), spans, days]).alias(PIECES);
    let shown = names(keys).into_iter().chain([lists]).collect::<Vec<_>>();
    groups.project(shown).map_err(defect)
}

/// The stretches of each group as a list of what is told of their level.
fn levels(
    rows: LogicalPlanBuilder,
    keys: &[GroupKey],
    told: At,
    query: &UsageQuery,
) -> Result<LogicalPlanBuilder> {
    let aggregate = match told {
        At::Area => functions::area(),
        At::Last => functions::level(),
    };
    listed(gathered(rows, keys, &aggregate, query)?, keys, Of::Levels(told), lit(""), query)
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
