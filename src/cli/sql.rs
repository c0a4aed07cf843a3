//! `meterhouse sql`: one query from the arguments, a file or standard input; else the prompt.

use std::io::{IsTerminal, Read};

use futures::StreamExt;

use super::flags::{Global, SqlFlags};
use super::opening::{context, load_sound_meters, resolve_at};
use super::outcome::{Failure, Outcome};
use super::output::{check_format, finish, rows, say};
use super::prompt;
use crate::error::{Error, Result};
use crate::render::{OutputFormat, Reader};
use crate::sql::query;
use crate::usage::Context;

/// Longest query that is read from a file or from standard input, in bytes.
const TEXT_MAX_BYTES: u64 = 1 << 20;

/// Runs the command.
pub(super) async fn run(global: &Global, flags: &SqlFlags) -> Result<Outcome, Failure> {
    let format = flags.output.output;
    check_format(format)?;
    let text = match (&flags.text, &flags.file) {
        (_, Some(path)) => {
            let name = path.display().to_string();
            let file = std::fs::File::open(path).map_err(|error| unreadable(&name, error))?;
            Some(read_text(file, &name)?)
        }
        (Some(text), None) if text != "-" => Some(text.clone()),
        (None, None) if std::io::stdin().is_terminal() => None,
        (_, None) => Some(read_text(std::io::stdin(), "standard input")?),
    };
    if text.as_deref().is_some_and(|text| text.trim().is_empty()) {
        return Err(Failure::Arguments("the query is empty".to_owned()));
    }
    let context = context(global, load_sound_meters(global)?).await?;
    let at = resolve_at(&context.lake, flags.at.at.as_ref()).await?;
    match text {
        Some(text) => {
            let version = write_answer(&context, &text, at, format, global.quiet).await?;
            if !global.quiet {
                say(&format!("table version {version}"));
            }
        }
        None => prompt::run(&context, at, format, global.quiet).await?,
    }
    Ok(Outcome::Done)
}

fn read_text(from: impl Read, name: &str) -> Result<String> {
    let mut bytes = Vec::new();
    from.take(TEXT_MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(name, error))?;
    if bytes.len() as u64 > TEXT_MAX_BYTES {
        return Err(Error::invalid(format!("{name}: a query has at most {TEXT_MAX_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        Error::invalid(format!("{name}: the query is not UTF-8 at byte {valid}"))
    })
}

fn unreadable(name: &str, error: std::io::Error) -> Error {
    Error::invalid(format!("{name}: cannot be read: {error}")).with_source(error)
}

/// Answers one query to standard output, its notes to standard error unless `quiet`; gives the version of the events it saw.
///
/// # Errors
/// A query that is refused or fails.
pub(super) async fn write_answer(
    context: &Context,
    text: &str,
    at: Option<u64>,
    format: OutputFormat,
    quiet: bool,
) -> Result<u64> {
    let mut answer = query(context, text, at).await?;
    if !quiet {
        for note in &answer.notes {
            say(&format!("note: {note}"));
        }
    }
    let mut renderer = rows(format, &answer.schema)?;
    while let Some(batch) = answer.rows.next().await {
        if renderer.write(&batch?)? == Reader::Gone {
            return Ok(answer.table_version);
        }
    }
    finish(renderer)?;
    Ok(answer.table_version)
}
