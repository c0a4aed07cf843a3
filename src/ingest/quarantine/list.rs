//! What is in quarantine, listed: oldest first, each event once.
//!
//! Texts are read a few rows at a time; what is held of every event is its identity and its place.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{concat_batches, interleave_record_batch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::RowSelection;

use super::{Id, id_of};
use crate::error::{Error, Result};
use crate::lake::reader::StoredFile;
use crate::lake::snapshot::DataFile;
use crate::lake::table::Table;
use crate::lake::tables::Lake;
use crate::schema::quarantine;

/// Rows that are listed at a time.
pub(super) const LISTED_ROWS: usize = 2_048;

/// Everything in quarantine, oldest first, each event once; at most `limit` rows.
///
/// # Errors
/// A damaged table.
pub async fn list(lake: &Lake, limit: Option<usize>) -> Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    let mut take = |batch| {
        batches.push(batch);
        Ok(true)
    };
    for_each(lake, limit, &mut take).await?;
    Ok(batches)
}

/// Hands out what [`list`] lists, some rows at a time, until `take` wants no more.
///
/// # Errors
/// A damaged table, and those of `take`.
pub async fn for_each(
    lake: &Lake,
    limit: Option<usize>,
    take: &mut (dyn FnMut(RecordBatch) -> Result<bool> + Send),
) -> Result<()> {
    let Some(table) = lake.quarantine().await? else { return Ok(()) };
    let snapshot = table.snapshot(None).await?;
    let places = ordered_once(&table, &snapshot.files, limit).await?;
    // Neighbours mostly lie in one file, which need not be fetched again for the next rows.
    let mut fetched: HashMap<usize, StoredFile> = HashMap::new();
    for some in places.chunks(LISTED_ROWS) {
        let wanted: HashSet<usize> = some.iter().map(|place| place.file).collect();
        fetched.retain(|file, _| wanted.contains(file));
        for file in wanted {
            if let std::collections::hash_map::Entry::Vacant(free) = fetched.entry(file) {
                free.insert(StoredFile::get(&table, &snapshot.files[file].path).await?);
            }
        }
        if !take(rows_at(some, &fetched)?)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Where an event in quarantine lies, and what decides its place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    received: i64,
    /// Among the names of the inputs; no input comes first.
    input: Option<usize>,
    line: Option<i64>,
    id: Id,
    file: usize,
    row: usize,
}

/// Names of inputs by order of appearance.
#[derive(Default)]
struct Inputs {
    places: HashMap<Arc<str>, usize>,
    names: Vec<Arc<str>>,
}

impl Inputs {
    fn place_of(&mut self, name: &str) -> usize {
        if let Some(&place) = self.places.get(name) {
            return place;
        }
        let name: Arc<str> = name.into();
        self.names.push(Arc::clone(&name));
        self.places.insert(name, self.names.len() - 1);
        self.names.len() - 1
    }
}

/// The places of all events in the order of the list, each event once.
async fn ordered_once(
    table: &Table,
    files: &[DataFile],
    limit: Option<usize>,
) -> Result<Vec<Place>> {
    let limit = limit.unwrap_or(usize::MAX);
    let (mut places, mut inputs) = (Vec::new(), Inputs::default());
    for (file, stored) in files.iter().enumerate() {
        let opened = StoredFile::get(table, &stored.path).await?;
        let light = [quarantine::ID, quarantine::RECEIVED_AT, quarantine::INPUT, quarantine::LINE];
        let mut first = 0;
        for batch in opened.rows(Some(&light), None, LISTED_ROWS)? {
            let batch = opened.checked(batch)?;
            add_places(&batch, (file, first), &mut inputs, &mut places);
            first += batch.num_rows();
        }
        // With a limit only the front of the list is held.
        if places.len() / 2 > limit {
            keep_front(&mut places, &inputs, limit);
        }
    }
    keep_front(&mut places, &inputs, limit);
    Ok(places)
}

fn add_places(
    batch: &RecordBatch,
    (file, first): (usize, usize),
    inputs: &mut Inputs,
    places: &mut Vec<Place>,
) {
    let ids = batch.column(0).as_string::<i32>();
    let received = batch.column(1).as_primitive::<TimestampMicrosecondType>();
    let names = batch.column(2).as_string::<i32>();
    let lines = batch.column(3).as_primitive::<Int64Type>();
    places.extend((0..batch.num_rows()).map(|row| Place {
        received: received.value(row),
        input: names.is_valid(row).then(|| inputs.place_of(names.value(row))),
        line: lines.is_valid(row).then(|| lines.value(row)),
        id: id_of(ids.value(row)),
        file,
        row: first + row,
    }));
}

/// Sorts places, drops all but the first of each event, and what lies beyond `limit`.
fn keep_front(places: &mut Vec<Place>, inputs: &Inputs, limit: usize) {
    let key = |p: &Place| (p.received, p.input.map(|at| &inputs.names[at]), p.line, p.id);
    places.sort_by(|a, b| key(a).cmp(&key(b)));
    let mut seen = HashSet::new();
    places.retain(|place| seen.len() < limit && seen.insert(place.id));
}

/// The rows at `places`, in their order.
fn rows_at(places: &[Place], files: &HashMap<usize, StoredFile>) -> Result<RecordBatch> {
    let mut wanted: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for place in places {
        wanted.entry(place.file).or_default().push(place.row);
    }
    let mut batches = Vec::with_capacity(wanted.len());
    for (file, rows) in &mut wanted {
        rows.sort_unstable();
        let Some(stored) = files.get(file) else {
            return Err(Error::internal("a file of the quarantine was not fetched"));
        };
        let last = rows.last().map_or(0, |last| last + 1);
        let ranges = rows.iter().map(|&row| row..row + 1);
        let selection = RowSelection::from_consecutive_ranges(ranges, last);
        let read =
            stored.rows(None, Some(selection), LISTED_ROWS)?.map(|batch| stored.checked(batch));
        let read = read.collect::<Result<Vec<_>>>()?;
        let schema = Arc::new(quarantine::schema());
        let damaged = |error: &dyn std::fmt::Display| stored.damaged(error);
        batches.push(concat_batches(&schema, &read).map_err(|error| damaged(&error))?);
    }
    let files: Vec<usize> = wanted.keys().copied().collect();
    let at = |place: &Place| {
        let batch = files.binary_search(&place.file).unwrap_or_default();
        let row = wanted.get(&place.file).and_then(|rows| rows.binary_search(&place.row).ok());
        (batch, row.unwrap_or_default())
    };
    let order: Vec<(usize, usize)> = places.iter().map(at).collect();
    interleave_record_batch(&batches.iter().collect::<Vec<_>>(), &order)
        .map_err(|error| Error::internal("list the quarantine").with_source(error))
}
