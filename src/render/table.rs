//! Answers as a table for people: aligned columns, numbers to the right, a rule under the header.
//!
//! Widths come from the rows that fit the look-ahead; later rows keep them and may stick out, so
//! that an answer of any size needs little memory. Characters that would steer a terminal or turn
//! the direction of writing are shown as escapes: nothing in the data can touch the screen around
//! it. Numbers are written plainly, without separators, for copying.

use std::borrow::Cow;

use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use unicode_width::UnicodeWidthStr;

use super::cell::{Cell, cell, write_text};
use crate::error::Result;

/// Metadata key of a text column that holds exact numbers, with any value: a table aligns it as a
/// column of numbers.
pub const NUMERIC_TEXT: &str = "meterhouse.numeric_text";

/// Rows looked at to find the widths of columns.
const LOOK_AHEAD_ROWS: usize = 10_000;

/// Text held back at most while looking for widths.
const LOOK_AHEAD_BYTES: usize = 16 << 20;

const GAP: &str = " | ";
const RULE_GAP: &str = "-+-";

/// A table being written.
pub(super) struct Table {
    columns: Vec<Column>,
    /// The rows looked at; `None` once the widths are settled.
    waiting: Option<Waiting>,
}

struct Column {
    name: String,
    numeric: bool,
    /// In columns of a terminal.
    width: usize,
}

#[derive(Default)]
struct Waiting {
    rows: Vec<Vec<String>>,
    bytes: usize,
}

impl Table {
    /// A table of the columns of `schema`.
    pub(super) fn new(schema: &Schema) -> Self {
        let columns = schema.fields().iter().map(|field| Column::new(field)).collect();
        Self { columns, waiting: Some(Waiting::default()) }
    }

    /// Takes the rows of `batch` and appends what has settled.
    pub(super) fn rows(&mut self, batch: &RecordBatch, out: &mut String) -> Result<()> {
        for row in 0..batch.num_rows() {
            let cells = batch
                .columns()
                .iter()
                .map(|column| cell(column, row).and_then(|cell| shown(&cell)))
                .collect::<Result<Vec<_>>>()?;
            match &mut self.waiting {
                None => write_line(&self.columns, &cells, out),
                Some(waiting) => {
                    waiting.bytes += cells.iter().map(String::len).sum::<usize>();
                    waiting.rows.push(cells);
                    if waiting.rows.len() >= LOOK_AHEAD_ROWS || waiting.bytes >= LOOK_AHEAD_BYTES {
                        self.settle(out);
                    }
                }
            }
        }
        Ok(())
    }

    /// Appends what was held back.
    pub(super) fn end(&mut self, out: &mut String) {
        self.settle(out);
    }

    /// Fixes the widths by the rows looked at and appends the header and those rows.
    fn settle(&mut self, out: &mut String) {
        let Some(waiting) = self.waiting.take() else { return };
        for row in &waiting.rows {
            for (column, cell) in self.columns.iter_mut().zip(row) {
                column.width = column.width.max(cell.width());
            }
        }
        let names: Vec<_> = self.columns.iter().map(|column| column.name.clone()).collect();
        write_line(&self.columns, &names, out);
        write_rule(&self.columns, out);
        for row in &waiting.rows {
            write_line(&self.columns, row, out);
        }
    }
}

impl Column {
    fn new(field: &Field) -> Self {
        let name = harmless(field.name()).into_owned();
        let width = name.width();
        Self { name, width, numeric: is_numeric(field) }
    }
}

fn is_numeric(field: &Field) -> bool {
    let stored = match field.data_type() {
        DataType::Dictionary(_, values) => values,
        other => other,
    };
    stored.is_numeric() || field.metadata().contains_key(NUMERIC_TEXT)
}

fn shown(cell: &Cell) -> Result<String> {
    let mut text = String::new();
    match cell {
        Cell::Null => text.push_str("NULL"),
        Cell::Text(value) => text.push_str(&harmless(value)),
        Cell::Boolean(_)
        | Cell::Integer(_)
        | Cell::Float(_)
        | Cell::List(_)
        | Cell::Map(_)
        | Cell::Struct(..) => {
            let mut plain = String::new();
            write_text(cell, &mut plain)?;
            text.push_str(&harmless(&plain));
        }
    }
    Ok(text)
}

/// `text` with every character escaped that a terminal would obey instead of show.
pub fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if steers(character) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

/// Control characters (C0, DEL, C1), line and paragraph separators, and marks, overrides and
/// isolates of the bidirectional algorithm (Unicode UAX #9).
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}')
        || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn write_line(columns: &[Column], cells: &[String], out: &mut String) {
    for (place, (column, cell)) in columns.iter().zip(cells).enumerate() {
        if place > 0 {
            out.push_str(GAP);
        }
        let missing = column.width.saturating_sub(cell.width());
        if column.numeric {
            out.extend(std::iter::repeat_n(' ', missing));
        }
        out.push_str(cell);
        // No blanks at the end of a line.
        if !column.numeric && place + 1 < columns.len() {
            out.extend(std::iter::repeat_n(' ', missing));
        }
    }
    out.push('\n');
}

fn write_rule(columns: &[Column], out: &mut String) {
    for (place, column) in columns.iter().enumerate() {
        if place > 0 {
            out.push_str(RULE_GAP);
        }
        out.extend(std::iter::repeat_n('-', column.width));
    }
    out.push('\n');
}
