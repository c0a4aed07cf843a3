//! Reads a run from front to back, a quarter of a megabyte at a time, every block checked.
//!
//! Gives each entry once and in the order stored; whether that order is right is for [`verify`] to
//! say, and for the writer of whatever the entries go to.

use super::block::{PAGE_BYTES, records};
use super::disk::damaged;
use super::entry::{Entry, decode, rank};
use super::run::Run;
use crate::error::Result;

/// How many blocks are read at once.
const READ_BLOCKS: usize = 64;

/// A place in a run.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    run: &'a Run,
    /// The blocks read last.
    buffer: Vec<u8>,
    /// The block that the cursor is in, counted from the run's first.
    block: usize,
    /// How many records of that block were passed, and how many it has.
    passed: usize,
    records: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor before a run's first entry.
    pub(super) fn new(run: &'a Run) -> Self {
        Self { run, buffer: Vec::new(), block: 0, passed: 0, records: 0 }
    }

    /// The next entry, unless the run is at its end.
    ///
    /// # Errors
    /// Corrupt when the block it lies in is damaged.
    pub(super) fn advance(&mut self) -> Result<Option<Entry>> {
        if self.passed == self.records {
            if self.records > 0 {
                self.block += 1;
            }
            if self.block == self.run.blocks() {
                self.passed = 0;
                self.records = 0;
                return Ok(None);
            }
            self.enter()?;
        }
        let page = page(&self.buffer, self.block);
        let entry = decode(&records(page, self.records)[self.passed]);
        self.passed += 1;
        Ok(Some(entry))
    }

    /// Begins the block that the cursor has come to.
    fn enter(&mut self) -> Result<()> {
        if self.block.is_multiple_of(READ_BLOCKS) {
            let blocks = READ_BLOCKS.min(self.run.blocks() - self.block);
            self.buffer.resize(blocks * PAGE_BYTES, 0);
            self.run.read(self.block, &mut self.buffer)?;
        }
        self.records = self.run.checked(self.block, page(&self.buffer, self.block))?.len();
        self.passed = 0;
        Ok(())
    }
}

fn page(buffer: &[u8], block: usize) -> &[u8] {
    &buffer[block % READ_BLOCKS * PAGE_BYTES..][..PAGE_BYTES]
}

/// Reads a whole run and compares it with its footer.
///
/// # Errors
/// Corrupt when a block is damaged, keys do not ascend, or the footer does not know them.
pub(super) fn verify(run: &Run) -> Result<()> {
    let mut cursor = Cursor::new(run);
    let (mut count, mut last) = (0, None);
    while let Some(entry) = cursor.advance()? {
        let rank = rank(&entry.key);
        if last.is_some_and(|last| last >= rank) {
            return Err(damaged(run.path(), &format!("key {rank:032x} is out of order")));
        }
        if !run.footer().filter.may_contain(cursor.block, &entry.key) {
            return Err(damaged(run.path(), &format!("its filter does not know key {rank:032x}")));
        }
        last = Some(rank);
        count += 1;
    }
    if count != run.entries() {
        let what = format!("it holds {count} entries, not {}", run.entries());
        return Err(damaged(run.path(), &what));
    }
    Ok(())
}
