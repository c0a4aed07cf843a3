//! `meterhouse compact`: many small files become few.

use std::time::Duration;

use super::actor::actor;
use super::flags::{CompactFlags, Global};
use super::numbers::{bytes, counted, grouped};
use super::opening::open_lake;
use super::outcome::{Failure, Outcome, error_text};
use super::output::say;
use crate::clock::Clock;
use crate::error::{ErrorKind, Result};
use crate::lake::compact::{CompactSettings, Compacted, compact};
use crate::lake::tables::Lake;

/// Runs the command.
pub(super) async fn run(global: &Global, flags: &CompactFlags) -> Result<Outcome, Failure> {
    let lake = open_lake(global).await?;
    let mut settings = CompactSettings { by: actor(), ..CompactSettings::default() };
    if let Some(memory_bytes) = global.memory {
        settings.memory_bytes = memory_bytes;
    }
    let watch = flags.watch.map(|seconds| Duration::from_secs(seconds.into()));
    loop {
        let done = once(&lake, &settings, global.quiet, watch.is_none()).await;
        let Some(pause) = watch else { return done.map(|()| Outcome::Done).map_err(Into::into) };
        match done {
            // A store that is away or a disk that is full may not be so the next time.
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Conflict) => {
                say(&error_text(&error));
            }
            other => other?,
        }
        tokio::time::sleep(pause).await;
    }
}

/// One pass; `always` says something even if there was nothing to do.
async fn once(lake: &Lake, settings: &CompactSettings, quiet: bool, always: bool) -> Result<()> {
    let done = compact(&lake.events, settings, Clock::System.now(), |_| ()).await?;
    let version = lake.events.snapshot(None).await?.version;
    if !quiet && (always || done.commits > 0) {
        say(&told(done, version, lake.events.display()));
    }
    Ok(())
}

fn told(done: Compacted, version: u64, place: &str) -> String {
    let given_way = match done.given_way {
        0 => String::new(),
        groups => format!("; {} left to another compaction", counted(groups, "group")),
    };
    if done.commits == 0 {
        return format!("nothing to compact, version {version} of {place}{given_way}");
    }
    format!(
        "{} of {} rows became {}, {} became {}; {} to version {version} of {place}{given_way}",
        counted(done.files_before, "file"),
        grouped(done.rows),
        grouped(done.files_after),
        bytes(done.bytes_before),
        bytes(done.bytes_after),
        counted(done.commits, "commit"),
    )
}
