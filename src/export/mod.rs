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
use crate::engine::wants_memory;
use crate::error::{Error, ErrorKind, Result};
use crate::period::Closing;
use crate::render::hexadecimal;
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
use place::{Found, Spool};

/// What a file is to hold.
#[derive(Debug, Clone, Copy)]
pub enum Source<'s> {
    /// The answer to a question.
    Usage(&'s UsageRequest),
    /// The lines of closed periods, one after the other.
    Statements {
        /// The closings.
        closings: &'s [Closing],
        /// The meters that were asked for; none for all of them.
        meters: &'s [String],
        /// The period that was asked for, by a name that lasts; none for all of them.
        period: Option<&'s str>,
    },
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
    /// Whether the names of its folders tell meter and period, as Hive's do.
    pub partitioned: bool,
    /// Whether it may take the place of an export of something else.
    pub replace: bool,
    /// Bytes of memory that usage is computed with at first, beyond which operators spill; with all that the
    /// engine has where these do not do.
    pub memory_at_first: Option<usize>,
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
    for _ in 0..ATTEMPTS {
        if let Some(exported) = attempt(context, export).await? {
            return Ok(exported);
        }
    }
    Err(Error::conflict(format!(
        "others export to {} again and again: nothing was written",
        export.place
    )))
}

/// How often an export is begun anew because somebody else exported to the same place meanwhile.
const ATTEMPTS: usize = 3;

/// Exports one file; `None` where somebody else exported to the place meanwhile, which is not overwritten
/// unseen.
async fn attempt(context: &Context, export: &Export<'_>) -> Result<Option<Exported>> {
    let asked = asked::asked(context, export)?;
    let with = export.events.map_or_else(BTreeMap::new, MeterEvents::told);
    let (pinned, basis) = match export.source {
        Source::Usage(request) => usage::basis(context, request).await?,
        Source::Statements { closings, .. } => (0, Some(statements::basis(closings))),
    };
    let place = &export.place;
    let found = place.found().await?;
    let there = place.sha256(&found).await?;
    if let Found::Ours { record, .. } = &found {
        let mut before = record.asked.clone();
        // Records of earlier versions do not name the lake.
        if let Some(lake) = asked.get(asked::LAKE) {
            before.entry(asked::LAKE.to_owned()).or_insert_with(|| lake.clone());
        }
        if before != asked && !export.replace {
            return Err(other_export(place, record, &asked));
        }
        let is_same = record.asked == asked && record.with == with;
        let is_whole = there.as_ref() == Some(&record.sha256);
        if is_same && is_whole && basis.as_ref() == Some(&record.basis()) {
            return Ok(Some(Exported::Unchanged(record.as_ref().clone())));
        }
        place.check_ours(record, there.as_ref())?;
    }
    let written = compute(context, export, pinned, &asked).await;
    let (mut spool, computed, [rows, left_out]) = match written {
        Ok(written) => written,
        Err(error) => {
            place.clear_empty();
            return Err(match error.kind() {
                ErrorKind::Unavailable => {
                    Error::unavailable(format!("{place}: {error}")).with_source(error)
                }
                _ => error,
            });
        }
    };
    let sha256 = sha256_of(spool.file())?;
    let bytes = spool.file().seek(SeekFrom::End(0)).map_err(spool_failed)?;
    let written_at = context.clock.now().to_string();
    let is_there = there.as_ref() == Some(&sha256);
    let record = Record {
        asked,
        with,
        meters: computed,
        rows,
        left_out,
        bytes,
        sha256,
        overtakes: match &found {
            Found::Ours { record, .. } if there.as_ref() != Some(&record.sha256) => {
                record.overtakes.iter().chain([&record.sha256]).cloned().collect()
            }
            Found::Ours { .. } | Found::Nothing => Vec::new(),
        },
        replaces: there,
        written_at,
    };
    // Computing takes its time.
    if place.found().await? != found {
        return Ok(None);
    }
    if !place.put_record(&record, matches!(found, Found::Nothing)).await? {
        return Ok(None);
    }
    if is_there {
        return Ok(Some(Exported::Unchanged(record)));
    }
    place.put_file(spool).await?;
    Ok(Some(Exported::Written(record)))
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

/// What was written, what it was computed of, how many rows it has and how many became none.
type Spooled = (Spool, Vec<Computed>, [u64; 2]);

/// Writes the file to a place of its own, within the memory that it is to get at first if that does.
async fn compute(
    context: &Context,
    export: &Export<'_>,
    pinned: u64,
    asked: &BTreeMap<String, String>,
) -> Result<Spooled> {
    let all = context.engine.limits().memory_bytes;
    if let (Some(bytes), Source::Usage(_)) = (export.memory_at_first, export.source)
        && bytes < all
    {
        let engine = context.engine.with_memory(bytes)?;
        let frugal = Context { engine, ..context.clone() };
        match write(&frugal, export, pinned, asked).await {
            Err(error) if wants_memory(&error) => {}
            written => return written,
        }
    }
    write(context, export, pinned, asked).await
}

/// Writes the file to a place of its own.
async fn write(
    context: &Context,
    export: &Export<'_>,
    pinned: u64,
    asked: &BTreeMap<String, String>,
) -> Result<Spooled> {
    let mut spool = export.place.spool()?;
    let out = spool.file().try_clone().map_err(spool_failed)?;
    let mut rows = Rows { export, out, open: None, count: 0, left_out: 0 };
    let computed = match export.source {
        Source::Usage(request) => usage::each(context, request, pinned, &mut rows).await?,
        Source::Statements { closings, .. } => {
            statements::each(context, closings, &mut rows).await?
        }
    };
    let (count, left_out) = (rows.count, rows.left_out);
    if let Some(writer) = rows.open {
        writer.finish(&record::how(asked, &computed, count))?;
    }
    Ok((spool, computed, [count, left_out]))
}

/// Rows on their way into the file.
struct Rows<'r> {
    export: &'r Export<'r>,
    out: File,
    open: Option<Writer>,
    count: u64,
    /// Rows that became no meter events.
    left_out: u64,
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
                Source::Statements { .. } => "statements",
            };
            self.open = Some(Writer::new(
                (self.export.format, title),
                &schema,
                shape,
                (out, self.export.place.folder()),
            )?);
        }
        Ok(())
    }

    /// Rows of a meter for a period: `of` says which, where the rows do not.
    fn take(&mut self, rows: &RecordBatch, of: &stripe::Of) -> Result<()> {
        let given = rows.num_rows();
        let made;
        let rows = match (self.export.format, self.export.events) {
            (Format::Stripe, Some(events)) => {
                made = events.rows(rows, of)?;
                &made
            }
            _ => rows,
        };
        self.left_out += (given - rows.num_rows()) as u64;
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
            0 => return Ok(hexadecimal(&hasher.finalize())),
            read => hasher.update(chunk.get(..read).unwrap_or_default()),
        }
    }
}

fn spool_failed(error: std::io::Error) -> Error {
    Error::unavailable(format!("cannot write the export: {error}")).with_source(error)
}
