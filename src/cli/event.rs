//! `meterhouse events show`: what became of one event, in rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;

use super::explain::correction_text;
use super::flags::{Global, ShowFlags};
use super::numbers::counted;
use super::opening::{context, load_sound_meters, resolve_at};
use super::outcome::{Failure, Outcome};
use super::output::{check_format, say, write_rows};
use crate::correct::Listed;
use crate::error::{Error, Result};
use crate::event::shortened;
use crate::explain::{EventRow, Fate, InQuarantine, Shown, show};
use crate::ingest::accounts::Account;
use crate::render::OutputFormat;
use crate::schema::{KIND_EVENT, batch_of_upsert};

/// Runs the command.
pub(super) async fn run(global: &Global, flags: &ShowFlags) -> Result<Outcome, Failure> {
    let format = flags.output.output;
    check_format(format)?;
    let context = context(global, load_sound_meters(global)?).await?;
    let at = resolve_at(&context.lake, flags.at.at.as_ref()).await?;
    let shown = show(&context, &flags.key, flags.source.as_deref(), at).await?;
    write_rows(format, &table(&lines(&shown, format))?)?;
    if !global.quiet {
        say(&format!(
            "table version {}: {}, {} in quarantine; duplicates are only counted",
            shown.version,
            counted(shown.rows.len() as u64, "row"),
            shown.quarantined.len()
        ));
    }
    Ok(Outcome::Done)
}

/// One row of what is shown; `row` numbers the rows of the key, from 1.
#[derive(Debug, Default)]
struct Line {
    row: Option<usize>,
    about: &'static str,
    what: String,
    value: Option<String>,
    note: Option<String>,
}

fn lines(shown: &Shown, format: OutputFormat) -> Vec<Line> {
    let mut lines = Vec::new();
    for (place, row) in shown.rows.iter().enumerate() {
        lines.extend(of_row(row).into_iter().map(|line| Line { row: Some(place + 1), ..line }));
    }
    lines.extend(shown.quarantined.iter().map(|kept| of_quarantine(kept, format)));
    lines
}

fn of_row(row: &EventRow) -> Vec<Line> {
    let mut lines = vec![Line { about: "row", what: row.kind.clone(), ..Line::default() }];
    let correction = |what: &str, (id, listed): &(String, Option<Listed>)| Line {
        about: "row",
        what: what.to_owned(),
        value: Some(id.clone()),
        note: listed.as_ref().map(correction_text),
        ..Line::default()
    };
    lines.extend(row.made_by.iter().map(|made| correction("made by correction", made)));
    lines.extend(row.ended_by.iter().map(|ended| match batch_of_upsert(&ended.0) {
        None => correction("ended by correction", ended),
        Some(_) => Line {
            note: row.upserted_by.as_ref().map(batch_text),
            ..correction("ended by upsert", ended)
        },
    }));
    let received = |what: &str, value: Option<String>, note: Option<String>| Line {
        about: "received",
        what: what.to_owned(),
        value,
        note,
        ..Line::default()
    };
    lines.push(received("ingested_at", row.received.map(|at| at.to_string()), None));
    lines.push(received("ordinal", Some(row.ordinal.to_string()), None));
    lines.push(match &row.batch {
        Some(batch) => received("batch", Some(batch.batch.clone()), Some(batch_text(batch))),
        None => received("batch", None, Some("its account is not known".to_owned())),
    });
    let pair = |about: &'static str, (name, text): (&String, &String)| Line {
        about,
        what: name.clone(),
        value: Some(text.clone()),
        ..Line::default()
    };
    lines.extend(row.fields.iter().map(|(name, text)| pair("field", (name, text))));
    lines.extend(row.properties.iter().map(|each| pair("property", each)));
    if row.kind != KIND_EVENT {
        let what = "every meter".to_owned();
        let note = Some(format!("does not count it, as it was {}", row.kind));
        lines.push(Line { about: "meter", what, note, ..Line::default() });
    }
    lines.extend(row.verdicts.iter().map(|verdict| {
        let (value, note) = fate_text(&verdict.fate);
        Line { about: "meter", what: verdict.meter.clone(), value, note: Some(note), row: None }
    }));
    lines
}

fn batch_text(batch: &Account) -> String {
    format!("{}, version {}", batch.source, batch.version)
}

fn fate_text(fate: &Fate) -> (Option<String>, String) {
    match fate {
        Fate::Counted { value, counted_as, weight } => {
            let mut note = match counted_as {
                Some(counted_as) => format!("counts it as {counted_as}"),
                None => "counts it".to_owned(),
            };
            if let Some(weight) = weight {
                note.push_str(&format!(", with weight {weight}"));
            }
            (value.clone(), note)
        }
        Fate::OtherName => (None, "is about events of other names".to_owned()),
        Fate::Dropped(condition) => (None, format!("drops it: it does not meet {condition}")),
        Fate::Skipped(why) => (None, format!("skips it: {why}")),
        Fate::Unknown(why) => (None, format!("cannot be told: {why}")),
    }
}

fn of_quarantine(kept: &InQuarantine, format: OutputFormat) -> Line {
    let place = kept.place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
    Line {
        row: None,
        about: "quarantine",
        what: kept.outcome.clone(),
        value: Some(match format {
            OutputFormat::Table => shortened(&kept.event),
            OutputFormat::Csv
            | OutputFormat::Json
            | OutputFormat::Ndjson
            | OutputFormat::Parquet => kept.event.clone(),
        }),
        note: Some(format!("{}{place}", kept.message)),
    }
}

fn table(lines: &[Line]) -> Result<RecordBatch> {
    let texts = |text: &dyn Fn(&Line) -> Option<String>| -> ArrayRef {
        Arc::new(lines.iter().map(text).collect::<StringArray>())
    };
    let numbers = lines.iter().map(|line| line.row.and_then(|row| i64::try_from(row).ok()));
    RecordBatch::try_from_iter_with_nullable([
        ("row", Arc::new(numbers.collect::<Int64Array>()) as ArrayRef, true),
        ("about", texts(&|line| Some(line.about.to_owned())), false),
        ("what", texts(&|line| Some(line.what.clone())), false),
        ("value", texts(&|line| line.value.clone()), true),
        ("note", texts(&|line| line.note.clone()), true),
    ])
    .map_err(|error| Error::internal("rows of an event").with_source(error))
}
