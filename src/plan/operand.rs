//! What a meter may name (a property, a built-in field, a lookup) as expressions over the columns.
//!
//! Numbers are read from `i_`, then `d_`, then out of `s_` and the map; texts from `s_`, then the
//! map, then the number's canonical text. Columns that hold nothing, by the table's facts, are left
//! out, so that the common case reads one column.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::functions::core::expr_fn::{coalesce, get_field};
use datafusion::logical_expr::{Expr, cast, ident, lit};

use crate::functions::number::wide_type;
use crate::functions::{canonical_text, lookup, to_number};
use crate::meter::{Field, Lookup, Operand};
use crate::schema::{PROPERTIES, ValueKind};

/// What is known of a table version without reading it, from its statistics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableFacts {
    /// For each property with columns, the kinds that hold any value.
    pub properties: BTreeMap<String, Vec<ValueKind>>,
    /// Whether the map of other properties holds anything.
    pub others: bool,
    /// First and last `event_date`, days since 1970; `None` for an empty table.
    pub days: Option<(i32, i32)>,
    /// Whether there are rows that are no plain events.
    pub corrections: bool,
}

/// Turns operands into expressions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operands<'a> {
    pub(super) facts: &'a TableFacts,
    pub(super) lookups: &'a BTreeMap<String, Lookup>,
}

/// Where the values of an operand are, by kind; each is `None` if there are none of that kind.
#[derive(Debug, Default)]
struct Sources {
    integer: Option<Expr>,
    decimal: Option<Expr>,
    text: Option<Expr>,
    boolean: Option<Expr>,
    other: Option<Expr>,
}

impl Operands<'_> {
    /// The exact numeric value, null where there is none.
    pub(super) fn number(self, operand: &Operand) -> Expr {
        let sources = self.sources(operand);
        let texts: Vec<Expr> = [sources.text, sources.other].into_iter().flatten().collect();
        if texts.is_empty() {
            return match (sources.integer, sources.decimal) {
                (None, None) => lit(ScalarValue::Int64(None)),
                (Some(integer), None) => integer,
                (None, Some(decimal)) => decimal,
                (Some(integer), Some(decimal)) => {
                    coalesce(vec![cast(integer, ValueKind::Decimal.data_type()), decimal])
                }
            };
        }
        let numbers = [sources.integer, sources.decimal].into_iter().flatten();
        let mut values: Vec<Expr> = numbers.map(|number| cast(number, wide_type())).collect();
        values.extend(texts.into_iter().map(|text| to_number().call(vec![text])));
        one_of(values)
    }

    /// The text, null where the value is absent.
    pub(super) fn text(self, operand: &Operand) -> Expr {
        let sources = self.sources(operand);
        let mut values: Vec<Expr> = [sources.text, sources.other].into_iter().flatten().collect();
        values.extend(sources.integer.map(|integer| cast(integer, DataType::Utf8)));
        values.extend(sources.decimal.map(|decimal| canonical_text().call(vec![decimal])));
        values.extend(sources.boolean.map(|boolean| cast(boolean, DataType::Utf8)));
        if values.is_empty() {
            return lit(ScalarValue::Utf8(None));
        }
        one_of(values)
    }

    /// The integer column alone, if nothing else holds values of the operand.
    pub(super) fn only_integers(self, operand: &Operand) -> Option<Expr> {
        let sources = self.sources(operand);
        match sources {
            Sources { integer, decimal: None, text: None, boolean: None, other: None } => integer,
            _ => None,
        }
    }

    /// The truth value, null where the value is no boolean. A boolean that had to go to the map of
    /// other properties reads as the text `true` or `false`.
    pub(super) fn boolean(self, operand: &Operand) -> Expr {
        let sources = self.sources(operand);
        let mut values: Vec<Expr> = sources.boolean.into_iter().collect();
        values.extend(sources.other.map(|other| {
            datafusion::logical_expr::when(other.clone().eq(lit("true")), lit(true))
                .when(other.eq(lit("false")), lit(false))
                .end()
                .unwrap_or_else(|_| lit(ScalarValue::Boolean(None)))
        }));
        if values.is_empty() {
            return lit(ScalarValue::Boolean(None));
        }
        one_of(values)
    }

    /// Whether the operand has a value, one expression per place where it could be.
    pub(super) fn present(self, operand: &Operand) -> Vec<Expr> {
        let sources = self.sources(operand);
        [sources.integer, sources.decimal, sources.text, sources.boolean, sources.other]
            .into_iter()
            .flatten()
            .map(Expr::is_not_null)
            .collect()
    }

    fn sources(self, operand: &Operand) -> Sources {
        match operand {
            Operand::Property(name) => self.property_sources(name),
            Operand::Field(field) => {
                Sources { text: Some(field_text(*field)), ..Sources::default() }
            }
            Operand::Lookup(name) => match self.lookups.get(name) {
                Some(table) => Sources { text: Some(self.looked_up(table)), ..Sources::default() },
                None => self.property_sources(name),
            },
        }
    }

    fn property_sources(self, name: &str) -> Sources {
        let kinds = self.facts.properties.get(name).map(Vec::as_slice).unwrap_or_default();
        let column = |kind: ValueKind| kinds.contains(&kind).then(|| ident(kind.column(name)));
        Sources {
            integer: column(ValueKind::Integer),
            decimal: column(ValueKind::Decimal),
            text: column(ValueKind::Text),
            boolean: column(ValueKind::Boolean),
            other: self.facts.others.then(|| get_field(ident(PROPERTIES), name)),
        }
    }

    fn looked_up(self, table: &Lookup) -> Expr {
        let of = table.source();
        let list = |texts: Vec<&String>| {
            let texts: Vec<ScalarValue> =
                texts.into_iter().map(|text| ScalarValue::from(text.as_str())).collect();
            lit(ScalarValue::List(ScalarValue::new_list_nullable(&texts, &DataType::Utf8)))
        };
        lookup().call(vec![
            self.text(&of),
            list(table.rows.keys().collect()),
            list(table.rows.values().collect()),
            lit(table.fallback()),
        ])
    }
}

fn field_text(field: Field) -> Expr {
    let column = ident(field.as_str());
    match field {
        Field::Timestamp | Field::IngestedAt => cast(column, DataType::Utf8),
        Field::EventName
        | Field::IdempotencyKey
        | Field::CustomerId
        | Field::ResourceId
        | Field::Source => column,
    }
}

fn one_of(mut values: Vec<Expr>) -> Expr {
    if values.len() == 1 { values.remove(0) } else { coalesce(values) }
}

/// The columns of a built-in field as Arrow names them.
pub(super) fn customer() -> Expr {
    ident(crate::schema::CUSTOMER_ID)
}

/// An instant as a literal.
pub(super) fn instant(micros: i64) -> Expr {
    lit(ScalarValue::TimestampMicrosecond(Some(micros), Some(Arc::from("UTC"))))
}

/// A date as a literal.
pub(super) fn date(days: i32) -> Expr {
    lit(ScalarValue::Date32(Some(days)))
}
