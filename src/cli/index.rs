//! `meterhouse index`: the local index of identities.

use super::flags::{Global, IndexCommand};
use super::numbers::counted;
use super::opening::{open_lake, state_of_lake};
use super::outcome::{Failure, Outcome};
use super::output::say;
use crate::clock::Clock;
use crate::error::Error;
use crate::ingest::rebuild_index;

/// Runs the command.
pub(super) async fn run(global: &Global, command: &IndexCommand) -> Result<Outcome, Failure> {
    let IndexCommand::Rebuild = command;
    let lake = open_lake(global).await?;
    let Some(state) = state_of_lake(global, &lake)? else {
        let place = &lake.location;
        return Err(Error::invalid(format!("{place} has no local state: --state names one")).into());
    };
    let rebuilt = rebuild_index(&lake, &state, Clock::System).await?;
    if !global.quiet {
        let keys = counted(rebuilt.keys, "key");
        let (version, place) = (rebuilt.version, state.display());
        say(&format!("{keys} from version {version} of {}, in {place}", lake.events.display()));
    }
    Ok(Outcome::Done)
}
