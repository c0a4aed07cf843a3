//! The answer to a question: rows of texts like the CSV of `usage`.

use std::collections::{BTreeMap, BTreeSet};

use bigdecimal::num_bigint::BigInt;
use jiff::tz::TimeZone;

use super::event::Event;
use super::filter::Filter;
use super::meter::{Aggregation, Amount, Meter, Question, Unit};
use super::number::{self, DIGITS, Reading, Round, divide, one, ten_to};
use super::window;

/// A row; `None` is null.
pub(crate) type Row = Vec<Option<String>>;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A sum of more than 38 integer digits.
    Overflow,
    /// A quotient without an end, and no rounding.
    Inexact,
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
    let mut rows = Vec::new();
    for meter in &asked {
        for line in lines(events, meter, question)? {
            let mut row = Row::new();
            if asked.len() > 1 {
                row.push(Some(meter.name.clone()));
            }
            row.extend(line.window.into_iter().flatten().map(Some));
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
struct Line {
    window: Option<[String; 2]>,
    groups: Vec<Option<String>>,
    value: Amount,
    events: usize,
    skipped: usize,
}

/// Start and end of the window, then the groups.
type Key = (Option<(i64, i64)>, Vec<Option<String>>);

fn lines(events: &[Event], meter: &Meter, question: &Question) -> Result<Vec<Line>, Refused> {
    let zone_name = question.zone(meter);
    let zone = TimeZone::get(zone_name).unwrap();
    let from = question.from.as_ref().map(|bound| bound.micros(&zone));
    let to = question.to.as_ref().map(|bound| bound.micros(&zone));
    let mut groups: BTreeMap<Key, Vec<&Event>> = BTreeMap::new();
    if question.groups.is_empty() && question.window.is_none() {
        groups.insert((None, Vec::new()), Vec::new());
    }
    for event in events {
        let in_range =
            from.is_none_or(|from| event.micros >= from) && to.is_none_or(|to| event.micros < to);
        if !in_range || !matches(event, meter, question) {
            continue;
        }
        let window = question.window.map(|window| window.around(event.micros, &zone));
        let texts = question
            .groups
            .iter()
            .map(|name| meter.value(&meter.resolve(name), event).map(|value| value.text()));
        groups.entry((window, texts.collect())).or_default().push(event);
    }
    let mut lines = Vec::new();
    for ((window, groups), members) in groups {
        let (value, events) = aggregate(meter, &members)?;
        let cut = window.map(|(start, end)| {
            let start = from.map_or(start, |from| start.max(from));
            let end = to.map_or(end, |to| end.min(to));
            [window::text(start, zone_name), window::text(end, zone_name)]
        });
        let skipped = members.len() - events;
        lines.push(Line { window: cut, groups, value, events, skipped });
    }
    if let Some(top) = question.top {
        // Largest first, none last; the sort is stable, so that ties keep the order of the groups.
        lines.sort_by(|a, b| b.value.cmp(&a.value));
        lines.truncate(top);
    }
    Ok(lines)
}

fn matches(event: &Event, meter: &Meter, question: &Question) -> bool {
    let holds =
        |filter: &Option<Filter>| filter.as_ref().is_none_or(|filter| filter.holds(event, meter));
    (meter.events.is_empty() || meter.events.contains(&event.name))
        && question.customer.as_ref().is_none_or(|name| event.customer.as_ref() == Some(name))
        && holds(&meter.filter)
        && holds(&question.filter)
}

/// The value of the events, and how many of them made it.
fn aggregate(meter: &Meter, events: &[&Event]) -> Result<(Amount, usize), Refused> {
    let Some(operand) = &meter.operand else {
        return Ok((Some(BigInt::from(events.len()) * one()), events.len()));
    };
    if meter.aggregation == Aggregation::CountUnique {
        let texts: Vec<String> =
            events.iter().filter_map(|event| Some(meter.value(operand, event)?.text())).collect();
        let distinct: BTreeSet<&String> = texts.iter().collect();
        return Ok((Some(BigInt::from(distinct.len()) * one()), texts.len()));
    }
    let numbers: Vec<(i64, BigInt)> = events
        .iter()
        .filter_map(|event| Some((event.micros, meter.value(operand, event)?.number()?)))
        .collect();
    if numbers.is_empty() {
        return Ok((None, 0));
    }
    let values = || numbers.iter().map(|(_, number)| number);
    let value = match meter.aggregation {
        Aggregation::Count | Aggregation::CountUnique => panic!("counted above"),
        Aggregation::Sum => {
            let sum: BigInt = values().sum();
            if sum.magnitude() >= ten_to(76).magnitude() {
                return Err(Refused::Overflow);
            }
            sum
        }
        Aggregation::Min => values().min().unwrap().clone(),
        Aggregation::Max => values().max().unwrap().clone(),
        Aggregation::Average => {
            let divisor = BigInt::from(numbers.len()) * ten_to(26);
            divide(&values().sum(), &divisor, Round::HalfEven) * ten_to(26)
        }
        // Events stand in the order of receipt: of equal times the last one is the latest.
        Aggregation::Latest => numbers.iter().max_by_key(|(micros, _)| *micros).unwrap().1.clone(),
        Aggregation::Earliest => {
            numbers.iter().min_by_key(|(micros, _)| *micros).unwrap().1.clone()
        }
        Aggregation::Percentile(thousandths) => {
            // The smallest value with enough values at or below it, by counting them for each.
            let enough = |value: &&BigInt| {
                let below = values().filter(|other| other <= value).count();
                below * 100_000 >= numbers.len() * usize::try_from(thousandths).unwrap()
            };
            values().filter(enough).min().unwrap().clone()
        }
    };
    Ok((Some(value), numbers.len()))
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
