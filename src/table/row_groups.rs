//! Row groups that may hold what is asked for, spread over partitions as runs of about as many rows.
//!
//! The engine cuts a file into parts of as many bytes. Where a question is about a small part of one
//! file, that gives all of it to one partition. The runs are in the order of the files, one after the
//! other, so that sorted files are read in their order, whatever the number of partitions.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use arrow::datatypes::Schema;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, DataFusionError, Result, ScalarValue};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, ParquetFileReaderFactory};
use datafusion::physical_optimizer::pruning::PruningPredicate;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};

use super::footers::Footers;

/// Footers that are read side by side.
const READS_AT_ONCE: usize = 8;

/// Rows that are worth a partition of their own.
const PARTITION_ROWS_MIN: usize = 16_384;

/// The row groups of `files` that may hold rows that meet `condition`, in no more than `most` partitions.
pub(super) async fn runs(
    files: Vec<PartitionedFile>,
    condition: &PruningPredicate,
    schema: &Schema,
    (footers, most): (&Footers, usize),
) -> Result<Vec<FileGroup>> {
    let metrics = ExecutionPlanMetricsSet::new();
    let footers_of = files.into_iter().map(|file| {
        let reader = footers.create_reader(0, file.clone(), None, &metrics);
        async move { Ok::<_, DataFusionError>((file, reader?.get_metadata(None).await?)) }
    });
    let mut footers_of = futures::stream::iter(footers_of).buffered(READS_AT_ONCE);
    let mut pieces = Vec::new();
    while let Some((file, footer)) = footers_of.try_next().await? {
        let known = file.statistics.as_ref().map(|of| of.as_ref().clone().to_inexact());
        let may = condition.prune(&GroupStatistics { schema, footer: &footer })?;
        for (group, _) in footer.row_groups().iter().zip(may).filter(|(_, may)| *may) {
            let rows = usize::try_from(group.num_rows()).unwrap_or_default();
            // The engine takes the row groups that begin within a range.
            let start = start_of(group);
            let mut piece = file.clone().with_range(start, start + 1);
            let known = known.clone();
            piece.statistics =
                known.map(|known| Arc::new(known.with_num_rows(Precision::Inexact(rows))));
            pieces.push((piece, rows));
        }
    }
    let all: usize = pieces.iter().map(|(_, rows)| rows).sum();
    let partitions = all.div_ceil(PARTITION_ROWS_MIN).clamp(1, most.max(1));
    let mut groups: Vec<Vec<PartitionedFile>> = vec![Vec::new(); partitions];
    let mut before = 0;
    for (piece, rows) in pieces {
        // Where the middle of it lies among all rows.
        let run = (before + rows / 2) * partitions / all.max(1);
        before += rows;
        if let Some(run) = groups.get_mut(run) {
            run.push(piece);
        }
    }
    Ok(groups.into_iter().filter(|run| !run.is_empty()).map(FileGroup::new).collect())
}

/// The first byte of a row group.
fn start_of(group: &RowGroupMetaData) -> i64 {
    let first = group.column(0);
    first.dictionary_page_offset().unwrap_or_else(|| first.data_page_offset())
}

/// Bounds of the row groups of one file.
struct GroupStatistics<'f> {
    schema: &'f Schema,
    footer: &'f ParquetMetaData,
}

impl GroupStatistics<'_> {
    fn of<T>(
        &self,
        column: &Column,
        read: impl FnOnce(&StatisticsConverter<'_>) -> parquet::errors::Result<T>,
    ) -> Option<T> {
        let leaves = self.footer.file_metadata().schema_descr();
        let converter = StatisticsConverter::try_new(column.name(), self.schema, leaves).ok()?;
        read(&converter).ok()
    }
}

impl PruningStatistics for GroupStatistics<'_> {
    fn num_containers(&self) -> usize {
        self.footer.num_row_groups()
    }

    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.of(column, |of| of.row_group_mins(self.footer.row_groups()))
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.of(column, |of| of.row_group_maxes(self.footer.row_groups()))
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let nulls = self.of(column, |of| of.row_group_null_counts(self.footer.row_groups()));
        nulls.map(|nulls| Arc::new(nulls) as ArrayRef)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        let rows = self.footer.row_groups().iter();
        let rows = rows.map(|group| u64::try_from(group.num_rows()).ok());
        Some(Arc::new(rows.collect::<UInt64Array>()))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
