//! Usage as a picture: in the terminal, as SVG, or as a page that needs nothing else.
//!
//! A picture is made of the rows of an answer: over windows a line for each group, of the largest of them,
//! else a bar for each. What is printed beside a line or bar is the exact number; only its length is
//! rounded, to a fraction of a pixel.

use crate::decimal::Decimal;

mod gather;
mod html;
mod scale;
mod svg;
mod terminal;

pub use gather::Gathered;
pub use html::page;
pub use svg::svg;
pub use terminal::chart;

/// Most lines of a picture: more cannot be told apart.
const LINES: usize = 8;

/// Most bars of a picture.
const BARS: usize = 30;

/// What a picture shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// What is counted, and in which unit.
    pub title: String,
    /// The groups, the largest first.
    pub groups: Vec<Group>,
    /// How many groups there are beside them.
    pub left_out: usize,
    /// The windows, by start; none where the question has none.
    pub windows: Vec<Window>,
}

/// What a group used.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Its name.
    pub label: String,
    /// A value for each window, or one; `None` where there is none.
    pub values: Vec<Option<Decimal>>,
}

/// A window of time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    /// Start, microseconds UTC.
    pub from: i64,
    /// End, exclusive.
    pub to: i64,
    /// Start as people read it, in the zone of the question.
    pub label: String,
}

impl Picture {
    /// The least and the greatest value, and nothing among them.
    fn bounds(&self) -> (Decimal, Decimal) {
        let zero = Decimal::from(0);
        let values = || self.groups.iter().flat_map(|group| group.values.iter().flatten());
        let (least, greatest) = (values().min(), values().max());
        let or_zero = |value: Option<&Decimal>| value.cloned().unwrap_or_else(|| zero.clone());
        (or_zero(least).min(zero.clone()), or_zero(greatest).max(zero.clone()))
    }

    /// What is to be said of groups that are not shown.
    fn rest(&self) -> Option<String> {
        (self.left_out > 0).then(|| format!("and {} more", self.left_out))
    }
}
