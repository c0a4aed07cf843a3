//! `meterhouse schedule`: work that is done again and again.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, StringArray};
use arrow::record_batch::RecordBatch;
use clap::Parser;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use jiff::tz::TimeZone;

use super::actor::actor;
use super::dispatch;
use super::flags::{
    Command, Flags, Global, JobFlags, PeriodsCommand, RollupsCommand, ScheduleCommand,
    ScheduleFileFlag, ScheduleRunFlags,
};
use super::numbers::counted;
use super::opening::open_lake;
use super::outcome::{Failure, Outcome};
use super::output::{check_format, say, write_rows};
use super::stopped::stopped;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::lake::tables::Lake;
use crate::schedule::{
    Claimed, Due, Job, Run, Schedule, State, claim, due, finish, forget, next, parse, release,
    renew, runs, told, tried_again,
};
use crate::time::{Timestamp, format_in_zone, parse_zone};

/// How often a scheduler looks at what is due.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// How often a scheduler says that it is still at a job.
const RENEW_EVERY: Duration = Duration::from_secs(5 * 60);

/// Runs the command.
pub(super) async fn run(
    program: &str,
    global: &Global,
    command: &ScheduleCommand,
) -> Result<Outcome, Failure> {
    match command {
        ScheduleCommand::Run(flags) => run_jobs(program, global, flags).await,
        ScheduleCommand::List { file, output } => {
            check_format(output.output)?;
            let schedule = read(file)?;
            let lake = open_lake(global).await?;
            let runs = runs(&lake.events).await?;
            write_rows(output.output, &rows(&lake, &schedule, &runs).await?)?;
            Ok(Outcome::Done)
        }
    }
}

/// Being asked to stop, whoever waits for it.
type Stop = Shared<BoxFuture<'static, ()>>;

/// The schedule of a file, of whose commands every one can be run.
fn read(flag: &ScheduleFileFlag) -> Result<Schedule> {
    let name = flag.file.display().to_string();
    let text = std::fs::read_to_string(&flag.file).map_err(|error| {
        Error::not_found(format!("file of jobs {name}: {error}; --file names another"))
            .with_source(error)
    })?;
    let schedule = parse(&text, &name).map_err(|found| Error::invalid(found.to_string()))?;
    for job in &schedule.jobs {
        // Any period has the form that a job's own has.
        let some =
            Due { at: Timestamp::MIN, of: [Timestamp::MIN; 2], period: Some("2026-10".to_owned()) };
        command_of(&job.words(&some)).map_err(|why| {
            Error::invalid(format!("{name}, line {}: job `{}`: {why}", job.line, job.name))
        })?;
    }
    Ok(schedule)
}

/// The command of a job.
fn command_of(words: &[String]) -> Result<Command, String> {
    let parsed = JobFlags::try_parse_from(words).map_err(|error| {
        let told = error.to_string();
        let told = told.strip_prefix("error: ").unwrap_or(&told);
        told.lines().take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
    })?;
    match parsed.command {
        // What may be done twice, and ends.
        command @ (Command::Rollups(RollupsCommand::Refresh(_))
        | Command::Periods(PeriodsCommand::Close(_) | PeriodsCommand::Verify { .. })
        | Command::Export(_)
        | Command::Vacuum(_)
        | Command::Verify) => Ok(command),
        Command::Compact(flags) if flags.watch.is_none() => Ok(Command::Compact(flags)),
        _ => Err(format!(
            "`{}` is no work for a schedule: that is `rollups refresh`, `periods close`, `periods \
             verify`, `export`, `compact`, `vacuum` and `verify`",
            words.join(" ")
        )),
    }
}

async fn run_jobs(
    program: &str,
    global: &Global,
    flags: &ScheduleRunFlags,
) -> Result<Outcome, Failure> {
    let mut schedule = read(&flags.file)?;
    let stop: Stop = stopped().boxed().shared();
    loop {
        let looked = look(program, (global, flags.retry), &schedule, &stop).await;
        match looked {
            _ if stop.clone().now_or_never().is_some() => {
                return match flags.once {
                    true => Err(Error::unavailable("stopped before everything was done").into()),
                    false => Ok(Outcome::Done),
                };
            }
            Ok(Looked { done, failed, waiting }) if flags.once => {
                if !global.quiet {
                    let more = |count: u64, what: &str| match count {
                        0 => String::new(),
                        count => format!(", {count} {what}"),
                    };
                    let waiting = more(waiting, "waiting");
                    let of_failed = more(failed.len() as u64, "failed");
                    say(&format!("{} done{of_failed}{waiting}", counted(done, "job")));
                }
                if failed.is_empty() {
                    return Ok(Outcome::Done);
                }
                return Err(Error::unavailable(format!(
                    "failed: {}; `meterhouse schedule list` says why, and when it is tried again (--retry \
                     does so at once)",
                    first_of(&failed)
                ))
                .into());
            }
            Err(error) if flags.once => return Err(error.into()),
            // A store that is away may be there the next time.
            Err(error) => say(&format!("error: {error}")),
            Ok(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.clone() => return Ok(Outcome::Done),
        }
        // The file may change from one look to the next, and be wrong for a while.
        match read(&flags.file) {
            Ok(changed) => schedule = changed,
            Err(error) => say(&format!("error: {error}; the former jobs go on")),
        }
    }
}

/// How many failed jobs an error names.
const NAMED: usize = 5;

/// The first few of some names.
fn first_of(names: &[String]) -> String {
    let mut text = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED {
        text.push_str(&format!(" and {} more", names.len() - NAMED));
    }
    text
}

/// What came of doing what is due.
#[derive(Default)]
struct Looked {
    /// How many jobs were done.
    done: u64,
    /// The jobs that failed, now or a while ago, with their periods.
    failed: Vec<String>,
    /// How many are done by others or can be done later.
    waiting: u64,
}

/// Does what is due; what failed or was put off a moment ago only where it `retries`.
async fn look(
    program: &str,
    (global, retries): (&Global, bool),
    schedule: &Schedule,
    stop: &Stop,
) -> Result<Looked> {
    let (lake, zone) = (open_lake(global).await?, parse_zone(&schedule.zone)?);
    let known = runs(&lake.events).await?.into_iter().filter(|run| run.state == State::Done);
    let known: HashSet<(String, [Timestamp; 2])> = known.map(|run| (run.job, run.of)).collect();
    let mut looked = Looked::default();
    // Periods are done in order, as a closing looks at those before it and an export at what was closed.
    let mut is_at_work = false;
    for job in &schedule.jobs {
        let key = job.key();
        for due in due(job, &zone, Clock::System.now())? {
            if known.contains(&(key.clone(), due.of)) {
                continue;
            }
            if is_at_work && job.is_retried() {
                looked.waiting += 1;
                continue;
            }
            if stop.clone().now_or_never().is_some() {
                return Ok(looked);
            }
            match run_one((program, global, stop), &lake, (job, retries), &due).await? {
                (State::Done, is_ours) => looked.done += u64::from(is_ours),
                (State::Failed, _) => looked.failed.push(match &due.period {
                    Some(period) => format!("{} ({period})", job.name),
                    None => job.name.clone(),
                }),
                (State::Later, _) => looked.waiting += 1,
                (State::Begun, _) => {
                    looked.waiting += 1;
                    is_at_work |= job.is_retried();
                }
            }
        }
    }
    Ok(looked)
}

/// Does what a job is due for, if nobody else does; says how far that came, and whether it was done here.
/// Where it is stopped, the job is left to whoever looks next.
async fn run_one(
    (program, global, stop): (&str, &Global, &Stop),
    lake: &Lake,
    (job, retries): (&Job, bool),
    due: &Due,
) -> Result<(State, bool)> {
    let who = || (Clock::System.now(), actor());
    let words = job.words(due);
    let command = command_of(&words).map_err(Error::invalid)?;
    let claimed = match claim(&lake.events, job, due, retries, who()).await? {
        Claimed::Ours(claimed) => claimed,
        Claimed::Not(state) => return Ok((state, false)),
    };
    if !global.quiet {
        say(&format!("{}: {}", job.name, words.join(" ")));
    }
    let flags = Flags { global: global.clone(), command };
    let mut work = dispatch(program, &flags);
    let ended = loop {
        tokio::select! {
            ended = &mut work => break Some(ended),
            () = stop.clone() => break None,
            // One that cannot be renewed may be begun anew by somebody else, which does no harm.
            () = tokio::time::sleep(RENEW_EVERY) => {
                drop(renew(&lake.events, &claimed, who()).await);
            }
        }
    };
    let Some(ended) = ended else {
        drop(work);
        say(&format!("{}: stopped; it is begun again by whoever runs the schedule next", job.name));
        release(&lake.events, claimed).await?;
        return Ok((State::Begun, true));
    };
    let (state, why) = match ended {
        Ok(Outcome::Done) => (State::Done, None),
        Ok(Outcome::Warned(warning)) => (State::Done, Some(warning)),
        Ok(Outcome::SomeLater | Outcome::NothingYet) => {
            let why = Some("some of it can be done later".to_owned());
            // What a relative name means the next time is another period.
            (if job.names_period() { State::Later } else { State::Done }, why)
        }
        Ok(other) => (State::Failed, Some(format!("it ended with code {}", other.code()))),
        Err(failure) => (State::Failed, Some(failure.text())),
    };
    if let Some(why) = &why {
        say(&format!("{}: {why}", job.name));
    }
    finish(&lake.events, claimed, (state, why), who()).await?;
    forget(&lake.events, job).await?;
    Ok((state, true))
}

/// The columns of a list of jobs.
const COLUMNS: [&str; 8] = ["job", "run", "for", "outcome", "at", "message", "next", "waiting"];

async fn rows(lake: &Lake, schedule: &Schedule, runs: &[Run]) -> Result<RecordBatch> {
    let zone = parse_zone(&schedule.zone)?;
    let now = Clock::System.now();
    let mut columns: [Vec<Option<String>>; COLUMNS.len()] = Default::default();
    for job in &schedule.jobs {
        let row = row(lake, job, runs, (&zone, now)).await?;
        columns.iter_mut().zip(row).for_each(|(column, cell)| column.push(cell));
    }
    let columns = COLUMNS.into_iter().zip(columns).map(|(name, texts)| {
        (name, Arc::new(StringArray::from(texts)) as ArrayRef, !matches!(name, "job" | "run"))
    });
    RecordBatch::try_from_iter_with_nullable(columns)
        .map_err(|error| Error::internal("rows of jobs").with_source(error))
}

/// The cells of a job.
async fn row(
    lake: &Lake,
    job: &Job,
    runs: &[Run],
    (zone, now): (&TimeZone, Timestamp),
) -> Result<[Option<String>; COLUMNS.len()]> {
    let (key, dues) = (job.key(), due(job, zone, now)?);
    let runs: Vec<&Run> = runs.iter().filter(|run| run.job == key).collect();
    let done: HashSet<_> =
        runs.iter().filter(|run| run.state == State::Done).map(|run| run.of).collect();
    let waiting: Vec<&Due> = dues.iter().filter(|due| !done.contains(&due.of)).collect();
    // What failed says more than what is to be done later, and that more than what was done after it.
    let last: BTreeMap<_, &Run> = runs.iter().map(|run| (run.of, *run)).collect();
    let open = || last.values().filter(|run| waiting.iter().any(|due| run.of == due.of));
    let open = open().rfind(|run| run.state == State::Failed).or(open().next_back()).copied();
    let run = open.or(runs.last().copied());
    let note = match run {
        Some(run) => told(&lake.events, run).await?,
        None => None,
    };
    let at = note.as_ref().and_then(|note| Timestamp::parse_rfc3339(&note.at).ok());
    let again = open.zip(at).and_then(|(run, at)| tried_again(job, run.state, at));
    let next = match (again, open, waiting.first()) {
        (Some(again), ..) => Some(again),
        (None, None, Some(due)) => Some(due.at),
        (None, ..) => next(job, zone, now)?,
    };
    let shown = |at: Timestamp| format_in_zone(at, zone);
    let what_for = run.map(|run| {
        let period = dues.iter().find(|due| due.of == run.of).and_then(|due| due.period.clone());
        period.unwrap_or_else(|| shown(run.of[0]))
    });
    let outcome = run.map(|run| match run.state {
        State::Begun => "begun",
        State::Failed => "failed",
        State::Later => "later",
        State::Done => "done",
    });
    Ok([
        Some(job.name.clone()),
        Some(job.run.join(" ")),
        what_for,
        outcome.map(str::to_owned),
        at.map(shown),
        note.and_then(|note| note.message),
        next.map(shown),
        Some(waiting.len().to_string()),
    ])
}
