//! Writes answers: record batches become a table, CSV, JSON, NDJSON or Parquet.
//!
//! Every value is written exactly: decimals and 64-bit integers never pass through a float. Only
//! the table is meant for eyes, and only there is text made harmless for a terminal. A reader that
//! goes away (a closed pipe) is an outcome, not an error. Does not decide where the bytes go, nor
//! whether a terminal may receive Parquet.

mod cell;
mod csv;
mod json;
mod table;

use std::io::{self, Write};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::error::{Error, ErrorKind, Result};

pub use cell::{Cell, cell, hexadecimal, write_text};
pub use table::{NUMERIC_TEXT, harmless};

/// Rows of a Parquet row group, which the writer holds encoded in memory.
const ROW_GROUP_ROWS: usize = 122_880;

/// The form of an answer, as `-o` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OutputFormat {
    /// Aligned columns for people.
    #[default]
    Table,
    /// RFC 4180 with a header; null is an empty field, an empty text is `""`.
    Csv,
    /// One array of objects.
    Json,
    /// One object per line.
    Ndjson,
    /// One Parquet file, zstd.
    Parquet,
}

/// Whether anybody still reads what is written.
#[must_use = "whoever makes more rows can stop once the reader is gone"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// The output takes more.
    Present,
    /// The output was closed from the other end; nothing written from now on arrives.
    Gone,
}

/// Writes batches of one schema to `W` in one [`OutputFormat`].
///
/// Rows appear in the order given. Whatever is complete is written when [`Renderer::write`]
/// returns, but for the table, which first looks at many rows to find its widths, and for Parquet,
/// whose row groups are written whole. Without [`Renderer::finish`] the output is incomplete.
pub struct Renderer<W: Write + Send> {
    columns: usize,
    writer: Writer<W>,
}

enum Writer<W: Write + Send> {
    Text { layout: Layout, text: String, out: W },
    Parquet(Box<ArrowWriter<W>>),
    Gone,
}

enum Layout {
    Table(table::Table),
    Csv,
    Json(json::Objects),
}

/// Why a step ended early.
enum Stop {
    ReaderGone,
    Failed(Error),
}

impl<W: Write + Send> Renderer<W> {
    /// A renderer of rows of `schema` to `out`; nothing is written yet.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if `format` is Parquet and has no type for a column.
    pub fn new(format: OutputFormat, schema: &SchemaRef, out: W) -> Result<Self> {
        let mut text = String::new();
        let layout = match format {
            OutputFormat::Table => Layout::Table(table::Table::new(schema)),
            OutputFormat::Csv => {
                csv::header(schema, &mut text);
                Layout::Csv
            }
            OutputFormat::Json => Layout::Json(json::Objects::array(schema)),
            OutputFormat::Ndjson => Layout::Json(json::Objects::lines(schema)),
            OutputFormat::Parquet => {
                let writer = match parquet_writer(schema, out) {
                    Ok(writer) => Writer::Parquet(Box::new(writer)),
                    Err(Stop::ReaderGone) => Writer::Gone,
                    Err(Stop::Failed(error)) => return Err(error),
                };
                return Ok(Self { columns: schema.fields().len(), writer });
            }
        };
        let writer = Writer::Text { layout, text, out };
        Ok(Self { columns: schema.fields().len(), writer })
    }

    /// Writes the rows of `batch` after those before it.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the output fails, [`ErrorKind::Invalid`] if a value has no
    /// text (a time beyond the calendar), [`ErrorKind::Internal`] if the batch is of another schema.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<Reader> {
        if batch.num_columns() != self.columns {
            return Err(Error::internal(format!(
                "a batch of {} columns was written to an answer of {}",
                batch.num_columns(),
                self.columns
            )));
        }
        let step = match &mut self.writer {
            Writer::Text { layout, text, out } => {
                write_rows(layout, batch, text).and_then(|()| send(text, out))
            }
            Writer::Parquet(writer) => writer.write(batch).map_err(Stop::from),
            Writer::Gone => Err(Stop::ReaderGone),
        };
        self.settle(step)
    }

    /// Writes what is still missing, such as the end of an array or a Parquet footer, and flushes.
    ///
    /// # Errors
    /// As [`Renderer::write`].
    pub fn finish(mut self) -> Result<Reader> {
        let step = match &mut self.writer {
            Writer::Text { layout, text, out } => {
                end_rows(layout, text);
                send(text, out).and_then(|()| out.flush().map_err(Stop::from))
            }
            // Finishing flushes, down to `out`.
            Writer::Parquet(writer) => writer.finish().map(drop).map_err(Stop::from),
            Writer::Gone => Err(Stop::ReaderGone),
        };
        self.settle(step)
    }

    fn settle(&mut self, step: Result<(), Stop>) -> Result<Reader> {
        match step {
            Ok(()) => Ok(Reader::Present),
            Err(Stop::ReaderGone) => {
                self.writer = Writer::Gone;
                Ok(Reader::Gone)
            }
            Err(Stop::Failed(error)) => Err(error),
        }
    }
}

fn write_rows(layout: &mut Layout, batch: &RecordBatch, text: &mut String) -> Result<(), Stop> {
    match layout {
        Layout::Table(table) => table.rows(batch, text),
        Layout::Csv => csv::rows(batch, text),
        Layout::Json(objects) => objects.rows(batch, text),
    }
    .map_err(Stop::Failed)
}

fn end_rows(layout: &mut Layout, text: &mut String) {
    match layout {
        Layout::Table(table) => table.end(text),
        Layout::Csv => {}
        Layout::Json(objects) => objects.end(text),
    }
}

/// Moves `text` to `out`.
fn send(text: &mut String, out: &mut impl Write) -> Result<(), Stop> {
    out.write_all(text.as_bytes())?;
    text.clear();
    Ok(())
}

fn parquet_writer<W: Write + Send>(schema: &SchemaRef, out: W) -> Result<ArrowWriter<W>, Stop> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .build();
    Ok(ArrowWriter::try_new(out, SchemaRef::clone(schema), Some(properties))?)
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::ReaderGone;
        }
        let message = format!("cannot write the answer: {error}");
        Self::Failed(Error::new(ErrorKind::Unavailable, message).with_source(error))
    }
}

impl From<ParquetError> for Stop {
    fn from(error: ParquetError) -> Self {
        match error {
            ParquetError::External(cause) => match cause.downcast::<io::Error>() {
                Ok(error) => Self::from(*error),
                Err(cause) => Self::Failed(no_parquet(&cause).with_source(cause)),
            },
            other => Self::Failed(no_parquet(&other).with_source(other)),
        }
    }
}

fn no_parquet(cause: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("cannot write the answer as parquet: {cause}"))
}

#[cfg(test)]
mod tests;
