//! `meterhouse meters publish` and `history`: versions of meters that the lake keeps.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::record_batch::RecordBatch;

use super::actor::actor;
use super::flags::{Global, HistoryFlags, PublishFlags};
use super::numbers::counted;
use super::opening::{load_meter_files, open_lake};
use super::outcome::{Failure, Outcome};
use super::output::{check_format, say, write_rows};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::meter::{Meter, load_bundle, version};
use crate::registry::{self, Publication, Schedule, Tenure, Terms};
use crate::time::{TimeRange, Timestamp, parse_bound, parse_zone};

/// Runs `publish`.
pub(super) async fn publish(global: &Global, flags: &PublishFlags) -> Result<Outcome, Failure> {
    let meters = load_meter_files(global, &flags.meters)?;
    // All are read before anything is written.
    let mut bundles = Vec::with_capacity(meters.len());
    for (file, _) in &meters {
        let (meter, bundle) = load_bundle(file)?;
        let zone = parse_zone(meter.timezone.as_deref().unwrap_or("UTC"))?;
        let from = flags.from.as_deref().map(|from| parse_bound(from, &zone)).transpose()?;
        bundles.push((meter, bundle, from));
    }
    let lake = open_lake(global).await?;
    let by = actor();
    let mut new = 0;
    for (meter, bundle, from) in &bundles {
        let terms = Terms { from: *from, by: by.clone(), reason: flags.reason.clone() };
        let now = Clock::System.now();
        let done = registry::publish(&lake.events, (meter, bundle), &terms, now).await?;
        new += u64::from(done.made);
        if !global.quiet {
            let (name, version) = (&meter.name, version(meter));
            let since = from.map_or("for all of history".to_owned(), |from| format!("from {from}"));
            say(&match done.made {
                true => format!("{name}@{version} is published and in effect {since}"),
                false => format!("{name}@{version} is in effect {since} already; nothing changed"),
            });
            for (publication, held) in &done.superseded {
                let held = tenure_text(Tenure::During(*held));
                say(&format!(
                    "{name}@{} is superseded by it and in effect no more; it was {held}",
                    publication.version
                ));
            }
        }
    }
    if !global.quiet && bundles.len() > 1 {
        say(&format!("{} of {} published", new, counted(bundles.len() as u64, "meter")));
    }
    Ok(Outcome::Done)
}

/// The published definition of `name` with this version, or the beginning of it; `published` is the
/// one that holds now.
///
/// # Errors
/// A version that is not there, or not the only one that begins so.
pub(super) async fn find(global: &Global, name: &str, version: &str) -> Result<Meter> {
    let lake = open_lake(global).await?;
    let version = match version {
        "published" => {
            let publications = registry::publications(&lake.events, name).await?;
            let now = Clock::System.now();
            let instant = TimeRange { from: Some(now), to: None };
            let parts = Schedule::of(&publications).parts(instant);
            let present = parts.into_iter().next().and_then(|part| part.version);
            present.ok_or_else(|| registry::not_published(name))?
        }
        prefix => registry::find(&lake.events, name, prefix).await?,
    };
    registry::definition(&lake.events, name, &version).await
}

/// Runs `history`.
pub(super) async fn history(global: &Global, flags: &HistoryFlags) -> Result<Outcome, Failure> {
    check_format(flags.output.output)?;
    let lake = open_lake(global).await?;
    let names = match &flags.meter {
        Some(name) => vec![name.clone()],
        None => registry::names(&lake.events).await?,
    };
    let mut rows = Vec::new();
    for name in names {
        let all = registry::publications(&lake.events, &name).await?;
        if all.is_empty() {
            return Err(registry::not_published(&name).into());
        }
        let schedule = Schedule::of(&all);
        rows.extend(all.into_iter().enumerate().map(|(place, publication)| Row {
            meter: name.clone(),
            in_effect: tenure_text(schedule.tenure(place)),
            publication,
        }));
    }
    write_rows(flags.output.output, &table(&rows)?)?;
    if rows.is_empty() && !global.quiet {
        say("no meter was ever published; `meterhouse meters publish` does that");
    }
    Ok(Outcome::Done)
}

struct Row {
    meter: String,
    in_effect: String,
    publication: Publication,
}

fn tenure_text(tenure: Tenure) -> String {
    match tenure {
        Tenure::Superseded => "superseded".to_owned(),
        Tenure::During(TimeRange { from: None, to: None }) => "always".to_owned(),
        Tenure::During(TimeRange { from: Some(from), to: None }) => format!("from {from}"),
        Tenure::During(TimeRange { from: None, to: Some(to) }) => format!("until {to}"),
        Tenure::During(TimeRange { from: Some(from), to: Some(to) }) => format!("{from} to {to}"),
    }
}

fn table(rows: &[Row]) -> Result<RecordBatch> {
    let texts = |text: fn(&Row) -> Option<String>| -> ArrayRef {
        Arc::new(rows.iter().map(text).collect::<StringArray>())
    };
    let from = |row: &Row| row.publication.from.as_ref().map(Timestamp::to_string);
    RecordBatch::try_from_iter_with_nullable([
        ("meter", texts(|row| Some(row.meter.clone())), false),
        ("version", texts(|row| Some(row.publication.version.clone())), false),
        ("effective_from", texts(from), true),
        ("in_effect", texts(|row| Some(row.in_effect.clone())), false),
        ("published_at", texts(|row| Some(row.publication.at.clone())), false),
        ("by", texts(|row| row.publication.by.clone()), true),
        ("reason", texts(|row| row.publication.reason.clone()), true),
    ])
    .map_err(|error| Error::internal("rows of published meters").with_source(error))
}
