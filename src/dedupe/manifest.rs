//! The list of the runs that make up the index, and the table version they stand for.
//!
//! Two lines: a JSON object, then its checksum. The file is replaced in one step, so it is either
//! the one before a change or the one after, and whatever it does not list does not count.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::block::checksum;
use super::disk::{damaged, failed, replace, sync_folder};
use crate::error::{Error, Result};

/// The name of the manifest in its folder.
pub(super) const MANIFEST_NAME: &str = "manifest";

/// The name it is written under before it takes its place.
pub(super) const TEMPORARY_NAME: &str = "manifest.tmp";

/// The form of the folder written here: manifest, runs and hashes.
const FORMAT: u32 = 1;

/// What the index consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: u32,
    /// The id of the table whose keys these are.
    pub(super) table: String,
    /// The highest table version whose keys are in.
    pub(super) applied: Option<u64>,
    /// What tells the commit that made that version from any other; unknown when absent.
    #[serde(default)]
    pub(super) mark: Option<String>,
    /// The runs, oldest first.
    pub(super) runs: Vec<Listed>,
}

/// A run of the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listed {
    pub(super) number: u64,
    pub(super) entries: u64,
    /// The checksum of its footer.
    pub(super) checksum: u64,
}

/// The one member that every form of manifest has.
#[derive(Deserialize)]
struct AnyForm {
    format: u32,
}

/// What was found in a folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// No manifest.
    Nothing,
    /// A manifest of a form that another release writes.
    OtherForm,
    /// A manifest of the present form, of whatever table.
    Manifest(Manifest),
}

impl Manifest {
    /// The manifest of a table with these runs.
    pub(super) fn new(
        table: String,
        applied: Option<u64>,
        mark: Option<String>,
        runs: Vec<Listed>,
    ) -> Self {
        Self { format: FORMAT, table, applied, mark, runs }
    }

    /// Takes a folder's manifest away, so that whoever opens the folder next starts over.
    pub(super) fn withdraw(folder: &Path) -> Result<()> {
        let path = folder.join(MANIFEST_NAME);
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path, cause))
            }
            Ok(()) | Err(_) => sync_folder(folder),
        }
    }

    /// Reads a folder's manifest.
    ///
    /// # Errors
    /// Corrupt when it is not what was written.
    pub(super) fn read(folder: &Path) -> Result<Stored> {
        let path = folder.join(MANIFEST_NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Stored::Nothing),
            Err(cause) => return Err(failed("read", &path, cause)),
        };
        let body = unseal(&bytes).ok_or_else(|| damaged(&path, "its checksum does not hold"))?;
        let unreadable = |cause: serde_json::Error| damaged(&path, &cause.to_string());
        let AnyForm { format } = serde_json::from_slice(body).map_err(unreadable)?;
        if format != FORMAT {
            return Ok(Stored::OtherForm);
        }
        serde_json::from_slice(body).map(Stored::Manifest).map_err(unreadable)
    }

    /// Puts this manifest in place of the folder's.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let body = serde_json::to_vec(self).map_err(|cause| {
            Error::internal("cannot write the key index manifest as JSON").with_source(cause)
        })?;
        replace(&folder.join(MANIFEST_NAME), &folder.join(TEMPORARY_NAME), &sealed(body))
    }
}

fn sealed(mut body: Vec<u8>) -> Vec<u8> {
    let last_line = last_line(&body);
    body.extend_from_slice(last_line.as_bytes());
    body
}

fn unseal(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.len().checked_sub(last_line(&[]).len())?;
    let (body, end) = bytes.split_at(end);
    (end == last_line(body).as_bytes()).then_some(body)
}

fn last_line(body: &[u8]) -> String {
    format!("\n{:016x}\n", checksum(body, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn manifest() -> Manifest {
        let run = Listed { number: 3, entries: 146, checksum: u64::MAX };
        Manifest::new("a \"table\"\n".to_owned(), Some(7), Some("mark".to_owned()), vec![run])
    }

    #[test]
    fn a_manifest_reads_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap(), Stored::Nothing);
        manifest().write(folder.path()).unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap(), Stored::Manifest(manifest()));
        assert!(!folder.path().join(TEMPORARY_NAME).exists());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(MANIFEST_NAME);
        manifest().write(folder.path()).unwrap();
        let good = fs::read(&path).unwrap();
        let flipped = (0..8 * good.len()).map(|bit| {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        });
        for bytes in flipped.chain((0..good.len()).map(|end| good[..end].to_vec())) {
            fs::write(&path, &bytes).unwrap();
            let error = Manifest::read(folder.path()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{bytes:?}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn a_manifest_without_a_mark_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let body = br#"{"format":1,"table":"t","applied":7,"runs":[]}"#;
        fs::write(folder.path().join(MANIFEST_NAME), sealed(body.to_vec())).unwrap();
        let want = Manifest::new("t".to_owned(), Some(7), None, Vec::new());
        assert_eq!(Manifest::read(folder.path()).unwrap(), Stored::Manifest(want));
    }

    #[test]
    fn another_form_is_told_from_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(MANIFEST_NAME);
        fs::write(&path, sealed(br#"{"format":2,"shards":[]}"#.to_vec())).unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap(), Stored::OtherForm);
        fs::write(&path, sealed(br#"{"format":1,"shards":[]}"#.to_vec())).unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
