//! Which inputs of a followed folder have been read, so that each is read once.
//!
//! A commit tells which inputs ended with it, so that a follower that dies right after it does not
//! read them again. What brought no commit, and what the log forgets, stands in notes beside the
//! events. The ledger is in the lake and not in the local state: it outlives the machine.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use serde::{Deserialize, Serialize};

use super::input::Input;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::tables::Lake;

/// The notes of a ledger.
const FOLLOWED: &str = "followed";
/// Under what a commit tells which inputs ended with it.
const INFO: &str = "followed";
/// From this many notes on they are merged into one.
const NOTES_MAX: usize = 32;
/// From this many versions on that were searched, that is noted.
const MERGED_EVERY: u64 = 100;
const READS_AT_ONCE: usize = 8;

/// An input with a text that changes when its content does.
pub(super) type Marked = (String, String);

/// Part of a ledger.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Note {
    /// Commits up to this version were searched, and all that they tell stands here.
    version: u64,
    inputs: BTreeSet<Marked>,
}

/// Which inputs have been read, by followers of one lake.
#[derive(Debug)]
pub struct Ledger {
    lake: Lake,
    version: u64,
    read: BTreeSet<Marked>,
    notes: usize,
}

impl Ledger {
    /// The ledger of `lake`, with what its newest commits add.
    ///
    /// # Errors
    /// A store that cannot be read or written, a damaged note.
    pub async fn open(lake: &Lake) -> Result<Self> {
        let mut ledger = Self { lake: lake.clone(), version: 0, read: BTreeSet::new(), notes: 0 };
        let names = ledger.load().await?;
        let newest = lake.events.snapshot(None).await?.version;
        let events = &lake.events;
        let infos = (ledger.version + 1..=newest).map(|version| events.commit_info(version));
        let mut infos = futures::stream::iter(infos).buffered(READS_AT_ONCE);
        while let Some(info) = infos.next().await {
            match info {
                // The log no longer reaches back that far.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                info => ledger.read.extend(of_info(&info?)),
            }
        }
        if newest >= ledger.version + MERGED_EVERY || names.len() > NOTES_MAX {
            ledger.version = newest;
            ledger.replace(names).await?;
        }
        Ok(ledger)
    }

    /// Whether the input was read, as it is now.
    pub fn has(&self, input: &Input) -> bool {
        input.mark().is_some_and(|mark| self.has_marked(&input.name, &mark))
    }

    /// Whether what has this name was read when it had this mark.
    pub fn has_marked(&self, name: &str, mark: &str) -> bool {
        self.read.contains(&(name.to_owned(), mark.to_owned()))
    }

    /// Notes that `inputs` were read to their ends, with the marks that they had before.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub async fn note(&mut self, inputs: impl IntoIterator<Item = (String, String)>) -> Result<()> {
        let inputs: BTreeSet<Marked> = inputs.into_iter().collect();
        self.read.extend(inputs.iter().cloned());
        // Of the versions only a note that holds everything before them can speak.
        self.write(Note { version: 0, inputs }).await?;
        self.notes += 1;
        if self.notes > NOTES_MAX {
            let names = self.load().await?;
            self.replace(names).await?;
        }
        Ok(())
    }

    /// Reads all notes; gives their names.
    async fn load(&mut self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for (name, text) in self.lake.events.notes(FOLLOWED).await? {
            let note: Note = serde_json::from_slice(&text).map_err(|error| {
                let table = self.lake.events.display();
                Error::corrupt(format!("{table}: damaged note followed/{name}: {error}"))
            })?;
            self.version = self.version.max(note.version);
            self.read.extend(note.inputs);
            names.push(name);
        }
        self.notes = names.len();
        Ok(names)
    }

    /// Puts one note in the place of these. Whoever does so at the same time writes all that it saw
    /// and deletes no more than that.
    async fn replace(&mut self, names: Vec<String>) -> Result<()> {
        self.write(Note { version: self.version, inputs: self.read.clone() }).await?;
        for name in names {
            self.lake.events.delete_note(FOLLOWED, &name).await?;
        }
        self.notes = 1;
        Ok(())
    }

    async fn write(&self, note: Note) -> Result<()> {
        let text = serde_json::to_vec(&note)
            .map_err(|error| Error::internal("noting what was read").with_source(error))?;
        let name = format!("{}.json", uuid::Uuid::new_v4());
        self.lake.events.put_note(FOLLOWED, &name, text).await.map(|_| ())
    }
}

/// What a commit tells about the inputs that ended with it.
pub(super) fn to_info(ended: &[Marked]) -> Option<(String, String)> {
    let text = (!ended.is_empty()).then(|| serde_json::to_string(ended).ok()).flatten()?;
    Some((INFO.to_owned(), text))
}

fn of_info(info: &BTreeMap<String, String>) -> Vec<Marked> {
    info.get(INFO).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}
