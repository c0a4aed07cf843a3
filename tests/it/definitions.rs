//! Definitions as code through the program: tests beside meters, published versions, comparisons.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;

use tempfile::TempDir;

use crate::program::meterhouse;

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

const BYTES: &str = "meter: traffic\nevent: transfer\naggregation: sum\nproperty: bytes\n";
const GOOD_BYTES: &str = "meter: traffic\nevent: transfer\nfilter: { property: status, equals: 200 }\n\
                          aggregation: sum\nproperty: bytes\n";

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        write(folder.path(), name, text);
    }
    folder
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The standard output of a command that must succeed.
fn answer(folder: &Path, args: &[&str]) -> String {
    let output = meterhouse(folder, args);
    assert_eq!(code(&output), 0, "{args:?}: {}", said(&output));
    out(&output)
}

/// The words of a command that must fail.
fn refusal(folder: &Path, args: &[&str]) -> String {
    let output = meterhouse(folder, args);
    assert_eq!(code(&output), 1, "{args:?}: {}{}", out(&output), said(&output));
    said(&output)
}

/// A version that changes on 15 May, and billing periods of a table of the lake.
fn two_versions_with_billing_periods(folder: &Path, table: &str) {
    let billing = "billing: { table: cycles, key: customer, anchor: since }\n";
    write(folder, "cycles.csv", table);
    answer(folder, &["lookups", "put", "cycles", "cycles.csv"]);
    for (definition, from) in [(BYTES, &[][..]), (GOOD_BYTES, &["--from", "2026-05-15"])] {
        write(folder, "queries/meters/traffic.yaml", &format!("{definition}{billing}"));
        answer(folder, &[&["meters", "publish"], from].concat());
    }
}

#[test]
fn versions_change_where_the_periods_of_all_customers_begin() {
    let folder = folder(&[]);
    let folder = folder.path();
    ingest(folder);
    let asked = ["usage", "traffic@published", "--window", "billing_period", "-o", "csv"];
    let straddles = "within the range: ask for each part apart";
    // acme's period begins with the new version, blue's does not.
    two_versions_with_billing_periods(
        folder,
        "customer,since\nacme,2026-01-15\nblue,2026-01-10\ncold,2026-01-15\n",
    );
    let told = refusal(folder, &asked);
    assert!(told.contains(straddles), "{told}");
    let acme = answer(folder, &[&asked[..], &["--customer", "acme"]].concat());
    let rows = "2026-04-15T00:00:00Z,2026-05-15T00:00:00Z,acme,130,2,0\n\
                2026-05-15T00:00:00Z,2026-06-15T00:00:00Z,acme,7,1,0\n";
    assert_eq!(acme, format!("window_start,window_end,customer_id,value,events,skipped\n{rows}"));
    let told = refusal(folder, &[&asked[..], &["--customer", "blue"]].concat());
    assert!(told.contains(straddles), "{told}");
    // Who is in no table has one row for both versions.
    write(folder, "cycles.csv", "customer,since\nacme,2026-01-15\n");
    answer(folder, &["lookups", "put", "cycles", "cycles.csv"]);
    let told = refusal(folder, &asked);
    assert!(told.contains(straddles), "{told}");
    let told = refusal(folder, &[&asked[..], &["--customer", "blue"]].concat());
    assert!(told.contains(straddles), "{told}");
    // An anchor of a named period alone is none of the windows at the change.
    let named =
        ["usage", "traffic@published", "--anchor", "2026-05-01", "--period", "billing:2026-05"];
    let told = refusal(folder, &named);
    assert!(told.contains(straddles), "{told}");
    // Both published versions read the table that is put.
    write(folder, "cycles.csv", "who,since\nacme,2026-01-15\n");
    fs::remove_dir_all(folder.join("queries")).unwrap();
    let told = refusal(folder, &["lookups", "put", "cycles", "cycles.csv"]);
    assert!(told.contains("the published version") && told.contains("has no column"), "{told}");
    write(folder, "cycles.csv", "customer,since,since\nacme,2026-01-15,2026-01-15\n");
    let told = refusal(folder, &["lookups", "put", "cycles", "cycles.csv"]);
    assert!(told.contains("two columns `since`"), "{told}");
}

/// An event of the tests: day of May 2026, customer, bytes and status.
type Transfer = (u8, &'static str, i64, i64);

const TRANSFERS: [Transfer; 7] = [
    (1, "acme", 100, 200),
    (2, "acme", 30, 500),
    (20, "acme", 7, 200),
    (3, "blue", 1_000, 200),
    (21, "blue", 4_000, 200),
    (4, "cold", 55, 404),
    (22, "cold", 5, 200),
];

fn ingest(folder: &Path) {
    let line = |(place, (day, customer, bytes, status)): (usize, &Transfer)| {
        format!(
            r#"{{"idempotency_key":"k{place}","event_name":"transfer","customer_id":"{customer}","timestamp":"2026-05-{day:02}T12:00:00Z","properties":{{"bytes":{bytes},"status":{status}}}}}"#
        ) + "\n"
    };
    let lines: String = TRANSFERS.iter().enumerate().map(line).collect();
    write(folder, "events.ndjson", &lines);
    answer(folder, &["ingest", "events.ndjson"]);
}

/// The sums by customer of the events that `counts`, computed apart.
fn sums(counts: impl Fn(&Transfer) -> bool) -> BTreeMap<&'static str, i64> {
    let mut sums = BTreeMap::new();
    for (_, customer, bytes, _) in TRANSFERS.iter().filter(|event| counts(event)) {
        *sums.entry(*customer).or_insert(0) += bytes;
    }
    sums
}

fn csv(header: &str, sums: &BTreeMap<&str, i64>) -> String {
    let rows = sums.iter().map(|(customer, sum)| format!("{customer},{sum}\n"));
    format!("{header}\n{}", rows.collect::<String>())
}

/// Customer and value of an answer in CSV.
fn values(answer: &str) -> String {
    let columns = |line: &str| line.splitn(3, ',').take(2).collect::<Vec<_>>().join(",") + "\n";
    answer.lines().map(columns).collect()
}

/// The version of the meter in the folder.
fn version(folder: &Path) -> String {
    let list = answer(folder, &["meters", "list", "-o", "csv"]);
    list.lines().nth(1).unwrap().split(',').nth(4).unwrap().to_owned()
}

#[test]
fn the_meters_of_the_repository_pass_their_tests_and_all_have_some() {
    let meters = format!("{REPOSITORY}/queries/meters");
    let folder = folder(&[]);
    let output = meterhouse(folder.path(), &["meters", "test", "--meters", &meters]);
    assert_eq!(code(&output), 0, "{}{}", out(&output), said(&output));
    assert!(out(&output).lines().count() >= 5, "{}", out(&output));
    assert!(out(&output).lines().all(|line| line.starts_with("ok ")), "{}", out(&output));
    assert!(said(&output).ends_with("tests passed\n"), "{}", said(&output));
    assert!(!folder.path().join("lake").exists());
}

#[test]
fn a_test_that_fails_shows_what_was_expected_and_what_came() {
    let tests = "\
- test: passes
  events:
    - { customer_id: a, properties: { bytes: 12.50 } }
  expect:
    - { customer_id: a, value: 12.5 }
- test: fails
  events:
    - { customer_id: a, properties: { bytes: 5 } }
    - { customer_id: b, properties: { bytes: 6 } }
  expect:
    - { customer_id: a, value: 5 }
    - { customer_id: b, value: 7, events: 1 }
- test: refused
  events:
    - { properties: { bytes: 1 } }
    - { idempotency_key: event-1, properties: { bytes: 2 } }
  expect: []
- test: no such column
  events: []
  expect:
    - { valeu: 1 }
- test: an error is expected
  events: []
  window: fortnight
  error: fortnight
- test: a period
  events:
    - { properties: { bytes: 1 } }
    - { timestamp: 2026-04-30T23:59:59Z, properties: { bytes: 2 } }
  period: 2026-05
  where: bytes < 10
  expect:
    - { value: 1 }
";
    let folder = folder(&[
        ("queries/meters/traffic.yaml", BYTES),
        ("queries/meters/traffic.test.yaml", tests),
        ("queries/meters/other.yaml", "meter: other\naggregation: count\n"),
    ]);
    let output = meterhouse(folder.path(), &["meters", "test"]);
    let want = "\
ok traffic: passes
FAILED traffic: fails
  ./queries/meters/traffic.test.yaml:10: other rows came than expected (- expected, + came)
    - customer_id: b, value: 7, events: 1  (line 12)
    + customer_id: b, value: 6, events: 1
    and 1 as expected
FAILED traffic: refused
  ./queries/meters/traffic.test.yaml:16: an event is in conflict with an earlier one: ";
    assert_eq!(code(&output), 1, "{}", said(&output));
    assert!(out(&output).starts_with(want), "{}", out(&output));
    for part in [
        "FAILED traffic: no such column\n  ./queries/meters/traffic.test.yaml:20: the answer has no \
         column `valeu`, which line 21 expects; it has customer_id, value, events, skipped\n",
        "ok traffic: an error is expected\nok traffic: a period\n",
    ] {
        assert!(out(&output).contains(part), "no `{part}` in {}", out(&output));
    }
    assert_eq!(said(&output), "error: 3 of 6 tests failed\n");
    let none = refusal(folder.path(), &["meters", "test", "other"]);
    assert!(none.contains("no tests of meter `other`: write ./queries/meters/other.test.yaml"));
    // Neither is a meter to anybody else.
    assert_eq!(answer(folder.path(), &["meters", "list", "-o", "csv"]).lines().count(), 3);
}

#[test]
fn mistakes_in_tests_are_told_with_their_places() {
    let tests = "\
- test: x
  evnts: []
  expect: []
- events: [{ customer: a, properties: 5 }]
  period: 2026-13
  by: [a]
  total: true
  expect: []
- test: z
  events_file: /etc/passwd
  error: e
";
    let folder = folder(&[
        ("queries/meters/traffic.yaml", BYTES),
        ("queries/meters/traffic.test.yaml", tests),
        ("queries/meters/orphan.test.yaml", "- test: x\n"),
        ("queries/meters/other.yaml", "meter: other\naggregation: count\n"),
        ("queries/meters/other.test.yaml", "- { test: none, events: [], expect: [] }\n"),
    ]);
    let output = meterhouse(folder.path(), &["meters", "test"]);
    assert_eq!(code(&output), 1);
    // They keep no other tests from running.
    assert_eq!(out(&output), "ok other: none\n");
    let told = said(&output);
    let checked = refusal(folder.path(), &["meters", "check"]);
    assert!(checked.contains("traffic.test.yaml:2:3: unknown key `evnts`"), "{checked}");
    for part in [
        "orphan.test.yaml: no meter file of this name without `.test` stands beside it",
        "traffic.test.yaml:2:3: unknown key `evnts`",
        "did you mean `events`?",
        "traffic.test.yaml:1:3: missing key `events`",
        "traffic.test.yaml:4:3: missing key `test`",
        "traffic.test.yaml:4:14: unknown key `customer`",
        "traffic.test.yaml:4:39: `properties` needs a mapping, not a value",
        "traffic.test.yaml:5:11: period `2026-13`",
        "`by`, `breakdown` and `total` exclude each other",
        "traffic.test.yaml:10:16: `events_file` needs a relative path",
    ] {
        assert!(told.contains(part), "no `{part}` in {told}");
    }
}

#[test]
fn events_of_a_test_may_lie_in_a_file() {
    let tests = "- test: from a file\n  events_file: data/two.ndjson\n  total: true\n  expect:\n    \
                 - { value: 3, events: 2 }\n- test: no file\n  events_file: data/none.ndjson\n  \
                 expect: []\n";
    let event = |key: &str, bytes: u8| {
        format!(
            r#"{{"idempotency_key":"{key}","event_name":"transfer","customer_id":"a","timestamp":"2026-05-01T00:00:00Z","properties":{{"bytes":{bytes}}}}}"#
        ) + "\n"
    };
    let folder = folder(&[
        ("queries/meters/traffic.yaml", BYTES),
        ("queries/meters/traffic.test.yaml", tests),
        ("queries/meters/data/two.ndjson", &(event("a", 1) + &event("b", 2))),
    ]);
    let output = meterhouse(folder.path(), &["meters", "test"]);
    assert_eq!(code(&output), 1);
    assert!(out(&output).starts_with("ok traffic: from a file\nFAILED traffic: no file\n"));
    assert!(out(&output).contains("traffic.test.yaml:7: "), "{}", out(&output));
}

#[test]
fn a_test_may_ask_for_billing_periods_and_windows_without_events() {
    let tests = "\
- test: periods from an anchor
  events:
    - { timestamp: 2026-01-30T23:00:00Z, properties: { bytes: 3 } }
    - { timestamp: 2026-03-31T00:00:00Z, properties: { bytes: 4 } }
  anchor: 2026-01-31
  cycle: monthly
  window: billing_period
  total: true
  fill: zero
  expect:
    - { window_start: 2025-12-31T00:00:00Z, value: 3 }
    - { window_start: 2026-01-31T00:00:00Z, value: 0 }
    - { window_start: 2026-02-28T00:00:00Z, value: 0 }
    - { window_start: 2026-03-31T00:00:00Z, value: 4 }
- test: no such fill
  events: []
  fill: nothing
  expect: []
";
    let folder = folder(&[
        ("queries/meters/traffic.yaml", BYTES),
        ("queries/meters/traffic.test.yaml", tests),
    ]);
    let told = refusal(folder.path(), &["meters", "test"]);
    assert!(told.contains("traffic.test.yaml:17:9: unknown fill `nothing`: write zero"), "{told}");
    let good = tests.split("- test: no such fill").next().unwrap();
    write(folder.path(), "queries/meters/traffic.test.yaml", good);
    let answered = answer(folder.path(), &["meters", "test"]);
    assert_eq!(answered, "ok traffic: periods from an anchor\n");
}

#[test]
fn a_test_may_give_the_lake_its_lookup_tables() {
    let meter = "meter: m\naggregation: count\ncustomer: [owner, customer_id]\nlookups:\n  \
                 owner: { of: domain, table: owners, key: d, value: c, from: since, to: until }\n  \
                 team: { of: domain, table: teams, key: d, value: t, otherwise: none }\n";
    let events = "  events:\n    \
                  - { customer_id: ~, timestamp: 2026-05-01T00:00:00Z, properties: { domain: x } }\n    \
                  - { customer_id: ~, timestamp: 2026-06-01T00:00:00Z, properties: { domain: x } }\n    \
                  - { customer_id: ~, properties: { domain: y } }\n";
    let case = |lookups: &str, rest: &str| format!("- test: {lookups}\n{lookups}{events}{rest}\n");
    let tests = [
        case(
            "  lookups: { owners: ../tables/owners.csv, teams: teams.csv }\n",
            "  by: [customer_id, team]\n  expect:\n    - { customer_id: acme, team: red, value: 1 }\n    \
             - { customer_id: blue, team: red, value: 1 }\n    - { customer_id: ~, team: none, value: 1 }",
        ),
        case("  lookups: { owners: ../tables/owners.csv, teams: other.csv }\n", "  expect: []"),
        case("  lookups: { owners: ../tables/owners.csv }\n", "  expect: []"),
        case("  lookups: { owners: ../tables/owners.csv, tems: teams.csv }\n", "  error: owners"),
        case("  lookups: { owners: ../tables/broken.csv, teams: teams.csv }\n", "  expect: []"),
        case(
            "  lookups: { owners: ../tables/broken.csv, teams: teams.csv }\n",
            "  error: two lines",
        ),
        case(
            "  lookups: { owners: ../tables/owners.csv }\n",
            "  error: reads table `teams`, which",
        ),
    ];
    let names = ["all", "no file", "one lacks", "one too many", "broken", "which error", "lacks"];
    let tests: String = (tests.iter().zip(names))
        .map(|(text, name)| format!("- test: {name}\n{}", text.split_once('\n').unwrap().1))
        .collect();
    let folder = folder(&[
        ("queries/meters/m.yaml", meter),
        ("queries/meters/m.test.yaml", &tests),
        ("queries/meters/teams.csv", "d,t\nx,red\n"),
        (
            "queries/tables/owners.csv",
            "d,c,since,until\nx,acme,2026-05-01,2026-06-01\nx,blue,2026-06-01,\n",
        ),
        ("queries/tables/broken.csv", "d,c,since,until\nx,a,,\nx,b,,\n"),
    ]);
    let output = meterhouse(folder.path(), &["meters", "test"]);
    let told = out(&output);
    assert_eq!(code(&output), 1, "{told}");
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], "ok m: all", "{told}");
    for want in [
        "FAILED m: no file\n  ./queries/meters/m.test.yaml:15: table ./queries/meters/other.csv does not exist\n",
        "lookup `team` reads table `teams` of the lake: give the test its rows, `lookups: { teams: FILE }`\n",
        "nothing in meter `m` reads a table `tems`\n",
        "FAILED m: broken\n",
        "table owners, version 1:3:1: key `x` is mapped to `b`",
        "FAILED m: which error\n",
        "ok m: lacks\n",
    ] {
        assert!(told.contains(want), "{want}: {told}");
    }
    assert!(said(&output).contains("5 of 7 tests failed"), "{}", said(&output));
    for (lookups, want) in [
        ("{ Owners: x.csv }", "`Owners` is no name of a table of the lake"),
        ("{ owners: /x.csv }", "`owners` needs a relative path, not `/x.csv`"),
        ("x.csv", "`lookups` needs a mapping, not a value"),
    ] {
        let text = format!("- test: t\n  lookups: {lookups}\n  events: []\n  expect: []\n");
        write(folder.path(), "queries/meters/m.test.yaml", &text);
        let told = refusal(folder.path(), &["meters", "check"]);
        assert!(told.contains(want), "{told}");
    }
}

#[test]
fn a_published_version_answers_for_ever_without_its_files() {
    let lookup =
        "dimensions: [kind]\nlookups: { kind: { of: status, file: ../k.csv, key: s, value: k } }\n";
    let meter = BYTES.to_owned() + lookup;
    let folder =
        folder(&[("queries/meters/traffic.yaml", &meter), ("queries/k.csv", "s,k\n200,good\n")]);
    let folder = folder.path();
    ingest(folder);
    let old = version(folder);
    let output = meterhouse(folder, &["meters", "publish", "--reason", "the contract"]);
    assert_eq!(
        said(&output),
        format!("traffic@{old} is published and in effect for all of history\n")
    );
    let ask = |which: &str| answer(folder, &["usage", which, "--by", "kind", "-o", "csv"]);
    let before = ask("traffic");
    assert!(before.contains("good,5112,"), "{before}");
    let output = meterhouse(folder, &["meters", "publish", "traffic"]);
    assert!(said(&output).contains("already; nothing changed"), "{}", said(&output));

    // The table changes, then everything goes.
    write(folder, "queries/k.csv", "s,k\n500,bad\n");
    assert_ne!(version(folder), old);
    assert_ne!(ask("traffic"), before);
    assert_eq!(ask(&format!("traffic@{}", &old[..4])), before);
    fs::remove_dir_all(folder.join("queries")).unwrap();
    assert_eq!(ask(&format!("traffic@{old}")), before);
    assert_eq!(ask("traffic@published"), before);
    let sql = format!("SELECT * FROM meter('traffic@{}', by => 'kind')", &old[..5]);
    assert_eq!(answer(folder, &["sql", "-o", "csv", &sql]), before);

    let shown = answer(folder, &["meters", "show", "traffic@published"]);
    assert!(shown.contains(&format!("version      {old}\n")), "{shown}");
    assert!(shown.contains("1 rows, otherwise unmapped"), "{shown}");

    let history = answer(folder, &["meters", "history", "traffic", "-o", "csv"]);
    let lines: Vec<&str> = history.lines().collect();
    assert_eq!(lines[0], "meter,version,effective_from,in_effect,published_at,by,reason");
    assert!(lines[1].starts_with(&format!("traffic,{old},,always,")), "{history}");
    assert!(lines[1].ends_with(",tester,the contract"), "{history}");
    assert_eq!(lines.len(), 2);
}

#[test]
fn a_version_may_hold_from_a_date() {
    let folder = folder(&[("queries/meters/traffic.yaml", BYTES)]);
    let folder = folder.path();
    ingest(folder);
    answer(folder, &["meters", "publish"]);
    let old = version(folder);
    write(folder, "queries/meters/traffic.yaml", GOOD_BYTES);
    answer(folder, &["meters", "publish", "--from", "2026-05-15"]);
    let new = version(folder);
    assert_ne!(old, new);

    let ask = |args: &[&str]| {
        let all: Vec<&str> =
            ["usage", "traffic@published", "-o", "csv"].iter().chain(args).copied().collect();
        answer(folder, &all)
    };
    let header = "customer_id,value";
    let first = sums(|event| event.0 < 15);
    let second = sums(|event| event.0 >= 15 && event.3 == 200);
    assert_eq!(values(&ask(&["--to", "2026-05-15"])), csv(header, &first));
    assert_eq!(values(&ask(&["--from", "2026-05-15"])), csv(header, &second));
    assert_eq!(values(&ask(&["--period", "2026-06"])), format!("{header}\n"));

    // A bound that cuts a window of one part makes all parts say which windows are cut.
    let args = ["--total", "--window", "day", "--to", "2026-05-20T12:00:00Z"];
    let cut = ask(&args);
    assert!(cut.starts_with("window_start,window_end,partial,value"), "{cut}");
    let days: Vec<(String, bool)> = cut
        .lines()
        .skip(1)
        .map(|line| (line[..10].to_owned(), line.split(',').nth(2) == Some("true")))
        .collect();
    assert!(days.iter().any(|(day, _)| day.as_str() < "2026-05-15"), "{cut}");
    assert!(days.iter().all(|(day, cut)| *cut == (day == "2026-05-20")), "{cut}");
    let filled = refusal(
        folder,
        &["usage", "traffic@published", "--total", "--window", "day", "--fill", "zero"],
    );
    assert!(filled.contains("or without --fill"), "{filled}");

    // SQL asks the same.
    let statement = "SELECT window_start, value FROM meter('traffic@published', total => true, \
                     window => 'day') ORDER BY 1";
    let in_sql = answer(folder, &["sql", statement, "-o", "csv"]);
    let of_usage = ask(&["--total", "--window", "day"]);
    let column = |line: &str, place: usize| line.split(',').nth(place).unwrap().to_owned();
    let days = |answer: &str, value: usize| -> Vec<(String, String)> {
        let rows = answer.lines().skip(1);
        rows.map(|line| (column(line, 0)[..10].to_owned(), column(line, value))).collect()
    };
    assert!(days(&of_usage, 2).len() > 5, "{of_usage}");
    assert_eq!(days(&in_sql, 1), days(&of_usage, 2));
    let told = refusal(folder, &["sql", statement, "--at", "1"]);
    assert!(told.contains("with --at, name a version"), "{told}");

    // Windows that begin at the change are each of one version.
    let output = meterhouse(
        folder,
        &["usage", "traffic@published", "--total", "--window", "day", "-o", "csv"],
    );
    let mut days: BTreeMap<u8, i64> = BTreeMap::new();
    for (day, _, bytes, _) in TRANSFERS.iter().filter(|event| event.0 < 15 || event.3 == 200) {
        *days.entry(*day).or_insert(0) += bytes;
    }
    let got: Vec<String> = out(&output)
        .lines()
        .skip(1)
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            format!("{} {}", &cells[0][8..10], cells[2])
        })
        .collect();
    let want: Vec<String> = days.iter().map(|(day, sum)| format!("{day:02} {sum}")).collect();
    assert_eq!(got, want, "{}", said(&output));
    assert!(said(&output).contains(&format!("traffic {old}  ")), "{}", said(&output));
    assert!(said(&output).contains(&format!("traffic {new}  ")), "{}", said(&output));

    // Anything else has no one answer.
    for args in [
        &["usage", "traffic@published"][..],
        &["usage", "traffic@published", "--period", "2026-05", "--window", "month"],
        &["usage", "traffic@published", "--window", "day", "--top", "3"],
    ] {
        let told = refusal(folder, args);
        let change = format!("from version {old} to {new} at 2026-05-15T00:00:00Z");
        assert!(told.contains(&change) && told.contains("ask for each part apart"), "{told}");
    }
    let history = answer(folder, &["meters", "history", "-o", "csv"]);
    assert!(history.contains(",until 2026-05-15T00:00:00Z,"), "{history}");
    assert!(history.contains(",2026-05-15T00:00:00Z,from 2026-05-15T00:00:00Z,"), "{history}");
}

#[test]
fn a_publication_says_what_it_supersedes_and_a_comparison_what_is_in_effect() {
    let folder = folder(&[("queries/meters/traffic.yaml", BYTES)]);
    let folder = folder.path();
    ingest(folder);
    let publish = |args: &[&str]| {
        let all: Vec<&str> = ["meters", "publish"].iter().chain(args).copied().collect();
        let output = meterhouse(folder, &all);
        assert_eq!(code(&output), 0, "{}", said(&output));
        (version(folder), said(&output))
    };
    // In effect: the first for ever, from 2026-05-15 the second, from the year 3000 the third.
    let (first, told) = publish(&[]);
    assert!(!told.contains("superseded"), "{told}");
    write(folder, "queries/meters/traffic.yaml", GOOD_BYTES);
    let (second, told) = publish(&["--from", "2026-05-15"]);
    assert!(!told.contains("superseded"), "{told}");
    let third = BYTES.replace("property: bytes", "property: status");
    write(folder, "queries/meters/traffic.yaml", &third);
    let (third, told) = publish(&["--from", "3000-01-01"]);
    assert!(!told.contains("superseded"), "{told}");

    write(folder, "queries/meters/traffic.yaml", &BYTES.replace("sum", "max"));
    let diff = |args: &[&str]| {
        let all: Vec<&str> = ["meters", "diff", "traffic"].iter().chain(args).copied().collect();
        let output = meterhouse(folder, &all);
        (code(&output), said(&output))
    };
    for (args, want, when) in [
        (&[][..], &second, "now"),
        (&["--period", "2026-05-04"], &first, "throughout the range"),
        (&["--to", "2026-05-15"], &first, "throughout the range"),
        (&["--period", "2026-05-15"], &second, "throughout the range"),
        (&["--from", "3000-01-01"], &third, "throughout the range"),
    ] {
        let (done, told) = diff(args);
        let want = format!("published is traffic@{want}, in effect {when}\n");
        assert!(done == 0 && told.starts_with(&want), "{args:?}: {told}");
    }
    let (done, told) = diff(&["--period", "2026-05"]);
    let change = format!("changes from {first} to {second} at 2026-05-15T00:00:00Z");
    assert!(done == 1 && told.contains(&change), "{told}");

    // Without a date the next one holds for all of history, and says what it takes away.
    let (fourth, told) = publish(&[]);
    let superseded = |version: &str, held: &str| {
        format!("traffic@{version} is superseded by it and in effect no more; it was {held}\n")
    };
    let want = [
        format!("traffic@{fourth} is published and in effect for all of history\n"),
        superseded(&first, "until 2026-05-15T00:00:00Z"),
        superseded(&second, "2026-05-15T00:00:00Z to 3000-01-01T00:00:00Z"),
        superseded(&third, "from 3000-01-01T00:00:00Z"),
    ];
    assert_eq!(told, want.concat());
    // One that is in effect later only is in effect neither now nor before.
    write(folder, "queries/meters/later.yaml", &BYTES.replace("traffic", "later"));
    let output = meterhouse(folder, &["meters", "publish", "later", "--from", "3000-01-01"]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    let told = refusal(folder, &["meters", "diff", "later"]);
    assert!(told.contains("no version of `later` is in effect before 3000-01-01"), "{told}");
}

#[test]
fn a_broken_meter_is_no_matter_of_the_others() {
    let folder = folder(&[
        ("queries/meters/traffic.yaml", BYTES),
        ("queries/meters/traffic.test.yaml", "- test: t\n  events: []\n  expect: []\n"),
        ("queries/meters/wrong.yaml", "meter: wrong\naggregation: summ\n"),
        ("queries/meters/wrong.test.yaml", "- nonsense: 1\n"),
        ("queries/meters/one.yaml", "meter: twice\naggregation: count\n"),
        ("queries/meters/two.yaml", "meter: twice\naggregation: count\nevent: x\n"),
        ("queries/k.csv", "s,k\n200,good\n"),
    ]);
    let folder = folder.path();
    ingest(folder);
    let wrong = "wrong.yaml:2:14: unknown aggregation `summ`";
    let twice = "two.yaml:1:8: meter `twice` is already defined in ./queries/meters/one.yaml";
    // What is about a sound meter says nothing of the others.
    for args in [
        &["usage", "traffic"][..],
        &["explain", "traffic"],
        &["meters", "show", "traffic"],
        &["meters", "test", "traffic"],
        &["meters", "publish", "traffic"],
        &["meters", "diff", "traffic"],
        &["usage", "traffic@published"],
    ] {
        let output = meterhouse(folder, args);
        let told = said(&output);
        assert_eq!(code(&output), 0, "{args:?}: {told}");
        assert!(!told.contains("summ") && !told.contains("twice"), "{args:?}: {told}");
    }
    // What is about all of them goes on, and names those that are left out.
    for args in [
        &["events", "show", "k0"][..],
        &["properties"],
        &["events", "names"],
        &["meters", "list"],
        &["sql", "SELECT count(*) FROM meter('traffic')"],
        &["lookups", "put", "k", "queries/k.csv"],
    ] {
        let output = meterhouse(folder, args);
        let told = said(&output);
        assert_eq!(code(&output), 0, "{args:?}: {told}");
        let warning = "warning: some meter files are wrong and left out, `meterhouse meters check` \
                       says why: ./queries/meters/two.yaml, ./queries/meters/wrong.yaml\n";
        assert!(told.contains(warning), "{args:?}: {told}");
    }
    let names = answer(folder, &["events", "names", "-o", "csv"]);
    assert!(names.contains(",traffic\n"), "{names}");
    // What is about a broken one tells what is wrong with it, and with no other.
    for (name, want, other) in [("wrong", wrong, twice), ("twice", twice, wrong)] {
        for command in [
            &["usage"][..],
            &["explain"],
            &["meters", "show"],
            &["meters", "test"],
            &["meters", "publish"],
        ] {
            let args: Vec<&str> = command.iter().copied().chain([name]).collect();
            let told = refusal(folder, &args);
            assert!(told.contains(want) && !told.contains(other), "{args:?}: {told}");
        }
    }
    // A name that is nowhere may be meant by one of the broken files.
    let told = refusal(folder, &["usage", "nowhere"]);
    assert!(told.contains("no meter `nowhere`") && told.contains("/wrong.yaml"), "{told}");
    // What wants all of them right is told every mistake.
    for args in [&["meters", "check"][..], &["meters", "test"], &["meters", "publish"]] {
        let told = refusal(folder, args);
        assert!(told.contains(wrong) && told.contains(twice), "{args:?}: {told}");
    }
}

#[test]
fn versions_of_other_units_dimensions_or_zones_are_not_mixed() {
    let change = |line: &str, args: &[&str]| {
        let folder = folder(&[("queries/meters/traffic.yaml", BYTES)]);
        ingest(folder.path());
        answer(folder.path(), &["meters", "publish"]);
        write(folder.path(), "queries/meters/traffic.yaml", &(BYTES.to_owned() + line));
        answer(folder.path(), &["meters", "publish", "--from", "2026-05-15T00:00:00Z"]);
        let all = ["usage", "traffic@published", "--window", "day"];
        let all: Vec<&str> = all.iter().chain(args).copied().collect();
        refusal(folder.path(), &all)
    };
    for (line, args, part) in [
        ("unit: { name: kB, divide_by: 1000 }\n", &["--total"][..], "have different units"),
        ("dimensions: [status]\n", &["--breakdown"], "have different dimensions"),
        (
            "timezone: Europe/Berlin\n",
            &["--total"],
            "have different timezones: say which with --tz",
        ),
        ("timezone: Europe/Berlin\n", &["--tz", "Asia/Tokyo"], "ask for each part apart"),
    ] {
        let told = change(line, args);
        assert!(told.contains(part), "no `{part}` in {told}");
    }
}

#[test]
fn versions_that_are_not_there_are_told() {
    let folder = folder(&[("queries/meters/traffic.yaml", BYTES)]);
    let folder = folder.path();
    ingest(folder);
    for (args, part) in [
        (&["usage", "traffic@published"][..], "meter `traffic` was never published"),
        (&["usage", "traffic@abcd"], "meter `traffic` was never published"),
        (&["meters", "history", "traffic"], "meter `traffic` was never published"),
        (&["meters", "diff", "traffic"], "meter `traffic` was never published"),
        (&["usage", "../traffic@abcd"], "`../traffic` can be no meter's name"),
        (&["usage", "traffic@../../x"], "a version has 4 to 12 digits"),
        (&["usage", "traffic@abc"], "a version has 4 to 12 digits"),
        (&["meters", "publish", "none"], "no meter `none` in ./queries/meters; it holds traffic"),
    ] {
        let told = refusal(folder, args);
        assert!(told.contains(part), "no `{part}` in {told}");
    }
    answer(folder, &["meters", "publish", "--from", "2026-05-10"]);
    let told = refusal(folder, &["usage", "traffic@published"]);
    assert!(told.contains("no version of `traffic` is in effect before 2026-05-10"), "{told}");
    let told = refusal(folder, &["usage", "traffic@0000"]);
    assert!(told.contains("begins with 0000; there are"), "{told}");
}

#[test]
fn a_comparison_tells_who_would_pay_what() {
    let folder = folder(&[("queries/meters/traffic.yaml", BYTES)]);
    let folder = folder.path();
    ingest(folder);
    answer(folder, &["meters", "publish"]);
    let old = version(folder);
    write(folder, "queries/meters/traffic.yaml", GOOD_BYTES);
    let new = version(folder);

    let all = |counts: fn(&Transfer) -> bool| sums(counts);
    let (before, after) = (all(|_| true), all(|event| event.3 == 200));
    let rows = |every: bool| {
        let mut text = "customer_id,old_value,new_value,difference\n".to_owned();
        for (customer, old) in &before {
            let new = after.get(customer).copied();
            if every || new != Some(*old) {
                let shown = new.map_or(String::new(), |new| new.to_string());
                text += &format!("{customer},{old},{shown},{}\n", new.unwrap_or(0) - old);
            }
        }
        text
    };
    let output = meterhouse(folder, &["meters", "diff", "traffic", "-o", "csv"]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert_eq!(out(&output), rows(false));
    let total = |sums: &BTreeMap<&str, i64>| sums.values().sum::<i64>();
    let (sum_before, sum_after) = (total(&before), total(&after));
    assert_eq!((sum_before, sum_after), (5_197, 5_112));
    let told = said(&output);
    assert!(told.contains("+ filter       status = 200\n"), "{told}");
    assert!(told.contains(&format!("traffic: {old} to {new}  all of history UTC")), "{told}");
    assert!(
        told.contains("2 of 3 customers differ, total 5,197 before, 5,112 after: 85 less"),
        "{told}"
    );
    assert_eq!(answer(folder, &["meters", "diff", "traffic", "--all", "-o", "csv"]), rows(true));

    // Both definitions are asked in one scan.
    let both = format!("traffic@{old}");
    let plan = answer(folder, &["usage", "traffic", &both, "--explain"]);
    assert!(plan.contains(": 1 scans read "), "{plan}");

    // A customer whose usage goes away altogether, and the other way round.
    let period = ["--period", "2026-05-04"];
    let mut args = vec!["meters", "diff", "traffic", &old[..4], "file", "-o", "csv"];
    args.extend(period);
    assert!(answer(folder, &args).ends_with("\ncold,55,,-55\n"));
    write(folder, "draft/traffic.yaml", BYTES);
    let mut args = vec!["meters", "diff", "traffic", "file", "draft/traffic.yaml", "-o", "csv"];
    args.extend(period);
    assert!(answer(folder, &args).ends_with("\ncold,,55,55\n"));
    let same =
        meterhouse(folder, &["meters", "diff", "traffic", "published", "draft/traffic.yaml"]);
    assert!(said(&same).contains("nothing to compare"), "{}", said(&same));
    assert_eq!(code(&same), 0);
}

#[test]
fn a_comparison_knows_units_and_aggregations_that_do_not_add_up() {
    let unit = "unit: { name: kB, divide_by: 1000, round: up, precision: 0 }\n";
    let folder = folder(&[
        ("queries/meters/traffic.yaml", &(BYTES.to_owned() + unit)),
        ("max.yaml", &(BYTES.replace("sum", "max") + unit)),
        ("plain.yaml", BYTES),
        ("all.yaml", &BYTES.replace("event: transfer\n", "")),
    ]);
    let folder = folder.path();
    ingest(folder);
    let diff = |old: &str, new: &str| {
        let output = meterhouse(folder, &["meters", "diff", "traffic", old, new, "-o", "csv"]);
        assert_eq!(code(&output), 0, "{}", said(&output));
        (out(&output), said(&output))
    };
    let (rows, told) = diff("file", "max.yaml");
    assert_eq!(
        rows,
        "customer_id,old_value,new_value,difference,old_converted,new_converted,old_billable,\
         new_billable,billable_difference\n\
         acme,137,100,-37,0.137,0.1,1,1,0\n\
         blue,5000,4000,-1000,5,4,5,4,-1\n\
         cold,60,55,-5,0.06,0.055,1,1,0\n"
    );
    // The largest value of all, not the sum of the largest.
    assert!(told.contains("total 5,197 before, 4,000 after: 1,197 less"), "{told}");
    // Two units have no difference.
    let (rows, _) = diff("file", "plain.yaml");
    assert!(rows.contains("\nacme,137,137,0,0.137,137,1,137,\n"), "{rows}");
    // Tables that differ are told, whether their rows hold always or for a time.
    let looks = |table: &str, more: &str| {
        format!("{BYTES}lookups:\n  to: {{ of: dc, file: {table}, key: k, value: v{more} }}\n")
    };
    let billing = |table: &str| format!("{BYTES}billing: {{ file: {table}, key: k, anchor: a }}\n");
    for (name, text) in [
        ("always.csv", "k,v\na,1\nb,2\n"),
        ("always2.csv", "k,v\na,1\nb,3\nc,4\n"),
        ("dated.csv", "k,v,f\na,1,2026-01-01\nb,2,2026-01-01\n"),
        ("dated2.csv", "k,v,f\na,1,2026-01-01\nb,2,2026-02-01\n"),
        ("billed.csv", "k,a\nacme,2026-01-03\n"),
        ("billed2.csv", "k,a\nacme,2026-01-04\n"),
        ("one.yaml", &looks("always.csv", "")),
        ("two.yaml", &looks("always2.csv", "")),
        ("three.yaml", &looks("dated.csv", ", from: f")),
        ("four.yaml", &looks("dated2.csv", ", from: f")),
        ("five.yaml", &billing("billed.csv")),
        ("six.yaml", &billing("billed2.csv")),
    ] {
        write(folder, name, text);
    }
    for (old, new, want) in [
        ("one.yaml", "two.yaml", "  the tables of lookup to differ in 2 keys\n"),
        ("three.yaml", "four.yaml", "  the tables of lookup to differ in 1 key\n"),
        ("five.yaml", "six.yaml", "  the tables of billing differ in 1 customer\n"),
    ] {
        let (_, told) = diff(old, new);
        assert!(told.contains(want), "{told}");
    }
    // Other events are another scan and the same answer.
    let (rows, told) = diff("plain.yaml", "all.yaml");
    assert_eq!(rows.lines().count(), 1, "{rows}");
    assert!(told.contains("0 of 3 customers differ"), "{told}");
}
