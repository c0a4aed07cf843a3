//! `--where`: conditions written as SQL, translated to a meter's filter with a filter's semantics.
//!
//! Parsed by DataFusion's SQL parser; what a filter cannot say (arithmetic, functions, subqueries,
//! two columns compared) is refused by name. Nothing of the text ever becomes SQL again.

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Ident, UnaryOperator, Value};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::decimal::{Decimal, parse_number};
use crate::error::{Error, Result};
use crate::meter::{Comparison, Filter, Literal, Meter, Operand, Test, resolve, resolve_stored};

/// Longest text of conditions, in bytes.
const TEXT_MAX_BYTES: usize = 64 << 10;
/// Most words and signs; a chain of conditions is as deep a tree as it is long.
const TOKENS_MAX: usize = 20_000;
/// Most conditions joined by `and` and `or`.
const JOINED_MAX: usize = 500;
/// Deepest nesting of conditions.
const DEPTH_MAX: usize = 50;

/// The filter that `text` stands for; names mean what they mean in `meter`.
///
/// # Errors
/// Text that is no condition, or one that a filter cannot say.
pub fn parse_conditions(text: &str, meter: &Meter) -> Result<Filter> {
    parse(text, &|name| resolve(name, meter))
}

/// The same where no meter is asked: names are built-in fields and properties.
///
/// # Errors
/// As [`parse_conditions`].
pub fn parse_stored_conditions(text: &str) -> Result<Filter> {
    parse(text, &resolve_stored)
}

/// What names mean.
type Resolve<'r> = &'r dyn Fn(&str) -> Operand;

fn parse(text: &str, resolve: Resolve<'_>) -> Result<Filter> {
    if text.len() > TEXT_MAX_BYTES {
        return Err(Error::invalid(format!(
            "--where has {} bytes, at most {TEXT_MAX_BYTES} are allowed",
            text.len()
        )));
    }
    let unreadable = |error: &dyn std::fmt::Display| {
        let message = error.to_string();
        let message = message.trim_start_matches("sql parser error: ").to_owned();
        Error::invalid(format!("--where `{text}`: {message}"))
    };
    let tokens = Tokenizer::new(&GenericDialect {}, text)
        .tokenize_with_location()
        .map_err(|error| unreadable(&error))?;
    let joins = tokens.iter().filter(|token| match &token.token {
        Token::Word(word) => matches!(word.keyword, Keyword::AND | Keyword::OR),
        _ => false,
    });
    if joins.count() > JOINED_MAX || tokens.len() > TOKENS_MAX {
        return Err(Error::invalid(format!(
            "--where joins more than {JOINED_MAX} conditions; a list is written `x in (1, 2, …)`"
        )));
    }
    let mut parser = Parser::new(&GenericDialect {})
        .with_recursion_limit(DEPTH_MAX)
        .with_tokens_with_locations(tokens);
    let parsed = parser.parse_expr().map_err(|error| unreadable(&error))?;
    parser.expect_token(&Token::EOF).map_err(|error| unreadable(&error))?;
    Translator { resolve }.filter(&parsed).map_err(|what| unreadable(&what))
}

struct Translator<'r> {
    resolve: Resolve<'r>,
}

impl Translator<'_> {
    fn filter(&self, expr: &Expr) -> Result<Filter, String> {
        match expr {
            Expr::Nested(inner) => self.filter(inner),
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
                Ok(Filter::Not(Box::new(self.filter(expr)?)))
            }
            Expr::BinaryOp { op: BinaryOperator::And, .. } => {
                Ok(Filter::All(self.joined(expr, &BinaryOperator::And)?))
            }
            Expr::BinaryOp { op: BinaryOperator::Or, .. } => {
                Ok(Filter::Any(self.joined(expr, &BinaryOperator::Or)?))
            }
            Expr::BinaryOp { left, op, right } => self.comparison(left, op, right),
            Expr::IsNull(expr) => self.test(expr, Comparison::NotExists),
            Expr::IsNotNull(expr) => self.test(expr, Comparison::Exists),
            Expr::InList { expr, list, negated } => {
                let list = list.iter().map(literal).collect::<Result<Vec<_>, _>>()?;
                let among = if *negated { Comparison::NotIn(list) } else { Comparison::In(list) };
                self.test(expr, among)
            }
            Expr::Between { expr, negated, low, high } => {
                let test = self.test(expr, Comparison::Between(literal(low)?, literal(high)?))?;
                Ok(if *negated { Filter::Not(Box::new(test)) } else { test })
            }
            Expr::Like { negated, any: false, expr, pattern, escape_char: None } => {
                let Literal::Text(pattern) = literal(pattern)? else {
                    return Err("LIKE takes a text".to_owned());
                };
                let test = self.test(expr, Comparison::Like(pattern))?;
                Ok(if *negated { Filter::Not(Box::new(test)) } else { test })
            }
            other => Err(format!(
                "`{other}` is no condition on a property, such as status in (200, 206) or domain like '%.test'"
            )),
        }
    }

    /// The parts of `a op b op c`, which is as deep a tree as it is long: walked, not recursed into.
    fn joined(&self, mut expr: &Expr, joint: &BinaryOperator) -> Result<Vec<Filter>, String> {
        let mut parts = Vec::new();
        while let Expr::BinaryOp { left, op, right } = expr
            && op == joint
        {
            parts.push(self.filter(right)?);
            expr = left;
        }
        parts.push(self.filter(expr)?);
        parts.reverse();
        Ok(parts)
    }

    fn comparison(&self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<Filter, String> {
        let flipped = name_of(left).is_none();
        let (name, value) = if flipped { (right, left) } else { (left, right) };
        let value = literal(value)?;
        let comparison = match (op, flipped) {
            (BinaryOperator::Eq, _) => Comparison::Equals(value),
            (BinaryOperator::NotEq, _) => Comparison::NotEquals(value),
            (BinaryOperator::Gt, false) | (BinaryOperator::Lt, true) => {
                Comparison::GreaterThan(value)
            }
            (BinaryOperator::GtEq, false) | (BinaryOperator::LtEq, true) => {
                Comparison::GreaterOrEqual(value)
            }
            (BinaryOperator::Lt, false) | (BinaryOperator::Gt, true) => Comparison::LessThan(value),
            (BinaryOperator::LtEq, false) | (BinaryOperator::GtEq, true) => {
                Comparison::LessOrEqual(value)
            }
            (other, _) => {
                return Err(format!("operator `{other}` is not among those of conditions"));
            }
        };
        self.test(name, comparison)
    }

    fn test(&self, name: &Expr, comparison: Comparison) -> Result<Filter, String> {
        let Some(name) = name_of(name) else {
            return Err(format!("`{name}` is no name of a property or field"));
        };
        let operand = (self.resolve)(&name);
        Ok(Filter::Test(Test { operand, comparison }))
    }
}

fn name_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(Ident { value, .. }) => Some(value.clone()),
        Expr::CompoundIdentifier(parts) => {
            Some(parts.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join("."))
        }
        Expr::Nested(inner) => name_of(inner),
        _ => None,
    }
}

fn literal(expr: &Expr) -> Result<Literal, String> {
    match expr {
        Expr::Nested(inner) => literal(inner),
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => number(text),
            Value::SingleQuotedString(text) => Ok(Literal::Text(text.clone())),
            Value::Boolean(boolean) => Ok(Literal::Boolean(*boolean)),
            Value::Null => Err("write `is null` or `is not null`".to_owned()),
            other => Err(format!("`{other}` is no number, text or boolean")),
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match literal(expr)? {
            Literal::Number(positive) => number(&format!("-{positive}")),
            _ => Err(format!("`{expr}` is no number")),
        },
        other => Err(format!("`{other}` is no number, text or boolean")),
    }
}

fn number(text: &str) -> Result<Literal, String> {
    // Events hold no other numbers, so a condition on one would only seem to mean something.
    let parsed: Result<Decimal, _> = parse_number(text).and_then(|_| text.parse());
    parsed.map(Literal::Number).map_err(|error| format!("number {text}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::{describe_filter, parse};

    fn meter() -> Meter {
        parse("meter: m\naggregation: count\n", "m.yaml").unwrap()
    }

    #[test]
    fn conditions_become_filters() {
        for (text, want) in [
            (
                "status in (200, 206) and not domain like '%.test'",
                "status in [200, 206] and not (domain like \"%.test\")",
            ),
            ("200 < status", "status greater_than 200"),
            (
                "a.b is null or property.source = 'x'",
                "a.b not_exists or property.source equals \"x\"",
            ),
            ("price between -1.50 and 2", "price between -1.5 and 2"),
        ] {
            let filter = parse_conditions(text, &meter()).unwrap();
            let got = describe_filter(&filter);
            assert!(!got.is_empty() && !want.is_empty(), "{text}");
            insta::assert_snapshot!(text, got);
        }
    }

    #[test]
    fn what_a_filter_cannot_say_is_refused_by_name() {
        for (text, want) in [
            ("bytes + 1 > 2", "bytes + 1"),
            ("lower(domain) = 'x'", "lower(domain)"),
            ("a = b", "`b` is no number, text or boolean"),
            ("status = null", "write `is null`"),
            ("status = 1; drop table events", "Expected: EOF"),
            ("exists (select 1)", "EXISTS"),
            ("status in (select 1)", "IN (SELECT 1)"),
            ("n > 0.000000000000000000000000000000000000001", "more digits"),
            ("n > 1e60", "more digits"),
        ] {
            let error = parse_conditions(text, &meter()).unwrap_err().to_string();
            assert!(error.to_lowercase().contains(&want.to_lowercase()), "{text}: {error}");
        }
        let deep = format!("{}a = 1{}", "(".repeat(200), ")".repeat(200));
        assert!(parse_conditions(&deep, &meter()).is_err());
        let long = vec!["a = 1"; 4_000].join(" or ");
        let error = parse_conditions(&long, &meter()).unwrap_err().to_string();
        assert!(error.contains("more than 500 conditions"), "{error}");
        assert!(parse_conditions(&vec!["a = 1"; 500].join(" or "), &meter()).is_ok());
    }
}
