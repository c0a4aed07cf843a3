//! Events, meters and questions written as people write them: JSON lines, YAML and SQL.

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::tz::{Offset, TimeZone};
use meterhouse::usage::{Grouping, UsageRequest};

use super::billing::{Billing, Cycle, Cycles, Length};
use super::event::{Line, Moment, Property, Sent};
use super::filter::{Comparison, Filter, Literal};
use super::meter::{
    Aggregation, Bound, Expression, FIELDS, Fill, Lookup, Meter, Operand, Placing, Question, Unit,
};
use super::number::Round;
use super::window::Window;

/// A JSON text.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

// ---- Events ----

/// One line of NDJSON.
pub(crate) fn line(line: &Line) -> String {
    match line {
        Line::Event(sent) => event(sent),
        Line::Broken(text) => text.clone(),
    }
}

fn event(sent: &Sent) -> String {
    let mut members = vec![
        format!("\"event_name\":{}", quoted(&sent.name)),
        format!("\"idempotency_key\":{}", quoted(&sent.key)),
    ];
    for (name, text) in
        [("customer_id", &sent.customer), ("resource_id", &sent.resource), ("source", &sent.source)]
    {
        members.extend(text.as_ref().map(|text| format!("\"{name}\":{}", quoted(text))));
    }
    members.extend(sent.timestamp.as_ref().map(|at| format!("\"timestamp\":{}", moment(at))));
    members.push(format!("\"properties\":{}", object(&sent.properties)));
    format!("{{{}}}", members.join(","))
}

fn moment(moment: &Moment) -> String {
    match moment {
        Moment::NoInstant(text) => quoted(text),
        Moment::Instant { micros, offset_minutes, finer_digits } => {
            let offset = Offset::from_seconds(offset_minutes * 60).unwrap();
            let instant = jiff::Timestamp::from_microsecond(*micros).unwrap();
            let civil = instant.to_zoned(TimeZone::fixed(offset)).datetime();
            let fraction = civil.subsec_nanosecond() / 1_000;
            let sign = if *offset_minutes < 0 { '-' } else { '+' };
            let (hours, minutes) = (offset_minutes.abs() / 60, offset_minutes.abs() % 60);
            let clock = civil.strftime("%Y-%m-%dT%H:%M:%S");
            format!("\"{clock}.{fraction:06}{finer_digits}{sign}{hours:02}:{minutes:02}\"")
        }
    }
}

fn object(properties: &[(String, Property)]) -> String {
    let members = properties.iter().map(|(name, property)| {
        let value = match property {
            Property::Number(text) | Property::Array(text) => text.clone(),
            Property::Text(text) => quoted(text),
            Property::Boolean(boolean) => boolean.to_string(),
            Property::Null => "null".to_owned(),
            Property::Object(inner) => object(inner),
        };
        format!("{}:{value}", quoted(name))
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

// ---- Meters ----

/// A meter file. JSON scalars are YAML scalars, and flow style needs no indentation.
pub(crate) fn meter(meter: &Meter) -> String {
    let mut file = format!("meter: {}\n", meter.name);
    let mut say = |key: &str, value: &str| {
        writeln!(file, "{key}: {value}").unwrap();
    };
    if !meter.events.is_empty() {
        let names: Vec<String> = meter.events.iter().map(|name| quoted(name)).collect();
        say("event", &format!("[{}]", names.join(", ")));
    }
    if let Some(filter) = &meter.filter {
        say("filter", &condition(filter));
    }
    let measured = meter.operand.as_ref().map(yaml_operand);
    match &meter.aggregation {
        Aggregation::Nested { outer, inner, window, per } => {
            say("aggregation", aggregation(outer));
            percentile(outer).into_iter().for_each(|share| say("percentile", &share));
            let mut of = vec![format!("aggregation: {}", aggregation(inner))];
            of.extend(measured.map(|(key, name)| format!("{key}: {name}")));
            of.extend(percentile(inner).map(|share| format!("percentile: {share}")));
            let window = window.iter().map(|window| self::window(*window));
            let per: Vec<String> = window.chain(per.iter().map(plain_name)).collect();
            of.push(format!("per: [{}]", per.join(", ")));
            say("of", &format!("{{ {} }}", of.join(", ")));
        }
        plain => {
            say("aggregation", aggregation(plain));
            percentile(plain).into_iter().for_each(|share| say("percentile", &share));
            measured.into_iter().for_each(|(key, name)| say(key, &name));
        }
    }
    let series = |per: &[Operand]| {
        format!("[{}]", per.iter().map(plain_name).collect::<Vec<_>>().join(", "))
    };
    match &meter.aggregation {
        Aggregation::TimeWeighted { change: true, .. } => say("of", "change"),
        Aggregation::TimeWeighted { change: false, per } => {
            say("of", "level");
            say("per", &series(per));
        }
        Aggregation::Active { operation, per, by_days } => {
            say("operation", &plain_name(operation));
            say("per", &series(per));
            if *by_days {
                say("prorate", "days");
            }
        }
        Aggregation::Reported { operation, per, reset } => {
            say("operation", &plain_name(operation));
            say("per", &series(per));
            reset.iter().for_each(|reset| say("reset", &window(*reset)));
        }
        _ => {}
    }
    if !meter.customer.is_empty() {
        say("customer", &series(&meter.customer));
    }
    if let Some(weight) = &meter.weight {
        say("weight", &quoted(&name_of(weight)));
    }
    if let Some((start, end, place)) = &meter.period {
        let place = match place {
            Placing::Prorate => "prorate",
            Placing::Start => "start",
            Placing::End => "end",
        };
        let bounds = format!("start: {}, end: {}", plain_name(start), plain_name(end));
        say("period", &format!("{{ {bounds}, place: {place} }}"));
    }
    if !meter.lookups.is_empty() {
        let tables = meter.lookups.iter().map(|(name, lookup)| {
            let mut parts = vec![
                format!("of: {}", quoted(&name_of(&lookup.of))),
                "file: table.csv, key: k, value: v".to_owned(),
            ];
            if lookup.history.is_some() {
                parts.push("from: f, to: t".to_owned());
            }
            parts.extend(lookup.otherwise.as_ref().map(|o| format!("otherwise: {}", quoted(o))));
            format!("{}: {{ {} }}", quoted(name), parts.join(", "))
        });
        say("lookups", &format!("{{ {} }}", tables.collect::<Vec<_>>().join(", ")));
    }
    if let Some(unit) = &meter.unit {
        say("unit", &unit_mapping(unit));
    }
    if let Some(zone) = &meter.zone {
        say("timezone", zone);
    }
    match &meter.billing {
        None => {}
        Some(Billing::Shared(cycle)) => say("billing", &billing_cycle(&cycle.first)),
        Some(Billing::PerCustomer { otherwise, .. }) => {
            let mut parts = vec![
                "file: billing.csv, key: customer, anchor: since, from: from, cycle: cycle, timezone: zone"
                    .to_owned(),
            ];
            parts.extend(
                otherwise.as_ref().map(|o| format!("otherwise: {}", billing_cycle(&o.first))),
            );
            say("billing", &format!("{{ {} }}", parts.join(", ")));
        }
    }
    file
}

fn billing_cycle(cycle: &Cycle) -> String {
    let (anchor, length) = (cycle.anchor, length(cycle.length));
    format!("{{ anchor: {anchor}, cycle: {length}, timezone: {} }}", cycle.zone)
}

fn length(length: Length) -> String {
    match length {
        Length::Months(1) => "monthly".to_owned(),
        Length::Months(3) => "quarterly".to_owned(),
        Length::Months(12) => "annual".to_owned(),
        Length::Months(_) => panic!("{length:?} has no name"),
        Length::Days(7) => "weekly".to_owned(),
        Length::Days(days) => format!("{days} days"),
    }
}

/// The rows of a lookup as CSV.
pub(crate) fn lookup_table(table: &Lookup) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let instant = |micros: &i64| match *micros {
        i64::MIN | i64::MAX => String::new(),
        micros => jiff::Timestamp::from_microsecond(micros).unwrap().to_string(),
    };
    match &table.history {
        None => {
            writer.write_record(["k", "v"]).unwrap();
            table.rows.iter().for_each(|(key, value)| writer.write_record([key, value]).unwrap());
        }
        Some(history) => {
            writer.write_record(["k", "v", "f", "t"]).unwrap();
            for (key, from, to, value) in history {
                writer.write_record([key, value, &instant(from), &instant(to)]).unwrap();
            }
        }
    }
    String::from_utf8(writer.into_inner().unwrap()).unwrap()
}

/// The table of a meter's billing, as CSV.
pub(crate) fn billing_table(rows: &BTreeMap<String, Cycles>) -> String {
    let mut table = "zone,customer,since,from,cycle\n".to_owned();
    for (customer, cycles) in rows {
        let customer = customer.replace('"', "\"\"");
        let begun = cycles.begun().into_iter().map(|(since, cycle)| (Some(since), cycle));
        for (since, cycle) in std::iter::once((None, &cycles.first)).chain(begun) {
            let (anchor, length, zone) = (cycle.anchor, length(cycle.length), &cycle.zone);
            let since =
                since.map(|micros| jiff::Timestamp::from_microsecond(micros).unwrap().to_string());
            let since = since.unwrap_or_default();
            table.push_str(&format!("{zone},\"{customer}\",{anchor},{since},{length}\n"));
        }
    }
    table
}

fn percentile(aggregation: &Aggregation) -> Option<String> {
    match aggregation {
        Aggregation::Percentile(thousandths) => {
            Some(format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000))
        }
        _ => None,
    }
}

fn plain_name(operand: &Operand) -> String {
    quoted(&name_of(operand))
}

/// An expression as SQL.
fn expression(of: &Expression) -> String {
    match of {
        Expression::Number(text) => text.clone(),
        Expression::Value(operand) => format!("\"{}\"", name_of(operand).replace('"', "\"\"")),
        Expression::Binary(left, sign, right) => {
            format!("({} {sign} {})", expression(left), expression(right))
        }
        Expression::Coalesce(all) => {
            let all: Vec<String> = all.iter().map(expression).collect();
            format!("coalesce({})", all.join(", "))
        }
        Expression::Call("-", of) => format!("(-{})", expression(&of[0])),
        Expression::Call(function, all) => {
            let all: Vec<String> = all.iter().map(expression).collect();
            format!("{function}({})", all.join(", "))
        }
    }
}

fn aggregation(aggregation: &Aggregation) -> &'static str {
    match aggregation {
        Aggregation::Count => "count",
        Aggregation::CountUnique => "count_unique",
        Aggregation::Sum => "sum",
        Aggregation::Min => "min",
        Aggregation::Max => "max",
        Aggregation::Average => "average",
        Aggregation::Latest => "latest",
        Aggregation::Earliest => "earliest",
        Aggregation::Percentile(_) => "percentile",
        Aggregation::TimeWeighted { .. } => "time_weighted",
        Aggregation::Active { .. } => "count_unique",
        Aggregation::Reported { .. } => "reported",
        Aggregation::Nested { .. } => panic!("spelled by its two levels"),
    }
}

fn unit_mapping(unit: &Unit) -> String {
    let factor = if unit.divides { "divide_by" } else { "multiply_by" };
    let round = match unit.round {
        None => "round: none".to_owned(),
        Some((round, precision)) => {
            let word = match round {
                Round::Up => "up",
                Round::Down => "down",
                Round::HalfUp => "half_up",
                Round::HalfEven => "half_even",
            };
            format!("round: {word}, precision: {precision}")
        }
    };
    format!("{{ name: u, {factor}: {}, {round} }}", unit.factor)
}

/// The name under which a person finds an operand.
pub(crate) fn name_of(operand: &Operand) -> String {
    match operand {
        Operand::Property(name) if FIELDS.contains(&name.as_str()) => format!("property.{name}"),
        Operand::Property(name) | Operand::Lookup(name) => name.clone(),
        Operand::Field(name) => (*name).to_owned(),
        Operand::Computed(_) => panic!("an expression has no name"),
    }
}

fn yaml_operand(operand: &Operand) -> (&'static str, String) {
    let key = match operand {
        Operand::Computed(computed) => return ("expression", quoted(&expression(computed))),
        Operand::Field(_) => "field",
        Operand::Property(_) | Operand::Lookup(_) => "property",
    };
    (key, quoted(&name_of(operand)))
}

fn condition(filter: &Filter) -> String {
    let list = |parts: &[Filter]| {
        let parts: Vec<String> = parts.iter().map(condition).collect();
        format!("[{}]", parts.join(", "))
    };
    match filter {
        Filter::All(parts) => format!("{{ all: {} }}", list(parts)),
        Filter::Any(parts) => format!("{{ any: {} }}", list(parts)),
        Filter::Not(part) => format!("{{ not: {} }}", condition(part)),
        Filter::Test(operand, comparison) => {
            let (key, name) = yaml_operand(operand);
            format!("{{ {key}: {name}, {} }}", yaml_comparison(comparison))
        }
    }
}

fn literal(literal: &Literal) -> String {
    match literal {
        Literal::Number(text) => text.clone(),
        Literal::Text(text) => quoted(text),
        Literal::Boolean(boolean) => boolean.to_string(),
    }
}

fn yaml_comparison(comparison: &Comparison) -> String {
    let list = |literals: &[Literal]| {
        format!("[{}]", literals.iter().map(literal).collect::<Vec<_>>().join(", "))
    };
    match comparison {
        Comparison::Equals(value) => format!("equals: {}", literal(value)),
        Comparison::NotEquals(value) => format!("not_equals: {}", literal(value)),
        Comparison::In(values) => format!("in: {}", list(values)),
        Comparison::NotIn(values) => format!("not_in: {}", list(values)),
        Comparison::GreaterThan(value) => format!("greater_than: {}", literal(value)),
        Comparison::GreaterOrEqual(value) => format!("greater_or_equal: {}", literal(value)),
        Comparison::LessThan(value) => format!("less_than: {}", literal(value)),
        Comparison::LessOrEqual(value) => format!("less_or_equal: {}", literal(value)),
        Comparison::Between(low, high) => {
            format!("between: [{}, {}]", literal(low), literal(high))
        }
        Comparison::Contains(part) => format!("contains: {}", quoted(part)),
        Comparison::NotContains(part) => format!("not_contains: {}", quoted(part)),
        Comparison::StartsWith(part) => format!("starts_with: {}", quoted(part)),
        Comparison::EndsWith(part) => format!("ends_with: {}", quoted(part)),
        Comparison::Like(pattern) => format!("like: {}", quoted(pattern)),
        Comparison::Exists => "exists: true".to_owned(),
        Comparison::NotExists => "not_exists: true".to_owned(),
    }
}

// ---- Questions ----

/// The request; its conditions are SQL.
pub(crate) fn request(question: &Question) -> UsageRequest {
    let bound = |bound: &Option<Bound>| {
        bound.as_ref().map(|bound| match bound {
            Bound::Date(date) => date.to_string(),
            Bound::Instant(micros) => {
                jiff::Timestamp::from_microsecond(*micros).unwrap().to_string()
            }
        })
    };
    let groups: Vec<&str> = question.groups.iter().map(String::as_str).collect();
    UsageRequest {
        meters: question.meters.clone(),
        period: None,
        from: bound(&question.from),
        to: bound(&question.to),
        grouping: match groups.as_slice() {
            [] => Grouping::Total,
            ["customer_id"] => Grouping::Customer,
            _ => Grouping::By(question.groups.clone()),
        },
        window: question.window.map(window),
        anchor: None,
        cycle: None,
        fill: question.fill.map(|fill| {
            match fill {
                Fill::Zero => "zero",
                Fill::Null => "null",
                Fill::Previous => "previous",
            }
            .to_owned()
        }),
        customer: question.customer.clone(),
        conditions: question.filter.as_ref().map(sql),
        timezone: question.zone.clone(),
        at: None,
        top: question.top,
        from_events: false,
    }
}

fn window(window: Window) -> String {
    match window {
        Window::Minutes(60) => "hour".to_owned(),
        Window::Minutes(1) => "minute".to_owned(),
        Window::Minutes(count) => format!("{count}m"),
        Window::Hours(count) => format!("{count}h"),
        Window::Day => "day".to_owned(),
        Window::Week => "week".to_owned(),
        Window::Months(1) => "month".to_owned(),
        Window::Months(3) => "quarter".to_owned(),
        Window::Months(12) => "year".to_owned(),
        Window::Months(count) => format!("{count}month"),
        Window::BillingPeriod => "billing_period".to_owned(),
    }
}

/// Whether `--where` can say it: SQL has no words for the parts of a text.
pub(crate) fn has_sql(filter: &Filter) -> bool {
    match filter {
        Filter::All(parts) | Filter::Any(parts) => parts.iter().all(has_sql),
        Filter::Not(part) => has_sql(part),
        Filter::Test(_, comparison) => match comparison {
            Comparison::Contains(_)
            | Comparison::NotContains(_)
            | Comparison::StartsWith(_)
            | Comparison::EndsWith(_) => false,
            Comparison::Equals(_)
            | Comparison::NotEquals(_)
            | Comparison::In(_)
            | Comparison::NotIn(_)
            | Comparison::GreaterThan(_)
            | Comparison::GreaterOrEqual(_)
            | Comparison::LessThan(_)
            | Comparison::LessOrEqual(_)
            | Comparison::Between(_, _)
            | Comparison::Like(_)
            | Comparison::Exists
            | Comparison::NotExists => true,
        },
    }
}

fn sql(filter: &Filter) -> String {
    let join = |parts: &[Filter], word: &str| {
        let parts: Vec<String> = parts.iter().map(|part| format!("({})", sql(part))).collect();
        parts.join(word)
    };
    match filter {
        Filter::All(parts) => join(parts, " and "),
        Filter::Any(parts) => join(parts, " or "),
        Filter::Not(part) => format!("not ({})", sql(part)),
        Filter::Test(operand, comparison) => {
            let name = name_of(operand).replace('"', "\"\"");
            sql_comparison(&format!("\"{name}\""), comparison)
        }
    }
}

fn sql_literal(literal: &Literal) -> String {
    match literal {
        Literal::Number(text) => text.clone(),
        Literal::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Literal::Boolean(boolean) => boolean.to_string(),
    }
}

fn sql_comparison(name: &str, comparison: &Comparison) -> String {
    let list =
        |literals: &[Literal]| literals.iter().map(sql_literal).collect::<Vec<_>>().join(", ");
    match comparison {
        Comparison::Equals(value) => format!("{name} = {}", sql_literal(value)),
        Comparison::NotEquals(value) => format!("{name} <> {}", sql_literal(value)),
        Comparison::In(values) => format!("{name} in ({})", list(values)),
        Comparison::NotIn(values) => format!("{name} not in ({})", list(values)),
        // The other way round: the literal may stand first.
        Comparison::GreaterThan(value) => format!("{} < {name}", sql_literal(value)),
        Comparison::GreaterOrEqual(value) => format!("{name} >= {}", sql_literal(value)),
        Comparison::LessThan(value) => format!("{name} < {}", sql_literal(value)),
        Comparison::LessOrEqual(value) => format!("{} >= {name}", sql_literal(value)),
        Comparison::Between(low, high) => {
            format!("{name} between {} and {}", sql_literal(low), sql_literal(high))
        }
        Comparison::Like(pattern) => format!("{name} like '{}'", pattern.replace('\'', "''")),
        Comparison::Exists => format!("{name} is not null"),
        Comparison::NotExists => format!("{name} is null"),
        Comparison::Contains(_)
        | Comparison::NotContains(_)
        | Comparison::StartsWith(_)
        | Comparison::EndsWith(_) => panic!("SQL cannot say {comparison:?}"),
    }
}
