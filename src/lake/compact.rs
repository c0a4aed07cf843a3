//! Many small files of a day become few large ones, with the same rows.
//!
//! Works day by day, one commit for each group of files: their rows are merged in the table's order
//! and written anew, the commit takes the new files in and the old ones out. No row changes, so no
//! answer does, at this version or any other; the old files stay for versions before. A group that
//! somebody else compacts first is left to them. Deletes nothing (that is `lake::vacuum`'s).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::commit::{Commit, CommitOutcome, Operation};
use crate::lake::history::BY;
use crate::lake::layout::layout_for;
use crate::lake::merge::{MERGED_ROWS, Source, merge};
use crate::lake::reader::StoredFile;
use crate::lake::snapshot::{DataFile, Snapshot};
use crate::lake::staged::StagedFile;
use crate::lake::table::Table;
use crate::lake::writer::{EncodedFile, Layout, ParquetFileWriter};
use crate::schema::EVENT_DATE;
use crate::time::Timestamp;

/// A file of at least this many bytes is large enough.
pub const LARGE_BYTES: u64 = 128 << 20;

/// Most files that are merged at once: each keeps a batch and its pages in memory.
const FILES_MAX: usize = 64;
/// Most rows of a batch of a file that is being merged.
const SOURCE_ROWS: usize = 1_024;
/// A day counts as settled when it ended this long ago: few events come for it any more.
const SETTLED_MICROS: i64 = 2 * 86_400_000_000;
/// The files that are merged, the file that they become, and what is decoded of both each get such a
/// part of the memory.
const MEMORY_PARTS: usize = 3;
/// Commits that are tried for one group before it is left alone.
const COMMIT_ATTEMPTS: u32 = 20;

/// How to compact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactSettings {
    /// Only days within these, both included, in days since 1970.
    pub days: Option<(i32, i32)>,
    /// Memory that may be taken, roughly.
    pub memory_bytes: usize,
    /// Who compacts, for the log of versions.
    pub by: Option<String>,
}

impl Default for CompactSettings {
    fn default() -> Self {
        Self { days: None, memory_bytes: 512 << 20, by: None }
    }
}

/// What compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Commits made.
    pub commits: u64,
    /// Files that were merged.
    pub files_before: u64,
    /// Files that they became.
    pub files_after: u64,
    /// Bytes of the files that were merged.
    pub bytes_before: u64,
    /// Bytes of the files that they became.
    pub bytes_after: u64,
    /// Rows that were moved.
    pub rows: u64,
    /// Groups that somebody else compacted meanwhile.
    pub given_way: u64,
}

/// Compacts `events` until nothing is left to do, telling `progress` after every commit; the version
/// that is reached is that of a snapshot taken afterwards.
///
/// # Errors
/// A file that cannot be read or is damaged, a store that cannot be written. What was committed
/// before stays.
pub async fn compact(
    events: &Table,
    settings: &CompactSettings,
    now: Timestamp,
    progress: impl Fn(Compacted),
) -> Result<Compacted> {
    let mut done = Compacted::default();
    let mut left_alone: BTreeSet<Vec<String>> = BTreeSet::new();
    loop {
        let snapshot = events.snapshot(None).await?;
        let groups = groups(&snapshot.files, settings, now);
        let fresh = groups.into_iter().find(|group| !left_alone.contains(&paths(group)));
        let Some(group) = fresh else { return Ok(done) };
        match compact_group(events, &snapshot, &group, settings, now).await? {
            Some(staged) => {
                done.commits += 1;
                done.files_before += group.len() as u64;
                done.files_after += staged.len() as u64;
                done.bytes_before += group.iter().map(|file| file.size).sum::<u64>();
                done.bytes_after += staged.iter().map(|file| file.size).sum::<u64>();
                done.rows += staged.iter().map(|file| file.rows).sum::<u64>();
                progress(done);
            }
            None => {
                done.given_way += 1;
                left_alone.insert(paths(&group));
            }
        }
    }
}

fn paths(group: &[DataFile]) -> Vec<String> {
    group.iter().map(|file| file.path.clone()).collect()
}

/// The groups of files that are worth merging, smallest files first, each of one day.
fn groups(files: &[DataFile], settings: &CompactSettings, now: Timestamp) -> Vec<Vec<DataFile>> {
    let mut days: BTreeMap<i32, Vec<&DataFile>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.size < LARGE_BYTES) {
        let Some(day) = file.partition else { continue };
        if settings.days.is_none_or(|(first, last)| (first..=last).contains(&day)) {
            days.entry(day).or_default().push(file);
        }
    }
    days.into_iter()
        .filter_map(|(day, files)| group(files, is_settled(day, now), settings))
        .collect()
}

fn is_settled(day: i32, now: Timestamp) -> bool {
    let end = (i64::from(day) + 1) * 86_400_000_000;
    end <= now.micros().saturating_sub(SETTLED_MICROS)
}

/// The smallest files of a day, as many as are merged at once. On a day that still receives events,
/// a file is not written anew for the sake of less than its own size: the cost of compaction grows
/// with the logarithm of the number of files, not with the number.
fn group(
    mut files: Vec<&DataFile>,
    settled: bool,
    settings: &CompactSettings,
) -> Option<Vec<DataFile>> {
    files.sort_by(|a, b| (a.size, &a.path).cmp(&(b.size, &b.path)));
    let most_bytes = (settings.memory_bytes / MEMORY_PARTS) as u64;
    let (mut bytes, mut taken) = (0, Vec::new());
    for file in files.into_iter().take(FILES_MAX) {
        let fits = bytes + file.size <= most_bytes;
        let worth = settled || file.size <= bytes.max(1) || taken.is_empty();
        if !fits || !worth {
            break;
        }
        bytes += file.size;
        taken.push(file.clone());
    }
    (taken.len() > 1).then_some(taken)
}

/// Merges and commits one group; `None` where its files are no longer all there, or would be no fewer.
async fn compact_group(
    events: &Table,
    snapshot: &Arc<Snapshot>,
    group: &[DataFile],
    settings: &CompactSettings,
    now: Timestamp,
) -> Result<Option<Vec<StagedFile>>> {
    let staged = match merged(events, snapshot, group, settings).await {
        Ok(staged) => staged,
        // Vacuum may take a file away that another compaction has taken out.
        Err(error) => {
            let live = events.snapshot(None).await?;
            return if all_live(&live, group) { Err(error) } else { Ok(None) };
        }
    };
    if staged.len() >= group.len() {
        // Nothing is gained by files that are no fewer; what was written is left to vacuum.
        return Ok(None);
    }
    let (before, after): (u64, u64) =
        (group.iter().map(|f| f.rows).sum(), staged.iter().map(|f| f.rows).sum());
    if before != after {
        return Err(Error::internal(format!(
            "{}: {before} rows were to be compacted, {after} were written; nothing was committed",
            events.display()
        )));
    }
    for _ in 0..COMMIT_ATTEMPTS {
        let base = events.snapshot(None).await?;
        if !all_live(&base, group) {
            return Ok(None);
        }
        let commit = Commit {
            add: staged.clone(),
            remove: paths(group),
            operation: Operation::Compact,
            info: settings.by.iter().map(|by| (BY.to_owned(), by.clone())).collect(),
            at_ms: now.micros().div_euclid(1_000),
            ..Commit::default()
        };
        match events.commit(&base, commit).await {
            Ok(CommitOutcome::Committed(_)) => return Ok(Some(staged)),
            Ok(CommitOutcome::Lost { .. }) => {}
            Err(error) if error.kind() == ErrorKind::Conflict => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn all_live(snapshot: &Snapshot, group: &[DataFile]) -> bool {
    let live: std::collections::HashSet<&str> =
        snapshot.files.iter().map(|file| file.path.as_str()).collect();
    group.iter().all(|file| live.contains(file.path.as_str()))
}

/// The rows of a group in new files, not committed yet.
async fn merged(
    events: &Table,
    snapshot: &Snapshot,
    group: &[DataFile],
    settings: &CompactSettings,
) -> Result<Vec<StagedFile>> {
    let mut files = Vec::with_capacity(group.len());
    for file in group {
        files.push(StoredFile::get(events, &file.path).await?);
    }
    let (events, runtime) = (events.clone(), Handle::current());
    let day = group.first().and_then(|file| file.partition);
    let schema = Arc::clone(&snapshot.schema);
    let memory_bytes = settings.memory_bytes / MEMORY_PARTS;
    let work = move || write_merged(&events, &runtime, &files, &schema, day, memory_bytes);
    match tokio::task::spawn_blocking(work).await {
        Ok(staged) => staged,
        Err(error) => Err(Error::internal("compaction stopped").with_source(error)),
    }
}

fn write_merged(
    events: &Table,
    runtime: &Handle,
    files: &[StoredFile],
    table: &SchemaRef,
    day: Option<i32>,
    memory_bytes: usize,
) -> Result<Vec<StagedFile>> {
    let (mut sources, mut columns): (Vec<Source<'_>>, _) = (Vec::new(), Vec::new());
    // A batch of every file and a merged one are in memory together.
    let mut row_bytes = 1;
    for file in files {
        row_bytes = row_bytes.max(file.row_bytes()?);
    }
    let merged_rows = (memory_bytes / 2 / row_bytes).clamp(1, MERGED_ROWS);
    let source_rows = (memory_bytes / 2 / row_bytes / files.len().max(1)).clamp(1, SOURCE_ROWS);
    for file in files {
        let rows = file.rows_of(|_| true, None, source_rows)?;
        let found = arrow::array::RecordBatchReader::schema(&rows);
        columns.extend(found.fields().iter().map(|field| field.name().clone()));
        sources.push(Box::new(rows.map(|batch| file.checked(batch))));
    }
    let schema = united(table, &columns);
    let mut writer: Option<ParquetFileWriter> = None;
    let mut staged = Vec::new();
    let mut stage = |file: EncodedFile| -> Result<()> {
        staged.push(runtime.block_on(events.stage(file))?);
        Ok(())
    };
    merge(sources, &schema, merged_rows, |rows: RecordBatch| {
        let open = match &mut writer {
            Some(open) => open,
            None => {
                let stamp = Some(Uuid::new_v4().to_string());
                // One file: what is written of it is in memory, and no larger than what is read.
                let layout = Layout { target_bytes: usize::MAX, stamp, ..layout_for(&rows) };
                writer.insert(ParquetFileWriter::new(Arc::clone(&schema), &layout, day)?)
            }
        };
        open.write(&rows)?.into_iter().try_for_each(&mut stage)
    })?;
    if let Some(last) = writer.map(ParquetFileWriter::finish).transpose()?.flatten() {
        stage(last)?;
    }
    Ok(staged)
}

/// The columns of the table that any of the files has, in the table's order.
pub(super) fn united(table: &SchemaRef, columns: &[String]) -> SchemaRef {
    let held = |name: &String| name != EVENT_DATE && columns.contains(name);
    let fields = table.fields().iter().filter(|field| held(field.name()));
    Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, day: i32, mib: u64) -> DataFile {
        DataFile { path: name.to_owned(), size: mib << 20, partition: Some(day), rows: 1 }
    }

    fn chosen(files: &[DataFile], settings: &CompactSettings, today: i32) -> Vec<String> {
        let now = Timestamp::from_micros(i64::from(today) * 86_400_000_000);
        let names = |group: Vec<DataFile>| paths(&group).join(" ");
        groups(files, settings, now).into_iter().map(names).collect()
    }

    #[test]
    fn small_files_of_a_day_are_grouped_and_large_ones_left() {
        let settings = CompactSettings::default();
        for (name, files, today, want) in [
            ("one file", vec![file("a", 1, 1)], 9, vec![]),
            ("two small", vec![file("b", 1, 2), file("a", 1, 1)], 9, vec!["a b"]),
            ("days apart", vec![file("a", 1, 1), file("b", 2, 1)], 9, vec![]),
            ("a large one", vec![file("a", 1, 1), file("b", 1, 128)], 9, vec![]),
            (
                "no more than a third of the memory",
                vec![file("a", 1, 60), file("b", 1, 60), file("c", 1, 60)],
                9,
                vec!["a b"],
            ),
            ("open day, little beside much", vec![file("a", 8, 1), file("b", 8, 50)], 9, vec![]),
            (
                "open day, enough beside much",
                vec![file("a", 8, 2), file("b", 8, 2), file("c", 8, 4), file("d", 8, 9)],
                9,
                vec!["a b c"],
            ),
            ("settled day", vec![file("a", 6, 1), file("b", 6, 50)], 9, vec!["a b"]),
        ] {
            assert_eq!(chosen(&files, &settings, today), want, "{name}");
        }
        let many: Vec<DataFile> = (0..100).map(|n| file(&format!("{n:03}"), 1, 1)).collect();
        assert_eq!(chosen(&many, &settings, 9)[0].split(' ').count(), FILES_MAX);
        let within = CompactSettings { days: Some((2, 3)), ..settings };
        let files = [file("a", 1, 1), file("b", 1, 1), file("c", 2, 1), file("d", 2, 1)];
        assert_eq!(chosen(&files, &within, 9), ["c d"]);
    }
}
