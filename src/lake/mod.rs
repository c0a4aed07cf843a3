//! The lake: Delta tables below `<root>/<namespace>/<table>/`, and the files they are made of.
//!
//! - [`location`]: where a lake lies; [`cloud`]: object stores of the clouds; [`store`]: a local disk whose puts survive a power cut;
//!   [`state`]: where the local state belonging to a lake lies.
//! - [`table`]: making and opening a table; [`snapshot`]: one version of it, with its files and
//!   their [`statistics`].
//! - [`checksums`]: what tells that a data file is as it was written; [`checked`]: reading it so.
//!   `sealed`: the same of log entries and notes.
//! - [`writer`]: making data files; [`staged`]: those not committed yet; [`commit`]: making them visible.

mod applications;
pub mod brought;
pub mod checked;
pub mod checksums;
pub mod cloud;
pub mod commit;
pub mod compact;
pub mod doctor;
pub mod footer;
pub mod history;
pub mod kernel;
pub mod layout;
pub mod location;
mod log;
pub mod log_cleanup;
pub mod lookups;
pub mod merge;
pub mod notes;
pub mod pins;
pub mod put;
pub mod reader;
pub mod rewrite;
mod sealed;
pub mod snapshot;
pub mod staged;
pub mod state;
pub mod statistics;
pub mod store;
pub mod table;
pub mod tables;
pub mod upserts;
pub mod vacuum;
pub mod verify;
pub mod writer;

#[cfg(test)]
mod tests;
