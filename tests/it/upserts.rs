//! Of names that are declared, the newest event of an identity counts, and versions before say what they
//! said.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use meterhouse::ingest::IngestSettings;
use meterhouse::lake::upserts::Declarer;
use meterhouse::verify::verify;
use proptest::prelude::*;

use crate::agreement::{RUNTIME, ask, cases, counts, difference, limits, settings, sound, timed};
use crate::corrections::{Life, Step, step};
use crate::naive::answer::answer;
use crate::naive::event::Line;
use crate::naive::generate::{self, NOW};
use crate::program::meterhouse;
use crate::storm::random::Random;

// ---- Random lives, compared with the second answer ----

/// What is declared changes, or what a life has anyway happens.
#[derive(Debug, Clone)]
enum Turn {
    Declare(&'static str),
    Withdraw(&'static str),
    Step(Step),
}

fn turn() -> BoxedStrategy<Turn> {
    let name = || prop_oneof![4 => Just("transfer"), 2 => Just("request"), 1 => Just("größe")];
    prop_oneof![
        2 => name().prop_map(Turn::Declare),
        1 => name().prop_map(Turn::Withdraw),
        6 => step().prop_map(Turn::Step),
    ]
    .boxed()
}

/// Lines of few identities.
fn lines() -> BoxedStrategy<Vec<Line>> {
    (generate::lines(), proptest::collection::vec((0..9_u8, any::<bool>()), 80))
        .prop_map(|(mut lines, identities)| {
            for (line, (key, keeps_source)) in lines.iter_mut().zip(identities) {
                if let Line::Event(sent) = line {
                    sent.key = format!("k{key}");
                    sent.source = sent.source.take().filter(|_| keeps_source && key == 0);
                }
            }
            lines
        })
        .boxed()
}

fn one(name: &str) -> BTreeSet<String> {
    BTreeSet::from([name.to_owned()])
}

fn turned(life: &mut Life, turn: &Turn, declared: &mut BTreeSet<String>) {
    let events = life.place.lake().events.clone();
    match turn {
        Turn::Step(step) => life.take(step),
        Turn::Declare(name) => {
            let (new, _) = RUNTIME
                .block_on(events.declare_upserts(&one(name), &Declarer::default(), false))
                .unwrap();
            assert_eq!(new.len(), usize::from(declared.insert((*name).to_owned())));
        }
        Turn::Withdraw(name) => {
            let done = RUNTIME.block_on(events.withdraw_upserts(&one(name), &Declarer::default()));
            assert_eq!(done.is_ok(), declared.remove(*name));
        }
    }
}

/// How many events all lives replaced.
static REPLACED: AtomicU64 = AtomicU64::new(0);

#[test]
fn upserted_events_answer_like_those_of_the_second_implementation() {
    random_lives_agree();
    assert!(REPLACED.load(Ordering::Relaxed) > 0, "no life replaced an event");
}

proptest! {
    #![proptest_config(cases(8))]

    fn random_lives_agree(
        lines in lines(),
        settings in settings(),
        turns in proptest::collection::vec(turn(), 6..16),
        meters in generate::meters(),
        question in generate::question(),
    ) {
        let (lines, question) = (timed(lines, &meters), sound(question, &meters));
        let mut life = Life::new();
        let required = settings.rules.customer_required;
        let (mut declared, mut answers) = (BTreeSet::new(), Vec::new());
        turned(&mut life, &Turn::Declare("transfer"), &mut declared);
        let parts: Vec<_> = lines.chunks(lines.len().div_ceil(3).max(1)).collect();
        let mut all = 0;
        for part in 0..parts.len() {
            // What came before comes again: of declared names, older contents are the newest then.
            let end: Vec<_> = parts[part.saturating_sub(1)..=part].concat();
            let dry = IngestSettings { dry_run: true, ..settings.clone() };
            let dry = life.place.ingest(&end, &dry);
            let Life { intake, model, .. } = &mut life;
            let (want, replaced) =
                intake.receive_upserts(&end, (NOW, required), &declared, model);
            let summary = life.place.ingest(&end, &settings);
            prop_assert_eq!((counts(summary.counts), summary.replaced), (want, replaced));
            prop_assert_eq!((counts(dry.counts), dry.replaced), (want, replaced), "dry run");
            all += replaced;
            let mut check = |life: &Life, what: &dyn std::fmt::Debug| {
                let want = answer(&life.events(), &meters, &question);
                let have = ask(life.place.lake(), &meters, &question, limits(2));
                if let Some(difference) = difference(&want, &have) {
                    return Err(TestCaseError::fail(format!("{what:?}: {difference}")));
                }
                let snapshot = RUNTIME.block_on(life.place.lake().events.snapshot(None)).unwrap();
                answers.push((snapshot.version, want));
                Ok(())
            };
            check(&life, &"ingest")?;
            for turn in turns.iter().skip(part).step_by(3) {
                turned(&mut life, turn, &mut declared);
                check(&life, turn)?;
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
        REPLACED.fetch_add(all, Ordering::Relaxed);
    }
}

// ---- Through the program ----

fn run(folder: &Path, args: &[&str], code: i32) -> (String, String) {
    let output = meterhouse(folder, args);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (data, said) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    (data, said)
}

fn line(name: &str, key: &str, day: u8, bytes: u64) -> String {
    format!(
        r#"{{"event_name":"{name}","idempotency_key":"{key}","customer_id":"c","timestamp":"2026-06-{day:02}T10:00:00Z","properties":{{"bytes":{bytes}}}}}"#
    ) + "\n"
}

fn ingest(folder: &Path, text: &str, code: i32) -> String {
    fs::write(folder.join("e.ndjson"), text).unwrap();
    run(folder, &["ingest", "e.ndjson"], code).1
}

fn sum(folder: &Path, at: Option<&str>) -> String {
    let mut args = vec!["sql", "SELECT count(*) n, sum(bytes) s FROM events", "-o", "csv", "-q"];
    args.extend(at.iter().flat_map(|at| ["--at", at]));
    run(folder, &args, 0).0.lines().nth(1).unwrap().to_owned()
}

#[test]
fn the_newest_event_of_a_declared_name_counts_and_the_older_ones_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let said = ingest(folder, &(line("usage", "k", 1, 5) + &line("hit", "h", 1, 1)), 0);
    assert!(said.contains("2 accepted"), "{said}");
    // Not declared: a conflict.
    let said = ingest(folder, &line("usage", "k", 2, 6), 3);
    assert!(said.contains("0 accepted, 0 duplicate, 1 conflict"), "{said}");
    let (_, said) =
        run(folder, &["events", "upsert", "declare", "usage", "later", "--reason", "restated"], 0);
    assert!(said.contains("`later`, `usage`: the newest event of an identity wins"), "{said}");
    assert!(
        said.contains("as of table version 2") && said.contains("`later`: no event has"),
        "{said}"
    );
    let (_, said) = run(folder, &["events", "upsert", "declare", "usage"], 0);
    assert!(said.contains("`usage`: declared already"), "{said}");
    // On another day, several contents in one batch, and one that is there already.
    let text = line("usage", "k", 2, 6) + &line("usage", "k", 2, 6) + &line("usage", "k", 3, 7);
    let said = ingest(folder, &text, 0);
    assert!(said.contains("3 read, 2 accepted, 1 duplicate, 0 conflict, 0 rejected"), "{said}");
    assert!(said.contains("2 events accepted took the places of older ones"), "{said}");
    assert_eq!(sum(folder, None), "2,8");
    assert_eq!(sum(folder, Some("2")), "2,6");
    // The same again is a duplicate, an older content the newest again.
    assert!(ingest(folder, &line("usage", "k", 3, 7), 0).contains("0 accepted, 1 duplicate"));
    let said = ingest(folder, &line("usage", "k", 1, 5), 0);
    assert!(said.contains("1 event accepted took the place of an older one"), "{said}");
    assert_eq!((sum(folder, None), sum(folder, Some("3"))), ("2,6".to_owned(), "2,8".to_owned()));
    // Other names stay what they are, on either side.
    for (name, key) in [("hit", "h"), ("usage", "h"), ("hit", "k")] {
        let said = ingest(folder, &line(name, key, 1, 99), 3);
        assert!(said.contains("0 accepted, 0 duplicate, 1 conflict"), "{name} {key}: {said}");
    }
    let (shown, _) = run(folder, &["events", "show", "k", "-o", "csv", "-q"], 0);
    let rows: Vec<&str> = shown.lines().filter(|line| line.contains(",row,")).collect();
    let told: Vec<&str> = rows.iter().map(|row| row.split(',').nth(2).unwrap()).collect();
    let ended = "ended by upsert";
    assert_eq!(told, ["replaced", ended, "replaced", ended, "replaced", ended, "event"], "{shown}");
    assert!(rows[1].contains(",upsert-") && rows[1].contains("e.ndjson, version 3"), "{shown}");
    let upsert = rows[1].split(',').nth(3).unwrap();
    let (_, said) = run(folder, &["events", "revert", upsert, "--reason", "r"], 1);
    assert!(said.contains("is no correction"), "{said}");
    for state in ["kept", "compacted", "lost"] {
        match state {
            "compacted" => drop(run(folder, &["compact"], 0)),
            "lost" => fs::remove_dir_all(folder.join("lake/.state")).unwrap(),
            _ => {}
        }
        let said = ingest(folder, &line("usage", "k", 1, 5), 0);
        assert!(said.contains("0 accepted, 1 duplicate, 0 conflict"), "{state}: {said}");
        let (_, said) = run(folder, &["verify"], 0);
        assert!(said.contains("5 events (2 of them looked up in the key index)"), "{said}");
    }
    assert_eq!((sum(folder, Some("1")), sum(folder, Some("3"))), ("2,6".into(), "2,8".into()));
    let (list, _) = run(folder, &["events", "upsert", "list", "-o", "csv", "-q"], 0);
    let list: Vec<&str> = list.lines().collect();
    assert_eq!(list[0], "event_name,since_version,at,by,reason");
    assert!(list[2].starts_with("usage,2,") && list[2].ends_with(",restated"), "{list:?}");
    run(folder, &["events", "upsert", "withdraw", "usage"], 0);
    let said = ingest(folder, &line("usage", "k", 1, 8), 3);
    assert!(said.contains("0 accepted, 0 duplicate, 1 conflict"), "{said}");
    let (list, _) = run(folder, &["events", "upsert", "list", "-o", "csv", "-q"], 0);
    assert_eq!(list.lines().count(), 2);
    let (then, _) = run(folder, &["events", "upsert", "list", "-o", "csv", "-q", "--at", "2"], 0);
    assert_eq!(then.lines().count(), 3);
}

#[test]
fn corrections_go_before_and_after_upserts() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let text = line("usage", "a", 1, 1) + &line("usage", "v", 1, 10) + &line("usage", "z", 1, 100);
    ingest(folder, &text, 0);
    run(folder, &["events", "upsert", "declare", "usage"], 0);
    let id = |said: &str| {
        said.split("correction ").nth(1).unwrap().split(' ').next().unwrap().to_owned()
    };
    // Amended, to another day, and then sent anew: the newest is what was sent.
    let amend = ["events", "amend", "--key", "a", "--set", "bytes=2", "--timestamp"];
    let amend: Vec<&str> =
        amend.into_iter().chain(["2026-07-09T00:00:00Z", "--reason", "r"]).collect();
    let amended = id(&run(folder, &amend, 0).1);
    assert_eq!(sum(folder, None), "3,112");
    // What was sent is there already, whatever became of it.
    assert!(ingest(folder, &line("usage", "a", 1, 1), 0).contains("0 accepted, 1 duplicate"));
    let said = ingest(folder, &line("usage", "a", 2, 3), 0);
    assert!(said.contains("1 event accepted took the place"), "{said}");
    assert_eq!(sum(folder, None), "3,113");
    let (_, said) = run(folder, &["events", "revert", &amended, "--reason", "r"], 1);
    assert!(said.contains("newer events took the places"), "{said}");
    // What is voided stays so, whatever is sent.
    let voided = id(&run(folder, &["events", "void", "--key", "v", "--reason", "r"], 0).1);
    let said = ingest(folder, &line("usage", "v", 1, 20), 3);
    assert!(said.contains("0 accepted, 0 duplicate, 1 conflict"), "{said}");
    run(folder, &["events", "revert", &voided, "--reason", "r"], 0);
    assert!(ingest(folder, &line("usage", "v", 1, 20), 0).contains("1 accepted"));
    assert_eq!(sum(folder, None), "3,123");
    // What upserts brought is corrected like any other.
    ingest(folder, &line("usage", "z", 1, 200), 0);
    let void = id(&run(folder, &["events", "void", "--key", "z", "--reason", "r"], 0).1);
    let (_, said) = run(folder, &["events", "void", "--key", "z", "--reason", "r"], 1);
    assert!(said.contains(&format!("was voided by {void}")), "{said}");
    assert_eq!(sum(folder, None), "2,23");
    run(folder, &["events", "revert", &void, "--reason", "r"], 0);
    run(folder, &["events", "amend", "--key", "z", "--set", "bytes=300", "--reason", "r"], 0);
    assert_eq!(sum(folder, None), "3,323");
    for state in ["kept", "lost"] {
        if state == "lost" {
            fs::remove_dir_all(folder.join("lake/.state")).unwrap();
        }
        let text =
            line("usage", "a", 2, 3) + &line("usage", "v", 1, 20) + &line("usage", "z", 1, 200);
        let said = ingest(folder, &text, 0);
        assert!(said.contains("0 accepted, 3 duplicate, 0 conflict"), "{state}: {said}");
        run(folder, &["verify"], 0);
    }
}

#[test]
fn what_cannot_be_declared_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (_, said) = run(folder, &["events", "upsert", "declare", "usage"], 1);
    assert!(said.contains("there is no lake"), "{said}");
    ingest(folder, &line("usage", "k", 1, 5), 0);
    let long = "n".repeat(129);
    for (args, code, want) in [
        (&["declare", ""][..], 2, "is empty"),
        (&["declare", "usage", &long], 2, "has 129 bytes, an event's has at most 128"),
        (&["declare"], 2, "NAME"),
        (&["withdraw", "usage"], 1, "event name `usage` is not declared"),
        (&["list", "--at", "9"], 1, "version 9"),
    ] {
        let args: Vec<&str> =
            ["events", "upsert"].into_iter().chain(args.iter().copied()).collect();
        let (data, said) = run(folder, &args, code);
        assert!(said.contains(want) && data.is_empty(), "{args:?}: {said}");
    }
    let (log, _) = run(folder, &["log", "-o", "csv", "-q"], 0);
    assert_eq!(log.lines().count(), 3, "{log}");
}

#[test]
fn a_lost_declaration_is_named_and_can_be_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    ingest(folder, &line("usage", "k", 1, 1), 0);
    run(folder, &["events", "upsert", "declare", "usage", "hit"], 0);
    ingest(folder, &line("usage", "k", 1, 2), 0);
    let note = "upserts/0000000001.json";
    fs::remove_file(found(&folder.join("lake"), note)).unwrap();
    for (args, code) in [
        (&["ingest", "e.ndjson"][..], 1),
        (&["events", "upsert", "declare", "other"], 1),
        (&["events", "upsert", "list"], 1),
        (&["verify"], 4),
    ] {
        let (data, said) = run(folder, args, code);
        assert!(
            (data + &said).contains(&format!("{note} among the lake's notes, is gone")),
            "{said}"
        );
    }
    // What is stored answers as ever.
    assert_eq!(sum(folder, None), "1,2");
    run(folder, &["events", "upsert", "declare", "--anew", "usage"], 0);
    let (_, said) = run(folder, &["events", "upsert", "declare", "--anew", "hit"], 1);
    assert!(said.contains("--anew is for a lake that has lost it"), "{said}");
    run(folder, &["verify"], 0);
    ingest(folder, &line("usage", "k", 1, 3), 0);
    assert_eq!(sum(folder, None), "1,3");
    let (list, _) = run(folder, &["events", "upsert", "list", "-o", "csv", "-q"], 0);
    assert_eq!(list.lines().count(), 2, "{list}");
}

/// The path that ends so in `folder`.
fn found(folder: &Path, end: &str) -> PathBuf {
    let inside = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths = inside.filter(|path| path.ends_with(end) || holds(path, &|p| p.ends_with(end)));
    let path = paths.next().unwrap();
    if path.ends_with(end) { path } else { found(&path, end) }
}

#[test]
fn writers_that_upsert_the_same_keys_beside_corrections_and_compactions_lose_nothing() {
    const KEYS: u8 = 30;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let batch = |content: u64| -> String {
        let event = |n: u8| line("usage", &format!("k{n}"), n % 3 + 1, content);
        (0..KEYS).map(event).collect()
    };
    ingest(folder, &batch(1), 0);
    run(folder, &["events", "upsert", "declare", "usage"], 0);
    let mut accepted = u64::from(KEYS);
    for round in 0..3_u64 {
        let mut children = Vec::new();
        for writer in 0..2 {
            let content = 10 + round * 2 + writer;
            let name = format!("{writer}.ndjson");
            fs::write(folder.join(&name), batch(content)).unwrap();
            let state = format!("state-{writer}");
            children.push(vec!["ingest".to_owned(), name, "--state".to_owned(), state]);
        }
        let amend = format!("events amend --key k{round} --set note=x --reason r");
        for command in ["compact", &amend] {
            children.push(command.split(' ').map(str::to_owned).collect());
        }
        let children: Vec<_> = children
            .iter()
            .map(|args| {
                Command::new(env!("CARGO_BIN_EXE_meterhouse"))
                    .current_dir(folder)
                    .args(args)
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(0), "{said}");
            if said.contains(" read, ") {
                assert!(said.contains("30 read, 30 accepted"), "{said}");
                accepted += u64::from(KEYS);
            }
        }
        // One row of each key counts, of the batch that was committed last.
        let (log, _) = run(folder, &["log", "-o", "ndjson", "-q"], 0);
        let last = log.lines().find(|line| line.contains("\"source\":\"")).unwrap();
        let writer = u64::from(last.contains("\"source\":\"1.ndjson\""));
        let question = "SELECT count(*) n, count(DISTINCT idempotency_key) k, \
                        min(bytes) l, max(bytes) m FROM events";
        let (data, _) = run(folder, &["sql", question, "-o", "csv", "-q"], 0);
        let content = 10 + round * 2 + writer;
        assert_eq!(data, format!("n,k,l,m\n30,30,{content},{content}\n"), "{log}");
        for state in ["state-0", "state-1"] {
            let (_, said) = run(folder, &["verify", "--state", state], 0);
            assert!(said.contains(&format!("{accepted} events")), "{said}");
        }
    }
}

/// Whether something called `wanted` lies in `state`, however deep.
fn holds(state: &Path, wanted: &dyn Fn(&Path) -> bool) -> bool {
    let Ok(inside) = fs::read_dir(state) else { return false };
    let mut paths = inside.map(|entry| entry.unwrap().path());
    paths.any(|path| wanted(&path) || holds(&path, wanted))
}

/// What two lines of a batch are, what overtakes it, what becomes of them (accepted, duplicate,
/// conflict) or what is said, and what counts then.
type Overtaken<'c> =
    (&'c str, &'c [(&'c str, &'c str, u64)], &'c [&'c str], Result<[u64; 3], &'c str>, &'c str);

/// Events that fill a part of a batch, so that what came before them is sealed.
const FILLERS: u64 = 300;

fn fillers() -> String {
    let note = "n".repeat(60_000);
    let filler = |n: u64| {
        format!(
            r#"{{"event_name":"filler","idempotency_key":"f{n}","customer_id":"c","timestamp":"2026-07-01T00:00:00Z","properties":{{"bytes":0,"note":"{note}{n}"}}}}"#
        ) + "\n"
    };
    (0..FILLERS).map(filler).collect()
}

/// Others do what they do to what an ingest is about to replace: before its lines come, or once they
/// are sealed.
fn overtake((name, lines, others, want, sums): &Overtaken<'_>, sealed: bool) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for bytes in [2, 3] {
        let path = folder.join(format!("usage-k-{bytes}.ndjson"));
        fs::write(path, line("usage", "k", 2, bytes)).unwrap();
    }
    fs::write(folder.join("hit-n.ndjson"), line("hit", "n", 2, 5)).unwrap();
    fs::write(folder.join("usage-n-5.ndjson"), line("usage", "n", 2, 5)).unwrap();
    ingest(folder, &(line("usage", "k", 2, 1) + &line("usage", "other", 2, 1000)), 0);
    run(folder, &["events", "upsert", "declare", "usage"], 0);
    let mut child = Command::new(env!("CARGO_BIN_EXE_meterhouse"))
        .current_dir(folder)
        .args(["ingest", "-", "--state", "overtaken", "--memory", "16MiB", "--threads", "1"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut until = |wanted: fn(&Path) -> bool| {
        while !holds(&folder.join("overtaken"), &wanted) {
            assert!(child.try_wait().unwrap().is_none(), "{name}: it ended");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    let mut send = |text: &str| std::io::Write::write_all(&mut input, text.as_bytes()).unwrap();
    let text: String = lines.iter().map(|(name, key, bytes)| line(name, key, 2, *bytes)).collect();
    let act = || {
        for other in *others {
            let args: Vec<&str> = other.split(' ').collect();
            run(folder, &args, 0);
        }
    };
    let fillers = if sealed {
        send(&(text + &fillers()));
        // A part's keys are written as it is sealed, behind those of the lake.
        until(|path| path.ends_with("keys/00000002.run"));
        act();
        FILLERS
    } else {
        until(|path| path.ends_with("spill"));
        act();
        send(&text);
        0
    };
    drop(input);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    match want {
        Ok(want) => {
            let number = |what: &str| -> u64 {
                let before = said.split(what).next().unwrap();
                before.rsplit(' ').next().unwrap().replace(',', "").parse().unwrap()
            };
            let told = [" accepted", " duplicate", " conflict"].map(number);
            let want_all = [want[0] + fillers, want[1], want[2]];
            assert_eq!(told, want_all, "{name}, sealed before: {sealed}: {said}");
            assert_eq!(output.status.code(), Some(if want[2] > 0 { 3 } else { 0 }), "{said}");
        }
        Err(want) => {
            assert_eq!(output.status.code(), Some(1), "{name}: {said}");
            assert!(said.contains(want), "{name}: {said}");
        }
    }
    let counts = "SELECT count(*) n, sum(bytes) s FROM events WHERE event_name <> 'filler'";
    let (data, _) = run(folder, &["sql", counts, "-o", "csv", "-q"], 0);
    assert_eq!(data, format!("n,s\n{sums}\n"), "{name}, sealed before: {sealed}");
    run(folder, &["verify"], 0);
    run(folder, &["verify", "--state", "overtaken"], 0);
    // What counts is what holds the identity, for an index that is made anew as well.
    fs::remove_dir_all(folder.join("lake/.state")).unwrap();
    run(folder, &["index", "rebuild"], 0);
    run(folder, &["verify"], 0);
}

#[test]
fn a_batch_that_was_overtaken_chooses_anew_what_it_replaces() {
    let again = |bytes: &str| format!("ingest usage-k-{bytes}.ndjson");
    let (two, three) = (again("2"), again("3"));
    let cases: [Overtaken<'_>; 12] = [
        ("nothing", &[("usage", "k", 3)], &[], Ok([1, 0, 0]), "2,1003"),
        ("other content", &[("usage", "k", 3)], &[&two], Ok([1, 0, 0]), "2,1003"),
        ("the same content", &[("usage", "k", 3)], &[&three], Ok([0, 1, 0]), "2,1003"),
        (
            "the first of two",
            &[("usage", "k", 3), ("usage", "k", 4)],
            &[&three],
            Ok([1, 1, 0]),
            "2,1004",
        ),
        (
            "what was there, sent again after another",
            &[("usage", "k", 3), ("usage", "k", 1)],
            &[&two],
            Ok([2, 0, 0]),
            "2,1001",
        ),
        (
            "a void",
            &[("usage", "k", 3), ("usage", "k", 4), ("usage", "n", 7)],
            &["events void --key k --reason r"],
            Ok([1, 0, 2]),
            "2,1007",
        ),
        (
            "an amendment to another day",
            &[("usage", "k", 3)],
            &["events amend --key k --set bytes=9 --timestamp 2026-05-01T00:00:00Z --reason r"],
            Ok([1, 0, 0]),
            "2,1003",
        ),
        (
            "an amendment to another name",
            &[("usage", "k", 3)],
            &["events amend --key k --set event_name=hit --reason r"],
            Ok([0, 0, 1]),
            "2,1001",
        ),
        (
            "a new event of another name",
            &[("usage", "n", 3)],
            &["ingest hit-n.ndjson"],
            Ok([0, 0, 1]),
            "3,1006",
        ),
        (
            "the same beside several of ours, so that nothing is replaced",
            &[("usage", "n", 3), ("usage", "n", 4), ("usage", "m", 7)],
            &["ingest hit-n.ndjson"],
            Ok([1, 0, 2]),
            "4,1013",
        ),
        (
            "a declaration",
            &[("hit", "n", 3)],
            &["events upsert declare hit", "ingest hit-n.ndjson"],
            Ok([1, 0, 0]),
            "3,1004",
        ),
        (
            "compaction",
            &[("usage", "k", 3)],
            &["ingest hit-n.ndjson", "compact"],
            Ok([1, 0, 0]),
            "3,1008",
        ),
    ];
    for case in &cases {
        overtake(case, false);
        overtake(case, true);
    }
}

#[test]
fn a_line_is_compared_with_what_was_there_when_it_came() {
    let two = "ingest usage-k-2.ndjson";
    let restated = &[("usage", "k", 1)];
    // It takes the place of what came before it, or was there before that came.
    overtake(&("what was there at first", restated, &[two], Ok([1, 0, 0]), "2,1001"), false);
    overtake(&("what was there at first", restated, &[two], Ok([0, 1, 0]), "2,1002"), true);
    let withdraw = "events upsert withdraw usage";
    let other = &[("usage", "k", 3)];
    overtake(&("a withdrawal", other, &[withdraw], Ok([0, 0, 1]), "2,1001"), false);
    let refused = Err("event name `usage` was withdrawn from upserts");
    overtake(&("a withdrawal", other, &[withdraw], refused, "2,1001"), true);
    // What is new is kept or not as if it had never been of a declared name.
    let new = &[("usage", "n", 3)];
    let others = &[withdraw, "ingest usage-n-5.ndjson"];
    overtake(
        &("a withdrawal and an event of the name", new, others, Ok([0, 0, 1]), "3,1006"),
        true,
    );
    overtake(&("a withdrawal alone", new, &[withdraw], Ok([1, 0, 0]), "3,1004"), true);
}

#[test]
fn a_killed_upsert_is_there_in_full_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let batch = |content: u64| -> String {
        (0..60).map(|n| line("usage", &format!("k{n}"), n % 28 + 1, content)).collect()
    };
    ingest(folder, &batch(1), 0);
    run(folder, &["events", "upsert", "declare", "usage"], 0);
    let mut random = Random::new(20_261_127);
    let (mut now, mut killed) = (1, 0);
    let mut pace = std::time::Duration::from_secs(2);
    for round in 0..8_u64 {
        fs::write(folder.join("next.ndjson"), batch(round + 2)).unwrap();
        let started = std::time::Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_meterhouse"))
            .current_dir(folder)
            .args(["ingest", "next.ndjson", "-q"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The first is left alone, to see how long one takes.
        if round > 0 {
            let micros = u64::try_from(pace.as_micros()).unwrap();
            std::thread::sleep(std::time::Duration::from_micros(
                micros / 4 + random.below(micros * 3 / 4),
            ));
            let _ = child.kill();
        }
        let ended = child.wait().unwrap();
        if round == 0 {
            pace = started.elapsed();
        }
        killed += usize::from(ended.code().is_none());
        let have = sum(folder, None);
        let (before, after) = (format!("60,{}", now * 60), format!("60,{}", (round + 2) * 60));
        assert!(have == before || have == after, "{have} is neither {before} nor {after}");
        run(folder, &["ingest", "next.ndjson", "-q"], 0);
        assert_eq!(sum(folder, None), after);
        now = round + 2;
    }
    assert!(killed > 0, "every ingest ended before its kill");
    let (_, said) = run(folder, &["verify"], 0);
    assert!(said.contains("540 events (60 of them looked up"), "{said}");
}
