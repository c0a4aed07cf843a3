//! `usage --chart`, `-o svg` and `-o html`: the answer as a picture.

use super::output::{printable, write_text};
use crate::error::Result;
use crate::picture::{Gathered, Picture, chart, page, svg};
use crate::time::TimeRange;
use crate::usage::{Context, Grouping, Note, UsageRequest, usage};

/// How an answer is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drawn {
    /// In the terminal.
    Chart,
    /// As SVG.
    Svg,
    /// As a page with pictures over time and of the groups.
    Html,
}

/// Cells of a line where nothing says how many the terminal has.
const WIDTH: usize = 80;

/// Draws the answer to standard output; gives the notes on it, each with its text by `told`.
pub(super) async fn draw(
    context: &Context,
    request: &UsageRequest,
    drawn: Drawn,
    told: impl Fn(&Note) -> String,
) -> Result<Vec<Note>> {
    if drawn == Drawn::Html {
        return draw_page(context, request, told).await;
    }
    let (mut picture, notes) = picture_of(context, request).await?;
    match drawn {
        Drawn::Chart => {
            for group in &mut picture.groups {
                group.label = printable(&group.label);
            }
            let width = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
            write_text(&chart(&picture, width.unwrap_or(WIDTH)))?;
        }
        Drawn::Svg | Drawn::Html => write_text(&svg(&picture))?,
    }
    Ok(notes)
}

async fn draw_page(
    context: &Context,
    request: &UsageRequest,
    told: impl Fn(&Note) -> String,
) -> Result<Vec<Note>> {
    let window = match &request.window {
        Some(window) => window.clone(),
        None => window_for(context, request)?.to_owned(),
    };
    let over_time = UsageRequest { window: Some(window), top: None, ..request.clone() };
    let (picture, mut notes) = picture_of(context, &over_time).await?;
    let mut pictures = vec![picture];
    if request.grouping != Grouping::Total {
        // Groups are asked for themselves: what they used in windows does not always add up.
        let of_groups = UsageRequest { window: None, fill: None, ..request.clone() };
        let (picture, of_groups) = picture_of(context, &of_groups).await?;
        pictures.push(picture);
        notes.extend(of_groups);
    }
    let lines: Vec<String> = notes.iter().map(told).collect();
    write_text(&page(&title(request, &notes), &pictures, &lines))?;
    Ok(notes)
}

async fn picture_of(context: &Context, request: &UsageRequest) -> Result<(Picture, Vec<Note>)> {
    let mut gathered = Gathered::default();
    let mut take = |rows| gathered.take(&rows).map(|()| true);
    let notes = usage(context, request, &mut take).await?;
    let mut title = title(request, &notes);
    if let Some(window) = &request.window {
        title.push_str(&format!(" by {window}"));
    }
    Ok((gathered.picture(title), notes))
}

/// What is counted, when, and in which unit.
fn title(request: &UsageRequest, notes: &[Note]) -> String {
    let mut title = request.meters.join(", ");
    let bound = |bound: &Option<String>| bound.clone().unwrap_or_default();
    match (&request.period, &request.from, &request.to) {
        (Some(period), ..) => title.push_str(&format!(" {period}")),
        (None, None, None) => {}
        (None, from, to) => title.push_str(&format!(" {}..{}", bound(from), bound(to))),
    }
    let unit = notes.first().and_then(|note| note.unit.as_ref());
    if let Some(unit) =
        unit.filter(|unit| notes.iter().all(|note| note.unit.as_ref() == Some(*unit)))
    {
        title.push_str(&format!(" in {unit}"));
    }
    title
}

const DAY_MICROS: i64 = 86_400_000_000;

/// Windows of which a picture of this range has not too many.
fn window_for(context: &Context, request: &UsageRequest) -> Result<&'static str> {
    let meter = request.meters.first().and_then(|name| {
        let name = name.split('@').next().unwrap_or(name);
        context.meters.iter().find(|meter| meter.name == name)
    });
    let Some(meter) = meter else { return Ok("day") };
    Ok(match request.bounds(meter, context.clock.now())? {
        TimeRange { from: Some(from), to: Some(to) } => {
            match to.micros().saturating_sub(from.micros()) / DAY_MICROS {
                0..=3 => "hour",
                4..=100 => "day",
                _ => "month",
            }
        }
        _ => "month",
    })
}
