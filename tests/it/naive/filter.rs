//! Filters: which events count.

use std::cmp::Ordering;

use super::event::{Event, Value};
use super::meter::{Meter, Operand};
use super::number::{self, Reading};

/// A condition on an event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
    Test(Operand, Comparison),
}

/// What a value is compared with, and how.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Comparison {
    Equals(Literal),
    NotEquals(Literal),
    In(Vec<Literal>),
    NotIn(Vec<Literal>),
    GreaterThan(Literal),
    GreaterOrEqual(Literal),
    LessThan(Literal),
    LessOrEqual(Literal),
    Between(Literal, Literal),
    Contains(String),
    NotContains(String),
    StartsWith(String),
    EndsWith(String),
    Like(String),
    Exists,
    NotExists,
}

/// A literal; its type decides how it is compared.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    /// A number as written.
    Number(String),
    Text(String),
    Boolean(bool),
}

impl Filter {
    /// Whether `event` meets the condition.
    pub(crate) fn holds(&self, event: &Event, meter: &Meter) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(event, meter)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(event, meter)),
            Self::Not(part) => !part.holds(event, meter),
            Self::Test(operand, comparison) => match meter.value(operand, event) {
                Some(value) => comparison.holds(&value),
                None => matches!(
                    comparison,
                    Comparison::NotExists | Comparison::NotEquals(_) | Comparison::NotIn(_)
                ),
            },
        }
    }
}

impl Comparison {
    /// Whether a value that is there meets it.
    fn holds(&self, value: &Value) -> bool {
        let compared = |literal, allowed: &[Ordering]| {
            compare(value, literal).is_some_and(|ordering| allowed.contains(&ordering))
        };
        let equals = |literal| compared(literal, &[Ordering::Equal]);
        match self {
            Self::Equals(literal) => equals(literal),
            Self::NotEquals(literal) => !equals(literal),
            Self::In(literals) => literals.iter().any(equals),
            Self::NotIn(literals) => !literals.iter().any(equals),
            Self::GreaterThan(literal) => compared(literal, &[Ordering::Greater]),
            Self::GreaterOrEqual(literal) => {
                compared(literal, &[Ordering::Greater, Ordering::Equal])
            }
            Self::LessThan(literal) => compared(literal, &[Ordering::Less]),
            Self::LessOrEqual(literal) => compared(literal, &[Ordering::Less, Ordering::Equal]),
            Self::Between(low, high) => {
                compared(low, &[Ordering::Greater, Ordering::Equal])
                    && compared(high, &[Ordering::Less, Ordering::Equal])
            }
            Self::Contains(part) => value.text().contains(part),
            Self::NotContains(part) => !value.text().contains(part),
            Self::StartsWith(part) => value.text().starts_with(part),
            Self::EndsWith(part) => value.text().ends_with(part),
            Self::Like(pattern) => {
                let text: Vec<char> = value.text().chars().collect();
                like(&text, &pattern.chars().collect::<Vec<_>>())
            }
            Self::Exists => true,
            Self::NotExists => false,
        }
    }
}

/// How `value` stands to `literal` in the literal's type; nothing where it is of no such type.
fn compare(value: &Value, literal: &Literal) -> Option<Ordering> {
    match literal {
        Literal::Number(text) => {
            let Reading::Number(units) = number::read(text) else {
                panic!("the literal {text} is no number");
            };
            Some(value.number()?.cmp(&units))
        }
        Literal::Text(text) => Some(value.text().as_bytes().cmp(text.as_bytes())),
        Literal::Boolean(boolean) => match value {
            Value::Boolean(value) => Some(value.cmp(boolean)),
            Value::Number(_) | Value::Text(_) | Value::Array(_) => None,
        },
    }
}

/// `%` stands for any characters, `_` for one.
fn like(text: &[char], pattern: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['%', rest @ ..] => (0..=text.len()).any(|start| like(&text[start..], rest)),
        ['_', rest @ ..] => !text.is_empty() && like(&text[1..], rest),
        [first, rest @ ..] => text.first() == Some(first) && like(&text[1..], rest),
    }
}
