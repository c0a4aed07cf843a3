//! Numbers out of text, and the canonical text of numbers.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal256Builder, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{
    DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type, Int64Type,
};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::decimal::{push_scaled, push_scaled_i128, wide_of_text};

/// Fractional digits of a number that was read from text.
pub const WIDE_SCALE: i8 = 38;

/// The type of a number that was read from text: 38 integer and 38 fractional digits.
pub fn wide_type() -> DataType {
    DataType::Decimal256(DECIMAL256_MAX_PRECISION, WIDE_SCALE)
}

/// `to_number(text)`: the exact value of a text that reads as a number, null for any other.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ToNumber {
    signature: Signature,
}

impl ToNumber {
    /// The function.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for ToNumber {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for ToNumber {
    fn name(&self) -> &'static str {
        "to_number"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [text] if text.is_string() || text.is_null() => Ok(vec![DataType::Utf8View]),
            other => exec_err!("to_number takes one text, got {other:?}"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(wide_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let texts = cast(&args.args[0].to_array(args.number_rows)?, &DataType::Utf8View)?;
        let mut numbers = Decimal256Builder::with_capacity(texts.len()).with_data_type(wide_type());
        for text in texts.as_string_view() {
            numbers.append_option(text.and_then(wide_of_text));
        }
        Ok(ColumnarValue::Array(Arc::new(numbers.finish())))
    }
}

/// `canonical_text(number)`: no exponent, no trailing zeros.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct CanonicalText {
    signature: Signature,
}

impl CanonicalText {
    /// The function.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for CanonicalText {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for CanonicalText {
    fn name(&self) -> &'static str {
        "canonical_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [DataType::Decimal128(..) | DataType::Decimal256(..) | DataType::Int64] => {
                Ok(arguments.to_vec())
            }
            [integer] if integer.is_integer() => Ok(vec![DataType::Int64]),
            other => exec_err!("canonical_text takes one exact number, got {other:?}"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let numbers = args.args[0].to_array(args.number_rows)?;
        Ok(ColumnarValue::Array(canonical_texts(&numbers)?))
    }
}

/// The canonical texts of an array of exact numbers.
///
/// # Errors
/// An array of another type.
pub fn canonical_texts(numbers: &ArrayRef) -> Result<ArrayRef> {
    let mut texts = StringBuilder::with_capacity(numbers.len(), numbers.len() * 8);
    let mut text = String::new();
    let scale_of = |scale: i8| u8::try_from(scale).unwrap_or(0);
    match numbers.data_type() {
        DataType::Int64 => {
            for number in numbers.as_primitive::<Int64Type>() {
                append_integer(&mut texts, number.map(i128::from));
            }
        }
        DataType::Decimal128(_, 0) => {
            for number in numbers.as_primitive::<Decimal128Type>() {
                append_integer(&mut texts, number);
            }
        }
        DataType::Decimal128(_, scale) => {
            for number in numbers.as_primitive::<Decimal128Type>() {
                text.clear();
                let number = number.map(|n| push_scaled_i128(&mut text, n, scale_of(*scale)));
                texts.append_option(number.map(|()| &text));
            }
        }
        DataType::Decimal256(_, scale) => {
            for number in numbers.as_primitive::<Decimal256Type>() {
                text.clear();
                let number = number.map(|n| push_scaled(&mut text, n, scale_of(*scale)));
                texts.append_option(number.map(|()| &text));
            }
        }
        other => return exec_err!("no canonical text of {other}"),
    }
    Ok(Arc::new(texts.finish()))
}

fn append_integer(texts: &mut StringBuilder, number: Option<i128>) {
    match (number, number.and_then(|number| i64::try_from(number).ok())) {
        (None, _) => texts.append_null(),
        (Some(_), Some(narrow)) => texts.append_value(itoa::Buffer::new().format(narrow)),
        (Some(wide), None) => texts.append_value(wide.to_string()),
    }
}
