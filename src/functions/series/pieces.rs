//! The values of windows as one list, which a plan takes apart again.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal256Array, Int64Array, ListArray, StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DECIMAL256_MAX_PRECISION, DataType, Field, Fields, i256};
use datafusion::common::{Result, ScalarValue};

use crate::schema::timestamp_type;

/// Start of the window, before the range cuts it.
pub const WINDOW: &str = "window";
/// Its value: decimal(76) of the scale of the aggregate.
pub const VALUE: &str = "value";
/// Events that made the value.
pub const EVENTS: &str = "events";
/// Events that matched, skipped ones included.
pub const MATCHED: &str = "matched";

/// What is known of one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) window: i64,
    pub(super) value: Option<i256>,
    pub(super) events: i64,
    pub(super) matched: i64,
}

fn fields(scale: i8) -> Fields {
    Fields::from(vec![
        Field::new(WINDOW, timestamp_type(), false),
        Field::new(VALUE, DataType::Decimal256(DECIMAL256_MAX_PRECISION, scale), true),
        Field::new(EVENTS, DataType::Int64, false),
        Field::new(MATCHED, DataType::Int64, false),
    ])
}

/// The type of a list of pieces whose values have `scale` fractional digits.
pub(super) fn list_type(scale: i8) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Struct(fields(scale)), true)))
}

/// The lists, one for each row.
pub(super) fn lists(rows: &[Vec<Piece>], scale: i8) -> Result<ListArray> {
    let all = || rows.iter().flatten();
    let windows: TimestampMicrosecondArray = all().map(|piece| Some(piece.window)).collect();
    let values: Decimal256Array = all().map(|piece| piece.value).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(windows.with_data_type(timestamp_type())),
        Arc::new(values.with_precision_and_scale(DECIMAL256_MAX_PRECISION, scale)?),
        Arc::new(all().map(|piece| Some(piece.events)).collect::<Int64Array>()),
        Arc::new(all().map(|piece| Some(piece.matched)).collect::<Int64Array>()),
    ];
    let items = StructArray::try_new(fields(scale), columns, None)?;
    let field = Arc::new(Field::new_list_field(DataType::Struct(fields(scale)), true));
    let offsets = OffsetBuffer::from_lengths(rows.iter().map(Vec::len));
    Ok(ListArray::try_new(field, offsets, Arc::new(items), None)?)
}

/// One list as a value.
pub(super) fn list(pieces: Vec<Piece>, scale: i8) -> Result<ScalarValue> {
    Ok(ScalarValue::List(Arc::new(lists(&[pieces], scale)?)))
}
