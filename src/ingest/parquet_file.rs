//! Parquet files as batches of rows, within bounds whatever their metadata says.
//!
//! Texts are read as views, so that one of a dictionary is held once, however often it occurs. Old
//! instants of 96 bits are read as microseconds: as nanoseconds, which is what the format says, those
//! of years after 2262 would wrap.

use std::fmt::Display;
use std::fs::File;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::basic::{Encoding, Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};

use super::input::Input;
use super::source::ROWS_AT_ONCE;
use crate::caught::caught;
use crate::error::{Error, Result};

/// Most rows where a few bytes of the file may stand for long texts.
const LONG_ROWS: usize = 1_024;
/// Bytes that a batch of rows may take decoded.
const BATCH_BYTES: u64 = 32 << 20;
/// Bytes of a row, on average over a group of rows, that are more than any event has.
const ROW_MAX_BYTES: u64 = 16 << 20;

/// Rows for each byte of a file, at most: events have keys of their own, which even differences of
/// differences do not pack any better.
const ROWS_PER_BYTE: u64 = 1_000;
/// Rows that a file of any size may have.
const ROWS_FREE: u64 = 100_000;

/// Most rows that a file of so many bytes may tell of. What takes no bytes could be told of for ever.
pub(super) fn rows_max(file_bytes: u64, rows_per_byte: u64) -> u64 {
    file_bytes.saturating_mul(rows_per_byte).saturating_add(ROWS_FREE)
}

/// The rows of a file.
pub(super) struct ParquetRows(ParquetRecordBatchReader);

/// Opens an input as a Parquet file.
///
/// # Errors
/// An input that cannot be opened, is no Parquet file, contradicts itself, or has rows that no event
/// can be made of.
pub(super) fn parquet_rows(input: &Input) -> Result<ParquetRows> {
    let invalid = |error: &dyn Display| {
        Error::invalid(format!("{}: not readable as Parquet: {error}", input.name))
    };
    let file = input.to_file()?;
    match caught(|| opened(file)) {
        None => Err(invalid(&"it contradicts itself")),
        Some(opened) => opened.map(ParquetRows).map_err(|error| invalid(&error)),
    }
}

impl ParquetRows {
    /// The next rows, of which the first is number `next`; `None` at the end.
    ///
    /// # Errors
    /// A broken file.
    pub(super) fn next_rows(&mut self, name: &str, next: u64) -> Result<Option<RecordBatch>> {
        let broken = |error: &dyn Display| {
            Error::invalid(format!("{name}: row {next}: broken Parquet: {error}"))
        };
        match caught(|| self.0.next().transpose()) {
            None => Err(broken(&"a page contradicts itself")),
            Some(rows) => rows.map_err(|error| broken(&error)),
        }
    }
}

fn opened(file: File) -> Result<ParquetRecordBatchReader, ParquetError> {
    let options = ArrowReaderOptions::new();
    let mut metadata = ArrowReaderMetadata::load(&file, options.clone())?;
    check(metadata.metadata(), file.metadata()?.len())?;
    let leaves = metadata.metadata().file_metadata().schema_descr();
    let mut leaves = leaves.columns().iter().map(|leaf| leaf.physical_type());
    let fields: Vec<FieldRef> =
        metadata.schema().fields().iter().map(|field| retyped(field, &mut leaves)).collect();
    let wanted = Schema::new_with_metadata(fields, metadata.schema().metadata().clone());
    if wanted != **metadata.schema() {
        let options = options.with_schema(Arc::new(wanted));
        metadata = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options)?;
    }
    let rows = metadata.metadata().row_groups().iter().map(rows_at_once).min();
    let rows = rows.unwrap_or(ROWS_AT_ONCE);
    ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata).with_batch_size(rows).build()
}

/// Refuses metadata that the library would believe to the loss of rows, or of all memory.
fn check(metadata: &ParquetMetaData, file_bytes: u64) -> Result<(), ParquetError> {
    let groups: i64 = metadata.row_groups().iter().map(RowGroupMetaData::num_rows).sum();
    let all = metadata.file_metadata().num_rows();
    if groups != all {
        let text = format!("the footer tells of {all} rows, its groups of {groups}");
        return Err(ParquetError::General(text));
    }
    if count(all) > rows_max(file_bytes, ROWS_PER_BYTE) {
        let text = format!("it tells of {all} rows in {file_bytes} bytes");
        return Err(ParquetError::General(text));
    }
    match metadata.row_groups().iter().map(row_bytes).max() {
        Some(bytes) if bytes > ROW_MAX_BYTES => Err(ParquetError::General(format!(
            "it has rows of {} MiB each, an event has at most 1",
            bytes >> 20
        ))),
        _ => Ok(()),
    }
}

/// The field with texts as views and 96-bit instants as microseconds, at any depth. `leaves` are the
/// columns of the file from the field's first on, in the order of the schema.
fn retyped(field: &FieldRef, leaves: &mut impl Iterator<Item = Type>) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|field| retyped(field, leaves)).collect())
        }
        DataType::List(item) => DataType::List(retyped(item, leaves)),
        DataType::LargeList(item) => DataType::LargeList(retyped(item, leaves)),
        DataType::FixedSizeList(item, size) => {
            DataType::FixedSizeList(retyped(item, leaves), *size)
        }
        // Rows are written as JSON by the names of a map's keys, which a view is not taken for.
        DataType::Map(entries, sorted) => DataType::Map(map_entries(entries, leaves), *sorted),
        leaf => match (leaf, leaves.next()) {
            (DataType::Utf8 | DataType::LargeUtf8, _) => DataType::Utf8View,
            (DataType::Binary | DataType::LargeBinary, _) => DataType::BinaryView,
            (DataType::Timestamp(TimeUnit::Nanosecond, zone), Some(Type::INT96)) => {
                DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
            }
            (other, _) => other.clone(),
        },
    };
    Arc::new(field.as_ref().clone().with_data_type(data_type))
}

fn map_entries(entries: &FieldRef, leaves: &mut impl Iterator<Item = Type>) -> FieldRef {
    let DataType::Struct(fields) = entries.data_type() else { return Arc::clone(entries) };
    let fields = fields.iter().enumerate().map(|(place, field)| {
        let wanted = retyped(field, leaves);
        if place == 0 { Arc::clone(field) } else { wanted }
    });
    let data_type = DataType::Struct(fields.collect());
    Arc::new(Field::new(entries.name(), data_type, entries.is_nullable()))
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Bytes of a row as the file has them unpacked, on average over a group.
fn row_bytes(group: &RowGroupMetaData) -> u64 {
    count(group.total_byte_size()) / count(group.num_rows()).max(1)
}

/// How many rows of a group stay within the bytes of a batch, as far as its metadata tells.
fn rows_at_once(group: &RowGroupMetaData) -> usize {
    // A value takes at least the width of a view, however well the file packs it.
    let values: u64 = group.columns().iter().map(|column| count(column.num_values())).sum();
    let bytes = count(group.total_byte_size()).max(values.saturating_mul(16));
    let per_row = (bytes / count(group.num_rows()).max(1)).max(1);
    let most = if group.columns().iter().any(may_be_long) { LONG_ROWS } else { ROWS_AT_ONCE };
    usize::try_from(BATCH_BYTES / per_row).unwrap_or(most).clamp(1, most)
}

/// Whether texts of this column may take much more memory than their bytes in the file: dictionary
/// pages or shared beginnings, with more text per value than a short word where that is known.
fn may_be_long(column: &ColumnChunkMetaData) -> bool {
    let texts = matches!(column.column_type(), Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY);
    let known = column.unencoded_byte_array_data_bytes();
    let short = known.is_some_and(|bytes| bytes / column.num_values().max(1) <= 256);
    let shared = column.encodings().any(|encoding| encoding == Encoding::DELTA_BYTE_ARRAY);
    let dictionary = column.dictionary_page_offset().is_some();
    let pages = column.uncompressed_size() > 64 << 10;
    texts && !short && (shared || (dictionary && pages))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, StringArray, StructArray};

    use super::*;
    use crate::ingest::input::InputFormat;

    fn rows_of(batch: &RecordBatch) -> (tempfile::TempDir, ParquetRows) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let file = File::create(&path).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
        let rows = parquet_rows(&Input::file("a", path, InputFormat::Parquet)).unwrap();
        (folder, rows)
    }

    #[test]
    fn a_long_text_of_a_dictionary_is_read_in_small_batches_and_held_once() {
        let texts = vec!["x".repeat(200_000); 3_000];
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(&texts));
        let field = Arc::new(Field::new("s", DataType::Utf8, false));
        let nested: ArrayRef = Arc::new(StructArray::from(vec![(field, Arc::clone(&texts))]));
        for column in [texts, nested] {
            let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
            let (_folder, mut rows) = rows_of(&batch);
            let mut read = 0;
            while let Some(batch) = rows.next_rows("a", 1).unwrap() {
                assert!(batch.num_rows() <= LONG_ROWS);
                assert!(batch.get_array_memory_size() < 4 << 20);
                read += batch.num_rows();
            }
            assert_eq!(read, 3_000);
        }
    }

    #[test]
    fn what_panics_in_a_library_is_an_error() {
        assert_eq!(caught(|| 1), Some(1));
        let none: Option<i32> = caught(|| [1, 2][usize::MAX.wrapping_add(3).max(7)]);
        assert_eq!(none, None);
    }
}
