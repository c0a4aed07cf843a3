//! Why an event was refused. Refused input is data: it is counted, kept and listed.

use crate::time::Timestamp;

/// Why one event was refused. The event is at fault, never the lake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Not readable as one JSON object, CSV record or Parquet row.
    #[error("not readable: {detail}")]
    Unreadable {
        /// What the reader met.
        detail: String,
    },
    /// A top-level field that events do not have.
    #[error("unknown field `{field}`; other values belong in `properties`")]
    UnknownField {
        /// The name found.
        field: String,
    },
    /// A name that occurs twice, also as `a.b` beside `a: {b}`.
    #[error("field `{field}` occurs twice")]
    DuplicateField {
        /// The name, dotted where nested.
        field: String,
    },
    /// A field that every event needs.
    #[error("field `{field}` is missing or empty")]
    Missing {
        /// The field's name.
        field: &'static str,
    },
    /// A field of another JSON type than it must have.
    #[error("field `{field}` must be {want}, found {found}")]
    WrongType {
        /// The field's name.
        field: String,
        /// The type it must have.
        want: &'static str,
        /// The type it has.
        found: &'static str,
    },
    /// A text longer than its limit.
    #[error("field `{field}` has {bytes} bytes, at most {max} are allowed")]
    TooLong {
        /// The field's name.
        field: String,
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// An event that was passed over unread, so that its length is not known.
    #[error("event has more than {read_mib} MiB, at most {max} bytes are allowed")]
    TooLongToRead {
        /// How much of it was looked at.
        read_mib: usize,
        /// The limit of an event, in bytes.
        max: usize,
    },
    /// A number of more digits than are kept exactly.
    #[error("field `{field}`: {number} has more than 38 integer or 38 fractional digits")]
    NumberTooLarge {
        /// The field's name.
        field: String,
        /// The number as sent, shortened.
        number: String,
    },
    /// More properties than one event may have.
    #[error("{count} properties, at most {max} are allowed")]
    TooManyProperties {
        /// How many it has.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// A timestamp that is no instant.
    #[error("timestamp `{text}` {reason}")]
    TimestampUnreadable {
        /// The text found, shortened.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A timestamp further ahead of the clock than is allowed.
    #[error("timestamp {timestamp} is more than {limit_hours} h ahead of {now}")]
    TimestampInFuture {
        /// The event's instant.
        timestamp: Timestamp,
        /// The clock.
        now: Timestamp,
        /// How far ahead it may be.
        limit_hours: u32,
    },
}

impl Rejection {
    /// A short word for the reason, stable across versions.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "unreadable",
            Self::UnknownField { .. } => "unknown_field",
            Self::DuplicateField { .. } => "duplicate_field",
            Self::Missing { .. } => "missing_field",
            Self::WrongType { .. } => "wrong_type",
            Self::TooLong { .. } | Self::TooLongToRead { .. } => "too_long",
            Self::NumberTooLarge { .. } => "number_too_large",
            Self::TooManyProperties { .. } => "too_many_properties",
            Self::TimestampUnreadable { .. } => "timestamp_unreadable",
            Self::TimestampInFuture { .. } => "timestamp_in_future",
        }
    }

    /// The field at fault, where one is.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::UnknownField { field }
            | Self::DuplicateField { field }
            | Self::WrongType { field, .. }
            | Self::TooLong { field, .. }
            | Self::NumberTooLarge { field, .. } => Some(field),
            Self::Missing { field } => Some(field),
            Self::TooLongToRead { .. } => Some("event"),
            Self::TooManyProperties { .. } => Some("properties"),
            Self::TimestampUnreadable { .. } | Self::TimestampInFuture { .. } => Some("timestamp"),
            Self::Unreadable { .. } => None,
        }
    }
}

/// The beginning of `text`, for messages: at most 80 characters.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
