//! Turns batches of rows into Parquet files.
//!
//! Encodes into memory and knows no store; [`Table::stage`] puts a finished file where it belongs,
//! under a name that is a hash of its content. Keeps rows as they come: sorting them and giving each
//! partition a writer of its own is the caller's. Commits nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowNumericType, AsArray, RecordBatch};
use arrow::compute::{cast, max, max_string, min, min_string};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, DecimalType, Int64Type, Schema, SchemaRef,
    TimestampMicrosecondType,
};
use bytes::Bytes;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaData, SortingColumn};
use parquet::file::properties::{
    DEFAULT_DATA_PAGE_ROW_COUNT_LIMIT, DEFAULT_DICTIONARY_PAGE_SIZE_LIMIT, DEFAULT_PAGE_SIZE,
    EnabledStatistics, WriterProperties,
};
use parquet::schema::types::ColumnPath;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::lake::checksums::{WITNESS, with_checksums};
use crate::lake::commit::date_text;
use crate::lake::kernel::store_error;
use crate::lake::put::{PART_BYTES, put_once, put_parts};
use crate::lake::staged::{ColumnStatistics, StagedFile};
use crate::lake::statistics::has_bounds;
use crate::lake::table::Table;

/// Rows of a row group.
pub const ROW_GROUP_ROWS: usize = 122_880;
/// A file is closed when it has about this many bytes, unless a [`Layout`] says otherwise.
pub const TARGET_BYTES: usize = 64 << 20;

/// Under what the stamp stands in a footer.
const STAMP: &str = "meterhouse.stamp";
const CREATED_BY: &str = concat!("meterhouse ", env!("CARGO_PKG_VERSION"));
const COMPRESSION_LEVEL: i32 = 1;
const BLOOM_FILTER_FPP: f64 = 0.01;
/// Bounds of texts in the log are cut to this many bytes, as Delta's writers do.
const MAX_BOUND_BYTES: usize = 32;

/// How a table's files are written. Names of columns that a file lacks are passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The columns by which the rows come sorted: ascending, nulls first.
    pub sorted_by: Vec<String>,
    /// Texts of whose pages the bounds are written, though rows do not come sorted by them.
    pub paged: Vec<String>,
    /// The column that gets a Bloom filter.
    pub bloom_filter: Option<String>,
    /// Integers and instants that are stored as differences.
    pub delta_packed: Vec<String>,
    /// Columns whose values hardly repeat: no dictionary.
    pub no_dictionary: Vec<String>,
    /// Columns that compressing does not make smaller.
    pub uncompressed: Vec<String>,
    /// How large the pages get.
    pub pages: Pages,
    /// When a file is closed, in compressed bytes, roughly.
    pub target_bytes: usize,
    /// A text of which no two writers have the same, so that no file is named like one that was
    /// there before and may be about to be deleted.
    pub stamp: Option<String>,
}

/// How large pages get: a page is the least that is decoded of a column, and so is its dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pages {
    /// Rows of a page.
    pub rows: usize,
    /// Bytes of a page before they are compressed, roughly.
    pub bytes: usize,
    /// Bytes of a dictionary, from which on values are written as they are.
    pub dictionary_bytes: usize,
}

impl Default for Pages {
    fn default() -> Self {
        Self {
            rows: DEFAULT_DATA_PAGE_ROW_COUNT_LIMIT,
            bytes: DEFAULT_PAGE_SIZE,
            dictionary_bytes: DEFAULT_DICTIONARY_PAGE_SIZE_LIMIT,
        }
    }
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            sorted_by: Vec::new(),
            paged: Vec::new(),
            bloom_filter: None,
            delta_packed: Vec::new(),
            no_dictionary: Vec::new(),
            uncompressed: Vec::new(),
            pages: Pages::default(),
            target_bytes: TARGET_BYTES,
            stamp: None,
        }
    }
}

/// A finished file that lies nowhere yet.
#[derive(Debug, Clone)]
pub struct EncodedFile {
    /// The content.
    pub bytes: Bytes,
    /// How many rows it has.
    pub rows: u64,
    /// The value of the partition column, in days since 1970.
    pub partition: Option<i32>,
    /// What is known of its columns.
    pub stats: ColumnStatistics,
}

/// Writes the rows of one partition, in the order they come, to one file after the other.
pub struct ParquetFileWriter {
    schema: SchemaRef,
    properties: WriterProperties,
    partition: Option<i32>,
    target_bytes: usize,
    open: Option<OpenFile>,
}

struct OpenFile {
    writer: ArrowWriter<Vec<u8>>,
    rows: u64,
    /// Of each column.
    nulls: Vec<u64>,
}

impl ParquetFileWriter {
    /// A writer of files with the columns `schema`, the partition column not among them.
    pub fn new(schema: SchemaRef, layout: &Layout, partition: Option<i32>) -> Result<Self> {
        Ok(Self {
            properties: properties(&schema, layout).map_err(encoding)?,
            target_bytes: layout.target_bytes,
            schema,
            partition,
            open: None,
        })
    }

    /// Takes rows; gives the files that they filled.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<Vec<EncodedFile>> {
        if rows.schema().fields() != self.schema.fields() {
            return Err(Error::internal(format!(
                "rows with the columns {} do not fit a file with the columns {}",
                rows.schema(),
                self.schema
            )));
        }
        let mut finished = Vec::new();
        for start in (0..rows.num_rows()).step_by(ROW_GROUP_ROWS) {
            let length = ROW_GROUP_ROWS.min(rows.num_rows() - start);
            finished.extend(self.write_part(&rows.slice(start, length))?);
        }
        Ok(finished)
    }

    /// The bytes of the file under way that are held, roughly.
    pub fn bytes(&self) -> usize {
        let held = |file: &OpenFile| file.writer.bytes_written() + file.writer.memory_size();
        self.open.as_ref().map_or(0, held)
    }

    /// Ends the row group under way, if it has that many rows at least.
    pub fn end_row_group(&mut self, rows_min: usize) -> Result<()> {
        match &mut self.open {
            Some(file) if file.writer.in_progress_rows() >= rows_min => {
                file.writer.flush().map_err(encoding)
            }
            _ => Ok(()),
        }
    }

    /// The last file, if there are rows that [`Self::write`] has not given back.
    pub fn finish(mut self) -> Result<Option<EncodedFile>> {
        self.open.take().map(|file| self.close(file)).transpose()
    }

    fn write_part(&mut self, rows: &RecordBatch) -> Result<Option<EncodedFile>> {
        let mut file = match self.open.take() {
            Some(file) => file,
            None => self.open_file()?,
        };
        file.writer.write(rows).map_err(encoding)?;
        file.rows += length(rows.num_rows());
        for (nulls, column) in file.nulls.iter_mut().zip(rows.columns()) {
            *nulls += length(column.logical_null_count());
        }
        if file.writer.bytes_written() + file.writer.in_progress_size() < self.target_bytes {
            self.open = Some(file);
            return Ok(None);
        }
        self.close(file).map(Some)
    }

    fn open_file(&self) -> Result<OpenFile> {
        let properties = Some(self.properties.clone());
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&self.schema), properties);
        let nulls = vec![0; self.schema.fields().len()];
        Ok(OpenFile { writer: writer.map_err(encoding)?, rows: 0, nulls })
    }

    fn close(&self, mut file: OpenFile) -> Result<EncodedFile> {
        let footer = file.writer.finish().map_err(encoding)?;
        let bytes = std::mem::take(file.writer.inner_mut());
        let (min, max) = bounds(&self.schema, &footer).map_err(encoding)?;
        let names = self.schema.fields().iter().map(|field| field.name().clone());
        Ok(EncodedFile {
            bytes: with_checksums(bytes).into(),
            rows: file.rows,
            partition: self.partition,
            stats: ColumnStatistics { null_count: names.zip(file.nulls).collect(), min, max },
        })
    }
}

impl Table {
    /// Puts a file into the table's folder, to be committed.
    ///
    /// The name is a hash of the content: that the file is there already is as good as putting it.
    pub async fn stage(&self, file: EncodedFile) -> Result<StagedFile> {
        let EncodedFile { bytes, rows, partition, stats } = file;
        let hash = blake3::hash(&bytes).to_hex();
        let name = hash.get(..32).unwrap_or(hash.as_str());
        let path = match self.partition() {
            None => format!("{name}.parquet"),
            Some(column) => {
                let date = partition.and_then(date_text).ok_or_else(|| {
                    let value = partition.map_or("nothing".to_owned(), |days| days.to_string());
                    Error::invalid(format!("{value} cannot be the {column} of a file"))
                })?;
                format!("{column}={date}/{name}.parquet")
            }
        };
        let size = length(bytes.len());
        self.put_new(&path, bytes).await?;
        Ok(StagedFile { path, size, rows, partition, stats })
    }

    async fn put_new(&self, path: &str, bytes: Bytes) -> Result<()> {
        let what = || format!("writing {}/{path}", self.display());
        let (store, place) = (&self.location().store, self.object_path(path)?);
        if bytes.len() > PART_BYTES {
            let put = put_parts(store.as_ref(), &place, &bytes).await;
            return put.map_err(|error| store_error(what(), error));
        }
        let size = length(bytes.len());
        let put = put_once(store.as_ref(), &place, &bytes).await;
        match put.map_err(|error| store_error(what(), error))? {
            Some(there) if there.size != size => Err(Error::corrupt(format!(
                "{}/{path} has {} bytes, the content it is named by has {size}",
                self.display(),
                there.size
            ))),
            _ => Ok(()),
        }
    }
}

fn properties(schema: &Schema, layout: &Layout) -> Result<WriterProperties, ParquetError> {
    let mut builder = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(COMPRESSION_LEVEL)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(layout.pages.rows)
        .set_data_page_size_limit(layout.pages.bytes)
        .set_dictionary_page_size_limit(layout.pages.dictionary_bytes)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_sorting_columns(sorting_columns(schema, layout)?)
        .set_key_value_metadata(Some(told(layout)));
    for field in schema.fields() {
        let (name, column) = (field.name(), ColumnPath::from(field.name().as_str()));
        let paged = layout.sorted_by.contains(name) || layout.paged.contains(name);
        if paged || has_page_statistics(field.data_type()) {
            let page = EnabledStatistics::Page;
            builder = builder.set_column_statistics_enabled(column.clone(), page);
        }
        if layout.delta_packed.contains(name) {
            builder = builder
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column.clone(), Encoding::DELTA_BINARY_PACKED);
        }
        if layout.no_dictionary.contains(name) {
            builder = builder.set_column_dictionary_enabled(column.clone(), false);
        }
        if layout.uncompressed.contains(name) {
            let none = Compression::UNCOMPRESSED;
            builder = builder.set_column_compression(column.clone(), none);
        }
        if layout.bloom_filter.as_ref() == Some(name) {
            // Sized for a full row group; the writer folds it to what the rows need.
            builder = builder
                .set_column_bloom_filter_fpp(column.clone(), BLOOM_FILTER_FPP)
                .set_column_bloom_filter_max_ndv(column, length(ROW_GROUP_ROWS));
        }
    }
    Ok(builder.build())
}

/// What the footer says beside what readers of Parquet know.
fn told(layout: &Layout) -> Vec<KeyValue> {
    let stamp = layout.stamp.clone().map(|stamp| KeyValue::new(STAMP.to_owned(), stamp));
    let checksums = KeyValue::new(WITNESS.to_owned(), "crc32".to_owned());
    stamp.into_iter().chain([checksums]).collect()
}

fn has_page_statistics(data_type: &DataType) -> bool {
    has_bounds(data_type) && *data_type != DataType::Utf8
}

fn sorting_columns(
    schema: &Schema,
    layout: &Layout,
) -> Result<Option<Vec<SortingColumn>>, ParquetError> {
    let leaves = ArrowSchemaConverter::new().convert(schema)?;
    let mut sorting = Vec::new();
    for name in &layout.sorted_by {
        let place = leaves.columns().iter().position(|leaf| leaf.path().string() == *name);
        // A column that is not there is null throughout: the order goes on behind it.
        let Some(place) = place else { continue };
        let column_idx = i32::try_from(place)
            .map_err(|_| ParquetError::General(format!("`{name}` is column {place}")))?;
        sorting.push(SortingColumn { column_idx, descending: false, nulls_first: true });
    }
    Ok(Some(sorting).filter(|sorting| !sorting.is_empty()))
}

type Bounds = BTreeMap<String, Value>;

/// Lower and upper bounds of the columns, from the statistics of the row groups.
fn bounds(schema: &Schema, footer: &ParquetMetaData) -> Result<(Bounds, Bounds), ParquetError> {
    let (mut lower, mut upper) = (Bounds::new(), Bounds::new());
    let leaves = footer.file_metadata().schema_descr();
    for field in schema.fields().iter().filter(|field| has_bounds(field.data_type())) {
        let converter = StatisticsConverter::try_new(field.name(), schema, leaves)?;
        let mins = converter.row_group_mins(footer.row_groups())?;
        let maxes = converter.row_group_maxes(footer.row_groups())?;
        if let Some(bound) = bound(&mins, End::Lower)? {
            lower.insert(field.name().clone(), bound);
        }
        // A row group that is not null throughout and has no maximum leaves the column without one.
        if maxes.null_count() == mins.null_count()
            && let Some(bound) = bound(&maxes, End::Upper)?
        {
            upper.insert(field.name().clone(), bound);
        }
    }
    Ok((lower, upper))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Lower,
    Upper,
}

/// The outermost of some bounds, as JSON that a column of this type reads back exactly.
fn bound(values: &ArrayRef, end: End) -> Result<Option<Value>, ParquetError> {
    Ok(match values.data_type() {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            outermost::<Int64Type>(&cast(values, &DataType::Int64)?, end).map(Value::from)
        }
        DataType::Timestamp(_, _) => {
            outermost::<TimestampMicrosecondType>(values, end).map(Value::from)
        }
        DataType::Date32 => {
            outermost::<Date32Type>(values, end).and_then(date_text).map(Value::from)
        }
        DataType::Decimal128(precision, scale) => outermost::<Decimal128Type>(values, end)
            .map(|value| Decimal128Type::format_decimal(value, *precision, *scale).into()),
        DataType::Utf8 => match end {
            End::Lower => min_string(values.as_string::<i32>()).map(lower_text).map(Value::from),
            End::Upper => {
                max_string(values.as_string::<i32>()).and_then(upper_text).map(Value::from)
            }
        },
        _ => None,
    })
}

fn outermost<T: ArrowNumericType>(values: &ArrayRef, end: End) -> Option<T::Native> {
    match end {
        End::Lower => min(values.as_primitive::<T>()),
        End::Upper => max(values.as_primitive::<T>()),
    }
}

/// The longest beginning of `text` that the log takes.
fn lower_text(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_BOUND_BYTES)).unwrap_or_default()
}

/// A text of about the same length that is no less than any text with that beginning.
fn upper_text(text: &str) -> Option<String> {
    let beginning = lower_text(text);
    match text.get(beginning.len()..)?.chars().next() {
        None => Some(text.to_owned()),
        // Nothing is greater than the greatest character.
        Some(char::MAX) => None,
        Some(_) => Some(format!("{beginning}{}", char::MAX)),
    }
}

fn length(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn encoding(error: ParquetError) -> Error {
    Error::internal(format!("encoding a Parquet file: {error}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::Field;
    use parquet::file::reader::FileReader;
    use parquet::file::serialized_reader::{ReadOptionsBuilder, SerializedFileReader};

    fn numbered(from: i64, rows: usize) -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("number", DataType::Int64, false),
            Field::new("note", DataType::Utf8, true),
        ]);
        let numbers: Vec<i64> = (from..).take(rows).collect();
        // Keys as good as random, so that they do not compress.
        let key = |number: &i64| blake3::hash(&number.to_le_bytes()).to_hex().to_string();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(numbers.iter().map(key))),
            Arc::new(Int64Array::from(numbers)),
            Arc::new(StringArray::from(vec![None::<&str>; rows])),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    fn layout(target_bytes: usize) -> Layout {
        Layout {
            sorted_by: vec!["number".to_owned(), "absent".to_owned()],
            bloom_filter: Some("key".to_owned()),
            delta_packed: vec!["number".to_owned()],
            no_dictionary: vec!["key".to_owned()],
            target_bytes,
            ..Layout::default()
        }
    }

    #[test]
    fn files_are_laid_out_as_told() {
        let rows = numbered(0, ROW_GROUP_ROWS + 10);
        let mut writer = ParquetFileWriter::new(rows.schema(), &layout(1 << 30), None).unwrap();
        assert!(writer.write(&rows).unwrap().is_empty());
        let file = writer.finish().unwrap().unwrap();
        let options = ReadOptionsBuilder::new().with_page_index().build();
        let reader = SerializedFileReader::new_with_options(file.bytes, options).unwrap();
        let footer = reader.metadata();
        assert_eq!(footer.file_metadata().created_by(), Some(CREATED_BY));
        let row_counts: Vec<i64> = footer.row_groups().iter().map(|g| g.num_rows()).collect();
        assert_eq!(row_counts, [122_880, 10]);
        assert!(footer.column_index().is_some() && footer.offset_index().is_some());
        for group in footer.row_groups() {
            let sorting = SortingColumn { column_idx: 1, descending: false, nulls_first: true };
            assert_eq!(group.sorting_columns(), Some(&vec![sorting]));
            let [key, number, note] = group.columns() else { panic!("three columns") };
            assert!(key.bloom_filter_offset().is_some() && number.bloom_filter_offset().is_none());
            assert!(key.dictionary_page_offset().is_none());
            assert!(number.encodings().any(|found| found == Encoding::DELTA_BINARY_PACKED));
            assert!(matches!(number.compression(), Compression::ZSTD(_)));
            assert_eq!(note.statistics().unwrap().null_count_opt(), Some(group.num_rows() as u64));
        }
        let small = footer.row_group(1).column(0).bloom_filter_length().unwrap();
        assert!(small < 256, "a filter of ten keys has {small} bytes");
        assert_eq!(file.rows, 122_890);
        assert_eq!(file.stats.null_count["note"], 122_890);
        assert_eq!(file.stats.min["number"], 0);
        assert_eq!(file.stats.max["number"], 122_889);
        assert!(!file.stats.min.contains_key("note"));
    }

    #[test]
    fn a_full_file_is_followed_by_another() {
        let schema = numbered(0, 0).schema();
        let mut writer = ParquetFileWriter::new(schema, &layout(1 << 20), None).unwrap();
        let mut files = Vec::new();
        for turn in 0..20 {
            files.extend(writer.write(&numbered(turn * 10_000, 10_000)).unwrap());
        }
        files.extend(writer.finish().unwrap());
        assert!(files.len() > 4, "{}", files.len());
        assert_eq!(files.iter().map(|file| file.rows).sum::<u64>(), 200_000);
        let (_, full) = files.split_last().unwrap();
        for file in full {
            assert!(file.bytes.len() > 700_000 && file.bytes.len() < 2_000_000);
        }
        let firsts: Vec<_> = files.iter().map(|file| file.stats.min["number"].as_i64()).collect();
        assert!(firsts.is_sorted());
    }

    #[test]
    fn rows_with_other_columns_are_refused() {
        let rows = numbered(0, 1);
        let mut writer = ParquetFileWriter::new(rows.schema(), &layout(1), None).unwrap();
        assert!(writer.write(&rows.project(&[0]).unwrap()).is_err());
    }

    #[test]
    fn bounds_of_texts_are_short_and_hold() {
        let long = "x".repeat(40);
        let wide = "ü".repeat(20);
        let greatest = format!("{}{}", "x".repeat(32), char::MAX);
        for text in ["", "a", &long, &wide, &"y".repeat(32)] {
            let (lower, upper) = (lower_text(text), upper_text(text).unwrap());
            assert!(lower <= text && text <= upper.as_str(), "{text}: {lower} {upper}");
            assert!(lower.len() <= MAX_BOUND_BYTES && upper.len() <= MAX_BOUND_BYTES + 4);
        }
        assert_eq!(upper_text(&greatest), None);
    }
}
