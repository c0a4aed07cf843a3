//! What a meter needs of a question beside its windows: bounds where events before them matter, the
//! windows of inner results, the days that are counted, and where a reported quantity begins anew.
//!
//! Days, inner windows and resets are those of the meter's own zone, whatever zone a question is shown
//! in, and of a billing period, that of the period; a reset with each billing period goes by the
//! meter's own, whatever the windows.

use jiff::tz::TimeZone;

use super::windows::{Asked, ResolvedWindows, billing_resets, one_billing};
use crate::error::{Error, Result};
use crate::functions::series::by_calendar::ByCalendar;
use crate::functions::series::spans::Spans;
use crate::meter::{Aggregation, Meter, Nested, Placing, Report};
use crate::plan::{Resets, Windows};
use crate::time::{
    BILLING_PERIOD, TimeRange, Timestamp, Window, WindowStarts, Windowing, parse_zone,
    window_starts,
};

/// What a meter needs of a question, by the calendars of the question's windows.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) spans: Option<ByCalendar<Spans>>,
    /// The windows of inner results, or the days that are counted.
    pub(super) own: Option<ByCalendar<WindowStarts>>,
    pub(super) resets: Option<Resets>,
}

/// The windows of one calendar.
struct Calendar<'a> {
    windows: Option<&'a WindowStarts>,
    zone: TimeZone,
    /// Whether the windows are billing periods, which begin when they begin.
    bills: bool,
}

/// Most windows of a question whose groups may have a value in every one of them: as many values
/// may be held at once for each of some thousand groups.
const WINDOWS_MAX: usize = 3_000;

/// The spans and own windows of the meter that is asked, whose windows those are.
///
/// # Errors
/// A question whose answer would depend on an end that nobody named, and windows that the meter's
/// own windows do not fit into.
pub(super) fn of(asked: &Asked<'_>, windows: Option<&ResolvedWindows>) -> Result<Parts> {
    check_length(asked, windows)?;
    let meter = asked.meter;
    let calendars = calendars(asked, windows)?;
    let prorates = meter.period.as_ref().is_some_and(|period| period.place == Placing::Prorate);
    let needs_spans = meter.aggregation.carries() || prorates;
    let spans = |calendar: &Calendar<'_>| spans(asked.range, asked.covered, calendar.windows);
    let own = |window: Window| {
        calendars.try_map(|calendar| {
            let (from, to) = whole(&spans(calendar), asked.covered);
            window_starts(window, &calendar.zone, from, to)
        })
    };
    let parts = match &meter.aggregation {
        Aggregation::Active(activity) if activity.by_days => {
            Some(whole_days(asked, own(Window::DAY)?, &calendars)?)
        }
        Aggregation::Nested(nested) => inner_windows(asked, nested, &calendars)?,
        Aggregation::TimeWeighted(_)
        | Aggregation::Active(_)
        | Aggregation::Reported(_)
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
    let reset = match &meter.aggregation {
        Aggregation::Reported(report) => report.reset,
        _ => None,
    };
    let resets = match reset {
        None => None,
        Some(Windowing::Calendar(window)) => {
            let calendars = windows.map(|resolved| resolved.windows.clone());
            Some(Resets { windows: own(window)?, calendars })
        }
        Some(Windowing::BillingPeriod) => {
            let whole = |calendar| whole(&spans(calendar), asked.covered);
            let all = std::iter::once(&calendars.otherwise).chain(&calendars.of_calendars);
            let reach = all.map(whole).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
            Some(billing_resets(meter, reach.unwrap_or(asked.covered))?)
        }
    };
    if !needs_spans {
        return Ok(Parts { own: parts, ..Parts::default() });
    }
    let spans = calendars.try_map(|calendar| {
        let spans = spans(calendar);
        let too_many = spans.windows_from(i64::MIN).nth(WINDOWS_MAX).is_some();
        match calendar.windows.is_some() && too_many {
            true => Err(about(
                meter,
                &format!(
                    "has a value in every window once something is known, and more than \
                     {WINDOWS_MAX} windows are asked for: take longer windows or a shorter range"
                ),
            )),
            false => Ok(spans),
        }
    })?;
    Ok(Parts { spans: Some(spans), own: parts, resets })
}

/// The days, unless a window is asked for that is none of whole ones.
fn whole_days(
    asked: &Asked<'_>,
    days: ByCalendar<WindowStarts>,
    calendars: &ByCalendar<Calendar<'_>>,
) -> Result<ByCalendar<WindowStarts>> {
    let torn = |(days, calendar): (&WindowStarts, &Calendar<'_>)| {
        let windows = calendar.windows.filter(|_| !calendar.bills);
        windows.is_some_and(|windows| !fit_whole(days, windows, asked.covered))
    };
    if torn((&days.otherwise, &calendars.otherwise)) {
        let zone = asked.meter.zone();
        let zone = zone.iana_name().unwrap_or("its zone");
        return Err(about(
            asked.meter,
            &format!(
                "counts days of {zone}, which the windows asked for cut: ask for windows of whole days of \
                 {zone}"
            ),
        ));
    }
    Ok(days)
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
    let windows = windows.map(|resolved| &resolved.windows);
    // Customers that the table of billing periods does not have are of no window.
    let some_without = matches!(windows, Some(Windows::PerCustomer(of)) if of.otherwise.is_none());
    if let Aggregation::Reported(Report { reset: Some(reset), .. }) = &meter.aggregation
        && asked.range.to.is_none()
        && (windows.is_none() || some_without && matches!(reset, Windowing::Calendar(_)))
    {
        return Err(about(
            meter,
            "begins at nothing again and again, so that its value depends on the end: say --to or \
             --period, or ask for windows",
        ));
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
    match windows {
        None => Err(about(meter, &format!("{needs}, or ask for windows"))),
        Some(_) if some_without => Err(about(
            meter,
            &format!(
                "{needs}, as customers that its `billing` does not have are of no window, or give \
                 its `billing` an `otherwise`"
            ),
        )),
        Some(_) => Ok(()),
    }
}

fn calendars<'a>(
    asked: &'a Asked<'_>,
    resolved: Option<&'a ResolvedWindows>,
) -> Result<ByCalendar<Calendar<'a>>> {
    let without = Calendar { windows: None, zone: asked.meter.zone(), bills: false };
    let Some(resolved) = resolved else {
        // One billing period is the same with windows and without.
        let zone = match asked.request.billing_period()? {
            Some(_) => {
                parse_zone(one_billing(asked.request, asked.meter, asked.zone_name)?.zone())?
            }
            None => asked.meter.zone(),
        };
        return Ok(ByCalendar::shared(Calendar { zone, ..without }));
    };
    Ok(match &resolved.windows {
        Windows::Shared(starts) => {
            let bills = asked.request.window.as_deref() == Some(BILLING_PERIOD);
            let zone = resolved.zones.first().filter(|_| bills).cloned();
            let zone = zone.unwrap_or_else(|| asked.meter.zone());
            ByCalendar::shared(Calendar { windows: Some(starts), zone, bills })
        }
        Windows::PerCustomer(calendars) => {
            let own = calendars.starts.iter().zip(&resolved.zones);
            let own = own.map(|(starts, zone)| Calendar {
                windows: Some(starts),
                zone: zone.clone(),
                bills: true,
            });
            ByCalendar { otherwise: without, of_calendars: own.collect() }
        }
    })
}

fn inner_windows(
    asked: &Asked<'_>,
    nested: &Nested,
    calendars: &ByCalendar<Calendar<'_>>,
) -> Result<Option<ByCalendar<WindowStarts>>> {
    let Some(window) = nested.window else { return Ok(None) };
    let inner = |calendar: &Calendar<'_>| {
        let (from, to) = asked.covered;
        let inner = window_starts(window, &calendar.zone, from, to)?;
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

/// Whether every window of the question is made of whole inner ones, also where the range cuts it.
fn fit_whole(
    inner: &WindowStarts,
    windows: &WindowStarts,
    (first, last): (Timestamp, Timestamp),
) -> bool {
    let begin = windows.start_of(first.micros());
    let end = windows.end_of(windows.start_of(last.micros().saturating_sub(1)));
    inner.start_of(begin) == begin
        && inner.end_of(inner.start_of(end.saturating_sub(1))) == end
        && fit(inner, windows, (first, last))
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
