//! The rows that a stretch of a table's history brought, as a version of their own.
//!
//! Told by the log alone. Files that were compacted since stand as they were committed; where vacuum
//! has taken one, nobody can tell its rows from those it was merged with.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use arrow::compute::kernels::cast_utils::Parser;
use arrow::datatypes::Date32Type;
use object_store::ObjectStoreExt;

use crate::error::{Error, Result};
use crate::lake::kernel::store_error;
use crate::lake::log::AddedFile;
use crate::lake::snapshot::{Snapshot, data_columns, data_files};
use crate::lake::statistics::FileStatistics;
use crate::lake::table::Table;

/// Delta's name of a commit that changes no row.
const COMPACTS: &str = "OPTIMIZE";

/// What the commits of a stretch of history brought.
#[derive(Debug)]
pub struct Brought {
    /// The rows of commits that only added some, with the schema of the last version.
    pub rows: Arc<Snapshot>,
    /// The partitions, in days since 1970, in which rows changed or can be told no more.
    pub changed: BTreeSet<i32>,
}

impl Table {
    /// What the commits after version `from` brought, up to and with that of `to`.
    ///
    /// # Errors
    /// `NotFound` where the log no longer reaches back to `from`; a damaged log.
    pub async fn brought(&self, from: u64, to: &Arc<Snapshot>) -> Result<Brought> {
        let live: HashSet<&str> = to.files.iter().map(|file| file.path.as_str()).collect();
        let mut added: BTreeMap<String, AddedFile> = BTreeMap::new();
        let mut changed = BTreeSet::new();
        for entry in self.entries(from, to.version).await? {
            if entry.operation.as_deref() == Some(COMPACTS) {
                continue;
            }
            if entry.removed.is_empty() {
                added.extend(entry.added.into_iter().map(|file| (file.path.clone(), file)));
                continue;
            }
            let days = entry.added.iter().filter_map(|file| file.partition);
            changed.extend(days);
            for path in &entry.removed {
                changed.insert(self.day_of(path)?);
            }
        }
        let mut rows = Vec::with_capacity(added.len());
        for file in added.into_values() {
            let day = file.partition.map_or_else(|| self.day_of(&file.path), Ok)?;
            // What changed is told by its day.
            if changed.contains(&day) {
                continue;
            }
            if live.contains(file.path.as_str()) || self.is_kept(&file.path).await? {
                rows.push(file);
            } else {
                changed.insert(day);
            }
        }
        rows.retain(|file| file.partition.is_none_or(|day| !changed.contains(&day)));
        let columns = data_columns(&to.schema, &self.log);
        let statistics = FileStatistics::parse(&columns, &rows)?;
        let rows = to.with_files(data_files(rows, &statistics), statistics);
        Ok(Brought { rows: Arc::new(rows), changed })
    }

    /// The partition that a file's path names.
    fn day_of(&self, path: &str) -> Result<i32> {
        let day = self.partition().and_then(|column| {
            let folder = path.strip_prefix(column)?.strip_prefix('=')?.split('/').next()?;
            Date32Type::parse(folder)
        });
        day.ok_or_else(|| {
            Error::corrupt(format!("{}: file {path} has no partition", self.display()))
        })
    }

    /// Whether a file that no version needs any more is still there.
    async fn is_kept(&self, path: &str) -> Result<bool> {
        match self.location().store.head(&self.object_path(path)?).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(store_error(format!("looking for {path}"), error)),
        }
    }
}
