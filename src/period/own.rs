//! Billing periods of customers of their own: a closing for each bounds, and who would be in none.

use std::collections::{BTreeMap, BTreeSet};

use super::close::{Before, Closed, ClosedPeriods, Terms, closable, close_one, closed_before};
use super::coverage::{Customer, bounds, is_same, table_key, table_of};
use super::gaps::{self, customers_named};
use super::line::Line;
use super::{Record, definition_of_then, list, store};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::table::Table;
use crate::meter::{Billing, BillingTable, Bundle, Meter};
use crate::time::{BILLING_PERIOD, BillingHistory, BillingPeriod, TimeRange, Timestamp};
use crate::usage::{Context, OwnBounds, UsageRequest, with_tables};

/// The periods that customers have of their own and that are to be closed: those of a name, or the one with
/// the bounds that are written; `None` where it is a period of all customers.
///
/// # Errors
/// A period that cannot be read.
pub(super) async fn periods(
    context: &Context,
    meter: &Meter,
    (request, terms): (&UsageRequest, &Terms),
) -> Result<Option<OwnBounds>> {
    if !matches!(meter.billing, Some(Billing::PerCustomer(_))) {
        return Ok(None);
    }
    let events = context.lake.events.snapshot(terms.at).await?;
    let meter = with_tables(&context.lake, &events, meter).await?;
    let now = context.clock.now();
    if BillingPeriod::named(&terms.period)?.is_some() {
        let table = table_of(&meter)?;
        if table.rows.is_empty() && table.otherwise.is_none() {
            return Err(Error::invalid(format!(
                "meter `{}`: its table of billing periods has no rows, so that nobody can be billed",
                meter.name
            )));
        }
        return request.own_bounds(&meter, now);
    }
    // A day or month is of the calendar, even if somebody's period begins and ends with it.
    let (Some((from, _)), TimeRange { from: Some(start), to: Some(end) }) =
        (terms.period.split_once(".."), request.bounds(&meter, now)?)
    else {
        return Ok(None);
    };
    let table = table_of(&meter)?;
    let rows = table.rows.values().cloned();
    let mut is_own = false;
    if Timestamp::parse_rfc3339(from).is_err() {
        return Ok(None);
    }
    for cycles in rows.chain(table.otherwise.clone().map(BillingHistory::from)) {
        is_own = is_own || cycles.has_period([start, end])?;
    }
    if !is_own {
        return Err(Error::invalid(format!(
            "meter `{}`: nobody has a billing period from {start} to {end} by its table; a period of all \
             customers together is written in dates, such as 2026-05-01..2026-06-01",
            meter.name
        )));
    }
    let bounds = vec![TimeRange { from: Some(start), to: Some(end) }];
    Ok(Some(OwnBounds { bounds, wrong: Vec::new() }))
}

/// Closes those of the periods that can be closed by now; what kept others from it, and customers from
/// being in one, comes beside them.
///
/// # Errors
/// A store that cannot be read, a table of customers that is none.
pub(super) async fn close(
    context: &Context,
    (meter, bundle): (&Meter, Option<&Bundle>),
    (request, terms): (&UsageRequest, &Terms),
    OwnBounds { bounds: periods, wrong }: OwnBounds,
) -> Result<ClosedPeriods> {
    let now = context.clock.now();
    let mut done = ClosedPeriods { wrong, ..ClosedPeriods::default() };
    // Read once: most of them are closed already.
    let known = list(&context.lake, Some(&meter.name)).await?;
    for period in &periods {
        let TimeRange { from: Some(from), to: Some(to) } = *period else { continue };
        let closable = closable(to, terms);
        if now < closable {
            done.closed.push(Closed::Later { from, to, closable });
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
            Ok(closed) => done.closed.push(closed),
            Err(error) => {
                // A store that is away is away for the others, too.
                let is_away = error.kind() == ErrorKind::Unavailable;
                done.wrong.push(error);
                if is_away {
                    return Ok(done);
                }
            }
        }
    }
    let told = gaps::told(context, (meter, terms), (&periods, true)).await;
    done.wrong.extend(told.wrong);
    done.warnings = told.warnings;
    Ok(done)
}

/// Refuses a closing of customers that have a line in a closed period that overlaps it: their billing
/// periods were changed in between. Whoever has none there is billed by this one alone: see
/// [`adjustments`](super::adjustments).
///
/// # Errors
/// Conflict, with the customers; a file that cannot be read.
pub(super) async fn check_customers(
    context: &Context,
    table: &Table,
    (meter, record): (&Meter, &Record),
    overlapping: &[Record],
) -> Result<()> {
    if overlapping.is_empty() {
        return Ok(());
    }
    let (now, period) = (table_of(meter)?, bounds(record)?);
    let is_of_this = |customer: Option<&str>| match now.cycles_of(customer) {
        Some(cycles) => cycles.has_period(period),
        None => Ok(false),
    };
    // By one table nobody has two periods that overlap.
    let mut can_be_in_both: BTreeMap<_, bool> = BTreeMap::new();
    for other in overlapping {
        let of_table = table_key(other);
        let can_be = match can_be_in_both.get(&of_table) {
            Some(can_be) => *can_be,
            None => {
                let then = definition_of_then(context, other).await?;
                let moved = others(table_of(&then)?, now);
                let mut can_be = false;
                for customer in moved {
                    can_be |= is_of_this(customer.as_deref())?;
                }
                can_be_in_both.insert(of_table, can_be);
                can_be
            }
        };
        if !can_be {
            continue;
        }
        let mut in_both = BTreeSet::new();
        store::each_line(table, other, |lines| {
            for Line { customer, .. } in lines {
                if is_of_this(customer.as_deref())? {
                    in_both.insert(customer);
                }
            }
            Ok(())
        })
        .await?;
        if !in_both.is_empty() {
            let Record { meter, from, to, .. } = record;
            let (has, its) = if in_both.len() == 1 { ("has", "its") } else { ("have", "their") };
            return Err(Error::conflict(format!(
                "meter `{meter}`: {} {has} a line in the closed period `{}`, which overlaps {its} period \
                 from {from} to {to}: open that one again, or let {its} next period begin where that \
                 ended",
                customers_named(&in_both),
                other.period,
            )));
        }
    }
    Ok(())
}

/// Who has other cycles by `then` than by `now`; nobody stands for whoever has no row.
fn others(then: &BillingTable, now: &BillingTable) -> BTreeSet<Customer> {
    if is_same(then, now) {
        return BTreeSet::new();
    }
    let with_rows = then.rows.keys().chain(now.rows.keys()).map(Some);
    let customers: BTreeSet<Option<&String>> = with_rows.chain([None]).collect();
    let moved = customers.into_iter().filter(|customer| {
        let customer = customer.map(String::as_str);
        then.cycles_of(customer) != now.cycles_of(customer)
    });
    moved.map(Option::<&String>::cloned).collect()
}
