//! Closes a period, or opens it again.

use std::sync::Arc;

use arrow::array::RecordBatch;
use uuid::Uuid;

use super::gaps::{self, Told};
use super::line::{Hashed, lines_of, lines_of_period};
use super::store::{self, Change, Record, closing_row, line_rows, reopening_row};
use super::{Closing, closings, list, own, pins};
use crate::error::{Error, Result};
use crate::lake::commit::{Commit, CommitOutcome};
use crate::lake::staged::StagedFile;
use crate::lake::table::Table;
use crate::lake::writer::{EncodedFile, Layout, ParquetFileWriter};
use crate::meter::{Bundle, Meter, version};
use crate::registry;
use crate::schema::statements;
use crate::time::{BillingPeriod, TimeRange, Timestamp, format_in_zone, parse_zone};
use crate::usage::{Context, UsageRequest, reference, usage, with_tables};

/// How a period is closed.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// The period, such as `2026-10`.
    pub period: String,
    /// IANA zone of the period; the meter's own, or UTC, if none.
    pub timezone: Option<String>,
    /// How long after its end it can be closed, in seconds: so that late events are in it.
    pub grace_seconds: u64,
    /// Version of the events; the newest if none.
    pub at: Option<u64>,
    /// Who closes it.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// What became of a closing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// It was made.
    Now(Record),
    /// The period was closed already; nothing changed.
    Before(Record),
    /// It is some customers' own and cannot be closed yet.
    Later {
        /// Its first instant.
        from: Timestamp,
        /// Its end.
        to: Timestamp,
        /// From when on it can be closed.
        closable: Timestamp,
    },
}

/// What became of closing periods.
#[derive(Debug, Default)]
pub struct ClosedPeriods {
    /// The periods: one, or where customers have periods of their own each bounds.
    pub closed: Vec<Closed>,
    /// What kept periods from being closed, or customers from being in one.
    pub wrong: Vec<Error>,
    /// What may be meant, or not.
    pub warnings: Vec<String>,
}

/// Closes a period of `meter`, which `bundle` defines; one without was published. Where customers have
/// billing periods of their own, those are closed that can be by now, each bounds apart; what keeps some
/// of them from being closed, and what was used in time that no closing holds, is told beside what was
/// closed.
///
/// # Errors
/// A period without an end, that has not ended or whose grace has not, or that overlaps a closed one;
/// as [`usage`]; a store that cannot be written.
pub async fn close(
    context: &Context,
    (meter, bundle): (&Meter, Option<&Bundle>),
    terms: &Terms,
) -> Result<ClosedPeriods> {
    check_lasts(meter, terms)?;
    let request = UsageRequest {
        meters: vec![reference(meter)],
        period: Some(terms.period.clone()),
        timezone: terms.timezone.clone(),
        ..UsageRequest::default()
    };
    let now = context.clock.now();
    if let Some(own) = own::periods(context, meter, (&request, terms)).await? {
        return Box::pin(own::close(context, (meter, bundle), (&request, terms), own)).await;
    }
    let TimeRange { from: Some(from), to: Some(to) } = request.bounds(meter, now)? else {
        let (what, bounds) = (what(meter, terms), request.bounds(meter, now)?);
        let lacks = if bounds.to.is_some() { "beginning" } else { "end" };
        return Err(Error::invalid(format!(
            "{what} has no {lacks}: only what begins and ends is closed"
        )));
    };
    let closable = closable(to, terms);
    if now < closable {
        let why = match now < to {
            true => format!("ends at {to} only"),
            false => format!("ended at {to}, and late events are waited for"),
        };
        return Err(Error::invalid(format!(
            "{} {why}: it can be closed from {closable} on (--grace)",
            what(meter, terms)
        )));
    }
    let closed = close_one(context, (meter, bundle), (request, terms), (from, to)).await?;
    let period = TimeRange { from: Some(from), to: Some(to) };
    let Told { wrong, warnings } = gaps::told(context, (meter, terms), (&[period], false)).await;
    Ok(ClosedPeriods { closed: vec![closed], wrong, warnings })
}

/// Closes a period of all customers, or, where `request` has windows, of those whose own it is.
///
/// # Errors
/// One that overlaps a closed period; as [`usage`]; a store that cannot be written.
pub(super) async fn close_one(
    context: &Context,
    (meter, bundle): (&Meter, Option<&Bundle>),
    (request, terms): (UsageRequest, &Terms),
    (from, to): (Timestamp, Timestamp),
) -> Result<Closed> {
    let lake = &context.lake;
    let own = request.window.is_some();
    let all = list(lake, Some(&meter.name)).await?;
    if let Before { record: Some(record), .. } = closed_before(&all, meter, (from, to), own)? {
        return Ok(Closed::Before(record));
    }
    let events = lake.events.snapshot(terms.at).await?;
    let meter = &with_tables(lake, &events, meter).await?;
    if let Some(bundle) = bundle {
        registry::keep_definition(&lake.events, meter, bundle).await?;
    }
    let why = format!("for closing period {} of meter {}", terms.period, meter.name);
    let (by, now) = (terms.by.clone(), context.clock.now());
    let new = lake.events.pin(events.version, by, Some(why.clone()), now).await?;
    let closed = close_pinned(context, meter, request, terms, (from, to), events.version).await;
    match &closed {
        Ok(Closed::Now(record)) => pins::keep(context, record, &why).await?,
        _ if new => pins::let_go(context, events.version).await,
        _ => {}
    }
    closed
}

/// Closes the period by the events of a version that is pinned.
async fn close_pinned(
    context: &Context,
    meter: &Meter,
    request: UsageRequest,
    terms: &Terms,
    (from, to): (Timestamp, Timestamp),
    version_of_events: u64,
) -> Result<Closed> {
    let (from_text, to_text) = (from.to_string(), to.to_string());
    let lake = &context.lake;
    let table = lake.statements_or_create().await?;
    let base = table.snapshot(None).await?;
    let app = store::app(&meter.name, &from_text, &to_text);
    let turn = base.app_version(&app).await?.unwrap_or(0);
    let own = request.window.is_some();
    let period = match own {
        // Its name is that of others too, with bounds of their own.
        true => format!("{from}..{to}"),
        false => lasting_name(&request, meter, (from, to), context.clock.now())?,
    };
    let mut record = Record {
        id: Uuid::new_v4().to_string(),
        meter: meter.name.clone(),
        meter_version: version(meter),
        period,
        from: from_text,
        to: to_text,
        zone: request.period_zone(meter)?,
        own,
        revision: turn / 2 + 1,
        table_version: version_of_events,
        lookups: meter.table_versions().into_iter().collect(),
        unit: meter.unit.as_ref().map(|unit| unit.name.clone()),
        lines: 0,
        sha256: String::new(),
        files: Vec::new(),
        closed: Change {
            at: context.clock.now().to_string(),
            by: terms.by.clone(),
            reason: terms.reason.clone(),
        },
    };
    let request = UsageRequest { at: Some(version_of_events), ..request };
    let mut staged = stage_lines(context, &table, meter, &request, &mut record).await?;
    staged.extend(stage(&table, &closing_row(&record)?).await?);
    let at_ms = context.clock.now().micros().div_euclid(1_000);
    let commit = Commit { add: staged, app: Some((app, turn + 1)), at_ms, ..Commit::default() };
    for _ in 0..COMMIT_ATTEMPTS {
        // What is looked at is what the commit builds on: nobody closes anything in between.
        let base = table.snapshot(None).await?;
        let all = closings(&table, &base, Some(&meter.name)).await?;
        let before = closed_before(&all, meter, (from, to), own)?;
        if let Some(record) = before.record {
            return Ok(Closed::Before(record));
        }
        own::check_customers(context, &table, (meter, &record), &before.overlapping).await?;
        if base.app_version(&record.app()).await?.unwrap_or(0) != turn {
            break;
        }
        if let CommitOutcome::Committed(_) = table.commit(&base, commit.clone()).await? {
            return Ok(Closed::Now(record));
        }
    }
    Err(overtaken(&table))
}

fn overtaken(table: &Table) -> Error {
    Error::conflict(format!(
        "{}: others close and open periods at the same time; nothing was changed, run the same command \
         again",
        table.display()
    ))
}

/// How often a closing is tried while others close other periods.
const COMMIT_ATTEMPTS: usize = 100;

fn what(meter: &Meter, terms: &Terms) -> String {
    format!("period `{}` of meter `{}`", terms.period, meter.name)
}

/// Refuses a period that is another one with every moment.
fn check_lasts(meter: &Meter, terms: &Terms) -> Result<()> {
    let digits = terms.period.trim_end_matches(['d', 'h']);
    let is_length = !digits.is_empty() && digits != terms.period;
    if is_length && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::invalid(format!(
            "{} ends with the clock and is another one by now: close days, such as \
             2026-10-01..2026-10-08",
            what(meter, terms)
        )));
    }
    Ok(())
}

/// From when on a period with that end can be closed.
pub(super) fn closable(to: Timestamp, terms: &Terms) -> Timestamp {
    let grace = i64::try_from(terms.grace_seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    Timestamp::from_micros(to.micros().saturating_add(grace))
}

/// How long after now a name has to mean the same, in microseconds.
const LATER_MICROS: i64 = 400 * 86_400_000_000;

/// What the period is called at any time: `last-month` is another one soon.
///
/// # Errors
/// A zone that is none.
pub fn lasting_name(
    request: &UsageRequest,
    meter: &Meter,
    (from, to): (Timestamp, Timestamp),
    now: Timestamp,
) -> Result<String> {
    let range = TimeRange { from: Some(from), to: Some(to) };
    let means_it = |name: &str, now: Timestamp| {
        let named = UsageRequest { period: Some(name.to_owned()), ..request.clone() };
        named.bounds(meter, now).is_ok_and(|bounds| bounds == range)
    };
    let asked = request.period.clone().unwrap_or_default();
    let later = Timestamp::from_micros(now.micros().saturating_add(LATER_MICROS));
    if means_it(&asked, later) {
        return Ok(asked);
    }
    let begins = format_in_zone(from, &parse_zone(&request.period_zone(meter)?)?);
    let part = |length: usize| begins.get(..length).unwrap_or_default().to_owned();
    // A billing period stays one: its days are those of its own zone.
    let names = match BillingPeriod::named(&asked)? {
        Some(_) => vec![format!("billing:{}", part(7)), format!("billing:{}", part(10))],
        None => vec![part(4), part(7), part(10)],
    };
    let found = names.into_iter().find(|name| means_it(name, now));
    Ok(found.unwrap_or_else(|| format!("{from}..{to}")))
}

/// What was closed before of a period.
#[derive(Default)]
pub(super) struct Before {
    /// The closing that holds of this very period.
    pub(super) record: Option<Record>,
    /// Own periods of other customers, as it seems, that overlap it.
    overlapping: Vec<Record>,
}

/// What was closed before of a period, that of all customers or the own one of some.
///
/// # Errors
/// A closing that holds of a period that overlaps it, unless both are of customers of their own.
pub(super) fn closed_before(
    all: &[Closing],
    meter: &Meter,
    (from, to): (Timestamp, Timestamp),
    own: bool,
) -> Result<Before> {
    let mut before = Before::default();
    for closing in all.iter().filter(|closing| closing.holds()) {
        let record = &closing.record;
        let TimeRange { from: Some(held_from), to: Some(held_to) } = record.range()? else {
            continue;
        };
        let is_same = (held_from, held_to) == (from, to) && record.own == own;
        let overlaps = held_from < to && from < held_to;
        match (is_same, overlaps) {
            (true, _) => before.record = Some(record.clone()),
            (false, true) if own && record.own => before.overlapping.push(record.clone()),
            (false, true) => {
                return Err(Error::conflict(format!(
                    "meter `{}`: the period from {from} to {to} overlaps the closed period `{}`, from \
                     {held_from} to {held_to}: it was not closed; close what lies beside that, or open that \
                     one again (`meterhouse periods reopen {} {held_from}..{held_to} --reason \"...\"`)",
                    meter.name, record.period, meter.name
                )));
            }
            (false, false) => {}
        }
    }
    Ok(before)
}

/// Asks for the lines and stages them; puts into `record` what comes of them.
async fn stage_lines(
    context: &Context,
    table: &Table,
    meter: &Meter,
    request: &UsageRequest,
    record: &mut Record,
) -> Result<Vec<StagedFile>> {
    let context = Context { meters: Arc::new(vec![meter.clone()]), ..context.clone() };
    let mut hashed = Hashed::default();
    let mut writer =
        ParquetFileWriter::new(Arc::new(statements::schema()), &Layout::default(), None)?;
    let mut full: Vec<EncodedFile> = Vec::new();
    let shared = record.clone();
    let period = record.range()?;
    let mut take = |rows: RecordBatch| {
        let lines = match shared.own {
            true => lines_of_period(&rows, period)?,
            false => lines_of(&rows)?,
        };
        hashed.add(&shared, &lines)?;
        full.extend(writer.write(&line_rows(&shared, &lines)?)?);
        Ok(true)
    };
    usage(&context, request, &mut take).await?;
    full.extend(writer.finish()?);
    let mut staged = Vec::with_capacity(full.len());
    for file in full {
        staged.push(table.stage(file).await?);
    }
    (record.lines, record.sha256) = hashed.finish();
    record.files = staged.iter().map(|file| file.path.clone()).collect();
    Ok(staged)
}

async fn stage(table: &Table, rows: &RecordBatch) -> Result<Vec<StagedFile>> {
    let mut writer = ParquetFileWriter::new(rows.schema(), &Layout::default(), None)?;
    let mut files = writer.write(rows)?;
    files.extend(writer.finish()?);
    let mut staged = Vec::with_capacity(files.len());
    for file in files {
        staged.push(table.stage(file).await?);
    }
    Ok(staged)
}

/// Opens a period again, so that it can be closed anew; what was closed stays in the table.
///
/// # Errors
/// One that was opened again already; a store that cannot be written.
pub async fn reopen(context: &Context, closing: &Closing, change: &Change) -> Result<()> {
    let Record { meter, period, .. } = &closing.record;
    let open = || Error::conflict(format!("period `{period}` of meter `{meter}` is not closed"));
    let table = context.lake.statements().await?;
    let table = table.filter(|_| closing.holds()).ok_or_else(open)?;
    let add = stage(&table, &reopening_row(&closing.record, change)?).await?;
    let turn = closing.record.revision * 2;
    let app = Some((closing.record.app(), turn));
    let at_ms = context.clock.now().micros().div_euclid(1_000);
    let commit = Commit { add, app, at_ms, ..Commit::default() };
    for _ in 0..COMMIT_ATTEMPTS {
        let base = table.snapshot(None).await?;
        if base.app_version(&closing.record.app()).await? != Some(turn - 1) {
            return Err(open());
        }
        if let CommitOutcome::Committed(_) = table.commit(&base, commit.clone()).await? {
            return Ok(());
        }
    }
    Err(overtaken(&table))
}
