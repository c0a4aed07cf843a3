//! Which events the lake holds already: an index from an event's identity to what is stored of it.
//!
//! The index is a folder of immutable sorted runs (`run`) with filters in memory (`filter`), and a
//! manifest (`manifest`) that names those which count. New keys are staged as runs before a
//! table commit and applied after it; runs are merged as they add up (`merge`).
//!
//! It is derived state, to be rebuilt from the events at any time, so it never guesses: a file that
//! is not as it was written is reported as [`ErrorKind::Corrupt`] when it is touched, and the caller
//! starts over with [`Index::reset`] or [`Index::clear`]. Damage that a probe or a merge meets also
//! makes the next opening start over. Whenever the process dies, opening gives the index as it was
//! before or after an [`Index::apply`], never a mixture.
//!
//! Does not know tables, commits or events, and does not find duplicates within a batch. Needs 30
//! bytes of disk and not quite two of memory per key; a merge needs the disk of its result beside.

mod block;
mod disk;
mod entry;
mod filter;
mod identity;
mod lock;
mod manifest;
mod merge;
mod probe;
mod run;
mod scan;
mod staged;
#[cfg(test)]
mod tests;
mod write;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub use self::entry::{Entry, Found, Key};
pub use self::identity::{Content, Hasher};
pub use self::staged::StagedRun;

use self::disk::{failed, make_folder, sync_folder};
use self::lock::FolderLock;
use self::manifest::{Listed, Manifest, Stored, TEMPORARY_NAME};
use self::run::{RUN_SUFFIX, Run, RunId, run_path};
use self::write::RunWriter;
use crate::error::{Error, ErrorKind, Result};

/// The keys of one table's events.
///
/// One process per folder: the folder is locked until the index and its staged runs are dropped.
#[derive(Debug)]
pub struct Index {
    folder: PathBuf,
    table_id: String,
    table: u64,
    lock: Arc<FolderLock>,
    applied: Option<u64>,
    mark: Option<String>,
    /// Oldest first: of entries with one key the last counts.
    runs: Vec<Run>,
    next_number: AtomicU64,
    was_reset: bool,
    /// Cleared while the folder changes, so that it stays so if that fails halfway.
    is_sound: bool,
    /// Set once a run turned out damaged; the folder has no manifest then.
    is_damaged: AtomicBool,
}

impl Index {
    /// Opens the index of a table, or makes it where there is none.
    ///
    /// What the folder holds of another table, or in the form of another release, is discarded; see
    /// [`Index::was_reset`]. `opened_at` is the present time as text, for whoever finds the folder
    /// held.
    ///
    /// # Errors
    /// Conflict when another process (or this one, elsewhere) holds the folder, corrupt when the
    /// index is damaged, unavailable when the folder cannot be read or written.
    pub fn open(folder: &Path, table_id: &str, opened_at: &str) -> Result<Self> {
        let lock = enter(folder, opened_at)?;
        match Manifest::read(folder)? {
            Stored::Manifest(manifest) if manifest.table == table_id => {
                remove_unlisted(folder, &manifest)?;
                Self::load(folder, manifest, lock)
            }
            Stored::Manifest(_) | Stored::OtherForm => Self::start(folder, table_id, lock, true),
            // Runs without a manifest tell that there once was one.
            Stored::Nothing => Self::start(folder, table_id, lock, has_runs(folder)?),
        }
    }

    /// Opens the index of a table as an empty one, whatever the folder holds.
    ///
    /// # Errors
    /// As [`Index::open`], but never corrupt.
    pub fn reset(folder: &Path, table_id: &str, opened_at: &str) -> Result<Self> {
        let lock = enter(folder, opened_at)?;
        Self::start(folder, table_id, lock, true)
    }

    /// The highest table version whose keys are in; nothing before the first [`Index::apply`].
    pub fn applied(&self) -> Option<u64> {
        self.applied
    }

    /// What tells the commit of the version applied last from any other; `None` when it is unknown.
    pub fn mark(&self) -> Option<&str> {
        self.mark.as_deref()
    }

    /// Whether a probe or a merge has met damage. The index then refuses all work until it is opened
    /// anew, as an empty one, or cleared.
    pub fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }

    /// Empties the index, whatever its state: no version is applied then. Staged runs stay valid.
    ///
    /// # Errors
    /// Unavailable when the folder cannot be written.
    pub fn clear(&mut self) -> Result<()> {
        self.is_sound = false;
        let former = std::mem::take(&mut self.runs);
        (self.applied, self.mark) = (None, None);
        self.publish()?;
        for run in former {
            // What is left behind is removed when the index is opened next.
            let _ = fs::remove_file(run.path());
        }
        self.is_sound = true;
        self.is_damaged = AtomicBool::new(false);
        Ok(())
    }

    /// Whether opening discarded what the folder held.
    pub fn was_reset(&self) -> bool {
        self.was_reset
    }

    /// How many entries there are. One that a newer entry of its key replaced is counted until a
    /// merge drops it.
    pub fn len(&self) -> u64 {
        self.runs.iter().map(Run::entries).sum()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Bytes of memory the index holds to find its keys.
    pub fn resident_bytes(&self) -> u64 {
        self.runs.iter().map(Run::resident_bytes).sum()
    }

    /// Bytes of the run files that count; staged runs are not among them.
    pub fn disk_bytes(&self) -> u64 {
        self.runs.iter().map(Run::disk_bytes).sum()
    }

    /// Looks for keys, which must ascend (equal ones are fine). The answers are in their order.
    ///
    /// # Errors
    /// Internal when the keys do not ascend, corrupt when a file is damaged, unavailable when one
    /// cannot be read or an earlier [`Index::apply`] failed.
    pub fn probe(&self, sorted_keys: &[Key]) -> Result<Vec<Option<Found>>> {
        self.check_sound()?;
        probe::check_ascending(sorted_keys)?;
        let mut found = vec![None; sorted_keys.len()];
        let mut newest_first = self.runs.iter().rev();
        let probed =
            newest_first.try_for_each(|run| probe::probe_run(run, sorted_keys, &mut found));
        probed.map(|()| found).inspect_err(|error| self.note_damage(error))
    }

    /// Writes entries, whose keys must strictly ascend, to a run that does not count yet.
    ///
    /// Where the index holds one of the keys already, the staged entry replaces it once applied.
    ///
    /// # Errors
    /// Internal when the keys do not ascend, unavailable when the file cannot be written.
    pub fn stage(&self, sorted_unique: impl Iterator<Item = Entry>) -> Result<StagedRun> {
        self.check_sound()?;
        StagedRun::write(self.new_run()?, sorted_unique, &self.lock)
    }

    /// Takes in the keys that a table version added, oldest run first.
    ///
    /// When this returns, they are in for good. A version that is in already changes nothing, and
    /// its runs are dropped. Most calls write little; one that makes a merge due also rewrites runs of
    /// up to the index's size, at less than 100 ns a key.
    ///
    /// # Errors
    /// Invalid when a run was staged elsewhere, unavailable when the folder cannot be written,
    /// corrupt when a run to be merged is damaged. Afterwards the index refuses all work until it is
    /// opened anew, and then holds the version or does not, as [`Index::applied`] tells.
    pub fn apply(&mut self, version: u64, runs: Vec<StagedRun>) -> Result<()> {
        self.apply_commit(version, None, runs)
    }

    /// As [`Index::apply`], and remembers what tells the version's commit from any other.
    ///
    /// # Errors
    /// As there.
    pub fn apply_commit(
        &mut self,
        version: u64,
        mark: Option<&str>,
        runs: Vec<StagedRun>,
    ) -> Result<()> {
        self.check_staged_here(&runs)?;
        if self.applied.is_some_and(|applied| version <= applied) {
            return Ok(());
        }
        self.grow((Some(version), mark), runs)
    }

    /// Takes in some of the keys of the first version to be applied, which need not be held as staged
    /// runs until all of them are there. Until that version is applied the index is not to be relied
    /// on, and is cleared by whoever begins anew.
    ///
    /// # Errors
    /// Internal when a version is applied already; else as [`Index::apply`].
    pub fn apply_part(&mut self, runs: Vec<StagedRun>) -> Result<()> {
        self.check_staged_here(&runs)?;
        if let Some(applied) = self.applied {
            return Err(Error::internal(format!(
                "key index `{}` holds version {applied}: no part can be added",
                self.folder.display()
            )));
        }
        self.grow((None, None), runs)
    }

    /// Reads everything and compares it with its checksums, order, filters and counts.
    ///
    /// # Errors
    /// Corrupt, naming the file.
    pub fn verify(&self) -> Result<()> {
        self.check_sound()?;
        self.runs.iter().try_for_each(scan::verify)
    }

    /// An empty index in place of whatever the folder holds.
    fn start(folder: &Path, table_id: &str, lock: FolderLock, was_reset: bool) -> Result<Self> {
        let manifest = Manifest::new(table_id.to_owned(), None, None, Vec::new());
        manifest.write(folder)?;
        remove_unlisted(folder, &manifest)?;
        Ok(Self { was_reset, ..Self::load(folder, manifest, lock)? })
    }

    /// The index that a manifest describes.
    fn load(folder: &Path, manifest: Manifest, lock: FolderLock) -> Result<Self> {
        let table = identity::table_hash(&manifest.table);
        let open = |listed: &Listed| {
            let id = RunId { table, number: listed.number };
            Run::open(folder, id, listed.entries, listed.checksum)
        };
        let runs = manifest.runs.iter().map(open).collect::<Result<Vec<_>>>()?;
        let last = manifest.runs.iter().map(|listed| listed.number).max().unwrap_or(0);
        Ok(Self {
            folder: folder.to_owned(),
            table_id: manifest.table,
            table,
            lock: Arc::new(lock),
            applied: manifest.applied,
            mark: manifest.mark,
            runs,
            next_number: AtomicU64::new(last + 1),
            was_reset: false,
            is_sound: true,
            is_damaged: AtomicBool::new(false),
        })
    }

    fn check_sound(&self) -> Result<()> {
        if self.is_damaged() {
            return Err(Error::corrupt(format!(
                "key index `{}` is damaged: run the same command again, it is then rebuilt from \
                 the events",
                self.folder.display()
            )));
        }
        if self.is_sound {
            return Ok(());
        }
        Err(Error::unavailable(format!(
            "key index `{}` could not be written earlier: open it anew",
            self.folder.display()
        )))
    }

    fn check_staged_here(&self, runs: &[StagedRun]) -> Result<()> {
        self.check_sound()?;
        if runs.iter().any(|staged| !Arc::ptr_eq(&staged.lock, &self.lock)) {
            return Err(Error::invalid(format!(
                "a run staged elsewhere cannot be applied to key index `{}`",
                self.folder.display()
            )));
        }
        Ok(())
    }

    /// Sees to it that a damaged index is not opened again.
    fn note_damage(&self, error: &Error) {
        if error.kind() == ErrorKind::Corrupt {
            self.is_damaged.store(true, Ordering::Relaxed);
            // If it stays, the damage is met again, and the error has said what to do then.
            drop(Manifest::withdraw(&self.folder));
        }
    }

    fn new_run(&self) -> Result<RunWriter> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        RunWriter::create(&self.folder, RunId { table: self.table, number }, &self.lock)
    }

    /// Takes runs in and merges what is due.
    fn grow(
        &mut self,
        (version, mark): (Option<u64>, Option<&str>),
        runs: Vec<StagedRun>,
    ) -> Result<()> {
        self.is_sound = false;
        self.take_in((version, mark), runs)?;
        let merged = loop {
            match self.merge_step() {
                Ok(true) => {}
                ended => break ended,
            }
        };
        merged.inspect_err(|error| self.note_damage(error))?;
        self.is_sound = true;
        Ok(())
    }

    /// Makes staged runs part of the index, and the version its latest.
    fn take_in(
        &mut self,
        (version, mark): (Option<u64>, Option<&str>),
        staged: Vec<StagedRun>,
    ) -> Result<()> {
        let written: Vec<_> = staged.into_iter().filter_map(|staged| staged.written).collect();
        for (run, _) in &written {
            run.sync()?;
        }
        for (run, file) in written {
            // From here on the manifest may list it, even if writing that fails.
            file.keep();
            self.runs.push(run);
        }
        self.applied = version;
        self.mark = mark.map(str::to_owned);
        self.publish()
    }

    /// Merges what is due to be merged next, and tells whether anything was.
    fn merge_step(&mut self) -> Result<bool> {
        let sizes: Vec<u64> = self.runs.iter().map(Run::entries).collect();
        let Some(from) = merge::merge_from(&sizes) else { return Ok(false) };
        let mut writer = self.new_run()?;
        merge::merge(&self.runs[from..], &mut writer)?;
        let merged = writer.finish()?;
        if let Some((run, _)) = &merged {
            run.sync()?;
        }
        let merged = merged.map(|(run, file)| {
            file.keep();
            run
        });
        let replaced: Vec<Run> = self.runs.splice(from.., merged).collect();
        self.publish()?;
        for run in replaced {
            // What is left behind is removed when the index is opened next.
            let _ = fs::remove_file(run.path());
        }
        Ok(true)
    }

    /// Makes the runs and the version in memory those on disk, in one step.
    fn publish(&self) -> Result<()> {
        sync_folder(&self.folder)?;
        let listed = |run: &Run| Listed {
            number: run.id().number,
            entries: run.entries(),
            checksum: run.checksum(),
        };
        let runs = self.runs.iter().map(listed).collect();
        Manifest::new(self.table_id.clone(), self.applied, self.mark.clone(), runs)
            .write(&self.folder)
    }
}

/// Makes the folder where it is missing, and locks it.
fn enter(folder: &Path, opened_at: &str) -> Result<FolderLock> {
    make_folder(folder)?;
    FolderLock::acquire(folder, opened_at)
}

/// Removes runs that do not count: staged when a process died, or merged since.
fn remove_unlisted(folder: &Path, manifest: &Manifest) -> Result<()> {
    let listed: Vec<PathBuf> =
        manifest.runs.iter().map(|listed| run_path(folder, listed.number)).collect();
    for path in changeable_files(folder)?.into_iter().filter(|path| !listed.contains(path)) {
        fs::remove_file(&path).map_err(|cause| failed("remove", &path, cause))?;
    }
    Ok(())
}

/// The files of ours that may be removed, going by their names.
fn changeable_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let unlisted = |cause| failed("list", folder, cause);
    let mut paths = Vec::new();
    for file in fs::read_dir(folder).map_err(unlisted)? {
        let path = file.map_err(unlisted)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name == TEMPORARY_NAME || name.ends_with(RUN_SUFFIX) {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn has_runs(folder: &Path) -> Result<bool> {
    Ok(changeable_files(folder)?.iter().any(|path| !path.ends_with(TEMPORARY_NAME)))
}
