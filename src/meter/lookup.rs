//! Lookups: tables that map the values of a property or field to other texts.
//!
//! Reads a lookup's place in a meter file, and the rows of its table from CSV text. Rows are data
//! of their own: the definition alone has none.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::history::{Columns, Valid, read_history};
use super::keys::LOOKUP;
use super::{Field, Operand, PROPERTY_PREFIX, resolve_stored};
use crate::document::{
    Diagnostics, Entry, Findings, Keys, filled_text, keys, mapping, nearest, quote, text,
};

/// What a value without a row maps to, unless the lookup says otherwise.
pub const UNMAPPED: &str = "unmapped";

/// A table that maps the values of a property or field to other texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Lookup {
    /// Name of the property or built-in field that is mapped; see [`Lookup::source`].
    pub of: String,
    /// Where the table is.
    pub table: TablePlace,
    /// The file's column that holds what is mapped.
    pub key: String,
    /// The file's column that holds what it is mapped to.
    pub value: String,
    /// The table's column that says from when a row holds, if one does.
    pub from: Option<String>,
    /// The table's column that says until when a row holds, exclusive, if one does.
    pub to: Option<String>,
    /// What a value without a row maps to; see [`Lookup::fallback`].
    pub otherwise: Option<String>,
    /// Which version of a table of the lake was read.
    pub number: Option<i64>,
    /// The table, by key; empty until it is loaded, and where its rows hold for a time only.
    pub rows: Arc<BTreeMap<String, String>>,
    /// The table, by key, where its rows hold for a time only.
    pub history: Arc<BTreeMap<String, Vec<Valid>>>,
}

/// Where the table of a lookup is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TablePlace {
    /// A file, relative to the meter's: CSV, or Parquet by its ending.
    File(String),
    /// A table of this name that the lake keeps, in its versions.
    Lake(String),
}

impl Lookup {
    /// What is mapped: a property or a built-in field, never a lookup.
    pub fn source(&self) -> Operand {
        resolve_stored(&self.of)
    }

    /// Whether its rows hold for a time only.
    pub fn has_history(&self) -> bool {
        self.from.is_some() || self.to.is_some()
    }

    /// Reads the rows of its table, dates being those of `zone`.
    ///
    /// # Errors
    /// Everything that is wrong with the table, with `file` and line.
    pub fn read(&mut self, csv: &str, file: &str, zone: &TimeZone) -> Result<(), Diagnostics> {
        if !self.has_history() {
            self.rows = Arc::new(read_rows(csv, file, &self.key, &self.value)?);
            return Ok(());
        }
        let columns = Columns {
            key: &self.key,
            value: &self.value,
            from: self.from.as_deref(),
            to: self.to.as_deref(),
        };
        self.history = Arc::new(read_history(csv, file, columns, zone)?);
        Ok(())
    }

    /// What a value without a row maps to.
    pub fn fallback(&self) -> &str {
        self.otherwise.as_deref().unwrap_or(UNMAPPED)
    }
}

/// The lookups of a meter file, and the place at which each names its table.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    pub(super) by_name: BTreeMap<String, Lookup>,
    pub(super) file_spans: BTreeMap<String, Range<usize>>,
}

/// The lookups of a `lookups` key. One that is wrong is reported and still known by its name, so
/// that conditions that use it are read as they are meant.
pub(super) fn lookups(entry: &Entry, findings: &mut Findings<'_>) -> Lookups {
    let mut read = Lookups::default();
    let entries = mapping(&entry.value, entry.value_span(), "`lookups`", findings);
    for entry in entries.unwrap_or_default() {
        check_name(entry, findings);
        let place = entry.value_span();
        let Some(keys) = keys(&entry.value, place, "a lookup", &LOOKUP, findings) else {
            continue;
        };
        read.by_name.insert(entry.key.clone(), lookup(&keys, findings));
        if let Some(place) = keys.get("file").or_else(|| keys.get("table")) {
            read.file_spans.insert(entry.key.clone(), place.value_span().clone());
        }
    }
    read
}

fn check_name(entry: &Entry, findings: &mut Findings<'_>) {
    if entry.key.is_empty() {
        findings.report(&entry.key_span, "a lookup has no name");
    } else if Field::from_name(&entry.key).is_some() {
        let message = format!("lookup `{}` has the name of a built-in field", entry.key);
        findings.report_help(&entry.key_span, message, "give it another name");
    } else if entry.key.starts_with(PROPERTY_PREFIX) {
        let message = format!("lookup {} has the name of a property", quote(&entry.key));
        let help = format!("names that start with `{PROPERTY_PREFIX}` are properties");
        findings.report_help(&entry.key_span, message, help);
    }
}

fn lookup(keys: &Keys<'_>, findings: &mut Findings<'_>) -> Lookup {
    let mut required = |key: &str, help: &str| {
        let entry = keys.require(key, help, findings)?;
        filled_text(entry, findings)
    };
    let of = required("of", "the property or field that is mapped");
    let key = required("key", "the column of the file that holds what is mapped");
    let value = required("value", "the column of the file that holds what it is mapped to");
    let table = table_place(keys, findings);
    let mut column = |key: &str| keys.get(key).and_then(|entry| filled_text(entry, findings));
    let (from, to) = (column("from"), column("to"));
    Lookup {
        of: of.unwrap_or_default(),
        table: table.unwrap_or(TablePlace::File(String::new())),
        from,
        to,
        key: key.unwrap_or_default(),
        value: value.unwrap_or_default(),
        otherwise: keys.get("otherwise").and_then(|entry| text(entry, findings)),
        number: None,
        rows: Arc::default(),
        history: Arc::default(),
    }
}

/// Where a table lies: a `file`, or a `table` of the lake.
pub(super) fn table_place(keys: &Keys<'_>, findings: &mut Findings<'_>) -> Option<TablePlace> {
    match (keys.get("file"), keys.get("table")) {
        (Some(_), Some(table)) => {
            let message = "`file` and `table` cannot stand together";
            findings.report_help(&table.key_span, message, "leave one of them out");
            None
        }
        (None, Some(entry)) => {
            let name = filled_text(entry, findings)?;
            if !is_identifier(&name) {
                let message = format!("{} is no name of a table", quote(&name));
                let help = "a lower-case letter, then letters, digits, `_` and `-`, at most 63";
                findings.report_help(entry.value_span(), message, help);
                return None;
            }
            Some(TablePlace::Lake(name))
        }
        (_, None) => {
            let help =
                "a CSV or Parquet file, relative to the meter file, or a `table` of the lake";
            let entry = keys.require("file", help, findings)?;
            let file = filled_text(entry, findings)?;
            check_file(&file, entry, findings);
            Some(TablePlace::File(file))
        }
    }
}

/// Longest identifier, in bytes.
const IDENTIFIER_MAX_BYTES: usize = 63;

/// Whether a text names a meter or a table: a lower-case letter, then up to 62 of `a-z 0-9 _ -`.
pub fn is_identifier(text: &str) -> bool {
    let follows = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    text.len() <= IDENTIFIER_MAX_BYTES
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(follows)
}

/// A definition must mean the same on every machine it is checked out on.
fn check_file(file: &str, entry: &Entry, findings: &mut Findings<'_>) {
    if Path::new(file).is_absolute() || file.starts_with(['/', '\\']) || file.contains("://") {
        let message = format!("`file` needs a relative path, not {}", quote(file));
        findings.report_help(entry.value_span(), message, "it starts at the meter file's folder");
    }
}

/// The rows of a lookup's table: CSV text with a header, of which two columns are read.
///
/// A key may stand twice with the same value, not with different ones.
///
/// # Errors
/// Every missing column, ragged row and contradicting key, with `file` and its line.
pub fn read_rows(
    csv: &str,
    file: &str,
    key: &str,
    value: &str,
) -> Result<BTreeMap<String, String>, Diagnostics> {
    let mut findings = Findings::new(csv, file, "lookup table");
    let body = csv.trim_start_matches('\u{feff}');
    let table = Table { text: csv, offset: csv.len() - body.len() };
    let mut reader = csv::Reader::from_reader(body.as_bytes());
    let header = match reader.headers() {
        Ok(header) => header.clone(),
        Err(error) => {
            findings.report(&(0..0), format!("table is not readable as CSV: {error}"));
            return findings.finish(None);
        }
    };
    let key_column = column(&header, key, &mut findings);
    let value_column = column(&header, value, &mut findings);
    let (Some(key_column), Some(value_column)) = (key_column, value_column) else {
        return findings.finish(None);
    };
    // Each key's value, and where its row starts.
    let mut seen: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for record in reader.records() {
        match record {
            Ok(record) => {
                let (key, value) = (&record[key_column], &record[value_column]);
                table.insert(&mut seen, &record, (key, value), &mut findings);
            }
            Err(error) => table.report(&error, &mut findings),
        }
    }
    findings.finish(Some(seen.into_iter().map(|(key, (value, _))| (key, value)).collect()))
}

/// The place of the only column of this name.
pub(super) fn column(
    header: &csv::StringRecord,
    name: &str,
    findings: &mut Findings<'_>,
) -> Option<usize> {
    let mut places = header.iter().enumerate().filter(|(_, title)| *title == name);
    let place = places.next().map(|(place, _)| place);
    if place.is_none() {
        let titles: Vec<&str> = header.iter().collect();
        let help = nearest(name, &titles).map(|near| format!("did you mean `{near}`?"));
        let header_end = findings.text().find(['\r', '\n']).unwrap_or(findings.text().len());
        let message = format!("table has no column {}", quote(name));
        findings.report_with(&(0..header_end), message, help);
    }
    if places.next().is_some() {
        findings.report(&(0..1), format!("table has two columns {}", quote(name)));
    }
    place
}

/// A CSV text whose records are told apart by their places.
pub(super) struct Table<'t> {
    pub(super) text: &'t str,
    /// Where the reader started.
    pub(super) offset: usize,
}

impl Table<'_> {
    fn insert(
        &self,
        seen: &mut BTreeMap<String, (String, usize)>,
        record: &csv::StringRecord,
        (key, value): (&str, &str),
        findings: &mut Findings<'_>,
    ) {
        let span = self.span(record.position());
        match seen.get(key) {
            Some((first, first_start)) if first != value => {
                let message = format!(
                    "key {} is mapped to {}, but to {} in line {}",
                    quote(key),
                    quote(value),
                    quote(first),
                    findings.line(*first_start)
                );
                findings.report(&span, message);
            }
            Some(_) => {}
            None => {
                seen.insert(key.to_owned(), (value.to_owned(), span.start));
            }
        }
    }

    pub(super) fn report(&self, error: &csv::Error, findings: &mut Findings<'_>) {
        let message = match error.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                format!("row has {len} fields, but the header has {expected_len}")
            }
            _ => format!("row is not readable as CSV: {error}"),
        };
        findings.report(&self.span(error.position()), message);
    }

    /// The place of a record; the reader's may still be at the end of the line before.
    pub(super) fn span(&self, position: Option<&csv::Position>) -> Range<usize> {
        let byte = position.and_then(|position| usize::try_from(position.byte()).ok()).unwrap_or(0);
        let rest = self.text.get(byte + self.offset..).unwrap_or("");
        let start = self.text.len() - rest.trim_start_matches(['\r', '\n']).len();
        start..self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(csv: &str) -> Result<Vec<(String, String)>, String> {
        read_rows(csv, "regions.csv", "dc", "region")
            .map(|rows| rows.into_iter().collect())
            .map_err(|found| found.to_string())
    }

    #[test]
    fn two_columns_are_read_whatever_stands_beside_them() {
        let want = Ok(vec![
            ("".to_owned(), "none".to_owned()),
            ("a,\"b\"".to_owned(), "x\ny".to_owned()),
            ("fra1".to_owned(), "eu".to_owned()),
        ]);
        let table = "region,note,dc\neu,,fra1\n\"x\ny\",1,\"a,\"\"b\"\"\"\nnone,,\neu,again,fra1\n";
        assert_eq!(rows(table), want);
        assert_eq!(rows(&table.replace('\n', "\r\n").replace("x\r\ny", "x\ny")), want);
        assert_eq!(rows(&format!("\u{feff}{table}")), want);
        assert_eq!(rows("dc,region\n"), Ok(Vec::new()));
    }

    #[test]
    fn every_contradiction_is_named_with_its_line() {
        let got =
            rows("dc,region\r\nfra1,eu\r\n\r\nfra1,us\r\nnyc1\r\nfra1,eu\r\nfra1,ap").unwrap_err();
        let want = "\
regions.csv:4:1: key `fra1` is mapped to `us`, but to `eu` in line 2
  |
4 | fra1,us
  | ^^^^^^^

regions.csv:5:1: row has 1 fields, but the header has 2
  |
5 | nyc1
  | ^^^^

regions.csv:7:1: key `fra1` is mapped to `ap`, but to `eu` in line 2
  |
7 | fra1,ap
  | ^^^^^^^";
        assert_eq!(got, want);
    }

    #[test]
    fn a_missing_or_double_column_is_named() {
        let got = rows("dc,regions\nfra1,eu\n").unwrap_err();
        let want = "\
regions.csv:1:1: table has no column `region`
  |
1 | dc,regions
  | ^^^^^^^^^^ did you mean `regions`?";
        assert_eq!(got, want);
        assert!(rows("dc,dc,region\n").unwrap_err().contains("two columns `dc`"));
        assert!(rows("").unwrap_err().contains("no column `dc`"));
    }
}
