//! Index entries computed from rows as they are stored.
//!
//! The key index is derived state: after a crash, on another machine or after a lost race, the
//! entries of committed files are read back from the files themselves.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use object_store::ObjectStoreExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value as Json, json};

use super::columns::content_tag;
use super::seal::date_of;
use crate::decimal::text_of_scaled_i128;
use crate::dedupe::{Content, Entry, Hasher, Index, StagedRun};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::snapshot::{DataFile, Snapshot};
use crate::lake::table::Table;
use crate::schema::{
    self, CUSTOMER_ID, EVENT_NAME, IDEMPOTENCY_KEY, PROPERTIES, RESOURCE_ID, SOURCE, TIMESTAMP,
    TIMESTAMP_SOURCE, ValueKind,
};
use crate::time::Timestamp;

/// Brings `index` up to `snapshot`, a version of `events`; says how many entries were read.
///
/// # Errors
/// A file that cannot be read or is damaged.
pub(super) async fn catch_up(
    index: &mut Index,
    events: &Table,
    snapshot: &Snapshot,
    hasher: &Hasher,
) -> Result<u64> {
    let Some(applied) = index.applied() else {
        let runs = runs_of(index, events, &snapshot.files, hasher).await?;
        let entries = runs.iter().map(StagedRun::len).sum();
        index.apply(snapshot.version, runs)?;
        return Ok(entries);
    };
    if applied > snapshot.version {
        return Err(Error::corrupt(format!(
            "the key index knows version {applied}, the table {} has only {}",
            events.display(),
            snapshot.version
        )));
    }
    let mut entries = 0;
    for change in events.changes(applied, snapshot.version).await? {
        // Compaction moves rows, which the index need not know.
        let moves = !change.removed.is_empty();
        let files = if moves { &[] } else { change.added.as_slice() };
        let runs = runs_of(index, events, files, hasher).await?;
        entries += runs.iter().map(StagedRun::len).sum::<u64>();
        index.apply(change.version, runs)?;
    }
    Ok(entries)
}

/// The entries of committed files as staged runs, one per file.
///
/// # Errors
/// A file that cannot be read or is damaged.
pub(super) async fn runs_of(
    index: &Index,
    events: &Table,
    files: &[DataFile],
    hasher: &Hasher,
) -> Result<Vec<StagedRun>> {
    let mut runs = Vec::with_capacity(files.len());
    for file in files {
        let mut entries = Vec::new();
        for batch in read(events, &file.path).await? {
            entries.extend(entries_of(&batch, hasher)?);
        }
        entries.sort_unstable_by_key(|entry| entry.key);
        entries.dedup_by_key(|entry| entry.key);
        runs.push(index.stage(entries.into_iter())?);
    }
    Ok(runs)
}

/// The rows of one data file.
///
/// # Errors
/// A file that is missing or damaged.
pub(super) async fn read(events: &Table, path: &str) -> Result<Vec<RecordBatch>> {
    let place = events.object_path(path)?;
    let name = || format!("{}/{path}", events.display());
    let got = events.location().store.get(&place).await;
    let bytes = match got {
        Ok(found) => found.bytes().await,
        Err(error) => Err(error),
    };
    let bytes = bytes.map_err(|error| {
        let kind = match error {
            object_store::Error::NotFound { .. } => ErrorKind::Corrupt,
            _ => ErrorKind::Unavailable,
        };
        Error::new(kind, format!("{}: cannot be read: {error}", name())).with_source(error)
    })?;
    let damaged = |error: &dyn std::fmt::Display| {
        Error::corrupt(format!("{}: damaged data file: {error}", name()))
    };
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| damaged(&e))?;
    let all = ProjectionMask::all();
    let rows = builder.with_projection(all).build().map_err(|error| damaged(&error))?;
    rows.map(|batch| batch.map_err(|error| damaged(&error))).collect()
}

/// The index entries of stored rows.
///
/// # Errors
/// A column of the envelope that is missing or of another type.
pub(super) fn entries_of(batch: &RecordBatch, hasher: &Hasher) -> Result<Vec<Entry>> {
    let text = |name: &str| -> Result<StringArray> {
        let column = batch.column_by_name(name);
        let column = column.and_then(|column| column.as_string_opt::<i32>());
        column.cloned().ok_or_else(|| Error::corrupt(format!("a data file has no text `{name}`")))
    };
    let (key, source) = (text(IDEMPOTENCY_KEY)?, text(SOURCE)?);
    let timestamps = batch
        .column_by_name(TIMESTAMP)
        .and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>())
        .ok_or_else(|| Error::corrupt("a data file has no instants `timestamp`"))?;
    let mut contents = vec![Content::default(); batch.num_rows()];
    add_envelope(batch, timestamps, text, hasher, &mut contents)?;
    add_properties(batch, hasher, &mut contents);
    let rows = contents.into_iter().enumerate();
    Ok(rows
        .map(|(row, content)| Entry {
            key: hasher.identity(source.is_valid(row).then(|| source.value(row)), key.value(row)),
            content: content.value(),
            date: date_of(timestamps.value(row)),
        })
        .collect())
}

fn add_envelope(
    batch: &RecordBatch,
    timestamps: &arrow::array::TimestampMicrosecondArray,
    text: impl Fn(&str) -> Result<StringArray>,
    hasher: &Hasher,
    contents: &mut [Content],
) -> Result<()> {
    debug_assert_eq!(batch.num_rows(), contents.len());
    for (tag, name) in [
        (content_tag::EVENT_NAME, EVENT_NAME),
        (content_tag::CUSTOMER_ID, CUSTOMER_ID),
        (content_tag::RESOURCE_ID, RESOURCE_ID),
    ] {
        for (content, text) in contents.iter_mut().zip(text(name)?.iter()) {
            if let Some(text) = text {
                content.add(hasher.field(tag, "", text));
            }
        }
    }
    let sources = text(TIMESTAMP_SOURCE)?;
    for (row, content) in contents.iter_mut().enumerate() {
        // A timestamp that we set ourselves is no part of the content.
        if sources.value(row) == "sent" {
            let micros = timestamps.value(row).to_string();
            content.add(hasher.field(content_tag::TIMESTAMP, "", &micros));
        }
    }
    Ok(())
}

fn add_properties(batch: &RecordBatch, hasher: &Hasher, contents: &mut [Content]) {
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let Some((kind, name)) = schema::property_of_column(field.name()) else { continue };
        for (row, content) in contents.iter_mut().enumerate() {
            if column.is_null(row) {
                continue;
            }
            let owned;
            let text = match kind {
                ValueKind::Text => column.as_string::<i32>().value(row),
                ValueKind::Integer => {
                    owned = column.as_primitive::<Int64Type>().value(row).to_string();
                    &owned
                }
                ValueKind::Decimal => {
                    let scaled = column.as_primitive::<Decimal128Type>().value(row);
                    owned = text_of_scaled_i128(scaled, 18);
                    &owned
                }
                ValueKind::Boolean if column.as_boolean().value(row) => "true",
                ValueKind::Boolean => "false",
            };
            content.add(hasher.field(content_tag::PROPERTY, name, text));
        }
    }
    let others = batch.column_by_name(PROPERTIES).and_then(|column| column.as_map_opt());
    for (row, content) in contents.iter_mut().enumerate() {
        let Some(others) = others.filter(|others| others.is_valid(row)) else { continue };
        let entries = others.value(row);
        let (names, texts) = (entries.column(0), entries.column(1));
        for (name, text) in names.as_string::<i32>().iter().zip(texts.as_string::<i32>().iter()) {
            if let (Some(name), Some(text)) = (name, text) {
                content.add(hasher.field(content_tag::PROPERTY, name, text));
            }
        }
    }
}

/// One stored row as JSON of our own shape. Decimals are text, as a JSON number would be read as a
/// float by most.
pub(super) fn event_text(rows: &RecordBatch, row: usize) -> String {
    let (mut event, mut properties) = (Map::new(), Map::new());
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        if column.is_null(row) {
            continue;
        }
        match schema::property_of_column(field.name()) {
            Some((_, name)) => {
                properties.insert(name.to_owned(), json_value(column, row));
            }
            None if field.name() == PROPERTIES => {
                let entries = column.as_map().value(row);
                let names = entries.column(0).as_string::<i32>();
                let texts = entries.column(1).as_string::<i32>();
                for (name, text) in names.iter().zip(texts.iter()) {
                    properties.insert(name.unwrap_or_default().to_owned(), json!(text));
                }
            }
            None if [EVENT_NAME, IDEMPOTENCY_KEY, CUSTOMER_ID, RESOURCE_ID, SOURCE, TIMESTAMP]
                .contains(&field.name().as_str()) =>
            {
                event.insert(field.name().clone(), json_value(column, row));
            }
            None => {}
        }
    }
    event.insert(PROPERTIES.to_owned(), Json::Object(properties));
    Json::Object(event).to_string()
}

fn json_value(column: &ArrayRef, row: usize) -> Json {
    if let Some(integers) = column.as_primitive_opt::<Int64Type>() {
        return json!(integers.value(row));
    }
    if let Some(decimals) = column.as_primitive_opt::<Decimal128Type>() {
        return json!(text_of_scaled_i128(decimals.value(row), 18));
    }
    if let Some(booleans) = column.as_boolean_opt() {
        return json!(booleans.value(row));
    }
    if let Some(instants) = column.as_primitive_opt::<TimestampMicrosecondType>() {
        return json!(Timestamp::from_micros(instants.value(row)).to_string());
    }
    json!(column.as_string_opt::<i32>().map(|texts| texts.value(row)))
}
