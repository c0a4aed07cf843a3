//! A picture in the terminal: bars of blocks, and for several groups over time a line of blocks for each.

use unicode_width::UnicodeWidthStr;

use super::scale::{WHOLE, share};
use super::{Group, Picture};
use crate::decimal::Decimal;

/// Eighths of a cell, from the left.
const ACROSS: [char; 9] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];
/// Eighths of a cell, from below.
const UP: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Longest label, in cells.
const LABEL: usize = 28;

/// The picture in lines of about `width` cells. Labels are what the events say: whoever prints them makes
/// them harmless first.
pub fn chart(picture: &Picture, width: usize) -> String {
    let mut lines = vec![picture.title.clone()];
    let bounds = picture.bounds();
    match (picture.groups.as_slice(), picture.windows.is_empty()) {
        ([], _) => lines.push("nothing".to_owned()),
        ([one], false) => {
            let labels: Vec<&str> = picture.windows.iter().map(|w| w.label.as_str()).collect();
            lines.extend(bars(&labels, &one.values, &bounds, width));
        }
        (groups, true) => {
            let labels: Vec<&str> = groups.iter().map(|group| group.label.as_str()).collect();
            let values: Vec<Option<Decimal>> =
                groups.iter().map(|group| group.values.first().cloned().flatten()).collect();
            lines.extend(bars(&labels, &values, &bounds, width));
        }
        (groups, false) => {
            let first = picture.windows.first().map_or("", |window| &window.label);
            let last = picture.windows.last().map_or("", |window| &window.label);
            lines.extend(over_time(groups, &bounds, width));
            lines.push(format!("from {first} to {last}; the number is the greatest of a window"));
        }
    }
    lines.extend(picture.rest());
    lines.join("\n") + "\n"
}

fn bars(
    labels: &[&str],
    values: &[Option<Decimal>],
    (least, greatest): &(Decimal, Decimal),
    width: usize,
) -> Vec<String> {
    let texts: Vec<String> = values.iter().map(told).collect();
    let (left, right) = (widest(labels.iter().copied()), widest(texts.iter().map(String::as_str)));
    let room = width.saturating_sub(left + right + 2).max(10);
    let line = |((label, value), text): ((&&str, &Option<Decimal>), &String)| {
        let bar =
            value.as_ref().map_or_else(String::new, |value| bar(value, (least, greatest), room));
        format!("{} {} {text}", padded(label, left), padded(&bar, room)).trim_end().to_owned()
    };
    labels.iter().zip(values).zip(&texts).map(line).collect()
}

/// A bar from nothing to the value.
fn bar(value: &Decimal, (least, greatest): (&Decimal, &Decimal), room: usize) -> String {
    let cells = |value: &Decimal| eighths(share(value, (least, greatest)), room);
    let (nothing, end) = (cells(&Decimal::from(0)), cells(value));
    match end >= nothing {
        true => {
            let begin = nothing.div_ceil(8) * 8;
            let eighths = end.saturating_sub(begin);
            let mut bar = " ".repeat(begin / 8) + &"█".repeat(eighths / 8);
            bar.extend(ACROSS.get(eighths % 8).filter(|_| eighths % 8 > 0));
            bar
        }
        // Below nothing in whole cells: there is no block that fills from the right.
        false => " ".repeat(end / 8) + &"▒".repeat((nothing / 8).saturating_sub(end / 8).max(1)),
    }
}

fn over_time(
    groups: &[Group],
    (least, greatest): &(Decimal, Decimal),
    width: usize,
) -> Vec<String> {
    let greatest_of = |group: &Group| told(&group.values.iter().flatten().max().cloned());
    let texts: Vec<String> = groups.iter().map(greatest_of).collect();
    let left = widest(groups.iter().map(|group| group.label.as_str()));
    let room = width.saturating_sub(left + widest(texts.iter().map(String::as_str)) + 2).max(10);
    let line = |(group, text): (&Group, &String)| {
        // Of several windows in one cell the greatest is shown.
        let per_cell = group.values.len().div_ceil(room).max(1);
        let cells = group.values.chunks(per_cell).map(|values| {
            let value = values.iter().flatten().max()?;
            UP.get(eighths(share(value, (least, greatest)), 1).max(1)).copied()
        });
        let line: String = cells.map(|cell| cell.unwrap_or(' ')).collect();
        format!("{} {} {text}", padded(&group.label, left), padded(&line, room))
            .trim_end()
            .to_owned()
    };
    groups.iter().zip(&texts).map(line).collect()
}

/// A share of `room` cells in eighths of one.
fn eighths(share: u32, room: usize) -> usize {
    let [share, whole] = [share, WHOLE].map(|part| part as usize);
    (room * 8 * share + whole / 2) / whole
}

fn told(value: &Option<Decimal>) -> String {
    value.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)
}

fn widest<'t>(texts: impl Iterator<Item = &'t str>) -> usize {
    texts.map(UnicodeWidthStr::width).max().unwrap_or(0).min(LABEL)
}

/// A text of this width: longer ones are cut, shorter ones filled up.
fn padded(text: &str, width: usize) -> String {
    if text.width() <= width {
        return format!("{text}{}", " ".repeat(width - text.width()));
    }
    let mut cut = String::new();
    for c in text.chars() {
        if cut.width() + unicode_width::UnicodeWidthChar::width(c).unwrap_or(0) + 1 > width {
            break;
        }
        cut.push(c);
    }
    cut.push('…');
    let missing = width.saturating_sub(cut.width());
    cut + &" ".repeat(missing)
}
