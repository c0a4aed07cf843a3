//! A run that was written but does not count yet.

use std::sync::Arc;

use super::disk::UnlistedFile;
use super::entry::{Entry, Found, Key};
use super::lock::FolderLock;
use super::probe::{PROBE_KEYS, check_ascending, probe_run};
use super::run::Run;
use super::scan::Cursor;
use super::write::RunWriter;
use crate::error::Result;

/// Entries on disk that are not part of the index until [`super::Index::apply`] takes them in.
///
/// Dropping it removes its file. It keeps the folder locked, and a file open.
#[derive(Debug)]
pub struct StagedRun {
    /// Nothing where there were no entries.
    pub(super) written: Option<(Run, UnlistedFile)>,
    pub(super) lock: Arc<FolderLock>,
}

impl StagedRun {
    /// Writes entries as a run.
    pub(super) fn write(
        mut writer: RunWriter,
        entries: impl Iterator<Item = Entry>,
        lock: &Arc<FolderLock>,
    ) -> Result<Self> {
        for entry in entries {
            writer.push(&entry)?;
        }
        Ok(Self { written: writer.finish()?, lock: Arc::clone(lock) })
    }

    /// How many entries it holds.
    pub fn len(&self) -> u64 {
        self.written.as_ref().map_or(0, |(run, _)| run.entries())
    }

    /// Whether it holds no entries.
    pub fn is_empty(&self) -> bool {
        self.written.is_none()
    }

    /// Gives its keys in order to `take`, as many at a time as are probed at a time.
    ///
    /// # Errors
    /// Corrupt when the run is damaged, and those of `take`.
    pub fn each_group(&self, mut take: impl FnMut(&[Key]) -> Result<()>) -> Result<()> {
        let Some((run, _)) = &self.written else { return Ok(()) };
        let (mut cursor, mut keys) = (Cursor::new(run), Vec::new());
        while let Some(entry) = cursor.advance()? {
            keys.push(entry.key);
            if keys.len() == PROBE_KEYS {
                take(&keys)?;
                keys.clear();
            }
        }
        if keys.is_empty() { Ok(()) } else { take(&keys) }
    }

    /// Looks for keys in this run, as [`super::Index::probe`] does in the index.
    ///
    /// # Errors
    /// As there.
    pub fn probe(&self, sorted_keys: &[Key]) -> Result<Vec<Option<Found>>> {
        check_ascending(sorted_keys)?;
        let mut found = vec![None; sorted_keys.len()];
        if let Some((run, _)) = &self.written {
            probe_run(run, sorted_keys, &mut found)?;
        }
        Ok(found)
    }
}
