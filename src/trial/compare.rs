//! Expected rows against those that came, and what differs in lines for people.
//!
//! Rows are matched in any order. Only named columns are compared: numbers in the columns of numbers
//! by value, everything else as text.

use super::Row;
use super::case::{Cell, Expected};
use crate::decimal::Decimal;
use crate::usage::columns;

/// Columns whose texts are numbers.
const NUMBERS: [&str; 5] =
    [columns::VALUE, columns::CONVERTED, columns::BILLABLE, columns::EVENTS, columns::SKIPPED];

/// What differs, in lines; `None` if nothing does.
pub(super) fn difference(want: &[Expected], got: &[Row], columns: &[String]) -> Option<String> {
    let unknown = want.iter().flat_map(|row| row.cells.iter().map(move |(name, _)| (row, name)));
    let mut unknown = unknown.filter(|(_, name)| !columns.contains(name));
    if let Some((row, name)) = unknown.next() {
        return Some(format!(
            "the answer has no column `{name}`, which line {} expects; it has {}",
            row.line,
            columns.join(", ")
        ));
    }
    let matched = matching(want, got);
    let missing: Vec<&Expected> = want
        .iter()
        .enumerate()
        .filter(|(place, _)| !matched.contains(&Some(*place)))
        .map(|(_, row)| row)
        .collect();
    let surplus: Vec<&Row> =
        got.iter().zip(&matched).filter(|(_, by)| by.is_none()).map(|(row, _)| row).collect();
    if missing.is_empty() && surplus.is_empty() {
        return None;
    }
    let shown: Vec<&String> = columns
        .iter()
        .filter(|name| want.is_empty() || want.iter().any(|row| names(row, name)))
        .collect();
    let mut text = "other rows came than expected (- expected, + came)".to_owned();
    for row in missing {
        text.push_str(&format!("\n  - {}  (line {})", expected_text(row), row.line));
    }
    for row in surplus {
        let cells = row.iter().filter(|(name, _)| shown.contains(&name));
        let cells: Vec<String> =
            cells.map(|(name, text)| shown_cell(name, text.as_deref())).collect();
        text.push_str(&format!("\n  + {}", cells.join(", ")));
    }
    let same = matched.iter().flatten().count();
    if same > 0 {
        text.push_str(&format!("\n  and {same} as expected"));
    }
    Some(text)
}

fn names(row: &Expected, column: &str) -> bool {
    row.cells.iter().any(|(name, _)| name == column)
}

fn expected_text(row: &Expected) -> String {
    let text = |(name, cell): &(String, Option<Cell>)| {
        shown_cell(name, cell.as_ref().map(|cell| cell.text.as_str()))
    };
    row.cells.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn shown_cell(name: &str, text: Option<&str>) -> String {
    format!("{name}: {}", text.map_or("null".to_owned(), |text| text.to_owned()))
}

/// For each row that came the expected one that it is matched with, as many as can be: an expected
/// row that names few columns must not take the only row that another one fits.
fn matching(want: &[Expected], got: &[Row]) -> Vec<Option<usize>> {
    let mut matched: Vec<Option<usize>> = vec![None; got.len()];
    for place in 0..want.len() {
        let mut tried = vec![false; got.len()];
        place_row(place, want, got, &mut matched, &mut tried);
    }
    matched
}

/// Finds a row for the expected one at `place`, moving others where they fit elsewhere.
fn place_row(
    place: usize,
    want: &[Expected],
    got: &[Row],
    matched: &mut [Option<usize>],
    tried: &mut [bool],
) -> bool {
    for (at, row) in got.iter().enumerate() {
        if tried[at] || !fits(&want[place], row) {
            continue;
        }
        tried[at] = true;
        let free = match matched[at] {
            None => true,
            Some(other) => place_row(other, want, got, matched, tried),
        };
        if free {
            matched[at] = Some(place);
            return true;
        }
    }
    false
}

fn fits(want: &Expected, row: &Row) -> bool {
    want.cells.iter().all(|(name, cell)| {
        let found = row.iter().find(|(column, _)| column == name).map(|(_, text)| text);
        match (found, cell) {
            (Some(None), None) => true,
            (Some(Some(text)), Some(cell)) => same(name, text, cell),
            (Some(_) | None, _) => false,
        }
    })
}

fn same(column: &str, text: &str, cell: &Cell) -> bool {
    match &cell.number {
        Some(number) if NUMBERS.contains(&column) => {
            text.parse::<Decimal>().is_ok_and(|found| found == *number)
        }
        _ => text == cell.text,
    }
}
