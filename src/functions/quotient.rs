//! `quotient(a, b)`: the exact quotient of decimals, rounded once, half-even, to 18 digits.
//!
//! The engine's own division of decimals keeps four digits more than the dividend has and cuts the
//! rest off: `2747282740 / 1000000000` would be 2.7472.

use std::sync::Arc;

use arrow::array::{AsArray, Decimal256Array};
use arrow::datatypes::{DECIMAL256_MAX_PRECISION, DataType, Decimal256Type, DecimalType, i256};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::average::half_even;

/// Fractional digits of a quotient: as many as a property's decimals have.
const SCALE: i8 = 18;

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Quotient {
    signature: Signature,
}

impl Quotient {
    /// The function.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for Quotient {
    fn default() -> Self {
        Self::new()
    }
}

/// The type of quotients.
fn out_type() -> DataType {
    DataType::Decimal256(DECIMAL256_MAX_PRECISION, SCALE)
}

/// A number of this type in as many digits as there are.
fn widest(of: &DataType) -> Option<DataType> {
    match of {
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => {
            Some(DataType::Decimal256(DECIMAL256_MAX_PRECISION, *scale))
        }
        integer if integer.is_integer() || integer.is_null() => {
            Some(DataType::Decimal256(DECIMAL256_MAX_PRECISION, 0))
        }
        _ => None,
    }
}

impl ScalarUDFImpl for Quotient {
    fn name(&self) -> &'static str {
        "quotient"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments.iter().map(widest).collect::<Option<Vec<_>>>() {
            Some(types) if types.len() == 2 => Ok(types),
            _ => exec_err!("quotient takes two exact numbers, got {arguments:?}"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(out_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scale = |place: usize| match args.arg_fields[place].data_type() {
            DataType::Decimal256(_, scale) => *scale,
            _ => 0,
        };
        let shift = i32::from(SCALE) + i32::from(scale(1)) - i32::from(scale(0));
        let [dividends, divisors] =
            [0, 1].map(|place: usize| args.args[place].to_array(args.number_rows));
        let (dividends, divisors) = (dividends?, divisors?);
        let dividends = dividends.as_primitive::<Decimal256Type>();
        let divisors = divisors.as_primitive::<Decimal256Type>();
        let mut quotients = Vec::with_capacity(dividends.len());
        for (dividend, divisor) in dividends.iter().zip(divisors) {
            let (Some(dividend), Some(divisor)) = (dividend, divisor) else {
                quotients.push(None);
                continue;
            };
            if divisor == i256::ZERO {
                return exec_err!("division by zero");
            }
            let Some(quotient) = quotient(dividend, divisor, shift) else {
                return exec_err!("a quotient goes beyond {}", out_type());
            };
            quotients.push(Some(quotient));
        }
        let quotients = Decimal256Array::from(quotients).with_data_type(out_type());
        Ok(ColumnarValue::Array(Arc::new(quotients)))
    }
}

/// `dividend` × 10^`shift` ÷ `divisor`; `None` where it does not fit.
fn quotient(dividend: i256, divisor: i256, shift: i32) -> Option<i256> {
    let power = i256::from(10).checked_pow(shift.unsigned_abs())?;
    let (dividend, divisor) = match shift >= 0 {
        true => (dividend.checked_mul(power)?, divisor),
        false => (dividend, divisor.checked_mul(power)?),
    };
    let quotient = half_even(dividend, divisor)?;
    let fits = Decimal256Type::validate_decimal_precision(quotient, DECIMAL256_MAX_PRECISION, 0);
    fits.is_ok().then_some(quotient)
}
