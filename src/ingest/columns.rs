//! Events turned into columns, one chunk of input at a time.
//!
//! A chunk knows nothing of its neighbours: which rows stay is decided when many of them are
//! sealed together (`ingest::seal`). What it shares with them is the list of names that may have
//! columns, and the hasher.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use arrow::array::{
    Array, ArrayRef, BooleanBuilder, Decimal128Builder, Int64Array, Int64Builder, MapBuilder,
    MapFieldNames, StringArray, StringBuilder,
};
use std::sync::Arc;

use crate::decimal::{Number, canonical_number};
use crate::dedupe::{Content, Hasher};
use crate::error::{Error, Result};
use crate::event::{Event, Value};
use crate::schema::ColumnNames;
use crate::time::Timestamp;

/// What goes into the content hash beside the properties, so that no two fields are confused.
pub(super) mod content_tag {
    /// `event_name`.
    pub(in crate::ingest) const EVENT_NAME: u8 = 0;
    /// `customer_id`.
    pub(in crate::ingest) const CUSTOMER_ID: u8 = 1;
    /// `resource_id`.
    pub(in crate::ingest) const RESOURCE_ID: u8 = 2;
    /// `timestamp` in microseconds, where it was sent.
    pub(in crate::ingest) const TIMESTAMP: u8 = 3;
    /// A property, by its text.
    pub(in crate::ingest) const PROPERTY: u8 = 4;
}

/// The columns of one property; the arrays that exist have one value per row of the chunk.
#[derive(Debug, Clone)]
pub(super) struct PropertyColumns {
    /// The property's name.
    pub name: String,
    /// `i_` values.
    pub integers: Option<ArrayRef>,
    /// `d_` values.
    pub decimals: Option<ArrayRef>,
    /// `s_` values.
    pub texts: Option<ArrayRef>,
    /// `b_` values.
    pub booleans: Option<ArrayRef>,
    /// Whether every text is a number in canonical form.
    pub texts_are_numbers: bool,
}

/// Accepted events of one piece of input, by column, before deduplication.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    /// `event_name`.
    pub event_name: StringArray,
    /// `idempotency_key`.
    pub idempotency_key: StringArray,
    /// `customer_id`.
    pub customer_id: StringArray,
    /// `resource_id`.
    pub resource_id: StringArray,
    /// `source`.
    pub source: StringArray,
    /// `timestamp` in microseconds; null where it is the moment of receipt.
    pub timestamp: Int64Array,
    /// One entry per property with columns of its own.
    pub properties: Vec<PropertyColumns>,
    /// The map of all other properties, `None` if no event has any.
    pub others: Option<ArrayRef>,
    /// Identity hashes, by row.
    pub keys: Vec<[u8; 16]>,
    /// Content hashes, by row.
    pub contents: Vec<u64>,
    /// The input that all rows came from, where it is known.
    pub input: Option<Arc<str>>,
    /// Line or row there, by row of the chunk.
    pub lines: Vec<u64>,
}

impl Chunk {
    /// How many events it holds.
    pub(super) fn rows(&self) -> usize {
        self.keys.len()
    }

    /// Input and line of a row, where they are known.
    pub(super) fn place(&self, row: usize) -> Option<(&str, u64)> {
        Some((self.input.as_deref()?, *self.lines.get(row)?))
    }

    /// Bytes of memory that it holds on to.
    pub(super) fn memory_bytes(&self) -> usize {
        let arrays = [&self.event_name, &self.idempotency_key, &self.customer_id]
            .into_iter()
            .chain([&self.resource_id, &self.source])
            .map(Array::get_array_memory_size)
            .sum::<usize>();
        let properties = self
            .properties
            .iter()
            .flat_map(|p| [&p.integers, &p.decimals, &p.texts, &p.booleans].into_iter().flatten());
        let optional = properties.chain(&self.others).map(|a| a.get_array_memory_size());
        arrays + self.timestamp.get_array_memory_size() + optional.sum::<usize>() + self.rows() * 32
    }
}

/// Builds a [`Chunk`] event by event.
pub(super) struct ChunkBuilder<'s> {
    names: &'s Mutex<ColumnNames>,
    hasher: &'s Hasher,
    event_name: StringBuilder,
    idempotency_key: StringBuilder,
    customer_id: StringBuilder,
    resource_id: StringBuilder,
    source: StringBuilder,
    timestamp: Int64Builder,
    properties: Vec<PropertyBuilder>,
    place_by_name: HashMap<String, Option<usize>>,
    /// Where the property at each place of the last event went: events resemble each other.
    last_places: Vec<usize>,
    others: Vec<(usize, String, String)>,
    keys: Vec<[u8; 16]>,
    contents: Vec<u64>,
    input: Option<Arc<str>>,
    line: u64,
    lines: Vec<u64>,
    text: String,
}

impl<'s> ChunkBuilder<'s> {
    /// An empty chunk that asks `names` for columns and `hasher` for identities.
    pub(super) fn new(names: &'s Mutex<ColumnNames>, hasher: &'s Hasher) -> Self {
        Self {
            names,
            hasher,
            event_name: StringBuilder::new(),
            idempotency_key: StringBuilder::new(),
            customer_id: StringBuilder::new(),
            resource_id: StringBuilder::new(),
            source: StringBuilder::new(),
            timestamp: Int64Builder::new(),
            properties: Vec::new(),
            place_by_name: HashMap::new(),
            last_places: Vec::new(),
            others: Vec::new(),
            keys: Vec::new(),
            contents: Vec::new(),
            input: None,
            line: 0,
            lines: Vec::new(),
            text: String::new(),
        }
    }

    /// Says which line of which input the next event comes from; a chunk has one input.
    pub(super) fn at(&mut self, input: &Arc<str>, line: u64) -> &mut Self {
        self.input.get_or_insert_with(|| Arc::clone(input));
        self.line = line;
        self
    }

    /// Adds an event that passed [`Event::check`].
    pub(super) fn push(&mut self, event: &Event<'_>) {
        let row = self.keys.len();
        let mut content = Content::default();
        self.push_envelope(event, &mut content);
        for (place, (name, value)) in event.properties.iter().enumerate() {
            self.text.clear();
            let text = text_of(value, &mut self.text);
            content.add(self.hasher.field(content_tag::PROPERTY, name, text));
            match place_of(
                (place, name),
                &mut self.last_places,
                &mut self.place_by_name,
                &mut self.properties,
                self.names,
            ) {
                Some(column) if self.properties[column].takes(value) => {
                    self.properties[column].push(row, value);
                }
                _ => self.others.push((row, name.clone().into_owned(), text.to_owned())),
            }
        }
        self.keys.push(self.hasher.identity(event.source.as_deref(), &event.idempotency_key));
        self.contents.push(content.value());
        self.lines.push(self.line);
    }

    fn push_envelope(&mut self, event: &Event<'_>, content: &mut Content) {
        let hasher = self.hasher;
        self.event_name.append_value(&event.event_name);
        content.add(hasher.field(content_tag::EVENT_NAME, "", &event.event_name));
        self.idempotency_key.append_value(&event.idempotency_key);
        self.customer_id.append_option(event.customer_id.as_deref());
        if let Some(customer) = &event.customer_id {
            content.add(hasher.field(content_tag::CUSTOMER_ID, "", customer));
        }
        self.resource_id.append_option(event.resource_id.as_deref());
        if let Some(resource) = &event.resource_id {
            content.add(hasher.field(content_tag::RESOURCE_ID, "", resource));
        }
        self.source.append_option(event.source.as_deref());
        self.timestamp.append_option(event.timestamp.map(Timestamp::micros));
        if let Some(timestamp) = event.timestamp {
            self.text.clear();
            push_integer(&mut self.text, timestamp.micros());
            content.add(hasher.field(content_tag::TIMESTAMP, "", &self.text));
        }
    }

    /// The finished columns.
    ///
    /// # Errors
    /// A defect of ours: columns of different lengths.
    pub(super) fn finish(mut self) -> Result<Chunk> {
        let rows = self.keys.len();
        Ok(Chunk {
            others: others_array(rows, &self.others)?,
            properties: self.properties.into_iter().map(|p| p.finish(rows)).collect(),
            event_name: self.event_name.finish(),
            idempotency_key: self.idempotency_key.finish(),
            customer_id: self.customer_id.finish(),
            resource_id: self.resource_id.finish(),
            source: self.source.finish(),
            timestamp: self.timestamp.finish(),
            keys: self.keys,
            contents: self.contents,
            input: self.input,
            lines: self.lines,
        })
    }
}

/// The column of the property `name`, standing at `place` of its event; `None` sends it to the map.
fn place_of(
    (place, name): (usize, &str),
    last_places: &mut Vec<usize>,
    place_by_name: &mut HashMap<String, Option<usize>>,
    properties: &mut Vec<PropertyBuilder>,
    names: &Mutex<ColumnNames>,
) -> Option<usize> {
    if let Some(&column) = last_places.get(place)
        && properties.get(column).is_some_and(|p| p.name == name)
    {
        return Some(column);
    }
    let column = match place_by_name.get(name) {
        Some(known) => *known,
        None => {
            let admitted = names.lock().unwrap_or_else(PoisonError::into_inner).admit(name);
            let column = admitted.then(|| {
                properties.push(PropertyBuilder::new(name));
                properties.len() - 1
            });
            // Names without columns may be endless; remembering a few is enough.
            if column.is_some() || place_by_name.len() < 10_000 {
                place_by_name.insert(name.to_owned(), column);
            }
            column
        }
    };
    if let Some(column) = column {
        last_places.resize(last_places.len().max(place + 1), usize::MAX);
        last_places[place] = column;
    }
    column
}

/// The text of a value, in canonical form where it is a number.
fn text_of<'v>(value: &'v Value<'_>, buffer: &'v mut String) -> &'v str {
    match value {
        Value::Text(text) | Value::Json(text) => text,
        Value::Boolean(true) => "true",
        Value::Boolean(false) => "false",
        Value::Number(Number::Integer(integer)) => {
            push_integer(buffer, *integer);
            buffer
        }
        Value::Number(number) => {
            buffer.push_str(&number.to_string());
            buffer
        }
    }
}

fn push_integer(buffer: &mut String, integer: i64) {
    use std::fmt::Write as _;
    // Writing to a String cannot fail.
    let _ = write!(buffer, "{integer}");
}

fn others_array(rows: usize, others: &[(usize, String, String)]) -> Result<Option<ArrayRef>> {
    if others.is_empty() {
        return Ok(None);
    }
    let names = MapFieldNames {
        entry: "key_value".to_owned(),
        key: "key".to_owned(),
        value: "value".to_owned(),
    };
    let mut map = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    let mut rest = others.iter().peekable();
    for row in 0..rows {
        let mut any = false;
        while let Some((_, name, text)) = rest.next_if(|(at, _, _)| *at == row) {
            map.keys().append_value(name);
            map.values().append_value(text);
            any = true;
        }
        map.append(any).map_err(|error| Error::internal("property map").with_source(error))?;
    }
    Ok(Some(Arc::new(map.finish())))
}

/// Columns of one property under construction; each is padded with nulls when a value comes.
struct PropertyBuilder {
    name: String,
    integers: Option<Int64Builder>,
    decimals: Option<Decimal128Builder>,
    texts: Option<StringBuilder>,
    booleans: Option<BooleanBuilder>,
    texts_are_numbers: bool,
}

impl PropertyBuilder {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            integers: None,
            decimals: None,
            texts: None,
            booleans: None,
            texts_are_numbers: true,
        }
    }

    /// Whether a column can hold `value`; arrays and very large numbers are text in the map.
    fn takes(&self, value: &Value<'_>) -> bool {
        !matches!(value, Value::Json(_) | Value::Number(Number::Wide(_)))
    }

    fn push(&mut self, row: usize, value: &Value<'_>) {
        match value {
            Value::Number(Number::Integer(integer)) => {
                let integers = self.integers.get_or_insert_default();
                integers.append_nulls(row - integers.len());
                integers.append_value(*integer);
            }
            Value::Number(Number::Fixed(scaled)) => {
                let decimals = self.decimals.get_or_insert_with(decimal_builder);
                decimals.append_nulls(row - decimals.len());
                decimals.append_value(*scaled);
            }
            Value::Text(text) => {
                let texts = self.texts.get_or_insert_default();
                texts.append_nulls(row - texts.len());
                texts.append_value(text);
                self.texts_are_numbers = self.texts_are_numbers && canonical_number(text).is_some();
            }
            Value::Boolean(boolean) => {
                let booleans = self.booleans.get_or_insert_default();
                booleans.append_nulls(row - booleans.len());
                booleans.append_value(*boolean);
            }
            Value::Json(_) | Value::Number(Number::Wide(_)) => {}
        }
    }

    fn finish(mut self, rows: usize) -> PropertyColumns {
        PropertyColumns {
            integers: self.integers.as_mut().map(|b| {
                b.append_nulls(rows - b.len());
                Arc::new(b.finish()) as ArrayRef
            }),
            decimals: self.decimals.as_mut().map(|b| {
                b.append_nulls(rows - b.len());
                Arc::new(b.finish()) as ArrayRef
            }),
            texts: self.texts.as_mut().map(|b| {
                b.append_nulls(rows - b.len());
                Arc::new(b.finish()) as ArrayRef
            }),
            booleans: self.booleans.as_mut().map(|b| {
                b.append_nulls(rows - b.len());
                Arc::new(b.finish()) as ArrayRef
            }),
            name: self.name,
            texts_are_numbers: self.texts_are_numbers,
        }
    }
}

fn decimal_builder() -> Decimal128Builder {
    Decimal128Builder::new().with_data_type(crate::schema::ValueKind::Decimal.data_type())
}

use arrow::array::ArrayBuilder as _;
