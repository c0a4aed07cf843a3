//! `meterhouse periods`: periods are closed, shown, verified and opened again.

use std::collections::{BTreeMap, BTreeSet};

use super::actor::actor;
use super::flags::{CloseFlags, Global, PeriodFlags, PeriodsCommand};
use super::numbers::{counted, grouped};
use super::opening::{all_meter_files, context, load_meter_files, resolve_at};
use super::outcome::{Failure, Outcome, all_or, joined};
use super::output::{check_format, numeric, say, write_rows};
use super::period_rows::{
    ADJUSTED, NUMBERS, adjustments_of_all, adjustments_of_name, line_rows, list_rows, together,
};
use crate::error::{Error, ErrorKind, Result};
use crate::meter::{Billing, Bundle, Meter, load_bundle};
use crate::period::{self, Change, Closed, ClosedPeriods, Closing, Record, Terms};
use crate::registry;
use crate::render::OutputFormat;
use crate::time::{BillingHistory, BillingPeriod, TimeRange, Timestamp};
use crate::usage::{Context, UsageRequest, published_for};

/// Runs the command.
pub(super) async fn run(global: &Global, command: &PeriodsCommand) -> Result<Outcome, Failure> {
    match command {
        PeriodsCommand::Close(flags) => return close(global, flags).await,
        PeriodsCommand::List { meter, output } => {
            check_format(output.output)?;
            let context = context(global, Vec::new()).await?;
            let all = period::list(&context.lake, meter.as_deref()).await?;
            if let (Some(meter), true) = (meter, all.is_empty()) {
                return Err(none_closed(meter).into());
            }
            write_rows(output.output, &list_rows(&all)?)?;
            if all.is_empty() && !global.quiet {
                say("no period is closed; `meterhouse periods close` does that");
            }
        }
        PeriodsCommand::Show { of, output } => {
            check_format(output.output)?;
            let context = context(global, Vec::new()).await?;
            let (closings, open) = period::find_all(&context, &of.meter, &of.period).await?;
            let mut rows = Vec::with_capacity(closings.len());
            for closing in &closings {
                let lines = period::lines(&context, closing).await?;
                rows.push(line_rows(&closing.record, &lines)?);
            }
            let rows = together(&closings, &rows)?;
            write_rows(output.output, &numeric(output.output, &rows, &NUMBERS)?)?;
            for closing in closings.iter().filter(|_| !global.quiet) {
                say(&told(closing));
            }
            open.iter().for_each(say_open);
        }
        PeriodsCommand::Verify { meter } => return verify(global, meter.as_deref()).await,
        PeriodsCommand::Adjustments { meter, period, output } => {
            let asked = (meter.as_deref(), period.as_deref());
            return adjustments(global, asked, output.output).await;
        }
        PeriodsCommand::Reopen { of, reason } => reopen(global, of, reason).await?,
    }
    Ok(Outcome::Done)
}

/// Shows what changed since of one closed period, or of all of a meter, or of all.
async fn adjustments(
    global: &Global,
    asked: (Option<&str>, Option<&str>),
    output: OutputFormat,
) -> Result<Outcome, Failure> {
    check_format(output)?;
    let context = context(global, Vec::new()).await?;
    // What a correction moved from one period to another is in one of them.
    let version = context.lake.events.snapshot(None).await?.version;
    let is_one_name = asked.1.is_some();
    let (closings, open) = match asked {
        (Some(meter), Some(period)) => period::find_all(&context, meter, period).await?,
        (meter, _) => {
            let all = period::list(&context.lake, meter).await?;
            if let (Some(meter), true) = (meter, all.is_empty()) {
                return Err(none_closed(meter).into());
            }
            period::standing(all)
        }
    };
    let (mut done, mut said, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    let all = closings.len() as u64;
    for closing in closings {
        match period::adjustments(&context, &closing, version).await {
            Ok(found) => {
                let count = counted(found.len() as u64, "line");
                let told = told(&closing);
                said.push(format!("{told}\n{count} would be another by table version {version}"));
                done.push((closing, found));
            }
            Err(error) if is_one_name => return Err(error.into()),
            // What is wrong with one is no matter of the others.
            Err(error) => {
                let Record { meter, period, .. } = &closing.record;
                let told = format!("{meter} {period}: {error}");
                wrong.push(Error::new(error.kind(), told).with_source(error));
            }
        }
    }
    if done.is_empty() && !wrong.is_empty() {
        return all_or(wrong, &counted(all, "closed period"), "computed")
            .map(|()| Outcome::Done)
            .map_err(Failure::from);
    }
    let rows = match is_one_name {
        true => adjustments_of_name(&done)?,
        false => adjustments_of_all(&done)?,
    };
    write_rows(output, &numeric(output, &rows, &ADJUSTED)?)?;
    if !is_one_name {
        let lines = done.iter().map(|(_, found)| found.len() as u64).sum();
        said = vec![format!(
            "{} of {} would be another by table version {version}",
            counted(lines, "line"),
            counted(done.len() as u64, "closed period")
        )];
    }
    for text in said.iter().filter(|_| !global.quiet) {
        say(text);
    }
    open.iter().for_each(say_open);
    all_or(wrong, &counted(all, "closed period"), "computed")?;
    Ok(Outcome::Done)
}

/// Warns of a period that was opened again beside others that hold, if it had lines.
pub(super) fn say_open(closing: &Closing) {
    let Record { meter, from, to, lines, .. } = &closing.record;
    if *lines == 0 {
        return;
    }
    say(&format!(
        "warning: the period {from}..{to} of {meter} was opened again and is not closed anew: its {} not here",
        match lines {
            1 => "line is".to_owned(),
            lines => format!("{} lines are", grouped(*lines)),
        }
    ));
}

fn none_closed(meter: &str) -> Error {
    Error::not_found(format!("no period of meter `{meter}` is closed"))
}

async fn close(global: &Global, flags: &CloseFlags) -> Result<Outcome, Failure> {
    let context = context(global, Vec::new()).await?;
    // All are of one version.
    let at = match resolve_at(&context.lake, flags.at.at.as_ref()).await? {
        Some(version) => version,
        None => context.lake.events.snapshot(None).await?.version,
    };
    let Asked { meters, unread, names } = meters(global, &context, flags).await?;
    // What is wrong with one is no matter of the others.
    let mut wrong: Vec<Error> = unread.into_iter().collect();
    let all = (meters.len() + wrong.len()) as u64;
    // A file that is wrong may be of a meter that seems to be missing.
    let is_all = flags.meters.is_empty() && wrong.is_empty();
    let (mut any, mut later, mut first) = (false, false, None::<Timestamp>);
    let mut warnings = Vec::new();
    for (meter, bundle) in meters {
        let terms = Terms {
            period: flags.period.clone(),
            timezone: flags.tz.clone(),
            grace_seconds: flags.grace.as_secs(),
            at: Some(at),
            by: actor(),
            reason: flags.reason.clone(),
        };
        let closed = Box::pin(period::close(&context, (&meter, bundle.as_ref()), &terms)).await;
        let done = closed.unwrap_or_else(|error| ClosedPeriods {
            wrong: vec![of_meter(&meter.name, error)],
            ..ClosedPeriods::default()
        });
        let is_later = |closed: &Closed| matches!(closed, Closed::Later { .. });
        let all_later = done.closed.iter().all(is_later) && done.wrong.is_empty();
        any |= !all_later;
        later |= done.closed.iter().any(is_later);
        for closed in &done.closed {
            let from = match closed {
                Closed::Now(record) | Closed::Before(record) => record.range()?.from,
                Closed::Later { .. } => None,
            };
            first = first.into_iter().chain(from).min();
        }
        if !global.quiet || all_later {
            say_closed(&meter.name, &done);
        }
        warnings.extend(done.warnings);
        wrong.extend(joined(done.wrong));
    }
    if let (true, Some(first)) = (is_all, first) {
        match missed(&context, &names, first).await {
            Ok(missed) => warnings.extend(missed),
            Err(error) => wrong.push(error),
        }
    }
    for warning in &warnings {
        say(&format!("warning: {warning}"));
    }
    all_or(wrong, &counted(all, "meter"), "settled")?;
    Ok(match (later, any) {
        (false, _) if warnings.is_empty() => Outcome::Done,
        (false, _) => Outcome::Warned(warnings.join("\n")),
        (true, true) => Outcome::SomeLater,
        (true, false) => Outcome::NothingYet,
    })
}

/// How long after its last closing a meter is missed, in microseconds.
const MISSED_MICROS: i64 = 100 * 86_400_000_000;

/// Warns of meters that were closed up to a while before an instant and of which there is neither a file by
/// now nor a published definition.
async fn missed(
    context: &Context,
    known: &BTreeSet<String>,
    first: Timestamp,
) -> Result<Vec<String>> {
    let published = registry::names(&context.lake.events).await?;
    let mut until: BTreeMap<String, Timestamp> = BTreeMap::new();
    let closings = period::list(&context.lake, None).await?;
    for Closing { record, .. } in closings.into_iter().filter(Closing::holds) {
        if !known.contains(&record.meter) && !published.contains(&record.meter) {
            let Some(to) = record.range()?.to else { continue };
            let last = until.entry(record.meter).or_insert(to);
            *last = to.max(*last);
        }
    }
    let since = Timestamp::from_micros(first.micros() - MISSED_MICROS);
    let missed = until.iter().filter(|(_, last)| **last >= since);
    let text = |(meter, last): (&String, &Timestamp)| {
        format!("meter `{meter}` was closed until {last} and has no file any more")
    };
    Ok(missed.map(text).collect())
}

/// An error with the meter that it is about, where it is not the request that is wrong.
fn of_meter(meter: &str, error: Error) -> Error {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Conflict => error,
        _ if text.contains(&format!("`{meter}`")) => error,
        kind => Error::new(kind, format!("meter `{meter}`: {text}")).with_source(error),
    }
}

fn say_closed(meter: &str, done: &ClosedPeriods) {
    let (mut later, mut any) = (Vec::new(), false);
    for closed in &done.closed {
        any |= !matches!(closed, Closed::Later { .. });
        match closed {
            Closed::Now(record) => say(&format!("closed {}", record_text(record))),
            Closed::Before(record) => {
                say(&format!("closed already, nothing changed: {}", record_text(record)));
            }
            Closed::Later { closable, .. } => later.push(closable),
        }
    }
    match later.iter().min() {
        Some(first) if any => {
            let periods = counted(later.len() as u64, "period");
            say(&format!(
                "{meter}: {periods} of other customers can be closed later, the first from {first} on"
            ));
        }
        Some(first) => say(&format!(
            "{meter}: no customer's period can be closed yet, the first from {first} on (--grace)"
        )),
        None if !any && done.wrong.is_empty() => {
            say(&format!("{meter}: no customer has a billing period that begins then"));
        }
        None => {}
    }
}

/// The meters that are asked for.
struct Asked {
    /// Those of files with what defines them.
    meters: Vec<(Meter, Option<Bundle>)>,
    /// Where all are asked for, what is wrong with the files of others.
    unread: Option<Error>,
    /// Names of all that have a file, as far as files were read.
    names: BTreeSet<String>,
}

async fn meters(global: &Global, context: &Context, flags: &CloseFlags) -> Result<Asked> {
    let (published, of_files): (Vec<String>, Vec<String>) =
        flags.meters.iter().cloned().partition(|name| name.contains('@'));
    let (mut found, mut unread) = (Vec::new(), None);
    let mut files = Vec::new();
    if flags.meters.is_empty() {
        (files, unread) = all_meter_files(global)?;
    } else if !of_files.is_empty() {
        files = load_meter_files(global, &of_files)?;
    }
    let names = files.iter().map(|(_, meter)| meter.name.clone()).collect();
    for (file, _) in files {
        let (meter, bundle) = load_bundle(&file)?;
        found.push((meter, Some(bundle)));
    }
    let request = UsageRequest {
        period: Some(flags.period.clone()),
        timezone: flags.tz.clone(),
        ..UsageRequest::default()
    };
    let is_billing = BillingPeriod::named(&flags.period)?.is_some();
    let is_of_kind = |meter: &Meter| match &meter.billing {
        None => Ok(!is_billing),
        Some(Billing::Shared(_)) if is_billing => Ok(true),
        Some(Billing::Shared(cycle)) => match request.bounds(meter, context.clock.now())? {
            TimeRange { from: Some(from), to: Some(to) } => {
                BillingHistory::from(cycle.clone()).has_period([from, to])
            }
            _ => Ok(false),
        },
        Some(Billing::PerCustomer(_)) => Ok::<_, Error>(is_billing),
    };
    if flags.meters.is_empty() {
        // By the other kind of periods nobody bills it, unless it is named.
        let (mut of_kind, mut others) = (Vec::new(), Vec::new());
        for (meter, bundle) in found {
            match is_of_kind(&meter)? {
                true => of_kind.push((meter, bundle)),
                false => others.push(meter.name),
            }
        }
        let why = match is_billing {
            true => "without `billing`",
            false => "with other periods by their `billing`",
        };
        let left_out = format!("{why}, and so left out: {}", others.join(", "));
        if of_kind.is_empty() && !others.is_empty() {
            let none = Error::invalid(format!(
                "no meter can be closed for `{}`: all are {left_out}; name one to close it nevertheless",
                flags.period
            ));
            let wrong = std::iter::once(none).chain(unread).collect();
            return Err(joined(wrong).unwrap_or_else(|| Error::internal("nothing is wrong")));
        }
        if !others.is_empty() && !global.quiet {
            say(&left_out);
        }
        found = of_kind;
    }
    for (meter, _) in &found {
        if matches!(meter.billing, Some(Billing::Shared(_))) && !is_of_kind(meter)? {
            let (name, period) = (&meter.name, &flags.period);
            say(&format!("warning: {name}: {period} is none of the periods of its `billing`"));
        }
    }
    for asked in published {
        let events = &context.lake.events;
        let meter = match asked.split_once('@') {
            Some((name, "published")) => published_for(context, &request, name).await?,
            Some((name, prefix)) => {
                let version = registry::find(events, name, prefix).await?;
                registry::definition(events, name, &version).await?
            }
            None => continue,
        };
        found.push((meter, None));
    }
    Ok(Asked { meters: found, unread, names })
}

async fn verify(global: &Global, meter: Option<&str>) -> Result<Outcome, Failure> {
    let context = context(global, Vec::new()).await?;
    let all = period::list(&context.lake, meter).await?;
    if let (Some(meter), true) = (meter, all.is_empty()) {
        return Err(none_closed(meter).into());
    }
    let mut wrong = 0_u64;
    for closing in &all {
        let record = &closing.record;
        let verdict = match period::verify(&context, closing).await {
            Ok(verdict) => verdict,
            Err(error) if unreadable(error.kind()) => {
                say(&format!("{}: it cannot be made again: {error}", record_text(record)));
                wrong += 1;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if !verdict.is_whole {
            say(&format!("{}: the lines are not those that were closed", record_text(record)));
        }
        for (stored, again) in &verdict.differing {
            let text = |line: &Option<String>| line.clone().unwrap_or_else(|| "nothing".to_owned());
            say(&format!(
                "{}: the events of version {} say otherwise\n  - {}\n  + {}",
                record_text(record),
                record.table_version,
                text(stored),
                text(again)
            ));
        }
        wrong += u64::from(!verdict.is_right());
    }
    if !global.quiet {
        let periods = counted(all.len() as u64, "closed period");
        say(&match wrong {
            0 if all.is_empty() => "no period is closed".to_owned(),
            0 => format!("{periods} made again, byte for byte what was closed"),
            _ => format!("{} of {periods} not as closed", grouped(wrong)),
        });
    }
    Ok(if wrong > 0 { Outcome::Mismatch } else { Outcome::Done })
}

/// Whether what is stored is to blame, not the way to it.
fn unreadable(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Invalid)
}

async fn reopen(global: &Global, of: &PeriodFlags, reason: &str) -> Result<(), Failure> {
    if reason.trim().is_empty() {
        return Err(Failure::Arguments("--reason is empty: say why".to_owned()));
    }
    let context = context(global, Vec::new()).await?;
    let closing = period::find(&context, &of.meter, &of.period).await?;
    let at = context.clock.now().to_string();
    let change = Change { at, by: actor(), reason: Some(reason.to_owned()) };
    period::reopen(&context, &closing, &change).await?;
    if !global.quiet {
        say(&format!("open again: {}", record_text(&closing.record)));
    }
    Ok(())
}

/// What was closed, and whether it holds.
fn told(closing: &Closing) -> String {
    match &closing.reopened {
        None => record_text(&closing.record),
        Some(change) => format!("{}, opened again at {}", record_text(&closing.record), change.at),
    }
}

fn record_text(record: &Record) -> String {
    let Record { meter, meter_version, from, to, zone, table_version, sha256, .. } = record;
    let revision = match record.revision {
        1 => String::new(),
        later => format!(", revision {later}"),
    };
    format!(
        "{meter} {meter_version}  {from} to {to} {zone}  table version {table_version}  {}{revision}  \
         sha256 {sha256}",
        counted(record.lines, "line")
    )
}
