//! The index as a whole: against a map, through deaths at every step, and with damaged files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::block::BLOCK_RECORDS;
use super::manifest::{MANIFEST_NAME, TEMPORARY_NAME};
use super::*;
use crate::error::ErrorKind;

type Model = BTreeMap<Key, Found>;

/// The key that stands for a number.
pub(super) fn key(number: u64) -> Key {
    Hasher::new("test").identity(None, &number.to_string())
}

/// Keys of which many share their first bytes, as hashes never do.
fn crowded_key(number: u64) -> Key {
    let mut key = key(number);
    if number.is_multiple_of(3) {
        key[..8].copy_from_slice(&(number % 2).to_be_bytes());
    }
    key
}

fn open(folder: &Path) -> Result<Index> {
    Index::open(folder, "table", "now")
}

fn entries(numbers: impl IntoIterator<Item = u64>, content: u64) -> Vec<Entry> {
    let entry = |number| Entry { key: crowded_key(number), content, date: -1 };
    let mut entries: Vec<_> = numbers.into_iter().map(entry).collect();
    entries.sort_unstable_by_key(|entry| entry.key);
    entries.dedup_by_key(|entry| entry.key);
    entries
}

fn stage(index: &Index, entries: &[Entry]) -> StagedRun {
    index.stage(entries.iter().copied()).unwrap()
}

fn learn(model: &mut Model, entries: &[Entry]) {
    let found = |entry: &Entry| Found { content: entry.content, date: entry.date };
    model.extend(entries.iter().map(|entry| (entry.key, found(entry))));
}

/// An index with some versions applied, and what it must hold.
fn loaded(folder: &Path, versions: u64, per_version: u64) -> (Index, Model) {
    let (mut index, mut model) = (open(folder).unwrap(), Model::new());
    for version in 0..versions {
        let entries = entries(version * per_version..(version + 1) * per_version, version);
        index.apply(version, vec![stage(&index, &entries)]).unwrap();
        learn(&mut model, &entries);
    }
    (index, model)
}

/// Asserts that the index holds what the model does, and none of the numbers beside.
fn assert_holds(index: &Index, model: &Model, numbers: u64) {
    let mut keys: Vec<_> = (0..numbers).map(crowded_key).collect();
    keys.sort_unstable();
    let want: Vec<_> = keys.iter().map(|key| model.get(key).copied()).collect();
    assert_eq!(index.probe(&keys).unwrap(), want);
    for key in keys.iter().step_by(97) {
        assert_eq!(index.probe(&[*key]).unwrap(), [model.get(key).copied()]);
    }
    index.verify().unwrap();
}

fn file_names(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn run_names(folder: &Path) -> Vec<String> {
    file_names(folder).into_iter().filter(|name| name.ends_with(RUN_SUFFIX)).collect()
}

/// One thing done to an index.
#[derive(Debug, Clone)]
enum Step {
    Apply { runs: Vec<Vec<u64>>, content: u64 },
    ApplyAgain(Vec<u64>),
    DropStaged(Vec<u64>),
    Reopen,
}

const NUMBERS: u64 = 3_000;

fn step() -> impl Strategy<Value = Step> {
    let numbers = || {
        (0..NUMBERS, 0..900_u64, 1..5_u64)
            .prop_map(|(from, count, by)| (0..count).map(|i| (from + i * by) % NUMBERS).collect())
    };
    prop_oneof![
        6 => (prop::collection::vec(numbers(), 0..4), any::<u64>())
            .prop_map(|(runs, content)| Step::Apply { runs, content }),
        1 => numbers().prop_map(Step::ApplyAgain),
        1 => numbers().prop_map(Step::DropStaged),
        2 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn behaves_as_a_map(steps in prop::collection::vec(step(), 1..14)) {
        let folder = tempfile::tempdir().unwrap();
        let (mut index, mut model) = (open(folder.path()).unwrap(), Model::new());
        let mut version = None;
        for step in steps {
            match step {
                Step::Apply { runs, content } => {
                    let runs: Vec<_> =
                        runs.into_iter().map(|numbers| entries(numbers, content)).collect();
                    let staged: Vec<_> = runs.iter().map(|run| stage(&index, run)).collect();
                    for (run, staged) in runs.iter().zip(&staged) {
                        let keys: Vec<_> = run.iter().map(|entry| entry.key).collect();
                        prop_assert!(staged.probe(&keys).unwrap().iter().all(Option::is_some));
                        prop_assert_eq!(staged.len(), run.len() as u64);
                        learn(&mut model, run);
                    }
                    let next = version.map_or(0, |version| version + 1);
                    index.apply(next, staged).unwrap();
                    version = Some(next);
                }
                Step::ApplyAgain(numbers) => {
                    if let Some(version) = version {
                        let staged = stage(&index, &entries(numbers, 0));
                        index.apply(version, vec![staged]).unwrap();
                    }
                }
                Step::DropStaged(numbers) => drop(stage(&index, &entries(numbers, 0))),
                Step::Reopen => {
                    drop(index);
                    index = open(folder.path()).unwrap();
                }
            }
            prop_assert_eq!(index.applied(), version);
            prop_assert!(index.len() >= model.len() as u64);
            prop_assert_eq!(run_names(folder.path()).len(), index.runs.len());
            assert_holds(&index, &model, NUMBERS);
        }
    }
}

/// The files of a folder by name.
type Files = BTreeMap<String, Vec<u8>>;

fn files(folder: &Path) -> Files {
    let read = |name: String| {
        let bytes = fs::read(folder.join(&name)).unwrap();
        (name, bytes)
    };
    file_names(folder).into_iter().map(read).collect()
}

/// What a process that dies between two states of a folder may leave, the manifest written last
/// and the files it no longer lists removed after that.
fn deaths(before: &Files, after: &Files) -> Vec<(String, Files)> {
    let mut deaths = vec![("before".to_owned(), before.clone())];
    let mut state = before.clone();
    let half = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
    for (name, bytes) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
        state.insert(name.clone(), half(bytes));
        deaths.push((format!("half of {name}"), state.clone()));
        state.insert(name.clone(), bytes.clone());
        deaths.push((format!("all of {name}"), state.clone()));
    }
    let manifest = &after[MANIFEST_NAME];
    state.insert(TEMPORARY_NAME.to_owned(), half(manifest));
    deaths.push(("half of a manifest".to_owned(), state.clone()));
    state.insert(TEMPORARY_NAME.to_owned(), manifest.clone());
    deaths.push(("a manifest not in place".to_owned(), state.clone()));
    state.remove(TEMPORARY_NAME);
    state.insert(MANIFEST_NAME.to_owned(), manifest.clone());
    deaths.push(("old runs not removed".to_owned(), state));
    deaths.push(("after".to_owned(), after.clone()));
    deaths
}

#[test]
fn a_death_at_any_step_leaves_the_index_before_or_after() {
    let folder = tempfile::tempdir().unwrap();
    let (mut index, model_before) = loaded(folder.path(), 3, 400);
    let new = [entries(1_100..1_500, 77), entries(1_500..1_600, 78)];
    let before = files(folder.path());
    let staged: Vec<_> = new.iter().map(|entries| stage(&index, entries)).collect();
    let mut states = vec![before, files(folder.path())];
    index.take_in((Some(3), None), staged).unwrap();
    states.push(files(folder.path()));
    while index.merge_step().unwrap() {
        states.push(files(folder.path()));
    }
    assert_eq!(states.len(), 4, "the runs must have been merged");
    let mut model_after = model_before.clone();
    new.iter().for_each(|entries| learn(&mut model_after, entries));

    let mut seen = [0, 0];
    for (name, death) in states.windows(2).flat_map(|pair| deaths(&pair[0], &pair[1])) {
        let copy = tempfile::tempdir().unwrap();
        death.iter().for_each(|(file, bytes)| fs::write(copy.path().join(file), bytes).unwrap());
        let index = open(copy.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!index.was_reset(), "{name}");
        match index.applied() {
            Some(2) => assert_holds(&index, &model_before, 2_000),
            Some(3) => assert_holds(&index, &model_after, 2_000),
            other => panic!("{name}: version {other:?}"),
        }
        seen[usize::from(index.applied() == Some(3))] += 1;
        assert_eq!(run_names(copy.path()).len(), index.runs.len(), "{name}");
        assert!(!copy.path().join(TEMPORARY_NAME).exists(), "{name}");
    }
    assert!(seen[0] > 3 && seen[1] > 3, "{seen:?}");
}

/// The error that damage leads to, on opening or on reading all.
fn failure(folder: &Path) -> Option<Error> {
    open(folder).and_then(|index| index.verify()).err()
}

#[test]
fn every_kind_of_damage_is_reported_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (index, _) = loaded(folder.path(), 1, 3 * BLOCK_RECORDS as u64 - 5);
    drop(index);
    let path = folder.path().join(&run_names(folder.path())[0]);
    let good = fs::read(&path).unwrap();
    let expect = |name: &str, bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let error = failure(folder.path()).unwrap_or_else(|| panic!("{name} went unseen"));
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{name}: {error}");
    };
    // A prime stride meets header, records, padding, checksums, index, filters and count alike.
    for at in (0..good.len()).step_by(13).chain(good.len() - 16..good.len()) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        expect(&format!("a bit of byte {at} of {}", good.len()), &bytes);
    }
    expect("a cut", &good[..good.len() - 1]);
    expect("an empty file", &[]);
    expect("a byte more", &[&good[..], &[0]].concat());
    let mut swapped = good.clone();
    swapped[4096..8192].copy_from_slice(&good[8192..12288]);
    swapped[8192..12288].copy_from_slice(&good[4096..8192]);
    expect("two blocks in each other's place", &swapped);
    fs::write(&path, &good).unwrap();
    assert!(failure(folder.path()).is_none());
    fs::remove_file(&path).unwrap();
    let error = failure(folder.path()).unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("it is missing"), "{error}");
}

#[test]
fn a_damaged_block_fails_those_who_touch_it_and_ends_the_index() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = open(folder.path()).unwrap();
    let mut keys: Vec<_> = (0..10 * BLOCK_RECORDS as u64).map(key).collect();
    keys.sort_unstable();
    let run = index.stage(keys.iter().map(|key| Entry { key: *key, content: 0, date: 0 })).unwrap();
    index.apply(0, vec![run]).unwrap();
    let path = index.runs[0].path().to_owned();
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 * 6 + 100] ^= 4;
    fs::write(&path, &bytes).unwrap();
    let damaged = files(folder.path());
    let (first, last) = (5 * BLOCK_RECORDS, 6 * BLOCK_RECORDS - 1);
    for (name, keys, is_hit) in [
        ("before", &keys[..first], false),
        ("its first", &keys[first..=first], true),
        ("its last", &keys[last..=last], true),
        ("behind", &keys[last + 1..], false),
        ("all", &keys[..], true),
    ] {
        let error = index.probe(keys).err();
        let kind = error.as_ref().map(Error::kind);
        assert_eq!(kind, is_hit.then_some(ErrorKind::Corrupt), "{name}");
        assert_eq!(index.is_damaged(), is_hit, "{name}");
        let Some(error) = error else { continue };
        assert!(error.to_string().contains("rebuilt from the events"), "{name}: {error}");
        assert_eq!(index.probe(&[]).unwrap_err().kind(), ErrorKind::Corrupt, "{name}");
        // As if nobody had looked at it.
        drop(index);
        for (file, bytes) in &damaged {
            fs::write(folder.path().join(file), bytes).unwrap();
        }
        index = open(folder.path()).unwrap();
    }
    assert!(index.probe(&keys).is_err());
    drop(index);
    let index = open(folder.path()).unwrap();
    assert!(index.was_reset() && index.is_empty() && index.applied().is_none());
}

#[test]
fn damage_met_by_a_merge_ends_the_index_until_it_is_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let (mut index, _) = loaded(folder.path(), 3, 300);
    let path = index.runs[0].path().to_owned();
    let mut bytes = fs::read(&path).unwrap();
    bytes[5000] ^= 4;
    fs::write(&path, &bytes).unwrap();
    let new = entries(900..1_200, 3);
    let error = index.apply(3, vec![stage(&index, &new)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(index.is_damaged() && index.probe(&[]).is_err());
    index.clear().unwrap();
    assert!(!index.is_damaged() && index.is_empty() && index.applied().is_none());
    index.apply(3, vec![stage(&index, &new)]).unwrap();
    drop(index);
    let mut model = Model::new();
    learn(&mut model, &new);
    assert_holds(&open(folder.path()).unwrap(), &model, 1_500);
}

#[test]
fn clearing_keeps_what_is_staged_and_forgets_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let (mut index, _) = loaded(folder.path(), 2, 300);
    let new = entries(900..1_200, 3);
    let staged = stage(&index, &new);
    index.clear().unwrap();
    assert_eq!((index.len(), index.applied(), run_names(folder.path()).len()), (0, None, 1));
    index.apply(0, vec![staged]).unwrap();
    let mut model = Model::new();
    learn(&mut model, &new);
    assert_holds(&index, &model, 1_500);
}

#[test]
fn the_mark_is_that_of_the_version_applied_last() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = open(folder.path()).unwrap();
    for (name, version, mark, want) in [
        ("first", 1, Some("a"), Some("a")),
        ("a version that is in already", 1, Some("b"), Some("a")),
        ("next", 2, Some("c"), Some("c")),
        ("unknown", 3, None, None),
    ] {
        index.apply_commit(version, mark, Vec::new()).unwrap();
        assert_eq!(index.mark(), want, "{name}");
        drop(index);
        index = open(folder.path()).unwrap();
        assert_eq!(index.mark(), want, "{name}, opened anew");
    }
}

#[test]
fn parts_make_up_the_first_version_only() {
    let folder = tempfile::tempdir().unwrap();
    let (mut index, mut model) = (open(folder.path()).unwrap(), Model::new());
    for part in 0..9 {
        let entries = entries(part * 100..(part + 1) * 100, part);
        index.apply_part(vec![stage(&index, &entries)]).unwrap();
        learn(&mut model, &entries);
        assert_eq!(index.applied(), None);
        assert!(index.runs.len() < 5, "{} runs", index.runs.len());
    }
    index.apply_commit(7, Some("a"), Vec::new()).unwrap();
    assert_holds(&index, &model, 1_000);
    assert_eq!(index.apply_part(Vec::new()).unwrap_err().kind(), ErrorKind::Internal);
}

#[test]
fn runs_of_another_file_or_state_are_not_taken() {
    let [left, right] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    drop(loaded(left.path(), 2, 200));
    drop(loaded(right.path(), 1, 100));
    let names = run_names(left.path());
    assert_eq!(names.len(), 2);
    let paths: Vec<_> = names.iter().map(|name| left.path().join(name)).collect();
    let aside = left.path().join("aside");
    fs::rename(&paths[0], &aside).unwrap();
    for (name, other) in [
        ("another number", paths[1].clone()),
        ("another folder's", right.path().join(&run_names(right.path())[0])),
    ] {
        fs::copy(other, &paths[0]).unwrap();
        assert_eq!(
            failure(left.path()).map(|error| error.kind()),
            Some(ErrorKind::Corrupt),
            "{name}"
        );
    }
    fs::rename(&aside, &paths[0]).unwrap();
    assert!(failure(left.path()).is_none());
}

#[test]
fn another_tables_index_is_discarded_and_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    drop(loaded(folder.path(), 2, 300));
    let index = Index::open(folder.path(), "other", "now").unwrap();
    assert!(index.was_reset() && index.is_empty());
    assert_eq!(index.applied(), None);
    assert_eq!(index.probe(&[key(1)]).unwrap(), [None]);
    assert!(run_names(folder.path()).is_empty());
    drop(index);
    assert!(!Index::open(folder.path(), "other", "now").unwrap().was_reset());
}

#[test]
fn a_damaged_index_starts_over_with_a_reset() {
    let folder = tempfile::tempdir().unwrap();
    drop(loaded(folder.path(), 1, 300));
    fs::write(folder.path().join(MANIFEST_NAME), "?").unwrap();
    assert_eq!(open(folder.path()).err().map(|error| error.kind()), Some(ErrorKind::Corrupt));
    let index = Index::reset(folder.path(), "table", "now").unwrap();
    assert!(index.was_reset() && index.is_empty() && index.applied().is_none());
    drop(index);
    assert!(!open(folder.path()).unwrap().was_reset());
}

#[test]
fn runs_without_a_manifest_do_not_count() {
    let folder = tempfile::tempdir().unwrap();
    drop(loaded(folder.path(), 1, 300));
    fs::remove_file(folder.path().join(MANIFEST_NAME)).unwrap();
    let index = open(folder.path()).unwrap();
    assert!(index.is_empty() && index.was_reset());
    assert_eq!(index.applied(), None);
    assert!(run_names(folder.path()).is_empty());
}

#[test]
fn files_that_are_not_ours_stay() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    drop(loaded(folder.path(), 1, 10));
    drop(Index::reset(folder.path(), "table", "now").unwrap());
    assert!(folder.path().join("notes.txt").exists());
}

#[test]
fn one_holder_at_a_time_staged_runs_included() {
    let folder = tempfile::tempdir().unwrap();
    let index = open(folder.path()).unwrap();
    let error = open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    let staged = stage(&index, &entries(0..10, 1));
    drop(index);
    assert!(open(folder.path()).is_err(), "a staged run still holds it");
    drop(staged);
    assert!(open(folder.path()).unwrap().is_empty());
}

#[test]
fn staged_runs_leave_nothing_behind_unless_applied() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = open(folder.path()).unwrap();
    let staged = stage(&index, &entries(0..500, 1));
    assert_eq!(run_names(folder.path()).len(), 1);
    assert_eq!((index.len(), index.disk_bytes()), (0, 0));
    drop(staged);
    assert!(stage(&index, &[]).is_empty());
    let unsorted = [key(1), key(2)].map(|key| Entry { key, content: 0, date: 0 });
    for entries in [[unsorted[0], unsorted[0]], unsorted, [unsorted[1], unsorted[0]]] {
        let staged = index.stage(entries.into_iter());
        assert_eq!(staged.is_ok(), entries[0].key < entries[1].key);
    }
    assert!(run_names(folder.path()).is_empty());
    let empty = stage(&index, &[]);
    index.apply(4, vec![empty]).unwrap();
    assert_eq!((index.applied(), index.len()), (Some(4), 0));
    assert!(run_names(folder.path()).is_empty());
}

#[test]
fn sizes_are_those_of_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let (index, _) = loaded(folder.path(), 6, 700);
    let bytes: usize = files(folder.path())
        .iter()
        .filter(|(name, _)| name.ends_with(RUN_SUFFIX))
        .map(|(_, bytes)| bytes.len())
        .sum();
    assert_eq!(index.disk_bytes(), bytes as u64);
    assert_eq!(index.len(), 6 * 700);
}

#[test]
fn what_callers_get_wrong_is_refused() {
    let [left, right] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (mut index, model) = loaded(left.path(), 1, 300);
    let other = open(right.path()).unwrap();
    let mut keys = [key(1), key(2)];
    keys.sort_unstable();
    keys.reverse();
    assert_eq!(index.probe(&keys).unwrap_err().kind(), ErrorKind::Internal);
    let foreign = stage(&other, &entries(0..10, 9));
    assert_eq!(index.apply(1, vec![foreign]).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(index.applied(), Some(0));
    assert_holds(&index, &model, 400);
}

#[test]
fn after_a_failed_apply_the_index_must_be_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (mut index, model) = loaded(folder.path(), 1, 300);
    // A folder in the way of the new manifest.
    let obstacle = folder.path().join(TEMPORARY_NAME);
    fs::create_dir(&obstacle).unwrap();
    let staged = stage(&index, &entries(300..400, 1));
    assert_eq!(index.apply(1, vec![staged]).unwrap_err().kind(), ErrorKind::Unavailable);
    let refused = [
        index.probe(&[]).err(),
        index.stage(std::iter::empty()).err(),
        index.apply(1, Vec::new()).err(),
        index.verify().err(),
    ];
    for error in refused {
        assert!(error.unwrap().to_string().contains("open it anew"));
    }
    drop(index);
    fs::remove_dir(&obstacle).unwrap();
    let index = open(folder.path()).unwrap();
    assert_eq!(index.applied(), Some(0));
    assert_holds(&index, &model, 500);
}

#[test]
fn threads_may_share_an_index() {
    fn check<T: Send + Sync>() {}
    check::<Index>();
    check::<StagedRun>();
    let folder = tempfile::tempdir().unwrap();
    let (index, model) = loaded(folder.path(), 2, 3_000);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_holds(&index, &model, 7_000));
        }
    });
}
