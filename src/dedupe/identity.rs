//! Keyed hashes of an event: of its identity, and of the row as stored.
//!
//! Both are kept on disk for as long as the lake lives, so what is computed here never changes.
//! The keys come from the table's id: hashes of one lake say nothing about another's, and a sender
//! who does not know the id cannot build identities that collide.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher24};

use super::entry::Key;

/// What the hash keys are derived under.
const DOMAIN: &[u8; 16] = b"meterhouse dedup";

/// Hashes the events of one table.
#[derive(Debug, Clone)]
pub struct Hasher {
    identity: SipHasher24,
    field: SipHasher13,
}

impl Hasher {
    /// The hasher of the table with this id.
    pub fn new(table_id: &str) -> Self {
        Self {
            identity: SipHasher24::new_with_key(&derive("identity", table_id)),
            field: SipHasher13::new_with_key(&derive("field", table_id)),
        }
    }

    /// The key of an identity. No source and an empty source are the same.
    pub fn identity(&self, source: Option<&str>, idempotency_key: &str) -> Key {
        let mut hasher = self.identity;
        write_framed(&mut hasher, source.unwrap_or_default());
        hasher.write(idempotency_key.as_bytes());
        hasher.finish128().as_bytes()
    }

    /// The hash of one field of a row, to be added to its [`Content`].
    ///
    /// `tag` says which kind of field or value it is, `text` is the value in canonical form.
    pub fn field(&self, tag: u8, name: &str, text: &str) -> u64 {
        let mut hasher = self.field;
        hasher.write(&[tag]);
        write_framed(&mut hasher, name);
        hasher.write(text.as_bytes());
        hasher.finish()
    }
}

/// The hash of a row: the sum of its fields' hashes, whatever their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Content(u64);

impl Content {
    /// Takes in the hash of one more field.
    pub fn add(&mut self, field: u64) {
        self.0 = self.0.wrapping_add(field);
    }

    /// The hash of the fields so far.
    pub fn value(self) -> u64 {
        self.0
    }
}

/// Eight bytes that stand for a table in the headers of its files.
pub(super) fn table_hash(table_id: &str) -> u64 {
    let bytes = derive("table", table_id);
    let mut half = [0; 8];
    half.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(half)
}

fn derive(purpose: &str, table_id: &str) -> [u8; 16] {
    let mut hasher = SipHasher24::new_with_key(DOMAIN);
    write_framed(&mut hasher, purpose);
    hasher.write(table_id.as_bytes());
    hasher.finish128().as_bytes()
}

/// Writes a text with its length before it, so that what follows cannot be taken for its end.
fn write_framed(hasher: &mut impl std::hash::Hasher, text: &str) {
    hasher.write(&(text.len() as u64).to_le_bytes());
    hasher.write(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_differ_where_their_parts_do() {
        let hasher = Hasher::new("table");
        let same = [(None, "k"), (Some(""), "k")];
        assert_eq!(hasher.identity(same[0].0, "k"), hasher.identity(same[1].0, "k"));
        for (name, left, right) in [
            ("the boundary between source and key", (Some("ab"), "c"), (Some("a"), "bc")),
            ("source and key swapped", (Some("a"), "b"), (Some("b"), "a")),
            ("no source against one", (None, "ab"), (Some("a"), "b")),
            ("zero bytes", (Some("\0"), "k"), (None, "\0k")),
        ] {
            let [left, right] = [left, right].map(|(source, key)| hasher.identity(source, key));
            assert_ne!(left, right, "{name}");
        }
        assert_ne!(hasher.identity(None, "k"), Hasher::new("other").identity(None, "k"));
    }

    #[test]
    fn content_ignores_order_and_sees_every_part() {
        let hasher = Hasher::new("table");
        let content = |fields: &[(u8, &str, &str)]| {
            let mut content = Content::default();
            for (tag, name, text) in fields {
                content.add(hasher.field(*tag, name, text));
            }
            content.value()
        };
        let row = content(&[(1, "a", "1"), (1, "b", "2")]);
        assert_eq!(row, content(&[(1, "b", "2"), (1, "a", "1")]));
        for (name, other) in [
            ("values swapped", content(&[(1, "a", "2"), (1, "b", "1")])),
            ("another tag", content(&[(2, "a", "1"), (1, "b", "2")])),
            ("a field less", content(&[(1, "a", "1")])),
            ("name and value run together", content(&[(1, "a1", ""), (1, "b", "2")])),
        ] {
            assert_ne!(row, other, "{name}");
        }
    }

    #[test]
    fn hashes_are_what_existing_lakes_hold() {
        let table_id = "5e7c0f1a-0000-4000-8000-000000000000";
        let hasher = Hasher::new(table_id);
        let key = u128::from_be_bytes(hasher.identity(Some("billing"), "evt_1"));
        assert_eq!(key, 0x121d_89e3_7da3_71d6_2ef8_112d_db3b_3559);
        assert_eq!(hasher.field(3, "bytes", "1024"), 0x7391_a78f_2090_6396);
        assert_eq!(table_hash(table_id), 0x0b92_49a1_8945_c916);
    }
}
