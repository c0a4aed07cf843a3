//! Meter definitions: which events count, what is computed over them, and how it is shown.
//!
//! A meter is a file (YAML or JSON) in a folder. [`parse`] turns its text into a [`Meter`] or into
//! [`crate::document::Diagnostics`] that name every mistake with its place; [`load_folder`] does so for a folder and
//! reads the lookup tables beside it. [`version`] identifies a definition by its content. Nothing
//! here sees an event: evaluation is planned elsewhere.

mod aggregation;
mod billing;
mod billing_rows;
mod condition;
mod definition;
mod describe;
mod expression;
mod field;
mod filter;
mod folder;
mod history;
mod keys;
mod literal;
mod load;
mod lookup;
mod measure;
mod series;
mod uses;
mod version;

use std::collections::BTreeMap;

pub use aggregation::{
    Activity, Aggregation, Levels, Nested, Operation, Outer, Percent, Period, Placing, Report, Told,
};
pub use billing::{Billing, BillingTable, Given};
pub use billing_rows::read_billing_rows;
pub use definition::parse;
pub use describe::{
    computed_text as describe_aggregation, describe, describe_filter, describe_operand,
    unit_text as describe_unit,
};
pub use expression::{Expression, Function, Operator};
pub use field::Field;
pub use filter::{Comparison, Filter, Literal, Test};
pub use folder::{Folder, is_test_file, load_folder, read_folder, test_files};
pub use history::{Columns, Valid, read_history, valid_at};
pub use load::{Bundle, load_bundle, load_file, load_table};
pub use lookup::{Lookup, TablePlace, UNMAPPED, is_identifier, read_rows};
pub use uses::{Role, counts_event, property_uses};
pub use version::{normalised, version};

use jiff::tz::TimeZone;

use crate::time::parse_zone;
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
    /// How many events one stands for; each for itself if none.
    pub weight: Option<Operand>,
    /// The stretch of time that an event is about; its timestamp alone if none.
    pub period: Option<Period>,
    /// What tells the customer of an event, the first that is there; `customer_id` if none. A
    /// lookup without a row is not there, unless it is the last.
    pub customer: Vec<Operand>,
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

/// Something that has a value for each event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operand {
    /// A property of this name.
    Property(String),
    /// A built-in field.
    Field(Field),
    /// The result of the meter's lookup of this name.
    Lookup(String),
    /// A number computed from others.
    Expression(Expression),
}

impl Operand {
    /// The operands that are read for it: itself, or those of its expression.
    pub fn parts(&self) -> Vec<&Self> {
        match self {
            Self::Property(_) | Self::Field(_) | Self::Lookup(_) => vec![self],
            Self::Expression(expression) => expression.operands(),
        }
    }
}

impl Meter {
    /// What is read of an event to measure it: without what it may leave out.
    pub fn measured(&self) -> Vec<&Operand> {
        let measured = self.aggregation.operands().into_iter().take(1);
        let measured = measured.filter(|_| self.aggregation.measures());
        measured.flat_map(Operand::parts).collect()
    }

    /// Everything that is read of an event to compute the value, without what the filter reads.
    pub fn operands(&self) -> Vec<&Operand> {
        let period = self.period.iter().flat_map(|period| [&period.start, &period.end]);
        let whole = self.aggregation.operands().into_iter().chain(&self.weight).chain(period);
        let whole = whole.chain(&self.customer);
        whole.flat_map(Operand::parts).collect()
    }

    /// The tables that it reads, each with the version that was read, if it lies in the lake.
    pub fn tables(&self) -> Vec<(&TablePlace, Option<i64>)> {
        let lookups = self.lookups.values().map(|lookup| (&lookup.table, lookup.number));
        let billing = match &self.billing {
            Some(Billing::PerCustomer(table)) => Some((&table.table, table.number)),
            Some(Billing::Shared(_)) | None => None,
        };
        lookups.chain(billing).collect()
    }

    /// The lake's tables that it was read with, each with its version.
    pub fn table_versions(&self) -> Vec<(String, i64)> {
        let tables = self.tables().into_iter();
        let named = tables.filter_map(|(place, number)| match place {
            TablePlace::Lake(name) => Some((name.clone(), number?)),
            TablePlace::File(_) => None,
        });
        let mut versions: Vec<(String, i64)> = named.collect();
        versions.sort();
        versions.dedup();
        versions
    }

    /// The zone whose days and months are meant: its own, or UTC.
    pub fn zone(&self) -> TimeZone {
        let named = self.timezone.as_deref().and_then(|zone| parse_zone(zone).ok());
        // A zone that is named was found when the file was read.
        named.unwrap_or(TimeZone::UTC)
    }

    /// Whether the plan is one of its own, which no other meter can share.
    pub fn stands_alone(&self) -> bool {
        let computed = |operand: &Operand| matches!(operand, Operand::Expression(_));
        let plain = match &self.aggregation {
            Aggregation::Count
            | Aggregation::CountUnique(_)
            | Aggregation::Sum(_)
            | Aggregation::Min(_)
            | Aggregation::Max(_)
            | Aggregation::Average(_)
            | Aggregation::Latest(_)
            | Aggregation::Earliest(_)
            | Aggregation::Percentile(..) => true,
            Aggregation::TimeWeighted(_)
            | Aggregation::Active(_)
            | Aggregation::Reported(_)
            | Aggregation::Nested(_) => false,
        };
        // What is computed may fail, so it is only computed for events that match.
        let computes = self.aggregation.operands().into_iter().any(computed);
        !plain || computes || self.weight.is_some() || self.period.is_some()
    }
}

/// What `name` means as a dimension or group of `meter`: a built-in field, else one of its
/// lookups, else a property; `property.<name>` is a property whatever its name is.
pub fn resolve(name: &str, meter: &Meter) -> Operand {
    resolve_among(name, &meter.lookups)
}

/// What `name` means where these are the lookups; see [`resolve`].
fn resolve_among(name: &str, lookups: &BTreeMap<String, Lookup>) -> Operand {
    match resolve_stored(name) {
        Operand::Property(property) if property == name && lookups.contains_key(name) => {
            Operand::Lookup(property)
        }
        operand => operand,
    }
}

/// What `name` means where only stored values can be meant: a built-in field, else a property.
pub fn resolve_stored(name: &str) -> Operand {
    match (name.strip_prefix(PROPERTY_PREFIX), Field::from_name(name)) {
        (Some(property), _) if !property.is_empty() => Operand::Property(property.to_owned()),
        (_, Some(field)) => Operand::Field(field),
        (_, None) => Operand::Property(name.to_owned()),
    }
}

#[cfg(test)]
mod tests;
