//! `calendar_window_start(timestamp, calendar, windows)`: the start of the window that holds an
//! instant in the calendar of that number.
//!
//! `windows` is the literal of [`Calendars`], computed once per query. No calendar, no window: null.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use crate::schema::timestamp_type;
use crate::time::{Calendars, WindowStarts};

type Known = Option<(String, Arc<Vec<WindowStarts>>)>;

/// The function; what it read last stays, as every batch of a query brings the same literal.
#[derive(Debug)]
pub struct CalendarWindowStart {
    signature: Signature,
    last: Mutex<Known>,
}

impl CalendarWindowStart {
    /// The function.
    pub fn new() -> Self {
        let types = TypeSignature::Exact(vec![timestamp_type(), DataType::Int64, DataType::Utf8]);
        Self { signature: Signature::new(types, Volatility::Immutable), last: Mutex::new(None) }
    }

    fn windows(&self, literal: &str) -> Result<Arc<Vec<WindowStarts>>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, windows)) = last.as_ref()
            && known == literal
        {
            return Ok(Arc::clone(windows));
        }
        match Calendars::starts_from_literal(literal) {
            Ok(windows) => {
                let windows = Arc::new(windows);
                *last = Some((literal.to_owned(), Arc::clone(&windows)));
                Ok(windows)
            }
            Err(error) => exec_err!("calendar_window_start: {error}"),
        }
    }
}

impl Default for CalendarWindowStart {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for CalendarWindowStart {
    fn eq(&self, other: &Self) -> bool {
        self.signature == other.signature
    }
}

impl Eq for CalendarWindowStart {}

impl std::hash::Hash for CalendarWindowStart {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.signature.hash(state);
    }
}

impl ScalarUDFImpl for CalendarWindowStart {
    fn name(&self) -> &'static str {
        "calendar_window_start"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(timestamp_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [instants, numbers, ColumnarValue::Scalar(ScalarValue::Utf8(Some(literal)))] =
            args.args.as_slice()
        else {
            return exec_err!(
                "calendar_window_start takes an instant, a number and a literal of calendars"
            );
        };
        let windows = self.windows(literal)?;
        let instants = instants.to_array(args.number_rows)?;
        let DataType::Timestamp(TimeUnit::Microsecond, _) = instants.data_type() else {
            return exec_err!("calendar_window_start: no microseconds: {}", instants.data_type());
        };
        let numbers = numbers.to_array(args.number_rows)?;
        let Some(numbers) = numbers.as_primitive_opt::<Int64Type>() else {
            return exec_err!("calendar_window_start: no integers: {}", numbers.data_type());
        };
        let instants = instants.as_primitive::<TimestampMicrosecondType>();
        // Rows of one customer follow each other, so the window of the row before is tried first.
        let mut known: Option<(i64, i64, i64)> = None;
        let mut starts = Vec::with_capacity(instants.len());
        for (instant, number) in instants.iter().zip(numbers) {
            let (Some(instant), Some(number)) = (instant, number) else {
                starts.push(None);
                continue;
            };
            let window = match known {
                Some(window @ (of, start, end))
                    if of == number && (start..end).contains(&instant) =>
                {
                    window
                }
                _ => {
                    let calendar = usize::try_from(number).ok().and_then(|at| windows.get(at));
                    let Some(calendar) = calendar else {
                        return exec_err!("calendar_window_start: there is no calendar {number}");
                    };
                    let start = calendar.start_of(instant);
                    (number, start, calendar.end_of(start))
                }
            };
            known = Some(window);
            starts.push(Some(window.1));
        }
        let starts = TimestampMicrosecondArray::from(starts).with_timezone("UTC");
        Ok(ColumnarValue::Array(Arc::new(starts) as ArrayRef))
    }
}
