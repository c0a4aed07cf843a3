//! A data file that lies in the store and in no commit yet, and what is known of its columns.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A file ready to be committed.
#[derive(Debug, Clone, PartialEq)]
pub struct StagedFile {
    /// Relative to the table's folder.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// How many rows it has.
    pub rows: u64,
    /// The value of the partition column, in days since 1970.
    pub partition: Option<i32>,
    /// What is known of its columns.
    pub stats: ColumnStatistics,
}

/// Statistics of the columns that a file holds, by column.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ColumnStatistics {
    /// How many rows are null. Every column of the file is here.
    pub null_count: BTreeMap<String, u64>,
    /// Lower bounds, as JSON that a column of its type reads; instants in microseconds.
    pub min: BTreeMap<String, Value>,
    /// Upper bounds, likewise.
    pub max: BTreeMap<String, Value>,
}

impl StagedFile {
    /// The columns the file holds.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.stats.null_count.keys().map(String::as_str)
    }

    /// The statistics as the log's JSON has them.
    pub(super) fn log_statistics(&self) -> Value {
        json!({
            "numRecords": self.rows,
            "nullCount": self.stats.null_count,
            "minValues": self.stats.min,
            "maxValues": self.stats.max,
            "tightBounds": true,
        })
    }
}
