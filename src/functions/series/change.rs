//! `follow(mode, first, value, at, ingested_at, ordinal, spans, parts, calendar)`: what holds at the
//! end of each window of a question, where every event either sets something or changes it.
//!
//! `first` says which of the two an event does; null is an event that is skipped. Events are taken
//! in the order of their instants, those of one instant in the order of receipt. The state of a
//! group is its events, as a late one may come between any two. All rows of a group are of one
//! calendar.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal256Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{
    DECIMAL256_MAX_PRECISION, DataType, Decimal256Type, Field, FieldRef, Int64Type, i256,
};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

use super::super::sum::OVERFLOW;
use super::area::{one_list, scale_of, wide_of};
use super::by_calendar::{ByCalendar, Last, calendar_at};
use super::pieces::{Piece, list, list_type};
use super::spans::{Spans, literal_argument, read_parts, read_spans};
use crate::time::WindowStarts;

/// What is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A value that is added (first) or removed: 1 where it is there at the end.
    Active,
    /// The same: the number of days (`parts`) on which it was there at some time.
    ActiveDays,
    /// A quantity that is set (first) or changed: the quantity at the end, which begins at nothing
    /// in each of `parts`, if there are any.
    Reported,
}

impl Mode {
    /// The text that says so in a plan.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::ActiveDays => "active_days",
            Self::Reported => "reported",
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        [Self::Active, Self::ActiveDays, Self::Reported]
            .into_iter()
            .find(|mode| mode.as_str() == text)
    }
}

/// The aggregate.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Follow {
    signature: Signature,
    spans: Last<ByCalendar<Spans>>,
    parts: Last<Option<ByCalendar<WindowStarts>>>,
}

impl Follow {
    /// The aggregate.
    pub fn new() -> Self {
        Self {
            signature: Signature::user_defined(Volatility::Immutable),
            spans: Last::default(),
            parts: Last::default(),
        }
    }
}

impl Default for Follow {
    fn default() -> Self {
        Self::new()
    }
}

impl AggregateUDFImpl for Follow {
    fn name(&self) -> &'static str {
        "follow"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [_, _, value, _, _, _, _, _, _] = arguments else {
            return exec_err!("follow takes nine arguments, got {}", arguments.len());
        };
        let instant = crate::schema::timestamp_type();
        Ok(vec![
            DataType::Utf8,
            DataType::Boolean,
            wide_of(value)?,
            instant.clone(),
            instant,
            DataType::Int64,
            DataType::Utf8,
            DataType::Utf8,
            DataType::Int64,
        ])
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(list_type(scale_of(&arguments[2])?))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let list = |name, item| {
            let name = format_state_name(args.name, name);
            Arc::new(Field::new_list(name, Field::new_list_field(item, true), true))
        };
        Ok(vec![
            list("at", DataType::Int64),
            list("ingested_at", DataType::Int64),
            list("ordinal", DataType::Int64),
            list("does", DataType::Int64),
            list("value", args.input_fields[2].data_type().clone()),
            Arc::new(Field::new(format_state_name(args.name, "calendar"), DataType::Int64, true)),
        ])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let mode = literal_argument(&args, 0)?;
        let Some(mode) = Mode::from_text(&mode) else {
            return exec_err!("follow: unknown mode `{mode}`");
        };
        let spans = self.spans.or_read(&literal_argument(&args, 6)?, read_spans)?;
        let parts = self.parts.or_read(&literal_argument(&args, 7)?, read_parts)?;
        let scale = scale_of(args.expr_fields[2].data_type())?;
        Ok(Box::new(Followed { mode, spans, parts, calendar: None, scale, events: Vec::new() }))
    }
}

/// What an event does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Does {
    First,
    Second,
    /// Nothing: it only matched.
    Skipped,
}

impl Does {
    fn code(self) -> i64 {
        match self {
            Self::First => 0,
            Self::Second => 1,
            Self::Skipped => 2,
        }
    }

    fn of_code(code: i64) -> Self {
        match code {
            0 => Self::First,
            1 => Self::Second,
            _ => Self::Skipped,
        }
    }
}

/// An event in the order that matters: by instant, then by receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    at: i64,
    ingested_at: i64,
    ordinal: i64,
    does: Does,
    value: i256,
}

#[derive(Debug)]
struct Followed {
    mode: Mode,
    spans: Arc<ByCalendar<Spans>>,
    parts: Arc<Option<ByCalendar<WindowStarts>>>,
    calendar: Option<i64>,
    scale: i8,
    events: Vec<Event>,
}

impl Followed {
    fn push(&mut self, event: Event) {
        let spans = self.spans.of(self.calendar);
        let skipped_elsewhere = event.does == Does::Skipped && spans.holding(event.at).is_none();
        if event.at < spans.to && !skipped_elsewhere {
            self.events.push(event);
        }
    }

    fn pieces(&mut self) -> Vec<Piece> {
        self.events.sort_unstable();
        let Some(first) = self.events.first().map(|event| event.at) else { return Vec::new() };
        let spans = self.spans.of(self.calendar);
        let parts = (*self.parts).as_ref().map(|parts| parts.of(self.calendar));
        let mut state = State { mode: self.mode, parts, ..State::new() };
        let mut left = self.events.as_slice();
        let mut pieces = Vec::new();
        // What was before the first window.
        let start = spans.windows_from(first).next().map(|start| spans.bounds(start).0);
        for event in take_before(&mut left, start.unwrap_or(i64::MAX)) {
            state.apply(event);
        }
        for window in spans.windows_from(first) {
            let (start, end) = spans.bounds(window);
            let within = take_before(&mut left, end);
            let value = state.pass(within, start, end);
            let matched = i64::try_from(within.len()).unwrap_or(i64::MAX);
            let skipped = within.iter().filter(|event| event.does == Does::Skipped).count();
            let events = matched - i64::try_from(skipped).unwrap_or(0);
            if state.known || matched > 0 {
                let value = state.known.then_some(value);
                pieces.push(Piece { window, value, events, matched });
            }
        }
        pieces
    }
}

/// Takes the events before `end` off the front.
fn take_before<'e>(events: &mut &'e [Event], end: i64) -> &'e [Event] {
    let (before, rest) = events.split_at(events.partition_point(|event| event.at < end));
    *events = rest;
    before
}

/// What holds after the events so far.
struct State<'p> {
    mode: Mode,
    parts: Option<&'p WindowStarts>,
    /// Whether any event set or changed something.
    known: bool,
    active: bool,
    quantity: i256,
    /// Since when the quantity grows: the start of a part.
    since: i64,
}

impl State<'_> {
    fn new() -> Self {
        Self {
            mode: Mode::Active,
            parts: None,
            known: false,
            active: false,
            quantity: i256::ZERO,
            since: i64::MIN,
        }
    }

    fn apply(&mut self, event: &Event) {
        if event.does == Does::Skipped {
            return;
        }
        self.known = true;
        match (self.mode, event.does) {
            (Mode::Active | Mode::ActiveDays, does) => self.active = does == Does::First,
            (Mode::Reported, does) => {
                self.reach(event.at);
                self.quantity = match does {
                    Does::First => event.value,
                    Does::Second | Does::Skipped => plus(self.quantity, event.value),
                };
            }
        }
    }

    /// Begins at nothing where a new part has begun.
    fn reach(&mut self, instant: i64) {
        let Some(parts) = self.parts else { return };
        let start = parts.start_of(instant);
        // Before the first part that is known of.
        let start = if start > instant { i64::MIN } else { start };
        if start != self.since {
            self.quantity = i256::ZERO;
            self.since = start;
        }
    }

    /// The value of the window from `start` to `end`, whose events those are.
    fn pass(&mut self, within: &[Event], start: i64, end: i64) -> i256 {
        match self.mode {
            Mode::Active => {
                within.iter().for_each(|event| self.apply(event));
                i256::from(i64::from(self.active))
            }
            Mode::Reported => {
                within.iter().for_each(|event| self.apply(event));
                self.reach(end.saturating_sub(1));
                self.quantity
            }
            Mode::ActiveDays => i256::from(self.active_days(within, start, end)),
        }
    }

    /// The days of `[start, end)` on which the value was there for any time at all.
    fn active_days(&mut self, within: &[Event], start: i64, end: i64) -> i64 {
        let days = Spans { from: start, to: end, windows: self.parts.cloned() };
        let (mut left, mut count) = (within, 0);
        for day in days.windows_from(start) {
            let (day_start, day_end) = days.bounds(day);
            let mut of_day = take_before(&mut left, day_end);
            let mut there = self.active && of_day.first().is_none_or(|event| event.at > day_start);
            while let Some(first) = of_day.first() {
                // Only what holds after all events of an instant holds for any time.
                for event in take_before(&mut of_day, first.at.saturating_add(1)) {
                    self.apply(event);
                }
                there |= self.active;
            }
            count += i64::from(there);
        }
        count
    }
}

/// A sum that stays the mark of an overflow once it is one.
fn plus(a: i256, b: i256) -> i256 {
    if a == OVERFLOW || b == OVERFLOW {
        return OVERFLOW;
    }
    a.checked_add(b).unwrap_or(OVERFLOW)
}

impl Accumulator for Followed {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let first = values[1].as_boolean();
        let value = values[2].as_primitive::<Decimal256Type>();
        let integers = |place: usize| cast(&values[place], &DataType::Int64);
        let (at, ingested, ordinal) = (integers(3)?, integers(4)?, integers(5)?);
        let at = at.as_primitive::<Int64Type>();
        let ingested = ingested.as_primitive::<Int64Type>();
        let ordinal = ordinal.as_primitive::<Int64Type>();
        self.calendar = self.calendar.or(calendar_at(&values[8], 0));
        for row in 0..at.len() {
            let needs_value = self.mode == Mode::Reported;
            let does = match first.is_valid(row) && (value.is_valid(row) || !needs_value) {
                false => Does::Skipped,
                true if first.value(row) => Does::First,
                true => Does::Second,
            };
            let value = if value.is_valid(row) { value.value(row) } else { i256::ZERO };
            self.push(Event {
                at: at.value(row),
                ingested_at: ingested.value(row),
                ordinal: ordinal.value(row),
                does,
                value,
            });
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let lists = states[..5].iter().map(|state| state.as_list::<i32>()).collect::<Vec<_>>();
        for row in 0..lists[0].len() {
            self.calendar = self.calendar.or(calendar_at(&states[5], row));
            if lists[0].is_null(row) {
                continue;
            }
            let of_row: Vec<ArrayRef> = lists.iter().map(|list| list.value(row)).collect();
            let integers = |place: usize| of_row[place].as_primitive::<Int64Type>().values();
            let value = of_row[4].as_primitive::<Decimal256Type>().values();
            for place in 0..value.len() {
                self.events.push(Event {
                    at: integers(0)[place],
                    ingested_at: integers(1)[place],
                    ordinal: integers(2)[place],
                    does: Does::of_code(integers(3)[place]),
                    value: value[place],
                });
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let integers = |of: fn(&Event) -> i64| {
            one_list(Arc::new(
                self.events.iter().map(|event| Some(of(event))).collect::<Int64Array>(),
            ))
        };
        let values = Decimal256Array::from_iter_values(self.events.iter().map(|event| event.value));
        let values = values.with_precision_and_scale(DECIMAL256_MAX_PRECISION, self.scale)?;
        Ok(vec![
            integers(|event| event.at)?,
            integers(|event| event.ingested_at)?,
            integers(|event| event.ordinal)?,
            integers(|event| event.does.code())?,
            one_list(Arc::new(values))?,
            ScalarValue::Int64(self.calendar),
        ])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let pieces = self.pieces();
        list(pieces, self.scale)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.events.capacity() * size_of::<Event>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(mode: Mode, parts: Option<Vec<i64>>, events: &[(i64, Does, i64)]) -> Followed {
        let windows = Some(WindowStarts::Boundaries(vec![0, 10, 20, 30]));
        let mut followed = Followed {
            mode,
            spans: Arc::new(ByCalendar::shared(Spans { from: 0, to: 30, windows })),
            parts: Arc::new(parts.map(WindowStarts::Boundaries).map(ByCalendar::shared)),
            calendar: None,
            scale: 0,
            events: Vec::new(),
        };
        for (ordinal, (at, does, value)) in events.iter().enumerate() {
            followed.push(Event {
                at: *at,
                ingested_at: 0,
                ordinal: i64::try_from(ordinal).unwrap(),
                does: *does,
                value: i256::from(*value),
            });
        }
        followed
    }

    fn values(mut followed: Followed) -> Vec<(i64, Option<i64>)> {
        let pieces = followed.pieces();
        let value =
            |piece: &Piece| piece.value.and_then(i256::to_i128).map(|v| v.try_into().unwrap());
        pieces.iter().map(|piece| (piece.window, value(piece))).collect()
    }

    #[test]
    fn what_was_set_is_moved_by_later_changes() {
        use Does::{First, Second, Skipped};
        let events =
            [(-3, First, 5), (2, Second, 2), (2, First, 1), (12, Second, 4), (13, Skipped, 9)];
        let want = vec![(0, Some(1)), (10, Some(5)), (20, Some(5))];
        assert_eq!(values(followed(Mode::Reported, None, &events)), want);
        let late_set = [(2, Second, 2), (5, Second, 3), (4, First, 10)];
        let want = vec![(0, Some(13)), (10, Some(13)), (20, Some(13))];
        assert_eq!(values(followed(Mode::Reported, None, &late_set)), want);
    }

    #[test]
    fn a_quantity_begins_anew_in_each_part() {
        use Does::{First, Second};
        let events = [(-3, First, 5), (2, Second, 2), (12, Second, 4), (25, Second, 1)];
        let parts = Some(vec![0, 20, 40]);
        let want = vec![(0, Some(2)), (10, Some(6)), (20, Some(1))];
        assert_eq!(values(followed(Mode::Reported, parts, &events)), want);
        // Nothing reported since the beginning of a part is seen as nothing.
        let want = vec![(0, Some(2)), (10, Some(6)), (20, Some(0))];
        assert_eq!(values(followed(Mode::Reported, Some(vec![0, 20, 40]), &events[..3])), want);
    }

    #[test]
    fn a_value_is_there_from_its_adding_to_its_removal() {
        use Does::{First, Second};
        let events = [(1, First, 0), (5, Second, 0), (12, First, 0)];
        let want = vec![(0, Some(0)), (10, Some(1)), (20, Some(1))];
        assert_eq!(values(followed(Mode::Active, None, &events)), want);
        assert_eq!(values(followed(Mode::Active, None, &[])), vec![]);
    }

    #[test]
    fn days_count_on_which_it_was_there_for_any_time() {
        use Does::{First, Second};
        let days = || Some((0..=6).map(|day| day * 5).collect::<Vec<i64>>());
        for (name, events, want) in [
            ("within one day", vec![(1, First, 0), (2, Second, 0)], [1, 0, 0]),
            ("over midnight", vec![(4, First, 0), (5, Second, 0)], [1, 0, 0]),
            ("past midnight", vec![(4, First, 0), (6, Second, 0)], [2, 0, 0]),
            ("for no time", vec![(1, First, 0), (1, Second, 0)], [0, 0, 0]),
            (
                "gone and back at once",
                vec![(-9, First, 0), (5, Second, 0), (5, First, 0)],
                [2, 2, 2],
            ),
            ("carried in", vec![(-9, First, 0), (11, Second, 0)], [2, 1, 0]),
        ] {
            let got: Vec<i64> = values(followed(Mode::ActiveDays, days(), &events))
                .into_iter()
                .filter_map(|p| p.1)
                .collect();
            assert_eq!(got, want, "{name}");
        }
    }
}
