//! Corrections: events that were wrong are voided, amended or replaced, and that can be undone.
//!
//! One correction is one commit. It writes the files anew that hold the rows concerned: these rows stay,
//! under another `kind`, and what takes their place is added beside them. So earlier versions say what they
//! said, and every reader that filters by `kind` sees the same. What was done, why and by whom stands in
//! the commit and in a note beside the table, which outlives the log.
//!
//! Never changes the files of versions before, and knows nothing of the key index: a sender that sends the
//! original again is told that it is a duplicate, whatever became of it.

mod apply;
mod change;
mod record;
mod rows;
mod select;
mod trace;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

pub use change::{Changes, Replacements, amendments, identities, replacements};
pub use record::{CORRECTION, EVENTS, Listed, REASON, Record, What, find, list};
pub use select::{Conditions, Identity, Selection, Tally};
pub use trace::{StoredRow, stored_rows};

use apply::Prepared;
use select::select;

use crate::dedupe::Key;
use crate::error::{Error, ErrorKind, Result};
use crate::event::EventRules;
use crate::ingest::new_columns;
use crate::lake::commit::{Commit, CommitOutcome, Operation};
use crate::lake::history::BY;
use crate::lake::snapshot::Snapshot;
use crate::schema;
use crate::usage::Context;

/// How often a correction is prepared anew because somebody else rewrote the same files.
const PREPARE_ATTEMPTS: u32 = 20;
/// How often one that is prepared tries to win its version.
const COMMIT_ATTEMPTS: u32 = 100;

/// What a correction does to the events that are selected.
#[derive(Debug, Clone)]
pub enum Action {
    /// They count no more.
    Void,
    /// The same changes for all of them, or those for each identity.
    Amend(Arc<Changes>),
    /// Whole events in their places.
    Replace(Arc<Replacements>),
    /// The correction of this id is undone.
    Revert(String),
}

impl Action {
    fn what(&self) -> What {
        match self {
            Self::Void => What::Void,
            Self::Amend(_) => What::Amend,
            Self::Replace(_) => What::Replace,
            Self::Revert(_) => What::Revert,
        }
    }
}

/// How to correct.
#[derive(Debug, Clone)]
pub struct CorrectSettings {
    /// Why, for whoever asks later; not empty.
    pub reason: String,
    /// Who corrects.
    pub by: Option<String>,
    /// What is demanded of changed events.
    pub rules: EventRules,
    /// Memory that may be taken, roughly.
    pub memory_bytes: usize,
    /// Find out what would change, but write nothing.
    pub dry_run: bool,
}

/// What a correction did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Corrected {
    /// Its id and the version of the table that it made; `None` where nothing was written.
    pub made: Option<(String, u64)>,
    /// Events that changed.
    pub events: u64,
    /// Selected events that are as they shall be already.
    pub unchanged: u64,
    /// The selected events by day, customer and name.
    pub tally: Tally,
}

/// Corrects the events that `selection` means, in one commit.
///
/// # Errors
/// Events that are not there or do not count, by name; a changed event that breaks a rule; a correction
/// that cannot be reverted; others that kept changing the same events. Nothing was changed then, unless
/// the message says that it is unknown.
pub async fn correct(
    context: &Context,
    action: &Action,
    selection: &Selection,
    settings: &CorrectSettings,
) -> Result<Corrected> {
    if settings.reason.trim().is_empty() {
        return Err(Error::invalid("a correction has no reason: say why, for whoever asks later"));
    }
    let mut chosen: Option<Arc<HashSet<Key>>> = None;
    for _ in 0..PREPARE_ATTEMPTS {
        if let Action::Revert(id) = action {
            record::check_revertible(&context.lake.events, id).await?;
        }
        let snapshot = context.lake.events.snapshot(None).await?;
        let selected = select(context, &snapshot, selection, chosen.as_deref()).await?;
        chosen = Some(Arc::clone(&selected.keys));
        let id = record::new_id();
        let prepared = apply::prepare(context, &snapshot, (action, &id), &selected, settings).await;
        let prepared = match prepared {
            // What a compaction took out may be vacuumed beneath us.
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let newest = context.lake.events.snapshot(None).await?;
                if newest.version == snapshot.version {
                    return Err(error);
                }
                continue;
            }
            prepared => prepared?,
        };
        let mut done = Corrected {
            made: None,
            events: prepared.events,
            unchanged: prepared.unchanged,
            tally: selected.tally.clone(),
        };
        if settings.dry_run || prepared.events == 0 {
            return Ok(done);
        }
        let record = Record {
            id,
            what: action.what(),
            reason: settings.reason.clone(),
            by: settings.by.clone(),
            at: context.clock.now().to_string(),
            selection: selection.to_string(),
            events: prepared.events,
            reverts: match action {
                Action::Revert(id) => Some(id.clone()),
                Action::Void | Action::Amend(_) | Action::Replace(_) => None,
            },
        };
        if let Some(version) = commit(context, &record, &prepared).await? {
            done.made = Some((record.id, version));
            return Ok(done);
        }
        record::withdraw(&context.lake.events, &record.id).await?;
    }
    Err(Error::conflict(format!(
        "{}: the files concerned were rewritten by others {PREPARE_ATTEMPTS} times; nothing was \
         changed, run the same command again",
        context.lake.events.display()
    )))
}

/// The version that the correction made; `None` where others rewrote one of its files first.
async fn commit(context: &Context, record: &Record, prepared: &Prepared) -> Result<Option<u64>> {
    let events = &context.lake.events;
    record::keep(events, record).await?;
    for _ in 0..COMMIT_ATTEMPTS {
        let base = events.snapshot(None).await?;
        if !all_live(&base, &prepared.remove) {
            return Ok(None);
        }
        let mut add_columns = new_columns(&base, &prepared.add)?;
        add_columns.extend(schema::correction_fields().map(Arc::new));
        let version = i64::try_from(base.version + 1)
            .map_err(|error| Error::internal("a version").with_source(error))?;
        let commit = Commit {
            add: prepared.add.clone(),
            remove: prepared.remove.clone(),
            add_columns,
            app: Some((record::application(&record.id), version)),
            operation: Operation::Correct,
            info: info(record),
            at_ms: context.clock.now().micros().div_euclid(1_000),
        };
        match events.commit(&base, commit).await {
            Ok(CommitOutcome::Committed(snapshot)) => return Ok(Some(snapshot.version)),
            Ok(CommitOutcome::Lost { .. }) => {}
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let newest = events.snapshot(None).await?;
                if all_live(&newest, &prepared.remove) {
                    return Err(error);
                }
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::conflict(format!(
        "{}: {COMMIT_ATTEMPTS} attempts lost against other writers; nothing was changed, run the same \
         command again",
        events.display()
    )))
}

fn all_live(snapshot: &Snapshot, paths: &[String]) -> bool {
    let live: HashSet<&str> = snapshot.files.iter().map(|file| file.path.as_str()).collect();
    paths.iter().all(|path| live.contains(path.as_str()))
}

/// What the log keeps.
fn info(record: &Record) -> BTreeMap<String, String> {
    let mut info = BTreeMap::from([
        (CORRECTION.to_owned(), record.id.clone()),
        (record::WHAT.to_owned(), record.what.as_str().to_owned()),
        (REASON.to_owned(), record.reason.clone()),
        (EVENTS.to_owned(), record.events.to_string()),
    ]);
    info.extend(record.by.clone().map(|by| (BY.to_owned(), by)));
    info.extend(record.reverts.clone().map(|id| (record::REVERTS.to_owned(), id)));
    info
}
