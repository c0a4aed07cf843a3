//! `meterhouse properties` and `events names`: what events are made of, and who counts them.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Array, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::flags::{AtFlag, Global, PropertiesFlags};
use super::numbers::{counted, grouped};
use super::opening::{context, load_sound_meters, resolve_at};
use super::outcome::{Failure, Outcome};
use super::output::{check_format, say, write_rows};
use crate::catalogue::{Catalogued, EventName, Property, event_names, properties};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::meter::Role;
use crate::plan::catalogue::CatalogueQuery;
use crate::render::OutputFormat;
use crate::time::{TimeRange, Timestamp, parse_bound, parse_period};

/// How many names of events that no meter counts are named unasked.
const UNMETERED_NAMED: usize = 5;

/// Runs `properties`.
pub(super) async fn run(global: &Global, flags: &PropertiesFlags) -> Result<Outcome, Failure> {
    let format = flags.output.output;
    check_format(format)?;
    let context = context(global, load_sound_meters(global)?).await?;
    let at = resolve_at(&context.lake, flags.at.at.as_ref()).await?;
    let query = CatalogueQuery {
        range: range(flags)?,
        event: flags.event.clone(),
        by_event_name: flags.by.is_some(),
    };
    let found = properties(&context, &query, at).await?;
    if let (Some(name), 0) = (&flags.event, found.events) {
        return Err(Error::not_found(format!(
            "no event is called `{name}` there; `meterhouse events names` lists the names"
        ))
        .into());
    }
    write_rows(format, &table(&found.rows, query.by_event_name).map_err(|e| wrong(&e))?)?;
    if !global.quiet {
        let events = counted(found.events, "event");
        say(&format!(
            "table version {}: {events}; distinct values are estimates",
            found.table_version
        ));
        if flags.event.is_none() {
            let names = event_names(&context, &query, Some(found.table_version)).await?;
            if let Some(told) = unmetered_text(&names) {
                say(&told);
            }
        }
    }
    Ok(Outcome::Done)
}

/// Runs `events names`.
pub(super) async fn names(
    global: &Global,
    unmetered: bool,
    at: &AtFlag,
    format: OutputFormat,
) -> Result<(), Failure> {
    check_format(format)?;
    let context = context(global, load_sound_meters(global)?).await?;
    let at = resolve_at(&context.lake, at.at.as_ref()).await?;
    let mut found = event_names(&context, &CatalogueQuery::default(), at).await?;
    let all = found.rows.len() as u64;
    if unmetered {
        found.rows.retain(|row| row.meters.is_empty());
    }
    write_rows(format, &names_table(&found).map_err(|error| wrong(&error))?)?;
    if !global.quiet {
        let of = format!("{} of {}", grouped(found.rows.len() as u64), counted(all, "event name"));
        let told = if unmetered { format!("{of}: no meter counts them") } else { of };
        say(&format!("table version {}: {told}", found.table_version));
    }
    Ok(())
}

/// The instants that the flags ask for, days being those of UTC.
fn range(flags: &PropertiesFlags) -> Result<TimeRange> {
    let utc = jiff::tz::TimeZone::UTC;
    if let Some(period) = &flags.period {
        return parse_period(period, &utc, Clock::System.now());
    }
    let bound =
        |text: &Option<String>| text.as_deref().map(|text| parse_bound(text, &utc)).transpose();
    let range = TimeRange { from: bound(&flags.from)?, to: bound(&flags.to)? };
    match range.is_empty() {
        true => Err(Error::invalid("the range is empty: --to must come after --from")),
        false => Ok(range),
    }
}

fn table(rows: &[Property], by_event_name: bool) -> Result<RecordBatch, ArrowError> {
    let texts = |text: &dyn Fn(&Property) -> Option<String>| -> ArrayRef {
        Arc::new(rows.iter().map(text).collect::<StringArray>())
    };
    let numbers = |number: fn(&Property) -> u64| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(number(row))).collect::<UInt64Array>())
    };
    let mut columns: Vec<(&str, ArrayRef, bool)> = Vec::new();
    if by_event_name {
        columns.push(("event_name", texts(&|row| row.event_name.clone()), false));
    }
    let mixture = |row: &Property| {
        let present = row.types.present();
        let shares = present.iter().map(|(name, events)| format!("{name} {}", grouped(*events)));
        (present.len() > 1).then(|| shares.collect::<Vec<_>>().join(", "))
    };
    columns.extend([
        ("property", texts(&|row| Some(row.name.clone())), false),
        ("type", texts(&|row| row.types.name().map(str::to_owned)), true),
        ("mixture", texts(&mixture), true),
        ("events", numbers(|row| row.types.events()), false),
        ("percent", percents(rows.iter().map(|row| (row.types.events(), row.of_events)))?, true),
        ("distinct_estimate", numbers(|row| row.distinct), false),
        ("first_seen", instants(rows.iter().map(|row| row.first)), true),
        ("last_seen", instants(rows.iter().map(|row| row.last)), true),
        ("meters", texts(&|row| meters_text(&row.meters)), true),
    ]);
    RecordBatch::try_from_iter_with_nullable(columns)
}

/// `bandwidth (value, filter), requests (lookup)`; `None` for no meter.
fn meters_text(meters: &[(String, BTreeSet<Role>)]) -> Option<String> {
    let each = |(name, roles): &(String, BTreeSet<Role>)| {
        let roles: Vec<String> = roles.iter().map(Role::to_string).collect();
        format!("{name} ({})", roles.join(", "))
    };
    let all: Vec<String> = meters.iter().map(each).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn names_table(found: &Catalogued<EventName>) -> Result<RecordBatch, ArrowError> {
    let rows = &found.rows;
    let names = rows.iter().map(|row| Some(row.name.clone())).collect::<StringArray>();
    let events = rows.iter().map(|row| Some(row.events)).collect::<UInt64Array>();
    let meters = rows.iter().map(|row| (!row.meters.is_empty()).then(|| row.meters.join(", ")));
    RecordBatch::try_from_iter_with_nullable([
        ("event_name", Arc::new(names) as ArrayRef, false),
        ("events", Arc::new(events), false),
        ("percent", percents(rows.iter().map(|row| (row.events, found.events)))?, true),
        ("first_seen", instants(rows.iter().map(|row| row.first)), true),
        ("last_seen", instants(rows.iter().map(|row| row.last)), true),
        ("meters", Arc::new(meters.collect::<StringArray>()), true),
    ])
}

/// Shares in tenths of a percent, to the nearest.
fn percents(shares: impl Iterator<Item = (u64, u64)>) -> Result<ArrayRef, ArrowError> {
    let share = |(part, all): (u64, u64)| {
        let tenths = (u128::from(part) * 2_000 + u128::from(all)) / u128::from(all.max(1)) / 2;
        i128::try_from(tenths).ok()
    };
    let shares: Decimal128Array = shares.map(share).collect();
    Ok(Arc::new(shares.with_precision_and_scale(5, 1)?))
}

fn instants(instants: impl Iterator<Item = Option<Timestamp>>) -> ArrayRef {
    let micros = instants.map(|instant| instant.map(Timestamp::micros));
    Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

/// The names of events that no meter counts; `None` if there are none.
fn unmetered_text(found: &Catalogued<EventName>) -> Option<String> {
    let unmetered: Vec<&EventName> =
        found.rows.iter().filter(|row| row.meters.is_empty()).collect();
    if unmetered.is_empty() {
        return None;
    }
    let named = unmetered.iter().take(UNMETERED_NAMED);
    let named: Vec<String> =
        named.map(|row| format!("{} ({})", row.name, counted(row.events, "event"))).collect();
    let more = match unmetered.len().saturating_sub(UNMETERED_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more; `meterhouse events names --unmetered` lists them"),
    };
    Some(format!("no meter counts {}{more}", named.join(", ")))
}

fn wrong(error: &ArrowError) -> Error {
    Error::internal(format!("rows of the catalogue: {error}"))
}
