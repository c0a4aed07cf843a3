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
    use super::*;

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
}
