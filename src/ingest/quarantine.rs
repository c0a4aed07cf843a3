//! Refused and conflicting events, kept and listed.
//!
//! They are written before the batch they came with commits. Each has an identity made of where it
//! came from and what it says, so that a repeated run lists it once.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, SchemaRef};

use super::decode::Rejected;
use super::stored;
use crate::error::{Error, Result};
use crate::lake::commit::Commit;
use crate::lake::tables::Lake;
use crate::lake::writer::{Layout, ParquetFileWriter};
use crate::schema::{self, quarantine};
use crate::time::Timestamp;

/// An event that is not among the events, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// `rejected` or `conflict`.
    pub outcome: &'static str,
    /// Short word for the reason.
    pub reason: String,
    /// The field at fault.
    pub field: Option<String>,
    /// The reason in words.
    pub message: String,
    /// The input it came from.
    pub input: Option<String>,
    /// Line or row there.
    pub line: Option<u64>,
    /// Its text.
    pub event: String,
}

impl From<Rejected> for Quarantined {
    fn from(rejected: Rejected) -> Self {
        Self {
            outcome: "rejected",
            reason: rejected.rejection.code().to_owned(),
            field: rejected.rejection.field().map(ToOwned::to_owned),
            message: rejected.rejection.to_string(),
            input: Some(rejected.input.to_string()),
            line: Some(rejected.line),
            event: rejected.event,
        }
    }
}

impl Quarantined {
    /// The event of a conflict that came second: a row as it would have been stored, and the
    /// content hashes of both.
    pub(super) fn conflict(rows: &RecordBatch, row: usize, first: u64, second: u64) -> Self {
        let key = rows.column_by_name(schema::IDEMPOTENCY_KEY).map(|k| k.as_string::<i32>());
        Self {
            outcome: "conflict",
            reason: "identity_taken".to_owned(),
            field: Some(schema::IDEMPOTENCY_KEY.to_owned()),
            message: format!(
                "idempotency_key `{}` is taken by an event of content {first:016x}, this one has {second:016x}",
                crate::event::shortened(key.map_or("", |key| key.value(row))),
            ),
            input: None,
            line: None,
            event: stored::event_text(rows, row),
        }
    }

    fn id(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let line = self.line.map(|line| line.to_string());
        for part in [
            self.outcome,
            &self.reason,
            self.input.as_deref().unwrap_or_default(),
            line.as_deref().unwrap_or_default(),
            &self.message,
            &self.event,
        ] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

/// Puts events into quarantine, unless they are there.
///
/// # Errors
/// A store that cannot be written.
pub async fn keep(
    lake: &Lake,
    events: Vec<Quarantined>,
    known: &mut HashSet<String>,
    received: Timestamp,
) -> Result<()> {
    let mut fresh: Vec<(String, Quarantined)> = Vec::with_capacity(events.len());
    for event in events {
        let id = event.id();
        if known.insert(id.clone()) {
            fresh.push((id, event));
        }
    }
    if fresh.is_empty() {
        return Ok(());
    }
    let table = lake.quarantine_or_create().await?;
    let rows = rows(&fresh, received)?;
    let layout = Layout { no_dictionary: vec![quarantine::ID.to_owned()], ..Layout::default() };
    let mut writer = ParquetFileWriter::new(rows.schema(), &layout, None)?;
    let mut files = writer.write(&rows)?;
    files.extend(writer.finish()?);
    let mut add = Vec::with_capacity(files.len());
    for file in files {
        add.push(table.stage(file).await?);
    }
    let at_ms = received.micros() / 1_000;
    table.append(Commit { add, at_ms, ..Commit::default() }).await?;
    Ok(())
}

fn rows(events: &[(String, Quarantined)], received: Timestamp) -> Result<RecordBatch> {
    let texts = |part: fn(&Quarantined) -> Option<&str>| -> ArrayRef {
        Arc::new(events.iter().map(|(_, event)| part(event)).collect::<StringArray>())
    };
    let lines = events.iter().map(|(_, e)| e.line.and_then(|line| i64::try_from(line).ok()));
    let instants = vec![received.micros(); events.len()];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(events.iter().map(|(id, _)| Some(id)).collect::<StringArray>()),
        Arc::new(TimestampMicrosecondArray::from(instants).with_timezone("UTC")),
        texts(|event| Some(event.outcome)),
        texts(|event| Some(&event.reason)),
        texts(|event| event.field.as_deref()),
        texts(|event| Some(&event.message)),
        texts(|event| event.input.as_deref()),
        Arc::new(lines.collect::<Int64Array>()),
        texts(|event| Some(&event.event)),
    ];
    RecordBatch::try_new(Arc::new(quarantine::schema()), columns)
        .map_err(|error| Error::internal("rows of the quarantine").with_source(error))
}

/// The identities of everything in quarantine.
///
/// # Errors
/// A damaged table.
pub async fn known_ids(lake: &Lake) -> Result<HashSet<String>> {
    let mut ids = HashSet::new();
    for batch in list(lake, None).await? {
        if let Some(column) = batch.column_by_name(quarantine::ID) {
            ids.extend(column.as_string::<i32>().iter().flatten().map(ToOwned::to_owned));
        }
    }
    Ok(ids)
}

/// Everything in quarantine, oldest first, each event once; at most `limit` rows.
///
/// # Errors
/// A damaged table.
pub async fn list(lake: &Lake, limit: Option<usize>) -> Result<Vec<RecordBatch>> {
    let Some(table) = lake.quarantine().await? else { return Ok(Vec::new()) };
    let snapshot = table.snapshot(None).await?;
    let schema: SchemaRef = Arc::new(quarantine::schema());
    let mut batches = Vec::new();
    for file in &snapshot.files {
        batches.extend(stored::read(&table, &file.path).await?);
    }
    let all = concat_batches(&schema, &batches)
        .map_err(|error| Error::corrupt("the quarantine's files differ").with_source(error))?;
    let rows = ordered_once(&all, limit);
    let rows = arrow::compute::take_record_batch(&all, &rows)
        .map_err(|error| Error::internal("list the quarantine").with_source(error))?;
    Ok(vec![rows])
}

fn ordered_once(all: &RecordBatch, limit: Option<usize>) -> arrow::array::UInt64Array {
    use arrow::datatypes::TimestampMicrosecondType;
    let ids = all.column(0).as_string::<i32>();
    let received = all.column(1).as_primitive::<TimestampMicrosecondType>();
    let inputs = all.column(6).as_string::<i32>();
    let lines = all.column(7).as_primitive::<Int64Type>();
    let mut order: Vec<usize> = (0..all.num_rows()).collect();
    let input = |row: usize| inputs.is_valid(row).then(|| inputs.value(row));
    let line = |row: usize| lines.is_valid(row).then(|| lines.value(row));
    order.sort_by_key(|&row| (received.value(row), input(row), line(row), ids.value(row)));
    let mut seen = HashSet::new();
    order.retain(|&row| seen.insert(ids.value(row)));
    order.truncate(limit.unwrap_or(usize::MAX));
    order.into_iter().map(|row| row as u64).collect()
}
