//! Sealed events that wait on disk for their commit, sorted, and their merge by day.
//!
//! A batch may be far larger than memory and span years of days: each seal leaves one sorted file,
//! and the commit merges all of them day by day, a few thousand rows at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use tempfile::NamedTempFile;

use super::gather::Gatherer;
use super::seal::Sorted;
use super::upsert::superseded_by;
use crate::dedupe::{Hasher, StagedRun};
use crate::error::{Error, Result};
use crate::lake::merge::{MERGED_ROWS, Source, merge};

/// Rows of a batch of a spill; of each spill, one such batch is in memory during the merge.
const SPILL_ROWS: usize = 2_048;
/// One sorted file of sealed events.
#[derive(Debug)]
pub(super) struct Spill {
    /// How many of the batch's runs of declared names were there when it was sealed, its own among
    /// them.
    declared: usize,
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
        declared: usize,
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
        Ok(Self { declared, schema: gatherer.schema(), file, days })
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

/// Gives the rows of one day of all `spills`, merged, to `take`; those whose place an event of a later
/// part takes are marked, going by `declared`, the batch's runs of declared names.
///
/// # Errors
/// A spilled file that cannot be read, and those of `take`.
pub(super) fn merge_day(
    spills: &[Spill],
    day: i32,
    schema: &SchemaRef,
    (declared, hasher): (&[StagedRun], &Hasher),
    take: impl FnMut(RecordBatch) -> Result<()>,
) -> Result<()> {
    let mut sources: Vec<Source<'_>> = Vec::new();
    for spill in spills {
        if let Some(batches) = spill.days.get(&day) {
            let mut reader = spill.open()?;
            let later = declared.get(spill.declared..).unwrap_or_default();
            sources.push(Box::new(batches.clone().map(move |batch| {
                reader.set_index(batch).map_err(|error| broken(&error))?;
                let read = reader.next().transpose().map_err(|error| broken(&error))?;
                let rows = read.ok_or_else(|| broken(&"a batch is missing"))?;
                superseded_by(rows, later, hasher)
            })));
        }
    }
    merge(sources, schema, MERGED_ROWS, take)
}
