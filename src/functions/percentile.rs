//! The exact percentile: the smallest value that at least a share of all values do not exceed.
//!
//! Arguments: value, the share in millionths of a percent as a literal, and, where a row stands for
//! several, how often the value came. Discrete, so the answer is a value that occurs. Every distinct
//! value is kept with how often it came, so memory goes with the distinct values of a group and not
//! with its events.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, ListArray, PrimitiveArray,
    PrimitiveBuilder, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{
    DataType, Decimal128Type, Decimal256Type, Field, FieldRef, Int64Type, UInt64Type,
};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use datafusion::physical_expr::expressions::Literal;

use super::single::SingleGroup;
use crate::meter::Percent;

/// `percentile(value, millionths[, times])` as a DataFusion aggregate.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Percentile {
    signature: Signature,
}

impl Percentile {
    /// The aggregate.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for Percentile {
    fn default() -> Self {
        Self::new()
    }
}

impl AggregateUDFImpl for Percentile {
    fn name(&self) -> &'static str {
        "percentile"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let ([value, _] | [value, _, _]) = arguments else {
            return exec_err!(
                "percentile takes a value, a share and perhaps how often, got {}",
                arguments.len()
            );
        };
        let value = match value {
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Null => DataType::Int64,
            DataType::Int64 | DataType::Decimal128(..) | DataType::Decimal256(..) => value.clone(),
            other => return exec_err!("percentile takes exact numbers, got {other}"),
        };
        Ok(std::iter::once(value).chain(vec![DataType::Int64; arguments.len() - 1]).collect())
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let list = |name, item| {
            let name = format_state_name(args.name, name);
            Arc::new(Field::new_list(name, Field::new_list_field(item, true), true))
        };
        Ok(vec![list("values", args.return_type().clone()), list("times", DataType::UInt64)])
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        if args.is_distinct {
            return exec_err!("percentile counts every value: DISTINCT has no meaning there");
        }
        let share = share(&args)?;
        let out = args.return_field.data_type().clone();
        Ok(match out {
            DataType::Int64 => Box::new(Groups::<Int64Type>::new(share, out)),
            DataType::Decimal128(..) => Box::new(Groups::<Decimal128Type>::new(share, out)),
            DataType::Decimal256(..) => Box::new(Groups::<Decimal256Type>::new(share, out)),
            other => return exec_err!("percentile of {other}"),
        })
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(SingleGroup::new(self.create_groups_accumulator(args)?)))
    }
}

/// The share that the second argument says.
fn share(args: &AccumulatorArgs<'_>) -> Result<Percent> {
    let literal = args.exprs.get(1).and_then(|expr| expr.downcast_ref::<Literal>());
    let found = match literal.map(Literal::value) {
        Some(ScalarValue::Int64(Some(share))) => u32::try_from(*share).ok(),
        _ => None,
    };
    match found.and_then(Percent::from_millionths) {
        Some(share) => Ok(share),
        None => exec_err!(
            "percentile: the share is {literal:?}, not 1 to {} millionths of a percent",
            Percent::WHOLE
        ),
    }
}

struct Groups<T: ArrowPrimitiveType> {
    share: Percent,
    out: DataType,
    /// How often each value came, by group.
    times: Vec<HashMap<T::Native, u64>>,
    /// Places of all these maps together.
    places: usize,
}

impl<T: ArrowPrimitiveType> Groups<T>
where
    T::Native: Hash + Ord,
{
    fn new(share: Percent, out: DataType) -> Self {
        Self { share, out, times: Vec::new(), places: 0 }
    }

    fn add(&mut self, group: usize, value: T::Native, times: u64) -> Result<()> {
        let of_group = &mut self.times[group];
        let before = of_group.capacity();
        let came = of_group.entry(value).or_default();
        let Some(sum) = came.checked_add(times) else {
            return exec_err!("percentile: a value comes more than {} times", u64::MAX);
        };
        *came = sum;
        self.places += of_group.capacity() - before;
        Ok(())
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<HashMap<T::Native, u64>> {
        let taken = emit_to.take_needed(&mut self.times);
        self.places -= taken.iter().map(HashMap::capacity).sum::<usize>();
        taken
    }

    /// The value at the share, of values and how often each came.
    fn at_share(&self, times: HashMap<T::Native, u64>) -> Option<T::Native> {
        // No group has as many values as would make this overflow.
        let all: u128 = times.values().map(|times| u128::from(*times)).sum();
        let wanted =
            (all * u128::from(self.share.millionths())).div_ceil(u128::from(Percent::WHOLE));
        let mut sorted: Vec<(T::Native, u64)> = times.into_iter().collect();
        sorted.sort_unstable_by_key(|(value, _)| *value);
        let mut reached = 0;
        let found = sorted.into_iter().find(|(_, times)| {
            reached += u128::from(*times);
            reached >= wanted
        });
        found.map(|(value, _)| value)
    }
}

impl<T: ArrowPrimitiveType + Send> GroupsAccumulator for Groups<T>
where
    T::Native: Hash + Ord,
{
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.times.resize_with(total_num_groups, HashMap::new);
        let value = values[0].as_primitive::<T>();
        let times = values.get(2).map(|times| times.as_primitive::<Int64Type>());
        for (row, &group) in group_indices.iter().enumerate() {
            let kept = opt_filter.is_none_or(|f| f.is_valid(row) && f.value(row));
            // Nothing comes less than not at all.
            let times = times.map_or(1, |times| match times.is_valid(row) {
                true => u64::try_from(times.value(row)).unwrap_or_default(),
                false => 0,
            });
            if kept && value.is_valid(row) && times > 0 {
                self.add(group, value.value(row), times)?;
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
        self.times.resize_with(total_num_groups, HashMap::new);
        let (lists, times) = (values[0].as_list::<i32>(), values[1].as_list::<i32>());
        for (row, &group) in group_indices.iter().enumerate() {
            if lists.is_null(row) || times.is_null(row) {
                continue;
            }
            let (of_row, times) = (lists.value(row), times.value(row));
            let pairs = of_row.as_primitive::<T>().values().iter();
            for (&value, &times) in pairs.zip(times.as_primitive::<UInt64Type>().values()) {
                self.add(group, value, times)?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let taken = self.take(emit_to);
        let values: PrimitiveArray<T> =
            taken.into_iter().map(|times| self.at_share(times)).collect();
        Ok(Arc::new(values.with_data_type(self.out.clone())))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let taken = self.take(emit_to);
        let offsets = OffsetBuffer::from_lengths(taken.iter().map(HashMap::len));
        let mut values = PrimitiveBuilder::<T>::new();
        let mut times = Vec::new();
        for (value, came) in taken.into_iter().flatten() {
            values.append_value(value);
            times.push(came);
        }
        let list = |item: ArrayRef| {
            let field = Arc::new(Field::new_list_field(item.data_type().clone(), true));
            ListArray::try_new(field, offsets.clone(), item, None)
        };
        let values = values.finish().with_data_type(self.out.clone());
        Ok(vec![
            Arc::new(list(Arc::new(values))?),
            Arc::new(list(Arc::new(UInt64Array::from(times)))?),
        ])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let mut rows = Self::new(self.share, self.out.clone());
        let all: Vec<usize> = (0..values[0].len()).collect();
        rows.update_batch(values, &all, opt_filter, all.len())?;
        rows.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.times.capacity() * size_of::<HashMap<T::Native, u64>>()
            // A table is at most seven eighths full and has a byte for each place.
            + self.places * 8 / 7 * (size_of::<(T::Native, u64)>() + 1)
    }
}
