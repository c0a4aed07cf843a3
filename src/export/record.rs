//! What is kept beside an exported file: what was asked, what it was computed of, and its hash.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How a file came about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What was asked: the same for every run of one export.
    pub asked: BTreeMap<String, String>,
    /// What else it was made with: meter events are made of a table of customers, too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub with: BTreeMap<String, String>,
    /// What each meter's rows were computed of.
    pub meters: Vec<Computed>,
    /// How many rows the file has.
    pub rows: u64,
    /// How many rows of usage became no meter events: nothing was used, or nobody can be billed.
    #[serde(default)]
    pub left_out: u64,
    /// How long it is.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: String,
    /// SHA-256 of the file whose place it takes, if there was one. Until it has, that one is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// SHA-256 of files that others were about to put there when this one was made, and that may come
    /// after it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overtakes: Vec<String>,
    /// When, RFC 3339.
    pub written_at: String,
}

/// What makes the rows of a meter what they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Basis {
    /// Name of the meter.
    pub meter: String,
    /// Version of its definition.
    pub meter_version: String,
    /// Version of the events.
    pub table_version: u64,
    /// Versions of the lake's lookup tables that it reads.
    pub lookups: BTreeMap<String, i64>,
    /// The closing that the rows are of, if they are a statement's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closing: Option<String>,
}

/// How the rows of a meter were computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Computed {
    /// What they were computed of.
    #[serde(flatten)]
    pub basis: Basis,
    /// First instant, RFC 3339; `None` is the beginning.
    pub from: Option<String>,
    /// End, exclusive; `None` is the end.
    pub to: Option<String>,
    /// IANA zone.
    pub zone: String,
    /// Name of the unit of `converted` and `billable`.
    pub unit: Option<String>,
    /// Events that made the values.
    pub events: i64,
    /// Events that matched but had no usable value.
    pub skipped: i64,
    /// Which closing of its period it is, if the rows are a statement's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// SHA-256 over the lines of the statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement_sha256: Option<String>,
}

impl Record {
    /// What the file was computed of.
    pub fn basis(&self) -> Vec<Basis> {
        self.meters.iter().map(|meter| meter.basis.clone()).collect()
    }
}

/// What a person who has only the file wants to know of how it came about: names and values.
pub(super) fn how(
    asked: &BTreeMap<String, String>,
    computed: &[Computed],
    rows: u64,
) -> Vec<(String, String)> {
    let mut told: Vec<(String, String)> =
        asked.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    told.push(("rows".to_owned(), rows.to_string()));
    for Computed { basis, from, to, zone, unit, events, skipped, revision, statement_sha256 } in
        computed
    {
        told.push((String::new(), String::new()));
        let mut tell = |name: &str, value: Option<String>| {
            told.extend(value.map(|value| (name.to_owned(), value)));
        };
        tell("meter", Some(basis.meter.clone()));
        tell("meter version", Some(basis.meter_version.clone()));
        tell("from", Some(from.clone().unwrap_or_else(|| "the beginning".to_owned())));
        tell("to (exclusive)", Some(to.clone().unwrap_or_else(|| "the end".to_owned())));
        tell("zone", Some(zone.clone()));
        tell("unit", unit.clone());
        tell("version of the events", Some(basis.table_version.to_string()));
        for (name, version) in &basis.lookups {
            tell(&format!("version of lookup {name}"), Some(version.to_string()));
        }
        tell("events", Some(events.to_string()));
        tell("skipped", Some(skipped.to_string()));
        tell("closing", basis.closing.clone());
        tell("revision", revision.map(|revision| revision.to_string()));
        tell("sha256 of the statement", statement_sha256.clone());
    }
    told
}
