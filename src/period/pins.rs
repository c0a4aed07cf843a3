//! The versions of the events that closed periods are proved by are pinned.

use super::{Closing, Record, list};
use crate::error::{Error, Result};
use crate::lake::tables::Lake;
use crate::usage::Context;

/// Sees to it that the version of a closing that was just made is pinned: somebody who let go of it before
/// may not have seen the closing.
///
/// # Errors
/// A version that is gone meanwhile.
pub(super) async fn keep(context: &Context, record: &Record, why: &str) -> Result<()> {
    let events = &context.lake.events;
    if events.pins().await?.contains_key(&record.table_version) {
        return Ok(());
    }
    let (by, now) = (record.closed.by.clone(), context.clock.now());
    let pinned = events.pin(record.table_version, by, Some(why.to_owned()), now).await;
    pinned.map(drop).map_err(|error| {
        let Record { period, meter, .. } = record;
        error.noting(&format!(
            "period `{period}` of meter `{meter}` is closed, but cannot be proved by that version: open it \
             again and close it anew"
        ))
    })
}

/// Lets go of a version that was pinned for a closing that was not made. If that fails it stays pinned.
pub(super) async fn let_go(context: &Context, version: u64) {
    let _ = unpin(&context.lake, version).await;
}

/// Keeps a version of the events no longer than others.
///
/// # Errors
/// A version that is not pinned, or that a closed period needs.
pub async fn unpin(lake: &Lake, version: u64) -> Result<()> {
    let pin = lake.events.pins().await?.remove(&version);
    let needed = |all: Vec<Closing>| all.into_iter().find(|c| c.record.table_version == version);
    let mut needs = needed(list(lake, None).await?);
    if needs.is_none() {
        lake.events.unpin(version).await?;
        // Who closes a period looks for its pin afterwards; what was closed before that is seen here.
        needs = needed(list(lake, None).await?);
        if let (Some(_), Some(pin)) = (&needs, pin) {
            let now = crate::time::Timestamp::parse_rfc3339(&pin.at)
                .map_err(|error| Error::corrupt(format!("the pin of version {version} {error}")))?;
            lake.events.pin(version, pin.by, pin.reason, now).await?;
        }
    }
    let Some(Closing { record, .. }) = needs else { return Ok(()) };
    Err(Error::conflict(format!(
        "version {version} stays pinned: closed period `{}` of meter `{}` needs it to be proved",
        record.period, record.meter
    )))
}
