//! The events of one lake version as a DataFusion table.
//!
//! Prunes files by partition and statistics, then returns the stock Parquet scan: nothing of ours
//! is between the plan and the reader. The file list is that of the snapshot, never a listing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, UInt64Type};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, DataFusionError, Result as EngineResult, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::scalar::ScalarValue;
use object_store::path::Path;

use crate::error::{Error, Result};
use crate::lake::snapshot::Snapshot;
use crate::lake::table::Table;
use crate::plan::TableFacts;
use crate::schema::{self, EVENT_DATE, KIND, KIND_EVENT, PROPERTIES, ValueKind};
use crate::time::{TimeRange, Timestamp};

mod footers;
mod row_groups;
mod statistics;

use footers::Footers;
use statistics::{SnapshotStatistics, file_statistics};

/// Longest `IN` list that files are pruned by.
const IN_LIST_MAX: usize = 1_000;

/// What the scans of a table have left out, for explanations.
#[derive(Debug, Default)]
pub struct ScanCounts {
    scans: AtomicUsize,
    files_read: AtomicUsize,
}

impl ScanCounts {
    /// How many scans were planned.
    pub fn scans(&self) -> usize {
        self.scans.load(Ordering::Relaxed)
    }

    /// How many files they read together.
    pub fn files_read(&self) -> usize {
        self.files_read.load(Ordering::Relaxed)
    }
}

/// How scans spread what they read over partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spread {
    /// So many bytes of the files to each.
    Bytes,
    /// Runs of the row groups that are asked for, in their order.
    Runs,
    /// The row groups that are asked for, of which each takes the next one.
    Shared,
}

/// One version of the events table, or of another one partitioned by dates, ready to be scanned.
#[derive(Debug)]
pub struct EventsTable {
    snapshot: Arc<Snapshot>,
    schema: TableSchema,
    store: ObjectStoreUrl,
    files: Vec<PartitionedFile>,
    /// Of each file, once it is asked for.
    statistics: OnceLock<Vec<Arc<Statistics>>>,
    dates: RecordBatch,
    partition: String,
    /// Where the files lie, and what people know that folder as.
    folder: (Path, String),
    spread: Spread,
    counts: ScanCounts,
}

impl EventsTable {
    /// The events of `snapshot`, a version of `table`.
    ///
    /// # Errors
    /// A file of the log that lies outside the table, or that is in no partition.
    pub fn new(table: &Table, snapshot: Arc<Snapshot>) -> Result<Self> {
        let partition = table.partition().unwrap_or(EVENT_DATE);
        let file_schema = Arc::new(as_views(&without_partition(&snapshot.schema, partition)));
        let date: FieldRef = Arc::new(Field::new(partition, DataType::Date32, false));
        let mut values = Vec::with_capacity(snapshot.files.len());
        let mut files = Vec::with_capacity(snapshot.files.len());
        for file in &snapshot.files {
            let Some(day) = file.partition else {
                return Err(Error::corrupt(format!(
                    "{}: file {} has no {partition}",
                    table.display(),
                    file.path
                )));
            };
            values.push(day);
            let path = table.object_path(&file.path)?;
            files.push(
                PartitionedFile::new(path, file.size)
                    .with_partition_values(vec![ScalarValue::Date32(Some(day))]),
            );
        }
        let dates = arrow::array::Date32Array::from(values);
        let date_schema = Arc::new(Schema::new(vec![Arc::clone(&date)]));
        let dates = RecordBatch::try_new(date_schema, vec![Arc::new(dates)])
            .map_err(|error| Error::internal("partition values").with_source(error))?;
        let store = ObjectStoreUrl::parse(&table.location().url)
            .map_err(|error| Error::internal("address of the store").with_source(error))?;
        Ok(Self {
            schema: TableSchema::builder(file_schema).with_table_partition_cols(vec![date]).build(),
            store,
            files,
            statistics: OnceLock::new(),
            dates,
            partition: partition.to_owned(),
            folder: (table.object_path("")?, table.display().to_owned()),
            snapshot,
            spread: Spread::Bytes,
            counts: ScanCounts::default(),
        })
    }

    /// The same for few large files of which little is asked: only the row groups that may hold it are
    /// spread over the partitions. In order, they are one run after the other: rows come by date, and of
    /// one file in its order, where nothing in the plan mixes them.
    #[must_use]
    pub fn by_row_groups(self, in_order: bool) -> Self {
        Self { spread: if in_order { Spread::Runs } else { Spread::Shared }, ..self }
    }

    /// The version that is scanned.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// What the scans so far have read.
    pub fn counts(&self) -> &ScanCounts {
        &self.counts
    }

    /// First and last `event_date` with an event that may count, days since 1970; `None` if there is
    /// none.
    pub fn days(&self) -> Option<(i32, i32)> {
        // The other kinds come after it in the order of texts.
        let least = self.snapshot.stats().min(KIND);
        let least = least.as_ref().map(|least| least.as_string::<i32>());
        let counts = |file: usize| {
            least.is_none_or(|least| least.is_null(file) || least.value(file) <= KIND_EVENT)
        };
        let files = self.snapshot.files.iter().enumerate();
        let days = files.filter(|(place, _)| counts(*place)).filter_map(|(_, file)| file.partition);
        days.clone().min().zip(days.max())
    }

    /// What the statistics tell about the files with days in `range`.
    pub fn facts(&self, range: TimeRange) -> TableFacts {
        let within: Vec<usize> = self.files_within(range);
        let rows = self.snapshot.stats().row_counts();
        let rows = rows.as_primitive::<UInt64Type>();
        let holds = |column: &str| {
            let Some(nulls) = self.snapshot.stats().null_count(column) else { return true };
            let nulls = nulls.as_primitive::<UInt64Type>();
            within.iter().any(|&f| nulls.is_null(f) || nulls.value(f) < rows.value(f))
        };
        let mut properties: BTreeMap<String, Vec<ValueKind>> = BTreeMap::new();
        for field in self.snapshot.schema.fields() {
            if let Some((kind, name)) = schema::property_of_column(field.name()) {
                let kinds = properties.entry(name.to_owned()).or_default();
                if holds(field.name()) {
                    kinds.push(kind);
                }
            }
        }
        TableFacts {
            properties,
            others: holds(PROPERTIES),
            days: self.days(),
            corrections: self.has_corrections(&within),
        }
    }

    fn files_within(&self, range: TimeRange) -> Vec<usize> {
        let from = range.from.map_or(i32::MIN, Timestamp::date_days);
        let to = range.to.map_or(i32::MAX, Timestamp::date_days);
        let files = self.snapshot.files.iter().enumerate();
        let within = |day: i32| from <= day && day <= to;
        files.filter(|(_, file)| file.partition.is_none_or(within)).map(|(at, _)| at).collect()
    }

    /// Whether any of these files may have rows that are no plain events.
    fn has_corrections(&self, files: &[usize]) -> bool {
        let bound = |bound: Option<arrow::array::ArrayRef>| {
            bound.is_some_and(|bound| {
                let kinds = bound.as_string::<i32>();
                let kind = |file: usize| kinds.is_valid(file).then(|| kinds.value(file));
                files.iter().all(|&file| kind(file) == Some(KIND_EVENT))
            })
        };
        let statistics = self.snapshot.stats();
        !(bound(statistics.min(KIND)) && bound(statistics.max(KIND)))
    }

    fn is_about_partition(&self, expr: &Expr) -> bool {
        let columns = expr.column_refs();
        !columns.is_empty()
            && !expr.is_volatile()
            && columns.iter().all(|column| column.name() == self.partition)
    }

    /// Which files may hold rows that meet `filters`, and what parts of them are left out by, if any are.
    fn prune(
        &self,
        state: &dyn Session,
        filters: &[Expr],
    ) -> EngineResult<(Vec<bool>, Option<PruningPredicate>)> {
        let mut keep = vec![true; self.files.len()];
        let (dates, others): (Vec<Expr>, Vec<Expr>) =
            filters.iter().cloned().partition(|filter| self.is_about_partition(filter));
        if let Some(dates) = conjunction(dates) {
            let schema = DFSchema::try_from(self.dates.schema())?;
            let condition = state.create_physical_expr(dates, &schema)?;
            let met = condition.evaluate(&self.dates)?.into_array(self.dates.num_rows())?;
            let met = met.as_boolean();
            for (file, keep) in keep.iter_mut().enumerate() {
                *keep = met.is_valid(file) && met.value(file);
            }
        }
        let mut condition = None;
        if let Some(others) = conjunction(others) {
            let schema = self.schema();
            let df_schema = DFSchema::try_from(schema.as_ref().clone())?;
            let others = state.create_physical_expr(others, &df_schema)?;
            let pruning = PruningPredicateBuilder::new()
                .with_file_schema(schema)
                .with_max_in_list_size(IN_LIST_MAX)
                .try_build(others)?;
            if !pruning.always_true() {
                let statistics =
                    SnapshotStatistics { snapshot: &self.snapshot, dates: &self.dates };
                for (keep, may) in keep.iter_mut().zip(pruning.prune(&statistics)?) {
                    *keep &= may;
                }
                condition = Some(pruning);
            }
        }
        Ok((keep, condition))
    }
}

/// Files in the order of the dates that they are of.
fn by_date(mut files: Vec<PartitionedFile>) -> Vec<PartitionedFile> {
    let date = |file: &PartitionedFile| match file.partition_values.first() {
        Some(ScalarValue::Date32(date)) => *date,
        _ => None,
    };
    files.sort_by(|a, b| date(a).cmp(&date(b)).then_with(|| a.path().cmp(b.path())));
    files
}

fn without_partition(schema: &Schema, partition: &str) -> Schema {
    let fields = schema.fields().iter().filter(|field| field.name() != partition);
    Schema::new(fields.cloned().collect::<Vec<_>>())
}

/// The same columns with texts as views, which the engine reads and groups by fastest.
fn as_views(schema: &Schema) -> Schema {
    let view = |field: &FieldRef| match field.data_type() {
        DataType::Utf8 => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View)),
        _ => Arc::clone(field),
    };
    Schema::new(schema.fields().iter().map(view).collect::<Vec<_>>())
}

#[async_trait]
impl TableProvider for EventsTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.schema.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> EngineResult<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match self.is_about_partition(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let schema = self.schema();
        let (keep, condition) = self.prune(state, filters)?;
        // A table is also made for its facts alone, without a scan.
        let statistics = self.statistics.get_or_init(|| {
            let all = file_statistics(&self.snapshot, self.schema.file_schema());
            all.into_iter().map(Arc::new).collect()
        });
        let kept = self.files.iter().zip(statistics).zip(keep).filter(|(_, keep)| *keep);
        let kept: Vec<PartitionedFile> = kept
            .map(|((file, statistics), _)| file.clone().with_statistics(Arc::clone(statistics)))
            .collect();
        self.counts.scans.fetch_add(1, Ordering::Relaxed);
        self.counts.files_read.fetch_add(kept.len(), Ordering::Relaxed);
        // A file never changes under its name.
        let runtime = state.runtime_env();
        let footers = Footers::new(
            runtime.object_store(&self.store)?,
            runtime.cache_manager.get_file_metadata_cache(),
            self.folder.clone(),
        );
        let partitions = state.config().target_partitions();
        let groups = match condition.filter(|_| self.spread != Spread::Bytes) {
            Some(condition) => {
                let kept = by_date(kept);
                row_groups::spread(kept, &condition, &schema, (&footers, partitions)).await?
            }
            None => FileGroup::new(kept).split_files(partitions),
        };
        if groups.is_empty() {
            let projected = datafusion::physical_plan::project_schema(&schema, projection)?;
            return Ok(Arc::new(EmptyExec::new(projected)));
        }
        let groups = groups.into_iter().map(|group| {
            let statistics = merged(group.files(), &schema)?;
            Ok::<_, DataFusionError>(group.with_statistics(Arc::new(statistics)))
        });
        let groups = groups.collect::<EngineResult<Vec<FileGroup>>>()?;
        let statistics = Statistics::try_merge_iter(
            groups.iter().filter_map(|group| group.file_statistics(None)),
            &schema,
        )?;
        let source = ParquetSource::new(self.schema.clone())
            .with_table_parquet_options(state.table_options().parquet.clone())
            .with_parquet_file_reader_factory(Arc::new(footers));
        let config = FileScanConfigBuilder::new(self.store.clone(), Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_limit(limit)
            .with_preserve_order(self.spread == Spread::Runs)
            .with_projection_indices(projection.cloned())?
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

fn merged(files: &[PartitionedFile], schema: &SchemaRef) -> EngineResult<Statistics> {
    Statistics::try_merge_iter(files.iter().filter_map(|file| file.statistics.as_deref()), schema)
}
