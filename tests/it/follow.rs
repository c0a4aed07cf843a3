//! `ingest --follow`: each file once, whatever happens to the follower.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use crate::program::meterhouse;

/// A follower of `drop`, stopped when it is dropped.
struct Follower(Child);

impl Follower {
    fn of(folder: &Path) -> Self {
        Self::with(folder, &[])
    }

    fn with(folder: &Path, flags: &[&str]) -> Self {
        let told = fs::File::options().append(true).create(true).open(folder.join("told")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_meterhouse"));
        command
            .current_dir(folder)
            .env_remove("METERHOUSE_LAKE")
            .env_remove("METERHOUSE_STATE")
            .args(["ingest", "--follow", "drop", "--every", "1"])
            .args(flags)
            .stdin(Stdio::null())
            .stderr(told);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn event(key: &str) -> String {
    format!(
        r#"{{"event_name":"hit","idempotency_key":"{key}","customer_id":"c","timestamp":"2026-06-01T00:00:00Z"}}"#
    ) + "\n"
}

/// Puts a file into the drop folder, as one that has been there for a minute.
fn put(folder: &Path, name: &str, text: &str) {
    let path = folder.join("drop").join(name);
    fs::write(&path, text).unwrap();
    let then = SystemTime::now() - Duration::from_secs(60);
    fs::File::options().append(true).open(&path).unwrap().set_modified(then).unwrap();
}

fn count(folder: &Path) -> String {
    let asked = meterhouse(folder, &["sql", "SELECT count(*) FROM events", "-o", "csv", "-q"]);
    let answer = String::from_utf8(asked.stdout).unwrap();
    answer.lines().last().unwrap_or_default().to_owned()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Events that were ever read, duplicates included.
fn read(folder: &Path) -> String {
    let output = meterhouse(folder, &["verify"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    told.split("; ").find_map(|part| part.split_once(" read = ")).unwrap().0.to_owned()
}

#[test]
fn each_file_is_read_once_whatever_becomes_of_the_follower() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir(folder.join("drop")).unwrap();
    let follower = Follower::of(folder);
    put(folder, "a.ndjson", &(event("a1") + &event("a2")));
    until("two events", || count(folder) == "2");
    drop(follower);
    let follower = Follower::of(folder);
    put(folder, "b.ndjson", &event("b1"));
    until("the event of the second file", || count(folder) == "3");
    assert_eq!(read(folder), "3");
    // One that cannot be read keeps no other out, and is told once.
    put(folder, "c.parquet", "no Parquet");
    put(folder, "d.ndjson", &event("d1"));
    until("the event beside a broken file", || count(folder) == "4");
    std::thread::sleep(Duration::from_secs(3));
    let told = fs::read_to_string(folder.join("told")).unwrap();
    let refused = told.matches("c.parquet: not readable as Parquet").count();
    assert_eq!(refused, 1, "{told}");
    assert!(told.contains("passed over until it changes"), "{told}");
    // One that has grown is read again: what is new in it counts.
    put(folder, "b.ndjson", &(event("b1") + &event("b2")));
    until("the new event of a file that grew", || count(folder) == "5");
    drop(follower);
    assert_eq!(read(folder), "6");
}

#[test]
fn a_file_that_is_still_written_is_left_until_it_rests() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir(folder.join("drop")).unwrap();
    let path = folder.join("drop/slow.ndjson");
    let text = event("s1");
    let (half, rest) = text.split_at(text.len() / 2);
    fs::write(&path, half).unwrap();
    let _follower = Follower::of(folder);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_secs(1));
        let now = SystemTime::now();
        fs::File::options().append(true).open(&path).unwrap().set_modified(now).unwrap();
    }
    fs::write(&path, [half, rest].concat()).unwrap();
    until("the event of the slow file", || count(folder) == "1");
    assert_eq!(read(folder), "1");
}

#[test]
fn a_folder_that_is_not_there_is_waited_for_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let _follower = Follower::of(folder);
    until("what is missing", || {
        let told = fs::read_to_string(folder.join("told")).unwrap_or_default();
        told.contains("drop: no such file or folder")
    });
    fs::create_dir(folder.join("drop")).unwrap();
    put(folder, "a.ndjson", &event("a1"));
    until("the event", || count(folder) == "1");
}

#[test]
fn a_table_that_breaks_off_in_a_number_is_not_taken_for_whole() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir(folder.join("drop")).unwrap();
    let header = "event_name,idempotency_key,customer_id,timestamp,bytes\n";
    let row = "hit,k1,c,2026-06-01T00:00:00Z,1234\n";
    put(folder, "a.csv", &(header.to_owned() + row.strip_suffix("34\n").unwrap()));
    put(folder, "b.ndjson", &event("b1"));
    let _follower = Follower::of(folder);
    until("the event of the whole file", || count(folder) == "1");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(count(folder), "1");
    put(folder, "a.csv", &(header.to_owned() + row));
    until("the row", || count(folder) == "2");
    let asked = meterhouse(folder, &["sql", "SELECT sum(bytes) FROM events", "-o", "csv", "-q"]);
    assert!(String::from_utf8(asked.stdout).unwrap().ends_with("\n1234\n"));
}

#[test]
fn a_file_that_several_paths_lead_to_is_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir_all(folder.join("drop/sub")).unwrap();
    put(folder, "sub/a.ndjson", &(event("a1") + "no event\n"));
    let follower = Follower::with(folder, &["drop/sub", "drop/*/a.ndjson"]);
    until("the event", || count(folder) == "1");
    drop(follower);
    assert_eq!(read(folder), "2");
}

#[test]
fn one_file_that_cannot_be_read_does_not_make_a_commit_of_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir(folder.join("drop")).unwrap();
    for number in 0..64 {
        put(folder, &format!("{number:02}.ndjson"), &event(&format!("k{number}")));
    }
    put(folder, "63-bad.parquet", "no Parquet");
    let _follower = Follower::of(folder);
    until("all events", || count(folder) == "64");
    let log = meterhouse(folder, &["log", "-o", "csv"]);
    let commits = String::from_utf8(log.stdout).unwrap().matches(",write,").count();
    assert!(commits <= 8, "{commits} commits");
}

#[test]
fn wrong_flags_end_it_and_so_does_whoever_stops_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir(folder.join("drop")).unwrap();
    for (flags, code) in [
        (["ingest", "--follow", "drop", "--mapping", "none.yaml"].as_slice(), 1),
        (&["ingest", "--follow", "-"], 2),
        (&["ingest", "drop", "--every", "1"], 2),
    ] {
        assert_eq!(meterhouse(folder, flags).status.code(), Some(code), "{flags:?}");
    }
    for (signal, events) in [("INT", "0"), ("TERM", "20000")] {
        let mut follower = Follower::of(folder);
        // In the second round it is stopped while it reads.
        let text: String = (0..20_000).map(|number| event(&format!("k{number}"))).collect();
        if events == "20000" {
            put(folder, "many.ndjson", &text);
        }
        std::thread::sleep(Duration::from_millis(1_500));
        let process = follower.0.id().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &process]).status().unwrap();
        assert!(sent.success());
        let started = Instant::now();
        let ended = loop {
            if let Some(ended) = follower.0.try_wait().unwrap() {
                break ended;
            }
            assert!(started.elapsed() < Duration::from_secs(20), "{signal} is not heard");
            std::thread::sleep(Duration::from_millis(50));
        };
        assert_eq!(ended.code(), Some(0), "{signal}");
    }
    let _follower = Follower::of(folder);
    until("what was stopped in the middle", || count(folder) == "20000");
}
