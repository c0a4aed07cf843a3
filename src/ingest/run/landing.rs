//! A batch becomes a commit: brought onto whatever others made first, as often as it takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::FieldRef;

use super::{MEMORY_PARTS, RECEIPT, Run};
use crate::error::{Error, ErrorKind, Result};
use crate::ingest::accounts::Account;
use crate::ingest::batch::Batch;
use crate::ingest::rebase::{self, Staged, Taken, Upserts};
use crate::ingest::upsert::{Names, REPLACED, Replaceable, UPSERT};
use crate::ingest::{follow, stored};
use crate::lake::commit::{Commit, CommitOutcome, Operation};
use crate::lake::history::BY;
use crate::lake::snapshot::Snapshot;
use crate::lake::staged::StagedFile;
use crate::schema::{self, ValueKind, upsert_id};

/// How often a commit is tried before the run gives up.
const COMMIT_ATTEMPTS: usize = 100;

impl Run {
    /// Commits the batch, however many other writers win before it; `false` where they brought all
    /// that it holds.
    pub(super) fn commit(&mut self, batch: &mut Batch, account: &mut Account) -> Result<bool> {
        let mut staged = batch.write(
            &self.lake.events,
            (&self.runtime, &self.decoder.hasher),
            self.settings.threads,
            self.spill_folder.path(),
        )?;
        for _ in 0..COMMIT_ATTEMPTS {
            // The index must stand at the very version that the commit builds on: whoever came
            // first, even before the first attempt, is brought in.
            let base = self.runtime.block_on(self.lake.events.snapshot(None))?;
            if batch.base() != Some(base.version) || self.index.applied() != Some(base.version) {
                staged = self.rebase(batch, staged, &base)?;
            }
            if !self.end(batch, &mut staged, &base)? {
                continue;
            }
            self.quarantine(batch)?;
            account.counts = batch.counts();
            account.received = batch.received();
            if staged.files.is_empty() {
                return Ok(false);
            }
            let commit = self.commit_of(batch, &staged, account, &base)?;
            match self.runtime.block_on(self.lake.events.commit(&base, commit))? {
                CommitOutcome::Committed(snapshot) => {
                    staged.keys.append(&mut staged.declared);
                    account.version = snapshot.version;
                    self.ended.clear();
                    (self.commits, self.committed) =
                        (self.commits + 1, self.committed + account.counts.accepted);
                    let (index, events) = (&mut self.index, &self.lake.events);
                    let applied = stored::apply(index, events, snapshot.version, staged.keys);
                    match self.runtime.block_on(applied) {
                        // The commit stands; the index is derived from it.
                        Err(_) if index.is_damaged() => {
                            let hasher = &self.decoder.hasher;
                            let rebuilt = stored::rebuild(index, events, &snapshot, hasher);
                            self.runtime.block_on(rebuilt)?;
                        }
                        applied => applied?,
                    }
                    return Ok(true);
                }
                CommitOutcome::Lost { .. } => {}
            }
        }
        Err(Error::conflict(format!(
            "{}: {COMMIT_ATTEMPTS} attempts lost against other writers; run the same command \
             again, every event counts once",
            self.lake.events.display()
        )))
    }

    /// What is kept about a commit.
    fn info(&self, account: &Account) -> BTreeMap<String, String> {
        let mut info = account.to_info();
        info.extend(self.settings.by.clone().map(|by| (BY.to_owned(), by)));
        info.extend(follow::to_info(&self.ended));
        info
    }

    /// Brings the winners' keys in, drops what they brought from the batch, and dates it after them.
    fn rebase(
        &mut self,
        batch: &mut Batch,
        staged: Staged,
        base: &Arc<Snapshot>,
    ) -> Result<Staged> {
        let events = &self.lake.events;
        let names = self.runtime.block_on(events.upsert_names(base))?;
        if batch.replaced() > 0
            && let Some(withdrawn) = batch.names().difference(&names).next()
        {
            return Err(Error::conflict(format!(
                "{}: event name `{withdrawn}` was withdrawn from upserts while events were read: \
                 run the same command again",
                events.display()
            )));
        }
        self.check_history(batch, base)?;
        let hasher = &self.decoder.hasher;
        let caught_up = stored::catch_up(&mut self.index, events, base, hasher);
        batch.overtaken_by(self.runtime.block_on(caught_up)?);
        batch.stands_on(base.version);
        // Who only compacted or corrected leaves the batch as it is, and so does who brought other events
        // earlier.
        let last_ms = self.runtime.block_on(base.app_version(RECEIPT))?.unwrap_or(i64::MIN);
        let is_later = last_ms < batch.received().micros() / 1_000;
        if is_later && !batch.is_overtaken() {
            return Ok(staged);
        }
        let taken = rebase::taken(&self.index, &staged)?;
        if is_later && taken.is_empty() {
            return Ok(staged);
        }
        self.choose_again(batch, staged, base, (&taken, &names))
    }

    /// Writes the batch anew as it comes after `base`, which the index stands at.
    fn choose_again(
        &self,
        batch: &mut Batch,
        staged: Staged,
        base: &Snapshot,
        (taken, names): (&Taken, &Names),
    ) -> Result<Staged> {
        let (events, hasher, runtime) = (&self.lake.events, &self.decoder.hasher, &self.runtime);
        let lake = Replaceable { events, runtime, hasher, names };
        // What was of a declared name is chosen again, whatever is declared by now.
        let plain = names.is_empty() && batch.replaced() == 0 && staged.declared.is_empty();
        let upserts = match plain {
            true => None,
            false => Some(Upserts::of(&lake, base, &staged, taken)?),
        };
        let received = self.next_instant(base)?;
        let chosen = (taken, upserts.as_ref());
        let (staged, rebased) =
            rebase::rebase(staged, chosen, received, (events, &self.index), hasher, runtime)?;
        batch.rebased(rebased, received, names);
        Ok(staged)
    }

    /// Sees to it that the files are written in which rows of `base` are ended whose places the batch
    /// takes; `false` where they went away beneath it, and a newer version is to be built on.
    fn end(&self, batch: &mut Batch, staged: &mut Staged, base: &Arc<Snapshot>) -> Result<bool> {
        let is_live = |path: &String| base.files.iter().any(|file| file.path == *path);
        if staged.ends == 0 || staged.ended.as_ref().is_some_and(|e| e.remove.iter().all(is_live)) {
            return Ok(true);
        }
        let (events, hasher, runtime) = (&self.lake.events, &self.decoder.hasher, &self.runtime);
        let names = runtime.block_on(events.upsert_names(base))?;
        let lake = Replaceable { events, runtime, hasher, names: &names };
        let memory_bytes = self.settings.memory_bytes / MEMORY_PARTS;
        for is_chosen_again in [false, true] {
            let id = upsert_id(batch.id());
            let declared = (staged.declared.as_slice(), staged.ends);
            match lake.end(base, &staged.days, declared, (&id, memory_bytes)) {
                Ok(Some(ended)) => {
                    staged.ended = Some(ended);
                    return Ok(true);
                }
                Ok(None) if is_chosen_again => break,
                // Somebody corrected what the batch was to replace.
                Ok(None) => {
                    let former = std::mem::take(staged);
                    let taken = Taken::default();
                    *staged = self.choose_again(batch, former, base, (&taken, &names))?;
                    if staged.ends == 0 {
                        return Ok(true);
                    }
                }
                // What a compaction took out may be vacuumed beneath us.
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    return match runtime.block_on(events.snapshot(None))?.version == base.version {
                        true => Err(error),
                        false => Ok(false),
                    };
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::corrupt(format!(
            "{}: {} events that a batch replaces are not all those that the key index knows; nothing was \
             committed: `meterhouse index rebuild` makes it anew, `meterhouse verify` tells if the \
             events are to blame",
            events.display(),
            staged.ends
        )))
    }

    /// The batch as a commit on `base`: its events, and in the same breath the end of those whose
    /// places they take.
    fn commit_of(
        &self,
        batch: &Batch,
        staged: &Staged,
        account: &Account,
        base: &Snapshot,
    ) -> Result<Commit> {
        let at_ms = batch.received().micros() / 1_000;
        let mut commit = Commit {
            add_columns: new_columns(base, &staged.files)?,
            add: staged.files.clone(),
            app: Some((RECEIPT.to_owned(), at_ms)),
            operation: Operation::Append,
            info: self.info(account),
            at_ms,
            ..Commit::default()
        };
        // A batch that replaces nothing after all may have been written to tell what is replaced.
        if batch.replaced() > 0 || staged.files.iter().any(has_ends) {
            commit.add_columns.extend(schema::correction_fields().map(Arc::new));
        }
        if batch.replaced() > 0 {
            commit.info.insert(UPSERT.to_owned(), upsert_id(batch.id()));
            commit.info.insert(REPLACED.to_owned(), batch.replaced().to_string());
        }
        if let Some(ended) = &staged.ended {
            commit.add.extend(ended.add.iter().cloned());
            commit.remove.clone_from(&ended.remove);
            commit.operation = Operation::Correct;
        }
        Ok(commit)
    }
}

fn has_ends(file: &StagedFile) -> bool {
    file.columns().any(|column| column == schema::ENDED_BY)
}

/// The property columns of staged files that the table does not have yet.
///
/// # Errors
/// A column that another writer has added meanwhile under a name of other case.
pub fn new_columns(base: &Snapshot, files: &[StagedFile]) -> Result<Vec<FieldRef>> {
    let mut fields = BTreeMap::new();
    for column in files.iter().flat_map(StagedFile::columns) {
        let known = base.schema.fields().iter().find(|f| f.name().eq_ignore_ascii_case(column));
        match known {
            Some(known) if known.name() == column => {}
            Some(known) => {
                return Err(Error::conflict(format!(
                    "column `{column}` differs only by case from `{}`, which another writer added \
                     meanwhile: run the same command again",
                    known.name()
                )));
            }
            None => {
                if let Some((kind, name)) = schema::property_of_column(column) {
                    fields.insert(column.to_owned(), Arc::new(ValueKind::field(kind, name)));
                }
            }
        }
    }
    Ok(fields.into_values().collect())
}
