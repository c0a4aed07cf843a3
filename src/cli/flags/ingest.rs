//! What may be written to bring events in.

use std::path::PathBuf;

use clap::Args;

use super::values::zone;
use crate::ingest::input::InputFormat;

/// Flags of `ingest`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  meterhouse ingest events.ndjson.gz
  meterhouse ingest invoices.csv --event-name invoice_line --key content --timezone Europe/London \\
      --map customer_id=CustomerID --map timestamp=InvoiceDate

A run that was stopped is run again: what is there already is counted as duplicate.")]
pub(in crate::cli) struct IngestFlags {
    /// Files, folders and globs, also as s3://, gs:// or az://; `-` is standard input; .gz and .zst
    /// are unpacked
    #[arg(required = true, value_name = "PATH")]
    pub(in crate::cli) paths: Vec<String>,
    /// Read all inputs as json, ndjson, csv, parquet, arrow, access-log, or as the events of stigg,
    /// alguna, metronome, cloudevents, openmeter, orb, lago or flexprice [default: by their names]
    #[arg(long, value_name = "FORMAT")]
    pub(in crate::cli) format: Option<InputFormat>,
    /// Accept events that name no customer
    #[arg(long)]
    pub(in crate::cli) allow_missing_customer: bool,
    /// Reject events that are more than N hours ahead of the clock [default: 24]
    #[arg(long, value_name = "N")]
    pub(in crate::cli) future_hours: Option<u32>,
    /// Commit after so many new events [default: 10000000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) commit_events: Option<u64>,
    /// Check and count, but write nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Go on for ever with files that are new or have changed, each read once
    #[arg(long, conflicts_with = "dry_run")]
    pub(in crate::cli) follow: bool,
    /// Seconds between two looks of --follow
    #[arg(long, value_name = "SECONDS", default_value_t = 5, requires = "follow",
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(in crate::cli) every: u32,
    // Last, as its heading holds for all that follows.
    #[command(flatten)]
    pub(in crate::cli) mapping: MappingFlags,
}

/// Flags that say how foreign records become events.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Mapping of records that are not in our own shape")]
pub(in crate::cli) struct MappingFlags {
    /// A mapping file (YAML); the flags below come after it
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) mapping: Option<PathBuf>,
    /// Take a field of events from a column, such as customer_id=CustomerID
    #[arg(long, value_name = "FIELD=COLUMN")]
    pub(in crate::cli) map: Vec<String>,
    /// The event name of every record
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) event_name: Option<String>,
    /// The source of every record: equal keys of two sources are two events
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) source: Option<String>,
    /// The columns that identify a record, or `content`: the whole of it
    #[arg(long, value_name = "FIELD[,FIELD]|content")]
    pub(in crate::cli) key: Option<String>,
    /// The zone of times that have no offset
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    pub(in crate::cli) timezone: Option<String>,
    /// A strptime pattern such as '%d/%m/%Y %H:%M', or epoch:s, epoch:ms, epoch:us, epoch:ns
    #[arg(long, value_name = "FORMAT")]
    pub(in crate::cli) timestamp_format: Option<String>,
}
