//! Refused and conflicting events, kept.
//!
//! They are written before the batch they came with commits. Each has an identity made of where it
//! came from and what it says, so that a repeated run lists it once. Texts are held a few at a time;
//! what is held of every event is its identity. [`list`] reads them back.

mod list;

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};

pub use list::{for_each, list};

use list::LISTED_ROWS;

use super::decode::Rejected;
use super::stored;
use crate::error::{Error, Result};
use crate::lake::commit::Commit;
use crate::lake::reader::StoredFile;
use crate::lake::table::Table;
use crate::lake::tables::Lake;
use crate::lake::writer::{Layout, ParquetFileWriter};
use crate::schema::{self, quarantine};
use crate::time::Timestamp;

/// Longest text of a conflicting event that is kept, in bytes.
const KEPT_MAX_BYTES: usize = 64 << 10;
/// Events that wait in memory before they are written.
const WAITING_ROWS: usize = 20_000;
/// Bytes of events that wait in memory before they are written.
const WAITING_BYTES: usize = 32 << 20;
/// Identities that are remembered; beyond them an event may be written again, and is listed once
/// all the same.
const KNOWN_IDS: usize = 3_500_000;
/// Identity of an event in quarantine.
type Id = [u8; 16];

/// An event that is not among the events, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// `rejected` or `conflict`.
    pub outcome: &'static str,
    /// Short word for the reason.
    pub reason: String,
    /// The field at fault.
    pub field: Option<String>,
    /// The reason in words.
    pub message: String,
    /// The input it came from.
    pub input: Option<String>,
    /// Line or row there.
    pub line: Option<u64>,
    /// Its text.
    pub event: String,
}

impl From<Rejected> for Quarantined {
    fn from(rejected: Rejected) -> Self {
        Self {
            outcome: "rejected",
            reason: rejected.rejection.code().to_owned(),
            field: rejected.rejection.field().map(ToOwned::to_owned),
            message: rejected.rejection.to_string(),
            input: Some(rejected.input.to_string()),
            line: Some(rejected.line),
            event: rejected.event,
        }
    }
}

impl Quarantined {
    /// The event of a conflict that came second: a row as it would have been stored, and the
    /// content hashes of both.
    pub(super) fn conflict(rows: &RecordBatch, row: usize, first: u64, second: u64) -> Self {
        let key = rows.column_by_name(schema::IDEMPOTENCY_KEY).map(|k| k.as_string::<i32>());
        Self {
            outcome: "conflict",
            reason: "identity_taken".to_owned(),
            field: Some(schema::IDEMPOTENCY_KEY.to_owned()),
            message: format!(
                "idempotency_key `{}` is taken by an event of content {first:016x}, this one has {second:016x}: \
                 `meterhouse events show` tells what became of it",
                crate::event::shortened(key.map_or("", |key| key.value(row))),
            ),
            input: None,
            line: None,
            event: cut(stored::event_text(rows, row)),
        }
    }

    /// The same event with the input and the line that it came from, where they are known.
    pub(super) fn at_place(self, place: Option<(&str, u64)>) -> Self {
        let (input, line) = (place.map(|p| p.0.to_owned()), place.map(|p| p.1));
        Self { input, line, ..self }
    }

    /// What it says and where it came from. The message is left out, as it may tell the time.
    fn id(&self) -> Id {
        let mut hasher = blake3::Hasher::new();
        let line = self.line.map(|line| line.to_string());
        for part in [
            self.outcome,
            &self.reason,
            self.field.as_deref().unwrap_or_default(),
            self.input.as_deref().unwrap_or_default(),
            line.as_deref().unwrap_or_default(),
            &self.event,
        ] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        first_half(&hasher)
    }

    fn memory_bytes(&self) -> usize {
        let texts = [self.reason.len(), self.message.len(), self.event.len()];
        let optional = [&self.field, &self.input].map(|text| text.as_ref().map_or(0, String::len));
        size_of::<Self>() + texts.into_iter().chain(optional).sum::<usize>()
    }
}

fn first_half(hasher: &blake3::Hasher) -> Id {
    let mut id = Id::default();
    id.copy_from_slice(&hasher.finalize().as_bytes()[..size_of::<Id>()]);
    id
}

fn cut(mut text: String) -> String {
    if text.len() > KEPT_MAX_BYTES {
        text.truncate(text.floor_char_boundary(KEPT_MAX_BYTES));
        text.shrink_to_fit();
    }
    text
}

/// Events that wait to be kept, as many as memory allows.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    events: Vec<Quarantined>,
    bytes: usize,
}

impl Waiting {
    /// Adds an event.
    pub(super) fn push(&mut self, event: Quarantined) {
        self.bytes += event.memory_bytes();
        self.events.push(event);
    }

    /// Whether they should be kept before more come.
    pub(super) fn is_full(&self) -> bool {
        self.events.len() >= WAITING_ROWS || self.bytes >= WAITING_BYTES
    }

    /// All of them; afterwards none wait.
    pub(super) fn take(&mut self) -> Vec<Quarantined> {
        std::mem::take(self).events
    }
}

/// The quarantine of a lake, open for writing.
#[derive(Debug)]
pub struct Quarantine {
    table: Table,
    known: HashSet<Id>,
}

impl Quarantine {
    /// Opens the quarantine, making it where there is none, and reads which events it holds.
    ///
    /// # Errors
    /// A damaged table, a store that cannot be read or written.
    pub async fn open(lake: &Lake) -> Result<Self> {
        let table = lake.quarantine_or_create().await?;
        let known = known_ids(&table, KNOWN_IDS).await?;
        Ok(Self { table, known })
    }

    /// Puts events into quarantine, unless they are there.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub async fn keep(&mut self, events: Vec<Quarantined>, received: Timestamp) -> Result<()> {
        let mut fresh: Vec<(Id, Quarantined)> = Vec::with_capacity(events.len());
        for event in events {
            let id = event.id();
            let is_new = match self.known.len() < KNOWN_IDS {
                true => self.known.insert(id),
                false => !self.known.contains(&id),
            };
            if is_new {
                fresh.push((id, event));
            }
        }
        if fresh.is_empty() {
            return Ok(());
        }
        let rows = rows(&fresh, received)?;
        drop(fresh);
        let layout = Layout { no_dictionary: vec![quarantine::ID.to_owned()], ..Layout::default() };
        let mut writer = ParquetFileWriter::new(rows.schema(), &layout, None)?;
        let mut files = writer.write(&rows)?;
        files.extend(writer.finish()?);
        let mut add = Vec::with_capacity(files.len());
        for file in files {
            add.push(self.table.stage(file).await?);
        }
        let at_ms = received.micros() / 1_000;
        self.table.append(Commit { add, at_ms, ..Commit::default() }).await?;
        Ok(())
    }
}

fn rows(events: &[(Id, Quarantined)], received: Timestamp) -> Result<RecordBatch> {
    let texts = |part: fn(&Quarantined) -> Option<&str>| -> ArrayRef {
        Arc::new(events.iter().map(|(_, event)| part(event)).collect::<StringArray>())
    };
    let lines = events.iter().map(|(_, e)| e.line.and_then(|line| i64::try_from(line).ok()));
    let instants = vec![received.micros(); events.len()];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(events.iter().map(|(id, _)| Some(hex_of(*id))).collect::<StringArray>()),
        Arc::new(TimestampMicrosecondArray::from(instants).with_timezone("UTC")),
        texts(|event| Some(event.outcome)),
        texts(|event| Some(&event.reason)),
        texts(|event| event.field.as_deref()),
        texts(|event| Some(&event.message)),
        texts(|event| event.input.as_deref()),
        Arc::new(lines.collect::<Int64Array>()),
        texts(|event| Some(&event.event)),
    ];
    RecordBatch::try_new(Arc::new(quarantine::schema()), columns)
        .map_err(|error| Error::internal("rows of the quarantine").with_source(error))
}

fn hex_of(id: Id) -> String {
    format!("{:032x}", u128::from_be_bytes(id))
}

fn id_of(text: &str) -> Id {
    match u128::from_str_radix(text, 16) {
        Ok(number) if text.len() == 32 => number.to_be_bytes(),
        // Nothing of ours, but an identity all the same.
        Ok(_) | Err(_) => first_half(blake3::Hasher::new().update(text.as_bytes())),
    }
}

/// The identities of what is in quarantine, up to `limit` of them.
async fn known_ids(table: &Table, limit: usize) -> Result<HashSet<Id>> {
    let mut ids = HashSet::new();
    for file in &table.snapshot(None).await?.files {
        let opened = StoredFile::get(table, &file.path).await?;
        for batch in opened.rows(Some(&[quarantine::ID]), None, LISTED_ROWS)? {
            let batch = opened.checked(batch)?;
            if ids.len() + batch.num_rows() > limit {
                return Ok(ids);
            }
            ids.extend(batch.column(0).as_string::<i32>().iter().flatten().map(id_of));
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::lake::location::{Location, Namespace};

    fn refused(input: &str, line: u64, message: &str) -> Quarantined {
        Quarantined {
            outcome: "rejected",
            reason: "missing".to_owned(),
            field: Some("event_name".to_owned()),
            message: message.to_owned(),
            input: Some(input.to_owned()),
            line: Some(line),
            event: format!("{{\"n\":{line}}}"),
        }
    }

    #[test]
    fn an_event_is_identified_by_what_it_says_and_by_its_place() {
        let first = refused("a", 1, "at noon");
        for (name, other, same) in [
            ("another message", refused("a", 1, "at midnight"), true),
            ("another line", refused("a", 2, "at noon"), false),
            ("another input", refused("b", 1, "at noon"), false),
            ("another field", Quarantined { field: None, ..first.clone() }, false),
            ("no place", first.clone().at_place(None), false),
        ] {
            assert_eq!(other.id() == first.id(), same, "{name}");
        }
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let long = "ä".repeat(KEPT_MAX_BYTES);
        assert_eq!(cut(format!("x{long}")).len(), KEPT_MAX_BYTES - 1);
        assert_eq!(cut("short".to_owned()), "short");
    }

    #[test]
    fn what_waits_is_bounded_by_rows_and_by_bytes() {
        for (name, bytes, most) in [("rows", 10, WAITING_ROWS), ("bytes", 1 << 20, 32)] {
            let (mut waiting, mut pushed) = (Waiting::default(), 0);
            while !waiting.is_full() {
                let event = "x".repeat(bytes);
                waiting.push(Quarantined { event, ..refused("a", 1, "") });
                pushed += 1;
            }
            assert_eq!(pushed, most, "{name}");
            assert_eq!(waiting.take().len(), most, "{name}");
            assert!(!waiting.is_full(), "{name}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn events_are_listed_once_in_order_from_several_files() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::parse(folder.path().to_str().unwrap()).unwrap();
        let lake = Lake::open_or_create(&location, &Namespace::default()).await.unwrap();
        let mut quarantine = Quarantine::open(&lake).await.unwrap();
        // The later instant is written first; the second writer knows nothing of the first.
        let late = (1..=3_000).map(|line| refused("late", line, "")).collect();
        quarantine.keep(late, Timestamp::from_micros(2_000_000)).await.unwrap();
        quarantine.known.clear();
        let mixed = vec![refused("b", 1, ""), refused("late", 7, ""), refused("a", 9, "")];
        quarantine.keep(mixed, Timestamp::from_micros(1_000_000)).await.unwrap();
        quarantine.keep(vec![refused("a", 9, "x")], Timestamp::from_micros(3)).await.unwrap();
        let known = known_ids(&quarantine.table, KNOWN_IDS).await.unwrap();
        assert_eq!(known.len(), 3_002);
        assert!(known_ids(&quarantine.table, 5).await.unwrap().len() <= 5);

        let front = [("a", 9), ("b", 1), ("late", 7), ("late", 1), ("late", 2)];
        for (limit, rows) in [(None, 3_002), (Some(4), 4), (Some(0), 0), (Some(2_500), 2_500)] {
            let listed = list(&lake, limit).await.unwrap();
            assert_eq!(listed.iter().map(RecordBatch::num_rows).sum::<usize>(), rows, "{limit:?}");
            let Some(first) = listed.first() else { continue };
            assert!(listed.iter().all(|batch| batch.num_rows() <= LISTED_ROWS));
            let inputs = first.column_by_name(quarantine::INPUT).unwrap().as_string::<i32>();
            let lines = first.column_by_name(quarantine::LINE).unwrap();
            let lines = lines.as_primitive::<Int64Type>();
            for (row, (input, line)) in front.iter().enumerate().take(rows) {
                assert_eq!((inputs.value(row), lines.value(row)), (*input, *line), "{limit:?}");
            }
        }
    }
}
