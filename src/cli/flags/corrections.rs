//! What may be written to correct events.

use clap::{ArgGroup, Args};

use super::values::{OutputFlag, bound, period, zone};
use crate::ingest::input::InputFormat;

/// Which events are meant.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which events", group = ArgGroup::new("matching").multiple(true))]
pub(in crate::cli) struct SelectionFlags {
    /// The event of this idempotency key; may stand several times
    #[arg(long, value_name = "KEY", conflicts_with_all = ["file", "matching"])]
    pub(in crate::cli) key: Vec<String>,
    /// The source of the keys, where the events have one
    #[arg(long, value_name = "NAME", conflicts_with = "matching")]
    pub(in crate::cli) source: Option<String>,
    /// The events that a file names in `idempotency_key` and, if it is there, `source`: CSV, NDJSON,
    /// Parquet, Arrow; `-` is standard input
    #[arg(long, value_name = "PATH", conflicts_with = "matching")]
    pub(in crate::cli) file: Option<String>,
    /// Read the file as this [default: by its name]
    #[arg(long, value_name = "FORMAT", requires = "file")]
    pub(in crate::cli) format: Option<InputFormat>,
    /// Events of these conditions, written as `usage --where` takes them
    #[arg(long = "where", value_name = "CONDITIONS", group = "matching")]
    pub(in crate::cli) conditions: Option<String>,
    /// Events of this name; may stand several times
    #[arg(long = "event", value_name = "NAME", group = "matching")]
    pub(in crate::cli) events: Vec<String>,
    /// Events of this customer
    #[arg(long, value_name = "ID", group = "matching")]
    pub(in crate::cli) customer: Option<String>,
    /// Events of 2026-10, 2026-10-15, last-month, …
    #[arg(long, value_name = "PERIOD", value_parser = period, group = "matching",
          conflicts_with_all = ["from", "to"])]
    pub(in crate::cli) period: Option<String>,
    /// Events from then on: a date or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = bound, group = "matching")]
    pub(in crate::cli) from: Option<String>,
    /// Events until then, exclusive: a date or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = bound, group = "matching")]
    pub(in crate::cli) to: Option<String>,
    /// The zone of periods and dates [default: UTC]
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    pub(in crate::cli) tz: Option<String>,
    /// Every event there is
    #[arg(long, group = "matching")]
    pub(in crate::cli) all: bool,
}

/// Why, and how it is told.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct CorrectionFlags {
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) reason: String,
    /// Show which events would change, by day, customer and name, and change nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    #[command(flatten)]
    pub(in crate::cli) output: OutputFlag,
}

/// Flags of `events void`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  meterhouse events void --key req-81 --reason 'sent by a test'
  meterhouse events void --where \"region = 'lab'\" --period 2026-10 --reason 'lab traffic' --dry-run
  meterhouse events void --file wrong.csv --reason 'ticket 4711'

Conditions on several flags must all hold. A voided event stays, and versions before still count it;
`events revert` undoes it.")]
pub(in crate::cli) struct VoidFlags {
    #[command(flatten)]
    pub(in crate::cli) correction: CorrectionFlags,
    #[command(flatten)]
    pub(in crate::cli) selection: SelectionFlags,
}

/// Flags of `events amend`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  meterhouse events amend --key req-81 --set bytes=203023 --unset note --reason 'ticket 4711'
  meterhouse events amend --customer acme --period 2026-10 --set customer_id=acme-eu --reason 'moved'
  meterhouse events amend --file values.csv --reason 'recounted'

A value is a number, true, false, a \"text\" or an array where it is written as in JSON, else a text. With
--file, every other column is a new value: a null of JSON takes it away, an empty cell of CSV leaves it.")]
pub(in crate::cli) struct AmendFlags {
    /// Give a property, event_name, customer_id, resource_id or timestamp another value; may stand
    /// several times
    #[arg(long, value_name = "NAME=VALUE")]
    pub(in crate::cli) set: Vec<String>,
    /// Take a property, customer_id or resource_id away; may stand several times
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) unset: Vec<String>,
    /// When it happened: RFC 3339
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) timestamp: Option<String>,
    /// Accept events that name no customer any more
    #[arg(long)]
    pub(in crate::cli) allow_missing_customer: bool,
    #[command(flatten)]
    pub(in crate::cli) correction: CorrectionFlags,
    #[command(flatten)]
    pub(in crate::cli) selection: SelectionFlags,
}

/// Flags of `events replace`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Every event of the files takes the place of the one with the same source and \
idempotency key,
which must be there. One without a timestamp happens when the other was received."
)]
pub(in crate::cli) struct ReplaceFlags {
    /// Files of whole events, as ingest reads them; `-` is standard input
    #[arg(required = true, value_name = "PATH")]
    pub(in crate::cli) paths: Vec<String>,
    /// Read the files as this [default: by their names]
    #[arg(long, value_name = "FORMAT")]
    pub(in crate::cli) format: Option<InputFormat>,
    /// Accept events that name no customer
    #[arg(long)]
    pub(in crate::cli) allow_missing_customer: bool,
    #[command(flatten)]
    pub(in crate::cli) correction: CorrectionFlags,
}

/// Flags of `events revert`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct RevertFlags {
    /// The correction, as `events corrections` lists it
    #[arg(value_name = "ID")]
    pub(in crate::cli) id: String,
    #[command(flatten)]
    pub(in crate::cli) correction: CorrectionFlags,
}
