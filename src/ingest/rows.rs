//! Rows of Arrow batches (Parquet files) as records.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal256Array, Float64Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray, make_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{
    DECIMAL256_MAX_PRECISION, DataType, Decimal256Type, Float64Type, Int64Type, TimeUnit,
    TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::record::Record;
use crate::decimal::{parse_number, text_of_scaled};
use crate::event::{Rejection, Value, shortened};
use crate::time::Timestamp;

/// The leaves of a batch's columns, nested structs as dotted names.
pub(super) struct Rows {
    columns: Vec<(String, Column)>,
}

enum Column {
    Integer(Int64Array),
    Decimal(Decimal256Array, u8),
    Float(Float64Array),
    Text(StringArray),
    Boolean(BooleanArray),
    /// With whether the type has a zone; without one it is a local time.
    Instant(TimestampMicrosecondArray, bool),
    Other(ArrayRef),
}

impl Rows {
    /// Prepares the columns of `batch`.
    ///
    /// # Errors
    /// A column that cannot be read as its type says.
    pub(super) fn new(batch: &RecordBatch) -> Result<Self, ArrowError> {
        let mut columns = Vec::new();
        for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
            leaves(field.name(), array, &mut columns)?;
        }
        Ok(Self { columns })
    }

    /// The names and values of one row; nulls are left out.
    ///
    /// # Errors
    /// A float that is no number, or a number that is not kept exactly.
    pub(super) fn record(&self, row: usize) -> Result<Record<'_>, Rejection> {
        let mut record = Vec::with_capacity(self.columns.len());
        for (name, column) in &self.columns {
            if let Some(value) = column.value(name, row)? {
                record.push((Cow::Borrowed(name.as_str()), value));
            }
        }
        Ok(record)
    }
}

fn leaves(
    name: &str,
    array: &ArrayRef,
    columns: &mut Vec<(String, Column)>,
) -> Result<(), ArrowError> {
    if let DataType::Struct(fields) = array.data_type() {
        let members = array.as_struct();
        for (field, member) in fields.iter().zip(members.columns()) {
            // A member of a null struct is null, whatever the member's own column says.
            let nulls = NullBuffer::union(members.nulls(), member.logical_nulls().as_ref());
            let data = member.to_data().into_builder().nulls(nulls).build()?;
            leaves(&format!("{name}.{}", field.name()), &make_array(data), columns)?;
        }
        return Ok(());
    }
    columns.push((name.to_owned(), Column::of(array)?));
    Ok(())
}

impl Column {
    fn of(array: &ArrayRef) -> Result<Self, ArrowError> {
        Ok(match array.data_type() {
            DataType::Dictionary(_, values) => Self::of(&cast(array, values)?)?,
            DataType::Boolean => Self::Boolean(array.as_boolean().clone()),
            DataType::UInt64 => Self::of(&cast(array, &DataType::Decimal128(20, 0))?)?,
            integer if integer.is_integer() => {
                Self::Integer(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
            }
            float if float.is_floating() => {
                let wide = cast(array, &DataType::Float64)?;
                Self::Float(wide.as_primitive::<Float64Type>().clone())
            }
            DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => {
                let scale = u8::try_from(*scale).map_err(|_| {
                    ArrowError::NotYetImplemented(format!("decimals of scale {scale}"))
                })?;
                let wide = DataType::Decimal256(DECIMAL256_MAX_PRECISION, scale.cast_signed());
                Self::Decimal(cast(array, &wide)?.as_primitive::<Decimal256Type>().clone(), scale)
            }
            DataType::Timestamp(_, zone) => {
                let micros = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
                let micros = cast(array, &micros)?;
                let micros = micros.as_primitive::<TimestampMicrosecondType>().clone();
                Self::Instant(micros, zone.is_some())
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Self::Text(cast(array, &DataType::Utf8)?.as_string().clone())
            }
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
                match cast(array, &DataType::Utf8) {
                    Ok(text) if text.null_count() == array.null_count() => {
                        Self::Text(text.as_string().clone())
                    }
                    _ => Self::Other(Arc::clone(array)),
                }
            }
            _ => Self::Other(Arc::clone(array)),
        })
    }

    fn value(&self, name: &str, row: usize) -> Result<Option<Value<'_>>, Rejection> {
        let unreadable = |detail: String| Rejection::Unreadable { detail };
        let number = |text: String| match parse_number(&text) {
            Ok(number) => Ok(Value::Number(number)),
            Err(_) => {
                Err(Rejection::NumberTooLarge { field: shortened(name), number: shortened(&text) })
            }
        };
        Ok(match self {
            Self::Integer(array) if array.is_valid(row) => {
                Some(Value::Number(crate::decimal::Number::Integer(array.value(row))))
            }
            Self::Decimal(array, scale) if array.is_valid(row) => {
                Some(number(text_of_scaled(array.value(row), *scale))?)
            }
            Self::Float(array) if array.is_valid(row) => {
                let float = array.value(row);
                if !float.is_finite() {
                    return Err(unreadable(format!("`{}` is {float}", shortened(name))));
                }
                // The shortest text that reads back as this float is the number that was meant.
                Some(number(format!("{float:?}"))?)
            }
            Self::Text(array) if array.is_valid(row) => {
                Some(Value::Text(Cow::Borrowed(array.value(row)))).filter(|v| *v != empty())
            }
            Self::Boolean(array) if array.is_valid(row) => Some(Value::Boolean(array.value(row))),
            Self::Instant(array, zoned) if array.is_valid(row) => {
                let instant = Timestamp::from_micros(array.value(row)).to_string();
                let text = match zoned {
                    true => instant,
                    false => instant.trim_end_matches('Z').to_owned(),
                };
                Some(Value::Text(Cow::Owned(text)))
            }
            Self::Other(array) if array.is_valid(row) => {
                let options = FormatOptions::default();
                let text = ArrayFormatter::try_new(array.as_ref(), &options)
                    .and_then(|formatter| formatter.value(row).try_to_string())
                    .map_err(|error| unreadable(format!("`{}`: {error}", shortened(name))))?;
                Some(Value::Json(Cow::Owned(text)))
            }
            _ => None,
        })
    }
}

fn empty() -> Value<'static> {
    Value::Text(Cow::Borrowed(""))
}
