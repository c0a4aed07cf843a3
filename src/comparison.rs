//! Two definitions of a meter over the same events: what each says, group by group.
//!
//! Both are asked together, so that one scan answers where they count the same events. Says what
//! would change for whom before anything is billed; changes nothing itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};

use crate::decimal::Decimal;
use crate::error::{Error, Result};
use crate::meter::{Aggregation, Meter};
use crate::usage::{Context, Grouping, Note, UsageRequest, columns, reference, usage};

/// Columns behind the groups.
pub const COLUMNS: [&str; 8] = [
    "old_value",
    "new_value",
    "difference",
    "old_converted",
    "new_converted",
    "old_billable",
    "new_billable",
    "billable_difference",
];

/// How many of [`COLUMNS`] there are where neither definition has a unit.
const COLUMNS_WITHOUT_UNIT: usize = 3;

/// What two definitions say.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// Groups, then [`COLUMNS`] as far as there are units; ordered by the groups.
    pub rows: RecordBatch,
    /// Groups of either definition.
    pub groups: u64,
    /// Those in which the two differ.
    pub changed: u64,
    /// What each says in total; `None` where nothing came of it.
    pub totals: [Option<Decimal>; 2],
    /// How the answer of each came about.
    pub notes: [Note; 2],
}

/// What one definition says of a group.
#[derive(Debug, Clone, Default, PartialEq)]
struct Side {
    value: Option<String>,
    converted: Option<String>,
    billable: Option<String>,
}

impl Side {
    /// Whether anything is another number there; nothing is 0.
    fn differs(&self, other: &Self) -> bool {
        let number = |text: &Option<String>| text.clone().unwrap_or_else(|| "0".to_owned());
        let all = |side: &Self| [&side.value, &side.converted, &side.billable].map(number);
        all(self) != all(other)
    }
}

type Groups = BTreeMap<Vec<Option<String>>, [Side; 2]>;

/// Asks `old` and `new` what `request` asks (its meters are not looked at), for the groups in which
/// they differ or for `all`. The two are of different versions.
///
/// # Errors
/// As [`usage`]; a group that is called like a column; windows, and rows of the largest alone, which
/// are not compared.
pub async fn compare(
    context: &Context,
    [old, new]: [&Meter; 2],
    request: &UsageRequest,
    all: bool,
) -> Result<Comparison> {
    if request.window.is_some() || request.top.is_some() {
        return Err(Error::invalid("definitions are compared by group, without windows or a top"));
    }
    let meters = Arc::new(vec![old.clone(), new.clone()]);
    let context = Context { meters, ..context.clone() };
    // Rows and totals are of one version, whatever is committed between them.
    let at = context.lake.events.snapshot(request.at).await?.version;
    let meters = vec![reference(old), reference(new)];
    let request = UsageRequest { meters, at: Some(at), ..request.clone() };
    let mut groups = Groups::new();
    let mut names: Vec<String> = Vec::new();
    let notes = usage(&context, &request, &mut |batch| {
        names = take_rows(&batch, &request.meters, &mut groups)?;
        Ok(true)
    })
    .await?;
    let notes: [Note; 2] =
        notes.try_into().map_err(|_| Error::internal("two definitions have not two notes"))?;
    if let Some(name) = names.iter().find(|name| COLUMNS.contains(&name.as_str())) {
        return Err(Error::invalid(format!(
            "group `{name}` has the name of a column of the answer; a property of that name is \
             `property.{name}`"
        )));
    }
    let totals = totals(&context, [old, new], &request, &groups).await?;
    let same_unit = match (&old.unit, &new.unit) {
        (Some(old), Some(new)) => Some(old.name == new.name),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => Some(false),
    };
    let count = groups.len() as u64;
    let changed = groups.values().filter(|[old, new]| old.differs(new)).count() as u64;
    if !all {
        groups.retain(|_, [old, new]| old.differs(new));
    }
    let rows = rows(&names, &groups, same_unit)?;
    Ok(Comparison { rows, groups: count, changed, totals, notes })
}

/// Adds the rows of an answer to `groups`; gives the names of the groups.
fn take_rows(batch: &RecordBatch, labels: &[String], groups: &mut Groups) -> Result<Vec<String>> {
    let schema = batch.schema();
    let value = schema.index_of(columns::VALUE);
    let value = value.map_err(|error| Error::internal("an answer").with_source(error))?;
    let text = |column: &ArrayRef, row: usize| {
        let texts = column.as_string::<i32>();
        texts.is_valid(row).then(|| texts.value(row).to_owned())
    };
    let named =
        |name: &str, row: usize| batch.column_by_name(name).and_then(|column| text(column, row));
    for row in 0..batch.num_rows() {
        let label = text(batch.column(0), row);
        let side = labels.iter().position(|known| Some(known) == label.as_ref());
        let side = side.filter(|side| *side < 2);
        let side = side.ok_or_else(|| Error::internal("a row of no definition"))?;
        let key = (1..value).map(|place| text(batch.column(place), row)).collect();
        groups.entry(key).or_default()[side] = Side {
            value: text(batch.column(value), row),
            converted: named(columns::CONVERTED, row),
            billable: named(columns::BILLABLE, row),
        };
    }
    Ok((1..value).map(|place| schema.field(place).name().clone()).collect())
}

/// What each definition says in total: the sum of its rows where they add up, else asked for.
async fn totals(
    context: &Context,
    meters: [&Meter; 2],
    request: &UsageRequest,
    groups: &Groups,
) -> Result<[Option<Decimal>; 2]> {
    let adds_up =
        |meter: &&Meter| matches!(meter.aggregation, Aggregation::Count | Aggregation::Sum(_));
    let mut all = Groups::new();
    let of = if meters.iter().all(adds_up) {
        groups
    } else {
        let request = UsageRequest { grouping: Grouping::Total, ..request.clone() };
        let mut take = |batch: RecordBatch| {
            take_rows(&batch, &request.meters, &mut all)?;
            Ok(true)
        };
        usage(context, &request, &mut take).await?;
        &all
    };
    let mut totals = [None, None];
    for sides in of.values() {
        for (total, side) in totals.iter_mut().zip(sides) {
            let Some(value) = number(side.value.as_ref())? else { continue };
            *total = Some(match total.take() {
                Some(sum) => &sum + &value,
                None => value,
            });
        }
    }
    Ok(totals)
}

fn number(text: Option<&String>) -> Result<Option<Decimal>> {
    let read = |text: &String| text.parse::<Decimal>();
    text.map(read).transpose().map_err(|error| {
        Error::internal(format!("a value of an answer is no number: {text:?}")).with_source(error)
    })
}

/// The difference of two texts that are numbers; none is 0, and two of them have none.
fn difference(old: Option<&String>, new: Option<&String>) -> Result<Option<String>> {
    let (old, new) = (number(old)?, number(new)?);
    if old.is_none() && new.is_none() {
        return Ok(None);
    }
    let zero = || Decimal::from(0);
    let (old, new) = (old.unwrap_or_else(zero), new.unwrap_or_else(zero));
    Ok(Some((&new - &old).to_string()))
}

fn rows(names: &[String], groups: &Groups, same_unit: Option<bool>) -> Result<RecordBatch> {
    let texts = |text: &dyn Fn(&[Side; 2]) -> Option<String>| -> ArrayRef {
        Arc::new(groups.values().map(text).collect::<StringArray>())
    };
    let of_groups = names.iter().enumerate().map(|(place, name)| {
        let texts = groups.keys().map(|key| key.get(place).cloned().flatten());
        (name.clone(), Arc::new(texts.collect::<StringArray>()) as ArrayRef)
    });
    let values =
        groups.values().map(|[old, new]| difference(old.value.as_ref(), new.value.as_ref()));
    let values: StringArray = values.collect::<Result<Vec<_>>>()?.into_iter().collect();
    let billable = groups.values().map(|[old, new]| match same_unit {
        Some(true) => difference(old.billable.as_ref(), new.billable.as_ref()),
        Some(false) | None => Ok(None),
    });
    let billable: StringArray = billable.collect::<Result<Vec<_>>>()?.into_iter().collect();
    let arrays: [ArrayRef; 8] = [
        texts(&|[old, _]| old.value.clone()),
        texts(&|[_, new]| new.value.clone()),
        Arc::new(values),
        texts(&|[old, _]| old.converted.clone()),
        texts(&|[_, new]| new.converted.clone()),
        texts(&|[old, _]| old.billable.clone()),
        texts(&|[_, new]| new.billable.clone()),
        Arc::new(billable),
    ];
    let shown = if same_unit.is_some() { COLUMNS.len() } else { COLUMNS_WITHOUT_UNIT };
    let named = COLUMNS.iter().map(|name| (*name).to_owned()).zip(arrays).take(shown);
    let columns = of_groups.chain(named).map(|(name, array)| (name, array, true));
    RecordBatch::try_from_iter_with_nullable(columns)
        .map_err(|error| Error::internal("rows of a comparison").with_source(error))
}
