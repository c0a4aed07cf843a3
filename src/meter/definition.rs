//! Reads a meter file: text in, a meter or all that is wrong with it out. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::billing::{LocatedBilling, billing};
use super::condition::filter;
use super::keys::METER;
use super::lookup::{Lookups, is_identifier, lookups};
use super::measure::{aggregation, unit, weight};
use super::series::period;
use super::{
    Aggregation, FILE_MAX_BYTES, Field, Filter, Lookup, Meter, Operand, Period, Placing, Report,
    resolve_among,
};
use crate::document::{
    Content, Diagnostics, Entry, Findings, Keys, Node, filled_text, keys, quote, read_document,
    text, texts,
};
use crate::time::{Windowing, parse_zone};

/// Longest name of an event, in bytes.
const EVENT_NAME_MAX_BYTES: usize = 128;

/// The meter that a file's text (YAML or JSON) defines. Lookups have no rows yet: they stand in
/// files of their own, which [`super::load_file`] reads.
///
/// `file` is only named in diagnostics.
///
/// # Errors
/// Everything that is wrong with the text, each with its place.
pub fn parse(text: &str, file: &str) -> Result<Meter, Diagnostics> {
    parse_located(text, file).map(|located| located.meter)
}

/// A meter and the places that matter once its neighbours are known.
pub(super) struct Located {
    pub(super) meter: Meter,
    pub(super) name_span: Range<usize>,
    pub(super) lookups: Lookups,
    /// Where `billing` names its table.
    pub(super) billing_file_span: Range<usize>,
}

/// Like [`parse`]; the places are bytes of `text`.
pub(super) fn parse_located(text: &str, file: &str) -> Result<Located, Diagnostics> {
    if text.len() > FILE_MAX_BYTES {
        let mut findings = Findings::new("", file, "meter");
        findings.report(&(0..0), too_large(text.len() as u64));
        return findings.finish(None);
    }
    let mut findings = Findings::new(text, file, "meter");
    let located = read_document(&mut findings).and_then(|root| meter(&root, &mut findings));
    findings.finish(located)
}

/// The name that a text gives its meter, whatever else is wrong with it.
pub(super) fn name_in(text: &str) -> Option<String> {
    let root = read_document(&mut Findings::new(text, "", "meter"))?;
    let Content::Mapping(entries) = &root.content else { return None };
    match &entries.iter().find(|entry| entry.key == "meter")?.value.content {
        Content::Scalar { text, .. } => Some(text.clone()),
        Content::List(_) | Content::Mapping(_) | Content::Refused => None,
    }
}

/// The message about a file that is too large to be a meter.
pub(super) fn too_large(bytes: u64) -> String {
    format!("file of {bytes} bytes is larger than {FILE_MAX_BYTES}")
}

fn meter(root: &Node, findings: &mut Findings<'_>) -> Option<Located> {
    let top = root.span.start..root.span.start + 1;
    let keys = keys(root, &top, "a meter", &METER, findings)?;
    let lookups =
        keys.get("lookups").map_or_else(Lookups::default, |entry| lookups(entry, findings));
    let name = keys.require("meter", "its identifier, such as `meter: requests`", findings);
    let name = name.and_then(|entry| Some((identifier(entry, findings)?, entry)));
    let title = keys.get("name").and_then(|entry| filled_text(entry, findings));
    let description = keys.get("description").and_then(|entry| text(entry, findings));
    let events = events(&keys, findings);
    let filter = keys
        .get("filter")
        .map_or(Some(Filter::everything()), |entry| filter(entry, &lookups.by_name, findings));
    let aggregation = aggregation(&keys, &lookups.by_name, findings);
    let weight = keys.get("weight").map(|entry| weight(entry, &lookups.by_name, findings));
    let period = keys.get("period").map(|entry| period(entry, &lookups.by_name, findings));
    check_placing(aggregation.as_ref(), period.as_ref(), &keys, findings);
    let customer = customer(&keys, &lookups.by_name, findings);
    let dimensions = dimensions(&keys, findings);
    let unit = keys.get("unit").and_then(|entry| unit(entry, findings));
    let timezone = keys.get("timezone").and_then(|entry| timezone(entry, findings));
    let billing = keys.get("billing").and_then(|entry| {
        let zone = timezone.as_deref().unwrap_or("UTC");
        billing(entry, zone, findings)
    });
    check_reset(aggregation.as_ref(), &keys, findings);
    let (billing, billing_file_span) = match billing {
        Some(LocatedBilling { billing, file_span }) => (Some(billing), file_span),
        None => (None, 0..0),
    };
    // A part that is wrong may be missing here: its finding keeps the meter from being used.
    let (name, name_entry) = name?;
    let meter = Meter {
        name,
        title,
        description,
        events,
        filter: filter?,
        aggregation: aggregation?,
        weight: whole(weight)?,
        period: whole(period)?,
        customer,
        dimensions,
        lookups: lookups.by_name.clone(),
        unit,
        timezone,
        billing,
    };
    let name_span = name_entry.value_span().clone();
    Some(Located { meter, name_span, lookups, billing_file_span })
}

/// What is given must be right.
fn whole<T>(given: Option<Option<T>>) -> Option<Option<T>> {
    match given {
        Some(None) => None,
        given => Some(given.flatten()),
    }
}

/// A share of an event has a meaning for sums alone.
fn check_placing(
    aggregation: Option<&Aggregation>,
    period: Option<&Option<Period>>,
    keys: &Keys<'_>,
    findings: &mut Findings<'_>,
) {
    let (Some(aggregation), Some(Some(period)), Some(entry)) =
        (aggregation, period, keys.get("period"))
    else {
        return;
    };
    let shares = period.place == Placing::Prorate;
    if shares && !matches!(aggregation, Aggregation::Sum(_)) {
        let message = format!("`{}` cannot be prorated", aggregation.name());
        let help = "only a `sum` can; say `place: start` or `place: end`";
        findings.report_help(&entry.key_span, message, help);
    } else if shares && keys.get("weight").is_some() {
        let message = "a prorated sum takes no `weight`";
        findings.report_help(&entry.key_span, message, "multiply in an `expression`");
    }
}

/// Billing periods after which something begins anew must be told.
fn check_reset(aggregation: Option<&Aggregation>, keys: &Keys<'_>, findings: &mut Findings<'_>) {
    if let Some(Aggregation::Reported(Report { reset: Some(Windowing::BillingPeriod), .. })) =
        aggregation
        && keys.get("billing").is_none()
        && let Some(entry) = keys.get("reset")
    {
        let help = "say since when, such as `billing: { anchor: 2023-01-31 }`";
        findings.report_help(entry.value_span(), "the meter has no billing periods", help);
    }
}

fn identifier(entry: &Entry, findings: &mut Findings<'_>) -> Option<String> {
    let found = text(entry, findings)?;
    if !is_identifier(&found) {
        let message = format!("{} is no identifier", quote(&found));
        let help = "a lower-case letter, then letters, digits, `_` and `-`, at most 63";
        findings.report_help(entry.value_span(), message, help);
        return None;
    }
    Some(found)
}

fn events(keys: &Keys<'_>, findings: &mut Findings<'_>) -> Vec<String> {
    let Some(entry) = keys.get("event") else { return Vec::new() };
    if matches!(&entry.value.content, Content::List(nodes) if nodes.is_empty()) {
        let help = "leave it out to count every event";
        findings.report_help(entry.value_span(), "`event` names no event", help);
    }
    let names = texts(entry, findings);
    for (name, place) in &names {
        if name.is_empty() || name.len() > EVENT_NAME_MAX_BYTES {
            let message = format!(
                "event name {} has {} bytes, not 1 to {EVENT_NAME_MAX_BYTES}",
                quote(name),
                name.len()
            );
            findings.report(place, message);
        }
    }
    distinct(&names, "event", findings)
}

fn dimensions(keys: &Keys<'_>, findings: &mut Findings<'_>) -> Vec<String> {
    let Some(entry) = keys.get("dimensions") else { return Vec::new() };
    let names = texts(entry, findings);
    for (_, place) in names.iter().filter(|(name, _)| name.is_empty()) {
        findings.report(place, "a dimension has no name");
    }
    distinct(&names, "dimension", findings)
}

/// What tells the customer, the first that is there.
fn customer(
    keys: &Keys<'_>,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Vec<Operand> {
    let Some(entry) = keys.get("customer") else { return Vec::new() };
    let names = texts(entry, findings);
    if names.is_empty() {
        let help = "leave it out where `customer_id` says it";
        findings.report_help(entry.value_span(), "`customer` names nothing", help);
    }
    for (name, place) in &names {
        match resolve_among(name, lookups) {
            Operand::Field(field) if field.is_time() => {
                findings.report(place, format!("`{field}` is a moment, no customer"));
            }
            Operand::Lookup(lookup)
                if lookups[&lookup].source() == Operand::Field(Field::CustomerId)
                    && names.len() == 1 =>
            {
                let message = format!("`{lookup}` alone leaves out customers without a row");
                let help = format!("write `customer: [{lookup}, customer_id]`");
                findings.report_help(place, message, help);
            }
            _ => {}
        }
    }
    distinct(&names, "customer", findings).iter().map(|name| resolve_among(name, lookups)).collect()
}

/// The names, of which none may stand twice.
fn distinct(
    names: &[(&str, &Range<usize>)],
    subject: &str,
    findings: &mut Findings<'_>,
) -> Vec<String> {
    let mut seen = BTreeSet::new();
    for (name, place) in names {
        if !seen.insert(name) {
            findings.report(place, format!("{subject} {} stands twice", quote(name)));
        }
    }
    names.iter().map(|(name, _)| (*name).to_owned()).collect()
}

/// The zone's name as the database spells it.
fn timezone(entry: &Entry, findings: &mut Findings<'_>) -> Option<String> {
    let found = text(entry, findings)?;
    match parse_zone(&found) {
        Ok(zone) => Some(zone.iana_name().unwrap_or(&found).to_owned()),
        Err(error) => {
            findings.report(entry.value_span(), error.to_string());
            None
        }
    }
}

#[cfg(test)]
mod tests;
