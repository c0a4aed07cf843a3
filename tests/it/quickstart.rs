//! What the README promises a newcomer, and the meters, lookup and queries that come along.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// Runs the binary in `folder`, where its lake is the default one, and demands success.
fn run(folder: &Path, arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_meterhouse"))
        .current_dir(folder)
        .env_remove("METERHOUSE_LAKE")
        .env_remove("METERHOUSE_STATE")
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}\n{}", output.status, said(&output));
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

fn stdout(output: Output) -> String {
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn quickstart_shows_the_known_total_and_counts_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let first = said(&run(folder.path(), &["quickstart"]));
    for want in ["2,747,282,740", "10,000 accepted", "0 duplicate"] {
        assert!(first.contains(want), "the first run does not say `{want}`:\n{first}");
    }
    let second = said(&run(folder.path(), &["quickstart"]));
    for want in ["2,747,282,740", "0 accepted", "10,000 duplicate"] {
        assert!(second.contains(want), "the second run does not say `{want}`:\n{second}");
    }
}

#[test]
fn meters_and_queries_of_the_repository_give_the_known_answers() {
    let folder = tempfile::tempdir().unwrap();
    let data = format!("{REPOSITORY}/data/web-requests/requests.ndjson.gz");
    run(folder.path(), &["ingest", &data]);
    assert_meters(folder.path());
    assert_queries(folder.path());
}

fn assert_meters(folder: &Path) {
    let known = [
        ("average-answer", "--total", vec![("value", "306906.299225849882")]),
        (
            "bandwidth",
            "--total",
            vec![("value", "2747282740"), ("converted", "2.74728274"), ("billable", "3")],
        ),
        ("clients", "--total", vec![("value", "1753")]),
        ("largest-answer", "--total", vec![("value", "69192717")]),
        ("requests", "--total", vec![("value", "10000")]),
        // By customer and class: the first line is the first client with its one class.
        ("requests", "--breakdown", vec![("status_class", "success"), ("value", "6")]),
    ];
    assert_names("queries/meters", "yaml", known.iter().map(|(name, ..)| *name));
    for (name, groups, want) in known {
        let meters = format!("{REPOSITORY}/queries/meters");
        let answer =
            stdout(run(folder, &["--meters", &meters, "usage", name, groups, "-o", "csv"]));
        let mut lines = answer.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let (header, first) = (lines.next().unwrap(), lines.next().unwrap());
        for (column, value) in want {
            let place = header.iter().position(|&found| found == column);
            let place = place.unwrap_or_else(|| panic!("{name} has no `{column}`: {header:?}"));
            assert_eq!(first[place], value, "`{column}` of {name} {groups}");
        }
    }
}

fn assert_queries(folder: &Path) {
    let known = [
        ("errors-per-day", 4, "day,requests,failed", ",1632,30"),
        ("referrers", 20, "referrer_host,clients,requests", ",1281,4073"),
        ("top-directories", 10, "top,total_bytes,requests", "misc,1304974522,72"),
    ];
    assert_names("queries", "sql", known.iter().map(|(name, ..)| *name));
    for (name, rows, header, first) in known {
        let query = fs::read_to_string(format!("{REPOSITORY}/queries/{name}.sql")).unwrap();
        // The text begins with a comment, which must not be taken for an option.
        let answer = stdout(run(folder, &["sql", "-o", "csv", "--", &query]));
        let lines: Vec<_> = answer.lines().collect();
        assert_eq!(lines.len(), rows + 1, "rows and header of {name}");
        assert_eq!(lines[0], header, "columns of {name}");
        assert!(lines[1].ends_with(first), "{name} begins with `{}`, not `{first}`", lines[1]);
    }
}

/// Every file of the folder must be among `known`, and the other way round.
fn assert_names<'a>(folder: &str, extension: &str, known: impl Iterator<Item = &'a str>) {
    let mut found: Vec<_> = fs::read_dir(Path::new(REPOSITORY).join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| !name.ends_with(".test"))
        .collect();
    found.sort_unstable();
    let mut known: Vec<_> = known.map(str::to_owned).collect();
    known.sort_unstable();
    known.dedup();
    assert_eq!(found, known, "files of {folder} and those tested");
}
