//! One run of ingest: batches until the input ends, each committed for good before the next.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use arrow::datatypes::FieldRef;
use tokio::runtime::Handle;

use super::accounts::{self, Account};
use super::batch::{self, Batch, Identities};
use super::decode::Decoder;
use super::fill::{Room, fill};
use super::input::Input;
use super::mapping::Mapping;
use super::rebase::{self, Staged};
use super::record::Mapper;
use super::source::Pieces;
use super::{Counts, quarantine, stored};
use crate::clock::Clock;
use crate::dedupe::{Hasher, Index};
use crate::error::{Error, ErrorKind, Result};
use crate::event::EventRules;
use crate::lake::commit::{Commit, CommitOutcome, Operation};
use crate::lake::snapshot::Snapshot;
use crate::lake::staged::StagedFile;
use crate::lake::tables::Lake;
use crate::schema::{self, ColumnNames, ValueKind};
use crate::time::Timestamp;

/// How a run ingests.
#[derive(Debug, Clone)]
pub struct IngestSettings {
    /// What is demanded of events.
    pub rules: EventRules,
    /// How foreign records become events; `None` reads our own shape.
    pub mapping: Option<Mapping>,
    /// Memory that the run may take, roughly.
    pub memory_bytes: usize,
    /// Events of one commit, at most.
    pub commit_events: u64,
    /// Threads that decode and write.
    pub threads: usize,
    /// Most properties with columns of their own.
    pub property_columns: usize,
    /// Decode, check and deduplicate, but write nothing.
    pub dry_run: bool,
    /// Off only in tests that show what deduplication is for.
    pub deduplicate: bool,
}

impl Default for IngestSettings {
    fn default() -> Self {
        Self {
            rules: EventRules::default(),
            mapping: None,
            memory_bytes: 512 << 20,
            commit_events: 10_000_000,
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            property_columns: schema::PROPERTY_COLUMNS_DEFAULT,
            dry_run: false,
            deduplicate: true,
        }
    }
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// What became of the events so far; those of the open batch are not committed yet.
    pub counts: Counts,
    /// Bytes of (decompressed) input so far.
    pub input_bytes: u64,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// What became of the events.
    pub counts: Counts,
    /// The version of the events table afterwards; `None` after a dry run.
    pub version: Option<u64>,
    /// How many commits the run made.
    pub commits: u64,
    /// Wall time.
    pub elapsed: std::time::Duration,
    /// Examples of refused and conflicting events, the first few.
    pub examples: Vec<quarantine::Quarantined>,
}

/// How many refused events a summary shows.
const EXAMPLES: usize = 5;
/// Refused events that wait in memory before they go to quarantine.
const QUARANTINE_ROWS: usize = 20_000;

/// Ingests `inputs` into `lake`, whose key index lies in `state`.
///
/// # Errors
/// An input that cannot be read, a store that cannot be written, a key index that another process
/// holds. What was committed before stays.
pub async fn ingest(
    lake: Lake,
    state: PathBuf,
    inputs: Vec<Input>,
    settings: IngestSettings,
    clock: Clock,
    progress: Arc<dyn Fn(Progress) + Send + Sync>,
) -> Result<Summary> {
    let runtime = Handle::current();
    // Decoding and sorting keep cores busy for seconds: not on threads that serve I/O.
    let run = move || {
        let mut run = Run::open(lake, &state, &inputs, settings, clock, runtime)?;
        run.go(&inputs, progress.as_ref())
    };
    match tokio::task::spawn_blocking(run).await {
        Ok(summary) => summary,
        Err(error) => Err(Error::internal("ingest stopped").with_source(error)),
    }
}

struct Run {
    lake: Lake,
    settings: IngestSettings,
    clock: Clock,
    runtime: Handle,
    index: Index,
    decoder: Decoder,
    source: String,
    spill_folder: tempfile::TempDir,
    /// Identities in quarantine, read when the first refused event comes.
    quarantined: Option<HashSet<String>>,
    examples: Vec<quarantine::Quarantined>,
}

impl Run {
    fn open(
        lake: Lake,
        state: &Path,
        inputs: &[Input],
        settings: IngestSettings,
        clock: Clock,
        runtime: Handle,
    ) -> Result<Self> {
        let hasher = Hasher::new(lake.events.table_id());
        let mut index = open_index(&state.join("keys"), &lake, clock)?;
        let snapshot = runtime.block_on(lake.events.snapshot(None))?;
        runtime.block_on(stored::catch_up(&mut index, &lake.events, &snapshot, &hasher))?;
        if !settings.dry_run {
            runtime.block_on(accounts::take_over(&lake))?;
        }
        let names = ColumnNames::of_schema(&snapshot.schema, settings.property_columns);
        Ok(Self {
            decoder: Decoder {
                mapper: settings.mapping.clone().map(Mapper::new),
                plain: Mapper::new(Mapping::default()),
                rules: settings.rules,
                now: clock.now(),
                names: Mutex::new(names),
                hasher,
            },
            source: inputs.iter().map(|i| i.name.as_str()).collect::<Vec<_>>().join(" "),
            spill_folder: batch::spill_folder(state)?,
            quarantined: None,
            examples: Vec::new(),
            lake,
            settings,
            clock,
            runtime,
            index,
        })
    }

    fn go(&mut self, inputs: &[Input], progress: &dyn Fn(Progress)) -> Result<Summary> {
        let started = Instant::now();
        let mut pieces = Pieces::new(inputs);
        let (mut counts, mut input_bytes, mut commits) = (Counts::default(), 0, 0);
        let mut ended = false;
        while !ended {
            let mut batch = self.new_batch()?;
            while !ended && batch.counts().accepted < self.settings.commit_events {
                let room = self.room(&batch);
                let filled = fill(&mut pieces, &self.decoder, room, self.settings.threads)?;
                ended = filled.ended;
                input_bytes += filled.input_bytes;
                let deduplicate = self.settings.deduplicate;
                let identities = Identities { index: &self.index, deduplicate };
                batch.seal(filled.pieces, &identities, self.spill_folder.path())?;
                self.quarantine(&mut batch, ended)?;
                let mut so_far = counts;
                so_far += batch.counts();
                progress(Progress { counts: so_far, input_bytes });
            }
            if batch.counts().read > 0 {
                commits += u64::from(!batch.is_empty() && !self.settings.dry_run);
                counts += self.finish(batch)?;
            }
        }
        let version = match self.settings.dry_run {
            true => None,
            false => Some(self.runtime.block_on(self.lake.events.snapshot(None))?.version),
        };
        Ok(Summary {
            counts,
            version,
            commits,
            elapsed: started.elapsed(),
            examples: std::mem::take(&mut self.examples),
        })
    }

    /// A batch with an instant of receipt later than that of any batch before, so that instant and
    /// place in the batch order all events of the lake.
    fn new_batch(&self) -> Result<Batch> {
        let snapshot = self.runtime.block_on(self.lake.events.snapshot(None))?;
        Ok(Batch::new(self.next_instant(&snapshot)?))
    }

    fn next_instant(&self, snapshot: &Snapshot) -> Result<Timestamp> {
        let last_ms = self.runtime.block_on(snapshot.app_version(RECEIPT))?.unwrap_or(i64::MIN);
        let now_ms = self.clock.now().micros().div_euclid(1_000);
        let ms = now_ms.max(last_ms.saturating_add(1));
        Ok(Timestamp::from_micros(ms * 1_000))
    }

    fn room(&self, batch: &Batch) -> Room {
        // Sealing, sorting and encoding need about as much again as the columns themselves.
        let memory_bytes = self.settings.memory_bytes / 3;
        let events = self.settings.commit_events.saturating_sub(batch.counts().accepted).max(1);
        Room { memory_bytes, events }
    }

    fn quarantine(&mut self, batch: &mut Batch, flush: bool) -> Result<()> {
        if !flush && batch.quarantined_rows() < QUARANTINE_ROWS {
            return Ok(());
        }
        let events = batch.take_quarantined();
        let room = EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(events.iter().take(room).cloned());
        if events.is_empty() || self.settings.dry_run {
            return Ok(());
        }
        let known = match &mut self.quarantined {
            Some(known) => known,
            None => {
                let known = self.runtime.block_on(quarantine::known_ids(&self.lake))?;
                self.quarantined.insert(known)
            }
        };
        self.runtime.block_on(quarantine::keep(&self.lake, events, known, batch.received()))
    }

    /// Quarantine first, then the events with their account, then the account's own table.
    fn finish(&mut self, mut batch: Batch) -> Result<Counts> {
        self.quarantine(&mut batch, true)?;
        if self.settings.dry_run {
            return Ok(batch.counts());
        }
        let mut account = Account {
            batch: uuid::Uuid::new_v4().to_string(),
            received: batch.received(),
            source: self.source.clone(),
            counts: batch.counts(),
            version: 0,
        };
        if batch.is_empty() {
            account.version = self.runtime.block_on(self.lake.events.snapshot(None))?.version;
        } else {
            self.commit(&mut batch, &mut account)?;
        }
        let counts = account.counts;
        self.runtime.block_on(accounts::write(&self.lake, &[account]))?;
        Ok(counts)
    }

    /// Commits the batch, however many other writers win before it.
    fn commit(&mut self, batch: &mut Batch, account: &mut Account) -> Result<()> {
        let mut staged = batch.write(
            &self.lake.events,
            &self.runtime,
            self.settings.threads,
            self.spill_folder.path(),
        )?;
        for _ in 0..COMMIT_ATTEMPTS {
            // The index must stand at the very version that the commit builds on: whoever came
            // first, even before the first attempt, is brought in.
            let base = self.runtime.block_on(self.lake.events.snapshot(None))?;
            if self.index.applied() != Some(base.version) {
                staged = self.rebase(batch, staged, &base)?;
                self.quarantine(batch, true)?;
                account.counts = batch.counts();
                account.received = batch.received();
            }
            account.version = base.version;
            if staged.files.is_empty() {
                return Ok(());
            }
            let at_ms = batch.received().micros() / 1_000;
            let commit = Commit {
                add_columns: new_columns(&base, &staged.files)?,
                add: staged.files.clone(),
                remove: Vec::new(),
                app: Some((RECEIPT.to_owned(), at_ms)),
                operation: Operation::Append,
                info: account.to_info(),
                at_ms,
            };
            match self.runtime.block_on(self.lake.events.commit(&base, commit))? {
                CommitOutcome::Committed(snapshot) => {
                    account.version = snapshot.version;
                    return self.index.apply(snapshot.version, staged.keys);
                }
                CommitOutcome::Lost { .. } => {}
            }
        }
        Err(Error::conflict(format!(
            "{}: {COMMIT_ATTEMPTS} attempts lost against other writers; run the same command \
             again, every event counts once",
            self.lake.events.display()
        )))
    }

    /// Brings the winners' keys in, drops what they brought from the batch, and dates it after them.
    fn rebase(&mut self, batch: &mut Batch, staged: Staged, base: &Snapshot) -> Result<Staged> {
        let events = &self.lake.events;
        let versions = (self.index.applied().unwrap_or(0), base.version);
        let hasher = &self.decoder.hasher;
        let taken = self.runtime.block_on(rebase::taken(events, &staged.keys, versions, hasher))?;
        self.runtime.block_on(stored::catch_up(&mut self.index, events, base, hasher))?;
        let received = self.next_instant(base)?;
        let (staged, rebased) =
            rebase::rebase(staged, &taken, received, (events, &self.index), hasher, &self.runtime)?;
        batch.rebased(rebased, received);
        Ok(staged)
    }
}

/// How often a commit is tried before the run gives up.
const COMMIT_ATTEMPTS: usize = 100;

/// Application name under which the instant of the last batch, in milliseconds, is kept in the log.
pub(super) const RECEIPT: &str = "meterhouse/receipt";

/// The property columns of staged files that the table does not have yet.
///
/// # Errors
/// A column that another writer has added meanwhile under a name of other case.
fn new_columns(base: &Snapshot, files: &[StagedFile]) -> Result<Vec<FieldRef>> {
    let mut fields = BTreeMap::new();
    for column in files.iter().flat_map(StagedFile::columns) {
        let known = base.schema.fields().iter().find(|f| f.name().eq_ignore_ascii_case(column));
        match known {
            Some(known) if known.name() == column => {}
            Some(known) => {
                return Err(Error::conflict(format!(
                    "column `{column}` differs only by case from `{}`, which another writer added \
                     meanwhile: run the same command again",
                    known.name()
                )));
            }
            None => {
                if let Some((kind, name)) = schema::property_of_column(column) {
                    fields.insert(column.to_owned(), Arc::new(ValueKind::field(kind, name)));
                }
            }
        }
    }
    Ok(fields.into_values().collect())
}

/// Opens the key index; a damaged one is made anew, as it can be rebuilt from the events.
fn open_index(folder: &Path, lake: &Lake, clock: Clock) -> Result<Index> {
    let (table_id, now) = (lake.events.table_id(), clock.now().to_string());
    match Index::open(folder, table_id, &now) {
        Err(error) if error.kind() == ErrorKind::Corrupt => Index::reset(folder, table_id, &now),
        opened => opened,
    }
}
