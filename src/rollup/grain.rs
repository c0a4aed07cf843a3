//! What states are kept by: the lengths of buckets and the keys, and which of them can answer a question.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;

use crate::error::Result;
use crate::meter::{Aggregation, Meter};
use crate::plan::states::columns::key;
use crate::plan::states::{By, Kept, kept, keys, over_states};
use crate::plan::{UsageQuery, Windows};
use crate::time::{Timestamp, Window, WindowStarts, window_starts};

const HOUR_MICROS: i64 = 3_600_000_000;
const QUARTER_MICROS: i64 = HOUR_MICROS / 4;
/// Most bounds of windows that are looked at.
pub(super) const BOUNDS_MAX: usize = 100_000;

/// States of one length of bucket, told apart by the customer or not, and by some of the meter's keys.
///
/// All keys together hardly make fewer rows than there are events; one key alone, or none, does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level {
    /// How long the buckets are.
    pub grain: Grain,
    /// What its rows are told apart by.
    pub by: By,
}

impl Level {
    /// All levels of a meter: the longest buckets first, of these all customers together, then the fewest
    /// keys. Whatever a level can answer, no later one answers from fewer rows.
    pub fn all(meter: &Meter) -> Vec<Self> {
        let count = keys(meter).len();
        let needed = needed(meter);
        let single = |customer| {
            let one = (0..count).map(move |place| By { customer, keys: BTreeSet::from([place]) });
            std::iter::once(By { customer, ..By::default() }).chain(one)
        };
        let grains = Grain::all(meter).into_iter();
        let grains = grains.filter(|grain| *grain != Grain::Month || !has_shorter_results(meter));
        // Values of all customers together are hardly fewer than those of each.
        let apart = kept(meter).is_some_and(Kept::tells_values_apart);
        let mut sets: Vec<By> = if apart { Vec::new() } else { single(false).collect() };
        sets.extend(single(true));
        sets.extend((count > 1).then(|| By { customer: true, keys: (0..count).collect() }));
        sets.retain(|by| by.covers(&needed));
        let of_grain = |grain| sets.iter().cloned().map(move |by| Self { grain, by });
        grains.flat_map(of_grain).collect()
    }

    /// What it is called in the table: no longer than what the log keeps of a text.
    pub fn name(&self) -> String {
        let grain = self.grain.name();
        let of_all = if self.by.customer { "" } else { " in all" };
        match self.by.keys.first() {
            None => format!("{grain}{of_all}"),
            Some(place) if self.by.keys.len() == 1 => format!("{grain}{of_all} by {}", key(*place)),
            Some(_) => format!("{grain}{of_all} by all keys"),
        }
    }

    /// Whether its rows lie day by day: those of whole customers, by days or less. Few days are near each
    /// other then, and days come in the order of answers. Whoever asks for a customer by keys as well finds
    /// the rows of one customer together.
    pub(super) fn is_by_day(&self) -> bool {
        self.grain < Grain::Month && self.by.keys.is_empty()
    }

    /// The level whose buckets can be left out day by day, as states of this one are made of them.
    pub(super) fn of_days(&self) -> Self {
        let grain = if self.grain == Grain::Month { Grain::Day } else { self.grain };
        Self { grain, ..self.clone() }
    }
}

/// What every question to a meter needs.
fn needed(meter: &Meter) -> By {
    over_states(meter, &UsageQuery::default()).map(|asked| asked.by).unwrap_or_default()
}

/// Whether months cannot tell the results that a meter computes over.
fn has_shorter_results(meter: &Meter) -> bool {
    match &meter.aggregation {
        Aggregation::Nested(nested) => nested.window.is_some_and(|window| window != Window::MONTH),
        _ => false,
    }
}

/// From when on a zone is how many seconds away from UTC, since 1970 and far enough for any rule that it
/// has by now.
pub(super) fn offsets(zone: &TimeZone) -> Vec<(i64, i32)> {
    let begin = jiff::Timestamp::from_second(0).unwrap_or_default();
    let later = zone.following(begin).take(200);
    let later = later.map(|change| (change.timestamp().as_second(), change.offset().seconds()));
    std::iter::once((0, zone.to_offset(begin).seconds())).chain(later).collect()
}

/// Whether a meter computes over results of parts of an hour.
fn has_results_of_minutes(meter: &Meter) -> bool {
    match &meter.aggregation {
        Aggregation::Nested(nested) => nested.window.and_then(Window::minutes).is_some(),
        _ => false,
    }
}

/// How long the buckets of states are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grain {
    /// A quarter of an hour of UTC: the midnights of every zone are bounds of it.
    Quarter,
    /// An hour of UTC.
    Hour,
    /// A day of the meter's zone.
    Day,
    /// A month of the meter's zone.
    Month,
}

impl Grain {
    /// The shortest buckets of a meter: hours, unless its zone is not whole hours away from UTC, or it
    /// computes over results of quarters of an hour.
    pub fn finest(meter: &Meter) -> Self {
        let whole = offsets(&meter.zone()).iter().all(|(_, offset)| offset % 3_600 == 0);
        if whole && !has_results_of_minutes(meter) { Self::Hour } else { Self::Quarter }
    }

    /// All lengths that a meter has, the longest first.
    pub fn all(meter: &Meter) -> [Self; 3] {
        [Self::Month, Self::Day, Self::finest(meter)]
    }

    /// What it is called in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quarter => "quarter_hour",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The buckets that cover a range.
    ///
    /// # Errors
    /// A range beyond what windows can cover.
    pub(super) fn buckets(
        self,
        zone: &TimeZone,
        (from, to): (Timestamp, Timestamp),
    ) -> Result<WindowStarts> {
        match self {
            Self::Quarter => window_starts("15m".parse()?, &TimeZone::UTC, from, to),
            Self::Hour => window_starts(Window::HOUR, &TimeZone::UTC, from, to),
            Self::Day => window_starts(Window::DAY, zone, from, to),
            Self::Month => window_starts(Window::MONTH, zone, from, to),
        }
    }

    /// Whether an instant is the first one of a bucket.
    pub(super) fn begins_at(self, zone: &TimeZone, micros: i64) -> bool {
        let at = Timestamp::from_micros(micros);
        match self {
            Self::Quarter => micros.rem_euclid(QUARTER_MICROS) == 0,
            Self::Hour => micros.rem_euclid(HOUR_MICROS) == 0,
            Self::Day | Self::Month => {
                let buckets = self.buckets(zone, (at, at));
                buckets.is_ok_and(|buckets| buckets.start_of(micros) == micros)
            }
        }
    }

    /// Whether no bound that a query names falls inside of a bucket.
    pub(super) fn tells(self, zone: &TimeZone, query: &UsageQuery) -> bool {
        let begins = |micros: i64| self.begins_at(zone, micros);
        let bounds = [query.range.from, query.range.to];
        let windows = match &query.windows {
            None => Vec::new(),
            Some(Windows::Shared(starts)) => vec![starts],
            Some(Windows::PerCustomer(calendars)) => calendars.starts.iter().collect(),
        };
        let parts = query.parts.iter();
        let parts = parts.flat_map(|own| std::iter::once(&own.otherwise).chain(&own.of_calendars));
        let mut windows = windows.into_iter().chain(parts);
        bounds.into_iter().flatten().all(|bound| begins(bound.micros()))
            && windows.all(|starts| self.tells_windows(&begins, starts))
    }

    fn tells_windows(self, begins: &dyn Fn(i64) -> bool, starts: &WindowStarts) -> bool {
        match (self, starts) {
            (_, WindowStarts::Boundaries(starts)) => {
                starts.len() <= BOUNDS_MAX && starts.iter().all(|start| begins(*start))
            }
            (Self::Quarter | Self::Hour, WindowStarts::Grid { step, segments }) => {
                let unit = if self == Self::Hour { HOUR_MICROS } else { QUARTER_MICROS };
                let whole = |micros: i64| micros.rem_euclid(unit) == 0;
                // The first segment begins before everything.
                whole(*step)
                    && segments.iter().all(|(_, offset)| whole(*offset))
                    && segments.iter().skip(1).all(|(start, _)| whole(*start))
            }
            (Self::Day | Self::Month, WindowStarts::Grid { .. }) => false,
        }
    }
}
