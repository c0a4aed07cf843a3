//! Which events a correction means, and whether they are there to be corrected.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::Date32Type;
use datafusion::datasource::provider_as_source;
use futures::StreamExt;

use crate::dedupe::{Hasher, Key};
use crate::engine::{Reach, engine_error};
use crate::error::{Error, Result};
use crate::event::shortened;
use crate::lake::snapshot::Snapshot;
use crate::meter::{Filter, describe_filter};
use crate::plan::{RowQuery, row_plan};
use crate::schema::{
    CUSTOMER_ID, ENDED_BY, EVENT_DATE, EVENT_NAME, IDEMPOTENCY_KEY, KIND, KIND_EVENT, MADE_BY,
    SOURCE, batch_of_upsert,
};
use crate::table::EventsTable;
use crate::time::TimeRange;
use crate::usage::Context;

/// Most events that a message names.
const NAMED_MAX: usize = 10;
/// Most keys that are looked up one by one; for more, all rows are looked at.
const KEYS_MAX: usize = 1_000;

/// What tells an event from all others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Its source; empty is none.
    pub source: String,
    /// Its idempotency key.
    pub key: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", shortened(&self.key))?;
        match self.source.as_str() {
            "" => Ok(()),
            source => write!(f, " of source `{}`", shortened(source)),
        }
    }
}

/// Which events are meant.
#[derive(Debug, Clone, PartialEq)]
pub enum Selection {
    /// Exactly these: each must be there and count.
    Identities(BTreeSet<Identity>),
    /// All that match.
    Matching(Conditions),
    /// Those that the correction of this id touched.
    Corrected(String),
}

/// Conditions on events that count.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conditions {
    /// Names of events; empty means every one.
    pub events: Vec<String>,
    /// Only this customer's.
    pub customer: Option<String>,
    /// Only these instants.
    pub range: TimeRange,
    /// Further conditions.
    pub filter: Filter,
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identities(identities) => {
                let first: Vec<String> =
                    identities.iter().take(NAMED_MAX).map(ToString::to_string).collect();
                write!(f, "{}", first.join(", "))?;
                match identities.len().saturating_sub(NAMED_MAX) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::Matching(conditions) => write!(f, "{conditions}"),
            Self::Corrected(id) => write!(f, "correction {id}"),
        }
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.events.is_empty() {
            parts.push(format!("event {}", self.events.join(" or ")));
        }
        parts.extend(self.customer.as_ref().map(|customer| format!("customer {customer}")));
        parts.extend(self.range.from.map(|from| format!("from {from}")));
        parts.extend(self.range.to.map(|to| format!("until {to}")));
        if !self.filter.is_everything() {
            parts.push(describe_filter(&self.filter));
        }
        match parts.is_empty() {
            true => f.write_str("every event"),
            false => f.write_str(&parts.join(", ")),
        }
    }
}

/// How many events there are of each day, customer and name.
pub type Tally = BTreeMap<(i32, Option<String>, String), u64>;

/// The events that a correction works on.
#[derive(Debug, Default)]
pub(super) struct Selected {
    /// Their identities.
    pub(super) keys: Arc<HashSet<Key>>,
    /// The days of the rows concerned.
    pub(super) days: BTreeSet<i32>,
    /// The events.
    pub(super) tally: Tally,
}

/// Finds the events that `selection` means in `snapshot`; of `chosen`, where they were chosen before,
/// each must still be meant, and no other is.
///
/// # Errors
/// Events that are not there, or do not count; none at all.
pub(super) async fn select(
    context: &Context,
    snapshot: &Arc<Snapshot>,
    selection: &Selection,
    chosen: Option<&HashSet<Key>>,
) -> Result<Selected> {
    let mut finder = Finder::new(context, selection, chosen);
    scan(context, snapshot, finder.query(snapshot), |rows| finder.take(&rows)).await?;
    finder.finish(context.lake.events.display())
}

/// Gives the rows of `query` to `take`.
///
/// # Errors
/// Files that cannot be read, and those of `take`.
pub(super) async fn scan(
    context: &Context,
    snapshot: &Arc<Snapshot>,
    query: RowQuery,
    mut take: impl FnMut(RecordBatch) -> Result<()>,
) -> Result<()> {
    let table = Arc::new(EventsTable::new(&context.lake.events, Arc::clone(snapshot))?);
    let facts = table.facts(query.range);
    let source = provider_as_source(table as Arc<_>);
    let reach = match query.keys.is_some() || query.customer.is_some() {
        true => Reach::Needle,
        false => Reach::Broad,
    };
    let physical = context.engine.physical(&row_plan(&source, &query, &facts)?, reach).await?;
    let mut rows = context.engine.execute(physical)?;
    while let Some(batch) = rows.next().await {
        take(batch.map_err(engine_error)?)?;
    }
    Ok(())
}

/// The text of a column that a scan gave.
///
/// # Errors
/// A defect of ours.
pub(super) fn texts(rows: &RecordBatch, name: &str) -> Result<StringArray> {
    let column = rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    column.cloned().ok_or_else(|| Error::internal(format!("chosen rows have no text `{name}`")))
}

/// Those of `names` that the table has; corrections bring two of them.
pub(super) fn columns_of(snapshot: &Snapshot, names: &[&'static str]) -> Vec<&'static str> {
    let has = |name: &&&'static str| snapshot.schema.field_with_name(name).is_ok();
    names.iter().filter(has).copied().collect()
}

struct Finder<'s> {
    selection: &'s Selection,
    chosen: Option<&'s HashSet<Key>>,
    hasher: Hasher,
    /// The identities that are asked for, as far as single ones are.
    wanted: HashSet<Key>,
    keys: HashSet<Key>,
    days: BTreeSet<i32>,
    tally: Tally,
    /// What became of those that do not count.
    ended: BTreeMap<Identity, String>,
    /// Sources that have an event of a key that is asked for.
    elsewhere: BTreeMap<String, String>,
    /// Corrections that touched what the one to be reverted made.
    later: BTreeSet<String>,
}

impl<'s> Finder<'s> {
    fn new(context: &Context, selection: &'s Selection, chosen: Option<&'s HashSet<Key>>) -> Self {
        let hasher = Hasher::new(context.lake.events.table_id());
        let wanted = match selection {
            Selection::Identities(identities) => {
                let key = |one: &Identity| hasher.identity(Some(&one.source), &one.key);
                identities.iter().map(key).collect()
            }
            Selection::Matching(_) | Selection::Corrected(_) => HashSet::new(),
        };
        Self {
            selection,
            chosen,
            hasher,
            wanted,
            keys: HashSet::new(),
            days: BTreeSet::new(),
            tally: Tally::new(),
            ended: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            later: BTreeSet::new(),
        }
    }

    fn query(&self, snapshot: &Snapshot) -> RowQuery {
        const COLUMNS: [&str; 8] =
            [EVENT_NAME, IDEMPOTENCY_KEY, CUSTOMER_ID, SOURCE, EVENT_DATE, KIND, MADE_BY, ENDED_BY];
        let columns = columns_of(snapshot, &COLUMNS);
        let all = RowQuery { columns, ..RowQuery::default() };
        match self.selection {
            Selection::Identities(identities) if identities.len() <= KEYS_MAX => {
                let keys = identities.iter().map(|identity| identity.key.clone());
                RowQuery { keys: Some(keys.collect()), ..all }
            }
            Selection::Identities(_) => all,
            Selection::Matching(Conditions { events, customer, range, filter }) => RowQuery {
                events: events.clone(),
                customer: customer.clone(),
                range: *range,
                filter: filter.clone(),
                live: true,
                ..all
            },
            Selection::Corrected(id) => RowQuery { correction: Some(id.clone()), ..all },
        }
    }

    fn take(&mut self, rows: &RecordBatch) -> Result<()> {
        let [names, keys, customers, sources, kinds] =
            [EVENT_NAME, IDEMPOTENCY_KEY, CUSTOMER_ID, SOURCE, KIND].map(|name| texts(rows, name));
        let (names, keys, customers) = (names?, keys?, customers?);
        let (sources, kinds) = (sources?, kinds?);
        let optional =
            |name: &str| rows.column_by_name(name).map(|_| texts(rows, name)).transpose();
        let (made_by, ended_by) = (optional(MADE_BY)?, optional(ENDED_BY)?);
        let days = rows.column_by_name(EVENT_DATE);
        let days = days.and_then(|days| days.as_primitive_opt::<Date32Type>());
        let days = days.ok_or_else(|| Error::internal("chosen rows have no date"))?;
        for row in 0..rows.num_rows() {
            let found = Found {
                source: at(Some(&sources), row).unwrap_or_default(),
                key: keys.value(row),
                kind: kinds.value(row),
                made_by: at(made_by.as_ref(), row),
                ended_by: at(ended_by.as_ref(), row),
            };
            if self.is_meant(&found) {
                let customer = customers.is_valid(row).then(|| customers.value(row).to_owned());
                let group = (days.value(row), customer, names.value(row).to_owned());
                *self.tally.entry(group).or_default() += 1;
            }
            if self.is_concerned(&found) {
                self.days.insert(days.value(row));
            }
        }
        Ok(())
    }

    /// Whether a row is one of the events that change; takes notice of it.
    fn is_meant(&mut self, found: &Found<'_>) -> bool {
        let key = self.hasher.identity(Some(found.source), found.key);
        let live = found.kind == KIND_EVENT;
        match self.selection {
            Selection::Identities(identities) => {
                let is_wanted = self.wanted.contains(&key);
                if !is_wanted && identities.len() <= KEYS_MAX {
                    self.elsewhere.insert(found.key.to_owned(), found.source.to_owned());
                }
                if !is_wanted {
                    return false;
                }
                if !live {
                    let identity = Identity { source: found.source.into(), key: found.key.into() };
                    let by = found.ended_by.map(|by| format!(" by {by}")).unwrap_or_default();
                    // What an upsert ended is not what became of the event at last.
                    let newest = found.ended_by.is_none_or(|by| batch_of_upsert(by).is_none());
                    if newest || !self.ended.contains_key(&identity) {
                        self.ended.insert(identity, format!("{}{by}", found.kind));
                    }
                    return false;
                }
            }
            Selection::Matching(_) if self.chosen.is_some_and(|keys| !keys.contains(&key)) => {
                return false;
            }
            Selection::Matching(_) => {}
            Selection::Corrected(id) => {
                if found.made_by == Some(id) {
                    self.later.extend(found.ended_by.map(str::to_owned));
                }
                if found.ended_by != Some(id) {
                    return false;
                }
            }
        }
        self.keys.insert(key);
        true
    }

    /// Whether the day of a row must be looked at.
    fn is_concerned(&self, found: &Found<'_>) -> bool {
        match self.selection {
            Selection::Corrected(_) => true,
            Selection::Identities(_) | Selection::Matching(_) => {
                found.kind == KIND_EVENT
                    && self.keys.contains(&self.hasher.identity(Some(found.source), found.key))
            }
        }
    }

    fn finish(self, place: &str) -> Result<Selected> {
        if let Selection::Identities(identities) = self.selection {
            self.all_there(identities, place)?;
        }
        if let (Selection::Corrected(id), false) = (self.selection, self.later.is_empty()) {
            let later: Vec<&str> = self.later.iter().map(String::as_str).collect();
            let of_senders = later.iter().any(|later| batch_of_upsert(later).is_some());
            let later = later.join(", ");
            if of_senders {
                return Err(Error::conflict(format!(
                    "correction {id} cannot be reverted: newer events took the places of some that it \
                     made ({later}); correct the events anew instead"
                )));
            }
            return Err(Error::conflict(format!(
                "correction {id} cannot be reverted: {later} changed the same events later; revert \
                 that first"
            )));
        }
        if let Some(gone) = self.chosen.map(|chosen| chosen.difference(&self.keys).count())
            && gone > 0
        {
            return Err(Error::conflict(format!(
                "{gone} of the chosen events were corrected by somebody else meanwhile; nothing was \
                 changed, run the same command again"
            )));
        }
        if self.keys.is_empty() {
            return Err(match self.selection {
                // Somebody else was faster.
                Selection::Corrected(id) => Error::conflict(format!(
                    "correction {id} was reverted by somebody else meanwhile"
                )),
                meant @ (Selection::Identities(_) | Selection::Matching(_)) => Error::not_found(
                    format!("no event that counts matches ({meant}); nothing was changed"),
                ),
            });
        }
        Ok(Selected { keys: Arc::new(self.keys), days: self.days, tally: self.tally })
    }

    /// Names those that are not there or do not count.
    fn all_there(&self, identities: &BTreeSet<Identity>, place: &str) -> Result<()> {
        let counts = |identity: &&Identity| {
            self.keys.contains(&self.hasher.identity(Some(&identity.source), &identity.key))
        };
        let missing: Vec<&Identity> =
            identities.iter().filter(|identity| !counts(identity)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let told = missing.iter().take(NAMED_MAX).map(|identity| {
            if let Some(ended) = self.ended.get(identity) {
                return format!("{identity} was {ended}");
            }
            match self.elsewhere.get(&identity.key).map(String::as_str) {
                None => format!("{identity} is not there"),
                Some("") => format!("{identity} is not there, but without a source it is"),
                Some(source) => {
                    let source = shortened(source);
                    format!("{identity} is not there, but with the source `{source}` it is")
                }
            }
        });
        let mut told = told.collect::<Vec<_>>().join("; ");
        if missing.len() > NAMED_MAX {
            told.push_str(&format!("; and {} more", missing.len() - NAMED_MAX));
        }
        let (missing, all) = (missing.len(), identities.len());
        Err(Error::not_found(format!(
            "{place}: {missing} of {all} events cannot be corrected: {told}; nothing was changed"
        )))
    }
}

/// What of a row tells which it is.
struct Found<'r> {
    source: &'r str,
    key: &'r str,
    kind: &'r str,
    made_by: Option<&'r str>,
    ended_by: Option<&'r str>,
}

fn at(column: Option<&StringArray>, row: usize) -> Option<&str> {
    column.filter(|column| column.is_valid(row)).map(|column| column.value(row))
}
