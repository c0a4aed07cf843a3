//! What may be written to keep rollups.

use clap::{Args, Subcommand};

use super::values::OutputFlag;

/// What to do with rollups.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum RollupsCommand {
    /// Bring the rollups of meters up to the newest events, making those that are missing
    Refresh(RefreshFlags),
    /// List the rollups of the meters
    List {
        #[command(flatten)]
        output: OutputFlag,
    },
}

/// Flags of `rollups refresh`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  meterhouse rollups refresh
  meterhouse rollups refresh bandwidth requests
  meterhouse rollups refresh --compact
  meterhouse rollups refresh --anew bandwidth

`usage` answers from a rollup, and from the events that came after its last refresh, wherever that
gives the same number; its note says so. What is read from rollups is what a meter groups by: its
customer and dimensions.")]
pub(in crate::cli) struct RefreshFlags {
    /// Merge each month that is over into one file, however little came since
    #[arg(long)]
    pub(in crate::cli) compact: bool,
    /// Make all states of the events again, as after damage to the files of a rollup
    #[arg(long)]
    pub(in crate::cli) anew: bool,
    /// Names of meters [default: all that can have a rollup]
    #[arg(value_name = "METER")]
    pub(in crate::cli) meters: Vec<String>,
}
