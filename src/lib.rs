//! meterhouse: a usage-metering engine over Parquet.
//!
//! Raw events go in, exact usage comes out: per customer, per billing period, broken down by any
//! property. Modules stand on floors and import only downwards; ARCHITECTURE.md has the table and
//! `tests/it/architecture.rs` holds it.

pub mod catalogue;
pub mod caught;
pub mod cli;
pub mod clock;
pub mod comparison;
pub mod correct;
pub mod decimal;
pub mod dedupe;
pub mod document;
pub mod engine;
pub mod error;
pub mod event;
pub mod explain;
pub mod export;
pub mod functions;
pub mod ingest;
pub mod lake;
pub mod meter;
pub mod period;
pub mod picture;
pub mod plan;
pub mod registry;
pub mod render;
pub mod rollup;
pub mod schedule;
pub mod schema;
pub mod sql;
pub mod table;
pub mod time;
pub mod trial;
pub mod unit;
pub mod usage;
pub mod verify;
