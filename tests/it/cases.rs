//! Cases with known answers, restated from the test suites and documents of other metering systems,
//! so that a meter means here what it means to people who come from there.
//!
//! Each is asked of the program through a meter file and compared to the digit. The numbers in the
//! names are those of the list that the cases were collected in.

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

/// Changes of a level on 5 March 2023, as time and value.
const CHANGES: [(&str, i64); 7] = [
    ("00:00", 2),
    ("01:00", 3),
    ("01:30", 1),
    ("02:00", -4),
    ("04:00", -2),
    ("05:00", 10),
    ("05:30", -10),
];

const MARCH: [&str; 2] = ["--period", "2023-03"];

fn changes(changes: &[(&str, i64)]) -> String {
    let changes = changes.iter().enumerate().map(|(key, (time, value))| {
        let time = match time.len() {
            5 => format!("2023-03-05T{time}:00Z"),
            _ => (*time).to_owned(),
        };
        event(&key.to_string(), &time, &format!(r#""v":{value}"#))
    });
    changes.collect()
}

#[test]
fn cases_6_to_9_means_over_time() {
    let meter = "aggregation: time_weighted\nproperty: v\nof: change";
    let carried = [[("2023-01-01T12:00:00Z", 1000)].as_slice(), &CHANGES].concat();
    for (name, events, five_digits, want) in [
        ("6", CHANGES.as_slice(), "0.02218", "0.022177419355"),
        ("7", &[("00:00", 1000)], "870.96774", "870.967741935484"),
        ("8", &[("00:00", 3), ("00:00", 3)], "5.22581", "5.225806451613"),
        ("9", &carried, "1000.02218", "1000.022177419355"),
    ] {
        let (folder, _) = lake(&changes(events));
        let got = value(folder.path(), meter, &MARCH);
        assert_eq!(got, want, "case {name}");
        let unit = format!("{meter}\nunit: {{ name: x, round: half_up, precision: 5 }}");
        let rounded =
            ask(folder.path(), &unit, &[&["--total"], MARCH.as_slice()].concat(), &["billable"]);
        assert_eq!(rounded, [[five_digits]], "case {name}");
        // Told as levels, the same.
        let mut level = 0;
        let levels: Vec<(&str, i64)> = events
            .iter()
            .map(|(time, change)| {
                level += change;
                (*time, level)
            })
            .collect();
        let (folder, _) = lake(&changes(&levels));
        let meter = "aggregation: time_weighted\nproperty: v\nof: level";
        assert_eq!(value(folder.path(), meter, &MARCH), want, "case {name} as levels");
    }
}

/// Values that are added (+) and removed (-), as time, sign and value.
fn operations(operations: &[(&str, char, u32)]) -> String {
    let each = operations.iter().enumerate().map(|(key, (time, sign, value))| {
        let action = if *sign == '+' { "add" } else { "remove" };
        let properties = format!(r#""seat":{value},"action":"{action}""#);
        event(&key.to_string(), &format!("2023-03-{time}Z"), &properties)
    });
    each.collect()
}

#[test]
fn cases_10_to_12_values_that_come_and_go() {
    let added = [
        ("16T00:00:00", '+', 1),
        ("17T00:00:00", '+', 2),
        ("18T00:00:00", '+', 3),
        ("19T00:00:00", '+', 4),
        ("20T00:00:00", '+', 5),
    ];
    let one_day = [("15T00:00:00", '+', 2), ("15T23:59:59", '-', 2)];
    let back_and_forth = [
        ("15T00:00:00", '-', 2),
        ("15T01:00:00", '+', 2),
        ("15T02:00:00", '-', 2),
        ("15T03:00:00", '+', 2),
        ("16T00:00:00", '-', 2),
        ("16T01:00:00", '+', 2),
        ("17T01:00:00", '-', 2),
    ];
    let removed = [("17T01:00:00", '-', 2)];
    let meter = "aggregation: count_unique\nproperty: seat\noperation: action";
    let by_days = format!("{meter}\nprorate: days");
    // The middle of a month is billed by the share of the whole month.
    let from_15 = ["--from", "2023-03-15", "--to", "2023-04-01", "--window", "month"];
    for (name, events, meter, flags, want) in [
        (
            "10",
            [added.as_slice(), &one_day].concat(),
            by_days.as_str(),
            from_15.as_slice(),
            "2.290322580645",
        ),
        (
            "10, a whole month",
            [added.as_slice(), &one_day].concat(),
            &by_days,
            &MARCH,
            "2.290322580645",
        ),
        ("11", [added.as_slice(), &back_and_forth].concat(), &by_days, &from_15, "1.870967741935"),
        ("12", [added.as_slice(), &removed].concat(), meter, &MARCH, "4"),
        ("12, of all history", [added.as_slice(), &removed].concat(), meter, &[], "4"),
    ] {
        let (folder, _) = lake(&operations(&events));
        assert_eq!(value(folder.path(), meter, flags), want, "case {name}");
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
        cloud("positive infinity", r#"{"v":+Infinity}"#),
        cloud("unsigned infinity", r#"{"v":Infinity}"#),
        cloud("five", r#"{"v":5}"#),
    ];
    let (folder, said) = lake(&events.concat());
    assert!(said.contains("9 read, 3 accepted, 0 duplicate, 0 conflict, 6 rejected"), "{said}");
    let rows = ask(
        folder.path(),
        "aggregation: sum\nproperty: v",
        &["--total"],
        &["value", "events", "skipped"],
    );
    assert_eq!(rows, [["5", "1", "2"]]);
}

#[test]
fn results_of_results_weights_and_expressions() {
    let events = [
        of_customer("a", "1", "2026-01-01T00:10:00Z", r#""v":3,"r":2,"n":10"#),
        of_customer("a", "2", "2026-01-01T00:50:00Z", r#""v":7,"r":"1.5","n":"2""#),
        of_customer("a", "3", "2026-01-01T01:10:00Z", r#""v":5,"r":"none""#),
        of_customer("b", "4", "2026-01-02T00:10:00Z", r#""v":4,"r":0.1,"n":-1"#),
        of_customer("b", "5", "2026-01-02T00:20:00Z", r#""v":6,"n":"many""#),
    ];
    let (folder, _) = lake(&events.concat());
    let columns = ["value", "events", "skipped"];
    for (meter, want) in [
        // Hours: 7, 5 and 6.
        ("aggregation: sum\nof: { aggregation: max, property: v, per: hour }", ["18", "5", "0"]),
        ("aggregation: max\nof: { aggregation: count, per: hour }", ["2", "5", "0"]),
        (
            "aggregation: average\nof: { aggregation: sum, property: v, per: customer_id }",
            ["12.5", "5", "0"],
        ),
        (
            "aggregation: count\nof: { aggregation: max, property: r, per: [customer_id, day] }",
            ["2", "3", "2"],
        ),
        ("aggregation: sum\nexpression: v * r", ["16.9", "3", "2"]),
        ("aggregation: max\nexpression: v / coalesce(n, 1) - 0.5", ["4.5", "4", "1"]),
        ("aggregation: sum\nexpression: ceil(v / 2)", ["14", "5", "0"]),
        ("aggregation: count\nweight: n", ["13", "3", "2"]),
        ("aggregation: sum\nproperty: v\nweight: n", ["49", "3", "2"]),
        ("aggregation: average\nproperty: v\nweight: n", ["3.769230769231", "3", "2"]),
    ] {
        let rows = ask(folder.path(), meter, &["--total"], &columns);
        assert_eq!(rows, [want], "{meter}");
    }
}

#[test]
fn a_number_that_does_not_fit_is_an_error_with_meter_and_event() {
    let events = [
        event("small", "2026-01-01T00:00:00Z", r#""v":3"#),
        event("huge", "2026-01-01T00:00:00Z", r#""v":99999999999999999999999999999999999999"#),
        event("tiny", "2026-01-01T00:00:00Z", r#""v":0.00000000000000000000000000000000000001"#),
    ];
    let (folder, _) = lake(&events.concat());
    fs::create_dir_all(folder.path().join("meters")).unwrap();
    for (name, meter, want) in [
        ("too large", "aggregation: max\nexpression: v * 2", "meter `m`, event `huge`: a computed"),
        (
            "too fine",
            "aggregation: min\nexpression: v * 0.1",
            "meter `m`, event `tiny`: a computed",
        ),
        ("a total", "aggregation: sum\nproperty: v\nweight: v", "meter `m`"),
        ("a sum of sums", "aggregation: sum\nof: { aggregation: max, property: v, per: day }", ""),
    ] {
        let file = format!("meter: m\n{meter}\n");
        fs::write(folder.path().join("meters/m.yaml"), file).unwrap();
        // However it is asked, and whatever shares the scan.
        fs::write(folder.path().join("meters/n.yaml"), "meter: n\naggregation: count\n").unwrap();
        for args in [
            &["usage", "m", "--total"][..],
            &["usage", "m", "--total", "--window", "day", "--fill", "zero"],
            &["usage", "m", "n", "--total"],
            &["explain", "m"],
            &["explain", "m", "--events", "-o", "csv"],
        ] {
            // A list is no total: it shows what does not fit.
            if args.contains(&"--events") && name == "a total" {
                continue;
            }
            let args: Vec<&str> = args.iter().chain(&["--meters", "meters"]).copied().collect();
            let output = meterhouse(folder.path(), &args);
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.success(), want.is_empty(), "{name}, {args:?}: {said}");
            assert!(said.contains(want), "{name}, {args:?}: {said}");
        }
    }
}

#[test]
fn a_sum_that_does_not_fit_is_an_error_without_the_look_of_an_answer() {
    let large = format!(r#""v":{}"#, "9".repeat(38));
    let events = ["1", "2"].map(|key| event(key, "2026-01-01T00:00:00Z", &large));
    let (folder, _) = lake(&events.concat());
    assert_eq!(value(folder.path(), "aggregation: max\nproperty: v", &[]), "9".repeat(38));
    fs::write(folder.path().join("meters/m.yaml"), "meter: m\naggregation: sum\nproperty: v\n")
        .unwrap();
    for format in ["csv", "table", "ndjson", "json", "parquet"] {
        let output = meterhouse(folder.path(), &["usage", "m", "--meters", "meters", "-o", format]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(output.stdout.is_empty(), "{format}: {:?}", output.stdout);
        assert!(
            said.contains("meter `m`: the sum of customer_id = c has more than 38 integer digits"),
            "{said}"
        );
    }
    // No row is an answer all the same.
    let none = ["usage", "m", "--meters", "meters", "-q", "--period", "2025", "-o", "csv"];
    let output = meterhouse(folder.path(), &none);
    assert!(output.status.success());
    assert_eq!(output.stdout, b"customer_id,value,events,skipped\n");
}

#[test]
fn what_has_no_length_or_end_or_does_not_fit_is_refused() {
    let (folder, _) = lake(&event("1", "2026-01-01T00:00:00Z", r#""v":3,"o":"add","g":"x""#));
    fs::create_dir_all(folder.path().join("meters")).unwrap();
    let unique = "aggregation: count_unique\nproperty: v\noperation: o";
    let days = format!("{unique}\nprorate: days\ntimezone: Europe/Berlin");
    let reset = "aggregation: reported\nproperty: v\noperation: o\nreset: hour".to_owned();
    let mean = "aggregation: time_weighted\nproperty: v\nof: level";
    for (meter, flags, want) in [
        (reset.as_str(), vec!["--total"], "say --to or --period, or ask for windows"),
        (mean, vec!["--total"], "all of history has no length"),
        (days.as_str(), vec!["--total"], "no number of days"),
        (
            days.as_str(),
            vec!["--total", "--window", "day", "--tz", "UTC", "--period", "2026-01"],
            "days of Europe/Berlin, which the windows asked for cut",
        ),
        (
            "aggregation: sum\nof: { aggregation: max, property: v, per: day }",
            vec!["--total", "--window", "hour"],
            "ask for windows of whole days",
        ),
        (mean, vec!["--window", "minute", "--period", "2026-01"], "more than 3000 windows"),
    ] {
        fs::write(folder.path().join("meters/m.yaml"), format!("meter: m\n{meter}\n")).unwrap();
        let asked = [&["usage", "m", "--meters", "meters"], flags.as_slice()].concat();
        let output = meterhouse(folder.path(), &asked);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{meter} {flags:?}: {said}");
        assert!(said.contains("meter `m`") && said.contains(want), "{meter} {flags:?}: {said}");
    }
}

#[test]
fn a_level_ends_with_its_sender_whoever_it_is_attributed_to() {
    let level = |key: &str, customer: &str, time: &str, value: u32| {
        let text = event(key, time, &format!(r#""v":{value}"#));
        let text = text.replace(r#""customer_id":"c""#, &format!(r#""customer_id":"{customer}""#));
        text.replace(r#""customer_id""#, r#""resource_id":"r","customer_id""#)
    };
    let events = [
        level("1", "old", "2026-09-10T00:00:00Z", 10),
        level("2", "old", "2026-10-11T00:00:00Z", 0),
        level("3", "acme", "2026-09-20T00:00:00Z", 100),
    ];
    let (folder, _) = lake(&events.concat());
    fs::create_dir_all(folder.path().join("meters")).unwrap();
    let aliases = "alias,customer,from,to\nold,oldco,,2026-10-01\nold,acme,2026-10-01,\n";
    fs::write(folder.path().join("meters/aliases.csv"), aliases).unwrap();
    let meter = "aggregation: time_weighted\nproperty: v\nof: level\n\
                 customer: [alias, customer_id]\nlookups:\n  \
                 alias: { of: customer_id, file: aliases.csv, key: alias, value: customer, from: from, to: to }";
    let rows = ask(folder.path(), meter, &["--period", "2026-10"], &["customer_id", "value"]);
    // 10 of 31 days, by whom the level was set; the two senders' levels add up.
    assert_eq!(rows, [["acme", "100"], ["oldco", "3.225806451613"]]);
    assert_eq!(value(folder.path(), meter, &["--period", "2026-10"]), "103.225806451613");
}

#[test]
fn reported_usage_is_set_moved_and_reset() {
    let report = |key: &str, time: &str, resource: &str, value: i64, behaviour: &str| {
        let text = event(key, time, &format!(r#""v":{value},"b":"{behaviour}""#));
        text.replace(r#""customer_id""#, &format!(r#""resource_id":"{resource}","customer_id""#))
    };
    let events = [
        report("1", "2026-01-10T00:00:00Z", "x", 10, "SET"),
        report("2", "2026-01-20T00:00:00Z", "x", 5, "DELTA"),
        // Late: before the change that is known already.
        report("3", "2026-01-15T00:00:00Z", "x", 100, "SET"),
        report("4", "2026-01-15T00:00:00Z", "y", 7, "DELTA"),
        report("5", "2026-02-02T00:00:00Z", "x", -1, "DELTA"),
        report("6", "2026-02-03T00:00:00Z", "x", 1, "ADD"),
    ];
    let (folder, _) = lake(&events.concat());
    let meter = "aggregation: reported\nproperty: v\noperation: b";
    let months = ["--total", "--window", "month", "--from", "2025-12-01", "--to", "2026-04-01"];
    let columns = ["window_start", "value", "events", "skipped"];
    let rows = ask(folder.path(), meter, &months, &columns);
    assert_eq!(
        rows,
        [
            ["2026-01-01T00:00:00Z", "112", "4", "0"],
            ["2026-02-01T00:00:00Z", "111", "1", "1"],
            ["2026-03-01T00:00:00Z", "111", "0", "0"],
        ]
    );
    let reset = format!("{meter}\nreset: month");
    let rows = ask(folder.path(), &reset, &months, &columns);
    assert_eq!(
        rows,
        [
            ["2026-01-01T00:00:00Z", "112", "4", "0"],
            ["2026-02-01T00:00:00Z", "-1", "1", "1"],
            ["2026-03-01T00:00:00Z", "0", "0", "0"],
        ]
    );
    assert_eq!(value(folder.path(), meter, &["--to", "2026-01-16"]), "107");
    // From the 16th to the 16th: what was changed on the 20th is of the second period.
    let billed = format!("{meter}\nreset: billing_period\nbilling: {{ anchor: 2025-12-16 }}");
    assert_eq!(value(folder.path(), &billed, &["--to", "2026-01-16"]), "107");
    assert_eq!(value(folder.path(), &billed, &["--to", "2026-01-21"]), "5");
    assert_eq!(value(folder.path(), &billed, &["--to", "2026-02-16"]), "4");
    assert_eq!(value(folder.path(), &billed, &["--to", "2026-02-17"]), "0");
    let rows = ask(
        folder.path(),
        &billed,
        &["--window", "billing_period", "--period", "2026-01"],
        &["window_start", "value"],
    );
    assert_eq!(rows, [["2026-01-01T00:00:00Z", "107"], ["2026-01-16T00:00:00Z", "5"]]);
}

#[test]
fn what_is_followed_is_ended_by_events_of_other_groups() {
    let said = |key: &str, day: u32, op: &str, value: &str, region: &str| {
        let time = format!("2026-01-{day:02}T00:00:00Z");
        event(key, &time, &format!(r#""v":{value},"o":"{op}","g":"{region}""#))
    };
    // Whoever removes or sets anew need not say the region that was said before.
    let values = [
        said("1", 1, "add", "7", "eu"),
        said("2", 2, "add", "8", "eu"),
        said("3", 3, "remove", "7", "us"),
        said("4", 4, "add", "8", "us"),
    ];
    let (folder, _) = lake(&values.concat());
    let unique = "aggregation: count_unique\nproperty: v\noperation: o";
    let by = |meter: &str, flags: &[&str]| {
        ask(folder.path(), meter, &[&["--by", "g"], flags].concat(), &["g", "value", "events"])
    };
    assert_eq!(by(unique, &["--to", "2026-01-03"]), [["eu", "2", "2"]]);
    assert_eq!(by(unique, &["--to", "2026-01-04"]), [["eu", "1", "2"], ["us", "0", "1"]]);
    assert_eq!(by(unique, &[]), [["eu", "0", "2"], ["us", "1", "2"]]);
    assert_eq!(value(folder.path(), unique, &["--where", "g = 'us'"]), "1");
    assert_eq!(value(folder.path(), unique, &["--where", "g = 'eu'"]), "0");
    let changes = [
        said("1", 1, "DELTA", "5", "eu"),
        said("2", 2, "DELTA", "3", "us"),
        said("3", 3, "SET", "10", "us"),
        said("4", 4, "DELTA", "-2", "eu"),
    ];
    let (folder, _) = lake(&changes.concat());
    let reported = "aggregation: reported\nproperty: v\noperation: o";
    let by = |flags: &[&str]| {
        ask(folder.path(), reported, &[&["--by", "g"], flags].concat(), &["g", "value"])
    };
    assert_eq!(by(&["--to", "2026-01-03"]), [["eu", "5"], ["us", "3"]]);
    assert_eq!(by(&[]), [["eu", "-2"], ["us", "10"]]);
    assert_eq!(value(folder.path(), reported, &["--where", "g = 'eu'"]), "-2");
    assert_eq!(value(folder.path(), reported, &[]), "8");
}

#[test]
fn events_of_a_stretch_of_time_are_prorated_or_placed() {
    let about = |key: &str, start: &str, end: &str, value: &str| {
        let bounds = format!(r#""s":"{start}","e":"{end}","v":{value}"#);
        event(key, "2026-01-05T00:00:00Z", &bounds)
    };
    let events = [
        about("1", "2026-01-01T12:00:00Z", "2026-01-03T12:00:00Z", "100"),
        about("2", "2026-01-02T00:00:00+01:00", "2026-01-02T23:00:00Z", "0.3"),
        about("3", "2026-01-03T00:00:00Z", "2026-01-03T00:00:00Z", "5"),
        about("4", "yesterday", "2026-01-03T00:00:00Z", "5"),
        about("5", "2026-01-02T00:00:00Z", "2026-01-05T00:00:00Z", "10"),
    ];
    let (folder, _) = lake(&events.concat());
    let meter = "aggregation: sum\nproperty: v\nperiod: { start: s, end: e }";
    assert_eq!(value(folder.path(), meter, &[]), "115.3");
    let days = ["--total", "--window", "day", "--period", "2026-01"];
    let columns = ["window_start", "value", "events", "skipped"];
    let rows = ask(folder.path(), meter, &days, &columns);
    assert_eq!(
        rows,
        [
            ["2026-01-01T00:00:00Z", "25.0125", "2", "0"],
            ["2026-01-02T00:00:00Z", "53.620833333333333333", "3", "0"],
            ["2026-01-03T00:00:00Z", "33.333333333333333334", "3", "0"],
            ["2026-01-04T00:00:00Z", "3.333333333333333333", "1", "0"],
            ["2026-01-05T00:00:00Z", "", "0", "1"],
        ]
    );
    let placed = |place: &str| {
        let meter = meter.replace(" }", &format!(", place: {place} }}"));
        ask(folder.path(), &meter, &days, &["window_start", "value", "skipped"])
    };
    assert_eq!(
        placed("start"),
        [
            ["2026-01-01T00:00:00Z", "100.3", "0"],
            ["2026-01-02T00:00:00Z", "10", "0"],
            ["2026-01-03T00:00:00Z", "5", "0"],
            ["2026-01-05T00:00:00Z", "", "1"],
        ]
    );
    assert_eq!(
        placed("end"),
        [
            ["2026-01-02T00:00:00Z", "0.3", "0"],
            ["2026-01-03T00:00:00Z", "105", "0"],
            ["2026-01-04T00:00:00Z", "10", "0"],
            ["2026-01-05T00:00:00Z", "", "1"],
        ]
    );
}
