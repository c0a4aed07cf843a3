//! The engine's complaints about a statement, short and with the nearest name.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::ast::{ObjectName, Statement, visit_relations};

use super::limits::with_names;
use super::meter::METER;
use super::{EVENTS, property};
use crate::engine::engine_error;
use crate::error::{Error, ErrorKind, Result};

/// What the engine puts before its messages to tell their kind.
const PREFIXES: [&str; 10] = [
    "Error during planning: ",
    "Schema error: ",
    "This feature is not implemented: ",
    "SQL error: ",
    "Execution error: ",
    "Arrow error: ",
    "Compute error: ",
    "Cast error: ",
    "Parser error: ",
    "Invalid argument error: ",
];
/// Most columns that a message lists.
const LISTED_MAX: usize = 20;

/// What is wrong with a statement that the engine refused to plan.
pub(super) fn planning_error(error: DataFusionError) -> Error {
    if let DataFusionError::SchemaError(schema, _) = error.find_root()
        && let SchemaError::FieldNotFound { field, valid_fields } = schema.as_ref()
    {
        return Error::invalid(unknown_column(field, valid_fields));
    }
    let message = error.find_root().strip_backtrace();
    let (first, rest) = message.split_once('\n').unwrap_or((&message, ""));
    let message = match quoted_after(first, "Invalid function ") {
        Some(METER) => format!("{METER}(…) is a table: write it after FROM or JOIN"),
        Some(name) => match quoted_after(rest, "Did you mean ") {
            Some(near) => format!("no function `{name}`; did you mean `{near}`?"),
            None => format!("no function `{name}`"),
        },
        None => format!("sql: {}", plain(first)),
    };
    told(engine_error(error), message)
}

/// What went wrong while the rows were computed.
pub(super) fn running_error(error: DataFusionError) -> Error {
    let message = error.find_root().strip_backtrace();
    let first = message.lines().next().unwrap_or_default();
    let message = format!("sql: {}", plain(first));
    told(engine_error(error), message)
}

/// A statement at fault is told in the words of `message` alone: the engine's own, which would
/// follow as the cause, say the same again.
fn told(failed: Error, message: String) -> Error {
    match failed.kind() {
        ErrorKind::Invalid => Error::invalid(message),
        _ => failed,
    }
}

/// A message without what the engine puts before it, one layer after the other.
fn plain(message: &str) -> String {
    let mut rest = message;
    while let Some(inner) = PREFIXES.iter().find_map(|prefix| rest.strip_prefix(prefix)) {
        rest = inner;
    }
    lower_first(rest)
}

/// The name in single quotes behind `lead`.
fn quoted_after<'t>(text: &'t str, lead: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(lead)?;
    rest.strip_prefix('\'')?.split_once('\'').map(|(name, _)| name)
}

/// A sentence as the part of a message that follows a colon.
pub(super) fn lower_first(sentence: &str) -> String {
    let mut chars = sentence.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

fn unknown_column(field: &Column, valid: &[Column]) -> String {
    let name = &field.name;
    if property::is_call(name) {
        return format!("{name} reads the table `{EVENTS}`, which is not there in its place");
    }
    let table = |column: &Column| column.relation.as_ref().map(|table| table.table().to_owned());
    let asked = table(field);
    let candidates: BTreeSet<&str> = valid
        .iter()
        .filter(|column| asked.is_none() || table(column) == asked)
        .filter(|column| !property::is_call(&column.name))
        .map(|column| column.name.as_str())
        .collect();
    let of = asked.as_ref().map(|table| format!(" in `{table}`")).unwrap_or_default();
    if asked.is_some() && candidates.is_empty() {
        return format!("no column `{name}`{of}; a name with a dot is written in double quotes");
    }
    if let Some(near) = nearest(name, candidates.iter().copied()) {
        return format!("no column `{name}`{of}; did you mean `{near}`?");
    }
    let listed: Vec<&str> = candidates.iter().copied().take(LISTED_MAX).collect();
    let more = if candidates.len() > LISTED_MAX { ", …" } else { "" };
    match listed.is_empty() {
        true => format!("no column `{name}`{of}"),
        false => format!(
            "no column `{name}`{of}; there are {}{more}, and property('{name}') for any property",
            listed.join(", ")
        ),
    }
}

/// Refuses names of tables that are neither `events`, nor one of `answers`, nor a `WITH` query.
///
/// # Errors
/// Such a name, with what there is.
pub(super) fn check_tables(statement: &Statement, answers: &BTreeSet<&str>) -> Result<()> {
    let with = with_names(statement);
    let unknown = visit_relations(statement, |name: &ObjectName| {
        let known = match name.0.as_slice() {
            [part] => part.as_ident().is_some_and(|name| {
                let name = name.value.as_str();
                name == EVENTS || answers.contains(name) || with.contains(name)
            }),
            _ => false,
        };
        if known { ControlFlow::Continue(()) } else { ControlFlow::Break(name.clone()) }
    });
    let ControlFlow::Break(name) = unknown else { return Ok(()) };
    let name = name.0.iter().map(|part| match part.as_ident() {
        Some(name) => name.value.clone(),
        None => part.to_string(),
    });
    Err(Error::not_found(format!(
        "no table `{}`; there is `{EVENTS}`, and meter('name') for the answers of a meter",
        name.collect::<Vec<_>>().join(".")
    )))
}

/// The name among `names` that `wrong` was probably meant to be.
pub(super) fn nearest<'n>(
    wrong: &str,
    names: impl IntoIterator<Item = &'n str>,
) -> Option<&'n str> {
    let length = wrong.chars().count();
    let lower = wrong.to_lowercase();
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| {
            *distance <= 3.min(length / 2) || (length >= 3 && name.to_lowercase().contains(&lower))
        })
        .min()
        .map(|(_, name)| name)
}
