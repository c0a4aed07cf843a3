//! The lake's lookup tables, read into the meters that are asked.

use std::sync::Arc;

use super::versions::is_asked;
use super::{Context, UsageRequest};
use crate::error::{Error, Result};
use crate::lake::snapshot::Snapshot;
use crate::lake::tables::Lake;
use crate::meter::{Billing, Meter, TablePlace, read_billing_rows};

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

/// `meter` with the tables that it has at the version that `request` asks.
///
/// # Errors
/// A table that the lake does not have, or that is no table for the meter.
pub(super) async fn ready(
    context: &Context,
    request: &UsageRequest,
    meter: &Meter,
) -> Result<Meter> {
    if !needs_tables(meter) {
        return Ok(meter.clone());
    }
    let snapshot = context.lake.events.snapshot(request.at).await?;
    with_tables(&context.lake, &snapshot, meter).await
}

fn needs_tables(meter: &Meter) -> bool {
    meter.tables().iter().any(|(place, _)| matches!(place, TablePlace::Lake(_)))
}

/// The meter with the lake's tables as of `snapshot`.
///
/// # Errors
/// A table that the lake does not have, or that is no table for the meter.
pub async fn with_tables(lake: &Lake, snapshot: &Arc<Snapshot>, meter: &Meter) -> Result<Meter> {
    let mut meter = meter.clone();
    let (name_of_meter, zone) = (meter.name.clone(), meter.zone());
    let unfit = |found| Error::invalid(format!("meter `{name_of_meter}`: {found}"));
    let fetch = async |reader: String, table: &str| {
        let Some((number, text)) = lake.events.lookup(snapshot, table).await? else {
            return Err(Error::not_found(format!(
                "meter `{name_of_meter}`: {reader} reads table `{table}`, which the lake does not have \
                 at version {}: `meterhouse lookups put {table} FILE` puts it there",
                snapshot.version
            )));
        };
        let text = String::from_utf8(text.into()).map_err(|error| {
            Error::corrupt(format!("table {table}, version {number}, is no text: {error}"))
        })?;
        Ok((number, text, format!("table {table}, version {number}")))
    };
    for (name, lookup) in &mut meter.lookups {
        let TablePlace::Lake(table) = lookup.table.clone() else { continue };
        let (number, text, place) = fetch(format!("lookup `{name}`"), &table).await?;
        lookup.number = Some(number);
        lookup.read(&text, &place, &zone).map_err(unfit)?;
    }
    if let Some(Billing::PerCustomer(billing)) = &mut meter.billing
        && let TablePlace::Lake(table) = billing.table.clone()
    {
        let (number, text, place) = fetch("`billing`".to_owned(), &table).await?;
        billing.number = Some(number);
        billing.rows = Arc::new(read_billing_rows(&text, &place, billing).map_err(unfit)?);
    }
    Ok(meter)
}
