//! Answers as JSON: an object per row, in one array or one per line.
//!
//! Keys stand in the order of the columns and nulls are written. Integers are numbers with all of
//! their digits; decimals are strings, so that no reader rounds them.

use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;

use super::cell::{cell, write_json, write_json_string};
use crate::error::Result;

/// Rows on their way to being objects.
pub(super) struct Objects {
    /// What stands before each value: `{` or `,`, the quoted name and a colon.
    keys: Vec<String>,
    /// Whether one array encloses all objects.
    array: bool,
    /// Whether an object was written.
    started: bool,
}

impl Objects {
    /// Objects in one array.
    pub(super) fn array(schema: &Schema) -> Self {
        Self { keys: keys(schema), array: true, started: false }
    }

    /// An object per line.
    pub(super) fn lines(schema: &Schema) -> Self {
        Self { keys: keys(schema), array: false, started: false }
    }

    /// Appends the rows of `batch`.
    pub(super) fn rows(&mut self, batch: &RecordBatch, out: &mut String) -> Result<()> {
        for row in 0..batch.num_rows() {
            if self.array {
                out.push_str(if self.started { ",\n" } else { "[\n" });
            }
            self.started = true;
            if self.keys.is_empty() {
                out.push('{');
            }
            for (key, column) in self.keys.iter().zip(batch.columns()) {
                out.push_str(key);
                write_json(&cell(column, row)?, out)?;
            }
            out.push_str(if self.array { "}" } else { "}\n" });
        }
        Ok(())
    }

    /// Appends what closes the output.
    pub(super) fn end(&self, out: &mut String) {
        if self.array {
            out.push_str(if self.started { "\n]\n" } else { "[]\n" });
        }
    }
}

fn keys(schema: &Schema) -> Vec<String> {
    let names = schema.fields().iter().map(|field| field.name()).enumerate();
    names
        .map(|(place, name)| {
            let mut key = String::from(if place == 0 { "{" } else { "," });
            write_json_string(name, &mut key);
            key.push(':');
            key
        })
        .collect()
}
