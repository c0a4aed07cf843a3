//! A store whose log entries and notes carry a checksum, so that a wrong bit of them is an error.
//!
//! Of an entry of a Delta log it stands in `commitInfo`, which holds whatever a writer likes; of a note of
//! ours it is the first line, so that one that was cut short is found as well. Both are of the text without
//! it. What has none, as another program wrote it, is read as it is.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::checked::not_as_written;
use super::checksums::Damaged;

/// What an entry begins a line with that says how it came about.
const COMMIT_INFO: &[u8] = b"{\"commitInfo\":{";
/// What comes then.
const IN_ENTRY: &[u8] = b"\"meterhouseChecksum\":\"";
const AFTER_DIGITS: &[u8] = b"\",";
/// What the first line of a note begins with.
const IN_NOTE: &[u8] = b"crc32 ";
/// Hexadecimal digits of a checksum.
const DIGITS: usize = 8;

fn digits_of(parts: [&[u8]; 2]) -> String {
    let mut hasher = crc32fast::Hasher::new();
    parts.into_iter().for_each(|part| hasher.update(part));
    format!("{:08x}", hasher.finalize())
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// An entry with its checksum; one that says nothing of how it came about as it is.
fn sealed_entry(text: &[u8]) -> Vec<u8> {
    let Some(place) = find(text, COMMIT_INFO).map(|place| place + COMMIT_INFO.len()) else {
        return text.to_vec();
    };
    let (before, after) = text.split_at(place);
    let digits = digits_of([before, after]);
    [before, IN_ENTRY, digits.as_bytes(), AFTER_DIGITS, after].concat()
}

/// Whether an entry is what was written.
fn check_entry(text: &[u8]) -> Result<(), Damaged> {
    let sealed = [COMMIT_INFO, IN_ENTRY].concat();
    let Some(place) = find(text, &sealed).map(|place| place + COMMIT_INFO.len()) else {
        return Ok(());
    };
    let (before, rest) = text.split_at(place);
    let rest = rest.strip_prefix(IN_ENTRY).ok_or(Damaged)?;
    let (digits, rest) = rest.split_at_checked(DIGITS).ok_or(Damaged)?;
    let after = rest.strip_prefix(AFTER_DIGITS).ok_or(Damaged)?;
    (digits == digits_of([before, after]).as_bytes()).then_some(()).ok_or(Damaged)
}

/// A note with its checksum.
pub(super) fn sealed_note(text: &[u8]) -> Bytes {
    [IN_NOTE, digits_of([text, &[]]).as_bytes(), b"\n", text].concat().into()
}

/// The text of a note.
pub(super) fn opened_note(note: &Bytes) -> Result<Bytes, Damaged> {
    let begin = IN_NOTE.len() + DIGITS + 1;
    let Some((seal, text)) = note.split_at_checked(begin) else {
        // Shorter than any first line: there is no such note of ours.
        return if IN_NOTE.starts_with(note.get(..IN_NOTE.len()).unwrap_or(note)) {
            Err(Damaged)
        } else {
            Ok(note.clone())
        };
    };
    let Some(seal) = seal.strip_prefix(IN_NOTE) else { return Ok(note.clone()) };
    let is_ours = seal == [digits_of([text, &[]]).as_bytes(), b"\n"].concat();
    if is_ours { Ok(note.slice(begin..)) } else { Err(Damaged) }
}

/// A store that puts entries of logs with their checksums, and checks those that it gets.
#[derive(Debug)]
pub(super) struct SealedLog(Arc<dyn ObjectStore>);

impl SealedLog {
    pub(super) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self(store)
    }
}

fn is_entry(place: &Path) -> bool {
    let mut parts = place.parts().rev();
    let name = parts.next();
    let is_numbered = name.as_ref().and_then(|name| name.as_ref().strip_suffix(".json"));
    is_numbered.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        && parts.next().is_some_and(|folder| folder.as_ref() == "_delta_log")
}

impl fmt::Display for SealedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sealed logs of {}", self.0)
    }
}

#[async_trait]
impl ObjectStore for SealedLog {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let payload = match is_entry(location) {
            true => sealed_entry(&Bytes::from(payload)).into(),
            false => payload,
        };
        self.0.put_opts(location, payload, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if !is_entry(location) || options.head {
            return self.0.get_opts(location, options).await;
        }
        let wanted = options.range.clone();
        let found = self.0.get_opts(location, GetOptions { range: None, ..options }).await?;
        let (meta, attributes) = (found.meta.clone(), found.attributes.clone());
        let text = found.bytes().await?;
        check_entry(&text).map_err(|Damaged| not_as_written(location))?;
        let size = text.len() as u64;
        let range = wanted.map(|range| range.as_range(size)).transpose();
        let range = range.map_err(|error| Error::Generic { store: "log", source: error.into() })?;
        let range = range.unwrap_or(0..size);
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(text.len());
        let bytes = text.slice(place(range.start)..place(range.end));
        let payload = futures::stream::once(async move { Ok(bytes) }).boxed();
        Ok(GetResult { payload: GetResultPayload::Stream(payload), meta, range, attributes })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &[u8] =
        b"{\"protocol\":{}}\n{\"commitInfo\":{\"timestamp\":1}}\n{\"add\":{\"path\":\"a\"}}\n";

    #[test]
    fn a_wrong_bit_of_an_entry_is_found_or_in_its_seal_alone() {
        let sealed = sealed_entry(ENTRY);
        assert_eq!(check_entry(&sealed), Ok(()));
        let parsed: Vec<serde_json::Value> = std::str::from_utf8(&sealed)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(parsed.len(), 3);
        let seal = find(&sealed, COMMIT_INFO).unwrap();
        let seal = seal..seal + COMMIT_INFO.len() + IN_ENTRY.len();
        for at in 0..sealed.len() {
            let mut wrong = sealed.clone();
            wrong[at] ^= 1 << (at % 7);
            // An entry whose seal is not found passes for one without.
            let want = if seal.contains(&at) { Ok(()) } else { Err(Damaged) };
            assert_eq!(check_entry(&wrong), want, "{at}");
        }
        for plain in [ENTRY, b"{\"add\":{}}\n", b""] {
            assert_eq!(check_entry(plain), Ok(()));
        }
        assert_eq!(sealed_entry(b"{\"add\":{}}\n"), b"{\"add\":{}}\n");
    }

    #[test]
    fn a_wrong_bit_of_a_note_is_found_or_in_its_seal_alone() {
        for text in [&b"{\"a\":1}"[..], b"", b"two\nlines\n"] {
            let sealed = sealed_note(text);
            assert_eq!(opened_note(&sealed).unwrap(), text);
            for at in 0..sealed.len() {
                let mut wrong = sealed.to_vec();
                wrong[at] ^= 1 << (at % 7);
                let in_mark = at < IN_NOTE.len();
                match opened_note(&wrong.clone().into()) {
                    Err(Damaged) => assert!(!in_mark, "{at}"),
                    // It is no note's text with a line too much, which no reader of notes takes.
                    Ok(opened) => assert!(in_mark && opened == wrong, "{at}"),
                }
            }
            // However much of its end is missing.
            for length in 0..sealed.len() {
                assert_eq!(opened_note(&sealed.slice(..length)), Err(Damaged), "{length}");
            }
            assert_eq!(opened_note(&Bytes::from_static(b"{\"a\":1}")).unwrap(), &b"{\"a\":1}"[..]);
        }
    }

    #[test]
    fn entries_are_told_from_all_else_of_a_log() {
        for (place, want) in [
            ("a/events/_delta_log/00000000000000000001.json", true),
            ("_delta_log/00000000000000000001.json", true),
            ("a/_delta_log/00000000000000000001.checkpoint.parquet", false),
            ("a/_delta_log/_last_checkpoint", false),
            ("a/_delta_log/1.2.json", false),
            ("a/00000000000000000001.json", false),
        ] {
            assert_eq!(is_entry(&Path::from(place)), want, "{place}");
        }
    }
}
