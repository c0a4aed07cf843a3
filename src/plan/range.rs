//! The rows of a time range, reading as few timestamps as can be.
//!
//! A day that lies wholly inside the range is chosen by its partition alone; only the rows of a day
//! that a bound cuts are compared one by one, in a scan of their own where both kinds occur.

use std::sync::Arc;

use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableSource, ident, in_list};

use super::operand::{date, instant};
use crate::error::{Error, Result};
use crate::schema::{EVENT_DATE, TIMESTAMP};
use crate::time::{TimeRange, Timestamp};

/// Microseconds of a day of UTC.
const DAY_MICROS: i64 = 86_400_000_000;

/// The conditions of one scan of the events table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Branch(Option<Expr>);

/// The scans that together give the rows of `range`, each row once.
pub(super) fn branches(range: TimeRange, days: Option<(i32, i32)>) -> Vec<Branch> {
    let Some((first, last)) = days else { return vec![Branch(None)] };
    let from = range.from.filter(|from| from.micros() > day_start(first));
    let to = range.to.filter(|to| to.micros() < day_start(last.saturating_add(1)));
    let cut_from = from.filter(|from| from.micros().rem_euclid(DAY_MICROS) != 0);
    let cut_to = to.filter(|to| to.micros().rem_euclid(DAY_MICROS) != 0);
    // Whole days: [whole_from, whole_to).
    let whole_from = from.map(|from| from.date_days() + i32::from(cut_from.is_some()));
    let whole_to = to.map(Timestamp::date_days);
    let mut edges: Vec<i32> =
        [cut_from, cut_to].into_iter().flatten().map(Timestamp::date_days).collect();
    edges.dedup();

    let mut branches = Vec::new();
    let lower = whole_from.unwrap_or(first).max(first);
    let upper = whole_to.unwrap_or(last.saturating_add(1)).min(last.saturating_add(1));
    if lower < upper {
        let from = whole_from.map(|day| ident(EVENT_DATE).gt_eq(date(day)));
        let to = whole_to.map(|day| ident(EVENT_DATE).lt(date(day)));
        branches.push(Branch(conjunction([from, to].into_iter().flatten())));
    }
    if !edges.is_empty() {
        let days = in_list(ident(EVENT_DATE), edges.into_iter().map(date).collect(), false);
        let from = from.map(|from| ident(TIMESTAMP).gt_eq(instant(from.micros())));
        let to = to.map(|to| ident(TIMESTAMP).lt(instant(to.micros())));
        branches.push(Branch(conjunction([Some(days), from, to].into_iter().flatten())));
    }
    if branches.is_empty() {
        branches.push(Branch(Some(datafusion::logical_expr::lit(false))));
    }
    branches
}

fn day_start(day: i32) -> i64 {
    i64::from(day) * DAY_MICROS
}

/// The scans of `range`, put together.
///
/// # Errors
/// A defect of ours: a plan that does not build.
pub(super) fn scan(
    events: &Arc<dyn TableSource>,
    range: TimeRange,
    days: Option<(i32, i32)>,
    condition: Option<&Expr>,
) -> Result<LogicalPlanBuilder> {
    let defect = |error| Error::internal("plan a scan").with_source(error);
    let mut whole: Option<LogicalPlanBuilder> = None;
    for Branch(in_range) in branches(range, days) {
        let mut builder =
            LogicalPlanBuilder::scan("events", Arc::clone(events), None).map_err(defect)?;
        if let Some(all) = conjunction(in_range.into_iter().chain(condition.cloned())) {
            builder = builder.filter(all).map_err(defect)?;
        }
        whole = Some(match whole {
            None => builder,
            Some(others) => others.union(builder.build().map_err(defect)?).map_err(defect)?,
        });
    }
    whole.ok_or_else(|| Error::internal("a range without a scan"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_compared_only_on_days_that_a_bound_cuts() {
        let at = |text: &str| Some(Timestamp::parse_rfc3339(text).unwrap());
        let days = Some((20_604, 20_633)); // 2026-05-31 to 2026-06-29
        for (name, from, to, want) in [
            ("all of history", None, None, vec![None]),
            (
                "whole days",
                at("2026-06-02T00:00:00Z"),
                at("2026-06-04T00:00:00Z"),
                vec![Some(
                    "event_date >= Date32(\"2026-06-02\") AND event_date < Date32(\"2026-06-04\")",
                )],
            ),
            (
                "bounds beyond the data ask nothing",
                at("2020-01-01T00:30:00Z"),
                at("2027-01-01T00:30:00Z"),
                vec![None],
            ),
            (
                "a cut day and whole days",
                at("2026-06-28T12:00:00Z"),
                None,
                vec![
                    Some("event_date >= Date32(\"2026-06-29\")"),
                    Some(
                        "event_date IN ([Date32(\"2026-06-28\")]) AND timestamp >= TimestampMicrosecond(1782648000000000, Some(\"UTC\"))",
                    ),
                ],
            ),
            (
                "two cut days next to each other",
                at("2026-06-02T18:00:00Z"),
                at("2026-06-03T18:00:00Z"),
                vec![Some(
                    "event_date IN ([Date32(\"2026-06-02\"), Date32(\"2026-06-03\")]) AND timestamp >= TimestampMicrosecond(1780423200000000, Some(\"UTC\")) AND timestamp < TimestampMicrosecond(1780509600000000, Some(\"UTC\"))",
                )],
            ),
            ("before the data", None, at("2020-01-01T00:00:00Z"), vec![Some("Boolean(false)")]),
        ] {
            let got: Vec<Option<String>> = branches(TimeRange { from, to }, days)
                .into_iter()
                .map(|Branch(e)| e.map(|e| e.to_string()))
                .collect();
            let want: Vec<Option<String>> =
                want.into_iter().map(|w| w.map(ToOwned::to_owned)).collect();
            assert_eq!(got, want, "{name}");
        }
    }
}
