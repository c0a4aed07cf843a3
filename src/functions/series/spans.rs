//! The windows of a question with its bounds, as a literal of a plan.

use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::physical_expr::expressions::Literal;

use super::by_calendar::ByCalendar;
use crate::time::WindowStarts;

/// The instants of a question, cut into windows; without windows they are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spans {
    /// First instant, microseconds UTC; `i64::MIN` for the beginning.
    pub from: i64,
    /// End, exclusive; `i64::MAX` for the end.
    pub to: i64,
    /// The windows, if the question has any.
    pub windows: Option<WindowStarts>,
}

impl Spans {
    /// The text that [`Self::from_literal`] reads back.
    pub fn to_literal(&self) -> String {
        let windows = self.windows.as_ref().map_or(String::new(), WindowStarts::to_literal);
        format!("{}..{}|{windows}", self.from, self.to)
    }

    /// The spans of a text that [`Self::to_literal`] wrote.
    ///
    /// # Errors
    /// Any other text.
    pub fn from_literal(text: &str) -> Result<Self> {
        let read = || {
            let (range, windows) = text.split_once('|')?;
            let (from, to) = range.split_once("..")?;
            let windows = match windows {
                "" => None,
                windows => Some(WindowStarts::from_literal(windows).ok()?),
            };
            Some(Self { from: from.parse().ok()?, to: to.parse().ok()?, windows })
        };
        match read() {
            Some(spans) => Ok(spans),
            None => exec_err!("`{text}` does not describe a range with windows"),
        }
    }

    /// The window that holds an instant of the range, by its start before the range cuts it.
    pub fn holding(&self, instant: i64) -> Option<i64> {
        let within = instant >= self.from && instant < self.to;
        within.then(|| self.window_of(instant))
    }

    /// The bounds of the window with this start, cut by the range.
    pub fn bounds(&self, start: i64) -> (i64, i64) {
        let end = self.windows.as_ref().map_or(self.to, |windows| windows.end_of(start));
        (start.max(self.from), end.min(self.to))
    }

    /// The windows in order, from the one that holds `first` or the first of the range.
    pub fn windows_from(&self, first: i64) -> impl Iterator<Item = i64> {
        let first = first.max(self.from);
        let start = (first < self.to).then(|| self.window_of(first));
        std::iter::successors(start, |start| {
            let end = self.windows.as_ref()?.end_of(*start);
            (end < self.to && end > *start).then_some(end)
        })
    }

    fn window_of(&self, instant: i64) -> i64 {
        self.windows.as_ref().map_or(self.from, |windows| windows.start_of(instant))
    }
}

/// The text of spans in a plan.
pub fn spans_literal(spans: &ByCalendar<Spans>) -> String {
    spans.to_literal(Spans::to_literal)
}

/// The spans of a text that [`spans_literal`] wrote.
///
/// # Errors
/// Any other text.
pub(super) fn read_spans(text: &str) -> Result<ByCalendar<Spans>> {
    ByCalendar::from_literal(text, Spans::from_literal)
}

/// The text of windows of a meter's own in a plan; empty for none.
pub fn parts_literal(parts: Option<&ByCalendar<WindowStarts>>) -> String {
    parts.map_or(String::new(), |parts| parts.to_literal(WindowStarts::to_literal))
}

/// The windows of a text that [`parts_literal`] wrote, if there are any.
///
/// # Errors
/// Any other text.
pub(super) fn read_parts(text: &str) -> Result<Option<ByCalendar<WindowStarts>>> {
    if text.is_empty() {
        return Ok(None);
    }
    match ByCalendar::from_literal(text, WindowStarts::from_literal) {
        Ok(parts) => Ok(Some(parts)),
        Err(error) => exec_err!("{error}"),
    }
}

/// A text as an argument of an aggregate. The engine makes a column of it, as long as a batch, in which
/// it stands once: windows of many calendars take hundreds of kilobytes.
pub fn shared_text(text: String) -> ScalarValue {
    ScalarValue::Dictionary(Box::new(DataType::Int32), Box::new(ScalarValue::Utf8(Some(text))))
}

/// The type of [`shared_text`].
pub(super) fn shared_text_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// The text of the [`shared_text`] at `place` of an aggregate's arguments.
pub(super) fn literal_argument(args: &AccumulatorArgs<'_>, place: usize) -> Result<String> {
    let literal = args.exprs.get(place).and_then(|expr| expr.downcast_ref::<Literal>());
    match literal.map(Literal::value) {
        Some(ScalarValue::Dictionary(_, text)) => match text.as_ref() {
            ScalarValue::Utf8(Some(text)) => Ok(text.clone()),
            other => exec_err!("argument {place} is no text in the plan: {other:?}"),
        },
        other => exec_err!("argument {place} is no text in the plan: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_the_range_and_are_cut_by_it() {
        let windows = Some(WindowStarts::Boundaries(vec![0, 10, 20, 30]));
        let spans = Spans { from: 5, to: 25, windows };
        assert_eq!(Spans::from_literal(&spans.to_literal()).unwrap(), spans);
        assert_eq!(spans.windows_from(i64::MIN).collect::<Vec<_>>(), [0, 10, 20]);
        assert_eq!(spans.windows_from(12).collect::<Vec<_>>(), [10, 20]);
        assert_eq!(spans.windows_from(25).count(), 0);
        assert_eq!([0, 10, 20].map(|start| spans.bounds(start)), [(5, 10), (10, 20), (20, 25)]);
        assert_eq!([4, 5, 24, 25].map(|at| spans.holding(at)), [None, Some(0), Some(20), None]);
        let whole = Spans { from: i64::MIN, to: 7, windows: None };
        assert_eq!(Spans::from_literal(&whole.to_literal()).unwrap(), whole);
        assert_eq!(whole.windows_from(3).collect::<Vec<_>>(), [i64::MIN]);
        assert!(Spans::from_literal("boundaries:0").is_err());
        let both = ByCalendar { otherwise: whole, of_calendars: vec![spans.clone(), spans] };
        assert_eq!(read_spans(&spans_literal(&both)).unwrap(), both);
        let days = ByCalendar {
            otherwise: WindowStarts::Boundaries(vec![0, 10]),
            of_calendars: vec![WindowStarts::Grid { step: 60, segments: vec![(0, 7), (9, -3)] }],
        };
        assert_eq!(read_parts(&parts_literal(Some(&days))).unwrap(), Some(days));
        assert_eq!(read_parts(&parts_literal(None)).unwrap(), None);
        assert!(read_parts("x").is_err());
    }
}
