//! Exact arithmetic on the numbers of an event, whatever their widths.
//!
//! Integers stay integers and become decimal(38,0) where they could overflow; any other number is
//! computed with 38 integer and 38 fractional digits. A result that does not fit is the mark of an
//! overflow, and so is everything computed from it; [`Arithmetic::Checked`] makes an error of it, so
//! that a plan can ask which event it was. Null where a side is null.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Builder, Decimal256Builder, Int64Builder};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type,
    Int64Type, i256,
};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::average::{AVERAGE_SCALE, half_even, half_even_narrow};
use super::mean::means;
use super::number::{WIDE_SCALE, wide_type};
use super::sum::OVERFLOW;
use crate::decimal::Decimal;

/// Fractional digits of a quotient: as many as a property's decimals have.
const QUOTIENT_SCALE: u32 = 18;
/// [`WIDE_SCALE`] as a count of digits.
const WIDE: u32 = WIDE_SCALE.unsigned_abs() as u32;

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// `a + b`.
    Add,
    /// `a - b`.
    Subtract,
    /// `a * b`.
    Multiply,
    /// `a / b`, rounded half-even to 18 digits; null for a divisor of zero.
    Divide,
    /// `a / b`, rounded half-even to the 12 digits of an average; null for a divisor of zero.
    Mean,
    /// Without its sign.
    Abs,
    /// The whole number at or above it.
    Ceil,
    /// The whole number at or below it.
    Floor,
    /// The largest of all.
    Greatest,
    /// The smallest of all.
    Least,
    /// The first that there is.
    Coalesce,
    /// The number itself; the error [`BEYOND`] where it is the mark of an overflow.
    Checked,
}

impl Arithmetic {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Add,
        Self::Subtract,
        Self::Multiply,
        Self::Divide,
        Self::Mean,
        Self::Abs,
        Self::Ceil,
        Self::Floor,
        Self::Greatest,
        Self::Least,
        Self::Coalesce,
        Self::Checked,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Add => "exact_add",
            Self::Subtract => "exact_subtract",
            Self::Multiply => "exact_multiply",
            Self::Divide => "exact_divide",
            Self::Mean => "exact_mean",
            Self::Abs => "exact_abs",
            Self::Ceil => "exact_ceil",
            Self::Floor => "exact_floor",
            Self::Greatest => "exact_greatest",
            Self::Least => "exact_least",
            Self::Coalesce => "exact_coalesce",
            Self::Checked => "not_overflowed",
        }
    }

    fn arguments(self) -> std::ops::RangeInclusive<usize> {
        match self {
            Self::Add | Self::Subtract | Self::Multiply | Self::Divide | Self::Mean => 2..=2,
            Self::Abs | Self::Ceil | Self::Floor | Self::Checked => 1..=1,
            Self::Greatest | Self::Least | Self::Coalesce => 1..=usize::MAX,
        }
    }

    /// The type of results of numbers of these types.
    fn returns(self, arguments: &[DataType]) -> DataType {
        let integers = arguments.iter().all(|argument| *argument == DataType::Int64);
        match self {
            Self::Checked => arguments.first().cloned().unwrap_or_else(wide_type),
            // Fewer digits are written faster.
            Self::Mean => DataType::Decimal256(DECIMAL256_MAX_PRECISION, AVERAGE_SCALE),
            Self::Add | Self::Subtract | Self::Multiply | Self::Abs if integers => {
                DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0)
            }
            Self::Ceil | Self::Floor | Self::Greatest | Self::Least | Self::Coalesce
                if integers =>
            {
                DataType::Int64
            }
            Self::Add
            | Self::Subtract
            | Self::Multiply
            | Self::Divide
            | Self::Abs
            | Self::Ceil
            | Self::Floor
            | Self::Greatest
            | Self::Least
            | Self::Coalesce => wide_type(),
        }
    }
}

/// One kind of arithmetic as a DataFusion function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ArithmeticFunction {
    of: Arithmetic,
    signature: Signature,
}

impl ArithmeticFunction {
    /// The function that computes `of`.
    pub fn new(of: Arithmetic) -> Self {
        Self { of, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ArithmeticFunction {
    fn name(&self) -> &str {
        self.of.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        if !self.of.arguments().contains(&arguments.len()) {
            return plan_err!("{} does not take {} numbers", self.name(), arguments.len());
        }
        let exact = |argument: &DataType| match argument {
            DataType::Null => Ok(DataType::Int64),
            DataType::Int64 | DataType::Decimal128(..) | DataType::Decimal256(..) => {
                Ok(argument.clone())
            }
            integer if integer.is_integer() => Ok(DataType::Int64),
            other => plan_err!("{} takes exact numbers, got {other}", self.name()),
        };
        arguments.iter().map(exact).collect()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(self.of.returns(arguments))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays: Vec<ArrayRef> = args
            .args
            .iter()
            .map(|argument| argument.to_array(args.number_rows))
            .collect::<Result<_>>()?;
        if self.of == Arithmetic::Checked {
            return checked(&arrays[0]).map(ColumnarValue::Array);
        }
        if let (Arithmetic::Mean, [sums, counts]) = (self.of, arrays.as_slice())
            && let (Some(sums), Some(counts)) = (sums.as_primitive_opt(), counts.as_primitive_opt())
        {
            return means(sums, counts).map(ColumnarValue::Array);
        }
        let columns: Vec<Column<'_>> = arrays.iter().map(Column::new).collect::<Result<_>>()?;
        let out = args.return_field.data_type().clone();
        let mut results = Results::new(&out, args.number_rows)?;
        let mut operands = Vec::with_capacity(columns.len());
        for row in 0..args.number_rows {
            operands.clear();
            if self.of == Arithmetic::Coalesce {
                operands.extend(columns.iter().find_map(|column| column.get(row)));
            } else {
                operands.extend(columns.iter().map_while(|column| column.get(row)));
            }
            if operands.is_empty() || operands.len() < self.needs(columns.len()) {
                results.push(None)?;
                continue;
            }
            match computed(self.of, &operands, results.scale) {
                Outcome::Fits(value) => results.push(Some(value))?,
                Outcome::Nothing => results.push(None)?,
                Outcome::Beyond => results.push(Some(OVERFLOW))?,
            }
        }
        Ok(ColumnarValue::Array(results.finish()))
    }
}

impl ArithmeticFunction {
    /// How many of so many numbers must be there for a result.
    fn needs(&self, columns: usize) -> usize {
        if self.of == Arithmetic::Coalesce { 1 } else { columns }
    }
}

/// What is said of a number that does not fit.
pub const BEYOND: &str = "a computed number has more than 38 digits before or after the point";

/// The array itself, unless a value of it is the mark of an overflow.
fn checked(array: &ArrayRef) -> Result<ArrayRef> {
    if let Some(wide) = array.as_primitive_opt::<Decimal256Type>()
        && wide.iter().flatten().any(|value| value == OVERFLOW)
    {
        return exec_err!("{BEYOND}");
    }
    Ok(Arc::clone(array))
}

/// `scaled` / 10^`scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scaled {
    scaled: i256,
    scale: u32,
}

impl Scaled {
    fn decimal(self) -> Decimal {
        Decimal::from_scaled(self.scaled, u8::try_from(self.scale).unwrap_or(u8::MAX))
    }

    /// The same value with `scale` fractional digits, which are no fewer than it has.
    fn at(self, scale: u32) -> Option<i256> {
        self.scaled.checked_mul(ten_to(scale.checked_sub(self.scale)?)?)
    }
}

/// A column of exact numbers.
enum Column<'a> {
    Integer(&'a arrow::array::Int64Array),
    Narrow(&'a arrow::array::Decimal128Array, u32),
    Wide(&'a arrow::array::Decimal256Array, u32),
}

impl<'a> Column<'a> {
    fn new(array: &'a ArrayRef) -> Result<Self> {
        let digits = |scale: i8| u32::try_from(scale).unwrap_or(0);
        Ok(match array.data_type() {
            DataType::Int64 => Self::Integer(array.as_primitive::<Int64Type>()),
            DataType::Decimal128(_, scale) => {
                Self::Narrow(array.as_primitive::<Decimal128Type>(), digits(*scale))
            }
            DataType::Decimal256(_, scale) => {
                Self::Wide(array.as_primitive::<Decimal256Type>(), digits(*scale))
            }
            other => return exec_err!("no exact arithmetic on {other}"),
        })
    }

    fn get(&self, row: usize) -> Option<Scaled> {
        let (scaled, scale) = match self {
            Self::Integer(array) => {
                let value = array.is_valid(row).then(|| array.value(row))?;
                (i256::from(value), 0)
            }
            Self::Narrow(array, scale) => {
                let value = array.is_valid(row).then(|| array.value(row))?;
                (i256::from_i128(value), *scale)
            }
            Self::Wide(array, scale) => (array.is_valid(row).then(|| array.value(row))?, *scale),
        };
        Some(Scaled { scaled, scale })
    }
}

/// What came of one row: a value at the scale of the results, none, or one that does not fit.
enum Outcome {
    Fits(i256),
    Nothing,
    Beyond,
}

fn ten_to(digits: u32) -> Option<i256> {
    // Asked for with every row.
    static POWERS: LazyLock<Vec<i256>> = LazyLock::new(|| {
        let digits = 0..=u32::from(DECIMAL256_MAX_PRECISION);
        digits.map(|digits| i256::from(10).wrapping_pow(digits)).collect()
    });
    POWERS.get(usize::try_from(digits).ok()?).copied()
}

fn computed(of: Arithmetic, operands: &[Scaled], scale: u32) -> Outcome {
    if operands.iter().any(|operand| operand.scaled == OVERFLOW) {
        return Outcome::Beyond;
    }
    let result = match (of, operands) {
        (Arithmetic::Divide | Arithmetic::Mean, [_, divisor]) if divisor.scaled == i256::ZERO => {
            return Outcome::Nothing;
        }
        (Arithmetic::Add, [a, b]) => sum(*a, *b, scale),
        (Arithmetic::Subtract, [a, b]) => {
            b.scaled.checked_neg().and_then(|scaled| sum(*a, Scaled { scaled, ..*b }, scale))
        }
        (Arithmetic::Multiply, [a, b]) => product(*a, *b, scale),
        (Arithmetic::Divide, [a, b]) => quotient(*a, *b, QUOTIENT_SCALE, scale),
        (Arithmetic::Mean, [a, b]) => {
            quotient(*a, *b, u32::from(AVERAGE_SCALE.unsigned_abs()), scale)
        }
        (Arithmetic::Coalesce, [a]) => a.at(scale),
        (Arithmetic::Abs, [a]) => a.at(scale).and_then(i256::checked_abs),
        (Arithmetic::Ceil, [a]) => whole(*a, i256::ONE, scale),
        (Arithmetic::Floor, [a]) => whole(*a, i256::MINUS_ONE, scale),
        (Arithmetic::Greatest, all) => all.iter().map(|one| one.at(scale)).max().flatten(),
        (Arithmetic::Least, all) => all
            .iter()
            .map(|one| one.at(scale))
            .try_fold(None, |least: Option<i256>, one| {
                let one = one?;
                Some(Some(least.map_or(one, |least| least.min(one))))
            })
            .flatten(),
        _ => None,
    };
    result.map_or(Outcome::Beyond, Outcome::Fits)
}

fn sum(a: Scaled, b: Scaled, scale: u32) -> Option<i256> {
    a.at(scale)?.checked_add(b.at(scale)?)
}

/// The exact product; beyond 256 bits on the way by way of decimals of any size.
fn product(a: Scaled, b: Scaled, scale: u32) -> Option<i256> {
    let digits = a.scale + b.scale;
    if digits <= scale
        && let Some(scaled) = a.scaled.checked_mul(b.scaled)
    {
        return Scaled { scaled, scale: digits }.at(scale);
    }
    scaled_decimal(&(&a.decimal() * &b.decimal()), scale)
}

/// The quotient rounded half-even to `digits`.
fn quotient(a: Scaled, b: Scaled, digits: u32, scale: u32) -> Option<i256> {
    // Which is many times faster.
    let narrowest = || {
        let shift = (digits + b.scale).checked_sub(a.scale)?;
        let numerator = a.scaled.to_i128()?.checked_mul(10_i128.checked_pow(shift)?)?;
        let quotient = half_even_narrow(numerator, b.scaled.to_i128()?)?;
        Scaled { scaled: i256::from_i128(quotient), scale: digits }.at(scale)
    };
    let narrow = || {
        let shift = (digits + b.scale).checked_sub(a.scale)?;
        let numerator = a.scaled.checked_mul(ten_to(shift)?)?;
        Scaled { scaled: half_even(numerator, b.scaled)?, scale: digits }.at(scale)
    };
    narrowest()
        .or_else(narrow)
        .or_else(|| scaled_decimal(&a.decimal().divide_half_even(&b.decimal(), digits)?, scale))
}

/// The whole number next to `a` in the direction of `away`.
fn whole(a: Scaled, away: i256, scale: u32) -> Option<i256> {
    let one = ten_to(a.scale)?;
    let (quotient, rest) = (a.scaled.checked_div(one)?, a.scaled.checked_rem(one)?);
    let beyond = rest != i256::ZERO && rest.is_positive() == away.is_positive();
    let scaled = if beyond { quotient.checked_add(away)? } else { quotient };
    Scaled { scaled, scale: 0 }.at(scale)
}

/// `decimal` × 10^`scale`, if that is a whole number of up to 76 digits.
fn scaled_decimal(decimal: &Decimal, scale: u32) -> Option<i256> {
    let wide = decimal.to_number()?.to_wide();
    let shift = ten_to(WIDE.checked_sub(scale)?)?;
    (wide.checked_rem(shift)? == i256::ZERO).then(|| wide.checked_div(shift)).flatten()
}

/// The results in the type that they have.
struct Results {
    scale: u32,
    values: Values,
}

enum Values {
    Integer(Int64Builder),
    Narrow(Decimal128Builder),
    Wide(Decimal256Builder),
}

impl Results {
    fn new(out: &DataType, rows: usize) -> Result<Self> {
        let digits = |scale: i8| u32::try_from(scale).unwrap_or(0);
        Ok(match out {
            DataType::Int64 => {
                Self { scale: 0, values: Values::Integer(Int64Builder::with_capacity(rows)) }
            }
            DataType::Decimal128(_, scale) => Self {
                scale: digits(*scale),
                values: Values::Narrow(
                    Decimal128Builder::with_capacity(rows).with_data_type(out.clone()),
                ),
            },
            DataType::Decimal256(_, scale) => Self {
                scale: digits(*scale),
                values: Values::Wide(
                    Decimal256Builder::with_capacity(rows).with_data_type(out.clone()),
                ),
            },
            other => return exec_err!("no exact arithmetic gives {other}"),
        })
    }

    fn push(&mut self, value: Option<i256>) -> Result<()> {
        match &mut self.values {
            Values::Integer(values) => {
                let narrow = value.and_then(i256::to_i128).map(i64::try_from);
                match narrow.transpose() {
                    Ok(narrow) => values.append_option(narrow),
                    Err(_) => return exec_err!("an integer of more than 64 bits"),
                }
            }
            // Of integers: two of 64 bits make at most 38 digits.
            Values::Narrow(values) => values.append_option(value.and_then(i256::to_i128)),
            Values::Wide(values) => {
                let limit = ten_to(DECIMAL256_MAX_PRECISION.into()).unwrap_or(i256::MAX);
                let fits = |value: i256| value != i256::MIN && value.wrapping_abs() < limit;
                values.append_option(value.map(|value| if fits(value) { value } else { OVERFLOW }));
            }
        }
        Ok(())
    }

    fn finish(self) -> ArrayRef {
        match self.values {
            Values::Integer(mut values) => Arc::new(values.finish()),
            Values::Narrow(mut values) => Arc::new(values.finish()),
            Values::Wide(mut values) => Arc::new(values.finish()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decimal::{text_of_scaled, wide_of_text};

    fn wide(text: &str) -> Scaled {
        Scaled { scaled: wide_of_text(text).unwrap(), scale: WIDE }
    }

    fn of(of: Arithmetic, operands: &[Scaled]) -> String {
        match computed(of, operands, WIDE) {
            Outcome::Fits(value) => text_of_scaled(value, 38),
            Outcome::Nothing => "nothing".to_owned(),
            Outcome::Beyond => "beyond".to_owned(),
        }
    }

    #[test]
    fn results_are_exact_or_none() {
        use Arithmetic::{
            Abs, Add, Ceil, Divide, Floor, Greatest, Least, Mean, Multiply, Subtract,
        };
        const HUGE: &str = "99999999999999999999999999999999999999";
        for (arithmetic, operands, want) in [
            (Add, vec!["0.1", "0.2"], "0.3"),
            (Subtract, vec!["1", "0.00000000000000000000000000000000000001"], {
                "0.99999999999999999999999999999999999999"
            }),
            (Multiply, vec!["123456789.123456789", "2.5"], "308641972.8086419725"),
            (Multiply, vec!["1e-20", "1e-18"], "0.00000000000000000000000000000000000001"),
            (Multiply, vec!["1e-20", "1e-19"], "beyond"),
            (Multiply, vec!["1e20", "1e17"], "10000000000000000000000000000000000000"),
            (Multiply, vec!["1e20", "1e18"], "beyond"),
            (Divide, vec!["1", "3"], "0.333333333333333333"),
            (Divide, vec!["2", "3"], "0.666666666666666667"),
            (Divide, vec!["1000", "1e-18"], "1000000000000000000000"),
            (Divide, vec!["1", "0"], "nothing"),
            (Divide, vec![HUGE, "1e-3"], "beyond"),
            (Mean, vec!["2", "3"], "0.666666666667"),
            (Abs, vec!["-1.5"], "1.5"),
            (Ceil, vec!["1.01"], "2"),
            (Ceil, vec!["-1.01"], "-1"),
            (Floor, vec!["1.99"], "1"),
            (Floor, vec!["-1.01"], "-2"),
            (Floor, vec!["-2"], "-2"),
            (Greatest, vec!["1", "3", "2.5"], "3"),
            (Least, vec!["1", "-3", "2.5"], "-3"),
        ] {
            let numbers: Vec<Scaled> = operands.iter().map(|text| wide(text)).collect();
            assert_eq!(of(arithmetic, &numbers), want, "{arithmetic:?} {operands:?}");
        }
    }

    #[test]
    fn integers_and_fixed_decimals_are_as_exact() {
        let integer = |value: i64| Scaled { scaled: i256::from(value), scale: 0 };
        let fixed = |scaled: i128| Scaled { scaled: i256::from_i128(scaled), scale: 18 };
        assert_eq!(
            of(Arithmetic::Multiply, &[integer(i64::MAX), fixed(1)]),
            "9.223372036854775807"
        );
        let most = 10_i128.pow(38) - 1;
        assert_eq!(
            of(Arithmetic::Multiply, &[fixed(most), fixed(1)]),
            "99.999999999999999999999999999999999999"
        );
        assert_eq!(of(Arithmetic::Multiply, &[fixed(most), fixed(most)]), "beyond");
        let square = computed(Arithmetic::Multiply, &[integer(i64::MIN), integer(i64::MIN)], 0);
        assert!(matches!(square, Outcome::Fits(value) if value == i256::from_i128(1 << 126)));
    }
}
