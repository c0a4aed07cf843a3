//! Finds the states that answer a question, and the events that are in none of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::LogicalPlan;
use jiff::tz::TimeZone;

use super::grain::BOUNDS_MAX;
use super::slices::range_of;
use super::{Grain, Level, notes, open, reached, scanned};
use crate::error::{ErrorKind, Result};
use crate::lake::snapshot::Snapshot;
use crate::lake::table::Table;
use crate::lake::tables::Lake;
use crate::meter::{Field, Meter, Operand};
use crate::plan::states::{Kept, Rows, Stored, answer_plan, kept, over_states};
use crate::plan::{TableFacts, UsageQuery, Windows};
use crate::table::EventsTable;
use crate::time::TimeRange;

const DAY_MICROS: i64 = 86_400_000_000;

/// States that answer a question, exactly as the events would.
#[derive(Debug)]
pub struct Answerable {
    /// The plan.
    pub plan: LogicalPlan,
    /// Whether the states lie in the order that it sorts them by.
    pub in_order: bool,
    /// Length of the buckets that are read.
    pub grain: Grain,
    /// Version of the events up to which the states go.
    pub events_version: u64,
    /// Rows of events after that version that are read beside them.
    pub tail_rows: u64,
}

/// The states that answer `query` for `meter`, whose tables are read, as of `snapshot`; `None` where
/// the events have to be read.
///
/// # Errors
/// A rollup that is found damaged when it is read; one that cannot be opened is passed over.
pub async fn find(
    lake: &Lake,
    meter: &Meter,
    query: &UsageQuery,
    snapshot: &Arc<Snapshot>,
) -> Result<Option<Answerable>> {
    if kept(meter).is_none() {
        return Ok(None);
    }
    let Some(asked) = over_states(meter, query) else { return Ok(None) };
    let zone = meter.zone();
    // Whatever longer buckets tell, shorter ones do.
    let Some(longest) = Grain::all(meter).into_iter().find(|grain| grain.tells(&zone, query))
    else {
        return Ok(None);
    };
    let answers = |level: &Level| level.grain <= longest && level.by.covers(&asked.by);
    let Some(level) = Level::all(meter).into_iter().find(answers) else { return Ok(None) };
    let table = match open(lake, meter).await {
        Ok(table) => table,
        // The events tell it all the same; a refresh says what is wrong.
        Err(error) if is_damage(error.kind()) => None,
        Err(error) => return Err(error),
    };
    let Some(table) = table else { return Ok(None) };
    let (states, reached) = match as_of(lake, &table, snapshot).await {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(None),
        // Of a damaged log, too.
        Err(error) if is_damage(error.kind()) => return Ok(None),
        Err(error) => return Err(error),
    };
    let tail = match reached == snapshot.version {
        true => None,
        false => match since(lake, (reached, snapshot), query.range).await? {
            Since::Rows(tail) => tail,
            Since::Changes => return Ok(None),
        },
    };
    let are_groups = level.by == asked.grouped
        && are_windows(&level, &zone, query)
        && !kept(meter).is_some_and(Kept::tells_values_apart)
        && each_once(&states, &zone, query.range)?;
    let in_order = are_groups && tail.is_none() && lie_in_order(&level, query)?;
    let (states, facts) = scanned(&table, states, in_order)?;
    let states = Stored {
        rows: Rows { source: provider_as_source(states), facts: &facts },
        level: &level.name(),
        are_groups,
    };
    let tail_rows = tail.as_ref().map_or(0, |tail| tail.rows);
    let tail = tail.as_ref().map(|Tail { table, facts, .. }| Rows {
        source: provider_as_source(Arc::clone(table) as Arc<_>),
        facts,
    });
    let plan = answer_plan(meter, (query, &asked), &states, tail.as_ref())?;
    let grain = level.grain;
    Ok(Some(Answerable { plan, in_order, grain, events_version: reached, tail_rows }))
}

/// Events that are in no state.
struct Tail {
    table: Arc<EventsTable>,
    facts: TableFacts,
    /// How many there are in the days of a range.
    rows: u64,
}

/// What came since states were made.
enum Since {
    /// Events in the days of a range, if any.
    Rows(Option<Tail>),
    /// More than that: what the states were made of is another by now, or nothing tells.
    Changes,
}

/// What versions of the events after one brought for a range.
async fn since(
    lake: &Lake,
    (version, snapshot): (u64, &Arc<Snapshot>),
    range: TimeRange,
) -> Result<Since> {
    let brought = match lake.events.brought(version, snapshot).await {
        Ok(brought) => brought,
        // The log was shortened.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Since::Changes),
        Err(error) => return Err(error),
    };
    if brought.changed.iter().any(|day| touches(range, *day)) {
        return Ok(Since::Changes);
    }
    let within = |day: Option<i32>| day.is_none_or(|day| touches(range, day));
    let files = brought.rows.files.iter().filter(|file| within(file.partition));
    let rows = files.map(|file| file.rows).sum();
    if rows == 0 {
        return Ok(Since::Rows(None));
    }
    let table = Arc::new(EventsTable::new(&lake.events, brought.rows)?);
    let facts = table.facts(range);
    Ok(Since::Rows(Some(Tail { table, facts, rows })))
}

/// Whether the states of a level lie in the order of the rows of an answer, each of which is one of them:
/// by day of UTC, then by customer, then by bucket. That is the order by window and customer where each
/// bucket begins on a day of its own: not where the clocks of a zone change by an hour from or to midnight
/// of UTC.
fn lie_in_order(level: &Level, query: &UsageQuery) -> Result<bool> {
    let by_customer = [Operand::Field(Field::CustomerId)];
    if !level.is_by_day() || query.top.is_some() || query.groups[..] != by_customer {
        return Ok(false);
    }
    let (Some(Windows::Shared(windows)), (Some(from), Some(to))) =
        (&query.windows, (query.range.from, query.range.to))
    else {
        return Ok(false);
    };
    let day = |start: i64| start.div_euclid(DAY_MICROS);
    let mut last = None;
    let mut start = from.micros();
    for _ in 0..BOUNDS_MAX {
        if start >= to.micros() {
            return Ok(true);
        }
        if last == Some(day(start)) {
            return Ok(false);
        }
        last = Some(day(start));
        start = windows.end_of(start);
    }
    Ok(false)
}

/// Whether no two files have states of the same month of a range, and so none of the same bucket.
fn each_once(states: &Snapshot, zone: &TimeZone, range: TimeRange) -> Result<bool> {
    let (mut months, mut twice) = (BTreeSet::new(), BTreeSet::new());
    for file in &states.files {
        let Some(month) = file.partition else { return Ok(false) };
        if !months.insert(month) {
            twice.insert(month);
        }
    }
    for month in twice {
        let month = range_of(zone, month)?;
        if month.from < range.to.or(month.to) && range.from < month.to {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether each window of a query is one bucket of a level.
fn are_windows(level: &Level, zone: &TimeZone, query: &UsageQuery) -> bool {
    let (Some(Windows::Shared(windows)), (Some(from), Some(to))) =
        (&query.windows, (query.range.from, query.range.to))
    else {
        return false;
    };
    let Ok(buckets) = level.grain.buckets(zone, (from, to)) else { return false };
    let mut start = from.micros();
    for _ in 0..BOUNDS_MAX {
        if start >= to.micros() {
            return true;
        }
        let ends =
            (windows.end_of(windows.start_of(start)), buckets.end_of(buckets.start_of(start)));
        if ends.0 != ends.1 || ends.0 <= start {
            return false;
        }
        start = ends.0;
    }
    false
}

fn is_damage(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Invalid | ErrorKind::Corrupt)
}

/// Whether a range has instants of a day of UTC.
fn touches(range: TimeRange, day: i32) -> bool {
    let start = i64::from(day) * DAY_MICROS;
    range.from.is_none_or(|from| from.micros() < start + DAY_MICROS)
        && range.to.is_none_or(|to| to.micros() > start)
}

/// The newest version of a rollup that goes no further than a version of the events, and how far.
async fn as_of(
    lake: &Lake,
    table: &Table,
    events: &Snapshot,
) -> Result<Option<(Arc<Snapshot>, u64)>> {
    let newest = table.snapshot(None).await?;
    let states = match reached(&newest).await? {
        Some(at) if at <= events.version => Some((newest, at)),
        Some(_) => match before(table, newest.version, events.version).await? {
            // What vacuum took is told by the events.
            Some((states, _)) if table.missing_file(&states).await?.is_some() => None,
            found => found,
        },
        // The first version of the table has no states.
        None => None,
    };
    let Some((states, at)) = states else { return Ok(None) };
    let said = match table.said(&states).await {
        Ok(said) => said,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // A lake that was restored may have another version of this number.
    let mark = match at == events.version {
        true => lake.events.said(events).await.map(|said| Some(said.mark.clone())),
        false => lake.events.commit_mark(at).await,
    };
    let mark = match mark {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        mark => mark?,
    };
    let same = mark.is_some() && mark.as_ref() == said.info.get(notes::EVENTS_MARK);
    Ok(same.then_some((states, at)))
}

/// The last version before `end`, which goes too far, that goes no further than version `most` of the
/// events: they go further and further, so that half of those that are left fall away with each look.
async fn before(table: &Table, end: u64, most: u64) -> Result<Option<(Arc<Snapshot>, u64)>> {
    let (mut first, mut end, mut found) = (0, end, None);
    while first < end {
        let middle = first + (end - first) / 2;
        match table.snapshot(Some(middle)).await {
            Ok(states) => match reached(&states).await? {
                Some(at) if at > most => end = middle,
                at => {
                    found = at.map(|at| (states, at));
                    first = middle + 1;
                }
            },
            // The log was shortened.
            Err(error) if error.kind() == ErrorKind::NotFound => first = middle + 1,
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
