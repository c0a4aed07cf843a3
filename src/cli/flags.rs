//! What may be written on the command line, and what it is called there.
//!
//! Texts here are what `--help` prints. What has a form of its own (a zone, a window, a size) is
//! checked while arguments are read, so that a mistake in it is one of usage.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod corrections;
mod explain;

pub(super) use corrections::{
    AmendFlags, CorrectionFlags, ReplaceFlags, RevertFlags, SelectionFlags, VoidFlags,
};
pub(super) use explain::{ExplainFlags, ShowFlags};

use super::render::OutputFormat;
use super::size::parse_memory;
use crate::clock::Clock;
use crate::ingest::input::InputFormat;
use crate::lake::vacuum::RETENTION_MIN;
use crate::time::{
    Anchor, BillingPeriod, Cycle, Timestamp, Windowing, parse_bound, parse_period, parse_zone,
};
use crate::usage::Fill;

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
    /// Memory to work with, such as 512MiB or 2GB [default: 512MiB to ingest, 2GiB to query]
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

/// Flags of `vacuum`.
#[derive(Debug, Clone, Args)]
pub(super) struct VacuumFlags {
    /// Keep every version that was the newest at some time within this: 30d, 12h
    #[arg(long, value_name = "TIME", value_parser = retention, default_value = "30d")]
    pub(super) retention: Duration,
    /// Shorten the log, too: forget versions that were superseded longer ago than this [default:
    /// keep all]
    #[arg(long, value_name = "TIME", value_parser = retention)]
    pub(super) log: Option<Duration>,
    /// Only list the files
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// Flags of `doctor`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "A small object is put where the lake is or would be, and taken away again.
Exit code 4 where something is bad.")]
pub(super) struct DoctorFlags {
    #[command(flatten)]
    pub(super) output: OutputFlag,
}

/// What to do with the local index.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum IndexCommand {
    /// Build it from the events, whatever is there
    Rebuild,
}

/// Flags of `pin`.
#[derive(Debug, Clone, Args)]
pub(super) struct PinFlags {
    /// The version [default: the newest]
    #[arg(value_name = "VERSION")]
    pub(super) version: Option<u64>,
    /// What it is kept for
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
}

/// Flags of `unpin`.
#[derive(Debug, Clone, Args)]
pub(super) struct UnpinFlags {
    /// The version
    #[arg(value_name = "VERSION")]
    pub(super) version: u64,
}

/// Flags of `log`.
#[derive(Debug, Clone, Args)]
pub(super) struct LogFlags {
    #[command(flatten)]
    pub(super) output: OutputFlag,
    /// Only the newest N
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<usize>,
}

/// Flags of `stats`.
#[derive(Debug, Clone, Args)]
pub(super) struct StatsFlags {
    /// A row for each of what
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub(super) by: StatsBy,
    #[command(flatten)]
    pub(super) at: AtFlag,
    #[command(flatten)]
    pub(super) output: OutputFlag,
}

/// What `stats` has a row for each of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum StatsBy {
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
pub(super) struct CompactFlags {
    /// Go on for ever, looking again every N seconds
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "60",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) watch: Option<u32>,
}

/// Flags of `ingest`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  meterhouse ingest events.ndjson.gz
  meterhouse ingest invoices.csv --event-name invoice_line --key content --timezone Europe/London \\
      --map customer_id=CustomerID --map timestamp=InvoiceDate

A run that was stopped is run again: what is there already is counted as duplicate.")]
pub(super) struct IngestFlags {
    /// Files, folders and globs, also as s3://, gs:// or az://; `-` is standard input; .gz and .zst
    /// are unpacked
    #[arg(required = true, value_name = "PATH")]
    pub(super) paths: Vec<String>,
    /// Read all inputs as json, ndjson, csv, parquet, arrow, access-log, or as the events of stigg,
    /// alguna, metronome, cloudevents, openmeter, orb, lago or flexprice [default: by their names]
    #[arg(long, value_name = "FORMAT")]
    pub(super) format: Option<InputFormat>,
    /// Accept events that name no customer
    #[arg(long)]
    pub(super) allow_missing_customer: bool,
    /// Reject events that are more than N hours ahead of the clock [default: 24]
    #[arg(long, value_name = "N")]
    pub(super) future_hours: Option<u32>,
    /// Commit after so many new events [default: 10000000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) commit_events: Option<u64>,
    /// Check and count, but write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Go on for ever with files that are new or have changed, each read once
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) follow: bool,
    /// Seconds between two looks of --follow
    #[arg(long, value_name = "SECONDS", default_value_t = 5, requires = "follow",
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(super) every: u32,
    // Last, as its heading holds for all that follows.
    #[command(flatten)]
    pub(super) mapping: MappingFlags,
}

/// Flags that say how foreign records become events.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Mapping of records that are not in our own shape")]
pub(super) struct MappingFlags {
    /// A mapping file (YAML); the flags below come after it
    #[arg(long, value_name = "FILE")]
    pub(super) mapping: Option<PathBuf>,
    /// Take a field of events from a column, such as customer_id=CustomerID
    #[arg(long, value_name = "FIELD=COLUMN")]
    pub(super) map: Vec<String>,
    /// The event name of every record
    #[arg(long, value_name = "NAME")]
    pub(super) event_name: Option<String>,
    /// The source of every record: equal keys of two sources are two events
    #[arg(long, value_name = "NAME")]
    pub(super) source: Option<String>,
    /// The columns that identify a record, or `content`: the whole of it
    #[arg(long, value_name = "FIELD[,FIELD]|content")]
    pub(super) key: Option<String>,
    /// The zone of times that have no offset
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    pub(super) timezone: Option<String>,
    /// A strptime pattern such as '%d/%m/%Y %H:%M', or epoch:s, epoch:ms, epoch:us, epoch:ns
    #[arg(long, value_name = "FORMAT")]
    pub(super) timestamp_format: Option<String>,
}

/// Flags of `usage`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  meterhouse usage bandwidth --period 2015-05 --top 10
  meterhouse usage bandwidth requests --by top --window day --tz Europe/Berlin -o csv
  meterhouse usage requests --total --where \"status in (200, 206) and path not like '%.png'\"

Without a period all of history counts. A group that a property gives is null where the property
is absent.")]
pub(super) struct UsageFlags {
    /// Names of meters (`meterhouse meters list` shows them); with `@` and a version, or `@published`,
    /// what was published
    #[arg(value_name = "METER")]
    pub(super) meters: Vec<String>,
    /// 2026, 2026-10, 2026-10-15, 2026-10-01..2026-10-15, today, last-month, last-billing-period,
    /// 7d, …
    #[arg(long, value_name = "PERIOD", value_parser = period, conflicts_with_all = ["from", "to"])]
    pub(super) period: Option<String>,
    /// First instant: a date or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = bound)]
    pub(super) from: Option<String>,
    /// End, exclusive: a date or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = bound)]
    pub(super) to: Option<String>,
    /// Group by exactly these properties, fields and lookups [default: customer_id]
    #[arg(long, value_name = "NAME[,NAME]", value_delimiter = ',',
          conflicts_with_all = ["breakdown", "total"])]
    pub(super) by: Vec<String>,
    /// Group by customer and the meter's own dimensions
    #[arg(long, conflicts_with = "total")]
    pub(super) breakdown: bool,
    /// One row, no groups
    #[arg(long)]
    pub(super) total: bool,
    /// A row per minute, 15m, hour, day, week, month, quarter, year, billing_period or the like
    #[arg(long, value_name = "WINDOW", value_parser = window)]
    pub(super) window: Option<String>,
    /// Where billing periods begin: a date, or a date and time [default: the meter's `billing`]
    #[arg(long, value_name = "DATE", value_parser = anchor)]
    pub(super) anchor: Option<String>,
    /// How long billing periods from the anchor are: monthly, quarterly, annual, weekly, 30d
    /// [default: monthly]
    #[arg(long, value_name = "CYCLE", value_parser = cycle, requires = "anchor")]
    pub(super) cycle: Option<String>,
    /// Fill windows in which a group has no value: zero, null or previous [default: no row]
    #[arg(long, value_name = "VALUE", value_parser = fill, requires = "window",
          conflicts_with = "top")]
    pub(super) fill: Option<String>,
    /// Only this customer
    #[arg(long, value_name = "ID")]
    pub(super) customer: Option<String>,
    /// Only events of these conditions, written as SQL but read as a meter's filter
    #[arg(long = "where", value_name = "CONDITIONS")]
    pub(super) conditions: Option<String>,
    /// The zone of periods and windows [default: the meter's own, else UTC]
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    pub(super) tz: Option<String>,
    /// Only the N largest values
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) top: Option<u32>,
    /// Print the plan and what it leaves unread, instead of the answer
    #[arg(long)]
    pub(super) explain: bool,
    #[command(flatten)]
    pub(super) at: AtFlag,
    #[command(flatten)]
    pub(super) output: OutputFlag,
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
pub(super) struct SqlFlags {
    /// The query; `-` reads it from standard input
    #[arg(value_name = "TEXT", conflicts_with = "file")]
    pub(super) text: Option<String>,
    /// Read the query from a file
    #[arg(long, short, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) at: AtFlag,
    #[command(flatten)]
    pub(super) output: OutputFlag,
}

/// What to do with meters.
#[derive(Debug, Subcommand)]
pub(super) enum MetersCommand {
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
    /// Report every mistake in meter files, in the lookups they name and in their tests
    Check {
        /// Meter files and folders of them [default: the folder of meters]
        #[arg(value_name = "FILE|FOLDER")]
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

/// What to do with lookup tables that the lake keeps.
#[derive(Debug, Subcommand)]
pub(super) enum LookupsCommand {
    /// Make a file the newest version of a table, which meters read as `table: NAME`
    Put {
        /// The table's name
        name: String,
        /// CSV with a header, or Parquet
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Why it changes, for the log
        #[arg(long, value_name = "TEXT")]
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
pub(super) struct TestFlags {
    /// Names of meters [default: all that have tests]
    #[arg(value_name = "METER")]
    pub(super) meters: Vec<String>,
}

/// Flags of `meters publish`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  meterhouse meters publish bandwidth --reason 'contract of 2026'
  meterhouse meters publish bandwidth --from 2027-01-01
  meterhouse usage bandwidth@published --period 2026-12

A definition is published with its tables. Publishing what is in effect already changes nothing.")]
pub(super) struct PublishFlags {
    /// Names of meters [default: all of the folder]
    #[arg(value_name = "METER")]
    pub(super) meters: Vec<String>,
    /// Since when it holds: a date in the meter's zone, or RFC 3339; it replaces what was to hold
    /// from then on [default: for all of history]
    #[arg(long, value_name = "TIME", value_parser = bound)]
    pub(super) from: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
}

/// Flags of `meters history`.
#[derive(Debug, Clone, Args)]
pub(super) struct HistoryFlags {
    /// Only of this meter
    #[arg(value_name = "METER")]
    pub(super) meter: Option<String>,
    #[command(flatten)]
    pub(super) output: OutputFlag,
}

/// Flags of `meters diff`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  meterhouse meters diff bandwidth --period 2026-10
  meterhouse meters diff bandwidth 2e1a 77c0 --by domain --all -o csv
  meterhouse meters diff bandwidth proposal/bandwidth.yaml --total

A definition is a published version (4 digits of it are enough), `published` for the one published
last, `file` for the file in the folder of meters, or the path of a file. A group without usage counts
as 0 in a difference.")]
pub(super) struct DiffFlags {
    /// The meter
    #[arg(value_name = "METER")]
    pub(super) meter: String,
    /// The old definition [default: the one published last]
    #[arg(value_name = "OLD")]
    pub(super) old: Option<String>,
    /// The new one [default: the file in the folder of meters]
    #[arg(value_name = "NEW")]
    pub(super) new: Option<String>,
    /// 2026, 2026-10, 2026-10-15, 2026-10-01..2026-10-15, today, last-month, 7d, …
    #[arg(long, value_name = "PERIOD", value_parser = period, conflicts_with_all = ["from", "to"])]
    pub(super) period: Option<String>,
    /// First instant: a date or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = bound)]
    pub(super) from: Option<String>,
    /// End, exclusive: a date or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = bound)]
    pub(super) to: Option<String>,
    /// Group by exactly these properties, fields and lookups [default: customer_id]
    #[arg(long, value_name = "NAME[,NAME]", value_delimiter = ',', conflicts_with = "total")]
    pub(super) by: Vec<String>,
    /// One row, no groups
    #[arg(long)]
    pub(super) total: bool,
    /// Only this customer
    #[arg(long, value_name = "ID")]
    pub(super) customer: Option<String>,
    /// Only events of these conditions, written as SQL but read as a meter's filter
    #[arg(long = "where", value_name = "CONDITIONS")]
    pub(super) conditions: Option<String>,
    /// The zone of periods [default: each definition's own, else UTC]
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    pub(super) tz: Option<String>,
    /// Also the rows that do not differ
    #[arg(long)]
    pub(super) all: bool,
    #[command(flatten)]
    pub(super) at: AtFlag,
    #[command(flatten)]
    pub(super) output: OutputFlag,
}

/// Flags of `properties`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  meterhouse properties
  meterhouse properties --event http_request --period last-month
  meterhouse properties --by event_name -o csv

`distinct_estimate` is an estimate, some percent off; everything else is counted.")]
pub(super) struct PropertiesFlags {
    /// Only events of this name
    #[arg(long, value_name = "NAME")]
    pub(super) event: Option<String>,
    /// A row for each of what
    #[arg(long, value_name = "WHAT", value_enum, conflicts_with = "event")]
    pub(super) by: Option<PropertiesBy>,
    /// 2026, 2026-10, 2026-10-15, 2026-10-01..2026-10-15, today, last-month, 7d, … (UTC)
    #[arg(long, value_name = "PERIOD", value_parser = period, conflicts_with_all = ["from", "to"])]
    pub(super) period: Option<String>,
    /// First instant: a date or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = bound)]
    pub(super) from: Option<String>,
    /// End, exclusive: a date or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = bound)]
    pub(super) to: Option<String>,
    #[command(flatten)]
    pub(super) at: AtFlag,
    #[command(flatten)]
    pub(super) output: OutputFlag,
}

/// What `properties` has a row for each of, beside the property.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PropertiesBy {
    /// Names of events
    #[value(name = "event_name", alias = "event-name")]
    EventName,
}

/// What to do with single events.
#[derive(Debug, Subcommand)]
pub(super) enum EventsCommand {
    /// Take events back: they count no more
    Void(Box<VoidFlags>),
    /// Give events other values
    Amend(Box<AmendFlags>),
    /// Put whole events in the places of those with the same identity
    Replace(ReplaceFlags),
    /// Undo a correction
    Revert(RevertFlags),
    /// List the corrections: what, when, by whom and why
    Corrections {
        #[command(flatten)]
        output: OutputFlag,
    },
    /// Declare names of events of which the newest of an identity wins (upsert)
    #[command(subcommand)]
    Upsert(UpsertCommand),
    /// List the names of events: how many there are, since when, and which meters count them
    Names {
        /// Only the names that no meter counts
        #[arg(long)]
        unmetered: bool,
        #[command(flatten)]
        at: AtFlag,
        #[command(flatten)]
        output: OutputFlag,
    },
    /// Show what became of one event, and what each meter makes of it
    Show(ShowFlags),
    /// List rejected and conflicting events: why, where from, and their text
    Rejected {
        #[command(flatten)]
        output: OutputFlag,
        /// Only the first N
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
}

/// What `events upsert` can be asked for.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum UpsertCommand {
    /// From now on, an event of these names takes the place of the one with its identity
    Declare {
        /// Names of events, exactly as they are sent
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Why, for whoever asks later
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// From now on, an event of these names that differs from the one with its identity is a conflict
    /// again
    Withdraw {
        /// Names of events
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Why, for whoever asks later
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// List the declared names: since when, by whom and why
    List {
        #[command(flatten)]
        at: AtFlag,
        #[command(flatten)]
        output: OutputFlag,
    },
}

/// Which version of the events is asked.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct AtFlag {
    /// Answer as of this version of the events table, or of this time: a date (its first instant,
    /// UTC) or RFC 3339 [default: the newest]
    #[arg(long, value_name = "VERSION|TIME", value_parser = at)]
    pub(super) at: Option<At>,
}

/// A version, or the instant at which it was the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Version(u64),
    Time(Timestamp),
}

fn at(text: &str) -> Result<At, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(At::Version).map_err(|error| error.to_string());
    }
    let time = parse_bound(text, &jiff::tz::TimeZone::UTC);
    time.map(At::Time).map_err(|error| format!("neither a version nor a time: {error}"))
}

/// How rows are written.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct OutputFlag {
    /// How rows are written to standard output
    #[arg(long = "output", short, value_name = "FORMAT", value_enum, default_value_t)]
    pub(super) output: OutputFormat,
}

/// A time in days or hours.
fn retention(text: &str) -> Result<Duration, String> {
    let seconds = |text: &str, unit: u64| text.parse::<u64>().ok()?.checked_mul(unit);
    let found = match text.split_at_checked(text.len().saturating_sub(1)) {
        Some((number, "d")) => seconds(number, 86_400),
        Some((number, "h")) => seconds(number, 3_600),
        _ => None,
    };
    let found =
        found.map(Duration::from_secs).ok_or("write a number of days or hours: 30d, 12h")?;
    match found < RETENTION_MIN {
        true => Err("less than 1h could take away what is being read".to_owned()),
        false => Ok(found),
    }
}

/// Keeps the text once it has proved readable; it is resolved where zone and clock are known.
fn checked<T, E: ToString>(text: &str, read: Result<T, E>) -> Result<String, String> {
    read.map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn zone(text: &str) -> Result<String, String> {
    checked(text, parse_zone(text))
}

fn window(text: &str) -> Result<String, String> {
    checked(text, text.parse::<Windowing>())
}

fn anchor(text: &str) -> Result<String, String> {
    checked(text, text.parse::<Anchor>())
}

fn cycle(text: &str) -> Result<String, String> {
    checked(text, text.parse::<Cycle>())
}

fn fill(text: &str) -> Result<String, String> {
    checked(text, text.parse::<Fill>())
}

fn period(text: &str) -> Result<String, String> {
    // What they are depends on the meter.
    if BillingPeriod::named(text).is_some() {
        return Ok(text.to_owned());
    }
    checked(text, parse_period(text, &jiff::tz::TimeZone::UTC, Clock::System.now()))
}

fn bound(text: &str) -> Result<String, String> {
    checked(text, parse_bound(text, &jiff::tz::TimeZone::UTC))
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
