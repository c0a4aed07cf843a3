//! The files of a correction: those that hold rows concerned, written anew, and new ones beside them.
//!
//! Reads of every file of the days concerned the identities first, and only those of which rows change in
//! full; one file is in memory at a time. What is written is in no commit yet.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use tokio::runtime::Handle;

use super::rows::{Made, Receipt};
use super::select::Selected;
use super::{Action, CorrectSettings};
use crate::dedupe::{Hasher, Key};
use crate::error::{Error, Result};
use crate::event::EventRules;
use crate::ingest::restore::event_of;
use crate::lake::reader::{BATCH_ROWS, StoredFile};
use crate::lake::rewrite::Rewriter;
use crate::lake::snapshot::{DataFile, Snapshot};
use crate::lake::staged::StagedFile;
use crate::lake::table::Table;
use crate::schema::{
    ENDED_BY, IDEMPOTENCY_KEY, KIND, KIND_EVENT, KIND_REPLACED, KIND_VOIDED, MADE_BY, SOURCE,
    with_corrections,
};
use crate::time::Timestamp;
use crate::usage::Context;

/// The file as stored, the new one, what is decoded, and rows that are made each get such a part of the
/// memory.
const MEMORY_PARTS: usize = 4;

/// A correction that is ready to be committed.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    pub(super) add: Vec<StagedFile>,
    pub(super) remove: Vec<String>,
    /// Events that change.
    pub(super) events: u64,
    /// Events that are as they shall be already.
    pub(super) unchanged: u64,
}

/// Writes the files of correction `id`; in a dry run none.
///
/// # Errors
/// A file that cannot be read or is damaged, a store that cannot be written, an event that would break
/// a rule.
pub(super) async fn prepare(
    context: &Context,
    snapshot: &Arc<Snapshot>,
    (action, id): (&Action, &str),
    selected: &Selected,
    settings: &CorrectSettings,
) -> Result<Prepared> {
    let concerned =
        |file: &&DataFile| file.partition.is_none_or(|day| selected.days.contains(&day));
    let work = Work {
        table: context.lake.events.clone(),
        runtime: Handle::current(),
        files: snapshot.files.iter().filter(concerned).cloned().collect(),
        schema: with_corrections(&snapshot.schema),
        action: action.clone(),
        id: id.to_owned(),
        keys: Arc::clone(&selected.keys),
        hasher: Hasher::new(context.lake.events.table_id()),
        rules: settings.rules,
        now: context.clock.now(),
        memory_bytes: settings.memory_bytes / MEMORY_PARTS,
        writes: !settings.dry_run,
    };
    match tokio::task::spawn_blocking(move || work.run()).await {
        Ok(prepared) => prepared,
        Err(error) => Err(Error::internal("a correction stopped").with_source(error)),
    }
}

struct Work {
    table: Table,
    runtime: Handle,
    files: Vec<DataFile>,
    schema: SchemaRef,
    action: Action,
    id: String,
    keys: Arc<HashSet<Key>>,
    hasher: Hasher,
    rules: EventRules,
    now: Timestamp,
    memory_bytes: usize,
    writes: bool,
}

/// What happens to rows, file by file.
#[derive(Debug, Default)]
struct Counted {
    /// Rows that change and are selected events.
    events: u64,
    unchanged: u64,
    /// Rows that change at all.
    rows: u64,
}

impl Work {
    fn run(&self) -> Result<Prepared> {
        let mut made = Made::new(
            (&self.table, &self.runtime),
            &self.schema,
            &self.id,
            (self.memory_bytes, self.writes),
        );
        let mut prepared = Prepared::default();
        for file in &self.files {
            let stored = self.runtime.block_on(StoredFile::get(&self.table, &file.path))?;
            if !self.is_concerned(&stored)? {
                continue;
            }
            let (staged, counted) = self.rewrite(file, &stored, &mut made)?;
            prepared.events += counted.events;
            prepared.unchanged += counted.unchanged;
            if counted.rows == 0 {
                // What was written is left to vacuum.
                continue;
            }
            let rows: u64 = staged.iter().map(|file| file.rows).sum();
            if self.writes && rows != file.rows {
                return Err(Error::internal(format!(
                    "{}: {} rows were to be written anew, {rows} were; nothing was changed",
                    file.path, file.rows
                )));
            }
            prepared.remove.push(file.path.clone());
            prepared.add.extend(staged);
        }
        let (files, rows) = made.finish()?;
        prepared.add.extend(files);
        self.check(&prepared, rows)?;
        Ok(prepared)
    }

    /// Every selected event was met once, and got what takes its place.
    fn check(&self, prepared: &Prepared, made: u64) -> Result<()> {
        let met = prepared.events + prepared.unchanged;
        let selected = self.keys.len() as u64;
        if met > selected {
            return Err(Error::corrupt(format!(
                "{}: {selected} identities have {met} events that count; nothing was changed, see \
                 `meterhouse verify`",
                self.table.display()
            )));
        }
        let wanted = match self.action {
            Action::Void | Action::Revert(_) => 0,
            Action::Amend(_) | Action::Replace(_) => prepared.events,
        };
        if met < selected || made != wanted {
            return Err(Error::internal(format!(
                "{}: of {selected} selected events {met} were met and {made} of {wanted} rows made; \
                 nothing was changed",
                self.table.display()
            )));
        }
        Ok(())
    }

    fn is_concerned(&self, stored: &StoredFile) -> Result<bool> {
        let wanted =
            |name: &str| [IDEMPOTENCY_KEY, SOURCE, KIND, MADE_BY, ENDED_BY].contains(&name);
        for rows in stored.rows_of(wanted, None, BATCH_ROWS)? {
            if self.fates(&stored.checked(rows)?)?.iter().any(|fate| *fate != Fate::Stays) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What is to become of each row.
    fn fates(&self, rows: &RecordBatch) -> Result<Vec<Fate>> {
        let text = |name: &str| -> Result<&StringArray> {
            let column = rows.column_by_name(name).and_then(|column| column.as_string_opt());
            column.ok_or_else(|| Error::corrupt(format!("a data file has no text `{name}`")))
        };
        if let Action::Revert(id) = &self.action {
            let is = |name: &str, row: usize| {
                let column = rows.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
                column.is_some_and(|column| column.is_valid(row) && column.value(row) == id)
            };
            let fate = |row| match (is(ENDED_BY, row), is(MADE_BY, row)) {
                (true, _) => Fate::CountsAgain,
                (false, true) => Fate::IsVoided,
                (false, false) => Fate::Stays,
            };
            return Ok((0..rows.num_rows()).map(fate).collect());
        }
        let (keys, sources, kinds) = (text(IDEMPOTENCY_KEY)?, text(SOURCE)?, text(KIND)?);
        let fate = |row: usize| {
            if kinds.value(row) != KIND_EVENT {
                return Fate::Stays;
            }
            let source = sources.is_valid(row).then(|| sources.value(row));
            let key = self.hasher.identity(source, keys.value(row));
            match (self.keys.contains(&key), &self.action) {
                (false, _) => Fate::Stays,
                (true, Action::Amend(_) | Action::Replace(_)) => Fate::IsReplaced(key),
                (true, Action::Void | Action::Revert(_)) => Fate::IsVoided,
            }
        };
        Ok((0..rows.num_rows()).map(fate).collect())
    }

    fn rewrite(
        &self,
        file: &DataFile,
        stored: &StoredFile,
        made: &mut Made<'_>,
    ) -> Result<(Vec<StagedFile>, Counted)> {
        let mut counted = Counted::default();
        let mut change = |rows: RecordBatch| -> Result<RecordBatch> {
            let mut fates = self.fates(&rows)?;
            for (row, fate) in fates.iter_mut().enumerate() {
                if let Fate::IsReplaced(key) = fate
                    && !self.remake(key, &rows, row, made)?
                {
                    counted.unchanged += 1;
                    *fate = Fate::Stays;
                }
            }
            let reverts = matches!(self.action, Action::Revert(_));
            let changes = |fate: &&Fate| **fate != Fate::Stays;
            // Of a revert, the events are those that count again.
            let is_event = |fate: &&Fate| !reverts || **fate == Fate::CountsAgain;
            counted.rows += fates.iter().filter(changes).count() as u64;
            counted.events += fates.iter().filter(changes).filter(is_event).count() as u64;
            marked(&rows, &fates, &self.id)
        };
        if !self.writes {
            for rows in stored.rows_of(|_| true, None, BATCH_ROWS)? {
                change(stored.checked(rows)?)?;
            }
            return Ok((Vec::new(), counted));
        }
        let rewriter = Rewriter {
            table: &self.table,
            runtime: &self.runtime,
            schema: Arc::clone(&self.schema),
            columns: &[ENDED_BY],
            memory_bytes: self.memory_bytes,
        };
        let staged = rewriter.rewrite(stored, file.partition, change)?;
        Ok((staged, counted))
    }

    /// Makes what takes the place of a row; `false` where that would say the same.
    fn remake(
        &self,
        key: &Key,
        rows: &RecordBatch,
        row: usize,
        made: &mut Made<'_>,
    ) -> Result<bool> {
        let old = event_of(rows, row)?;
        let changed = match &self.action {
            Action::Amend(changes) => changes.changed(key, &old, (self.rules, self.now))?,
            Action::Replace(events) => events.changed(key, &old)?,
            Action::Void | Action::Revert(_) => None,
        };
        let Some(event) = changed else { return Ok(false) };
        made.push(event, Receipt::of(rows, row)?)?;
        Ok(true)
    }
}

/// What becomes of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Stays,
    IsVoided,
    IsReplaced(Key),
    CountsAgain,
}

/// The rows with their new kinds, and who ended them.
fn marked(rows: &RecordBatch, fates: &[Fate], id: &str) -> Result<RecordBatch> {
    if fates.iter().all(|fate| *fate == Fate::Stays) {
        return Ok(rows.clone());
    }
    let text = |name: &str| rows.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
    let (Some(kinds), ended) = (text(KIND), text(ENDED_BY)) else {
        return Err(Error::corrupt("a data file has no text `kind`"));
    };
    let kinds: StringArray = (fates.iter().enumerate())
        .map(|(row, fate)| {
            Some(match fate {
                Fate::Stays => kinds.value(row),
                Fate::IsVoided => KIND_VOIDED,
                Fate::IsReplaced(_) => KIND_REPLACED,
                Fate::CountsAgain => KIND_EVENT,
            })
        })
        .collect();
    let ended: StringArray = (fates.iter().enumerate())
        .map(|(row, fate)| match fate {
            Fate::Stays => ended.filter(|e| e.is_valid(row)).map(|ended| ended.value(row)),
            Fate::IsVoided | Fate::IsReplaced(_) => Some(id),
            Fate::CountsAgain => None,
        })
        .collect();
    let (kinds, ended): (ArrayRef, ArrayRef) = (Arc::new(kinds), Arc::new(ended));
    let columns = rows.schema_ref().fields().iter().zip(rows.columns()).map(|(field, column)| {
        match field.name().as_str() {
            KIND => Arc::clone(&kinds),
            ENDED_BY => Arc::clone(&ended),
            _ => Arc::clone(column),
        }
    });
    RecordBatch::try_new(rows.schema(), columns.collect())
        .map_err(|error| Error::internal("mark corrected rows").with_source(error))
}
