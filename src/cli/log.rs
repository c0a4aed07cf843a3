//! `meterhouse log`: what each version of the events brought, newest first.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, StringArray, UInt64Array};
use arrow::record_batch::RecordBatch;

use super::flags::{Global, LogFlags};
use super::opening::open_lake;
use super::outcome::{Failure, Outcome};
use super::output::{check_format, write_rows};
use crate::correct::{CORRECTION, EVENTS, REASON};
use crate::error::{Error, Result};
use crate::lake::history::{BY, Version};
use crate::lake::pins::Pin;
use crate::schema::batches;

/// Runs the command.
pub(super) async fn run(global: &Global, flags: &LogFlags) -> Result<Outcome, Failure> {
    check_format(flags.output.output)?;
    let lake = open_lake(global).await?;
    let versions = lake.events.history(flags.limit).await?;
    let pins = lake.events.pins().await?;
    let gone = match (versions.last(), versions.first()) {
        (Some(first), Some(last)) => lake.events.files_gone(first.version..=last.version).await?,
        (None, _) | (_, None) => BTreeMap::new(),
    };
    write_rows(flags.output.output, &table(&versions, &pins, &gone)?)?;
    Ok(Outcome::Done)
}

fn table(
    versions: &[Version],
    pins: &BTreeMap<u64, Pin>,
    gone: &BTreeMap<u64, u64>,
) -> Result<RecordBatch> {
    let numbers = |part: fn(&Version) -> u64| -> ArrayRef {
        Arc::new(versions.iter().map(|version| Some(part(version))).collect::<UInt64Array>())
    };
    let texts = |part: fn(&Version) -> Option<String>| -> ArrayRef {
        Arc::new(versions.iter().map(part).collect::<StringArray>())
    };
    let info = |name: &'static str| -> ArrayRef {
        Arc::new(versions.iter().map(|v| v.info.get(name)).collect::<StringArray>())
    };
    let pinned = versions.iter().map(|version| Some(pins.contains_key(&version.version)));
    let pinned: BooleanArray = pinned.collect();
    let gone: UInt64Array = versions.iter().map(|v| gone.get(&v.version).copied()).collect();
    RecordBatch::try_from_iter_with_nullable([
        ("version", numbers(|v| v.version), false),
        ("committed_at", texts(|v| v.committed_at.map(|at| at.to_string())), true),
        ("operation", texts(|v| Some(v.operation.to_lowercase())), false),
        ("files_added", numbers(|v| v.files_added), false),
        ("files_removed", numbers(|v| v.files_removed), false),
        ("rows_added", numbers(|v| v.rows_added), false),
        ("bytes_added", numbers(|v| v.bytes_added), false),
        ("pinned", Arc::new(pinned) as ArrayRef, false),
        ("files_gone", Arc::new(gone) as ArrayRef, true),
        (BY, info(BY), true),
        (batches::SOURCE, info(batches::SOURCE), true),
        (CORRECTION, info(CORRECTION), true),
        (EVENTS, info(EVENTS), true),
        (REASON, info(REASON), true),
    ])
    .map_err(|error| Error::internal("rows of the log").with_source(error))
}
