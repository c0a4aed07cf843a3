//! An aggregate without groups, in terms of the one that has groups.

use std::sync::{Mutex, PoisonError};

use arrow::array::ArrayRef;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

/// One group of a [`GroupsAccumulator`].
pub(crate) struct SingleGroup {
    /// Never contended: the lock only makes it shareable, as an accumulator must be.
    groups: Mutex<Box<dyn GroupsAccumulator>>,
    /// A place of group numbers, all 0, as long as the longest batch so far.
    zeros: Vec<usize>,
}

impl SingleGroup {
    pub(crate) fn new(groups: Box<dyn GroupsAccumulator>) -> Self {
        Self { groups: Mutex::new(groups), zeros: Vec::new() }
    }

    fn groups(&mut self) -> &mut dyn GroupsAccumulator {
        self.groups.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut()
    }

    fn merge(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = states.first().map_or(0, |state| state.len());
        if rows == 0 {
            return Ok(());
        }
        self.zeros.resize(self.zeros.len().max(rows), 0);
        let groups = self.groups.get_mut().unwrap_or_else(PoisonError::into_inner);
        groups.merge_batch(states, &self.zeros[..rows], 1)
    }
}

impl std::fmt::Debug for SingleGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SingleGroup")
    }
}

impl Accumulator for SingleGroup {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, |value| value.len());
        // An accumulator with groups takes it that each group it is told of has a row.
        if rows == 0 {
            return Ok(());
        }
        self.zeros.resize(self.zeros.len().max(rows), 0);
        let groups = self.groups.get_mut().unwrap_or_else(PoisonError::into_inner);
        groups.update_batch(values, &self.zeros[..rows], None, 1)
    }

    /// Window frames ask again and again, so what was accumulated stays.
    fn evaluate(&mut self) -> Result<ScalarValue> {
        // Grows the group, in case there was no row at all.
        self.update_nothing()?;
        let state = self.groups().state(EmitTo::All)?;
        self.merge(&state)?;
        let value = self.groups().evaluate(EmitTo::All)?;
        self.merge(&state)?;
        ScalarValue::try_from_array(&value, 0)
    }

    fn size(&self) -> usize {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).size()
            + self.zeros.capacity() * size_of::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.update_nothing()?;
        let state = self.groups().state(EmitTo::All)?;
        state.iter().map(|array| ScalarValue::try_from_array(array, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.merge(states)
    }
}

impl SingleGroup {
    fn update_nothing(&mut self) -> Result<()> {
        let state = self.groups().state(EmitTo::All)?;
        match state.first() {
            Some(array) if !array.is_empty() => self.merge(&state),
            _ => {
                let empty: Vec<ArrayRef> =
                    state.iter().map(|s| arrow::array::new_null_array(s.data_type(), 1)).collect();
                self.merge(&empty)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use arrow::datatypes::DataType;

    use super::*;
    use crate::functions::sum::sum_groups;

    #[test]
    fn batches_without_rows_leave_a_sum_of_nothing_null() {
        let sums = sum_groups(&DataType::Int64, DataType::Decimal128(38, 0), false).unwrap();
        let mut single = SingleGroup::new(sums);
        let rows = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
        single.update_batch(&[rows(vec![])]).unwrap();
        assert!(single.evaluate().unwrap().is_null());
        single.update_batch(&[rows(vec![2, 3])]).unwrap();
        single.update_batch(&[rows(vec![])]).unwrap();
        assert_eq!(single.evaluate().unwrap(), ScalarValue::Decimal128(Some(5), 38, 0));
        // Asking does not use it up.
        assert_eq!(single.evaluate().unwrap(), ScalarValue::Decimal128(Some(5), 38, 0));
    }
}
