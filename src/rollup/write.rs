//! Rows of states become files of a rollup, one for each month.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayBuilder, ArrayRef, AsArray, Decimal128Builder, Int64Builder, RecordBatch,
    StringArray, StringBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Decimal128Type, Decimal256Type, Schema, SchemaRef, TimestampMicrosecondType, i256,
};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::LogicalPlan;
use futures::StreamExt;
use jiff::tz::TimeZone;
use uuid::Uuid;

use super::columns_of;
use crate::decimal::text_of_scaled;
use crate::engine::{Engine, Reach, engine_error};
use crate::error::{Error, Result};
use crate::functions::sum::OVERFLOW;
use crate::lake::staged::StagedFile;
use crate::lake::table::Table;
use crate::lake::writer::{Layout, Pages, ParquetFileWriter};
use crate::meter::Meter;
use crate::plan::states::columns::{BUCKET, LEVEL, VALUE, WEIGHTS, key};
use crate::plan::states::{Kept, MONTH, Value, kept, keys};
use crate::schema::{CUSTOMER_ID, ValueKind};
use crate::time::Timestamp;

/// Fractional digits of a stored decimal.
const SCALE: u8 = 18;

/// Most questions are about few rows of a level. Files are 5 % larger than with pages of the usual size.
const PAGES: Pages = Pages { rows: 4_096, bytes: 64 << 10, dictionary_bytes: 256 << 10 };

/// Rows of a row group below which a level shares it with the next.
const LEVEL_ROWS_MIN: usize = 8_192;

/// Files of states under way: one for each month, with all levels.
pub(super) struct MonthFiles<'a> {
    engine: &'a Engine,
    table: &'a Table,
    meter: &'a Meter,
    kept: Kept,
    zone: TimeZone,
    schema: SchemaRef,
    layout: Layout,
    open: BTreeMap<i32, ParquetFileWriter>,
    /// What the open files have of the memory of questions: plans spill the sooner. A file is held to its
    /// end, so there is no less of it to ask for.
    memory: MemoryReservation,
}

impl<'a> MonthFiles<'a> {
    pub(super) fn new((engine, table): (&'a Engine, &'a Table), meter: &'a Meter) -> Result<Self> {
        let kept = kept(meter).ok_or_else(|| Error::internal("a meter without states"))?;
        Ok(Self {
            engine,
            table,
            meter,
            kept,
            zone: meter.zone(),
            schema: Arc::new(Schema::new(columns_of(meter, kept))),
            layout: layout(meter),
            open: BTreeMap::new(),
            memory: engine.memory("files of states"),
        })
    }

    /// Adds the rows of a plan of states. Levels come in the order of their names.
    ///
    /// # Errors
    /// A sum of more than 38 integer digits; a plan that fails.
    pub(super) async fn add(&mut self, level: &str, plan: &LogicalPlan) -> Result<()> {
        let physical = self.engine.physical(plan, Reach::Broad).await?;
        let mut rows = self.engine.execute(physical)?;
        while let Some(batch) = rows.next().await {
            for (month, rows) in self.by_month(&batch.map_err(engine_error)?)? {
                let rows = stored(&rows, (self.meter, self.kept), level, &self.schema)?;
                let writer = match self.open.entry(month) {
                    Entry::Occupied(open) => open.into_mut(),
                    Entry::Vacant(place) => {
                        let schema = Arc::clone(&self.schema);
                        place.insert(ParquetFileWriter::new(schema, &self.layout, Some(month))?)
                    }
                };
                if !writer.write(&rows)?.is_empty() {
                    return Err(Error::internal("a file of a month is full"));
                }
            }
            let bytes = self.open.values().map(ParquetFileWriter::bytes).sum();
            self.memory.resize(bytes);
        }
        // Whoever asks for one level reads little of the others.
        self.open.values_mut().try_for_each(|writer| writer.end_row_group(LEVEL_ROWS_MIN))
    }

    /// The files, put where they belong.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub(super) async fn finish(self) -> Result<Vec<StagedFile>> {
        let mut staged = Vec::new();
        for writer in self.open.into_values() {
            if let Some(file) = writer.finish()? {
                staged.push(self.table.stage(file).await?);
            }
        }
        Ok(staged)
    }

    /// The rows of a batch by month, in days since 1970; they come sorted by it.
    fn by_month(&self, batch: &RecordBatch) -> Result<Vec<(i32, RecordBatch)>> {
        let starts = column(batch, MONTH)?.as_primitive::<TimestampMicrosecondType>().values();
        let mut parts = Vec::new();
        let mut first = 0;
        while first < starts.len() {
            let start = starts[first];
            let rows = starts[first..].partition_point(|other| *other == start);
            parts.push((month_of(&self.zone, start), batch.slice(first, rows)));
            first += rows.max(1);
        }
        Ok(parts)
    }
}

fn layout(meter: &Meter) -> Layout {
    let texts = (0..keys(meter).len()).map(|place| ValueKind::Text.column(&key(place)));
    let paged = [LEVEL, CUSTOMER_ID].map(ToOwned::to_owned).into_iter().chain(texts);
    let packed = [VALUE, WEIGHTS].map(|of| ValueKind::Integer.column(of));
    let short = [LEVEL, BUCKET].map(ToOwned::to_owned);
    Layout {
        // The order is not the same for all levels.
        paged: paged.collect(),
        // Hardly two states have the same: a dictionary is read whole for a single row.
        delta_packed: packed.to_vec(),
        uncompressed: packed.into_iter().chain(short).collect(),
        no_dictionary: [VALUE, WEIGHTS].map(|of| ValueKind::Decimal.column(of)).to_vec(),
        pages: PAGES,
        // A month is one file, whatever its bytes; no two writers' files have one name.
        target_bytes: usize::MAX,
        stamp: Some(Uuid::new_v4().to_string()),
        ..Layout::default()
    }
}

/// The date of the month that begins at an instant, in days since 1970.
pub(super) fn month_of(zone: &TimeZone, start: i64) -> i32 {
    const DAY_MICROS: i64 = 86_400_000_000;
    let at = jiff::Timestamp::from_microsecond(start).unwrap_or_default();
    let first = at.to_zoned(zone.clone()).date().first_of_month();
    let midnight = first.to_zoned(TimeZone::UTC).map(|first| first.timestamp().as_microsecond());
    i32::try_from(midnight.unwrap_or(start).div_euclid(DAY_MICROS)).unwrap_or_default()
}

fn column<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b ArrayRef> {
    let missing = || Error::internal(format!("rows of states without `{name}`"));
    batch.column_by_name(name).ok_or_else(missing)
}

/// Rows of states with the columns of a file.
fn stored(
    rows: &RecordBatch,
    (meter, kept): (&Meter, Kept),
    level: &str,
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let defect = |error| Error::internal("rows of states").with_source(error);
    let value = match kept.value() {
        None => None,
        Some(Value::Text) => {
            Some(Split { text: Arc::clone(column(rows, VALUE)?), ..Split::none(rows) })
        }
        Some(Value::Number) => Some(split(rows, VALUE, meter)?),
    };
    let weights = match kept {
        Kept::Weighed => Some(split(rows, WEIGHTS, meter)?),
        _ => None,
    };
    let numbers = [(VALUE, &value), (WEIGHTS, &weights)];
    let numbers = numbers.into_iter().filter_map(|(of, split)| Some((of, split.as_ref()?)));
    let of_kind = |name: &str| {
        numbers.clone().find_map(|(of, split)| match name {
            name if name == ValueKind::Integer.column(of) => Some(&split.integer),
            name if name == ValueKind::Decimal.column(of) => Some(&split.decimal),
            name if name == ValueKind::Text.column(of) => Some(&split.text),
            _ => None,
        })
    };
    let arrays = schema.fields().iter().map(|field| {
        let name = field.name().as_str();
        let array = match of_kind(name) {
            Some(array) => Arc::clone(array),
            None if name == LEVEL => {
                let names = std::iter::repeat_n(level, rows.num_rows());
                Arc::new(StringArray::from_iter_values(names)) as ArrayRef
            }
            None => {
                let of_key = name.strip_prefix(ValueKind::Text.prefix()).unwrap_or(name);
                Arc::clone(column(rows, of_key)?)
            }
        };
        cast(&array, field.data_type()).map_err(defect)
    });
    let arrays = arrays.collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new(Arc::clone(schema), arrays).map_err(defect)
}

/// Numbers by the kind of column that holds each exactly.
struct Split {
    integer: ArrayRef,
    decimal: ArrayRef,
    text: ArrayRef,
}

impl Split {
    fn none(rows: &RecordBatch) -> Self {
        let none = |of: &DataType| arrow::array::new_null_array(of, rows.num_rows());
        Self {
            integer: none(&DataType::Int64),
            decimal: none(&ValueKind::Decimal.data_type()),
            text: none(&DataType::Utf8),
        }
    }
}

fn split(rows: &RecordBatch, name: &str, meter: &Meter) -> Result<Split> {
    let values = column(rows, name)?;
    let (mut integers, mut texts) = (Int64Builder::new(), StringBuilder::new());
    let mut decimals = Decimal128Builder::new().with_data_type(ValueKind::Decimal.data_type());
    let mut take = |value: Option<(i256, u8)>| -> Result<()> {
        let (mut integer, mut decimal, mut text) = (None, None, None);
        if let Some((scaled, scale)) = value {
            if scaled == OVERFLOW {
                return Err(overflow(rows, integers.len(), meter)?);
            }
            integer = integer_of(scaled, scale);
            if integer.is_none() {
                decimal = decimal_of(scaled, scale);
            }
            if integer.is_none() && decimal.is_none() {
                text = Some(text_of_scaled(scaled, scale));
            }
        }
        integers.append_option(integer);
        decimals.append_option(decimal);
        texts.append_option(text);
        Ok(())
    };
    let unsigned = |scale: i8| {
        u8::try_from(scale).map_err(|error| Error::internal("a negative scale").with_source(error))
    };
    match values.data_type() {
        DataType::Int64 => {
            let text = arrow::array::new_null_array(&DataType::Utf8, values.len());
            let decimal =
                arrow::array::new_null_array(&ValueKind::Decimal.data_type(), values.len());
            return Ok(Split { integer: Arc::clone(values), decimal, text });
        }
        DataType::Decimal128(_, scale) => {
            let scale = unsigned(*scale)?;
            let values = values.as_primitive::<Decimal128Type>();
            values.iter().try_for_each(|v| take(v.map(|v| (i256::from_i128(v), scale))))?;
        }
        DataType::Decimal256(_, scale) => {
            let scale = unsigned(*scale)?;
            let values = values.as_primitive::<Decimal256Type>();
            values.iter().try_for_each(|v| take(v.map(|v| (v, scale))))?;
        }
        other => return Err(Error::internal(format!("states of the type {other}"))),
    }
    Ok(Split {
        integer: Arc::new(integers.finish()),
        decimal: Arc::new(decimals.finish()),
        text: Arc::new(texts.finish()),
    })
}

/// The error of a sum that does not fit, with what it is of.
fn overflow(rows: &RecordBatch, row: usize, meter: &Meter) -> Result<Error> {
    let customers = cast(column(rows, CUSTOMER_ID)?, &DataType::Utf8);
    let customers = customers.map_err(|error| Error::internal("customers").with_source(error))?;
    let customers = customers.as_string::<i32>();
    let of = match customers.is_valid(row) {
        true => format!(" of customer `{}`", customers.value(row)),
        false => String::new(),
    };
    let months = column(rows, MONTH)?.as_primitive::<TimestampMicrosecondType>();
    let name = &meter.name;
    Ok(Error::invalid(format!(
        "meter `{name}`: a sum{of} in the month from {} has more than 38 integer digits, so that there can \
         be no rollup: `meterhouse explain {name} --events` shows the largest events",
        Timestamp::from_micros(months.value(row))
    )))
}

fn power(digits: u8) -> i256 {
    // At most 76 digits.
    i256::from(10).wrapping_pow(u32::from(digits))
}

/// The number, if it is a whole one of 64 bits.
fn integer_of(scaled: i256, scale: u8) -> Option<i64> {
    let unit = power(scale);
    (scaled % unit == i256::ZERO).then(|| (scaled / unit).to_i128())??.try_into().ok()
}

/// The number in units of [`SCALE`] fractional digits, if it has no more, and 38 at most in all.
fn decimal_of(scaled: i256, scale: u8) -> Option<i128> {
    let number = match scale.checked_sub(SCALE) {
        None => scaled.checked_mul(power(SCALE - scale))?,
        Some(more) => {
            let unit = power(more);
            (scaled % unit == i256::ZERO).then(|| scaled / unit)?
        }
    };
    let number = number.to_i128()?;
    (number.unsigned_abs() < 10_u128.pow(38)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_one_column_that_holds_it_exactly() {
        let wide = |text: &str| crate::decimal::wide_of_text(text).unwrap();
        for (text, integer, decimal) in [
            ("0", Some(0), None),
            ("-9223372036854775808", Some(i64::MIN), None),
            ("9223372036854775808", None, Some(9_223_372_036_854_775_808 * 10_i128.pow(18))),
            ("0.5", None, Some(5 * 10_i128.pow(17))),
            ("0.0000000000000000001", None, None),
            ("100000000000000000000", None, None),
        ] {
            let scaled = wide(text);
            assert_eq!(integer_of(scaled, 38), integer, "{text}");
            let held = integer.is_none().then(|| decimal_of(scaled, 38)).flatten();
            assert_eq!(held, decimal, "{text}");
            assert_eq!(text_of_scaled(scaled, 38), text);
        }
    }
}
