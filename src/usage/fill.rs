//! Rows for the windows in which a group has no value.
//!
//! The rows of a plan come by window, then group; here every window of the range is gone through with
//! every group that occurs in it, and what the plan has no row or no value for is filled. Holds the
//! plan's rows, not the filled ones: those come batch by batch.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::{cast, interleave};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use datafusion::execution::memory_pool::MemoryReservation;

use super::answer::{Finisher, Part};
use super::window_texts::calendar_of;
use super::windows::ResolvedWindows;
use crate::error::{Error, Result};
use crate::plan::{Windows, output};
use crate::time::{TimeRange, WindowStarts};

/// Most rows of a filled answer.
const ROWS_MAX: usize = 100_000_000;

/// Rows that are made at a time.
const BATCH_ROWS: usize = 8_192;

/// What stands where a group has no value in a window.
///
/// Counts of nothing are 0 of themselves, whatever the rest is filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// 0.
    Zero,
    /// Null.
    Null,
    /// The group's last value before; null if there is none in the range.
    Previous,
}

impl FromStr for Fill {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "zero" => Ok(Self::Zero),
            "null" => Ok(Self::Null),
            "previous" => Ok(Self::Previous),
            _ => {
                Err(Error::invalid(format!("unknown fill `{text}`: write zero, null or previous")))
            }
        }
    }
}

/// The rows of a plan, and the memory that they are accounted for with.
pub(super) struct Held {
    pub(super) batches: Vec<RecordBatch>,
    pub(super) _memory: MemoryReservation,
}

/// A row among several batches: which batch, which row of it.
type Place = (usize, usize);

/// The rows of one meter, filled.
pub(super) struct Filled {
    finisher: Finisher,
    fill: Fill,
    held: Arc<Held>,
    /// Of the plan's columns, a row of zeros and one of nulls.
    filler: RecordBatch,
    /// The plan's rows of this meter in order, each with its window and group.
    rows: std::vec::IntoIter<Known>,
    next: Option<Known>,
    groups: Vec<Group>,
    /// The windows to go through, each with a calendar that has it, and the groups of each calendar.
    windows: std::iter::Peekable<std::vec::IntoIter<(i64, usize)>>,
    members: Vec<Vec<usize>>,
    /// The window that is gone through, and the groups that are left of it, last first.
    open: (i64, Vec<usize>),
}

struct Known {
    place: Place,
    window: Option<i64>,
    group: usize,
    has_value: bool,
}

/// A group, by a row that shows its texts, and its last value.
struct Group {
    shown: Option<Place>,
    last: Option<Place>,
}

/// A row to be made.
struct Made {
    window: Option<i64>,
    group: Option<Place>,
    value: Place,
    counts: Place,
}

fn defect(error: ArrowError) -> Error {
    Error::internal("fill of an answer").with_source(error)
}

impl Filled {
    /// The rows of the meter of `finisher` among those of a plan with `schema`.
    ///
    /// # Errors
    /// More rows than an answer may have.
    pub(super) fn new(
        finisher: Finisher,
        fill: Fill,
        schema: &SchemaRef,
        held: &Arc<Held>,
    ) -> Result<Self> {
        let resolved = finisher.resolved.windows.as_ref();
        let resolved =
            resolved.ok_or_else(|| Error::internal("fill of an answer without windows"))?;
        let (rows, groups, calendars) = known_rows(&finisher, resolved, &held.batches)?;
        let range = finisher.resolved.query.range;
        let windows = match span(range, resolved, &rows, &calendars) {
            Some((from, to)) => windows_of(&resolved.windows, &calendars, from, to)?,
            None => Vec::new(),
        };
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); resolved.zones.len()];
        for (group, calendar) in calendars.iter().enumerate() {
            if let Some(members) = calendar.and_then(|calendar| members.get_mut(calendar)) {
                members.push(group);
            }
        }
        let expected: usize = windows.iter().map(|(_, calendar)| members[*calendar].len()).sum();
        if expected > ROWS_MAX {
            return Err(Error::invalid(format!(
                "meter `{}`: the filled answer has {expected} rows, at most {ROWS_MAX} are allowed: \
                 take a longer window, a shorter range or fewer groups",
                finisher.meter.name
            )));
        }
        let filler = filler(&finisher, schema)?;
        let mut rows = rows.into_iter();
        Ok(Self {
            next: rows.next(),
            rows,
            finisher,
            fill,
            held: Arc::clone(held),
            filler,
            groups,
            windows: windows.into_iter().peekable(),
            members,
            open: (i64::MIN, Vec::new()),
        })
    }

    /// The next rows; `None` after the last.
    ///
    /// # Errors
    /// As those of an answer that is not filled.
    pub(super) fn next_part(&mut self) -> Result<Option<Part>> {
        let mut made = Vec::with_capacity(BATCH_ROWS);
        while made.len() < BATCH_ROWS {
            match self.next_row() {
                Some(row) => made.push(row),
                None => break,
            }
        }
        if !made.is_empty() {
            let batch = self.batch(&made)?;
            let keys = self.finisher.keys(&batch)?;
            return self.finisher.all_rows(&batch, &keys).map(Some);
        }
        if self.next.is_some() {
            return Err(Error::internal("a row of the answer lies in no window of the range"));
        }
        Ok(None)
    }

    fn next_row(&mut self) -> Option<Made> {
        // Rows without a window come first, and as they are.
        if let Some(row) = self.next.take_if(|row| row.window.is_none()) {
            self.next = self.rows.next();
            return Some(self.made(None, row.group, Some(&row)));
        }
        while self.open.1.is_empty() {
            self.open_window()?;
        }
        let (window, group) = (self.open.0, self.open.1.pop()?);
        let row = self.next.take_if(|row| row.window == Some(window) && row.group == group);
        if row.is_some() {
            self.next = self.rows.next();
        }
        Some(self.made(Some(window), group, row.as_ref()))
    }

    fn open_window(&mut self) -> Option<()> {
        let (window, calendar) = self.windows.next()?;
        let mut groups = self.members[calendar].clone();
        // Several calendars may have a window that begins at this instant.
        while let Some((_, calendar)) = self.windows.next_if(|(start, _)| *start == window) {
            groups.extend_from_slice(&self.members[calendar]);
        }
        groups.sort_unstable_by(|one, other| other.cmp(one));
        self.open = (window, groups);
        Some(())
    }

    fn made(&mut self, window: Option<i64>, group: usize, row: Option<&Known>) -> Made {
        let filler = self.held.batches.len();
        let (zero, null) = ((filler, 0), (filler, 1));
        let counts = self.finisher.meter.aggregation.counts();
        let group = &mut self.groups[group];
        let value = match (row, self.fill) {
            (Some(row), _) if row.has_value => {
                group.last = Some(row.place);
                row.place
            }
            (Some(row), _) if window.is_none() => row.place,
            _ if counts => zero,
            (_, Fill::Zero) => zero,
            (_, Fill::Null) => null,
            (_, Fill::Previous) => group.last.unwrap_or(null),
        };
        Made { window, group: group.shown, value, counts: row.map_or(zero, |row| row.place) }
    }

    /// Rows as a batch of the plan.
    fn batch(&self, made: &[Made]) -> Result<RecordBatch> {
        let place = self.finisher.place;
        let starts: TimestampMicrosecondArray = made.iter().map(|row| row.window).collect();
        let starts: ArrayRef = Arc::new(starts.with_timezone("UTC"));
        let null = (self.held.batches.len(), 1);
        let mut columns = vec![(output::WINDOW_START.to_owned(), starts)];
        let mut take = |name: String, of: fn(&Made, Place) -> Place| -> Result<()> {
            let mut arrays = Vec::with_capacity(self.held.batches.len() + 1);
            for batch in self.held.batches.iter().chain(std::iter::once(&self.filler)) {
                arrays.push(super::answer::column(batch, &name)?.as_ref());
            }
            let places: Vec<Place> = made.iter().map(|row| of(row, null)).collect();
            columns.push((name, interleave(&arrays, &places).map_err(defect)?));
            Ok(())
        };
        for group in 0..self.finisher.shape.groups.len() {
            take(output::group(group), |row, null| row.group.unwrap_or(null))?;
        }
        take(output::value(place), |row, _| row.value)?;
        take(output::events(place), |row, _| row.counts)?;
        take(output::matched(place), |row, _| row.counts)?;
        let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns
            .into_iter()
            .map(|(name, array)| (Field::new(name, array.data_type().clone(), true), array))
            .unzip();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(defect)
    }
}

/// The meter's rows, its groups in order, and the calendar of each group.
type KnownRows = (Vec<Known>, Vec<Group>, Vec<Option<usize>>);

fn known_rows(
    finisher: &Finisher,
    resolved: &ResolvedWindows,
    batches: &[RecordBatch],
) -> Result<KnownRows> {
    let names: Vec<String> = (0..finisher.shape.groups.len()).map(output::group).collect();
    let mut found: BTreeMap<Vec<u8>, (Place, Option<usize>)> = BTreeMap::new();
    let mut keyed: Vec<(Vec<u8>, Known)> = Vec::new();
    for (number, batch) in batches.iter().enumerate() {
        let columns: Vec<ArrayRef> = names
            .iter()
            .map(|name| cast(super::answer::column(batch, name)?, &DataType::Utf8).map_err(defect))
            .collect::<Result<_>>()?;
        let keys = group_keys(&columns, batch.num_rows())?;
        let customers = finisher.resolved.customer_place.and_then(|place| columns.get(place));
        let customers: Option<&StringArray> = customers.map(|texts| texts.as_string());
        let starts = super::answer::column(batch, output::WINDOW_START)?;
        let starts = starts.as_primitive::<TimestampMicrosecondType>();
        let values = super::answer::column(batch, &output::value(finisher.place))?;
        let matched = super::answer::column(batch, &output::matched(finisher.place))?;
        let matched = matched.as_primitive::<Int64Type>();
        for (row, key) in keys.into_iter().enumerate() {
            // What is carried into a window has a row of its own, though nothing matched there.
            let of_meter = !finisher.shared || (matched.is_valid(row) && matched.value(row) > 0);
            if !of_meter {
                continue;
            }
            let place = (number, row);
            let window = starts.is_valid(row).then(|| starts.value(row));
            let calendar = calendar_of(&resolved.windows, customers, row);
            found.entry(key.clone()).or_insert((place, calendar));
            let has_value = values.is_valid(row);
            keyed.push((key, Known { place, window, group: 0, has_value }));
        }
    }
    if names.is_empty() {
        // A total is a group even where nothing matched.
        found.entry(Vec::new()).or_insert(((0, 0), calendar_of(&resolved.windows, None, 0)));
    }
    let numbers: BTreeMap<&Vec<u8>, usize> = found.keys().zip(0..).collect();
    let rows = keyed.into_iter().map(|(key, known)| {
        let group = numbers.get(&key).copied().unwrap_or_default();
        Known { group, ..known }
    });
    let rows = rows.collect();
    let groups = found
        .values()
        .map(|(place, _)| Group { shown: (!names.is_empty()).then_some(*place), last: None })
        .collect();
    Ok((rows, groups, found.values().map(|(_, calendar)| *calendar).collect()))
}

/// For each row what orders its groups among others: null first, then by text.
fn group_keys(columns: &[ArrayRef], rows: usize) -> Result<Vec<Vec<u8>>> {
    if columns.is_empty() {
        return Ok(vec![Vec::new(); rows]);
    }
    let fields = columns.iter().map(|_| SortField::new(DataType::Utf8)).collect();
    let converter = RowConverter::new(fields).map_err(defect)?;
    let converted = converter.convert_columns(columns).map_err(defect)?;
    Ok(converted.iter().map(|row| row.data().to_vec()).collect())
}

/// What is filled: the windows that end after the first of two instants and begin before the second.
///
/// Those are the bounds of the range; where it is open, no window is filled that ends before any that
/// holds events, and none that begins after all of them.
fn span(
    range: TimeRange,
    resolved: &ResolvedWindows,
    rows: &[Known],
    calendars: &[Option<usize>],
) -> Option<(i64, i64)> {
    let [from, to] = [range.from, range.to].map(|bound| bound.map(|bound| bound.micros()));
    let windowed = || rows.iter().filter_map(|row| Some((row.window?, calendars[row.group]?)));
    let first = || {
        let end = |(start, calendar)| Some(starts_of(&resolved.windows, calendar)?.end_of(start));
        windowed().filter_map(end).min().map(|end| to.map_or(end, |to| to.min(end)) - 1)
    };
    let last = || {
        let start = windowed().map(|(start, _)| start).max();
        start.map(|start| from.map_or(start, |from| from.max(start)) + 1)
    };
    Some((from.or_else(first)?, to.or_else(last)?))
}

fn starts_of(windows: &Windows, calendar: usize) -> Option<&WindowStarts> {
    match windows {
        Windows::Shared(starts) => Some(starts),
        Windows::PerCustomer(calendars) => calendars.starts.get(calendar),
    }
}

/// The windows between two instants of all calendars that have a group, in order.
fn windows_of(
    windows: &Windows,
    calendars: &[Option<usize>],
    from: i64,
    to: i64,
) -> Result<Vec<(i64, usize)>> {
    let mut used: Vec<usize> = calendars.iter().copied().flatten().collect();
    used.sort_unstable();
    used.dedup();
    let mut all = Vec::new();
    for calendar in used {
        let Some(starts) = starts_of(windows, calendar) else { continue };
        for start in starts.between(from, to) {
            all.push((start, calendar));
            if all.len() > ROWS_MAX {
                return Err(Error::invalid(format!(
                    "the filled answer has more than {ROWS_MAX} windows: take a longer window or a \
                     shorter range"
                )));
            }
        }
    }
    all.sort_unstable();
    Ok(all)
}

/// Two rows of a plan's columns: zero and null; groups are null in both.
fn filler(finisher: &Finisher, schema: &SchemaRef) -> Result<RecordBatch> {
    let place = finisher.place;
    let numbers = [output::value(place), output::events(place), output::matched(place)];
    let mut fields = Vec::new();
    let mut arrays = Vec::new();
    for field in schema.fields() {
        let array = if numbers.contains(field.name()) {
            let zero_and_null: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), None]));
            cast(&zero_and_null, field.data_type()).map_err(defect)?
        } else {
            arrow::array::new_null_array(field.data_type(), 2)
        };
        fields.push(field.as_ref().clone().with_nullable(true));
        arrays.push(array);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(defect)
}
