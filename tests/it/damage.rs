//! A wrong bit in a data file is told, or changes no number: of events, of rollups, of closed periods.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::program::meterhouse;

const METER: &str =
    "meter: bytes\nevent: e\naggregation: sum\nproperty: bytes\ndimensions: [region]\n";

/// Bytes of the largest files in which a bit is turned, one after the other.
const PLACES: usize = 40;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn done(folder: &Path, args: &[&str]) -> String {
    let output = meterhouse(folder, args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Two months of events, their rollup, and the closed May.
fn lake() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("queries/meters")).unwrap();
    fs::write(folder.path().join("queries/meters/bytes.yaml"), METER).unwrap();
    let line = |n: usize| {
        format!(
            r#"{{"event_name":"e","idempotency_key":"{n}","customer_id":"c{}","timestamp":"2026-0{}-{:02}T{:02}:30:00Z","properties":{{"bytes":{},"region":"r{}"}}}}"#,
            n % 17,
            n % 2 + 4,
            n % 5 + 1,
            n % 24,
            n * n % 9_973,
            n % 3,
        ) + "\n"
    };
    fs::write(folder.path().join("e.ndjson"), (0..4_000).map(line).collect::<String>()).unwrap();
    done(folder.path(), &["ingest", "e.ndjson", "-q"]);
    done(folder.path(), &["rollups", "refresh", "-q"]);
    done(folder.path(), &["periods", "close", "2026-05", "-q"]);
    folder
}

/// The data files below the tables whose names begin so, the largest of each table.
fn data_files(folder: &Path, table: &str) -> Vec<PathBuf> {
    let tables =
        fs::read_dir(folder.join("lake/default")).unwrap().map(|entry| entry.unwrap().path());
    let tables = tables.filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(table))
    });
    let largest = tables.map(|table| {
        let mut all = Vec::new();
        below(&table, &mut all);
        all.into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap()
    });
    largest.collect()
}

fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            below(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "parquet") {
            found.push(path);
        }
    }
}

/// Asks with one bit wrong in place after place of a file.
fn with_wrong_bits(
    folder: &Path,
    file: &Path,
    args: &[&str],
    mut seen: impl FnMut(usize, &Output),
) {
    let sound = fs::read(file).unwrap();
    for place in 0..PLACES {
        // Every part of the file, and the end, where the footer is, more often.
        let at = match place % 4 {
            0 => sound.len() - 1 - place * sound.len() / PLACES / 20,
            _ => place * (sound.len() - 1) / PLACES,
        };
        let mut wrong = sound.clone();
        wrong[at] ^= 1 << (place % 8);
        fs::write(file, &wrong).unwrap();
        seen(at, &meterhouse(folder, args));
    }
    fs::write(file, sound).unwrap();
}

/// Usage by hour; of the months of a file, so that it is read whichever it is.
const USAGE: [&str; 10] = [
    "usage",
    "bytes",
    "--from",
    "2026-04-01",
    "--to",
    "2026-06-01",
    "--window",
    "hour",
    "-o",
    "csv",
];

fn by_events() -> Vec<&'static str> {
    [&USAGE[..], &["--from-events"]].concat()
}

#[test]
fn a_wrong_bit_of_a_rollup_is_told_and_the_events_answer() {
    let folder = lake();
    let want = done(folder.path(), &by_events());
    let states = data_files(folder.path(), "rollup-");
    let mut told = 0;
    with_wrong_bits(folder.path(), &states[0], &USAGE, |at, output| {
        let said = text(&output.stderr);
        assert_eq!(
            (output.status.code(), text(&output.stdout)),
            (Some(0), want.clone()),
            "{at}: {said}"
        );
        assert!(
            said.contains("rollup by hour") || said.contains("as a rollup is damaged"),
            "{said}"
        );
        told += usize::from(said.contains("as a rollup is damaged"));
    });
    assert!(told > PLACES / 3, "{told}");
    let sound = fs::read(&states[0]).unwrap();
    let mut wrong = sound.clone();
    wrong[200] ^= 1;
    fs::write(&states[0], wrong).unwrap();
    let output = meterhouse(folder.path(), &["verify"]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    let cure = "`meterhouse rollups refresh --anew` makes it of the events again";
    assert!(text(&output.stdout).contains(cure), "{}", text(&output.stdout));
    done(folder.path(), &["rollups", "refresh", "--anew", "-q"]);
    let output = meterhouse(folder.path(), &USAGE);
    let said = text(&output.stderr);
    assert_eq!(text(&output.stdout), want);
    assert!(said.contains("rollup by hour") && !said.contains("damaged"), "{said}");
}

#[test]
fn a_rollup_whose_files_or_log_are_gone_is_made_again() {
    let folder = lake();
    let want = done(folder.path(), &by_events());
    let states = data_files(folder.path(), "rollup-");
    fs::remove_file(&states[0]).unwrap();
    let output = meterhouse(folder.path(), &USAGE);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), want.clone()));
    assert!(text(&output.stderr).contains("as a rollup is damaged"), "{}", text(&output.stderr));
    done(folder.path(), &["rollups", "refresh", "--anew", "-q"]);
    assert!(text(&meterhouse(folder.path(), &USAGE).stderr).contains("rollup by hour"));
    // Without its log it is no table any more; the error says what to do.
    let table = states[0].parent().unwrap().parent().unwrap();
    let entry = table.join("_delta_log/00000000000000000000.json");
    fs::write(&entry, "{ no log").unwrap();
    let output = meterhouse(folder.path(), &["rollups", "refresh"]);
    assert_ne!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("delete its folder"), "{}", text(&output.stderr));
    assert_eq!(done(folder.path(), &USAGE), want);
    fs::remove_dir_all(table).unwrap();
    done(folder.path(), &["rollups", "refresh", "-q"]);
    assert!(text(&meterhouse(folder.path(), &USAGE).stderr).contains("rollup by hour"));
}

#[test]
fn a_wrong_bit_of_events_or_of_a_statement_is_an_error() {
    let folder = lake();
    let show = ["periods", "show", "bytes", "2026-05", "-ocsv"];
    let export =
        ["export", "statements", "bytes", "--period", "2026-05", "--out", "s.csv", "--replace"];
    for (table, args) in
        [("events", &by_events()[..]), ("statements", &show[..]), ("statements", &export[..])]
    {
        let want = done(folder.path(), args);
        let exported = fs::read(folder.path().join("s.csv")).ok();
        let files = data_files(folder.path(), table);
        let mut found = 0;
        with_wrong_bits(folder.path(), &files[0], args, |at, output| {
            let said = text(&output.stderr);
            if output.status.code() == Some(0) {
                assert_eq!(text(&output.stdout), want, "{table} {at}: {said}");
                assert_eq!(fs::read(folder.path().join("s.csv")).ok(), exported, "{table} {at}");
                return;
            }
            found += 1;
            assert!(
                !said.contains("panicked") && said.contains(".parquet"),
                "{table} {at}: {said}"
            );
        });
        assert!(found > PLACES / 3, "{table}: {found}");
        assert_eq!(done(folder.path(), args), want);
    }
}
