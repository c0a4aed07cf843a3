//! Rows of states: of events, each a state of one, and of stored states.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::functions_aggregate::min_max::{max, min};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableSource, cast, ident, lit, when};

use super::columns::{AT, BUCKET, EVENTS, MATCHED, PLACE, RECEIVED, VALUE, WEIGHTS};
use super::{Kept, Value, innermost};
use crate::error::{Error, Result};
use crate::functions;
use crate::functions::arithmetic::Arithmetic;
use crate::functions::number::wide_type;
use crate::meter::{Aggregation, Meter, Operand};
use crate::plan::alone::{Weight, weight};
use crate::plan::operand::Operands;
use crate::plan::{Built, TableFacts, counted_operand, output};
use crate::schema::{INGESTED_AT, ORDINAL, TIMESTAMP, timestamp_type};

/// A table of rows to plan over, and what is known of it.
#[derive(Clone)]
pub struct Rows<'a> {
    /// The table.
    pub source: Arc<dyn TableSource>,
    /// What its statistics tell.
    pub facts: &'a TableFacts,
}

pub(super) fn defect(error: datafusion::error::DataFusionError) -> Error {
    Error::internal("plan states").with_source(error)
}

/// A column to tell rows apart by: its name, and what it is of a row.
pub(super) type Key = (String, Expr);

/// Each event of a scan as a state of one.
pub(super) fn of_events(
    scan: LogicalPlanBuilder,
    (meter, kept): (&Meter, Kept),
    by: Vec<Key>,
    operands: Operands<'_>,
) -> Result<LogicalPlanBuilder> {
    let columns = || -> Built<Vec<Expr>> {
        let Measured { value, weights, present } = measured(meter, operands)?;
        let counted = when(present.clone(), lit(1_i64)).otherwise(lit(0_i64))?;
        let micros =
            |column: &str| when(present.clone(), cast(ident(column), DataType::Int64)).end();
        let mut columns: Vec<Expr> = by.into_iter().map(|(name, of)| of.alias(name)).collect();
        if kept != Kept::Count {
            columns.push(value.alias(VALUE));
        }
        if kept == Kept::Weighed {
            columns.push(weights.alias(WEIGHTS));
        }
        columns.push(counted.alias(EVENTS));
        columns.push(lit(1_i64).alias(MATCHED));
        if kept.has_place() {
            columns.push(micros(TIMESTAMP)?.alias(AT));
            columns.push(micros(INGESTED_AT)?.alias(RECEIVED));
            columns.push(micros(ORDINAL)?.alias(PLACE));
        }
        Ok(columns)
    };
    columns().and_then(|columns| scan.project(columns)).map_err(defect)
}

/// What an event brings; null where it is skipped.
struct Measured {
    value: Expr,
    weights: Expr,
    present: Expr,
}

fn measured(meter: &Meter, operands: Operands<'_>) -> Built<Measured> {
    let aggregation = innermost(meter);
    let value = counted_operand(aggregation, operands);
    let present = value.clone().is_not_null();
    let Some(of) = &meter.weight else {
        return Ok(Measured { value, weights: lit(1_i64), present });
    };
    let Weight { number, usable } = weight(of, operands)?;
    let present = present.and(usable);
    let times = functions::arithmetic(Arithmetic::Multiply);
    let weighed = match aggregation {
        Aggregation::Count => number.clone(),
        _ => times.call(vec![value, number.clone()]),
    };
    Ok(Measured {
        value: when(present.clone(), weighed).end()?,
        weights: when(present.clone(), number).end()?,
        present,
    })
}

/// Stored states that meet a condition.
pub(super) fn stored(
    states: &Rows<'_>,
    condition: Option<Expr>,
    by: Vec<Key>,
    kept: Kept,
    operands: Operands<'_>,
) -> Built<LogicalPlanBuilder> {
    let mut scan = LogicalPlanBuilder::scan("states", Arc::clone(&states.source), None)?;
    if let Some(condition) = condition {
        scan = scan.filter(condition)?;
    }
    let of = |name: &str| Operand::Property(name.to_owned());
    let value = kept.value().map(|value| match value {
        Value::Text => operands.text(&of(VALUE)),
        Value::Number => operands.number(&of(VALUE)),
    });
    let weights = (kept == Kept::Weighed).then(|| operands.number(&of(WEIGHTS)).alias(WEIGHTS));
    let by = by.into_iter().map(|(name, of)| of.alias(name));
    let value = value.map(|value| value.alias(VALUE));
    let rest = counts_and_place(kept).map(ident);
    scan.project(by.chain(value).chain(weights).chain(rest).collect::<Vec<_>>())
}

pub(super) fn counts_and_place(kept: Kept) -> impl Iterator<Item = &'static str> {
    let place: &[&str] = if kept.has_place() { &[AT, RECEIVED, PLACE] } else { &[] };
    [EVENTS, MATCHED].into_iter().chain(place.iter().copied())
}

/// The value of several states, and of whatever else belongs to it.
pub(super) fn of_several(kept: Kept, of: Expr) -> Expr {
    let instant = |column: &str| cast(ident(column), timestamp_type());
    let placed = || vec![of.clone(), instant(AT), instant(RECEIVED), ident(PLACE)];
    match kept {
        Kept::Min => min(of),
        Kept::Max => max(of),
        Kept::Latest => functions::latest().call(placed()),
        Kept::Earliest => functions::earliest().call(placed()),
        Kept::Count | Kept::Sum | Kept::Weighed | Kept::Texts | Kept::Numbers => {
            functions::exact_sum().call(vec![of])
        }
    }
}

/// Rows of states made one for each of `names`, and for each value where every one is kept.
pub(super) fn merged(
    rows: LogicalPlanBuilder,
    names: &[String],
    kept: Kept,
) -> Built<LogicalPlanBuilder> {
    let mut by: Vec<Expr> = names.iter().map(ident).collect();
    let of = |name: &str| of_several(kept, ident(name)).alias(name);
    let sum = |name: &str| functions::exact_sum().call(vec![ident(name)]).alias(name);
    let mut merged = vec![sum(EVENTS), sum(MATCHED)];
    match kept {
        Kept::Count => {}
        Kept::Texts | Kept::Numbers => by.push(ident(VALUE)),
        Kept::Sum | Kept::Min | Kept::Max => merged.push(of(VALUE)),
        Kept::Weighed => merged.extend([VALUE, WEIGHTS].map(of)),
        Kept::Latest | Kept::Earliest => {
            merged.extend([VALUE, AT, RECEIVED, PLACE].map(of));
        }
    }
    rows.aggregate(by, merged)
}

/// The same rows with the types that both stored states and events can have.
pub(super) fn same_types(
    rows: LogicalPlanBuilder,
    names: &[String],
    kept: Kept,
) -> Built<LogicalPlanBuilder> {
    let by = names.iter().map(|name| match name.as_str() {
        output::WINDOW_START | BUCKET | super::answer::INNER_WINDOW => ident(name),
        name => cast(ident(name), DataType::Utf8).alias(name),
    });
    let value = kept.value().map(|value| match value {
        Value::Text => DataType::Utf8,
        Value::Number => wide_type(),
    });
    let value = value.map(|of| cast(ident(VALUE), of).alias(VALUE));
    let weights = (kept == Kept::Weighed).then(|| cast(ident(WEIGHTS), wide_type()).alias(WEIGHTS));
    let rest = counts_and_place(kept).map(ident);
    rows.project(by.chain(value).chain(weights).chain(rest).collect::<Vec<_>>())
}
