//! Rollups never change an answer, whatever happened before, since and in between.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use arrow::array::RecordBatch;
use meterhouse::clock::Clock;
use meterhouse::engine::Engine;
use meterhouse::error::Result;
use meterhouse::ingest::IngestSettings;
use meterhouse::lake::vacuum::{RETENTION_DEFAULT, vacuum};
use meterhouse::meter::load_folder;
use meterhouse::plan::states::kept;
use meterhouse::rollup::{Manner, Merging, describe, empty_if_idle, refresh, tables};
use meterhouse::time::Timestamp;
use meterhouse::usage::{Context, Grouping, UsageRequest, usage};
use proptest::prelude::*;
use serde_json::json;

use crate::agreement::{
    RUNTIME, cases, definition, difference, limits, rows_of, settings, sound, timed,
};
use crate::corrections::{Life, Step, step};
use crate::naive::answer::{Row, answer};
use crate::naive::generate::{self, NOW};
use crate::naive::meter::{Bound, Meter, Question};
use crate::naive::spell;
use crate::naive::window::Window;
use crate::program::meterhouse;
use crate::statements;
use crate::storm::random::Random;

const WORTH: Manner = Manner { merging: Merging::Worth, anew: false };
const WHOLE: Manner = Manner { merging: Merging::Whole, anew: false };

/// What happens between two ingests.
#[derive(Debug, Clone)]
enum Turn {
    Step(Step),
    Refresh(Manner),
    /// A refresh that is killed where it waits after having waited so often.
    Killed(u8),
}

fn turn() -> BoxedStrategy<Turn> {
    prop_oneof![
        2 => step().prop_map(Turn::Step),
        2 => Just(Turn::Refresh(WORTH)),
        1 => Just(Turn::Refresh(WHOLE)),
        2 => (0..100_u8).prop_map(Turn::Killed),
    ]
    .boxed()
}

/// What meters are broken down by, so that states are kept by it.
const DIMENSIONS: [&str; 3] = ["region", "looked_up", "bytes"];

/// The meters, with the dimensions that states are kept by.
fn context(life: &Life, meters: &[Meter], questions: &[Question]) -> Context {
    let defined = meters.iter().map(|meter| {
        let mut defined = definition(meter);
        let names = DIMENSIONS.iter().map(|name| (*name).to_owned());
        let asked = questions.iter().flat_map(|question| question.groups.iter().cloned());
        for name in names.chain(asked) {
            let own = name != "looked_up" || defined.lookups.contains_key(&name);
            if own && !defined.dimensions.contains(&name) {
                defined.dimensions.push(name);
            }
        }
        defined
    });
    Context { meters: Arc::new(defined.collect()), ..life.context() }
}

/// The rows of an answer, and how many of its meters were answered from states.
fn ask(context: &Context, request: &UsageRequest) -> (Result<Vec<Row>>, u64) {
    let mut rows = Vec::new();
    let mut take = |batch: RecordBatch| {
        rows.extend(rows_of(&batch));
        Ok(true)
    };
    match RUNTIME.block_on(usage(context, request, &mut take)) {
        Ok(notes) => {
            let from_states = notes.iter().filter(|note| note.rollup.is_some()).count();
            (Ok(rows), from_states as u64)
        }
        Err(error) => (Err(error), 0),
    }
}

fn refresh_all(context: &Context, merging: Manner) {
    let snapshot = RUNTIME.block_on(context.lake.events.snapshot(None)).unwrap();
    for meter in context.meters.iter().filter(|meter| kept(meter).is_some()) {
        let place = (&context.lake, &context.engine);
        let now = Timestamp::from_micros(NOW);
        let done = RUNTIME.block_on(refresh(place, meter, &snapshot, merging, now));
        // A sum that no column holds is refused; such a meter is answered from the events.
        if let Err(error) = done {
            assert!(error.to_string().contains("more than 38 integer digits"), "{error}");
        }
    }
}

/// How many refreshes of all lives were killed.
static KILLED: AtomicU64 = AtomicU64::new(0);

/// Refreshes of which each is broken off where it waits, for the store or for rows, after having waited so
/// often.
fn killed_refreshes(context: &Context, waits: u8) {
    let snapshot = RUNTIME.block_on(context.lake.events.snapshot(None)).unwrap();
    for meter in context.meters.iter().filter(|meter| kept(meter).is_some()) {
        let place = (&context.lake, &context.engine);
        let now = Timestamp::from_micros(NOW);
        let mut refreshed = Box::pin(refresh(place, meter, &snapshot, WORTH, now));
        let mut left = waits;
        let killed = std::future::poll_fn(|waker| match refreshed.as_mut().poll(waker) {
            Poll::Ready(_) => Poll::Ready(false),
            Poll::Pending if left == 0 => Poll::Ready(true),
            Poll::Pending => {
                left -= 1;
                Poll::Pending
            }
        });
        KILLED.fetch_add(u64::from(RUNTIME.block_on(killed)), Ordering::Relaxed);
    }
}

/// A question whose bounds are dates, more often than not those of buckets.
fn question() -> BoxedStrategy<Question> {
    let date = || {
        let month = (1..12_i8, prop_oneof![2 => Just(1_i8), 1 => 1..28_i8]);
        month.prop_map(|(month, day)| Bound::Date(jiff::civil::date(2026, month, day)))
    };
    let windows = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Window::Hours(1))),
        2 => Just(Some(Window::Day)),
        2 => Just(Some(Window::Months(1))),
        1 => Just(Some(Window::BillingPeriod)),
    ];
    let bounds = (proptest::option::weighted(0.4, date()), proptest::option::weighted(0.4, date()));
    (generate::question(), bounds, windows, any::<u8>())
        .prop_map(|(question, (from, to), window, kind)| match kind % 4 {
            0 => question,
            1 => Question { from, to, window, ..question },
            _ => Question { from, to, window, zone: None, filter: None, ..question },
        })
        .boxed()
}

/// Meters of which one has states at least.
fn meters() -> impl Strategy<Value = Vec<Meter>> {
    let has_states =
        |meters: &Vec<Meter>| meters.iter().any(|meter| kept(&definition(meter)).is_some());
    generate::meters().prop_filter("no meter has states", has_states)
}

/// How many answers of all lives came from states, and how many did not.
static FROM_STATES: AtomicU64 = AtomicU64::new(0);
static FROM_EVENTS: AtomicU64 = AtomicU64::new(0);

#[test]
fn answers_from_states_are_those_of_the_events() {
    random_lives_agree();
    let (states, events) =
        (FROM_STATES.load(Ordering::Relaxed), FROM_EVENTS.load(Ordering::Relaxed));
    assert!(states > 0 && events > 0, "{states} from states, {events} from events");
    let killed = KILLED.load(Ordering::Relaxed);
    assert!(killed > 0, "no refresh was killed");
    eprintln!("{states} answers from states, {events} from events, {killed} refreshes killed");
}

proptest! {
    #![proptest_config(cases(5))]

    fn random_lives_agree(
        lines in generate::lines(),
        settings in settings(),
        turns in proptest::collection::vec(turn(), 4..10),
        meters in meters(),
        questions in proptest::collection::vec(question(), 3),
    ) {
        let lines = timed(lines, &meters);
        let questions: Vec<Question> =
            questions.into_iter().map(|question| sound(question, &meters)).collect();
        let mut life = Life::new();
        let context = context(&life, &meters, &questions);
        let required = settings.rules.customer_required;
        let mut answers = Vec::new();
        for (place, part) in lines.chunks(lines.len().div_ceil(3).max(1)).enumerate() {
            life.intake.receive(part, NOW, required);
            life.place.ingest(part, &settings);
            for turn in turns.iter().skip(place).step_by(3) {
                match turn {
                    Turn::Step(step) => life.take(step),
                    Turn::Refresh(merging) => refresh_all(&context, *merging),
                    Turn::Killed(waits) => killed_refreshes(&context, *waits),
                }
                for question in &questions {
                    let want = answer(&life.events(), &meters, question);
                    let request = spell::request(question);
                    let (have, from_states) = ask(&context, &request);
                    FROM_STATES.fetch_add(from_states, Ordering::Relaxed);
                    FROM_EVENTS.fetch_add(u64::from(from_states == 0), Ordering::Relaxed);
                    if let Some(difference) = difference(&want, &have) {
                        let files: Vec<String> = meters.iter().map(spell::meter).collect();
                        return Err(TestCaseError::fail(format!(
                            "{turn:?}, {from_states} from states: {request:#?}\n{}{difference}",
                            files.concat()
                        )));
                    }
                    let snapshot = life.place.lake().events.snapshot(None);
                    answers.push((RUNTIME.block_on(snapshot).unwrap().version, request, want));
                }
            }
        }
        // What was said of a version is said of it when the rollup has gone on.
        refresh_all(&context, WHOLE);
        for (version, request, want) in answers {
            let (have, _) = ask(&context, &UsageRequest { at: Some(version), ..request });
            if let Some(difference) = difference(&want, &have) {
                return Err(TestCaseError::fail(format!("version {version}: {difference}")));
            }
        }
    }
}

#[test]
fn a_refresh_reads_what_is_new_and_finds_nothing_twice() {
    let mut life = Life::new();
    let meters = [Meter::count("m")];
    let question = Question { groups: vec!["customer_id".to_owned()], ..Question::total("m") };
    let context = context(&life, &meters, std::slice::from_ref(&question));
    let engine = Engine::new(&life.place.lake().location, limits(2)).unwrap();
    let refreshed = || {
        let snapshot = RUNTIME.block_on(context.lake.events.snapshot(None)).unwrap();
        let place = (&context.lake, &engine);
        let now = Timestamp::from_micros(NOW);
        RUNTIME.block_on(refresh(place, &context.meters[0], &snapshot, WORTH, now)).unwrap()
    };
    let line = |n: usize| crate::corrections::line(n);
    let ingest = |life: &mut Life, numbers: std::ops::Range<usize>| {
        let lines: Vec<_> = numbers.map(line).collect();
        life.intake.receive(&lines, NOW, true);
        life.place.ingest(&lines, &IngestSettings::default());
    };
    ingest(&mut life, 0..40);
    assert_eq!(refreshed().rows_read, 40);
    let again = refreshed();
    assert_eq!((again.rows_read, again.files_added), (0, 0));
    ingest(&mut life, 40..45);
    let request = spell::request(&question);
    let want = answer(&life.events(), &meters, &question).unwrap();
    // Five rows of events beside the states, then none.
    for rows_since in [5, 0] {
        let mut rows = Vec::new();
        let mut take = |batch: RecordBatch| {
            rows.extend(rows_of(&batch));
            Ok(true)
        };
        let notes = RUNTIME.block_on(usage(&context, &request, &mut take)).unwrap();
        let rollup = notes[0].rollup.as_ref().unwrap();
        assert_eq!((rollup.grain.name(), rollup.rows_since), ("month", rows_since));
        assert_eq!(rows, want);
        refreshed();
    }
    // Of two at the same time one adds what is new.
    ingest(&mut life, 45..60);
    let snapshot = RUNTIME.block_on(context.lake.events.snapshot(None)).unwrap();
    let both = RUNTIME.block_on(async {
        let place = (&context.lake, &engine);
        let now = Timestamp::from_micros(NOW);
        let once = || refresh(place, &context.meters[0], &snapshot, WORTH, now);
        tokio::join!(once(), once())
    });
    let added = [both.0.unwrap().rows_read, both.1.unwrap().rows_read];
    assert_eq!(added.iter().sum::<u64>(), 15, "{added:?}");
    let want = answer(&life.events(), &meters, &question).unwrap();
    let (have, from_states) = ask(&context, &request);
    assert_eq!((have.unwrap(), from_states), (want, 1));
    // Compaction brings nothing new; a correction makes its month anew.
    life.take(&Step::Compact);
    assert_eq!(refreshed().rows_read, 0);
    life.take(&Step::Void(vec![3]));
    let (have, from_states) = ask(&context, &request);
    assert_eq!(from_states, 0, "what a correction changed is read from the events");
    let want = answer(&life.events(), &meters, &question).unwrap();
    assert_eq!(have.unwrap(), want);
    let mended = refreshed();
    assert!(mended.days_anew > 0, "{mended:?}");
    assert!(mended.rows_read < 60, "only the days concerned are read: {mended:?}");
    let (have, from_states) = ask(&context, &request);
    assert_eq!((have.unwrap(), from_states), (want, 1));
}

#[test]
fn a_month_becomes_one_file_when_it_is_over() {
    let life = Life::new();
    let context = context(&life, &[Meter::count("m")], &[]);
    let (lake, meter) = (&context.lake, &context.meters[0]);
    let refreshed = |merging: Manner, days_later: i64| {
        let now = Timestamp::from_micros(NOW + days_later * 86_400_000_000);
        RUNTIME.block_on(async {
            let snapshot = lake.events.snapshot(None).await.unwrap();
            refresh((lake, &context.engine), meter, &snapshot, merging, now).await.unwrap();
            describe(lake, meter).await.unwrap().unwrap().files
        })
    };
    let mut next = 0;
    let mut ingest = |count: usize| {
        let lines: Vec<_> = (next..next + count).map(crate::corrections::line).collect();
        next += count;
        life.place.ingest(&lines, &IngestSettings::default());
    };
    // NOW is the first of a month, and the events are of the nine days before.
    for (events, files) in [(90, 2), (9, 4), (9, 6)] {
        ingest(events);
        assert_eq!(refreshed(WORTH, 0), files);
    }
    assert_eq!(refreshed(WORTH, 1), 6, "a month goes on for two days");
    assert_eq!(refreshed(WORTH, 3), 4);
    ingest(9);
    assert_eq!(refreshed(WORTH, 3), 3, "late events stay beside, four small files do not");
    let between = RUNTIME.block_on(lake.events.snapshot(None)).unwrap().version;
    ingest(9);
    assert_eq!(refreshed(WHOLE, 3), 3, "the month that goes on keeps its two");
    // What vacuum takes of states is read from the events.
    let total =
        UsageRequest { meters: vec!["m".to_owned()], at: Some(between), ..UsageRequest::default() };
    let (want, from_states) = ask(&context, &total);
    assert_eq!(from_states, 1);
    let gone = RUNTIME.block_on(async {
        let [(_, Ok(table))] = &tables(lake).await.unwrap()[..] else { panic!("one rollup") };
        let later = Timestamp::from_micros(Clock::System.now().micros() + 40 * 86_400_000_000);
        vacuum(table, RETENTION_DEFAULT, later, false).await.unwrap()
    });
    assert!(gone.files.len() > 6, "{gone:?}");
    let (have, from_states) = ask(&context, &total);
    assert_eq!((have.unwrap(), from_states), (want.unwrap(), 0));
    let newest = UsageRequest { at: None, ..total };
    assert_eq!(ask(&context, &newest).1, 1);
    // A rollup that nobody refreshes goes once events came, and is made anew by whoever does.
    let idle = |days: i64| {
        let now = Timestamp::from_micros(Clock::System.now().micros() + days * 86_400_000_000);
        RUNTIME.block_on(async {
            let [(_, Ok(table))] = &tables(lake).await.unwrap()[..] else { panic!("one rollup") };
            empty_if_idle(lake, table, RETENTION_DEFAULT, now).await.unwrap()
        })
    };
    assert_eq!(idle(100), 0, "it tells all there is");
    ingest(9);
    assert_eq!(idle(0), 0, "it was refreshed just now");
    let (want, _) = ask(&context, &newest);
    assert_eq!(idle(100), 3);
    let (have, from_states) = ask(&context, &newest);
    assert_eq!((have.unwrap(), from_states), (want.unwrap(), 0));
    assert_eq!(refreshed(WORTH, 3), 2);
    assert_eq!(ask(&context, &newest).1, 1);
}

/// The events are set back and go on another way: states of what is no more are never read.
#[test]
fn states_of_another_history_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let output = meterhouse(folder.path(), args);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (data, said) = (text(output.stdout), text(output.stderr));
        assert!(output.status.success(), "{args:?}: {said}");
        (data, said)
    };
    let meters = folder.path().join("queries/meters");
    fs::create_dir_all(&meters).unwrap();
    fs::write(meters.join("bytes.yaml"), "meter: bytes\naggregation: sum\nproperty: bytes\n")
        .unwrap();
    let ingest = |key: &str, bytes: u32| {
        let event = serde_json::json!({
            "event_name": "e", "idempotency_key": key, "customer_id": "c",
            "timestamp": "2026-05-05T05:05:05Z", "properties": { "bytes": bytes },
        });
        fs::write(folder.path().join("e.ndjson"), event.to_string()).unwrap();
        run(&["ingest", "e.ndjson", "-q"]);
    };
    let total = |want: &str, from_states: bool| {
        let (data, said) = run(&["usage", "bytes", "--total", "-o", "csv"]);
        assert!(data.contains(&format!("\n{want},")), "{want}: {data}");
        assert_eq!(said.contains("rollup by"), from_states, "{said}");
    };
    let events = folder.path().join("lake/default/events");
    let log = events.join("_delta_log");
    ingest("one", 1);
    ingest("two", 10);
    run(&["rollups", "refresh", "-q"]);
    total("11", true);
    // The second version goes, and another one takes its number.
    fs::remove_file(log.join("00000000000000000002.json")).unwrap();
    ingest("other", 100);
    total("101", false);
    let (_, said) = run(&["rollups", "refresh"]);
    assert!(said.contains("version 2 of another history"), "{said}");
    total("101", false);
    ingest("more", 1_000);
    total("1101", false);
    let (_, said) = run(&["rollups", "refresh"]);
    assert!(said.contains("3 rows read"), "all is made anew: {said}");
    total("1101", true);
}

/// A total of more than 38 integer digits is refused, of events and of states alike.
#[test]
fn a_total_that_is_too_long_is_refused_from_states_too() {
    let folder = tempfile::tempdir().unwrap();
    let meters = folder.path().join("queries/meters");
    fs::create_dir_all(&meters).unwrap();
    fs::write(
        meters.join("area.yaml"),
        "meter: area\naggregation: sum\nproperty: bytes\nweight: rate\ndimensions: [day]\n",
    )
    .unwrap();
    let (mut lines, large) = (String::new(), 9_000_000_000_000_000_000_u64);
    for (key, month, bytes) in [("a", 1, large), ("b", 2, large), ("c", 3, 2)] {
        let event = serde_json::json!({
            "event_name": "e", "idempotency_key": key, "customer_id": "c",
            "timestamp": format!("2026-0{month}-05T05:05:05Z"),
            "properties": { "bytes": bytes, "rate": large },
        });
        lines.push_str(&(event.to_string() + "\n"));
    }
    fs::write(folder.path().join("e.ndjson"), lines).unwrap();
    assert!(meterhouse(folder.path(), &["ingest", "e.ndjson", "-q"]).status.success());
    let ask = |more: &[&str]| {
        let args = [&["usage", "area", "-o", "csv"], more].concat();
        let output = meterhouse(folder.path(), &args);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    assert!(meterhouse(folder.path(), &["rollups", "refresh", "-q"]).status.success());
    for (question, fits) in [(&["--total"][..], false), (&["--total", "--window", "month"], true)] {
        let (of_states, of_events) = (ask(question), ask(&[question, &["--from-events"]].concat()));
        assert_eq!((of_states.0, &of_states.1), (of_events.0, &of_events.1), "{question:?}");
        assert_eq!(of_events.0 == Some(0), fits, "{of_events:?}");
        let said = if fits { "rollup by month" } else { "area" };
        assert!(of_states.2.contains(said), "{of_states:?}");
    }
}

// ---- Through the program ----

#[test]
fn the_program_makes_rollups_and_says_what_it_answers_from() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str], code: i32| {
        let output = meterhouse(folder.path(), args);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (data, said) = (text(output.stdout), text(output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        (data, said)
    };
    let meters = folder.path().join("queries/meters");
    fs::create_dir_all(&meters).unwrap();
    fs::write(
        meters.join("bytes.yaml"),
        "meter: bytes\naggregation: sum\nproperty: bytes\ndimensions: [region, host]\n",
    )
    .unwrap();
    fs::write(
        meters.join("seats.yaml"),
        "meter: seats\naggregation: time_weighted\nproperty: bytes\nof: level\n",
    )
    .unwrap();
    let events = |name: &str, numbers: std::ops::Range<usize>| {
        let line = |n: usize| {
            format!(
                r#"{{"event_name":"e","idempotency_key":"k{n}","customer_id":"c{}","timestamp":"2026-0{}-10T0{}:30:00Z","properties":{{"bytes":{n}.5,"region":"r{}","host":"h{n}"}}}}"#,
                n % 2,
                n % 3 + 1,
                n % 7,
                n % 2
            ) + "\n"
        };
        let text: String = numbers.map(line).collect();
        fs::write(folder.path().join(name), text).unwrap();
        run(&["ingest", name], 0);
    };
    events("one.ndjson", 0..30);
    assert!(run(&["rollups", "list"], 0).1.contains("`meterhouse rollups refresh` makes them"));
    let (_, said) = run(&["rollups", "refresh"], 0);
    assert!(said.contains("30 rows read") && said.contains("up to version 1"), "{said}");
    assert!(said.contains("answered from the events, without a rollup: seats"), "{said}");
    events("two.ndjson", 30..35);
    let (listed, _) = run(&["rollups", "list", "-o", "csv"], 0);
    assert!(listed.lines().nth(1).unwrap().starts_with("bytes,"), "{listed}");
    assert!(listed.contains(",1,1,"), "one version behind: {listed}");
    for (question, note) in [
        (vec!["--period", "2026-02"], "rollup by month to version 1 and 2 rows since"),
        (vec!["--by", "region", "--window", "day"], "rollup by day to version 1 and 5 rows since"),
        (
            vec!["--from", "2026-01-10T03:00:00Z", "--to", "2026-01-10T05:00:00Z", "--by", "host"],
            "rollup by hour to version 1",
        ),
        (vec!["--where", "region = 'r1'", "--total"], "rollup by month"),
        (vec!["--total", "--tz", "Asia/Kolkata", "--window", "hour"], ""),
        (vec!["--where", "bytes > 3"], ""),
        (vec!["--from", "2026-01-10T03:30:00Z"], ""),
    ] {
        let asked = |more: &[&str]| {
            let args = [&["usage", "bytes", "-o", "csv"], &question[..], more].concat();
            run(&args, 0)
        };
        let ((have, said), (want, of_events)) = (asked(&[]), asked(&["--from-events"]));
        assert_eq!(have, want, "{question:?}");
        assert!(!of_events.contains("rollup"), "{of_events}");
        assert_eq!(said.contains("rollup"), !note.is_empty(), "{question:?}: {said}");
        assert!(said.contains(note), "{question:?}: {said}");
    }
    let (_, said) = run(&["rollups", "refresh"], 0);
    assert!(said.contains("5 rows read"), "{said}");
    assert!(run(&["rollups", "refresh", "bytes"], 0).1.contains("nothing new"));
    let (_, said) = run(&["rollups", "refresh", "seats"], 1);
    assert!(said.contains("meter `seats`: `time_weighted` has no rollups"), "{said}");
    let (_, said) = run(&["rollups", "refresh", "bites"], 1);
    assert!(said.contains("no meter `bites`"), "{said}");
    let (plan, _) = run(&["usage", "bytes", "--total", "--explain"], 0);
    assert!(plan.contains("from states by month, up to version 2 of the events, and 0 rows since"));
}

/// A meter of every kind that has states: months of two files, a few events behind, once with a
/// correction; and merged.
#[test]
fn every_kind_of_state_answers_as_the_events_do() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let output = meterhouse(folder.path(), args);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (data, said) = (text(output.stdout), text(output.stderr));
        assert!(output.status.success(), "{args:?}: {said}");
        (data, said)
    };
    let meters = folder.path().join("queries/meters");
    fs::create_dir_all(&meters).unwrap();
    let kinds = [
        ("n", "aggregation: count"),
        ("total", "aggregation: sum\nproperty: bytes"),
        ("least", "aggregation: min\nproperty: bytes"),
        ("most", "aggregation: max\nproperty: bytes"),
        ("mean", "aggregation: average\nproperty: bytes"),
        ("first", "aggregation: earliest\nproperty: bytes"),
        ("last", "aggregation: latest\nproperty: bytes"),
        ("people", "aggregation: count_unique\nproperty: person"),
        ("p50", "aggregation: percentile\nproperty: bytes\npercentile: 50"),
        ("p99", "aggregation: percentile\nproperty: bytes\npercentile: 99.9"),
        ("sampled", "aggregation: count\nweight: rate"),
        ("weighed", "aggregation: sum\nproperty: bytes\nweight: rate"),
        ("weighed_mean", "aggregation: average\nproperty: bytes\nweight: rate"),
        ("peaks", "aggregation: sum\nof: { aggregation: max, property: bytes, per: hour }"),
        ("busiest", "aggregation: max\nof: { aggregation: count, per: [day, person] }"),
        (
            "typical",
            "aggregation: percentile\npercentile: 50\nof: { aggregation: sum, property: bytes, per: [person] }",
        ),
        (
            "crowd",
            "aggregation: average\nof: { aggregation: count_unique, property: person, per: day }",
        ),
        (
            "medians",
            "aggregation: sum\nof: { aggregation: percentile, percentile: 50, property: bytes, per: day }",
        ),
    ];
    for (name, text) in kinds {
        let text = format!("meter: {name}\n{text}\ndimensions: [region]\ntimezone: Asia/Kolkata\n");
        fs::write(meters.join(format!("{name}.yaml")), text).unwrap();
    }
    let mut random = Random::new(20_261_129);
    let mut ingest = |numbers: std::ops::Range<usize>| {
        let mut lines = String::new();
        for n in numbers {
            let bytes = match n % 9 {
                0 => "none".to_owned(),
                1 => format!("{}.25", random.below(50)),
                2 => format!("{}", 10_u128.pow(20) + u128::from(random.below(9))),
                _ => random.below(50).to_string(),
            };
            let rate = ["1", "2.5", "0", "-1", "x"][usize::try_from(random.below(5)).unwrap()];
            let event = serde_json::json!({
                "event_name": "e",
                "idempotency_key": format!("k{n}"),
                "customer_id": format!("c{}", random.below(3)),
                "timestamp": format!(
                    "2026-{:02}-{:02}T{:02}:{:02}:00Z",
                    1 + random.below(2),
                    1 + random.below(28),
                    random.below(24),
                    random.below(60)
                ),
                "properties": {
                    "bytes": bytes,
                    "rate": rate,
                    "person": format!("p{}", random.below(6)),
                    "region": format!("r{}", random.below(3)),
                },
            });
            lines.push_str(&(event.to_string() + "\n"));
        }
        fs::write(folder.path().join("e.ndjson"), lines).unwrap();
        run(&["ingest", "e.ndjson", "-q"]);
    };
    let compare = |what: &str| {
        let questions: [&[&str]; 9] = [
            &["--total"],
            &["--by", "region", "--period", "2026-02"],
            &["--by", "customer_id,region", "--window", "day"],
            &["--by", "customer_id", "--window", "month"],
            &["--customer", "c1", "--where", "region != 'r0'"],
            &["--total", "--window", "month", "--where", "region in ('r1', 'r2')"],
            // With both bounds, states may be the rows of the answer.
            &["--period", "2026-02", "--window", "month"],
            &["--total", "--from", "2026-01-05", "--to", "2026-02-10", "--window", "day"],
            &[
                "--by",
                "customer_id,region",
                "--period",
                "2026-02",
                "--window",
                "day",
                "--customer",
                "c1",
            ],
        ];
        for question in questions {
            let names = kinds.iter().map(|(name, _)| *name);
            let asked: Vec<&str> = ["usage"]
                .into_iter()
                .chain(names)
                .chain(["-o", "csv"])
                .chain(question.to_vec())
                .collect();
            let want = run(&[&asked[..], &["--from-events"]].concat()).0;
            let (have, said) = run(&asked);
            assert_eq!(have, want, "{what}, {question:?}: {said}");
            assert_eq!(said.matches("rollup by ").count(), kinds.len(), "{question:?}: {said}");
        }
    };
    // Whether states are grouped for windows of January, or of February alone.
    let is_grouped = |meter: &str, period: &str| {
        let question = ["--total", "--period", period, "--window", "day"];
        let (plan, _) = run(&[&["usage", meter, "--explain"], &question[..]].concat());
        assert!(plan.contains("from states by day"), "{plan}");
        plan.contains("Aggregate")
    };
    ingest(0..400);
    run(&["rollups", "refresh", "-q"]);
    for (meter, grouped) in
        [("total", false), ("weighed_mean", false), ("people", true), ("p50", true)]
    {
        assert_eq!(is_grouped(meter, "2026-02"), grouped, "{meter}");
    }
    ingest(400..440);
    assert!(is_grouped("total", "2026-02"), "rows since");
    compare("rows since");
    run(&["rollups", "refresh", "-q"]);
    let amend = ["events", "amend", "--key", "k7", "--set", "bytes=77", "--reason", "wrong", "-q"];
    run(&amend);
    let (_, said) = run(&["rollups", "refresh"]);
    assert!(said.contains("1 day made anew") || said.contains("2 days made anew"), "{said}");
    let months = ["2026-01", "2026-02"].map(|month| is_grouped("total", month));
    assert!(months.contains(&true), "a month of two files: {months:?}");
    compare("mended");
    let (_, said) = run(&["rollups", "refresh", "--compact"]);
    assert!(said.contains("merged"), "{said}");
    let (listed, _) = run(&["rollups", "list", "-o", "csv"]);
    // The last evening of February is in March there.
    let files: Vec<&str> = listed.lines().skip(1).filter_map(|row| row.split(',').nth(5)).collect();
    assert!(files.len() == kinds.len() && files.iter().all(|files| *files == "3"), "{listed}");
    assert!(!is_grouped("total", "2026-02"), "merged");
    compare("merged");
    // What comes for one month groups the states of no other.
    ingest_one(&run, folder.path(), "2026-02-20T00:00:00Z");
    run(&["rollups", "refresh", "-q"]);
    assert!(
        is_grouped("total", "2026-02") && !is_grouped("total", "2026-01"),
        "two files of February"
    );
}

fn ingest_one(run: &impl Fn(&[&str]) -> (String, String), folder: &Path, at: &str) {
    let event = serde_json::json!({
        "event_name": "e", "idempotency_key": at, "customer_id": "c1", "timestamp": at,
        "properties": { "bytes": 5, "rate": 1, "person": "p1", "region": "r1" },
    });
    fs::write(folder.join("one.ndjson"), event.to_string() + "\n").unwrap();
    run(&["ingest", "one.ndjson", "-q"]);
}

/// How many refreshes are killed; more of them by `METERHOUSE_REFRESH_KILLS`.
fn kills() -> u64 {
    std::env::var("METERHOUSE_REFRESH_KILLS").map_or(12, |text| text.parse().unwrap())
}

#[test]
fn a_killed_refresh_changes_no_answer_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let meters = folder.join("queries/meters");
    fs::create_dir_all(&meters).unwrap();
    for (name, text) in [
        ("bytes", "aggregation: sum\nproperty: bytes\ndimensions: [region]\n"),
        ("people", "aggregation: count_unique\nproperty: person\n"),
        ("last", "aggregation: latest\nproperty: bytes\n"),
    ] {
        let text = format!("meter: {name}\nevent: e\n{text}");
        fs::write(meters.join(format!("{name}.yaml")), text).unwrap();
    }
    let run = |args: &[&str]| -> String {
        let output = meterhouse(folder, args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{args:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    };
    let mut random = Random::new(20_261_128);
    let mut key = 0;
    let mut ingest = |random: &mut Random, events: u64| {
        let mut lines = String::new();
        for _ in 0..events {
            key += 1;
            // Few days have few files, so that many refreshes are killed in little time.
            let (month, day) = (1 + random.below(3), 1 + 9 * random.below(4));
            let event = serde_json::json!({
                "event_name": "e",
                "idempotency_key": format!("{key}"),
                "customer_id": format!("c{}", random.below(7)),
                "timestamp": format!("2026-{month:02}-{day:02}T{:02}:00:00Z", random.below(24)),
                "properties": {
                    "bytes": random.below(1_000),
                    "person": format!("p{}", random.below(50)),
                    "region": format!("r{}", random.below(3)),
                },
            });
            lines.push_str(&(event.to_string() + "\n"));
        }
        fs::write(folder.join("e.ndjson"), lines).unwrap();
        run(&["ingest", "e.ndjson", "-q"]);
    };
    let by = |names: &[&str]| Grouping::By(names.iter().map(|name| (*name).to_owned()).collect());
    let questions = [
        ("bytes", by(&["customer_id", "region"]), Some("day")),
        ("people", by(&["customer_id"]), Some("month")),
        ("last", Grouping::Total, None),
    ];
    let from_states = AtomicU64::new(0);
    let answers = |from_events: bool| -> Vec<Row> {
        let meters = Arc::new(load_folder(&meters).unwrap());
        let context = Context { meters, ..statements::context(folder) };
        let mut rows = Vec::new();
        for (meter, grouping, window) in &questions {
            let request = UsageRequest {
                meters: vec![(*meter).to_owned()],
                period: Some("2026".to_owned()),
                grouping: grouping.clone(),
                window: window.map(ToOwned::to_owned),
                from_events,
                ..UsageRequest::default()
            };
            let mut take = |batch: RecordBatch| {
                rows.extend(rows_of(&batch));
                Ok(true)
            };
            let notes = RUNTIME.block_on(usage(&context, &request, &mut take)).unwrap();
            let of_states = notes.iter().filter(|note| note.rollup.is_some()).count();
            from_states.fetch_add(of_states as u64, Ordering::Relaxed);
        }
        rows
    };
    ingest(&mut random, 300);
    let measured = || {
        let started = std::time::Instant::now();
        run(&["rollups", "refresh", "-q"]);
        u64::try_from(started.elapsed().as_micros()).unwrap()
    };
    // The first makes tables as well.
    measured();
    let (mut pace, mut killed, mut whole) = (0, 0, 0);
    // As often as it takes: on a busy machine some end before they are killed.
    for round in 0.. {
        if killed >= kills() {
            break;
        }
        assert!(round < 12 * kills(), "of {round} refreshes {killed} were killed");
        ingest(&mut random, 20);
        if round % 4 == 3 {
            let key = format!("{}", 1 + random.below(300));
            run(&["events", "amend", "--key", &key, "--set", "bytes=5", "--reason", "storm", "-q"]);
        }
        if round % 10 == 9 {
            run(&["compact", "-q"]);
        }
        if round % 10 == 0 {
            pace = measured();
            assert_eq!(answers(false), answers(true), "round {round}, undisturbed");
            continue;
        }
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_meterhouse"))
            .args(["rollups", "refresh", "-q"])
            .current_dir(folder)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_micros(random.below(pace)));
        let _ = child.kill();
        let is_killed = child.wait().unwrap().code().is_none();
        killed += u64::from(is_killed);
        whole += u64::from(!is_killed);
        assert_eq!(answers(false), answers(true), "round {round}");
    }
    eprintln!("{killed} refreshes were killed, {whole} ended before that");
    assert!(from_states.load(Ordering::Relaxed) > 0, "no answer was made of states");
    // One that ends leaves states that tell everything, without the events.
    run(&["rollups", "refresh", "-q"]);
    assert_eq!(answers(false), answers(true));
    let output = meterhouse(folder, &["usage", "bytes", "--period", "2026", "--window", "day"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("rollup by ") && !said.contains("rows since"), "{said}");
    run(&["verify", "-q"]);
}

/// Days of states lie in the order of an answer, but for those that begin on one day of UTC, as two do where
/// London's clocks change.
#[test]
fn days_come_in_the_order_of_the_answer_with_a_sort_or_without() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir_all(folder.join("queries/meters")).unwrap();
    let meter =
        "meter: bytes\nevent: e\naggregation: sum\nproperty: bytes\ntimezone: Europe/London\n";
    fs::write(folder.join("queries/meters/bytes.yaml"), meter).unwrap();
    let event = |n: usize| {
        let (day, customer) = (n / 400, ["zoe", "anna", "mia"][n % 3]);
        let (month, day) = match day {
            0..31 => (1, day + 1),
            31..59 => (2, day - 30),
            _ => (3, day - 58),
        };
        let event = json!({
            "event_name": "e", "idempotency_key": format!("{n}"), "customer_id": format!("{customer}{}", n % 400),
            "timestamp": format!("2026-{month:02}-{day:02}T{:02}:30:00Z", n % 24),
            "properties": { "bytes": n },
        });
        event.to_string() + "\n"
    };
    // Days of two months are enough rows for two partitions.
    statements::ingest(folder, &(0..90 * 400).map(event).collect::<Vec<_>>());
    statements::run(folder, &["rollups", "refresh"], 0);
    let periods = [
        ("2026-02", false),
        ("2026-01..2026-03", false),
        ("2026-03", true),
        ("2026-01..2026-04", true),
    ];
    for (period, sorts) in periods {
        let (from, to) = match period.split_once("..") {
            Some((from, to)) => (format!("{from}-01"), format!("{to}-01")),
            None => (
                format!("{period}-01"),
                format!("2026-{:02}-01", 1 + period[5..].parse::<u32>().unwrap()),
            ),
        };
        let ask = [
            "usage",
            "bytes",
            "--from",
            &from,
            "--to",
            &to,
            "--window",
            "day",
            "--threads",
            "2",
            "-o",
            "csv",
            "-q",
        ];
        let (of_states, _) = statements::run(folder, &ask, 0);
        let of_events = [&ask[..], &["--from-events"]].concat();
        assert_eq!(of_states, statements::run(folder, &of_events, 0).0, "{period}");
        assert!(of_states.lines().count() > 28 * 400, "{period}");
        let (plan, _) = statements::run(folder, &[&ask[..10], &["--explain"]].concat(), 0);
        assert_eq!(
            plan.contains("file_groups={2 groups"),
            period.contains(".."),
            "{period}: {plan}"
        );
        assert!(plan.contains("from states by day"), "{plan}");
        assert_eq!(plan.contains("SortExec"), sorts, "{period}: {plan}");
    }
}

/// Which sum it is, of thousands.
#[test]
fn a_sum_that_fits_in_no_state_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let meters = folder.join("queries/meters");
    fs::create_dir_all(&meters).unwrap();
    fs::write(meters.join("bytes.yaml"), "meter: bytes\nevent: e\naggregation: sum\nproperty: n\n")
        .unwrap();
    let huge = "9".repeat(38);
    let events = [("anna", "07-01", "1"), ("zoe", "08-02", &huge), ("zoe", "08-03", &huge)];
    let lines = events.iter().enumerate().map(|(key, (customer, day, number))| {
        json!({
            "event_name": "e",
            "idempotency_key": key.to_string(),
            "customer_id": customer,
            "timestamp": format!("2026-{day}T10:00:00Z"),
            "properties": { "n": number },
        })
        .to_string()
            + "\n"
    });
    fs::write(folder.join("e.ndjson"), lines.collect::<String>()).unwrap();
    assert!(meterhouse(folder, &["ingest", "e.ndjson", "-q"]).status.success());
    let output = meterhouse(folder, &["rollups", "refresh"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let want = "a sum of customer `zoe` in the month from 2026-08-01T00:00:00Z has more than 38";
    assert!(said.contains(want), "{said}");
}
