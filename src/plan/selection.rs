//! The rows that a condition chooses, as plain columns: what corrections and listings begin with.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::logical_expr::utils::{conjunction, disjunction};
use datafusion::logical_expr::{Expr, LogicalPlan, TableSource, cast, ident, in_list, lit};

use super::operand::{Operands, TableFacts};
use super::{predicate, range};
use crate::error::{Error, Result};
use crate::meter::Filter;
use crate::schema::{ENDED_BY, EVENT_NAME, IDEMPOTENCY_KEY, KIND, KIND_EVENT, MADE_BY};
use crate::time::TimeRange;

/// Which rows, and what of them.
#[derive(Debug, Clone, Default)]
pub struct RowQuery {
    /// Which instants.
    pub range: TimeRange,
    /// Names of events; empty means every one.
    pub events: Vec<String>,
    /// Only this customer's.
    pub customer: Option<String>,
    /// Further conditions.
    pub filter: Filter,
    /// Only rows with one of these idempotency keys.
    pub keys: Option<Vec<String>>,
    /// Only rows that this correction made or ended.
    pub correction: Option<String>,
    /// Only rows that count.
    pub live: bool,
    /// The columns, in order; texts come as `Utf8`.
    pub columns: Vec<&'static str>,
}

/// The plan of `query`; its rows come in no particular order. Only a table that has seen a correction
/// may be asked for one.
///
/// # Errors
/// A filter whose literal cannot be compared with its operand.
pub fn row_plan(
    events: &Arc<dyn TableSource>,
    query: &RowQuery,
    facts: &TableFacts,
) -> Result<LogicalPlan> {
    let lookups = BTreeMap::new();
    let operands = Operands { facts, lookups: &lookups, customer: &[], at: None };
    let mut all: Vec<Expr> = Vec::new();
    if query.live && facts.corrections {
        all.push(ident(KIND).eq(lit(KIND_EVENT)));
    }
    all.extend(among(EVENT_NAME, &query.events));
    all.extend(query.customer.as_ref().map(|id| operands.customer().eq(lit(id.as_str()))));
    if let Some(keys) = &query.keys {
        all.push(among(IDEMPOTENCY_KEY, keys).unwrap_or_else(|| lit(false)));
    }
    if let Some(id) = &query.correction {
        all.extend(disjunction([ENDED_BY, MADE_BY].map(|name| ident(name).eq(lit(id.as_str())))));
    }
    all.extend(predicate::predicate(&query.filter, operands)?);
    let scan = range::scan(events, query.range, facts.days, conjunction(all).as_ref())?;
    let column = |name: &str| match events.schema().field_with_name(name) {
        Ok(field) if field.data_type() == &DataType::Utf8View => {
            cast(ident(name), DataType::Utf8).alias(name)
        }
        _ => ident(name),
    };
    let columns: Vec<Expr> = query.columns.iter().map(|name| column(name)).collect();
    let defect = |error| Error::internal("plan a choice of rows").with_source(error);
    scan.project(columns).and_then(|plan| plan.build()).map_err(defect)
}

/// The rows of one idempotency key, of any kind and source, with all columns of the table.
///
/// # Errors
/// A defect of ours: a plan that does not build.
pub fn stored_plan(
    events: &Arc<dyn TableSource>,
    key: &str,
    facts: &TableFacts,
) -> Result<LogicalPlan> {
    let has_key = ident(IDEMPOTENCY_KEY).eq(lit(key));
    let defect = |error| Error::internal("plan the rows of a key").with_source(error);
    range::scan(events, TimeRange::default(), facts.days, Some(&has_key))?.build().map_err(defect)
}

fn among(column: &str, texts: &[String]) -> Option<Expr> {
    let texts: Vec<Expr> = texts.iter().map(|text| lit(text.as_str())).collect();
    (!texts.is_empty()).then(|| in_list(ident(column), texts, false))
}
