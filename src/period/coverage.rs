//! Which time of customers with billing periods of their own is in closed periods.
//!
//! Whose period a closing is, is a matter of the table of customers as it was then. Customers that had the
//! same cycles at every closing, and have the same by now, have the same time closed: they are a class.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Closing, Record, definition_of_then};
use crate::error::{Error, Result};
use crate::meter::{Billing, BillingTable, Meter};
use crate::time::{BillingHistory, Timestamp};
use crate::usage::Context;

/// From the first instant to the end, exclusive.
pub(super) type Bounds = [Timestamp; 2];

/// A customer; nobody stands for all who have no row in any table, also for usage of no customer.
pub(super) type Customer = Option<String>;

/// Customers of whom the same time is closed and the same periods are by now.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) customers: BTreeSet<Customer>,
    /// Their cycles by now, if they have any.
    pub(super) cycles: Option<BillingHistory>,
    /// What is closed of them, in order.
    pub(super) closed: Vec<Bounds>,
    /// Where the first closing began that was of them, opened again since or not.
    pub(super) since: Option<Timestamp>,
}

/// All customers of `now`, and of the tables of the closings, by class.
///
/// # Errors
/// A definition or table that a closing was made by and that is gone.
pub(super) async fn classes(
    context: &Context,
    now: &BillingTable,
    closings: &[Closing],
) -> Result<Vec<Class>> {
    let mut tables = vec![now.clone()];
    // With the place of the table that it was made by.
    let mut records: Vec<(&Closing, usize)> = Vec::new();
    let mut places = BTreeMap::new();
    for closing in closings.iter().filter(|closing| closing.record.own) {
        let place = match places.get(&table_key(&closing.record)) {
            Some(place) => *place,
            None => {
                let then = definition_of_then(context, &closing.record).await?;
                let then = table_of(&then)?;
                let known = tables.iter().position(|table| is_same(table, then));
                let place = known.unwrap_or(tables.len());
                if known.is_none() {
                    tables.push(then.clone());
                }
                places.insert(table_key(&closing.record), place);
                place
            }
        };
        records.push((closing, place));
    }
    let mut classes = Vec::new();
    for (cycles, customers) in by_cycles(&tables) {
        let (mut closed, mut since) = (BTreeSet::new(), None::<Timestamp>);
        for (closing, place) in &records {
            let Some(cycles) = cycles.get(*place).and_then(Option::as_ref) else { continue };
            let bounds = bounds(&closing.record)?;
            if !is_period(cycles, bounds)? {
                continue;
            }
            since = Some(since.map_or(bounds[0], |since| since.min(bounds[0])));
            if closing.holds() {
                closed.insert(bounds);
            }
        }
        let cycles = cycles.into_iter().next().flatten();
        classes.push(Class { customers, cycles, closed: closed.into_iter().collect(), since });
    }
    Ok(classes)
}

/// The customers by the cycles that they have in each of the tables.
fn by_cycles(tables: &[BillingTable]) -> HashMap<Vec<Option<BillingHistory>>, BTreeSet<Customer>> {
    let with_rows = tables.iter().flat_map(|table| table.rows.keys());
    let customers: BTreeSet<Option<&String>> = with_rows.map(Some).chain([None]).collect();
    let mut classes: HashMap<_, BTreeSet<Customer>> = HashMap::new();
    for customer in customers {
        let cycles = tables.iter().map(|table| table.cycles_of(customer.map(String::as_str)));
        classes.entry(cycles.collect()).or_default().insert(customer.cloned());
    }
    classes
}

/// What decides which table a closing was made by.
fn table_key(record: &Record) -> (&str, &BTreeMap<String, i64>) {
    (&record.meter_version, &record.lookups)
}

/// The table of customers of a meter that has one.
///
/// # Errors
/// A defect of ours.
pub(super) fn table_of(meter: &Meter) -> Result<&BillingTable> {
    match &meter.billing {
        Some(Billing::PerCustomer(table)) => Ok(table),
        _ => Err(Error::internal("own billing periods of a meter without a table of them")),
    }
}

/// Whether all customers have the same cycles by both tables.
pub(super) fn is_same(one: &BillingTable, other: &BillingTable) -> bool {
    one.rows == other.rows && one.otherwise == other.otherwise
}

/// Whether a period of these cycles has these bounds.
///
/// # Errors
/// As [`BillingHistory::around`].
pub(super) fn is_period(cycles: &BillingHistory, bounds: Bounds) -> Result<bool> {
    Ok(cycles.around(bounds[0])? == bounds)
}

/// The bounds of a closing.
///
/// # Errors
/// A damaged record.
pub(super) fn bounds(record: &Record) -> Result<Bounds> {
    Ok([super::instant(&record.from)?, super::instant(&record.to)?])
}

/// The parts of some bounds that are in none of others, which come in order.
pub(super) fn without([from, to]: Bounds, others: &[Bounds]) -> Vec<Bounds> {
    let (mut parts, mut start) = (Vec::new(), from);
    for [other_from, other_to] in others {
        if *other_to <= start || to <= *other_from {
            continue;
        }
        if start < *other_from {
            parts.push([start, *other_from]);
        }
        start = start.max(*other_to);
    }
    if start < to {
        parts.push([start, to]);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_no_other_bounds_is_left() {
        let of = |bounds: &[[i64; 2]]| -> Vec<Bounds> {
            bounds.iter().map(|bounds| bounds.map(Timestamp::from_micros)).collect()
        };
        for (others, want) in [
            (&[][..], &[[10, 20]][..]),
            (&[[10, 20]], &[]),
            (&[[0, 30]], &[]),
            (&[[0, 10], [20, 30]], &[[10, 20]]),
            (&[[5, 12], [14, 15], [19, 25]], &[[12, 14], [15, 19]]),
            (&[[5, 15], [7, 12], [13, 16]], &[[16, 20]]),
        ] {
            let [whole] = of(&[[10, 20]])[..] else { unreachable!() };
            assert_eq!(without(whole, &of(others)), of(want), "{others:?}");
        }
    }
}
