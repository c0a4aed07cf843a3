//! Meter definitions: which events count, what is computed over them, and how it is shown.
//!
//! A meter is a file (YAML or JSON) in a folder. [`parse`] turns its text into a [`Meter`] or into
//! [`crate::document::Diagnostics`] that name every mistake with its place; [`load_folder`] does so for a folder and
//! reads the lookup tables beside it. [`version`] identifies a definition by its content. Nothing
//! here sees an event: evaluation is planned elsewhere.

mod billing;
mod condition;
mod definition;
mod describe;
mod field;
mod filter;
mod keys;
mod literal;
mod load;
mod lookup;
mod measure;
mod version;

use std::collections::BTreeMap;

pub use billing::{Billing, BillingTable, Given, read_billing_rows};
pub use definition::parse;
pub use describe::{describe, describe_filter};
pub use field::Field;
pub use filter::{Comparison, Filter, Literal, Test};
pub use load::{load_file, load_folder};
pub use lookup::{Lookup, UNMAPPED, read_rows};
pub use version::{normalised, version};

use crate::decimal::text_of_scaled_i128;
use crate::unit::Unit;

/// What a name starts with when it can only mean a property: `property.source` is the property
/// `source`, not the built-in field.
pub const PROPERTY_PREFIX: &str = "property.";

/// Longest text of a meter file, in bytes.
pub const FILE_MAX_BYTES: usize = 1 << 20;

/// A meter as defined by its file.
#[derive(Debug, Clone, PartialEq)]
pub struct Meter {
    /// Identifier, unique in its folder: a lower-case letter, then up to 62 of `a-z 0-9 _ -`.
    pub name: String,
    /// Name for people.
    pub title: Option<String>,
    /// What is measured, in a sentence.
    pub description: Option<String>,
    /// Names of the events that count; empty means every event.
    pub events: Vec<String>,
    /// Which of those events count.
    pub filter: Filter,
    /// What is computed over them.
    pub aggregation: Aggregation,
    /// What a breakdown shows unless the query says otherwise, each to be read by [`resolve`].
    pub dimensions: Vec<String>,
    /// Tables that map a property or field to another text, by the name they are used under.
    pub lookups: BTreeMap<String, Lookup>,
    /// How the raw value is converted and rounded.
    pub unit: Option<Unit>,
    /// IANA name of the zone whose days and months are meant, known to the zone database.
    pub timezone: Option<String>,
    /// The billing periods of customers.
    pub billing: Option<Billing>,
}

/// What is computed over the events of a meter.
#[derive(Debug, Clone, PartialEq)]
pub enum Aggregation {
    /// Number of events.
    Count,
    /// Number of distinct non-null values, by their text.
    CountUnique(Operand),
    /// Exact sum of the numeric values.
    Sum(Operand),
    /// Smallest numeric value.
    Min(Operand),
    /// Largest numeric value.
    Max(Operand),
    /// Exact mean of the numeric values, rounded once.
    Average(Operand),
    /// Numeric value of the event with the latest timestamp.
    Latest(Operand),
    /// Numeric value of the event with the earliest timestamp.
    Earliest(Operand),
    /// Smallest numeric value that at least this share of the values do not exceed.
    Percentile(Operand, Percent),
}

/// A share in millionths of a percent, above 0 and at most 100 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(u32);

impl Percent {
    /// 100 %.
    pub const WHOLE: u32 = 100_000_000;

    /// The share of so many millionths of a percent, if it is one.
    pub fn from_millionths(millionths: u32) -> Option<Self> {
        (1..=Self::WHOLE).contains(&millionths).then_some(Self(millionths))
    }

    /// How many millionths of a percent it is.
    pub fn millionths(self) -> u32 {
        self.0
    }
}

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&text_of_scaled_i128(self.0.into(), 6))
    }
}

impl Aggregation {
    /// What the aggregation reads of an event; nothing for a count.
    pub fn operand(&self) -> Option<&Operand> {
        match self {
            Self::Count => None,
            Self::CountUnique(operand)
            | Self::Sum(operand)
            | Self::Min(operand)
            | Self::Max(operand)
            | Self::Average(operand)
            | Self::Latest(operand)
            | Self::Earliest(operand)
            | Self::Percentile(operand, _) => Some(operand),
        }
    }

    /// The name a meter file uses.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::CountUnique(_) => "count_unique",
            Self::Sum(_) => "sum",
            Self::Min(_) => "min",
            Self::Max(_) => "max",
            Self::Average(_) => "average",
            Self::Latest(_) => "latest",
            Self::Earliest(_) => "earliest",
            Self::Percentile(..) => "percentile",
        }
    }
}

/// Something that has a value for each event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operand {
    /// A property of this name.
    Property(String),
    /// A built-in field.
    Field(Field),
    /// The result of the meter's lookup of this name.
    Lookup(String),
}

/// What `name` means as a dimension or group of `meter`: a built-in field, else one of its
/// lookups, else a property; `property.<name>` is a property whatever its name is.
pub fn resolve(name: &str, meter: &Meter) -> Operand {
    match resolve_stored(name) {
        Operand::Property(property) if property == name && meter.lookups.contains_key(name) => {
            Operand::Lookup(property)
        }
        operand => operand,
    }
}

/// What `name` means where only stored values can be meant: a built-in field, else a property.
fn resolve_stored(name: &str) -> Operand {
    match (name.strip_prefix(PROPERTY_PREFIX), Field::from_name(name)) {
        (Some(property), _) if !property.is_empty() => Operand::Property(property.to_owned()),
        (_, Some(field)) => Operand::Field(field),
        (_, None) => Operand::Property(name.to_owned()),
    }
}

#[cfg(test)]
mod tests;
