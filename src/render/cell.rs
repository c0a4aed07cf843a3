//! One value of an Arrow array, by the way it is written rather than the way it is stored.
//!
//! Values are exact: an integer has all of its digits, a decimal its shortest exact text, a float
//! the shortest text that reads back as the same float. Timestamps are RFC 3339, with `Z` for UTC
//! and else the zone's offset; those stored without a zone have none. Bytes are hexadecimal.

use std::borrow::Cow;
use std::fmt::{self, Write};

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, StructArray};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use jiff::Timestamp;
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::TimeZone;

use crate::error::{Error, Result};

/// A value ready to be written.
pub enum Cell<'a> {
    /// Nothing.
    Null,
    /// True or false.
    Boolean(bool),
    /// An integer, of any width.
    Integer(i128),
    /// A finite float.
    Float(String),
    /// What JSON quotes: texts, and numbers or times that JSON has no exact form for.
    Text(Cow<'a, str>),
    /// The values.
    List(ArrayRef),
    /// The entries: keys, then values.
    Map(StructArray),
    /// One row of its columns.
    Struct(&'a StructArray, usize),
}

/// The value of `array` at `row`.
pub fn cell(array: &dyn Array, row: usize) -> Result<Cell<'_>> {
    if array.is_null(row) {
        return Ok(Cell::Null);
    }
    Ok(match array.data_type() {
        DataType::Null => Cell::Null,
        DataType::Boolean => Cell::Boolean(array.as_boolean().value(row)),
        DataType::Int8 => integer::<Int8Type>(array, row),
        DataType::Int16 => integer::<Int16Type>(array, row),
        DataType::Int32 => integer::<Int32Type>(array, row),
        DataType::Int64 => integer::<Int64Type>(array, row),
        DataType::UInt8 => integer::<UInt8Type>(array, row),
        DataType::UInt16 => integer::<UInt16Type>(array, row),
        DataType::UInt32 => integer::<UInt32Type>(array, row),
        DataType::UInt64 => integer::<UInt64Type>(array, row),
        DataType::Float16 => {
            let value = f32::from(array.as_primitive::<Float16Type>().value(row));
            float(value.into(), &value)
        }
        DataType::Float32 => {
            let value = array.as_primitive::<Float32Type>().value(row);
            float(value.into(), &value)
        }
        DataType::Float64 => {
            let value = array.as_primitive::<Float64Type>().value(row);
            float(value, &value)
        }
        DataType::Decimal32(_, scale) => decimal::<Decimal32Type>(array, row, *scale),
        DataType::Decimal64(_, scale) => decimal::<Decimal64Type>(array, row, *scale),
        DataType::Decimal128(_, scale) => decimal::<Decimal128Type>(array, row, *scale),
        DataType::Decimal256(_, scale) => decimal::<Decimal256Type>(array, row, *scale),
        DataType::Date32 => {
            let day = i64::from(array.as_primitive::<Date32Type>().value(row));
            date(day * 86_400, array.data_type())?
        }
        DataType::Date64 => {
            let milliseconds = array.as_primitive::<Date64Type>().value(row);
            date(milliseconds.div_euclid(1_000), array.data_type())?
        }
        DataType::Timestamp(unit, zone) => {
            text(written_time(instant(array, row, *unit)?, zone.as_deref())?)
        }
        DataType::Utf8 => Cell::Text(array.as_string::<i32>().value(row).into()),
        DataType::LargeUtf8 => Cell::Text(array.as_string::<i64>().value(row).into()),
        DataType::Utf8View => Cell::Text(array.as_string_view().value(row).into()),
        DataType::Binary => text(hexadecimal(array.as_binary::<i32>().value(row))),
        DataType::LargeBinary => text(hexadecimal(array.as_binary::<i64>().value(row))),
        DataType::BinaryView => text(hexadecimal(array.as_binary_view().value(row))),
        DataType::FixedSizeBinary(_) => text(hexadecimal(array.as_fixed_size_binary().value(row))),
        _ => nested(array, row)?,
    })
}

fn nested(array: &dyn Array, row: usize) -> Result<Cell<'_>> {
    Ok(match array.data_type() {
        DataType::List(_) => Cell::List(array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => Cell::List(array.as_list::<i64>().value(row)),
        DataType::ListView(_) => Cell::List(array.as_list_view::<i32>().value(row)),
        DataType::LargeListView(_) => Cell::List(array.as_list_view::<i64>().value(row)),
        DataType::FixedSizeList(..) => Cell::List(array.as_fixed_size_list().value(row)),
        DataType::Map(..) => Cell::Map(array.as_map().value(row)),
        DataType::Struct(_) => Cell::Struct(array.as_struct(), row),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            match cell(dictionary.keys(), row)? {
                Cell::Integer(key) => cell(dictionary.values(), index(key)?)?,
                _ => Cell::Null,
            }
        }
        // Times of day, durations and the like, for which Arrow's own text is ISO 8601.
        _ => {
            let options = FormatOptions::new().with_display_error(false);
            let shown = ArrayFormatter::try_new(array, &options)
                .and_then(|formatter| formatter.value(row).try_to_string());
            text(
                shown.map_err(|error| {
                    no_text(&format_args!("row {row}"), array.data_type(), &error)
                })?,
            )
        }
    })
}

/// Appends `cell` as plain text: nothing for null, JSON for lists, maps and structs.
pub fn write_text(cell: &Cell, out: &mut String) -> Result<()> {
    match cell {
        Cell::Null => Ok(()),
        Cell::Text(value) => {
            out.push_str(value);
            Ok(())
        }
        Cell::Boolean(_)
        | Cell::Integer(_)
        | Cell::Float(_)
        | Cell::List(_)
        | Cell::Map(_)
        | Cell::Struct(..) => write_json(cell, out),
    }
}

/// Appends `cell` as JSON: integers and finite floats as numbers, `null` for null.
pub(super) fn write_json(value: &Cell, out: &mut String) -> Result<()> {
    match value {
        Cell::Null => out.push_str("null"),
        Cell::Boolean(value) => out.push_str(if *value { "true" } else { "false" }),
        Cell::Integer(value) => push(out, format_args!("{value}")),
        Cell::Float(value) => out.push_str(value),
        Cell::Text(value) => write_json_string(value, out),
        Cell::List(values) => {
            out.push('[');
            for row in 0..values.len() {
                separate(out, row);
                write_json(&cell(values, row)?, out)?;
            }
            out.push(']');
        }
        Cell::Map(entries) => {
            out.push('{');
            for row in 0..entries.len() {
                separate(out, row);
                let mut key = String::new();
                write_text(&cell(entries.column(0), row)?, &mut key)?;
                write_json_string(&key, out);
                out.push(':');
                write_json(&cell(entries.column(1), row)?, out)?;
            }
            out.push('}');
        }
        Cell::Struct(columns, row) => {
            out.push('{');
            for (place, name) in columns.column_names().into_iter().enumerate() {
                separate(out, place);
                write_json_string(name, out);
                out.push(':');
                write_json(&cell(columns.column(place), *row)?, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

/// Appends `text` as a JSON string.
pub(super) fn write_json_string(text: &str, out: &mut String) {
    push(out, format_args!("{}", serde_json::Value::from(text)));
}

fn separate(out: &mut String, place: usize) {
    if place > 0 {
        out.push(',');
    }
}

fn push(out: &mut String, arguments: fmt::Arguments) {
    out.write_fmt(arguments).expect("writing to a String cannot fail");
}

fn text<'a>(value: String) -> Cell<'a> {
    Cell::Text(Cow::Owned(value))
}

fn integer<'a, T>(array: &dyn Array, row: usize) -> Cell<'a>
where
    T: ArrowPrimitiveType,
    T::Native: Into<i128>,
{
    Cell::Integer(array.as_primitive::<T>().value(row).into())
}

/// A float by the shortest text of its own width; those that are no number are texts.
fn float<'a>(value: f64, shortest: &dyn fmt::Debug) -> Cell<'a> {
    if value.is_finite() {
        Cell::Float(format!("{shortest:?}"))
    } else if value.is_nan() {
        Cell::Text("NaN".into())
    } else if value > 0.0 {
        Cell::Text("Infinity".into())
    } else {
        Cell::Text("-Infinity".into())
    }
}

fn decimal<'a, T>(array: &dyn Array, row: usize, scale: i8) -> Cell<'a>
where
    T: ArrowPrimitiveType,
    T::Native: fmt::Display,
{
    text(placed(&array.as_primitive::<T>().value(row).to_string(), scale))
}

/// The integer `unscaled` × 10^-`scale`, without exponent and without zeros that say nothing.
///
/// Arrow's own text of a decimal is cut to the declared precision, so it is not used.
fn placed(unscaled: &str, scale: i8) -> String {
    let places = usize::from(scale.unsigned_abs());
    let (sign, digits) = match unscaled.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", unscaled),
    };
    if digits == "0" {
        return "0".into();
    }
    if scale <= 0 {
        return format!("{sign}{digits}{}", "0".repeat(places));
    }
    let digits = format!("{digits:0>width$}", width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}")
}

fn date<'a>(second: i64, kind: &DataType) -> Result<Cell<'a>> {
    let day = Timestamp::from_second(second)
        .map_err(|error| no_text(&format_args!("second {second}"), kind, &error))?;
    Ok(text(TimeZone::UTC.to_datetime(day).date().to_string()))
}

fn instant(array: &dyn Array, row: usize, unit: TimeUnit) -> Result<Timestamp> {
    let raw = match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().value(row),
        TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().value(row),
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().value(row),
        TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().value(row),
    };
    match unit {
        TimeUnit::Second => Timestamp::from_second(raw),
        TimeUnit::Millisecond => Timestamp::from_millisecond(raw),
        TimeUnit::Microsecond => Timestamp::from_microsecond(raw),
        TimeUnit::Nanosecond => Timestamp::from_nanosecond(raw.into()),
    }
    .map_err(|error| no_text(&raw, array.data_type(), &error))
}

fn written_time(instant: Timestamp, zone: Option<&str>) -> Result<String> {
    Ok(match zone {
        None => TimeZone::UTC.to_datetime(instant).to_string(),
        Some("UTC" | "Z" | "+00:00") => instant.to_string(),
        Some(name) => {
            let zone = DateTimeParser::new()
                .parse_time_zone(name)
                .map_err(|error| Error::invalid(format!("no time zone `{name}`: {error}")))?;
            instant.display_with_offset(zone.to_offset(instant)).to_string()
        }
    })
}

/// Bytes in hexadecimal digits, lower case.
pub fn hexadecimal(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        push(&mut out, format_args!("{byte:02x}"));
    }
    out
}

fn index(key: i128) -> Result<usize> {
    usize::try_from(key)
        .map_err(|_| Error::internal(format!("a dictionary has no value at place {key}")))
}

fn no_text(value: &dyn fmt::Display, kind: &DataType, cause: &dyn fmt::Display) -> Error {
    Error::invalid(format!("{value} of type {kind} cannot be written as text: {cause}"))
}
