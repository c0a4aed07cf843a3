//! Reads what a meter computes and over what: aggregation, operand and unit.

use std::collections::BTreeMap;

use super::keys::{AGGREGATIONS, ROUNDINGS, SIMPLE, UNIT};
use super::lookup::Lookup;
use super::{Aggregation, Field, Operand, PROPERTY_PREFIX, Percent, expression, series};
use crate::decimal::Decimal;
use crate::document::{
    Content, Entry, Findings, Keys, filled_text, keys, nearest, positive_number, quote, text,
    whole_number, word,
};
use crate::unit::{Factor, Rounding, Unit};

/// Keys that say what a value is read from.
const OPERANDS_OF_VALUES: [&str; 3] = ["property", "field", "expression"];

/// Fewest and most digits a billable quantity is rounded to.
const PRECISION_RANGE: (i32, i32) = (-38, 38);

/// The aggregation and what it reads.
pub(super) fn aggregation(
    keys: &Keys<'_>,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Option<Aggregation> {
    let help = format!("one of `{}`", AGGREGATIONS.join("`, `"));
    let Some(entry) = keys.require("aggregation", &help, findings) else {
        operand(keys, lookups, findings);
        return None;
    };
    let name = word(entry, &AGGREGATIONS, findings)?;
    let results = keys.get("of").filter(|of| matches!(of.value.content, Content::Mapping(_)));
    let told = keys.get("operation").filter(|_| name == "count_unique");
    let taken: &[&str] = match name {
        _ if results.is_some() => &["of"],
        "time_weighted" => &["of", "per"],
        "reported" => &["operation", "per", "reset"],
        "count_unique" if told.is_some() => &["operation", "per", "prorate"],
        "count_unique" => &["operation", "period"],
        "count" | "sum" | "average" => &["weight", "period"],
        _ => &["period"],
    };
    refuse_others(name, taken, keys, findings);
    match (name, results, told) {
        (_, Some(of), _) => {
            let percent = percent(name, keys, entry, findings);
            refuse_operand(name, keys, findings);
            series::nested(name, entry, percent, of, lookups, findings)
        }
        ("time_weighted", ..) => series::time_weighted(keys, lookups, findings),
        ("reported", ..) => series::reported(keys, lookups, findings),
        ("count_unique", _, Some(told)) => series::active(keys, told, lookups, findings),
        _ => simple(entry, keys, lookups, findings),
    }
}

/// Reports keys that this aggregation does not have.
fn refuse_others(aggregation: &str, taken: &[&str], keys: &Keys<'_>, findings: &mut Findings<'_>) {
    const OF_SOME: [&str; 7] = ["of", "per", "operation", "prorate", "reset", "weight", "period"];
    let others = OF_SOME.into_iter().filter(|key| !taken.contains(key));
    for entry in others.filter_map(|key| keys.get(key)) {
        let message = format!("`{aggregation}` takes no `{}`", entry.key);
        let help = match entry.key.as_str() {
            "of" => "an aggregation of results has a mapping there, with `aggregation` and `per`",
            "prorate" => "it belongs to a `count_unique` with an `operation`",
            "weight" => "`count`, `sum` and `average` take one",
            "reset" => "it belongs to `reported`",
            _ => "leave it out",
        };
        findings.report_help(&entry.key_span, message, help);
    }
}

/// An aggregation that one event's window is enough for.
pub(super) fn simple(
    entry: &Entry,
    keys: &Keys<'_>,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Option<Aggregation> {
    let name = word(entry, &SIMPLE, findings)?;
    let percent = percent(name, keys, entry, findings);
    if name == "count" {
        refuse_operand(name, keys, findings);
        return Some(Aggregation::Count);
    }
    if name == "count_unique" {
        return text_operand(name, keys, lookups, findings).map(Aggregation::CountUnique);
    }
    let operand = numeric_operand(name, keys, lookups, findings)?;
    match name {
        "sum" => Some(Aggregation::Sum(operand)),
        "min" => Some(Aggregation::Min(operand)),
        "max" => Some(Aggregation::Max(operand)),
        "average" => Some(Aggregation::Average(operand)),
        "latest" => Some(Aggregation::Latest(operand)),
        "earliest" => Some(Aggregation::Earliest(operand)),
        "percentile" => Some(Aggregation::Percentile(operand, percent?)),
        _ => None,
    }
}

/// What `subject` reads as a text.
pub(super) fn text_operand(
    subject: &str,
    keys: &Keys<'_>,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Option<Operand> {
    let given = OPERANDS_OF_VALUES.iter().any(|key| keys.get(key).is_some());
    if !given {
        let help = "add `property: <name of a property>`";
        let message = format!("`{subject}` needs a `property` or a `field`");
        let place = keys.get("aggregation").map_or(&keys.span, Entry::value_span);
        findings.report_help(place, message, help);
    }
    operand(keys, lookups, findings)
}

/// What `aggregation` reads as a number.
pub(super) fn numeric_operand(
    aggregation: &str,
    keys: &Keys<'_>,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Option<Operand> {
    let operand = text_operand(aggregation, keys, lookups, findings)?;
    numeric(aggregation, operand, keys, findings)
}

/// How many events one stands for.
pub(super) fn weight(
    entry: &Entry,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Option<Operand> {
    property(entry, lookups, findings)
}

/// The share that a percentile needs, and nothing else may have.
fn percent(
    aggregation: &str,
    keys: &Keys<'_>,
    place: &Entry,
    findings: &mut Findings<'_>,
) -> Option<Percent> {
    match (aggregation, keys.get("percentile")) {
        ("percentile", None) => {
            let help = "add `percentile: 95`, or another number up to 100";
            findings.report_help(place.value_span(), "`percentile` needs a `percentile`", help);
            None
        }
        ("percentile", Some(entry)) => {
            let percent = positive_number(entry, findings)?;
            let millionths = &percent * &Decimal::from(1_000_000);
            let found = millionths.to_string().parse().ok().and_then(Percent::from_millionths);
            if found.is_none() {
                let message = format!("`percentile` needs a number up to 100, not `{percent}`");
                let help = "with at most 6 digits after the point";
                findings.report_help(entry.value_span(), message, help);
            }
            found
        }
        (other, Some(entry)) => {
            let message = format!("`{other}` takes no `percentile`");
            findings.report_help(&entry.key_span, message, "write `aggregation: percentile`");
            None
        }
        (_, None) => None,
    }
}

fn refuse_operand(aggregation: &str, keys: &Keys<'_>, findings: &mut Findings<'_>) {
    for entry in OPERANDS_OF_VALUES.into_iter().filter_map(|key| keys.get(key)) {
        let message = format!("`{aggregation}` takes no `{}`", entry.key);
        let help = match keys.get("of") {
            Some(_) => "what the results are of stands in `of`",
            None => "it counts events; `count_unique` counts values",
        };
        findings.report_help(&entry.key_span, message, help);
    }
}

/// The operand, unless it is a built-in field: none of those is a number.
fn numeric(
    aggregation: &str,
    operand: Operand,
    keys: &Keys<'_>,
    findings: &mut Findings<'_>,
) -> Option<Operand> {
    let Operand::Field(field) = operand else { return Some(operand) };
    let kind = if field.is_time() { "a moment" } else { "a text" };
    let message = format!("`{aggregation}` needs numbers, and `{field}` is {kind}");
    let place = keys.get("field").map_or(&keys.span, Entry::value_span);
    findings.report_help(place, message, "only `count_unique` reads built-in fields");
    None
}

/// What `property` or `field` names, where one of them is given.
pub(super) fn operand(
    keys: &Keys<'_>,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Option<Operand> {
    let given: Vec<&Entry> = OPERANDS_OF_VALUES.iter().filter_map(|key| keys.get(key)).collect();
    match given.as_slice() {
        [] => None,
        [entry] if entry.key == "property" => property(entry, lookups, findings),
        [entry] if entry.key == "field" => field(entry, lookups, findings).map(Operand::Field),
        [entry] => {
            let text = text(entry, findings)?;
            match expression::read(&text, lookups) {
                Ok(expression) => Some(Operand::Expression(expression)),
                Err(message) => {
                    findings.report(entry.value_span(), message);
                    None
                }
            }
        }
        [first, second, ..] => {
            let message = format!("`{}` and `{}` cannot stand together", first.key, second.key);
            findings.report_help(&second.key_span, message, "leave one of them out");
            None
        }
    }
}

/// A property or, under its name, a lookup. The name of a built-in field alone is refused: it
/// would silently find nothing where the field was meant.
fn property(
    entry: &Entry,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Option<Operand> {
    let name = text(entry, findings)?;
    if name.is_empty() {
        findings.report(entry.value_span(), format!("`{}` is empty", entry.key));
        return None;
    }
    if let Some(property) = name.strip_prefix(PROPERTY_PREFIX).filter(|name| !name.is_empty()) {
        return Some(Operand::Property(property.to_owned()));
    }
    if Field::from_name(&name).is_some() {
        let message = format!("`{name}` is a built-in field, not a property");
        let help = format!(
            "write `field: {name}`, or `property: {PROPERTY_PREFIX}{name}` for a property of \
             that name"
        );
        findings.report_help(entry.value_span(), message, help);
        return None;
    }
    let is_lookup = lookups.contains_key(&name);
    Some(if is_lookup { Operand::Lookup(name) } else { Operand::Property(name) })
}

fn field(
    entry: &Entry,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Option<Field> {
    let name = text(entry, findings)?;
    let found = Field::from_name(&name);
    if found.is_none() {
        let names = Field::ALL.map(Field::as_str);
        let help = match nearest(&name, &names) {
            _ if lookups.contains_key(&name) => "write `property` for a lookup".to_owned(),
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the fields are `{}`", names.join("`, `")),
        };
        findings.report_help(entry.value_span(), format!("unknown field {}", quote(&name)), help);
    }
    found
}

/// The unit of a `unit` key.
pub(super) fn unit(entry: &Entry, findings: &mut Findings<'_>) -> Option<Unit> {
    if let Content::Scalar { text, .. } = &entry.value.content
        && !entry.value.is_null()
    {
        let message = "`unit` needs a mapping, not a value";
        let help = format!("write it as `{{ name: {text} }}`");
        findings.report_help(entry.value_span(), message, help);
        return None;
    }
    let keys = keys(&entry.value, entry.value_span(), "`unit`", &UNIT, findings)?;
    let name = keys.require("name", "the unit's name, such as `name: GB`", findings);
    let name = name.and_then(|entry| filled_text(entry, findings));
    let plural = keys.get("plural").map(|entry| filled_text(entry, findings));
    let factor = factor(&keys, findings);
    let round = keys.get("round").map_or(Some(Rounding::None), |entry| rounding(entry, findings));
    let precision = precision(&keys, round.as_ref(), findings);
    let plural = match plural {
        Some(wrong_or_text) => Some(wrong_or_text?),
        None => None,
    };
    Some(Unit { name: name?, plural, factor: factor?, round: round?, precision: precision? })
}

fn factor(keys: &Keys<'_>, findings: &mut Findings<'_>) -> Option<Factor> {
    match (keys.get("divide_by"), keys.get("multiply_by")) {
        (Some(_), Some(multiply)) => {
            let message = "`divide_by` and `multiply_by` cannot stand together";
            findings.report_help(&multiply.key_span, message, "leave one of them out");
            None
        }
        (Some(entry), None) => positive_number(entry, findings).map(Factor::DivideBy),
        (None, Some(entry)) => positive_number(entry, findings).map(Factor::MultiplyBy),
        (None, None) => Some(Factor::MultiplyBy(Decimal::from(1))),
    }
}

fn rounding(entry: &Entry, findings: &mut Findings<'_>) -> Option<Rounding> {
    match word(entry, &ROUNDINGS, findings)? {
        "up" => Some(Rounding::Up),
        "down" => Some(Rounding::Down),
        "half_up" => Some(Rounding::HalfUp),
        "half_even" => Some(Rounding::HalfEven),
        "none" => Some(Rounding::None),
        _ => None,
    }
}

/// Digits after the point to round to; without rounding there is nothing to say about them.
fn precision(
    keys: &Keys<'_>,
    round: Option<&Rounding>,
    findings: &mut Findings<'_>,
) -> Option<i32> {
    let Some(entry) = keys.get("precision") else { return Some(0) };
    if matches!(round, Some(Rounding::None)) {
        let message = "`precision` says nothing without rounding";
        findings.report_help(&entry.key_span, message, "add `round`, or leave it out");
        return None;
    }
    let (least, most) = PRECISION_RANGE;
    whole_number(entry, least, most, findings)
}
