//! A run: an immutable file of entries in ascending order of their keys, each key once.
//!
//! ```text
//! header page | blocks of 4 KiB | first eight key bytes of each block | filters | count | checksum
//! ```
//!
//! Everything behind the blocks is the footer, which is held in memory; a block is read, and its
//! checksum compared, whenever it is touched. Numbers are little-endian. Does not make
//! runs (`super::write`) and does not search them (`super::probe`).

use std::fs::File;
use std::hash::Hasher as _;
use std::io;
use std::path::{Path, PathBuf};

use twox_hash::XxHash3_64;

use super::block::{
    BLOCK_RECORDS, BODY_BYTES, CHECKSUM_BYTES, PAGE_BYTES, checksum, is_sealed, records, seal,
};
use super::disk::{damaged, failed, read_at};
use super::entry::{Record, key_of, prefix};
use super::filter::{FILTER_BYTES, Filter};
use crate::error::Result;

/// How names of run files end.
pub(super) const RUN_SUFFIX: &str = ".run";

/// Marks a run file.
const MAGIC: &[u8; 8] = b"mhkeyrun";

/// The form of run files written here; a manifest of another form lists no run we could read.
const RUN_FORMAT: u32 = 1;

/// Bytes at the end of a footer: the number of entries, then the checksum.
const TAIL_BYTES: usize = 8 + CHECKSUM_BYTES;

/// Which file a run is: its table and its number, given once for the life of the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RunId {
    pub(super) table: u64,
    pub(super) number: u64,
}

impl RunId {
    /// What the checksums of this file are seeded with, before the place is added.
    pub(super) fn seed(self) -> u64 {
        checksum(&self.number.to_le_bytes(), self.table)
    }

    /// The first page of the file.
    pub(super) fn header(self) -> Vec<u8> {
        let mut page = Vec::with_capacity(PAGE_BYTES);
        page.extend_from_slice(MAGIC);
        page.extend_from_slice(&RUN_FORMAT.to_le_bytes());
        page.extend_from_slice(&self.table.to_le_bytes());
        page.extend_from_slice(&self.number.to_le_bytes());
        seal(&mut page, 0, 0);
        page
    }
}

/// The path of the run of this number.
pub(super) fn run_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}{RUN_SUFFIX}"))
}

/// What a run keeps in memory to find its blocks.
#[derive(Debug, Default)]
pub(super) struct Footer {
    /// The first eight bytes of each block's first key.
    pub(super) firsts: Vec<u64>,
    /// The filters of the blocks.
    pub(super) filter: Filter,
    /// How many entries the run holds.
    pub(super) entries: u64,
}

impl Footer {
    /// The footer as stored, in pieces to be written one after the other, its checksum last.
    pub(super) fn write(&self, id: RunId, mut put: impl FnMut(&[u8]) -> Result<()>) -> Result<u64> {
        let firsts: Vec<u8> = self.firsts.iter().flat_map(|first| first.to_le_bytes()).collect();
        let mut checksum = XxHash3_64::with_seed(id.seed());
        for piece in [&firsts, self.filter.as_bytes(), &self.entries.to_le_bytes()] {
            checksum.write(piece);
            put(piece)?;
        }
        let checksum = checksum.finish();
        put(&checksum.to_le_bytes())?;
        Ok(checksum)
    }

    /// Reads a footer of so many blocks, and the checksum stored behind it.
    ///
    /// # Errors
    /// Corrupt when the checksum does not hold.
    fn read(file: &File, path: &Path, id: RunId, blocks: usize) -> Result<(Self, u64)> {
        let filter_at = block_offset(blocks) + 8 * blocks as u64;
        let tail_at = filter_at + (FILTER_BYTES * blocks) as u64;
        let mut firsts = vec![[0; 8]; blocks];
        let mut filter = Filter::of_blocks(blocks);
        let mut tail = [[0; 8]; 2];
        read_at(file, path, firsts.as_flattened_mut(), block_offset(blocks))?;
        read_at(file, path, filter.as_bytes_mut(), filter_at)?;
        read_at(file, path, tail.as_flattened_mut(), tail_at)?;
        let [entries, stored] = tail;
        let mut checksum = XxHash3_64::with_seed(id.seed());
        for piece in [firsts.as_flattened(), filter.as_bytes(), &entries] {
            checksum.write(piece);
        }
        if checksum.finish().to_le_bytes() != stored {
            return Err(damaged(path, "the checksum of its footer does not hold"));
        }
        let firsts = firsts.into_iter().map(u64::from_le_bytes).collect();
        let footer = Self { firsts, filter, entries: u64::from_le_bytes(entries) };
        Ok((footer, u64::from_le_bytes(stored)))
    }
}

/// An open run.
#[derive(Debug)]
pub(super) struct Run {
    id: RunId,
    path: PathBuf,
    file: File,
    footer: Footer,
    checksum: u64,
}

impl Run {
    /// A run that was just written with this footer.
    pub(super) fn written(
        id: RunId,
        path: PathBuf,
        file: File,
        footer: Footer,
        checksum: u64,
    ) -> Self {
        Self { id, path, file, footer, checksum }
    }

    /// Opens the run that a manifest lists with so many entries and this footer checksum.
    ///
    /// # Errors
    /// Corrupt when the file is not that run.
    pub(super) fn open(folder: &Path, id: RunId, entries: u64, listed: u64) -> Result<Self> {
        let path = run_path(folder, id.number);
        let file = File::open(&path).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => damaged(&path, "it is missing"),
            _ => failed("open", &path, cause),
        })?;
        let length = file.metadata().map_err(|cause| failed("read", &path, cause))?.len();
        let blocks = usize::try_from(entries.div_ceil(BLOCK_RECORDS as u64)).ok();
        let blocks =
            blocks.filter(|blocks| file_bytes(*blocks) == Some(length)).ok_or_else(|| {
                damaged(&path, &format!("{length} bytes cannot hold its {entries} entries"))
            })?;
        check_header(&file, &path, id)?;
        let (footer, stored) = Footer::read(&file, &path, id, blocks)?;
        if stored != listed {
            return Err(damaged(&path, "its footer is not the one that the manifest lists"));
        }
        if footer.entries != entries {
            let what = format!("it counts {} entries, not {entries}", footer.entries);
            return Err(damaged(&path, &what));
        }
        Ok(Self { id, path, file, footer, checksum: listed })
    }

    /// Which run this is.
    pub(super) fn id(&self) -> RunId {
        self.id
    }

    /// Where its file lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How many entries it holds.
    pub(super) fn entries(&self) -> u64 {
        self.footer.entries
    }

    /// How many blocks it has.
    pub(super) fn blocks(&self) -> usize {
        self.footer.firsts.len()
    }

    /// What is held in memory.
    pub(super) fn footer(&self) -> &Footer {
        &self.footer
    }

    /// The checksum of its footer.
    pub(super) fn checksum(&self) -> u64 {
        self.checksum
    }

    /// Bytes held in memory.
    pub(super) fn resident_bytes(&self) -> u64 {
        footer_bytes(self.blocks()) as u64
    }

    /// Bytes of its file.
    pub(super) fn disk_bytes(&self) -> u64 {
        block_offset(self.blocks()) + footer_bytes(self.blocks()) as u64
    }

    /// Makes the file durable.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|cause| failed("sync", &self.path, cause))
    }

    /// Reads blocks from `first` on into a buffer, as many as it holds; their records are to be had
    /// through [`Run::checked`].
    pub(super) fn read(&self, first: usize, buffer: &mut [u8]) -> Result<()> {
        read_at(&self.file, &self.path, buffer, block_offset(first))
    }

    /// The records of a block that was read.
    ///
    /// # Errors
    /// Corrupt when it is not what was written there.
    pub(super) fn checked<'a>(&self, block: usize, bytes: &'a [u8]) -> Result<&'a [Record]> {
        if !is_sealed(bytes, block_seed(self.id, block)) {
            let what = format!("the checksum of block {block} does not hold");
            return Err(damaged(&self.path, &what));
        }
        let before = (block * BLOCK_RECORDS) as u64;
        let left = usize::try_from(self.footer.entries.saturating_sub(before));
        let records = records(bytes, left.map_or(BLOCK_RECORDS, |left| left.min(BLOCK_RECORDS)));
        match records.first() {
            Some(record) if prefix(&key_of(record)) == self.footer.firsts[block] => Ok(records),
            _ => Err(damaged(&self.path, &format!("block {block} is not the one its index names"))),
        }
    }
}

/// What the checksum of a block is seeded with.
pub(super) fn block_seed(id: RunId, block: usize) -> u64 {
    id.seed().wrapping_add(1).wrapping_add(block as u64)
}

fn check_header(file: &File, path: &Path, id: RunId) -> Result<()> {
    let mut page = vec![0; PAGE_BYTES];
    read_at(file, path, &mut page, 0)?;
    if !is_sealed(&page, 0) {
        return Err(damaged(path, "the checksum of its header does not hold"));
    }
    if page[..BODY_BYTES] != id.header()[..BODY_BYTES] {
        return Err(damaged(path, "its header is that of another run"));
    }
    Ok(())
}

/// Where a block begins; that of the block after the last is where the footer does.
fn block_offset(block: usize) -> u64 {
    (PAGE_BYTES as u64).saturating_add((block as u64).saturating_mul(PAGE_BYTES as u64))
}

fn footer_bytes(blocks: usize) -> usize {
    blocks * (8 + FILTER_BYTES) + TAIL_BYTES
}

/// The length of a file of so many blocks, unless no file can be that long.
fn file_bytes(blocks: usize) -> Option<u64> {
    let footer = blocks.checked_mul(8 + FILTER_BYTES)?.checked_add(TAIL_BYTES)?;
    block_offset(blocks).checked_add(footer as u64)
}
