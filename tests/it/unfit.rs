//! Lakes that cannot be worked with: every command says which file or setting it is and what to do,
//! and changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::program::meterhouse;

const LOG: &str = "lake/default/events/_delta_log";

/// A lake of two versions.
fn lake() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let line = |key: u32| {
        format!(
            r#"{{"event_name":"hit","idempotency_key":"k{key}","customer_id":"c","timestamp":"2026-06-01T00:00:00Z","properties":{{"n":{key}}}}}"#
        )
    };
    for key in 1..=2 {
        fs::write(folder.path().join("events.ndjson"), line(key)).unwrap();
        assert!(meterhouse(folder.path(), &["ingest", "events.ndjson"]).status.success());
    }
    folder
}

/// Every file of the lake but its local state, with its content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.join("lake")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with(".state") {
            } else if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.clone(), fs::read(path).unwrap());
            }
        }
    }
    found
}

fn entry(folder: &Path, version: u64) -> PathBuf {
    folder.join(format!("{LOG}/{version:020}.json"))
}

fn replace(path: &Path, old: &str, new: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(old), "{text}");
    // Whoever writes it anew writes no checksum of ours.
    let text = text.replace(old, new).replace("meterhouseChecksum", "formerChecksum");
    fs::write(path, text).unwrap();
}

/// A data file of the events.
fn data_file(folder: &Path) -> PathBuf {
    let mut data = files(folder).into_keys().filter(|path| {
        path.extension().is_some_and(|extension| extension == "parquet")
            && path.to_str().unwrap().contains("event_date=")
    });
    data.next().unwrap()
}

#[test]
fn what_cannot_be_worked_with_is_named_and_left_as_it_is() {
    type Spoil = fn(&Path);
    let cases: [(&str, Spoil, &[&str]); 6] = [
        (
            "another program's table",
            |folder| {
                fs::remove_dir_all(folder.join("lake/default")).unwrap();
                fs::create_dir_all(folder.join(LOG)).unwrap();
                let actions = [
                    r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}"#,
                    r#"{"metaData":{"id":"x","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"a\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":[],"configuration":{},"createdTime":1}}"#,
                ];
                fs::write(entry(folder, 0), actions.join("\n")).unwrap();
            },
            &["lake/default/events", "meterhouse did not make"],
        ),
        (
            "a table of a newer format",
            |folder| {
                let (old, new) = (r#""meterhouse.format":"1""#, r#""meterhouse.format":"2""#);
                // The first events brought a column, and with it the table's description anew.
                replace(&entry(folder, 1), old, new);
            },
            &["lake/default/events", "format 2", "use a newer one"],
        ),
        (
            "a reader feature that is not known",
            |folder| {
                let old = r#""readerFeatures":[]"#;
                replace(&entry(folder, 0), old, r#""readerFeatures":["deletionVectors2"]"#);
            },
            &["lake/default/events", "deletionVectors2"],
        ),
        (
            "an entry that is cut",
            |folder| {
                let text = fs::read(entry(folder, 1)).unwrap();
                fs::write(entry(folder, 1), &text[..text.len() / 2]).unwrap();
            },
            &["00000000000000000001.json", "damaged"],
        ),
        (
            "an entry that is gone",
            |folder| fs::remove_file(entry(folder, 1)).unwrap(),
            &["lake/default/events", "1"],
        ),
        (
            "something else in its place",
            |folder| {
                fs::remove_dir_all(folder.join("lake/default/events/_delta_log")).unwrap();
            },
            &["lake/default/events", ".parquet"],
        ),
    ];
    for (name, spoil, words) in cases {
        let folder = lake();
        let folder = folder.path();
        spoil(folder);
        let before = files(folder);
        for command in [
            ["ingest", "events.ndjson"].as_slice(),
            &["sql", "SELECT count(*) FROM events"],
            &["compact"],
            &["vacuum"],
            &["stats"],
            &["log"],
        ] {
            let output = meterhouse(folder, command);
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{name}, {command:?}: {said}");
            assert!(output.stdout.is_empty(), "{name}, {command:?}");
            for word in words {
                assert!(said.contains(word), "{name}, {command:?} does not say `{word}`: {said}");
            }
            assert!(files(folder) == before, "{name}: {command:?} changed something");
        }
        let doctor = meterhouse(folder, &["doctor", "-o", "csv"]);
        let said = String::from_utf8(doctor.stdout).unwrap();
        assert_eq!(doctor.status.code(), Some(4), "{name}: {said}");
        assert!(said.contains("lake,bad,"), "{name}: {said}");
        assert!(files(folder) == before, "{name}: doctor changed something");
    }
}

#[test]
fn a_damaged_data_file_is_named_by_the_read_that_touches_it() {
    let folder = lake();
    let folder = folder.path();
    let path = data_file(folder);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes.truncate(middle);
    fs::write(&path, bytes).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    for (command, code) in
        [(["sql", "SELECT sum(n) FROM events"].as_slice(), 1), (&["compact"], 1), (&["verify"], 4)]
    {
        let output = meterhouse(folder, command);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
        assert!(said.contains(name), "{command:?}: {said}");
    }
}

#[test]
fn a_folder_without_rights_is_named() {
    // Whoever may do everything is refused nothing; a file in the way stands for a missing right.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("lake"), "a file").unwrap();
    fs::write(folder.path().join("events.ndjson"), "{}").unwrap();
    for command in [["ingest", "events.ndjson"].as_slice(), &["log"], &["doctor"]] {
        let output = meterhouse(folder.path(), command);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
        assert!(said.contains("lake is a file, and a folder is needed"), "{command:?}: {said}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("lake")).unwrap(), "a file");
}
