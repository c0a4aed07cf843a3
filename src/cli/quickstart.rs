//! `meterhouse quickstart`: a lake of real events and the first answers, command by command.
//!
//! Every step is an ordinary command line, printed as it can be typed and then parsed and run like
//! any other. The events and meters are those of the repository when it is the current folder, else
//! copies that the program carries.

use std::path::{Path, PathBuf};

use arrow::array::AsArray;
use clap::Parser;

use super::flags::{Command, Flags, Global, LAKE_DEFAULT, METERS_DEFAULT, NAMESPACE_DEFAULT};
use super::numbers::grouped_text;
use super::opening::{context, load_meters};
use super::outcome::{Failure, Outcome};
use super::output::{say, write_text};
use super::{ingest, usage};
use crate::error::{Error, Result};
use crate::usage::{Grouping, UsageRequest, columns};

const EVENTS: &str = "data/web-requests/requests.ndjson.gz";
const METERS: &str = "queries/meters";
/// Where the copies go.
const COPIES: &str = "meterhouse-quickstart";

const EVENTS_COPY: &[u8] = include_bytes!("../../data/web-requests/requests.ndjson.gz");

/// The meters and what they look up, by their paths in the repository.
const DEFINITIONS: [(&str, &str); 6] = [
    (
        "queries/meters/average-answer.yaml",
        include_str!("../../queries/meters/average-answer.yaml"),
    ),
    ("queries/meters/bandwidth.yaml", include_str!("../../queries/meters/bandwidth.yaml")),
    ("queries/meters/clients.yaml", include_str!("../../queries/meters/clients.yaml")),
    (
        "queries/meters/largest-answer.yaml",
        include_str!("../../queries/meters/largest-answer.yaml"),
    ),
    ("queries/meters/requests.yaml", include_str!("../../queries/meters/requests.yaml")),
    (
        "queries/lookups/status-classes.csv",
        include_str!("../../queries/lookups/status-classes.csv"),
    ),
];

/// Questions after the total: what they ask, and how.
const QUESTIONS: [(&str, &[&str]); 3] = [
    ("The five clients that took the most", &["usage", "bandwidth", "--top", "5"]),
    (
        "The five top directories that gave the most",
        &["usage", "bandwidth", "--by", "top", "--top", "5"],
    ),
    (
        "Requests per status and day (UTC)",
        &["usage", "requests", "--by", "status", "--window", "day"],
    ),
];

/// Runs the command.
pub(super) async fn run(program: &str, global: &Global) -> Result<Outcome, Failure> {
    let files = Files::find()?;
    let tour = Tour { program, global, files: &files };
    tour.title("10,000 requests to a web site become events in a lake")?;
    let outcome = tour.step(&["ingest", &files.events]).await?;
    tour.title("How many bytes did it send?")?;
    tour.step(&["usage", "bandwidth", "--total"]).await?;
    let total = grouped_text(&total_bytes(&tour.global_of_steps()).await?);
    write_text(&format!("In all {total} bytes were sent.\n"))?;
    for (title, arguments) in QUESTIONS {
        tour.title(title)?;
        tour.step(arguments).await?;
    }
    if !global.quiet {
        say(&tour.farewell());
    }
    Ok(outcome)
}

/// The events and the folder of meters to use, as they are named on the command line.
struct Files {
    events: String,
    meters: String,
}

impl Files {
    /// Those of the current folder if all are there, else copies, written where they are missing.
    fn find() -> Result<Self> {
        let mut names = DEFINITIONS.iter().map(|(name, _)| *name).chain([EVENTS]);
        if names.all(|name| Path::new(name).is_file()) {
            return Ok(Self { events: EVENTS.to_owned(), meters: METERS_DEFAULT.to_owned() });
        }
        let folder = Path::new(COPIES);
        write_copy(&folder.join(EVENTS), EVENTS_COPY)?;
        for (name, text) in DEFINITIONS {
            write_copy(&folder.join(name), text.as_bytes())?;
        }
        let named = |name: &str| folder.join(name).display().to_string();
        Ok(Self { events: named(EVENTS), meters: named(METERS) })
    }
}

fn write_copy(path: &PathBuf, content: &[u8]) -> Result<()> {
    let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    written.and_then(|()| std::fs::write(path, content)).map_err(|error| {
        Error::unavailable(format!("{} cannot be written: {error}", path.display()))
            .with_source(error)
    })
}

/// What the steps have in common.
struct Tour<'t> {
    program: &'t str,
    global: &'t Global,
    files: &'t Files,
}

impl Tour<'_> {
    fn title(&self, title: &str) -> Result<()> {
        write_text(&format!("\n{title}\n"))
    }

    /// Prints a command as it can be typed, then runs it.
    async fn step(&self, command: &[&str]) -> Result<Outcome, Failure> {
        let arguments = self.arguments(command);
        write_text(&format!("$ {}\n", self.line(&arguments)))?;
        let words = std::iter::once(self.program.to_owned()).chain(arguments);
        let flags = Flags::try_parse_from(words)
            .map_err(|error| Error::internal(format!("a step of the quickstart: {error}")))?;
        let global = self.global_of_steps();
        match &flags.command {
            Command::Ingest(flags) => Box::pin(ingest::run(&global, flags)).await,
            Command::Usage(flags) => Box::pin(usage::run(&global, flags)).await,
            _ => Err(Error::internal("the quickstart only ingests and asks for usage").into()),
        }
    }

    /// The command with the global flags that it needs to mean the same when it is typed.
    fn arguments(&self, command: &[&str]) -> Vec<String> {
        let mut arguments: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        let mut option = |name: &str, value: &str| {
            arguments.extend([name.to_owned(), value.to_owned()]);
        };
        if self.global.lake != LAKE_DEFAULT {
            option("--lake", &self.global.lake);
        }
        if self.global.namespace != NAMESPACE_DEFAULT {
            option("--namespace", &self.global.namespace);
        }
        if let Some(state) = &self.global.state {
            option("--state", &state.display().to_string());
        }
        let named = Path::new(METERS_DEFAULT);
        let asks_meters = command.first() != Some(&"ingest");
        if asks_meters
            && (self.files.meters != METERS_DEFAULT || self.global.meters_folder != named)
        {
            option("--meters", &self.files.meters);
        }
        arguments
    }

    fn line(&self, arguments: &[String]) -> String {
        let words = std::iter::once(self.program).chain(arguments.iter().map(String::as_str));
        words.map(quoted).collect::<Vec<_>>().join(" ")
    }

    fn global_of_steps(&self) -> Global {
        Global { meters_folder: PathBuf::from(&self.files.meters), ..self.global.clone() }
    }

    fn farewell(&self) -> String {
        let sql = "SELECT method, count(*) AS requests FROM events GROUP BY method ORDER BY method";
        let lines = [
            self.arguments(&["meters", "list"]),
            self.arguments(&["sql", sql]),
            self.arguments(&["usage", "clients", "--window", "day", "--total"]),
        ]
        .map(|arguments| format!("  {}", self.line(&arguments)));
        format!("\nTo go on:\n{}\n  {} --help", lines.join("\n"), quoted(self.program))
    }
}

/// The total of the meter `bandwidth`, as exact text.
async fn total_bytes(global: &Global) -> Result<String> {
    let meters = load_meters(global, &["bandwidth".to_owned()])?;
    let context = context(global, meters).await?;
    let request = UsageRequest {
        meters: vec!["bandwidth".to_owned()],
        grouping: Grouping::Total,
        ..UsageRequest::default()
    };
    let mut total = String::from("0");
    let take = &mut |batch: arrow::record_batch::RecordBatch| {
        let values = batch.column_by_name(columns::VALUE).and_then(|c| c.as_string_opt::<i32>());
        if let Some(value) = values.and_then(|values| values.iter().flatten().next()) {
            value.clone_into(&mut total);
        }
        Ok(true)
    };
    crate::usage::usage(&context, &request, take).await?;
    Ok(total)
}

/// A word as a shell takes it for one.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,%+@".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        for (word, want) in [
            ("--top", "--top"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
            ("$HOME", "'$HOME'"),
        ] {
            assert_eq!(quoted(word), want);
        }
    }
}
