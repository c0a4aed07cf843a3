//! A half-open range of instants.

use super::timestamp::Timestamp;

/// The instants at or after `from` and before `to`; a missing bound leaves that side open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TimeRange {
    /// The first instant within.
    pub from: Option<Timestamp>,
    /// The first instant after it.
    pub to: Option<Timestamp>,
}

impl TimeRange {
    /// Every instant there is.
    pub const ALL: Self = Self { from: None, to: None };

    /// Whether an instant lies within.
    pub fn contains(&self, instant: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= instant) && self.to.is_none_or(|to| instant < to)
    }

    /// The instants that lie in both.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let to = match (self.to, other.to) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        // `None` is below every bound, which is what an open beginning means.
        Self { from: self.from.max(other.from), to }
    }

    /// Whether no instant lies within.
    pub fn is_empty(&self) -> bool {
        matches!((self.from, self.to), (Some(from), Some(to)) if from >= to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: Option<i64>, to: Option<i64>) -> TimeRange {
        TimeRange { from: from.map(Timestamp::from_micros), to: to.map(Timestamp::from_micros) }
    }

    #[test]
    fn ranges_hold_their_first_instant_and_not_their_last() {
        for (from, to, within) in [
            (Some(5), Some(6), [false, true, false]),
            (Some(5), None, [false, true, true]),
            (None, Some(5), [true, false, false]),
            (None, None, [true, true, true]),
            (Some(5), Some(5), [false, false, false]),
        ] {
            let range = range(from, to);
            let got = [4, 5, 6].map(|micros| range.contains(Timestamp::from_micros(micros)));
            assert_eq!(got, within, "{range:?}");
        }
    }

    #[test]
    fn intersections_take_the_narrower_bounds() {
        for (one, other, want) in [
            (range(Some(1), Some(9)), range(Some(3), Some(20)), range(Some(3), Some(9))),
            (range(None, Some(9)), range(Some(3), None), range(Some(3), Some(9))),
            (TimeRange::ALL, TimeRange::ALL, TimeRange::ALL),
            (range(Some(1), Some(3)), range(Some(5), None), range(Some(5), Some(3))),
        ] {
            assert_eq!(one.intersect(&other), want);
            assert_eq!(other.intersect(&one), want);
        }
        assert!(range(Some(5), Some(3)).is_empty() && range(Some(3), Some(3)).is_empty());
        assert!(!range(Some(3), Some(4)).is_empty() && !TimeRange::ALL.is_empty());
    }
}
