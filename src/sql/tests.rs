//! Statements over a small lake and what they answer, or why they are refused.

use std::time::{Duration, Instant};

use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;

use super::*;
use crate::clock::Clock;
use crate::engine::{Engine, Limits};
use crate::error::ErrorKind;
use crate::ingest::input::{Input, InputFormat};
use crate::ingest::{IngestSettings, ingest};
use crate::lake::location::{Location, Namespace};
use crate::lake::tables::Lake;
use crate::meter::parse;
use crate::time::Timestamp;

const EVENTS_FIRST: &str = r#"
{"event_name":"transfer","idempotency_key":"1","customer_id":"ann","timestamp":"2026-10-01T10:00:00Z","properties":{"bytes":100,"status":200,"top":"a","price":1,"ok":true,"mixed":"x","source":"web","user":"u1","a.b":"deep"}}
{"event_name":"transfer","idempotency_key":"2","customer_id":"ann","timestamp":"2026-10-01T11:00:00Z","properties":{"bytes":250,"status":404,"top":"b","price":0.25,"ok":false,"mixed":7,"user":"u2","a.b":5}}
{"event_name":"transfer","idempotency_key":"3","customer_id":"bob","timestamp":"2026-10-02T09:00:00Z","source":"edge","properties":{"bytes":1000,"status":200,"top":"a","mixed":1.50,"Größe":"XL","user":""}}
{"event_name":"login","idempotency_key":"4","customer_id":"bob","timestamp":"2026-10-03T09:00:00Z","properties":{"mixed":true,"order":3}}
"#;

/// Values that fit no column of their kind.
const EVENTS_LATER: &str = r#"
{"event_name":"transfer","idempotency_key":"5","customer_id":"cid","timestamp":"2026-10-04T09:00:00Z","properties":{"bytes":7,"price":0.12345678901234567890123,"order":[1,2]}}
"#;

const METERS: [&str; 2] = [
    "meter: bandwidth\nevent: transfer\naggregation: sum\nproperty: bytes\ndimensions: [top]\n\
     unit: { name: kB, plural: kB, divide_by: 1000, round: up, precision: 0 }\n",
    "meter: logins\nevent: login\naggregation: count\n",
];

async fn lake(name: &str, batches: &[&str]) -> Context {
    let location = Location::parse(&format!("memory://sql-{name}")).unwrap();
    let lake = Lake::open_or_create(&location, &Namespace::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::Fixed(Timestamp::parse_rfc3339("2026-10-20T00:00:00Z").unwrap());
    for (place, batch) in batches.iter().enumerate() {
        let path = folder.path().join(format!("{place}.ndjson"));
        std::fs::write(&path, batch.trim_start()).unwrap();
        let name = path.display().to_string();
        let input = Input::file(name, path, InputFormat::Json);
        let state = folder.path().join("state");
        let settings = IngestSettings::default();
        let inputs = vec![input];
        let summary = ingest(lake.clone(), state, inputs, settings, clock, Arc::new(|_| {}));
        let summary = summary.await.unwrap();
        assert_eq!(summary.counts.accepted, summary.counts.read, "{:?}", summary.examples);
    }
    let limits = Limits { threads: 2, ..Limits::default() };
    let meters = METERS.map(|text| parse(text, "meter.yaml").unwrap());
    Context {
        engine: Engine::new(&location, limits).unwrap(),
        lake,
        meters: Arc::new(meters.into()),
        clock,
    }
}

async fn rows(context: &Context, text: &str, at: Option<u64>) -> Result<Vec<String>> {
    let answer = query(context, text, at).await?;
    let batches: Vec<RecordBatch> = answer.rows.try_collect().await?;
    let names = answer.schema.fields().iter().map(|field| field.name().clone());
    let mut lines = vec![names.collect::<Vec<_>>().join("|")];
    let options = FormatOptions::default().with_null("∅");
    for batch in batches {
        let cells: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            let cells = cells.iter().map(|column| column.value(row).to_string());
            lines.push(cells.collect::<Vec<_>>().join("|"));
        }
    }
    Ok(lines)
}

async fn check(context: &Context, cases: &[(&str, &str, &[&str])]) {
    let mut wrong = Vec::new();
    for (name, text, want) in cases {
        match Box::pin(rows(context, text, None)).await {
            Ok(got) if got == *want => {}
            Ok(got) => wrong.push(format!("{name}\n  got  {got:?}\n  want {want:?}")),
            Err(error) => wrong.push(format!("{name}\n  got error {error}\n  want {want:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn check_refused(context: &Context, cases: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (text, want) in cases {
        match Box::pin(rows(context, text, None)).await {
            Err(error) if error.to_string().contains(want) => {}
            Err(error) => wrong.push(format!("{text}\n  got  {error}\n  want {want}")),
            Ok(got) => wrong.push(format!("{text}\n  got  {got:?}\n  want {want}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_are_columns_of_the_type_of_their_values() {
    let context = lake("types", &[EVENTS_FIRST]).await;
    check(
        &context,
        &[
            (
                "integers, decimals and booleans keep their types beside a map that holds others",
                "SELECT arrow_typeof(bytes) b, arrow_typeof(price) p, arrow_typeof(ok) o FROM events LIMIT 1",
                &["b|p|o", "Int64|Decimal128(38, 18)|Boolean"],
            ),
            (
                "a property of mixed kinds is text",
                "SELECT mixed FROM events ORDER BY idempotency_key",
                &["mixed", "x", "7", "1.5", "true"],
            ),
            (
                "sums are exact",
                "SELECT customer_id, sum(bytes), sum(price) FROM events GROUP BY customer_id ORDER BY 1",
                &["customer_id|sum(events.bytes)|sum(events.price)", "ann|350|1.250000000000000000", "bob|1000|∅"],
            ),
            (
                "names that are words of other dialects",
                "SELECT top, sum(bytes) AS total FROM events GROUP BY top ORDER BY 2 DESC NULLS LAST",
                &["top|total", "a|1100", "b|250", "∅|∅"],
            ),
            (
                "null and empty are told apart",
                "SELECT user, count(*) n FROM events GROUP BY user ORDER BY user NULLS FIRST",
                &["user|n", "∅|1", "|1", "u1|1", "u2|1"],
            ),
            (
                "a property named like an envelope column, and the column",
                "SELECT source, \"property.source\" FROM events ORDER BY idempotency_key",
                &["source|property.source", "∅|web", "∅|∅", "edge|∅", "∅|∅"],
            ),
            (
                "quoted and unquoted names are the same, and a semicolon may end",
                "select count(*) as N from events where \"status\" = 200 and status = 200 ;",
                &["N", "2"],
            ),
            (
                "the envelope as seen by star",
                "SELECT * EXCLUDE (ingested_at, bytes, status, top, price, ok, mixed, user, \"order\", \"property.source\") FROM events WHERE idempotency_key = '3'",
                &[
                    "event_name|idempotency_key|customer_id|resource_id|source|timestamp|timestamp_source|event_date",
                    "transfer|3|bob|∅|edge|2026-10-02T09:00:00Z|sent|2026-10-02",
                ],
            ),
            (
                "instants, cases and casts",
                "SELECT date_trunc('day', timestamp)::date d, sum(CASE WHEN status >= 400 THEN 1 ELSE 0 END) failed FROM events WHERE timestamp < '2026-10-02T00:00:00Z' GROUP BY 1",
                &["d|failed", "2026-10-01|1"],
            ),
            ("values alone", "VALUES (1, 'x')", &["column1|column2", "1|x"]),
            (
                "with and union",
                "WITH e AS (SELECT bytes FROM events WHERE event_date = '2026-10-01') SELECT sum(bytes) s FROM (SELECT * FROM e UNION ALL SELECT * FROM e) t",
                &["s", "700"],
            ),
            (
                "a with query may hide the table",
                "WITH events AS (SELECT * FROM events WHERE status = 404) SELECT count(*) n FROM events",
                &["n", "1"],
            ),
        ],
    )
    .await;
    let described = rows(&context, "DESCRIBE events", None).await.unwrap();
    assert!(described.contains(&"bytes|Int64|YES".to_owned()), "{described:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_fit_no_column_make_the_property_text_where_it_is_asked_for() {
    let context = lake("overflow", &[EVENTS_FIRST, EVENTS_LATER]).await;
    check(
        &context,
        &[
            (
                "others keep their types",
                "SELECT arrow_typeof(bytes) b, arrow_typeof(price) p, arrow_typeof(\"order\") o FROM events LIMIT 1",
                &["b|p|o", "Int64|Utf8|Utf8"],
            ),
            (
                "nothing is lost",
                "SELECT price, \"order\" FROM events WHERE idempotency_key IN ('2', '4', '5') ORDER BY idempotency_key",
                &["price|order", "0.25|∅", "∅|3", "0.12345678901234567890123|[1,2]"],
            ),
        ],
    )
    .await;
    let first = query(&context, "SELECT 1", None).await.unwrap().table_version - 1;
    let earlier = "SELECT count(*) n, sum(price) p FROM events";
    let earlier = rows(&context, earlier, Some(first)).await.unwrap();
    assert_eq!(earlier, ["n|p", "4|1.250000000000000000"], "an earlier version has its own types");
}

#[tokio::test(flavor = "multi_thread")]
async fn integer_arithmetic_never_wraps() {
    let context = lake("arithmetic", &[EVENTS_FIRST]).await;
    check(
        &context,
        &[
            (
                "a chain keeps order, type and the name of its column",
                "SELECT bytes - 1 + status * 2 - 3 AS x, arrow_typeof(bytes * 2) t FROM events \
                 WHERE idempotency_key = '1'",
                &["x|t", "496|Int64"],
            ),
            ("an unnamed column", "SELECT 7 - 2 - 1", &["Int64(7) - Int64(2) - Int64(1)", "4"]),
            (
                "the widest that fits",
                "SELECT 9223372036854775806 + 1 a, -9223372036854775807 - 1 b, bytes * NULL c \
                 FROM events LIMIT 1",
                &["a|b|c", "9223372036854775807|-9223372036854775808|∅"],
            ),
            (
                "grouped, aggregated and filtered",
                "SELECT bytes % 100 + 1 AS g, sum(bytes * 2 + 1) s FROM events \
                 WHERE bytes + 0 > 0 GROUP BY bytes % 100 + 1 HAVING sum(bytes) + 1 > 0 ORDER BY g",
                &["g|s", "1|2202", "51|501"],
            ),
            (
                "quotients of decimals are exact to 18 digits, those of integers whole",
                "SELECT sum(bytes) / 1000000000 a, 2 / 3.0 b, -1 / 8.0 c, 7 / 2 d, price / 3 e, \
                 number('price') / 8 f FROM events WHERE idempotency_key = '2' \
                 GROUP BY price, number('price')",
                &[
                    "a|b|c|d|e|f",
                    "0.000000250000000000|0.666666666666666667|-0.125000000000000000|3|\
                     0.083333333333333333|0.031250000000000000",
                ],
            ),
            (
                "quotients in values, subqueries and products",
                "SELECT x * 3 a, v.column1 b FROM (SELECT price / 2 AS x FROM events \
                 WHERE idempotency_key = '2') s, (VALUES (1.0 / 8)) v",
                &["a|b", "0.375000000000000000|0.125000000000000000"],
            ),
            (
                "what is wider than BIGINT",
                "SELECT CAST(9223372036854775807 AS BIGINT UNSIGNED) + CAST(2 AS BIGINT UNSIGNED) a, \
                 CAST(1 AS BIGINT UNSIGNED) - 5 b",
                &["a|b", "9223372036854775809|-4"],
            ),
            (
                "dates and decimals are added as ever",
                "SELECT event_date + INTERVAL '1 day' d, price + 1 p FROM events \
                 WHERE idempotency_key = '2'",
                &["d|p", "2026-10-02|1.250000000000000000"],
            ),
        ],
    )
    .await;
    check_refused(
        &context,
        &[
            (
                "SELECT bytes + 9223372036854775807 FROM events",
                "+ 9223372036854775807 goes beyond BIGINT: cast one side to decimal(38, 0)",
            ),
            ("SELECT 0 - bytes - 9223372036854775807 FROM events", "goes beyond BIGINT"),
            ("SELECT bytes * 9223372036854775807 FROM events", "goes beyond BIGINT"),
            ("SELECT -(0 - 9223372036854775807 - 1 + bytes - bytes) FROM events", "beyond BIGINT"),
            ("SELECT CAST(2147483647 AS INT) * 9223372036854775807", "goes beyond BIGINT"),
            ("SELECT 1 FROM events WHERE bytes * 9223372036854775807 > 0", "goes beyond BIGINT"),
            ("SELECT price / 0 FROM events", "division by zero"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn property_reads_any_property_as_text() {
    let context = lake("property", &[EVENTS_FIRST]).await;
    check(
        &context,
        &[
            (
                "without a column, of every kind",
                "SELECT property('a.b'), property('Größe') g, property('mixed') m FROM events ORDER BY idempotency_key",
                &["property('a.b')|g|m", "deep|∅|x", "5|∅|7", "∅|XL|1.5", "∅|∅|true"],
            ),
            (
                "grouped, filtered, ordered, and of an alias",
                "SELECT e.property('status') s, count(*) n FROM events e WHERE property('bytes') <> '250' GROUP BY e.property('status') HAVING max(property('top')) = 'a' ORDER BY property('status')",
                &["s|n", "200|2"],
            ),
            ("unknown is null", "SELECT count(property('nothing')) n FROM events", &["n", "0"]),
            (
                "named like an envelope column",
                "SELECT property('source') s FROM events WHERE property('source') IS NOT NULL",
                &["s", "web"],
            ),
            (
                "a star does not show it twice",
                "SELECT count(*) n FROM (SELECT * EXCLUDE (bytes), property('a.b') d FROM events) t WHERE d = 'deep'",
                &["n", "1"],
            ),
            (
                "in a subquery of a condition",
                "SELECT count(*) n FROM events WHERE customer_id IN (SELECT customer_id FROM events WHERE property('a.b') = '5')",
                &["n", "2"],
            ),
        ],
    )
    .await;
    let star =
        "SELECT *, property('a.b') FROM events e JOIN meter('bandwidth') m USING (customer_id)";
    let star = rows(&context, star, None).await.unwrap().remove(0);
    assert_eq!(star.matches("property('a.b')").count(), 1, "{star}");
    let of_alias =
        rows(&context, "SELECT e.*, property('a.b') d FROM events e", None).await.unwrap();
    assert!(!of_alias[0].contains("property('a.b')"), "{of_alias:?}");
    check_refused(
        &context,
        &[
            ("SELECT property(top) FROM events", "takes one literal text"),
            ("SELECT property() FROM events", "takes one literal text"),
            ("SELECT property('a', 'b') FROM events", "takes one literal text"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meter_is_a_table() {
    let context = lake("meter", &[EVENTS_FIRST]).await;
    check(
        &context,
        &[
            (
                "a row per customer, under the meter's name",
                "SELECT bandwidth.customer_id, value, converted, billable, events, skipped FROM meter('bandwidth', period => '2026-10') ORDER BY 1",
                &["customer_id|value|converted|billable|events|skipped", "ann|350|0.35|1|2|0", "bob|1000|1.00|1|1|0"],
            ),
            (
                "windows are instants",
                "SELECT window_start, window_end, value FROM meter('bandwidth', window => 'day', total => true) m WHERE window_start >= '2026-10-02T00:00:00Z'",
                &["window_start|window_end|value", "2026-10-02T00:00:00Z|2026-10-03T00:00:00Z|1000"],
            ),
            (
                "bounds, conditions and groups",
                "SELECT top, value FROM meter('bandwidth', from => '2026-10-01', \"to\" => '2026-10-02', by => 'top, customer_id', where => 'status in (200)', tz => 'UTC') m",
                &["top|value", "a|100"],
            ),
            (
                "joined with events, and another one",
                "SELECT m.customer_id, m.value, l.value AS logins, count(*) AS n FROM meter('bandwidth') AS m LEFT JOIN meter('logins') l ON l.customer_id = m.customer_id JOIN events e ON e.customer_id = m.customer_id GROUP BY 1, 2, 3 ORDER BY 1",
                &["customer_id|value|logins|n", "ann|350|∅|2", "bob|1000|1|2"],
            ),
            (
                "the largest, within a share of all",
                "SELECT customer_id, round(100 * value / (SELECT value FROM meter('bandwidth', total => true)), 1) p FROM meter('bandwidth', top => 1)",
                &["customer_id|p", "bob|74.1"],
            ),
            (
                "broken down, of one customer",
                "SELECT count(*) n FROM meter('bandwidth', breakdown => true, customer => 'ann')",
                &["n", "2"],
            ),
        ],
    )
    .await;
    check_refused(
        &context,
        &[
            ("SELECT * FROM meter('bandwith')", "did you mean `bandwidth`?"),
            ("SELECT * FROM meter()", "its name comes first"),
            ("SELECT * FROM meter('bandwidth', perod => '2026-10')", "did you mean `period`?"),
            ("SELECT * FROM meter('bandwidth', at => 3)", "`at` holds for the whole statement"),
            ("SELECT * FROM meter('bandwidth', '2026-10')", "has no name"),
            ("SELECT * FROM meter('bandwidth', period => 2026)", "period takes a text"),
            ("SELECT * FROM meter('bandwidth', period => lower('X'))", "period takes a literal"),
            ("SELECT * FROM meter('bandwidth', top => 'x')", "top takes a number"),
            ("SELECT * FROM meter('bandwidth', by => 'a', total => true)", "exclude each other"),
            (
                "SELECT * FROM meter('bandwidth', by => 'value')",
                "has the name of a column of the answer",
            ),
            ("SELECT * FROM meter('bandwidth', period => 'soon')", "soon"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_only_read_is_refused_by_name() {
    let context = lake("refused", &[EVENTS_FIRST]).await;
    check_refused(
        &context,
        &[
            ("INSERT INTO events VALUES (1)", "`INSERT` writes; sql only reads"),
            ("update events set source = 'x'", "`UPDATE` writes"),
            ("DELETE FROM events", "`DELETE` writes"),
            ("MERGE INTO events USING x ON true WHEN MATCHED THEN DELETE", "`MERGE` writes"),
            ("TRUNCATE events", "`TRUNCATE` writes"),
            ("CREATE TABLE x AS SELECT 1", "`CREATE` writes"),
            ("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION 'Cargo.toml'", "`CREATE` writes"),
            ("ALTER TABLE events ADD COLUMN x INT", "`ALTER` writes"),
            ("DROP TABLE events", "`DROP` writes"),
            ("COPY (SELECT 1) TO 'x.csv'", "`COPY` writes"),
            ("LOAD DATA INPATH 'x' INTO TABLE events", "`LOAD` writes"),
            ("SET datafusion.execution.batch_size = 1", "`SET` is no question"),
            ("PREPARE p AS SELECT 1", "`PREPARE` is no question"),
            ("EXECUTE p", "`EXECUTE` is no question"),
            ("CALL p()", "`CALL` is no question"),
            ("ATTACH 'x' AS y", "`ATTACH` is no question"),
            ("SHOW TABLES", "`SHOW` is no question"),
            ("BEGIN", "`BEGIN` is no question"),
            ("EXPLAIN INSERT INTO events VALUES (1)", "`INSERT` writes"),
            ("EXPLAIN ANALYZE DELETE FROM events", "`DELETE` writes"),
            ("WITH x AS (SELECT 1) INSERT INTO events SELECT * FROM x", "`INSERT` writes"),
            ("WITH x AS (DELETE FROM events) SELECT 1", "writes"),
            ("SELECT 1 INTO x", "`SELECT INTO` writes"),
            ("SELECT 1; DROP TABLE events", "another one begins with `DROP`"),
            ("SELECT 1; ; SELECT 2", "another one begins with `SELECT`"),
            ("", "there is no statement"),
            (" ; -- nothing", "there is no statement"),
            ("SELECT 1 FROM", "expected"),
            ("SELECT * FROM events FOR UPDATE", "`FOR UPDATE` locks"),
            (
                "WITH RECURSIVE n AS (SELECT 1 x UNION ALL SELECT x + 1 FROM n) SELECT * FROM n",
                "`WITH RECURSIVE` may never end",
            ),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_settings_and_other_tables_cannot_be_reached() {
    let context = lake("walls", &[EVENTS_FIRST]).await;
    check_refused(
        &context,
        &[
            ("SELECT * FROM 'Cargo.toml'", "no table `Cargo.toml`"),
            ("SELECT * FROM \"data/access.ndjson\"", "no table `data/access.ndjson`"),
            ("SELECT * FROM read_parquet('x.parquet')", "no table function `read_parquet`"),
            ("SELECT * FROM generate_series(1, 10)", "no table function `generate_series`"),
            ("SELECT * FROM information_schema.tables", "no table `information_schema.tables`"),
            ("SELECT * FROM event", "no table `event`; there is `events`"),
            ("DESCRIBE nothing", "no table `nothing`"),
            ("SELECT repeat('x', 1000000000)", "no function `repeat`"),
            ("SELECT lpad('x', 1000000000)", "no function `lpad`"),
            ("SELECT range(0, 1000000000)", "no function `range`"),
            ("SELECT byts FROM events", "no column `byts`; did you mean `bytes`?"),
            ("SELECT customer FROM events", "did you mean `customer_id`?"),
            ("SELECT e.statis FROM events e", "no column `statis` in `e`; did you mean `status`?"),
            ("SELECT kind FROM events", "no column `kind`"),
            ("SELECT zzzzzz FROM events", "property('zzzzzz')"),
            ("SELECT meter('bandwidth')", "meter(…) is a table: write it after FROM"),
            ("SELECT coalescee(top, '') FROM events", "no function `coalescee`"),
            ("SELECT cast(top AS BIGINT) FROM events", "cannot cast string 'a' to value of Int64"),
            ("SELECT cast('a' AS BIGINT)", "cannot cast string 'a' to value of Int64"),
            (
                "SELECT bytes FROM events e, events f",
                "ambiguous reference to unqualified field bytes",
            ),
            ("SELECT sum(bytes) FROM events GROUP BY", "sql: expected: "),
            ("SELECT top, sum(bytes) FROM events", "column in SELECT must be in GROUP BY"),
            (
                "WITH events AS (SELECT 1 AS x) SELECT property('a.b') FROM events",
                "property('a.b') reads the table `events`",
            ),
        ],
    )
    .await;
    let missing = rows(&context, "SELECT 1 FROM nothing", None).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_texts_are_refused_at_once() {
    let context = lake("hostile", &[EVENTS_FIRST]).await;
    let doubling: Vec<String> =
        (1..40).map(|n| format!("c{n} AS (SELECT * FROM c{p}, c{p} d{p})", p = n - 1)).collect();
    let started = Instant::now();
    for (name, text, want) in [
        ("length", format!("SELECT '{}'", "x".repeat(300_000)), "262144 are allowed"),
        ("long sum", format!("SELECT 1{}", " + 1".repeat(2_000)), "150 are allowed"),
        ("very long sum", format!("SELECT 1{}", "+1".repeat(100_000)), "words and signs"),
        ("unions", format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(5_000)), "are allowed"),
        ("fewer unions", format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(65)), "64 are allowed"),
        ("parentheses", format!("SELECT {}1{}", "(".repeat(4_000), ")".repeat(4_000)), "nested"),
        ("not", format!("SELECT {} true", "NOT ".repeat(9_000)), "expected"),
        ("minus", format!("SELECT {} 1", "- ".repeat(9_000)), "nested"),
        ("casts", format!("SELECT 1{}", "::int".repeat(4_000)), "150 are allowed"),
        ("wide", format!("SELECT 1{}", ", 1+1".repeat(2_400)), "5000 are allowed"),
        ("tables", format!("SELECT 1 FROM events{}", ", events".repeat(300)), "100 are allowed"),
        (
            "with queries that double",
            format!("WITH c0 AS (SELECT * FROM events), {} SELECT 1 FROM c39", doubling.join(", ")),
            "100 are allowed",
        ),
    ] {
        let error = Box::pin(rows(&context, &text, None)).await.unwrap_err().to_string();
        assert!(error.contains(want), "{name}: {error}");
        assert!(error.len() < 300, "{name}: {} bytes of error", error.len());
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_as_large_as_allowed_are_answered() {
    let context = lake("large", &[EVENTS_FIRST]).await;
    let values = |with: &str, count: usize| -> String {
        (0..count).map(|n| format!("{with}{n}")).collect::<Vec<_>>().join("")
    };
    let started = Instant::now();
    for (name, text, want) in [
        ("sum", format!("SELECT bytes{} x FROM events", values(" + ", 148)), 4),
        (
            "or",
            format!("SELECT 1 FROM events WHERE bytes = 7{}", values(" OR status * 2 > ", 140)),
            3,
        ),
        ("in", format!("SELECT 1 FROM events WHERE status IN (200{})", values(", ", 4_900)), 3),
        (
            "unions",
            format!("SELECT 1 FROM events{}", " UNION ALL SELECT 2 FROM events".repeat(64)),
            260,
        ),
        ("parentheses", format!("SELECT {}1{}", "(".repeat(40), ")".repeat(40)), 1),
        (
            "sums in products",
            format!("SELECT {}bytes{} FROM events", "(".repeat(40), " + 1) * 2".repeat(40)),
            4,
        ),
    ] {
        // On a thread of its own, as a server runs it.
        let context = context.clone();
        let answered = tokio::spawn(async move { rows(&context, &text, None).await });
        let answered = answered.await.unwrap().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(answered.len() - 1, want, "{name}");
    }
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_and_columns_reach_the_scan() {
    let context = lake("pushdown", &[EVENTS_FIRST]).await;
    let plan = "EXPLAIN SELECT count(*), sum(bytes) FROM events WHERE event_date = DATE '2026-10-02' AND customer_id = 'bob'";
    let plan = rows(&context, plan, None).await.unwrap().join("\n");
    assert_eq!(plan.matches(".parquet").count(), 1, "one file of three is left: {plan}");
    let scan = "projection=[customer_id, i_bytes]";
    assert!(plan.contains(scan), "only what is asked is read: {plan}");
    assert!(plan.contains("predicate=customer_id"), "{plan}");
    for (text, want) in [
        ("SELECT bytes FROM events WHERE customer_id = 'bob' AND status = 200", Reach::Needle),
        ("SELECT bytes FROM events e WHERE 'bob' = e.customer_id", Reach::Needle),
        ("SELECT bytes FROM events WHERE customer_id = 'bob' OR status = 200", Reach::Broad),
        ("SELECT bytes FROM events WHERE customer_id <> 'bob'", Reach::Broad),
        (
            "SELECT 1 FROM events e, events f WHERE e.customer_id = 'a' AND e.top = f.top",
            Reach::Broad,
        ),
    ] {
        let session = context.engine.session(Reach::Broad);
        let snapshot = context.lake.events.snapshot(None).await.unwrap();
        let table = Arc::new(EventsTable::new(&context.lake.events, snapshot).unwrap());
        let (statement, mentioned) = statement::parse(text).unwrap();
        let view = events::view(&context, &table, &mentioned, &Default::default()).await.unwrap();
        session.register_table(EVENTS, view.view).unwrap();
        let statement = EngineStatement::Statement(Box::new(statement));
        let plan = session.state().statement_to_plan(statement).await.unwrap();
        assert_eq!(events::reach(&plan), want, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn number_reads_the_numbers_of_any_property() {
    let context = lake("number", &[EVENTS_FIRST, EVENTS_LATER]).await;
    check(
        &context,
        &[
            (
                "of mixed kinds: largest, order and sum are those of numbers",
                "SELECT max(number('mixed')) = 7 m, sum(number('mixed')) = 8.5 s, count(number('mixed')) n FROM events",
                &["m|s|n", "true|true|2"],
            ),
            (
                "the narrowest type that holds all numbers",
                "SELECT arrow_typeof(number('bytes')) b, arrow_typeof(number('ok')) o, arrow_typeof(number('mixed')) m FROM events LIMIT 1",
                &["b|o|m", "Int64|Int64|Decimal256(76, 38)"],
            ),
            (
                "from the map, of an alias",
                "SELECT e.number('a.b') = 5 d, number('price') > 0.123456789012345678901 p FROM events e WHERE idempotency_key IN ('2', '5') ORDER BY idempotency_key",
                &["d|p", "true|true", "∅|true"],
            ),
            (
                "columns named by their place are mentioned",
                "SELECT count(w) n FROM (SELECT price AS x FROM events) AS t(w) WHERE w = '0.12345678901234567890123'",
                &["n", "1"],
            ),
        ],
    )
    .await;
    let columns = rows(&context, "DESCRIBE events", None).await.unwrap();
    let price = columns[1..].iter().position(|line| line.starts_with("price|")).unwrap();
    let names: Vec<String> = (0..=price).map(|place| format!("c{place}")).collect();
    let all = (names.len()..columns.len() - 1).map(|place| format!("c{place}"));
    let all: Vec<String> = names.iter().cloned().chain(all).collect();
    let renamed = format!("SELECT c{price} FROM events AS t({}) WHERE c1 = '5'", all.join(", "));
    let renamed = rows(&context, &renamed, None).await.unwrap();
    assert_eq!(renamed[1], "0.12345678901234567890123", "renamed by place");
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_are_text_beside_numbers_are_noted() {
    let context = lake("notes", &[EVENTS_FIRST]).await;
    for (text, want) in [
        ("SELECT max(mixed) FROM events", 1),
        ("SELECT 1 FROM events ORDER BY mixed", 1),
        ("SELECT * FROM events e", 1),
        ("SELECT max(number('mixed')) AS mixed FROM events ORDER BY mixed", 0),
        ("SELECT property('mixed') FROM events", 0),
        ("SELECT bytes, top FROM events", 0),
        ("SELECT count(*) FROM events", 0),
        ("SELECT * FROM meter('bandwidth', period => '2026-10')", 0),
    ] {
        let notes = Box::pin(query(&context, text, None)).await.unwrap().notes;
        assert_eq!(notes.len(), want, "{text}: {notes:?}");
        assert!(notes.iter().all(|note| note.contains("number('mixed')")), "{notes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_told_once_and_without_the_names_of_layers() {
    let context = lake("messages", &[EVENTS_FIRST]).await;
    for (text, want) in [
        ("SELECT 1 / 0", "sql: divide by zero"),
        ("SELECT bytes / (status - status) FROM events", "sql: divide by zero"),
        ("SELECT cast(top AS BIGINT) FROM events", "sql: cannot cast string 'a'"),
        ("SELECT property('top'), number('top'), zzzzzz FROM events", "no column `zzzzzz`; there"),
    ] {
        let error = Box::pin(rows(&context, text, None)).await.unwrap_err();
        let said = error.to_string();
        assert!(said.to_lowercase().starts_with(want), "{text}: {said}");
        assert!(std::error::Error::source(&error).is_none(), "{text}: nothing is told twice");
        assert!(!said.contains("('top')"), "{text}: {said}");
    }
}
