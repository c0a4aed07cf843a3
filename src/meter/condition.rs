//! Reads conditions: a meter's `filter` and what stands in `all`, `any` and `not`.

use std::collections::BTreeMap;
use std::ops::Range;

use super::filter::{Comparison, Filter, Literal, Test};
use super::keys::{GROUPS, OPERANDS, OPERATORS};
use super::literal::literal;
use super::lookup::Lookup;
use super::measure::operand;
use super::{Field, Operand};
use crate::document::{
    Content, Entry, Findings, Keys, Node, boolean, items, keys, mapping, nearest, quote, scalar,
};
use crate::time::Timestamp;

/// The filter of a `filter` key: one condition, or a list of conditions that must all hold.
pub(super) fn filter(
    entry: &Entry,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Option<Filter> {
    match &entry.value.content {
        Content::List(_) => Some(Filter::All(members(entry, lookups, findings)?)),
        Content::Scalar { .. } | Content::Mapping(_) => {
            condition(&entry.value, entry.value_span(), lookups, findings)
        }
        Content::Refused => None,
    }
}

/// Every condition of a list; nothing if one of them is wrong, after reading all of them.
fn members(
    entry: &Entry,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Option<Vec<Filter>> {
    let read: Vec<Option<Filter>> = items(entry)
        .into_iter()
        .map(|(node, place)| condition(node, place, lookups, findings))
        .collect();
    read.into_iter().collect()
}

fn condition(
    node: &Node,
    place: &Range<usize>,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Option<Filter> {
    let entries = mapping(node, place, "a condition", findings)?;
    match entries.iter().find(|entry| GROUPS.contains(&&*entry.key)) {
        Some(group) => {
            for other in entries.iter().filter(|other| other.key != group.key) {
                let message = format!("{} cannot stand beside `{}`", quote(&other.key), group.key);
                let help = "make it a condition of its own, in a list";
                findings.report_help(&other.key_span, message, help);
            }
            self::group(group, lookups, findings)
        }
        None => test(node, place, lookups, findings).map(Filter::Test),
    }
}

/// What `all`, `any` or `not` holds.
fn group(
    entry: &Entry,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Option<Filter> {
    let is_list = matches!(entry.value.content, Content::List(_));
    if entry.key == "not" {
        if is_list {
            let help = "join several with `all` or `any` inside of it";
            findings.report_help(entry.value_span(), "`not` takes one condition", help);
            return None;
        }
        let inner = condition(&entry.value, entry.value_span(), lookups, findings)?;
        return Some(Filter::Not(Box::new(inner)));
    }
    let filters = members(entry, lookups, findings)?;
    if filters.is_empty() {
        let message = format!("`{}` needs at least one condition", entry.key);
        findings.report(entry.value_span(), message);
        return None;
    }
    Some(if entry.key == "all" { Filter::All(filters) } else { Filter::Any(filters) })
}

/// A condition that compares: one operand, one operator.
fn test(
    node: &Node,
    place: &Range<usize>,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Option<Test> {
    let entries = mapping(node, place, "a condition", findings)?;
    let known = [&OPERANDS[..], &OPERATORS[..]].concat();
    let unknown: Vec<&Entry> =
        entries.iter().filter(|entry| !known.contains(&&*entry.key)).collect();
    for entry in &unknown {
        report_unknown(entry, findings);
    }
    if !unknown.is_empty() {
        return None;
    }
    let keys = keys(node, place, "a condition", &known, findings)?;
    let operand = test_operand(&keys, lookups, findings);
    let mut operators = entries.iter().filter(|entry| OPERATORS.contains(&&*entry.key));
    let Some(operator) = operators.next() else {
        let help = format!("add one of `{}`", OPERATORS.join("`, `"));
        findings.report_help(&keys.span, "condition has no operator", help);
        return None;
    };
    let comparison = comparison(operator, operand.as_ref(), findings);
    for other in operators {
        let message =
            format!("condition has two operators, `{}` and `{}`", operator.key, other.key);
        let help = "write a condition for each, in a list";
        findings.report_help(&other.key_span, message, help);
    }
    Some(Test { operand: operand?, comparison: comparison? })
}

/// Reports a key that no condition has: a misspelt word, or an operator we do not know.
fn report_unknown(entry: &Entry, findings: &mut Findings<'_>) {
    let words = [&OPERANDS[..], &GROUPS[..], &OPERATORS[..]].concat();
    let near = nearest(&entry.key, &words);
    let kind = if near.is_some_and(|near| !OPERATORS.contains(&near)) { "key" } else { "operator" };
    let message = format!("unknown {kind} {}", quote(&entry.key));
    let help = near.map_or_else(
        || format!("use one of `{}`", OPERATORS.join("`, `")),
        |near| format!("did you mean `{near}`?"),
    );
    findings.report_help(&entry.key_span, message, help);
}

fn test_operand(
    keys: &Keys<'_>,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Option<Operand> {
    if keys.get("property").is_none() && keys.get("field").is_none() {
        let help = "say what is compared";
        findings.report_help(&keys.span, "condition has no `property` or `field`", help);
        return None;
    }
    operand(keys, lookups, findings)
}

/// What an operator and its value say. Without an operand the value is still read, for its
/// mistakes.
fn comparison(
    entry: &Entry,
    operand: Option<&Operand>,
    findings: &mut Findings<'_>,
) -> Option<Comparison> {
    let moment = match operand {
        Some(Operand::Field(field)) if field.is_time() => Some(*field),
        Some(
            Operand::Field(_) | Operand::Property(_) | Operand::Lookup(_) | Operand::Expression(_),
        )
        | None => None,
    };
    if let Some(field) = moment
        && ["contains", "not_contains", "starts_with", "ends_with", "like"].contains(&&*entry.key)
    {
        let message = format!("`{}` compares texts, and `{field}` is a moment", entry.key);
        let help = "compare it with `between`, `greater_or_equal` or `less_than`";
        findings.report_help(&entry.key_span, message, help);
        return None;
    }
    match &*entry.key {
        "equals" => Some(Comparison::Equals(one(entry, moment, findings)?)),
        "not_equals" => Some(Comparison::NotEquals(one(entry, moment, findings)?)),
        "in" => Some(Comparison::In(several(entry, moment, findings)?)),
        "not_in" => Some(Comparison::NotIn(several(entry, moment, findings)?)),
        "greater_than" => Some(Comparison::GreaterThan(bound(entry, moment, findings)?)),
        "greater_or_equal" => Some(Comparison::GreaterOrEqual(bound(entry, moment, findings)?)),
        "less_than" => Some(Comparison::LessThan(bound(entry, moment, findings)?)),
        "less_or_equal" => Some(Comparison::LessOrEqual(bound(entry, moment, findings)?)),
        "between" => between(entry, moment, findings),
        "contains" => Some(Comparison::Contains(part(entry, findings)?)),
        "not_contains" => Some(Comparison::NotContains(part(entry, findings)?)),
        "starts_with" => Some(Comparison::StartsWith(part(entry, findings)?)),
        "ends_with" => Some(Comparison::EndsWith(part(entry, findings)?)),
        "like" => Some(Comparison::Like(part(entry, findings)?)),
        "exists" => Some(existence(boolean(entry, findings)?)),
        "not_exists" => Some(existence(!boolean(entry, findings)?)),
        _ => None,
    }
}

fn existence(exists: bool) -> Comparison {
    if exists { Comparison::Exists } else { Comparison::NotExists }
}

/// A part of a text, or a pattern; a number stands for its text as written.
fn part(entry: &Entry, findings: &mut Findings<'_>) -> Option<String> {
    scalar(&entry.value, entry.value_span(), &entry.key, findings).map(str::to_owned)
}

fn one(entry: &Entry, moment: Option<Field>, findings: &mut Findings<'_>) -> Option<Literal> {
    operand_literal(&entry.value, entry.value_span(), &entry.key, moment, findings)
}

fn several(
    entry: &Entry,
    moment: Option<Field>,
    findings: &mut Findings<'_>,
) -> Option<Vec<Literal>> {
    let read: Vec<Option<Literal>> = items(entry)
        .into_iter()
        .map(|(node, place)| operand_literal(node, place, &entry.key, moment, findings))
        .collect();
    if read.is_empty() && matches!(entry.value.content, Content::List(_)) {
        findings.report(entry.value_span(), format!("`{}` needs at least one value", entry.key));
        return None;
    }
    read.into_iter().collect()
}

/// A literal that has others above and below.
fn bound(entry: &Entry, moment: Option<Field>, findings: &mut Findings<'_>) -> Option<Literal> {
    let found = one(entry, moment, findings)?;
    ordered(found, entry.value_span(), &entry.key, findings)
}

fn ordered(
    found: Literal,
    place: &Range<usize>,
    key: &str,
    findings: &mut Findings<'_>,
) -> Option<Literal> {
    if let Literal::Boolean(value) = found {
        let message = format!("`{key}` needs a number or a text, not `{value}`");
        findings.report(place, message);
        return None;
    }
    Some(found)
}

fn between(
    entry: &Entry,
    moment: Option<Field>,
    findings: &mut Findings<'_>,
) -> Option<Comparison> {
    let nodes = match &entry.value.content {
        Content::List(nodes) => &nodes[..],
        Content::Scalar { .. } | Content::Mapping(_) => &[],
        Content::Refused => return None,
    };
    let [low_node, high_node] = nodes else {
        let help = "write them as `[low, high]`, both included";
        findings.report_help(entry.value_span(), "`between` needs two values", help);
        return None;
    };
    let mut read = |node: &Node| {
        let found = operand_literal(node, &node.span, &entry.key, moment, findings)?;
        ordered(found, &node.span, &entry.key, findings)
    };
    let (low, high) = (read(low_node), read(high_node));
    let (low, high) = (low?, high?);
    if std::mem::discriminant(&low) != std::mem::discriminant(&high) {
        let message = "`between` needs two numbers or two texts, not one of each";
        findings.report(entry.value_span(), message);
        return None;
    }
    if is_above(&low, &high, moment) {
        let help = "nothing lies between them, write the lower one first";
        findings.report_help(entry.value_span(), "`between` starts above its end", help);
        return None;
    }
    Some(Comparison::Between(low, high))
}

fn is_above(low: &Literal, high: &Literal, moment: Option<Field>) -> bool {
    match (low, high, moment) {
        (Literal::Text(low), Literal::Text(high), Some(_)) => {
            match (Timestamp::parse_rfc3339(low), Timestamp::parse_rfc3339(high)) {
                (Ok(low), Ok(high)) => low > high,
                (Err(_), _) | (_, Err(_)) => false,
            }
        }
        (low, high, _) => low > high,
    }
}

/// A literal; against a field that is a moment, an RFC 3339 text brought to the form of the field.
fn operand_literal(
    node: &Node,
    place: &Range<usize>,
    key: &str,
    moment: Option<Field>,
    findings: &mut Findings<'_>,
) -> Option<Literal> {
    let found = literal(node, place, key, findings)?;
    let Some(field) = moment else { return Some(found) };
    let read = match &found {
        Literal::Text(text) => Timestamp::parse_rfc3339(text).ok(),
        Literal::Number(_) | Literal::Boolean(_) => None,
    };
    if read.is_none() {
        let message = format!("`{field}` is a moment, and this is none");
        findings.report_help(place, message, "write it as `2026-10-01T00:00:00Z`");
    }
    read.map(|moment| Literal::Text(moment.to_string()))
}
