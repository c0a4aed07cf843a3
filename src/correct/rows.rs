//! Rows that a correction makes, written as they add up.
//!
//! A row has the order of receipt of the one whose place it takes: the event is the same one, and no
//! other row that counts has that place.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Date32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{Field, Int64Type, Schema, TimestampMicrosecondType};
use arrow::error::ArrowError;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::change::value_bytes;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::ingest::restore::{RowMaker, instant};
use crate::lake::layout::layout_for;
use crate::lake::staged::StagedFile;
use crate::lake::table::Table;
use crate::lake::writer::{Layout, ParquetFileWriter};
use crate::schema::{
    CUSTOMER_ID, EVENT_NAME, INGESTED_AT, MADE_BY, ORDINAL, TIMESTAMP, TIMESTAMP_SOURCE,
    correction_fields,
};
use crate::time::Timestamp;

/// Rows that are written together, at most.
const ROWS_MAX: usize = 65_536;

/// What a row takes over from the one whose place it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Receipt {
    ingested_at: i64,
    ordinal: i64,
    /// When the event happened if its timestamp is not sent.
    timestamp: i64,
}

impl Receipt {
    /// That of a stored row.
    ///
    /// # Errors
    /// A column that is missing or of another type.
    pub(super) fn of(rows: &RecordBatch, row: usize) -> Result<Self> {
        let ordinals = rows.column_by_name(ORDINAL).and_then(|c| c.as_primitive_opt::<Int64Type>());
        let ordinals = ordinals.ok_or_else(|| Error::corrupt("a data file has no `ordinal`"))?;
        let sources = rows.column_by_name(TIMESTAMP_SOURCE).and_then(|c| c.as_string_opt::<i32>());
        let received = sources.is_some_and(|sources| sources.value(row) != "sent");
        let ingested_at = instant(rows, INGESTED_AT, row)?.micros();
        let timestamp =
            if received { instant(rows, TIMESTAMP, row)?.micros() } else { ingested_at };
        Ok(Self { ingested_at, ordinal: ordinals.value(row), timestamp })
    }
}

/// The rows that one correction makes.
pub(super) struct Made<'m> {
    table: &'m Table,
    runtime: &'m Handle,
    maker: RowMaker,
    id: String,
    memory_bytes: usize,
    /// Off in a dry run.
    writes: bool,
    events: Vec<Event<'static>>,
    receipts: Vec<Receipt>,
    bytes: usize,
    staged: Vec<StagedFile>,
    rows: u64,
}

impl<'m> Made<'m> {
    /// None yet, of the correction `id`.
    pub(super) fn new(
        (table, runtime): (&'m Table, &'m Handle),
        columns: &Schema,
        id: &str,
        (memory_bytes, writes): (usize, bool),
    ) -> Self {
        Self {
            maker: RowMaker::new(table.table_id(), columns),
            table,
            runtime,
            id: id.to_owned(),
            memory_bytes,
            writes,
            events: Vec::new(),
            receipts: Vec::new(),
            bytes: 0,
            staged: Vec::new(),
            rows: 0,
        }
    }

    /// Adds the row of `event`.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub(super) fn push(&mut self, event: Event<'static>, receipt: Receipt) -> Result<()> {
        self.rows += 1;
        if !self.writes {
            return Ok(());
        }
        let values = event.properties.iter();
        self.bytes += values.map(|(name, v)| name.len() + value_bytes(v) + 64).sum::<usize>() + 512;
        self.events.push(event);
        self.receipts.push(receipt);
        if self.events.len() >= ROWS_MAX || self.bytes >= self.memory_bytes {
            self.flush()?;
        }
        Ok(())
    }

    /// The files of all rows, and how many rows there are.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub(super) fn finish(mut self) -> Result<(Vec<StagedFile>, u64)> {
        self.flush()?;
        Ok((self.staged, self.rows))
    }

    fn flush(&mut self) -> Result<()> {
        let (events, receipts) =
            (std::mem::take(&mut self.events), std::mem::take(&mut self.receipts));
        self.bytes = 0;
        if events.is_empty() {
            return Ok(());
        }
        let rows = self.maker.rows(&events, Timestamp::from_micros(0))?;
        let (rows, days) = placed(&rows, &receipts, &self.id)
            .map_err(|error| Error::internal("rows of a correction").with_source(error))?;
        let mut start = 0;
        for day in days.values().chunk_by(|a, b| a == b) {
            let of_day = rows.slice(start, day.len());
            start += day.len();
            // No file is named like one that was there before and may be about to go.
            let stamp = Some(Uuid::new_v4().to_string());
            let layout = Layout { stamp, ..layout_for(&of_day) };
            let day = day.first().copied();
            let mut writer = ParquetFileWriter::new(of_day.schema(), &layout, day)?;
            let mut files = writer.write(&of_day)?;
            files.extend(writer.finish()?);
            for file in files {
                self.staged.push(self.runtime.block_on(self.table.stage(file))?);
            }
        }
        Ok(())
    }
}

/// The rows with their receipts and the mark of the correction, sorted by day and in the order of the
/// table; beside them the day of each.
fn placed(
    rows: &RecordBatch,
    receipts: &[Receipt],
    id: &str,
) -> Result<(RecordBatch, Date32Array), ArrowError> {
    let instants = |values: Vec<i64>| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
    };
    let column = |name: &str| {
        let missing = || ArrowError::SchemaError(format!("no column `{name}`"));
        rows.column_by_name(name).cloned().ok_or_else(missing)
    };
    let sources = column(TIMESTAMP_SOURCE)?;
    let sources = sources.as_string::<i32>();
    let timestamps = column(TIMESTAMP)?;
    let timestamps = timestamps.as_primitive::<TimestampMicrosecondType>();
    let timestamps: Vec<i64> = (receipts.iter().enumerate())
        .map(|(row, receipt)| match sources.value(row) {
            "sent" => timestamps.value(row),
            _ => receipt.timestamp,
        })
        .collect();
    let days: Date32Array =
        timestamps.iter().map(|&micros| Some(Timestamp::from_micros(micros).date_days())).collect();
    let received = instants(receipts.iter().map(|receipt| receipt.ingested_at).collect());
    let ordinals: ArrayRef =
        Arc::new(receipts.iter().map(|receipt| Some(receipt.ordinal)).collect::<Int64Array>());
    let timestamps = instants(timestamps);
    let mut fields: Vec<Arc<Field>> = rows.schema().fields().iter().cloned().collect();
    let mut columns: Vec<ArrayRef> = (fields.iter().zip(rows.columns()))
        .map(|(field, own)| match field.name().as_str() {
            TIMESTAMP => Arc::clone(&timestamps),
            INGESTED_AT => Arc::clone(&received),
            ORDINAL => Arc::clone(&ordinals),
            _ => Arc::clone(own),
        })
        .collect();
    fields.extend(correction_fields().into_iter().filter(|f| f.name() == MADE_BY).map(Arc::new));
    columns.push(Arc::new(StringArray::from(vec![id; receipts.len()])));
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    let days: ArrayRef = Arc::new(days);
    let by = [
        Arc::clone(&days),
        column(EVENT_NAME)?,
        column(CUSTOMER_ID)?,
        timestamps,
        received,
        ordinals,
    ];
    let options = Some(SortOptions { descending: false, nulls_first: true });
    let by: Vec<SortColumn> = by.into_iter().map(|values| SortColumn { values, options }).collect();
    let order = lexsort_to_indices(&by, None)?;
    let days = arrow::compute::take(days.as_ref(), &order, None)?;
    Ok((take_record_batch(&rows, &order)?, days.as_primitive().clone()))
}
