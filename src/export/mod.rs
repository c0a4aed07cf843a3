//! Exports: usage and closed periods as files for other programs and people.
//!
//! A file appears whole or not at all, and beside it lies a [`Record`] that says what was asked, how it
//! was computed and what the file's SHA-256 is. The record is written first: a file that it does not
//! describe yet is one that an export did not get to, and the next run of the same export writes it. A
//! file that is as its record says, of the same versions, is not computed again; one that no record
//! describes is somebody else's and never touched.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use sha2::{Digest, Sha256};

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::period::Closing;
use crate::usage::{Context, UsageRequest};

mod asked;
mod format;
mod place;
mod record;
mod spreadsheet;
mod statements;
mod stripe;
mod usage;
mod workbook;

pub use asked::period_name;
pub use format::Format;
pub use place::Place;
pub use record::{Basis, Computed, Record};
pub use stripe::{MeterEvents, customers_of_csv};

use format::{Shape, Writer};
use place::Found;

/// What a file is to hold.
#[derive(Debug, Clone, Copy)]
pub enum Source<'s> {
    /// The answer to a question.
    Usage(&'s UsageRequest),
    /// The lines of closed periods, one after the other.
    Statements(&'s [Closing]),
}

/// One file to be exported.
#[derive(Debug)]
pub struct Export<'e> {
    /// What it is to hold.
    pub source: Source<'e>,
    /// Where it goes.
    pub place: Place,
    /// How it is written.
    pub format: Format,
    /// What meter events are called, where the format is theirs.
    pub events: Option<&'e MeterEvents>,
    /// Whether it may take the place of an export of something else.
    pub replace: bool,
}

/// What became of an export.
#[derive(Debug, Clone, PartialEq)]
pub enum Exported {
    /// The file was written.
    Written(Record),
    /// The file was there already, with what it would be now.
    Unchanged(Record),
}

/// Exports one file.
///
/// # Errors
/// What is there already and is no export of the same; as [`crate::usage::usage`]; a value that the format
/// cannot hold; a place that cannot be written. What was there before stays as it was then.
pub async fn export(context: &Context, export: &Export<'_>) -> Result<Exported> {
    // All of it is of one "now".
    let clock = Clock::Fixed(context.clock.now());
    let context = &Context { clock, ..context.clone() };
    let asked = asked::asked(context, export)?;
    let (pinned, basis) = match export.source {
        Source::Usage(request) => usage::basis(context, request).await?,
        Source::Statements(closings) => (0, Some(statements::basis(closings))),
    };
    let found = export.place.found().await?;
    if let Found::Ours { record, .. } = &found {
        if record.asked != asked && !export.replace {
            return Err(other_export(&export.place, record, &asked));
        }
        let is_same = record.asked == asked && basis.as_ref() == Some(&record.basis());
        if is_same && found.may_be_whole() {
            return Ok(Exported::Unchanged(record.as_ref().clone()));
        }
    }
    let (mut spool, computed, rows) = write(context, export, pinned, &asked).await?;
    let sha256 = sha256_of(&mut spool)?;
    let replaces = export.place.replaced(&found).await?;
    let is_there = replaces.as_ref() == Some(&sha256);
    let bytes = spool.seek(SeekFrom::End(0)).map_err(spool_failed)?;
    let written_at = context.clock.now().to_string();
    let record = Record { asked, meters: computed, rows, bytes, sha256, replaces, written_at };
    export.place.put_record(&record).await?;
    if is_there {
        return Ok(Exported::Unchanged(record));
    }
    export.place.put_file(spool).await?;
    Ok(Exported::Written(record))
}

fn other_export(place: &Place, record: &Record, asked: &BTreeMap<String, String>) -> Error {
    let names = record.asked.keys().chain(asked.keys());
    let name = names.into_iter().find(|name| record.asked.get(*name) != asked.get(*name));
    let of = |asked: &BTreeMap<String, String>| {
        name.and_then(|name| asked.get(name)).map_or("none".to_owned(), |text| format!("`{text}`"))
    };
    Error::conflict(format!(
        "{place} is an export of something else: its {} is {}, not {}; name another place, or replace it \
         with --replace",
        name.map_or("question", String::as_str),
        of(&record.asked),
        of(asked)
    ))
}

/// Writes the file to a place of its own; gives it with what it was computed of and how many rows it has.
async fn write(
    context: &Context,
    export: &Export<'_>,
    pinned: u64,
    asked: &BTreeMap<String, String>,
) -> Result<(File, Vec<Computed>, u64)> {
    let spool = export.place.spool()?;
    let mut rows =
        Rows { export, out: spool.try_clone().map_err(spool_failed)?, open: None, count: 0 };
    let computed = match export.source {
        Source::Usage(request) => usage::each(context, request, pinned, &mut rows).await?,
        Source::Statements(closings) => statements::each(context, closings, &mut rows).await?,
    };
    let count = rows.count;
    if let Some(writer) = rows.open {
        writer.finish(&record::how(asked, &computed, count))?;
    }
    Ok((spool, computed, count))
}

/// Rows on their way into the file.
struct Rows<'r> {
    export: &'r Export<'r>,
    out: File,
    open: Option<Writer>,
    count: u64,
}

impl Rows<'_> {
    /// Begins the file, which may have no rows.
    fn begin(&mut self, schema: &SchemaRef, shape: Shape) -> Result<()> {
        if self.open.is_none() {
            let schema = match self.export.format {
                Format::Stripe => stripe::schema(),
                _ => Arc::clone(schema),
            };
            let out = self.out.try_clone().map_err(spool_failed)?;
            let title = match self.export.source {
                Source::Usage(_) => "usage",
                Source::Statements(_) => "statements",
            };
            self.open = Some(Writer::new((self.export.format, title), &schema, shape, out)?);
        }
        Ok(())
    }

    /// Rows of a meter for a period: `of` says which, where the rows do not.
    fn take(&mut self, rows: &RecordBatch, of: &stripe::Of) -> Result<()> {
        let made;
        let rows = match (self.export.format, self.export.events) {
            (Format::Stripe, Some(events)) => {
                made = events.rows(rows, of)?;
                &made
            }
            _ => rows,
        };
        self.count += rows.num_rows() as u64;
        match &mut self.open {
            Some(writer) => writer.write(rows),
            None => Err(Error::internal("rows of an export that has not begun")),
        }
    }
}

fn sha256_of(file: &mut File) -> Result<String> {
    file.seek(SeekFrom::Start(0)).map_err(spool_failed)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk).map_err(spool_failed)? {
            0 => return Ok(hex(&hasher.finalize())),
            read => hasher.update(chunk.get(..read).unwrap_or_default()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn spool_failed(error: std::io::Error) -> Error {
    Error::unavailable(format!("cannot write the export: {error}")).with_source(error)
}
