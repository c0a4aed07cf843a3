//! Brings a rollup up to the events: what commits brought since becomes states, added to those there
//! are; of a month in which rows changed, the days concerned are made anew.
//!
//! One commit, which says up to which version of the events the rollup goes from then on. Whoever is
//! killed before it leaves files that nothing names; of two that do the same at the same time one wins,
//! and the other finds nothing left to do.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::datasource::provider_as_source;
use jiff::tz::TimeZone;

use super::merge::Merging;
use super::write::MonthFiles;
use super::{APP, Grain, Level, notes, open_or_create, reached, scanned, slices};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::commit::{Commit, CommitOutcome, Operation};
use crate::lake::snapshot::Snapshot;
use crate::lake::staged::StagedFile;
use crate::lake::table::Table;
use crate::lake::tables::Lake;
use crate::meter::{Meter, version};
use crate::plan::TableFacts;
use crate::plan::states::{Buckets, Rows, Source, states_plan};
use crate::table::EventsTable;
use crate::time::{TimeRange, Timestamp};

/// How often a commit is tried against others.
pub(super) const ATTEMPTS: u32 = 20;
/// Rows of events of several months that are made into states together: their files are written side
/// by side.
const STRETCH_ROWS_MAX: u64 = 1_000_000;
/// How long those months may be together: the bounds of all their days are held.
const STRETCH_MICROS_MAX: i64 = 1_000 * 86_400_000_000;

/// How a rollup is brought up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// Which files are merged.
    pub merging: Merging,
    /// Whether all states are made of the events again, whatever there is.
    pub anew: bool,
}

/// What a refresh did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// The version of the events that the rollup goes up to.
    pub events_version: u64,
    /// Rows of events that were read for it, at least: those brought since, and those of days made anew.
    pub rows_read: u64,
    /// Days of the meter's zone that were made anew: those in which rows had changed, or all of a month.
    pub days_anew: u64,
    /// Whether the rollup goes up to that version of another history: the lake was set back. It is made
    /// anew with the first version after that.
    pub of_other_history: bool,
    /// Files of states that were added.
    pub files_added: u64,
    /// Files that were merged into fewer.
    pub files_merged: u64,
}

/// What the rollup of a meter is made with.
pub(super) struct Work<'a> {
    lake: &'a Lake,
    engine: &'a Engine,
    pub(super) meter: &'a Meter,
    pub(super) zone: TimeZone,
    pub(super) table: Table,
    pub(super) now: Timestamp,
}

/// Brings the rollup of `meter`, whose tables are read as of `snapshot`, up to that version of the
/// events, making it where there is none.
///
/// # Errors
/// A meter without states; a sum of more than 38 integer digits; a store that cannot be written.
pub async fn refresh(
    (lake, engine): (&Lake, &Engine),
    meter: &Meter,
    snapshot: &Arc<Snapshot>,
    manner: Manner,
    now: Timestamp,
) -> Result<Refreshed> {
    let table = open_or_create(lake, meter).await?;
    let work = Work { lake, engine, meter, zone: meter.zone(), table, now };
    let brought_up = async {
        let mut done = work.bring_up(snapshot, manner.anew).await?;
        done.files_merged = work.merge(manner.merging).await?;
        Ok(done)
    };
    brought_up.await.map_err(|error: Error| match error.kind() {
        ErrorKind::Corrupt | ErrorKind::NotFound if !manner.anew => error.noting(
            "if it is of the rollup, `meterhouse rollups refresh --anew` makes that of the events again",
        ),
        _ => error,
    })
}

impl Work<'_> {
    async fn bring_up(&self, snapshot: &Arc<Snapshot>, anew: bool) -> Result<Refreshed> {
        let mark = self.lake.events.commit_mark(snapshot.version).await?.unwrap_or_default();
        for _ in 0..ATTEMPTS {
            let base = self.table.snapshot(None).await?;
            let reached = reached(&base).await?;
            let is_there =
                reached.filter(|at| *at > snapshot.version || !anew && *at == snapshot.version);
            if let Some(reached) = is_there {
                let of_other_history = !self.goes_up_to(&base, reached).await?;
                let done =
                    Refreshed { events_version: reached, of_other_history, ..Refreshed::default() };
                return Ok(done);
            }
            let since = match reached {
                Some(reached) if !anew => self.since((&base, reached), snapshot).await?,
                Some(_) | None => None,
            };
            let goes_on = since.is_some();
            let since = match since {
                Some(since) => since,
                // Each month becomes one file.
                None => Since {
                    rows: Arc::clone(snapshot),
                    stale: BTreeMap::new(),
                    whole_through: slices::last_over(&self.zone, self.now)?,
                },
            };
            let (mut done, add) = self.states(&base, &since, snapshot).await?;
            let stale = |month: Option<i32>| month.is_some_and(|of| since.stale.contains_key(&of));
            let remove = base.files.iter().filter(|file| !goes_on || stale(file.partition));
            let remove: Vec<String> = remove.map(|file| file.path.clone()).collect();
            done.events_version = snapshot.version;
            done.files_added = add.len() as u64;
            done.days_anew = slices::days_in(&self.zone, since.stale.values().flatten())?;
            let app = i64::try_from(snapshot.version)
                .map_err(|error| Error::internal("a version").with_source(error))?;
            let commit = Commit {
                operation: if remove.is_empty() { Operation::Append } else { Operation::Correct },
                add,
                remove,
                // One that is made anew is of that version already.
                app: (reached != Some(snapshot.version)).then(|| (APP.to_owned(), app)),
                info: self.info((snapshot.version, &mark), since.whole_through),
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

    fn info(
        &self,
        (events_version, mark): (u64, &str),
        whole_through: Option<i32>,
    ) -> BTreeMap<String, String> {
        let through = whole_through.map(|month| (notes::WHOLE_THROUGH, month.to_string()));
        let mut info = BTreeMap::from([
            (notes::METER.to_owned(), self.meter.name.clone()),
            (notes::METER_VERSION.to_owned(), version(self.meter)),
            (notes::EVENTS_VERSION.to_owned(), events_version.to_string()),
            (notes::EVENTS_MARK.to_owned(), mark.to_owned()),
        ]);
        info.extend(through.map(|(name, month)| (name.to_owned(), month)));
        info
    }

    /// Whether `base` is of the version `reached` of the events, as they are, and no other of that number.
    async fn goes_up_to(&self, base: &Snapshot, reached: u64) -> Result<bool> {
        let said = match self.table.said(base).await {
            Ok(said) => said,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let mark = self.lake.events.commit_mark(reached).await?;
        Ok(mark.is_some() && mark.as_ref() == said.info.get(notes::EVENTS_MARK))
    }

    /// What came after the version `reached`, and the months that are made anew; `None` where nothing
    /// tells that: the log was shortened, or the lake was restored and has another such version.
    async fn since(
        &self,
        (base, reached): (&Snapshot, u64),
        snapshot: &Arc<Snapshot>,
    ) -> Result<Option<Since>> {
        if !self.goes_up_to(base, reached).await? {
            return Ok(None);
        }
        let info = &self.table.said(base).await?.info;
        let events = &self.lake.events;
        let brought = match events.brought(reached, snapshot).await {
            Ok(brought) => brought,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let stale = slices::stale(&self.zone, &brought.changed)?;
        // Kept states and those of the events must not share a bucket.
        let finest = Grain::finest(self.meter);
        let bounds = stale.values().flatten().flat_map(|range| [range.from, range.to]);
        let mut bounds = bounds.flatten();
        if !bounds.all(|bound| finest.begins_at(&self.zone, bound.micros())) {
            return Ok(None);
        }
        let whole_through = info.get(notes::WHOLE_THROUGH).and_then(|month| month.parse().ok());
        Ok(Some(Since { rows: brought.rows, stale, whole_through }))
    }

    /// Files of the states of what is new, and of the months in which rows changed.
    async fn states(
        &self,
        base: &Snapshot,
        since: &Since,
        snapshot: &Arc<Snapshot>,
    ) -> Result<(Refreshed, Vec<StagedFile>)> {
        let mut done = Refreshed { rows_read: since.rows.rows(), ..Refreshed::default() };
        let new = EventsTable::new(&self.lake.events, Arc::clone(&since.rows))?;
        let changed: Vec<TimeRange> = since.stale.values().flatten().copied().collect();
        let mut staged = Vec::new();
        let stretches = self.stretches(&new)?;
        let new: Arc<dyn TableProvider> = Arc::new(new);
        for (range, facts) in stretches {
            let rows = Rows { source: provider_as_source(Arc::clone(&new)), facts: &facts };
            let source = Source::Events(&rows, range, &changed);
            staged.extend(self.made(range, |_| std::slice::from_ref(&source)).await?);
        }
        for (month, stale) in &since.stale {
            let (files, rows) = self.mended(base, *month, stale, snapshot).await?;
            staged.extend(files);
            done.rows_read += rows;
        }
        Ok((done, staged))
    }

    /// Months next to each other whose events are made into states together, with what is known of those.
    fn stretches(&self, rows: &EventsTable) -> Result<Vec<(TimeRange, TableFacts)>> {
        let mut by_month: BTreeMap<i32, u64> = BTreeMap::new();
        for file in &rows.snapshot().files {
            let Some(day) = file.partition else { continue };
            for month in slices::months_of(&self.zone, day)? {
                *by_month.entry(month).or_default() += file.rows;
            }
        }
        let mut stretches: Vec<(TimeRange, u64)> = Vec::new();
        for (month, rows) in by_month {
            let of_month = slices::range_of(&self.zone, month)?;
            match stretches.last_mut() {
                Some((range, before))
                    if *before + rows <= STRETCH_ROWS_MAX
                        && slices::within(*range, of_month, STRETCH_MICROS_MAX) =>
                {
                    *before += rows;
                    range.to = of_month.to;
                }
                _ => stretches.push((of_month, rows)),
            }
        }
        Ok(stretches.into_iter().map(|(range, _)| (range, rows.facts(range))).collect())
    }

    /// The states of a month that it had for all but the stale days, and those of the events for these;
    /// how many rows of events were read for it, at least.
    async fn mended(
        &self,
        base: &Snapshot,
        month: i32,
        stale: &[TimeRange],
        snapshot: &Arc<Snapshot>,
    ) -> Result<(Vec<StagedFile>, u64)> {
        let of_month = Arc::new(base.only(|file| file.partition == Some(month))?);
        let events = Arc::new(EventsTable::new(&self.lake.events, Arc::clone(snapshot))?);
        let facts: Vec<TableFacts> = stale.iter().map(|range| events.facts(*range)).collect();
        let source = provider_as_source(events as Arc<dyn TableProvider>);
        let rows: Vec<Rows<'_>> =
            facts.iter().map(|facts| Rows { source: Arc::clone(&source), facts }).collect();
        let (states, facts) = scanned(&self.table, of_month, false)?;
        let states = Rows { source: provider_as_source(states), facts: &facts };
        let levels: Vec<(Level, String)> = Level::all(self.meter)
            .into_iter()
            .map(|level| (level.clone(), level.of_days().name()))
            .collect();
        let sources: BTreeMap<Level, Vec<Source<'_>>> = levels
            .iter()
            .map(|(level, of_days)| {
                let kept = std::iter::once(Source::States(&states, of_days, stale));
                let anew = rows.iter().zip(stale);
                let anew = anew.map(|(rows, range)| Source::Events(rows, *range, &[]));
                (level.clone(), kept.chain(anew).collect())
            })
            .collect();
        let range = slices::range_of(&self.zone, month)?;
        let files =
            self.made(range, |level| sources.get(level).map_or(&[][..], Vec::as_slice)).await?;
        let read = |range: &TimeRange| {
            let days = |bound: Option<Timestamp>, shift: i64| {
                bound.map(|bound| Timestamp::from_micros(bound.micros() + shift).date_days())
            };
            let (first, last) = (days(range.from, 0), days(range.to, -1));
            let files = snapshot.files.iter();
            let files = files.filter(|file| first <= file.partition && file.partition <= last);
            files.map(|file| file.rows).sum::<u64>()
        };
        Ok((files, stale.iter().map(read).sum()))
    }

    /// Files of all levels of the months of a range.
    pub(super) async fn made<'s>(
        &self,
        range: TimeRange,
        sources: impl Fn(&Level) -> &'s [Source<'s>],
    ) -> Result<Vec<StagedFile>> {
        let (Some(from), Some(to)) = (range.from, range.to) else {
            return Err(Error::internal("states of months without an end"));
        };
        let months = Grain::Month.buckets(&self.zone, (from, to))?;
        let mut levels: Vec<(String, Level)> =
            Level::all(self.meter).into_iter().map(|level| (level.name(), level)).collect();
        levels.sort();
        let mut files = MonthFiles::new((self.engine, &self.table), self.meter)?;
        for (name, level) in levels {
            let starts = level.grain.buckets(&self.zone, (from, to))?;
            let buckets =
                Buckets { starts: &starts, months: &months, days_first: level.is_by_day() };
            let plan = states_plan(self.meter, &level.by, &buckets, sources(&level))?;
            files.add(&name, &plan).await?;
        }
        files.finish().await
    }
}

/// What came after a version of the events.
struct Since {
    rows: Arc<Snapshot>,
    /// The days, as stretches of the meter's zone, whose states are made anew, by the first dates of their
    /// months.
    stale: BTreeMap<i32, Vec<TimeRange>>,
    /// As the note of that name has it.
    whole_through: Option<i32>,
}
