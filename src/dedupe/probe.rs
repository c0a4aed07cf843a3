//! Finds keys in a run.
//!
//! Keys come in ascending order and walk the run once. The footer names the blocks that may hold
//! one, and only those are read: alone when they lie far apart, as in a small batch, and many at a
//! time when they lie close, until a large batch of present keys reads the file front to back.
//! Absent keys cost no reading, however many they are.

use super::block::{PAGE_BYTES, find};
use super::entry::{Found, Key, Record, decode, prefix, rank};
use super::run::Run;
use crate::error::{Error, Result};

/// How many keys are looked for at a time, which bounds what a probe holds in memory.
pub(super) const PROBE_KEYS: usize = 1 << 16;

/// How many blocks are read at once.
const READ_BLOCKS: usize = 64;

/// How many unwanted blocks are read over rather than read around.
const GAP_BLOCKS: usize = 2;

/// A key, by its place among those asked for, and a block that may hold it.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    block: usize,
    key: usize,
}

/// Refuses keys that do not ascend: some that are there would not be found.
pub(super) fn check_ascending(keys: &[Key]) -> Result<()> {
    match keys.windows(2).find(|pair| rank(&pair[0]) > rank(&pair[1])) {
        Some(pair) => Err(Error::internal(format!(
            "keys to be probed are not ascending: {:032x} after {:032x}",
            rank(&pair[1]),
            rank(&pair[0])
        ))),
        None => Ok(()),
    }
}

/// Fills in what a run knows of the keys that have not been found yet.
///
/// `keys` ascend, and `found` is as long as they are.
pub(super) fn probe_run(run: &Run, keys: &[Key], found: &mut [Option<Found>]) -> Result<()> {
    let mut candidates = Vec::new();
    let mut buffer = Vec::new();
    for (keys, found) in keys.chunks(PROBE_KEYS).zip(found.chunks_mut(PROBE_KEYS)) {
        candidates.clear();
        gather(run, keys, found, &mut candidates);
        // Already in order unless several blocks begin with the same eight bytes.
        candidates.sort_unstable_by_key(|candidate| candidate.block);
        for group in candidates.chunk_by(are_close) {
            search(run, group, keys, found, &mut buffer)?;
        }
    }
    Ok(())
}

/// Names the blocks that may hold a key, as far as memory tells.
fn gather(run: &Run, keys: &[Key], found: &[Option<Found>], candidates: &mut Vec<Candidate>) {
    let footer = run.footer();
    let firsts = footer.firsts.as_slice();
    // How many blocks begin at or below the key.
    let mut begun = 0;
    for (at, key) in keys.iter().enumerate().filter(|(at, _)| found[*at].is_none()) {
        let prefix = prefix(key);
        begun = advance(firsts, begun, prefix);
        // The block begun last may hold it; those before only where they share its first bytes.
        for block in (0..begun).rev() {
            if footer.filter.may_contain(block, key) {
                candidates.push(Candidate { block, key: at });
            }
            if firsts[block] != prefix {
                break;
            }
        }
    }
}

/// How many of the ascending `firsts` are at or below `prefix`, where `begun` of them are known to.
fn advance(firsts: &[u64], begun: usize, prefix: u64) -> usize {
    let (mut low, mut step) = (begun, 1);
    while firsts.get(low + step - 1).is_some_and(|first| *first <= prefix) {
        low += step;
        step *= 2;
    }
    let high = firsts.len().min(low + step - 1);
    low + firsts[low..high].partition_point(|first| *first <= prefix)
}

fn are_close(left: &Candidate, right: &Candidate) -> bool {
    right.block - left.block <= GAP_BLOCKS + 1
}

/// Reads the blocks of candidates that lie close and looks into them.
fn search(
    run: &Run,
    mut group: &[Candidate],
    keys: &[Key],
    found: &mut [Option<Found>],
    buffer: &mut Vec<u8>,
) -> Result<()> {
    while let Some(first) = group.first().map(|candidate| candidate.block) {
        let fit = group.partition_point(|candidate| candidate.block < first + READ_BLOCKS);
        let (now, later) = group.split_at(fit);
        let last = now.last().map_or(first, |candidate| candidate.block);
        buffer.resize((last - first + 1) * PAGE_BYTES, 0);
        run.read(first, buffer)?;
        for wanted in now.chunk_by(|left, right| left.block == right.block) {
            let block = wanted[0].block;
            let page = &buffer[(block - first) * PAGE_BYTES..][..PAGE_BYTES];
            look_up(run.checked(block, page)?, wanted, keys, found);
        }
        group = later;
    }
    Ok(())
}

fn look_up(records: &[Record], wanted: &[Candidate], keys: &[Key], found: &mut [Option<Found>]) {
    for candidate in wanted {
        if let Some(record) = find(records, &keys[candidate.key]) {
            let entry = decode(record);
            found[candidate.key] = Some(Found { content: entry.content, date: entry.date });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advancing_agrees_with_counting() {
        let firsts = [3, 3, 5, 8, 8, 8, 13, 21];
        for begun_at in 0..=22 {
            let begun = firsts.iter().filter(|first| **first <= begun_at).count();
            for prefix in begun_at..=22 {
                let want = firsts.iter().filter(|first| **first <= prefix).count();
                assert_eq!(advance(&firsts, begun, prefix), want, "{begun_at} then {prefix}");
            }
        }
    }
}
