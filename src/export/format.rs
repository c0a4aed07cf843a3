//! How an exported file is written.

use std::fs::File;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::spreadsheet::SpreadsheetCsv;
use super::workbook::Workbook;
use crate::error::{Error, Result};
use crate::render::{OutputFormat, Reader, Renderer};

/// The form of an exported file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For programs: RFC 4180 with a header, every value as it is.
    Csv,
    /// For spreadsheets: no text is taken for a formula, no digit is lost.
    CsvSpreadsheet,
    /// One object per line.
    Ndjson,
    /// One Parquet file, zstd.
    Parquet,
    /// A workbook with typed cells and a sheet that says how it was computed.
    Xlsx,
    /// Stripe's meter events as CSV, one for each customer and period.
    Stripe,
}

impl Format {
    /// The name, as it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::CsvSpreadsheet => "csv-spreadsheet",
            Self::Ndjson => "ndjson",
            Self::Parquet => "parquet",
            Self::Xlsx => "xlsx",
            Self::Stripe => "stripe",
        }
    }

    /// How names of such files end.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Csv | Self::CsvSpreadsheet | Self::Stripe => "csv",
            Self::Ndjson => "ndjson",
            Self::Parquet => "parquet",
            Self::Xlsx => "xlsx",
        }
    }

    /// The format of a file whose name ends so, if nothing else is said.
    pub fn of_extension(extension: &str) -> Option<Self> {
        let all = [Self::Csv, Self::Ndjson, Self::Parquet, Self::Xlsx];
        all.into_iter().find(|format| format.extension() == extension)
    }
}

/// What the columns of a file mean.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shape {
    /// Whether its instants are begins of days, which a spreadsheet can have as dates.
    pub(super) days: bool,
}

/// A file that is being written.
pub(super) enum Writer {
    Rendered(Renderer<File>),
    Spreadsheet(Box<SpreadsheetCsv>),
    Workbook(Box<Workbook>),
}

impl Writer {
    /// A file of rows of `schema`, for people under a title; `folder` has room for what it is made of.
    ///
    /// # Errors
    /// A schema that the format cannot hold; a disk that is full.
    pub(super) fn new(
        (format, title): (Format, &'static str),
        schema: &SchemaRef,
        shape: Shape,
        (out, folder): (File, Option<&Path>),
    ) -> Result<Self> {
        let rendered = |format, out| Renderer::new(format, schema, out).map(Self::Rendered);
        match format {
            Format::Csv | Format::Stripe => rendered(OutputFormat::Csv, out),
            Format::Ndjson => rendered(OutputFormat::Ndjson, out),
            Format::Parquet => rendered(OutputFormat::Parquet, out),
            Format::CsvSpreadsheet => {
                let csv = SpreadsheetCsv::new(schema, out)?;
                Ok(Self::Spreadsheet(Box::new(csv)))
            }
            Format::Xlsx => {
                let book = Workbook::new(title, schema, shape, (out, folder))?;
                Ok(Self::Workbook(Box::new(book)))
            }
        }
    }

    /// Writes rows after those before them.
    ///
    /// # Errors
    /// A value that the format cannot hold; a disk that is full.
    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        match self {
            Self::Rendered(rendered) => rendered.write(rows).and_then(still_there),
            Self::Spreadsheet(csv) => csv.write(rows),
            Self::Workbook(book) => book.write(rows),
        }
    }

    /// Ends the file; `how` it was computed is told where the format has a place for it.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(super) fn finish(self, how: &[(String, String)]) -> Result<()> {
        match self {
            Self::Rendered(rendered) => rendered.finish().and_then(still_there),
            Self::Spreadsheet(csv) => csv.finish(),
            Self::Workbook(book) => book.finish(how),
        }
    }
}

/// A file always takes more.
fn still_there(reader: Reader) -> Result<()> {
    match reader {
        Reader::Present => Ok(()),
        Reader::Gone => Err(Error::unavailable("cannot write the export: its file was closed")),
    }
}
