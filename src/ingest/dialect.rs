//! The event payloads of other systems, so that an existing client can be pointed at us.
//!
//! Says which of their fields is what, and recognises them by the names of an event's fields.
//! Shapes were observed from the public clients of these systems. What stands around events (an
//! array, `{"events": […]}`) is `ingest::split`'s.

use std::fmt;
use std::str::FromStr;

use super::mapping::{KeyOrigin, Mapping, Origin, TimestampForm};
use crate::error::{Error, Result};

/// Whose shape an event has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// meterhouse's.
    Own,
    /// Stigg's `customerId`, `eventName`, `idempotencyKey`, `dimensions`.
    Stigg,
    /// Alguna's `accountId`, `eventName`, `uniqueId`.
    Alguna,
    /// Metronome's `customer_id`, `event_type`, `transaction_id`.
    Metronome,
    /// CloudEvents 1.0, which OpenMeter takes: `subject`, `type`, `id`, `data`.
    CloudEvents,
    /// Orb's `external_customer_id`, `event_name`, `idempotency_key`.
    Orb,
    /// Lago's `external_subscription_id`, `code`, `transaction_id`.
    Lago,
    /// Flexprice's `external_customer_id`, `event_name`, `event_id`.
    Flexprice,
}

impl Dialect {
    /// All but our own, by the names that they are asked for; two names may mean one.
    pub const NAMES: [(&'static str, Self); 8] = [
        ("stigg", Self::Stigg),
        ("alguna", Self::Alguna),
        ("metronome", Self::Metronome),
        ("cloudevents", Self::CloudEvents),
        ("openmeter", Self::CloudEvents),
        ("orb", Self::Orb),
        ("lago", Self::Lago),
        ("flexprice", Self::Flexprice),
    ];

    /// The dialect of an event whose fields have these names; `None` where they tell nothing.
    pub fn recognise(names: &[&str]) -> Option<Self> {
        let has = |name: &str| names.contains(&name);
        let marks: [(&[&str], Self); 7] = [
            (&["specversion", "id", "type"], Self::CloudEvents),
            (&["transaction_id", "event_type"], Self::Metronome),
            (&["transaction_id", "code"], Self::Lago),
            (&["uniqueId", "eventName"], Self::Alguna),
            (&["customerId", "eventName"], Self::Stigg),
            (&["event_name", "external_customer_id", "event_id"], Self::Flexprice),
            (&["event_name", "external_customer_id", "idempotency_key"], Self::Orb),
        ];
        let found = marks.into_iter().find(|(marks, _)| marks.iter().all(|mark| has(mark)));
        let own = ["event_name", "idempotency_key"].into_iter().any(has).then_some(Self::Own);
        found.map(|(_, dialect)| dialect).or(own)
    }

    /// Which of its fields is what; `None` for our own shape, which is read as it is.
    pub fn mapping(self) -> Option<Mapping> {
        let (key, event_name, customer_id) = match self {
            Self::Own => return None,
            Self::Stigg => ("idempotencyKey", "eventName", "customerId"),
            Self::Alguna => ("uniqueId", "eventName", "accountId"),
            Self::Metronome => ("transaction_id", "event_type", "customer_id"),
            Self::CloudEvents => ("id", "type", "subject"),
            Self::Orb => ("idempotency_key", "event_name", "external_customer_id"),
            Self::Lago => ("transaction_id", "code", "external_subscription_id"),
            Self::Flexprice => ("event_id", "event_name", "external_customer_id"),
        };
        let field = |name: &str| Origin::Field(name.to_owned());
        let mut mapping = Mapping {
            key: KeyOrigin::Field(key.to_owned()),
            event_name: field(event_name),
            customer_id: field(customer_id),
            timestamp_required: false,
            ..Mapping::default()
        };
        match self {
            Self::Stigg => {
                mapping.resource_id = field("resourceId");
                mapping.properties = "dimensions".to_owned();
            }
            Self::CloudEvents => {
                mapping.timestamp = "time".to_owned();
                mapping.properties = "data".to_owned();
                // Text or XML is data of its own, and nothing that could be measured.
                mapping.properties_object = true;
                // About the envelope, not about what was used.
                mapping.left_out =
                    ["specversion", "datacontenttype", "dataschema"].map(str::to_owned).into();
            }
            Self::Lago => mapping.timestamp_form = TimestampForm::SecondsOrText,
            Self::Own | Self::Alguna | Self::Metronome | Self::Orb | Self::Flexprice => {}
        }
        Some(mapping)
    }
}

/// As people write its owner's name.
impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "meterhouse",
            Self::Stigg => "Stigg",
            Self::Alguna => "Alguna",
            Self::Metronome => "Metronome",
            Self::CloudEvents => "CloudEvents",
            Self::Orb => "Orb",
            Self::Lago => "Lago",
            Self::Flexprice => "Flexprice",
        })
    }
}

impl FromStr for Dialect {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found
            .map(|(_, dialect)| *dialect)
            .ok_or_else(|| Error::invalid(format!("no payload is called `{text}`")))
    }
}
