//! What may be written about single events.

use clap::Subcommand;

use super::corrections::{AmendFlags, ReplaceFlags, RevertFlags, VoidFlags};
use super::explain::ShowFlags;
use super::values::{AtFlag, OutputFlag, reason};

/// What to do with single events.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum EventsCommand {
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
pub(in crate::cli) enum UpsertCommand {
    /// From now on, an event of these names takes the place of the one with its identity
    Declare {
        /// Names of events, exactly as they are sent
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Why, for whoever asks later
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: Option<String>,
        /// These names alone, where the lake has lost what was declared before
        #[arg(long)]
        anew: bool,
    },
    /// From now on, an event of these names that differs from the one with its identity is a conflict
    /// again
    Withdraw {
        /// Names of events
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Why, for whoever asks later
        #[arg(long, value_name = "TEXT", value_parser = reason)]
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
