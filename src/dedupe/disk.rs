//! The few acts on files that durability rests on, with errors that name the file.
//!
//! A file counts as there after it was synced, then its folder. Whatever could not be done is
//! [`ErrorKind::Unavailable`](crate::error::ErrorKind::Unavailable); whatever was done and does not
//! hold what it should is [`ErrorKind::Corrupt`](crate::error::ErrorKind::Corrupt).

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::lock::FolderLock;
use crate::error::{Error, Result};

/// The failure of an act on a file or folder.
pub(super) fn failed(act: &str, path: &Path, cause: io::Error) -> Error {
    Error::unavailable(format!("cannot {act} `{}`: {cause}", path.display())).with_source(cause)
}

/// A file of the index that does not hold what it should.
pub(super) fn damaged(path: &Path, what: &str) -> Error {
    let folder = path.parent().unwrap_or(path).display();
    Error::corrupt(format!(
        "key index file `{}` is damaged: {what}; run the same command again, the index is then \
         rebuilt from the events (if that does not help, remove `{folder}` first)",
        path.display()
    ))
}

/// Fills `buffer` from a place in a file, without moving the file's position.
///
/// # Errors
/// Corrupt when the file ends before, unavailable when it cannot be read.
pub(super) fn read_at(file: &File, path: &Path, buffer: &mut [u8], offset: u64) -> Result<()> {
    file.read_exact_at(buffer, offset).map_err(|cause| match cause.kind() {
        io::ErrorKind::UnexpectedEof => damaged(
            path,
            &format!("it ends before byte {}", offset.saturating_add(buffer.len() as u64)),
        ),
        _ => failed("read", path, cause),
    })
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|cause| failed("sync folder", folder, cause))
}

/// Makes a folder and what is missing above it, and makes their names durable.
pub(super) fn make_folder(folder: &Path) -> Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|above| !above.exists()).collect();
    fs::create_dir_all(folder).map_err(|cause| failed("create folder", folder, cause))?;
    let above = missing.into_iter().filter_map(Path::parent);
    // The parent of a relative path of one part is where we are.
    above
        .map(|parent| if parent == Path::new("") { Path::new(".") } else { parent })
        .try_for_each(sync_folder)
}

/// Puts a file in place of another in one step: readers and crashes see the old or the new.
pub(super) fn replace(path: &Path, temporary: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create(temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(temporary, path)
    };
    write().map_err(|cause| failed("write", path, cause))?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// A file that no manifest lists yet: it is removed when dropped, unless kept.
///
/// Holds the folder's lock, so that the file of that name is still this one.
#[derive(Debug)]
pub(super) struct UnlistedFile {
    path: PathBuf,
    _lock: Arc<FolderLock>,
    kept: bool,
}

impl UnlistedFile {
    /// A file that is about to be made at `path`.
    pub(super) fn new(path: PathBuf, lock: Arc<FolderLock>) -> Self {
        Self { path, _lock: lock, kept: false }
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the file in place.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for UnlistedFile {
    fn drop(&mut self) {
        if !self.kept {
            // What is left behind is removed when the index is opened next.
            let _ = fs::remove_file(&self.path);
        }
    }
}
