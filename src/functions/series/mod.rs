//! Aggregates of what happens over time, which give a value for each window of a question.
//!
//! Each gathers the events of a group from the beginning of history to the end of the question.
//! [`pieces`] makes a list of what was gathered, a value for each window in which something is known:
//! what came before a window counts in it. The list is unnested by the plan. See [`spans`] for the
//! windows, and [`by_calendar`] for customers whose windows differ.

pub mod area;
pub mod by_calendar;
pub mod instant;
pub mod length;
pub mod pieces;
pub mod presence;
pub mod present;
pub mod share;
pub mod spans;
mod state;
pub mod window_end;
