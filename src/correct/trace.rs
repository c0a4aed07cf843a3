//! Everything that the table holds of one identity: the event as it was received, what took its place,
//! and the corrections that did so.

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;

use super::select::{Identity, columns_of, scan, texts};
use crate::error::{Error, Result};
use crate::plan::RowQuery;
use crate::schema::{
    CUSTOMER_ID, ENDED_BY, EVENT_NAME, IDEMPOTENCY_KEY, INGESTED_AT, KIND, MADE_BY, SOURCE,
    TIMESTAMP,
};
use crate::time::Timestamp;
use crate::usage::Context;

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    /// Name of the event.
    pub event_name: String,
    /// Whose usage it is.
    pub customer_id: Option<String>,
    /// When it happened.
    pub timestamp: Timestamp,
    /// When the event was first received.
    pub ingested_at: Timestamp,
    /// `event` where the row counts, `voided` or `replaced` where it does not.
    pub kind: String,
    /// The correction that made it; `None` for what was received.
    pub made_by: Option<String>,
    /// The correction because of which it does not count.
    pub ended_by: Option<String>,
}

/// All rows of `identity` at version `at` of the events, the newest if none: what was received first, then
/// what corrections made.
///
/// # Errors
/// A version that is not there, files that cannot be read.
pub async fn stored_rows(
    context: &Context,
    identity: &Identity,
    at: Option<u64>,
) -> Result<Vec<StoredRow>> {
    const COLUMNS: [&str; 9] = [
        EVENT_NAME,
        IDEMPOTENCY_KEY,
        CUSTOMER_ID,
        SOURCE,
        TIMESTAMP,
        INGESTED_AT,
        KIND,
        MADE_BY,
        ENDED_BY,
    ];
    let snapshot = context.lake.events.snapshot(at).await?;
    let query = RowQuery {
        keys: Some(vec![identity.key.clone()]),
        columns: columns_of(&snapshot, &COLUMNS),
        ..RowQuery::default()
    };
    let mut found = Vec::new();
    scan(context, &snapshot, query, |rows| {
        let text = |name: &str, row: usize| -> Result<Option<String>> {
            if rows.column_by_name(name).is_none() {
                return Ok(None);
            }
            let column = texts(&rows, name)?;
            Ok(column.is_valid(row).then(|| column.value(row).to_owned()))
        };
        let instant = |name: &str, row: usize| -> Result<Timestamp> {
            let column = rows.column_by_name(name);
            let column = column.and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
            let column = column.ok_or_else(|| Error::internal(format!("no instants `{name}`")))?;
            Ok(Timestamp::from_micros(column.value(row)))
        };
        for row in 0..rows.num_rows() {
            if text(SOURCE, row)?.unwrap_or_default() != identity.source {
                continue;
            }
            found.push(StoredRow {
                event_name: text(EVENT_NAME, row)?.unwrap_or_default(),
                customer_id: text(CUSTOMER_ID, row)?,
                timestamp: instant(TIMESTAMP, row)?,
                ingested_at: instant(INGESTED_AT, row)?,
                kind: text(KIND, row)?.unwrap_or_default(),
                made_by: text(MADE_BY, row)?,
                ended_by: text(ENDED_BY, row)?,
            });
        }
        Ok(())
    })
    .await?;
    found.sort_by_key(|row| (row.made_by.is_some(), row.ingested_at, row.ended_by.is_none()));
    Ok(found)
}
