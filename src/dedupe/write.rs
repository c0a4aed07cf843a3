//! Writes one run, front to back, with a megabyte of memory beside the footer it builds.
//!
//! The file is on no list yet: dropping the writer removes it. Nothing is synced here, because a
//! run that is merged or dropped soon need not be.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::block::{BLOCK_RECORDS, PAGE_BYTES, seal};
use super::disk::{UnlistedFile, failed};
use super::entry::{Entry, encode, prefix, rank};
use super::lock::FolderLock;
use super::run::{Footer, Run, RunId, block_seed, run_path};
use crate::error::{Error, Result};

/// How many bytes are gathered before they are written.
const BUFFER_BYTES: usize = 256 * PAGE_BYTES;

/// A run in the making.
#[derive(Debug)]
pub(super) struct RunWriter {
    id: RunId,
    unlisted: UnlistedFile,
    file: File,
    buffer: Vec<u8>,
    /// Where the open block begins in the buffer.
    block_start: usize,
    /// How many entries the open block holds; it is sealed when the next one comes.
    in_block: usize,
    last: Option<u128>,
    footer: Footer,
}

impl RunWriter {
    /// Begins the file of a run that does not exist yet.
    pub(super) fn create(folder: &Path, id: RunId, lock: &Arc<FolderLock>) -> Result<Self> {
        let path = run_path(folder, id.number);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|cause| failed("create", &path, cause))?;
        let mut buffer = Vec::with_capacity(BUFFER_BYTES + 2 * PAGE_BYTES);
        buffer.extend_from_slice(&id.header());
        Ok(Self {
            id,
            unlisted: UnlistedFile::new(path, Arc::clone(lock)),
            file,
            block_start: buffer.len(),
            buffer,
            in_block: 0,
            last: None,
            footer: Footer::default(),
        })
    }

    /// Adds an entry, whose key must lie above the one before.
    ///
    /// # Errors
    /// Internal when it does not: the caller broke the contract.
    pub(super) fn push(&mut self, entry: &Entry) -> Result<()> {
        let rank = rank(&entry.key);
        if self.last.is_some_and(|last| last >= rank) {
            return Err(Error::internal(format!(
                "keys to be staged are not ascending: {rank:032x} after {:032x}",
                self.last.unwrap_or_default()
            )));
        }
        self.last = Some(rank);
        if self.in_block == BLOCK_RECORDS {
            self.finish_block()?;
        }
        if self.in_block == 0 {
            self.footer.firsts.push(prefix(&entry.key));
            self.footer.filter.start_block();
        }
        self.buffer.extend_from_slice(&encode(entry));
        self.footer.filter.insert(&entry.key);
        self.footer.entries += 1;
        self.in_block += 1;
        Ok(())
    }

    /// Ends the file; of no entries there is no run.
    pub(super) fn finish(mut self) -> Result<Option<(Run, UnlistedFile)>> {
        if self.in_block == 0 {
            return Ok(None);
        }
        self.finish_block()?;
        self.footer.firsts.shrink_to_fit();
        self.footer.filter.shrink();
        self.flush()?;
        let path = self.unlisted.path().to_path_buf();
        let checksum = self.footer.write(self.id, |piece| {
            self.file.write_all(piece).map_err(|cause| failed("write", &path, cause))
        })?;
        let run = Run::written(self.id, path, self.file, self.footer, checksum);
        Ok(Some((run, self.unlisted)))
    }

    fn finish_block(&mut self) -> Result<()> {
        let seed = block_seed(self.id, self.footer.firsts.len() - 1);
        seal(&mut self.buffer, self.block_start, seed);
        self.in_block = 0;
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        self.block_start = self.buffer.len();
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.file
            .write_all(&self.buffer)
            .map_err(|cause| failed("write", self.unlisted.path(), cause))?;
        self.buffer.clear();
        Ok(())
    }
}
