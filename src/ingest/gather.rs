//! Chosen rows of many chunks as one record batch of the events table.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Decimal128Builder, Int64Array, Int64Builder, RecordBatch, StringArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::interleave;
use arrow::datatypes::{Decimal128Type, Int64Type, Schema, SchemaRef};

use super::columns::{Chunk, PropertyColumns};
use super::seal::{Sorted, timestamp_of};
use crate::decimal::{Number, canonical_number};
use crate::error::{Error, Result};
use crate::schema::{self, ValueKind};
use arrow::array::AsArray;

/// Turns the texts of every property whose texts are all numbers in canonical form into numbers.
pub(super) fn promote_numeric_texts(chunks: &mut [Chunk]) {
    let mut all_numbers: BTreeMap<String, bool> = BTreeMap::new();
    for property in chunks.iter().flat_map(|chunk| &chunk.properties) {
        if property.texts.is_some() {
            let numbers = all_numbers.entry(property.name.clone()).or_insert(true);
            *numbers = *numbers && property.texts_are_numbers;
        }
    }
    for property in chunks.iter_mut().flat_map(|chunk| &mut chunk.properties) {
        if all_numbers.get(&property.name) == Some(&true) {
            promote(property);
        }
    }
}

fn promote(property: &mut PropertyColumns) {
    let Some(texts) = property.texts.take() else { return };
    let texts: &StringArray = texts.as_string();
    let integers = property.integers.take();
    let decimals = property.decimals.take();
    let mut integer = Int64Builder::with_capacity(texts.len());
    let mut decimal = Decimal128Builder::with_capacity(texts.len())
        .with_data_type(ValueKind::Decimal.data_type());
    for row in 0..texts.len() {
        let held = |array: &Option<ArrayRef>| array.as_ref().is_some_and(|a| a.is_valid(row));
        let number = match texts.is_valid(row).then(|| canonical_number(texts.value(row))).flatten()
        {
            Some(number) => Some(number),
            None if held(&integers) => {
                integers.as_ref().map(|a| Number::Integer(a.as_primitive::<Int64Type>().value(row)))
            }
            None if held(&decimals) => decimals
                .as_ref()
                .map(|a| Number::Fixed(a.as_primitive::<Decimal128Type>().value(row))),
            None => None,
        };
        integer.append_option(match number {
            Some(Number::Integer(value)) => Some(value),
            _ => None,
        });
        decimal.append_option(match number {
            Some(Number::Fixed(value)) => Some(value),
            _ => None,
        });
    }
    let (integer, decimal) = (integer.finish(), decimal.finish());
    let some = |array: ArrayRef| (array.null_count() < array.len()).then_some(array);
    property.integers = some(Arc::new(integer));
    property.decimals = some(Arc::new(decimal));
}

/// What every row of a batch shares.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchFacts {
    /// The batch's instant of receipt, microseconds UTC.
    pub received_micros: i64,
    /// Events of the batch before the first chunk, rejected ones not counted.
    pub first_ordinal: i64,
}

/// Gathers rows of sealed chunks into batches of one schema.
pub(super) struct Gatherer<'c> {
    chunks: &'c [Chunk],
    facts: BatchFacts,
    first_ordinals: Vec<i64>,
    schema: SchemaRef,
    columns: Vec<(ValueKind, String, Vec<ArrayRef>)>,
    others: Vec<ArrayRef>,
}

impl<'c> Gatherer<'c> {
    /// Prepares the columns that any of `chunks` has.
    pub(super) fn new(chunks: &'c [Chunk], facts: BatchFacts) -> Self {
        let mut next = facts.first_ordinal;
        let first_ordinals = chunks
            .iter()
            .map(|chunk| {
                let first = next;
                next = next.saturating_add(i64::try_from(chunk.rows()).unwrap_or(i64::MAX));
                first
            })
            .collect();
        let columns = property_columns(chunks);
        let mut fields = schema::envelope_fields();
        fields.extend(columns.iter().map(|(kind, name, _)| kind.field(name)));
        let others = chunks.iter().map(|chunk| {
            let none = || new_null_array(&schema::properties_type(), chunk.rows());
            chunk.others.clone().unwrap_or_else(none)
        });
        Self {
            others: others.collect(),
            chunks,
            facts,
            first_ordinals,
            schema: Arc::new(Schema::new(fields)),
            columns,
        }
    }

    /// The schema of the batches: the envelope without the partition, then property columns.
    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The columns of `rows`, in their order.
    ///
    /// # Errors
    /// A defect of ours: columns that do not fit each other.
    pub(super) fn batch(&self, rows: &[Sorted]) -> Result<RecordBatch> {
        let indices: Vec<(usize, usize)> =
            rows.iter().map(|r| (r.row.chunk as usize, r.row.row as usize)).collect();
        let text = |column: fn(&Chunk) -> &StringArray| {
            let arrays: Vec<&dyn Array> =
                self.chunks.iter().map(|chunk| column(chunk) as &dyn Array).collect();
            interleave(&arrays, &indices)
        };
        let defect = |error| Error::internal("gather rows").with_source(error);
        let received = self.facts.received_micros;
        let instants = |values: Vec<i64>| {
            Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) as ArrayRef
        };
        let timestamps = indices.iter().map(|&(c, r)| timestamp_of(&self.chunks[c], r, received));
        let ordinals = rows
            .iter()
            .map(|r| self.first_ordinals[r.row.chunk as usize] + i64::from(r.row.row))
            .collect::<Int64Array>();
        let timestamp_source = indices
            .iter()
            .map(|&(c, r)| if self.chunks[c].timestamp.is_null(r) { "received" } else { "sent" });
        let others: Vec<&dyn Array> = self.others.iter().map(AsRef::as_ref).collect();
        let mut columns: Vec<ArrayRef> = vec![
            text(|chunk| &chunk.event_name).map_err(defect)?,
            text(|chunk| &chunk.idempotency_key).map_err(defect)?,
            text(|chunk| &chunk.customer_id).map_err(defect)?,
            text(|chunk| &chunk.resource_id).map_err(defect)?,
            text(|chunk| &chunk.source).map_err(defect)?,
            instants(timestamps.collect()),
            instants(vec![received; rows.len()]),
            Arc::new(ordinals),
            Arc::new(timestamp_source.map(Some).collect::<StringArray>()),
            Arc::new(rows.iter().map(kind_of).collect::<StringArray>()),
            interleave(&others, &indices).map_err(defect)?,
        ];
        for (_, _, arrays) in &self.columns {
            let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
            columns.push(interleave(&arrays, &indices).map_err(defect)?);
        }
        RecordBatch::try_new(self.schema(), columns).map_err(defect)
    }
}

fn kind_of(row: &Sorted) -> Option<&'static str> {
    Some(if row.superseded { schema::KIND_REPLACED } else { schema::KIND_EVENT })
}

/// Every (kind, name) that any chunk has, with one array per chunk, sorted by name and kind.
fn property_columns(chunks: &[Chunk]) -> Vec<(ValueKind, String, Vec<ArrayRef>)> {
    let mut found: BTreeMap<(String, ValueKind), Vec<Option<ArrayRef>>> = BTreeMap::new();
    for (place, chunk) in chunks.iter().enumerate() {
        for property in &chunk.properties {
            for (kind, array) in [
                (ValueKind::Integer, &property.integers),
                (ValueKind::Decimal, &property.decimals),
                (ValueKind::Text, &property.texts),
                (ValueKind::Boolean, &property.booleans),
            ] {
                let Some(array) = array else { continue };
                let key = (property.name.clone(), kind);
                let arrays = found.entry(key).or_insert_with(|| vec![None; chunks.len()]);
                arrays[place] = Some(Arc::clone(array));
            }
        }
    }
    found
        .into_iter()
        .map(|((name, kind), arrays)| {
            let arrays = arrays.into_iter().zip(chunks).map(|(array, chunk)| {
                array.unwrap_or_else(|| new_null_array(&kind.data_type(), chunk.rows()))
            });
            (kind, name, arrays.collect())
        })
        .collect()
}
