//! The accounts: what became of the events of every batch, for ever.
//!
//! The counts of a batch that stored events travel in its commit, so they cannot be lost; what a
//! killed run did not write down is taken over from the log by the next run. A batch may be there
//! twice: readers take each identity once.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};

use futures::StreamExt;

use super::Counts;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::commit::Commit;
use crate::lake::reader::{BATCH_ROWS, StoredFile};
use crate::lake::tables::Lake;
use crate::lake::writer::{Layout, ParquetFileWriter};
use crate::schema::batches;
use crate::time::Timestamp;

/// What became of one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Identity of the batch.
    pub batch: String,
    /// When it was received.
    pub received: Timestamp,
    /// Where it came from.
    pub source: String,
    /// What became of its events.
    pub counts: Counts,
    /// The version of the events table that holds them.
    pub version: u64,
}

const RECEIVED: &str = "received_micros";

impl Account {
    /// The account as notes of a commit.
    pub fn to_info(&self) -> BTreeMap<String, String> {
        let Counts { read, accepted, duplicate, conflict, rejected } = self.counts;
        let numbers = [
            (batches::READ, read),
            (batches::ACCEPTED, accepted),
            (batches::DUPLICATE, duplicate),
            (batches::CONFLICT, conflict),
            (batches::REJECTED, rejected),
        ];
        let mut info: BTreeMap<String, String> =
            numbers.into_iter().map(|(name, n)| (name.to_owned(), n.to_string())).collect();
        info.insert(batches::BATCH.to_owned(), self.batch.clone());
        info.insert(batches::SOURCE.to_owned(), self.source.clone());
        info.insert(RECEIVED.to_owned(), self.received.micros().to_string());
        info
    }

    /// The account in the notes of the commit that made `version`, if there is one.
    fn of_info(info: &BTreeMap<String, String>, version: u64) -> Option<Self> {
        let number = |name: &str| info.get(name)?.parse::<u64>().ok();
        Some(Self {
            batch: info.get(batches::BATCH)?.clone(),
            received: Timestamp::from_micros(info.get(RECEIVED)?.parse().ok()?),
            source: info.get(batches::SOURCE)?.clone(),
            counts: Counts {
                read: number(batches::READ)?,
                accepted: number(batches::ACCEPTED)?,
                duplicate: number(batches::DUPLICATE)?,
                conflict: number(batches::CONFLICT)?,
                rejected: number(batches::REJECTED)?,
            },
            version,
        })
    }
}

/// The instant of receipt in the notes of a commit, microseconds since 1970.
pub(super) fn received_in(info: &BTreeMap<String, String>) -> Option<i64> {
    info.get(RECEIVED)?.parse().ok()
}

/// How many events the notes of a commit say to be accepted.
pub(super) fn accepted_in(info: &BTreeMap<String, String>) -> Option<u64> {
    info.get(batches::ACCEPTED)?.parse().ok()
}

/// Adds accounts to the table.
///
/// # Errors
/// A store that cannot be written.
pub async fn write(lake: &Lake, accounts: &[Account]) -> Result<()> {
    let Some(last) = accounts.last() else { return Ok(()) };
    let table = lake.batches_or_create().await?;
    let rows = rows(accounts)?;
    let mut writer = ParquetFileWriter::new(rows.schema(), &Layout::default(), None)?;
    let mut files = writer.write(&rows)?;
    files.extend(writer.finish()?);
    let mut add = Vec::with_capacity(files.len());
    for file in files {
        add.push(table.stage(file).await?);
    }
    let at_ms = last.received.micros() / 1_000;
    let after = table.append(Commit { add, at_ms, ..Commit::default() }).await?;
    if after.version == FIRST_VERSION {
        lake.events.put_note(ACCOUNTED, &accounted_note(0), "").await?;
    }
    Ok(())
}

/// Whether accounts were ever written down, so that there must be a table of them. An older lake
/// may not know.
///
/// # Errors
/// A store that cannot be read.
pub(super) async fn are_begun(lake: &Lake) -> Result<bool> {
    Ok(!lake.events.note_names(ACCOUNTED).await?.is_empty())
}

fn rows(accounts: &[Account]) -> Result<RecordBatch> {
    let numbers = |part: fn(&Account) -> u64| -> ArrayRef {
        let numbers = accounts.iter().map(|a| i64::try_from(part(a)).unwrap_or(i64::MAX));
        Arc::new(numbers.map(Some).collect::<Int64Array>())
    };
    let texts = |part: fn(&Account) -> &str| -> ArrayRef {
        Arc::new(accounts.iter().map(|account| Some(part(account))).collect::<StringArray>())
    };
    let received: Vec<i64> = accounts.iter().map(|a| a.received.micros()).collect();
    let columns = vec![
        texts(|account| &account.batch),
        Arc::new(TimestampMicrosecondArray::from(received).with_timezone("UTC")) as ArrayRef,
        texts(|account| &account.source),
        numbers(|account| account.counts.read),
        numbers(|account| account.counts.accepted),
        numbers(|account| account.counts.duplicate),
        numbers(|account| account.counts.conflict),
        numbers(|account| account.counts.rejected),
        numbers(|account| account.version),
    ];
    RecordBatch::try_new(Arc::new(batches::schema()), columns)
        .map_err(|error| Error::internal("rows of the accounts").with_source(error))
}

/// Writes down the accounts of commits that a killed run left in the log alone.
///
/// Another writer may do so at the same time, or the run itself may be alive: an account can be
/// there twice, and readers take each batch once.
///
/// # Errors
/// A store that cannot be read or written.
pub async fn take_over(lake: &Lake) -> Result<()> {
    let notes = lake.events.notes(ACCOUNTED).await?;
    let version_of = |(name, _): &(String, _)| name.strip_suffix(".json")?.parse::<u64>().ok();
    let looked_up_to = notes.iter().filter_map(version_of).max().unwrap_or(0);
    let newest = lake.events.snapshot(None).await?.version;
    let lost = unwritten_after(lake, looked_up_to, newest).await?;
    write(lake, &lost).await?;
    // Versions of compaction have no account, and would be looked at again for ever.
    if newest >= looked_up_to + LOOKED_AGAIN_MAX {
        lake.events.put_note(ACCOUNTED, &accounted_note(newest), "").await?;
        let older = lake.events.note_names(ACCOUNTED).await?;
        for name in older.into_iter().filter(|name| *name < accounted_note(newest)) {
            lake.events.delete_note(ACCOUNTED, &name).await?;
        }
    }
    Ok(())
}

/// The name of the note that the accounts of all versions up to this one are written down; of 0 that
/// there is a table of them.
fn accounted_note(version: u64) -> String {
    format!("{version:020}.json")
}

/// The notes that say up to which version all accounts are written down.
const ACCOUNTED: &str = "accounted";
/// The version of the table of accounts that its first rows make.
const FIRST_VERSION: u64 = 1;
/// So many versions are looked at by every run.
const LOOKED_AGAIN_MAX: u64 = 64;
const READS_AT_ONCE: usize = 8;

/// The accounts of all batches, each once, by instant of receipt.
///
/// # Errors
/// A store that cannot be read.
pub async fn list(lake: &Lake) -> Result<Vec<Account>> {
    let mut accounts: BTreeMap<String, Account> = BTreeMap::new();
    if let Some(table) = lake.batches().await? {
        for file in &table.snapshot(None).await?.files {
            let stored = StoredFile::get(&table, &file.path).await?;
            for rows in stored.rows(None, None, BATCH_ROWS)? {
                let rows = stored.checked(rows)?;
                accounts.extend(accounts_of(&rows)?.into_iter().map(|a| (a.batch.clone(), a)));
            }
        }
    }
    let lost = unwritten(lake).await?;
    accounts.extend(lost.into_iter().map(|account| (account.batch.clone(), account)));
    let mut accounts: Vec<Account> = accounts.into_values().collect();
    accounts.sort_by_key(|account| account.received);
    Ok(accounts)
}

fn accounts_of(rows: &RecordBatch) -> Result<Vec<Account>> {
    let missing = |name: &str| Error::corrupt(format!("the accounts have no column `{name}`"));
    let column = |name: &str| rows.column_by_name(name).ok_or_else(|| missing(name));
    let texts = |name: &str| column(name)?.as_string_opt::<i32>().ok_or_else(|| missing(name));
    let numbers =
        |name: &str| column(name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| missing(name));
    let received = column(batches::RECEIVED_AT)?.as_primitive_opt::<TimestampMicrosecondType>();
    let received = received.ok_or_else(|| missing(batches::RECEIVED_AT))?;
    let (ids, sources) = (texts(batches::BATCH)?, texts(batches::SOURCE)?);
    let [read, accepted, duplicate, conflict, rejected, version] = batches::NUMBERS.map(numbers);
    let (read, accepted, duplicate) = (read?, accepted?, duplicate?);
    let (conflict, rejected, version) = (conflict?, rejected?, version?);
    let account = |row: usize| Account {
        batch: ids.value(row).to_owned(),
        received: Timestamp::from_micros(received.value(row)),
        source: if sources.is_valid(row) { sources.value(row).to_owned() } else { String::new() },
        counts: Counts {
            read: read.value(row).unsigned_abs(),
            accepted: accepted.value(row).unsigned_abs(),
            duplicate: duplicate.value(row).unsigned_abs(),
            conflict: conflict.value(row).unsigned_abs(),
            rejected: rejected.value(row).unsigned_abs(),
        },
        version: version.value(row).unsigned_abs(),
    };
    Ok((0..rows.num_rows()).map(account).collect())
}

/// The accounts of commits that are not in the table yet, as their runs were killed before.
///
/// # Errors
/// A store that cannot be read.
pub(super) async fn unwritten(lake: &Lake) -> Result<Vec<Account>> {
    let newest = lake.events.snapshot(None).await?.version;
    unwritten_after(lake, 0, newest).await
}

async fn unwritten_after(lake: &Lake, after: u64, newest: u64) -> Result<Vec<Account>> {
    let written = Written::read(lake).await?;
    let missing = (after + 1..=newest).filter(|version| !written.versions.contains(version));
    let events = &lake.events;
    let infos = missing.map(|version| async move { (version, events.commit_info(version).await) });
    let mut infos = futures::stream::iter(infos).buffered(READS_AT_ONCE);
    let mut lost = Vec::new();
    while let Some((version, info)) = infos.next().await {
        let info = match info {
            // The log no longer reaches back that far.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            info => info?,
        };
        let account = Account::of_info(&info, version);
        lost.extend(account.filter(|account| !written.batches.contains(&account.batch)));
    }
    Ok(lost)
}

/// What the table of accounts holds.
#[derive(Debug, Default)]
struct Written {
    batches: HashSet<String>,
    /// Versions of the events that batches with accepted events made.
    versions: BTreeSet<u64>,
}

impl Written {
    async fn read(lake: &Lake) -> Result<Self> {
        let mut written = Self::default();
        let Some(table) = lake.batches().await? else { return Ok(written) };
        for file in &table.snapshot(None).await?.files {
            let stored = StoredFile::get(&table, &file.path).await?;
            let columns = [batches::BATCH, batches::ACCEPTED, batches::VERSION];
            for rows in stored.rows(Some(&columns), None, BATCH_ROWS)? {
                written.add(&stored.checked(rows)?);
            }
        }
        Ok(written)
    }

    fn add(&mut self, rows: &RecordBatch) {
        let ids = rows.column(0).as_string::<i32>();
        let accepted = rows.column(1).as_primitive::<Int64Type>();
        let versions = rows.column(2).as_primitive::<Int64Type>();
        for row in 0..rows.num_rows() {
            self.batches.insert(ids.value(row).to_owned());
            // A batch that stored nothing tells the version that it saw, which another one made.
            if accepted.value(row) > 0 {
                self.versions.extend(u64::try_from(versions.value(row)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::location::{Location, Namespace};

    fn account(batch: &str, accepted: u64, version: u64) -> Account {
        let counts = Counts { read: 2, accepted, rejected: 2 - accepted, ..Counts::default() };
        let received = Timestamp::from_micros(1_000_000);
        Account { batch: batch.to_owned(), received, source: "s".to_owned(), counts, version }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_commit_without_an_account_is_taken_over_whatever_came_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::parse(folder.path().to_str().unwrap()).unwrap();
        let lake = Lake::open_or_create(&location, &Namespace::default()).await.unwrap();
        for (version, batch) in (1..).zip(["lost", "written", "lost too"]) {
            let info = account(batch, 2, 0).to_info();
            lake.events.append(Commit { info, ..Commit::default() }).await.unwrap();
            assert_eq!(lake.events.snapshot(None).await.unwrap().version, version);
        }
        // A batch that stored nothing saw version 3, which does not account for it.
        write(&lake, &[account("written", 2, 2), account("nothing stored", 0, 3)]).await.unwrap();
        for _ in 0..2 {
            take_over(&lake).await.unwrap();
            let table = lake.batches().await.unwrap().unwrap();
            let rows: u64 = table.snapshot(None).await.unwrap().rows();
            assert_eq!(rows, 4);
            let written = Written::read(&lake).await.unwrap();
            assert!(["lost", "written", "lost too"].iter().all(|b| written.batches.contains(*b)));
            assert_eq!(written.versions, BTreeSet::from([1, 2, 3]));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn versions_that_were_looked_at_are_not_looked_at_for_ever() {
        let location = Location::parse("memory://accounted").unwrap();
        let lake = Lake::open_or_create(&location, &Namespace::default()).await.unwrap();
        let commit = async |batch: Option<&str>| {
            let info = batch.map(|batch| account(batch, 2, 0).to_info()).unwrap_or_default();
            lake.events.append(Commit { info, ..Commit::default() }).await.unwrap();
        };
        let newest = LOOKED_AGAIN_MAX + 6;
        for version in 1..=newest {
            // All but two are of compactions, which have no account.
            commit(
                [(3, "early"), (newest, "late")].iter().find(|(v, _)| *v == version).map(|f| f.1),
            )
            .await;
        }
        let taken_over = async || {
            take_over(&lake).await.unwrap();
            let notes = lake.events.notes(ACCOUNTED).await.unwrap();
            let names: Vec<String> = notes.into_iter().map(|(name, _)| name).collect();
            (Written::read(&lake).await.unwrap().batches, names)
        };
        let note = format!("{newest:020}.json");
        let both = ["early", "late"].map(str::to_owned);
        assert_eq!(taken_over().await, (HashSet::from(both.clone()), vec![note.clone()]));
        commit(Some("after")).await;
        let all = HashSet::from(both).into_iter().chain(["after".to_owned()]).collect();
        assert_eq!(taken_over().await, (all, vec![note]));
    }
}
