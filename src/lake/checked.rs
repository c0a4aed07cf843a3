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

use super::checksums::{BLOCK_BYTES, Checksums, Damaged, Found, part};

/// Bytes from the end of a file in which its checksums are looked for first.
const TAIL_BYTES: u64 = 64 << 10;

/// What an error says of a file whose bytes are not those that were written.
pub const NOT_AS_WRITTEN: &str = "damaged, its content is not what was written";

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
            let tail = self.store.get_range(&self.file, self.size - wanted..self.size).await;
            let tail = self.whole(tail).await?;
            match self.found(&tail)? {
                Found::All(checksums) => return Ok(Arc::new(checksums)),
                Found::Beyond(more) if more > wanted => wanted = more,
                Found::Beyond(_) => return Err(self.damaged()),
            }
        }
    }

    /// What was read; that it failed may be because the file is not as long as it was.
    async fn whole<T>(&self, read: Result<T>) -> Result<T> {
        match read {
            Err(error) if !matches!(error, Error::NotFound { .. }) => {
                match self.store.head(&self.file).await {
                    Ok(meta) if meta.size != self.size => Err(self.damaged()),
                    Ok(_) | Err(_) => Err(error),
                }
            }
            read => read,
        }
    }

    fn found(&self, tail: &Bytes) -> Result<Found> {
        Checksums::find(tail, self.size).map_err(|Damaged| self.damaged())
    }

    fn check(&self, checksums: &Checksums, around: &Range<u64>, bytes: &Bytes) -> Result<()> {
        checksums.check(around, bytes).map_err(|Damaged| self.damaged())
    }

    fn damaged(&self) -> Error {
        not_as_written(&self.name)
    }
}

/// Ranges that touch as one, in their order.
fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
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
        let around = match self.known() {
            Some(checksums) => checksums.around(&range),
            // The footer is read first, and what is before it tells its checksum: that is one look.
            None if range.end == self.size => {
                let start = range.start.min(self.size.saturating_sub(TAIL_BYTES));
                start / BLOCK_BYTES * BLOCK_BYTES..self.size
            }
            None => self.checksums().await?.around(&range),
        };
        let options = GetOptions { range: Some(GetRange::Bounded(around.clone())), ..options };
        let found = self.whole(self.store.get_opts(location, options).await).await?;
        let (meta, attributes) = (found.meta.clone(), found.attributes.clone());
        if meta.size != self.size {
            return Err(self.damaged());
        }
        let bytes = found.bytes().await?;
        if self.known().is_none()
            && let Found::All(checksums) = self.found(&bytes)?
        {
            // Somebody else may have found the same.
            drop(self.checksums.set(Arc::new(checksums)));
        }
        let checksums = self.checksums().await?;
        let needed = checksums.around(&range);
        let bytes = match part(&bytes, &around, &needed) {
            Some(bytes) => bytes,
            // A long footer.
            None => self.store.get_range(location, needed.clone()).await?,
        };
        self.check(checksums, &needed, &bytes)?;
        let bytes = part(&bytes, &needed, &range).ok_or_else(|| self.damaged())?;
        let payload = futures::stream::once(async move { Ok(bytes) }).boxed();
        Ok(GetResult { payload: GetResultPayload::Stream(payload), meta, range, attributes })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if *location != self.file {
            return self.store.get_ranges(location, ranges).await;
        }
        let checksums = self.checksums().await?;
        // Pages may share a block, which is read and checked once.
        let around = merged(ranges.iter().map(|range| checksums.around(range)).collect());
        let found = self.whole(self.store.get_ranges(location, &around).await).await?;
        for (around, bytes) in around.iter().zip(&found) {
            self.check(checksums, around, bytes)?;
        }
        let parts = ranges.iter().map(|range| {
            let place = around.partition_point(|around| around.end < range.end);
            let found = around.get(place).zip(found.get(place));
            found.and_then(|(around, bytes)| part(bytes, around, range))
        });
        parts.map(|part| part.ok_or_else(|| self.damaged())).collect()
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

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::super::checksums::{WITNESS, with_checksums};
    use super::*;

    /// So many bytes of pages and of a footer, with checksums.
    fn written(pages: usize, footer: usize) -> Vec<u8> {
        let mut file: Vec<u8> = (0..=250).cycle().take(pages + footer).collect();
        file.truncate(pages + footer.saturating_sub(WITNESS.len()));
        file.extend(WITNESS.as_bytes());
        file.extend(u32::try_from(footer).unwrap().to_le_bytes());
        file.extend(b"PAR1");
        with_checksums(file)
    }

    #[tokio::test]
    async fn a_file_of_another_length_is_damaged() {
        let place = Path::from("file.parquet");
        let store = Arc::new(InMemory::new());
        for content in [&b"short"[..], b"", &[7; 90_000]] {
            store.put(&place, content.to_vec().into()).await.unwrap();
            for range in [0..10, 79_992..80_000] {
                let named = (place.clone(), "file".to_owned(), 80_000);
                let checked = CheckedFile::new(Arc::<InMemory>::clone(&store), named, None);
                let told = checked.get_range(&place, range).await.unwrap_err().to_string();
                assert!(told.contains(NOT_AS_WRITTEN), "{told}");
            }
        }
    }

    /// Whatever is asked of a file first, it is what was written; with a wrong bit in it, an error.
    #[tokio::test]
    async fn every_part_of_a_file_is_read_as_it_was_written() {
        let place = Path::from("file.parquet");
        for (pages, footer) in [(100, 50), (200_000, 300), (200_000, 100_000), (10, 90_000)] {
            let file = written(pages, footer);
            let size = file.len() as u64;
            let ranges = [0..size, size - 8..size, 0..10, size / 2..size, size / 2..size / 2 + 7];
            for range in ranges {
                let store = Arc::new(InMemory::new());
                let of_range = |at: u64| usize::try_from(at).unwrap();
                let bytes = of_range(range.start)..of_range(range.end);
                for wrong in [None, Some(bytes.start), Some(bytes.end - 1)] {
                    let mut content = file.clone();
                    wrong.into_iter().for_each(|at| content[at] ^= 4);
                    store.put(&place, content.into()).await.unwrap();
                    let named = (place.clone(), "file".to_owned(), size);
                    let checked = CheckedFile::new(Arc::<InMemory>::clone(&store), named, None);
                    let alone = checked.get_range(&place, range.clone()).await;
                    let several = checked.get_ranges(&place, &[range.clone(), 0..1]).await;
                    match wrong {
                        None => {
                            assert_eq!(alone.unwrap(), file[bytes.clone()]);
                            assert_eq!(several.unwrap()[0], file[bytes.clone()]);
                            assert!(checked.known().is_some());
                        }
                        Some(at) => {
                            let told = alone.unwrap_err().to_string();
                            assert!(told.contains(NOT_AS_WRITTEN), "{at} of {pages}: {told}");
                            assert!(several.is_err(), "{at} of {pages}");
                        }
                    }
                }
            }
        }
    }

    /// Ranges of any order that share blocks, as pages of one column and the next do.
    #[tokio::test]
    async fn ranges_that_share_blocks_are_read_once_each() {
        let place = Path::from("file.parquet");
        let file = written(200_000, 300);
        let size = file.len() as u64;
        let ranges = [
            70_000..70_001,
            5..10,
            8..30,
            16_383..16_385,
            99_000..199_999,
            0..1,
            100_000..100_010,
            size - 8..size,
            70_000..70_001,
        ];
        let parts = |content: Vec<u8>| {
            let (place, ranges) = (place.clone(), &ranges);
            async move {
                let store = Arc::new(InMemory::new());
                store.put(&place, content.into()).await.unwrap();
                let named = (place.clone(), "file".to_owned(), size);
                let checked = CheckedFile::new(store, named, None);
                checked.get_ranges(&place, ranges).await
            }
        };
        let at = |place: u64| usize::try_from(place).unwrap();
        let found = parts(file.clone()).await.unwrap();
        for (range, found) in ranges.iter().zip(&found) {
            assert_eq!(*found, file[at(range.start)..at(range.end)], "{range:?}");
        }
        for wrong in [0, 29, 16_384, 70_000, 100_005, 199_998] {
            let mut content = file.clone();
            content[wrong] ^= 1;
            let told = parts(content).await.unwrap_err().to_string();
            assert!(told.contains(NOT_AS_WRITTEN), "{wrong}: {told}");
        }
        let merged = merged(vec![9..10, 0..4, 4..6, 1..2, 7..8]);
        assert_eq!(merged, [0..6, 7..8, 9..10]);
    }
}
