//! Loads one meter file and the lookup tables it names. With `folder`, which loads all files of one, the
//! only part of `meter` that does I/O.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind as IoErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::csv::WriterBuilder;
use jiff::tz::TimeZone;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::ChunkReader;
use serde::{Deserialize, Serialize};

use super::billing::Billing;
use super::billing_rows::read_billing_rows;
use super::definition::{Located, parse_located, too_large};
use super::{FILE_MAX_BYTES, Meter, TablePlace};
use crate::document::{Diagnostics, Source};
use crate::error::{Error, Result};
use crate::time::parse_zone;

/// Largest lookup table, in bytes.
const TABLE_MAX_BYTES: u64 = 64 << 20;

/// The meter of one file, with the rows of its lookups.
///
/// # Errors
/// `Invalid` with every mistake of the file and its tables; `NotFound` or `Unavailable` if the
/// file cannot be read.
pub fn load_file(path: &Path) -> Result<Meter> {
    match load(path) {
        Ok(loaded) => Ok(loaded.located.meter),
        Err(failure) => Err(failure.into()),
    }
}

/// Why a file gave no meter.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was read, and is wrong.
    Wrong(Diagnostics),
    /// It could not be read.
    Unreadable(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Wrong(found) => found.into(),
            Failure::Unreadable(error) => error,
        }
    }
}

/// The texts that define a meter, so that it can be read again without its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Name of the meter's file, for messages.
    pub file: String,
    /// Its text.
    pub text: String,
    /// The text of the table of each lookup, by the lookup's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tables: BTreeMap<String, String>,
}

/// A meter with the text it was read from.
pub(super) struct Loaded {
    pub(super) located: Located,
    file: String,
    text: String,
}

impl Loaded {
    pub(super) fn diagnose_duplicate(&self, first: &Path) -> Diagnostics {
        let name = &self.located.meter.name;
        let message = format!("meter `{name}` is already defined in {}", first.display());
        let source = Source::new(&self.text, &self.file);
        let found = source.diagnostic(&self.located.name_span, message, None);
        Diagnostics { list: vec![found], omitted: 0 }
    }
}

pub(super) fn load(path: &Path) -> Result<Loaded, Failure> {
    load_with(path, &mut |_, _, table| read_table(table))
}

/// Like [`load`], but reads tables with `read`, which is told the lookup, its `file` and where that
/// lies.
fn load_with(path: &Path, read: &mut ReadTable<'_>) -> Result<Loaded, Failure> {
    let file = path.display().to_string();
    let text = definition_text(path)?;
    let mut located = parse_located(&text, &file).map_err(Failure::Wrong)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let wrong = load_tables(folder, &file, &text, &mut located, read);
    if !wrong.list.is_empty() {
        return Err(Failure::Wrong(wrong));
    }
    Ok(Loaded { located, file, text })
}

/// The text of a file that people write.
pub(super) fn definition_text(path: &Path) -> Result<String, Failure> {
    let file = path.display().to_string();
    let opened = File::open(path).map_err(|error| unreadable(path, "meter file", error));
    let opened = opened.map_err(Failure::Unreadable)?;
    match read_text(opened, FILE_MAX_BYTES as u64) {
        Ok(text) => Ok(text),
        Err(Unfit::Io(error)) => Err(Failure::Unreadable(unreadable(path, "meter file", error))),
        Err(Unfit::TooLarge(bytes)) => Err(Failure::Wrong(at_start(&file, too_large(bytes)))),
        Err(Unfit::NotUtf8(message) | Unfit::NotATable(message)) => {
            Err(Failure::Wrong(at_start(&file, message)))
        }
    }
}

/// What the table of billing cycles goes by among those of lookups, none of which has an empty name.
const BILLING_TABLE: &str = "";

/// The text of a table, CSV or Parquet, as CSV.
///
/// # Errors
/// `NotFound` or `Unavailable` if the file cannot be read; `Invalid` if it is too large or no table.
pub fn load_table(path: &Path) -> Result<String> {
    read_table(path).map_err(|unfit| match unfit {
        Unfit::Io(error) => unreadable(path, "table", error),
        unfit @ (Unfit::TooLarge(_) | Unfit::NotUtf8(_) | Unfit::NotATable(_)) => {
            Error::invalid(format!("table {} {}", path.display(), unfit.reason()))
        }
    })
}

/// Gives the text of a lookup's table: the lookup's name, its `file`, and where that lies.
type ReadTable<'r> = dyn FnMut(&str, &str, &Path) -> Result<String, Unfit> + 'r;

fn read_table(path: &Path) -> Result<String, Unfit> {
    File::open(path).map_err(Unfit::Io).and_then(|opened| table_text(opened, path))
}

/// Reads the table of every lookup into the meter; gives what is wrong with them.
fn load_tables(
    folder: &Path,
    file: &str,
    text: &str,
    located: &mut Located,
    read: &mut ReadTable<'_>,
) -> Diagnostics {
    let mut wrong = Diagnostics::default();
    let zone = located.meter.timezone.as_deref().and_then(|zone| parse_zone(zone).ok());
    let zone = zone.unwrap_or(TimeZone::UTC);
    for (name, lookup) in &mut located.meter.lookups {
        let TablePlace::File(named) = &lookup.table else { continue };
        let table_path = folder.join(named);
        let table_file = table_path.display().to_string();
        match read(name, named, &table_path) {
            Ok(table) => {
                if let Err(found) = lookup.read(&table, &table_file, &zone) {
                    wrong.append(found);
                }
            }
            Err(unfit) => {
                let span = located.lookups.file_spans.get(name).cloned().unwrap_or(0..0);
                let message = format!("table {table_file} of lookup `{name}` {}", unfit.reason());
                wrong.list.push(Source::new(text, file).diagnostic(&span, message, None));
            }
        }
    }
    if let Some(Billing::PerCustomer(billing)) = &mut located.meter.billing
        && let TablePlace::File(named) = &billing.table
    {
        let table_path = folder.join(named);
        let table_file = table_path.display().to_string();
        let table = read(BILLING_TABLE, named, &table_path);
        match table.map(|table| read_billing_rows(&table, &table_file, billing)) {
            Ok(Ok(rows)) => billing.rows = Arc::new(rows),
            Ok(Err(found)) => wrong.append(found),
            Err(unfit) => {
                let message = format!("table {table_file} of `billing` {}", unfit.reason());
                let source = Source::new(text, file);
                wrong.list.push(source.diagnostic(&located.billing_file_span, message, None));
            }
        }
    }
    wrong
}

/// The CSV text of a table's file.
fn table_text(file: File, path: &Path) -> Result<String, Unfit> {
    if !path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("parquet")) {
        return read_text(file, TABLE_MAX_BYTES);
    }
    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
    if bytes > TABLE_MAX_BYTES {
        return Err(Unfit::TooLarge(bytes));
    }
    csv_of_parquet(file).map_err(Unfit::NotATable)
}

/// A Parquet file's rows as CSV, in the file's own order.
///
/// # Errors
/// A file that is no Parquet, or has columns that no text can show.
fn csv_of_parquet<R: ChunkReader + 'static>(file: R) -> Result<String, String> {
    let defect = |error: &dyn std::fmt::Display| error.to_string();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|error| defect(&error))?;
    let mut csv = Vec::new();
    let schema = reader.schema();
    let mut writer = WriterBuilder::new().with_header(true).build(&mut csv);
    writer.write(&RecordBatch::new_empty(schema)).map_err(|error| defect(&error))?;
    for batch in reader {
        let batch = batch.map_err(|error| defect(&error))?;
        writer.write(&batch).map_err(|error| defect(&error))?;
    }
    drop(writer);
    String::from_utf8(csv).map_err(|error| defect(&error))
}

/// Why a file has no text for us.
enum Unfit {
    Io(std::io::Error),
    TooLarge(u64),
    NotUtf8(String),
    NotATable(String),
}

impl Unfit {
    fn reason(&self) -> String {
        match self {
            Self::Io(error) if error.kind() == IoErrorKind::NotFound => "does not exist".to_owned(),
            Self::Io(error) => format!("cannot be read: {error}"),
            Self::TooLarge(bytes) => format!("has {bytes} bytes, more than {TABLE_MAX_BYTES}"),
            Self::NotATable(message) | Self::NotUtf8(message) => {
                format!("is not readable: {message}")
            }
        }
    }
}

/// The text of a file of at most `limit` bytes. What its size is said to be is not trusted.
fn read_text(file: File, limit: u64) -> Result<String, Unfit> {
    let said = file.metadata().map_or(0, |metadata| metadata.len());
    if said > limit {
        return Err(Unfit::TooLarge(said));
    }
    let mut bytes = Vec::new();
    let read = file.take(limit + 1).read_to_end(&mut bytes).map_err(Unfit::Io)?;
    if read as u64 > limit {
        return Err(Unfit::TooLarge(read as u64));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
        Unfit::NotUtf8(format!("file is not UTF-8 at byte {valid}, in line {line}"))
    })
}

/// A finding about a file whose text cannot be shown.
fn at_start(file: &str, message: String) -> Diagnostics {
    let found = Source::new("", file).diagnostic(&(0..0), message, None);
    Diagnostics { list: vec![found], omitted: 0 }
}

pub(super) fn unreadable(path: &Path, subject: &str, error: std::io::Error) -> Error {
    let path = path.display();
    if error.kind() == IoErrorKind::NotFound {
        return Error::not_found(format!("{subject} {path} does not exist")).with_source(error);
    }
    Error::unavailable(format!("{subject} {path} cannot be read: {error}")).with_source(error)
}

/// A meter with everything that defines it: the texts of its file and of its tables.
///
/// # Errors
/// As [`load_file`].
pub fn load_bundle(path: &Path) -> Result<(Meter, Bundle)> {
    let mut tables = BTreeMap::new();
    let loaded = load_with(path, &mut |name, _, table| {
        let text = read_table(table)?;
        tables.insert(name.to_owned(), text.clone());
        Ok(text)
    })
    .map_err(Error::from)?;
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into());
    let bundle = Bundle { file: name, text: loaded.text, tables };
    Ok((loaded.located.meter, bundle))
}

impl Bundle {
    /// The meter, from nothing but these texts.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn meter(&self) -> Result<Meter, Diagnostics> {
        let mut located = parse_located(&self.text, &self.file)?;
        let missing = || Unfit::Io(IoErrorKind::NotFound.into());
        let read: &mut ReadTable<'_> =
            &mut |name, _, _| self.tables.get(name).cloned().ok_or_else(missing);
        let wrong = load_tables(Path::new(""), &self.file, &self.text, &mut located, read);
        if wrong.list.is_empty() { Ok(located.meter) } else { Err(wrong) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::BANDWIDTH;
    use super::*;
    use crate::error::ErrorKind;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    /// The message of a failure to load `meters/a.yaml`, the folder's path left out.
    fn failure(folder: &tempfile::TempDir) -> (ErrorKind, String) {
        let error = load_file(&folder.path().join("meters/a.yaml")).unwrap_err();
        let root = format!("{}/", folder.path().display());
        (error.kind(), error.to_string().replace(&root, ""))
    }

    #[test]
    fn a_bundle_is_the_meter_without_its_files() {
        let folder = folder(&[
            ("meters/a.yaml", BANDWIDTH),
            ("lookups/regions.csv", "data_center,region\nfra1,eu\n"),
        ]);
        let (meter, bundle) = load_bundle(&folder.path().join("meters/a.yaml")).unwrap();
        let stored = serde_json::to_string(&bundle).unwrap();
        drop(folder);
        let again: Bundle = serde_json::from_str(&stored).unwrap();
        assert_eq!(again.meter().unwrap(), meter);
        let lost = Bundle { tables: BTreeMap::new(), ..again };
        let wrong = lost.meter().unwrap_err().to_string();
        assert!(wrong.contains("of lookup `region` does not exist"), "{wrong}");
    }

    #[test]
    fn a_wrong_table_is_told_with_its_own_line() {
        let folder = folder(&[
            ("meters/a.yaml", BANDWIDTH),
            ("lookups/regions.csv", "data_center,region\nfra1,eu\nfra1,us\n"),
        ]);
        let want = "\
meters/../lookups/regions.csv:3:1: key `fra1` is mapped to `us`, but to `eu` in line 2
  |
3 | fra1,us
  | ^^^^^^^";
        assert_eq!(failure(&folder), (ErrorKind::Invalid, want.to_owned()));
    }

    #[test]
    fn a_file_that_is_no_text_is_refused() {
        let folder = folder(&[("meters/a.yaml", "meter: m\n")]);
        let path = folder.path().join("meters/a.yaml");
        fs::write(&path, b"meter: m\nname: \xff\n").unwrap();
        let want = "meters/a.yaml:1:1: file is not UTF-8 at byte 15, in line 2";
        assert_eq!(failure(&folder), (ErrorKind::Invalid, want.to_owned()));
        fs::write(&path, vec![b' '; FILE_MAX_BYTES + 1]).unwrap();
        let want = "meters/a.yaml:1:1: file of 1048577 bytes is larger than 1048576";
        assert_eq!(failure(&folder), (ErrorKind::Invalid, want.to_owned()));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = load_file(Path::new("no/such/file.yaml")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
