//! Small YAML and JSON files that people write: a tree whose nodes know their place, typed readings
//! of it, and everything that is wrong with it told at once.
//!
//! Scalars are taken as they are written, so that `NO` is a text and `0.10` an exact number.
//! Knows nothing of what the files mean.

mod diagnostic;
mod tree;
mod value;
mod words;

pub use diagnostic::{Diagnostic, Diagnostics, Findings, Source, quote};
pub use tree::{Content, Entry, Node, read_document};
pub use value::{
    Keys, boolean, filled_text, items, keys, keys_except, mapping, number, positive_number, scalar,
    text, texts, whole_number, word,
};
pub use words::{SYNONYMS, nearest, suggestion};
