//! The built-in fields of an event that a meter can name.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// A field every event has a place for, named like its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// Name of the event.
    EventName,
    /// The sender's identity of the event.
    IdempotencyKey,
    /// Whose usage it is.
    CustomerId,
    /// What was used.
    ResourceId,
    /// Which system sent the event.
    Source,
    /// When it happened.
    Timestamp,
    /// When it was received.
    IngestedAt,
}

impl Field {
    /// Every field, in the order of the columns.
    pub const ALL: [Self; 7] = [
        Self::EventName,
        Self::IdempotencyKey,
        Self::CustomerId,
        Self::ResourceId,
        Self::Source,
        Self::Timestamp,
        Self::IngestedAt,
    ];

    /// The field's name, which is that of its column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EventName => "event_name",
            Self::IdempotencyKey => "idempotency_key",
            Self::CustomerId => "customer_id",
            Self::ResourceId => "resource_id",
            Self::Source => "source",
            Self::Timestamp => "timestamp",
            Self::IngestedAt => "ingested_at",
        }
    }

    /// The field of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.as_str() == name)
    }

    /// Whether its values are moments rather than texts.
    pub fn is_time(self) -> bool {
        matches!(self, Self::Timestamp | Self::IngestedAt)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Field {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::from_name(name).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join("`, `");
            Error::invalid(format!("unknown field `{name}`, the fields are `{known}`"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_found_by_its_name() {
        for field in Field::ALL {
            assert_eq!(field.to_string().parse::<Field>().unwrap(), field);
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = "customer".parse::<Field>().unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown field `customer`, the fields are `event_name`, `idempotency_key`, \
             `customer_id`, `resource_id`, `source`, `timestamp`, `ingested_at`"
        );
    }
}
