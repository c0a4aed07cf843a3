//! Rows of a lookup that hold from one instant to another.
//!
//! A key may stand in several rows, as long as no two of them hold at once: what a key means at an
//! instant is one thing. Bounds are dates or instants as in a query, dates in the meter's zone; an
//! empty one is open. The end is exclusive.

use std::collections::BTreeMap;
use std::ops::Range;

use jiff::tz::TimeZone;

use super::lookup::{Table, column};
use crate::document::{Diagnostics, Findings, quote};
use crate::time::{Timestamp, parse_bound};

/// A row of a lookup, without its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Valid {
    /// First instant at which it holds, microseconds UTC; `i64::MIN` for always before.
    pub from: i64,
    /// The instant at which it no longer holds; `i64::MAX` for never.
    pub to: i64,
    /// What the key is mapped to.
    pub value: String,
}

/// The columns of a table that are read.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'c> {
    /// What is mapped.
    pub key: &'c str,
    /// What it is mapped to.
    pub value: &'c str,
    /// From when a row holds, if the table says so.
    pub from: Option<&'c str>,
    /// Until when a row holds, if the table says so.
    pub to: Option<&'c str>,
}

/// The rows of a lookup's table with the times at which they hold, by key and then by time.
///
/// # Errors
/// Every missing column, ragged row, unreadable bound, row that ends before it begins, and every
/// two rows of one key that hold at once, with `file` and line.
pub fn read_history(
    csv: &str,
    file: &str,
    columns: Columns<'_>,
    zone: &TimeZone,
) -> Result<BTreeMap<String, Vec<Valid>>, Diagnostics> {
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
    let mut place = |name: &str| column(&header, name, &mut findings);
    let (key, value) = (place(columns.key), place(columns.value));
    let from = columns.from.map(&mut place);
    let to = columns.to.map(&mut place);
    let (Some(key), Some(value)) = (key, value) else { return findings.finish(None) };
    if matches!(from, Some(None)) || matches!(to, Some(None)) {
        return findings.finish(None);
    }
    let (from, to) = (from.flatten(), to.flatten());
    let mut rows: BTreeMap<String, Vec<(Valid, Range<usize>)>> = BTreeMap::new();
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                table.report(&error, &mut findings);
                continue;
            }
        };
        let span = table.span(record.position());
        let bound = |place: Option<usize>, open: i64| match place.map(|place| record[place].trim())
        {
            None | Some("") => Ok(open),
            Some(text) => parse_bound(text, zone).map(Timestamp::micros),
        };
        match (bound(from, i64::MIN), bound(to, i64::MAX)) {
            (Ok(from), Ok(to)) if from < to => {
                let row = Valid { from, to, value: record[value].to_owned() };
                rows.entry(record[key].to_owned()).or_default().push((row, span));
            }
            (Ok(_), Ok(_)) => {
                let message = format!("key {} holds for no time", quote(&record[key]));
                findings.report_help(&span, message, "its end must come after its beginning");
            }
            (from, to) => {
                for error in [from.err(), to.err()].into_iter().flatten() {
                    findings.report(&span, error.to_string());
                }
            }
        }
    }
    let mut history = BTreeMap::new();
    for (key, mut of_key) in rows {
        of_key.sort_by_key(|(row, span)| (row.from, row.to, span.start));
        report_overlaps(&key, &of_key, &mut findings);
        // The same said twice is said once.
        of_key.dedup_by(|(one, _), (other, _)| one == other);
        history.insert(key, of_key.into_iter().map(|(row, _)| row).collect());
    }
    findings.finish(Some(history))
}

fn report_overlaps(key: &str, rows: &[(Valid, Range<usize>)], findings: &mut Findings<'_>) {
    for pair in rows.windows(2) {
        let ((first, first_span), (second, span)) = (&pair[0], &pair[1]);
        if second.from < first.to && first != second {
            let message = format!(
                "key {} is mapped to {} at a time at which line {} maps it to {}",
                quote(key),
                quote(&second.value),
                findings.line(first_span.start),
                quote(&first.value)
            );
            findings.report_help(span, message, "end the one where the other begins");
        }
    }
}

/// What a key is mapped to at an instant.
pub fn valid_at(rows: &[Valid], instant: i64) -> Option<&str> {
    let after = rows.partition_point(|row| row.from <= instant);
    let row = rows.get(after.checked_sub(1)?)?;
    (instant < row.to).then_some(row.value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(csv: &str) -> Result<BTreeMap<String, Vec<Valid>>, String> {
        let columns = Columns { key: "alias", value: "c", from: Some("from"), to: Some("to") };
        let zone = crate::time::parse_zone("Europe/Berlin").unwrap();
        read_history(csv, "t.csv", columns, &zone).map_err(|found| found.to_string())
    }

    #[test]
    fn a_key_means_one_thing_at_a_time() {
        let history = read(
            "alias,c,from,to\na,new,2026-02-01,\na,old,,2026-02-01\nb,x,,2026-01-01T00:00:00Z\n\
             b,x,,2026-01-01T00:00:00Z\n",
        )
        .unwrap();
        // Midnight in Berlin.
        let change = Timestamp::parse_rfc3339("2026-01-31T23:00:00Z").unwrap().micros();
        assert_eq!(valid_at(&history["a"], change - 1), Some("old"));
        assert_eq!(valid_at(&history["a"], change), Some("new"));
        assert_eq!(history["b"].len(), 1);
        assert_eq!(valid_at(&history["b"], change), None);
        assert_eq!(valid_at(&[], 0), None);
    }

    #[test]
    fn what_contradicts_itself_is_named_with_its_line() {
        let got =
            read("alias,c,from,to\na,x,2026-01-01,2026-03-01\na,y,2026-02-01,\n").unwrap_err();
        let want = "t.csv:3:1: key `a` is mapped to `y` at a time at which line 2 maps it to `x`";
        assert!(got.starts_with(want), "{got}");
        for (csv, want) in [
            ("alias,c,from,to\na,x,2026-01-01,2026-01-01\n", "holds for no time"),
            ("alias,c,from,to\na,x,soon,\n", "unknown time `soon`"),
            ("alias,c,from,to\na,x,2026-02-30,\n", "does not exist"),
            ("alias,c,from\na,x,\n", "no column `to`"),
            ("alias,c,from,to\na,x,\n", "row has 3 fields"),
        ] {
            let got = read(csv).unwrap_err();
            assert!(got.contains(want), "{csv}: {got}");
        }
    }
}
