//! Events and foreign records from JSON text, without a float in between.
//!
//! Values are kept as the raw text of the document until it is known what they become, so that a
//! number is read digit by digit and text is borrowed wherever it has no escapes.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Event, Rejection, Value, duplicate_name, shortened};
use crate::decimal::{NumberError, parse_number};
use crate::time::Timestamp;

/// Deepest nesting of objects inside `properties`.
const DEPTH_MAX: usize = 64;

/// A JSON object as its names and the raw text of their values, in order, repeats included.
pub struct Members<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// A text that borrows from the document unless it has escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

/// Decodes one event of our own shape from the text of a JSON object.
///
/// # Errors
/// The first of: not readable, a field that is unknown, doubled or of the wrong type, a timestamp
/// that is no RFC 3339 instant. Limits are [`Event::check`]'s.
pub fn decode_event(text: &[u8]) -> Result<Event<'_>, Rejection> {
    let members = object(text)?;
    let mut event = Event::default();
    let mut seen = 0_u8;
    let (mut timestamp, mut properties) = (None, None);
    for (name, raw) in members.0 {
        let place = match name.as_ref() {
            "event_name" => {
                event.event_name = text_field("event_name", raw)?.unwrap_or_default();
                0
            }
            "idempotency_key" => {
                event.idempotency_key = text_field("idempotency_key", raw)?.unwrap_or_default();
                1
            }
            "customer_id" => {
                event.customer_id = text_field("customer_id", raw)?;
                2
            }
            "resource_id" => {
                event.resource_id = text_field("resource_id", raw)?;
                3
            }
            "source" => {
                event.source = text_field("source", raw)?;
                4
            }
            "timestamp" => {
                // Null is absent; an empty text is no instant, and is told so.
                timestamp = match raw.get() {
                    "\"\"" => Some(Cow::Borrowed("")),
                    _ => text_field("timestamp", raw)?,
                };
                5
            }
            "properties" => {
                properties = Some(raw);
                6
            }
            unknown => return Err(Rejection::UnknownField { field: shortened(unknown) }),
        };
        if seen & (1 << place) != 0 {
            return Err(Rejection::DuplicateField { field: name.into_owned() });
        }
        seen |= 1 << place;
    }
    if let Some(raw) = properties {
        event.properties = properties_of(raw)?;
    }
    event.timestamp = timestamp.map(|text| rfc3339(&text)).transpose()?;
    Ok(event)
}

/// Reads the text of one JSON object into its members.
///
/// # Errors
/// [`Rejection::Unreadable`] for anything else.
pub fn object(text: &[u8]) -> Result<Members<'_>, Rejection> {
    let text = std::str::from_utf8(text)
        .map_err(|error| Rejection::Unreadable { detail: format!("not UTF-8: {error}") })?;
    if !text.trim_ascii_start().starts_with('{') {
        // A document that is no object is either some other value or no JSON at all.
        serde_json::from_str::<&RawValue>(text).map_err(|error| unreadable(&error))?;
        return Err(Rejection::Unreadable { detail: "not a JSON object".to_owned() });
    }
    serde_json::from_str(text).map_err(|error| unreadable(&error))
}

fn unreadable(error: &serde_json::Error) -> Rejection {
    let text = error.to_string();
    let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
    Rejection::Unreadable { detail: format!("{reason} at column {}", error.column()) }
}

fn properties_of<'a>(raw: &'a RawValue) -> Result<Vec<(Cow<'a, str>, Value<'a>)>, Rejection> {
    match raw.get().as_bytes()[0] {
        b'n' => Ok(Vec::new()),
        b'{' => {
            let mut properties = Vec::with_capacity(8);
            flatten(raw, "", &mut properties, 0)?;
            reject_duplicates(&properties)?;
            Ok(properties)
        }
        _ => Err(wrong_type("properties", "an object", raw)),
    }
}

/// # Errors
/// [`Rejection::DuplicateField`] naming a property that occurs twice.
pub fn reject_duplicates(properties: &[(Cow<'_, str>, Value<'_>)]) -> Result<(), Rejection> {
    duplicate_name(properties)
        .map_or(Ok(()), |name| Err(Rejection::DuplicateField { field: shortened(name) }))
}

/// Adds the members of the object `raw` to `properties`, named `prefix` + name; objects inside
/// become dotted names, nulls are left out.
///
/// # Errors
/// Nesting beyond 64 levels, or a number that is not kept exactly.
pub fn flatten<'a>(
    raw: &'a RawValue,
    prefix: &str,
    properties: &mut Vec<(Cow<'a, str>, Value<'a>)>,
    depth: usize,
) -> Result<(), Rejection> {
    if depth > DEPTH_MAX {
        let detail = format!("objects nested more than {DEPTH_MAX} levels deep");
        return Err(Rejection::Unreadable { detail });
    }
    let members: Members<'a> =
        serde_json::from_str(raw.get()).map_err(|error| unreadable(&error))?;
    flatten_members(members, prefix, properties, depth)
}

/// The same for members that were read already.
///
/// # Errors
/// As [`flatten`].
pub fn flatten_members<'a>(
    members: Members<'a>,
    prefix: &str,
    properties: &mut Vec<(Cow<'a, str>, Value<'a>)>,
    depth: usize,
) -> Result<(), Rejection> {
    for (name, value) in members.0 {
        let name = if prefix.is_empty() { name } else { Cow::Owned(format!("{prefix}{name}")) };
        if value.get().starts_with('{') {
            flatten(value, &format!("{name}."), properties, depth + 1)?;
        } else if let Some(value) = scalar(&name, value)? {
            properties.push((name, value));
        }
    }
    Ok(())
}

/// The value of a JSON scalar or array; `None` for null.
///
/// # Errors
/// A number that is not kept exactly.
pub fn scalar<'a>(name: &str, raw: &'a RawValue) -> Result<Option<Value<'a>>, Rejection> {
    let text = raw.get();
    Ok(Some(match text.as_bytes()[0] {
        b'n' => return Ok(None),
        b't' => Value::Boolean(true),
        b'f' => Value::Boolean(false),
        b'"' => Value::Text(unquoted(raw)?),
        b'[' | b'{' => Value::Json(Cow::Borrowed(text)),
        _ => {
            Value::Number(parse_number(text).map_err(|error| number_rejection(name, text, error))?)
        }
    }))
}

fn number_rejection(name: &str, text: &str, error: NumberError) -> Rejection {
    match error {
        NumberError::TooManyDigits => {
            Rejection::NumberTooLarge { field: shortened(name), number: shortened(text) }
        }
        NumberError::NotANumber => {
            Rejection::Unreadable { detail: format!("`{}` is no number", shortened(text)) }
        }
    }
}

/// The text of a JSON string, borrowed unless it has escapes.
fn unquoted(raw: &RawValue) -> Result<Cow<'_, str>, Rejection> {
    let quoted = raw.get();
    let inner = &quoted[1..quoted.len() - 1];
    if !inner.as_bytes().contains(&b'\\') {
        return Ok(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(quoted).map(Cow::Owned).map_err(|error| unreadable(&error))
}

/// A text field of the envelope; null and the empty text are `None`.
fn text_field<'a>(
    field: &'static str,
    raw: &'a RawValue,
) -> Result<Option<Cow<'a, str>>, Rejection> {
    match raw.get().as_bytes()[0] {
        b'n' => Ok(None),
        b'"' => Ok(Some(unquoted(raw)?).filter(|text| !text.is_empty())),
        _ => Err(wrong_type(field, "a text", raw)),
    }
}

fn wrong_type(field: &str, want: &'static str, raw: &RawValue) -> Rejection {
    let found = match raw.get().as_bytes()[0] {
        b'n' => "null",
        b't' | b'f' => "a boolean",
        b'"' => "a text",
        b'[' => "an array",
        b'{' => "an object",
        _ => "a number",
    };
    Rejection::WrongType { field: field.to_owned(), want, found }
}

fn rfc3339(text: &str) -> Result<Timestamp, Rejection> {
    Timestamp::parse_rfc3339(text).map_err(|error| Rejection::TimestampUnreadable {
        text: shortened(text),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decimal::Number;

    fn event(properties: &str) -> String {
        format!(
            r#"{{"event_name":"e","idempotency_key":"k","customer_id":"c","timestamp":"2026-10-01T00:00:00+02:00","properties":{properties}}}"#
        )
    }

    fn properties(json: &str) -> Vec<(String, Value<'static>)> {
        let text = event(json);
        let decoded = decode_event(text.as_bytes()).unwrap();
        let own = |value: Value<'_>| match value {
            Value::Number(number) => Value::Number(number),
            Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Value::Boolean(b) => Value::Boolean(b),
            Value::Json(text) => Value::Json(Cow::Owned(text.into_owned())),
        };
        decoded.properties.into_iter().map(|(n, v)| (n.into_owned(), own(v))).collect()
    }

    #[test]
    fn values_keep_their_type_and_nested_objects_become_dotted_names() {
        assert_eq!(
            properties(
                r#"{"a":5.0,"b":"1234","c":true,"d":null,"e":[1, 2],"f":{"g":{"h":"x\ny"}}}"#
            ),
            [
                ("a".to_owned(), Value::Number(Number::Integer(5))),
                ("b".to_owned(), Value::Text("1234".into())),
                ("c".to_owned(), Value::Boolean(true)),
                ("e".to_owned(), Value::Json("[1, 2]".into())),
                ("f.g.h".to_owned(), Value::Text("x\ny".into())),
            ]
        );
    }

    #[test]
    fn refused_with_the_field_by_name() {
        let deep = event(&format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200)));
        for (name, text, code, field) in [
            ("no JSON", "{".to_owned(), "unreadable", None),
            ("an array", "[]".to_owned(), "unreadable", None),
            ("a number", "12".to_owned(), "unreadable", None),
            ("trailing text", format!("{} x", event("{}")), "unreadable", None),
            (
                "unknown field",
                r#"{"evnt_name":"e"}"#.to_owned(),
                "unknown_field",
                Some("evnt_name"),
            ),
            (
                "field twice",
                r#"{"source":"a","source":"b"}"#.to_owned(),
                "duplicate_field",
                Some("source"),
            ),
            ("property twice", event(r#"{"a":1,"a":2}"#), "duplicate_field", Some("a")),
            (
                "dotted and nested",
                event(r#"{"a.b":1,"a":{"b":2}}"#),
                "duplicate_field",
                Some("a.b"),
            ),
            (
                "number as key",
                r#"{"idempotency_key":5}"#.to_owned(),
                "wrong_type",
                Some("idempotency_key"),
            ),
            ("properties no object", event("[1]"), "wrong_type", Some("properties")),
            (
                "no offset",
                r#"{"timestamp":"2026-10-01T00:00:00"}"#.to_owned(),
                "timestamp_unreadable",
                Some("timestamp"),
            ),
            (
                "39 digits",
                event(&format!(r#"{{"n":{}}}"#, "9".repeat(39))),
                "number_too_large",
                Some("n"),
            ),
            ("too deep", deep, "unreadable", None),
        ] {
            let rejection = decode_event(text.as_bytes()).unwrap_err();
            assert_eq!((rejection.code(), rejection.field()), (code, field), "{name}: {rejection}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        assert_eq!(decode_event(b"{\"event_name\":\"\xff\"}").unwrap_err().code(), "unreadable");
    }
}
