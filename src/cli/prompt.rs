//! The prompt of `meterhouse sql`: queries over several lines, a history, and errors that end
//! nothing.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::RecordBatch;
use rustyline::config::Behavior;
use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};

use super::outcome::error_text;
use super::output::{finish, rows, say};
use super::sql::write_answer;
use crate::error::{Error, Result};
use crate::render::{OutputFormat, Reader};
use crate::sql::query;
use crate::usage::Context;

const PROMPT: &str = "meterhouse> ";
const CONTINUED: &str = "        ... ";
const HELP: &str =
    "A query ends with `;`. \\d lists the columns of events, \\q or Ctrl-D leaves, Ctrl-C clears.";

/// What was entered.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    /// A query that goes on in the next line.
    Open,
    /// A whole query.
    Query(String),
    /// `\d`
    Columns,
    /// `\q`
    Leave,
    /// `\h`, `\?` or any other command.
    Help,
    /// Nothing.
    Blank,
}

/// Asks for queries until the end of input.
///
/// # Errors
/// A terminal that cannot be read.
pub(super) async fn run(
    context: &Context,
    at: Option<u64>,
    format: OutputFormat,
    quiet: bool,
) -> Result<()> {
    let broken = |error: ReadlineError| {
        Error::unavailable(format!("the prompt cannot be read: {error}")).with_source(error)
    };
    // The terminal itself, as standard output may lead to a file.
    let config = Config::builder().behavior(Behavior::PreferTerm).build();
    let mut editor = DefaultEditor::with_config(config).map_err(broken)?;
    let history = history_file();
    if let Some(file) = &history {
        // There is none the first time.
        let _ = editor.load_history(file);
    }
    if !quiet {
        say(HELP);
    }
    let mut entered = String::new();
    loop {
        let line = match editor.readline(if entered.is_empty() { PROMPT } else { CONTINUED }) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                entered.clear();
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(broken(error)),
        };
        entered.push_str(&line);
        let entry = understand(&entered);
        if entry == Entry::Open {
            entered.push('\n');
            continue;
        }
        if entry != Entry::Blank {
            remember(&mut editor, entered.trim(), history.as_ref());
        }
        entered.clear();
        let answered = match entry {
            Entry::Query(text) => answer(context, &text, at, format, quiet).await,
            Entry::Columns => columns(context, at, format).await,
            Entry::Leave => return Ok(()),
            Entry::Help => {
                say(HELP);
                Ok(())
            }
            Entry::Open | Entry::Blank => Ok(()),
        };
        if let Err(error) = answered {
            say(&error_text(&error));
        }
    }
}

/// What the lines so far amount to.
fn understand(entered: &str) -> Entry {
    let text = entered.trim();
    match text {
        "" | ";" => Entry::Blank,
        "\\q" | "quit" | "exit" => Entry::Leave,
        "\\d" => Entry::Columns,
        _ if text.starts_with('\\') => Entry::Help,
        _ => match ends_query(text) {
            true => Entry::Query(text.to_owned()),
            false => Entry::Open,
        },
    }
}

/// Whether the last thing in `text` is a semicolon that stands in no quotes and no comment.
fn ends_query(text: &str) -> bool {
    let mut rest = text.chars().peekable();
    let mut ended = false;
    while let Some(c) = rest.next() {
        match c {
            '\'' | '"' => {
                // An escaped quote is two of them, which is one text after another.
                if rest.by_ref().all(|inner| inner != c) {
                    return false;
                }
                ended = false;
            }
            '-' if rest.peek() == Some(&'-') => while rest.next_if(|c| *c != '\n').is_some() {},
            '/' if rest.peek() == Some(&'*') => {
                rest.next();
                let mut last = ' ';
                if rest.by_ref().all(|c| std::mem::replace(&mut last, c) != '*' || c != '/') {
                    return false;
                }
            }
            ';' => ended = true,
            c if c.is_whitespace() => {}
            _ => ended = false,
        }
    }
    ended
}

/// Runs a query until it ends or Ctrl-C.
async fn answer(
    context: &Context,
    text: &str,
    at: Option<u64>,
    format: OutputFormat,
    quiet: bool,
) -> Result<()> {
    tokio::select! {
        answered = write_answer(context, text, at, format, quiet) => answered.map(|_| ()),
        _ = tokio::signal::ctrl_c() => {
            say("cancelled");
            Ok(())
        }
    }
}

/// The columns of `events` with their types.
async fn columns(context: &Context, at: Option<u64>, format: OutputFormat) -> Result<()> {
    let events = query(context, "SELECT * FROM events LIMIT 0", at).await?.schema;
    let batch = column_rows(&events)?;
    let mut renderer = rows(format, &batch.schema())?;
    match renderer.write(&batch)? {
        Reader::Present => finish(renderer),
        Reader::Gone => Ok(()),
    }
}

fn column_rows(schema: &Schema) -> Result<RecordBatch> {
    let fields = schema.fields();
    let names: ArrayRef = Arc::new(fields.iter().map(|f| Some(f.name())).collect::<StringArray>());
    let types = fields.iter().map(|field| Some(type_name(field.data_type())));
    let types: ArrayRef = Arc::new(types.collect::<StringArray>());
    RecordBatch::try_from_iter([("column", names), ("type", types)])
        .map_err(|error| Error::internal("rows of columns").with_source(error))
}

/// A type as SQL calls it.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => "VARCHAR".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Decimal128(digits, scale) | DataType::Decimal256(digits, scale) => {
            format!("DECIMAL({digits}, {scale})")
        }
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE".to_owned(),
        other => other.to_string().to_uppercase(),
    }
}

/// Keeps what was entered, also for the next time. A history that cannot be kept is no failure.
fn remember(editor: &mut DefaultEditor, text: &str, history: Option<&PathBuf>) {
    let _ = editor.add_history_entry(text);
    if let Some(file) = history {
        let folder = file.parent().map(std::fs::create_dir_all);
        if matches!(folder, Some(Ok(()))) {
            let _ = editor.append_history(file);
        }
    }
}

/// `meterhouse/sql-history` in the user's folder for state, as the XDG base directory
/// specification has it.
fn history_file() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
    Some(state.join("meterhouse").join("sql-history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_goes_on_until_its_semicolon() {
        let query = |text: &str| Entry::Query(text.to_owned());
        for (text, want) in [
            ("  ", Entry::Blank),
            (";", Entry::Blank),
            ("\\q", Entry::Leave),
            ("\\d", Entry::Columns),
            ("\\x", Entry::Help),
            ("select 1", Entry::Open),
            ("select 1;", query("select 1;")),
            ("select 1;  -- done", query("select 1;  -- done")),
            ("select 1 -- not yet;", Entry::Open),
            ("select ';", Entry::Open),
            ("select 'it''s;'", Entry::Open),
            ("select 'it''s';", query("select 'it''s';")),
            ("select \"a;\";", query("select \"a;\";")),
            ("/* ; */ select 1", Entry::Open),
            ("/* ; */ select 1; /* x */", query("/* ; */ select 1; /* x */")),
            ("select 1; /* open", Entry::Open),
        ] {
            assert_eq!(understand(text), want, "{text}");
        }
    }
}
