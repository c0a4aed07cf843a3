//! The exact sum: never wrapped, never rounded, whatever the order of the rows.
//!
//! Integers add up in 128 bits and decimals of 18 fractional digits in 256, where no number of
//! rows that fits a disk can overflow. Values of up to 38 integer and 38 fractional digits need
//! more than 256 bits on the way: wraps of the 256 bits are counted, so the order does not matter,
//! and a total that is too large is an error.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Int64Array, PrimitiveArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    ArrowNativeTypeOp, DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType,
    Decimal128Type, Decimal256Type, Field, FieldRef, Int64Type, i256,
};
use datafusion::common::{Result, exec_err, not_impl_err};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::accumulate::NullState;

use super::number::WIDE_SCALE;
use super::single::SingleGroup;

/// The exact sum as a DataFusion aggregate.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ExactSum {
    name: &'static str,
    signature: Signature,
}

impl ExactSum {
    /// `exact_sum`, which our plans use: decimals add up to decimal(76, scale).
    pub fn new() -> Self {
        Self { name: "exact_sum", signature: Signature::user_defined(Volatility::Immutable) }
    }

    /// `sum`, in the place of the engine's own: integers add up to decimal(38,0), decimals to
    /// decimal(38, scale), floats as usual.
    pub fn for_sql() -> Self {
        Self { name: "sum", ..Self::new() }
    }
}

impl Default for ExactSum {
    fn default() -> Self {
        Self::new()
    }
}

impl AggregateUDFImpl for ExactSum {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [argument] = arguments else {
            return exec_err!("{} takes one argument, got {}", self.name, arguments.len());
        };
        Ok(vec![match argument {
            DataType::Null => DataType::Int64,
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32 => DataType::Int64,
            DataType::UInt64 => DataType::Decimal128(20, 0),
            DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) => {
                DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale)
            }
            DataType::Float16 | DataType::Float32 => DataType::Float64,
            DataType::Decimal128(..)
            | DataType::Decimal256(..)
            | DataType::Float64
            | DataType::Duration(_)
            | DataType::Interval(_) => argument.clone(),
            other => return exec_err!("{} takes numbers, got {other}", self.name),
        }])
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(match &arguments[0] {
            DataType::Int64 => DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0),
            DataType::Decimal128(_, scale) if self.name == "sum" => {
                DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale)
            }
            DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => {
                DataType::Decimal256(DECIMAL256_MAX_PRECISION, *scale)
            }
            other => return Sum::new().return_type(std::slice::from_ref(other)),
        })
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let field = |name, data_type| Arc::new(Field::new(name, data_type, true));
        let sum = format_state_name(args.name, "sum");
        Ok(match args.input_fields[0].data_type() {
            DataType::Int64 => vec![field(sum, args.return_type().clone())],
            DataType::Decimal128(_, scale) => {
                vec![field(sum, DataType::Decimal256(DECIMAL256_MAX_PRECISION, *scale))]
            }
            DataType::Decimal256(_, scale) => vec![
                field(sum, DataType::Decimal256(DECIMAL256_MAX_PRECISION, *scale)),
                field(format_state_name(args.name, "wraps"), DataType::Int64),
            ],
            _ => Sum::new().state_fields(args)?,
        })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let input = args.expr_fields[0].data_type().clone();
        if !is_exact(&input) {
            return Sum::new().create_groups_accumulator(args);
        }
        sum_groups(&input, args.return_field.data_type().clone(), self.name == "sum")
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let exact = is_exact(args.expr_fields[0].data_type());
        match (exact, args.is_distinct) {
            (true, false) => Ok(Box::new(SingleGroup::new(self.create_groups_accumulator(args)?))),
            (true, true) => {
                not_impl_err!(
                    "{}(DISTINCT …) beside others: sum a subquery of distinct values",
                    self.name
                )
            }
            (false, _) => Sum::new().accumulator(args),
        }
    }
}

fn is_exact(input: &DataType) -> bool {
    matches!(input, DataType::Int64 | DataType::Decimal128(..) | DataType::Decimal256(..))
}

/// The accumulator of exact sums over values of `input`; `out` is what a sum evaluates to.
pub(super) fn sum_groups(
    input: &DataType,
    out: DataType,
    overflow_is_error: bool,
) -> Result<Box<dyn GroupsAccumulator>> {
    Ok(match input {
        DataType::Int64 => {
            Box::new(SumGroups::<Int64Type, Decimal128Type>::new(out.clone(), out, i128::from))
        }
        DataType::Decimal128(_, scale) => {
            let state = DataType::Decimal256(DECIMAL256_MAX_PRECISION, *scale);
            let widen = i256::from_i128;
            Box::new(SumGroups::<Decimal128Type, Decimal256Type>::new(state, out, widen))
        }
        DataType::Decimal256(..) => Box::new(WideSumGroups::new(out, overflow_is_error)),
        other => return exec_err!("no exact sum of {other}"),
    })
}

/// Sums of values of `I`, held as values of `S` that cannot overflow.
struct SumGroups<I: ArrowPrimitiveType, S: ArrowPrimitiveType> {
    sums: Vec<S::Native>,
    seen: NullState,
    state_type: DataType,
    out_type: DataType,
    widen: fn(I::Native) -> S::Native,
}

impl<I: ArrowPrimitiveType, S: ArrowPrimitiveType> SumGroups<I, S> {
    fn new(state_type: DataType, out_type: DataType, widen: fn(I::Native) -> S::Native) -> Self {
        Self { sums: Vec::new(), seen: NullState::new(), state_type, out_type, widen }
    }

    fn take(&mut self, emit_to: EmitTo) -> PrimitiveArray<S> {
        let sums = emit_to.take_needed(&mut self.sums);
        PrimitiveArray::<S>::new(sums.into(), self.seen.build(emit_to))
            .with_data_type(self.state_type.clone())
    }
}

impl<I, S> GroupsAccumulator for SumGroups<I, S>
where
    I: ArrowPrimitiveType + Send,
    S: ArrowPrimitiveType + Send,
    S::Native: ArrowNativeTypeOp,
{
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.sums.resize(total_num_groups, S::default_value());
        let (sums, widen) = (&mut self.sums, self.widen);
        self.seen.accumulate(
            group_indices,
            values[0].as_primitive::<I>(),
            opt_filter,
            total_num_groups,
            |group, value| sums[group] = sums[group].add_wrapping(widen(value)),
        );
        Ok(())
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.sums.resize(total_num_groups, S::default_value());
        let sums = &mut self.sums;
        self.seen.accumulate(
            group_indices,
            values[0].as_primitive::<S>(),
            None,
            total_num_groups,
            |group, value| sums[group] = sums[group].add_wrapping(value),
        );
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let sums: ArrayRef = Arc::new(self.take(emit_to));
        match self.out_type {
            DataType::Decimal256(_, scale) => Ok(marked(&sums, scale)),
            _ if self.state_type == self.out_type => Ok(sums),
            _ => narrow(&sums, &self.out_type),
        }
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![Arc::new(self.take(emit_to))])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let values = with_filter(values[0].as_primitive::<I>(), opt_filter);
        let state: PrimitiveArray<S> = values.unary(self.widen);
        Ok(vec![Arc::new(state.with_data_type(self.state_type.clone()))])
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<S::Native>() + self.seen.size()
    }
}

/// Sums of decimals of up to 76 digits: the low 256 bits, and how often they wrapped.
struct WideSumGroups {
    sums: Vec<i256>,
    wraps: Vec<i64>,
    seen: NullState,
    out_type: DataType,
    overflow_is_error: bool,
}

impl WideSumGroups {
    fn new(out_type: DataType, overflow_is_error: bool) -> Self {
        let (sums, wraps) = (Vec::new(), Vec::new());
        Self { sums, wraps, seen: NullState::new(), out_type, overflow_is_error }
    }

    fn grow(&mut self, groups: usize) {
        self.sums.resize(groups, i256::ZERO);
        self.wraps.resize(groups, 0);
    }

    fn take(&mut self, emit_to: EmitTo) -> (Vec<i256>, Vec<i64>, Option<NullBuffer>) {
        let sums = emit_to.take_needed(&mut self.sums);
        (sums, emit_to.take_needed(&mut self.wraps), self.seen.build(emit_to))
    }
}

/// More wraps than values that are no overflow can make up for.
const OVERFLOWED: i64 = 1 << 48;

/// Adds with two's complement wrap and says in which direction it wrapped. The mark of an overflow
/// makes the sum one, whatever is added.
fn add_counting_wraps(sum: &mut i256, wraps: &mut i64, value: i256) {
    if value == OVERFLOW {
        *wraps = wraps.saturating_add(OVERFLOWED);
        return;
    }
    let wrapped = sum.wrapping_add(value);
    if value.is_positive() && wrapped < *sum {
        *wraps += 1;
    } else if value.is_negative() && wrapped > *sum {
        *wraps -= 1;
    }
    *sum = wrapped;
}

impl GroupsAccumulator for WideSumGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.grow(total_num_groups);
        let (sums, wraps) = (&mut self.sums, &mut self.wraps);
        self.seen.accumulate(
            group_indices,
            values[0].as_primitive::<Decimal256Type>(),
            opt_filter,
            total_num_groups,
            |group, value| add_counting_wraps(&mut sums[group], &mut wraps[group], value),
        );
        Ok(())
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.update_batch(&values[..1], group_indices, None, total_num_groups)?;
        let wraps = values[1].as_primitive::<Int64Type>();
        for (group, more) in group_indices.iter().zip(wraps) {
            self.wraps[*group] += more.unwrap_or(0);
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (mut sums, wraps, seen) = self.take(emit_to);
        let limit = match self.out_type {
            DataType::Decimal256(_, scale) if !self.overflow_is_error => beyond(scale),
            _ => beyond(WIDE_SCALE),
        };
        for (sum, wraps) in sums.iter_mut().zip(wraps) {
            if wraps != 0 || *sum >= limit || *sum <= -limit {
                if self.overflow_is_error {
                    return exec_err!("sum overflows {}", self.out_type);
                }
                *sum = OVERFLOW;
            }
        }
        let sums = PrimitiveArray::<Decimal256Type>::new(sums.into(), seen);
        Ok(Arc::new(sums.with_data_type(self.out_type.clone())))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (sums, wraps, seen) = self.take(emit_to);
        let sums = PrimitiveArray::<Decimal256Type>::new(sums.into(), seen);
        Ok(vec![
            Arc::new(sums.with_data_type(self.out_type.clone())),
            Arc::new(Int64Array::from(wraps)),
        ])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let values = with_filter(values[0].as_primitive::<Decimal256Type>(), opt_filter);
        let wraps = Int64Array::from(vec![0; values.len()]);
        Ok(vec![Arc::new(values.with_data_type(self.out_type.clone())), Arc::new(wraps)])
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<i256>()
            + self.wraps.capacity() * size_of::<i64>()
            + self.seen.size()
    }
}

/// The sums, those of more than 38 integer digits marked: as that many are what a value may have, it is
/// the same whether a total is summed up at once or of parts that were stored.
fn marked(sums: &ArrayRef, scale: i8) -> ArrayRef {
    let limit = beyond(scale);
    let fits = |sum: i256| sum < limit && sum > -limit;
    let mark = |sum| if fits(sum) { sum } else { OVERFLOW };
    let sums: PrimitiveArray<Decimal256Type> = sums.as_primitive::<Decimal256Type>().unary(mark);
    Arc::new(sums.with_data_type(DataType::Decimal256(DECIMAL256_MAX_PRECISION, scale)))
}

/// The least whole number of units of this scale that has more than 38 integer digits.
fn beyond(scale: i8) -> i256 {
    let digits = u32::from(DECIMAL128_MAX_PRECISION) + u32::from(scale.max(0).unsigned_abs());
    i256::from(10).wrapping_pow(digits.min(u32::from(DECIMAL256_MAX_PRECISION)))
}

/// What a total beyond 38 integer digits evaluates to, so that whoever knows the group can name it
/// in the error. No decimal(76) has this value.
pub const OVERFLOW: i256 = i256::MAX;

/// `values` with nulls where `filter` does not hold.
pub(super) fn with_filter<T: ArrowPrimitiveType>(
    values: &PrimitiveArray<T>,
    filter: Option<&BooleanArray>,
) -> PrimitiveArray<T> {
    let Some(filter) = filter else { return values.clone() };
    let kept: NullBuffer = filter.iter().map(|keep| keep == Some(true)).collect();
    let nulls = NullBuffer::union(values.nulls(), Some(&kept));
    PrimitiveArray::<T>::new(values.values().clone(), nulls)
        .with_data_type(values.data_type().clone())
}

fn narrow(sums: &ArrayRef, out: &DataType) -> Result<ArrayRef> {
    let options = arrow::compute::CastOptions { safe: false, ..Default::default() };
    match arrow::compute::cast_with_options(sums, out, &options) {
        Ok(narrowed) => Ok(narrowed),
        Err(error) => exec_err!("sum overflows {out}: {error}"),
    }
}
