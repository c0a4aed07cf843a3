//! Windows against a naive second answer: the wall's clock and the calendar, looked at one by one.

use jiff::civil::DateTime;

use super::*;
use crate::time::parse_zone;

fn instant(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).unwrap()
}

fn windows(window: &str, zone: &str, from: &str, to: &str) -> WindowStarts {
    let zone = parse_zone(zone).unwrap();
    window_starts(window.parse().unwrap(), &zone, instant(from), instant(to)).unwrap()
}

/// The starts of all windows of `[from, to)`, and the end of the last.
fn tiles(starts: &WindowStarts, from: &str, to: &str) -> Vec<String> {
    let (from, to) = (instant(from).micros(), instant(to).micros());
    let mut all = vec![starts.start_of(from)];
    while all[all.len() - 1] < to {
        all.push(starts.end_of(all[all.len() - 1]));
    }
    all.into_iter().map(|micros| Timestamp::from_micros(micros).to_string()).collect()
}

#[test]
fn windows_start_where_the_zone_says() {
    for (name, window, zone, from, to, want) in [
        (
            "days of 23 hours",
            "day",
            "America/Los_Angeles",
            "2025-03-08T18:00:00Z",
            "2025-03-11T07:00:00Z",
            &[
                "2025-03-08T08:00:00Z",
                "2025-03-09T08:00:00Z",
                "2025-03-10T07:00:00Z",
                "2025-03-11T07:00:00Z",
            ][..],
        ),
        (
            "days of 25 hours",
            "day",
            "America/Los_Angeles",
            "2025-11-01T18:00:00Z",
            "2025-11-03T08:00:00Z",
            &["2025-11-01T07:00:00Z", "2025-11-02T07:00:00Z", "2025-11-03T08:00:00Z"],
        ),
        (
            "the repeated hour is two windows",
            "hour",
            "Europe/Berlin",
            "2026-10-24T23:00:00Z",
            "2026-10-25T02:00:00Z",
            &[
                "2026-10-24T23:00:00Z",
                "2026-10-25T00:00:00Z",
                "2026-10-25T01:00:00Z",
                "2026-10-25T02:00:00Z",
            ],
        ),
        (
            "the hours of a zone at :45",
            "hour",
            "Asia/Kathmandu",
            "2026-10-01T00:00:00Z",
            "2026-10-01T01:00:00Z",
            &["2026-09-30T23:15:00Z", "2026-10-01T00:15:00Z", "2026-10-01T01:15:00Z"],
        ),
        (
            "half an hour is repeated, from 02:00 back to 01:30",
            "hour",
            "Australia/Lord_Howe",
            "2026-04-04T14:00:00Z",
            "2026-04-04T16:30:00Z",
            &[
                "2026-04-04T14:00:00Z",
                "2026-04-04T15:00:00Z",
                "2026-04-04T15:30:00Z",
                "2026-04-04T16:30:00Z",
            ][..],
        ),
        (
            "half an hour is skipped, from 02:00 to 02:30",
            "hour",
            "Australia/Lord_Howe",
            "2026-10-03T14:30:00Z",
            "2026-10-03T17:00:00Z",
            &[
                "2026-10-03T14:30:00Z",
                "2026-10-03T15:30:00Z",
                "2026-10-03T16:00:00Z",
                "2026-10-03T17:00:00Z",
            ],
        ),
        (
            "several hours stretch over the repeated one",
            "2h",
            "Europe/Berlin",
            "2026-10-24T22:00:00Z",
            "2026-10-25T04:00:00Z",
            &[
                "2026-10-24T22:00:00Z",
                "2026-10-25T00:00:00Z",
                "2026-10-25T03:00:00Z",
                "2026-10-25T05:00:00Z",
            ],
        ),
        (
            "a day that a zone skipped has no window",
            "day",
            "Pacific/Apia",
            "2011-12-29T12:00:00Z",
            "2012-01-01T10:00:00Z",
            &[
                "2011-12-29T10:00:00Z",
                "2011-12-30T10:00:00Z",
                "2011-12-31T10:00:00Z",
                "2012-01-01T10:00:00Z",
            ],
        ),
        (
            "a midnight in the middle of a skipped hour",
            "day",
            "America/Toronto",
            "1919-03-30T12:00:00Z",
            "1919-04-01T04:00:00Z",
            &["1919-03-30T05:00:00Z", "1919-03-31T04:30:00Z", "1919-04-01T04:00:00Z"],
        ),
        (
            "a midnight that comes twice",
            "day",
            "America/St_Johns",
            "2010-11-07T02:45:00Z",
            "2010-11-08T03:30:00Z",
            &["2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z"],
        ),
        (
            "ISO weeks",
            "week",
            "UTC",
            "2026-01-01T00:00:00Z",
            "2026-01-06T00:00:00Z",
            &["2025-12-29T00:00:00Z", "2026-01-05T00:00:00Z", "2026-01-12T00:00:00Z"],
        ),
        (
            "months",
            "month",
            "Europe/Berlin",
            "2026-09-30T22:00:00Z",
            "2026-10-31T23:00:00Z",
            &["2026-09-30T22:00:00Z", "2026-10-31T23:00:00Z"],
        ),
        (
            "pairs of months",
            "2month",
            "UTC",
            "2026-04-15T00:00:00Z",
            "2026-05-01T00:00:00Z",
            &["2026-03-01T00:00:00Z", "2026-05-01T00:00:00Z"],
        ),
        (
            "quarters",
            "quarter",
            "UTC",
            "2026-12-31T00:00:00Z",
            "2027-01-01T00:00:00.000001Z",
            &["2026-10-01T00:00:00Z", "2027-01-01T00:00:00Z", "2027-04-01T00:00:00Z"],
        ),
        (
            "nothing to cover still has the window of its beginning",
            "year",
            "UTC",
            "2026-01-01T00:00:00Z",
            "2026-01-01T00:00:00Z",
            &["2026-01-01T00:00:00Z"],
        ),
    ] {
        let starts = windows(window, zone, from, to);
        assert_eq!(tiles(&starts, from, to), want, "{name}");
    }
}

#[test]
fn daily_events_at_ten_fall_into_seven_days_each() {
    for (first, long_day) in [("2025-03-06", 82_800), ("2025-10-30", 90_000)] {
        let zone = parse_zone("America/Los_Angeles").unwrap();
        let first: jiff::civil::Date = first.parse().unwrap();
        let at = |day: i32, hour: i8| {
            let date = first.checked_add(jiff::Span::new().days(day)).unwrap();
            date.at(hour, 0, 0, 0).to_zoned(zone.clone()).unwrap().timestamp().as_microsecond()
        };
        let [from, to] = [at(0, 10), at(6, 10) + 1].map(Timestamp::from_micros);
        let starts = window_starts(Window::DAY, &zone, from, to).unwrap();
        let found: Vec<i64> = (0..7).map(|day| starts.start_of(at(day, 10))).collect();
        assert_eq!(found, (0..7).map(|day| at(day, 0)).collect::<Vec<_>>());
        let lengths: Vec<i64> =
            found.iter().map(|start| (starts.end_of(*start) - start) / 1_000_000).collect();
        assert_eq!(lengths.iter().filter(|length| **length == long_day).count(), 1);
        assert_eq!(lengths.iter().filter(|length| **length == 86_400).count(), 6);
        assert_eq!(WindowStarts::Boundaries((0..8).map(|day| at(day, 0)).collect()), starts);
    }
}

#[test]
fn windows_of_whole_utc_dates_are_told() {
    for (window, zone, want) in [
        ("day", "UTC", true),
        ("week", "UTC", true),
        ("month", "Africa/Abidjan", true),
        ("day", "Europe/London", false),
        ("day", "Europe/Berlin", false),
        ("12h", "UTC", false),
        ("hour", "UTC", false),
    ] {
        let starts = windows(window, zone, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
        assert_eq!(starts.all_utc_midnights(), want, "{window} {zone}");
    }
}

#[test]
fn the_ends_of_time_are_covered() {
    let zones = ["UTC", "Pacific/Kiritimati", "Pacific/Niue"].map(|name| parse_zone(name).unwrap());
    for zone in &zones {
        for window in ["15m", "hour", "6h", "day", "week", "month", "year"] {
            for (from, to) in [
                (Timestamp::MIN.micros(), Timestamp::MIN.micros() + DAY),
                (Timestamp::MAX.micros() - DAY, END_OF_TIME),
            ] {
                let [from, to] = [from, to].map(Timestamp::from_micros);
                let starts = window_starts(window.parse().unwrap(), zone, from, to).unwrap();
                let (mut start, last) = (starts.start_of(from.micros()), to.micros() - 1);
                assert!(start <= from.micros(), "{window} {zone:?}");
                while starts.end_of(start) <= last {
                    let next = starts.end_of(start);
                    assert!(next > start && starts.start_of(next) == next, "{window} {zone:?}");
                    start = next;
                }
                assert_eq!(starts.start_of(last), start, "{window} {zone:?}");
            }
        }
    }
}

#[test]
fn ranges_that_make_no_sense_are_refused() {
    let (early, late) = (instant("2026-01-01T00:00:00Z"), instant("2027-01-01T00:00:00Z"));
    let day = |from, to| window_starts(Window::DAY, &TimeZone::UTC, from, to);
    for (from, to) in [
        (late, early),
        (Timestamp::from_micros(i64::MIN), early),
        (early, Timestamp::from_micros(i64::MAX)),
    ] {
        assert!(day(from, to).unwrap_err().to_string().contains("windows need a range"));
    }
    assert!(day(Timestamp::MIN, Timestamp::MAX).is_err());
    let hours = "12h".parse().unwrap();
    let error = window_starts(hours, &TimeZone::UTC, Timestamp::MIN, Timestamp::MAX).unwrap_err();
    assert!(error.to_string().contains("more than 2000000 windows"), "{error}");
}

/// Moments at which a window may start: every quarter of an hour, and the change of the clock.
fn moments_around(change: i64) -> Vec<i64> {
    let quarter = 15 * MINUTE;
    let first = (change - 26 * HOUR).div_euclid(quarter) * quarter;
    let mut moments: Vec<i64> = (0..4 * 52).map(|number| first + number * quarter).collect();
    moments.extend([change - 1, change, change + 1, change + MINUTE]);
    moments.sort_unstable();
    moments.dedup();
    moments
}

fn wall(zone: &TimeZone, micros: i64) -> DateTime {
    zone.to_datetime(jiff::Timestamp::from_microsecond(micros).unwrap())
}

/// A window of the wall's clock starts on the full step and where the offset changes.
fn check_grid(zone: &TimeZone, change: i64, step_minutes: i64, starts: &WindowStarts) {
    let mut current = None;
    let mut offset = zone.to_offset(jiff::Timestamp::from_microsecond(change - DAY * 2).unwrap());
    for moment in moments_around(change) {
        let now = zone.to_offset(jiff::Timestamp::from_microsecond(moment).unwrap());
        let clock = wall(zone, moment);
        let minute = i64::from(clock.hour()) * 60 + i64::from(clock.minute());
        let full = minute % step_minutes == 0 && clock.second() == 0;
        if now != offset || (full && clock.subsec_nanosecond() == 0) {
            (current, offset) = (Some(moment), now);
        }
        if let Some(start) = current {
            assert_eq!(starts.start_of(moment), start, "{zone:?} {step_minutes}m at {clock}");
        }
    }
}

/// A longer window starts when the calendar first reaches a number it had not reached before.
fn check_calendar(
    zone: &TimeZone,
    change: i64,
    starts: &WindowStarts,
    number: fn(DateTime) -> i64,
) {
    let mut reached: Option<i64> = None;
    let mut current = None;
    for moment in moments_around(change) {
        let found = number(wall(zone, moment));
        if let Some(before) = reached
            && found > before
        {
            current = Some(moment);
        }
        reached = reached.max(Some(found));
        if let Some(start) = current {
            assert_eq!(starts.start_of(moment), start, "{zone:?} at {}", wall(zone, moment));
        }
    }
}

fn day_number(clock: DateTime) -> i64 {
    clock.date().duration_since(jiff::civil::date(1970, 1, 1)).as_hours() / 24
}

/// The midnights of a year as a calendar has them, one for each date that has one.
fn midnights(zone: &TimeZone, year: i16, wanted: fn(jiff::civil::Date) -> bool) -> Vec<i64> {
    let first = jiff::civil::date(year, 1, 1);
    let mut starts: Vec<i64> = first
        .series(jiff::Span::new().days(1))
        .take_while(|date| date.year() == year)
        .filter(|date| wanted(*date))
        .map(|date| date.to_zoned(zone.clone()).unwrap().timestamp().as_microsecond())
        .collect();
    starts.dedup();
    starts
}

/// Windows tile: each one's end is the next one's start, and every instant within finds its own.
fn check_tiling(zone: &TimeZone, starts: &WindowStarts, from: i64, to: i64) {
    let mut start = starts.start_of(from);
    assert!(start <= from, "{zone:?}");
    while start < to {
        let end = starts.end_of(start);
        assert!(end > start, "{zone:?}");
        assert_eq!(starts.start_of(start), start, "{zone:?}");
        assert_eq!(starts.start_of(end - 1), start, "{zone:?}");
        start = end;
    }
}

#[test]
fn every_zone_agrees_with_the_wall_and_the_calendar() {
    let database = jiff::tz::TimeZoneDatabase::bundled();
    let mut changes = 0;
    for name in database.available() {
        let zone = parse_zone(name.as_str()).unwrap();
        for year in [1975, 2011, 2026] {
            let bound = |year: i16| jiff::civil::date(year, 1, 1).to_zoned(TimeZone::UTC).unwrap();
            let [from, to] = [bound(year), bound(year + 1)]
                .map(|bound| Timestamp::from_micros(bound.timestamp().as_microsecond()));
            let margin =
                |instant: Timestamp, by: i64| Timestamp::from_micros(instant.micros() + by);
            let starts = |window: &str| {
                let (from, to) = (margin(from, -3 * DAY), margin(to, 3 * DAY));
                window_starts(window.parse().unwrap(), &zone, from, to).unwrap()
            };
            let [quarters, hours, six_hours, days, weeks, months] =
                ["15m", "hour", "6h", "day", "week", "month"].map(starts);

            for change in zone.following(jiff_instant(from.micros())) {
                let change = change.timestamp().as_microsecond();
                if change >= to.micros() {
                    break;
                }
                changes += 1;
                check_grid(&zone, change, 15, &quarters);
                check_grid(&zone, change, 60, &hours);
                check_calendar(&zone, change, &days, day_number);
                check_calendar(&zone, change, &six_hours, |clock| {
                    day_number(clock) * 4 + i64::from(clock.hour()) / 6
                });
            }
            let every_day = midnights(&zone, year, |_| true);
            for start in &every_day {
                assert_eq!(days.start_of(*start), *start, "{name:?}");
            }
            let within = |starts: &WindowStarts| match starts {
                WindowStarts::Boundaries(starts) => starts
                    .iter()
                    .copied()
                    .filter(|start| wall(&zone, *start).year() == year)
                    .collect::<Vec<_>>(),
                WindowStarts::Grid { .. } => Vec::new(),
            };
            assert_eq!(within(&days), every_day, "{name:?} {year}");
            let mondays = |date: jiff::civil::Date| date.weekday() == jiff::civil::Weekday::Monday;
            assert_eq!(within(&weeks), midnights(&zone, year, mondays), "{name:?} {year}");
            assert_eq!(within(&months), midnights(&zone, year, |date| date.day() == 1), "{name:?}");
            check_tiling(&zone, &hours, from.micros(), from.micros() + 30 * DAY);
            for starts in [&six_hours, &days, &weeks, &months] {
                check_tiling(&zone, starts, from.micros(), to.micros());
            }
        }
    }
    assert!(changes > 500, "{changes} changes of a clock were seen");
}

#[test]
fn the_windows_between_two_instants_are_those_that_overlap_them() {
    for starts in [
        windows("day", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-31T00:00:00Z"),
        windows("hour", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", "2026-10-04T00:00:00Z"),
    ] {
        let (from, to) = (instant("2026-03-28T12:00:00Z"), instant("2026-03-30T01:30:00Z"));
        let (from, to) = match starts {
            WindowStarts::Boundaries(_) => (from.micros(), to.micros()),
            WindowStarts::Grid { .. } => {
                (instant("2026-10-03T14:10:00Z").micros(), instant("2026-10-03T16:30:00Z").micros())
            }
        };
        let got: Vec<i64> = starts.between(from, to).collect();
        // Each minute of the range lies in one of them, and none is without such a minute.
        let mut want: Vec<i64> =
            (from..to).step_by(60_000_000).map(|minute| starts.start_of(minute)).collect();
        want.dedup();
        assert_eq!(got, want);
        assert_eq!(starts.between(from, from).count(), usize::from(starts.start_of(from) < from));
        let whole = starts.start_of(from);
        let end = starts.end_of(whole);
        assert_eq!(starts.between(whole, end).collect::<Vec<_>>(), [whole]);
        assert_eq!(starts.between(whole, end + 1).count(), 2);
        assert_eq!(starts.between(end - 1, whole + 1).collect::<Vec<_>>(), [whole]);
        assert_eq!(starts.between(end, whole + 1).count(), 0);
    }
    let boundaries = WindowStarts::Boundaries(vec![0, 10, 20]);
    assert_eq!(boundaries.between(-20, 0).count(), 0);
    assert_eq!(boundaries.between(20, 30).count(), 0);
    assert_eq!(boundaries.between(-5, 30).collect::<Vec<_>>(), [0, 10]);
}
