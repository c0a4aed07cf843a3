//! Processes that write, compact and clean one lake in a stormy store, and what must hold of it.
//!
//! What is expected is kept apart from the product: which contents were ever sent for a key, and
//! which keys were acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use meterhouse::clock::Clock;
use meterhouse::correct::{Action, Changes, CorrectSettings, Identity, Selection, correct, list};
use meterhouse::engine::{Engine, Limits};
use meterhouse::error::{Error, Result};
use meterhouse::event::EventRules;
use meterhouse::export::{Export, Format, Place, Source, export};
use meterhouse::ingest::accounts;
use meterhouse::ingest::follow::Ledger;
use meterhouse::ingest::input::{Input, InputFormat};
use meterhouse::ingest::{IngestSettings, ingest};
use meterhouse::lake::compact::{CompactSettings, compact};
use meterhouse::lake::location::{Location, Namespace};
use meterhouse::lake::log_cleanup::shorten_log;
use meterhouse::lake::tables::Lake;
use meterhouse::lake::vacuum::vacuum;
use meterhouse::meter::Bundle;
use meterhouse::period::{self, Terms};
use meterhouse::rollup::{Manner, Merging, refresh};
use meterhouse::sql::query;
use meterhouse::time::Timestamp;
use meterhouse::usage::{Context, UsageRequest, usage};
use meterhouse::verify::verify;
use object_store::ObjectStoreExt;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::agreement::rows_of;

use super::store::{Fate, Objects, Stormy, Weather};

/// What one process does.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    /// Sends a content for each of these keys.
    Ingest(BTreeMap<u64, u64>),
    /// Gives the event of a key another content.
    Amend(u64, u64),
    /// Undoes the newest correction that is no revert.
    Revert,
    Compact,
    Vacuum,
    /// Keeps the newest version.
    Pin,
    /// Closes the month of all events.
    Close,
    /// Exports what was closed.
    Export,
    /// Brings the rollup of the closed meter up to the events.
    Refresh,
    /// Forgets versions that were superseded an hour ago.
    ShortenLog,
    Read,
    Verify,
}

/// What became of an operation that ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// These keys are in the lake, and this file is known to have been read.
    Acknowledged(BTreeSet<u64>, PathBuf),
    /// These contents were there at that version.
    Pinned(u64, BTreeMap<u64, Vec<u64>>),
    Done,
}

/// The folder of exports, and the file in it.
const EXPORTS: (&str, &str) = ("to", "ledger");
const EXPORTED: &str = "statements.ndjson";

/// The mark of every file.
const MARK: &str = "1";

/// The lake and the folders of the processes' states.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) objects: Arc<Objects>,
    pub(crate) folder: tempfile::TempDir,
}

/// A process, as it is for one operation.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) now: Timestamp,
    pub(crate) weather: Weather,
    pub(crate) tries: u32,
}

/// No call fails.
pub(crate) fn calm() -> Weather {
    Arc::new(|_| Box::pin(async { Fate::Fine }))
}

impl World {
    pub(crate) fn new() -> Self {
        // What syncs to a disk waits for it, thousands of times; memory will do for what is shown here.
        let memory = Path::new("/dev/shm");
        let folder =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Self { objects: Arc::default(), folder: folder.unwrap() }
    }

    pub(crate) fn state(&self, process: &str) -> PathBuf {
        self.folder.path().join(process)
    }

    fn location(&self, process: &Process) -> Location {
        let stormy = Stormy {
            objects: Arc::clone(&self.objects),
            weather: Arc::clone(&process.weather),
            tries: process.tries,
        };
        Location::parse("memory://storm").unwrap().with_store(Arc::new(stormy))
    }

    /// Does all that a process started anew does for one operation.
    pub(crate) async fn run(&self, process: &Process, operation: &Operation) -> Result<Ended> {
        let location = self.location(process);
        let lake = Lake::open_or_create(&location, &Namespace::default()).await?;
        match operation {
            Operation::Ingest(contents) => self.ingest(process, lake, contents).await,
            Operation::Amend(key, content) => {
                let set = [format!("n={content}")];
                let changes = Changes::parse(&set, &[], None)?;
                let identity = Identity { source: String::new(), key: format!("k{key}") };
                let selection = Selection::Identities(BTreeSet::from([identity]));
                let action = Action::Amend(Arc::new(changes));
                let context = context(&location, lake);
                correct(&context, &action, &selection, &because()).await.map(|_| Ended::Done)
            }
            Operation::Revert => {
                let context = context(&location, lake);
                let corrections = list(&context.lake.events).await?;
                let newest = corrections.into_iter().rev().find(|c| c.record.reverts.is_none());
                let Some(newest) = newest else { return Ok(Ended::Done) };
                let id = newest.record.id;
                let (action, selection) =
                    (Action::Revert(id.clone()), Selection::Corrected(id.clone()));
                correct(&context, &action, &selection, &because()).await.map(|_| Ended::Done)
            }
            Operation::Compact => {
                let settings = CompactSettings::default();
                compact(&lake.events, &settings, process.now, |_| ()).await.map(|_| Ended::Done)
            }
            Operation::Vacuum => {
                let retention = Duration::from_secs(3_600);
                vacuum(&lake.events, retention, process.now, false).await.map(|_| Ended::Done)
            }
            Operation::ShortenLog => {
                accounts::take_over(&lake).await?;
                Ledger::open(&lake).await?;
                let keep = Duration::from_secs(3_600);
                shorten_log(&lake.events, keep, process.now, false).await.map(|_| Ended::Done)
            }
            Operation::Pin => {
                let version = lake.events.snapshot(None).await?.version;
                lake.events.pin(version, None, None, process.now).await?;
                let contents = contents(&context(&location, lake), Some(version)).await?;
                Ok(Ended::Pinned(version, contents))
            }
            Operation::Close => {
                let context =
                    Context { clock: Clock::Fixed(process.now), ..context(&location, lake) };
                let bundle = total();
                let meter = bundle.meter().unwrap();
                let terms = Terms { period: "2026-06".to_owned(), ..Terms::default() };
                let closing = period::close(&context, (&meter, Some(&bundle)), &terms);
                Box::pin(closing).await.map(|_| Ended::Done)
            }
            Operation::Export => {
                let clock = Clock::Fixed(process.now);
                let context = Context { clock, ..context(&location, lake) };
                let closings = period::list(&context.lake, None).await?;
                let source = Source::Statements { closings: &closings, meters: &[], period: None };
                let asked = Export {
                    source,
                    place: Place::new(&location, &[EXPORTS], EXPORTED)?,
                    format: Format::Ndjson,
                    events: None,
                    partitioned: false,
                    replace: false,
                    memory_at_first: None,
                };
                export(&context, &asked).await.map(|_| Ended::Done)
            }
            Operation::Refresh => {
                let context = context(&location, lake);
                let snapshot = context.lake.events.snapshot(None).await?;
                let manner = Manner { merging: Merging::Worth, anew: false };
                let place = (&context.lake, &context.engine);
                let meter = total().meter().unwrap();
                refresh(place, &meter, &snapshot, manner, process.now).await.map(|_| Ended::Done)
            }
            Operation::Read => contents(&context(&location, lake), None).await.map(|_| Ended::Done),
            Operation::Verify => {
                let (context, state) = (context(&location, lake), self.state(&process.name));
                let verified = verify(&context, Some(&state)).await?;
                match verified.wrong.as_slice() {
                    [] => Ok(Ended::Done),
                    wrong => Err(Error::corrupt(format!("verify: {wrong:?}"))),
                }
            }
        }
    }

    async fn ingest(
        &self,
        process: &Process,
        lake: Lake,
        contents: &BTreeMap<u64, u64>,
    ) -> Result<Ended> {
        let path = self.folder.path().join(format!("{}-{}", process.name, uuid::Uuid::new_v4()));
        std::fs::write(&path, lines(contents)).unwrap();
        let inputs = vec![Input::file(path.display().to_string(), &path, InputFormat::Json)];
        // As a follower does, so that commits tell of files.
        let mut ledger = Ledger::open(&lake).await?;
        let marks = BTreeMap::from([(path.display().to_string(), MARK.to_owned())]);
        let settings =
            IngestSettings { threads: 1, marks: marks.clone(), ..IngestSettings::default() };
        let clock = Clock::Fixed(process.now);
        let state = self.state(&process.name);
        let summary = ingest(lake, state, inputs, settings, clock, Arc::new(|_| ())).await;
        std::fs::remove_file(&path).unwrap();
        let counts = summary?.counts;
        ledger.note(marks).await?;
        let sent = u64::try_from(contents.len()).unwrap();
        assert_eq!((counts.read, counts.rejected), (sent, 0));
        assert_eq!(counts.accepted + counts.duplicate + counts.conflict, sent);
        Ok(Ended::Acknowledged(contents.keys().copied().collect(), path))
    }

    /// Whether the ledger of followed files knows all of these paths.
    pub(crate) async fn has_read(&self, process: &Process, paths: &[PathBuf]) -> Result<bool> {
        let location = self.location(process);
        let lake = Lake::open(&location, &Namespace::default()).await?;
        let ledger = Ledger::open(&lake).await?;
        Ok(paths.iter().all(|path| ledger.has_marked(&path.display().to_string(), MARK)))
    }

    /// What every customer was closed with, for each closing, all of which can be made again.
    pub(crate) async fn closed(&self, process: &Process) -> Result<Vec<BTreeMap<String, u64>>> {
        let location = self.location(process);
        let context = context(&location, Lake::open(&location, &Namespace::default()).await?);
        let mut all = Vec::new();
        for closing in period::list(&context.lake, None).await? {
            assert!(period::verify(&context, &closing).await?.is_right());
            let mut used = BTreeMap::new();
            for line in period::lines(&context, &closing).await? {
                let before =
                    used.insert(line.customer.unwrap(), line.value.unwrap().parse().unwrap());
                assert!(before.is_none(), "a customer has two lines");
            }
            all.push(used);
        }
        Ok(all)
    }

    /// What every customer was exported with, from a file that is what its record says.
    pub(crate) async fn exported(&self, process: &Process) -> BTreeMap<String, u64> {
        let store = self.location(process).store;
        let read = async |name: &str| {
            let path = format!("{}={}/{name}", EXPORTS.0, EXPORTS.1).into();
            store.get(&path).await.unwrap().bytes().await.unwrap()
        };
        let file = read(EXPORTED).await;
        let record: Value =
            serde_json::from_slice(&read(&format!("_{EXPORTED}.json")).await).unwrap();
        let sha256: String =
            Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(record["sha256"], sha256);
        let mut exported = BTreeMap::new();
        for line in str::from_utf8(&file).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let customer = line["customer_id"].as_str().unwrap().to_owned();
            let value = line["value"].as_str().unwrap().parse().unwrap();
            assert!(exported.insert(customer, value).is_none(), "twice: {line}");
        }
        exported
    }

    /// What every customer used, and whether the rollup says so.
    pub(crate) async fn used(&self, process: &Process) -> Result<(BTreeMap<String, u64>, bool)> {
        let location = self.location(process);
        let lake = Lake::open(&location, &Namespace::default()).await?;
        let meters = Arc::new(vec![total().meter().unwrap()]);
        let context = Context { meters, ..context(&location, lake) };
        let request = UsageRequest {
            meters: vec!["total".to_owned()],
            period: Some("2026-06".to_owned()),
            ..UsageRequest::default()
        };
        let mut used = BTreeMap::new();
        let mut take = |rows: RecordBatch| {
            for row in rows_of(&rows) {
                let [Some(customer), Some(value), ..] = row.as_slice() else { panic!("{row:?}") };
                let before = used.insert(customer.clone(), value.parse().unwrap());
                assert!(before.is_none(), "{customer} is there twice");
            }
            Ok(true)
        };
        let notes = usage(&context, &request, &mut take).await?;
        Ok((used, notes.iter().all(|note| note.rollup.is_some())))
    }

    /// The contents in the lake by key, at a version or now, through the engine.
    pub(crate) async fn contents(
        &self,
        process: &Process,
        version: Option<u64>,
    ) -> Result<BTreeMap<u64, Vec<u64>>> {
        let location = self.location(process);
        let lake = Lake::open(&location, &Namespace::default()).await?;
        contents(&context(&location, lake), version).await
    }
}

fn because() -> CorrectSettings {
    CorrectSettings {
        reason: "a storm".to_owned(),
        by: None,
        rules: EventRules::default(),
        memory_bytes: 1 << 20,
        dry_run: false,
    }
}

fn context(location: &Location, lake: Lake) -> Context {
    let limits = Limits { threads: 1, ..Limits::default() };
    let engine = Engine::new(location, limits).unwrap();
    Context { lake, engine, meters: Arc::default(), clock: Clock::System }
}

async fn contents(context: &Context, version: Option<u64>) -> Result<BTreeMap<u64, Vec<u64>>> {
    let columns =
        context.lake.events.snapshot(version).await?.schema.field_with_name("i_n").is_ok();
    let mut found: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    if !columns {
        return Ok(found);
    }
    let text = "SELECT CAST(substr(idempotency_key, 2) AS BIGINT) AS k, n FROM events";
    let rows: Vec<_> = query(context, text, version).await?.rows.try_collect().await?;
    for rows in rows {
        let number = |column: usize, row: usize| {
            u64::try_from(rows.column(column).as_primitive::<Int64Type>().value(row)).unwrap()
        };
        for row in 0..rows.num_rows() {
            found.entry(number(0, row)).or_default().push(number(1, row));
        }
    }
    Ok(found)
}

/// What a customer was sent.
fn total() -> Bundle {
    let text = "meter: total\nevent: hit\naggregation: sum\nproperty: n\n".to_owned();
    Bundle { file: "total.yaml".to_owned(), text, tables: BTreeMap::new() }
}

/// Events of three days.
fn lines(contents: &BTreeMap<u64, u64>) -> String {
    let mut text = String::new();
    for (key, content) in contents {
        let (customer, day) = (key % 3, 1 + key % 3);
        writeln!(
            text,
            r#"{{"event_name":"hit","idempotency_key":"k{key}","customer_id":"c{customer}","timestamp":"2026-06-0{day}T10:00:00Z","properties":{{"n":{content}}}}}"#
        )
        .unwrap();
    }
    text
}

/// Removes a folder, if it is there.
pub(crate) fn remove(folder: &Path) {
    if folder.exists() {
        std::fs::remove_dir_all(folder).unwrap();
    }
}
