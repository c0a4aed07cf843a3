//! A number computed from the values of an event, such as `bytes * replication_factor`.
//!
//! Written as SQL and parsed by the parser that the engine's SQL has; what is no exact arithmetic
//! on numbers (texts, comparisons, subqueries, other functions) is refused by name. Nothing of the
//! text becomes SQL again. How each event's number is computed is planned elsewhere.

use std::collections::BTreeMap;
use std::fmt;

use sqlparser::ast::{
    BinaryOperator, CeilFloorKind, DateTimeField, Expr, FunctionArg, FunctionArgExpr,
    FunctionArguments, UnaryOperator, Value,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::{Field, Lookup, Operand, resolve_among};
use crate::document::number;

/// Longest text of an expression, in bytes.
const TEXT_MAX_BYTES: usize = 4_096;
/// Most words and signs: what is computed for every event stays small.
const TOKENS_MAX: usize = 400;
/// Deepest nesting.
const DEPTH_MAX: usize = 30;

/// A number computed from the values of an event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expression {
    /// A number, in its canonical text.
    Number(String),
    /// The numeric value of an operand that is no expression.
    Value(Box<Operand>),
    /// The same with the other sign.
    Negative(Box<Self>),
    /// Two numbers combined.
    Binary(Box<Self>, Operator, Box<Self>),
    /// A function of numbers; at least one.
    Call(Function, Vec<Self>),
}

/// How two numbers are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// Exact sum.
    Plus,
    /// Exact difference.
    Minus,
    /// Exact product.
    Times,
    /// Quotient: exact where it has at most 18 fractional digits, else rounded half-even to
    /// those; of a division by zero there is none.
    Divide,
}

impl Operator {
    /// Its sign.
    pub fn sign(self) -> char {
        match self {
            Self::Plus => '+',
            Self::Minus => '-',
            Self::Times => '*',
            Self::Divide => '/',
        }
    }
}

/// A function of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Function {
    /// Without its sign; of one number.
    Abs,
    /// The smallest whole number that is not below it; of one number.
    Ceil,
    /// The largest whole number that is not above it; of one number.
    Floor,
    /// The first number that there is.
    Coalesce,
    /// The largest; nothing if one of them is not there.
    Greatest,
    /// The smallest; nothing if one of them is not there.
    Least,
}

impl Function {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Abs, Self::Ceil, Self::Floor, Self::Coalesce, Self::Greatest, Self::Least];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Abs => "abs",
            Self::Ceil => "ceil",
            Self::Floor => "floor",
            Self::Coalesce => "coalesce",
            Self::Greatest => "greatest",
            Self::Least => "least",
        }
    }

    fn takes_one(self) -> bool {
        matches!(self, Self::Abs | Self::Ceil | Self::Floor)
    }
}

impl Expression {
    /// What is read of an event, in the order of the text.
    pub fn operands(&self) -> Vec<&Operand> {
        match self {
            Self::Number(_) => Vec::new(),
            Self::Value(operand) => vec![operand],
            Self::Negative(of) => of.operands(),
            Self::Binary(left, _, right) => {
                left.operands().into_iter().chain(right.operands()).collect()
            }
            Self::Call(_, arguments) => arguments.iter().flat_map(Self::operands).collect(),
        }
    }
}

/// The one text of what is computed, whatever it was written like: every operation in brackets.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(text) => f.write_str(text),
            Self::Value(operand) => match operand.as_ref() {
                Operand::Property(name) => write!(f, "{}", name_text(name)),
                Operand::Field(field) => write!(f, "field {field}"),
                Operand::Lookup(name) => write!(f, "lookup {}", name_text(name)),
                Operand::Expression(inner) => write!(f, "{inner}"),
            },
            Self::Negative(of) => write!(f, "(-{of})"),
            Self::Binary(left, operator, right) => {
                write!(f, "({left} {} {right})", operator.sign())
            }
            Self::Call(function, arguments) => {
                let texts: Vec<String> = arguments.iter().map(ToString::to_string).collect();
                write!(f, "{}({})", function.name(), texts.join(", "))
            }
        }
    }
}

/// A name as SQL has it: in double quotes, unless it is plain.
fn name_text(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.';
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
    match starts && name.chars().all(plain) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

/// The expression that `text` stands for, names meaning what they mean beside `lookups`.
///
/// # Errors
/// What is wrong with it, to be shown beside its place.
pub(super) fn read(text: &str, lookups: &BTreeMap<String, Lookup>) -> Result<Expression, String> {
    if text.len() > TEXT_MAX_BYTES {
        return Err(format!("the expression has {} bytes, not up to {TEXT_MAX_BYTES}", text.len()));
    }
    let unreadable = |error: &dyn fmt::Display| {
        let message = error.to_string();
        let message = message.trim_start_matches("sql parser error: ");
        format!("the expression cannot be read: {message}")
    };
    let tokens = Tokenizer::new(&GenericDialect {}, text)
        .tokenize_with_location()
        .map_err(|error| unreadable(&error))?;
    if tokens.len() > TOKENS_MAX {
        return Err(format!("the expression has more than {TOKENS_MAX} words and signs"));
    }
    let mut parser = Parser::new(&GenericDialect {})
        .with_recursion_limit(DEPTH_MAX)
        .with_tokens_with_locations(tokens);
    let parsed = parser.parse_expr().map_err(|error| unreadable(&error))?;
    parser.expect_token(&Token::EOF).map_err(|error| unreadable(&error))?;
    let expression = translated(&parsed, lookups)?;
    match expression.operands().is_empty() {
        true => Err("the expression reads nothing of an event".to_owned()),
        false => Ok(expression),
    }
}

fn translated(expr: &Expr, lookups: &BTreeMap<String, Lookup>) -> Result<Expression, String> {
    match expr {
        Expr::Nested(inner) => translated(inner, lookups),
        Expr::Identifier(name) => value(&name.value, lookups),
        Expr::CompoundIdentifier(parts) => {
            let parts: Vec<&str> = parts.iter().map(|part| part.value.as_str()).collect();
            value(&parts.join("."), lookups)
        }
        Expr::Value(literal) => match &literal.value {
            Value::Number(text, _) => match number(text) {
                Ok(number) => Ok(Expression::Number(number.to_string())),
                Err(error) => Err(format!("number `{text}`: {error}")),
            },
            other => Err(format!("`{other}` is no number: an expression computes with numbers")),
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
            Ok(Expression::Negative(Box::new(translated(expr, lookups)?)))
        }
        Expr::UnaryOp { op: UnaryOperator::Plus, expr } => translated(expr, lookups),
        Expr::BinaryOp { left, op, right } => {
            let operator = match op {
                BinaryOperator::Plus => Operator::Plus,
                BinaryOperator::Minus => Operator::Minus,
                BinaryOperator::Multiply => Operator::Times,
                BinaryOperator::Divide => Operator::Divide,
                other => return Err(format!("`{other}` is none of `+`, `-`, `*` and `/`")),
            };
            let (left, right) = (translated(left, lookups)?, translated(right, lookups)?);
            Ok(Expression::Binary(Box::new(left), operator, Box::new(right)))
        }
        Expr::Ceil { expr, field } if is_plain(field) => call(Function::Ceil, &[expr], lookups),
        Expr::Floor { expr, field } if is_plain(field) => call(Function::Floor, &[expr], lookups),
        Expr::Function(function) => {
            let name = function.name.to_string();
            let lower = name.to_ascii_lowercase();
            let known = Function::ALL.into_iter().find(|known| known.name() == lower);
            let FunctionArguments::List(list) = &function.args else {
                return Err(format!("`{name}` has no arguments"));
            };
            let arguments = list.args.iter().map(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
                other => Err(format!("`{other}` is no argument of `{name}`")),
            });
            let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
            let plain = function.over.is_none()
                && function.filter.is_none()
                && list.clauses.is_empty()
                && list.duplicate_treatment.is_none();
            match known {
                Some(known) if plain => call(known, &arguments, lookups),
                _ => {
                    let names: Vec<&str> = Function::ALL.iter().map(|known| known.name()).collect();
                    Err(format!("`{expr}` is none of the functions `{}`", names.join("`, `")))
                }
            }
        }
        other => Err(format!("`{other}` is no arithmetic, such as bytes * replication_factor")),
    }
}

/// Whether a number is rounded to a whole one: neither to digits nor to days.
fn is_plain(field: &CeilFloorKind) -> bool {
    *field == CeilFloorKind::DateTimeField(DateTimeField::NoDateTime)
}

fn call(
    function: Function,
    arguments: &[&Expr],
    lookups: &BTreeMap<String, Lookup>,
) -> Result<Expression, String> {
    let wrong = if function.takes_one() { arguments.len() != 1 } else { arguments.is_empty() };
    if wrong {
        let wanted = if function.takes_one() { "one number" } else { "at least one number" };
        return Err(format!("`{}` takes {wanted}, not {}", function.name(), arguments.len()));
    }
    let arguments = arguments.iter().map(|argument| translated(argument, lookups));
    Ok(Expression::Call(function, arguments.collect::<Result<_, _>>()?))
}

fn value(name: &str, lookups: &BTreeMap<String, Lookup>) -> Result<Expression, String> {
    match resolve_among(name, lookups) {
        Operand::Field(field) => Err(format!(
            "the built-in field `{field}` is {}, and an expression computes with numbers; a property \
             of that name is `property.{field}`",
            kind(field)
        )),
        operand => Ok(Expression::Value(Box::new(operand))),
    }
}

fn kind(field: Field) -> &'static str {
    if field.is_time() { "a moment" } else { "a text" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, String> {
        read(text, &BTreeMap::new()).map(|expression| expression.to_string())
    }

    #[test]
    fn what_is_computed_has_one_text() {
        for (text, want) in [
            ("bytes * replication_factor", "(bytes * replication_factor)"),
            ("a+b*c - -2.50", "((a + (b * c)) - (-2.5))"),
            ("(a + b) * 1e3", "((a + b) * 1000)"),
            ("COALESCE(a.b, 0) / \"Größe\"", "(coalesce(a.b, 0) / \"Größe\")"),
            ("ceil(seconds / 60)", "ceil((seconds / 60))"),
            ("greatest(a, least(b, 5), abs(c))", "greatest(a, least(b, 5), abs(c))"),
            ("property.source + 1", "(source + 1)"),
        ] {
            assert_eq!(shown(text), Ok(want.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_arithmetic_is_refused_by_name() {
        for (text, want) in [
            ("bytes * 'two'", "`'two'` is no number"),
            ("bytes || x", "`||` is none of"),
            ("upper(x)", "`upper(x)` is none of the functions `abs`"),
            ("sum(x) over ()", "none of the functions"),
            ("abs(a, b)", "`abs` takes one number, not 2"),
            ("customer_id * 2", "the built-in field `customer_id` is a text"),
            ("timestamp + 1", "is a moment"),
            ("1 + 1", "reads nothing of an event"),
            ("a > 1", "`>` is none of"),
            ("a; drop table events", "Expected: EOF"),
            ("(select 1)", "is no arithmetic"),
            ("a * 1e60", "number `1e60`"),
            ("a +", "cannot be read"),
            ("", "cannot be read"),
            ("case when a then b end", "is no arithmetic"),
            ("ceil(a, 2)", "is no arithmetic"),
            ("floor(a TO DAY)", "is no arithmetic"),
        ] {
            let error = shown(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
        assert!(shown(&format!("{}a{}", "(".repeat(100), ")".repeat(100))).is_err());
        assert!(shown(&vec!["a"; 300].join("+")).unwrap_err().contains("more than 400"));
    }
}
