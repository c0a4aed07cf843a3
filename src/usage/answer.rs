//! Rows of a plan as rows of an answer: exact texts, converted and rounded once.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, StringBuilder,
};
use arrow::compute::{cast, filter, filter_record_batch};
use arrow::datatypes::{
    DataType, Decimal128Type, Decimal256Type, Field, Int64Type, Schema, SchemaRef,
    TimestampMicrosecondType,
};
use arrow::error::ArrowError;

use super::request::Resolved;
use super::window_texts::window_columns;
use crate::decimal::Decimal;
use crate::error::{Error, Result};
use crate::functions::number::canonical_texts;
use crate::functions::sum::OVERFLOW;
use crate::meter::{Aggregation, Meter};
use crate::plan::output;

/// The columns of answers, in order, as far as they apply.
pub mod columns {
    /// Name of the meter, when several are asked.
    pub const METER: &str = "meter";
    /// Start of the window, RFC 3339.
    pub const WINDOW_START: &str = "window_start";
    /// End of the window, RFC 3339.
    pub const WINDOW_END: &str = "window_end";
    /// Whether a bound of the range cuts the window; only where one cuts any.
    pub const PARTIAL: &str = "partial";
    /// Exact value in raw units.
    pub const VALUE: &str = "value";
    /// The value in the meter's unit.
    pub const CONVERTED: &str = "converted";
    /// The converted value, rounded as the meter says.
    pub const BILLABLE: &str = "billable";
    /// Events that made the value.
    pub const EVENTS: &str = "events";
    /// Events that matched but had no usable value.
    pub const SKIPPED: &str = "skipped";
}

/// Which columns an answer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) names_meter: bool,
    pub(super) windowed: bool,
    /// Whether some customers may have no windows.
    pub(super) windows_nullable: bool,
    /// Whether rows say if their window is cut.
    pub(super) partial: bool,
    pub(super) groups: Vec<String>,
    pub(super) has_unit: bool,
}

impl Shape {
    pub(super) fn schema(&self) -> SchemaRef {
        let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
        let mut fields = Vec::new();
        if self.names_meter {
            fields.push(text(columns::METER, false));
        }
        if self.windowed {
            fields.push(text(columns::WINDOW_START, self.windows_nullable));
            fields.push(text(columns::WINDOW_END, self.windows_nullable));
            if self.partial {
                fields.push(Field::new(columns::PARTIAL, DataType::Boolean, self.windows_nullable));
            }
        }
        fields.extend(self.groups.iter().map(|name| text(name, true)));
        fields.push(text(columns::VALUE, true));
        if self.has_unit {
            fields.push(text(columns::CONVERTED, true));
            fields.push(text(columns::BILLABLE, true));
        }
        fields.push(Field::new(columns::EVENTS, DataType::Int64, false));
        fields.push(Field::new(columns::SKIPPED, DataType::Int64, false));
        Arc::new(Schema::new(fields))
    }
}

/// Running totals over the rows of one meter.
#[derive(Debug, Default, Clone)]
pub(super) struct Totals {
    pub(super) rows: u64,
    pub(super) events: i64,
    pub(super) skipped: i64,
    /// Rows of customers without billing periods.
    pub(super) without_window: u64,
    /// Rows of windows that a bound cuts.
    pub(super) partial: u64,
    raw: Option<Decimal>,
    billable: Option<Decimal>,
}

impl Totals {
    /// Adds those of more rows.
    pub(super) fn add(&mut self, more: Self) {
        self.rows += more.rows;
        self.events += more.events;
        self.skipped += more.skipped;
        self.without_window += more.without_window;
        self.partial += more.partial;
        self.raw = plus(self.raw.take(), more.raw);
        self.billable = plus(self.billable.take(), more.billable);
    }

    /// How far the sum of the rounded rows lies from the rounded total, where that has a meaning.
    pub(super) fn rounding_difference(&self, meter: &Meter) -> Result<Option<Decimal>> {
        let (Some(unit), Some(raw), Some(billable)) = (&meter.unit, &self.raw, &self.billable)
        else {
            return Ok(None);
        };
        let additive = matches!(meter.aggregation, Aggregation::Count | Aggregation::Sum(_));
        if !additive || self.rows < 2 {
            return Ok(None);
        }
        let difference = billable - &unit.convert(raw)?.billable;
        Ok((!difference.is_zero()).then_some(difference))
    }
}

/// Makes rows of answers for the meter at one place of a plan. Owns what it needs, so that batches
/// can be finished on any thread.
pub(super) struct Finisher {
    pub(super) meter: Meter,
    pub(super) place: usize,
    pub(super) resolved: Resolved,
    pub(super) shape: Shape,
    /// Rows of other meters' groups are left out.
    pub(super) shared: bool,
}

/// The texts of windows and groups of a batch, which all meters of its plan share.
pub(super) struct Keys {
    windows: Vec<ArrayRef>,
    groups: Vec<ArrayRef>,
}

impl Keys {
    fn kept(&self, keep: &BooleanArray) -> Result<Self> {
        let kept = |columns: &[ArrayRef]| -> Result<Vec<ArrayRef>> {
            let kept = columns.iter().map(|column| filter(column, keep));
            kept.collect::<Result<_, _>>().map_err(defect)
        };
        Ok(Self { windows: kept(&self.windows)?, groups: kept(&self.groups)? })
    }
}

fn defect(error: ArrowError) -> Error {
    Error::internal("rows of the answer").with_source(error)
}

/// Rows of an answer, and what they add up to.
pub(super) type Part = (RecordBatch, Totals);

pub(super) fn column<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b ArrayRef> {
    let missing = || Error::internal(format!("the plan has no column `{name}`"));
    batch.column_by_name(name).ok_or_else(missing)
}

impl Finisher {
    /// The texts of windows and groups of `batch`, the same for every meter of the plan.
    ///
    /// # Errors
    /// A batch of another plan.
    pub(super) fn keys(&self, batch: &RecordBatch) -> Result<Keys> {
        let text =
            |place| cast(column(batch, &output::group(place))?, &DataType::Utf8).map_err(defect);
        let groups: Vec<ArrayRef> =
            (0..self.shape.groups.len()).map(text).collect::<Result<_>>()?;
        let windows = match &self.resolved.windows {
            Some(resolved) => {
                let starts = column(batch, output::WINDOW_START)?;
                let starts = starts.as_primitive::<TimestampMicrosecondType>();
                let customers = self.resolved.customer_place.and_then(|place| groups.get(place));
                let customers = customers.map(|texts| texts.as_string());
                let range = self.resolved.query.range;
                window_columns(resolved, range, starts, customers, self.shape.partial)?
            }
            None => Vec::new(),
        };
        Ok(Keys { windows, groups })
    }

    /// The rows of `batch`, whose `keys` those are, that belong to the meter, and what they add up
    /// to.
    ///
    /// # Errors
    /// A total that overflowed, naming meter and group; an inexact conversion.
    pub(super) fn rows(&self, batch: &RecordBatch, keys: &Keys) -> Result<Part> {
        match self.matched_only(batch)? {
            None => self.all_rows(batch, keys),
            Some(keep) => {
                let batch = filter_record_batch(batch, &keep).map_err(defect)?;
                self.all_rows(&batch, &keys.kept(&keep)?)
            }
        }
    }

    /// Like [`Self::rows`], of a batch whose rows all belong to the meter.
    pub(super) fn all_rows(&self, batch: &RecordBatch, keys: &Keys) -> Result<Part> {
        let mut totals = Totals::default();
        let mut columns: Vec<ArrayRef> = Vec::new();
        if self.shape.names_meter {
            let names = StringArray::new_repeated(&self.resolved.label, batch.num_rows());
            columns.push(Arc::new(names));
        }
        columns.extend(keys.windows.iter().chain(&keys.groups).cloned());
        let values = column(batch, &output::value(self.place))?;
        self.check_overflow(values, &keys.groups)?;
        let [converted, billable] = self.conversions(values, &mut totals)?;
        columns.push(canonical_texts(values).map_err(crate::engine::engine_error)?);
        if self.shape.has_unit {
            columns.extend([converted, billable]);
        }
        let events = column(batch, &output::events(self.place))?.as_primitive::<Int64Type>();
        let matched = column(batch, &output::matched(self.place))?.as_primitive::<Int64Type>();
        let skipped: Int64Array =
            events.values().iter().zip(matched.values()).map(|(e, m)| Some(m - e)).collect();
        totals.rows += batch.num_rows() as u64;
        if let Some(starts) = keys.windows.first() {
            totals.without_window += starts.null_count() as u64;
        }
        if self.shape.partial
            && let Some(cut) = keys.windows.last()
        {
            totals.partial += cut.as_boolean().true_count() as u64;
        }
        totals.events += events.values().iter().sum::<i64>();
        totals.skipped += skipped.values().iter().sum::<i64>();
        columns.push(Arc::new(events.clone()));
        columns.push(Arc::new(skipped));
        let rows = RecordBatch::try_new(self.shape.schema(), columns).map_err(defect)?;
        Ok((rows, totals))
    }

    /// Which rows the meter has a part in; `None` where it has one in all of them.
    fn matched_only(&self, batch: &RecordBatch) -> Result<Option<BooleanArray>> {
        // A total has its row even if nothing matched.
        if !self.shared || (self.shape.groups.is_empty() && !self.shape.windowed) {
            return Ok(None);
        }
        let matched = column(batch, &output::matched(self.place))?.as_primitive::<Int64Type>();
        let keep: BooleanArray = matched.iter().map(|m| Some(m.unwrap_or(0) > 0)).collect();
        Ok((keep.true_count() < keep.len()).then_some(keep))
    }

    fn check_overflow(&self, values: &ArrayRef, groups: &[ArrayRef]) -> Result<()> {
        let Some(wide) = values.as_primitive_opt::<Decimal256Type>() else { return Ok(()) };
        let Some(row) =
            (0..wide.len()).find(|&row| wide.is_valid(row) && wide.value(row) == OVERFLOW)
        else {
            return Ok(());
        };
        let group: Vec<String> = self
            .shape
            .groups
            .iter()
            .zip(groups)
            .map(|(name, texts)| {
                let texts = texts.as_string::<i32>();
                let text = if texts.is_valid(row) { texts.value(row) } else { "null" };
                format!("{name} = {text}")
            })
            .collect();
        let group = if group.is_empty() { "the total".to_owned() } else { group.join(", ") };
        if self.meter.weight.is_some() {
            return Err(Error::invalid(format!(
                "meter `{}`: the value of {group} has more than 38 digits before or after the point: \
                 `meterhouse explain {0} --events` shows what each event counts as, its value times its \
                 weight",
                self.meter.name
            )));
        }
        Err(Error::invalid(format!(
            "meter `{}`: the sum of {group} has more than 38 integer digits: ask for a shorter range, \
             or find the largest events with `meterhouse explain {0} --events`",
            self.meter.name
        )))
    }

    fn conversions(&self, values: &ArrayRef, totals: &mut Totals) -> Result<[ArrayRef; 2]> {
        let (mut converted, mut billable) = (StringBuilder::new(), StringBuilder::new());
        let Some(unit) = &self.meter.unit else {
            if self.shape.has_unit {
                // Another meter of the answer has a unit; this one's values are their own.
                let texts = canonical_texts(values).map_err(crate::engine::engine_error)?;
                return Ok([Arc::clone(&texts), texts]);
            }
            return Ok([Arc::new(converted.finish()), Arc::new(billable.finish())]);
        };
        for row in 0..values.len() {
            let Some(raw) = decimal_at(values, row) else {
                converted.append_null();
                billable.append_null();
                continue;
            };
            let result = unit
                .convert(&raw)
                .map_err(|error| Error::invalid(format!("meter `{}`: {error}", self.meter.name)))?;
            converted.append_value(result.converted.to_string());
            billable.append_value(result.billable.to_string());
            totals.billable = plus(totals.billable.take(), Some(result.billable));
            totals.raw = plus(totals.raw.take(), Some(raw));
        }
        Ok([Arc::new(converted.finish()), Arc::new(billable.finish())])
    }
}

fn plus(one: Option<Decimal>, other: Option<Decimal>) -> Option<Decimal> {
    match (one, other) {
        (Some(one), Some(other)) => Some(&one + &other),
        (one, other) => one.or(other),
    }
}

fn decimal_at(values: &ArrayRef, row: usize) -> Option<Decimal> {
    if values.is_null(row) {
        return None;
    }
    let scale_of = |scale: i8| u8::try_from(scale).ok();
    match values.data_type() {
        DataType::Int64 => Some(Decimal::from(values.as_primitive::<Int64Type>().value(row))),
        DataType::Decimal128(_, scale) => {
            let scaled = values.as_primitive::<Decimal128Type>().value(row);
            Some(Decimal::from_scaled_i128(scaled, scale_of(*scale)?))
        }
        DataType::Decimal256(_, scale) => {
            let scaled = values.as_primitive::<Decimal256Type>().value(row);
            Some(Decimal::from_scaled(scaled, scale_of(*scale)?))
        }
        _ => None,
    }
}
