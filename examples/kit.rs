//! The benchmark kit's view of us: the ten questions through the product's own paths.
//!
//! `kit prepare --data DIR --lake DIR` ingests the kit's Parquet with a mapping, as any user would.
//! `kit run --lake DIR --meta FILE --query q1 --threads 2 --runs 6` answers one question that many
//! times and prints the last answer as CSV, with one `elapsed_ms:` line per run on standard error.
//! `kit rollups --lake DIR` brings rollups of the meters up to the events; `kit run --rollups` may use them.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, AsArray, RecordBatch};
use clap::{Parser, Subcommand};
use meterhouse::clock::Clock;
use meterhouse::engine::{Engine, Limits};
use meterhouse::ingest::{IngestSettings, ingest, input, mapping::Mapping};
use meterhouse::lake::location::{Location, Namespace};
use meterhouse::lake::state::state_folder;
use meterhouse::lake::tables::Lake;
use meterhouse::meter::load_folder;
use meterhouse::rollup::{Manner, Merging, describe, refresh};
use meterhouse::usage::{Context, Grouping, UsageRequest, usage};
use serde_json::Value;

/// As in the program.
#[cfg(unix)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The kit's questions through the product's own paths.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a lake of the kit's Parquet files.
    Prepare {
        #[arg(long)]
        data: String,
        #[arg(long)]
        lake: String,
    },
    /// Make rollups of the kit's meters, or bring them up to the events.
    Rollups {
        #[arg(long)]
        lake: String,
    },
    /// Answer one question.
    Run {
        #[arg(long)]
        lake: String,
        #[arg(long)]
        meta: PathBuf,
        #[arg(long)]
        query: String,
        #[arg(long, default_value_t = 2)]
        threads: usize,
        #[arg(long, default_value_t = 1)]
        runs: usize,
        /// From rollups, where there are any; from the events alone if not.
        #[arg(long)]
        rollups: bool,
    },
}

/// The meter files of the ten questions.
const METERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/kit/meters");

fn main() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match Arguments::parse().command {
        Command::Prepare { data, lake } => runtime.block_on(prepare(data, &lake)),
        Command::Rollups { lake } => runtime.block_on(rollups(&lake)),
        Command::Run { lake, meta, query, threads, runs, rollups } => {
            let meta: Value = serde_json::from_str(&std::fs::read_to_string(meta)?)?;
            let request = UsageRequest { from_events: !rollups, ..request(&query, &meta)? };
            runtime.block_on(run(&lake, &request, &query, threads, runs))
        }
    }
}

async fn prepare(data: String, lake: &str) -> Outcome<()> {
    let location = Location::parse(lake)?;
    let namespace = Namespace::default();
    let mut mapping = Mapping::default();
    mapping.set("idempotency_key=event_id")?;
    let settings = IngestSettings { mapping: Some(mapping), ..IngestSettings::default() };
    let state = state_folder(&location, &namespace, None)?;
    let lake = Lake::open_or_create(&location, &namespace).await?;
    let inputs = input::expand(&[data], None, &[]).await?;
    let summary = ingest(lake, state, inputs, settings, Clock::System, Arc::new(|_| ())).await?;
    eprintln!("{summary:?}");
    Ok(())
}

async fn rollups(lake: &str) -> Outcome<()> {
    let context = open(lake, Limits::default().threads).await?;
    let manner = Manner { merging: Merging::Worth, anew: false };
    let snapshot = context.lake.events.snapshot(None).await?;
    for meter in context.meters.iter() {
        let started = Instant::now();
        let place = (&context.lake, &context.engine);
        let done = refresh(place, meter, &snapshot, manner, context.clock.now()).await?;
        let rows = describe(&context.lake, meter).await?.map_or(0, |rollup| rollup.rows);
        let seconds = started.elapsed().as_secs_f64();
        eprintln!(
            "{}: {} rows read, {rows} rows of states, {seconds:.2} s",
            meter.name, done.rows_read
        );
    }
    Ok(())
}

async fn run(
    lake: &str,
    request: &UsageRequest,
    query: &str,
    threads: usize,
    runs: usize,
) -> Outcome<()> {
    let mut batches = Vec::new();
    let mut context: Option<Context> = None;
    for _ in 0..runs {
        let started = Instant::now();
        let context = match &context {
            Some(context) => context,
            None => context.insert(open(lake, threads).await?),
        };
        batches.clear();
        usage(context, request, &mut |batch| {
            batches.push(batch);
            Ok(true)
        })
        .await?;
        eprintln!("elapsed_ms: {:.3}", started.elapsed().as_secs_f64() * 1e3);
    }
    print(query, &batches)
}

async fn open(lake: &str, threads: usize) -> Outcome<Context> {
    let location = Location::parse(lake)?;
    let lake = Lake::open(&location, &Namespace::default()).await?;
    let limits = Limits { threads, ..Limits::default() };
    Ok(Context {
        engine: Engine::new(&location, limits)?,
        lake,
        meters: Arc::new(load_folder(Path::new(METERS))?),
        clock: Clock::System,
    })
}

fn request(query: &str, meta: &Value) -> Outcome<UsageRequest> {
    let text = |key: &str| meta[key].as_str().map(ToOwned::to_owned);
    let by = |names: &[&str]| Grouping::By(names.iter().map(|name| (*name).to_owned()).collect());
    let month = UsageRequest {
        meters: vec!["usage".to_owned()],
        from: text("month_start"),
        to: text("month_end"),
        ..UsageRequest::default()
    };
    let window = |window: &str| Some(window.to_owned());
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Ok(match query {
        "q1" => month,
        "q2" => UsageRequest { window: window("day"), ..month },
        "q3" => {
            UsageRequest { customer: text("probe_customer"), grouping: by(&["domain"]), ..month }
        }
        "q4" => UsageRequest {
            customer: text("probe_customer"),
            grouping: by(&["data_center"]),
            window: window("hour"),
            ..month
        },
        "q5" => {
            let centers = meta["eu_data_centers"].as_array().ok_or("eu_data_centers")?;
            let list: Vec<String> =
                centers.iter().filter_map(Value::as_str).map(|c| format!("'{c}'")).collect();
            UsageRequest {
                conditions: Some(format!("data_center in ({})", list.join(", "))),
                ..month
            }
        }
        "q6" => UsageRequest { meters: named(&["users"]), ..month },
        "q7" => {
            UsageRequest { meters: named(&["max", "min", "avg"]), window: window("day"), ..month }
        }
        "q8" => UsageRequest {
            from: text("last24_start"),
            to: text("last24_end"),
            top: Some(100),
            ..month
        },
        "q9" => UsageRequest {
            meters: named(&["events"]),
            grouping: by(&["event_name"]),
            window: window("hour"),
            ..month
        },
        "q10" => UsageRequest {
            meters: named(&["last"]),
            grouping: by(&["customer_id", "domain"]),
            ..month
        },
        other => return Err(format!("unknown question {other}").into()),
    })
}

/// The answer with the kit's column names; the three meters of q7 side by side.
fn print(query: &str, batches: &[RecordBatch]) -> Outcome<()> {
    let (header, columns): (&str, &[&str]) = match query {
        "q1" | "q5" | "q8" => ("customer_id,usage", &["customer_id", "value"]),
        "q2" => ("customer_id,day,usage", &["customer_id", "window_start", "value"]),
        "q3" => ("domain,usage,events", &["domain", "value", "events"]),
        "q4" => ("hour,data_center,usage", &["window_start", "data_center", "value"]),
        "q6" => ("customer_id,users", &["customer_id", "value"]),
        "q7" => ("customer_id,day,max,min,avg", &["customer_id", "window_start", "value"]),
        "q9" => ("event_name,hour,events", &["event_name", "window_start", "value"]),
        _ => ("customer_id,domain,last", &["customer_id", "domain", "value"]),
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            rows.push(columns.iter().map(|name| cell(batch, name, row)).collect());
        }
    }
    if query == "q7" {
        let (max, rest) = rows.split_at(rows.len() / 3);
        let (min, avg) = rest.split_at(max.len());
        let mut together = Vec::with_capacity(max.len());
        for ((max, min), avg) in max.iter().zip(min).zip(avg) {
            if max[..2] != min[..2] || max[..2] != avg[..2] {
                return Err(
                    format!("the meters of q7 differ in rows: {max:?}, {min:?}, {avg:?}").into()
                );
            }
            let mut row = max.clone();
            row.extend([min[2].clone(), avg[2].clone()]);
            together.push(row);
        }
        rows = together;
    }
    let mut writer = csv::Writer::from_writer(std::io::stdout());
    writer.write_record(header.split(','))?;
    for row in rows {
        writer.write_record(row)?;
    }
    writer.flush()?;
    Ok(())
}

fn cell(batch: &RecordBatch, name: &str, row: usize) -> String {
    let Some(column) = batch.column_by_name(name) else { return String::new() };
    if column.is_null(row) {
        return String::new();
    }
    match column.as_string_opt::<i32>() {
        Some(text) => text.value(row).to_owned(),
        None => column.as_primitive::<arrow::datatypes::Int64Type>().value(row).to_string(),
    }
}
