//! One run of ingest: batches until the input ends, each committed for good before the next.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;

mod landing;

pub use landing::new_columns;

use super::accounts::{self, Account};
use super::batch::{self, Batch, Identities};
use super::decode::{Decoded, Decoder};
use super::fill::{Room, fill};
use super::follow::Marked;
use super::input::Input;
use super::mapping::Mapping;
use super::quarantine::{Quarantine, Quarantined};
use super::source::{Pieces, Recognised};
use super::upsert::Replaceable;
use super::{Counts, index, stored};
use crate::clock::Clock;
use crate::dedupe::{Hasher, Index, Key};
use crate::error::{Error, ErrorKind, Result};
use crate::event::EventRules;
use crate::lake::snapshot::Snapshot;
use crate::lake::tables::Lake;
use crate::schema::{self, ColumnNames};
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
    /// Who ingests, for the log of versions.
    pub by: Option<String>,
    /// Commits tell which inputs ended with them, by name and [`Input::mark`], for [`follow`].
    ///
    /// [`follow`]: super::follow
    pub marks: BTreeMap<String, String>,
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
            by: None,
            marks: BTreeMap::new(),
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
    pub examples: Vec<Quarantined>,
    /// Inputs that were found to be in the shape of another system.
    pub recognised: Vec<Recognised>,
    /// How many of the accepted events took the place of an older one with their identity.
    pub replaced: u64,
    /// Last lines of logs, as `input:line`, that were left out because they are not ended.
    pub unended: Vec<String>,
}

/// How many refused events a summary shows.
const EXAMPLES: usize = 5;

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
        let mut run = Run::open(lake.clone(), &state, &inputs, settings, clock, runtime)?;
        let summary = run.go(&inputs, progress.as_ref());
        match summary {
            Err(error) if run.index_is_damaged(&error) => {
                drop(run);
                Err(index::discarded(&state, &lake, clock, error))
            }
            other => other.map_err(|error| run.noting_commits(error)),
        }
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
    refused: Refused,
    /// Followed inputs that ended and of which no commit has told.
    ended: Vec<Marked>,
    /// What became of the events of finished batches.
    counts: Counts,
    /// How many events took the place of older ones.
    replaced: u64,
    commits: u64,
    /// How many events the commits brought.
    committed: u64,
}

/// Where refused and conflicting events go.
#[derive(Default)]
struct Refused {
    /// Opened when the first of them comes.
    quarantine: Option<Quarantine>,
    /// The first few.
    examples: Vec<Quarantined>,
    /// Whether they are only looked at.
    dry_run: bool,
}

impl Refused {
    fn keep(
        &mut self,
        events: Vec<Quarantined>,
        received: Timestamp,
        (lake, runtime): (&Lake, &Handle),
    ) -> Result<()> {
        let room = EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(events.iter().take(room).cloned());
        if events.is_empty() || self.dry_run {
            return Ok(());
        }
        let quarantine = match &mut self.quarantine {
            Some(open) => open,
            None => self.quarantine.insert(runtime.block_on(Quarantine::open(lake))?),
        };
        runtime.block_on(quarantine.keep(events, received))
    }
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
        let snapshot = runtime.block_on(lake.events.snapshot(None))?;
        let index = index::opened(state, &lake, clock, (&snapshot, &hasher), &runtime)?;
        if !settings.dry_run {
            runtime.block_on(accounts::take_over(&lake))?;
        }
        let names = ColumnNames::of_schema(&snapshot.schema, settings.property_columns);
        Ok(Self {
            decoder: Decoder::new(
                settings.mapping.clone(),
                (settings.rules, clock.now()),
                (names, hasher),
            ),
            source: source_of(inputs),
            spill_folder: batch::spill_folder(state)?,
            refused: Refused { dry_run: settings.dry_run, ..Refused::default() },
            lake,
            settings,
            clock,
            runtime,
            index,
            ended: Vec::new(),
            counts: Counts::default(),
            replaced: 0,
            commits: 0,
            committed: 0,
        })
    }

    fn go(&mut self, inputs: &[Input], progress: &dyn Fn(Progress)) -> Result<Summary> {
        let started = Instant::now();
        let mut pieces = Pieces::new(inputs, self.settings.mapping.is_some());
        let mut input_bytes = 0;
        let mut ended = false;
        while !ended {
            let newest = self.runtime.block_on(self.lake.events.snapshot(None))?;
            let mut batch = self.new_batch(&newest)?;
            while !ended && self.takes_more(&batch) {
                let room = self.room(&batch);
                let filled = fill(&mut pieces, &self.decoder, room, self.settings.threads)?;
                ended = filled.ended;
                input_bytes += filled.input_bytes;
                self.keep_up(&mut batch)?;
                self.seal(&mut batch, filled.pieces)?;
                let marked = |name| self.settings.marks.get_key_value(&name);
                let marked = pieces.take_ended().into_iter().filter_map(marked);
                self.ended.extend(marked.map(|(name, mark)| (name.clone(), mark.clone())));
                let mut so_far = self.counts;
                so_far += batch.counts();
                progress(Progress { counts: so_far, input_bytes });
            }
            if batch.counts().read > 0 {
                let of_batch = self.finish(batch)?;
                self.counts += of_batch;
            }
        }
        let version = match self.settings.dry_run {
            true => None,
            false => Some(self.runtime.block_on(self.lake.events.snapshot(None))?.version),
        };
        Ok(Summary {
            counts: self.counts,
            version,
            commits: self.commits,
            elapsed: started.elapsed(),
            examples: std::mem::take(&mut self.refused.examples),
            recognised: pieces.recognised().to_vec(),
            replaced: self.replaced,
            unended: pieces.unended().to_vec(),
        })
    }

    /// Tells beside what stopped a run what it had committed before.
    fn noting_commits(&self, error: Error) -> Error {
        match self.commits {
            0 => error,
            commits => error.noting(&format!(
                "before it {} events had been accepted in {commits} commits",
                self.committed
            )),
        }
    }

    /// A batch with an instant of receipt later than that of any batch before, so that instant and
    /// place in the batch order all events of the lake.
    fn new_batch(&self, newest: &Arc<Snapshot>) -> Result<Batch> {
        let names = self.runtime.block_on(self.lake.events.upsert_names(newest))?;
        Ok(Batch::new(self.next_instant(newest)?, names, self.index.applied()))
    }

    /// Sees to it that what was read is compared with what the lake holds by now. Where names are
    /// declared, what the batch began with may be replaced since: taken for a duplicate of that, an event
    /// that came later would be lost.
    fn keep_up(&mut self, batch: &mut Batch) -> Result<()> {
        if self.settings.dry_run {
            return Ok(());
        }
        let mut newest = self.runtime.block_on(self.lake.events.snapshot(None))?;
        if self.index.applied() == Some(newest.version) {
            return Ok(());
        }
        self.check_history(batch, &newest)?;
        let names = self.runtime.block_on(self.lake.events.upsert_names(&newest))?;
        if names.is_empty() && batch.names().is_empty() {
            return Ok(());
        }
        if names != *batch.names() && batch.counts().read > 0 {
            // What was read before stands by what was declared before.
            let former = std::mem::replace(batch, self.new_batch(&newest)?);
            let of_batch = self.finish(former)?;
            self.counts += of_batch;
            newest = self.runtime.block_on(self.lake.events.snapshot(None))?;
        }
        let (events, hasher) = (&self.lake.events, &self.decoder.hasher);
        let caught_up = stored::catch_up(&mut self.index, events, &newest, hasher);
        let brought = self.runtime.block_on(caught_up)?;
        match batch.counts().read {
            0 => *batch = self.new_batch(&newest)?,
            _ => batch.overtaken_by(brought),
        }
        Ok(())
    }

    /// What was taken for a duplicate may be gone from a table that was set back.
    fn check_history(&self, batch: &Batch, newest: &Snapshot) -> Result<()> {
        if batch.counts().read == 0 {
            return Ok(());
        }
        let follows = stored::follows(&self.index, &self.lake.events, newest);
        let from = batch.base().max(self.index.applied()).unwrap_or_default();
        if from <= newest.version && self.runtime.block_on(follows)? {
            return Ok(());
        }
        Err(Error::conflict(format!(
            "{} was set back from version {from} while events were read: run the same command again",
            self.lake.events.display()
        )))
    }

    fn next_instant(&self, snapshot: &Snapshot) -> Result<Timestamp> {
        let last_ms = self.runtime.block_on(snapshot.app_version(RECEIPT))?.unwrap_or(i64::MIN);
        let now_ms = self.clock.now().micros().div_euclid(1_000);
        let ms = now_ms.max(last_ms.saturating_add(1));
        Ok(Timestamp::from_micros(ms * 1_000))
    }

    /// Whether more events belong to the batch. A dry run has only one: what it brought is in no
    /// index, and must be known until the end.
    fn takes_more(&self, batch: &Batch) -> bool {
        self.settings.dry_run || batch.counts().accepted < self.settings.commit_events
    }

    fn room(&self, batch: &Batch) -> Room {
        // What is decoded is held beside what was sealed before it; sorting and spilling take about as
        // much again, and what was given back is not all of use.
        let index = usize::try_from(self.index.resident_bytes()).unwrap_or(usize::MAX);
        let rest = self.settings.memory_bytes.saturating_sub(index.saturating_mul(INDEX_PARTS));
        let memory_bytes = rest.max(self.settings.memory_bytes / 4) / MEMORY_PARTS;
        let of_batch = if self.settings.dry_run { 0 } else { batch.counts().accepted };
        let events = self.settings.commit_events.saturating_sub(of_batch).max(1);
        Room { memory_bytes, events }
    }

    fn seal(&mut self, batch: &mut Batch, decoded: Vec<Decoded>) -> Result<()> {
        let deduplicate = self.settings.deduplicate;
        let (events, runtime) = (&self.lake.events, &self.runtime);
        let (hasher, names) = (&self.decoder.hasher, batch.names().clone());
        let lake = Replaceable { events, runtime, hasher, names: &names };
        let applied = self.index.applied();
        let replaceable = |keys: &[Key], days: &BTreeSet<i32>| lake.known(applied, keys, days);
        let identities = Identities { index: &self.index, deduplicate, replaceable: &replaceable };
        let (received, store) = (batch.received(), (&self.lake, &self.runtime));
        let refused = &mut self.refused;
        let mut keep = |events| refused.keep(events, received, store);
        batch.seal(decoded, &identities, self.spill_folder.path(), &mut keep)?;
        if self.settings.dry_run {
            batch.drop_rows();
        }
        Ok(())
    }

    fn quarantine(&mut self, batch: &mut Batch) -> Result<()> {
        let (events, received) = (batch.take_quarantined(), batch.received());
        self.refused.keep(events, received, (&self.lake, &self.runtime))
    }

    /// Whether `error` comes of a key index that is not as it was written.
    fn index_is_damaged(&self, error: &Error) -> bool {
        error.kind() == ErrorKind::Corrupt && self.index.verify().is_err()
    }

    /// Quarantine first, then the events with their account, then the account's own table. Says
    /// what became of the events.
    fn finish(&mut self, mut batch: Batch) -> Result<Counts> {
        self.quarantine(&mut batch)?;
        if self.settings.dry_run {
            self.replaced += batch.replaced();
            return Ok(batch.counts());
        }
        let mut account = Account {
            batch: batch.id().to_owned(),
            received: batch.received(),
            source: self.source.clone(),
            counts: batch.counts(),
            version: 0,
        };
        let committed = !batch.is_empty() && self.commit(&mut batch, &mut account)?;
        if !committed {
            account.version = self.runtime.block_on(self.lake.events.snapshot(None))?.version;
        }
        let counts = account.counts;
        self.replaced += batch.replaced();
        self.runtime.block_on(accounts::write(&self.lake, &[account]))?;
        Ok(counts)
    }
}

/// What is told of where events came from: the inputs' names, the first few of many.
fn source_of(inputs: &[Input]) -> String {
    let names: Vec<&str> = inputs.iter().take(SOURCES).map(|input| input.name.as_str()).collect();
    match inputs.len().saturating_sub(SOURCES) {
        0 => names.join(" "),
        more => format!("{} and {more} more", names.join(" ")),
    }
}

/// How many inputs are named in an account.
const SOURCES: usize = 8;

/// Into how many parts the memory of a run is divided, of which decoded events fill one.
const MEMORY_PARTS: usize = 5;

/// How many times its resident bytes a key index takes while its runs are merged: those of the old
/// runs, and those of the new one as it grows.
const INDEX_PARTS: usize = 4;

/// Application name under which the instant of the last batch, in milliseconds, is kept in the log.
pub(super) const RECEIPT: &str = "meterhouse/receipt";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::input::expand;
    use crate::ingest::keys_folder;
    use crate::lake::location::{Location, Namespace};

    async fn expanded(paths: &[String]) -> Vec<Input> {
        expand(paths, None, &[]).await.unwrap()
    }

    async fn run(folder: &Path, lines: &str, settings: IngestSettings) -> Result<Summary> {
        let file = folder.join("events.ndjson");
        std::fs::write(&file, lines).unwrap();
        let location = Location::parse(folder.join("lake").to_str().unwrap()).unwrap();
        let lake = Lake::open_or_create(&location, &Namespace::default()).await.unwrap();
        let inputs = expanded(&[file.display().to_string()]).await;
        let state = folder.join("state");
        ingest(lake, state, inputs, settings, Clock::System, Arc::new(|_| ())).await
    }

    /// Events of keys below `keys`, over and over; each key's content changes after two rounds.
    fn rounds(keys: usize, lines: usize) -> String {
        let line = |n: usize| {
            let (key, value) = (n % keys, n / keys / 2);
            format!(
                r#"{{"event_name":"hit","idempotency_key":"k{key}","customer_id":"c","timestamp":"2026-06-01T00:00:00Z","properties":{{"n":{value}}}}}"#
            ) + "\n"
        };
        (0..lines).map(line).collect()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_dry_run_counts_like_the_run_whatever_the_number_of_commits() {
        let folder = tempfile::tempdir().unwrap();
        // Several blocks, so that there is more than one batch.
        let text = rounds(20_000, 100_000);
        let settings = IngestSettings { commit_events: 1, ..IngestSettings::default() };
        let dry = IngestSettings { dry_run: true, ..settings.clone() };
        let dry = run(folder.path(), &text, dry).await.unwrap();
        let real = run(folder.path(), &text, settings).await.unwrap();
        assert_eq!(dry.counts, real.counts);
        assert_eq!((real.counts.accepted, real.counts.conflict), (20_000, 60_000));
        assert_eq!((dry.commits, dry.version, real.version), (0, None, Some(real.commits)));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_committed_before_an_input_broke_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        // More blocks than can be on their way before the first is decoded.
        std::fs::write(path("whole.ndjson"), rounds(10, 150_000)).unwrap();
        std::fs::write(path("z.ndjson.gz"), b"\x1f\x8bno more").unwrap();
        let location = Location::parse(&path("lake")).unwrap();
        let lake = Lake::open_or_create(&location, &Namespace::default()).await.unwrap();
        let inputs = expanded(&[path("whole.ndjson"), path("z.ndjson.gz")]).await;
        let settings = IngestSettings { commit_events: 1, threads: 1, ..IngestSettings::default() };
        let state = folder.path().join("state");
        let error = ingest(lake, state, inputs, settings, Clock::System, Arc::new(|_| ()));
        let error = error.await.unwrap_err().to_string();
        assert!(error.contains("z.ndjson.gz"), "{error}");
        assert!(error.contains("before it 10 events had been accepted in 1 commits"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn equal_conflicts_are_told_apart_by_their_lines() {
        let folder = tempfile::tempdir().unwrap();
        let summary = run(folder.path(), &rounds(1, 4), IngestSettings::default()).await.unwrap();
        assert_eq!((summary.counts.duplicate, summary.counts.conflict), (1, 2));
        let lines: Vec<Option<u64>> = summary.examples.iter().map(|e| e.line).collect();
        assert_eq!(lines, [Some(3), Some(4)]);
        let location = Location::parse(folder.path().join("lake").to_str().unwrap()).unwrap();
        let lake = Lake::open(&location, &Namespace::default()).await.unwrap();
        let listed = super::super::quarantine::list(&lake, None).await.unwrap();
        assert_eq!(listed[0].num_rows(), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_key_index_damaged_beneath_a_run_is_rebuilt_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let text = rounds(20_000, 20_000);
        let settings = IngestSettings::default();
        run(folder.path(), &text, settings.clone()).await.unwrap();
        let keys = keys_folder(&folder.path().join("state"));
        let runs = std::fs::read_dir(&keys).unwrap().map(|file| file.unwrap().path());
        let run_file = runs.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
        let mut bytes = std::fs::read(&run_file).unwrap();
        bytes[5_000] ^= 1;
        std::fs::write(&run_file, bytes).unwrap();
        let error = run(folder.path(), &text, settings.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("run the same command again"), "{error}");
        let again = run(folder.path(), &text, settings).await.unwrap();
        assert_eq!((again.counts.duplicate, again.commits), (20_000, 0));
    }
}
