//! Versions that are kept whatever their age: a small file each, beside the table's data.
//!
//! A vacuum announces itself in the same way, so that of it and of who pins one sees the other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::lake::table::Table;
use crate::time::Timestamp;

/// The notes that are pins.
const PINS: &str = "pins";
/// The notes of vacuums that are under way.
const VACUUMS: &str = "vacuums";

/// How long a vacuum is taken to be under way that has not said that it ended.
const VACUUM_MAX_MICROS: i64 = 86_400_000_000;

/// A vacuum that is under way.
#[derive(Debug, Serialize, Deserialize)]
struct Intent {
    /// Files that only older versions need are being deleted.
    oldest: u64,
    /// Since when, microseconds since 1970.
    since_micros: i64,
}

/// Why a version is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Who pinned it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When, RFC 3339.
    pub at: String,
    /// What for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Table {
    /// Keeps `version`; says whether that is new.
    ///
    /// # Errors
    /// Not found for a version that does not exist or of which files are gone.
    pub async fn pin(
        &self,
        version: u64,
        by: Option<String>,
        reason: Option<String>,
        now: Timestamp,
    ) -> Result<bool> {
        let snapshot = self.snapshot(Some(version)).await?;
        let pin = Pin { by, at: now.to_string(), reason };
        let text = serde_json::to_vec(&pin)
            .map_err(|error| Error::internal("writing a pin").with_source(error))?;
        let new = self.put_note(PINS, &file_name(version), text).await?;
        // Looked at once the pin is there: a vacuum that announces itself later sees the pin.
        if self.is_vacuumed_now(version, now).await? {
            if new {
                self.unpin(version).await?;
            }
            return Err(Error::conflict(format!(
                "{} is being vacuumed and version {version} may go: try again once that has ended",
                self.display()
            )));
        }
        if let Some(gone) = self.missing_file(&snapshot).await? {
            if new {
                self.unpin(version).await?;
            }
            return Err(Error::not_found(format!(
                "version {version} of {} was vacuumed: file {gone} is gone",
                self.display()
            )));
        }
        Ok(new)
    }

    /// Keeps `version` no longer than others.
    ///
    /// # Errors
    /// Not found for a version that is not pinned.
    pub async fn unpin(&self, version: u64) -> Result<()> {
        if !self.pins().await?.contains_key(&version) {
            return Err(Error::not_found(format!(
                "version {version} of {} is not pinned",
                self.display()
            )));
        }
        self.delete_note(PINS, &file_name(version)).await
    }

    /// The versions that are kept, with why.
    ///
    /// # Errors
    /// A store that cannot be read, a pin that is damaged.
    pub async fn pins(&self) -> Result<BTreeMap<u64, Pin>> {
        let mut pins = BTreeMap::new();
        for (name, text) in self.notes(PINS).await? {
            let version = name.strip_suffix(".json").and_then(|number| number.parse().ok());
            let Some(version) = version else { continue };
            let pin = serde_json::from_slice(&text).map_err(|error| {
                Error::corrupt(format!("{}: damaged pin {name}: {error}", self.display()))
            })?;
            pins.insert(version, pin);
        }
        Ok(pins)
    }

    /// Says that files are about to be deleted that only versions before `oldest` need; gives the
    /// name under which that is said, and the time that it is by the clock of the store.
    pub(super) async fn announce_vacuum(
        &self,
        oldest: u64,
        now: Timestamp,
    ) -> Result<(String, Timestamp)> {
        let intent = Intent { oldest, since_micros: now.micros() };
        let text = serde_json::to_vec(&intent)
            .map_err(|error| Error::internal("announcing a vacuum").with_source(error))?;
        let name = format!("{}.json", Uuid::new_v4());
        let announced = match self.put_note(VACUUMS, &name, text).await {
            Ok(_) => self.note_put_at(VACUUMS, &name).await,
            Err(error) => Err(error),
        };
        match announced {
            Ok(put_at) => Ok((name, Timestamp::from_micros(put_at))),
            // A put that failed may have landed, and would keep everybody else away for a day.
            Err(error) => {
                let _ = self.end_vacuum(&name).await;
                Err(error)
            }
        }
    }

    /// Whether a vacuum is under way beside the one that has announced itself as `ours`.
    pub(super) async fn is_vacuumed_by_others(&self, ours: &str, now: Timestamp) -> Result<bool> {
        let notes = self.notes(VACUUMS).await?;
        let mut others = notes.iter().filter(|(name, _)| name != ours);
        Ok(others.any(|(_, text)| is_under_way(text, now)))
    }

    /// Takes back what [`Self::announce_vacuum`] said. What fails is tried again: it would keep everybody
    /// else away for a day.
    pub(super) async fn end_vacuum(&self, name: &str) -> Result<()> {
        match self.delete_note(VACUUMS, name).await {
            Err(_) => self.delete_note(VACUUMS, name).await,
            ended => ended,
        }
    }

    async fn is_vacuumed_now(&self, version: u64, now: Timestamp) -> Result<bool> {
        let threatens = |text: &[u8]| {
            let intent = serde_json::from_slice::<Intent>(text);
            is_under_way(text, now) && intent.map_or(true, |intent| intent.oldest > version)
        };
        Ok(self.notes(VACUUMS).await?.iter().any(|(_, text)| threatens(text)))
    }
}

/// Whether an announcement holds. One that cannot be read says nothing, and may mean the worst.
fn is_under_way(text: &[u8], now: Timestamp) -> bool {
    serde_json::from_slice::<Intent>(text)
        .map_or(true, |intent| now.micros().saturating_sub(intent.since_micros) < VACUUM_MAX_MICROS)
}

fn file_name(version: u64) -> String {
    format!("{version:020}.json")
}
