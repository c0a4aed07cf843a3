//! What may be written on the command line, and what it is called there.
//!
//! Texts here are what `--help` prints. What has a form of its own (a zone, a window, a size) is
//! checked while arguments are read, so that a mistake in it is one of usage.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

mod corrections;
mod events;
mod explain;
mod export;
mod ingest;
mod lake;
mod meters;
mod periods;
mod questions;
mod rollups;
mod schedule;
mod values;

pub(super) use corrections::{
    AmendFlags, CorrectionFlags, ReplaceFlags, RevertFlags, SelectionFlags, VoidFlags,
};
pub(super) use events::{EventsCommand, UpsertCommand};
pub(super) use explain::{ExplainFlags, ShowFlags};
pub(super) use export::{ExportCommand, ExportStatementsFlags, ExportUsageFlags, FileFlags};
pub(super) use ingest::{IngestFlags, MappingFlags};
pub(super) use lake::{
    CompactFlags, DoctorFlags, IndexCommand, LogFlags, PinFlags, StatsBy, StatsFlags, UnpinFlags,
    VacuumFlags,
};
pub(super) use meters::{
    DiffFlags, HistoryFlags, LookupsCommand, MetersCommand, PublishFlags, TestFlags,
};
pub(super) use periods::{CloseFlags, PeriodFlags, PeriodsCommand};
pub(super) use questions::{PropertiesFlags, QuestionFlags, SqlFlags, UsageFlags, UsageFormat};
pub(super) use rollups::{RefreshFlags, RollupsCommand};
pub(super) use schedule::{JobFlags, ScheduleCommand, ScheduleFileFlag, ScheduleRunFlags};
pub(super) use values::{At, AtFlag, OutputFlag};

use super::size::parse_memory;

/// Where the lake is unless something else is said.
pub(super) const LAKE_DEFAULT: &str = "./lake";
/// The part of the lake unless something else is said.
pub(super) const NAMESPACE_DEFAULT: &str = "default";
/// Where the meters are unless something else is said.
pub(super) const METERS_DEFAULT: &str = "./queries/meters";

/// Usage metering over Parquet: raw events go in, exact usage comes out.
#[derive(Debug, Parser)]
#[command(
    name = "meterhouse",
    version,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Exit codes: 0 fine, 1 error, 2 wrong arguments, 3 some events were rejected or in \
                  conflict, 4 what is stored is not as it was written.\n\nBegin with `meterhouse quickstart`."
)]
pub(super) struct Flags {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// The lake: a folder, s3://BUCKET/FOLDER, gs://…, az://CONTAINER/… or memory://NAME
    #[arg(long, global = true, value_name = "URL", env = "METERHOUSE_LAKE",
          default_value = LAKE_DEFAULT, hide_env_values = true)]
    pub(super) lake: String,
    /// The part of the lake, kept apart from all others
    #[arg(long, global = true, value_name = "NAME", default_value = NAMESPACE_DEFAULT)]
    pub(super) namespace: String,
    /// The folder of meter files
    #[arg(long = "meters", global = true, value_name = "FOLDER", env = "METERHOUSE_METERS",
          default_value = METERS_DEFAULT, hide_env_values = true)]
    pub(super) meters_folder: PathBuf,
    /// Where the local state of the lake lies [default: inside a local lake, else in the user's cache]
    #[arg(
        long,
        global = true,
        value_name = "FOLDER",
        env = "METERHOUSE_STATE",
        hide_env_values = true
    )]
    pub(super) state: Option<PathBuf>,
    /// Memory to work with, such as 512MiB or 2GB [default: 512MiB to ingest, 2GiB to query; exports try with 64MiB a thread first]
    #[arg(long, global = true, value_name = "SIZE", value_parser = parse_memory)]
    pub(super) memory: Option<usize>,
    /// Threads to work with [default: one per core]
    #[arg(long, global = true, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) threads: Option<u16>,
    /// Say nothing but errors
    #[arg(long, short, global = true)]
    pub(super) quiet: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a lake of real events and ask it questions, naming each command
    Quickstart,
    /// Bring events into the lake, each counted once
    Ingest(IngestFlags),
    /// Ask meters for usage
    Usage(UsageFlags),
    /// Explain a number step by step, or list the events behind it
    Explain(ExplainFlags),
    /// Ask the events anything, in SQL; without a text, at a prompt
    Sql(SqlFlags),
    /// List, show, check, test, compare and publish meters
    #[command(subcommand)]
    Meters(MetersCommand),
    /// Keep what usage is computed from beside the events, so that answers are quick
    #[command(subcommand)]
    Rollups(RollupsCommand),
    /// Close billing periods: what was billed stays as it was, and what comes later is told
    #[command(subcommand)]
    Periods(PeriodsCommand),
    /// Write usage and closed periods to files: CSV, NDJSON, Parquet, XLSX, Stripe's meter events
    #[command(subcommand)]
    Export(ExportCommand),
    /// Have rollups, closings, exports and the like done again and again, when they are due
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Keep lookup tables in the lake: put, list and show them
    #[command(subcommand)]
    Lookups(LookupsCommand),
    /// Show the properties that events have: types, share, distinct values, and which meters use them
    Properties(PropertiesFlags),
    /// Correct events, look at those that did not get in and at the names of those that did
    #[command(subcommand)]
    Events(EventsCommand),
    /// Show what each version of the events brought, when and by whom
    Log(LogFlags),
    /// Show how much lies in the lake, by day or event name
    Stats(StatsFlags),
    /// Merge the small files of each day into few large ones; no answer changes
    Compact(CompactFlags),
    /// Delete data files that no version within the retention needs, and none that is pinned
    Vacuum(VacuumFlags),
    /// Try whether the place of the lake, its disk and its settings are fit for work
    Doctor(DoctorFlags),
    /// Make the local index of identities anew
    #[command(subcommand)]
    Index(IndexCommand),
    /// Prove that what is stored is as it was written, or name what is not
    Verify,
    /// Keep a version for ever
    Pin(PinFlags),
    /// Keep a version no longer than others
    Unpin(UnpinFlags),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_contradict_neither_each_other_nor_clap() {
        Flags::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_before_and_after_the_command() {
        for line in ["meterhouse --lake x usage m", "meterhouse usage m --lake x"] {
            let flags = Flags::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(flags.global.lake, "x", "{line}");
        }
    }
}
