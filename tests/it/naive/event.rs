//! Events as they are sent, and as they count.

use std::collections::BTreeMap;

use bigdecimal::num_bigint::BigInt;

use super::number::{self, Reading};

/// One line of input.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Line {
    /// An event in our own shape.
    Event(Sent),
    /// A text that is no event in our shape.
    Broken(String),
}

/// An event as it is sent.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Sent {
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) customer: Option<String>,
    pub(crate) resource: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) timestamp: Option<Moment>,
    pub(crate) properties: Vec<(String, Property)>,
}

/// A timestamp as it is sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Moment {
    /// An instant in microseconds, written with this offset and more digits than are kept.
    Instant { micros: i64, offset_minutes: i32, finer_digits: String },
    /// A text that is no instant.
    NoInstant(String),
}

/// The value of a property as it is sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Property {
    /// A JSON number, as written.
    Number(String),
    Text(String),
    Boolean(bool),
    /// An array, as written.
    Array(String),
    Null,
    Object(Vec<(String, Property)>),
}

/// A value that counts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Units of 10^-38.
    Number(BigInt),
    Text(String),
    Boolean(bool),
    Array(String),
}

impl Value {
    /// The number it is wherever a number is asked for.
    pub(crate) fn number(&self) -> Option<BigInt> {
        match self {
            Self::Number(units) => Some(units.clone()),
            Self::Text(text) => match number::read(text) {
                Reading::Number(units) => Some(units),
                Reading::TooManyDigits | Reading::NoNumber => None,
            },
            Self::Boolean(_) | Self::Array(_) => None,
        }
    }

    /// The text it is as a group or compared with a text.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Number(units) => number::text(units, number::DIGITS),
            Self::Text(text) | Self::Array(text) => text.clone(),
            Self::Boolean(boolean) => boolean.to_string(),
        }
    }
}

/// An accepted event; events stand in the order of receipt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) customer: Option<String>,
    pub(crate) resource: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) micros: i64,
    /// Whether `micros` is the moment of receipt.
    pub(crate) received: bool,
    pub(crate) properties: BTreeMap<String, Value>,
}

impl Event {
    /// The value of a built-in field that is a text.
    pub(crate) fn field(&self, name: &str) -> Option<Value> {
        let text = match name {
            "event_name" => Some(&self.name),
            "idempotency_key" => Some(&self.key),
            "customer_id" => self.customer.as_ref(),
            "resource_id" => self.resource.as_ref(),
            "source" => self.source.as_ref(),
            other => panic!("no text field `{other}`"),
        };
        text.cloned().map(Value::Text)
    }
}
