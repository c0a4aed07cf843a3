//! The answer to a question: rows of texts like the CSV of `usage`.

use std::collections::{BTreeMap, BTreeSet};

use bigdecimal::num_bigint::BigInt;
use jiff::tz::TimeZone;

use super::event::Event;
use super::filter::Filter;
use super::meter::{Aggregation, Amount, Fill, Meter, Operand, Question, Unit};
use super::number::{self, DIGITS, Reading, Round, divide, one, ten_to};
use super::series;
use super::window::{self, Window};

/// A row; `None` is null.
pub(crate) type Row = Vec<Option<String>>;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A sum of more than 38 integer digits.
    Overflow,
    /// A quotient without an end, and no rounding.
    Inexact,
    /// An expression whose number has too many digits.
    Digits,
}

/// The rows of all meters of the question, in the order asked.
pub(crate) fn answer(
    events: &[Event],
    meters: &[Meter],
    question: &Question,
) -> Result<Vec<Row>, Refused> {
    let asked: Vec<&Meter> = question
        .meters
        .iter()
        .map(|name| meters.iter().find(|meter| meter.name == *name).unwrap())
        .collect();
    let has_unit = asked.iter().any(|meter| meter.unit.is_some());
    let cut = asked.iter().any(|meter| cuts(meter, question));
    let mut rows = Vec::new();
    for meter in &asked {
        let mut lines = lines(events, meter, question)?;
        if let Some(fill) = question.fill {
            lines = filled(&lines, meter, question, fill);
        }
        for line in lines {
            let mut row = Row::new();
            if asked.len() > 1 {
                row.push(Some(meter.name.clone()));
            }
            row.extend(window_cells(line.window, meter, question, &line.groups, cut));
            row.extend(line.groups);
            row.push(line.value.as_ref().map(|value| number::text(value, DIGITS)));
            if has_unit {
                row.extend(converted(line.value.as_ref(), meter.unit.as_ref())?);
            }
            row.push(Some(line.events.to_string()));
            row.push(Some(line.skipped.to_string()));
            rows.push(row);
        }
    }
    Ok(rows)
}

/// One row before it is written.
#[derive(Clone)]
pub(crate) struct Line {
    /// Start and end; within, none where the customer has no periods.
    pub(crate) window: Option<Around>,
    pub(crate) groups: Vec<Option<String>>,
    pub(crate) value: Amount,
    pub(crate) events: usize,
    pub(crate) skipped: usize,
}

/// Start of the window, then the groups.
type Key = (Option<Option<i64>>, Vec<Option<String>>);

/// Window and texts of an inner result.
type InnerKey = (Option<(i64, i64)>, Vec<Option<String>>);

/// A window, or none where the customer has no periods.
pub(crate) type Around = Option<(i64, i64)>;

/// The zone that the windows of a customer are of, and the days and months within them.
pub(crate) fn zone_of_windows(
    customer: Option<&String>,
    meter: &Meter,
    question: &Question,
) -> TimeZone {
    let cycle = match question.window {
        Some(Window::BillingPeriod) => meter.billing.as_ref().unwrap().of(customer),
        _ => None,
    };
    TimeZone::get(cycle.map_or_else(|| question.zone(meter), |cycle| cycle.zone())).unwrap()
}

/// The window of an instant, as a meter's customer has it.
pub(crate) fn around(
    micros: i64,
    customer: Option<&String>,
    meter: &Meter,
    question: &Question,
) -> Option<Around> {
    let zone = || TimeZone::get(question.zone(meter)).unwrap();
    match question.window? {
        Window::BillingPeriod => {
            let cycle = meter.billing.as_ref().unwrap().of(customer);
            Some(cycle.map(|cycle| cycle.around(micros)))
        }
        window => Some(Some(window.around(micros, &zone()))),
    }
}

/// The range, in microseconds.
pub(crate) fn range(meter: &Meter, question: &Question) -> [Option<i64>; 2] {
    let zone = TimeZone::get(question.zone(meter)).unwrap();
    [&question.from, &question.to].map(|bound| bound.as_ref().map(|bound| bound.micros(&zone)))
}

/// Whether a bound lies within a window that somebody may have.
fn cuts(meter: &Meter, question: &Question) -> bool {
    let zone = TimeZone::get(question.zone(meter)).unwrap();
    let cut = |bound: i64| match question.window {
        None => false,
        Some(Window::BillingPeriod) => {
            let cycles = meter.billing.as_ref().unwrap().cycles(question.customer.as_ref());
            cycles.into_iter().any(|cycle| cycle.around(bound).0 < bound)
        }
        Some(window) => window.around(bound, &zone).0 < bound,
    };
    range(meter, question).into_iter().flatten().any(cut)
}

/// The customer that an event counts for.
pub(crate) fn customer(event: &Event, meter: &Meter) -> Option<String> {
    meter.value(&Operand::Field("customer_id"), event).map(|value| value.text())
}

/// The customer of a row, as far as it can be told.
pub(crate) fn customer_of<'r>(
    question: &'r Question,
    groups: &'r [Option<String>],
) -> Option<&'r String> {
    let place = question.groups.iter().position(|name| name == "customer_id");
    match place {
        Some(place) => groups[place].as_ref(),
        None => question.customer.as_ref(),
    }
}

/// Start, end and, where any window is cut, whether this one is.
fn window_cells(
    window: Option<Around>,
    meter: &Meter,
    question: &Question,
    groups: &[Option<String>],
    any_cut: bool,
) -> Row {
    let Some(window) = window else { return Row::new() };
    let Some((start, end)) = window else { return vec![None; if any_cut { 3 } else { 2 }] };
    let zone = match question.window {
        Some(Window::BillingPeriod) => {
            let customer = customer_of(question, groups);
            meter.billing.as_ref().unwrap().of(customer).unwrap().zone().to_owned()
        }
        _ => question.zone(meter).to_owned(),
    };
    let [from, to] = range(meter, question);
    let shown = [start.max(from.unwrap_or(start)), end.min(to.unwrap_or(end))];
    let mut cells: Row = shown.map(|micros| Some(window::text(micros, &zone))).into();
    if any_cut {
        cells.push(Some((shown != [start, end]).to_string()));
    }
    cells
}

/// The lines of every window and group, one after the other.
fn filled(lines: &[Line], meter: &Meter, question: &Question, fill: Fill) -> Vec<Line> {
    let mut groups: Vec<Vec<Option<String>>> = lines.iter().map(|l| l.groups.clone()).collect();
    if question.groups.is_empty() {
        groups.push(Vec::new());
    }
    groups.sort();
    groups.dedup();
    let windows = || lines.iter().filter_map(|line| line.window.flatten());
    // An open range begins with the first end of a window with events, and ends with the last start.
    let [from, to] = range(meter, question);
    let first_end = windows().map(|(_, end)| end.min(to.unwrap_or(end))).min();
    let last_start = windows().map(|(start, _)| start.max(from.unwrap_or(start))).max();
    let from = from.or(first_end.map(|end| end - 1));
    let to = to.or(last_start.map(|start| start + 1));
    let counts = match &meter.aggregation {
        Aggregation::Count | Aggregation::CountUnique | Aggregation::Active { .. } => true,
        Aggregation::Nested { outer, .. } => **outer == Aggregation::Count,
        _ => false,
    };
    let mut all: Vec<Line> =
        lines.iter().filter(|line| line.window == Some(None)).cloned().collect();
    let mut made = Vec::new();
    for group in groups {
        let (Some(mut at), Some(to)) = (from, to) else { continue };
        let mut last: Amount = None;
        loop {
            let window = around(at, customer_of(question, &group), meter, question).unwrap();
            let Some((start, end)) = window else { break };
            if start >= to {
                break;
            }
            let found = lines.iter().find(|l| l.window == Some(window) && l.groups == group);
            let empty = Line {
                window: Some(window),
                groups: group.clone(),
                value: None,
                events: 0,
                skipped: 0,
            };
            let mut line = found.cloned().unwrap_or(empty);
            if line.value.is_some() {
                last.clone_from(&line.value);
            } else {
                line.value = match fill {
                    _ if counts => Some(BigInt::ZERO),
                    Fill::Zero => Some(BigInt::ZERO),
                    Fill::Null => None,
                    Fill::Previous => last.clone(),
                };
            }
            made.push(line);
            at = end;
        }
    }
    made.sort_by_key(|line| (line.window.flatten().map(|(start, _)| start), line.groups.clone()));
    all.extend(made);
    all
}

fn lines(events: &[Event], meter: &Meter, question: &Question) -> Result<Vec<Line>, Refused> {
    let mut lines = match series::follows(meter) {
        true => series::lines(events, meter, question)?,
        false => lines_of_windows(events, meter, question)?,
    };
    if let Some(top) = question.top {
        // Largest first, none last; the sort is stable, so that ties keep the order of the groups.
        lines.sort_by(|a, b| b.value.cmp(&a.value));
        lines.truncate(top);
    }
    Ok(lines)
}

/// The rows of a meter that each window's own events are enough for.
fn lines_of_windows(
    events: &[Event],
    meter: &Meter,
    question: &Question,
) -> Result<Vec<Line>, Refused> {
    let [from, to] = range(meter, question);
    let mut groups: BTreeMap<Key, (Option<Around>, Vec<&Event>)> = BTreeMap::new();
    if question.groups.is_empty() && question.window.is_none() {
        groups.insert((None, Vec::new()), (None, Vec::new()));
    }
    for event in events {
        let micros = meter.micros(event);
        let in_range = from.is_none_or(|from| micros >= from) && to.is_none_or(|to| micros < to);
        if !in_range || !matches_meter(event, meter) || !asked_of(event, meter, question) {
            continue;
        }
        let customer = customer(event, meter);
        let window = around(micros, customer.as_ref(), meter, question);
        let start = window.map(|window| window.map(|(start, _)| start));
        let texts = question
            .groups
            .iter()
            .map(|name| meter.value(&meter.resolve(name), event).map(|value| value.text()));
        let key = (start, texts.collect());
        groups.entry(key).or_insert((window, Vec::new())).1.push(event);
    }
    let mut lines = Vec::new();
    for ((_, groups), (window, members)) in groups {
        let zone = zone_of_windows(customer_of(question, &groups), meter, question);
        let (value, events) = value_of(meter, &members, &zone)?;
        let skipped = members.len() - events;
        lines.push(Line { window, groups, value, events, skipped });
    }
    Ok(lines)
}

/// Whether the meter is about the event.
pub(crate) fn matches_meter(event: &Event, meter: &Meter) -> bool {
    (meter.events.is_empty() || meter.events.contains(&event.name))
        && meter.filter.as_ref().is_none_or(|filter| filter.holds(event, meter))
}

/// Whether the question is about the event.
pub(crate) fn asked_of(event: &Event, meter: &Meter, question: &Question) -> bool {
    let holds = |filter: &Filter| filter.holds(event, meter);
    question.customer.as_ref().is_none_or(|name| customer(event, meter).as_ref() == Some(name))
        && question.filter.as_ref().is_none_or(holds)
}

/// The value of the events of a window, and how many of them made it.
fn value_of(
    meter: &Meter,
    members: &[&Event],
    zone: &TimeZone,
) -> Result<(Amount, usize), Refused> {
    let Aggregation::Nested { outer, inner, window, per } = &meter.aggregation else {
        return aggregate(meter, members);
    };
    let mut results: BTreeMap<InnerKey, Vec<&Event>> = BTreeMap::new();
    for &event in members {
        let window = window.map(|window| window.around(event.micros, zone));
        let texts = per.iter().map(|of| meter.value(of, event).map(|value| value.text()));
        results.entry((window, texts.collect())).or_default().push(event);
    }
    let inner = Meter { aggregation: inner.as_ref().clone(), ..meter.clone() };
    let (mut numbers, mut events) = (Vec::new(), 0);
    for members in results.values() {
        let (value, counted) = aggregate(&inner, members)?;
        events += counted;
        numbers.extend(value.map(|value| (0, value, one())));
    }
    let value = match outer.as_ref() {
        Aggregation::Count => Some(BigInt::from(numbers.len()) * one()),
        _ if numbers.is_empty() => None,
        outer => Some(combined(outer, &numbers)?),
    };
    Ok((value, events))
}

/// The value of the events, and how many of them made it.
fn aggregate(meter: &Meter, events: &[&Event]) -> Result<(Amount, usize), Refused> {
    let weighed: Vec<(&Event, BigInt)> =
        events.iter().filter_map(|event| Some((*event, meter.weight(event)?))).collect();
    let Some(operand) = &meter.operand else {
        return Ok((Some(weighed.iter().map(|(_, weight)| weight).sum()), weighed.len()));
    };
    let events: Vec<&Event> = weighed.iter().map(|(event, _)| *event).collect();
    if meter.aggregation == Aggregation::CountUnique {
        let texts: Vec<String> =
            events.iter().filter_map(|event| Some(meter.value(operand, event)?.text())).collect();
        let distinct: BTreeSet<&String> = texts.iter().collect();
        return Ok((Some(BigInt::from(distinct.len()) * one()), texts.len()));
    }
    let mut numbers = Vec::new();
    for (event, weight) in &weighed {
        if let Some(number) = meter.number(operand, event)? {
            numbers.push((event.micros, number, weight.clone()));
        }
    }
    if numbers.is_empty() {
        return Ok((None, 0));
    }
    let weighs_nothing = numbers.iter().all(|(_, _, weight)| *weight == BigInt::ZERO);
    if meter.aggregation == Aggregation::Average && weighs_nothing {
        return Ok((None, numbers.len()));
    }
    Ok((Some(combined(&meter.aggregation, &numbers)?), numbers.len()))
}

/// The value of numbers, each with its instant and its weight; there is at least one.
pub(crate) fn combined(
    aggregation: &Aggregation,
    numbers: &[(i64, BigInt, BigInt)],
) -> Result<BigInt, Refused> {
    let values = || numbers.iter().map(|(_, number, _)| number);
    let weighed = || -> Result<BigInt, Refused> {
        let mut sum = BigInt::ZERO;
        for (_, number, weight) in numbers {
            let product = number * weight;
            if &product % one() != BigInt::ZERO || product.magnitude() >= ten_to(114).magnitude() {
                return Err(Refused::Digits);
            }
            sum += product / one();
        }
        match sum.magnitude() >= ten_to(76).magnitude() {
            true => Err(Refused::Overflow),
            false => Ok(sum),
        }
    };
    Ok(match aggregation {
        Aggregation::Count
        | Aggregation::CountUnique
        | Aggregation::TimeWeighted { .. }
        | Aggregation::Active { .. }
        | Aggregation::Reported { .. }
        | Aggregation::Nested { .. } => panic!("not a value of numbers"),
        Aggregation::Sum => {
            let sum = weighed()?;
            if sum.magnitude() >= ten_to(76).magnitude() {
                return Err(Refused::Overflow);
            }
            sum
        }
        Aggregation::Min => values().min().unwrap().clone(),
        Aggregation::Max => values().max().unwrap().clone(),
        Aggregation::Average => {
            let weights: BigInt = numbers.iter().map(|(_, _, weight)| weight).sum();
            // The divisor is in units of 10^-38 too.
            let all = match numbers.iter().all(|(_, _, weight)| *weight == one()) {
                true => values().sum(),
                false => weighed()?,
            };
            divide(&(all * ten_to(12)), &weights, Round::HalfEven) * ten_to(26)
        }
        // Events stand in the order of receipt: of equal times the last one is the latest.
        Aggregation::Latest => numbers.iter().max_by_key(|(micros, ..)| *micros).unwrap().1.clone(),
        Aggregation::Earliest => {
            numbers.iter().min_by_key(|(micros, ..)| *micros).unwrap().1.clone()
        }
        Aggregation::Percentile(thousandths) => {
            // The smallest value with enough values at or below it, by counting them for each.
            let enough = |value: &&BigInt| {
                let below = values().filter(|other| other <= value).count();
                below * 100_000 >= numbers.len() * usize::try_from(*thousandths).unwrap()
            };
            values().filter(enough).min().unwrap().clone()
        }
    })
}

/// The value in the unit, exact and as billed.
fn converted(value: Option<&BigInt>, unit: Option<&Unit>) -> Result<[Option<String>; 2], Refused> {
    let Some(value) = value else { return Ok([None, None]) };
    let Some(unit) = unit else {
        let text = number::text(value, DIGITS);
        return Ok([Some(text.clone()), Some(text)]);
    };
    let Reading::Number(factor) = number::read(&unit.factor) else { panic!("{}", unit.factor) };
    // The quantity is dividend ÷ divisor.
    let (dividend, divisor) = match unit.divides {
        true => (value.clone(), factor),
        false => (value * factor, ten_to(76)),
    };
    let exact_scale = if unit.divides { DIGITS } else { 2 * DIGITS };
    let scaled = &dividend * ten_to(u32::try_from(exact_scale).unwrap());
    let exact = (&scaled % &divisor == BigInt::ZERO)
        .then(|| number::text(&(&scaled / &divisor), exact_scale));
    let shown = exact.clone().unwrap_or_else(|| {
        number::text(&divide(&(&dividend * ten_to(12)), &divisor, Round::HalfEven), 12)
    });
    let billable = match unit.round {
        None => exact.ok_or(Refused::Inexact)?,
        Some((round, precision)) if precision >= 0 => {
            let scale = u32::try_from(precision).unwrap();
            let whole = divide(&(&dividend * ten_to(scale)), &divisor, round);
            number::text(&whole, usize::try_from(precision).unwrap())
        }
        Some((round, precision)) => {
            let step = ten_to(precision.unsigned_abs());
            number::text(&(divide(&dividend, &(&divisor * &step), round) * step), 0)
        }
    };
    Ok([Some(shown), Some(billable)])
}
