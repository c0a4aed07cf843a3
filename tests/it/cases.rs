//! Cases with known answers, restated from the test suites and documents of other metering systems,
//! so that a meter means here what it means to people who come from there.
//!
//! Each is asked of the program through a meter file and compared to the digit. The numbers in the
//! names are those of the list that the cases were collected in; what is missing from it here needs
//! an aggregation that this version does not have.

use std::fs;
use std::path::Path;

use crate::program::meterhouse;

/// An event `e` of customer `c` with these properties, as JSON.
fn event(key: &str, time: &str, properties: &str) -> String {
    of_customer("c", key, time, properties)
}

fn of_customer(customer: &str, key: &str, time: &str, properties: &str) -> String {
    format!(
        r#"{{"event_name":"e","idempotency_key":"{key}","customer_id":"{customer}","timestamp":"{time}","properties":{{{properties}}}}}"#
    ) + "\n"
}

/// A folder with a lake of these events, and what the ingest said.
fn lake(events: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("events.ndjson"), events).unwrap();
    let output = meterhouse(folder.path(), &["ingest", "events.ndjson"]);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{:?}", output.status);
    (folder, String::from_utf8(output.stderr).unwrap())
}

/// The cells of the columns of an answer, row by row, of a meter with these lines.
fn ask(folder: &Path, meter: &str, flags: &[&str], columns: &[&str]) -> Vec<Vec<String>> {
    fs::create_dir_all(folder.join("meters")).unwrap();
    fs::write(folder.join("meters/m.yaml"), format!("meter: m\n{meter}\n")).unwrap();
    let asked = [&["usage", "m", "--meters", "meters", "-o", "csv", "-q"], flags].concat();
    let output = meterhouse(folder, &asked);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{meter} {flags:?}: {said}");
    let mut reader = csv::Reader::from_reader(output.stdout.as_slice());
    let header = reader.headers().unwrap().clone();
    let places: Vec<usize> = columns
        .iter()
        .map(|name| header.iter().position(|found| found == *name).unwrap())
        .collect();
    let rows = reader.records().map(|row| row.unwrap());
    rows.map(|row| places.iter().map(|&place| row[place].to_owned()).collect()).collect()
}

fn value(folder: &Path, meter: &str, flags: &[&str]) -> String {
    let rows = ask(folder, meter, &[&["--total"], flags].concat(), &["value"]);
    assert_eq!(rows.len(), 1, "{meter}");
    rows[0][0].clone()
}

#[test]
fn cases_1_to_3_exact_values_and_hours_without_events() {
    let events = [
        event("1", "2026-01-01T00:00:00Z", r#""v":123"#),
        event("2", "2026-01-01T00:00:01Z", r#""v":"0.4567890123456789""#),
        event("3", "2026-01-01T00:00:02Z", r#""v":null"#),
    ];
    let (folder, _) = lake(&events.concat());
    for (aggregation, with, without) in [
        ("sum\nproperty: v", "123.4567890123456789", ""),
        ("count", "3", "0"),
        ("count_unique\nproperty: v", "2", "0"),
        ("average\nproperty: v", "61.728394506173", ""),
        ("min\nproperty: v", "0.4567890123456789", ""),
        ("max\nproperty: v", "123", ""),
        ("latest\nproperty: v", "0.4567890123456789", ""),
        ("percentile\nproperty: v\npercentile: 50", "0.4567890123456789", ""),
        ("percentile\nproperty: v\npercentile: 50.000001", "123", ""),
    ] {
        let meter = format!("aggregation: {aggregation}");
        assert_eq!(value(folder.path(), &meter, &[]), with, "{aggregation}");
        let empty = ["--from", "2026-01-01T01:00:00Z", "--to", "2026-01-01T02:00:00Z"];
        assert_eq!(value(folder.path(), &meter, &empty), without, "{aggregation} of nothing");
    }
}

#[test]
fn case_4_windows_of_five_customers() {
    let times = ["00:00:00", "00:01:00", "01:00:00"].map(|time| format!("2026-01-01T{time}Z"));
    let times = [times.as_slice(), &["2026-01-02T00:00:00Z".to_owned()]].concat();
    let events: String = (0..5)
        .flat_map(|customer| times.iter().enumerate().map(move |(n, time)| (customer, n, time)))
        .map(|(customer, n, time)| {
            let (name, key) = (format!("c{customer}"), format!("{customer}-{n}"));
            of_customer(&name, &key, time, r#""v":100"#)
        })
        .collect();
    let (folder, _) = lake(&events);
    let meter = "aggregation: sum\nproperty: v";
    assert_eq!(value(folder.path(), meter, &[]), "2000");
    for (window, want) in [
        ("minute", vec!["500", "500", "500", "500"]),
        ("hour", vec!["1000", "500", "500"]),
        ("day", vec!["1500", "500"]),
    ] {
        let rows = ask(folder.path(), meter, &["--total", "--window", window], &["value"]);
        assert_eq!(rows.concat(), want, "{window}");
    }
}

#[test]
fn case_5_days_of_23_and_25_hours() {
    // 10:00 in Los Angeles is 18:00 or 17:00 UTC.
    let at = |(month, day, hour): (u32, u32, u32)| {
        let time = format!("2025-{month:02}-{day:02}T{hour:02}:00:00Z");
        event(&format!("{month}-{day}"), &time, "")
    };
    let spring = [(6, 18), (7, 18), (8, 18), (9, 17), (10, 17), (11, 17), (12, 17)];
    let autumn = [(10, 30, 17), (10, 31, 17), (11, 1, 17), (11, 2, 18), (11, 3, 18), (11, 4, 18)];
    let autumn = [autumn.as_slice(), &[(11, 5, 18)]].concat();
    let spring = spring.map(|(day, hour)| at((3, day, hour))).concat();
    let autumn: String = autumn.into_iter().map(at).collect();
    let (folder, _) = lake(&(spring + &autumn));
    let ask = |period: &str| {
        let flags = ["--total", "--window", "day", "--period", period, "--tz"];
        let flags = [flags.as_slice(), &["America/Los_Angeles"]].concat();
        ask(folder.path(), "aggregation: count", &flags, &["window_start", "window_end", "value"])
    };
    for (period, place, start, end) in [
        ("2025-03-06..2025-03-13", 3, "2025-03-09T00:00:00-08:00", "2025-03-10T00:00:00-07:00"),
        ("2025-10-30..2025-11-06", 3, "2025-11-02T00:00:00-07:00", "2025-11-03T00:00:00-08:00"),
    ] {
        let rows = ask(period);
        assert_eq!(rows.len(), 7, "{period}");
        assert!(rows.iter().all(|row| row[2] == "1" && row[0].contains("T00:00:00-0")), "{rows:?}");
        assert!(rows.windows(2).all(|pair| pair[0][1] == pair[1][0]), "{rows:?}");
        assert_eq!(rows[place][..2], [start, end]);
    }
}

#[test]
fn cases_13_and_14_rounding() {
    let (folder, _) = lake(&event("a", "2026-01-01T00:00:00Z", r#""v":123.456,"b":20000000"#));
    for (unit, want) in [
        ("round: half_up, precision: 2", "123.46"),
        ("round: none", "123.456"),
        ("round: half_up, precision: -2", "100"),
        ("round: up, precision: 0", "124"),
    ] {
        let meter = format!("aggregation: sum\nproperty: v\nunit: {{ name: x, {unit} }}");
        let rows = ask(folder.path(), &meter, &["--total"], &["billable"]);
        assert_eq!(rows, [[want]], "{unit}");
    }
    let gigabytes = "aggregation: sum\nproperty: b\nunit: { name: GB, divide_by: 1000000000, \
                     round: up, precision: 0 }";
    let rows = ask(folder.path(), gigabytes, &["--total"], &["converted", "billable"]);
    assert_eq!(rows, [["0.02", "1"]]);
}

#[test]
fn case_15_billing_periods_anchored_on_the_31st() {
    // An event at noon of each day of 2023.
    let first: jiff::civil::Date = "2023-01-01".parse().unwrap();
    let days = first.series(jiff::Span::new().days(1)).take_while(|day| day.year() == 2023);
    let events: String =
        days.map(|day| event(&day.to_string(), &format!("{day}T12:00:00Z"), "")).collect();
    let (folder, _) = lake(&events);
    let meter = "aggregation: count\nbilling: { anchor: 2023-01-31, cycle: monthly }";
    let flags = ["--total", "--window", "billing_period"];
    let rows = ask(folder.path(), meter, &flags, &["window_start", "value"]);
    let want = [
        ("2022-12-31", "30"),
        ("2023-01-31", "28"),
        ("2023-02-28", "31"),
        ("2023-03-31", "30"),
        ("2023-04-30", "31"),
        ("2023-05-31", "30"),
        ("2023-06-30", "31"),
        ("2023-07-31", "31"),
        ("2023-08-31", "30"),
        ("2023-09-30", "31"),
        ("2023-10-31", "30"),
        ("2023-11-30", "31"),
        ("2023-12-31", "1"),
    ];
    let want = want.map(|(start, count)| [format!("{start}T00:00:00Z"), count.to_owned()]);
    assert_eq!(rows, want);
}

#[test]
fn case_16_one_identity_a_thousand_times() {
    let events: String = (0..1_000)
        .map(|n| {
            let time = format!("2026-01-{:02}T{:02}:{:02}:00Z", 1 + n % 30, n / 60, n % 60);
            event("one", &time, r#""v":1"#)
        })
        .collect();
    let (folder, said) = lake(&events);
    assert!(said.contains("1,000 read, 1 accepted, 0 duplicate, 999 conflict"), "{said}");
    assert_eq!(value(folder.path(), "aggregation: count", &[]), "1");
}

#[test]
fn case_17_a_maximum_is_no_sum_of_maxima() {
    let events: String = (1..=30)
        .map(|day| event(&day.to_string(), &format!("2026-06-{day:02}T12:00:00Z"), r#""v":1"#))
        .collect();
    let (folder, _) = lake(&events);
    let meter = "aggregation: max\nproperty: v";
    assert_eq!(value(folder.path(), meter, &["--period", "2026-06"]), "1");
    let days = ask(folder.path(), meter, &["--total", "--window", "day"], &["value"]);
    assert_eq!(days.concat(), vec!["1"; 30]);
}

#[test]
fn case_18_numbers_are_compared_as_numbers() {
    let events = [("1", r#""b":"9""#), ("2", r#""b":"10""#)]
        .map(|(key, properties)| event(key, "2026-01-01T00:00:00Z", properties));
    let (folder, _) = lake(&events.concat());
    let meter = "aggregation: sum\nproperty: b\nfilter: { property: b, greater_than: 9 }";
    assert_eq!(value(folder.path(), meter, &[]), "10");
}

#[test]
fn case_19_many_digits_before_and_after_the_point() {
    let events = [
        event("1", "2026-01-01T00:00:00Z", r#""b":10000000000"#),
        event("2", "2026-01-01T00:00:00Z", r#""b":0.000000000000000001"#),
    ];
    let (folder, _) = lake(&events.concat());
    let meter = "aggregation: sum\nproperty: b";
    assert_eq!(value(folder.path(), meter, &[]), "10000000000.000000000000000001");
}

#[test]
fn case_20_cloudevents_whose_data_is_no_object_or_no_number() {
    let cloud = |id: &str, data: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"s","type":"e","subject":"c","time":"2026-01-01T00:00:00Z","data":{data}}}"#
        ) + "\n"
    };
    let events = [
        cloud("text", r#""5""#),
        cloud("xml", r#""<v>5</v>""#),
        cloud("missing", "{}"),
        cloud("null", r#"{"v":null}"#),
        cloud("nan", r#"{"v":NaN}"#),
        cloud("infinity", r#"{"v":-Infinity}"#),
        cloud("five", r#"{"v":5}"#),
    ];
    let (folder, said) = lake(&events.concat());
    assert!(said.contains("7 read, 3 accepted, 0 duplicate, 0 conflict, 4 rejected"), "{said}");
    let rows = ask(
        folder.path(),
        "aggregation: sum\nproperty: v",
        &["--total"],
        &["value", "events", "skipped"],
    );
    assert_eq!(rows, [["5", "1", "2"]]);
}
