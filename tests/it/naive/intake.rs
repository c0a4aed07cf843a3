//! What becomes of lines: accepted, duplicate, conflict or rejected.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::correction::Corrections;
use super::event::{Event, Line, Moment, Property, Sent, Value};
use super::number::{self, Reading};

/// Furthest that a timestamp may be ahead of the clock.
const AHEAD_MAX_MICROS: i64 = 24 * 3_600 * 1_000_000;

/// How many lines became what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) accepted: u64,
    pub(crate) duplicate: u64,
    pub(crate) conflict: u64,
    pub(crate) rejected: u64,
}

/// Everything that was received so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Intake {
    /// In the order of receipt.
    pub(crate) events: Vec<Event>,
    identities: HashMap<(String, String), Content>,
}

/// What two events of one identity must agree in: all that was sent but the identity, as text.
type Content = (String, Option<String>, Option<String>, Option<i64>, BTreeMap<String, String>);

impl Intake {
    /// Receives `lines` at the instant `now`.
    pub(crate) fn receive(&mut self, lines: &[Line], now: i64, customer_required: bool) -> Counts {
        let mut counts = Counts::default();
        for line in lines {
            let event = match line {
                Line::Event(sent) => accept(sent, now, customer_required),
                Line::Broken(_) => None,
            };
            let Some(event) = event else {
                counts.rejected += 1;
                continue;
            };
            let identity = (event.source.clone().unwrap_or_default(), event.key.clone());
            let content = content(&event);
            match self.identities.get(&identity) {
                Some(first) if *first == content => counts.duplicate += 1,
                Some(_) => counts.conflict += 1,
                None => {
                    counts.accepted += 1;
                    self.identities.insert(identity, content);
                    self.events.push(event);
                }
            }
        }
        counts
    }
}

impl Intake {
    /// Receives `lines` where the newest event of an identity wins, if it and the one that counts are of
    /// `declared` names; says also how many took the place of another, which `model` then takes for
    /// ended for good.
    pub(crate) fn receive_upserts(
        &mut self,
        lines: &[Line],
        (now, customer_required): (i64, bool),
        declared: &BTreeSet<String>,
        model: &mut Corrections,
    ) -> (Counts, u64) {
        let (mut counts, mut replaced) = (Counts::default(), 0);
        for line in lines {
            let event = match line {
                Line::Event(sent) => accept(sent, now, customer_required),
                Line::Broken(_) => None,
            };
            let Some(event) = event else {
                counts.rejected += 1;
                continue;
            };
            let same = |other: &Event| {
                let source = |event: &Event| event.source.clone().unwrap_or_default();
                source(other) == source(&event) && other.key == event.key
            };
            if let Some(newest) = self.events.iter().rposition(same) {
                if content(&self.events[newest]) == content(&event) {
                    counts.duplicate += 1;
                    continue;
                }
                let counting = model.state(&self.events, newest);
                let is_open = counting.is_some_and(|counting| declared.contains(&counting.name));
                if !is_open || !declared.contains(&event.name) {
                    counts.conflict += 1;
                    continue;
                }
                model.correct(&self.events, &[newest], |_| false);
                replaced += 1;
            }
            counts.accepted += 1;
            self.events.push(event);
        }
        (counts, replaced)
    }
}

/// The event that `sent` is, if it breaks no rule.
pub(crate) fn accept(sent: &Sent, now: i64, customer_required: bool) -> Option<Event> {
    let mut flat = Vec::new();
    flatten("", &sent.properties, &mut flat)?;
    let count = flat.len();
    let properties: BTreeMap<String, Value> = flat.into_iter().collect();
    let optional = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let customer = optional(&sent.customer);
    let within = |text: &Option<String>, max| text.as_ref().is_none_or(|t: &String| t.len() <= max);
    let sound = properties.len() == count
        && (1..=128).contains(&sent.name.len())
        && (1..=255).contains(&sent.key.len())
        && (customer.is_some() || !customer_required)
        && [&customer, &sent.resource, &sent.source].into_iter().all(|text| within(text, 256));
    if !sound {
        return None;
    }
    let micros = match &sent.timestamp {
        None => now,
        Some(Moment::NoInstant(_)) => return None,
        Some(Moment::Instant { micros, .. }) if *micros > now + AHEAD_MAX_MICROS => return None,
        Some(Moment::Instant { micros, .. }) => *micros,
    };
    Some(Event {
        name: sent.name.clone(),
        key: sent.key.clone(),
        customer,
        resource: optional(&sent.resource),
        source: optional(&sent.source),
        micros,
        received: sent.timestamp.is_none(),
        properties,
    })
}

/// Nested objects as dotted names, nulls left out; nothing where a number has too many digits.
fn flatten(
    prefix: &str,
    properties: &[(String, Property)],
    flat: &mut Vec<(String, Value)>,
) -> Option<()> {
    for (name, property) in properties {
        let name = format!("{prefix}{name}");
        let value = match property {
            Property::Null => continue,
            Property::Object(inner) => {
                flatten(&format!("{name}."), inner, flat)?;
                continue;
            }
            Property::Number(text) => match number::read(text) {
                Reading::Number(units) => Value::Number(units),
                Reading::TooManyDigits => return None,
                Reading::NoNumber => panic!("`{text}` is no JSON number"),
            },
            Property::Text(text) => Value::Text(text.clone()),
            Property::Boolean(boolean) => Value::Boolean(*boolean),
            Property::Array(text) => Value::Array(text.clone()),
        };
        flat.push((name, value));
    }
    Some(())
}

fn content(event: &Event) -> Content {
    (
        event.name.clone(),
        event.customer.clone(),
        event.resource.clone(),
        Some(event.micros).filter(|_| !event.received),
        event.properties.iter().map(|(name, value)| (name.clone(), value.text())).collect(),
    )
}
