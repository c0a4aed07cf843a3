//! `presence(adds, at, until, spans, calendar)`: when something was there within the range of a question.
//!
//! An event that adds makes it be there from one instant to another, or for good; one that removes
//! only tells that it is known of, and null is an event that is skipped. The state of a group is the
//! stretches of time in which it was there, those that meet made one, so the order of events is of no
//! matter. All rows of a group are of one calendar. The state is the result; [`super::present`] counts
//! what is there in each window.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

use super::super::single::SingleGroup;
use super::by_calendar::{ByCalendar, Last, calendar_at};
use super::spans::{Spans, literal_argument, read_spans, shared_text_type};
use super::state::{list_column, list_field, lists_at, named_state};

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

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    /// Values that come and go are many, each a group of a few events.
    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let spans = self.spans.or_read(&literal_argument(&args, 3)?, read_spans)?;
        Ok(Box::new(Groups { spans, groups: Vec::new(), held_bytes: 0 }))
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(SingleGroup::new(self.create_groups_accumulator(args)?)))
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

/// The events of one window.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) events: i64,
    pub(super) matched: i64,
}

/// When something was there.
#[derive(Debug, Default)]
pub(super) struct There {
    pub(super) calendar: Option<i64>,
    /// Start and end of stretches within the range that neither overlap nor meet, in order.
    pub(super) stretches: Vec<(i64, i64)>,
    /// By the start of the window, in order.
    pub(super) counts: Vec<(i64, Counts)>,
    /// The first instant at which anything was said.
    pub(super) known_at: Option<i64>,
}

impl There {
    pub(super) fn saw(&mut self, spans: &Spans, at: i64, says: bool) {
        if let Some(window) = spans.holding(at) {
            let counts = self.counts_of(window);
            counts.matched += 1;
            counts.events += i64::from(says);
        }
        if says && at < spans.to {
            self.known_at = Some(self.known_at.map_or(at, |known| known.min(at)));
        }
    }

    fn counts_of(&mut self, window: i64) -> &mut Counts {
        let place = self.counts.partition_point(|(other, _)| *other < window);
        if self.counts.get(place).is_none_or(|(other, _)| *other != window) {
            self.counts.insert(place, (window, Counts::default()));
        }
        &mut self.counts[place].1
    }

    /// It was there from one instant to another: what lies in the range of that.
    pub(super) fn stay(&mut self, spans: &Spans, at: i64, until: i64) {
        let (mut start, mut end) = (at.max(spans.from), until.min(spans.to));
        if start >= end {
            return;
        }
        // Those that overlap or meet it become one with it.
        let first = self.stretches.partition_point(|(_, other_end)| *other_end < start);
        let behind = self.stretches.partition_point(|(other, _)| *other <= end);
        if let Some((other, _)) = self.stretches.get(first).filter(|_| first < behind) {
            start = start.min(*other);
            end = end.max(self.stretches[behind - 1].1);
        }
        drop(self.stretches.splice(first..behind.max(first), [(start, end)]));
    }

    /// Takes in the state in a row of columns.
    pub(super) fn take(&mut self, spans: &ByCalendar<Spans>, states: &[ArrayRef], row: usize) {
        self.calendar = self.calendar.or(calendar_at(&states[6], row));
        let known_at = states[5].as_primitive::<Int64Type>();
        let known = known_at.is_valid(row).then(|| known_at.value(row));
        self.known_at = self.known_at.into_iter().chain(known).min();
        let Some(of_row) = lists_at(&states[..5], row) else { return };
        let integers = |place: usize| of_row[place].as_primitive::<Int64Type>().values();
        let spans = spans.of(self.calendar);
        for (start, end) in integers(0).iter().zip(integers(1)) {
            self.stay(spans, *start, *end);
        }
        for (place, window) in integers(2).iter().enumerate() {
            let counts = self.counts_of(*window);
            counts.events += integers(3)[place];
            counts.matched += integers(4)[place];
        }
    }

    fn held_bytes(&self) -> usize {
        self.stretches.capacity() * size_of::<(i64, i64)>()
            + self.counts.capacity() * size_of::<(i64, Counts)>()
    }
}

struct Groups {
    spans: Arc<ByCalendar<Spans>>,
    groups: Vec<There>,
    /// What the groups hold beside themselves.
    held_bytes: usize,
}

impl Groups {
    /// The group that a row is of, for something to be done to it.
    fn change(&mut self, group: usize, change: impl FnOnce(&mut There, &ByCalendar<Spans>)) {
        let there = &mut self.groups[group];
        let before = there.held_bytes();
        change(there, &self.spans);
        self.held_bytes = (self.held_bytes + there.held_bytes()).saturating_sub(before);
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<There> {
        let taken = emit_to.take_needed(&mut self.groups);
        let bytes: usize = taken.iter().map(There::held_bytes).sum();
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
        taken
    }
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, There::default);
        let adds = values[0].as_boolean();
        let integers = |place: usize| cast(&values[place], &DataType::Int64);
        let (at, until) = (integers(1)?, integers(2)?);
        let (at, until) = (at.as_primitive::<Int64Type>(), until.as_primitive::<Int64Type>());
        for (row, &group) in group_indices.iter().enumerate() {
            if opt_filter.is_some_and(|filter| filter.is_null(row) || !filter.value(row)) {
                continue;
            }
            self.change(group, |there, spans| {
                there.calendar = there.calendar.or(calendar_at(&values[4], row));
                let spans = spans.of(there.calendar);
                there.saw(spans, at.value(row), adds.is_valid(row));
                if adds.is_valid(row) && adds.value(row) {
                    let until = if until.is_valid(row) { until.value(row) } else { i64::MAX };
                    there.stay(spans, at.value(row), until);
                }
            });
        }
        Ok(())
    }

    fn merge_batch(
        &mut self,
        states: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, There::default);
        for (row, &group) in group_indices.iter().enumerate() {
            self.change(group, |there, spans| there.take(spans, states, row));
        }
        Ok(())
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let groups = self.take(emit_to);
        let stretches = |part: fn(&(i64, i64)) -> i64| {
            list_column(groups.iter().map(|there| there.stretches.iter().map(part)))
        };
        let counts = |part: fn(&(i64, Counts)) -> i64| {
            list_column(groups.iter().map(|there| there.counts.iter().map(part)))
        };
        let one = |part: fn(&There) -> Option<i64>| -> ArrayRef {
            Arc::new(groups.iter().map(part).collect::<Int64Array>())
        };
        Ok(vec![
            stretches(|stretch| stretch.0)?,
            stretches(|stretch| stretch.1)?,
            counts(|of_window| of_window.0)?,
            counts(|of_window| of_window.1.events)?,
            counts(|of_window| of_window.1.matched)?,
            one(|there| there.known_at),
            one(|there| there.calendar),
        ])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let rows: Vec<usize> = (0..values[0].len()).collect();
        let mut each = Self { spans: Arc::clone(&self.spans), groups: Vec::new(), held_bytes: 0 };
        each.update_batch(values, &rows, opt_filter, rows.len())?;
        each.state(EmitTo::All)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(Arc::new(StructArray::try_new(state_fields(), self.state(emit_to)?, None)?))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.groups.capacity() * size_of::<There>() + self.held_bytes
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampMicrosecondArray;
    use proptest::prelude::*;

    use super::*;
    use crate::time::WindowStarts;

    #[test]
    fn stretches_are_the_same_in_any_order() {
        let all = [(1, 4), (4, 6), (8, 9), (2, 3), (15, 40), (7, 8), (9, 9)];
        let spans = Spans { from: 0, to: 30, windows: None };
        let merged = |order: &[(i64, i64)]| {
            let mut one = There::default();
            order.iter().for_each(|(at, until)| one.stay(&spans, *at, *until));
            one.stretches
        };
        let want = [(1, 6), (7, 9), (15, 30)];
        let mut order = all;
        for turn in 0..all.len() {
            order.rotate_left(1);
            assert_eq!(merged(&order), want, "{turn}");
            order.reverse();
            assert_eq!(merged(&order), want, "{turn}, reversed");
            order.reverse();
        }
    }

    /// An event: its group, whether it adds, its instant, and until when it holds.
    type Event = (usize, Option<bool>, i64, Option<i64>);

    const GROUPS: usize = 5;

    fn groups() -> Groups {
        let windows = WindowStarts::Boundaries([0, 10, 20, 30, 40, 50].into());
        let spans = Spans { from: 0, to: 50, windows: Some(windows) };
        let spans = Arc::new(ByCalendar::shared(spans));
        Groups { spans, groups: Vec::new(), held_bytes: 0 }
    }

    fn columns(events: &[Event]) -> Vec<ArrayRef> {
        let instants = |of: fn(&Event) -> Option<i64>| -> ArrayRef {
            Arc::new(
                events.iter().map(of).collect::<TimestampMicrosecondArray>().with_timezone("UTC"),
            )
        };
        let adds: BooleanArray = events.iter().map(|event| event.1).collect();
        let calendars: Int64Array = events.iter().map(|_| None).collect();
        let none: Int64Array = events.iter().map(|_| None).collect();
        let (at, until) = (instants(|event| Some(event.2)), instants(|event| event.3));
        vec![Arc::new(adds), at, until, Arc::new(none), Arc::new(calendars)]
    }

    fn places(events: &[Event]) -> Vec<usize> {
        events.iter().map(|event| event.0).collect()
    }

    /// What each group comes to, in order.
    fn states(groups: &mut Groups, emits: &[EmitTo]) -> Vec<String> {
        let mut rows = Vec::new();
        for emit_to in emits {
            let columns = groups.state(*emit_to).unwrap();
            for row in 0..columns[0].len() {
                let cells = columns.iter().map(|column| format!("{:?}", column.slice(row, 1)));
                rows.push(cells.collect::<String>());
            }
        }
        rows
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = (0..GROUPS, proptest::option::of(any::<bool>()), 0..60_i64, 0..60_i64);
        let held = event.prop_map(|(group, adds, at, until)| {
            (group, adds, at, (until % 7 != 0).then_some(at + until))
        });
        proptest::collection::vec(held, 0..40)
    }

    proptest! {
        #[test]
        fn groups_are_the_same_however_the_engine_goes_about_it(
            events in events(),
            cut in 0..40_usize,
            first in 0..=GROUPS,
            kept in proptest::collection::vec(proptest::option::of(any::<bool>()), 40),
        ) {
            let (all, one_by_one) = ([EmitTo::All], [EmitTo::First(first), EmitTo::All]);
            let mut whole = groups();
            whole.update_batch(&columns(&events), &places(&events), None, GROUPS).unwrap();
            let empty = whole.held_bytes;
            let want = states(&mut whole, &all);
            prop_assert_eq!(want.len(), GROUPS);
            prop_assert_eq!(whole.held_bytes, 0, "{} bytes at first", empty);

            // Batch by batch, and the first groups given away before the others.
            let (before, after) = events.split_at(cut.min(events.len()));
            let mut parts = groups();
            for part in [before, after] {
                parts.update_batch(&columns(part), &places(part), None, GROUPS).unwrap();
            }
            prop_assert_eq!(&states(&mut parts, &one_by_one), &want);

            // States of single rows, merged.
            let mut merged = groups();
            for part in [before, after] {
                let of_rows = groups().convert_to_state(&columns(part), None).unwrap();
                merged.merge_batch(&of_rows, &places(part), GROUPS).unwrap();
            }
            prop_assert_eq!(&states(&mut merged, &all), &want);

            // Rows that a filter leaves out are as if they were not there, in both ways.
            let filter: BooleanArray = kept.iter().take(events.len()).copied().collect();
            let is_kept = |place: &usize| kept[*place] == Some(true);
            let rest: Vec<Event> =
                (0..events.len()).filter(is_kept).map(|place| events[place]).collect();
            let mut without = groups();
            without.update_batch(&columns(&rest), &places(&rest), None, GROUPS).unwrap();
            let want = states(&mut without, &all);
            let mut filtered = groups();
            let (given, of) = (columns(&events), places(&events));
            filtered.update_batch(&given, &of, Some(&filter), GROUPS).unwrap();
            prop_assert_eq!(&states(&mut filtered, &all), &want);
            let of_rows = groups().convert_to_state(&given, Some(&filter)).unwrap();
            let mut merged = groups();
            merged.merge_batch(&of_rows, &of, GROUPS).unwrap();
            prop_assert_eq!(&states(&mut merged, &all), &want);
        }
    }
}
