//! What applications have last committed to a table (`txn` in the log), all of them read at once.
//!
//! The kernel answers for one application at a time, and reads the log for each. Whoever asks for many
//! has this read the newest checkpoint and the entries after it once, and the snapshot answers from
//! memory. Where that cannot be done, as another program wrote the checkpoints, nothing is learned,
//! and the kernel is asked as before. Never writes.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::kernel::store_error;
use crate::lake::snapshot::Snapshot;
use crate::lake::table::Table;

impl Table {
    /// Makes `snapshot`, a version of this table, know the versions of all applications.
    ///
    /// # Errors
    /// A store that cannot be read; a log that is damaged.
    pub async fn learn_applications(&self, snapshot: &Snapshot) -> Result<()> {
        let checkpoint = self.log.checkpoint_before(snapshot.version).await?;
        let (mut known, after) = match checkpoint {
            Some((version, place)) => match self.applications_of(&place).await? {
                Some(known) => (known, version),
                None => return Ok(()),
            },
            None => (BTreeMap::new(), 0),
        };
        let entries = match self.entries(after, snapshot.version).await {
            // The log was shortened by others, or stands on a checkpoint that is not ours.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            known.extend(entry.apps);
        }
        snapshot.learn(known);
        Ok(())
    }

    /// The applications that a checkpoint names; `None` where it is gone or of another shape.
    async fn applications_of(&self, place: &Path) -> Result<Option<BTreeMap<String, i64>>> {
        let what = || format!("reading {place}");
        let bytes = match self.location().store.get(place).await {
            Ok(found) => found.bytes().await.map_err(|error| store_error(what(), error))?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(store_error(what(), error)),
        };
        let damaged = |error: &dyn std::fmt::Display| {
            Error::corrupt(format!("checkpoint {place} is damaged: {error}"))
        };
        let builder =
            ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|error| damaged(&error))?;
        let mask = ProjectionMask::columns(
            builder.parquet_schema(),
            [format!("{TXN}.{APP_ID}"), format!("{TXN}.{VERSION}")].iter().map(String::as_str),
        );
        let rows = builder.with_projection(mask).build().map_err(|error| damaged(&error))?;
        let mut known = BTreeMap::new();
        for batch in rows {
            let batch = batch.map_err(|error| damaged(&error))?;
            let Some(txn) = batch.column_by_name(TXN).and_then(|txn| txn.as_struct_opt()) else {
                return Ok(None);
            };
            let apps = txn.column_by_name(APP_ID).and_then(|apps| apps.as_string_opt::<i32>());
            let versions = txn.column_by_name(VERSION);
            let versions = versions.and_then(|each| each.as_primitive_opt::<Int64Type>());
            let (Some(apps), Some(versions)) = (apps, versions) else { return Ok(None) };
            let named = (0..txn.len())
                .filter(|&row| txn.is_valid(row) && apps.is_valid(row) && versions.is_valid(row));
            known.extend(named.map(|row| (apps.value(row).to_owned(), versions.value(row))));
        }
        Ok(Some(known))
    }
}

/// The column of a checkpoint that names applications, and its parts.
const TXN: &str = "txn";
const APP_ID: &str = "appId";
const VERSION: &str = "version";
