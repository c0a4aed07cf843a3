//! `meterhouse vacuum`, `pin` and `unpin`: which old files stay.

use super::actor::actor;
use super::flags::{Global, PinFlags, UnpinFlags, VacuumFlags};
use super::numbers::{bytes, counted};
use super::opening::open_lake;
use super::outcome::{Failure, Outcome, joined};
use super::output::{say, write_text};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::ingest::accounts;
use crate::ingest::follow::Ledger;
use crate::lake::log_cleanup::shorten_log;
use crate::lake::table::Table;
use crate::lake::tables::Lake;
use crate::lake::vacuum::{Vacuumed, vacuum};
use crate::period;
use crate::rollup;
use crate::time::Timestamp;

/// Runs `vacuum`; the files are its data.
pub(super) async fn run(global: &Global, flags: &VacuumFlags) -> Result<Outcome, Failure> {
    let lake = open_lake(global).await?;
    let now = Clock::System.now();
    let gone = vacuum(&lake.events, flags.retention, now, flags.dry_run).await?;
    for file in &gone.files {
        write_text(&format!("{file}\n"))?;
    }
    if !global.quiet {
        say(&told(&gone, flags.dry_run));
    }
    let wrong = of_rollups(global, &lake, flags, now).await?;
    if let Some(keep) = flags.log {
        if !flags.dry_run {
            // What only the log tells is written down before it goes.
            accounts::take_over(&lake).await?;
            Ledger::open(&lake).await?;
        }
        // No version whose files are kept is forgotten.
        let keep = keep.max(flags.retention);
        let shortened = shorten_log(&lake.events, keep, now, flags.dry_run).await?;
        if !global.quiet {
            let done = if flags.dry_run { "would shorten" } else { "shortened" };
            let files = counted(shortened.files, "file");
            let oldest = shortened.oldest;
            say(&format!("{done} the log by {files}; its oldest version is {oldest}"));
        }
    }
    match joined(wrong) {
        None => Ok(Outcome::Done),
        Some(error) => Err(error.into()),
    }
}

/// The same for the rollups; what is wrong with those that are damaged.
async fn of_rollups(
    global: &Global,
    lake: &Lake,
    flags: &VacuumFlags,
    now: Timestamp,
) -> Result<Vec<Error>> {
    let (mut all, mut emptied, mut wrong) = (Vacuumed::default(), 0, Vec::new());
    for (name, table) in rollup::tables(lake).await? {
        match of_rollup(lake, table, flags, now).await {
            Ok((gone, is_emptied)) => {
                for file in &gone.files {
                    write_text(&format!("{name}/{file}\n"))?;
                }
                all.bytes += gone.bytes;
                all.files.extend(gone.files);
                emptied += u64::from(is_emptied);
            }
            Err(error) => wrong.push(error),
        }
    }
    if !global.quiet && emptied > 0 {
        let rollups = counted(emptied, "rollup");
        say(&format!("{rollups} not refreshed for so long, though events came: emptied"));
    }
    if !global.quiet && !all.files.is_empty() {
        say(&format!("of rollups {}", deleted(&all, flags.dry_run)));
    }
    Ok(wrong)
}

async fn of_rollup(
    lake: &Lake,
    table: Result<Table>,
    flags: &VacuumFlags,
    now: Timestamp,
) -> Result<(Vacuumed, bool)> {
    let table = table?;
    let emptied = match flags.dry_run {
        true => 0,
        false => rollup::empty_if_idle(lake, &table, flags.retention, now).await?,
    };
    let gone = vacuum(&table, flags.retention, now, flags.dry_run).await?;
    if let Some(keep) = flags.log {
        shorten_log(&table, keep.max(flags.retention), now, flags.dry_run).await?;
    }
    Ok((gone, emptied > 0))
}

fn told(gone: &Vacuumed, dry_run: bool) -> String {
    let pinned: Vec<String> = gone.pinned.iter().map(u64::to_string).collect();
    let pinned = match pinned.is_empty() {
        true => String::new(),
        false => format!(" and the pinned {}", pinned.join(", ")),
    };
    let deleted = deleted(gone, dry_run);
    format!("{deleted}; kept are versions from {} on{pinned}", gone.oldest)
}

fn deleted(gone: &Vacuumed, dry_run: bool) -> String {
    let done = if dry_run { "would delete" } else { "deleted" };
    format!("{done} {}, {}", counted(gone.files.len() as u64, "file"), bytes(gone.bytes))
}

/// Runs `pin`.
pub(super) async fn pin(global: &Global, flags: &PinFlags) -> Result<Outcome, Failure> {
    let lake = open_lake(global).await?;
    let version = match flags.version {
        Some(version) => version,
        None => lake.events.snapshot(None).await?.version,
    };
    let now = Clock::System.now();
    let new = lake.events.pin(version, actor(), flags.reason.clone(), now).await?;
    if !global.quiet {
        let already = if new { "" } else { " already" };
        say(&format!("version {version} is pinned{already}"));
    }
    Ok(Outcome::Done)
}

/// Runs `unpin`.
pub(super) async fn unpin(global: &Global, flags: &UnpinFlags) -> Result<Outcome, Failure> {
    let lake = open_lake(global).await?;
    period::unpin(&lake, flags.version).await?;
    if !global.quiet {
        say(&format!("version {} is pinned no longer", flags.version));
    }
    Ok(Outcome::Done)
}
