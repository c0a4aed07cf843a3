//! Explanations add up to the number, and the events behind it make it again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use bigdecimal::num_bigint::BigInt;
use jiff::tz::TimeZone;
use meterhouse::clock::Clock;
use meterhouse::engine::Engine;
use meterhouse::explain::{Explained, contributions, explain};
use meterhouse::time::Timestamp;
use meterhouse::usage::{Context, Group};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::agreement::{Place, RUNTIME, cases, definition, limits, settings, sound, timed};
use crate::naive::answer::{Row, answer, asked_of, combined, matches_meter};
use crate::naive::event::Event;
use crate::naive::filter::Filter;
use crate::naive::generate::{self, NOW};
use crate::naive::intake::Intake;
use crate::naive::meter::{Aggregation, Meter, Placing, Question};
use crate::naive::number::{self, DIGITS, Reading, Round, divide, one, ten_to};
use crate::naive::spell;
use crate::program::meterhouse;

// ---- Random events, compared with the second answer ----

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn steps_add_up_to_the_number_and_its_events_make_it_again(
        lines in generate::lines(),
        settings in settings(),
        meters in generate::meters(),
        question in generate::question(),
        group in proptest::option::weighted(0.3, any::<usize>()),
    ) {
        let lines = timed(lines, &meters);
        let place = Place::new();
        let mut intake = Intake::default();
        intake.receive(&lines, NOW, settings.rules.customer_required);
        place.ingest(&lines, &settings);
        // Made once: it takes longer to make than to ask.
        let engine = Engine::new(&place.lake().location, limits(2)).unwrap();
        for meter in &meters {
            let meters_asked = vec![meter.name.clone()];
            let groups = question.groups.iter().take(1).filter(|_| group.is_some());
            let question = Question {
                meters: meters_asked,
                groups: groups.cloned().collect(),
                window: None,
                top: None,
                ..question.clone()
            };
            let question = sound(question, std::slice::from_ref(meter));
            let text = group.and_then(|at| group_of(&intake.events, meter, &question, at));
            let context = context(&place, &engine, meter);
            check(&context, &intake.events, meter, &question, text.as_ref())?;
        }
    }
}

/// The text of the question's group that one of the events belongs to.
fn group_of(
    events: &[Event],
    meter: &Meter,
    question: &Question,
    at: usize,
) -> Option<Option<String>> {
    let name = question.groups.first()?;
    let event = events.get(at.checked_rem(events.len())?)?;
    Some(meter.value(&meter.resolve(name), event).map(|value| value.text()))
}

fn context(place: &Place, engine: &Engine, meter: &Meter) -> Context {
    Context {
        lake: place.lake().clone(),
        engine: engine.clone(),
        meters: Arc::new(vec![definition(meter)]),
        clock: Clock::Fixed(Timestamp::from_micros(NOW)),
    }
}

fn check(
    context: &Context,
    events: &[Event],
    meter: &Meter,
    question: &Question,
    text: Option<&Option<String>>,
) -> Result<(), TestCaseError> {
    let grouped = question;
    let question = Question { groups: Vec::new(), ..question.clone() };
    let group: Vec<Group> = match (text, grouped.groups.first()) {
        (Some(text), Some(name)) => vec![(name.clone(), text.clone())],
        _ => Vec::new(),
    };
    let asked = if group.is_empty() { &question } else { grouped };
    let request = spell::request(&question);
    let told = || format!("{}\n{request:#?}\n{group:?}", spell::meter(meter));
    let have = RUNTIME.block_on(explain(context, &request, &group));
    let want = match answer(events, std::slice::from_ref(meter), asked) {
        Ok(rows) => rows,
        // One of the other groups may be refused.
        Err(_) if !group.is_empty() => return Ok(()),
        Err(_) => {
            prop_assert!(have.is_err(), "{}", told());
            return Ok(());
        }
    };
    let have = have.map_err(|error| TestCaseError::fail(format!("{error}\n{}", told())))?;
    let belongs = |event: &Event| {
        group.iter().all(|(name, text)| {
            let value = meter.value(&meter.resolve(name), event).map(|value| value.text());
            value == *text
        })
    };
    let row = want.into_iter().find(|row| group.is_empty() || Some(&row[0]) == text);
    let row = row.map(|row| row[group.len()..].to_vec());
    let listed = listed(context, &request, &group);
    let steps = steps(events, meter, &question, &belongs);
    prop_assert_eq!(of(&have), steps, "{}", told());
    if let Some(row) = &row {
        prop_assert_eq!(&answer_of(&have), row, "{}", told());
    }
    let value = have.answer.value.as_ref().map(|text| units(text));
    let remade = remade(meter, &question, &listed);
    if let Some(remade) = remade {
        prop_assert_eq!(remade, value, "{}\n{:?}", told(), listed);
    }
    let (within, from) = (listed.iter(), bounds(meter, &question).0);
    let carries = matches!(
        meter.aggregation,
        Aggregation::TimeWeighted { .. }
            | Aggregation::Active { .. }
            | Aggregation::Reported { .. }
    );
    let counted = |event: &&Listed| event.counted_as.is_some();
    let within = within.filter(counted).filter(|event| !carries || event.micros >= from).count();
    prop_assert_eq!(within as u64, have.answer.note.events.unsigned_abs(), "{}", told());
    let carried = listed.iter().filter(|event| event.micros < from).count() as u64;
    prop_assert_eq!(have.carried, carries.then_some(carried), "{}", told());
    // Without all other events the answer is the same, but that what holds ends with those of others.
    if row.is_some() && !carries {
        let of_list: BTreeSet<(&str, &str)> =
            listed.iter().map(|event| (event.source.as_str(), event.key.as_str())).collect();
        let is_listed = |event: &&Event| {
            of_list.contains(&(event.source.as_deref().unwrap_or_default(), event.key.as_str()))
        };
        let alone: Vec<Event> = events.iter().filter(is_listed).cloned().collect();
        prop_assert_eq!(alone.len(), listed.len(), "{}", told());
        let rows = answer(&alone, std::slice::from_ref(meter), &question);
        let without: Option<Option<String>> = rows.ok().map(|rows| rows[0][0].clone());
        prop_assert_eq!(without, Some(have.answer.value.clone()), "{}", told());
    }
    Ok(())
}

fn answer_of(explained: &Explained) -> Row {
    let answer = &explained.answer;
    let mut row = vec![answer.value.clone()];
    if explained.meter.unit.is_some() {
        row.extend([answer.converted.clone(), answer.billable.clone()]);
    }
    row.extend([answer.note.events, answer.note.skipped].map(|count| Some(count.to_string())));
    row
}

/// Asked, dropped and dropped alone by each condition, matched.
type Steps = (u64, Vec<(u64, u64)>, u64);

fn of(explained: &Explained) -> Steps {
    for lookup in &explained.lookups {
        assert_eq!(lookup.mapped + lookup.unmapped + lookup.absent, explained.matched);
    }
    let dropped = explained.dropped.iter().map(|dropped| (dropped.first, dropped.alone));
    (explained.asked, dropped.collect(), explained.matched)
}

fn bounds(meter: &Meter, question: &Question) -> (i64, i64) {
    let zone = TimeZone::get(question.zone(meter)).unwrap();
    let from = question.from.as_ref().map_or(i64::MIN, |bound| bound.micros(&zone));
    (from, question.to.as_ref().map_or(i64::MAX, |bound| bound.micros(&zone)))
}

/// The steps by looking at every event.
fn steps(
    events: &[Event],
    meter: &Meter,
    question: &Question,
    belongs: &dyn Fn(&Event) -> bool,
) -> Steps {
    let (from, to) = bounds(meter, question);
    let in_range = |event: &Event| {
        if let Some((start, end, Placing::Prorate)) = &meter.period {
            let stretch = meter.instant(start, event).zip(meter.instant(end, event));
            if let Some((start, end)) = stretch.filter(|(start, end)| start <= end) {
                // Of no length it is an instant.
                return start.max(from) < end.max(start + 1).min(to);
            }
        }
        let micros = meter.micros(event);
        micros >= from && micros < to
    };
    let unfiltered = Meter { filter: None, ..meter.clone() };
    let asked: Vec<&Event> = events
        .iter()
        .filter(|event| matches_meter(event, &unfiltered) && in_range(event))
        .filter(|event| asked_of(event, meter, question) && belongs(event))
        .collect();
    let conditions: Vec<Filter> = match &meter.filter {
        None => Vec::new(),
        Some(Filter::All(parts)) => parts.clone(),
        Some(other) => vec![other.clone()],
    };
    let mut dropped = vec![(0, 0); conditions.len()];
    let mut matched = 0;
    for event in &asked {
        let failed: Vec<usize> =
            (0..conditions.len()).filter(|&at| !conditions[at].holds(event, meter)).collect();
        match failed.as_slice() {
            [] => matched += 1,
            [first, rest @ ..] => {
                dropped[*first].0 += 1;
                dropped[*first].1 += u64::from(rest.is_empty());
            }
        }
    }
    (asked.len() as u64, dropped, matched)
}

/// An event behind a number.
#[derive(Debug, Clone)]
struct Listed {
    key: String,
    source: String,
    micros: i64,
    value: Option<String>,
    counted_as: Option<String>,
    weight: Option<String>,
    result: (Option<i64>, Option<String>),
    held: Option<(i64, i64)>,
}

fn listed(
    context: &Context,
    request: &meterhouse::usage::UsageRequest,
    group: &[Group],
) -> Vec<Listed> {
    let mut listed = Vec::new();
    let mut take = |batch: RecordBatch| {
        let text = |name: &str, row: usize| {
            let texts = batch.column_by_name(name)?.as_string::<i32>();
            texts.is_valid(row).then(|| texts.value(row).to_owned())
        };
        let micros = |name: &str, row: usize| {
            let instants = batch.column_by_name(name)?;
            let instants = instants.as_primitive::<TimestampMicrosecondType>();
            // What is held to the end of an open range has no end.
            Some(if instants.is_valid(row) { instants.value(row) } else { i64::MAX })
        };
        for row in 0..batch.num_rows() {
            listed.push(Listed {
                key: text("idempotency_key", row).unwrap(),
                source: text("source", row).unwrap_or_default(),
                micros: micros("timestamp", row).unwrap(),
                value: text("value", row),
                counted_as: text("counted_as", row),
                weight: text("weight", row),
                result: (micros("result_window", row), text("series", row)),
                held: micros("held_from", row).zip(micros("held_until", row)),
            });
        }
        Ok(true)
    };
    RUNTIME.block_on(contributions(context, request, group, &mut take)).unwrap();
    listed
}

fn units(text: &str) -> BigInt {
    match number::read(text) {
        Reading::Number(units) => units,
        other => panic!("{text} is {other:?}"),
    }
}

/// The number, made of nothing but what is listed; nothing where that takes more than arithmetic.
fn remade(meter: &Meter, question: &Question, listed: &[Listed]) -> Option<Option<BigInt>> {
    let (from, to) = bounds(meter, question);
    let value = |event: &Listed| units(event.value.as_ref().unwrap());
    Some(match &meter.aggregation {
        Aggregation::Nested { outer, inner, .. } => {
            let mut results: BTreeMap<_, Vec<Listed>> = BTreeMap::new();
            for event in listed {
                results.entry(event.result.clone()).or_default().push(event.clone());
            }
            let numbers = results.values().filter_map(|events| of_listed(inner, events));
            let numbers: Vec<_> = numbers.map(|number| (0, number, one())).collect();
            match outer.as_ref() {
                Aggregation::Count => Some(BigInt::from(numbers.len()) * one()),
                _ if numbers.is_empty() => None,
                outer => Some(combined(outer, &numbers).unwrap()),
            }
        }
        Aggregation::TimeWeighted { .. } if listed.is_empty() => return None,
        Aggregation::TimeWeighted { .. } => {
            let area = |event: &Listed| {
                let (from, until) = event.held.unwrap();
                value(event) * BigInt::from((until - from).max(0))
            };
            let area: BigInt = listed.iter().map(area).sum();
            let length = BigInt::from(to - from) * ten_to(26);
            Some(divide(&area, &length, Round::HalfEven) * ten_to(26))
        }
        Aggregation::Active { by_days: true, .. } => return None,
        Aggregation::Active { .. } => {
            let adds = |event: &&Listed| event.counted_as.as_deref() == Some("add");
            let there = listed.iter().filter(adds).filter(|event| event.held.unwrap().1 == to);
            let there: BTreeSet<_> =
                there.map(|event| (event.value.clone(), event.result.1.clone())).collect();
            Some(BigInt::from(there.len()) * one())
        }
        // It may be known and nothing.
        Aggregation::Reported { .. } if listed.is_empty() => return None,
        Aggregation::Reported { .. } => {
            let at_end = listed.iter().filter(|event| event.held.unwrap().1 == to);
            Some(at_end.map(value).sum())
        }
        simple => of_listed(simple, listed),
    })
}

fn of_listed(aggregation: &Aggregation, listed: &[Listed]) -> Option<BigInt> {
    let total =
        || -> BigInt { listed.iter().flat_map(|event| &event.counted_as).map(|t| units(t)).sum() };
    match aggregation {
        Aggregation::Count => Some(total()),
        Aggregation::CountUnique => {
            let texts: BTreeSet<_> =
                listed.iter().filter_map(|event| event.value.clone()).collect();
            Some(BigInt::from(texts.len()) * one())
        }
        _ if listed.is_empty() => None,
        Aggregation::Sum => Some(total()),
        other => {
            let weight = |event: &Listed| event.weight.as_deref().map_or_else(one, units);
            let number = |event: &Listed| {
                (event.micros, units(event.value.as_ref().unwrap()), weight(event))
            };
            let numbers: Vec<_> = listed.iter().map(number).collect();
            let weighs_nothing = numbers.iter().all(|(_, _, weight)| *weight == BigInt::ZERO);
            match other {
                Aggregation::Average if weighs_nothing => None,
                other => Some(combined(other, &numbers).unwrap()),
            }
        }
    }
}

#[test]
fn a_number_is_read_back_as_it_was_written() {
    for text in ["0", "-1.5", "12345678901234567890.000000000000000001"] {
        assert_eq!(number::text(&units(text), DIGITS), text);
    }
}

// ---- Through the program ----

const METERS: [(&str, &str); 3] = [
    (
        "bandwidth",
        "meter: bandwidth
event: transfer
filter:
  - { property: status, in: [200, 206] }
  - { property: cache, not_equals: internal }
aggregation: sum
property: bytes
lookups:
  region: { of: dc, file: regions.csv, key: dc, value: region, otherwise: unmapped }
unit: { name: kB, divide_by: 1000, round: up, precision: 1 }
",
    ),
    (
        "seats",
        "meter: seats
event: seat
aggregation: count_unique
property: user
operation: action
",
    ),
    (
        "weighed",
        "meter: weighed
event: transfer
aggregation: sum
expression: bytes * 2 / factor
weight: w
",
    ),
];

const EVENTS: &str = r#"
{"event_name":"transfer","idempotency_key":"1","customer_id":"c","timestamp":"2024-10-02T00:00:00Z","properties":{"status":200,"bytes":1500,"dc":"a","factor":2,"w":3}}
{"event_name":"transfer","idempotency_key":"2","customer_id":"c","timestamp":"2024-10-03T00:00:00Z","properties":{"status":404,"bytes":1,"dc":"b"}}
{"event_name":"transfer","idempotency_key":"3","customer_id":"c","timestamp":"2024-10-03T00:00:00Z","properties":{"status":404,"bytes":1,"cache":"internal"}}
{"event_name":"transfer","idempotency_key":"4","customer_id":"c","timestamp":"2024-10-04T00:00:00Z","properties":{"status":200,"bytes":7,"dc":"zz"}}
{"event_name":"transfer","idempotency_key":"5","customer_id":"c","timestamp":"2024-10-05T00:00:00Z","properties":{"status":200,"bytes":"x","dc":"zz","w":-1}}
{"event_name":"transfer","idempotency_key":"6","customer_id":"d","timestamp":"2024-10-06T00:00:00Z","properties":{"status":200,"bytes":77.5,"factor":0}}
{"event_name":"seat","idempotency_key":"u1","customer_id":"c","timestamp":"2024-09-06T00:00:00Z","properties":{"user":"ann"}}
{"event_name":"seat","idempotency_key":"u2","customer_id":"c","timestamp":"2024-10-06T00:00:00Z","properties":{"user":"bob","action":"add"}}
{"event_name":"seat","idempotency_key":"u3","customer_id":"c","timestamp":"2024-10-07T00:00:00Z","properties":{"user":"bob","action":"boo"}}
"#;

const CONFLICT: &str = r#"
{"event_name":"transfer","idempotency_key":"1","customer_id":"c","timestamp":"2024-10-02T00:00:00Z","properties":{"status":200,"bytes":9}}
{"event_name":"transfer","idempotency_key":"2","customer_id":"c","timestamp":"2024-10-03T00:00:00Z","properties":{"status":404,"bytes":1,"dc":"b"}}
"#;

fn succeed(folder: &Path, args: &[&str]) -> String {
    let output = meterhouse(folder, args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn lake() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::create_dir_all(path.join("queries/meters")).unwrap();
    for (name, text) in METERS {
        fs::write(path.join(format!("queries/meters/{name}.yaml")), text).unwrap();
    }
    fs::write(path.join("queries/meters/regions.csv"), "dc,region\na,EU\n").unwrap();
    fs::write(path.join("events.ndjson"), EVENTS.trim_start()).unwrap();
    fs::write(path.join("again.ndjson"), CONFLICT.trim_start()).unwrap();
    succeed(path, &["ingest", "events.ndjson"]);
    assert_eq!(meterhouse(path, &["ingest", "again.ndjson"]).status.code(), Some(3));
    succeed(path, &["events", "void", "--key", "4", "--reason", "was wrong"]);
    succeed(path, &["events", "amend", "--key", "6", "--set", "bytes=80", "--reason", "typo"]);
    folder
}

/// The rows of an explanation as `step|what|events|alone|value|example`, ids of corrections left out.
fn rows(folder: &Path, args: &[&str]) -> Vec<String> {
    let text = succeed(folder, &[&["explain"], args, &["-o", "ndjson"]].concat());
    let row = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let cell = |name: &str| match &row[name] {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) => {
                let end = text.find("correction ").map_or(text.len(), |at| at + "correction".len());
                text[..end].to_owned()
            }
            other => other.to_string(),
        };
        ["step", "what", "events", "alone", "value", "example"].map(cell).join("|")
    };
    text.lines().map(row).collect()
}

#[test]
fn a_number_is_explained_step_by_step() {
    let folder = lake();
    let period = ["--period", "2024-10"];
    for (meter, more, want) in [
        (
            "bandwidth",
            &[][..],
            &[
                "asked|event transfer|5|||",
                "dropped|status in (200, 206)|2|1||",
                "dropped|cache <> 'internal'|0|0||",
                "matched|what meets all conditions|3|||",
                "skipped|bytes is no number|1|||5",
                "counted|sum of bytes|2||1580|",
                "converted|1580 divided by 1000, in kB|||1.58|",
                "rounded|up, to 1 digits|||1.6|",
                "late|received after the end of the range|2|||",
                "lookup|region: mapped|1|||",
                "lookup|region: no row for the value|1|||5",
                "lookup|region: no value to map|1|||",
                "corrected|made by correction|1|||",
                "left out|replaced by correction|1|||",
                "left out|voided by correction|1|||",
                "not stored|duplicates, in all batches up to this version|1|||",
                "not stored|conflicts that the question is about|1|||",
                "not stored|rejected, in all batches up to this version|0|||",
            ][..],
        ),
        (
            "bandwidth",
            &["--customer", "c", "--group", "region=EU", "--group", "cache"],
            &[
                "asked|event transfer, customer c, region = EU, cache absent|1|||",
                "counted|sum of bytes|1||1500|",
            ],
        ),
        (
            "bandwidth",
            &["--at", "1"],
            &["asked|event transfer|6|||", "counted|sum of bytes|3||1584.5|"],
        ),
        (
            "seats",
            &[],
            &[
                "skipped|action is none of add, remove|1|||u3",
                "carried|what was before the range|1|||",
                "late|received after the end of the range|2||0|",
            ],
        ),
        (
            "weighed",
            &["--where", "status = 200"],
            &[
                "skipped|weight w is below zero|1|||5",
                "skipped|((bytes * 2) / factor) divides by zero|1|||6",
                "counted|sum of ((bytes * 2) / factor)|1||4500|",
            ],
        ),
        ("weighed", &[], &["skipped|factor is absent|2|||2"]),
    ] {
        let have = rows(folder.path(), &[&[meter], &period[..], more].concat());
        for row in want {
            assert!(have.iter().any(|have| have == row), "{meter} {more:?}: no {row} in {have:#?}");
        }
    }
}

#[test]
fn the_events_behind_a_number_are_listed_in_order() {
    let folder = lake();
    let listed = |meter: &str| {
        let args = ["explain", meter, "--period", "2024-10", "--events", "-o", "csv"];
        let text = succeed(folder.path(), &args);
        let rows = text.lines().map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            [cells[0], cells[3], cells[6], cells[7]].join(",")
        });
        rows.collect::<Vec<_>>()
    };
    let header = "idempotency_key,timestamp,value,counted_as";
    for (meter, want) in [
        (
            "bandwidth",
            ["1,2024-10-02T00:00:00Z,1500,1500", "6,2024-10-06T00:00:00Z,80,80"].as_slice(),
        ),
        ("seats", &["u1,2024-09-06T00:00:00Z,ann,add", "u2,2024-10-06T00:00:00Z,bob,add"]),
        ("weighed", &["1,2024-10-02T00:00:00Z,1500,4500"]),
    ] {
        assert_eq!(listed(meter), [&[header], want].concat(), "{meter}");
    }
}

#[test]
fn an_event_is_shown_with_what_became_of_it() {
    let folder = lake();
    let show = |args: &[&str]| {
        let text = succeed(folder.path(), &[&["events", "show"], args, &["-o", "ndjson"]].concat());
        let row = |line: &str| {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let cell = |name: &str| match &row[name] {
                serde_json::Value::Null => String::new(),
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            ["row", "about", "what", "value", "note"].map(cell).join("|")
        };
        text.lines().map(row).collect::<Vec<_>>()
    };
    for (args, want) in [
        (
            &["1"][..],
            &[
                "1|row|event||",
                "1|received|ordinal|0|",
                "1|field|customer_id|c|",
                "1|property|bytes|1500|",
                "1|meter|bandwidth|1500|counts it as 1500",
                "1|meter|seats||is about events of other names",
                "1|meter|weighed|1500|counts it as 4500, with weight 3",
            ][..],
        ),
        (&["2"], &["1|meter|bandwidth||drops it: it does not meet status in (200, 206)"]),
        (&["4"], &["1|row|voided||", "1|meter|every meter||does not count it, as it was voided"]),
        (&["4", "--at", "1"], &["1|row|event||", "1|meter|bandwidth|7|counts it as 7"]),
        (&["5"], &["1|meter|bandwidth||skips it: bytes is no number"]),
        (&["6"], &["1|row|replaced||", "2|row|event||", "2|meter|bandwidth|80|counts it as 80"]),
    ] {
        let have = show(args);
        for row in want {
            assert!(have.iter().any(|have| have == row), "{args:?}: no {row} in {have:#?}");
        }
    }
    let of = |what: &str, args: &[&str]| {
        let have = show(args);
        have.into_iter().filter(|row| row.contains(what)).collect::<Vec<_>>()
    };
    assert_eq!(of("|quarantine|conflict|", &["1"]).len(), 1);
    assert!(of("|batch|", &["1"])[0].ends_with("|events.ndjson, version 1"));
    assert!(of("|ended by correction|", &["4"])[0].contains("void by tester at "));
    assert!(of("|ended by correction|", &["4"])[0].ends_with(": was wrong"));
    assert!(of("|made by correction|", &["6"])[0].ends_with(": typo"));
    for (args, want) in [
        (&["nope"][..], "no event has the key `nope`: neither one of the 10 rows of version 3 nor"),
        (&["1", "--source", "edge"], "of source `edge`: neither"),
        (&["1", "--source", "edge"], "without a source it is there"),
    ] {
        let output = meterhouse(folder.path(), &[&["events", "show"], args].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(errors.contains(want), "{args:?}: {errors}");
    }
}

#[test]
fn an_event_that_counts_as_too_many_digits_is_found_in_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let line = |key: &str, v: &str, w: &str| {
        format!(
            r#"{{"event_name":"e","idempotency_key":"{key}","customer_id":"c","timestamp":"2026-01-01T00:00:00Z","properties":{{"v":{v},"w":{w}}}}}"#,
        ) + "\n"
    };
    let small = format!("0.{}1", "0".repeat(37));
    let text = line("k1", "2", "3") + &line("k2", &small, "0.1");
    fs::write(folder.path().join("e.ndjson"), text).unwrap();
    let meters = folder.path().join("queries/meters");
    fs::create_dir_all(&meters).unwrap();
    let meter = "meter: m\naggregation: sum\nproperty: v\nweight: w\n";
    fs::write(meters.join("m.yaml"), meter).unwrap();
    let run = |args: &[&str], code: i32| {
        let output = meterhouse(folder.path(), args);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        (text(output.stdout), text(output.stderr))
    };
    run(&["ingest", "e.ndjson"], 0);
    let (data, said) = run(&["usage", "m", "-o", "csv"], 1);
    assert_eq!(data, "");
    assert!(
        said.contains("`meterhouse explain m --events` shows what each event counts as"),
        "{said}"
    );
    let (data, _) = run(&["explain", "m", "--events", "-o", "csv"], 0);
    assert!(data.contains(",6,") || data.contains(",6\n"), "{data}");
    assert_eq!(data.matches("more than 38 digits").count(), 1, "{data}");
    let (data, _) = run(&["events", "show", "k2"], 0);
    assert!(data.contains("counts it as more than 38 digits, with weight 0.1"), "{data}");
}
