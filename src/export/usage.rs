//! The answer to a question as rows.

use super::format::{Format, Shape};
use super::record::{Basis, Computed};
use super::{Rows, stripe};
use crate::error::{Error, Result};
use crate::meter::version;
use crate::time::{TimeRange, Timestamp, Windowing};
use crate::usage::{
    Context, Grouping, Note, UsageRequest, answer_schema, usage_pinned, with_tables,
};

/// The version of the events that the answer is of, and what it is computed of; `None` where that is known
/// only with the answer.
///
/// # Errors
/// A version that is not there; a lookup table that the lake does not have.
pub(super) async fn basis(
    context: &Context,
    request: &UsageRequest,
) -> Result<(u64, Option<Vec<Basis>>)> {
    let snapshot = context.lake.events.snapshot(request.at).await?;
    let mut basis = Vec::with_capacity(request.meters.len());
    for name in &request.meters {
        // Which version of a published meter is in effect is found out with the answer.
        let Some(meter) = context.meters.iter().find(|meter| meter.name == *name) else {
            return Ok((snapshot.version, None));
        };
        let meter = with_tables(&context.lake, &snapshot, meter).await?;
        basis.push(Basis {
            meter: meter.name.clone(),
            meter_version: version(&meter),
            table_version: snapshot.version,
            lookups: meter.table_versions().into_iter().collect(),
            closing: None,
        });
    }
    Ok((snapshot.version, Some(basis)))
}

/// Gives the answer of version `pinned` of the events to `rows`.
///
/// # Errors
/// As [`crate::usage::usage`]; those of `rows`.
pub(super) async fn each(
    context: &Context,
    request: &UsageRequest,
    pinned: u64,
    rows: &mut Rows<'_>,
) -> Result<Vec<Computed>> {
    let of = match rows.export.format {
        Format::Stripe => one_meter(context, request)?,
        _ => stripe::Of::default(),
    };
    let windowing =
        request.window.as_ref().map(|window| window.parse::<Windowing>()).transpose()?;
    let days = windowing.is_some_and(Windowing::is_of_days);
    // An answer without rows has a header.
    let schema = answer_schema(context, request).await?;
    rows.begin(&schema, Shape { days })?;
    let mut take = |batch| rows.take(&batch, &of).map(|()| true);
    let notes = usage_pinned(context, request, Some(pinned), &mut take).await?;
    Ok(notes.into_iter().map(computed).collect())
}

/// The meter and the period of meter events.
fn one_meter(context: &Context, request: &UsageRequest) -> Result<stripe::Of> {
    let [name] = request.meters.as_slice() else {
        return Err(Error::invalid(
            "meter events are of one meter: export each to a file of its own",
        ));
    };
    if request.grouping != Grouping::Customer {
        return Err(Error::invalid(
            "meter events are of customers: leave out --by, --breakdown and --total",
        ));
    }
    // An event has no name for a part: Stripe would take two parts for one and drop the second.
    if request.conditions.is_some() || request.top.is_some() {
        return Err(Error::invalid(
            "meter events are of all that a customer used: leave out --where and --top, or ask a meter \
             with a filter",
        ));
    }
    let Some(meter) = context.meters.iter().find(|meter| meter.name == *name) else {
        return Err(Error::invalid(format!(
            "no file defines `{name}`: close its period, and export the statement as meter events"
        )));
    };
    let now = context.clock.now();
    let TimeRange { from, to } = request.bounds(meter, now)?;
    // Its identifier would keep out what is used until then.
    if let Some(to) = to.filter(|to| *to > now) {
        return Err(Error::invalid(format!(
            "the period ends at {to} only: a meter event of it would keep out what is used until then"
        )));
    }
    let text = |bound: Option<Timestamp>| bound.map(|bound| bound.to_string());
    Ok(stripe::Of { meter: meter.name.clone(), from: text(from), to: text(to) })
}

fn computed(note: Note) -> Computed {
    Computed {
        basis: Basis {
            meter: note.meter,
            meter_version: note.meter_version,
            table_version: note.table_version,
            lookups: note.lookups.into_iter().collect(),
            closing: None,
        },
        from: note.from,
        to: note.to,
        zone: note.zone,
        unit: note.unit,
        events: note.events,
        skipped: note.skipped,
        revision: None,
        statement_sha256: None,
    }
}
