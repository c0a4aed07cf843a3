//! Turns staged files into visible ones.
//!
//! One create-if-absent put of the next log entry: readers see all of a commit or none of it. After
//! anything but a plain success the entry is read back and its mark compared with ours, for a store
//! may answer "exists" when nothing landed, or fail when it did. An entry that landed with a failure
//! is put again: only that it "exists" tells that it will stay. Does not write data files
//! (`lake::writer`), never deletes one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::kernels::cast_utils::Parser;
use arrow::datatypes::{DataType, Date32Type, Field, FieldRef, Schema};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::temporal_conversions::date32_to_datetime;
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_conversion::{TryIntoArrow, TryIntoKernel};
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::engine_data::FilteredEngineData;
use delta_kernel::scan::scan_row_schema;
use delta_kernel::schema::{MapType, SchemaRef as KernelSchema, StructField, StructType};
use delta_kernel::transaction::{CommitResult, Transaction, UpdateTableOperation};
use delta_kernel::{Engine, EngineData, KernelError, SnapshotRef};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::lake::kernel::kernel_error;
use crate::lake::log::{Entry, INFO, NONCE};
use crate::lake::snapshot::{DataFile, Said, Snapshot};
use crate::lake::staged::StagedFile;
use crate::lake::table::{ENGINE, Table};

/// How often an append tries to win.
const MAX_ATTEMPTS: u32 = 100;
const FIRST_BACKOFF_MS: u64 = 2;
const LAST_BACKOFF_MS: u64 = 250;
/// How often a store may refuse a version that is not there.
const MAX_PHANTOMS: u32 = 3;
/// A checkpoint spares readers the entries before it.
const CHECKPOINT_INTERVAL: u64 = 100;

/// A change to a table: it happens in full or not at all.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Files that become visible. Adding a file that is live already changes nothing.
    pub add: Vec<StagedFile>,
    /// Paths of live files that disappear.
    pub remove: Vec<String>,
    /// Columns that appear; all nullable. Those that the table has already are passed over.
    pub add_columns: Vec<FieldRef>,
    /// The version that an application reaches with this commit; greater than its last one.
    pub app: Option<(String, i64)>,
    /// What is being done.
    pub operation: Operation,
    /// What is kept about the commit: see [`Table::commit_info`].
    pub info: BTreeMap<String, String>,
    /// When it happens, in milliseconds since 1970.
    pub at_ms: i64,
}

/// What a commit is for. History shows it under Delta's own names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Operation {
    /// Rows are added.
    #[default]
    Append,
    /// Rows stay what they are, in other files.
    Compact,
    /// Rows change or go.
    Correct,
}

/// How a commit ended.
#[derive(Debug)]
pub enum CommitOutcome {
    /// It is visible, and this is the table with it.
    Committed(Arc<Snapshot>),
    /// Somebody else made that version first. Nothing of ours happened.
    Lost {
        /// The version that went to somebody else.
        winner: u64,
    },
}

/// How far one try came.
enum Attempt {
    Committed(SnapshotRef),
    /// The store said no, or nothing of use.
    Unclear(Option<KernelError>),
}

impl Table {
    /// Tries to make the version after `base`.
    ///
    /// `Conflict` when a file to remove is not live in `base` or the application's version is not
    /// greater than the one in `base`. After any other error the commit may still appear later,
    /// unless `Lost` or a later look at the table says otherwise: an application's version tells.
    pub async fn commit(&self, base: &Arc<Snapshot>, commit: Commit) -> Result<CommitOutcome> {
        self.try_commit(base, &Arc::new(commit)).await
    }

    /// Commits a change that removes nothing, however many others commit meanwhile.
    ///
    /// `Conflict` when the application's version is reached already, or after too many lost races.
    pub async fn append(&self, commit: Commit) -> Result<Arc<Snapshot>> {
        if let Some(path) = commit.remove.first() {
            return Err(Error::internal(format!("an append cannot remove {path}")));
        }
        let commit = Arc::new(commit);
        for attempt in 0..MAX_ATTEMPTS {
            let base = self.snapshot(None).await?;
            match self.try_commit(&base, &commit).await? {
                CommitOutcome::Committed(snapshot) => return Ok(snapshot),
                CommitOutcome::Lost { .. } => tokio::time::sleep(backoff(attempt)).await,
            }
        }
        Err(Error::conflict(format!(
            "{}: {MAX_ATTEMPTS} attempts to append lost against other writers",
            self.display()
        )))
    }

    /// Writes a checkpoint where one is due at this version; says whether it did.
    pub async fn maintain(&self, snapshot: &Snapshot) -> Result<bool> {
        if snapshot.version == 0 || !snapshot.version.is_multiple_of(CHECKPOINT_INTERVAL) {
            return Ok(false);
        }
        self.checkpoint(snapshot).await?;
        Ok(true)
    }

    /// Writes a checkpoint of this version; that it is there already is no error.
    pub(super) async fn checkpoint(&self, snapshot: &Snapshot) -> Result<()> {
        let what = format!("writing checkpoint {} of {}", snapshot.version, self.display());
        snapshot.ask(&what, |inner, engine| inner.checkpoint(engine, None).map(|_| ())).await
    }

    /// What tells the commit that made `version` from any other that could have made it: our own mark,
    /// or a hash of what another program's commit did. `None` when the log no longer has its entry.
    ///
    /// # Errors
    /// A log that cannot be read or is damaged.
    pub async fn commit_mark(&self, version: u64) -> Result<Option<String>> {
        Ok(self.log.read(version).await?.map(|entry| mark(&entry)))
    }

    /// What is said of the commit that made a version, read once for each.
    ///
    /// # Errors
    /// `NotFound` where the log no longer has its entry; a damaged log.
    pub async fn said<'s>(&self, snapshot: &'s Snapshot) -> Result<&'s Said> {
        let read = || async {
            let entry = self.entry(snapshot.version).await?;
            Ok(Said { mark: mark(&entry), info: entry.info })
        };
        snapshot.said.get_or_try_init(read).await
    }

    async fn try_commit(
        &self,
        base: &Arc<Snapshot>,
        commit: &Arc<Commit>,
    ) -> Result<CommitOutcome> {
        let new_columns = self.check(base, commit).await?;
        let nonce = Uuid::new_v4().to_string();
        let version = base.version + 1;
        let mut landed = None;
        for _ in 0..MAX_PHANTOMS {
            let attempt = self.attempt(base, commit, &new_columns, &nonce).await?;
            let error = match attempt {
                Attempt::Committed(inner) => return self.committed(base, inner).await,
                Attempt::Unclear(error) => error,
            };
            match (self.log.read(version).await.map_err(|read| self.unknown(version, read))?, error)
            {
                (Some(entry), error) if entry.nonce.as_ref() == Some(&nonce) => match error {
                    // The store says that it exists, and so that it stays.
                    None => {
                        let snapshot = self.snapshot(Some(version)).await?;
                        return Ok(CommitOutcome::Committed(snapshot));
                    }
                    Some(error) => landed = Some(error),
                },
                (Some(_), _) => return Ok(CommitOutcome::Lost { winner: version }),
                (None, Some(error)) => return Err(self.failed(version, error)),
                (None, None) => {}
            }
        }
        if let Some(error) = landed {
            return Err(self.unknown(version, self.failed(version, error)));
        }
        Err(Error::unavailable(format!(
            "{}: the store refuses version {version} as existing, but it is not there",
            self.display()
        )))
    }

    async fn committed(&self, base: &Arc<Snapshot>, inner: SnapshotRef) -> Result<CommitOutcome> {
        let snapshot = self.advance(base, inner).await?;
        // Without a checkpoint readers are slower, nothing else.
        drop(self.maintain(&snapshot).await);
        Ok(CommitOutcome::Committed(snapshot))
    }

    async fn attempt(
        &self,
        base: &Arc<Snapshot>,
        commit: &Arc<Commit>,
        new_columns: &[FieldRef],
        nonce: &str,
    ) -> Result<Attempt> {
        let (base, commit) = (Arc::clone(base), Arc::clone(commit));
        let (new_columns, nonce) = (new_columns.to_vec(), nonce.to_owned());
        let partition = self.log.partition.clone();
        let what = format!("preparing version {} of {}", base.version + 1, self.display());
        self.kernel
            .run(move |engine| {
                let prepared =
                    prepare(engine, &base, &commit, &new_columns, partition.as_deref(), &nonce);
                let transaction = prepared.map_err(|error| kernel_error(what, error))?;
                Ok(match transaction.commit(engine) {
                    Ok(CommitResult::Committed(done)) => match done.post_commit_snapshot() {
                        Some(snapshot) => Attempt::Committed(Arc::clone(snapshot)),
                        None => Attempt::Unclear(None),
                    },
                    Ok(CommitResult::Conflicted(_)) => Attempt::Unclear(None),
                    Ok(CommitResult::Retryable(failed)) => Attempt::Unclear(Some(failed.error)),
                    Err(error) => Attempt::Unclear(Some(error)),
                })
            })
            .await
    }

    /// What the kernel does not check. Returns the columns that are new.
    async fn check(&self, base: &Arc<Snapshot>, commit: &Commit) -> Result<Vec<FieldRef>> {
        if let Some((app, version)) = &commit.app
            && let Some(reached) = base.app_version(app).await?.filter(|reached| reached >= version)
        {
            return Err(Error::conflict(format!(
                "{}: application `{app}` is at version {reached}, cannot commit version {version}",
                self.display()
            )));
        }
        let live: HashMap<&str, &DataFile> =
            base.files.iter().map(|file| (file.path.as_str(), file)).collect();
        if let Some(dead) = commit.remove.iter().find(|path| !live.contains_key(path.as_str())) {
            return Err(Error::conflict(format!(
                "{}: file {dead} cannot be removed, it is not live at version {}",
                self.display(),
                base.version
            )));
        }
        let new_columns = new_columns(&base.schema, &commit.add_columns)?;
        self.check_columns(base, commit, &new_columns)?;
        Ok(new_columns)
    }

    fn check_columns(&self, base: &Snapshot, commit: &Commit, new: &[FieldRef]) -> Result<()> {
        let known = |name: &str| {
            base.schema.field_with_name(name).is_ok()
                || new.iter().any(|field| field.name() == name)
        };
        for file in &commit.add {
            if let Some(name) = file.columns().find(|name| !known(name)) {
                return Err(Error::internal(format!(
                    "file {} has a column `{name}`, {} has not",
                    file.path,
                    self.display()
                )));
            }
        }
        Ok(())
    }

    fn failed(&self, version: u64, error: KernelError) -> Error {
        kernel_error(format!("writing {}", self.log.entry_display(version)), error)
    }

    fn unknown(&self, version: u64, error: Error) -> Error {
        Error::new(
            error.kind(),
            format!(
                "{}: whether version {version} was committed is unknown: {error}",
                self.display()
            ),
        )
        .with_source(error)
    }
}

/// Our own mark of a commit, or of another program's a hash of what it named.
fn mark(entry: &Entry) -> String {
    if let Some(own) = &entry.nonce {
        return own.clone();
    }
    let mut hash = blake3::Hasher::new();
    let added = entry.added.iter().map(|file| ("+", &file.path));
    for (sign, path) in added.chain(entry.removed.iter().map(|path| ("-", path))) {
        for part in [sign, path, "\n"] {
            hash.update(part.as_bytes());
        }
    }
    hash.finalize().to_hex().to_string()
}

/// Between 50 and 100 % of a time that doubles with every attempt.
fn backoff(attempt: u32) -> Duration {
    let longest = LAST_BACKOFF_MS.min(FIRST_BACKOFF_MS.saturating_mul(1 << attempt.min(16)));
    let (random, _) = Uuid::new_v4().as_u64_pair();
    Duration::from_micros(longest * 500 + random % (longest * 500))
}

/// Those of `wanted` that the table lacks. Delta's names ignore case.
fn new_columns(schema: &Schema, wanted: &[FieldRef]) -> Result<Vec<FieldRef>> {
    let mut new: Vec<FieldRef> = Vec::new();
    for field in wanted {
        let same = |other: &&FieldRef| other.name().eq_ignore_ascii_case(field.name());
        match schema.fields().iter().chain(&new).find(same) {
            None => new.push(Arc::new(field.as_ref().clone().with_nullable(true))),
            Some(known) if known.name() != field.name() => {
                return Err(Error::conflict(format!(
                    "column `{}` differs from `{}` only by case",
                    field.name(),
                    known.name()
                )));
            }
            Some(known) if known.data_type() != field.data_type() => {
                return Err(Error::conflict(format!(
                    "column `{}` is {}, not {}",
                    field.name(),
                    known.data_type(),
                    field.data_type()
                )));
            }
            Some(_) => {}
        }
    }
    Ok(new)
}

fn prepare(
    engine: &dyn Engine,
    base: &Snapshot,
    commit: &Commit,
    new_columns: &[FieldRef],
    partition: Option<&str>,
    nonce: &str,
) -> Result<Transaction, KernelError> {
    let (operation, data_change) = match commit.operation {
        Operation::Append => (UpdateTableOperation::Write, true),
        Operation::Compact => (UpdateTableOperation::Optimize, false),
        Operation::Correct => (UpdateTableOperation::Merge, true),
    };
    let (info, info_schema) = commit_info_row(nonce, &commit.info)?;
    let mut builder = Arc::clone(&base.inner)
        .update_table(operation, ENGINE, data_change)
        .with_commit_info(info, info_schema);
    if let Some((app, version)) = &commit.app {
        builder = builder.with_transaction_id(app, *version);
    }
    for field in new_columns {
        let field: StructField = field.as_ref().try_into_kernel()?;
        builder = builder.add_column(field);
    }
    let mut transaction = builder.build(engine, Box::new(FileSystemCommitter::new()))?;
    if !commit.add.is_empty() {
        let rows = added_rows(&transaction, commit, partition)?;
        transaction.add_files(rows);
    }
    if !commit.remove.is_empty() {
        let gone: HashSet<&str> = commit.remove.iter().map(String::as_str).collect();
        let gone = base.files.iter().filter(|file| gone.contains(file.path.as_str()));
        transaction.remove_files(removed_rows(gone, commit.at_ms, partition)?);
    }
    Ok(transaction)
}

/// The files to add, as rows of the kernel's making with statistics of the table's columns.
fn added_rows(
    transaction: &Transaction,
    commit: &Commit,
    partition: Option<&str>,
) -> Result<Box<dyn EngineData>, KernelError> {
    let files: Schema = transaction.add_files_schema().as_ref().try_into_arrow()?;
    let statistics: Schema = transaction.stats_schema()?.as_ref().try_into_arrow()?;
    let statistics = DataType::Struct(statistics.fields().clone());
    let fields = files.fields().iter().map(|field| match field.name().as_str() {
        "stats" => Arc::new(Field::new("stats", statistics.clone(), true)),
        _ => Arc::clone(field),
    });
    let schema = Schema::new(fields.collect::<Vec<_>>());
    let rows = commit.add.iter().map(|file| {
        json!({
            "path": file.path,
            "partitionValues": partition_values(partition, file.partition),
            "size": file.size,
            "modificationTime": commit.at_ms,
            "stats": file.log_statistics(),
        })
    });
    let rows: Vec<Value> = rows.collect();
    Ok(Box::new(ArrowEngineData::new(batch(schema, &rows)?)))
}

fn removed_rows<'a>(
    files: impl Iterator<Item = &'a DataFile>,
    at_ms: i64,
    partition: Option<&str>,
) -> Result<FilteredEngineData, KernelError> {
    let schema: Schema = scan_row_schema().as_ref().try_into_arrow()?;
    let rows = files.map(|file| {
        json!({
            "path": file.path,
            "size": file.size,
            "modificationTime": at_ms,
            "stats": json!({ "numRecords": file.rows }).to_string(),
            "fileConstantValues": {
                "partitionValues": partition_values(partition, file.partition),
            },
        })
    });
    let rows: Vec<Value> = rows.collect();
    let rows = ArrowEngineData::new(batch(schema, &rows)?);
    Ok(FilteredEngineData::with_all_rows_selected(Box::new(rows)))
}

fn partition_values(column: Option<&str>, days: Option<i32>) -> Value {
    let Some(column) = column else { return json!({}) };
    json!({ column: days.and_then(date_text) })
}

/// The ISO date of a day counted from 1970.
pub(super) fn date_text(days: i32) -> Option<String> {
    let text = date32_to_datetime(days)?.date().to_string();
    // Dates outside of four-digit years are written with a sign, which does not read back.
    Date32Type::parse(&text).filter(|read| *read == days).map(|_| text)
}

/// The row of `commitInfo` that carries our mark and what the caller said.
pub(super) fn commit_info_row(
    nonce: &str,
    info: &BTreeMap<String, String>,
) -> Result<(Box<dyn EngineData>, KernelSchema), KernelError> {
    let string = delta_kernel::schema::DataType::STRING;
    let schema = StructType::try_new([
        StructField::nullable(NONCE, string.clone()),
        StructField::nullable(INFO, MapType::new(string.clone(), string, true)),
    ])?;
    let row = batch((&schema).try_into_arrow()?, &[json!({ NONCE: nonce, INFO: info })])?;
    Ok((Box::new(ArrowEngineData::new(row)), Arc::new(schema)))
}

fn batch(schema: Schema, rows: &[Value]) -> Result<RecordBatch, ArrowError> {
    let schema = Arc::new(schema);
    let reader = ReaderBuilder::new(Arc::clone(&schema)).with_batch_size(rows.len().max(1));
    let mut decoder = reader.build_decoder()?;
    decoder.serialize(rows)?;
    Ok(decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(schema)))
}
