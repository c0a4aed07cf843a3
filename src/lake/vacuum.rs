//! Deletes data files that no version needs any more.
//!
//! Kept is every file of a version that was the newest at some time within the retention, of every
//! pinned version and of the newest. Files that never were in a version (what a killed run leaves
//! behind) go once they are old enough that nobody can be about to commit them. The log stays
//! (`lake::log_cleanup` shortens it); versions whose files are gone can no longer be asked.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::error::{Error, Result};
use crate::lake::history::committed_at;
use crate::lake::kernel::store_error;
use crate::lake::store::left_behind;
use crate::lake::table::Table;
use crate::time::Timestamp;

/// Shortest retention: whoever reads a version or commits on one needs its files for a while.
pub const RETENTION_MIN: Duration = Duration::from_secs(3_600);
/// Retention unless something else is said.
pub const RETENTION_DEFAULT: Duration = Duration::from_secs(30 * 86_400);

/// How long a file that is in no version is taken for one that is about to be committed, at least.
const UNCOMMITTED_MIN: Duration = Duration::from_secs(86_400);

/// Files that are deleted at the same time.
const DELETED_AT_ONCE: usize = 16;

/// What vacuum did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vacuumed {
    /// Files deleted, relative to the table's folder, in order.
    pub files: Vec<String>,
    /// Their bytes.
    pub bytes: u64,
    /// The oldest version that is kept for its age.
    pub oldest: u64,
    /// Older versions that are kept because they are pinned.
    pub pinned: Vec<u64>,
}

/// Deletes what no version of `table` needs that is younger than `retention` at the time `now`, is
/// pinned or is the newest; with `dry_run` only says what that is.
///
/// # Errors
/// Invalid for a retention below an hour; a store that cannot be read or written.
pub async fn vacuum(
    table: &Table,
    retention: Duration,
    now: Timestamp,
    dry_run: bool,
) -> Result<Vacuumed> {
    if retention < RETENTION_MIN {
        return Err(Error::invalid(
            "a retention of less than 1h could take away what is being read",
        ));
    }
    let objects = table.objects().await?;
    let lives = lives(table).await?;
    let cutoff = before(now, retention);
    let oldest = lives.oldest_newer_than(cutoff, table, &objects);
    // From here on who pins an older version learns of us, and whoever did before is seen.
    let intent = if dry_run { None } else { Some(table.announce_vacuum(oldest, now).await?) };
    // Of a file in no version there is only the store's word for its age.
    let store_now = intent.as_ref().map_or(now, |(_, store_now)| *store_now);
    let uncommitted = before(store_now, retention.max(UNCOMMITTED_MIN));
    let vacuumed = sweep(table, &lives, (oldest, uncommitted), objects, dry_run).await;
    if !dry_run {
        clear_temporary(table, retention.max(UNCOMMITTED_MIN));
    }
    let Some((intent, _)) = intent else { return vacuumed };
    match (vacuumed, table.end_vacuum(&intent).await) {
        (Ok(gone), Err(error)) => {
            Err(error.noting(&format!("{} files had been deleted before", gone.files.len())))
        }
        (vacuumed, _) => vacuumed,
    }
}

/// Deletes the files among `objects` that no version from `oldest` on, and no pinned one, needs; those
/// of no version at all if they lie there since before `uncommitted`.
async fn sweep(
    table: &Table,
    lives: &Lives,
    (oldest, uncommitted): (u64, Timestamp),
    objects: Vec<ObjectMeta>,
    dry_run: bool,
) -> Result<Vacuumed> {
    let pins: Vec<u64> = table.pins().await?.into_keys().collect();
    let mut gone = Vacuumed {
        oldest,
        pinned: pins.iter().copied().filter(|&pin| pin < oldest).collect(),
        ..Vacuumed::default()
    };
    let mut doomed = Vec::new();
    for object in objects {
        let Some(path) = data_file(table, &object.location) else { continue };
        let needed = match lives.of.get(&object.location) {
            Some(spans) => spans.iter().any(|span| span.is_needed(oldest, &pins)),
            None => object.last_modified.timestamp_micros() > uncommitted.micros(),
        };
        if !needed {
            gone.bytes += object.size;
            gone.files.push(path);
            doomed.push(object.location);
        }
    }
    gone.files.sort();
    if !dry_run {
        delete(table, doomed).await?;
    }
    Ok(gone)
}

/// Removes what writers that were killed left of files that never got their names. Nothing depends on
/// it, so a file that cannot be removed stays until the next time.
fn clear_temporary(table: &Table, age: Duration) {
    let Some(lake) = table.location().local_path() else { return };
    let below = table.log.table.prefix_match(&table.location().root);
    let folder = below
        .into_iter()
        .flatten()
        .fold(lake.to_path_buf(), |folder, part| folder.join(part.as_ref()));
    for path in left_behind(&folder, age).unwrap_or_default() {
        drop(std::fs::remove_file(path));
    }
}

pub(super) fn before(now: Timestamp, time: Duration) -> Timestamp {
    let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(now.micros().saturating_sub(micros))
}

pub(super) async fn delete(table: &Table, doomed: Vec<Path>) -> Result<()> {
    let store = &table.location().store;
    let deletions = doomed.into_iter().map(|place| async move {
        match store.delete(&place).await {
            // Another vacuum was faster.
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(store_error(format!("deleting {place}"), error)),
        }
    });
    futures::stream::iter(deletions).buffer_unordered(DELETED_AT_ONCE).try_collect().await
}

/// The versions in which a file is live: from `added` on, up to but not with `removed`.
#[derive(Debug, Clone, Copy)]
struct Span {
    added: u64,
    removed: Option<u64>,
}

impl Span {
    /// Whether a version from `oldest` on, or one of `pins`, has the file.
    fn is_needed(&self, oldest: u64, pins: &[u64]) -> bool {
        let has = |version: u64| {
            self.added <= version && self.removed.is_none_or(|removed| version < removed)
        };
        self.removed.is_none_or(|removed| removed > oldest) || pins.iter().any(|&pin| has(pin))
    }
}

/// When each file of a table was live.
pub(super) struct Lives {
    oldest: u64,
    newest: u64,
    /// When each version after the oldest was committed, by the clock of the one who did.
    committed: HashMap<u64, Timestamp>,
    of: HashMap<Path, Vec<Span>>,
}

impl Lives {
    /// The oldest version that was still the newest after `cutoff`.
    ///
    /// A version was the newest until the next was committed: at the later of the times that its
    /// writer and the store give, as one of them may have a clock that is slow. Where neither says
    /// when, it was just now.
    pub(super) fn oldest_newer_than(
        &self,
        cutoff: Timestamp,
        table: &Table,
        objects: &[ObjectMeta],
    ) -> u64 {
        let stored: HashMap<u64, i64> = objects
            .iter()
            .filter_map(|object| {
                let version = table.log.version_of_entry(&object.location)?;
                Some((version, object.last_modified.timestamp_micros()))
            })
            .collect();
        let superseded = |version: u64| {
            let told = self.committed.get(&(version + 1)).map(|at| at.micros());
            let stored = stored.get(&(version + 1)).copied();
            told.max(stored).unwrap_or(i64::MAX)
        };
        let young = |version: &u64| superseded(*version) > cutoff.micros();
        (self.oldest..self.newest).find(young).unwrap_or(self.newest)
    }
}

/// The path of a data file in the table's folder; `None` for anything else.
pub(super) fn data_file(table: &Table, place: &Path) -> Option<String> {
    let parts: Vec<_> = place.prefix_match(&table.log.table)?.collect();
    let first = parts.first()?;
    let hidden = first.as_ref().starts_with('_') || first.as_ref().starts_with('.');
    let data = place.filename().is_some_and(|name| name.ends_with(".parquet"));
    (data && !hidden).then(|| Path::from_iter(parts).to_string())
}

pub(super) async fn lives(table: &Table) -> Result<Lives> {
    let Some((oldest, newest)) = table.log.versions().await? else {
        return Err(Error::not_found(format!("{} has no versions", table.display())));
    };
    let mut of: HashMap<Path, Vec<Span>> = HashMap::new();
    let mut open: BTreeMap<String, u64> = BTreeMap::new();
    if oldest > 0 {
        // A checkpoint stands in for what the log no longer has.
        let first = table.snapshot(Some(oldest)).await?;
        open.extend(first.files.iter().map(|file| (file.path.clone(), oldest)));
    }
    let mut committed = HashMap::new();
    let from = if oldest > 0 { oldest + 1 } else { 0 };
    for version in from..=newest {
        let Some(entry) = table.log.read(version).await? else {
            return Err(Error::corrupt(format!(
                "{}: the log has no entry of version {version}",
                table.display()
            )));
        };
        committed.extend(committed_at(&entry).map(|at| (version, at)));
        for path in entry.removed {
            if let Some(added) = open.remove(&path) {
                let span = Span { added, removed: Some(version) };
                of.entry(table.object_path(&path)?).or_default().push(span);
            }
        }
        open.extend(entry.added.into_iter().map(|file| (file.path, version)));
    }
    for (path, added) in open {
        of.entry(table.object_path(&path)?).or_default().push(Span { added, removed: None });
    }
    Ok(Lives { oldest, newest, committed, of })
}

impl Table {
    /// Everything in the table's folder, the log included.
    pub(super) async fn objects(&self) -> Result<Vec<ObjectMeta>> {
        let listed = self.location().store.list(Some(&self.log.table));
        let what = || format!("listing {}", self.display());
        listed.try_collect().await.map_err(|error| store_error(what(), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_needed_by_the_versions_that_have_it() {
        let span = |added, removed| Span { added, removed };
        for (name, span, oldest, pins, want) in [
            ("live", span(3, None), 9, vec![], true),
            ("removed within the retention", span(3, Some(10)), 9, vec![], true),
            ("removed by the oldest version kept", span(3, Some(9)), 9, vec![], false),
            ("removed long ago", span(3, Some(5)), 9, vec![], false),
            ("pinned before it was added", span(3, Some(5)), 9, vec![2], false),
            ("pinned when it was added", span(3, Some(5)), 9, vec![3], true),
            ("pinned in its last version", span(3, Some(5)), 9, vec![4], true),
            ("pinned when it was removed", span(3, Some(5)), 9, vec![5], false),
        ] {
            assert_eq!(span.is_needed(oldest, &pins), want, "{name}");
        }
    }
}
