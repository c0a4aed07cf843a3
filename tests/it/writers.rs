//! Several writers on one lake, and key indexes that were lost: every identity counts once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use meterhouse::clock::Clock;
use meterhouse::engine::{Engine, Limits};
use meterhouse::ingest::{Counts, IngestSettings, Summary, ingest, input};
use meterhouse::lake::location::{Location, Namespace};
use meterhouse::lake::tables::Lake;
use meterhouse::meter::parse;
use meterhouse::usage::{Context, Grouping, UsageRequest, usage};

/// Writes events `range`, each with a value of its own, and gives the file's path.
fn write_events(folder: &Path, name: &str, range: std::ops::Range<u64>) -> String {
    let line = |n: u64| {
        let (day, hour) = (n % 5 + 1, n % 24);
        format!(
            r#"{{"event_name":"hit","idempotency_key":"k{n}","customer_id":"c{}","timestamp":"2026-06-{day:02}T{hour:02}:00:00Z","properties":{{"n":{n}}}}}"#,
            n % 7
        )
    };
    let path = folder.join(name);
    let text: Vec<String> = range.map(line).collect();
    std::fs::write(&path, text.join("\n")).unwrap();
    path.display().to_string()
}

async fn run(root: &Path, state: &Path, file: &str, commit_events: u64) -> Summary {
    let location = Location::parse(root.to_str().unwrap()).unwrap();
    let lake = Lake::open_or_create(&location, &Namespace::default()).await.unwrap();
    let inputs = input::expand(&[file.to_owned()], None, &[]).await.unwrap();
    let settings = IngestSettings { commit_events, ..IngestSettings::default() };
    ingest(lake, state.to_owned(), inputs, settings, Clock::System, Arc::new(|_| ())).await.unwrap()
}

/// Count and sum of `n` over everything in the lake.
async fn totals(root: &Path) -> BTreeMap<String, String> {
    let location = Location::parse(root.to_str().unwrap()).unwrap();
    let context = Context {
        lake: Lake::open(&location, &Namespace::default()).await.unwrap(),
        engine: Engine::new(&location, Limits::default()).unwrap(),
        meters: Arc::new(vec![
            parse("meter: hits\naggregation: count\n", "hits").unwrap(),
            parse("meter: total\naggregation: sum\nproperty: n\n", "total").unwrap(),
        ]),
        clock: Clock::System,
    };
    let request = UsageRequest {
        meters: vec!["hits".to_owned(), "total".to_owned()],
        grouping: Grouping::Total,
        ..UsageRequest::default()
    };
    let mut found = BTreeMap::new();
    usage(&context, &request, &mut |batch| {
        let (meters, values) =
            (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
        for row in 0..batch.num_rows() {
            found.insert(meters.value(row).to_owned(), values.value(row).to_owned());
        }
        Ok(true)
    })
    .await
    .unwrap();
    found
}

/// Sums of every batch's account. A writer may find another's commit before its account is written
/// down and do so itself: a batch counts once, by its identity.
async fn accounts(root: &Path) -> BTreeMap<String, i64> {
    let location = Location::parse(root.to_str().unwrap()).unwrap();
    let lake = Lake::open(&location, &Namespace::default()).await.unwrap();
    let table = lake.batches().await.unwrap().unwrap();
    let snapshot = table.snapshot(None).await.unwrap();
    let (mut sums, mut seen) = (BTreeMap::new(), std::collections::BTreeSet::new());
    for file in &snapshot.files {
        let place = table.object_path(&file.path).unwrap();
        let got = object_store::ObjectStoreExt::get(&location.store, &place).await.unwrap();
        let bytes = got.bytes().await.unwrap();
        let rows = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes)
            .unwrap()
            .build()
            .unwrap();
        for rows in rows {
            let rows = rows.unwrap();
            let batches = rows.column_by_name("batch").unwrap().as_string::<i32>();
            for row in
                (0..rows.num_rows()).filter(|&row| seen.insert(batches.value(row).to_owned()))
            {
                for name in ["read", "accepted", "duplicate", "conflict", "rejected"] {
                    let column = rows.column_by_name(name).unwrap().as_primitive::<Int64Type>();
                    *sums.entry(name.to_owned()).or_default() += column.value(row);
                }
            }
        }
    }
    sums
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_bring_the_same_events_store_each_once() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("lake");
    // Every two writers share half of their events; all race for the same versions.
    let writers = (0..4_u64).map(|writer| {
        let file = write_events(
            folder.path(),
            &format!("{writer}.ndjson"),
            writer * 500..writer * 500 + 1_000,
        );
        let (root, state) = (root.clone(), folder.path().join(format!("state-{writer}")));
        tokio::spawn(async move { run(&root, &state, &file, 200).await.counts })
    });
    let mut sum = Counts::default();
    for writer in writers.collect::<Vec<_>>() {
        sum += writer.await.unwrap();
    }
    assert_eq!((sum.read, sum.conflict, sum.rejected), (4_000, 0, 0));
    assert_eq!((sum.accepted, sum.duplicate), (2_500, 1_500));
    let want: u64 = (0..2_500).sum();
    let totals = totals(&root).await;
    assert_eq!((totals["hits"].as_str(), totals["total"].clone()), ("2500", want.to_string()));
    let accounts = accounts(&root).await;
    assert_eq!(
        (accounts["read"], accounts["accepted"], accounts["duplicate"]),
        (4_000, 2_500, 1_500)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_key_index_is_rebuilt_from_the_events() {
    let folder = tempfile::tempdir().unwrap();
    let (root, state) = (folder.path().join("lake"), folder.path().join("state"));
    let odd = r#"{"event_name":"hit","idempotency_key":"odd","customer_id":"c","timestamp":"2026-06-01T00:00:00Z","source":"s","resource_id":"r","properties":{"d":1.50,"t":"0x","b":true,"a.b":[1,2],"big":123456789012345678901234567890,"txt":"12"}}"#;
    let path = folder.path().join("odd.ndjson");
    std::fs::write(&path, odd).unwrap();
    let file = write_events(folder.path(), "a.ndjson", 0..1_000);
    assert_eq!(run(&root, &state, &file, 300).await.counts.accepted, 1_000);
    let odd = path.display().to_string();
    assert_eq!(run(&root, &state, &odd, 300).await.counts.accepted, 1);
    std::fs::remove_dir_all(&state).unwrap();
    // Same content, not conflict: the rebuilt hashes equal those of the input.
    assert_eq!(run(&root, &state, &file, 300).await.counts.duplicate, 1_000);
    assert_eq!(run(&root, &state, &odd, 300).await.counts.duplicate, 1);
}
