//! Time zones: found by name, and asked for offsets and for the instants of civil moments.
//!
//! The zone database is the one built into the program, so that a period has the same bounds on
//! every machine, with or without a database of its own.

use std::cmp::Reverse;
use std::sync::LazyLock;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};

use super::civil::{DAY, HOUR, MINUTE, SECOND, date_of_days};
use super::timestamp::Timestamp;
use crate::error::{Error, Result};

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// Names longer than any zone's are not compared with them.
const NAME_MAX_BYTES: usize = 64;

/// How alike two names must be, out of 100, for one to be proposed for the other.
const LIKENESS_MIN: u32 = 80;

/// How many names are proposed.
const PROPOSALS_MAX: usize = 3;

/// The zone of an IANA name such as `Europe/Berlin`, in any case.
///
/// # Errors
///
/// Invalid for an unknown name, with the names nearest to it.
pub fn parse_zone(name: &str) -> Result<TimeZone> {
    match ZONES.get(name) {
        Ok(zone) if !zone.is_unknown() => Ok(zone),
        Ok(_) | Err(_) => Err(unknown_zone(name)),
    }
}

fn unknown_zone(name: &str) -> Error {
    let nearest = if name.len() > NAME_MAX_BYTES { Vec::new() } else { nearest_zones(name) };
    let advice = if nearest.is_empty() {
        "write an IANA name such as UTC or Europe/Berlin".to_owned()
    } else {
        format!("did you mean {}?", nearest.join(" or "))
    };
    Error::invalid(format!("unknown time zone `{name}`: {advice}"))
}

fn nearest_zones(name: &str) -> Vec<String> {
    let wanted = name.to_ascii_lowercase();
    let mut alike: Vec<(Reverse<u32>, String)> = ZONES
        .available()
        .map(|zone| (Reverse(likeness(&wanted, zone.as_str())), zone.as_str().to_owned()))
        .filter(|(Reverse(likeness), _)| *likeness >= LIKENESS_MIN)
        .collect();
    alike.sort();
    alike.into_iter().take(PROPOSALS_MAX).map(|(_, zone)| zone).collect()
}

/// How alike a name is to a zone's, or to its last part (`Berlin`), in whole hundredths.
fn likeness(wanted: &str, zone: &str) -> u32 {
    let zone = zone.to_ascii_lowercase();
    let place = zone.rsplit('/').next().unwrap_or(&zone);
    let longer = |other: &str| wanted.chars().count().max(other.chars().count()).max(1);
    let hundredths = |other: &str| {
        let (edits, length) = (strsim::osa_distance(wanted, other), longer(other));
        u32::try_from(100 * length.saturating_sub(edits) / length).unwrap_or(0)
    };
    hundredths(&zone).max(hundredths(place))
}

/// The zone's offset from UTC at an instant, in microseconds.
pub(super) fn offset_at(zone: &TimeZone, micros: i64) -> i64 {
    offset_micros(zone.to_offset(jiff_instant(micros)))
}

/// The instant of a civil moment in a zone: where a clock shows it twice the first one, where it is
/// skipped as much later as clocks were put forward.
pub(super) fn compatible_instant(zone: &TimeZone, civil_micros: i64) -> i64 {
    let Some(moment) = jiff_moment(civil_micros) else {
        return edge_of_time(civil_micros);
    };
    match zone.to_ambiguous_timestamp(moment).offset() {
        AmbiguousOffset::Unambiguous { offset: before }
        | AmbiguousOffset::Fold { before, .. }
        | AmbiguousOffset::Gap { before, .. } => civil_micros - offset_micros(before),
    }
}

/// [`first_instant`] within the instants there are.
pub(super) fn first_instant_in_range(zone: &TimeZone, civil_micros: i64) -> i64 {
    first_instant(zone, civil_micros).clamp(Timestamp::MIN.micros(), Timestamp::MAX.micros() + 1)
}

/// The first instant at which a zone's calendar has reached a civil moment: a skipped moment is
/// reached when the clocks are put forward.
pub(super) fn first_instant(zone: &TimeZone, civil_micros: i64) -> i64 {
    let Some(moment) = jiff_moment(civil_micros) else {
        return edge_of_time(civil_micros);
    };
    match zone.to_ambiguous_timestamp(moment).offset() {
        AmbiguousOffset::Unambiguous { offset: before } | AmbiguousOffset::Fold { before, .. } => {
            civil_micros - offset_micros(before)
        }
        AmbiguousOffset::Gap { before, .. } => {
            let after_gap = civil_micros - offset_micros(before);
            let transition = zone.preceding(jiff_instant(after_gap + 1)).next();
            transition.map_or(after_gap, |transition| transition.timestamp().as_microsecond())
        }
    }
}

/// The end of the instants there are that lies towards a civil moment beyond every calendar.
fn edge_of_time(civil_micros: i64) -> i64 {
    if civil_micros < 0 { Timestamp::MIN.micros() } else { Timestamp::MAX.micros() + 1 }
}

pub(super) fn offset_micros(offset: Offset) -> i64 {
    i64::from(offset.seconds()) * SECOND
}

/// The instant as `jiff` has it; the last day of year 9999, which it does not have, becomes its
/// last instant.
pub(super) fn jiff_instant(micros: i64) -> jiff::Timestamp {
    let edge = if micros < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    jiff::Timestamp::from_microsecond(micros).unwrap_or(edge)
}

/// The civil moment as `jiff` has it, for years to 9999.
fn jiff_moment(civil_micros: i64) -> Option<DateTime> {
    let date = date_of_days(civil_micros.div_euclid(DAY));
    let of_day = civil_micros.rem_euclid(DAY);
    let small = |value: i64| i8::try_from(value).ok();
    DateTime::new(
        i16::try_from(date.year).ok()?,
        small(date.month)?,
        small(date.day)?,
        small(of_day / HOUR)?,
        small(of_day / MINUTE % 60)?,
        small(of_day / SECOND % 60)?,
        i32::try_from(of_day % SECOND * 1_000).ok()?,
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_found_by_iana_name() {
        for name in ["UTC", "Europe/Berlin", "europe/berlin", "US/Pacific", "Asia/Kathmandu"] {
            assert!(parse_zone(name).is_ok(), "{name}");
        }
        assert_eq!(parse_zone("UTC").unwrap(), TimeZone::UTC);
        assert!(ZONES.available().count() > 500);
    }

    #[test]
    fn unknown_zones_are_answered_with_the_nearest_names() {
        for (name, part) in [
            ("Europe/Berln", "Europe/Berlin"),
            ("Berlin", "Europe/Berlin"),
            ("America/New York", "America/New_York"),
            ("Los_Angelos", "America/Los_Angeles"),
            ("Mars/Olympus_Mons", "write an IANA name"),
            ("", "write an IANA name"),
            ("+02:00", "write an IANA name"),
            ("Etc/Unknown", "unknown time zone"),
            ("../../etc/passwd", "unknown time zone"),
        ] {
            let error = parse_zone(name).unwrap_err().to_string();
            assert!(error.contains(part), "{name}: {error}");
        }
    }

    #[test]
    fn civil_moments_become_instants_around_changes_of_the_clock() {
        let instant = |text: &str| Timestamp::parse_rfc3339(text).unwrap().micros();
        // zone, civil moment, compatible, first
        for (zone, civil, compatible, first) in [
            (
                "Europe/Berlin",
                "2026-03-29T01:59:59",
                "2026-03-29T00:59:59Z",
                "2026-03-29T00:59:59Z",
            ),
            (
                "Europe/Berlin",
                "2026-03-29T02:30:00",
                "2026-03-29T01:30:00Z",
                "2026-03-29T01:00:00Z",
            ),
            (
                "Europe/Berlin",
                "2026-10-25T02:30:00",
                "2026-10-25T00:30:00Z",
                "2026-10-25T00:30:00Z",
            ),
            (
                "Europe/Berlin",
                "2026-10-25T03:00:00",
                "2026-10-25T02:00:00Z",
                "2026-10-25T02:00:00Z",
            ),
            ("Pacific/Apia", "2011-12-30T00:00:00", "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z"),
            // Clocks went from 23:30 to 00:30 of the next day.
            (
                "America/Toronto",
                "1919-03-31T00:00:00",
                "1919-03-31T05:00:00Z",
                "1919-03-31T04:30:00Z",
            ),
            ("Asia/Tokyo", "9999-12-31T12:00:00", "9999-12-31T03:00:00Z", "9999-12-31T03:00:00Z"),
        ] {
            let zone = parse_zone(zone).unwrap();
            let moment = instant(&format!("{civil}Z"));
            assert_eq!(compatible_instant(&zone, moment), instant(compatible), "{civil}");
            assert_eq!(first_instant(&zone, moment), instant(first), "{civil}");
        }
        let beyond = Timestamp::MAX.micros() + 1;
        assert_eq!(first_instant(&TimeZone::UTC, beyond), beyond);
        assert_eq!(offset_at(&TimeZone::UTC, beyond), 0);
    }
}
