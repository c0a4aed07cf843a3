//! A batch that lost the race for its version, brought onto what the winner made.
//!
//! What the winner brought too is dropped, by the identities in the winner's files; the rest is
//! written anew under a later instant of receipt, so that the order of receipt stays that of the
//! versions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::filter_record_batch;
use tokio::runtime::Handle;

use super::Counts;
use super::batch::layout_for;
use super::quarantine::Quarantined;
use super::stored::{entries_of, read};
use crate::dedupe::{Entry, Hasher, Index, Key, StagedRun};
use crate::error::{Error, Result};
use crate::lake::staged::StagedFile;
use crate::lake::table::Table;
use crate::lake::writer::ParquetFileWriter;
use crate::schema::INGESTED_AT;
use crate::time::Timestamp;

/// Files of a batch that wait for their commit, and the keys of their rows.
#[derive(Debug, Default)]
pub(super) struct Staged {
    pub(super) files: Vec<StagedFile>,
    pub(super) keys: Vec<StagedRun>,
}

/// What a rebase changed of a batch's accounts.
#[derive(Debug, Default)]
pub(super) struct Rebased {
    pub(super) counts: Counts,
    pub(super) quarantined: Vec<Quarantined>,
}

/// The identities of `keys` that the versions after `from` brought, with the content they brought.
///
/// # Errors
/// A file of the winner that cannot be read.
pub(super) async fn taken(
    events: &Table,
    keys: &[StagedRun],
    (from, to): (u64, u64),
    hasher: &Hasher,
) -> Result<HashMap<Key, u64>> {
    let mut taken = HashMap::new();
    for change in events.changes(from, to).await? {
        for file in change.added.iter().filter(|_| change.removed.is_empty()) {
            let mut entries: Vec<Entry> = Vec::new();
            for rows in read(events, &file.path).await? {
                entries.extend(entries_of(&rows, hasher)?);
            }
            entries.sort_unstable_by_key(|entry| entry.key);
            let sorted: Vec<Key> = entries.iter().map(|entry| entry.key).collect();
            for run in keys {
                let found = run.probe(&sorted)?;
                let both = entries.iter().zip(found).filter(|(_, found)| found.is_some());
                taken.extend(both.map(|(entry, _)| (entry.key, entry.content)));
            }
        }
    }
    Ok(taken)
}

/// Writes the rows of `staged` anew, without those in `taken`, as received at `received`.
///
/// # Errors
/// A store that cannot be read or written.
pub(super) fn rebase(
    staged: Staged,
    taken: &HashMap<Key, u64>,
    received: Timestamp,
    (events, index): (&Table, &Index),
    hasher: &Hasher,
    runtime: &Handle,
) -> Result<(Staged, Rebased)> {
    let (mut fresh, mut rebased) = (Staged::default(), Rebased::default());
    for file in staged.files {
        let mut writer: Option<ParquetFileWriter> = None;
        let mut entries: BTreeMap<Key, Entry> = BTreeMap::new();
        let mut encoded = Vec::new();
        for rows in runtime.block_on(read(events, &file.path))? {
            let of_rows = entries_of(&rows, hasher)?;
            let kept = drop_taken(&rows, &of_rows, taken, &mut rebased)?;
            entries.extend(
                of_rows.into_iter().filter(|e| !taken.contains_key(&e.key)).map(|e| (e.key, e)),
            );
            if kept.num_rows() == 0 {
                continue;
            }
            let kept = received_at(&kept, received)?;
            let open = match &mut writer {
                Some(open) => open,
                None => {
                    let layout = layout_for(&kept);
                    writer.insert(ParquetFileWriter::new(kept.schema(), &layout, file.partition)?)
                }
            };
            encoded.extend(open.write(&kept)?);
        }
        encoded.extend(writer.map(ParquetFileWriter::finish).transpose()?.flatten());
        for file in encoded {
            fresh.files.push(runtime.block_on(events.stage(file))?);
        }
        if !entries.is_empty() {
            fresh.keys.push(index.stage(entries.into_values())?);
        }
    }
    Ok((fresh, rebased))
}

fn drop_taken(
    rows: &RecordBatch,
    entries: &[Entry],
    taken: &HashMap<Key, u64>,
    rebased: &mut Rebased,
) -> Result<RecordBatch> {
    let mut keep = Vec::with_capacity(entries.len());
    for (row, entry) in entries.iter().enumerate() {
        let Some(&first) = taken.get(&entry.key) else {
            keep.push(true);
            continue;
        };
        keep.push(false);
        if first == entry.content {
            rebased.counts.duplicate += 1;
        } else {
            rebased.counts.conflict += 1;
            rebased.quarantined.push(Quarantined::conflict(rows, row, first, entry.content));
        }
    }
    filter_record_batch(rows, &BooleanArray::from(keep))
        .map_err(|error| Error::internal("drop rows of the winner").with_source(error))
}

fn received_at(rows: &RecordBatch, received: Timestamp) -> Result<RecordBatch> {
    let instants = TimestampMicrosecondArray::from(vec![received.micros(); rows.num_rows()]);
    let instants: ArrayRef = Arc::new(instants.with_timezone("UTC"));
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns()).map(|(field, column)| {
        if field.name() == INGESTED_AT { Arc::clone(&instants) } else { Arc::clone(column) }
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect())
        .map_err(|error| Error::internal("instant of receipt").with_source(error))
}
