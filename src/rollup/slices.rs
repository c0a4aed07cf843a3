//! Days and months of a meter's zone that days of UTC touch, as ranges of instants.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;

use super::Grain;
use super::write::month_of;
use crate::error::Result;
use crate::time::{TimeRange, Timestamp};

const DAY_MICROS: i64 = 86_400_000_000;
/// A month is over when it ended this long ago: few events come for it any more.
const SETTLED_MICROS: i64 = 2 * DAY_MICROS;
/// Stretches of stale days of a month that are read one by one.
const STRETCHES_MAX: usize = 8;

/// The months that a day touches, by their first dates, in days since 1970.
pub(super) fn months_of(zone: &TimeZone, day: i32) -> Result<BTreeSet<i32>> {
    let start = i64::from(day) * DAY_MICROS;
    let instants = [start, start + DAY_MICROS - 1];
    instants.into_iter().map(|instant| month_at(zone, instant)).collect()
}

/// The first date of the month that an instant is in.
fn month_at(zone: &TimeZone, instant: i64) -> Result<i32> {
    let at = Timestamp::from_micros(instant);
    let months = Grain::Month.buckets(zone, (at, at))?;
    Ok(month_of(zone, months.start_of(instant)))
}

/// A month, by its first date.
pub(super) fn range_of(zone: &TimeZone, month: i32) -> Result<TimeRange> {
    // Well within it in any zone.
    let within = Timestamp::from_micros(i64::from(month) * DAY_MICROS + 10 * DAY_MICROS);
    let months = Grain::Month.buckets(zone, (within, within))?;
    let from = months.start_of(within.micros());
    let at = Timestamp::from_micros;
    Ok(TimeRange { from: Some(at(from)), to: Some(at(months.end_of(from))) })
}

/// The last month that is over, by its first date.
pub(super) fn last_over(zone: &TimeZone, now: Timestamp) -> Result<Option<i32>> {
    let settled = Timestamp::from_micros(now.micros().saturating_sub(SETTLED_MICROS));
    let months = Grain::Month.buckets(zone, (settled, settled))?;
    let last = months.start_of(settled.micros()).checked_sub(1);
    last.map(|last| month_at(zone, last)).transpose()
}

/// The days of the zone that some days of UTC touch, as stretches within its months, by those.
pub(super) fn stale(
    zone: &TimeZone,
    days: &BTreeSet<i32>,
) -> Result<BTreeMap<i32, Vec<TimeRange>>> {
    let at = Timestamp::from_micros;
    let mut stale: BTreeMap<i32, Vec<TimeRange>> = BTreeMap::new();
    for day in days {
        let start = i64::from(*day) * DAY_MICROS;
        let starts = Grain::Day.buckets(zone, (at(start), at(start + DAY_MICROS)))?;
        let mut instant = start;
        while instant < start + DAY_MICROS {
            let from = starts.start_of(instant);
            let to = starts.end_of(from);
            let of_day = TimeRange { from: Some(at(from)), to: Some(at(to)) };
            let stretches = stale.entry(month_at(zone, from)?).or_default();
            match stretches.last_mut() {
                Some(last) if last.to >= of_day.from => last.to = last.to.max(of_day.to),
                _ => stretches.push(of_day),
            }
            instant = to.max(instant + 1);
        }
    }
    for (month, stretches) in &mut stale {
        // Each is a scan of its own.
        if stretches.len() > STRETCHES_MAX {
            *stretches = vec![range_of(zone, *month)?];
        }
    }
    Ok(stale)
}

/// How many days some stretches of whole days have.
pub(super) fn days_in<'r>(
    zone: &TimeZone,
    stretches: impl Iterator<Item = &'r TimeRange>,
) -> Result<u64> {
    let mut count = 0;
    for (from, to) in stretches.filter_map(|range| range.from.zip(range.to)) {
        let days = Grain::Day.buckets(zone, (from, to))?;
        let mut instant = from.micros();
        while instant < to.micros() {
            count += 1;
            instant = days.end_of(instant).max(instant + 1);
        }
    }
    Ok(count)
}

/// Whether two ranges, one after the other, are no longer than that with what is between them.
pub(super) fn within(first: TimeRange, last: TimeRange, micros: i64) -> bool {
    let ends = first.from.zip(last.to);
    ends.is_some_and(|(from, to)| to.micros().saturating_sub(from.micros()) <= micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::parse_zone;

    fn day(text: &str) -> i32 {
        Timestamp::parse_rfc3339(&format!("{text}T00:00:00Z")).unwrap().date_days()
    }

    fn shown(range: &TimeRange) -> String {
        let bound = |bound: Option<Timestamp>| bound.unwrap().to_string();
        format!("{} {}", bound(range.from), bound(range.to))
    }

    #[test]
    fn days_of_utc_touch_days_of_zones() {
        for (zone, days, want, count) in [
            (
                "UTC",
                &["2026-03-31"][..],
                &[("2026-03-01", "2026-03-31T00:00:00Z 2026-04-01T00:00:00Z")][..],
                1,
            ),
            // Next to each other they are one stretch.
            (
                "UTC",
                &["2026-03-30", "2026-03-31", "2026-04-01"],
                &[
                    ("2026-03-01", "2026-03-30T00:00:00Z 2026-04-01T00:00:00Z"),
                    ("2026-04-01", "2026-04-01T00:00:00Z 2026-04-02T00:00:00Z"),
                ],
                3,
            ),
            // Two days of the zone, in two of its months.
            (
                "Europe/Berlin",
                &["2026-05-31"],
                &[
                    ("2026-05-01", "2026-05-30T22:00:00Z 2026-05-31T22:00:00Z"),
                    ("2026-06-01", "2026-05-31T22:00:00Z 2026-06-01T22:00:00Z"),
                ],
                2,
            ),
            // The clocks go forward on the 29th, a day of 23 hours.
            (
                "Europe/Berlin",
                &["2026-03-29"],
                &[("2026-03-01", "2026-03-28T23:00:00Z 2026-03-30T22:00:00Z")],
                2,
            ),
            (
                "Asia/Kathmandu",
                &["2026-02-28"],
                &[
                    ("2026-02-01", "2026-02-27T18:15:00Z 2026-02-28T18:15:00Z"),
                    ("2026-03-01", "2026-02-28T18:15:00Z 2026-03-01T18:15:00Z"),
                ],
                2,
            ),
            // Samoa had no 30 December 2011.
            (
                "Pacific/Apia",
                &["2011-12-30"],
                &[("2011-12-01", "2011-12-29T10:00:00Z 2011-12-31T10:00:00Z")],
                2,
            ),
        ] {
            let tz = parse_zone(zone).unwrap();
            let days: BTreeSet<i32> = days.iter().map(|text| day(text)).collect();
            let found = stale(&tz, &days).unwrap();
            let all: Vec<(i32, String)> = found
                .iter()
                .flat_map(|(month, stretches)| stretches.iter().map(|range| (*month, shown(range))))
                .collect();
            let want: Vec<(i32, String)> =
                want.iter().map(|(month, range)| (day(month), (*range).to_owned())).collect();
            assert_eq!(all, want, "{zone}");
            assert_eq!(days_in(&tz, found.values().flatten()).unwrap(), count, "{zone}");
            let months: BTreeSet<i32> =
                days.iter().flat_map(|day| months_of(&tz, *day).unwrap()).collect();
            let of_days: BTreeSet<i32> = found.keys().copied().collect();
            assert!(months.is_subset(&of_days), "{zone}");
        }
    }

    #[test]
    fn many_stretches_are_the_whole_month() {
        let tz = parse_zone("Europe/Berlin").unwrap();
        let days: BTreeSet<i32> = (0..10).map(|n| day("2026-05-02") + 3 * n).collect();
        let found = stale(&tz, &days).unwrap();
        let whole = range_of(&tz, day("2026-05-01")).unwrap();
        assert_eq!(shown(&whole), "2026-04-30T22:00:00Z 2026-05-31T22:00:00Z");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [(day("2026-05-01"), vec![whole])]);
    }

    #[test]
    fn a_month_is_over_two_days_after_its_end() {
        for (zone, now, want) in [
            ("UTC", "2026-06-02T23:59:59Z", "2026-04-01"),
            ("UTC", "2026-06-03T00:00:00Z", "2026-05-01"),
            ("America/New_York", "2026-06-03T03:59:59Z", "2026-04-01"),
            ("America/New_York", "2026-06-03T04:00:00Z", "2026-05-01"),
        ] {
            let now = Timestamp::parse_rfc3339(now).unwrap();
            let found = last_over(&parse_zone(zone).unwrap(), now).unwrap();
            assert_eq!(found, Some(day(want)), "{zone} {now}");
        }
    }
}
