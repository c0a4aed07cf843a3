//! The events behind a number, streamed: [`crate::plan::contributions`] with the texts of its series
//! put together.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::StreamExt;
use serde_json::json;

use crate::engine::engine_error;
use crate::error::{Error, Result};
use crate::plan::contributions::{contributions_plan, output, series_of};
use crate::usage::{Context, Group, Single, Take, UsageRequest};

/// Name of the column that tells the series or inner result of an event, as a JSON array of texts.
const SERIES: &str = "series";

/// The columns that [`contributions`] gives.
///
/// # Errors
/// As [`contributions`].
pub async fn contributions_schema(
    context: &Context,
    request: &UsageRequest,
    groups: &[Group],
) -> Result<SchemaRef> {
    let single = Single::of(context, request, groups).await?;
    let plan = contributions_plan(
        &super::source(&single),
        &single.meter,
        single.query(),
        &single.facts(),
    )?;
    Ok(shown(plan.schema().as_arrow()))
}

/// Gives the events behind the number that answers `request` for `groups` alone to `take`, by
/// timestamp and order of receipt, at least one batch.
///
/// # Errors
/// As usage.
pub async fn contributions(
    context: &Context,
    request: &UsageRequest,
    groups: &[Group],
    take: Take<'_>,
) -> Result<()> {
    let single = Single::of(context, request, groups).await?;
    let facts = single.facts();
    let plan = contributions_plan(&super::source(&single), &single.meter, single.query(), &facts)?;
    let schema = shown(plan.schema().as_arrow());
    if !take(RecordBatch::new_empty(Arc::clone(&schema)))? {
        return Ok(());
    }
    let engine = &single.context.engine;
    let mut rows = engine.execute(engine.physical(&plan, single.reach()).await?)?;
    let series = series_of(&single.meter).len();
    while let Some(batch) = rows.next().await {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => return Err(single.blamed(engine_error(error)).await),
        };
        if !take(put_together(&batch, &schema, series)?)? {
            return Ok(());
        }
    }
    Ok(())
}

/// The columns with one for all texts of the series.
fn shown(plan: &Schema) -> SchemaRef {
    let is_series = |field: &Field| is_series(field.name());
    let mut fields: Vec<Field> = Vec::new();
    for field in plan.fields().iter().filter(|field| !is_series(field)) {
        let data_type = match field.data_type() {
            DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
            other => other.clone(),
        };
        fields.push(Field::new(field.name(), data_type, true));
    }
    if plan.fields().iter().any(|field| is_series(field)) {
        fields.push(Field::new(SERIES, DataType::Utf8, true));
    }
    Arc::new(Schema::new(fields))
}

fn is_series(name: &str) -> bool {
    let digits = name.strip_prefix("series_");
    digits.is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))
}

fn put_together(batch: &RecordBatch, schema: &SchemaRef, series: usize) -> Result<RecordBatch> {
    let defect = |error| Error::internal("events of a number").with_source(error);
    let column = |name: &str| {
        let column = batch.column_by_name(name);
        column.ok_or_else(|| Error::internal(format!("the events of a number have no `{name}`")))
    };
    let mut columns: Vec<ArrayRef> = Vec::new();
    for field in schema.fields() {
        if field.name() != SERIES {
            columns.push(cast(column(field.name())?, field.data_type()).map_err(defect)?);
            continue;
        }
        let parts: Vec<ArrayRef> = (0..series)
            .map(|place| cast(column(&output::series(place))?, &DataType::Utf8).map_err(defect))
            .collect::<Result<_>>()?;
        let text = |row: usize| {
            let texts = parts.iter().map(|part| {
                let part = part.as_string::<i32>();
                part.is_valid(row).then(|| part.value(row))
            });
            Some(json!(texts.collect::<Vec<_>>()).to_string())
        };
        columns.push(Arc::new((0..batch.num_rows()).map(text).collect::<StringArray>()));
    }
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(defect)
}
