//! Small files of ours beside a table's data: pins, vacuums under way, what followers have read,
//! corrections, lookup tables, published meters.
//!
//! What they are kept under is a plain name, or several with `/` between them: folders in folders.
//! Each is made by one create-if-absent put, so that two who write at once do not get into each
//! other's way. Other programs pass over the folder, as its name begins with an underscore.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::error::{Error, Result};
use crate::lake::checked::NOT_AS_WRITTEN;
use crate::lake::checksums::Damaged;
use crate::lake::kernel::store_error;
use crate::lake::put::put_once;
use crate::lake::sealed::{opened_note, sealed_note};
use crate::lake::table::{NOTES, Table};

/// How often notes are listed that others take away meanwhile.
const MAX_LISTINGS: u32 = 20;

impl Table {
    /// Keeps `text` under `kind` and `name`; says whether nothing was there.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub async fn put_note(&self, kind: &str, name: &str, text: impl Into<Bytes>) -> Result<bool> {
        let (store, place) = (&self.location().store, self.note(kind, name));
        let what = || format!("writing {kind}/{name} of {}", self.display());
        let put = put_once(store.as_ref(), &place, &sealed_note(&text.into())).await;
        Ok(put.map_err(|error| store_error(what(), error))?.is_none())
    }

    /// Keeps `text` under `kind` and `name` in the place of what is there, which is then as new.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub async fn renew_note(&self, kind: &str, name: &str, text: impl Into<Bytes>) -> Result<()> {
        let what = || format!("writing {kind}/{name} of {}", self.display());
        let text = sealed_note(&text.into());
        let put = self.location().store.put(&self.note(kind, name), text.into()).await;
        put.map(drop).map_err(|error| store_error(what(), error))
    }

    /// The names of what is kept under `kind`.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn note_names(&self, kind: &str) -> Result<Vec<String>> {
        let what = || format!("reading the {kind} of {}", self.display());
        let listed = self.location().store.list(Some(&self.notes_folder(kind)));
        let listed: Vec<_> =
            listed.try_collect().await.map_err(|error| store_error(what(), error))?;
        let names = listed.iter().filter_map(|object| object.location.filename());
        Ok(names.map(ToOwned::to_owned).collect())
    }

    /// The names and texts kept under `kind`.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn notes(&self, kind: &str) -> Result<Vec<(String, Bytes)>> {
        for _ in 0..MAX_LISTINGS {
            if let Some(notes) = self.notes_listed(kind).await? {
                return Ok(notes);
            }
        }
        let what = format!("the {kind} of {} change faster than they are read", self.display());
        Err(Error::conflict(what))
    }

    /// The notes, unless one was taken away since they were listed: what took its place, where
    /// something did, is only in a new list.
    async fn notes_listed(&self, kind: &str) -> Result<Option<Vec<(String, Bytes)>>> {
        let what = || format!("reading the {kind} of {}", self.display());
        let store = &self.location().store;
        let list = || store.list(Some(&self.notes_folder(kind))).try_collect::<Vec<_>>();
        let mut notes = Vec::new();
        let listed = list().await.map_err(|error| store_error(what(), error))?;
        for object in &listed {
            let Some(name) = object.location.filename() else { continue };
            let text = match store.get(&object.location).await {
                Ok(found) => found.bytes().await,
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(error) => Err(error),
            };
            let text = text.map_err(|error| store_error(what(), error))?;
            notes.push((name.to_owned(), self.opened(&object.location, &text)?));
        }
        // What is taken away while a folder is listed may be missing from the list without a word.
        let again = list().await.map_err(|error| store_error(what(), error))?;
        let same = listed.iter().map(|o| &o.location).eq(again.iter().map(|o| &o.location));
        Ok(same.then_some(notes))
    }

    /// The text kept under `kind` and `name`, if there is one.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn read_note(&self, kind: &str, name: &str) -> Result<Option<Bytes>> {
        let what = || format!("reading {kind}/{name} of {}", self.display());
        let place = self.note(kind, name);
        let read = match self.location().store.get(&place).await {
            Ok(found) => found.bytes().await,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => Err(error),
        };
        let text = read.map_err(|error| store_error(what(), error))?;
        self.opened(&place, &text).map(Some)
    }

    fn opened(&self, place: &Path, note: &Bytes) -> Result<Bytes> {
        opened_note(note).map_err(|Damaged| {
            Error::corrupt(format!("{}/{}: {NOT_AS_WRITTEN}", self.display(), self.below(place)))
        })
    }

    fn below(&self, place: &Path) -> String {
        place.prefix_match(&self.log.table).into_iter().flatten().collect::<Path>().to_string()
    }

    /// The notes of all kinds that are not what was written, by their place below the table.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn damaged_notes(&self) -> Result<Vec<String>> {
        let what = || format!("reading the notes of {}", self.display());
        let store = &self.location().store;
        let listed = store.list(Some(&self.log.table.clone().join(NOTES)));
        let listed: Vec<_> =
            listed.try_collect().await.map_err(|error| store_error(what(), error))?;
        let mut damaged = Vec::new();
        for object in listed {
            let text = match store.get(&object.location).await {
                Ok(found) => found.bytes().await,
                // Taken away since it was listed.
                Err(object_store::Error::NotFound { .. }) => continue,
                Err(error) => Err(error),
            };
            let text = text.map_err(|error| store_error(what(), error))?;
            if opened_note(&text).is_err() {
                damaged.push(self.below(&object.location));
            }
        }
        Ok(damaged)
    }

    /// The names of the folders under `kind`, sorted.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn note_folders(&self, kind: &str) -> Result<Vec<String>> {
        let what = || format!("reading the {kind} of {}", self.display());
        let folder = self.notes_folder(kind);
        let listed = self.location().store.list_with_delimiter(Some(&folder)).await;
        let listed = listed.map_err(|error| store_error(what(), error))?;
        let names = listed.common_prefixes.iter().filter_map(|path| path.filename());
        let mut names: Vec<String> = names.map(ToOwned::to_owned).collect();
        names.sort();
        Ok(names)
    }

    /// When the note was put, by the clock of the store, microseconds since 1970.
    ///
    /// # Errors
    /// A note that is gone, a store that cannot be read.
    pub async fn note_put_at(&self, kind: &str, name: &str) -> Result<i64> {
        let what = || format!("reading {kind}/{name} of {}", self.display());
        let there = self.location().store.head(&self.note(kind, name)).await;
        Ok(there.map_err(|error| store_error(what(), error))?.last_modified.timestamp_micros())
    }

    /// Takes a note away, if it is there.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub async fn delete_note(&self, kind: &str, name: &str) -> Result<()> {
        match self.location().store.delete(&self.note(kind, name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => {
                Err(store_error(format!("deleting {kind}/{name} of {}", self.display()), error))
            }
        }
    }

    fn note(&self, kind: &str, name: &str) -> Path {
        self.notes_folder(kind).join(name)
    }

    fn notes_folder(&self, kind: &str) -> Path {
        let folder = self.log.table.clone().join(NOTES);
        kind.split('/').fold(folder, |folder, name| folder.join(name))
    }
}
