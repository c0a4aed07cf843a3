//! What was closed, read and made again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;

use super::coverage::{Bounds, bounds, table_key, table_of, without};
use super::line::{Hashed, Line, lines_of, lines_of_period};
use super::{Closing, Record, definition, definition_of_then, list, store};
use crate::decimal::Decimal;
use crate::error::{Error, Result};
use crate::meter::{Billing, Meter, TablePlace};
use crate::time::{BILLING_PERIOD, BillingPeriod};
use crate::usage::{Context, UsageRequest, reference, usage};

/// What came of comparing a closed period with the events it was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the stored lines are those that were closed.
    pub is_whole: bool,
    /// Lines that come out otherwise now, stored and made again; a few.
    pub differing: Vec<(Option<String>, Option<String>)>,
}

impl Verdict {
    /// Whether everything is as it was.
    pub fn is_right(&self) -> bool {
        self.is_whole && self.differing.is_empty()
    }
}

/// Most differing lines that are told.
const TOLD: usize = 10;

/// The lines of a closing, by customer.
///
/// # Errors
/// A file that cannot be read or is damaged.
pub async fn lines(context: &Context, closing: &Closing) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    each_lines(context, &closing.record, |some| {
        lines.extend(some);
        Ok(())
    })
    .await?;
    Ok(lines)
}

/// Gives the lines of a closing to `take`, some at a time, by customer.
///
/// # Errors
/// A file that cannot be read or is damaged; those of `take`.
pub async fn each_lines(
    context: &Context,
    record: &Record,
    take: impl FnMut(Vec<Line>) -> Result<()>,
) -> Result<()> {
    let gone = || Error::corrupt("the table of statements is gone");
    let table = context.lake.statements().await?.ok_or_else(gone)?;
    store::each_line(&table, record, take).await
}

/// Makes the lines of a closing again, from the events of the version that it is of and with the
/// definition that it was made by, and compares them byte for byte.
///
/// # Errors
/// A store that cannot be read; a definition or version that is gone.
pub async fn verify(context: &Context, closing: &Closing) -> Result<Verdict> {
    let record = &closing.record;
    let (mut stored, mut again) = (Hashed::default(), Hashed::default());
    each_lines(context, record, |lines| stored.add(record, &lines)).await?;
    let version = Some(record.table_version);
    each_made_again(context, record, version, |lines| again.add(record, &lines)).await?;
    let closed = (record.lines, record.sha256.clone());
    let is_whole = stored.finish() == closed;
    if is_whole && again.finish() == closed {
        return Ok(Verdict { is_whole, differing: Vec::new() });
    }
    // Where something is wrong, the lines say what.
    let text = |line: &Line| line.text(record);
    let stored: Vec<String> =
        lines(context, closing).await?.iter().map(text).collect::<Result<_>>()?;
    let again = made_again(context, record, version).await?;
    let again: Vec<String> = again.iter().map(text).collect::<Result<_>>()?;
    let differing = (0..stored.len().max(again.len()))
        .map(|place| (stored.get(place).cloned(), again.get(place).cloned()))
        .filter(|(stored, again)| stored != again)
        .take(TOLD)
        .collect();
    Ok(Verdict { is_whole, differing })
}

/// What the lines of a closing are by the events of version `at`, the newest if none.
async fn made_again(context: &Context, record: &Record, at: Option<u64>) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    each_made_again(context, record, at, |some| {
        lines.extend(some);
        Ok(())
    })
    .await?;
    Ok(lines)
}

/// Gives those lines to `take`, some at a time.
async fn each_made_again(
    context: &Context,
    record: &Record,
    at: Option<u64>,
    mut take: impl FnMut(Vec<Line>) -> Result<()> + Send,
) -> Result<()> {
    let meter = match record.own {
        true => of_those_customers(definition_of_then(context, record).await?),
        false => definition(context, record).await?,
    };
    let period = record.range()?;
    // The days of a billing period are those of its own zone, which its bounds alone do not tell.
    let is_billing = BillingPeriod::named(&record.period)?.is_some();
    let of_bounds = |bound: &String| (!is_billing).then(|| bound.clone());
    let request = UsageRequest {
        meters: vec![reference(&meter)],
        window: record.own.then(|| BILLING_PERIOD.to_owned()),
        period: is_billing.then(|| record.period.clone()),
        from: of_bounds(&record.from),
        to: of_bounds(&record.to),
        timezone: Some(record.zone.clone()),
        at,
        // A closing proves something only if it is made of what it counts.
        from_events: true,
        ..UsageRequest::default()
    };
    let context = Context { meters: Arc::new(vec![meter]), ..context.clone() };
    let mut take = |rows: RecordBatch| {
        take(match record.own {
            true => lines_of_period(&rows, period)?,
            false => lines_of(&rows)?,
        })?;
        Ok(true)
    };
    usage(&context, &request, &mut take).await.map(drop)
}

/// The meter with the billing periods that it has, whatever the lake's table says at another version: whose
/// period was closed is a matter of the closing.
fn of_those_customers(mut meter: Meter) -> Meter {
    if let Some(Billing::PerCustomer(billing)) = &mut meter.billing
        && let TablePlace::Lake(name) = &billing.table
    {
        billing.table = TablePlace::File(name.clone());
    }
    meter
}

/// What a closed period would say otherwise of a customer by now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustment {
    /// The customer.
    pub customer: Option<String>,
    /// The line that was closed, if there is one.
    pub closed: Option<Line>,
    /// What it would be now, if anything.
    pub now: Option<Line>,
    /// By how much the value is higher now; nothing counts as 0.
    pub difference: Decimal,
    /// By how much more would be billed, where the meter has a unit.
    pub billable_difference: Option<Decimal>,
}

/// What later events and corrections changed of a closed period, as version `at` of the events says.
///
/// # Errors
/// As [`verify`].
pub async fn adjustments(context: &Context, closing: &Closing, at: u64) -> Result<Vec<Adjustment>> {
    let record = &closing.record;
    let mut of_customers: BTreeMap<Option<String>, [Option<Line>; 2]> = BTreeMap::new();
    let now = made_again(context, record, Some(at)).await?;
    for (side, lines) in [(0, lines(context, closing).await?), (1, now)] {
        for line in lines {
            let customer = line.customer.clone();
            of_customers.entry(customer).or_default()[side] = Some(line);
        }
    }
    // Whoever has no line may be billed for a part of that time by another closing.
    let late = of_customers.iter().filter(|(_, [closed, _])| closed.is_none());
    let late: BTreeSet<Option<String>> = late.map(|(customer, _)| customer.clone()).collect();
    let mut all: Vec<(Option<String>, [Option<Line>; 2])> = Vec::new();
    let elsewhere = closed_elsewhere(context, record, &late).await?;
    for (customer, lines) in of_customers {
        match elsewhere.get(&customer) {
            None => all.push((customer, lines)),
            Some(closed) => {
                let period = bounds(record)?;
                for part in without(period, closed) {
                    let line = line_of(context, record, (&customer, part), at).await?;
                    all.push((customer.clone(), [None, line]));
                }
            }
        }
    }
    let mut found = Vec::new();
    for (customer, [closed, now]) in all {
        let difference = |text: fn(&Line) -> Option<&String>| -> Result<Decimal> {
            Ok(&number(now.as_ref().and_then(text))? - &number(closed.as_ref().and_then(text))?)
        };
        let value = difference(|line| line.value.as_ref())?;
        let billable = match record.unit {
            Some(_) => Some(difference(|line| line.billable.as_ref())?),
            None => None,
        };
        // Events may come and go without changing the number.
        if closed != now {
            found.push(Adjustment {
                customer,
                closed,
                now,
                difference: value,
                billable_difference: billable,
            });
        }
    }
    Ok(found)
}

/// What other closings hold of the time of a closing, in order, of those of some customers without a line in
/// it that were moved to other billing periods.
async fn closed_elsewhere(
    context: &Context,
    record: &Record,
    late: &BTreeSet<Option<String>>,
) -> Result<BTreeMap<Option<String>, Vec<Bounds>>> {
    let mut found: BTreeMap<Option<String>, Vec<Bounds>> = BTreeMap::new();
    if !record.own || late.is_empty() {
        return Ok(found);
    }
    let [from, to] = bounds(record)?;
    for other in list(&context.lake, Some(&record.meter)).await? {
        let period @ [start, end] = bounds(&other.record)?;
        let overlaps = start < to && from < end;
        // By one table nobody has two periods that overlap.
        let is_other = table_key(&other.record) != table_key(record);
        if !other.holds() || !other.record.own || !overlaps || !is_other {
            continue;
        }
        let meter = definition_of_then(context, &other.record).await?;
        let billing = table_of(&meter)?;
        let mut with_line = BTreeSet::new();
        each_lines(context, &other.record, |lines| {
            let customers = lines.into_iter().map(|line| line.customer);
            with_line.extend(customers.filter(|customer| late.contains(customer)));
            Ok(())
        })
        .await?;
        // Of two without a line one has what is late, whichever.
        let order = |record: &Record| (record.closed.at.clone(), record.id.clone());
        let comes_after = order(&other.record) > order(record);
        for customer in late {
            let Some(cycles) = billing.cycles_of(customer.as_deref()) else { continue };
            let has_it = comes_after || with_line.contains(customer);
            if has_it && period != [from, to] && cycles.has_period(period)? {
                found.entry(customer.clone()).or_default().push(period);
            }
        }
    }
    found.values_mut().for_each(|closed| closed.sort());
    Ok(found)
}

/// The line of a customer in a part of a period, if it used something in it.
async fn line_of(
    context: &Context,
    record: &Record,
    (customer, [from, to]): (&Option<String>, Bounds),
    at: u64,
) -> Result<Option<Line>> {
    let meter = of_those_customers(definition_of_then(context, record).await?);
    let request = UsageRequest {
        meters: vec![reference(&meter)],
        from: Some(from.to_string()),
        to: Some(to.to_string()),
        customer: customer.clone(),
        timezone: Some(record.zone.clone()),
        at: Some(at),
        from_events: true,
        ..UsageRequest::default()
    };
    let context = Context { meters: Arc::new(vec![meter]), ..context.clone() };
    let mut found = None;
    let mut take = |rows: RecordBatch| {
        let of_customer = lines_of(&rows)?.into_iter().find(|line| line.customer == *customer);
        found = of_customer.or(found.take());
        Ok(true)
    };
    usage(&context, &request, &mut take).await?;
    Ok(found)
}

fn number(text: Option<&String>) -> Result<Decimal> {
    let Some(text) = text else { return Ok(Decimal::from(0)) };
    text.parse().map_err(|error| {
        Error::corrupt(format!("`{text}` of a closed period is no number")).with_source(error)
    })
}
