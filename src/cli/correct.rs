//! `meterhouse events void|amend|replace|revert|corrections`: what was wrong is put right, and told.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, StringArray, UInt64Array};
use arrow::record_batch::RecordBatch;

use super::actor::actor;
use super::flags::{
    AmendFlags, CorrectionFlags, Global, OutputFlag, ReplaceFlags, RevertFlags, SelectionFlags,
    VoidFlags,
};
use super::numbers::counted;
use super::opening::{cloud_settings, context, open_lake};
use super::outcome::{Failure, Outcome};
use super::output::{check_format, say, write_rows};
use crate::clock::Clock;
use crate::correct::{
    Action, Changes, Conditions, CorrectSettings, Corrected, Identity, Listed, Selection, Tally,
    amendments, correct, identities, list, replacements,
};
use crate::dedupe::Hasher;
use crate::error::{Error, Result};
use crate::event::EventRules;
use crate::ingest::input::{self, InputFormat};
use crate::ingest::read::{ReadRecord, read_events, read_records};
use crate::meter::Filter;
use crate::time::parse_zone;
use crate::usage::{Context, UsageRequest, parse_stored_conditions};

/// Memory of a correction unless something else is said.
const MEMORY_BYTES: usize = 512 << 20;

/// Runs `events void`.
pub(super) async fn void(global: &Global, flags: &VoidFlags) -> Result<Outcome, Failure> {
    let run = Run::open(global, &flags.correction).await?;
    let selection = match records(&flags.selection).await? {
        Some(records) => Selection::Identities(identities(&records, source(&flags.selection))?),
        None => selection(&flags.selection)?,
    };
    run.correct(&Action::Void, &selection, EventRules::default()).await
}

/// Runs `events amend`.
pub(super) async fn amend(global: &Global, flags: &AmendFlags) -> Result<Outcome, Failure> {
    let changes = Changes::parse(&flags.set, &flags.unset, flags.timestamp.as_deref())
        .map_err(|error| Failure::Arguments(error.to_string()))?;
    let run = Run::open(global, &flags.correction).await?;
    let (changes, selection) = match records(&flags.selection).await? {
        Some(records) => {
            let hasher = Hasher::new(run.context.lake.events.table_id());
            let source = source(&flags.selection);
            let (changes, events) = amendments(changes, &records, (source, &hasher))?;
            (changes, Selection::Identities(events))
        }
        None => (changes, selection(&flags.selection)?),
    };
    if changes.is_empty() {
        let text =
            "nothing is to change: say --set, --unset or --timestamp, or give a file with values";
        return Err(Failure::Arguments(text.to_owned()));
    }
    let rules = rules(flags.allow_missing_customer);
    run.correct(&Action::Amend(Arc::new(changes)), &selection, rules).await
}

/// Runs `events replace`.
pub(super) async fn replace(global: &Global, flags: &ReplaceFlags) -> Result<Outcome, Failure> {
    let run = Run::open(global, &flags.correction).await?;
    let rules = rules(flags.allow_missing_customer);
    let inputs = input::expand(&flags.paths, flags.format, &cloud_settings()).await?;
    let events = &run.context.lake.events;
    let (columns, id) =
        (Arc::clone(&events.snapshot(None).await?.schema), events.table_id().to_owned());
    let read =
        blocking(move || read_events(&inputs, (rules, Clock::System.now()), (&id, &columns)));
    let (events, identities) = replacements(read.await?)?;
    let action = Action::Replace(Arc::new(events));
    run.correct(&action, &Selection::Identities(identities), rules).await
}

/// Runs `events revert`.
pub(super) async fn revert(global: &Global, flags: &RevertFlags) -> Result<Outcome, Failure> {
    let run = Run::open(global, &flags.correction).await?;
    let action = Action::Revert(flags.id.clone());
    run.correct(&action, &Selection::Corrected(flags.id.clone()), EventRules::default()).await
}

/// Runs `events corrections`.
pub(super) async fn corrections(global: &Global, output: OutputFlag) -> Result<Outcome, Failure> {
    check_format(output.output)?;
    let lake = open_lake(global).await?;
    write_rows(output.output, &listed(&list(&lake.events).await?)?)?;
    Ok(Outcome::Done)
}

fn rules(allow_missing_customer: bool) -> EventRules {
    EventRules { customer_required: !allow_missing_customer, ..EventRules::default() }
}

fn source(flags: &SelectionFlags) -> &str {
    flags.source.as_deref().unwrap_or_default()
}

/// The records of the file that names events, if there is one.
async fn records(flags: &SelectionFlags) -> Result<Option<Vec<ReadRecord>>> {
    let Some(path) = &flags.file else { return Ok(None) };
    let format = flags.format.unwrap_or(match path.as_str() {
        // What an input is called tells how it is written, and standard input is called nothing.
        "-" => InputFormat::Json,
        path => return read(path, None).await.map(Some),
    });
    read(path, Some(format)).await.map(Some)
}

async fn read(path: &str, format: Option<InputFormat>) -> Result<Vec<ReadRecord>> {
    let inputs = input::expand(&[path.to_owned()], format, &cloud_settings()).await?;
    blocking(move || read_records(&inputs)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::internal("reading an input stopped").with_source(error)),
    }
}

/// What flags without a file mean.
fn selection(flags: &SelectionFlags) -> Result<Selection, Failure> {
    if !flags.key.is_empty() {
        let identity =
            |key: &String| Identity { source: source(flags).to_owned(), key: key.clone() };
        let keys: BTreeSet<Identity> = flags.key.iter().map(identity).collect();
        return Ok(Selection::Identities(keys));
    }
    let bounded = flags.conditions.is_some()
        || !flags.events.is_empty()
        || flags.customer.is_some()
        || [&flags.period, &flags.from, &flags.to].into_iter().any(Option::is_some);
    if bounded == flags.all {
        return Err(Failure::Arguments(match bounded {
            true => "--all stands alone, without conditions".to_owned(),
            false => {
                "no event is meant: say --key, --file, --where, --event, --customer, --period, \
                      --from or --to, or --all for every event there is"
                    .to_owned()
            }
        }));
    }
    let zone = parse_zone(flags.tz.as_deref().unwrap_or("UTC"))?;
    let request = UsageRequest {
        period: flags.period.clone(),
        from: flags.from.clone(),
        to: flags.to.clone(),
        ..UsageRequest::default()
    };
    Ok(Selection::Matching(Conditions {
        events: flags.events.clone(),
        customer: flags.customer.clone(),
        range: request.range(&zone, Clock::System.now())?,
        filter: match &flags.conditions {
            Some(text) => parse_stored_conditions(text)?,
            None => Filter::everything(),
        },
    }))
}

/// One correction on its way.
struct Run<'f> {
    context: Context,
    flags: &'f CorrectionFlags,
    global: &'f Global,
}

impl<'f> Run<'f> {
    async fn open(global: &'f Global, flags: &'f CorrectionFlags) -> Result<Self, Failure> {
        check_format(flags.output.output)?;
        if flags.reason.trim().is_empty() {
            return Err(Failure::Arguments("--reason is empty: say why".to_owned()));
        }
        Ok(Self { context: context(global, Vec::new()).await?, flags, global })
    }

    async fn correct(
        &self,
        action: &Action,
        selection: &Selection,
        rules: EventRules,
    ) -> Result<Outcome, Failure> {
        let settings = CorrectSettings {
            reason: self.flags.reason.clone(),
            by: actor(),
            rules,
            memory_bytes: self.global.memory.unwrap_or(MEMORY_BYTES),
            dry_run: self.flags.dry_run,
        };
        let done = correct(&self.context, action, selection, &settings).await?;
        if self.flags.dry_run {
            write_rows(self.flags.output.output, &tallied(&done.tally)?)?;
        }
        if !self.global.quiet {
            say(&told(action, &done, self.flags.dry_run, self.context.lake.events.display()));
        }
        Ok(Outcome::Done)
    }
}

/// What became of the events, in a sentence.
fn told(action: &Action, done: &Corrected, dry_run: bool, place: &str) -> String {
    let word = match action {
        Action::Void => "voided",
        Action::Amend(_) => "amended",
        Action::Replace(_) => "replaced",
        Action::Revert(_) => "put back",
    };
    let customers: BTreeSet<_> = done.tally.keys().map(|(_, customer, _)| customer).collect();
    let days: BTreeSet<_> = done.tally.keys().map(|(day, ..)| day).collect();
    let would = if dry_run { "would be " } else { "" };
    let mut text = format!("{} {would}{word}", counted(done.events, "event"));
    // What is chosen is more than what changes where some are like that already.
    match done.unchanged {
        0 => text.push_str(&format!(
            ", of {} on {}",
            counted(customers.len() as u64, "customer"),
            counted(days.len() as u64, "day")
        )),
        unchanged => text.push_str(&format!(
            "; {} of those chosen like that already",
            counted(unchanged, "event")
        )),
    }
    match &done.made {
        Some((id, version)) if matches!(action, Action::Revert(_)) => {
            text.push_str(&format!("\ncorrection {id} is version {version} of {place}"));
        }
        Some((id, version)) => text.push_str(&format!(
            "\ncorrection {id} is version {version} of {place}; undo it with: meterhouse events revert \
             {id} --reason WHY"
        )),
        None if dry_run => text.push_str("\ndry run, nothing was written"),
        None => text.push_str("\nnothing was written"),
    }
    text
}

fn tallied(tally: &Tally) -> Result<RecordBatch> {
    let days: Date32Array = tally.keys().map(|(day, ..)| Some(*day)).collect();
    let customers: StringArray = tally.keys().map(|(_, customer, _)| customer.as_ref()).collect();
    let names = StringArray::from_iter_values(tally.keys().map(|(.., name)| name));
    let events = UInt64Array::from_iter_values(tally.values().copied());
    RecordBatch::try_from_iter_with_nullable([
        ("event_date", Arc::new(days) as ArrayRef, false),
        ("customer_id", Arc::new(customers), true),
        ("event_name", Arc::new(names), false),
        ("events", Arc::new(events), false),
    ])
    .map_err(|error| Error::internal("rows of a dry run").with_source(error))
}

fn listed(corrections: &[Listed]) -> Result<RecordBatch> {
    let numbers = |part: fn(&Listed) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(corrections.iter().map(part)))
    };
    let texts = |part: fn(&Listed) -> Option<&str>| -> ArrayRef {
        Arc::new(corrections.iter().map(part).collect::<StringArray>())
    };
    RecordBatch::try_from_iter_with_nullable([
        ("id", texts(|c| Some(&c.record.id)), false),
        ("version", numbers(|c| c.version), false),
        ("at", texts(|c| Some(&c.record.at)), false),
        ("by", texts(|c| c.record.by.as_deref()), true),
        ("what", texts(|c| Some(c.record.what.as_str())), false),
        ("events", numbers(|c| c.record.events), false),
        ("selection", texts(|c| Some(&c.record.selection)), false),
        ("reason", texts(|c| Some(&c.record.reason)), false),
        ("reverts", texts(|c| c.record.reverts.as_deref()), true),
        ("reverted_by", texts(|c| c.reverted_by.as_deref()), true),
    ])
    .map_err(|error| Error::internal("rows of corrections").with_source(error))
}
