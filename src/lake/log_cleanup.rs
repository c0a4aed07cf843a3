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
    let objects = table.objects().await?;
    let lives = lives(table).await?;
    let pinned = table.pins().await?.into_keys().next();
    let of_age = lives.oldest_newer_than(before(now, keep), table, &objects);
    let oldest = pinned.map_or(of_age, |pinned| of_age.min(pinned));
    let files = objects.into_iter().filter_map(|object| {
        let version = table.log.version_of_file(&object.location)?;
        (version < oldest).then_some((version, object.location))
    });
    let mut files: Vec<(u64, Path)> = files.collect();
    files.sort_by_key(|(version, place)| (is_entry(place), *version));
    let shortened = Shortened { files: files.len() as u64, oldest };
    if dry_run || files.is_empty() {
        return Ok(shortened);
    }
    // The newest checkpoint is the one that readers are pointed to.
    for version in [oldest, table.snapshot(None).await?.version] {
        let snapshot = table.snapshot(Some(version)).await?;
        table.checkpoint(&snapshot).await?;
    }
    if table.log.has_checkpoint(oldest).await? {
        let first = files.iter().position(|(_, place)| is_entry(place)).unwrap_or(files.len());
        let rest = files.split_off((first + 1).min(files.len()));
        for (_, place) in files {
            let what = || format!("shortening the log of {}", table.display());
            let deleted = table.location().store.delete(&place).await;
            deleted.map_err(|error| store_error(what(), error))?;
        }
        delete(table, rest.into_iter().map(|(_, place)| place).collect()).await?;
        return Ok(shortened);
    }
    Err(Error::unavailable(format!(
        "{}: the checkpoint of version {oldest} is not there, the log stays as it is",
        table.display()
    )))
}

fn is_entry(place: &Path) -> bool {
    place.filename().is_some_and(|name| name.ends_with(".json") && !name.contains(".checkpoint"))
}
