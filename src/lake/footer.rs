//! Footers of data files, read without the files.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use crate::error::{Error, Result};
use crate::lake::checked::CheckedFile;
use crate::lake::kernel::store_error;
use crate::lake::snapshot::{DataFile, Snapshot};
use crate::lake::table::Table;

/// Bytes from the end of a file in which its footer is looked for first.
const TAIL_BYTES: u64 = 64 << 10;
const READS_AT_ONCE: usize = 8;
/// What is in files beside the values of columns: footers, indexes, Bloom filters.
const REST: &str = "(footers and indexes)";

/// Bytes that each column takes in the files of `snapshot`, compressed as they are stored; what is
/// beside the columns under a name of its own.
///
/// # Errors
/// A file that cannot be read or is damaged.
pub async fn column_bytes(table: &Table, snapshot: &Snapshot) -> Result<BTreeMap<String, u64>> {
    let footers = snapshot
        .files
        .iter()
        .map(|file| async move { Ok::<_, Error>((file.size, footer(table, file).await?)) });
    let mut footers = futures::stream::iter(footers).buffer_unordered(READS_AT_ONCE);
    let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
    while let Some((size, footer)) = footers.try_next().await? {
        let mut rest = size;
        for column in footer.row_groups().iter().flat_map(|group| group.columns()) {
            let of_column = u64::try_from(column.compressed_size()).unwrap_or(0);
            let name = column.column_path().parts().first().cloned().unwrap_or_default();
            *bytes.entry(name).or_default() += of_column;
            rest = rest.saturating_sub(of_column);
        }
        *bytes.entry(REST.to_owned()).or_default() += rest;
    }
    Ok(bytes)
}

async fn footer(table: &Table, file: &DataFile) -> Result<ParquetMetaData> {
    let place = table.object_path(&file.path)?;
    let name = || format!("{}/{}", table.display(), file.path);
    let damaged = |error: ParquetError| {
        Error::corrupt(format!("{}: damaged data file: {error}", name())).with_source(error)
    };
    let mut wanted = TAIL_BYTES.min(file.size);
    let store = Arc::clone(&table.location().store);
    let store = CheckedFile::new(store, (place.clone(), name(), file.size), None);
    loop {
        let range = file.size - wanted..file.size;
        let tail = store.get_range(&place, range).await;
        let tail = tail.map_err(|error| store_error(format!("reading {}", name()), error))?;
        let mut reader = ParquetMetaDataReader::new();
        match reader.try_parse_sized(&tail, file.size) {
            Ok(()) => return reader.finish().map_err(damaged),
            Err(ParquetError::NeedMoreData(more)) => {
                let more = u64::try_from(more).unwrap_or(u64::MAX).min(file.size);
                if more <= wanted {
                    return Err(damaged(ParquetError::EOF("the footer has no end".to_owned())));
                }
                wanted = more;
            }
            Err(error) => return Err(damaged(error)),
        }
    }
}
