//! `meterhouse usage`: rows to standard output, then a note on how each meter's came about.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use super::flags::{Global, QuestionFlags, UsageFlags, UsageFormat};
use super::numbers::{counted, grouped_text};
use super::opening::{context, list_meters, load_meters, resolve_at};
use super::outcome::{Failure, Outcome};
use super::output::{Streamed, check_format, say, write_text};
use super::picture::{Drawn, draw};
use crate::error::Result;
use crate::render::{NUMERIC_TEXT, OutputFormat};
use crate::usage::{Context, FromStates, Grouping, Note, UsageRequest, columns, explain, usage};

/// Runs the command.
pub(super) async fn run(global: &Global, flags: &UsageFlags) -> Result<Outcome, Failure> {
    let (format, drawn) = form(flags);
    check_format(format)?;
    if flags.question.meters.is_empty() {
        return Err(no_meter_named(global)?);
    }
    let meters = load_meters(global, &flags.question.meters)?;
    let context = context(global, meters).await?;
    let at = resolve_at(&context.lake, flags.at.at.as_ref()).await?;
    let request = request(&flags.question, at);
    if flags.explain {
        write_text(&explain(&context, &request).await?)?;
        return Ok(Outcome::Done);
    }
    let notes = match drawn {
        Some(drawn) => draw(&context, &request, drawn, note_text).await?,
        None => answer(&context, &request, format).await?,
    };
    if !global.quiet {
        notes.iter().for_each(|note| say(&note_text(note)));
    }
    Ok(Outcome::Done)
}

/// How the answer is written, or drawn.
fn form(flags: &UsageFlags) -> (OutputFormat, Option<Drawn>) {
    let rows = |format| (format, None);
    match flags.output {
        _ if flags.chart => (OutputFormat::Table, Some(Drawn::Chart)),
        UsageFormat::Table => rows(OutputFormat::Table),
        UsageFormat::Csv => rows(OutputFormat::Csv),
        UsageFormat::Json => rows(OutputFormat::Json),
        UsageFormat::Ndjson => rows(OutputFormat::Ndjson),
        UsageFormat::Parquet => rows(OutputFormat::Parquet),
        UsageFormat::Svg => (OutputFormat::Table, Some(Drawn::Svg)),
        UsageFormat::Html => (OutputFormat::Table, Some(Drawn::Html)),
    }
}

/// That a question is of no meter, with those that there are.
///
/// # Errors
/// A folder of meters that is not there.
pub(super) fn no_meter_named(global: &Global) -> Result<Failure> {
    let folder = global.meters_folder.display();
    let meters = list_meters(global)?;
    let names: Vec<&str> = meters.iter().map(|meter| meter.name.as_str()).collect();
    Ok(Failure::Arguments(match names.is_empty() {
        true => format!("no meter is asked for, and {folder} holds none"),
        false => format!("no meter is asked for; {folder} holds {}", names.join(", ")),
    }))
}

/// The question that flags put.
pub(super) fn request(flags: &QuestionFlags, at: Option<u64>) -> UsageRequest {
    let grouping = match (flags.total, flags.breakdown, flags.by.is_empty()) {
        (true, ..) => Grouping::Total,
        (false, true, _) => Grouping::Breakdown,
        (false, false, true) => Grouping::Customer,
        (false, false, false) => Grouping::By(flags.by.clone()),
    };
    UsageRequest {
        meters: flags.meters.clone(),
        period: flags.period.clone(),
        from: flags.from.clone(),
        to: flags.to.clone(),
        grouping,
        window: flags.window.clone(),
        anchor: flags.anchor.clone(),
        cycle: flags.cycle.clone(),
        fill: flags.fill.clone(),
        customer: flags.customer.clone(),
        conditions: flags.conditions.clone(),
        timezone: flags.tz.clone(),
        at,
        top: flags.top.and_then(|top| usize::try_from(top).ok()),
        from_events: flags.from_events,
    }
}

async fn answer(
    context: &Context,
    request: &UsageRequest,
    format: OutputFormat,
) -> Result<Vec<Note>> {
    let mut rows: Option<Streamed> = None;
    let notes = usage(context, request, &mut |batch| {
        let first = || Streamed::new(format, shown_schema(format, &batch.schema()));
        rows.get_or_insert_with(first).write(&batch)
    })
    .await?;
    rows.map(Streamed::finish).transpose()?;
    Ok(notes)
}

/// The answer's schema; a table is told which of its texts are numbers.
fn shown_schema(format: OutputFormat, schema: &SchemaRef) -> SchemaRef {
    if format != OutputFormat::Table {
        return Arc::clone(schema);
    }
    let numbers = [columns::VALUE, columns::CONVERTED, columns::BILLABLE];
    let last = schema.fields().len().saturating_sub(numbers.len() + 2);
    let fields = schema.fields().iter().enumerate().map(|(place, field)| {
        // A group may have one of these names too; the groups stand before the values.
        let is_number = place >= last && numbers.contains(&field.name().as_str());
        let mut metadata = field.metadata().clone();
        if is_number {
            metadata.insert(NUMERIC_TEXT.to_owned(), String::new());
        }
        field.as_ref().clone().with_metadata(metadata)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// What is asked for and no event has.
pub(super) fn unseen_texts(note: &Note) -> Vec<String> {
    let text = |(name, nearest): &(String, Option<String>)| {
        let hint = nearest.as_ref().map(|near| format!("; did you mean `{near}`?"));
        let hint = hint.unwrap_or_default();
        format!("{}: no event of the range has a property `{name}`{hint}", note.meter)
    };
    note.unseen.iter().map(text).collect()
}

/// Everything needed to get the same answer again.
fn note_text(note: &Note) -> String {
    let bounds = match (&note.from, &note.to) {
        (None, None) => "all of history".to_owned(),
        (Some(from), None) => format!("from {from}"),
        (None, Some(to)) => format!("until {to}"),
        (Some(from), Some(to)) => format!("{from} to {to}"),
    };
    let mut parts = vec![
        format!("{} {}", note.meter, note.meter_version),
        format!("{bounds} {}", note.zone),
        format!("table version {}", note.table_version),
    ];
    parts.extend(note.lookups.iter().map(|(name, number)| format!("{name} version {number}")));
    parts.extend(note.unit.as_ref().map(|unit| format!("unit {unit}")));
    let mut events = counted(note.events.unsigned_abs(), "event");
    if note.skipped > 0 {
        events.push_str(&format!(", {} skipped", grouped_text(&note.skipped.to_string())));
    }
    parts.push(events);
    if let Some(FromStates { grain, events_version, rows_since }) = &note.rollup {
        let mut from = format!("rollup by {} to version {events_version}", grain.name());
        if *rows_since > 0 {
            from.push_str(&format!(" and {} since", counted(*rows_since, "row")));
        }
        parts.push(from);
    }
    let mut text = parts.join("  ");
    if let Some(damage) = &note.damage {
        let name = &note.meter;
        text.push_str(&format!(
            "\n{name}: answered from the events, as a rollup is damaged: {damage}; `meterhouse rollups \
             refresh --anew` makes rollups of the events again"
        ));
    }
    if note.skipped > 0 {
        let name = &note.meter;
        text.push_str(&format!(
            "\n{name}: `meterhouse explain {name}` says why events are skipped"
        ));
    }
    for unseen in unseen_texts(note) {
        text.push('\n');
        text.push_str(&unseen);
    }
    for start in &note.partial_windows {
        text.push_str(&format!(
            "\n{}: the window that begins {start} is partial, a bound cuts it",
            note.meter
        ));
    }
    if note.partial_rows > 0 {
        text.push_str(&format!(
            "\n{}: {} of billing periods that a bound cuts, see `partial`",
            note.meter,
            counted(note.partial_rows, "row")
        ));
    }
    if note.rows_without_period > 0 {
        text.push_str(&format!(
            "\n{}: {} of customers without a billing period, whose window is null: they have no row in \
             the table of `billing`, which has no `otherwise` with an anchor",
            note.meter,
            counted(note.rows_without_period, "row")
        ));
    }
    if let Some(difference) = &note.rounding_difference {
        let digits = difference.to_string();
        let (word, digits) = match digits.strip_prefix('-') {
            Some(digits) => ("less", digits),
            None => ("more", digits.as_str()),
        };
        let unit = note.unit.as_deref().unwrap_or_default();
        text.push_str(&format!(
            "\n{}: the rounded rows are together {} {unit} {word} than the rounded total",
            note.meter,
            grouped_text(digits)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollup::Grain;

    #[test]
    fn a_note_names_what_the_answer_stands_on() {
        let note = Note {
            meter: "bandwidth".into(),
            meter_version: "3f2a".into(),
            from: Some("2026-10-01T00:00:00+02:00".into()),
            to: Some("2026-11-01T00:00:00+01:00".into()),
            zone: "Europe/Berlin".into(),
            table_version: 3,
            unit: Some("GB".into()),
            rows: 7,
            events: 9_888,
            skipped: 1_112,
            rounding_difference: Some("-1750".parse().unwrap()),
            unseen: vec![("domian".into(), Some("domain".into()))],
            lookups: vec![("regions".into(), 2)],
            partial_windows: vec!["2026-10-01T00:00:00+02:00".into()],
            partial_rows: 2,
            rows_without_period: 1,
            rollup: Some(FromStates { grain: Grain::Day, events_version: 2, rows_since: 41 }),
            damage: None,
        };
        assert_eq!(
            note_text(&note),
            "bandwidth 3f2a  2026-10-01T00:00:00+02:00 to 2026-11-01T00:00:00+01:00 Europe/Berlin  \
             table version 3  regions version 2  unit GB  9,888 events, 1,112 skipped  rollup by day to \
             version 2 and 41 rows since\n\
             bandwidth: `meterhouse explain bandwidth` says why events are skipped\n\
             bandwidth: no event of the range has a property `domian`; did you mean `domain`?\n\
             bandwidth: the window that begins 2026-10-01T00:00:00+02:00 is partial, a bound cuts it\n\
             bandwidth: 2 rows of billing periods that a bound cuts, see `partial`\n\
             bandwidth: 1 row of customers without a billing period, whose window is null: they \
             have no row in the table of `billing`, which has no `otherwise` with an anchor\n\
             bandwidth: the rounded rows are together 1,750 GB less than the rounded total"
        );
        let whole = Note {
            from: None,
            to: None,
            zone: "UTC".into(),
            unit: None,
            events: 1,
            skipped: 0,
            rounding_difference: None,
            unseen: Vec::new(),
            lookups: Vec::new(),
            partial_windows: Vec::new(),
            partial_rows: 0,
            rows_without_period: 0,
            rollup: None,
            damage: Some("f.parquet is gone".to_owned()),
            ..note
        };
        assert_eq!(
            note_text(&whole),
            "bandwidth 3f2a  all of history UTC  table version 3  1 event\n\
             bandwidth: answered from the events, as a rollup is damaged: f.parquet is gone; \
             `meterhouse rollups refresh --anew` makes rollups of the events again"
        );
    }
}
