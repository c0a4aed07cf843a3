//! Billing periods of customers of their own: a closing for each bounds, and who would be in none.
//!
//! Whose period a closing is, is a matter of the table of customers as it was then. Where the table says
//! otherwise by now, a customer may have got a period that was closed without it, or its next period may
//! not begin where the last one ended: neither is ever closed by itself, so both are told, of the periods
//! that are asked for and the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;

use super::close::{Before, Closed, Terms, closable, close_one, closed_before, what};
use super::line::{Line, lines_of, lines_of_period};
use super::{Closing, Record, definition_of_then, list, store};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::table::Table;
use crate::meter::{Billing, BillingTable, Bundle, Meter};
use crate::time::{BILLING_PERIOD, BillingHistory, BillingPeriod, TimeRange, Timestamp};
use crate::usage::{Context, OwnBounds, UsageRequest, reference, usage, with_tables};

/// How many customers an error names.
const NAMED: usize = 3;

/// Whether what is to be closed are periods that customers have of their own.
///
/// # Errors
/// A period that cannot be read.
pub(super) fn has_own(meter: &Meter, terms: &Terms) -> Result<bool> {
    let is_named = BillingPeriod::named(&terms.period)?.is_some();
    Ok(is_named && matches!(meter.billing, Some(Billing::PerCustomer(_))))
}

/// Closes those of the periods that can be closed by now; what kept others from it comes beside them.
///
/// # Errors
/// None that can be closed by now, and nothing wrong either; a store that cannot be read.
pub(super) async fn close(
    context: &Context,
    (meter, bundle): (&Meter, Option<&Bundle>),
    (request, terms): (&UsageRequest, &Terms),
) -> Result<(Vec<Closed>, Vec<Error>)> {
    let now = context.clock.now();
    let events = context.lake.events.snapshot(terms.at).await?;
    let filled = with_tables(&context.lake, &events, meter).await?;
    let own = request.own_bounds(&filled, now)?;
    let OwnBounds { bounds: periods, mut wrong } = own.unwrap_or_default();
    // Read once: most of them are closed already.
    let known = list(&context.lake, Some(&meter.name)).await?;
    let today = Today { context, meter: &filled, at: events.version };
    let mut all = Vec::new();
    for period in &periods {
        let TimeRange { from: Some(from), to: Some(to) } = *period else { continue };
        let closable = closable(to, terms);
        if now < closable {
            all.push(Closed::Later { from, to, closable });
            continue;
        }
        let request = UsageRequest {
            period: None,
            from: Some(from.to_string()),
            to: Some(to.to_string()),
            window: Some(BILLING_PERIOD.to_owned()),
            ..request.clone()
        };
        let closed = match closed_before(&known, meter, (from, to), true) {
            Ok(Before { record: Some(record), .. }) => Ok(Closed::Before(record)),
            Ok(_) => close_one(context, (meter, bundle), (request, terms), (from, to)).await,
            Err(error) => Err(error),
        };
        match closed {
            Ok(closed) => {
                if let Closed::Before(record) = &closed {
                    // What was closed is told, whatever comes of looking at it again.
                    wrong.extend(today.left_out(record).await.unwrap_or_else(Some));
                }
                all.push(closed);
            }
            // A store that is away is away for the others, too.
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                wrong.push(error);
                return Ok((all, wrong));
            }
            Err(error) => wrong.push(error),
        }
    }
    wrong.extend(today.displaced(&periods).await.unwrap_or_else(|error| vec![error]));
    let later = all.iter().filter_map(|closed| match closed {
        Closed::Later { closable, .. } => Some(*closable),
        Closed::Now(_) | Closed::Before(_) => None,
    });
    let first = later.min();
    let waits = all.iter().all(|closed| matches!(closed, Closed::Later { .. }));
    match (waits && wrong.is_empty(), first) {
        (true, Some(closable)) => Err(Error::invalid(format!(
            "{}: no customer's period can be closed yet, the first from {closable} on (--grace)",
            what(meter, terms)
        ))),
        (true, None) => Err(Error::invalid(format!(
            "{}: no customer has such a billing period",
            what(meter, terms)
        ))),
        (false, _) => Ok((all, wrong)),
    }
}

/// Refuses a closing of customers that have a line in a closed period that overlaps it: their billing
/// periods were changed in between. Without a line in this one they might get it by an adjustment.
///
/// # Errors
/// Conflict, with the first such customer; a file that cannot be read.
pub(super) async fn check_customers(
    table: &Table,
    meter: &Meter,
    record: &Record,
    overlapping: &[Record],
) -> Result<()> {
    for other in overlapping {
        let billing = table_of(meter)?;
        let is_of_this = |customer: Option<&str>| match billing.cycles_of(customer) {
            Some(cycles) => is_period(&cycles, record),
            None => Ok(false),
        };
        let check = |lines: Vec<Line>| {
            for Line { customer, .. } in lines {
                if !is_of_this(customer.as_deref())? {
                    continue;
                }
                return Err(Error::conflict(format!(
                    "meter `{}`: {} has a line in the closed period `{}`, which overlaps its period from \
                     {} to {}: open that one again, or let its next period begin where that ended",
                    record.meter,
                    named(&BTreeSet::from([customer])),
                    other.period,
                    record.from,
                    record.to
                )));
            }
            Ok(())
        };
        store::each_line(table, other, check).await?;
    }
    Ok(())
}

/// A meter whose customers have the billing periods that they have by now.
struct Today<'c> {
    context: &'c Context,
    meter: &'c Meter,
    /// Version of the events.
    at: u64,
}

impl Today<'_> {
    fn billing(&self) -> Result<&BillingTable> {
        table_of(self.meter)
    }

    /// What is wrong with a closed period that is by now of more customers than it was: those that used
    /// something in it are in no closing.
    async fn left_out(&self, record: &Record) -> Result<Option<Error>> {
        let then = definition_of_then(self.context, record).await?;
        let then = table_of(&then)?;
        if is_same(then, self.billing()?) {
            return Ok(None);
        }
        let period = record.range()?;
        let request = UsageRequest {
            from: Some(record.from.clone()),
            to: Some(record.to.clone()),
            window: Some(BILLING_PERIOD.to_owned()),
            ..UsageRequest::default()
        };
        let mut of_now: Vec<Option<String>> = Vec::new();
        self.each(request, |rows| {
            of_now.extend(lines_of_period(rows, period)?.into_iter().map(|line| line.customer));
            Ok(())
        })
        .await?;
        let mut new = BTreeSet::new();
        for customer in of_now {
            let was_its = match then.cycles_of(customer.as_deref()) {
                Some(cycles) => is_period(&cycles, record)?,
                None => false,
            };
            if !was_its {
                new.insert(customer);
            }
        }
        Ok((!new.is_empty()).then(|| {
            let Record { meter, from, to, .. } = record;
            Error::conflict(format!(
                "meter `{meter}`: the period from {from} to {to} was closed before it was that of {}, who \
                 used something in it and has no line: open it again and close it anew (`meterhouse \
                 periods reopen {meter} {from}..{to} --reason \"...\"`)",
                named(&new)
            ))
        }))
    }

    /// What is wrong with customers of whom a closed period ended where none of theirs begins by now: what
    /// they used then is in a period that overlaps the closed one and never can be closed. Those whose
    /// `asked` period that is are refused already.
    async fn displaced(&self, asked: &[TimeRange]) -> Result<Vec<Error>> {
        let now = self.billing()?;
        let mut wrong = Vec::new();
        for (customer, closed) in self.closed_of_changed(asked).await? {
            let Some(cycles) = now.cycles_of(customer.as_deref()) else { continue };
            for [_, end] in &closed {
                let [start, next] = cycles.around(*end)?;
                let period = TimeRange { from: Some(start), to: Some(next) };
                let goes_on = start == *end || closed.iter().any(|[start, _]| start == end)
                    // It had no line in the one before, or this one would have been refused.
                    || closed.contains(&[start, next]);
                if goes_on || asked.contains(&period) {
                    continue;
                }
                let after = closed.iter().map(|[start, _]| *start).filter(|start| start > end);
                let gap = [*end, after.min().map_or(next, |start| start.min(next))];
                if self.used(customer.as_ref(), gap).await? {
                    wrong.push(Error::conflict(format!(
                        "meter `{}`: {} was billed until {end}, and by now has a period from {start} to \
                         {next}, which cannot be closed beside that: what was used from {end} on would be \
                         billed nowhere; keep the former cycle in the billing table and let the new one \
                         hold from a day on (`from`)",
                        self.meter.name,
                        named(&BTreeSet::from([customer.clone()]))
                    )));
                }
            }
        }
        Ok(wrong)
    }

    /// Whether a customer used anything between two instants; of none, anybody without a row.
    async fn used(&self, customer: Option<&String>, [from, to]: [Timestamp; 2]) -> Result<bool> {
        let rows = &self.billing()?.rows;
        let has_row = |line: &Line| {
            line.customer.as_ref().is_some_and(|customer| rows.contains_key(customer))
        };
        let request = UsageRequest {
            from: Some(from.to_string()),
            to: Some(to.to_string()),
            customer: customer.cloned(),
            ..UsageRequest::default()
        };
        let mut used = false;
        self.each(request, |rows| {
            used |= lines_of(rows)?.iter().any(|line| customer.is_some() || !has_row(line));
            Ok(())
        })
        .await?;
        Ok(used)
    }

    /// The bounds of what was closed of every customer whose cycles were others at one of the closings; of
    /// no customer, of those without a row.
    async fn closed_of_changed(
        &self,
        asked: &[TimeRange],
    ) -> Result<BTreeMap<Option<String>, Vec<[Timestamp; 2]>>> {
        let now = self.billing()?;
        // What ended longer ago than the period before these is not looked at.
        let before = asked.iter().filter_map(|period| {
            let (from, to) = (period.from?.micros(), period.to?.micros());
            Some(from.saturating_sub(to.saturating_sub(from)))
        });
        let since = before.min().unwrap_or(i64::MAX);
        let mut records: Vec<Record> = Vec::new();
        for Closing { record, reopened } in list(&self.context.lake, Some(&self.meter.name)).await?
        {
            let [_, end] = bounds(&record)?;
            if reopened.is_none() && record.own && end.micros() >= since {
                records.push(record);
            }
        }
        // Those of one version have one table; it is read once.
        let of_table = |record: &Record| (record.meter_version.clone(), record.lookups.clone());
        records.sort_by_key(of_table);
        let mut changed: BTreeSet<Option<String>> = BTreeSet::new();
        let mut of_records = Vec::new();
        for records in records.chunk_by(|one, other| of_table(one) == of_table(other)) {
            let [first, ..] = records else { continue };
            let then = definition_of_then(self.context, first).await?;
            let others = others(table_of(&then)?, now);
            changed.extend(others.keys().cloned());
            of_records.push((records, others));
        }
        let mut closed: BTreeMap<Option<String>, Vec<[Timestamp; 2]>> = BTreeMap::new();
        for (records, others) in &of_records {
            for customer in &changed {
                let same = || now.cycles_of(customer.as_deref());
                let Some(cycles) = others.get(customer).cloned().unwrap_or_else(same) else {
                    continue;
                };
                for record in *records {
                    if is_period(&cycles, record)? {
                        closed.entry(customer.clone()).or_default().push(bounds(record)?);
                    }
                }
            }
        }
        Ok(closed)
    }

    /// Asks the meter and gives the rows to `take`.
    async fn each(
        &self,
        request: UsageRequest,
        mut take: impl FnMut(&RecordBatch) -> Result<()> + Send,
    ) -> Result<()> {
        let request =
            UsageRequest { meters: vec![reference(self.meter)], at: Some(self.at), ..request };
        let meters = Arc::new(vec![self.meter.clone()]);
        let context = Context { meters, ..self.context.clone() };
        let mut take = |rows: RecordBatch| take(&rows).map(|()| true);
        usage(&context, &request, &mut take).await.map(drop)
    }
}

fn table_of(meter: &Meter) -> Result<&BillingTable> {
    match &meter.billing {
        Some(Billing::PerCustomer(table)) => Ok(table),
        _ => Err(Error::internal("own billing periods of a meter without a table of them")),
    }
}

/// The cycles by `then` of whoever has others by `now`; of no customer, those of whoever has no row.
fn others(
    then: &BillingTable,
    now: &BillingTable,
) -> BTreeMap<Option<String>, Option<BillingHistory>> {
    if is_same(then, now) {
        return BTreeMap::new();
    }
    let with_rows = then.rows.keys().chain(now.rows.keys()).cloned().map(Some);
    let customers: BTreeSet<Option<String>> = with_rows.chain([None]).collect();
    let of_both = customers.into_iter().map(|customer| {
        let [then, now] = [then, now].map(|table| table.cycles_of(customer.as_deref()));
        (customer, then, now)
    });
    of_both
        .filter(|(_, then, now)| then != now)
        .map(|(customer, then, _)| (customer, then))
        .collect()
}

/// Whether all customers have the same cycles by both tables.
fn is_same(one: &BillingTable, other: &BillingTable) -> bool {
    one.rows == other.rows && one.otherwise == other.otherwise
}

/// Whether the bounds of a closing are those of a period of these cycles.
fn is_period(cycles: &BillingHistory, record: &Record) -> Result<bool> {
    let bounds = bounds(record)?;
    Ok(cycles.around(bounds[0])? == bounds)
}

fn bounds(record: &Record) -> Result<[Timestamp; 2]> {
    Ok([super::instant(&record.from)?, super::instant(&record.to)?])
}

/// Some customers, for people.
fn named(customers: &BTreeSet<Option<String>>) -> String {
    let name = |customer: &Option<String>| match customer {
        Some(customer) => format!("`{customer}`"),
        None => "without a row".to_owned(),
    };
    let mut text = customers.iter().take(NAMED).map(name).collect::<Vec<_>>().join(", ");
    if customers.len() > NAMED {
        text.push_str(&format!(" and {} more", customers.len() - NAMED));
    }
    match customers.len() {
        1 => format!("customer {text}"),
        _ => format!("customers {text}"),
    }
}
