//! The catalogue: which properties and event names there are, and which meters use them.
//!
//! Everything is counted in the rows of one version, but for the number of distinct values, which is
//! an estimate. What statistics rule out is not read. Nothing here is billed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::LogicalPlan;
use futures::StreamExt;

use crate::engine::{Reach, engine_error};
use crate::error::{Error, Result};
use crate::meter::{Meter, Role, counts_event, property_uses};
use crate::plan::catalogue::{
    CatalogueQuery, event_names_plan, other_properties_plan, output, properties_plan,
};
use crate::schema::ValueKind;
use crate::table::EventsTable;
use crate::time::Timestamp;
use crate::usage::Context;

/// How many events have a value of which type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Types {
    /// Numbers without digits after the point.
    pub integer: u64,
    /// Other numbers.
    pub decimal: u64,
    /// Texts.
    pub text: u64,
    /// Truth values.
    pub boolean: u64,
    /// Arrays.
    pub array: u64,
}

impl Types {
    /// The types with their names, those of which there are values.
    pub fn present(&self) -> Vec<(&'static str, u64)> {
        let all = [
            ("integer", self.integer),
            ("decimal", self.decimal),
            ("text", self.text),
            ("boolean", self.boolean),
            ("array", self.array),
        ];
        all.into_iter().filter(|(_, events)| *events > 0).collect()
    }

    /// The type of all values, where it is one; integers and decimals together are decimals.
    pub fn name(&self) -> Option<&'static str> {
        match self.present().as_slice() {
            [] => None,
            [(name, _)] => Some(name),
            [("integer", _), ("decimal", _)] => Some("decimal"),
            _ => Some("mixed"),
        }
    }

    /// How many events have a value.
    pub fn events(&self) -> u64 {
        self.integer + self.decimal + self.text + self.boolean + self.array
    }

    fn of_kind(&mut self, kind: ValueKind) -> &mut u64 {
        match kind {
            ValueKind::Integer => &mut self.integer,
            ValueKind::Decimal => &mut self.decimal,
            ValueKind::Text => &mut self.text,
            ValueKind::Boolean => &mut self.boolean,
        }
    }

    fn add(&mut self, more: Self) {
        self.integer += more.integer;
        self.decimal += more.decimal;
        self.text += more.text;
        self.boolean += more.boolean;
        self.array += more.array;
    }
}

/// A property of events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Property {
    /// Name of the events, where they are told apart.
    pub event_name: Option<String>,
    /// Its name.
    pub name: String,
    /// Of which type its values are.
    pub types: Types,
    /// Events in all, with it or without.
    pub of_events: u64,
    /// Distinct values, an estimate.
    pub distinct: u64,
    /// The first event that has it.
    pub first: Option<Timestamp>,
    /// The last one.
    pub last: Option<Timestamp>,
    /// The meters that read it, and what for.
    pub meters: Vec<(String, BTreeSet<Role>)>,
}

/// A name of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventName {
    /// The name.
    pub name: String,
    /// How many there are.
    pub events: u64,
    /// The first one.
    pub first: Option<Timestamp>,
    /// The last one.
    pub last: Option<Timestamp>,
    /// The meters that count them, as far as their conditions let them.
    pub meters: Vec<String>,
}

/// An answer of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalogued<T> {
    /// The rows, ordered by name.
    pub rows: Vec<T>,
    /// Events that were looked at.
    pub events: u64,
    /// Version of the events table.
    pub table_version: u64,
}

/// Event name (or none) and property.
type Key = (Option<String>, String);

/// The properties of the events that `query` asks for, at version `at`; those that meters read and
/// no event has stand among them.
///
/// # Errors
/// A version that is not there, files that cannot be read.
pub async fn properties(
    context: &Context,
    query: &CatalogueQuery,
    at: Option<u64>,
) -> Result<Catalogued<Property>> {
    let asked = Asked::new(context, query, at).await?;
    let facts = asked.table.facts(query.range);
    let source = provider_as_source(Arc::clone(&asked.table) as Arc<_>);
    let mut found: BTreeMap<Key, Property> = BTreeMap::new();
    let mut totals: BTreeMap<Option<String>, u64> = BTreeMap::new();
    let names: Vec<&String> = facts.properties.keys().collect();
    for batch in asked.rows(&properties_plan(&source, query, &facts)?).await? {
        for row in 0..batch.num_rows() {
            let event_name = asked.event_name(&batch, row)?;
            totals.insert(event_name.clone(), count(&batch, output::EVENTS, row)?);
            for (place, name) in names.iter().enumerate() {
                let property = of_columns(&batch, row, place)?;
                if property.types.events() > 0 {
                    found.insert((event_name.clone(), (*name).clone()), property);
                }
            }
        }
    }
    if facts.others {
        for batch in asked.rows(&other_properties_plan(&source, query, &facts)?).await? {
            for row in 0..batch.num_rows() {
                let name = text(&batch, output::NAME, row)?;
                let key = (asked.event_name(&batch, row)?, name);
                let of_map = of_map(&batch, row)?;
                let known = found.entry(key).or_default();
                known.types.add(of_map.types);
                // A value in the map is one that no column could hold, so none is counted twice.
                known.distinct += of_map.distinct;
                known.first = earlier(known.first, of_map.first);
                known.last = known.last.max(of_map.last);
            }
        }
    }
    let shown = |name: &Option<String>, meter: &Meter| {
        let name = name.as_deref().or(query.event.as_deref());
        name.is_none_or(|name| counts_event(meter, name))
    };
    for meter in context.meters.iter() {
        for (property, roles) in property_uses(meter) {
            for event_name in totals.keys().filter(|name| shown(name, meter)) {
                let known = found.entry((event_name.clone(), property.clone())).or_default();
                known.meters.push((meter.name.clone(), roles.clone()));
            }
        }
    }
    let rows = found.into_iter().map(|((event_name, name), property)| {
        let of_events = totals.get(&event_name).copied().unwrap_or(0);
        Property { event_name, name, of_events, ..property }
    });
    let events = totals.values().sum();
    Ok(Catalogued { rows: rows.collect(), events, table_version: asked.version() })
}

/// The names of the events that `query` asks for, at version `at`.
///
/// # Errors
/// A version that is not there, files that cannot be read.
pub async fn event_names(
    context: &Context,
    query: &CatalogueQuery,
    at: Option<u64>,
) -> Result<Catalogued<EventName>> {
    let asked = Asked::new(context, query, at).await?;
    let facts = asked.table.facts(query.range);
    let source = provider_as_source(Arc::clone(&asked.table) as Arc<_>);
    let mut rows = Vec::new();
    for batch in asked.rows(&event_names_plan(&source, query, &facts)?).await? {
        for row in 0..batch.num_rows() {
            let name = text(&batch, output::EVENT_NAME, row)?;
            let counting = context.meters.iter().filter(|meter| counts_event(meter, &name));
            rows.push(EventName {
                meters: counting.map(|meter| meter.name.clone()).collect(),
                events: count(&batch, output::EVENTS, row)?,
                first: instant(&batch, output::FIRST, row)?,
                last: instant(&batch, output::LAST, row)?,
                name,
            });
        }
    }
    let events = rows.iter().map(|row| row.events).sum();
    Ok(Catalogued { rows, events, table_version: asked.version() })
}

/// A question to one version of the events.
struct Asked<'c> {
    context: &'c Context,
    table: Arc<EventsTable>,
    by_event_name: bool,
}

impl<'c> Asked<'c> {
    async fn new(context: &'c Context, query: &CatalogueQuery, at: Option<u64>) -> Result<Self> {
        let snapshot = context.lake.events.snapshot(at).await?;
        let table = Arc::new(EventsTable::new(&context.lake.events, snapshot)?);
        Ok(Self { context, table, by_event_name: query.by_event_name })
    }

    fn version(&self) -> u64 {
        self.table.snapshot().version
    }

    async fn rows(&self, plan: &LogicalPlan) -> Result<Vec<RecordBatch>> {
        let physical = self.context.engine.physical(plan, Reach::Broad).await?;
        let mut rows = self.context.engine.execute(physical)?;
        let mut batches = Vec::new();
        while let Some(batch) = rows.next().await {
            batches.push(batch.map_err(engine_error)?);
        }
        Ok(batches)
    }

    fn event_name(&self, batch: &RecordBatch, row: usize) -> Result<Option<String>> {
        self.by_event_name.then(|| text(batch, output::EVENT_NAME, row)).transpose()
    }
}

/// The property at `place` as its columns tell.
fn of_columns(batch: &RecordBatch, row: usize, place: usize) -> Result<Property> {
    let mut property = Property::default();
    for kind in ValueKind::ALL {
        let column = output::values(place, kind);
        if batch.column_by_name(&column).is_some() {
            *property.types.of_kind(kind) = count(batch, &column, row)?;
        }
    }
    if property.types.events() > 0 {
        property.distinct = count(batch, &output::of(output::DISTINCT, place), row)?;
        property.first = instant(batch, &output::of(output::FIRST, place), row)?;
        property.last = instant(batch, &output::of(output::LAST, place), row)?;
    }
    Ok(property)
}

/// A property as the map tells: its values are texts, whose form says what they were.
fn of_map(batch: &RecordBatch, row: usize) -> Result<Property> {
    let number = |column| count(batch, column, row);
    let (numbers, fractions) = (number(output::NUMBERS)?, number(output::FRACTIONS)?);
    let (boolean, array) = (number(output::BOOLEANS)?, number(output::ARRAYS)?);
    let told = numbers + boolean + array;
    let types = Types {
        integer: numbers.saturating_sub(fractions),
        decimal: fractions,
        text: number(output::EVENTS)?.saturating_sub(told),
        boolean,
        array,
    };
    Ok(Property {
        types,
        distinct: number(output::DISTINCT)?,
        first: instant(batch, output::FIRST, row)?,
        last: instant(batch, output::LAST, row)?,
        ..Property::default()
    })
}

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn column(batch: &RecordBatch, name: &str, data_type: &DataType) -> Result<arrow::array::ArrayRef> {
    let column = batch
        .column_by_name(name)
        .ok_or_else(|| Error::internal(format!("the plan of the catalogue has no `{name}`")))?;
    cast(column, data_type)
        .map_err(|error| Error::internal("rows of the catalogue").with_source(error))
}

fn count(batch: &RecordBatch, name: &str, row: usize) -> Result<u64> {
    let numbers = column(batch, name, &DataType::Int64)?;
    let numbers = numbers.as_primitive::<Int64Type>();
    Ok(if numbers.is_valid(row) { numbers.value(row).unsigned_abs() } else { 0 })
}

fn instant(batch: &RecordBatch, name: &str, row: usize) -> Result<Option<Timestamp>> {
    let instants = column(batch, name, &crate::schema::timestamp_type())?;
    let instants = instants.as_primitive::<TimestampMicrosecondType>();
    Ok(instants.is_valid(row).then(|| Timestamp::from_micros(instants.value(row))))
}

fn text(batch: &RecordBatch, name: &str, row: usize) -> Result<String> {
    let texts = column(batch, name, &DataType::Utf8)?;
    Ok(texts.as_string::<i32>().value(row).to_owned())
}
