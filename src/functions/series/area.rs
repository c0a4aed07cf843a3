//! `area(value, at, until, spans, calendar)`: the area under a level, for each window of a question;
//! `level(…)`, of the same arguments: the level at the end of each window.
//!
//! Each event raises the level by its value at one instant and lowers it again at another, if there
//! is one. The area is level × microseconds, exact; what was before a window counts in it. The
//! state of a group is two sums for each window that has events, so memory goes with those windows
//! and not with the events, and the order of events is of no matter. All rows of a group are of one
//! calendar. The state is the result; [`super::pieces`] makes windows of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal256Array, Int64Array, ListArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DECIMAL256_MAX_PRECISION, DataType, Decimal256Type, Field, FieldRef, Fields, Int64Type, i256,
};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

use super::super::sum::OVERFLOW;
use super::by_calendar::{ByCalendar, Last, calendar_at};
use super::pieces::{Piece, lists};
use super::spans::{Spans, literal_argument, read_spans, shared_text_type};
use super::state::{list_field, lists_at, named_state, one_list, one_state};

/// What is told of the level of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Told {
    /// The area under it.
    Area,
    /// What it is at the end.
    Last,
}

/// The aggregate.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Level {
    told: Told,
    signature: Signature,
    spans: Last<ByCalendar<Spans>>,
}

impl Level {
    /// The aggregate that tells this of a level.
    pub fn new(told: Told) -> Self {
        let signature = Signature::user_defined(Volatility::Immutable);
        Self { told, signature, spans: Last::default() }
    }
}

/// The scale of exact numbers of a type.
pub(super) fn scale_of(number: &DataType) -> Result<i8> {
    match number {
        DataType::Int64 | DataType::Null => Ok(0),
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => Ok(*scale),
        other => exec_err!("an exact number is needed, not {other}"),
    }
}

/// The type in which values of `number` are computed with.
pub(super) fn wide_of(number: &DataType) -> Result<DataType> {
    Ok(DataType::Decimal256(DECIMAL256_MAX_PRECISION, scale_of(number)?))
}

impl AggregateUDFImpl for Level {
    fn name(&self) -> &'static str {
        match self.told {
            Told::Area => "area",
            Told::Last => "level",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [value, _, _, _, _] = arguments else {
            return exec_err!("{} takes five arguments, got {}", self.name(), arguments.len());
        };
        let instant = crate::schema::timestamp_type();
        Ok(vec![wide_of(value)?, instant.clone(), instant, shared_text_type(), DataType::Int64])
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(state_fields(wide_of(&arguments[0])?)))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let wide = args.input_fields[0].data_type().clone();
        Ok(named_state(args.name, &state_fields(wide)))
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let spans = self.spans.or_read(&literal_argument(&args, 3)?, read_spans)?;
        let scale = scale_of(args.expr_fields[0].data_type())?;
        let (told, held) = (self.told, BTreeMap::new());
        Ok(Box::new(Levels { told, spans, calendar: None, scale, held }))
    }
}

/// The state of a group as columns.
fn state_fields(wide: DataType) -> Fields {
    Fields::from(vec![
        list_field("windows", DataType::Int64),
        list_field("rises", wide.clone()),
        list_field("areas", wide),
        list_field("events", DataType::Int64),
        list_field("matched", DataType::Int64),
        Field::new("calendar", DataType::Int64, true),
    ])
}

/// The scale of the levels whose state that is.
pub(super) fn scale_of_levels(state: &Fields) -> Result<i8> {
    match state.find("rises").map(|(_, field)| field.data_type()) {
        Some(DataType::List(item)) => scale_of(item.data_type()),
        other => exec_err!("no state of levels: {other:?}"),
    }
}

/// The pieces of states, of an aggregate that tells this of levels.
pub(super) fn pieces_of_levels(
    told: Told,
    states: &StructArray,
    spans: &Arc<ByCalendar<Spans>>,
) -> Result<ListArray> {
    let scale = scale_of_levels(states.fields())?;
    let pieces = |row: usize| {
        let spans = Arc::clone(spans);
        let mut one = Levels { told, spans, calendar: None, scale, held: BTreeMap::new() };
        one.take(states.columns(), row);
        one.pieces()
    };
    lists(&(0..states.len()).map(pieces).collect::<Vec<_>>(), scale)
}

/// What the events of one window do to the level.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// By how much it is higher at the window's end than at its beginning.
    rise: i256,
    /// The area under those rises within the window.
    area: i256,
    events: i64,
    matched: i64,
}

impl Held {
    const NOTHING: Self = Self { rise: i256::ZERO, area: i256::ZERO, events: 0, matched: 0 };
}

#[derive(Debug)]
struct Levels {
    told: Told,
    spans: Arc<ByCalendar<Spans>>,
    calendar: Option<i64>,
    scale: i8,
    /// By the start of the window; what was before the range comes first, under none.
    held: BTreeMap<Option<i64>, Held>,
}

/// A sum that stays the mark of an overflow once it is one.
fn plus(a: i256, b: i256) -> i256 {
    if a == OVERFLOW || b == OVERFLOW {
        return OVERFLOW;
    }
    a.checked_add(b).unwrap_or(OVERFLOW)
}

fn times(a: i256, b: i64) -> i256 {
    if a == OVERFLOW {
        return OVERFLOW;
    }
    a.checked_mul(i256::from(b)).unwrap_or(OVERFLOW)
}

impl Levels {
    fn rise(&mut self, by: i256, at: i64) {
        let spans = self.spans.of(self.calendar);
        if at >= spans.to {
            return;
        }
        let window = spans.holding(at);
        let held = self.held.entry(window).or_insert(Held::NOTHING);
        held.rise = plus(held.rise, by);
        if let (Told::Area, Some(window)) = (self.told, window) {
            let (_, end) = spans.bounds(window);
            held.area = plus(held.area, times(by, end - at));
        }
    }

    /// The level is higher by `by` from one instant to another, or for good.
    fn hold(&mut self, by: i256, at: i64, until: Option<i64>) {
        let Some(until) = until else { return self.rise(by, at) };
        let spans = self.spans.of(self.calendar);
        match (spans.holding(at), spans.holding(until)) {
            // No larger number than the area itself comes up, however long the window is.
            (Some(window), Some(same)) if window == same => {
                let held = self.held.entry(Some(window)).or_insert(Held::NOTHING);
                if self.told == Told::Area {
                    held.area = plus(held.area, times(by, until - at));
                }
            }
            _ => {
                self.rise(by, at);
                self.rise(by.wrapping_neg(), until);
            }
        }
    }

    fn saw(&mut self, at: i64, counts: bool) {
        let window = self.spans.of(self.calendar).holding(at);
        if window.is_some() {
            let held = self.held.entry(window).or_insert(Held::NOTHING);
            held.matched += 1;
            held.events += i64::from(counts);
        }
    }

    /// Takes in the state in a row of columns.
    fn take(&mut self, states: &[ArrayRef], row: usize) {
        self.calendar = self.calendar.or(calendar_at(&states[5], row));
        let Some(of_row) = lists_at(&states[..5], row) else { return };
        let integers = |place: usize| of_row[place].as_primitive::<Int64Type>();
        let numbers = |place: usize| of_row[place].as_primitive::<Decimal256Type>().values();
        for (place, window) in integers(0).iter().enumerate() {
            let held = self.held.entry(window).or_insert(Held::NOTHING);
            held.rise = plus(held.rise, numbers(1)[place]);
            held.area = plus(held.area, numbers(2)[place]);
            held.events += integers(3).value(place);
            held.matched += integers(4).value(place);
        }
    }

    fn pieces(&self) -> Vec<Piece> {
        let Some(first) = self.held.keys().next() else { return Vec::new() };
        let mut level = self.held.get(&None).map(|held| held.rise);
        let mut pieces = Vec::new();
        let spans = self.spans.of(self.calendar);
        for window in spans.windows_from(first.unwrap_or(i64::MIN)) {
            let held = self.held.get(&Some(window)).copied().unwrap_or(Held::NOTHING);
            let (start, end) = spans.bounds(window);
            if level.is_none() && held.events > 0 {
                level = Some(i256::ZERO);
            }
            let at_start = level;
            level = level.map(|level| plus(level, held.rise));
            let value = match self.told {
                Told::Area => at_start.map(|level| plus(times(level, end - start), held.area)),
                Told::Last => level,
            };
            if value.is_some() || held.matched > 0 {
                let (events, matched) = (held.events, held.matched);
                pieces.push(Piece { window, value, events, matched });
            }
        }
        pieces
    }
}

impl Accumulator for Levels {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let value = values[0].as_primitive::<Decimal256Type>();
        let (at, until) =
            (cast(&values[1], &DataType::Int64)?, cast(&values[2], &DataType::Int64)?);
        let (at, until) = (at.as_primitive::<Int64Type>(), until.as_primitive::<Int64Type>());
        self.calendar = self.calendar.or(calendar_at(&values[4], 0));
        for row in 0..value.len() {
            if at.is_null(row) {
                continue;
            }
            self.saw(at.value(row), value.is_valid(row));
            if value.is_valid(row) {
                let until = until.is_valid(row).then(|| until.value(row));
                self.hold(value.value(row), at.value(row), until);
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        (0..states[0].len()).for_each(|row| self.take(states, row));
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let integers = |column: Vec<Option<i64>>| one_list(Arc::new(Int64Array::from(column)));
        let wide = |column: Vec<i256>| -> Result<ScalarValue> {
            let column = Decimal256Array::from_iter_values(column);
            one_list(Arc::new(
                column.with_precision_and_scale(DECIMAL256_MAX_PRECISION, self.scale)?,
            ))
        };
        Ok(vec![
            integers(self.held.keys().copied().collect())?,
            wide(self.held.values().map(|held| held.rise).collect())?,
            wide(self.held.values().map(|held| held.area).collect())?,
            integers(self.held.values().map(|held| Some(held.events)).collect())?,
            integers(self.held.values().map(|held| Some(held.matched)).collect())?,
            ScalarValue::Int64(self.calendar),
        ])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let wide = DataType::Decimal256(DECIMAL256_MAX_PRECISION, self.scale);
        one_state(state_fields(wide), &self.state()?)
    }

    fn size(&self) -> usize {
        // A node of the tree is two thirds full.
        size_of::<Self>() + self.held.len() * size_of::<(Option<i64>, Held)>() * 3 / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::WindowStarts;

    fn levels(told: Told) -> Levels {
        let windows = Some(WindowStarts::Boundaries(vec![0, 10, 20, 30]));
        let spans = Arc::new(ByCalendar::shared(Spans { from: 0, to: 30, windows }));
        Levels { told, spans, calendar: None, scale: 0, held: BTreeMap::new() }
    }

    #[test]
    fn a_level_is_carried_into_every_later_window() {
        let mut levels = levels(Told::Area);
        levels.rise(i256::from(2), -5);
        levels.saw(-5, true);
        levels.rise(i256::from(3), 4);
        levels.saw(4, true);
        levels.rise(i256::from(-3), 12);
        let values: Vec<i256> = levels.pieces().iter().filter_map(|piece| piece.value).collect();
        assert_eq!(values, [20 + 18, 20 + 6, 20].map(i256::from));
        let events: Vec<i64> = levels.pieces().iter().map(|piece| piece.events).collect();
        assert_eq!(events, [1, 0, 0]);
    }

    #[test]
    fn the_last_level_is_what_rose_and_did_not_fall() {
        let mut levels = levels(Told::Last);
        for (at, until, value) in [(-5, 12, 5), (4, 12, 2), (12, 25, 9), (14, 25, -1)] {
            levels.saw(at, true);
            levels.hold(i256::from(value), at, Some(until));
        }
        let values: Vec<i256> = levels.pieces().iter().filter_map(|piece| piece.value).collect();
        assert_eq!(values, [7, 8, 0].map(i256::from));
    }

    #[test]
    fn what_holds_for_an_instant_takes_no_more_than_that() {
        let mut levels = levels(Told::Area);
        levels.saw(1, true);
        levels.hold(i256::MAX.wrapping_sub(i256::ONE), 1, Some(2));
        levels.hold(i256::from(-5), 1, Some(2));
        let want = i256::MAX.wrapping_sub(i256::from(6));
        assert_eq!(levels.pieces()[0].value, Some(want));
        assert_eq!(levels.pieces()[1].value, Some(i256::ZERO));
    }

    #[test]
    fn nothing_is_before_the_beginning() {
        let spans = Arc::new(ByCalendar::shared(Spans { from: i64::MIN, to: 9, windows: None }));
        let mut one = Levels { spans, ..levels(Told::Last) };
        one.saw(3, true);
        one.rise(i256::from(5), 3);
        let [piece] = one.pieces()[..] else { panic!("one window") };
        assert_eq!((piece.value, piece.events), (Some(i256::from(5)), 1));
    }

    #[test]
    fn nothing_is_known_before_the_first_event() {
        let mut one = levels(Told::Area);
        one.rise(i256::from(7), 15);
        one.saw(15, true);
        one.saw(3, false);
        let pieces = one.pieces();
        assert_eq!(pieces[0], Piece { window: 0, value: None, events: 0, matched: 1 });
        assert_eq!(pieces[1].value, Some(i256::from(35)));
        assert_eq!(pieces[2].value, Some(i256::from(70)));
        assert_eq!(levels(Told::Area).pieces(), []);
    }

    #[test]
    fn an_overflow_is_marked_and_stays_so() {
        let mut levels = levels(Told::Area);
        levels.rise(i256::MAX.wrapping_sub(i256::ONE), 0);
        levels.saw(0, true);
        levels.rise(i256::MINUS_ONE, 1);
        assert!(levels.pieces().iter().all(|piece| piece.value == Some(OVERFLOW)));
    }
}
