//! What a meter needs of a question beside its windows: bounds where events before them matter, the
//! windows of inner results, the days that are counted, and where a reported quantity begins anew.

use jiff::tz::TimeZone;

use crate::error::{Error, Result};
use crate::functions::series::spans::Spans;
use crate::meter::{Aggregation, Meter, Placing};
use crate::time::{TimeRange, Timestamp, Window, WindowStarts, window_starts};

/// Most windows of a question whose groups may have a value in every one of them: as many values
/// may be held at once for each of some thousand groups.
const WINDOWS_MAX: usize = 3_000;

/// The spans and own windows of `meter` for a question over `range`, whose windows cover `reach`.
///
/// # Errors
/// A question whose answer would depend on an end that nobody named, and windows that the meter's
/// own windows do not fit into.
pub(super) fn of(
    meter: &Meter,
    range: TimeRange,
    reach: (Timestamp, Timestamp),
    windows: Option<&WindowStarts>,
    zone: &TimeZone,
) -> Result<(Option<Spans>, Option<WindowStarts>)> {
    let about = |what: &str| Error::invalid(format!("meter `{}` {what}", meter.name));
    let bounded = range.from.is_some() && range.to.is_some();
    if meter.period.is_some() && windows.is_some() && !bounded {
        return Err(about(
            "places events by their periods: windows need a range with both ends, such as \
             --period 2026-10",
        ));
    }
    let prorates = meter.period.as_ref().is_some_and(|period| period.place == Placing::Prorate);
    let carries = meter.aggregation.carries();
    let spans = (carries || prorates).then(|| spans(range, reach, windows));
    if let (Some(spans), Some(_)) = (&spans, windows)
        && spans.windows_from(i64::MIN).nth(WINDOWS_MAX).is_some()
    {
        return Err(about(&format!(
            "has a value in every window once something is known, and more than {WINDOWS_MAX} \
             windows are asked for: take longer windows or a shorter range"
        )));
    }
    let whole = spans.as_ref().map_or(reach, |spans| whole(spans, reach));
    let parts = match &meter.aggregation {
        Aggregation::TimeWeighted(_) if !bounded && windows.is_none() => {
            return Err(about(
                "is a mean over time, and all of history has no length: say --period 2026-10, or \
                 --window",
            ));
        }
        Aggregation::Active(activity) if activity.by_days => {
            if !bounded && windows.is_none() {
                return Err(about(
                    "counts shares of days, and all of history has no number of days: say \
                     --period 2026-10, or --window",
                ));
            }
            let days = window_starts(Window::DAY, zone, whole.0, whole.1)?;
            if windows.is_some_and(|windows| !fit(&days, windows, reach)) {
                return Err(about(&format!(
                    "counts days of {}, which do not fit into the windows: ask for windows of whole \
                     days in that zone",
                    zone.iana_name().unwrap_or("its zone")
                )));
            }
            Some(days)
        }
        Aggregation::Reported(report) => match report.reset {
            Some(_) if range.to.is_none() && windows.is_none() => {
                return Err(about(
                    "begins at nothing again and again, so that its value depends on the end: say \
                     --to, --period or --window",
                ));
            }
            Some(reset) => Some(window_starts(reset, zone, whole.0, whole.1)?),
            None => None,
        },
        Aggregation::Nested(nested) => match nested.window {
            Some(window) => {
                let inner = window_starts(window, zone, reach.0, reach.1)?;
                if windows.is_some_and(|windows| !fit(&inner, windows, reach)) {
                    return Err(about(&format!(
                        "takes results per {window}, which do not fit into windows of that \
                         length: ask for windows of whole {window}s"
                    )));
                }
                Some(inner)
            }
            None => None,
        },
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
    Ok((spans, parts))
}

/// The range with its windows; an end that is not named is that of the outermost window.
fn spans(
    range: TimeRange,
    (first, last): (Timestamp, Timestamp),
    windows: Option<&WindowStarts>,
) -> Spans {
    let start = windows.map_or(i64::MIN, |windows| windows.start_of(first.micros()));
    let end = windows.map_or(i64::MAX, |windows| {
        windows.end_of(windows.start_of(last.micros().saturating_sub(1)))
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
