//! Ingest is killed again and again, and every event still counts once.
//!
//! Each lake is made by the program from the same files; it is killed at seeded moments spread over
//! the time that an undisturbed run takes, then run to the end. With deduplication off the same
//! harness finds duplicates, so it would notice them.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use meterhouse::engine::Limits;
use meterhouse::lake::location::{Location, Namespace};
use meterhouse::lake::tables::Lake;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;

use crate::agreement::{RUNTIME, ask};
use crate::naive::answer::{Row, answer};
use crate::naive::event::{Line, Moment, Property, Sent};
use crate::naive::generate::NOW;
use crate::naive::intake::Intake;
use crate::naive::meter::{Aggregation, Meter, Operand, Question};
use crate::naive::spell;

/// Lakes of the ordinary test; of the long one, as `METERHOUSE_KILL_LAKES` does not say otherwise.
const LAKES: u64 = 12;
const LAKES_LONG: u64 = 50;
/// Most kills of one lake.
const KILLS_MAX: u64 = 4;
/// Files that a run reads; a commit holds whole files.
const FILES: u64 = 10;
const EVENTS_PER_FILE: u64 = 400;
/// A run that takes longer hangs.
const RUN_MAX: Duration = Duration::from_secs(120);

/// Numbers that look random and are the same every time (the generator of Knuth's MMIX).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The files, and what they say when each event counts once.
struct Events {
    folder: TempDir,
    distinct: u64,
    meters: [Meter; 3],
    want: Vec<Row>,
}

impl Events {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut random = Random(7);
        let mut intake = Intake::default();
        for file in 0..FILES {
            let lines: Vec<Line> = (0..EVENTS_PER_FILE)
                .map(|place| {
                    let number = file * EVENTS_PER_FILE + place;
                    // One in eight was sent before, in this file or another.
                    let again = number > 0 && random.below(8) == 0;
                    line(if again { random.below(number) } else { number })
                })
                .collect();
            intake.receive(&lines, NOW, true);
            let text: Vec<String> = lines.iter().map(|line| spell::line(line) + "\n").collect();
            let path = folder.path().join(format!("{file:02}.ndjson"));
            std::fs::write(path, text.concat()).unwrap();
        }
        let meter = |name: &str, aggregation, operand| Meter {
            aggregation,
            operand: Some(operand),
            ..Meter::count(name)
        };
        let meters = [
            Meter::count("events"),
            meter("keys", Aggregation::CountUnique, Operand::Field("idempotency_key")),
            meter("bytes", Aggregation::Sum, Operand::Property("bytes".to_owned())),
        ];
        let want = answer(&intake.events, &meters, &question()).unwrap();
        let distinct = u64::try_from(intake.events.len()).unwrap();
        Self { folder, distinct, meters, want }
    }
}

fn line(number: u64) -> Line {
    let bytes = Property::Number((number * number % 9_973).to_string());
    let hours = i64::try_from(number % 72).unwrap();
    Line::Event(Sent {
        name: "transfer".to_owned(),
        key: format!("key-{number}"),
        customer: Some(format!("c{}", number % 37)),
        timestamp: Some(Moment::Instant {
            micros: NOW - (1 + hours) * 3_600_000_000 - 300 * 86_400_000_000,
            offset_minutes: 0,
            finer_digits: String::new(),
        }),
        properties: vec![("bytes".to_owned(), bytes)],
        ..Sent::default()
    })
}

fn question() -> Question {
    let names = ["events", "keys", "bytes"].map(str::to_owned).to_vec();
    Question { meters: names, ..Question::total("events") }
}

// ---- One lake ----

/// A run of the program on the lake in `folder`.
fn start(events: &Events, folder: &Path, deduplicate: bool) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meterhouse"));
    command
        .args(["ingest", "--quiet", "--threads", "1", "--commit-events", "300", "--lake"])
        .arg(folder)
        .arg(events.folder.path())
        .env_remove("METERHOUSE_STATE")
        .env_remove("METERHOUSE_TEST_NO_DEDUPLICATION")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if !deduplicate {
        command.env("METERHOUSE_TEST_NO_DEDUPLICATION", "1");
    }
    command.spawn().unwrap()
}

/// Waits for the end of a run, which must be a success; says how long it took.
fn end(mut child: Child) -> Duration {
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > RUN_MAX {
            child.kill().unwrap();
            panic!("a run did not end within {RUN_MAX:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let took = started.elapsed();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    took
}

/// The lake, if one was made already.
fn opened(folder: &Path) -> Option<Lake> {
    let location = Location::parse(folder.to_str().unwrap()).unwrap();
    RUNTIME.block_on(Lake::open(&location, &Namespace::default())).ok()
}

/// The rows of the three meters.
fn asked(events: &Events, folder: &Path) -> Option<Vec<Row>> {
    Some(ask(&opened(folder)?, &events.meters, &question(), Limits::default()).unwrap())
}

/// Events accepted by all batches together; the account of each must add up.
fn accepted(folder: &Path) -> i64 {
    let lake = opened(folder).unwrap();
    let batches = RUNTIME.block_on(lake.batches()).unwrap().unwrap();
    let files = RUNTIME.block_on(batches.snapshot(None)).unwrap().files.clone();
    let mut accepted = 0;
    for file in &files {
        let file = File::open(folder.join("default/batches").join(&file.path)).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        for batch in reader.map(Result::unwrap) {
            let sum = |name: &str| {
                let column = batch.column_by_name(name).unwrap().as_primitive::<Int64Type>();
                column.iter().flatten().sum::<i64>()
            };
            let parts = ["accepted", "duplicate", "conflict", "rejected"].map(sum);
            assert_eq!(parts.iter().sum::<i64>(), sum("read"), "{}", folder.display());
            accepted += parts[0];
        }
    }
    accepted
}

/// The number that the meter at `place` gives.
fn number(rows: &[Row], place: usize) -> u64 {
    rows[place][1].as_ref().unwrap().parse().unwrap()
}

fn has_files(folder: &Path) -> bool {
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                _ => return true,
            }
        }
    }
    false
}

/// Starts a run and kills it after `delay`; whether that was between its first file and its last
/// commit.
fn kill(events: &Events, folder: &Path, delay: Duration, deduplicate: bool) -> bool {
    let mut child = start(events, folder, deduplicate);
    std::thread::sleep(delay);
    let running = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    let counted = asked(events, folder).map_or(0, |rows| number(&rows, 1));
    running && has_files(folder) && counted < events.distinct
}

/// What became of one lake.
struct Outcome {
    kills: u64,
    /// Kills between the first file and the last commit.
    within: u64,
    rows: Vec<Row>,
    accepted: i64,
}

fn disturbed(events: &Events, seed: u64, undisturbed: Duration, deduplicate: bool) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    let mut random = Random(seed);
    let kills = 1 + random.below(KILLS_MAX);
    let mut within = 0;
    for _ in 0..kills {
        let share = u32::try_from(random.below(1_000)).unwrap();
        let delay = undisturbed * share / 1_000;
        within += u64::from(kill(events, &lake, delay, deduplicate));
    }
    end(start(events, &lake, deduplicate));
    let rows = asked(events, &lake).unwrap();
    Outcome { kills, within, rows, accepted: accepted(&lake) }
}

/// How long a run takes that nobody disturbs.
fn undisturbed(events: &Events) -> Duration {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    let took = end(start(events, &lake, true));
    assert_eq!(asked(events, &lake).unwrap(), events.want, "nobody disturbed this run");
    took
}

// ---- The tests ----

fn lakes(default: u64) -> u64 {
    let given = std::env::var("METERHOUSE_KILL_LAKES").ok();
    given.map_or(default, |number| number.parse().unwrap())
}

/// Kills the making of `lakes` lakes and checks each.
fn assert_every_event_counts_once(lakes: u64) {
    let events = Events::new();
    let undisturbed = undisturbed(&events);
    let (mut kills, mut within) = (0, 0);
    for seed in 0..lakes {
        let outcome = disturbed(&events, seed, undisturbed, true);
        assert_eq!(outcome.rows, events.want, "lake {seed} after {} kills", outcome.kills);
        let distinct = i64::try_from(events.distinct).unwrap();
        assert_eq!(outcome.accepted, distinct, "the accounts of lake {seed}");
        kills += outcome.kills;
        within += outcome.within;
    }
    // Shown by the test runner when it is asked to, or when the test fails.
    eprintln!("{lakes} lakes, {kills} kills, {within} between first file and last commit");
    assert!(within * 3 >= kills, "only {within} of {kills} kills landed within the writing");
}

#[test]
fn every_event_counts_once_whenever_ingest_is_killed() {
    assert_every_event_counts_once(lakes(LAKES));
}

#[test]
#[ignore = "takes minutes"]
fn every_event_counts_once_whenever_ingest_is_killed_in_many_lakes() {
    assert_every_event_counts_once(lakes(LAKES_LONG));
}

#[test]
#[cfg(debug_assertions)]
fn without_deduplication_the_harness_finds_duplicates() {
    let events = Events::new();
    let undisturbed = undisturbed(&events);
    let found: BTreeSet<bool> = (0..3)
        .map(|seed| {
            let outcome = disturbed(&events, seed, undisturbed, false);
            assert_eq!(number(&outcome.rows, 1), events.distinct, "lake {seed}: keys");
            number(&outcome.rows, 0) > events.distinct
        })
        .collect();
    assert_eq!(found, BTreeSet::from([true]), "lakes with duplicates");
}
