//! What may be written to export usage and closed periods.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::questions::QuestionFlags;
use super::values::AtFlag;
use crate::export::Format;

/// What to export.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ExportCommand {
    /// Write usage to a file, or a file for each meter to a folder or bucket
    Usage(Box<ExportUsageFlags>),
    /// Write the lines of closed periods to a file, or a file for each to a folder or bucket
    Statements(ExportStatementsFlags),
}

/// Flags of `export usage`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  meterhouse export usage bandwidth --period 2026-10 --breakdown --out bandwidth.xlsx
  meterhouse export usage bandwidth requests --period last-month --out s3://reports/usage/
  meterhouse export usage bandwidth --period 2026-10 --out for-excel.csv --format csv-spreadsheet

A file appears whole or not at all; beside it lies _NAME.json, which says what was asked, of which
versions it was computed, and its SHA-256. The same command again writes what is missing, and
what would be another file by now.")]
pub(in crate::cli) struct ExportUsageFlags {
    #[command(flatten)]
    pub(in crate::cli) question: QuestionFlags,
    #[command(flatten)]
    pub(in crate::cli) at: AtFlag,
    #[command(flatten)]
    pub(in crate::cli) file: FileFlags,
}

/// Flags of `export statements`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  meterhouse export statements --period 2026-10 --out october.xlsx
  meterhouse export statements --out s3://reports/statements/
  meterhouse export statements bandwidth --period 2026-10 --out stripe.csv --format stripe

To a folder or bucket, only what was closed since the last time is written.")]
pub(in crate::cli) struct ExportStatementsFlags {
    /// Names of meters [default: all]
    #[arg(value_name = "METER")]
    pub(in crate::cli) meters: Vec<String>,
    /// The period, as `periods list` calls it or as `usage --period` takes it [default: all]
    #[arg(long, value_name = "PERIOD")]
    pub(in crate::cli) period: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) file: FileFlags,
}

/// Where an export goes, and how it is written.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct FileFlags {
    /// A file that ends in .csv, .ndjson, .parquet or .xlsx, else a folder, which gets files
    /// meter=NAME/period=PERIOD/…; on the disk, or s3://, gs://, az://
    #[arg(long, value_name = "FILE|FOLDER")]
    pub(in crate::cli) out: String,
    /// How it is written [default: by the end of the file's name; parquet in a folder]
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(in crate::cli) format: Option<Format>,
    /// Take the place of an export of something else
    #[arg(long)]
    pub(in crate::cli) replace: bool,
    /// Stripe: what it calls the meter [default: its name]
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) event_name: Option<String>,
    /// Stripe: CSV of customer_id and stripe_customer_id [default: customers are called the same]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) stripe_customers: Option<PathBuf>,
    /// Stripe: leave out what was used by no customer
    #[arg(long)]
    pub(in crate::cli) leave_unattributed: bool,
}
