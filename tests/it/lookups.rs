//! Lookups through the program: rows that hold for a time, customers attributed and re-pointed, and
//! tables that the lake keeps in versions.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::program::meterhouse;

fn event(key: &str, time: &str, customer: Option<&str>, domain: &str) -> String {
    let customer = customer.map_or(String::new(), |c| format!(r#""customer_id":"{c}","#));
    format!(
        r#"{{"event_name":"e","idempotency_key":"{key}",{customer}"timestamp":"{time}","properties":{{"domain":"{domain}","v":1}}}}"#
    ) + "\n"
}

/// A lake with events of customers, of an alias, and of nobody.
fn lake() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let events = [
        event("1", "2026-01-10T00:00:00Z", Some("acme"), "acme.test"),
        event("2", "2026-01-31T22:59:59Z", Some("old-acme"), "x.test"),
        event("3", "2026-01-31T23:00:00Z", Some("old-acme"), "x.test"),
        event("4", "2026-02-10T00:00:00Z", None, "beta.test"),
        event("5", "2026-02-11T00:00:00Z", None, "nobody.test"),
    ];
    fs::write(folder.path().join("events.ndjson"), events.concat()).unwrap();
    succeed(folder.path(), &["ingest", "events.ndjson", "--allow-missing-customer"]);
    fs::create_dir_all(folder.path().join("meters")).unwrap();
    folder
}

fn succeed(folder: &Path, arguments: &[&str]) -> String {
    let output = meterhouse(folder, arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join("meters").join(name), text).unwrap();
}

fn usage(folder: &Path, flags: &[&str]) -> String {
    succeed(folder, &[&["usage", "m", "--meters", "meters", "-o", "csv"], flags].concat())
}

fn refusal(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn customers_are_attributed_and_aliases_end_at_a_date() {
    let folder = lake();
    let folder = folder.path();
    write(folder, "domains.csv", "domain,customer\nbeta.test,beta\n");
    write(
        folder,
        "aliases.csv",
        "alias,customer,from,to\nold-acme,acme,,2026-02-01\nold-acme,gamma,2026-02-01,\n",
    );
    write(
        folder,
        "m.yaml",
        "meter: m\naggregation: count\ntimezone: Europe/Berlin\n\
         customer: [alias, customer_id, by_domain]\nlookups:\n  \
         alias: { of: customer_id, file: aliases.csv, key: alias, value: customer, from: from, to: to }\n  \
         by_domain: { of: domain, file: domains.csv, key: domain, value: customer }\n",
    );
    // February begins at 23:00 UTC in Berlin.
    let want =
        "customer_id,value,events,skipped\nacme,2,2,0\nbeta,1,1,0\ngamma,1,1,0\nunmapped,1,1,0\n";
    assert_eq!(usage(folder, &[]), want);
    let one = usage(folder, &["--customer", "acme", "--by", "domain"]);
    assert_eq!(one, "domain,value,events,skipped\nacme.test,1,1,0\nx.test,1,1,0\n");
    let filtered = usage(folder, &["--total", "--where", "customer_id = 'beta'"]);
    assert_eq!(filtered, "value,events,skipped\n1,1,0\n");
}

#[test]
fn what_is_sent_without_a_customer_belongs_to_the_series_of_whom_it_is_attributed_to() {
    let folder = lake();
    let folder = folder.path();
    let level = |key: &str, day: u8, domain: &str, level: u8| {
        event(key, &format!("2026-03-{day:02}T00:00:00Z"), None, domain)
            .replace("\"v\":1", &format!(r#""does":"SET","level":{level}"#))
    };
    // One series each: beta's level is not ended by what others say meanwhile.
    let levels = [
        level("l1", 1, "beta.test", 10),
        level("l2", 2, "beta.two.test", 20),
        level("l3", 3, "gamma.test", 7),
        level("l4", 4, "nobody.test", 1),
    ];
    fs::write(folder.join("levels.ndjson"), levels.concat()).unwrap();
    succeed(folder, &["ingest", "levels.ndjson", "--allow-missing-customer"]);
    let domains = "domain,customer\nbeta.test,beta\nbeta.two.test,beta\ngamma.test,gamma\n";
    write(folder, "domains.csv", domains);
    let meter = |aggregation: &str| {
        format!(
            "meter: m\n{aggregation}\nproperty: level\nper: [customer_id]\n\
             customer: [customer_id, by_domain]\nlookups:\n  \
             by_domain: {{ of: domain, file: domains.csv, key: domain, value: customer }}\n"
        )
    };
    for (aggregation, want) in [
        ("aggregation: time_weighted\nof: level", "beta,20,0,0\ngamma,7,0,0\nunmapped,1,0,0\n"),
        ("aggregation: reported\noperation: does", "beta,20,0,0\ngamma,7,0,0\nunmapped,1,0,0\n"),
    ] {
        write(folder, "m.yaml", &meter(aggregation));
        let rows = usage(folder, &["--period", "2026-03-10"]);
        assert_eq!(rows, format!("customer_id,value,events,skipped\n{want}"), "{aggregation}");
        let total = usage(folder, &["--period", "2026-03-10", "--total"]);
        assert_eq!(total, "value,events,skipped\n28,0,0\n", "{aggregation}");
    }
}

#[test]
fn a_table_of_the_lake_is_as_it_was_at_every_version() {
    let folder = lake();
    let folder = folder.path();
    write(
        folder,
        "m.yaml",
        "meter: m\naggregation: count\nlookups:\n  \
         team: { of: domain, table: teams, key: domain, value: team, otherwise: none }\n",
    );
    let missing =
        refusal(meterhouse(folder, &["usage", "m", "--meters", "meters", "--by", "team"]));
    assert!(missing.contains("`meterhouse lookups put teams FILE`"), "{missing}");
    let put = |text: &str| {
        fs::write(folder.join("teams.csv"), text).unwrap();
        meterhouse(folder, &["lookups", "put", "teams", "teams.csv", "--reason", "a new team"])
    };
    assert!(put("domain,team\nx.test,blue\n").status.success());
    let before = usage(folder, &["--by", "team"]);
    assert_eq!(before, "team,value,events,skipped\nblue,2,2,0\nnone,3,3,0\n");
    let log = succeed(folder, &["log", "-o", "csv", "--limit", "1"]);
    let version = log.lines().nth(1).unwrap().split(',').next().unwrap().to_owned();
    // The same again makes no version.
    let again = put("domain,team\nx.test,blue\n");
    assert!(String::from_utf8(again.stderr).unwrap().contains("was already version 1"));
    assert!(put("domain,team\nx.test,red\nacme.test,red\n").status.success());
    assert_eq!(
        usage(folder, &["--by", "team"]),
        "team,value,events,skipped\nnone,2,2,0\nred,3,3,0\n"
    );
    assert_eq!(usage(folder, &["--by", "team", "--at", &version]), before);
    let list = succeed(folder, &["lookups", "list", "-o", "csv"]);
    assert_eq!(list, "lookup,version,rows\nteams,2,2\n");
    let shown = succeed(folder, &["lookups", "show", "teams", "--at", &version]);
    assert_eq!(shown, "domain,team\nx.test,blue\n");
    succeed(folder, &["verify"]);
    let sql = "SELECT team, value FROM meter('m', by => 'team')";
    let rows = succeed(folder, &["sql", sql, "--meters", "meters", "-o", "csv"]);
    assert_eq!(rows, "team,value\nnone,2\nred,3\n");
}

#[test]
fn a_table_may_be_put_before_there_are_events() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir_all(folder.join("meters")).unwrap();
    let meter = "meter: m\naggregation: count\nlookups:\n  \
                 team: { of: domain, table: teams, key: domain, value: team, otherwise: none }\n";
    write(folder, "m.yaml", meter);
    fs::write(folder.join("wrong.csv"), "domain\nx.test\n").unwrap();
    let put = |file| {
        meterhouse(folder, &["lookups", "put", "teams", file, "--meters", "meters", "--lake", "l"])
    };
    refusal(put("wrong.csv"));
    assert!(!folder.join("l").exists());
    fs::write(folder.join("teams.csv"), "domain,team\nx.test,blue\n").unwrap();
    assert!(put("teams.csv").status.success());
    let events = event("1", "2026-01-10T00:00:00Z", Some("acme"), "x.test");
    fs::write(folder.join("e.ndjson"), events).unwrap();
    succeed(folder, &["ingest", "e.ndjson", "--lake", "l"]);
    let rows = usage(folder, &["--by", "team", "--lake", "l"]);
    assert_eq!(rows, "team,value,events,skipped\nblue,1,1,0\n");
}

#[test]
fn a_table_that_contradicts_itself_is_named_with_its_line() {
    let folder = lake();
    let folder = folder.path();
    let meter = "meter: m\naggregation: count\nlookups:\n  \
                 team: { of: domain, PLACE, key: k, value: v, from: from, to: to }\n";
    write(folder, "m.yaml", &meter.replace("PLACE", "file: t.csv"));
    let table = "k,v,from,to\na,x,2026-01-01,2026-03-01\na,y,2026-02-01,\n";
    write(folder, "t.csv", table);
    let said = refusal(meterhouse(folder, &["usage", "m", "--meters", "meters"]));
    assert!(said.contains("t.csv:3:1: key `a` is mapped to `y` at a time"), "{said}");
    succeed(folder, &["lookups", "put", "t", "meters/t.csv"]);
    write(folder, "m.yaml", &meter.replace("PLACE", "table: t"));
    let put = ["lookups", "put", "t", "meters/t.csv", "--meters", "meters"];
    let said = refusal(meterhouse(folder, &put));
    assert!(said.contains("for meter `m`: meters/t.csv:3:1: key `a` is mapped"), "{said}");
    let said = refusal(meterhouse(folder, &["usage", "m", "--meters", "meters"]));
    assert!(said.contains("table t, version 1:3:1: key `a` is mapped to `y`"), "{said}");
    let check = ["meters", "check", "--meters", "meters"];
    let said = refusal(meterhouse(folder, &check));
    assert!(said.contains("meter `m`: table t, version 1:3:1: key `a` is mapped"), "{said}");
    write(folder, "m.yaml", &meter.replace("PLACE", "table: other"));
    let said = refusal(meterhouse(folder, &check));
    assert!(said.contains("reads table `other`, which the lake does not have"), "{said}");
    let said = refusal(meterhouse(folder, &["meters", "check", "m", "--meters", "meters"]));
    assert!(said.contains("reads table `other`, which the lake does not have"), "{said}");
    // Where there is no lake, there are no tables to look at.
    let nowhere = ["meters", "check", "--meters", "meters", "--lake", "nowhere"];
    assert!(meterhouse(folder, &nowhere).status.success());
    for (arguments, want) in [
        (["lookups", "put", "../t", "meters/t.csv"], "`../t` is no name of a table"),
        (["lookups", "put", "t", "missing.csv"], "table missing.csv does not exist"),
        (["lookups", "show", "other", "--quiet"], "no lookup table `other`"),
    ] {
        let said = refusal(meterhouse(folder, &arguments));
        assert!(said.contains(want), "{arguments:?}: {said}");
    }
}

#[test]
fn a_table_may_be_parquet() {
    let folder = lake();
    let folder = folder.path();
    let query = "SELECT 'x.test' AS domain, 7 AS team UNION ALL SELECT 'acme.test', 8";
    let parquet = meterhouse(folder, &["sql", query, "-o", "parquet"]);
    fs::write(folder.join("meters/teams.parquet"), &parquet.stdout).unwrap();
    write(
        folder,
        "m.yaml",
        "meter: m\naggregation: count\nlookups:\n  \
         team: { of: domain, file: teams.parquet, key: domain, value: team }\n",
    );
    let want = "team,value,events,skipped\n7,2,2,0\n8,1,1,0\nunmapped,2,2,0\n";
    assert_eq!(usage(folder, &["--by", "team"]), want);
}
