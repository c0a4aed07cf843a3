//! What may be written to work on meters and on the tables that they read.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::values::{AtFlag, OutputFlag, bound, period, reason, zone};

/// What to do with meters.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum MetersCommand {
    /// List the meters
    List {
        #[command(flatten)]
        output: OutputFlag,
    },
    /// Show one meter in words
    Show {
        /// Its name; with `@` and a version, or `@published`, what was published
        name: String,
    },
    /// Report every mistake in meter files, in the lookups they name, in the lake or not, and in their tests
    Check {
        /// Meter files, folders of them, and names of meters [default: the folder of meters]
        #[arg(value_name = "FILE|FOLDER|METER")]
        paths: Vec<PathBuf>,
    },
    /// Ask meters what their tests expect: the cases of NAME.test.yaml beside NAME.yaml
    Test(TestFlags),
    /// Compare two definitions of a meter over the events there are: who would pay what
    Diff(DiffFlags),
    /// Keep the present definitions in the lake, for ever, and say from when they hold
    Publish(PublishFlags),
    /// List what was published, when, by whom and why, and when it holds
    History(HistoryFlags),
}

/// Flags of `meters test`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "A case gives events and what the meter must say of them:
  - test: answers without a size add nothing
    events:
      - { properties: { status: 200, bytes: 1500 } }
      - { properties: { status: 200 } }
    total: true
    expect:
      - { value: 1500, events: 1, skipped: 1 }

Exit code 1 if one fails.")]
pub(in crate::cli) struct TestFlags {
    /// Names of meters [default: all that have tests]
    #[arg(value_name = "METER")]
    pub(in crate::cli) meters: Vec<String>,
}

/// Flags of `meters publish`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  meterhouse meters publish bandwidth --reason 'contract of 2026'
  meterhouse meters publish bandwidth --from 2027-01-01
  meterhouse usage bandwidth@published --period 2026-12

A definition is published with its tables. Publishing what is in effect already changes nothing.")]
pub(in crate::cli) struct PublishFlags {
    /// Names of meters [default: all of the folder]
    #[arg(value_name = "METER")]
    pub(in crate::cli) meters: Vec<String>,
    /// Since when it holds: a date in the meter's zone, or RFC 3339; it replaces what was to hold
    /// from then on [default: for all of history]
    #[arg(long, value_name = "TIME", value_parser = bound)]
    pub(in crate::cli) from: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub(in crate::cli) reason: Option<String>,
}

/// Flags of `meters history`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct HistoryFlags {
    /// Only of this meter
    #[arg(value_name = "METER")]
    pub(in crate::cli) meter: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) output: OutputFlag,
}

/// Flags of `meters diff`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  meterhouse meters diff bandwidth --period 2026-10
  meterhouse meters diff bandwidth 2e1a 77c0 --by domain --all -o csv
  meterhouse meters diff bandwidth proposal/bandwidth.yaml --total

A definition is a published version (4 digits of it are enough), `published` for the published one
that is in effect throughout the range, or now where none is given, `file` for the file in the folder of
meters, or the path of a file. A group without usage counts as 0 in a difference.")]
pub(in crate::cli) struct DiffFlags {
    /// The meter
    #[arg(value_name = "METER")]
    pub(in crate::cli) meter: String,
    /// The old definition [default: the published one in effect]
    #[arg(value_name = "OLD")]
    pub(in crate::cli) old: Option<String>,
    /// The new one [default: the file in the folder of meters]
    #[arg(value_name = "NEW")]
    pub(in crate::cli) new: Option<String>,
    /// 2026, 2026-10, 2026-10-15, 2026-10-01..2026-10-15, today, last-month, 7d, …
    #[arg(long, value_name = "PERIOD", value_parser = period, conflicts_with_all = ["from", "to"])]
    pub(in crate::cli) period: Option<String>,
    /// First instant: a date or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = bound)]
    pub(in crate::cli) from: Option<String>,
    /// End, exclusive: a date or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = bound)]
    pub(in crate::cli) to: Option<String>,
    /// Group by exactly these properties, fields and lookups [default: customer_id]
    #[arg(long, value_name = "NAME[,NAME]", value_delimiter = ',', conflicts_with = "total")]
    pub(in crate::cli) by: Vec<String>,
    /// One row, no groups
    #[arg(long)]
    pub(in crate::cli) total: bool,
    /// Only this customer
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) customer: Option<String>,
    /// Only events of these conditions, written as SQL but read as a meter's filter
    #[arg(long = "where", value_name = "CONDITIONS")]
    pub(in crate::cli) conditions: Option<String>,
    /// The zone of periods [default: each definition's own, else UTC]
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    pub(in crate::cli) tz: Option<String>,
    /// Also the rows that do not differ
    #[arg(long)]
    pub(in crate::cli) all: bool,
    #[command(flatten)]
    pub(in crate::cli) at: AtFlag,
    #[command(flatten)]
    pub(in crate::cli) output: OutputFlag,
}

/// What to do with lookup tables that the lake keeps.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum LookupsCommand {
    /// Make a file the newest version of a table, which meters read as `table: NAME`
    Put {
        /// The table's name
        name: String,
        /// CSV with a header, or Parquet
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Why it changes, for the log
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: Option<String>,
    },
    /// List the tables
    List {
        #[command(flatten)]
        at: AtFlag,
        #[command(flatten)]
        output: OutputFlag,
    },
    /// Print a table as CSV
    Show {
        /// The table's name
        name: String,
        #[command(flatten)]
        at: AtFlag,
    },
}
