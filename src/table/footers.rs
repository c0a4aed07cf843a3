//! Footers of data files, each read once by a process; and their bytes, checked as they are read.
//!
//! The stock reader keeps a footer without the index of its pages, which it then reads again with
//! every scan. A file that is scanned a second time is likely to be scanned a third time: its footer is
//! kept with the index from then on, and a file that is scanned once costs no more than before. The
//! checksums of a file are kept beside its footer.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::{HashMap, Result};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::execution::cache::cache_manager::{
    CachedFileMetadataEntry, FileMetadata, FileMetadataCache,
};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};

use crate::lake::checked::CheckedFile;
use crate::lake::checksums::Checksums;

/// Makes the readers of one scan.
#[derive(Debug)]
pub(super) struct Footers {
    store: Arc<dyn ObjectStore>,
    cache: Arc<FileMetadataCache>,
    /// The folder of the files, and what people know it as.
    folder: (Path, String),
}

impl Footers {
    pub(super) fn new(
        store: Arc<dyn ObjectStore>,
        cache: Arc<FileMetadataCache>,
        folder: (Path, String),
    ) -> Self {
        Self { store, cache, folder }
    }
}

impl ParquetFileReaderFactory for Footers {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let meta = file.object_meta.clone();
        let with_pages = self.cache.get(&meta.location).is_some();
        let known = known(self.cache.as_ref(), &meta.location);
        let (folder, shown) = &self.folder;
        let within: Path = meta.location.prefix_match(folder).into_iter().flatten().collect();
        let place = (meta.location.clone(), format!("{shown}/{within}"), meta.size);
        let checked = Arc::new(CheckedFile::new(Arc::clone(&self.store), place, known));
        let store = Arc::clone(&checked) as Arc<dyn ObjectStore>;
        let readers = CachedParquetFileReaderFactory::new(store, Arc::clone(&self.cache));
        let reader = readers.create_reader(partition, file, size_hint, metrics)?;
        let cache = Arc::clone(&self.cache);
        Ok(Box::new(Reader { reader, checked, meta, cache, with_pages }))
    }
}

/// Checksums as the cache of footers keeps them.
struct Kept(Arc<Checksums>);

impl FileMetadata for Kept {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn memory_size(&self) -> usize {
        self.0.memory_size()
    }

    fn extra_info(&self) -> HashMap<String, String> {
        HashMap::new()
    }
}

/// Under what the cache of footers keeps the checksums of a file: no file lies below another.
fn place_of_checksums(file: &Path) -> Path {
    file.clone().join("checksums")
}

fn known(cache: &FileMetadataCache, file: &Path) -> Option<Arc<Checksums>> {
    let kept = cache.get(&place_of_checksums(file))?;
    kept.file_metadata.as_any().downcast_ref::<Kept>().map(|kept| Arc::clone(&kept.0))
}

/// A reader of one file.
struct Reader {
    reader: Box<dyn AsyncFileReader + Send>,
    checked: Arc<CheckedFile>,
    meta: ObjectMeta,
    cache: Arc<FileMetadataCache>,
    /// Whether its footer comes with the index of its pages.
    with_pages: bool,
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.reader.get_bytes(range)
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.reader.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        let mut options = options.cloned().unwrap_or_default();
        if self.with_pages {
            options = options.with_page_index_policy(PageIndexPolicy::Optional);
        }
        async move {
            let footer = self.reader.get_metadata(Some(&options)).await?;
            let place = place_of_checksums(&self.meta.location);
            if let Some(checksums) = self.checked.known()
                && !self.cache.contains_key(&place)
            {
                let kept = Arc::new(Kept(Arc::clone(checksums)));
                self.cache.put(&place, CachedFileMetadataEntry::new(self.meta.clone(), kept));
            }
            Ok(footer)
        }
        .boxed()
    }
}
