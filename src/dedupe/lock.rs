//! One process per folder, held by an advisory lock that the system drops when the process ends.
//!
//! The lock file says who holds it, for the one who finds it held. It is never removed: removing
//! it would let two processes lock two files of one name.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use super::disk::failed;
use crate::error::{Error, Result};

/// The name of the lock file in its folder.
pub(super) const LOCK_NAME: &str = "lock";

/// A holder that is just ending, or a process that it has just started and that still shares its
/// open files, is waited for: so often, so long.
const ATTEMPTS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(25);

/// The right to use a folder, until dropped.
#[derive(Debug)]
pub(super) struct FolderLock {
    /// Closing the file gives the lock back.
    _file: File,
}

impl FolderLock {
    /// Locks a folder for this process, which opened it at `opened_at`.
    ///
    /// # Errors
    /// Conflict when it is held, naming the process that does.
    pub(super) fn acquire(folder: &Path, opened_at: &str) -> Result<Self> {
        let path = folder.join(LOCK_NAME);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|cause| failed("open", &path, cause))?;
        let mut attempts = ATTEMPTS;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if attempts > 0 => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => return Err(held(folder, &mut file)),
                Err(TryLockError::Error(cause)) => return Err(failed("lock", &path, cause)),
            }
            attempts -= 1;
        }
        let owner = format!("process {} (since {opened_at})\n", std::process::id());
        file.set_len(0)
            .and_then(|()| file.write_all(owner.as_bytes()))
            .map_err(|cause| failed("write", &path, cause))?;
        Ok(Self { _file: file })
    }
}

fn held(folder: &Path, file: &mut File) -> Error {
    let mut owner = String::new();
    // The holder may be about to write its name; the conflict stands without it.
    let owner = match file.read_to_string(&mut owner) {
        Ok(read) if read > 0 => owner.trim_end(),
        Ok(_) | Err(_) => "another process",
    };
    Error::conflict(format!(
        "key index `{}` is held by {owner}: wait until it ends, or stop it",
        folder.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_second_holder_learns_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::acquire(folder.path(), "2026-10-01T00:00:00Z").unwrap();
        let error = FolderLock::acquire(folder.path(), "later").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let owner = format!("process {} (since 2026-10-01T00:00:00Z)", std::process::id());
        assert!(error.to_string().contains(&owner), "{error}");
        drop(first);
        FolderLock::acquire(folder.path(), "later").unwrap();
    }
}
