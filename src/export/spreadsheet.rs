//! What a spreadsheet does to values that it reads, and CSV that keeps it from doing it.
//!
//! A text that begins with `=`, `+`, `-` or `@`, or has that behind a `;` where lists are separated so, is
//! run as a formula, which may read other cells and call elsewhere; a number keeps 15 digits; a text that begins with a digit or a month is taken for another
//! number, a date, a time or a share. All of these get an apostrophe before them, which makes them texts.
//! Instants in RFC 3339 stay what they are.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use unicode_width::UnicodeWidthChar;

use super::spool_failed;
use crate::error::Result;
use crate::render::{Cell, cell, write_text};
use crate::usage::columns;

/// Significant digits that a spreadsheet keeps of a number.
const DIGITS: usize = 15;

/// The columns of answers that are numbers written as texts.
const NUMBERS: [&str; 3] = [columns::VALUE, columns::CONVERTED, columns::BILLABLE];

/// Which columns hold numbers as texts.
pub(super) fn number_columns(schema: &SchemaRef) -> Vec<bool> {
    schema.fields().iter().map(|field| NUMBERS.contains(&field.name().as_str())).collect()
}

/// Whether a spreadsheet shows all digits of a number.
pub(super) fn keeps(number: &str) -> bool {
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    let digits = digits.trim_start_matches('0');
    // Zeros behind the point are not written, those before it are.
    digits.trim_end_matches('0').len() <= DIGITS
}

/// CSV for spreadsheets: UTF-8 with a mark, lines that end in CR LF.
pub(super) struct SpreadsheetCsv {
    out: csv::Writer<BufWriter<File>>,
    numbers: Vec<bool>,
}

impl SpreadsheetCsv {
    /// A file with the names of the columns.
    ///
    /// # Errors
    /// A disk that is full.
    pub(super) fn new(schema: &SchemaRef, out: File) -> Result<Self> {
        let mut out = BufWriter::new(out);
        out.write_all("\u{feff}".as_bytes()).map_err(spool_failed)?;
        let mut out = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(out);
        let names = schema.fields().iter().map(|field| harmless(field.name()).into_owned());
        out.write_record(names).map_err(failed)?;
        Ok(Self { out, numbers: number_columns(schema) })
    }

    /// Writes rows.
    ///
    /// # Errors
    /// A disk that is full.
    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        for row in 0..rows.num_rows() {
            for (column, is_number) in rows.columns().iter().zip(&self.numbers) {
                let value = cell(column, row)?;
                let mut text = String::new();
                write_text(&value, &mut text)?;
                let is_number = *is_number || matches!(value, Cell::Integer(_) | Cell::Float(_));
                let shown = match is_number && keeps(&text) {
                    true => Cow::Borrowed(text.as_str()),
                    false if is_number => Cow::Owned(format!("'{text}")),
                    false => harmless(&text),
                };
                self.out.write_field(shown.as_bytes()).map_err(failed)?;
            }
            self.out.write_record(None::<&[u8]>).map_err(failed)?;
        }
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// A disk that is full.
    pub(super) fn finish(mut self) -> Result<()> {
        self.out.flush().map_err(spool_failed)
    }
}

/// What a formula begins with, in letters of any width; or a negative number, or the name of an error.
const FORMULAS: [char; 11] = ['=', '+', '-', '@', '\'', '＝', '＋', '－', '＠', '(', '#'];

/// What some spreadsheets take for the end of a cell.
const SEPARATORS: [char; 4] = [';', '\t', '\r', '\n'];

/// A text that a spreadsheet takes for what it is.
fn harmless(text: &str) -> Cow<'_, str> {
    let text = without_formulas_within(text);
    let is_formula = text.trim_start_matches(is_unseen).starts_with(FORMULAS);
    let is_formula = is_formula || text.starts_with(['\t', '\r', '\n']);
    match is_formula || becomes_something_else(&text) {
        true => Cow::Owned(format!("'{text}")),
        false => text,
    }
}

/// Whether a character takes no room that is seen: a space, a control, a mark of the byte order or of direction.
fn is_unseen(character: char) -> bool {
    character.is_whitespace()
        || character.width().unwrap_or(0) == 0
        // As wide as another letter and without a stroke: a filler, a pattern without dots, marks of annotations.
        || matches!(character, '\u{115f}' | '\u{2800}' | '\u{fff9}'..='\u{fffb}')
}

/// A text in which no formula begins where a spreadsheet may take a new cell to begin.
fn without_formulas_within(text: &str) -> Cow<'_, str> {
    if !text.contains(SEPARATORS) {
        return Cow::Borrowed(text);
    }
    let mut harmless = String::with_capacity(text.len());
    for (place, part) in text.split_inclusive(SEPARATORS).enumerate() {
        let begins = part.trim_start_matches(|c| c == '"' || is_unseen(c)).starts_with(FORMULAS);
        harmless.push_str(if place > 0 && begins { "'" } else { "" });
        harmless.push_str(part);
    }
    Cow::Owned(harmless)
}

/// Months, by which a date may begin, in full or by three letters.
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// Whether a text is a number that is written otherwise (`007`, `1e5`, 20 digits), or may be a date, a time
/// or a share: `1-2`, `MAR1`, `5%`, `1,000`.
fn becomes_something_else(text: &str) -> bool {
    let lower = text.to_lowercase();
    if lower.starts_with(|c: char| c.is_ascii_digit() || c == '.' || c == '$') {
        let is_instant = text.len() >= "2026-10-01T00:00:00Z".len() && text.contains('T');
        return !is_instant && !is_plain_number(text);
    }
    let begins_with_month = MONTHS.iter().any(|month| {
        let short = month.get(..3).unwrap_or(month);
        let rest = lower.strip_prefix(month).or_else(|| lower.strip_prefix(short));
        rest.is_some_and(|rest| {
            rest.trim_start_matches([' ', '-', '.', '/', ','])
                .starts_with(|c: char| c.is_ascii_digit())
        })
    });
    begins_with_month || matches!(lower.as_str(), "true" | "false")
}

/// Whether a text is a whole number that a spreadsheet writes as it is.
fn is_plain_number(text: &str) -> bool {
    let is_whole = text.bytes().all(|byte| byte.is_ascii_digit());
    is_whole && keeps(text) && text.len() <= DIGITS && (text.len() == 1 || !text.starts_with('0'))
}

fn failed(error: csv::Error) -> crate::error::Error {
    spool_failed(std::io::Error::from(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spreadsheet_keeps_fifteen_digits_wherever_the_point_is() {
        for kept in [
            "0",
            "-1",
            "123456789012345",
            "0.000000123456789012345",
            "-12345678.9012345",
            "123456789012345000000",
        ] {
            assert!(keeps(kept), "{kept}");
        }
        for lost in ["1234567890123456", "0.1234567890123456", "1000000000000000.1"] {
            assert!(!keeps(lost), "{lost}");
        }
    }

    #[test]
    fn what_would_be_run_or_written_otherwise_is_a_text() {
        for (text, want) in [
            ("=HYPERLINK(\"http://x\")", "'=HYPERLINK(\"http://x\")"),
            ("+1", "'+1"),
            ("-cmd", "'-cmd"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\tx", "'\tx"),
            (" =1", "' =1"),
            ("\u{feff}=1", "'\u{feff}=1"),
            ("\u{202e}\u{200b}@x", "'\u{202e}\u{200b}@x"),
            ("\u{0}\u{ad}=1", "'\u{0}\u{ad}=1"),
            ("\u{115f}=1", "'\u{115f}=1"),
            ("\u{2800}+1", "'\u{2800}+1"),
            ("x;\u{2066}=1", "x;'\u{2066}=1"),
            ("\u{feff}acme", "\u{feff}acme"),
            ("＝1", "'＝1"),
            ("＠x", "'＠x"),
            ("x;=cmd|'/C calc'!A0", "x;'=cmd|'/C calc'!A0"),
            ("x;\"=1", "x;'\"=1"),
            ("a\n -1", "a\n' -1"),
            ("a; b", "a; b"),
            ("'quoted", "''quoted"),
            ("007", "'007"),
            ("1e5", "'1e5"),
            ("2.50", "'2.50"),
            ("12345678901234567890", "'12345678901234567890"),
            ("10001", "10001"),
            ("0", "0"),
            ("0.5", "'0.5"),
            ("2026-05", "'2026-05"),
            ("1-2", "'1-2"),
            ("3/4", "'3/4"),
            ("5%", "'5%"),
            ("1,000", "'1,000"),
            ("MAR1", "'MAR1"),
            ("March 5", "'March 5"),
            ("market", "market"),
            ("marketing-2", "marketing-2"),
            ("TRUE", "'TRUE"),
            ("2026-05-01T00:00:00Z", "2026-05-01T00:00:00Z"),
            ("acme", "acme"),
            ("e5", "e5"),
            ("(5)", "'(5)"),
            ("#N/A", "'#N/A"),
            ("", ""),
        ] {
            assert_eq!(harmless(text), want);
        }
    }
}
