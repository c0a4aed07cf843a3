//! The pages of a run file: 4 KiB of records, or the file's header, with a checksum at the end.
//!
//! The checksum is seeded with the file and the page's place in it, so that a page is taken for
//! valid only where it was written.

use twox_hash::XxHash3_64;

use super::entry::{ENTRY_BYTES, Key, Record, key_of, rank};

/// Bytes of a page.
pub(super) const PAGE_BYTES: usize = 4096;

/// Bytes of a page before its checksum.
pub(super) const BODY_BYTES: usize = PAGE_BYTES - CHECKSUM_BYTES;

/// Bytes of a checksum.
pub(super) const CHECKSUM_BYTES: usize = 8;

/// Records of a full block.
pub(super) const BLOCK_RECORDS: usize = BODY_BYTES / ENTRY_BYTES;

/// The checksum of some bytes that belong to the place which `seed` stands for.
pub(super) fn checksum(bytes: &[u8], seed: u64) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, bytes)
}

/// Fills the page that begins at `start` up with zeros and its checksum.
pub(super) fn seal(pages: &mut Vec<u8>, start: usize, seed: u64) {
    pages.resize(start + BODY_BYTES, 0);
    let checksum = checksum(&pages[start..], seed);
    pages.extend_from_slice(&checksum.to_le_bytes());
}

/// Whether bytes end in their checksum.
pub(super) fn is_sealed(bytes: &[u8], seed: u64) -> bool {
    bytes
        .split_last_chunk::<CHECKSUM_BYTES>()
        .is_some_and(|(body, sum)| checksum(body, seed) == u64::from_le_bytes(*sum))
}

/// The first `count` records of a block.
pub(super) fn records(block: &[u8], count: usize) -> &[Record] {
    &block.as_chunks().0[..count]
}

/// The record of a key.
pub(super) fn find<'a>(records: &'a [Record], key: &Key) -> Option<&'a Record> {
    let key = rank(key);
    let at = records.partition_point(|record| rank(&key_of(record)) < key);
    records.get(at).filter(|record| rank(&key_of(record)) == key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedupe::entry::{Entry, encode};
    use crate::dedupe::tests::key;

    #[test]
    fn a_seal_breaks_with_every_bit() {
        let mut page = b"some records".to_vec();
        seal(&mut page, 0, 5);
        assert_eq!(page.len(), PAGE_BYTES);
        assert!(is_sealed(&page, 5));
        assert!(!is_sealed(&page, 6), "another place");
        for bit in 0..8 * PAGE_BYTES {
            page[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_sealed(&page, 5), "bit {bit}");
            page[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn finds_each_record_and_no_other() {
        let mut keys: Vec<_> = (0..BLOCK_RECORDS as u64).map(key).collect();
        keys.sort_unstable();
        let mut page = Vec::new();
        for key in &keys {
            page.extend_from_slice(&encode(&Entry { key: *key, content: 1, date: 2 }));
        }
        seal(&mut page, 0, 0);
        let records = records(&page, BLOCK_RECORDS);
        for key in &keys {
            assert_eq!(find(records, key).map(key_of), Some(*key));
        }
        for absent in (1000..2000).map(key).chain([[0; 16], [0xff; 16]]) {
            assert_eq!(find(records, &absent), None);
        }
    }
}
