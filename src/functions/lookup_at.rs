//! `lookup_at(text, instant, keys, from, to, values, otherwise)`: maps a text by the row of a table
//! in the plan that holds at an instant.
//!
//! The lists are parallel, by key and then by time; a row holds from its first instant to its end,
//! exclusive. A text without a row at that instant, null included, becomes `otherwise`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::meter::{Valid, valid_at};

type Rows = Arc<HashMap<String, Vec<Valid>>>;

/// The lists of a call, and the table that was made of them.
#[derive(Debug)]
struct Known {
    keys: Arc<ListArray>,
    values: Arc<ListArray>,
    rows: Rows,
}

/// Tables that stay read: more than one plan has.
const TABLES_KEPT: usize = 16;

/// The function; the tables that it read last stay, as every batch brings the same literals.
#[derive(Debug)]
pub struct LookupAt {
    signature: Signature,
    last: Mutex<Vec<Known>>,
}

impl LookupAt {
    /// The function.
    pub fn new() -> Self {
        Self { signature: Signature::any(7, Volatility::Immutable), last: Mutex::new(Vec::new()) }
    }

    fn rows(
        &self,
        keys: &Arc<ListArray>,
        bounds: [&Arc<ListArray>; 2],
        values: &Arc<ListArray>,
    ) -> Rows {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last
            .iter()
            .find(|known| Arc::ptr_eq(&known.keys, keys) && Arc::ptr_eq(&known.values, values));
        if let Some(known) = known {
            return Arc::clone(&known.rows);
        }
        let [from, to] = bounds.map(|list| list.values().as_primitive::<Int64Type>().clone());
        let (key_texts, value_texts) = (keys.values(), values.values());
        let (key_texts, value_texts) =
            (key_texts.as_string::<i32>(), value_texts.as_string::<i32>());
        let mut rows: HashMap<String, Vec<Valid>> = HashMap::new();
        for row in 0..key_texts.len() {
            let value = value_texts.value(row).to_owned();
            let valid = Valid { from: from.value(row), to: to.value(row), value };
            rows.entry(key_texts.value(row).to_owned()).or_default().push(valid);
        }
        let rows: Rows = Arc::new(rows);
        if last.len() >= TABLES_KEPT {
            last.remove(0);
        }
        let (keys, values) = (Arc::clone(keys), Arc::clone(values));
        last.push(Known { keys, values, rows: Arc::clone(&rows) });
        rows
    }
}

impl Default for LookupAt {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for LookupAt {
    fn eq(&self, other: &Self) -> bool {
        self.signature == other.signature
    }
}

impl Eq for LookupAt {}

impl std::hash::Hash for LookupAt {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.signature.hash(state);
    }
}

impl ScalarUDFImpl for LookupAt {
    fn name(&self) -> &'static str {
        "lookup_at"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [
            texts,
            instants,
            ColumnarValue::Scalar(ScalarValue::List(keys)),
            ColumnarValue::Scalar(ScalarValue::List(from)),
            ColumnarValue::Scalar(ScalarValue::List(to)),
            ColumnarValue::Scalar(ScalarValue::List(values)),
            ColumnarValue::Scalar(ScalarValue::Utf8(otherwise)),
        ] = args.args.as_slice()
        else {
            return exec_err!("lookup_at takes a text, an instant, four lists and a text");
        };
        let rows = self.rows(keys, [from, to], values);
        let texts = cast(&texts.to_array(args.number_rows)?, &DataType::Utf8View)?;
        let instants = instants.to_array(args.number_rows)?;
        let instants = instants.as_primitive::<TimestampMicrosecondType>();
        let mapped: StringArray = texts
            .as_string_view()
            .iter()
            .zip(instants)
            .map(|(text, instant)| {
                let found = text.and_then(|text| rows.get(text)).zip(instant);
                let found = found.and_then(|(rows, instant)| valid_at(rows, instant));
                found.or(otherwise.as_deref())
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(mapped) as ArrayRef))
    }
}
