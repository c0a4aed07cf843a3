//! JSON whose records are not one a line: objects with their members on lines of their own, and
//! events inside of `{"events": […]}`.
//!
//! Recognised by how the text begins. A line that holds nothing but an opening brace begins an
//! object, whatever stands before it, so that a broken object costs itself and not what follows.

use super::{BLOCK_BYTES, Scan};

/// Where the array begins in `{"events": [`, if that is what stands at `start`.
pub(in super::super) fn array_of_events(bytes: &[u8], start: usize) -> Option<usize> {
    let mut rest = &bytes[start..];
    for part in [b"{".as_slice(), b"\"events\"", b":"] {
        rest = rest.strip_prefix(part)?.trim_ascii_start();
    }
    rest.starts_with(b"[").then(|| bytes.len() - rest.len())
}

/// Whether the events behind the bracket at `array` are not all on its line: nothing follows it
/// there, or the line is longer than what is read at a time.
pub(super) fn goes_on_below(bytes: &[u8], array: usize) -> bool {
    match bytes[array..].iter().position(|&byte| byte == b'\n') {
        Some(end) => bytes[array + 1..array + end].trim_ascii().is_empty(),
        None => bytes.len() >= BLOCK_BYTES,
    }
}

/// Whether an object begins that has its members on lines of their own: a brace alone on the first,
/// then a name. A brace that broke off is followed by the next line's.
pub(super) fn is_spread(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.next();
    let second = lines.find(|line| !line.is_empty()).unwrap_or_default();
    let mut parts = second.splitn(3, |&byte| byte == b'"');
    let name = (parts.next(), parts.next().is_some());
    let after = parts.next().unwrap_or_default().trim_ascii_start();
    first == Some(b"{") && name == (Some(b""), true) && after.starts_with(b":")
}

/// Cuts `bytes` into objects: gives the end of each, and where the last, unfinished one begins.
pub(super) fn objects(
    bytes: &[u8],
    ended: bool,
    mut take: impl FnMut(std::ops::Range<usize>),
) -> usize {
    let (mut start, mut scan) = (0, Scan::default());
    for place in 0..bytes.len() {
        let inside = scan.depth > 0 || scan.in_text;
        if inside && place > start && bytes[place - 1] == b'\n' && opens(&bytes[place..], ended) {
            take(start..place);
            (start, scan) = (place, Scan::default());
        }
        let before = scan.depth;
        scan.ends_at(bytes[place]);
        if before == 1 && scan.depth == 0 {
            take(start..place + 1);
            (start, scan) = (place + 1, Scan::default());
        }
    }
    start
}

/// Where the first line begins that opens an object, of lines of which the first begins `bytes`.
pub(super) fn next_object(bytes: &[u8], ended: bool) -> Option<usize> {
    let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    std::iter::once(0).chain(starts).find(|&start| opens(&bytes[start..], ended))
}

/// Whether a line holds nothing but an opening brace in its first column.
fn opens(line: &[u8], ended: bool) -> bool {
    let Some(rest) = line.strip_prefix(b"{") else { return false };
    match rest.iter().position(|&byte| byte == b'\n') {
        Some(end) => rest[..end].trim_ascii().is_empty(),
        None => ended && rest.trim_ascii().is_empty(),
    }
}
