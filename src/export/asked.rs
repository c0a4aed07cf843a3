//! What is asked of an export, as names and texts: two runs that say the same are of one export.

use std::collections::BTreeMap;

use super::{Export, Format, Source};
use crate::error::{Error, Result};
use crate::period::lasting_name;
use crate::time::{TimeRange, Timestamp};
use crate::usage::{Context, Grouping, UsageRequest};

/// What tells exports of one lake from those of another.
pub(super) const LAKE: &str = "lake";

/// What tells one export from another.
///
/// # Errors
/// A period that cannot be read.
pub(super) fn asked(context: &Context, export: &Export<'_>) -> Result<BTreeMap<String, String>> {
    let mut asked = BTreeMap::new();
    let mut tell = |name: &str, value: Option<String>| {
        asked.extend(value.map(|value| (name.to_owned(), value)));
    };
    // Two lakes may have everything else in common.
    let (namespace, table) = (&context.lake.namespace, context.lake.events.table_id());
    tell(LAKE, Some(format!("{namespace}, table {table}")));
    tell("format", Some(export.format.name().to_owned()));
    match export.source {
        Source::Statements { meters, period, .. } => {
            tell("export", Some("statements".to_owned()));
            let all = || "all".to_owned();
            tell("meters", Some(if meters.is_empty() { all() } else { meters.join(", ") }));
            tell("period", Some(period.map_or_else(all, str::to_owned)));
        }
        Source::Usage(request) => {
            tell("export", Some("usage".to_owned()));
            tell("meters", Some(request.meters.join(", ")));
            tell("period", Some(period_name(context, request)?));
            tell("zone", request.timezone.clone());
            tell(
                "rows by",
                Some(match &request.grouping {
                    Grouping::Customer => "customer".to_owned(),
                    Grouping::By(names) => names.join(", "),
                    Grouping::Breakdown => "customer and dimensions of the meter".to_owned(),
                    Grouping::Total => "nothing".to_owned(),
                }),
            );
            tell("window", request.window.clone());
            tell("anchor", request.anchor.clone());
            tell("cycle", request.cycle.clone());
            tell("fill", request.fill.clone());
            tell("customer", request.customer.clone());
            tell("conditions", request.conditions.clone());
            tell("top", request.top.map(|top| top.to_string()));
            tell("at version", request.at.map(|version| version.to_string()));
        }
    }
    if let (Format::Stripe, Some(events)) = (export.format, export.events) {
        tell("event name", events.event_name.clone());
    }
    Ok(asked)
}

/// What the period of a question is called at any time: `last-month` is another one soon.
///
/// # Errors
/// A period that cannot be read.
pub fn period_name(context: &Context, request: &UsageRequest) -> Result<String> {
    let now = context.clock.now();
    let named = request.meters.first().and_then(|name| {
        let name = name.split_once('@').map_or(name.as_str(), |(name, _)| name);
        context.meters.iter().find(|meter| meter.name == name)
    });
    let Some(meter) = named else { return without_meter(request) };
    let TimeRange { from, to } = request.bounds(meter, now)?;
    match (from, to) {
        (Some(from), Some(to)) if request.period.is_some() => {
            lasting_name(request, meter, (from, to), now)
        }
        (None, None) => Ok("all".to_owned()),
        (from, to) => {
            let text =
                |bound: Option<Timestamp>| bound.map_or_else(String::new, |at| at.to_string());
            Ok(format!("{}..{}", text(from), text(to)))
        }
    }
}

/// Of a meter that was only published: what was written.
fn without_meter(request: &UsageRequest) -> Result<String> {
    let UsageRequest { period, from, to, .. } = request;
    let text = |bound: &Option<String>| bound.clone().unwrap_or_default();
    match (period, from, to) {
        (Some(period), ..) if period.starts_with(|c: char| c.is_ascii_digit()) => {
            Ok(period.clone())
        }
        (Some(period), ..) => Err(Error::invalid(format!(
            "the period `{period}` is another one soon: write it out, such as 2026-10, for a meter that no \
             file defines"
        ))),
        (None, None, None) => Ok("all".to_owned()),
        (None, from, to) => Ok(format!("{}..{}", text(from), text(to))),
    }
}
