//! A foreign record, made into an event by a mapping.
//!
//! Every format brings its record as names and values, nested objects as dotted names; what they
//! mean is decided here, once.

use std::borrow::Cow;
use std::collections::BTreeSet;

use jiff::tz::TimeZone;

use super::mapping::{KeyOrigin, Mapping, Origin, TimestampForm};
use crate::error::{Error, Result as Outcome};
use crate::event::json::reject_duplicates;
use crate::event::{Event, IDEMPOTENCY_KEY_MAX_BYTES, Rejection, Value, shortened};
use crate::time::{EpochUnit, Timestamp, TimestampError};

/// The names and values of one record, in the order of the input.
pub(super) type Record<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

/// Makes events of records.
#[derive(Debug)]
pub(super) struct Mapper {
    mapping: Mapping,
    used: BTreeSet<String>,
    /// Fields of events, with the columns that the mapping names for them.
    named: Vec<(&'static str, String)>,
    /// What the names of members of the object of properties begin with.
    prefix: String,
}

impl Mapper {
    /// A mapper for `mapping`.
    pub(super) fn new(mapping: Mapping) -> Self {
        Self {
            used: mapping.used_fields(),
            named: mapping.named_fields(),
            prefix: format!("{}.", mapping.properties),
            mapping,
        }
    }

    /// Whether a file with these columns has every one that the mapping names.
    ///
    /// # Errors
    /// The first that is not there, with the nearest name that is.
    pub(super) fn check_columns(&self, file: &str, columns: &[&str]) -> Outcome<()> {
        let missing = self.named.iter().find(|(_, column)| !columns.contains(&column.as_str()));
        let Some((field, column)) = missing else { return Ok(()) };
        let near = columns.iter().min_by_key(|known| {
            strsim::damerau_levenshtein(&column.to_lowercase(), &known.to_lowercase())
        });
        let near = near.map_or_else(
            || "the file has no columns".to_owned(),
            |near| format!("the nearest is `{near}`"),
        );
        Err(Error::invalid(format!(
            "{file}: no column `{column}`, which the mapping names for {field}; {near}"
        )))
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
        if self.mapping.properties_object {
            // The members of an object are there in its place.
            let found = find(&record, &self.mapping.properties).map(|value| match value {
                Value::Text(_) => "a text",
                Value::Number(_) => "a number",
                Value::Boolean(_) => "a boolean",
                Value::Json(_) => "an array",
            });
            if let Some(found) = found {
                let field = self.mapping.properties.clone();
                return Err(Rejection::WrongType { field, want: "an object", found });
            }
        }
        let properties = record.into_iter().filter(|(name, _)| !self.used.contains(name.as_ref()));
        // The members of an object `properties` are properties already.
        let prefix = self.prefix.as_str();
        event.properties =
            properties.map(|(name, value)| (without_prefix(name, prefix), value)).collect();
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
                let (mut joined, mut present) = (String::new(), false);
                for name in names {
                    let value = find(record, name);
                    let part =
                        value.map_or(Ok(Cow::Borrowed("")), |value| text_of(field, value))?;
                    present |= !part.is_empty();
                    // A length before each part keeps ("a", "bc") and ("ab", "c") apart.
                    if !joined.is_empty() {
                        joined.push('|');
                    }
                    joined.push_str(&format!("{}:{part}", part.len()));
                }
                if !present {
                    return Err(Rejection::Missing { field });
                }
                // Parts of any length are an identity; only their text would be too long for one.
                if joined.len() > IDEMPOTENCY_KEY_MAX_BYTES {
                    joined = blake3::hash(joined.as_bytes()).to_hex()[..32].to_owned();
                }
                Ok(Some(Cow::Owned(joined)))
            }
            KeyOrigin::Content => Ok(Some(Cow::Owned(content_key(record)))),
        }
    }

    fn timestamp(&self, record: &Record<'_>) -> Result<Option<Timestamp>, Rejection> {
        let value = find(record, &self.mapping.timestamp);
        let text = value.map_or(Ok(Cow::Borrowed("")), |value| text_of("timestamp", value))?;
        if text.is_empty() {
            // Whoever says where the instant stands does not mean the moment of receipt.
            let named = self.named.iter().any(|(field, _)| *field == "timestamp");
            return if named && self.mapping.timestamp_required {
                Err(Rejection::Missing { field: "timestamp" })
            } else {
                Ok(None)
            };
        }
        let zone = self.mapping.zone.as_ref();
        let parsed = match (&self.mapping.timestamp_form, zone) {
            (TimestampForm::Epoch(unit), _) => Timestamp::parse_epoch(&text, *unit),
            (TimestampForm::Pattern(pattern), Some(zone)) => {
                Timestamp::parse_format(&text, pattern, zone)
            }
            (TimestampForm::Pattern(pattern), None) => parse_with_offset(&text, pattern),
            (TimestampForm::SecondsOrText, _) => {
                match Timestamp::parse_epoch(&text, EpochUnit::Seconds) {
                    Err(TimestampError::NotEpoch(_)) => Timestamp::parse_rfc3339(&text),
                    read => read,
                }
            }
            (TimestampForm::Text, zone) => Timestamp::parse_rfc3339(&text).or_else(|error| {
                // A date alone is a day, in UTC where nothing else is said.
                match zone {
                    Some(zone) => Timestamp::parse_local(&text, zone),
                    None if is_date(&text) => Timestamp::parse_local(&text, &TimeZone::UTC),
                    None => Err(error),
                }
            }),
        };
        let unreadable = |error: TimestampError| Rejection::TimestampUnreadable {
            text: shortened(&text),
            reason: error.to_string(),
        };
        parsed.map(Some).map_err(unreadable)
    }
}

/// The instant of a text whose pattern says how far it is from UTC.
fn parse_with_offset(text: &str, pattern: &str) -> Result<Timestamp, TimestampError> {
    let instant = Timestamp::parse_format(text, pattern, &TimeZone::UTC)?;
    let parts = jiff::fmt::strtime::BrokenDownTime::parse(pattern, text);
    let placed = parts.is_ok_and(|parts| {
        parts.offset().is_some() || parts.iana_time_zone().is_some() || parts.timestamp().is_some()
    });
    if placed { Ok(instant) } else { Err(TimestampError::NoOffset) }
}

fn is_date(text: &str) -> bool {
    text.len() == "YYYY-MM-DD".len()
}

fn without_prefix<'a>(name: Cow<'a, str>, prefix: &str) -> Cow<'a, str> {
    match name {
        Cow::Borrowed(name) => Cow::Borrowed(name.strip_prefix(prefix).unwrap_or(name)),
        Cow::Owned(name) => {
            Cow::Owned(name.strip_prefix(prefix).map(ToOwned::to_owned).unwrap_or(name))
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

    fn mapper(arguments: &[&str], key: Option<&str>, format: Option<&str>) -> Mapper {
        let mut mapping = Mapping::default();
        arguments.iter().for_each(|argument| mapping.set(argument).unwrap());
        key.into_iter().for_each(|key| mapping.set_key(key));
        format.into_iter().for_each(|format| mapping.set_timestamp_format(format).unwrap());
        Mapper::new(mapping)
    }

    #[test]
    fn a_column_that_is_named_must_be_there() {
        for (name, arguments, key, want) in [
            ("all there", vec!["customer_id=who"], None, None),
            ("nothing named", vec![], None, None),
            ("misspelt", vec!["customer_id=woh"], None, Some("f: no column `woh`")),
            ("nearest", vec!["timestamp=whem"], None, Some("timestamp; the nearest is `when`")),
            (
                "part of a key",
                vec![],
                Some("id,lin"),
                Some("`lin`, which the mapping names for id"),
            ),
        ] {
            let error = mapper(&arguments, key, None).check_columns("f", &["id", "who", "when"]);
            match want {
                None => assert!(error.is_ok(), "{name}"),
                Some(want) => {
                    let error = error.unwrap_err().to_string();
                    assert!(error.contains(want), "{name}: {error}");
                }
            }
        }
    }

    #[test]
    fn instants_and_keys_that_are_not_there_are_refused() {
        let when = |text: &str| vec![("when".into(), Value::Text(text.to_owned().into()))];
        let pattern = Some("%Y-%m-%d %H:%M");
        for (name, mapper, record, want) in [
            ("instant absent", mapper(&["timestamp=at"], None, None), record(), "`timestamp`"),
            ("instant empty", mapper(&["timestamp=when"], None, None), when(""), "`timestamp`"),
            (
                "a form of instants but none there",
                mapper(&[], None, pattern),
                record(),
                "`timestamp`",
            ),
            (
                "no offset and no zone",
                mapper(&["timestamp=when"], None, pattern),
                when("2026-06-01 12:00"),
                "has no offset",
            ),
            ("no part of the key", mapper(&[], Some("a,b"), None), record(), "`idempotency_key`"),
        ] {
            let message = mapper.event(record).unwrap_err().to_string();
            assert!(message.contains(want), "{name}: {message}");
        }
        for (name, format, text) in [
            ("offset in the pattern", Some("%Y-%m-%d %H:%M %z"), "2026-06-01 02:00 +0200"),
            ("date alone", None, "2026-06-01"),
        ] {
            let event = mapper(&["timestamp=when"], None, format).event(when(text)).unwrap();
            assert_eq!(event.timestamp.unwrap().to_string(), "2026-06-01T00:00:00Z", "{name}");
        }
    }

    #[test]
    fn a_long_joined_key_becomes_a_hash() {
        let mapper = mapper(&[], Some("id,who"), None);
        let mut long = record();
        assert_eq!(mapper.event(long.clone()).unwrap().idempotency_key, "1:7|4:acme");
        long[1].1 = Value::Text("x".repeat(300).into());
        assert_eq!(mapper.event(long).unwrap().idempotency_key.len(), 32);
    }
}
