//! `presence(adds, at, until, spans, calendar)`: when something was there within the range of a question.
//!
//! An event that adds makes it be there from one instant to another, or for good; one that removes
//! only tells that it is known of, and null is an event that is skipped. The state of a group is the
//! stretches of time in which it was there, those that meet made one, so the order of events is of no
//! matter. All rows of a group are of one calendar. The state is the result; [`super::present`] counts
//! what is there in each window.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

use super::by_calendar::{ByCalendar, Last, calendar_at};
use super::spans::{Spans, literal_argument, read_spans, shared_text_type};
use super::state::{list_field, lists_at, named_state, one_list, one_state};

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

/// The events of one window.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) events: i64,
    pub(super) matched: i64,
}

/// When something was there.
#[derive(Debug)]
pub(super) struct There {
    spans: Arc<ByCalendar<Spans>>,
    pub(super) calendar: Option<i64>,
    /// Start and end of stretches within the range that neither overlap nor meet.
    pub(super) stretches: BTreeMap<i64, i64>,
    /// By the start of the window.
    pub(super) counts: BTreeMap<i64, Counts>,
    /// The first instant at which anything was said.
    pub(super) known_at: Option<i64>,
}

impl There {
    pub(super) fn new(spans: Arc<ByCalendar<Spans>>) -> Self {
        let (stretches, counts) = (BTreeMap::new(), BTreeMap::new());
        Self { spans, calendar: None, stretches, counts, known_at: None }
    }

    pub(super) fn saw(&mut self, at: i64, says: bool) {
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
    pub(super) fn stay(&mut self, at: i64, until: i64) {
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
    pub(super) fn take(&mut self, states: &[ArrayRef], row: usize) {
        self.calendar = self.calendar.or(calendar_at(&states[6], row));
        let known_at = states[5].as_primitive::<Int64Type>();
        let known = known_at.is_valid(row).then(|| known_at.value(row));
        self.known_at = self.known_at.into_iter().chain(known).min();
        let Some(of_row) = lists_at(&states[..5], row) else { return };
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
    use crate::time::WindowStarts;

    fn there() -> There {
        let windows = Some(WindowStarts::Boundaries(vec![0, 10, 20, 30]));
        There::new(Arc::new(ByCalendar::shared(Spans { from: 0, to: 30, windows })))
    }

    /// Adds at one instant, removed at another.
    fn add(there: &mut There, (at, until): (i64, i64)) {
        there.saw(at, true);
        there.stay(at, until);
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
