//! A meter's version: a hash of what its definition means.
//!
//! Two files that can only give the same numbers under the same names have the same version,
//! however they are written; a change that may change a number gives another one. The normal form
//! is JSON; what is left out of a definition is left out of it, so that a key which a later
//! version of the format adds does not change the version of definitions without it.

use std::collections::BTreeMap;

use super::{
    Aggregation, Billing, BillingTable, Comparison, Filter, Given, Literal, Lookup, Meter, Operand,
    Operation, Outer, Period, TablePlace, Test, Told, Valid, resolve,
};
use crate::decimal::Decimal;
use crate::time::{BillingCycle, BillingHistory, TimeRange};
use crate::unit::{Factor, Rounding, Unit};

/// Length of a version, in hexadecimal digits.
const VERSION_DIGITS: usize = 12;

/// The version of a definition: the first 12 hexadecimal digits of the BLAKE3 hash of its
/// [normal form](normalised).
pub fn version(meter: &Meter) -> String {
    let mut digits = blake3::hash(normalised(meter).as_bytes()).to_hex().to_string();
    digits.truncate(VERSION_DIGITS);
    digits
}

/// The canonical JSON text of a definition. Independent of the order of keys and of anything
/// whose order cannot matter, of spelling and comments; without texts for people (name,
/// description, plural); with the content of lookup tables (as a hash) rather than their place.
pub fn normalised(meter: &Meter) -> String {
    let mut parts =
        vec![("meter", text(&meter.name)), ("aggregation", text(meter.aggregation.name()))];
    parts.extend(computed(&meter.aggregation));
    parts.extend(meter.weight.as_ref().map(|weight| ("weight", operand(weight))));
    parts.extend(meter.period.as_ref().map(|period| ("period", self::period(period))));
    if !meter.events.is_empty() {
        parts.push(("events", set(meter.events.iter().map(|name| text(name)).collect())));
    }
    let filter = filter(&meter.filter);
    if filter != EVERYTHING {
        parts.push(("filter", filter));
    }
    if !meter.customer.is_empty() {
        let operands: Vec<String> = meter.customer.iter().map(operand).collect();
        parts.push(("customer", list(&operands)));
    }
    if !meter.dimensions.is_empty() {
        let operands = meter.dimensions.iter().map(|name| operand(&resolve(name, meter)));
        parts.push(("dimensions", list(&operands.collect::<Vec<_>>())));
    }
    if !meter.lookups.is_empty() {
        let lookups = meter.lookups.iter().map(|(name, table)| (&**name, lookup(table)));
        parts.push(("lookups", object(lookups.collect())));
    }
    parts.extend(meter.unit.as_ref().map(|unit| ("unit", self::unit(unit))));
    parts.extend(meter.timezone.as_ref().map(|zone| ("timezone", text(zone))));
    parts.extend(meter.billing.as_ref().map(|billing| ("billing", self::billing(billing))));
    object(parts)
}

/// What an aggregation is beside its name.
fn computed(aggregation: &Aggregation) -> Vec<(&'static str, String)> {
    let operands = |operands: &[Operand]| list(&operands.iter().map(operand).collect::<Vec<_>>());
    match aggregation {
        Aggregation::Count => Vec::new(),
        Aggregation::CountUnique(of)
        | Aggregation::Sum(of)
        | Aggregation::Min(of)
        | Aggregation::Max(of)
        | Aggregation::Average(of)
        | Aggregation::Latest(of)
        | Aggregation::Earliest(of) => vec![("of", operand(of))],
        Aggregation::Percentile(of, percent) => {
            vec![("of", operand(of)), ("percentile", text(&percent.to_string()))]
        }
        Aggregation::TimeWeighted(levels) => match levels.told {
            Told::Change => vec![("of", operand(&levels.of)), ("told", text("change"))],
            Told::Level => vec![
                ("of", operand(&levels.of)),
                ("told", text("level")),
                ("per", operands(&levels.per)),
            ],
        },
        Aggregation::Active(activity) => {
            let mut parts = vec![
                ("of", operand(&activity.of)),
                ("operation", operation(&activity.operation)),
                ("per", operands(&activity.per)),
            ];
            parts.extend(activity.by_days.then(|| ("prorate", text("days"))));
            parts
        }
        Aggregation::Reported(report) => {
            let mut parts = vec![
                ("of", operand(&report.of)),
                ("operation", operation(&report.operation)),
                ("per", operands(&report.per)),
            ];
            parts.extend(report.reset.map(|window| ("reset", text(&window.to_string()))));
            parts
        }
        Aggregation::Nested(nested) => {
            let mut inner = vec![("aggregation", text(nested.inner.name()))];
            inner.extend(computed(&nested.inner));
            inner.extend(nested.window.map(|window| ("window", text(&window.to_string()))));
            inner.push(("per", operands(&nested.per)));
            let mut parts = vec![("results", object(inner))];
            if let Outer::Percentile(percent) = nested.outer {
                parts.push(("percentile", text(&percent.to_string())));
            }
            parts
        }
    }
}

fn operation(operation: &Operation) -> String {
    let words = |words: &[String]| set(words.iter().map(|word| text(word)).collect());
    let [first, second] = &operation.words;
    list(&[operand(&operation.of), words(first), words(second)])
}

fn period(period: &Period) -> String {
    let [start, end] = [&period.start, &period.end].map(operand);
    object(vec![("start", start), ("end", end), ("place", text(period.place.name()))])
}

/// The normal form of the filter that every event matches.
const EVERYTHING: &str = r#"{"all":[]}"#;

fn filter(filter: &Filter) -> String {
    match filter {
        Filter::All(filters) => {
            let mut members = Vec::new();
            flatten_all(filters, &mut members);
            group("all", members)
        }
        Filter::Any(filters) => {
            let mut members = Vec::new();
            flatten_any(filters, &mut members);
            group("any", members)
        }
        Filter::Not(inner) => object(vec![("not", self::filter(inner))]),
        Filter::Test(test) => self::test(test),
    }
}

/// `all` within `all` says nothing of its own.
fn flatten_all(filters: &[Filter], members: &mut Vec<String>) {
    for member in filters {
        match member {
            Filter::All(inner) => flatten_all(inner, members),
            Filter::Any(_) | Filter::Not(_) | Filter::Test(_) => members.push(filter(member)),
        }
    }
}

/// `any` within `any` says nothing of its own.
fn flatten_any(filters: &[Filter], members: &mut Vec<String>) {
    for member in filters {
        match member {
            Filter::Any(inner) => flatten_any(inner, members),
            Filter::All(_) | Filter::Not(_) | Filter::Test(_) => members.push(filter(member)),
        }
    }
}

/// A group of conditions, in any order; of one condition, that condition.
fn group(name: &str, mut members: Vec<String>) -> String {
    members.sort();
    members.dedup();
    if members.len() == 1 { members.remove(0) } else { object(vec![(name, list(&members))]) }
}

fn test(test: &Test) -> String {
    let (name, value) = comparison(&test.comparison);
    let (kind, of) = operand_pair(&test.operand);
    object(vec![(kind, of), (name, value)])
}

fn comparison(comparison: &Comparison) -> (&'static str, String) {
    let value = match comparison {
        Comparison::In(values) if values.len() == 1 => return ("equals", literal(&values[0])),
        Comparison::NotIn(values) if values.len() == 1 => {
            return ("not_equals", literal(&values[0]));
        }
        Comparison::In(values) | Comparison::NotIn(values) => {
            set(values.iter().map(literal).collect())
        }
        Comparison::Between(low, high) => list(&[literal(low), literal(high)]),
        Comparison::Equals(value)
        | Comparison::NotEquals(value)
        | Comparison::GreaterThan(value)
        | Comparison::GreaterOrEqual(value)
        | Comparison::LessThan(value)
        | Comparison::LessOrEqual(value) => literal(value),
        Comparison::Contains(part)
        | Comparison::NotContains(part)
        | Comparison::StartsWith(part)
        | Comparison::EndsWith(part)
        | Comparison::Like(part) => text(part),
        Comparison::Exists | Comparison::NotExists => "true".to_owned(),
    };
    (comparison.name(), value)
}

fn literal(literal: &Literal) -> String {
    match literal {
        Literal::Number(number) => number.to_string(),
        Literal::Text(value) => text(value),
        Literal::Boolean(value) => value.to_string(),
    }
}

fn operand(operand: &Operand) -> String {
    object(vec![operand_pair(operand)])
}

fn operand_pair(operand: &Operand) -> (&'static str, String) {
    match operand {
        Operand::Property(name) => ("property", text(name)),
        Operand::Field(field) => ("field", text(field.as_str())),
        Operand::Lookup(name) => ("lookup", text(name)),
        Operand::Expression(expression) => ("expression", text(&expression.to_string())),
    }
}

/// A table of the lake goes by its name and columns: its rows are a version of the lake's.
fn lookup(lookup: &Lookup) -> String {
    let mut parts = vec![("of", operand(&lookup.source())), ("otherwise", text(lookup.fallback()))];
    match &lookup.table {
        TablePlace::Lake(name) => {
            let columns = [Some(&lookup.key), Some(&lookup.value), lookup.from.as_ref()];
            let columns = columns.into_iter().chain([lookup.to.as_ref()]);
            let columns = columns.map(|column| column.map_or("null".to_owned(), |c| text(c)));
            parts.push(("table", text(name)));
            parts.push(("columns", list(&columns.collect::<Vec<_>>())));
        }
        TablePlace::File(_) if lookup.has_history() => {
            parts.push(("history", text(&history_hash(&lookup.history))));
        }
        TablePlace::File(_) => parts.push(("rows", text(&rows_hash(&lookup.rows)))),
    }
    object(parts)
}

/// A hash of rows with the times at which they hold.
fn history_hash(history: &BTreeMap<String, Vec<Valid>>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (key, rows) in history {
        for row in rows {
            for part in [key, &row.value] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part.as_bytes());
            }
            hasher.update(&row.from.to_le_bytes());
            hasher.update(&row.to.to_le_bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}

fn billing(billing: &Billing) -> String {
    match billing {
        Billing::Shared(cycle) => billing_cycle(cycle),
        Billing::PerCustomer(table) => {
            let mut parts = Vec::new();
            match &table.table {
                TablePlace::Lake(name) => {
                    parts.push(("table", text(name)));
                    parts.push(("columns", list(&billing_columns(table))));
                }
                TablePlace::File(_) => {
                    let cycles = table.rows.values().map(billing_history).collect::<Vec<_>>();
                    let rows = table.rows.keys().zip(&cycles).flat_map(|(key, cycle)| [key, cycle]);
                    parts.push(("rows", text(&texts_hash(rows))));
                }
            }
            parts.extend(table.otherwise.as_ref().map(|cycle| ("otherwise", billing_cycle(cycle))));
            // No number is another by it, but what is published has to say it.
            parts.extend(table.others_unbilled.then(|| ("otherwise", text("none"))));
            object(parts)
        }
    }
}

/// A table of the lake goes by its name and columns, as that of a lookup.
fn billing_columns(table: &BillingTable) -> Vec<String> {
    fn given<T: ToString>(of: &Given<T>) -> String {
        match of {
            Given::Column(name) => text(name),
            Given::Always(value) => object(vec![("value", text(&value.to_string()))]),
        }
    }
    let from = table.from.as_ref().map_or("null".to_owned(), |column| text(column));
    let (cycle, zone) = (given(&table.cycle), given(&table.timezone));
    vec![text(&table.key), text(&table.anchor), from, cycle, zone]
}

/// One cycle is written as it was before there were several.
fn billing_history(history: &BillingHistory) -> String {
    let of_cycle = |(holds, cycle): (TimeRange, &BillingCycle)| match holds.from {
        None => billing_cycle(cycle),
        Some(since) => format!("{} {}", since.micros(), billing_cycle(cycle)),
    };
    history.cycles().map(of_cycle).collect::<Vec<_>>().join(" ")
}

/// Any anchor of the same periods is the same.
fn billing_cycle(cycle: &BillingCycle) -> String {
    object(vec![("cycle", text(&cycle.phase())), ("timezone", text(&cycle.zone))])
}

fn rows_hash(rows: &BTreeMap<String, String>) -> String {
    texts_hash(rows.iter().flat_map(|(key, value)| [key, value]))
}

/// A hash of a table's cells; each text goes in behind its length, so that no two tables collide.
fn texts_hash<'t>(texts: impl Iterator<Item = &'t String>) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in texts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

fn unit(unit: &Unit) -> String {
    let mut parts = vec![("name", text(&unit.name))];
    match &unit.factor {
        Factor::MultiplyBy(one) | Factor::DivideBy(one) if *one == Decimal::from(1) => {}
        Factor::MultiplyBy(factor) => parts.push(("multiply_by", factor.to_string())),
        Factor::DivideBy(divisor) => parts.push(("divide_by", divisor.to_string())),
    }
    if let Some(rounding) = rounding_name(&unit.round) {
        parts.push(("round", text(rounding)));
        parts.push(("precision", unit.precision.to_string()));
    }
    object(parts)
}

/// The name of a way of rounding; none for no rounding.
pub(super) fn rounding_name(rounding: &Rounding) -> Option<&'static str> {
    match rounding {
        Rounding::Up => Some("up"),
        Rounding::Down => Some("down"),
        Rounding::HalfUp => Some("half_up"),
        Rounding::HalfEven => Some("half_even"),
        Rounding::None => None,
    }
}

/// A JSON string.
fn text(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

/// A JSON array in the order given.
fn list(values: &[String]) -> String {
    format!("[{}]", values.join(","))
}

/// A JSON array whose order and repetitions mean nothing.
fn set(mut values: Vec<String>) -> String {
    values.sort();
    values.dedup();
    list(&values)
}

/// A JSON object of values that are JSON already, its keys in order.
fn object(mut pairs: Vec<(&str, String)>) -> String {
    pairs.sort();
    let members: Vec<String> =
        pairs.iter().map(|(key, value)| format!("{}:{value}", text(key))).collect();
    format!("{{{}}}", members.join(","))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::{BANDWIDTH, BANDWIDTH_JSON, bandwidth, count, read};
    use super::*;

    #[test]
    fn the_normal_form_is_json_without_texts_for_people() {
        let want = concat!(
            r#"{"aggregation":"sum","dimensions":[{"property":"domain"},{"lookup":"region"}],"#,
            r#""events":["transfer"],"filter":{"all":[{"any":["#,
            r#"{"not_equals":"internal","property":"cache"},"#,
            r#"{"not_exists":true,"property":"cache"}]},"#,
            r#"{"in":[200,206],"property":"status"}]},"#,
            r#""lookups":{"region":{"of":{"property":"data_center"},"otherwise":"unmapped","#,
            r#""rows":"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"}},"#,
            r#""meter":"bandwidth","of":{"property":"bytes"},"timezone":"Europe/Berlin","#,
            r#""unit":{"divide_by":1000000000,"name":"GB","precision":0,"round":"up"}}"#,
        );
        assert_eq!(normalised(&bandwidth()), want);
        assert_eq!(normalised(&read(&count(""))), r#"{"aggregation":"count","meter":"m"}"#);
        assert_eq!(
            version(&read(&count(""))),
            blake3::hash(br#"{"aggregation":"count","meter":"m"}"#).to_hex()[..12]
        );
    }

    #[test]
    fn writing_the_same_otherwise_keeps_the_version() {
        let want = version(&bandwidth());
        for (name, text) in [
            ("JSON in another order", BANDWIDTH_JSON.to_owned()),
            (
                "no comments",
                BANDWIDTH
                    .lines()
                    .map(|l| l.split(" #").next().unwrap().to_owned() + "\n")
                    .collect(),
            ),
            ("a list of one event", BANDWIDTH.replace("event: transfer", "event: [transfer]")),
            ("quotes", BANDWIDTH.replace("aggregation: sum", "aggregation: \"sum\"")),
            ("a quoted key", BANDWIDTH.replace("timezone:", "'timezone':")),
            ("another title", BANDWIDTH.replace("Used bandwidth", "Traffic")),
            (
                "no description",
                BANDWIDTH
                    .lines()
                    .filter(|l| !l.starts_with("description"))
                    .map(|l| l.to_owned() + "\n")
                    .collect(),
            ),
            ("another plural", BANDWIDTH.replace("plural: GB", "plural: GBs")),
            ("the default of otherwise", BANDWIDTH.replace(", otherwise: unmapped", "")),
            (
                "another place of the table",
                BANDWIDTH.replace("../lookups/regions.csv", "regions.csv"),
            ),
            ("other values in order", BANDWIDTH.replace("[200, 206]", "[206, 200.0, 2e2]")),
            (
                "a group around the list",
                BANDWIDTH.replace(
                    "  - { property: status, in: [200, 206] }\n",
                    "  - all: [{ property: status, in: [200, 206] }]\n",
                ),
            ),
            ("a number in another form", BANDWIDTH.replace("1000000000", "1e9")),
            (
                "a property by its full name",
                BANDWIDTH.replace("property: bytes", "property: property.bytes"),
            ),
        ] {
            assert_ne!(text, BANDWIDTH, "{name}");
            assert_eq!(version(&read(&text)), want, "{name}");
        }
    }

    #[test]
    fn meaning_something_else_changes_the_version() {
        let changes = [
            ("bandwidth", "traffic"),
            ("event: transfer", "event: transfers"),
            ("event: transfer", "event: [transfer, other]"),
            ("[200, 206]", "[200]"),
            ("[200, 206]", "[200, '206']"),
            ("any:", "all:"),
            ("not_exists", "exists"),
            ("internal }", "external }"),
            ("aggregation: sum", "aggregation: max"),
            ("property: bytes", "property: size"),
            ("[domain, region]", "[region, domain]"),
            ("of: data_center", "of: zone"),
            ("otherwise: unmapped", "otherwise: other"),
            ("name: GB", "name: GiB"),
            ("1000000000", "1073741824"),
            ("round: up", "round: down"),
            ("precision: 0", "precision: 1"),
            ("Europe/Berlin", "UTC"),
        ];
        let mut versions = vec![version(&bandwidth())];
        for (from, to) in changes {
            versions.push(version(&read(&BANDWIDTH.replacen(from, to, 1))));
        }
        let mut meter = bandwidth();
        for rows in [[("ab", "c")], [("a", "bc")]] {
            let rows = rows.map(|(key, value)| (key.to_owned(), value.to_owned()));
            meter.lookups.get_mut("region").unwrap().rows = Arc::new(BTreeMap::from(rows));
            versions.push(version(&meter));
        }
        let all = versions.len();
        versions.sort();
        versions.dedup();
        assert_eq!(versions.len(), all);
        assert!(versions.iter().all(|version| version.len() == 12));
    }
}
