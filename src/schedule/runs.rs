//! What was begun and what became of it, as notes in the lake.
//!
//! Whoever puts the note of a claim does the job. A claim holds for [`CLAIM_MICROS`] since it was last
//! renewed, or until its outcome is put beside it; after that somebody was killed, and the next one claims
//! the next attempt. The names of
//! the notes say all that is needed to tell what is still to be done.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Due, Job};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::table::Table;
use crate::time::Timestamp;

/// The folder of the notes.
const KIND: &str = "schedule";

/// How long a claim without an outcome holds, in microseconds.
const CLAIM_MICROS: i64 = 15 * 60 * 1_000_000;

/// How long after a failure, or where some is to be done later, a job is tried again, in microseconds.
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
    /// What could be done by then was done.
    Later,
    /// It was done.
    Done,
}

/// An attempt at a job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// The job: [`Job::key`].
    pub job: String,
    /// What it was for: [`Due::of`].
    pub of: [Timestamp; 2],
    /// 1 for the first attempt.
    pub attempt: u32,
    /// How far it has come.
    pub state: State,
}

/// The right to do a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim(Run);

/// What a note says beside its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// When, RFC 3339.
    pub at: String,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why it failed, or is not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Run {
    fn note(&self, state: State) -> String {
        let word = match state {
            State::Begun => "begun",
            State::Failed => "failed",
            State::Later => "later",
            State::Done => "done",
        };
        let [end, begin] = self.of.map(Timestamp::micros);
        format!("{end}.{begin}.{}.{word}.{}.json", self.attempt, self.job)
    }

    fn of_note(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(".json")?.split('.');
        let mut instant = || Some(Timestamp::from_micros(parts.next()?.parse().ok()?));
        let of = [instant()?, instant()?];
        let attempt = parts.next()?.parse().ok()?;
        let state = match parts.next()? {
            "begun" => State::Begun,
            "failed" => State::Failed,
            "later" => State::Later,
            "done" => State::Done,
            _ => return None,
        };
        let (name, digits) = (parts.next()?, parts.next()?);
        Some(Self { job: format!("{name}.{digits}"), of, attempt, state })
    }
}

/// The attempts at all jobs, each as far as it has come, by job, instant and attempt.
///
/// # Errors
/// A store that cannot be read.
pub async fn runs(events: &Table) -> Result<Vec<Run>> {
    let mut furthest: BTreeMap<(String, [Timestamp; 2], u32), State> = BTreeMap::new();
    for run in events.note_names(KIND).await?.iter().filter_map(|name| Run::of_note(name)) {
        let state = furthest.entry((run.job, run.of, run.attempt)).or_insert(run.state);
        *state = run.state.max(*state);
    }
    let run = |((job, of, attempt), state)| Run { job, of, attempt, state };
    Ok(furthest.into_iter().map(run).collect())
}

/// What came of claiming a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// It is ours to do.
    Ours(Claim),
    /// It is not: it was done, somebody else does it, or it failed or was put off a moment ago.
    Not(State),
}

/// Claims what `job` is due for; what failed or was put off also right after that, where it `retries`.
///
/// # Errors
/// A store that cannot be read or written.
pub async fn claim(
    events: &Table,
    job: &Job,
    due: &Due,
    retries: bool,
    (now, by): (Timestamp, Option<String>),
) -> Result<Claimed> {
    let (runs, key) = (runs(events).await?, job.key());
    let of_due: Vec<&Run> = runs.iter().filter(|run| run.job == key && run.of == due.of).collect();
    if of_due.iter().any(|run| run.state == State::Done) {
        return Ok(Claimed::Not(State::Done));
    }
    let mut attempt = 1;
    if let Some(last) = of_due.last() {
        let since = match events.note_put_at(KIND, &last.note(last.state)).await {
            // Somebody else has just ended it, and forgotten how it began.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Claimed::Not(State::Begun));
            }
            since => since?,
        };
        let holds = match last.state {
            State::Failed | State::Later if retries => Some(0),
            state => holds_micros(job, state),
        };
        if holds.is_none_or(|holds| now.micros().saturating_sub(since) < holds) {
            return Ok(Claimed::Not(last.state));
        }
        attempt = last.attempt + 1;
    }
    let run = Run { job: key, of: due.of, attempt, state: State::Begun };
    let is_ours =
        put(events, &run, State::Begun, Told { at: now.to_string(), by, message: None }).await?;
    Ok(if is_ours { Claimed::Ours(Claim(run)) } else { Claimed::Not(State::Begun) })
}

/// Says that a claim is still worked on.
///
/// # Errors
/// A store that cannot be written.
pub async fn renew(
    events: &Table,
    claim: &Claim,
    (now, by): (Timestamp, Option<String>),
) -> Result<()> {
    let text = encode(&Told { at: now.to_string(), by, message: None })?;
    events.renew_note(KIND, &claim.0.note(State::Begun), text).await
}

/// Takes a claim back, of work that was broken off: the next one who looks may begin it.
///
/// # Errors
/// A store that cannot be written.
pub async fn release(events: &Table, claim: Claim) -> Result<()> {
    let Claim(run) = claim;
    events.delete_note(KIND, &run.note(State::Begun)).await
}

/// How long a run in this state keeps everybody from another attempt; `None` for good.
pub(super) fn holds_micros(job: &Job, state: State) -> Option<i64> {
    match state {
        State::Begun => Some(CLAIM_MICROS),
        State::Failed | State::Later if job.is_retried() => Some(RETRY_MICROS),
        State::Failed | State::Later | State::Done => None,
    }
}

/// Says what became of a claim: `message` tells why it was not done, or not all of it.
///
/// # Errors
/// A store that cannot be written.
pub async fn finish(
    events: &Table,
    claim: Claim,
    (state, message): (State, Option<String>),
    (now, by): (Timestamp, Option<String>),
) -> Result<()> {
    put(events, &claim.0, state, Told { at: now.to_string(), by, message }).await?;
    Ok(())
}

/// Forgets what nobody needs: attempts before the last one, and of an expression's job all but the last
/// runs.
///
/// # Errors
/// A store that cannot be read or written.
pub async fn forget(events: &Table, job: &Job) -> Result<()> {
    let key = job.key();
    let mut of_due: BTreeMap<[Timestamp; 2], Vec<(Run, String)>> = BTreeMap::new();
    for name in events.note_names(KIND).await? {
        if let Some(run) = Run::of_note(&name).filter(|run| run.job == key) {
            of_due.entry(run.of).or_default().push((run, name));
        }
    }
    let remembered = if job.is_retried() { usize::MAX } else { REMEMBERED };
    let old = of_due.len().saturating_sub(remembered);
    for (place, (_, notes)) in of_due.into_iter().enumerate() {
        let is_done = notes.iter().any(|(run, _)| run.state == State::Done);
        let last = notes.iter().map(|(run, _)| run.attempt).max().unwrap_or(0);
        let is_needed = |run: &Run| match is_done {
            true => run.state == State::Done,
            false => run.attempt == last,
        };
        for (run, name) in notes {
            if place < old || !is_needed(&run) {
                events.delete_note(KIND, &name).await?;
            }
        }
    }
    Ok(())
}

/// What the last note of a run says; nothing where it was forgotten a moment ago.
///
/// # Errors
/// A store that cannot be read, a damaged note.
pub async fn told(events: &Table, run: &Run) -> Result<Option<Told>> {
    let name = run.note(run.state);
    let Some(text) = events.read_note(KIND, &name).await? else { return Ok(None) };
    let told = serde_json::from_slice(&text);
    told.map(Some).map_err(|error| {
        Error::corrupt(format!("{}: damaged note {name}: {error}", events.display()))
    })
}

async fn put(events: &Table, run: &Run, state: State, told: Told) -> Result<bool> {
    events.put_note(KIND, &run.note(state), encode(&told)?).await
}

fn encode(told: &Told) -> Result<Vec<u8>> {
    serde_json::to_vec(told)
        .map_err(|error| Error::internal("the note of a run").with_source(error))
}
