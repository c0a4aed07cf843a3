//! Pieces of input turned into columns; what is refused is kept with its reason and place.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::value::RawValue;

use super::access_log::{self, Seen};
use super::columns::{Chunk, ChunkBuilder};
use super::dialect::Dialect;
use super::mapping::Mapping;
use super::record::Mapper;
use super::rows::Rows;
use super::source::{Piece, Records};
use super::split::{Block, array_of_events};
use crate::dedupe::Hasher;
use crate::error::Result;
use crate::event::json::{Members, decode_event, flatten, flatten_members, object};
use crate::event::{EVENT_MAX_BYTES, Event, EventRules, Rejection, Value};
use crate::schema::ColumnNames;
use crate::time::Timestamp;

/// Longest text of a refused event that is kept, in bytes.
const KEPT_MAX_BYTES: usize = 64 << 10;

/// An event that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The input it came from.
    pub input: Arc<str>,
    /// Its line or row there, from 1.
    pub line: u64,
    /// Why.
    pub rejection: Rejection,
    /// Its text, shortened where it is very long.
    pub event: String,
}

/// What one piece became.
#[derive(Debug)]
pub(super) struct Decoded {
    /// The accepted events.
    pub chunk: Chunk,
    /// The refused ones.
    pub rejected: Vec<Rejected>,
}

impl Decoded {
    /// How many events the piece held.
    pub(super) fn read(&self) -> u64 {
        (self.chunk.rows() + self.rejected.len()) as u64
    }
}

/// What all decoders of a run share.
#[derive(Debug)]
pub(super) struct Decoder {
    /// Makes events of foreign records; `None` reads JSON of our own shape, or of a known dialect.
    mapper: Option<Mapper>,
    /// Makes events of the payloads of other systems.
    dialects: BTreeMap<Dialect, Mapper>,
    /// Makes events of the lines of an access log.
    log: Mapper,
    /// What a CSV or Parquet file without a mapping goes by.
    plain: Mapper,
    /// What is demanded of events.
    rules: EventRules,
    /// The instant that timestamps are compared with.
    now: Timestamp,
    /// Which properties have columns.
    names: Mutex<ColumnNames>,
    /// Hashes identities and contents.
    pub(super) hasher: Hasher,
}

impl Decoder {
    /// A decoder of records in our own shape, in those of other systems, and in that of `mapping`.
    pub(super) fn new(
        mapping: Option<Mapping>,
        (rules, now): (EventRules, Timestamp),
        (names, hasher): (ColumnNames, Hasher),
    ) -> Self {
        let dialects = Dialect::NAMES.into_iter().map(|(_, dialect)| dialect);
        Self {
            mapper: mapping.map(Mapper::new),
            dialects: dialects.filter_map(|d| Some((d, Mapper::new(d.mapping()?)))).collect(),
            log: Mapper::new(access_log::mapping()),
            plain: Mapper::new(Mapping::default()),
            rules,
            now,
            names: Mutex::new(names),
            hasher,
        }
    }

    /// Decodes and checks every record of `piece`.
    ///
    /// # Errors
    /// A column that the mapping names and the input does not have, or a defect of ours; what is
    /// wrong with single records is in [`Decoded::rejected`].
    pub(super) fn decode(&self, piece: &Piece) -> Result<Decoded> {
        let mut sink = Sink {
            decoder: self,
            input: &piece.input,
            chunk: ChunkBuilder::new(&self.names, &self.hasher),
            rejected: Vec::new(),
        };
        match &piece.records {
            Records::Json { block, dialect } => sink.json(block, *dialect),
            Records::Log { block, before } => sink.log(block, before),
            Records::Csv { header, records, broken } => {
                self.check_columns(&piece.input, header.iter().map(String::as_str))?;
                for (line, record) in records {
                    let event = csv_record(header, record)
                        .and_then(|r| self.mapper.as_ref().unwrap_or(&self.plain).event(r));
                    sink.take(*line, event, || csv_text(record));
                }
                if let Some((line, detail)) = broken {
                    sink.refuse(*line, Rejection::Unreadable { detail: detail.clone() }, "");
                }
            }
            Records::Rows { batch, first } => {
                let mapper = self.mapper.as_ref().unwrap_or(&self.plain);
                match Rows::new(batch) {
                    Ok(rows) => {
                        self.check_columns(&piece.input, rows.names())?;
                        for (line, row) in (*first..).zip(0..batch.num_rows()) {
                            let event = rows.record(row).and_then(|r| mapper.event(r));
                            sink.take(line, event, || row_text(&rows, row));
                        }
                    }
                    Err(error) => {
                        let detail = error.to_string();
                        for line in (*first..).take(batch.num_rows()) {
                            let detail = detail.clone();
                            sink.refuse(line, Rejection::Unreadable { detail }, "");
                        }
                    }
                }
            }
        }
        Ok(Decoded { chunk: sink.chunk.finish()?, rejected: sink.rejected })
    }

    /// Every piece of a file has its header, so that a file fails with its first.
    fn check_columns<'n>(&self, file: &str, names: impl Iterator<Item = &'n str>) -> Result<()> {
        match &self.mapper {
            Some(mapper) => mapper.check_columns(file, &names.collect::<Vec<_>>()),
            None => Ok(()),
        }
    }

    fn json_event<'a>(&self, text: &'a [u8], dialect: Dialect) -> Result<Event<'a>, Rejection> {
        if text.len() > EVENT_MAX_BYTES {
            let field = "event".to_owned();
            return Err(Rejection::TooLong { field, bytes: text.len(), max: EVENT_MAX_BYTES });
        }
        let own = self.dialects.get(&dialect);
        let Some(mapper) = self.mapper.as_ref().or(own) else { return decode_event(text) };
        let members = object(text)?;
        let mut record = Vec::with_capacity(16);
        match wrapped(&members).filter(|_| dialect != Dialect::Own) {
            Some(inner) => flatten(inner, "", &mut record, 0)?,
            None => flatten_members(members, "", &mut record, 0)?,
        }
        mapper.event(record)
    }
}

/// Most events of a batch that is one record: refused ones take far more memory than their text.
const BATCH_EVENTS_MAX: usize = 65_536;

/// The events of `{"events": […]}`, where a record is one.
fn batch(text: &[u8]) -> Option<Result<Vec<&RawValue>, Rejection>> {
    array_of_events(text, 0)?;
    let refused = |detail: &str| Rejection::Unreadable { detail: detail.to_owned() };
    let members = match object(text) {
        Ok(members) => members,
        Err(rejection) => return Some(Err(rejection)),
    };
    let [(_, events)] = members.0.as_slice() else {
        return Some(Err(refused("a batch has members beside `events`")));
    };
    let events: Vec<&RawValue> = match serde_json::from_str(events.get()) {
        Ok(events) => events,
        Err(error) => return Some(Err(refused(&error.to_string()))),
    };
    if events.len() > BATCH_EVENTS_MAX {
        let detail = format!("a batch has more than {BATCH_EVENTS_MAX} events");
        return Some(Err(refused(&detail)));
    }
    Some(Ok(events))
}

/// Whose event, or batch of events, a JSON text is; `None` where that cannot be told.
pub(super) fn dialect_of(text: &[u8]) -> Option<Dialect> {
    if let Some(events) = batch(text) {
        return events.ok()?.iter().find_map(|event| dialect_of(event.get().as_bytes()));
    }
    let members = object(text).ok()?;
    let inner = wrapped(&members).and_then(|inner| object(inner.get().as_bytes()).ok());
    let members = inner.as_ref().unwrap_or(&members);
    let names: Vec<&str> = members.0.iter().map(|(name, _)| name.as_ref()).collect();
    Dialect::recognise(&names)
}

/// The event of `{"event": {…}}`.
fn wrapped<'a>(members: &Members<'a>) -> Option<&'a RawValue> {
    match members.0.as_slice() {
        [(name, inner)] if name == "event" && inner.get().starts_with('{') => Some(inner),
        _ => None,
    }
}

struct Sink<'d> {
    decoder: &'d Decoder,
    input: &'d Arc<str>,
    chunk: ChunkBuilder<'d>,
    rejected: Vec<Rejected>,
}

impl Sink<'_> {
    fn json(&mut self, block: &Block, dialect: Dialect) {
        // A mapping says what records are; without one, or beside a payload, they may be batches.
        let batches = self.decoder.mapper.is_none() || dialect != Dialect::Own;
        for (line, range) in &block.records {
            let text = &block.bytes[range.clone()];
            match batches.then(|| batch(text)).flatten() {
                Some(Ok(events)) => {
                    for event in events {
                        let text = event.get().as_bytes();
                        let event = self.decoder.json_event(text, dialect);
                        self.take(*line, event, || String::from_utf8_lossy(text).into_owned());
                    }
                }
                Some(Err(refused)) => {
                    self.take(*line, Err(refused), || String::from_utf8_lossy(text).into_owned());
                }
                None => {
                    let event = self.decoder.json_event(text, dialect);
                    self.take(*line, event, || String::from_utf8_lossy(text).into_owned());
                }
            }
        }
        self.refuse_unread(block);
    }

    fn log(&mut self, block: &Block, before: &[Seen]) {
        let mapper = self.decoder.mapper.as_ref().unwrap_or(&self.decoder.log);
        for ((line, range), before) in block.records.iter().zip(before) {
            let text = &block.bytes[range.clone()];
            let event = access_log::record(text, before).and_then(|r| mapper.event(r));
            self.take(*line, event, || String::from_utf8_lossy(text).into_owned());
        }
        self.refuse_unread(block);
    }

    /// What of a block's input did not become records.
    fn refuse_unread(&mut self, block: &Block) {
        for line in &block.oversized {
            let read_mib = super::split::BLOCK_BYTES >> 20;
            let rejection = Rejection::TooLongToRead { read_mib, max: EVENT_MAX_BYTES };
            self.refuse(*line, rejection, "");
        }
        if let Some((line, detail)) = block.broken {
            self.refuse(line, Rejection::Unreadable { detail: detail.to_owned() }, "");
        }
    }

    fn take(
        &mut self,
        line: u64,
        event: Result<Event<'_>, Rejection>,
        text: impl FnOnce() -> String,
    ) {
        let checked = event.and_then(|event| {
            event.check(self.decoder.rules, self.decoder.now)?;
            Ok(event)
        });
        match checked {
            Ok(event) => self.chunk.at(self.input, line).push(&event),
            Err(rejection) => self.refuse(line, rejection, &text()),
        }
    }

    fn refuse(&mut self, line: u64, rejection: Rejection, text: &str) {
        let end =
            (0..=KEPT_MAX_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        self.rejected.push(Rejected {
            input: Arc::clone(self.input),
            line,
            rejection,
            event: text[..end.unwrap_or(0)].to_owned(),
        });
    }
}

pub(super) fn csv_record<'a>(
    header: &'a [String],
    record: &'a csv::ByteRecord,
) -> Result<super::record::Record<'a>, Rejection> {
    if record.len() != header.len() {
        let detail = format!("{} cells under {} columns", record.len(), header.len());
        return Err(Rejection::Unreadable { detail });
    }
    if record.as_slice().len() > EVENT_MAX_BYTES {
        let (field, bytes) = ("event".to_owned(), record.as_slice().len());
        return Err(Rejection::TooLong { field, bytes, max: EVENT_MAX_BYTES });
    }
    let mut cells = Vec::with_capacity(header.len());
    for (name, cell) in header.iter().zip(record) {
        let text = std::str::from_utf8(cell).map_err(|error| Rejection::Unreadable {
            detail: format!("column `{name}` is not UTF-8: {error}"),
        })?;
        // An empty cell is an absent value.
        if !text.is_empty() {
            cells.push((Cow::Borrowed(name.as_str()), Value::Text(Cow::Borrowed(text))));
        }
    }
    Ok(cells)
}

fn csv_text(record: &csv::ByteRecord) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing to memory cannot fail; an odd record is kept as far as it goes.
    let _ = writer.write_byte_record(record);
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned()
}

fn row_text(rows: &Rows, row: usize) -> String {
    match rows.record(row) {
        Ok(record) => format!("{record:?}"),
        Err(_) => String::new(),
    }
}
