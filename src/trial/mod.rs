//! Tests of meters: events, a question, and the rows that must be the answer.
//!
//! Each case has a lake of its own in memory; its events go through the same ingest and its question
//! through the same usage as any other. Reads files of tests, and those of events and tables that they
//! name; writes nothing but temporary files.

mod case;
mod compare;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use uuid::Uuid;

pub use case::{Case, Events, Expected, LakeTable, Suite, Want, WrittenEvent, parse_suite};

use crate::clock::Clock;
use crate::engine::{Engine, Limits};
use crate::error::{Error, Result};
use crate::event::EventRules;
use crate::ingest::input::{self, Input, InputFormat};
use crate::ingest::quarantine::Quarantined;
use crate::ingest::{IngestSettings, ingest};
use crate::lake::location::{Location, Namespace};
use crate::lake::tables::Lake;
use crate::meter::{Billing, Meter, TablePlace, load_table};
use crate::time::{TimeRange, Timestamp, parse_bound, parse_zone};
use crate::usage::{Context, UsageRequest, usage};

/// Events of a test may lie as far ahead as anybody writes them.
const FUTURE_HOURS: u32 = 24 * 366 * 8_000;
/// Memory for the few events of a test.
const MEMORY_BYTES: usize = 64 << 20;
/// When an event happens that does not say so, in a question about all of history.
const EVENT_TIME: &str = "2026-01-01T00:00:00Z";
/// Whose an event is that does not say so.
const CUSTOMER: &str = "customer";
/// What an event is called that does not say so, for a meter that counts every one.
const EVENT_NAME: &str = "event";

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Name of the case.
    pub case: String,
    /// Why it failed, in lines of which the first names file and line; `None` if it passed.
    pub failure: Option<String>,
}

/// A row of an answer: columns and texts; null is `None`.
type Row = Vec<(String, Option<String>)>;

/// Runs the cases of `suite` for `meter`, one after the other.
///
/// # Errors
/// No room for temporary files; a defect. What is wrong with a case is its verdict.
pub async fn run(suite: &Suite, meter: &Meter, clock: Clock) -> Result<Vec<Verdict>> {
    let location = Location::parse(&format!("memory://trial-{}", Uuid::new_v4().simple()))?;
    let limits = Limits { threads: 1, ..Limits::default() };
    let engine = Engine::new(&location, limits)?;
    let mut verdicts = Vec::with_capacity(suite.cases.len());
    for (number, case) in suite.cases.iter().enumerate() {
        let namespace = Namespace::parse(&format!("case-{number}"))?;
        let lake = Lake::open_or_create(&location, &namespace).await?;
        let clock = case.now.map_or(clock, Clock::Fixed);
        let meters = Arc::new(vec![meter.clone()]);
        let context = Context { lake, engine: engine.clone(), meters, clock };
        let failure = Box::pin(Trial { suite, meter, case, context }.failure()).await?;
        verdicts.push(Verdict { case: case.name.clone(), failure });
    }
    Ok(verdicts)
}

/// One case under way.
struct Trial<'t> {
    suite: &'t Suite,
    meter: &'t Meter,
    case: &'t Case,
    context: Context,
}

impl Trial<'_> {
    async fn failure(&self) -> Result<Option<String>> {
        if let Some(failure) = self.bring_tables().await? {
            return Ok(Some(failure));
        }
        if let Some(failure) = self.bring_events().await? {
            return Ok(Some(failure));
        }
        let request =
            UsageRequest { meters: vec![self.meter.name.clone()], ..self.case.request.clone() };
        let mut rows: Vec<Row> = Vec::new();
        let mut columns = Vec::new();
        let answered = usage(&self.context, &request, &mut |batch| {
            if columns.is_empty() {
                let fields = batch.schema().fields().clone();
                columns = fields.iter().map(|field| field.name().clone()).collect();
            }
            rows.extend(texts(&batch)?);
            Ok(true)
        })
        .await;
        Ok(match (&self.case.want, answered) {
            (Want::Rows { line, rows: want }, Ok(_)) => {
                compare::difference(want, &rows, &columns).map(|told| self.at(*line, &told))
            }
            (Want::Error { line, part }, Err(error)) => {
                let told = error.to_string();
                (!told.contains(part)).then(|| {
                    self.at(*line, &format!("the answer is another error than expected: {told}"))
                })
            }
            (Want::Rows { line, .. }, Err(error)) => {
                Some(self.at(*line, &format!("there is no answer: {error}")))
            }
            (Want::Error { line, part }, Ok(_)) => Some(
                self.at(*line, &format!("an error was expected that says `{part}`; rows came")),
            ),
        })
    }

    /// A text with file and line before it.
    fn at(&self, line: usize, text: &str) -> String {
        format!("{}:{line}: {text}", self.suite.file)
    }

    /// Puts the lake's lookup tables there; says which of them cannot be read or is not asked for, and
    /// which one the meter lacks.
    async fn bring_tables(&self) -> Result<Option<String>> {
        let (meter, tables) = (self.meter, &self.case.tables);
        let lookups =
            meter.lookups.iter().map(|(name, of)| (format!("lookup `{name}`"), &of.table));
        let billing = match &meter.billing {
            Some(Billing::PerCustomer(table)) => Some(("`billing`".to_owned(), &table.table)),
            Some(Billing::Shared(_)) | None => None,
        };
        let read = lookups.chain(billing).filter_map(|(reader, place)| match place {
            TablePlace::Lake(table) => Some((reader, table)),
            TablePlace::File(_) => None,
        });
        let read: Vec<(String, &String)> = read.collect();
        let lacking =
            read.iter().find(|(_, name)| !tables.iter().any(|table| table.name == **name));
        if let (Some((reader, name)), Want::Rows { .. }) = (lacking, &self.case.want) {
            let told = format!(
                "{reader} reads table `{name}` of the lake: give the test its rows, \
                 `lookups: {{ {name}: FILE }}`"
            );
            return Ok(Some(self.at(self.case.line, &told)));
        }
        for table in tables {
            let name = &table.name;
            if !read.iter().any(|(_, read)| *read == name) {
                let told = format!("nothing in meter `{}` reads a table `{name}`", meter.name);
                return Ok(Some(self.at(table.line, &told)));
            }
            let csv = match load_table(&self.suite.folder().join(&table.path)) {
                Ok(csv) => csv,
                Err(error) => return Ok(Some(self.at(table.line, &error.to_string()))),
            };
            let at_ms = self.context.clock.now().micros().div_euclid(1_000);
            self.context.lake.events.put_lookup(name, &csv, BTreeMap::new(), at_ms).await?;
        }
        Ok(None)
    }

    /// Ingests the events; says which of them did not get in.
    async fn bring_events(&self) -> Result<Option<String>> {
        let folder = tempfile::tempdir().map_err(|error| {
            Error::unavailable(format!("no temporary folder for a test: {error}"))
        })?;
        let inputs = match &self.case.events {
            Events::Written(events) if events.is_empty() => return Ok(None),
            Events::Written(events) => {
                let path = folder.path().join("events.ndjson");
                let written = std::fs::write(&path, self.lines(events)?);
                written.map_err(|error| {
                    Error::unavailable(format!("{} cannot be written: {error}", path.display()))
                })?;
                vec![Input::file("events", path, InputFormat::Json)]
            }
            Events::File { path, line } => {
                let path = self.suite.folder().join(path).display().to_string();
                match input::expand(std::slice::from_ref(&path), None, &[]).await {
                    Ok(inputs) => inputs,
                    Err(error) => return Ok(Some(self.at(*line, &error.to_string()))),
                }
            }
        };
        let state = folder.path().join("state");
        let rules = EventRules { customer_required: false, future_max_hours: FUTURE_HOURS };
        let settings = IngestSettings {
            rules,
            memory_bytes: MEMORY_BYTES,
            threads: 1,
            ..IngestSettings::default()
        };
        let lake = self.context.lake.clone();
        let clock = self.context.clock;
        let summary = ingest(lake, state, inputs, settings, clock, Arc::new(|_| ())).await;
        Ok(match (summary, &self.case.events) {
            (Ok(summary), _) => summary.examples.first().map(|event| self.refused(event)),
            (Err(error), Events::File { line, .. }) => Some(self.at(*line, &error.to_string())),
            (Err(error), Events::Written(_)) => return Err(error),
        })
    }

    fn refused(&self, event: &Quarantined) -> String {
        let what = match event.outcome {
            "conflict" => format!("an event is in conflict with an earlier one: {}", event.message),
            _ => format!("an event was rejected: {}", event.message),
        };
        let place = event.line.and_then(|line| usize::try_from(line).ok());
        match (&self.case.events, place) {
            (Events::Written(events), Some(place)) => {
                let line = events.get(place.saturating_sub(1)).map(|event| event.line);
                self.at(line.unwrap_or(self.case.line), &what)
            }
            (Events::Written(_), None) => self.at(self.case.line, &what),
            (Events::File { path, line }, place) => {
                let place = place.map(|place| format!(":{place}")).unwrap_or_default();
                self.at(*line, &format!("{path}{place}: {what}"))
            }
        }
    }

    /// The events as lines of JSON, with what they leave out.
    fn lines(&self, events: &[WrittenEvent]) -> Result<String> {
        let name = self.meter.events.first().map_or(EVENT_NAME, String::as_str);
        let timestamp = self.event_time()?.to_string();
        let mut lines = String::new();
        for (place, event) in events.iter().enumerate() {
            let key = format!("event-{}", place + 1);
            let defaults = [
                ("customer_id", CUSTOMER),
                ("event_name", name),
                ("idempotency_key", &key),
                ("timestamp", &timestamp),
            ];
            let mut members = event.members.clone();
            for (field, text) in defaults {
                let text = || serde_json::Value::from(text).to_string();
                members.entry(field).or_insert_with(text);
            }
            let members: Vec<String> =
                members.iter().map(|(field, value)| format!("\"{field}\":{value}")).collect();
            lines.push_str(&format!("{{{}}}\n", members.join(",")));
        }
        Ok(lines)
    }

    /// When an event happens that does not say so: at the beginning of what is asked.
    fn event_time(&self) -> Result<Timestamp> {
        let request = &self.case.request;
        let TimeRange { from, to } = request.bounds(self.meter, self.context.clock.now())?;
        let last = |to: Timestamp| Timestamp::from_micros(to.micros() - 1);
        match from.or(to.map(last)) {
            Some(instant) => Ok(instant),
            None => {
                let zone = request.timezone.as_deref().or(self.meter.timezone.as_deref());
                parse_bound(EVENT_TIME, &parse_zone(zone.unwrap_or("UTC"))?)
            }
        }
    }
}

/// The rows of a batch as texts.
fn texts(batch: &RecordBatch) -> Result<Vec<Row>> {
    let defect = |error| Error::internal("texts of an answer").with_source(error);
    let mut rows: Vec<Row> = vec![Vec::new(); batch.num_rows()];
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let texts = arrow::compute::cast(column, &DataType::Utf8).map_err(defect)?;
        let texts = texts.as_string::<i32>();
        for (row, values) in rows.iter_mut().enumerate() {
            let text = texts.is_valid(row).then(|| texts.value(row).to_owned());
            values.push((field.name().clone(), text));
        }
    }
    Ok(rows)
}

/// The file of a meter that `tests` are beside of, as far as its name tells: without `.test`.
pub fn stem_of_tests(tests: &Path) -> Option<PathBuf> {
    let stem = tests.file_stem()?.to_str()?.strip_suffix(".test")?;
    Some(tests.with_file_name(stem))
}

#[cfg(test)]
mod tests;
