//! Reads a mapping file. A plain text names a field of the record; `{ value: … }` is a constant,
//! taken as it is written.

use super::{KeyOrigin, Mapping, Origin, TimestampForm, timestamp_form};
use crate::document::{
    Content, Diagnostics, Entry, Findings, Keys, Node, boolean, filled_text, keys, read_document,
    text, texts,
};
use crate::time::parse_zone;

/// Keys of a mapping file.
const MAPPING: [&str; 7] = [
    "idempotency_key",
    "event_name",
    "customer_id",
    "resource_id",
    "source",
    "timestamp",
    "timezone",
];

/// The mapping that a file's text defines, or everything that is wrong with it.
pub(super) fn parse(text: &str, file: &str) -> Result<Mapping, Diagnostics> {
    let mut findings = Findings::new(text, file, "mapping");
    let mapping = read_document(&mut findings).and_then(|root| mapping(&root, &mut findings));
    findings.finish(mapping)
}

fn mapping(root: &Node, findings: &mut Findings<'_>) -> Option<Mapping> {
    let top = root.span.start..root.span.start + 1;
    let keys = keys(root, &top, "a mapping", &MAPPING, findings)?;
    let mut mapping = Mapping::default();
    if let Some(entry) = keys.get("idempotency_key") {
        mapping.key = key(entry, findings)?;
    }
    for (name, place) in [
        ("event_name", &mut mapping.event_name),
        ("customer_id", &mut mapping.customer_id),
        ("resource_id", &mut mapping.resource_id),
        ("source", &mut mapping.source),
    ] {
        if let Some(entry) = keys.get(name) {
            *place = origin(entry, findings)?;
        }
    }
    if let Some(entry) = keys.get("timestamp") {
        (mapping.timestamp, mapping.timestamp_form) = timestamp(entry, findings)?;
    }
    if let Some(entry) = keys.get("timezone") {
        match parse_zone(&text(entry, findings)?) {
            Ok(zone) => mapping.zone = Some(zone),
            Err(error) => findings.report(entry.value_span(), error.to_string()),
        }
    }
    Some(mapping)
}

/// The keys of a value that is a mapping of its own; `None` where it is a plain text.
fn inner<'n>(
    entry: &'n Entry,
    known: &[&str],
    findings: &mut Findings<'_>,
) -> Option<Option<Keys<'n>>> {
    match &entry.value.content {
        Content::Mapping(_) => {
            let subject = format!("`{}`", entry.key);
            keys(&entry.value, entry.value_span(), &subject, known, findings).map(Some)
        }
        Content::Scalar { .. } | Content::List(_) => Some(None),
        Content::Refused => None,
    }
}

fn key(entry: &Entry, findings: &mut Findings<'_>) -> Option<KeyOrigin> {
    let Some(keys) = inner(entry, &["fields", "content"], findings)? else {
        return filled_text(entry, findings).map(KeyOrigin::Field);
    };
    match (keys.get("fields"), keys.get("content")) {
        (Some(fields), None) => {
            let names: Vec<String> =
                texts(fields, findings).into_iter().map(|(name, _)| name.to_owned()).collect();
            if !names.is_empty() {
                return Some(KeyOrigin::Fields(names));
            }
        }
        (None, Some(content)) if boolean(content, findings)? => return Some(KeyOrigin::Content),
        _ => {}
    }
    findings.report_help(
        entry.value_span(),
        "`idempotency_key` needs one origin",
        "a field, `{ fields: [a, b] }` or `{ content: true }`",
    );
    None
}

fn origin(entry: &Entry, findings: &mut Findings<'_>) -> Option<Origin> {
    let Some(keys) = inner(entry, &["value"], findings)? else {
        return filled_text(entry, findings).map(Origin::Field);
    };
    let value = keys.require("value", "the constant, such as `{ value: request }`", findings)?;
    filled_text(value, findings).map(Origin::Constant)
}

fn timestamp(entry: &Entry, findings: &mut Findings<'_>) -> Option<(String, TimestampForm)> {
    let Some(keys) = inner(entry, &["field", "format", "epoch"], findings)? else {
        return Some((filled_text(entry, findings)?, TimestampForm::Text));
    };
    let field = keys.require("field", "the field that holds the time", findings)?;
    let field = filled_text(field, findings)?;
    let mut part = |name| match keys.get(name) {
        Some(entry) => filled_text(entry, findings).map(Some),
        None => Some(None),
    };
    let (format, epoch) = (part("format")?, part("epoch")?);
    match timestamp_form(format, epoch.as_deref()) {
        Ok(form) => Some((field, form)),
        Err(message) => {
            findings.report(entry.value_span(), message);
            None
        }
    }
}
