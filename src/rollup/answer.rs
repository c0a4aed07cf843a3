//! Finds the states that answer a question, and the events that are in none of them.

use std::sync::Arc;

use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::LogicalPlan;

use super::{APP, Grain, Level, notes, open, scanned};
use crate::error::{ErrorKind, Result};
use crate::lake::snapshot::Snapshot;
use crate::lake::table::Table;
use crate::lake::tables::Lake;
use crate::meter::Meter;
use crate::plan::UsageQuery;
use crate::plan::states::{Rows, answer_plan, kept, over_states};
use crate::table::EventsTable;
use crate::time::TimeRange;

const DAY_MICROS: i64 = 86_400_000_000;

/// States that answer a question, exactly as the events would.
#[derive(Debug)]
pub struct Answerable {
    /// The plan.
    pub plan: LogicalPlan,
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
/// A damaged rollup.
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
    let Some(table) = open(lake, meter).await? else { return Ok(None) };
    let Some((states, reached)) = as_of(lake, &table, snapshot).await? else {
        return Ok(None);
    };
    let newest = table.snapshot(None).await?.version;
    // What vacuum took is told by the events.
    if states.version < newest && table.missing_file(&states).await?.is_some() {
        return Ok(None);
    }
    let brought = match lake.events.brought(reached, snapshot).await {
        Ok(brought) => brought,
        // The log was shortened: nothing tells what came since.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if brought.changed.iter().any(|day| touches(query.range, *day)) {
        return Ok(None);
    }
    let tail = Arc::new(EventsTable::new(&lake.events, Arc::clone(&brought.rows))?);
    let tail_facts = tail.facts(query.range);
    let within = |day: Option<i32>| day.is_none_or(|day| touches(query.range, day));
    let tail_rows = brought.rows.files.iter().filter(|file| within(file.partition));
    let tail_rows: u64 = tail_rows.map(|file| file.rows).sum();
    let (states, facts) = scanned(&table, states)?;
    let states = Rows { source: provider_as_source(states), facts: &facts };
    let tail = Rows { source: provider_as_source(tail), facts: &tail_facts };
    let tail = (tail_rows > 0).then_some(tail);
    let plan = answer_plan(meter, (query, &asked), (&states, &level.name()), tail.as_ref())?;
    Ok(Some(Answerable { plan, grain: level.grain, events_version: reached, tail_rows }))
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
    let mut states = table.snapshot(None).await?;
    loop {
        let reached = states.app_version(APP).await?.and_then(|at| u64::try_from(at).ok());
        // The first version of the table has no states.
        let Some(reached) = reached else { return Ok(None) };
        if reached <= events.version {
            let said = match table.said(&states).await {
                Ok(said) => said,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            // A lake that was restored may have another version of this number.
            let mark = match reached == events.version {
                true => lake.events.said(events).await.map(|said| Some(said.mark.clone())),
                false => lake.events.commit_mark(reached).await,
            };
            let mark = match mark {
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                mark => mark?,
            };
            let same = mark.is_some() && mark.as_ref() == said.info.get(notes::EVENTS_MARK);
            return Ok(same.then_some((states, reached)));
        }
        let Some(before) = states.version.checked_sub(1) else { return Ok(None) };
        states = match table.snapshot(Some(before)).await {
            Ok(states) => states,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
    }
}
