//! The command line: arguments in, exit code out.
//!
//! `flags` says what may be written, one file per command says what it does, `outcome` how it ends.
//! Standard output carries data only; talk, progress and warnings go to standard error. Nothing
//! below this floor reads arguments or variables, or prints.

#![allow(clippy::print_stdout)]

mod actor;
mod compact;
mod correct;
mod diff;
mod doctor;
mod event;
mod events;
mod explain;
mod export;
mod flags;
mod follow;
mod index;
mod ingest;
mod log;
mod lookups;
mod meters;
mod numbers;
mod opening;
mod outcome;
mod output;
mod period_rows;
mod periods;
mod picture;
mod progress;
mod prompt;
mod properties;
mod publish;
mod quickstart;
mod rollups;
mod schedule;
mod size;
mod sql;
mod stats;
mod stopped;
mod trial;
mod upsert;
mod usage;
mod vacuum;
mod verify;

use std::ffi::OsString;

use clap::Parser;
use futures::future::LocalBoxFuture;

use flags::{Command, Flags};
use outcome::Outcome;

/// Runs the program with these arguments, the first of which is its own name; gives the exit code:
/// 0 fine, 1 error, 2 wrong arguments, 3 some events were rejected or in conflict, 4 what is stored
/// is not as it was written.
#[must_use]
pub fn run(arguments: Vec<OsString>) -> u8 {
    let program = arguments.first().map_or("meterhouse".into(), |name| name.to_string_lossy());
    let program = program.into_owned();
    let flags = match Flags::try_parse_from(arguments) {
        Ok(flags) => flags,
        Err(answer) => {
            // Help and version are such answers too; a reader that is gone needs neither.
            let _ = answer.print();
            return u8::try_from(answer.exit_code()).unwrap_or(outcome::WRONG_ARGUMENTS);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::say(&format!("error: cannot start threads: {error}"));
            return outcome::FAILED;
        }
    };
    let ended = runtime.block_on(dispatch(&program, &flags));
    // Whatever still waits for standard input has nobody to answer to.
    runtime.shutdown_background();
    match ended {
        Ok(outcome) => outcome.code(),
        Err(failure) => {
            output::say(&failure.text());
            failure.code()
        }
    }
}

/// Boxed, as a scheduled job is a command within a command.
fn dispatch<'f>(
    program: &'f str,
    flags: &'f Flags,
) -> LocalBoxFuture<'f, Result<Outcome, outcome::Failure>> {
    Box::pin(dispatched(program, flags))
}

async fn dispatched(program: &str, flags: &Flags) -> Result<Outcome, outcome::Failure> {
    let global = &flags.global;
    match &flags.command {
        Command::Quickstart => Box::pin(quickstart::run(program, global)).await,
        Command::Ingest(flags) => Box::pin(ingest::run(global, flags)).await,
        Command::Usage(flags) => Box::pin(usage::run(global, flags)).await,
        Command::Explain(flags) => Box::pin(explain::run(global, flags)).await,
        Command::Sql(flags) => Box::pin(sql::run(global, flags)).await,
        Command::Lookups(command) => Box::pin(lookups::run(global, command)).await,
        Command::Meters(command) => Box::pin(meters::run(global, command)).await,
        Command::Export(command) => Box::pin(export::run(global, command)).await,
        Command::Periods(command) => Box::pin(periods::run(global, command)).await,
        Command::Rollups(command) => Box::pin(rollups::run(global, command)).await,
        Command::Schedule(command) => Box::pin(schedule::run(program, global, command)).await,
        Command::Properties(flags) => Box::pin(properties::run(global, flags)).await,
        Command::Events(command) => Box::pin(events::run(global, command)).await,
        Command::Log(flags) => Box::pin(log::run(global, flags)).await,
        Command::Stats(flags) => Box::pin(stats::run(global, flags)).await,
        Command::Compact(flags) => Box::pin(compact::run(global, flags)).await,
        Command::Vacuum(flags) => Box::pin(vacuum::run(global, flags)).await,
        Command::Doctor(flags) => Box::pin(doctor::run(global, flags)).await,
        Command::Index(command) => Box::pin(index::run(global, command)).await,
        Command::Verify => Box::pin(verify::run(global)).await,
        Command::Pin(flags) => Box::pin(vacuum::pin(global, flags)).await,
        Command::Unpin(flags) => Box::pin(vacuum::unpin(global, flags)).await,
    }
}
