//! Filters as boolean expressions, typed by their literals.
//!
//! A condition never fails on an odd value: compared with a number, a text that is no number does
//! not match. An absent value matches `not_exists`, `not_equals` and `not_in` only.

use datafusion::common::ScalarValue;
use datafusion::functions::string::expr_fn::{contains, ends_with, starts_with};
use datafusion::logical_expr::utils::{conjunction, disjunction};
use datafusion::logical_expr::{Expr, Operator, binary_expr, cast, in_list, lit};

use super::operand::Operands;
use crate::decimal::{Decimal, Number};
use crate::error::{Error, Result};
use crate::functions::number::{WIDE_SCALE, wide_type};
use crate::meter::{Comparison, Field, Filter, Literal, Operand, Test};
use crate::time::Timestamp;

/// The condition that `filter` puts on a row; `None` where it asks nothing.
///
/// # Errors
/// A literal that the operand cannot be compared with.
pub(super) fn predicate(filter: &Filter, operands: Operands<'_>) -> Result<Option<Expr>> {
    match filter {
        Filter::All(parts) => {
            let parts = parts.iter().map(|part| predicate(part, operands));
            Ok(conjunction(parts.collect::<Result<Vec<_>>>()?.into_iter().flatten()))
        }
        Filter::Any(parts) => {
            let parts = parts.iter().map(|part| predicate(part, operands));
            let parts = parts.collect::<Result<Vec<_>>>()?;
            // A part that asks nothing makes the whole ask nothing; no part at all matches nothing.
            if parts.iter().any(Option::is_none) {
                return Ok(None);
            }
            Ok(Some(disjunction(parts.into_iter().flatten()).unwrap_or_else(|| lit(false))))
        }
        Filter::Not(part) => Ok(Some(match predicate(part, operands)? {
            Some(part) => part.is_not_true(),
            None => lit(false),
        })),
        Filter::Test(test) => comparison(test, operands).map(Some),
    }
}

fn comparison(test: &Test, operands: Operands<'_>) -> Result<Expr> {
    let operand = &test.operand;
    let compare = |op, literal| compared(operand, op, literal, operands);
    Ok(match &test.comparison {
        Comparison::Equals(literal) => compare(Operator::Eq, literal)?,
        Comparison::NotEquals(literal) => {
            differs(operand, std::slice::from_ref(literal), operands)?
        }
        Comparison::In(literals) => among(operand, literals, operands)?,
        Comparison::NotIn(literals) => differs(operand, literals, operands)?,
        Comparison::GreaterThan(literal) => compare(Operator::Gt, literal)?,
        Comparison::GreaterOrEqual(literal) => compare(Operator::GtEq, literal)?,
        Comparison::LessThan(literal) => compare(Operator::Lt, literal)?,
        Comparison::LessOrEqual(literal) => compare(Operator::LtEq, literal)?,
        Comparison::Between(low, high) => {
            compare(Operator::GtEq, low)?.and(compare(Operator::LtEq, high)?)
        }
        Comparison::Contains(text) => contains(operands.text(operand), lit(text.as_str())),
        Comparison::NotContains(text) => {
            Expr::Not(Box::new(contains(operands.text(operand), lit(text.as_str()))))
        }
        Comparison::StartsWith(text) => starts_with(operands.text(operand), lit(text.as_str())),
        Comparison::EndsWith(text) => ends_with(operands.text(operand), lit(text.as_str())),
        Comparison::Like(pattern) => operands.text(operand).like(lit(pattern.as_str())),
        Comparison::Exists => exists(operand, operands),
        Comparison::NotExists => Expr::Not(Box::new(exists(operand, operands))),
    })
}

fn exists(operand: &Operand, operands: Operands<'_>) -> Expr {
    disjunction(operands.present(operand)).unwrap_or_else(|| lit(false))
}

/// The operand and a literal as expressions of one type.
fn sides(operand: &Operand, literal: &Literal, operands: Operands<'_>) -> Result<(Expr, Expr)> {
    if let Operand::Field(field @ (Field::Timestamp | Field::IngestedAt)) = operand {
        return Ok((datafusion::logical_expr::ident(field.as_str()), instant_of(*field, literal)?));
    }
    Ok(match literal {
        Literal::Number(number) => numbers(operand, number, operands)?,
        Literal::Text(text) => texts(operand, text, operands),
        Literal::Boolean(boolean) => (operands.boolean(operand), lit(*boolean)),
    })
}

fn instant_of(field: Field, literal: &Literal) -> Result<Expr> {
    let Literal::Text(text) = literal else {
        return Err(Error::invalid(format!(
            "field `{}` is compared with an RFC 3339 text, got {literal:?}",
            field.as_str()
        )));
    };
    let instant = Timestamp::parse_rfc3339(text).map_err(|error| {
        Error::invalid(format!("field `{}`: timestamp `{text}` {error}", field.as_str()))
    })?;
    Ok(super::operand::instant(instant.micros()))
}

/// Numbers compare in the narrowest type that holds both sides exactly.
fn numbers(operand: &Operand, number: &Decimal, operands: Operands<'_>) -> Result<(Expr, Expr)> {
    let number = number.to_number().ok_or_else(|| {
        Error::invalid(format!("{number} has more than 38 integer or 38 fractional digits"))
    })?;
    if let (Number::Integer(integer), Some(column)) = (number, operands.only_integers(operand)) {
        return Ok((column, lit(integer)));
    }
    let wide = ScalarValue::Decimal256(Some(number.to_wide()), 76, WIDE_SCALE);
    Ok((cast(operands.number(operand), wide_type()), lit(wide)))
}

fn texts(operand: &Operand, text: &str, operands: Operands<'_>) -> (Expr, Expr) {
    (operands.text(operand), lit(text))
}

fn compared(
    operand: &Operand,
    op: Operator,
    literal: &Literal,
    operands: Operands<'_>,
) -> Result<Expr> {
    let (left, right) = sides(operand, literal, operands)?;
    Ok(binary_expr(left, op, right))
}

/// `literals` of one type make one list, which prunes; several types make a disjunction.
fn among(operand: &Operand, literals: &[Literal], operands: Operands<'_>) -> Result<Expr> {
    let mut lists: Vec<(Expr, Vec<Expr>)> = Vec::new();
    for literal in literals {
        let (left, right) = sides(operand, literal, operands)?;
        match lists.iter_mut().find(|(known, _)| *known == left) {
            Some((_, list)) => list.push(right),
            None => lists.push((left, vec![right])),
        }
    }
    let lists = lists.into_iter().map(|(left, list)| in_list(left, list, false));
    Ok(disjunction(lists).unwrap_or_else(|| lit(false)))
}

/// Neither of `literals`; an absent value, or one of another type, is neither.
fn differs(operand: &Operand, literals: &[Literal], operands: Operands<'_>) -> Result<Expr> {
    Ok(among(operand, literals, operands)?.is_not_true())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::plan::TableFacts;
    use crate::schema::ValueKind;

    fn text_of(filter: &Filter) -> String {
        let facts = TableFacts {
            properties: BTreeMap::from([
                ("status".to_owned(), vec![ValueKind::Integer]),
                ("host".to_owned(), vec![ValueKind::Text]),
                ("mixed".to_owned(), vec![ValueKind::Integer, ValueKind::Text]),
            ]),
            ..TableFacts::default()
        };
        let operands =
            Operands { facts: &facts, lookups: &BTreeMap::new(), customer: &[], at: None };
        predicate(filter, operands).unwrap().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn conditions_read_only_columns_that_hold_something() {
        let number = |text: &str| Literal::Number(text.parse().unwrap());
        let test = |name: &str, comparison| {
            let operand = Operand::Property(name.to_owned());
            Filter::Test(Test { operand, comparison })
        };
        for (name, filter, want) in [
            (
                "a number on an integer column",
                test("status", Comparison::In(vec![number("200"), number("206")])),
                "i_status IN ([Int64(200), Int64(206)])",
            ),
            (
                "absent values stay when one is excluded",
                test("host", Comparison::NotEquals(Literal::Text("a".into()))),
                "s_host = Utf8(\"a\") IS NOT TRUE",
            ),
            (
                "exists looks at every kind",
                test("mixed", Comparison::Exists),
                "i_mixed IS NOT NULL OR s_mixed IS NOT NULL",
            ),
            ("a name never seen exists nowhere", test("x", Comparison::Exists), "Boolean(false)"),
            ("nothing asked", Filter::All(vec![]), ""),
        ] {
            let got = text_of(&filter).replace(" IN ([Utf8(\"a\")])", " = Utf8(\"a\")");
            assert_eq!(got, want, "{name}");
        }
    }
}
