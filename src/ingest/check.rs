//! Compares what ingest keeps beside the events with the events themselves: the accounts of batches,
//! and the key index. Changes nothing.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, UInt64Type};

use super::accounts::{self, Account, accepted_in};
use super::stored::{GROUP_ENTRIES, each_group, is_receipt};
use super::upsert::REPLACED;
use super::{Counts, keys_folder};
use crate::clock::Clock;
use crate::dedupe::{Hasher, Index, Key};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::reader::{BATCH_ROWS, StoredFile};
use crate::lake::snapshot::Snapshot;
use crate::lake::tables::Lake;
use crate::lake::verify::Mismatch;
use crate::schema::{MADE_BY, batches};

/// The accounts of all batches together, and what does not add up: a batch whose outcomes are not
/// its events, or accepted events that are more or fewer than there are.
///
/// # Errors
/// A table that cannot be read.
pub async fn check_accounts(lake: &Lake, snapshot: &Snapshot) -> Result<(Counts, Vec<Mismatch>)> {
    // In this order an account that is being written is in one of the two, or in both.
    let unwritten = accounts::unwritten(lake).await?;
    let mut accounts = written(lake, snapshot.version).await?;
    for Account { batch, counts, version, .. } in unwritten {
        if version <= snapshot.version {
            accounts.insert(batch, counts);
        }
    }
    let (mut sum, mut wrong) = (Counts::default(), Vec::new());
    for (batch, counts) in accounts {
        let Counts { read, accepted, duplicate, conflict, rejected } = counts;
        if accepted + duplicate + conflict + rejected != read {
            wrong.push(Mismatch {
                place: format!("batch {batch}"),
                detail: format!(
                    "{read} read, but {accepted} accepted, {duplicate} duplicate, {conflict} \
                     conflict and {rejected} rejected"
                ),
            });
        }
        sum += counts;
    }
    let rows = received_rows(snapshot);
    if sum.accepted != rows {
        let place = lake.events.display().to_owned();
        let detail = format!("has {rows} events, the accounts say {} accepted", sum.accepted);
        wrong.push(Mismatch { place, detail });
    }
    Ok((sum, wrong))
}

/// How many rows of a version are events as they were received, whatever became of them: all but those
/// that corrections made.
pub fn received_rows(snapshot: &Snapshot) -> u64 {
    let Some(received) = snapshot.stats().null_count(MADE_BY) else { return snapshot.rows() };
    let received = received.as_primitive::<UInt64Type>();
    let files = snapshot.files.iter().zip(received);
    files.map(|(file, received)| received.unwrap_or(file.rows)).sum()
}

/// The accounts of batches that version `newest` of the events holds.
async fn written(lake: &Lake, newest: u64) -> Result<BTreeMap<String, Counts>> {
    const COLUMNS: [&str; 7] = [
        batches::BATCH,
        batches::VERSION,
        batches::READ,
        batches::ACCEPTED,
        batches::DUPLICATE,
        batches::CONFLICT,
        batches::REJECTED,
    ];
    let mut accounts = BTreeMap::new();
    let Some(table) = lake.batches().await? else { return Ok(accounts) };
    for file in &table.snapshot(None).await?.files {
        let stored = StoredFile::get(&table, &file.path).await?;
        for rows in stored.rows(Some(&COLUMNS), None, BATCH_ROWS)? {
            let rows = stored.checked(rows)?;
            let column = |name: &str| {
                let missing = || Error::corrupt(format!("{}: no `{name}`", table.display()));
                rows.column_by_name(name).ok_or_else(missing)
            };
            let number = |name: &str, row: usize| -> Result<u64> {
                let number = column(name)?.as_primitive::<Int64Type>().value(row);
                u64::try_from(number)
                    .map_err(|_| Error::corrupt(format!("{}: negative `{name}`", table.display())))
            };
            let ids = column(batches::BATCH)?.as_string::<i32>();
            for row in (0..rows.num_rows()).filter(|&row| ids.is_valid(row)) {
                let counts = Counts {
                    read: number(batches::READ, row)?,
                    accepted: number(batches::ACCEPTED, row)?,
                    duplicate: number(batches::DUPLICATE, row)?,
                    conflict: number(batches::CONFLICT, row)?,
                    rejected: number(batches::REJECTED, row)?,
                };
                // Batches that somebody ingests meanwhile.
                if number(batches::VERSION, row)? <= newest {
                    accounts.insert(ids.value(row).to_owned(), counts);
                }
            }
        }
    }
    Ok(accounts)
}

/// What came of comparing the key index with the events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckedKeys {
    /// The version that the index stands at; `None` where there is none, as before the first ingest
    /// on a machine.
    pub version: Option<u64>,
    /// Events that were looked up.
    pub events: u64,
    /// Why the index was not looked into, where it is not for whoever asks.
    pub refused: Option<String>,
    /// What is wrong.
    pub wrong: Vec<Mismatch>,
}

/// Looks every event of the version that the key index in `state` stands at up in the index.
///
/// # Errors
/// An index that another process holds, a table that cannot be read.
pub async fn check_keys(lake: &Lake, state: &Path, clock: Clock) -> Result<CheckedKeys> {
    let folder = keys_folder(state);
    let mut checked = CheckedKeys::default();
    if !folder.is_dir() {
        return Ok(checked);
    }
    let place = folder.display().to_string();
    let damaged = |error: &Error| Mismatch { place: place.clone(), detail: error.to_string() };
    let index = match Index::open(&folder, lake.events.table_id(), &clock.now().to_string()) {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            checked.wrong.push(damaged(&error));
            return Ok(checked);
        }
        // Whoever may read a lake and not write it can still prove the rest of it.
        Err(error) if wants_rights(&error) => {
            checked.refused = Some(error.to_string());
            return Ok(checked);
        }
        opened => opened?,
    };
    checked.version = index.applied();
    let Some(version) = index.applied() else { return Ok(checked) };
    if let Err(error) = index.verify() {
        checked.wrong.push(damaged(&error));
        return Ok(checked);
    }
    let newest = lake.events.snapshot(None).await?;
    // Files of the index's own version may be compacted and vacuumed since; their rows are not.
    let Some(since) = since(lake, &index, version, &newest).await? else {
        checked.version = None;
        return Ok(checked);
    };
    let hasher = Hasher::new(lake.events.table_id());
    let (mut missing, mut other) = (0_u64, 0_u64);
    each_group((&lake.events, &newest.files), &hasher, GROUP_ENTRIES, |entries| {
        let keys: Vec<Key> = entries.iter().map(|entry| entry.key).collect();
        for (entry, found) in entries.iter().zip(index.probe(&keys)?) {
            checked.events += 1;
            match found {
                None => missing += 1,
                Some(found) if found.content != entry.content => other += 1,
                Some(_) => {}
            }
        }
        Ok(())
    })
    .await?;
    // Those that came after the index's version are not in it yet.
    checked.events -= missing.min(since.received);
    let missing = missing.saturating_sub(since.received);
    let other = other.saturating_sub(since.replaced);
    for (count, detail) in [(missing, "are not in it"), (other, "are in it with other content")] {
        if count > 0 {
            let detail = format!("{count} events of version {version} {detail}");
            checked.wrong.push(Mismatch { place: place.clone(), detail });
        }
    }
    Ok(checked)
}

fn wants_rights(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    cause.is_some_and(|cause: &io::Error| {
        matches!(cause.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
    })
}

/// What came after a version.
#[derive(Debug, Clone, Copy, Default)]
struct Since {
    /// Events that were received.
    received: u64,
    /// How many of them took the place of others, whose content the index still has.
    replaced: u64,
}

/// What came after `version`, which the index stands at; `None` where the index is of another history
/// or stands before what the log reaches, so that the next ingest makes it anew.
async fn since(
    lake: &Lake,
    index: &Index,
    version: u64,
    newest: &Snapshot,
) -> Result<Option<Since>> {
    if version > newest.version {
        return Ok(None);
    }
    let mark = lake.events.commit_mark(version).await?;
    if mark.is_some() && index.mark().is_some() && mark.as_deref() != index.mark() {
        return Ok(None);
    }
    let changes = match lake.events.changes(version, newest.version).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        changes => changes?,
    };
    let mut since = Since::default();
    for change in changes.iter().filter(|change| is_receipt(change)) {
        let replaced = change.info.get(REPLACED).and_then(|replaced| replaced.parse::<u64>().ok());
        let added = change.added.iter().map(|file| file.rows).sum();
        since.replaced += replaced.unwrap_or(0);
        since.received += accepted_in(&change.info).unwrap_or(added);
    }
    Ok(Some(since))
}
