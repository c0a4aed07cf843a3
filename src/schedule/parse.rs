//! Reads a file of jobs: text in, a schedule or all that is wrong with it out.

use croner::errors::CronError;
use croner::parser::{CronParser, Year};

use super::{Calendar, Job, Schedule, When};
use crate::document::{
    Content, Diagnostics, Entry, Findings, Keys, Node, filled_text, keys, quote, read_document,
    text, texts,
};
use crate::meter::{FILE_MAX_BYTES, is_identifier};
use crate::time::{
    Anchor, BILLING_PERIOD, BillingCycle, Cycle, Timestamp, Window, parse_bound, parse_period,
    parse_zone,
};

/// Keys of a file.
pub(super) const FILE: [&str; 2] = ["timezone", "jobs"];

/// Keys of a job.
pub(super) const JOB: [&str; 8] =
    ["name", "cron", "each", "anchor", "cycle", "since", "after", "run"];

/// What belongs to `each`.
const OF_EACH: [&str; 4] = ["anchor", "cycle", "since", "after"];

/// Periods of which a job may have one after the other.
const PERIODS: &str = "day, week, month, quarter, year or billing_period";

/// What `cron` takes.
const CRON: &str = "minute, hour, day of the month, month and day of the week, such as \"30 2 * * *\", or \
    @hourly, @daily, @weekly, @monthly, @yearly";

/// The schedule that a file's text (YAML or JSON) holds. `file` is named in messages.
///
/// # Errors
/// Everything that is wrong with the text, each with its place.
pub fn parse(source: &str, file: &str) -> Result<Schedule, Diagnostics> {
    if source.len() > FILE_MAX_BYTES {
        let mut findings = Findings::new("", file, "schedule");
        let message = format!("file of {} bytes is larger than {FILE_MAX_BYTES}", source.len());
        findings.report(&(0..0), message);
        return findings.finish(None);
    }
    let mut findings = Findings::new(source, file, "schedule");
    let schedule = read_document(&mut findings).and_then(|root| schedule(&root, &mut findings));
    findings.finish(schedule)
}

fn schedule(root: &Node, findings: &mut Findings<'_>) -> Option<Schedule> {
    let keys = keys(root, &root.span, "a schedule", &FILE, findings)?;
    let zone = match keys.get("timezone") {
        None => "UTC".to_owned(),
        Some(entry) => {
            let zone = filled_text(entry, findings)?;
            read(entry, parse_zone(&zone), findings)?;
            zone
        }
    };
    let listed = keys.require("jobs", "a list of jobs", findings)?;
    let Content::List(nodes) = &listed.value.content else {
        let message = format!("`jobs` needs a list, not {}", listed.value.kind());
        findings.report(listed.value_span(), message);
        return None;
    };
    let mut jobs: Vec<Job> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let Some(job) = job(node, &zone, findings) else { continue };
        if let Some(first) = jobs.iter().find(|first| first.name == job.name) {
            let message = format!("job {} stands in line {} already", quote(&job.name), first.line);
            findings.report(&node.span, message);
        }
        jobs.push(job);
    }
    Some(Schedule { zone, jobs })
}

fn job(node: &Node, zone: &str, findings: &mut Findings<'_>) -> Option<Job> {
    let keys = keys(node, &node.span, "a job", &JOB, findings)?;
    let name = keys.require("name", "what the job is called", findings);
    let name = name.and_then(|entry| {
        let name = filled_text(entry, findings)?;
        if !is_identifier(&name) {
            let message = format!("{} is no name of a job", quote(&name));
            let help = "a lower-case letter, then letters, digits, `_` and `-`, at most 63";
            findings.report_help(entry.value_span(), message, help);
            return None;
        }
        Some(name)
    });
    let when = when(&keys, zone, findings);
    let run = keys.require("run", "the command in words, such as [rollups, refresh]", findings);
    let run = run.and_then(|entry| {
        let words: Vec<String> =
            texts(entry, findings).into_iter().map(|(text, _)| text.to_owned()).collect();
        if words.is_empty() {
            findings.report(entry.value_span(), "`run` has no words");
            return None;
        }
        let is_odd = |word: &String| word.replace("{period}", "").contains(['{', '}']);
        if let Some(odd) = words.iter().find(|word| is_odd(word)) {
            let message = format!("{} has something in braces that is not {{period}}", quote(odd));
            findings.report(entry.value_span(), message);
            return None;
        }
        let names_period = words.iter().any(|word| word.contains("{period}"));
        if names_period && keys.get("each").is_none() {
            findings.report(entry.value_span(), "`{period}` is of jobs with `each`");
            return None;
        }
        Some(words)
    });
    let line = findings.line(keys.span.start);
    Some(Job { name: name?, when: when?, run: run?, line })
}

fn when(keys: &Keys<'_>, zone: &str, findings: &mut Findings<'_>) -> Option<When> {
    match (keys.get("cron"), keys.get("each")) {
        (Some(_), Some(each)) => {
            let message = "`cron` and `each` cannot stand together";
            findings.report_help(&each.key_span, message, "leave one of them out");
            None
        }
        (None, None) => {
            let help = format!("`cron` with an expression, or `each` with {PERIODS}");
            findings.report_help(&keys.span, "the job does not say when", &*help);
            None
        }
        (Some(entry), None) => {
            for key in OF_EACH {
                if let Some(entry) = keys.get(key) {
                    findings.report(&entry.key_span, format!("`{key}` is of jobs with `each`"));
                }
            }
            let expression = filled_text(entry, findings)?;
            let cron = match CronParser::builder().year(Year::Disallowed).build().parse(&expression)
            {
                Ok(cron) => cron,
                Err(error) => {
                    let message =
                        format!("{} is no time to run: {}", quote(&expression), why(&error));
                    findings.report_help(entry.value_span(), message, CRON);
                    return None;
                }
            };
            let any = jiff::civil::date(2026, 1, 1).to_zoned(parse_zone(zone).ok()?).ok()?;
            if cron.find_next_occurrence(&any, true).is_err() {
                findings.report(entry.value_span(), format!("{} never comes", quote(&expression)));
                return None;
            }
            Some(When::Cron(Box::new(cron)))
        }
        (None, Some(entry)) => each(entry, keys, zone, findings),
    }
}

fn why(error: &CronError) -> String {
    let why = match error {
        CronError::InvalidPattern(why)
        | CronError::IllegalCharacters(why)
        | CronError::ComponentError(why) => why.clone(),
        error => error.to_string(),
    };
    why.trim_end_matches('.').to_lowercase()
}

fn each(entry: &Entry, keys: &Keys<'_>, zone: &str, findings: &mut Findings<'_>) -> Option<When> {
    let word = filled_text(entry, findings)?;
    let calendar = match word.as_str() {
        BILLING_PERIOD => billing(keys, zone, findings).map(Calendar::Billing),
        word => {
            let window = read(entry, word.parse::<Window>(), findings)?;
            if !window.is_of_days() {
                let message = format!("{} is too short for a job: write {PERIODS}", quote(word));
                findings.report(entry.value_span(), message);
                return None;
            }
            Some(Calendar::Window(window))
        }
    };
    let since = keys.require("since", "the first period, such as 2026-10 or 2026-10-15", findings);
    let since = since.and_then(|entry| {
        let written = filled_text(entry, findings)?;
        let zone = parse_zone(zone).ok()?;
        // A month or year is its first instant; a period never depends on today here.
        let is_written = written.starts_with(|c: char| c.is_ascii_digit());
        let period = parse_period(&written, &zone, Timestamp::MIN).ok().filter(|_| is_written);
        match period.and_then(|range| range.from) {
            Some(from) => Some(from),
            None => read(entry, parse_bound(&written, &zone), findings),
        }
    });
    let after_seconds = match keys.get("after") {
        None => Some(0),
        Some(entry) => seconds(entry, findings),
    };
    Some(When::Each { calendar: calendar?, since: since?, after_seconds: after_seconds? })
}

fn billing(keys: &Keys<'_>, zone: &str, findings: &mut Findings<'_>) -> Option<BillingCycle> {
    let anchor = keys.require("anchor", "a day that a billing period begins on", findings)?;
    let anchor = read(anchor, filled_text(anchor, findings)?.parse::<Anchor>(), findings)?;
    let cycle = match keys.get("cycle") {
        None => Cycle::MONTHLY,
        Some(entry) => read(entry, filled_text(entry, findings)?.parse::<Cycle>(), findings)?,
    };
    Some(BillingCycle { anchor, cycle, zone: zone.to_owned() })
}

/// A number of days or hours, such as `3d`.
fn seconds(entry: &Entry, findings: &mut Findings<'_>) -> Option<u64> {
    let written = text(entry, findings)?;
    let unit = |unit: &str, seconds: u64| {
        written.strip_suffix(unit).and_then(|n| n.parse::<u64>().ok()?.checked_mul(seconds))
    };
    let found = unit("d", 86_400).or_else(|| unit("h", 3_600));
    if found.is_none() {
        let message = format!("{} is no time", quote(&written));
        findings.report_help(
            entry.value_span(),
            message,
            "write a number of days or hours: 3d, 12h",
        );
    }
    found
}

/// What was read, or what is wrong with it at its place.
fn read<T, E: std::fmt::Display>(
    entry: &Entry,
    read: Result<T, E>,
    findings: &mut Findings<'_>,
) -> Option<T> {
    match read {
        Ok(value) => Some(value),
        Err(error) => {
            findings.report(entry.value_span(), format!("`{}`: {error}", entry.key));
            None
        }
    }
}
