//! One Delta table of a lake: making it, opening it, looking at its versions.
//!
//! A table is `<root>/<namespace>/<name>/`, with the modern protocol and no reader features, so that
//! the readers people have open it. Its statistics cover every column. Commits are `lake::commit`'s.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, Schema};
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_conversion::TryIntoKernel;
use delta_kernel::schema::StructType;
use delta_kernel::snapshot::Snapshot as KernelSnapshot;
use delta_kernel::table_features::ColumnMappingMode;
use delta_kernel::transaction::create_table::create_table;
use delta_kernel::transaction::data_layout::DataLayout;
use delta_kernel::{Engine, KernelError, SnapshotRef};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::commit::commit_info_row;
use crate::lake::kernel::{Kernel, kernel_error, store_error};
use crate::lake::location::{Location, Namespace, is_plain_name};
use crate::lake::log::{Entry, Log};
use crate::lake::sealed::SealedLog;
use crate::lake::snapshot::{DataFile, Snapshot, data_files};
use crate::lake::statistics::FileStatistics;

/// Who wrote a table or a file, in its metadata.
pub(super) const ENGINE: &str = concat!("meterhouse/", env!("CARGO_PKG_VERSION"));

const TABLE_ID: &str = "meterhouse.tableId";
const PARTITION: &str = "meterhouse.partition";
const FORMAT: &str = "meterhouse.format";
/// Raised when an older version of ours would misread a table.
const FORMAT_VERSION: u32 = 1;

/// Further than this behind, a snapshot is read anew and not brought up to date commit by commit.
const MAX_COMMITS_REPLAYED: u64 = 64;
const CONCURRENT_READS: usize = 8;
/// The folder of ours in a table's folder; see [`crate::lake::notes`].
pub(super) const NOTES: &str = "_meterhouse";
/// How many objects are looked at to say what lies where a table should.
const OTHERS_LOOKED_AT: usize = 1_000;

/// A Delta table of a lake. Cheap to clone; the clones share what they know.
#[derive(Debug, Clone)]
pub struct Table {
    pub(super) kernel: Kernel,
    pub(super) log: Arc<Log>,
    location: Location,
    id: Arc<str>,
    latest: Arc<Mutex<Arc<Snapshot>>>,
}

/// What one commit did to a table.
#[derive(Debug, Clone)]
pub struct VersionChange {
    /// The version the commit made.
    pub version: u64,
    /// The files it added.
    pub added: Vec<DataFile>,
    /// The paths of the files it removed.
    pub removed: Vec<String>,
    /// What was said about it: see [`Table::commit_info`].
    pub info: BTreeMap<String, String>,
}

impl Table {
    /// Makes the table, or opens it if it is there already (whoever made it).
    ///
    /// `schema` holds all columns; `partition` names at most one of them, of type `Date32`. `info`
    /// is kept with the first commit.
    pub async fn create(
        location: &Location,
        namespace: &Namespace,
        name: &str,
        schema: &Schema,
        partition: &[&str],
        info: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let place = Place::new(location, namespace, name)?;
        let partition = partition_column(&place, schema, partition)?;
        match place.content().await? {
            Content::Table => return Self::open_place(place).await,
            Content::Other(other) => {
                return Err(Error::invalid(format!(
                    "{} holds {other}: it is no place for a new table",
                    place.log.display
                )));
            }
            Content::Nothing => {}
        }
        let (url, what) = (place.kernel.url.clone(), format!("making {}", place.log.display));
        let (schema, info) = (schema.clone(), info.clone());
        let made = place.kernel.run(move |engine| {
            make(engine, &url, &schema, partition.as_deref(), &info)
                .map_err(|error| kernel_error(what, error))
        });
        match made.await {
            Ok(()) => Self::open_place(place).await,
            // It may be made all the same, by us or by somebody else.
            Err(error) => Self::open_place(place).await.map_err(|_| error),
        }
    }

    /// Opens the table.
    ///
    /// `NotFound` when there is none; `Invalid` when it is not ours, or of a newer version; `Corrupt`
    /// when its log is damaged.
    pub async fn open(location: &Location, namespace: &Namespace, name: &str) -> Result<Self> {
        Self::open_place(Place::new(location, namespace, name)?).await
    }

    async fn open_place(place: Place) -> Result<Self> {
        match place.content().await? {
            Content::Table => {}
            Content::Other(other) => {
                return Err(Error::invalid(format!(
                    "{} holds {other} but is no Delta table",
                    place.log.display
                )));
            }
            Content::Nothing => return Err(Error::not_found(place.missing)),
        }
        let Place { location, kernel, mut log, missing: _ } = place;
        let inner = load(&kernel, &log, None).await?;
        // To the kernel an entry without a word, as a crash of the disk may leave it, says nothing.
        log.read(inner.version()).await?;
        let id = check_ours(&inner, &log.display)?;
        log.partition = unknown_property(&inner, PARTITION).filter(|name| !name.is_empty());
        let snapshot = Snapshot::read(&kernel, &log, inner).await;
        let snapshot = named_damage(&log, snapshot).await?;
        Ok(Self {
            kernel,
            log: Arc::new(log),
            location,
            id: id.into(),
            latest: Arc::new(Mutex::new(Arc::new(snapshot))),
        })
    }

    /// The table's own id: a table that is removed and made again has another.
    pub fn table_id(&self) -> &str {
        &self.id
    }

    /// Where the lake lies.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The table's folder as people know it.
    pub fn display(&self) -> &str {
        &self.log.display
    }

    /// The name of the partition column, if there is one.
    pub fn partition(&self) -> Option<&str> {
        self.log.partition.as_deref()
    }

    /// The place of one of the table's files in the location's store.
    pub fn object_path(&self, path: &str) -> Result<Path> {
        let outside = || Error::invalid(format!("{}: file {path} lies outside", self.display()));
        if path.starts_with('/') || path.contains("://") {
            return Err(outside());
        }
        // The log has paths as URLs have them.
        let relative = Path::from_url_path(path).map_err(|error| outside().with_source(error))?;
        Ok(self.log.table.parts().chain(relative.parts()).collect())
    }

    /// The table at a version, or as it is now.
    ///
    /// `NotFound` for a version that is not there, with those that are.
    pub async fn snapshot(&self, at: Option<u64>) -> Result<Arc<Snapshot>> {
        let latest = self.refresh().await?;
        match at {
            None => Ok(latest),
            Some(version) if version == latest.version => Ok(latest),
            Some(version) => self.travel(version, latest.version).await,
        }
    }

    /// A file of `snapshot` that is not there, if there is one.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn missing_file(&self, snapshot: &Snapshot) -> Result<Option<String>> {
        let there: HashSet<Path> = self.objects().await?.into_iter().map(|o| o.location).collect();
        for file in &snapshot.files {
            if !there.contains(&self.object_path(&file.path)?) {
                return Ok(Some(file.path.clone()));
            }
        }
        Ok(None)
    }

    /// What was said about the commit that made `version` ([`crate::lake::commit::Commit::info`]).
    pub async fn commit_info(&self, version: u64) -> Result<BTreeMap<String, String>> {
        Ok(self.entry(version).await?.info)
    }

    /// What the commits after version `from` did, up to and with version `to`.
    pub async fn changes(&self, from: u64, to: u64) -> Result<Vec<VersionChange>> {
        let entries = self.entries(from, to).await?;
        let versions = from.saturating_add(1)..=to;
        versions.zip(entries).map(|(version, entry)| version_change(version, entry)).collect()
    }

    pub(super) fn known(&self) -> Arc<Snapshot> {
        Arc::clone(&self.latest.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Brings what is known up to `inner`, a later view of the table than `base`.
    pub(super) async fn advance(
        &self,
        base: &Arc<Snapshot>,
        inner: SnapshotRef,
    ) -> Result<Arc<Snapshot>> {
        let (from, to) = (base.version, inner.version());
        if from == to {
            return Ok(Arc::clone(base));
        }
        let replay = from < to && to - from <= MAX_COMMITS_REPLAYED;
        let entries = if replay { self.entries(from, to).await } else { Ok(Vec::new()) };
        let snapshot = match entries {
            Ok(entries) if replay => base.advance(&self.log, inner, entries)?,
            // The log no longer reaches back that far.
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(_) | Err(_) => Snapshot::read(&self.kernel, &self.log, inner).await?,
        };
        let snapshot = Arc::new(snapshot);
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.version < snapshot.version {
            *latest = Arc::clone(&snapshot);
        }
        Ok(snapshot)
    }

    async fn refresh(&self) -> Result<Arc<Snapshot>> {
        let base = self.known();
        let known = Arc::clone(&base.inner);
        let what = format!("looking for new versions of {}", self.display());
        let loaded = self.kernel.run(move |engine| {
            KernelSnapshot::builder_from(known)
                .build(engine)
                .map_err(|error| kernel_error(what, error))
        });
        let inner = named_damage(&self.log, loaded.await).await?;
        self.advance(&base, inner).await
    }

    async fn travel(&self, version: u64, latest: u64) -> Result<Arc<Snapshot>> {
        if version < latest {
            match load(&self.kernel, &self.log, Some(version)).await {
                Ok(inner) => {
                    return Snapshot::read(&self.kernel, &self.log, inner).await.map(Arc::new);
                }
                Err(error) if self.is_there(version).await? => return Err(error),
                Err(_) => {}
            }
        }
        Err(self.no_version(version).await?)
    }

    async fn is_there(&self, version: u64) -> Result<bool> {
        let versions = self.log.versions().await?;
        Ok(versions.is_some_and(|(oldest, newest)| (oldest..=newest).contains(&version)))
    }

    async fn no_version(&self, version: u64) -> Result<Error> {
        let versions = match self.log.versions().await? {
            Some((oldest, newest)) => format!("versions {oldest} to {newest}"),
            None => "no versions any more".to_owned(),
        };
        Ok(Error::not_found(format!(
            "version {version} of {} does not exist: there are {versions}",
            self.display()
        )))
    }

    pub(super) async fn entry(&self, version: u64) -> Result<Entry> {
        match self.log.read(version).await? {
            Some(entry) => Ok(entry),
            None => Err(self.no_version(version).await?),
        }
    }

    /// The entries after version `from`, up to and with version `to`.
    pub(super) async fn entries(&self, from: u64, to: u64) -> Result<Vec<Entry>> {
        let versions = from.saturating_add(1)..=to;
        futures::stream::iter(versions.map(|version| self.entry(version)))
            .buffered(CONCURRENT_READS)
            .try_collect()
            .await
    }
}

/// Where a table lies or shall lie.
struct Place {
    location: Location,
    kernel: Kernel,
    log: Log,
    /// What to say when it is not there.
    missing: String,
}

impl Place {
    fn new(location: &Location, namespace: &Namespace, name: &str) -> Result<Self> {
        if !is_plain_name(name) {
            return Err(Error::internal(format!("`{name}` cannot be the name of a table")));
        }
        let folder = format!("{namespace}/{name}");
        Ok(Self {
            kernel: Kernel::new(location, &folder)?,
            log: Log {
                store: Arc::new(SealedLog::new(Arc::clone(&location.store))),
                table: location.root.clone().join(namespace.as_str()).join(name),
                display: format!("{location}/{folder}"),
                partition: None,
            },
            missing: format!(
                "there is no lake at {location} (namespace `{namespace}` has no table `{name}`): \
                 `meterhouse ingest` makes one"
            ),
            location: location.clone(),
        })
    }

    /// What there is. What was no log at first may be one that somebody has just begun.
    async fn content(&self) -> Result<Content> {
        if self.log.versions().await?.is_some() {
            return Ok(Content::Table);
        }
        let Some(other) = self.holds_other().await? else { return Ok(Content::Nothing) };
        Ok(match self.log.versions().await? {
            Some(_) => Content::Table,
            None => Content::Other(other),
        })
    }

    /// Something in the table's folder, of which there is no log: data, if there is any among the first
    /// objects, as our notes say less of what it was.
    async fn holds_other(&self) -> Result<Option<String>> {
        let what = || format!("looking into {}", self.log.display);
        let found = self.log.store.list(Some(&self.log.table)).take(OTHERS_LOOKED_AT);
        let found: Vec<_> =
            found.try_collect().await.map_err(|error| store_error(what(), error))?;
        let notes = self.log.table.clone().join(NOTES);
        let other = found.iter().min_by_key(|object| object.location.prefix_matches(&notes));
        Ok(other.map(|object| format!("`{}`", object.location.filename().unwrap_or_default())))
    }
}

/// What is where a table is looked for.
enum Content {
    Table,
    /// Something that is no table, by the name of a file.
    Other(String),
    Nothing,
}

fn partition_column(place: &Place, schema: &Schema, names: &[&str]) -> Result<Option<String>> {
    let refuse = |text: &str| {
        Err(Error::internal(format!("{} partitioned by {names:?}: {text}", place.log.display)))
    };
    match names {
        [] => Ok(None),
        [name] => match schema.field_with_name(name).map(|field| field.data_type()) {
            Ok(DataType::Date32) => Ok(Some((*name).to_owned())),
            Ok(_) => refuse("the column is no date"),
            Err(_) => refuse("there is no such column"),
        },
        _ => refuse("only one column is possible"),
    }
}

fn properties(partition: Option<&str>) -> Vec<(&'static str, String)> {
    vec![
        // Statistics of all columns, also of those that come later.
        ("delta.dataSkippingNumIndexedCols", "-1".to_owned()),
        // Other programs must not shorten the history.
        ("delta.enableExpiredLogCleanup", "false".to_owned()),
        (FORMAT, FORMAT_VERSION.to_string()),
        (TABLE_ID, Uuid::new_v4().to_string()),
        (PARTITION, partition.unwrap_or_default().to_owned()),
    ]
}

/// Writes the first log entry. That somebody else was faster is no error.
fn make(
    engine: &dyn Engine,
    url: &str,
    schema: &Schema,
    partition: Option<&str>,
    info: &BTreeMap<String, String>,
) -> Result<(), KernelError> {
    let schema: StructType = schema.try_into_kernel()?;
    let layout = partition.map_or(DataLayout::None, |name| DataLayout::partitioned([name]));
    let (info, info_schema) = commit_info_row(&Uuid::new_v4().to_string(), info)?;
    let built = create_table(url, Arc::new(schema), ENGINE, false)
        .with_table_properties(properties(partition))
        .with_data_layout(layout)
        .with_commit_info(info, info_schema)
        .build(engine, Box::new(FileSystemCommitter::new()));
    match built {
        Ok(transaction) => transaction.commit(engine).map(|_| ()),
        Err(KernelError::TableAlreadyExistsAtPath(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn load(kernel: &Kernel, log: &Log, at: Option<u64>) -> Result<SnapshotRef> {
    let (url, what) = (kernel.url.clone(), format!("opening the table {}", log.display));
    let loaded = kernel.run(move |engine| {
        let builder = KernelSnapshot::builder_for(url);
        let builder = match at {
            Some(version) => builder.at_version(version),
            None => builder,
        };
        builder.build(engine).map_err(|error| kernel_error(what, error))
    });
    named_damage(log, loaded.await).await
}

/// Where something stored is damaged, says which entry of the log it is, if it is one.
async fn named_damage<T>(log: &Log, result: Result<T>) -> Result<T> {
    match result {
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Internal) => {
            Err(log.find_damage().await?.unwrap_or(error))
        }
        other => other,
    }
}

fn unknown_property(snapshot: &SnapshotRef, name: &str) -> Option<String> {
    snapshot.table_properties().unknown_properties.get(name).cloned()
}

/// The table's id, if this version of ours can work with the table.
fn check_ours(snapshot: &SnapshotRef, display: &str) -> Result<String> {
    let foreign =
        || Error::invalid(format!("{display} is a Delta table that meterhouse did not make"));
    let id = unknown_property(snapshot, TABLE_ID).ok_or_else(foreign)?;
    let format = unknown_property(snapshot, FORMAT).ok_or_else(foreign)?;
    if format.parse::<u32>().map_or(true, |format| format > FORMAT_VERSION) {
        return Err(Error::invalid(format!(
            "{display} has table format {format}, this version knows {FORMAT_VERSION}: use a newer one"
        )));
    }
    match snapshot.table_properties().column_mapping_mode {
        None | Some(ColumnMappingMode::None) => Ok(id),
        Some(mode) => Err(Error::invalid(format!(
            "{display} has the table feature columnMapping ({mode:?}), which this version cannot read"
        ))),
    }
}

fn version_change(version: u64, entry: Entry) -> Result<VersionChange> {
    let statistics = FileStatistics::parse(&Schema::empty(), &entry.added)?;
    Ok(VersionChange {
        version,
        added: data_files(entry.added, &statistics),
        removed: entry.removed,
        info: entry.info,
    })
}
