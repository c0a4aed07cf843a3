//! The exact average: the exact sum divided once by the count, 12 fractional digits, half-even.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal256Builder, Int64Array};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type,
    Field, FieldRef, Int64Type, i256,
};
use datafusion::common::{Result, exec_err, internal_err};
use datafusion::functions_aggregate::average::Avg;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::accumulate::accumulate_indices;

use super::single::SingleGroup;
use super::sum::{ExactSum, OVERFLOW, sum_groups};

/// Fractional digits of an average.
pub const AVERAGE_SCALE: i8 = 12;

/// The exact average as a DataFusion aggregate; `avg` of floats is the engine's own.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ExactAverage {
    name: &'static str,
    signature: Signature,
}

impl ExactAverage {
    /// `exact_avg`, which our plans use.
    pub fn new() -> Self {
        Self { name: "exact_avg", signature: Signature::user_defined(Volatility::Immutable) }
    }

    /// `avg`, in the place of the engine's own, which truncates decimals.
    pub fn for_sql() -> Self {
        Self { name: "avg", ..Self::new() }
    }
}

impl Default for ExactAverage {
    fn default() -> Self {
        Self::new()
    }
}

impl AggregateUDFImpl for ExactAverage {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        ExactSum::new().coerce_types(arguments)
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match &arguments[0] {
            DataType::Int64 | DataType::Decimal128(..) | DataType::Decimal256(..) => {
                Ok(DataType::Decimal256(DECIMAL256_MAX_PRECISION, AVERAGE_SCALE))
            }
            other => Avg::new().return_type(std::slice::from_ref(other)),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let Some((_, sum)) = sum_type(args.input_fields[0].data_type()) else {
            return Avg::new().state_fields(args);
        };
        let wide = matches!(args.input_fields[0].data_type(), DataType::Decimal256(..));
        let mut fields = vec![
            Field::new(format_state_name(args.name, "count"), DataType::Int64, true),
            Field::new(format_state_name(args.name, "sum"), sum, true),
        ];
        if wide {
            fields.push(Field::new(format_state_name(args.name, "wraps"), DataType::Int64, true));
        }
        Ok(fields.into_iter().map(Arc::new).collect())
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let input = args.expr_fields[0].data_type().clone();
        let Some((scale, sum)) = sum_type(&input) else {
            return Avg::new().create_groups_accumulator(args);
        };
        let overflow_is_error = self.name == "avg";
        let sums = sum_groups(&input, sum, overflow_is_error)?;
        Ok(Box::new(AverageGroups { counts: Vec::new(), sums, scale, overflow_is_error }))
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        if sum_type(args.expr_fields[0].data_type()).is_none() {
            return Avg::new().accumulator(args);
        }
        if args.is_distinct {
            return exec_err!("{}(DISTINCT …): average a subquery of distinct values", self.name);
        }
        Ok(Box::new(SingleGroup::new(self.create_groups_accumulator(args)?)))
    }
}

/// Scale and type of the exact sum of `input`, `None` for floats and the like.
fn sum_type(input: &DataType) -> Option<(i8, DataType)> {
    match input {
        DataType::Int64 => Some((0, DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0))),
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => {
            Some((*scale, DataType::Decimal256(DECIMAL256_MAX_PRECISION, *scale)))
        }
        _ => None,
    }
}

struct AverageGroups {
    counts: Vec<i64>,
    sums: Box<dyn GroupsAccumulator>,
    scale: i8,
    overflow_is_error: bool,
}

impl GroupsAccumulator for AverageGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.counts.resize(total_num_groups, 0);
        let counts = &mut self.counts;
        accumulate_indices(
            group_indices,
            values[0].logical_nulls().as_ref(),
            opt_filter,
            |group| {
                counts[group] += 1;
            },
        );
        self.sums.update_batch(values, group_indices, opt_filter, total_num_groups)
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.counts.resize(total_num_groups, 0);
        for (group, more) in group_indices.iter().zip(values[0].as_primitive::<Int64Type>()) {
            self.counts[*group] += more.unwrap_or(0);
        }
        self.sums.merge_batch(&values[1..], group_indices, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let counts = emit_to.take_needed(&mut self.counts);
        let sums = self.sums.evaluate(emit_to)?;
        let mut averages = Decimal256Builder::with_capacity(counts.len())
            .with_precision_and_scale(DECIMAL256_MAX_PRECISION, AVERAGE_SCALE)?;
        for (row, count) in counts.into_iter().enumerate() {
            if sums.is_null(row) || count == 0 {
                averages.append_null();
                continue;
            }
            let sum = match sums.data_type() {
                DataType::Decimal128(..) => {
                    i256::from_i128(sums.as_primitive::<Decimal128Type>().value(row))
                }
                DataType::Decimal256(..) => sums.as_primitive::<Decimal256Type>().value(row),
                other => return internal_err!("sum of type {other}"),
            };
            match divide(sum, self.scale, count) {
                Some(average) => averages.append_value(average),
                None if self.overflow_is_error => return exec_err!("avg overflows 76 digits"),
                None => averages.append_value(OVERFLOW),
            }
        }
        Ok(Arc::new(averages.finish()))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let counts = emit_to.take_needed(&mut self.counts);
        let mut state: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(counts))];
        state.extend(self.sums.state(emit_to)?);
        Ok(state)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let sums = self.sums.convert_to_state(values, opt_filter)?;
        let counts = (0..sums[0].len()).map(|row| i64::from(sums[0].is_valid(row)));
        let mut state: Vec<ArrayRef> = vec![Arc::new(counts.map(Some).collect::<Int64Array>())];
        state.extend(sums);
        Ok(state)
    }

    fn size(&self) -> usize {
        self.counts.capacity() * size_of::<i64>() + self.sums.size()
    }
}

/// `sum` of `scale` fractional digits ÷ `count`, 12 fractional digits, half-even; `None` where the
/// sum overflowed, or does so when it is given as many digits.
pub(super) fn divide(sum: i256, scale: i8, count: i64) -> Option<i256> {
    let power = |digits: i8| i256::from(10).checked_pow(u32::try_from(digits).ok()?);
    if sum == OVERFLOW {
        return None;
    }
    if let Some(quotient) = divide_narrow(sum, scale, count) {
        return Some(i256::from_i128(quotient));
    }
    let (numerator, divisor) = if scale <= AVERAGE_SCALE {
        (sum.checked_mul(power(AVERAGE_SCALE - scale)?)?, i256::from(count))
    } else {
        (sum, i256::from(count).checked_mul(power(scale - AVERAGE_SCALE)?)?)
    };
    half_even(numerator, divisor)
}

/// The whole number nearest to a quotient, the even one of two; `None` for a zero divisor and where
/// it does not fit.
pub(super) fn half_even(numerator: i256, divisor: i256) -> Option<i256> {
    let (quotient, rest) = (numerator.checked_div(divisor)?, numerator.checked_rem(divisor)?);
    let twice = rest.checked_abs()?.checked_mul(i256::from(2))?;
    let size = divisor.checked_abs()?;
    let odd = quotient.wrapping_rem(i256::from(2)) != i256::ZERO;
    if twice > size || (twice == size && odd) {
        let down = numerator.is_negative() != divisor.is_negative();
        return quotient.checked_add(if down { i256::MINUS_ONE } else { i256::ONE });
    }
    Some(quotient)
}

/// The same in 128 bits, which is many times faster; `None` where that is not enough.
fn divide_narrow(sum: i256, scale: i8, count: i64) -> Option<i128> {
    let power = |digits: i8| 10_i128.checked_pow(u32::try_from(digits).ok()?);
    let (numerator, divisor) = if scale <= AVERAGE_SCALE {
        (sum.to_i128()?.checked_mul(power(AVERAGE_SCALE - scale)?)?, i128::from(count))
    } else {
        (sum.to_i128()?, i128::from(count).checked_mul(power(scale - AVERAGE_SCALE)?)?)
    };
    half_even_narrow(numerator, divisor)
}

/// [`half_even`] in 128 bits.
pub(super) fn half_even_narrow(numerator: i128, divisor: i128) -> Option<i128> {
    let (quotient, rest) = (numerator.checked_div(divisor)?, numerator.checked_rem(divisor)?);
    let (twice, size) = (rest.unsigned_abs().checked_mul(2)?, divisor.unsigned_abs());
    if twice < size || (twice == size && quotient % 2 == 0) {
        return Some(quotient);
    }
    let down = numerator.is_negative() != divisor.is_negative();
    quotient.checked_add(if down { -1 } else { 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_of_128_and_of_256_bits_are_the_same() {
        let wide = |number: i128| i256::from_i128(number);
        for numerator in (-20..=20).chain([i128::MIN, i128::MAX, i128::MAX - 1]) {
            for divisor in (-6..=6).chain([i128::MAX, i128::MIN]) {
                let want = half_even(wide(numerator), wide(divisor));
                let have = half_even_narrow(numerator, divisor);
                assert!(have.is_none() || have.map(wide) == want, "{numerator} / {divisor}");
                let is_small = numerator.abs_diff(0) <= 20 && divisor.abs_diff(0) <= 6;
                assert!(!is_small || have.is_some() == (divisor != 0), "{numerator} / {divisor}");
            }
        }
    }

    #[test]
    fn quotients_are_rounded_half_even_at_twelve_digits() {
        for (name, sum, scale, count, want) in [
            ("exact", 6, 0, 3, 2_000_000_000_000_i64),
            ("a third", 1, 0, 3, 333_333_333_333),
            ("two thirds", 2, 0, 3, 666_666_666_667),
            ("negative", -2, 0, 3, -666_666_666_667),
            ("half of an even last digit stays", 5, 13, 1, 0),
            ("half of an odd last digit goes up", 15, 13, 1, 2),
            ("negative half goes away from the odd digit", -15, 13, 1, -2),
        ] {
            assert_eq!(divide(i256::from(sum), scale, count), Some(i256::from(want)), "{name}");
            let narrow = divide_narrow(i256::from(sum), scale, count);
            assert_eq!(narrow, Some(i128::from(want)), "{name}, narrow");
            // Far beyond 128 bits, with the same digits at the end.
            let wide = i256::from(10).wrapping_pow(60).wrapping_mul(i256::from(count));
            let far = divide(i256::from(sum).wrapping_add(wide), scale, count).unwrap();
            let shift = i256::from(10).wrapping_pow(60 + 12 - u32::from(scale.unsigned_abs()));
            assert_eq!(far.wrapping_sub(shift), i256::from(want), "{name}, wide");
        }
    }

    #[test]
    fn what_does_not_fit_is_never_a_wrong_number() {
        let huge = i256::from(10).wrapping_pow(71);
        assert_eq!(divide(huge, 0, 1), None);
        assert_eq!(divide(OVERFLOW, 38, 7), None);
    }
}
