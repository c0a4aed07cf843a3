//! The parsers of inputs and definitions under texts that nobody would write.
//!
//! Inputs are mutated at random, from small real ones; one whose outcome is new is mutated further.
//! Demanded is that nothing panics, that no record is lost between reading and its outcome, and that
//! no input takes long. A failing input is kept and its path printed.
//!
//! `cargo test` tries a few thousand of each; with `METERHOUSE_FUZZ_SECONDS=600 cargo test --release
//! --lib fuzz -- --nocapture` each parser gets ten minutes. `METERHOUSE_FUZZ_SEED` gives others.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};

use super::decode::Decoder;
use super::dialect::Dialect;
use super::input::{Input, InputFormat};
use super::mapping::Mapping;
use super::source::Pieces;
use crate::dedupe::Hasher;
use crate::event::EventRules;
use crate::schema::{ColumnNames, PROPERTY_COLUMNS_DEFAULT, events_schema};
use crate::time::{Timestamp, Window, parse_bound, parse_period, parse_zone};

const TRIES: u64 = 1_000;
/// Beyond this an input is said to take too long, where time is what is given.
const SLOW: Duration = Duration::from_secs(10);
/// Outcomes that are mutated further, at most.
const CORPUS_MAX: usize = 4_000;
const TEXT_MAX: usize = 1 << 20;

/// What stands in formats that a parser may trip over.
const WORDS: [&[u8]; 40] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b",",
    b":",
    b"\n",
    b"\r\n",
    b"\0",
    b"null",
    b"true",
    b"-0",
    b"1e400",
    b"9223372036854775808",
    b"-170141183460469231731687303715884105728",
    b"0.000000000000000001",
    b"NaN",
    b"2026-02-30T00:00:00Z",
    b"9999-12-31T23:59:60+23:59",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xc3\x28",
    b"\xf0\x9f\x98\x80",
    b"PAR1",
    b"ARROW1",
    b"&a ",
    b"*a ",
    b"!!binary ",
    b"<<: ",
    b"? ",
    b"- ",
    b"'",
    b"#",
    b"%",
    b"event_name",
    b"idempotency_key",
];

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 29)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }
}

/// `text`, changed in a few places.
fn mutated(text: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut text = text.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(text.len() + 1);
        let end = (at + 1 + random.below(16)).min(text.len());
        match random.below(9) {
            0 if at < text.len() => text[at] ^= 1 << random.below(8),
            1 if at < text.len() => text[at] = u8::try_from(random.below(256)).unwrap(),
            2 => drop(text.drain(at..end)),
            3 => {
                let again = text[at..end].to_vec();
                for _ in 0..=random.below(40) {
                    text.splice(at..at, again.iter().copied());
                }
            }
            4 | 5 => {
                let word = WORDS[random.below(WORDS.len())];
                text.splice(at..at, word.iter().copied());
            }
            6 => {
                let from = random.below(other.len() + 1);
                let to = (from + random.below(200)).min(other.len());
                text.splice(at..end.max(at), other[from..to].iter().copied());
            }
            // Numbers in binary formats: sizes and offsets.
            7 if at + 4 <= text.len() => {
                let numbers = [0, 1, u32::MAX, i32::MAX as u32, 0x0001_0000, 0x8000_0000];
                text[at..at + 4].copy_from_slice(&numbers[random.below(6)].to_le_bytes());
            }
            _ => text.truncate(at.max(1)),
        }
    }
    text.truncate(TEXT_MAX);
    text
}

/// Tries mutations of `seeds` for as long as the environment says; `attempt` gives the outcome.
fn fuzz(name: &str, seeds: &[Vec<u8>], attempt: impl Fn(&[u8]) -> String) {
    let seconds = std::env::var("METERHOUSE_FUZZ_SECONDS").ok();
    let time = seconds.map(|text| Duration::from_secs(text.parse().unwrap()));
    let seed = std::env::var("METERHOUSE_FUZZ_SEED").map_or(1, |text| text.parse().unwrap());
    let mut random =
        Random(name.bytes().fold(seed, |seed, byte| Random(seed ^ u64::from(byte)).next()));
    let mut corpus: Vec<Vec<u8>> = seeds.to_vec();
    let mut outcomes = HashSet::new();
    let (started, mut tries) = (Instant::now(), 0_u64);
    while time.map_or(tries < TRIES, |time| started.elapsed() < time) {
        // The seeds as they are come first.
        let number = usize::try_from(tries).unwrap_or(usize::MAX);
        let text = match seeds.get(number) {
            Some(seed) => seed.clone(),
            None => {
                let (one, other) = (random.below(corpus.len()), random.below(corpus.len()));
                mutated(&corpus[one], &corpus[other], &mut random)
            }
        };
        tries += 1;
        let begun = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| attempt(&text)));
        let slow = time.is_some() && begun.elapsed() > SLOW;
        match outcome {
            Ok(outcome) if !slow => {
                let shape: String = outcome.chars().filter(|c| !c.is_ascii_digit()).collect();
                if outcomes.insert(shape) && corpus.len() < CORPUS_MAX {
                    corpus.push(text);
                }
            }
            ended => {
                let place = std::env::temp_dir().join(format!("meterhouse-fuzz-{name}-{tries}"));
                std::fs::write(&place, &text).unwrap();
                let what = if ended.is_err() { "panicked" } else { "took too long" };
                panic!("{name} {what}: {}", place.display());
            }
        }
    }
    eprintln!("{name}: seed {seed}, {tries} inputs, {} kinds of outcome", outcomes.len());
    assert!(outcomes.len() > 1, "{name}: nothing but {outcomes:?}");
}

/// Reads `text` as a file of this format, to the outcome of every record.
fn read(folder: &Path, text: &[u8], format: InputFormat, mapping: Option<&Mapping>) -> String {
    let path = folder.join("input");
    std::fs::write(&path, text).unwrap();
    let inputs = [Input::file("input", &path, format)];
    let names = ColumnNames::of_schema(&events_schema(), PROPERTY_COLUMNS_DEFAULT);
    let now = Timestamp::from_micros(1_790_000_000_000_000);
    let rules = EventRules::default();
    let decoder = Decoder::new(mapping.cloned(), (rules, now), (names, Hasher::new("fuzz")));
    let mut pieces = Pieces::new(&inputs, mapping.is_some());
    let mut told = String::new();
    loop {
        match pieces.next_piece() {
            Ok(None) => return told,
            Err(error) => return told + &error.to_string(),
            Ok(Some(piece)) => match decoder.decode(&piece) {
                Err(error) => return told + &error.to_string(),
                Ok(decoded) => {
                    let (all, refused) = (decoded.read(), decoded.rejected.len());
                    assert_eq!(all, (decoded.chunk.rows() + refused) as u64);
                    for rejected in decoded.rejected.iter().take(2) {
                        assert!(rejected.line > 0);
                        told.push_str(&rejected.rejection.to_string());
                    }
                    if decoded.chunk.rows() > 0 {
                        told.push_str("accepted");
                    }
                    // What is said of broken input is bounded, however long that is.
                    told.truncate(told.floor_char_boundary(400));
                }
            },
        }
    }
}

/// The files of a folder of the project.
fn files(place: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(place);
    let mut found: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    found.retain(|path| path.is_file());
    found.sort();
    found.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

const EVENT: &str = r#"{"event_name":"hit","idempotency_key":"k1","customer_id":"c","timestamp":"2026-06-01T10:00:00.123456+02:00","source":"s","resource_id":"r","properties":{"n":1,"d":0.5,"t":"x","b":true,"o":{"a":[1,null]}}}"#;

/// One event of every system whose payloads are known.
fn payloads() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"events":[{"idempotencyKey":"k","customerId":"c","eventName":"e","timestamp":"2026-06-01T00:00:00Z","dimensions":{"a":"b"}}]}"#,
        r#"[{"transaction_id":"k","customer_id":"c","event_type":"e","timestamp":"2026-06-01T00:00:00Z","properties":{"a":"1"}}]"#,
        r#"{"specversion":"1.0","id":"k","source":"s","type":"e","subject":"c","time":"2026-06-01T00:00:00Z","data":{"a":1}}"#,
        r#"{"event":{"transaction_id":"k","external_subscription_id":"c","code":"e","timestamp":"1790000000.5","properties":{"a":"1"}}}"#,
        r#"{"events":[{"event_name":"e","external_customer_id":"c","idempotency_key":"k","timestamp":"2026-06-01T00:00:00Z","properties":{}}]}"#,
        r#"{"event_name":"e","external_customer_id":"c","event_id":"k","timestamp":"2026-06-01T00:00:00Z","source":"s","properties":{"a":1}}"#,
    ];
    texts.map(|text| text.as_bytes().to_vec()).into()
}

fn rows() -> RecordBatch {
    let texts = |prefix: &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..20).map(|n| format!("{prefix}{n}"))))
    };
    let times: ArrayRef = Arc::new(StringArray::from_iter_values(
        (0..20).map(|n| format!("2026-06-01T00:00:{n:02}Z")),
    ));
    let numbers: ArrayRef =
        Arc::new(Int64Array::from_iter((0..20).map(|n| (n % 3 > 0).then_some(n))));
    RecordBatch::try_from_iter_with_nullable([
        ("event_name", texts("e"), false),
        ("idempotency_key", texts("k"), false),
        ("customer_id", texts("c"), true),
        ("timestamp", times, false),
        ("n", numbers, true),
    ])
    .unwrap()
}

#[test]
fn fuzz_json() {
    let folder = tempfile::tempdir().unwrap();
    let pretty = EVENT.replace(',', ",\n  ").replace('{', "{\n  ");
    let lines = format!("{EVENT}\n{EVENT}\n");
    let seeds = [EVENT.to_owned(), format!("[{EVENT},\n{EVENT}]"), pretty, lines];
    let seeds = seeds.map(String::into_bytes);
    fuzz("json", &seeds, |text| read(folder.path(), text, InputFormat::Json, None));
}

#[test]
fn fuzz_payloads() {
    let folder = tempfile::tempdir().unwrap();
    let formats = Dialect::NAMES.map(|(_, dialect)| InputFormat::Payload(dialect));
    fuzz("payloads", &payloads(), |text| {
        let told = formats.map(|format| read(folder.path(), text, format, None));
        told.concat() + &read(folder.path(), text, InputFormat::Json, None)
    });
}

#[test]
fn fuzz_csv() {
    let folder = tempfile::tempdir().unwrap();
    let header = "event_name,idempotency_key,customer_id,timestamp,n\n";
    let seeds =
        ["hit,k1,c,2026-06-01T00:00:00Z,1\nhit,\"k,2\",\"c\"\"\",2026-06-01,\n", "a,b\n1", ""]
            .map(|rows| format!("{header}{rows}").into_bytes());
    let mapping = Mapping::parse("customer_id: n\nkey: [n, event_name]\n", "m.yaml").ok();
    fuzz("csv", &seeds, |text| {
        let plain = read(folder.path(), text, InputFormat::Csv, None);
        plain + &read(folder.path(), text, InputFormat::Csv, mapping.as_ref())
    });
}

#[test]
fn fuzz_access_log() {
    let folder = tempfile::tempdir().unwrap();
    let seeds = [
        r#"1.2.3.4 - - [01/Jun/2026:10:00:00 +0200] "GET /a?b=%20 HTTP/1.1" 200 512 "http://x/" "Agent \"q\"""#,
        r#"h.example 1.2.3.4 - bob [01/Jun/2026:10:00:00 +0000] "POST / HTTP/2" 404 -"#,
    ]
    .map(|line| format!("{line}\n{line}\n").into_bytes());
    fuzz("access log", &seeds, |text| read(folder.path(), text, InputFormat::AccessLog, None));
}

#[test]
fn fuzz_parquet() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(&mut bytes, rows().schema(), None).unwrap();
    writer.write(&rows()).unwrap();
    writer.close().unwrap();
    fuzz("parquet", &[bytes], |text| read(folder.path(), text, InputFormat::Parquet, None));
}

#[test]
fn fuzz_arrow() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    let mut writer = arrow::ipc::writer::FileWriter::try_new(&mut bytes, &rows().schema()).unwrap();
    writer.write(&rows()).unwrap();
    writer.finish().unwrap();
    drop(writer);
    fuzz("arrow", &[bytes], |text| read(folder.path(), text, InputFormat::Arrow, None));
}

#[test]
fn fuzz_definitions() {
    let mut seeds = files("queries/meters");
    seeds.push(b"timestamp: { column: t, format: \"%d/%m/%Y\" }\nkey: content\n".to_vec());
    fuzz("definitions", &seeds, |text| {
        let text = String::from_utf8_lossy(text);
        let told = |told: Option<String>| told.unwrap_or_else(|| "fine".to_owned());
        let meter = told(crate::meter::parse(&text, "m.yaml").err().map(|e| e.to_string()));
        meter + &told(Mapping::parse(&text, "m.yaml").err().map(|e| e.to_string()))
    });
}

#[test]
fn fuzz_times() {
    let seeds = [
        "2026-10",
        "2026-10-01..2026-10-15",
        "last-month",
        "7d",
        "15m",
        "month",
        "Europe/Berlin",
        "2026-06-01T10:00:00.123456789+02:00",
        "1790000000",
        "01/Jun/2026:10:00:00 +0000",
        "+14:00",
    ]
    .map(|text| text.as_bytes().to_vec());
    let zone = parse_zone("Europe/Berlin").unwrap();
    let now = Timestamp::from_micros(1_790_000_000_000_000);
    fuzz("times", &seeds, |text| {
        let text = String::from_utf8_lossy(text);
        let outcomes = [
            parse_period(&text, &zone, now).is_ok(),
            parse_bound(&text, &zone).is_ok(),
            parse_zone(&text).is_ok(),
            text.parse::<Window>().is_ok(),
            Timestamp::parse_rfc3339(&text).is_ok(),
            Timestamp::parse_local(&text, &zone).is_ok(),
            Timestamp::parse_format(&text, "%d/%b/%Y:%H:%M:%S %z", &zone).is_ok(),
        ];
        format!("{outcomes:?}")
    });
}
