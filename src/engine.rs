//! Runs plans: one DataFusion session per question, with its limits.
//!
//! A seam: what stands above hands over a logical plan and gets record batches, and need not know
//! where they were computed.

use std::error::Error as _;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, Result as EngineResult};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, MemoryConsumer, MemoryReservation};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{
    FunctionRegistry, SendableRecordBatchStream, SessionState, SessionStateBuilder, TaskContext,
};
use datafusion::logical_expr::{LogicalPlan, Sort};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::stream::{RecordBatchReceiverStream, RecordBatchStreamAdapter};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;

use crate::error::{Error, Result};
use crate::functions;
use crate::lake::checked::NOT_AS_WRITTEN;
use crate::lake::location::Location;

mod neighbours;

/// Memory for the footers of data files, read once per process.
const FOOTER_CACHE_BYTES: usize = 256 << 20;

/// Most memory that a sort sets aside for merging what it spilled.
const SORT_RESERVED_BYTES: usize = 10 << 20;

/// Most rows that are made of one batch where each row makes several. Small batches cost more than they
/// save: a quarter of a million rows at once took 7 times as long, in the same memory.
const ROWS_WIDENED: usize = 1 << 22;

/// Batches of rows in order that may wait for those before them, in all partitions together.
const BATCHES_AHEAD: usize = 64;

/// What a question may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Partitions that run side by side.
    pub threads: usize,
    /// Memory for the state of operators; beyond it they spill.
    pub memory_bytes: usize,
    /// Where they spill to; the system's folder for temporary files if none.
    pub spill_folder: Option<PathBuf>,
    /// Most bytes that they may spill.
    pub spill_max_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: 2 << 30,
            spill_folder: None,
            spill_max_bytes: 100 << 30,
        }
    }
}

/// How often plans of ours go through the logical optimizer: a second pass was found to change none of them, and
/// without it small answers take 3 to 5 % less CPU time.
const OWN_PASSES: usize = 1;

/// The same for what people write.
const STATEMENT_PASSES: usize = 3;

/// How much of the data a question is likely to touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// A few rows that the sort order finds: rows are filtered inside the Parquet reader.
    Needle,
    /// Most rows: filtering inside the reader would cost more than it saves.
    Broad,
}

/// The memory and disk that the questions of one process share.
///
/// What plans run with is prepared once: registering a few hundred functions takes longer than many
/// answers.
#[derive(Debug, Clone)]
pub struct Engine {
    limits: Limits,
    runtime: Arc<RuntimeEnv>,
    needle: Arc<SessionState>,
    broad: Arc<SessionState>,
    /// For rows that stay in the order of their scan.
    in_order: Arc<SessionState>,
}

impl Engine {
    /// An engine that reads the lake at `location`.
    ///
    /// # Errors
    /// A folder to spill to that cannot be used.
    pub fn new(location: &Location, limits: Limits) -> Result<Self> {
        let disk = DiskManagerBuilder::default()
            .with_mode(match &limits.spill_folder {
                Some(folder) => DiskManagerMode::Directories(vec![folder.clone()]),
                None => DiskManagerMode::OsTmpDirectory,
            })
            .with_max_temp_directory_size(limits.spill_max_bytes);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(limits.memory_bytes)))
            .with_disk_manager_builder(disk)
            .with_metadata_cache_limit(FOOTER_CACHE_BYTES)
            .build_arc()
            .map_err(|error| Error::invalid("folder to spill to").with_source(error))?;
        runtime.register_object_store(&location.url, Arc::clone(&location.store));
        Ok(Self::prepared(limits, runtime))
    }

    fn prepared(limits: Limits, runtime: Arc<RuntimeEnv>) -> Self {
        let broad = prepare(&limits, &runtime, Reach::Broad, OWN_PASSES);
        let mut config = broad.config().clone();
        config.options_mut().optimizer.enable_round_robin_repartition = false;
        let in_order = SessionStateBuilder::new_from_existing(broad.clone()).with_config(config);
        Self {
            needle: Arc::new(prepare(&limits, &runtime, Reach::Needle, OWN_PASSES)),
            broad: Arc::new(broad),
            in_order: Arc::new(in_order.build()),
            limits,
            runtime,
        }
    }

    /// A session of its own, with our functions and settings and without any table.
    pub fn session(&self, reach: Reach) -> SessionContext {
        let state = prepare(&self.limits, &self.runtime, reach, STATEMENT_PASSES);
        SessionContext::new_with_state(state)
    }

    fn state(&self, reach: Reach) -> &Arc<SessionState> {
        match reach {
            Reach::Needle => &self.needle,
            Reach::Broad => &self.broad,
        }
    }

    /// The physical plan of a logical one.
    ///
    /// # Errors
    /// A plan that the engine cannot run.
    pub async fn physical(
        &self,
        plan: &LogicalPlan,
        reach: Reach,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        planned(self.state(reach), plan).await
    }

    /// The physical plan of a logical one whose scans give their rows in the order that it sorts them by,
    /// without that sort: nothing in it mixes them. `None` where it sorts nothing, or the engine has found
    /// another way.
    ///
    /// # Errors
    /// As [`Self::physical`].
    pub async fn physical_in_order(
        &self,
        plan: &LogicalPlan,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let LogicalPlan::Sort(Sort { input, .. }) = plan else { return Ok(None) };
        let physical = planned(&self.in_order, input).await?;
        Ok(keeps_order(physical.as_ref()).then_some(physical))
    }

    /// The same engine for questions that get so much memory at most, beside those that this one answers.
    ///
    /// # Errors
    /// A folder to spill to that cannot be used.
    pub fn with_memory(&self, memory_bytes: usize) -> Result<Self> {
        let limits = Limits {
            memory_bytes: memory_bytes.min(self.limits.memory_bytes),
            ..self.limits.clone()
        };
        let runtime = RuntimeEnvBuilder::from_runtime_env(&self.runtime)
            .with_memory_pool(Arc::new(FairSpillPool::new(limits.memory_bytes)))
            .build_arc()
            .map_err(|error| Error::invalid("folder to spill to").with_source(error))?;
        Ok(Self::prepared(limits, runtime))
    }

    /// What questions may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A part of the memory of questions, for rows that are held outside of plans.
    pub fn memory(&self, purpose: &str) -> MemoryReservation {
        MemoryConsumer::new(purpose).register(&self.runtime.memory_pool)
    }

    /// Runs a physical plan; rows come as one ordered stream.
    ///
    /// # Errors
    /// A plan that cannot start.
    pub fn execute(&self, plan: Arc<dyn ExecutionPlan>) -> Result<SendableRecordBatchStream> {
        self.execute_widening(plan, 1)
    }

    /// The same for a plan that makes so many rows of one: fewer are taken at once, so that the rows
    /// made of them fit in memory.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn execute_widening(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        rows_of_one: usize,
    ) -> Result<SendableRecordBatchStream> {
        let context = TaskContext::from(self.broad.as_ref());
        let config = context.session_config().clone();
        let at_once = (ROWS_WIDENED / rows_of_one.max(1)).clamp(1, config.batch_size());
        let context = context.with_session_config(config.with_batch_size(at_once));
        execute_stream(plan, Arc::new(context)).map_err(engine_error)
    }

    /// Runs a plan of [`Self::physical_in_order`]: the rows of one partition after the other, of which the
    /// later ones are computed meanwhile.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn execute_in_order(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
    ) -> Result<SendableRecordBatchStream> {
        let context = Arc::new(TaskContext::from(self.broad.as_ref()));
        let partitions = plan.output_partitioning().partition_count();
        let ahead = (BATCHES_AHEAD / partitions.max(1)).max(1);
        let streams = (0..partitions).map(|partition| {
            let mut input = plan.execute(partition, Arc::clone(&context))?;
            let mut stream = RecordBatchReceiverStream::builder(plan.schema(), ahead);
            let rows = stream.tx();
            stream.spawn(async move {
                while let Some(batch) = input.next().await {
                    // Nobody reads on.
                    if rows.send(batch).await.is_err() {
                        break;
                    }
                }
                Ok(())
            });
            Ok(stream.build())
        });
        let streams = streams.collect::<EngineResult<Vec<_>>>().map_err(engine_error)?;
        let rows = futures::stream::iter(streams).flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(plan.schema(), rows)))
    }
}

/// The physical plan of a logical one, made beside others: it takes a core and waits for nothing.
async fn planned(state: &Arc<SessionState>, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
    let (state, plan) = (Arc::clone(state), plan.clone());
    let planning = tokio::spawn(async move {
        state.create_physical_plan(&plan).await.and_then(neighbours::add_up)
    });
    let planned = planning.await;
    planned.map_err(|error| Error::internal("planning").with_source(error))?.map_err(engine_error)
}

/// Whether nothing in a plan mixes the rows of what it reads, so that they come as that gives them,
/// partition after partition, and whether that gives them in order: partitions of a scan may share its files.
fn keeps_order(plan: &dyn ExecutionPlan) -> bool {
    let partitions = |plan: &dyn ExecutionPlan| plan.output_partitioning().partition_count();
    match plan.children().as_slice() {
        [] => match plan.downcast_ref::<DataSourceExec>() {
            Some(scan) => {
                let files = scan.data_source().downcast_ref::<FileScanConfig>();
                files.is_some_and(|files| files.preserve_order)
            }
            None => plan.is::<EmptyExec>(),
        },
        [input] => {
            plan.maintains_input_order() == [true]
                && partitions(plan) == partitions(input.as_ref())
                && keeps_order(input.as_ref())
        }
        _ => false,
    }
}

fn prepare(
    limits: &Limits,
    runtime: &Arc<RuntimeEnv>,
    reach: Reach,
    passes: usize,
) -> SessionState {
    let mut config = SessionConfig::new().with_target_partitions(limits.threads.max(1));
    let options = config.options_mut();
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.default_null_ordering = "nulls_last".to_owned();
    options.optimizer.max_passes = passes;
    // `IS NOT TRUE` is never null for the logical plan and may be for the physical one; their
    // schemas are compared where expressions are shared between aggregates.
    options.execution.skip_physical_aggregate_schema_check = true;
    let reserved = limits.memory_bytes / (8 * limits.threads.max(1));
    options.execution.sort_spill_reservation_bytes = reserved.min(SORT_RESERVED_BYTES);
    let parquet = &mut options.execution.parquet;
    parquet.pushdown_filters = reach == Reach::Needle;
    parquet.reorder_filters = reach == Reach::Needle;
    let mut state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(Arc::clone(runtime))
        .with_default_features()
        .build();
    for function in functions::scalar_functions() {
        // Registering replaces what has the same name and cannot fail.
        let _ = state.register_udf(function);
    }
    for function in functions::aggregate_functions() {
        let _ = state.register_udaf(function);
    }
    state
}

/// Whether an object that was to be read is not there. The reader of footers passes the store's error
/// on as text only.
fn is_missing(error: &DataFusionError) -> bool {
    use DataFusionError as Engine;
    match error {
        Engine::ObjectStore(error) => {
            matches!(error.as_ref(), object_store::Error::NotFound { .. })
        }
        Engine::ParquetError(error) if let Some(error) = store_error(error) => {
            matches!(error, object_store::Error::NotFound { .. })
        }
        Engine::ParquetError(error) => {
            let text = error.to_string();
            text.contains("Object Store error: Object at location") && text.contains(" not found")
        }
        _ => false,
    }
}

/// What the store said, where the engine's Parquet reader passes it on.
fn store_error(error: &parquet::errors::ParquetError) -> Option<&object_store::Error> {
    match error {
        parquet::errors::ParquetError::External(source) => source.downcast_ref(),
        _ => None,
    }
}

/// With these words the engine's Parquet reader tells that the store failed and not the file.
const STORE_FAILED: &str = "Object Store error: ";

/// What is said of a file that is not what was written: the store's words without those around them.
fn damaged_file(message: &str) -> String {
    let file = message.split(NOT_AS_WRITTEN).next().unwrap_or_default();
    let file = file.rsplit("checksums error: ").next().unwrap_or_default();
    format!("{file}{NOT_AS_WRITTEN} (`meterhouse verify` finds all such files)")
}

/// Whether a question failed for want of memory, or of the disk that what does not fit is spilled to, so that
/// more memory may help.
pub fn wants_memory(error: &Error) -> bool {
    use DataFusionError as Engine;
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let mut failed = causes.filter_map(|cause| cause.downcast_ref::<DataFusionError>());
    failed.any(|cause| match cause.find_root() {
        Engine::ResourcesExhausted(_) | Engine::IoError(_) => true,
        Engine::ArrowError(cause, _) => is_of_a_disk(cause),
        _ => false,
    })
}

/// Whether what was spilled could not be written or read.
fn is_of_a_disk(error: &ArrowError) -> bool {
    matches!(error, ArrowError::IoError(..))
}

/// The engine's errors by whose turn it is.
pub fn engine_error(error: DataFusionError) -> Error {
    use DataFusionError as Engine;
    let message = error.strip_backtrace();
    let message = message.lines().next().unwrap_or_default().to_owned();
    let failed = match error.find_root() {
        Engine::ResourcesExhausted(_) => Error::unavailable(format!(
            "the question needs more memory than allowed, which --memory sets: {message}"
        )),
        root if is_missing(root) => Error::not_found(format!(
            "a data file is gone, as those of old versions are after vacuum (`meterhouse log` shows \
             the versions there were): {message}"
        )),
        // The reader of footers passes this on as text only, too.
        _ if message.contains(NOT_AS_WRITTEN) => Error::corrupt(damaged_file(&message)),
        Engine::ObjectStore(_) | Engine::IoError(_) => Error::unavailable(message),
        Engine::ArrowError(cause, _) if is_of_a_disk(cause) => Error::unavailable(message),
        Engine::ParquetError(error)
            if message.contains(STORE_FAILED) || store_error(error).is_some() =>
        {
            Error::unavailable(message)
        }
        Engine::ParquetError(_) => Error::corrupt(format!("a data file cannot be read: {message}")),
        Engine::Internal(_) => Error::internal(message),
        _ => Error::invalid(message),
    };
    failed.with_source(error)
}
