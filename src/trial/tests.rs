//! Tests of meters: reading them and comparing rows.

use proptest::prelude::*;

use super::*;

const METER: &str =
    "meter: m\nevent: [e, f]\naggregation: sum\nproperty: p\ntimezone: Europe/Berlin\n";

fn suite(text: &str) -> Suite {
    parse_suite(text, "folder/m.test.yaml").unwrap_or_else(|wrong| panic!("{wrong}"))
}

async fn verdicts(text: &str) -> Vec<Option<String>> {
    let meter = crate::meter::parse(METER, "m.yaml").unwrap();
    let verdicts = run(&suite(text), &meter, Clock::System).await.unwrap();
    verdicts.into_iter().map(|verdict| verdict.failure).collect()
}

#[test]
fn events_are_json_digit_by_digit() {
    let suite = suite(
        "- test: x\n  events:\n    - customer_id: 7\n      source: ~\n      properties: { a: 0.10, b: \
         '0.10', c: true, d: no, e: 007, f: -1e3, g: ~, h: [1, 'x'], i: { j: a\"b }, k: 1_000 }\n  \
         expect: []\n",
    );
    let Events::Written(events) = &suite.cases[0].events else { panic!("{suite:?}") };
    assert_eq!(events[0].line, 3);
    assert_eq!(events[0].members["customer_id"], r#""7""#);
    assert_eq!(events[0].members["source"], "null");
    assert_eq!(
        events[0].members["properties"],
        r#"{"a":0.10,"b":"0.10","c":true,"d":"no","e":"007","f":-1e3,"g":null,"h":[1,"x"],"i":{"j":"a\"b"},"k":"1_000"}"#
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_says_little_counts_at_the_beginning_of_the_question() {
    let text = "\
- test: a month of the meter's zone
  events: [{ properties: { p: 1 } }]
  period: 2026-05
  window: day
  expect: [{ window_start: '2026-05-01T00:00:00+02:00', customer_id: customer, value: 1 }]
- test: before a bound
  events: [{ properties: { p: 1 } }]
  to: 2026-05-01
  expect: [{ value: 1 }]
- test: relative to a moment
  now: 2026-05-20T12:00:00Z
  events: [{ properties: { p: 1 } }]
  period: today
  window: day
  total: true
  expect: [{ window_start: '2026-05-20T00:00:00+02:00', value: 1 }]
- test: far ahead
  events: [{ timestamp: 2999-01-01T00:00:00Z, customer_id: ~, event_name: f, properties: { p: 1 } }]
  expect: [{ customer_id: ~, value: 1 }]
";
    assert_eq!(verdicts(text).await, [const { None::<String> }; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expected_row_that_names_little_leaves_the_others_theirs() {
    let events = "events: [{ customer_id: a, properties: { p: 1 } }, { customer_id: b, properties: { p: 1 } }]";
    let case =
        |name: &str, expect: &str| format!("- test: {name}\n  {events}\n  expect: {expect}\n");
    let text = [
        case("any order", "[{ value: 1 }, { customer_id: a }]"),
        case("the other order", "[{ customer_id: a }, { value: 1 }]"),
        case("too few", "[{ value: 1 }]"),
        case("too many", "[{ value: 1 }, { value: 1 }, { value: 1 }]"),
        case("numbers by value", "[{ value: 1.0, events: 1 }, { value: 1e0 }]"),
        case("a quoted text as it is", "[{ value: '1.0' }, { value: 1 }]"),
        case("an error that does not come", "[]\n  # nothing").replace("expect: []", "error: x"),
    ]
    .concat();
    let failed: Vec<bool> = verdicts(&text).await.iter().map(Option::is_some).collect();
    assert_eq!(failed, [false, false, true, true, false, true, true]);
}

#[test]
fn the_schema_has_the_words_of_the_parser() {
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../../queries/schema/meter-tests.schema.json")).unwrap();
    for (pointer, words) in
        [("/items/properties", &case::CASE[..]), ("/$defs/event/properties", &case::EVENT)]
    {
        let known = schema.pointer(pointer).unwrap().as_object().unwrap().keys();
        let known: std::collections::BTreeSet<&str> = known.map(String::as_str).collect();
        assert_eq!(known, words.iter().copied().collect(), "{pointer}");
    }
}

const SUITE: &str = "\
- test: one
  events:
    - { customer_id: a, timestamp: 2026-05-01T00:00:00Z, properties: { p: 1, q: [x, { y: ~ }] } }
  period: 2026-05
  by: [a, b]
  expect:
    - { a: 1, value: ~ }
- test: two
  events_file: e.ndjson
  total: true
  top: 3
  error: part
";

proptest! {
    #[test]
    fn a_mutated_file_is_answered(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..6, any::<u8>()), 1..8),
    ) {
        let mut bytes = SUITE.as_bytes().to_vec();
        for (place, length, byte) in edits {
            let start = place.index(bytes.len());
            let end = (start + length).min(bytes.len());
            bytes.splice(start..end, [byte, b"-{[]}:'\"&*!|>%\n\t ,#?"[usize::from(byte) % 20]]);
        }
        let text = String::from_utf8_lossy(&bytes);
        match parse_suite(&text, "m.test.yaml") {
            Ok(suite) => prop_assert!(!suite.cases.is_empty()),
            Err(found) => prop_assert!(found.list.iter().all(|d| d.line > 0 && d.column > 0)),
        }
    }
}
