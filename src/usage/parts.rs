//! What a meter needs of a question beside its windows: bounds where events before them matter, the
//! windows of inner results, the days that are counted, and where a reported quantity begins anew.
//!
//! Days, inner windows and resets are those of the zone that the windows are of: of a billing period,
//! its own; without windows, the question's.

use jiff::tz::TimeZone;

use super::windows::{Asked, ResolvedWindows};
use crate::error::{Error, Result};
use crate::functions::series::by_calendar::ByCalendar;
use crate::functions::series::spans::Spans;
use crate::meter::{Aggregation, Meter, Nested, Placing};
use crate::plan::Windows;
use crate::time::{TimeRange, Timestamp, Window, WindowStarts, window_starts};

/// The spans and own windows of a meter, by the calendars of the question's windows.
type Parts = (Option<ByCalendar<Spans>>, Option<ByCalendar<WindowStarts>>);

/// The windows of one calendar.
struct Calendar<'a> {
    windows: Option<&'a WindowStarts>,
    zone: &'a TimeZone,
}

/// The spans and own windows of the meter that is asked, whose windows those are.
///
/// # Errors
/// A question whose answer would depend on an end that nobody named, and windows that the meter's
/// own windows do not fit into.
pub(super) fn of(asked: &Asked<'_>, windows: Option<&ResolvedWindows>) -> Result<Parts> {
    check_length(asked, windows)?;
    let meter = asked.meter;
    let calendars = calendars(asked, windows);
    let prorates = meter.period.as_ref().is_some_and(|period| period.place == Placing::Prorate);
    let needs_spans = meter.aggregation.carries() || prorates;
    let spans = |calendar: &Calendar<'_>| spans(asked.range, asked.covered, calendar.windows);
    let own = |window: Window| {
        calendars.try_map(|calendar| {
            let (from, to) = whole(&spans(calendar), asked.covered);
            window_starts(window, calendar.zone, from, to)
        })
    };
    let parts = match &meter.aggregation {
        Aggregation::Active(activity) if activity.by_days => Some(own(Window::DAY)?),
        Aggregation::Reported(report) => report.reset.map(own).transpose()?,
        Aggregation::Nested(nested) => inner_windows(asked, nested, &calendars)?,
        Aggregation::TimeWeighted(_)
        | Aggregation::Active(_)
        | Aggregation::Count
        | Aggregation::CountUnique(_)
        | Aggregation::Sum(_)
        | Aggregation::Min(_)
        | Aggregation::Max(_)
        | Aggregation::Average(_)
        | Aggregation::Latest(_)
        | Aggregation::Earliest(_)
        | Aggregation::Percentile(..) => None,
    };
    let spans = needs_spans.then(|| calendars.map(spans));
    Ok((spans, parts))
}

fn about(meter: &Meter, what: &str) -> Error {
    Error::invalid(format!("meter `{}` {what}", meter.name))
}

/// Refuses what has no value without an end that nobody named.
fn check_length(asked: &Asked<'_>, windows: Option<&ResolvedWindows>) -> Result<()> {
    let meter = asked.meter;
    if asked.range.from.is_some() && asked.range.to.is_some() {
        return Ok(());
    }
    if meter.period.is_some() && windows.is_some() {
        return Err(about(
            meter,
            "places events by their periods: windows need a range with both ends, such as \
             --period 2026-10",
        ));
    }
    let needs = match &meter.aggregation {
        Aggregation::TimeWeighted(_) => {
            "is a mean over time, and all of history has no length: say --period 2026-10"
        }
        Aggregation::Active(activity) if activity.by_days => {
            "counts shares of days, and all of history has no number of days: say --period 2026-10"
        }
        Aggregation::Active(_)
        | Aggregation::Reported(_)
        | Aggregation::Nested(_)
        | Aggregation::Count
        | Aggregation::CountUnique(_)
        | Aggregation::Sum(_)
        | Aggregation::Min(_)
        | Aggregation::Max(_)
        | Aggregation::Average(_)
        | Aggregation::Latest(_)
        | Aggregation::Earliest(_)
        | Aggregation::Percentile(..) => return Ok(()),
    };
    match windows.map(|resolved| &resolved.windows) {
        None => Err(about(meter, &format!("{needs}, or --window"))),
        Some(Windows::PerCustomer(calendars)) if calendars.otherwise.is_none() => Err(about(
            meter,
            &format!(
                "{needs}, as customers that its `billing` does not have are of no window, or give \
                 its `billing` an `otherwise`"
            ),
        )),
        Some(Windows::Shared(_) | Windows::PerCustomer(_)) => Ok(()),
    }
}

fn calendars<'a>(
    asked: &'a Asked<'_>,
    resolved: Option<&'a ResolvedWindows>,
) -> ByCalendar<Calendar<'a>> {
    let without = Calendar { windows: None, zone: asked.zone };
    let Some(resolved) = resolved else { return ByCalendar::shared(without) };
    match &resolved.windows {
        Windows::Shared(starts) => ByCalendar::shared(Calendar {
            windows: Some(starts),
            zone: resolved.zones.first().unwrap_or(asked.zone),
        }),
        Windows::PerCustomer(calendars) => {
            let own = calendars.starts.iter().zip(&resolved.zones);
            let own = own.map(|(starts, zone)| Calendar { windows: Some(starts), zone });
            ByCalendar { otherwise: without, of_calendars: own.collect() }
        }
    }
}

fn inner_windows(
    asked: &Asked<'_>,
    nested: &Nested,
    calendars: &ByCalendar<Calendar<'_>>,
) -> Result<Option<ByCalendar<WindowStarts>>> {
    let Some(window) = nested.window else { return Ok(None) };
    let inner = |calendar: &Calendar<'_>| {
        let (from, to) = asked.covered;
        let inner = window_starts(window, calendar.zone, from, to)?;
        if calendar.windows.is_some_and(|windows| !fit(&inner, windows, asked.covered)) {
            return Err(about(
                asked.meter,
                &format!(
                    "takes results per {window}, which do not fit into the windows asked for: ask \
                     for windows of whole {window}s"
                ),
            ));
        }
        Ok(inner)
    };
    calendars.try_map(inner).map(Some)
}

/// The range with its windows; an end that is not named is that of the outermost window, and where
/// there is none, as the range begins after all events, nothing is in it.
fn spans(
    range: TimeRange,
    (first, last): (Timestamp, Timestamp),
    windows: Option<&WindowStarts>,
) -> Spans {
    let start = windows.map_or(i64::MIN, |windows| windows.start_of(first.micros()));
    let end = windows.map_or(i64::MAX, |windows| match first < last {
        true => windows.end_of(windows.start_of(last.micros().saturating_sub(1))),
        false => i64::MIN,
    });
    Spans {
        from: range.from.map_or(start, Timestamp::micros),
        to: range.to.map_or(end, Timestamp::micros),
        windows: windows.cloned(),
    }
}

/// From the start of the first window to the end of the last one, uncut.
fn whole(spans: &Spans, reach: (Timestamp, Timestamp)) -> (Timestamp, Timestamp) {
    let Some(windows) = &spans.windows else { return reach };
    let first = windows.start_of(reach.0.micros());
    let last = windows.start_of(reach.1.micros().saturating_sub(1));
    (Timestamp::from_micros(first), Timestamp::from_micros(windows.end_of(last)))
}

/// Whether every window of the question begins where one of the inner ones does.
fn fit(
    inner: &WindowStarts,
    windows: &WindowStarts,
    (first, last): (Timestamp, Timestamp),
) -> bool {
    let mut start = windows.start_of(first.micros());
    // Where the range cuts a window, so it does an inner one.
    let mut start_of_next = windows.end_of(start);
    while start_of_next < last.micros() && start_of_next > start {
        if inner.start_of(start_of_next) != start_of_next {
            return false;
        }
        (start, start_of_next) = (start_of_next, windows.end_of(start_of_next));
    }
    true
}
