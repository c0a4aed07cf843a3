//! What became of one event: its rows, the corrections that made or ended them, what is in
//! quarantine under its key, and what each meter makes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::TableSource;
use serde_json::Value as Json;

use super::{collect, number, text};
use crate::correct::{self, Listed};
use crate::engine::Reach;
use crate::error::{Error, Result};
use crate::event::shortened;
use crate::ingest::accounts::{self, Account};
use crate::ingest::quarantine;
use crate::lake::snapshot::Snapshot;
use crate::meter::{Meter, counts_event, describe_filter};
use crate::plan::contributions::{self, verdict_plan};
use crate::plan::funnel::{self, conditions, conditions_plan};
use crate::plan::{TableFacts, stored_plan};
use crate::schema::{
    ENDED_BY, EVENT_DATE, EVENT_NAME, IDEMPOTENCY_KEY, INGESTED_AT, KIND, KIND_EVENT, MADE_BY,
    ORDINAL, PROPERTIES, SOURCE, batch_of_upsert, property_of_column, quarantine as refused,
};
use crate::table::EventsTable;
use crate::time::{TimeRange, Timestamp};
use crate::usage::{Context, with_tables};

/// What a meter makes of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It counts it.
    Counted {
        /// The value that is aggregated.
        value: Option<String>,
        /// What it counts as.
        counted_as: Option<String>,
        /// How much it weighs.
        weight: Option<String>,
    },
    /// It is about events of other names.
    OtherName,
    /// The first condition that the event does not meet.
    Dropped(String),
    /// Why there is no value.
    Skipped(String),
    /// Why it cannot be told.
    Unknown(String),
}

/// A meter and what it makes of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The meter's name.
    pub meter: String,
    /// What it makes of the event.
    pub fate: Fate,
}

/// One row of an identity.
#[derive(Debug, Clone)]
pub struct EventRow {
    /// Its source; empty is none.
    pub source: String,
    /// `event` where it counts, else what became of it.
    pub kind: String,
    /// The correction that made it, by id, and as it is kept.
    pub made_by: Option<(String, Option<Listed>)>,
    /// The correction or upsert because of which it does not count.
    pub ended_by: Option<(String, Option<Listed>)>,
    /// The batch of the newer event that took its place, where an upsert ended it and the account is
    /// known.
    pub upserted_by: Option<Account>,
    /// When it was first received.
    pub received: Option<Timestamp>,
    /// Its place in the batch.
    pub ordinal: i64,
    /// The batch that brought it, where its account is known.
    pub batch: Option<Account>,
    /// Fields of the event that have a value, by name.
    pub fields: Vec<(String, String)>,
    /// Properties, by name.
    pub properties: BTreeMap<String, String>,
    /// What the meters make of it, where it counts at all.
    pub verdicts: Vec<Verdict>,
}

/// An event in quarantine under the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InQuarantine {
    /// `rejected` or `conflict`.
    pub outcome: String,
    /// The reason in words.
    pub message: String,
    /// Input and line, where they are known.
    pub place: Option<String>,
    /// Its text.
    pub event: String,
}

/// What became of the events of a key.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The version of the events that was asked.
    pub version: u64,
    /// The rows: what was received first, then what corrections made.
    pub rows: Vec<EventRow>,
    /// What is in quarantine by now.
    pub quarantined: Vec<InQuarantine>,
}

/// Shows what became of the events with this key, of `source` alone if one is given (empty is none).
///
/// # Errors
/// A key that is nowhere, with what was looked at.
pub async fn show(
    context: &Context,
    key: &str,
    source: Option<&str>,
    at: Option<u64>,
) -> Result<Shown> {
    let snapshot = context.lake.events.snapshot(at).await?;
    let stored = stored(context, &snapshot, key).await?;
    let wanted = |found: &str| source.is_none_or(|source| source == found);
    let quarantined = in_quarantine(context, key, source).await?;
    let kept: BTreeMap<String, Listed> = correct::list(&context.lake.events)
        .await?
        .into_iter()
        .map(|listed| (listed.record.id.clone(), listed))
        .collect();
    let accounts: BTreeMap<Timestamp, Account> = accounts::list(&context.lake)
        .await?
        .into_iter()
        .map(|account| (account.received, account))
        .collect();
    let meters = ready_meters(context, &snapshot).await;
    let (mut rows, mut elsewhere) = (Vec::new(), Vec::new());
    for batch in &stored.batches {
        for place in 0..batch.num_rows() {
            let row = batch.slice(place, 1);
            let mut event = event_row(&row, &kept, &accounts)?;
            if !wanted(&event.source) {
                elsewhere.push(event.source);
                continue;
            }
            if event.kind == KIND_EVENT {
                event.verdicts = verdicts(context, &meters, &row, &stored.facts).await?;
            }
            rows.push(event);
        }
    }
    if rows.is_empty() && quarantined.is_empty() {
        return Err(nowhere(context, &snapshot, (key, source), &elsewhere));
    }
    rows.sort_by_key(|row| {
        let corrected = row.made_by.is_some();
        (row.source.clone(), corrected, row.received, row.ordinal, row.ended_by.is_none())
    });
    Ok(Shown { version: snapshot.version, rows, quarantined })
}

fn nowhere(
    context: &Context,
    snapshot: &Snapshot,
    (key, source): (&str, Option<&str>),
    elsewhere: &[String],
) -> Error {
    let of = match source {
        None => String::new(),
        Some("") => " without a source".to_owned(),
        Some(source) => format!(" of source `{}`", shortened(source)),
    };
    let hint = match elsewhere.first().map(String::as_str) {
        None => "duplicates are only counted, not kept".to_owned(),
        Some("") => "without a source it is there".to_owned(),
        Some(source) => format!("of source `{}` it is there", shortened(source)),
    };
    Error::not_found(format!(
        "{}: no event has the key `{}`{of}: neither one of the {} rows of version {} nor one in \
         quarantine; {hint}",
        context.lake.events.display(),
        shortened(key),
        snapshot.rows(),
        snapshot.version
    ))
}

/// The rows of a key with all of their columns.
struct Stored {
    batches: Vec<RecordBatch>,
    facts: TableFacts,
}

async fn stored(context: &Context, snapshot: &Arc<Snapshot>, key: &str) -> Result<Stored> {
    let table = Arc::new(EventsTable::new(&context.lake.events, Arc::clone(snapshot))?);
    let facts = table.facts(TimeRange::default());
    let plan = stored_plan(&provider_as_source(table as Arc<_>), key, &facts)?;
    Ok(Stored { batches: collect(&context.engine, &plan, Reach::Needle).await?, facts })
}

/// The meters with their tables, or why they have none.
async fn ready_meters(context: &Context, snapshot: &Arc<Snapshot>) -> Vec<(String, Result<Meter>)> {
    let mut meters = Vec::new();
    for meter in context.meters.iter() {
        let ready = with_tables(&context.lake, snapshot, meter).await;
        meters.push((meter.name.clone(), ready));
    }
    meters
}

fn event_row(
    row: &RecordBatch,
    kept: &BTreeMap<String, Listed>,
    accounts: &BTreeMap<Timestamp, Account>,
) -> Result<EventRow> {
    let optional = |name: &str| match row.column_by_name(name) {
        Some(_) => text(row, name),
        None => Ok(None),
    };
    let correction = |id: String| {
        let listed = kept.get(&id).cloned();
        (id, listed)
    };
    let (mut fields, mut properties) = (Vec::new(), BTreeMap::new());
    for field in row.schema().fields() {
        let name = field.name().as_str();
        match property_of_column(name) {
            // What a correction adds looks like no property.
            Some((_, property)) => {
                properties
                    .extend(property_text(row, name)?.map(|text| (property.to_owned(), text)));
            }
            None if name == PROPERTIES => properties.extend(others(row)?),
            None if [KIND, MADE_BY, ENDED_BY, INGESTED_AT, ORDINAL, EVENT_DATE].contains(&name) => {
            }
            None => fields.extend(field_text(row, name)?.map(|text| (name.to_owned(), text))),
        }
    }
    let received = instant(row, INGESTED_AT)?;
    let ended_by = optional(ENDED_BY)?;
    let upsert = ended_by.as_deref().and_then(batch_of_upsert);
    let upserted_by = upsert.and_then(|batch| accounts.values().find(|a| a.batch == batch));
    Ok(EventRow {
        upserted_by: upserted_by.cloned(),
        source: optional(SOURCE)?.unwrap_or_default(),
        kind: optional(KIND)?.unwrap_or_default(),
        made_by: optional(MADE_BY)?.map(correction),
        ended_by: ended_by.map(correction),
        batch: received.and_then(|received| accounts.get(&received)).cloned(),
        received,
        ordinal: i64::try_from(number(row, ORDINAL)?).unwrap_or(i64::MAX),
        fields,
        properties,
        verdicts: Vec::new(),
    })
}

fn instant(row: &RecordBatch, name: &str) -> Result<Option<Timestamp>> {
    let column = super::column(row, name, &crate::schema::timestamp_type())?;
    let instants = column.as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    Ok(instants.is_valid(0).then(|| Timestamp::from_micros(instants.value(0))))
}

fn field_text(row: &RecordBatch, name: &str) -> Result<Option<String>> {
    match row.column_by_name(name).map(|column| column.data_type()) {
        Some(DataType::Timestamp(..)) => Ok(instant(row, name)?.map(|at| at.to_string())),
        _ => text(row, name),
    }
}

fn property_text(row: &RecordBatch, name: &str) -> Result<Option<String>> {
    let Some(column) = row.column_by_name(name) else { return Ok(None) };
    let column = match column.data_type() {
        DataType::Decimal128(..) => crate::functions::number::canonical_texts(column)
            .map_err(crate::engine::engine_error)?,
        _ => cast(column, &DataType::Utf8)
            .map_err(|error| Error::internal("a property's text").with_source(error))?,
    };
    let texts = column.as_string::<i32>();
    Ok(texts.is_valid(0).then(|| texts.value(0).to_owned()))
}

/// The properties of the map.
fn others(row: &RecordBatch) -> Result<Vec<(String, String)>> {
    let Some(map) = row.column_by_name(PROPERTIES).and_then(|column| column.as_map_opt()) else {
        return Ok(Vec::new());
    };
    if map.is_null(0) {
        return Ok(Vec::new());
    }
    let entries = map.value(0);
    let texts = |place: usize| {
        cast(entries.column(place), &DataType::Utf8)
            .map_err(|error| Error::internal("properties of a row").with_source(error))
    };
    let (names, values) = (texts(0)?, texts(1)?);
    let pairs = names.as_string::<i32>().iter().zip(values.as_string::<i32>().iter());
    Ok(pairs.filter_map(|(name, text)| Some((name?.to_owned(), text?.to_owned()))).collect())
}

/// What each meter makes of a row that counts.
async fn verdicts(
    context: &Context,
    meters: &[(String, Result<Meter>)],
    row: &RecordBatch,
    facts: &TableFacts,
) -> Result<Vec<Verdict>> {
    let table = MemTable::try_new(row.schema(), vec![vec![row.clone()]])
        .map_err(|error| Error::internal("a row as a table").with_source(error))?;
    let source = provider_as_source(Arc::new(table));
    let name = text(row, EVENT_NAME)?.unwrap_or_default();
    let mut verdicts = Vec::new();
    for (meter_name, meter) in meters {
        let fate = match meter {
            Err(error) => Fate::Unknown(error.to_string()),
            Ok(meter) if !counts_event(meter, &name) => Fate::OtherName,
            Ok(meter) => match fate(context, meter, &source, facts).await {
                Ok(fate) => fate,
                Err(error) => Fate::Unknown(error.to_string()),
            },
        };
        verdicts.push(Verdict { meter: meter_name.clone(), fate });
    }
    Ok(verdicts)
}

async fn fate(
    context: &Context,
    meter: &Meter,
    source: &Arc<dyn TableSource>,
    facts: &TableFacts,
) -> Result<Fate> {
    let plan = conditions_plan(source, meter, facts)?;
    let met = first(collect(&context.engine, &plan, Reach::Broad).await?)?;
    for (place, condition) in conditions(meter).into_iter().enumerate() {
        let column = super::column(&met, &funnel::output::meets(place), &DataType::Boolean)?;
        if !column.as_boolean().value(0) {
            return Ok(Fate::Dropped(describe_filter(condition)));
        }
    }
    let plan = verdict_plan(source, meter, facts)?;
    let told = first(collect(&context.engine, &plan, Reach::Broad).await?)?;
    let reason = number(&told, contributions::output::REASON)?;
    if let Some(place) = usize::try_from(reason).ok().and_then(|reason| reason.checked_sub(1)) {
        let why = funnel::reasons(meter).into_iter().nth(place);
        return Ok(Fate::Skipped(why.unwrap_or_default()));
    }
    let weight = match meter.weight {
        Some(_) => text(&told, contributions::output::WEIGHT)?,
        None => None,
    };
    Ok(Fate::Counted {
        value: text(&told, contributions::output::VALUE)?,
        counted_as: text(&told, contributions::output::COUNTED_AS)?,
        weight,
    })
}

fn first(rows: Vec<RecordBatch>) -> Result<RecordBatch> {
    let row = rows.into_iter().find(|rows| rows.num_rows() > 0);
    row.ok_or_else(|| Error::internal("a row was lost on its way to a meter"))
}

/// What is in quarantine with this key.
async fn in_quarantine(
    context: &Context,
    key: &str,
    source: Option<&str>,
) -> Result<Vec<InQuarantine>> {
    let mut found = Vec::new();
    quarantine::for_each(&context.lake, None, &mut |rows| {
        for place in 0..rows.num_rows() {
            let row = rows.slice(place, 1);
            let event = text(&row, refused::EVENT)?.unwrap_or_default();
            if !is_of(&event, key, source) {
                continue;
            }
            let input = text(&row, refused::INPUT)?;
            let line = text(&row, refused::LINE)?;
            let place = input.map(|input| match line {
                Some(line) => format!("{input}:{line}"),
                None => input,
            });
            found.push(InQuarantine {
                outcome: text(&row, refused::OUTCOME)?.unwrap_or_default(),
                message: text(&row, refused::MESSAGE)?.unwrap_or_default(),
                place,
                event,
            });
        }
        Ok(true)
    })
    .await?;
    Ok(found)
}

/// Whether the text of an event in quarantine has this key. A rejected one is as it was sent: in our
/// own shape it is known by its key; one that cannot be read as an object belongs to no key.
fn is_of(event: &str, key: &str, source: Option<&str>) -> bool {
    let Ok(Json::Object(event)) = serde_json::from_str::<Json>(event) else { return false };
    let text = |name: &str| match event.get(name) {
        Some(Json::String(text)) => Some(text.clone()),
        Some(Json::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    text(IDEMPOTENCY_KEY).is_some_and(|found| found == key)
        && source.is_none_or(|source| text(SOURCE).unwrap_or_default() == source)
}
