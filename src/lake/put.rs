//! Puts of whole objects under names that are given once.

use std::fs::File;
use std::io::{Read, Seek};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Error, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, Result,
};

/// Puts a file of the disk in one step, part by part where it is large. It takes the place of one that is
/// there.
///
/// # Errors
/// A store that fails, a file that cannot be read. What was there is there still.
pub async fn put_file(store: &dyn ObjectStore, place: &Path, mut file: File) -> Result<()> {
    file.rewind().map_err(unread)?;
    let first = next_part(&mut file)?;
    if first.len() < PART_BYTES {
        return store.put(place, first.into()).await.map(drop);
    }
    let mut upload = store.put_multipart(place).await?;
    let completed = match put_rest(&mut *upload, &mut file, first).await {
        Ok(()) => upload.complete().await.map(drop),
        Err(error) => Err(error),
    };
    if completed.is_err() {
        drop(upload.abort().await);
    }
    completed
}

async fn put_rest(upload: &mut dyn MultipartUpload, file: &mut File, first: Bytes) -> Result<()> {
    let mut part = first;
    while !part.is_empty() {
        upload.put_part(part.into()).await?;
        part = next_part(file)?;
    }
    Ok(())
}

/// The next bytes of one put; fewer at the end.
fn next_part(file: &mut File) -> Result<Bytes> {
    let mut part = Vec::with_capacity(PART_BYTES);
    file.take(PART_BYTES as u64).read_to_end(&mut part).map_err(unread)?;
    Ok(part.into())
}

fn unread(error: std::io::Error) -> Error {
    Error::Generic { store: "file", source: error.into() }
}

/// Bytes of one put. Larger objects are put in parts of this size.
pub(super) const PART_BYTES: usize = 16 << 20;
const PARTS_AT_ONCE: usize = 4;
/// How often a store may refuse a name as taken that is not there.
const MAX_PHANTOMS: u32 = 3;

/// Puts `bytes` where nothing is; gives what is there already, if something is.
///
/// # Errors
/// A store that fails, or says that the name is taken and has nothing of that name: so does one
/// that two writers ask for the same name at the same time, of whom neither gets it.
pub(super) async fn put_once(
    store: &dyn ObjectStore,
    place: &Path,
    bytes: &Bytes,
) -> Result<Option<ObjectMeta>> {
    for _ in 0..MAX_PHANTOMS {
        match store.put_opts(place, bytes.clone().into(), PutMode::Create.into()).await {
            Ok(_) => return Ok(None),
            Err(Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(error),
        }
        match store.head(place).await {
            Ok(there) => return Ok(Some(there)),
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let source = format!("{place} is refused as existing, but it is not there").into();
    Err(Error::Generic { store: "create", source })
}

/// Puts a large object part by part, so that no request takes long. It takes the place of one that is
/// there: only for names that tell the content.
pub(super) async fn put_parts(store: &dyn ObjectStore, place: &Path, bytes: &Bytes) -> Result<()> {
    let mut upload = store.put_multipart(place).await?;
    let starts = (0..bytes.len()).step_by(PART_BYTES);
    let parts: Vec<_> = starts
        .map(|start| bytes.slice(start..bytes.len().min(start + PART_BYTES)))
        .map(|part| upload.put_part(part.into()))
        .collect();
    let parts = futures::stream::iter(parts).buffer_unordered(PARTS_AT_ONCE);
    let completed = match parts.try_collect::<()>().await {
        Ok(()) => upload.complete().await.map(|_| ()),
        Err(error) => Err(error),
    };
    if completed.is_err() {
        // Parts of no object cost money in some stores, and nothing else.
        drop(upload.abort().await);
    }
    completed
}
