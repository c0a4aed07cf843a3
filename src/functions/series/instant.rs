//! `to_instant(value, shift)`: the instant that a text (RFC 3339) or a timestamp is, moved by
//! `shift` microseconds; null for any other text.

use std::sync::Arc;

use arrow::array::{AsArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::schema::timestamp_type;
use crate::time::Timestamp;

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ToInstant {
    signature: Signature,
}

impl ToInstant {
    /// The function.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for ToInstant {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for ToInstant {
    fn name(&self) -> &'static str {
        "to_instant"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [DataType::Timestamp(..), _] => Ok(vec![timestamp_type(), DataType::Int64]),
            [text, _] if text.is_string() || text.is_null() => {
                Ok(vec![DataType::Utf8View, DataType::Int64])
            }
            other => exec_err!("to_instant takes a text or timestamp and a shift, got {other:?}"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(timestamp_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value, ColumnarValue::Scalar(ScalarValue::Int64(Some(shift)))] = args.args.as_slice()
        else {
            return exec_err!("to_instant takes a value and a literal shift");
        };
        let value = value.to_array(args.number_rows)?;
        let shifted = |micros: i64| micros.checked_add(*shift);
        let instants: TimestampMicrosecondArray = match value.data_type() {
            DataType::Timestamp(..) => value
                .as_primitive::<TimestampMicrosecondType>()
                .iter()
                .map(|micros| micros.and_then(shifted))
                .collect(),
            _ => cast(&value, &DataType::Utf8View)?
                .as_string_view()
                .iter()
                .map(|text| Timestamp::parse_rfc3339(text?).ok()?.micros().checked_add(*shift))
                .collect(),
        };
        Ok(ColumnarValue::Array(Arc::new(instants.with_data_type(timestamp_type()))))
    }
}
