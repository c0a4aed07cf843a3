//! Names of events of which the newest of an identity wins, as the lake declares them.
//!
//! All names that hold together are a note that never changes; a commit of the events table says
//! which note holds from there on, as the version of an application, which every later snapshot and
//! checkpoint carries. So every writer reads the same, and the version that a batch builds on tells
//! what was declared then. Says nothing of what becomes of events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::lake::commit::{Commit, CommitOutcome};
use crate::lake::history::BY;
use crate::lake::snapshot::Snapshot;
use crate::lake::table::Table;

/// The kind of the notes.
const KIND: &str = "upserts";
/// The application whose version is the number of the note that holds.
const APPLICATION: &str = "meterhouse.upserts";
/// How often a change is tried while others change the table.
const MAX_ATTEMPTS: u32 = 100;
/// The key in a commit's notes that names what was declared.
pub const DECLARED: &str = "upsert_declared";
/// The key in a commit's notes that names what was withdrawn.
pub const WITHDRAWN: &str = "upsert_withdrawn";

/// A name of events of which the newest of an identity wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upsert {
    /// The name.
    pub event_name: String,
    /// The version of the events from which on it holds.
    pub since: u64,
    /// Who declared it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When, RFC 3339.
    pub at: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Who changes what is declared, when and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declarer {
    /// Who.
    pub by: Option<String>,
    /// When, RFC 3339.
    pub at: String,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// Why.
    pub reason: Option<String>,
}

fn note(number: i64) -> String {
    format!("{number:010}.json")
}

impl Table {
    /// The names that are declared as of `snapshot`, sorted.
    ///
    /// # Errors
    /// A store that cannot be read; a note that is gone or damaged.
    pub async fn upserts(&self, snapshot: &Arc<Snapshot>) -> Result<Vec<Upsert>> {
        let Some(number) = snapshot.app_version(APPLICATION).await? else { return Ok(Vec::new()) };
        let place =
            || format!("{}: the declaration of upserts, {KIND}/{}", self.display(), note(number));
        let Some(text) = self.read_note(KIND, &note(number)).await? else {
            return Err(Error::corrupt(format!(
                "{} among the lake's notes, is gone: put it back from a copy, or declare the names \
                 anew (`meterhouse events upsert declare --anew NAME`)",
                place()
            )));
        };
        serde_json::from_slice(&text).map_err(|error| {
            Error::corrupt(format!("{} is damaged: {error}", place())).with_source(error)
        })
    }

    /// The names alone, as [`Table::upserts`] has them.
    ///
    /// # Errors
    /// As there.
    pub async fn upsert_names(&self, snapshot: &Arc<Snapshot>) -> Result<BTreeSet<String>> {
        let declared = self.upserts(snapshot).await?;
        Ok(declared.into_iter().map(|upsert| upsert.event_name).collect())
    }

    /// Declares `names` from the next version of the events on; gives those that were not declared
    /// before, and the version that says so, the newest where there are none. `anew` is for a lake that
    /// has lost what was declared: these are all there are then.
    ///
    /// # Errors
    /// A store that cannot be read or written; conflict after too many lost races.
    pub async fn declare_upserts(
        &self,
        names: &BTreeSet<String>,
        declarer: &Declarer,
        anew: bool,
    ) -> Result<(BTreeSet<String>, u64)> {
        let change = |held: &[Upsert], since: u64| {
            let is_held = |name: &&String| held.iter().any(|upsert| upsert.event_name == **name);
            let new: BTreeSet<String> =
                names.iter().filter(|name| !is_held(name)).cloned().collect();
            let mut all = held.to_vec();
            all.extend(new.iter().map(|name| Upsert {
                event_name: name.clone(),
                since,
                by: declarer.by.clone(),
                at: declarer.at.clone(),
                reason: declarer.reason.clone(),
            }));
            all.sort_by(|a, b| a.event_name.cmp(&b.event_name));
            Ok((all, new))
        };
        self.change_upserts(DECLARED, declarer, anew, change).await
    }

    /// Withdraws `names` from the next version of the events on; gives the version.
    ///
    /// # Errors
    /// Not found for a name that is not declared; a store that cannot be read or written; conflict
    /// after too many lost races. Nothing was changed then.
    pub async fn withdraw_upserts(
        &self,
        names: &BTreeSet<String>,
        declarer: &Declarer,
    ) -> Result<u64> {
        let change = |held: &[Upsert], _| {
            let is_held = |name: &&String| held.iter().any(|upsert| upsert.event_name == **name);
            if let Some(unknown) = names.iter().find(|name| !is_held(name)) {
                return Err(Error::not_found(format!(
                    "event name `{unknown}` is not declared in {}; `meterhouse events upsert list` \
                     shows those that are",
                    self.display()
                )));
            }
            let mut rest = held.to_vec();
            rest.retain(|upsert| !names.contains(&upsert.event_name));
            Ok((rest, names.clone()))
        };
        self.change_upserts(WITHDRAWN, declarer, false, change).await.map(|(_, version)| version)
    }

    /// Commits what `change` makes of the names that hold, or of none if these are lost and it is to be
    /// done `anew`, built on the very version that has them.
    async fn change_upserts(
        &self,
        what: &str,
        declarer: &Declarer,
        anew: bool,
        change: impl Fn(&[Upsert], u64) -> Result<(Vec<Upsert>, BTreeSet<String>)>,
    ) -> Result<(BTreeSet<String>, u64)> {
        for _ in 0..MAX_ATTEMPTS {
            let base = self.snapshot(None).await?;
            let held = match self.upserts(&base).await {
                Err(error) if anew && error.kind() == ErrorKind::Corrupt => Vec::new(),
                Ok(held) if anew && !held.is_empty() => {
                    return Err(Error::invalid(format!(
                        "{}: what is declared is there: --anew is for a lake that has lost it; declare and \
                         withdraw names instead",
                        self.display()
                    )));
                }
                held => held?,
            };
            let (all, changed) = change(&held, base.version + 1)?;
            if changed.is_empty() {
                return Ok((changed, base.version));
            }
            let text = serde_json::to_string(&all)
                .map_err(|error| Error::internal("writing a declaration").with_source(error))?;
            // A number that somebody else took, and perhaps never committed, is passed over.
            let mut number = base.app_version(APPLICATION).await?.unwrap_or(0) + 1;
            while !self.put_note(KIND, &note(number), text.clone()).await? {
                number += 1;
            }
            let names: Vec<&str> = changed.iter().map(String::as_str).collect();
            let mut info = BTreeMap::from([(what.to_owned(), names.join(", "))]);
            info.extend(declarer.by.clone().map(|by| (BY.to_owned(), by)));
            info.extend(declarer.reason.clone().map(|why| ("reason".to_owned(), why)));
            let app = Some((APPLICATION.to_owned(), number));
            let commit = Commit { app, info, at_ms: declarer.at_ms, ..Commit::default() };
            match self.commit(&base, commit).await? {
                CommitOutcome::Committed(after) => return Ok((changed, after.version)),
                // What somebody else declared meanwhile is not to be lost.
                CommitOutcome::Lost { .. } => self.delete_note(KIND, &note(number)).await?,
            }
        }
        Err(Error::conflict(format!(
            "{}: {MAX_ATTEMPTS} attempts lost against other writers; nothing was changed, run the \
             same command again",
            self.display()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::location::{Location, Namespace};
    use crate::lake::tables::Lake;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    async fn events(name: &str) -> Table {
        let location = Location::parse(&format!("memory://upserts-{name}")).unwrap();
        Lake::open_or_create(&location, &Namespace::default()).await.unwrap().events
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_version_tells_what_was_declared_then() {
        let events = events("versions").await;
        let declarer = Declarer { by: Some("me".into()), at: "now".into(), at_ms: 1, reason: None };
        let declared = events.declare_upserts(&names(&["b", "a"]), &declarer, false).await.unwrap();
        assert_eq!(declared, (names(&["a", "b"]), 1));
        let again = events.declare_upserts(&names(&["b"]), &declarer, false).await.unwrap();
        assert_eq!(again, (names(&[]), 1));
        assert_eq!(events.withdraw_upserts(&names(&["a"]), &declarer).await.unwrap(), 2);
        let more = events.declare_upserts(&names(&["b", "c"]), &declarer, false).await.unwrap();
        assert_eq!(more, (names(&["c"]), 3));
        for (version, want) in [(0, &[][..]), (1, &["a", "b"]), (2, &["b"]), (3, &["b", "c"])] {
            let snapshot = events.snapshot(Some(version)).await.unwrap();
            assert_eq!(events.upsert_names(&snapshot).await.unwrap(), names(want), "{version}");
        }
        let newest = events.upserts(&events.snapshot(None).await.unwrap()).await.unwrap();
        let told: Vec<_> = newest.iter().map(|u| (u.event_name.as_str(), u.since)).collect();
        assert_eq!(told, [("b", 1), ("c", 3)]);
        let error = events.withdraw_upserts(&names(&["b", "a"]), &declarer).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("event name `a` is not declared"), "{error}");
        assert_eq!(events.snapshot(None).await.unwrap().version, 3);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn declarations_at_once_are_all_kept() {
        let events = events("at-once").await;
        let declare = |number: usize| {
            let events = events.clone();
            tokio::spawn(async move {
                let name = names(&[&format!("n{number}")]);
                events.declare_upserts(&name, &Declarer::default(), false).await.unwrap()
            })
        };
        for declared in (0..6).map(declare).collect::<Vec<_>>() {
            declared.await.unwrap();
        }
        let snapshot = events.snapshot(None).await.unwrap();
        let want = names(&["n0", "n1", "n2", "n3", "n4", "n5"]);
        assert_eq!(events.upsert_names(&snapshot).await.unwrap(), want);
    }
}
