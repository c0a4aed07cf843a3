//! States of aggregates over time as columns of lists.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::utils::format_state_name;

/// A column of lists.
pub(super) fn list_field(name: &str, item: DataType) -> Field {
    Field::new_list(name, Field::new_list_field(item, true), true)
}

/// The fields of a state, named as those of the aggregate's column.
pub(super) fn named_state(aggregate: &str, fields: &Fields) -> Vec<FieldRef> {
    let named = |field: &FieldRef| {
        let name = format_state_name(aggregate, field.name());
        Arc::new(field.as_ref().clone().with_name(name))
    };
    fields.iter().map(named).collect()
}

/// A column as the one list of a state.
pub(super) fn one_list(column: ArrayRef) -> Result<ScalarValue> {
    let field = Arc::new(Field::new_list_field(column.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths([column.len()]);
    Ok(ScalarValue::List(Arc::new(ListArray::try_new(field, offsets, column, None)?)))
}

/// A column of lists of integers, one for each of `rows`.
pub(super) fn list_column<R>(rows: impl Iterator<Item = R> + Clone) -> Result<ArrayRef>
where
    R: ExactSizeIterator<Item = i64>,
{
    let offsets = OffsetBuffer::from_lengths(rows.clone().map(|row| row.len()));
    let items: Int64Array = rows.flatten().map(Some).collect();
    let field = Arc::new(Field::new_list_field(DataType::Int64, true));
    Ok(Arc::new(ListArray::try_new(field, offsets, Arc::new(items), None)?))
}

/// The lists of a state in one row of its columns; `None` where there is no state.
pub(super) fn lists_at(columns: &[ArrayRef], row: usize) -> Option<Vec<ArrayRef>> {
    let lists = columns.iter().map(|column| column.as_list::<i32>());
    lists.map(|list| list.is_valid(row).then(|| list.value(row))).collect()
}

/// A state as one value.
pub(super) fn one_state(fields: Fields, state: &[ScalarValue]) -> Result<ScalarValue> {
    let columns = state.iter().map(ScalarValue::to_array).collect::<Result<Vec<_>>>()?;
    Ok(ScalarValue::Struct(Arc::new(StructArray::try_new(fields, columns, None)?)))
}
