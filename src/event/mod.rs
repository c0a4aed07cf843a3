//! One usage event: its envelope, its properties, and the rules that every event must meet.
//!
//! Decoders ([`json`] and those of `ingest`) fill an [`Event`] with borrowed text;
//! [`Event::check`] applies the limits. Nothing here does I/O or knows Arrow.

use std::borrow::Cow;

use crate::decimal::Number;
use crate::time::Timestamp;

pub mod json;
mod rejection;

pub use rejection::{Rejection, shortened};

/// Longest `idempotency_key`, in bytes.
pub const IDEMPOTENCY_KEY_MAX_BYTES: usize = 255;
/// Longest `customer_id`, `resource_id` and `source`, in bytes.
pub const ID_MAX_BYTES: usize = 256;
/// Longest `event_name`, in bytes.
pub const EVENT_NAME_MAX_BYTES: usize = 128;
/// Longest property name, dots included, in bytes.
pub const PROPERTY_NAME_MAX_BYTES: usize = 1024;
/// Most properties of one event, after nested objects became dotted names.
pub const PROPERTIES_MAX: usize = 2_000;
/// Longest event, in bytes of its input.
pub const EVENT_MAX_BYTES: usize = 1 << 20;

/// The value of one property. Null is no value: such a property is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number, exact.
    Number(Number),
    /// A text; one that reads as a number counts as one wherever a number is asked for.
    Text(Cow<'a, str>),
    /// True or false.
    Boolean(bool),
    /// An array, as its JSON text.
    Json(Cow<'a, str>),
}

impl Value<'_> {
    /// The same value, borrowing nothing.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Number(number) => Value::Number(number),
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Self::Boolean(boolean) => Value::Boolean(boolean),
            Self::Json(text) => Value::Json(Cow::Owned(text.into_owned())),
        }
    }
}

/// A decoded event. Absent and empty optional fields are `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event<'a> {
    /// What happened.
    pub event_name: Cow<'a, str>,
    /// The sender's identity of the event.
    pub idempotency_key: Cow<'a, str>,
    /// Whose usage it is.
    pub customer_id: Option<Cow<'a, str>>,
    /// What was used.
    pub resource_id: Option<Cow<'a, str>>,
    /// Which system sent it; part of the identity.
    pub source: Option<Cow<'a, str>>,
    /// When it happened; `None` means at the moment of receipt.
    pub timestamp: Option<Timestamp>,
    /// Names and values, nested objects as dotted names, in the order sent.
    pub properties: Vec<(Cow<'a, str>, Value<'a>)>,
}

/// What a deployment decides about events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRules {
    /// Whether an event without a customer is refused.
    pub customer_required: bool,
    /// How far ahead of the clock a timestamp may be, in hours.
    pub future_max_hours: u32,
}

impl Default for EventRules {
    fn default() -> Self {
        Self { customer_required: true, future_max_hours: 24 }
    }
}

impl Event<'_> {
    /// Checks fields, limits and timestamp, in this order.
    ///
    /// # Errors
    /// The first rule that the event breaks.
    pub fn check(&self, rules: EventRules, now: Timestamp) -> Result<(), Rejection> {
        self.check_fields(rules)?;
        self.check_limits()?;
        let Some(timestamp) = self.timestamp else { return Ok(()) };
        let limit_micros = i64::from(rules.future_max_hours) * 3_600_000_000;
        if timestamp.micros() > now.micros().saturating_add(limit_micros) {
            let limit_hours = rules.future_max_hours;
            return Err(Rejection::TimestampInFuture { timestamp, now, limit_hours });
        }
        Ok(())
    }

    fn check_fields(&self, rules: EventRules) -> Result<(), Rejection> {
        if self.event_name.is_empty() {
            return Err(Rejection::Missing { field: "event_name" });
        }
        if self.idempotency_key.is_empty() {
            return Err(Rejection::Missing { field: "idempotency_key" });
        }
        if rules.customer_required && self.customer_id.is_none() {
            return Err(Rejection::Missing { field: "customer_id" });
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), Rejection> {
        limit("event_name", &self.event_name, EVENT_NAME_MAX_BYTES)?;
        limit("idempotency_key", &self.idempotency_key, IDEMPOTENCY_KEY_MAX_BYTES)?;
        for (field, value) in [
            ("customer_id", &self.customer_id),
            ("resource_id", &self.resource_id),
            ("source", &self.source),
        ] {
            limit(field, value.as_deref().unwrap_or_default(), ID_MAX_BYTES)?;
        }
        let (count, max) = (self.properties.len(), PROPERTIES_MAX);
        if count > max {
            return Err(Rejection::TooManyProperties { count, max });
        }
        self.properties
            .iter()
            .find(|(name, _)| name.len() > PROPERTY_NAME_MAX_BYTES)
            .map_or(Ok(()), |(name, _)| limit(&shortened(name), name, PROPERTY_NAME_MAX_BYTES))
    }
}

fn limit(field: &str, text: &str, max: usize) -> Result<(), Rejection> {
    let bytes = text.len();
    if bytes > max {
        return Err(Rejection::TooLong { field: field.to_owned(), bytes, max });
    }
    Ok(())
}

/// The first name that occurs twice among `properties`.
pub fn duplicate_name<'e>(properties: &'e [(Cow<'_, str>, Value<'_>)]) -> Option<&'e str> {
    const QUADRATIC_MAX: usize = 24;
    if properties.len() <= QUADRATIC_MAX {
        return properties.iter().enumerate().find_map(|(place, (name, _))| {
            properties[..place].iter().any(|(other, _)| other == name).then_some(name.as_ref())
        });
    }
    let mut seen = std::collections::HashSet::with_capacity(properties.len());
    properties.iter().map(|(name, _)| name.as_ref()).find(|name| !seen.insert(*name))
}
