//! One batch on its way to its commit: sealed parts, their keys, and the files made of them.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tokio::runtime::Handle;

use super::Counts;
use super::columns::Chunk;
use super::decode::Decoded;
use super::gather::{BatchFacts, Gatherer, promote_numeric_texts};
use super::quarantine::{Quarantined, Waiting};
use super::rebase::{Rebased, Staged};
use super::seal::{self, Deduplicated, Holder, RowRef, Sorted};
use super::spill::{Spill, merge_day, united_schema};
use super::upsert::{Names, told_ended, with_ended_by};
use crate::dedupe::{Found, Hasher, Index, Key, StagedRun};
use crate::error::{Error, Result};
use crate::lake::layout::layout_for;
use crate::lake::staged::StagedFile;
use crate::lake::table::Table;
use crate::lake::writer::{EncodedFile, ParquetFileWriter};
use crate::schema::upsert_id;
use crate::time::Timestamp;

/// Rows that are gathered at a time.
const GATHER_ROWS: usize = 8_192;
/// Conflicting rows that are gathered at a time, each to become a text.
const CONFLICT_ROWS: usize = 512;

/// Puts refused and conflicting events away, before more of them come.
pub(super) type Keep<'k> = dyn FnMut(Vec<Quarantined>) -> Result<()> + 'k;

/// A batch under construction.
pub(super) struct Batch {
    id: String,
    received: Timestamp,
    /// Event names of which the newest of an identity counts.
    names: Names,
    /// The version of the events that the key index stood at when the first of them was sealed, or that
    /// the batch was brought onto since.
    base: Option<u64>,
    /// Whether others brought events since.
    overtaken: bool,
    counts: Counts,
    sealed_events: u64,
    /// Sealed parts on disk.
    spills: Vec<Spill>,
    /// The last sealed part, still in memory.
    held: Option<Held>,
    keys: Vec<StagedRun>,
    /// The keys of which an event of a declared name counts, oldest part first; not among the others.
    declared: Vec<StagedRun>,
    /// How many events take the place of earlier ones.
    replaced: u64,
    /// How many identities have an event in the lake that will count no more, and the days of these.
    ends: u64,
    days: BTreeSet<i32>,
    waiting: Waiting,
}

struct Held {
    chunks: Vec<Chunk>,
    rows: Vec<Sorted>,
    facts: BatchFacts,
    /// How many runs of declared names there were when it was sealed.
    declared: usize,
}

/// Which of some keys that the lake holds, ascending and with the days of their rows, have an event
/// that counts and is of a declared name.
pub(super) type AskReplaceable<'i> = dyn Fn(&[Key], &BTreeSet<i32>) -> Result<HashSet<Key>> + 'i;

/// What deduplication asks.
pub(super) struct Identities<'i> {
    /// The keys of the lake.
    pub index: &'i Index,
    /// Off only in tests that show what deduplication is for.
    pub deduplicate: bool,
    /// Asked only where names are declared.
    pub replaceable: &'i AskReplaceable<'i>,
}

impl Batch {
    /// An empty batch that was received at `received`, where of events of `names` the newest counts; the
    /// key index stands at version `base`.
    pub(super) fn new(received: Timestamp, names: Names, base: Option<u64>) -> Self {
        Self {
            id: uuid::Uuid::new_v4().to_string(),
            received,
            names,
            base,
            overtaken: false,
            counts: Counts::default(),
            sealed_events: 0,
            spills: Vec::new(),
            held: None,
            keys: Vec::new(),
            declared: Vec::new(),
            replaced: 0,
            ends: 0,
            days: BTreeSet::new(),
            waiting: Waiting::default(),
        }
    }

    /// Its identity.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The event names that it took for declared.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// The version of the events that it stands on.
    pub(super) fn base(&self) -> Option<u64> {
        self.base
    }

    /// It stands on this version now, as it is.
    pub(super) fn stands_on(&mut self, version: u64) {
        self.base = Some(version);
    }

    /// Others brought so many events after those that it was compared with.
    pub(super) fn overtaken_by(&mut self, events: u64) {
        self.overtaken |= events > 0;
    }

    /// Whether there are any.
    pub(super) fn is_overtaken(&self) -> bool {
        self.overtaken
    }

    /// How many of its events take the place of earlier ones.
    pub(super) fn replaced(&self) -> u64 {
        self.replaced
    }

    /// What became of its events.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Its instant of receipt.
    pub(super) fn received(&self) -> Timestamp {
        self.received
    }

    /// Refused and conflicting events that were not put away yet.
    pub(super) fn take_quarantined(&mut self) -> Vec<Quarantined> {
        self.waiting.take()
    }

    fn quarantine(&mut self, event: Quarantined, keep: &mut Keep<'_>) -> Result<()> {
        self.waiting.push(event);
        if self.waiting.is_full() { keep(self.waiting.take()) } else { Ok(()) }
    }

    /// Drops sealed events that are never to be written; their identities stay known.
    pub(super) fn drop_rows(&mut self) {
        self.held = None;
    }

    /// Whether no event is to be stored.
    pub(super) fn is_empty(&self) -> bool {
        self.counts.accepted == 0
    }

    /// Takes over what a rebase changed.
    pub(super) fn rebased(&mut self, rebased: Rebased, received: Timestamp, names: &Names) {
        self.names.clone_from(names);
        self.overtaken = false;
        self.counts.accepted -= rebased.counts.duplicate + rebased.counts.conflict;
        self.counts += rebased.counts;
        rebased.quarantined.into_iter().for_each(|event| self.waiting.push(event));
        self.replaced = rebased.replaced;
        self.received = received;
    }

    /// Deduplicates and sorts decoded events; a part that was held goes to disk in `spill_folder`,
    /// and refused or conflicting events go to `keep` when there are many.
    ///
    /// # Errors
    /// A disk that is full, a damaged key index, those of `keep`.
    pub(super) fn seal(
        &mut self,
        decoded: Vec<Decoded>,
        identities: &Identities<'_>,
        spill_folder: &std::path::Path,
        keep: &mut Keep<'_>,
    ) -> Result<()> {
        self.spill_held(spill_folder)?;
        let mut chunks = Vec::with_capacity(decoded.len());
        for piece in decoded {
            self.counts.read += piece.read();
            self.counts.rejected += piece.rejected.len() as u64;
            for rejected in piece.rejected {
                self.quarantine(rejected.into(), keep)?;
            }
            chunks.push(piece.chunk);
        }
        let received_micros = self.received.micros();
        let index = identities.index;
        let found = if !identities.deduplicate {
            seal::keep_all(&chunks)
        } else if self.names.is_empty() {
            seal::deduplicate(&chunks, received_micros, |keys| self.known(index, keys))?
        } else {
            seal::deduplicate_upserts(
                &chunks,
                received_micros,
                &self.names,
                |keys| self.held(index, keys),
                identities.replaceable,
            )?
        };
        let first_ordinal = i64::try_from(self.sealed_events).unwrap_or(i64::MAX);
        let facts = BatchFacts { received_micros, first_ordinal };
        self.account(&chunks, &found, facts, keep)?;
        self.sealed_events += chunks.iter().map(|chunk| chunk.rows() as u64).sum::<u64>();
        if found.kept.is_empty() {
            return Ok(());
        }
        if !found.entries.is_empty() {
            self.keys.push(index.stage(found.entries.into_iter())?);
        }
        let upserted = found.upserted;
        if !upserted.entries.is_empty() {
            self.declared.push(index.stage(upserted.entries.into_iter())?);
        }
        self.replaced += upserted.replacing;
        self.ends += upserted.ends;
        self.days.extend(upserted.days);
        promote_numeric_texts(&mut chunks);
        let rows = seal::sort(&chunks, &found.kept, &upserted.superseded, received_micros);
        self.held = Some(Held { chunks, rows, facts, declared: self.declared.len() });
        Ok(())
    }

    fn account(
        &mut self,
        chunks: &[Chunk],
        found: &Deduplicated,
        facts: BatchFacts,
        keep: &mut Keep<'_>,
    ) -> Result<()> {
        self.counts.accepted += found.kept.len() as u64;
        self.counts.duplicate += found.duplicates;
        self.counts.conflict += found.conflicts.len() as u64;
        if found.conflicts.is_empty() {
            return Ok(());
        }
        let gatherer = Gatherer::new(chunks, facts);
        for some in found.conflicts.chunks(CONFLICT_ROWS) {
            let refs: Vec<RowRef> = some.iter().map(|conflict| conflict.row).collect();
            let rows = gatherer.batch(&seal::in_order(chunks, &refs, facts.received_micros))?;
            for (row, conflict) in some.iter().enumerate() {
                let place = conflict.row;
                let place = chunks[place.chunk as usize].place(place.row as usize);
                let event = Quarantined::conflict(&rows, row, conflict.first, conflict.second);
                self.quarantine(event.at_place(place), keep)?;
            }
        }
        Ok(())
    }

    /// What the lake, and the parts of this batch that were sealed before, hold of sorted keys.
    fn known(&self, index: &Index, keys: &[Key]) -> Result<Vec<Option<Found>>> {
        let mut found = index.probe(keys)?;
        for part in &self.keys {
            for (found, staged) in found.iter_mut().zip(part.probe(keys)?) {
                *found = found.or(staged);
            }
        }
        Ok(found)
    }

    /// As [`Batch::known`], and where: what holds an identity now is the last that came.
    fn held(&self, index: &Index, keys: &[Key]) -> Result<Vec<Option<(Found, Holder)>>> {
        let in_lake = |found: Option<Found>| found.map(|found| (found, Holder::Lake));
        let mut held: Vec<_> = index.probe(keys)?.into_iter().map(in_lake).collect();
        let others = self.keys.iter().map(|run| (run, Holder::Other));
        let declared = self.declared.iter().map(|run| (run, Holder::Declared));
        for (run, holder) in others.chain(declared) {
            for (held, found) in held.iter_mut().zip(run.probe(keys)?) {
                *held = found.map(|found| (found, holder)).or(*held);
            }
        }
        Ok(held)
    }

    fn spill_held(&mut self, folder: &std::path::Path) -> Result<()> {
        if let Some(held) = self.held.take() {
            let gatherer = Gatherer::new(&held.chunks, held.facts);
            self.spills.push(Spill::write(&gatherer, &held.rows, held.declared, folder)?);
        }
        Ok(())
    }

    /// Writes the events as data files of `events`, day by day, and stages them.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub(super) fn write(
        &mut self,
        events: &Table,
        (runtime, hasher): (&Handle, &Hasher),
        threads: usize,
        spill_folder: &std::path::Path,
    ) -> Result<Staged> {
        let files = self.write_files(events, (runtime, hasher), threads, spill_folder)?;
        Ok(Staged {
            files,
            keys: std::mem::take(&mut self.keys),
            declared: std::mem::take(&mut self.declared),
            ends: self.ends,
            days: std::mem::take(&mut self.days),
            ended: None,
        })
    }

    fn write_files(
        &mut self,
        events: &Table,
        (runtime, hasher): (&Handle, &Hasher),
        threads: usize,
        spill_folder: &std::path::Path,
    ) -> Result<Vec<StagedFile>> {
        // Events that a later one of the batch replaces tell so.
        let ended_by = (self.replaced > self.ends).then(|| upsert_id(&self.id));
        let written = |schema: &SchemaRef| match ended_by {
            Some(_) => with_ended_by(schema),
            None => Arc::clone(schema),
        };
        if !self.spills.is_empty() {
            self.spill_held(spill_folder)?;
            let schema = united_schema(&self.spills);
            let written = written(&schema);
            let days: BTreeSet<i32> = self.spills.iter().flat_map(Spill::days).collect();
            let days: Vec<i32> = days.into_iter().collect();
            return write_days(&days, &written, events, runtime, threads, |day, take| {
                merge_day(&self.spills, day, &schema, (&self.declared, hasher), |rows| {
                    take(told(rows, ended_by.as_deref(), &written)?)
                })
            });
        }
        let Some(held) = self.held.take() else { return Ok(Vec::new()) };
        let gatherer = Gatherer::new(&held.chunks, held.facts);
        let days: Vec<&[Sorted]> = held.rows.chunk_by(|a, b| a.date == b.date).collect();
        let dates: Vec<i32> = days.iter().map(|day| day[0].date).collect();
        let written = written(&gatherer.schema());
        write_days(&dates, &written, events, runtime, threads, |date, take| {
            let day = dates.binary_search(&date).map_or(&[][..], |place| days[place]);
            day.chunks(GATHER_ROWS).try_for_each(|rows| {
                take(told(gatherer.batch(rows)?, ended_by.as_deref(), &written)?)
            })
        })
    }
}

/// `rows` with what ended them, if the file tells.
fn told(rows: RecordBatch, ended_by: Option<&str>, schema: &SchemaRef) -> Result<RecordBatch> {
    match ended_by {
        Some(id) => told_ended(&rows, id, schema),
        None => Ok(rows),
    }
}

type Take<'t> = &'t mut dyn FnMut(RecordBatch) -> Result<()>;

/// Writes each day with a writer of its own, `threads` days at a time.
fn write_days(
    days: &[i32],
    schema: &SchemaRef,
    events: &Table,
    runtime: &Handle,
    threads: usize,
    rows_of: impl Fn(i32, Take<'_>) -> Result<()> + Sync,
) -> Result<Vec<StagedFile>> {
    let next = AtomicUsize::new(0);
    let staged = Mutex::new(Vec::new());
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let keep_error = |error| {
        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, days.len().max(1)) {
            scope.spawn(|| {
                while let Some(&day) = days.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match write_day(day, schema, events, runtime, &rows_of) {
                        Ok(files) => {
                            staged.lock().unwrap_or_else(PoisonError::into_inner).extend(files);
                        }
                        Err(error) => {
                            next.store(days.len(), Ordering::Relaxed);
                            keep_error(error);
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut staged: Vec<StagedFile> = staged.into_inner().unwrap_or_else(PoisonError::into_inner);
    staged.sort_by(|a, b| (a.partition, &a.path).cmp(&(b.partition, &b.path)));
    Ok(staged)
}

fn write_day(
    day: i32,
    schema: &SchemaRef,
    events: &Table,
    runtime: &Handle,
    rows_of: impl Fn(i32, Take<'_>) -> Result<()>,
) -> Result<Vec<StagedFile>> {
    let mut writer: Option<ParquetFileWriter> = None;
    let mut staged = Vec::new();
    let mut stage = |file: EncodedFile| -> Result<()> {
        staged.push(runtime.block_on(events.stage(file))?);
        Ok(())
    };
    rows_of(day, &mut |rows| {
        // The first rows of a day tell which columns hardly repeat.
        let open = match &mut writer {
            Some(open) => open,
            None => {
                let layout = layout_for(&rows);
                writer.insert(ParquetFileWriter::new(Arc::clone(schema), &layout, Some(day))?)
            }
        };
        open.write(&rows)?.into_iter().try_for_each(&mut stage)
    })?;
    if let Some(last) = writer.map(ParquetFileWriter::finish).transpose()?.flatten() {
        stage(last)?;
    }
    Ok(staged)
}

/// The folder that a run spills to, removed with everything in it when dropped.
pub(super) fn spill_folder(state: &std::path::Path) -> Result<tempfile::TempDir> {
    let folder: PathBuf = state.join("spill");
    let failed = |error: std::io::Error| {
        Error::unavailable(format!("{}: cannot be used: {error}", folder.display()))
            .with_source(error)
    };
    // What a killed run left behind is of no use: only the holder of the key index gets here.
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(failed)?;
    }
    std::fs::create_dir_all(&folder).map_err(failed)?;
    tempfile::TempDir::new_in(&folder).map_err(failed)
}
