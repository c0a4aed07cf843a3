//! Literals of conditions, typed by how they are written.

use std::ops::Range;

use super::filter::Literal;
use crate::decimal::NumberError;
use crate::document::{Content, Findings, Node, number, quote};

/// A literal, typed by how it is written.
pub(super) fn literal(
    node: &Node,
    place: &Range<usize>,
    key: &str,
    findings: &mut Findings<'_>,
) -> Option<Literal> {
    match &node.content {
        Content::Scalar { .. } if node.is_null() => {
            let help = "an absent value is asked for with `exists: false`";
            findings.report_help(place, format!("`{key}` needs a value, not nothing"), help);
            None
        }
        Content::Scalar { text, plain } => {
            if !*plain {
                return Some(Literal::Text(text.clone()));
            }
            match &**text {
                "true" => Some(Literal::Boolean(true)),
                "false" => Some(Literal::Boolean(false)),
                plain => plain_literal(plain, place, findings),
            }
        }
        Content::List(_) | Content::Mapping(_) => {
            findings.report(place, format!("`{key}` needs a value, not {}", node.kind()));
            None
        }
        Content::Refused => None,
    }
}

/// A number if an unquoted text is one, else the text.
fn plain_literal(text: &str, place: &Range<usize>, findings: &mut Findings<'_>) -> Option<Literal> {
    match number(text) {
        Ok(number) => Some(Literal::Number(number)),
        Err(NumberError::NotANumber) => Some(Literal::Text(text.to_owned())),
        Err(NumberError::TooManyDigits) => {
            let message = format!("number {} has too many digits", quote(text));
            let help = "at most 38 stand before and 38 after the point; quote it if it is a text";
            findings.report_help(place, message, help);
            None
        }
    }
}
