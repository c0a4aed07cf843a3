//! `calendar(customer, customers, calendars, otherwise)`: the number of a customer's calendar.
//!
//! A customer that is not among `customers`, null included, has the calendar `otherwise`, which may
//! be null: then it has none. What the numbers mean is the business of whoever reads them, as
//! `calendar_window_start` does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, AsArray, Int64Array, ListArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

type Numbers = Arc<HashMap<String, i64>>;

/// The literals of a call, and the table that was made of them.
#[derive(Debug)]
struct Known {
    customers: Arc<ListArray>,
    calendars: Arc<ListArray>,
    numbers: Numbers,
}

/// The function; the table that it read last stays, as every batch brings the same literals.
#[derive(Debug)]
pub struct Calendar {
    signature: Signature,
    last: Mutex<Option<Known>>,
}

impl Calendar {
    /// The function.
    pub fn new() -> Self {
        Self { signature: Signature::any(4, Volatility::Immutable), last: Mutex::new(None) }
    }

    fn numbers(&self, customers: &Arc<ListArray>, calendars: &Arc<ListArray>) -> Result<Numbers> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = last.as_ref()
            && Arc::ptr_eq(&known.customers, customers)
            && Arc::ptr_eq(&known.calendars, calendars)
        {
            return Ok(Arc::clone(&known.numbers));
        }
        let (names, places) = (customers.values(), calendars.values());
        let (Some(names), Some(places)) =
            (names.as_string_opt::<i32>(), places.as_primitive_opt::<Int64Type>())
        else {
            return exec_err!("calendar takes a list of texts and one of integers");
        };
        let rows = names.iter().flatten().zip(places.values().iter().copied());
        let numbers: Numbers =
            Arc::new(rows.map(|(name, place)| (name.to_owned(), place)).collect());
        *last = Some(Known {
            customers: Arc::clone(customers),
            calendars: Arc::clone(calendars),
            numbers: Arc::clone(&numbers),
        });
        Ok(numbers)
    }
}

impl Default for Calendar {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for Calendar {
    fn eq(&self, other: &Self) -> bool {
        self.signature == other.signature
    }
}

impl Eq for Calendar {}

impl std::hash::Hash for Calendar {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.signature.hash(state);
    }
}

impl ScalarUDFImpl for Calendar {
    fn name(&self) -> &'static str {
        "calendar"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [
            names,
            ColumnarValue::Scalar(ScalarValue::List(customers)),
            ColumnarValue::Scalar(ScalarValue::List(calendars)),
            ColumnarValue::Scalar(ScalarValue::Int64(otherwise)),
        ] = args.args.as_slice()
        else {
            return exec_err!("calendar takes a text, lists of texts and integers, and an integer");
        };
        let numbers = self.numbers(customers, calendars)?;
        let names = cast(&names.to_array(args.number_rows)?, &DataType::Utf8View)?;
        // Rows of one customer follow each other.
        let mut last: Option<(Option<&str>, Option<i64>)> = None;
        let found: Int64Array = names
            .as_string_view()
            .iter()
            .map(|name| match last {
                Some((known, number)) if known == name => number,
                _ => {
                    let number = name.and_then(|name| numbers.get(name).copied()).or(*otherwise);
                    last = Some((name, number));
                    number
                }
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(found) as ArrayRef))
    }
}
