//! Upserts: of event names that the lake declares, the newest event of an identity counts.
//!
//! A batch that brings other content for such an identity ends the row that counted: the file that holds
//! it is written anew, every row in its place, and goes in and out with the commit that brings the new
//! row. The row of the last received content is marked as ended too where a correction had taken its
//! place, so that of the rows of an identity that were received one is not ended by an upsert: the
//! newest, which is the one that the key index knows. Commits nothing.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use tokio::runtime::Handle;

use crate::dedupe::{Hasher, Key, StagedRun};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::reader::{BATCH_ROWS, StoredFile};
use crate::lake::rewrite::Rewriter;
use crate::lake::snapshot::{DataFile, Snapshot};
use crate::lake::staged::StagedFile;
use crate::lake::table::Table;
use crate::schema::{
    ENDED_BY, EVENT_NAME, IDEMPOTENCY_KEY, KIND, KIND_EVENT, KIND_REPLACED, MADE_BY, SOURCE,
    batch_of_upsert, with_corrections,
};

/// Under what a commit names its upsert.
pub(super) const UPSERT: &str = "upsert";
/// Under what a commit says how many events took the places of others.
pub(super) const REPLACED: &str = "replaced";

/// Names that are declared.
pub(super) type Names = BTreeSet<String>;

/// What a batch does to rows of the lake.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// The files with the rows as they are afterwards.
    pub(super) add: Vec<StagedFile>,
    /// The files that they take the places of.
    pub(super) remove: Vec<String>,
}

/// The schema of data files whose rows tell what ended them.
pub(super) fn with_ended_by(schema: &SchemaRef) -> SchemaRef {
    let mut fields = schema.fields().to_vec();
    fields.push(Arc::new(Field::new(ENDED_BY, DataType::Utf8, true)));
    Arc::new(Schema::new(fields))
}

/// `rows` with the column of `schema` that says what ended them: `id`, where they are replaced.
pub(super) fn told_ended(rows: &RecordBatch, id: &str, schema: &SchemaRef) -> Result<RecordBatch> {
    let kinds = texts(rows, KIND)?;
    let ended = kinds.iter().map(|kind| (kind == Some(KIND_REPLACED)).then_some(id));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(ended.collect::<StringArray>()));
    RecordBatch::try_new(Arc::clone(schema), columns)
        .map_err(|error| Error::internal("mark rows that a batch replaces").with_source(error))
}

/// `rows` of a batch, those of which `later` parts of it brought newer ones being replaced.
pub(super) fn superseded_by(
    rows: RecordBatch,
    later: &[StagedRun],
    hasher: &Hasher,
) -> Result<RecordBatch> {
    if later.is_empty() {
        return Ok(rows);
    }
    let superseded = held_by(&keys_of(&rows, hasher)?, later)?;
    if !superseded.contains(&true) {
        return Ok(rows);
    }
    let kinds = texts(&rows, KIND)?.iter().zip(superseded);
    let kinds = kinds.map(|(kind, superseded)| if superseded { Some(KIND_REPLACED) } else { kind });
    let kinds: ArrayRef = Arc::new(kinds.collect::<StringArray>());
    with_column(&rows, KIND, &kinds)
}

/// The rows of a lake that count, as far as events of declared names may take their places.
pub(super) struct Replaceable<'r> {
    pub(super) events: &'r Table,
    pub(super) runtime: &'r Handle,
    pub(super) hasher: &'r Hasher,
    pub(super) names: &'r Names,
}

impl Replaceable<'_> {
    /// Which of the keys that `wanted` picks have a row in `snapshot` that counts and is of a declared
    /// name, where they were received for `days`; `None` looks at all days.
    ///
    /// # Errors
    /// A file that cannot be read or is damaged, and those of `wanted`.
    pub(super) fn keys(
        &self,
        snapshot: &Snapshot,
        days: Option<&BTreeSet<i32>>,
        wanted: impl Fn(&[Key]) -> Result<Vec<bool>>,
    ) -> Result<HashSet<Key>> {
        let mut found = HashSet::new();
        for file in concerned(snapshot, days) {
            let stored = self.runtime.block_on(StoredFile::get(self.events, &file.path))?;
            for rows in stored.rows_of(is_told, None, BATCH_ROWS)? {
                let rows = stored.checked(rows)?;
                let counts = self.counting(&rows)?;
                if counts.contains(&true) {
                    let keys = keys_of(&rows, self.hasher)?;
                    let of_rows = keys.iter().zip(counts).zip(wanted(&keys)?);
                    found.extend(of_rows.filter(|((_, c), w)| *c && *w).map(|((key, _), _)| *key));
                }
            }
        }
        Ok(found)
    }

    /// Which of the ascending `keys` do, as of version `applied`, where they were received for `days`.
    /// Where that version is not to be had any more, the newest tells: the commit looks again anyway.
    ///
    /// # Errors
    /// A file that cannot be read or is damaged.
    pub(super) fn known(
        &self,
        applied: Option<u64>,
        keys: &[Key],
        days: &BTreeSet<i32>,
    ) -> Result<HashSet<Key>> {
        let wanted = |found: &[Key]| {
            Ok(found.iter().map(|key| keys.binary_search(key).is_ok()).collect::<Vec<bool>>())
        };
        let then = self.runtime.block_on(self.events.snapshot(applied));
        let error = match then.and_then(|then| self.keys(&then, Some(days), wanted)) {
            Err(error) if [ErrorKind::Corrupt, ErrorKind::NotFound].contains(&error.kind()) => {
                error
            }
            found => return found,
        };
        let newest = self.runtime.block_on(self.events.snapshot(None))?;
        match applied == Some(newest.version) {
            true => Err(error),
            false => self.keys(&newest, None, wanted),
        }
    }

    /// Whether each row counts and is of a declared name.
    fn counting(&self, rows: &RecordBatch) -> Result<Vec<bool>> {
        let (kinds, names) = (texts(rows, KIND)?, texts(rows, EVENT_NAME)?);
        let counts = |row| kinds.value(row) == KIND_EVENT && self.names.contains(names.value(row));
        Ok((0..rows.num_rows()).map(counts).collect())
    }

    /// Writes the files of `base` anew that hold rows whose places the identities in `declared` take, as
    /// ended by `id`; `None` where not just `events` of them count and are of declared names, as
    /// somebody changed them meanwhile.
    ///
    /// # Errors
    /// A file that cannot be read or is damaged, a store that cannot be written.
    pub(super) fn end(
        &self,
        base: &Snapshot,
        days: &BTreeSet<i32>,
        (declared, events): (&[StagedRun], u64),
        (id, memory_bytes): (&str, usize),
    ) -> Result<Option<Ended>> {
        let (mut files, mut counted) = (Vec::new(), 0);
        for file in concerned(base, Some(days)) {
            let stored = self.runtime.block_on(StoredFile::get(self.events, &file.path))?;
            let mut is_changed = false;
            for rows in stored.rows_of(is_told, None, BATCH_ROWS)? {
                let fates = self.fates(&stored.checked(rows)?, declared)?;
                counted += fates.iter().filter(|fate| **fate == Fate::CountsNoMore).count() as u64;
                is_changed = is_changed || fates.iter().any(|fate| *fate != Fate::Stays);
            }
            files.extend(is_changed.then_some(file));
        }
        if counted != events {
            return Ok(None);
        }
        let rewriter = Rewriter {
            table: self.events,
            runtime: self.runtime,
            schema: with_corrections(&base.schema),
            columns: &[ENDED_BY],
            memory_bytes,
        };
        let mut ended = Ended::default();
        for file in files {
            let stored = self.runtime.block_on(StoredFile::get(self.events, &file.path))?;
            let staged = rewriter.rewrite(&stored, file.partition, |rows| {
                marked(&rows, &self.fates(&rows, declared)?, id)
            })?;
            let rows: u64 = staged.iter().map(|file| file.rows).sum();
            if rows != file.rows {
                return Err(Error::internal(format!(
                    "{}: {} rows were to be written anew, {rows} were; nothing was committed",
                    file.path, file.rows
                )));
            }
            ended.remove.push(file.path.clone());
            ended.add.extend(staged);
        }
        Ok(Some(ended))
    }

    fn fates(&self, rows: &RecordBatch, declared: &[StagedRun]) -> Result<Vec<Fate>> {
        let concerned = held_by(&keys_of(rows, self.hasher)?, declared)?;
        let counting = self.counting(rows)?;
        let kinds = texts(rows, KIND)?;
        let [made_by, ended_by] = [MADE_BY, ENDED_BY]
            .map(|name| rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>()));
        let fate = |row: usize| {
            if !concerned[row] {
                return Fate::Stays;
            }
            if counting[row] {
                return Fate::CountsNoMore;
            }
            let was_received = made_by.is_none_or(|made_by| made_by.is_null(row));
            let is_newest = !ended_by.is_some_and(|ended| is_upserted(ended, row));
            match kinds.value(row) != KIND_EVENT && was_received && is_newest {
                true => Fate::IsNewestNoMore,
                false => Fate::Stays,
            }
        };
        Ok((0..rows.num_rows()).map(fate).collect())
    }
}

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    CountsNoMore,
    /// It counted no more already, as a correction had taken its place.
    IsNewestNoMore,
}

/// Whether an upsert ended the row.
pub(super) fn is_upserted(ended_by: &StringArray, row: usize) -> bool {
    ended_by.is_valid(row) && batch_of_upsert(ended_by.value(row)).is_some()
}

/// The files that can hold rows of identities that were received for `days`: those of the days, and
/// those with rows that corrections made, which may have moved to any.
fn concerned<'s>(
    snapshot: &'s Snapshot,
    days: Option<&BTreeSet<i32>>,
) -> impl Iterator<Item = &'s DataFile> {
    let received = snapshot.stats().null_count(MADE_BY);
    let is_concerned = move |at: usize, file: &DataFile| {
        let received: Option<&UInt64Array> =
            received.as_ref().map(|received| received.as_primitive::<UInt64Type>());
        let made = received
            .is_some_and(|received| received.is_valid(at) && received.value(at) < file.rows);
        made || days.is_none_or(|days| file.partition.is_none_or(|day| days.contains(&day)))
    };
    let files: Vec<&DataFile> = snapshot
        .files
        .iter()
        .enumerate()
        .filter(|(at, file)| is_concerned(*at, file))
        .map(|(_, file)| file)
        .collect();
    files.into_iter()
}

/// Whether what becomes of a row depends on this column.
fn is_told(column: &str) -> bool {
    [EVENT_NAME, IDEMPOTENCY_KEY, SOURCE, KIND, MADE_BY, ENDED_BY].contains(&column)
}

/// The identities of rows.
///
/// # Errors
/// A column that is missing or of another type.
pub(super) fn keys_of(rows: &RecordBatch, hasher: &Hasher) -> Result<Vec<Key>> {
    let (keys, sources) = (texts(rows, IDEMPOTENCY_KEY)?, texts(rows, SOURCE)?);
    let source = |row: usize| sources.is_valid(row).then(|| sources.value(row));
    let key = |row: usize| hasher.identity(source(row), keys.value(row));
    Ok((0..rows.num_rows()).map(key).collect())
}

/// Which of `keys`, in any order, are in one of `runs`.
///
/// # Errors
/// A run that cannot be read or is damaged.
pub(super) fn held_by<'r>(
    keys: &[Key],
    runs: impl IntoIterator<Item = &'r StagedRun>,
) -> Result<Vec<bool>> {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_unstable_by_key(|&row| keys[row]);
    let sorted: Vec<Key> = order.iter().map(|&row| keys[row]).collect();
    let mut held = vec![false; keys.len()];
    for run in runs {
        for (&row, found) in order.iter().zip(run.probe(&sorted)?) {
            held[row] |= found.is_some();
        }
    }
    Ok(held)
}

fn marked(rows: &RecordBatch, fates: &[Fate], id: &str) -> Result<RecordBatch> {
    let kinds = texts(rows, KIND)?.iter().zip(fates).map(|(kind, fate)| match fate {
        Fate::CountsNoMore => Some(KIND_REPLACED),
        Fate::Stays | Fate::IsNewestNoMore => kind,
    });
    let ended = texts(rows, ENDED_BY)?.iter().zip(fates).map(|(ended, fate)| match fate {
        Fate::CountsNoMore | Fate::IsNewestNoMore => Some(id),
        Fate::Stays => ended,
    });
    let kinds: ArrayRef = Arc::new(kinds.collect::<StringArray>());
    let ended: ArrayRef = Arc::new(ended.collect::<StringArray>());
    with_column(&with_column(rows, KIND, &kinds)?, ENDED_BY, &ended)
}

fn with_column(rows: &RecordBatch, name: &str, column: &ArrayRef) -> Result<RecordBatch> {
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns()).map(|(field, own)| {
        if field.name() == name { Arc::clone(column) } else { Arc::clone(own) }
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect())
        .map_err(|error| Error::internal("mark rows that are replaced").with_source(error))
}

/// A column of texts.
///
/// # Errors
/// One that is missing or of another type.
pub(super) fn texts<'r>(rows: &'r RecordBatch, name: &str) -> Result<&'r StringArray> {
    let column = rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    column.ok_or_else(|| Error::corrupt(format!("a data file has no text `{name}`")))
}
