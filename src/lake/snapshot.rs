//! An immutable view of one version of a table: its schema, its files and what is known of them.
//!
//! A snapshot is read once in full; later ones are made from it and the few commits between. Reads
//! the log only, never a data file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{Date32Type, Int64Type, Schema, SchemaRef, UInt64Type};
use delta_kernel::engine::arrow_conversion::TryIntoArrow;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::scan::{PartitionValuesOptions, StatsOptions};
use delta_kernel::snapshot::Snapshot as KernelSnapshot;
use delta_kernel::{Engine, KernelError, SnapshotRef};
use tokio::sync::OnceCell;

use crate::error::{Error, Result};
use crate::lake::kernel::{Kernel, kernel_error};
use crate::lake::log::{AddedFile, Entry, Log, deletion_vector};
use crate::lake::statistics::FileStatistics;

/// One data file of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// Relative to the table's folder, as the log has it.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// The value of the partition column, in days since 1970.
    pub partition: Option<i32>,
    /// How many rows it has.
    pub rows: u64,
}

/// One version of a table.
pub struct Snapshot {
    /// The version.
    pub version: u64,
    /// All columns, the partition column among them.
    pub schema: SchemaRef,
    /// The live files, in no particular order.
    pub files: Vec<DataFile>,
    statistics: FileStatistics,
    pub(super) inner: SnapshotRef,
    kernel: Kernel,
    /// What is known of applications' versions. Kept, for the kernel reads the whole log for one.
    apps: Mutex<Applications>,
    /// What is said of the commit that made it, once it was asked for.
    pub(super) said: Arc<OnceCell<Said>>,
}

/// What is said of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// What its writer said: [`crate::lake::commit::Commit::info`].
    pub info: BTreeMap<String, String>,
    /// What tells it from any other that could have made the version.
    pub mark: String,
}

/// Versions of applications.
#[derive(Debug, Clone, Default)]
struct Applications {
    known: BTreeMap<String, Option<i64>>,
    /// Whether what is not known does not exist.
    all: bool,
}

impl Snapshot {
    /// Statistics of the files, aligned with [`Self::files`].
    pub fn stats(&self) -> &FileStatistics {
        &self.statistics
    }

    /// The rows of all files together.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// The version that an application has last committed (`txn` in the log).
    pub async fn app_version(&self, app_id: &str) -> Result<Option<i64>> {
        if let Some(known) = self.known_app(app_id) {
            return Ok(known);
        }
        let app = app_id.to_owned();
        let version = self
            .ask(&format!("reading the version of `{app_id}`"), move |snapshot, engine| {
                snapshot.get_app_id_version(&app, engine)
            })
            .await?;
        self.apps().known.insert(app_id.to_owned(), version);
        Ok(version)
    }

    /// Takes the versions of all applications there are.
    pub(super) fn learn(&self, versions: BTreeMap<String, i64>) {
        let known = versions.into_iter().map(|(app, version)| (app, Some(version))).collect();
        *self.apps() = Applications { known, all: true };
    }

    /// Asks the kernel's view of this version something that may read the log.
    ///
    /// The view names files of the log as they were when it was made. Where the log was shortened
    /// since, the version is read anew from what took their place.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        what: &str,
        question: impl Fn(&SnapshotRef, &dyn Engine) -> Result<T, KernelError> + Send + 'static,
    ) -> Result<T> {
        let (inner, version) = (Arc::clone(&self.inner), self.version);
        let (url, what) = (self.kernel.url.clone(), what.to_owned());
        self.kernel
            .run(move |engine| {
                let answer = question(&inner, engine).or_else(|error| {
                    let builder = KernelSnapshot::builder_for(url).at_version(version);
                    // What made the first attempt fail says more than that the second did, too.
                    let Ok(anew) = builder.build(engine) else { return Err(error) };
                    question(&anew, engine)
                });
                answer.map_err(|error| kernel_error(what, error))
            })
            .await
    }

    /// The version of an application, as far as that is known.
    fn known_app(&self, app_id: &str) -> Option<Option<i64>> {
        let apps = self.apps();
        apps.known.get(app_id).copied().or(apps.all.then_some(None))
    }

    fn apps(&self) -> MutexGuard<'_, Applications> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads all of the version that `inner` stands at.
    pub(super) async fn read(kernel: &Kernel, log: &Log, inner: SnapshotRef) -> Result<Self> {
        let schema = table_schema(&inner)?;
        let columns = data_columns(&schema, log);
        let (source, table, partition) =
            (Arc::clone(&inner), log.display.clone(), log.partition.clone());
        let (files, statistics) = kernel
            .run(move |engine| {
                let listed = list(&source, engine, &table, partition.as_deref())?;
                let statistics = FileStatistics::parse(&columns, &listed)?;
                Ok((data_files(listed, &statistics), statistics))
            })
            .await?;
        Ok(Self {
            version: inner.version(),
            schema,
            files,
            statistics,
            inner,
            kernel: kernel.clone(),
            apps: Mutex::default(),
            said: Arc::default(),
        })
    }

    /// The same version with other files, of which these are the statistics.
    pub(super) fn with_files(&self, files: Vec<DataFile>, statistics: FileStatistics) -> Self {
        Self {
            version: self.version,
            schema: Arc::clone(&self.schema),
            files,
            statistics,
            inner: Arc::clone(&self.inner),
            kernel: self.kernel.clone(),
            apps: Mutex::new(self.apps().clone()),
            said: Arc::clone(&self.said),
        }
    }

    /// The same version with those of its files that `keep` says.
    ///
    /// # Errors
    /// A defect of ours: statistics that do not belong to the files.
    pub fn only(&self, keep: impl Fn(&DataFile) -> bool) -> Result<Self> {
        let kept: BooleanArray = self.files.iter().map(|file| Some(keep(file))).collect();
        let files = self.files.iter().filter(|file| keep(file)).cloned().collect();
        Ok(self.with_files(files, self.statistics.filter(&kept)?))
    }

    /// The snapshot that `entries`, the commits since this one, have made of it.
    pub(super) fn advance(
        &self,
        log: &Log,
        inner: SnapshotRef,
        entries: Vec<Entry>,
    ) -> Result<Self> {
        let schema = table_schema(&inner)?;
        let columns = data_columns(&schema, log);
        let change = Change::of(entries);
        let gone = |path: &str| change.gone.contains(path);
        let statistics = self.statistics.widen(&columns, &self.files)?;
        let keep: BooleanArray = self.files.iter().map(|file| Some(!gone(&file.path))).collect();
        let kept = if keep.false_count() == 0 { statistics } else { statistics.filter(&keep)? };
        let fresh = FileStatistics::parse(&columns, &change.added)?;
        let mut files = self.files.clone();
        files.retain(|file| !gone(&file.path));
        files.extend(data_files(change.added, &fresh));
        let mut apps = self.apps().clone();
        apps.known.extend(change.apps.into_iter().map(|(app, version)| (app, Some(version))));
        Ok(Self {
            version: inner.version(),
            schema,
            files,
            statistics: kept.concat(&fresh)?,
            inner,
            kernel: self.kernel.clone(),
            apps: Mutex::new(apps),
            said: Arc::default(),
        })
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("version", &self.version)
            .field("files", &self.files.len())
            .finish_non_exhaustive()
    }
}

/// Several commits as one.
struct Change {
    /// Live after the last commit, each path once.
    added: Vec<AddedFile>,
    /// Every path that a commit named: what was live before under this path is not any more.
    gone: HashSet<String>,
    apps: HashMap<String, i64>,
}

impl Change {
    fn of(entries: Vec<Entry>) -> Self {
        let mut added = BTreeMap::new();
        let (mut gone, mut apps) = (HashSet::new(), HashMap::new());
        for entry in entries {
            for path in entry.removed {
                added.remove(&path);
                gone.insert(path);
            }
            for file in entry.added {
                gone.insert(file.path.clone());
                added.insert(file.path.clone(), file);
            }
            apps.extend(entry.apps);
        }
        Self { added: added.into_values().collect(), gone, apps }
    }
}

fn table_schema(snapshot: &SnapshotRef) -> Result<SchemaRef> {
    let schema: Result<Schema, _> = snapshot.schema().as_ref().try_into_arrow();
    let schema = schema.map_err(|error| {
        Error::invalid(format!("the table has a column of an unknown type: {error}"))
            .with_source(error)
    })?;
    Ok(Arc::new(schema))
}

/// The columns that files hold.
pub(super) fn data_columns(schema: &Schema, log: &Log) -> Schema {
    let is_data = |name: &String| Some(name) != log.partition.as_ref();
    let fields = schema.fields().iter().filter(|field| is_data(field.name()));
    Schema::new(fields.cloned().collect::<Vec<_>>())
}

pub(super) fn data_files(listed: Vec<AddedFile>, statistics: &FileStatistics) -> Vec<DataFile> {
    let rows = statistics.row_counts();
    let rows = rows.as_primitive::<UInt64Type>().values();
    let file = |(file, &rows): (AddedFile, &u64)| DataFile {
        path: file.path,
        size: file.size,
        partition: file.partition,
        rows,
    };
    listed.into_iter().zip(rows).map(file).collect()
}

/// Lists the live files through the kernel.
fn list(
    snapshot: &SnapshotRef,
    engine: &dyn Engine,
    table: &str,
    partition: Option<&str>,
) -> Result<Vec<AddedFile>> {
    let listing = |error: KernelError| kernel_error(format!("listing the files of {table}"), error);
    let scan = Arc::clone(snapshot)
        .scan_builder()
        .with_stats(StatsOptions::json_only())
        .with_partition_values(PartitionValuesOptions::with_struct())
        .without_row_transforms()
        .build()
        .map_err(listing)?;
    let mut files = Vec::new();
    for found in scan.scan_metadata(engine).map_err(listing)? {
        let (rows, selected) = found.map_err(listing)?.scan_files.into_parts();
        let rows = ArrowEngineData::try_from_engine_data(rows).map_err(listing)?;
        let selected = |row: usize| selected.get(row).copied().unwrap_or(true);
        read_rows(rows.record_batch(), selected, table, partition, &mut files)?;
    }
    Ok(files)
}

fn read_rows(
    rows: &RecordBatch,
    selected: impl Fn(usize) -> bool,
    table: &str,
    partition: Option<&str>,
    files: &mut Vec<AddedFile>,
) -> Result<()> {
    let column = |name: &str| {
        let missing = || Error::internal(format!("the kernel's list of files has no `{name}`"));
        rows.column_by_name(name).ok_or_else(missing)
    };
    let paths = column("path")?.as_string::<i32>();
    let sizes = column("size")?.as_primitive::<Int64Type>();
    let statistics = column("stats")?.as_string::<i32>();
    let vectors = column("deletionVector")?;
    let partitions = partition.map(|name| {
        let parsed = column("partitionValues_parsed")?.as_struct();
        let missing = || Error::internal(format!("the kernel's list of files has no `{name}`"));
        Ok::<_, Error>(
            parsed.column_by_name(name).ok_or_else(missing)?.as_primitive::<Date32Type>(),
        )
    });
    let partitions = partitions.transpose()?;
    for row in (0..rows.num_rows()).filter(|&row| selected(row)) {
        let path = paths.value(row);
        if vectors.is_valid(row) {
            return Err(deletion_vector(table, path));
        }
        let negative = |_| Error::corrupt(format!("{table}: file {path} has a negative size"));
        files.push(AddedFile {
            path: path.to_owned(),
            size: u64::try_from(sizes.value(row)).map_err(negative)?,
            partition: partitions.filter(|dates| dates.is_valid(row)).map(|dates| dates.value(row)),
            statistics: match statistics.is_valid(row) {
                true => statistics.value(row).to_owned(),
                false => String::new(),
            },
        });
    }
    Ok(())
}
