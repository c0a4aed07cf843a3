//! Arrow IPC files, batch by batch.
//!
//! A batch of such a file is decoded whole, so what it takes in memory is read off the file first:
//! one that is too large is refused, and so are sizes and places that no file could have.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, read_footer_length};
use arrow::ipc::{Block, MessageHeader, root_as_footer, root_as_message};

use super::input::{self, Input, Place};
use super::parquet_file::rows_max;
use crate::caught::caught;
use crate::error::{Error, Result};

/// What an Arrow file begins and ends with.
const FILE_MAGIC: &[u8] = b"ARROW1";
/// The length of the footer and the magic.
const TRAILER_BYTES: usize = 10;
/// Largest batch that is read, in bytes as it is in memory.
const BATCH_MAX_BYTES: u64 = 128 << 20;
/// Largest description of a batch.
const METADATA_MAX_BYTES: u64 = 16 << 20;

/// The batches of a file.
pub(super) struct ArrowBatches {
    reader: FileReader<BufReader<File>>,
    rows_max: u64,
}

/// Rows for each byte of a file, at most: a value takes a bit.
const ROWS_PER_BYTE: u64 = 8;

/// Opens an input as an Arrow file.
///
/// # Errors
/// An input that cannot be opened, is no Arrow file, or has a batch that is too large.
pub(super) fn arrow_batches(input: &Input) -> Result<ArrowBatches> {
    let no_file =
        "an Arrow file is read from its end: give one that is neither packed nor a stream";
    if matches!(input.place, Place::Standard) {
        return Err(Error::invalid(format!("{}: {no_file}", input.name)));
    }
    let mut file = input.to_file()?;
    let mut magic = Vec::new();
    let read = file.by_ref().take(FILE_MAGIC.len() as u64).read_to_end(&mut magic);
    read.map_err(|error| input::read_failed(&input.name, error))?;
    if magic != FILE_MAGIC {
        return Err(Error::invalid(format!("{}: not readable as Arrow: {no_file}", input.name)));
    }
    let invalid = |error: ArrowError| {
        Error::invalid(format!("{}: not readable as Arrow: {error}", input.name)).with_source(error)
    };
    let largest = largest_batch(&mut file).map_err(invalid)?;
    if largest > BATCH_MAX_BYTES {
        return Err(Error::invalid(format!(
            "{}: has a batch of {largest} bytes, at most {BATCH_MAX_BYTES} are held at once: write \
             it with smaller batches, or as Parquet",
            input.name
        )));
    }
    let length = file.metadata().map_err(|error| input::read_failed(&input.name, error))?;
    let file_bytes = length.len();
    let reader = guarded(|| FileReader::try_new(BufReader::new(file), None));
    let reader = reader.map_err(invalid)?;
    Ok(ArrowBatches { reader, rows_max: rows_max(file_bytes, ROWS_PER_BYTE) })
}

/// What the library gives, or that the file is damaged where the library asserts that it is not.
fn guarded<T>(read: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, ArrowError> {
    caught(read).unwrap_or_else(|| Err(wrong("file", "contradicts itself")))
}

impl ArrowBatches {
    /// The next batch, `None` at the end.
    ///
    /// # Errors
    /// A broken file.
    pub(super) fn next_batch(&mut self, name: &str) -> Result<Option<RecordBatch>> {
        let batch = guarded(|| self.reader.next().transpose()).map_err(|error| {
            Error::invalid(format!("{name}: broken Arrow: {error}")).with_source(error)
        })?;
        match batch {
            Some(batch) if batch.num_rows() as u64 > self.rows_max => Err(Error::invalid(format!(
                "{name}: broken Arrow: a batch tells of {} rows, more than the file has room for",
                batch.num_rows()
            ))),
            batch => Ok(batch),
        }
    }
}

/// What the largest batch or dictionary of a file takes in memory; leaves the file at its beginning.
fn largest_batch(file: &mut File) -> Result<u64, ArrowError> {
    let file_bytes = file.seek(SeekFrom::End(0))?;
    let footer_end =
        file_bytes.checked_sub(TRAILER_BYTES as u64).ok_or_else(|| wrong("file", "short"))?;
    let mut trailer = [0; TRAILER_BYTES];
    file.seek(SeekFrom::Start(footer_end))?;
    file.read_exact(&mut trailer)?;
    let footer_bytes = read_footer_length(trailer)? as u64;
    let footer_start =
        footer_end.checked_sub(footer_bytes).ok_or_else(|| wrong("footer", "long"))?;
    let footer = read_at(file, footer_start, footer_bytes)?;
    let footer = root_as_footer(&footer).map_err(|error| wrong("footer", error))?;
    let blocks = [footer.dictionaries(), footer.recordBatches()].into_iter().flatten();
    let mut largest = 0;
    for block in blocks.flat_map(|blocks| blocks.iter()) {
        largest = largest.max(memory_of(file, block, footer_start)?);
    }
    file.rewind()?;
    Ok(largest)
}

/// What one block takes in memory: its buffers as they are once decompressed.
fn memory_of(file: &mut File, block: &Block, end: u64) -> Result<u64, ArrowError> {
    let number =
        |number: i64| u64::try_from(number).map_err(|_| wrong("batch", "of negative size"));
    let (start, metadata) = (number(block.offset())?, number(block.metaDataLength().into())?);
    let body = number(block.bodyLength())?;
    let body_start = start.checked_add(metadata);
    let fits = body_start.and_then(|start| start.checked_add(body)).is_some_and(|last| last <= end);
    let (Some(body_start), true) = (body_start, fits && metadata <= METADATA_MAX_BYTES) else {
        return Err(wrong("batch", "reaches over the end of the file"));
    };
    let bytes = read_at(file, start, metadata)?;
    // A message begins with its length, which a marker may precede.
    let prefix = if bytes.starts_with(&[0xff; 4]) { 8 } else { 4 };
    let message = bytes.get(prefix..).ok_or_else(|| wrong("batch", "without a message"))?;
    let message = root_as_message(message).map_err(|error| wrong("batch", error))?;
    let batch = match message.header_type() {
        MessageHeader::DictionaryBatch => {
            message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data())
        }
        _ => message.header_as_record_batch(),
    };
    let Some(batch) = batch else { return Err(wrong("batch", "without rows")) };
    if batch.compression().is_none() {
        return Ok(body);
    }
    let mut memory = 0_u64;
    for buffer in batch.buffers().into_iter().flatten() {
        let (offset, length) = (number(buffer.offset())?, number(buffer.length())?);
        if offset.checked_add(length).is_none_or(|last| last > body) {
            return Err(wrong("batch", "has a buffer beyond its end"));
        }
        if length < 8 {
            continue;
        }
        // A compressed buffer begins with its length; -1 says that it is as it is.
        let mut plain = [0; 8];
        file.seek(SeekFrom::Start(body_start + offset))?;
        file.read_exact(&mut plain)?;
        let plain = match i64::from_le_bytes(plain) {
            -1 => length,
            plain => number(plain)?,
        };
        memory = memory.saturating_add(plain);
    }
    Ok(memory)
}

fn read_at(file: &mut File, start: u64, bytes: u64) -> Result<Vec<u8>, ArrowError> {
    let mut read = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.by_ref().take(bytes).read_to_end(&mut read)?;
    Ok(read)
}

fn wrong(what: &str, how: impl std::fmt::Display) -> ArrowError {
    ArrowError::ParseError(format!("{what}: {how}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::ipc::CompressionType;
    use arrow::ipc::writer::{FileWriter, IpcWriteOptions};

    use super::super::input::InputFormat;
    use super::*;

    fn batch(rows: i64) -> RecordBatch {
        let bytes = Int64Array::from_iter_values(0..rows);
        let names = StringArray::from_iter_values((0..rows).map(|n| format!("customer {n}")));
        RecordBatch::try_from_iter([("bytes", Arc::new(bytes) as _), ("who", Arc::new(names) as _)])
            .unwrap()
    }

    fn written(batches: &[RecordBatch], compression: Option<CompressionType>) -> Vec<u8> {
        let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
        let schema = batches[0].schema();
        let mut writer = FileWriter::try_new_with_options(Vec::new(), &schema, options).unwrap();
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        writer.finish().unwrap();
        writer.into_inner().unwrap()
    }

    fn input(path: &Path) -> Input {
        Input::file(path.display().to_string(), path, InputFormat::Arrow)
    }

    #[test]
    fn files_give_their_batches_compressed_or_not_and_their_size_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.arrow");
        let batches = [batch(40_000), batch(10)];
        let columns = batches[0].columns().iter();
        let data: usize = columns.map(|c| c.to_data().get_slice_memory_size().unwrap()).sum();
        for compression in [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)] {
            std::fs::write(&path, written(&batches, compression)).unwrap();
            let largest = largest_batch(&mut File::open(&path).unwrap()).unwrap();
            let largest = usize::try_from(largest).unwrap();
            assert!(data * 9 / 10 <= largest && largest <= data * 11 / 10, "{largest} of {data}");
            let mut file = arrow_batches(&input(&path)).unwrap();
            for want in &batches {
                assert_eq!(file.next_batch("f").unwrap().as_ref(), Some(want), "{compression:?}");
            }
            assert_eq!(file.next_batch("f").unwrap(), None);
        }
    }

    #[test]
    fn a_small_file_of_a_batch_too_large_for_memory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zeros.arrow");
        let zeros: arrow::array::ArrayRef = Arc::new(Int64Array::from(vec![0; 17 << 20]));
        let zeros = RecordBatch::try_from_iter([("zero", zeros)]).unwrap();
        std::fs::write(&path, written(&[zeros], Some(CompressionType::ZSTD))).unwrap();
        let error = arrow_batches(&input(&path)).err().unwrap().to_string();
        assert!(error.contains("142606336 bytes, at most 134217728"), "{error}");
    }

    #[test]
    fn damaged_files_are_errors_that_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.arrow");
        let whole = written(&[batch(100)], Some(CompressionType::LZ4_FRAME));
        let check = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let read = arrow_batches(&input(&path));
            match read.and_then(|mut opened| opened.next_batch("events.arrow")) {
                Ok(_) => false,
                Err(error) => {
                    assert!(error.to_string().contains("events.arrow"), "{error}");
                    true
                }
            }
        };
        for bytes in [b"".as_slice(), b"no Arrow at all", b"ARROW1", &whole[..whole.len() / 2]] {
            assert!(check(bytes), "{} bytes", bytes.len());
        }
        // Sizes and places in the footer and in the description of the batch, one byte after the
        // other: many change nothing that is looked at, none may end the program.
        let footer = whole.len() - 400;
        let refused = (0..600).chain(footer..whole.len()).filter(|&at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x80;
            check(&bytes)
        });
        assert!(refused.count() > 50);
    }
}
