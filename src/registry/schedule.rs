//! Which published version holds when.
//!
//! A publication holds from its date on, until a later publication says otherwise: it replaces
//! whatever was to hold from that date on, so that one without a date holds for all of history.

use super::Publication;
use crate::time::{TimeRange, Timestamp};

/// The versions of a meter over time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule {
    /// By `from`, each later than the one before.
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    from: Option<Timestamp>,
    version: String,
    /// Place of the publication that says so.
    publication: usize,
}

/// A part of a range and the version that holds throughout; none where nothing was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The part.
    pub range: TimeRange,
    /// The version.
    pub version: Option<String>,
}

/// When a publication is what counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tenure {
    /// During this range.
    During(TimeRange),
    /// Never, as later ones replaced it.
    Superseded,
}

impl Schedule {
    /// What `publications` come to, the first one first.
    pub fn of(publications: &[Publication]) -> Self {
        let mut steps: Vec<Step> = Vec::new();
        for (place, each) in publications.iter().enumerate() {
            steps.retain(|step| step.from < each.from);
            let version = each.version.clone();
            steps.push(Step { from: each.from, version, publication: place });
        }
        Self { steps }
    }

    /// Whether nothing was published.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The version that holds at the end of time.
    pub fn last(&self) -> Option<&str> {
        self.steps.last().map(|step| step.version.as_str())
    }

    /// Whether every instant has the same version here and there.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        self.parts(TimeRange::ALL) == other.parts(TimeRange::ALL)
    }

    /// The parts of `range` by version, in order; neighbours differ.
    pub fn parts(&self, range: TimeRange) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        let before = TimeRange { from: None, to: self.steps.first().and_then(|step| step.from) };
        let nothing = match self.steps.first() {
            None => Some((TimeRange::ALL, None)),
            Some(first) => first.from.is_some().then_some((before, None)),
        };
        let steps = (0..self.steps.len())
            .map(|place| (self.step_range(place), Some(self.steps[place].version.clone())));
        for (span, version) in nothing.into_iter().chain(steps) {
            let span = span.intersect(&range);
            if span.is_empty() {
                continue;
            }
            match parts.last_mut() {
                Some(last) if last.version == version => last.range.to = span.to,
                _ => parts.push(Part { range: span, version }),
            }
        }
        parts
    }

    /// When the publication at `place` is what counts.
    pub fn tenure(&self, place: usize) -> Tenure {
        let step = self.steps.iter().position(|step| step.publication == place);
        step.map_or(Tenure::Superseded, |step| Tenure::During(self.step_range(step)))
    }

    fn step_range(&self, place: usize) -> TimeRange {
        let next = self.steps.get(place + 1).and_then(|next| next.from);
        TimeRange { from: self.steps[place].from, to: next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: i64) -> Option<Timestamp> {
        Some(Timestamp::from_micros(day * 86_400_000_000))
    }

    fn published(all: &[(&str, Option<i64>)]) -> Vec<Publication> {
        let each = |(version, from): &(&str, Option<i64>)| Publication {
            version: (*version).to_owned(),
            from: from.and_then(day),
            at: String::new(),
            by: None,
            reason: None,
        };
        all.iter().map(each).collect()
    }

    /// `version@from..to`, bounds in days.
    fn shown(parts: &[Part]) -> String {
        let bound = |bound: Option<Timestamp>| {
            bound.map_or(String::new(), |at| (at.micros() / 86_400_000_000).to_string())
        };
        let part = |part: &Part| {
            let version = part.version.as_deref().unwrap_or("none");
            format!("{version}@{}..{}", bound(part.range.from), bound(part.range.to))
        };
        parts.iter().map(part).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_publication_holds_from_its_date_until_a_later_one_says_otherwise() {
        for (name, all, want) in [
            ("nothing", vec![], "none@.."),
            ("retroactive", vec![("a", None)], "a@.."),
            ("from a date", vec![("a", Some(5))], "none@..5 a@5.."),
            ("two", vec![("a", None), ("b", Some(5))], "a@..5 b@5.."),
            ("retroactive over dated", vec![("a", None), ("b", Some(5)), ("c", None)], "c@.."),
            (
                "earlier than the last",
                vec![("a", None), ("b", Some(5)), ("c", Some(3))],
                "a@..3 c@3..",
            ),
            ("the same date", vec![("a", None), ("b", Some(5)), ("c", Some(5))], "a@..5 c@5.."),
            ("back again", vec![("a", None), ("b", Some(5)), ("a", Some(9))], "a@..5 b@5..9 a@9.."),
            ("taken back", vec![("a", None), ("b", Some(5)), ("a", Some(5))], "a@.."),
        ] {
            let schedule = Schedule::of(&published(&all));
            assert_eq!(shown(&schedule.parts(TimeRange::ALL)), want, "{name}");
        }
    }

    #[test]
    fn a_range_falls_into_parts_at_the_dates() {
        let schedule = Schedule::of(&published(&[("a", Some(2)), ("b", Some(5))]));
        for (from, to, want) in [
            (Some(2), Some(5), "a@2..5"),
            (Some(5), None, "b@5.."),
            (Some(4), Some(6), "a@4..5 b@5..6"),
            (None, Some(3), "none@..2 a@2..3"),
        ] {
            let range = TimeRange { from: from.and_then(day), to: to.and_then(day) };
            assert_eq!(shown(&schedule.parts(range)), want);
        }
    }

    #[test]
    fn a_publication_that_changes_no_instant_says_the_same() {
        let before = [("a", None), ("b", Some(5))];
        for (more, same) in [
            (("b", Some(5)), true),
            (("b", Some(7)), true),
            (("b", Some(4)), false),
            (("a", None), false),
        ] {
            let after: Vec<(&str, Option<i64>)> = before.iter().copied().chain([more]).collect();
            let (before, after) =
                (Schedule::of(&published(&before)), Schedule::of(&published(&after)));
            assert_eq!(after.says_the_same(&before), same, "{more:?}");
        }
        let schedule = Schedule::of(&published(&[("a", Some(3)), ("b", Some(3))]));
        assert_eq!(schedule.tenure(0), Tenure::Superseded);
        assert_eq!(schedule.tenure(1), Tenure::During(TimeRange { from: day(3), to: None }));
    }
}
