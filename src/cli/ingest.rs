//! `meterhouse ingest`: events into the lake, then what became of them.

use std::time::Duration;

use super::actor::actor;
use super::flags::{Global, IngestFlags, LAKE_DEFAULT, MappingFlags, NAMESPACE_DEFAULT};
use super::numbers::{counted, grouped, rate};
use super::opening::{Target, cloud_settings, open_target};
use super::outcome::{Failure, Outcome};
use super::output::{printable, say};
use super::progress::Line;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::ingest::input::{Input, InputFormat};
use crate::ingest::mapping::{Mapping, Origin};
use crate::ingest::quarantine::Quarantined;
use crate::ingest::{Counts, IngestSettings, Recognised, Summary, access_log, ingest, input};
use crate::time::parse_zone;

/// Turns deduplication off in builds with debug assertions, to show what it is for.
const NO_DEDUPLICATION: &str = "METERHOUSE_TEST_NO_DEDUPLICATION";

/// Runs the command.
pub(super) async fn run(global: &Global, flags: &IngestFlags) -> Result<Outcome, Failure> {
    if flags.follow {
        return super::follow::run(global, flags).await;
    }
    let inputs = input::expand(&flags.paths, flags.format, &cloud_settings()).await?;
    let settings = settings(global, flags, &inputs)?;
    let target = open_target(global, flags.dry_run).await?;
    ingested(global, &target, inputs, settings).await
}

/// Brings inputs in and says what became of them.
pub(super) async fn ingested(
    global: &Global,
    target: &Target,
    inputs: Vec<Input>,
    settings: IngestSettings,
) -> Result<Outcome, Failure> {
    let line = Line::new(!global.quiet);
    let place = target.lake.events.display().to_string();
    let (lake, dry_run) = (target.lake.clone(), settings.dry_run);
    let summary =
        ingest(lake, target.state.clone(), inputs, settings, Clock::System, line.listener()).await;
    let progress = line.end();
    let summary = summary.inspect_err(|_| {
        if !global.quiet && progress.counts.read > 0 {
            say(&stopped(progress.counts.read));
        }
    })?;
    if !global.quiet {
        summary.recognised.iter().for_each(|found| say(&recognised(found)));
        for place in &summary.unended {
            let place = printable(place);
            say(&format!("{place}: the last line is not ended yet; it is left for the next run"));
        }
        say(&closing(&summary, progress.input_bytes, &place));
        if let Some(refused) = refused(&summary, global, dry_run) {
            say(&refused);
        }
    }
    let Counts { conflict, rejected, .. } = summary.counts;
    Ok(if conflict + rejected > 0 { Outcome::SomeRefused } else { Outcome::Done })
}

/// How the flags say that inputs are brought in.
pub(super) fn settings(
    global: &Global,
    flags: &IngestFlags,
    inputs: &[Input],
) -> Result<IngestSettings, Failure> {
    let mut settings = IngestSettings {
        mapping: mapping(&flags.mapping, inputs)?,
        dry_run: flags.dry_run,
        by: actor(),
        deduplicate: !(cfg!(debug_assertions) && std::env::var_os(NO_DEDUPLICATION).is_some()),
        ..IngestSettings::default()
    };
    settings.rules.customer_required = !flags.allow_missing_customer;
    if let Some(hours) = flags.future_hours {
        settings.rules.future_max_hours = hours;
    }
    if let Some(events) = flags.commit_events {
        settings.commit_events = events;
    }
    if let Some(bytes) = global.memory {
        settings.memory_bytes = bytes;
    }
    if let Some(threads) = global.threads {
        settings.threads = usize::from(threads);
    }
    Ok(settings)
}

/// What the flags of a mapping change: what the fields of the inputs are without them.
fn plain_mapping(inputs: &[Input]) -> Result<Mapping, Failure> {
    let of = |format: InputFormat| match format {
        InputFormat::AccessLog => access_log::mapping(),
        InputFormat::Payload(dialect) => dialect.mapping().unwrap_or_default(),
        InputFormat::Json | InputFormat::Csv | InputFormat::Parquet | InputFormat::Arrow => {
            Mapping::default()
        }
    };
    let plain = inputs.first().map(|input| of(input.format)).unwrap_or_default();
    match inputs.iter().find(|input| of(input.format) != plain) {
        None => Ok(plain),
        Some(other) => Err(Failure::Arguments(format!(
            "{}: no mapping fits it and {} alike: ingest them apart",
            other.name, inputs[0].name
        ))),
    }
}

/// The mapping that the flags describe, `None` if none of them is there.
fn mapping(flags: &MappingFlags, inputs: &[Input]) -> Result<Option<Mapping>, Failure> {
    let MappingFlags { mapping, map, event_name, source, key, timezone, timestamp_format } = flags;
    let none = mapping.is_none()
        && map.is_empty()
        && [event_name, source, key, timezone, timestamp_format].into_iter().all(Option::is_none);
    if none {
        return Ok(None);
    }
    let mut read = match mapping {
        Some(path) => {
            let file = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|error| {
                Error::invalid(format!("mapping {file} cannot be read: {error}")).with_source(error)
            })?;
            Mapping::parse(&text, &file)?
        }
        None => plain_mapping(inputs)?,
    };
    let wrong = |error: Error| Failure::Arguments(error.to_string());
    for argument in map {
        read.set(argument).map_err(wrong)?;
    }
    for (flag, text, place) in
        [("--event-name", event_name, &mut read.event_name), ("--source", source, &mut read.source)]
    {
        let Some(text) = text else { continue };
        if text.is_empty() {
            return Err(Failure::Arguments(format!("{flag} is empty: name a text")));
        }
        *place = Origin::Constant(text.clone());
    }
    if let Some(key) = key {
        read.set_key(key);
    }
    if let Some(zone) = timezone {
        read.zone = Some(parse_zone(zone).map_err(wrong)?);
    }
    if let Some(format) = timestamp_format {
        read.set_timestamp_format(format).map_err(wrong)?;
    }
    Ok(Some(read))
}

/// What an error leaves behind.
fn stopped(read: u64) -> String {
    format!(
        "stopped after {}: what was committed stays; run the same command again, every event \
         counts once",
        counted(read, "event")
    )
}

/// Whose events the inputs were found to hold.
fn recognised(found: &Recognised) -> String {
    let more = match found.inputs {
        1 => String::new(),
        inputs => format!(" and {}", counted(inputs - 1, "other input")),
    };
    format!("read as {} events: {}{more}", found.dialect, printable(&found.first))
}

/// What became of the events, how fast, and where they are.
fn closing(summary: &Summary, input_bytes: u64, place: &str) -> String {
    let Counts { read, accepted, duplicate, conflict, rejected } = summary.counts;
    let counts = [
        (read, "read"),
        (accepted, "accepted"),
        (duplicate, "duplicate"),
        (conflict, "conflict"),
        (rejected, "rejected"),
    ];
    let counts = counts.map(|(number, word)| format!("{} {word}", grouped(number))).join(", ");
    let speed = rate(read, input_bytes, summary.elapsed);
    let version = match (summary.version, summary.commits) {
        (None, _) => "dry run, nothing was written".to_owned(),
        (Some(version), 0) => format!("nothing to commit, version {version} of {place}"),
        (Some(version), commits) => {
            format!("{} to version {version} of {place}", counted(commits, "commit"))
        }
    };
    let replaced = match summary.replaced {
        0 => String::new(),
        events => {
            let took = if events == 1 {
                "took the place of an older one"
            } else {
                "took the places of older ones"
            };
            format!("\n{} accepted {took} with the same identity", counted(events, "event"))
        }
    };
    format!("{counts}{replaced}\n{version}; {}: {speed}", seconds(summary.elapsed))
}

fn seconds(elapsed: Duration) -> String {
    let hundredths = elapsed.as_millis() / 10;
    format!("{}.{:02} s", hundredths / 100, hundredths % 100)
}

/// Examples of what did not get in, and how to see the rest; `None` if all did.
fn refused(summary: &Summary, global: &Global, dry_run: bool) -> Option<String> {
    let all = summary.counts.conflict + summary.counts.rejected;
    if all == 0 {
        return None;
    }
    let mut lines: Vec<String> = summary.examples.iter().map(example).collect();
    let more = all.saturating_sub(lines.len() as u64);
    if more > 0 {
        lines.push(format!("  and {} more", grouped(more)));
    }
    if !dry_run {
        let lake = match global.lake.as_str() {
            LAKE_DEFAULT => String::new(),
            lake => format!(" --lake {}", super::quickstart::quoted(lake)),
        };
        let namespace = match global.namespace.as_str() {
            NAMESPACE_DEFAULT => String::new(),
            namespace => format!(" --namespace {namespace}"),
        };
        lines.push(format!("all of them: meterhouse events rejected{lake}{namespace}"));
    }
    Some(lines.join("\n"))
}

/// `file:line: reason (field)`, as far as they are known.
fn example(event: &Quarantined) -> String {
    let place = match (&event.input, event.line) {
        (Some(input), Some(line)) => format!("{input}:{line}: "),
        (Some(input), None) => format!("{input}: "),
        (None, _) => format!("{}: ", event.outcome),
    };
    let field = event.field.as_deref().map(|field| format!(" ({field})")).unwrap_or_default();
    printable(&format!("  {place}{}{field}", event.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_with_its_account() {
        let summary = Summary {
            counts: Counts {
                read: 10_000,
                accepted: 9_990,
                duplicate: 5,
                conflict: 2,
                rejected: 3,
            },
            version: Some(4),
            commits: 2,
            elapsed: Duration::from_millis(500),
            examples: Vec::new(),
            recognised: Vec::new(),
            replaced: 0,
            unended: Vec::new(),
        };
        assert_eq!(
            closing(&summary, 1_000_000, "lake/default/events"),
            "10,000 read, 9,990 accepted, 5 duplicate, 2 conflict, 3 rejected\n\
             2 commits to version 4 of lake/default/events; 0.50 s: 20,000 events/s, 2.0 MB/s"
        );
    }

    #[test]
    fn any_flag_of_a_mapping_makes_it_apply() {
        assert_eq!(mapping(&MappingFlags::default(), &[]).unwrap(), None);
        let flags = MappingFlags { key: Some("content".into()), ..MappingFlags::default() };
        assert!(mapping(&flags, &[]).unwrap().is_some());
        let flags = MappingFlags { map: vec!["user=x".into()], ..MappingFlags::default() };
        assert!(matches!(mapping(&flags, &[]), Err(Failure::Arguments(_))));
    }
}
