//! `meterhouse export`: usage and closed periods as files.

use std::path::{Path, PathBuf};

use super::flags::{ExportCommand, ExportStatementsFlags, ExportUsageFlags, FileFlags, Global};
use super::numbers::{counted, grouped};
use super::opening::{cloud_settings, context, load_meters, resolve_at};
use super::outcome::{Failure, Outcome};
use super::output::say;
use super::periods::say_open;
use super::usage::{no_meter_named, request};
use crate::error::{Error, ErrorKind, Result};
use crate::export::{
    Export, Exported, Format, MeterEvents, Place, Source, customers_of_csv, export, period_name,
};
use crate::lake::location::Location;
use crate::period::{self, Closing, Record};
use crate::time::Timestamp;
use crate::usage::{Context, UsageRequest};

/// Runs the command.
pub(super) async fn run(global: &Global, command: &ExportCommand) -> Result<Outcome, Failure> {
    match command {
        ExportCommand::Usage(flags) => usage(global, flags).await?,
        ExportCommand::Statements(flags) => statements(global, flags).await?,
    }
    Ok(Outcome::Done)
}

async fn usage(global: &Global, flags: &ExportUsageFlags) -> Result<(), Failure> {
    let target = target(global, &flags.file)?;
    let asked = &flags.question.meters;
    if asked.is_empty() {
        return Err(no_meter_named(global)?);
    }
    let meters = load_meters(global, asked)?;
    let context = context(global, meters).await?;
    target.check(&context)?;
    let at = resolve_at(&context.lake, flags.at.at.as_ref()).await?;
    let request = request(&flags.question, at);
    if target.file.is_some() {
        let place = target.place(&[], "")?;
        return one(global, &context, Source::Usage(&request), place, &target).await;
    }
    for meter in asked {
        let request = UsageRequest { meters: vec![meter.clone()], ..request.clone() };
        let period = period_name(&context, &request)?;
        let place = target.place(&[("meter", meter), ("period", &period)], "usage")?;
        one(global, &context, Source::Usage(&request), place, &target).await?;
    }
    Ok(())
}

async fn statements(global: &Global, flags: &ExportStatementsFlags) -> Result<(), Failure> {
    let target = target(global, &flags.file)?;
    let context = context(global, Vec::new()).await?;
    target.check(&context)?;
    let (closings, open) = closings(&context, flags).await?;
    open.iter().for_each(say_open);
    if target.file.is_some() {
        let place = target.place(&[], "")?;
        let period = flags.period.as_ref().map(|asked| lasting_period(asked, &closings));
        let (meters, period) = (&flags.meters, period.as_deref());
        let source = Source::Statements { closings: &closings, meters, period };
        return one(global, &context, source, place, &target).await;
    }
    for closing in &closings {
        let of = &closing.record;
        let place = target.place(&[("meter", &of.meter), ("period", &of.period)], "statement")?;
        let source = Source::Statements {
            closings: std::slice::from_ref(closing),
            meters: std::slice::from_ref(&of.meter),
            period: Some(&of.period),
        };
        one(global, &context, source, place, &target).await?;
    }
    // Nobody else takes away what was exported of periods that do not hold any more.
    for gone in reopened(&context, flags, &closings).await? {
        let of = &gone.record;
        let place = target.place(&[("meter", &of.meter), ("period", &of.period)], "statement")?;
        if place.holds(&of.id).await? {
            say(&format!(
                "warning: {place} is of a period that was opened again and is not closed: move it away"
            ));
        }
    }
    Ok(())
}

/// What the asked period is called at any time: `last-month` is another one soon. Of customers' own periods
/// more may be closed by then, under a name that is written out.
fn lasting_period(asked: &str, closings: &[Closing]) -> String {
    let own: Vec<&Record> =
        closings.iter().map(|closing| &closing.record).filter(|record| record.own).collect();
    let written = asked.strip_prefix("billing:").unwrap_or(asked);
    if !own.is_empty() && written.starts_with(|first: char| first.is_ascii_digit()) {
        return asked.to_owned();
    }
    let bounds = own.iter().map(|record| &record.from).min();
    match bounds.zip(own.iter().map(|record| &record.to).max()) {
        Some((from, to)) => format!("{from}..{to}"),
        None => closings.first().map(|closing| closing.record.period.clone()).unwrap_or_default(),
    }
}

/// The closings that were opened again, of periods that are not closed under the same name.
async fn reopened(
    context: &Context,
    flags: &ExportStatementsFlags,
    closings: &[Closing],
) -> Result<Vec<Closing>> {
    let mut all = period::list(&context.lake, None).await?;
    let is_same = |a: &Closing, b: &Closing| {
        (&a.record.meter, &a.record.period) == (&b.record.meter, &b.record.period)
    };
    all.retain(|gone| {
        let is_asked = flags.meters.is_empty() || flags.meters.contains(&gone.record.meter);
        is_asked && !gone.holds() && !closings.iter().any(|closing| is_same(closing, gone))
    });
    Ok(all)
}

/// The closings that hold of what the flags ask for, by meter and period; and those that were opened again
/// and not closed anew.
async fn closings(
    context: &Context,
    flags: &ExportStatementsFlags,
) -> Result<(Vec<Closing>, Vec<Closing>)> {
    let (mut all, mut open) = period::standing(period::list(&context.lake, None).await?);
    let mut names: Vec<String> = all.iter().map(|closing| closing.record.meter.clone()).collect();
    names.dedup();
    if let Some(missing) = flags.meters.iter().find(|name| !names.contains(name)) {
        return Err(Error::not_found(format!("no period of meter `{missing}` is closed")));
    }
    names.retain(|name| flags.meters.is_empty() || flags.meters.contains(name));
    all.retain(|closing| names.contains(&closing.record.meter));
    open.retain(|closing| names.contains(&closing.record.meter));
    if let Some(period) = &flags.period {
        let mut of_period = Vec::new();
        open.clear();
        for name in &names {
            match period::find_all(context, name, period).await {
                Ok((found, left_out)) if found.iter().any(Closing::holds) => {
                    of_period.extend(found);
                    open.extend(left_out);
                }
                // Without names, those that closed it are meant.
                Ok(_) if flags.meters.is_empty() => {}
                Ok(_) => {
                    return Err(Error::not_found(format!(
                        "period `{period}` of meter `{name}` was opened again and is not closed"
                    )));
                }
                Err(error) if error.kind() == ErrorKind::NotFound && flags.meters.is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        all = of_period;
    }
    match all.is_empty() {
        false => Ok((all, open)),
        true => Err(Error::not_found(match &flags.period {
            Some(period) => {
                format!("no period `{period}` is closed; `meterhouse periods list` shows which are")
            }
            None => "no period is closed; `meterhouse periods close` does that".to_owned(),
        })),
    }
}

/// How long ago an event may have been that Stripe takes: 35 days.
const STRIPE_MICROS: i64 = 35 * 86_400_000_000;

/// Memory a thread for the state of operators that does for nearly every export: what is sorted spills,
/// which takes no longer, and an export runs at night beside others (benches/README.md).
const THREAD_MEMORY_AT_FIRST: usize = 64 << 20;

/// Exports one file and says so.
async fn one(
    global: &Global,
    context: &Context,
    source: Source<'_>,
    place: Place,
    target: &Target,
) -> Result<(), Failure> {
    let told = place.to_string();
    let (format, events) = (target.format, target.events.as_ref());
    let partitioned = target.file.is_none();
    let replace = target.replace;
    let threads = context.engine.limits().threads;
    let memory_at_first = global.memory.is_none().then_some(THREAD_MEMORY_AT_FIRST * threads);
    let asked = Export { source, place, format, events, partitioned, replace, memory_at_first };
    let exported = export(context, &asked).await?;
    if let (Exported::Written(record), Format::Stripe) = (&exported, format)
        && record.replaces.is_some()
    {
        say(&format!(
            "warning: {told} had other events before, some with the same identifiers: if they were sent, \
             Stripe leaves these out for a day at least, and may bill them once more later; bill the \
             difference by hand instead"
        ));
    }
    if let (Exported::Written(record), Format::Stripe) = (&exported, format) {
        let ends =
            record.meters.iter().filter_map(|of| Timestamp::parse_rfc3339(of.to.as_ref()?).ok());
        let now = context.clock.now().micros();
        if let Some(end) = ends.min().filter(|end| end.micros() < now - STRIPE_MICROS) {
            say(&format!(
                "warning: {told} has events before {end}, and Stripe takes those of the last 35 days only"
            ));
        }
    }
    if !global.quiet {
        let (what, record) = match &exported {
            Exported::Written(record) => ("exported", record),
            Exported::Unchanged(record) => ("unchanged", record),
        };
        say(&format!(
            "{what} {told}  {}  {} bytes  sha256 {}",
            counted(record.rows, "row"),
            grouped(record.bytes),
            record.sha256
        ));
        if record.left_out > 0 {
            say(&format!(
                "{told}: {} of usage left out, of nothing or of no customer",
                counted(record.left_out, "row")
            ));
        }
    }
    Ok(())
}

/// Where an export goes.
struct Target {
    /// As it was written.
    written: String,
    location: Location,
    /// The name of the file; a folder gets files of its own.
    file: Option<String>,
    format: Format,
    events: Option<MeterEvents>,
    replace: bool,
}

impl Target {
    fn place(&self, folders: &[(&str, &str)], stem: &str) -> Result<Place> {
        let name = match &self.file {
            Some(name) => name.clone(),
            None => format!("{stem}.{}", self.format.extension()),
        };
        Place::new(&self.location, folders, &name)
    }

    /// Refuses what lies in the lake, where no file but its own belongs.
    fn check(&self, context: &Context) -> Result<()> {
        let lake = &context.lake.location;
        let is_within = match (self.location.local_path(), lake.local_path()) {
            (Some(folder), Some(lake)) => real(folder).starts_with(real(lake)),
            _ => self.location.url == lake.url && self.location.root.prefix_matches(&lake.root),
        };
        match is_within {
            false => Ok(()),
            true => Err(Error::invalid(format!(
                "--out {} lies in the lake {lake}: export to a place beside it",
                self.written
            ))),
        }
    }
}

/// A folder without links on the way to it, as far as it is there.
fn real(folder: &Path) -> PathBuf {
    let there = folder.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
    let Some((part, there)) = there else { return folder.to_owned() };
    folder.strip_prefix(part).map_or(there.clone(), |rest| there.join(rest))
}

/// Endings of files that nobody means a folder by.
const OTHER_FILES: [&str; 14] = [
    "json", "jsonl", "gz", "zst", "bz2", "xz", "zip", "tsv", "txt", "xls", "ods", "avro", "orc",
    "pq",
];

/// Understands where an export is to go.
fn target(global: &Global, flags: &FileFlags) -> Result<Target, Failure> {
    if flags.out.is_empty() || flags.out == "-" || flags.out.starts_with("memory:") {
        return Err(Failure::Arguments(format!(
            "--out `{}` is no place that lasts: name a file or folder; `usage -o` writes to standard output",
            flags.out
        )));
    }
    let (folder, name) = match flags.out.rsplit_once('/') {
        Some((folder, name)) if !folder.is_empty() => (folder, name),
        Some((_, name)) => ("/", name),
        None => (".", flags.out.as_str()),
    };
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    let of_name = extension.as_deref().and_then(Format::of_extension);
    if extension.as_deref().is_some_and(|extension| OTHER_FILES.contains(&extension))
        && !Path::new(&flags.out).is_dir()
    {
        return Err(Failure::Arguments(format!(
            "--out {}: no export writes such a file; files end in .csv, .ndjson, .parquet or .xlsx, and a \
             folder that is called so in /",
            flags.out
        )));
    }
    let (folder, file) = match of_name.is_some() {
        true => (folder, Some(name.to_owned())),
        false => (flags.out.as_str(), None),
    };
    if let (Some(extension), Some(format)) = (extension.filter(|_| file.is_some()), flags.format)
        && extension != format.extension()
    {
        return Err(Failure::Arguments(format!(
            "--out {} and --format {} do not agree: such a file ends in .{}",
            flags.out,
            format.name(),
            format.extension()
        )));
    }
    let format = flags.format.or(of_name).unwrap_or(Format::Parquet);
    let events = match format {
        Format::Stripe => Some(meter_events(global, flags)?),
        _ if flags.event_name.is_some()
            || flags.stripe_customers.is_some()
            || flags.leave_unattributed =>
        {
            return Err(Failure::Arguments(
                "--event-name, --stripe-customers and --leave-unattributed are for --format stripe"
                    .to_owned(),
            ));
        }
        _ => None,
    };
    if file.is_some() && Path::new(&flags.out).is_dir() {
        return Err(Failure::Arguments(format!("--out {} is a folder, no file", flags.out)));
    }
    if Path::new(folder).is_file() {
        return Err(Failure::Arguments(format!(
            "--out {}: {folder} is a file, no folder",
            flags.out
        )));
    }
    let location = Location::parse_with(folder, &cloud_settings())?;
    let written = flags.out.clone();
    Ok(Target { written, location, file, format, events, replace: flags.replace })
}

fn meter_events(global: &Global, flags: &FileFlags) -> Result<MeterEvents> {
    let customers = match &flags.stripe_customers {
        None => None,
        Some(file) => {
            let name = file.display().to_string();
            let text = std::fs::read_to_string(file)
                .map_err(|error| Error::not_found(format!("{name}: {error}")).with_source(error))?;
            Some(customers_of_csv(&text, &name)?)
        }
    };
    let (event_name, leave_unattributed) = (flags.event_name.clone(), flags.leave_unattributed);
    let namespace = global.namespace.clone();
    Ok(MeterEvents { namespace, event_name, customers, leave_unattributed })
}
