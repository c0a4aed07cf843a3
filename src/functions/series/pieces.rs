//! `area_pieces(state, spans, days)`, `level_pieces(…)`, `present_pieces(…)`: the values of windows as
//! one list, which a plan takes apart again.
//!
//! A list has a value for each window, and a state only what happened in those that have events. So
//! lists are made batch by batch, once all events were seen.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Decimal256Array, Int64Array, ListArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DECIMAL256_MAX_PRECISION, DataType, Field, Fields, i256};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::area::{Told, pieces_of_levels, scale_of_levels};
use super::present::{SCALE, pieces_of_present};
use super::spans::{read_parts, read_spans};
use crate::schema::timestamp_type;

/// Start of the window, before the range cuts it.
pub const WINDOW: &str = "window";
/// Its value: decimal(76) of the scale of the aggregate.
pub const VALUE: &str = "value";
/// Events that made the value.
pub const EVENTS: &str = "events";
/// Events that matched, skipped ones included.
pub const MATCHED: &str = "matched";

/// What is known of one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) window: i64,
    pub(super) value: Option<i256>,
    pub(super) events: i64,
    pub(super) matched: i64,
}

fn fields(scale: i8) -> Fields {
    Fields::from(vec![
        Field::new(WINDOW, timestamp_type(), false),
        Field::new(VALUE, DataType::Decimal256(DECIMAL256_MAX_PRECISION, scale), true),
        Field::new(EVENTS, DataType::Int64, false),
        Field::new(MATCHED, DataType::Int64, false),
    ])
}

/// The type of a list of pieces whose values have `scale` fractional digits.
pub(super) fn list_type(scale: i8) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Struct(fields(scale)), true)))
}

/// The lists, one for each row.
pub(super) fn lists(rows: &[Vec<Piece>], scale: i8) -> Result<ListArray> {
    let all = || rows.iter().flatten();
    let windows: TimestampMicrosecondArray = all().map(|piece| Some(piece.window)).collect();
    let values: Decimal256Array = all().map(|piece| piece.value).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(windows.with_data_type(timestamp_type())),
        Arc::new(values.with_precision_and_scale(DECIMAL256_MAX_PRECISION, scale)?),
        Arc::new(all().map(|piece| Some(piece.events)).collect::<Int64Array>()),
        Arc::new(all().map(|piece| Some(piece.matched)).collect::<Int64Array>()),
    ];
    let items = StructArray::try_new(fields(scale), columns, None)?;
    let field = Arc::new(Field::new_list_field(DataType::Struct(fields(scale)), true));
    let offsets = OffsetBuffer::from_lengths(rows.iter().map(Vec::len));
    Ok(ListArray::try_new(field, offsets, Arc::new(items), None)?)
}

/// What states are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Of {
    /// [`super::area`] of levels.
    Levels(Told),
    /// [`super::present`].
    Present,
}

impl Of {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Levels(Told::Area), Self::Levels(Told::Last), Self::Present];
}

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Pieces {
    of: Of,
    signature: Signature,
}

impl Pieces {
    /// The function for states of this.
    pub fn new(of: Of) -> Self {
        Self { of, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Pieces {
    fn name(&self) -> &'static str {
        match self.of {
            Of::Levels(Told::Area) => "area_pieces",
            Of::Levels(Told::Last) => "level_pieces",
            Of::Present => "present_pieces",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [state @ DataType::Struct(_), _, _] = arguments else {
            return exec_err!("{} takes a state, spans and days", self.name());
        };
        Ok(vec![state.clone(), DataType::Utf8, DataType::Utf8])
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(list_type(match (self.of, arguments.first()) {
            (Of::Levels(_), Some(DataType::Struct(state))) => scale_of_levels(state)?,
            _ => SCALE,
        }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [
            states,
            ColumnarValue::Scalar(ScalarValue::Utf8(Some(spans))),
            ColumnarValue::Scalar(ScalarValue::Utf8(Some(days))),
        ] = args.args.as_slice()
        else {
            return exec_err!("{} takes a state and two literals", self.name());
        };
        let states = states.to_array(args.number_rows)?;
        let Some(states) = states.as_struct_opt() else {
            return exec_err!("{} takes a state", self.name());
        };
        let (spans, days) = (Arc::new(read_spans(spans)?), read_parts(days)?);
        let pieces = match self.of {
            Of::Levels(told) => pieces_of_levels(told, states, &spans)?,
            Of::Present => pieces_of_present(states, &spans, days)?,
        };
        Ok(ColumnarValue::Array(Arc::new(pieces)))
    }
}
