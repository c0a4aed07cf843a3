//! Rows of an answer, whose numbers are exact texts, as columns that SQL can reckon with.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, RecordBatch, TimestampMicrosecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, Field, Schema, SchemaRef};

use crate::error::{Error, Result};
use crate::time::Timestamp;
use crate::usage::columns;

/// Digits of the widest decimal.
const DIGITS_MAX: usize = DECIMAL128_MAX_PRECISION as usize;

/// The rows of `batches` in one: windows as instants, quantities as decimals of the largest scale
/// among them, or still as texts where that takes more than 38 digits.
///
/// # Errors
/// Two columns of one name.
pub(super) fn typed(batches: &[RecordBatch]) -> Result<(SchemaRef, RecordBatch)> {
    let defect = |error| Error::internal("the answer of a meter").with_source(error);
    let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    let rows = concat_batches(&schema, batches).map_err(defect)?;
    let mut fields = Vec::with_capacity(schema.fields().len());
    let mut arrays = Vec::with_capacity(schema.fields().len());
    for (field, texts) in schema.fields().iter().zip(rows.columns()) {
        if fields.iter().any(|other: &Field| other.name() == field.name()) {
            return Err(Error::invalid(format!(
                "meter: a group named `{0}` hides the column `{0}` of the answer",
                field.name()
            )));
        }
        let array = match field.name().as_str() {
            columns::WINDOW_START | columns::WINDOW_END => instants(texts)?,
            columns::VALUE | columns::CONVERTED | columns::BILLABLE => {
                decimals(texts).unwrap_or_else(|| Arc::clone(texts))
            }
            _ => Arc::clone(texts),
        };
        fields.push(field.as_ref().clone().with_data_type(array.data_type().clone()));
        arrays.push(array);
    }
    let schema = Arc::new(Schema::new(fields));
    let rows = RecordBatch::try_new(Arc::clone(&schema), arrays).map_err(defect)?;
    Ok((schema, rows))
}

fn instants(texts: &ArrayRef) -> Result<ArrayRef> {
    let Some(texts) = texts.as_string_opt::<i32>() else { return Ok(Arc::clone(texts)) };
    let instant = |text: &str| {
        Timestamp::parse_rfc3339(text)
            .map(Timestamp::micros)
            .map_err(|error| Error::internal(format!("window at {text}: {error}")))
    };
    let instants = texts.iter().map(|text| text.map(instant).transpose());
    let instants: TimestampMicrosecondArray = instants.collect::<Result<Vec<_>>>()?.into();
    Ok(Arc::new(instants.with_timezone("UTC")))
}

/// Exact decimal texts as decimals, `None` where they take too many digits.
fn decimals(texts: &ArrayRef) -> Option<ArrayRef> {
    let texts = texts.as_string_opt::<i32>()?;
    let scale = texts.iter().flatten().map(fraction).map(str::len).max().unwrap_or(0);
    let unscaled = |text: &str| -> Option<i128> {
        let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
        let digits = format!("{whole}{:0<scale$}", fraction(text));
        let significant = digits.trim_start_matches(['-', '0']).len();
        (significant <= DIGITS_MAX).then(|| digits.parse().ok()).flatten()
    };
    let mut values = Vec::with_capacity(texts.len());
    for text in texts {
        values.push(match text {
            Some(text) => Some(unscaled(text)?),
            None => None,
        });
    }
    let scale = i8::try_from(scale).ok().filter(|_| scale <= DIGITS_MAX)?;
    let array = Decimal128Array::from(values);
    let array = array.with_precision_and_scale(DECIMAL128_MAX_PRECISION, scale).ok()?;
    Some(Arc::new(array))
}

fn fraction(text: &str) -> &str {
    text.split_once('.').map_or("", |(_, fraction)| fraction)
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;
    use arrow::datatypes::DataType;
    use arrow::util::display::array_value_to_string;

    use super::*;

    #[test]
    fn quantities_share_the_largest_scale_or_stay_texts() {
        let (digits, long) = ("9".repeat(38), "9".repeat(39));
        for (name, texts, want) in [
            ("integers", vec!["1", "-20"], Some((0, vec!["1", "-20"]))),
            ("mixed", vec!["1", "-0.25"], Some((2, vec!["1.00", "-0.25"]))),
            ("38 digits", vec![digits.as_str()], Some((0, vec![digits.as_str()]))),
            ("39 digits", vec![long.as_str()], None),
            ("38 digits and a fraction", vec![digits.as_str(), "0.5"], None),
            ("nothing", vec![], Some((0, vec![]))),
        ] {
            let array: ArrayRef = Arc::new(StringArray::from(texts));
            let got = decimals(&array).map(|array| {
                let texts = (0..array.len()).map(|row| array_value_to_string(&array, row).unwrap());
                (array.data_type().clone(), texts.collect::<Vec<_>>())
            });
            let want = want.map(|(scale, texts): (i8, Vec<&str>)| {
                (DataType::Decimal128(38, scale), texts.into_iter().map(str::to_owned).collect())
            });
            assert_eq!(got, want, "{name}");
        }
    }
}
