//! Cuts a stream of JSON into blocks of whole records: lines, or the elements of one array.
//!
//! Memory is bounded whatever the input: a record longer than a block is passed over and reported.
//! Whether a record is valid JSON is the decoder's to say.

use std::collections::VecDeque;
use std::io::Read;
use std::ops::Range;

mod spread;

pub(super) use spread::array_of_events;
use spread::{goes_on_below, is_spread, next_object, objects};

/// How much is read at a time, and the longest record that is looked at.
pub(super) const BLOCK_BYTES: usize = 4 << 20;

/// Most records of one block: refused ones take far more memory than their text.
const BLOCK_RECORDS: usize = 16_384;

/// What some programs put before a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Some records of one input.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    /// The text that the records lie in.
    pub bytes: Vec<u8>,
    /// Line (from 1) and place in `bytes` of each record.
    pub records: Vec<(u64, Range<usize>)>,
    /// Lines at which a record began that was longer than a block.
    pub oversized: Vec<u64>,
    /// Line and description of a break in the structure around the records.
    pub broken: Option<(u64, &'static str)>,
}

/// Reads blocks from a stream.
pub(super) struct Splitter<R> {
    source: R,
    pending: Vec<u8>,
    /// Blocks that were cut out of `pending` together, of very short records.
    ready: VecDeque<Block>,
    line: u64,
    form: Form,
    begun: bool,
    ended: bool,
    /// Whether the elements of `{"events": […]}` are looked for.
    unwrap: bool,
    /// Whether the array stands in such an object.
    wrapped: bool,
    /// Whether a line counts only once it is ended.
    whole_lines: bool,
    /// A last line that did not count.
    unended: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Unknown,
    Lines,
    /// Objects that are spread over lines.
    Objects,
    /// The rest of such an object that was too long is being passed over.
    LongObject,
    /// The rest of a line that was too long is being passed over.
    LongLine,
    Array,
    /// The rest of an element that was too long is being passed over.
    LongElement(Scan),
    /// The array has ended.
    AfterArray,
    /// The object around it is to be closed.
    Closing,
}

/// Where in a JSON value a scan stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Scan {
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Scan {
    /// Takes one byte; whether it ends the element (a comma or bracket of the outer array).
    fn ends_at(&mut self, byte: u8) -> bool {
        if self.in_text {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_text = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_text = true,
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' if self.depth > 0 => self.depth -= 1,
            b']' | b'}' | b',' => return self.depth == 0,
            _ => {}
        }
        false
    }
}

impl<R: Read> Splitter<R> {
    /// A splitter at the beginning of `source`.
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            pending: Vec::new(),
            ready: VecDeque::new(),
            line: 1,
            form: Form::Unknown,
            begun: false,
            ended: false,
            unwrap: false,
            wrapped: false,
            whole_lines: false,
            unended: None,
        }
    }

    /// The same, and where all of the input is one `{"events": […]}` that is spread over lines, the
    /// elements are the records. Such an object on a line of its own is one record.
    pub(super) fn unwrapping(source: R) -> Self {
        Self { unwrap: true, ..Self::new(source) }
    }

    /// A splitter that takes every line as a record, whatever it begins with, but for a last line
    /// that is not ended: half of one reads as another.
    pub(super) fn lines(source: R) -> Self {
        Self { form: Form::Lines, whole_lines: true, ..Self::new(source) }
    }

    /// The number of a last line that was left out because it is not ended.
    pub(super) fn unended(&self) -> Option<u64> {
        self.unended
    }

    /// The next records, `None` at the end.
    ///
    /// # Errors
    /// Those of the stream.
    pub(super) fn next_block(&mut self) -> std::io::Result<Option<Block>> {
        loop {
            if let Some(block) = self.ready.pop_front() {
                return Ok(Some(block));
            }
            if self.ended && self.pending.is_empty() {
                return Ok(self.end_of_input());
            }
            self.fill()?;
            if !self.begun {
                self.begun = true;
                if self.pending.starts_with(BYTE_ORDER_MARK) {
                    self.pending.drain(..BYTE_ORDER_MARK.len());
                }
            }
            if self.form == Form::Unknown {
                self.recognise();
            }
            let mut block = Block::default();
            match self.form {
                Form::Unknown | Form::Lines => self.take_lines(&mut block),
                Form::Objects => self.take_objects(&mut block),
                Form::LongObject => self.skip_object(),
                Form::Closing => self.close(&mut block),
                Form::LongLine => self.skip_line(),
                Form::Array => self.take_elements(&mut block),
                Form::LongElement(scan) => self.skip_element(scan),
                Form::AfterArray => self.after_array(&mut block),
            }
            if block != Block::default() {
                self.ready = divided(block);
            }
        }
    }

    /// An array that was never closed is reported once.
    fn end_of_input(&mut self) -> Option<Block> {
        let open = matches!(self.form, Form::Array | Form::LongElement(_) | Form::Closing);
        self.form = Form::AfterArray;
        open.then(|| Block {
            broken: Some((self.line, "the input ends inside the array")),
            ..Block::default()
        })
    }

    fn fill(&mut self) -> std::io::Result<()> {
        let wanted = BLOCK_BYTES.saturating_sub(self.pending.len()) as u64;
        if !self.ended && wanted > 0 {
            let read = self.source.by_ref().take(wanted).read_to_end(&mut self.pending)?;
            self.ended = (read as u64) < wanted;
        }
        Ok(())
    }

    /// An input whose first value is an array is one array; everything else is lines.
    fn recognise(&mut self) {
        let start = self.pending.iter().position(|byte| !byte.is_ascii_whitespace());
        let Some(start) = start else {
            self.form = Form::Lines;
            return;
        };
        let array = match self.pending[start] {
            b'[' => Some(start),
            b'{' if self.unwrap => array_of_events(&self.pending, start)
                .filter(|&array| goes_on_below(&self.pending, array)),
            _ => None,
        };
        self.wrapped = array.is_some_and(|array| array > start);
        self.form = match array {
            Some(array) => {
                self.line += lines_in(&self.pending[..array]);
                self.pending.drain(..=array);
                Form::Array
            }
            None if is_spread(&self.pending[start..]) => Form::Objects,
            None => Form::Lines,
        };
    }

    /// Objects one behind the other, wherever their lines end.
    fn take_objects(&mut self, block: &mut Block) {
        let pending = std::mem::take(&mut self.pending);
        let mut start = objects(&pending, self.ended, |range| self.push(&pending, range, block));
        if self.ended {
            self.push(&pending, start..pending.len(), block);
            start = pending.len();
        } else if start == 0 && pending.len() >= BLOCK_BYTES {
            block.oversized.push(self.line);
            self.form = Form::LongObject;
        }
        self.pending = pending[start..].to_vec();
        if !block.records.is_empty() {
            block.bytes = pending;
        }
    }

    /// Passes over lines until an object begins.
    fn skip_object(&mut self) {
        // The line that the object began with is the first.
        let first = self.pending.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let next = next_object(&self.pending[first..], self.ended).map(|next| first + next);
        let last_line = self.pending.iter().rposition(|&byte| byte == b'\n').unwrap_or(0);
        let end = match next {
            Some(next) => next,
            None if self.ended => self.pending.len(),
            None => last_line,
        };
        self.line += lines_in(&self.pending[..end]);
        self.pending.drain(..end);
        if next.is_some() {
            self.form = Form::Objects;
        } else if self.pending.len() >= BLOCK_BYTES {
            self.line += lines_in(&self.pending);
            self.pending.clear();
        }
    }

    /// Adds a record of `pending`, unless it is blank, and counts its lines.
    fn push(&mut self, pending: &[u8], range: Range<usize>, block: &mut Block) {
        let record = trimmed(pending, range.clone());
        if !record.is_empty() {
            let line = self.line + lines_in(&pending[range.start..record.start]);
            block.records.push((line, record));
        }
        self.line += lines_in(&pending[range]);
    }

    /// Expects the brace behind an array of events.
    fn close(&mut self, block: &mut Block) {
        let Some(place) = self.pending.iter().position(|byte| !byte.is_ascii_whitespace()) else {
            self.line += lines_in(&self.pending);
            self.pending.clear();
            return;
        };
        self.line += lines_in(&self.pending[..place]);
        if self.pending[place] == b'}' {
            self.pending.drain(..=place);
        } else {
            let detail = "something stands behind the array of events; the rest is not read";
            block.broken = Some((self.line, detail));
            self.pending.clear();
            self.ended = true;
        }
        self.form = Form::AfterArray;
    }

    fn take_lines(&mut self, block: &mut Block) {
        let end = match self.pending.iter().rposition(|&byte| byte == b'\n') {
            Some(last) => last + 1,
            None if self.ended && self.whole_lines => {
                let blank = self.pending.trim_ascii().is_empty();
                self.unended = (!blank).then_some(self.line);
                self.pending.clear();
                return;
            }
            None if self.ended => self.pending.len(),
            None => {
                block.oversized.push(self.line);
                self.pending.clear();
                self.form = Form::LongLine;
                return;
            }
        };
        let rest = self.pending.split_off(end);
        let bytes = std::mem::replace(&mut self.pending, rest);
        let mut start = 0;
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            let record = trimmed(&bytes, start..start + line.len());
            if !record.is_empty() {
                block.records.push((self.line, record));
            }
            start += line.len();
            self.line += u64::from(line.ends_with(b"\n"));
        }
        block.bytes = bytes;
        if block.records.is_empty() {
            block.bytes.clear();
        }
    }

    fn skip_line(&mut self) {
        match self.pending.iter().position(|&byte| byte == b'\n') {
            Some(end) => {
                self.pending.drain(..=end);
                self.line += 1;
                self.form = Form::Lines;
            }
            None => self.pending.clear(),
        }
    }

    fn take_elements(&mut self, block: &mut Block) {
        let (mut start, mut scan, mut closed) = (0, Scan::default(), None);
        for place in 0..self.pending.len() {
            let byte = self.pending[place];
            if !scan.ends_at(byte) {
                continue;
            }
            let record = trimmed(&self.pending, start..place);
            let first = block.records.is_empty() && start == 0;
            let line = self.line + lines_in(&self.pending[start..record.start]);
            // `[]` has no element; `[1,]` has an empty one, which no decoder accepts.
            if !(record.is_empty() && byte == b']' && first) {
                block.records.push((line, record));
            }
            self.line += lines_in(&self.pending[start..=place]);
            start = place + 1;
            if byte != b',' {
                closed = Some(byte);
                break;
            }
        }
        match closed {
            Some(b']') if self.wrapped => self.form = Form::Closing,
            Some(b']') => self.form = Form::AfterArray,
            Some(_) => {
                block.broken =
                    Some((self.line, "the array is closed by `}`; the rest is not read"));
                self.form = Form::AfterArray;
            }
            None if start == 0 && self.pending.len() >= BLOCK_BYTES => {
                block.oversized.push(self.line);
                self.line += lines_in(&self.pending);
                self.form = Form::LongElement(scan);
                start = self.pending.len();
            }
            None if self.ended => {
                let record = trimmed(&self.pending, start..self.pending.len());
                if !record.is_empty() {
                    let line = self.line + lines_in(&self.pending[start..record.start]);
                    block.records.push((line, record));
                }
                self.line += lines_in(&self.pending[start..]);
                start = self.pending.len();
            }
            None => {}
        }
        let rest = self.pending.split_off(start);
        let bytes = std::mem::replace(&mut self.pending, rest);
        if !block.records.is_empty() {
            block.bytes = bytes;
        }
    }

    fn skip_element(&mut self, mut scan: Scan) {
        let end = self.pending.iter().position(|&byte| scan.ends_at(byte));
        let Some(end) = end else {
            self.line += lines_in(&self.pending);
            self.pending.clear();
            self.form = Form::LongElement(scan);
            return;
        };
        self.line += lines_in(&self.pending[..end]);
        self.form = match self.pending[end] {
            b',' => Form::Array,
            b']' if self.wrapped => Form::Closing,
            _ => Form::AfterArray,
        };
        self.pending.drain(..=end);
    }

    fn after_array(&mut self, block: &mut Block) {
        match self.pending.iter().position(|byte| !byte.is_ascii_whitespace()) {
            // An array on a line of its own after the other, or lines after an array.
            Some(place)
                if matches!(self.pending[place], b'[' | b'{')
                    && self.pending[..place].contains(&b'\n') =>
            {
                self.form = Form::Unknown;
                return;
            }
            Some(place) => {
                let line = self.line + lines_in(&self.pending[..place]);
                block.broken = Some((line, "text follows the end of the array and is not read"));
                self.ended = true;
            }
            None => self.line += lines_in(&self.pending),
        }
        self.pending.clear();
    }
}

/// A block as blocks of no more than [`BLOCK_RECORDS`] each, which together are the same.
fn divided(block: Block) -> VecDeque<Block> {
    if block.records.len() <= BLOCK_RECORDS {
        return [block].into();
    }
    let part = |records: &[(u64, Range<usize>)]| {
        let start = records.first().map_or(0, |(_, range)| range.start);
        let end = records.last().map_or(0, |(_, range)| range.end);
        let shifted =
            |(line, range): &(u64, Range<usize>)| (*line, range.start - start..range.end - start);
        Block {
            bytes: block.bytes[start..end].to_vec(),
            records: records.iter().map(shifted).collect(),
            ..Block::default()
        }
    };
    let mut parts: VecDeque<Block> = block.records.chunks(BLOCK_RECORDS).map(part).collect();
    if let Some(last) = parts.back_mut() {
        last.oversized = block.oversized;
        last.broken = block.broken;
    }
    parts
}

fn lines_in(bytes: &[u8]) -> u64 {
    bytes.iter().map(|&byte| u64::from(byte == b'\n')).sum()
}

fn trimmed(bytes: &[u8], range: Range<usize>) -> Range<usize> {
    let text = &bytes[range.clone()];
    let start = range.start + (text.len() - text.trim_ascii_start().len());
    start..start + text.trim_ascii().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Found = (Vec<(u64, String)>, Vec<u64>, Option<(u64, &'static str)>);

    fn records(text: &[u8]) -> Found {
        collect(Splitter::new(text))
    }

    fn collect(mut splitter: Splitter<&[u8]>) -> Found {
        let (mut found, mut oversized, mut broken) = (Vec::new(), Vec::new(), None);
        while let Some(block) = splitter.next_block().unwrap() {
            for (line, range) in &block.records {
                let record = String::from_utf8_lossy(&block.bytes[range.clone()]).into_owned();
                found.push((*line, record));
            }
            oversized.extend(block.oversized);
            broken = broken.or(block.broken);
        }
        (found, oversized, broken)
    }

    fn owned(want: Vec<(u64, &str)>) -> Vec<(u64, String)> {
        want.into_iter().map(|(line, text)| (line, text.to_owned())).collect()
    }

    #[test]
    fn records_keep_their_lines() {
        for (name, text, want, broken) in [
            ("lines", "a\n\n b \r\nc", vec![(1, "a"), (3, "b"), (4, "c")], None),
            ("mark of byte order", "\u{feff}a\n", vec![(1, "a")], None),
            ("nothing", " \n\n", vec![], None),
            ("empty array", " [ ] ", vec![], None),
            (
                "array",
                "[{\"a\":\"],\"},\n [1,2] ]\n",
                vec![(1, "{\"a\":\"],\"}"), (2, "[1,2]")],
                None,
            ),
            ("escapes", r#"["\"],","b"]"#, vec![(1, r#""\"],""#), (1, "\"b\"")], None),
            ("empty last element", "[1,]", vec![(1, "1"), (1, "")], None),
            (
                "one array after the other, and a line",
                "[1]\n[2,\n3]\n{\"a\":4}\n",
                vec![(1, "1"), (2, "2"), (3, "3"), (4, "{\"a\":4}")],
                None,
            ),
            (
                "never closed",
                "[1,\n2",
                vec![(1, "1"), (2, "2")],
                Some((2, "the input ends inside the array")),
            ),
            (
                "another array on the same line",
                "[1][2]",
                vec![(1, "1")],
                Some((1, "text follows the end of the array and is not read")),
            ),
            (
                "text after",
                "[1]\nx",
                vec![(1, "1")],
                Some((2, "text follows the end of the array and is not read")),
            ),
            (
                "wrong bracket",
                "[1}",
                vec![(1, "1")],
                Some((1, "the array is closed by `}`; the rest is not read")),
            ),
        ] {
            let (found, _, got_broken) = records(text.as_bytes());
            let want: Vec<(u64, String)> =
                want.into_iter().map(|(line, text)| (line, text.to_owned())).collect();
            assert_eq!(found, want, "{name}");
            assert_eq!(got_broken, broken, "{name}");
        }
    }

    #[test]
    fn events_in_an_object_that_is_spread_out_are_records() {
        for (name, text, want, broken) in [
            ("one line", "{\"events\":[1,2]}\nx", vec![(1, "{\"events\":[1,2]}"), (2, "x")], None),
            ("spread out", "{\n \"events\": [\n  1\n ]\n}\n", vec![(3, "1")], None),
            ("a value, not an array", "{\"events\":1}\n", vec![(1, "{\"events\":1}")], None),
            (
                "members behind",
                "{\"events\":[\n1],\n\"b\":2}",
                vec![(2, "1")],
                Some((2, "something stands behind the array of events; the rest is not read")),
            ),
            (
                "never closed",
                "{\"events\":[\n1]\n",
                vec![(2, "1")],
                Some((3, "the input ends inside the array")),
            ),
            (
                "broken first line of many",
                "{\"events\":[{\"a\":\"x\n{\"events\":[1]}\n",
                vec![(1, "{\"events\":[{\"a\":\"x"), (2, "{\"events\":[1]}")],
                None,
            ),
        ] {
            let (found, _, got_broken) = collect(Splitter::unwrapping(text.as_bytes()));
            assert_eq!((found, got_broken), (owned(want), broken), "{name}");
        }
        // A line that is longer than a block is no line, but an array all the same.
        let numbers = vec!["1234567"; BLOCK_BYTES / 4].join(",");
        let text = format!("{{\"events\":[{numbers}]}}");
        let (found, oversized, broken) = collect(Splitter::unwrapping(text.as_bytes()));
        assert_eq!((found.len(), oversized.len(), broken), (BLOCK_BYTES / 4, 0, None));
        let (found, ..) = records(b"{\"events\":[\n1]}\n");
        assert_eq!(found, owned(vec![(1, "{\"events\":["), (2, "1]}")]), "not looked for");
    }

    #[test]
    fn objects_on_several_lines_are_records_and_a_broken_one_costs_only_itself() {
        for (name, text, want) in [
            (
                "braces in texts, nested objects, line ends of Windows",
                "{\r\n\"a\": {\"b\": \"}\"}\r\n}\r\n\r\n{\r\n}\r\nx",
                vec![(1, "{\r\n\"a\": {\"b\": \"}\"}\r\n}"), (5, "{\r\n}"), (7, "x")],
            ),
            (
                "a brace missing",
                "{\n \"a\": 1\n{\n \"a\": 2\n}\n",
                vec![(1, "{\n \"a\": 1"), (3, "{\n \"a\": 2\n}")],
            ),
            (
                "a quote missing",
                "{\n \"a\": \"x\n}\n{\n \"a\": 2\n}\n",
                vec![(1, "{\n \"a\": \"x\n}"), (4, "{\n \"a\": 2\n}")],
            ),
        ] {
            assert_eq!(records(text.as_bytes()).0, owned(want), "{name}");
        }
        let long = "x".repeat(2 * BLOCK_BYTES);
        let text = format!("{{\n\"a\":\"{long}\",\n \"b\":1\n}}\n{{\n\"a\": 2\n}}\n");
        let (found, oversized, _) = records(text.as_bytes());
        assert_eq!((found, oversized), (owned(vec![(5, "{\n\"a\": 2\n}")]), vec![1]));
    }

    #[test]
    fn a_last_line_counts_once_it_is_ended() {
        for (text, want, unended) in [
            ("[1\n\n2\n3", vec![(1, "[1"), (3, "2")], Some(4)),
            ("\u{feff}1\n  ", vec![(1, "1")], None),
            ("1\n", vec![(1, "1")], None),
        ] {
            let mut splitter = Splitter::lines(text.as_bytes());
            let mut found = Vec::new();
            while let Some(block) = splitter.next_block().unwrap() {
                let text = |range: &Range<usize>| {
                    String::from_utf8_lossy(&block.bytes[range.clone()]).into_owned()
                };
                found.extend(block.records.iter().map(|(line, range)| (*line, text(range))));
            }
            assert_eq!((found, splitter.unended()), (owned(want), unended), "{text:?}");
        }
    }

    #[test]
    fn records_beyond_a_block_are_passed_over_in_bounded_memory() {
        let long = "x".repeat(2 * BLOCK_BYTES + 5);
        let (found, oversized, _) = records(format!("a\n{long}\nb\n").as_bytes());
        assert_eq!(found, [(1, "a".to_owned()), (3, "b".to_owned())]);
        assert_eq!(oversized, [2]);
        let (found, oversized, broken) = records(format!("[1,\n\"{long}\",\n2]").as_bytes());
        assert_eq!(found.last(), Some(&(3, "2".to_owned())));
        assert_eq!((oversized.len(), broken), (1, None));
    }

    #[test]
    fn blocks_are_cut_between_records() {
        let text = "0123456789\n".repeat(BLOCK_BYTES / 11 * 2);
        let (found, _, _) = records(text.as_bytes());
        assert_eq!(found.len(), BLOCK_BYTES / 11 * 2);
        assert!(found.iter().all(|(_, record)| record == "0123456789"));
    }

    #[test]
    fn many_short_records_make_many_blocks() {
        let numbers = || (0..BLOCK_RECORDS * 2 + 1).map(|n| n.to_string());
        for (name, text, first_line) in [
            ("lines", numbers().collect::<Vec<_>>().join("\n"), 1),
            ("array", format!("[\n{}]x", numbers().collect::<Vec<_>>().join(",\n")), 2),
        ] {
            let mut splitter = Splitter::new(text.as_bytes());
            let mut sizes = Vec::new();
            while let Some(block) = splitter.next_block().unwrap() {
                sizes.push(block.records.len());
            }
            sizes.retain(|size| *size > 0);
            assert_eq!(sizes, [BLOCK_RECORDS, BLOCK_RECORDS, 1], "{name}");
            let (found, _, broken) = records(text.as_bytes());
            let want = (first_line..).zip(numbers());
            assert!(found.into_iter().eq(want), "{name}");
            assert_eq!(broken.is_some(), name == "array", "{name}");
        }
    }
}
