//! Closed periods: what was billed, kept as it was.
//!
//! A closing says what every customer used of one meter in one period, as of one version of the events:
//! a [`Line`] for each customer, and a [`Record`] with a hash over all of them. Both are rows of the Delta
//! table `statements`, which a closing joins in one commit; nothing in it ever changes or goes. A period
//! that was opened again is closed anew, as the next revision. The definition of the meter is kept in the
//! lake and the version of the events is pinned, so that [`verify`] can make the same lines at any time,
//! and [`adjustments`] tells what the newest version would say instead.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, ErrorKind, Result};
use crate::lake::snapshot::Snapshot;
use crate::lake::table::Table;
use crate::lake::tables::Lake;
use crate::meter::Meter;
use crate::registry;
use crate::time::{BillingPeriod, TimeRange, Timestamp};
use crate::usage::{Context, UsageRequest, with_tables};

mod again;
mod close;
mod coverage;
mod gaps;
mod line;
mod own;
mod pins;
mod store;

pub use again::{Adjustment, Verdict, adjustments, each_lines, lines, verify};
pub use close::{Closed, ClosedPeriods, Terms, close, lasting_name, reopen};
pub use line::Line;
pub use pins::unpin;
pub use store::{Change, Record};

/// A period of a meter, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// What was closed.
    pub record: Record,
    /// Who opened the period again after it, when and why; its lines stay what they are.
    pub reopened: Option<Change>,
}

impl Closing {
    /// Whether this is what was billed: it was not opened again.
    pub fn holds(&self) -> bool {
        self.reopened.is_none()
    }
}

/// The closings of all meters, or of one: by meter, period and revision.
///
/// # Errors
/// A store that cannot be read, a damaged record.
pub async fn list(lake: &Lake, meter: Option<&str>) -> Result<Vec<Closing>> {
    let Some(table) = lake.statements().await? else { return Ok(Vec::new()) };
    closings(&table, &*table.snapshot(None).await?, meter).await
}

async fn closings(table: &Table, snapshot: &Snapshot, meter: Option<&str>) -> Result<Vec<Closing>> {
    let (records, reopenings) = store::records(table, snapshot, meter).await?;
    let mut reopened: BTreeMap<String, Change> = reopenings.into_iter().collect();
    let mut all: Vec<Closing> = records
        .into_iter()
        .filter(|record| meter.is_none_or(|meter| record.meter == meter))
        .map(|record| Closing { reopened: reopened.remove(&record.id), record })
        .collect();
    all.sort_by(|a, b| {
        let key = |closing: &Closing| {
            let Record { meter, from, to, revision, .. } = &closing.record;
            (meter.clone(), from.clone(), to.clone(), *revision)
        };
        key(a).cmp(&key(b))
    });
    Ok(all)
}

/// How many closed periods an error names that one name may mean.
const BOUNDS_NAMED: usize = 5;

/// The newest closing of `meter` for `period`, as it was closed or as it can be written for that meter.
///
/// # Errors
/// Not found, with what is closed; a period that cannot be read, or that may be several.
pub async fn find(context: &Context, meter: &str, period: &str) -> Result<Closing> {
    let (mut meant, _) = find_all(context, meter, period).await?;
    if meant.len() > 1 {
        let bounds = |closing: &Closing| format!("{}..{}", closing.record.from, closing.record.to);
        let mut names: Vec<String> = meant.iter().take(BOUNDS_NAMED).map(bounds).collect();
        if meant.len() > BOUNDS_NAMED {
            names.push(format!("another of {}", meant.len()));
        }
        return Err(Error::invalid(format!(
            "`{period}` may be several closed periods of meter `{meter}`: write {}",
            names.join(" or ")
        )));
    }
    meant.pop().ok_or_else(|| Error::internal("a closed period that was found"))
}

/// Of closings of meters those that hold; and where none of its bounds does, the last that was opened again.
pub fn standing(all: Vec<Closing>) -> (Vec<Closing>, Vec<Closing>) {
    let bounds =
        |Record { meter, from, to, .. }: &Record| (meter.clone(), from.clone(), to.clone());
    let (hold, open): (Vec<Closing>, Vec<Closing>) = all.into_iter().partition(Closing::holds);
    let held: BTreeSet<_> = hold.iter().map(|closing| bounds(&closing.record)).collect();
    let open = open.into_iter().map(|closing| (bounds(&closing.record), closing));
    let open: BTreeMap<_, _> = open.filter(|(bounds, _)| !held.contains(bounds)).collect();
    (hold, open.into_values().collect())
}

/// The same where customers may have periods of their own: the closings that hold of all bounds that the name
/// means, in order, and beside them the last ones of bounds that were opened again. Where none holds, these
/// take their place.
///
/// # Errors
/// Not found, with what is closed; a period that cannot be read.
pub async fn find_all(
    context: &Context,
    meter: &str,
    period: &str,
) -> Result<(Vec<Closing>, Vec<Closing>)> {
    let all = list(&context.lake, Some(meter)).await?;
    let mut meant: Vec<&Closing> =
        all.iter().filter(|closing| closing.record.period == period).collect();
    let (mut unreadable, mut known) = (None, BTreeMap::new());
    for closing in all.iter().filter(|_| meant.is_empty()).collect::<Vec<_>>() {
        let Record { meter_version, lookups, zone, own, .. } = &closing.record;
        let of_table = (meter_version, lookups, zone, own);
        let ranges = match known.entry(of_table) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                // What a definition has no periods for may be a period of another one.
                let ranges = named(context, &closing.record, period).await;
                place.insert(ranges.unwrap_or_else(|error| {
                    unreadable.get_or_insert(error);
                    Vec::new()
                }))
            }
        };
        if ranges.contains(&closing.record.range()?) {
            meant.push(closing);
        }
    }
    // What holds is meant before what was opened again.
    match standing(meant.into_iter().cloned().collect()) {
        (hold, open) if !hold.is_empty() => return Ok((hold, open)),
        (_, open) if !open.is_empty() => return Ok((open, Vec::new())),
        _ => {}
    }
    if let Some(error) = unreadable {
        return Err(error);
    }
    let closed = all.iter().filter(|closing| closing.holds());
    let closed: Vec<&str> = closed.map(|closing| closing.record.period.as_str()).collect();
    Err(Error::not_found(match closed.is_empty() {
        true => {
            format!("no period of meter `{meter}` is closed; `meterhouse periods close` does that")
        }
        false => format!(
            "meter `{meter}` has no closed period `{period}`; closed are {}",
            closed.join(", ")
        ),
    }))
}

/// Why a closed period cannot be made again, of those that need what is beside the events; nothing where
/// all is there.
///
/// # Errors
/// A store that cannot be read.
pub async fn unprovable(lake: &Lake) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let all = list(lake, None).await?;
    let pins = if all.is_empty() { BTreeMap::new() } else { lake.events.pins().await? };
    let mut read: BTreeSet<(&String, i64)> = BTreeSet::new();
    for Closing { record, .. } in &all {
        let Record { meter, meter_version, period, table_version, lookups, .. } = record;
        let what = format!("closed period `{period}` of meter `{meter}`");
        for (name, number) in lookups.iter().filter(|(name, number)| read.insert((name, **number)))
        {
            match lake.events.lookup_text(name, *number).await {
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    found.push(format!("{what}: {error}"));
                }
                text => drop(text?),
            }
        }
        match registry::definition(&lake.events, meter, meter_version).await {
            Err(error) if [ErrorKind::NotFound, ErrorKind::Corrupt].contains(&error.kind()) => {
                found.push(format!("{what}: {error}"));
            }
            definition => drop(definition?),
        }
        if !pins.contains_key(table_version) {
            found.push(format!("{what}: version {table_version} of the events is not pinned"));
        }
    }
    Ok(found)
}

/// The bounds that `period` has for the meter of `record`, or for its customers.
async fn named(context: &Context, record: &Record, period: &str) -> Result<Vec<TimeRange>> {
    let request = UsageRequest {
        period: Some(period.to_owned()),
        timezone: Some(record.zone.clone()),
        ..UsageRequest::default()
    };
    let now = context.clock.now();
    if record.own && BillingPeriod::named(period)?.is_some() {
        let meter = definition_of_then(context, record).await?;
        let mut own = request.own_bounds(&meter, now)?.unwrap_or_default();
        return match own.wrong.pop() {
            Some(error) if own.bounds.is_empty() => Err(error),
            _ => Ok(own.bounds),
        };
    }
    let meter = definition(context, record).await?;
    Ok(vec![request.bounds(&meter, now)?])
}

/// The definition that a period was closed by, with the lake's tables as they were then.
async fn definition_of_then(context: &Context, record: &Record) -> Result<Meter> {
    let meter = definition(context, record).await?;
    let events = context.lake.events.snapshot(Some(record.table_version)).await?;
    with_tables(&context.lake, &events, &meter).await
}

/// The definition that a period was closed by.
async fn definition(context: &Context, record: &Record) -> Result<Meter> {
    registry::definition(&context.lake.events, &record.meter, &record.meter_version).await
}

/// An instant of a record.
fn instant(text: &str) -> Result<Timestamp> {
    Timestamp::parse_rfc3339(text)
        .map_err(|error| Error::corrupt(format!("the instant `{text}` of a closed period {error}")))
}
