//! Inputs as a stream of pieces that can be decoded side by side.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use csv::ByteRecord;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::input::{self, Input, InputFormat};
use super::split::{BLOCK_BYTES, Block, Splitter};
use crate::error::{Error, Result};

/// Some records of one input, not yet decoded.
#[derive(Debug)]
pub(super) struct Piece {
    /// The input's name.
    pub input: Arc<str>,
    /// The records.
    pub records: Records,
    /// How many bytes of the (decompressed) input they took.
    pub bytes: u64,
}

/// Records by format.
#[derive(Debug)]
pub(super) enum Records {
    /// JSON texts.
    Json(Block),
    /// CSV records, with the names of their columns.
    Csv {
        /// Column names.
        header: Arc<[String]>,
        /// Lines and cells.
        records: Vec<(u64, ByteRecord)>,
        /// Line and description of what ended the file early.
        broken: Option<(u64, String)>,
    },
    /// Rows of Parquet.
    Rows {
        /// The rows.
        batch: RecordBatch,
        /// Number of the first of them in the file, from 1.
        first: u64,
    },
}

/// Opens one input after the other and cuts it into pieces.
pub(super) struct Pieces<'i> {
    inputs: std::slice::Iter<'i, Input>,
    current: Option<(Arc<str>, Reader)>,
}

enum Reader {
    Json(Splitter<Box<dyn Read + Send>>),
    Csv(Box<CsvReader>),
    Parquet { rows: ParquetRecordBatchReader, next: u64 },
}

impl<'i> Pieces<'i> {
    /// The pieces of `inputs`, in their order.
    pub(super) fn new(inputs: &'i [Input]) -> Self {
        Self { inputs: inputs.iter(), current: None }
    }

    /// The next piece, `None` at the end of the last input.
    ///
    /// # Errors
    /// An input that cannot be opened or read, or that is not of its format at all.
    pub(super) fn next_piece(&mut self) -> Result<Option<Piece>> {
        loop {
            let Some((name, reader)) = &mut self.current else {
                let Some(input) = self.inputs.next() else { return Ok(None) };
                self.current = Some((input.name.as_str().into(), open(input)?));
                continue;
            };
            match reader.next_records(name)? {
                Some((records, bytes)) => {
                    return Ok(Some(Piece { input: Arc::clone(name), records, bytes }));
                }
                None => self.current = None,
            }
        }
    }
}

fn open(input: &Input) -> Result<Reader> {
    Ok(match input.format {
        InputFormat::Json => Reader::Json(Splitter::new(input::open(input)?)),
        InputFormat::Csv => Reader::Csv(Box::new(CsvReader::open(input)?)),
        InputFormat::Parquet => {
            let Some(path) = &input.path else {
                return Err(Error::invalid(
                    "Parquet cannot be read from standard input: it is read from its end; give a file",
                ));
            };
            let invalid = |error: &dyn std::fmt::Display| {
                Error::invalid(format!("{}: not readable as Parquet: {error}", input.name))
            };
            let file = File::open(path).map_err(|error| input::read_failed(&input.name, error))?;
            let rows = ParquetRecordBatchReaderBuilder::try_new(file)
                .and_then(|builder| builder.with_batch_size(PARQUET_ROWS).build())
                .map_err(|error| invalid(&error))?;
            Reader::Parquet { rows, next: 1 }
        }
    })
}

/// Rows of Parquet that are decoded together.
const PARQUET_ROWS: usize = 16_384;

impl Reader {
    fn next_records(&mut self, name: &str) -> Result<Option<(Records, u64)>> {
        match self {
            Self::Json(splitter) => {
                let block = splitter.next_block().map_err(|e| input::read_failed(name, e))?;
                Ok(block.map(|block| {
                    let bytes = block.bytes.len() as u64;
                    (Records::Json(block), bytes)
                }))
            }
            Self::Csv(reader) => Ok(reader.next_records()),
            Self::Parquet { rows, next } => match rows.next() {
                None => Ok(None),
                Some(Ok(batch)) => {
                    let first = *next;
                    *next += batch.num_rows() as u64;
                    let bytes = batch.get_array_memory_size() as u64;
                    Ok(Some((Records::Rows { batch, first }, bytes)))
                }
                Some(Err(error)) => {
                    Err(Error::invalid(format!("{name}: row {next}: broken Parquet: {error}")))
                }
            },
        }
    }
}

/// Reads CSV records; one that never ends (an open quote) is not followed beyond a limit.
struct CsvReader {
    reader: csv::Reader<Limited>,
    header: Arc<[String]>,
    since_record: Arc<AtomicUsize>,
    ended: bool,
}

/// Stands behind the end of the input. If it does not come out as a record of its own, the quote of
/// an earlier record was never closed, which the reader takes for a cell that ends with the file.
const END: &[u8] = b"\n\x1aend of input\x1a\n";

/// Fails once more than a block was read without a record coming out.
struct Limited {
    source: Box<dyn Read + Send>,
    since_record: Arc<AtomicUsize>,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.since_record.load(Ordering::Relaxed) > BLOCK_BYTES {
            return Err(std::io::Error::other(
                "a record is longer than 4 MiB: is a quote left open?",
            ));
        }
        let read = self.source.read(buffer)?;
        self.since_record.fetch_add(read, Ordering::Relaxed);
        Ok(read)
    }
}

impl CsvReader {
    fn open(input: &Input) -> Result<Self> {
        let since_record = Arc::new(AtomicUsize::new(0));
        let source = Box::new(input::open(input)?.chain(END));
        let source = Limited { source, since_record: Arc::clone(&since_record) };
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(source);
        let header = reader
            .headers()
            .map_err(|error| Error::invalid(format!("{}: no CSV header: {error}", input.name)))?;
        let empty = is_end(header.as_byte_record());
        let names: Vec<String> = header
            .iter()
            .filter(|_| !empty)
            .map(|name| name.trim_start_matches('\u{feff}').trim().to_owned())
            .collect();
        let twice = names.iter().enumerate().find(|(place, name)| names[..*place].contains(name));
        if let Some((_, name)) = twice {
            return Err(Error::invalid(format!(
                "{}: column `{name}` stands twice in the header",
                input.name
            )));
        }
        Ok(Self { reader, header: names.into(), since_record, ended: false })
    }

    fn next_records(&mut self) -> Option<(Records, u64)> {
        let start = self.reader.position().byte();
        let (mut records, mut broken) = (Vec::new(), None);
        while !self.ended && self.reader.position().byte() - start < (BLOCK_BYTES / 4) as u64 {
            let mut record = ByteRecord::new();
            self.since_record.store(0, Ordering::Relaxed);
            let line = self.reader.position().line();
            match self.reader.read_byte_record(&mut record) {
                Ok(true) if is_end(&record) => {}
                Ok(true) if record.iter().next_back().is_some_and(|cell| cell.ends_with(END)) => {
                    let line = record.position().map_or(line, csv::Position::line);
                    broken = Some((line, "a quote is left open".to_owned()));
                }
                Ok(true) => {
                    let line = record.position().map_or(line, csv::Position::line);
                    records.push((line, record));
                }
                Ok(false) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    broken = Some((line, error.to_string()));
                }
            }
        }
        let bytes = self.reader.position().byte() - start;
        let empty = records.is_empty() && broken.is_none();
        let header = Arc::clone(&self.header);
        (!empty).then_some((Records::Csv { header, records, broken }, bytes))
    }
}

/// Whether a record is what stands behind the end.
fn is_end(record: &ByteRecord) -> bool {
    record.len() == 1 && record.get(0) == Some(END.trim_ascii())
}
