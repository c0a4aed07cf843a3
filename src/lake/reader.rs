//! Data files of a table, read back row by row.
//!
//! For what works on the rows as they are stored: the key index, the quarantine, compaction, checks.
//! Questions are answered by the engine's own reader.

use arrow::array::RecordBatch;
use bytes::Bytes;
use object_store::ObjectStoreExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
};

use parquet::file::metadata::RowGroupMetaData;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::table::Table;
use crate::lake::verify::{is_hash, wrong_hash};

/// Rows that are decoded at a time, unless the caller says otherwise.
pub const BATCH_ROWS: usize = 8_192;

/// One Parquet file of a table, in memory as it is stored.
pub struct StoredFile {
    name: String,
    bytes: Bytes,
}

impl StoredFile {
    /// Fetches a file of `table`.
    ///
    /// # Errors
    /// A file that is missing or is not what was written; a store that cannot be read.
    pub async fn get(table: &Table, path: &str) -> Result<Self> {
        let name = format!("{}/{path}", table.display());
        let got = table.location().store.get(&table.object_path(path)?).await;
        let bytes = match got {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        let bytes = bytes.map_err(|error| {
            let kind = match error {
                object_store::Error::NotFound { .. } => ErrorKind::Corrupt,
                _ => ErrorKind::Unavailable,
            };
            Error::new(kind, format!("{name}: cannot be read: {error}")).with_source(error)
        })?;
        // Files of other programs have other names.
        let wrong = if is_hash(path) { wrong_hash(path, &bytes) } else { None };
        match wrong {
            Some(wrong) => Err(Error::corrupt(format!("{name}: damaged data file: {wrong}"))),
            None => Ok(Self { name, bytes }),
        }
    }

    /// The named columns, in the order of the file, of chosen rows; `None` chooses all.
    ///
    /// # Errors
    /// A damaged file, or one without a named column.
    pub fn rows(
        &self,
        columns: Option<&[&str]>,
        rows: Option<RowSelection>,
        batch_rows: usize,
    ) -> Result<ParquetRecordBatchReader> {
        let wanted = |name: &str| columns.is_none_or(|columns| columns.contains(&name));
        let reader = self.rows_of(wanted, rows, batch_rows)?;
        let found = arrow::array::RecordBatchReader::schema(&reader);
        match columns.into_iter().flatten().find(|name| found.field_with_name(name).is_err()) {
            Some(missing) => Err(self.damaged(&format!("it has no column `{missing}`"))),
            None => Ok(reader),
        }
    }

    /// The wanted columns, as far as the file has them, in batches of `batch_rows`.
    ///
    /// # Errors
    /// A damaged file.
    pub fn rows_of(
        &self,
        wanted: impl Fn(&str) -> bool,
        rows: Option<RowSelection>,
        batch_rows: usize,
    ) -> Result<ParquetRecordBatchReader> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(self.bytes.clone())
            .map_err(|error| self.damaged(&error))?;
        let fields = builder.schema().fields().iter().enumerate();
        let wanted: Vec<usize> =
            fields.filter(|(_, field)| wanted(field.name())).map(|(at, _)| at).collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
        let builder = builder.with_projection(mask).with_batch_size(batch_rows);
        let builder = match rows {
            Some(rows) => builder.with_row_selection(rows),
            None => builder,
        };
        builder.build().map_err(|error| self.damaged(&error))
    }

    /// The bytes of a row in memory, on average over the group of rows where they are most, as far
    /// as the footer tells.
    ///
    /// # Errors
    /// A damaged file.
    pub fn row_bytes(&self) -> Result<usize> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(self.bytes.clone())
            .map_err(|error| self.damaged(&error))?;
        let of_group = |group: &RowGroupMetaData| {
            let columns = group.columns().iter().map(|column| {
                // A text that a dictionary holds once is in memory as often as it occurs.
                let texts = column.unencoded_byte_array_data_bytes().unwrap_or(0);
                column.uncompressed_size().max(texts)
            });
            columns.sum::<i64>() / group.num_rows().max(1)
        };
        let most = builder.metadata().row_groups().iter().map(of_group).max().unwrap_or(0);
        Ok(usize::try_from(most).unwrap_or(0))
    }

    /// A batch that was read, or the damage that prevented it.
    ///
    /// # Errors
    /// A damaged file.
    pub fn checked(
        &self,
        batch: Result<RecordBatch, arrow::error::ArrowError>,
    ) -> Result<RecordBatch> {
        batch.map_err(|error| self.damaged(&error))
    }

    /// The error that says what is wrong with the file.
    pub fn damaged(&self, error: &dyn std::fmt::Display) -> Error {
        Error::corrupt(format!("{}: damaged data file: {error}", self.name))
    }
}
