//! A second answer to every question, written from SEMANTICS.md in plain Rust.
//!
//! Events are structs, numbers are big integers, groups are a `BTreeMap`: no Arrow, no DataFusion,
//! and none of the product's decimals, times, plans or deduplication. It is slow and short, which
//! is its worth: where it and the engine differ, one of them is wrong. [`spell`] writes its
//! questions the way the product reads them, [`generate`] makes them up.

pub(crate) mod answer;
pub(crate) mod billing;
pub(crate) mod correction;
pub(crate) mod event;
pub(crate) mod filter;
pub(crate) mod generate;
pub(crate) mod intake;
pub(crate) mod meter;
pub(crate) mod number;
pub(crate) mod series;
pub(crate) mod spell;
pub(crate) mod window;
