//! Several calendars of windows side by side, and who goes by which of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::starts::WindowStarts;
use crate::error::{Error, Result};

/// Windows that differ from customer to customer.
///
/// Customers of one billing cycle share a calendar, so that there are few of them however many
/// customers there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Calendars {
    /// The windows of each calendar.
    pub starts: Vec<WindowStarts>,
    /// The place of each customer's calendar in `starts`.
    pub of_customer: Arc<BTreeMap<String, usize>>,
    /// The calendar of everyone else, events without a customer included; without it they have no
    /// windows.
    pub otherwise: Option<usize>,
}

/// Between the literals of calendars, none of which has it.
const SEPARATOR: char = '|';

impl Calendars {
    /// The place of the calendar that a customer goes by.
    pub fn calendar_of(&self, customer: Option<&str>) -> Option<usize> {
        customer.and_then(|customer| self.of_customer.get(customer).copied()).or(self.otherwise)
    }

    /// The windows of all calendars as one text, which [`Self::starts_from_literal`] reads back.
    pub fn starts_to_literal(&self) -> String {
        let literals: Vec<String> = self.starts.iter().map(WindowStarts::to_literal).collect();
        literals.join(&SEPARATOR.to_string())
    }

    /// The windows of the calendars of a text that [`Self::starts_to_literal`] wrote.
    ///
    /// # Errors
    /// Invalid for any other text.
    pub fn starts_from_literal(text: &str) -> Result<Vec<WindowStarts>> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let starts = text.split(SEPARATOR).map(WindowStarts::from_literal);
        starts.collect::<Result<_>>().map_err(|error| Error::invalid(format!("calendars: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customer_has_its_own_calendar_or_that_of_everyone_else() {
        let of_customer = Arc::new(BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 0)]));
        let calendars = Calendars { of_customer, ..Calendars::default() };
        let otherwise = Calendars { otherwise: Some(2), ..calendars.clone() };
        for (customer, without, with) in [
            (Some("a"), Some(1), Some(1)),
            (Some("b"), Some(0), Some(0)),
            (Some("c"), None, Some(2)),
            (Some(""), None, Some(2)),
            (None, None, Some(2)),
        ] {
            assert_eq!(calendars.calendar_of(customer), without, "{customer:?}");
            assert_eq!(otherwise.calendar_of(customer), with, "{customer:?}");
        }
    }

    #[test]
    fn literals_of_calendars_read_back() {
        let one = WindowStarts::Boundaries(vec![-5, 10, 20, 31]);
        let other = WindowStarts::Grid { step: 60, segments: vec![(0, 7), (9, -3)] };
        for starts in [vec![], vec![one.clone()], vec![one, other]] {
            let calendars = Calendars { starts, ..Calendars::default() };
            let literal = calendars.starts_to_literal();
            assert_eq!(Calendars::starts_from_literal(&literal).unwrap(), calendars.starts);
        }
        for text in ["|", "boundaries:1,+2|", "boundaries:1,+2|x"] {
            assert!(Calendars::starts_from_literal(text).is_err(), "{text}");
        }
    }
}
