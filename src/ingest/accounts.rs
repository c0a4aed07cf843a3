//! The accounts: what became of the events of every batch, for ever.
//!
//! The counts of a batch that stored events travel in its commit, so they cannot be lost; what a
//! killed run did not write down is taken over from the log by the next run.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Int64Type;

use super::Counts;
use crate::error::{Error, Result};
use crate::lake::commit::Commit;
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
    table.append(Commit { add, at_ms, ..Commit::default() }).await?;
    Ok(())
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
/// # Errors
/// A store that cannot be read or written.
pub async fn take_over(lake: &Lake) -> Result<()> {
    let newest = lake.events.snapshot(None).await?.version;
    let known = match lake.batches().await? {
        None => 0,
        Some(table) => {
            let snapshot = table.snapshot(None).await?;
            let versions = snapshot.stats().max(batches::VERSION);
            let versions = versions.map(|max| {
                let max = max.as_primitive::<Int64Type>().iter().flatten().max();
                max.and_then(|max| u64::try_from(max).ok()).unwrap_or(0)
            });
            versions.unwrap_or(0)
        }
    };
    if newest <= known {
        return Ok(());
    }
    let changes = lake.events.changes(known, newest).await?;
    let lost = changes.iter().filter_map(|c| Account::of_info(&c.info, c.version));
    write(lake, &lost.collect::<Vec<_>>()).await
}
