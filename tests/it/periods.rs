//! Billing periods, filled windows and partial ones, as a person meets them: through meter files and
//! the command line.

use std::fs;
use std::path::Path;

use crate::program::meterhouse;

const METER: &str = "meter: m\naggregation: sum\nproperty: v\ntimezone: Europe/Berlin\n";

const TABLE: &str = "customer,since,cycle,zone\n\
                     ann,2026-01-31,monthly,Europe/Berlin\n\
                     bob,2025-11-15T06:00,monthly,America/New_York\n\
                     cat,2026-01-31,monthly,Europe/Berlin\n";

const BILLING: &str = "billing: { file: ../billing.csv, key: customer, anchor: since, cycle: cycle, \
                       timezone: zone }\n";

/// A folder with a lake of a few events of four customers, and a meter.
fn folder(more: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let event = |(number, (customer, at, value)): (usize, (&str, &str, i64))| {
        format!(
            "{{\"event_name\":\"e\",\"idempotency_key\":\"{number}\",\"customer_id\":\"{customer}\",\
             \"timestamp\":\"{at}\",\"properties\":{{\"v\":{value}}}}}\n"
        )
    };
    let events = [
        ("ann", "2026-02-27T22:59:59Z", 1), // the last second of ann's first period
        ("ann", "2026-02-27T23:00:00Z", 2), // 28 February, Berlin
        ("ann", "2026-03-30T21:59:59Z", 4),
        ("ann", "2026-03-30T22:00:00Z", 8), // 31 March, summer time
        ("ann", "2026-05-10T00:00:00Z", 16),
        ("bob", "2026-02-15T10:59:59Z", 32),
        ("bob", "2026-02-15T11:00:00Z", 64), // 06:00 in New York
        ("cat", "2026-03-01T00:00:00Z", 128),
        ("dan", "2026-03-01T00:00:00Z", 256),
    ];
    let events: String = events.into_iter().enumerate().map(event).collect();
    fs::write(folder.path().join("events.ndjson"), events).unwrap();
    fs::write(folder.path().join("billing.csv"), TABLE).unwrap();
    fs::create_dir(folder.path().join("meters")).unwrap();
    write_meter(folder.path(), more);
    let output = meterhouse(folder.path(), &["ingest", "events.ndjson", "-q"]);
    assert!(output.status.success(), "{output:?}");
    folder
}

fn write_meter(folder: &Path, more: &str) {
    fs::write(folder.join("meters/m.yaml"), format!("{METER}{more}")).unwrap();
}

/// What `usage m` prints as CSV, and says.
fn ask(folder: &Path, flags: &[&str]) -> (String, String) {
    let asked = [&["usage", "m", "--meters", "meters", "-o", "csv"], flags].concat();
    let output = meterhouse(folder, &asked);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{flags:?}: {said}");
    (String::from_utf8(output.stdout).unwrap(), said)
}

/// What it refuses to answer.
fn refused(folder: &Path, flags: &[&str]) -> String {
    let asked = [&["usage", "m", "--meters", "meters"], flags].concat();
    let output = meterhouse(folder, &asked);
    assert!(!output.status.success() && output.stdout.is_empty(), "{flags:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn one_query_answers_for_customers_of_different_periods() {
    let folder = folder(BILLING);
    let (rows, said) = ask(folder.path(), &["--window", "billing_period"]);
    // The customer whom the table does not have is a row without a window, not a guess.
    let want = "window_start,window_end,customer_id,value,events,skipped\n\
                ,,dan,256,1,0\n\
                2026-01-15T06:00:00-05:00,2026-02-15T06:00:00-05:00,bob,32,1,0\n\
                2026-01-31T00:00:00+01:00,2026-02-28T00:00:00+01:00,ann,1,1,0\n\
                2026-02-15T06:00:00-05:00,2026-03-15T06:00:00-04:00,bob,64,1,0\n\
                2026-02-28T00:00:00+01:00,2026-03-31T00:00:00+02:00,ann,6,2,0\n\
                2026-02-28T00:00:00+01:00,2026-03-31T00:00:00+02:00,cat,128,1,0\n\
                2026-03-31T00:00:00+02:00,2026-04-30T00:00:00+02:00,ann,8,1,0\n\
                2026-04-30T00:00:00+02:00,2026-05-31T00:00:00+02:00,ann,16,1,0\n";
    assert_eq!(rows, want);
    assert!(said.contains("m: 1 row of customers without a billing period"), "{said}");

    let otherwise = BILLING.replace(" }", ", otherwise: { anchor: 2026-02-10 } }");
    write_meter(folder.path(), &otherwise);
    let (rows, said) = ask(folder.path(), &["--window", "billing_period"]);
    let row = "2026-02-10T00:00:00+01:00,2026-03-10T00:00:00+01:00,dan,256,1,0\n";
    assert!(rows.contains(row) && !rows.contains("\n,,"), "{rows}");
    assert!(!said.contains("without a billing period"), "{said}");
}

#[test]
fn a_sum_over_customers_of_different_periods_is_refused() {
    let folder = folder(BILLING);
    for flags in [&["--total"][..], &["--by", "resource_id"]] {
        let said = refused(folder.path(), &[&["--window", "billing_period"], flags].concat());
        assert!(said.contains("is of no period: group by customer_id too"), "{said}");
    }
    // One customer has one period.
    let one = ["--window", "billing_period", "--total", "--customer"];
    let (rows, _) = ask(folder.path(), &[&one[..], &["bob"]].concat());
    assert_eq!(
        rows,
        "window_start,window_end,value,events,skipped\n\
         2026-01-15T06:00:00-05:00,2026-02-15T06:00:00-05:00,32,1,0\n\
         2026-02-15T06:00:00-05:00,2026-03-15T06:00:00-04:00,64,1,0\n"
    );
    let (rows, _) = ask(folder.path(), &[&one[..], &["dan"]].concat());
    assert_eq!(rows, "window_start,window_end,value,events,skipped\n,,256,1,0\n");
}

#[test]
fn periods_need_no_meter_file_where_the_question_has_an_anchor() {
    let folder = folder("");
    let said = refused(folder.path(), &["--window", "billing_period"]);
    assert!(said.contains("meter `m` has no billing periods: give it `billing`"), "{said}");
    let flags = ["--window", "billing_period", "--total", "--anchor", "2023-01-31"];
    let (rows, _) = ask(folder.path(), &[&flags[..], &["--cycle", "quarterly"]].concat());
    assert_eq!(
        rows,
        "window_start,window_end,value,events,skipped\n\
         2026-01-31T00:00:00+01:00,2026-04-30T00:00:00+02:00,495,8,0\n\
         2026-04-30T00:00:00+02:00,2026-07-31T00:00:00+02:00,16,1,0\n"
    );
    let (rows, _) = ask(folder.path(), &[&flags[..], &["--tz", "UTC"]].concat());
    assert!(rows.contains("\n2026-02-28T00:00:00Z,2026-03-31T00:00:00Z,396,4,0\n"), "{rows}");
    for (flags, part) in [
        (&["--window", "day", "--anchor", "2023-01-31"][..], "add the window `billing_period`"),
        (&["--window", "billing_period", "--anchor", "2023-02-30"], "there is no such date"),
        (
            &["--window", "billing_period", "--anchor", "2023-01-31", "--cycle", "lunar"],
            "unknown billing cycle `lunar`",
        ),
        (&["--anchor", "2023-01-31"], "add the window `billing_period`, or the period"),
        (&["--window", "billing_period", "--cycle", "monthly"], "--anchor"),
    ] {
        let said = refused(folder.path(), flags);
        assert!(said.contains(part), "{flags:?}: {said}");
    }
}

#[test]
fn a_period_may_be_a_billing_period() {
    let folder = folder(BILLING);
    let ends = |flags: &[&str]| {
        let (_, said) = ask(folder.path(), &[&["--total"], flags].concat());
        let bounds = said.split("  ").nth(1).unwrap().to_owned();
        let (from, to) = bounds.split_once(" to ").unwrap();
        let to = to.split_whitespace().next().unwrap();
        (from.to_owned(), to.to_owned())
    };
    // The clock is the machine's: two periods meet, and both begin where bob's do.
    let named = |name: &'static str| ends(&["--customer", "bob", "--period", name]);
    let (last, this) = (named("last-billing-period"), named("this-billing-period"));
    assert_eq!(last.1, this.0);
    let instant = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
    let new_york = jiff::tz::TimeZone::get("America/New_York").unwrap();
    for bound in [&last.0, &this.0, &this.1] {
        let civil = instant(bound).to_zoned(new_york.clone());
        assert_eq!((civil.day(), civil.hour()), (15, 6), "{bound}");
    }
    let now = jiff::Timestamp::now();
    assert!(instant(&this.0) <= now && now < instant(&this.1), "{this:?}");

    let weekly = ["--anchor", "2026-01-01", "--cycle", "weekly", "--period"];
    let (from, to) = ends(&[&weekly[..], &["last-billing-period", "--tz", "UTC"]].concat());
    assert_eq!(instant(&to).duration_since(instant(&from)).as_hours(), 7 * 24);
    for (flags, part) in [
        (&["--total"][..], "differ between customers: ask for one customer"),
        (&["--customer", "dan"], "customer `dan` has no billing periods"),
    ] {
        let said = refused(folder.path(), &[flags, &["--period", "this-billing-period"]].concat());
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_billing_period_may_be_named_by_a_month_or_a_day() {
    let folder = folder(BILLING);
    for (flags, from, to) in [
        // Of a customer, of an anchor, of the day that a period holds.
        (
            &["--customer", "bob", "--period", "billing:2026-02"][..],
            "2026-02-15T06:00:00-05:00",
            "2026-03-15T06:00:00-04:00",
        ),
        (
            &["--anchor", "2023-01-31", "--period", "billing:2026-02"],
            "2026-02-28T00:00:00",
            "2026-03-31T00:00:00",
        ),
        (
            &["--anchor", "2026-01-01", "--cycle", "weekly", "--period", "billing:2026-02-09"],
            "2026-02-05T00:00:00",
            "2026-02-12T00:00:00",
        ),
    ] {
        let named = ask(folder.path(), &[&["--total"], flags].concat());
        // The same as the bounds written out.
        let customer = if flags[0] == "--customer" { &flags[..2] } else { &[][..] };
        let bounds = ["--total", "--from", from, "--to", to];
        let written = ask(folder.path(), &[&bounds[..], customer].concat());
        assert_eq!(named.0, written.0, "{flags:?}");
        let told = |said: &str| said.split("  ").nth(1).map(str::to_owned);
        assert!(told(&named.1).is_some(), "{}", named.1);
        assert_eq!(told(&named.1), told(&written.1), "{flags:?}");
    }
    for (flags, part) in [
        (
            &["--anchor", "2026-01-01", "--cycle", "weekly", "--period", "billing:2026-02"][..],
            "4 billing periods begin in 2026-02, at 2026-02-05T",
        ),
        (
            &["--anchor", "2026-01-01", "--cycle", "quarterly", "--period", "billing:2026-02"],
            "no billing period begins in 2026-02",
        ),
        (&["--period", "billing:2026-02"], "differ between customers: ask for one customer"),
        (&["--anchor", "2026-01-01", "--period", "billing:2026-13"], "a date that does not exist"),
    ] {
        let said = refused(folder.path(), &[&["--total"], flags].concat());
        assert!(said.contains(part), "{flags:?}: {said}");
    }
}

#[test]
fn a_table_that_cannot_be_is_refused_before_anything_runs() {
    let folder = folder(BILLING);
    for (table, part) in [
        (
            "customer,since,cycle,zone\nann,2026-02-30,monthly,UTC\n",
            "billing.csv:2:5: billing anchor",
        ),
        (
            "customer,since,cycle,zone\nann,2026-01-31,monthly,UTC\nann,2026-01-31,monthly,UTC\n",
            "billing.csv:3:1: customer `ann` has a row already, in line 2",
        ),
        ("customer,since,cycle\n", "billing.csv:1:1: table has no column `zone`"),
    ] {
        fs::write(folder.path().join("billing.csv"), table).unwrap();
        let said = refused(folder.path(), &["--total"]);
        assert!(said.contains(part), "{said}");
    }
    fs::remove_file(folder.path().join("billing.csv")).unwrap();
    let said = refused(folder.path(), &["--total"]);
    assert!(
        said.contains("m.yaml:5:18: table meters/../billing.csv of `billing` does not"),
        "{said}"
    );
}

#[test]
fn windows_that_a_bound_cuts_are_marked_for_machines_too() {
    let folder = folder(BILLING);
    let range = ["--from", "2026-02-28", "--to", "2026-03-31T12:00:00Z"];
    let (rows, said) =
        ask(folder.path(), &[&range[..], &["--window", "month", "--total"]].concat());
    let want = "window_start,window_end,partial,value,events,skipped\n\
                2026-02-28T00:00:00+01:00,2026-03-01T00:00:00+01:00,true,2,1,0\n\
                2026-03-01T00:00:00+01:00,2026-03-31T14:00:00+02:00,true,396,4,0\n";
    assert_eq!(rows, want);
    assert_eq!(said.matches("is partial, a bound cuts it").count(), 2, "{said}");

    // The bounds are whole periods of some customers, and cut those of others.
    let range = ["--from", "2026-02-28", "--to", "2026-03-31"];
    let (rows, said) = ask(folder.path(), &[&range[..], &["--window", "billing_period"]].concat());
    let want = "window_start,window_end,partial,customer_id,value,events,skipped\n\
                ,,,dan,256,1,0\n\
                2026-02-28T00:00:00+01:00,2026-03-31T00:00:00+02:00,false,ann,6,2,0\n\
                2026-02-28T00:00:00+01:00,2026-03-31T00:00:00+02:00,false,cat,128,1,0\n";
    assert_eq!(rows, want);
    assert!(!said.contains("see `partial`"), "{said}");
    // Whole windows need no mark, and bounds beyond the events cut nothing.
    let whole = ["--from", "2020-01-01", "--to", "2026-04-01", "--window", "month", "--total"];
    let (rows, said) = ask(folder.path(), &whole);
    assert!(
        rows.starts_with("window_start,window_end,value,") && !said.contains("partial"),
        "{said}"
    );
}

#[test]
fn windows_without_a_value_are_filled_as_asked() {
    let folder = folder(BILLING);
    let month = ["--window", "month", "--period", "2026"];
    let values = |more: &[&str]| {
        let (rows, _) = ask(folder.path(), &[&month[..], more].concat());
        let column = |row: &str| row.split(',').rev().nth(2).unwrap().to_owned();
        rows.lines().skip(1).map(column).collect::<Vec<_>>().join(" ")
    };
    let bob = |fill| values(&["--customer", "bob", "--fill", fill]);
    assert_eq!(bob("zero"), "0 96 0 0 0 0 0 0 0 0 0 0");
    assert_eq!(bob("null"), " 96          ");
    assert_eq!(bob("previous"), " 96 96 96 96 96 96 96 96 96 96 96");
    assert_eq!(values(&["--total", "--fill", "zero"]), "0 99 396 0 16 0 0 0 0 0 0 0");
    // A total is a group even where there is nothing; groups that do not occur are none.
    assert_eq!(values(&["--total", "--customer", "eve", "--fill", "zero"]), ["0"; 12].join(" "));
    assert_eq!(values(&["--customer", "eve", "--fill", "zero"]), "");

    // An open range ends where the events do; every customer has a row in each of their periods.
    let (rows, _) = ask(folder.path(), &["--window", "billing_period", "--fill", "zero"]);
    let of = |customer: &str| rows.matches(&format!(",{customer},")).count();
    assert_eq!([of("dan"), of("ann"), of("bob"), of("cat")], [1, 4, 4, 4], "{rows}");
    let row = "2026-03-31T00:00:00+02:00,2026-04-30T00:00:00+02:00,cat,0,0,0\n";
    assert!(rows.contains(row), "{rows}");

    let counted = "meter: m\naggregation: count\nunit: { name: x, divide_by: 2, round: up }\n";
    fs::write(folder.path().join("meters/m.yaml"), counted).unwrap();
    for fill in ["zero", "null", "previous"] {
        let (rows, _) = ask(
            folder.path(),
            &["--period", "2026-02-01..2026-05-01", "--window", "month", "--total", "--fill", fill],
        );
        let want = "window_start,window_end,value,converted,billable,events,skipped\n\
                    2026-02-01T00:00:00Z,2026-03-01T00:00:00Z,4,2,2,4,0\n\
                    2026-03-01T00:00:00Z,2026-04-01T00:00:00Z,4,2,2,4,0\n\
                    2026-04-01T00:00:00Z,2026-05-01T00:00:00Z,0,0,0,0,0\n";
        assert_eq!(rows, want, "{fill}");
    }
    for flags in [&["--fill", "zero"][..], &["--fill", "zero", "--window", "day", "--top", "3"]] {
        assert!(refused(folder.path(), flags).contains("--fill"));
    }
    let said = refused(folder.path(), &["--fill", "ones", "--window", "day"]);
    assert!(said.contains("unknown fill `ones`: write zero, null or previous"), "{said}");
}

#[test]
fn sql_asks_for_periods_and_filled_windows_too() {
    let folder = folder(BILLING);
    let sql = |text: &str| {
        let flags = ["sql", text, "--meters", "meters", "-o", "csv", "-q"];
        let output = meterhouse(folder.path(), &flags);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let got =
        sql("SELECT count(*) AS n, sum(value) AS v FROM meter('m', window => 'billing_period', \
                   anchor => '2026-01-31', cycle => 'monthly', total => true, fill => 'zero', \
                   period => '2026')");
    assert_eq!(got, "n,v\n13,511\n");
    let got = sql("SELECT customer_id, value FROM meter('m', window => 'billing_period') \
                   WHERE window_start IS NULL");
    assert_eq!(got, "customer_id,value\ndan,256\n");
}

/// Another meter over the same events.
fn write_whole_meter(folder: &Path, text: &str) {
    let whole = format!("meter: m\ntimezone: Europe/Berlin\n{text}\n");
    fs::write(folder.join("meters/m.yaml"), whole).unwrap();
}

#[test]
fn what_is_carried_over_time_has_each_customers_own_periods() {
    let folder = folder(BILLING);
    let meter = format!("aggregation: reported\nproperty: v\noperation: how\n{BILLING}");
    write_whole_meter(folder.path(), &meter);
    let (rows, said) = ask(folder.path(), &["--window", "billing_period"]);
    let want = "window_start,window_end,customer_id,value,events,skipped\n\
                ,,dan,256,1,0\n\
                2026-01-15T06:00:00-05:00,2026-02-15T06:00:00-05:00,bob,32,1,0\n\
                2026-01-31T00:00:00+01:00,2026-02-28T00:00:00+01:00,ann,1,1,0\n\
                2026-02-15T06:00:00-05:00,2026-03-15T06:00:00-04:00,bob,96,1,0\n\
                2026-02-28T00:00:00+01:00,2026-03-31T00:00:00+02:00,ann,7,2,0\n\
                2026-02-28T00:00:00+01:00,2026-03-31T00:00:00+02:00,cat,128,1,0\n\
                2026-03-15T06:00:00-04:00,2026-04-15T06:00:00-04:00,bob,96,0,0\n\
                2026-03-31T00:00:00+02:00,2026-04-30T00:00:00+02:00,ann,15,1,0\n\
                2026-03-31T00:00:00+02:00,2026-04-30T00:00:00+02:00,cat,128,0,0\n\
                2026-04-15T06:00:00-04:00,2026-05-15T06:00:00-04:00,bob,96,0,0\n\
                2026-04-30T00:00:00+02:00,2026-05-31T00:00:00+02:00,ann,31,1,0\n\
                2026-04-30T00:00:00+02:00,2026-05-31T00:00:00+02:00,cat,128,0,0\n";
    assert_eq!(rows, want);
    assert!(said.contains("m: 1 row of customers without a billing period"), "{said}");
}

#[test]
fn a_customer_may_change_its_anchor_in_a_table_of_the_lake() {
    let folder = folder(
        "billing: { table: billing, key: customer, anchor: since, from: from, timezone: zone }\n",
    );
    let asked = ["--by", "customer_id", "--customer", "ann", "--window", "billing_period"];
    let told = refused(folder.path(), &asked);
    assert!(
        told.contains("meter `m`: `billing` reads table `billing`, which the lake does"),
        "{told}"
    );
    assert!(told.contains("meterhouse lookups put billing FILE"), "{told}");
    let put = |rows: &str| {
        fs::write(folder.path().join("b.csv"), format!("customer,since,from,zone\n{rows}"))
            .unwrap();
        let asked = ["lookups", "put", "billing", "b.csv", "--meters", "meters"];
        let output = meterhouse(folder.path(), &asked);
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (done, said) = put("ann,2026-01-31,,Europe/Berlin\nbob,2026-01-15,,Europe/Berlin\n");
    assert!(done, "{said}");
    let rows = |flags: &[&str]| {
        let (rows, _) = ask(folder.path(), &[&asked[..], flags].concat());
        let of_row = |row: &str| {
            let cells: Vec<&str> = row.split(',').collect();
            format!("{} {} {}", &cells[0][5..10], &cells[1][5..10], cells[3])
        };
        rows.lines().skip(1).map(of_row).collect::<Vec<_>>()
    };
    let before = ["01-31 02-28 1", "02-28 03-31 6", "03-31 04-30 8", "04-30 05-31 16"];
    assert_eq!(rows(&[]), before);
    // From 10 March on, her periods begin on the 10th.
    let (done, said) =
        put("ann,2026-01-31,,Europe/Berlin\nann,2026-03-10,2026-03-10,Europe/Berlin\n");
    assert!(done, "{said}");
    assert_eq!(rows(&[]), ["01-31 02-28 1", "02-28 03-10 2", "03-10 04-10 12", "05-10 06-10 16"]);
    // As of the version before, she is billed as she was.
    assert_eq!(rows(&["--at", "2"]), before);
    let months = ["--period", "billing:2026-03"];
    let (row, _) = ask(folder.path(), &[&asked[2..4], &["--total"], &months[..]].concat());
    assert_eq!(row, "value,events,skipped\n12,2,0\n");
    let (done, said) = put("ann,2026-01-31,,Europe/Berlin\nann,2026-03-10,2026-03-10,Asia/Tokyo\n");
    assert!(
        !done && said.contains("b.csv:3:1: customer `ann`: billing periods have one zone"),
        "{said}"
    );
}

#[test]
fn a_billing_period_is_the_same_with_windows_and_without() {
    let folder = folder("");
    let billing = "billing: { anchor: 2026-03-01, timezone: Asia/Tokyo }";
    for meter in [
        "aggregation: reported\nproperty: v\noperation: how\nreset: month",
        "aggregation: count_unique\nproperty: v\noperation: how\nprorate: days",
    ] {
        write_whole_meter(folder.path(), &format!("{meter}\n{billing}"));
        let asked = ["--total", "--period", "billing:2026-03"];
        let (alone, _) = ask(folder.path(), &asked);
        let windowed = [&asked[..], &["--window", "billing_period"]].concat();
        let (windowed, _) = ask(folder.path(), &windowed);
        let (alone, windowed) = (alone.lines().nth(1).unwrap(), windowed.lines().nth(1).unwrap());
        assert!(windowed.ends_with(&format!(",{alone}")), "{meter}: {alone} and {windowed}");
    }
}

#[test]
fn whoever_has_no_billing_period_keeps_a_quantity_and_its_events_are_listed() {
    let folder = folder("");
    write_whole_meter(
        folder.path(),
        "aggregation: reported\nproperty: v\noperation: how\nreset: billing_period\n\
         billing: { file: ../billing.csv, key: customer, anchor: since, timezone: zone }",
    );
    let asked = ["--by", "customer_id", "--window", "billing_period"];
    let (rows, _) = ask(folder.path(), &asked);
    assert!(rows.contains("\n,,dan,256,1,0\n"), "{rows}");
    write_whole_meter(folder.path(), "aggregation: reported\nproperty: v\noperation: how");
    let listed =
        ["explain", "m", "--meters", "meters", "--customer", "dan", "--events", "-o", "csv"];
    let output = meterhouse(folder.path(), &listed);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let rows = String::from_utf8(output.stdout).unwrap();
    assert!(rows.contains(",256,change,2026-03-01T00:00:00Z,,"), "{rows}");
}

#[test]
fn each_of_many_customers_may_have_cycles_of_its_own() {
    let folder = folder("");
    let row = |number: i64| {
        let since = 1_735_689_600 + number * 3_600;
        let since = jiff::Timestamp::from_second(since).unwrap();
        format!("x{number},2026-01-31,,UTC\nx{number},2026-01-15,{since},UTC\n")
    };
    let rows: String = (0..3_000).map(row).collect();
    fs::write(folder.path().join("b.csv"), format!("customer,since,from,zone\n{rows}")).unwrap();
    write_whole_meter(
        folder.path(),
        "aggregation: reported\nproperty: v\noperation: how\n\
         billing: { file: ../b.csv, key: customer, anchor: since, from: from, timezone: zone, \
         otherwise: { anchor: 2026-01-01 } }",
    );
    let asked = ["--by", "customer_id", "--window", "billing_period", "--period", "2026-05"];
    let (rows, _) = ask(folder.path(), &asked);
    assert!(rows.contains(",ann,31,"), "{rows}");
}

#[test]
fn an_open_range_after_all_events_has_no_windows() {
    let folder = folder("");
    write_whole_meter(folder.path(), "aggregation: reported\nproperty: v\noperation: how");
    let flags = ["--window", "month", "--total", "--from"];
    let (rows, _) = ask(folder.path(), &[&flags[..], &["2026-05-01"]].concat());
    assert!(
        rows.ends_with("\n2026-05-01T00:00:00+02:00,2026-06-01T00:00:00+02:00,511,1,0\n"),
        "{rows}"
    );
    let (rows, _) = ask(folder.path(), &[&flags[..], &["2026-06-01"]].concat());
    assert_eq!(rows, "window_start,window_end,value,events,skipped\n");
    // An end that is named is one.
    let ends = ["2026-06-01", "--to", "2026-07-01"];
    let (rows, _) = ask(folder.path(), &[&flags[..], &ends].concat());
    assert!(
        rows.ends_with("\n2026-06-01T00:00:00+02:00,2026-07-01T00:00:00+02:00,511,0,0\n"),
        "{rows}"
    );
}

#[test]
fn shares_of_days_are_of_the_days_of_each_customers_period_and_zone() {
    let folder = folder(BILLING);
    let meter = "aggregation: count_unique\nproperty: v\noperation: how\nprorate: days\n";
    write_whole_meter(folder.path(), &format!("{meter}{BILLING}"));
    let flags = ["--window", "billing_period", "--from", "2026-02-28", "--to", "2026-03-31"];
    let (rows, _) = ask(folder.path(), &flags);
    // ann: 1 and 2 on all 31 days, 4 on the last; bob: 32 and 64 on 17 of the 29 days that his first
    // period touches in New York, and on 16 of 32; cat and dan on 30 of 31.
    let want = "window_start,window_end,partial,customer_id,value,events,skipped\n\
                ,,,dan,0.967741935484,1,0\n\
                2026-02-27T18:00:00-05:00,2026-03-15T06:00:00-04:00,true,bob,1.172413793103,0,0\n\
                2026-02-28T00:00:00+01:00,2026-03-31T00:00:00+02:00,false,ann,2.032258064516,2,0\n\
                2026-02-28T00:00:00+01:00,2026-03-31T00:00:00+02:00,false,cat,0.967741935484,1,0\n\
                2026-03-15T06:00:00-04:00,2026-03-30T18:00:00-04:00,true,bob,1,0,0\n";
    assert_eq!(rows, want);
    // dan has no period: all of history, which has no number of days.
    let said = refused(folder.path(), &["--window", "billing_period"]);
    assert!(
        said.contains("meter `m` counts shares of days") && said.contains("otherwise"),
        "{said}"
    );
    let (rows, _) = ask(folder.path(), &["--window", "billing_period", "--customer", "ann"]);
    assert!(
        rows.contains("\n2026-02-28T00:00:00+01:00,2026-03-31T00:00:00+02:00,ann,2.03"),
        "{rows}"
    );
}

#[test]
fn what_would_depend_on_an_end_that_nobody_named_is_refused() {
    let folder = folder(BILLING);
    let reported = "aggregation: reported\nproperty: v\noperation: how\nreset: month\n";
    write_whole_meter(folder.path(), &format!("{reported}{BILLING}"));
    // dan has no period, and his month would end with the newest event of anybody.
    let windows = ["--window", "billing_period", "--from", "2026-02-28"];
    let said = refused(folder.path(), &windows);
    assert!(said.contains("begins at nothing again and again"), "{said}");
    let (rows, _) = ask(folder.path(), &[&windows[..], &["--to", "2026-03-31"]].concat());
    assert!(rows.contains("\n,,,dan,256,1,0\n"), "{rows}");
}

#[test]
fn days_of_one_zone_make_no_windows_of_another() {
    let folder = folder("");
    write_whole_meter(
        folder.path(),
        "aggregation: count_unique\nproperty: v\noperation: how\nprorate: days",
    );
    let march = ["--total", "--period", "2026-03", "--window", "month"];
    let (row, _) = ask(folder.path(), &march);
    // 4 on 2 days and 8 on 1, all others on all 31: 189 of 31.
    assert!(row.ends_with(",6.096774193548,4,0\n"), "{row}");
    let said = refused(folder.path(), &[&march[..], &["--tz", "Asia/Tokyo"]].concat());
    assert!(
        said.contains("counts days of Europe/Berlin, which the windows asked for cut"),
        "{said}"
    );
}

#[test]
fn what_is_carried_into_a_window_is_not_filled_over() {
    let folder = folder(BILLING);
    let meter = "aggregation: count_unique\nproperty: v\noperation: how\n";
    write_whole_meter(folder.path(), &format!("{meter}{BILLING}"));
    let flags = ["--window", "billing_period", "--from", "2026-01-31", "--to", "2026-04-30"];
    let cat = ["--customer", "cat", "--fill", "null"];
    let (rows, _) = ask(folder.path(), &[&flags[..], &cat].concat());
    // Nothing counted is 0, whatever the rest is filled with.
    let want = "window_start,window_end,customer_id,value,events,skipped\n\
                2026-01-31T00:00:00+01:00,2026-02-28T00:00:00+01:00,cat,0,0,0\n\
                2026-02-28T00:00:00+01:00,2026-03-31T00:00:00+02:00,cat,1,1,0\n\
                2026-03-31T00:00:00+02:00,2026-04-30T00:00:00+02:00,cat,1,0,0\n";
    assert_eq!(rows, want);
}

#[test]
fn results_of_days_do_not_fit_into_periods_that_begin_within_one() {
    let folder = folder(BILLING);
    let meter = |per: &str| {
        format!("aggregation: sum\nof: {{ aggregation: max, property: v, per: {per} }}\n{BILLING}")
    };
    write_whole_meter(folder.path(), &meter("day"));
    let said = refused(folder.path(), &["--window", "billing_period"]);
    assert!(said.contains("meter `m` takes results per day, which do not fit"), "{said}");
    let (rows, _) = ask(folder.path(), &["--window", "billing_period", "--customer", "ann"]);
    assert!(
        rows.contains("\n2026-02-28T00:00:00+01:00,2026-03-31T00:00:00+02:00,ann,6,2,0\n"),
        "{rows}"
    );
    write_whole_meter(folder.path(), &meter("hour"));
    let (rows, _) = ask(folder.path(), &["--window", "billing_period"]);
    assert!(
        rows.contains("\n2026-02-15T06:00:00-05:00,2026-03-15T06:00:00-04:00,bob,64,1,0\n"),
        "{rows}"
    );
    assert!(rows.contains("\n,,dan,256,1,0\n"), "{rows}");
}

#[test]
fn an_event_is_in_the_period_of_the_customer_that_it_is_attributed_to() {
    let folder = folder(BILLING);
    fs::write(folder.path().join("owners.csv"), "k,v\nbob,cat\ndan,ann\n").unwrap();
    let attributed = "customer: [owner, customer_id]\n\
                      lookups: { owner: { of: customer_id, file: ../owners.csv, key: k, value: v } }\n";
    write_meter(folder.path(), &format!("{attributed}{BILLING}"));
    let (rows, said) = ask(folder.path(), &["--window", "billing_period", "--to", "2026-03-31"]);
    let want = "window_start,window_end,customer_id,value,events,skipped\n\
                2026-01-31T00:00:00+01:00,2026-02-28T00:00:00+01:00,ann,1,1,0\n\
                2026-01-31T00:00:00+01:00,2026-02-28T00:00:00+01:00,cat,96,2,0\n\
                2026-02-28T00:00:00+01:00,2026-03-31T00:00:00+02:00,ann,262,3,0\n\
                2026-02-28T00:00:00+01:00,2026-03-31T00:00:00+02:00,cat,128,1,0\n";
    // The table's own bob would have a period that the end of the range cuts.
    assert_eq!(rows.replace(",false", "").replace(",partial", ""), want);
    assert!(!said.contains("without a billing period"), "{said}");
}
