//! Corrections change what they say and nothing else, and no answer of a version before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use meterhouse::clock::Clock;
use meterhouse::correct::{
    Action, Changes, Conditions, CorrectSettings, Corrected, Identity, Selection, amendments,
    correct, list, replacements, stored_rows,
};
use meterhouse::dedupe::Hasher;
use meterhouse::engine::Engine;
use meterhouse::error::Result;
use meterhouse::event::EventRules;
use meterhouse::ingest::input::{Input, InputFormat};
use meterhouse::ingest::read::{read_events, read_records};
use meterhouse::lake::compact::{CompactSettings, compact};
use meterhouse::time::Timestamp;
use meterhouse::usage::Context;
use meterhouse::verify::verify;
use proptest::prelude::*;
use serde_json::json;

use crate::agreement::{
    Place, RUNTIME, ask, cases, counts, difference, limits, settings, sound, timed, untied,
    without_conflicts, without_ties,
};
use crate::naive::answer::answer;
use crate::naive::correction::Corrections;
use crate::naive::event::{Event, Line, Moment, Property, Sent, Value};
use crate::naive::generate::{self, NOW};
use crate::naive::intake::{Intake, accept};
use crate::naive::meter::{Aggregation, Bound, Meter, Operand, Question};
use crate::naive::number::{self, Reading};
use crate::naive::spell;
use crate::naive::window::Window;
use crate::program::meterhouse;
use crate::storm::random::Random;

// ---- Random lives, compared with the second answer ----

/// What happens between two ingests.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// The events at these places, as far as they count.
    Void(Vec<usize>),
    VoidOfCustomer(usize),
    /// The same, with this property set; and perhaps another instant or customer.
    Amend(Vec<usize>, &'static str, Option<i64>, bool),
    /// The same, as events of this name.
    Rename(Vec<usize>, &'static str),
    /// The same, each with bytes of its own, from a file.
    AmendByFile(Vec<usize>),
    /// Other events in the places of the same, from a file, so many seconds ago.
    Replace(Vec<usize>, i64),
    Revert(usize),
    Compact,
    ForgetKeys,
}

pub(crate) fn step() -> BoxedStrategy<Step> {
    let some = || proptest::collection::vec(any::<usize>(), 1..4);
    let names = prop_oneof![Just("bytes"), Just("a.b"), Just("größe"), Just("source")];
    let instant = proptest::option::of(0..40 * 86_400_i64);
    prop_oneof![
        3 => some().prop_map(Step::Void),
        1 => any::<usize>().prop_map(Step::VoidOfCustomer),
        4 => (some(), names, instant, any::<bool>())
            .prop_map(|(places, name, back, moved)| Step::Amend(places, name, back, moved)),
        1 => (some(), prop_oneof![Just("transfer"), Just("request")])
            .prop_map(|(places, name)| Step::Rename(places, name)),
        2 => some().prop_map(Step::AmendByFile),
        2 => (some(), 0..40 * 86_400_i64)
            .prop_map(|(places, back)| Step::Replace(places, back)),
        4 => any::<usize>().prop_map(Step::Revert),
        1 => Just(Step::Compact),
        1 => Just(Step::ForgetKeys),
    ]
    .boxed()
}

/// A lake and what the second implementation makes of it.
pub(crate) struct Life {
    pub(crate) place: Place,
    pub(crate) intake: Intake,
    pub(crate) model: Corrections,
    /// Ids of the corrections that can be reverted, with what they are in the model.
    pub(crate) done: Vec<(String, usize)>,
    /// Makes every amended value another one.
    value: i64,
    /// Made once: it takes longer to make than to correct a few events.
    engine: Engine,
}

impl Life {
    pub(crate) fn new() -> Self {
        let place = Place::new();
        Self {
            engine: Engine::new(&place.lake().location, limits(2)).unwrap(),
            place,
            intake: Intake::default(),
            model: Corrections::default(),
            done: Vec::new(),
            value: 1_000_000,
        }
    }

    pub(crate) fn context(&self) -> Context {
        Context {
            engine: self.engine.clone(),
            lake: self.place.lake().clone(),
            meters: Arc::default(),
            clock: Clock::Fixed(Timestamp::from_micros(NOW)),
        }
    }

    fn correct(&self, action: &Action, selection: &Selection) -> Result<Corrected> {
        let settings = CorrectSettings {
            reason: "a test".to_owned(),
            by: None,
            rules: EventRules::default(),
            memory_bytes: 1 << 20,
            dry_run: false,
        };
        RUNTIME.block_on(correct(&self.context(), action, selection, &settings))
    }

    /// Those of `places` where an event counts.
    fn live(&self, places: &[usize]) -> Vec<usize> {
        let received = &self.intake.events;
        if received.is_empty() {
            return Vec::new();
        }
        let places: BTreeSet<usize> = places.iter().map(|at| at % received.len()).collect();
        let live = |place: &usize| self.model.state(received, *place).is_some();
        places.into_iter().filter(live).collect()
    }

    fn identities(&self, places: &[usize]) -> Selection {
        let identity = |&place: &usize| {
            let event = &self.intake.events[place];
            Identity { source: event.source.clone().unwrap_or_default(), key: event.key.clone() }
        };
        Selection::Identities(places.iter().map(identity).collect())
    }

    fn corrected(
        &mut self,
        (action, selection): (&Action, &Selection),
        places: &[usize],
        change: impl Fn(&mut Event) -> bool,
    ) {
        let done = self.correct(action, selection).unwrap();
        assert_eq!((done.events, done.unchanged), (places.len() as u64, 0));
        let correction = self.model.correct(&self.intake.events, places, change);
        self.done.push((done.made.unwrap().0, correction));
    }

    pub(crate) fn take(&mut self, step: &Step) {
        match step {
            Step::Void(places) => {
                let live = self.live(places);
                if !live.is_empty() {
                    let selection = self.identities(&live);
                    self.corrected((&Action::Void, &selection), &live, |_| false);
                    assert!(self.correct(&Action::Void, &selection).is_err(), "voided twice");
                }
            }
            Step::VoidOfCustomer(of) => self.void_of_customer(*of),
            Step::Amend(places, name, back, moved) => {
                let live = self.live(places);
                if !live.is_empty() {
                    self.amend(&live, name, *back, *moved);
                }
            }
            Step::Rename(places, name) => self.rename(places, name),
            Step::AmendByFile(places) => self.amend_by_file(places),
            Step::Replace(places, back) => self.replace(places, *back),
            Step::Revert(which) => self.revert(*which),
            Step::Compact => {
                let (events, settings) = (&self.place.lake().events, CompactSettings::default());
                let now = Timestamp::from_micros(NOW);
                RUNTIME.block_on(compact(events, &settings, now, |_| ())).unwrap();
            }
            Step::ForgetKeys => self.place.forget_keys(),
        }
    }

    fn void_of_customer(&mut self, of: usize) {
        let received = &self.intake.events;
        let state = |place| self.model.state(received, place);
        let Some(customer) = self.live(&[of]).first().and_then(|p| state(*p)?.customer) else {
            return;
        };
        let same = |event: Event| event.customer.as_ref() == Some(&customer);
        let places: Vec<usize> =
            (0..received.len()).filter(|place| state(*place).is_some_and(same)).collect();
        let conditions = Conditions { customer: Some(customer.clone()), ..Conditions::default() };
        self.corrected((&Action::Void, &Selection::Matching(conditions)), &places, |_| false);
    }

    fn amend(&mut self, live: &[usize], name: &str, back: Option<i64>, moved: bool) {
        self.value += 1;
        let text = format!("{}.25", self.value);
        let mut set = vec![format!("property.{name}={text}")];
        if moved {
            set.push("customer_id=moved".to_owned());
        }
        let micros = back.map(|seconds| NOW - seconds * 1_000_000);
        let timestamp = micros.map(|micros| Timestamp::from_micros(micros).to_string());
        let changes = Changes::parse(&set, &[], timestamp.as_deref()).unwrap();
        let Reading::Number(units) = number::read(&text) else { panic!("{text} is no number") };
        let selection = self.identities(live);
        let name = name.to_owned();
        self.corrected((&Action::Amend(Arc::new(changes)), &selection), live, |event| {
            event.properties.insert(name.clone(), Value::Number(units.clone()));
            if let Some(micros) = micros {
                (event.micros, event.received) = (micros, false);
            }
            if moved {
                event.customer = Some("moved".to_owned());
            }
            true
        });
    }

    fn rename(&mut self, places: &[usize], name: &str) {
        let received = &self.intake.events;
        let other = |place: &usize| self.model.state(received, *place).unwrap().name != name;
        let live: Vec<usize> = self.live(places).into_iter().filter(other).collect();
        if live.is_empty() {
            return;
        }
        let changes = Changes::parse(&[format!("event_name={name}")], &[], None).unwrap();
        let selection = self.identities(&live);
        self.corrected((&Action::Amend(Arc::new(changes)), &selection), &live, |event| {
            event.name = name.to_owned();
            true
        });
    }

    /// A file of these lines.
    fn input(&self, lines: &[String]) -> [Input; 1] {
        let path = self.place.folder().join("corrections.ndjson");
        fs::write(&path, lines.join("\n")).unwrap();
        [Input::file("corrections.ndjson", path, InputFormat::Json)]
    }

    fn amend_by_file(&mut self, places: &[usize]) {
        let live = self.live(places);
        if live.is_empty() {
            return;
        }
        let first = self.value + 1;
        self.value += live.len() as i64;
        let of = |key: &str| {
            let place = live.iter().position(|place| self.intake.events[*place].key == key);
            first + place.unwrap() as i64
        };
        // Two events of one key are told apart by their sources, and get the same.
        let line = |place: &usize| {
            let Event { source, key, .. } = &self.intake.events[*place];
            let bytes = of(key);
            json!({ "source": source, "idempotency_key": key, "property.bytes": bytes }).to_string()
        };
        let lines: Vec<String> = live.iter().map(line).collect();
        let records = read_records(&self.input(&lines)).unwrap();
        let hasher = Hasher::new(self.place.lake().events.table_id());
        let all = Changes::parse(&[], &[], None).unwrap();
        let (changes, identities) = amendments(all, &records, ("", &hasher)).unwrap();
        let values: BTreeMap<String, i64> = live
            .iter()
            .map(|place| self.intake.events[*place].key.clone())
            .map(|key| (key.clone(), of(&key)))
            .collect();
        let selection = Selection::Identities(identities);
        self.corrected((&Action::Amend(Arc::new(changes)), &selection), &live, |event| {
            let Reading::Number(units) = number::read(&values[&event.key].to_string()) else {
                panic!("no number")
            };
            event.properties.insert("bytes".to_owned(), Value::Number(units));
            true
        });
    }

    fn replace(&mut self, places: &[usize], back: i64) {
        let live = self.live(places);
        if live.is_empty() {
            return;
        }
        self.value += 1;
        let micros = NOW - back * 1_000_000;
        let sent = |place: &usize| {
            let Event { source, key, .. } = &self.intake.events[*place];
            Sent {
                name: "transfer".to_owned(),
                key: key.clone(),
                source: source.clone(),
                customer: Some("acme".to_owned()),
                timestamp: Some(Moment::Instant {
                    micros,
                    offset_minutes: 0,
                    finer_digits: String::new(),
                }),
                properties: vec![("bytes".to_owned(), Property::Number(self.value.to_string()))],
                ..Sent::default()
            }
        };
        let all: Vec<Sent> = live.iter().map(sent).collect();
        let lines: Vec<String> =
            all.iter().map(|sent| spell::line(&Line::Event(sent.clone()))).collect();
        let events = &self.place.lake().events;
        let columns = Arc::clone(&RUNTIME.block_on(events.snapshot(None)).unwrap().schema);
        let rules = (EventRules::default(), Timestamp::from_micros(NOW));
        let read = read_events(&self.input(&lines), rules, (events.table_id(), &columns)).unwrap();
        let (replacements, identities) = replacements(read).unwrap();
        let selection = Selection::Identities(identities);
        self.corrected((&Action::Replace(Arc::new(replacements)), &selection), &live, |event| {
            let same = |sent: &&Sent| (&sent.key, &sent.source) == (&event.key, &event.source);
            *event = accept(all.iter().find(same).unwrap(), NOW, true).unwrap();
            true
        });
    }

    fn revert(&mut self, which: usize) {
        if self.done.is_empty() {
            return;
        }
        let at = which % self.done.len();
        let (id, correction) = self.done[at].clone();
        let reverted = self.correct(&Action::Revert(id.clone()), &Selection::Corrected(id.clone()));
        let want = self.model.revert(correction);
        assert_eq!(reverted.is_ok(), want, "reverting {id}: {reverted:?}");
        if want {
            self.done.remove(at);
            let again = self.correct(&Action::Revert(id.clone()), &Selection::Corrected(id));
            assert!(again.unwrap_err().to_string().contains("was reverted by"));
        }
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.model.events(&self.intake.events)
    }
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn corrected_events_answer_like_those_of_the_second_implementation(
        lines in generate::lines(),
        settings in settings(),
        steps in proptest::collection::vec(step(), 4..14),
        meters in generate::meters(),
        question in generate::question(),
    ) {
        let (lines, question) = (timed(lines, &meters), sound(question, &meters));
        let mut life = Life::new();
        let required = settings.rules.customer_required;
        let mut answers = Vec::new();
        let parts: Vec<_> = lines.chunks(lines.len().div_ceil(3).max(1)).collect();
        for part in 0..parts.len().max(1) {
            // What came before comes again, corrected or not: it is received once.
            let end: Vec<_> = parts[..=part.min(parts.len().saturating_sub(1))].concat();
            let want = life.intake.receive(&end, NOW, required);
            prop_assert_eq!(counts(life.place.ingest(&end, &settings).counts), want);
            for step in steps.iter().skip(part).step_by(3) {
                life.take(step);
                let want = answer(&life.events(), &meters, &question);
                let have = ask(life.place.lake(), &meters, &question, limits(2));
                if let Some(difference) = difference(&want, &have) {
                    return Err(TestCaseError::fail(format!("{step:?}: {difference}")));
                }
                let snapshot = RUNTIME.block_on(life.place.lake().events.snapshot(None)).unwrap();
                answers.push((snapshot.version, want));
            }
        }
        for (version, want) in answers {
            let have = life.place.ask_at(&meters, &question, version);
            if let Some(difference) = difference(&want, &have) {
                return Err(TestCaseError::fail(format!("version {version}: {difference}")));
            }
        }
        let state = life.place.folder().join("state");
        let verified = RUNTIME.block_on(verify(&life.context(), Some(&state))).unwrap();
        prop_assert_eq!(verified.wrong, vec![]);
        let listed = RUNTIME.block_on(list(&life.place.lake().events)).unwrap();
        let unreverted = listed.iter().filter(|c| c.reverted_by.is_none() && c.record.reverts.is_none());
        prop_assert_eq!(unreverted.count(), life.done.len());
    }
}

proptest! {
    // Two lakes each, asked three questions.
    #![proptest_config(cases(16))]

    #[test]
    fn what_changes_nothing_changes_no_byte_of_an_answer(
        (lines, shuffled) in generate::lines().prop_flat_map(|lines| {
            let lines = without_conflicts(lines);
            (Just(lines.clone()), Just(lines).prop_shuffle())
        }),
        first in settings(),
        second in settings(),
        meters in generate::meters(),
        questions in proptest::collection::vec(generate::question(), 3),
        ties in any::<bool>(),
    ) {
        let meters: Vec<Meter> = match ties {
            true => meters.into_iter().map(without_ties).collect(),
            false => meters,
        };
        let [lines, shuffled] = [lines, shuffled].map(|lines| match ties {
            true => timed(lines, &meters),
            false => untied(lines),
        });
        let questions: Vec<Question> =
            questions.into_iter().map(|question| sound(question, &meters)).collect();
        let answers = |life: &Life| {
            let ask = |question| ask(life.place.lake(), &meters, question, limits(2));
            let rows_or_text = |question| ask(question).map_err(|error| error.to_string());
            questions.iter().map(rows_or_text).collect::<Vec<_>>()
        };
        let required = first.rules.customer_required;
        let mut plain = Life::new();
        plain.intake.receive(&lines, NOW, required);
        plain.place.ingest(&lines, &first);
        let want = answers(&plain);
        // In another order and other batches, twice, compacted, corrected, and that undone.
        let second = meterhouse::ingest::IngestSettings { rules: first.rules, ..second };
        let mut moved = Life::new();
        moved.intake.receive(&shuffled, NOW, required);
        moved.place.ingest(&shuffled, &second);
        moved.place.ingest(&lines, &first);
        prop_assert_eq!(&answers(&moved), &want);
        let steps = [
            Step::Compact,
            Step::Void(vec![0, 1, 2]),
            Step::Amend(vec![3, 4, 5, 6], "bytes", Some(86_400), true),
            Step::VoidOfCustomer(7),
            Step::Revert(2),
            Step::Revert(1),
            Step::Compact,
            Step::Revert(0),
        ];
        for step in &steps {
            moved.take(step);
        }
        while !moved.done.is_empty() {
            moved.take(&Step::Revert(moved.done.len() - 1));
        }
        prop_assert_eq!(&answers(&moved), &want);
    }
}

#[test]
fn a_version_answers_the_same_after_a_hundred_commits_corrections_and_compactions() {
    let mut life = Life::new();
    let settings = meterhouse::ingest::IngestSettings::default();
    let customer = || vec![Operand::Field("customer_id")];
    let operation = || Operand::Property("operation".to_owned());
    let of_bytes = [
        Aggregation::Sum,
        Aggregation::Max,
        Aggregation::Average,
        Aggregation::Latest,
        Aggregation::CountUnique,
        Aggregation::Percentile(95_000),
        Aggregation::TimeWeighted { change: false, per: customer() },
        Aggregation::Active { operation: operation(), per: customer(), by_days: true },
        Aggregation::Reported { operation: operation(), per: customer(), reset: None },
        Aggregation::Nested {
            outer: Box::new(Aggregation::Sum),
            inner: Box::new(Aggregation::Max),
            window: Some(Window::Day),
            per: customer(),
        },
    ];
    let mut meters = vec![Meter::count("count")];
    meters.extend(of_bytes.into_iter().enumerate().map(|(number, aggregation)| Meter {
        aggregation,
        operand: Some(Operand::Property("bytes".to_owned())),
        ..Meter::count(&format!("m{number}"))
    }));
    let day = 86_400_000_000;
    let asked = |meter: &Meter| Question {
        groups: vec!["customer_id".to_owned()],
        from: Some(Bound::Instant(NOW - 20 * day)),
        to: Some(Bound::Instant(NOW + day)),
        ..Question::total(&meter.name)
    };
    let mut questions: Vec<Question> = meters.iter().map(asked).collect();
    let groups = ["customer_id", "bytes", "source"].map(str::to_owned).to_vec();
    questions.push(Question { groups, ..Question::total("count") });
    let mut answers = Vec::new();
    for round in 0..65_usize {
        let lines = (0..6).map(|n| line(round * 6 + n));
        let lines: Vec<_> = lines.collect();
        life.intake.receive(&lines, NOW, true);
        life.place.ingest(&lines, &settings);
        let places = |n: usize| vec![round * 7 + n, round * 13 + n];
        life.take(&match round % 5 {
            0 => Step::Void(places(0)),
            1 => Step::Amend(places(3), "bytes", Some(round as i64 * 3_600), false),
            2 => Step::Revert(round),
            3 => Step::Compact,
            _ => Step::Amend(places(5), "source", None, true),
        });
        if round < 8 {
            let events = life.events();
            let of = |question| answer(&events, &meters, question).unwrap();
            let want: Vec<_> = questions.iter().map(of).collect();
            let snapshot = RUNTIME.block_on(life.place.lake().events.snapshot(None)).unwrap();
            answers.push((snapshot.version, want));
        }
    }
    let newest = RUNTIME.block_on(life.place.lake().events.snapshot(None)).unwrap().version;
    assert!(newest > answers[7].0 + 100, "{newest}");
    for (version, want) in answers {
        for (question, want) in questions.iter().zip(want) {
            let have = life.place.ask_at(&meters, question, version).unwrap();
            assert!(!have.is_empty());
            assert!(have == want, "version {version}, {question:?}: want {want:?}\nhave {have:?}");
        }
    }
}

/// An event of a customer of its own among five, on one of nine days.
pub(crate) fn line(number: usize) -> Line {
    Line::Event(Sent {
        name: "e".to_owned(),
        key: format!("k{number}"),
        customer: Some(format!("c{}", number % 5)),
        timestamp: Some(Moment::Instant {
            micros: NOW - (number % 9) as i64 * 86_400_000_000,
            offset_minutes: 0,
            finer_digits: String::new(),
        }),
        properties: vec![("bytes".to_owned(), Property::Number((number % 4).to_string()))],
        ..Sent::default()
    })
}

// ---- Through the program ----

fn run(folder: &Path, args: &[&str], code: i32) -> (String, String) {
    let output = meterhouse(folder, args);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (data, said) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    (data, said)
}

/// Twelve events of two customers on three days; `k0` has the bytes 0, `k1` 1 and so on.
fn lake() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let line = |n: usize| {
        format!(
            r#"{{"event_name":"hit","idempotency_key":"k{n}","customer_id":"c{}","timestamp":"2026-06-0{}T10:00:00Z","properties":{{"bytes":{n},"note":"n{n}"}}}}"#,
            n % 2,
            n % 3 + 1,
        ) + "\n"
    };
    let text: String = (0..12).map(line).collect();
    fs::write(folder.path().join("e.ndjson"), text).unwrap();
    run(folder.path(), &["ingest", "e.ndjson"], 0);
    folder
}

fn sum(folder: &Path, at: &str) -> String {
    let question = "SELECT count(*) n, sum(bytes) s FROM events";
    let (data, _) = run(folder, &["sql", question, "-o", "csv", "-q", "--at", at], 0);
    data.lines().nth(1).unwrap().to_owned()
}

fn id_of(said: &str) -> String {
    let after = said.split("correction ").nth(1).unwrap_or_else(|| panic!("{said}"));
    after.split(' ').next().unwrap().to_owned()
}

#[test]
fn each_kind_of_correction_does_what_it_says_and_can_be_undone() {
    let folder = lake();
    let folder = folder.path();
    fs::write(folder.join("keys.csv"), "idempotency_key,why\nk3,x\nk4,y\n").unwrap();
    fs::write(folder.join("values.csv"), "idempotency_key,bytes,note\nk5,500.25,\nk6,,\"6\"\n")
        .unwrap();
    fs::write(
        folder.join("whole.ndjson"),
        r#"{"event_name":"hit","idempotency_key":"k7","customer_id":"c9","properties":{"bytes":7000}}"#,
    )
    .unwrap();
    let steps: [(&[&str], &str, &str); 6] = [
        (&["void", "--key", "k1", "--key", "k2"], "2 events voided", "10,63"),
        (&["void", "--file", "keys.csv"], "2 events voided", "8,56"),
        (&["amend", "--file", "values.csv"], "2 events amended", "8,551.25"),
        (&["replace", "whole.ndjson"], "1 event replaced", "8,7544.25"),
        (
            &[
                "amend",
                "--where",
                "bytes >= 10 and bytes < 12",
                "--set",
                "bytes=1",
                "--unset",
                "note",
            ],
            "2 events amended",
            "8,7525.25",
        ),
        (
            &[
                "void",
                "--customer",
                "c0",
                "--event",
                "hit",
                "--period",
                "2026-06-01",
                "--where",
                "bytes > 0",
            ],
            "1 event voided, of 1 customer on 1 day",
            "7,7519.25",
        ),
    ];
    let mut ids = Vec::new();
    for (version, (args, told, want)) in (2..).zip(steps) {
        let mut all = vec!["events"];
        all.extend(args);
        all.extend(["--reason", "because"]);
        let mut dry = all.clone();
        dry.extend(["--dry-run", "-o", "csv"]);
        let before = sum(folder, &(version - 1).to_string());
        let (rows, _) = run(folder, &dry, 0);
        assert!(rows.starts_with("event_date,customer_id,event_name,events\n"), "{rows}");
        let (_, said) = run(folder, &all, 0);
        assert!(said.contains(told), "{said}");
        assert_eq!(sum(folder, &version.to_string()), want, "{args:?}");
        assert_eq!(sum(folder, &(version - 1).to_string()), before, "{args:?}");
        ids.push(id_of(&said));
    }
    let (rows, _) = run(
        folder,
        &[
            "sql",
            "SELECT customer_id, timestamp = ingested_at AS same FROM \
                                  events WHERE idempotency_key = 'k7'",
            "-o",
            "csv",
            "-q",
        ],
        0,
    );
    assert_eq!(rows, "customer_id,same\nc9,true\n");
    // What is sent again is known, whether the index is or not, and does not count again.
    for state in ["kept", "lost"] {
        if state == "lost" {
            fs::remove_dir_all(folder.join("lake/.state")).unwrap();
        }
        let (_, said) = run(folder, &["ingest", "e.ndjson"], 0);
        assert!(said.contains("0 accepted, 12 duplicate, 0 conflict"), "{state}: {said}");
        let (_, said) = run(folder, &["verify"], 0);
        assert!(said.contains("12 events (12 of them looked up"), "{said}");
    }
    run(folder, &["compact"], 0);
    assert_eq!(sum(folder, "6"), "8,7525.25");
    for (id, want) in
        ids.iter().rev().zip(["8,7525.25", "8,7544.25", "8,551.25", "8,56", "10,63", "12,66"])
    {
        let (_, said) = run(folder, &["events", "revert", id, "--reason", "was right"], 0);
        assert!(said.contains("put back"), "{said}");
        let newest =
            said.split("is version ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        assert_eq!(sum(folder, &newest), want, "{id}");
    }
    run(folder, &["verify"], 0);
    let (list, _) = run(folder, &["events", "corrections", "-o", "csv", "-q"], 0);
    assert_eq!(list.lines().count(), 13, "{list}");
    let first: Vec<&str> = list.lines().nth(1).unwrap().split(',').collect();
    assert_eq!(
        (first[0], first[1], first[3], first[4], first[5]),
        (ids[0].as_str(), "2", "tester", "void", "2")
    );
    let (log, _) = run(folder, &["log", "-o", "csv", "-q"], 0);
    let made = log.lines().find(|line| line.starts_with("2,")).unwrap();
    assert!(made.contains("merge") && made.ends_with(&format!("{},2,because", ids[0])), "{made}");
}

#[test]
fn what_cannot_be_corrected_is_named_and_nothing_is_written() {
    let folder = lake();
    let folder = folder.path();
    let with_source =
        r#"{"event_name":"hit","idempotency_key":"k1","customer_id":"c","source":"s"}"#;
    fs::write(folder.join("s.ndjson"), with_source).unwrap();
    run(folder, &["ingest", "s.ndjson"], 0);
    run(folder, &["events", "void", "--key", "k0", "--reason", "r"], 0);
    let void = id_of(&run(folder, &["events", "void", "--key", "k9", "--reason", "r"], 0).1);
    let amended =
        run(folder, &["events", "amend", "--key", "k8", "--set", "bytes=9", "--reason", "r"], 0);
    let amended = id_of(&amended.1);
    let later = id_of(&run(folder, &["events", "void", "--key", "k8", "--reason", "r"], 0).1);
    let revert = id_of(&run(folder, &["events", "revert", &void, "--reason", "r"], 0).1);
    fs::write(folder.join("twice.csv"), "idempotency_key\nk1\nk1\n").unwrap();
    fs::write(folder.join("no-key.csv"), "key\nk1\n").unwrap();
    fs::write(folder.join("new.ndjson"), with_source.replace("k1", "new")).unwrap();
    fs::write(folder.join("broken.ndjson"), format!("{with_source}\nbroken\n")).unwrap();
    fs::write(folder.join("identity.ndjson"), r#"{"idempotency_key":"k1","event_name":null}"#)
        .unwrap();
    let before = run(folder, &["log", "-o", "csv", "-q"], 0).0;
    let many: Vec<String> = (0..12).map(|n| format!("--key=gone-{n}")).collect();
    let mut many_args = vec!["void", "--key", "k1"];
    many_args.extend(many.iter().map(String::as_str));
    for (args, code, want) in [
        (&["void", "--key", "k1", "--key", "nope"][..], 1, "`nope` is not there"),
        (&["void", "--key", "k0"], 1, "`k0` was voided by "),
        (&["void", "--key", "new", "--source", "s"], 1, "`new` of source `s` is not there"),
        (&["void", "--key", "k2", "--source", "s"], 1, "but without a source it is"),
        (&many_args, 1, "12 of 13 events cannot be corrected: "),
        (&many_args, 1, "and 2 more"),
        (&["void", "--where", "bytes > 100"], 1, "no event that counts matches (bytes > 100)"),
        (&["void", "--where", "bytes + 1 > 2"], 1, "bytes + 1"),
        (&["void"], 2, "no event is meant"),
        (&["void", "--all", "--customer", "c0"], 2, "--all stands alone"),
        (&["void", "--key", "k1", "--customer", "c0"], 2, "cannot be used with"),
        (&["void", "--file", "twice.csv"], 1, "twice.csv:3: event `k1` occurs twice"),
        (&["void", "--file", "no-key.csv"], 1, "no-key.csv:2: there is no `idempotency_key`"),
        (&["amend", "--key", "k1"], 2, "nothing is to change"),
        (&["amend", "--key", "k1", "--set", "source=x"], 2, "belongs to the identity"),
        (&["amend", "--key", "k1", "--unset", "customer_id"], 1, "event `k1` would be rejected"),
        (&["amend", "--key", "k1", "--timestamp", "2126-01-01T00:00:00Z"], 1, "h ahead of"),
        (&["amend", "--file", "identity.ndjson"], 1, "identity.ndjson:1: `event_name` cannot"),
        (&["replace", "new.ndjson"], 1, "`new` of source `s` is not there"),
        (&["replace", "broken.ndjson"], 1, "broken.ndjson:2: not readable"),
        (&["revert", "nothing"], 1, "there is no correction `nothing`"),
        (&["revert", &void], 1, "was reverted by"),
        (&["revert", &revert], 1, "is itself a revert"),
        (&["revert", &amended], 1, &format!("{later} changed the same events later")),
    ] {
        let mut all = vec!["events"];
        all.extend(args);
        all.extend(["--reason", "r"]);
        let (data, said) = run(folder, &all, code);
        assert!(said.contains(want) && data.is_empty(), "{args:?}: {said}");
    }
    let (_, said) = run(folder, &["events", "void", "--key", "k1", "--reason", " "], 2);
    assert!(said.contains("--reason is empty"), "{said}");
    let (_, said) =
        run(folder, &["events", "amend", "--key", "k1", "--set", "bytes=1", "--reason", "r"], 0);
    assert!(said.contains("0 events amended") && said.contains("nothing was written"), "{said}");
    assert_eq!(run(folder, &["log", "-o", "csv", "-q"], 0).0, before);
    run(folder, &["verify"], 0);
}

#[test]
fn every_row_of_an_identity_is_found_with_what_became_of_it() {
    let mut life = Life::new();
    life.place.ingest(&[line(0), line(1)], &meterhouse::ingest::IngestSettings::default());
    life.intake.receive(&[line(0), line(1)], NOW, true);
    life.take(&Step::Amend(vec![0], "bytes", Some(3_600), true));
    let amended = life.done[0].0.clone();
    life.take(&Step::Void(vec![0]));
    let voided = life.done[1].0.clone();
    let identity = Identity { source: String::new(), key: "k0".to_owned() };
    let rows = |at| {
        let rows = RUNTIME.block_on(stored_rows(&life.context(), &identity, at)).unwrap();
        let told =
            rows.into_iter().map(|row| (row.customer_id, row.kind, row.made_by, row.ended_by));
        told.collect::<Vec<_>>()
    };
    let text = |text: &str| Some(text.to_owned());
    let original = |kind: &str, by| (text("c0"), kind.to_owned(), None, by);
    let made = |kind: &str, by| (text("moved"), kind.to_owned(), Some(amended.clone()), by);
    assert_eq!(rows(Some(1)), [original("event", None)]);
    assert_eq!(rows(Some(2)), [original("replaced", Some(amended.clone())), made("event", None)]);
    let want = [original("replaced", Some(amended.clone())), made("voided", Some(voided))];
    assert_eq!(rows(None), want);
}

#[test]
fn corrections_beside_ingests_and_compactions_all_count_once() {
    let folder = lake();
    let folder = folder.path();
    let line = |n: usize| {
        format!(
            r#"{{"event_name":"hit","idempotency_key":"n{n}","customer_id":"n","timestamp":"2026-06-0{}T10:00:00Z","properties":{{"bytes":1000}}}}"#,
            n % 3 + 1,
        ) + "\n"
    };
    for file in 0..3 {
        let text: String = (file * 20..file * 20 + 20).map(line).collect();
        fs::write(folder.join(format!("{file}.ndjson")), text).unwrap();
    }
    let start = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_meterhouse"))
            .current_dir(folder)
            .args(args)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    for round in 0..3 {
        let file = format!("{round}.ndjson");
        let keys: Vec<String> = (0..4).map(|n| format!("k{}", round * 4 + n)).collect();
        let commands: [&[&str]; 6] = [
            &["ingest", &file, "--commit-events", "7"],
            &["compact"],
            &["events", "void", "--key", &keys[0], "--reason", "r"],
            &["events", "amend", "--key", &keys[1], "--set", "bytes=100", "--reason", "r"],
            &["events", "void", "--key", &keys[2], "--reason", "r"],
            &["events", "amend", "--key", &keys[3], "--set", "bytes=100", "--reason", "r"],
        ];
        let children: Vec<_> = commands.iter().map(|args| start(args)).collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(0), "{said}");
        }
    }
    let question = "SELECT count(*) n, sum(bytes) s FROM events";
    let (data, _) = run(folder, &["sql", question, "-o", "csv", "-q"], 0);
    assert_eq!(data, "n,s\n66,60600\n");
    run(folder, &["verify"], 0);
}

#[test]
fn a_killed_correction_is_there_in_full_or_not_at_all() {
    const ROUNDS: usize = 10;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // Each round's events lie on thirty days, so that its correction writes sixty files.
    let line = |n: usize| {
        let (round, day) = (n % ROUNDS, n / ROUNDS % 30 + 1);
        format!(
            r#"{{"event_name":"hit","idempotency_key":"k{n}","customer_id":"c{round}","timestamp":"2026-06-{day:02}T10:00:00Z","properties":{{"n":1}}}}"#
        ) + "\n"
    };
    let text: String = (0..30 * ROUNDS).map(line).collect();
    fs::write(folder.join("e.ndjson"), text).unwrap();
    run(folder, &["ingest", "e.ndjson"], 0);
    let sums = || {
        let question = "SELECT customer_id, count(*) n, sum(n) s FROM events GROUP BY 1 ORDER BY 1";
        run(folder, &["sql", question, "-o", "csv", "-q"], 0).0
    };
    let mut random = Random::new(20_261_126);
    let (mut pace, mut done, mut killed) = (Duration::from_secs(2), 0, 0);
    let mut want: BTreeMap<String, &str> =
        (0..ROUNDS).map(|round| (format!("c{round}"), "30,30")).collect();
    for round in 0..ROUNDS {
        let customer = format!("c{round}");
        let args =
            ["events", "amend", "--customer", &customer, "--set", "n=7", "--reason", "r", "-q"];
        let mut child = Command::new(env!("CARGO_BIN_EXE_meterhouse"))
            .current_dir(folder)
            .args(args)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The first is left alone, to see how long one takes.
        let started = Instant::now();
        if round > 0 {
            let micros = u64::try_from(pace.as_micros()).unwrap();
            std::thread::sleep(Duration::from_micros(micros / 4 + random.below(micros * 3 / 4)));
            let _ = child.kill();
        }
        let ended = child.wait().unwrap();
        if round == 0 {
            pace = started.elapsed();
        }
        killed += usize::from(ended.code().is_none());
        let before = sums();
        let text = |want: &BTreeMap<String, &str>| {
            let rows = want.iter().map(|(customer, row)| format!("{customer},{row}\n"));
            format!("customer_id,n,s\n{}", rows.collect::<String>())
        };
        let untouched = text(&want);
        want.insert(customer.clone(), "30,210");
        let amended = text(&want);
        assert!(before == untouched || before == amended, "{before}");
        done += usize::from(ended.code().is_none() && before == amended);
        run(folder, &args, 0);
        assert_eq!(sums(), amended);
    }
    eprintln!("{killed} of {ROUNDS} corrections were killed, {done} of them after their commit");
    assert!(killed > 0, "every correction ended before its kill");
    let (list, _) = run(folder, &["events", "corrections", "-o", "csv", "-q"], 0);
    assert_eq!(list.lines().count(), ROUNDS + 1, "each is listed once: {list}");
    run(folder, &["verify"], 0);
}

#[test]
fn an_open_range_reaches_no_further_than_events_that_count() {
    let folder = tempfile::tempdir().unwrap();
    let line = |key: &str, name: &str, date: &str| {
        format!(
            r#"{{"event_name":"{name}","idempotency_key":"{key}","customer_id":"c","timestamp":"{date}T00:00:00Z","properties":{{"seats":4}}}}"#,
        ) + "\n"
    };
    let text = line("k1", "level", "2026-03-01") + &line("k2", "other", "2026-05-10");
    fs::write(folder.path().join("e.ndjson"), text).unwrap();
    fs::create_dir_all(folder.path().join("queries/meters")).unwrap();
    let meter = "meter: m\nevent: level\naggregation: time_weighted\nproperty: seats\nof: level\n";
    fs::write(folder.path().join("queries/meters/m.yaml"), meter).unwrap();
    run(folder.path(), &["ingest", "e.ndjson"], 0);
    let months = || {
        let (data, _) = run(folder.path(), &["usage", "m", "--window", "month", "-o", "csv"], 0);
        data.lines().skip(1).map(|row| row[..7].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(months(), ["2026-03", "2026-04", "2026-05"]);
    run(folder.path(), &["events", "void", "--key", "k2", "--reason", "never was"], 0);
    assert_eq!(months(), ["2026-03"]);
}
