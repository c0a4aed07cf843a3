//! `present(presence, spans, days)`: how many of the values of a group are there at the end of each
//! window of a question, or, if days are told, the sum of the days of it on which each was there.
//!
//! Its rows are what [`super::presence`] gathered of each value. The state of a group is how those
//! numbers change from window to window: memory goes with the windows, whatever number of values is
//! there in each. The state is the result; [`super::pieces`] makes windows of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type, i256};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

use super::by_calendar::{ByCalendar, Last, calendar_at};
use super::pieces::{Piece, lists};
use super::presence::There;
use super::spans::{Spans, literal_argument, read_parts, read_spans, shared_text_type};
use super::state::{list_field, lists_at, named_state, one_list, one_state};
use crate::time::WindowStarts;

/// Fractional digits of the values.
pub(super) const SCALE: i8 = 0;

/// The days that are counted, if any are.
type Days = Option<ByCalendar<WindowStarts>>;

/// The aggregate.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Present {
    signature: Signature,
    spans: Last<ByCalendar<Spans>>,
    days: Last<Days>,
}

impl Present {
    /// The aggregate.
    pub fn new() -> Self {
        let signature = Signature::user_defined(Volatility::Immutable);
        Self { signature, spans: Last::default(), days: Last::default() }
    }
}

impl Default for Present {
    fn default() -> Self {
        Self::new()
    }
}

impl AggregateUDFImpl for Present {
    fn name(&self) -> &'static str {
        "present"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [state @ DataType::Struct(_), _, _] = arguments else {
            return exec_err!("present takes a state, spans and days");
        };
        Ok(vec![state.clone(), shared_text_type(), shared_text_type()])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(state_fields()))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(named_state(args.name, &state_fields()))
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let spans = self.spans.or_read(&literal_argument(&args, 1)?, read_spans)?;
        let days = self.days.or_read(&literal_argument(&args, 2)?, read_parts)?;
        Ok(Box::new(Counted::new(spans, days)))
    }
}

/// The state of a group as columns.
fn state_fields() -> Fields {
    let list = |name| list_field(name, DataType::Int64);
    let one = |name| Field::new(name, DataType::Int64, true);
    Fields::from(vec![
        list("windows"),
        list("rises"),
        list("parts"),
        list("events"),
        list("matched"),
        one("known_at"),
        one("calendar"),
    ])
}

/// The pieces of states, with the days on which values were there if `days` tells them.
pub(super) fn pieces_of_present(
    states: &StructArray,
    spans: &Arc<ByCalendar<Spans>>,
    days: Days,
) -> Result<ListArray> {
    let days = Arc::new(days);
    let pieces = |row: usize| {
        let mut numbers = Counted::new(Arc::clone(spans), Arc::clone(&days));
        numbers.take(states.columns(), row);
        numbers.pieces()
    };
    lists(&(0..states.len()).map(pieces).collect::<Vec<_>>(), SCALE)
}

/// What changes with a window, and what lies in it alone.
#[derive(Debug, Clone, Copy, Default)]
struct Change {
    /// By how many more values are there than in the window before; where days are told, all the time.
    rise: i64,
    /// The days of values that are there some of the time.
    parts: i64,
    events: i64,
    matched: i64,
}

#[derive(Debug)]
struct Counted {
    spans: Arc<ByCalendar<Spans>>,
    days: Arc<Days>,
    calendar: Option<i64>,
    /// By the start of the window.
    changes: BTreeMap<i64, Change>,
    /// The first instant at which anything was said.
    known_at: Option<i64>,
}

impl Counted {
    fn new(spans: Arc<ByCalendar<Spans>>, days: Arc<Days>) -> Self {
        Self { spans, days, calendar: None, changes: BTreeMap::new(), known_at: None }
    }

    fn add(&mut self, value: &There) {
        self.calendar = self.calendar.or(value.calendar);
        self.known_at = self.known_at.into_iter().chain(value.known_at).min();
        for (window, counts) in &value.counts {
            let change = self.changes.entry(*window).or_default();
            change.events += counts.events;
            change.matched += counts.matched;
        }
        match self.days.as_ref() {
            None => self.add_at_ends(value),
            Some(_) => self.add_days(value),
        }
    }

    /// A stretch counts in each window whose end lies in it.
    fn add_at_ends(&mut self, value: &There) {
        let spans = self.spans.of(self.calendar);
        for (start, end) in &value.stretches {
            for (instant, change) in [(*start, 1), (*end, -1)] {
                // What lasts to the end of the range ends in no window.
                if let Some(window) = spans.holding(instant) {
                    self.changes.entry(window).or_default().rise += change;
                }
            }
        }
    }

    /// A stretch counts for all days of each window between the two that hold its ends; of those two,
    /// the days are counted once, whatever number of stretches has time of them.
    fn add_days(&mut self, value: &There) {
        let spans = self.spans.of(self.calendar);
        let Some(days) = self.days.as_ref().as_ref().map(|days| days.of(self.calendar)) else {
            return;
        };
        let mut touched = BTreeSet::new();
        for (start, end) in &value.stretches {
            let (Some(first), Some(last)) = (spans.holding(*start), spans.holding(end - 1)) else {
                continue;
            };
            touched.extend([first, last]);
            if first != last {
                let (_, next) = spans.bounds(first);
                self.changes.entry(next).or_default().rise += 1;
                self.changes.entry(last).or_default().rise -= 1;
            }
        }
        for window in touched {
            let there = |day: &(i64, i64)| {
                let behind = value.stretches.partition_point(|(start, _)| *start < day.1);
                value.stretches[..behind].last().is_some_and(|(_, until)| *until > day.0)
            };
            let there = days_of(days, spans.bounds(window)).filter(there).count();
            self.changes.entry(window).or_default().parts +=
                i64::try_from(there).unwrap_or(i64::MAX);
        }
    }

    /// Takes in the state in a row of columns.
    fn take(&mut self, states: &[ArrayRef], row: usize) {
        self.calendar = self.calendar.or(calendar_at(&states[6], row));
        let known_at = states[5].as_primitive::<Int64Type>();
        let known = known_at.is_valid(row).then(|| known_at.value(row));
        self.known_at = self.known_at.into_iter().chain(known).min();
        let Some(of_row) = lists_at(&states[..5], row) else { return };
        let integers = |place: usize| of_row[place].as_primitive::<Int64Type>().values();
        for (place, window) in integers(0).iter().enumerate() {
            let change = self.changes.entry(*window).or_default();
            change.rise += integers(1)[place];
            change.parts += integers(2)[place];
            change.events += integers(3)[place];
            change.matched += integers(4)[place];
        }
    }

    fn pieces(&self) -> Vec<Piece> {
        let first = self.known_at.into_iter().chain(self.changes.keys().next().copied()).min();
        let Some(first) = first else { return Vec::new() };
        let spans = self.spans.of(self.calendar);
        let days = self.days.as_ref().as_ref().map(|days| days.of(self.calendar));
        let mut pieces = Vec::new();
        let mut there = 0;
        for window in spans.windows_from(first) {
            let (start, end) = spans.bounds(window);
            let Change { rise, parts, events, matched } =
                self.changes.get(&window).copied().unwrap_or_default();
            there += rise;
            let value = self.known_at.filter(|known| *known < end).map(|_| match days {
                None => there,
                Some(days) => {
                    let days = days_of(days, (start, end)).count();
                    there * i64::try_from(days).unwrap_or(i64::MAX) + parts
                }
            });
            if value.is_some() || matched > 0 {
                pieces.push(Piece { window, value: value.map(i256::from), events, matched });
            }
        }
        pieces
    }
}

/// The days between two instants, cut by them.
fn days_of(days: &WindowStarts, (from, to): (i64, i64)) -> impl Iterator<Item = (i64, i64)> {
    days.between(from, to).map(move |day| (day.max(from), days.end_of(day).min(to)))
}

impl Accumulator for Counted {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(states) = values[0].as_struct_opt() else {
            return exec_err!("present takes a state");
        };
        for row in 0..states.len() {
            let mut value = There::default();
            value.take(&self.spans, states.columns(), row);
            self.add(&value);
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        (0..states[0].len()).for_each(|row| self.take(states, row));
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let list = |column: Vec<i64>| one_list(Arc::new(Int64Array::from(column)));
        let of = |number: fn(&Change) -> i64| list(self.changes.values().map(number).collect());
        Ok(vec![
            list(self.changes.keys().copied().collect())?,
            of(|change| change.rise)?,
            of(|change| change.parts)?,
            of(|change| change.events)?,
            of(|change| change.matched)?,
            ScalarValue::Int64(self.known_at),
            ScalarValue::Int64(self.calendar),
        ])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        one_state(state_fields(), &self.state()?)
    }

    fn size(&self) -> usize {
        // A node of a tree is two thirds full.
        size_of::<Self>() + self.changes.len() * size_of::<(i64, Change)>() * 3 / 2
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Windows of ten instants each, or none, and a range that cuts them, or does not.
    fn spans(from: i64, to: i64, windowed: bool) -> Arc<ByCalendar<Spans>> {
        let windows = WindowStarts::Boundaries(vec![0, 10, 20, 30]);
        let windows = windowed.then_some(windows);
        Arc::new(ByCalendar::shared(Spans { from, to, windows }))
    }

    fn whole() -> Arc<ByCalendar<Spans>> {
        spans(0, 30, true)
    }

    /// Days of five instants.
    fn days() -> Days {
        let days = WindowStarts::Boundaries((0..=6).map(|day| day * 5).collect());
        Some(ByCalendar::shared(days))
    }

    /// A value that is added at one instant and removed at another, several times.
    fn value(spans: &Arc<ByCalendar<Spans>>, stretches: &[(i64, i64)]) -> There {
        let mut there = There::default();
        for (at, until) in stretches {
            there.saw(&spans.otherwise, *at, true);
            there.stay(&spans.otherwise, *at, *until);
        }
        there
    }

    fn counted(spans: &Arc<ByCalendar<Spans>>, values: &[There], days: Days) -> Counted {
        let mut counted = Counted::new(Arc::clone(spans), Arc::new(days));
        values.iter().for_each(|value| counted.add(value));
        counted
    }

    fn values(stretches: &[(i64, i64)], days: Days) -> Vec<(i64, Option<i256>)> {
        let counted = counted(&whole(), &[value(&whole(), stretches)], days);
        counted.pieces().iter().map(|piece| (piece.window, piece.value)).collect()
    }

    #[test]
    fn something_is_there_from_its_adding_to_its_removal() {
        let some = |number: i64| Some(i256::from(number));
        let one = values(&[(1, 5), (12, i64::MAX)], None);
        assert_eq!(one, [(0, some(0)), (10, some(1)), (20, some(1))]);
        // Removed in the very instant in which the window ends.
        let until_then = values(&[(-4, 10)], None);
        assert_eq!(until_then, [(0, some(1)), (10, some(0)), (20, some(0))]);
        assert_eq!(values(&[], None), []);
    }

    #[test]
    fn nothing_is_known_before_the_first_event_that_says_something() {
        let mut one = value(&whole(), &[]);
        one.saw(&whole().otherwise, 3, false);
        one.saw(&whole().otherwise, 12, true);
        let pieces = counted(&whole(), &[one], None).pieces();
        let values: Vec<_> = pieces.iter().map(|piece| (piece.window, piece.value)).collect();
        let zero = Some(i256::ZERO);
        assert_eq!(values, [(0, None), (10, zero), (20, zero)]);
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
            ("away in the middle", vec![(1, 12), (13, 29)], [2, 2, 2]),
        ] {
            let got = values(&stretches, days());
            let got: Vec<i256> = got.into_iter().filter_map(|(_, value)| value).collect();
            assert_eq!(got, want.map(i256::from), "{name}");
        }
    }

    proptest! {
        /// Counted instant by instant.
        #[test]
        fn numbers_of_windows_are_those_of_all_instants(
            values in prop::collection::vec(prop::collection::vec((-5_i64..35, 0_i64..20), 0..4), 0..5),
            (from, to) in (0_i64..15, 15_i64..31),
            windowed in any::<bool>(),
            by_days in any::<bool>(),
        ) {
            let spans = spans(from, to, windowed);
            let days = if by_days { days() } else { None };
            let bounds = |stretches: &Vec<(i64, i64)>| -> Vec<(i64, i64)> {
                stretches.iter().map(|(at, length)| (*at, at + length)).collect()
            };
            let all: Vec<Vec<(i64, i64)>> = values.iter().map(bounds).collect();
            let values: Vec<There> = all.iter().map(|stretches| value(&spans, stretches)).collect();
            let there = |value: &Vec<(i64, i64)>, instant: i64| {
                value.iter().any(|(from, to)| (*from..*to).contains(&instant))
            };
            let cut = |start: i64| match windowed {
                true => (start.max(from), (start + 10).min(to)),
                false => (from, to),
            };
            let known = all.iter().flatten().map(|(at, _)| *at).filter(|at| *at < to).min();
            let windows = if windowed { vec![0, 10, 20] } else { vec![from] };
            let windows = windows.into_iter().filter(|window| {
                let (start, end) = cut(*window);
                start < end && known.is_some_and(|at| at < end)
            });
            let number = |window: i64| {
                let (start, end) = cut(window);
                let of_value = |value: &Vec<(i64, i64)>| match by_days {
                    false => usize::from(there(value, end - 1)),
                    true => {
                        let on = (start..end).filter(|i| there(value, *i)).map(|i| i.div_euclid(5));
                        on.collect::<BTreeSet<i64>>().len()
                    }
                };
                all.iter().map(of_value).sum::<usize>()
            };
            let events = |window: i64| {
                let (start, end) = cut(window);
                all.iter().flatten().filter(|(at, _)| (start..end).contains(at)).count() as i64
            };
            let want: Vec<Piece> = windows
                .map(|window| Piece {
                    window,
                    value: Some(i256::from(number(window) as i64)),
                    events: events(window),
                    matched: events(window),
                })
                .collect();
            prop_assert_eq!(&counted(&spans, &values, days.clone()).pieces(), &want);
            // States that are merged tell the same.
            let mut merged = Counted::new(Arc::clone(&spans), Arc::new(days.clone()));
            for half in values.chunks(2) {
                let mut part = Counted::new(Arc::clone(&spans), Arc::new(days.clone()));
                half.iter().for_each(|value| part.add(value));
                let state: Vec<ArrayRef> =
                    part.state().unwrap().iter().map(|s| s.to_array().unwrap()).collect();
                merged.merge_batch(&state).unwrap();
            }
            prop_assert_eq!(&merged.pieces(), &want);
        }
    }
}
