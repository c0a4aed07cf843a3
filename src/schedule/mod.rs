//! Work that is done again and again: when it is due, and what became of it.
//!
//! A job is due at instants of a cron expression, or once for every period of a calendar that has ended.
//! Of missed instants of an expression the last is caught up; every missed period is, where the command
//! names it. What was begun and
//! what became of it is kept in the lake ([`claim`]), so that of several schedulers one does a job, and
//! another one goes on where one was killed. What jobs do may be done twice without harm; that is what
//! makes them jobs.

use jiff::tz::TimeZone;

use crate::error::{Error, Result};
use crate::time::{BillingCycle, Timestamp, Window, WindowStarts, format_in_zone, window_starts};

mod parse;
mod runs;

pub use parse::parse;
pub use runs::{
    Claim, Claimed, Run, State, Told, claim, finish, forget, release, renew, runs, told,
};

/// What is to be done when.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// IANA name of the zone of expressions and calendars.
    pub zone: String,
    /// The jobs, in the order of the file.
    pub jobs: Vec<Job>,
}

/// Work that is done again and again.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its name; two schedules on one lake share none.
    pub name: String,
    /// When it is due.
    pub when: When,
    /// The command, word by word; `{period}` is the period that it is due for.
    pub run: Vec<String>,
    /// Line of the file that it begins in, from 1.
    pub line: usize,
}

/// When a job is due.
#[derive(Debug, Clone)]
pub enum When {
    /// At the instants of a cron expression.
    Cron(Box<croner::Cron>),
    /// Once for each period.
    Each {
        /// The periods.
        calendar: Calendar,
        /// The first that counts is the one that holds this instant.
        since: Timestamp,
        /// How long after the end of a period it is due, in seconds.
        after_seconds: u64,
    },
}

/// Periods that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Calendar {
    /// Of the zone's calendar.
    Window(Window),
    /// Billing periods.
    Billing(BillingCycle),
}

/// An instant at which a job is due, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// When.
    pub at: Timestamp,
    /// What tells it from others: end and begin of a period; twice the instant of an expression.
    pub of: [Timestamp; 2],
    /// The period, as questions name it.
    pub period: Option<String>,
}

impl Job {
    /// The words of the command for what it is due for.
    pub fn words(&self, due: &Due) -> Vec<String> {
        let period = due.period.as_deref().unwrap_or_default();
        self.run.iter().map(|word| word.replace("{period}", period)).collect()
    }

    /// What it is known by: its name and its command, as another command is another job.
    pub fn key(&self) -> String {
        let told = serde_json::Value::from(self.run.clone()).to_string();
        let digits = blake3::hash(told.as_bytes()).to_hex();
        format!("{}.{}", self.name, digits.get(..8).unwrap_or(&digits))
    }

    /// Whether its command names the period that it is due for.
    pub fn names_period(&self) -> bool {
        self.run.iter().any(|word| word.contains("{period}"))
    }

    /// Whether what failed is tried again before it is due the next time: every period counts.
    pub fn is_retried(&self) -> bool {
        matches!(self.when, When::Each { .. })
    }
}

/// What of `job` is due by `now`, done or not: the last instant of an expression, every period, of which
/// only the last counts where the command is the same for all of them.
///
/// # Errors
/// More periods than anybody has.
pub fn due(job: &Job, zone: &TimeZone, now: Timestamp) -> Result<Vec<Due>> {
    match &job.when {
        When::Cron(cron) => {
            let last = cron.find_previous_occurrence(&zoned(now, zone)?, true).ok();
            Ok(last.as_ref().map(at).into_iter().collect())
        }
        When::Each { calendar, since, after_seconds } => {
            let starts = calendar.starts(zone, *since, now)?;
            let dues = starts.between(since.micros(), now.micros()).filter_map(|start| {
                let end = starts.end_of(start);
                let at = after(end, *after_seconds);
                (at <= now).then(|| Due {
                    at,
                    of: [end, start].map(Timestamp::from_micros),
                    period: Some(calendar.name((start, end), zone)),
                })
            });
            let last = |dues: Vec<Due>| dues.into_iter().next_back().into_iter().collect();
            Ok(if job.names_period() { dues.collect() } else { last(dues.collect()) })
        }
    }
}

/// When what was begun or failed at `since`, and is still to be done, is tried again; `None` where that is
/// not before it is due the next time.
pub fn tried_again(job: &Job, state: State, since: Timestamp) -> Option<Timestamp> {
    runs::holds_micros(job, state).map(|holds| Timestamp::from_micros(since.micros() + holds))
}

/// When `job` is due the next time after `now`.
///
/// # Errors
/// As [`due`].
pub fn next(job: &Job, zone: &TimeZone, now: Timestamp) -> Result<Option<Timestamp>> {
    match &job.when {
        When::Cron(cron) => {
            Ok(cron.find_next_occurrence(&zoned(now, zone)?, false).ok().map(|due| at(&due).at))
        }
        When::Each { calendar, since, after_seconds } => {
            // A period is due in time to come that has not ended, or not long enough ago.
            let first = before(now, *after_seconds).max(*since);
            let starts = calendar.starts(zone, first, first)?;
            let start = starts.start_of(first.micros());
            Ok(Some(after(starts.end_of(start), *after_seconds)))
        }
    }
}

impl Calendar {
    fn starts(&self, zone: &TimeZone, from: Timestamp, to: Timestamp) -> Result<WindowStarts> {
        let to = to.max(from);
        match self {
            Self::Window(window) => window_starts(*window, zone, from, to),
            Self::Billing(cycle) => cycle.periods(from, to),
        }
    }

    /// What questions call a period.
    fn name(&self, (start, end): (i64, i64), zone: &TimeZone) -> String {
        let day = |micros| {
            let mut text = format_in_zone(Timestamp::from_micros(micros), zone);
            text.truncate("2026-10-01".len());
            text
        };
        let (from, to) = (day(start), day(end));
        let cut = |length: usize| from.get(..length).unwrap_or(&from).to_owned();
        match self {
            // A day on which one period ends and another begins names neither.
            Self::Billing(_) => format!("billing:{}", first_whole_day(start, zone)),
            Self::Window(Window::DAY) => from,
            Self::Window(Window::MONTH) => cut("2026-10".len()),
            Self::Window(Window::YEAR) => cut("2026".len()),
            Self::Window(_) => format!("{from}..{to}"),
        }
    }
}

/// The first date that begins at an instant or after it.
fn first_whole_day(micros: i64, zone: &TimeZone) -> jiff::civil::Date {
    let at = jiff::Timestamp::from_microsecond(micros).unwrap_or_default().to_zoned(zone.clone());
    let begins_it = at.start_of_day().is_ok_and(|start| start == at);
    if begins_it { at.date() } else { at.date().tomorrow().unwrap_or(at.date()) }
}

fn zoned(at: Timestamp, zone: &TimeZone) -> Result<jiff::Zoned> {
    let instant = jiff::Timestamp::from_microsecond(at.micros())
        .map_err(|error| Error::internal("an instant beyond the calendar").with_source(error))?;
    Ok(instant.to_zoned(zone.clone()))
}

fn at(due: &jiff::Zoned) -> Due {
    let at = Timestamp::from_micros(due.timestamp().as_microsecond());
    Due { at, of: [at, at], period: None }
}

fn after(micros: i64, seconds: u64) -> Timestamp {
    Timestamp::from_micros(micros.saturating_add(span(seconds)))
}

fn before(at: Timestamp, seconds: u64) -> Timestamp {
    Timestamp::from_micros(at.micros().saturating_sub(span(seconds)))
}

fn span(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::parse_zone;

    fn instant(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    fn schedule(jobs: &str) -> Schedule {
        let text = format!("timezone: Europe/Berlin\njobs:\n{jobs}");
        parse(&text, "s.yaml").unwrap_or_else(|found| panic!("{found}"))
    }

    fn dues(jobs: &str, now: &str) -> Vec<(String, Option<String>)> {
        let schedule = schedule(jobs);
        let zone = parse_zone(&schedule.zone).unwrap();
        let dues = due(&schedule.jobs[0], &zone, instant(now)).unwrap();
        dues.into_iter().map(|due| (due.at.to_string(), due.period)).collect()
    }

    fn next_at(jobs: &str, now: &str) -> String {
        let schedule = schedule(jobs);
        let zone = parse_zone(&schedule.zone).unwrap();
        next(&schedule.jobs[0], &zone, instant(now)).unwrap().unwrap().to_string()
    }

    #[test]
    fn of_an_expression_the_last_instant_is_due() {
        let job = "  - { name: j, cron: \"30 2 * * *\", run: [compact] }\n";
        let at = |text: &str| vec![(text.to_owned(), None)];
        assert_eq!(dues(job, "2026-07-10T00:29:59Z"), at("2026-07-09T00:30:00Z"));
        assert_eq!(dues(job, "2026-07-10T00:30:00Z"), at("2026-07-10T00:30:00Z"));
        assert_eq!(next_at(job, "2026-07-10T00:30:00Z"), "2026-07-11T00:30:00Z");
        // A half past two that the clocks skip, or have twice, is one instant.
        assert_eq!(next_at(job, "2026-03-28T12:00:00Z"), "2026-03-29T01:00:00Z");
        assert_eq!(next_at(job, "2026-10-24T12:00:00Z"), "2026-10-25T00:30:00Z");
    }

    #[test]
    fn every_period_that_has_ended_is_due_once() {
        let job = "  - { name: j, each: month, since: 2026-01, after: 3d, run: [periods, close, \"{period}\"] }\n";
        let of = |at: &str, period: &str| (at.to_owned(), Some(period.to_owned()));
        assert_eq!(
            dues(job, "2026-04-03T22:00:00Z"),
            [
                of("2026-02-03T23:00:00Z", "2026-01"),
                of("2026-03-03T23:00:00Z", "2026-02"),
                of("2026-04-03T22:00:00Z", "2026-03"),
            ]
        );
        assert_eq!(dues(job, "2026-04-03T21:59:59Z").len(), 2);
        assert_eq!(next_at(job, "2026-04-03T21:59:59Z"), "2026-04-03T22:00:00Z");
        assert_eq!(next_at(job, "2026-04-03T22:00:00Z"), "2026-05-03T22:00:00Z");
        assert_eq!(next_at(job, "2020-04-03T22:00:00Z"), "2026-02-03T23:00:00Z");
        let week =
            "  - { name: j, each: week, since: 2026-03-03, run: [periods, close, \"{period}\"] }\n";
        assert_eq!(
            dues(week, "2026-03-16T00:00:00Z"),
            [
                of("2026-03-08T23:00:00Z", "2026-03-02..2026-03-09"),
                of("2026-03-15T23:00:00Z", "2026-03-09..2026-03-16"),
            ]
        );
        // What does not name its period is the same work for all of them.
        let tidy = "  - { name: j, each: week, since: 2026-03-03, run: [verify] }\n";
        assert_eq!(
            dues(tidy, "2026-03-16T00:00:00Z"),
            [of("2026-03-15T23:00:00Z", "2026-03-09..2026-03-16")]
        );
        let within_a_day = "  - { name: j, each: billing_period, anchor: \"2026-01-15T06:00\", since: 2026-01-16, run: [periods, close, \"{period}\"] }\n";
        assert_eq!(
            dues(within_a_day, "2026-02-20T00:00:00Z"),
            [of("2026-02-15T05:00:00Z", "billing:2026-01-16")]
        );
        let billing = "  - { name: j, each: billing_period, anchor: 2026-01-31, since: 2026-01-31, run: [periods, close, \"{period}\"] }\n";
        assert_eq!(
            dues(billing, "2026-03-31T00:00:00Z"),
            [
                of("2026-02-27T23:00:00Z", "billing:2026-01-31"),
                of("2026-03-30T22:00:00Z", "billing:2026-02-28")
            ]
        );
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_place() {
        for (jobs, want) in [
            ("  - { name: j, cron: \"61 * * * *\", run: [compact] }\n", "s.yaml:3:"),
            (
                "  - { name: j, cron: \"61 * * * *\", run: [compact] }\n",
                "minute, hour, day of the month",
            ),
            ("  - { name: j, run: [compact] }\n", "when"),
            ("  - { name: j, cron: \"0 0 30 2 *\", run: [compact] }\n", "never comes"),
            (
                "  - { name: j, cron: \"@hourly\", each: day, run: [compact] }\n",
                "cannot stand together",
            ),
            ("  - { name: J!, cron: \"@hourly\", run: [compact] }\n", "is no name of a job"),
            ("  - { name: j, each: fortnight, since: 2026-01, run: [compact] }\n", "fortnight"),
            (
                "  - { name: j, each: hour, since: 2026-01, run: [compact] }\n",
                "day, week, month, quarter, year",
            ),
            ("  - { name: j, each: month, run: [compact] }\n", "missing key `since`"),
            (
                "  - { name: j, each: billing_period, since: 2026-01, run: [compact] }\n",
                "missing key `anchor`",
            ),
            ("  - { name: j, each: month, since: soon, run: [compact] }\n", "soon"),
            (
                "  - { name: j, cron: \"@hourly\", run: [compact, \"{period}\"] }\n",
                "`{period}` is of jobs with `each`",
            ),
            (
                "  - { name: j, cron: \"@hourly\", run: [compact], after: 3d }\n",
                "`after` is of jobs with `each`",
            ),
            ("  - { name: j, cron: \"@hourly\", run: [] }\n", "run"),
            ("  - { name: j, cron: \"@hourly\", rnu: [compact] }\n", "run"),
            (
                "  - { name: j, cron: \"@hourly\", run: [compact] }\n  - { name: j, cron: \"@daily\", run: [compact] }\n",
                "line 3 already",
            ),
        ] {
            let text = format!("timezone: Europe/Berlin\njobs:\n{jobs}");
            let found = parse(&text, "s.yaml").unwrap_err().to_string();
            assert!(found.contains(want), "{jobs}: {found}");
        }
        let found = parse("timezone: Mars/Base\njobs: []\n", "s.yaml").unwrap_err().to_string();
        assert!(found.contains("Mars/Base"), "{found}");
    }

    #[test]
    fn the_schema_has_the_words_of_the_parser() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../queries/schema/schedule.schema.json"))
                .unwrap();
        for (pointer, words) in
            [("/properties", &parse::FILE[..]), ("/$defs/job/properties", &parse::JOB)]
        {
            let known = schema.pointer(pointer).unwrap().as_object().unwrap().keys();
            let known: std::collections::BTreeSet<&str> = known.map(String::as_str).collect();
            assert_eq!(known, words.iter().copied().collect(), "{pointer}");
        }
    }
}
