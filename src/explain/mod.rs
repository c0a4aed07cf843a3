//! How a number came about, step by step: asked, dropped, matched, skipped, counted, converted and
//! rounded; and what stands beside it: corrections, late arrivals, lookups, what was refused.
//!
//! The number is that of usage, and the steps must add up to it, or the explanation is an error. What
//! a step cannot tell is left out or said.

mod contributions;
mod event;
mod refused;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{LogicalPlan, TableSource};
use futures::StreamExt;

pub use contributions::{contributions, contributions_schema};
pub use event::{EventRow, Fate, InQuarantine, Shown, Verdict, show};
pub use refused::Refused;

use crate::correct::{self, Listed};
use crate::engine::{Engine, Reach, engine_error};
use crate::error::{Error, Result};
use crate::meter::{Comparison, Field, Filter, Literal, Meter, Operand, Test, describe_filter};
use crate::plan::contributions::carried_plan;
use crate::plan::funnel::{self, conditions, corrected_plan, drop_plan, match_plan, output};
use crate::schema::{ENDED_BY, KIND, KIND_EVENT, MADE_BY};
use crate::time::Timestamp;
use crate::usage::{Context, Group, Single, SingleAnswer, UsageRequest};

/// What one condition of a meter's filter drops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The condition, in words.
    pub condition: String,
    /// Events that meet every condition before it, and not this one.
    pub first: u64,
    /// Events that meet all others, and not this one.
    pub alone: u64,
}

/// Matching events that make no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Why.
    pub why: String,
    /// How many.
    pub events: u64,
    /// The smallest key of them.
    pub example: Option<String>,
}

/// Events that were received after the end of the range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Late {
    /// How many of those behind the value.
    pub events: u64,
    /// What the value would be without any event that was.
    pub without: Option<String>,
}

/// What a lookup made of the matching events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupUse {
    /// Its name.
    pub name: String,
    /// Events whose value it has a row for.
    pub mapped: u64,
    /// Events whose value it has no row for.
    pub unmapped: u64,
    /// The smallest key of these.
    pub example: Option<String>,
    /// Events that have no such value.
    pub absent: u64,
}

/// Rows that would match, and that a correction made or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corrected {
    /// `event` for rows that count, else what became of them.
    pub kind: String,
    /// The correction that made them.
    pub made_by: Option<String>,
    /// The correction that ended them.
    pub ended_by: Option<String>,
    /// How many.
    pub events: u64,
    /// The correction that [`Self::kind`] is due to, as it is kept.
    pub correction: Option<Listed>,
}

/// How a number came about.
#[derive(Debug, Clone)]
pub struct Explained {
    /// The meter that was asked.
    pub meter: Meter,
    /// The number, with bounds, zone and versions.
    pub answer: SingleAnswer,
    /// Files that were read for the number, of so many.
    pub files: (usize, usize),
    /// Events of the meter's names that the question is about.
    pub asked: u64,
    /// What each condition drops of these, in the order of the filter.
    pub dropped: Vec<Dropped>,
    /// Events that are left.
    pub matched: u64,
    /// Those that make no value.
    pub skipped: Vec<Skipped>,
    /// Events from before the range that hold in it, where that is what the aggregation is about.
    pub carried: Option<u64>,
    /// Events that were received late, where the range has an end.
    pub late: Option<Late>,
    /// What lookups made of the matching events.
    pub lookups: Vec<LookupUse>,
    /// What told the customer, and of how many matching events; the last is nothing.
    pub customers: Vec<(String, u64)>,
    /// Rows that corrections made or ended.
    pub corrected: Vec<Corrected>,
    /// What was not stored.
    pub refused: Refused,
}

/// Explains the number that answers `request` for `groups` alone.
///
/// # Errors
/// As usage; a defect of ours, where the steps do not add up to the number.
pub async fn explain(
    context: &Context,
    request: &UsageRequest,
    groups: &[Group],
) -> Result<Explained> {
    let single = Single::of(context, request, groups).await?;
    let before = single.table.counts().files_read();
    let answer = single.answer().await?;
    let files_read = single.table.counts().files_read() - before;
    let mut explained = Explained {
        files: (files_read, single.table.snapshot().files.len()),
        asked: 0,
        dropped: Vec::new(),
        matched: 0,
        skipped: Vec::new(),
        carried: None,
        late: None,
        lookups: Vec::new(),
        customers: Vec::new(),
        corrected: corrected(&single).await?,
        refused: refused::refused(&single).await?,
        meter: single.meter.clone(),
        answer,
    };
    drops(&single, &mut explained).await?;
    matches(&single, &mut explained).await?;
    check(&explained)?;
    Ok(explained)
}

/// The steps add up, and to what usage says.
fn check(explained: &Explained) -> Result<()> {
    let dropped: u64 = explained.dropped.iter().map(|dropped| dropped.first).sum();
    let skipped: u64 = explained.skipped.iter().map(|skipped| skipped.events).sum();
    let note = &explained.answer.note;
    let usage = (note.events.unsigned_abs(), note.skipped.unsigned_abs());
    let steps = (explained.matched - skipped.min(explained.matched), skipped);
    match explained.asked == dropped + explained.matched && steps == usage {
        true => Ok(()),
        false => Err(Error::internal(format!(
            "the steps of meter `{}` do not add up: {} asked, {dropped} dropped, {} matched, \
             {skipped} skipped; usage counts {} and skips {}",
            explained.meter.name, explained.asked, explained.matched, usage.0, usage.1
        ))),
    }
}

async fn drops(single: &Single, explained: &mut Explained) -> Result<()> {
    let plan = drop_plan(&source(single), &single.meter, single.query(), &single.facts())?;
    let row = one_row(single, &plan).await?;
    explained.asked = number(&row, output::ASKED)?;
    explained.matched = number(&row, output::MATCHED)?;
    for (place, condition) in conditions(&single.meter).into_iter().enumerate() {
        explained.dropped.push(Dropped {
            condition: describe_filter(condition),
            first: number(&row, &output::dropped(place))?,
            alone: number(&row, &output::alone(place))?,
        });
    }
    Ok(())
}

async fn matches(single: &Single, explained: &mut Explained) -> Result<()> {
    let meter = &single.meter;
    let plan = match_plan(&source(single), meter, single.query(), &single.facts())?;
    let row = one_row(single, &plan).await?;
    for (place, why) in funnel::reasons(meter).into_iter().enumerate() {
        let events = number(&row, &output::skipped(place))?;
        let example = text(&row, &output::example(place))?;
        if events > 0 {
            explained.skipped.push(Skipped { why, events, example });
        }
    }
    let mut late = number(&row, output::LATE)?;
    if meter.aggregation.carries() {
        let plan = carried_plan(&source(single), meter, single.query(), &single.facts())?;
        let held = one_row(single, &plan).await?;
        explained.carried = Some(number(&held, output::CARRIED)?);
        late = number(&held, output::LATE)?;
    }
    for (place, name) in meter.lookups.keys().enumerate() {
        let [mapped, unmapped, absent] = output::lookup(place).map(|name| number(&row, &name));
        explained.lookups.push(LookupUse {
            name: name.clone(),
            mapped: mapped?,
            unmapped: unmapped?,
            absent: absent?,
            example: text(&row, &output::unmapped(place))?,
        });
    }
    let mut told = 0;
    for (place, teller) in meter.customer.iter().enumerate() {
        let events = number(&row, &output::told(place))?;
        told += events;
        explained.customers.push((crate::meter::describe_operand(teller), events));
    }
    if !meter.customer.is_empty() {
        let untold = explained.matched.saturating_sub(told);
        explained.customers.push(("nothing".to_owned(), untold));
    }
    if let Some(end) = single.query().range.to {
        let without = match late {
            0 => explained.answer.value.clone(),
            _ => single.answer_for(&in_time(meter, end)).await?.value,
        };
        explained.late = Some(Late { events: late, without });
    }
    Ok(())
}

/// The meter without what was received at `end` or later. Its unit has no part in that.
fn in_time(meter: &Meter, end: Timestamp) -> Meter {
    let received = Filter::Test(Test {
        operand: Operand::Field(Field::IngestedAt),
        comparison: Comparison::LessThan(Literal::Text(end.to_string())),
    });
    Meter { filter: Filter::All(vec![meter.filter.clone(), received]), unit: None, ..meter.clone() }
}

async fn corrected(single: &Single) -> Result<Vec<Corrected>> {
    let has = |name: &str| single.table.snapshot().schema.field_with_name(name).is_ok();
    let facts = single.facts();
    if !facts.corrections || !has(MADE_BY) || !has(ENDED_BY) {
        return Ok(Vec::new());
    }
    let kept = correct::list(&single.context.lake.events).await?;
    let kept: BTreeMap<String, Listed> =
        kept.into_iter().map(|listed| (listed.record.id.clone(), listed)).collect();
    let plan = corrected_plan(&source(single), &single.meter, single.query(), &facts)?;
    let mut found = Vec::new();
    for rows in collect(&single.context.engine, &plan, single.reach()).await? {
        for row in 0..rows.num_rows() {
            let rows = rows.slice(row, 1);
            let kind = text(&rows, KIND)?.unwrap_or_default();
            let (made_by, ended_by) = (text(&rows, MADE_BY)?, text(&rows, ENDED_BY)?);
            let due_to = if kind == KIND_EVENT { &made_by } else { &ended_by };
            let correction = due_to.as_ref().and_then(|id| kept.get(id)).cloned();
            let events = number(&rows, output::ROWS)?;
            found.push(Corrected { kind, made_by, ended_by, events, correction });
        }
    }
    Ok(found)
}

fn source(single: &Single) -> Arc<dyn TableSource> {
    provider_as_source(Arc::clone(&single.table) as Arc<_>)
}

async fn collect(engine: &Engine, plan: &LogicalPlan, reach: Reach) -> Result<Vec<RecordBatch>> {
    let mut rows = engine.execute(engine.physical(plan, reach).await?)?;
    let mut batches = Vec::new();
    while let Some(batch) = rows.next().await {
        batches.push(batch.map_err(engine_error)?);
    }
    Ok(batches)
}

async fn one_row(single: &Single, plan: &LogicalPlan) -> Result<RecordBatch> {
    let rows = collect(&single.context.engine, plan, single.reach()).await?;
    let row = rows.into_iter().find(|batch| batch.num_rows() > 0);
    row.ok_or_else(|| Error::internal("a plan of counts gave no row"))
}

fn number(row: &RecordBatch, name: &str) -> Result<u64> {
    let column = column(row, name, &DataType::Int64)?;
    let numbers = column.as_primitive::<Int64Type>();
    Ok(if numbers.is_valid(0) { numbers.value(0).unsigned_abs() } else { 0 })
}

fn text(row: &RecordBatch, name: &str) -> Result<Option<String>> {
    let column = column(row, name, &DataType::Utf8)?;
    let texts = column.as_string::<i32>();
    Ok(texts.is_valid(0).then(|| texts.value(0).to_owned()))
}

fn column(row: &RecordBatch, name: &str, of: &DataType) -> Result<arrow::array::ArrayRef> {
    let column = row.column_by_name(name);
    let column =
        column.ok_or_else(|| Error::internal(format!("an explanation has no column `{name}`")))?;
    cast(column, of).map_err(|error| Error::internal("rows of an explanation").with_source(error))
}
