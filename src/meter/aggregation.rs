//! What a meter computes over its events, as plain data.

use super::Operand;
use crate::decimal::text_of_scaled_i128;
use crate::time::{Window, Windowing};

/// What is computed over the events of a meter.
#[derive(Debug, Clone, PartialEq)]
pub enum Aggregation {
    /// Number of events.
    Count,
    /// Number of distinct non-null values, by their text.
    CountUnique(Operand),
    /// Exact sum of the numeric values.
    Sum(Operand),
    /// Smallest numeric value.
    Min(Operand),
    /// Largest numeric value.
    Max(Operand),
    /// Exact mean of the numeric values, rounded once.
    Average(Operand),
    /// Numeric value of the event with the latest timestamp.
    Latest(Operand),
    /// Numeric value of the event with the earliest timestamp.
    Earliest(Operand),
    /// Smallest numeric value that at least this share of the values do not exceed.
    Percentile(Operand, Percent),
    /// Mean of a level over the time of a window.
    TimeWeighted(Levels),
    /// Number of values that were added and not removed.
    Active(Activity),
    /// A quantity that the sender keeps and reports.
    Reported(Report),
    /// An aggregation of the results of another one.
    Nested(Box<Nested>),
}

/// A share in millionths of a percent, above 0 and at most 100 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(u32);

impl Percent {
    /// 100 %.
    pub const WHOLE: u32 = 100_000_000;

    /// The share of so many millionths of a percent, if it is one.
    pub fn from_millionths(millionths: u32) -> Option<Self> {
        (1..=Self::WHOLE).contains(&millionths).then_some(Self(millionths))
    }

    /// How many millionths of a percent it is.
    pub fn millionths(self) -> u32 {
        self.0
    }
}

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&text_of_scaled_i128(self.0.into(), 6))
    }
}

/// A level over time, known from the events that move it.
#[derive(Debug, Clone, PartialEq)]
pub struct Levels {
    /// The numeric value that tells.
    pub of: Operand,
    /// What that value tells.
    pub told: Told,
    /// Whose levels stand beside each other and add up; only where events tell levels.
    pub per: Vec<Operand>,
}

/// What the value of an event tells of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The level itself, until the next event of the same series.
    Level,
    /// By how much it changes.
    Change,
}

/// Values that come and go.
#[derive(Debug, Clone, PartialEq)]
pub struct Activity {
    /// The value, by its text.
    pub of: Operand,
    /// Whether it comes or goes: the words of adding, then of removing.
    pub operation: Operation,
    /// Whose values are told apart: the same value of two of them is two.
    pub per: Vec<Operand>,
    /// Whether each counts by the share of the days of the period on which it was active at some
    /// time, rather than as one if it is active at the end.
    pub by_days: bool,
}

/// A quantity that is reported whole or by its changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The numeric value.
    pub of: Operand,
    /// How it is meant: the words of setting, then of changing.
    pub operation: Operation,
    /// Whose quantities stand beside each other and add up.
    pub per: Vec<Operand>,
    /// After which windows the quantity begins at nothing again; never if none.
    pub reset: Option<Windowing>,
}

/// How an event says which of two things it does.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// What says it, by its text. An event that says nothing does [`Operation::silent`].
    pub of: Operand,
    /// The texts of either.
    pub words: [Vec<String>; 2],
    /// Which of both an event without a text does.
    pub silent: usize,
}

/// An aggregation over the results of an inner one, each of one window or of one text of some
/// operands, or of both.
#[derive(Debug, Clone, PartialEq)]
pub struct Nested {
    /// What is computed over the results.
    pub outer: Outer,
    /// What each result is; not nested itself, and known from the events of its window alone.
    pub inner: Aggregation,
    /// Each window has a result of its own.
    pub window: Option<Window>,
    /// Each combination of their texts has a result of its own.
    pub per: Vec<Operand>,
}

/// What is computed over results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outer {
    /// How many there are.
    Count,
    /// Their exact sum.
    Sum,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// Their exact mean, rounded once.
    Average,
    /// The smallest that at least this share of them do not exceed.
    Percentile(Percent),
}

impl Outer {
    /// The name a meter file uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
            Self::Average => "average",
            Self::Percentile(_) => "percentile",
        }
    }
}

/// The stretch of time that an event is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Period {
    /// Its first instant.
    pub start: Operand,
    /// Its end, exclusive.
    pub end: Operand,
    /// Where the event's value counts.
    pub place: Placing,
}

/// Where the value of an event with a period counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placing {
    /// In every window that the period touches, by the share of the period that lies in it.
    Prorate,
    /// Whole, where the period starts.
    Start,
    /// Whole, where the period ends: in the window of its last microsecond.
    End,
}

impl Placing {
    /// The name a meter file uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prorate => "prorate",
            Self::Start => "start",
            Self::End => "end",
        }
    }
}

impl Aggregation {
    /// What the aggregation reads of an event; nothing for a count.
    pub fn operands(&self) -> Vec<&Operand> {
        match self {
            Self::Count => Vec::new(),
            Self::CountUnique(operand)
            | Self::Sum(operand)
            | Self::Min(operand)
            | Self::Max(operand)
            | Self::Average(operand)
            | Self::Latest(operand)
            | Self::Earliest(operand)
            | Self::Percentile(operand, _) => vec![operand],
            Self::TimeWeighted(levels) => std::iter::once(&levels.of).chain(&levels.per).collect(),
            Self::Active(Activity { of, operation, per, .. })
            | Self::Reported(Report { of, operation, per, .. }) => {
                [of, &operation.of].into_iter().chain(per).collect()
            }
            Self::Nested(nested) => {
                nested.inner.operands().into_iter().chain(&nested.per).collect()
            }
        }
    }

    /// Whether the first of [`Aggregation::operands`] is what is aggregated; events alone are not.
    pub fn measures(&self) -> bool {
        match self {
            Self::Count => false,
            Self::Nested(nested) => nested.inner.measures(),
            Self::CountUnique(_)
            | Self::Sum(_)
            | Self::Min(_)
            | Self::Max(_)
            | Self::Average(_)
            | Self::Latest(_)
            | Self::Earliest(_)
            | Self::Percentile(..)
            | Self::TimeWeighted(_)
            | Self::Active(_)
            | Self::Reported(_) => true,
        }
    }

    /// The name a meter file uses.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::CountUnique(_) | Self::Active(_) => "count_unique",
            Self::Sum(_) => "sum",
            Self::Min(_) => "min",
            Self::Max(_) => "max",
            Self::Average(_) => "average",
            Self::Latest(_) => "latest",
            Self::Earliest(_) => "earliest",
            Self::Percentile(..) => "percentile",
            Self::TimeWeighted(_) => "time_weighted",
            Self::Reported(_) => "reported",
            Self::Nested(nested) => nested.outer.name(),
        }
    }

    /// Whether it counts something, so that the value of nothing is 0.
    pub fn counts(&self) -> bool {
        match self {
            Self::Count | Self::CountUnique(_) | Self::Active(_) => true,
            Self::Nested(nested) => nested.outer == Outer::Count,
            Self::Sum(_)
            | Self::Min(_)
            | Self::Max(_)
            | Self::Average(_)
            | Self::Latest(_)
            | Self::Earliest(_)
            | Self::Percentile(..)
            | Self::TimeWeighted(_)
            | Self::Reported(_) => false,
        }
    }

    /// Whether the value of a window depends on events before it.
    pub fn carries(&self) -> bool {
        matches!(self, Self::TimeWeighted(_) | Self::Active(_) | Self::Reported(_))
    }
}
