//! Windows as the text that stands in a plan.
//!
//! `boundaries:0,+86400000000*3,+82800000000` is a first start, then the lengths of windows, each
//! with how often it repeats; `grid:3600000000;0@7200000000,1000@3600000000` is a step, then from
//! which instant on which offset holds. All are microseconds.

use std::fmt::Write;

use super::civil::HOUR;
use super::starts::{STARTS_MAX, WindowStarts};
use crate::error::{Error, Result};

const BOUNDARIES: &str = "boundaries:";
const GRID: &str = "grid:";

/// More than any zone ever was from UTC.
const OFFSET_MAX: i64 = 48 * HOUR;

/// How much of a broken literal an error shows.
const SHOWN_CHARS: usize = 60;

impl WindowStarts {
    /// The text that [`Self::from_literal`] reads back.
    pub fn to_literal(&self) -> String {
        match self {
            Self::Boundaries(starts) => boundaries_text(starts),
            Self::Grid { step, segments } => {
                let segments: Vec<String> =
                    segments.iter().map(|(start, offset)| format!("{start}@{offset}")).collect();
                format!("{GRID}{step};{}", segments.join(","))
            }
        }
    }

    /// The windows of a text that [`Self::to_literal`] wrote.
    ///
    /// # Errors
    ///
    /// Invalid for any text that does not describe disjoint windows in ascending order.
    pub fn from_literal(text: &str) -> Result<Self> {
        let windows = if let Some(starts) = text.strip_prefix(BOUNDARIES) {
            read_boundaries(starts)
        } else {
            text.strip_prefix(GRID).and_then(read_grid)
        };
        windows.ok_or_else(|| {
            let shown: String = text.chars().take(SHOWN_CHARS).collect();
            Error::invalid(format!("`{shown}` does not describe windows"))
        })
    }
}

fn boundaries_text(starts: &[i64]) -> String {
    let mut text = BOUNDARIES.to_owned();
    if let Some(first) = starts.first() {
        text.push_str(&first.to_string());
    }
    let lengths: Vec<i64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for run in lengths.chunk_by(|one, next| one == next) {
        let written = match run {
            [length] => write!(text, ",+{length}"),
            run => write!(text, ",+{}*{}", run[0], run.len()),
        };
        debug_assert!(written.is_ok(), "a string takes every text");
    }
    text
}

fn read_boundaries(text: &str) -> Option<WindowStarts> {
    let mut items = text.split(',');
    let mut last: i64 = items.next()?.parse().ok()?;
    let mut starts = vec![last];
    for item in items {
        let (length, count) = match item.strip_prefix('+')?.split_once('*') {
            Some((length, count)) => (length, count.parse().ok()?),
            None => (item.strip_prefix('+')?, 1_usize),
        };
        let length: i64 = length.parse().ok().filter(|length| *length > 0)?;
        if count > STARTS_MAX - starts.len().min(STARTS_MAX) + 1 {
            return None;
        }
        for _ in 0..count {
            last = last.checked_add(length)?;
            starts.push(last);
        }
    }
    (starts.len() >= 2).then_some(WindowStarts::Boundaries(starts))
}

fn read_grid(text: &str) -> Option<WindowStarts> {
    let (step, segments) = text.split_once(';')?;
    let step: i64 = step.parse().ok().filter(|step| (1..=HOUR).contains(step))?;
    let segments = segments.split(',').map(read_segment).collect::<Option<Vec<_>>>()?;
    let ascending = segments.is_sorted_by(|(one, _), (next, _)| one < next);
    (ascending && segments.len() <= STARTS_MAX).then_some(WindowStarts::Grid { step, segments })
}

fn read_segment(text: &str) -> Option<(i64, i64)> {
    let (start, offset) = text.split_once('@')?;
    let offset: i64 = offset.parse().ok()?;
    let plausible = (-OFFSET_MAX..=OFFSET_MAX).contains(&offset);
    if plausible { Some((start.parse().ok()?, offset)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Timestamp, Window, parse_zone, window_starts};

    #[test]
    fn literals_round_trip() {
        for (windows, want) in [
            (WindowStarts::Boundaries(vec![-5, 10]), "boundaries:-5,+15"),
            (
                WindowStarts::Boundaries(vec![0, 24, 48, 71, 95, 119]),
                "boundaries:0,+24*2,+23,+24*2",
            ),
            (
                WindowStarts::Grid { step: 60, segments: vec![(-7, -3_600), (9, 7_200)] },
                "grid:60;-7@-3600,9@7200",
            ),
        ] {
            assert_eq!(windows.to_literal(), want);
            assert_eq!(WindowStarts::from_literal(want).unwrap(), windows);
        }
    }

    #[test]
    fn windows_of_decades_have_short_literals_that_round_trip() {
        let [from, to] = ["1970-01-01T00:00:00Z", "2030-01-01T00:00:00Z"]
            .map(|text| Timestamp::parse_rfc3339(text).unwrap());
        for (window, zone) in [
            (Window::DAY, "UTC"),
            (Window::DAY, "Europe/Berlin"),
            (Window::HOUR, "Australia/Lord_Howe"),
            (Window::MONTH, "Pacific/Apia"),
        ] {
            let windows = window_starts(window, &parse_zone(zone).unwrap(), from, to).unwrap();
            let literal = windows.to_literal();
            assert_eq!(WindowStarts::from_literal(&literal).unwrap(), windows, "{zone}");
            assert!(literal.len() < 20_000, "{zone}: {}", literal.len());
        }
    }

    #[test]
    fn broken_literals_are_refused() {
        for text in [
            "",
            "x",
            "boundaries:",
            "boundaries:1",
            "boundaries:1,2",
            "boundaries:1,+0",
            "boundaries:1,+-5",
            "boundaries:1,+5*",
            "boundaries:1,+5*99999999999",
            "boundaries:9223372036854775807,+1",
            "grid:",
            "grid:0;0@0",
            "grid:7200000000;0@0",
            "grid:60;",
            "grid:60;0",
            "grid:60;5@0,5@1",
            "grid:60;5@0,4@1",
            "grid:60;0@9223372036854775807",
        ] {
            let error = WindowStarts::from_literal(text).unwrap_err().to_string();
            assert!(error.contains("does not describe windows"), "{text}: {error}");
        }
    }
}
