//! What a correction makes of an event: other values of its own, or those of another event.
//!
//! The identity never changes. Numbers are read from text to exact values, as those of events are.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::array::RecordBatch;
use serde_json::value::RawValue;

use super::select::Identity;
use crate::decimal::parse_number;
use crate::dedupe::{Hasher, Key};
use crate::error::{Error, Result};
use crate::event::json::scalar;
use crate::event::{EVENT_MAX_BYTES, Event, EventRules, Rejection, Value, shortened};
use crate::ingest::read::{ReadEvents, ReadRecord};
use crate::ingest::restore::event_of;
use crate::meter::PROPERTY_PREFIX;
use crate::schema::{
    CUSTOMER_ID, EVENT_NAME, IDEMPOTENCY_KEY, PROPERTIES, RESOURCE_ID, SOURCE, TIMESTAMP,
};
use crate::time::Timestamp;

/// A part of an event that can change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Name,
    Customer,
    Resource,
    Timestamp,
    Property(String),
}

impl Part {
    /// What `name` means: a field, else a property; `property.<name>` is a property in any case.
    fn named(name: &str) -> Result<Self> {
        let of_object = name.strip_prefix(PROPERTIES).and_then(|rest| rest.strip_prefix('.'));
        Ok(match (name.strip_prefix(PROPERTY_PREFIX).or(of_object), name) {
            (Some(""), _) | (None, "") => {
                return Err(Error::invalid(format!("`{name}` names no property")));
            }
            (Some(property), _) => Self::Property(property.to_owned()),
            (None, EVENT_NAME) => Self::Name,
            (None, CUSTOMER_ID) => Self::Customer,
            (None, RESOURCE_ID) => Self::Resource,
            (None, TIMESTAMP) => Self::Timestamp,
            (None, IDEMPOTENCY_KEY | SOURCE) => {
                return Err(Error::invalid(format!(
                    "`{name}` belongs to the identity of an event, which never changes: void the event \
                     and ingest another one (a property of that name is `property.{name}`)"
                )));
            }
            (None, property) => Self::Property(property.to_owned()),
        })
    }
}

/// New values of one event; `None` takes a value away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Change(BTreeMap<Part, Option<Value<'static>>>);

impl Change {
    fn add(&mut self, name: &str, value: Option<Value<'static>>) -> Result<()> {
        let part = Part::named(name)?;
        check_value(&part, name, value.as_ref())?;
        match self.0.insert(part, value) {
            None => Ok(()),
            Some(_) => Err(Error::invalid(format!("`{}` is changed twice", shortened(name)))),
        }
    }

    fn apply(&self, event: &mut Event<'static>) -> Result<()> {
        for (part, value) in &self.0 {
            let text = || value.as_ref().map(|value| Cow::Owned(text_of(value)));
            match part {
                Part::Name => event.event_name = text().unwrap_or_default(),
                Part::Customer => event.customer_id = text().filter(|text| !text.is_empty()),
                Part::Resource => event.resource_id = text().filter(|text| !text.is_empty()),
                Part::Timestamp => event.timestamp = Some(instant(&text().unwrap_or_default())?),
                Part::Property(name) => {
                    event.properties.retain(|(known, _)| known != name);
                    let value = value.clone().map(|value| (Cow::Owned(name.clone()), value));
                    event.properties.extend(value);
                }
            }
        }
        Ok(())
    }
}

/// Refuses what can be no value of a part.
fn check_value(part: &Part, name: &str, value: Option<&Value<'_>>) -> Result<()> {
    match (part, value) {
        (Part::Name | Part::Timestamp, None) => {
            Err(Error::invalid(format!("`{name}` cannot be taken away, every event has one")))
        }
        (Part::Timestamp, Some(Value::Text(text))) => instant(text).map(|_| ()),
        (Part::Timestamp, Some(_)) => {
            Err(Error::invalid("`timestamp` is a text in RFC 3339, such as 2026-10-05T14:30:00Z"))
        }
        (
            Part::Name | Part::Customer | Part::Resource,
            Some(Value::Json(_) | Value::Boolean(_)),
        ) => Err(Error::invalid(format!("`{name}` is a text"))),
        (Part::Name | Part::Customer | Part::Resource | Part::Property(_), _) => Ok(()),
    }
}

fn instant(text: &str) -> Result<Timestamp> {
    Timestamp::parse_rfc3339(text).map_err(|error| {
        Error::invalid(format!("timestamp `{}` {error}", shortened(text))).with_source(error)
    })
}

fn text_of(value: &Value<'_>) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::Text(text) | Value::Json(text) => text.clone().into_owned(),
        Value::Boolean(boolean) => boolean.to_string(),
    }
}

/// The changes of an amendment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Of every event.
    all: Change,
    /// Of single events, beside those.
    each: HashMap<Key, Change>,
}

impl Changes {
    /// The changes of `name=value` texts, names whose values go, and a timestamp. A value is a number,
    /// `true`, `false`, a quoted text or an array where it is written as JSON writes it, else a text; a
    /// field's is always a text, in quotes or without.
    ///
    /// # Errors
    /// A text without `=`, a name that cannot change, a value that is none, the same name twice.
    pub fn parse(set: &[String], unset: &[String], timestamp: Option<&str>) -> Result<Self> {
        let mut all = Change::default();
        for text in set {
            let Some((name, value)) = text.split_once('=') else {
                return Err(Error::invalid(format!("`{text}` sets nothing: write NAME=VALUE")));
            };
            all.add(name, Some(written(name, value)?))?;
        }
        for name in unset {
            all.add(name, None)?;
        }
        if let Some(text) = timestamp {
            all.add(TIMESTAMP, Some(Value::Text(Cow::Owned(text.to_owned()))))?;
        }
        Ok(Self { all, each: HashMap::new() })
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.all.0.is_empty() && self.each.values().all(|change| change.0.is_empty())
    }

    /// The event with its changes; `None` where it is like that already.
    ///
    /// # Errors
    /// An event that breaks a rule afterwards.
    pub(super) fn changed(
        &self,
        key: &Key,
        old: &Event<'static>,
        (rules, now): (EventRules, Timestamp),
    ) -> Result<Option<Event<'static>>> {
        let mut event = old.clone();
        self.all.apply(&mut event)?;
        if let Some(change) = self.each.get(key) {
            change.apply(&mut event)?;
        }
        if alike(old, &event) {
            return Ok(None);
        }
        // Who never had a customer need not get one now.
        let customer_required = rules.customer_required && old.customer_id.is_some();
        check(&event, EventRules { customer_required, ..rules }, now)?;
        Ok(Some(event))
    }
}

/// The value that a text of the command line stands for.
fn written(name: &str, text: &str) -> Result<Value<'static>> {
    let owned = || Value::Text(Cow::Owned(text.to_owned()));
    if !matches!(Part::named(name)?, Part::Property(_)) {
        // Quoted or not, it is the same text; digits stay as they are.
        let quoted = serde_json::from_str::<String>(text).ok();
        return Ok(quoted.map_or_else(owned, |text| Value::Text(Cow::Owned(text))));
    }
    let Ok(raw) = serde_json::from_str::<&RawValue>(text) else {
        return Ok(owned());
    };
    if raw.get() == "null" || raw.get().starts_with('{') {
        return Err(Error::invalid(format!(
            "`{name}` cannot be set to {}: a value is taken away with unset, and a member of an object \
             is set by its dotted name",
            shortened(text)
        )));
    }
    match scalar(name, raw) {
        Ok(Some(value)) => Ok(value.into_owned()),
        Ok(None) => Ok(owned()),
        Err(rejection) => Err(Error::invalid(rejection.to_string())),
    }
}

fn check(event: &Event<'_>, rules: EventRules, now: Timestamp) -> Result<()> {
    let bytes: usize =
        event.properties.iter().map(|(name, value)| name.len() + value_bytes(value)).sum();
    let checked = match bytes > EVENT_MAX_BYTES {
        true => {
            let field = "event".to_owned();
            Err(Rejection::TooLong { field, bytes, max: EVENT_MAX_BYTES })
        }
        false => event.check(rules, now),
    };
    checked.map_err(|rejection| {
        let source = event.source.as_deref().unwrap_or_default().to_owned();
        let key = event.idempotency_key.clone().into_owned();
        let identity = Identity { source, key };
        Error::invalid(format!(
            "event {identity} would be rejected: {rejection}; nothing was changed"
        ))
    })
}

/// Bytes of the text of a value, roughly.
pub(super) fn value_bytes(value: &Value<'_>) -> usize {
    match value {
        Value::Text(text) | Value::Json(text) => text.len(),
        Value::Number(_) | Value::Boolean(_) => 16,
    }
}

/// Whether two events of one identity say the same, wherever their values lie.
fn alike(one: &Event<'_>, other: &Event<'_>) -> bool {
    let values = |event: &Event<'_>| -> BTreeMap<String, (bool, String)> {
        let value = |value: &Value<'_>| match value {
            // A text of the same letters is another value.
            Value::Boolean(boolean) => (true, boolean.to_string()),
            Value::Text(text) => match crate::decimal::canonical_number(text) {
                Some(number) => (false, number.to_string()),
                None => (false, text.clone().into_owned()),
            },
            Value::Number(_) | Value::Json(_) => (false, text_of(value)),
        };
        event.properties.iter().map(|(name, v)| (name.clone().into_owned(), value(v))).collect()
    };
    one.event_name == other.event_name
        && one.customer_id == other.customer_id
        && one.resource_id == other.resource_id
        && one.timestamp == other.timestamp
        && values(one) == values(other)
}

/// Whole events that take the places of others.
#[derive(Debug, Default)]
pub struct Replacements {
    events: Vec<RecordBatch>,
    places: HashMap<Key, (usize, usize)>,
}

impl Replacements {
    /// The event in the place of `old`; `None` where it is the same.
    ///
    /// # Errors
    /// A defect of ours: an event that was not asked for.
    pub(super) fn changed(
        &self,
        key: &Key,
        old: &Event<'static>,
    ) -> Result<Option<Event<'static>>> {
        let place =
            self.places.get(key).and_then(|&(batch, row)| Some((self.events.get(batch)?, row)));
        let (rows, row) = place.ok_or_else(|| Error::internal("an event without a replacement"))?;
        let event = event_of(rows, row)?;
        Ok((!alike(old, &event)).then_some(event))
    }
}

/// The events that `read` holds, and which they take the place of.
///
/// # Errors
/// An identity that occurs twice; nothing at all.
pub fn replacements(read: Vec<ReadEvents>) -> Result<(Replacements, BTreeSet<Identity>)> {
    let (mut all, mut identities) = (Replacements::default(), BTreeSet::new());
    for ReadEvents { input, rows, keys, lines } in read {
        for (row, (key, line)) in keys.into_iter().zip(lines).enumerate() {
            let event = event_of(&rows, row)?;
            let source = event.source.unwrap_or_default().into_owned();
            let identity = Identity { source, key: event.idempotency_key.into_owned() };
            if all.places.insert(key, (all.events.len(), row)).is_some() {
                return Err(twice(&input, line, &identity));
            }
            identities.insert(identity);
        }
        all.events.push(rows);
    }
    some(&identities)?;
    Ok((all, identities))
}

fn twice(input: &str, line: u64, identity: &Identity) -> Error {
    Error::invalid(format!("{input}:{line}: event {identity} occurs twice; nothing was changed"))
}

fn some(identities: &BTreeSet<Identity>) -> Result<()> {
    match identities.is_empty() {
        true => Err(Error::invalid("the input names no event; nothing was changed")),
        false => Ok(()),
    }
}

/// The events that `records` name: the columns `idempotency_key` and, if there is one, `source`; where a
/// record names none, it is `source`. Other columns say nothing.
///
/// # Errors
/// A record without a key, an identity that occurs twice, nothing at all.
pub fn identities(records: &[ReadRecord], source: &str) -> Result<BTreeSet<Identity>> {
    let mut found = BTreeSet::new();
    for record in records {
        let identity = identity_of(record, source)?;
        if !found.insert(identity.clone()) {
            return Err(twice(&record.input, record.line, &identity));
        }
    }
    some(&found)?;
    Ok(found)
}

fn identity_of(record: &ReadRecord, source: &str) -> Result<Identity> {
    let text = |wanted: &str| -> Result<Option<String>> {
        let found = record.values.iter().find(|(name, _)| name == wanted);
        match found.and_then(|(_, value)| value.as_ref()) {
            None => Ok(None),
            Some(Value::Boolean(_) | Value::Json(_)) => {
                let place = format!("{}:{}", record.input, record.line);
                Err(Error::invalid(format!("{place}: `{wanted}` is a text; nothing was changed")))
            }
            Some(value) => Ok(Some(text_of(value)).filter(|text| !text.is_empty())),
        }
    };
    let key = text(IDEMPOTENCY_KEY)?.ok_or_else(|| {
        Error::invalid(format!(
            "{}:{}: there is no `{IDEMPOTENCY_KEY}`; nothing was changed",
            record.input, record.line
        ))
    })?;
    Ok(Identity { source: text(SOURCE)?.unwrap_or_else(|| source.to_owned()), key })
}

/// The changes that `records` name, beside those of `all`: every column but `idempotency_key` and
/// `source` is a new value; a null of JSON takes the value away, an empty cell of CSV leaves it.
///
/// # Errors
/// As [`identities`], and names that cannot change.
pub fn amendments(
    all: Changes,
    records: &[ReadRecord],
    (source, hasher): (&str, &Hasher),
) -> Result<(Changes, BTreeSet<Identity>)> {
    let identities = identities(records, source)?;
    let mut changes = all;
    for record in records {
        let identity = identity_of(record, source)?;
        let mut change = Change::default();
        for (name, value) in &record.values {
            if name == IDEMPOTENCY_KEY || name == SOURCE || (name == PROPERTIES && value.is_none())
            {
                continue;
            }
            let value = value.clone().map(as_number);
            change.add(name, value).map_err(|error| {
                Error::invalid(format!("{}:{}: {error}", record.input, record.line))
            })?;
        }
        changes.each.insert(hasher.identity(Some(&identity.source), &identity.key), change);
    }
    Ok((changes, identities))
}

/// A text that is a number in canonical form as one: a cell of CSV has no other way to be a number, and
/// where texts are asked for they are the same.
fn as_number(value: Value<'static>) -> Value<'static> {
    match &value {
        Value::Text(text) if crate::decimal::canonical_number(text).is_some() => {
            parse_number(text).map_or(value, Value::Number)
        }
        Value::Text(_) | Value::Number(_) | Value::Boolean(_) | Value::Json(_) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::json::decode_event;

    fn event() -> Event<'static> {
        let text = r#"{"event_name":"e","idempotency_key":"k","customer_id":"c",
            "timestamp":"2026-10-01T00:00:00Z","properties":{"bytes":"12","flag":"true","t":"x"}}"#;
        let event = decode_event(text.as_bytes()).unwrap();
        let rows = crate::ingest::restore::RowMaker::new("t", &arrow::datatypes::Schema::empty());
        let rows = rows.rows(&[event], Timestamp::from_micros(0)).unwrap();
        event_of(&rows, 0).unwrap()
    }

    fn changed(set: &[&str], unset: &[&str]) -> Result<Option<Event<'static>>> {
        let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let changes = Changes::parse(&owned(set), &owned(unset), None)?;
        let now = Timestamp::parse_rfc3339("2026-11-01T00:00:00Z").unwrap();
        changes.changed(&Key::default(), &event(), (EventRules::default(), now))
    }

    #[test]
    fn values_are_read_as_json_writes_them_and_else_are_texts() {
        for (text, want) in [
            ("p=5", Value::Number(parse_number("5").unwrap())),
            ("p=0.10", Value::Number(parse_number("0.1").unwrap())),
            ("p=\"5\"", Value::Text("5".into())),
            ("p=01234", Value::Text("01234".into())),
            ("p=true", Value::Boolean(true)),
            ("p=a=b", Value::Text("a=b".into())),
            ("p=", Value::Text("".into())),
            ("p=[1,2]", Value::Json("[1,2]".into())),
        ] {
            let event = changed(&[text], &[]).unwrap().unwrap();
            let (_, value) = event.properties.iter().find(|(name, _)| name == "p").unwrap();
            assert_eq!(*value, want, "{text}");
        }
        let event = changed(&["customer_id=007", "property.source=x"], &["t"]).unwrap().unwrap();
        assert_eq!(event.customer_id.as_deref(), Some("007"));
        let quoted = changed(&["customer_id=\"z \\\"z\\\"\"", "event_name=\"f\""], &[]);
        let quoted = quoted.unwrap().unwrap();
        assert_eq!(quoted.customer_id.as_deref(), Some("z \"z\""));
        assert_eq!(quoted.event_name, "f");
        assert!(changed(&["customer_id=\"\""], &[]).is_err());
        let names: Vec<&str> = event.properties.iter().map(|(name, _)| name.as_ref()).collect();
        assert_eq!(names, ["bytes", "flag", "source"]);
    }

    #[test]
    fn an_event_that_is_like_that_already_does_not_change() {
        for (name, set, unset, changes) in [
            ("the same number", &["bytes=12"][..], &[][..], false),
            ("the same number as a text", &["bytes=\"12\""], &[], false),
            ("another text of the number", &["bytes=\"12.0\""], &[], true),
            ("a boolean in the place of its text", &["flag=true"], &[], true),
            ("what is not there goes", &[], &["nothing"], false),
            ("the same instant", &["timestamp=2026-10-01T02:00:00+02:00"], &[], false),
            ("another customer", &["customer_id=d"], &[], true),
        ] {
            assert_eq!(changed(set, unset).unwrap().is_some(), changes, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (set, unset, want) in [
            (&["idempotency_key=x"][..], &[][..], "belongs to the identity"),
            (&["source=x"], &[], "belongs to the identity"),
            (&["bytes"], &[], "write NAME=VALUE"),
            (&["p=null"], &[], "taken away with unset"),
            (&["p={\"a\":1}"], &[], "dotted name"),
            (&["p=1", "p=2"], &[], "changed twice"),
            (&["p=1"], &["p"], "changed twice"),
            (&["timestamp=soon"], &[], "timestamp `soon`"),
            (&["p=1e99"], &[], "more than 38"),
            (&[], &["event_name"], "every event has one"),
            (&[], &["customer_id"], "event `k` would be rejected: field `customer_id`"),
            (&["timestamp=2027-01-01T00:00:00Z"], &[], "event `k` would be rejected: timestamp"),
        ] {
            let error = changed(set, unset).unwrap_err().to_string();
            assert!(error.contains(want), "{set:?} {unset:?}: {error}");
        }
    }
}
