//! What may be written to look after a lake.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::values::{AtFlag, OutputFlag, reason, version};
use crate::lake::vacuum::RETENTION_MIN;

/// Flags of `vacuum`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct VacuumFlags {
    /// Keep every version that was the newest at some time within this: 30d, 12h
    #[arg(long, value_name = "TIME", value_parser = retention, default_value = "30d")]
    pub(in crate::cli) retention: Duration,
    /// Shorten the log, too: forget versions that were superseded longer ago than this [default:
    /// keep all]
    #[arg(long, value_name = "TIME", value_parser = retention)]
    pub(in crate::cli) log: Option<Duration>,
    /// Only list the files
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
}

/// Flags of `doctor`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "A small object is put where the lake is or would be, and taken away again.
Exit code 4 where something is bad.")]
pub(in crate::cli) struct DoctorFlags {
    #[command(flatten)]
    pub(in crate::cli) output: OutputFlag,
}

/// What to do with the local index.
#[derive(Debug, Clone, Subcommand)]
pub(in crate::cli) enum IndexCommand {
    /// Build it from the events, whatever is there
    Rebuild,
}

/// Flags of `pin`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct PinFlags {
    /// The version [default: the newest]
    #[arg(value_name = "VERSION", value_parser = version)]
    pub(in crate::cli) version: Option<u64>,
    /// What it is kept for
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub(in crate::cli) reason: Option<String>,
}

/// Flags of `unpin`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct UnpinFlags {
    /// The version
    #[arg(value_name = "VERSION", value_parser = version)]
    pub(in crate::cli) version: u64,
}

/// Flags of `log`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct LogFlags {
    #[command(flatten)]
    pub(in crate::cli) output: OutputFlag,
    /// Only the newest N
    #[arg(long, value_name = "N")]
    pub(in crate::cli) limit: Option<usize>,
}

/// Flags of `stats`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct StatsFlags {
    /// A row for each of what
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub(in crate::cli) by: StatsBy,
    #[command(flatten)]
    pub(in crate::cli) at: AtFlag,
    #[command(flatten)]
    pub(in crate::cli) output: OutputFlag,
}

/// What `stats` has a row for each of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum StatsBy {
    /// Dates of UTC: files, bytes and rows, from the log alone
    #[default]
    Day,
    /// Columns of the data files: bytes as they are stored, and their share of all
    Column,
    /// Names of events: events, customers, first and last, counted in the rows
    EventName,
}

/// Flags of `compact`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Beside ingest and other compactions it is safe at any time: of two that want the
same files one gives way. The files that were merged stay, for versions before."
)]
pub(in crate::cli) struct CompactFlags {
    /// Go on for ever, looking again every N seconds
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "60",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(in crate::cli) watch: Option<u32>,
}

/// A time in days or hours.
pub(super) fn days_or_hours(text: &str) -> Result<Duration, String> {
    let seconds = |text: &str, unit: u64| text.parse::<u64>().ok()?.checked_mul(unit);
    let found = match text.split_at_checked(text.len().saturating_sub(1)) {
        Some((number, "d")) => seconds(number, 86_400),
        Some((number, "h")) => seconds(number, 3_600),
        Some(("", "0")) => Some(0),
        _ => None,
    };
    let found = found.map(Duration::from_secs);
    found.ok_or_else(|| "write a number of days or hours: 30d, 12h".to_owned())
}

/// A time in days or hours that is long enough for whoever reads.
fn retention(text: &str) -> Result<Duration, String> {
    let found = days_or_hours(text)?;
    match found < RETENTION_MIN {
        true => Err("less than 1h could take away what is being read".to_owned()),
        false => Ok(found),
    }
}
