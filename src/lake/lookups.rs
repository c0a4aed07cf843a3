//! Lookup tables that a lake keeps, each in versions of its own.
//!
//! A version's text is a note that never changes; a commit of the events table says which version
//! holds from there on, as the version of an application, which every later snapshot and checkpoint
//! carries. So an answer at an old version of the events finds the tables as they were. Says
//! nothing of what the text means.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::commit::Commit;
use crate::lake::snapshot::Snapshot;
use crate::lake::table::Table;

/// The kind of the notes.
const KIND: &str = "lookups";
/// How often a table is put that others put at the same time.
const MAX_ATTEMPTS: u32 = 20;
/// The key in a commit's notes that names the table.
pub const LOOKUP: &str = "lookup";

/// What became of a table that was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The version of the table.
    pub number: i64,
    /// The version of the events from which on it holds.
    pub version: u64,
    /// Whether anything is different from before.
    pub changed: bool,
}

fn application(name: &str) -> String {
    format!("meterhouse.lookup/{name}")
}

fn note(name: &str, number: i64) -> String {
    format!("{name}.{number:010}.csv")
}

impl Table {
    /// Makes `csv` the lookup table `name`, an identifier, from the next version of the events on.
    /// The same text again changes nothing.
    ///
    /// # Errors
    /// A store that cannot be read or written; conflict after too many lost races.
    pub async fn put_lookup(
        &self,
        name: &str,
        csv: &str,
        info: BTreeMap<String, String>,
        at_ms: i64,
    ) -> Result<Put> {
        for _ in 0..MAX_ATTEMPTS {
            let base = self.snapshot(None).await?;
            let held = self.lookup(&base, name).await?;
            let last = held.as_ref().map_or(0, |(number, _)| *number);
            if let Some((number, text)) = held
                && text == csv.as_bytes()
            {
                return Ok(Put { number, version: base.version, changed: false });
            }
            // A number that somebody else took, and perhaps never committed, is passed over.
            let mut number = last + 1;
            while !self.put_note(KIND, &note(name, number), csv.to_owned()).await? {
                number += 1;
            }
            let mut info = info.clone();
            info.insert(LOOKUP.to_owned(), name.to_owned());
            let app = Some((application(name), number));
            match self.append(Commit { app, info, at_ms, ..Commit::default() }).await {
                Ok(after) => return Ok(Put { number, version: after.version, changed: true }),
                // Somebody else reached a later number first; ours comes after it.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::conflict(format!(
            "lookup table `{name}` of {} is put by others all the time",
            self.display()
        )))
    }

    /// The version and text of the lookup table `name` as of `snapshot`, if there is one.
    ///
    /// # Errors
    /// A store that cannot be read; a text that is gone.
    pub async fn lookup(
        &self,
        snapshot: &Arc<Snapshot>,
        name: &str,
    ) -> Result<Option<(i64, Bytes)>> {
        let Some(number) = snapshot.app_version(&application(name)).await? else {
            return Ok(None);
        };
        Ok(Some((number, self.lookup_text(name, number).await?)))
    }

    /// The text of a version of the lookup table `name`.
    ///
    /// # Errors
    /// Corrupt for one that is gone or damaged; a store that cannot be read.
    pub async fn lookup_text(&self, name: &str, number: i64) -> Result<Bytes> {
        let text = self.read_note(KIND, &note(name, number)).await?;
        text.ok_or_else(|| {
            Error::corrupt(format!(
                "version {number} of lookup table `{name}` of {} is gone",
                self.display()
            ))
        })
    }

    /// The names of the lookup tables that were ever put.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn lookup_names(&self) -> Result<BTreeSet<String>> {
        let names = self.note_names(KIND).await?;
        Ok(names.iter().filter_map(|note| Some(note.split_once('.')?.0.to_owned())).collect())
    }
}
