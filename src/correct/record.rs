//! What is kept about corrections: a note of each beside the table, written before its commit.
//!
//! Whether a correction was committed, and with which version, is told by the table itself: its commit
//! names an application of the correction's own. So a note that a killed run left behind says nothing,
//! and the list holds when the log was shortened.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::event::shortened;
use crate::lake::table::Table;
use crate::schema::batch_of_upsert;

/// The notes that are corrections.
const NOTES: &str = "corrections";
/// Digits of an id.
const ID_DIGITS: usize = 12;

/// Under what a commit names its correction.
pub const CORRECTION: &str = "correction";
/// Under what a commit says why.
pub const REASON: &str = "reason";
/// Under what a commit says how many events changed.
pub const EVENTS: &str = "corrected_events";
/// Under what a commit says what was done.
pub(super) const WHAT: &str = "correction_kind";
/// Under what a commit names the correction that it undoes.
pub(super) const REVERTS: &str = "reverts";

/// What a correction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Events count no more.
    Void,
    /// Events got other values.
    Amend,
    /// Whole events took the places of others.
    Replace,
    /// Another correction was undone.
    Revert,
}

impl What {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Void => "void",
            Self::Amend => "amend",
            Self::Replace => "replace",
            Self::Revert => "revert",
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One correction, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What it is called by.
    pub id: String,
    /// What it does.
    pub what: What,
    /// Why.
    pub reason: String,
    /// Who corrected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When, RFC 3339.
    pub at: String,
    /// Which events were meant, in words.
    pub selection: String,
    /// How many events changed.
    pub events: u64,
    /// The correction that it undoes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reverts: Option<String>,
}

/// A correction that was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What is kept of it.
    pub record: Record,
    /// The version that it made.
    pub version: u64,
    /// The correction that undid it.
    pub reverted_by: Option<String>,
}

/// An id that no correction has.
pub(super) fn new_id() -> String {
    let mut id = Uuid::new_v4().simple().to_string();
    id.truncate(ID_DIGITS);
    id
}

/// The application whose version in the table is the one that the correction made.
pub(super) fn application(id: &str) -> String {
    format!("meterhouse.correction/{id}")
}

fn file_name(id: &str) -> String {
    format!("{id}.json")
}

/// Keeps `record`, before its commit.
///
/// # Errors
/// A store that cannot be written, an id that is taken.
pub(super) async fn keep(events: &Table, record: &Record) -> Result<()> {
    let text = serde_json::to_vec(record)
        .map_err(|error| Error::internal("writing a correction").with_source(error))?;
    match events.put_note(NOTES, &file_name(&record.id), text).await? {
        true => Ok(()),
        false => Err(Error::conflict(format!(
            "correction {} exists already: run the same command again",
            record.id
        ))),
    }
}

/// Takes the note of a correction away that was not committed.
///
/// # Errors
/// A store that cannot be written.
pub(super) async fn withdraw(events: &Table, id: &str) -> Result<()> {
    events.delete_note(NOTES, &file_name(id)).await
}

/// The corrections of the newest version, oldest first.
///
/// # Errors
/// A store that cannot be read, a note that is damaged.
pub async fn list(events: &Table) -> Result<Vec<Listed>> {
    // The notes first: what they tell of later commits is not in the snapshot only if it is older.
    let notes = events.notes(NOTES).await?;
    let snapshot = events.snapshot(None).await?;
    if !notes.is_empty() {
        events.learn_applications(&snapshot).await?;
    }
    let mut listed = Vec::new();
    for (name, text) in notes {
        let record: Record = serde_json::from_slice(&text).map_err(|error| {
            let place = events.display();
            Error::corrupt(format!("{place}: correction {name} is damaged: {error}"))
        })?;
        let version = snapshot.app_version(&application(&record.id)).await?;
        if let Some(version) = version.and_then(|version| u64::try_from(version).ok()) {
            listed.push(Listed { record, version, reverted_by: None });
        }
    }
    let reverted: BTreeMap<String, String> = (listed.iter())
        .filter_map(|l| Some((l.record.reverts.clone()?, l.record.id.clone())))
        .collect();
    for correction in &mut listed {
        correction.reverted_by = reverted.get(&correction.record.id).cloned();
    }
    listed.sort_by_key(|correction| correction.version);
    Ok(listed)
}

/// The correction of this id.
///
/// # Errors
/// Not found, with where the ids are to be seen; the id of an upsert.
pub async fn find(events: &Table, id: &str) -> Result<Listed> {
    if batch_of_upsert(id).is_some() {
        return Err(Error::invalid(format!(
            "`{}` is no correction: a batch brought newer events of declared names; correct these, or \
             send the older ones again",
            shortened(id)
        )));
    }
    let found = list(events).await?.into_iter().find(|correction| correction.record.id == id);
    found.ok_or_else(|| {
        Error::not_found(format!(
            "{}: there is no correction `{}`; `meterhouse events corrections` lists them",
            events.display(),
            shortened(id)
        ))
    })
}

/// Whether the correction of this id is one that can be undone.
///
/// # Errors
/// Why it cannot be.
pub(super) async fn check_revertible(events: &Table, id: &str) -> Result<()> {
    let found = find(events, id).await?;
    if let Some(by) = found.reverted_by {
        return Err(Error::conflict(format!("correction {id} was reverted by {by} already")));
    }
    if let Some(reverted) = found.record.reverts {
        return Err(Error::invalid(format!(
            "correction {id} is itself a revert, of {reverted}: correct the events anew instead"
        )));
    }
    Ok(())
}
