//! Inputs read without a lake: whole events, or records of which somebody else knows the meaning.
//!
//! For corrections, which must see all of what they are given before anything is written: what is
//! read is held in memory, and one broken record is an error.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::decode::{Decoder, csv_record};
use super::input::Input;
use super::restore::rows_of;
use super::rows::Rows;
use super::source::{Pieces, Records};
use super::split::Block;
use crate::dedupe::{Hasher, Key};
use crate::error::{Error, Result};
use crate::event::json::{flatten_members, object};
use crate::event::{EventRules, Rejection, Value};
use crate::schema::{ColumnNames, PROPERTY_COLUMNS_DEFAULT};
use crate::time::Timestamp;

/// Events of one piece of input.
#[derive(Debug)]
pub struct ReadEvents {
    /// The input.
    pub input: Arc<str>,
    /// The events as rows of the events table.
    pub rows: RecordBatch,
    /// Identities, by row.
    pub keys: Vec<Key>,
    /// Line or row of the input, by row.
    pub lines: Vec<u64>,
}

/// All events of `inputs`, checked by `rules` as those that ingest takes at the instant `now`; made
/// for the table of this id and columns.
///
/// # Errors
/// An input that cannot be read, or the first event that ingest would reject.
pub fn read_events(
    inputs: &[Input],
    (rules, now): (EventRules, Timestamp),
    (table_id, columns): (&str, &Schema),
) -> Result<Vec<ReadEvents>> {
    let names = ColumnNames::of_schema(columns, PROPERTY_COLUMNS_DEFAULT);
    let decoder = Decoder::new(None, (rules, now), (names, Hasher::new(table_id)));
    let mut pieces = Pieces::new(inputs, false);
    let mut events = Vec::new();
    while let Some(piece) = pieces.next_piece()? {
        let decoded = decoder.decode(&piece)?;
        if let Some(refused) = decoded.rejected.first() {
            return Err(refusal(&refused.input, refused.line, &refused.rejection));
        }
        events.push(ReadEvents {
            input: Arc::clone(&piece.input),
            rows: rows_of(&decoded.chunk, now)?,
            keys: decoded.chunk.keys,
            lines: decoded.chunk.lines,
        });
    }
    Ok(events)
}

fn refusal(input: &str, line: u64, rejection: &Rejection) -> Error {
    Error::invalid(format!("{input}:{line}: {rejection}; nothing was changed"))
}

/// A record as names and values.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadRecord {
    /// The input.
    pub input: Arc<str>,
    /// Line or row there, from 1.
    pub line: u64,
    /// Names, nested ones dotted, with their values; `None` is a null that was written as such.
    pub values: Vec<(String, Option<Value<'static>>)>,
}

/// All records of `inputs`: JSON objects, or rows of CSV, Parquet or Arrow. An empty cell of CSV and
/// a null of Parquet or Arrow are absent.
///
/// # Errors
/// An input that cannot be read, or the first record that is none.
pub fn read_records(inputs: &[Input]) -> Result<Vec<ReadRecord>> {
    let mut pieces = Pieces::new(inputs, true);
    let mut found = Vec::new();
    while let Some(piece) = pieces.next_piece()? {
        let mut take = |line: u64, values: Result<Values, Rejection>| -> Result<()> {
            let values = values.map_err(|rejection| refusal(&piece.input, line, &rejection))?;
            found.push(ReadRecord { input: Arc::clone(&piece.input), line, values });
            Ok(())
        };
        match &piece.records {
            Records::Json { block, .. } => {
                for (line, range) in &block.records {
                    take(*line, json(&block.bytes[range.clone()]))?;
                }
                whole(&piece.input, block)?;
            }
            Records::Csv { header, records, broken } => {
                for (line, record) in records {
                    take(*line, csv_record(header, record).map(owned))?;
                }
                if let Some((line, detail)) = broken {
                    let unreadable = Rejection::Unreadable { detail: detail.clone() };
                    return Err(refusal(&piece.input, *line, &unreadable));
                }
            }
            Records::Rows { batch, first } => {
                let rows = Rows::new(batch).map_err(|error| {
                    Error::invalid(format!("{}: {error}", piece.input)).with_source(error)
                })?;
                for (line, row) in (*first..).zip(0..batch.num_rows()) {
                    take(line, rows.record(row).map(owned))?;
                }
            }
            Records::Log { .. } => {
                let text = format!("{}: an access log names no events", piece.input);
                return Err(Error::invalid(text));
            }
        }
    }
    Ok(found)
}

type Values = Vec<(String, Option<Value<'static>>)>;

fn owned(record: Vec<(Cow<'_, str>, Value<'_>)>) -> Values {
    record.into_iter().map(|(name, value)| (name.into_owned(), Some(value.into_owned()))).collect()
}

fn json(text: &[u8]) -> Result<Values, Rejection> {
    let members = object(text)?;
    let nulls: Vec<String> = (members.0.iter())
        .filter(|(_, raw)| raw.get() == "null")
        .map(|(name, _)| name.clone().into_owned())
        .collect();
    let mut record = Vec::new();
    flatten_members(members, "", &mut record, 0)?;
    let mut values = owned(record);
    values.extend(nulls.into_iter().map(|name| (name, None)));
    Ok(values)
}

/// What of a block did not become records is an error.
fn whole(input: &str, block: &Block) -> Result<()> {
    if let Some(line) = block.oversized.first() {
        return Err(Error::invalid(format!("{input}:{line}: the record is too long to read")));
    }
    match block.broken {
        Some((line, detail)) => {
            let detail = detail.to_owned();
            Err(refusal(input, line, &Rejection::Unreadable { detail }))
        }
        None => Ok(()),
    }
}
