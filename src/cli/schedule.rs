//! `meterhouse schedule`: work that is done again and again.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, StringArray};
use arrow::record_batch::RecordBatch;
use clap::Parser;

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
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::lake::tables::Lake;
use crate::schedule::{
    Due, Job, Run, Schedule, State, claim, due, finish, forget_old, message, next, parse, runs,
};
use crate::time::{Timestamp, format_in_zone, parse_zone};

/// How often a scheduler looks at what is due.
const LOOK_EVERY: Duration = Duration::from_secs(15);

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
            Due { at: Timestamp::MIN, of: Timestamp::MIN, period: Some("2026-10".to_owned()) };
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
    loop {
        // The file may change from one look to the next.
        let schedule = read(&flags.file)?;
        let lake = open_lake(global).await?;
        let (mut done, mut failed) = (0, 0);
        for job in &schedule.jobs {
            let zone = parse_zone(&schedule.zone)?;
            for due in due(job, &zone, Clock::System.now())? {
                match run_one(program, global, &lake, job, &due).await? {
                    Some(true) => done += 1,
                    Some(false) => failed += 1,
                    None => {}
                }
            }
        }
        if flags.once {
            if !global.quiet {
                let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
                say(&format!("{} done{failed}", counted(done, "job")));
            }
            return match failed {
                0 => Ok(Outcome::Done),
                _ => {
                    Err(Error::unavailable("a job failed: `meterhouse schedule list` says why")
                        .into())
                }
            };
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Does what a job is due for, if nobody else does; says whether it could be done.
async fn run_one(
    program: &str,
    global: &Global,
    lake: &Lake,
    job: &Job,
    due: &Due,
) -> Result<Option<bool>> {
    let who = || (Clock::System.now(), actor());
    let Some(claimed) = claim(&lake.events, job, due, who()).await? else { return Ok(None) };
    let words = job.words(due);
    if !global.quiet {
        say(&format!("{}: {}", job.name, words.join(" ")));
    }
    let command = command_of(&words).map_err(Error::invalid)?;
    let flags = Flags { global: global.clone(), command };
    let failed = match dispatch(program, &flags).await {
        Ok(Outcome::Done) => None,
        Ok(other) => Some(format!("it ended with code {}", other.code())),
        Err(failure) => Some(failure.text()),
    };
    if let Some(why) = &failed {
        say(&format!("{}: {why}", job.name));
    }
    let could = failed.is_none();
    finish(&lake.events, claimed, failed, who()).await?;
    forget_old(&lake.events, job).await?;
    Ok(Some(could))
}

async fn rows(lake: &Lake, schedule: &Schedule, runs: &[Run]) -> Result<RecordBatch> {
    let zone = parse_zone(&schedule.zone)?;
    let now = Clock::System.now();
    let shown = |at: Timestamp| format_in_zone(at, &zone);
    let mut columns: [Vec<Option<String>>; 7] = Default::default();
    for job in &schedule.jobs {
        let of_job = || runs.iter().filter(|run| run.job == job.name);
        let last = of_job().next_back();
        let is_done = |due: &Due| of_job().any(|run| run.due == due.of && run.state == State::Done);
        let waiting: Vec<Due> =
            due(job, &zone, now)?.into_iter().filter(|due| !is_done(due)).collect();
        let next = match waiting.first() {
            Some(due) => Some(due.at),
            None => next(job, &zone, now)?,
        };
        let message = match last {
            Some(last) => message(&lake.events, last).await?,
            None => None,
        };
        let outcome = last.map(|run| match run.state {
            State::Begun => "begun",
            State::Failed => "failed",
            State::Done => "done",
        });
        let row = [
            Some(job.name.clone()),
            Some(job.run.join(" ")),
            last.map(|run| shown(run.due)),
            outcome.map(str::to_owned),
            message,
            next.map(shown),
            Some(waiting.len().to_string()),
        ];
        columns.iter_mut().zip(row).for_each(|(column, cell)| column.push(cell));
    }
    let names = ["job", "run", "last", "outcome", "message", "next", "waiting"];
    let columns = names.into_iter().zip(columns).map(|(name, texts)| {
        (name, Arc::new(StringArray::from(texts)) as ArrayRef, !matches!(name, "job" | "run"))
    });
    RecordBatch::try_from_iter_with_nullable(columns)
        .map_err(|error| Error::internal("rows of jobs").with_source(error))
}
