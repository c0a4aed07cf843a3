//! Conditions on events, as data.
//!
//! A comparison is typed by its literal: numbers compare as numbers, texts as texts, booleans as
//! booleans. A value that is absent matches only `NotEquals`, `NotIn` and `NotExists`.

use super::Operand;
use crate::decimal::Decimal;

/// Which events count.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// Events that match every one; with nothing in it, every event.
    All(Vec<Filter>),
    /// Events that match at least one.
    Any(Vec<Filter>),
    /// Events that do not match.
    Not(Box<Filter>),
    /// Events whose value passes a comparison.
    Test(Test),
}

impl Filter {
    /// Adds what its conditions look at to `found`.
    pub fn operands<'f>(&'f self, found: &mut Vec<&'f Operand>) {
        match self {
            Self::All(parts) | Self::Any(parts) => {
                parts.iter().for_each(|part| part.operands(found));
            }
            Self::Not(part) => part.operands(found),
            Self::Test(test) => found.push(&test.operand),
        }
    }

    /// The filter that every event matches.
    pub fn everything() -> Self {
        Self::All(Vec::new())
    }

    /// Whether this is the empty filter, written or left out.
    pub fn is_everything(&self) -> bool {
        matches!(self, Self::All(filters) if filters.is_empty())
    }
}

/// Everything.
impl Default for Filter {
    fn default() -> Self {
        Self::everything()
    }
}

/// One comparison of one value of an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Test {
    /// The value that is compared.
    pub operand: Operand,
    /// What it is compared with, and how.
    pub comparison: Comparison,
}

/// How a value is compared. Texts compare by their bytes. Against a built-in field that is a
/// moment, a literal is a text in RFC 3339 (UTC, as the field is printed).
#[derive(Debug, Clone, PartialEq)]
pub enum Comparison {
    /// The value is this one.
    Equals(Literal),
    /// The value is another one, or absent.
    NotEquals(Literal),
    /// The value is one of these.
    In(Vec<Literal>),
    /// The value is none of these, or absent.
    NotIn(Vec<Literal>),
    /// The value lies above.
    GreaterThan(Literal),
    /// The value lies above or is equal.
    GreaterOrEqual(Literal),
    /// The value lies below.
    LessThan(Literal),
    /// The value lies below or is equal.
    LessOrEqual(Literal),
    /// The value lies between the two, both included.
    Between(Literal, Literal),
    /// The value's text contains this one.
    Contains(String),
    /// The value's text does not contain this one.
    NotContains(String),
    /// The value's text starts with this one.
    StartsWith(String),
    /// The value's text ends with this one.
    EndsWith(String),
    /// The value's text matches a pattern: `%` is any text, `_` any one character.
    Like(String),
    /// There is a value.
    Exists,
    /// There is none.
    NotExists,
}

impl Comparison {
    /// The name a meter file uses.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Equals(_) => "equals",
            Self::NotEquals(_) => "not_equals",
            Self::In(_) => "in",
            Self::NotIn(_) => "not_in",
            Self::GreaterThan(_) => "greater_than",
            Self::GreaterOrEqual(_) => "greater_or_equal",
            Self::LessThan(_) => "less_than",
            Self::LessOrEqual(_) => "less_or_equal",
            Self::Between(_, _) => "between",
            Self::Contains(_) => "contains",
            Self::NotContains(_) => "not_contains",
            Self::StartsWith(_) => "starts_with",
            Self::EndsWith(_) => "ends_with",
            Self::Like(_) => "like",
            Self::Exists => "exists",
            Self::NotExists => "not_exists",
        }
    }
}

/// A value written in a definition; how it is written decides its type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Literal {
    /// An unquoted number, exactly as written.
    Number(Decimal),
    /// Anything quoted, and anything that is neither a number nor `true` or `false`.
    Text(String),
    /// An unquoted `true` or `false`.
    Boolean(bool),
}
