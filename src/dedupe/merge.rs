//! Keeps runs few by merging them: which to merge, and the merge itself.
//!
//! A run is merged with everything newer once that is three times its size. So each run outweighs a
//! third of what is newer, which keeps their number logarithmic however the batches were cut; and of
//! batches of one size an entry is rewritten about `log4(n / batch)` times. Merging streams, with a
//! quarter of a megabyte for each run.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::entry::{Entry, rank};
use super::run::Run;
use super::scan::Cursor;
use super::write::RunWriter;
use crate::error::Result;

/// How many times a run's own size must be newer before it is merged.
const NEWER_PER_SIZE: u64 = 3;

/// From which run on everything is to be merged, given the sizes of runs, oldest first.
pub(super) fn merge_from(sizes: &[u64]) -> Option<usize> {
    let mut newer: u64 = sizes.iter().sum();
    sizes.iter().position(|size| {
        newer -= size;
        newer > 0 && newer >= size.saturating_mul(NEWER_PER_SIZE)
    })
}

/// The next entry of a run, ordered by key and then by age: of equal keys the newest run's first.
type Head = Reverse<(u128, Reverse<usize>, u64, i32)>;

/// Writes the entries of runs, oldest first; of entries with one key only the newest.
pub(super) fn merge(runs: &[Run], writer: &mut RunWriter) -> Result<()> {
    let mut cursors: Vec<Cursor<'_>> = runs.iter().map(Cursor::new).collect();
    let mut heads = BinaryHeap::with_capacity(runs.len());
    for (place, cursor) in cursors.iter_mut().enumerate() {
        heads.extend(cursor.advance()?.map(|entry| head(&entry, place)));
    }
    let mut last = None;
    while let Some(mut least) = heads.peek_mut() {
        let Reverse((rank, Reverse(place), content, date)) = *least;
        if last != Some(rank) {
            writer.push(&Entry { key: rank.to_be_bytes(), content, date })?;
            last = Some(rank);
        }
        match cursors[place].advance()? {
            Some(entry) => *least = head(&entry, place),
            None => {
                PeekMut::pop(least);
            }
        }
    }
    Ok(())
}

fn head(entry: &Entry, place: usize) -> Head {
    Reverse((rank(&entry.key), Reverse(place), entry.content, entry.date))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_merged_once_three_times_their_size_is_newer() {
        let cases: [(&str, &[u64], Option<usize>); 8] = [
            ("nothing", &[], None),
            ("one run", &[5], None),
            ("three equal runs", &[5, 5, 5], None),
            ("four equal runs", &[5, 5, 5, 5], Some(0)),
            ("four small runs behind a large one", &[99, 5, 5, 5, 5], Some(1)),
            ("three small runs behind a large one", &[99, 5, 5, 5], None),
            ("a large run behind a small one", &[5, 15], Some(0)),
            ("full at every level, merged in one go", &[64, 16, 16, 16, 4, 4, 4, 4], Some(1)),
        ];
        for (name, sizes, want) in cases {
            assert_eq!(merge_from(sizes), want, "{name}");
        }
    }

    #[test]
    fn runs_stay_few_and_rewriting_little() {
        for (name, batch) in [("equal", [1, 1, 1]), ("mixed", [1, 50, 7]), ("falling", [9, 3, 1])] {
            let (mut sizes, mut written, mut total, mut most) = (Vec::new(), 0, 0, 0);
            for size in batch.into_iter().cycle().take(30_000) {
                sizes.push(size);
                total += size;
                while let Some(from) = merge_from(&sizes) {
                    let merged = sizes.drain(from..).sum();
                    written += merged;
                    sizes.push(merged);
                }
                most = most.max(sizes.len());
            }
            assert!(most <= 24, "{name}: {most} runs");
            assert!(written <= 9 * total, "{name}: {written} rewritten of {total}");
        }
    }
}
