//! Reads single entries of a table's log.
//!
//! The kernel answers what a table holds; this answers what one commit did, which decides who won a
//! race, keeps snapshots fresh cheaply and replays commits into the key index. Never writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::compute::kernels::cast_utils::Parser;
use arrow::datatypes::Date32Type;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::kernel::store_error;

/// The field of `commitInfo` that holds the writer's own mark.
pub(super) const NONCE: &str = "meterhouseNonce";
/// The field of `commitInfo` that holds what the caller said about a commit.
pub(super) const INFO: &str = "meterhouse";

/// The log of one table.
#[derive(Debug, Clone)]
pub(super) struct Log {
    pub(super) store: Arc<dyn ObjectStore>,
    /// The table's folder in `store`.
    pub(super) table: Path,
    /// The table's folder as people know it.
    pub(super) display: String,
    /// The name of the partition column, if there is one.
    pub(super) partition: Option<String>,
}

/// What one commit did.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) nonce: Option<String>,
    /// By the clock of the one who committed, milliseconds since 1970.
    pub(super) timestamp_ms: Option<i64>,
    /// Delta's name of what was done.
    pub(super) operation: Option<String>,
    pub(super) info: BTreeMap<String, String>,
    pub(super) added: Vec<AddedFile>,
    pub(super) removed: Vec<String>,
    pub(super) apps: Vec<(String, i64)>,
}

/// A file as the log lists it.
#[derive(Debug)]
pub(super) struct AddedFile {
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) partition: Option<i32>,
    /// The log's JSON text.
    pub(super) statistics: String,
}

/// How often a log with a gap is listed again.
const LISTINGS: u32 = 2;

impl Log {
    /// The entry of `version`, if it is there.
    pub(super) async fn read(&self, version: u64) -> Result<Option<Entry>> {
        let path = self.folder().join(entry_name(version));
        let what = || format!("reading {}", self.entry_display(version));
        let content = match self.store.get(&path).await {
            Ok(found) => found.bytes().await.map_err(|error| store_error(what(), error))?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(store_error(what(), error)),
        };
        self.parse(version, &content).map(Some)
    }

    /// The versions that can be read: from the oldest that the log still reaches to the newest.
    ///
    /// # Errors
    /// A store that cannot be read; a log of which an entry in between is gone.
    pub(super) async fn versions(&self) -> Result<Option<(u64, u64)>> {
        let mut listed = self.versions_listed().await;
        // A list that was made while somebody shortened the log may show both ends of it.
        for _ in 0..LISTINGS {
            match &listed {
                Err(error) if error.kind() == ErrorKind::Corrupt => {}
                _ => return listed,
            }
            listed = self.versions_listed().await;
        }
        listed
    }

    async fn versions_listed(&self) -> Result<Option<(u64, u64)>> {
        let names = self.names().await?;
        let version_of = |name: &String| name.get(..20)?.parse::<u64>().ok();
        let entries = names.iter().filter(|name| name.ends_with(".json") && name.len() == 25);
        let entries: BTreeSet<u64> = entries.filter_map(version_of).collect();
        let checkpoints = names.iter().filter(|name| name.contains(".checkpoint"));
        let checkpoints: BTreeSet<u64> = checkpoints.filter_map(version_of).collect();
        let newest = entries.last().max(checkpoints.last());
        // The entry of the oldest version stays when a log is shortened. A checkpoint without its
        // entry was written late, by somebody who had slept while that happened.
        let base = || checkpoints.iter().find(|version| entries.contains(version));
        let oldest = match entries.first() {
            Some(0) => Some(&0),
            _ => base().or(checkpoints.first()),
        };
        let Some((&oldest, &newest)) = oldest.zip(newest) else { return Ok(None) };
        // A checkpoint stands in for the entries up to its own, and for none after it.
        match (oldest + 1..=newest).find(|version| !entries.contains(version)) {
            None => Ok(Some((oldest, newest))),
            Some(gone) => {
                let name = self.entry_display(gone);
                Err(Error::corrupt(format!("log entry {name} is gone: put it back from a copy")))
            }
        }
    }

    /// The first entry that cannot be understood, as an error that names it.
    pub(super) async fn find_damage(&self) -> Result<Option<Error>> {
        let Some((oldest, newest)) = self.versions().await? else { return Ok(None) };
        for version in oldest..=newest {
            if let Err(error) = self.read(version).await {
                return Ok(Some(error));
            }
        }
        Ok(None)
    }

    /// The file of `version`'s entry as people know it.
    pub(super) fn entry_display(&self, version: u64) -> String {
        format!("{}/_delta_log/{}", self.display, entry_name(version))
    }

    /// The version whose entry lies at `place`.
    pub(super) fn version_of_entry(&self, place: &Path) -> Option<u64> {
        let mut parts = place.prefix_match(&self.folder())?;
        let name = parts.next()?;
        let number = name.as_ref().strip_suffix(".json").filter(|number| number.len() == 20)?;
        number.parse().ok().filter(|_| parts.next().is_none())
    }

    /// The version that a file of the log at `place` is of: an entry, a checkpoint, a checksum.
    pub(super) fn version_of_file(&self, place: &Path) -> Option<u64> {
        let mut parts = place.prefix_match(&self.folder())?;
        let name = parts.next()?;
        let (number, _) = name.as_ref().split_once('.')?;
        number.parse().ok().filter(|_| number.len() == 20 && parts.next().is_none())
    }

    /// Whether there is a checkpoint of `version`.
    pub(super) async fn has_checkpoint(&self, version: u64) -> Result<bool> {
        let beginning = format!("{version:020}.checkpoint");
        Ok(self.names().await?.iter().any(|name| name.starts_with(&beginning)))
    }

    /// The newest checkpoint of `version` or before, if there is one that is a single file.
    pub(super) async fn checkpoint_before(&self, version: u64) -> Result<Option<(u64, Path)>> {
        const ENDING: &str = ".checkpoint.parquet";
        let names = self.names().await?;
        let version_of = |name: &String| name.strip_suffix(ENDING)?.parse::<u64>().ok();
        let found = names.iter().filter_map(|name| Some((version_of(name)?, name)));
        let newest = found.filter(|(of, _)| *of <= version).max();
        Ok(newest.map(|(of, name)| (of, self.folder().join(name.as_str()))))
    }

    fn folder(&self) -> Path {
        self.table.clone().join("_delta_log")
    }

    async fn names(&self) -> Result<Vec<String>> {
        let what = || format!("listing {}/_delta_log", self.display);
        self.store
            .list(Some(&self.folder()))
            .map_ok(|object| object.location.filename().unwrap_or_default().to_owned())
            .try_collect()
            .await
            .map_err(|error| store_error(what(), error))
    }

    fn parse(&self, version: u64, content: &[u8]) -> Result<Entry> {
        let mut entry = Entry::default();
        let mut actions = 0_usize;
        for action in serde_json::Deserializer::from_slice(content).into_iter::<Action>() {
            let action = action.map_err(|error| {
                let name = self.entry_display(version);
                Error::corrupt(format!("log entry {name} is damaged: {error}")).with_source(error)
            })?;
            self.apply(version, action, &mut entry)?;
            actions += 1;
        }
        if actions == 0 {
            let name = self.entry_display(version);
            return Err(Error::corrupt(format!("log entry {name} is empty")));
        }
        Ok(entry)
    }

    fn apply(&self, version: u64, action: Action, entry: &mut Entry) -> Result<()> {
        if let Some(add) = action.add {
            if add.deletion_vector.is_some() {
                return Err(deletion_vector(&self.display, &add.path));
            }
            entry.added.push(AddedFile {
                partition: self.partition_value(version, &add)?,
                path: add.path,
                size: add.size,
                statistics: add.stats.unwrap_or_default(),
            });
        }
        entry.removed.extend(action.remove.map(|remove| remove.path));
        entry.apps.extend(action.txn.map(|txn| (txn.app_id, txn.version)));
        if let Some(info) = action.commit_info {
            entry.nonce = info.nonce;
            entry.timestamp_ms = info.timestamp;
            entry.operation = info.operation;
            entry.info = info.info;
        }
        Ok(())
    }

    fn partition_value(&self, version: u64, add: &Add) -> Result<Option<i32>> {
        let Some(column) = &self.partition else { return Ok(None) };
        let Some(Some(text)) = add.partition_values.get(column) else { return Ok(None) };
        Date32Type::parse(text).map(Some).ok_or_else(|| {
            let name = self.entry_display(version);
            Error::corrupt(format!(
                "log entry {name}: {column} `{text}` of {} is no date",
                add.path
            ))
        })
    }
}

/// Refuses a file of which another program has struck out rows.
pub(super) fn deletion_vector(table: &str, path: &str) -> Error {
    Error::invalid(format!(
        "{table}: file {path} has a deletion vector, which this version cannot read"
    ))
}

fn entry_name(version: u64) -> String {
    format!("{version:020}.json")
}

#[derive(Deserialize)]
struct Action {
    add: Option<Add>,
    remove: Option<Remove>,
    txn: Option<Txn>,
    #[serde(rename = "commitInfo")]
    commit_info: Option<CommitInfo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Add {
    path: String,
    #[serde(default)]
    partition_values: BTreeMap<String, Option<String>>,
    size: u64,
    stats: Option<String>,
    deletion_vector: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Remove {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Txn {
    app_id: String,
    version: i64,
}

#[derive(Deserialize)]
struct CommitInfo {
    #[serde(rename = "meterhouseNonce")]
    nonce: Option<String>,
    timestamp: Option<i64>,
    operation: Option<String>,
    #[serde(default, rename = "meterhouse")]
    info: BTreeMap<String, String>,
}
