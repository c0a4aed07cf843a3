//! Where an exported file goes: a name in a folder or bucket, and the name of its record beside it.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use object_store::path::{Path, PathPart};
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::record::Record;
use super::spool_failed;
use crate::error::{Error, Result};
use crate::lake::location::Location;
use crate::lake::{kernel::store_error, put::put_file};
use crate::render::hexadecimal;

/// Where a file goes.
#[derive(Debug, Clone)]
pub struct Place {
    store: Arc<dyn ObjectStore>,
    file: Path,
    record: Path,
    /// The folder, if it is on the local disk.
    folder: Option<PathBuf>,
    name: String,
    /// How many folders there are below the location.
    below: usize,
    display: String,
}

/// What is at a place.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// No file and no record.
    Nothing,
    /// A record, and a file of this size if there is one.
    Ours { record: Box<Record>, size: Option<u64> },
}

/// A file that is being written and has no name yet.
#[derive(Debug)]
pub(super) enum Spool {
    /// In the folder that it goes to, under a hidden name, which it trades for its own.
    Beside(NamedTempFile),
    /// To be put elsewhere.
    Apart(File),
}

impl Spool {
    pub(super) fn file(&mut self) -> &mut File {
        match self {
            Self::Beside(file) => file.as_file_mut(),
            Self::Apart(file) => file,
        }
    }
}

/// How old a file has to be that a killed export has left, to be deleted by the next one.
const LEFT_BEHIND: Duration = Duration::from_secs(24 * 3_600);

impl Place {
    /// The file `name` in a location, or in folders below it, each called `KEY=VALUE`.
    ///
    /// # Errors
    /// A name that no file can have.
    pub fn new(location: &Location, folders: &[(&str, &str)], name: &str) -> Result<Self> {
        let (mut place, mut below) = (location.root.clone(), Vec::new());
        for (key, value) in folders {
            let part = format!("{key}={value}");
            // What a part of a path must not have in it is told in `%` and hexadecimal digits.
            place = place.join(part.as_str());
            below.extend(place.filename().map(str::to_owned));
        }
        let part = |name: String| {
            let part = PathPart::parse(&name).map(|part| part.as_ref().to_owned());
            part.map_err(|error| Error::invalid(format!("`{name}` is no name of a file: {error}")))
        };
        let as_it_is = |name: &str| -> Result<Path> {
            let name = part(name.to_owned())?;
            let folder = place.as_ref();
            let whole = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            Path::parse(&whole)
                .map_err(|error| Error::invalid(format!("`{whole}` is no name of a file: {error}")))
        };
        let local = location.local_path().map(PathBuf::from);
        let folder = [location.display.trim_end_matches('/').to_owned()];
        let display = folder.iter().chain(&below).cloned().chain([name.to_owned()]);
        Ok(Self {
            store: Arc::clone(&location.store),
            file: as_it_is(name)?,
            record: as_it_is(&format!("_{name}.json"))?,
            folder: local.map(|folder| below.iter().fold(folder, |folder, part| folder.join(part))),
            name: name.to_owned(),
            below: below.len(),
            display: display.collect::<Vec<_>>().join("/"),
        })
    }

    /// The folder, if it is on the local disk.
    pub(super) fn folder(&self) -> Option<&FsPath> {
        self.folder.as_deref()
    }

    /// What is there.
    ///
    /// # Errors
    /// A file without a record, or whose record is none; a store that cannot be read.
    pub(super) async fn found(&self) -> Result<Found> {
        let size = match self.store.head(&self.file).await {
            Ok(meta) => Some(meta.size),
            Err(StoreError::NotFound { .. }) if self.is_link() => {
                return Err(self.foreign("is a link that leads nowhere"));
            }
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
            Err(error) => Err(Error::conflict(format!(
                "{}: its record _{}.json is damaged ({error}), so that nothing was written: move both \
                 away, or name another place",
                self.display, self.name
            ))),
        }
    }

    /// Whether its name is that of a link, which the store does not tell where it leads nowhere.
    fn is_link(&self) -> bool {
        let path = self.folder.as_ref().map(|folder| folder.join(&self.name));
        path.and_then(|path| path.symlink_metadata().ok()).is_some_and(|of| of.is_symlink())
    }

    /// Whether the file of a closing is there.
    ///
    /// # Errors
    /// As for an export to it.
    pub async fn holds(&self, closing: &str) -> Result<bool> {
        Ok(match self.found().await? {
            Found::Ours { record, size: Some(_) } => {
                record.basis().iter().any(|basis| basis.closing.as_deref() == Some(closing))
            }
            Found::Ours { .. } | Found::Nothing => false,
        })
    }

    fn foreign(&self, why: &str) -> Error {
        Error::conflict(format!(
            "{} is there and {why}: nothing was written; name another place, or move it away",
            self.display
        ))
    }

    /// Refuses a file that is neither as its record says, nor what that was to take the place of, nor one
    /// that was on its way then.
    pub(super) fn check_ours(&self, record: &Record, there: Option<&String>) -> Result<()> {
        let mut known = record.overtakes.iter().chain(&record.replaces).chain([&record.sha256]);
        match there.is_none_or(|there| known.any(|known| known == there)) {
            true => Ok(()),
            false => Err(self.foreign("was changed since it was exported")),
        }
    }

    /// SHA-256 of the file that is there, if there is one.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub(super) async fn sha256(&self, found: &Found) -> Result<Option<String>> {
        let Found::Ours { size: Some(_), .. } = found else { return Ok(None) };
        let failed = |error| store_error(&self.display, error);
        let mut chunks = self.store.get(&self.file).await.map_err(failed)?.into_stream();
        let mut hasher = Sha256::new();
        while let Some(chunk) = chunks.next().await {
            hasher.update(&chunk.map_err(failed)?);
        }
        Ok(Some(hexadecimal(&hasher.finalize())))
    }

    /// A file to write to.
    ///
    /// # Errors
    /// A folder that cannot be made or written to.
    pub(super) fn spool(&self) -> Result<Spool> {
        let Some(folder) = &self.folder else {
            return tempfile::tempfile().map(Spool::Apart).map_err(spool_failed);
        };
        let beginning = format!(".{}.", self.name);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&beginning);
        // Whoever may read what this user writes may read it.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let made = fs::create_dir_all(folder).and_then(|()| {
            clear_left_behind(folder, &beginning);
            builder.tempfile_in(folder)
        });
        made.map(Spool::Beside).map_err(|error| {
            Error::unavailable(format!("cannot write to {}: {error}", folder.display()))
                .with_source(error)
        })
    }

    /// Takes away the folders that were made for a file that was not written.
    pub(super) fn clear_empty(&self) {
        let Some(folder) = &self.folder else { return };
        for folder in folder.ancestors().take(self.below) {
            // One that holds anything stays.
            let _ = fs::remove_dir(folder);
        }
    }

    /// Puts the record; says whether it was put: the first of a place is not where somebody else has put
    /// one meanwhile.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub(super) async fn put_record(&self, record: &Record, is_first: bool) -> Result<bool> {
        let text = serde_json::to_vec_pretty(record)
            .map_err(|error| Error::internal("the record of an export").with_source(error))?;
        let mode = if is_first { PutMode::Create } else { PutMode::Overwrite };
        match self.store.put_opts(&self.record, text.into(), mode.into()).await {
            Ok(_) => Ok(true),
            Err(StoreError::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(store_error(&self.display, error)),
        }
    }

    /// Puts the file in one step: it is there whole, or what was there before is.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub(super) async fn put_file(&self, spool: Spool) -> Result<()> {
        match spool {
            Spool::Apart(file) => put_file(&*self.store, &self.file, file)
                .await
                .map_err(|error| store_error(&self.display, error)),
            Spool::Beside(file) => {
                let name = |folder: &PathBuf| folder.join(&self.name);
                let target = self.folder.as_ref().map(name).unwrap_or_default();
                let named = file.as_file().sync_all().and_then(|()| {
                    file.persist(&target).map_err(|error| error.error)?;
                    // The name has to outlive a power cut, too.
                    File::open(target.parent().unwrap_or(FsPath::new(".")))?.sync_all()
                });
                named.map_err(|error| {
                    Error::unavailable(format!("cannot write {}: {error}", self.display))
                        .with_source(error)
                })
            }
        }
    }
}

/// Deletes what exports that were killed a day ago or earlier have left under hidden names.
fn clear_left_behind(folder: &FsPath, beginning: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(beginning);
        let changed = entry.metadata().and_then(|metadata| metadata.modified()).ok();
        let age = changed.and_then(|changed| changed.elapsed().ok());
        if is_ours && age.is_some_and(|age| age > LEFT_BEHIND) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}
