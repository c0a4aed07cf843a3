//! Reads the aggregations that follow something over time, and those of two levels.

use std::collections::BTreeMap;

use super::aggregation::{
    Activity, Aggregation, Levels, Nested, Operation, Outer, Percent, Period, Placing, Report, Told,
};
use super::keys::{NESTED, OPERATION_ACTIVE, OPERATION_REPORTED, OUTER, PERIOD, PLACINGS};
use super::lookup::Lookup;
use super::measure::{numeric_operand, simple, text_operand};
use super::{Field, Operand, resolve_among};
use crate::document::{
    Content, Entry, Findings, Keys, filled_text, keys, quote, scalar, text, texts, word,
};
use crate::time::{Window, Windowing};

/// What a level is told by, and whose levels there are.
pub(super) fn time_weighted(
    keys: &Keys<'_>,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Option<Aggregation> {
    let of = numeric_operand("time_weighted", keys, lookups, findings);
    let help = "`level` where each event tells the level, `change` where it tells a difference";
    let told = keys.require("of", help, findings)?;
    let told = match word(told, &["level", "change"], findings)? {
        "level" => Told::Level,
        _ => Told::Change,
    };
    if let (Told::Change, Some(per)) = (told, keys.get("per")) {
        let message = "changes add up, whoever makes them: `per` says nothing";
        findings.report_help(&per.key_span, message, "leave it out");
    }
    let per = series(keys, &[Field::CustomerId, Field::ResourceId], lookups, findings);
    Some(Aggregation::TimeWeighted(Levels { of: of?, told, per }))
}

/// Values that come and go.
pub(super) fn active(
    keys: &Keys<'_>,
    told: &Entry,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Option<Aggregation> {
    let of = text_operand("count_unique", keys, lookups, findings);
    let operation = operation(told, &OPERATION_ACTIVE, ["add", "remove"], 0, lookups, findings);
    let by_days = match keys.get("prorate") {
        None => false,
        Some(entry) => word(entry, &["days"], findings).is_some(),
    };
    let per = series(keys, &[Field::CustomerId], lookups, findings);
    Some(Aggregation::Active(Activity { of: of?, operation: operation?, per, by_days }))
}

/// A quantity that the sender keeps.
pub(super) fn reported(
    keys: &Keys<'_>,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Option<Aggregation> {
    let of = numeric_operand("reported", keys, lookups, findings);
    let help = "the property that says how a value is meant, such as `operation: updateBehavior`";
    let told = keys.require("operation", help, findings);
    let operation = told.and_then(|told| {
        operation(told, &OPERATION_REPORTED, ["SET", "DELTA"], 1, lookups, findings)
    });
    let reset = match keys.get("reset") {
        None => Some(None),
        Some(entry) => windowing(entry, findings).map(Some),
    };
    let per = series(keys, &[Field::CustomerId, Field::ResourceId], lookups, findings);
    Some(Aggregation::Reported(Report { of: of?, operation: operation?, per, reset: reset? }))
}

/// A property with its two kinds of words: alone, or in a mapping that says the words.
fn operation(
    entry: &Entry,
    names: &[&'static str; 4],
    usual: [&str; 2],
    silent: usize,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Option<Operation> {
    if let Content::Scalar { .. } = &entry.value.content {
        let of = resolve_among(&filled_text(entry, findings)?, lookups);
        return Some(Operation { of, words: usual.map(|word| vec![word.to_owned()]), silent });
    }
    let keys = keys(&entry.value, entry.value_span(), "`operation`", names, findings)?;
    let of = text_operand("operation", &keys, lookups, findings);
    let mut of_kind = |place: usize| match keys.get(names[place + 2]) {
        None => vec![usual[place].to_owned()],
        Some(entry) => {
            texts(entry, findings).into_iter().map(|(word, _)| word.to_owned()).collect()
        }
    };
    let words = [of_kind(0), of_kind(1)];
    if let Some(both) = words[0].iter().find(|word| words[1].contains(word)) {
        let message = format!("{} is both `{}` and `{}`", quote(both), names[2], names[3]);
        findings.report(entry.value_span(), message);
        return None;
    }
    Some(Operation { of: of?, words, silent })
}

/// The operands of `per`, or the usual ones.
fn series(
    keys: &Keys<'_>,
    usual: &[Field],
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Vec<Operand> {
    let Some(entry) = keys.get("per") else {
        return usual.iter().map(|field| Operand::Field(*field)).collect();
    };
    let names = texts(entry, findings);
    names.into_iter().map(|(name, _)| resolve_among(name, lookups)).collect()
}

fn windowing(entry: &Entry, findings: &mut Findings<'_>) -> Option<Windowing> {
    let found = text(entry, findings)?;
    match found.parse() {
        Ok(windowing) => Some(windowing),
        Err(error) => {
            findings.report(entry.value_span(), format!("{error}"));
            None
        }
    }
}

/// The aggregation of the results that `of` describes.
pub(super) fn nested(
    name: &'static str,
    place: &Entry,
    percent: Option<Percent>,
    of: &Entry,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Option<Aggregation> {
    let inner = keys(&of.value, of.value_span(), "`of`", &NESTED, findings)?;
    let help = "what each result is, such as `aggregation: max`";
    let named = inner.require("aggregation", help, findings);
    let aggregation = named.and_then(|entry| simple(entry, &inner, lookups, findings));
    let help = "a window (`hour`) or what each result is of (`resource_id`), or a list of both";
    let (window, per) = per(inner.require("per", help, findings)?, lookups, findings)?;
    let outer = match name {
        "count" => Outer::Count,
        "sum" => Outer::Sum,
        "min" => Outer::Min,
        "max" => Outer::Max,
        "average" => Outer::Average,
        "percentile" => Outer::Percentile(percent?),
        other => {
            let message = format!("`{other}` of results is not defined");
            let help = format!("use one of `{}`", OUTER.join("`, `"));
            findings.report_help(place.value_span(), message, help);
            return None;
        }
    };
    Some(Aggregation::Nested(Box::new(Nested { outer, inner: aggregation?, window, per })))
}

/// A window at most, and operands: a word that is a window is one; a property of such a name is
/// `property.hour`.
fn per(
    entry: &Entry,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Option<(Option<Window>, Vec<Operand>)> {
    let names = texts(entry, findings);
    if names.is_empty() {
        findings.report(entry.value_span(), "`per` names nothing");
        return None;
    }
    let (mut window, mut operands) = (None, Vec::new());
    for (name, span) in names {
        match (name.parse::<Window>(), window) {
            (Ok(_), Some(_)) => {
                findings.report(span, "a result has one window, and this is the second");
                return None;
            }
            (Ok(found), None) => window = Some(found),
            (Err(_), _) => operands.push(resolve_among(name, lookups)),
        }
    }
    Some((window, operands))
}

/// The stretch of time of a `period` key.
pub(super) fn period(
    entry: &Entry,
    lookups: &BTreeMap<String, Lookup>,
    findings: &mut Findings<'_>,
) -> Option<Period> {
    let keys = keys(&entry.value, entry.value_span(), "`period`", &PERIOD, findings)?;
    let mut bound = |key: &str, help: &str| {
        let entry = keys.require(key, help, findings)?;
        let name = scalar(&entry.value, entry.value_span(), key, findings)?;
        match resolve_among(name, lookups) {
            Operand::Field(field) if !field.is_time() => {
                let message = format!("`{field}` is a text, no moment");
                findings.report(entry.value_span(), message);
                None
            }
            operand => Some(operand),
        }
    };
    let start = bound("start", "what holds its beginning, such as `start: period_start`");
    let end = bound("end", "what holds its end, such as `end: period_end`");
    let place = keys.get("place").map_or(Some("prorate"), |place| word(place, &PLACINGS, findings));
    let place = match place? {
        "start" => Placing::Start,
        "end" => Placing::End,
        _ => Placing::Prorate,
    };
    Some(Period { start: start?, end: end?, place })
}
