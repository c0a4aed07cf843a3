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

/// The accounts of all batches together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AddedUp {
    /// What became of all events that were ever submitted.
    pub counts: Counts,
    /// How many of the batches are known from the log alone, as their runs were killed before they
    /// wrote the account down, or are about to.
    pub in_log_alone: u64,
}

/// The accounts of all batches together, and what does not add up: a batch whose outcomes are not
/// its events, accepted events that are more or fewer than there are, or a table of accounts that
/// was there and is gone.
///
/// # Errors
/// A table that cannot be read.
pub async fn check_accounts(lake: &Lake, snapshot: &Snapshot) -> Result<(AddedUp, Vec<Mismatch>)> {
    // In this order an account that is being written is in one of the two, or in both.
    let mut unwritten = accounts::unwritten(lake).await?;
    unwritten.retain(|account| account.version <= snapshot.version);
    let mut accounts = written(lake, snapshot.version).await?;
    let (mut sum, mut wrong) = (Counts::default(), Vec::new());
    if accounts::are_begun(lake).await? && lake.batches().await?.is_none() {
        wrong.push(Mismatch {
            place: format!("{}/{}/batches", lake.location, lake.namespace),
            detail: format!(
                "is gone, and with it the accounts of batches that stored nothing; the log still \
                 has {} of the others, which the next ingest writes down again",
                unwritten.len()
            ),
        });
    }
    let in_log = unwritten.iter().filter(|account| !accounts.contains_key(&account.batch));
    let in_log_alone = in_log.count() as u64;
    accounts.extend(unwritten.into_iter().map(|Account { batch, counts, .. }| (batch, counts)));
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
    Ok((AddedUp { counts: sum, in_log_alone }, wrong))
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

/// What became of looking the events up in the key index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeysLookedUp {
    /// So many events were looked up.
    Events(u64),
    /// There is no index here, as before the first ingest on a machine.
    NoIndex,
    /// The index knows nothing of this history, or stands before what the log reaches: the next
    /// ingest makes it anew.
    Outdated,
    /// Why the index is not for whoever asks.
    Refused(String),
    /// The index is damaged, as is told beside.
    Damaged,
}

/// Looks every event of the version that the key index in `state` stands at up in the index; gives
/// what is wrong, too.
///
/// # Errors
/// An index that another process holds, a table that cannot be read.
pub async fn check_keys(
    lake: &Lake,
    state: &Path,
    clock: Clock,
) -> Result<(KeysLookedUp, Vec<Mismatch>)> {
    let folder = keys_folder(state);
    if !folder.is_dir() {
        return Ok((KeysLookedUp::NoIndex, Vec::new()));
    }
    let place = folder.display().to_string();
    let damaged = |error: &Error| {
        let wrong = Mismatch { place: place.clone(), detail: error.to_string() };
        Ok((KeysLookedUp::Damaged, vec![wrong]))
    };
    let index = match Index::open(&folder, lake.events.table_id(), &clock.now().to_string()) {
        Err(error) if error.kind() == ErrorKind::Corrupt => return damaged(&error),
        // Whoever may read a lake and not write it can still prove the rest of it.
        Err(error) if wants_rights(&error) => {
            return Ok((KeysLookedUp::Refused(error.to_string()), Vec::new()));
        }
        opened => opened?,
    };
    let Some(version) = index.applied() else { return Ok((KeysLookedUp::NoIndex, Vec::new())) };
    if let Err(error) = index.verify() {
        return damaged(&error);
    }
    let newest = lake.events.snapshot(None).await?;
    // Files of the index's own version may be compacted and vacuumed since; their rows are not.
    let Some(since) = since(lake, &index, version, &newest).await? else {
        return Ok((KeysLookedUp::Outdated, Vec::new()));
    };
    let hasher = Hasher::new(lake.events.table_id());
    let (mut events, mut missing, mut other) = (0_u64, 0_u64, 0_u64);
    each_group((&lake.events, &newest.files), &hasher, GROUP_ENTRIES, |entries| {
        let keys: Vec<Key> = entries.iter().map(|entry| entry.key).collect();
        for (entry, found) in entries.iter().zip(index.probe(&keys)?) {
            events += 1;
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
    events -= missing.min(since.received);
    let missing = missing.saturating_sub(since.received);
    let other = other.saturating_sub(since.replaced);
    let mut wrong = Vec::new();
    for (count, detail) in [(missing, "are not in it"), (other, "are in it with other content")] {
        if count > 0 {
            let detail = format!("{count} events of version {version} {detail}");
            wrong.push(Mismatch { place: place.clone(), detail });
        }
    }
    Ok((KeysLookedUp::Events(events), wrong))
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
