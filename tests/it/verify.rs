//! `verify` finds every wrong bit, or the bit changes no answer; what is whole it calls whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::program::meterhouse;

fn data(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A lake with refused events, a compacted day and files of several versions.
fn lake() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in 0..3 {
        let line = |n: usize| {
            format!(
                r#"{{"event_name":"hit","idempotency_key":"{file}-{n}","customer_id":"c{}","timestamp":"2026-06-0{}T0{}:00:00Z","properties":{{"n":{n},"t":"x{n}"}}}}"#,
                n % 3,
                n % 2 + 1 + file,
                n % 10
            ) + "\n"
        };
        let text: String = (0..30).map(line).collect();
        fs::write(folder.path().join("e.ndjson"), text + "broken\n").unwrap();
        assert_eq!(meterhouse(folder.path(), &["ingest", "e.ndjson"]).status.code(), Some(3));
    }
    assert_eq!(meterhouse(folder.path(), &["compact"]).status.code(), Some(0));
    folder
}

/// What a set of questions is answered; a question that fails has no answer.
fn answers(folder: &Path) -> Vec<Option<String>> {
    [
        "SELECT * FROM events ORDER BY idempotency_key",
        "SELECT customer_id, sum(n), max(t) FROM events GROUP BY 1 ORDER BY 1",
        "SELECT count(*) FROM events WHERE n > 20",
        "SELECT count(*) FROM events WHERE timestamp < '2026-06-02T05:00:00Z' AND t >= 'x2'",
        "SELECT idempotency_key FROM events WHERE customer_id = 'c1' ORDER BY 1",
    ]
    .map(|question| {
        let output = meterhouse(folder, &["sql", question, "-o", "csv", "-q"]);
        output.status.success().then(|| data(&output))
    })
    .into()
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[test]
fn a_whole_lake_is_whole_and_its_accounts_add_up() {
    let folder = lake();
    let output = meterhouse(folder.path(), &["verify"]);
    assert_eq!((output.status.code(), data(&output).as_str()), (Some(0), ""), "{}", said(&output));
    let want = "90 events (90 of them looked up in the key index); 93 read = 90 accepted + 0 \
                duplicate + 0 conflict + 3 rejected\nall as written";
    assert!(said(&output).contains(want), "{}", said(&output));
    fs::remove_dir_all(folder.path().join("lake/.state")).unwrap();
    let output = meterhouse(folder.path(), &["verify"]);
    assert!(said(&output).contains("no key index here"), "{}", said(&output));
    assert!(!folder.path().join("lake/.state").exists());
}

#[test]
fn what_was_not_compared_is_not_told_of() {
    let folder = lake();
    let mut all = Vec::new();
    files(&folder.path().join("lake/default/events/event_date=2026-06-04"), &mut all);
    fs::remove_file(&all[0]).unwrap();
    let output = meterhouse(folder.path(), &["verify"]);
    let want = "90 events; identities, accounts and key index were not compared, as files are \
                damaged\n1 mismatch";
    assert!(said(&output).contains(want), "{}", said(&output));
}

#[test]
fn a_table_of_accounts_that_was_there_and_is_gone_is_named() {
    let folder = lake();
    let batches = folder.path().join("lake/default/batches");
    fs::remove_dir_all(&batches).unwrap();
    let output = meterhouse(folder.path(), &["verify"]);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    let want = "lake/default/batches: is gone, and with it the accounts of batches that stored \
                nothing; the log still has 3 of the others, which the next ingest writes down again";
    assert!(data(&output).contains(want), "{}", data(&output));
    // What the log knows adds up all the same, and is written down again.
    let sums = "93 read = 90 accepted + 0 duplicate + 0 conflict + 3 rejected; known from the log \
                alone until the next ingest: 3 batches\n1 mismatch";
    assert!(said(&output).contains(sums), "{}", said(&output));
    assert_eq!(meterhouse(folder.path(), &["ingest", "e.ndjson"]).status.code(), Some(3));
    let output = meterhouse(folder.path(), &["verify"]);
    assert_eq!(output.status.code(), Some(0), "{}", data(&output));
}

#[test]
fn a_lake_without_its_events_is_none_that_is_not_there_yet() {
    let folder = lake();
    let doctor = |folder: &Path| meterhouse(folder, &["doctor", "-o", "csv"]);
    fs::remove_dir_all(folder.path().join("lake/default/events")).unwrap();
    let output = doctor(folder.path());
    assert_eq!(output.status.code(), Some(4));
    let want = "has the table `quarantine` and the table `batches` but no table `events`: put that";
    assert!(data(&output).contains(want), "{}", data(&output));
    // Nor is it for whoever asks, or proves it.
    let output = meterhouse(folder.path(), &["sql", "SELECT 1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains(want), "{}", said(&output));
    let output = meterhouse(folder.path(), &["verify"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(data(&output).contains(want), "{}", data(&output));
    let empty = tempfile::tempdir().unwrap();
    let output = doctor(empty.path());
    assert_eq!(output.status.code(), Some(0), "{}", data(&output));
    assert!(data(&output).contains("none is there yet (namespace default)"), "{}", data(&output));
}

#[test]
fn what_is_missing_doubled_or_unaccounted_is_named() {
    for (name, spoil, want) in [
        (
            "a file gone",
            (|lake: &Path| {
                let mut all = Vec::new();
                files(&lake.join("events/event_date=2026-06-04"), &mut all);
                fs::remove_file(&all[0]).unwrap();
            }) as fn(&Path),
            "event_date=2026-06-04",
        ),
        (
            "no accounts",
            |lake: &Path| fs::remove_dir_all(lake.join("batches")).unwrap(),
            "has 90 events, the accounts say",
        ),
        (
            "no quarantine",
            |lake: &Path| fs::remove_dir_all(lake.join("quarantine")).unwrap(),
            "holds none of the events that were rejected",
        ),
        (
            "each event of a file once more",
            |lake: &Path| {
                let mut again = Command::new(env!("CARGO_BIN_EXE_meterhouse"));
                again.current_dir(lake.parent().unwrap().parent().unwrap());
                again.env("METERHOUSE_TEST_NO_DEDUPLICATION", "1").args(["ingest", "e.ndjson"]);
                assert_eq!(again.output().unwrap().status.code(), Some(3));
            },
            "30 identities have more than one event",
        ),
        (
            "an index that lost its keys",
            |lake: &Path| {
                // One that was made of an empty lake, and says that it stands at the newest version.
                let folder = lake.parent().unwrap().parent().unwrap();
                let keys = lake.parent().unwrap().join(".state/default/keys");
                let mut runs = Vec::new();
                files(&keys, &mut runs);
                let run = runs.iter().max_by_key(|run| run.metadata().unwrap().len()).unwrap();
                fs::remove_file(run).unwrap();
                assert!(folder.join("e.ndjson").exists());
            },
            "keys",
        ),
    ] {
        let folder = lake();
        // Without the commits' own notes nothing stands in for the accounts.
        for version in 1..=3 {
            let entry = format!("lake/default/events/_delta_log/{version:020}.json");
            let path = folder.path().join(entry);
            let text = fs::read_to_string(&path).unwrap();
            fs::write(
                &path,
                text.replace("\"batch\":", "\"butch\":")
                    .replace("meterhouseChecksum", "noChecksum"),
            )
            .unwrap();
        }
        spoil(&folder.path().join("lake/default"));
        let output = meterhouse(folder.path(), &["verify"]);
        assert_eq!(output.status.code(), Some(4), "{name}: {}", said(&output));
        assert!(data(&output).contains(want), "{name}: {}", data(&output));
    }
}

/// A correction has no account that would miss it.
#[test]
fn a_pinned_version_that_the_log_lost_is_named() {
    let folder = lake();
    let amend =
        ["events", "amend", "--where", "customer_id = 'c1'", "--set", "n=1", "--reason", "r"];
    let amended = meterhouse(folder.path(), &amend);
    assert_eq!(amended.status.code(), Some(0), "{}", said(&amended));
    let log = folder.path().join("lake/default/events/_delta_log");
    let mut entries = Vec::new();
    files(&log, &mut entries);
    let entries =
        entries.into_iter().filter(|entry| entry.extension().is_some_and(|e| e == "json"));
    let newest = entries.max().unwrap();
    let version: u64 = newest.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let pinned = meterhouse(folder.path(), &["pin", &version.to_string()]);
    assert_eq!(pinned.status.code(), Some(0), "{}", said(&pinned));
    assert_eq!(meterhouse(folder.path(), &["verify"]).status.code(), Some(0));
    fs::remove_file(newest).unwrap();
    let output = meterhouse(folder.path(), &["verify"]);
    let want = format!("version {version} is pinned and the log ends with {}", version - 1);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(data(&output).contains(&want), "{}", data(&output));
}

/// Bits that are flipped, one after the other; more with `METERHOUSE_TEST_FLIPS`.
#[test]
fn one_wrong_bit_is_found_or_changes_no_answer() {
    let flips = std::env::var("METERHOUSE_TEST_FLIPS").map_or(48, |text| text.parse().unwrap());
    let (sound, work) = (lake(), tempfile::tempdir().unwrap());
    let want = answers(sound.path());
    assert!(want.iter().all(Option::is_some), "{want:?}");
    let mut all = Vec::new();
    files(&sound.path().join("lake"), &mut all);
    all.retain(|path| path.metadata().unwrap().len() > 0 && !path.ends_with("lock"));
    all.sort();
    let (mut random, mut found) = (88_172_645_463_325_252_u64, 0);
    for flip in 0..flips {
        // Marsaglia's xorshift: the same places in every run.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let folder = work.path().join(flip.to_string());
        let mut copy = Command::new("cp");
        assert!(copy.arg("-r").arg(sound.path()).arg(&folder).status().unwrap().success());
        let place = all[flip % all.len()].strip_prefix(sound.path()).unwrap();
        let mut bytes = fs::read(folder.join(place)).unwrap();
        let bit = usize::try_from(random % (bytes.len() as u64 * 8)).unwrap();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(folder.join(place), &bytes).unwrap();
        let output = meterhouse(&folder, &["verify"]);
        let whole = output.status.code() == Some(0);
        let data_file = place.extension().is_some_and(|ending| ending == "parquet");
        let place = format!("bit {bit} of {}", place.display());
        if data_file {
            assert!(!whole, "{place}: {}", said(&output));
            found += 1;
        } else if whole {
            assert_eq!(answers(&folder), want, "{place}: {}", said(&output));
        }
        // Whoever does not verify is told by the question itself.
        for (answer, want) in answers(&folder).into_iter().zip(&want) {
            assert!(answer.is_none() || answer == *want, "{place}: {answer:?}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
    // Of data files, which some of them have to be, every bit counts.
    assert!(found > 0);
}
