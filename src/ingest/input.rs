//! What is read: files, folders, globs, objects of a cloud's store and standard input, opened and
//! decompressed.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::dialect::Dialect;
use super::objects::{self, Object};
use crate::error::{Error, Result};
use crate::lake::cloud::Settings;

/// How the records of an input are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputFormat {
    /// One JSON object per line, or one JSON array of objects.
    Json,
    /// Comma-separated values with a header.
    Csv,
    /// Parquet.
    Parquet,
    /// An Arrow IPC file.
    Arrow,
    /// Lines of a web server's access log.
    AccessLog,
    /// JSON whose events have the shape of this system.
    Payload(Dialect),
}

impl std::str::FromStr for InputFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "json" | "ndjson" | "jsonl" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            "parquet" => Ok(Self::Parquet),
            "arrow" => Ok(Self::Arrow),
            "access-log" => Ok(Self::AccessLog),
            other => other.parse().map(Self::Payload).map_err(|_| {
                Error::invalid(format!("unknown input format `{other}`: {}", formats()))
            }),
        }
    }
}

impl InputFormat {
    /// Whether a file whose name tells `found` may be read as this.
    pub(super) fn may_be(self, found: Self) -> bool {
        found == self || (found == Self::Json && matches!(self, Self::Payload(_)))
    }
}

/// The names of all formats, for messages.
fn formats() -> String {
    let payloads = Dialect::NAMES.map(|(name, _)| name).join(", ");
    format!("json, ndjson, csv, parquet, arrow, access-log, {payloads}")
}

/// A glob matches names as a shell does: `*` ends with its folder, and hidden files are not meant.
pub(super) const GLOB: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// One input, named as it appears in messages.
#[derive(Debug, Clone)]
pub struct Input {
    /// The path or URL, or `-`.
    pub name: String,
    /// Where it is read from.
    pub place: Place,
    /// How it is written.
    pub format: InputFormat,
    /// Whether nobody writes it any more, so that a last line counts though nothing ends it.
    pub whole: bool,
}

/// Where an input is read from.
#[derive(Debug, Clone)]
pub enum Place {
    /// Standard input.
    Standard,
    /// A file of the local disk.
    File(PathBuf),
    /// An object of a cloud's store.
    Object(Object),
}

impl Input {
    /// A file of the local disk.
    pub fn file(name: impl Into<String>, path: impl Into<PathBuf>, format: InputFormat) -> Self {
        Self { name: name.into(), place: Place::File(path.into()), format, whole: false }
    }

    /// What two inputs have in common that are read from one place; names alone may look alike where
    /// they are no UTF-8.
    pub fn identity(&self) -> &Path {
        match &self.place {
            Place::File(path) => path,
            Place::Standard | Place::Object(_) => Path::new(&self.name),
        }
    }

    /// A text that changes when the content does: size and time of the last change, or what the
    /// store of an object gives for it. `None` for what has no such thing.
    pub fn mark(&self) -> Option<String> {
        match &self.place {
            Place::Standard => None,
            Place::Object(object) => Some(object.mark()),
            Place::File(path) => {
                let metadata = path.metadata().ok()?;
                let changed = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
                Some(format!("{} {}", metadata.len(), changed.as_nanos()))
            }
        }
    }

    /// How long ago a file was changed, by the clock of this machine; `None` where that lies ahead
    /// or is not known.
    pub fn age(&self) -> Option<Duration> {
        let Place::File(path) = &self.place else { return None };
        path.metadata().and_then(|metadata| metadata.modified()).ok()?.elapsed().ok()
    }

    /// Whether a file ends as one of its format does. A table of texts that breaks off in the middle
    /// of a number looks whole, so that only the end of its last line tells.
    pub fn is_ended(&self) -> bool {
        let Place::File(path) = &self.place else { return true };
        let last = || {
            let mut file = File::open(path)?;
            let mut first = [0; 4];
            let read = file.read(&mut first)?;
            file.seek(SeekFrom::End(-1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            Ok::<_, std::io::Error>((first[..read].to_vec(), last[0]))
        };
        match (self.format, last()) {
            // What is packed tells by itself where it breaks off, and so do files with footers.
            (_, Ok((first, _))) if is_packed(&first) => true,
            (InputFormat::Parquet | InputFormat::Arrow, _) => true,
            (InputFormat::Csv | InputFormat::AccessLog, Ok((_, last))) => last == b'\n',
            (InputFormat::Json | InputFormat::Payload(_), Ok((_, last))) => {
                matches!(last, b'\n' | b'}' | b']')
            }
            // Empty, or gone again.
            (_, Err(_)) => true,
        }
    }

    /// The input as a file that can be read from any place; an object is fetched first.
    ///
    /// # Errors
    /// Standard input, and what cannot be opened or fetched.
    pub(super) fn to_file(&self) -> Result<File> {
        match &self.place {
            Place::Standard => Err(Error::invalid(
                "standard input cannot be read from its end: give a file".to_owned(),
            )),
            Place::File(path) => File::open(path).map_err(|error| unreadable(&self.name, error)),
            Place::Object(object) => object.fetch(&self.name),
        }
    }
}

/// The inputs that `arguments` stand for: files, folders (their event files, subfolders included),
/// globs, all of these as URLs of a cloud's store, and `-`; each once, those of a folder or glob
/// sorted by path.
///
/// # Errors
/// A path where nothing is, a glob without a match, a file whose format its name does not tell, a
/// store that cannot be read with these `settings`.
pub async fn expand(
    arguments: &[String],
    format: Option<InputFormat>,
    settings: &Settings,
) -> Result<Vec<Input>> {
    let (mut inputs, mut known) = (Vec::new(), HashSet::new());
    for argument in arguments {
        let found = if argument == "-" {
            vec![("-".to_owned(), Place::Standard)]
        } else if argument.starts_with("file://") {
            let url = url::Url::parse(argument).ok();
            let url = url.filter(|url| url.query().is_none() && url.fragment().is_none());
            let path = url.and_then(|url| url.to_file_path().ok());
            let path = path.ok_or_else(|| {
                Error::invalid(format!("{argument}: no URL of a local file or folder"))
            })?;
            let paths = paths_of(&path.display().to_string(), format)?.into_iter();
            paths.map(|path| (path.display().to_string(), Place::File(path))).collect()
        } else if argument.contains("://") {
            objects::of_url(argument, format, settings).await?
        } else {
            let paths = paths_of(argument, format)?.into_iter();
            paths.map(|path| (path.display().to_string(), Place::File(path))).collect()
        };
        for (name, place) in found {
            let by_name = match place {
                Place::Standard => Some(InputFormat::Json),
                Place::File(_) | Place::Object(_) => format_of(Path::new(&name)),
            };
            let Some(format) = format.or(by_name) else {
                return Err(Error::invalid(format!(
                    "{name}: the name tells no format; add --format with one of {}",
                    formats()
                )));
            };
            // An object appears when all of it is there.
            let whole = matches!(place, Place::Object(_));
            let input = Input { name, place, format, whole };
            if known.insert(input.identity().to_path_buf()) {
                inputs.push(input);
            }
        }
    }
    Ok(inputs)
}

fn paths_of(argument: &str, format: Option<InputFormat>) -> Result<Vec<PathBuf>> {
    let path = Path::new(argument);
    if path.is_dir() {
        let mut files = Vec::new();
        walk(path, format, &mut files)?;
        files.sort();
        if files.is_empty() {
            return Err(empty_folder(argument));
        }
        return Ok(files);
    }
    if path.exists() {
        return Ok(vec![path.to_owned()]);
    }
    if !argument.contains(['*', '?', '[']) {
        return Err(Error::not_found(format!("{argument}: no such file or folder")));
    }
    let mut files = globbed(argument)?;
    files.sort();
    if files.is_empty() {
        return Err(Error::not_found(format!("{argument}: the glob matches no file")));
    }
    Ok(files)
}

/// The files that a glob matches, folder by folder; names need not be UTF-8.
fn globbed(pattern: &str) -> Result<Vec<PathBuf>> {
    let root = if pattern.starts_with('/') { "/" } else { "" };
    let mut found = vec![PathBuf::from(root)];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let matcher = glob::Pattern::new(part)
            .map_err(|error| Error::invalid(format!("{pattern}: not a glob: {error}")))?;
        let mut next = Vec::new();
        for folder in found {
            match part {
                "**" => below(&folder, &mut next),
                _ if !part.contains(['*', '?', '[']) => next.push(folder.join(part)),
                _ => next.extend(entries(&folder).into_iter().filter(|path| {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    matcher.matches_with(&name, GLOB)
                })),
            }
        }
        found = next;
    }
    found.retain(|path| path.is_file());
    Ok(found)
}

/// Whether a folder is a table, such as the lake's own, that holds its files for itself.
fn is_table(folder: &Path) -> bool {
    folder.join("_delta_log").is_dir() || folder.ends_with("_delta_log")
}

/// A folder and all that are below it, but those that are hidden and tables.
fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    found.push(folder.to_path_buf());
    let is_folder = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        path.is_dir() && !path.is_symlink() && name.first() != Some(&b'.') && !is_table(path)
    };
    for path in entries(folder).into_iter().filter(is_folder) {
        below(&path, found);
    }
}

/// What is in a folder, as far as it is one.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let here = folder == Path::new("");
    let Ok(entries) = std::fs::read_dir(if here { Path::new(".") } else { folder }) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| folder.join(entry.file_name())).collect()
}

/// That a folder has nothing to be read.
pub(super) fn empty_folder(name: &str) -> Error {
    Error::not_found(format!(
        "{name}: the folder holds no .ndjson, .jsonl, .json, .csv, .parquet or .arrow file"
    ))
}

fn walk(folder: &Path, format: Option<InputFormat>, files: &mut Vec<PathBuf>) -> Result<()> {
    let unreadable = |error| unreadable(&folder.display().to_string(), error);
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        // A link to a folder may lead back up, so links lead to files only.
        let link_to_folder = entry.file_type().map_err(unreadable)?.is_symlink() && path.is_dir();
        if hidden || link_to_folder {
            continue;
        }
        if path.is_dir() {
            if !is_table(&path) {
                walk(&path, format, files)?;
            }
        } else if !path.is_file() {
            // A pipe or a socket would be waited for.
            continue;
        } else if format_of(&path).is_some_and(|found| in_folder(found, format)) {
            files.push(path);
        }
    }
    Ok(())
}

/// Whether a name is one that logs are given when they are rotated: `access.log.1`,
/// `access.log-20261001`, `access_log`, `access_log.2`.
fn is_rotated_log(name: &str) -> bool {
    let base = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let base = if base == name { base } else { base.trim_end_matches(['.', '-']) };
    base.ends_with(".log") || base.ends_with("access_log")
}

/// Whether a file of a folder is meant. Logs of all kinds are called `.log`, so that only whoever
/// asks for access logs means them.
pub(super) fn in_folder(found: InputFormat, wanted: Option<InputFormat>) -> bool {
    match wanted {
        Some(wanted) => wanted.may_be(found),
        None => found != InputFormat::AccessLog,
    }
}

pub(super) fn format_of(path: &Path) -> Option<InputFormat> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    let plain = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    if is_rotated_log(plain) {
        return Some(InputFormat::AccessLog);
    }
    match plain.rsplit_once('.')?.1 {
        "json" | "ndjson" | "jsonl" => Some(InputFormat::Json),
        "csv" => Some(InputFormat::Csv),
        "parquet" => Some(InputFormat::Parquet),
        "arrow" | "feather" | "ipc" => Some(InputFormat::Arrow),
        "log" => Some(InputFormat::AccessLog),
        _ => None,
    }
}

/// Opens an input for reading; gzip and zstd are recognised by their first bytes.
///
/// # Errors
/// A file that cannot be opened or read.
pub fn open(input: &Input) -> Result<Box<dyn Read + Send>> {
    let opened = match &input.place {
        Place::Standard => decompressed(std::io::stdin()),
        Place::File(_) | Place::Object(_) => decompressed(input.to_file()?),
    };
    opened.map_err(|error| read_failed(&input.name, error))
}

fn decompressed(mut source: impl Read + Send + 'static) -> std::io::Result<Box<dyn Read + Send>> {
    let mut magic = [0_u8; 4];
    let mut read = 0;
    while read < magic.len() {
        match source.read(&mut magic[read..])? {
            0 => break,
            more => read += more,
        }
    }
    let whole = std::io::Cursor::new(magic[..read].to_vec()).chain(source);
    Ok(match &magic[..read] {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(whole))),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::new(whole)?),
        _ => Box::new(whole),
    })
}

/// Whether the first bytes of a file are those of a packed one.
fn is_packed(first: &[u8]) -> bool {
    matches!(first, [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd])
}

/// An input that broke off while it was read.
pub fn read_failed(name: &str, error: std::io::Error) -> Error {
    Error::unavailable(format!("{name}: cannot be read: {error}")).with_source(error)
}

fn unreadable(name: &str, error: std::io::Error) -> Error {
    let message = format!("{name}: cannot be read: {error}");
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::not_found(message),
        _ => Error::unavailable(message),
    }
    .with_source(error)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn expand(arguments: &[String], format: Option<InputFormat>) -> Result<Vec<Input>> {
        futures::executor::block_on(super::expand(arguments, format, &[]))
    }

    #[test]
    fn folders_give_their_event_files_in_order_and_formats_come_from_names() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("b")).unwrap();
        for name in ["z.csv", "b/a.ndjson.gz", "a.parquet", ".hidden.json", "readme.md"] {
            File::create(folder.path().join(name)).unwrap();
        }
        let found = expand(&[folder.path().display().to_string()], None).unwrap();
        let names: Vec<(String, InputFormat)> = found
            .iter()
            .map(|i| (i.name.rsplit('/').next().unwrap().to_owned(), i.format))
            .collect();
        assert_eq!(
            names,
            [
                ("a.parquet".to_owned(), InputFormat::Parquet),
                ("a.ndjson.gz".to_owned(), InputFormat::Json),
                ("z.csv".to_owned(), InputFormat::Csv),
            ]
        );
    }

    #[test]
    fn a_folder_gives_neither_logs_nor_the_files_of_a_table() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["lake/default/events/_delta_log", "lake/default/events/event_date=1", "b"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        for name in [
            "lake/default/events/_delta_log/0.json",
            "lake/default/events/event_date=1/a.parquet",
            "b/access.log",
            "b/access.log.2.gz",
            "b/app.log-20261001",
            "b/access_log",
            "b/c.csv",
            "b/notes.1",
        ] {
            File::create(folder.path().join(name)).unwrap();
        }
        let root = [folder.path().display().to_string()];
        let names = |format| -> Vec<String> {
            let found = expand(&root, format).unwrap();
            found.iter().map(|i| i.name.rsplit('/').next().unwrap().to_owned()).collect()
        };
        assert_eq!(names(None), ["c.csv"]);
        assert_eq!(
            names(Some(InputFormat::AccessLog)),
            ["access.log", "access.log.2.gz", "access_log", "app.log-20261001"]
        );
        // One that is named itself is what its name says.
        let one = expand(&[format!("{}/b/access.log.2.gz", root[0])], None).unwrap();
        assert_eq!(one[0].format, InputFormat::AccessLog);
    }

    #[cfg(unix)]
    #[test]
    fn names_need_not_be_utf_8() {
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().unwrap();
        let odd = std::ffi::OsStr::from_bytes(b"n\xff\xfe.ndjson");
        File::create(folder.path().join(odd)).unwrap();
        File::create(folder.path().join("a.ndjson")).unwrap();
        let root = folder.path().display();
        for (argument, want) in
            [(root.to_string(), 2), (format!("{root}/*.ndjson"), 2), (format!("{root}/a*"), 1)]
        {
            assert_eq!(expand(&[argument], None).unwrap().len(), want);
        }
    }

    #[test]
    fn globs_match_as_in_a_shell() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::create_dir_all(root.join("a/.staging")).unwrap();
        for name in ["x.csv", "a/y.csv", "a/b/z.csv", "a/.h.csv", "a/y.txt", "a/.staging/w.csv"] {
            File::create(root.join(name)).unwrap();
        }
        for (glob, want) in [
            ("*.csv", vec!["x.csv"]),
            ("*/*.csv", vec!["a/y.csv"]),
            ("**/*.csv", vec!["a/b/z.csv", "a/y.csv", "x.csv"]),
            ("a/?.c[a-t]v", vec!["a/y.csv"]),
            ("a/**", vec![]),
        ] {
            let found = expand(&[format!("{}/{glob}", root.display())], None);
            let found = found.map(|found| found.into_iter().map(|input| input.name).collect());
            let want: Vec<_> = want.iter().map(|w| root.join(w).display().to_string()).collect();
            assert_eq!(found.unwrap_or_else(|_| Vec::<String>::new()), want, "{glob}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_in_a_folder_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        File::create(folder.path().join("a.csv")).unwrap();
        let pipe = folder.path().join("p.ndjson");
        assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
        assert_eq!(expand(&[folder.path().display().to_string()], None).unwrap().len(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_back_up_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        File::create(folder.path().join("a.csv")).unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).unwrap();
        assert_eq!(expand(&[folder.path().display().to_string()], None).unwrap().len(), 1);
    }

    #[test]
    fn compression_is_told_by_content_not_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(b"hello").unwrap();
        let zst = zstd::encode_all(&b"hello"[..], 1).unwrap();
        for (name, bytes) in [("gz", gz.finish().unwrap()), ("zst", zst), ("x", b"hello".to_vec())]
        {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let input = Input::file(name, path, InputFormat::Json);
            let mut text = String::new();
            open(&input).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello", "{name}");
        }
    }

    #[test]
    fn a_path_where_nothing_is_names_it() {
        let error = expand(&["nowhere.ndjson".to_owned()], None).unwrap_err();
        assert_eq!(error.to_string(), "nowhere.ndjson: no such file or folder");
    }
}
