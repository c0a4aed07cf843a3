//! What was begun and what became of it, as notes in the lake.
//!
//! Whoever puts the note of a claim does the job. A claim holds for [`CLAIM_MICROS`], or until its outcome
//! is put beside it; after that somebody was killed, and the next one claims the next attempt. The names of
//! the notes say all that is needed to tell what is still to be done.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Due, Job};
use crate::error::{Error, Result};
use crate::lake::table::Table;
use crate::time::Timestamp;

/// The folder of the notes.
const KIND: &str = "schedule";

/// How long a claim without an outcome holds, in microseconds.
const CLAIM_MICROS: i64 = 15 * 60 * 1_000_000;

/// How long after a failure a job is tried again, in microseconds.
const RETRY_MICROS: i64 = 60 * 60 * 1_000_000;

/// Runs of an expression's job that are remembered.
const REMEMBERED: usize = 20;

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Somebody does it, or was killed over it.
    Begun,
    /// It failed.
    Failed,
    /// It was done.
    Done,
}

/// An attempt at a job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// Name of the job.
    pub job: String,
    /// What it was for: [`Due::of`].
    pub due: Timestamp,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// How far it has come.
    pub state: State,
}

/// The right to do a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim(Run);

/// What a note says beside its name.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl Run {
    fn note(&self, state: State) -> String {
        let word = match state {
            State::Begun => "begun",
            State::Failed => "failed",
            State::Done => "done",
        };
        format!("{}.{}.{word}.{}.json", self.due.micros(), self.attempt, self.job)
    }

    fn of_note(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(".json")?.split('.');
        let due = Timestamp::from_micros(parts.next()?.parse().ok()?);
        let attempt = parts.next()?.parse().ok()?;
        let state = match parts.next()? {
            "begun" => State::Begun,
            "failed" => State::Failed,
            "done" => State::Done,
            _ => return None,
        };
        Some(Self { job: parts.next()?.to_owned(), due, attempt, state })
    }
}

/// The attempts at all jobs, each as far as it has come, by job, instant and attempt.
///
/// # Errors
/// A store that cannot be read.
pub async fn runs(events: &Table) -> Result<Vec<Run>> {
    let mut furthest: BTreeMap<(String, Timestamp, u32), State> = BTreeMap::new();
    for run in events.note_names(KIND).await?.iter().filter_map(|name| Run::of_note(name)) {
        let state = furthest.entry((run.job, run.due, run.attempt)).or_insert(run.state);
        *state = run.state.max(*state);
    }
    let run = |((job, due, attempt), state)| Run { job, due, attempt, state };
    Ok(furthest.into_iter().map(run).collect())
}

/// Claims what `job` is due for; `None` where it was done, somebody else does it, or it failed a moment
/// ago.
///
/// # Errors
/// A store that cannot be read or written.
pub async fn claim(
    events: &Table,
    job: &Job,
    due: &Due,
    (now, by): (Timestamp, Option<String>),
) -> Result<Option<Claim>> {
    let runs = runs(events).await?;
    let of_due: Vec<&Run> =
        runs.iter().filter(|run| run.job == job.name && run.due == due.of).collect();
    if of_due.iter().any(|run| run.state == State::Done) {
        return Ok(None);
    }
    let mut attempt = 1;
    if let Some(last) = of_due.last() {
        let since = events.note_put_at(KIND, &last.note(last.state)).await?;
        let holds = match last.state {
            State::Begun => CLAIM_MICROS,
            State::Failed if job.is_retried() => RETRY_MICROS,
            State::Failed | State::Done => return Ok(None),
        };
        if now.micros().saturating_sub(since) < holds {
            return Ok(None);
        }
        attempt = last.attempt + 1;
    }
    let run = Run { job: job.name.clone(), due: due.of, attempt, state: State::Begun };
    let is_ours =
        put(events, &run, State::Begun, Told { at: now.to_string(), by, message: None }).await?;
    Ok(is_ours.then_some(Claim(run)))
}

/// Says what became of a claim: `failed` tells why it was not done.
///
/// # Errors
/// A store that cannot be written.
pub async fn finish(
    events: &Table,
    claim: Claim,
    failed: Option<String>,
    (now, by): (Timestamp, Option<String>),
) -> Result<()> {
    let state = if failed.is_some() { State::Failed } else { State::Done };
    put(events, &claim.0, state, Told { at: now.to_string(), by, message: failed }).await?;
    Ok(())
}

/// Forgets the runs of an expression's job but for the last ones.
///
/// # Errors
/// A store that cannot be read or written.
pub async fn forget_old(events: &Table, job: &Job) -> Result<()> {
    if job.is_retried() {
        return Ok(());
    }
    let mut of_due: BTreeMap<Timestamp, Vec<String>> = BTreeMap::new();
    for name in events.note_names(KIND).await? {
        if let Some(run) = Run::of_note(&name).filter(|run| run.job == job.name) {
            of_due.entry(run.due).or_default().push(name);
        }
    }
    let old = of_due.len().saturating_sub(REMEMBERED);
    for name in of_due.into_values().take(old).flatten() {
        events.delete_note(KIND, &name).await?;
    }
    Ok(())
}

/// Why a run failed.
///
/// # Errors
/// A store that cannot be read, a damaged note.
pub async fn message(events: &Table, run: &Run) -> Result<Option<String>> {
    let Some(text) = events.read_note(KIND, &run.note(run.state)).await? else { return Ok(None) };
    let told: Told = serde_json::from_slice(&text).map_err(|error| {
        Error::corrupt(format!(
            "{}: damaged note {}: {error}",
            events.display(),
            run.note(run.state)
        ))
    })?;
    Ok(told.message)
}

async fn put(events: &Table, run: &Run, state: State, told: Told) -> Result<bool> {
    let text = serde_json::to_vec(&told)
        .map_err(|error| Error::internal("the note of a run").with_source(error))?;
    events.put_note(KIND, &run.note(state), text).await
}
