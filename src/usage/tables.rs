//! The lake's lookup tables, read into the meters that are asked.

use std::sync::Arc;

use super::versions::is_asked;
use super::{Context, UsageRequest};
use crate::error::{Error, Result};
use crate::lake::snapshot::Snapshot;
use crate::lake::tables::Lake;
use crate::meter::{Meter, TablePlace};

/// A question whose meters have their tables, asked of one version.
pub(super) struct Filled {
    pub(super) context: Context,
    pub(super) request: UsageRequest,
}

/// The question with the tables as they were at its version; `None` where no meter needs one.
///
/// # Errors
/// A table that the lake does not have, or that is no table for the meter.
pub(super) async fn filled(context: &Context, request: &UsageRequest) -> Result<Option<Filled>> {
    let is_asked = |meter: &Meter| request.meters.iter().any(|asked| is_asked(meter, asked));
    let asked = |meter: &&Meter| is_asked(meter);
    if !context.meters.iter().filter(asked).any(needs_tables) {
        return Ok(None);
    }
    let snapshot = context.lake.events.snapshot(request.at).await?;
    let mut meters = Vec::with_capacity(context.meters.len());
    for meter in context.meters.iter() {
        meters.push(match is_asked(meter) && needs_tables(meter) {
            true => with_tables(&context.lake, &snapshot, meter).await?,
            false => meter.clone(),
        });
    }
    let request = UsageRequest { at: Some(snapshot.version), ..request.clone() };
    Ok(Some(Filled { context: Context { meters: Arc::new(meters), ..context.clone() }, request }))
}

/// The tables that `meter` was read with, each with its version.
pub(super) fn versions(meter: &Meter) -> Vec<(String, i64)> {
    let named = meter.lookups.values().filter_map(|lookup| match &lookup.table {
        TablePlace::Lake(name) => Some((name.clone(), lookup.number?)),
        TablePlace::File(_) => None,
    });
    let mut versions: Vec<(String, i64)> = named.collect();
    versions.sort();
    versions.dedup();
    versions
}

fn needs_tables(meter: &Meter) -> bool {
    meter.lookups.values().any(|lookup| matches!(lookup.table, TablePlace::Lake(_)))
}

/// The meter with the lake's tables as of `snapshot`.
///
/// # Errors
/// A table that the lake does not have, or that is no table for the meter.
pub async fn with_tables(lake: &Lake, snapshot: &Arc<Snapshot>, meter: &Meter) -> Result<Meter> {
    let mut meter = meter.clone();
    let zone = meter.zone();
    for (name, lookup) in &mut meter.lookups {
        let TablePlace::Lake(table) = lookup.table.clone() else { continue };
        let Some((number, text)) = lake.events.lookup(snapshot, &table).await? else {
            return Err(Error::not_found(format!(
                "meter `{}`: lookup `{name}` reads table `{table}`, which the lake does not have at \
                 version {}: `meterhouse lookups put {table} FILE` puts it there",
                meter.name, snapshot.version
            )));
        };
        let text = std::str::from_utf8(&text).map_err(|error| {
            Error::corrupt(format!("table {table}, version {number}, is no text: {error}"))
        })?;
        lookup.number = Some(number);
        lookup
            .read(text, &format!("table {table}, version {number}"), &zone)
            .map_err(|found| Error::invalid(format!("meter `{}`: {found}", meter.name)))?;
    }
    Ok(meter)
}
