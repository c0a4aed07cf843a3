//! Objects of a cloud's store as inputs: found by a URL, a folder or a glob, and fetched whole.
//!
//! An object is fetched to an unnamed file of the temporary folder just before it is read: Parquet
//! and Arrow are read from their ends, and a slow reader keeps no connection open.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Seek, Write};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle;

use super::input::{GLOB, InputFormat, Place, format_of, in_folder, read_failed};
use crate::error::{Error, Result};
use crate::lake::cloud::Settings;
use crate::lake::kernel::store_error;
use crate::lake::location::Location;

/// One object.
#[derive(Debug, Clone)]
pub struct Object {
    store: Arc<dyn ObjectStore>,
    meta: ObjectMeta,
    runtime: Handle,
}

impl Object {
    /// A text that changes when the content does.
    pub(super) fn mark(&self) -> String {
        let changed = || self.meta.last_modified.timestamp_micros().to_string();
        format!("{} {}", self.meta.size, self.meta.e_tag.clone().unwrap_or_else(changed))
    }

    /// The content, as a file that goes when it is closed.
    ///
    /// # Errors
    /// An object that is gone, a store that cannot be read, a full temporary folder.
    pub(super) fn fetch(&self, name: &str) -> Result<File> {
        let mut file = tempfile::tempfile().map_err(|error| read_failed(name, error))?;
        self.runtime.block_on(async {
            let found = self.store.get(&self.meta.location).await;
            let mut chunks = found.map_err(|error| unreadable(name, error))?.into_stream();
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.map_err(|error| unreadable(name, error))?;
                file.write_all(&chunk).map_err(|error| {
                    Error::unavailable(format!(
                        "{name}: no room for it in the temporary folder: {error}"
                    ))
                    .with_source(error)
                })?;
            }
            Ok::<(), Error>(())
        })?;
        file.rewind().map_err(|error| read_failed(name, error))?;
        Ok(file)
    }
}

/// The objects that a URL stands for: one, all event files below it, or those that a glob matches,
/// by their URLs and in order.
///
/// # Errors
/// A URL of no cloud's store, a store that cannot be read, a place where nothing is.
pub(super) async fn of_url(
    url: &str,
    format: Option<InputFormat>,
    settings: &Settings,
) -> Result<Vec<(String, Place)>> {
    // `?` and `#` mean something in URLs, and neither in names of objects nor in globs.
    let escaped = url.replace('%', "%25").replace('?', "%3F").replace('#', "%23");
    let location = Location::parse_with(&escaped, settings)?;
    if location.local_path().is_some() || location.is_passing() {
        return Err(Error::invalid(format!("{url}: inputs are files, or objects in s3, gs or az")));
    }
    let pattern = location.root.as_ref().to_owned();
    if pattern.contains(['*', '?', '[']) {
        return matching(url, &location, &pattern).await;
    }
    let object = |meta: ObjectMeta| object(&location, meta);
    // A whole bucket and what ends as a folder does are no objects.
    if !(pattern.is_empty() || url.ends_with('/')) {
        match location.store.head(&location.root).await {
            Ok(meta) => return Ok(vec![object(meta)]),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(unreadable(url, error)),
        }
    }
    let below = listed(url, &location, &location.root).await?;
    let tables = tables(&below);
    let of_table = |meta: &ObjectMeta| {
        tables.iter().any(|table| meta.location.as_ref().starts_with(table.as_str()))
    };
    let found: Vec<_> = below
        .into_iter()
        .filter(|meta| is_event_file(&location.root, &meta.location, format) && !of_table(meta))
        .map(object)
        .collect();
    if found.is_empty() {
        return Err(Error::not_found(format!("{url}: no such object, and no event file below it")));
    }
    Ok(found)
}

async fn matching(url: &str, location: &Location, pattern: &str) -> Result<Vec<(String, Place)>> {
    let glob = glob::Pattern::new(pattern)
        .map_err(|error| Error::invalid(format!("{url}: not a glob: {error}")))?;
    let literal = pattern.split(['*', '?', '[']).next().unwrap_or_default();
    let folder = literal.rsplit_once('/').map_or("", |(folder, _)| folder);
    let below = listed(url, location, &Path::from(folder)).await?;
    let found: Vec<_> = below
        .into_iter()
        .filter(|meta| glob.matches_with(meta.location.as_ref(), GLOB))
        .map(|meta| object(location, meta))
        .collect();
    if found.is_empty() {
        return Err(Error::not_found(format!("{url}: the glob matches no object")));
    }
    Ok(found)
}

async fn listed(url: &str, location: &Location, folder: &Path) -> Result<Vec<ObjectMeta>> {
    let listed = location.store.list(Some(folder)).try_collect::<Vec<_>>().await;
    let mut objects = listed.map_err(|error| unreadable(url, error))?;
    objects.sort_unstable_by(|a, b| a.location.cmp(&b.location));
    Ok(objects)
}

fn object(location: &Location, meta: ObjectMeta) -> (String, Place) {
    let name = format!("{}{}", location.url, meta.location);
    let store = Arc::clone(&location.store);
    (name, Place::Object(Object { store, meta, runtime: Handle::current() }))
}

/// The folders among `objects` that are tables, such as a lake's own: they hold their files for
/// themselves.
fn tables(objects: &[ObjectMeta]) -> BTreeSet<String> {
    let above = |meta: &ObjectMeta| {
        let (table, _) = meta.location.as_ref().split_once("_delta_log/")?;
        Some(table.to_owned())
    };
    objects.iter().filter_map(above).collect()
}

/// Whether an object below `folder` is meant: not hidden, of a wanted format.
fn is_event_file(folder: &Path, place: &Path, format: Option<InputFormat>) -> bool {
    let Some(mut parts) = place.prefix_match(folder) else { return false };
    let hidden = parts.any(|part| part.as_ref().starts_with('.'));
    let found = place.filename().and_then(|name| format_of(std::path::Path::new(name)));
    !hidden && found.is_some_and(|found| in_folder(found, format))
}

fn unreadable(name: &str, error: object_store::Error) -> Error {
    store_error(format!("{name}: cannot be read"), error)
}
