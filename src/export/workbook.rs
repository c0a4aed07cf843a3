//! A workbook: typed cells, as many sheets as the rows need, and one that says how it was computed.
//!
//! Rows go to the disk as they come. The file is the same for the same rows: it has no time in it.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use rust_xlsxwriter::{DocProperties, ExcelDateTime, Format, Worksheet, XlsxError};

use super::format::Shape;
use super::spool_failed;
use super::spreadsheet::{keeps, number_columns};
use crate::caught::caught;
use crate::error::{Error, Result};
use crate::render::{Cell, cell, write_text};
use crate::usage::columns;

/// Rows of a sheet below its header.
const SHEET_ROWS: u32 = 1_048_575;

/// Columns with instants, which may be days.
const INSTANTS: [&str; 4] =
    [columns::WINDOW_START, columns::WINDOW_END, "period_start", "period_end"];

/// A workbook that is being written.
pub(super) struct Workbook {
    book: rust_xlsxwriter::Workbook,
    out: File,
    title: &'static str,
    columns: Vec<Column>,
    sheet_rows: u32,
    /// The sheet that rows go to, and how many it has below its header.
    open: Option<(usize, u32)>,
    sheets: usize,
    header: Format,
    day: Format,
}

struct Column {
    name: String,
    is_number: bool,
    is_day: bool,
}

impl Workbook {
    /// A workbook whose sheets are called after `title`.
    ///
    /// # Errors
    /// A disk that is full.
    pub(super) fn new(
        title: &'static str,
        schema: &SchemaRef,
        shape: Shape,
        (out, folder): (File, Option<&Path>),
    ) -> Result<Self> {
        let mut book = rust_xlsxwriter::Workbook::new();
        if let Some(folder) = folder {
            // Rows wait there until the end, and take as much room as the file.
            book.set_tempdir(folder).map_err(|error| failed(&error))?;
        }
        let made = ExcelDateTime::from_ymd(1980, 1, 1).map_err(|error| failed(&error))?;
        book.set_properties(&DocProperties::new().set_creation_datetime(&made));
        let named = schema.fields().iter().zip(number_columns(schema));
        let columns = named
            .map(|(field, is_number)| Column {
                name: field.name().clone(),
                is_number,
                is_day: shape.days && INSTANTS.contains(&field.name().as_str()),
            })
            .collect();
        let (header, day) = (Format::new().set_bold(), Format::new().set_num_format("yyyy-mm-dd"));
        let (open, sheets) = (None, 0);
        let mut made =
            Self { book, out, title, columns, sheet_rows: SHEET_ROWS, open, sheets, header, day };
        made.next_sheet()?;
        Ok(made)
    }

    fn next_sheet(&mut self) -> Result<usize> {
        self.sheets += 1;
        let name = match self.sheets {
            1 => self.title.to_owned(),
            later => format!("{} {later}", self.title),
        };
        let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
        begin(&mut self.book, &name, &names, &self.header).map_err(|error| failed(&error))?;
        self.open = Some((self.sheets - 1, 0));
        Ok(self.sheets - 1)
    }

    /// Writes rows, on a new sheet where one is full.
    ///
    /// # Errors
    /// A text that is longer than a cell holds; a disk that is full.
    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        caught(|| self.write_rows(rows)).unwrap_or_else(|| Err(given_up()))
    }

    fn write_rows(&mut self, rows: &RecordBatch) -> Result<()> {
        for row in 0..rows.num_rows() {
            let (sheet, written) = match self.open {
                Some((sheet, written)) if written < self.sheet_rows => (sheet, written),
                _ => (self.next_sheet()?, 0),
            };
            let worksheet =
                self.book.worksheet_from_index(sheet).map_err(|error| failed(&error))?;
            for (place, (array, column)) in (0_u16..).zip(rows.columns().iter().zip(&self.columns))
            {
                let value = cell(array, row)?;
                let at = (written + 1, place);
                write_cell(worksheet, at, &value, column, &self.day)?;
            }
            self.open = Some((sheet, written + 1));
        }
        Ok(())
    }

    /// Ends the workbook with a sheet that says how it was computed.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(super) fn finish(self, how: &[(String, String)]) -> Result<()> {
        caught(|| self.save(how)).unwrap_or_else(|| Err(given_up()))
    }

    fn save(mut self, how: &[(String, String)]) -> Result<()> {
        let note = (
            "numbers".to_owned(),
            "those of more than 15 digits are texts, as a spreadsheet would round them".to_owned(),
        );
        begin(&mut self.book, "how computed", &["what", "value"], &self.header)
            .and_then(|sheet| {
                for (row, (name, value)) in (1..).zip(how.iter().chain([&note])) {
                    sheet.write_string(row, 0, name)?.write_string(row, 1, value)?;
                }
                Ok(())
            })
            .map_err(|error| failed(&error))?;
        let mut out = BufWriter::new(self.out);
        self.book.save_to_writer(&mut out).map_err(|error| failed(&error))?;
        std::io::Write::flush(&mut out).map_err(spool_failed)
    }
}

/// A new sheet with a header that stays in sight.
fn begin<'b>(
    book: &'b mut rust_xlsxwriter::Workbook,
    name: &str,
    columns: &[&str],
    header: &Format,
) -> Result<&'b mut Worksheet, XlsxError> {
    let sheet = book.add_worksheet_with_constant_memory()?;
    sheet.set_name(name)?.set_freeze_panes(1, 0)?;
    for (place, name) in (0_u16..).zip(columns) {
        sheet.set_column_width(place, WIDTH)?.write_string_with_format(0, place, *name, header)?;
    }
    Ok(sheet)
}

/// Width of a column, in characters.
const WIDTH: u8 = 24;

fn write_cell(
    sheet: &mut Worksheet,
    (row, place): (u32, u16),
    value: &Cell<'_>,
    column: &Column,
    day: &Format,
) -> Result<()> {
    let written = match value {
        Cell::Null => return Ok(()),
        Cell::Boolean(value) => sheet.write_boolean(row, place, *value).map(drop),
        Cell::Text(text) if column.is_number => write_number(sheet, (row, place), text),
        Cell::Text(text) if column.is_day => match day_of(text) {
            Some(date) => sheet.write_datetime_with_format(row, place, date, day).map(drop),
            None => sheet.write_string(row, place, text.as_ref()).map(drop),
        },
        Cell::Integer(value) => write_number(sheet, (row, place), &value.to_string()),
        Cell::Float(text) => write_number(sheet, (row, place), text),
        Cell::Text(text) => sheet.write_string(row, place, text.as_ref()).map(drop),
        nested => {
            let mut text = String::new();
            write_text(nested, &mut text)?;
            sheet.write_string(row, place, text).map(drop)
        }
    };
    written.map_err(|error| match error {
        XlsxError::MaxStringLengthExceeded => Error::invalid(format!(
            "a text in column `{}` is longer than the 32,767 characters of a cell: export it as csv or \
             parquet",
            column.name
        )),
        other => failed(&other),
    })
}

/// Writes a number whose digits a spreadsheet keeps as one, any other as its text.
///
/// A cell is a binary float by the format. One of at most 15 digits comes back from it as it was: its
/// shortest text is written.
fn write_number(
    sheet: &mut Worksheet,
    (row, place): (u32, u16),
    text: &str,
) -> Result<(), XlsxError> {
    match text.parse::<f64>() {
        Ok(number) if keeps(text) && number.is_finite() => {
            sheet.write_number(row, place, number).map(drop)
        }
        _ => sheet.write_string(row, place, text).map(drop),
    }
}

/// The date of the instant with which a day begins.
fn day_of(text: &str) -> Option<ExcelDateTime> {
    let (date, time) = text.split_once('T')?;
    let begins = time.starts_with("00:00:00") && !time.starts_with("00:00:00.");
    begins.then(|| ExcelDateTime::parse_from_str(date).ok()).flatten()
}

fn failed(error: &XlsxError) -> Error {
    Error::unavailable(format!("cannot write the workbook: {error}"))
}

/// The library gives up where a file that it waits with cannot be written.
fn given_up() -> Error {
    Error::unavailable("cannot write the workbook: the disk is full, or failed")
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray};

    use super::*;

    #[test]
    fn rows_go_on_on_a_new_sheet_where_one_is_full() {
        let values: ArrayRef = Arc::new(StringArray::from(vec!["1", "2", "3", "4", "5"]));
        let rows = RecordBatch::try_from_iter([("value", values)]).unwrap();
        let out = tempfile::tempfile().unwrap();
        let shape = Shape::default();
        let mut book =
            Workbook::new("usage", &rows.schema(), shape, (out.try_clone().unwrap(), None))
                .unwrap();
        book.sheet_rows = 2;
        book.write(&rows).unwrap();
        book.finish(&[]).unwrap();
        let mut archive = zip::ZipArchive::new(out).unwrap();
        let mut part = |name: &str| {
            let mut text = String::new();
            archive.by_name(name).unwrap().read_to_string(&mut text).unwrap();
            text
        };
        for (sheet, cells) in [(1, "12"), (2, "34"), (3, "5")] {
            let sheet = part(&format!("xl/worksheets/sheet{sheet}.xml"));
            let found: String = sheet
                .split("<v>")
                .skip(1)
                .map(|rest| rest.split('<').next().unwrap_or_default())
                .collect();
            assert_eq!(found, cells, "{sheet}");
            assert!(sheet.contains("<t>value</t>"), "{sheet}");
        }
        let names = part("xl/workbook.xml");
        for name in ["usage", "usage 2", "usage 3", "how computed"] {
            assert!(names.contains(&format!("name=\"{name}\"")), "{names}");
        }
    }
}
