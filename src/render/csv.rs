//! Answers as CSV: RFC 4180 but for the line feed, a header, then rows.
//!
//! Null is an empty field and an empty text is `""`, so that the two stay apart. A column alone
//! that is null is therefore an empty line.

use arrow::array::Array;
use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;

use super::cell::{Cell, cell, write_text};
use crate::error::Result;

/// Appends the line of column names.
pub(super) fn header(schema: &Schema, out: &mut String) {
    for (place, field) in schema.fields().iter().enumerate() {
        separate(place, out);
        write_field(field.name(), out);
    }
    out.push('\n');
}

/// Appends a line per row of `batch`.
pub(super) fn rows(batch: &RecordBatch, out: &mut String) -> Result<()> {
    for row in 0..batch.num_rows() {
        for (place, column) in batch.columns().iter().enumerate() {
            separate(place, out);
            write_cell(column, row, out)?;
        }
        out.push('\n');
    }
    Ok(())
}

fn write_cell(column: &dyn Array, row: usize, out: &mut String) -> Result<()> {
    match cell(column, row)? {
        Cell::Null => {}
        Cell::Text(value) => write_field(&value, out),
        bare @ (Cell::Boolean(_) | Cell::Integer(_) | Cell::Float(_)) => write_text(&bare, out)?,
        nested @ (Cell::List(_) | Cell::Map(_) | Cell::Struct(..)) => {
            let mut json = String::new();
            write_text(&nested, &mut json)?;
            write_field(&json, out);
        }
    }
    Ok(())
}

fn write_field(value: &str, out: &mut String) {
    if !value.is_empty() && !value.contains(['"', ',', '\n', '\r']) {
        return out.push_str(value);
    }
    out.push('"');
    for (place, part) in value.split('"').enumerate() {
        if place > 0 {
            out.push_str("\"\"");
        }
        out.push_str(part);
    }
    out.push('"');
}

fn separate(place: usize, out: &mut String) {
    if place > 0 {
        out.push(',');
    }
}
