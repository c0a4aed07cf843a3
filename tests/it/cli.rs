//! The command line's contract: what goes to which output, exit codes, and answers to wrong input.
//!
//! Tables of command lines, run by the program in a folder of their own, one after the other.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A command line and what it must come to.
#[derive(Default, Clone, Copy)]
struct Case<'c> {
    /// What the case shows.
    name: &'c str,
    args: &'c [&'c str],
    stdin: &'c str,
    code: i32,
    /// Each must be in standard output.
    stdout: &'c [&'c str],
    /// Each must be in standard error.
    stderr: &'c [&'c str],
    /// Must be in neither.
    absent: &'c [&'c str],
}

const NONE: Case<'_> =
    Case { name: "", args: &[], stdin: "", code: 0, stdout: &[], stderr: &[], absent: &[] };

const METER: &str = "meter: traffic\ndescription: Bytes sent\nevent: transfer\naggregation: sum\n\
                     property: bytes\ndimensions: [domain]\n\
                     unit: { name: kB, divide_by: 1000, round: up, precision: 0 }\n";

const EVENTS: &str = r#"{"idempotency_key":"a","event_name":"transfer","customer_id":"acme","timestamp":"2026-05-01T22:30:00Z","properties":{"bytes":1500,"domain":"x.test"}}
{"idempotency_key":"b","event_name":"transfer","customer_id":"acme","timestamp":"2026-05-02T10:00:00Z","properties":{"bytes":250.5,"domain":""}}
{"idempotency_key":"c","event_name":"transfer","customer_id":"blue","timestamp":"2026-05-03T10:00:00Z","properties":{"bytes":7}}
{"idempotency_key":"d","event_name":"transfer","customer_id":"blue","timestamp":"2026-06-01T00:00:00Z","properties":{"note":"no size"}}
"#;

/// A folder with a meter, and the files that the cases name.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    write("queries/meters/traffic.yaml", METER.as_bytes());
    write("queries/meters/hits.yaml", b"meter: hits\nevent: transfer\naggregation: count\n");
    write("events.ndjson", EVENTS.as_bytes());
    folder
}

fn run(folder: &Path, args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_meterhouse"))
        .current_dir(folder)
        .env_remove("METERHOUSE_LAKE")
        .env_remove("METERHOUSE_STATE")
        .env_remove("METERHOUSE_METERS")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // Most commands never read it.
    let _ = input.write_all(stdin.as_bytes());
    drop(input);
    child.wait_with_output().unwrap()
}

fn check(folder: &Path, case: &Case<'_>) {
    let output = run(folder, case.args, case.stdin);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    let told = format!("{}: {:?}\n{stdout}\n--\n{stderr}", case.name, case.args);
    assert_eq!(output.status.code(), Some(case.code), "exit code of {told}");
    for want in case.stdout {
        assert!(stdout.contains(want), "no `{want}` in the output of {told}");
    }
    for want in case.stderr {
        assert!(stderr.contains(want), "no `{want}` in the words of {told}");
    }
    for unwanted in case.absent.iter().chain(&["panicked", "stack backtrace"]) {
        assert!(!stdout.contains(unwanted), "`{unwanted}` in the output of {told}");
        assert!(!stderr.contains(unwanted), "`{unwanted}` in the words of {told}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn without_a_lake_or_a_sensible_argument_nothing_happens() {
    let folder = folder();
    let wrong = |name, args, code, stderr| Case { name, args, code, stderr, ..NONE };
    for case in [
        wrong("no arguments", &[], 2, &["Usage: meterhouse", "quickstart"]),
        Case { name: "help", args: &["--help"], stdout: &["Exit codes"], ..NONE },
        Case { name: "version", args: &["--version"], stdout: &["meterhouse 0."], ..NONE },
        Case {
            name: "help of a command shows an example",
            args: &["usage", "--help"],
            stdout: &["Examples:", "--period <PERIOD>"],
            ..NONE
        },
        wrong("an unknown command", &["usages"], 2, &["unrecognized subcommand", "usage"]),
        wrong("an unknown flag", &["ingest", "x", "--fast"], 2, &["--fast"]),
        wrong("no path", &["ingest"], 2, &["<PATH>"]),
        wrong("no lake for usage", &["usage", "traffic"], 1, &["no lake at", "--lake"]),
        wrong("no lake for sql", &["sql", "select 1"], 1, &["no lake at"]),
        wrong("no lake for events", &["events", "rejected"], 1, &["no lake at"]),
        wrong("a lake of no known kind", &["--lake", "s3://b/l", "usage", "hits"], 1, &["s3://"]),
        wrong("a file as lake", &["--lake", "events.ndjson", "usage", "hits"], 1, &["is a file"]),
        wrong("a namespace with a blank", &["--namespace", "A b", "usage", "hits"], 1, &["`A b`"]),
        wrong("no folder of meters", &["--meters", "none", "usage", "x"], 1, &["none", "--meters"]),
        wrong("no meter", &["usage"], 2, &["hits, traffic"]),
        wrong("too little memory", &["usage", "x", "--memory", "5kB"], 2, &["16MiB"]),
        wrong("memory in apples", &["usage", "x", "--memory", "5 apples"], 2, &["512MiB"]),
        wrong("no threads", &["usage", "x", "--threads", "0"], 2, &["--threads"]),
        wrong("a period of 13 months", &["usage", "x", "--period", "2026-13"], 2, &["2026-13"]),
        wrong("a zone on Mars", &["usage", "x", "--tz", "Mars/X"], 2, &["Mars/X", "IANA"]),
        wrong("a window of parsecs", &["usage", "x", "--window", "parsec"], 2, &["parsec"]),
        wrong("a bound that is no time", &["usage", "x", "--from", "soon"], 2, &["soon"]),
        wrong("two ways to group", &["usage", "x", "--total", "--by", "a"], 2, &["--total"]),
        wrong("a top of none", &["usage", "x", "--top", "0"], 2, &["--top"]),
        wrong("an unknown form", &["usage", "x", "-o", "xml"], 2, &["table, csv, json"]),
        wrong("a version in words", &["usage", "x", "--at", "old"], 2, &["--at"]),
        wrong("an empty query", &["sql", ""], 2, &["the query is empty"]),
        wrong("a file of sql that is not there", &["sql", "-f", "x.sql"], 1, &["x.sql"]),
    ] {
        check(folder.path(), &case);
    }
    assert!(!folder.path().join("lake").exists(), "a refused command made a lake");
}

#[test]
fn inputs_that_cannot_be_read_are_named() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(EVENTS.repeat(50).as_bytes()).unwrap();
    let gz = gz.finish().unwrap();
    fs::write(path("cut.ndjson.gz"), &gz[..gz.len() / 2]).unwrap();
    let garbage: Vec<u8> = (0..5_000_u32).map(|n| ((n * 7_919) >> 5).to_le_bytes()[0]).collect();
    fs::write(path("garbage.ndjson"), &garbage).unwrap();
    fs::write(path("garbage.parquet"), &garbage).unwrap();
    fs::write(path("garbage.csv"), &garbage).unwrap();
    fs::write(path("empty.ndjson"), "").unwrap();
    fs::write(path("empty.csv"), "").unwrap();
    fs::write(path("empty.parquet"), "").unwrap();
    fs::write(path("events.xyz"), EVENTS).unwrap();
    let open = "idempotency_key,event_name,customer_id\nk1,e,c\nk2,e,\"c\nk3,e,c\n";
    fs::write(path("open.csv"), open).unwrap();
    fs::write(path("bad.yaml"), "customer: x\n").unwrap();
    fs::create_dir_all(path("folder")).unwrap();
    fs::write(path("folder/readme.md"), "nothing").unwrap();
    let case = |name, args, code, stderr| Case { name, args, code, stderr, ..NONE };
    for case in [
        case("not there", &["ingest", "none.ndjson"], 1, &["none.ndjson: no such file"]),
        case("a glob of nothing", &["ingest", "*.jsonl"], 1, &["*.jsonl"]),
        case("a folder without events", &["ingest", "folder"], 1, &["folder", ".ndjson"]),
        case("an unknown ending", &["ingest", "events.xyz"], 1, &["events.xyz", "--format"]),
        case("a format by name", &["ingest", "events.xyz", "--format", "ndjson"], 0, &["4 accept"]),
        case("an unknown format", &["ingest", "x", "--format", "xml"], 2, &["`xml`"]),
        case("a lake of nothing", &["ingest", "empty.ndjson", "empty.csv"], 0, &["0 read"]),
        case("an empty file of Parquet", &["ingest", "empty.parquet"], 1, &["empty.parquet"]),
        case("gzip cut short", &["ingest", "cut.ndjson.gz"], 1, &["cut.ndjson.gz"]),
        case("garbage as NDJSON", &["ingest", "garbage.ndjson"], 3, &["garbage.ndjson:1: not r"]),
        case("garbage as Parquet", &["ingest", "garbage.parquet"], 1, &["garbage.parquet"]),
        case("garbage as CSV", &["ingest", "garbage.csv"], 1, &["garbage.csv"]),
        case("a quote left open", &["ingest", "open.csv"], 3, &["1 accepted", "open.csv:3"]),
        case("a map of nothing", &["ingest", "open.csv", "--map", "a"], 2, &["FIELD=COLUMN"]),
        case("a map to nothing", &["ingest", "open.csv", "--map", "user=b"], 2, &["`user`"]),
        case("an unknown zone", &["ingest", "open.csv", "--timezone", "X/Y"], 2, &["X/Y"]),
        case("no mapping", &["ingest", "open.csv", "--mapping", "no.yaml"], 1, &["no.yaml"]),
        case("a wrong mapping", &["ingest", "open.csv", "--mapping", "bad.yaml"], 1, &["bad.yaml"]),
    ] {
        check(folder.path(), &case);
    }
}

#[test]
fn ingest_tells_what_became_of_events_and_keeps_what_it_refused() {
    let folder = folder();
    let line = |key: &str, customer: &str| {
        format!(
            "{{\"idempotency_key\":\"{key}\",\"event_name\":\"transfer\"{customer},\
             \"timestamp\":\"2026-05-09T00:00:00Z\",\"properties\":{{\"bytes\":1}}}}\n"
        )
    };
    // Seven without a customer, and one that takes the identity of another.
    let mut mixed: String = (0..7).map(|n| line(&format!("m{n}"), "")).collect();
    mixed.push_str(&line("a", ",\"customer_id\":\"acme\""));
    fs::write(folder.path().join("mixed.ndjson"), mixed).unwrap();
    for case in [
        Case {
            name: "a dry run counts and writes nothing",
            args: &["ingest", "events.ndjson", "--dry-run"],
            stderr: &["4 read, 4 accepted, 0 duplicate, 0 conflict, 0 rejected", "dry run"],
            ..NONE
        },
        Case {
            name: "a dry run made no lake",
            args: &["sql", "select 1"],
            code: 1,
            stderr: &["no lake"],
            ..NONE
        },
        Case {
            name: "the first time",
            args: &["ingest", "events.ndjson"],
            stderr: &["4 read, 4 accepted, 0 duplicate, 0 conflict, 0 rejected", "version 1"],
            ..NONE
        },
        Case {
            name: "the second time",
            args: &["ingest", "events.ndjson"],
            stderr: &["4 read, 0 accepted, 4 duplicate, 0 conflict, 0 rejected", "version 1"],
            ..NONE
        },
        Case {
            name: "standard input",
            args: &["ingest", "-"],
            stdin: EVENTS,
            stderr: &["4 duplicate"],
            ..NONE
        },
        Case {
            name: "some are refused",
            args: &["ingest", "mixed.ndjson"],
            code: 3,
            stderr: &[
                "8 read, 0 accepted, 0 duplicate, 1 conflict, 7 rejected",
                "mixed.ndjson:1: field `customer_id` is missing or empty (customer_id)",
                "and 3 more",
                "meterhouse events rejected",
            ],
            absent: &["mixed.ndjson:6"],
            ..NONE
        },
        Case {
            name: "quiet says nothing, and the code stays",
            args: &["ingest", "-q", "mixed.ndjson"],
            code: 3,
            absent: &["read", "rejected"],
            ..NONE
        },
        Case {
            name: "refused events are listed once, whole",
            args: &["events", "rejected", "-o", "csv"],
            stdout: &[
                "received_at,outcome,reason,field,message,input,line,event\n",
                ",rejected,missing_field,customer_id,",
                "mixed.ndjson,7,\"{\"\"idempotency_key\"\":\"\"m6\"\"",
                ",conflict,identity_taken,idempotency_key,",
            ],
            ..NONE
        },
        Case {
            name: "as many as asked for",
            args: &["events", "rejected", "-o", "ndjson", "--limit", "1"],
            stdout: &["\"outcome\":\"rejected\"", "\"line\":1"],
            absent: &["conflict"],
            ..NONE
        },
        Case {
            name: "a customer may be left out if it is said",
            args: &["ingest", "mixed.ndjson", "--allow-missing-customer"],
            code: 3,
            stderr: &["7 accepted, 0 duplicate, 1 conflict, 0 rejected"],
            ..NONE
        },
    ] {
        check(folder.path(), &case);
    }
}

#[test]
fn foreign_records_are_mapped() {
    let folder = folder();
    let csv = "Invoice;Customer;When;Amount\n";
    let rows = "Invoice,Customer,When,bytes\n1,acme,01/07/2026 00:30,5\n1,acme,01/07/2026 00:30,5\n\
                2,blue,02/07/2026 10:00,7\n";
    fs::write(folder.path().join("lines.csv"), rows).unwrap();
    fs::write(folder.path().join("other.csv"), csv).unwrap();
    for case in [
        Case {
            name: "flags make a mapping",
            args: &[
                "ingest",
                "lines.csv",
                "--event-name",
                "transfer",
                "--key",
                "content",
                "--map",
                "customer_id=Customer",
                "--map",
                "timestamp=When",
                "--timestamp-format",
                "%d/%m/%Y %H:%M",
                "--timezone",
                "Europe/Berlin",
            ],
            stderr: &["3 read, 2 accepted, 1 duplicate"],
            ..NONE
        },
        Case {
            name: "local times were of their zone",
            args: &["usage", "traffic", "--period", "2026-06", "--total", "-o", "csv"],
            stdout: &["value,converted,billable,events,skipped\n5,0.005,1,1,0\n"],
            stderr: &["2026-06-01T00:00:00Z to 2026-07-01T00:00:00Z UTC", "unit kB"],
            ..NONE
        },
    ] {
        check(folder.path(), &case);
    }
}

#[test]
fn usage_writes_rows_out_and_notes_aside() {
    let folder = folder();
    assert!(run(folder.path(), &["ingest", "events.ndjson"], "").status.success());
    let by_domain = "domain,value,converted,billable,events,skipped\n,7,0.007,1,1,1\n\
                     \"\",250.5,0.2505,1,1,0\nx.test,1500,1.5,2,1,0\n";
    for case in [
        Case {
            name: "a table for people",
            args: &["usage", "traffic"],
            stdout: &["customer_id |  value | converted", "acme        | 1750.5 |    1.7505"],
            stderr: &["all of history UTC", "table version 1", "unit kB", "3 events, 1 skipped"],
            ..NONE
        },
        Case {
            name: "groups: null before empty before text",
            args: &["usage", "traffic", "--by", "domain", "-o", "csv"],
            stdout: &[by_domain],
            stderr: &["the rounded rows are together 2 kB more than the rounded total"],
            ..NONE
        },
        Case {
            name: "quiet leaves the data alone",
            args: &["-q", "usage", "traffic", "--by", "domain", "-o", "csv"],
            stdout: &[by_domain],
            absent: &["version"],
            ..NONE
        },
        Case {
            name: "days of a zone",
            args: &[
                "usage",
                "hits",
                "--total",
                "--window",
                "day",
                "--tz",
                "Europe/Berlin",
                "-o",
                "csv",
            ],
            stdout: &["2026-05-02T00:00:00+02:00,2026-05-03T00:00:00+02:00,2,2,0\n"],
            ..NONE
        },
        Case {
            name: "several meters",
            args: &["usage", "hits", "traffic", "--total", "-o", "ndjson"],
            stdout: &[
                "{\"meter\":\"hits\",\"value\":\"4\"",
                "{\"meter\":\"traffic\",\"value\":\"1757.5\"",
            ],
            stderr: &["hits ", "traffic "],
            ..NONE
        },
        Case {
            name: "a breakdown",
            args: &["usage", "traffic", "--breakdown", "-o", "csv", "--top", "1"],
            stdout: &[
                "customer_id,domain,value,converted,billable,events,skipped\nacme,x.test,1500",
            ],
            ..NONE
        },
        Case {
            name: "conditions keep what is absent",
            args: &["usage", "hits", "--total", "--where", "domain <> 'x.test'", "-o", "csv"],
            stdout: &["\n3,3,0\n"],
            ..NONE
        },
        Case {
            name: "one customer, a period",
            args: &[
                "usage",
                "hits",
                "--customer",
                "blue",
                "--from",
                "2026-05-01",
                "--to",
                "2026-06-01",
                "-o",
                "csv",
            ],
            stdout: &["\nblue,1,1,0\n"],
            stderr: &["2026-05-01T00:00:00Z to 2026-06-01T00:00:00Z"],
            ..NONE
        },
        Case {
            name: "an earlier version",
            args: &["usage", "hits", "--total", "--at", "0", "-o", "csv"],
            stdout: &["\n0,0,0\n"],
            stderr: &["table version 0"],
            ..NONE
        },
        Case {
            name: "a version to come",
            args: &["usage", "hits", "--at", "99"],
            code: 1,
            stderr: &["version 99", "0 to 1"],
            ..NONE
        },
        Case {
            name: "a plan, and what it leaves out",
            args: &["usage", "traffic", "--explain", "--period", "2026-06"],
            stdout: &["logical plan", "exact_sum", "1 of 4 files"],
            ..NONE
        },
        Case {
            name: "a meter misspelt",
            args: &["usage", "trafic"],
            code: 1,
            stderr: &["no meter `trafic`; did you mean `traffic`?"],
            ..NONE
        },
        Case {
            name: "arithmetic is no condition",
            args: &["usage", "traffic", "--where", "bytes + 1 > 2"],
            code: 1,
            stderr: &["bytes + 1"],
            ..NONE
        },
        Case {
            name: "a range that ends before it begins",
            args: &["usage", "traffic", "--from", "2026-06-01", "--to", "2026-05-01"],
            code: 1,
            stderr: &["is empty"],
            ..NONE
        },
    ] {
        check(folder.path(), &case);
    }
    let parquet = run(folder.path(), &["usage", "traffic", "-o", "parquet"], "").stdout;
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"), "Parquet is whole");
}

#[test]
fn sql_is_read_from_wherever_it_stands() {
    let folder = folder();
    assert!(run(folder.path(), &["ingest", "events.ndjson"], "").status.success());
    fs::write(folder.path().join("q.sql"), "-- how many\nSELECT count(*) AS n FROM events\n")
        .unwrap();
    let answer = &["n\n4\n"];
    for case in [
        Case {
            name: "an argument",
            args: &["sql", "-o", "csv", "SELECT count(*) AS n FROM events"],
            stdout: answer,
            stderr: &["table version 1"],
            ..NONE
        },
        Case { name: "a file", args: &["sql", "-f", "q.sql", "-o", "csv"], stdout: answer, ..NONE },
        Case {
            name: "a comment first",
            args: &["sql", "-o", "csv", "--", "-- how many\nSELECT count(*) AS n FROM events"],
            stdout: answer,
            ..NONE
        },
        Case {
            name: "standard input",
            args: &["sql", "-o", "csv"],
            stdin: "SELECT count(*) AS n FROM events",
            stdout: answer,
            ..NONE
        },
        Case {
            name: "standard input by name",
            args: &["sql", "-", "-o", "csv"],
            stdin: "SELECT count(*) AS n FROM events",
            stdout: answer,
            ..NONE
        },
        Case {
            name: "an earlier version",
            args: &["sql", "--at", "0", "-o", "csv", "SELECT count(*) AS n FROM events"],
            stdout: &["n\n0\n"],
            stderr: &["table version 0"],
            ..NONE
        },
        Case {
            name: "no SQL",
            args: &["sql", "selec"],
            code: 1,
            stderr: &["error: ", "SELEC"],
            ..NONE
        },
        Case {
            name: "an unknown column",
            args: &["sql", "select nothing_such from events"],
            code: 1,
            stderr: &["nothing_such"],
            ..NONE
        },
        Case {
            name: "nothing on standard input",
            args: &["sql"],
            code: 2,
            stderr: &["empty"],
            ..NONE
        },
    ] {
        check(folder.path(), &case);
    }
}

#[test]
fn meters_are_listed_shown_and_checked() {
    let folder = folder();
    fs::create_dir_all(folder.path().join("wrong")).unwrap();
    let wrong = "meter: w\naggregation: summ\nevnt: x\n";
    fs::write(folder.path().join("wrong/w.yaml"), wrong).unwrap();
    for case in [
        Case {
            name: "a list",
            args: &["meters", "list", "-o", "csv"],
            stdout: &[
                "meter,aggregation,events,unit,version,description\n",
                "hits,count,transfer,,",
                ",Bytes sent\n",
            ],
            ..NONE
        },
        Case {
            name: "one in words",
            args: &["meters", "show", "traffic"],
            stdout: &["aggregation  sum of bytes", "rounded up"],
            ..NONE
        },
        Case {
            name: "one that is not there",
            args: &["meters", "show", "x"],
            code: 1,
            stderr: &["no meter `x`", "hits, traffic"],
            ..NONE
        },
        Case { name: "all are right", args: &["meters", "check"], stderr: &["2 meters"], ..NONE },
        Case {
            name: "every mistake is told",
            args: &["meters", "check", "queries/meters", "wrong/w.yaml"],
            code: 1,
            stderr: &[
                "wrong/w.yaml:2:14: unknown aggregation `summ`",
                "2 | aggregation: summ",
                "did you mean `sum`?",
                "wrong/w.yaml:3:1: unknown key `evnt`",
            ],
            ..NONE
        },
        Case {
            name: "a folder without meters",
            args: &["meters", "check", "."],
            code: 1,
            stderr: &["no meter file"],
            ..NONE
        },
        Case {
            name: "a wrong folder of meters stops usage",
            args: &["--meters", "wrong", "usage", "w"],
            code: 1,
            stderr: &["unknown aggregation"],
            ..NONE
        },
    ] {
        check(folder.path(), &case);
    }
}

#[test]
fn a_reader_that_leaves_ends_the_command_quietly() {
    let folder = folder();
    let many: String = (0..40_000)
        .map(|n| {
            format!(
                "{{\"idempotency_key\":\"k{n}\",\"event_name\":\"transfer\",\"customer_id\":\"c{n}\",\
                 \"timestamp\":\"2026-05-01T00:00:00Z\"}}\n"
            )
        })
        .collect();
    assert!(run(folder.path(), &["ingest", "-", "-q"], &many).status.success());
    for args in [
        &["usage", "hits", "-o", "csv"][..],
        &["usage", "hits", "-o", "parquet"],
        &["sql", "-o", "ndjson", "SELECT * FROM events"],
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_meterhouse"))
            .current_dir(folder.path())
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
        assert!(!text(&output.stderr).contains("error"), "{args:?}: {}", text(&output.stderr));
    }
}

#[test]
fn the_quickstart_prints_commands_that_work() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["quickstart", "--lake", "my lake"];
    let tour = run(folder.path(), &args, "");
    assert!(tour.status.success(), "{}", text(&tour.stderr));
    let printed = text(&tour.stdout);
    let commands: Vec<&str> = printed.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    assert_eq!(commands.len(), 5, "{printed}");
    let farewell = text(&tour.stderr);
    let suggested = farewell.lines().filter(|line| line.starts_with("  ")).map(str::trim);
    for command in commands.iter().copied().chain(suggested) {
        let shell = Command::new("sh").current_dir(folder.path()).args(["-c", command]).output();
        let output = shell.unwrap();
        assert!(output.status.success(), "{command}: {}", text(&output.stderr));
        let lines = text(&output.stdout);
        let told = printed.contains(&lines) || !commands.contains(&command);
        assert!(told, "{command} gives another answer when it is typed:\n{lines}");
    }
}
