//! Shortens a table's log: entries of versions that nobody asks for any more become one checkpoint.
//!
//! Without it the log is kept for ever, and every version can be told of. Entries go only below the
//! oldest version that is kept for its age or pinned; a checkpoint of that version is written first.
//! The deletions come in an order in which whoever breaks off leaves a log that can be read: older
//! checkpoints, then the entry of version 0, then the rest.

use std::time::Duration;

use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::error::{Error, Result};
use crate::lake::kernel::store_error;
use crate::lake::table::Table;
use crate::lake::vacuum::{before, delete, lives};
use crate::time::Timestamp;

/// What was taken from a log, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shortened {
    /// How many files of the log went.
    pub files: u64,
    /// The oldest version that can be asked for afterwards.
    pub oldest: u64,
}

/// Takes the entries out of the log that only versions need which were superseded more than `keep`
/// before `now` and are older than every pinned one; with `dry_run` only counts them.
///
/// # Errors
/// A store that cannot be read or written.
pub async fn shorten_log(
    table: &Table,
    keep: Duration,
    now: Timestamp,
    dry_run: bool,
) -> Result<Shortened> {
    let of_age = {
        let objects = table.objects().await?;
        lives(table).await?.oldest_newer_than(before(now, keep), table, &objects)
    };
    if dry_run {
        let oldest = not_pinned(table, of_age).await?;
        let files = below(table, oldest).await?.len() as u64;
        return Ok(Shortened { files, oldest });
    }
    // From here on who pins an older version learns of us, and whoever did before is seen.
    let (intent, _) = table.announce_vacuum(of_age, now).await?;
    let shortened = shorten(table, of_age, (&intent, now)).await;
    let ended = table.end_vacuum(&intent).await;
    // What kept it from being done says more.
    let shortened = shortened?;
    ended.map(|()| shortened)
}

async fn shorten(
    table: &Table,
    of_age: u64,
    (intent, now): (&str, Timestamp),
) -> Result<Shortened> {
    // Of two that shorten at once each would take the checkpoint that the other one relies on.
    if table.is_vacuumed_by_others(intent, now).await? {
        return Err(Error::conflict(format!(
            "{} is being vacuumed by somebody else: try again later (what was broken off says so \
             for a day)",
            table.display()
        )));
    }
    let oldest = not_pinned(table, of_age).await?;
    let mut files = below(table, oldest).await?;
    let shortened = Shortened { files: files.len() as u64, oldest };
    if files.is_empty() {
        return Ok(shortened);
    }
    // The newest checkpoint is the one that readers are pointed to.
    for version in [oldest, table.snapshot(None).await?.version] {
        let snapshot = table.snapshot(Some(version)).await?;
        table.checkpoint(&snapshot).await?;
    }
    if !table.log.has_checkpoint(oldest).await? {
        return Err(Error::unavailable(format!(
            "{}: the checkpoint of version {oldest} is not there, the log stays as it is",
            table.display()
        )));
    }
    let first = files.iter().position(is_entry).unwrap_or(files.len());
    let rest = files.split_off((first + 1).min(files.len()));
    for place in files {
        let what = || format!("shortening the log of {}", table.display());
        match table.location().store.delete(&place).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(store_error(what(), error)),
        }
    }
    delete(table, rest).await?;
    Ok(shortened)
}

/// `oldest`, or the oldest pinned version where that is older.
async fn not_pinned(table: &Table, oldest: u64) -> Result<u64> {
    let pinned = table.pins().await?.into_keys().next();
    Ok(pinned.map_or(oldest, |pinned| oldest.min(pinned)))
}

/// The files of the log that are of versions before `oldest`, in the order in which they may go.
async fn below(table: &Table, oldest: u64) -> Result<Vec<Path>> {
    let files = table.objects().await?.into_iter().filter_map(|object| {
        let version = table.log.version_of_file(&object.location)?;
        (version < oldest).then_some((is_entry(&object.location), version, object.location))
    });
    let mut files: Vec<_> = files.collect();
    files.sort();
    Ok(files.into_iter().map(|(_, _, place)| place).collect())
}

fn is_entry(place: &Path) -> bool {
    place.filename().is_some_and(|name| name.ends_with(".json") && !name.contains(".checkpoint"))
}
