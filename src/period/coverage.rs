//! Which time of customers with billing periods of their own is in closed periods.
//!
//! Whose period a closing is, is a matter of the table of customers as it was then. Customers that had the
//! same cycles at every closing, and have the same by now, have the same time closed: they are a class.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Closing, Record, definition_of_then};
use crate::error::{Error, Result};
use crate::meter::{Billing, BillingTable, Meter};
use crate::time::{BillingCycle, BillingHistory, Timestamp};
use crate::usage::Context;

/// From the first instant to the end, exclusive.
pub(super) type Bounds = [Timestamp; 2];

/// A customer; `None` stands for all who have no row in any table, and for usage of no customer.
pub(super) type Customer = Option<String>;

/// Customers of whom the same time is closed and the same periods are by now.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) customers: BTreeSet<Customer>,
    /// Their cycles by now, if they have any.
    pub(super) cycles: Option<BillingHistory>,
    /// What is closed of them, in order.
    pub(super) closed: Vec<Bounds>,
    /// From the beginning of the first closing of a period of their own to the end of the last one, opened
    /// again since or not.
    pub(super) ever: Option<Bounds>,
}

/// All customers of `now`, the table by which periods are closed where customers have their own, and of the
/// tables of the closings, by class.
///
/// # Errors
/// A definition or table that a closing was made by and that is gone.
pub(super) async fn classes(
    context: &Context,
    now: Option<&BillingTable>,
    closings: &[Closing],
) -> Result<Vec<Class>> {
    let mut folded = Folded::default();
    match now {
        Some(table) => folded.add(&table.rows, table.otherwise.as_ref()),
        None => folded.add(&BTreeMap::new(), None),
    };
    // With the place of the table that it was made by; one table is read at a time.
    let mut records: Vec<(&Closing, Bounds, usize)> = Vec::new();
    let mut places = BTreeMap::new();
    for closing in closings.iter().filter(|closing| closing.record.own) {
        let place = match places.get(&table_key(&closing.record)) {
            Some(place) => *place,
            None => {
                let then = definition_of_then(context, &closing.record).await?;
                let table = table_of(&then)?;
                let place = folded.add(&table.rows, table.otherwise.as_ref());
                places.insert(table_key(&closing.record), place);
                place
            }
        };
        records.push((closing, bounds(&closing.record)?, place));
    }
    // A period of the calendar is everybody's.
    let shared = closings.iter().filter(|closing| !closing.record.own && closing.holds());
    let shared: BTreeSet<Bounds> =
        shared.map(|closing| bounds(&closing.record)).collect::<Result<_>>()?;
    let mut classes = Vec::new();
    for (cycles, customers) in folded.classes() {
        let (mut closed, mut ever) = (shared.clone(), None::<Bounds>);
        for (closing, bounds @ [from, to], place) in &records {
            let Some(cycles) = cycles.get(*place).copied().flatten() else { continue };
            if !cycles.has_period(*bounds)? {
                continue;
            }
            let [first, last] = ever.unwrap_or(*bounds);
            ever = Some([first.min(*from), last.max(*to)]);
            if closing.holds() {
                closed.insert(*bounds);
            }
        }
        let cycles = cycles.first().copied().flatten().cloned();
        classes.push(Class { customers, cycles, closed: closed.into_iter().collect(), ever });
    }
    Ok(classes)
}

/// The cycles of customers by several tables, of which none is held.
#[derive(Default)]
struct Folded {
    /// Each history of cycles that occurs, once.
    histories: HashMap<Option<BillingHistory>, usize>,
    /// Each combination of them that occurs: the one by the tables before, and the history by the last.
    steps: Vec<(Option<usize>, usize)>,
    known_steps: HashMap<(Option<usize>, usize), usize>,
    /// The last step of each customer that has a row in any of the tables.
    customers: BTreeMap<String, usize>,
    /// That of whoever has none.
    nobody: Option<usize>,
    tables: usize,
}

impl Folded {
    /// Adds a table; says which it is.
    fn add(
        &mut self,
        rows_by_name: &BTreeMap<String, BillingHistory>,
        otherwise: Option<&BillingCycle>,
    ) -> usize {
        let otherwise = otherwise.cloned().map(BillingHistory::from);
        let nobody = self.nobody;
        for name in rows_by_name.keys() {
            // By the tables so far it was nobody.
            if let (None, Some(nobody)) = (self.customers.get(name), nobody) {
                self.customers.insert(name.clone(), nobody);
            }
        }
        let otherwise = self.history(&otherwise);
        let mut rows: BTreeMap<&String, usize> = BTreeMap::new();
        for (name, cycles) in rows_by_name {
            rows.insert(name, self.history(&Some(cycles.clone())));
        }
        let mut customers = std::mem::take(&mut self.customers);
        for name in rows_by_name.keys().filter(|_| nobody.is_none()) {
            customers.insert(name.clone(), usize::MAX);
        }
        for (name, step) in &mut customers {
            let history = rows.get(name).copied().unwrap_or(otherwise);
            *step = self.step((nobody.map(|_| *step), history));
        }
        self.customers = customers;
        self.nobody = Some(self.step((nobody, otherwise)));
        self.tables += 1;
        self.tables - 1
    }

    fn history(&mut self, cycles: &Option<BillingHistory>) -> usize {
        let next = self.histories.len();
        match self.histories.get(cycles) {
            Some(known) => *known,
            None => *self.histories.entry(cycles.clone()).or_insert(next),
        }
    }

    fn step(&mut self, step: (Option<usize>, usize)) -> usize {
        let next = self.steps.len();
        *self.known_steps.entry(step).or_insert_with(|| {
            self.steps.push(step);
            next
        })
    }

    /// The customers by the cycles that they have in each of the tables.
    fn classes(&self) -> Vec<(Vec<Option<&BillingHistory>>, BTreeSet<Customer>)> {
        let mut of_steps: BTreeMap<usize, BTreeSet<Customer>> = BTreeMap::new();
        for (name, step) in &self.customers {
            of_steps.entry(*step).or_default().insert(Some(name.clone()));
        }
        if let Some(nobody) = self.nobody {
            of_steps.entry(nobody).or_default().insert(None);
        }
        let by_place: HashMap<usize, Option<&BillingHistory>> =
            self.histories.iter().map(|(cycles, place)| (*place, cycles.as_ref())).collect();
        let cycles = |step: usize| {
            let (mut cycles, mut at) = (Vec::with_capacity(self.tables), Some(step));
            while let Some((before, history)) = at.and_then(|at| self.steps.get(at)) {
                cycles.push(by_place.get(history).copied().flatten());
                at = *before;
            }
            cycles.reverse();
            cycles
        };
        of_steps.into_iter().map(|(step, customers)| (cycles(step), customers)).collect()
    }
}

/// What decides which table a closing was made by.
pub(super) fn table_key(record: &Record) -> (&str, &BTreeMap<String, i64>) {
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
    use std::sync::Arc;

    use super::*;
    use crate::meter::{Given, TablePlace};
    use crate::time::Cycle;

    fn cycle(anchor: &str) -> BillingCycle {
        let (anchor, cycle) = (anchor.parse().unwrap(), "monthly".parse().unwrap());
        BillingCycle { anchor, cycle, zone: "UTC".to_owned() }
    }

    #[test]
    fn customers_with_the_same_cycles_by_every_table_are_a_class() {
        let table = |rows: &[(&str, &str)], otherwise: Option<&str>| BillingTable {
            rows: Arc::new(
                rows.iter()
                    .map(|(name, anchor)| ((*name).to_owned(), cycle(anchor).into()))
                    .collect(),
            ),
            otherwise: otherwise.map(cycle),
            others_unbilled: false,
            table: TablePlace::File("t".to_owned()),
            number: None,
            key: "customer".to_owned(),
            anchor: "since".to_owned(),
            from: None,
            cycle: Given::Always(Cycle::MONTHLY),
            timezone: Given::Always("UTC".to_owned()),
        };
        let tables = [
            table(&[("a", "2026-01-01"), ("b", "2026-01-01"), ("c", "2026-01-05")], None),
            table(&[("a", "2026-01-01"), ("b", "2026-01-01")], Some("2026-01-09")),
            table(&[("b", "2026-01-01"), ("d", "2026-01-09")], Some("2026-01-09")),
        ];
        let mut folded = Folded::default();
        let add = |table: &BillingTable| folded.add(&table.rows, table.otherwise.as_ref());
        let places: Vec<usize> = tables.iter().map(add).collect();
        assert_eq!(places, [0, 1, 2]);
        let mut named = BTreeSet::new();
        for (cycles, customers) in folded.classes() {
            for customer in customers {
                let want = tables.iter().map(|table| table.cycles_of(customer.as_deref()));
                let got: Vec<_> = cycles.iter().map(|cycles| cycles.cloned()).collect();
                assert_eq!(got, want.collect::<Vec<_>>(), "{customer:?}");
                named.insert(customer);
            }
        }
        let all = ["a", "b", "c", "d"].map(|name| Some(name.to_owned()));
        assert_eq!(named, all.into_iter().chain([None]).collect());
        // `d` has a row that says what holds for everybody: it is a class with them.
        assert_eq!(folded.classes().len(), 4);
    }

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
