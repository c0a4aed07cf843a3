//! What was sent and not stored, as far as it can be told whose it was.
//!
//! Duplicates and rejected events are only counted by batch: whose they were is not kept. An event in
//! conflict is kept with its text, so that its name, customer and instant are known.

use arrow::array::{Array, AsArray};
use serde::Deserialize;

use crate::error::Result;
use crate::ingest::Counts;
use crate::ingest::{accounts, quarantine};
use crate::meter::counts_event;
use crate::schema::quarantine as columns;
use crate::time::Timestamp;
use crate::usage::Single;

/// What was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Batches up to the version that is asked.
    pub batches: u64,
    /// What became of all of their events, whatever these were about.
    pub counts: Counts,
    /// Events in conflict by now that the question is about by name, customer and instant; the
    /// meter's conditions are not asked of them.
    pub conflicts: u64,
    /// Whether the customer was asked of them: lookups are not.
    pub by_customer: bool,
}

/// An event in conflict.
#[derive(Deserialize)]
struct Conflicting {
    event_name: Option<String>,
    customer_id: Option<String>,
    timestamp: Option<String>,
}

pub(super) async fn refused(single: &Single) -> Result<Refused> {
    let lake = &single.context.lake;
    let version = single.table.snapshot().version;
    let by_customer = single.meter.customer.is_empty() && single.query().customer.is_some();
    let mut refused = Refused { batches: 0, counts: Counts::default(), conflicts: 0, by_customer };
    let accounts = accounts::list(lake).await?;
    for account in accounts.iter().filter(|account| account.version <= version) {
        refused.batches += 1;
        refused.counts += account.counts;
    }
    if refused.counts.conflict == 0 {
        return Ok(refused);
    }
    let mut conflicts = 0;
    quarantine::for_each(lake, None, &mut |rows| {
        let text = |name: &str| rows.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
        let (Some(outcomes), Some(events)) = (text(columns::OUTCOME), text(columns::EVENT)) else {
            return Ok(true);
        };
        for row in 0..rows.num_rows() {
            let conflict = outcomes.is_valid(row) && outcomes.value(row) == "conflict";
            if conflict && events.is_valid(row) && is_asked(single, events.value(row)) {
                conflicts += 1;
            }
        }
        Ok(true)
    })
    .await?;
    refused.conflicts = conflicts;
    Ok(refused)
}

/// Whether the question is about an event of this text.
fn is_asked(single: &Single, text: &str) -> bool {
    let Ok(event) = serde_json::from_str::<Conflicting>(text) else { return false };
    let query = single.query();
    let named = event.event_name.is_some_and(|name| counts_event(&single.meter, &name));
    let customer = match (&query.customer, single.meter.customer.is_empty()) {
        (Some(asked), true) => event.customer_id.as_ref() == Some(asked),
        (None, _) | (_, false) => true,
    };
    let at = event.timestamp.and_then(|text| Timestamp::parse_rfc3339(&text).ok());
    let within = |at: Timestamp| {
        query.range.from.is_none_or(|from| at >= from) && query.range.to.is_none_or(|to| at < to)
    };
    named && customer && (single.meter.period.is_some() || at.is_some_and(within))
}
