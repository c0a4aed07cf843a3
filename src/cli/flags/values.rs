//! What several commands take, and the forms in which values are written.
//!
//! A text is kept as it is once it has proved readable; it is resolved where zone and clock are known.

use clap::Args;

use crate::clock::Clock;
use crate::render::OutputFormat;
use crate::time::{
    Anchor, BillingPeriod, Cycle, Timestamp, Windowing, parse_bound, parse_period, parse_zone,
};
use crate::usage::Fill;

/// Which version of the events is asked.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct AtFlag {
    /// Answer as of this version of the events table, or of this time: a date (its first instant,
    /// UTC) or RFC 3339 [default: the newest]
    #[arg(long, value_name = "VERSION|TIME", value_parser = at)]
    pub(in crate::cli) at: Option<At>,
}

/// A version, or the instant at which it was the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum At {
    Version(u64),
    Time(Timestamp),
}

fn at(text: &str) -> Result<At, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(At::Version).map_err(|error| error.to_string());
    }
    let time = parse_bound(text, &jiff::tz::TimeZone::UTC);
    time.map(At::Time).map_err(|error| format!("neither a version nor a time: {error}"))
}

/// How rows are written.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(in crate::cli) struct OutputFlag {
    /// How rows are written to standard output
    #[arg(long = "output", short, value_name = "FORMAT", value_enum, default_value_t)]
    pub(in crate::cli) output: OutputFormat,
}

/// Keeps the text once it has proved readable; it is resolved where zone and clock are known.
fn checked<T, E: ToString>(text: &str, read: Result<T, E>) -> Result<String, String> {
    read.map(|_| text.to_owned()).map_err(|error| error.to_string())
}

pub(super) fn zone(text: &str) -> Result<String, String> {
    checked(text, parse_zone(text))
}

pub(super) fn window(text: &str) -> Result<String, String> {
    checked(text, text.parse::<Windowing>())
}

pub(super) fn anchor(text: &str) -> Result<String, String> {
    checked(text, text.parse::<Anchor>())
}

pub(super) fn cycle(text: &str) -> Result<String, String> {
    checked(text, text.parse::<Cycle>())
}

pub(super) fn fill(text: &str) -> Result<String, String> {
    checked(text, text.parse::<Fill>())
}

pub(super) fn period(text: &str) -> Result<String, String> {
    // What they are depends on the meter.
    if checked_billing_period(text)? {
        return Ok(text.to_owned());
    }
    checked(text, parse_period(text, &jiff::tz::TimeZone::UTC, Clock::System.now()))
}

/// Whether a text names a billing period.
fn checked_billing_period(text: &str) -> Result<bool, String> {
    BillingPeriod::named(text).map(|named| named.is_some()).map_err(|error| error.to_string())
}

pub(super) fn bound(text: &str) -> Result<String, String> {
    checked(text, parse_bound(text, &jiff::tz::TimeZone::UTC))
}

/// Why something is done: said, or left out.
pub(super) fn reason(text: &str) -> Result<String, String> {
    match text.trim().is_empty() {
        true => Err("it is empty: say why".to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// How many rows.
pub(super) fn rows(text: &str) -> Result<u32, String> {
    let read = text.parse().ok().filter(|rows| *rows > 0);
    read.ok_or_else(|| "write a number of rows, such as 10".to_owned())
}

/// A version of the events table.
pub(super) fn version(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a version is a number: `meterhouse log` shows them".to_owned())
}
