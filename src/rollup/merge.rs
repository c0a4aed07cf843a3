//! Merges files of a month of a rollup into one.
//!
//! The files of a month become one when it is over. But for that, the cost of a refresh goes with what is
//! new, so a large file is rewritten only once much has come beside it: files of about one size are
//! merged, and all of a month that is over once the others have half as many rows as the largest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::datasource::provider_as_source;

use super::refresh::{ATTEMPTS, Work};
use super::{Level, notes, scanned, slices};
use crate::error::{ErrorKind, Result};
use crate::lake::commit::{Commit, CommitOutcome, Operation};
use crate::lake::snapshot::Snapshot;
use crate::lake::staged::StagedFile;
use crate::plan::states::{Rows, Source};

/// Files of about one size that are merged at the least.
const FILES_MIN: usize = 4;
/// How many rows the largest file of a month that is over has for each one beside it, at most.
const LARGEST_SHARE: u64 = 2;

/// Which files are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merging {
    /// Those that are worth it.
    Worth,
    /// All of a month that is over.
    Whole,
}

impl Work<'_> {
    /// Merges files; how many there were.
    pub(super) async fn merge(&self, merging: Merging) -> Result<u64> {
        let mut merged = 0;
        for _ in 0..ATTEMPTS {
            let base = self.table.snapshot(None).await?;
            let mut info = match self.table.said(&base).await {
                Ok(said) => said.info.clone(),
                // Nothing tells what it is of: the next refresh makes it anew.
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(merged),
                Err(error) => return Err(error),
            };
            let through = info.get(notes::WHOLE_THROUGH).and_then(|month| month.parse().ok());
            let last_over = slices::last_over(&self.zone, self.now)?;
            let groups = groups(&base, merging, (through, last_over));
            if groups.is_empty() {
                return Ok(merged);
            }
            let (mut add, mut remove) = (Vec::new(), Vec::new());
            for (month, paths) in groups {
                add.extend(self.merged(&base, month, &paths).await?);
                remove.extend(paths);
            }
            let last_over = last_over.map(|month| (notes::WHOLE_THROUGH, month.to_string()));
            info.extend(last_over.map(|(name, month)| (name.to_owned(), month)));
            let count = remove.len() as u64;
            let commit = Commit {
                operation: Operation::Compact,
                add,
                remove,
                info,
                at_ms: self.now.micros().div_euclid(1_000),
                ..Commit::default()
            };
            match self.table.commit(&base, commit).await {
                Ok(CommitOutcome::Committed(_)) => merged += count,
                Ok(CommitOutcome::Lost { .. }) => {}
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        // Others do it just now.
        Ok(merged)
    }

    async fn merged(
        &self,
        base: &Snapshot,
        month: i32,
        paths: &BTreeSet<String>,
    ) -> Result<Vec<StagedFile>> {
        let of = Arc::new(base.only(|file| paths.contains(&file.path))?);
        let (states, facts) = scanned(&self.table, of, false)?;
        let rows = Rows { source: provider_as_source(states), facts: &facts };
        let levels = Level::all(self.meter).into_iter();
        let levels: Vec<(Level, String)> =
            levels.map(|level| (level.clone(), level.name())).collect();
        let sources: BTreeMap<&Level, Source<'_>> =
            levels.iter().map(|(level, name)| (level, Source::States(&rows, name, &[]))).collect();
        let of_level = |level: &Level| sources.get(level).map_or(&[][..], std::slice::from_ref);
        self.made(slices::range_of(&self.zone, month)?, of_level).await
    }
}

/// The files that are merged, by month. Months up to the first of two were made whole before, and are over
/// up to the second.
fn groups(
    base: &Snapshot,
    merging: Merging,
    (through, last_over): (Option<i32>, Option<i32>),
) -> BTreeMap<i32, BTreeSet<String>> {
    let mut months: BTreeMap<i32, Vec<(u64, &str)>> = BTreeMap::new();
    for file in &base.files {
        let Some(month) = file.partition else { continue };
        months.entry(month).or_default().push((file.rows, &file.path));
    }
    let merged = |(month, mut files): (i32, Vec<(u64, &str)>)| {
        let over = last_over.is_some_and(|last| month <= last);
        let was_whole = through.is_some_and(|through| month <= through);
        let whole = over && files.len() > 1 && (merging == Merging::Whole || !was_whole);
        files.sort_unstable();
        let rows: Vec<u64> = files.iter().map(|(rows, _)| *rows).collect();
        let count = if whole { rows.len() } else { worth(&rows, over) };
        let paths = files.iter().take(count).map(|(_, path)| (*path).to_owned());
        (count > 0).then(|| (month, paths.collect()))
    };
    months.into_iter().filter_map(merged).collect()
}

/// How many of the smallest files of a month are merged, by their rows in ascending order.
fn worth(rows: &[u64], over: bool) -> usize {
    let Some((largest, others)) = rows.split_last() else { return 0 };
    let beside: u64 = others.iter().sum();
    if over && !others.is_empty() && beside.saturating_mul(LARGEST_SHARE) >= *largest {
        return rows.len();
    }
    let (mut count, mut sum) = (0, 0_u64);
    for rows in rows {
        if count > 0 && *rows > sum.saturating_mul(2) {
            break;
        }
        sum = sum.saturating_add(*rows);
        count += 1;
    }
    if count < FILES_MIN { 0 } else { count }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_small_beside_the_largest_is_merged_among_itself() {
        for (rows, over, want) in [
            (&[][..], true, 0),
            (&[5], true, 0),
            (&[1, 3], true, 0),
            (&[1, 2], true, 2),
            (&[1, 2], false, 0),
            (&[1, 1, 1, 1, 1_000], true, 4),
            (&[1, 1, 1, 1, 1_000], false, 4),
            (&[1, 1, 1, 900, 1_000], true, 5),
            (&[1, 1, 1, 900, 1_000], false, 0),
            (&[1, 2, 6, 18, 1_000], false, 4),
        ] {
            assert_eq!(worth(rows, over), want, "{rows:?} {over}");
        }
    }

    /// However long it goes on, a row is rewritten a few times and a month has a few files.
    #[test]
    fn many_small_refreshes_rewrite_little() {
        for over in [false, true] {
            let (mut files, mut rewritten) = (vec![1_000_000_u64], 0);
            for _ in 0..10_000 {
                files.push(100);
                files.sort_unstable();
                let count = worth(&files, over);
                let merged: u64 = files.drain(..count).sum();
                files.extend(Some(merged).filter(|merged| *merged > 0));
                rewritten += merged;
                assert!(files.len() <= 24, "{files:?}");
            }
            assert!(rewritten < 20 * 1_000_000, "{rewritten}");
        }
    }
}
