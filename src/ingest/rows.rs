//! Rows of Arrow batches (Parquet files) as records.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryViewArray, BooleanArray, Decimal256Array,
    FixedSizeBinaryArray, Float16Array, Float32Array, Float64Array, Int64Array, RecordBatch,
    StringViewArray, make_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{
    DECIMAL256_MAX_PRECISION, DataType, Decimal256Type, Field, FieldRef, Float16Type, Float32Type,
    Float64Type, Int64Type, TimeUnit,
};
use arrow::error::ArrowError;
use arrow::json::writer::{EncoderOptions, make_encoder};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::record::Record;
use crate::decimal::{parse_number, text_of_scaled};
use crate::event::{EVENT_MAX_BYTES, Rejection, Value, shortened};
use crate::time::{Timestamp, TimestampError};

/// The leaves of a batch's columns, nested structs as dotted names.
pub(super) struct Rows {
    columns: Vec<(String, Column)>,
}

enum Column {
    Integer(Int64Array),
    /// With the scale, which is negative for multiples of powers of ten.
    Decimal(Decimal256Array, i8),
    Half(Float16Array),
    Single(Float32Array),
    Double(Float64Array),
    Text(StringViewArray),
    Boolean(BooleanArray),
    /// Text where a value is UTF-8, whatever its neighbours are; else as [`hex`].
    Bytes(BinaryViewArray),
    /// Never text: most such columns hold random bytes.
    FixedBytes(FixedSizeBinaryArray),
    /// With the unit, and whether the type has a zone; without one it is a local time.
    Instant(Int64Array, TimeUnit, bool),
    /// Places among values, which are not repeated per row: a long one may stand for many rows.
    Dictionary(Int64Array, Box<Column>),
    /// Dates, times of day and durations, as their usual text.
    Printed(ArrayRef),
    /// Lists and maps, as JSON.
    Nested(FieldRef, ArrayRef),
    /// Nothing but nulls.
    Absent,
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
    /// A float that is no number, a number that is not kept exactly, an instant outside the years
    /// 0001 to 9999, or more text than an event may have.
    pub(super) fn record(&self, row: usize) -> Result<Record<'_>, Rejection> {
        let mut record = Vec::with_capacity(self.columns.len());
        let mut bytes = 0_usize;
        for (name, column) in &self.columns {
            let Some(value) = column.value(name, row)? else { continue };
            bytes += match &value {
                Value::Text(text) | Value::Json(text) => text.len(),
                Value::Number(_) | Value::Boolean(_) => 0,
            };
            record.push((Cow::Borrowed(name.as_str()), value));
        }
        if bytes > EVENT_MAX_BYTES {
            let field = "event".to_owned();
            return Err(Rejection::TooLong { field, bytes, max: EVENT_MAX_BYTES });
        }
        Ok(record)
    }

    /// The names of the columns, nested ones dotted.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(name, _)| name.as_str())
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
            DataType::Null => Self::Absent,
            DataType::Dictionary(..) => {
                let dictionary = array.as_any_dictionary();
                let places = integers(&make_array(dictionary.keys().to_data()))?;
                Self::Dictionary(places, Box::new(Self::of(dictionary.values())?))
            }
            DataType::Boolean => Self::Boolean(array.as_boolean().clone()),
            DataType::UInt64 => Self::of(&cast(array, &DataType::Decimal128(20, 0))?)?,
            integer if integer.is_integer() => Self::Integer(integers(array)?),
            DataType::Float16 => Self::Half(array.as_primitive::<Float16Type>().clone()),
            DataType::Float32 => Self::Single(array.as_primitive::<Float32Type>().clone()),
            DataType::Float64 => Self::Double(array.as_primitive::<Float64Type>().clone()),
            DataType::Decimal32(_, scale)
            | DataType::Decimal64(_, scale)
            | DataType::Decimal128(_, scale)
            | DataType::Decimal256(_, scale) => {
                let wide = DataType::Decimal256(DECIMAL256_MAX_PRECISION, *scale);
                Self::Decimal(cast(array, &wide)?.as_primitive::<Decimal256Type>().clone(), *scale)
            }
            DataType::Timestamp(unit, zone) => {
                Self::Instant(integers(array)?, *unit, zone.is_some())
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Self::Text(cast(array, &DataType::Utf8View)?.as_string_view().clone())
            }
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
                Self::Bytes(cast(array, &DataType::BinaryView)?.as_binary_view().clone())
            }
            DataType::FixedSizeBinary(_) => Self::FixedBytes(array.as_fixed_size_binary().clone()),
            nested if nested.is_nested() => {
                let field = Field::new("value", nested.clone(), true);
                Self::Nested(Arc::new(field), Arc::clone(array))
            }
            _ => Self::Printed(Arc::clone(array)),
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Integer(array) | Self::Instant(array, ..) => array.is_null(row),
            Self::Decimal(array, _) => array.is_null(row),
            Self::Half(array) => array.is_null(row),
            Self::Single(array) => array.is_null(row),
            Self::Double(array) => array.is_null(row),
            Self::Text(array) => array.is_null(row),
            Self::Boolean(array) => array.is_null(row),
            Self::Bytes(array) => array.is_null(row),
            Self::FixedBytes(array) => array.is_null(row),
            Self::Dictionary(places, _) => places.is_null(row),
            Self::Printed(array) | Self::Nested(_, array) => array.is_null(row),
            Self::Absent => true,
        }
    }

    fn value(&self, name: &str, row: usize) -> Result<Option<Value<'_>>, Rejection> {
        if self.is_null(row) {
            return Ok(None);
        }
        Ok(Some(match self {
            Self::Integer(array) => {
                Value::Number(crate::decimal::Number::Integer(array.value(row)))
            }
            Self::Decimal(array, scale) => match u8::try_from(*scale) {
                Ok(scale) => number(name, &text_of_scaled(array.value(row), scale))?,
                Err(_) => number(
                    name,
                    &format!("{}e{}", text_of_scaled(array.value(row), 0), scale.unsigned_abs()),
                )?,
            },
            // The shortest text that reads back as this float is the number that was meant.
            Self::Half(array) => float(name, array.value(row).is_finite(), &half_text(array, row))?,
            Self::Single(array) => {
                let single = array.value(row);
                float(name, single.is_finite(), &format!("{single:?}"))?
            }
            Self::Double(array) => {
                let double = array.value(row);
                float(name, double.is_finite(), &format!("{double:?}"))?
            }
            Self::Text(array) => Value::Text(Cow::Borrowed(array.value(row))),
            Self::Boolean(array) => Value::Boolean(array.value(row)),
            Self::Bytes(array) => Value::Text(match std::str::from_utf8(array.value(row)) {
                Ok(text) => Cow::Borrowed(text),
                Err(_) => Cow::Owned(hex(array.value(row))),
            }),
            Self::FixedBytes(array) => Value::Text(Cow::Owned(hex(array.value(row)))),
            Self::Instant(array, unit, zoned) => instant(name, array.value(row), *unit, *zoned)?,
            Self::Dictionary(places, values) => {
                let place = usize::try_from(places.value(row)).map_err(|error| {
                    Rejection::Unreadable { detail: format!("`{}`: {error}", shortened(name)) }
                })?;
                return values.value(name, place);
            }
            Self::Printed(array) => Value::Text(Cow::Owned(printed(name, array, row)?)),
            Self::Nested(field, array) => Value::Json(Cow::Owned(json(name, field, array, row)?)),
            Self::Absent => return Ok(None),
        }))
    }
}

fn integers(array: &ArrayRef) -> Result<Int64Array, ArrowError> {
    Ok(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

fn number(name: &str, text: &str) -> Result<Value<'static>, Rejection> {
    parse_number(text)
        .map(Value::Number)
        .map_err(|_| Rejection::NumberTooLarge { field: shortened(name), number: shortened(text) })
}

fn float(name: &str, finite: bool, text: &str) -> Result<Value<'static>, Rejection> {
    if !finite {
        let detail = format!("`{}` is {text}", shortened(name));
        return Err(Rejection::Unreadable { detail });
    }
    number(name, text)
}

/// The fewest digits that read back as the same half-precision float: five always do.
fn half_text(array: &Float16Array, row: usize) -> String {
    type Half = <Float16Type as ArrowPrimitiveType>::Native;
    let half = array.value(row);
    let texts = (0..5).map(|digits| format!("{:.digits$e}", half.to_f32()));
    let same = |text: &String| {
        text.parse().is_ok_and(|single| Half::from_f32(single).to_bits() == half.to_bits())
    };
    texts.into_iter().find(same).unwrap_or_else(|| half.to_f32().to_string())
}

/// An instant as RFC 3339; nanoseconds are rounded towards the past, as those of numbers are.
fn instant(
    name: &str,
    units: i64,
    unit: TimeUnit,
    zoned: bool,
) -> Result<Value<'static>, Rejection> {
    let (micros, word) = match unit {
        TimeUnit::Second => (units.checked_mul(1_000_000), "s"),
        TimeUnit::Millisecond => (units.checked_mul(1_000), "ms"),
        TimeUnit::Microsecond => (Some(units), "us"),
        TimeUnit::Nanosecond => (Some(units.div_euclid(1_000)), "ns"),
    };
    let range = Timestamp::MIN..=Timestamp::MAX;
    let instant = micros.map(Timestamp::from_micros).filter(|instant| range.contains(instant));
    let instant = instant.ok_or_else(|| Rejection::TimestampUnreadable {
        text: format!("{units} {word} in column {}", shortened(name)),
        reason: TimestampError::OutOfRange.to_string(),
    })?;
    let text = instant.to_string();
    let local = text.trim_end_matches('Z');
    Ok(Value::Text(Cow::Owned(if zoned { text } else { local.to_owned() })))
}

/// Bytes as hexadecimal digits behind `0x`, which no number begins with.
fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    std::iter::once("0x".to_owned()).chain(digits).collect()
}

fn printed(name: &str, array: &ArrayRef, row: usize) -> Result<String, Rejection> {
    // A date that is stored in milliseconds is a date like any other.
    let options = FormatOptions::default().with_datetime_format(Some("%Y-%m-%d"));
    ArrayFormatter::try_new(array.as_ref(), &options)
        .and_then(|formatter| formatter.value(row).try_to_string())
        .map_err(|error| unreadable(name, &error))
}

fn json(name: &str, field: &FieldRef, array: &ArrayRef, row: usize) -> Result<String, Rejection> {
    let options = EncoderOptions::default();
    let mut bytes = Vec::new();
    make_encoder(field, array.as_ref(), &options)
        .map_err(|error| unreadable(name, &error))?
        .encode(row, &mut bytes);
    String::from_utf8(bytes).map_err(|error| unreadable(name, &error))
}

fn unreadable(name: &str, error: &dyn std::fmt::Display) -> Rejection {
    Rejection::Unreadable { detail: format!("`{}`: {error}", shortened(name)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        BinaryArray, Date32Array, Date64Array, Decimal128Array, DictionaryArray, ListArray,
        StringArray, TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
    };

    fn value(array: ArrayRef) -> Result<String, &'static str> {
        let batch = RecordBatch::try_from_iter([("a", array)]).unwrap();
        let rows = Rows::new(&batch).unwrap();
        let record = rows.record(0).map_err(|rejection| rejection.code())?;
        Ok(match &record[0].1 {
            Value::Text(text) => format!("text {text}"),
            Value::Json(text) => format!("json {text}"),
            Value::Number(number) => format!("number {number}"),
            Value::Boolean(boolean) => format!("boolean {boolean}"),
        })
    }

    #[test]
    fn columns_keep_their_values_or_refuse_the_row() {
        type Half = <Float16Type as ArrowPrimitiveType>::Native;
        let list: ArrayRef =
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1), None])]));
        let strings = StringArray::from_iter_values(["\"x\""]);
        let texts =
            cast(&(Arc::new(strings) as ArrayRef), &DataType::new_list(DataType::Utf8, true))
                .unwrap();
        let zoned = TimestampNanosecondArray::from(vec![-1]).with_timezone("UTC");
        let wide = Decimal128Array::from(vec![12]).with_precision_and_scale(38, -2).unwrap();
        let dictionary: DictionaryArray<arrow::datatypes::Int32Type> =
            ["long"].into_iter().collect();
        let bytes = |values: Vec<&[u8]>| Arc::new(BinaryArray::from(values)) as ArrayRef;
        let fixed = FixedSizeBinaryArray::try_from_iter([b"1e"].into_iter()).unwrap();
        for (name, array, want) in [
            // A value's text never depends on its neighbours.
            ("bytes that are text", bytes(vec![b"k1", b"\xff"]), Ok("text k1")),
            ("bytes that are none", bytes(vec![b"\x80", b"k1"]), Ok("text 0x80")),
            ("bytes of one length", Arc::new(fixed), Ok("text 0x3165")),
            ("empty text", Arc::new(StringArray::from(vec![""])) as ArrayRef, Ok("text ")),
            ("half", Arc::new(Float16Array::from(vec![Half::from_f32(0.1)])), Ok("number 0.1")),
            ("single", Arc::new(Float32Array::from(vec![0.1])), Ok("number 0.1")),
            ("no number", Arc::new(Float32Array::from(vec![f32::NAN])), Err("unreadable")),
            (
                "large",
                Arc::new(UInt64Array::from(vec![u64::MAX])),
                Ok("number 18446744073709551615"),
            ),
            ("hundreds", Arc::new(wide), Ok("number 1200")),
            (
                "far instant",
                Arc::new(TimestampSecondArray::from(vec![i64::MAX])),
                Err("timestamp_unreadable"),
            ),
            ("before 1970", Arc::new(zoned), Ok("text 1969-12-31T23:59:59.999999Z")),
            ("date", Arc::new(Date32Array::from(vec![1])), Ok("text 1970-01-02")),
            (
                "date in milliseconds",
                Arc::new(Date64Array::from(vec![86_400_000])),
                Ok("text 1970-01-02"),
            ),
            ("list", list, Ok("json [1,null]")),
            ("list of texts", texts, Ok(r#"json ["\"x\""]"#)),
            ("dictionary", Arc::new(dictionary), Ok("text long")),
            (
                "more text than an event has",
                Arc::new(StringArray::from(vec!["x".repeat(EVENT_MAX_BYTES + 1)])),
                Err("too_long"),
            ),
        ] {
            assert_eq!(value(array), want.map(ToOwned::to_owned), "{name}");
        }
    }
}
