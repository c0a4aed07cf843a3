//! What a spreadsheet does to values that it reads, and CSV that keeps it from doing it.
//!
//! A text that begins with `=`, `+`, `-` or `@` is run as a formula, which may read other cells and call
//! elsewhere; a number keeps 15 digits; a text of digits with a zero before them or with an exponent is
//! taken for another number. All of these get an apostrophe before them, which makes them texts.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

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

/// A text that a spreadsheet takes for what it is.
fn harmless(text: &str) -> Cow<'_, str> {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '\'']);
    match is_formula || becomes_another_number(text) {
        true => Cow::Owned(format!("'{text}")),
        false => Cow::Borrowed(text),
    }
}

/// Whether a text is a number that a spreadsheet would write otherwise: `007`, `1e5`, 20 digits.
fn becomes_another_number(text: &str) -> bool {
    let begins = text.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let is_number = begins && text.parse::<f64>().is_ok();
    let has_zeros_before = text.len() > 1 && text.starts_with('0') && !text.starts_with("0.");
    let has_zeros_behind = text.contains('.') && text.ends_with(['0', '.']);
    let written_otherwise = has_zeros_before || has_zeros_behind || text.contains(['e', 'E']);
    is_number && (written_otherwise || text.starts_with('.') || !keeps(text))
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
            ("'quoted", "''quoted"),
            ("007", "'007"),
            ("1e5", "'1e5"),
            ("2.50", "'2.50"),
            ("12345678901234567890", "'12345678901234567890"),
            ("10001", "10001"),
            ("0", "0"),
            ("0.5", "0.5"),
            ("acme", "acme"),
            ("e5", "e5"),
            ("", ""),
        ] {
            assert_eq!(harmless(text), want);
        }
    }
}
