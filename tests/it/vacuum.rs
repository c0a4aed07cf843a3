//! Vacuum takes away what no version needs, and nothing else; pinned versions survive it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use meterhouse::clock::Clock;
use meterhouse::lake::location::{Location, Namespace};
use meterhouse::lake::log_cleanup::shorten_log;
use meterhouse::lake::tables::Lake;
use meterhouse::lake::vacuum::{RETENTION_DEFAULT, Vacuumed, vacuum};
use meterhouse::time::Timestamp;

use crate::program::meterhouse;

fn run(folder: &Path, args: &[&str]) -> String {
    let output = meterhouse(folder, args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {said}");
    String::from_utf8(output.stdout).unwrap() + &said
}

fn refused(folder: &Path, args: &[&str], want: &str) {
    let output = meterhouse(folder, args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_ne!(output.status.code(), Some(0), "{args:?}: {said}");
    assert!(said.contains(want), "{args:?}: {said}");
}

/// Vacuum as it would be so many days from now.
async fn vacuum_in(folder: &Path, days: u64, dry_run: bool) -> Vacuumed {
    let location = Location::parse(folder.join("lake").to_str().unwrap()).unwrap();
    let lake = Lake::open(&location, &Namespace::default()).await.unwrap();
    let later = i64::try_from(days * 86_400_000_000).unwrap();
    let now = Timestamp::from_micros(Clock::System.now().micros() + later);
    vacuum(&lake.events, RETENTION_DEFAULT, now, dry_run).await.unwrap()
}

fn all_rows(folder: &Path, at: &str) -> String {
    let question = "SELECT * FROM events ORDER BY idempotency_key";
    run(folder, &["sql", question, "-o", "csv", "-q", "--at", at])
}

fn data_files(folder: &Path) -> usize {
    let days = fs::read_dir(folder.join("lake/default/events")).unwrap();
    let days = days.map(|day| day.unwrap().path());
    days.filter(|day| day.to_str().unwrap().contains("event_date="))
        .map(|day| fs::read_dir(day).unwrap().count())
        .sum()
}

fn events(file: usize) -> String {
    let line = |n: usize| {
        format!(
            r#"{{"event_name":"hit","idempotency_key":"{file}-{n}","customer_id":"c","timestamp":"2026-06-0{}T00:00:00Z","properties":{{"n":{n}}}}}"#,
            n % 2 + 1
        ) + "\n"
    };
    (0..20).map(line).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_no_version_needs_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for file in 1..=4 {
        fs::write(folder.join(format!("{file}.ndjson")), events(file)).unwrap();
        run(folder, &["ingest", &format!("{file}.ndjson")]);
        if file == 2 {
            // An index that knows two versions, for the end.
            let mut copy = Command::new("cp");
            let copied = copy.args(["-r", "lake/.state", "old-state"]).current_dir(folder).status();
            assert!(copied.unwrap().success());
        }
    }
    run(folder, &["compact"]);
    // What a killed run leaves: a file that never was in a version.
    let orphan = folder.join("lake/default/events/event_date=2026-06-01/0123.parquet");
    fs::write(&orphan, "not committed").unwrap();
    let long_ago = std::time::SystemTime::now() - RETENTION_DEFAULT * 2;
    fs::File::options().write(true).open(&orphan).unwrap().set_modified(long_ago).unwrap();
    let (newest, second) = (all_rows(folder, "6"), all_rows(folder, "2"));
    assert!(run(folder, &["pin", "2", "--reason", "invoice 7"]).contains("version 2 is pinned"));
    assert!(run(folder, &["pin", "2"]).contains("already"));
    assert_eq!(data_files(folder), 4 * 2 + 2 + 1);

    // Everything that was committed is young: nothing of it goes. Nor does what is being staged.
    let staged = orphan.with_file_name("4567.parquet");
    fs::write(&staged, "about to be committed").unwrap();
    let said = run(folder, &["vacuum"]);
    assert!(said.contains("event_date=2026-06-01/0123.parquet\n"), "{said}");
    assert!(said.contains("deleted 1 file,") && !orphan.exists() && staged.exists(), "{said}");
    assert_eq!(vacuum_in(folder, 29, false).await.files, Vec::<String>::new());
    fs::remove_file(&staged).unwrap();
    let would = vacuum_in(folder, 40, true).await;
    assert_eq!(data_files(folder), 10);
    let gone = vacuum_in(folder, 40, false).await;
    assert_eq!(would, gone);
    // The files of versions 3 and 4.
    assert_eq!((gone.files.len(), gone.oldest, gone.pinned.as_slice()), (4, 6, &[2_u64][..]));
    assert_eq!(data_files(folder), 6);

    assert_eq!(all_rows(folder, "6"), newest);
    assert_eq!(all_rows(folder, "2"), second);
    refused(folder, &["sql", "SELECT sum(n) FROM events", "--at", "4"], "gone");
    refused(folder, &["pin", "4"], "was vacuumed");
    refused(folder, &["unpin", "4"], "is not pinned");
    refused(folder, &["vacuum", "--retention", "10m"], "30d, 12h");
    refused(folder, &["vacuum", "--retention", "0h"], "less than 1h");
    let log = run(folder, &["log", "-o", "csv", "-q"]);
    let pinned: Vec<&str> = log.lines().filter(|line| line.contains(",true,")).collect();
    assert!(pinned.len() == 1 && pinned[0].starts_with("2,"), "{log}");
    // Two days of each file; of those of 3 and 4 one day is merged by version 5, the other by 6.
    let gone: Vec<&str> = log.lines().map(|line| line.split(',').nth(8).unwrap()).collect();
    assert_eq!(gone, ["files_gone", "0", "2", "4", "2", "0", "0", "0"], "{log}");

    // Whole is what is there, for whoever knows the keys of version 6 or of version 2.
    for state in ["newest", "old"] {
        if state == "old" {
            fs::remove_dir_all(folder.join("lake/.state")).unwrap();
            fs::rename(folder.join("old-state"), folder.join("lake/.state")).unwrap();
        }
        let said = run(folder, &["verify"]);
        let keys = if state == "newest" { "(80 of them" } else { "(40 of them" };
        assert!(said.contains(keys) && said.contains("all as written"), "{state}: {said}");
    }
    // An index that stands before files that are gone is made anew.
    for file in 1..=4 {
        let said = run(folder, &["ingest", &format!("{file}.ndjson")]);
        assert!(said.contains("0 accepted, 20 duplicate"), "{said}");
    }
    run(folder, &["unpin", "2"]);
    assert_eq!(vacuum_in(folder, 40, false).await.files.len(), 4);
    assert_eq!(all_rows(folder, "6"), newest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shortened_log_keeps_what_can_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for file in 1..=6 {
        fs::write(folder.join(format!("{file}.ndjson")), events(file)).unwrap();
        run(folder, &["ingest", &format!("{file}.ndjson")]);
    }
    let then = [all_rows(folder, "4"), all_rows(folder, "6")];
    run(folder, &["pin", "4"]);
    let location = Location::parse(folder.join("lake").to_str().unwrap()).unwrap();
    let lake = Lake::open(&location, &Namespace::default()).await.unwrap();
    let (day, now) = (Duration::from_secs(86_400), Clock::System.now());
    let later = Timestamp::from_micros(now.micros() + 2 * 86_400_000_000);
    let entries = || fs::read_dir(folder.join("lake/default/events/_delta_log")).unwrap().count();
    // Young versions stay, and a dry run only counts.
    assert_eq!(shorten_log(&lake.events, day, now, false).await.unwrap().files, 0);
    let before = entries();
    let counted = shorten_log(&lake.events, day, later, true).await.unwrap();
    assert_eq!((counted.files, counted.oldest, entries()), (4, 4, before));
    assert_eq!(shorten_log(&lake.events, day, later, false).await.unwrap(), counted);
    assert_eq!(shorten_log(&lake.events, day, later, false).await.unwrap().files, 0);
    assert_eq!([all_rows(folder, "4"), all_rows(folder, "6")], then);
    refused(folder, &["sql", "SELECT 1", "--at", "3"], "there are versions 4 to 6");
    // Another machine builds its keys from what is there, and all that looks into the log goes on.
    fs::remove_dir_all(folder.join("lake/.state")).unwrap();
    assert!(run(folder, &["ingest", "1.ndjson"]).contains("20 duplicate"));
    run(folder, &["unpin", "4"]);
    for command in ["verify", "log", "stats", "vacuum", "compact"] {
        run(folder, &[command]);
    }
    let last = shorten_log(&lake.events, day, later, false).await.unwrap();
    assert_eq!(last.oldest, lake.events.snapshot(None).await.unwrap().version);
    run(folder, &["verify"]);
}

#[test]
fn a_log_is_not_shortened_below_the_retention_of_files() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for file in 1..=3 {
        fs::write(folder.join(format!("{file}.ndjson")), events(file)).unwrap();
        run(folder, &["ingest", &format!("{file}.ndjson")]);
    }
    let told = run(folder, &["vacuum", "--log", "1h"]);
    assert!(told.contains("shortened the log by 0 files; its oldest version is 0"), "{told}");
    refused(folder, &["vacuum", "--log", "1m"], "--log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_shortens_a_log_gives_way_to_another_vacuum_and_who_pins_to_him() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for file in 1..=4 {
        fs::write(folder.join(format!("{file}.ndjson")), events(file)).unwrap();
        run(folder, &["ingest", &format!("{file}.ndjson")]);
    }
    let location = Location::parse(folder.join("lake").to_str().unwrap()).unwrap();
    let lake = Lake::open(&location, &Namespace::default()).await.unwrap();
    let before = Lake::open(&location, &Namespace::default()).await.unwrap();
    let day = Duration::from_secs(86_400);
    let later = Timestamp::from_micros(Clock::System.now().micros() + 2 * 86_400_000_000);
    // Another vacuum has said that it deletes what only versions before 3 need.
    let intent = format!(r#"{{"oldest":3,"since_micros":{}}}"#, later.micros());
    lake.events.put_note("vacuums", "other.json", intent).await.unwrap();
    let refused = shorten_log(&lake.events, day, later, false).await.unwrap_err();
    assert!(refused.to_string().contains("being vacuumed by somebody else"), "{refused}");
    assert_eq!(lake.events.notes("vacuums").await.unwrap().len(), 1);
    lake.events.delete_note("vacuums", "other.json").await.unwrap();
    // One that was broken off right after its announcement, and one that goes on.
    assert_eq!(shorten_log(&lake.events, day, later, false).await.unwrap().oldest, 4);
    assert!(lake.events.notes("vacuums").await.unwrap().is_empty());
    // Whoever had opened the lake before goes on with it.
    let known = before.events.snapshot(None).await.unwrap();
    assert_eq!(known.app_version("nobody").await.unwrap(), None);
    // A checkpoint that a writer who had slept puts late stands in for nothing.
    let log = folder.join("lake/default/events/_delta_log");
    let newest = fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path());
    let checkpoint = newest.into_iter().find(|p| p.to_str().unwrap().contains("4.checkpoint"));
    let name = "00000000000000000002.checkpoint.parquet";
    fs::copy(checkpoint.unwrap(), log.join(name)).unwrap();
    for command in ["verify", "log", "vacuum", "stats"] {
        run(folder, &[command]);
    }
    assert_eq!(shorten_log(&lake.events, day, later, false).await.unwrap().files, 1);
    assert!(!log.join(name).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_is_gone_below_a_checkpoint_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for file in 1..=5 {
        fs::write(folder.join(format!("{file}.ndjson")), events(file)).unwrap();
        run(folder, &["ingest", &format!("{file}.ndjson")]);
    }
    run(folder, &["pin", "2"]);
    let location = Location::parse(folder.join("lake").to_str().unwrap()).unwrap();
    let lake = Lake::open(&location, &Namespace::default()).await.unwrap();
    let later = Timestamp::from_micros(Clock::System.now().micros() + 2 * 86_400_000_000);
    shorten_log(&lake.events, Duration::from_secs(86_400), later, false).await.unwrap();
    // The checkpoint of the newest version hides the gap from whoever reads that alone.
    let name = "00000000000000000004.json";
    fs::remove_file(folder.join("lake/default/events/_delta_log").join(name)).unwrap();
    for command in ["vacuum", "log"] {
        refused(folder, &[command], name);
    }
    let verified = meterhouse(folder, &["verify"]);
    let told = String::from_utf8(verified.stdout).unwrap();
    assert_eq!(verified.status.code(), Some(4), "{told}");
    assert!(told.contains(name), "{told}");
}

#[test]
fn what_killed_writers_left_under_temporary_names_goes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("1.ndjson"), events(1)).unwrap();
    run(folder, &["ingest", "1.ndjson"]);
    let day = folder.join("lake/default/events/event_date=2026-06-01");
    let [old, young] = ["a.parquet#1000000001", "b.parquet#2000000002"].map(|name| day.join(name));
    for path in [&old, &young] {
        fs::write(path, "half").unwrap();
    }
    let long_ago = std::time::SystemTime::now() - RETENTION_DEFAULT * 2;
    fs::File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();
    run(folder, &["vacuum", "--dry-run"]);
    assert!(old.exists());
    run(folder, &["vacuum"]);
    assert!(!old.exists() && young.exists());
}
