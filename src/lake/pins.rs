//! Versions that are kept whatever their age: a small file each, beside the table's data.
//!
//! A pin is made by one create-if-absent put, so that two who pin at once do not get into each
//! other's way. Other programs pass over the folder, as its name begins with an underscore.

use std::collections::{BTreeMap, HashSet};

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::lake::kernel::store_error;
use crate::lake::table::Table;
use crate::time::Timestamp;

/// The folder of ours in a table's folder.
const FOLDER: &str = "_meterhouse";
/// In it, the pins.
const PINS: &str = "pins";
/// In it, the vacuums that are under way.
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
        let place = self.pins_folder().join(file_name(version));
        let store = &self.location().store;
        let new = match store.put_opts(&place, text.into(), PutMode::Create.into()).await {
            Ok(_) => true,
            Err(object_store::Error::AlreadyExists { .. }) => false,
            Err(error) => {
                let what = format!("pinning version {version} of {}", self.display());
                return Err(store_error(what, error));
            }
        };
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
        let there: HashSet<Path> = self.objects().await?.into_iter().map(|o| o.location).collect();
        for file in &snapshot.files {
            if !there.contains(&self.object_path(&file.path)?) {
                if new {
                    self.unpin(version).await?;
                }
                return Err(Error::not_found(format!(
                    "version {version} of {} was vacuumed: file {} is gone",
                    self.display(),
                    file.path
                )));
            }
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
        let place = self.pins_folder().join(file_name(version));
        let what = || format!("unpinning version {version} of {}", self.display());
        self.location().store.delete(&place).await.map_err(|error| store_error(what(), error))
    }

    /// The versions that are kept, with why.
    ///
    /// # Errors
    /// A store that cannot be read, a pin that is damaged.
    pub async fn pins(&self) -> Result<BTreeMap<u64, Pin>> {
        let what = || format!("reading the pins of {}", self.display());
        let store = &self.location().store;
        let listed = store.list(Some(&self.pins_folder())).try_collect::<Vec<_>>().await;
        let mut pins = BTreeMap::new();
        for object in listed.map_err(|error| store_error(what(), error))? {
            let name = object.location.filename().unwrap_or_default();
            let version = name.strip_suffix(".json").and_then(|number| number.parse().ok());
            let Some(version) = version else { continue };
            let content = match store.get(&object.location).await {
                Ok(found) => found.bytes().await,
                // Unpinned since it was listed.
                Err(object_store::Error::NotFound { .. }) => continue,
                Err(error) => Err(error),
            };
            let content = content.map_err(|error| store_error(what(), error))?;
            let pin = serde_json::from_slice(&content).map_err(|error| {
                Error::corrupt(format!("{}: damaged pin {name}: {error}", self.display()))
            })?;
            pins.insert(version, pin);
        }
        Ok(pins)
    }

    /// Says that files are about to be deleted that only versions before `oldest` need; gives the
    /// place where that is said, and the time that it is by the clock of the store.
    pub(super) async fn announce_vacuum(
        &self,
        oldest: u64,
        now: Timestamp,
    ) -> Result<(Path, Timestamp)> {
        let intent = Intent { oldest, since_micros: now.micros() };
        let text = serde_json::to_vec(&intent)
            .map_err(|error| Error::internal("announcing a vacuum").with_source(error))?;
        let place = self.own_folder(VACUUMS).join(format!("{}.json", Uuid::new_v4()));
        let what = || format!("announcing a vacuum of {}", self.display());
        let store = &self.location().store;
        let put = store.put_opts(&place, text.into(), PutMode::Create.into()).await;
        put.map_err(|error| store_error(what(), error))?;
        let there = store.head(&place).await.map_err(|error| store_error(what(), error))?;
        Ok((place, Timestamp::from_micros(there.last_modified.timestamp_micros())))
    }

    /// Takes back what [`Self::announce_vacuum`] said.
    pub(super) async fn end_vacuum(&self, place: &Path) -> Result<()> {
        let what = || format!("ending a vacuum of {}", self.display());
        self.location().store.delete(place).await.map_err(|error| store_error(what(), error))
    }

    async fn is_vacuumed_now(&self, version: u64, now: Timestamp) -> Result<bool> {
        let what = || format!("looking for vacuums of {}", self.display());
        let store = &self.location().store;
        let listed = store.list(Some(&self.own_folder(VACUUMS))).try_collect::<Vec<_>>().await;
        for object in listed.map_err(|error| store_error(what(), error))? {
            let content = match store.get(&object.location).await {
                Ok(found) => found.bytes().await,
                Err(object_store::Error::NotFound { .. }) => continue,
                Err(error) => Err(error),
            };
            let content = content.map_err(|error| store_error(what(), error))?;
            // What cannot be read says nothing, and may mean the worst.
            let threatens = serde_json::from_slice::<Intent>(&content).map_or(true, |intent| {
                let age = now.micros().saturating_sub(intent.since_micros);
                intent.oldest > version && age < VACUUM_MAX_MICROS
            });
            if threatens {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn pins_folder(&self) -> Path {
        self.own_folder(PINS)
    }

    fn own_folder(&self, name: &str) -> Path {
        self.log.table.clone().join(FOLDER).join(name)
    }
}

fn file_name(version: u64) -> String {
    format!("{version:020}.json")
}
