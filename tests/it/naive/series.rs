//! What is followed over time, answered by looking at every window and every event anew.

use std::collections::BTreeMap;

use bigdecimal::num_bigint::BigInt;
use jiff::tz::TimeZone;

use super::answer::{
    Around, Line, Refused, around, asked_of, customer, customer_of, matches_meter, range,
    zone_of_windows,
};
use super::event::Event;
use super::meter::{Aggregation, Amount, Meter, Operand, Placing, Question};
use super::number::{Round, divide, one, ten_to};
use super::window::Window;

/// Microseconds of a day of UTC.
const DAY: i64 = 86_400_000_000;

type Texts = Vec<Option<String>>;

/// Whether the value of a window depends on events outside of it.
pub(crate) fn follows(meter: &Meter) -> bool {
    let prorates = matches!(meter.period, Some((_, _, Placing::Prorate)));
    let carries = matches!(
        meter.aggregation,
        Aggregation::TimeWeighted { .. }
            | Aggregation::Active { .. }
            | Aggregation::Reported { .. }
    );
    prorates || carries
}

/// A window, and start and end before the range cuts it, then after.
type Span = (Option<Around>, [i64; 4]);

/// The windows of the question, as a customer has them.
fn windows(
    events: &[Event],
    meter: &Meter,
    question: &Question,
    customer: Option<&String>,
) -> Vec<Span> {
    let [from, to] = range(meter, question);
    let whole = || {
        let (from, to) = (from.unwrap_or(i64::MIN), to.unwrap_or(i64::MAX));
        [from, to, from, to]
    };
    // Without a bound, the days that there are events of.
    let days = || events.iter().map(|event| event.micros.div_euclid(DAY));
    let (first, last) = (days().min().unwrap_or(0), days().max().unwrap_or(0));
    let reach = (from.unwrap_or(first * DAY), to.unwrap_or((last + 1) * DAY));
    let mut found = Vec::new();
    let mut at = reach.0;
    while at < reach.1 {
        let window = around(at, customer, meter, question);
        let Some((start, end)) = window.flatten() else { return vec![(window, whole())] };
        let cut = [from.map_or(start, |from| from.max(start)), to.map_or(end, |to| to.min(end))];
        found.push((window, [start, end, cut[0], cut[1]]));
        at = end;
    }
    found
}

/// The rows of a meter that follows something.
pub(crate) fn lines(
    events: &[Event],
    meter: &Meter,
    question: &Question,
) -> Result<Vec<Line>, Refused> {
    let texts = |event: &Event| -> Texts {
        let name = |name: &String| meter.value(&meter.resolve(name), event).map(|v| v.text());
        question.groups.iter().map(name).collect()
    };
    let of_meter: Vec<&Event> = events.iter().filter(|event| matches_meter(event, meter)).collect();
    let mut groups: BTreeMap<Texts, Vec<&Event>> = BTreeMap::new();
    for event in of_meter.iter().copied().filter(|event| asked_of(event, meter, question)) {
        groups.entry(texts(event)).or_default().push(event);
    }
    let untils = untils(&of_meter, meter);
    let until = |event: &Event| untils[&std::ptr::from_ref(event)];
    let mut lines = Vec::new();
    for (group, members) in &groups {
        let of_group = customer_of(question, group);
        let zone = match question.window {
            Some(Window::BillingPeriod) => zone_of_windows(of_group, meter, question),
            // Days and resets are the meter's, whatever zone is asked in.
            _ => TimeZone::get(meter.zone.as_deref().unwrap_or("UTC")).unwrap(),
        };
        for (window, [start, end, from, to]) in windows(events, meter, question, of_group) {
            let piece = match &meter.aggregation {
                Aggregation::TimeWeighted { .. } => {
                    time_weighted(members, meter, &until, (from, to))?
                }
                Aggregation::Active { operation, per, by_days } => {
                    let days = by_days.then(|| days(start, end, &zone));
                    active(members, meter, (operation, per), &until, (from, to), days.as_deref())
                }
                Aggregation::Reported { operation, reset, .. } => {
                    let reset_end = |event: &Event| match reset {
                        None => i64::MAX,
                        Some(Window::BillingPeriod) => {
                            let customer = customer(event, meter);
                            let cycle = meter.billing.as_ref().unwrap().of(customer.as_ref());
                            cycle.map_or(i64::MAX, |cycle| cycle.around(event.micros).1)
                        }
                        Some(reset) => reset.around(event.micros, &zone).1,
                    };
                    let until = |event: &Event| until(event).min(reset_end(event));
                    reported(members, meter, operation, &until, (from, to))
                }
                _ => prorated(members, meter, (from, to))?,
            };
            let Some((value, events, matched)) = piece else { continue };
            let skipped = matched - events;
            lines.push(Line { window, groups: group.clone(), value, events, skipped });
        }
    }
    let start = |line: &Line| line.window.flatten().map(|(start, _)| start);
    lines.sort_by_key(|line| (start(line), line.groups.clone()));
    if lines.is_empty() && question.groups.is_empty() && question.window.is_none() {
        let counts = matches!(meter.aggregation, Aggregation::Active { .. });
        let value = counts.then_some(BigInt::ZERO);
        lines.push(Line { window: None, groups: Vec::new(), value, events: 0, skipped: 0 });
    }
    Ok(lines)
}

/// Value, events and matched events of a window; nothing where nothing is known.
type Piece = Option<(Amount, usize, usize)>;

fn within(event: &Event, (from, to): (i64, i64)) -> bool {
    event.micros >= from && event.micros < to
}

fn time_weighted(
    members: &[&Event],
    meter: &Meter,
    until: &dyn Fn(&Event) -> i64,
    (from, to): (i64, i64),
) -> Result<Piece, Refused> {
    let operand = meter.operand.as_ref().unwrap();
    let matched = members.iter().filter(|event| within(event, (from, to))).count();
    let (mut area, mut events, mut known) = (BigInt::ZERO, 0, false);
    for event in members.iter().filter(|event| event.micros < to) {
        let Some(value) = meter.number(operand, event)? else { continue };
        known = true;
        events += usize::from(within(event, (from, to)));
        let (start, end) = (event.micros.max(from), until(event).min(to));
        if end > start {
            area += value * BigInt::from(end - start);
        }
    }
    if !known && matched == 0 {
        return Ok(None);
    }
    let mean = || divide(&area, &(BigInt::from(to - from) * ten_to(26)), Round::HalfEven);
    Ok(Some((known.then(|| mean() * ten_to(26)), events, matched)))
}

/// When what each event says ends, by looking at all others.
fn untils(all: &[&Event], meter: &Meter) -> BTreeMap<*const Event, i64> {
    let Some(operand) = meter.operand.as_ref() else { return BTreeMap::new() };
    let number = |event: &Event| matches!(meter.number(operand, event), Ok(Some(_)));
    let (per, of) = match &meter.aggregation {
        Aggregation::TimeWeighted { per, .. } | Aggregation::Reported { per, .. } => (per, None),
        Aggregation::Active { per, .. } => (per, Some(operand)),
        _ => return BTreeMap::new(),
    };
    let ends = |event: &Event| match &meter.aggregation {
        Aggregation::TimeWeighted { change, .. } => !change && number(event),
        Aggregation::Active { operation, .. } => {
            let does = said(event, meter, operation, ["add", "remove"], true);
            meter.value(operand, event).is_some() && does.is_some()
        }
        Aggregation::Reported { operation, .. } => {
            let does = said(event, meter, operation, ["SET", "DELTA"], false);
            does == Some(true) && number(event)
        }
        _ => false,
    };
    let series = |event: &Event| -> Texts {
        // Of whoever sent it; of whom it is attributed to where nobody is named.
        let sent = |of| meter.sent(of, event).or_else(|| meter.value(of, event));
        of.into_iter().chain(per).map(|of| sent(of).map(|value| value.text())).collect()
    };
    let of_all: Vec<Texts> = all.iter().map(|event| series(event)).collect();
    let until = |place: usize| {
        let own = (all[place].micros, place);
        let later = (0..all.len()).filter(|&other| {
            (all[other].micros, other) > own && of_all[other] == of_all[place] && ends(all[other])
        });
        later.map(|other| all[other].micros).min().unwrap_or(i64::MAX)
    };
    (0..all.len()).map(|place| (std::ptr::from_ref(all[place]), until(place))).collect()
}

/// Which of two things an event says: the first, the second, or neither.
fn said(
    event: &Event,
    meter: &Meter,
    operation: &Operand,
    words: [&str; 2],
    silent: bool,
) -> Option<bool> {
    match meter.value(operation, event).map(|value| value.text()) {
        None => Some(silent),
        Some(text) if text == words[0] => Some(true),
        Some(text) if text == words[1] => Some(false),
        Some(_) => None,
    }
}

fn days(start: i64, end: i64, zone: &TimeZone) -> Vec<(i64, i64)> {
    let mut found = Vec::new();
    let mut at = start;
    while at < end {
        let (_, next) = Window::Day.around(at, zone);
        found.push((at, next.min(end)));
        at = next;
    }
    found
}

fn active(
    members: &[&Event],
    meter: &Meter,
    (operation, per): (&Operand, &[Operand]),
    until: &dyn Fn(&Event) -> i64,
    (from, to): (i64, i64),
    days: Option<&[(i64, i64)]>,
) -> Piece {
    let operand = meter.operand.as_ref().unwrap();
    let mut values: BTreeMap<Texts, Vec<(i64, i64)>> = BTreeMap::new();
    let (mut events, mut matched, mut known) = (0, 0, false);
    for event in members.iter().filter(|event| event.micros < to) {
        let inside = within(event, (from, to));
        matched += usize::from(inside);
        let value = meter.value(operand, event).map(|value| value.text());
        let does = said(event, meter, operation, ["add", "remove"], true);
        let (Some(value), Some(adds)) = (value, does) else { continue };
        events += usize::from(inside);
        known = true;
        let own = per.iter().map(|of| meter.value(of, event).map(|value| value.text()));
        let key = std::iter::once(Some(value)).chain(own).collect();
        if adds {
            values.entry(key).or_default().push((event.micros, until(event)));
        }
    }
    if !known {
        return (matched > 0).then_some((Some(BigInt::ZERO), events, matched));
    }
    let mut total = BigInt::ZERO;
    for stretches in values.values() {
        let meets = |start: i64, end: i64| {
            stretches.iter().any(|(at, until)| (*at).max(start) < (*until).min(end))
        };
        total += match days {
            None => BigInt::from(i64::from(meets(to - 1, to))),
            Some(days) => {
                let there = |(start, end): &&(i64, i64)| meets((*start).max(from), (*end).min(to));
                BigInt::from(days.iter().filter(there).count())
            }
        };
    }
    let value = match days {
        None => total * one(),
        Some(days) => {
            let scaled = total * ten_to(12);
            divide(&scaled, &BigInt::from(days.len()), Round::HalfEven) * ten_to(26)
        }
    };
    Some((Some(value), events, matched))
}

/// What was said and holds at the end: each change for itself, until its quantity is set.
fn reported(
    members: &[&Event],
    meter: &Meter,
    operation: &Operand,
    until: &dyn Fn(&Event) -> i64,
    (from, to): (i64, i64),
) -> Piece {
    let operand = meter.operand.as_ref().unwrap();
    let (mut events, mut matched, mut known) = (0, 0, false);
    let mut total = BigInt::ZERO;
    for event in members.iter().filter(|event| event.micros < to) {
        let inside = within(event, (from, to));
        matched += usize::from(inside);
        let does = said(event, meter, operation, ["SET", "DELTA"], false);
        let number = meter.value(operand, event).and_then(|value| value.number());
        let (Some(_), Some(number)) = (does, number) else { continue };
        events += usize::from(inside);
        known = true;
        if until(event) >= to {
            total += number;
        }
    }
    if !known && matched == 0 {
        return None;
    }
    Some((known.then_some(total), events, matched))
}

fn prorated(members: &[&Event], meter: &Meter, (from, to): (i64, i64)) -> Result<Piece, Refused> {
    let operand = meter.operand.as_ref().unwrap();
    let (mut total, mut events, mut matched) = (BigInt::ZERO, 0, 0);
    for event in members {
        let Some((start, end)) = meter.stretch(event) else {
            matched += usize::from(within(event, (from, to)));
            continue;
        };
        let (first, last) = (start.max(from), end.min(to));
        let held = if start == end { (from..to).contains(&start) } else { first < last };
        if !held {
            continue;
        }
        matched += 1;
        let Some(number) = meter.number(operand, event)? else { continue };
        events += 1;
        let up_to = |instant: i64| match instant >= end {
            true => number.clone(),
            false => share(&(&number * BigInt::from(instant - start)), end - start),
        };
        total += if start == end { number.clone() } else { up_to(last) - up_to(first) };
    }
    if matched == 0 {
        return Ok(None);
    }
    Ok(Some(((events > 0).then_some(total), events, matched)))
}

/// A quotient of 18 fractional digits.
fn share(numerator: &BigInt, length: i64) -> BigInt {
    let step = ten_to(20);
    divide(numerator, &(BigInt::from(length) * &step), Round::HalfEven) * step
}
