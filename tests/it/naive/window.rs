//! Windows and bounds in a zone, found by asking `jiff` for each event anew.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

const MICROS_PER_MINUTE: i64 = 60_000_000;

/// The length of windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Window {
    /// Up to an hour, a divisor of it: the grid of the wall's clock at the offset that holds.
    Minutes(i64),
    /// Several hours, a divisor of a day.
    Hours(i8),
    Day,
    /// From Monday.
    Week,
    /// A divisor of a year.
    Months(i8),
    /// The customer's own.
    BillingPeriod,
}

impl Window {
    /// Start and end of the window that holds the instant, in microseconds.
    pub(crate) fn around(self, micros: i64, zone: &TimeZone) -> (i64, i64) {
        if let Self::Minutes(minutes) = self {
            return on_grid(minutes * MICROS_PER_MINUTE, micros, zone);
        }
        let mut civil = self.floor(instant(micros).to_zoned(zone.clone()).datetime());
        // Where the clock was set back over a start, that start has been reached already.
        loop {
            let next = self.next(civil);
            let end = first_instant(next, zone);
            if end > micros {
                return (first_instant(civil, zone), end);
            }
            civil = next;
        }
    }

    fn floor(self, civil: DateTime) -> DateTime {
        let date = civil.date();
        match self {
            Self::Minutes(_) | Self::BillingPeriod => panic!("{self:?} has no start by the date"),
            Self::Hours(hours) => date.at(civil.hour() - civil.hour() % hours, 0, 0, 0),
            Self::Day => midnight(date),
            Self::Week => midnight(date - i32::from(date.weekday().to_monday_zero_offset()).days()),
            Self::Months(months) => {
                let month = date.month() - (date.month() - 1) % months;
                midnight(jiff::civil::date(date.year(), month, 1))
            }
        }
    }

    fn next(self, civil: DateTime) -> DateTime {
        match self {
            Self::Minutes(_) | Self::BillingPeriod => panic!("{self:?} has no start by the date"),
            Self::Hours(hours) => civil + i32::from(hours).hours(),
            Self::Day => civil + 1.day(),
            Self::Week => civil + 1.week(),
            Self::Months(months) => civil + i32::from(months).months(),
        }
    }
}

fn midnight(date: Date) -> DateTime {
    date.at(0, 0, 0, 0)
}

fn instant(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap()
}

/// The first instant at which the zone's calendar reaches `civil`.
pub(crate) fn first_instant(civil: DateTime, zone: &TimeZone) -> i64 {
    use jiff::tz::AmbiguousOffset;
    let ambiguous = zone.to_ambiguous_timestamp(civil);
    let offset = ambiguous.offset();
    let timestamp = ambiguous.compatible().unwrap();
    match offset {
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => {
            timestamp.as_microsecond()
        }
        // The clock jumps over it: reached where it jumps.
        AmbiguousOffset::Gap { .. } => {
            let after = timestamp + 1.nanosecond();
            zone.preceding(after).next().unwrap().timestamp().as_microsecond()
        }
    }
}

fn on_grid(step: i64, micros: i64, zone: &TimeZone) -> (i64, i64) {
    let offset_of = |at: Timestamp| i64::from(zone.to_offset(at).seconds()) * 1_000_000;
    let now = instant(micros);
    let offset = offset_of(now);
    let start = micros - (micros + offset).rem_euclid(step);
    let end = start + step;
    // A change of the offset ends one window and begins another.
    let shifts = |at: Timestamp| offset_of(at) != offset_of(at - 1.microsecond());
    let began = zone
        .preceding(now + 1.nanosecond())
        .map(|change| change.timestamp())
        .take_while(|at| at.as_microsecond() >= start)
        .find(|at| shifts(*at));
    let ends = zone
        .following(now)
        .map(|change| change.timestamp())
        .take_while(|at| at.as_microsecond() < end)
        .find(|at| shifts(*at));
    (began.map_or(start, Timestamp::as_microsecond), ends.map_or(end, Timestamp::as_microsecond))
}

/// RFC 3339 with the zone's offset, without zeros at the end of a fraction.
pub(crate) fn text(micros: i64, zone_name: &str) -> String {
    let zone = TimeZone::get(zone_name).unwrap();
    let civil = instant(micros).to_zoned(zone.clone()).datetime();
    let fraction = civil.subsec_nanosecond() / 1_000;
    let fraction = match fraction {
        0 => String::new(),
        micros => format!(".{micros:06}").trim_end_matches('0').to_owned(),
    };
    let offset = match zone_name {
        "UTC" => "Z".to_owned(),
        _ => {
            let minutes = zone.to_offset(instant(micros)).seconds() / 60;
            let sign = if minutes < 0 { '-' } else { '+' };
            format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
        }
    };
    format!("{}{fraction}{offset}", civil.strftime("%Y-%m-%dT%H:%M:%S"))
}

#[test]
fn windows_follow_the_calendar_of_their_zone() {
    let window = |window: Window, at: &str, zone: &str| {
        let at: Timestamp = at.parse().unwrap();
        let (from, to) = window.around(at.as_microsecond(), &TimeZone::get(zone).unwrap());
        format!("{} {}", text(from, zone), text(to, zone))
    };
    for (name, got, want) in [
        (
            "a day of 23 hours",
            window(Window::Day, "2026-03-29T12:00:00Z", "Europe/Berlin"),
            "2026-03-29T00:00:00+01:00 2026-03-30T00:00:00+02:00",
        ),
        (
            "the second of two equal hours",
            window(Window::Minutes(60), "2026-10-25T01:30:00Z", "Europe/Berlin"),
            "2026-10-25T02:00:00+01:00 2026-10-25T03:00:00+01:00",
        ),
        (
            "an hour cut by a shift of half an hour",
            window(Window::Minutes(60), "2026-10-03T15:40:00Z", "Australia/Lord_Howe"),
            "2026-10-04T02:30:00+11:00 2026-10-04T03:00:00+11:00",
        ),
        (
            "a day that begins at one o'clock",
            window(Window::Day, "2026-04-24T08:00:00Z", "Africa/Cairo"),
            "2026-04-24T01:00:00+03:00 2026-04-25T00:00:00+03:00",
        ),
        (
            "a week from Monday",
            window(Window::Week, "2026-01-01T00:00:00Z", "Asia/Kathmandu"),
            "2025-12-29T00:00:00+05:45 2026-01-05T00:00:00+05:45",
        ),
        (
            "a quarter",
            window(Window::Months(3), "2026-12-31T23:59:59.999999Z", "UTC"),
            "2026-10-01T00:00:00Z 2027-01-01T00:00:00Z",
        ),
    ] {
        assert_eq!(got, want, "{name}");
    }
}
