//! Ingest and compaction killed at random moments: afterwards every identity is in the lake exactly once.
//!
//! Lakes of their own, each with a few SIGKILLs of the program and then a run to the end. What is in
//! a lake is read here from the Delta log and the Parquet files, without the product, and compared
//! with what was sent and with what the program answers. The events are the same for the same seed;
//! where a kill lands depends on the machine, so a kill that came too early or too late is counted,
//! not failed.
//!
//! `METERHOUSE_KILL_LAKES` sets the number of lakes, `METERHOUSE_KILL_SEED` the seed. The long test
//! is run by `cargo test --test it kills -- --ignored --nocapture`.

#![cfg(unix)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::storm::random::Random;

const LAKES: u64 = 50;
const LAKES_OF_THE_LONG_TEST: u64 = 400;
/// Fewer lakes have too few kills to judge where most of them land.
const LAKES_TO_JUDGE: u64 = 10;
const SEED: u64 = 20_261_001;
/// Lakes that are tormented side by side.
const WORKERS: u64 = 2;
/// Lakes between two measurements of an undisturbed run: what else the machine does changes.
const PACE_HOLDS: u64 = 8;
/// Lakes in which the control looks for one event that counts twice.
const CONTROL_LAKES: u64 = 20;

/// Input is decoded file by file, so that a run of many small ones commits often.
const FILES: usize = 15;
const LINES: usize = 240;
/// Less than a file brings: with one decoding thread at most three files are in flight at once, and
/// go into one commit.
const COMMIT_EVENTS: &str = "100";
const COMMITS_MIN: u64 = 5;
/// A compaction of such a lake takes about so long.
const COMPACTION_MS: u64 = 400;

#[test]
fn killed_and_repeated_runs_store_every_identity_once() {
    torment_many(setting("METERHOUSE_KILL_LAKES", LAKES), seed());
}

#[test]
#[ignore = "takes minutes"]
fn killed_and_repeated_runs_store_every_identity_once_in_many_lakes() {
    torment_many(setting("METERHOUSE_KILL_LAKES", LAKES_OF_THE_LONG_TEST), seed());
}

#[test]
fn without_deduplication_killed_and_repeated_runs_store_events_twice() {
    // Only builds with debug assertions can switch it off.
    if !cfg!(debug_assertions) {
        return;
    }
    let seed = seed();
    let pace = undisturbed(seed, 0);
    let shown = (0..CONTROL_LAKES).find(|&lake| {
        let ended = torment(seed, lake, pace, Deduplication::Off);
        let double = ended.findings.double_though_sent_once;
        // What an earlier run committed comes again, and nothing else does.
        let committed = ended.kills.iter().any(|kill| kill.commits > 0);
        assert_eq!(double > 0, committed, "lake {lake} of seed {seed}");
        ended.kills.iter().any(|kill| kill.killed && kill.commits > 0)
    });
    assert!(shown.is_some(), "no kill of {CONTROL_LAKES} lakes came after a commit");
}

/// Torments `lakes` lakes side by side, and demands that a fair share of the kills was worth it.
fn torment_many(lakes: u64, seed: u64) {
    let next = AtomicU64::new(0);
    let ended = Mutex::new(Vec::new());
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..WORKERS.min(lakes) {
            scope.spawn(|| {
                let mut pace = None;
                for turn in 0.. {
                    let lake = next.fetch_add(1, Ordering::Relaxed);
                    if lake >= lakes {
                        break;
                    }
                    let pace = match pace {
                        Some(pace) if turn % PACE_HOLDS != 0 => pace,
                        _ => *pace.insert(undisturbed(seed, lake)),
                    };
                    // Not under the lock: the others go on.
                    let lake = torment(seed, lake, pace, Deduplication::On);
                    ended.lock().unwrap().push(lake);
                }
            });
        }
    });
    let ended = ended.into_inner().unwrap();
    assert_eq!(ended.len() as u64, lakes);
    let count = |moment| ended.iter().map(|lake| lake.count(moment)).sum::<usize>();
    let (early, within, late) = (count(Moment::Early), count(Moment::Within), count(Moment::Late));
    let all = early + within + late;
    let compactions = |part: fn(&Ended) -> usize| ended.iter().map(part).sum::<usize>();
    let (begun, killed) =
        (compactions(|lake| lake.compactions.0), compactions(|l| l.compactions.1));
    eprintln!(
        "{lakes} lakes in {:.1?}: {within} of {all} kills of ingest landed between first write and \
         last commit, {} of them after a first commit; {early} were too early, {late} too late; \
         {killed} of {begun} compactions were killed before their end",
        started.elapsed(),
        ended.iter().map(Ended::half_done).sum::<usize>(),
    );
    assert!(lakes < LAKES_TO_JUDGE || killed * 3 >= begun, "most kills missed the compaction");
    assert!(lakes < LAKES_TO_JUDGE || within * 3 >= all, "most kills missed the ingest");
}

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => default,
    }
}

fn seed() -> u64 {
    let seed = setting("METERHOUSE_KILL_SEED", SEED);
    eprintln!("METERHOUSE_KILL_SEED={seed}");
    seed
}

// --- One lake -------------------------------------------------------------------------------

/// How a run goes that nobody kills.
#[derive(Debug, Clone, Copy)]
struct Pace {
    duration: Duration,
    commits: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deduplication {
    On,
    Off,
}

/// When a kill came: before anything was written, before the last commit, or after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Early,
    Within,
    Late,
}

/// What a kill left behind.
#[derive(Debug)]
struct Kill {
    /// Whether the program was killed, and had not come to its end before.
    killed: bool,
    /// Whether the lake had a file.
    wrote: bool,
    /// How often events had been committed.
    commits: u64,
}

/// A lake after its kills and the run to the end.
#[derive(Debug)]
struct Ended {
    kills: Vec<Kill>,
    /// Compactions that were killed, and how many of them had not come to their end.
    compactions: (usize, usize),
    /// How often events were committed.
    commits: u64,
    findings: Findings,
}

impl Ended {
    fn moment(&self, kill: &Kill) -> Moment {
        match kill.killed && kill.commits < self.commits {
            true if kill.wrote => Moment::Within,
            true => Moment::Early,
            false => Moment::Late,
        }
    }

    fn count(&self, moment: Moment) -> usize {
        self.kills.iter().filter(|&kill| self.moment(kill) == moment).count()
    }

    /// Kills that left some commits done and some to do.
    fn half_done(&self) -> usize {
        let half = |kill: &&Kill| kill.commits > 0 && self.moment(kill) == Moment::Within;
        self.kills.iter().filter(half).count()
    }
}

/// Measures a run without kills, and checks that it commits often enough to be worth killing.
fn undisturbed(seed: u64, lake: u64) -> Pace {
    let folder = tempfile::tempdir().unwrap();
    let sent = Sent::write(folder.path(), &mut Random::new(seed ^ lake));
    let started = Instant::now();
    run_to_the_end(folder.path(), Deduplication::On);
    let duration = started.elapsed();
    let commits = commits(folder.path());
    assert!(commits >= COMMITS_MIN, "only {commits} commits, at least {COMMITS_MIN} are needed");
    assert_eq!(find(folder.path(), &sent), Findings::default(), "lake {lake} of seed {seed}");
    Pace { duration, commits }
}

/// Kills some runs, lets one end and looks at what is there.
///
/// With deduplication a lake with findings fails the test and stays on disk.
fn torment(seed: u64, lake: u64, pace: Pace, deduplication: Deduplication) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random::new(seed ^ lake);
    let sent = Sent::write(folder.path(), &mut random);
    let (mut kills, mut compactions) = (Vec::new(), (0, 0));
    for _ in 0..=random.below(4) {
        let moment = moment(&mut random, pace, commits(folder.path()));
        let kill = kill(folder.path(), moment, deduplication);
        let ended = !kill.killed;
        kills.push(kill);
        if has_log(folder.path()) && random.below(2) == 0 {
            let after = Duration::from_millis(random.below(COMPACTION_MS));
            compactions.0 += 1;
            compactions.1 += usize::from(kill_compaction(folder.path(), after));
        }
        if ended {
            break;
        }
    }
    run_to_the_end(folder.path(), deduplication);
    let commits = commits(folder.path());
    let ended = Ended { kills, compactions, commits, findings: find(folder.path(), &sent) };
    if deduplication == Deduplication::On && ended.findings != Findings::default() {
        let place = folder.keep();
        panic!("lake {lake} of seed {seed}, kept in {}: {ended:#?}", place.display());
    }
    ended
}

/// The ingest of everything in `in`, as one command that can be repeated.
fn ingest(folder: &Path, deduplication: Deduplication) -> Command {
    let mut command = program(folder, &["ingest", "in", "--threads", "1"]);
    command.args(["--commit-events", COMMIT_EVENTS]);
    if deduplication == Deduplication::Off {
        command.env("METERHOUSE_TEST_NO_DEDUPLICATION", "1");
    }
    command
}

fn program(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meterhouse"));
    command.current_dir(folder).args(["--lake", "lake", "--meters", "meters"]).args(args);
    for name in ["METERHOUSE_LAKE", "METERHOUSE_STATE", "METERHOUSE_METERS"] {
        command.env_remove(name);
    }
    command
}

fn run_to_the_end(folder: &Path, deduplication: Deduplication) {
    let output = ingest(folder, deduplication).output().unwrap();
    // Some events are refused.
    assert_eq!(output.status.code(), Some(3), "{}: {}", folder.display(), said(&output));
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// Whether a compaction was killed before it came to its end.
fn kill_compaction(folder: &Path, after: Duration) -> bool {
    let mut command = program(folder, &["compact"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::thread::sleep(after);
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(matches!(output.status.code(), None | Some(0)), "{}", said(&output));
    output.status.code().is_none()
}

fn has_log(folder: &Path) -> bool {
    !log(&events_table(folder)).is_empty()
}

fn kill(folder: &Path, after: Duration, deduplication: Deduplication) -> Kill {
    let mut command = ingest(folder, deduplication);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::thread::sleep(after);
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    // The end of a run that was not killed any more; an error is nobody's kill.
    assert!(matches!(output.status.code(), None | Some(3)), "{}", said(&output));
    Kill {
        killed: output.status.code().is_none(),
        wrote: has_file(&folder.join("lake")),
        commits: commits(folder),
    }
}

fn pick<'a, T>(random: &mut Random, from: &'a [T]) -> &'a T {
    &from[usize::try_from(random.below(from.len() as u64)).unwrap()]
}

/// A moment in the time that a run needs for what is not committed yet.
fn moment(random: &mut Random, pace: Pace, commits: u64) -> Duration {
    // One part is for starting.
    let parts = pace.commits.saturating_sub(commits) + 1;
    let left =
        pace.duration * u32::try_from(parts).unwrap() / u32::try_from(pace.commits + 1).unwrap();
    left * u32::try_from(random.below(1_000)).unwrap() / 1_000
}

// --- What is sent ---------------------------------------------------------------------------

/// What the input holds, and so what the lake must hold.
#[derive(Default)]
struct Sent {
    /// Key to the value of the event that came first, and how often the key is sent.
    identities: BTreeMap<String, (i64, u32)>,
    /// File and line of what is no event.
    rejected: BTreeSet<(String, u64)>,
    /// Key and value of what came second with another content.
    conflicts: BTreeSet<(String, i64)>,
}

const BROKEN: [&str; 4] = [
    r#"{"event_name":"hit","idempotency_key":"cut"#,
    r#"{"event_name":"hit","idempotency_key":"nobody","timestamp":"2026-06-01T00:00:00Z"}"#,
    r#"{"event_name":"hit","idempotency_key":"vague","customer_id":"c","timestamp":"yesterday"}"#,
    r#"{"event_name":"hit","idempotency_key":"odd","customer_id":"c","colour":1}"#,
];

impl Sent {
    /// Writes the input to `in` and two meters to `meters`.
    fn write(folder: &Path, random: &mut Random) -> Self {
        let mut sent = Self::default();
        let mut keys = Vec::new();
        fs::create_dir(folder.join("in")).unwrap();
        for file in 0..FILES {
            let name = format!("in/{file:02}.ndjson");
            let text = sent.file(&name, file, &mut keys, random);
            fs::write(folder.join(name), text).unwrap();
        }
        fs::create_dir(folder.join("meters")).unwrap();
        fs::write(folder.join("meters/hits.yaml"), "meter: hits\naggregation: count\n").unwrap();
        let total = "meter: total\naggregation: sum\nproperty: n\n";
        fs::write(folder.join("meters/total.yaml"), total).unwrap();
        sent
    }

    fn file(
        &mut self,
        name: &str,
        file: usize,
        keys: &mut Vec<(String, usize)>,
        random: &mut Random,
    ) -> String {
        let mut text = String::new();
        for line in 1..=LINES {
            let number = i64::try_from(file * LINES + line).unwrap();
            let event = match random.below(100) {
                0..6 if !keys.is_empty() => {
                    let (key, day) = pick(random, keys);
                    let (first, times) = self.identities.get_mut(key).unwrap();
                    *times += 1;
                    event(key, *day, *first)
                }
                6 if !keys.is_empty() => {
                    let (key, day) = pick(random, keys);
                    self.identities.get_mut(key).unwrap().1 += 1;
                    self.conflicts.insert((key.clone(), number));
                    event(key, *day, number)
                }
                7 => {
                    self.rejected.insert((name.to_owned(), line as u64));
                    (*pick(random, &BROKEN)).to_owned()
                }
                _ => {
                    let (key, day) = (format!("k{:x}", random.next()), file / 4 + line % 2 + 1);
                    let first = self.identities.insert(key.clone(), (number, 1));
                    assert!(first.is_none(), "key {key} is drawn twice");
                    let event = event(&key, day, number);
                    keys.push((key, day));
                    event
                }
            };
            writeln!(text, "{event}").unwrap();
        }
        text
    }
}

fn event(key: &str, day: usize, number: i64) -> String {
    format!(
        r#"{{"event_name":"hit","idempotency_key":"{key}","customer_id":"c","timestamp":"2026-06-{day:02}T12:00:00Z","properties":{{"n":{number}}}}}"#
    )
}

// --- What is there --------------------------------------------------------------------------

/// Everything in a lake that is not as it must be.
#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    lost: Vec<String>,
    double: Vec<String>,
    /// How many of the double ones have a key that the input holds once.
    double_though_sent_once: usize,
    /// Anything else, in words.
    wrong: Vec<String>,
}

impl Findings {
    fn compare<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: &T, want: &T) {
        if found != want {
            self.wrong.push(format!("{what}: found {found:?}, want {want:?}"));
        }
    }
}

fn find(folder: &Path, sent: &Sent) -> Findings {
    let mut findings = Findings::default();
    find_in_files(folder, sent, &mut findings);
    find_in_answers(folder, sent, &mut findings);
    find_in_quarantine(folder, sent, &mut findings);
    find_in_accounts(folder, sent, &mut findings);
    findings
}

fn find_in_files(folder: &Path, sent: &Sent, findings: &mut Findings) {
    let mut stored: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for rows in live_rows(&events_table(folder)) {
        let keys = rows.column_by_name("idempotency_key").unwrap().as_string::<i32>();
        let values = rows.column_by_name("i_n").unwrap().as_primitive::<Int64Type>();
        for (key, value) in keys.iter().zip(values.iter()) {
            stored.entry(key.unwrap().to_owned()).or_default().push(value.unwrap());
        }
    }
    for (key, (first, times)) in &sent.identities {
        match stored.remove(key).unwrap_or_default().as_slice() {
            [] => findings.lost.push(key.clone()),
            [value] => findings.compare(&format!("value of {key}"), value, first),
            _ => {
                findings.double.push(key.clone());
                findings.double_though_sent_once += usize::from(*times == 1);
            }
        }
    }
    findings.compare("events that were never sent", &stored, &BTreeMap::new());
}

/// What the program answers about its own lake.
fn find_in_answers(folder: &Path, sent: &Sent, findings: &mut Findings) {
    let count = sent.identities.len().to_string();
    let total = sent.identities.values().map(|(first, _)| first).sum::<i64>().to_string();
    let query = "select count(*), count(distinct idempotency_key), sum(n) from events";
    let rows = answer(folder, &["sql", query, "-o", "csv"]);
    findings.compare("sql", &rows, &vec![vec![count.clone(), count.clone(), total.clone()]]);
    let usage = answer(folder, &["usage", "hits", "total", "--total", "-o", "csv"]);
    let values: Vec<_> = usage.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let want = vec![("hits".to_owned(), count), ("total".to_owned(), total)];
    findings.compare("usage", &values, &want);
}

/// Rows of CSV without their header.
fn answer(folder: &Path, args: &[&str]) -> Vec<Vec<String>> {
    let output = program(folder, args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", said(&output));
    let mut reader = csv::Reader::from_reader(output.stdout.as_slice());
    let rows = reader.records().map(|row| row.unwrap().iter().map(ToOwned::to_owned).collect());
    rows.collect()
}

/// Every refused line is listed once, by the table itself and by the command.
fn find_in_quarantine(folder: &Path, sent: &Sent, findings: &mut Findings) {
    let (mut rejected, mut conflicts) = (Vec::new(), Vec::new());
    for row in answer(folder, &["events", "rejected", "-o", "csv"]) {
        let [_, outcome, _, _, _, input, line, event] = row.as_slice() else {
            panic!("columns of the quarantine: {row:?}");
        };
        if outcome == "conflict" {
            let event: serde_json::Value = serde_json::from_str(event).unwrap();
            let key = event["idempotency_key"].as_str().unwrap().to_owned();
            conflicts.push((key, event["properties"]["n"].as_i64().unwrap()));
        } else {
            rejected.push((input.clone(), line.parse::<u64>().unwrap()));
        }
    }
    rejected.sort();
    conflicts.sort();
    findings.compare("rejected", &rejected, &sent.rejected.iter().cloned().collect());
    findings.compare("conflicts", &conflicts, &sent.conflicts.iter().cloned().collect());
    let stored: usize = live_rows(&table(folder, "quarantine")).iter().map(|r| r.num_rows()).sum();
    let want = sent.rejected.len() + sent.conflicts.len();
    findings.compare("rows of the quarantine's files", &stored, &want);
}

/// Accepted events sum up to the identities, and every version of the events has one account.
fn find_in_accounts(folder: &Path, sent: &Sent, findings: &mut Findings) {
    let mut accounts = BTreeMap::new();
    for rows in live_rows(&table(folder, "batches")) {
        let batches = rows.column_by_name("batch").unwrap().as_string::<i32>();
        for row in 0..rows.num_rows() {
            let number = |name: &str| {
                rows.column_by_name(name).unwrap().as_primitive::<Int64Type>().value(row)
            };
            let [read, accepted, version] = ["read", "accepted", "version"].map(number);
            let others: i64 = ["duplicate", "conflict", "rejected"].map(number).iter().sum();
            findings.compare("submitted events of a batch", &read, &(accepted + others));
            accounts.insert(batches.value(row).to_owned(), (accepted, version));
        }
    }
    let accepted: i64 = accounts.values().map(|(accepted, _)| accepted).sum();
    let want = i64::try_from(sent.identities.len()).unwrap();
    findings.compare("accepted events of all batches", &accepted, &want);
    let storing = accounts.values().filter(|(accepted, _)| *accepted > 0);
    let mut versions: Vec<i64> = storing.map(|(_, version)| *version).collect();
    versions.sort_unstable();
    findings.compare("versions with an account", &versions, &written(&events_table(folder)));
}

// --- Delta and Parquet, read by hand --------------------------------------------------------

fn events_table(folder: &Path) -> PathBuf {
    table(folder, "events")
}

fn table(folder: &Path, name: &str) -> PathBuf {
    folder.join("lake/default").join(name)
}

/// Versions and paths of the log's entries, in order; none where there is no table.
fn log(table: &Path) -> Vec<(u64, PathBuf)> {
    let Ok(folder) = fs::read_dir(table.join("_delta_log")) else { return Vec::new() };
    let paths = folder.map(|entry| entry.unwrap().path());
    let mut entries: Vec<(u64, PathBuf)> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().parse().unwrap(), path))
        .collect();
    entries.sort();
    let versions: Vec<u64> = entries.iter().map(|(version, _)| *version).collect();
    assert_eq!(versions, (0..entries.len() as u64).collect::<Vec<_>>(), "{}", table.display());
    entries
}

/// How often an ingest has committed events.
fn commits(folder: &Path) -> u64 {
    written(&events_table(folder)).len() as u64
}

/// The versions that brought events, which those of compaction do not.
fn written(table: &Path) -> Vec<i64> {
    let writes = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        text.lines().any(|action| {
            let action: serde_json::Value = serde_json::from_str(action).unwrap();
            action["commitInfo"]["operation"] == "WRITE"
        })
    };
    let versions = log(table).into_iter().filter(|(_, path)| writes(path));
    versions.map(|(version, _)| i64::try_from(version).unwrap()).collect()
}

/// The rows of the files that the log has added and not removed.
fn live_rows(table: &Path) -> Vec<RecordBatch> {
    let mut live = BTreeSet::new();
    for (_, path) in log(table) {
        for action in fs::read_to_string(path).unwrap().lines() {
            let action: serde_json::Value = serde_json::from_str(action).unwrap();
            if let Some(path) = action["add"]["path"].as_str() {
                live.insert(path.to_owned());
            }
            if let Some(path) = action["remove"]["path"].as_str() {
                live.remove(path);
            }
        }
    }
    let read = |path: &String| {
        let file = File::open(table.join(path)).unwrap();
        ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap()
    };
    live.iter().flat_map(read).map(|rows| rows.unwrap()).collect()
}

fn has_file(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.map(|entry| entry.unwrap().path()).any(|path| path.is_file() || has_file(&path))
}
