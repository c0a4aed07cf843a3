//! Inputs as a stream of pieces that can be decoded side by side.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use csv::ByteRecord;

use super::access_log::{Occurrences, Seen};
use super::arrow_file::{ArrowBatches, arrow_batches};
use super::decode;
use super::dialect::Dialect;
use super::input::{self, Input, InputFormat, Place};
use super::parquet_file::{ParquetRows, parquet_rows};
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
    Json {
        /// The texts.
        block: Block,
        /// Whose events they are.
        dialect: Dialect,
    },
    /// Lines of an access log.
    Log {
        /// The lines.
        block: Block,
        /// What tells each from its equals.
        before: Vec<Seen>,
    },
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
    mapped: bool,
    recognised: Vec<Recognised>,
    unended: Vec<String>,
    ended: Vec<String>,
}

/// Inputs whose events were found to be in the shape of another system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recognised {
    /// Whose shape.
    pub dialect: Dialect,
    /// The first of the inputs.
    pub first: String,
    /// How many there are.
    pub inputs: u64,
}

enum Reader {
    Json {
        splitter: Splitter<Box<dyn Read + Send>>,
        /// Known once the first event was seen.
        dialect: Option<Dialect>,
    },
    Log {
        splitter: Splitter<Box<dyn Read + Send>>,
        occurrences: Occurrences,
    },
    Csv(Box<CsvReader>),
    Arrow {
        batches: ArrowBatches,
        open: Option<RecordBatch>,
        next: u64,
    },
    Parquet {
        rows: ParquetRows,
        next: u64,
    },
}

impl<'i> Pieces<'i> {
    /// The pieces of `inputs`, in their order; `mapped` ones are not looked at for the shapes of
    /// other systems.
    pub(super) fn new(inputs: &'i [Input], mapped: bool) -> Self {
        Self {
            inputs: inputs.iter(),
            current: None,
            mapped,
            recognised: Vec::new(),
            unended: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// The names of the inputs that came to their ends since this was asked.
    pub(super) fn take_ended(&mut self) -> Vec<String> {
        std::mem::take(&mut self.ended)
    }

    /// Last lines of logs, as `input:line`, that were left out because they are not ended.
    pub(super) fn unended(&self) -> &[String] {
        &self.unended
    }

    /// The inputs so far that are in the shape of another system, by system.
    pub(super) fn recognised(&self) -> &[Recognised] {
        &self.recognised
    }

    /// The next piece, `None` at the end of the last input.
    ///
    /// # Errors
    /// An input that cannot be opened or read, or that is not of its format at all.
    pub(super) fn next_piece(&mut self) -> Result<Option<Piece>> {
        loop {
            let Some((name, reader)) = &mut self.current else {
                let Some(input) = self.inputs.next() else { return Ok(None) };
                self.current = Some((input.name.as_str().into(), open(input, self.mapped)?));
                continue;
            };
            let known = reader.dialect();
            match reader.next_records(name)? {
                Some((records, bytes)) => {
                    if let (None, Some(dialect)) = (known, reader.dialect()) {
                        recognised(&mut self.recognised, name, dialect);
                    }
                    return Ok(Some(Piece { input: Arc::clone(name), records, bytes }));
                }
                None => {
                    let unended = reader.unended().map(|line| format!("{name}:{line}"));
                    self.unended.extend(unended);
                    self.ended.push(name.to_string());
                    self.current = None;
                }
            }
        }
    }
}

fn recognised(all: &mut Vec<Recognised>, input: &str, dialect: Dialect) {
    if dialect == Dialect::Own {
        return;
    }
    match all.iter_mut().find(|known| known.dialect == dialect) {
        Some(known) => known.inputs += 1,
        None => all.push(Recognised { dialect, first: input.to_owned(), inputs: 1 }),
    }
}

fn open(input: &Input, mapped: bool) -> Result<Reader> {
    Ok(match input.format {
        InputFormat::Json if mapped => Reader::Json {
            splitter: Splitter::new(input::open(input)?),
            dialect: Some(Dialect::Own),
        },
        InputFormat::Json => {
            Reader::Json { splitter: Splitter::unwrapping(input::open(input)?), dialect: None }
        }
        InputFormat::Payload(dialect) => Reader::Json {
            splitter: Splitter::unwrapping(input::open(input)?),
            dialect: Some(dialect),
        },
        InputFormat::AccessLog => Reader::Log {
            splitter: Splitter::lines(if input.whole {
                Box::new(input::open(input)?.chain(&b"\n"[..]))
            } else {
                input::open(input)?
            }),
            occurrences: Occurrences::default(),
        },
        InputFormat::Arrow => Reader::Arrow { batches: arrow_batches(input)?, open: None, next: 1 },
        InputFormat::Csv => Reader::Csv(Box::new(CsvReader::open(input)?)),
        InputFormat::Parquet => {
            if matches!(input.place, Place::Standard) {
                return Err(Error::invalid(
                    "Parquet cannot be read from standard input: it is read from its end; give a file",
                ));
            }
            Reader::Parquet { rows: parquet_rows(input)?, next: 1 }
        }
    })
}

/// Most rows that are decoded together.
pub(super) const ROWS_AT_ONCE: usize = 16_384;

impl Reader {
    fn dialect(&self) -> Option<Dialect> {
        match self {
            Self::Json { dialect, .. } => *dialect,
            Self::Log { .. } | Self::Csv(_) | Self::Arrow { .. } | Self::Parquet { .. } => {
                Some(Dialect::Own)
            }
        }
    }

    fn unended(&self) -> Option<u64> {
        match self {
            Self::Log { splitter, .. } => splitter.unended(),
            Self::Json { .. } | Self::Csv(_) | Self::Arrow { .. } | Self::Parquet { .. } => None,
        }
    }

    fn next_records(&mut self, name: &str) -> Result<Option<(Records, u64)>> {
        match self {
            Self::Json { splitter, dialect } => {
                let block = splitter.next_block().map_err(|e| input::read_failed(name, e))?;
                Ok(block.map(|block| {
                    let bytes = block.bytes.len() as u64;
                    if dialect.is_none() {
                        let mut texts = block.records.iter().map(|(_, r)| &block.bytes[r.clone()]);
                        *dialect = texts.find_map(decode::dialect_of);
                    }
                    let dialect = dialect.unwrap_or(Dialect::Own);
                    (Records::Json { block, dialect }, bytes)
                }))
            }
            Self::Log { splitter, occurrences } => {
                let block = splitter.next_block().map_err(|e| input::read_failed(name, e))?;
                Ok(block.map(|block| {
                    let lines = block.records.iter().map(|(_, range)| &block.bytes[range.clone()]);
                    let before = lines.map(|line| occurrences.see(line)).collect();
                    let bytes = block.bytes.len() as u64;
                    (Records::Log { block, before }, bytes)
                }))
            }
            Self::Csv(reader) => reader.next_records(name),
            Self::Arrow { batches, open, next } => {
                // The bytes of a batch count with its first rows.
                let (rest, bytes) = match open.take() {
                    Some(rest) => (rest, 0),
                    None => match batches.next_batch(name)? {
                        Some(batch) => {
                            let bytes = batch.get_array_memory_size() as u64;
                            (batch, bytes)
                        }
                        None => return Ok(None),
                    },
                };
                let rows = rest.num_rows().min(ROWS_AT_ONCE);
                let batch = rest.slice(0, rows);
                *open = (rest.num_rows() > rows).then(|| rest.slice(rows, rest.num_rows() - rows));
                let first = *next;
                *next += rows as u64;
                Ok(Some((Records::Rows { batch, first }, bytes)))
            }
            Self::Parquet { rows, next } => Ok(rows.next_rows(name, *next)?.map(|batch| {
                let first = *next;
                *next += batch.num_rows() as u64;
                let bytes = batch.get_array_memory_size() as u64;
                (Records::Rows { batch, first }, bytes)
            })),
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
        let header = reader.headers().map_err(|error| match broken_off(&since_record, error) {
            Ok(error) => input::read_failed(&input.name, error),
            Err(detail) => Error::invalid(format!("{}: no CSV header: {detail}", input.name)),
        })?;
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

    fn next_records(&mut self, name: &str) -> Result<Option<(Records, u64)>> {
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
                    broken =
                        Some((line, "a quote is left open; nothing behind it is read".to_owned()));
                }
                Ok(true) => {
                    let line = record.position().map_or(line, csv::Position::line);
                    records.push((line, record));
                }
                Ok(false) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    match broken_off(&self.since_record, error) {
                        Ok(error) => return Err(input::read_failed(name, error)),
                        Err(detail) => broken = Some((line, detail)),
                    }
                }
            }
        }
        let bytes = self.reader.position().byte() - start;
        let empty = records.is_empty() && broken.is_none();
        let header = Arc::clone(&self.header);
        Ok((!empty).then_some((Records::Csv { header, records, broken }, bytes)))
    }
}

/// The failure of the input beneath a reader's; a record beyond the limit is none, but its text.
fn broken_off(since_record: &AtomicUsize, error: csv::Error) -> Result<std::io::Error, String> {
    let detail = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(error) if since_record.load(Ordering::Relaxed) <= BLOCK_BYTES => {
            Ok(error)
        }
        _ => Err(detail),
    }
}

/// Whether a record is what stands behind the end.
fn is_end(record: &ByteRecord) -> bool {
    record.len() == 1 && record.get(0) == Some(END.trim_ascii())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_csv_file_that_breaks_off_is_an_error_and_no_rejection() {
        let folder = tempfile::tempdir().unwrap();
        let mut text = String::from("a,b\n");
        (0..50_000).for_each(|n| text.push_str(&format!("{n},{}\n", n * 7919 % 10_007)));
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(text.as_bytes()).unwrap();
        let whole = gz.finish().unwrap();
        for (name, length, fails) in [("whole", whole.len(), false), ("cut", whole.len() / 2, true)]
        {
            let path = folder.path().join(name);
            std::fs::write(&path, &whole[..length]).unwrap();
            let inputs = [Input::file(name, path, InputFormat::Csv)];
            let mut pieces = Pieces::new(&inputs, false);
            let failed = loop {
                match pieces.next_piece() {
                    Ok(Some(_)) => {}
                    Ok(None) => break None,
                    Err(error) => break Some(error.to_string()),
                }
            };
            assert_eq!(failed.is_some(), fails, "{name}: {failed:?}");
            assert!(failed.is_none_or(|e| e.starts_with("cut: cannot be read: ")), "{name}");
        }
    }
}
