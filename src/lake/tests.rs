//! What must hold of a lake, in memory and on a disk with an awkward path.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow::array::{
    ArrayRef, AsArray, Decimal128Array, Int64Array, MapBuilder, RecordBatch, StringArray,
    StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, Int64Type, Schema, SchemaRef, TimeUnit,
    TimestampMicrosecondType, UInt64Type,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use super::commit::{Commit, CommitOutcome, Operation};
use super::location::{Location, Namespace};
use super::put::{PART_BYTES, put_file};
use super::staged::StagedFile;
use super::table::Table;
use super::writer::{Layout, ParquetFileWriter};
use crate::error::ErrorKind;

const DAY: i32 = 20_727;

fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn map_type() -> DataType {
    let key = Field::new("keys", DataType::Utf8, false);
    let value = Field::new("values", DataType::Utf8, true);
    let entries = Field::new("entries", DataType::Struct(vec![key, value].into()), false);
    DataType::Map(Arc::new(entries), false)
}

fn file_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("at", instant(), false),
        Field::new("count", DataType::Int64, true),
        Field::new("price", DataType::Decimal128(38, 18), true),
        Field::new("nothing", DataType::Int64, true),
        Field::new("rest", map_type(), true),
    ]))
}

fn table_schema() -> Schema {
    let date = Field::new("event_date", DataType::Date32, false);
    let fields = file_schema().fields().iter().cloned().chain([Arc::new(date)]).collect::<Vec<_>>();
    Schema::new(fields)
}

const MICROS: i64 = 1_790_812_800_000_000;
const LONG_NAME: &str = "transfer/with/a/name/that/is/longer/than/bounds/may/be/ü";

/// Two rows with values at the edges and a null.
fn rows(seed: i64) -> RecordBatch {
    let mut rest = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    rest.keys().append_value("k");
    rest.values().append_value("v");
    rest.append(true).unwrap();
    rest.append(false).unwrap();
    let rest = arrow::compute::cast(&rest.finish(), &map_type()).unwrap();
    let price = Decimal128Array::from(vec![
        Some(99_999_999_999_999_999_999_999_999_999_999_999_999),
        Some(-1),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["a", LONG_NAME])),
        Arc::new(
            TimestampMicrosecondArray::from(vec![MICROS + seed, MICROS + seed + 1_001])
                .with_timezone("UTC"),
        ),
        Arc::new(Int64Array::from(vec![Some(i64::MIN + seed), None])),
        Arc::new(price.with_precision_and_scale(38, 18).unwrap()),
        Arc::new(Int64Array::from(vec![None, None])),
        rest,
    ];
    RecordBatch::try_new(file_schema(), columns).unwrap()
}

async fn stage_rows(table: &Table, rows: &RecordBatch) -> StagedFile {
    let layout = Layout { sorted_by: vec!["name".into()], ..Layout::default() };
    let mut writer = ParquetFileWriter::new(rows.schema(), &layout, Some(DAY)).unwrap();
    assert!(writer.write(rows).unwrap().is_empty());
    table.stage(writer.finish().unwrap().unwrap()).await.unwrap()
}

async fn stage(table: &Table, seed: i64) -> StagedFile {
    stage_rows(table, &rows(seed)).await
}

fn adding(file: StagedFile) -> Commit {
    Commit { add: vec![file], at_ms: MICROS / 1_000, ..Commit::default() }
}

async fn make(location: &Location) -> Table {
    let info = BTreeMap::from([("made".to_owned(), "here".to_owned())]);
    let namespace = Namespace::default();
    Table::create(location, &namespace, "events", &table_schema(), &["event_date"], &info)
        .await
        .unwrap()
}

async fn open(location: &Location) -> crate::error::Result<Table> {
    Table::open(location, &Namespace::default(), "events").await
}

fn memory(name: &str) -> Location {
    Location::parse(&format!("memory://{name}")).unwrap()
}

fn awkward_folder(parent: &tempfile::TempDir) -> Location {
    let folder = parent.path().join("my lake 50% %41 #1 ü?");
    Location::parse(folder.to_str().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_keeps_its_history() {
    let parent = tempfile::tempdir().unwrap();
    for location in [memory("history"), awkward_folder(&parent)] {
        assert_eq!(open(&location).await.unwrap_err().kind(), ErrorKind::NotFound, "{location}");
        let table = make(&location).await;
        let info = BTreeMap::from([("read".to_owned(), "2".to_owned())]);
        let app = Some(("writer".to_owned(), 7));
        let first = Commit { info: info.clone(), app, ..adding(stage(&table, 0).await) };
        let one = table.append(first.clone()).await.unwrap();
        let two = table.append(adding(stage(&table, 1).await)).await.unwrap();
        assert_eq!((one.version, two.version), (1, 2));
        assert_eq!((one.files.len(), two.files.len(), two.rows()), (1, 2, 4));
        assert_eq!(one.files[0].partition, Some(DAY));
        assert_eq!(one.files[0].path, first.add[0].path);

        let again = open(&location).await.unwrap();
        assert_eq!(again.table_id(), table.table_id());
        assert_eq!(again.partition(), Some("event_date"));
        let latest = again.snapshot(None).await.unwrap();
        assert_eq!(paths(&latest.files), paths(&two.files));
        assert_eq!(latest.app_version("writer").await.unwrap(), Some(7));
        assert_eq!(latest.app_version("nobody").await.unwrap(), None);
        let past = again.snapshot(Some(1)).await.unwrap();
        assert_eq!(past.files, one.files);
        let missing = again.snapshot(Some(3)).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert!(missing.to_string().contains("versions 0 to 2"), "{missing}");

        assert_eq!(again.commit_info(1).await.unwrap(), info);
        assert_eq!(again.commit_info(0).await.unwrap()["made"], "here");
        let changes = again.changes(0, 2).await.unwrap();
        assert_eq!(changes.iter().map(|change| change.version).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(changes[0].added, one.files);
        assert_eq!(changes[0].info, info);
        let kept = location.store.get(&table.object_path(&one.files[0].path).unwrap()).await;
        assert_eq!(kept.unwrap().meta.size, one.files[0].size);

        let repeated = table.append(first).await.unwrap_err();
        assert_eq!(repeated.kind(), ErrorKind::Conflict, "{repeated}");
    }
}

fn paths(files: &[super::snapshot::DataFile]) -> BTreeSet<&str> {
    files.iter().map(|file| file.path.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_come_back_exact() {
    let location = memory("statistics");
    let table = make(&location).await;
    let advanced = table.append(adding(stage(&table, 5).await)).await.unwrap();
    let read = open(&location).await.unwrap().snapshot(None).await.unwrap();
    for (how, snapshot) in [("brought up to date", advanced), ("read in full", read)] {
        let stats = snapshot.stats();
        let min = |column: &str| stats.min(column).unwrap();
        let max = |column: &str| stats.max(column).unwrap();
        let nulls =
            |column: &str| stats.null_count(column).unwrap().as_primitive::<UInt64Type>().value(0);
        assert_eq!(stats.row_counts().as_primitive::<UInt64Type>().values(), &[2], "{how}");
        assert_eq!(min("count").as_primitive::<Int64Type>().value(0), i64::MIN + 5, "{how}");
        assert_eq!(max("count").as_primitive::<Int64Type>().value(0), i64::MIN + 5, "{how}");
        assert_eq!(min("price").as_primitive::<Decimal128Type>().value(0), -1, "{how}");
        assert_eq!(
            max("price").as_primitive::<Decimal128Type>().value(0),
            99_999_999_999_999_999_999_999_999_999_999_999_999,
            "{how}"
        );
        let (from, to) = (min("at"), max("at"));
        let (from, to) = (
            from.as_primitive::<TimestampMicrosecondType>().value(0),
            to.as_primitive::<TimestampMicrosecondType>().value(0),
        );
        assert!(from <= MICROS + 5 && from > MICROS - 1_000, "{how}: {from}");
        assert!((MICROS + 1_006..MICROS + 2_000).contains(&to), "{how}: {to}");
        assert_eq!(min("at").data_type(), &instant(), "{how}");
        assert_eq!(min("name").as_string::<i32>().value(0), "a", "{how}");
        assert!(max("name").as_string::<i32>().value(0) >= LONG_NAME, "{how}");
        assert!(min("nothing").is_null(0) && max("nothing").is_null(0), "{how}");
        assert_eq!(["name", "count", "nothing", "rest"].map(nulls), [0, 1, 2, 1], "{how}");
        assert!(stats.min("rest").is_none() && stats.min("event_date").is_none(), "{how}");
    }
}

fn wide(count: usize) -> (Vec<FieldRef>, RecordBatch) {
    let names = (0..count).map(|i| format!("i_{i}"));
    let fields: Vec<FieldRef> =
        names.map(|name| Arc::new(Field::new(name, DataType::Int64, true))).collect();
    let schema = file_schema().fields().iter().cloned().chain(fields.clone()).collect::<Vec<_>>();
    let values = (0_i64..).take(count);
    let new = values.map(|i| Arc::new(Int64Array::from(vec![i, i + 1])) as ArrayRef);
    let columns = rows(9).columns().iter().cloned().chain(new).collect();
    (fields, RecordBatch::try_new(Arc::new(Schema::new(schema)), columns).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_come_later_have_statistics() {
    let location = memory("wide");
    let table = make(&location).await;
    table.append(adding(stage(&table, 0).await)).await.unwrap();
    let (add_columns, rows) = wide(260);
    let file = stage_rows(&table, &rows).await;
    let early = table.append(adding(file.clone())).await.unwrap_err();
    assert!(early.to_string().contains("column `i_0`"), "{early}");
    let advanced = table.append(Commit { add_columns, ..adding(file) }).await.unwrap();
    let read = open(&location).await.unwrap().snapshot(None).await.unwrap();
    for snapshot in [advanced, read] {
        let new = snapshot.files.iter().position(|file| file.rows == 2 && file.size > 20_000);
        let (new, old) = if new == Some(0) { (0, 1) } else { (1, 0) };
        let stats = snapshot.stats();
        for i in [0, 31, 32, 59, 259] {
            let column = format!("i_{i}");
            let (min, max) = (stats.min(&column).unwrap(), stats.max(&column).unwrap());
            assert_eq!(min.as_primitive::<Int64Type>().value(new), i, "{column}");
            assert_eq!(max.as_primitive::<Int64Type>().value(new), i + 1, "{column}");
            let nulls = stats.null_count(&column).unwrap();
            assert_eq!(nulls.as_primitive::<UInt64Type>().value(new), 0, "{column}");
            assert_eq!(nulls.as_primitive::<UInt64Type>().value(old), 2, "{column} came later");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_appends_lose_and_double_nothing() {
    let parent = tempfile::tempdir().unwrap();
    for location in [memory("race"), awkward_folder(&parent)] {
        make(&location).await;
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..4_i64 {
            let location = location.clone();
            writers.spawn(async move {
                let table = open(&location).await.unwrap();
                for turn in 0..25_i64 {
                    let file = stage(&table, writer * 1_000 + turn).await;
                    let column = Field::new(format!("i_{}", turn / 5), DataType::Int64, true);
                    let add_columns = vec![Arc::new(column)];
                    let app = Some((format!("w{writer}"), turn));
                    table.append(Commit { add_columns, app, ..adding(file) }).await.unwrap();
                }
            });
        }
        while let Some(writer) = writers.join_next().await {
            writer.unwrap();
        }
        let fresh = open(&location).await.unwrap().snapshot(None).await.unwrap();
        assert_eq!(fresh.version, 100, "{location}");
        assert_eq!((fresh.files.len(), paths(&fresh.files).len()), (100, 100), "{location}");
        assert_eq!(fresh.schema.fields().len(), table_schema().fields().len() + 5, "{location}");
        for writer in 0..4 {
            let reached = fresh.app_version(&format!("w{writer}")).await.unwrap();
            assert_eq!(reached, Some(24), "{location}");
        }
        let listed: Vec<_> = location.store.list(Some(&location.root)).try_collect().await.unwrap();
        let checkpoint = |object: &&ObjectMeta| object.location.as_ref().contains(".checkpoint.");
        assert_eq!(listed.iter().filter(checkpoint).count(), 1, "{location}");
        let name = |object: &ObjectMeta| object.location.filename().unwrap_or_default().to_owned();
        assert!(!listed.iter().any(|object| name(object).contains('#')), "{location}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_are_learned_at_once_and_not_asked_for_again() {
    let location = memory("applications");
    let table = make(&location).await;
    // Beyond the first checkpoint, some applications before it, some after, one on both sides.
    for number in 0..130_i64 {
        let app = match number {
            7 | 120 => "twice".to_owned(),
            number => format!("app-{number}"),
        };
        let commit = Commit { app: Some((app, number)), at_ms: number, ..Commit::default() };
        table.append(commit).await.unwrap();
    }
    let asked = ["app-0", "app-99", "app-100", "app-129", "twice", "app-7", "nobody"];
    for at in [Some(50), Some(100), Some(110), None] {
        let one_by_one = open(&location).await.unwrap().snapshot(at).await.unwrap();
        let table = open(&location).await.unwrap();
        let snapshot = table.snapshot(at).await.unwrap();
        table.learn_applications(&snapshot).await.unwrap();
        for app in asked {
            let want = one_by_one.app_version(app).await.unwrap();
            assert_eq!(snapshot.app_version(app).await.unwrap(), want, "{app} at {at:?}");
        }
    }
    let reader = open(&location).await.unwrap();
    let snapshot = reader.snapshot(None).await.unwrap();
    reader.learn_applications(&snapshot).await.unwrap();
    let next = Commit { app: Some(("next".to_owned(), 1)), at_ms: 200, ..Commit::default() };
    table.append(next).await.unwrap();
    let later = reader.snapshot(None).await.unwrap();
    // Without its log a table can only answer what it has in memory.
    let log: Vec<_> = location.store.list(None).try_collect().await.unwrap();
    for object in log.iter().filter(|object| object.location.as_ref().contains("_delta_log")) {
        location.store.delete(&object.location).await.unwrap();
    }
    for (app, want) in [("app-0", Some(0)), ("twice", Some(120)), ("nobody", None)] {
        assert_eq!(snapshot.app_version(app).await.unwrap(), want, "{app}");
        assert_eq!(later.app_version(app).await.unwrap(), want, "{app}");
    }
    assert_eq!(later.app_version("next").await.unwrap(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_and_compacting() {
    let location = memory("remove");
    let table = make(&location).await;
    table.append(adding(stage(&table, 0).await)).await.unwrap();
    let base = table.append(adding(stage(&table, 1).await)).await.unwrap();
    let inputs: Vec<String> = base.files.iter().map(|file| file.path.clone()).collect();
    let compact = Commit {
        remove: inputs.clone(),
        operation: Operation::Compact,
        ..adding(stage(&table, 2).await)
    };
    let CommitOutcome::Committed(compacted) = table.commit(&base, compact.clone()).await.unwrap()
    else {
        panic!("lost without a rival")
    };
    assert_eq!(paths(&compacted.files), BTreeSet::from([compact.add[0].path.as_str()]));
    let read = open(&location).await.unwrap().snapshot(None).await.unwrap();
    assert_eq!(read.files, compacted.files);
    assert_eq!(read.stats().len(), 1);

    // From where it stood, the second remover loses; from where it stands, the files are dead.
    let second = table.commit(&base, compact.clone()).await.unwrap();
    assert!(matches!(second, CommitOutcome::Lost { winner: 3 }), "{second:?}");
    let dead = table.commit(&compacted, compact).await.unwrap_err();
    assert_eq!(dead.kind(), ErrorKind::Conflict);
    assert!(dead.to_string().contains("not live at version 3"), "{dead}");
    let mut changes = table.changes(2, 3).await.unwrap();
    changes[0].removed.sort();
    let mut inputs = inputs;
    inputs.sort();
    assert_eq!(changes[0].removed, inputs);
}

/// How a [`Faulty`] store treats the next puts into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    LandsThenFails,
    LandsThenExists,
    ExistsNowhere,
    Fails,
}

#[derive(Debug)]
struct Faulty {
    inner: Arc<dyn ObjectStore>,
    fault: Fault,
    left: AtomicU32,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        let in_log = location.as_ref().contains("_delta_log");
        let due = |left: u32| left.checked_sub(1).filter(|_| in_log);
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, due).is_err() {
            return self.inner.put_opts(location, payload, opts).await;
        }
        if matches!(self.fault, Fault::LandsThenFails | Fault::LandsThenExists) {
            self.inner.put_opts(location, payload, opts).await?;
        }
        Err(match self.fault {
            Fault::LandsThenFails | Fault::Fails => {
                object_store::Error::Generic { store: "Faulty", source: "timed out".into() }
            }
            Fault::LandsThenExists | Fault::ExistsNowhere => {
                let path = location.to_string();
                object_store::Error::AlreadyExists { path, source: "conflict".into() }
            }
        })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_knows_its_own_whatever_the_store_says() {
    for (name, fault, times, want) in [
        ("fails after landing", Fault::LandsThenFails, 1, Ok(1)),
        ("exists after landing", Fault::LandsThenExists, 1, Ok(1)),
        ("exists, but is not there", Fault::ExistsNowhere, 1, Ok(1)),
        ("never lands", Fault::ExistsNowhere, 9, Err(ErrorKind::Unavailable)),
        ("fails", Fault::Fails, 1, Err(ErrorKind::Unavailable)),
    ] {
        let sound = memory(&name.replace([' ', ','], "-"));
        make(&sound).await;
        let inner = Arc::clone(&sound.store);
        let store = Arc::new(Faulty { inner, fault, left: AtomicU32::new(times) });
        let table = open(&sound.clone().with_store(store)).await.unwrap();
        let got = table.append(adding(stage(&table, 0).await)).await;
        assert_eq!(got.map(|snapshot| snapshot.version).map_err(|e| e.kind()), want, "{name}");
        let seen = open(&sound).await.unwrap().snapshot(None).await.unwrap();
        assert_eq!(seen.files.len(), usize::from(want.is_ok()), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_race_is_told_from_a_won_one() {
    let location = memory("lost");
    let (ours, theirs) = (make(&location).await, open(&location).await.unwrap());
    let base = ours.snapshot(None).await.unwrap();
    theirs.append(adding(stage(&theirs, 1).await)).await.unwrap();
    let lost = ours.commit(&base, adding(stage(&ours, 2).await)).await.unwrap();
    assert!(matches!(lost, CommitOutcome::Lost { winner: 1 }), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_at_once_makes_one_table() {
    let parent = tempfile::tempdir().unwrap();
    for location in [memory("create-race"), awkward_folder(&parent)] {
        let mut makers = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let location = location.clone();
            makers.spawn(async move { make(&location).await.table_id().to_owned() });
        }
        let ids: BTreeSet<String> = makers.join_all().await.into_iter().collect();
        assert_eq!(ids.len(), 1, "{location}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_table_of_ours_is_refused_by_name() {
    let log = "default/events/_delta_log/00000000000000000000.json";
    let foreign = |features: &str, schema: &str| {
        format!(
            "{{\"protocol\":{{\"minReaderVersion\":3,\"minWriterVersion\":7,\"readerFeatures\":[{features}],\"writerFeatures\":[{features}]}}}}\n\
             {{\"metaData\":{{\"id\":\"x\",\"format\":{{\"provider\":\"parquet\",\"options\":{{}}}},\"schemaString\":\"{schema}\",\"partitionColumns\":[],\"configuration\":{{}},\"createdTime\":1}}}}\n"
        )
    };
    let schema = r#"{\"type\":\"struct\",\"fields\":[{\"name\":\"a\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}]}"#;
    for (name, path, content, kind, says) in [
        ("other", "default/events/notes.txt", "hello".into(), ErrorKind::Invalid, "`notes.txt`"),
        ("foreign", log, foreign("", schema), ErrorKind::Invalid, "meterhouse did not make"),
        ("feature", log, foreign("\"timeTravel9\"", schema), ErrorKind::Invalid, "timeTravel9"),
        ("broken", log, "{\"prot".into(), ErrorKind::Corrupt, "00000000000000000000.json"),
        ("empty", log, String::new(), ErrorKind::Corrupt, "00000000000000000000.json"),
    ] {
        let location = memory(&format!("refused-{name}"));
        location.store.put(&Path::from(path), content.into()).await.unwrap();
        let error = open(&location).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(error.to_string().contains(says), "{name}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_entry_is_named() {
    let location = memory("damaged");
    let table = make(&location).await;
    table.append(adding(stage(&table, 0).await)).await.unwrap();
    let entry = Path::from("default/events/_delta_log/00000000000000000001.json");
    let content = location.store.get(&entry).await.unwrap().bytes().await.unwrap();
    location.store.put(&entry, content.slice(..content.len() - 40).into()).await.unwrap();
    let error = open(&location).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("00000000000000000001.json"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_content_is_one_file() {
    let location = memory("content");
    let table = make(&location).await;
    let (first, second) = (stage(&table, 0).await, stage(&table, 0).await);
    assert_eq!(first, second);
    let hash = first.path.strip_prefix("event_date=2026-10-01/").unwrap();
    assert_eq!(hash.len(), "0123456789abcdef0123456789abcdef.parquet".len());
    table.append(adding(first)).await.unwrap();
    let twice = table.append(adding(second)).await.unwrap();
    assert_eq!((twice.version, twice.files.len()), (2, 1));
    let mut writer = ParquetFileWriter::new(file_schema(), &Layout::default(), Some(DAY)).unwrap();
    writer.write(&rows(0)).unwrap();
    let file = writer.finish().unwrap().unwrap();
    let staged = table.stage(file.clone()).await.unwrap();
    let path = table.object_path(&staged.path).unwrap();
    location.store.put(&path, "damaged".into()).await.unwrap();
    let error = table.stage(file).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("has 7 bytes"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_files_open_quickly() {
    let location = memory("many");
    let table = make(&location).await;
    let file = stage(&table, 0).await;
    for round in 0..20 {
        let add = (0..100).map(|i| StagedFile {
            path: format!("event_date=2026-10-01/{:032x}.parquet", round * 100 + i),
            ..file.clone()
        });
        table.append(Commit { add: add.collect(), ..Commit::default() }).await.unwrap();
    }
    let start = std::time::Instant::now();
    let snapshot = open(&location).await.unwrap().snapshot(None).await.unwrap();
    assert_eq!(snapshot.files.len(), 2_000);
    assert_eq!(snapshot.stats().len(), 2_000);
    // Generous, for builds without optimisation: an optimised one needs a twentieth.
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_store_hides_what_is_not_done() {
    let parent = tempfile::tempdir().unwrap();
    let location = awkward_folder(&parent);
    let at = |name: &str| location.root.clone().join("a b").join(name);
    let store = &location.store;
    let listed = || async {
        let all: Vec<_> = store.list(Some(&location.root)).try_collect().await.unwrap();
        all.into_iter().map(|object| object.location).collect::<Vec<_>>()
    };
    let mut upload = store.put_multipart(&at("parts")).await.unwrap();
    let second_last = [upload.put_part("one ".into()), upload.put_part("two".into())];
    let [first, second] = second_last;
    second.await.unwrap();
    first.await.unwrap();
    assert!(listed().await.is_empty());
    upload.complete().await.unwrap();
    assert_eq!(listed().await, [at("parts")]);
    let content = store.get(&at("parts")).await.unwrap().bytes().await.unwrap();
    assert_eq!(&content[..], b"one two");

    let mut aborted = store.put_multipart(&at("gone")).await.unwrap();
    aborted.put_part("x".into()).await.unwrap();
    aborted.abort().await.unwrap();
    drop(store.put_multipart(&at("forgotten")).await.unwrap());
    let create = || PutOptions::from(PutMode::Create);
    let taken = store.put_opts(&at("parts"), "other".into(), create()).await.unwrap_err();
    assert!(matches!(taken, object_store::Error::AlreadyExists { .. }), "{taken}");
    store.put(&at("parts"), "over".into()).await.unwrap();
    let update = PutOptions::from(PutMode::Update(object_store::UpdateVersion {
        e_tag: None,
        version: None,
    }));
    let refused = store.put_opts(&at("parts"), "x".into(), update).await.unwrap_err();
    assert!(matches!(refused, object_store::Error::NotImplemented { .. }), "{refused}");
    store.copy(&at("parts"), &at("copy")).await.unwrap();
    let on_disk = std::fs::read_dir(location.local_path().unwrap().join("a b")).unwrap();
    let names: BTreeSet<_> = on_disk.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, BTreeSet::from(["copy".into(), "parts".into()]));

    // A folder that somebody removed is made again.
    std::fs::remove_dir_all(location.local_path().unwrap()).unwrap();
    store.put_opts(&at("parts"), "new".into(), create()).await.unwrap();
    assert_eq!(listed().await, [at("parts")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_the_disk_is_put_as_it_is_whatever_its_length() {
    let location = Location::parse("memory://files").unwrap();
    let place = location.root.clone().join("file");
    for length in [0, 5, PART_BYTES - 1, PART_BYTES, 2 * PART_BYTES + 5] {
        let content: Vec<u8> = (0..251).cycle().take(length).collect();
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &content).unwrap();
        put_file(&*location.store, &place, file).await.unwrap();
        let there = location.store.get(&place).await.unwrap().bytes().await.unwrap();
        assert!(there == content, "{length} bytes");
    }
}
