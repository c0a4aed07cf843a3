//! Compares what the log of a table says with what lies in the store.
//!
//! Every live file must be there with the size that the log gives, hash to its own name (so that one
//! wrong bit shows), and have the rows and statistics in its footer that the log has. What is found
//! is told file by file; nothing is changed.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Datum, Scalar};
use arrow::compute::kernels::cmp::{gt, lt};
use arrow::datatypes::{Field, UInt64Type};
use arrow::error::ArrowError;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;

use crate::error::{Error, Result};
use crate::lake::commit::date_text;
use crate::lake::kernel::store_error;
use crate::lake::snapshot::Snapshot;
use crate::lake::statistics::{FileStatistics, has_bounds};
use crate::lake::table::Table;
use crate::lake::vacuum::data_file;

/// Files that are read at the same time.
const FILES_AT_ONCE: usize = 4;

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The file or entry, as people know it.
    pub place: String,
    /// What is wrong with it.
    pub detail: String,
}

/// Checks the live files of `snapshot`, a version of `table`; gives what is wrong.
///
/// # Errors
/// A store that cannot be read; that a file is missing or damaged is no error but an answer.
pub async fn verify_files(table: &Table, snapshot: &Snapshot) -> Result<Vec<Mismatch>> {
    let checks =
        snapshot.files.iter().enumerate().map(|(at, file)| async move {
            let found = verify_file(table, snapshot, at).await?;
            Ok::<_, Error>(found.map(|detail| Mismatch {
                place: format!("{}/{}", table.display(), file.path),
                detail,
            }))
        });
    let found: Vec<Option<Mismatch>> =
        futures::stream::iter(checks).buffered(FILES_AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// Checks that data files which are not live in `snapshot`, those of older versions, hash to their
/// names; gives how many there are and what is wrong. Those that vacuum took are none of them.
///
/// # Errors
/// A store that cannot be read.
pub async fn verify_old_files(table: &Table, snapshot: &Snapshot) -> Result<(u64, Vec<Mismatch>)> {
    let mut live = HashSet::new();
    for file in &snapshot.files {
        live.insert(table.object_path(&file.path)?);
    }
    let objects = table.objects().await?;
    let old = objects.into_iter().filter(|object| !live.contains(&object.location));
    let old = old.filter_map(|object| Some((data_file(table, &object.location)?, object.location)));
    let checks = old.map(|(path, place)| async move {
        let content = match table.location().store.get(&place).await {
            Ok(found) => found.bytes().await,
            // Taken by a vacuum since it was listed.
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => Err(error),
        };
        let content = content.map_err(|error| store_error(format!("reading {place}"), error))?;
        let place = format!("{}/{path}", table.display());
        Ok::<_, Error>(Some(wrong_hash(&path, &content).map(|detail| Mismatch { place, detail })))
    });
    let found: Vec<Option<Option<Mismatch>>> =
        futures::stream::iter(checks).buffered(FILES_AT_ONCE).try_collect().await?;
    let there: Vec<Option<Mismatch>> = found.into_iter().flatten().collect();
    Ok((there.len() as u64, there.into_iter().flatten().collect()))
}

/// Whether a file has a name as ours have, which is a hash.
pub(super) fn is_hash(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default().strip_suffix(".parquet");
    name.is_some_and(|name| name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// What a file's content hashes to, if that is not its name.
pub(super) fn wrong_hash(path: &str, content: &Bytes) -> Option<String> {
    let hash = blake3::hash(content).to_hex();
    let name = path.rsplit('/').next().unwrap_or_default();
    let same = name.strip_suffix(".parquet") == hash.get(..32);
    (!same).then(|| format!("its content hashes to {}…", &hash[..32]))
}

/// What is wrong with a file, if anything is.
async fn verify_file(table: &Table, snapshot: &Snapshot, at: usize) -> Result<Option<String>> {
    let file = &snapshot.files[at];
    if let Some(column) = table.partition() {
        let folder = file.partition.and_then(date_text).map(|date| format!("{column}={date}/"));
        if !folder.is_some_and(|folder| file.path.starts_with(&folder)) {
            return Ok(Some(format!("lies in the folder of another {column} than the log says")));
        }
    }
    let place = table.object_path(&file.path)?;
    let got = match table.location().store.get(&place).await {
        Ok(found) => found.bytes().await,
        Err(error) => Err(error),
    };
    let bytes = match got {
        Ok(bytes) => bytes,
        Err(object_store::Error::NotFound { .. }) => return Ok(Some("is missing".to_owned())),
        Err(error) => return Err(store_error(format!("reading {place}"), error)),
    };
    if bytes.len() as u64 != file.size {
        return Ok(Some(format!("has {} bytes, the log says {}", bytes.len(), file.size)));
    }
    if let Some(wrong) = wrong_hash(&file.path, &bytes) {
        return Ok(Some(wrong));
    }
    let footer = match ParquetRecordBatchReaderBuilder::try_new(bytes) {
        Ok(footer) => footer,
        Err(error) => return Ok(Some(format!("has no readable footer: {error}"))),
    };
    let rows = u64::try_from(footer.metadata().file_metadata().num_rows()).unwrap_or(0);
    if rows != file.rows {
        return Ok(Some(format!("has {rows} rows, the log says {}", file.rows)));
    }
    for column in footer.schema().fields() {
        let name = column.name();
        if !snapshot.schema.fields().iter().any(|known| known.name() == name) {
            return Ok(Some(format!("has a column `{name}`, the table has none")));
        }
        if let Some(wrong) = verify_column(&footer, column, snapshot.stats(), at)
            .map_err(|error| Error::internal(format!("statistics of `{name}`: {error}")))?
        {
            return Ok(Some(wrong));
        }
    }
    Ok(None)
}

/// Where the log's statistics of a column are not true of a file.
fn verify_column(
    footer: &ParquetRecordBatchReaderBuilder<Bytes>,
    column: &Field,
    logged: &FileStatistics,
    at: usize,
) -> parquet::errors::Result<Option<String>> {
    let name = column.name();
    if column.data_type().is_nested() {
        return Ok(None);
    }
    let groups = footer.metadata().row_groups();
    let found = StatisticsConverter::try_new(name, footer.schema(), footer.parquet_schema())?;
    let nulls = found.row_group_null_counts(groups)?;
    let known = logged.null_count(name);
    let known = known.as_ref().map(|known| known.as_primitive::<UInt64Type>());
    if let Some(known) = known.filter(|known| known.is_valid(at) && nulls.null_count() == 0) {
        let (nulls, known) = (nulls.values().iter().sum::<u64>(), known.value(at));
        if nulls != known {
            return Ok(Some(format!("`{name}` has {nulls} nulls, the log says {known}")));
        }
    }
    if !has_bounds(column.data_type()) {
        return Ok(None);
    }
    let beyond = |bound: Option<ArrayRef>, found: &ArrayRef, beyond: Beyond| {
        let Some(bound) = bound.filter(|bound| bound.is_valid(at)) else { return Ok(false) };
        let bound = Scalar::new(bound.slice(at, 1));
        beyond(found, &bound).map(|beyond| beyond.true_count() > 0)
    };
    let (least, greatest) = (found.row_group_mins(groups)?, found.row_group_maxes(groups)?);
    let out = beyond(logged.min(name), &least, lt)? || beyond(logged.max(name), &greatest, gt)?;
    Ok(out.then(|| format!("`{name}` has values beyond the bounds in the log")))
}

type Beyond = fn(&dyn Datum, &dyn Datum) -> Result<BooleanArray, ArrowError>;
