//! `meterhouse export`: usage and closed periods as files.

use super::flags::{ExportCommand, ExportStatementsFlags, ExportUsageFlags, FileFlags, Global};
use super::numbers::{counted, grouped};
use super::opening::{cloud_settings, context, load_meters, resolve_at};
use super::outcome::{Failure, Outcome};
use super::output::say;
use super::usage::{no_meter_named, request};
use crate::error::{Error, Result};
use crate::export::{
    Export, Exported, Format, MeterEvents, Place, Source, customers_of_csv, export, period_name,
};
use crate::lake::location::Location;
use crate::period::{self, Closing};
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
    let target = target(&flags.file)?;
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
        let place = target.place(&[], "");
        return one(global, &context, Source::Usage(&request), place, &target).await;
    }
    for meter in asked {
        let request = UsageRequest { meters: vec![meter.clone()], ..request.clone() };
        let period = period_name(&context, &request)?;
        let place = target.place(&[("meter", meter), ("period", &period)], "usage");
        one(global, &context, Source::Usage(&request), place, &target).await?;
    }
    Ok(())
}

async fn statements(global: &Global, flags: &ExportStatementsFlags) -> Result<(), Failure> {
    let target = target(&flags.file)?;
    let context = context(global, Vec::new()).await?;
    target.check(&context)?;
    let closings = closings(&context, flags).await?;
    if target.file.is_some() {
        let place = target.place(&[], "");
        return one(global, &context, Source::Statements(&closings), place, &target).await;
    }
    for closing in &closings {
        let of = &closing.record;
        let place = target.place(&[("meter", &of.meter), ("period", &of.period)], "statement");
        let source = Source::Statements(std::slice::from_ref(closing));
        one(global, &context, source, place, &target).await?;
    }
    Ok(())
}

/// The closings that hold of what the flags ask for, by meter and period.
async fn closings(context: &Context, flags: &ExportStatementsFlags) -> Result<Vec<Closing>> {
    let mut all = period::list(&context.lake, None).await?;
    all.retain(Closing::holds);
    let mut names: Vec<String> = all.iter().map(|closing| closing.record.meter.clone()).collect();
    names.dedup();
    if let Some(missing) = flags.meters.iter().find(|name| !names.contains(name)) {
        return Err(Error::not_found(format!("no period of meter `{missing}` is closed")));
    }
    names.retain(|name| flags.meters.is_empty() || flags.meters.contains(name));
    all.retain(|closing| names.contains(&closing.record.meter));
    if let Some(period) = &flags.period {
        let mut of_period = Vec::new();
        for name in &names {
            match period::find(context, name, period).await {
                Ok(closing) if closing.holds() => of_period.push(closing),
                // Without names, those that closed it are meant.
                Err(error) if !flags.meters.is_empty() => return Err(error),
                _ => {}
            }
        }
        all = of_period;
    }
    match all.is_empty() {
        false => Ok(all),
        true => Err(Error::not_found(match &flags.period {
            Some(period) => {
                format!("no period `{period}` is closed; `meterhouse periods list` shows which are")
            }
            None => "no period is closed; `meterhouse periods close` does that".to_owned(),
        })),
    }
}

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
    let asked = Export { source, place, format, events, replace: target.replace };
    let exported = export(context, &asked).await?;
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
    }
    Ok(())
}

/// Where an export goes.
struct Target {
    location: Location,
    /// The name of the file; a folder gets files of its own.
    file: Option<String>,
    format: Format,
    events: Option<MeterEvents>,
    replace: bool,
}

impl Target {
    fn place(&self, folders: &[(&str, &str)], stem: &str) -> Place {
        let name = match &self.file {
            Some(name) => name.clone(),
            None => format!("{stem}.{}", self.format.extension()),
        };
        Place::new(&self.location, folders, &name)
    }

    /// Refuses what lies in the lake, where no file but its own belongs.
    fn check(&self, context: &Context) -> Result<()> {
        let lake = &context.lake.location;
        match self.location.url == lake.url && self.location.root.prefix_matches(&lake.root) {
            false => Ok(()),
            true => Err(Error::invalid(format!(
                "{} lies in the lake {lake}: export to a place beside it",
                self.location
            ))),
        }
    }
}

/// Understands where an export is to go.
fn target(flags: &FileFlags) -> Result<Target, Failure> {
    let (folder, name) = match flags.out.rsplit_once('/') {
        Some((folder, name)) if !folder.is_empty() => (folder, name),
        Some((_, name)) => ("/", name),
        None => (".", flags.out.as_str()),
    };
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    let of_name = extension.as_deref().and_then(Format::of_extension);
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
        Format::Stripe => Some(meter_events(flags)?),
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
    if std::path::Path::new(folder).is_file() {
        return Err(Failure::Arguments(format!(
            "--out {}: {folder} is a file, no folder",
            flags.out
        )));
    }
    let location = Location::parse_with(folder, &cloud_settings())?;
    Ok(Target { location, file, format, events, replace: flags.replace })
}

fn meter_events(flags: &FileFlags) -> Result<MeterEvents> {
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
    Ok(MeterEvents { event_name, customers, leave_unattributed })
}
