//! Published versions of meters: definitions that are kept in the lake, and from when each holds.
//!
//! A definition is kept once, under its version, with the texts of its file and its tables, so that
//! it gives the same numbers without them; nothing is ever overwritten. A publication says from when
//! a version holds, by whom and why; publications are numbered, and [`Schedule`] makes of them which
//! version holds when. Names are checked identifiers before they become part of a path.

mod schedule;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use schedule::{Part, Schedule, Tenure};

use crate::error::{Error, Result};
use crate::lake::table::Table;
use crate::meter::{Bundle, Meter, is_identifier, normalised, version};
use crate::time::{TimeRange, Timestamp};

/// Definitions, each in its meter's folder under its version.
const DEFINITIONS: &str = "meters";
/// Publications, each in its meter's folder under its number.
const PUBLICATIONS: &str = "publications";

/// Fewest digits that a version may be named by.
pub const PREFIX_MIN_DIGITS: usize = 4;

/// How often a publication gives way to others that come at the same time.
const MAX_ATTEMPTS: u32 = 20;

/// One act of publishing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The version that holds from then on.
    pub version: String,
    /// Since when it holds; `None` is the beginning of time.
    pub from: Option<Timestamp>,
    /// When it was published, RFC 3339.
    pub at: String,
    /// Who published it.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// How a version is to be published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// Since when it holds; `None` is the beginning of time.
    pub from: Option<Timestamp>,
    /// Who publishes it.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// A definition as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct StoredDefinition {
    meter: String,
    version: String,
    /// For people and other programs; not read back.
    normalised: String,
    definition: Bundle,
}

/// A publication as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct StoredPublication {
    version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// What became of a publication.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published {
    /// Whether it was made: one that leaves every instant the version it has is not.
    pub made: bool,
    /// The earlier publications, of other versions, that do not hold at any time any more, each with
    /// when it had held.
    pub superseded: Vec<(Publication, TimeRange)>,
}

/// Publishes `meter`, which `bundle` defines; says what that changes.
///
/// # Errors
/// A bundle that defines another meter, a store that cannot be written, a definition of the same
/// version that is damaged.
pub async fn publish(
    table: &Table,
    (meter, bundle): (&Meter, &Bundle),
    terms: &Terms,
    now: Timestamp,
) -> Result<Published> {
    let version = version(meter);
    let again = bundle.meter().map_err(Error::from)?;
    if again.name != meter.name || self::version(&again) != version {
        return Err(Error::conflict(format!(
            "meter `{}` or one of its tables changed while it was read: try again",
            meter.name
        )));
    }
    for _ in 0..MAX_ATTEMPTS {
        let mut all = publications(table, &meter.name).await?;
        let before = Schedule::of(&all);
        let number = all.len() + 1;
        let publication = Publication {
            version: version.clone(),
            from: terms.from,
            at: now.to_string(),
            by: terms.by.clone(),
            reason: terms.reason.clone(),
        };
        all.push(publication.clone());
        keep_definition(table, meter, bundle).await?;
        let after = Schedule::of(&all);
        if after.says_the_same(&before) {
            return Ok(Published::default());
        }
        let superseded = superseded(&all, &before, &after);
        let text = encode(&StoredPublication {
            version: publication.version,
            from: publication.from.map(|from| from.to_string()),
            at: publication.at,
            by: publication.by,
            reason: publication.reason,
        })?;
        let folder = format!("{PUBLICATIONS}/{}", checked(&meter.name)?);
        if table.put_note(&folder, &publication_file(number), text).await? {
            return Ok(Published { made: true, superseded });
        }
    }
    Err(Error::conflict(format!(
        "meter `{}` is published by others all the time: try again",
        meter.name
    )))
}

/// What the last one of the publications `all` takes away altogether from the others.
fn superseded(
    all: &[Publication],
    before: &Schedule,
    after: &Schedule,
) -> Vec<(Publication, TimeRange)> {
    let Some((last, earlier)) = all.split_last() else { return Vec::new() };
    let each = earlier.iter().enumerate().filter_map(|(place, publication)| {
        match (before.tenure(place), after.tenure(place)) {
            (Tenure::During(held), Tenure::Superseded) if publication.version != last.version => {
                Some((publication.clone(), held))
            }
            (Tenure::During(_) | Tenure::Superseded, _) => None,
        }
    });
    each.collect()
}

/// Keeps a definition under its version, unless it is there; one that is there must be whole.
///
/// # Errors
/// A store that cannot be written; a definition of the same version that is damaged or another.
pub async fn keep_definition(table: &Table, meter: &Meter, bundle: &Bundle) -> Result<()> {
    let version = version(meter);
    let stored = StoredDefinition {
        meter: meter.name.clone(),
        version: version.clone(),
        normalised: normalised(meter),
        definition: bundle.clone(),
    };
    let folder = format!("{DEFINITIONS}/{}", checked(&meter.name)?);
    if !table.put_note(&folder, &definition_file(&version), encode(&stored)?).await? {
        let kept = definition(table, &meter.name, &version).await?;
        if normalised(&kept) != normalised(meter) {
            return Err(Error::corrupt(format!(
                "two definitions of meter `{}` have the version {version}: change one a little",
                meter.name
            )));
        }
    }
    Ok(())
}

/// The meters that were ever published, sorted.
///
/// # Errors
/// A store that cannot be read.
pub async fn names(table: &Table) -> Result<Vec<String>> {
    table.note_folders(PUBLICATIONS).await
}

/// The publications of a meter, the first one first.
///
/// # Errors
/// A name that can be no meter's, a store that cannot be read, a publication that is damaged.
pub async fn publications(table: &Table, name: &str) -> Result<Vec<Publication>> {
    let folder = format!("{PUBLICATIONS}/{}", checked(name)?);
    let mut notes = table.notes(&folder).await?;
    notes.sort_by(|(one, _), (other, _)| one.cmp(other));
    let read = |(place, (file, text)): (usize, (String, bytes::Bytes))| {
        let damaged = |why: String| {
            Error::corrupt(format!("{}: publication {file} of `{name}` {why}", table.display()))
        };
        if file != publication_file(place + 1) {
            return Err(damaged(format!("stands where number {} should", place + 1)));
        }
        let stored: StoredPublication = serde_json::from_slice(&text)
            .map_err(|error| damaged(format!("cannot be read: {error}")))?;
        let from = stored.from.as_deref().map(Timestamp::parse_rfc3339).transpose();
        Ok(Publication {
            version: stored.version,
            from: from.map_err(|error| damaged(format!("has a date that {error}")))?,
            at: stored.at,
            by: stored.by,
            reason: stored.reason,
        })
    };
    notes.into_iter().enumerate().map(read).collect()
}

/// The published definition of `name` with this whole version.
///
/// # Errors
/// Not found, a store that cannot be read, a definition that is not what was published.
pub async fn definition(table: &Table, name: &str, version: &str) -> Result<Meter> {
    if !is_version_prefix(version) {
        return Err(Error::invalid(format!("`{version}` is no version of a meter")));
    }
    let folder = format!("{DEFINITIONS}/{}", checked(name)?);
    let Some(text) = table.read_note(&folder, &definition_file(version)).await? else {
        return Err(Error::not_found(format!("version {version} of meter `{name}` is not kept")));
    };
    let damaged = |why: String| {
        Error::corrupt(format!(
            "{}: the published version {version} of meter `{name}` {why}",
            table.display()
        ))
    };
    let stored: StoredDefinition = serde_json::from_slice(&text)
        .map_err(|error| damaged(format!("cannot be read: {error}")))?;
    let meter = stored
        .definition
        .meter()
        .map_err(|error| damaged("cannot be understood any more".to_owned()).with_source(error))?;
    let found = self::version(&meter);
    if meter.name != name || found != version {
        return Err(damaged(format!("reads as version {found} of `{}`", meter.name)));
    }
    Ok(meter)
}

/// The definitions of `name` that hold at some time, by version.
///
/// # Errors
/// As [`definition`].
pub async fn definitions(
    table: &Table,
    name: &str,
    schedule: &Schedule,
) -> Result<BTreeMap<String, Meter>> {
    let parts = schedule.parts(TimeRange::ALL);
    let versions: BTreeSet<String> = parts.into_iter().filter_map(|part| part.version).collect();
    let mut definitions = BTreeMap::new();
    for version in versions {
        let meter = definition(table, name, &version).await?;
        definitions.insert(version, meter);
    }
    Ok(definitions)
}

/// The one published version of `name` that begins with `prefix`.
///
/// # Errors
/// A prefix that is too short or no version, of no version or of several.
pub async fn find(table: &Table, name: &str, prefix: &str) -> Result<String> {
    if !is_version_prefix(prefix) || prefix.len() < PREFIX_MIN_DIGITS {
        return Err(Error::invalid(format!(
            "`{name}@{prefix}`: a version has {PREFIX_MIN_DIGITS} to 12 digits of 0-9 and a-f, as \
             `meterhouse meters history {name}` shows them; `{name}@published` is the one in effect"
        )));
    }
    let mut versions: Vec<String> =
        publications(table, name).await?.into_iter().map(|each| each.version).collect();
    versions.sort();
    versions.dedup();
    let matching: Vec<&String> =
        versions.iter().filter(|version| version.starts_with(prefix)).collect();
    match matching.as_slice() {
        [version] => Ok((*version).clone()),
        [] if versions.is_empty() => Err(not_published(name)),
        [] => Err(Error::not_found(format!(
            "no published version of meter `{name}` begins with {prefix}; there are {}",
            versions.join(", ")
        ))),
        several => {
            let several: Vec<&str> = several.iter().map(|version| version.as_str()).collect();
            Err(Error::invalid(format!(
                "`{name}@{prefix}` may be {}: write more digits",
                several.join(" or ")
            )))
        }
    }
}

/// The error of a meter that has no published version.
pub fn not_published(name: &str) -> Error {
    Error::not_found(format!(
        "meter `{name}` was never published; `meterhouse meters publish {name}` does that, if \
         `meterhouse meters list` has it"
    ))
}

/// The name, if a meter can be called so.
fn checked(name: &str) -> Result<&str> {
    match is_identifier(name) {
        true => Ok(name),
        false => Err(Error::invalid(format!(
            "`{name}` can be no meter's name: a lower-case letter, then letters, digits, `_` and `-`"
        ))),
    }
}

fn is_version_prefix(text: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (1..=12).contains(&text.len()) && text.bytes().all(digit)
}

fn definition_file(version: &str) -> String {
    format!("{version}.json")
}

fn publication_file(number: usize) -> String {
    format!("{number:010}.json")
}

fn encode(stored: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(stored)
        .map_err(|error| Error::internal("writing a published meter").with_source(error))
}

#[cfg(test)]
mod tests;
