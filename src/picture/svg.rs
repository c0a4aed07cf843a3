//! A picture as SVG, complete in itself.

use std::fmt::Write;

use super::scale::{WHOLE, share, ticks};
use super::{Group, Picture};
use crate::decimal::Decimal;

/// Colours that are told apart by most eyes, after Okabe and Ito (2008); the last is our own grey.
const COLOURS: [&str; super::LINES] =
    ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#666666"];

const WIDTH: u32 = 960;
/// Where the area that is drawn in begins, from the left, and where it ends.
const LEFT: u32 = 200;
const RIGHT: u32 = WIDTH - 140;
/// Likewise of lines, whose names stand below.
const PLOT_LEFT: u32 = 120;
/// From the top.
const TOP: u32 = 48;
const LINE: u32 = 22;
const PLOT: u32 = 280;

/// Longest label, in characters.
const LABEL: usize = 28;

/// The picture as an SVG element of its own.
pub fn svg(picture: &Picture) -> String {
    let mut body = String::new();
    text(&mut body, (16, 28), "start", "title", &picture.title);
    let height = match picture.windows.is_empty() {
        true => bars(&mut body, picture),
        false => lines(&mut body, picture),
    };
    let height = match picture.rest() {
        Some(rest) => {
            text(&mut body, (16, height + 14), "start", "", &rest);
            height + LINE
        }
        None => height,
    };
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\">\n<style>text{{font:13px system-ui,sans-serif;fill:#222}}\
         .title{{font-weight:600;font-size:16px}}.tick{{fill:#666}}.grid{{stroke:#ddd}}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

/// A bar for each group; gives the height that they take.
fn bars(body: &mut String, picture: &Picture) -> u32 {
    let (least, greatest) = picture.bounds();
    let across = |value: &Decimal| LEFT + along(value, (&least, &greatest), RIGHT - LEFT);
    let nothing = across(&Decimal::from(0));
    let mut y = TOP;
    for group in &picture.groups {
        let value = group.values.first().and_then(Option::as_ref);
        text(body, (LEFT - 8, y + 15), "end", "", &shortened(&group.label));
        let end = value.map_or(nothing, &across);
        let (from, to) = (nothing.min(end), nothing.max(end));
        let colour = COLOURS[0];
        element(
            body,
            &format!(
                "<rect x=\"{from}\" y=\"{}\" width=\"{}\" height=\"16\" fill=\"{colour}\"/>",
                y + 2,
                (to - from).max(1)
            ),
        );
        let told = value.map_or_else(|| "no value".to_owned(), ToString::to_string);
        text(body, (to + 6, y + 15), "start", "", &told);
        y += LINE;
    }
    if picture.groups.is_empty() {
        text(body, (16, y + 15), "start", "", "nothing");
        y += LINE;
    }
    y + 12
}

/// A line for each group over the windows, as a step: a value is that of all of its window; gives the
/// height that they take.
fn lines(body: &mut String, picture: &Picture) -> u32 {
    let (least, greatest) = picture.bounds();
    let up = |value: &Decimal| TOP + PLOT - along(value, (&least, &greatest), PLOT);
    let from = picture.windows.first().map_or(0, |window| window.from);
    let to = picture.windows.last().map_or(1, |window| window.to).max(from + 1);
    let across = |instant: i64| {
        let share =
            i128::from(instant - from) * i128::from(RIGHT - PLOT_LEFT) / i128::from(to - from);
        PLOT_LEFT + u32::try_from(share).unwrap_or(0)
    };
    for tick in ticks(&least, &greatest) {
        let y = up(&tick);
        element(
            body,
            &format!(
                "<line class=\"grid\" x1=\"{PLOT_LEFT}\" x2=\"{RIGHT}\" y1=\"{y}\" y2=\"{y}\"/>"
            ),
        );
        text(body, (PLOT_LEFT - 8, y + 4), "end", "tick", &tick.to_string());
    }
    let every = picture.windows.len().div_ceil(5).max(1);
    for window in picture.windows.iter().step_by(every) {
        text(body, (across(window.from), TOP + PLOT + 18), "start", "tick", &window.label);
    }
    for (group, colour) in picture.groups.iter().zip(COLOURS) {
        let path = steps(picture, group, &across, &up);
        element(
            body,
            &format!(
                "<path d=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                path.trim_end()
            ),
        );
    }
    let mut y = TOP + PLOT + 34;
    for (group, colour) in picture.groups.iter().zip(COLOURS) {
        element(
            body,
            &format!(
                "<rect x=\"{PLOT_LEFT}\" y=\"{}\" width=\"14\" height=\"4\" fill=\"{colour}\"/>",
                y + 8
            ),
        );
        text(body, (PLOT_LEFT + 22, y + 14), "start", "", &shortened(&group.label));
        y += LINE;
    }
    y + 12
}

fn steps(
    picture: &Picture,
    group: &Group,
    across: &impl Fn(i64) -> u32,
    up: &impl Fn(&Decimal) -> u32,
) -> String {
    let mut path = String::new();
    let mut is_drawing = false;
    for (window, value) in picture.windows.iter().zip(&group.values) {
        let Some(value) = value else {
            is_drawing = false;
            continue;
        };
        let verb = if is_drawing { 'L' } else { 'M' };
        let (from, to, y) = (across(window.from), across(window.to), up(value));
        let _ = write!(path, "{verb}{from} {y}L{to} {y}");
        is_drawing = true;
    }
    path
}

/// A share of `length`, in whole pixels.
fn along(value: &Decimal, bounds: (&Decimal, &Decimal), length: u32) -> u32 {
    (share(value, bounds) * length + WHOLE / 2) / WHOLE
}

fn text(body: &mut String, (x, y): (u32, u32), anchor: &str, class: &str, what: &str) {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    let what = escaped(what);
    element(
        body,
        &format!("<text{class} x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{what}</text>"),
    );
}

fn element(body: &mut String, element: &str) {
    body.push_str(element);
    body.push('\n');
}

fn shortened(label: &str) -> String {
    match label.chars().count() > LABEL {
        true => label.chars().take(LABEL - 1).chain(['…']).collect(),
        false => label.to_owned(),
    }
}

/// A text that is nothing but text in XML and HTML.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // XML has no other control characters.
            '\t' | '\n' | '\r' => escaped.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::Window;
    use super::*;

    fn group(label: &str, values: &[Option<i64>]) -> Group {
        let values = values.iter().map(|value| value.map(Decimal::from)).collect();
        Group { label: label.to_owned(), values }
    }

    #[test]
    fn a_bar_is_as_long_as_its_value_and_its_name_is_text() {
        let picture = Picture {
            title: "bytes <GB>".to_owned(),
            groups: vec![
                group("<script>&'\"", &[Some(620)]),
                group("half", &[Some(310)]),
                group("none", &[None]),
            ],
            left_out: 2,
            windows: Vec::new(),
        };
        let drawn = svg(&picture);
        assert!(drawn.contains("&lt;script&gt;&amp;&#39;&quot;") && !drawn.contains("<script"));
        assert!(
            drawn.contains(&format!("x=\"200\" y=\"50\" width=\"{}\"", RIGHT - LEFT)),
            "{drawn}"
        );
        assert!(
            drawn.contains(&format!("x=\"200\" y=\"72\" width=\"{}\"", (RIGHT - LEFT) / 2)),
            "{drawn}"
        );
        assert!(drawn.contains(">no value<") && drawn.contains(">and 2 more<"), "{drawn}");
    }

    #[test]
    fn a_line_stays_for_its_window_and_breaks_where_nothing_is() {
        let window = |from, to| Window { from, to, label: format!("w{from}") };
        let picture = Picture {
            title: "t".to_owned(),
            groups: vec![group("a", &[Some(0), Some(10), None, Some(5)])],
            left_out: 0,
            // The second is as long as the first two together.
            windows: vec![window(0, 10), window(10, 30), window(30, 40), window(40, 70)],
        };
        let drawn = svg(&picture);
        let path = "M120 328L220 328L220 48L420 48M520 188L820 188";
        assert!(drawn.contains(&format!("d=\"{path}\"")), "{drawn}");
    }
}
