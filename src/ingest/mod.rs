//! Bytes in, committed events out: decode, validate, deduplicate, sort, write, commit.
//!
//! One batch is one commit. A batch is filled piece by piece; whenever memory is full its events
//! are sealed (deduplicated, sorted) and spilled, and the commit merges the spills by day. Stopped
//! at any moment, a run is simply started again: what was committed is found to be duplicate.

pub mod access_log;
pub mod accounts;
mod arrow_file;
mod batch;
pub mod check;
mod columns;
mod decode;
pub mod dialect;
mod fill;
pub mod follow;
#[cfg(test)]
mod fuzz_tests;
mod gather;
mod index;
pub mod input;
pub mod mapping;
mod objects;
mod parquet_file;
pub mod quarantine;
pub mod read;
mod rebase;
mod record;
pub mod restore;
mod rows;
mod run;
mod seal;
mod source;
mod spill;
mod split;
mod stored;
mod upsert;

pub use decode::Rejected;
pub use index::{Rebuilt, rebuild_index};
pub use run::{IngestSettings, Progress, Summary, ingest, new_columns};
pub use source::Recognised;

/// The key index's folder in the state of a lake.
fn keys_folder(state: &std::path::Path) -> std::path::PathBuf {
    state.join("keys")
}

/// What became of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Submitted.
    pub read: u64,
    /// New, and stored.
    pub accepted: u64,
    /// There already, with the same content.
    pub duplicate: u64,
    /// Their identity is taken by an event of other content.
    pub conflict: u64,
    /// Refused.
    pub rejected: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.read += more.read;
        self.accepted += more.accepted;
        self.duplicate += more.duplicate;
        self.conflict += more.conflict;
        self.rejected += more.rejected;
    }
}
