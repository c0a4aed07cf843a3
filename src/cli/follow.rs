//! `meterhouse ingest --follow`: new files of a folder, each once, until somebody stops it.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use super::flags::{Global, IngestFlags};
use super::ingest::{ingested, settings};
use super::numbers::counted;
use super::opening::{Target, cloud_settings, open_target};
use super::outcome::{Failure, Outcome, error_text};
use super::output::say;
use super::stopped::stopped;
use crate::error::{Error, ErrorKind, Result};
use crate::ingest::follow::Ledger;
use crate::ingest::input::{Input, Place, expand};

/// How long a file rests before it is read.
const SETTLED: Duration = Duration::from_secs(2);
/// How long it rests where its last line is not ended: whoever writes it may only have paused.
const RESTED: Duration = Duration::from_secs(300);

/// Follows the paths of `flags`, looking every so often.
pub(super) async fn run(global: &Global, flags: &IngestFlags) -> Result<Outcome, Failure> {
    if flags.paths.iter().any(|path| path == "-") {
        let message = "--follow looks for files: standard input is followed by itself";
        return Err(Failure::Arguments(message.to_owned()));
    }
    // What is wrong with the flags themselves is no file's fault.
    settings(global, flags, &[])?;
    let target = open_target(global, false).await?;
    let mut following = Following {
        ledger: Ledger::open(&target.lake).await?,
        global,
        flags,
        target,
        seen: BTreeMap::new(),
        unreadable: BTreeMap::new(),
        last_said: String::new(),
        outcome: Outcome::Done,
    };
    if !global.quiet {
        say(&format!("following {}; Ctrl-C ends it", flags.paths.join(", ")));
    }
    let pause = Duration::from_secs(flags.every.into());
    let mut stopped = Box::pin(stopped());
    loop {
        // What is stopped in the middle of an ingest is a run that was stopped, and repeated.
        tokio::select! {
            looked = following.look() => looked?,
            () = &mut stopped => return Ok(following.outcome),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = &mut stopped => return Ok(following.outcome),
        }
    }
}

/// An input, and the mark of the content that was found settled.
struct Marked {
    input: Input,
    mark: String,
}

struct Following<'f> {
    global: &'f Global,
    flags: &'f IngestFlags,
    target: Target,
    ledger: Ledger,
    /// Files by their marks, and since when they have had them.
    seen: BTreeMap<String, (String, Instant)>,
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
    /// What looking again cannot mend: wrong arguments or rights, a damaged lake.
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
        let listed = self.listed().await?;
        self.seen.retain(|name, _| listed.iter().any(|input| input.name == *name));
        let mut new: Vec<Marked> = Vec::new();
        for input in listed {
            let Some(mark) = input.mark() else { continue };
            if self.ledger.has(&input) || self.unreadable.get(&input.name) == Some(&mark) {
                self.seen.remove(&input.name);
            } else if self.is_settled(&input, &mark) {
                new.push(Marked { input: Input { whole: true, ..input }, mark });
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        // Where one of them is at fault, it is looked for by halves, and keeps no other out.
        let mut groups = vec![new];
        while let Some(mut group) = groups.pop() {
            match self.read(&group).await? {
                Ok(()) => {}
                // Another ingest holds the local state, or a writer was faster: nothing is wrong.
                Err(error) if error.kind() == ErrorKind::Conflict => return Err(error.into()),
                Err(error) if group.len() == 1 => self.passed_over(&group[0], error)?,
                Err(_) => {
                    self.ledger = Ledger::open(&self.target.lake).await?;
                    group.retain(|marked| !self.ledger.has(&marked.input));
                    let second = group.split_off(group.len() / 2);
                    groups.extend([second, group].into_iter().filter(|half| !half.is_empty()));
                }
            }
        }
        Ok(())
    }

    /// What the paths stand for now. One that cannot be looked into keeps no other from being read.
    async fn listed(&mut self) -> Result<Vec<Input>, Failure> {
        let (mut found, mut known, mut told) = (Vec::new(), HashSet::new(), Vec::new());
        for path in &self.flags.paths {
            match expand(std::slice::from_ref(path), self.flags.format, &cloud_settings()).await {
                // A file that several paths lead to is one.
                Ok(inputs) => found.extend(
                    inputs.into_iter().filter(|input| known.insert(input.identity().to_owned())),
                ),
                Err(error) if may_pass(&error) => told.push(error_text(&error)),
                Err(error) => return Err(error.into()),
            }
        }
        if told.is_empty() {
            self.last_said.clear();
        } else {
            let every = counted(self.flags.every.into(), "second");
            self.say_once(&format!("{}; looking again every {every}", told.join("\n")));
        }
        Ok(found)
    }

    /// Whether nobody seems to be writing the input any more: by its own time of change, or because
    /// it has been the same for long enough.
    fn is_settled(&mut self, input: &Input, mark: &str) -> bool {
        let Place::File(_) = input.place else { return true };
        let fresh = || (mark.to_owned(), Instant::now());
        let (known, since) = self.seen.entry(input.name.clone()).or_insert_with(fresh);
        if known != mark {
            (*known, *since) = fresh();
        }
        let rested = input.age().unwrap_or_default().max(since.elapsed());
        rested >= if input.is_ended() { SETTLED } else { RESTED }
    }

    /// Reads inputs together, but those that have changed since they were found settled; the outer
    /// error is nothing that an input is to blame for.
    async fn read(&mut self, group: &[Marked]) -> Result<Result<()>, Failure> {
        let same = |marked: &&Marked| marked.input.mark().as_ref() == Some(&marked.mark);
        let (mut inputs, mut marks) = (Vec::new(), BTreeMap::new());
        for Marked { input, mark } in group.iter().filter(same) {
            inputs.push(input.clone());
            marks.insert(input.name.clone(), mark.clone());
        }
        if inputs.is_empty() {
            return Ok(Ok(()));
        }
        let mut settings = settings(self.global, self.flags, &inputs)?;
        settings.marks = marks.clone();
        match ingested(self.global, &self.target, inputs, settings).await {
            Ok(ended) => {
                if ended != Outcome::Done {
                    self.outcome = ended;
                }
                self.ledger.note(marks).await?;
                Ok(Ok(()))
            }
            Err(Failure::Failed(error)) => Ok(Err(error)),
            Err(wrong) => Err(wrong),
        }
    }

    /// Passes over an input that cannot be read as events, until it changes.
    fn passed_over(&mut self, marked: &Marked, error: Error) -> Result<(), Failure> {
        if error.kind() == ErrorKind::Invalid {
            say(&format!("{}; passed over until it changes", error_text(&error)));
            self.unreadable.insert(marked.input.name.clone(), marked.mark.clone());
            self.outcome = Outcome::SomeRefused;
            return Ok(());
        }
        if may_pass(&error) {
            self.say_once(&error_text(&error));
            return Ok(());
        }
        Err(error.into())
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
