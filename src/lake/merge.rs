//! Merges rows that come sorted from several places into one sorted stream.
//!
//! Holds one batch of each source at a time, whatever their lengths. Knows the order of the events
//! table, and nothing of where the rows come from or go to.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use arrow::array::{
    Array, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{Field, Int64Type, SchemaRef, TimestampMicrosecondType};

use crate::error::{Error, Result};
use crate::schema::{CUSTOMER_ID, EVENT_NAME, INGESTED_AT, ORDINAL, TIMESTAMP};

/// Rows of a merged batch, unless rows are very large.
pub const MERGED_ROWS: usize = 8_192;

/// Sorted batches, one after the other.
pub type Source<'s> = Box<dyn Iterator<Item = Result<RecordBatch>> + 's>;

/// Gives the rows of all `sources`, merged, to `take`, `at_once` of them at a time, with exactly the
/// columns of `schema`. Rows that the order of the table does not tell apart come in the order of their receipt.
///
/// # Errors
/// Those of the sources and of `take`.
pub fn merge(
    sources: Vec<Source<'_>>,
    schema: &SchemaRef,
    at_once: usize,
    mut take: impl FnMut(RecordBatch) -> Result<()>,
) -> Result<()> {
    let mut cursors = Vec::with_capacity(sources.len());
    for source in sources {
        let cursor = Cursor::new(source, schema)?;
        if cursor.batch.is_some() {
            cursors.push(cursor);
        }
    }
    if let [only] = cursors.as_mut_slice() {
        while let Some(batch) = only.batch.take() {
            take(batch)?;
            only.load(schema)?;
        }
        return Ok(());
    }
    let mut heap: BinaryHeap<Head> =
        cursors.iter().enumerate().filter_map(|(at, cursor)| cursor.head(at)).collect();
    let mut merged = Merged::new(&cursors);
    while let Some(head) = heap.pop() {
        let cursor = &mut cursors[head.cursor];
        merged.places.push((merged.current[head.cursor], cursor.row));
        cursor.row += 1;
        if cursor.row == cursor.rows() {
            cursor.load(schema)?;
            if let Some(batch) = &cursor.batch {
                merged.add(head.cursor, batch.clone());
            }
        }
        heap.extend(cursors[head.cursor].head(head.cursor));
        if merged.places.len() == at_once {
            take(merged.flush(&cursors)?)?;
        }
    }
    if !merged.places.is_empty() {
        take(merged.flush(&cursors)?)?;
    }
    Ok(())
}

/// `batch` with exactly the fields of `schema`; columns that it lacks are null.
///
/// # Errors
/// A defect of ours: a column that may not be null is missing.
pub fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &Arc<Field>| {
        batch
            .column_by_name(field.name())
            .map_or_else(|| new_null_array(field.data_type(), batch.num_rows()), Arc::clone)
    };
    RecordBatch::try_new(Arc::clone(schema), schema.fields().iter().map(column).collect())
        .map_err(|error| Error::internal("unify columns").with_source(error))
}

/// Rows chosen so far, and the batches that they lie in.
struct Merged {
    batches: Vec<RecordBatch>,
    /// For each cursor the place of its batch among `batches`.
    current: Vec<usize>,
    places: Vec<(usize, usize)>,
}

impl Merged {
    fn new(cursors: &[Cursor<'_>]) -> Self {
        let batches: Vec<RecordBatch> = cursors.iter().filter_map(|c| c.batch.clone()).collect();
        Self { current: (0..batches.len()).collect(), batches, places: Vec::new() }
    }

    fn add(&mut self, cursor: usize, batch: RecordBatch) {
        self.batches.push(batch);
        self.current[cursor] = self.batches.len() - 1;
    }

    fn flush(&mut self, cursors: &[Cursor<'_>]) -> Result<RecordBatch> {
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let merged = interleave_record_batch(&batches, &self.places)
            .map_err(|error| Error::internal("merge sorted rows").with_source(error))?;
        self.places.clear();
        self.batches.clear();
        for (cursor, place) in cursors.iter().zip(self.current.iter_mut()) {
            if let Some(batch) = &cursor.batch {
                self.batches.push(batch.clone());
                *place = self.batches.len() - 1;
            }
        }
        Ok(merged)
    }
}

/// Where the merge stands in one source.
struct Cursor<'s> {
    source: Source<'s>,
    batch: Option<RecordBatch>,
    key: Option<Arc<SortKey>>,
    row: usize,
}

impl<'s> Cursor<'s> {
    fn new(source: Source<'s>, schema: &SchemaRef) -> Result<Self> {
        let mut cursor = Self { source, batch: None, key: None, row: 0 };
        cursor.load(schema)?;
        Ok(cursor)
    }

    fn rows(&self) -> usize {
        self.batch.as_ref().map_or(0, RecordBatch::num_rows)
    }

    /// The next batch that has rows, if there is one.
    fn load(&mut self, schema: &SchemaRef) -> Result<()> {
        (self.row, self.batch, self.key) = (0, None, None);
        for batch in self.source.by_ref() {
            let batch = conform(&batch?, schema)?;
            if batch.num_rows() > 0 {
                self.key = SortKey::of(&batch).map(Arc::new);
                self.batch = Some(batch);
                break;
            }
        }
        Ok(())
    }

    fn head(&self, at: usize) -> Option<Head> {
        Some(Head { cursor: at, key: Arc::clone(self.key.as_ref()?), row: self.row })
    }
}

/// The columns that rows are sorted by.
struct SortKey {
    name: StringArray,
    customer: StringArray,
    timestamp: TimestampMicrosecondArray,
    ingested_at: TimestampMicrosecondArray,
    ordinal: Int64Array,
}

impl SortKey {
    fn of(batch: &RecordBatch) -> Option<Self> {
        let instants = |name: &str| {
            Some(batch.column_by_name(name)?.as_primitive::<TimestampMicrosecondType>().clone())
        };
        Some(Self {
            name: batch.column_by_name(EVENT_NAME)?.as_string().clone(),
            customer: batch.column_by_name(CUSTOMER_ID)?.as_string().clone(),
            timestamp: instants(TIMESTAMP)?,
            ingested_at: instants(INGESTED_AT)?,
            ordinal: batch.column_by_name(ORDINAL)?.as_primitive::<Int64Type>().clone(),
        })
    }

    fn at(&self, row: usize) -> (&str, Option<&str>, [i64; 3]) {
        let customer = self.customer.is_valid(row).then(|| self.customer.value(row));
        let instants = [self.timestamp.value(row), self.ingested_at.value(row)];
        (self.name.value(row), customer, [instants[0], instants[1], self.ordinal.value(row)])
    }
}

/// The first row of a cursor that is not merged yet; the least of all comes out of the heap first.
struct Head {
    cursor: usize,
    key: Arc<SortKey>,
    row: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key.at(other.row).cmp(&self.key.at(self.row))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}
