//! Proves that a lake is as it was written, or says what is not.
//!
//! The logs of all but rollups are read entry by entry; every live file of events, quarantine, accounts,
//! closed periods and rollups is compared with them; what the newest version declares, and its lookup
//! tables, must be there; no identity may have two events; accounts must add up to the events; and the key
//! index, where there is one, must know them all. Changes nothing.

use std::path::Path;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::StreamExt;

use crate::error::{Error, ErrorKind, Result};
use crate::ingest::check::{AddedUp, KeysLookedUp, check_accounts, check_keys, received_rows};
use crate::lake::checked::NOT_AS_WRITTEN;
use crate::lake::snapshot::Snapshot;
use crate::lake::table::Table;
use crate::lake::tables::Lake;
use crate::lake::verify::{Mismatch, verify_files, verify_old_files};
use crate::period;
use crate::rollup;
use crate::sql;
use crate::usage::Context;

/// Identities that have more than one event, and how many such there are.
const DOUBLED: &str = "SELECT count(*) AS n FROM (SELECT source, idempotency_key FROM events \
                       GROUP BY source, idempotency_key HAVING count(*) > 1)";

/// What a lake was found to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// The version of the events that was checked.
    pub version: u64,
    /// Files that were read in full.
    pub files: u64,
    /// Events that were received, whatever corrections made of them.
    pub events: u64,
    /// What became of looking the events up in the key index; `None` where it did not come to that,
    /// as what stands in damaged files cannot be compared with anything.
    pub keys: Option<KeysLookedUp>,
    /// The accounts of all batches together; `None` where it did not come to that.
    pub accounts: Option<AddedUp>,
    /// What is not as it was written.
    pub wrong: Vec<Mismatch>,
}

/// Checks the lake of `context`, whose key index lies in `state` if there is one.
///
/// # Errors
/// A store that cannot be read, a key index that another process holds. Damage is an answer, but for
/// damage to the log, beneath which nothing can be told.
pub async fn verify(context: &Context, state: Option<&Path>) -> Result<Verified> {
    let lake = &context.lake;
    let events = lake.events.snapshot(None).await?;
    let mut verified =
        Verified { version: events.version, events: received_rows(&events), ..Verified::default() };
    let quarantine = lake.quarantine().await?;
    let mut refused = 0;
    let others =
        [(quarantine, true), (lake.batches().await?, false), (lake.statements().await?, false)];
    let others =
        others.into_iter().filter_map(|(table, holds_refused)| Some((table?, holds_refused)));
    for (table, holds_refused) in std::iter::once((lake.events.clone(), false)).chain(others) {
        let snapshot = table.snapshot(None).await?;
        // Reads and understands every entry that the log has.
        table.history(None).await?;
        refused += if holds_refused { snapshot.rows() } else { 0 };
        verified.files += snapshot.files.len() as u64;
        verified.wrong.extend(verify_files(&table, &snapshot).await?);
        let (files, wrong) = verify_old_files(&table, &snapshot).await?;
        verified.files += files;
        verified.wrong.extend(wrong);
    }
    let pins: Vec<u64> = lake.events.pins().await?.into_keys().collect();
    // Looked up once the pins are known: there was no newer version to pin.
    let last = lake.events.snapshot(None).await?.version;
    verified.wrong.extend(pins.iter().filter(|pin| **pin > last).map(|pin| Mismatch {
        place: lake.events.display().to_owned(),
        detail: format!(
            "version {pin} is pinned and the log ends with {last}: entries of it are lost"
        ),
    }));
    for version in pins.into_iter().filter(|pin| *pin < events.version) {
        let pinned = lake.events.snapshot(Some(version)).await?;
        let wrong = verify_files(&lake.events, &pinned).await?;
        verified.wrong.extend(wrong.into_iter().map(|wrong| Mismatch {
            detail: format!("{} (needed by the pinned version {version})", wrong.detail),
            ..wrong
        }));
    }
    if !verified.wrong.is_empty() {
        // What stands in damaged files cannot be trusted to say anything of the rest.
        return Ok(verified);
    }
    verified.wrong.extend(lost_notes(&lake.events, &events).await?);
    let place = format!("{}/{}/statements", lake.location, lake.namespace);
    let unprovable = period::unprovable(lake).await?.into_iter();
    verified.wrong.extend(unprovable.map(|detail| Mismatch { place: place.clone(), detail }));
    let doubled = doubled(context, events.version).await?;
    if doubled > 0 {
        let place = lake.events.display().to_owned();
        let detail = format!("{doubled} identities have more than one event");
        verified.wrong.push(Mismatch { place, detail });
    }
    let (accounts, wrong) = check_accounts(lake, &events).await?;
    let counts = accounts.counts;
    verified.accounts = Some(accounts);
    verified.wrong.extend(wrong);
    if counts.conflict + counts.rejected > 0 && refused == 0 {
        let place = format!("{}/{}/quarantine", lake.location, lake.namespace);
        let detail = "holds none of the events that were rejected or in conflict".to_owned();
        verified.wrong.push(Mismatch { place, detail });
    }
    let (files, wrong) = rollups(lake).await?;
    verified.files += files;
    verified.wrong.extend(wrong);
    let (keys, wrong) = match state {
        Some(state) => check_keys(lake, state, context.clock).await?,
        None => (KeysLookedUp::NoIndex, Vec::new()),
    };
    verified.keys = Some(keys);
    verified.wrong.extend(wrong);
    Ok(verified)
}

/// How many files rollups have, and what is wrong with them.
async fn rollups(lake: &Lake) -> Result<(u64, Vec<Mismatch>)> {
    let (mut count, mut wrong) = (0, Vec::new());
    for (name, table) in rollup::tables(lake).await? {
        match verify_rollup(table).await {
            Ok((files, of_files)) => {
                count += files;
                let cure = "`meterhouse rollups refresh --anew` makes it of the events again, unless it is \
                            of a former definition: delete its folder then";
                wrong.extend(of_files.into_iter().map(|wrong| Mismatch {
                    detail: format!("{}; {cure}", wrong.detail),
                    ..wrong
                }));
            }
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                let place = format!("{}/{}/{name}", lake.location, lake.namespace);
                let detail = format!("{error}; delete this folder and refresh the rollup");
                wrong.push(Mismatch { place, detail });
            }
            Err(error) => return Err(error),
        }
    }
    Ok((count, wrong))
}

async fn verify_rollup(table: Result<Table>) -> Result<(u64, Vec<Mismatch>)> {
    let table = table?;
    let snapshot = table.snapshot(None).await?;
    // Those of older versions are read by nobody whom the events could not answer.
    Ok((snapshot.files.len() as u64, verify_files(&table, &snapshot).await?))
}

/// Notes that are damaged, or what the newest version of the events says beside them and nothing holds any
/// more.
async fn lost_notes(table: &Table, newest: &Arc<Snapshot>) -> Result<Vec<Mismatch>> {
    let damaged = table.damaged_notes().await?.into_iter();
    let mut wrong: Vec<Mismatch> = damaged
        .map(|note| Mismatch {
            place: format!("{}/{note}", table.display()),
            detail: NOT_AS_WRITTEN.to_owned(),
        })
        .collect();
    if !wrong.is_empty() {
        return Ok(wrong);
    }
    let mut look = |found: Result<()>| match found {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            let (place, detail) = (table.display().to_owned(), error.to_string());
            wrong.push(Mismatch { place, detail });
            Ok(())
        }
        found => found,
    };
    look(table.upserts(newest).await.map(drop))?;
    for name in table.lookup_names().await? {
        look(table.lookup(newest, &name).await.map(drop))?;
    }
    Ok(wrong)
}

async fn doubled(context: &Context, version: u64) -> Result<i64> {
    let mut answer = sql::query(context, DOUBLED, Some(version)).await?;
    let mut count = 0;
    while let Some(rows) = answer.rows.next().await {
        let rows = rows?;
        let counts = rows.column(0).as_primitive_opt::<Int64Type>();
        let counts = counts.ok_or_else(|| Error::internal("the count of doubled identities"))?;
        count += counts.values().iter().sum::<i64>();
    }
    Ok(count)
}
