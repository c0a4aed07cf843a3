//! What may be written to have work done again and again.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::Command;
use super::values::OutputFlag;

/// What to do about scheduled work.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ScheduleCommand {
    /// Do what is due, and go on until interrupted
    Run(ScheduleRunFlags),
    /// List the jobs: what they do, when they were done last and when they are due next
    List {
        #[command(flatten)]
        file: ScheduleFileFlag,
        #[command(flatten)]
        output: OutputFlag,
    },
}

/// Flags of `schedule run`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "A file of jobs:
  timezone: Europe/Berlin
  jobs:
    - name: rollups
      cron: \"5 * * * *\"                         # every hour, at five past
      run: [rollups, refresh]
    - name: bills
      each: month                               # once for every month that has ended
      since: 2026-10
      after: 3d                                 # late events are waited for
      run: [periods, close, \"{period}\", --grace, 3d]

Of missed instants of an expression the last is caught up, of missed periods every one. Several
schedulers may run on one lake: a job is begun by one of them, and by another if that one is
not heard of for 15 minutes.")]
pub(in crate::cli) struct ScheduleRunFlags {
    #[command(flatten)]
    pub(in crate::cli) file: ScheduleFileFlag,
    /// Do what is due now, and end
    #[arg(long)]
    pub(in crate::cli) once: bool,
    /// Try what failed or was put off again at once, without the usual wait
    #[arg(long, requires = "once")]
    pub(in crate::cli) retry: bool,
}

/// The file of jobs.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ScheduleFileFlag {
    /// The file of jobs
    #[arg(long, value_name = "FILE", default_value = "./queries/schedule.yaml")]
    pub(in crate::cli) file: PathBuf,
}

/// The command of a job. The lake and all that is said of it is that of the scheduler.
#[derive(Debug, Parser)]
#[command(name = "run", no_binary_name = true, disable_version_flag = true)]
pub(in crate::cli) struct JobFlags {
    #[command(subcommand)]
    pub(in crate::cli) command: Command,
}
