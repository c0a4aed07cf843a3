//! The key index beside a lake: opened and brought up to date, or made anew.
//!
//! It is derived from the events, so that nothing is lost with it: a damaged one is emptied and built
//! from what is stored.

use std::path::Path;

use tokio::runtime::Handle;

use super::{keys_folder, stored};
use crate::clock::Clock;
use crate::dedupe::{Hasher, Index};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::snapshot::Snapshot;
use crate::lake::tables::Lake;

/// Opens the key index in `state` and brings it up to `snapshot`; a damaged one is made anew.
///
/// # Errors
/// An index that another process holds, events that cannot be read.
pub(super) fn opened(
    state: &Path,
    lake: &Lake,
    clock: Clock,
    (snapshot, hasher): (&Snapshot, &Hasher),
    runtime: &Handle,
) -> Result<Index> {
    let (folder, table_id, now) =
        (keys_folder(state), lake.events.table_id(), clock.now().to_string());
    let catch_up = |index: &mut Index| {
        runtime.block_on(stored::catch_up(index, &lake.events, snapshot, hasher)).map(|_| ())
    };
    let mut index = match Index::open(&folder, table_id, &now) {
        Err(error) if error.kind() == ErrorKind::Corrupt => Index::reset(&folder, table_id, &now)?,
        opened => opened?,
    };
    match catch_up(&mut index) {
        Err(error) if error.kind() == ErrorKind::Corrupt && index.verify().is_err() => {
            // Its folder stays locked as long as it lives.
            drop(index);
            index = Index::reset(&folder, table_id, &now)?;
            catch_up(&mut index)?;
        }
        other => other?,
    }
    Ok(index)
}

/// Empties a damaged key index, so that the next run rebuilds it from the events, and says so.
pub(super) fn discarded(state: &Path, lake: &Lake, clock: Clock, error: Error) -> Error {
    let folder = keys_folder(state);
    let emptied = Index::reset(&folder, lake.events.table_id(), &clock.now().to_string());
    let turn = match emptied {
        Ok(_) => "run the same command again".to_owned(),
        Err(_) => format!("remove `{}` and run the same command again", folder.display()),
    };
    let text = format!("{error}; {turn}: the key index is rebuilt from the events");
    Error::corrupt(text).with_source(error)
}

/// What a key index was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// Identities in it.
    pub keys: u64,
    /// The version of the events that it stands at.
    pub version: u64,
}

/// Makes the key index of `lake` in `state` anew from the events, whatever is there.
///
/// # Errors
/// An index that another process holds, events that cannot be read.
pub async fn rebuild_index(lake: &Lake, state: &Path, clock: Clock) -> Result<Rebuilt> {
    let table_id = lake.events.table_id();
    let mut index = Index::reset(&keys_folder(state), table_id, &clock.now().to_string())?;
    let (snapshot, hasher) = (lake.events.snapshot(None).await?, Hasher::new(table_id));
    let keys = stored::rebuild(&mut index, &lake.events, &snapshot, &hasher).await?;
    Ok(Rebuilt { keys, version: snapshot.version })
}
