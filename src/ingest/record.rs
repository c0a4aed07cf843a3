//! A foreign record, made into an event by a mapping.
//!
//! Every format brings its record as names and values, nested objects as dotted names; what they
//! mean is decided here, once.

use std::borrow::Cow;
use std::collections::BTreeSet;

use jiff::tz::TimeZone;

use super::mapping::{KeyOrigin, Mapping, Origin, TimestampForm};
use crate::event::json::reject_duplicates;
use crate::event::{Event, Rejection, Value, shortened};
use crate::time::Timestamp;

/// The names and values of one record, in the order of the input.
pub(super) type Record<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

/// Makes events of records.
#[derive(Debug)]
pub(super) struct Mapper {
    mapping: Mapping,
    used: BTreeSet<String>,
}

impl Mapper {
    /// A mapper for `mapping`.
    pub(super) fn new(mapping: Mapping) -> Self {
        Self { used: mapping.used_fields(), mapping }
    }

    /// The event that `record` stands for.
    ///
    /// # Errors
    /// A field of the envelope that is no text or number, a timestamp that cannot be read, a
    /// property that occurs twice.
    pub(super) fn event<'a>(&self, record: Record<'a>) -> Result<Event<'a>, Rejection> {
        let mut event = Event {
            event_name: self
                .text("event_name", &self.mapping.event_name, &record)?
                .unwrap_or_default(),
            idempotency_key: self.key(&record)?.unwrap_or_default(),
            customer_id: self.text("customer_id", &self.mapping.customer_id, &record)?,
            resource_id: self.text("resource_id", &self.mapping.resource_id, &record)?,
            source: self.text("source", &self.mapping.source, &record)?,
            timestamp: self.timestamp(&record)?,
            properties: Vec::new(),
        };
        let properties = record.into_iter().filter(|(name, _)| !self.used.contains(name.as_ref()));
        // The members of an object `properties` are properties already.
        event.properties = properties.map(|(name, value)| (without_prefix(name), value)).collect();
        reject_duplicates(&event.properties)?;
        Ok(event)
    }

    fn text<'a>(
        &self,
        field: &'static str,
        origin: &Origin,
        record: &Record<'a>,
    ) -> Result<Option<Cow<'a, str>>, Rejection> {
        match origin {
            Origin::Constant(text) => Ok(Some(Cow::Owned(text.clone()))),
            Origin::Field(name) => {
                let Some(value) = find(record, name) else { return Ok(None) };
                Ok(Some(text_of(field, value)?).filter(|text| !text.is_empty()))
            }
        }
    }

    fn key<'a>(&self, record: &Record<'a>) -> Result<Option<Cow<'a, str>>, Rejection> {
        let field = "idempotency_key";
        match &self.mapping.key {
            KeyOrigin::Field(name) => self.text(field, &Origin::Field(name.clone()), record),
            KeyOrigin::Fields(names) => {
                let mut joined = String::new();
                for name in names {
                    let value = find(record, name);
                    let part =
                        value.map_or(Ok(Cow::Borrowed("")), |value| text_of(field, value))?;
                    // A length before each part keeps ("a", "bc") and ("ab", "c") apart.
                    if !joined.is_empty() {
                        joined.push('|');
                    }
                    joined.push_str(&format!("{}:{part}", part.len()));
                }
                Ok(Some(Cow::Owned(joined)))
            }
            KeyOrigin::Content => Ok(Some(Cow::Owned(content_key(record)))),
        }
    }

    fn timestamp(&self, record: &Record<'_>) -> Result<Option<Timestamp>, Rejection> {
        let Some(value) = find(record, &self.mapping.timestamp) else { return Ok(None) };
        let text = text_of("timestamp", value)?;
        if text.is_empty() {
            return Ok(None);
        }
        let zone = self.mapping.zone.as_ref();
        let parsed = match &self.mapping.timestamp_form {
            TimestampForm::Epoch(unit) => Timestamp::parse_epoch(&text, *unit),
            TimestampForm::Pattern(pattern) => {
                Timestamp::parse_format(&text, pattern, zone.unwrap_or(&TimeZone::UTC))
            }
            TimestampForm::Text => match (Timestamp::parse_rfc3339(&text), zone) {
                (Err(_), Some(zone)) => Timestamp::parse_local(&text, zone),
                (parsed, _) => parsed,
            },
        };
        let unreadable = |error: crate::time::TimestampError| Rejection::TimestampUnreadable {
            text: shortened(&text),
            reason: error.to_string(),
        };
        parsed.map(Some).map_err(unreadable)
    }
}

fn without_prefix(name: Cow<'_, str>) -> Cow<'_, str> {
    match name {
        Cow::Borrowed(name) => Cow::Borrowed(name.strip_prefix("properties.").unwrap_or(name)),
        Cow::Owned(name) => {
            Cow::Owned(name.strip_prefix("properties.").map(ToOwned::to_owned).unwrap_or(name))
        }
    }
}

fn find<'r, 'a>(record: &'r Record<'a>, name: &str) -> Option<&'r Value<'a>> {
    record.iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

fn text_of<'a>(field: &'static str, value: &Value<'a>) -> Result<Cow<'a, str>, Rejection> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        Value::Number(number) => Ok(Cow::Owned(number.to_string())),
        Value::Boolean(_) | Value::Json(_) => Err(Rejection::WrongType {
            field: field.to_owned(),
            want: "a text or a number",
            found: if matches!(value, Value::Json(_)) { "an array" } else { "a boolean" },
        }),
    }
}

/// A hash over every name and value, whatever their order.
fn content_key(record: &Record<'_>) -> String {
    let mut parts: Vec<(&str, Cow<'_, str>)> = record
        .iter()
        .map(|(name, value)| {
            let text = match value {
                Value::Text(text) | Value::Json(text) => Cow::Borrowed(text.as_ref()),
                Value::Number(number) => Cow::Owned(number.to_string()),
                Value::Boolean(boolean) => Cow::Owned(boolean.to_string()),
            };
            (name.as_ref(), text)
        })
        .collect();
    parts.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for (name, text) in parts {
        for part in [name, &text] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decimal::Number;

    fn record() -> Record<'static> {
        vec![
            ("id".into(), Value::Number(Number::Integer(7))),
            ("who".into(), Value::Text("acme".into())),
            ("when".into(), Value::Text("2026-06-01 12:00:00".into())),
            ("properties.bytes".into(), Value::Number(Number::Integer(5))),
        ]
    }

    #[test]
    fn fields_go_where_the_mapping_says_and_the_rest_are_properties() {
        let mut mapping = Mapping::default();
        for argument in ["idempotency_key=id", "customer_id=who", "timestamp=when"] {
            mapping.set(argument).unwrap();
        }
        mapping.event_name = Origin::Constant("hit".to_owned());
        mapping.zone = Some(crate::time::parse_zone("Europe/Berlin").unwrap());
        let event = Mapper::new(mapping).event(record()).unwrap();
        assert_eq!(event.idempotency_key, "7");
        assert_eq!(event.customer_id.as_deref(), Some("acme"));
        assert_eq!(event.timestamp.unwrap().to_string(), "2026-06-01T10:00:00Z");
        assert_eq!(event.properties, [("bytes".into(), Value::Number(Number::Integer(5)))]);
    }

    #[test]
    fn a_content_key_does_not_depend_on_the_order_of_fields() {
        let mut mapping = Mapping::default();
        mapping.set_key("content");
        let mapper = Mapper::new(mapping);
        let mut other = record();
        other.reverse();
        let key = |record| mapper.event(record).unwrap().idempotency_key.into_owned();
        assert_eq!(key(record()), key(other.clone()));
        other.pop();
        assert_ne!(key(record()), key(other));
    }
}
