//! Typed readings of nodes: texts, lists of texts, words, numbers.
//!
//! Each reading gives the value, or reports why there is none.

use std::collections::BTreeMap;
use std::ops::Range;

use super::diagnostic::{Findings, quote};
use super::tree::{Content, Entry, Node};
use super::words::{nearest, suggestion};
use crate::decimal::{Decimal, NumberError, parse_number};

/// The entries of a mapping by key.
pub struct Keys<'n> {
    by_key: BTreeMap<&'n str, &'n Entry>,
    /// Where the mapping as a whole is shown.
    pub span: Range<usize>,
}

impl<'n> Keys<'n> {
    /// The entry of a key, if it is there.
    pub fn get(&self, key: &str) -> Option<&'n Entry> {
        self.by_key.get(key).copied()
    }

    /// The entry of a key that must be there.
    pub fn require(&self, key: &str, help: &str, findings: &mut Findings<'_>) -> Option<&'n Entry> {
        let entry = self.get(key);
        if entry.is_none() {
            findings.report_help(&self.span, format!("missing key `{key}`"), help);
        }
        entry
    }
}

/// The entries of a mapping, of which `known` are read and all others reported.
pub fn keys<'n>(
    node: &'n Node,
    place: &Range<usize>,
    subject: &str,
    known: &[&str],
    findings: &mut Findings<'_>,
) -> Option<Keys<'n>> {
    keys_except(node, place, subject, known, &[], findings)
}

/// Like [`keys`], but says nothing about `passed`, which are neither read nor offered.
pub fn keys_except<'n>(
    node: &'n Node,
    place: &Range<usize>,
    subject: &str,
    known: &[&str],
    passed: &[&str],
    findings: &mut Findings<'_>,
) -> Option<Keys<'n>> {
    let entries = mapping(node, place, subject, findings)?;
    let mut by_key = BTreeMap::new();
    for entry in entries {
        if known.contains(&&*entry.key) {
            by_key.insert(&*entry.key, entry);
        } else if !passed.contains(&&*entry.key) {
            report_unknown(entry, known, findings);
        }
    }
    let span = entries.first().map_or_else(|| place.clone(), |entry| entry.key_span.clone());
    Some(Keys { by_key, span })
}

/// Reports a key that is none of `known`.
fn report_unknown(entry: &Entry, known: &[&str], findings: &mut Findings<'_>) {
    let message = format!("unknown key {}", quote(&entry.key));
    findings.report_with(&entry.key_span, message, suggestion(&entry.key, known));
}

/// The entries of a mapping.
pub fn mapping<'n>(
    node: &'n Node,
    place: &Range<usize>,
    subject: &str,
    findings: &mut Findings<'_>,
) -> Option<&'n [Entry]> {
    match &node.content {
        Content::Mapping(entries) => Some(entries),
        Content::Scalar { .. } | Content::List(_) => {
            findings.report(place, format!("{subject} needs a mapping, not {}", node.kind()));
            None
        }
        Content::Refused => None,
    }
}

/// The text of a value that is no list or mapping and not empty, as written.
pub fn text(entry: &Entry, findings: &mut Findings<'_>) -> Option<String> {
    scalar(&entry.value, entry.value_span(), &entry.key, findings).map(str::to_owned)
}

/// Like [`text`], and at least one character that is no space.
pub fn filled_text(entry: &Entry, findings: &mut Findings<'_>) -> Option<String> {
    let found = text(entry, findings)?;
    if found.trim().is_empty() {
        findings.report(entry.value_span(), format!("`{}` is empty", entry.key));
        return None;
    }
    Some(found)
}

/// Texts with their places; a single one may stand without its list.
pub fn texts<'n>(
    entry: &'n Entry,
    findings: &mut Findings<'_>,
) -> Vec<(&'n str, &'n Range<usize>)> {
    items(entry)
        .into_iter()
        .filter_map(|(node, place)| Some((scalar(node, place, &entry.key, findings)?, place)))
        .collect()
}

/// The members of a list with their places, or the one value that stands without its list.
pub fn items(entry: &Entry) -> Vec<(&Node, &Range<usize>)> {
    match &entry.value.content {
        Content::List(nodes) => nodes
            .iter()
            .map(|node| (node, if node.span.is_empty() { &entry.key_span } else { &node.span }))
            .collect(),
        Content::Scalar { .. } | Content::Mapping(_) => vec![(&entry.value, entry.value_span())],
        Content::Refused => Vec::new(),
    }
}

/// The text of a node, reported under `key` if it has none.
pub fn scalar<'n>(
    node: &'n Node,
    place: &Range<usize>,
    key: &str,
    findings: &mut Findings<'_>,
) -> Option<&'n str> {
    match &node.content {
        Content::Scalar { text, .. } if !node.is_null() => Some(text),
        Content::Scalar { .. } | Content::List(_) | Content::Mapping(_) => {
            findings.report(place, format!("`{key}` needs a text, not {}", node.kind()));
            None
        }
        Content::Refused => None,
    }
}

/// One of a few words, by its place among them.
pub fn word<'w>(entry: &Entry, words: &[&'w str], findings: &mut Findings<'_>) -> Option<&'w str> {
    let found = text(entry, findings)?;
    let known = words.iter().find(|word| **word == found).copied();
    if known.is_none() {
        let message = format!("unknown {} {}", entry.key, quote(&found));
        let help = nearest(&found, words).map_or_else(
            || format!("use one of `{}`", words.join("`, `")),
            |near| format!("did you mean `{near}`?"),
        );
        findings.report_help(entry.value_span(), message, help);
    }
    known
}

/// An exact number within the range that values of events have.
pub fn number(text: &str) -> Result<Decimal, NumberError> {
    parse_number(text)?;
    text.parse().map_err(|_| NumberError::TooManyDigits)
}

/// An exact number above zero.
pub fn positive_number(entry: &Entry, findings: &mut Findings<'_>) -> Option<Decimal> {
    let found = text(entry, findings)?;
    match number(&found) {
        Ok(number) if number > Decimal::from(0) => Some(number),
        Ok(_) | Err(NumberError::NotANumber) => {
            let message =
                format!("`{}` needs a number above zero, not {}", entry.key, quote(&found));
            findings.report(entry.value_span(), message);
            None
        }
        Err(NumberError::TooManyDigits) => {
            let message = format!("number {} has too many digits", quote(&found));
            findings.report(entry.value_span(), message);
            None
        }
    }
}

/// A whole number within a range.
pub fn whole_number(
    entry: &Entry,
    least: i32,
    most: i32,
    findings: &mut Findings<'_>,
) -> Option<i32> {
    let found = text(entry, findings)?;
    let number = found.parse::<i32>().ok().filter(|number| (least..=most).contains(number));
    if number.is_none() {
        let message = format!(
            "`{}` needs a whole number from {least} to {most}, not {}",
            entry.key,
            quote(&found)
        );
        findings.report(entry.value_span(), message);
    }
    number
}

/// `true` or `false`, unquoted.
pub fn boolean(entry: &Entry, findings: &mut Findings<'_>) -> Option<bool> {
    match &entry.value.content {
        Content::Scalar { text, plain: true } if text == "true" => Some(true),
        Content::Scalar { text, plain: true } if text == "false" => Some(false),
        Content::Scalar { .. } | Content::List(_) | Content::Mapping(_) => {
            let message = format!("`{}` needs `true` or `false`", entry.key);
            findings.report(entry.value_span(), message);
            None
        }
        Content::Refused => None,
    }
}
