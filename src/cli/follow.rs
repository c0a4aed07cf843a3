//! `meterhouse ingest --follow`: new files of a folder, each once, until somebody stops it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::flags::{Global, IngestFlags};
use super::ingest::{ingested, settings};
use super::numbers::counted;
use super::opening::{Target, cloud_settings, open_target};
use super::outcome::{Failure, Outcome, error_text};
use super::output::say;
use crate::error::{Error, ErrorKind, Result};
use crate::ingest::follow::Ledger;
use crate::ingest::input::{Input, expand};

/// Follows the paths of `flags`, looking every so often.
pub(super) async fn run(global: &Global, flags: &IngestFlags) -> Result<Outcome, Failure> {
    let mut following = Following {
        global,
        flags,
        target: open_target(global, false).await?,
        unreadable: BTreeMap::new(),
        last_said: String::new(),
        outcome: Outcome::Done,
    };
    let pause = Duration::from_secs(flags.every.into());
    loop {
        following.look().await?;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            stopped = tokio::signal::ctrl_c() => {
                stopped.map_err(|error| Error::internal(format!("signals: {error}")))?;
                return Ok(following.outcome);
            }
        }
    }
}

struct Following<'f> {
    global: &'f Global,
    flags: &'f IngestFlags,
    target: Target,
    /// Inputs that are no events at all, by the mark of the content that was tried.
    unreadable: BTreeMap<String, String>,
    /// What is said again only once something else was.
    last_said: String,
    outcome: Outcome,
}

impl Following<'_> {
    /// Reads what is new. What may go better the next time is told and tried again then.
    ///
    /// # Errors
    /// What looking again cannot mend: wrong arguments, a damaged lake.
    async fn look(&mut self) -> Result<(), Failure> {
        match self.read_new().await {
            Err(Failure::Failed(error)) if may_pass(&error) => {
                let every = counted(self.flags.every.into(), "second");
                self.say_once(&format!("{}; looking again every {every}", error_text(&error)));
                Ok(())
            }
            other => other,
        }
    }

    async fn read_new(&mut self) -> Result<(), Failure> {
        let settings = cloud_settings();
        let listed = expand(&self.flags.paths, self.flags.format, &settings).await?;
        let mut ledger = Ledger::open(&self.target.lake).await?;
        let new: Vec<Input> = listed
            .into_iter()
            .filter(|input| input.is_settled() && !ledger.has(input) && !self.is_unreadable(input))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let together = new.len();
        match self.read(&new, &mut ledger).await {
            Err(Failure::Failed(error)) if together > 1 && error.kind() != ErrorKind::Conflict => {}
            other => return self.refused(&new, other),
        }
        // One of them is at fault, and must not keep the others out.
        let mut ledger = Ledger::open(&self.target.lake).await?;
        for input in new.into_iter().filter(|input| !ledger.has(input)).collect::<Vec<_>>() {
            let read = self.read(std::slice::from_ref(&input), &mut ledger).await;
            self.refused(&[input], read)?;
        }
        Ok(())
    }

    async fn read(&mut self, inputs: &[Input], ledger: &mut Ledger) -> Result<(), Failure> {
        let marked = |input: &Input| Some((input.name.clone(), input.mark()?));
        let marks: BTreeMap<String, String> = inputs.iter().filter_map(marked).collect();
        let mut settings = settings(self.global, self.flags, inputs)?;
        settings.marks = marks.clone();
        let ended = ingested(self.global, &self.target, inputs.to_vec(), settings).await?;
        if ended != Outcome::Done {
            self.outcome = ended;
        }
        self.last_said.clear();
        ledger.note(marks).await?;
        Ok(())
    }

    /// Passes over an input that cannot be read as events, until it changes.
    fn refused(&mut self, inputs: &[Input], read: Result<(), Failure>) -> Result<(), Failure> {
        match (read, inputs) {
            (Err(Failure::Failed(error)), [input]) if error.kind() == ErrorKind::Invalid => {
                say(&format!("{}; passed over until it changes", error_text(&error)));
                self.unreadable.extend(input.mark().map(|mark| (input.name.clone(), mark)));
                self.outcome = Outcome::SomeRefused;
                Ok(())
            }
            (Err(Failure::Failed(error)), [_]) if may_pass(&error) => {
                self.say_once(&error_text(&error));
                Ok(())
            }
            (read, _) => read,
        }
    }

    fn is_unreadable(&self, input: &Input) -> bool {
        let tried = self.unreadable.get(&input.name);
        tried.is_some_and(|mark| input.mark().as_ref() == Some(mark))
    }

    fn say_once(&mut self, text: &str) {
        if self.last_said != text {
            say(text);
            text.clone_into(&mut self.last_said);
        }
    }
}

/// Whether it may go better the next time: nothing there yet, somebody else at work, a store away.
fn may_pass(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict | ErrorKind::Unavailable)
}
