//! Sealed events that wait on disk for their commit, sorted, and their merge by day.
//!
//! A batch may be far larger than memory and span years of days: each seal leaves one sorted file,
//! and the commit merges all of them day by day, a few thousand rows at a time.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use tempfile::NamedTempFile;

use super::gather::{Gatherer, conform};
use super::seal::Sorted;
use crate::error::{Error, Result};
use crate::schema::{CUSTOMER_ID, EVENT_NAME, ORDINAL, TIMESTAMP};

/// Rows of a batch of a spill; of each spill, one such batch is in memory during the merge.
const SPILL_ROWS: usize = 2_048;
/// Rows of a merged batch.
const MERGED_ROWS: usize = 8_192;

/// One sorted file of sealed events.
#[derive(Debug)]
pub(super) struct Spill {
    file: NamedTempFile,
    schema: SchemaRef,
    /// The batches of each day.
    days: BTreeMap<i32, std::ops::Range<usize>>,
}

impl Spill {
    /// Writes `rows`, sorted, to a temporary file in `folder`.
    ///
    /// # Errors
    /// A disk that is full or not writable.
    pub(super) fn write(
        gatherer: &Gatherer<'_>,
        rows: &[Sorted],
        folder: &std::path::Path,
    ) -> Result<Self> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::unavailable(format!("spilling to {}: {error}", folder.display()))
        };
        let file = NamedTempFile::new_in(folder).map_err(|error| failed(&error))?;
        let out = BufWriter::with_capacity(1 << 20, file.as_file());
        let mut writer = FileWriter::try_new(out, &gatherer.schema()).map_err(|e| failed(&e))?;
        let (mut days, mut batches) = (BTreeMap::new(), 0);
        for day in rows.chunk_by(|a, b| a.date == b.date) {
            let first = batches;
            for part in day.chunks(SPILL_ROWS) {
                writer.write(&gatherer.batch(part)?).map_err(|error| failed(&error))?;
                batches += 1;
            }
            days.insert(day[0].date, first..batches);
        }
        writer.finish().map_err(|error| failed(&error))?;
        drop(writer);
        Ok(Self { schema: gatherer.schema(), file, days })
    }

    /// The days that it holds events of.
    pub(super) fn days(&self) -> impl Iterator<Item = i32> {
        self.days.keys().copied()
    }

    fn open(&self) -> Result<FileReader<BufReader<File>>> {
        let file = self.file.reopen().map_err(|error| broken(&error))?;
        FileReader::try_new(BufReader::new(file), None).map_err(|error| broken(&error))
    }
}

fn broken(error: &dyn std::fmt::Display) -> Error {
    Error::unavailable(format!("reading a spilled file back: {error}"))
}

/// The columns that any of `spills` has.
pub(super) fn united_schema(spills: &[Spill]) -> SchemaRef {
    let mut fields = crate::schema::envelope_fields();
    let envelope = fields.len();
    let mut properties = BTreeMap::new();
    for field in spills.iter().flat_map(|spill| spill.schema.fields().iter().skip(envelope)) {
        properties.entry(field.name().clone()).or_insert_with(|| field.as_ref().clone());
    }
    fields.extend(properties.into_values());
    Arc::new(Schema::new(fields))
}

/// Gives the rows of one day of all `spills`, merged, to `take`.
///
/// # Errors
/// A spilled file that cannot be read, and those of `take`.
pub(super) fn merge_day(
    spills: &[Spill],
    day: i32,
    schema: &SchemaRef,
    mut take: impl FnMut(RecordBatch) -> Result<()>,
) -> Result<()> {
    let mut cursors = Vec::new();
    for spill in spills {
        if let Some(batches) = spill.days.get(&day) {
            cursors.push(Cursor::new(spill.open()?, batches.clone(), schema)?);
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
        if merged.places.len() == MERGED_ROWS {
            take(merged.flush(&cursors)?)?;
        }
    }
    if !merged.places.is_empty() {
        take(merged.flush(&cursors)?)?;
    }
    Ok(())
}

/// Rows chosen so far, and the batches that they lie in.
struct Merged {
    batches: Vec<RecordBatch>,
    /// For each cursor the place of its batch among `batches`.
    current: Vec<usize>,
    places: Vec<(usize, usize)>,
}

impl Merged {
    fn new(cursors: &[Cursor]) -> Self {
        let batches: Vec<RecordBatch> = cursors.iter().filter_map(|c| c.batch.clone()).collect();
        Self { current: (0..batches.len()).collect(), batches, places: Vec::new() }
    }

    fn add(&mut self, cursor: usize, batch: RecordBatch) {
        self.batches.push(batch);
        self.current[cursor] = self.batches.len() - 1;
    }

    fn flush(&mut self, cursors: &[Cursor]) -> Result<RecordBatch> {
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let merged = interleave_record_batch(&batches, &self.places)
            .map_err(|error| Error::internal("merge spilled rows").with_source(error))?;
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

/// Where the merge stands in one spill.
struct Cursor {
    reader: FileReader<BufReader<File>>,
    rest: std::ops::Range<usize>,
    batch: Option<RecordBatch>,
    key: Option<Arc<SortKey>>,
    row: usize,
}

impl Cursor {
    fn new(
        reader: FileReader<BufReader<File>>,
        batches: std::ops::Range<usize>,
        schema: &SchemaRef,
    ) -> Result<Self> {
        let mut cursor = Self { reader, rest: batches, batch: None, key: None, row: 0 };
        cursor.load(schema)?;
        Ok(cursor)
    }

    fn rows(&self) -> usize {
        self.batch.as_ref().map_or(0, RecordBatch::num_rows)
    }

    /// The next batch of the day, if there is one.
    fn load(&mut self, schema: &SchemaRef) -> Result<()> {
        (self.row, self.batch, self.key) = (0, None, None);
        if let Some(next) = self.rest.next() {
            self.reader.set_index(next).map_err(|error| broken(&error))?;
            let batch = self.reader.next().transpose().map_err(|error| broken(&error))?;
            let batch = batch.ok_or_else(|| broken(&"a batch is missing"))?;
            let batch = conform(&batch, schema)?;
            self.key = SortKey::of(&batch).map(Arc::new);
            self.batch = Some(batch);
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
    timestamp: arrow::array::TimestampMicrosecondArray,
    ordinal: arrow::array::Int64Array,
}

impl SortKey {
    fn of(batch: &RecordBatch) -> Option<Self> {
        Some(Self {
            name: batch.column_by_name(EVENT_NAME)?.as_string().clone(),
            customer: batch.column_by_name(CUSTOMER_ID)?.as_string().clone(),
            timestamp: batch
                .column_by_name(TIMESTAMP)?
                .as_primitive::<TimestampMicrosecondType>()
                .clone(),
            ordinal: batch.column_by_name(ORDINAL)?.as_primitive::<Int64Type>().clone(),
        })
    }

    fn at(&self, row: usize) -> (&str, Option<&str>, i64, i64) {
        let customer = self.customer.is_valid(row).then(|| self.customer.value(row));
        (self.name.value(row), customer, self.timestamp.value(row), self.ordinal.value(row))
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
