//! `meterhouse meters diff`: what another definition would say, for whom, before it is used.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::flags::{DiffFlags, Global};
use super::numbers::{counted, grouped, grouped_text};
use super::opening::{context, load_meter_files, resolve_at};
use super::outcome::{Failure, Outcome};
use super::output::{check_format, numeric, say, write_rows};
use crate::comparison::{COLUMNS, Comparison, compare};
use crate::decimal::Decimal;
use crate::error::{Error, Result};
use crate::meter::{Billing, Meter, TablePlace, describe, load_file, version};
use crate::registry;
use crate::usage::{Context, Grouping, UsageRequest, published_for, reference};

/// The definition in the folder of meters.
const FILE: &str = "file";
/// The published definition that is in effect for what is asked.
const PUBLISHED: &str = "published";

/// Runs the command.
pub(super) async fn run(global: &Global, flags: &DiffFlags) -> Result<Outcome, Failure> {
    let format = flags.output.output;
    check_format(format)?;
    let context = context(global, Vec::new()).await?;
    let at = resolve_at(&context.lake, flags.at.at.as_ref()).await?;
    let request = UsageRequest {
        period: flags.period.clone(),
        from: flags.from.clone(),
        to: flags.to.clone(),
        grouping: match (flags.total, flags.by.is_empty()) {
            (true, _) => Grouping::Total,
            (false, true) => Grouping::Customer,
            (false, false) => Grouping::By(flags.by.clone()),
        },
        customer: flags.customer.clone(),
        conditions: flags.conditions.clone(),
        timezone: flags.tz.clone(),
        at,
        ..UsageRequest::default()
    };
    let asked = Asked { global, context: &context, name: &flags.meter, request: &request };
    let old = asked.definition(flags.old.as_deref().unwrap_or(PUBLISHED)).await?;
    let new = asked.definition(flags.new.as_deref().unwrap_or(FILE)).await?;
    if version(&old) == version(&new) {
        if !global.quiet {
            say(&format!("{} is what both say: nothing to compare", reference(&old)));
        }
        return Ok(Outcome::Done);
    }
    let compared = compare(&context, [&old, &new], &request, flags.all).await?;
    write_rows(format, &numeric(format, &compared.rows, &COLUMNS)?)?;
    if !global.quiet {
        say(&definitions_text(&old, &new));
        say(&summary(&compared, &request.grouping));
    }
    Ok(Outcome::Done)
}

/// The meter and the question for which its definitions are looked for.
struct Asked<'a> {
    global: &'a Global,
    context: &'a Context,
    name: &'a str,
    request: &'a UsageRequest,
}

impl Asked<'_> {
    /// A definition as it is named on the command line; says which one is the published one.
    async fn definition(&self, which: &str) -> Result<Meter> {
        let (table, name) = (&self.context.lake.events, self.name);
        match which {
            FILE => {
                let mut files = load_meter_files(self.global, &[name.to_owned()])?;
                let found = files.pop().map(|(_, meter)| meter);
                found.ok_or_else(|| Error::not_found(format!("no meter `{name}`")))
            }
            PUBLISHED => {
                let UsageRequest { period, from, to, .. } = self.request;
                let when = match [period, from, to].into_iter().any(Option::is_some) {
                    true => "throughout the range",
                    false => "now",
                };
                let meter = published_for(self.context, self.request, name).await?;
                if !self.global.quiet {
                    say(&format!("published is {}, in effect {when}", reference(&meter)));
                }
                Ok(meter)
            }
            path if path.contains(['/', '\\', '.']) => load_file(Path::new(path)),
            prefix => {
                let version = registry::find(table, name, prefix).await?;
                registry::definition(table, name, &version).await
            }
        }
    }
}

/// What two definitions have not in common, in lines; their versions are told anyway.
fn definitions_text(old: &Meter, new: &Meter) -> String {
    let (old_text, new_text) = (describe(old), describe(new));
    let only = |these: &str, those: &str, mark: &str| -> Vec<String> {
        let lines = these.lines().filter(|line| !those.lines().any(|other| other == *line));
        let lines = lines.filter(|line| !line.starts_with("version "));
        lines.map(|line| format!("{mark} {line}")).collect()
    };
    let mut lines = only(&old_text, &new_text, "-");
    lines.extend(only(&new_text, &old_text, "+"));
    for (name, lookup) in &new.lookups {
        let Some(before) = old.lookups.get(name) else { continue };
        // What the lake has is not read here.
        if !in_files(&before.table, &lookup.table) {
            continue;
        }
        let mut keys = differing(&before.rows, &lookup.rows);
        keys.extend(differing(&before.history, &lookup.history));
        lines.extend(tables_text(&format!("tables of lookup {name}"), keys.len(), "key"));
    }
    if let (Some(Billing::PerCustomer(before)), Some(Billing::PerCustomer(after))) =
        (&old.billing, &new.billing)
        && in_files(&before.table, &after.table)
    {
        let customers = differing(&before.rows, &after.rows);
        lines.extend(tables_text("tables of billing", customers.len(), "customer"));
    }
    lines.join("\n")
}

fn in_files(one: &TablePlace, other: &TablePlace) -> bool {
    matches!((one, other), (TablePlace::File(_), TablePlace::File(_)))
}

/// The keys that two tables have not in common, or other rows of.
fn differing<'t, V: PartialEq>(
    one: &'t BTreeMap<String, V>,
    other: &'t BTreeMap<String, V>,
) -> BTreeSet<&'t String> {
    one.keys().chain(other.keys()).filter(|key| one.get(*key) != other.get(*key)).collect()
}

fn tables_text(tables: &str, differ: usize, what: &str) -> Option<String> {
    (differ > 0).then(|| format!("  the {tables} differ in {}", counted(differ as u64, what)))
}

fn summary(compared: &Comparison, grouping: &Grouping) -> String {
    let what = match grouping {
        Grouping::Customer => "customers",
        Grouping::By(_) | Grouping::Breakdown => "groups",
        Grouping::Total => "totals",
    };
    let [old, new] = &compared.notes;
    let bounds = match (&new.from, &new.to) {
        (None, None) => "all of history".to_owned(),
        (Some(from), None) => format!("from {from}"),
        (None, Some(to)) => format!("until {to}"),
        (Some(from), Some(to)) => format!("{from} to {to}"),
    };
    format!(
        "{}: {} to {}  {bounds} {}  table version {}\n{} of {} {what} differ, {}",
        new.meter,
        old.meter_version,
        new.meter_version,
        new.zone,
        new.table_version,
        grouped(compared.changed),
        grouped(compared.groups),
        totals_text(&compared.totals),
    )
}

fn totals_text([old, new]: &[Option<Decimal>; 2]) -> String {
    let text = |total: &Option<Decimal>| {
        total.as_ref().map_or("nothing".to_owned(), |total| grouped_text(&total.to_string()))
    };
    let zero = Decimal::from(0);
    let difference = new.as_ref().unwrap_or(&zero) - old.as_ref().unwrap_or(&zero);
    let change = match difference.to_string() {
        same if same == "0" => "no change".to_owned(),
        less if less.starts_with('-') => format!("{} less", grouped_text(&less[1..])),
        more => format!("{} more", grouped_text(&more)),
    };
    format!("total {} before, {} after: {change}", text(old), text(new))
}
