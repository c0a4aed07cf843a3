//! Where the windows of a query's range start, computed once from a zone's rules.
//!
//! Windows up to an hour follow the clock on the wall (a grid, shifted by each of the zone's
//! offsets in turn), so that a repeated hour is two windows and a half-hour shift cuts one. Longer
//! windows begin at the first instant at which the calendar reaches their civil start, so that a
//! day may have 23 or 25 hours. Either way windows are disjoint and leave no gap.

use jiff::tz::TimeZone;

use super::civil::{DAY, Date, HOUR, MINUTE, date_of_days, days_of_date};
use super::timestamp::Timestamp;
use super::window::{Step, Window};
use super::zone::{first_instant_in_range, jiff_instant, offset_at, offset_micros};
use crate::error::{Error, Result};

/// Most boundaries or segments that are computed for one query.
pub(super) const STARTS_MAX: usize = 2_000_000;

/// The windows of a range of time; all numbers are microseconds, instants UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WindowStarts {
    /// Every start in ascending order, and the end of the last window.
    Boundaries(Vec<i64>),
    /// Windows of one step on the wall's clock.
    Grid {
        /// The length of a window that nothing cuts.
        step: i64,
        /// From which instant on which offset holds, in ascending order. A window ends where the
        /// offset changes.
        segments: Vec<(i64, i64)>,
    },
}

/// The windows that cover every instant of `[from, to)`, and `from` in any case.
///
/// # Errors
///
/// Invalid for a range that ends before it begins, one outside the years 0001 to 9999, and more
/// than two million windows of more than an hour.
pub fn window_starts(
    window: Window,
    zone: &TimeZone,
    from: Timestamp,
    to: Timestamp,
) -> Result<WindowStarts> {
    check_range(from, to)?;
    let starts = match window.step() {
        Step::Minutes(count) => grid(count * MINUTE, zone, from, to),
        Step::Hours(1) => grid(HOUR, zone, from, to),
        step @ (Step::Hours(_) | Step::Day | Step::Week | Step::Months(_)) => {
            boundaries(step, zone, from, to)
        }
    };
    starts.ok_or_else(|| {
        Error::invalid(format!(
            "window `{window}` from {from} to {to} makes more than {STARTS_MAX} windows: take a \
             longer window or a shorter range"
        ))
    })
}

/// Refuses a range that no windows can cover.
pub(super) fn check_range(from: Timestamp, to: Timestamp) -> Result<()> {
    if from > to || from < Timestamp::MIN || from > Timestamp::MAX || to.micros() > END_OF_TIME {
        return Err(Error::invalid(format!(
            "windows need a range of time within the years 0001 to 9999, not {from} to {to}"
        )));
    }
    Ok(())
}

/// The end of the last window there can be.
const END_OF_TIME: i64 = Timestamp::MAX.micros() + 1;

impl WindowStarts {
    /// The start of the window that holds an instant of the range; outside of it, the start of the
    /// nearest window.
    pub fn start_of(&self, instant: i64) -> i64 {
        match self {
            Self::Boundaries(starts) => {
                let after = starts.partition_point(|start| *start <= instant);
                let last_window = starts.len().saturating_sub(2);
                starts.get(after.saturating_sub(1).min(last_window)).copied().unwrap_or(instant)
            }
            Self::Grid { step, segments } => match segment_at(segments, instant) {
                Some((_, (start, offset))) => {
                    let wall = instant.saturating_add(offset);
                    (wall - wall.rem_euclid(*step)).saturating_sub(offset).max(start)
                }
                None => instant,
            },
        }
    }

    /// The end of the window with this start: the start of the next one.
    pub fn end_of(&self, start: i64) -> i64 {
        match self {
            Self::Boundaries(starts) => {
                let after = starts.partition_point(|other| *other <= start);
                starts.get(after).or(starts.last()).copied().unwrap_or(start)
            }
            Self::Grid { step, segments } => match segment_at(segments, start) {
                Some((index, (_, offset))) => {
                    let wall = start.saturating_add(offset);
                    let end = start.saturating_add(step - wall.rem_euclid(*step));
                    segments.get(index + 1).map_or(end, |(next, _)| end.min(*next))
                }
                None => start,
            },
        }
    }

    /// The starts of the windows that end after one instant and begin before the other, in ascending
    /// order: those that overlap a range, if its bounds are given.
    pub fn between(&self, end_after: i64, start_before: i64) -> impl Iterator<Item = i64> + '_ {
        std::iter::successors(Some(self.start_of(end_after)), move |start| {
            let end = self.end_of(*start);
            (end > *start && end < start_before).then_some(end)
        })
        // Before all windows and behind them there are none.
        .filter(move |start| *start < start_before && self.end_of(*start) > end_after.max(*start))
    }

    /// Whether every window begins and ends at a midnight UTC, so that whole dates make it up.
    pub fn all_utc_midnights(&self) -> bool {
        match self {
            Self::Boundaries(starts) => starts.iter().all(|start| start % DAY == 0),
            Self::Grid { .. } => false,
        }
    }

    /// Whether every window is one whole date of UTC.
    pub fn all_utc_dates(&self) -> bool {
        match self {
            Self::Boundaries(starts) => {
                self.all_utc_midnights() && starts.windows(2).all(|pair| pair[1] - pair[0] == DAY)
            }
            Self::Grid { .. } => false,
        }
    }
}

/// The segment that holds an instant, the first one for any instant before.
fn segment_at(segments: &[(i64, i64)], instant: i64) -> Option<(usize, (i64, i64))> {
    let after = segments.partition_point(|(start, _)| *start <= instant);
    let index = after.saturating_sub(1);
    segments.get(index).map(|segment| (index, *segment))
}

fn grid(step: i64, zone: &TimeZone, from: Timestamp, to: Timestamp) -> Option<WindowStarts> {
    let mut offset = offset_at(zone, from.micros());
    let mut segments = vec![(segment_start(zone, from, offset), offset)];
    for transition in zone.following(jiff_instant(from.micros())) {
        let start = transition.timestamp().as_microsecond();
        if start >= to.micros() {
            break;
        }
        // Some transitions only change the zone's abbreviation: they cut no window.
        if offset_micros(transition.offset()) != offset {
            offset = offset_micros(transition.offset());
            segments.push((start, offset));
        }
        if segments.len() > STARTS_MAX {
            return None;
        }
    }
    Some(WindowStarts::Grid { step, segments })
}

/// Since when the zone has had the offset that it has at an instant.
fn segment_start(zone: &TimeZone, instant: Timestamp, offset: i64) -> i64 {
    zone.preceding(jiff_instant(instant.micros() + 1))
        .map(|transition| transition.timestamp().as_microsecond())
        .find(|start| offset_at(zone, start - 1) != offset)
        .map_or(Timestamp::MIN.micros(), |start| start.max(Timestamp::MIN.micros()))
}

fn boundaries(step: Step, zone: &TimeZone, from: Timestamp, to: Timestamp) -> Option<WindowStarts> {
    let number = window_number(step, from.micros() + offset_at(zone, from.micros()));
    covering(number, |number| first_instant_in_range(zone, civil_start(step, number)), from, to)
}

/// The windows, numbered in ascending order from `start`, that cover `[from, to)`, and `from` in any
/// case; `number` is that of the one that holds `from`, or about it. `None` where they are too many.
pub(super) fn covering(
    mut number: i64,
    start: impl Fn(i64) -> i64,
    from: Timestamp,
    to: Timestamp,
) -> Option<WindowStarts> {
    let (from, to) = (from.micros(), to.micros());
    while start(number) > from {
        number -= 1;
    }
    // Where clocks went back over a window's start, the next one has begun all the same.
    while start(number + 1) <= from {
        number += 1;
    }

    let mut last = start(number);
    let mut starts = vec![last];
    while last <= from || last < to {
        number += 1;
        let next = start(number);
        // A date that a zone skipped altogether has no window.
        if next > last {
            starts.push(next);
            last = next;
        }
        if starts.len() > STARTS_MAX {
            return None;
        }
    }
    Some(WindowStarts::Boundaries(starts))
}

/// The running number of the window that a civil moment lies in.
fn window_number(step: Step, civil_micros: i64) -> i64 {
    let days = civil_micros.div_euclid(DAY);
    match step {
        Step::Minutes(count) => civil_micros.div_euclid(count * MINUTE),
        Step::Hours(count) => civil_micros.div_euclid(count * HOUR),
        Step::Day => days,
        Step::Week => (days + MONDAY_TO_1970).div_euclid(7),
        Step::Months(count) => {
            let date = date_of_days(days);
            (date.year * 12 + date.month - 1).div_euclid(count)
        }
    }
}

/// The civil moment at which the window of a running number starts.
fn civil_start(step: Step, number: i64) -> i64 {
    match step {
        Step::Minutes(count) => number * count * MINUTE,
        Step::Hours(count) => number * count * HOUR,
        Step::Day => number * DAY,
        Step::Week => (number * 7 - MONDAY_TO_1970) * DAY,
        Step::Months(count) => {
            let months = number * count;
            let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
            days_of_date(Date { year, month, day: 1 }) * DAY
        }
    }
}

/// 1970-01-01 was a Thursday, so many days after a Monday.
const MONDAY_TO_1970: i64 = 3;

#[cfg(test)]
mod tests;
