//! The table `events` of SQL: the envelope, then a column per property under its own name.
//!
//! A projection over the provider, so that conditions and columns reach the scan. The type of a
//! property's column follows from the kinds of values that the version holds: integers are BIGINT,
//! integers and decimals decimal(38,18), booleans BOOLEAN; everything else is text.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::cast as cast_array;
use arrow::datatypes::DataType;
use datafusion::catalog::view::ViewTable;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Column, Result as EngineResult};
use datafusion::datasource::provider_as_source;
use datafusion::functions::core::expr_fn::{coalesce, get_field};
use datafusion::functions_nested::expr_fn::map_keys;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    BinaryExpr, Expr, LogicalPlan, LogicalPlanBuilder, Operator, TableSource, cast, ident, lit,
};
use datafusion::scalar::ScalarValue;
use futures::StreamExt;

use super::EVENTS;
use super::property::{Call, Reading};
use super::statement::Mentioned;
use crate::engine::{Reach, engine_error};
use crate::error::{Error, Result};
use crate::functions::number::wide_type;
use crate::functions::{canonical_text, to_number};
use crate::plan::TableFacts;
use crate::schema::{
    CUSTOMER_ID, EVENT_DATE, EVENT_NAME, IDEMPOTENCY_KEY, INGESTED_AT, KIND, KIND_EVENT,
    PROPERTIES, RESOURCE_ID, SOURCE, TIMESTAMP, TIMESTAMP_SOURCE, ValueKind,
};
use crate::table::EventsTable;
use crate::time::TimeRange;
use crate::usage::Context;

/// The columns of the envelope that SQL shows, in order.
const SHOWN: [&str; 9] = [
    EVENT_NAME,
    IDEMPOTENCY_KEY,
    CUSTOMER_ID,
    RESOURCE_ID,
    SOURCE,
    TIMESTAMP,
    INGESTED_AT,
    TIMESTAMP_SOURCE,
    EVENT_DATE,
];

/// The table, and what of it the types of its columns do not tell.
pub(super) struct Events {
    pub(super) view: Arc<ViewTable>,
    /// The properties that hold numbers and texts, so that their columns are text.
    pub(super) mixed: BTreeSet<String>,
}

/// The table, with the further `columns` that calls of `property` and `number` became.
///
/// # Errors
/// A scan for the names of properties without columns that fails.
pub(super) async fn view(
    context: &Context,
    table: &Arc<EventsTable>,
    mentioned: &Mentioned,
    columns: &BTreeMap<String, Call>,
) -> Result<Events> {
    let facts = table.facts(TimeRange::ALL);
    let source = provider_as_source(Arc::clone(table) as Arc<_>);
    let in_doubt = facts.others
        && facts.properties.iter().any(|(name, kinds)| {
            !kinds.contains(&ValueKind::Text)
                && (mentioned.includes(&column_name(name)) || is_number(columns, name))
        });
    let in_map = match in_doubt {
        true => Some(names_in_map(context, &source).await?),
        false => None,
    };
    let properties = Properties { facts: &facts, in_map };
    let mixed = properties.mixed();
    let plan = properties
        .project(source, columns)
        .map_err(|error| Error::internal("the table `events`").with_source(error))?;
    Ok(Events { view: Arc::new(ViewTable::new(plan, None)), mixed })
}

fn is_number(columns: &BTreeMap<String, Call>, property: &str) -> bool {
    columns.values().any(|call| call.reading == Reading::Number && call.property == property)
}

/// How much of the events a statement is likely to touch: little if it asks for one customer's, in
/// all of the statement.
pub(super) fn reach(plan: &LogicalPlan) -> Reach {
    let (mut scans, mut needles) = (0, 0);
    let walked = plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(scan) => {
                scans += usize::from(scan.table_name.table() == EVENTS);
            }
            LogicalPlan::Filter(filter) => {
                let conditions = split_conjunction(&filter.predicate);
                needles += usize::from(conditions.into_iter().any(is_one_customer));
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    });
    match walked.is_ok() && scans == 1 && needles > 0 {
        true => Reach::Needle,
        false => Reach::Broad,
    }
}

fn is_one_customer(condition: &Expr) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else {
        return false;
    };
    match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Literal(..)) | (Expr::Literal(..), Expr::Column(column)) => {
            column.name == CUSTOMER_ID
        }
        _ => false,
    }
}

/// What a property is called in SQL.
pub(super) fn column_name(property: &str) -> String {
    match SHOWN.contains(&property) {
        true => format!("property.{property}"),
        false => property.to_owned(),
    }
}

/// Where the values of properties are.
struct Properties<'a> {
    facts: &'a TableFacts,
    /// The names in the map, where they had to be looked up.
    in_map: Option<BTreeSet<String>>,
}

impl Properties<'_> {
    fn project(
        &self,
        source: Arc<dyn TableSource>,
        columns: &BTreeMap<String, Call>,
    ) -> EngineResult<LogicalPlan> {
        let mut scan = LogicalPlanBuilder::scan(EVENTS, source, None)?;
        if self.facts.corrections {
            scan = scan.filter(ident(KIND).eq(lit(KIND_EVENT)))?;
        }
        let envelope = SHOWN.into_iter().map(ident);
        let names = self.facts.properties.keys();
        let properties = names.map(|name| self.value(name).alias(column_name(name)));
        let further = columns.iter().map(|(column, call)| {
            let value = match call.reading {
                Reading::Text => self.text(&call.property),
                Reading::Number => self.number(&call.property),
            };
            value.alias(column)
        });
        scan.project(envelope.chain(properties).chain(further).collect::<Vec<_>>())?.build()
    }

    fn kinds(&self, name: &str) -> &[ValueKind] {
        self.facts.properties.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// A property in the narrowest type that holds all of its values. A name that the statement
    /// does not mention is not looked up in the map: nobody reads its column.
    fn value(&self, name: &str) -> Expr {
        use ValueKind::{Boolean, Decimal, Integer};
        let column = |kind: ValueKind| ident(kind.column(name));
        match self.kinds(name) {
            _ if self.known_in_map(name) => self.text(name),
            [Integer] => column(Integer),
            [Decimal] => column(Decimal),
            [Boolean] => column(Boolean),
            [Integer, Decimal] | [Decimal, Integer] => {
                coalesce(vec![cast(column(Integer), Decimal.data_type()), column(Decimal)])
            }
            _ => self.text(name),
        }
    }

    /// The exact numeric value of a property, null where it is no number: an integer or a decimal if
    /// there is nothing else, else wide enough for any number that was sent as text.
    fn number(&self, name: &str) -> Expr {
        let kinds = self.kinds(name);
        let column = |kind: ValueKind| kinds.contains(&kind).then(|| ident(kind.column(name)));
        let texts: Vec<Expr> =
            [column(ValueKind::Text), self.in_map(name)].into_iter().flatten().collect();
        let numbers = [column(ValueKind::Integer), column(ValueKind::Decimal)];
        if texts.is_empty() {
            return match numbers {
                [None, None] => lit(ScalarValue::Int64(None)),
                [Some(number), None] | [None, Some(number)] => number,
                [Some(integer), Some(decimal)] => {
                    coalesce(vec![cast(integer, ValueKind::Decimal.data_type()), decimal])
                }
            };
        }
        let numbers = numbers.into_iter().flatten().map(|number| cast(number, wide_type()));
        let texts = texts.into_iter().map(|text| to_number().call(vec![text]));
        first_of(numbers.chain(texts).collect())
    }

    /// The text of a property: as sent, else that of the number or boolean.
    fn text(&self, name: &str) -> Expr {
        let kinds = self.kinds(name);
        let column = |kind: ValueKind| kinds.contains(&kind).then(|| ident(kind.column(name)));
        let places = [
            column(ValueKind::Text),
            self.in_map(name),
            column(ValueKind::Integer).map(|integer| cast(integer, DataType::Utf8)),
            column(ValueKind::Decimal).map(|decimal| canonical_text().call(vec![decimal])),
            column(ValueKind::Boolean).map(|boolean| cast(boolean, DataType::Utf8)),
        ];
        let places: Vec<Expr> = places.into_iter().flatten().collect();
        match places.is_empty() {
            true => lit(ScalarValue::Utf8(None)),
            false => first_of(places),
        }
    }

    /// The value in the map, unless it is known that there is none.
    fn in_map(&self, name: &str) -> Option<Expr> {
        let maybe =
            self.facts.others && self.in_map.as_ref().is_none_or(|names| names.contains(name));
        maybe.then(|| get_field(ident(PROPERTIES), name))
    }

    fn known_in_map(&self, name: &str) -> bool {
        self.in_map.as_ref().is_some_and(|names| names.contains(name))
    }

    /// The properties that hold numbers and texts.
    fn mixed(&self) -> BTreeSet<String> {
        use ValueKind::{Decimal, Integer, Text};
        let holds_both = |name: &str, kinds: &[ValueKind]| {
            (kinds.contains(&Integer) || kinds.contains(&Decimal))
                && (kinds.contains(&Text) || self.known_in_map(name))
        };
        let properties = self.facts.properties.iter();
        properties
            .filter(|(name, kinds)| holds_both(name, kinds))
            .map(|(name, _)| name.clone())
            .collect()
    }
}

/// The first of `values` that is not null.
fn first_of(mut values: Vec<Expr>) -> Expr {
    if values.len() == 1 { values.remove(0) } else { coalesce(values) }
}

/// The names in the map of properties without columns. Statistics tell only that there are some:
/// a name with columns may be among them, where a value fitted none (an array, a huge number).
async fn names_in_map(
    context: &Context,
    source: &Arc<dyn TableSource>,
) -> Result<BTreeSet<String>> {
    const NAME: &str = "name";
    let names = |source: Arc<dyn TableSource>| -> EngineResult<LogicalPlan> {
        LogicalPlanBuilder::scan(EVENTS, source, None)?
            .filter(ident(PROPERTIES).is_not_null())?
            .project([map_keys(ident(PROPERTIES)).alias(NAME)])?
            .unnest_column(Column::from_name(NAME))?
            .aggregate([ident(NAME)], Vec::<Expr>::new())?
            .build()
    };
    let plan = names(Arc::clone(source))
        .map_err(|error| Error::internal("names of properties").with_source(error))?;
    let physical = context.engine.physical(&plan, Reach::Broad).await?;
    let mut rows = context.engine.execute(physical)?;
    let mut found = BTreeSet::new();
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(engine_error)?;
        let names = cast_array(batch.column(0), &DataType::Utf8)
            .map_err(|error| Error::internal("names of properties").with_source(error))?;
        found.extend(names.as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    Ok(found)
}
