//! Closed periods: they say what usage said, never change, and can be made again at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use meterhouse::clock::Clock;
use meterhouse::engine::{Engine, Limits};
use meterhouse::lake::location::{Location, Namespace};
use meterhouse::lake::tables::Lake;
use meterhouse::period::{self, Closing};
use meterhouse::usage::Context;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::agreement::RUNTIME;
use crate::program::meterhouse;
use crate::storm::random::Random;

const METER: &str = "meter: bytes\nevent: e\naggregation: sum\nproperty: bytes\nunit: { name: kB, \
                     divide_by: 1000, round: up, precision: 1 }\n";

pub(crate) fn run(folder: &Path, args: &[&str], code: i32) -> (String, String) {
    let output = meterhouse(folder, args);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (data, said) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}: {data}{said}");
    (data, said)
}

pub(crate) fn event(key: &str, customer: Option<&str>, day: u8, bytes: u64) -> String {
    json!({
        "event_name": "e",
        "idempotency_key": key,
        "customer_id": customer,
        "timestamp": format!("2026-05-{day:02}T06:00:00Z"),
        "properties": { "bytes": bytes },
    })
    .to_string()
        + "\n"
}

pub(crate) fn ingest(folder: &Path, events: &[String]) {
    fs::write(folder.join("e.ndjson"), events.concat()).unwrap();
    run(folder, &["ingest", "e.ndjson", "--allow-missing-customer", "-q"], 0);
}

const OTHER: &str = "meter: bad\naggregation: sum\nexpression: bytes * 1e37\n";

/// Events of three customers and of nobody in May 2026, and the meter.
fn lake() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("queries/meters")).unwrap();
    fs::write(folder.path().join("queries/meters/bytes.yaml"), METER).unwrap();
    ingest(
        folder.path(),
        &[
            event("1", Some("acme"), 1, 1_201),
            event("2", Some("acme"), 31, 2_000),
            event("3", Some("blue"), 15, 90),
            event("4", Some("cold"), 2, 7),
            event("5", None, 3, 55),
        ],
    );
    folder
}

fn show(folder: &Path) -> String {
    run(folder, &["periods", "show", "bytes", "2026-05", "-o", "csv", "-q"], 0).0
}

fn list(folder: &Path) -> Vec<Value> {
    let (data, _) = run(folder, &["periods", "list", "-o", "ndjson", "-q"], 0);
    data.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn adjustments_of_all_closed_periods_are_told_together() {
    let folder = lake();
    let folder = folder.path();
    let header = "meter,period,from,to,unit,customer_id,closed_value,value,difference,closed_billable,\
                  billable,billable_difference,closed_events,events,closed_skipped,skipped\n";
    let all = |args: &[&str], code| {
        run(folder, &[&["periods", "adjustments", "-o", "csv"], args].concat(), code)
    };
    let (data, said) = all(&[], 0);
    assert_eq!(data, header);
    assert!(said.contains("0 lines of 0 closed periods would be another"), "{said}");
    let count = "meter: calls\nevent: e\naggregation: count\n";
    fs::write(folder.join("queries/meters/calls.yaml"), count).unwrap();
    run(folder, &["periods", "close", "2026-04"], 0);
    run(folder, &["periods", "close", "2026-05", "bytes"], 0);
    let files = || -> BTreeSet<_> {
        let files = fs::read_dir(folder.join("lake/default/statements")).unwrap();
        files.map(|file| file.unwrap().path()).filter(|path| path.is_file()).collect()
    };
    let before = files();
    run(folder, &["periods", "close", "2026-05", "calls"], 0);
    let rows = |file: &PathBuf| {
        let file = fs::File::open(file).unwrap();
        SerializedFileReader::new(file).unwrap().metadata().file_metadata().num_rows()
    };
    let mut lines_of_calls: Vec<_> = files().difference(&before).cloned().collect();
    lines_of_calls.retain(|file| rows(file) == 4);
    ingest(folder, &[event("6", Some("acme"), 9, 99), event("7", Some("dune"), 9, 1)]);
    let of_bytes = "bytes,2026-05,2026-05-01T00:00:00Z,2026-06-01T00:00:00Z,kB,acme,3201,3300,99,3.3,3.3,0,\
                    2,3,0,0\n\
                    bytes,2026-05,2026-05-01T00:00:00Z,2026-06-01T00:00:00Z,kB,dune,,1,1,,0.1,0.1,,1,,0\n";
    let of_calls = "calls,2026-05,2026-05-01T00:00:00Z,2026-06-01T00:00:00Z,,acme,2,3,1,,,,2,3,0,0\n\
                    calls,2026-05,2026-05-01T00:00:00Z,2026-06-01T00:00:00Z,,dune,,1,1,,,,,1,,0\n";
    let (data, said) = all(&[], 0);
    assert_eq!(data, [header, of_bytes, of_calls].concat());
    assert!(
        said.contains("4 lines of 4 closed periods would be another by table version 2"),
        "{said}"
    );
    let (data, said) = all(&["bytes"], 0);
    assert_eq!(data, [header, of_bytes].concat());
    assert!(said.contains("2 lines of 2 closed periods would be another"), "{said}");
    // What is wrong with one is no matter of the others.
    let [file] = lines_of_calls.as_slice() else { panic!("{lines_of_calls:?}") };
    fs::rename(file, folder.join("away")).unwrap();
    let (data, said) = all(&[], 1);
    assert_eq!(data, [header, of_bytes].concat());
    assert!(said.contains("1 of 4 closed periods not computed:\ncalls 2026-05: "), "{said}");
    fs::rename(folder.join("away"), file).unwrap();
    // One that was opened again holds no more, and is missed.
    run(folder, &["periods", "reopen", "bytes", "2026-05", "--reason", "r"], 0);
    let (data, said) = all(&[], 0);
    assert_eq!(data, [header, of_calls].concat());
    assert!(
        said.contains("warning: the period 2026-05-01T00:00:00Z..2026-06-01T00:00:00Z of bytes"),
        "{said}"
    );
    let (data, said) = all(&["none"], 1);
    assert!(data.is_empty() && said.contains("no period of meter `none` is closed"), "{said}");
}

const CLOSED: &str = "customer_id,value,converted,billable,events,skipped\n\
                      ,55,0.055,0.1,1,0\n\
                      acme,3201,3.201,3.3,2,0\n\
                      blue,90,0.09,0.1,1,0\n\
                      cold,7,0.007,0.1,1,0\n";

#[test]
fn a_closed_period_says_what_usage_said_and_stays_so() {
    let folder = lake();
    let folder = folder.path();
    let (_, said) = run(folder, &["periods", "close", "2026-05", "--reason", "bills of May"], 0);
    assert!(said.starts_with("closed bytes "), "{said}");
    assert!(
        said.contains("2026-05-01T00:00:00Z to 2026-06-01T00:00:00Z UTC  table version 1  4 lines")
    );
    assert_eq!(show(folder), CLOSED);
    let (usage, _) = run(folder, &["usage", "bytes", "--period", "2026-05", "-o", "csv", "-q"], 0);
    assert_eq!(usage, CLOSED);
    // The hash, made apart from the program.
    let listed = list(folder);
    let version = listed[0]["meter_version"].as_str().unwrap();
    let mut hasher = Sha256::new();
    for line in CLOSED.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let customer =
            if cells[0].is_empty() { "null".into() } else { format!("\"{}\"", cells[0]) };
        let text = format!(
            "{{\"meter\":\"bytes\",\"meter_version\":\"{version}\",\"from\":\"2026-05-01T00:00:00Z\",\
             \"to\":\"2026-06-01T00:00:00Z\",\"zone\":\"UTC\",\"table_version\":1,\"lookups\":{{}},\
             \"customer_id\":{customer},\"value\":\"{}\",\"converted\":\"{}\",\"billable\":\"{}\",\
             \"unit\":\"kB\",\"events\":{},\"skipped\":{}}}\n",
            cells[1], cells[2], cells[3], cells[4], cells[5]
        );
        hasher.update(text.as_bytes());
    }
    let hash: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(listed[0]["sha256"], json!(hash));
    assert_eq!(listed[0]["reason"], json!("bills of May"));

    // Closed again, nothing happens; what comes later changes nothing but is told.
    let statements = folder.join("lake/default/statements/_delta_log");
    let entries = || fs::read_dir(&statements).unwrap().count();
    let before = entries();
    let (_, said) = run(folder, &["periods", "close", "2026-05"], 0);
    assert!(said.starts_with("closed already, nothing changed: bytes"), "{said}");
    assert_eq!(entries(), before);
    ingest(folder, &[event("6", Some("acme"), 9, 99), event("7", Some("dune"), 9, 1)]);
    run(folder, &["events", "void", "--key", "4", "--reason", "r"], 0);
    fs::write(folder.join("queries/meters/bytes.yaml"), METER.replace("sum", "max")).unwrap();
    assert_eq!(show(folder), CLOSED);
    let adjustments = ["periods", "adjustments", "bytes", "2026-05", "-o", "csv"];
    let (data, said) = run(folder, &adjustments, 0);
    assert_eq!(
        data,
        "customer_id,closed_value,value,difference,closed_billable,billable,billable_difference,\
         closed_events,events,closed_skipped,skipped\n\
         acme,3201,3300,99,3.3,3.3,0,2,3,0,0\n\
         cold,7,,-7,0.1,,-0.1,1,,0,\n\
         dune,,1,1,,0.1,0.1,,1,,0\n"
    );
    assert!(said.contains("3 lines would be another by table version 3"), "{said}");
    // What it was made of is kept, whatever its age.
    run(folder, &["compact"], 0);
    let (pins, _) = run(folder, &["log", "-o", "csv", "-q"], 0);
    assert!(pins.lines().any(|line| line.starts_with("1,") && line.contains(",true,")), "{pins}");
    let (_, said) = run(folder, &["periods", "verify"], 0);
    assert!(said.contains("1 closed period made again, byte for byte what was closed"), "{said}");
    run(folder, &["verify"], 0);
}

#[test]
fn a_meter_that_cannot_be_closed_keeps_no_others_from_it() {
    let folder = lake();
    let folder = folder.path();
    fs::write(folder.join("queries/meters/bad.yaml"), OTHER).unwrap();
    for (args, done) in
        [(&["periods", "close", "2026-05"][..], "settled"), (&["rollups", "refresh"], "refreshed")]
    {
        let (_, said) = run(folder, args, 1);
        assert!(said.contains(&format!("1 of 2 meters not {done}:\nmeter `bad`")), "{said}");
        assert!(said.contains("bytes"), "{said}");
    }
    assert_eq!(show(folder), CLOSED);
    assert_eq!(list(folder).len(), 1);
    // Nor does a file that cannot be read.
    fs::write(folder.join("queries/meters/bad.yaml"), "meter: bad\naggregation: sums\n").unwrap();
    let (_, said) = run(folder, &["periods", "close", "2026-06"], 1);
    assert!(said.contains("closed bytes") && said.contains("bad.yaml:2:14: "), "{said}");
    assert_eq!(list(folder).len(), 2);
}

#[test]
fn a_period_that_is_opened_again_is_closed_anew() {
    let folder = lake();
    let folder = folder.path();
    run(folder, &["periods", "close", "2026-05", "bytes"], 0);
    ingest(folder, &[event("6", Some("blue"), 9, 10)]);
    let reopen = ["periods", "reopen", "bytes", "2026-05", "--reason", "blue was late"];
    run(folder, &reopen, 0);
    let (_, said) = run(folder, &reopen, 1);
    assert!(said.contains("period `2026-05` of meter `bytes` is not closed"), "{said}");
    let (_, said) = run(folder, &["periods", "close", "2026-05"], 0);
    assert!(said.contains("revision 2"), "{said}");
    assert_eq!(show(folder), CLOSED.replace("blue,90,0.09,0.1,1", "blue,100,0.1,0.1,2"));
    let states: Vec<_> =
        list(folder).iter().map(|c| (c["revision"].clone(), c["state"].clone())).collect();
    assert_eq!(states, [(json!(1), json!("reopened")), (json!(2), json!("closed"))]);
    let (_, said) = run(folder, &["periods", "verify", "bytes"], 0);
    assert!(said.contains("2 closed periods made again"), "{said}");
}

#[test]
fn a_published_definition_closes_a_period_without_its_file() {
    let folder = lake();
    let folder = folder.path();
    run(folder, &["meters", "publish"], 0);
    fs::write(folder.join("queries/meters/bytes.yaml"), METER.replace("sum", "max")).unwrap();
    run(folder, &["meters", "publish", "--from", "2026-06-01"], 0);
    fs::remove_file(folder.join("queries/meters/bytes.yaml")).unwrap();
    run(folder, &["periods", "close", "2026-05", "bytes@published"], 0);
    assert_eq!(show(folder), CLOSED);
    let args = ["periods", "close", "2026-05-20..2026-06-10", "bytes@published"];
    let (_, said) = run(folder, &args, 1);
    assert!(said.contains("in effect changes from"), "{said}");
    run(folder, &["periods", "close", "2026-06", "bytes@published"], 0);
    let listed = list(folder);
    assert_ne!(listed[0]["meter_version"], listed[1]["meter_version"]);
    run(folder, &["periods", "verify"], 0);
}

#[test]
fn what_cannot_be_closed_is_named_and_nothing_is_written() {
    let folder = lake();
    let folder = folder.path();
    for (args, code, want) in [
        (&["close", "2999-01"][..], 1, "ends at 2999-02-01T00:00:00Z only: it can be closed from"),
        (&["close", "this-year"], 1, "only: it can be closed from"),
        (&["close", "2026-05", "--grace", "99999d"], 1, "late events are waited for"),
        (&["close", "2026-05", "--grace", "soon"], 2, "write a number of days or hours"),
        (&["close", "2026-13"], 1, "period `2026-13`"),
        (&["close", "billing:2026-05"], 1, "billing"),
        (&["close", "2026-05", "none"], 1, "no meter `none`"),
        (&["close", "2026-05", "--tz", "Mars/Base"], 2, "Mars/Base"),
        (&["show", "bytes", "2026-05"], 1, "no period of meter `bytes` is closed"),
        (&["reopen", "bytes", "2026-05", "--reason", " "], 2, "it is empty: say why"),
        (&["close", "7d"], 1, "ends with the clock and is another one by now"),
        (&["close", "24h", "--grace", "0"], 1, "close days, such as 2026-10-01..2026-10-08"),
        (&["adjustments", "bytes"], 1, "no period of meter `bytes` is closed"),
    ] {
        let args: Vec<&str> = ["periods"].into_iter().chain(args.iter().copied()).collect();
        let (data, said) = run(folder, &args, code);
        assert!(said.contains(want) && data.is_empty(), "{args:?}: {said}");
    }
    assert_eq!(list(folder), Vec::<Value>::new());
    assert!(!folder.join("lake/default/statements").exists());
    run(folder, &["periods", "close", "2026-05"], 0);
    for (period, tz) in [("2026-05-10", "UTC"), ("2026-05", "Europe/Berlin")] {
        let args = ["periods", "close", period, "--tz", tz, "--grace", "0h"];
        let (_, said) = run(folder, &args, 1);
        assert!(said.contains("overlaps the closed period `2026-05`"), "{said}");
    }
    run(folder, &["periods", "close", "2026-06"], 0);
    let (_, said) = run(folder, &["periods", "show", "bytes", "2026-04"], 1);
    assert!(said.contains("has no closed period `2026-04`; closed are 2026-05, 2026-06"), "{said}");
    assert_eq!(list(folder).len(), 2);
}

#[test]
fn a_period_is_made_again_with_the_lookups_and_anchor_that_it_had() {
    let folder = lake();
    let folder = folder.path();
    let meter = "meter: bytes\nevent: e\naggregation: sum\nproperty: bytes\ncustomer: [owner, \
                 customer_id]\nlookups:\n  owner: { of: customer_id, table: owners, key: k, value: v }\n\
                 billing: { anchor: 2026-01-15, timezone: Europe/Berlin }\n";
    fs::write(folder.join("queries/meters/bytes.yaml"), meter).unwrap();
    fs::write(folder.join("o.csv"), "k,v\nblue,acme\n").unwrap();
    run(folder, &["lookups", "put", "owners", "o.csv"], 0);
    let (_, said) = run(folder, &["periods", "close", "billing:2026-05", "bytes"], 0);
    assert!(said.contains("2026-05-14T22:00:00Z to 2026-06-14T22:00:00Z"), "{said}");
    fs::write(folder.join("o.csv"), "k,v\nblue,cold\n").unwrap();
    run(folder, &["lookups", "put", "owners", "o.csv"], 0);
    let (data, _) =
        run(folder, &["periods", "show", "bytes", "billing:2026-05", "-o", "csv", "-q"], 0);
    assert_eq!(data, "customer_id,value,events,skipped\nacme,2090,2,0\n");
    run(folder, &["periods", "verify"], 0);
    // What it needs is not given away, and missed where it is gone.
    let version = list(folder)[0]["table_version"].to_string();
    assert_eq!(list(folder)[0]["lookups"], json!("{\"owners\":1}"));
    let (_, said) = run(folder, &["unpin", &version], 1);
    assert!(said.contains("closed period `billing:2026-05` of meter `bytes` needs it"), "{said}");
    run(folder, &["verify"], 0);
    let definitions = folder.join("lake/default/events/_meterhouse/meters");
    fs::rename(&definitions, folder.join("away")).unwrap();
    for args in [&["verify"][..], &["periods", "verify"]] {
        let (data, said) = run(folder, args, 4);
        assert!((data + &said).contains("is not kept"), "{said}");
    }
    fs::rename(folder.join("away"), &definitions).unwrap();
    let (data, _) =
        run(folder, &["periods", "adjustments", "bytes", "billing:2026-05-20", "-o", "csv"], 0);
    assert_eq!(
        data,
        "customer_id,closed_value,value,difference,closed_events,events,closed_skipped,skipped\n\
         acme,2090,2000,-90,2,1,0,0\ncold,,90,90,,1,,0\n"
    );
    // A version of the table that only the closing needs is missed, cut short or gone.
    let note = folder.join("lake/default/events/_meterhouse/lookups/owners.0000000001.csv");
    let whole = fs::read(&note).unwrap();
    for cut in [whole.len() - 12, whole.len() - 1, 3, 0] {
        fs::write(&note, &whole[..cut]).unwrap();
        let (found, said) = run(folder, &["verify"], 4);
        assert!(
            format!("{found}{said}").contains("closed period `billing:2026-05`"),
            "{cut}: {found}{said}"
        );
    }
    fs::remove_file(&note).unwrap();
    let (found, said) = run(folder, &["verify"], 4);
    let want = "version 1 of lookup table `owners`";
    assert!(format!("{found}{said}").contains(want), "{found}{said}");
    fs::write(&note, &whole).unwrap();
    run(folder, &["verify"], 0);
}

#[test]
fn customers_with_periods_of_their_own_have_them_closed_each_with_its_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir_all(folder.join("queries/meters")).unwrap();
    let billing = "billing: { file: cycles.csv, key: customer, anchor: since, cycle: length, timezone: zone }\n";
    let billing_of_some = billing.replace(" }", ", otherwise: none }");
    let cycles = |anna: &str| {
        // Of the same bounds are anna's and zoe's; the last has two periods in May, and eve none at all.
        let rows = format!(
            "customer,since,length,zone\nanna,{anna},monthly,UTC\nbob,2026-01-15,monthly,Europe/Berlin\n\
             zoe,2025-03-01,monthly,UTC\ncarl,2026-01-31,quarterly,UTC\ndora,2026-05-04,14 days,UTC\n"
        );
        fs::write(folder.join("queries/meters/cycles.csv"), rows).unwrap();
    };
    let kinds = [
        (
            "bytes",
            "aggregation: sum\nproperty: bytes\nunit: { name: kB, divide_by: 1000, round: up }\n",
        ),
        ("level", "aggregation: time_weighted\nproperty: bytes\nof: level\nper: [customer_id]\n"),
    ];
    let define = |billing: &str| {
        for (name, text) in kinds {
            let text = format!("meter: {name}\nevent: e\n{text}{billing}");
            fs::write(folder.join(format!("queries/meters/{name}.yaml")), text).unwrap();
        }
    };
    define(billing);
    cycles("2026-04-01");
    let mut events = Vec::new();
    let mut random = Random::new(20_261_127);
    for n in 0..400 {
        let customer = ["anna", "bob", "zoe", "carl", "dora", "eve"][(n % 6) as usize];
        let at = format!(
            "2026-{:02}-{:02}T{:02}:30:00Z",
            4 + n % 5,
            1 + random.below(28),
            random.below(24)
        );
        let event = json!({
            "event_name": "e", "idempotency_key": format!("{n}"), "customer_id": customer,
            "timestamp": at, "properties": { "bytes": random.below(10_000) },
        });
        events.push(event.to_string() + "\n");
    }
    ingest(folder, &events);
    let (_, said) = run(folder, &["periods", "close", "billing:2026-05"], 1);
    let closed = said.matches("closed bytes").count() + said.matches("closed level").count();
    assert_eq!(closed, 2 * 4, "of each meter, four bounds: {said}");
    // Whoever has no row has no period, and that is all that is wrong.
    assert!(said.contains("2 of 2 meters not settled:\n"), "{said}");
    assert_eq!(said.matches("customer `eve` used something").count(), 2, "{said}");
    // Every customer has a line in the period that is its own, and there alone.
    let mut of_customers = BTreeMap::new();
    for closing in list(folder) {
        let [meter, period] =
            ["meter", "period"].map(|key| closing[key].as_str().unwrap().to_owned());
        let show = ["periods", "show", &meter, &period, "-o", "ndjson", "-q"];
        for line in
            run(folder, &show, 0).0.lines().map(|line| serde_json::from_str::<Value>(line).unwrap())
        {
            let customer = line["customer_id"].as_str().unwrap().to_owned();
            let usage = [
                "usage",
                &meter,
                "--period",
                &period,
                "--customer",
                &customer,
                "--window",
                "billing_period",
                "-o",
                "ndjson",
                "-q",
            ];
            let asked: Value = serde_json::from_str(run(folder, &usage, 0).0.trim()).unwrap();
            for key in ["value", "billable", "events", "skipped"] {
                assert_eq!(line[key], asked[key], "{meter} {period} {customer}: {asked}");
            }
            let bounds: &mut Vec<String> =
                of_customers.entry((meter.clone(), customer)).or_default();
            bounds.push(period.clone());
        }
    }
    let want = [
        ("anna", vec!["2026-05-01T00:00:00Z..2026-06-01T00:00:00Z"]),
        ("bob", vec!["2026-05-14T22:00:00Z..2026-06-14T22:00:00Z"]),
        (
            "dora",
            vec![
                "2026-05-04T00:00:00Z..2026-05-18T00:00:00Z",
                "2026-05-18T00:00:00Z..2026-06-01T00:00:00Z",
            ],
        ),
        ("zoe", vec!["2026-05-01T00:00:00Z..2026-06-01T00:00:00Z"]),
    ];
    for (meter, _) in kinds {
        for (customer, bounds) in &want {
            assert_eq!(
                of_customers[&(meter.to_owned(), (*customer).to_owned())],
                *bounds,
                "{meter} {customer}"
            );
        }
    }
    assert_eq!(of_customers.len(), 2 * want.len(), "{of_customers:?}");
    // Closed once; made again byte for byte; told apart from what came later. Eve is not billed.
    define(&billing_of_some);
    let (_, said) = run(folder, &["periods", "close", "billing:2026-05"], 0);
    assert_eq!(said.matches("closed already").count(), 8, "{said}");
    run(folder, &["periods", "verify"], 0);
    ingest(folder, &[event("late", Some("anna"), 20, 7)]);
    run(folder, &["periods", "verify"], 0);
    let bounds = "2026-05-01T00:00:00Z..2026-06-01T00:00:00Z";
    let (data, _) = run(folder, &["periods", "adjustments", "bytes", bounds, "-o", "csv"], 0);
    assert_eq!(data.lines().count(), 2, "{data}");
    let of_anna = format!("{},anna,", bounds.replace("..", ","));
    assert!(data.lines().nth(1).unwrap().starts_with(&of_anna), "{data}");
    // A name that means several shows them all; one is opened again by its own bounds.
    for what in ["show", "adjustments"] {
        let rows = |period: &str| {
            let (data, said) = run(folder, &["periods", what, "bytes", period, "-o", "csv"], 0);
            (data.lines().skip(1).map(ToOwned::to_owned).collect::<Vec<_>>(), said)
        };
        let (all, said) = rows("billing:2026-05");
        let of_meter = list(folder).into_iter().filter(|closing| closing["meter"] == "bytes");
        let apart = of_meter.flat_map(|closing| {
            let [from, to] = ["from", "to"].map(|bound| closing[bound].as_str().unwrap());
            rows(&format!("{from}..{to}")).0
        });
        assert_eq!(all, apart.collect::<Vec<_>>(), "{said}");
        assert!(!all.is_empty(), "{what}");
    }
    let reopen = ["periods", "reopen", "bytes", "billing:2026-05", "--reason", "which?"];
    let (_, said) = run(folder, &reopen, 1);
    assert!(said.contains("may be several closed periods") && said.contains(bounds), "{said}");
    // One that was opened again is missed by whoever asks for all.
    run(folder, &["periods", "reopen", "bytes", bounds, "--reason", "late"], 0);
    let missed =
        format!("warning: the period {bounds} of bytes was opened again and is not closed anew");
    for ask in [
        &["periods", "show", "bytes", "billing:2026-05"][..],
        &["periods", "adjustments", "bytes", "billing:2026-05"],
        &["export", "statements", "bytes", "--period", "billing:2026-05", "--out", "may.csv"],
        &["export", "statements", "--out", "all.csv"],
    ] {
        let (_, said) = run(folder, ask, 0);
        assert_eq!(said.matches(&missed).count(), 1, "{ask:?}: {said}");
    }
    run(folder, &["periods", "close", "billing:2026-05", "bytes"], 0);
    let (_, said) = run(folder, &["export", "statements", "--out", "all.csv"], 0);
    assert!(!said.contains("warning"), "{said}");
    // The next month goes on where this one ended, whatever the bounds; carl's quarter was open in May.
    let (_, said) = run(folder, &["periods", "close", "billing:2026-06", "bytes"], 0);
    assert_eq!(said.matches("closed ").count(), 5, "{said}");
    let (_, said) = run(folder, &["periods", "close", "billing:2026-04", "bytes"], 0);
    assert_eq!(said.matches("closed ").count(), 5, "{said}");
    // Whatever day this runs on, the last ones have ended.
    let (_, said) = run(folder, &["periods", "close", "last-billing-period", "bytes"], 1);
    assert!((3..=4).contains(&said.matches("closed bytes").count()), "{said}");
    // What was passed over is told, with the command that closes it.
    let passed = "customers `anna`, `zoe` used something from 2026-07-01T00:00:00Z to \
                  2026-08-01T00:00:00Z, a period that was passed over";
    assert!(said.contains(passed), "{said}");
    for month in ["billing:2026-07", "billing:2026-08"] {
        run(folder, &["periods", "close", month, "bytes"], 0);
    }
    let (_, said) = run(folder, &["periods", "close", "last-billing-period", "bytes"], 0);
    assert!(!said.contains("closed bytes"), "{said}");
    // A customer whose periods change is billed nowhere twice.
    cycles("2026-04-10");
    let (_, said) = run(folder, &["periods", "close", "billing:2026-05", "bytes"], 1);
    assert!(
        said.contains("customer `anna` has a line in the closed period")
            && said.contains("overlaps"),
        "{said}"
    );
    assert_eq!(said.matches("closed already").count(), 4, "those of the others: {said}");
    let (_, said) = run(folder, &["periods", "close", "2026-05", "bytes"], 1);
    assert!(said.contains("overlaps the closed period"), "{said}");
    let (_, said) = run(folder, &["periods", "close", "this-billing-period", "bytes"], 1);
    assert!(said.contains("no customer's period can be closed yet"), "{said}");
    let (_, said) = run(folder, &["periods", "close", "billing:2026-13", "bytes"], 1);
    assert!(said.contains("2026-13"), "{said}");
    run(folder, &["periods", "verify"], 0);
}

/// A meter whose customers' billing periods stand in `billing`, and events of May and June 2026.
pub(crate) fn lake_of_periods(billing: &str, events: &[(&str, &str, u64)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("queries/meters")).unwrap();
    let meter = format!("{METER}billing: {billing}\n");
    fs::write(folder.path().join("queries/meters/bytes.yaml"), meter).unwrap();
    let event = |(number, (customer, day, bytes)): (usize, &(&str, &str, u64))| {
        let event = json!({
            "event_name": "e", "idempotency_key": format!("{number}"), "customer_id": customer,
            "timestamp": format!("2026-{day}T06:00:00Z"), "properties": { "bytes": bytes },
        });
        event.to_string() + "\n"
    };
    ingest(folder.path(), &events.iter().enumerate().map(event).collect::<Vec<_>>());
    folder
}

const OF_FILE: &str = "{ file: ../cycles.csv, key: customer, anchor: since, from: from }";

fn cycles(folder: &Path, rows: &str) {
    fs::write(folder.join("queries/cycles.csv"), format!("customer,since,from\n{rows}")).unwrap();
}

#[test]
fn whoever_gets_a_period_after_it_was_closed_is_told_and_billed_once_it_was_opened_again() {
    let used = [("anna", "05-03", 1_000), ("bob", "05-04", 20), ("carl", "06-20", 3)];
    let folder = lake_of_periods(OF_FILE, &used);
    let folder = folder.path();
    let close = ["periods", "close", "billing:2026-05"];
    // Whoever used nothing in it is no matter.
    for rows in ["anna,2026-05-01,\n", "anna,2026-05-01,\ncarl,2026-06-01,\n"] {
        cycles(folder, rows);
        let (_, said) = run(folder, &close, 1);
        let without = "customer `bob` used something from 2026-05-01T00:00:00Z to \
                       2026-06-01T00:00:00Z and has no billing period";
        assert!(said.contains(without) && !said.contains("carl"), "{said}");
    }
    cycles(folder, "anna,2026-05-01,\nbob,2026-05-01,\ncarl,2026-06-01,\n");
    let (_, said) = run(folder, &close, 1);
    assert!(
        said.contains("closed already")
            && said.contains("was closed before it was that of customer `bob`, who"),
        "{said}"
    );
    let bounds = "2026-05-01T00:00:00Z..2026-06-01T00:00:00Z";
    assert!(said.contains(&format!("meterhouse periods reopen bytes {bounds} --reason")), "{said}");
    // Another late line of who is known needs nothing of the kind: it is an adjustment.
    run(folder, &["periods", "reopen", "bytes", bounds, "--reason", "bob was missing"], 0);
    run(folder, &close, 0);
    let (lines, _) = run(folder, &["periods", "show", "bytes", bounds, "-o", "csv", "-q"], 0);
    assert_eq!(
        lines,
        "from,to,customer_id,value,converted,billable,events,skipped\n\
         2026-05-01T00:00:00Z,2026-06-01T00:00:00Z,anna,1000,1,1,1,0\n\
         2026-05-01T00:00:00Z,2026-06-01T00:00:00Z,bob,20,0.02,0.1,1,0\n"
    );
    run(folder, &close, 0);
    run(folder, &["periods", "verify"], 0);
}

#[test]
fn a_customer_whose_next_period_does_not_begin_where_the_closed_one_ended_is_told() {
    let used = [
        ("anna", "05-03", 1_000),
        ("anna", "06-03", 70),
        ("anna", "06-20", 5),
        ("zoe", "06-08", 1),
    ];
    let folder = lake_of_periods(OF_FILE, &used);
    let folder = folder.path();
    cycles(folder, "anna,2026-05-01,\nzoe,2026-05-07,\n");
    run(folder, &["periods", "close", "billing:2026-05"], 0);
    // By the new anchor the third of June is in a period that began in May, in what was billed.
    cycles(folder, "anna,2026-06-05,\nzoe,2026-05-07,\n");
    let close = ["periods", "close", "billing:2026-06"];
    let (_, said) = run(folder, &close, 1);
    assert_eq!(said.matches("closed bytes").count(), 2, "zoe's and anna's are closed: {said}");
    assert!(
        said.contains(
            "customer `anna` was billed until 2026-06-01T00:00:00Z, and by now has a period \
                       from 2026-05-05T00:00:00Z to 2026-06-05T00:00:00Z"
        ),
        "{said}"
    );
    // Those few days are a period of their own where the former cycle stays.
    cycles(folder, "anna,2026-05-01,\nanna,2026-06-05,2026-06-05\nzoe,2026-05-07,\n");
    let (_, said) = run(folder, &close, 0);
    assert_eq!(said.matches("closed bytes").count(), 1, "{said}");
    let of =
        |bounds: &str| run(folder, &["periods", "show", "bytes", bounds, "-o", "csv", "-q"], 0).0;
    assert!(of("2026-06-01T00:00:00Z..2026-06-05T00:00:00Z").contains(",anna,70,"));
    assert!(of("2026-06-05T00:00:00Z..2026-07-05T00:00:00Z").contains(",anna,5,"));
}

#[test]
fn periods_of_the_lakes_table_are_those_that_it_had_when_they_were_closed() {
    let used = [("anna", "05-03", 1_000), ("zoe", "05-20", 70)];
    let of_table = "{ table: cycles, key: customer, anchor: since }";
    let folder = lake_of_periods(of_table, &used);
    let folder = folder.path();
    let put = |rows: &str| {
        fs::write(folder.join("cycles.csv"), format!("customer,since\n{rows}")).unwrap();
        run(folder, &["lookups", "put", "cycles", "cycles.csv"], 0);
    };
    put("anna,2026-05-01\nzoe,2026-05-01\n");
    run(folder, &["meters", "publish", "bytes", "--from", "2026-01-01"], 0);
    let (_, said) = run(folder, &["periods", "close", "billing:2026-05", "bytes@published"], 0);
    assert_eq!(said.matches("closed bytes").count(), 1, "{said}");
    put("anna,2026-05-10\nzoe,2026-05-01\n");
    let of = |command: &str| {
        run(folder, &["periods", command, "bytes", "billing:2026-05", "-o", "csv", "-q"], 0).0
    };
    assert!(of("show").contains(",anna,1000,"), "{}", of("show"));
    assert_eq!(of("adjustments").lines().count(), 1, "no credit: {}", of("adjustments"));
    run(folder, &["periods", "verify"], 0);
    let (_, said) = run(folder, &["periods", "close", "billing:2026-05"], 1);
    assert!(said.contains("customer `anna` has a line in the closed period"), "{said}");
    assert!(said.contains("closed already"), "zoe's is told all the same: {said}");
    run(folder, &["periods", "reopen", "bytes", "billing:2026-05", "--reason", "moved"], 0);
}

#[test]
fn a_period_that_is_named_by_today_gets_a_name_that_lasts() {
    let folder = lake();
    let folder = folder.path();
    for period in ["last-month", "yesterday"] {
        // Whatever day this runs on, two closed periods may overlap: each has a lake's part of its own.
        let args = ["periods", "close", period, "--grace", "0h", "--namespace", period];
        run(
            folder,
            &["ingest", "e.ndjson", "--allow-missing-customer", "--namespace", period, "-q"],
            0,
        );
        run(folder, &args, 0);
        let (data, _) =
            run(folder, &["periods", "list", "-o", "ndjson", "-q", "--namespace", period], 0);
        let closing: Value = serde_json::from_str(data.trim()).unwrap();
        let length = if period == "last-month" { 7 } else { 10 };
        let from = closing["from"].as_str().unwrap();
        assert_eq!(closing["period"].as_str().unwrap(), &from[..length], "{data}");
        let show = ["periods", "show", "bytes", period, "--namespace", period, "-q"];
        run(folder, &show, 0);
    }
    run(folder, &["periods", "close", "2026-05-03T10:00:00+02:00..2026-05-04"], 0);
    assert_eq!(list(folder)[0]["period"], json!("2026-05-03T10:00:00+02:00..2026-05-04"));
}

pub(crate) fn context(folder: &Path) -> Context {
    let location = Location::parse(folder.join("lake").to_str().unwrap()).unwrap();
    let lake = RUNTIME.block_on(Lake::open(&location, &Namespace::default())).unwrap();
    let engine = Engine::new(&location, Limits::default()).unwrap();
    Context { lake, engine, meters: Arc::default(), clock: Clock::System }
}

#[test]
fn a_period_that_is_not_as_it_was_closed_is_found() {
    let folder = lake();
    let folder = folder.path();
    run(folder, &["periods", "close", "2026-05"], 0);
    ingest(folder, &[event("6", Some("acme"), 9, 99)]);
    let context = context(folder);
    let closing = RUNTIME.block_on(period::list(&context.lake, None)).unwrap().remove(0);
    let verify = |closing: &Closing| RUNTIME.block_on(period::verify(&context, closing)).unwrap();
    assert!(verify(&closing).is_right());
    let mut other = closing.clone();
    other.record.sha256 = "0".repeat(64);
    assert!(!verify(&other).is_whole);
    let mut other = closing.clone();
    other.record.lines += 1;
    assert!(!verify(&other).is_whole);
    // The events of another version make another line of one customer.
    let mut other = closing.clone();
    other.record.table_version += 1;
    let verdict = verify(&other);
    let (stored, again) = &verdict.differing[0];
    assert!(stored.as_ref().unwrap().contains("\"value\":\"3201\""), "{stored:?}");
    assert!(again.as_ref().unwrap().contains("\"value\":\"3300\""), "{again:?}");
    assert_eq!(verdict.differing.len(), 1);
    // A file of lines that is damaged is named.
    let file = folder.join("lake/default/statements").join(&closing.record.files[0]);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let (_, said) = run(folder, &["periods", "verify"], 4);
    assert!(
        said.contains(&closing.record.files[0]) && said.contains("1 of 1 closed period"),
        "{said}"
    );
}

fn spawn(folder: &Path, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_meterhouse"))
        .current_dir(folder)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn of_those_who_close_a_period_at_once_one_does() {
    let folder = lake();
    let folder = folder.path();
    let children: Vec<Child> =
        (0..4).map(|_| spawn(folder, &["periods", "close", "2026-05"])).collect();
    let mut closed = 0;
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        closed += usize::from(said.starts_with("closed bytes"));
    }
    assert_eq!(closed, 1);
    assert_eq!(list(folder).len(), 1);
    assert_eq!(show(folder), CLOSED);
    // Nor do those who come at other moments of a closing.
    let mut random = Random::new(7);
    for day in 1..7 {
        let period = format!("2026-07-0{day}");
        let close = |at: &str| spawn(folder, &["periods", "close", &period, "--at", at]);
        let one = close("1");
        std::thread::sleep(std::time::Duration::from_millis(random.below(120)));
        for child in [one, close("0")] {
            assert!(child.wait_with_output().unwrap().status.success());
        }
    }
    assert_eq!(list(folder).len(), 7);
    // Nor do two that overlap.
    let periods = ["2026-04", "2026-04-10..2026-04-20", "2026-03-15..2026-04-15"];
    let children = periods.map(|period| spawn(folder, &["periods", "close", period]));
    let mut winners = 0;
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        winners += usize::from(said.starts_with("closed bytes"));
        assert!(said.starts_with("closed bytes") || said.contains("overlaps the closed"), "{said}");
    }
    assert_eq!(winners, 1);
    let bounds =
        |closing: &Value| ["from", "to"].map(|name| closing[name].as_str().unwrap().to_owned());
    let mut all: Vec<[String; 2]> = list(folder).iter().map(bounds).collect();
    all.sort();
    assert!(all.windows(2).all(|pair| pair[0][1] <= pair[1][0]), "{all:?}");
    assert_eq!(all.len(), 7 + winners);
}

/// How many closings are killed; more of them by `METERHOUSE_CLOSE_KILLS`.
fn kills() -> u64 {
    std::env::var("METERHOUSE_CLOSE_KILLS").map_or(7, |text| text.parse().unwrap())
}

#[test]
fn a_killed_closing_is_there_in_full_or_not_at_all() {
    let (folder, undisturbed) = (lake(), lake());
    let (folder, undisturbed) = (folder.path(), undisturbed.path());
    let first = jiff::civil::date(2026, 5, 30);
    // Of each one or two are killed before it is closed; on a busy machine some end before that.
    let days = (0..kills() + 7).map(|back| {
        let back = jiff::Span::new().days(i64::try_from(back).unwrap());
        first.checked_sub(back).unwrap().to_string()
    });
    let days: Vec<String> = days.collect();
    // Every day has lines, and each of them another sum.
    let events = days.iter().enumerate().flat_map(|(place, day)| {
        (0..LINES).map(move |n| {
            let value = place * LINES + n + 1;
            let at = format!("{day}T12:00:00Z");
            json!({
                "event_name": "e", "idempotency_key": format!("{day} {n}"),
                "customer_id": format!("c{n}"), "timestamp": at, "properties": { "bytes": value },
            })
            .to_string()
                + "\n"
        })
    });
    let events: Vec<String> = events.collect();
    for lake in [folder, undisturbed] {
        ingest(lake, &events);
    }
    let mut random = Random::new(20_261_127);
    // The lines of an undisturbed lake, and their hashes.
    let mut pace = 0;
    for day in &days {
        let started = std::time::Instant::now();
        run(undisturbed, &["periods", "close", day], 0);
        pace = u64::try_from(started.elapsed().as_micros()).unwrap();
    }
    let (mut killed, mut after) = (0, 0);
    for day in &days {
        let closings = || {
            let of_day = |closing: &&Value| closing["period"] == day.as_str();
            list(folder).iter().filter(of_day).count()
        };
        while killed < kills() && closings() == 0 {
            let mut child = spawn(folder, &["periods", "close", day]);
            std::thread::sleep(std::time::Duration::from_micros(random.below(pace)));
            let _ = child.kill();
            let is_killed = child.wait().unwrap().code().is_none();
            killed += u64::from(is_killed);
            // Whatever was done of it, it is done once.
            let done = closings();
            assert!(done <= 1, "{day}");
            after += u64::from(is_killed && done == 1);
        }
        run(folder, &["periods", "close", day], 0);
        assert_eq!(closings(), 1, "{day}");
    }
    eprintln!("{killed} closings were killed, {after} of them once the period was closed");
    assert!(killed == kills(), "of {} closings {killed} were killed", kills());
    let (_, said) = run(folder, &["periods", "verify"], 0);
    assert!(said.contains(&format!("{} closed periods made again", days.len())), "{said}");
    let hashes = |folder: &Path| -> BTreeMap<String, [Value; 2]> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let of_days =
            list(folder).into_iter().filter(|closing| days.contains(&text(&closing["period"])));
        let hash = |closing: Value| {
            (text(&closing["period"]), ["sha256", "lines"].map(|of| closing[of].clone()))
        };
        of_days.map(hash).collect()
    };
    let (here, there) = (hashes(folder), hashes(undisturbed));
    assert_eq!(here, there);
    assert_eq!(here.len(), days.len());
    assert!(here.values().all(|[_, lines]| lines.as_u64() >= Some(LINES as u64)), "{here:?}");
}

/// Lines of a day whose closing is killed, at least.
const LINES: usize = 500;

/// Every way of counting, over events of `moments`.
const KINDS: [(&str, &str); 12] = [
    ("number", "aggregation: count"),
    ("product", "aggregation: sum\nexpression: bytes * 3"),
    ("mean", "aggregation: average\nproperty: bytes\nweight: hosts"),
    ("last", "aggregation: latest\nproperty: bytes"),
    ("high", "aggregation: percentile\npercentile: 95\nproperty: bytes"),
    ("seats", "aggregation: count_unique\nproperty: seat\noperation: op"),
    ("seat_days", "aggregation: count_unique\nproperty: seat\noperation: op\nprorate: days"),
    ("peaks", "aggregation: sum\nof: { aggregation: max, property: bytes, per: [seat, day] }"),
    ("level", "aggregation: time_weighted\nof: level\nproperty: bytes\nper: seat"),
    ("told", "aggregation: reported\nproperty: bytes\noperation: change\nper: seat"),
    ("told_anew", "aggregation: reported\nproperty: bytes\noperation: change\nreset: month"),
    (
        "stays",
        "aggregation: sum\nproperty: bytes\nperiod: { start: begins, end: ends, place: prorate }",
    ),
];

/// Events at moments of which many are another day in Berlin than in UTC.
fn moments() -> Vec<String> {
    let mut random = Random::new(20_260_515);
    let instant = |random: &mut Random| {
        let (month, day) = (4 + random.below(3), 1 + random.below(30));
        let hour = if random.below(2) == 0 { 22 + random.below(2) } else { random.below(24) };
        format!("2026-{month:02}-{day:02}T{hour:02}:{:02}:00Z", random.below(60))
    };
    let pick = |random: &mut Random, one: &'static str, other: &'static str| match random.below(2) {
        0 => one,
        _ => other,
    };
    let mut events = Vec::new();
    for key in 0..240 {
        let (one, other) = (instant(&mut random), instant(&mut random));
        let (begins, ends) = if one <= other { (&one, &other) } else { (&other, &one) };
        let event = json!({
            "event_name": "e",
            "idempotency_key": format!("{key}"),
            "customer_id": pick(&mut random, "acme", "blue"),
            "timestamp": one,
            "properties": {
                "bytes": random.below(1_000),
                "hosts": 1 + random.below(3),
                "seat": format!("s{}", random.below(4)),
                "op": pick(&mut random, "add", "remove"),
                "change": pick(&mut random, "DELTA", "SET"),
                "begins": begins,
                "ends": ends,
            },
        });
        events.push(event.to_string() + "\n");
    }
    events
}

#[test]
fn every_kind_of_meter_is_closed_and_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let meters = folder.join("queries/meters");
    fs::create_dir_all(&meters).unwrap();
    for (zone, text) in [("", ""), ("_berlin", "timezone: Europe/Berlin\n")] {
        // Of those that count days there is one of each zone.
        let of_days = |(name, _): &(&str, &str)| ["seat_days", "peaks", "told_anew"].contains(name);
        for (name, kind) in KINDS.into_iter().filter(|kind| zone.is_empty() || of_days(kind)) {
            let name = format!("{name}{zone}");
            let text = format!(
                "meter: {name}\nevent: e\n{kind}\n{text}billing: {{ anchor: 2026-01-15, timezone: \
                 Europe/Berlin }}\n"
            );
            fs::write(meters.join(format!("{name}.yaml")), text).unwrap();
        }
    }
    fs::write(folder.join("e.ndjson"), moments().concat()).unwrap();
    let name = |entry: fs::DirEntry| entry.path().file_stem()?.to_str().map(str::to_owned);
    let names: Vec<String> =
        fs::read_dir(&meters).unwrap().filter_map(|entry| name(entry.unwrap())).collect();
    for (space, period, tz) in [
        // By the calendar they are closed only where they are named.
        ("calendar", "2026-05", None),
        ("zoned", "2026-05", Some("America/New_York")),
        ("billing", "billing:2026-05", None),
        ("relative", "last-billing-period", None),
    ] {
        run(folder, &["ingest", "e.ndjson", "--namespace", space, "-q"], 0);
        let mut args = vec!["periods", "close", period, "--grace", "0h", "--namespace", space];
        args.extend(tz.iter().flat_map(|tz| ["--tz", *tz]));
        if period == "2026-05" {
            args.extend(names.iter().map(String::as_str));
        }
        run(folder, &args, 0);
        let (_, said) = run(folder, &["periods", "verify", "--namespace", space], 0);
        assert!(said.contains("15 closed periods made again, byte for byte"), "{space}: {said}");
        let (data, _) =
            run(folder, &["periods", "list", "--namespace", space, "-o", "ndjson", "-q"], 0);
        for line in data.lines() {
            let closing: Value = serde_json::from_str(line).unwrap();
            let (meter, period) =
                (closing["meter"].as_str().unwrap(), closing["period"].as_str().unwrap());
            let is_billing = matches!(space, "billing" | "relative");
            assert_eq!(period.starts_with("billing:"), is_billing, "{line}");
            assert!(!is_billing || closing["zone"] == "Europe/Berlin", "{line}");
            if space != "calendar" {
                let args = ["periods", "adjustments", meter, period, "--namespace", space];
                let (adjusted, said) = run(folder, &[&args[..], &["-o", "ndjson"]].concat(), 0);
                assert_eq!(adjusted, "", "{space} {meter}: {said}");
            }
            // What was closed is what usage says to the same question.
            if matches!(space, "calendar" | "billing") {
                let show =
                    ["periods", "show", meter, period, "--namespace", space, "-o", "csv", "-q"];
                let usage =
                    ["usage", meter, "--period", period, "--namespace", space, "-o", "csv", "-q"];
                let (shown, used) = (run(folder, &show, 0).0, run(folder, &usage, 0).0);
                assert_eq!(shown, used, "{space} {meter}");
                assert!(shown.lines().count() > 1, "{space} {meter}");
            }
        }
    }
}
