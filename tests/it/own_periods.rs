//! Billing periods of customers of their own, whose table changes between closings: nothing that was used is
//! billed twice, and what would be billed nowhere is told.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use meterhouse::clock::Clock;
use meterhouse::meter::load_bundle;
use meterhouse::period::{self, Change, Closed, ClosedPeriods, Terms};
use meterhouse::time::Timestamp;
use meterhouse::usage::Context;

use crate::agreement::RUNTIME;
use crate::statements::{context, event, ingest, lake_of_periods, run};
use crate::storm::random::Random;

const OF_FILE: &str =
    "{ file: ../cycles.csv, key: customer, anchor: since, cycle: length, from: from }";
const OTHERS_UNBILLED: &str = "{ file: ../cycles.csv, key: customer, anchor: since, cycle: length, \
                               from: from, otherwise: none }";
const OR_MONTHS: &str = "{ file: ../cycles.csv, key: customer, anchor: since, cycle: length, from: \
                         from, otherwise: { anchor: 2026-01-01 } }";

/// Writes the table of customers.
fn cycles(folder: &Path, rows: &[&str]) {
    let text = format!("customer,since,length,from\n{}\n", rows.join("\n"));
    fs::write(folder.join("queries/cycles.csv"), text).unwrap();
}

fn close(folder: &Path, period: &str, code: i32) -> String {
    run(folder, &["periods", "close", period], code).1
}

/// The same of the meter by name.
fn close_bytes(folder: &Path, period: &str, code: i32) -> String {
    run(folder, &["periods", "close", period, "bytes"], code).1
}

/// Closes a period at the beginning of a day of 2026; how many are closed by it, now or before.
fn close_on(folder: &Path, day: &str, period: &str) -> usize {
    let done = closing_on(folder, day, period);
    assert!(done.wrong.is_empty(), "{period} on {day}: {:?}", done.wrong);
    done.closed.iter().filter(|closed| !matches!(closed, Closed::Later { .. })).count()
}

/// Closes a period at the beginning of a day of 2026; what is wrong with it.
fn closed_on(folder: &Path, day: &str, period: &str) -> Vec<String> {
    let done = closing_on(folder, day, period);
    done.wrong.iter().map(ToString::to_string).collect()
}

fn closing_on(folder: &Path, day: &str, period: &str) -> ClosedPeriods {
    let now = Timestamp::parse_rfc3339(&format!("2026-{day}T00:00:00Z")).unwrap();
    let context = Context { clock: Clock::Fixed(now), ..context(folder) };
    let (meter, bundle) = load_bundle(&folder.join("queries/meters/bytes.yaml")).unwrap();
    let terms = Terms { period: period.to_owned(), ..Terms::default() };
    let closing = period::close(&context, (&meter, Some(&bundle)), &terms);
    RUNTIME.block_on(closing).unwrap()
}

fn reopen(folder: &Path, bounds: &str) {
    run(folder, &["periods", "reopen", "bytes", bounds, "--reason", "moved"], 0);
}

fn bounds(from: &str, to: &str) -> String {
    format!("2026-{from}T00:00:00Z..2026-{to}T00:00:00Z")
}

/// What all closings that hold bill of each customer, with their adjustments.
fn billed(folder: &Path) -> BTreeMap<String, i64> {
    let context = context(folder);
    let mut billed = BTreeMap::new();
    let mut add = |customer: Option<String>, value: i64| {
        *billed.entry(customer.unwrap()).or_insert(0) += value;
    };
    RUNTIME.block_on(async {
        let version = context.lake.events.snapshot(None).await.unwrap().version;
        for closing in period::list(&context.lake, None).await.unwrap() {
            if !closing.holds() {
                continue;
            }
            for line in period::lines(&context, &closing).await.unwrap() {
                add(line.customer, line.value.unwrap().parse().unwrap());
            }
            for late in period::adjustments(&context, &closing, version).await.unwrap() {
                add(late.customer, late.difference.to_string().parse().unwrap());
            }
        }
    });
    billed
}

fn sums(sums: &[(&str, i64)]) -> BTreeMap<String, i64> {
    sums.iter().map(|(customer, sum)| ((*customer).to_owned(), *sum)).collect()
}

#[test]
fn a_cycle_that_becomes_shorter_leaves_no_month_unbilled_unsaid() {
    let used =
        [("anna", "02-03", 1), ("anna", "04-03", 10), ("anna", "05-03", 100), ("zoe", "04-08", 7)];
    let folder = lake_of_periods(OF_FILE, &used);
    let folder = folder.path();
    cycles(folder, &["anna,2026-01-01,quarterly,", "zoe,2026-01-01,monthly,"]);
    assert_eq!(close_on(folder, "02-02", "billing:2026-01"), 1);
    assert_eq!(close_on(folder, "04-02", "billing:2026-01"), 2);
    for (day, month) in [("03-02", "billing:2026-02"), ("04-02", "billing:2026-03")] {
        assert_eq!(close_on(folder, day, month), 1);
    }
    // The quarter that began in April is open when April is closed for the others.
    assert_eq!(close_on(folder, "05-02", "billing:2026-04"), 1);
    cycles(folder, &["anna,2026-01-01,monthly,", "zoe,2026-01-01,monthly,"]);
    let said = close(folder, "billing:2026-06", 1);
    let april = "the period from 2026-04-01T00:00:00Z to 2026-05-01T00:00:00Z was closed before it was \
                 that of customer `anna`";
    let may = "customer `anna` used something from 2026-05-01T00:00:00Z to 2026-06-01T00:00:00Z, a period \
               that was passed over";
    assert!(said.contains(april) && said.contains(may), "{said}");
    assert!(said.contains("closed bytes"), "June is closed all the same: {said}");
    // What it says to do mends it.
    reopen(folder, &bounds("04-01", "05-01"));
    for month in ["billing:2026-04", "billing:2026-05", "billing:2026-06"] {
        close(folder, month, 0);
    }
    assert_eq!(billed(folder), sums(&[("anna", 111), ("zoe", 7)]));
}

#[test]
fn a_row_that_is_removed_is_told_and_what_was_billed_is_not_lost_with_it() {
    let used =
        [("anna", "05-03", 1), ("anna", "06-03", 10), ("bob", "05-04", 5), ("zoe", "06-08", 7)];
    let folder = lake_of_periods(OF_FILE, &used);
    let folder = folder.path();
    let all = ["anna,2026-01-01,monthly,", "bob,2026-01-01,monthly,", "zoe,2026-01-01,monthly,"];
    cycles(folder, &all);
    close(folder, "billing:2026-05", 0);
    cycles(folder, &all[2..]);
    // Whoever has left has left, unless something was used since.
    let said = close(folder, "billing:2026-06", 1);
    let want = "customer `anna` used something from 2026-06-01T00:00:00Z to 2026-07-01T00:00:00Z and has \
                no billing period";
    assert!(said.contains(want) && !said.contains("`bob`"), "{said}");
    // What was billed is lost by no closing that is made anew.
    reopen(folder, &bounds("05-01", "06-01"));
    let said = close(folder, "billing:2026-05", 1);
    let want = "customers `anna`, `bob` used something from 2026-05-01T00:00:00Z to \
                2026-06-01T00:00:00Z, between what was closed, and by now have no billing period";
    assert!(said.contains(want), "{said}");
    cycles(folder, &all);
    let said = close(folder, "billing:2026-06", 1);
    for month in [bounds("05-01", "06-01"), bounds("06-01", "07-01")] {
        let (from, to) = month.split_once("..").unwrap();
        assert!(said.contains(&format!("from {from} to {to} was closed before it was")), "{said}");
        reopen(folder, &month);
    }
    close(folder, "billing:2026-05", 0);
    close(folder, "billing:2026-06", 0);
    assert_eq!(billed(folder), sums(&[("anna", 11), ("bob", 5), ("zoe", 7)]));
    // A table without rows is no table of customers.
    cycles(folder, &[]);
    let said = close(folder, "billing:2026-07", 1);
    assert!(said.contains("has no rows, so that nobody can be billed"), "{said}");
}

#[test]
fn whoever_is_moved_after_a_period_was_opened_again_is_lost_by_no_closing() {
    let used = [("anna", "05-03", 1), ("anna", "05-20", 10), ("zoe", "05-08", 7)];
    let folder = lake_of_periods(OF_FILE, &used);
    let folder = folder.path();
    cycles(folder, &["anna,2026-05-01,monthly,", "zoe,2026-05-01,monthly,"]);
    close(folder, "billing:2026-05", 0);
    cycles(folder, &["anna,2026-05-15,monthly,", "zoe,2026-05-01,monthly,"]);
    let said = close(folder, "billing:2026-05", 1);
    let want = "customer `anna` has a line in the closed period `2026-05-01T00:00:00Z..2026-06-01T00:00:00Z`";
    assert!(said.contains(want), "{said}");
    reopen(folder, &bounds("05-01", "06-01"));
    // The first days of May are in a period that began in April, which nobody asked for.
    let said = close(folder, "billing:2026-05", 1);
    let want = "customer `anna` used something from 2026-04-15T00:00:00Z to 2026-05-15T00:00:00Z, a period \
                that was passed over: close it (`meterhouse periods close \
                2026-04-15T00:00:00Z..2026-05-15T00:00:00Z bytes`)";
    assert!(said.contains(want), "{said}");
    run(folder, &["periods", "close", &bounds("04-15", "05-15"), "bytes"], 0);
    close(folder, "billing:2026-05", 0);
    assert_eq!(billed(folder), sums(&[("anna", 11), ("zoe", 7)]));
}

#[test]
fn a_late_event_of_whoever_was_moved_is_billed_once() {
    let used = [("zoe", "05-08", 7), ("anna", "06-20", 1)];
    let folder = lake_of_periods(OF_FILE, &used);
    let folder = folder.path();
    cycles(folder, &["anna,2026-05-01,monthly,", "zoe,2026-05-01,monthly,"]);
    close(folder, "billing:2026-05", 0);
    // Anna used nothing in May, so that nothing keeps it from being moved.
    cycles(folder, &["anna,2026-05-15,monthly,", "zoe,2026-05-01,monthly,"]);
    close(folder, "billing:2026-05", 0);
    let late = [
        event("before", Some("anna"), 3, 100),
        event("in both", Some("anna"), 20, 1_000),
        event("of zoe", Some("zoe"), 20, 10_000),
    ];
    ingest(folder, &late);
    run(folder, &["periods", "close", "billing:2026-06"], 0);
    assert_eq!(billed(folder), sums(&[("anna", 1_101), ("zoe", 10_007)]));
    run(folder, &["periods", "verify"], 0);
}

#[test]
fn a_week_that_nobody_closed_is_told_by_the_next() {
    let used = [("anna", "05-03", 1), ("anna", "05-12", 10), ("anna", "05-16", 100)];
    let folder = lake_of_periods(OF_FILE, &used);
    let folder = folder.path();
    cycles(folder, &["anna,2026-05-01,weekly,"]);
    close(folder, "billing:2026-05-02", 0);
    let said = close(folder, "billing:2026-05-16", 1);
    assert!(said.contains("closed bytes"), "{said}");
    let week = bounds("05-08", "05-15");
    assert!(said.contains(&format!("(`meterhouse periods close {week} bytes`)")), "{said}");
    run(folder, &["periods", "close", &week, "bytes"], 0);
    close(folder, "billing:2026-05-16", 0);
    assert_eq!(billed(folder), sums(&[("anna", 111)]));
}

#[test]
fn whoever_was_never_billed_before_is_no_gap() {
    // What new customers used before their row, in a trial perhaps, is no matter where the meter says so.
    let used =
        [("zoe", "05-08", 7), ("zoe", "06-08", 7), ("anna", "05-20", 1), ("anna", "06-20", 10)];
    let folder = lake_of_periods(OTHERS_UNBILLED, &used);
    let folder = folder.path();
    cycles(folder, &["zoe,2026-05-01,monthly,"]);
    let said = close(folder, "billing:2026-05", 0);
    assert!(!said.contains("anna"), "{said}");
    cycles(folder, &["zoe,2026-05-01,monthly,", "anna,2026-06-01,monthly,"]);
    let said = close(folder, "billing:2026-06", 0);
    assert!(!said.contains("anna"), "{said}");
    assert_eq!(billed(folder), sums(&[("anna", 10), ("zoe", 14)]));
}

/// Every time, not just by the run that closes the periods.
#[test]
fn whoever_uses_something_and_has_no_period_is_told_until_it_has_one() {
    let used = [("zoe", "05-08", 7), ("anna", "06-03", 10), ("anna", "06-20", 100)];
    let folder = lake_of_periods(OF_FILE, &used);
    let folder = folder.path();
    let zoes = ["zoe,2026-05-01,monthly,", "zoe2,2026-05-02,monthly,"];
    cycles(folder, &zoes);
    close(folder, "billing:2026-04", 0);
    // From the first closing on; the two periods of May are one time.
    let want = "customer `anna` used something from 2026-04-01T00:00:00Z to 2026-06-02T00:00:00Z";
    for _ in 0..2 {
        ingest(folder, &[event("more", Some("anna"), 31, 1)]);
        let said = close(folder, "billing:2026-05", 1);
        assert!(said.contains(want) && said.contains("has no billing period"), "{said}");
    }
    cycles(folder, &[&zoes[..], &["anna,2026-05-01,monthly,"]].concat());
    let said = close(folder, "billing:2026-05", 1);
    assert!(said.contains("was closed before it was that of customer `anna`"), "{said}");
    reopen(folder, &bounds("05-01", "06-01"));
    close(folder, "billing:2026-05", 0);
    close(folder, "billing:2026-06", 0);
    assert_eq!(billed(folder), sums(&[("anna", 111), ("zoe", 7)]));
}

/// What a customer used after its last closing, before its row was taken away.
#[test]
fn what_was_used_before_a_row_was_removed_is_told_whatever_is_closed_later() {
    let used =
        [("anna", "05-20", 1), ("anna", "06-20", 10), ("zoe", "07-08", 7), ("zoe", "08-08", 70)];
    let folder = lake_of_periods(OF_FILE, &used);
    let folder = folder.path();
    cycles(folder, &["anna,2026-05-15,monthly,", "zoe,2026-05-01,monthly,"]);
    close(folder, "billing:2026-05", 0);
    close(folder, "billing:2026-06-10", 0);
    cycles(folder, &["zoe,2026-05-01,monthly,"]);
    let want = "customer `anna` used something from 2026-06-15T00:00:00Z to 2026-08-01T00:00:00Z and has no \
                billing period";
    let said = close(folder, "billing:2026-07", 1);
    assert!(said.contains(want), "{said}");
    let said = close(folder, "billing:2026-08", 1);
    assert!(said.contains(&want.replace("2026-08-01", "2026-09-01")), "{said}");
}

/// `otherwise: none` says that whoever has no row is not billed; that somebody lost it may be a mistake.
#[test]
fn whoever_was_billed_and_has_no_row_any_more_is_warned_of() {
    let used =
        [("anna", "05-20", 1), ("anna", "06-20", 10), ("carl", "06-20", 5), ("zoe", "07-08", 7)];
    let folder = lake_of_periods(OTHERS_UNBILLED, &used);
    let folder = folder.path();
    cycles(folder, &["anna,2026-05-15,monthly,", "zoe,2026-05-01,monthly,"]);
    let said = close(folder, "billing:2026-05", 0);
    assert!(!said.contains("warning"), "{said}");
    cycles(folder, &["zoe,2026-05-01,monthly,"]);
    let warned = |month: &str| {
        let said = close(folder, month, 0);
        let lines = said.lines().filter(|line| line.starts_with("warning:"));
        lines.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let want = "warning: meter `bytes`: customer `anna` was billed before, has no row in the table of `billing` \
                by now and used something from 2026-06-15T00:00:00Z to 2026-07-01T00:00:00Z, which is not \
                billed (`otherwise: none`)";
    assert_eq!(warned("billing:2026-06"), [want]);
    assert!(warned("billing:2026-07").is_empty());
}

/// The command that an error prints, of a meter whose customers have periods of their own.
#[test]
fn what_an_error_says_to_run_closes_what_it_is_about() {
    let used = [("anna", "04-05", 1), ("zoe", "04-08", 10)];
    let folder = lake_of_periods(OF_FILE, &used);
    let folder = folder.path();
    cycles(folder, &["anna,2026-01-01,monthly,", "zoe,2026-01-15,monthly,"]);
    for month in ["2026-03", "2026-05"] {
        let code = i32::from(month == "2026-05");
        let said = close_bytes(folder, month, code);
        let Some((_, printed)) = said.split_once("(`meterhouse ") else { continue };
        let (command, _) = printed.split_once('`').unwrap();
        run(folder, &command.split(' ').collect::<Vec<_>>(), 0);
    }
    close_bytes(folder, "2026-05", 0);
    assert_eq!(billed(folder), sums(&[("anna", 1), ("zoe", 10)]));
}

/// A period of long ago that was closed by mistake and opened again is no beginning; nor is what will be
/// closed next a gap.
#[test]
fn what_is_no_gap_between_periods_of_everybody_is_not_told() {
    let used = [("anna", "02-20", 1), ("anna", "03-05", 10), ("anna", "04-05", 100)];
    let folder = lake_of_periods("{ anchor: 2026-01-01 }", &used);
    let folder = folder.path();
    close_bytes(folder, "2025-12", 0);
    reopen(folder, "2025-12");
    close_bytes(folder, "2026-04", 0);
    // Unless it was opened for what came late.
    let late = event("late", Some("anna"), 1, 1_000).replace("2026-05-01", "2025-12-24");
    ingest(folder, &[late]);
    let said = close_bytes(folder, "2026-04", 1);
    assert!(said.contains("from 2025-12-01T00:00:00Z to 2026-01-01T00:00:00Z"), "{said}");
    close_bytes(folder, "2025-12", 0);
    for month in ["2026-01", "2026-02", "2026-03", "2026-04"] {
        close_bytes(folder, month, 0);
    }
    // One that had lines is not forgotten.
    reopen(folder, "2026-02");
    let said = close_bytes(folder, "2026-04", 1);
    assert!(said.contains("from 2026-02-01T00:00:00Z to 2026-03-01T00:00:00Z"), "{said}");
}

#[test]
fn a_month_of_everybody_that_was_passed_over_is_told_by_those_after_it() {
    let used =
        [("anna", "02-20", 1), ("anna", "04-05", 10), ("bob", "04-30", 100), ("anna", "06-01", 5)];
    let folder = lake_of_periods("{ anchor: 2026-01-01 }", &used);
    let folder = folder.path();
    // What was before the first closing may have been billed elsewhere, and nothing was used in May.
    close_bytes(folder, "2026-03", 0);
    let passed = "customers `anna`, `bob` used something from 2026-04-01T00:00:00Z to 2026-06-01T00:00:00Z, \
                  which is in no closed period";
    for closed in ["closed bytes", "closed already, nothing changed: bytes"] {
        let said = close_bytes(folder, "2026-06", 1);
        assert!(said.contains(closed) && said.contains(passed), "{said}");
        let first = "the first by `meterhouse periods close 2026-04-01..2026-05-01 bytes`";
        assert!(said.contains(first), "{said}");
    }
    close_bytes(folder, &bounds("04-01", "05-01"), 0);
    close_bytes(folder, "2026-06", 0);
    // One that is opened again and not closed anew is in no closing either.
    reopen(folder, "2026-06");
    close_bytes(folder, "2026-07", 1);
    close_bytes(folder, "2026-06", 0);
    close_bytes(folder, "2026-07", 0);
    assert_eq!(billed(folder), sums(&[("anna", 15), ("bob", 100)]));
}

/// A new anchor, and a new zone: what lies between the closings is told, and nothing is closed twice.
#[test]
fn time_between_periods_of_everybody_that_a_new_anchor_leaves_is_told() {
    let used = [("anna", "03-20", 1), ("anna", "04-05", 10), ("anna", "04-20", 100)];
    let folder = lake_of_periods("{ anchor: 2026-01-01 }", &used);
    let folder = folder.path();
    close(folder, "billing:2026-03", 0);
    let meter = folder.join("queries/meters/bytes.yaml");
    let text = fs::read_to_string(&meter).unwrap();
    fs::write(&meter, text.replace("2026-01-01", "2026-01-15")).unwrap();
    let said = close(folder, "billing:2026-04", 1);
    let want = "customer `anna` used something from 2026-04-01T00:00:00Z to 2026-04-15T00:00:00Z";
    assert!(said.contains(want), "{said}");
    close_bytes(folder, &bounds("04-01", "04-15"), 0);
    close(folder, "billing:2026-04", 0);
    assert_eq!(billed(folder), sums(&[("anna", 111)]));
}

#[test]
fn customers_without_a_row_are_told_apart_from_those_with_one() {
    let used =
        [("anna", "05-03", 1), ("anna", "06-03", 10), ("bob", "05-04", 5), ("bob", "06-04", 50)];
    let folder = lake_of_periods(OR_MONTHS, &used);
    let folder = folder.path();
    cycles(folder, &["carl,2026-01-01,monthly,"]);
    close(folder, "billing:2026-05", 0);
    // Anna gets a row of its own, whose periods begin elsewhere; bob goes on.
    cycles(folder, &["carl,2026-01-01,monthly,", "anna,2026-06-10,monthly,"]);
    let said = close(folder, "billing:2026-06", 1);
    let want = "customer `anna` was billed until 2026-06-01T00:00:00Z, and by now has a period from \
                2026-05-10T00:00:00Z to 2026-06-10T00:00:00Z";
    assert!(said.contains(want) && !said.contains("`bob`"), "{said}");
    cycles(folder, &["carl,2026-01-01,monthly,", "anna,2026-06-01,monthly,"]);
    // Those of June were closed without it.
    let said = close(folder, "billing:2026-06", 1);
    assert!(said.contains("was closed before it was that of customer `anna`"), "{said}");
    reopen(folder, &bounds("06-01", "07-01"));
    close(folder, "billing:2026-06", 0);
    assert_eq!(billed(folder), sums(&[("anna", 11), ("bob", 55)]));
}

/// What was used before a row was there is told whenever a later period is closed, and so is what lies between
/// closed months of everybody and periods of one's own.
#[test]
fn what_was_used_before_the_first_closing_of_a_customer_is_told() {
    let used = [
        ("zoe", "05-03", 1),
        ("anna", "05-04", 10),
        ("anna", "06-04", 100),
        ("bob", "05-05", 1_000),
    ];
    let folder = lake_of_periods(OF_FILE, &used);
    let folder = folder.path();
    cycles(folder, &["zoe,2026-05-01,monthly,"]);
    let said = close(folder, "billing:2026-05", 1);
    assert!(said.contains("customers `anna`, `bob` used something from 2026-05-01"), "{said}");
    cycles(
        folder,
        &["zoe,2026-05-01,monthly,", "anna,2026-05-01,monthly,", "bob,2026-05-03,14 days,"],
    );
    let said = close(folder, "billing:2026-06", 1);
    assert!(said.contains("was closed before it was that of customer `anna`"), "{said}");
    let passed = "customer `bob` used something from 2026-05-03T00:00:00Z to 2026-05-17T00:00:00Z, a period \
                  that was passed over";
    assert!(said.contains(passed), "{said}");
    reopen(folder, &bounds("05-01", "06-01"));
    close_bytes(folder, &bounds("05-01", "06-01"), 0);
    close_bytes(folder, &bounds("05-03", "05-17"), 0);
    close(folder, "billing:2026-06", 0);
    assert_eq!(billed(folder), sums(&[("anna", 110), ("bob", 1_000), ("zoe", 1)]));
}

#[test]
fn days_between_months_of_everybody_and_periods_of_ones_own_are_told() {
    let used = [("anna", "03-20", 1), ("anna", "04-05", 10), ("anna", "04-20", 100)];
    let folder = lake_of_periods(OF_FILE, &used);
    let folder = folder.path();
    cycles(folder, &["zoe,2026-01-01,monthly,"]);
    close_bytes(folder, "2026-03", 0);
    cycles(folder, &["anna,2026-01-15,monthly,"]);
    let said = close(folder, "billing:2026-04", 1);
    let want = "customer `anna` was billed until 2026-04-01T00:00:00Z, and by now has a period from \
                2026-03-15T00:00:00Z to 2026-04-15T00:00:00Z";
    assert!(said.contains(want), "{said}");
    assert_eq!(billed(folder), sums(&[("anna", 101)]));
    // Instants that are nobody's period are not closed for everybody by mistake.
    let said = close_bytes(folder, &bounds("06-01", "07-01"), 1);
    assert!(said.contains("nobody has a billing period from 2026-06-01"), "{said}");
}

/// Lives of customers whose rows change at random; more with `METERHOUSE_TEST_LIVES`.
fn lives() -> u64 {
    std::env::var("METERHOUSE_TEST_LIVES").map_or(4, |lives| lives.parse().unwrap())
}

const CUSTOMERS: [&str; 4] = ["anna", "bob", "carl", "dora"];

fn place(random: &mut Random, of: u64) -> usize {
    usize::try_from(random.below(of)).unwrap()
}

/// A row of a customer, or none.
fn row(random: &mut Random, customer: &str) -> Option<String> {
    let anchor = ["01-01", "01-10", "01-20"][place(random, 3)];
    let length = ["monthly", "monthly", "monthly", "quarterly", "14 days"][place(random, 5)];
    (random.below(8) > 0).then(|| format!("{customer},2026-{anchor},{length},"))
}

/// An event whose value is a power of three: the digits of a sum tell how often each was billed.
fn nth_event(random: &mut Random, n: usize) -> (String, u32, String) {
    let (customer, place) = (CUSTOMERS[n % 4], u32::try_from(n / 4).unwrap());
    let day = format!("{:02}-{:02}", 1 + random.below(8), 1 + random.below(28));
    let event = serde_json::json!({
        "event_name": "e", "idempotency_key": format!("life {n}"), "customer_id": customer,
        "timestamp": format!("2026-{day}T06:00:00Z"), "properties": { "bytes": 3_i64.pow(place) },
    });
    (event.to_string() + "\n", place, day)
}

/// Whatever rows say when months are closed, whatever comes late and whatever is opened again: no event is
/// billed twice, and what is told to be in no closing is just what is billed nowhere, from the first closing on.
#[test]
fn no_event_is_billed_twice_or_nowhere_unsaid() {
    let (mut unbilled_seen, mut billed_seen) = (0, 0);
    for seed in 0..lives() {
        let mut random = Random::new(20_261_127 + seed);
        let billing = if seed % 2 == 0 { OF_FILE } else { OR_MONTHS };
        let folder = lake_of_periods(billing, &[("zoe", "05-01", 0)]);
        let folder = folder.path();
        let events: Vec<_> = (0..4 * 8).map(|n| nth_event(&mut random, n)).collect();
        let (late, known): (Vec<_>, Vec<_>) = events.iter().partition(|_| random.below(2) == 0);
        ingest(folder, &known.into_iter().map(|(event, ..)| event.clone()).collect::<Vec<_>>());
        let mut late: Vec<String> = late.into_iter().map(|(event, ..)| event.clone()).collect();
        let mut rows: Vec<Option<String>> = Vec::new();
        for month in 1..=9_i32 {
            for (place, customer) in CUSTOMERS.iter().enumerate() {
                if rows.len() == place {
                    rows.push(row(&mut random, customer));
                } else if random.below(2) == 0 {
                    rows[place] = row(&mut random, customer);
                }
            }
            let some: Vec<&str> = rows.iter().flatten().map(String::as_str).collect();
            cycles(folder, &some);
            if random.below(3) == 0 {
                reopen_any(folder, &mut random);
            }
            let day = format!("{:02}-02", month + 1);
            // What began in former months has ended by now.
            for begun in 1.max(month - 2)..=month {
                closed_on(folder, &day, &format!("billing:2026-{begun:02}"));
            }
            let taken = late.len().min(2);
            ingest(folder, &late.drain(..taken).collect::<Vec<_>>());
        }
        ingest(folder, &late);
        // Everybody has months at last, and what is left is told.
        let all = CUSTOMERS.map(|customer| format!("{customer},2026-01-01,monthly,"));
        cycles(folder, &all.iter().map(String::as_str).collect::<Vec<_>>());
        let said = closed_on(folder, "11-20", "billing:2026-10");
        let told: Vec<Told> = said.iter().flat_map(|text| told(text)).collect();
        let (billed, first) = (billed(folder), first_lines(folder));
        let first_month = first_month(folder);
        let mut lost = Vec::new();
        for (n, (_, place, day)) in events.iter().enumerate() {
            let customer = CUSTOMERS[n % 4];
            let times = billed.get(customer).copied().unwrap_or(0) / 3_i64.pow(*place) % 3;
            let of = format!("seed {seed}, {customer} on {day}, {times} times: {said:#?}");
            assert!((0..2).contains(&times), "{of}");
            billed_seen += times;
            if times == 0 {
                lost.push((customer, day.as_str()));
                // At last everybody's periods begin with a month: those that do since anything was closed.
                let is_behind = first.get(customer).is_some_and(|first| first[5..10] <= **day)
                    || first_month.as_str() <= day.as_str();
                let is_told = told.iter().any(|told| told.is_of(customer, day));
                assert!(is_told || !is_behind, "{of}");
                unbilled_seen += u32::from(is_told);
            }
        }
        for told in told {
            let is_true = lost.iter().any(|(customer, day)| told.is_of(customer, day));
            assert!(is_true, "seed {seed}, no event is lost of {told:?}: {said:#?}");
        }
    }
    assert!(unbilled_seen > 0 && billed_seen > 0, "{unbilled_seen} {billed_seen}");
}

/// Whatever is closed for everybody in whatever order, and opened again: what is told to be in no closing is
/// what is in none, from the first closing on.
#[test]
fn what_no_closing_of_everybody_holds_is_told() {
    let day = |number: u64| {
        let text = Timestamp::from_micros(
            1_767_225_600_000_000 + 86_400_000_000 * i64::try_from(number).unwrap(),
        );
        text.to_string()
    };
    let (mut told_seen, mut overlaps_seen) = (0, 0);
    for seed in 0..4 * lives() {
        let mut random = Random::new(seed);
        let days: Vec<(&str, u64)> =
            (0..24).map(|n| (CUSTOMERS[n % 2], random.below(200))).collect();
        let dates: Vec<String> =
            days.iter().map(|(_, number)| day(*number)[5..10].to_owned()).collect();
        let used: Vec<(&str, &str, u64)> = days
            .iter()
            .zip(&dates)
            .map(|((customer, _), date)| (*customer, date.as_str(), 1))
            .collect();
        let folder = lake_of_periods("{ anchor: 2026-01-01 }", &used);
        let folder = folder.path();
        let context = context(folder);
        let (meter, bundle) = load_bundle(&folder.join("queries/meters/bytes.yaml")).unwrap();
        let close = |from: u64, to: u64| {
            let terms = Terms { period: format!("{}..{}", day(from), day(to)), ..Terms::default() };
            RUNTIME.block_on(period::close(&context, (&meter, Some(&bundle)), &terms))
        };
        let (mut closed, mut opened): (Vec<[u64; 2]>, Vec<[u64; 2]>) = (Vec::new(), Vec::new());
        for _ in 0..10 {
            let from = random.below(190);
            let to = from + 1 + random.below(30);
            let overlaps = closed.iter().any(|[start, end]| *start < to && from < *end);
            let is_refused = close(from, to).is_err();
            let is_same = closed.contains(&[from, to]);
            assert_eq!(is_refused, overlaps && !is_same, "seed {seed}, {from} {to}: {closed:?}");
            overlaps_seen += u64::from(is_refused);
            if !is_refused && !is_same {
                closed.push([from, to]);
            }
            if random.below(4) == 0 && !closed.is_empty() {
                let [from, to] = closed.swap_remove(place(&mut random, closed.len() as u64));
                // One without lines is as if it had never been.
                let has_lines = days.iter().any(|(_, number)| from <= *number && *number < to);
                opened.extend(has_lines.then_some([from, to]));
                reopen(folder, &format!("{}..{}", day(from), day(to)));
            }
        }
        let said: Vec<String> =
            close(230, 240).unwrap().wrong.iter().map(ToString::to_string).collect();
        let told: Vec<Told> = said.iter().flat_map(|text| told(text)).collect();
        let first = closed.iter().chain(&opened).map(|[from, _]| *from).min().unwrap_or(u64::MAX);
        for ((customer, number), date) in days.iter().zip(&dates) {
            let is_in_none =
                first <= *number && !closed.iter().any(|[from, to]| from <= number && number < to);
            let is_told = told.iter().any(|told| told.is_of(customer, date));
            assert_eq!(is_told, is_in_none, "seed {seed}, {customer} on {date}: {said:#?}");
            told_seen += u64::from(is_told);
        }
        for told in &told {
            let is_true = used.iter().any(|(customer, date, _)| told.is_of(customer, date));
            assert!(is_true, "seed {seed}, nobody used anything of {told:?}: {said:#?}");
        }
    }
    assert!(told_seen > 0 && overlaps_seen > 0, "{told_seen} {overlaps_seen}");
}

/// A customer and dates between which something is said to be in no closing.
#[derive(Debug)]
struct Told {
    customer: String,
    from: String,
    to: String,
}

impl Told {
    fn is_of(&self, customer: &str, day: &str) -> bool {
        self.customer == customer && self.from.as_str() <= day && day < self.to.as_str()
    }
}

/// What an error tells, by customer: the names in it, and the dates that it names from and to.
fn told(text: &str) -> Vec<Told> {
    // Beside the period that it is of, it names the time that would be lost.
    let of_time = text.split_once("what was used").map_or(text, |(_, of_time)| of_time);
    let date = |after: &str| {
        let (_, rest) = of_time.split_once(after).unwrap_or_else(|| panic!("{after}: {text}"));
        rest.get(5..10).unwrap().to_owned()
    };
    let (from, to) = (date(" from "), date("Z to "));
    let names = CUSTOMERS.into_iter().filter(|name| text.contains(&format!("`{name}`")));
    names
        .map(|name| Told { customer: name.to_owned(), from: from.clone(), to: to.clone() })
        .collect()
}

/// Opens one of the closings that hold again.
fn reopen_any(folder: &Path, random: &mut Random) {
    let context = context(folder);
    RUNTIME.block_on(async {
        let mut all = period::list(&context.lake, None).await.unwrap();
        all.retain(period::Closing::holds);
        if !all.is_empty() {
            let closing = &all[place(random, all.len() as u64)];
            period::reopen(&context, closing, &Change::default()).await.unwrap();
        }
    });
}

/// The first day of a month, as month and day, that begins no earlier than any closing did.
fn first_month(folder: &Path) -> String {
    let context = context(folder);
    let all = RUNTIME.block_on(period::list(&context.lake, None)).unwrap();
    let first = all.iter().map(|closing| closing.record.from.as_str()).min().unwrap();
    let (month, day): (u32, &str) = (first[5..7].parse().unwrap(), &first[8..10]);
    format!("{:02}-01", if day == "01" { month } else { month + 1 })
}

/// Where the first closing that is of each customer begins that has a line of it.
fn first_lines(folder: &Path) -> BTreeMap<String, String> {
    let context = context(folder);
    let mut first = BTreeMap::new();
    RUNTIME.block_on(async {
        let mut all = period::list(&context.lake, None).await.unwrap();
        all.sort_by(|a, b| a.record.from.cmp(&b.record.from));
        for closing in all {
            for line in period::lines(&context, &closing).await.unwrap() {
                let from = || closing.record.from.clone();
                first.entry(line.customer.unwrap()).or_insert_with(from);
            }
        }
    });
    first
}

#[test]
fn without_names_only_meters_of_the_kind_of_period_are_closed() {
    let folder = lake_of_periods(OF_FILE, &[("anna", "05-03", 1)]);
    let folder = folder.path();
    cycles(folder, &["anna,2026-05-01,monthly,"]);
    let said = close(folder, "2026-05", 1);
    assert!(said.contains("no meter can be closed for `2026-05`"), "{said}");
    let other = "meter: other\nevent: e\naggregation: count\n";
    fs::write(folder.join("queries/meters/other.yaml"), other).unwrap();
    let said = close(folder, "2026-05", 0);
    let left_out = "with other periods by their `billing`, and so left out: bytes\n";
    assert!(said.contains(left_out) && said.contains("closed other"), "{said}");
    let said = close(folder, "billing:2026-05", 0);
    let left_out = "without `billing`, and so left out: other\n";
    assert!(said.contains(left_out) && said.contains("closed bytes"), "{said}");
    // Of a meter whose customers share their periods, those of the calendar that are some of them.
    for (name, anchor) in [("fits", "2026-01-01"), ("differs", "2026-01-15")] {
        let meter = format!(
            "meter: {name}\nevent: e\naggregation: count\nbilling: {{ anchor: {anchor} }}\n"
        );
        fs::write(folder.join(format!("queries/meters/{name}.yaml")), meter).unwrap();
    }
    let said = close(folder, "2026-04", 0);
    let left_out = "and so left out: bytes, differs\n";
    assert!(said.contains(left_out) && said.contains("closed fits"), "{said}");
    let said = run(folder, &["periods", "close", "2026-04", "differs"], 0).1;
    assert!(said.contains("closed differs"), "{said}");
    assert!(said.contains("warning: differs: 2026-04 is none of the periods of its"), "{said}");
    // A meter that was closed until some time ago and has lost its file is missed, unless its definition
    // is in the lake.
    run(folder, &["meters", "publish", "differs"], 0);
    for name in ["fits", "differs"] {
        fs::remove_file(folder.join(format!("queries/meters/{name}.yaml"))).unwrap();
    }
    let missed =
        "warning: meter `fits` was closed until 2026-05-01T00:00:00Z and has no file any more\n";
    for (month, missed_there) in [("2026-04", 1), ("2026-05", 1), ("2026-07", 1), ("2026-09", 0)] {
        let said = close(folder, month, 0);
        assert_eq!(said.matches(missed).count(), missed_there, "{month}: {said}");
        assert_eq!(said.matches("any more").count(), missed_there, "{said}");
    }
    let said = run(folder, &["periods", "close", "2026-05", "other"], 0).1;
    assert!(!said.contains(missed), "{said}");
}
