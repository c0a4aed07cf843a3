//! Meter + query → `LogicalPlan`: a pure function without I/O and without SQL text.
//!
//! Plans consist of stock nodes and of the functions of [`crate::functions`]; names go through
//! `ident`, values through `lit`. The rows come out ordered, with the columns of [`output`].

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::functions_aggregate::min_max::{max, min};
use datafusion::logical_expr::utils::{conjunction, disjunction};
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, SortExpr, TableSource, cast, ident,
    in_list, lit,
};

use crate::error::{Error, Result};
use crate::functions;
use crate::functions::series::by_calendar::ByCalendar;
use crate::functions::series::spans::Spans;
use crate::meter::{Aggregation, Filter, Lookup, Meter, Operand};
use crate::schema::{EVENT_NAME, INGESTED_AT, KIND, KIND_EVENT, ORDINAL, TIMESTAMP};
use crate::time::{TimeRange, WindowStarts};

mod alone;
pub mod catalogue;
pub mod contributions;
mod followed;
pub mod funnel;
mod operand;
mod predicate;
mod range;
mod selection;
mod series;
mod skipped;
pub mod states;
mod windows;

use operand::Operands;
pub use operand::TableFacts;
pub use selection::{RowQuery, row_plan, stored_plan};
pub use windows::Windows;

/// Names of the columns that a usage plan puts out.
pub mod output {
    /// Start of the window.
    pub const WINDOW_START: &str = "window_start";

    /// The text of the group at `place`.
    pub fn group(place: usize) -> String {
        format!("group_{place}")
    }

    /// The value of the meter at `place`.
    pub fn value(place: usize) -> String {
        format!("value_{place}")
    }

    /// How many events made the value of the meter at `place`.
    pub fn events(place: usize) -> String {
        format!("events_{place}")
    }

    /// How many events matched the meter at `place`, skipped ones included.
    pub fn matched(place: usize) -> String {
        format!("matched_{place}")
    }
}

/// What is asked of meters, with everything relative already resolved.
#[derive(Debug, Clone, Default)]
pub struct UsageQuery {
    /// Which instants.
    pub range: TimeRange,
    /// The windows that tile the range, if the answer is windowed.
    pub windows: Option<Windows>,
    /// What to group by; empty for a total.
    pub groups: Vec<Operand>,
    /// Only this customer's events.
    pub customer: Option<String>,
    /// A condition beside the meter's own.
    pub filter: Filter,
    /// Only that many rows of the largest values; for one meter.
    pub top: Option<usize>,
    /// The range with its windows, where the value of a window depends on events outside of it.
    pub spans: Option<ByCalendar<Spans>>,
    /// Windows of the meter's own: those of its inner results, or the days it counts.
    pub parts: Option<ByCalendar<WindowStarts>>,
    /// After which windows a reported quantity begins anew.
    pub resets: Option<Resets>,
}

/// Windows after each of which something begins at nothing.
#[derive(Debug, Clone)]
pub struct Resets {
    /// The windows, by calendar.
    pub windows: ByCalendar<WindowStarts>,
    /// The calendars that they go by, if customers differ.
    pub calendars: Option<Windows>,
}

impl UsageQuery {
    /// How many values a group may have, where each window that something is carried into has one.
    pub fn windows_carried_into(&self) -> usize {
        let Some(spans) = &self.spans else { return 1 };
        let of_calendars = std::iter::once(&spans.otherwise).chain(&spans.of_calendars);
        of_calendars.map(|spans| spans.windows_from(i64::MIN).count()).max().unwrap_or(1)
    }

    /// Whether windows hang on whose event it is.
    pub fn by_customer_calendars(&self) -> bool {
        let per_customer = matches!(self.windows, Some(Windows::PerCustomer(_)));
        per_customer || self.parts.as_ref().is_some_and(|parts| !parts.of_calendars.is_empty())
    }

    /// The range of events that are read to answer it for `meter`.
    pub fn reads(&self, meter: &Meter) -> TimeRange {
        match (&meter.period, meter.aggregation.carries()) {
            (Some(_), _) => TimeRange::default(),
            (None, true) => TimeRange { from: None, to: self.range.to },
            (None, false) => self.range,
        }
    }
}

/// The plan that answers `query` for `meters`, all over the same events, in one scan.
///
/// Columns: the window's start, the groups' texts, then for each meter value, events and matched.
/// Rows are ordered by window, then groups, null first; with `top` by value, largest first.
///
/// # Errors
/// A filter whose literal cannot be compared with its operand.
pub fn usage_plan(
    events: &Arc<dyn TableSource>,
    meters: &[&Meter],
    query: &UsageQuery,
    facts: &TableFacts,
) -> Result<LogicalPlan> {
    let lookups = all_lookups(meters);
    let customer = meters.first().map_or(&[][..], |meter| meter.customer.as_slice());
    let operands = Operands { facts, lookups: &lookups, customer, at: None };
    let defect = |error| Error::internal("plan usage").with_source(error);
    if let [meter] = meters
        && meter.stands_alone()
    {
        let (aggregated, keys) = alone::aggregated(events, meter, query, operands)?;
        let projected = project(aggregated, &keys).map_err(defect)?;
        return order(projected, query, &keys).and_then(LogicalPlanBuilder::build).map_err(defect);
    }
    let own: Vec<Option<Expr>> = meters
        .iter()
        .map(|meter| predicate::predicate(&meter.filter, operands))
        .collect::<Result<_>>()?;
    let shared = shared_condition(meters, query, operands, &own)?;
    let scan = range::scan(events, query.range, facts.days, shared.condition.as_ref())?;
    let keys = group_keys(query, operands, None);
    let filters: Vec<Option<Expr>> = if shared.covers_own { vec![None; own.len()] } else { own };
    let aggregated = match meters {
        [Meter { aggregation: Aggregation::CountUnique(operand), .. }] => {
            count_unique_alone(scan, &keys, operands.text(operand))
        }
        _ => aggregate(scan, &keys, meters, &filters, operands),
    }
    .map_err(defect)?;
    let projected = project(aggregated, &keys).map_err(defect)?;
    order(projected, query, &keys).and_then(LogicalPlanBuilder::build).map_err(defect)
}

/// The plan that finds an event of `meter` whose expression gives a number that does not fit: at most
/// one row, of its idempotency key. `None` where the meter computes nothing.
///
/// # Errors
/// As [`usage_plan`].
pub fn overflow_plan(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    query: &UsageQuery,
    facts: &TableFacts,
) -> Result<Option<LogicalPlan>> {
    let lookups = all_lookups(&[meter]);
    let operands = Operands { facts, lookups: &lookups, customer: &meter.customer, at: None };
    let computed = |operand: &Operand| match operand {
        Operand::Expression(expression) => Some(operands.computed(expression)),
        Operand::Property(_) | Operand::Field(_) | Operand::Lookup(_) => None,
    };
    let beyond = lit(ScalarValue::Decimal256(
        Some(functions::sum::OVERFLOW),
        arrow::datatypes::DECIMAL256_MAX_PRECISION,
        functions::number::WIDE_SCALE,
    ));
    let overflows = meter.aggregation.operands().into_iter().filter_map(computed);
    let overflows =
        overflows.map(|number| cast(number, functions::number::wide_type()).eq(beyond.clone()));
    let Some(overflows) = disjunction(overflows) else { return Ok(None) };
    let condition = row_condition(meter, query, operands, true)?;
    let defect = |error| Error::internal("plan the search of an event").with_source(error);
    let plan = range::scan(events, query.reads(meter), facts.days, condition.as_ref())?
        .filter(overflows)
        .and_then(|found| found.project(vec![ident(crate::schema::IDEMPOTENCY_KEY)]))
        .and_then(|found| found.limit(0, Some(1)))
        .and_then(LogicalPlanBuilder::build)
        .map_err(defect)?;
    Ok(Some(plan))
}

fn all_lookups(meters: &[&Meter]) -> BTreeMap<String, Lookup> {
    let tables = meters.iter().flat_map(|meter| &meter.lookups);
    tables.map(|(name, table)| (name.clone(), table.clone())).collect()
}

/// What every row of the scan must meet, and whether that includes each meter's own filter.
struct Shared {
    condition: Option<Expr>,
    covers_own: bool,
}

fn shared_condition(
    meters: &[&Meter],
    query: &UsageQuery,
    operands: Operands<'_>,
    own: &[Option<Expr>],
) -> Result<Shared> {
    let mut all = about_events(meters.first().copied(), operands);
    if let Some(customer) = &query.customer {
        all.push(operands.customer().eq(lit(customer.as_str())));
    }
    all.extend(predicate::predicate(&query.filter, operands)?);
    let covers_own = own.windows(2).all(|pair| pair[0] == pair[1]);
    if covers_own {
        all.extend(own.first().cloned().flatten());
    } else if own.iter().all(Option::is_some) {
        all.extend(disjunction(own.iter().flatten().cloned()));
    }
    Ok(Shared { condition: conjunction(all), covers_own })
}

/// That a row is an event that `meter` is about.
fn about_events(meter: Option<&Meter>, operands: Operands<'_>) -> Vec<Expr> {
    let mut all = Vec::new();
    if operands.facts.corrections {
        all.push(ident(KIND).eq(lit(KIND_EVENT)));
    }
    match meter.map(|meter| meter.events.as_slice()) {
        None | Some([]) => {}
        Some([name]) => all.push(ident(EVENT_NAME).eq(lit(name.as_str()))),
        Some(names) => {
            let names = names.iter().map(|name| lit(name.as_str())).collect();
            all.push(in_list(ident(EVENT_NAME), names, false));
        }
    }
    all
}

/// What a row must meet to count in `meter`, and, where `asked`, in the query. One customer's
/// events are read alone in any case where no other's can matter.
fn row_condition(
    meter: &Meter,
    query: &UsageQuery,
    operands: Operands<'_>,
    asked: bool,
) -> Result<Option<Expr>> {
    let mut all = about_events(Some(meter), operands);
    all.extend(predicate::predicate(&meter.filter, operands)?);
    let alone = || followed::per_customer(meter);
    if let Some(customer) = query.customer.as_ref().filter(|_| asked || alone()) {
        all.push(operands.customer().eq(lit(customer.as_str())));
    }
    if asked {
        all.extend(predicate::predicate(&query.filter, operands)?);
    }
    Ok(conjunction(all))
}

/// A column to group by: what is hashed, and what is made of it once there are only groups.
struct GroupKey {
    name: String,
    expr: Expr,
    shown: Expr,
}

impl GroupKey {
    fn new(name: &str, expr: Expr) -> Self {
        Self { expr, shown: ident(name), name: name.to_owned() }
    }
}

/// `at` is the instant of an event, where that is not its timestamp.
fn group_keys(query: &UsageQuery, operands: Operands<'_>, at: Option<&Expr>) -> Vec<GroupKey> {
    let window = query.windows.as_ref().map(|windows| windows::key(windows, operands, at));
    let groups = query.groups.iter().enumerate().map(|(place, operand)| {
        let name = output::group(place);
        match operands.only_integers(operand) {
            Some(integers) => {
                let key = GroupKey::new(&name, integers);
                GroupKey { shown: cast(key.shown, DataType::Utf8), ..key }
            }
            None => GroupKey::new(&name, operands.text(operand)),
        }
    });
    window.into_iter().chain(groups).collect()
}

/// Groups with their aggregates, and which of those each meter's columns are.
struct Aggregated {
    groups: LogicalPlanBuilder,
    columns: Vec<Column>,
}

/// A column of the answer, and what it is made of.
struct Column {
    name: String,
    shown: Expr,
    /// Whether it counts events, so that it is an integer and nothing is 0.
    counts: bool,
    /// Whether nothing is 0, of whatever type it is.
    zero: bool,
}

impl Column {
    /// The aggregate of this name.
    fn of(name: String, counts: bool) -> Self {
        Self { shown: ident(&name), name, counts, zero: false }
    }
}

type Built<T> = datafusion::error::Result<T>;

fn aggregate(
    scan: LogicalPlanBuilder,
    keys: &[GroupKey],
    meters: &[&Meter],
    filters: &[Option<Expr>],
    operands: Operands<'_>,
) -> Built<Aggregated> {
    let mut aggregates: Vec<(String, Expr)> = Vec::new();
    let mut columns = Vec::new();
    // What several meters ask for is computed once.
    let mut compute = |expr: Expr, name: String, counts: bool| {
        let known = aggregates.iter().find(|(_, known)| *known == expr);
        let aggregate = known.map_or_else(|| name.clone(), |(aggregate, _)| aggregate.clone());
        if known.is_none() {
            aggregates.push((name.clone(), expr));
        }
        columns.push(Column { shown: ident(aggregate), name, counts, zero: false });
    };
    for (place, (meter, filter)) in meters.iter().zip(filters).enumerate() {
        let filtered = |expr: Expr| match filter {
            Some(filter) => expr.filter(filter.clone()).build(),
            None => Ok(expr),
        };
        let value = value_of(&meter.aggregation, operands);
        let present = match &meter.aggregation {
            Aggregation::Count => lit(1_i64),
            aggregation => counted_operand(aggregation, operands),
        };
        compute(filtered(value)?, output::value(place), false);
        compute(filtered(count(present))?, output::events(place), true);
        compute(filtered(count(lit(1_i64)))?, output::matched(place), true);
    }
    let keys: Vec<Expr> = keys.iter().map(|key| key.expr.clone().alias(&key.name)).collect();
    let aggregates: Vec<Expr> =
        aggregates.into_iter().map(|(name, expr)| expr.alias(name)).collect();
    Ok(Aggregated { groups: scan.aggregate(keys, aggregates)?, columns })
}

fn value_of(aggregation: &Aggregation, operands: Operands<'_>) -> Expr {
    let number = |operand: &Operand| operands.number(operand);
    let at = |operand: &Operand| {
        vec![number(operand), ident(TIMESTAMP), ident(INGESTED_AT), ident(ORDINAL)]
    };
    match aggregation {
        Aggregation::Count => count(lit(1_i64)),
        Aggregation::CountUnique(operand) => {
            functions::count_unique().call(vec![operands.text(operand)])
        }
        Aggregation::Sum(operand) => functions::exact_sum().call(vec![number(operand)]),
        Aggregation::Min(operand) => min(number(operand)),
        Aggregation::Max(operand) => max(number(operand)),
        Aggregation::Average(operand) => functions::exact_avg().call(vec![number(operand)]),
        Aggregation::Latest(operand) => functions::latest().call(at(operand)),
        Aggregation::Earliest(operand) => functions::earliest().call(at(operand)),
        Aggregation::Percentile(operand, percent) => functions::percentile()
            .call(vec![number(operand), lit(i64::from(percent.millionths()))]),
        // Planned on their own.
        Aggregation::TimeWeighted(_)
        | Aggregation::Active(_)
        | Aggregation::Reported(_)
        | Aggregation::Nested(_) => lit(ScalarValue::Int64(None)),
    }
}

/// What is null for an event that the aggregation skips.
fn counted_operand(aggregation: &Aggregation, operands: Operands<'_>) -> Expr {
    match aggregation {
        Aggregation::Count => lit(1_i64),
        Aggregation::CountUnique(operand) => operands.text(operand),
        Aggregation::Sum(operand)
        | Aggregation::Min(operand)
        | Aggregation::Max(operand)
        | Aggregation::Average(operand)
        | Aggregation::Latest(operand)
        | Aggregation::Earliest(operand)
        | Aggregation::Percentile(operand, _) => operands.number(operand),
        // Planned on their own.
        Aggregation::TimeWeighted(_)
        | Aggregation::Active(_)
        | Aggregation::Reported(_)
        | Aggregation::Nested(_) => lit(ScalarValue::Int64(None)),
    }
}

/// Distinct values by grouping twice: first by value too, then counting the groups. Both halves
/// run on every core and spill, which one set per group would not.
fn count_unique_alone(
    scan: LogicalPlanBuilder,
    keys: &[GroupKey],
    text: Expr,
) -> Built<Aggregated> {
    const DISTINCT: &str = "distinct_value";
    const ROWS: &str = "rows";
    let mut inner: Vec<Expr> = keys.iter().map(|key| key.expr.clone().alias(&key.name)).collect();
    inner.push(text.alias(DISTINCT));
    let outer: Vec<Expr> = keys.iter().map(|key| ident(&key.name)).collect();
    let integer = |sum: Expr| functions::exact_sum().call(vec![sum]);
    let with_value = integer(ident(ROWS)).filter(ident(DISTINCT).is_not_null()).build()?;
    let groups = scan.aggregate(inner, vec![count(lit(1_i64)).alias(ROWS)])?.aggregate(
        outer,
        vec![
            count(ident(DISTINCT)).alias(output::value(0)),
            with_value.alias(output::events(0)),
            integer(ident(ROWS)).alias(output::matched(0)),
        ],
    )?;
    let columns =
        [(output::value(0), false), (output::events(0), true), (output::matched(0), true)];
    let columns = columns.map(|(name, counts)| Column::of(name, counts));
    Ok(Aggregated { groups, columns: columns.into() })
}

fn project(aggregated: Aggregated, keys: &[GroupKey]) -> Built<LogicalPlanBuilder> {
    let named = |expr: Expr, name: &str| if expr == ident(name) { expr } else { expr.alias(name) };
    let keys = keys.iter().map(|key| named(key.shown.clone(), &key.name));
    let columns = aggregated.columns.into_iter().map(|column| {
        let value = column.shown;
        let or_zero = |value| {
            let counted = vec![value, lit(0_i64)];
            datafusion::functions::core::expr_fn::coalesce(counted).alias(&column.name)
        };
        match (column.counts, column.zero) {
            (true, _) => or_zero(cast(value, DataType::Int64)),
            (false, true) => or_zero(value),
            (false, false) => named(value, &column.name),
        }
    });
    aggregated.groups.project(keys.chain(columns).collect::<Vec<_>>())
}

fn order(
    projected: LogicalPlanBuilder,
    query: &UsageQuery,
    keys: &[GroupKey],
) -> Built<LogicalPlanBuilder> {
    let by_key = keys.iter().map(|key| ident(&key.name).sort(true, true));
    let by_value = query.top.map(|_| ident(output::value(0)).sort(false, false));
    let sorts: Vec<SortExpr> = by_value.into_iter().chain(by_key).collect();
    if sorts.is_empty() {
        return Ok(projected);
    }
    projected.sort_with_limit(sorts, query.top)
}
