//! Compaction moves rows and changes no answer, at no version; history and statistics tell of it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::program::meterhouse;

/// Files that are ingested one by one, and so become small files of every day.
const FILES: usize = 12;

/// Standard output and what was said of a command that must succeed.
fn run(folder: &Path, args: &[&str]) -> (String, String) {
    let output = meterhouse(folder, args);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (data, said) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(0), "{args:?}: {said}");
    (data, said)
}

/// Events of three days, some with properties that no other file has.
fn events(file: usize) -> String {
    let line = |n: usize| {
        let (key, day) = (file * 100 + n, n % 3 + 1);
        let own =
            if n.is_multiple_of(10) { format!(r#","only_{file}":"x{n}""#) } else { String::new() };
        format!(
            r#"{{"event_name":"hit","idempotency_key":"k{key}","customer_id":"c{}","timestamp":"2026-06-0{day}T{:02}:00:00.5Z","properties":{{"n":{key}.25,"list":[{n}]{own}}}}}"#,
            key % 7,
            key % 24
        )
    };
    (0..50).map(line).map(|line| line + "\n").collect()
}

const EVERYTHING: &str = "SELECT * FROM events ORDER BY idempotency_key";

fn everything(folder: &Path, at: &str) -> String {
    run(folder, &["sql", EVERYTHING, "-o", "csv", "-q", "--at", at]).0
}

#[test]
fn no_answer_changes_at_any_version() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for file in 0..FILES {
        let name = format!("{file}.ndjson");
        fs::write(folder.join(&name), events(file)).unwrap();
        run(folder, &["ingest", &name]);
    }
    let before = FILES.to_string();
    let (all, half) = (everything(folder, &before), everything(folder, "6"));
    let (stats, total) = run(folder, &["stats", "-o", "csv"]);
    assert_eq!(stats.lines().count(), 4, "{stats}");
    assert!(total.contains("600 events in 36 files"), "{total}");

    let (_, said) = run(folder, &["compact"]);
    assert!(said.contains("36 files of 600 rows became 3"), "{said}");
    assert!(said.contains("3 commits to version 15"), "{said}");
    for (at, want) in [("15", &all), (before.as_str(), &all), ("6", &half)] {
        assert_eq!(everything(folder, at), *want, "version {at}");
    }
    assert!(run(folder, &["stats", "-q", "-o", "csv"]).0.lines().skip(1).all(|day| {
        let cells: Vec<&str> = day.split(',').collect();
        cells[1] == "1" && cells[3].parse::<u64>().unwrap() >= 192
    }));
    let (_, said) = run(folder, &["compact"]);
    assert!(said.contains("nothing to compact, version 15"), "{said}");

    // Whoever knows the keys, and whoever must read them from the merged files.
    for state in ["kept", "lost"] {
        if state == "lost" {
            fs::remove_dir_all(folder.join("lake/.state")).unwrap();
        }
        let (_, said) = run(folder, &["ingest", "3.ndjson"]);
        assert!(said.contains("0 accepted, 50 duplicate, 0 conflict"), "{state}: {said}");
    }
    let (log, _) = run(folder, &["log", "-o", "csv", "--limit", "4"]);
    let rows: Vec<Vec<&str>> = log.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows[0][..3], ["version", "committed_at", "operation"]);
    for (row, want) in rows[1..].iter().zip([
        ["15", "optimize", "1", "12"],
        ["14", "optimize", "1", "12"],
        ["13", "optimize", "1", "12"],
        ["12", "write", "3", "0"],
    ]) {
        assert_eq!([row[0], row[2], row[3], row[4]], want, "{log}");
        assert_eq!(row[7..10], ["false", "0", "tester"], "{log}");
    }
    // A time between two versions is the older of them.
    let time = rows[4][1];
    let (count, said) = run(folder, &["sql", "SELECT count(*) n FROM events", "--at", time]);
    assert!(count.contains("600") && said.contains("table version 12"), "{count} {said}");
    let early = meterhouse(folder, &["sql", "SELECT 1", "--at", "2020-01-01"]);
    let said = String::from_utf8(early.stderr).unwrap();
    assert!(early.status.code() == Some(1) && said.contains("the oldest is version 0"), "{said}");
    let wrong = meterhouse(folder, &["sql", "SELECT 1", "--at", "soon"]);
    assert_eq!(wrong.status.code(), Some(2));
    let (names, _) = run(folder, &["stats", "--by", "event-name", "-o", "csv", "-q"]);
    let want = "event_name,events,customers,first,last\n\
                hit,600,7,2026-06-01T00:00:00.5Z,2026-06-03T23:00:00.5Z\n";
    assert_eq!(names, want);
}

#[test]
fn ingests_and_compactions_at_the_same_time_keep_each_event_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("first.ndjson"), events(0)).unwrap();
    run(folder, &["ingest", "first.ndjson"]);
    let start = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_meterhouse"))
            .current_dir(folder)
            .args(args)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let (mut children, mut merged) = (Vec::new(), 0);
    for round in 0..4 {
        for writer in 0..2 {
            // The two writers of a round share half of their events.
            let name = format!("{round}-{writer}.ndjson");
            let file = 1 + round * 2 + writer;
            fs::write(folder.join(&name), events(file) + &events(1 + round * 2)).unwrap();
            let state = format!("state-{writer}");
            children.push(start(&["ingest", &name, "--state", &state, "--commit-events", "40"]));
        }
        children.extend([start(&["compact"]), start(&["compact"])]);
        for child in children.drain(..) {
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(0), "{said}");
            merged += usize::from(said.contains(" became "));
        }
    }
    assert!(merged > 0, "no compaction found anything to do");
    let question = "SELECT count(*) n, count(DISTINCT idempotency_key) k, sum(n) s FROM events";
    let want: u64 = (0..9_u64).map(|file| (0..50).map(|n| file * 100 + n).sum::<u64>()).sum();
    let (counted, _) = run(folder, &["sql", question, "-o", "csv", "-q"]);
    let sum = format!("{}.5", want + 450 / 4);
    assert_eq!(counted, format!("n,k,s\n450,450,{sum}\n"));
}
