//! The exact number of distinct texts per group.
//!
//! Every text is kept once per accumulator and named by a number, whatever the number of groups.
//! Used where several aggregates share a scan; alone, a plan groups twice instead, which spills.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, StringBuilder};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

use super::single::SingleGroup;

/// `count_unique(text)` as a DataFusion aggregate; null is no value, the empty text is one.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct CountUnique {
    signature: Signature,
}

impl CountUnique {
    /// The aggregate.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for CountUnique {
    fn default() -> Self {
        Self::new()
    }
}

impl AggregateUDFImpl for CountUnique {
    fn name(&self) -> &'static str {
        "count_unique"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Null] => {
                Ok(vec![DataType::Utf8])
            }
            other => exec_err!("count_unique takes one text, got {other:?}"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn default_value(&self, _: &DataType) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64(Some(0)))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let name = format_state_name(args.name, "values");
        Ok(vec![Arc::new(Field::new_list(name, Field::new_list_field(DataType::Utf8, true), true))])
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(
        &self,
        _: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(UniqueGroups::default()))
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(SingleGroup::new(self.create_groups_accumulator(args)?)))
    }
}

#[derive(Default)]
struct UniqueGroups {
    names: HashMap<Arc<str>, usize>,
    texts: Vec<Arc<str>>,
    text_bytes: usize,
    members: HashSet<(usize, usize)>,
    groups: usize,
}

impl UniqueGroups {
    fn add(&mut self, group: usize, text: &str) {
        let name = match self.names.get(text) {
            Some(name) => *name,
            None => {
                let text: Arc<str> = text.into();
                self.text_bytes += text.len();
                self.texts.push(Arc::clone(&text));
                self.names.insert(text, self.texts.len() - 1);
                self.texts.len() - 1
            }
        };
        self.members.insert((group, name));
    }

    /// Takes the members of the groups to emit, by group; the others move down.
    fn take(&mut self, emit_to: EmitTo) -> Vec<Vec<usize>> {
        let emitted = match emit_to {
            EmitTo::All => self.groups,
            EmitTo::First(n) => n,
        };
        let mut by_group = vec![Vec::new(); emitted];
        let mut rest = HashSet::new();
        for (group, name) in std::mem::take(&mut self.members) {
            match by_group.get_mut(group) {
                Some(members) => members.push(name),
                None => {
                    rest.insert((group - emitted, name));
                }
            }
        }
        self.members = rest;
        self.groups -= emitted;
        by_group
    }

    /// Forgets texts that no group holds any more.
    fn release_texts(&mut self) {
        if self.members.is_empty() {
            self.names = HashMap::new();
            self.texts = Vec::new();
            self.text_bytes = 0;
        }
    }
}

impl GroupsAccumulator for UniqueGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups = total_num_groups;
        let texts = cast(&values[0], &DataType::Utf8)?;
        for (row, text) in texts.as_string::<i32>().iter().enumerate() {
            let kept = opt_filter.is_none_or(|f| f.is_valid(row) && f.value(row));
            if let Some(text) = text.filter(|_| kept) {
                self.add(group_indices[row], text);
            }
        }
        Ok(())
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups = total_num_groups;
        for (&group, members) in group_indices.iter().zip(values[0].as_list::<i32>().iter()) {
            let Some(members) = members else { continue };
            for text in members.as_string::<i32>().iter().flatten() {
                self.add(group, text);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let by_group = self.take(emit_to);
        self.release_texts();
        let counts = by_group.iter().map(|members| i64::try_from(members.len()).ok());
        Ok(Arc::new(counts.collect::<Int64Array>()))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let by_group = self.take(emit_to);
        let offsets = OffsetBuffer::from_lengths(by_group.iter().map(Vec::len));
        let mut texts = StringBuilder::new();
        for name in by_group.into_iter().flatten() {
            texts.append_value(&self.texts[name]);
        }
        self.release_texts();
        let item = Arc::new(Field::new_list_field(DataType::Utf8, true));
        Ok(vec![Arc::new(ListArray::try_new(item, offsets, Arc::new(texts.finish()), None)?)])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let mut rows = Self::default();
        let all: Vec<usize> = (0..values[0].len()).collect();
        rows.update_batch(values, &all, opt_filter, all.len())?;
        rows.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        // Two words of table and two of the shared text's counters per entry, beside the bytes.
        const TEXT_OVERHEAD: usize = 64;
        self.text_bytes
            + self.texts.capacity() * TEXT_OVERHEAD
            + self.members.capacity() * (size_of::<(usize, usize)>() + 1)
    }
}
