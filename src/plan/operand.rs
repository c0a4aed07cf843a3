//! What a meter may name (a property, a built-in field, a lookup) as expressions over the columns.
//!
//! Numbers are read from `i_`, then `d_`, then out of `s_` and the map; texts from `s_`, then the
//! map, then the number's canonical text. Columns that hold nothing, by the table's facts, are left
//! out, so that the common case reads one column.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DECIMAL256_MAX_PRECISION, DataType};
use datafusion::common::ScalarValue;
use datafusion::functions::core::expr_fn::{coalesce, get_field};
use datafusion::logical_expr::utils::disjunction;
use datafusion::logical_expr::{Expr, cast, ident, lit, not, when};

use crate::decimal::{Number, parse_number};
use crate::functions::arithmetic::Arithmetic;
use crate::functions::number::{WIDE_SCALE, wide_type};
use crate::functions::{arithmetic, canonical_text, lookup, lookup_at, to_instant, to_number};
use crate::meter::{Expression, Field, Function, Lookup, Operand, Operator};
use crate::schema::{PROPERTIES, TIMESTAMP, ValueKind};

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
    /// What tells the customer, if it is not the field alone.
    pub(super) customer: &'a [Operand],
    /// When an event happened, if that is not its timestamp.
    pub(super) at: Option<&'a Expr>,
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
        if let Operand::Expression(expression) = operand {
            return arithmetic(Arithmetic::Checked).call(vec![self.computed(expression)]);
        }
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
        if let Operand::Expression(_) = operand {
            return canonical_text().call(vec![self.number(operand)]);
        }
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
            when(other.clone().eq(lit("true")), lit(true))
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
        if let Operand::Expression(_) = operand {
            return vec![self.number(operand).is_not_null()];
        }
        let sources = self.sources(operand);
        [sources.integer, sources.decimal, sources.text, sources.boolean, sources.other]
            .into_iter()
            .flatten()
            .map(Expr::is_not_null)
            .collect()
    }

    /// The instant that an operand tells, moved by so many microseconds.
    pub(super) fn instant(self, operand: &Operand, shift: i64) -> Expr {
        let value = match operand {
            Operand::Field(field) if field.is_time() => ident(field.as_str()),
            operand => self.text(operand),
        };
        to_instant().call(vec![value, lit(shift)])
    }

    /// The number of an expression, or the mark of an overflow.
    pub(super) fn computed(self, expression: &Expression) -> Expr {
        let call = |of, arguments: &[&Expression]| {
            let arguments = arguments.iter().map(|argument| self.computed(argument));
            arithmetic(of).call(arguments.collect())
        };
        match expression {
            Expression::Number(text) => number_literal(text),
            Expression::Value(operand) => self.number(operand),
            Expression::Negative(of) => {
                arithmetic(Arithmetic::Subtract).call(vec![lit(0_i64), self.computed(of)])
            }
            Expression::Binary(left, operator, right) => {
                let of = match operator {
                    Operator::Plus => Arithmetic::Add,
                    Operator::Minus => Arithmetic::Subtract,
                    Operator::Times => Arithmetic::Multiply,
                    Operator::Divide => Arithmetic::Divide,
                };
                call(of, &[left, right])
            }
            Expression::Call(Function::Coalesce, arguments) => self.first_there(arguments),
            Expression::Call(function, arguments) => {
                let of = match function {
                    Function::Abs => Arithmetic::Abs,
                    Function::Ceil => Arithmetic::Ceil,
                    Function::Floor => Arithmetic::Floor,
                    // Told apart above.
                    Function::Coalesce => Arithmetic::Coalesce,
                    Function::Greatest => Arithmetic::Greatest,
                    Function::Least => Arithmetic::Least,
                };
                call(of, &arguments.iter().collect::<Vec<_>>())
            }
        }
    }

    /// The same without attribution of customers.
    pub(super) fn as_sent(self) -> Self {
        Self { customer: &[], ..self }
    }

    /// The customer of an event.
    pub(super) fn customer(self) -> Expr {
        self.text(&Operand::Field(Field::CustomerId))
    }

    /// The first of those that tell the customer.
    fn attributed(self) -> Expr {
        one_of(self.told())
    }

    /// What each of those says that tell the customer; only the last says `otherwise`.
    pub(super) fn told(self) -> Vec<Expr> {
        let as_stored = self.as_sent();
        let last = self.customer.len().saturating_sub(1);
        let told = self.customer.iter().enumerate().map(|(place, operand)| match operand {
            Operand::Lookup(name) if place < last => match self.lookups.get(name) {
                Some(table) => as_stored.looked_up(table, None),
                None => as_stored.text(operand),
            },
            operand => as_stored.text(operand),
        });
        told.collect()
    }

    /// What a lookup maps, and what a row of its table maps it to; null where there is none.
    pub(super) fn mapped(self, table: &Lookup) -> (Expr, Expr) {
        let as_stored = self.as_sent();
        (as_stored.text(&table.source()), as_stored.looked_up(table, None))
    }

    /// The first of several that is there. A value that is there but no number is no number: the
    /// event is skipped, rather than counted as what stands in for events without a value.
    fn first_there(self, arguments: &[Expression]) -> Expr {
        let nothing = || lit(ScalarValue::Int64(None));
        let Some((first, rest)) = arguments.split_first() else { return nothing() };
        let number = self.computed(first);
        if rest.is_empty() {
            return number;
        }
        let there = match first {
            Expression::Value(operand) => {
                disjunction(self.present(operand)).unwrap_or_else(|| lit(false))
            }
            _ => number.clone().is_not_null(),
        };
        let otherwise = when(not(there), self.first_there(rest)).end();
        let otherwise = otherwise.unwrap_or_else(|_| nothing());
        arithmetic(Arithmetic::Coalesce).call(vec![number, otherwise])
    }

    fn sources(self, operand: &Operand) -> Sources {
        match operand {
            Operand::Field(Field::CustomerId) if !self.customer.is_empty() => {
                Sources { text: Some(self.attributed()), ..Sources::default() }
            }
            // Computed by whoever asks.
            Operand::Expression(_) => Sources::default(),
            Operand::Property(name) => self.property_sources(name),
            Operand::Field(field) => {
                Sources { text: Some(field_text(*field)), ..Sources::default() }
            }
            Operand::Lookup(name) => match self.lookups.get(name) {
                Some(table) => {
                    // What is mapped is what was sent.
                    let as_stored = self.as_sent();
                    let mapped = as_stored.looked_up(table, Some(table.fallback()));
                    Sources { text: Some(mapped), ..Sources::default() }
                }
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

    fn looked_up(self, table: &Lookup, otherwise: Option<&str>) -> Expr {
        let of = self.text(&table.source());
        let otherwise = lit(ScalarValue::Utf8(otherwise.map(ToOwned::to_owned)));
        let list = |texts: Vec<&String>| {
            let texts: Vec<ScalarValue> =
                texts.into_iter().map(|text| ScalarValue::from(text.as_str())).collect();
            lit(ScalarValue::List(ScalarValue::new_list_nullable(&texts, &DataType::Utf8)))
        };
        if !table.has_history() {
            let keys = list(table.rows.keys().collect());
            let values = list(table.rows.values().collect());
            return lookup().call(vec![of, keys, values, otherwise]);
        }
        let rows =
            || table.history.iter().flat_map(|(key, rows)| rows.iter().map(move |r| (key, r)));
        let instants = |instants: Vec<i64>| {
            let instants: Vec<ScalarValue> = instants.into_iter().map(ScalarValue::from).collect();
            lit(ScalarValue::List(ScalarValue::new_list_nullable(&instants, &DataType::Int64)))
        };
        lookup_at().call(vec![
            of,
            self.at.cloned().unwrap_or_else(|| ident(TIMESTAMP)),
            list(rows().map(|(key, _)| key).collect()),
            instants(rows().map(|(_, row)| row.from).collect()),
            instants(rows().map(|(_, row)| row.to).collect()),
            list(rows().map(|(_, row)| &row.value).collect()),
            otherwise,
        ])
    }
}

/// A number of an expression; one that was read once can be read again.
fn number_literal(text: &str) -> Expr {
    match parse_number(text) {
        Ok(Number::Integer(integer)) => lit(integer),
        Ok(number) => lit(ScalarValue::Decimal256(
            Some(number.to_wide()),
            DECIMAL256_MAX_PRECISION,
            WIDE_SCALE,
        )),
        Err(_) => lit(ScalarValue::Int64(None)),
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

/// An instant as a literal.
pub(super) fn instant(micros: i64) -> Expr {
    lit(ScalarValue::TimestampMicrosecond(Some(micros), Some(Arc::from("UTC"))))
}

/// A date as a literal.
pub(super) fn date(days: i32) -> Expr {
    lit(ScalarValue::Date32(Some(days)))
}
