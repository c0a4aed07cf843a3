//! The catalogue of properties and event names against a naive count of the same events.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Map, Value, json};

use crate::program::meterhouse;

const EVENTS: u32 = 600;

/// Events of three names whose properties are of every type, with and without columns.
fn events() -> Vec<Value> {
    let event = |n: u32| {
        let mut properties = Map::new();
        let mut put = |name: &str, value: Value| properties.insert(name.to_owned(), value);
        if !n.is_multiple_of(3) {
            put("bytes", json!(n * 7));
        }
        if n.is_multiple_of(4) {
            put("price", if n.is_multiple_of(8) { json!(n) } else { json!(0.25 + f64::from(n)) });
        }
        put("status", if n.is_multiple_of(5) { json!("n/a") } else { json!(200 + n % 3) });
        if n.is_multiple_of(2) {
            put("cached", json!(n.is_multiple_of(4)));
            put("tokens", json!({"in": n % 11, "share": 0.5, "model": "m1", "fast": true}));
        }
        if n.is_multiple_of(7) {
            put("tags", json!(["a", n % 2]));
        }
        if n.is_multiple_of(10) {
            put("note", json!(format!("text {}", n % 30)));
        }
        let name = ["transfer", "view", "it's; odd"][(n % 3) as usize];
        json!({
            "idempotency_key": format!("k{n}"),
            "event_name": name,
            "customer_id": format!("c{}", n % 9),
            "timestamp": instant(n),
            "properties": properties,
        })
    };
    (0..EVENTS).map(event).collect()
}

/// Ten minutes apart, from the beginning of May 2026.
fn instant(n: u32) -> String {
    let minutes = n * 10;
    format!("2026-05-{:02}T{:02}:{:02}:00Z", 1 + minutes / 1440, minutes / 60 % 24, minutes % 60)
}

/// What the catalogue must tell of a property.
#[derive(Debug, Default, Clone, PartialEq)]
struct Naive {
    types: BTreeMap<&'static str, u64>,
    distinct: BTreeSet<String>,
    first: String,
    last: String,
}

/// By event name (empty for all) and property, computed without meterhouse.
fn naive(events: &[Value], by_name: bool) -> BTreeMap<(String, String), Naive> {
    let mut found: BTreeMap<(String, String), Naive> = BTreeMap::new();
    for event in events {
        let name = if by_name { event["event_name"].as_str().unwrap() } else { "" };
        let at = event["timestamp"].as_str().unwrap().to_owned();
        let mut flat = Vec::new();
        flatten("", &event["properties"], &mut flat);
        for (property, value) in flat {
            let known = found.entry((name.to_owned(), property)).or_default();
            let kind = match &value {
                Value::Number(number) if number.as_i64().is_some() => "integer",
                Value::Number(_) => "decimal",
                Value::String(_) => "text",
                Value::Bool(_) => "boolean",
                Value::Array(_) => "array",
                Value::Null | Value::Object(_) => unreachable!(),
            };
            *known.types.entry(kind).or_insert(0) += 1;
            known.distinct.insert(value.to_string());
            if known.first.is_empty() || at < known.first {
                known.first.clone_from(&at);
            }
            known.last = known.last.clone().max(at.clone());
        }
    }
    found
}

fn flatten(prefix: &str, value: &Value, flat: &mut Vec<(String, Value)>) {
    for (name, value) in value.as_object().unwrap() {
        let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Object(_) => flatten(&name, value, flat),
            _ => flat.push((name, value.clone())),
        }
    }
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let lines: String = events().iter().map(|event| format!("{event}\n")).collect();
    fs::write(folder.path().join("events.ndjson"), lines).unwrap();
    let meters = folder.path().join("queries/meters");
    fs::create_dir_all(&meters).unwrap();
    fs::write(
        meters.join("traffic.yaml"),
        "meter: traffic\nevent: transfer\nfilter: { property: status, equals: 200 }\naggregation: \
         sum\nproperty: bytes\ndimensions: [tokens.model, nowhere]\n",
    )
    .unwrap();
    fs::write(
        meters.join("views.yaml"),
        "meter: views\nevent: view\naggregation: count_unique\nproperty: note\n",
    )
    .unwrap();
    answer(folder.path(), &["ingest", "events.ndjson"]);
    folder
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(folder: &Path, args: &[&str]) -> Output {
    let output = meterhouse(folder, args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    output
}

fn answer(folder: &Path, args: &[&str]) -> String {
    text(&run(folder, args).stdout)
}

/// The rows of an answer as JSON objects.
fn rows(folder: &Path, args: &[&str]) -> Vec<Value> {
    let all: Vec<&str> = args.iter().copied().chain(["-o", "ndjson"]).collect();
    answer(folder, &all).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Compares rows with a naive count over `of` events by name.
fn check(rows: &[Value], want: &BTreeMap<(String, String), Naive>, of: impl Fn(&str) -> u64) {
    let seen: Vec<&Value> = rows.iter().filter(|row| row["events"] != json!(0)).collect();
    assert_eq!(seen.len(), want.len(), "{rows:?}");
    for row in seen {
        let name = row.get("event_name").and_then(Value::as_str).unwrap_or("");
        let property = row["property"].as_str().unwrap();
        let want = &want[&(name.to_owned(), property.to_owned())];
        let kinds: Vec<&str> = want.types.keys().copied().collect();
        let kind = match kinds.as_slice() {
            [one] => one,
            ["decimal", "integer"] => "decimal",
            _ => "mixed",
        };
        assert_eq!(row["type"], json!(kind), "{row}");
        for (kind, events) in &want.types {
            let mixture = row["mixture"].as_str().unwrap_or(kind);
            let part =
                if kinds.len() > 1 { format!("{kind} {events}") } else { (*kind).to_owned() };
            assert!(mixture.contains(&part), "{row} without {part}");
        }
        let events: u64 = want.types.values().sum();
        assert_eq!(row["events"], json!(events), "{row}");
        let tenths = (events * 2_000 + of(name)) / of(name) / 2;
        let percent = format!("{}.{}", tenths / 10, tenths % 10);
        assert_eq!(row["percent"], json!(percent.trim_end_matches(".0")), "{row}");
        let (estimate, distinct) =
            (row["distinct_estimate"].as_i64().unwrap(), want.distinct.len());
        let off = (estimate - distinct as i64).abs();
        assert!(off <= 1 + distinct as i64 / 20, "{row}: {distinct} distinct");
        assert_eq!(row["first_seen"], json!(want.first), "{row}");
        assert_eq!(row["last_seen"], json!(want.last), "{row}");
    }
}

#[test]
fn properties_are_what_a_naive_count_says() {
    let folder = folder();
    let folder = folder.path();
    let events = events();
    check(&rows(folder, &["properties"]), &naive(&events, false), |_| EVENTS.into());
    let by_name = rows(folder, &["properties", "--by", "event_name"]);
    check(&by_name, &naive(&events, true), |_| u64::from(EVENTS / 3));
    // One name, and one that would be something else if it ever became SQL.
    for name in ["transfer", "it's; odd"] {
        let own: Vec<Value> =
            events.iter().filter(|event| event["event_name"] == *name).cloned().collect();
        check(&rows(folder, &["properties", "--event", name]), &naive(&own, false), |_| {
            u64::from(EVENTS / 3)
        });
    }
    let own: Vec<Value> = events
        .iter()
        .filter(|event| {
            let at = event["timestamp"].as_str().unwrap();
            ("2026-05-02T12:00:00Z".."2026-05-04T00:00:00Z").contains(&at)
        })
        .cloned()
        .collect();
    let cut = ["properties", "--from", "2026-05-02T12:00:00Z", "--to", "2026-05-04"];
    let count = own.len() as u64;
    check(&rows(folder, &cut), &naive(&own, false), |_| count);
}

#[test]
fn properties_name_the_meters_that_read_them() {
    let folder = folder();
    let folder = folder.path();
    let meters = |args: &[&str]| -> BTreeMap<String, Value> {
        let rows = rows(folder, args);
        rows.iter()
            .map(|row| (row["property"].as_str().unwrap().to_owned(), row["meters"].clone()))
            .collect()
    };
    let all = meters(&["properties"]);
    assert_eq!(all["bytes"], json!("traffic (value)"));
    assert_eq!(all["status"], json!("traffic (filter)"));
    assert_eq!(all["tokens.model"], json!("traffic (dimension)"));
    assert_eq!(all["note"], json!("views (value)"));
    assert_eq!(all["price"], Value::Null);
    // One that no event has, and a meter reads all the same.
    assert_eq!(all["nowhere"], json!("traffic (dimension)"));
    let views = meters(&["properties", "--event", "view"]);
    assert_eq!((&views["bytes"], &views["note"]), (&Value::Null, &json!("views (value)")));
    assert!(!views.contains_key("nowhere"));

    let output = run(folder, &["properties"]);
    let told = text(&output.stderr);
    assert!(told.contains("600 events; distinct values are estimates"), "{told}");
    assert!(told.contains("no meter counts it's; odd (200 events)"), "{told}");
    let wrong = meterhouse(folder, &["properties", "--event", "veiw"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("no event is called `veiw`"), "{}", text(&wrong.stderr));
}

#[test]
fn event_names_are_listed_with_the_meters_that_count_them() {
    let folder = folder();
    let folder = folder.path();
    assert_eq!(
        answer(folder, &["events", "names", "-o", "csv"]),
        format!(
            "event_name,events,percent,first_seen,last_seen,meters\n\
             it's; odd,200,33.3,{},{},\n\
             transfer,200,33.3,{},{},traffic\n\
             view,200,33.3,{},{},views\n",
            instant(2),
            instant(599),
            instant(0),
            instant(597),
            instant(1),
            instant(598),
        )
    );
    let unmetered = rows(folder, &["events", "names", "--unmetered"]);
    assert_eq!(unmetered.len(), 1);
    assert_eq!(unmetered[0]["event_name"], json!("it's; odd"));
}
