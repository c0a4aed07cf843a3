//! `+`, `-` and `*` on integers become calls that fail on overflow, where the engine would wrap, and
//! `/` on decimals one that is exact, where it would cut digits off.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, cast, lit};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::functions::{checked_product, checked_sum, quotient};

/// The rewrite, run by the engine's analyzer from the leaves up.
#[derive(Debug)]
pub(super) struct CheckedArithmetic;

impl FunctionRewrite for CheckedArithmetic {
    fn name(&self) -> &'static str {
        "checked_arithmetic"
    }

    fn rewrite(
        &self,
        expr: Expr,
        schema: &DFSchema,
        _: &ConfigOptions,
    ) -> Result<Transformed<Expr>> {
        let sign = match &expr {
            Expr::BinaryExpr(BinaryExpr { op: Operator::Plus, .. }) => '+',
            Expr::BinaryExpr(BinaryExpr { op: Operator::Minus, .. }) => '-',
            Expr::BinaryExpr(BinaryExpr { op: Operator::Multiply, .. }) => '*',
            Expr::Negative(of) if kind(of, schema) == Some(Kind::Bigint) => {
                let zero = lit(0_i64);
                return Ok(Transformed::yes(sum(
                    zero,
                    '-',
                    as_bigint(of.as_ref().clone(), schema),
                )));
            }
            _ => return Ok(Transformed::no(expr)),
        };
        let Expr::BinaryExpr(BinaryExpr { left, right, .. }) = &expr else {
            return Ok(Transformed::no(expr));
        };
        match (kind(left, schema), kind(right, schema)) {
            (Some(Kind::Bigint), Some(Kind::Bigint)) => {}
            (Some(_), Some(_)) => {
                // Decimals of that width are checked by the engine.
                let wide = |of: &Expr| cast(of.clone(), DataType::Decimal128(38, 0));
                let (left, right) = (wide(left), wide(right));
                return Ok(Transformed::yes(match sign {
                    '+' => left + right,
                    '-' => left - right,
                    _ => left * right,
                }));
            }
            _ => return Ok(Transformed::no(expr)),
        }
        let (left, right) = (as_bigint(*left.clone(), schema), as_bigint(*right.clone(), schema));
        Ok(Transformed::yes(match sign {
            '*' => product(left, right),
            sign => sum(left, sign, right),
        }))
    }
}

/// Makes `/` the exact quotient, where one side is a decimal and both are exact numbers; of integers it
/// is the whole part, as SQL has it. Done while a statement is planned, as the type changes.
#[derive(Debug)]
pub(super) struct ExactDivision;

impl ExprPlanner for ExactDivision {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let decimal = || -> Option<bool> {
            let types = [expr.left.get_type(schema).ok()?, expr.right.get_type(schema).ok()?];
            let exact = |of: &DataType| of.is_decimal() || of.is_integer();
            Some(types.iter().any(DataType::is_decimal) && types.iter().all(exact))
        };
        if expr.op != BinaryOperator::Divide || decimal() != Some(true) {
            return Ok(PlannerResult::Original(expr));
        }
        Ok(PlannerResult::Planned(quotient().call(vec![expr.left, expr.right])))
    }
}

/// Integers by what holds all of their values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bigint,
    Wider,
}

fn kind(expr: &Expr, schema: &DFSchema) -> Option<Kind> {
    match expr.get_type(schema).ok()? {
        DataType::UInt64 => Some(Kind::Wider),
        of if of.is_integer() => Some(Kind::Bigint),
        _ => None,
    }
}

fn as_bigint(expr: Expr, schema: &DFSchema) -> Expr {
    match expr.get_type(schema) {
        Ok(DataType::Int64) => expr,
        _ => cast(expr, DataType::Int64),
    }
}

/// `left ± right`; a `left` that is such a chain takes one more term.
fn sum(left: Expr, sign: char, right: Expr) -> Expr {
    if let Expr::ScalarFunction(ScalarFunction { func, args }) = &left
        && *func == checked_sum()
        && let [Expr::Literal(ScalarValue::Utf8(Some(signs)), _), terms @ ..] = args.as_slice()
    {
        let mut longer = vec![lit(format!("{signs}{sign}"))];
        longer.extend(terms.iter().cloned());
        longer.push(right);
        return checked_sum().call(longer);
    }
    checked_sum().call(vec![lit(format!("+{sign}")), left, right])
}

/// `left * right`; a `left` that is such a chain takes one more factor.
fn product(left: Expr, right: Expr) -> Expr {
    match left {
        Expr::ScalarFunction(ScalarFunction { func, mut args }) if func == checked_product() => {
            args.push(right);
            checked_product().call(args)
        }
        left => checked_product().call(vec![left, right]),
    }
}
