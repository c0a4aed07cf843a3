//! The columns of the events table: the fixed envelope, and one column per property and kind.
//!
//! A property's values live in `i_<name>` (long), `d_<name>` (decimal(38,18)), `s_<name>` (text)
//! and `b_<name>` (boolean); a column exists once a value of that kind was seen, so the name fixes
//! the type and two writers cannot disagree about it. What has no column of its own (odd names,
//! arrays, numbers too large, names beyond the limit) is text in the map `properties`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

/// Name of the event, such as `transfer`.
pub const EVENT_NAME: &str = "event_name";
/// The sender's identity of the event.
pub const IDEMPOTENCY_KEY: &str = "idempotency_key";
/// Whose usage it is.
pub const CUSTOMER_ID: &str = "customer_id";
/// What was used.
pub const RESOURCE_ID: &str = "resource_id";
/// Which system sent it; part of the identity.
pub const SOURCE: &str = "source";
/// When it happened, microseconds UTC.
pub const TIMESTAMP: &str = "timestamp";
/// When its batch was received; one instant per batch, unlike that of any other batch.
pub const INGESTED_AT: &str = "ingested_at";
/// Place within its batch.
pub const ORDINAL: &str = "ordinal";
/// Whether the timestamp was `sent` or `received`.
pub const TIMESTAMP_SOURCE: &str = "timestamp_source";
/// `event` for a row that counts; what became of it for one that does not.
pub const KIND: &str = "kind";
/// Text of the properties that have no column of their own.
pub const PROPERTIES: &str = "properties";
/// Partition: the UTC date of the timestamp.
pub const EVENT_DATE: &str = "event_date";

/// Sort order of the rows of a data file.
pub const SORT_COLUMNS: [&str; 3] = [EVENT_NAME, CUSTOMER_ID, TIMESTAMP];

/// The value of [`KIND`] of an ordinary event.
pub const KIND_EVENT: &str = "event";
/// The value of [`KIND`] of an event that was taken back and counts no more.
pub const KIND_VOIDED: &str = "voided";
/// The value of [`KIND`] of an event whose place another row has taken.
pub const KIND_REPLACED: &str = "replaced";

/// The correction that made a row; null for a row that was received as it is.
pub const MADE_BY: &str = "made_by";
/// The correction because of which a row is no plain event any more, or the upsert (see [`upsert_id`]).
pub const ENDED_BY: &str = "ended_by";

/// What the ids of upserts begin with; those of corrections are hexadecimal digits.
const UPSERT_PREFIX: &str = "upsert-";

/// What ended the rows in whose place a batch brought newer ones.
pub fn upsert_id(batch: &str) -> String {
    format!("{UPSERT_PREFIX}{batch}")
}

/// The batch whose upsert has this id; `None` for the id of a correction.
pub fn batch_of_upsert(id: &str) -> Option<&str> {
    id.strip_prefix(UPSERT_PREFIX)
}

/// Most property names that get columns of their own, unless configured otherwise.
pub const PROPERTY_COLUMNS_DEFAULT: usize = 200;

/// Longest property name, in bytes, that may become a column name.
const COLUMN_NAME_MAX_BYTES: usize = 100;

/// Every column of the envelope, in table order.
pub const ENVELOPE: [&str; 12] = [
    EVENT_NAME,
    IDEMPOTENCY_KEY,
    CUSTOMER_ID,
    RESOURCE_ID,
    SOURCE,
    TIMESTAMP,
    INGESTED_AT,
    ORDINAL,
    TIMESTAMP_SOURCE,
    KIND,
    PROPERTIES,
    EVENT_DATE,
];

/// The kind of values that a property column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ValueKind {
    /// 64-bit integers, `i_`.
    Integer,
    /// decimal(38,18), `d_`.
    Decimal,
    /// Text, `s_`.
    Text,
    /// Booleans, `b_`.
    Boolean,
}

impl ValueKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Integer, Self::Decimal, Self::Text, Self::Boolean];

    /// What the names of such columns begin with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Integer => "i_",
            Self::Decimal => "d_",
            Self::Text => "s_",
            Self::Boolean => "b_",
        }
    }

    /// The Arrow type of such a column in a file.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Integer => DataType::Int64,
            Self::Decimal => DataType::Decimal128(38, 18),
            Self::Text => DataType::Utf8,
            Self::Boolean => DataType::Boolean,
        }
    }

    /// The name of the column that holds values of this kind of `property`.
    pub fn column(self, property: &str) -> String {
        format!("{}{property}", self.prefix())
    }

    /// The nullable field of that column.
    pub fn field(self, property: &str) -> Field {
        Field::new(self.column(property), self.data_type(), true)
    }
}

/// Kind and property name of a property column, `None` for a column of the envelope.
pub fn property_of_column(column: &str) -> Option<(ValueKind, &str)> {
    if ENVELOPE.contains(&column) {
        return None;
    }
    ValueKind::ALL
        .into_iter()
        .find_map(|kind| column.strip_prefix(kind.prefix()).map(|name| (kind, name)))
}

/// Whether a property of this name may have columns of its own: a plain ASCII identifier.
pub fn is_column_name(property: &str) -> bool {
    let mut bytes = property.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && property.len() <= COLUMN_NAME_MAX_BYTES
}

/// A UTC instant in microseconds, as every timestamp column is.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The type of [`PROPERTIES`]: text to text.
pub fn properties_type() -> DataType {
    let entries = Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, true),
    ]);
    DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entries), false)), false)
}

/// The envelope columns that a data file holds: all but the partition.
pub fn envelope_fields() -> Vec<Field> {
    let text = |name, nullable| Field::new(name, DataType::Utf8, nullable);
    let instant = |name| Field::new(name, timestamp_type(), false);
    vec![
        text(EVENT_NAME, false),
        text(IDEMPOTENCY_KEY, false),
        text(CUSTOMER_ID, true),
        text(RESOURCE_ID, true),
        text(SOURCE, true),
        instant(TIMESTAMP),
        instant(INGESTED_AT),
        Field::new(ORDINAL, DataType::Int64, false),
        text(TIMESTAMP_SOURCE, false),
        text(KIND, false),
        Field::new(PROPERTIES, properties_type(), true),
    ]
}

/// The columns that a table gets with its first correction.
pub fn correction_fields() -> [Field; 2] {
    [MADE_BY, ENDED_BY].map(|name| Field::new(name, DataType::Utf8, true))
}

/// `schema` with the columns that corrections need.
pub fn with_corrections(schema: &SchemaRef) -> SchemaRef {
    let mut fields = schema.fields().to_vec();
    let missing =
        correction_fields().into_iter().filter(|f| schema.field_with_name(f.name()).is_err());
    fields.extend(missing.map(Arc::new));
    Arc::new(Schema::new(fields))
}

/// The schema of a new events table: the envelope and the partition column.
pub fn events_schema() -> Schema {
    let mut fields = envelope_fields();
    fields.push(Field::new(EVENT_DATE, DataType::Date32, false));
    Schema::new(fields)
}

/// Columns of the quarantine: what was refused or in conflict, and why.
pub mod quarantine {
    use super::{DataType, Field, Schema, timestamp_type};

    /// Hash of outcome, reason, field, input, line and text, not of the message; a repeated run
    /// brings the same.
    pub const ID: &str = "id";
    /// When it was first received.
    pub const RECEIVED_AT: &str = "received_at";
    /// `rejected` or `conflict`.
    pub const OUTCOME: &str = "outcome";
    /// Short word for the reason.
    pub const REASON: &str = "reason";
    /// The field at fault.
    pub const FIELD: &str = "field";
    /// The reason in words.
    pub const MESSAGE: &str = "message";
    /// The input it came from.
    pub const INPUT: &str = "input";
    /// Line or row there, from 1.
    pub const LINE: &str = "line";
    /// The event as text.
    pub const EVENT: &str = "event";

    /// The schema of the quarantine table.
    pub fn schema() -> Schema {
        let text = |name| Field::new(name, DataType::Utf8, true);
        Schema::new(vec![
            Field::new(ID, DataType::Utf8, false),
            Field::new(RECEIVED_AT, timestamp_type(), false),
            text(OUTCOME),
            text(REASON),
            text(FIELD),
            text(MESSAGE),
            text(INPUT),
            Field::new(LINE, DataType::Int64, true),
            text(EVENT),
        ])
    }
}

/// Columns of the accounts: what became of every event that was ever submitted, by batch.
///
/// A batch may stand here more than once (two writers may take the same account over from the log):
/// readers take each `batch` once.
pub mod batches {
    use super::{DataType, Field, Schema, timestamp_type};

    /// Identity of the batch.
    pub const BATCH: &str = "batch";
    /// When it was received.
    pub const RECEIVED_AT: &str = "received_at";
    /// Where it came from.
    pub const SOURCE: &str = "source";
    /// Events submitted.
    pub const READ: &str = "read";
    /// Events that are new.
    pub const ACCEPTED: &str = "accepted";
    /// Events that were there already.
    pub const DUPLICATE: &str = "duplicate";
    /// Events whose identity another one holds.
    pub const CONFLICT: &str = "conflict";
    /// Events that were refused.
    pub const REJECTED: &str = "rejected";
    /// The version of the events table that holds them.
    pub const VERSION: &str = "version";

    /// The numbers of a batch, in table order.
    pub const NUMBERS: [&str; 6] = [READ, ACCEPTED, DUPLICATE, CONFLICT, REJECTED, VERSION];

    /// The schema of the accounts table.
    pub fn schema() -> Schema {
        let mut fields = vec![
            Field::new(BATCH, DataType::Utf8, false),
            Field::new(RECEIVED_AT, timestamp_type(), false),
            Field::new(SOURCE, DataType::Utf8, true),
        ];
        fields.extend(NUMBERS.map(|name| Field::new(name, DataType::Int64, false)));
        Schema::new(fields)
    }
}

/// Columns of closed periods: a row for each customer, and one that tells what was closed.
pub mod statements {
    use super::{CUSTOMER_ID, DataType, Field, Schema, timestamp_type};

    /// What the row is.
    pub const KIND: &str = "kind";
    /// A row of a customer.
    pub const KIND_LINE: &str = "line";
    /// The row that tells what was closed.
    pub const KIND_CLOSING: &str = "closing";
    /// A row that opens a period again.
    pub const KIND_REOPENING: &str = "reopening";
    /// What a closing or reopening tells, as JSON.
    pub const RECORD: &str = "record";

    /// The schema of the table.
    pub fn schema() -> Schema {
        let text = |name| Field::new(name, DataType::Utf8, true);
        let number = |name| Field::new(name, DataType::Int64, true);
        let must = |name| Field::new(name, DataType::Utf8, false);
        Schema::new(vec![
            must(KIND),
            must("closing"),
            must("meter"),
            must("meter_version"),
            must("period"),
            Field::new("period_start", timestamp_type(), false),
            Field::new("period_end", timestamp_type(), false),
            must("zone"),
            Field::new("revision", DataType::Int64, false),
            Field::new("table_version", DataType::Int64, false),
            text(CUSTOMER_ID),
            text("value"),
            text("converted"),
            text("billable"),
            text("unit"),
            number("events"),
            number("skipped"),
            text(RECORD),
        ])
    }
}

/// Decides which properties get columns, so that no two names differ only by case and no table
/// grows beyond its limit.
#[derive(Debug, Clone)]
pub struct ColumnNames {
    by_lower_case: BTreeMap<String, String>,
    limit: usize,
}

impl ColumnNames {
    /// The names that the columns of `schema` already stand for.
    pub fn of_schema(schema: &Schema, limit: usize) -> Self {
        let by_lower_case = schema
            .fields()
            .iter()
            .filter_map(|field| property_of_column(field.name()))
            .map(|(_, name)| (name.to_ascii_lowercase(), name.to_owned()))
            .collect();
        Self { by_lower_case, limit }
    }

    /// Whether `property` has columns, taking a free place for it if there is one.
    pub fn admit(&mut self, property: &str) -> bool {
        if !is_column_name(property) {
            return false;
        }
        let lower = property.to_ascii_lowercase();
        if let Some(known) = self.by_lower_case.get(&lower) {
            return known == property;
        }
        let free = self.by_lower_case.len() < self.limit;
        if free {
            self.by_lower_case.insert(lower, property.to_owned());
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_become_columns() {
        for (name, want) in [
            ("bytes", true),
            ("_x9", true),
            ("", false),
            ("a.b", false),
            ("9lives", false),
            ("größe", false),
            ("a b", false),
        ] {
            assert_eq!(is_column_name(name), want, "{name:?}");
        }
    }

    #[test]
    fn a_name_of_other_case_and_names_beyond_the_limit_get_no_column() {
        let schema = Schema::new(vec![ValueKind::Integer.field("bytes")]);
        let mut names = ColumnNames::of_schema(&schema, 2);
        assert!(names.admit("bytes"));
        assert!(!names.admit("Bytes"));
        assert!(names.admit("status"));
        assert!(!names.admit("third"));
        assert!(names.admit("status"));
    }

    #[test]
    fn columns_tell_their_property_and_kind() {
        assert_eq!(property_of_column("i_bytes"), Some((ValueKind::Integer, "bytes")));
        assert_eq!(property_of_column("s_i_x"), Some((ValueKind::Text, "i_x")));
        assert_eq!(property_of_column("idempotency_key"), None);
    }
}
