//! From global flags to what commands work on: the lake, its local state, the meters, the engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::flags::{At, Global, METERS_DEFAULT};
use super::output::say;
use crate::clock::Clock;
use crate::engine::{Engine, Limits};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::cloud::is_setting;
use crate::lake::location::{Location, Namespace};
use crate::lake::state::state_folder;
use crate::lake::tables::Lake;
use crate::meter::{Folder, Meter, read_folder};
use crate::usage::Context;

/// The lake that the flags name, which must be there.
///
/// # Errors
/// No lake, with what makes one.
pub(super) async fn open_lake(global: &Global) -> Result<Lake> {
    let (location, namespace) = place(global)?;
    match Lake::open(&location, &namespace).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let remains = Lake::remains(&location, &namespace).await?;
            Err(match without_events(&namespace, &remains) {
                Some(damage) => Error::corrupt(format!("{location}: {damage}")),
                None => Error::not_found(format!(
                    "there is no lake at {location} (namespace {namespace}): `meterhouse ingest` \
                     makes one, --lake names another"
                )),
            })
        }
        opened => opened,
    }
}

/// What a lake has lost that has these tables and no events; `None` where there are none, as it was
/// not made yet.
pub(super) fn without_events(namespace: &Namespace, remains: &[&str]) -> Option<String> {
    let tables: Vec<String> = remains.iter().map(|name| format!("the table `{name}`")).collect();
    (!tables.is_empty()).then(|| {
        format!(
            "namespace {namespace} has {} but no table `events`: put that back from a copy before \
             anything is ingested",
            tables.join(" and ")
        )
    })
}

/// A lake to write to, with the folder of its local state.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) lake: Lake,
    pub(super) state: PathBuf,
    /// Holds the state of a lake that does not outlive the process.
    _passing: Option<TempDir>,
}

/// The lake that the flags name, made where it is missing; a dry run makes it in memory.
///
/// # Errors
/// A place that cannot hold a lake or its state.
pub(super) async fn open_target(global: &Global, dry_run: bool) -> Result<Target> {
    let (location, namespace) = place(global)?;
    if !dry_run {
        let (state, passing) = state_of(&location, &namespace, global.state.as_deref())?;
        let lake = Lake::open_or_create(&location, &namespace).await?;
        return Ok(Target { lake, state, _passing: passing });
    }
    match Lake::open(&location, &namespace).await {
        Ok(lake) => {
            let (state, passing) = state_of(&location, &namespace, global.state.as_deref())?;
            Ok(Target { lake, state, _passing: passing })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let location = Location::parse("memory://dry-run")?;
            let (state, passing) = state_of(&location, &namespace, None)?;
            let lake = Lake::open_or_create(&location, &namespace).await?;
            Ok(Target { lake, state, _passing: passing })
        }
        Err(error) => Err(error),
    }
}

/// The folder of the local state of `lake`, if it has one.
///
/// # Errors
/// As [`state_folder`].
pub(super) fn state_of_lake(global: &Global, lake: &Lake) -> Result<Option<PathBuf>> {
    if global.state.is_none() && lake.location.is_passing() {
        return Ok(None);
    }
    state_of(&lake.location, &lake.namespace, global.state.as_deref()).map(|(state, _)| Some(state))
}

/// What the environment says of the stores of clouds, by the names that `object_store` knows.
pub(super) fn cloud_settings() -> Vec<(String, String)> {
    let named = std::env::vars_os();
    let texts = named
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    texts.filter(|(name, _)| is_setting(name)).collect()
}

pub(super) fn place(global: &Global) -> Result<(Location, Namespace)> {
    let location = Location::parse_with(&global.lake, &cloud_settings())?;
    Ok((location, Namespace::parse(&global.namespace)?))
}

/// The folder of the local state of a lake at `location`; of one that ends with the process, a
/// folder that does so too.
pub(super) fn state_of(
    location: &Location,
    namespace: &Namespace,
    given: Option<&Path>,
) -> Result<(PathBuf, Option<TempDir>)> {
    if given.is_some() || location.local_path().is_some() {
        return Ok((state_folder(location, namespace, given)?, None));
    }
    if !location.is_passing() {
        return Ok((state_folder(location, namespace, cache_folder().as_deref())?, None));
    }
    let passing = tempfile::tempdir().map_err(|error| {
        Error::unavailable(format!("no temporary folder for the state of {location}: {error}"))
    })?;
    Ok((passing.path().to_path_buf(), Some(passing)))
}

/// Where programs of this user keep what can be made anew.
fn cache_folder() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_absolute())
    };
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("meterhouse"))
}

/// Everything that questions are answered from.
///
/// # Errors
/// No lake, or one that cannot be read.
pub(super) async fn context(global: &Global, meters: Vec<Meter>) -> Result<Context> {
    let lake = open_lake(global).await?;
    let mut limits = Limits::default();
    if let Some(memory_bytes) = global.memory {
        limits.memory_bytes = memory_bytes;
    }
    if let Some(threads) = global.threads {
        limits.threads = usize::from(threads);
    }
    let engine = Engine::new(&lake.location, limits)?;
    Ok(Context { lake, engine, meters: Arc::new(meters), clock: Clock::System })
}

/// The version that was asked for, if one was.
///
/// # Errors
/// A time before the oldest version.
pub(super) async fn resolve_at(lake: &Lake, at: Option<&At>) -> Result<Option<u64>> {
    match at {
        None => Ok(None),
        Some(At::Version(version)) => Ok(Some(*version)),
        Some(At::Time(time)) if *time > Clock::System.now() => Err(Error::invalid(format!(
            "--at {time} lies ahead: what is the newest version then is not known yet"
        ))),
        Some(At::Time(time)) => lake.events.version_at(*time).await.map(Some),
    }
}

/// What the folder of meters that the flags name holds.
///
/// # Errors
/// A folder that is not there, with what names another.
fn meters_folder(global: &Global) -> Result<Folder> {
    match read_folder(&global.meters_folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(Error::not_found(format!("{error}; --meters names another")))
        }
        read => read,
    }
}

/// The sound meters, for a question about those that are asked for, by their names or with `@` and a
/// version. Files that are wrong are no matter of theirs.
///
/// # Errors
/// A folder that is not there, unless only published versions are asked for; what is wrong with a
/// meter that is asked for.
pub(super) fn load_meters(global: &Global, asked: &[String]) -> Result<Vec<Meter>> {
    let names: Vec<&String> = asked.iter().filter(|asked| !asked.contains('@')).collect();
    let folder = match meters_folder(global) {
        Err(_) if names.is_empty() && is_default(global) => Folder::default(),
        folder => folder?,
    };
    check_named(&folder, &names)?;
    Ok(sound(folder))
}

/// Meters, each with the file that defines it.
type MeterFiles = Vec<(PathBuf, Meter)>;

/// The meters of these names with their files, all of the folder if no name is given.
///
/// # Errors
/// A folder that is not there; what is wrong with a meter of the names, or with any; a name that no
/// meter has.
pub(super) fn load_meter_files(global: &Global, names: &[String]) -> Result<MeterFiles> {
    let place = global.meters_folder.display();
    let folder = meters_folder(global)?;
    if names.is_empty() {
        return match (folder.wrong(), folder.meters.is_empty()) {
            (Some(error), _) => Err(error),
            (None, true) => Err(Error::not_found(format!("no meter file in {place}"))),
            (None, false) => Ok(folder.meters),
        };
    }
    check_named(&folder, &names.iter().collect::<Vec<_>>())?;
    let mut meters = folder.meters;
    if let Some(missing) = names.iter().find(|name| !meters.iter().any(|(_, m)| m.name == **name)) {
        let known: Vec<&str> = meters.iter().map(|(_, meter)| meter.name.as_str()).collect();
        return Err(Error::not_found(format!(
            "no meter `{missing}` in {place}; it holds {}",
            known.join(", ")
        )));
    }
    meters.retain(|(_, meter)| names.contains(&meter.name));
    Ok(meters)
}

/// The meters of all files with these files, and what is wrong with the others.
///
/// # Errors
/// A folder that cannot be read, or in which no file is right.
pub(super) fn all_meter_files(global: &Global) -> Result<(MeterFiles, Option<Error>)> {
    let folder = meters_folder(global)?;
    match folder.meters.is_empty() {
        true => load_meter_files(global, &[]).map(|none| (none, None)),
        false => {
            let wrong = folder.wrong();
            Ok((folder.meters, wrong))
        }
    }
}

/// Refuses a name whose meter is wrong; of one that is not there, says which files are wrong, as one
/// of them may mean it.
fn check_named(folder: &Folder, names: &[&String]) -> Result<()> {
    let is_there = |name: &str| folder.meters.iter().any(|(_, meter)| meter.name == name);
    let missing = || names.iter().filter(|name| !is_there(name));
    if let Some(error) = missing().find_map(|name| folder.wrong_with(name)) {
        return Err(error);
    }
    if missing().next().is_some() {
        warn(folder);
    }
    Ok(())
}

fn warn(folder: &Folder) {
    let files: Vec<String> = folder.wrong_files().map(|file| file.display().to_string()).collect();
    if !files.is_empty() {
        say(&format!(
            "warning: {} wrong and left out, `meterhouse meters check` says why: {}",
            if files.len() == 1 { "a meter file is" } else { "some meter files are" },
            files.join(", ")
        ));
    }
}

fn sound(folder: Folder) -> Vec<Meter> {
    folder.meters.into_iter().map(|(_, meter)| meter).collect()
}

fn is_default(global: &Global) -> bool {
    global.meters_folder == Path::new(METERS_DEFAULT)
}

/// The sound meters, as far as there are any, for what is about all meters and works without them;
/// says which files are wrong.
///
/// # Errors
/// A folder that was asked for by name and is not there.
pub(super) fn load_sound_meters(global: &Global) -> Result<Vec<Meter>> {
    match meters_folder(global) {
        Ok(folder) => {
            warn(&folder);
            Ok(sound(folder))
        }
        Err(_) if is_default(global) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The sound meters, for a list of them; says which files are wrong.
///
/// # Errors
/// A folder that is not there.
pub(super) fn list_meters(global: &Global) -> Result<Vec<Meter>> {
    let folder = meters_folder(global)?;
    warn(&folder);
    Ok(sound(folder))
}
