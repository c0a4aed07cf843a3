//! Row groups that may hold what is asked for, spread over partitions as runs of about as many rows, and what
//! is known of each.
//!
//! The engine cuts a file into parts of as many bytes. Where a question is about a small part of one
//! file, that gives all of it to one partition. The runs are in the order of the files, one after the
//! other, so that sorted files are read in their order, whatever the number of partitions. Where no order
//! matters, a partition that has read its own may take some of another.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt64Array};
use arrow::datatypes::Schema;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, DataFusionError, Result, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, ParquetFileReaderFactory};
use datafusion::physical_expr::utils::collect_columns;
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
pub(super) async fn spread(
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
    let columns = collect_columns(condition.orig_expr());
    let columns: Vec<usize> = columns.iter().map(|column| column.index()).collect();
    let mut pieces = Vec::new();
    while let Some((file, footer)) = footers_of.try_next().await? {
        let known = match &file.statistics {
            Some(known) => known.as_ref().clone().to_inexact(),
            None => Statistics::new_unknown(schema),
        };
        let groups = footer.row_groups();
        let may = condition.prune(&GroupStatistics { schema, footer: &footer, groups })?;
        for (group, _) in groups.iter().zip(may).filter(|(_, may)| *may) {
            let rows = usize::try_from(group.num_rows()).unwrap_or_default();
            // The engine takes the row groups that begin within a range.
            let start = start_of(group);
            let mut piece = file.clone().with_range(start, start + 1);
            let groups = std::slice::from_ref(group);
            let group = GroupStatistics { schema, footer: &footer, groups };
            let known = known.clone().with_num_rows(Precision::Inexact(rows));
            piece.statistics = Some(Arc::new(group.only_values(&columns, known)?));
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

/// Bounds of row groups of one file.
struct GroupStatistics<'f> {
    schema: &'f Schema,
    footer: &'f ParquetMetaData,
    groups: &'f [RowGroupMetaData],
}

impl GroupStatistics<'_> {
    fn of<T>(
        &self,
        column: &Column,
        read: impl FnOnce(&StatisticsConverter<'_>) -> parquet::errors::Result<T>,
    ) -> Option<T> {
        let leaves = self.footer.file_metadata().schema_descr();
        let converter = StatisticsConverter::try_new(column.name(), self.schema, leaves).ok()?;
        // Where nothing is said of nulls, there may be some.
        read(&converter.with_missing_null_counts_as_zero(false)).ok()
    }

    /// Tells of a row group which of `columns` have but one value in it, as that of its level: the engine
    /// takes that value and does not read the column.
    fn only_values(&self, columns: &[usize], mut known: Statistics) -> Result<Statistics> {
        for place in columns {
            let Some(field) = self.schema.fields().get(*place) else { continue };
            let column = Column::new_unqualified(field.name());
            let is_exact =
                |exact: Option<BooleanArray>| exact.is_some_and(|exact| exact.true_count() == 1);
            let (Some(min), Some(max)) = (self.min_values(&column), self.max_values(&column))
            else {
                continue;
            };
            let nulls = self.of(&column, |of| of.row_group_null_counts(self.groups));
            let is_only = min.len() == 1
                && min.is_valid(0)
                && min == max
                && nulls.is_some_and(|nulls| nulls.iter().eq([Some(0)]))
                && is_exact(self.of(&column, |of| of.row_group_is_min_value_exact(self.groups)))
                && is_exact(self.of(&column, |of| of.row_group_is_max_value_exact(self.groups)));
            if is_only && let Some(known) = known.column_statistics.get_mut(*place) {
                let only = Precision::Exact(ScalarValue::try_from_array(&min, 0)?);
                (known.min_value, known.max_value) = (only.clone(), only);
                known.null_count = Precision::Exact(0);
            }
        }
        Ok(known)
    }
}

impl PruningStatistics for GroupStatistics<'_> {
    fn num_containers(&self) -> usize {
        self.groups.len()
    }

    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.of(column, |of| of.row_group_mins(self.groups))
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.of(column, |of| of.row_group_maxes(self.groups))
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let nulls = self.of(column, |of| of.row_group_null_counts(self.groups));
        nulls.map(|nulls| Arc::new(nulls) as ArrayRef)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        let rows = self.groups.iter();
        let rows = rows.map(|group| u64::try_from(group.num_rows()).ok());
        Some(Arc::new(rows.collect::<UInt64Array>()))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, RecordBatch, StringViewArray};
    use bytes::Bytes;
    use parquet::arrow::ArrowWriter;
    use parquet::file::metadata::ParquetMetaDataReader;
    use parquet::file::statistics::{Statistics as Bounds, ValueStatistics};

    use super::*;

    fn footer_of(rows: &RecordBatch) -> ParquetMetaData {
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, rows.schema(), None).unwrap();
        writer.write(rows).unwrap();
        writer.close().unwrap();
        ParquetMetaDataReader::new().parse_and_finish(&Bytes::from(file)).unwrap()
    }

    /// Bounds are cut after 64 bytes and say nothing of nulls.
    #[test]
    fn a_column_has_but_one_value_only_where_that_is_certain() {
        let long = |end: &str| format!("{}{end}", "x".repeat(70));
        let texts = |texts: [Option<&str>; 3]| -> ArrayRef {
            Arc::new(texts.into_iter().collect::<StringViewArray>())
        };
        let columns: [(&str, ArrayRef, Option<ScalarValue>); 7] = [
            ("text", texts([Some("hour"); 3]), Some(ScalarValue::Utf8View(Some("hour".into())))),
            ("number", Arc::new(Int64Array::from(vec![7; 3])), Some(ScalarValue::Int64(Some(7)))),
            ("texts", texts([Some("hour"), Some("month"), Some("hour")]), None),
            ("nulls", texts([None; 3]), None),
            ("some_null", texts([Some("hour"), None, Some("hour")]), None),
            ("long", texts([Some(&long("")); 3]), None),
            ("ends", texts([Some(&long("a")), Some(&long("b")), Some(&long("a"))]), None),
        ];
        let batch = columns.iter().map(|(name, column, _)| (*name, Arc::clone(column)));
        let batch = RecordBatch::try_from_iter_with_nullable(
            batch.map(|(name, column)| (name, column, true)),
        )
        .unwrap();
        let footer = footer_of(&batch);
        let schema = batch.schema();
        let group =
            GroupStatistics { schema: &schema, footer: &footer, groups: footer.row_groups() };
        let all: Vec<usize> = (0..columns.len()).collect();
        let known = group.only_values(&all, Statistics::new_unknown(&schema)).unwrap();
        for ((name, _, want), known) in columns.iter().zip(&known.column_statistics) {
            let of = |bound: &Precision<ScalarValue>| match bound {
                Precision::Exact(value) => Some(value.clone()),
                _ => None,
            };
            assert_eq!(
                (of(&known.min_value), of(&known.max_value)),
                (want.clone(), want.clone()),
                "{name}"
            );
            assert_eq!(known.null_count == Precision::Exact(0), want.is_some(), "{name}");
        }
    }

    /// Bounds that are equal tell nothing where they may be cut or nulls are not counted.
    #[test]
    fn equal_bounds_are_the_value_only_where_they_are_whole_and_nulls_are_counted() {
        let column: ArrayRef = Arc::new(StringViewArray::from(vec!["hour"; 3]));
        let batch = RecordBatch::try_from_iter([("text", column)]).unwrap();
        let footer = footer_of(&batch);
        let schema = batch.schema();
        for (min_is_exact, max_is_exact, nulls, is_known) in [
            (true, true, Some(0), true),
            (false, true, Some(0), false),
            (true, false, Some(0), false),
            (true, true, Some(1), false),
            (true, true, None, false),
        ] {
            let bound = || Some(b"hour".to_vec().into());
            let bounds = ValueStatistics::new(bound(), bound(), None, nulls, false)
                .with_min_is_exact(min_is_exact)
                .with_max_is_exact(max_is_exact);
            let column = footer.row_group(0).column(0).clone().into_builder();
            let column = column.set_statistics(Bounds::ByteArray(bounds)).build().unwrap();
            let group = footer.row_group(0).clone().into_builder();
            let group = group.set_column_metadata(vec![column]).build().unwrap();
            let group = GroupStatistics { schema: &schema, footer: &footer, groups: &[group] };
            let known = group.only_values(&[0], Statistics::new_unknown(&schema)).unwrap();
            let min = &known.column_statistics[0].min_value;
            let case = (min_is_exact, max_is_exact, nulls);
            assert_eq!(matches!(min, Precision::Exact(_)), is_known, "{case:?}");
        }
    }
}
