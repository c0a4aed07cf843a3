//! Index entries computed from rows as they are stored.
//!
//! The key index is derived state: after a crash, on another machine or after a lost race, the
//! entries of committed files are read back from the files themselves.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use object_store::ObjectStoreExt;
use serde_json::{Map, Value as Json, json};

use super::accounts::received_in;
use super::columns::content_tag;
use super::restore::instant;
use super::seal::date_of;
use super::upsert::{UPSERT, is_upserted};
use crate::decimal::text_of_scaled_i128;
use crate::dedupe::{Content, Entry, Hasher, Index, StagedRun};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::reader::{BATCH_ROWS, StoredFile};
use crate::lake::snapshot::{DataFile, Snapshot};
use crate::lake::table::{Table, VersionChange};
use crate::schema::{
    self, CUSTOMER_ID, ENDED_BY, EVENT_NAME, IDEMPOTENCY_KEY, INGESTED_AT, MADE_BY, PROPERTIES,
    RESOURCE_ID, SOURCE, TIMESTAMP, TIMESTAMP_SOURCE, ValueKind,
};
use crate::time::Timestamp;

/// How many entries are sorted and staged together, which bounds the memory that they take.
pub(super) const GROUP_ENTRIES: usize = 2 << 20;

/// Brings `index` up to `snapshot`, a version of `events`; says how many entries were read.
///
/// An index of another history, as after the lake was restored to an older state, is made anew, and
/// so is one that turns out damaged or stands before what the log still reaches.
///
/// # Errors
/// A file that cannot be read or is damaged.
pub(super) async fn catch_up(
    index: &mut Index,
    events: &Table,
    snapshot: &Snapshot,
    hasher: &Hasher,
) -> Result<u64> {
    let Some(applied) = index.applied() else {
        return rebuild(index, events, snapshot, hasher).await;
    };
    if index.is_damaged() || !is_of_this_history(index, applied, events, snapshot).await? {
        return rebuild(index, events, snapshot, hasher).await;
    }
    match replay(index, applied, events, snapshot, hasher).await {
        Err(error) if index.is_damaged() || error.kind() == ErrorKind::NotFound => {
            rebuild(index, events, snapshot, hasher).await
        }
        replayed => replayed,
    }
}

/// Makes `index` anew from all files of `snapshot`; says how many entries were read.
///
/// # Errors
/// A file that cannot be read or is damaged.
pub(super) async fn rebuild(
    index: &mut Index,
    events: &Table,
    snapshot: &Snapshot,
    hasher: &Hasher,
) -> Result<u64> {
    index.clear()?;
    let mut entries = 0;
    each_group((events, &snapshot.files), hasher, GROUP_ENTRIES, |group| {
        let run = index.stage(group.into_iter())?;
        entries += run.len();
        index.apply_part(vec![run])
    })
    .await?;
    apply(index, events, snapshot.version, Vec::new()).await?;
    Ok(entries)
}

/// Takes the keys of a version's commit into `index`, with what tells that commit from any other.
///
/// # Errors
/// A log or an index that cannot be read or written.
pub(super) async fn apply(
    index: &mut Index,
    events: &Table,
    version: u64,
    runs: Vec<StagedRun>,
) -> Result<()> {
    let mark = events.commit_mark(version).await?;
    index.apply_commit(version, mark.as_deref(), runs)
}

/// Whether what `index` holds is of the history that `snapshot` is of.
///
/// # Errors
/// A log that cannot be read.
pub(super) async fn follows(index: &Index, events: &Table, snapshot: &Snapshot) -> Result<bool> {
    match index.applied() {
        Some(applied) => is_of_this_history(index, applied, events, snapshot).await,
        None => Ok(true),
    }
}

/// Whether the version applied last is the one that the log has under its number. Where one of the
/// two marks is gone, it is taken to be.
async fn is_of_this_history(
    index: &Index,
    applied: u64,
    events: &Table,
    snapshot: &Snapshot,
) -> Result<bool> {
    if applied > snapshot.version {
        return Ok(false);
    }
    let Some(known) = index.mark() else { return Ok(true) };
    Ok(events.commit_mark(applied).await?.is_none_or(|mark| mark == known))
}

/// Applies the commits after version `applied` one by one.
///
/// # Errors
/// Not found where the log no longer reaches back that far.
async fn replay(
    index: &mut Index,
    applied: u64,
    events: &Table,
    snapshot: &Snapshot,
    hasher: &Hasher,
) -> Result<u64> {
    let mut entries = 0;
    let live: HashSet<&str> = snapshot.files.iter().map(|file| file.path.as_str()).collect();
    for change in events.changes(applied, snapshot.version).await? {
        if is_receipt(&change) {
            must_be_there(events, &change.added, &live).await?;
        }
        let files = brought(events, &change).await?;
        let mut runs = Vec::new();
        each_group((events, &files), hasher, GROUP_ENTRIES, |group| {
            runs.push(index.stage(group.into_iter())?);
            Ok(())
        })
        .await?;
        entries += runs.iter().map(StagedRun::len).sum::<u64>();
        apply(index, events, change.version, runs).await?;
    }
    Ok(entries)
}

/// Whether a commit brought events. Compaction moves rows, and corrections say what counts: the index
/// knows what was received.
pub(super) fn is_receipt(change: &VersionChange) -> bool {
    change.removed.is_empty() || change.info.contains_key(UPSERT)
}

/// The files of the rows that a commit brought: all that it added, but for those of an upsert in which
/// rows are ended that were there before.
///
/// # Errors
/// A file that cannot be read or is damaged.
pub(super) async fn brought(events: &Table, change: &VersionChange) -> Result<Vec<DataFile>> {
    if change.removed.is_empty() {
        return Ok(change.added.clone());
    }
    if !is_receipt(change) {
        return Ok(Vec::new());
    }
    let received = received_in(&change.info).ok_or_else(|| {
        let (place, version) = (events.display(), change.version);
        Error::corrupt(format!("{place}: version {version} does not say when it was received"))
    })?;
    let mut brought = Vec::new();
    for file in &change.added {
        // No batch has rows of another's instant, and no file of it rows of another batch.
        let stored = StoredFile::get(events, &file.path).await?;
        let mut first = stored.rows(Some(&[INGESTED_AT]), None, 1)?;
        let first = first.next().map(|rows| stored.checked(rows)).transpose()?;
        let at = first.map(|rows| instant(&rows, INGESTED_AT, 0)).transpose()?;
        if at.is_some_and(|at| at.micros() == received) {
            brought.push(file.clone());
        }
    }
    Ok(brought)
}

/// Whether those of `files` that are no longer live are still there, as they were compacted since.
///
/// # Errors
/// Not found where one was vacuumed.
async fn must_be_there(events: &Table, files: &[DataFile], live: &HashSet<&str>) -> Result<()> {
    for file in files.iter().filter(|file| !live.contains(file.path.as_str())) {
        match events.location().store.head(&events.object_path(&file.path)?).await {
            Ok(_) => {}
            Err(object_store::Error::NotFound { .. }) => {
                return Err(Error::not_found(format!(
                    "{}/{} was vacuumed",
                    events.display(),
                    file.path
                )));
            }
            Err(error) => {
                let text = format!("{}/{}: {error}", events.display(), file.path);
                return Err(Error::unavailable(text).with_source(error));
            }
        }
    }
    Ok(())
}

/// Gives the entries of committed files to `take`, in groups of which each ascends by key, holds
/// each key once, and has hardly more than `most` entries, of however many files.
///
/// # Errors
/// A file that cannot be read or is damaged, and those of `take`.
pub(super) async fn each_group(
    (events, files): (&Table, &[DataFile]),
    hasher: &Hasher,
    most: usize,
    mut take: impl FnMut(Vec<Entry>) -> Result<()>,
) -> Result<()> {
    let mut group = Vec::new();
    for file in files {
        for batch in batches(events, &file.path, Columns::Hashed).await? {
            group.extend(entries_of(&received(batch?)?, hasher)?);
            if group.len() >= most {
                take(in_order(std::mem::take(&mut group)))?;
            }
        }
    }
    if group.is_empty() { Ok(()) } else { take(in_order(group)) }
}

/// The rows that were received as they are, and are the newest of their identity. What corrections
/// made of them is not what a sender sends again, and what an upsert ended is not what holds the
/// identity, so that both are in no index.
fn received(rows: RecordBatch) -> Result<RecordBatch> {
    let marks = |name: &str| {
        let column = rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        column.filter(|column| column.null_count() < column.len())
    };
    let (made_by, ended_by) = (marks(MADE_BY), marks(ENDED_BY));
    if made_by.is_none() && ended_by.is_none() {
        return Ok(rows);
    }
    let is_in = |row: usize| {
        made_by.is_none_or(|made_by| made_by.is_null(row))
            && !ended_by.is_some_and(|ended_by| is_upserted(ended_by, row))
    };
    let keep: BooleanArray = (0..rows.num_rows()).map(|row| Some(is_in(row))).collect();
    filter_record_batch(&rows, &keep)
        .map_err(|error| Error::internal("leave out what holds no identity").with_source(error))
}

/// Entries as a run has them: ascending, and of those with one key any one.
pub(super) fn in_order(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_unstable_by_key(|entry| entry.key);
    entries.dedup_by_key(|entry| entry.key);
    entries
}

/// Which columns of a data file are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Columns {
    /// All of them.
    All,
    /// Those that [`entries_of`] reads.
    Hashed,
}

/// The rows of one data file, decoded batch by batch as they are asked for.
///
/// # Errors
/// A file that is missing or damaged; damage may also come to light later, instead of a batch.
pub(super) async fn batches(
    events: &Table,
    path: &str,
    columns: Columns,
) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
    let file = StoredFile::get(events, path).await?;
    let rows = file.rows_of(|name| columns == Columns::All || is_hashed(name), None, BATCH_ROWS)?;
    Ok(rows.map(move |batch| file.checked(batch)))
}

/// Whether the index entry of a row, or that it has one, depends on this column.
fn is_hashed(column: &str) -> bool {
    [
        EVENT_NAME,
        IDEMPOTENCY_KEY,
        CUSTOMER_ID,
        RESOURCE_ID,
        SOURCE,
        TIMESTAMP,
        TIMESTAMP_SOURCE,
        PROPERTIES,
        MADE_BY,
        ENDED_BY,
    ]
    .contains(&column)
        || schema::property_of_column(column).is_some()
}

/// The index entries of stored rows.
///
/// # Errors
/// A column of the envelope that is missing or of another type.
pub(super) fn entries_of(batch: &RecordBatch, hasher: &Hasher) -> Result<Vec<Entry>> {
    let text = |name: &str| -> Result<StringArray> {
        let column = batch.column_by_name(name);
        let column = column.and_then(|column| column.as_string_opt::<i32>());
        column.cloned().ok_or_else(|| Error::corrupt(format!("a data file has no text `{name}`")))
    };
    let (key, source) = (text(IDEMPOTENCY_KEY)?, text(SOURCE)?);
    let timestamps = batch
        .column_by_name(TIMESTAMP)
        .and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>())
        .ok_or_else(|| Error::corrupt("a data file has no instants `timestamp`"))?;
    let mut contents = vec![Content::default(); batch.num_rows()];
    add_envelope(batch, timestamps, text, hasher, &mut contents)?;
    add_properties(batch, hasher, &mut contents);
    let rows = contents.into_iter().enumerate();
    Ok(rows
        .map(|(row, content)| Entry {
            key: hasher.identity(source.is_valid(row).then(|| source.value(row)), key.value(row)),
            content: content.value(),
            date: date_of(timestamps.value(row)),
        })
        .collect())
}

fn add_envelope(
    batch: &RecordBatch,
    timestamps: &arrow::array::TimestampMicrosecondArray,
    text: impl Fn(&str) -> Result<StringArray>,
    hasher: &Hasher,
    contents: &mut [Content],
) -> Result<()> {
    debug_assert_eq!(batch.num_rows(), contents.len());
    for (tag, name) in [
        (content_tag::EVENT_NAME, EVENT_NAME),
        (content_tag::CUSTOMER_ID, CUSTOMER_ID),
        (content_tag::RESOURCE_ID, RESOURCE_ID),
    ] {
        for (content, text) in contents.iter_mut().zip(text(name)?.iter()) {
            if let Some(text) = text {
                content.add(hasher.field(tag, "", text));
            }
        }
    }
    let sources = text(TIMESTAMP_SOURCE)?;
    for (row, content) in contents.iter_mut().enumerate() {
        // A timestamp that we set ourselves is no part of the content.
        if sources.value(row) == "sent" {
            let micros = timestamps.value(row).to_string();
            content.add(hasher.field(content_tag::TIMESTAMP, "", &micros));
        }
    }
    Ok(())
}

fn add_properties(batch: &RecordBatch, hasher: &Hasher, contents: &mut [Content]) {
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let Some((kind, name)) = schema::property_of_column(field.name()) else { continue };
        for (row, content) in contents.iter_mut().enumerate() {
            if column.is_null(row) {
                continue;
            }
            let owned;
            let text = match kind {
                ValueKind::Text => column.as_string::<i32>().value(row),
                ValueKind::Integer => {
                    owned = column.as_primitive::<Int64Type>().value(row).to_string();
                    &owned
                }
                ValueKind::Decimal => {
                    let scaled = column.as_primitive::<Decimal128Type>().value(row);
                    owned = text_of_scaled_i128(scaled, 18);
                    &owned
                }
                ValueKind::Boolean if column.as_boolean().value(row) => "true",
                ValueKind::Boolean => "false",
            };
            content.add(hasher.field(content_tag::PROPERTY, name, text));
        }
    }
    let others = batch.column_by_name(PROPERTIES).and_then(|column| column.as_map_opt());
    for (row, content) in contents.iter_mut().enumerate() {
        let Some(others) = others.filter(|others| others.is_valid(row)) else { continue };
        let entries = others.value(row);
        let (names, texts) = (entries.column(0), entries.column(1));
        for (name, text) in names.as_string::<i32>().iter().zip(texts.as_string::<i32>().iter()) {
            if let (Some(name), Some(text)) = (name, text) {
                content.add(hasher.field(content_tag::PROPERTY, name, text));
            }
        }
    }
}

/// One stored row as JSON of our own shape. Decimals are text, as a JSON number would be read as a
/// float by most.
pub(super) fn event_text(rows: &RecordBatch, row: usize) -> String {
    let (mut event, mut properties) = (Map::new(), Map::new());
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        if column.is_null(row) {
            continue;
        }
        match schema::property_of_column(field.name()) {
            Some((_, name)) => {
                properties.insert(name.to_owned(), json_value(column, row));
            }
            None if field.name() == PROPERTIES => {
                let entries = column.as_map().value(row);
                let names = entries.column(0).as_string::<i32>();
                let texts = entries.column(1).as_string::<i32>();
                for (name, text) in names.iter().zip(texts.iter()) {
                    properties.insert(name.unwrap_or_default().to_owned(), json!(text));
                }
            }
            None if [EVENT_NAME, IDEMPOTENCY_KEY, CUSTOMER_ID, RESOURCE_ID, SOURCE, TIMESTAMP]
                .contains(&field.name().as_str()) =>
            {
                event.insert(field.name().clone(), json_value(column, row));
            }
            None => {}
        }
    }
    event.insert(PROPERTIES.to_owned(), Json::Object(properties));
    Json::Object(event).to_string()
}

fn json_value(column: &ArrayRef, row: usize) -> Json {
    if let Some(integers) = column.as_primitive_opt::<Int64Type>() {
        return json!(integers.value(row));
    }
    if let Some(decimals) = column.as_primitive_opt::<Decimal128Type>() {
        return json!(text_of_scaled_i128(decimals.value(row), 18));
    }
    if let Some(booleans) = column.as_boolean_opt() {
        return json!(booleans.value(row));
    }
    if let Some(instants) = column.as_primitive_opt::<TimestampMicrosecondType>() {
        return json!(Timestamp::from_micros(instants.value(row)).to_string());
    }
    json!(column.as_string_opt::<i32>().map(|texts| texts.value(row)))
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use arrow::array::TimestampMicrosecondArray;
    use object_store::path::Path as ObjectPath;

    use super::*;
    use crate::lake::commit::Commit;
    use crate::lake::layout::layout_for;
    use crate::lake::location::{Location, Namespace};
    use crate::lake::staged::StagedFile;
    use crate::lake::tables::Lake;
    use crate::lake::writer::ParquetFileWriter;

    type Numbers = std::ops::Range<i64>;

    /// The events table of a lake in a folder.
    pub(in crate::ingest) async fn events_in(folder: &Path) -> Table {
        let location = Location::parse(folder.to_str().unwrap()).unwrap();
        Lake::open_or_create(&location, &Namespace::default()).await.unwrap().events
    }

    fn rows(numbers: Numbers) -> RecordBatch {
        let text = |text: &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(numbers.clone().map(|_| text)))
        };
        let instants = || -> ArrayRef {
            let instants = TimestampMicrosecondArray::from_iter_values(numbers.clone());
            Arc::new(instants.with_timezone("UTC"))
        };
        let keys = StringArray::from_iter_values(numbers.clone().map(|number| number.to_string()));
        let columns = [
            (EVENT_NAME, text("call")),
            (IDEMPOTENCY_KEY, Arc::new(keys)),
            (CUSTOMER_ID, text("c")),
            (RESOURCE_ID, text("r")),
            (SOURCE, text("s")),
            (TIMESTAMP, instants()),
            (INGESTED_AT, instants()),
            (TIMESTAMP_SOURCE, text("sent")),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    /// A data file that is not committed yet.
    pub(in crate::ingest) async fn staged(events: &Table, numbers: Numbers) -> StagedFile {
        let rows = rows(numbers);
        let layout = layout_for(&rows);
        let mut writer = ParquetFileWriter::new(rows.schema(), &layout, Some(0)).unwrap();
        assert!(writer.write(&rows).unwrap().is_empty());
        events.stage(writer.finish().unwrap().unwrap()).await.unwrap()
    }

    /// Commits a file for each pair of bounds of numbers, of which the second is left out.
    pub(in crate::ingest) async fn commit(events: &Table, files: &[(i64, i64)]) -> Arc<Snapshot> {
        let mut commit = Commit::default();
        for (from, to) in files {
            commit.add.push(staged(events, *from..*to).await);
        }
        events.append(commit).await.unwrap()
    }

    async fn caught_up(index: &mut Index, events: &Table) -> Result<u64> {
        let snapshot = events.snapshot(None).await.unwrap();
        catch_up(index, events, &snapshot, &Hasher::new(events.table_id())).await
    }

    /// Which of the numbers below 100 the index holds.
    fn held(index: &Index, events: &Table) -> Vec<i64> {
        let hasher = Hasher::new(events.table_id());
        let key = |number: &i64| hasher.identity(Some("s"), &number.to_string());
        let is_held = |number: &i64| index.probe(&[key(number)]).unwrap()[0].is_some();
        (0..100).filter(is_held).collect()
    }

    async fn forget(events: &Table, version: u64) {
        let entry = format!("_delta_log/{version:020}.json");
        let path: ObjectPath = events.object_path(&entry).unwrap();
        events.location().store.delete(&path).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_index_of_another_history_is_made_anew() {
        for (name, is_set_back, later, want, read) in [
            ("as it was", false, None, (0..20).collect::<Vec<_>>(), 0),
            ("moved on", false, Some(20..25), (0..25).collect(), 5),
            ("set back", true, None, (0..10).collect(), 10),
            ("set back and moved on", true, Some(20..25), (0..10).chain(20..25).collect(), 15),
        ] {
            let [lake, state] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            let events = events_in(lake.path()).await;
            let mut index = Index::open(state.path(), events.table_id(), "now").unwrap();
            commit(&events, &[(0, 10)]).await;
            let newest = commit(&events, &[(10, 20)]).await.version;
            assert_eq!(caught_up(&mut index, &events).await.unwrap(), 20, "{name}");
            if is_set_back {
                forget(&events, newest).await;
            }
            let events = events_in(lake.path()).await;
            if let Some(later) = later {
                commit(&events, &[(later.start, later.end)]).await;
            }
            assert_eq!(caught_up(&mut index, &events).await.unwrap(), read, "{name}");
            assert_eq!(held(&index, &events), want, "{name}");
            let now = events.snapshot(None).await.unwrap().version;
            assert_eq!(index.applied(), Some(now), "{name}");
            assert_eq!(caught_up(&mut index, &events).await.unwrap(), 0, "{name}: twice");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_entry_that_the_log_has_no_more_is_taken_for_the_one_applied() {
        let [lake, state] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let events = events_in(lake.path()).await;
        let mut index = Index::open(state.path(), events.table_id(), "now").unwrap();
        let snapshot = commit(&events, &[(0, 10)]).await;
        let hasher = Hasher::new(events.table_id());
        assert_eq!(catch_up(&mut index, &events, &snapshot, &hasher).await.unwrap(), 10);
        forget(&events, snapshot.version).await;
        assert_eq!(events.commit_mark(snapshot.version).await.unwrap(), None);
        assert_eq!(catch_up(&mut index, &events, &snapshot, &hasher).await.unwrap(), 0);
        assert_eq!(held(&index, &events), (0..10).collect::<Vec<_>>());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_run_found_damaged_while_catching_up_leads_to_a_new_index() {
        let [lake, state] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let events = events_in(lake.path()).await;
        let mut index = Index::open(state.path(), events.table_id(), "now").unwrap();
        commit(&events, &[(0, 10)]).await;
        caught_up(&mut index, &events).await.unwrap();
        for file in std::fs::read_dir(state.path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "run") {
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[4_100] ^= 1;
                std::fs::write(&path, bytes).unwrap();
            }
        }
        commit(&events, &[(10, 60)]).await;
        assert_eq!(caught_up(&mut index, &events).await.unwrap(), 60);
        assert_eq!(held(&index, &events), (0..60).collect::<Vec<_>>());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn entries_of_many_files_come_in_few_groups() {
        let lake = tempfile::tempdir().unwrap();
        let events = events_in(lake.path()).await;
        let snapshot = commit(&events, &[(0, 10), (10, 20), (20, 30), (30, 40), (40, 50)]).await;
        let hasher = Hasher::new(events.table_id());
        for (name, most, want) in [
            ("all in one", 1_000, vec![50]),
            ("a few files each", 25, vec![30, 20]),
            ("each its own", 1, vec![10; 5]),
        ] {
            let mut groups = Vec::new();
            let files = (&events, snapshot.files.as_slice());
            each_group(files, &hasher, most, |group| {
                assert!(group.is_sorted_by(|left, right| left.key < right.key), "{name}");
                groups.push(group.len());
                Ok(())
            })
            .await
            .unwrap();
            assert_eq!(groups, want, "{name}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_columns_that_matter_are_decoded() {
        let lake = tempfile::tempdir().unwrap();
        let events = events_in(lake.path()).await;
        let file = staged(&events, 0..20_000).await;
        let hasher = Hasher::new(events.table_id());
        let mut hashes = Vec::new();
        for (columns, has_all) in [(Columns::All, true), (Columns::Hashed, false)] {
            let mut entries = Vec::new();
            for batch in batches(&events, &file.path, columns).await.unwrap() {
                let batch = batch.unwrap();
                assert!(batch.num_rows() <= BATCH_ROWS);
                assert_eq!(batch.column_by_name(INGESTED_AT).is_some(), has_all);
                entries.extend(entries_of(&batch, &hasher).unwrap());
            }
            hashes.push(entries);
        }
        assert_eq!(hashes[0].len(), 20_000);
        assert_eq!(hashes[0], hashes[1]);
    }
}
