//! Exported files: they say what usage and closed periods say, appear whole or not at all, and are
//! written again only where they would be others.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use meterhouse::engine::{Engine, Limits};
use meterhouse::error::ErrorKind;
use meterhouse::export::{Export, Format, Place, Source, export};
use meterhouse::lake::location::Location;
use meterhouse::meter::load_folder;
use meterhouse::usage::{Context, UsageRequest};

use crate::agreement::RUNTIME;
use crate::program::meterhouse;
use crate::statements;
use crate::storm::random::Random;

const METER: &str = "meter: bytes\nevent: e\naggregation: sum\nproperty: bytes\ndimensions: [region]\n\
                     unit: { name: kB, divide_by: 1000, round: up, precision: 0 }\n";

fn run(folder: &Path, args: &[&str], code: i32) -> (String, String) {
    let output = meterhouse(folder, args);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (data, said) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}: {data}{said}");
    (data, said)
}

fn ingest(folder: &Path, events: &[(&str, Option<&str>, &str, &str, Value)]) {
    let lines: Vec<String> = events
        .iter()
        .map(|(key, customer, at, region, bytes)| {
            let event = json!({
                "event_name": "e",
                "idempotency_key": key,
                "customer_id": customer,
                "timestamp": at,
                "properties": { "bytes": bytes, "region": region },
            });
            event.to_string() + "\n"
        })
        .collect();
    fs::write(folder.join("e.ndjson"), lines.concat()).unwrap();
    run(folder, &["ingest", "e.ndjson", "--allow-missing-customer", "-q"], 0);
}

/// Events of May and June 2026: names that a spreadsheet would run or write otherwise, and more digits
/// than it keeps.
fn lake() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("queries/meters")).unwrap();
    fs::write(folder.path().join("queries/meters/bytes.yaml"), METER).unwrap();
    ingest(
        folder.path(),
        &[
            ("1", Some("=1+1"), "2026-05-01T06:00:00Z", "eu", json!(1_201)),
            ("2", Some("007"), "2026-05-31T06:00:00Z", "eu", json!(2_000)),
            ("3", Some("acme"), "2026-05-15T06:00:00Z", "us", json!("12345678901234567.5")),
            ("4", Some("acme"), "2026-06-02T00:00:00Z", "us", json!(7)),
        ],
    );
    folder
}

/// The record beside a file, and whether the file is what it says.
fn record(file: &Path) -> Value {
    let name = file.file_name().unwrap().to_str().unwrap();
    let text = fs::read_to_string(file.with_file_name(format!("_{name}.json"))).unwrap();
    let record: Value = serde_json::from_str(&text).unwrap();
    let bytes = fs::read(file).unwrap();
    let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(record["sha256"], json!(sha256));
    assert_eq!(record["bytes"], json!(bytes.len()));
    record
}

/// What lies in a folder and below it.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path.strip_prefix(folder).unwrap().display().to_string()),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_file_says_what_usage_says() {
    let folder = lake();
    let folder = folder.path();
    let ask = ["bytes", "--period", "2026-05", "--breakdown"];
    for (name, format) in [("u.csv", "csv"), ("u.ndjson", "ndjson")] {
        let (_, said) =
            run(folder, &[&["export", "usage"], &ask[..], &["--out", name]].concat(), 0);
        assert!(said.starts_with("exported "), "{said}");
        let (usage, _) = run(folder, &[&["usage"], &ask[..], &["-o", format, "-q"]].concat(), 0);
        assert_eq!(fs::read_to_string(folder.join(name)).unwrap(), usage);
        let record = record(&folder.join(name));
        assert_eq!(record["rows"], 3);
        assert_eq!(record["asked"]["period"], "2026-05");
        let meter = &record["meters"][0];
        assert_eq!((&meter["meter"], &meter["table_version"]), (&json!("bytes"), &json!(1)));
        assert_eq!((&meter["from"], &meter["events"]), (&json!("2026-05-01T00:00:00Z"), &json!(3)));
    }
    // Parquet, by another reader.
    run(folder, &[&["export", "usage"], &ask[..], &["--out", "out"]].concat(), 0);
    let place = "out/meter=bytes/period=2026-05/usage.parquet";
    let file = File::open(folder.join(place)).unwrap();
    let rows: Vec<_> =
        ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().collect();
    let mut csv = arrow::csv::WriterBuilder::new().with_header(true).build(Vec::new());
    rows.iter().for_each(|rows| csv.write(rows.as_ref().unwrap()).unwrap());
    let of_parquet = String::from_utf8(csv.into_inner()).unwrap();
    assert_eq!(of_parquet, fs::read_to_string(folder.join("u.csv")).unwrap());
    record(&folder.join(place));
    // An answer without rows is one.
    let none = ["export", "usage", "bytes", "--period", "2020", "--out", "none.csv"];
    run(folder, &none, 0);
    let header = "customer_id,value,converted,billable,events,skipped\n";
    assert_eq!(fs::read_to_string(folder.join("none.csv")).unwrap(), header);
}

/// Memory in which the operators of the question below spill, and in which they do not even begin.
const SPILLS: usize = 3 << 20;
const TOO_LITTLE: usize = 1 << 10;

#[test]
fn an_export_that_needs_more_memory_than_it_gets_at_first_gets_it() {
    let folder = lake();
    let folder = folder.path();
    let names: Vec<String> = (0..20_000).map(|place| format!("customer-{place}")).collect();
    let at = "2026-05-03T00:00:00Z";
    let events: Vec<_> =
        names.iter().map(|name| (name.as_str(), Some(name.as_str()), at, "us", json!(3))).collect();
    ingest(folder, &events);
    let meters = Arc::new(load_folder(&folder.join("queries/meters")).unwrap());
    let context = Context { meters, ..statements::context(folder) };
    let lake = &context.lake.location;
    let engine = |memory_bytes: usize, spill_max_bytes: u64| {
        Engine::new(lake, Limits { threads: 1, memory_bytes, spill_max_bytes, ..Limits::default() })
            .unwrap()
    };
    let all = Limits::default();
    let (memory, disk) = (all.memory_bytes, all.spill_max_bytes);
    let location = Location::parse(folder.to_str().unwrap()).unwrap();
    let request = UsageRequest {
        meters: vec!["bytes".to_owned()],
        period: Some("2026-05".to_owned()),
        ..UsageRequest::default()
    };
    let exported = |engine: Engine, (name, format): (&str, Format), memory_at_first| {
        let asked = Export {
            source: Source::Usage(&request),
            place: Place::new(&location, &[], name).unwrap(),
            format,
            events: None,
            partitioned: false,
            replace: false,
            memory_at_first,
        };
        RUNTIME.block_on(export(&Context { engine, ..context.clone() }, &asked))
    };
    let before = files(folder);
    let csv = ("u.csv", Format::Csv);
    // What is too little is so, also at first; and what spills needs the disk.
    for (memory, disk, at_first) in
        [(TOO_LITTLE, disk, None), (TOO_LITTLE, disk, Some(TOO_LITTLE)), (SPILLS, 0, None)]
    {
        let error = exported(engine(memory, disk), csv, at_first).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    assert_eq!(files(folder), before, "something is left");
    for format in [Format::Csv, Format::Ndjson, Format::Parquet, Format::Xlsx] {
        let mut same = Vec::new();
        for (place, (memory, disk, at_first)) in [
            (memory, disk, None),
            (SPILLS, disk, None),
            (memory, disk, Some(SPILLS)),
            (memory, 0, Some(SPILLS)),
            (memory, disk, Some(TOO_LITTLE)),
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("{place}.{}", format.extension());
            exported(engine(memory, disk), (&name, format), at_first).unwrap();
            same.push(fs::read(folder.join(&name)).unwrap());
        }
        assert!(same[0].len() > 20_000, "{format:?}");
        assert!(same.iter().all(|file| *file == same[0]), "{format:?}");
    }
}

#[test]
fn a_spreadsheet_takes_every_value_for_what_it_is() {
    let folder = lake();
    let folder = folder.path();
    let ask = ["export", "usage", "bytes", "--period", "2026-05", "--out"];
    let safe = [&ask[..], &["s.csv", "--format", "csv-spreadsheet"]].concat();
    run(folder, &safe, 0);
    assert_eq!(
        fs::read_to_string(folder.join("s.csv")).unwrap(),
        "\u{feff}customer_id,value,converted,billable,events,skipped\r\n\
         '007,2000,2,2,1,0\r\n\
         '=1+1,1201,1.201,2,1,0\r\n\
         acme,'12345678901234567.5,'12345678901234.5675,12345678901235,1,0\r\n"
    );
    run(folder, &[&ask[..], &["s.xlsx"]].concat(), 0);
    let sheet = part(&folder.join("s.xlsx"), "xl/worksheets/sheet1.xml");
    for cell in [
        "<c r=\"A2\" t=\"inlineStr\"><is><t>007</t></is></c>",
        "<c r=\"B2\"><v>2000</v></c>",
        "<c r=\"A3\" t=\"inlineStr\"><is><t>=1+1</t></is></c>",
        "<c r=\"C3\"><v>1.201</v></c>",
        "<c r=\"B4\" t=\"inlineStr\"><is><t>12345678901234567.5</t></is></c>",
        "<c r=\"D4\"><v>12345678901235</v></c>",
    ] {
        assert!(sheet.contains(cell), "{cell}: {sheet}");
    }
    assert!(!sheet.contains("<f>"), "{sheet}");
    let how = part(&folder.join("s.xlsx"), "xl/worksheets/sheet2.xml");
    let names = part(&folder.join("s.xlsx"), "xl/workbook.xml");
    assert!(names.contains("name=\"usage\"") && names.contains("name=\"how computed\""), "{names}");
    let version = record(&folder.join("s.xlsx"))["meters"][0]["meter_version"].clone();
    for text in [version.as_str().unwrap(), "2026-05-01T00:00:00Z", "version of the events"] {
        assert!(how.contains(&format!("<t>{text}</t>")), "{text}: {how}");
    }
    // Days are dates, hours have their zone with them.
    let zoned = ["--window", "day", "--tz", "Europe/Berlin"];
    run(folder, &[&ask[..], &["d.xlsx"], &zoned].concat(), 0);
    let days = part(&folder.join("d.xlsx"), "xl/worksheets/sheet1.xml");
    assert!(days.contains("<c r=\"A2\" s=\"2\"><v>46143</v></c>"), "{days}");
    run(folder, &[&ask[..], &["h.xlsx", "--window", "hour"]].concat(), 0);
    let hours = part(&folder.join("h.xlsx"), "xl/worksheets/sheet1.xml");
    assert!(hours.contains("<t>2026-05-01T06:00:00Z</t>"), "{hours}");
}

/// A file within a workbook.
fn part(workbook: &Path, name: &str) -> String {
    let mut archive = zip::ZipArchive::new(File::open(workbook).unwrap()).unwrap();
    let mut text = String::new();
    archive.by_name(name).unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn what_is_there_already_is_not_written_again() {
    let folder = lake();
    let folder = folder.path();
    let ask = ["export", "usage", "bytes", "--period", "2026-05", "--out", "u.csv"];
    run(folder, &ask, 0);
    let first = record(&folder.join("u.csv"));
    let (_, said) = run(folder, &ask, 0);
    assert!(said.starts_with("unchanged "), "{said}");
    assert_eq!(record(&folder.join("u.csv")), first);
    // Events of another month make no other file of this one, but its record is of the new version.
    ingest(folder, &[("5", Some("acme"), "2026-06-03T00:00:00Z", "us", json!(1))]);
    let (_, said) = run(folder, &ask, 0);
    assert!(said.starts_with("unchanged "), "{said}");
    let second = record(&folder.join("u.csv"));
    assert_eq!(
        (&second["sha256"], second["meters"][0]["table_version"].as_u64()),
        (&first["sha256"], Some(2))
    );
    // Late ones do.
    ingest(folder, &[("6", Some("late"), "2026-05-03T00:00:00Z", "us", json!(1))]);
    let (_, said) = run(folder, &ask, 0);
    assert!(said.starts_with("exported "), "{said}");
    let third = record(&folder.join("u.csv"));
    assert_eq!((&third["replaces"], third["rows"].as_u64()), (&second["sha256"], Some(4)));
    // As it was before.
    run(folder, &[&ask[..6], &["old.csv", "--at", "1"]].concat(), 0);
    assert_eq!(record(&folder.join("old.csv"))["sha256"], first["sha256"]);
}

#[test]
fn a_file_that_an_export_did_not_get_to_is_written_though_it_is_as_long() {
    let folder = lake();
    let folder = folder.path();
    let ask = ["export", "usage", "bytes", "--period", "2026-06", "--out", "u.csv"];
    run(folder, &ask, 0);
    let (file, kept) = (folder.join("u.csv"), folder.join("_u.csv.json"));
    let first = fs::read(&file).unwrap();
    // As many bytes: 7 becomes 8. The record is put, and then the program is killed.
    ingest(folder, &[("5", Some("acme"), "2026-06-03T00:00:00Z", "us", json!(1))]);
    run(folder, &ask, 0);
    let second = fs::read(&file).unwrap();
    assert_eq!(first.len() + 6, second.len() + 6);
    assert_ne!(first, second);
    fs::write(&file, &first).unwrap();
    let (_, said) = run(folder, &ask, 0);
    assert!(said.starts_with("exported "), "{said}");
    assert_eq!(fs::read(&file).unwrap(), second);
    record(&file);
    // The record alone, before there was a file.
    fs::remove_file(&file).unwrap();
    run(folder, &ask, 0);
    assert_eq!(fs::read(&file).unwrap(), second);
    // A change of as many bytes by somebody else.
    let changed = String::from_utf8(second.clone()).unwrap().replace(",8,", ",9,");
    fs::write(&file, &changed).unwrap();
    let (_, said) = run(folder, &ask, 1);
    assert!(said.contains("was changed since it was exported"), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), changed);
    assert!(kept.exists());
}

#[test]
fn what_is_not_ours_is_not_touched() {
    let folder = lake();
    let folder = folder.path();
    let ask = ["export", "usage", "bytes", "--period", "2026-05", "--out"];
    fs::write(folder.join("mine.csv"), "mine").unwrap();
    let (_, said) = run(folder, &[&ask[..], &["mine.csv"]].concat(), 1);
    assert!(said.contains("mine.csv is there and no export has written it"), "{said}");
    assert_eq!(fs::read_to_string(folder.join("mine.csv")).unwrap(), "mine");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("nowhere.csv", folder.join("link.csv")).unwrap();
        let (_, said) = run(folder, &[&ask[..], &["link.csv"]].concat(), 1);
        assert!(said.contains("link.csv is there and is a link that leads nowhere"), "{said}");
        assert_eq!(fs::read_link(folder.join("link.csv")).unwrap(), Path::new("nowhere.csv"));
        assert!(!folder.join("_link.csv.json").exists());
    }
    // A file that somebody changed.
    run(folder, &[&ask[..], &["u.csv"]].concat(), 0);
    fs::write(folder.join("u.csv"), "mine").unwrap();
    let (_, said) = run(folder, &[&ask[..], &["u.csv"]].concat(), 1);
    assert!(said.contains("u.csv is there and was changed since it was exported"), "{said}");
    assert_eq!(fs::read_to_string(folder.join("u.csv")).unwrap(), "mine");
    // Another question.
    run(folder, &[&ask[..], &["t.csv"]].concat(), 0);
    let total = [&ask[..], &["t.csv", "--total"]].concat();
    let (_, said) = run(folder, &total, 1);
    assert!(
        said.contains("its rows by is `customer`, not `nothing`") && said.contains("--replace"),
        "{said}"
    );
    run(folder, &[&total[..], &["--replace"]].concat(), 0);
    assert_eq!(record(&folder.join("t.csv"))["rows"], 1);
    // Places and words that are none.
    fs::write(folder.join("file"), "").unwrap();
    fs::create_dir(folder.join("folder.csv")).unwrap();
    std::os::unix::fs::symlink(folder.join("lake"), folder.join("link")).unwrap();
    for (args, code, want) in [
        (&["link/sub/u.csv"][..], 1, "lies in the lake"),
        (&["u.xlsx", "--format", "csv"][..], 2, "do not agree: such a file ends in .csv"),
        (&["file/u.csv"], 2, "file is a file, no folder"),
        (&["lake/u.csv"], 1, "lies in the lake"),
        (&["ftp://x/u.csv"], 1, "ftp:// is no place that is known here"),
        (&["u.csv", "--event-name", "x"], 2, "are for --format stripe"),
        (
            &["queries/", "--format", "csv-spreadsheet", "--event-name", "x"],
            2,
            "are for --format stripe",
        ),
        (&["-"], 2, "is no place that lasts"),
        (&["memory://m/u.csv"], 2, "is no place that lasts"),
        (&["folder.csv"], 2, "folder.csv is a folder, no file"),
        (&["e.csv", "--format", "stripe", "--stripe-customers", "none.csv"], 1, "none.csv: "),
    ] {
        let (_, said) = run(folder, &[&ask[..], args].concat(), code);
        assert!(said.contains(want), "{args:?}: {said}");
    }
    let (_, said) = run(folder, &["export", "statements", "--out", "s.csv"], 1);
    assert!(said.contains("no period is closed"), "{said}");
    assert!(!folder.join("s.csv").exists() && !folder.join("lake/u.csv").exists());
}

#[test]
fn statements_go_out_as_they_were_closed_and_once() {
    let folder = lake();
    let folder = folder.path();
    run(folder, &["periods", "close", "2026-05"], 0);
    let (_, said) = run(folder, &["export", "statements", "--out", "out", "--format", "csv"], 0);
    assert_eq!(said.matches("exported ").count(), 1, "{said}");
    let place = folder.join("out/meter=bytes/period=2026-05/statement.csv");
    let text = fs::read_to_string(&place).unwrap();
    let (shown, _) = run(folder, &["periods", "show", "bytes", "2026-05", "-o", "csv", "-q"], 0);
    // The columns of `show` among those of the file.
    let header: Vec<&str> = text.lines().next().unwrap().split(',').collect();
    let wanted: Vec<usize> = shown
        .lines()
        .next()
        .unwrap()
        .split(',')
        .map(|name| header.iter().position(|other| *other == name).unwrap())
        .collect();
    let of_file: Vec<String> = text
        .lines()
        .map(|line| line.split(',').collect::<Vec<_>>())
        .map(|cells| wanted.iter().map(|place| cells[*place]).collect::<Vec<_>>().join(","))
        .collect();
    assert_eq!(of_file, shown.lines().collect::<Vec<_>>());
    assert!(
        text.contains("bytes,2026-05,2026-05-01T00:00:00Z,2026-06-01T00:00:00Z,UTC,007,2000"),
        "{text}"
    );
    // Late events change nothing of it, and a month that is closed later is all that is new.
    ingest(folder, &[("6", Some("late"), "2026-05-03T00:00:00Z", "us", json!(1))]);
    run(folder, &["periods", "close", "2026-06"], 0);
    let (_, said) = run(folder, &["export", "statements", "--out", "out", "--format", "csv"], 0);
    assert_eq!(
        (said.matches("exported ").count(), said.matches("unchanged ").count()),
        (1, 1),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&place).unwrap(), text);
    // Opened and closed anew, it takes the place of what was sent.
    run(folder, &["periods", "reopen", "bytes", "2026-05", "--reason", "late"], 0);
    run(folder, &["periods", "close", "2026-05"], 0);
    run(folder, &["export", "statements", "--out", "out", "--format", "csv"], 0);
    assert!(fs::read_to_string(&place).unwrap().contains(",late,1,0.001,1,kB,1,0,2,"));
    assert_eq!(record(&place)["meters"][0]["revision"], 2);
    // What was exported of a period that is open again is told.
    run(folder, &["periods", "reopen", "bytes", "2026-06", "--reason", "open"], 0);
    let (_, said) = run(folder, &["export", "statements", "--out", "out", "--format", "csv"], 0);
    assert!(
        said.contains("period=2026-06/statement.csv is of a period that was opened again"),
        "{said}"
    );
    run(folder, &["periods", "close", "2026-06"], 0);
    // All of them in one file.
    let all = ["export", "statements", "--out", "all.ndjson"];
    let (_, said) = run(folder, &all, 0);
    assert!(said.contains("5 rows"), "{said}");
    // Also once there are more of them.
    run(folder, &["periods", "close", "2026-07"], 0);
    run(folder, &["periods", "close", "2026-04"], 0);
    let (_, said) = run(folder, &all, 0);
    assert!(said.starts_with("unchanged ") && said.contains("5 rows"), "{said}");
    assert_eq!(record(&folder.join("all.ndjson"))["meters"].as_array().unwrap().len(), 4);
    // Parquet in folders has no columns that the folders tell.
    run(folder, &["export", "statements", "--out", "hive"], 0);
    let file =
        File::open(folder.join("hive/meter=bytes/period=2026-05/statement.parquet")).unwrap();
    let rows = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let names: Vec<&str> =
        rows.schema().fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names[..2], ["period_start", "period_end"]);
}

#[test]
fn meter_events_are_whole_and_of_the_same_name_every_time() {
    let folder = lake();
    let folder = folder.path();
    run(folder, &["periods", "close", "2026-05"], 0);
    let to = |name: &'static str| {
        ["export", "statements", "--period", "2026-05", "--out", name, "--format", "stripe"]
    };
    run(folder, &to("one.csv"), 0);
    let text = fs::read_to_string(folder.join("one.csv")).unwrap();
    let mut lines = text.lines();
    assert_eq!(
        lines.next(),
        Some("identifier,timestamp,event_name,payload_stripe_customer_id,payload_value")
    );
    let told = r#"["default","bytes","bytes","007","2026-05-01T00:00:00Z","2026-06-01T00:00:00Z"]"#;
    let digits: String =
        Sha256::digest(told).iter().take(20).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(lines.next(), Some(&*format!("meterhouse-{digits},1780271999,bytes,007,2")));
    assert_eq!(lines.count(), 2);
    // Usage of the same period has the same events, whatever else is in the lake.
    ingest(folder, &[("7", Some("late"), "2026-06-03T00:00:00Z", "us", json!(1))]);
    let usage = [
        "export", "usage", "bytes", "--period", "2026-05", "--out", "two.csv", "--format", "stripe",
    ];
    run(folder, &usage, 0);
    assert_eq!(fs::read_to_string(folder.join("two.csv")).unwrap(), text);
    // Of a part there are no events, and another table of customers makes other ones.
    let part = [&usage[..5], &["--where", "region = 'eu'", "--out", "p.csv", "--format", "stripe"]]
        .concat();
    let (_, said) = run(folder, &part, 1);
    assert!(
        said.contains("leave out --where and --top") && !folder.join("p.csv").exists(),
        "{said}"
    );
    let named = [&to("named.csv")[..], &["--stripe-customers", "c.csv"]].concat();
    let mut ids = Vec::new();
    for id in ["cus_1", "cus_2"] {
        let table = ["=1+1", "007", "acme"].map(|ours| format!("{ours},{id}{ours}\n")).concat();
        fs::write(folder.join("c.csv"), format!("customer_id,stripe_customer_id\n{table}"))
            .unwrap();
        run(folder, &named, 0);
        ids.push(fs::read_to_string(folder.join("named.csv")).unwrap());
    }
    assert!(ids[0].contains(",cus_1acme,") && ids[1].contains(",cus_2acme,"), "{ids:?}");
    // What nobody can be billed for, and what is not over.
    ingest(folder, &[("8", None, "2026-05-03T00:00:00Z", "us", json!(1))]);
    let (_, said) =
        run(folder, &[&usage[..5], &["--out", "three.csv", "--format", "stripe"]].concat(), 1);
    assert!(said.contains("used by no customer") && !folder.join("three.csv").exists(), "{said}");
    let open =
        ["export", "usage", "bytes", "--period", "2999", "--out", "o.csv", "--format", "stripe"];
    let (_, said) = run(folder, &open, 1);
    assert!(said.contains("the period ends at 3000-01-01T00:00:00Z only"), "{said}");
}

#[cfg(unix)]
#[test]
fn a_disk_that_is_full_leaves_what_was_there() {
    let folder = lake();
    let folder = folder.path();
    let many: Vec<String> = (0..4_000).map(|place| format!("c{place}")).collect();
    let events: Vec<_> = many
        .iter()
        .map(|key| (key.as_str(), Some(key.as_str()), "2026-05-03T00:00:00Z", "us", json!(1)))
        .collect();
    let ask = ["export", "usage", "bytes", "--period", "2026-05", "--out", "u.csv"];
    run(folder, &ask, 0);
    let before = record(&folder.join("u.csv"));
    ingest(folder, &events);
    // Files may have 16 kB, and whoever writes more is told so.
    let limited = format!(
        "ulimit -f 16; trap '' XFSZ; exec {} {}",
        env!("CARGO_BIN_EXE_meterhouse"),
        ask.join(" ")
    );
    let output = Command::new("sh").args(["-c", &limited]).current_dir(folder).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write"), "{said}");
    assert_eq!(record(&folder.join("u.csv")), before);
    let names = files(folder);
    assert!(names.iter().all(|name| !name.starts_with('.') && !name.contains('#')), "{names:?}");
    run(folder, &ask, 0);
    assert_eq!(record(&folder.join("u.csv"))["rows"], 4_003);
}

/// How often an export is killed; more of them by `METERHOUSE_EXPORT_KILLS`.
fn kills() -> u64 {
    std::env::var("METERHOUSE_EXPORT_KILLS").map_or(24, |text| text.parse().unwrap())
}

#[test]
fn killed_exports_are_whole_or_not_there_and_end_as_if_undisturbed() {
    let folder = lake();
    let folder = folder.path();
    for (name, months) in [("a", "05"), ("b", "06")] {
        let keys: Vec<String> = (0..2_000).map(|place| format!("{name}{place}")).collect();
        let at = format!("2026-{months}-03T00:00:00Z");
        let events: Vec<_> = keys
            .iter()
            .map(|key| (key.as_str(), Some(key.as_str()), at.as_str(), "us", json!(3)))
            .collect();
        ingest(folder, &events);
        run(folder, &["periods", "close", &format!("2026-{months}")], 0);
    }
    let formats = ["csv", "parquet", "xlsx", "ndjson"];
    let mut random = Random::new(20_261_127);
    let (mut killed, mut whole) = (0, 0);
    let args = |format: &'static str, to: &str| {
        let args = ["export", "statements", "--format", format, "--out"];
        args.into_iter().map(str::to_owned).chain([to.to_owned()]).collect::<Vec<String>>()
    };
    // As often as it takes: on a busy machine some end before they are killed.
    for round in 0.. {
        if killed >= kills() {
            break;
        }
        assert!(round < 10 * kills(), "of {} exports {killed} were killed", 3 * round);
        let format = formats[usize::try_from(round % 4).unwrap()];
        let undisturbed = format!("undisturbed-{format}");
        let to_undisturbed = args(format, &undisturbed);
        let to_undisturbed: Vec<&str> = to_undisturbed.iter().map(String::as_str).collect();
        if !folder.join(&undisturbed).exists() {
            run(folder, &to_undisturbed, 0);
        }
        let started = std::time::Instant::now();
        let (to, pace) = (format!("out-{round}"), format!("pace-{round}"));
        let paced = args(format, &pace);
        run(folder, &paced.iter().map(String::as_str).collect::<Vec<_>>(), 0);
        let pace = u64::try_from(started.elapsed().as_micros()).unwrap();
        let want = hashes(&folder.join(&undisturbed));
        for _ in 0..3 {
            let mut child = Command::new(env!("CARGO_BIN_EXE_meterhouse"))
                .args(args(format, &to))
                .current_dir(folder)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_micros(random.below(pace)));
            let _ = child.kill();
            killed += u64::from(child.wait().unwrap().code().is_none());
            // Every file that is there is whole.
            for (name, sha256) in hashes(&folder.join(&to)) {
                assert_eq!(want.get(&name), Some(&sha256), "{to}/{name}");
                whole += 1;
            }
        }
        let last = args(format, &to);
        run(folder, &last.iter().map(String::as_str).collect::<Vec<_>>(), 0);
        assert_eq!(hashes(&folder.join(&to)), want);
        for name in want.keys() {
            record(&folder.join(&to).join(name));
        }
    }
    eprintln!("{killed} exports were killed; {whole} files were whole already");
}

/// The files of exports in a folder, by name, without their records and what was left unfinished.
fn hashes(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    if !folder.exists() {
        return BTreeMap::new();
    }
    let is_file = |name: &String| {
        let last = name.rsplit('/').next().unwrap();
        !last.starts_with('_') && !last.contains('#') && !last.starts_with('.')
    };
    let found = files(folder).into_iter().filter(is_file);
    found
        .map(|name| (name.clone(), Sha256::digest(fs::read(folder.join(&name)).unwrap()).to_vec()))
        .collect()
}

#[test]
fn a_picture_shows_the_numbers_of_usage() {
    let folder = lake();
    let folder = folder.path();
    let ask = ["usage", "bytes", "--period", "2026-05"];
    let drawn = |args: &[&str]| run(folder, &[&ask[..], args, &["-q"]].concat(), 0).0;
    let chart = drawn(&["--chart"]);
    let lines: Vec<&str> = chart.lines().collect();
    assert_eq!(lines[0], "bytes 2026-05 in kB");
    // The largest first, its bar as long as there is room for.
    assert!(
        lines[1].starts_with("acme ██████") && lines[1].ends_with("█ 12345678901234.5675"),
        "{chart}"
    );
    assert!(
        lines[2].starts_with("007 ") && lines[2].ends_with(" 2") && !lines[2].contains('█'),
        "{chart}"
    );
    assert_eq!(lines.len(), 4, "{chart}");
    let over_time = drawn(&["--chart", "--window", "week", "--total"]);
    assert!(over_time.lines().nth(1).unwrap().starts_with("2026-05-01 "), "{over_time}");
    // Groups over time: a block for each window, none where there is nothing.
    let lines_of =
        drawn(&["--chart", "--window", "week", "--customer", "acme", "--by", "region,customer_id"]);
    assert!(lines_of.contains("2026-05-11"), "{lines_of}");
    // What is in a name is text.
    ingest(
        folder,
        &[(
            "9",
            Some("<b onload=x>\u{1b}[31m\u{202e}"),
            "2026-05-03T00:00:00Z",
            "us",
            json!(4_000),
        )],
    );
    for (args, title) in [(&["-o", "svg"][..], "<svg xmlns="), (&["-o", "html"], "<!doctype html>")]
    {
        let text = drawn(args);
        assert!(text.starts_with(title), "{text}");
        assert!(text.contains("&lt;b onload=x&gt;") && !text.contains("<b onload"), "{text}");
        assert!(!text.contains('\u{1b}') && text.contains(">12345678901234.5675<"), "{text}");
        assert!(!text.contains("<script") && !text.contains("href"), "{text}");
    }
    let page = drawn(&["-o", "html"]);
    assert_eq!(page.matches("<svg").count(), 2);
    assert!(page.contains("2026-05-01T00:00:00Z to 2026-06-01T00:00:00Z UTC"), "{page}");
    assert!(!drawn(&["--chart"]).contains(['\u{1b}', '\u{202e}']));
    let (_, said) = run(folder, &[&ask[..], &["--chart", "-o", "csv"]].concat(), 2);
    assert!(said.contains("cannot be used with"), "{said}");
}

#[test]
fn exports_to_one_place_at_once_leave_one_file_and_its_record() {
    let folder = lake();
    let folder = folder.path();
    let spawn = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_meterhouse"))
            .args(["export", "usage", "bytes", "--period", "2026-05", "--out"])
            .args(args)
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    // Of the same question all succeed.
    let same: Vec<_> = (0..3).map(|_| spawn(&["same.csv"])).collect();
    for child in same {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(record(&folder.join("same.csv"))["rows"], 3);
    // Of two questions one does, and the other one is told.
    for round in 0..4 {
        let name = format!("round-{round}.csv");
        let [one, other] = [spawn(&[&name]), spawn(&[&name, "--total"])];
        let ended = [one, other].map(|child| child.wait_with_output().unwrap());
        let done = ended.iter().filter(|output| output.status.success()).count();
        let said: String =
            ended.iter().map(|output| String::from_utf8_lossy(&output.stderr)).collect();
        assert_eq!(done, 1, "{said}");
        assert!(said.contains("is an export of something else"), "{said}");
        record(&folder.join(&name));
    }
    let hidden = |name: &String| name.starts_with('.') || name.contains('#');
    assert!(
        !fs::read_dir(folder)
            .unwrap()
            .any(|entry| hidden(&entry.unwrap().file_name().into_string().unwrap()))
    );
}

/// Of two that export to one place, the one that was overtaken may put its file last.
#[test]
fn a_file_that_comes_after_the_one_that_overtook_it_is_replaced() {
    let folder = lake();
    let folder = folder.path();
    let file = folder.join("o.csv");
    let export = |key: &str| -> Vec<u8> {
        ingest(folder, &[(key, Some("late"), "2026-05-04T00:00:00Z", "us", json!(7))]);
        run(folder, &["export", "usage", "bytes", "--period", "2026-05", "--out", "o.csv"], 0);
        fs::read(&file).unwrap()
    };
    let (before, overtaken) = (export("l1"), export("l2"));
    // The second one has put its record, and its file is on its way.
    fs::write(&file, &before).unwrap();
    let last = export("l3");
    fs::write(&file, &overtaken).unwrap();
    assert_ne!(last, export("l4"));
    // What nobody has exported is not replaced.
    fs::write(&file, "mine").unwrap();
    let args = ["export", "usage", "bytes", "--period", "2026-05", "--out", "o.csv"];
    let (_, said) = run(folder, &args, 1);
    assert!(said.contains("was changed since it was exported"), "{said}");
}
