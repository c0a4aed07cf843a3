//! A local disk as an object store whose answers can be trusted after a power cut.
//!
//! `object_store`'s own local store never calls fsync. Here a put writes to a temporary name beside
//! its target, syncs the file, gives it its name in one step (hard link for create, rename for
//! overwrite) and syncs the folder; only then does it answer. That a name is taken is answered only
//! once the file of that name is on disk, too. Temporary names end in `#<digits>`, which listings
//! leave out.
//!
//! Listings come in the order of their paths, as cloud stores give them and the Delta kernel expects
//! them. Reads and deletions are those of [`LocalFileSystem`]. A file system without hard links
//! is refused for create: the only substitute would show readers half-written files.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result, UploadPart,
};

const NAME: &str = "DurableLocal";

/// The local file system, with puts that are on disk when they return.
#[derive(Debug, Clone)]
pub struct DurableLocal {
    inner: Arc<LocalFileSystem>,
    settled: Arc<Folders>,
    /// Makes the names in a folder durable.
    sync_names: SyncNames,
}

type SyncNames = fn(&FsPath) -> io::Result<()>;

impl DurableLocal {
    /// Wraps a local store; its prefix, if it has one, is kept.
    pub fn new(inner: LocalFileSystem) -> Self {
        Self { inner: Arc::new(inner), settled: Arc::default(), sync_names: sync_folder }
    }
}

impl fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NAME}({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let naming = match opts.mode {
            PutMode::Create => Naming::Create,
            PutMode::Overwrite => Naming::Overwrite,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented {
                    operation: "`put_opts` with mode `PutMode::Update`".into(),
                    implementer: NAME.into(),
                });
            }
        };
        let target = self.inner.path_to_filesystem(location)?;
        let (settled, sync_names) = (Arc::clone(&self.settled), self.sync_names);
        blocking(move || {
            let mut staged = Staged::create(target, &settled, sync_names)?;
            let written = payload.iter().try_for_each(|chunk| staged.file.write_all(chunk));
            written.map_err(|error| at(&staged.target, error))?;
            staged.publish(naming)
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let target = self.inner.path_to_filesystem(location)?;
        let (settled, sync_names) = (Arc::clone(&self.settled), self.sync_names);
        let staged = blocking(move || Staged::create(target, &settled, sync_names)).await?;
        Ok(Box::new(Upload { staged: Arc::new(Mutex::new(Some(staged))), offset: 0 }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        in_order(self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        in_order(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let mode = match options.mode {
            CopyMode::Create => PutMode::Create,
            CopyMode::Overwrite => PutMode::Overwrite,
        };
        let content = self.inner.get(from).await?.bytes().await?;
        self.put_opts(to, content.into(), mode.into()).await.map(|_| ())
    }
}

/// Files below `folder` that a writer has left under their temporary names and not touched for
/// `age`. Listings do not show them.
pub(super) fn left_behind(folder: &FsPath, age: Duration) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && is_temporary(&entry.path()) {
                let changed = entry.metadata().and_then(|metadata| metadata.modified());
                let idle = changed.ok().and_then(|changed| changed.elapsed().ok());
                found.extend(idle.filter(|idle| *idle >= age).map(|_| entry.path()));
            }
        }
    }
    Ok(found)
}

fn is_temporary(path: &FsPath) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.rsplit_once('#').is_some_and(|(_, digits)| {
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// How a staged file gets its name.
#[derive(Debug, Clone, Copy)]
enum Naming {
    /// Refused when the name is taken.
    Create,
    /// Takes the name's place.
    Overwrite,
}

/// A file under its temporary name. Dropped without [`Staged::publish`], it is removed.
#[derive(Debug)]
struct Staged {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    sync_names: SyncNames,
}

impl Staged {
    fn create(target: PathBuf, settled: &Folders, sync_names: SyncNames) -> Result<Self> {
        let folder = folder_of(&target)?;
        settled.ensure(folder).map_err(|error| at(folder, error))?;
        loop {
            let temporary = temporary_name(&target);
            match File::options().write(true).create_new(true).open(&temporary) {
                Ok(file) => return Ok(Self { file, temporary, target, sync_names }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                // Somebody removed the folder after this process had seen it.
                Err(error) if error.kind() == ErrorKind::NotFound && settled.forget(folder) => {
                    settled.ensure(folder).map_err(|error| at(folder, error))?;
                }
                Err(error) => return Err(at(&temporary, error)),
            }
        }
    }

    /// Syncs the content, then the name. After an error the name may or may not be there.
    fn publish(self, naming: Naming) -> Result<PutResult> {
        self.file.sync_all().map_err(|error| at(&self.target, error))?;
        let named = match naming {
            Naming::Create => fs::hard_link(&self.temporary, &self.target),
            Naming::Overwrite => fs::rename(&self.temporary, &self.target),
        };
        match named {
            Ok(()) => self.settle_name()?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // Whoever created it may have died before it was on disk, or been told that it is
                // not: whoever hears that it is there relies on it.
                let existing = File::open(&self.target).and_then(|file| file.sync_all());
                existing.map_err(|error| at(&self.target, error))?;
                self.settle_name()?;
                return Err(at(&self.target, error));
            }
            Err(error) => return Err(self.naming_error(naming, error)),
        }
        Ok(PutResult { e_tag: None, version: None })
    }

    fn settle_name(&self) -> Result<()> {
        remove_quietly(&self.temporary);
        let folder = folder_of(&self.target)?;
        (self.sync_names)(folder).map_err(|error| at(folder, error))
    }

    fn naming_error(&self, naming: Naming, error: io::Error) -> Error {
        let no_hard_links =
            matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied);
        match naming {
            // The file was just written here, so it is the link that is not permitted.
            Naming::Create if no_hard_links => Error::NotSupported {
                source: format!(
                    "cannot create {}: its file system has no hard links ({error})",
                    self.target.display()
                )
                .into(),
            },
            Naming::Create | Naming::Overwrite => at(&self.target, error),
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        remove_quietly(&self.temporary);
    }
}

/// A file that grows part by part; the parts may be written in any order.
#[derive(Debug)]
struct Upload {
    staged: Arc<Mutex<Option<Staged>>>,
    offset: u64,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let offset = self.offset;
        self.offset += u64::try_from(data.content_length()).unwrap_or(u64::MAX);
        let staged = Arc::clone(&self.staged);
        Box::pin(blocking(move || {
            let mut slot = locked(&staged);
            let staged = slot.as_mut().ok_or_else(finished)?;
            let mut file = &staged.file;
            file.seek(SeekFrom::Start(offset))
                .and_then(|_| data.iter().try_for_each(|chunk| file.write_all(chunk)))
                .map_err(|error| at(&staged.target, error))
        }))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let staged = locked(&self.staged).take().ok_or_else(finished)?;
        blocking(move || staged.publish(Naming::Overwrite)).await
    }

    async fn abort(&mut self) -> Result<()> {
        drop(locked(&self.staged).take());
        Ok(())
    }
}

/// The folders whose own names this process knows to be on disk.
#[derive(Debug, Default)]
struct Folders(Mutex<HashSet<PathBuf>>);

impl Folders {
    /// Makes `folder` and what is missing above it, and syncs the names of all of them.
    fn ensure(&self, folder: &FsPath) -> io::Result<()> {
        if locked(&self.0).contains(folder) {
            return Ok(());
        }
        if let Some(parent) = folder.parent() {
            self.ensure(parent)?;
            match fs::create_dir(folder) {
                Ok(()) => sync_folder(parent)?,
                // Another process may have made it a moment ago without having synced it yet.
                // Above the lake we may lack the right to do so, and then did not make it either.
                Err(_) if folder.is_dir() => drop(sync_folder(parent)),
                Err(error) => return Err(error),
            }
        }
        locked(&self.0).insert(folder.to_path_buf());
        Ok(())
    }

    /// Whether `folder` was known; it and the folders above it are looked at anew.
    fn forget(&self, folder: &FsPath) -> bool {
        let mut known = locked(&self.0);
        let was_known = known.contains(folder);
        known.retain(|other| !folder.starts_with(other));
        was_known
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}

fn in_order(
    listed: BoxStream<'static, Result<ObjectMeta>>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let sorted = async move {
        let mut objects: Vec<ObjectMeta> = listed.try_collect().await?;
        objects.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        Ok::<_, Error>(stream::iter(objects.into_iter().map(Ok)))
    };
    stream::once(sorted).try_flatten().boxed()
}

/// `<target>#<digits>`, unique among the processes and threads that write to the folder.
fn temporary_name(target: &FsPath) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = target.as_os_str().to_owned();
    name.push(format!("#{}{:09}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    PathBuf::from(name)
}

fn folder_of(target: &FsPath) -> Result<&FsPath> {
    target.parent().ok_or_else(|| at(target, io::Error::from(ErrorKind::InvalidInput)))
}

fn sync_folder(folder: &FsPath) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn remove_quietly(path: &FsPath) {
    // Nothing depends on it: listings do not show temporary names.
    drop(fs::remove_file(path));
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn finished() -> Error {
    Error::Generic { store: NAME, source: "the upload was completed or aborted before".into() }
}

/// The store's error for what the system said about `path`.
fn at(path: &FsPath, error: io::Error) -> Error {
    let text = path.display().to_string();
    match error.kind() {
        ErrorKind::AlreadyExists => Error::AlreadyExists { path: text, source: error.into() },
        ErrorKind::NotFound => Error::NotFound { path: text, source: error.into() },
        ErrorKind::PermissionDenied => Error::PermissionDenied { path: text, source: error.into() },
        _ => Error::Generic { store: NAME, source: format!("{text}: {error}").into() },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::AtomicU32;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::lake::commit::Commit;
    use crate::lake::location::{Location, Namespace};
    use crate::lake::table::Table;

    /// How many more syncs of a log's folder fail. Of one test, as it is one for the process.
    static FAILURES: AtomicU32 = AtomicU32::new(0);

    fn sync_or_fail(folder: &FsPath) -> io::Result<()> {
        let due = |left: u32| left.checked_sub(1).filter(|_| folder.ends_with("_delta_log"));
        match FAILURES.fetch_update(Ordering::SeqCst, Ordering::SeqCst, due) {
            Ok(_) => Err(io::Error::other("the disk is gone")),
            Err(_) => sync_folder(folder),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_commit_counts_once_its_name_is_on_disk() {
        for (name, failures, is_committed) in
            [("sound", 0, true), ("once", 1, true), ("for good", u32::MAX, false)]
        {
            let folder = tempfile::tempdir().unwrap();
            let location = Location::parse(folder.path().to_str().unwrap()).unwrap();
            let sound = DurableLocal::new(LocalFileSystem::new());
            let location =
                location.with_store(Arc::new(DurableLocal { sync_names: sync_or_fail, ..sound }));
            let schema = Schema::new(vec![Field::new("n", DataType::Int64, true)]);
            let namespace = Namespace::default();
            FAILURES.store(0, Ordering::SeqCst);
            let table =
                Table::create(&location, &namespace, "t", &schema, &[], &BTreeMap::new()).await;
            FAILURES.store(failures, Ordering::SeqCst);
            let committed = table.unwrap().append(Commit::default()).await;
            match committed {
                Ok(snapshot) => assert!(is_committed && snapshot.version == 1, "{name}"),
                Err(error) => {
                    assert!(!is_committed, "{name}: {error}");
                    assert_eq!(error.kind(), crate::error::ErrorKind::Unavailable, "{name}");
                    assert!(error.to_string().contains("the disk is gone"), "{name}: {error}");
                }
            }
        }
    }
}
