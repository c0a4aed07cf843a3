//! The statistics of the log in the two forms that the engine asks for.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, Schema, UInt64Type};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, ScalarValue, Statistics};

use crate::lake::snapshot::Snapshot;

/// Per-file bounds of one snapshot, for leaving files out. Bounds need not be tight for that.
#[derive(Debug)]
pub(super) struct SnapshotStatistics<'s> {
    pub(super) snapshot: &'s Snapshot,
    pub(super) dates: &'s RecordBatch,
}

impl PruningStatistics for SnapshotStatistics<'_> {
    fn num_containers(&self) -> usize {
        self.snapshot.files.len()
    }

    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        let date = self.dates.column_by_name(column.name()).cloned();
        date.or_else(|| self.snapshot.stats().min(column.name()))
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        let date = self.dates.column_by_name(column.name()).cloned();
        date.or_else(|| self.snapshot.stats().max(column.name()))
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        self.snapshot.stats().null_count(column.name())
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(self.snapshot.stats().row_counts())
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// What is exactly true of each file: rows, nulls, and the bounds of integer columns. Bounds of
/// texts and instants are cut in the log, so nothing may be answered from them.
pub(super) fn file_statistics(snapshot: &Snapshot, schema: &Schema) -> Vec<Statistics> {
    let statistics = snapshot.stats();
    let columns: Vec<ColumnBounds> = schema
        .fields()
        .iter()
        .map(|field| {
            let exact = field.data_type() == &DataType::Int64;
            ColumnBounds {
                nulls: statistics.null_count(field.name()),
                min: statistics.min(field.name()).filter(|_| exact),
                max: statistics.max(field.name()).filter(|_| exact),
            }
        })
        .collect();
    let rows_of_file = |file: u64| Precision::Exact(usize::try_from(file).unwrap_or(usize::MAX));
    let files = snapshot.files.iter().enumerate();
    files
        .map(|(place, file)| {
            let mut known = Statistics::new_unknown(schema).with_num_rows(rows_of_file(file.rows));
            for (column, bounds) in known.column_statistics.iter_mut().zip(&columns) {
                bounds.fill(column, place);
            }
            known
        })
        .collect()
}

struct ColumnBounds {
    nulls: Option<ArrayRef>,
    min: Option<ArrayRef>,
    max: Option<ArrayRef>,
}

impl ColumnBounds {
    fn fill(&self, column: &mut ColumnStatistics, file: usize) {
        let valid = |array: &&ArrayRef| array.is_valid(file);
        if let Some(nulls) = self.nulls.as_ref().filter(valid) {
            let nulls = nulls.as_primitive::<UInt64Type>().value(file);
            column.null_count = Precision::Exact(usize::try_from(nulls).unwrap_or(usize::MAX));
        }
        let bound = |array: &Option<ArrayRef>| match array.as_ref().filter(valid) {
            Some(array) => {
                let value = array.as_primitive::<Int64Type>().value(file);
                Precision::Exact(ScalarValue::Int64(Some(value)))
            }
            None => Precision::Absent,
        };
        column.min_value = bound(&self.min);
        column.max_value = bound(&self.max);
    }
}
