//! The meters of a folder: those that are sound, and what is wrong with the files that are not.
//!
//! One broken file says nothing of the others, so whoever asks for a sound meter gets it; whoever wants
//! all of them to be right is told every mistake. A name that two files define is nobody's.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::Meter;
use super::definition::name_in;
use super::load::{Failure, Loaded, definition_text, load, unreadable};
use crate::document::Diagnostics;
use crate::error::{Error, Result};

/// Endings of meter files.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// What the name of a file of tests has before its ending: `bandwidth.test.yaml`.
const TEST_MARK: &str = ".test";

/// What the meter files of a folder define.
#[derive(Debug, Default)]
pub struct Folder {
    /// The sound meters with their files, in the order of the files' names.
    pub meters: Vec<(PathBuf, Meter)>,
    broken: Vec<Broken>,
}

/// A file that defines no meter that can be used.
#[derive(Debug)]
struct Broken {
    file: PathBuf,
    /// The name that its meter would have: what it says, else the file's own.
    name: String,
    failure: Failure,
}

impl Folder {
    /// What keeps the meter `name` from being used, if a file that may define it is wrong.
    pub fn wrong_with(&self, name: &str) -> Option<Error> {
        error_of(self.broken.iter().filter(|broken| broken.name == name))
    }

    /// The files that are wrong.
    pub fn wrong_files(&self) -> impl Iterator<Item = &Path> {
        self.broken.iter().map(|broken| broken.file.as_path())
    }

    /// Everything that is wrong with the folder's files.
    pub fn wrong(&self) -> Option<Error> {
        error_of(self.broken.iter())
    }
}

/// All of what is wrong as one error. A file that cannot be read is told alone.
fn error_of<'b>(broken: impl Iterator<Item = &'b Broken>) -> Option<Error> {
    let mut all = None::<Diagnostics>;
    for broken in broken {
        match &broken.failure {
            Failure::Unreadable(error) => {
                return Some(Error::new(error.kind(), error.to_string()));
            }
            Failure::Wrong(found) => all.get_or_insert_default().append(found.clone()),
        }
    }
    all.map(Error::from)
}

/// The meters of a folder. Reads `*.yaml`, `*.yml` and `*.json` of the folder itself; hidden files and
/// files of tests are passed over.
///
/// # Errors
/// `NotFound` or `Unavailable` if the folder cannot be read. What is wrong with a file is in the answer.
pub fn read_folder(path: &Path) -> Result<Folder> {
    let mut folder = Folder::default();
    // The files that say a name, in order: the first of them has it, if no other wants it.
    let mut of_name: BTreeMap<String, Vec<(PathBuf, Option<Loaded>)>> = BTreeMap::new();
    for file in meter_files(path)? {
        match load(&file) {
            Ok(loaded) => {
                let name = loaded.located.meter.name.clone();
                of_name.entry(name).or_default().push((file, Some(loaded)));
            }
            Err(failure) => {
                let said = definition_text(&file).ok().and_then(|text| name_in(&text));
                if let Some(name) = &said {
                    of_name.entry(name.clone()).or_default().push((file.clone(), None));
                }
                let stem = || file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let name = said.unwrap_or_else(stem);
                folder.broken.push(Broken { file, name, failure });
            }
        }
    }
    for (name, files) in of_name {
        let mut files = files.into_iter();
        let Some((first, loaded)) = files.next() else { continue };
        let mut alone = true;
        for (file, other) in files {
            alone = false;
            let Some(other) = other else { continue };
            let failure = Failure::Wrong(other.diagnose_duplicate(&first));
            folder.broken.push(Broken { file, name: name.clone(), failure });
        }
        match loaded {
            Some(loaded) if alone => folder.meters.push((first, loaded.located.meter)),
            _ => {}
        }
    }
    folder.meters.sort_by(|(one, _), (other, _)| one.cmp(other));
    folder.broken.sort_by(|one, other| one.file.cmp(&other.file));
    Ok(folder)
}

/// The meters of a folder, all of which must be sound, in the order of their files' names.
///
/// # Errors
/// `Invalid` with every mistake of every file, a name that two of them define included;
/// `NotFound` or `Unavailable` if the folder or a file cannot be read.
pub fn load_folder(path: &Path) -> Result<Vec<Meter>> {
    let folder = read_folder(path)?;
    match folder.wrong() {
        Some(error) => Err(error),
        None => Ok(folder.meters.into_iter().map(|(_, meter)| meter).collect()),
    }
}

/// Whether a file is one of tests by its name, such as `bandwidth.test.yaml`.
pub fn is_test_file(path: &Path) -> bool {
    let stem = path.file_stem().and_then(OsStr::to_str).unwrap_or("");
    stem.len() > TEST_MARK.len() && stem.ends_with(TEST_MARK)
}

/// The folder's files of tests, sorted by name.
///
/// # Errors
/// `NotFound` or `Unavailable` if the folder cannot be read.
pub fn test_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = definition_files(folder)?;
    files.retain(|path| is_test_file(path));
    Ok(files)
}

/// The folder's meter files, sorted by name.
fn meter_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = definition_files(folder)?;
    files.retain(|path| !is_test_file(path));
    Ok(files)
}

/// The folder's files of meters and tests, sorted by name.
fn definition_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| unreadable(folder, "folder of meters", error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        let ending = path.extension().and_then(OsStr::to_str).unwrap_or("");
        if !hidden && EXTENSIONS.contains(&ending) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::load_file;
    use super::super::tests::BANDWIDTH;
    use super::*;
    use crate::error::ErrorKind;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    /// The message of a failure to load the folder `meters`, its path left out.
    fn failure(folder: &tempfile::TempDir) -> (ErrorKind, String) {
        let error = load_folder(&folder.path().join("meters")).unwrap_err();
        let root = format!("{}/", folder.path().display());
        (error.kind(), error.to_string().replace(&root, ""))
    }

    #[test]
    fn a_folder_is_read_in_order_with_its_lookups() {
        let folder = folder(&[
            ("meters/b.yml", "meter: b\naggregation: count"),
            ("meters/a.yaml", BANDWIDTH),
            ("meters/c.json", r#"{"meter":"c","aggregation":"count"}"#),
            ("meters/.hidden.yaml", "nonsense"),
            ("meters/notes.txt", "nonsense"),
            ("meters/deeper.yaml/d.yaml", "nonsense"),
            ("meters/a.test.yaml", "nonsense"),
            ("lookups/regions.csv", "data_center,region\nfra1,eu\n"),
        ]);
        let meters = load_folder(&folder.path().join("meters")).unwrap();
        let names: Vec<&str> = meters.iter().map(|meter| &*meter.name).collect();
        assert_eq!(names, ["bandwidth", "b", "c"]);
        let tests = test_files(&folder.path().join("meters")).unwrap();
        assert_eq!(tests, [folder.path().join("meters/a.test.yaml")]);
        let rows = &meters[0].lookups["region"].rows;
        assert_eq!(**rows, BTreeMap::from([("fra1".to_owned(), "eu".to_owned())]));
        assert_eq!(load_file(&folder.path().join("meters/a.yaml")).unwrap(), meters[0]);
    }

    #[test]
    fn the_mistakes_of_all_files_are_told_at_once() {
        let folder = folder(&[
            ("meters/a.yaml", BANDWIDTH),
            ("meters/b.yaml", "meter: b\naggregation: summ\n"),
            ("meters/c.yaml", "meter: c\naggregation: count\n"),
            ("meters/d.yaml", "aggregation: count\nmeter: c\n"),
        ]);
        let (kind, message) = failure(&folder);
        assert_eq!(kind, ErrorKind::Invalid);
        let heads: Vec<&str> = message.lines().filter(|line| line.starts_with("meters/")).collect();
        assert_eq!(
            heads,
            [
                "meters/a.yaml:14:36: table meters/../lookups/regions.csv of lookup `region` does \
                 not exist",
                "meters/b.yaml:2:14: unknown aggregation `summ`",
                "meters/d.yaml:2:8: meter `c` is already defined in meters/c.yaml",
            ]
        );
    }

    #[test]
    fn a_sound_meter_is_there_whatever_else_is_wrong() {
        let folder = folder(&[
            ("meters/a.yaml", "meter: sound\naggregation: count\n"),
            ("meters/b.yaml", "meter: wrong\naggregation: summ\n"),
            ("meters/c.yaml", "meter: twice\naggregation: count\n"),
            ("meters/d.yaml", "meter: twice\naggregation: sum\nproperty: p\n"),
            ("meters/e.yaml", "meter: twice\naggregation: count\nevnt: x\n"),
            ("meters/g.yaml", "meter: half\naggregation: summ\n"),
            ("meters/h.yaml", "meter: half\naggregation: count\n"),
            ("meters/unreadable.yaml", "meter: [\n"),
            (
                "meters/f.yaml",
                "meter: no-table\naggregation: count\nlookups:\n  l: { of: p, file: \
              none.csv, key: a, value: b }\n",
            ),
        ]);
        let read = read_folder(&folder.path().join("meters")).unwrap();
        let names: Vec<&str> = read.meters.iter().map(|(_, meter)| &*meter.name).collect();
        assert_eq!(names, ["sound"]);
        for (name, want) in [
            ("sound", None),
            ("nowhere", None),
            ("wrong", Some(&["b.yaml:2:14: unknown aggregation `summ`"][..])),
            (
                "twice",
                Some(&[
                    "d.yaml:1:8: meter `twice` is already defined in ",
                    "meters/c.yaml",
                    "e.yaml:3:1: unknown key `evnt`",
                ]),
            ),
            (
                "half",
                Some(&["g.yaml:2:14: unknown", "h.yaml:1:8: meter `half` is already defined in"]),
            ),
            ("unreadable", Some(&["unreadable.yaml:"])),
            ("no-table", Some(&["none.csv of lookup `l` does not exist"])),
        ] {
            let told = read.wrong_with(name).map(|error| error.to_string());
            match (told, want) {
                (None, None) => {}
                (Some(told), Some(parts)) => {
                    for part in parts {
                        assert!(told.contains(part), "{name}: {told}");
                    }
                }
                (told, want) => panic!("{name}: {told:?}, {want:?}"),
            }
        }
        let all = read.wrong().unwrap().to_string();
        assert!(
            all.contains("`summ`") && all.contains("`evnt`") && all.contains("none.csv"),
            "{all}"
        );
        assert!(load_folder(&folder.path().join("meters")).is_err());
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = load_folder(Path::new("no/such/folder")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.to_string(), "folder of meters no/such/folder does not exist");
    }
}
