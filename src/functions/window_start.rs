//! `window_start(timestamp, windows)`: the start of the window that holds an instant.
//!
//! `windows` is the literal of [`WindowStarts`]: computed once per query from the zone's rules, so
//! that the plan carries everything and no row asks a time zone.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use crate::schema::timestamp_type;
use crate::time::WindowStarts;

/// The function; what it read last stays, as every batch of a query brings the same literal.
#[derive(Debug)]
pub struct WindowStart {
    signature: Signature,
    last: Mutex<Option<(String, Arc<WindowStarts>)>>,
}

impl WindowStart {
    /// The function.
    pub fn new() -> Self {
        let types = TypeSignature::Exact(vec![timestamp_type(), DataType::Utf8]);
        Self { signature: Signature::new(types, Volatility::Immutable), last: Mutex::new(None) }
    }

    fn windows(&self, literal: &str) -> Result<Arc<WindowStarts>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, windows)) = last.as_ref()
            && known == literal
        {
            return Ok(Arc::clone(windows));
        }
        match WindowStarts::from_literal(literal) {
            Ok(windows) => {
                let windows = Arc::new(windows);
                *last = Some((literal.to_owned(), Arc::clone(&windows)));
                Ok(windows)
            }
            Err(error) => exec_err!("window_start: {error}"),
        }
    }
}

impl Default for WindowStart {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for WindowStart {
    fn eq(&self, other: &Self) -> bool {
        self.signature == other.signature
    }
}

impl Eq for WindowStart {}

impl std::hash::Hash for WindowStart {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.signature.hash(state);
    }
}

impl ScalarUDFImpl for WindowStart {
    fn name(&self) -> &'static str {
        "window_start"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(timestamp_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [instants, ColumnarValue::Scalar(ScalarValue::Utf8(Some(literal)))] =
            args.args.as_slice()
        else {
            return exec_err!("window_start takes an instant and a literal of windows");
        };
        let windows = self.windows(literal)?;
        let instants = instants.to_array(args.number_rows)?;
        let DataType::Timestamp(TimeUnit::Microsecond, _) = instants.data_type() else {
            return exec_err!("window_start takes microseconds, got {}", instants.data_type());
        };
        let starts = starts_of(&windows, instants.as_primitive());
        Ok(ColumnarValue::Array(Arc::new(starts.with_timezone("UTC")) as ArrayRef))
    }
}

/// Rows come mostly in time order, so the window of the row before is tried first.
fn starts_of(
    windows: &WindowStarts,
    instants: &arrow::array::PrimitiveArray<TimestampMicrosecondType>,
) -> TimestampMicrosecondArray {
    let (mut start, mut end) = (i64::MAX, i64::MIN);
    let starts = instants.values().iter().map(|&instant| {
        if instant < start || instant >= end {
            start = windows.start_of(instant);
            end = windows.end_of(start);
        }
        start
    });
    TimestampMicrosecondArray::new(starts.collect(), instants.nulls().cloned())
}
