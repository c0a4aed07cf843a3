//! Flags of `explain` and `events show`.

use clap::Args;

use super::values::{AtFlag, OutputFlag, bound, period, zone};

/// Flags of `explain`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  meterhouse explain bandwidth --customer acme --period 2026-10
  meterhouse explain bandwidth --customer acme --period 2026-10 --group region=eu-west --group host
  meterhouse explain bandwidth --customer acme --period 2026-10 --events -o csv

An event is dropped by the first condition of the meter's filter that it does not meet, in the order
of the file; `alone` counts those that meet all others.")]
pub(in crate::cli) struct ExplainFlags {
    /// The meter; with `@` and a version, or `@published`, what was published
    #[arg(value_name = "METER")]
    pub(in crate::cli) meter: String,
    /// Only this customer
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) customer: Option<String>,
    /// 2026, 2026-10, 2026-10-15, 2026-10-01..2026-10-15, today, last-month, 7d, …
    #[arg(long, value_name = "PERIOD", value_parser = period, conflicts_with_all = ["from", "to"])]
    pub(in crate::cli) period: Option<String>,
    /// First instant: a date or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = bound)]
    pub(in crate::cli) from: Option<String>,
    /// End, exclusive: a date or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = bound)]
    pub(in crate::cli) to: Option<String>,
    /// Only events of these conditions, written as SQL but read as a meter's filter
    #[arg(long = "where", value_name = "CONDITIONS")]
    pub(in crate::cli) conditions: Option<String>,
    /// Only this group of a property, field or lookup; without `=` the group of what has none
    #[arg(long, visible_alias = "by", value_name = "NAME[=TEXT]")]
    pub(in crate::cli) group: Vec<String>,
    /// The zone of periods [default: the meter's own, else UTC]
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    pub(in crate::cli) tz: Option<String>,
    /// List the events behind the number instead, each with what it counted as
    #[arg(long)]
    pub(in crate::cli) events: bool,
    #[command(flatten)]
    pub(in crate::cli) at: AtFlag,
    #[command(flatten)]
    pub(in crate::cli) output: OutputFlag,
}

/// Flags of `events show`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  meterhouse events show req-4711
  meterhouse events show req-4711 --source edge-3 -o json")]
pub(in crate::cli) struct ShowFlags {
    /// The event's idempotency key
    #[arg(value_name = "KEY")]
    pub(in crate::cli) key: String,
    /// Only the event of this source; an empty text is none [default: of every source]
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) source: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) at: AtFlag,
    #[command(flatten)]
    pub(in crate::cli) output: OutputFlag,
}
