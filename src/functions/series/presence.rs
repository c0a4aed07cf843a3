//! `presence(adds, at, until, spans, calendar)`: whether something is there at the end of each window
//! of a question, or on how many days of it, if those are told, it was there at some time.
//!
//! An event that adds makes it be there from one instant to another, or for good; one that removes
//! only tells that it is known of, and null is an event that is skipped. The state of a group is the
//! stretches of time in which it was there, those that meet made one, so the order of events is of no
//! matter. All rows of a group are of one calendar. The state is the result; [`super::pieces`] makes
//! windows of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type, i256};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

use super::by_calendar::{ByCalendar, Last, calendar_at};
use super::pieces::{Piece, lists};
use super::spans::{Spans, literal_argument, read_spans, shared_text_type};
use super::state::{list_field, named_state, one_list, one_state};
use crate::time::WindowStarts;

/// Fractional digits of the values.
pub(super) const SCALE: i8 = 0;

/// The aggregate.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Presence {
    signature: Signature,
    spans: Last<ByCalendar<Spans>>,
}

impl Presence {
    /// The aggregate.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable), spans: Last::default() }
    }
}

impl Default for Presence {
    fn default() -> Self {
        Self::new()
    }
}

impl AggregateUDFImpl for Presence {
    fn name(&self) -> &'static str {
        "presence"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [_, _, _, _, _] = arguments else {
            return exec_err!("presence takes five arguments, got {}", arguments.len());
        };
        let instant = crate::schema::timestamp_type();
        Ok(vec![DataType::Boolean, instant.clone(), instant, shared_text_type(), DataType::Int64])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(state_fields()))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(named_state(args.name, &state_fields()))
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let spans = self.spans.or_read(&literal_argument(&args, 3)?, read_spans)?;
        Ok(Box::new(There::new(spans)))
    }
}

/// The state of a group as columns.
fn state_fields() -> Fields {
    let list = |name| list_field(name, DataType::Int64);
    let one = |name| Field::new(name, DataType::Int64, true);
    Fields::from(vec![
        list("starts"),
        list("ends"),
        list("windows"),
        list("events"),
        list("matched"),
        one("known_at"),
        one("calendar"),
    ])
}

/// The pieces of states, with the days on which something was there if `days` tells them.
pub(super) fn pieces_of_presence(
    states: &StructArray,
    spans: &Arc<ByCalendar<Spans>>,
    days: Option<&ByCalendar<WindowStarts>>,
) -> Result<ListArray> {
    let pieces = |row: usize| {
        let mut one = There::new(Arc::clone(spans));
        one.take(states.columns(), row);
        one.pieces(days)
    };
    lists(&(0..states.len()).map(pieces).collect::<Vec<_>>(), SCALE)
}

/// The events of one window.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    events: i64,
    matched: i64,
}

/// When something was there.
#[derive(Debug)]
struct There {
    spans: Arc<ByCalendar<Spans>>,
    calendar: Option<i64>,
    /// Start and end of stretches that neither overlap nor meet.
    stretches: BTreeMap<i64, i64>,
    counts: BTreeMap<i64, Counts>,
    /// The first instant at which anything was said.
    known_at: Option<i64>,
}

impl There {
    fn new(spans: Arc<ByCalendar<Spans>>) -> Self {
        let (stretches, counts) = (BTreeMap::new(), BTreeMap::new());
        Self { spans, calendar: None, stretches, counts, known_at: None }
    }

    fn saw(&mut self, at: i64, says: bool) {
        let spans = self.spans.of(self.calendar);
        if let Some(window) = spans.holding(at) {
            let counts = self.counts.entry(window).or_default();
            counts.matched += 1;
            counts.events += i64::from(says);
        }
        if says && at < spans.to {
            self.known_at = Some(self.known_at.map_or(at, |known| known.min(at)));
        }
    }

    /// It was there from one instant to another: what lies in the range of that.
    fn stay(&mut self, at: i64, until: i64) {
        let spans = self.spans.of(self.calendar);
        let (mut start, mut end) = (at.max(spans.from), until.min(spans.to));
        if start >= end {
            return;
        }
        // The last that begins before the end, as long as it reaches the start.
        while let Some((&other, &other_end)) = self.stretches.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            self.stretches.remove(&other);
            (start, end) = (start.min(other), end.max(other_end));
        }
        self.stretches.insert(start, end);
    }

    /// Takes in the state in a row of columns.
    fn take(&mut self, states: &[ArrayRef], row: usize) {
        self.calendar = self.calendar.or(calendar_at(&states[6], row));
        let known_at = states[5].as_primitive::<Int64Type>();
        let known = known_at.is_valid(row).then(|| known_at.value(row));
        self.known_at = self.known_at.into_iter().chain(known).min();
        let lists = states[..5].iter().map(|state| state.as_list::<i32>()).collect::<Vec<_>>();
        if lists[0].is_null(row) {
            return;
        }
        let of_row: Vec<ArrayRef> = lists.iter().map(|list| list.value(row)).collect();
        let integers = |place: usize| of_row[place].as_primitive::<Int64Type>().values();
        for (start, end) in integers(0).iter().zip(integers(1)) {
            self.stay(*start, *end);
        }
        for (place, window) in integers(2).iter().enumerate() {
            let counts = self.counts.entry(*window).or_default();
            counts.events += integers(3)[place];
            counts.matched += integers(4)[place];
        }
    }

    fn pieces(&self, days: Option<&ByCalendar<WindowStarts>>) -> Vec<Piece> {
        let counted = self.counts.keys().next().copied();
        let Some(first) = self.known_at.into_iter().chain(counted).min() else { return Vec::new() };
        let spans = self.spans.of(self.calendar);
        let days = days.map(|days| days.of(self.calendar));
        let mut pieces = Vec::new();
        for window in spans.windows_from(first) {
            let (start, end) = spans.bounds(window);
            let Counts { events, matched } = self.counts.get(&window).copied().unwrap_or_default();
            let value = self.known_at.filter(|known| *known < end).map(|_| match days {
                None => i64::from(self.is_there(end - 1)),
                Some(days) => self.days_there(days, start, end),
            });
            if value.is_some() || matched > 0 {
                pieces.push(Piece { window, value: value.map(i256::from), events, matched });
            }
        }
        pieces
    }

    fn is_there(&self, instant: i64) -> bool {
        self.stretches.range(..=instant).next_back().is_some_and(|(_, end)| *end > instant)
    }

    /// The days of `[start, end)` that a stretch has any time of.
    fn days_there(&self, days: &WindowStarts, start: i64, end: i64) -> i64 {
        let cut = Spans { from: start, to: end, windows: Some(days.clone()) };
        let there = |day: &i64| {
            let (day_start, day_end) = cut.bounds(*day);
            let last = self.stretches.range(..day_end).next_back();
            last.is_some_and(|(_, until)| *until > day_start)
        };
        let count = cut.windows_from(start).filter(there).count();
        i64::try_from(count).unwrap_or(i64::MAX)
    }
}

impl Accumulator for There {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let adds = values[0].as_boolean();
        let integers = |place: usize| cast(&values[place], &DataType::Int64);
        let (at, until) = (integers(1)?, integers(2)?);
        let (at, until) = (at.as_primitive::<Int64Type>(), until.as_primitive::<Int64Type>());
        self.calendar = self.calendar.or(calendar_at(&values[4], 0));
        for row in 0..at.len() {
            self.saw(at.value(row), adds.is_valid(row));
            if adds.is_valid(row) && adds.value(row) {
                let until = if until.is_valid(row) { until.value(row) } else { i64::MAX };
                self.stay(at.value(row), until);
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        (0..states[0].len()).for_each(|row| self.take(states, row));
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let list = |column: Vec<i64>| one_list(Arc::new(Int64Array::from(column)));
        Ok(vec![
            list(self.stretches.keys().copied().collect())?,
            list(self.stretches.values().copied().collect())?,
            list(self.counts.keys().copied().collect())?,
            list(self.counts.values().map(|counts| counts.events).collect())?,
            list(self.counts.values().map(|counts| counts.matched).collect())?,
            ScalarValue::Int64(self.known_at),
            ScalarValue::Int64(self.calendar),
        ])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        one_state(state_fields(), &self.state()?)
    }

    fn size(&self) -> usize {
        // A node of a tree is two thirds full.
        let held = self.stretches.len() * size_of::<(i64, i64)>()
            + self.counts.len() * size_of::<(i64, Counts)>();
        size_of::<Self>() + held * 3 / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there() -> There {
        let windows = Some(WindowStarts::Boundaries(vec![0, 10, 20, 30]));
        There::new(Arc::new(ByCalendar::shared(Spans { from: 0, to: 30, windows })))
    }

    /// Adds at one instant, removed at another.
    fn add(there: &mut There, (at, until): (i64, i64)) {
        there.saw(at, true);
        there.stay(at, until);
    }

    fn values(there: &There) -> Vec<(i64, Option<i256>)> {
        there.pieces(None).iter().map(|piece| (piece.window, piece.value)).collect()
    }

    #[test]
    fn something_is_there_from_its_adding_to_its_removal() {
        let mut one = there();
        add(&mut one, (1, 5));
        add(&mut one, (12, i64::MAX));
        let value = |number: i64| Some(i256::from(number));
        assert_eq!(values(&one), [(0, value(0)), (10, value(1)), (20, value(1))]);
        // Removed in the very instant in which the window ends.
        let mut until_then = there();
        add(&mut until_then, (-4, 10));
        assert_eq!(values(&until_then), [(0, value(1)), (10, value(0)), (20, value(0))]);
        assert_eq!(values(&there()), []);
    }

    #[test]
    fn nothing_is_known_before_the_first_event_that_says_something() {
        let mut one = there();
        one.saw(3, false);
        one.saw(12, true);
        let zero = Some(i256::ZERO);
        assert_eq!(values(&one), [(0, None), (10, zero), (20, zero)]);
    }

    #[test]
    fn days_count_on_which_it_was_there_for_any_time() {
        let forever = i64::MAX;
        for (name, stretches, want) in [
            ("within one day", vec![(1, 2)], [1, 0, 0]),
            ("over midnight", vec![(4, 5)], [1, 0, 0]),
            ("past midnight", vec![(4, 6)], [2, 0, 0]),
            ("for no time", vec![(1, 1)], [0, 0, 0]),
            ("gone and back at once", vec![(-9, 5), (5, forever)], [2, 2, 2]),
            ("carried in", vec![(-9, 11)], [2, 1, 0]),
            ("twice on a day", vec![(1, 2), (3, 4)], [1, 0, 0]),
        ] {
            let mut one = there();
            for stretch in stretches {
                add(&mut one, stretch);
            }
            let days = WindowStarts::Boundaries((0..=6).map(|day| day * 5).collect());
            let pieces = one.pieces(Some(&ByCalendar::shared(days)));
            let got: Vec<i256> = pieces.into_iter().filter_map(|piece| piece.value).collect();
            assert_eq!(got, want.map(i256::from), "{name}");
        }
    }

    #[test]
    fn stretches_are_the_same_in_any_order() {
        let all = [(1, 4), (4, 6), (8, 9), (2, 3), (15, 40), (7, 8), (9, 9)];
        let merged = |order: &[(i64, i64)]| {
            let mut one = there();
            order.iter().for_each(|stretch| add(&mut one, *stretch));
            one.stretches
        };
        let want = BTreeMap::from([(1, 6), (7, 9), (15, 30)]);
        let mut order = all;
        for turn in 0..all.len() {
            order.rotate_left(1);
            assert_eq!(merged(&order), want, "{turn}");
            order.reverse();
            assert_eq!(merged(&order), want, "{turn}, reversed");
            order.reverse();
        }
    }
}
