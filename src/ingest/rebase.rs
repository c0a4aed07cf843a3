//! A batch that lost the race for its version, brought onto what the winner made.
//!
//! What the winner brought too is dropped, by the identities in the winner's files; the rest is
//! written anew under a later instant of receipt, so that the order of receipt stays that of the
//! versions.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::filter_record_batch;
use tokio::runtime::Handle;

use super::Counts;
use super::quarantine::Quarantined;
use super::stored::{Columns, GROUP_ENTRIES, batches, each_group, entries_of, in_order};
use crate::dedupe::{Entry, Hasher, Index, Key, StagedRun};
use crate::error::{Error, Result};
use crate::lake::layout::layout_for;
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
/// A file of the winner that cannot be read; conflict when the table was set back meanwhile.
pub(super) async fn taken(
    events: &Table,
    keys: &[StagedRun],
    (from, to): (u64, u64),
    hasher: &Hasher,
) -> Result<HashMap<Key, u64>> {
    if from > to {
        // What was taken for a duplicate may be gone by now.
        return Err(Error::conflict(format!(
            "{} was set back from version {from} to {to} while events were read: run the same \
             command again",
            events.display()
        )));
    }
    let mut taken = HashMap::new();
    let changes = events.changes(from, to).await?;
    // Compaction moves rows, corrections say what counts: neither brings an identity.
    for change in changes.iter().filter(|change| change.removed.is_empty()) {
        each_group((events, &change.added), hasher, GROUP_ENTRIES, |entries| {
            let sorted: Vec<Key> = entries.iter().map(|entry| entry.key).collect();
            for run in keys {
                let found = run.probe(&sorted)?;
                let both = entries.iter().zip(found).filter(|(_, found)| found.is_some());
                taken.extend(both.map(|(entry, _)| (entry.key, entry.content)));
            }
            Ok(())
        })
        .await?;
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
    let mut entries: Vec<Entry> = Vec::new();
    for file in staged.files {
        let mut writer: Option<ParquetFileWriter> = None;
        for rows in runtime.block_on(batches(events, &file.path, Columns::All))? {
            let rows = rows?;
            let of_rows = entries_of(&rows, hasher)?;
            let kept = drop_taken(&rows, &of_rows, taken, &mut rebased)?;
            entries.extend(of_rows.into_iter().filter(|entry| !taken.contains_key(&entry.key)));
            if entries.len() >= GROUP_ENTRIES {
                fresh.keys.push(index.stage(in_order(std::mem::take(&mut entries)).into_iter())?);
            }
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
            for full in open.write(&kept)? {
                fresh.files.push(runtime.block_on(events.stage(full))?);
            }
        }
        if let Some(last) = writer.map(ParquetFileWriter::finish).transpose()?.flatten() {
            fresh.files.push(runtime.block_on(events.stage(last))?);
        }
    }
    if !entries.is_empty() {
        fresh.keys.push(index.stage(in_order(entries).into_iter())?);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::ingest::stored::tests::{commit, events_in, staged};

    #[test]
    fn rows_of_many_files_are_rebased_with_one_run_and_without_what_is_taken() {
        let [lake, state] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let events = runtime.block_on(events_in(lake.path()));
        let index = Index::open(state.path(), events.table_id(), "now").unwrap();
        let hasher = Hasher::new(events.table_id());
        let files = [0..10, 10..20, 20..30].map(|n| runtime.block_on(staged(&events, n)));
        let mut ours = Staged { files: files.to_vec(), keys: Vec::new() };
        let key = |number: i64| hasher.identity(Some("s"), &number.to_string());
        let entries = (0..30).map(|number| Entry { key: key(number), content: 0, date: 0 });
        ours.keys.push(index.stage(in_order(entries.collect()).into_iter()).unwrap());

        let from = runtime.block_on(events.snapshot(None)).unwrap().version;
        let to = runtime.block_on(commit(&events, &[(5, 8), (40, 50)])).version;
        let taken_by = |versions| {
            let taken = taken(&events, &ours.keys, versions, &hasher);
            runtime.block_on(taken)
        };
        assert_eq!(taken_by((to, from)).unwrap_err().kind(), ErrorKind::Conflict);
        let taken = taken_by((from, to)).unwrap();
        let mut want: Vec<Key> = (5..8).map(key).collect();
        want.sort_unstable();
        let mut got: Vec<Key> = taken.keys().copied().collect();
        got.sort_unstable();
        assert_eq!(got, want);

        let received = Timestamp::from_micros(7_000);
        let (fresh, rebased) =
            rebase(ours, &taken, received, (&events, &index), &hasher, runtime.handle()).unwrap();
        assert_eq!(rebased.counts.duplicate, 3);
        assert_eq!(fresh.files.len(), 3);
        let runs: Vec<u64> = fresh.keys.iter().map(StagedRun::len).collect();
        assert_eq!(runs, [27]);
    }
}
