//! Usage of customers with billing periods of their own that is in no closed period, and would be in none.
//!
//! A customer's periods follow one another without a gap; its closed ones need not, where the table of
//! customers was changed in between or a period was forgotten. From the first closing that was of a
//! customer up to the period that is asked for, every period must be closed. One that is not is told if
//! something was used in it, with what to do about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;

use super::close::{Terms, closable};
use super::coverage::{Bounds, Class, Customer, bounds, is_period, without};
use super::line::lines_of;
use super::{Record, store};
use crate::error::{Error, Result};
use crate::meter::Meter;
use crate::time::{BillingHistory, Timestamp, format_in_zone, parse_zone};
use crate::usage::{Context, UsageRequest, reference, usage};

/// How many customers an error names.
const NAMED: usize = 3;

/// Most errors that are told apart.
const TOLD: usize = 10;

/// Most periods of one class that are looked at.
const PERIODS_MAX: usize = 10_000;

/// What is asked for, and how.
pub(super) struct Asked<'a> {
    pub(super) context: &'a Context,
    /// The meter, with the table of customers as it is by now.
    pub(super) meter: &'a Meter,
    pub(super) terms: &'a Terms,
    /// Version of the events.
    pub(super) at: u64,
    /// The periods, those of all customers.
    pub(super) periods: &'a [Bounds],
    /// The closings of own periods that hold.
    pub(super) closings: &'a [Record],
    /// Their bounds.
    pub(super) closed: &'a BTreeSet<Bounds>,
}

/// Time that is in no closed period.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Gap {
    part: Bounds,
    why: Why,
}

/// How time came to be in no closed period.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    /// The period with these bounds was closed before it was that of some customers.
    ClosedWithout(Bounds),
    /// A period was passed over, which a day of it names.
    PassedOver(Bounds, String),
    /// It is in a period that overlaps what was closed, until this instant before it.
    Displaced(Timestamp, Bounds, String),
    /// The customers have no periods by now, and were billed until this instant.
    Removed(Timestamp),
}

/// What is wrong with those of the classes that used something in time that is in no closed period.
///
/// # Errors
/// As [`usage`].
pub(super) async fn told(asked: &Asked<'_>, classes: &[Class]) -> Result<Vec<Error>> {
    let mut of_gaps: BTreeMap<Gap, BTreeSet<&Customer>> = BTreeMap::new();
    for class in classes {
        for gap in gaps(asked, class)? {
            of_gaps.entry(gap).or_default().extend(&class.customers);
        }
    }
    let with_rows: BTreeSet<&Customer> =
        classes.iter().flat_map(|class| &class.customers).filter(|name| name.is_some()).collect();
    let mut found: BTreeMap<Gap, BTreeSet<Customer>> = BTreeMap::new();
    let of_part = |(a, _): &(Gap, BTreeSet<&Customer>), (b, _): &(Gap, _)| a.part == b.part;
    let of_gaps: Vec<(Gap, BTreeSet<&Customer>)> = of_gaps.into_iter().collect();
    for same in of_gaps.chunk_by(of_part) {
        let [(first, customers), others @ ..] = same else { continue };
        let one = match customers.first() {
            Some(Some(customer)) if customers.len() == 1 && others.is_empty() => Some(customer),
            _ => None,
        };
        for customer in used(asked, first.part, one).await? {
            let known = if with_rows.contains(&customer) { &customer } else { &None };
            for (gap, customers) in same {
                if customers.contains(known) {
                    let gap = of_customer(asked, gap, &customer).await?;
                    found.entry(gap).or_default().insert(customer.clone());
                }
            }
        }
    }
    let name = &asked.meter.name;
    let told = found.iter().take(TOLD).map(|(gap, customers)| told_of(name, gap, customers));
    let mut told: Vec<Error> = told.collect();
    if found.len() > TOLD {
        let more = found.len() - TOLD;
        told.push(Error::conflict(format!("meter `{name}`: there are {more} more such gaps")));
    }
    Ok(told)
}

/// The gap as it is for one of its customers: what was closed keeps a period that overlaps it from being
/// closed only of those that have a line there.
async fn of_customer(asked: &Asked<'_>, gap: &Gap, customer: &Customer) -> Result<Gap> {
    let Why::Displaced(_, period @ [start, end], day) = &gap.why else { return Ok(gap.clone()) };
    let table = asked.context.lake.statements().await?;
    for record in asked.closings {
        let [from, to] = bounds(record)?;
        let overlaps = from < *end && *start < to && [from, to] != *period;
        if let (true, Some(table)) = (overlaps, &table) {
            let mut has_line = false;
            store::each_line(table, record, |lines| {
                has_line |= lines.iter().any(|line| line.customer == *customer);
                Ok(())
            })
            .await?;
            if has_line {
                return Ok(gap.clone());
            }
        }
    }
    let why = match asked.closed.contains(period) {
        true => Why::ClosedWithout(*period),
        false => Why::PassedOver(*period, day.clone()),
    };
    Ok(Gap { part: *period, why })
}

fn gaps(asked: &Asked<'_>, class: &Class) -> Result<Vec<Gap>> {
    let now = asked.context.clock.now();
    let last = class.closed.iter().map(|[_, end]| *end).max();
    let Some(cycles) = &class.cycles else {
        let ended = asked.periods.iter().map(|[_, end]| *end).max();
        let part = last.zip(ended).map(|(last, ended)| [last, ended.min(now)]);
        let part = part.filter(|[from, to]| from < to);
        return Ok(part.map(|part| Gap { part, why: Why::Removed(part[0]) }).into_iter().collect());
    };
    let mut own = Vec::new();
    for period in asked.periods {
        if is_period(cycles, *period)? {
            own.push(*period);
        }
    }
    let is_closed = |period: &Bounds| class.closed.contains(period);
    let without_them = |period: &Bounds| asked.closed.contains(period) && !is_closed(period);
    let closed_without = |part: Bounds| Gap { part, why: Why::ClosedWithout(part) };
    let Some(since) = class.since else {
        // Who was billed never before begins with what is asked for.
        let before = own.into_iter().filter(without_them);
        return Ok(before.map(closed_without).collect());
    };
    let until = own.iter().chain(if own.is_empty() { asked.periods } else { &[] });
    let until = until.map(|[start, _]| *start).max();
    let mut gaps = Vec::new();
    let mut at = cycles.around(since)?;
    for _ in 0..PERIODS_MAX {
        let period @ [start, end] = at;
        if Some(start) >= until.max(last) {
            break;
        }
        let overlaps = class.closed.iter().any(|[from, to]| *from < end && start < *to);
        let is_own = own.contains(&period);
        if without_them(&period) && !overlaps && (is_own || Some(start) < until) {
            gaps.push(closed_without(period));
        } else if !overlaps {
            // In one that is asked for and not closed, somebody was refused just now, or it is later.
            if !is_own && Some(start) < until && closable(end, asked.terms) <= now {
                let why = Why::PassedOver(period, day_in(cycles, period)?);
                gaps.push(Gap { part: [start.max(since), end], why });
            }
        } else if !is_closed(&period) && (!is_own || without_them(&period)) {
            for part in without([start.max(since), end.min(now)], &class.closed) {
                let before = class.closed.iter().map(|[_, to]| *to).filter(|to| *to <= part[0]);
                let before = before.max().unwrap_or(since);
                let why = Why::Displaced(before, period, day_in(cycles, period)?);
                gaps.push(Gap { part, why });
            }
        }
        at = cycles.around(end)?;
    }
    // The last one that is asked for lies where the walk ends.
    let last = own.into_iter().filter(|period| Some(period[0]) >= until.max(last));
    gaps.extend(last.filter(without_them).map(closed_without));
    Ok(gaps)
}

/// A day that lies in a period, in its own zone.
fn day_in(cycles: &BillingHistory, [start, end]: Bounds) -> Result<String> {
    let middle = start.micros().midpoint(end.micros());
    let text = format_in_zone(Timestamp::from_micros(middle), &parse_zone(cycles.zone())?);
    Ok(text.get(..10).unwrap_or_default().to_owned())
}

/// Who used something between two instants, perhaps of one customer alone.
async fn used(
    asked: &Asked<'_>,
    [from, to]: Bounds,
    customer: Option<&String>,
) -> Result<BTreeSet<Customer>> {
    let request = UsageRequest {
        meters: vec![reference(asked.meter)],
        from: Some(from.to_string()),
        to: Some(to.to_string()),
        customer: customer.cloned(),
        at: Some(asked.at),
        ..UsageRequest::default()
    };
    let meters = Arc::new(vec![asked.meter.clone()]);
    let context = Context { meters, ..asked.context.clone() };
    let mut customers = BTreeSet::new();
    let mut take = |rows: RecordBatch| {
        customers.extend(lines_of(&rows)?.into_iter().map(|line| line.customer));
        Ok(true)
    };
    usage(&context, &request, &mut take).await?;
    Ok(customers)
}

fn told_of(meter: &str, gap: &Gap, customers: &BTreeSet<Customer>) -> Error {
    let who = named(customers);
    let (was, has) = if customers.len() == 1 { ("was", "has") } else { ("were", "have") };
    Error::conflict(match &gap.why {
        Why::ClosedWithout([from, to]) => format!(
            "meter `{meter}`: the period from {from} to {to} was closed before it was that of {who}, who \
             used something in it and {has} no line: open it again and close it anew (`meterhouse \
             periods reopen {meter} {from}..{to} --reason \"...\"`)"
        ),
        Why::PassedOver([from, to], day) => format!(
            "meter `{meter}`: {who} used something from {from} to {to}, a period that was not closed and \
             lies behind others that were: close it (`meterhouse periods close billing:{day} {meter}`)"
        ),
        Why::Displaced(end, [from, to], _) => {
            let [since, _] = gap.part;
            format!(
                "meter `{meter}`: {who} {was} billed until {end}, and by now {has} a period from {from} to \
                 {to}, which cannot be closed beside that: what was used from {since} on would be billed \
                 nowhere; keep the former cycle in the billing table and let the new one hold from a day \
                 on (`from`)"
            )
        }
        Why::Removed(end) => format!(
            "meter `{meter}`: {who} {was} billed until {end}, used something since, and by now {has} no \
             billing period: put the row back into the billing table, or give `billing` an `otherwise`"
        ),
    })
}

/// Some customers, for people.
pub(super) fn named(customers: &BTreeSet<Customer>) -> String {
    let name = |customer: &Customer| match customer {
        Some(customer) => format!("`{customer}`"),
        None => "that is nobody".to_owned(),
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
