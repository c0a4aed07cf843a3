//! Arrow IPC files and streams, batch by batch.
//!
//! A batch of such a file is decoded whole, so one that would not fit in memory is refused by its
//! size before it is read.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader, read_footer_length};
use arrow::ipc::root_as_footer;

use super::input::{self, Input};
use crate::error::{Error, Result};

/// What an Arrow file begins with; a stream does not.
const FILE_MAGIC: &[u8] = b"ARROW1";

/// Largest batch that is read, in bytes as they lie in the file.
const BATCH_MAX_BYTES: i64 = 128 << 20;
/// What an Arrow file ends with: the length of its footer and the magic again.
const TRAILER_BYTES: usize = 10;

/// The batches of an input.
pub(super) enum ArrowBatches {
    File(FileReader<BufReader<File>>),
    Stream(StreamReader<Box<dyn Read + Send>>),
}

/// Opens an input as Arrow: a file is read by its footer, anything else as a stream.
///
/// # Errors
/// An input that cannot be opened or is no Arrow.
pub(super) fn arrow_batches(input: &Input) -> Result<ArrowBatches> {
    let invalid = |error: ArrowError| {
        Error::invalid(format!("{}: not readable as Arrow: {error}", input.name)).with_source(error)
    };
    if let Some(path) = &input.path {
        let failed = |error| input::read_failed(&input.name, error);
        let mut magic = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(FILE_MAGIC.len() as u64).read_to_end(&mut magic).map_err(failed)?;
        if magic == FILE_MAGIC {
            let mut file = File::open(path).map_err(failed)?;
            let largest = largest_batch(&mut file).map_err(invalid)?;
            if largest > BATCH_MAX_BYTES {
                return Err(Error::invalid(format!(
                    "{}: has a batch of {largest} bytes, at most {BATCH_MAX_BYTES} are read at \
                     once: write it with smaller batches, or as Parquet",
                    input.name
                )));
            }
            let file = BufReader::new(file);
            return FileReader::try_new(file, None).map(ArrowBatches::File).map_err(invalid);
        }
    }
    let stream = input::open(input)?;
    StreamReader::try_new(stream, None).map(ArrowBatches::Stream).map_err(invalid)
}

/// The bytes of the largest batch that a file's footer lists.
fn largest_batch(file: &mut File) -> Result<i64, ArrowError> {
    let mut trailer = [0; TRAILER_BYTES];
    file.seek(SeekFrom::End(-(TRAILER_BYTES as i64)))?;
    file.read_exact(&mut trailer)?;
    let footer_bytes = read_footer_length(trailer)?;
    let from_end = i64::try_from(TRAILER_BYTES + footer_bytes)
        .map_err(|error| ArrowError::ParseError(error.to_string()))?;
    file.seek(SeekFrom::End(-from_end))?;
    let mut footer = Vec::new();
    file.by_ref().take(footer_bytes as u64).read_to_end(&mut footer)?;
    let footer = root_as_footer(&footer)
        .map_err(|error| ArrowError::ParseError(format!("footer: {error}")))?;
    let blocks = [footer.dictionaries(), footer.recordBatches()].into_iter().flatten();
    let bytes = blocks.flat_map(|blocks| blocks.iter().map(|block| block.bodyLength()));
    let largest = bytes.max().unwrap_or(0);
    file.rewind()?;
    Ok(largest)
}

impl ArrowBatches {
    /// The next batch, `None` at the end.
    ///
    /// # Errors
    /// A broken file.
    pub(super) fn next_batch(&mut self, name: &str) -> Result<Option<RecordBatch>> {
        let next = match self {
            Self::File(reader) => reader.next(),
            Self::Stream(reader) => reader.next(),
        };
        next.transpose().map_err(|error| {
            Error::invalid(format!("{name}: broken Arrow: {error}")).with_source(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::ipc::CompressionType;
    use arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};

    use super::super::input::InputFormat;
    use super::*;

    fn batch() -> RecordBatch {
        let bytes = Int64Array::from_iter_values(0..40_000);
        let names = StringArray::from_iter_values((0..40_000).map(|n| format!("customer {n}")));
        RecordBatch::try_from_iter([("bytes", Arc::new(bytes) as _), ("who", Arc::new(names) as _)])
            .unwrap()
    }

    fn input(path: &Path) -> Input {
        let name = path.display().to_string();
        Input { name, path: Some(path.to_owned()), format: InputFormat::Arrow }
    }

    #[test]
    fn files_and_streams_give_their_batches_compressed_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.arrow");
        for compression in [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)] {
            let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
            let schema = batch().schema();
            let file = File::create(&path).unwrap();
            let mut writer =
                FileWriter::try_new_with_options(file, &schema, options.clone()).unwrap();
            writer.write(&batch()).unwrap();
            writer.write(&batch()).unwrap();
            writer.finish().unwrap();
            let largest = largest_batch(&mut File::open(&path).unwrap()).unwrap();
            let whole = i64::try_from(path.metadata().unwrap().len()).unwrap();
            assert!(whole / 3 < largest && largest <= whole / 2, "{largest} of {whole}");
            let mut file = arrow_batches(&input(&path)).unwrap();
            let (first, second) = (file.next_batch("f").unwrap(), file.next_batch("f").unwrap());
            assert_eq!((first, second), (Some(batch()), Some(batch())), "{compression:?}");
            assert_eq!(file.next_batch("f").unwrap(), None);

            let file = File::create(&path).unwrap();
            let mut writer = StreamWriter::try_new_with_options(file, &schema, options).unwrap();
            writer.write(&batch()).unwrap();
            writer.finish().unwrap();
            let mut stream = arrow_batches(&input(&path)).unwrap();
            assert_eq!(stream.next_batch("f").unwrap(), Some(batch()), "{compression:?}");
            assert_eq!(stream.next_batch("f").unwrap(), None);
        }
    }

    #[test]
    fn what_is_no_arrow_or_is_cut_short_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.arrow");
        let mut whole = Vec::new();
        let mut writer = FileWriter::try_new(&mut whole, &batch().schema()).unwrap();
        writer.write(&batch()).unwrap();
        writer.finish().unwrap();
        drop(writer);
        for bytes in [b"".as_slice(), b"no Arrow at all", b"ARROW1", &whole[..whole.len() / 2]] {
            std::fs::write(&path, bytes).unwrap();
            let error = match arrow_batches(&input(&path)) {
                Ok(mut opened) => opened.next_batch("events.arrow").unwrap_err(),
                Err(error) => error,
            };
            assert!(error.to_string().contains("events.arrow"), "{error}");
        }
    }
}
