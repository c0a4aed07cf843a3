//! Usage: what meters say for a period, exactly, with everything needed to reproduce it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::datasource::provider_as_source;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};

mod answer;
mod conditions;
mod fill;
mod parts;
mod request;
mod single;
mod tables;
mod versions;

mod window_texts;
mod windows;

pub use answer::columns;
pub use conditions::{parse_conditions, parse_stored_conditions};
pub use fill::Fill;
pub use request::{Grouping, OwnBounds, UsageRequest};
pub use single::{Group, Single, SingleAnswer};
pub use tables::with_tables;
pub use versions::{published_for, reference};

use answer::{Finisher, Part, Shape, Totals};
use fill::{Filled, Held};
use request::{Resolved, names_one_customer, share_scan};
use versions::Versioned;

use crate::clock::Clock;
use crate::decimal::Decimal;
use crate::engine::{Engine, Reach, engine_error};
use crate::error::{Error, ErrorKind, Result};
use crate::functions::arithmetic::BEYOND;
use crate::lake::tables::Lake;
use crate::meter::{self, Filter, Meter, Operand};
use crate::plan::{TableFacts, UsageQuery, Windows, overflow_plan, usage_plan};
use crate::rollup::{self, Answerable, Grain};
use crate::table::EventsTable;
use crate::time::{Timestamp, format_in_zone};

/// What questions are answered from.
#[derive(Debug, Clone)]
pub struct Context {
    /// The lake.
    pub lake: Lake,
    /// What runs the plans.
    pub engine: Engine,
    /// The meters that may be asked.
    pub meters: Arc<Vec<Meter>>,
    /// What "today" is relative to.
    pub clock: Clock,
}

/// How an answer for one meter came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Name of the meter.
    pub meter: String,
    /// Hash of its definition.
    pub meter_version: String,
    /// First instant, RFC 3339 in the zone; `None` is the beginning.
    pub from: Option<String>,
    /// End, exclusive; `None` is the end.
    pub to: Option<String>,
    /// IANA zone.
    pub zone: String,
    /// Version of the events table.
    pub table_version: u64,
    /// Name of the unit of `converted` and `billable`.
    pub unit: Option<String>,
    /// Rows of the answer.
    pub rows: u64,
    /// Events that made the values.
    pub events: i64,
    /// Events that matched but had no usable value.
    pub skipped: i64,
    /// Sum of the rounded rows less the rounded total, if they differ.
    pub rounding_difference: Option<Decimal>,
    /// Properties that are asked for and that no event in the range has, each with the nearest name
    /// that occurs.
    pub unseen: Vec<(String, Option<String>)>,
    /// The lake's lookup tables that the meter reads, each with its version.
    pub lookups: Vec<(String, i64)>,
    /// Starts of the windows that a bound of the range cuts: their rows cover a part only.
    pub partial_windows: Vec<String>,
    /// Rows of billing periods, each customer's own, that a bound of the range cuts.
    pub partial_rows: u64,
    /// Rows of customers that have no billing periods.
    pub rows_without_period: u64,
    /// The states that it was made of, where it was not made of the events alone.
    pub rollup: Option<FromStates>,
    /// What is wrong with a rollup that was to tell it, where the events told it therefore.
    pub damage: Option<String>,
}

/// States that an answer was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromStates {
    /// How long their buckets are.
    pub grain: Grain,
    /// The version of the events that they go up to.
    pub events_version: u64,
    /// Rows of events of later versions that were read beside them.
    pub rows_since: u64,
}

/// Takes the rows of an answer, batch by batch; `false` stops.
pub type Take<'t> = &'t mut (dyn FnMut(RecordBatch) -> Result<bool> + Send);

/// Meters that are answered by one plan.
struct Question<'m> {
    meters: Vec<(usize, &'m Meter, Resolved)>,
    plan: LogicalPlan,
    physical: Arc<dyn ExecutionPlan>,
    /// Whether the physical plan leaves the sort out, as its rows come in that order.
    in_order: bool,
    facts: TableFacts,
    rollup: Option<FromStates>,
    /// What was wrong with the states that would have answered it.
    damage: Option<String>,
}

/// A request made ready to run.
struct Prepared<'m> {
    table: Arc<EventsTable>,
    shape: Shape,
    questions: Vec<Question<'m>>,
    requested: usize,
}

/// The columns that the answer to `request` will have.
///
/// # Errors
/// As [`usage`].
pub async fn answer_schema(context: &Context, request: &UsageRequest) -> Result<SchemaRef> {
    let versioned = versions::find(context, request, None).await?;
    Ok(one_shape(&versioned).await?.schema())
}

/// The shape that the answers to all parts of a request have: what one of them has to say of its windows,
/// all of them do.
async fn one_shape(versioned: &Versioned) -> Result<Shape> {
    let mut shape: Option<Shape> = None;
    for part in &versioned.requests {
        let of_part = prepare(&versioned.context, part).await?.shape;
        let known = shape.get_or_insert_with(|| of_part.clone());
        if known.groups != of_part.groups {
            return Err(Error::invalid(format!(
                "the versions of `{}` in effect have different dimensions: ask for each part of the \
                 range apart (--from, --to), or say --by",
                part.meters.join(", ")
            )));
        }
        known.partial |= of_part.partial;
        known.windows_nullable |= of_part.windows_nullable;
    }
    shape.ok_or_else(|| Error::internal("a request without parts"))
}

/// Answers `request`, giving its rows to `take`: meter by meter in the order asked, at least one
/// (perhaps empty) batch.
///
/// # Errors
/// A meter, period, zone, window or condition that does not exist or cannot be read; an overflow.
pub async fn usage(context: &Context, request: &UsageRequest, take: Take<'_>) -> Result<Vec<Note>> {
    usage_pinned(context, request, None, take).await
}

/// As [`usage`], of the version `pinned` of the events, which was the newest just now: `NAME@published`
/// is the definition in effect, unlike with [`UsageRequest::at`].
///
/// # Errors
/// As [`usage`].
pub async fn usage_pinned(
    context: &Context,
    request: &UsageRequest,
    pinned: Option<u64>,
    take: Take<'_>,
) -> Result<Vec<Note>> {
    let versioned = versions::find(context, request, pinned).await?;
    let shape = match versioned.requests.len() {
        1 => None,
        _ => Some(one_shape(&versioned).await?),
    };
    let mut notes = Vec::new();
    for part in &versioned.requests {
        let of_part = answer(&versioned.context, part, shape.as_ref(), take).await?;
        if of_part.is_empty() {
            return Ok(Vec::new());
        }
        notes.extend(of_part);
    }
    Ok(notes)
}

/// Answers a request whose meters are all at hand, in this shape if it is a part of one; no notes if
/// `take` stopped it. Where a rollup is found damaged before it gave a row, the events tell the same.
async fn answer(
    context: &Context,
    request: &UsageRequest,
    shape: Option<&Shape>,
    take: Take<'_>,
) -> Result<Vec<Note>> {
    let mut has_rows = false;
    let mut watched = |rows: RecordBatch| {
        has_rows |= rows.num_rows() > 0;
        take(rows)
    };
    let mut of_states = Vec::new();
    let damage = match answer_once(context, request, shape, (&mut watched, &mut of_states)).await {
        Err(error) if !has_rows && !of_states.is_empty() && is_damage(&error) => error,
        answered => return answered,
    };
    let request = UsageRequest { from_events: true, ..request.clone() };
    let mut notes = answer_once(context, &request, shape, (take, &mut Vec::new())).await?;
    for note in notes.iter_mut().filter(|note| of_states.contains(&note.meter)) {
        note.damage = Some(damage.to_string());
    }
    Ok(notes)
}

/// Whether files of states are damaged or gone, which the events tell all the same.
fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound)
}

/// The same once; names the meters that are answered from states to `of_states`.
async fn answer_once(
    context: &Context,
    request: &UsageRequest,
    shape: Option<&Shape>,
    (take, of_states): (Take<'_>, &mut Vec<String>),
) -> Result<Vec<Note>> {
    let filled = tables::filled(context, request).await?;
    let (context, request) = match &filled {
        Some(filled) => (&filled.context, &filled.request),
        None => (context, request),
    };
    let mut prepared = prepare(context, request).await?;
    let from_states = prepared.questions.iter().filter(|question| question.rollup.is_some());
    let names = from_states.flat_map(|question| &question.meters);
    of_states.extend(names.map(|(_, meter, _)| meter.name.clone()));
    prepared.shape = shape.cloned().unwrap_or(prepared.shape);
    if !take(RecordBatch::new_empty(prepared.shape.schema()))? {
        return Ok(Vec::new());
    }
    let mut answers: Vec<Option<(Vec<RecordBatch>, Note)>> = vec![None; prepared.requested];
    let version = prepared.table.snapshot().version;
    for question in &prepared.questions {
        let streams = prepared.requested == 1;
        let mut totals = vec![Totals::default(); question.meters.len()];
        let mut held: Vec<Vec<RecordBatch>> = vec![Vec::new(); question.meters.len()];
        let table = &prepared.table;
        let mut rows = answer_rows(context, table, question, &prepared.shape).await?;
        while let Some(parts) = rows.next().await {
            let parts = match parts {
                Ok(parts) => parts,
                Err(error) => return Err(blamed(context, table, question, error).await),
            };
            for (place, (rows, of_rows)) in parts {
                totals[place].add(of_rows);
                if !streams {
                    held[place].push(rows);
                } else if !take(rows)? {
                    return Ok(Vec::new());
                }
            }
        }
        let finished = question.meters.iter().zip(totals.into_iter().zip(held));
        for ((place, meter, resolved), (totals, held)) in finished {
            answers[*place] = Some((held, note((meter, resolved), question, &totals, version)?));
        }
    }
    let mut notes = Vec::with_capacity(answers.len());
    for (batches, note) in answers.into_iter().flatten() {
        notes.push(note);
        for batch in batches {
            if !take(batch)? {
                return Ok(Vec::new());
            }
        }
    }
    Ok(notes)
}

/// The error, with the meter and the event that it is about where an expression gave a number that
/// does not fit.
async fn blamed(
    context: &Context,
    table: &Arc<EventsTable>,
    question: &Question<'_>,
    error: Error,
) -> Error {
    let meters = question.meters.iter().map(|(_, meter, resolved)| (*meter, &resolved.query));
    blamed_of(context, table, &meters.collect::<Vec<_>>(), &question.facts, error).await
}

async fn blamed_of(
    context: &Context,
    table: &Arc<EventsTable>,
    meters: &[(&Meter, &UsageQuery)],
    facts: &TableFacts,
    error: Error,
) -> Error {
    if !error.to_string().contains(BEYOND) {
        return error;
    }
    let source = provider_as_source(Arc::clone(table) as Arc<_>);
    let mut names: Vec<&str> = Vec::new();
    for (meter, query) in meters {
        let plan = overflow_plan(&source, meter, query, facts);
        let Ok(Some(plan)) = plan else { continue };
        names.push(&meter.name);
        if let Ok(Some(key)) = first_text(context, &plan).await {
            return Error::invalid(format!(
                "meter `{}`, event `{key}`: {BEYOND}; leave such events out by the meter's filter, or mend \
                 them with `meterhouse events amend`",
                meter.name
            ));
        }
    }
    if names.is_empty() {
        names.extend(meters.iter().map(|(meter, _)| meter.name.as_str()));
    }
    Error::invalid(format!("meter `{}`: {BEYOND}", names.join("`, `")))
}

/// The text in the first row and column of a plan's answer.
async fn first_text(context: &Context, plan: &LogicalPlan) -> Result<Option<String>> {
    let physical = context.engine.physical(plan, Reach::Broad).await?;
    let mut rows = context.engine.execute(physical)?;
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(engine_error)?;
        if batch.num_rows() > 0 {
            let texts = arrow::compute::cast(batch.column(0), &DataType::Utf8)
                .map_err(|error| Error::internal("a key as text").with_source(error))?;
            return Ok(Some(texts.as_string::<i32>().value(0).to_owned()));
        }
    }
    Ok(None)
}

/// Batches whose texts are made at the same time.
const FINISHED_AHEAD: usize = 4;

/// Parts of an answer, each with the place of its meter in the question.
type Parts = Vec<(usize, Part)>;

/// The rows of a question's meters, batch by batch in order.
async fn answer_rows(
    context: &Context,
    table: &Arc<EventsTable>,
    question: &Question<'_>,
    shape: &Shape,
) -> Result<BoxStream<'static, Result<Parts>>> {
    let shared = question.meters.len() > 1;
    let finisher = |(place, (_, meter, resolved)): (usize, &(usize, &Meter, Resolved))| Finisher {
        meter: (*meter).clone(),
        place,
        resolved: resolved.clone(),
        shape: shape.clone(),
        shared,
    };
    let finishers: Vec<Finisher> = question.meters.iter().enumerate().map(finisher).collect();
    let widens = question.meters.iter().map(|(_, _, of)| of.query.windows_carried_into()).max();
    let physical = Arc::clone(&question.physical);
    let rows = match question.in_order {
        true => context.engine.execute_in_order(&physical)?,
        false => context.engine.execute_widening(physical, widens.unwrap_or(1))?,
    };
    match question.meters.first().and_then(|(_, _, resolved)| resolved.fill) {
        None => Ok(finished(rows, Arc::new(finishers))),
        Some(fill) => {
            let schema = rows.schema();
            let held = match held(context, rows).await {
                Ok(held) => Arc::new(held),
                Err(error) => return Err(blamed(context, table, question, error).await),
            };
            let filled = move |finisher| Filled::new(finisher, fill, &schema, &held);
            let filled = finishers.into_iter().map(filled).collect::<Result<Vec<_>>>()?;
            Ok(filled_rows(filled))
        }
    }
}

/// Rows as they come; texts are made while the plan runs on.
fn finished(
    rows: SendableRecordBatchStream,
    finishers: Arc<Vec<Finisher>>,
) -> BoxStream<'static, Result<Parts>> {
    let parts = rows.map(move |batch| {
        let finishers = Arc::clone(&finishers);
        let finish = move || -> Result<Parts> {
            let batch = batch.map_err(engine_error)?;
            let Some(first) = finishers.first() else { return Ok(Vec::new()) };
            // Meters that share a plan share its windows and groups.
            let keys = first.keys(&batch)?;
            let parts = finishers.iter().enumerate();
            parts.map(|(place, finisher)| Ok((place, finisher.rows(&batch, &keys)?))).collect()
        };
        tokio::task::spawn_blocking(finish).map(|finished| finished.unwrap_or_else(broken_off))
    });
    parts.buffered(FINISHED_AHEAD).boxed()
}

fn broken_off<T>(error: tokio::task::JoinError) -> Result<T> {
    Err(Error::internal("making texts of an answer").with_source(error))
}

/// All rows of a plan, within the memory that questions may use.
async fn held(context: &Context, mut rows: SendableRecordBatchStream) -> Result<Held> {
    let memory = context.engine.memory("rows to fill");
    let mut batches = Vec::new();
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(engine_error)?;
        memory.try_grow(batch.get_array_memory_size()).map_err(engine_error)?;
        batches.push(batch);
    }
    Ok(Held { batches, _memory: memory })
}

/// The filled rows, one meter after the other.
fn filled_rows(filled: Vec<Filled>) -> BoxStream<'static, Result<Parts>> {
    let meters = filled.into_iter().enumerate();
    let open: Option<(usize, Filled)> = None;
    futures::stream::try_unfold((meters, open), |(mut meters, open)| async move {
        let next = move || -> Result<_> {
            let mut open = open.or_else(|| meters.next());
            while let Some((place, mut filled)) = open {
                if let Some(part) = filled.next_part()? {
                    return Ok(Some((vec![(place, part)], (meters, Some((place, filled))))));
                }
                open = meters.next();
            }
            Ok(None)
        };
        tokio::task::spawn_blocking(next).await.unwrap_or_else(broken_off)
    })
    .boxed()
}

/// How `request` would be answered: plans, and what was pruned.
///
/// # Errors
/// As [`usage`].
pub async fn explain(context: &Context, request: &UsageRequest) -> Result<String> {
    let versioned = versions::find(context, request, None).await?;
    let mut text = String::new();
    for part in &versioned.requests {
        text.push_str(&explain_part(&versioned.context, part).await?);
    }
    Ok(text)
}

async fn explain_part(context: &Context, request: &UsageRequest) -> Result<String> {
    let filled = tables::filled(context, request).await?;
    let (context, request) = match &filled {
        Some(filled) => (&filled.context, &filled.request),
        None => (context, request),
    };
    let prepared = prepare(context, request).await?;
    let mut text = String::new();
    for question in &prepared.questions {
        let names: Vec<&str> = question.meters.iter().map(|(_, m, _)| m.name.as_str()).collect();
        let physical = displayable(question.physical.as_ref()).indent(false);
        text.push_str(&format!(
            "meters: {}\n\nlogical plan\n{}\n\nphysical plan\n{physical}\n",
            names.join(", "),
            question.plan.display_indent(),
        ));
        if let Some(FromStates { grain, events_version, rows_since }) = &question.rollup {
            text.push_str(&format!(
                "\nfrom states by {}, up to version {events_version} of the events, and {rows_since} rows \
                 since\n",
                grain.name()
            ));
        }
    }
    let counts = prepared.table.counts();
    let files = prepared.table.snapshot().files.len();
    text.push_str(&format!(
        "table version {}: {} scans read {} of {} files, {} left out by partition and statistics\n",
        prepared.table.snapshot().version,
        counts.scans(),
        counts.files_read(),
        files * counts.scans(),
        files * counts.scans() - counts.files_read(),
    ));
    Ok(text)
}

fn note(
    (meter, resolved): (&Meter, &Resolved),
    question: &Question<'_>,
    totals: &Totals,
    version: u64,
) -> Result<Note> {
    let bound = |bound: Option<Timestamp>| bound.map(|bound| format_in_zone(bound, &resolved.zone));
    Ok(Note {
        meter: meter.name.clone(),
        meter_version: meter::version(meter),
        from: bound(resolved.query.range.from),
        to: bound(resolved.query.range.to),
        zone: resolved.zone_name.clone(),
        table_version: version,
        unit: meter.unit.as_ref().map(|unit| unit.name.clone()),
        rows: totals.rows,
        events: totals.events,
        skipped: totals.skipped,
        // Values that are carried on are no part of the total.
        rounding_difference: match resolved.fill {
            Some(Fill::Previous) => None,
            Some(Fill::Zero | Fill::Null) | None => totals.rounding_difference(meter)?,
        },
        unseen: unseen(meter, resolved, &question.facts),
        lookups: meter.table_versions(),
        partial_windows: partial_windows(resolved),
        partial_rows: match &resolved.query.windows {
            Some(Windows::PerCustomer(_)) => totals.partial,
            Some(Windows::Shared(_)) | None => 0,
        },
        rows_without_period: totals.without_window,
        rollup: question.rollup.clone(),
        damage: question.damage.clone(),
    })
}

/// The properties that meter and query name and that nothing in the range has. Names that are only
/// in the map of other properties cannot be told from statistics; then nothing is said.
fn unseen(meter: &Meter, resolved: &Resolved, facts: &TableFacts) -> Vec<(String, Option<String>)> {
    let operands = resolved.query.groups.iter().chain(meter.measured());
    let mut names = BTreeSet::new();
    operands.for_each(|operand| operand_properties(operand, &mut names));
    filter_properties(&resolved.query.filter, &mut names);
    filter_properties(&meter.filter, &mut names);
    let has = |name: &str| facts.properties.get(name).is_some_and(|kinds| !kinds.is_empty());
    if facts.others || facts.days.is_none() {
        return Vec::new();
    }
    let known = || facts.properties.keys().filter(|name| has(name));
    let nearest = |name: &str| {
        known()
            .map(|known| (strsim::damerau_levenshtein(known, name), known))
            .min()
            .filter(|(distance, _)| *distance <= 2)
            .map(|(_, known)| known.clone())
    };
    let unseen = names.into_iter().filter(|name| !has(name));
    unseen.map(|name| (name.clone(), nearest(&name))).collect()
}

fn operand_properties(operand: &Operand, names: &mut BTreeSet<String>) {
    match operand {
        Operand::Property(name) => {
            names.insert(name.clone());
        }
        Operand::Expression(expression) => {
            expression.operands().into_iter().for_each(|of| operand_properties(of, names));
        }
        Operand::Field(_) | Operand::Lookup(_) => {}
    }
}

fn filter_properties(filter: &Filter, names: &mut BTreeSet<String>) {
    match filter {
        Filter::All(parts) | Filter::Any(parts) => {
            parts.iter().for_each(|part| filter_properties(part, names));
        }
        Filter::Not(part) => filter_properties(part, names),
        Filter::Test(test) => operand_properties(&test.operand, names),
    }
}

/// The first and last window, where the range begins or ends inside of it.
fn partial_windows(resolved: &Resolved) -> Vec<String> {
    let Some(windows) = &resolved.windows else { return Vec::new() };
    let zone = windows.zones.first().unwrap_or(&resolved.zone);
    let text = |start: &i64| format_in_zone(Timestamp::from_micros(*start), zone);
    windows.partial.iter().map(text).collect()
}

async fn prepare<'m>(context: &'m Context, request: &UsageRequest) -> Result<Prepared<'m>> {
    let meters = find_meters(&context.meters, &request.meters)?;
    let snapshot = context.lake.events.snapshot(request.at).await?;
    let table = Arc::new(EventsTable::new(&context.lake.events, snapshot)?);
    let days = table.days();
    let now = context.clock.now();
    let mut groups: Vec<Vec<(usize, &Meter, Resolved)>> = Vec::new();
    let mut from_states = BTreeMap::new();
    for (place, meter) in meters.iter().copied().enumerate() {
        let mut resolved = request.resolve(meter, days, now)?;
        resolved.label.clone_from(&request.meters[place]);
        let found = match request.from_events {
            true => None,
            false => rollup::find(&context.lake, meter, &resolved.query, table.snapshot()).await?,
        };
        let apart = request.top.is_some() || found.is_some();
        from_states.extend(found.map(|found| (place, found)));
        let sharing = groups.iter_mut().find(|group| {
            let (other, first, first_resolved) = &group[0];
            let shares = || share_scan((first, first_resolved), (meter, &resolved));
            !apart && !from_states.contains_key(other) && shares()
        });
        match sharing {
            Some(group) => group.push((place, meter, resolved)),
            None => groups.push(vec![(place, meter, resolved)]),
        }
    }
    let first = groups.first().and_then(|group| group.first());
    let Some((_, _, resolved)) = first else {
        return Err(Error::invalid("no meter is asked for; `meterhouse meters list` shows them"));
    };
    let windows = || groups.iter().flatten().filter_map(|(_, _, of)| of.windows.as_ref());
    let shape = Shape {
        names_meter: meters.len() > 1,
        windowed: request.window.is_some(),
        windows_nullable: windows().any(|of| matches!(of.windows, Windows::PerCustomer(_))),
        partial: windows().any(|of| of.cut),
        groups: resolved.group_names.clone(),
        has_unit: meters.iter().any(|meter| meter.unit.is_some()),
    };
    let differing = groups.iter().flatten().find(|(_, _, r)| r.group_names != shape.groups);
    if let Some((_, meter, resolved)) = differing {
        return Err(Error::invalid(format!(
            "meter `{}` is broken down by {}, the others by {}: ask for them apart, or say --by",
            meter.name,
            resolved.group_names.join(", "),
            shape.groups.join(", ")
        )));
    }
    // Each is planned on a thread of its own.
    let questions = groups.into_iter().map(|group| {
        let states = group.first().and_then(|(place, ..)| from_states.remove(place));
        sound_question(context, &table, group, states)
    });
    let questions = futures::future::try_join_all(questions.collect::<Vec<_>>()).await?;
    Ok(Prepared { table, shape, questions, requested: meters.len() })
}

/// The question from states, if there are any and they are sound, or else from the events.
async fn sound_question<'m>(
    context: &Context,
    table: &Arc<EventsTable>,
    meters: Vec<(usize, &'m Meter, Resolved)>,
    states: Option<Answerable>,
) -> Result<Question<'m>> {
    if states.is_none() {
        return question(context, table, meters, None).await;
    }
    match question(context, table, meters.clone(), states).await {
        // Plans over states look into their files.
        Err(damage) if is_damage(&damage) => {
            let of_events = question(context, table, meters, None).await?;
            Ok(Question { damage: Some(damage.to_string()), ..of_events })
        }
        planned => planned,
    }
}

async fn question<'m>(
    context: &Context,
    table: &Arc<EventsTable>,
    meters: Vec<(usize, &'m Meter, Resolved)>,
    states: Option<Answerable>,
) -> Result<Question<'m>> {
    let source = provider_as_source(Arc::clone(table) as Arc<_>);
    let definitions: Vec<&Meter> = meters.iter().map(|(_, meter, _)| *meter).collect();
    let query = &meters[0].2.query;
    let reads = definitions.first().map_or(query.range, |meter| query.reads(meter));
    let facts = table.facts(reads);
    let (plan, lies_in_order, rollup) = match states {
        Some(Answerable { plan, in_order, grain, events_version, tail_rows }) => {
            (plan, in_order, Some(FromStates { grain, events_version, rows_since: tail_rows }))
        }
        None => (usage_plan(&source, &definitions, query, &facts)?, false, None),
    };
    let in_order = match lies_in_order {
        true => context.engine.physical_in_order(&plan).await?,
        false => None,
    };
    if let Some(physical) = in_order {
        let (in_order, damage) = (true, None);
        return Ok(Question { meters, plan, physical, in_order, facts, rollup, damage });
    }
    // Pages of states are small: to decode the rest of one takes no longer than to leave it out.
    let is_of_states = matches!(rollup, Some(FromStates { rows_since: 0, .. }));
    let needle = !is_of_states && definitions.iter().all(|meter| names_one_customer(query, meter));
    let reach = if needle { Reach::Needle } else { Reach::Broad };
    let physical = context.engine.physical(&plan, reach).await?;
    Ok(Question { meters, plan, physical, in_order: false, facts, rollup, damage: None })
}

fn find_meters<'m>(known: &'m [Meter], names: &[String]) -> Result<Vec<&'m Meter>> {
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let Some(meter) = known.iter().find(|meter| versions::is_asked(meter, name)) else {
            let nearest = known
                .iter()
                .map(|meter| (strsim::damerau_levenshtein(&meter.name, name), &meter.name))
                .min()
                .filter(|(distance, _)| *distance <= 3)
                .map(|(_, near)| format!("; did you mean `{near}`?"));
            return Err(Error::not_found(format!(
                "no meter `{name}`{}",
                nearest.unwrap_or_else(|| "; `meterhouse meters list` shows them".to_owned())
            )));
        };
        if found.iter().any(|other: &&Meter| std::ptr::eq(*other, meter)) {
            return Err(Error::invalid(format!("meter `{name}` is asked for twice")));
        }
        found.push(meter);
    }
    Ok(found)
}
