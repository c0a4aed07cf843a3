//! The tables that make up one namespace of a lake: events, quarantine, accounts and statements.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{ErrorKind, Result};
use crate::lake::kernel::store_error;
use crate::lake::location::{Location, Namespace};
use crate::lake::table::Table;
use crate::schema::{self, EVENT_DATE};

const EVENTS: &str = "events";
const QUARANTINE: &str = "quarantine";
const BATCHES: &str = "batches";
const STATEMENTS: &str = "statements";

/// One namespace of a lake.
#[derive(Debug, Clone)]
pub struct Lake {
    /// Where the lake lies.
    pub location: Location,
    /// Which part of it this is.
    pub namespace: Namespace,
    /// The events.
    pub events: Table,
    /// Tables that are derived from the events, by name, once they were opened.
    derived: Arc<Mutex<BTreeMap<String, Table>>>,
}

impl Lake {
    /// Opens a lake that is there.
    ///
    /// # Errors
    /// `NotFound` where there is none.
    pub async fn open(location: &Location, namespace: &Namespace) -> Result<Self> {
        let events = Table::open(location, namespace, EVENTS).await?;
        Ok(Self::of(location, namespace, events))
    }

    /// The tables that are there though the events, which are made first, are not.
    ///
    /// # Errors
    /// A place that can be no lake's.
    pub async fn remains(location: &Location, namespace: &Namespace) -> Result<Vec<&'static str>> {
        let mut remains = Vec::new();
        for name in [QUARANTINE, BATCHES, STATEMENTS] {
            if optional(Table::open(location, namespace, name).await)?.is_some() {
                remains.push(name);
            }
        }
        Ok(remains)
    }

    /// Opens a lake, making it where there is none.
    ///
    /// # Errors
    /// A place that cannot hold a lake.
    pub async fn open_or_create(location: &Location, namespace: &Namespace) -> Result<Self> {
        let (columns, info) = (schema::events_schema(), BTreeMap::new());
        let events =
            Table::create(location, namespace, EVENTS, &columns, &[EVENT_DATE], &info).await?;
        Ok(Self::of(location, namespace, events))
    }

    fn of(location: &Location, namespace: &Namespace, events: Table) -> Self {
        let (location, namespace) = (location.clone(), namespace.clone());
        Self { location, namespace, events, derived: Arc::default() }
    }

    /// A table that is derived from the events, opened once; `None` while there is none.
    ///
    /// # Errors
    /// A damaged table.
    pub async fn derived(&self, name: &str) -> Result<Option<Table>> {
        let known = self.opened().get(name).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let found = optional(Table::open(&self.location, &self.namespace, name).await)?;
        if let Some(table) = &found {
            self.opened().insert(name.to_owned(), table.clone());
        }
        Ok(found)
    }

    /// The names of the tables that there are whose names begin with that.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn names(&self, beginning: &str) -> Result<Vec<String>> {
        let place = self.location.root.clone().join(self.namespace.as_str());
        let listed = self.location.store.list_with_delimiter(Some(&place)).await;
        let what = || format!("looking into {}/{}", self.location, self.namespace);
        let listed = listed.map_err(|error| store_error(what(), error))?;
        let names = listed.common_prefixes.iter().filter_map(|folder| folder.filename());
        let names = names.filter(|name| name.starts_with(beginning));
        Ok(names.map(ToOwned::to_owned).collect())
    }

    fn opened(&self) -> MutexGuard<'_, BTreeMap<String, Table>> {
        self.derived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The refused events, `None` while there were none.
    ///
    /// # Errors
    /// A damaged table.
    pub async fn quarantine(&self) -> Result<Option<Table>> {
        optional(Table::open(&self.location, &self.namespace, QUARANTINE).await)
    }

    /// The table of refused events, made where it is missing.
    ///
    /// # Errors
    /// A place that cannot hold it.
    pub async fn quarantine_or_create(&self) -> Result<Table> {
        let (columns, info) = (schema::quarantine::schema(), BTreeMap::new());
        Table::create(&self.location, &self.namespace, QUARANTINE, &columns, &[], &info).await
    }

    /// The counts of every batch, `None` while there was none.
    ///
    /// # Errors
    /// A damaged table.
    pub async fn batches(&self) -> Result<Option<Table>> {
        optional(Table::open(&self.location, &self.namespace, BATCHES).await)
    }

    /// The table of counts, made where it is missing.
    ///
    /// # Errors
    /// A place that cannot hold it.
    pub async fn batches_or_create(&self) -> Result<Table> {
        let (columns, info) = (schema::batches::schema(), BTreeMap::new());
        Table::create(&self.location, &self.namespace, BATCHES, &columns, &[], &info).await
    }

    /// The closed periods, `None` while there is none.
    ///
    /// # Errors
    /// A damaged table.
    pub async fn statements(&self) -> Result<Option<Table>> {
        optional(Table::open(&self.location, &self.namespace, STATEMENTS).await)
    }

    /// The table of closed periods, made where it is missing.
    ///
    /// # Errors
    /// A place that cannot hold it.
    pub async fn statements_or_create(&self) -> Result<Table> {
        let (columns, info) = (schema::statements::schema(), BTreeMap::new());
        Table::create(&self.location, &self.namespace, STATEMENTS, &columns, &[], &info).await
    }
}

fn optional(opened: Result<Table>) -> Result<Option<Table>> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
