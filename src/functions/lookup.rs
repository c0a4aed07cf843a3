//! `lookup(text, keys, values, otherwise)`: maps a text by a table that the plan carries.
//!
//! A text that is not among the keys, null included, becomes `otherwise`, so that the unmapped
//! are a visible group; `otherwise` may be null.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, AsArray, ListArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

type Rows = Arc<HashMap<String, String>>;

/// The literals of a call, and the table that was made of them.
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
pub struct Lookup {
    signature: Signature,
    last: Mutex<Vec<Known>>,
}

impl Lookup {
    /// The function.
    pub fn new() -> Self {
        Self { signature: Signature::any(4, Volatility::Immutable), last: Mutex::new(Vec::new()) }
    }

    fn rows(&self, keys: &Arc<ListArray>, values: &Arc<ListArray>) -> Rows {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last
            .iter()
            .find(|known| Arc::ptr_eq(&known.keys, keys) && Arc::ptr_eq(&known.values, values));
        if let Some(known) = known {
            return Arc::clone(&known.rows);
        }
        let texts = |list: &ListArray| list.values().as_string::<i32>().clone();
        let (key_texts, value_texts) = (texts(keys), texts(values));
        let rows = key_texts
            .iter()
            .flatten()
            .zip(value_texts.iter().flatten())
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let rows: Rows = Arc::new(rows.collect());
        let (keys, values) = (Arc::clone(keys), Arc::clone(values));
        if last.len() >= TABLES_KEPT {
            last.remove(0);
        }
        last.push(Known { keys, values, rows: Arc::clone(&rows) });
        rows
    }
}

impl Default for Lookup {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for Lookup {
    fn eq(&self, other: &Self) -> bool {
        self.signature == other.signature
    }
}

impl Eq for Lookup {}

impl std::hash::Hash for Lookup {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.signature.hash(state);
    }
}

impl ScalarUDFImpl for Lookup {
    fn name(&self) -> &'static str {
        "lookup"
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
            ColumnarValue::Scalar(ScalarValue::List(keys)),
            ColumnarValue::Scalar(ScalarValue::List(values)),
            ColumnarValue::Scalar(ScalarValue::Utf8(otherwise)),
        ] = args.args.as_slice()
        else {
            return exec_err!("lookup takes a text, lists of keys and values, and a text");
        };
        let rows = self.rows(keys, values);
        let texts = cast(&texts.to_array(args.number_rows)?, &DataType::Utf8View)?;
        let mapped: StringArray = texts
            .as_string_view()
            .iter()
            .map(|text| {
                let found = text.and_then(|text| rows.get(text));
                found.map(String::as_str).or(otherwise.as_deref())
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(mapped) as ArrayRef))
    }
}
