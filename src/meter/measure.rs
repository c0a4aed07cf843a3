//! Reads what a meter computes and over what: aggregation, operand and unit.

use std::collections::BTreeMap;

use super::keys::{AGGREGATIONS, AGGREGATIONS_RESERVED, ROUNDINGS, UNIT};
use super::lookup::Lookup;
use super::{Aggregation, Field, Operand, PROPERTY_PREFIX, Percent};
use crate::decimal::Decimal;
use crate::document::{
    Content, Entry, Findings, Keys, filled_text, keys, nearest, positive_number, quote, text,
    whole_number, word,
};
use crate::unit::{Factor, Rounding, Unit};

/// Fewest and most digits a billable quantity is rounded to.
const PRECISION_RANGE: (i32, i32) = (-38, 38);

/// The aggregation and what it reads.
pub(super) fn aggregation(
    keys: &Keys<'_>,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Option<Aggregation> {
    let help = format!("one of `{}`", AGGREGATIONS.join("`, `"));
    let entry = keys.require("aggregation", &help, findings);
    let operand_given = keys.get("property").is_some() || keys.get("field").is_some();
    let operand = operand(keys, lookups, findings);
    let entry = entry?;
    let name = aggregation_name(entry, findings)?;
    let percent = percent(name, keys, entry, findings);
    if name == "count" {
        refuse_operand(keys, findings);
        return Some(Aggregation::Count);
    }
    if !operand_given {
        let help = "add `property: <name of a property>`";
        let message = format!("`{name}` needs a `property` or a `field`");
        findings.report_help(entry.value_span(), message, help);
    }
    let operand = operand?;
    if name == "count_unique" {
        return Some(Aggregation::CountUnique(operand));
    }
    let operand = numeric(name, operand, keys, findings)?;
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

fn aggregation_name(entry: &Entry, findings: &mut Findings<'_>) -> Option<&'static str> {
    match &entry.value.content {
        Content::List(_) | Content::Mapping(_) => {
            let message = "an aggregation of aggregations is not supported by this version";
            findings.report(entry.value_span(), message);
            None
        }
        Content::Scalar { text, .. } if AGGREGATIONS_RESERVED.contains(&&**text) => {
            let message = format!("aggregation `{text}` is not supported by this version");
            findings.report(entry.value_span(), message);
            None
        }
        Content::Scalar { .. } | Content::Refused => word(entry, &AGGREGATIONS, findings),
    }
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

fn refuse_operand(keys: &Keys<'_>, findings: &mut Findings<'_>) {
    for entry in ["property", "field"].into_iter().filter_map(|key| keys.get(key)) {
        let message = format!("`count` takes no `{}`", entry.key);
        let help = "it counts events; `count_unique` counts values";
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
    match (keys.get("property"), keys.get("field")) {
        (Some(_), Some(field)) => {
            let message = "`property` and `field` cannot stand together";
            findings.report_help(&field.key_span, message, "leave one of them out");
            None
        }
        (Some(entry), None) => property(entry, lookups, findings),
        (None, Some(entry)) => field(entry, lookups, findings).map(Operand::Field),
        (None, None) => None,
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
        findings.report(entry.value_span(), "`property` is empty");
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
