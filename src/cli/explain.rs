//! `meterhouse explain`: how a number came about, a row for each step, or the events behind it.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;

use super::flags::{ExplainFlags, Global};
use super::numbers::counted;
use super::opening::{context, load_meters, resolve_at};
use super::outcome::{Failure, Outcome};
use super::output::{Streamed, check_format, say, write_rows};
use super::usage::unseen_texts;
use crate::correct::Listed;
use crate::error::{Error, Result};
use crate::explain::{Corrected, Explained, Refused, contributions, explain};
use crate::meter::describe_aggregation;
use crate::render::{NUMERIC_TEXT, OutputFormat};
use crate::schema::{KIND_EVENT, batch_of_upsert};
use crate::unit::{Factor, Rounding, Unit};
use crate::usage::{Context, Group, UsageRequest};

/// Runs the command.
pub(super) async fn run(global: &Global, flags: &ExplainFlags) -> Result<Outcome, Failure> {
    let format = flags.output.output;
    check_format(format)?;
    let groups = groups(&flags.group)?;
    let meters = load_meters(global, std::slice::from_ref(&flags.meter))?;
    let context = context(global, meters).await?;
    let at = resolve_at(&context.lake, flags.at.at.as_ref()).await?;
    let request = UsageRequest {
        meters: vec![flags.meter.clone()],
        period: flags.period.clone(),
        from: flags.from.clone(),
        to: flags.to.clone(),
        customer: flags.customer.clone(),
        conditions: flags.conditions.clone(),
        timezone: flags.tz.clone(),
        at,
        ..UsageRequest::default()
    };
    if flags.events {
        let listed = list(&context, &request, &groups, format).await?;
        if !global.quiet {
            say(&format!("{} behind the number", counted(listed, "event")));
        }
        return Ok(Outcome::Done);
    }
    let explained = explain(&context, &request, &groups).await?;
    write_rows(format, &table(&steps(&explained, flags), format)?)?;
    if global.quiet {
        return Ok(Outcome::Done);
    }
    unseen_texts(&explained.answer.note).iter().for_each(|text| say(text));
    if !explained.dropped.is_empty() {
        say("dropped: events that meet every condition above and not this one; alone: those that \
             meet all others");
    }
    Ok(Outcome::Done)
}

fn groups(written: &[String]) -> Result<Vec<Group>, Failure> {
    let groups = written.iter().map(|group| match group.split_once('=') {
        Some((name, text)) => (name.to_owned(), Some(text.to_owned())),
        None => (group.clone(), None),
    });
    let groups: Vec<Group> = groups.collect();
    for (place, (name, _)) in groups.iter().enumerate() {
        if name.is_empty() {
            return Err(Failure::Arguments("--group has an empty name".to_owned()));
        }
        if groups[..place].iter().any(|(other, _)| other == name) {
            return Err(Failure::Arguments(format!("--group names `{name}` twice")));
        }
    }
    Ok(groups)
}

async fn list(
    context: &Context,
    request: &UsageRequest,
    groups: &[Group],
    format: OutputFormat,
) -> Result<u64> {
    let (mut rows, mut listed): (Option<Streamed>, u64) = (None, 0);
    contributions(context, request, groups, &mut |batch| {
        listed += batch.num_rows() as u64;
        rows.get_or_insert_with(|| Streamed::new(format, batch.schema())).write(&batch)
    })
    .await?;
    rows.map(Streamed::finish).transpose()?;
    Ok(listed)
}

/// One row of an explanation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Step {
    step: &'static str,
    what: String,
    events: Option<u64>,
    alone: Option<u64>,
    value: Option<String>,
    example: Option<String>,
    note: Option<String>,
}

impl Step {
    fn new(step: &'static str, what: impl Into<String>) -> Self {
        Self { step, what: what.into(), ..Self::default() }
    }

    fn counting(step: &'static str, what: impl Into<String>, events: u64) -> Self {
        Self { events: Some(events), ..Self::new(step, what) }
    }

    fn noted(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }
}

fn steps(explained: &Explained, flags: &ExplainFlags) -> Vec<Step> {
    let (meter, note) = (&explained.meter, &explained.answer.note);
    let title = meter.title.clone().or_else(|| meter.description.clone());
    let mut steps = vec![
        Step {
            note: title,
            ..Step::new("meter", format!("{} {}", note.meter, note.meter_version))
        },
        Step::new("range", bounds(note.from.as_deref(), note.to.as_deref())).noted(&note.zone),
        lake(explained),
        Step::counting("asked", asked(explained, flags), explained.asked),
    ];
    steps.extend(explained.dropped.iter().map(|dropped| Step {
        alone: Some(dropped.alone),
        ..Step::counting("dropped", &dropped.condition, dropped.first)
    }));
    let what = match explained.dropped.is_empty() {
        true => "the meter has no conditions",
        false => "what meets all conditions",
    };
    steps.push(Step::counting("matched", what, explained.matched));
    steps.extend(explained.skipped.iter().map(|skipped| Step {
        example: skipped.example.clone(),
        ..Step::counting("skipped", &skipped.why, skipped.events)
    }));
    let carried = explained.carried.filter(|carried| *carried > 0 || note.from.is_some());
    steps.extend(carried.map(|carried| {
        Step::counting("carried", "what was before the range", carried)
            .noted("not among the matched or counted ones")
    }));
    steps.push(Step {
        value: explained.answer.value.clone(),
        ..Step::counting(
            "counted",
            describe_aggregation(&meter.aggregation),
            note.events.unsigned_abs(),
        )
    });
    if let Some(unit) = &meter.unit {
        steps.push(converted(unit, explained));
        steps.push(rounded(unit, explained));
    }
    beside(explained, &mut steps);
    steps
}

fn bounds(from: Option<&str>, to: Option<&str>) -> String {
    match (from, to) {
        (None, None) => "all of history".to_owned(),
        (Some(from), None) => format!("from {from}"),
        (None, Some(to)) => format!("until {to}"),
        (Some(from), Some(to)) => format!("{from} to {to}"),
    }
}

fn lake(explained: &Explained) -> Step {
    let note = &explained.answer.note;
    let (read, all) = explained.files;
    let step = Step::new("lake", format!("version {}", note.table_version));
    let mut files = format!("{read} of {} read for the number", counted(all as u64, "file"));
    for (name, number) in &note.lookups {
        files.push_str(&format!(", table {name} version {number}"));
    }
    step.noted(files)
}

/// What the question is about.
fn asked(explained: &Explained, flags: &ExplainFlags) -> String {
    let meter = &explained.meter;
    let mut parts = vec![match meter.events.as_slice() {
        [] => "events of every name".to_owned(),
        names => format!("event {}", names.join(" or ")),
    }];
    parts.extend(flags.customer.as_ref().map(|customer| format!("customer {customer}")));
    parts.extend(flags.group.iter().map(|group| match group.split_once('=') {
        Some((name, text)) => format!("{name} = {text}"),
        None => format!("{group} absent"),
    }));
    parts.extend(flags.conditions.clone());
    parts.join(", ")
}

fn converted(unit: &Unit, explained: &Explained) -> Step {
    let how = match &unit.factor {
        Factor::MultiplyBy(factor) => format!("times {factor}"),
        Factor::DivideBy(divisor) => format!("divided by {divisor}"),
    };
    let what = match &explained.answer.value {
        Some(value) => format!("{value} {how}, in {}", unit.name),
        None => format!("nothing {how}"),
    };
    Step { value: explained.answer.converted.clone(), ..Step::new("converted", what) }
}

fn rounded(unit: &Unit, explained: &Explained) -> Step {
    let how = match unit.round {
        Rounding::Up => "up",
        Rounding::Down => "down",
        Rounding::HalfUp => "half up",
        Rounding::HalfEven => "half to even",
        Rounding::None => {
            let value = explained.answer.billable.clone();
            return Step { value, ..Step::new("rounded", "not at all") };
        }
    };
    let what = format!("{how}, to {} digits", unit.precision);
    let note = "once, from the exact quotient".to_owned();
    Step {
        value: explained.answer.billable.clone(),
        note: Some(note),
        ..Step::new("rounded", what)
    }
}

/// What stands beside the number.
fn beside(explained: &Explained, steps: &mut Vec<Step>) {
    if let Some(late) = &explained.late {
        let step = Step::counting("late", "received after the end of the range", late.events);
        steps.push(match (late.events, &late.without) {
            (0, _) => step,
            (_, None) => step.noted("without them there is no value"),
            (_, Some(value)) => {
                Step { value: Some(value.clone()), ..step }.noted("the value without them")
            }
        });
    }
    for lookup in &explained.lookups {
        let what = |what: &str| format!("{}: {what}", lookup.name);
        steps.push(Step::counting("lookup", what("mapped"), lookup.mapped));
        steps.push(Step {
            example: lookup.example.clone(),
            ..Step::counting("lookup", what("no row for the value"), lookup.unmapped)
        });
        steps.push(Step::counting("lookup", what("no value to map"), lookup.absent));
    }
    for (teller, events) in &explained.customers {
        steps.push(Step::counting("customer", format!("told by {teller}"), *events));
    }
    steps.extend(explained.corrected.iter().map(corrected));
    steps.extend(refused(&explained.refused, explained));
}

fn corrected(rows: &Corrected) -> Step {
    let (step, id) = match rows.kind.as_str() {
        KIND_EVENT => ("corrected", rows.made_by.as_deref()),
        _ => ("left out", rows.ended_by.as_deref()),
    };
    let what = match rows.kind.as_str() {
        KIND_EVENT => format!("made by correction {}", id.unwrap_or_default()),
        kind => match id.and_then(batch_of_upsert) {
            Some(batch) => format!("{kind} by newer events of batch {batch}"),
            None => format!("{kind} by correction {}", id.unwrap_or_default()),
        },
    };
    let note = rows.correction.as_ref().map(correction_text);
    Step { note, ..Step::counting(step, what, rows.events) }
}

/// Who did what, when and why.
pub(super) fn correction_text(correction: &Listed) -> String {
    let record = &correction.record;
    let by = record.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    let mut text = format!("{}{by} at {}: {}", record.what, record.at, record.reason);
    if let Some(reverted) = &correction.reverted_by {
        text.push_str(&format!(" (reverted by {reverted})"));
    }
    text
}

fn refused(refused: &Refused, explained: &Explained) -> Vec<Step> {
    let untold = format!("of {}; whose they were is not kept", batches(refused.batches));
    let what = |what: &str| format!("{what}, in all batches up to this version");
    let mut about = vec!["event name"];
    if refused.by_customer {
        about.push("customer");
    }
    if explained.meter.period.is_none() {
        about.push("timestamp");
    }
    vec![
        Step::counting("not stored", what("duplicates"), refused.counts.duplicate).noted(&untold),
        Step::counting("not stored", "conflicts that the question is about", refused.conflicts)
            .noted(format!(
                "by {}, as of now; the meter's conditions are not asked",
                about.join(", ")
            )),
        Step::counting("not stored", what("rejected"), refused.counts.rejected).noted(untold),
    ]
}

fn batches(number: u64) -> String {
    match number {
        1 => "1 batch".to_owned(),
        number => format!("{} batches", super::numbers::grouped(number)),
    }
}

fn table(steps: &[Step], format: OutputFormat) -> Result<RecordBatch> {
    let texts = |text: &dyn Fn(&Step) -> Option<String>| -> ArrayRef {
        Arc::new(steps.iter().map(text).collect::<StringArray>())
    };
    let numbers = |number: fn(&Step) -> Option<u64>| -> ArrayRef {
        let numbers = steps.iter().map(number);
        let numbers = numbers.map(|n| n.and_then(|n| i64::try_from(n).ok()));
        Arc::new(numbers.collect::<Int64Array>())
    };
    let columns: [(&str, ArrayRef); 7] = [
        ("step", texts(&|step| Some(step.step.to_owned()))),
        ("what", texts(&|step| Some(step.what.clone()))),
        ("events", numbers(|step| step.events)),
        ("alone", numbers(|step| step.alone)),
        ("value", texts(&|step| step.value.clone())),
        ("example", texts(&|step| step.example.clone())),
        ("note", texts(&|step| step.note.clone())),
    ];
    let field = |(name, column): &(&str, ArrayRef)| {
        let field = Field::new(*name, column.data_type().clone(), true);
        match *name == "value" && format == OutputFormat::Table {
            true => field.with_metadata([(NUMERIC_TEXT.to_owned(), String::new())].into()),
            false => field,
        }
    };
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new(Arc::new(schema), columns)
        .map_err(|error| Error::internal("rows of an explanation").with_source(error))
}
