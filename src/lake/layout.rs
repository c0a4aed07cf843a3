//! How files of events are encoded.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::row::{Row, RowConverter, SortField};

use crate::lake::writer::Layout;
use crate::schema::{IDEMPOTENCY_KEY, INGESTED_AT, ORDINAL, SORT_COLUMNS, TIMESTAMP};

/// How files of events are encoded, by what a sample of their rows looks like.
pub fn layout_for(sample: &RecordBatch) -> Layout {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let mut no_dictionary: Vec<String> = names(&[IDEMPOTENCY_KEY, TIMESTAMP, ORDINAL]);
    for (field, column) in sample.schema().fields().iter().zip(sample.columns()) {
        if hardly_repeats(column) {
            no_dictionary.push(field.name().clone());
        }
    }
    Layout {
        sorted_by: names(&SORT_COLUMNS),
        bloom_filter: Some(IDEMPOTENCY_KEY.to_owned()),
        delta_packed: names(&[TIMESTAMP, INGESTED_AT, ORDINAL]),
        no_dictionary,
        ..Layout::default()
    }
}

/// Whether more than half of the values of a column are distinct.
fn hardly_repeats(column: &ArrayRef) -> bool {
    const SAMPLE_ROWS: usize = 4_096;
    const FEW: usize = 64;
    let sample = column.slice(0, column.len().min(SAMPLE_ROWS));
    let values = sample.len() - sample.null_count();
    if values < FEW || sample.data_type().is_nested() {
        return false;
    }
    let Ok(converter) = RowConverter::new(vec![SortField::new(sample.data_type().clone())]) else {
        return false;
    };
    let Ok(rows) = converter.convert_columns(&[sample]) else { return false };
    let distinct: HashSet<Row<'_>> = rows.iter().collect();
    distinct.len() * 2 > values
}
