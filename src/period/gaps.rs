//! Usage that is in no closed period, and would be in none.
//!
//! Periods follow one another without a gap; closed ones need not, where one was forgotten, or where anchors,
//! zones or the table of customers were changed in between. From the first closing of the meter, or from a
//! later anchor of the customer where customers have periods of their own, up to the period that is asked
//! for, every instant must be in a closed one. Time that is not is told if something was used in it, with
//! what to do about it; so are customers that have no period at all among others that have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;

use super::close::{Terms, closable};
use super::coverage::{Bounds, Class, Customer, bounds, classes, table_of, without};
use super::line::lines_of;
use super::{Closing, Record, list, store};
use crate::error::{Error, Result};
use crate::meter::{Billing, Meter};
use crate::time::{BillingHistory, TimeRange, Timestamp, format_in_zone, parse_zone};
use crate::usage::{Context, UsageRequest, reference, usage, with_tables};

/// How many customers an error names.
const NAMED: usize = 5;

/// Most errors that are told apart.
const TOLD: usize = 10;

/// Most periods of one class that are looked at.
const PERIODS_MAX: usize = 10_000;

/// What is asked for, and how.
struct Asked<'a> {
    context: &'a Context,
    /// The meter, with the table of customers as it is by now.
    meter: &'a Meter,
    terms: &'a Terms,
    /// Version of the events.
    at: u64,
    /// The periods, those of all customers.
    periods: &'a [Bounds],
    /// Whether they are customers' own, and not everybody's.
    own: bool,
    /// The closings that hold, of own periods and of everybody's.
    closings: &'a [Record],
    /// The bounds of those of own periods.
    closed: &'a BTreeSet<Bounds>,
    /// Where the first closing begins: that of the meter, opened again or not; or where the periods are
    /// everybody's, the first of such that holds or had lines before it was opened again.
    first: Option<Timestamp>,
    /// Those of everybody that had no lines and were opened again, which begin nothing.
    undone: &'a [Bounds],
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
    /// A period with these bounds was passed over.
    PassedOver(Bounds),
    /// It is in a period that overlaps what was closed: until this instant before it if at all, the period,
    /// and the first closed one that it overlaps.
    Displaced(Option<Timestamp>, Bounds, Bounds),
    /// It lies between closed periods of everybody, or one of them and what was closed of some customers.
    Between,
    /// It lies between what was closed, and the customers have no periods by now.
    Removed,
    /// The customers have no periods.
    WithoutPeriod,
    /// Nor do these, which is not wrong by itself; but they had some that were closed.
    NoLonger,
}

/// What was used in no closed period.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// What has to be mended.
    pub(super) wrong: Vec<Error>,
    /// What may be meant.
    pub(super) warnings: Vec<String>,
}

/// What was used in no closed period up to those that are asked for, which are customers' own or
/// everybody's, for each time and reason. What has been closed stays so whatever comes of it, which is why
/// errors on the way are told like them.
pub(super) async fn told(
    context: &Context,
    (meter, terms): (&Meter, &Terms),
    periods: (&[TimeRange], bool),
) -> Told {
    let told = find(context, (meter, terms), periods).await;
    told.unwrap_or_else(|error| Told { wrong: vec![error], ..Told::default() })
}

async fn find(
    context: &Context,
    (meter, terms): (&Meter, &Terms),
    (periods, own): (&[TimeRange], bool),
) -> Result<Told> {
    let events = context.lake.events.snapshot(terms.at).await?;
    let (meter, at) = (&with_tables(&context.lake, &events, meter).await?, events.version);
    let closings: Vec<Closing> = list(&context.lake, Some(&meter.name)).await?;
    let table = if own { Some(table_of(meter)?) } else { None };
    let classes = classes(context, table, &closings).await?;
    // One of everybody by mistake, of a time in which nobody used anything, is undone by opening it again.
    let begins = |closing: &&Closing| own || closing.holds() || closing.record.lines > 0;
    let (counting, undone): (Vec<&Closing>, Vec<&Closing>) =
        closings.iter().filter(|closing| own || !closing.record.own).partition(begins);
    let of = |closings: Vec<&Closing>| -> Result<Vec<Bounds>> {
        closings.into_iter().map(|closing| bounds(&closing.record)).collect()
    };
    let first = of(counting)?.into_iter().map(|[start, _]| start).min();
    let undone = &of(undone)?[..];
    let hold = closings.into_iter().filter(Closing::holds);
    let closings: Vec<Record> = hold.map(|closing| closing.record).collect();
    let of_own = closings.iter().filter(|record| record.own);
    let closed: BTreeSet<Bounds> = of_own.map(bounds).collect::<Result<_>>()?;
    let periods = periods.iter().filter_map(|period| Some([period.from?, period.to?]));
    let periods: Vec<Bounds> = periods.collect();
    let (periods, closings, closed) = (&periods[..], &closings[..], &closed);
    let asked = Asked { context, meter, terms, at, periods, own, closings, closed, first, undone };
    told_of_classes(&asked, &classes).await
}

async fn told_of_classes(asked: &Asked<'_>, classes: &[Class]) -> Result<Told> {
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
                    found.entry(gap.clone()).or_default().insert(customer.clone());
                }
            }
        }
    }
    let found = as_they_are(asked, found).await?;
    let (meant, wrong): (BTreeMap<_, _>, BTreeMap<_, _>) =
        found.into_iter().partition(|(gap, _)| gap.why == Why::NoLonger);
    let wrong = texts(asked, &wrong).into_iter().map(Error::conflict).collect();
    Ok(Told { wrong, warnings: texts(asked, &meant) })
}

fn texts(asked: &Asked<'_>, gaps: &BTreeMap<Gap, BTreeSet<Customer>>) -> Vec<String> {
    let told = gaps.iter().take(TOLD).map(|(gap, customers)| told_of(asked, gap, customers));
    let more = gaps.len().saturating_sub(TOLD);
    let name = &asked.meter.name;
    let more = (more > 0).then(|| format!("meter `{name}`: there are {more} more such gaps"));
    told.chain(more).collect()
}

/// The gaps as they are for each customer: what was closed keeps a period that overlaps it from being closed
/// only of those that have a line there.
async fn as_they_are(
    asked: &Asked<'_>,
    gaps: BTreeMap<Gap, BTreeSet<Customer>>,
) -> Result<BTreeMap<Gap, BTreeSet<Customer>>> {
    let mut found: BTreeMap<Gap, BTreeSet<Customer>> = BTreeMap::new();
    for (gap, customers) in gaps {
        let Why::Displaced(_, period, _) = &gap.why else {
            found.entry(gap).or_default().extend(customers);
            continue;
        };
        let beside = with_lines_beside(asked, *period, &customers).await?;
        let (kept, free): (BTreeSet<_>, BTreeSet<_>) =
            customers.into_iter().partition(|customer| beside.contains(customer));
        let is_closed = asked.closed.contains(period);
        let why = if is_closed { Why::ClosedWithout(*period) } else { Why::PassedOver(*period) };
        // What can be closed later, or is just being closed, is no gap.
        let now = asked.context.clock.now();
        let can_be = is_closed || closable(period[1], asked.terms) <= now;
        if !free.is_empty() && can_be && (is_closed || !asked.periods.contains(period)) {
            found.entry(Gap { part: *period, why }).or_default().extend(free);
        }
        if !kept.is_empty() {
            found.insert(gap, kept);
        }
    }
    Ok(found)
}

/// Those of some customers that have a line in a closing that overlaps a period.
async fn with_lines_beside(
    asked: &Asked<'_>,
    period @ [start, end]: Bounds,
    customers: &BTreeSet<Customer>,
) -> Result<BTreeSet<Customer>> {
    let mut found = BTreeSet::new();
    let Some(table) = asked.context.lake.statements().await? else { return Ok(found) };
    for record in asked.closings {
        let [from, to] = bounds(record)?;
        if from < end && start < to && !record.own {
            // Nobody's own period can be closed beside one of the calendar.
            found.extend(customers.iter().cloned());
        } else if from < end && start < to && [from, to] != period {
            store::each_line(&table, record, |lines| {
                let of_lines = lines.into_iter().map(|line| line.customer);
                found.extend(of_lines.filter(|customer| customers.contains(customer)));
                Ok(())
            })
            .await?;
        }
    }
    Ok(found)
}

/// The time of a class that is in no closed period and should be.
fn gaps(asked: &Asked<'_>, class: &Class) -> Result<Vec<Gap>> {
    if !asked.own {
        return Ok(gaps_of_everybody(asked, class));
    }
    let Some(cycles) = &class.cycles else { return gaps_without_periods(asked, class) };
    match first_of(asked, class, cycles)? {
        Some(since) => gaps_between(asked, class, (cycles, since)),
        None => Ok(Vec::new()),
    }
}

/// The time of a class between closed periods of everybody, and its own of former times, up to what is asked
/// for: what comes after it may be closed next.
fn gaps_of_everybody(asked: &Asked<'_>, class: &Class) -> Vec<Gap> {
    let ever = class.ever.map(|[start, _]| start);
    let until = asked.periods.iter().map(|[start, _]| *start).max();
    let since = asked.first.into_iter().chain(ever).min().or(until);
    let (Some(since), Some(until)) = (since, until) else { return Vec::new() };
    let mut parts = without([since, until], &class.closed);
    // Something may have been used in them since.
    parts.extend(asked.undone.iter().filter(|[_, end]| *end <= since.min(until)));
    parts.into_iter().map(|part| Gap { part, why: Why::Between }).collect()
}

/// The time in which a class may have used something without a period: between what was closed, where it
/// had periods before, and from the first closing up to the end of those of others that are asked for and can
/// be closed.
fn gaps_without_periods(asked: &Asked<'_>, class: &Class) -> Result<Vec<Gap>> {
    let parts = |bounds, others: &[Bounds], why: Why| {
        let parts = without(bounds, others).into_iter();
        parts.map(move |part| Gap { part, why: why.clone() }).collect::<Vec<_>>()
    };
    let mut gaps = match class.ever {
        Some(ever) => parts(ever, &class.closed, Why::Removed),
        None => Vec::new(),
    };
    let mut others = class.closed.clone();
    others.extend(class.ever);
    others.sort();
    let first = asked.periods.iter().map(|[start, _]| *start).min();
    // That they are not billed may be meant, but not that some who were have lost their row; of former
    // periods that was told when they were closed.
    let (why, since) = match (table_of(asked.meter)?.others_unbilled, class.ever) {
        (false, _) => (Why::WithoutPeriod, asked.first.into_iter().chain(first).min()),
        (true, Some([_, end])) if !class.customers.contains(&None) => {
            (Why::NoLonger, first.map(|first| first.max(end)))
        }
        (true, _) => return Ok(gaps),
    };
    let now = asked.context.clock.now();
    let ended = asked.periods.iter().filter(|[_, end]| closable(*end, asked.terms) <= now);
    let until = ended.map(|[_, end]| *end).max();
    if let (Some(since), Some(until)) = (since, until) {
        gaps.extend(parts([since, until], &others, why));
    }
    Ok(gaps)
}

/// From when on a class is billed here; `None` where nothing was closed yet. That is the first period that
/// begins neither before its anchor nor before the first closing of the meter, as what was before may have
/// been billed elsewhere; or a closing that was of it, if it begins earlier.
fn first_of(
    asked: &Asked<'_>,
    class: &Class,
    cycles: &BillingHistory,
) -> Result<Option<Timestamp>> {
    let Some(first) = asked.first else { return Ok(None) };
    let not_before = first.max(cycles.anchored()?);
    let [start, end] = cycles.around(not_before)?;
    let of_cycles = if start < not_before { end } else { start };
    let closed = class.closed.first().map(|[start, _]| *start);
    let ever = class.ever.map(|[start, _]| start);
    Ok([Some(of_cycles), closed, ever].into_iter().flatten().min())
}

/// From an instant up to what is asked for: the periods of a class that are not closed.
fn gaps_between(
    asked: &Asked<'_>,
    class: &Class,
    (cycles, since): (&BillingHistory, Timestamp),
) -> Result<Vec<Gap>> {
    let now = asked.context.clock.now();
    let mut own = Vec::new();
    for period in asked.periods {
        if cycles.has_period(*period)? {
            own.push(*period);
        }
    }
    let asked_for = if own.is_empty() { asked.periods } else { own.as_slice() };
    let until = asked_for.iter().map(|[start, _]| *start).max();
    let end_of_walk = until.max(class.closed.last().map(|[_, end]| *end));
    let mut gaps = Vec::new();
    let mut next = cycles.around(since)?;
    for _ in 0..PERIODS_MAX {
        let period @ [start, end] = next;
        next = cycles.around(end)?;
        let is_own = own.contains(&period);
        if Some(start) > end_of_walk || (Some(start) == end_of_walk && !is_own) {
            return Ok(gaps);
        }
        if class.closed.binary_search(&period).is_ok() {
            continue;
        }
        let (is_closed, is_behind) = (asked.closed.contains(&period), Some(end) <= until);
        // In one that is asked for and not closed, somebody was refused just now, or it is later.
        if is_own && !is_closed {
            continue;
        }
        let part = [start.max(since), end.min(now)];
        let overlaps = class.closed.iter().find(|[from, to]| *from < end && start < *to);
        if let Some(beside) = overlaps {
            for part in without(part, &class.closed) {
                let before = class.closed.iter().map(|[_, to]| *to).filter(|to| *to <= part[0]);
                gaps.push(Gap { part, why: Why::Displaced(before.max(), period, *beside) });
            }
        } else if is_closed && (is_own || is_behind) {
            gaps.push(Gap { part, why: Why::ClosedWithout(period) });
        } else if is_behind && closable(end, asked.terms) <= now {
            gaps.push(Gap { part, why: Why::PassedOver(period) });
        }
    }
    Err(Error::invalid(format!(
        "meter `{}`: {} have more than {PERIODS_MAX} billing periods since {since}: close them in parts",
        asked.meter.name,
        match class.customers.contains(&None) {
            true => "customers without a row".to_owned(),
            false => customers_named(&class.customers),
        }
    )))
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
        // What is carried on over time has lines of nothing, too.
        let of_something = lines_of(&rows)?.into_iter().filter(|line| !line.is_of_nothing());
        customers.extend(of_something.map(|line| line.customer));
        Ok(true)
    };
    usage(&context, &request, &mut take).await?;
    Ok(customers)
}

fn told_of(asked: &Asked<'_>, gap: &Gap, customers: &BTreeSet<Customer>) -> String {
    let meter = &asked.meter.name;
    let who = customers_named(customers);
    let (was, has) = if customers.len() == 1 { ("was", "has") } else { ("were", "have") };
    match &gap.why {
        Why::ClosedWithout([from, to]) => format!(
            "meter `{meter}`: the period from {from} to {to} was closed before it was that of {who}, who \
             used something in it and {has} no line: open it again and close it anew (`meterhouse \
             periods reopen {meter} {from}..{to} --reason \"...\"`)"
        ),
        Why::PassedOver([from, to]) => format!(
            "meter `{meter}`: {who} used something from {from} to {to}, a period that was passed over: \
             close it (`meterhouse periods close {from}..{to} {meter}`)"
        ),
        Why::Displaced(end, [from, to], [closed_from, closed_to]) => {
            let [since, until] = gap.part;
            let billed = end.map(|end| format!("{was} billed until {end}, and "));
            format!(
                "meter `{meter}`: {who} {}by now {has} a period from {from} to {to}, which cannot be closed \
                 beside the closed one from {closed_from} to {closed_to}: what was used from {since} to \
                 {until} would be billed nowhere; keep the former cycle in the billing table and let the new \
                 one hold from a day on (`from`; README, \"Closed periods\", for another zone)",
                billed.unwrap_or_default()
            )
        }
        Why::Between => {
            let [from, to] = gap.part;
            let overlaps = |[start, end]: &Bounds| *start < to && from < *end;
            let how = match asked.closed.iter().find(|closed| overlaps(closed)) {
                Some([start, end]) => format!(
                    "others' own period from {start} to {end} is closed beside it, so that it can be closed \
                     only as a period of their own, by a `billing` with a table"
                ),
                None => match first_period(asked, gap.part) {
                    Some(first) => format!(
                        "close the billing periods that it consists of, the first by `meterhouse periods close \
                         {}`",
                        as_of_everybody(asked, first)
                    ),
                    None => format!(
                        "close the periods that it consists of, or all of it as one (`meterhouse periods \
                         close {}`)",
                        as_of_everybody(asked, gap.part)
                    ),
                },
            };
            format!(
                "meter `{meter}`: {who} used something from {from} to {to}, which is in no closed period: {how}"
            )
        }
        Why::WithoutPeriod => {
            let [from, to] = gap.part;
            let how = match customers.iter().all(Option::is_none) {
                true => "give the events a customer, or `billing`",
                false => &format!(
                    "add rows to the table of `billing`, with anchors no later than {from}, or"
                ),
            };
            format!(
                "meter `{meter}`: {who} used something from {from} to {to} and {has} no billing period, so \
                 that it is billed nowhere: {how} an `otherwise` (`none` if whoever has no row is not billed)"
            )
        }
        Why::NoLonger => {
            let [from, to] = gap.part;
            format!(
                "meter `{meter}`: {who} {was} billed before, {has} no row in the table of `billing` by now and \
                 used something from {from} to {to}, which is not billed (`otherwise: none`)"
            )
        }
        Why::Removed => {
            let [from, to] = gap.part;
            format!(
                "meter `{meter}`: {who} used something from {from} to {to}, between what was closed, and by \
                 now {has} no billing period: put the row back into the billing table, or give `billing` an \
                 `otherwise`"
            )
        }
    }
}

/// The billing period that a time begins with, where all customers share theirs and it has more than one.
fn first_period(asked: &Asked<'_>, [from, to]: Bounds) -> Option<Bounds> {
    let Some(Billing::Shared(cycle)) = &asked.meter.billing else { return None };
    let [start, end] = BillingHistory::from(cycle.clone()).around(from).ok()?;
    (start == from && end < to).then_some([start, end])
}

/// Bounds and meter as `periods close` takes them for everybody: in dates, as two instants may be some
/// customers' own period.
fn as_of_everybody(asked: &Asked<'_>, [from, to]: Bounds) -> String {
    let request =
        UsageRequest { timezone: asked.terms.timezone.clone(), ..UsageRequest::default() };
    let zone = request.zone_name(asked.meter);
    let date = |instant: Timestamp| {
        let text = format_in_zone(instant, &parse_zone(zone).ok()?);
        text.split_once("T00:00:00").map(|(date, _)| date.to_owned())
    };
    let name = &asked.meter.name;
    match (date(from).zip(date(to)), &asked.terms.timezone) {
        (Some((from, to)), Some(zone)) => format!("{from}..{to} {name} --tz {zone}"),
        (Some((from, to)), None) => format!("{from}..{to} {name}"),
        (None, _) => format!("{from}..{to} {name}"),
    }
}

/// Some customers, for people.
pub(super) fn customers_named(customers: &BTreeSet<Customer>) -> String {
    let name = |customer: &Customer| match customer {
        Some(customer) => format!("`{customer}`"),
        None => "(none)".to_owned(),
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
