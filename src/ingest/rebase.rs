//! A batch that lost the race for its version, brought onto what the winner made.
//!
//! What the winner brought too is dropped, as the key index has it by then; the rest is written anew
//! under a later instant of receipt, so that the order of receipt stays that of the
//! versions. Where names are declared for upserts, it is also decided anew which events of the lake
//! those of the batch take the places of.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use tokio::runtime::Handle;

use super::Counts;
use super::quarantine::Quarantined;
use super::stored::{Columns, GROUP_ENTRIES, batches, entries_of, in_order};
use super::upsert::{Ended, Names, Replaceable, held_by, keys_of, texts};
use crate::dedupe::{Entry, Hasher, Index, Key, StagedRun};
use crate::error::{Error, Result};
use crate::lake::layout::layout_for;
use crate::lake::snapshot::Snapshot;
use crate::lake::staged::StagedFile;
use crate::lake::table::Table;
use crate::lake::writer::ParquetFileWriter;
use crate::schema::{EVENT_NAME, INGESTED_AT, KIND, KIND_EVENT, ORDINAL};
use crate::time::Timestamp;

/// Files of a batch that wait for their commit, and the keys of their rows.
#[derive(Debug, Default)]
pub(super) struct Staged {
    pub(super) files: Vec<StagedFile>,
    pub(super) keys: Vec<StagedRun>,
    /// Those of which an event of a declared name counts; not among the others.
    pub(super) declared: Vec<StagedRun>,
    /// How many of these have an event in the lake that will count no more.
    pub(super) ends: u64,
    /// The days that such events were received for, and perhaps others.
    pub(super) days: BTreeSet<i32>,
    /// The files of the lake in which they are ended, once these are written.
    pub(super) ended: Option<Ended>,
}

impl Staged {
    fn runs(&self) -> impl Iterator<Item = &StagedRun> {
        self.keys.iter().chain(&self.declared)
    }
}

/// Which of a batch's identities the lake has.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// The content that holds each, but for those of declared names.
    contents: HashMap<Key, u64>,
    /// The days of the rows of all, also of those that the batch was to replace from the first.
    days: BTreeSet<i32>,
}

impl Taken {
    /// Whether the lake has none.
    pub(super) fn is_empty(&self) -> bool {
        self.days.is_empty()
    }
}

/// What a rebase changed of a batch's accounts.
#[derive(Debug, Default)]
pub(super) struct Rebased {
    pub(super) counts: Counts,
    pub(super) quarantined: Vec<Quarantined>,
    /// How many events of the batch take the place of earlier ones, all told.
    pub(super) replaced: u64,
}

/// What decides which events of a batch take the places of others.
pub(super) struct Upserts<'u> {
    names: &'u Names,
    /// Identities of the batch of which the lake has an event that counts and is of a declared name.
    replaceable: HashSet<Key>,
    /// The first place in the batch of each identity that it brings more than one event of.
    firsts: HashMap<Key, i64>,
}

impl<'u> Upserts<'u> {
    /// Looks at the rows of `base` and of the batch that matter.
    ///
    /// # Errors
    /// A file that cannot be read or is damaged.
    pub(super) fn of(
        lake: &Replaceable<'u>,
        base: &Snapshot,
        staged: &Staged,
        taken: &Taken,
    ) -> Result<Self> {
        let mut upserts =
            Self { names: lake.names, replaceable: HashSet::new(), firsts: HashMap::new() };
        if staged.ends == 0 && taken.is_empty() {
            return Ok(upserts);
        }
        let days: BTreeSet<i32> = staged.days.union(&taken.days).copied().collect();
        upserts.replaceable = lake.keys(base, Some(&days), |keys| held_by(keys, staged.runs()))?;
        for file in &staged.files {
            for rows in lake.runtime.block_on(batches(lake.events, &file.path, Columns::All))? {
                upserts.add_firsts(&rows?, lake.hasher)?;
            }
        }
        Ok(upserts)
    }

    /// Of several events of an identity, all but the last are replaced.
    fn add_firsts(&mut self, rows: &RecordBatch, hasher: &Hasher) -> Result<()> {
        let (kinds, ordinals) = (texts(rows, KIND)?, ordinals(rows)?);
        if kinds.iter().all(|kind| kind == Some(KIND_EVENT)) {
            return Ok(());
        }
        for (row, key) in keys_of(rows, hasher)?.into_iter().enumerate() {
            if kinds.value(row) != KIND_EVENT {
                let first = self.firsts.entry(key).or_insert(ordinals[row]);
                *first = (*first).min(ordinals[row]);
            }
        }
        Ok(())
    }
}

fn ordinals(rows: &RecordBatch) -> Result<&[i64]> {
    let column = rows.column_by_name(ORDINAL).and_then(|c| c.as_primitive_opt::<Int64Type>());
    let column = column.ok_or_else(|| Error::corrupt("a data file has no `ordinal`"))?;
    Ok(column.values())
}

/// The identities of `staged` that `index`, which stands at the version to build on, has.
///
/// # Errors
/// A run that cannot be read or is damaged.
pub(super) fn taken(index: &Index, staged: &Staged) -> Result<Taken> {
    let mut taken = Taken::default();
    for (runs, is_declared) in [(&staged.keys, false), (&staged.declared, true)] {
        for run in runs {
            run.each_group(|keys| {
                for (key, found) in keys.iter().zip(index.probe(keys)?) {
                    let Some(found) = found else { continue };
                    taken.days.insert(found.date);
                    if !is_declared {
                        taken.contents.insert(*key, found.content);
                    }
                }
                Ok(())
            })?;
        }
    }
    Ok(taken)
}

/// Writes the rows of `staged` anew, without those in `taken`, as received at `received`; where names
/// are declared, as `upserts` and `index`, which stands at the version to build on, have it.
///
/// # Errors
/// A store that cannot be read or written.
pub(super) fn rebase(
    staged: Staged,
    (taken, upserts): (&Taken, Option<&Upserts<'_>>),
    received: Timestamp,
    (events, index): (&Table, &Index),
    hasher: &Hasher,
    runtime: &Handle,
) -> Result<(Staged, Rebased)> {
    let (mut fresh, mut rebased) = (Staged::default(), Rebased::default());
    let (mut entries, mut declared): (Vec<Entry>, Vec<Entry>) = (Vec::new(), Vec::new());
    for file in staged.files {
        let mut writer: Option<ParquetFileWriter> = None;
        for rows in runtime.block_on(batches(events, &file.path, Columns::All))? {
            let rows = rows?;
            let of_rows = entries_of(&rows, hasher)?;
            let chosen = match upserts {
                None => drop_taken(&rows, of_rows, &taken.contents, &mut rebased),
                Some(upserts) => {
                    upserts.choose(&rows, of_rows, (index, &mut fresh), &mut rebased)?
                }
            };
            entries.extend(chosen.others);
            declared.extend(chosen.declared);
            for (entries, runs) in
                [(&mut entries, &mut fresh.keys), (&mut declared, &mut fresh.declared)]
            {
                if entries.len() >= GROUP_ENTRIES {
                    runs.push(index.stage(in_order(std::mem::take(entries)).into_iter())?);
                }
            }
            let kept = filter_record_batch(&rows, &BooleanArray::from(chosen.keep))
                .map_err(|error| Error::internal("drop rows of the winner").with_source(error))?;
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
    for (entries, runs) in [(entries, &mut fresh.keys), (declared, &mut fresh.declared)] {
        if !entries.is_empty() {
            runs.push(index.stage(in_order(entries).into_iter())?);
        }
    }
    Ok((fresh, rebased))
}

/// Which rows of a batch stay, and the index entries of these.
#[derive(Debug, Default)]
struct Chosen {
    keep: Vec<bool>,
    others: Vec<Entry>,
    /// Those of events of declared names that count.
    declared: Vec<Entry>,
}

fn drop_taken(
    rows: &RecordBatch,
    entries: Vec<Entry>,
    taken: &HashMap<Key, u64>,
    rebased: &mut Rebased,
) -> Chosen {
    let mut chosen = Chosen::default();
    for (row, entry) in entries.into_iter().enumerate() {
        match taken.get(&entry.key) {
            Some(&first) => rebased.drop(rows, row, first, entry.content),
            None => chosen.others.push(entry),
        }
        chosen.keep.push(!taken.contains_key(&entry.key));
    }
    chosen
}

impl Rebased {
    /// Counts a row that is not stored after all, as `first` has its identity.
    fn drop(&mut self, rows: &RecordBatch, row: usize, first: u64, second: u64) {
        if first == second {
            self.counts.duplicate += 1;
        } else {
            self.counts.conflict += 1;
            self.quarantined.push(Quarantined::conflict(rows, row, first, second));
        }
    }
}

impl Upserts<'_> {
    /// Decides as deduplication does, as if the rows came after the version that `index` stands at.
    fn choose(
        &self,
        rows: &RecordBatch,
        entries: Vec<Entry>,
        (index, fresh): (&Index, &mut Staged),
        rebased: &mut Rebased,
    ) -> Result<Chosen> {
        let (kinds, names, ordinals) =
            (texts(rows, KIND)?, texts(rows, EVENT_NAME)?, ordinals(rows)?);
        let mut order: Vec<usize> = (0..entries.len()).collect();
        order.sort_unstable_by_key(|&row| entries[row].key);
        let sorted: Vec<Key> = order.iter().map(|&row| entries[row].key).collect();
        let mut held = vec![None; entries.len()];
        for (row, found) in order.into_iter().zip(index.probe(&sorted)?) {
            held[row] = found;
        }
        let mut chosen = Chosen::default();
        for (row, (entry, held)) in entries.into_iter().zip(held).enumerate() {
            let is_declared = self.names.contains(names.value(row));
            let counts = kinds.value(row) == KIND_EVENT;
            if let Some(held) = held {
                let is_first =
                    self.firsts.get(&entry.key).is_none_or(|first| *first == ordinals[row]);
                let again = is_first && held.content == entry.content;
                if again || !is_declared || !self.replaceable.contains(&entry.key) {
                    rebased.drop(rows, row, held.content, entry.content);
                    chosen.keep.push(false);
                    continue;
                }
                if counts {
                    fresh.ends += 1;
                    fresh.days.insert(held.date);
                }
            }
            // Each but the last of an identity is replaced by the next, and the first replaces what
            // the lake holds.
            rebased.replaced += u64::from(!counts || held.is_some());
            chosen.keep.push(true);
            match (counts, is_declared) {
                (true, true) => chosen.declared.push(entry),
                (true, false) => chosen.others.push(entry),
                (false, _) => {}
            }
        }
        Ok(chosen)
    }
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
    use crate::ingest::stored::catch_up;
    use crate::ingest::stored::tests::{commit, events_in, staged};

    #[test]
    fn rows_of_many_files_are_rebased_with_one_run_and_without_what_is_taken() {
        let [lake, state] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let events = runtime.block_on(events_in(lake.path()));
        let mut index = Index::open(state.path(), events.table_id(), "now").unwrap();
        let hasher = Hasher::new(events.table_id());
        let files = [0..10, 10..20, 20..30].map(|n| runtime.block_on(staged(&events, n)));
        let mut ours = Staged { files: files.to_vec(), ..Staged::default() };
        let key = |number: i64| hasher.identity(Some("s"), &number.to_string());
        let entries = (0..30).map(|number| Entry { key: key(number), content: 0, date: 0 });
        ours.keys.push(index.stage(in_order(entries.collect()).into_iter()).unwrap());

        let base = runtime.block_on(commit(&events, &[(5, 8), (40, 50)]));
        let caught_up = catch_up(&mut index, &events, &base, &hasher);
        runtime.block_on(caught_up).unwrap();
        let taken = taken(&index, &ours).unwrap();
        let mut want: Vec<Key> = (5..8).map(key).collect();
        want.sort_unstable();
        let mut got: Vec<Key> = taken.contents.keys().copied().collect();
        got.sort_unstable();
        assert_eq!(got, want);

        let received = Timestamp::from_micros(7_000);
        let (fresh, rebased) =
            rebase(ours, (&taken, None), received, (&events, &index), &hasher, runtime.handle())
                .unwrap();
        assert_eq!(rebased.counts.duplicate, 3);
        assert_eq!(fresh.files.len(), 3);
        let runs: Vec<u64> = fresh.keys.iter().map(StagedRun::len).collect();
        assert_eq!(runs, [27]);
    }
}
