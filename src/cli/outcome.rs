//! How a command ends, and the exit code and words for it.

use std::error::Error as StdError;

use crate::error::{Error, ErrorKind};

/// Everything was done.
const DONE: u8 = 0;
/// Something failed.
pub(super) const FAILED: u8 = 1;
/// The command line is at fault.
pub(super) const WRONG_ARGUMENTS: u8 = 2;
/// Events were rejected or in conflict.
const SOME_REFUSED: u8 = 3;
/// Something stored is not as it was written.
const MISMATCH: u8 = 4;

/// How a command ends that did its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All of it.
    Done,
    /// And there is something that may be meant, or not.
    Warned(String),
    /// But for events that were rejected or in conflict.
    SomeRefused,
    /// And found something stored that is not as it was written.
    Mismatch,
    /// Of what can be done by now; the rest can be later.
    SomeLater,
    /// None of it: all can be done later only.
    NothingYet,
}

impl Outcome {
    /// The exit code.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Done | Self::Warned(_) | Self::SomeLater => DONE,
            Self::SomeRefused => SOME_REFUSED,
            Self::Mismatch => MISMATCH,
            Self::NothingYet => FAILED,
        }
    }
}

/// What became of `all`, such as `3 meters`, where `wrong` says what kept some from being done.
pub(super) fn all_or(mut wrong: Vec<Error>, all: &str, done: &str) -> Result<(), Error> {
    match wrong.len() as u64 {
        0 => Ok(()),
        _ if all.starts_with("1 ") => Err(wrong.remove(0)),
        several => {
            let mut texts: Vec<String> = wrong.iter().map(ToString::to_string).collect();
            // What is wrong with all of them is said once.
            texts.dedup();
            let text = format!("{several} of {all} not {done}:\n{}", texts.join("\n"));
            Err(Error::new(kind_of(&wrong), text).with_source(wrong.remove(0)))
        }
    }
}

/// Everything that is wrong, told as one error.
pub(super) fn joined(mut wrong: Vec<Error>) -> Option<Error> {
    if wrong.len() < 2 {
        return wrong.pop();
    }
    let texts: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    Some(Error::new(kind_of(&wrong), texts.join("\n")).with_source(wrong.remove(0)))
}

/// What several errors have in common says what to do; else the request is what can be changed.
fn kind_of(wrong: &[Error]) -> ErrorKind {
    if wrong.iter().any(|error| error.kind() == ErrorKind::Unavailable) {
        // Once the store is there again, the rest may be other.
        return ErrorKind::Unavailable;
    }
    match wrong {
        [first, rest @ ..] if rest.iter().all(|e| e.kind() == first.kind()) => first.kind(),
        _ => ErrorKind::Invalid,
    }
}

/// Why a command did not do its work.
#[derive(Debug)]
pub(super) enum Failure {
    /// The arguments do not say what to do.
    Arguments(String),
    /// It could not be done.
    Failed(Error),
}

impl Failure {
    /// The exit code.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Arguments(_) => WRONG_ARGUMENTS,
            Self::Failed(_) => FAILED,
        }
    }

    /// What to tell: the message, then those of its causes that say more.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Arguments(message) => {
                format!("error: {message}\n\nFor more information, try '--help'.")
            }
            Self::Failed(error) => error_text(error),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// An error for people: `error: …`, then the causes that the message does not already contain.
pub(super) fn error_text(error: &Error) -> String {
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        let line = words.lines().next().unwrap_or_default().trim();
        if !line.is_empty() && !text.contains(line) {
            text.push_str("\n  because: ");
            text.push_str(line);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_only_if_they_add_something() {
        let io = || std::io::Error::other("disk full");
        for (name, error, want) in [
            ("no cause", Error::invalid("bad zone"), "error: bad zone"),
            (
                "a cause that was told",
                Error::unavailable("cannot write: disk full").with_source(io()),
                "error: cannot write: disk full",
            ),
            (
                "a cause that adds",
                Error::unavailable("cannot write").with_source(io()),
                "error: cannot write\n  because: disk full",
            ),
        ] {
            assert_eq!(error_text(&error), want, "{name}");
        }
    }
}
