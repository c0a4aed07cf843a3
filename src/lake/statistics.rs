//! What the log says about the columns of each file, ready to prune over.
//!
//! One array per column and statistic, aligned with the snapshot's list of files. Bounds are bounds,
//! not values: texts are cut, and instants widened by what the log cannot hold. Null where the log
//! says nothing.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StructArray, TimestampMicrosecondArray,
    UInt64Array, new_null_array,
};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{
    DataType, Field, Fields, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
    UInt64Type,
};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;

use crate::error::{Error, Result};
use crate::lake::log::AddedFile;
use crate::lake::snapshot::DataFile;

/// The log cuts instants to milliseconds.
const CUT_OFF_MICROS: i64 = 999;

/// Statistics of the columns of a list of files.
#[derive(Debug, Clone)]
pub struct FileStatistics {
    /// `rows`, then `nulls.<column>`, `min.<column>` and `max.<column>`.
    columns: RecordBatch,
}

impl FileStatistics {
    /// Lower bounds of a column's values, of the column's type.
    pub fn min(&self, column: &str) -> Option<ArrayRef> {
        self.columns.column_by_name(&format!("min.{column}")).cloned()
    }

    /// Upper bounds of a column's values, of the column's type.
    pub fn max(&self, column: &str) -> Option<ArrayRef> {
        self.columns.column_by_name(&format!("max.{column}")).cloned()
    }

    /// How many of a file's rows are null in a column (`UInt64`). A file written before the column
    /// existed has as many as it has rows.
    pub fn null_count(&self, column: &str) -> Option<ArrayRef> {
        self.columns.column_by_name(&format!("nulls.{column}")).cloned()
    }

    /// How many rows the files have (`UInt64`), never null.
    pub fn row_counts(&self) -> ArrayRef {
        Arc::clone(self.columns.column(0))
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.columns.num_rows()
    }

    /// Whether there are no files.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Understands the log's statistics of `files`, which have the columns `schema` at most.
    pub(super) fn parse(schema: &Schema, files: &[AddedFile]) -> Result<Self> {
        let log_schema = log_schema(schema);
        let parsed = decode(&log_schema, files.iter().map(|file| file.statistics.as_str()))
            .map_err(|error| name_damaged(&log_schema, files, error))?;
        let unknown = (0..files.len()).find(|&row| parsed.column(0).is_null(row));
        if let Some(file) = unknown.and_then(|row| files.get(row)) {
            return Err(Error::invalid(format!(
                "the log does not say how many rows {} has",
                file.path
            )));
        }
        let columns = flatten(&parsed, schema, files).map_err(internal)?;
        Ok(Self { columns })
    }

    /// The same files with the columns of `schema`, of which some may be new.
    pub(super) fn widen(&self, schema: &Schema, files: &[DataFile]) -> Result<Self> {
        let wide = flat_schema(schema);
        if wide == self.columns.schema() {
            return Ok(self.clone());
        }
        let rows = self.columns.column(0).as_primitive::<UInt64Type>();
        let arrays = wide.fields().iter().map(|field| {
            let known = self.columns.column_by_name(field.name()).cloned();
            known.unwrap_or_else(|| match field.name().starts_with("nulls.") {
                true => {
                    let unknown = new_null_array(&DataType::UInt64, files.len());
                    all_null_where_ours(&unknown, rows, files.iter().map(|file| &file.path))
                }
                false => new_null_array(field.data_type(), files.len()),
            })
        });
        let columns = RecordBatch::try_new(Arc::clone(&wide), arrays.collect());
        Ok(Self { columns: columns.map_err(internal)? })
    }

    /// Only the files that `keep` says.
    pub(super) fn filter(&self, keep: &BooleanArray) -> Result<Self> {
        let columns = filter_record_batch(&self.columns, keep).map_err(internal)?;
        Ok(Self { columns })
    }

    /// These files, then `more`, which has the same columns.
    pub(super) fn concat(&self, more: &Self) -> Result<Self> {
        let columns = concat_batches(&self.columns.schema(), [&self.columns, &more.columns]);
        Ok(Self { columns: columns.map_err(internal)? })
    }
}

/// Whether the log may hold a least and a greatest value of a column of this type.
pub(super) fn has_bounds(data_type: &DataType) -> bool {
    match data_type {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => true,
        DataType::Decimal128(_, _) | DataType::Utf8 | DataType::Date32 => true,
        DataType::Timestamp(TimeUnit::Microsecond, _) => true,
        // A float may be NaN, which bounds do not cover.
        _ => false,
    }
}

/// Whether our writer named the file: by its content.
///
/// It records the number of nulls of every column of a file, so that a column without one is not in
/// the file at all.
fn is_ours(path: &str) -> bool {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    name.strip_suffix(".parquet")
        .is_some_and(|stem| stem.len() == 32 && stem.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The statistics of one file as the log's JSON has them.
fn log_schema(schema: &Schema) -> SchemaRef {
    let bounded = schema.fields().iter().filter(|field| has_bounds(field.data_type()));
    let bounds: Fields = bounded.map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let count = |field: &Arc<Field>| Field::new(field.name(), DataType::Int64, true);
    let flat = schema.fields().iter().filter(|field| !field.data_type().is_nested());
    let maps = schema.fields().iter().filter(|f| matches!(f.data_type(), DataType::Map(_, _)));
    let counts: Fields = flat.chain(maps).map(count).collect();
    let group = |name, fields| Field::new(name, DataType::Struct(fields), true);
    Arc::new(Schema::new(vec![
        Field::new("numRecords", DataType::Int64, true),
        group("nullCount", counts),
        group("minValues", bounds.clone()),
        group("maxValues", bounds),
    ]))
}

fn flat_schema(schema: &Schema) -> SchemaRef {
    let log_schema = log_schema(schema);
    let mut fields = vec![Field::new("rows", DataType::UInt64, false)];
    for (group, prefix) in log_schema.fields().iter().skip(1).zip(["nulls", "min", "max"]) {
        let DataType::Struct(columns) = group.data_type() else { continue };
        for column in columns {
            let name = format!("{prefix}.{}", column.name());
            let data_type = match prefix {
                "nulls" => DataType::UInt64,
                _ => column.data_type().clone(),
            };
            fields.push(Field::new(name, data_type, true));
        }
    }
    Arc::new(Schema::new(fields))
}

fn decode<'a>(
    schema: &SchemaRef,
    texts: impl ExactSizeIterator<Item = &'a str>,
) -> Result<RecordBatch, ArrowError> {
    let rows = texts.len();
    let reader = ReaderBuilder::new(Arc::clone(schema)).with_batch_size(rows.max(1));
    let mut decoder = reader.build_decoder()?;
    for text in texts {
        let text = if text.is_empty() { "{}" } else { text };
        let consumed = decoder.decode(text.as_bytes())?;
        if consumed < text.len() || decoder.has_partial_record() {
            return Err(ArrowError::JsonError("statistics are not one JSON object".to_owned()));
        }
    }
    let decoded = decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(schema)));
    match decoded.num_rows() == rows {
        true => Ok(decoded),
        false => Err(ArrowError::JsonError("statistics are not one JSON object".to_owned())),
    }
}

/// Finds the file whose statistics cannot be understood.
fn name_damaged(schema: &SchemaRef, files: &[AddedFile], error: ArrowError) -> Error {
    for file in files {
        if let Err(error) = decode(schema, std::iter::once(file.statistics.as_str())) {
            let message = format!("the log's statistics of {} are damaged: {error}", file.path);
            return Error::corrupt(message).with_source(error);
        }
    }
    Error::corrupt(format!("the log's statistics are damaged: {error}")).with_source(error)
}

fn flatten(
    parsed: &RecordBatch,
    schema: &Schema,
    files: &[AddedFile],
) -> Result<RecordBatch, ArrowError> {
    let rows = counts(parsed.column(0));
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(rows.clone())];
    let group = |index: usize| -> &StructArray { parsed.column(index).as_struct() };
    for column in group(1).columns() {
        let nulls: ArrayRef = Arc::new(counts(column));
        arrays.push(all_null_where_ours(&nulls, &rows, files.iter().map(|file| &file.path)));
    }
    arrays.extend(group(2).columns().iter().cloned());
    arrays.extend(group(3).columns().iter().map(widened));
    RecordBatch::try_new(flat_schema(schema), arrays)
}

/// Counts as unsigned numbers; a negative one is as good as none.
fn counts(column: &ArrayRef) -> UInt64Array {
    let counts = column.as_primitive::<Int64Type>();
    counts.iter().map(|count| count.and_then(|count| u64::try_from(count).ok())).collect()
}

fn all_null_where_ours<'a>(
    nulls: &ArrayRef,
    rows: &UInt64Array,
    paths: impl Iterator<Item = &'a String>,
) -> ArrayRef {
    if nulls.null_count() == 0 {
        return Arc::clone(nulls);
    }
    let nulls = nulls.as_primitive::<UInt64Type>();
    let known = nulls.iter().zip(rows).zip(paths);
    let filled = known.map(|((nulls, rows), path)| nulls.or(rows.filter(|_| is_ours(path))));
    Arc::new(filled.collect::<UInt64Array>())
}

fn widened(max: &ArrayRef) -> ArrayRef {
    let DataType::Timestamp(TimeUnit::Microsecond, zone) = max.data_type() else {
        return Arc::clone(max);
    };
    let micros = max.as_primitive::<TimestampMicrosecondType>();
    let widened: TimestampMicrosecondArray =
        micros.unary(|micros| micros.saturating_add(CUT_OFF_MICROS));
    Arc::new(widened.with_timezone_opt(zone.clone()))
}

fn internal(error: ArrowError) -> Error {
    Error::internal(format!("statistics of files do not fit together: {error}")).with_source(error)
}
