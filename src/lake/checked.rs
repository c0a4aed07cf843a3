//! One data file of a store, whose bytes are checked as they are read.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result,
};
use tokio::sync::OnceCell;

use super::checksums::{Checksums, Damaged, Found, part};

/// Bytes from the end of a file in which its checksums are looked for first.
const TAIL_BYTES: u64 = 64 << 10;

/// What an error says of a file whose bytes are not those that were written.
pub const NOT_AS_WRITTEN: &str = "its content is not what was written";

/// A store as the readers of one file see it: what they read of that file is what was written, or an
/// error.
#[derive(Debug)]
pub struct CheckedFile {
    store: Arc<dyn ObjectStore>,
    file: Path,
    /// The file as people know it.
    name: String,
    size: u64,
    checksums: OnceCell<Arc<Checksums>>,
}

impl CheckedFile {
    /// A file that people know as `name`, of `size` bytes, with its checksums if they were read before.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        (file, name, size): (Path, String, u64),
        known: Option<Arc<Checksums>>,
    ) -> Self {
        Self { store, file, name, size, checksums: OnceCell::new_with(known) }
    }

    /// The checksums, once they were read.
    pub fn known(&self) -> Option<&Arc<Checksums>> {
        self.checksums.get()
    }

    async fn checksums(&self) -> Result<&Arc<Checksums>> {
        self.checksums.get_or_try_init(|| self.load()).await
    }

    async fn load(&self) -> Result<Arc<Checksums>> {
        let mut wanted = TAIL_BYTES.min(self.size);
        loop {
            let tail = self.store.get_range(&self.file, self.size - wanted..self.size).await?;
            match Checksums::find(&tail, self.size).map_err(|Damaged| self.damaged())? {
                Found::All(checksums) => return Ok(Arc::new(checksums)),
                Found::Beyond(more) if more > wanted => wanted = more,
                Found::Beyond(_) => return Err(self.damaged()),
            }
        }
    }

    fn checked(
        &self,
        checksums: &Checksums,
        around: &Range<u64>,
        range: &Range<u64>,
        bytes: &Bytes,
    ) -> Result<Bytes> {
        checksums.check(around, bytes).map_err(|Damaged| self.damaged())?;
        part(bytes, around, range).ok_or_else(|| self.damaged())
    }

    fn damaged(&self) -> Error {
        not_as_written(&self.name)
    }
}

/// The error that a file is not what was written.
pub(super) fn not_as_written(name: &impl fmt::Display) -> Error {
    Error::Generic { store: "checksums", source: format!("{name}: {NOT_AS_WRITTEN}").into() }
}

impl fmt::Display for CheckedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.file, self.store)
    }
}

#[async_trait]
impl ObjectStore for CheckedFile {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if *location != self.file || options.head {
            return self.store.get_opts(location, options).await;
        }
        let range = options.range.as_ref().map(|range| range.as_range(self.size)).transpose();
        let range = range.map_err(|error| Error::Generic {
            store: "checksums",
            source: format!("{location}: {error}").into(),
        })?;
        let range = range.unwrap_or(0..self.size);
        let checksums = self.checksums().await?;
        let around = checksums.around(&range);
        let options = GetOptions { range: Some(GetRange::Bounded(around.clone())), ..options };
        let found = self.store.get_opts(location, options).await?;
        let (meta, attributes) = (found.meta.clone(), found.attributes.clone());
        let bytes = self.checked(checksums, &around, &range, &found.bytes().await?)?;
        let payload = futures::stream::once(async move { Ok(bytes) }).boxed();
        Ok(GetResult { payload: GetResultPayload::Stream(payload), meta, range, attributes })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if *location != self.file {
            return self.store.get_ranges(location, ranges).await;
        }
        let checksums = self.checksums().await?;
        let around: Vec<Range<u64>> = ranges.iter().map(|range| checksums.around(range)).collect();
        let found = self.store.get_ranges(location, &around).await?;
        let parts = ranges.iter().zip(&around).zip(&found);
        parts
            .map(|((range, around), bytes)| self.checked(checksums, around, range, bytes))
            .collect()
    }

    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}
