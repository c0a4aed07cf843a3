//! Rows of an answer, put together by group and window.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray, RecordBatch, StringArray};

use super::{BARS, Group, LINES, Picture, Window};
use crate::decimal::Decimal;
use crate::error::{Error, Result};
use crate::time::Timestamp;
use crate::usage::columns;

/// Most rows that a picture is made of.
const ROWS: usize = 200_000;

/// What stands for a group that has no name.
const NOBODY: &str = "(none)";

/// Columns of answers that are no groups; the name of a meter is one.
const NOT_GROUPS: [&str; 8] = [
    columns::WINDOW_START,
    columns::WINDOW_END,
    columns::PARTIAL,
    columns::VALUE,
    columns::CONVERTED,
    columns::BILLABLE,
    columns::EVENTS,
    columns::SKIPPED,
];

/// Rows of an answer so far.
#[derive(Debug, Default)]
pub struct Gathered {
    /// By the texts of the groups, of which two may look the same.
    groups: BTreeMap<Vec<Option<String>>, BTreeMap<i64, Decimal>>,
    windows: BTreeSet<Window>,
    /// Groups that are in no window.
    without_window: BTreeSet<Vec<Option<String>>>,
    rows: usize,
    has_windows: bool,
}

impl Gathered {
    /// Takes in rows of an answer.
    ///
    /// # Errors
    /// More rows than a picture shows anything of; rows of something else.
    pub fn take(&mut self, rows: &RecordBatch) -> Result<()> {
        self.rows += rows.num_rows();
        if self.rows > ROWS {
            return Err(Error::invalid(format!(
                "a picture is made of at most {ROWS} rows: ask for fewer groups (--by, --top) or longer \
                 windows"
            )));
        }
        let defect = |name: &str| Error::internal(format!("a picture of rows without `{name}`"));
        let texts = |name: &str| rows.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
        let values = texts(columns::CONVERTED).or_else(|| texts(columns::VALUE));
        let values = values.ok_or_else(|| defect(columns::VALUE))?;
        let windows = texts(columns::WINDOW_START).zip(texts(columns::WINDOW_END));
        self.has_windows |= windows.is_some();
        let schema = rows.schema();
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let groups: Vec<_> =
            names.filter(|name| !NOT_GROUPS.contains(name)).filter_map(texts).collect();
        for row in 0..rows.num_rows() {
            let name =
                |texts: &&StringArray| texts.is_valid(row).then(|| texts.value(row).to_owned());
            let key: Vec<Option<String>> = groups.iter().map(name).collect();
            let window = match windows {
                // Whoever has no billing periods is in no window.
                Some((starts, _)) if starts.is_null(row) => {
                    self.without_window.insert(key);
                    continue;
                }
                Some((starts, ends)) => Some(window(starts.value(row), ends.value(row))?),
                None => None,
            };
            let at = window.as_ref().map_or(0, |window| window.from);
            self.windows.extend(window);
            let group = self.groups.entry(key).or_default();
            if values.is_valid(row) {
                let value: Decimal = values.value(row).parse().map_err(|error| {
                    Error::internal("a value of an answer is no number").with_source(error)
                })?;
                group.insert(at, value);
            }
        }
        Ok(())
    }

    /// The picture of all rows, under a title.
    pub fn picture(self, title: String) -> Picture {
        let windows: Vec<Window> = self.windows.into_iter().collect();
        let places: Vec<i64> = match self.has_windows {
            true => windows.iter().map(|window| window.from).collect(),
            false => vec![0],
        };
        let without =
            self.without_window.iter().filter(|key| !self.groups.contains_key(*key)).count();
        let mut groups: Vec<(Decimal, Group)> = self
            .groups
            .into_iter()
            .map(|(key, values)| {
                let zero = Decimal::from(0);
                let add = |size: Decimal, value: &Decimal| match *value < zero {
                    true => &size - value,
                    false => &size + value,
                };
                let size = values.values().fold(zero.clone(), add);
                let values = places.iter().map(|place| values.get(place).cloned()).collect();
                (size, Group { label: label(&key), values })
            })
            .collect();
        groups.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.label.cmp(&other.label)));
        let shown = if self.has_windows { LINES } else { BARS };
        let left_out = groups.len().saturating_sub(shown) + without;
        let groups = groups.into_iter().take(shown).map(|(_, group)| group).collect();
        Picture { title, groups, left_out, windows }
    }
}

/// What people call a group.
fn label(key: &[Option<String>]) -> String {
    let name = |text: &Option<String>| match text.as_deref() {
        None => NOBODY.to_owned(),
        Some("") => "\"\"".to_owned(),
        Some(text) => text.to_owned(),
    };
    match key.is_empty() {
        true => "total".to_owned(),
        false => key.iter().map(name).collect::<Vec<_>>().join(" · "),
    }
}

fn window(start: &str, end: &str) -> Result<Window> {
    let instant = |text: &str| {
        Timestamp::parse_rfc3339(text)
            .map(Timestamp::micros)
            .map_err(|error| Error::internal(format!("the window `{text}` {error}")))
    };
    let (date, time) = (start.get(..10), start.get(11..16));
    let label = match (date, time) {
        (Some(date), Some("00:00")) => date.to_owned(),
        (Some(date), Some(time)) => format!("{date} {time}"),
        _ => start.to_owned(),
    };
    Ok(Window { from: instant(start)?, to: instant(end)?, label })
}
