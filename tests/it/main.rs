//! The integration tests, one binary: everything from outside, most of it through the program.

// Clippy knows that test functions may fail, but not that all of this crate is tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agreement;
mod architecture;
mod cases;
mod catalogue;
mod cli;
mod compact;
mod corrections;
mod crash;
mod damage;
mod definitions;
mod explain;
mod exports;
mod faults;
mod follow;
mod kills;
mod lookups;
mod naive;
mod object_storage;
mod odd;
mod own_periods;
mod payloads;
mod periods;
mod plans;
mod program;
mod quickstart;
mod rollups;
mod schedule;
mod simulation;
mod statements;
mod storm;
mod truth;
mod unfit;
mod upserts;
mod vacuum;
mod verify;
mod writers;
mod zones;
