//! What the key index costs: CPU time per event for bulk loads and small batches, bytes per key.
//!
//! `cargo bench --bench dedupe` prints the table for 30 million keys to begin with,
//! `cargo bench --bench dedupe -- 90` for so many other millions. It needs Linux (CPU time and memory
//! are read from `/proc`), about 75 bytes for each key in the folder for temporary files and 300 MB of
//! memory. Making and sorting the keys is the caller's work and is left out; all of probe, stage, apply
//! and merge is in.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use meterhouse::dedupe::{Entry, Index, Key};
use meterhouse::error::{Error, Result};

const MILLION: u64 = 1_000_000;

/// Nanoseconds of one tick of CPU time in `/proc`.
const TICK_NS: u64 = 10_000_000;

fn main() -> Result<()> {
    let millions = std::env::args().find_map(|argument| argument.parse::<u64>().ok());
    let before = millions.unwrap_or(30) * MILLION;
    let full = before + 10 * MILLION;
    let folder = tempfile::tempdir().map_err(|cause| broken("make a folder", cause))?;
    let open = || Index::open(folder.path(), "bench", "now");
    let mut index = open()?;
    print_row("step", "CPU ns/event", "wall ns/event", "runs")?;

    let load = |index: &mut Index, from, to, batch| ingest(index, folder.path(), from, to, batch);
    load(&mut index, 0, before, MILLION)?;
    load(&mut index, before, full, MILLION / 2)?;
    sizes(&index)?;

    let present = |i: u64| mix(i) % full;
    let absent = |i: u64| (1 << 40) + i;
    print_probe(&index, "10 M present keys by 500,000", 10 * MILLION, MILLION / 2, present)?;
    print_probe(&index, "10 M absent keys by 500,000", 10 * MILLION, MILLION / 2, absent)?;
    for batch in [10_000, 1_000, 100, 1] {
        let events = (batch * 500).clamp(100_000, 2 * MILLION);
        print_probe(&index, &format!("absent keys by {batch}"), events, batch, absent)?;
        print_probe(&index, &format!("present keys by {batch}"), events, batch, present)?;
    }
    load(&mut index, full, full + 2 * MILLION, 10_000)?;
    load(&mut index, full + 2 * MILLION, full + 2 * MILLION + 500_000, 1_000)?;

    let verify = Clock::start()?;
    index.verify()?;
    verify.print("verify all", index.len(), Some(folder.path()))?;
    let events = index.len();
    drop(index);
    let reopen = Clock::start()?;
    let index = open()?;
    reopen.print("open", events, Some(folder.path()))?;
    sizes(&index)
}

/// Probes, stages and applies the keys of `from..to` in batches.
fn ingest(index: &mut Index, folder: &Path, from: u64, to: u64, batch: u64) -> Result<()> {
    let mut total = Clock::default();
    let mut start = from;
    while start < to {
        let keys = sorted_keys(start, batch, |i| i);
        let clock = Clock::start()?;
        let found = index.probe(&keys)?;
        let new = keys.into_iter().zip(found).filter(|(_, found)| found.is_none());
        let staged = index.stage(new.map(|(key, _)| Entry { key, content: 1, date: 20_000 }))?;
        index.apply(index.applied().map_or(0, |applied| applied + 1), vec![staged])?;
        total.add(&clock)?;
        start += batch;
    }
    let step =
        format!("load {} k new keys by {batch} into {} M", (to - from) / 1000, from / MILLION);
    total.print(&step, to - from, Some(folder))
}

/// Probes `events` keys in batches.
fn print_probe(
    index: &Index,
    step: &str,
    events: u64,
    batch: u64,
    number: impl Fn(u64) -> u64 + Copy,
) -> Result<()> {
    // Enough different batches that they do not stay in the processor's caches.
    let prepared = (2 * MILLION / batch).clamp(1, 500).min(events / batch);
    let batches: Vec<_> = (0..prepared).map(|at| sorted_keys(at * batch, batch, number)).collect();
    let clock = Clock::start()?;
    let mut found = 0;
    for at in 0..events / batch {
        let keys = &batches[usize::try_from(at % prepared).unwrap_or(0)];
        found += index.probe(keys)?.iter().flatten().count();
    }
    clock.print(&format!("{step} ({found} found)"), events, None)
}

fn sorted_keys(from: u64, count: u64, number: impl Fn(u64) -> u64) -> Vec<Key> {
    let mut keys: Vec<Key> = (from..from + count).map(|i| key(number(i))).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// A key as uniform as a hash.
fn key(number: u64) -> Key {
    let (high, low) = (mix(2 * number), mix(2 * number + 1));
    (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014), after one step of its sequence.
fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// CPU ticks and wall time, since a start or summed up.
#[derive(Debug, Default)]
struct Clock {
    ticks: u64,
    wall_ns: u128,
    started: Option<Instant>,
}

impl Clock {
    fn start() -> Result<Self> {
        Ok(Self { ticks: cpu_ticks()?, wall_ns: 0, started: Some(Instant::now()) })
    }

    /// Ticks and nanoseconds since the start.
    fn read(&self) -> Result<(u64, u128)> {
        match self.started {
            Some(started) => Ok((cpu_ticks()? - self.ticks, started.elapsed().as_nanos())),
            None => Ok((self.ticks, self.wall_ns)),
        }
    }

    fn add(&mut self, other: &Self) -> Result<()> {
        let (ticks, wall_ns) = other.read()?;
        self.ticks += ticks;
        self.wall_ns += wall_ns;
        Ok(())
    }

    fn print(&self, step: &str, events: u64, folder: Option<&Path>) -> Result<()> {
        let (ticks, wall_ns) = self.read()?;
        let runs = folder.map_or(String::new(), |folder| count_runs(folder).to_string());
        let cpu = ticks * TICK_NS / events;
        let wall = wall_ns / u128::from(events);
        print_row(step, &cpu.to_string(), &wall.to_string(), &runs)
    }
}

/// How many run files a folder holds.
fn count_runs(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, |files| {
        let is_run = |path: PathBuf| path.extension().is_some_and(|name| name == "run");
        files.flatten().filter(|file| is_run(file.path())).count()
    })
}

/// CPU time of this process, user and system.
fn cpu_ticks() -> Result<u64> {
    let stat = read("/proc/self/stat")?;
    // The name, in parentheses, may hold blanks; user and system time are twelfth behind it.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    Ok(fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum())
}

fn sizes(index: &Index) -> Result<()> {
    let hundredths = |bytes: u64| {
        let per_key = bytes * 100 / index.len().max(1);
        format!("{}.{:02}", per_key / 100, per_key % 100)
    };
    print(&format!(
        "{} keys: {} bytes per key on disk, {} in memory",
        index.len(),
        hundredths(index.disk_bytes()),
        hundredths(index.resident_bytes())
    ))?;
    let status = read("/proc/self/status")?;
    status
        .lines()
        .filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"))
        .try_for_each(print)
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|cause| broken("read /proc", cause))
}

fn print_row(step: &str, cpu: &str, wall: &str, runs: &str) -> Result<()> {
    print(&format!("{step:<50} {cpu:>12} {wall:>13} {runs:>4}"))
}

fn print(line: &str) -> Result<()> {
    writeln!(io::stdout(), "{line}").map_err(|cause| broken("write", cause))
}

fn broken(act: &str, cause: io::Error) -> Error {
    Error::unavailable(format!("cannot {act}")).with_source(cause)
}
