//! Tells for most absent keys that a block does not hold them, without reading it.
//!
//! A Bloom filter (Bloom, 1970) of 256 bytes for every block of the run: 14 bits for each key of a
//! full block, five of them set, so 0.24 % of absent keys pass. As filters lie in the order of the
//! blocks, sorted probes walk memory forwards, and a run's filter grows while the run is written.

use super::entry::Key;

/// Bytes of one block's filter.
pub(super) const FILTER_BYTES: usize = 256;

/// The filters of a run, in the order of its blocks.
#[derive(Debug, Default)]
pub(super) struct Filter(Vec<[u8; FILTER_BYTES]>);

impl Filter {
    /// Filters of so many blocks, to be read into.
    pub(super) fn of_blocks(blocks: usize) -> Self {
        Self(vec![[0; FILTER_BYTES]; blocks])
    }

    /// The filters as they are stored.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_flattened()
    }

    /// The filters as they are stored, to be read into.
    pub(super) fn as_bytes_mut(&mut self) -> &mut [u8] {
        self.0.as_flattened_mut()
    }

    /// Begins the next block.
    pub(super) fn start_block(&mut self) {
        self.0.push([0; FILTER_BYTES]);
    }

    /// Puts a key into the block begun last.
    pub(super) fn insert(&mut self, key: &Key) {
        if let Some(block) = self.0.last_mut() {
            for (byte, mask) in places(key) {
                block[byte] |= mask;
            }
        }
    }

    /// Whether the block may hold the key; `false` is certain.
    pub(super) fn may_contain(&self, block: usize, key: &Key) -> bool {
        let filter = &self.0[block];
        places(key).all(|(byte, mask)| filter[byte] & mask != 0)
    }

    /// Gives back memory kept for growing.
    pub(super) fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }
}

/// The places of a key's bits: of each pair of bytes one picks the byte, the other the bit.
///
/// The first six bytes are left out, because the keys of one block share most of their bits.
fn places(key: &Key) -> impl Iterator<Item = (usize, u8)> {
    key[6..].as_chunks().0.iter().map(|[byte, bit]| (usize::from(*byte), 1 << (bit & 7)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedupe::tests::key;

    #[test]
    fn holds_what_was_put_in_and_little_else() {
        let mut filter = Filter::default();
        let per_block = 146;
        for i in 0..10 * per_block {
            if i % per_block == 0 {
                filter.start_block();
            }
            filter.insert(&key(i));
        }
        let mut read = Filter::of_blocks(10);
        read.as_bytes_mut().copy_from_slice(filter.as_bytes());
        let at = |i: u64| usize::try_from(i / per_block % 10).unwrap();
        assert!((0..10 * per_block).all(|i| read.may_contain(at(i), &key(i))));
        let absent = 100_000;
        let passed = (absent..2 * absent).filter(|i| read.may_contain(at(*i), &key(*i))).count();
        assert!(passed < 400, "{passed} of {absent} absent keys passed");
    }
}
