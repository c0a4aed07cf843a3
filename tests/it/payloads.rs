//! Events in the shapes of other systems, as their clients send them: recognised by themselves or
//! named by `--format`, in files as in standard input.
//!
//! The same usage is told in every shape, so that one question has one answer for all of them.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Name for `--format`, how it is reported, and two events: `first` (100 bytes on a.test), `second`
/// (50 bytes, no domain).
const PAYLOADS: [(&str, &str, [&str; 2]); 8] = [
    (
        "stigg",
        "Stigg",
        [
            r#"{"customerId":"acme","eventName":"transfer","idempotencyKey":"k1","dimensions":{"bytes":100,"domain":"a.test"},"timestamp":"2026-10-05T14:30:00.000Z","resourceId":"r1"}"#,
            r#"{"customerId":"acme","eventName":"transfer","idempotencyKey":"k2","dimensions":{"bytes":50},"timestamp":"2026-10-05T15:30:00+00:00"}"#,
        ],
    ),
    (
        "alguna",
        "Alguna",
        [
            r#"{"uniqueId":"k1","eventName":"transfer","accountId":"acme","timestamp":"2026-10-05T14:30:00Z","properties":{"bytes":100,"domain":"a.test"}}"#,
            r#"{"uniqueId":"k2","eventName":"transfer","accountId":"acme","timestamp":"2026-10-05T15:30:00Z","properties":{"bytes":50}}"#,
        ],
    ),
    (
        "metronome",
        "Metronome",
        [
            r#"{"transaction_id":"k1","customer_id":"acme","event_type":"transfer","timestamp":"2026-10-05T14:30:00Z","properties":{"bytes":"100","domain":"a.test"}}"#,
            r#"{"transaction_id":"k2","customer_id":"acme","event_type":"transfer","timestamp":"2026-10-05T15:30:00Z","properties":{"bytes":"50"}}"#,
        ],
    ),
    (
        "cloudevents",
        "CloudEvents",
        [
            r#"{"specversion":"1.0","id":"k1","source":"edge-1","type":"transfer","subject":"acme","time":"2026-10-05T14:30:00Z","datacontenttype":"application/json","data":{"bytes":100,"domain":"a.test"}}"#,
            r#"{"specversion":"1.0","id":"k2","source":"edge-1","type":"transfer","subject":"acme","time":"2026-10-05T15:30:00Z","data":{"bytes":50}}"#,
        ],
    ),
    (
        "openmeter",
        "CloudEvents",
        [
            r#"{"id":"k1","source":"sdk","specversion":"1.0","type":"transfer","subject":"acme","time":"2026-10-05T16:30:00+02:00","data":{"bytes":"100","domain":"a.test"}}"#,
            r#"{"id":"k2","source":"sdk","specversion":"1.0","type":"transfer","subject":"acme","time":"2026-10-05T15:30:00Z","data":{"bytes":"50"}}"#,
        ],
    ),
    (
        "orb",
        "Orb",
        [
            r#"{"event_name":"transfer","idempotency_key":"k1","timestamp":"2026-10-05T14:30:00Z","external_customer_id":"acme","properties":{"bytes":100,"domain":"a.test"}}"#,
            r#"{"event_name":"transfer","idempotency_key":"k2","timestamp":"2026-10-05T15:30:00Z","external_customer_id":"acme","properties":{"bytes":50}}"#,
        ],
    ),
    (
        "lago",
        "Lago",
        [
            r#"{"transaction_id":"k1","external_subscription_id":"acme","code":"transfer","timestamp":"1791210600","properties":{"bytes":100,"domain":"a.test"}}"#,
            r#"{"transaction_id":"k2","external_subscription_id":"acme","code":"transfer","timestamp":1791214200.000,"properties":{"bytes":50}}"#,
        ],
    ),
    (
        "flexprice",
        "Flexprice",
        [
            r#"{"event_name":"transfer","external_customer_id":"acme","event_id":"k1","properties":{"bytes":100,"domain":"a.test"},"timestamp":"2026-10-05T14:30:00Z","source":"api"}"#,
            r#"{"event_name":"transfer","external_customer_id":"acme","event_id":"k2","properties":{"bytes":50},"timestamp":"2026-10-05T15:30:00Z","source":"api"}"#,
        ],
    ),
];

/// What every one of them comes to.
const WANT: &str = "idempotency_key,event_name,customer_id,timestamp,bytes,domain\n\
                    k1,transfer,acme,2026-10-05T14:30:00Z,100,a.test\n\
                    k2,transfer,acme,2026-10-05T15:30:00Z,50,\n";

const QUESTION: &str = "SELECT idempotency_key, event_name, customer_id, timestamp, bytes, domain \
                        FROM events ORDER BY idempotency_key";

fn meterhouse(folder: &Path, args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_meterhouse"))
        .current_dir(folder)
        .env_remove("METERHOUSE_LAKE")
        .env_remove("METERHOUSE_STATE")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads files never reads this.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

/// Ingests `text` from standard input, gives what was said and the events that are there then.
fn ingested(text: &str, args: &[&str]) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = meterhouse(folder.path(), &[&["ingest", "-"], args].concat(), text);
    let said = String::from_utf8(output.stderr).unwrap();
    let rows = meterhouse(folder.path(), &["sql", QUESTION, "-o", "csv", "-q"], "");
    (said, String::from_utf8(rows.stdout).unwrap())
}

#[test]
fn payloads_are_recognised_whatever_stands_around_them() {
    for (format, reported, [first, second]) in PAYLOADS {
        let array = format!("[{first},\n{second}]\n");
        let batch = format!("{{\"events\":[{first},{second}]}}");
        let spread = format!("{{\n  \"events\": [\n    {first},\n    {second}\n  ]\n}}\n");
        let single = format!("{{\"event\":{first}}}\n{{\"event\":{second}}}\n");
        for (form, text, counts) in [
            ("lines", format!("{first}\n{second}\n"), "2 read, 2 accepted, 0 duplicate"),
            ("an array", array, "2 read, 2 accepted, 0 duplicate"),
            ("a batch", batch.clone(), "2 read, 2 accepted, 0 duplicate"),
            ("a batch spread over lines", spread, "2 read, 2 accepted, 0 duplicate"),
            ("batches", format!("{batch}\n{batch}\n"), "4 read, 2 accepted, 2 duplicate"),
            ("single", single, "2 read, 2 accepted, 0 duplicate"),
            ("events, then a batch", format!("{first}\n{batch}\n"), "3 read, 2 accepted, 1 dup"),
        ] {
            let (said, rows) = ingested(&text, &[]);
            assert!(said.contains(counts) && said.contains("0 rejected"), "{form}: {said}");
            assert!(said.contains(&format!("read as {reported} events: -")), "{format}: {said}");
            assert_eq!(rows, WANT, "{format}, {form}: {said}");
        }
        let (said, rows) = ingested(&format!("{first}\n{second}\n"), &["--format", format]);
        assert!(!said.contains("read as"), "{format}: {said}");
        assert_eq!(rows, WANT, "{format}: {said}");
    }
}

#[test]
fn a_whole_event_of_each_payload_keeps_what_its_envelope_says() {
    let first = |at: usize| PAYLOADS[at].2[0];
    for (name, event, want) in [
        ("resource of Stigg", first(0), "r1,"),
        ("Alguna has neither", first(1), ","),
        ("Metronome has neither", first(2), ","),
        ("source of CloudEvents", first(3), ",edge-1"),
        ("source of OpenMeter", first(4), ",sdk"),
        ("Orb has neither", first(5), ","),
        ("Lago has neither", first(6), ","),
        ("source of Flexprice", first(7), ",api"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        meterhouse(folder.path(), &["ingest", "-"], event);
        let question = "SELECT resource_id, source FROM events";
        let rows = meterhouse(folder.path(), &["sql", question, "-o", "csv", "-q"], "");
        let rows = String::from_utf8(rows.stdout).unwrap();
        assert_eq!(rows, format!("resource_id,source\n{want}\n"), "{name}");
    }
}

#[test]
fn events_of_another_shape_in_the_same_input_are_refused_and_kept() {
    let (metronome, orb) = (PAYLOADS[2].2[0], PAYLOADS[5].2[1]);
    let (said, rows) = ingested(&format!("{metronome}\n{orb}\n"), &[]);
    assert!(said.contains("2 read, 1 accepted, 0 duplicate, 0 conflict, 1 rejected"), "{said}");
    assert!(rows.contains("k1,transfer,acme"), "{rows}");
    let (said, _) = ingested(metronome, &["--format", "orb"]);
    assert!(said.contains("1 rejected") && said.contains("event_name"), "{said}");
    // A broken beginning hides nothing of what follows.
    let (said, rows) = ingested(&format!("{{\"events\":[{{\n{metronome}\n"), &[]);
    assert!(said.contains("2 read, 1 accepted") && said.contains("read as Metronome"), "{said}");
    assert!(rows.contains("k1,transfer,acme"), "{rows}");
    let batch = format!("{{\"events\":[{metronome}],\"sent\":1}}\n{metronome}\n");
    let (said, _) = ingested(&batch, &["--format", "metronome"]);
    assert!(said.contains("2 read, 1 accepted") && said.contains("beside `events`"), "{said}");
    // Flags of a mapping change what the payload says, and keep the rest of it.
    let (said, rows) = ingested(metronome, &["--format", "metronome", "--event-name", "sent"]);
    assert!(said.contains("1 accepted") && rows.contains("k1,sent,acme"), "{said} {rows}");
    let (said, _) = ingested(metronome, &["--format", "stripe"]);
    assert!(said.contains("unknown input format `stripe`"), "{said}");
}

const LOG: &str = "\
10.0.0.1 - - [05/Oct/2026:14:30:00 +0000] \"GET /files/a.zip HTTP/1.1\" 200 1000 \"-\" \"curl\"
10.0.0.1 - - [05/Oct/2026:14:30:00 +0000] \"GET /files/a.zip HTTP/1.1\" 200 1000 \"-\" \"curl\"
10.0.0.2 - - [05/Oct/2026:14:30:01 +0000] \"GET / HTTP/1.1\" 304 - \"https://b.test/x\" \"curl\"
not a line of a log
";

#[test]
fn an_access_log_is_read_as_it_is_and_once() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("access.log"), LOG).unwrap();
    for want in [
        "4 read, 3 accepted, 0 duplicate, 0 conflict, 1 rejected",
        "4 read, 0 accepted, 3 duplicate, 0 conflict, 1 rejected",
    ] {
        let output = meterhouse(folder.path(), &["ingest", "access.log"], "");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(want) && said.contains("access.log:4"), "{said}");
        assert_eq!(output.status.code(), Some(3));
    }
    let question = "SELECT customer_id, top, status, sum(bytes) AS bytes, count(*) AS n, \
                    max(referrer_host) AS host FROM events GROUP BY 1, 2, 3 ORDER BY 1";
    let rows = meterhouse(folder.path(), &["sql", question, "-o", "csv", "-q"], "");
    assert_eq!(
        String::from_utf8(rows.stdout).unwrap(),
        "customer_id,top,status,bytes,n,host\n10.0.0.1,files,200,2000,2,\n10.0.0.2,\"\",304,,1,b.test\n"
    );
    // A mapping says who the customer is instead; a line that is still written to is left alone.
    let folder = tempfile::tempdir().unwrap();
    let cut = &LOG[..LOG.find('\n').unwrap() + 40];
    fs::write(folder.path().join("access.log"), cut).unwrap();
    let args = ["ingest", "access.log", "--map", "customer_id=top", "--source", "a"];
    let output = meterhouse(folder.path(), &args, "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("access.log:2: the last line is not ended yet"), "{said}");
    assert!(said.contains("1 read, 1 accepted"), "{said}");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let question = "SELECT customer_id, client FROM events";
    let rows = meterhouse(folder.path(), &["sql", question, "-o", "csv", "-q"], "");
    assert_eq!(String::from_utf8(rows.stdout).unwrap(), "customer_id,client\nfiles,10.0.0.1\n");
    // Another server's line is another request.
    let args = ["ingest", "access.log", "--map", "customer_id=top", "--source", "b"];
    let said = String::from_utf8(meterhouse(folder.path(), &args, "").stderr).unwrap();
    assert!(said.contains("1 accepted"), "{said}");
}
