//! Stored rows as events again, and events as rows: what a correction makes new rows of.
//!
//! An event keeps the columns of its values: what lay in the map of other properties goes there
//! again. What a row is besides its event (order of receipt, kind, corrections) is the caller's.

use std::borrow::Cow;
use std::sync::Mutex;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, Int64Type, Schema, TimestampMicrosecondType};

use super::columns::{Chunk, ChunkBuilder};
use super::gather::{BatchFacts, Gatherer};
use super::seal::{RowRef, in_order};
use crate::decimal::Number;
use crate::dedupe::Hasher;
use crate::error::{Error, Result};
use crate::event::{Event, Value};
use crate::schema::{
    self, CUSTOMER_ID, ColumnNames, EVENT_NAME, IDEMPOTENCY_KEY, PROPERTIES,
    PROPERTY_COLUMNS_DEFAULT, RESOURCE_ID, SOURCE, TIMESTAMP, TIMESTAMP_SOURCE, ValueKind,
};
use crate::time::Timestamp;

/// The event of a stored row. A timestamp that was not sent is `None`.
///
/// # Errors
/// A column of the envelope that is missing or of another type.
pub fn event_of(rows: &RecordBatch, row: usize) -> Result<Event<'static>> {
    let text = |name: &str| -> Result<Option<Cow<'static, str>>> {
        let column = rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        let column = column.ok_or_else(|| missing(name))?;
        Ok(column.is_valid(row).then(|| Cow::Owned(column.value(row).to_owned())))
    };
    let sent = text(TIMESTAMP_SOURCE)?.as_deref() == Some("sent");
    Ok(Event {
        event_name: text(EVENT_NAME)?.unwrap_or_default(),
        idempotency_key: text(IDEMPOTENCY_KEY)?.unwrap_or_default(),
        customer_id: text(CUSTOMER_ID)?,
        resource_id: text(RESOURCE_ID)?,
        source: text(SOURCE)?,
        timestamp: if sent { Some(instant(rows, TIMESTAMP, row)?) } else { None },
        properties: properties(rows, row),
    })
}

/// An instant of a stored row.
///
/// # Errors
/// A column that is missing or of another type.
pub fn instant(rows: &RecordBatch, column: &str, row: usize) -> Result<Timestamp> {
    let instants = rows.column_by_name(column);
    let instants = instants.and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
    Ok(Timestamp::from_micros(instants.ok_or_else(|| missing(column))?.value(row)))
}

fn missing(column: &str) -> Error {
    Error::corrupt(format!("a data file has no `{column}` of the right type"))
}

fn properties(rows: &RecordBatch, row: usize) -> Vec<(Cow<'static, str>, Value<'static>)> {
    let mut found = Vec::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        if column.is_null(row) {
            continue;
        }
        if let Some((kind, name)) = schema::property_of_column(field.name()) {
            found.push((Cow::Owned(name.to_owned()), value(kind, column, row)));
        } else if field.name() == PROPERTIES {
            let entries = column.as_map().value(row);
            let (names, texts) = (entries.column(0).as_string::<i32>(), entries.column(1));
            for (name, text) in names.iter().zip(texts.as_string::<i32>()) {
                let Some((name, text)) = name.zip(text) else { continue };
                // Of such a kind, a value goes to the map again.
                let text = Value::Json(Cow::Owned(text.to_owned()));
                found.push((Cow::Owned(name.to_owned()), text));
            }
        }
    }
    found
}

fn value(kind: ValueKind, column: &ArrayRef, row: usize) -> Value<'static> {
    match kind {
        ValueKind::Integer => {
            Value::Number(Number::Integer(column.as_primitive::<Int64Type>().value(row)))
        }
        ValueKind::Decimal => {
            Value::Number(Number::Fixed(column.as_primitive::<Decimal128Type>().value(row)))
        }
        ValueKind::Text => Value::Text(Cow::Owned(column.as_string::<i32>().value(row).to_owned())),
        ValueKind::Boolean => Value::Boolean(column.as_boolean().value(row)),
    }
}

/// Makes rows of events.
#[derive(Debug)]
pub struct RowMaker {
    names: Mutex<ColumnNames>,
    hasher: Hasher,
}

impl RowMaker {
    /// A maker of rows for the events table of this id, with these columns.
    pub fn new(table_id: &str, columns: &Schema) -> Self {
        Self {
            names: Mutex::new(ColumnNames::of_schema(columns, PROPERTY_COLUMNS_DEFAULT)),
            hasher: Hasher::new(table_id),
        }
    }

    /// The rows of `events`, in their order; those without a timestamp happened at `received`.
    ///
    /// # Errors
    /// A defect of ours: columns that do not fit each other.
    pub fn rows(&self, events: &[Event<'_>], received: Timestamp) -> Result<RecordBatch> {
        let mut chunk = ChunkBuilder::new(&self.names, &self.hasher);
        events.iter().for_each(|event| chunk.push(event));
        rows_of(&chunk.finish()?, received)
    }
}

/// All rows of a chunk, in their order.
pub(super) fn rows_of(chunk: &Chunk, received: Timestamp) -> Result<RecordBatch> {
    let rows = u32::try_from(chunk.rows())
        .map_err(|error| Error::internal("events of a chunk").with_source(error))?;
    let refs: Vec<RowRef> = (0..rows).map(|row| RowRef { chunk: 0, row }).collect();
    let chunks = std::slice::from_ref(chunk);
    let facts = BatchFacts { received_micros: received.micros(), first_ordinal: 0 };
    Gatherer::new(chunks, facts).batch(&in_order(chunks, &refs, received.micros()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::json::decode_event;

    #[test]
    fn an_event_survives_its_rows() {
        let maker = RowMaker::new("table", &Schema::empty());
        for (name, text) in [
            ("nothing but what must be", r#"{"event_name":"e","idempotency_key":"k"}"#),
            (
                "every field",
                r#"{"event_name":"e","idempotency_key":"k","customer_id":"c","resource_id":"r",
                   "source":"s","timestamp":"2026-10-01T00:00:00.123456Z"}"#,
            ),
            (
                "every kind of value",
                r#"{"event_name":"e","idempotency_key":"k","properties":{"i":-5,"d":0.25,"t":"x",
                   "b":true,"n":"12","empty":""}}"#,
            ),
        ] {
            let event = decode_event(text.as_bytes()).unwrap();
            let rows = maker.rows(std::slice::from_ref(&event), Timestamp::from_micros(7)).unwrap();
            let mut again = event_of(&rows, 0).unwrap();
            let mut want = event.clone();
            for event in [&mut again, &mut want] {
                event.properties.sort_by(|a, b| a.0.cmp(&b.0));
            }
            assert_eq!(again, want, "{name}");
        }
    }

    #[test]
    fn what_has_no_column_keeps_its_place_and_text() {
        let maker = RowMaker::new("table", &Schema::empty());
        let text = r#"{"event_name":"e","idempotency_key":"k","properties":{"a.b":true,"list":[1, 2],
                      "wide":123456789012345678901234567890.5,"B":1,"b":2}}"#;
        let event = decode_event(text.as_bytes()).unwrap();
        let rows = |event: &Event<'_>| {
            maker.rows(std::slice::from_ref(event), Timestamp::from_micros(7)).unwrap()
        };
        let first = rows(&event);
        let again = event_of(&first, 0).unwrap();
        assert_eq!(again.properties.len(), 5);
        assert_eq!(rows(&again), first);
    }
}
