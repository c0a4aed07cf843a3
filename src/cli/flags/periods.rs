//! What may be written to close periods and to look at closed ones.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::lake::days_or_hours;
use super::values::{AtFlag, OutputFlag, reason, zone};

/// What to do with periods.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PeriodsCommand {
    /// Keep what every customer used in a period, as it is now, for good
    Close(CloseFlags),
    /// List the closed periods
    List {
        /// Only those of this meter
        #[arg(value_name = "METER")]
        meter: Option<String>,
        #[command(flatten)]
        output: OutputFlag,
    },
    /// Show what was closed, a row for each customer
    Show {
        #[command(flatten)]
        of: PeriodFlags,
        #[command(flatten)]
        output: OutputFlag,
    },
    /// Make closed periods again, from the events they were made of, and compare byte for byte
    Verify {
        /// Only those of this meter
        #[arg(value_name = "METER")]
        meter: Option<String>,
    },
    /// Show what later events and corrections changed since, a row for each customer
    Adjustments {
        /// Name of the meter; all of them where none is given
        #[arg(value_name = "METER")]
        meter: Option<String>,
        /// The period, as `periods list` calls it or as `usage --period` takes it; all closed ones where
        /// none is given
        #[arg(value_name = "PERIOD")]
        period: Option<String>,
        #[command(flatten)]
        output: OutputFlag,
    },
    /// Open a period again, so that it can be closed anew; what was closed is kept
    Reopen {
        #[command(flatten)]
        of: PeriodFlags,
        /// Why, for whoever asks later
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: String,
    },
}

/// Which closed period is meant.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct PeriodFlags {
    /// Name of the meter
    #[arg(value_name = "METER")]
    pub(in crate::cli) meter: String,
    /// The period, as `periods list` calls it or as `usage --period` takes it
    #[arg(value_name = "PERIOD")]
    pub(in crate::cli) period: String,
}

/// Flags of `periods close`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  meterhouse periods close 2026-10
  meterhouse periods close last-month bandwidth requests --grace 3d
  meterhouse periods close billing:2026-10 seats

Where customers have billing periods of their own, each that begins in the month and has ended is closed.
A closed period never changes: closing it again does nothing, and what comes later is told by
`periods adjustments`. The version of the events that it was made of is pinned, and the meter's
definition is kept in the lake.")]
pub(in crate::cli) struct CloseFlags {
    /// The period, as `usage --period` takes it; it must have ended
    #[arg(value_name = "PERIOD")]
    pub(in crate::cli) period: String,
    /// Names of meters, also NAME@published or NAME@VERSION [default: all of the folder]
    #[arg(value_name = "METER")]
    pub(in crate::cli) meters: Vec<String>,
    /// How long after its end late events are waited for, such as 12h or 3d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = days_or_hours)]
    pub(in crate::cli) grace: Duration,
    /// IANA zone of the period [default: the meter's own, or UTC]
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    pub(in crate::cli) tz: Option<String>,
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub(in crate::cli) reason: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) at: AtFlag,
}
