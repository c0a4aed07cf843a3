//! A power cut takes nothing that was acknowledged, and a full disk nothing that was there before.
//!
//! The program runs with `tests/crash/disk.c` preloaded, which stands between it and the disk and
//! is compiled here by `cc`. For a power cut it records what was synced, and the lake is built anew
//! from that record in two ways between which the truth lies. For a full disk it fails whatever is
//! written after so many bytes. What is in a lake afterwards is told by the program, without it.
//!
//! `METERHOUSE_CRASH_ROUNDS` sets the number of power cuts, `METERHOUSE_CRASH_SEED` the seed, and
//! `METERHOUSE_CRASH_SPACES` how many amounts of space each command has to do with. The same seed
//! cuts at the same counts of writes and syncs, but their order differs as threads do.

// Preloading is of the GNU C library, and a program that is linked statically ignores it.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::{Map, Value};
use tempfile::TempDir;

use super::storm::random::Random;

const ROUNDS: u64 = 8;
const SEED: u64 = 20_261_126;
/// Amounts of space that each command has to do with.
const SPACES: u64 = 6;

/// Runs of the program that bring events in, each with a folder of input of its own.
const RUNS: usize = 3;
const FILES: usize = 4;
const LINES: usize = 25;
/// Less than a file brings, and at most three files go into one commit: a run makes several.
const COMMIT_EVENTS: &str = "20";
/// A file of input has events of so many days, and each commit so many data files.
const DAYS: usize = 2;

/// The lake on its disk: not even the folder that it lies in is there before the first ingest.
const LAKE: &str = "lakes/one";

const SIGKILL: i32 = 9;

/// Keys and values.
type Events = BTreeMap<String, i64>;

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    let rounds = setting("METERHOUSE_CRASH_ROUNDS", ROUNDS);
    let seed = setting("METERHOUSE_CRASH_SEED", SEED);
    eprintln!("METERHOUSE_CRASH_SEED={seed}");
    let pace = Pace::measured();
    let cut = (0..rounds).filter(|&round| is_cut(round, seed, pace)).count() as u64;
    eprintln!("{cut} of {rounds} cuts came before the run's end");
    assert!(rounds < ROUNDS || cut * 2 >= rounds, "only {cut} of {rounds} runs were cut");
}

#[test]
fn without_fsync_a_power_cut_loses_events() {
    // What is not synced, whether all is left where only what was synced is, and where names are.
    for (off, guaranteed, lucky) in [
        ("nothing", true, true),
        ("folders", false, true),
        ("files", false, false),
        ("all", false, false),
    ] {
        let place = Place::new();
        let output = output(place.on_disk(&ingest("in/0")).env("DISK_NO_FSYNC", off));
        assert_eq!(output.status.code(), Some(0), "{off}: {}", said(&output));
        for (name, lake, is_whole) in
            [("guaranteed", place.guaranteed(), guaranteed), ("lucky", place.lucky(), lucky)]
        {
            let stored = place.stored(&lake);
            assert_eq!(stored == Ok(place.sent_before(1)), is_whole, "{off}, {name}: {stored:?}");
        }
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    let spaces = setting("METERHOUSE_CRASH_SPACES", SPACES);
    for (name, command, runs_before, runs_after) in [
        ("first ingest", ingest("in/0"), 0, 1),
        ("second ingest", ingest("in/1"), 1, 2),
        ("compact", vec!["compact"], RUNS, RUNS),
    ] {
        let mut place = Place::new();
        for run in 0..runs_before {
            place.acknowledge(&ingest(&format!("in/{run}")));
        }
        let template = place.path("template");
        copy_folder(&place.disk(), &template);
        let needed = place.acknowledge(&command).bytes;
        let [before, after] = [runs_before, runs_after].map(|runs| place.sent_before(runs));
        let mut full = 0;
        for space in (0..spaces).map(|part| needed * part / spaces) {
            fs::remove_dir_all(place.disk()).unwrap();
            copy_folder(&template, &place.disk());
            full += u64::from(is_full(&mut place, &command, space, &before, &after));
        }
        eprintln!("{name}: the disk was full in {full} of {spaces} cases, {needed} bytes needed");
        // How many commits an ingest makes is not the same each time.
        assert!(full * 4 >= spaces * 3, "{name}: full in only {full} of {spaces} cases");
    }
}

// --- Power cuts -----------------------------------------------------------------------------

/// How many writes and syncs a run makes that nobody disturbs.
#[derive(Debug, Clone, Copy)]
struct Pace {
    first_ingest: u64,
    second_ingest: u64,
    compact: u64,
}

impl Pace {
    fn measured() -> Self {
        let place = Place::new();
        let first_ingest = place.acknowledge(&ingest("in/0")).steps;
        let second_ingest = place.acknowledge(&ingest("in/1")).steps;
        let compact = place.acknowledge(&["compact"]).steps;
        Self { first_ingest, second_ingest, compact }
    }
}

/// Lets some runs end, cuts the power during the next, and looks at what is left.
///
/// Tells whether the cut came before the end of that run. A lake that is not as it must be fails
/// the test and stays on disk.
fn is_cut(round: u64, seed: u64, pace: Pace) -> bool {
    let mut place = Place::new();
    let mut random = Random::new(seed ^ round);
    let runs = usize::try_from(random.below(RUNS as u64)).unwrap();
    for run in 0..runs {
        place.acknowledge(&ingest(&format!("in/{run}")));
    }
    let next = format!("in/{runs}");
    let (last, steps) = match (runs, random.below(4)) {
        (0, _) => (ingest(&next), pace.first_ingest),
        (_, 0..2) => (vec!["compact"], pace.compact),
        (_, 2) => {
            place.acknowledge(&["compact"]);
            (ingest(&next), pace.second_ingest)
        }
        _ => (ingest(&next), pace.second_ingest),
    };
    let step = 1 + random.below(steps);
    let output = output(place.on_disk(&last).env("DISK_CUT", step.to_string()));
    let is_cut = output.status.signal() == Some(SIGKILL);
    assert!(is_cut || output.status.success(), "{last:?}: {}", said(&output));

    // Nobody heard that the last run was done, unless it was.
    let acknowledged = place.sent_before(runs + usize::from(!is_cut && last[0] == "ingest"));
    let all = place.sent_before(RUNS);
    // The lucky lake comes second: what is recorded for it was not guaranteed.
    for (name, lake) in [("guaranteed", place.guaranteed()), ("lucky", place.lucky())] {
        let mut findings = place.look(&lake, &acknowledged);
        findings.extend(place.complete(&lake, &ingest("in"), &all));
        let story = format!("round {round} of seed {seed}: {runs} runs, {last:?} cut at {step}");
        place.judge(&findings, &format!("{story}, {name}"));
    }
    is_cut
}

// --- Full disks -----------------------------------------------------------------------------

/// Runs a command that may write no more than `space` bytes, then without a limit.
///
/// Tells whether the disk was full. A lake that is not as it must be fails the test and stays.
fn is_full(
    place: &mut Place,
    command: &[&str],
    space: u64,
    before: &Events,
    after: &Events,
) -> bool {
    let output = output(place.on_disk(command).env("DISK_SPACE", space.to_string()));
    let story = format!("{command:?} with {space} bytes");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!error.contains("panicked"), "{story}: {error}");
    let is_full = place.report().bytes == space;
    let code = Some(i32::from(is_full));
    assert_eq!(output.status.code(), code, "{story}: {}, {error}", output.status);
    if is_full {
        assert!(error.contains("No space left"), "{story}: {error}");
        assert!(error.contains(place.lake().to_str().unwrap()), "{story} names no path: {error}");
    }
    let lake = place.lake();
    let mut findings = place.look(&lake, before);
    findings.extend(place.complete(&lake, command, after));
    place.judge(&findings, &story);
    is_full
}

#[test]
fn a_full_disk_leaves_rollups_statements_and_exports_as_they_were() {
    let spaces = setting("METERHOUSE_CRASH_SPACES", SPACES / 2);
    let mut place = Place::new();
    fs::create_dir_all(place.path("queries/meters")).unwrap();
    let meter = "meter: hits\nevent: hit\naggregation: sum\nproperty: n\n";
    fs::write(place.path("queries/meters/hits.yaml"), meter).unwrap();
    place.acknowledge(&ingest("in/0"));
    let mut commands: Vec<Vec<String>> = vec![
        words("rollups refresh"),
        words("periods close 2026-05"),
        words("periods close 2026-06"),
    ];
    for (what, name) in [
        ("usage hits --period 2026-06", "u.csv"),
        ("usage hits --period 2026-06", "u.ndjson"),
        ("statements", "s.parquet"),
        ("statements", "s.xlsx"),
    ] {
        let mut command = words(&format!("export {what} --out"));
        command.push(place.disk().join("out").join(name).to_str().unwrap().to_owned());
        commands.push(command);
    }
    for command in &commands {
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let template = place.path("template");
        copy_folder(&place.disk(), &template);
        let before = place.told();
        let needed = place.acknowledge(&command).bytes;
        let after = place.told();
        assert!(needed > 0, "{command:?} wrote nothing");
        let mut full = 0;
        for space in (0..spaces).map(|part| needed * part / spaces) {
            fs::remove_dir_all(place.disk()).unwrap();
            copy_folder(&template, &place.disk());
            let output = output(place.on_disk(&command).env("DISK_SPACE", space.to_string()));
            let (story, error) = (format!("{command:?} with {space} bytes"), said(&output));
            let is_full = place.report().bytes == space;
            full += u64::from(is_full);
            let mut findings = Vec::new();
            if output.status.code() != Some(i32::from(is_full)) {
                findings.push(format!("{}: {error}", output.status));
            }
            // Of a workbook, the zip file's writer does not say more.
            let told = ["No space left", "the disk is full"];
            if is_full && !told.iter().any(|told| error.contains(told)) {
                findings.push(format!("it is not told why: {error}"));
            }
            let there = place.told();
            if there != if is_full { before.clone() } else { after.clone() } {
                findings.push(format!("{there:#?} is there"));
            }
            // With space again it is done as if nothing had been.
            place.acknowledge(&command);
            let there = place.told();
            if there != after {
                findings.push(format!("{there:#?} is there in the end, not {after:#?}"));
            }
            place.judge(&findings, &story);
        }
        eprintln!("{command:?}: full in {full} of {spaces} cases, {needed} bytes needed");
        assert!(full * 4 >= spaces * 3, "{command:?}: full in only {full} of {spaces} cases");
        fs::remove_dir_all(template).unwrap();
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

// --- One lake -------------------------------------------------------------------------------

/// How many bytes a run took of the disk, and how many writes and syncs it made.
#[derive(Debug, Clone, Copy)]
struct Report {
    bytes: u64,
    steps: u64,
}

/// A folder with input, a disk, what was recorded of it, and lakes built from that.
struct Place {
    folder: TempDir,
    /// The same, without symbolic links.
    path: PathBuf,
    /// What each run brings.
    runs: Vec<Events>,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        for part in ["disk", "image/content", "image/names"] {
            fs::create_dir_all(path.join(part)).unwrap();
        }
        let runs = (0..RUNS).map(|run| write_input(&path.join(format!("in/{run}")), run)).collect();
        Self { folder, path, runs }
    }

    fn path(&self, part: &str) -> PathBuf {
        self.path.join(part)
    }

    fn disk(&self) -> PathBuf {
        self.path("disk")
    }

    fn lake(&self) -> PathBuf {
        self.disk().join(LAKE)
    }

    /// What the first runs bring.
    fn sent_before(&self, run: usize) -> Events {
        self.runs[..run].iter().flatten().map(|(key, value)| (key.clone(), *value)).collect()
    }

    fn program(&self, lake: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meterhouse"));
        command.current_dir(&self.path).arg("--lake").arg(lake).args(args);
        for name in ["METERHOUSE_LAKE", "METERHOUSE_STATE", "METERHOUSE_METERS"] {
            command.env_remove(name);
        }
        command
    }

    /// The program on the preloaded disk, which records what is synced.
    fn on_disk(&self, args: &[&str]) -> Command {
        let mut command = self.program(&self.lake(), args);
        self.preload(&mut command);
        command
    }

    fn preload(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", library())
            .env("DISK_ROOT", self.disk())
            .env("DISK_IMAGE", self.path("image"))
            .env("DISK_REPORT", self.path("report"));
    }

    /// Runs a command to its end.
    fn acknowledge(&self, args: &[&str]) -> Report {
        let output = output(&mut self.on_disk(args));
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", said(&output));
        self.report()
    }

    /// What the program left that ended last.
    fn report(&self) -> Report {
        let report = fs::read_to_string(self.path("report")).unwrap();
        let (bytes, steps) = report.trim_end().split_once(' ').unwrap();
        Report { bytes: bytes.parse().unwrap(), steps: steps.parse().unwrap() }
    }

    /// The lake as it must be after a power cut: what was synced, under names that were.
    fn guaranteed(&self) -> PathBuf {
        self.restored("guaranteed")
    }

    /// The lake as it may be after a power cut: what was synced, under the names of this moment. A
    /// file that was not synced is empty.
    fn lucky(&self) -> PathBuf {
        let folders = folders_of(&self.disk());
        let mut command = Command::new("sync");
        self.preload(command.args(&folders));
        let synced = output(&mut command);
        assert!(synced.status.success(), "{}", said(&synced));
        self.restored("lucky")
    }

    fn restored(&self, name: &str) -> PathBuf {
        let target = self.path(name);
        restore(&self.path("image"), "root", &target);
        target.join(LAKE)
    }

    /// Everything that is wrong with a lake that holds `least` and maybe more of what was sent.
    fn look(&self, lake: &Path, least: &Events) -> Vec<String> {
        let verified = output(&mut self.program(lake, &["verify"]));
        if least.is_empty() {
            // It need not be there. What is there need not be damaged.
            let is_fine = matches!(verified.status.code(), Some(0 | 1));
            return if is_fine { Vec::new() } else { vec![said(&verified)] };
        }
        let mut findings = Vec::new();
        if !verified.status.success() {
            findings.push(format!("verify: {:?}, {}", verified.status.code(), said(&verified)));
        }
        match self.stored(lake) {
            Ok(stored) => {
                let lost = least.iter().filter(|(key, value)| stored.get(*key) != Some(value));
                findings.extend(lost.map(|(key, _)| format!("{key} is lost")));
                let all = self.sent_before(RUNS);
                let foreign = stored.iter().filter(|(key, value)| all.get(*key) != Some(value));
                findings.extend(foreign.map(|(key, value)| format!("{key}={value} was not sent")));
            }
            Err(error) => findings.push(error),
        }
        findings
    }

    /// Everything that is wrong after a command which is to bring in what is missing of `all`.
    fn complete(&self, lake: &Path, command: &[&str], all: &Events) -> Vec<String> {
        let output = output(&mut self.program(lake, command));
        if !output.status.success() {
            let code = output.status.code();
            return vec![format!("again {command:?}: {code:?}, {}", said(&output))];
        }
        self.look(lake, all)
    }

    /// The events that a lake holds.
    fn stored(&self, lake: &Path) -> Result<Events, String> {
        let query = "select idempotency_key, n from events";
        let output = output(&mut self.program(lake, &["sql", query, "-o", "csv"]));
        if !output.status.success() {
            return Err(said(&output));
        }
        let mut stored = Events::new();
        for row in String::from_utf8(output.stdout).unwrap().lines().skip(1) {
            let (key, value) = row.split_once(',').unwrap();
            if stored.insert(key.to_owned(), value.parse().unwrap()).is_some() {
                return Err(format!("{key} is there twice"));
            }
        }
        Ok(stored)
    }

    /// What the lake and the exports beside it say: usage from states and from events, statements, and the
    /// content of files, which nothing unfinished lies beside.
    fn told(&self) -> BTreeMap<String, String> {
        let mut told = BTreeMap::new();
        for question in [
            "usage hits --period 2026-06 --window day -o csv -q",
            "usage hits --period 2026-06 --window day -o csv -q --from-events",
            "verify -q",
        ] {
            let question: Vec<&str> = question.split(' ').collect();
            let output = output(&mut self.program(&self.lake(), &question));
            told.insert(
                question.join(" "),
                format!("{:?} {}", output.status.code(), said(&output)),
            );
        }
        let output = output(&mut self.program(&self.lake(), &["periods", "list", "-o", "json"]));
        assert!(output.status.success(), "{}", said(&output));
        let mut closings: Vec<Map<String, Value>> = serde_json::from_slice(&output.stdout).unwrap();
        // Another run closes at another time.
        closings.iter_mut().for_each(|closing| assert!(closing.remove("closed_at").is_some()));
        told.insert("periods".to_owned(), format!("{closings:#?}"));
        for entry in fs::read_dir(self.disk().join("out")).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let content = fs::read(&path).unwrap();
            let of = name.strip_prefix('_').and_then(|name| name.strip_suffix(".json"));
            told.insert(
                name.clone(),
                match of {
                    None => format!("{content:?}"),
                    // One without a file says that an export did not get to it.
                    Some(of) if !path.with_file_name(of).exists() => continue,
                    Some(_) => {
                        let mut record: Map<String, Value> =
                            serde_json::from_slice(&content).unwrap();
                        assert!(record.remove("written_at").is_some());
                        format!("{record:#?}")
                    }
                },
            );
        }
        told
    }

    /// Fails the test if there are findings, and then leaves everything where it is.
    fn judge(&mut self, findings: &[String], story: &str) {
        self.folder.disable_cleanup(!findings.is_empty());
        assert!(findings.is_empty(), "{story}, in {}: {findings:#?}", self.path.display());
    }
}

fn ingest(input: &str) -> Vec<&str> {
    vec!["ingest", input, "--threads", "1", "--commit-events", COMMIT_EVENTS]
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// Writes the input of one run.
fn write_input(folder: &Path, run: usize) -> Events {
    let mut events = Events::new();
    fs::create_dir_all(folder).unwrap();
    for file in 0..FILES {
        let mut text = String::new();
        for line in 0..LINES {
            let (key, day) = (format!("k{run}-{file}-{line}"), 1 + line % DAYS);
            let value = i64::try_from((run * FILES + file) * LINES + line).unwrap();
            writeln!(
                text,
                r#"{{"event_name":"hit","idempotency_key":"{key}","customer_id":"c","timestamp":"2026-06-{day:02}T12:00:00Z","properties":{{"n":{value}}}}}"#
            )
            .unwrap();
            events.insert(key, value);
        }
        fs::write(folder.join(format!("{file}.ndjson")), text).unwrap();
    }
    events
}

// --- Disks ----------------------------------------------------------------------------------

/// `disk.c`, compiled once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/disk.c");
        // Another run of the tests may be using the one that is there.
        let compiled = folder.join(format!("disk-{}.so", std::process::id()));
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]);
        let output = output(compiler.arg(&compiled).arg(source).arg("-ldl"));
        assert!(output.status.success(), "{}", said(&output));
        let library = folder.join("disk.so");
        fs::rename(compiled, &library).unwrap();
        library
    })
}

/// Builds a folder from what `disk.c` recorded of it; nothing is a folder without names or a file
/// without content.
fn restore(image: &Path, id: &str, target: &Path) {
    fs::create_dir(target).unwrap();
    let names = fs::read_to_string(image.join("names").join(id)).unwrap_or_default();
    for line in names.lines() {
        let (kind, entry) = line.split_once(' ').unwrap();
        let (id, name) = entry.split_once(' ').unwrap();
        let (target, content) = (target.join(name), image.join("content").join(id));
        match kind {
            "d" => restore(image, id, &target),
            _ if content.exists() => drop(fs::copy(content, target).unwrap()),
            _ => fs::write(target, "").unwrap(),
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let from = entry.unwrap().path();
        let to = to.join(from.file_name().unwrap());
        if from.is_dir() {
            copy_folder(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

/// A folder and all below it.
fn folders_of(folder: &Path) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_path_buf()];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            folders.extend(folders_of(&path));
        }
    }
    folders
}

// --- Chance ---------------------------------------------------------------------------------

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => default,
    }
}
