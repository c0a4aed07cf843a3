//! The program on an object store: a server that answers as S3 does, on the loopback.
//!
//! The server is that of the Python package `moto`, which is installed by name into a folder of the
//! build the first time; with `METERHOUSE_TEST_MOTO=/path/to/moto_server` another one is taken.
//! Where there is no Python these tests say so and pass; `METERHOUSE_TEST_S3=required` forbids that,
//! as in CI.

use std::ffi::OsString;
use std::fmt::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use meterhouse::lake::location::{Location, Namespace};
use meterhouse::lake::staged::ColumnStatistics;
use meterhouse::lake::tables::Lake;
use meterhouse::lake::writer::EncodedFile;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};

use super::storm::proxy::Proxy;

const MOTO: &str = "moto[server]==5.2.5";

/// A server with one bucket, `lakes`, for as long as this lives.
struct Store {
    server: Child,
    address: String,
    folder: tempfile::TempDir,
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

/// The server's program; `None` where there is no Python to install it with.
fn moto() -> Option<PathBuf> {
    static MOTO_SERVER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = MOTO_SERVER.get_or_init(|| {
        if let Some(given) = std::env::var_os("METERHOUSE_TEST_MOTO") {
            return Some(given.into());
        }
        let python = |arguments: &[OsString]| {
            let ran = Command::new("python3").args(arguments).stdout(Stdio::null()).output();
            ran.is_ok_and(|ran| ran.status.success())
        };
        let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moto");
        let server = venv.join("bin/moto_server");
        if !server.exists() {
            let made = python(&["-m".into(), "venv".into(), venv.clone().into()]);
            let pip = Command::new(venv.join("bin/pip")).args(["install", "-q", MOTO]).output();
            if !made || !pip.is_ok_and(|pip| pip.status.success()) {
                // Half an installation must not be taken for a whole one.
                drop(std::fs::remove_dir_all(&venv));
                return None;
            }
        }
        Some(server)
    });
    let required = std::env::var("METERHOUSE_TEST_S3").is_ok_and(|text| text == "required");
    assert!(found.is_some() || !required, "{MOTO} could not be installed with python3");
    found.clone()
}

impl Store {
    fn start() -> Option<Self> {
        let Some(server) = moto() else {
            eprintln!("skipped: no python3 to install {MOTO} with");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Command::new(server)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address = format!("127.0.0.1:{port}");
        let folder = tempfile::tempdir().unwrap();
        let store = Self { server, address, folder };
        let started = Instant::now();
        while TcpStream::connect(&store.address).is_err() {
            assert!(started.elapsed() < Duration::from_secs(60), "the server does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        store.make_bucket("lakes");
        Some(store)
    }

    /// Makes a bucket by the plain request that an S3 client would send.
    fn make_bucket(&self, name: &str) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let request = format!(
            "PUT /{name} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.address
        );
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let answer = std::io::read_to_string(stream).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    fn settings(&self) -> Vec<(String, String)> {
        [
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL", &format!("http://{}", self.address)),
            ("AWS_ALLOW_HTTP", "true"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// A run of the program with a state of its own, not started yet.
    fn command(&self, state: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meterhouse"));
        command
            .current_dir(self.folder.path())
            .envs(self.settings())
            .env_remove("METERHOUSE_METERS")
            .env("METERHOUSE_LAKE", "s3://lakes/one")
            .env("METERHOUSE_STATE", self.folder.path().join(state))
            .env("METERHOUSE_ACTOR", "tester")
            .args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command("state", arguments).output().unwrap()
    }

    /// Standard output of a run that must go well.
    fn answer(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Writes a file of events with these keys into the folder; gives its path.
    fn events(&self, name: &str, keys: std::ops::Range<u32>) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, lines(keys)).unwrap();
        path.display().to_string()
    }

    async fn put(&self, place: &str, content: &[u8]) {
        let location = Location::parse_with("s3://lakes", &self.settings()).unwrap();
        let content = Bytes::copy_from_slice(content);
        location.store.put(&place.into(), content.into()).await.unwrap();
    }
}

fn lines(keys: std::ops::Range<u32>) -> String {
    keys.fold(String::new(), |mut text, key| {
        let (customer, day) = (key % 7, 1 + key % 9);
        writeln!(
            text,
            r#"{{"event_name":"hit","idempotency_key":"k{key}","customer_id":"c{customer}","timestamp":"2026-06-0{day}T10:00:00Z","properties":{{"n":{key}}}}}"#
        )
        .unwrap();
        text
    })
}

const TOTALS: &str = "SELECT count(*), count(DISTINCT idempotency_key), sum(n) FROM events";

/// What [`TOTALS`] answers of events with the keys below `keys`.
fn totals(keys: u64) -> String {
    format!("{keys},{keys},{}", keys * (keys - 1) / 2)
}

fn last_line(text: &str) -> &str {
    text.trim_end().lines().last().unwrap_or_default()
}

#[test]
fn a_lake_on_an_object_store_does_all_that_a_local_one_does() {
    let Some(store) = Store::start() else { return };
    let asked = |arguments: &[&str]| {
        let answer = store.answer(&[&["sql", TOTALS, "-o", "csv"], arguments].concat());
        last_line(&answer).to_owned()
    };
    for round in 0..3 {
        let file = store.events("events.ndjson", round * 400..round * 400 + 500);
        store.answer(&["ingest", &file]);
    }
    assert_eq!(asked(&[]), totals(1_300));
    let again = store.events("events.ndjson", 0..1_300);
    store.answer(&["ingest", &again]);
    assert_eq!(asked(&[]), totals(1_300));
    store.answer(&["pin", "1"]);
    store.answer(&["compact"]);
    assert_eq!(asked(&[]), totals(1_300));
    assert_eq!(asked(&["--at", "1"]), totals(500));
    store.answer(&["vacuum"]);
    store.answer(&["verify"]);
    store.answer(&["index", "rebuild"]);
    store.answer(&["verify"]);
    let log = store.answer(&["log", "-o", "csv"]);
    assert!(log.lines().any(|line| line.contains(",tester,")), "{log}");
    let doctor = store.answer(&["doctor", "-o", "csv"]);
    assert!(doctor.contains("conditional put,ok,"), "{doctor}");
    // Without the local state, as on another machine, an event still counts once.
    let other = store.command("other", &["ingest", &again]).output().unwrap();
    assert!(other.status.success());
    assert_eq!(asked(&[]), totals(1_300));
}

#[test]
fn two_processes_write_to_one_lake_on_an_object_store() {
    let Some(store) = Store::start() else { return };
    let file = store.events("shared.ndjson", 0..3_000);
    store.answer(&["ingest", &store.events("first.ndjson", 0..1)]);
    let writers: Vec<Child> = ["one", "two", "three"]
        .map(|state| {
            let mut command = store.command(state, &["ingest", &file, "--commit-events", "500"]);
            command.stderr(Stdio::piped()).spawn().unwrap()
        })
        .into();
    for writer in writers {
        let ended = writer.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    let answer = store.answer(&["sql", TOTALS, "-o", "csv"]);
    assert_eq!(last_line(&answer), totals(3_000));
    store.answer(&["verify"]);
}

#[test]
fn inputs_are_objects_folders_and_globs_of_an_object_store() {
    let Some(store) = Store::start() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let parquet = std::fs::read(parquet(&store)).unwrap();
    runtime.block_on(async {
        store.put("in/day=1/a.ndjson", lines(0..10).as_bytes()).await;
        store.put("in/day=2/b%20c#?.ndjson", lines(10..20).as_bytes()).await;
        store.put("in/day=2/readme.txt", b"no events").await;
        store.put("in/day=2/.hidden.ndjson", b"no events").await;
        store.put("in/p.parquet", &parquet).await;
        store.make_bucket("inputs");
        let inputs = Location::parse_with("s3://inputs", &store.settings()).unwrap();
        inputs.store.put(&"a.ndjson".into(), lines(50..53).into()).await.unwrap();
    });
    for (argument, accepted) in [
        ("s3://lakes/in/day=1/a.ndjson", 10),
        ("s3://lakes/in/day=*/*.ndjson", 10),
        ("s3://lakes/in/", 5),
        ("s3://lakes/in", 0),
        ("s3://inputs", 3),
        ("s3://inputs/", 0),
    ] {
        let output = store.run(&["ingest", argument]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{argument}: {told}");
        assert!(told.contains(&format!(" {accepted} accepted")), "{argument}: {told}");
    }
    for (argument, why) in [
        ("s3://lakes/nowhere/", "no such object, and no event file below it"),
        ("s3://lakes/in/*.csv", "the glob matches no object"),
        ("s3://nowhere/in/", "NoSuchBucket"),
        ("ftp://lakes/in/", "no place that is known"),
    ] {
        let output = store.run(&["ingest", argument]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{argument}: {told}");
        assert!(told.contains(why) && told.contains("://"), "{argument}: {told}");
    }
}

/// A Parquet file of five events that no other input has.
fn parquet(store: &Store) -> PathBuf {
    let sql = "SELECT event_name, 'p' || idempotency_key AS idempotency_key, customer_id, \
               timestamp FROM events ORDER BY n LIMIT 5";
    store.answer(&["--lake", "s3://lakes/other", "ingest", &store.events("p.ndjson", 0..5)]);
    let asked = store.run(&["--lake", "s3://lakes/other", "sql", sql, "-o", "parquet"]);
    let path = store.folder.path().join("p.parquet");
    std::fs::write(&path, asked.stdout).unwrap();
    path
}

#[test]
fn a_wrong_bucket_and_a_silent_store_are_told_and_nothing_is_written() {
    let Some(store) = Store::start() else { return };
    let file = store.events("events.ndjson", 0..1);
    let wrong = store.run(&["--lake", "s3://nowhere/lake", "ingest", &file]);
    let told = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert_eq!(wrong.status.code(), Some(1));
    assert!(told.contains("NoSuchBucket") && told.contains("s3://nowhere/lake"), "{told}");
    assert!(!told.contains("<?xml"), "{told}");
    let mut silent = store.command("state", &["log"]);
    // A port that nobody listens on.
    let silent = silent.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9").output().unwrap();
    let told = String::from_utf8_lossy(&silent.stderr).into_owned();
    assert_eq!(silent.status.code(), Some(1));
    assert!(told.contains("check the network and the store's address"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_many_parts_comes_back_as_it_was_and_a_name_is_given_once() {
    let Some(store) = Store::start() else { return };
    let location = Location::parse_with("s3://lakes/large", &store.settings()).unwrap();
    let lake = Lake::open_or_create(&location, &Namespace::default()).await.unwrap();
    let bytes: Vec<u8> =
        (0..20_000_000_u32).map(|n| n.to_le_bytes()[usize::from(n % 3 == 0)]).collect();
    let file = EncodedFile {
        bytes: bytes.clone().into(),
        rows: 1,
        partition: Some(0),
        stats: ColumnStatistics::default(),
    };
    let staged = lake.events.stage(file).await.unwrap();
    let place = lake.events.object_path(&staged.path).unwrap();
    let read = location.store.get(&place).await.unwrap().bytes().await.unwrap();
    assert!(read == bytes, "{} of {} bytes", read.len(), bytes.len());
    let create = || location.store.put_opts(&place, "x".into(), PutMode::Create.into());
    let twice = create().await.unwrap_err();
    assert!(matches!(twice, object_store::Error::AlreadyExists { .. }), "{twice}");
}

#[test]
fn new_objects_are_followed_each_once() {
    let Some(store) = Store::start() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let follow = || {
        let arguments = ["ingest", "--follow", "s3://lakes/drop/", "--every", "1"];
        store.command("state", &arguments).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut follower = follow();
    for round in 0..3_u32 {
        let place = format!("drop/{round}.ndjson");
        runtime.block_on(store.put(&place, lines(round * 10..round * 10 + 10).as_bytes()));
        until(&store, u64::from(round) * 10 + 10);
        // Without a word, as a machine dies.
        follower.kill().unwrap();
        follower.wait().unwrap();
        follower = follow();
    }
    std::thread::sleep(Duration::from_secs(2));
    follower.kill().unwrap();
    follower.wait().unwrap();
    let log = store.answer(&["log", "-o", "csv"]);
    let writes = log.lines().filter(|line| line.contains("write")).count();
    assert_eq!(writes, 3, "{log}");
    assert_eq!(read(&store), 30);
}

/// Waits until the lake holds so many events.
fn until(store: &Store, events: u64) {
    let started = Instant::now();
    loop {
        let asked = store.run(&["sql", "SELECT count(*) FROM events", "-o", "csv"]);
        if last_line(&String::from_utf8_lossy(&asked.stdout)) == events.to_string() {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{events} events did not come");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// How many events were read, by `verify`'s account: what comes twice is read twice.
fn read(store: &Store) -> u64 {
    let output = store.run(&["verify"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let read = told.split("; ").find_map(|part| part.split_once(" read = "));
    read.unwrap().0.replace(',', "").parse().unwrap()
}

#[test]
fn a_store_that_fails_a_tenth_of_all_requests_loses_and_doubles_nothing() {
    let Some(store) = Store::start() else { return };
    let proxy = Proxy::before(&store.address, 7, 100);
    let address = format!("http://{}", proxy.address);
    let flaky = |state: &str, arguments: &[&str]| {
        // Its client tries again by itself; what that does not mend is run again, as one would.
        for _ in 0..10 {
            let mut command = store.command(state, arguments);
            let output = command.env("AWS_ENDPOINT_URL", &address).output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            match output.status.code() {
                Some(0) => return,
                Some(1) => assert!(!told.contains("damaged"), "{arguments:?}: {told}"),
                code => panic!("{arguments:?} ended with {code:?}: {told}"),
            }
        }
        panic!("{arguments:?} never ended well");
    };
    let first = store.events("first.ndjson", 0..600);
    let second = store.events("second.ndjson", 300..900);
    std::thread::scope(|scope| {
        scope.spawn(|| flaky("one", &["ingest", &first, "--commit-events", "100"]));
        scope.spawn(|| flaky("two", &["ingest", &second, "--commit-events", "100"]));
    });
    for command in ["compact", "vacuum", "verify", "stats"] {
        flaky("one", &[command]);
    }
    flaky("three", &["ingest", &first]);
    assert!(proxy.failed() > 20, "only {} requests failed", proxy.failed());
    let answer = store.answer(&["sql", TOTALS, "-o", "csv"]);
    assert_eq!(last_line(&answer), totals(900));
    store.answer(&["verify"]);
}

#[test]
fn missing_rights_are_told_with_what_they_would_have_to_be() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { continue };
            let page = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
            let length = page.len();
            let answer = format!(
                "HTTP/1.1 403 Forbidden\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
            );
            // What was asked does not matter, but is read, so that the answer is.
            let _ = std::io::Read::read(&mut client, &mut [0; 65_536]);
            let _ = std::io::Write::write_all(&mut client, answer.as_bytes());
        }
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("events.ndjson"), lines(0..1)).unwrap();
    for (command, code) in [
        (["ingest", "events.ndjson"].as_slice(), 1),
        (&["log"], 1),
        (&["doctor"], 4),
        (&["ingest", "s3://lakes/in/"], 1),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_meterhouse"))
            .current_dir(folder.path())
            .args(["--lake", "s3://lakes/one", "--state", "state"])
            .args(command)
            .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
            .envs([("AWS_ENDPOINT_URL", address.as_str()), ("AWS_ALLOW_HTTP", "true")])
            .output()
            .unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
        assert!(said.contains("; whoever runs this needs the right to list"), "{said}");
    }
}

#[test]
fn exports_to_a_bucket_are_files_and_records_like_those_on_the_disk() {
    let Some(store) = Store::start() else { return };
    store.make_bucket("reports");
    let meters = store.folder.path().join("queries/meters");
    std::fs::create_dir_all(&meters).unwrap();
    let meter = "meter: hits\nevent: hit\naggregation: sum\nproperty: n\n";
    std::fs::write(meters.join("hits.yaml"), meter).unwrap();
    store.answer(&["ingest", &store.events("events.ndjson", 0..70)]);
    store.answer(&["periods", "close", "2026-06", "--grace", "0h"]);
    let location = Location::parse_with("s3://reports", &store.settings()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let got = |place: &str| {
        let place = object_store::path::Path::from(place);
        runtime.block_on(async { location.store.get(&place).await.unwrap().bytes().await.unwrap() })
    };
    let told = |arguments: &[&str]| {
        let output = store.run(arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {told}");
        told
    };
    let folder = ["export", "statements", "--out", "s3://reports/all", "--format", "csv"];
    assert!(told(&folder).starts_with("exported s3://reports/all/meter=hits/period=2026-06/"));
    let here = ["export", "statements", "--out", "here", "--format", "csv"];
    told(&here);
    let on_disk = store.folder.path().join("here/meter=hits/period=2026-06/statement.csv");
    let there = got("all/meter=hits/period=2026-06/statement.csv");
    assert_eq!(there, std::fs::read(on_disk).unwrap());
    let record: serde_json::Value =
        serde_json::from_slice(&got("all/meter=hits/period=2026-06/_statement.csv.json")).unwrap();
    assert_eq!(record["rows"], 7);
    assert!(told(&folder).starts_with("unchanged "));
    // What is not ours is not touched, whatever its name.
    let foreign = "usage.csv".into();
    runtime.block_on(async { location.store.put(&foreign, "mine".into()).await.unwrap() });
    let usage = ["export", "usage", "hits", "--out", "s3://reports/usage.csv"];
    let output = store.run(&usage);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("s3://reports/usage.csv is there and no export has written it"),
        "{said}"
    );
    let output = store.run(&["export", "usage", "hits", "--out", "s3://lakes/one/usage.csv"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("lies in the lake"), "{said}");
}
