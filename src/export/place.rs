//! Where an exported file goes: a name in a folder or bucket, and the name of its record beside it.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use futures::StreamExt;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};

use super::record::Record;
use super::{hex, spool_failed};
use crate::error::{Error, Result};
use crate::lake::location::Location;
use crate::lake::{kernel::store_error, put::put_file};

/// Where a file goes.
#[derive(Debug, Clone)]
pub struct Place {
    store: Arc<dyn ObjectStore>,
    file: Path,
    record: Path,
    /// The folder, if it is on the local disk.
    folder: Option<PathBuf>,
    display: String,
}

/// What is at a place.
#[derive(Debug)]
pub(super) enum Found {
    /// No file and no record.
    Nothing,
    /// A record, and a file of this size if there is one.
    Ours { record: Box<Record>, size: Option<u64> },
}

impl Found {
    /// Whether the file is as long as the record says.
    pub(super) fn may_be_whole(&self) -> bool {
        matches!(self, Self::Ours { record, size } if *size == Some(record.bytes))
    }
}

impl Place {
    /// The file `name` in a location, or in folders below it, each called `KEY=VALUE`.
    pub fn new(location: &Location, folders: &[(&str, &str)], name: &str) -> Self {
        let (mut place, mut below) = (location.root.clone(), Vec::new());
        for (key, value) in folders {
            let part = format!("{key}={value}");
            // What a part of a path must not have in it is told in `%` and hexadecimal digits.
            place = place.join(part.as_str());
            below.extend(place.filename().map(str::to_owned));
        }
        let local = location.local_path().map(PathBuf::from);
        below.push(name.to_owned());
        let display = format!("{}/{}", location.display.trim_end_matches('/'), below.join("/"));
        below.pop();
        Self {
            store: Arc::clone(&location.store),
            file: place.clone().join(name),
            record: place.join(format!("_{name}.json").as_str()),
            folder: local.map(|folder| below.iter().fold(folder, |folder, part| folder.join(part))),
            display,
        }
    }

    /// What is there.
    ///
    /// # Errors
    /// A file without a record, or whose record is none; a store that cannot be read.
    pub(super) async fn found(&self) -> Result<Found> {
        let size = match self.store.head(&self.file).await {
            Ok(meta) => Some(meta.size),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(store_error(&self.display, error)),
        };
        let text = match self.store.get(&self.record).await {
            Ok(got) => got.bytes().await.map_err(|error| store_error(&self.display, error))?,
            Err(StoreError::NotFound { .. }) if size.is_none() => return Ok(Found::Nothing),
            Err(StoreError::NotFound { .. }) => {
                return Err(self.foreign("no export has written it"));
            }
            Err(error) => return Err(store_error(&self.display, error)),
        };
        match serde_json::from_slice(&text) {
            Ok(record) => Ok(Found::Ours { record: Box::new(record), size }),
            Err(error) => {
                Err(self.foreign(&format!("its record {} is none: {error}", self.record)))
            }
        }
    }

    fn foreign(&self, why: &str) -> Error {
        Error::conflict(format!(
            "{} is there and {why}: nothing was written; name another place, or move it away",
            self.display
        ))
    }

    /// SHA-256 of the file that is there and would be replaced, if there is one.
    ///
    /// # Errors
    /// One that is neither as its record says nor what that was to take the place of.
    pub(super) async fn replaced(&self, found: &Found) -> Result<Option<String>> {
        let Found::Ours { record, size: Some(_) } = found else { return Ok(None) };
        let sha256 = self.sha256().await.map_err(|error| store_error(&self.display, error))?;
        match sha256 == record.sha256 || Some(&sha256) == record.replaces.as_ref() {
            true => Ok(Some(sha256)),
            false => Err(self.foreign("was changed since it was exported")),
        }
    }

    async fn sha256(&self) -> Result<String, StoreError> {
        let mut chunks = self.store.get(&self.file).await?.into_stream();
        let mut hasher = Sha256::new();
        while let Some(chunk) = chunks.next().await {
            hasher.update(&chunk?);
        }
        Ok(hex(&hasher.finalize()))
    }

    /// A file without a name to write to, on the same disk where the place is on one.
    ///
    /// # Errors
    /// A folder that cannot be made or written to.
    pub(super) fn spool(&self) -> Result<File> {
        let Some(folder) = &self.folder else { return tempfile::tempfile().map_err(spool_failed) };
        let made = std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder));
        made.map_err(|error| {
            Error::unavailable(format!("cannot write to {}: {error}", folder.display()))
                .with_source(error)
        })
    }

    /// Puts the record.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub(super) async fn put_record(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_vec_pretty(record)
            .map_err(|error| Error::internal("the record of an export").with_source(error))?;
        let put = self.store.put(&self.record, text.into()).await;
        put.map(drop).map_err(|error| store_error(&self.display, error))
    }

    /// Puts the file in one step: it is there whole, or what was there before is.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub(super) async fn put_file(&self, file: File) -> Result<()> {
        let put = put_file(&*self.store, &self.file, file).await;
        put.map_err(|error| store_error(&self.display, error))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}
