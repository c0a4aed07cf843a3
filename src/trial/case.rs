//! Reads a file of tests: text in, cases or all that is wrong with it out.
//!
//! Values are taken as they are written, as in meter files: an unquoted number is that exact number,
//! `true` and `false` are booleans, and anything quoted is a text.

use std::collections::BTreeMap;
use std::path::Path;

use crate::decimal::Decimal;
use crate::document::{
    Content, Diagnostics, Entry, Findings, Keys, Node, boolean, filled_text, items, keys, mapping,
    number, quote, read_document, text, texts, whole_number,
};
use crate::error::Result;
use crate::meter::{FILE_MAX_BYTES, is_identifier};
use crate::time::{BillingPeriod, Timestamp, parse_bound, parse_period, parse_zone};
use crate::usage::{Fill, Grouping, UsageRequest};

/// Most rows that a test may expect.
const ROWS_MAX: usize = 1_000;

/// Keys of a case.
pub(super) const CASE: [&str; 21] = [
    "test",
    "lookups",
    "events",
    "events_file",
    "period",
    "from",
    "to",
    "by",
    "breakdown",
    "total",
    "window",
    "anchor",
    "cycle",
    "fill",
    "customer",
    "where",
    "timezone",
    "top",
    "now",
    "expect",
    "error",
];

/// Fields of an event.
pub(super) const EVENT: [&str; 7] = [
    "customer_id",
    "event_name",
    "idempotency_key",
    "properties",
    "resource_id",
    "source",
    "timestamp",
];

/// The tests of a meter.
#[derive(Debug, Clone, PartialEq)]
pub struct Suite {
    /// The file they stand in.
    pub file: String,
    /// The tests, in order.
    pub cases: Vec<Case>,
}

impl Suite {
    /// Where files of events that the tests name are looked for.
    pub fn folder(&self) -> &Path {
        Path::new(&self.file).parent().unwrap_or(Path::new(""))
    }
}

/// One test.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// Line in the file, from 1.
    pub line: usize,
    /// The lookup tables that the lake has.
    pub tables: Vec<LakeTable>,
    /// What happens.
    pub events: Events,
    /// What is asked; the meter is not named.
    pub request: UsageRequest,
    /// What "today" is relative to.
    pub now: Option<Timestamp>,
    /// What must be answered.
    pub want: Want,
}

/// A lookup table that the lake of a test has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LakeTable {
    /// Its name in the lake.
    pub name: String,
    /// Its file, relative to the file of tests.
    pub path: String,
    /// Line that names it.
    pub line: usize,
}

/// The events of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Events {
    /// In the file of tests.
    Written(Vec<WrittenEvent>),
    /// In a file of their own.
    File {
        /// Relative to the file of tests.
        path: String,
        /// Line that names it.
        line: usize,
    },
}

/// An event as a test writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenEvent {
    /// Line in the file, from 1.
    pub line: usize,
    /// JSON of each field that is written.
    pub members: BTreeMap<&'static str, String>,
}

/// What a test expects.
#[derive(Debug, Clone, PartialEq)]
pub enum Want {
    /// Exactly these rows, in any order.
    Rows {
        /// Line of `expect`.
        line: usize,
        /// The rows.
        rows: Vec<Expected>,
    },
    /// An error whose message contains a text.
    Error {
        /// Line of `error`.
        line: usize,
        /// The text.
        part: String,
    },
}

/// A row as a test expects it: only the columns that it names are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    /// Line in the file, from 1.
    pub line: usize,
    /// Columns and values; null is `None`.
    pub cells: Vec<(String, Option<Cell>)>,
}

/// A value that a test expects.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// As it is written.
    pub text: String,
    /// What it is as a number, if it is one and not quoted.
    pub number: Option<Decimal>,
}

/// The tests that a file's text (YAML or JSON) holds. `file` is named in messages, and files of
/// events are looked for beside it.
///
/// # Errors
/// Everything that is wrong with the text, each with its place.
pub fn parse_suite(text: &str, file: &str) -> Result<Suite, Diagnostics> {
    if text.len() > FILE_MAX_BYTES {
        let mut findings = Findings::new("", file, "list of tests");
        let message = format!("file of {} bytes is larger than {FILE_MAX_BYTES}", text.len());
        findings.report(&(0..0), message);
        return findings.finish(None);
    }
    let mut findings = Findings::new(text, file, "list of tests");
    let cases = read_document(&mut findings).and_then(|root| cases(&root, &mut findings));
    findings.finish(cases.map(|cases| Suite { file: file.to_owned(), cases }))
}

fn cases(root: &Node, findings: &mut Findings<'_>) -> Option<Vec<Case>> {
    let Content::List(nodes) = &root.content else {
        let message = format!("a file of tests holds a list, not {}", root.kind());
        let help = "begin each test with `- test: what it shows`";
        findings.report_help(&(root.span.start..root.span.start + 1), message, help);
        return None;
    };
    if nodes.is_empty() {
        findings.report(&root.span, "the list of tests is empty");
    }
    let mut cases: Vec<Case> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let Some(case) = case(node, findings) else { continue };
        if let Some(first) = cases.iter().find(|first| first.name == case.name) {
            let message =
                format!("test {} stands in line {} already", quote(&case.name), first.line);
            findings.report(&node.span, message);
        }
        cases.push(case);
    }
    Some(cases)
}

fn case(node: &Node, findings: &mut Findings<'_>) -> Option<Case> {
    let keys = keys(node, &node.span, "a test", &CASE, findings)?;
    let name = keys.require("test", "what it shows, in a few words", findings);
    let name = name.and_then(|entry| filled_text(entry, findings));
    let now = keys.get("now").and_then(|entry| instant(entry, findings));
    let tables = tables(&keys, findings);
    let events = events(&keys, findings);
    let request = request(&keys, findings);
    let want = want(&keys, findings);
    Some(Case {
        name: name?,
        line: findings.line(keys.span.start),
        tables,
        events: events?,
        request,
        now,
        want: want?,
    })
}

fn instant(entry: &Entry, findings: &mut Findings<'_>) -> Option<Timestamp> {
    let found = text(entry, findings)?;
    match Timestamp::parse_rfc3339(&found) {
        Ok(instant) => Some(instant),
        Err(error) => {
            findings.report(entry.value_span(), format!("time {} {error}", quote(&found)));
            None
        }
    }
}

fn events(keys: &Keys<'_>, findings: &mut Findings<'_>) -> Option<Events> {
    match (keys.get("events"), keys.get("events_file")) {
        (Some(_), Some(file)) => {
            let message = "`events` and `events_file` cannot stand together";
            findings.report_help(&file.key_span, message, "leave one of them out");
            None
        }
        (Some(entry), None) => {
            let nodes = match &entry.value.content {
                Content::List(nodes) => nodes.as_slice(),
                Content::Refused => return None,
                Content::Scalar { .. } | Content::Mapping(_) => {
                    let message = format!("`events` needs a list, not {}", entry.value.kind());
                    findings.report(entry.value_span(), message);
                    return None;
                }
            };
            Some(Events::Written(nodes.iter().filter_map(|node| event(node, findings)).collect()))
        }
        (None, Some(entry)) => {
            let path = relative_path(entry, findings)?;
            Some(Events::File { path, line: findings.line(entry.key_span.start) })
        }
        (None, None) => {
            let help = "a list of events, or `events_file` with the path of a file";
            findings.report_help(&keys.span, "missing key `events`", help);
            None
        }
    }
}

/// The lookup tables of the lake, each with its file.
fn tables(keys: &Keys<'_>, findings: &mut Findings<'_>) -> Vec<LakeTable> {
    let Some(entry) = keys.get("lookups") else { return Vec::new() };
    let named = mapping(&entry.value, entry.value_span(), "`lookups`", findings);
    let mut tables = Vec::new();
    for entry in named.unwrap_or_default() {
        if !is_identifier(&entry.key) {
            let message = format!("{} is no name of a table of the lake", quote(&entry.key));
            let help = "a lower-case letter, then letters, digits, `_` and `-`, at most 63";
            findings.report_help(&entry.key_span, message, help);
        } else if let Some(path) = relative_path(entry, findings) {
            let line = findings.line(entry.key_span.start);
            tables.push(LakeTable { name: entry.key.clone(), path, line });
        }
    }
    tables
}

/// The path of a file that a test names.
fn relative_path(entry: &Entry, findings: &mut Findings<'_>) -> Option<String> {
    let path = filled_text(entry, findings)?;
    if Path::new(&path).is_absolute() || path.contains("://") {
        let message = format!("`{}` needs a relative path, not {}", entry.key, quote(&path));
        let help = "it starts at the folder of the file of tests";
        findings.report_help(entry.value_span(), message, help);
        return None;
    }
    Some(path)
}

fn event(node: &Node, findings: &mut Findings<'_>) -> Option<WrittenEvent> {
    let keys = keys(node, &node.span, "an event", &EVENT, findings)?;
    let mut members = BTreeMap::new();
    for field in EVENT {
        let Some(entry) = keys.get(field) else { continue };
        let value = match field {
            "properties" => {
                mapping(&entry.value, entry.value_span(), "`properties`", findings)?;
                json(&entry.value)
            }
            _ if entry.value.is_null() => "null".to_owned(),
            _ => json_text(&text(entry, findings)?),
        };
        members.insert(field, value);
    }
    Some(WrittenEvent { line: findings.line(node.span.start), members })
}

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A node as JSON: numbers digit by digit as they are written, what is quoted as text.
fn json(node: &Node) -> String {
    match &node.content {
        _ if node.is_null() => "null".to_owned(),
        Content::Scalar { text, plain: true } if is_json_word(text) => text.clone(),
        Content::Scalar { text, .. } => json_text(text),
        Content::List(nodes) => {
            format!("[{}]", nodes.iter().map(json).collect::<Vec<_>>().join(","))
        }
        Content::Mapping(entries) => {
            let member =
                |entry: &Entry| format!("{}:{}", json_text(&entry.key), json(&entry.value));
            format!("{{{}}}", entries.iter().map(member).collect::<Vec<_>>().join(","))
        }
        Content::Refused => "null".to_owned(),
    }
}

/// Whether a text is a number or boolean of JSON.
fn is_json_word(text: &str) -> bool {
    let number = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    matches!(text, "true" | "false")
        || (number && serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok())
}

fn request(keys: &Keys<'_>, findings: &mut Findings<'_>) -> UsageRequest {
    let now = Timestamp::from_micros(0);
    let utc = jiff::tz::TimeZone::UTC;
    let mut known = |key: &str, check: &dyn Fn(&str) -> Result<()>| {
        let entry = keys.get(key)?;
        let found = filled_text(entry, findings)?;
        match check(&found) {
            Ok(()) => Some(found),
            Err(error) => {
                findings.report(entry.value_span(), error.to_string());
                None
            }
        }
    };
    let any = |_: &str| Ok(());
    let bound = |text: &str| parse_bound(text, &utc).map(|_| ());
    let mut request = UsageRequest {
        period: known("period", &|text| match BillingPeriod::named(text)? {
            // What it is depends on the meter.
            Some(_) => Ok(()),
            None => parse_period(text, &utc, now).map(|_| ()),
        }),
        from: known("from", &bound),
        to: known("to", &bound),
        timezone: known("timezone", &|text| parse_zone(text).map(|_| ())),
        window: known("window", &any),
        anchor: known("anchor", &any),
        cycle: known("cycle", &any),
        fill: known("fill", &|text| text.parse::<Fill>().map(|_| ())),
        customer: known("customer", &any),
        conditions: known("where", &any),
        ..UsageRequest::default()
    };
    if let Some(entry) = keys.get("top") {
        let top = whole_number(entry, 1, i32::MAX, findings);
        request.top = top.and_then(|top| usize::try_from(top).ok());
    }
    request.grouping = grouping(keys, findings);
    request
}

fn grouping(keys: &Keys<'_>, findings: &mut Findings<'_>) -> Grouping {
    let mut stands = |key: &str| {
        keys.get(key).filter(|entry| boolean(entry, findings) == Some(true)).map(|e| &e.key_span)
    };
    let (breakdown, total) = (stands("breakdown"), stands("total"));
    let by = keys.get("by");
    let several = [by.map(|entry| &entry.key_span), breakdown, total];
    let mut several = several.into_iter().flatten();
    if let (Some(_), Some(second)) = (several.next(), several.next()) {
        let message = "`by`, `breakdown` and `total` exclude each other";
        findings.report(second, message);
    }
    match by {
        Some(entry) => {
            let names = texts(entry, findings).into_iter().map(|(name, _)| name.to_owned());
            Grouping::By(names.collect())
        }
        None if total.is_some() => Grouping::Total,
        None if breakdown.is_some() => Grouping::Breakdown,
        None => Grouping::Customer,
    }
}

fn want(keys: &Keys<'_>, findings: &mut Findings<'_>) -> Option<Want> {
    match (keys.get("expect"), keys.get("error")) {
        (Some(_), Some(error)) => {
            let message = "`expect` and `error` cannot stand together";
            findings.report_help(&error.key_span, message, "leave one of them out");
            None
        }
        (None, Some(entry)) => {
            let part = filled_text(entry, findings)?;
            Some(Want::Error { line: findings.line(entry.key_span.start), part })
        }
        (Some(entry), None) => {
            let line = findings.line(entry.key_span.start);
            if entry.value.is_null() {
                let help = "write `[]` where no row is expected";
                findings.report_help(&entry.key_span, "`expect` has no rows", help);
                return None;
            }
            let rows = items(entry).into_iter().filter_map(|(node, place)| {
                let entries = mapping(node, place, "an expected row", findings)?;
                if entries.is_empty() {
                    let help = "name a column, or write `expect: []` where no row is expected";
                    findings.report_help(place, "an expected row names no column", help);
                    return None;
                }
                let cells = entries
                    .iter()
                    .filter_map(|entry| Some((entry.key.clone(), cell(entry, findings)?)));
                Some((cells.collect(), place.start))
            });
            let rows: Vec<(Vec<_>, usize)> = rows.collect();
            if rows.len() > ROWS_MAX {
                let message = format!("a test expects at most {ROWS_MAX} rows, not {}", rows.len());
                findings.report_help(&entry.key_span, message, "ask for fewer groups");
            }
            let expected = |(cells, start)| Expected { line: findings.line(start), cells };
            Some(Want::Rows { line, rows: rows.into_iter().map(expected).collect() })
        }
        (None, None) => {
            let help = "the rows that must come, or `error` with a part of its message";
            findings.report_help(&keys.span, "missing key `expect`", help);
            None
        }
    }
}

/// A value; the inner `None` is null, the outer one a mistake.
fn cell(entry: &Entry, findings: &mut Findings<'_>) -> Option<Option<Cell>> {
    if entry.value.is_null() {
        return Some(None);
    }
    let found = text(entry, findings)?;
    let plain = matches!(&entry.value.content, Content::Scalar { plain: true, .. });
    let number = plain.then(|| number(&found).ok()).flatten();
    Some(Some(Cell { text: found, number }))
}
