//! Integer arithmetic that fails where the engine's own wraps around.
//!
//! A chain of operators is one call: `a + b - c` is `checked_sum('++-', a, b, c)`, so that a long
//! chain is evaluated in a loop and not by recursion.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::try_binary;
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

/// What a chain computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Chain {
    /// `checked_sum(signs, a, b, …)`: one `+` or `-` in `signs` for each term.
    Sum,
    /// `checked_product(a, b, …)`.
    Product,
}

/// The function of a chain over BIGINT; null where any part is null.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Checked {
    chain: Chain,
    signature: Signature,
}

impl Checked {
    /// The function of `chain`.
    pub fn new(chain: Chain) -> Self {
        Self { chain, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &'static str {
        match self.chain {
            Chain::Sum => "checked_sum",
            Chain::Product => "checked_product",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let signs = usize::from(self.chain == Chain::Sum);
        if arguments.len() <= signs {
            return exec_err!("{} takes integers", self.name());
        }
        let (signs, terms) = arguments.split_at(signs);
        let terms = terms.iter().map(|_| DataType::Int64);
        Ok(signs.iter().map(|_| DataType::Utf8).chain(terms).collect())
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let all_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if all_scalar { 1 } else { args.number_rows };
        let (signs, terms) = match (self.chain, args.args.as_slice()) {
            (Chain::Product, terms) => (None, terms),
            (Chain::Sum, [ColumnarValue::Scalar(ScalarValue::Utf8(Some(signs))), terms @ ..])
                if signs.len() == terms.len() =>
            {
                (Some(signs.as_bytes()), terms)
            }
            _ => return exec_err!("checked_sum takes one sign for each term"),
        };
        let mut result: Option<Int64Array> = None;
        for (place, term) in terms.iter().enumerate() {
            let minus = signs.is_some_and(|signs| signs[place] == b'-');
            let term: ArrayRef = term.to_array(rows)?;
            let Some(term) = term.as_primitive_opt::<Int64Type>() else {
                return exec_err!("{} takes BIGINT, got {}", self.name(), term.data_type());
            };
            let so_far = match (result.take(), self.chain) {
                (None, _) if !minus => {
                    result = Some(term.clone());
                    continue;
                }
                (None, _) => Int64Array::from(vec![0; rows]),
                (Some(so_far), _) => so_far,
            };
            result = Some(match (self.chain, minus) {
                (Chain::Sum, false) => each(&so_far, term, "+", i64::checked_add)?,
                (Chain::Sum, true) => each(&so_far, term, "-", i64::checked_sub)?,
                (Chain::Product, _) => each(&so_far, term, "*", i64::checked_mul)?,
            });
        }
        let result = result.unwrap_or_else(|| Int64Array::new_null(rows));
        match all_scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)),
            false => Ok(ColumnarValue::Array(Arc::new(result))),
        }
    }
}

/// `op` row by row; a row with a null is null whatever stands in its place.
fn each(
    left: &Int64Array,
    right: &Int64Array,
    sign: &str,
    op: fn(i64, i64) -> Option<i64>,
) -> Result<Int64Array> {
    let beyond = |a, b| {
        let text = format!("{a} {sign} {b} goes beyond BIGINT: cast one side to decimal(38, 0)");
        ArrowError::ComputeError(text)
    };
    Ok(try_binary(left, right, |a, b| op(a, b).ok_or_else(|| beyond(a, b)))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overflow_is_an_error_unless_the_row_is_null() {
        let wide = Int64Array::from(vec![Some(i64::MAX), None, Some(3)]);
        let one = Int64Array::from(vec![Some(0), Some(1), Some(1)]);
        let sum = each(&wide, &one, "+", i64::checked_add).unwrap();
        assert_eq!(sum, Int64Array::from(vec![Some(i64::MAX), None, Some(4)]));
        let one = Int64Array::from(vec![1, 1, 1]);
        let error = each(&wide, &one, "+", i64::checked_add).unwrap_err().to_string();
        assert!(error.contains("9223372036854775807 + 1 goes beyond BIGINT"), "{error}");
        // What lies under a null does not count.
        let hidden = Int64Array::new(vec![i64::MAX].into(), Some(vec![false].into()));
        let product = each(&hidden, &Int64Array::from(vec![2]), "*", i64::checked_mul).unwrap();
        assert_eq!(product, Int64Array::from(vec![None]));
    }
}
