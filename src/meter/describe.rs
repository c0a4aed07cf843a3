//! A meter in words, for people.

use super::version::rounding_name;
use super::{
    Aggregation, Billing, BillingTable, Comparison, Filter, Given, Literal, Lookup, Meter, Operand,
    Operation, Outer, Period, Placing, TablePlace, Test, Told, version,
};
use crate::decimal::Decimal;
use crate::time::BillingCycle;
use crate::unit::{Factor, Unit};

/// Width of the column of labels.
const LABEL_WIDTH: usize = 13;

/// A meter in several lines, a label and a text in each; ends with a line break.
pub fn describe(meter: &Meter) -> String {
    let mut lines = Lines::default();
    lines.push("meter", &meter.name);
    lines.push("version", &version(meter));
    lines.push_some("name", meter.title.as_deref());
    lines.push_some("description", meter.description.as_deref().map(str::trim_end));
    let events =
        if meter.events.is_empty() { "every one".to_owned() } else { names(&meter.events) };
    lines.push("events", &events);
    if !meter.filter.is_everything() {
        lines.push("filter", &describe_filter(&meter.filter));
    }
    lines.push("aggregation", &computed_text(&meter.aggregation));
    lines.push_some("weight", meter.weight.as_ref().map(operand_text).as_deref());
    if !meter.customer.is_empty() {
        let operands: Vec<String> = meter.customer.iter().map(operand_text).collect();
        lines.push("customer", &operands.join(", else "));
    }
    lines.push_some("period", meter.period.as_ref().map(period_text).as_deref());
    if !meter.dimensions.is_empty() {
        lines.push("dimensions", &names(&meter.dimensions));
    }
    for (name, lookup) in &meter.lookups {
        lines.push("lookup", &lookup_text(name, lookup));
    }
    lines.push_some("unit", meter.unit.as_ref().map(unit_text).as_deref());
    lines.push_some("timezone", meter.timezone.as_deref());
    lines.push_some("billing", meter.billing.as_ref().map(billing_text).as_deref());
    lines.text
}

/// Lines of a label and a text.
#[derive(Default)]
struct Lines {
    text: String,
}

impl Lines {
    /// A label and its text, whose further lines are indented below the first.
    fn push(&mut self, label: &str, text: &str) {
        for (index, line) in text.split('\n').enumerate() {
            let label = if index == 0 { label } else { "" };
            let line = format!("{label:LABEL_WIDTH$}{}", printable(line));
            self.text.push_str(line.trim_end());
            self.text.push('\n');
        }
    }

    fn push_some(&mut self, label: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.push(label, text);
        }
    }
}

/// A text that cannot move a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A filter in one line, in the words of the format.
pub fn describe_filter(filter: &Filter) -> String {
    match filter {
        Filter::All(filters) if filters.is_empty() => "every event".to_owned(),
        Filter::Any(filters) if filters.is_empty() => "no event".to_owned(),
        Filter::All(filters) => joined(filters, " and "),
        Filter::Any(filters) => joined(filters, " or "),
        Filter::Not(inner) => format!("not ({})", describe_filter(inner)),
        Filter::Test(test) => test_text(test),
    }
}

/// Filters with a word between them; a group of several gets brackets.
fn joined(filters: &[Filter], word: &str) -> String {
    let texts: Vec<String> = filters
        .iter()
        .map(|filter| match filter {
            Filter::All(inner) | Filter::Any(inner) if inner.len() > 1 && filters.len() > 1 => {
                format!("({})", describe_filter(filter))
            }
            Filter::All(_) | Filter::Any(_) | Filter::Not(_) | Filter::Test(_) => {
                describe_filter(filter)
            }
        })
        .collect();
    texts.join(word)
}

fn test_text(test: &Test) -> String {
    let operand = operand_text(&test.operand);
    match &test.comparison {
        Comparison::Equals(value) => format!("{operand} = {}", literal_text(value)),
        Comparison::NotEquals(value) => format!("{operand} <> {}", literal_text(value)),
        Comparison::In(values) => format!("{operand} in ({})", literals_text(values)),
        Comparison::NotIn(values) => format!("{operand} not in ({})", literals_text(values)),
        Comparison::GreaterThan(value) => format!("{operand} > {}", literal_text(value)),
        Comparison::GreaterOrEqual(value) => format!("{operand} >= {}", literal_text(value)),
        Comparison::LessThan(value) => format!("{operand} < {}", literal_text(value)),
        Comparison::LessOrEqual(value) => format!("{operand} <= {}", literal_text(value)),
        Comparison::Between(low, high) => {
            format!("{operand} between {} and {}", literal_text(low), literal_text(high))
        }
        Comparison::Contains(part) => format!("{operand} contains {}", quoted(part)),
        Comparison::NotContains(part) => format!("{operand} contains no {}", quoted(part)),
        Comparison::StartsWith(part) => format!("{operand} starts with {}", quoted(part)),
        Comparison::EndsWith(part) => format!("{operand} ends with {}", quoted(part)),
        Comparison::Like(pattern) => format!("{operand} like {}", quoted(pattern)),
        Comparison::Exists => format!("{operand} exists"),
        Comparison::NotExists => format!("{operand} does not exist"),
    }
}

fn literals_text(values: &[Literal]) -> String {
    values.iter().map(literal_text).collect::<Vec<_>>().join(", ")
}

fn literal_text(literal: &Literal) -> String {
    match literal {
        Literal::Number(number) => number.to_string(),
        Literal::Text(text) => quoted(text),
        Literal::Boolean(value) => value.to_string(),
    }
}

/// A text in single quotes, as in SQL, without characters that are not shown.
fn quoted(text: &str) -> String {
    let mut shown = String::from("'");
    for c in text.chars() {
        match c {
            '\'' => shown.push_str("''"),
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown.push('\'');
    shown
}

/// An operand as people name it.
pub fn describe_operand(operand: &Operand) -> String {
    match operand {
        Operand::Field(field) => field.to_string(),
        operand => operand_text(operand),
    }
}

fn operand_text(operand: &Operand) -> String {
    match operand {
        Operand::Property(name) | Operand::Lookup(name) => name_text(name),
        Operand::Field(field) => format!("field {field}"),
        Operand::Expression(expression) => expression.to_string(),
    }
}

/// What is computed, in one line.
pub fn computed_text(aggregation: &Aggregation) -> String {
    let name = aggregation.name();
    let each = |operands: &[Operand]| match operands {
        [] => String::new(),
        operands => {
            let texts: Vec<String> = operands.iter().map(operand_text).collect();
            format!(", for each {}", texts.join(" and "))
        }
    };
    match aggregation {
        Aggregation::Count => name.to_owned(),
        Aggregation::CountUnique(of)
        | Aggregation::Sum(of)
        | Aggregation::Min(of)
        | Aggregation::Max(of)
        | Aggregation::Average(of)
        | Aggregation::Latest(of)
        | Aggregation::Earliest(of) => format!("{name} of {}", operand_text(of)),
        Aggregation::Percentile(of, percent) => {
            format!("{name} {percent} of {}", operand_text(of))
        }
        Aggregation::TimeWeighted(levels) => match levels.told {
            Told::Change => format!("{name} mean of the sum of {}", operand_text(&levels.of)),
            Told::Level => {
                let of = operand_text(&levels.of);
                format!("{name} mean of the level {of}{}", each(&levels.per))
            }
        },
        Aggregation::Active(activity) => format!(
            "{name} of {}, {}{}{}",
            operand_text(&activity.of),
            operation_text(&activity.operation, ["added", "removed"]),
            each(&activity.per),
            if activity.by_days { ", by the share of days on which it was active" } else { "" },
        ),
        Aggregation::Reported(report) => format!(
            "{name} {}, {}{}{}",
            operand_text(&report.of),
            operation_text(&report.operation, ["set", "changed"]),
            each(&report.per),
            report.reset.map_or(String::new(), |window| format!(", anew every {window}")),
        ),
        Aggregation::Nested(nested) => {
            let every = nested.window.map_or(String::new(), |window| format!(" every {window}"));
            let percent = match nested.outer {
                Outer::Percentile(percent) => format!(" {percent}"),
                Outer::Count | Outer::Sum | Outer::Min | Outer::Max | Outer::Average => {
                    String::new()
                }
            };
            let inner = computed_text(&nested.inner);
            format!("{name}{percent} of the {inner}{every}{}", each(&nested.per))
        }
    }
}

fn operation_text(operation: &Operation, verbs: [&str; 2]) -> String {
    let texts: Vec<String> = operation
        .words
        .iter()
        .zip(verbs)
        .map(|(words, verb)| {
            let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            format!("{verb} where {} is {}", operand_text(&operation.of), words.join(" or "))
        })
        .collect();
    texts.join(" and ")
}

fn period_text(period: &Period) -> String {
    let how = match period.place {
        Placing::Prorate => "prorated",
        Placing::Start => "whole at its start",
        Placing::End => "whole at its end",
    };
    format!("from {} to {}, {how}", operand_text(&period.start), operand_text(&period.end))
}

fn names(names: &[String]) -> String {
    names.iter().map(|name| name_text(name)).collect::<Vec<_>>().join(", ")
}

/// A name as it is, or in double quotes if it could be taken for something else.
fn name_text(name: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':');
    if !name.is_empty() && name.chars().all(plain) { name.to_owned() } else { format!("{name:?}") }
}

fn lookup_text(name: &str, lookup: &Lookup) -> String {
    let history: usize = lookup.history.values().map(Vec::len).sum();
    let place = match &lookup.table {
        TablePlace::File(file) => {
            format!("{}, {} rows", name_text(file), lookup.rows.len() + history)
        }
        TablePlace::Lake(name) => format!("table {name} of the lake"),
    };
    let bound = |word: &str, column: &Option<String>| {
        column.as_ref().map_or(String::new(), |column| format!(" {word} {}", name_text(column)))
    };
    format!(
        "{} from {}: {} to {}{}{} in {place}, otherwise {}",
        name_text(name),
        operand_text(&lookup.source()),
        name_text(&lookup.key),
        name_text(&lookup.value),
        bound("from", &lookup.from),
        bound("until", &lookup.to),
        name_text(lookup.fallback())
    )
}

fn billing_text(billing: &Billing) -> String {
    match billing {
        Billing::Shared(cycle) => cycle_text(cycle),
        Billing::PerCustomer(table) => table_text(table),
    }
}

fn cycle_text(cycle: &BillingCycle) -> String {
    format!("{} from {} in {}", cycle.cycle, cycle.anchor, cycle.zone)
}

fn table_text(table: &BillingTable) -> String {
    let mut columns = vec![name_text(&table.anchor)];
    let mut always = Vec::new();
    match &table.cycle {
        Given::Column(name) => columns.push(name_text(name)),
        Given::Always(cycle) => always.push(format!(", {cycle}")),
    }
    match &table.timezone {
        Given::Column(name) => columns.push(name_text(name)),
        Given::Always(zone) => always.push(format!(", in {zone}")),
    }
    columns.extend(table.from.as_ref().map(|column| format!("from {}", name_text(column))));
    let columns = match columns.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => columns.concat(),
    };
    let place = match &table.table {
        TablePlace::File(file) => format!("{}, {} rows", name_text(file), table.rows.len()),
        TablePlace::Lake(name) => format!("table {name} of the lake"),
    };
    let otherwise = match &table.otherwise {
        Some(cycle) => format!("otherwise {}", cycle_text(cycle)),
        None if table.others_unbilled => "others not billed".to_owned(),
        None => "otherwise no period".to_owned(),
    };
    format!("by {} to {columns} in {place}{}, {otherwise}", name_text(&table.key), always.concat())
}

/// How a unit converts and rounds, in one line.
pub fn unit_text(unit: &Unit) -> String {
    let mut text = unit.name.clone();
    if let Some(plural) = unit.plural.as_ref().filter(|plural| **plural != unit.name) {
        text.push_str(&format!(" (plural {plural})"));
    }
    match &unit.factor {
        Factor::MultiplyBy(one) | Factor::DivideBy(one) if *one == Decimal::from(1) => {}
        Factor::MultiplyBy(factor) => text.push_str(&format!(", raw value times {factor}")),
        Factor::DivideBy(divisor) => text.push_str(&format!(", raw value divided by {divisor}")),
    }
    match rounding_name(&unit.round) {
        Some(rounding) => {
            text.push_str(&format!(", rounded {rounding} to {} digits", unit.precision));
        }
        None => text.push_str(", not rounded"),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::{bandwidth, filter_of, read};
    use super::*;

    #[test]
    fn a_meter_is_described_in_words() {
        let meter = bandwidth();
        let want = format!(
            "\
meter        bandwidth
version      {}
name         Used bandwidth
description  Bytes sent to readers, internal traffic left out
events       transfer
filter       status in (200, 206) and (cache does not exist or cache <> 'internal')
aggregation  sum of bytes
dimensions   domain, region
lookup       region from data_center: data_center to region in ../lookups/regions.csv, 0 rows, otherwise unmapped
unit         GB, raw value divided by 1000000000, rounded up to 0 digits
timezone     Europe/Berlin
",
            version(&meter)
        );
        assert_eq!(describe(&meter), want);
        let plain = read("meter: m\naggregation: count\ndescription: |\n  two\n  lines\n");
        let want = format!(
            "meter        m\nversion      {}\ndescription  two\n             lines\nevents       every \
             one\naggregation  count\n",
            version(&plain)
        );
        assert_eq!(describe(&plain), want);
    }

    #[test]
    fn every_comparison_is_described() {
        for (written, want) in [
            ("equals: it's", "p = 'it''s'"),
            ("greater_or_equal: 1.50", "p >= 1.5"),
            ("between: [1, 2]", "p between 1 and 2"),
            ("not_in: [true, \"a\\nb\"]", "p not in (true, 'a\\nb')"),
            ("not_contains: x", "p contains no 'x'"),
            ("exists: true", "p exists"),
        ] {
            assert_eq!(describe_filter(&filter_of(&format!("{{property: p, {written}}}"))), want);
        }
        let not = filter_of("{not: {property: 'a b', starts_with: x}}");
        assert_eq!(describe_filter(&not), "not (\"a b\" starts with 'x')");
    }
}
