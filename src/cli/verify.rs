//! `meterhouse verify`: whether the lake is as it was written; what is not is the command's data.

use super::flags::Global;
use super::numbers::{counted, grouped};
use super::opening::{context, state_of_lake};
use super::outcome::{Failure, Outcome};
use super::output::{printable, say, write_text};
use crate::error::ErrorKind;
use crate::ingest::Counts;
use crate::ingest::check::{AddedUp, KeysLookedUp};
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
    let keys = verified.keys.as_ref().map(|keys| format!(" ({})", keys_text(keys)));
    let accounts = match &verified.accounts {
        Some(accounts) => accounts_text(accounts),
        None => "identities, accounts and key index were not compared, as files are damaged".into(),
    };
    let ended = match verified.wrong.len() as u64 {
        0 => "all as written".to_owned(),
        wrong => counted(wrong, "mismatch"),
    };
    format!(
        "version {}: {}, {}{}; {accounts}\n{ended}",
        verified.version,
        counted(verified.files, "file"),
        counted(verified.events, "event"),
        keys.unwrap_or_default(),
    )
}

fn keys_text(keys: &KeysLookedUp) -> String {
    match keys {
        KeysLookedUp::Events(events) => {
            format!("{} of them looked up in the key index", grouped(*events))
        }
        KeysLookedUp::NoIndex => "no key index here".to_owned(),
        KeysLookedUp::Outdated => {
            "the key index here is of another history, the next ingest makes it anew".to_owned()
        }
        KeysLookedUp::Refused(why) => format!("the key index was not looked into: {why}"),
        KeysLookedUp::Damaged => {
            "the key index is damaged: `meterhouse index rebuild` makes it anew".to_owned()
        }
    }
}

fn accounts_text(accounts: &AddedUp) -> String {
    let Counts { read, accepted, duplicate, conflict, rejected } = accounts.counts;
    let [read, accepted, duplicate, conflict, rejected] =
        [read, accepted, duplicate, conflict, rejected].map(grouped);
    let mut text = format!(
        "{read} read = {accepted} accepted + {duplicate} duplicate + {conflict} conflict + \
         {rejected} rejected"
    );
    if accounts.in_log_alone > 0 {
        text.push_str(&format!(
            "; known from the log alone until the next ingest: {}",
            counted(accounts.in_log_alone, "batch")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::verify::Mismatch;

    #[test]
    fn each_check_tells_what_it_found_and_no_other_one() {
        let counts = Counts { read: 3, accepted: 2, rejected: 1, ..Counts::default() };
        let sums = "; 3 read = 2 accepted + 0 duplicate + 0 conflict + 1 rejected";
        let wrong = |detail: &str| Mismatch { place: "p".to_owned(), detail: detail.to_owned() };
        let mismatch = vec![wrong("is gone")];
        for (keys, in_log_alone, wrong, want) in [
            (
                KeysLookedUp::Events(2),
                0,
                Vec::new(),
                format!("(2 of them looked up in the key index){sums}\nall as written"),
            ),
            (
                KeysLookedUp::NoIndex,
                1,
                Vec::new(),
                format!(
                    "(no key index here){sums}; known from the log alone until the next ingest: 1 \
                     batch\nall as written"
                ),
            ),
            (
                KeysLookedUp::Damaged,
                0,
                mismatch.clone(),
                format!(
                    "(the key index is damaged: `meterhouse index rebuild` makes it anew){sums}\n\
                     1 mismatch"
                ),
            ),
            (
                KeysLookedUp::Outdated,
                0,
                mismatch.clone(),
                format!(
                    "(the key index here is of another history, the next ingest makes it anew){sums}\n\
                     1 mismatch"
                ),
            ),
        ] {
            let accounts = Some(AddedUp { counts, in_log_alone });
            let verified =
                Verified { version: 7, files: 4, events: 2, keys: Some(keys), accounts, wrong };
            assert_eq!(told(&verified), format!("version 7: 4 files, 2 events {want}"));
        }
        let damaged = Verified { events: 2, wrong: mismatch, ..Verified::default() };
        assert_eq!(
            told(&damaged),
            "version 0: 0 files, 2 events; identities, accounts and key index were not compared, as \
             files are damaged\n1 mismatch"
        );
    }
}
