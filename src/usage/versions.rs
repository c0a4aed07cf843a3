//! Meters by version: `bandwidth@2e1a` is a published definition, `bandwidth@published` the one in
//! effect.
//!
//! Turns a request that names versions into requests that name whole ones, with their definitions
//! added to the meters there are. Where versions change within the range, windows that lie on one
//! side of each change are asked of the version that holds then; anything else has no one answer.

use std::sync::Arc;

use super::Context;
use super::request::{OwnBounds, UsageRequest};
use super::tables::ready;
use crate::error::{Error, Result};
use crate::lake::table::Table;
use crate::meter::{self, Meter};
use crate::plan::Windows;
use crate::registry::{self, Part, Schedule};
use crate::time::{BILLING_PERIOD, TimeRange, Timestamp, WindowStarts};

/// What stands for the version in effect.
const IN_EFFECT: &str = "published";

/// A request whose versions are found.
pub(super) struct Versioned {
    /// With the definitions that the requests name.
    pub(super) context: Context,
    /// To be answered one after the other, their ranges in order.
    pub(super) requests: Vec<UsageRequest>,
}

/// A meter as it is asked for: its name, and perhaps a version of it.
pub(super) fn split(asked: &str) -> (&str, Option<&str>) {
    match asked.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (asked, None),
    }
}

/// Whether `meter` is what is asked for.
pub(super) fn is_asked(meter: &Meter, asked: &str) -> bool {
    let (name, version) = split(asked);
    meter.name == name && version.is_none_or(|version| meter::version(meter) == version)
}

/// A meter of this version, as it is asked for.
pub fn reference(meter: &Meter) -> String {
    format!("{}@{}", meter.name, meter::version(meter))
}

/// Finds the versions that `request` names. All of what it is made into is asked of one version of the
/// events: `pinned`, if there is one.
///
/// # Errors
/// A version that was never published, or is not the only one that begins so; a range in which the
/// version in effect changes so that there is no one answer.
pub(super) async fn find(
    context: &Context,
    request: &UsageRequest,
    pinned: Option<u64>,
) -> Result<Versioned> {
    if request.meters.iter().all(|asked| split(asked).1.is_none()) {
        let request = UsageRequest { at: request.at.or(pinned), ..request.clone() };
        return Ok(Versioned { context: context.clone(), requests: vec![request] });
    }
    let in_effect_then = request.meters.iter().find(|asked| split(asked).1 == Some(IN_EFFECT));
    if let (Some(asked), Some(_)) = (in_effect_then, request.at) {
        return Err(Error::invalid(format!(
            "`{asked}` is what is in effect by what was published until now, which no version of the \
             events knows: with --at, name a version (`meterhouse meters history {}`)",
            split(asked).0
        )));
    }
    let table = &context.lake.events;
    let pinned = match request.at.or(pinned) {
        Some(version) => version,
        None => table.snapshot(None).await?.version,
    };
    let request = &UsageRequest { at: Some(pinned), ..request.clone() };
    let mut found = Versioned { context: context.clone(), requests: vec![request.clone()] };
    let mut meters: Vec<Meter> = context.meters.as_ref().clone();
    for (place, asked) in request.meters.iter().enumerate() {
        let parts = match split(asked) {
            (_, None) => continue,
            (name, Some(IN_EFFECT)) => in_effect(context, request, name, &mut meters).await?,
            (name, Some(version)) => {
                // A definition that is at hand need not be published.
                let meter = match meters.iter().find(|meter| is_asked(meter, asked)) {
                    Some(meter) => meter.clone(),
                    None => published(table, name, version).await?,
                };
                let asked = reference(&meter);
                meters.push(meter);
                for request in &mut found.requests {
                    request.meters[place].clone_from(&asked);
                }
                continue;
            }
        };
        let [only] = parts.as_slice() else {
            if request.meters.len() > 1 {
                return Err(Error::invalid(format!(
                    "the version of `{asked}` changes within the range: ask for it alone"
                )));
            }
            found.requests = parts;
            break;
        };
        for request in &mut found.requests {
            request.meters[place].clone_from(&only.meters[0]);
        }
    }
    found.context.meters = Arc::new(meters);
    Ok(found)
}

/// The published definition of `name` that is in effect throughout the range that `request` asks for,
/// or now where it asks for all of history.
///
/// # Errors
/// A meter that was never published, or has no version in effect then; a range within which the
/// version changes.
pub async fn published_for(context: &Context, request: &UsageRequest, name: &str) -> Result<Meter> {
    let table = &context.lake.events;
    let schedule = Schedule::of(&registry::publications(table, name).await?);
    let newest = schedule.last().ok_or_else(|| registry::not_published(name))?;
    let newest = registry::definition(table, name, newest).await?;
    let newest = ready(context, request, &newest).await?;
    let now = context.clock.now();
    let bounds = match request.own_bounds(&newest, now)? {
        // One definition is of all customers.
        Some(OwnBounds { bounds, .. }) if !bounds.is_empty() => TimeRange {
            from: bounds.iter().filter_map(|bounds| bounds.from).min(),
            to: bounds.iter().filter_map(|bounds| bounds.to).max(),
        },
        _ => request.bounds(&newest, now)?,
    };
    let range = match bounds {
        TimeRange::ALL => {
            TimeRange { from: Some(now), to: Some(Timestamp::from_micros(now.micros() + 1)) }
        }
        range => range,
    };
    let parts = schedule.parts(range);
    if parts.iter().any(|part| part.version.is_none()) {
        // Nothing is in effect only before the first publication that holds.
        let all = schedule.parts(TimeRange::ALL);
        let before = all.first().ok_or_else(|| registry::not_published(name))?;
        return Err(not_in_effect(name, before));
    }
    match parts.as_slice() {
        [Part { version: Some(version), .. }] => registry::definition(table, name, version).await,
        [before, after, ..] => {
            let change = after.range.from.ok_or_else(|| Error::internal("a change at no time"))?;
            let version = |part: &Part| part.version.clone().unwrap_or_default();
            Err(Error::invalid(format!(
                "the version of `{name}` in effect changes from {} to {} at {change}, within the \
                 range: name one of them, or ask for each part apart (--from, --to)",
                version(before),
                version(after)
            )))
        }
        [_] | [] => Err(registry::not_published(name)),
    }
}

async fn published(table: &Table, name: &str, prefix: &str) -> Result<Meter> {
    let version = registry::find(table, name, prefix).await?;
    registry::definition(table, name, &version).await
}

/// The request for `name` alone, in parts each of which one version answers; adds their definitions
/// to `meters`.
async fn in_effect(
    context: &Context,
    request: &UsageRequest,
    name: &str,
    meters: &mut Vec<Meter>,
) -> Result<Vec<UsageRequest>> {
    let table = &context.lake.events;
    let schedule = Schedule::of(&registry::publications(table, name).await?);
    let definitions = registry::definitions(table, name, &schedule).await?;
    let newest = schedule.last().and_then(|version| definitions.get(version));
    let newest = newest.ok_or_else(|| registry::not_published(name))?;
    let zone = |meter: &Meter| meter.timezone.clone();
    if request.timezone.is_none() && definitions.values().any(|each| zone(each) != zone(newest)) {
        return Err(Error::invalid(format!(
            "the published versions of `{name}` have different timezones: say which with --tz"
        )));
    }
    let now = context.clock.now();
    let newest = ready(context, request, newest).await?;
    let range = request.resolve(&newest, None, now)?.query.range;
    let parts = schedule.parts(range);
    let one_each = |part: &Part| -> Result<UsageRequest> {
        let version = part.version.as_ref().ok_or_else(|| not_in_effect(name, part))?;
        let meters = vec![format!("{name}@{version}")];
        Ok(match parts.len() {
            1 => UsageRequest { meters, ..request.clone() },
            _ => UsageRequest { meters, ..within(request, part.range) },
        })
    };
    let requests: Vec<UsageRequest> = parts.iter().map(one_each).collect::<Result<_>>()?;
    for pair in parts.windows(2) {
        let [before, after] = pair else { continue };
        let change = after.range.from.ok_or_else(|| Error::internal("a change at no time"))?;
        for version in [&before.version, &after.version].into_iter().flatten() {
            let Some(meter) = definitions.get(version) else { continue };
            let meter = ready(context, request, meter).await?;
            // What is largest, or in a window without events, is told over all parts.
            let over_all = [(request.top.is_some(), "--top"), (request.fill.is_some(), "--fill")];
            let over_all = over_all.into_iter().find_map(|(asked, flag)| asked.then_some(flag));
            if over_all.is_some() || !begins_window(request, &meter, change, now)? {
                return Err(straddles(name, (before, after), change, over_all));
            }
        }
    }
    let asked = |part: &Part| part.version.as_ref().and_then(|v| definitions.get(v));
    let used: Vec<&Meter> = parts.iter().filter_map(asked).collect();
    let unit = |meter: &Meter| meter.unit.as_ref().map(|unit| unit.name.clone());
    if used.windows(2).any(|pair| unit(pair[0]) != unit(pair[1])) {
        return Err(Error::invalid(format!(
            "the versions of `{name}` in effect have different units: ask for each part of the range \
             apart (--from, --to)"
        )));
    }
    meters.extend(used.into_iter().cloned());
    Ok(requests)
}

/// The request for these bounds instead of its own.
fn within(request: &UsageRequest, range: TimeRange) -> UsageRequest {
    // An anchor may be there for the period alone.
    let of_windows = request.window.as_deref() == Some(BILLING_PERIOD);
    UsageRequest {
        period: None,
        from: range.from.map(|from| from.to_string()),
        to: range.to.map(|to| to.to_string()),
        anchor: request.anchor.clone().filter(|_| of_windows),
        cycle: request.cycle.clone().filter(|_| of_windows),
        ..request.clone()
    }
}

/// Whether a window of the request begins at `instant`, whoever's it is.
fn begins_window(
    request: &UsageRequest,
    meter: &Meter,
    instant: Timestamp,
    now: Timestamp,
) -> Result<bool> {
    let after = Timestamp::from_micros(instant.micros().saturating_add(1));
    let at_change = within(request, TimeRange { from: Some(instant), to: Some(after) });
    let day = instant.date_days();
    let days = Some((day.saturating_sub(1), day.saturating_add(1)));
    let windows = at_change.resolve(meter, days, now)?.query.windows;
    let begins = |starts: &WindowStarts| starts.start_of(instant.micros()) == instant.micros();
    Ok(match windows {
        None => false,
        Some(Windows::Shared(starts)) => begins(&starts),
        // Whoever has no calendar has one row for both sides.
        Some(Windows::PerCustomer(calendars)) => {
            calendars.otherwise.is_some() && calendars.starts.iter().all(begins)
        }
    })
}

fn not_in_effect(name: &str, part: &Part) -> Error {
    match part.range.to {
        Some(to) => Error::invalid(format!(
            "no version of `{name}` is in effect before {to}: ask from then on (--from), or name a \
             version"
        )),
        None => registry::not_published(name),
    }
}

fn straddles(
    name: &str,
    (before, after): (&Part, &Part),
    at: Timestamp,
    over_all: Option<&str>,
) -> Error {
    let version = |part: &Part| part.version.clone().unwrap_or_default();
    let way = match over_all {
        Some(flag) => format!("ask for each part apart (--from, --to), or without {flag}"),
        None => "ask for each part apart (--from, --to), or by windows that begin there (--window)"
            .to_owned(),
    };
    Error::invalid(format!(
        "`{name}@{IN_EFFECT}` changes from version {} to {} at {at}, within the range: {way}",
        version(before),
        version(after),
    ))
}
