//! Plans that tell which properties and names events have.
//!
//! One scan counts the values of every property with columns, of those kinds that the statistics do
//! not rule out; one more reads the map of other properties, where there are any. The number of
//! distinct values is an estimate (HyperLogLog), good enough as nobody is billed by it.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::functions::core::expr_fn::get_field;
use datafusion::functions::string::expr_fn::{contains, starts_with};
use datafusion::functions_aggregate::expr_fn::{approx_distinct, count};
use datafusion::functions_aggregate::min_max::{max, min};
use datafusion::functions_nested::expr_fn::map_entries;
use datafusion::logical_expr::utils::{conjunction, disjunction};
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, TableSource, ident, lit,
};

use super::operand::{Operands, TableFacts};
use super::range;
use crate::error::{Error, Result};
use crate::functions::to_number;
use crate::meter::Operand;
use crate::schema::{EVENT_NAME, KIND, KIND_EVENT, PROPERTIES, TIMESTAMP, ValueKind};
use crate::time::TimeRange;

/// Names of the columns of these plans.
pub mod output {
    use crate::schema::ValueKind;

    /// Name of the event, where rows are by it.
    pub const EVENT_NAME: &str = "event_name";
    /// Name of the property, of [`super::other_properties_plan`].
    pub const NAME: &str = "name";
    /// How many events.
    pub const EVENTS: &str = "events";
    /// Distinct values, an estimate.
    pub const DISTINCT: &str = "distinct";
    /// First instant.
    pub const FIRST: &str = "first";
    /// Last instant.
    pub const LAST: &str = "last";
    /// Values of the map that are numbers.
    pub const NUMBERS: &str = "numbers";
    /// Those of them with digits after the point.
    pub const FRACTIONS: &str = "fractions";
    /// Values of the map that are `true` or `false`.
    pub const BOOLEANS: &str = "booleans";
    /// Values of the map that are arrays.
    pub const ARRAYS: &str = "arrays";

    /// How many events have a value of `kind` in the property at `place`.
    pub fn values(place: usize, kind: ValueKind) -> String {
        format!("{}{place}", kind.prefix())
    }

    /// One of the columns above, of the property at `place`.
    pub fn of(column: &str, place: usize) -> String {
        format!("{column}_{place}")
    }
}

/// Which events are looked at, and how rows are made of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CatalogueQuery {
    /// Which instants.
    pub range: TimeRange,
    /// Only events of this name.
    pub event: Option<String>,
    /// A row for each name of events.
    pub by_event_name: bool,
}

/// The plan of the properties with columns, in the order of `facts`: a row, or one by event name.
///
/// # Errors
/// A defect of ours: a plan that does not build.
pub fn properties_plan(
    events: &Arc<dyn TableSource>,
    query: &CatalogueQuery,
    facts: &TableFacts,
) -> Result<LogicalPlan> {
    let no_lookups = std::collections::BTreeMap::new();
    // The map is another plan's: one expression per name would read it once for each.
    let columns_only = TableFacts { others: false, ..facts.clone() };
    let operands = Operands { facts: &columns_only, lookups: &no_lookups, customer: &[], at: None };
    let mut aggregates = vec![count(lit(1_i64)).alias(output::EVENTS)];
    let defect = |error| Error::internal("plan the properties").with_source(error);
    for (place, (name, kinds)) in facts.properties.iter().enumerate() {
        if kinds.is_empty() {
            continue;
        }
        let of_kind = |kind: ValueKind| {
            let values = count(ident(kind.column(name)));
            kinds.contains(&kind).then(|| values.alias(output::values(place, kind)))
        };
        aggregates.extend(ValueKind::ALL.into_iter().filter_map(of_kind));
        let operand = Operand::Property(name.clone());
        let value = operands.only_integers(&operand).unwrap_or_else(|| operands.text(&operand));
        aggregates.push(approx_distinct(value).alias(output::of(output::DISTINCT, place)));
        let present = disjunction(operands.present(&operand)).unwrap_or_else(|| lit(false));
        for (bound, column) in
            [(min(ident(TIMESTAMP)), output::FIRST), (max(ident(TIMESTAMP)), output::LAST)]
        {
            let bound = bound.filter(present.clone()).build().map_err(defect)?;
            aggregates.push(bound.alias(output::of(column, place)));
        }
    }
    let scan = scan(events, query, facts, None)?;
    let keys: Vec<Expr> = query.by_event_name.then(|| ident(EVENT_NAME)).into_iter().collect();
    let sorts: Vec<_> = keys.iter().map(|key| key.clone().sort(true, true)).collect();
    let counted = scan.aggregate(keys, aggregates).map_err(defect)?;
    let ordered = if sorts.is_empty() { Ok(counted) } else { counted.sort(sorts) };
    ordered.and_then(LogicalPlanBuilder::build).map_err(defect)
}

/// The plan of the properties without columns, a row for each, or for each by event name.
///
/// # Errors
/// A defect of ours: a plan that does not build.
pub fn other_properties_plan(
    events: &Arc<dyn TableSource>,
    query: &CatalogueQuery,
    facts: &TableFacts,
) -> Result<LogicalPlan> {
    const ENTRY: &str = "entry";
    const VALUE: &str = "value";
    let number = || to_number().call(vec![ident(VALUE)]).is_not_null();
    let fraction = || disjunction([".", "e", "E"].map(|part| contains(ident(VALUE), lit(part))));
    let fraction = fraction().unwrap_or_else(|| lit(false));
    let boolean = ident(VALUE).eq(lit("true")).or(ident(VALUE).eq(lit("false")));
    let rows_with = |condition: Expr| count(lit(1_i64)).filter(condition).build();
    let built = || -> datafusion::error::Result<LogicalPlan> {
        let aggregates = vec![
            count(lit(1_i64)).alias(output::EVENTS),
            approx_distinct(ident(VALUE)).alias(output::DISTINCT),
            min(ident(TIMESTAMP)).alias(output::FIRST),
            max(ident(TIMESTAMP)).alias(output::LAST),
            rows_with(number())?.alias(output::NUMBERS),
            rows_with(number().and(fraction))?.alias(output::FRACTIONS),
            rows_with(boolean)?.alias(output::BOOLEANS),
            rows_with(starts_with(ident(VALUE), lit("[")))?.alias(output::ARRAYS),
        ];
        let mut keys = vec![ident(output::NAME)];
        keys.extend(query.by_event_name.then(|| ident(EVENT_NAME)));
        let sorts: Vec<_> = keys.iter().map(|key| key.clone().sort(true, true)).collect();
        let scan = scan(events, query, facts, Some(ident(PROPERTIES).is_not_null()))
            .map_err(|error| datafusion::error::DataFusionError::External(Box::new(error)))?;
        scan.project([
            ident(EVENT_NAME),
            ident(TIMESTAMP),
            map_entries(ident(PROPERTIES)).alias(ENTRY),
        ])?
        .unnest_column(Column::from_name(ENTRY))?
        .project([
            ident(EVENT_NAME),
            ident(TIMESTAMP),
            get_field(ident(ENTRY), "key").alias(output::NAME),
            get_field(ident(ENTRY), VALUE).alias(VALUE),
        ])?
        .filter(ident(VALUE).is_not_null())?
        .aggregate(keys, aggregates)?
        .sort(sorts)?
        .build()
    };
    built().map_err(|error| Error::internal("plan the other properties").with_source(error))
}

/// The plan of the names of events, a row for each.
///
/// # Errors
/// A defect of ours: a plan that does not build.
pub fn event_names_plan(
    events: &Arc<dyn TableSource>,
    query: &CatalogueQuery,
    facts: &TableFacts,
) -> Result<LogicalPlan> {
    let aggregates = vec![
        count(lit(1_i64)).alias(output::EVENTS),
        min(ident(TIMESTAMP)).alias(output::FIRST),
        max(ident(TIMESTAMP)).alias(output::LAST),
    ];
    scan(events, query, facts, None)?
        .aggregate([ident(EVENT_NAME)], aggregates)
        .and_then(|counted| counted.sort([ident(EVENT_NAME).sort(true, true)]))
        .and_then(LogicalPlanBuilder::build)
        .map_err(|error| Error::internal("plan the names of events").with_source(error))
}

fn scan(
    events: &Arc<dyn TableSource>,
    query: &CatalogueQuery,
    facts: &TableFacts,
    further: Option<Expr>,
) -> Result<LogicalPlanBuilder> {
    let mut all: Vec<Expr> = further.into_iter().collect();
    if facts.corrections {
        all.push(ident(KIND).eq(lit(KIND_EVENT)));
    }
    all.extend(query.event.as_ref().map(|name| ident(EVENT_NAME).eq(lit(name.as_str()))));
    range::scan(events, query.range, facts.days, conjunction(all).as_ref())
}
