//! What differs between the calendars of customers, as a literal of a plan.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::Int64Type;
use datafusion::common::Result;

/// Between the literals of calendars, none of which has it.
const SEPARATOR: char = '/';

/// Something of each calendar, and what holds for whoever goes by none of them; where the same holds
/// for all, there are no calendars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByCalendar<T> {
    /// What holds for whoever has no calendar.
    pub otherwise: T,
    /// By the numbers of the calendars.
    pub of_calendars: Vec<T>,
}

impl<T> ByCalendar<T> {
    /// The same for all.
    pub fn shared(otherwise: T) -> Self {
        Self { otherwise, of_calendars: Vec::new() }
    }

    /// What holds in the calendar of this number.
    pub fn of(&self, calendar: Option<i64>) -> &T {
        let place = calendar.and_then(|number| usize::try_from(number).ok());
        place.and_then(|place| self.of_calendars.get(place)).unwrap_or(&self.otherwise)
    }

    /// Something made of each.
    pub fn map<U>(&self, make: impl Fn(&T) -> U) -> ByCalendar<U> {
        let of_calendars = self.of_calendars.iter().map(&make).collect();
        ByCalendar { otherwise: make(&self.otherwise), of_calendars }
    }

    /// Something made of each.
    ///
    /// # Errors
    /// The first that cannot be made.
    pub fn try_map<U, E>(&self, make: impl Fn(&T) -> Result<U, E>) -> Result<ByCalendar<U>, E> {
        Ok(ByCalendar {
            otherwise: make(&self.otherwise)?,
            of_calendars: self.of_calendars.iter().map(&make).collect::<Result<_, E>>()?,
        })
    }

    /// The literals of all as one text, which [`Self::from_literal`] reads back.
    pub fn to_literal(&self, literal: impl Fn(&T) -> String) -> String {
        let all: Vec<String> =
            std::iter::once(&self.otherwise).chain(&self.of_calendars).map(literal).collect();
        all.join(&SEPARATOR.to_string())
    }

    /// What a text that [`Self::to_literal`] wrote tells.
    ///
    /// # Errors
    /// The first literal that cannot be read.
    pub fn from_literal<E>(text: &str, read: impl Fn(&str) -> Result<T, E>) -> Result<Self, E> {
        let (otherwise, of_calendars) = match text.split_once(SEPARATOR) {
            None => (text, None),
            Some((otherwise, rest)) => (otherwise, Some(rest)),
        };
        let of_calendars = of_calendars.into_iter().flat_map(|rest| rest.split(SEPARATOR));
        Ok(Self {
            otherwise: read(otherwise)?,
            of_calendars: of_calendars.map(read).collect::<Result<_, E>>()?,
        })
    }
}

/// The number of the calendar in a row of a column of them.
pub(super) fn calendar_at(column: &ArrayRef, row: usize) -> Option<i64> {
    let numbers = column.as_primitive_opt::<Int64Type>()?;
    (row < numbers.len() && numbers.is_valid(row)).then(|| numbers.value(row))
}

/// What the last literal was read as: every group and batch of a query brings the same one.
#[derive(Debug)]
pub(super) struct Last<T>(Mutex<Option<(String, Arc<T>)>>);

impl<T> Last<T> {
    /// What `text` tells, read by `read` unless it was the last one.
    pub(super) fn or_read(
        &self,
        text: &str,
        read: impl FnOnce(&str) -> Result<T>,
    ) -> Result<Arc<T>> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, value)) = last.as_ref()
            && known == text
        {
            return Ok(Arc::clone(value));
        }
        let value = Arc::new(read(text)?);
        *last = Some((text.to_owned(), Arc::clone(&value)));
        Ok(value)
    }
}

impl<T> Default for Last<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

// What was read last is no part of what a function is.
impl<T> PartialEq for Last<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Last<T> {}

impl<T> Hash for Last<T> {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_read_back_and_are_chosen_by_number() {
        let text = |number: &i64| number.to_string();
        let read = |text: &str| text.parse::<i64>();
        for of_calendars in [vec![], vec![5], vec![5, -6]] {
            let all = ByCalendar { otherwise: 7, of_calendars };
            assert_eq!(ByCalendar::from_literal(&all.to_literal(text), read), Ok(all));
        }
        let all = ByCalendar { otherwise: 7, of_calendars: vec![5, -6] };
        assert_eq!([None, Some(0), Some(1)].map(|number| *all.of(number)), [7, 5, -6]);
        assert!(ByCalendar::from_literal("7/", read).is_err());
        assert_eq!(ByCalendar::shared(1).to_literal(text), "1");
    }

    #[test]
    fn another_literal_is_read_anew() {
        let last = Last::default();
        let length = |text: &str| Ok(text.len());
        assert_eq!(*last.or_read("a", length).unwrap(), 1);
        assert_eq!(*last.or_read("a", |_| Ok(9)).unwrap(), 1);
        assert_eq!(*last.or_read("bc", length).unwrap(), 2);
        assert!(
            Last::<usize>::default().or_read("", |_| datafusion::common::exec_err!("no")).is_err()
        );
    }
}
