//! What may be written to ask the events something.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values::{AtFlag, OutputFlag, anchor, bound, cycle, fill, period, rows, window, zone};

/// Flags of `usage`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  meterhouse usage bandwidth --period 2015-05 --top 10
  meterhouse usage bandwidth requests --by top --window day --tz Europe/Berlin -o csv
  meterhouse usage requests --total --where \"status in (200, 206) and path not like '%.png'\"

Without a period all of history counts. A group that a property gives is null where the property
is absent.")]
pub(in crate::cli) struct UsageFlags {
    #[command(flatten)]
    pub(in crate::cli) question: QuestionFlags,
    /// Print the plan and what it leaves unread, instead of the answer
    #[arg(long)]
    pub(in crate::cli) explain: bool,
    #[command(flatten)]
    pub(in crate::cli) at: AtFlag,
    /// How rows are written to standard output, or what is drawn of them
    #[arg(long, short, value_name = "FORMAT", value_enum, default_value_t)]
    pub(in crate::cli) output: UsageFormat,
    /// Draw bars, or lines over time, in the terminal
    #[arg(long, conflicts_with_all = ["output", "explain"])]
    pub(in crate::cli) chart: bool,
}

/// How the answer to a question about usage is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(in crate::cli) enum UsageFormat {
    /// Aligned columns for people.
    #[default]
    Table,
    /// RFC 4180 with a header; null is an empty field, an empty text is `""`.
    Csv,
    /// One array of objects.
    Json,
    /// One object per line.
    Ndjson,
    /// One Parquet file, zstd.
    Parquet,
    /// A picture: lines over the windows, or a bar for each group.
    Svg,
    /// A page with pictures over time and of the largest groups, complete in itself.
    Html,
}

/// A question about usage.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct QuestionFlags {
    /// Names of meters (`meterhouse meters list` shows them); with `@` and a version, or `@published`,
    /// what was published
    #[arg(value_name = "METER")]
    pub(in crate::cli) meters: Vec<String>,
    /// 2026, 2026-10, 2026-10-15, 2026-10-01..2026-10-15, today, last-month, last-billing-period,
    /// billing:2026-10, 7d, …
    #[arg(long, value_name = "PERIOD", value_parser = period, conflicts_with_all = ["from", "to"])]
    pub(in crate::cli) period: Option<String>,
    /// First instant: a date or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = bound)]
    pub(in crate::cli) from: Option<String>,
    /// End, exclusive: a date or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = bound)]
    pub(in crate::cli) to: Option<String>,
    /// Group by exactly these properties, fields and lookups [default: customer_id]
    #[arg(long, value_name = "NAME[,NAME]", value_delimiter = ',',
          conflicts_with_all = ["breakdown", "total"])]
    pub(in crate::cli) by: Vec<String>,
    /// Group by customer and the meter's own dimensions
    #[arg(long, conflicts_with = "total")]
    pub(in crate::cli) breakdown: bool,
    /// One row, no groups
    #[arg(long)]
    pub(in crate::cli) total: bool,
    /// A row per minute, 15m, hour, day, week, month, quarter, year, billing_period or the like
    #[arg(long, value_name = "WINDOW", value_parser = window)]
    pub(in crate::cli) window: Option<String>,
    /// Where billing periods begin: a date, or a date and time [default: the meter's `billing`]
    #[arg(long, value_name = "DATE", value_parser = anchor)]
    pub(in crate::cli) anchor: Option<String>,
    /// How long billing periods from the anchor are: monthly, quarterly, annual, weekly, 30d
    /// [default: monthly]
    #[arg(long, value_name = "CYCLE", value_parser = cycle, requires = "anchor")]
    pub(in crate::cli) cycle: Option<String>,
    /// Fill windows in which a group has no value: zero, null or previous [default: no row]
    #[arg(long, value_name = "VALUE", value_parser = fill, requires = "window",
          conflicts_with = "top")]
    pub(in crate::cli) fill: Option<String>,
    /// Only this customer
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) customer: Option<String>,
    /// Only events of these conditions, written as SQL but read as a meter's filter
    #[arg(long = "where", value_name = "CONDITIONS")]
    pub(in crate::cli) conditions: Option<String>,
    /// The zone of periods and windows [default: the meter's own, else UTC]
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    pub(in crate::cli) tz: Option<String>,
    /// Only the N largest values
    #[arg(long, value_name = "N", value_parser = rows, allow_negative_numbers = true)]
    pub(in crate::cli) top: Option<u32>,
    /// Read the events alone, though there may be rollups
    #[arg(long)]
    pub(in crate::cli) from_events: bool,
}

/// Flags of `sql`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  meterhouse sql \"SELECT customer_id, sum(bytes) FROM events GROUP BY customer_id\" -o csv
  meterhouse sql \"SELECT * FROM meter('bandwidth', period => '2015-05', by => 'top')\"
  meterhouse sql -f queries/top-directories.sql
  meterhouse sql < question.sql

The table is `events`, with each property under its own name; property('x') reads any property.
Put -- before a text that begins with a dash.")]
pub(in crate::cli) struct SqlFlags {
    /// The query; `-` reads it from standard input
    #[arg(value_name = "TEXT", conflicts_with = "file")]
    pub(in crate::cli) text: Option<String>,
    /// Read the query from a file
    #[arg(long, short, value_name = "FILE")]
    pub(in crate::cli) file: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) at: AtFlag,
    #[command(flatten)]
    pub(in crate::cli) output: OutputFlag,
}

/// Flags of `properties`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  meterhouse properties
  meterhouse properties --event http_request --period last-month
  meterhouse properties --by event_name -o csv

`distinct_estimate` is an estimate, some percent off; everything else is counted.")]
pub(in crate::cli) struct PropertiesFlags {
    /// Only events of this name
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) event: Option<String>,
    /// A row for each of what
    #[arg(long, value_name = "WHAT", value_enum, conflicts_with = "event")]
    pub(in crate::cli) by: Option<PropertiesBy>,
    /// 2026, 2026-10, 2026-10-15, 2026-10-01..2026-10-15, today, last-month, 7d, … (UTC)
    #[arg(long, value_name = "PERIOD", value_parser = period, conflicts_with_all = ["from", "to"])]
    pub(in crate::cli) period: Option<String>,
    /// First instant: a date or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = bound)]
    pub(in crate::cli) from: Option<String>,
    /// End, exclusive: a date or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = bound)]
    pub(in crate::cli) to: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) at: AtFlag,
    #[command(flatten)]
    pub(in crate::cli) output: OutputFlag,
}

/// What `properties` has a row for each of, beside the property.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum PropertiesBy {
    /// Names of events
    #[value(name = "event_name", alias = "event-name")]
    EventName,
}
