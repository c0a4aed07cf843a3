//! What the versions of a table brought, when and by whom, and which of them stood at a given time.
//!
//! Reads the log's entries; what is told is what the entries say of themselves, and whether their files
//! are still there.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;

use arrow::datatypes::Schema;
use object_store::path::Path;

use crate::error::{Error, Result};
use crate::lake::log::Entry;
use crate::lake::statistics::FileStatistics;
use crate::lake::table::Table;
use crate::time::Timestamp;

/// The note of a commit that says who made it.
pub const BY: &str = "by";

/// One version of a table, as its log entry tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its number.
    pub version: u64,
    /// When it was committed, by the clock of the one who did.
    pub committed_at: Option<Timestamp>,
    /// Delta's name of what was done: `CREATE TABLE`, `WRITE`, `OPTIMIZE`, …
    pub operation: String,
    /// How many files it added.
    pub files_added: u64,
    /// How many files it removed.
    pub files_removed: u64,
    /// Rows of the files added.
    pub rows_added: u64,
    /// Bytes of the files added.
    pub bytes_added: u64,
    /// What was said about it.
    pub info: BTreeMap<String, String>,
}

impl Table {
    /// The versions that the log still has, newest first, at most `most` of them.
    ///
    /// # Errors
    /// A log that cannot be read or is damaged.
    pub async fn history(&self, most: Option<usize>) -> Result<Vec<Version>> {
        let Some((oldest, newest)) = self.log.versions().await? else { return Ok(Vec::new()) };
        let most = most.and_then(|most| u64::try_from(most).ok()).unwrap_or(u64::MAX);
        let first = oldest.max((newest + 1).saturating_sub(most));
        let mut versions = Vec::new();
        for version in (first..=newest).rev() {
            match self.log.read(version).await? {
                Some(entry) => versions.push(told(version, entry)?),
                // A checkpoint stands in for the entries before it.
                None => break,
            }
        }
        Ok(versions)
    }

    /// How many files of each of these versions are gone, as vacuum took them: only where none is
    /// can a version be asked. The versions are ones that the log reaches.
    ///
    /// # Errors
    /// A store that cannot be read; a log that is damaged.
    pub async fn files_gone(&self, versions: RangeInclusive<u64>) -> Result<BTreeMap<u64, u64>> {
        let (first, last) = versions.into_inner();
        let oldest = self.snapshot(Some(first)).await?;
        let changes = self.changes(first, last).await?;
        // Listed last: what a commit has added is there.
        let there: HashSet<Path> = self.objects().await?.into_iter().map(|o| o.location).collect();
        let is_gone = |path: &str| Ok::<_, Error>(!there.contains(&self.object_path(path)?));
        let mut gone = HashSet::new();
        for file in &oldest.files {
            if is_gone(&file.path)? {
                gone.insert(file.path.clone());
            }
        }
        let mut of = BTreeMap::from([(first, gone.len() as u64)]);
        for change in changes {
            for path in &change.removed {
                gone.remove(path);
            }
            for file in change.added {
                if is_gone(&file.path)? {
                    gone.insert(file.path);
                }
            }
            of.insert(change.version, gone.len() as u64);
        }
        Ok(of)
    }

    /// The newest version that was committed at `time` or before.
    ///
    /// # Errors
    /// Not found for a time before the oldest version that the log has.
    pub async fn version_at(&self, time: Timestamp) -> Result<u64> {
        let (oldest, newest) = self.log.versions().await?.unwrap_or((0, 0));
        let (mut first, mut end) = (oldest, newest + 1);
        // Versions are committed one after the other, so their times ascend.
        while first < end {
            let middle = first + (end - first) / 2;
            let entry = self.log.read(middle).await?;
            // Where the entry is gone, the version is older than any that is there.
            let committed = entry.as_ref().and_then(committed_at);
            if committed.is_none_or(|committed| committed <= time) {
                first = middle + 1;
            } else {
                end = middle;
            }
        }
        if first > oldest {
            return Ok(first - 1);
        }
        let made = self.log.read(oldest).await?.as_ref().and_then(committed_at);
        let made = made.map(|made| format!(", of {made}")).unwrap_or_default();
        Err(Error::not_found(format!(
            "{} had no version at {time}: the oldest is version {oldest}{made}",
            self.display()
        )))
    }
}

pub(super) fn committed_at(entry: &Entry) -> Option<Timestamp> {
    Some(Timestamp::from_micros(entry.timestamp_ms?.checked_mul(1_000)?))
}

fn told(version: u64, entry: Entry) -> Result<Version> {
    let statistics = FileStatistics::parse(&Schema::empty(), &entry.added)?;
    let rows = statistics.row_counts();
    let rows = arrow::array::AsArray::as_primitive::<arrow::datatypes::UInt64Type>(&rows);
    Ok(Version {
        version,
        committed_at: committed_at(&entry),
        operation: entry.operation.unwrap_or_default(),
        files_added: entry.added.len() as u64,
        files_removed: entry.removed.len() as u64,
        rows_added: rows.iter().flatten().sum(),
        bytes_added: entry.added.iter().map(|file| file.size).sum(),
        info: entry.info,
    })
}
