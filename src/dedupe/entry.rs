//! What the index remembers of an event, and its form of 28 bytes on disk.

/// Bytes of an entry on disk: key, content (little-endian), date (little-endian).
pub(super) const ENTRY_BYTES: usize = 28;

/// An entry as it lies in a block.
pub(super) type Record = [u8; ENTRY_BYTES];

/// The 16-byte keyed hash of an event's identity, see [`super::Hasher::identity`].
///
/// Keys are taken to be uniform: the filters read their bits from them.
pub type Key = [u8; 16];

/// An event that the lake holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Hash of the event's identity.
    pub key: Key,
    /// Hash of the row as stored, see [`super::Content`].
    pub content: u64,
    /// The partition that holds the row, in days since 1970-01-01.
    pub date: i32,
}

/// What a probe tells of a key that is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Hash of the row as stored.
    pub content: u64,
    /// The partition that holds the row, in days since 1970-01-01.
    pub date: i32,
}

/// The key as a number, which orders as its bytes do and compares faster.
pub(super) fn rank(key: &Key) -> u128 {
    u128::from_be_bytes(*key)
}

/// The first eight bytes of a key as a number, ordered as the bytes are.
pub(super) fn prefix(key: &Key) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&key[..8]);
    u64::from_be_bytes(bytes)
}

/// The key of a record.
pub(super) fn key_of(record: &Record) -> Key {
    let mut key = [0; 16];
    key.copy_from_slice(&record[..16]);
    key
}

/// A record of an entry.
pub(super) fn encode(entry: &Entry) -> Record {
    let mut record = [0; ENTRY_BYTES];
    record[..16].copy_from_slice(&entry.key);
    record[16..24].copy_from_slice(&entry.content.to_le_bytes());
    record[24..].copy_from_slice(&entry.date.to_le_bytes());
    record
}

/// The entry of a record.
pub(super) fn decode(record: &Record) -> Entry {
    let (mut content, mut date) = ([0; 8], [0; 4]);
    content.copy_from_slice(&record[16..24]);
    date.copy_from_slice(&record[24..]);
    Entry {
        key: key_of(record),
        content: u64::from_le_bytes(content),
        date: i32::from_le_bytes(date),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gives_back_its_entry() {
        for (name, content, date) in [
            ("after 1970", 7, 20_000),
            ("before 1970", u64::MAX, -1),
            ("the ends of the types", 1 << 63, i32::MIN),
        ] {
            let entry = Entry { key: *b"0123456789abcdef", content, date };
            assert_eq!(decode(&encode(&entry)), entry, "{name}");
        }
    }

    #[test]
    fn rank_and_prefix_order_as_bytes() {
        let mut low = [0; 16];
        low[0] = 1;
        let mut high = [0xff; 16];
        high[0] = 2;
        assert!(low < high && rank(&low) < rank(&high) && prefix(&low) < prefix(&high));
    }
}
