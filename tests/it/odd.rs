//! Malformed and strange input: refused with a reason or kept as it is, never a panic.
//!
//! The texts of the JSON test suite, each as a file and as the value of a property, and the big
//! list of naughty strings in every place where a sender may write one; a few Parquet files that
//! readers stumble over (`data/odd`). `tests/scripts/odd.py` does so with the whole of a larger corpus.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use meterhouse::engine::Limits;
use meterhouse::ingest::input::{self, Input, InputFormat};
use meterhouse::ingest::quarantine::Quarantined;
use meterhouse::ingest::{Counts, IngestSettings, Summary};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::agreement::Place;
use crate::naive::answer::Row;
use crate::naive::event::{Line, Property, Sent};
use crate::naive::meter::{Meter, Question};
use crate::naive::number::{self, Reading};
use crate::naive::spell;
use crate::program::meterhouse;

// ---- The JSON test suite ----

/// One text of the suite.
struct Text {
    /// `y_…` must be taken, `n_…` refused, all others may be either.
    name: String,
    bytes: Vec<u8>,
}

fn json_texts() -> Vec<Text> {
    #[derive(Deserialize)]
    struct Packed {
        name: String,
        hex: String,
    }
    let path = data("json-test-suite.ndjson.gz");
    let mut lines = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap())
        .read_to_string(&mut lines)
        .unwrap();
    let texts = lines.lines().map(|line| {
        let Packed { name, hex } = serde_json::from_str(line).unwrap();
        let byte = |place| u8::from_str_radix(&hex[place..place + 2], 16).unwrap();
        let bytes = (0..hex.len()).step_by(2).map(byte).collect();
        Text { name: name.rsplit('/').next().unwrap().to_owned(), bytes }
    });
    texts.collect()
}

fn data(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/odd").join(name)
}

/// Runs one file through everything but the writing.
fn tried(place: &Place, name: &str, bytes: &[u8]) -> Result<Summary, String> {
    let path = place.folder().join(name);
    std::fs::write(&path, bytes).unwrap();
    let input = Input::file(name, path, InputFormat::Json);
    let settings = IngestSettings { dry_run: true, threads: 1, ..IngestSettings::default() };
    let summary = place.ingest_inputs(vec![input], &settings).map_err(|error| error.to_string())?;
    let Counts { read, accepted, duplicate, conflict, rejected } = summary.counts;
    assert_eq!(accepted + duplicate + conflict + rejected, read, "{name}: the account");
    Ok(summary)
}

/// What is wrong with a refusal, if it does not say why.
fn unexplained(refused: &[Quarantined]) -> Option<String> {
    let explained = |event: &Quarantined| !event.message.is_empty() && !event.reason.is_empty();
    (refused.is_empty() || !refused.iter().all(explained))
        .then(|| format!("refused without a reason: {refused:?}"))
}

/// Whether a file holds no event: nothing, or an array of nothing. A byte order mark and blanks
/// that JSON does not know are taken for blanks there.
fn holds_nothing(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii();
    let inside = bytes.strip_prefix(b"[").and_then(|bytes| bytes.strip_suffix(b"]"));
    inside.unwrap_or(bytes).trim_ascii().is_empty()
}

#[test]
fn json_texts_as_files_are_no_events_and_say_why() {
    let place = Place::new();
    let mut wrong = Vec::new();
    for Text { name, bytes } in json_texts() {
        let fault = match tried(&place, &name, &bytes) {
            Err(message) => message.is_empty().then(|| "an error without words".to_owned()),
            Ok(summary) if summary.counts.accepted > 0 => Some("taken for an event".to_owned()),
            // No event at all in it, which is no mistake.
            Ok(summary) if summary.counts.read == 0 && holds_nothing(&bytes) => None,
            Ok(summary) => unexplained(&summary.examples),
        };
        wrong.extend(fault.map(|fault| format!("{name}: {fault}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn json_texts_as_values_are_kept_exactly_or_refused_by_name() {
    let place = Place::new();
    let mut wrong = Vec::new();
    let mut kept = Vec::new();
    for text in json_texts() {
        let before = format!(
            r#"{{"event_name":"e","idempotency_key":"{}","customer_id":"c","properties":{{"v":"#,
            text.name
        );
        let line = [before.as_bytes(), &text.bytes, b"}}\n"].concat();
        let summary = tried(&place, &text.name, &line).unwrap();
        let taken = summary.counts.accepted > 0;
        let fault = match text.name.split('_').next() {
            Some("n") if taken => Some("taken".to_owned()),
            _ if taken => None,
            _ => unexplained(&summary.examples),
        };
        wrong.extend(fault.map(|fault| format!("{}: {fault}", text.name)));
        if taken {
            kept.push((text, line));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let valid = kept.iter().filter(|(text, _)| text.name.starts_with("y_")).count();
    assert!(valid > 80, "only {valid} of the valid texts are kept");
    assert_values(&place, &kept);
}

/// Ingests the lines, asks for what they brought, and compares with what they say.
fn assert_values(place: &Place, kept: &[(Text, Vec<u8>)]) {
    let path = place.folder().join("kept.ndjson");
    let settings = IngestSettings::default();
    for (_, line) in kept {
        std::fs::write(&path, line).unwrap();
        let input = Input::file("kept", &path, InputFormat::Json);
        let summary = place.ingest_inputs(vec![input], &settings).unwrap();
        assert_eq!(summary.counts.accepted, 1, "{}", String::from_utf8_lossy(line));
    }
    let want: BTreeMap<String, BTreeMap<String, String>> = kept
        .iter()
        .map(|(text, _)| {
            let mut values = BTreeMap::new();
            flatten("v", serde_json::from_slice(&text.bytes).unwrap(), &mut values);
            (text.name.clone(), values)
        })
        .collect();
    let names: std::collections::BTreeSet<&String> =
        want.values().flat_map(BTreeMap::keys).collect();
    let mut groups = vec!["idempotency_key".to_owned()];
    groups.extend(names.iter().map(|name| (*name).clone()));
    let rows = asked(place, groups);
    assert_eq!(rows.len(), want.len());
    for row in rows {
        let key = row[0].clone().unwrap();
        let present = names.iter().zip(&row[1..]);
        let have: BTreeMap<String, String> =
            present.filter_map(|(name, text)| Some(((*name).clone(), text.clone()?))).collect();
        assert_eq!(have, want[&key], "{key}");
    }
}

/// What a text means as properties: names and texts.
fn flatten(name: &str, raw: &RawValue, values: &mut BTreeMap<String, String>) {
    let text = raw.get();
    match text.as_bytes()[0] {
        b'n' => {}
        b'{' => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).unwrap();
            for (member, raw) in members {
                flatten(&format!("{name}.{member}"), raw, values);
            }
        }
        b'"' => {
            values.insert(name.to_owned(), serde_json::from_str(text).unwrap());
        }
        b't' | b'f' | b'[' => {
            values.insert(name.to_owned(), text.to_owned());
        }
        _ => {
            let Reading::Number(units) = number::read(text) else { panic!("{text} was taken") };
            values.insert(name.to_owned(), number::text(&units, number::DIGITS));
        }
    }
}

/// The events, counted by `groups`.
fn asked(place: &Place, groups: Vec<String>) -> Vec<Row> {
    let question = Question { groups, ..Question::total("m") };
    place.ask(&[Meter::count("m")], &question, Limits::default()).unwrap()
}

// ---- Naughty strings ----

/// The strings, each once.
fn naughty() -> Vec<String> {
    let strings = std::fs::read_to_string(data("blns.json")).unwrap();
    let mut strings: Vec<String> = serde_json::from_str(&strings).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    strings.retain(|string| seen.insert(string.clone()));
    assert!(strings.len() > 500, "{} strings", strings.len());
    strings
}

/// Which strings come back unchanged from where `event` puts them; all others must be refused.
fn assert_kept(groups: &[&str], refused: fn(&str) -> bool, event: fn(usize, &str) -> Sent) {
    let place = Place::new();
    let strings = naughty();
    let lines: Vec<String> = strings
        .iter()
        .enumerate()
        .map(|(number, string)| spell::line(&Line::Event(event(number, string))) + "\n")
        .collect();
    let path = place.folder().join("naughty.ndjson");
    std::fs::write(&path, lines.concat()).unwrap();
    let input = Input::file("naughty", path, InputFormat::Json);
    let summary = place.ingest_inputs(vec![input], &IngestSettings::default()).unwrap();
    let want_refused = strings.iter().filter(|string| refused(string)).count();
    let Counts { rejected, duplicate, conflict, .. } = summary.counts;
    assert_eq!((rejected, duplicate, conflict), (u64::try_from(want_refused).unwrap(), 0, 0));
    if want_refused > 0 {
        assert_eq!(unexplained(&summary.examples), None);
    }
    let groups = groups.iter().map(|name| (*name).to_owned()).collect();
    let mut have: Vec<(String, String)> = asked(&place, groups)
        .into_iter()
        .map(|row| (row[0].clone().unwrap(), row[1].clone().unwrap()))
        .collect();
    have.sort();
    let mut want: Vec<(String, String)> = strings
        .iter()
        .enumerate()
        .filter(|(_, string)| !refused(string))
        .map(|(number, string)| (number.to_string(), string.clone()))
        .collect();
    want.sort();
    assert_eq!(have, want);
}

fn sent(key: String) -> Sent {
    Sent { name: "e".to_owned(), key, customer: Some("c".to_owned()), ..Sent::default() }
}

fn numbered(number: usize) -> Vec<(String, Property)> {
    vec![("number".to_owned(), Property::Number(number.to_string()))]
}

#[test]
fn naughty_strings_are_keys() {
    assert_kept(
        &["number", "idempotency_key"],
        |string| !(1..=255).contains(&string.len()),
        |n, s| Sent { properties: numbered(n), ..sent(s.to_owned()) },
    );
}

#[test]
fn naughty_strings_are_customers() {
    assert_kept(
        &["idempotency_key", "customer_id"],
        |string| !(1..=256).contains(&string.len()),
        |n, s| Sent { customer: Some(s.to_owned()), ..sent(n.to_string()) },
    );
}

#[test]
fn naughty_strings_are_event_names() {
    assert_kept(
        &["idempotency_key", "event_name"],
        |string| !(1..=128).contains(&string.len()),
        |n, s| Sent { name: s.to_owned(), ..sent(n.to_string()) },
    );
}

#[test]
fn naughty_strings_are_values() {
    assert_kept(
        &["idempotency_key", "v"],
        |_| false,
        |n, s| {
            let properties = vec![("v".to_owned(), Property::Text(s.to_owned()))];
            Sent { properties, ..sent(n.to_string()) }
        },
    );
}

#[test]
fn naughty_strings_are_names_of_properties() {
    let place = Place::new();
    let strings = naughty();
    let event = |(number, string): (usize, &String)| {
        let value = Property::Number(number.to_string());
        let properties = vec![(string.clone(), value)];
        spell::line(&Line::Event(Sent { properties, ..sent(number.to_string()) })) + "\n"
    };
    let lines: Vec<String> = strings.iter().enumerate().map(event).collect();
    let path = place.folder().join("naughty.ndjson");
    std::fs::write(&path, lines.concat()).unwrap();
    let input = Input::file("naughty", path, InputFormat::Json);
    let settings = IngestSettings::default();
    let summary = place.ingest_inputs(vec![input], &settings).unwrap();
    assert_eq!(summary.counts.accepted, u64::try_from(strings.len()).unwrap());
    // No question can name a property without a name.
    let named: Vec<(usize, &String)> =
        strings.iter().enumerate().filter(|(_, string)| !string.is_empty()).collect();
    for names in named.chunks(40) {
        let groups = names.iter().map(|(_, name)| (*name).clone()).collect();
        let question = Question { groups, ..Question::total("m") };
        let rows = place.ask(&[Meter::count("m")], &question, Limits::default()).unwrap();
        for (place, (number, name)) in names.iter().enumerate() {
            let values: Vec<&String> = rows.iter().filter_map(|row| row[place].as_ref()).collect();
            assert_eq!(values, [&number.to_string()], "the property {name:?}");
        }
    }
}

#[test]
fn naughty_strings_are_names_of_files() {
    let place = Place::new();
    let folder = place.folder().join("files");
    std::fs::create_dir(&folder).unwrap();
    let mut arguments = Vec::new();
    for (number, string) in naughty().iter().enumerate() {
        let name = format!("{string}.ndjson");
        if name.contains(['/', '\0']) || name.len() > 255 {
            continue;
        }
        let path = folder.join(name);
        std::fs::write(&path, spell::line(&Line::Event(sent(number.to_string())))).unwrap();
        arguments.push(path.to_str().unwrap().to_owned());
    }
    let inputs = futures::executor::block_on(input::expand(&arguments, None, &[])).unwrap();
    let found: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
    assert_eq!(found, arguments);
    let summary = place.ingest_inputs(inputs, &IngestSettings::default()).unwrap();
    assert_eq!(summary.counts.accepted, u64::try_from(arguments.len()).unwrap());
}

// ---- Parquet ----

/// Files of other projects' test suites, as the program reads them: what it says, and the instants.
#[test]
fn odd_parquet_files_are_read_right_or_refused_by_name() {
    let mapped = ["--event-name", "x", "--key", "content", "--allow-missing-customer"];
    for (name, code, says) in [
        ("int96_from_spark", 3, "lies outside the years 0001 to 9999"),
        ("repeated_no_annotation", 1, "the footer tells of 0 rows, its groups of 6"),
        ("large_string_map.brotli", 1, "it has rows of 1024 MiB each, an event has at most 1"),
        ("page-that-contradicts-itself", 1, "row 1: broken Parquet: a page contradicts itself"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = data("parquet").join(format!("{name}.parquet"));
        let path = path.display().to_string();
        let output = meterhouse(folder.path(), &[&["ingest", &path], mapped.as_slice()].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{name}: {said}");
        assert!(said.contains(says) && said.contains(&path), "{name}: {said}");
        assert!(!said.contains("panicked"), "{name}: {said}");
        if code == 3 {
            let question = "SELECT property('a') FROM events WHERE property('a') IS NOT NULL";
            let asked = meterhouse(folder.path(), &["sql", "-q", "-o", "csv", question]);
            let rows = String::from_utf8(asked.stdout).unwrap();
            let mut rows: Vec<&str> = rows.lines().skip(1).collect();
            rows.sort_unstable();
            // As nanoseconds, the last one would have wrapped to the year 1816.
            let want = [
                "2024-01-01T01:00:00",
                "2024-01-01T20:34:56.123456",
                "2024-12-30T23:00:00",
                "9999-12-31T03:00:00",
            ];
            assert_eq!(rows, want);
        }
    }
}
