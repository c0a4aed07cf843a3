//! Decides which of the events in memory are new, and in which order they are stored.
//!
//! Identities are sorted once: repeats within the batch become neighbours, and the key index is
//! asked in its own order. Of names that are declared for upserts, later contents of an identity take
//! the place of earlier ones. Nothing is written here.

use std::collections::{BTreeSet, HashMap, HashSet};

use arrow::array::{Array, StringArray};

use super::columns::Chunk;
use crate::dedupe::{Entry, Found, Key};
use crate::error::Result;

/// Microseconds of a day of UTC.
const DAY_MICROS: i64 = 86_400_000_000;

/// One event of a batch: its chunk and its row there. The order is the order of receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RowRef {
    /// Place of the chunk in the batch.
    pub chunk: u32,
    /// Row in the chunk.
    pub row: u32,
}

/// An event whose identity is taken by one of other content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Conflict {
    /// The second event.
    pub row: RowRef,
    /// Content hash of the event that holds the identity.
    pub first: u64,
    /// Content hash of the second event.
    pub second: u64,
}

/// What deduplication made of a batch.
#[derive(Debug, Default)]
pub(super) struct Deduplicated {
    /// The events that are new, in no particular order.
    pub kept: Vec<RowRef>,
    /// Their index entries, sorted by key.
    pub entries: Vec<Entry>,
    /// How many were there already, with the same content.
    pub duplicates: u64,
    /// Those that were there already, with other content.
    pub conflicts: Vec<Conflict>,
    /// What upserts did; nothing where no name is declared.
    pub upserted: Upserted,
}

/// What became of identities of declared names.
#[derive(Debug, Default)]
pub(super) struct Upserted {
    /// Index entries of identities of which an event of a declared name counts now, sorted by key;
    /// they are not among [`Deduplicated::entries`].
    pub entries: Vec<Entry>,
    /// Those kept whose place a later one among these takes, sorted.
    pub superseded: Vec<RowRef>,
    /// How many of those kept take the place of an earlier event.
    pub replacing: u64,
    /// How many identities have events in the lake that count no more.
    pub ends: u64,
    /// The days of these events, as far as the index knows.
    pub days: BTreeSet<i32>,
}

/// Where the content that holds an identity lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// In the lake.
    Lake,
    /// In an earlier part of the batch, as an event of a declared name.
    Declared,
    /// In an earlier part of the batch, as an event of any other name.
    Other,
}

/// The instant of a row in microseconds; events without a timestamp happened when received.
pub(super) fn timestamp_of(chunk: &Chunk, row: usize, received_micros: i64) -> i64 {
    if chunk.timestamp.is_null(row) { received_micros } else { chunk.timestamp.value(row) }
}

/// Days since 1970 of an instant in microseconds.
pub(super) fn date_of(micros: i64) -> i32 {
    // Timestamps are limited to the years 1-9999, so the day number fits by far.
    i32::try_from(micros.div_euclid(DAY_MICROS)).unwrap_or(i32::MAX)
}

/// Every identity of `chunks` against itself and against `known`, which answers sorted keys.
///
/// # Errors
/// Those of `known`.
pub(super) fn deduplicate(
    chunks: &[Chunk],
    received_micros: i64,
    known: impl FnOnce(&[Key]) -> Result<Vec<Option<Found>>>,
) -> Result<Deduplicated> {
    let all = sorted_identities(chunks);
    let keys = distinct(&all);
    let found = known(&keys)?;

    let content = |row: RowRef| chunks[row.chunk as usize].contents[row.row as usize];
    let mut result = Deduplicated {
        kept: Vec::with_capacity(keys.len()),
        entries: Vec::with_capacity(keys.len()),
        ..Deduplicated::default()
    };
    for (same, found) in all.chunk_by(|a, b| a.0 == b.0).zip(found) {
        let (key, row) = same[0];
        let held = found.map_or_else(|| content(row), |found| found.content);
        if found.is_none() {
            let chunk = &chunks[row.chunk as usize];
            let date = date_of(timestamp_of(chunk, row.row as usize, received_micros));
            result.entries.push(Entry { key, content: held, date });
            result.kept.push(row);
        }
        for &(_, row) in &same[usize::from(found.is_none())..] {
            match content(row) {
                same if same == held => result.duplicates += 1,
                second => result.conflicts.push(Conflict { row, first: held, second }),
            }
        }
    }
    Ok(result)
}

/// As [`deduplicate`] does it, where events of `names` take the place of earlier ones with their
/// identity. `known` also says where an identity is held, and `replaceable` which of some that the
/// lake holds, by ascending keys and with the days of their rows, have an event that counts and is
/// of a declared name.
///
/// # Errors
/// Those of `known` and `replaceable`.
pub(super) fn deduplicate_upserts(
    chunks: &[Chunk],
    received_micros: i64,
    names: &BTreeSet<String>,
    known: impl FnOnce(&[Key]) -> Result<Vec<Option<(Found, Holder)>>>,
    replaceable: impl FnOnce(&[Key], &BTreeSet<i32>) -> Result<HashSet<Key>>,
) -> Result<Deduplicated> {
    let all = sorted_identities(chunks);
    let keys = distinct(&all);
    let found = known(&keys)?;
    let content = |row: RowRef| chunks[row.chunk as usize].contents[row.row as usize];
    let is_declared =
        |row: RowRef| names.contains(chunks[row.chunk as usize].event_name.value(row.row as usize));
    let groups = || all.chunk_by(|a, b| a.0 == b.0).zip(&found);
    // Whether what the lake holds may be replaced is asked only where it matters.
    let (mut asked, mut days) = (Vec::new(), BTreeSet::new());
    for (same, found) in groups() {
        if let Some((found, Holder::Lake)) = found
            && same.iter().any(|&(_, row)| is_declared(row) && content(row) != found.content)
        {
            asked.push(same[0].0);
            days.insert(found.date);
        }
    }
    let open = if asked.is_empty() { HashSet::new() } else { replaceable(&asked, &days)? };

    let mut result = Deduplicated::default();
    for (same, found) in groups() {
        let key = same[0].0;
        // The content that holds the identity, and whether an event of a declared name has it.
        let mut held = found.map(|(found, holder)| match holder {
            Holder::Lake => (found.content, open.contains(&key)),
            Holder::Declared => (found.content, true),
            Holder::Other => (found.content, false),
        });
        let mut last: Option<RowRef> = None;
        for &(_, row) in same {
            match held {
                Some((first, _)) if first == content(row) => {
                    result.duplicates += 1;
                    continue;
                }
                Some((first, is_open)) if !is_open || !is_declared(row) => {
                    let second = content(row);
                    result.conflicts.push(Conflict { row, first, second });
                    continue;
                }
                Some(_) => result.upserted.replacing += 1,
                None => {}
            }
            held = Some((content(row), is_declared(row)));
            result.kept.push(row);
            result.upserted.superseded.extend(last.replace(row));
        }
        let (Some(row), Some((content, is_open))) = (last, held) else { continue };
        let date =
            date_of(timestamp_of(&chunks[row.chunk as usize], row.row as usize, received_micros));
        let entry = Entry { key, content, date };
        match is_open {
            true => result.upserted.entries.push(entry),
            false => result.entries.push(entry),
        }
        if let Some((found, Holder::Lake)) = found {
            result.upserted.ends += 1;
            result.upserted.days.insert(found.date);
        }
    }
    result.upserted.superseded.sort_unstable();
    Ok(result)
}

/// Every identity with its row, by key and then by receipt.
fn sorted_identities(chunks: &[Chunk]) -> Vec<(Key, RowRef)> {
    let mut all: Vec<(Key, RowRef)> = Vec::with_capacity(chunks.iter().map(Chunk::rows).sum());
    for (place, chunk) in (0..).zip(chunks) {
        let rows = (0..).zip(&chunk.keys);
        all.extend(rows.map(|(row, key)| (*key, RowRef { chunk: place, row })));
    }
    all.sort_unstable();
    all
}

fn distinct(all: &[(Key, RowRef)]) -> Vec<Key> {
    all.chunk_by(|a, b| a.0 == b.0).filter_map(|same| same.first()).map(|first| first.0).collect()
}

/// Every event of `chunks` as if each were new; for tests that show what deduplication is for.
pub(super) fn keep_all(chunks: &[Chunk]) -> Deduplicated {
    let rows = (0..).zip(chunks).flat_map(|(chunk, columns): (u32, &Chunk)| {
        (0..).zip(&columns.keys).map(move |(row, _)| RowRef { chunk, row })
    });
    Deduplicated { kept: rows.collect(), ..Deduplicated::default() }
}

/// An event in storage order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sorted {
    /// Partition, days since 1970.
    pub date: i32,
    /// Rank of its event name among those of the batch.
    name: u32,
    /// Rank of its customer; no customer comes first.
    customer: u32,
    timestamp: i64,
    /// Which event.
    pub row: RowRef,
    /// Whether a later event of the batch takes its place.
    pub superseded: bool,
}

/// `rows` by date, event name, customer, timestamp and order of receipt; those in `superseded`,
/// which is sorted, are marked.
pub(super) fn sort(
    chunks: &[Chunk],
    rows: &[RowRef],
    superseded: &[RowRef],
    received_micros: i64,
) -> Vec<Sorted> {
    let names = ranks(chunks, |chunk| &chunk.event_name);
    let customers = ranks(chunks, |chunk| &chunk.customer_id);
    let mut sorted: Vec<Sorted> = rows
        .iter()
        .map(|&row| {
            let (chunk, place) = (row.chunk as usize, row.row as usize);
            let timestamp = timestamp_of(&chunks[chunk], place, received_micros);
            Sorted {
                date: date_of(timestamp),
                name: names[chunk][place],
                customer: customers[chunk][place],
                timestamp,
                row,
                superseded: superseded.binary_search(&row).is_ok(),
            }
        })
        .collect();
    sorted.sort_unstable();
    sorted
}

/// `rows` as they stand, for gathering them.
pub(super) fn in_order(chunks: &[Chunk], rows: &[RowRef], received_micros: i64) -> Vec<Sorted> {
    let place = |&row: &RowRef| {
        let (chunk, at) = (&chunks[row.chunk as usize], row.row as usize);
        let timestamp = timestamp_of(chunk, at, received_micros);
        Sorted { date: date_of(timestamp), name: 0, customer: 0, timestamp, row, superseded: false }
    };
    rows.iter().map(place).collect()
}

/// For each row of each chunk the rank of its text among all texts of the column; null is 0.
fn ranks(chunks: &[Chunk], column: impl Fn(&Chunk) -> &StringArray) -> Vec<Vec<u32>> {
    let mut places: HashMap<&str, u32> = HashMap::new();
    let mut coded: Vec<Vec<u32>> = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let mut last: Option<(&str, u32)> = None;
        let codes = column(chunk).iter().map(|text| {
            let Some(text) = text else { return 0 };
            if let Some((known, code)) = last
                && known == text
            {
                return code;
            }
            // Rows of one batch fit in memory, so their number fits 32 bits.
            let next = u32::try_from(places.len() + 1).unwrap_or(u32::MAX);
            let code = *places.entry(text).or_insert(next);
            last = Some((text, code));
            code
        });
        coded.push(codes.collect());
    }
    let mut order: Vec<(&str, u32)> = places.into_iter().collect();
    order.sort_unstable();
    let mut rank_of_code = vec![0; order.len() + 1];
    for (rank, (_, code)) in (1..).zip(order) {
        rank_of_code[code as usize] = rank;
    }
    for code in coded.iter_mut().flatten() {
        *code = rank_of_code[*code as usize];
    }
    coded
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use arrow::datatypes::Schema;

    use super::*;
    use crate::dedupe::Hasher;
    use crate::event::json::decode_event;
    use crate::ingest::columns::ChunkBuilder;
    use crate::schema::ColumnNames;

    /// Events of one identity, each a name and a value.
    fn chunk(events: &[(&str, u32)]) -> Chunk {
        let names = Mutex::new(ColumnNames::of_schema(&Schema::empty(), 10));
        let hasher = Hasher::new("table");
        let mut chunk = ChunkBuilder::new(&names, &hasher);
        for (name, value) in events {
            let text = format!(
                r#"{{"event_name":"{name}","idempotency_key":"k","properties":{{"n":{value}}}}}"#
            );
            chunk.push(&decode_event(text.as_bytes()).unwrap());
        }
        chunk.finish().unwrap()
    }

    #[test]
    fn contents_of_declared_names_take_each_others_places() {
        // What holds the identity and whether it may be replaced; events; the rows kept, of these the
        // superseded ones, duplicates, conflicts, how many replace, how many of the lake end.
        type Case<'c> = (
            &'c str,
            Option<((&'c str, u32), Holder, bool)>,
            &'c [(&'c str, u32)],
            (&'c [u32], &'c [u32], u64, usize, u64, u64),
        );
        let lake = |is_open| Some((("up", 1), Holder::Lake, is_open));
        let cases: [Case<'_>; 11] = [
            ("new", None, &[("up", 1)], (&[0], &[], 0, 0, 0, 0)),
            ("new, twice", None, &[("up", 1), ("up", 1)], (&[0], &[], 1, 0, 0, 0)),
            (
                "new, and back again",
                None,
                &[("up", 1), ("up", 2), ("up", 1)],
                (&[0, 1, 2], &[0, 1], 0, 0, 2, 0),
            ),
            ("another name first", None, &[("no", 1), ("up", 2)], (&[0], &[], 0, 1, 0, 0)),
            ("another name later", None, &[("up", 1), ("no", 2)], (&[0], &[], 0, 1, 0, 0)),
            ("there already", lake(true), &[("up", 1)], (&[], &[], 1, 0, 0, 0)),
            ("over the lake's", lake(true), &[("up", 2)], (&[0], &[], 0, 0, 1, 1)),
            (
                "over the lake's, and back again",
                lake(true),
                &[("up", 1), ("up", 2), ("up", 1)],
                (&[1, 2], &[1], 1, 0, 2, 1),
            ),
            ("the lake's stands", lake(false), &[("up", 2), ("up", 1)], (&[], &[], 1, 1, 0, 0)),
            (
                "over an earlier part's",
                Some((("up", 1), Holder::Declared, false)),
                &[("up", 2)],
                (&[0], &[], 0, 0, 1, 0),
            ),
            (
                "an earlier part's of another name",
                Some((("no", 1), Holder::Other, false)),
                &[("up", 2)],
                (&[], &[], 0, 1, 0, 0),
            ),
        ];
        for (name, held, events, want) in cases {
            let chunks = [chunk(events)];
            let found = held.map(|(event, holder, _)| {
                (Found { content: chunk(&[event]).contents[0], date: 5 }, holder)
            });
            let names = BTreeSet::from(["up".to_owned()]);
            let replaceable = |keys: &[Key], days: &BTreeSet<i32>| {
                assert_eq!((keys.len(), days), (1, &BTreeSet::from([5])), "{name}");
                let is_open = held.is_some_and(|(_, _, is_open)| is_open);
                Ok(keys.iter().copied().filter(|_| is_open).collect())
            };
            let found =
                deduplicate_upserts(&chunks, 0, &names, |_| Ok(vec![found]), replaceable).unwrap();
            let rows = |rows: &[RowRef]| rows.iter().map(|row| row.row).collect::<Vec<_>>();
            let upserted = &found.upserted;
            assert_eq!(rows(&found.kept), want.0, "{name}");
            assert_eq!(rows(&upserted.superseded), want.1, "{name}");
            let counted = (found.duplicates, found.conflicts.len());
            assert_eq!(
                (counted, upserted.replacing, upserted.ends),
                ((want.2, want.3), want.4, want.5),
                "{name}"
            );
            // The index learns the last content that was kept, once.
            let last = found.kept.last().map(|row| chunks[0].contents[row.row as usize]);
            let entries: Vec<u64> =
                found.entries.iter().chain(&upserted.entries).map(|entry| entry.content).collect();
            assert_eq!(entries, Vec::from_iter(last), "{name}");
        }
    }
}
