//! `meterhouse verify`: whether the lake is as it was written; what is not is the command's data.

use super::flags::Global;
use super::numbers::{counted, grouped};
use super::opening::{context, state_of_lake};
use super::outcome::{Failure, Outcome};
use super::output::{printable, say, write_text};
use crate::error::ErrorKind;
use crate::ingest::Counts;
use crate::verify::{Verified, verify};

/// Runs the command.
pub(super) async fn run(global: &Global) -> Result<Outcome, Failure> {
    let context = match context(global, Vec::new()).await {
        Err(error) if error.kind() == ErrorKind::Corrupt => return damaged(&error.to_string()),
        opened => opened?,
    };
    let state = state_of_lake(global, &context.lake)?;
    let verified = match verify(&context, state.as_deref()).await {
        Err(error) if error.kind() == ErrorKind::Corrupt => return damaged(&error.to_string()),
        verified => verified?,
    };
    for wrong in &verified.wrong {
        write_text(&format!("{}\n", printable(&format!("{}: {}", wrong.place, wrong.detail))))?;
    }
    if !global.quiet {
        say(&told(&verified));
    }
    Ok(if verified.wrong.is_empty() { Outcome::Done } else { Outcome::Mismatch })
}

/// Damage beneath which nothing else can be told.
fn damaged(text: &str) -> Result<Outcome, Failure> {
    write_text(&format!("{}\n", printable(text)))?;
    Ok(Outcome::Mismatch)
}

fn told(verified: &Verified) -> String {
    let Counts { read, accepted, duplicate, conflict, rejected } = verified.counts;
    let keys = match (verified.keys, &verified.keys_refused) {
        (Some(keys), _) => format!("{} of them looked up in the key index", grouped(keys)),
        (None, Some(why)) => format!("the key index was not looked into: {why}"),
        (None, None) => "no key index here".to_owned(),
    };
    let ended = match verified.wrong.len() as u64 {
        0 => "all as written".to_owned(),
        wrong => counted(wrong, "mismatch"),
    };
    let [read, accepted, duplicate, conflict, rejected] =
        [read, accepted, duplicate, conflict, rejected].map(grouped);
    format!(
        "version {}: {}, {} ({keys}); {read} read = {accepted} accepted + {duplicate} duplicate + \
         {conflict} conflict + {rejected} rejected\n{ended}",
        verified.version,
        counted(verified.files, "file"),
        counted(verified.events, "event"),
    )
}
