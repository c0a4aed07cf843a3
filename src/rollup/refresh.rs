//! Brings a rollup up to the events: what commits brought since becomes states, added to those there
//! are; a month in which rows changed is made anew.
//!
//! One commit, which says up to which version of the events the rollup goes from then on. Whoever is
//! killed before it leaves files that nothing names; of two that do the same at the same time one wins,
//! and the other finds nothing left to do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::AsArray;
use datafusion::datasource::provider_as_source;
use jiff::tz::TimeZone;

use super::write::{Month, month_of, stage};
use super::{APP, Grain, Level, notes, open_or_create, scanned};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::commit::{Commit, CommitOutcome, Operation};
use crate::lake::snapshot::Snapshot;
use crate::lake::staged::StagedFile;
use crate::lake::table::Table;
use crate::lake::tables::Lake;
use crate::meter::{Meter, version};
use crate::plan::states::columns::LEVEL;
use crate::plan::states::{Rows, states_of_events, states_of_states};
use crate::table::EventsTable;
use crate::time::{TimeRange, Timestamp, Window, window_starts};

const DAY_MICROS: i64 = 86_400_000_000;
/// How often a commit is tried against others.
const ATTEMPTS: u32 = 20;
/// Files of one month and grain that are left beside each other while the month goes on.
const FILES_MAX: usize = 8;
/// A month is over when it ended this long ago: few events come for it any more.
const SETTLED_MICROS: i64 = 2 * DAY_MICROS;

/// What a refresh did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// The version of the events that the rollup goes up to.
    pub events_version: u64,
    /// Rows of events that were read for it, at least: those brought since, and those of months made anew.
    pub rows_read: u64,
    /// Months that were made anew, by their first dates, in days since 1970.
    pub months_anew: Vec<i32>,
    /// Files of states that were added.
    pub files_added: u64,
    /// Files that were merged into fewer.
    pub files_merged: u64,
}

/// What the rollup of a meter is made with.
struct Work<'a> {
    lake: &'a Lake,
    engine: &'a Engine,
    meter: &'a Meter,
    zone: TimeZone,
    table: Table,
    now: Timestamp,
}

/// Brings the rollup of `meter`, whose tables are read as of `snapshot`, up to that version of the
/// events, making it where there is none.
///
/// # Errors
/// A meter without states; a sum beyond 76 digits; a store that cannot be written.
pub async fn refresh(
    (lake, engine): (&Lake, &Engine),
    meter: &Meter,
    snapshot: &Arc<Snapshot>,
    now: Timestamp,
) -> Result<Refreshed> {
    let table = open_or_create(lake, meter).await?;
    let work = Work { lake, engine, meter, zone: meter.zone(), table, now };
    let mut done = work.bring_up(snapshot).await?;
    done.files_merged = work.merge().await?;
    Ok(done)
}

impl Work<'_> {
    async fn bring_up(&self, snapshot: &Arc<Snapshot>) -> Result<Refreshed> {
        let mark = self.lake.events.commit_mark(snapshot.version).await?.unwrap_or_default();
        for _ in 0..ATTEMPTS {
            let base = self.table.snapshot(None).await?;
            let reached = base.app_version(APP).await?.and_then(|at| u64::try_from(at).ok());
            if let Some(reached) = reached.filter(|reached| *reached >= snapshot.version) {
                return Ok(Refreshed { events_version: reached, ..Refreshed::default() });
            }
            let since = match reached {
                Some(reached) => self.since((&base, reached), snapshot).await?,
                None => None,
            };
            let goes_on = since.is_some();
            let Since { rows, months } = since
                .unwrap_or_else(|| Since { rows: Arc::clone(snapshot), months: BTreeSet::new() });
            let (mut done, add) = self.states(&base, &rows, snapshot, &months).await?;
            let stale = |month: Option<i32>| month.is_none_or(|month| months.contains(&month));
            let remove = base.files.iter().filter(|file| !goes_on || stale(file.partition));
            let remove: Vec<String> = remove.map(|file| file.path.clone()).collect();
            done.events_version = snapshot.version;
            done.files_added = add.len() as u64;
            done.months_anew = months.into_iter().collect();
            let app = i64::try_from(snapshot.version)
                .map_err(|error| Error::internal("a version").with_source(error))?;
            let commit = Commit {
                operation: if remove.is_empty() { Operation::Append } else { Operation::Correct },
                add,
                remove,
                app: Some((APP.to_owned(), app)),
                info: self.info(snapshot.version, &mark),
                at_ms: self.now.micros().div_euclid(1_000),
                ..Commit::default()
            };
            match self.table.commit(&base, commit).await {
                Ok(CommitOutcome::Committed(_)) => return Ok(done),
                Ok(CommitOutcome::Lost { .. }) => {}
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Err(self.contended())
    }

    fn contended(&self) -> Error {
        let name = &self.meter.name;
        Error::conflict(format!(
            "the rollup of `{name}` is written by others all the time: try again"
        ))
    }

    fn info(&self, events_version: u64, mark: &str) -> BTreeMap<String, String> {
        BTreeMap::from([
            (notes::METER.to_owned(), self.meter.name.clone()),
            (notes::METER_VERSION.to_owned(), version(self.meter)),
            (notes::EVENTS_VERSION.to_owned(), events_version.to_string()),
            (notes::EVENTS_MARK.to_owned(), mark.to_owned()),
        ])
    }

    /// What came after the version `reached`, and the months that are made anew; `None` where nothing
    /// tells that: the log was shortened, or the lake was restored and has another such version.
    async fn since(
        &self,
        (base, reached): (&Snapshot, u64),
        snapshot: &Arc<Snapshot>,
    ) -> Result<Option<Since>> {
        let events = &self.lake.events;
        let (info, mark) = (self.table.commit_info(base.version), events.commit_mark(reached));
        let (info, mark) = match (info.await, mark.await) {
            (Ok(info), Ok(mark)) => (info, mark),
            (Err(error), _) | (_, Err(error)) if error.kind() != ErrorKind::NotFound => {
                return Err(error);
            }
            (Err(_), _) | (_, Err(_)) => return Ok(None),
        };
        if mark.is_none() || mark.as_ref() != info.get(notes::EVENTS_MARK) {
            return Ok(None);
        }
        let brought = match events.brought(reached, snapshot).await {
            Ok(brought) => brought,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let months = self.months_of(&brought.changed)?;
        Ok(Some(Since { rows: brought.rows, months }))
    }

    /// The months of the zone that days of UTC touch, by their first dates.
    fn months_of(&self, days: &BTreeSet<i32>) -> Result<BTreeSet<i32>> {
        let mut months = BTreeSet::new();
        for day in days {
            let start = i64::from(*day) * DAY_MICROS;
            let at = Timestamp::from_micros;
            let starts =
                window_starts(Window::MONTH, &self.zone, at(start), at(start + DAY_MICROS))?;
            for instant in [start, start + DAY_MICROS - 1] {
                months.insert(month_of(&self.zone, starts.start_of(instant)));
            }
        }
        Ok(months)
    }

    /// Files of the states of `rows`, without `months`, and of `months` as they are in `snapshot`.
    async fn states(
        &self,
        base: &Snapshot,
        rows: &Arc<Snapshot>,
        snapshot: &Arc<Snapshot>,
        months: &BTreeSet<i32>,
    ) -> Result<(Refreshed, Vec<StagedFile>)> {
        let mut done = Refreshed { rows_read: rows.rows(), ..Refreshed::default() };
        let leave_out = |month: i32| months.contains(&month);
        let mut staged = self.states_of(base, rows, TimeRange::default(), &leave_out).await?;
        for month in months {
            let range = self.range_of(*month)?;
            let others = |other: i32| other != *month;
            staged.extend(self.states_of(base, snapshot, range, &others).await?);
            let days = |bound: Option<Timestamp>, shift: i64| {
                bound.map(|bound| Timestamp::from_micros(bound.micros() + shift).date_days())
            };
            let (first, last) = (days(range.from, 0), days(range.to, -1));
            let within = snapshot
                .files
                .iter()
                .filter(|file| first <= file.partition && file.partition <= last);
            done.rows_read += within.map(|file| file.rows).sum::<u64>();
        }
        Ok((done, staged))
    }

    /// A month of the zone as instants.
    fn range_of(&self, month: i32) -> Result<TimeRange> {
        let noon = Timestamp::from_micros(i64::from(month) * DAY_MICROS + 10 * DAY_MICROS);
        let starts = window_starts(Window::MONTH, &self.zone, noon, noon)?;
        let from = starts.start_of(noon.micros());
        let at = Timestamp::from_micros;
        Ok(TimeRange { from: Some(at(from)), to: Some(at(starts.end_of(from))) })
    }

    async fn states_of(
        &self,
        base: &Snapshot,
        rows: &Arc<Snapshot>,
        range: TimeRange,
        leave_out: &dyn Fn(i32) -> bool,
    ) -> Result<Vec<StagedFile>> {
        let table = Arc::new(EventsTable::new(&self.lake.events, Arc::clone(rows))?);
        let Some((first, last)) = table.days() else { return Ok(Vec::new()) };
        let at = |day: i32| Timestamp::from_micros(i64::from(day) * DAY_MICROS);
        let covered = (at(first), at(last.saturating_add(1)));
        let facts = table.facts(range);
        let events = Rows { source: provider_as_source(table), facts: &facts };
        let months = Grain::Month.buckets(&self.zone, covered)?;
        let mut staged = Vec::new();
        let levels = Level::all(self.meter);
        let (whole, others): (Vec<Level>, Vec<Level>) =
            levels.into_iter().partition(|level| level.is_whole(self.meter));
        for level in whole {
            let buckets = level.grain.buckets(&self.zone, covered)?;
            let plan = states_of_events(&events, self.meter, range, (&buckets, &months))?;
            let month = Month::Told(&self.zone, leave_out);
            let into = (self.engine, &self.table);
            let files = stage(into, self.meter, &level.name(), &plan, month).await?;
            for fewer in others.iter().filter(|fewer| fewer.grain == level.grain) {
                for file in &files {
                    staged.extend(self.with_fewer_keys(base, file, &level, fewer).await?);
                }
            }
            staged.extend(files);
        }
        Ok(staged)
    }

    /// The states of a file that is not committed yet, told apart by fewer keys.
    async fn with_fewer_keys(
        &self,
        base: &Snapshot,
        file: &StagedFile,
        level: &Level,
        fewer: &Level,
    ) -> Result<Vec<StagedFile>> {
        let month = file.partition.ok_or_else(|| Error::internal("states of no month"))?;
        let alone = Arc::new(self.table.staged_alone(base, file)?);
        self.merged(alone, (month, level), fewer).await
    }

    /// States of a level as one file of the same level, or of one with fewer keys.
    async fn merged(
        &self,
        of: Arc<Snapshot>,
        (month, level): (i32, &Level),
        into: &Level,
    ) -> Result<Vec<StagedFile>> {
        let (states, facts) = scanned(&self.table, of)?;
        let rows = Rows { source: provider_as_source(states), facts: &facts };
        let plan = states_of_states(&rows, self.meter, &level.name(), &into.keys)?;
        let place = (self.engine, &self.table);
        stage(place, self.meter, &into.name(), &plan, Month::Is(month)).await
    }

    /// Merges the files of months that are over, and of those that have many; how many there were.
    async fn merge(&self) -> Result<u64> {
        let mut merged = 0;
        for _ in 0..ATTEMPTS {
            let base = self.table.snapshot(None).await?;
            let groups = self.groups(&base)?;
            if groups.is_empty() {
                return Ok(merged);
            }
            let (mut add, mut remove) = (Vec::new(), BTreeSet::new());
            for ((month, level), paths) in groups {
                let of = Arc::new(base.only(|file| paths.contains(&file.path))?);
                add.extend(self.merged(of, (month, &level), &level).await?);
                remove.extend(paths);
            }
            let info = self.table.commit_info(base.version).await?;
            let count = remove.len() as u64;
            let commit = Commit {
                operation: Operation::Compact,
                add,
                remove: remove.into_iter().collect(),
                info,
                at_ms: self.now.micros().div_euclid(1_000),
                ..Commit::default()
            };
            match self.table.commit(&base, commit).await {
                Ok(CommitOutcome::Committed(_)) => merged += count,
                Ok(CommitOutcome::Lost { .. }) => {}
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        // Others do it just now.
        Ok(merged)
    }

    /// The files that are merged: of one month and level each, more than one.
    fn groups(&self, base: &Snapshot) -> Result<BTreeMap<(i32, Level), BTreeSet<String>>> {
        let names = base.stats().min(LEVEL);
        let names = names.as_ref().map(|names| names.as_string::<i32>());
        let levels: BTreeMap<String, Level> =
            Level::all(self.meter).into_iter().map(|level| (level.name(), level)).collect();
        let mut groups: BTreeMap<(i32, Level), BTreeSet<String>> = BTreeMap::new();
        for (place, file) in base.files.iter().enumerate() {
            let name = names.map(|names| names.value(place)).unwrap_or_default();
            let (Some(level), Some(month)) = (levels.get(name), file.partition) else { continue };
            groups.entry((month, level.clone())).or_default().insert(file.path.clone());
        }
        let mut worth = BTreeMap::new();
        for ((month, level), paths) in groups {
            let over = self
                .range_of(month)?
                .to
                .is_some_and(|to| to.micros() <= self.now.micros().saturating_sub(SETTLED_MICROS));
            if paths.len() > if over { 1 } else { FILES_MAX } {
                worth.insert((month, level), paths);
            }
        }
        Ok(worth)
    }
}

/// What came after a version of the events.
struct Since {
    rows: Arc<Snapshot>,
    /// Months that are made anew, by their first dates.
    months: BTreeSet<i32>,
}
