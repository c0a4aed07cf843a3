//! Checksums of a data file, block by block, so that a wrong bit is an error and never a number.
//!
//! They lie between the pages and the footer of a Parquet file, where no reader looks for anything: its
//! footer names the place of all else, and is itself found from the end.
//!
//! ```text
//! pages, filters, indexes │ checksum of each 16 KiB before │ of the footer │ how many blocks │ of this table │ name │ footer
//! ```
//!
//! All numbers have 32 bits, the least byte first; checksums are CRC-32 as gzip has it. The footer says that
//! there is such a table. A file whose footer does not, as another program or an older version wrote it, is
//! read as it is.

use std::ops::Range;

use bytes::Bytes;

/// Bytes of a block: what is read at least, and four bytes of checksum for each.
const BLOCK: usize = 16 << 10;
pub(super) const BLOCK_BYTES: u64 = BLOCK as u64;
/// How a table of checksums ends.
const NAME: &[u8; 8] = b"MHcrc32\x0f";
/// Under what a footer says that there are checksums: none is lost unseen with a few bytes of a table.
pub(super) const WITNESS: &str = "meterhouse.checksums";
/// Bytes of a table beside those for its blocks.
const FIXED_BYTES: u64 = 12 + NAME.len() as u64;
/// The length of the footer, in four bytes, and `PAR1`.
const TRAILER_BYTES: usize = 8;

/// The content of a file is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged;

/// The checksums of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksums {
    /// Of each block of the bytes before the table; none where the file has no table.
    blocks: Vec<u32>,
    footer: u32,
    /// Bytes before the table.
    covered: u64,
    /// Where the footer begins; the end of the file where it has no table.
    footer_start: u64,
    /// Bytes of the file.
    size: u64,
}

/// A file that a Parquet writer has finished, with its checksums; any other content as it is.
pub(super) fn with_checksums(mut file: Vec<u8>) -> Vec<u8> {
    let Some(covered) = footer_start(&file, file.len() as u64) else { return file };
    let footer = file.split_off(usize::try_from(covered).unwrap_or(file.len()));
    let mut table: Vec<u8> = Vec::new();
    let blocks = file.chunks(BLOCK).map(crc32fast::hash);
    table.extend(blocks.flat_map(u32::to_le_bytes));
    let count = u32::try_from(table.len() / 4).unwrap_or(u32::MAX);
    table.extend(crc32fast::hash(&footer).to_le_bytes());
    table.extend(count.to_le_bytes());
    table.extend(crc32fast::hash(&table).to_le_bytes());
    file.reserve_exact(table.len() + NAME.len() + footer.len());
    file.extend(table);
    file.extend(NAME);
    file.extend(footer);
    file
}

/// Where the footer of a file of `size` bytes begins, of which `tail` are the last.
fn footer_start(tail: &[u8], size: u64) -> Option<u64> {
    let trailer = tail.last_chunk::<TRAILER_BYTES>().filter(|end| end.ends_with(b"PAR1"))?;
    let length = u64::from(u32::from_le_bytes([trailer[0], trailer[1], trailer[2], trailer[3]]));
    size.checked_sub(length + TRAILER_BYTES as u64)
}

/// What the end of a file tells of its checksums.
#[derive(Debug)]
pub(super) enum Found {
    /// That so many bytes of the end are needed to tell.
    Beyond(u64),
    /// All of them.
    All(Checksums),
}

impl Checksums {
    /// Reads them from the last bytes of a file of `size` bytes.
    pub(super) fn find(tail: &[u8], size: u64) -> Result<Found, Damaged> {
        let none = Self { blocks: Vec::new(), footer: 0, covered: 0, footer_start: size, size };
        let held = tail.len() as u64;
        // What has no footer is no Parquet file any more.
        let footer_start = footer_start(tail, size).ok_or(Damaged)?;
        let Some(fixed_start) = footer_start.checked_sub(FIXED_BYTES) else {
            return Ok(Found::All(none));
        };
        if size - fixed_start > held {
            return Ok(Found::Beyond(size - fixed_start));
        }
        let bytes = |range: Range<u64>| {
            let at = |place: u64| usize::try_from(place - (size - held)).ok();
            tail.get(at(range.start)?..at(range.end)?)
        };
        let fixed = bytes(fixed_start..footer_start).unwrap_or_default();
        let Some(numbers) = fixed.strip_suffix(NAME.as_slice()) else {
            let footer = bytes(footer_start..size).unwrap_or_default();
            let is_told = footer.windows(WITNESS.len()).any(|part| part == WITNESS.as_bytes());
            return if is_told { Err(Damaged) } else { Ok(Found::All(none)) };
        };
        let numbers: Vec<u32> = numbers_of(numbers).collect();
        let &[footer, count, of_table] = numbers.as_slice() else { return Err(Damaged) };
        let covered = fixed_start.checked_sub(4 * u64::from(count)).ok_or(Damaged)?;
        if covered.div_ceil(BLOCK_BYTES) != u64::from(count) {
            return Err(Damaged);
        }
        if size - covered > held {
            return Ok(Found::Beyond(size - covered));
        }
        let table = bytes(covered..fixed_start + 8).unwrap_or_default();
        if crc32fast::hash(table) != of_table {
            return Err(Damaged);
        }
        let blocks = numbers_of(table).take(count as usize).collect();
        Ok(Found::All(Self { blocks, footer, covered, footer_start, size }))
    }

    /// The bytes that must be read to check those of a range.
    pub(super) fn around(&self, range: &Range<u64>) -> Range<u64> {
        let start = match range.start < self.covered {
            true => range.start / BLOCK_BYTES * BLOCK_BYTES,
            false => range.start.min(self.footer_start),
        };
        let end = match range.end {
            end if end > self.footer_start => self.size,
            end if end <= self.covered => end.next_multiple_of(BLOCK_BYTES).min(self.covered),
            end => end,
        };
        start..end
    }

    /// Whether the bytes that lie `around` a range are those that were written.
    pub(super) fn check(&self, around: &Range<u64>, bytes: &[u8]) -> Result<(), Damaged> {
        if bytes.len() as u64 != around.end - around.start {
            return Err(Damaged);
        }
        let of = |range: Range<u64>| {
            let at = |place: u64| usize::try_from(place.checked_sub(around.start)?).ok();
            bytes.get(at(range.start)?..at(range.end)?)
        };
        let first = around.start.div_ceil(BLOCK_BYTES);
        let blocks = usize::try_from(first).ok().and_then(|first| self.blocks.get(first..));
        for (sum, at) in blocks.unwrap_or_default().iter().zip(first..) {
            let start = at * BLOCK_BYTES;
            if start >= around.end.min(self.covered) {
                break;
            }
            let block = of(start..(start + BLOCK_BYTES).min(self.covered)).ok_or(Damaged)?;
            if crc32fast::hash(block) != *sum {
                return Err(Damaged);
            }
        }
        if !self.blocks.is_empty() && around.end > self.footer_start {
            let footer = of(self.footer_start..self.size).ok_or(Damaged)?;
            if crc32fast::hash(footer) != self.footer {
                return Err(Damaged);
            }
        }
        Ok(())
    }

    /// Bytes that they take in memory.
    pub fn memory_size(&self) -> usize {
        size_of::<Self>() + self.blocks.len() * size_of::<u32>()
    }
}

fn numbers_of(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|four| u32::from_le_bytes(*four))
}

/// The part of some bytes that a range asks for.
pub(super) fn part(bytes: &Bytes, around: &Range<u64>, range: &Range<u64>) -> Option<Bytes> {
    let at = |place: u64| usize::try_from(place.checked_sub(around.start)?).ok();
    let (start, end) = (at(range.start)?, at(range.end)?);
    (start <= end && end <= bytes.len()).then(|| bytes.slice(start..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a Parquet writer might give: bytes, a footer, its length and `PAR1`.
    fn file(pages: usize, footer: usize) -> Vec<u8> {
        let mut file: Vec<u8> = (0..=250).cycle().take(pages + footer).collect();
        if footer > WITNESS.len() {
            file.truncate(pages + footer - WITNESS.len());
            file.extend(WITNESS.as_bytes());
        }
        file.extend(u32::try_from(footer).unwrap().to_le_bytes());
        file.extend(b"PAR1");
        file
    }

    fn place(at: u64) -> usize {
        usize::try_from(at).unwrap()
    }

    fn found(file: &[u8]) -> Result<Checksums, Damaged> {
        let size = file.len() as u64;
        let mut held = TRAILER_BYTES as u64;
        loop {
            match Checksums::find(&file[place(size - held)..], size)? {
                Found::All(sums) => return Ok(sums),
                Found::Beyond(more) => {
                    assert!(more > held && more <= size, "{more} of {size}");
                    held = more;
                }
            }
        }
    }

    /// Reads a range as whoever checks it would.
    fn read(file: &[u8], sums: &Checksums, range: Range<u64>) -> Result<Bytes, Damaged> {
        let around = sums.around(&range);
        assert!(around.start <= range.start && range.end <= around.end, "{around:?} of {range:?}");
        let bytes = Bytes::copy_from_slice(&file[place(around.start)..place(around.end)]);
        sums.check(&around, &bytes)?;
        part(&bytes, &around, &range).ok_or(Damaged)
    }

    #[test]
    fn every_bit_of_a_file_is_checked_by_whoever_reads_it() {
        let block = BLOCK;
        for pages in [4, block, block + 1, 3 * block + 700] {
            let plain = file(pages, 90);
            let written = with_checksums(plain.clone());
            let sums = found(&written).unwrap();
            assert_eq!(sums.blocks.len(), pages.div_ceil(block));
            let footer_start = sums.footer_start;
            assert_eq!(&written[place(footer_start)..], &plain[pages..]);
            let size = written.len() as u64;
            let ranges = [0..pages as u64, footer_start..size, 0..size, 3..4, size - 8..size];
            for range in &ranges {
                let want = &written[place(range.start)..place(range.end)];
                assert_eq!(read(&written, &sums, range.clone()), Ok(Bytes::copy_from_slice(want)));
            }
            for at in (0..written.len()).step_by(if pages > 100 { 97 } else { 1 }) {
                let mut wrong = written.clone();
                wrong[at] ^= 1 << (at % 8);
                let said = found(&wrong);
                let in_table = (pages..place(footer_start)).contains(&at);
                let Ok(of_wrong) = said else { continue };
                // With another length of its footer it is no Parquet file that anybody reads.
                if of_wrong.blocks.is_empty() {
                    let length = written.len() - TRAILER_BYTES..written.len() - 4;
                    assert!(length.contains(&at), "{at} of {pages}");
                    continue;
                }
                assert!(!in_table, "{at} of {pages}");
                let bit = at as u64;
                let around = bit.saturating_sub(5)..(bit + 5).min(size);
                assert_eq!(read(&wrong, &of_wrong, around), Err(Damaged), "{at} of {pages}");
                assert_eq!(read(&wrong, &of_wrong, 0..size), Err(Damaged), "{at} of {pages}");
            }
        }
    }

    #[test]
    fn a_file_without_checksums_is_read_as_it_is() {
        for plain in [file(40_000, 20), file(3, 5)] {
            let sums = found_or_short(&plain);
            assert!(sums.blocks.is_empty());
            let size = plain.len() as u64;
            assert_eq!(read(&plain, &sums, 1..size).unwrap(), plain[1..]);
        }
        assert_eq!(with_checksums(b"short".to_vec()), b"short");
        for none in [&b"no Parquet"[..], b"PAR1"] {
            assert_eq!(Checksums::find(none, none.len() as u64).unwrap_err(), Damaged);
        }
    }

    fn found_or_short(file: &[u8]) -> Checksums {
        match Checksums::find(file, file.len() as u64) {
            Ok(Found::All(sums)) => sums,
            other => panic!("{other:?}"),
        }
    }
}
