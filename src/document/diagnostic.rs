//! What is wrong with a file, where, and what would be right.
//!
//! A [`Diagnostic`] prints like a compiler's: the place, the message, the line and a mark under
//! the words at fault. [`Findings`] collects them while a file is read, so that all mistakes are
//! told at once.

use std::fmt;
use std::ops::Range;

use crate::error::Error;

/// Most mistakes told of one file; a file with more is nothing of ours at all.
const FINDINGS_MAX: usize = 100;

/// Longest part of a source line that is printed, in characters.
const LINE_MAX_CHARS: usize = 120;

/// Longest quotation from a file inside a message, in characters.
const QUOTE_MAX_CHARS: usize = 60;

/// One mistake in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as the caller named it.
    pub file: String,
    /// Line of the mistake, from 1.
    pub line: usize,
    /// Column of its first character, from 1.
    pub column: usize,
    /// How many characters of that line are at fault, at least 1.
    pub length: usize,
    /// The line as it stands in the file; empty where there is none to show.
    pub source_line: String,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        if self.source_line.is_empty() {
            return match &self.help {
                Some(help) => write!(f, "\n  = {help}"),
                None => Ok(()),
            };
        }
        let (shown, indent) = excerpt(&self.source_line, self.column - 1);
        let room = shown.chars().count().saturating_sub(indent).max(1);
        let mark = "^".repeat(self.length.min(room));
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        write!(f, "\n{gutter} |\n{number} | {shown}\n{gutter} | {:indent$}{mark}", "")?;
        match &self.help {
            Some(help) => write!(f, " {help}"),
            None => Ok(()),
        }
    }
}

/// The part of a line around a column that is worth printing, and where the column lies in it.
/// One character stays one column: what would not is replaced.
fn excerpt(line: &str, column: usize) -> (String, usize) {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let first = if column < LINE_MAX_CHARS * 2 / 3 { 0 } else { column - LINE_MAX_CHARS / 3 };
    let mut shown: String = line.chars().skip(first).take(LINE_MAX_CHARS).map(printable).collect();
    if line.chars().nth(first + LINE_MAX_CHARS).is_some() {
        shown.push('…');
    }
    if first == 0 { (shown, column) } else { (format!("…{shown}"), column - first + 1) }
}

/// Everything that is wrong with a file or a folder of files, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diagnostics {
    /// The mistakes, at most a hundred of each file.
    pub list: Vec<Diagnostic>,
    /// How many more there are.
    pub omitted: usize,
}

impl Diagnostics {
    /// Adds what was found in another file.
    pub fn append(&mut self, other: Self) {
        self.list.extend(other.list);
        self.omitted += other.omitted;
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.list.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n\n" };
            write!(f, "{separator}{diagnostic}")?;
        }
        match self.omitted {
            0 => Ok(()),
            more => write!(f, "\n\nand {more} more"),
        }
    }
}

impl std::error::Error for Diagnostics {}

impl From<Diagnostics> for Error {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::invalid(diagnostics.to_string())
    }
}

/// A text with its file's name and the offsets at which its lines start.
pub struct Source<'a> {
    file: &'a str,
    text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> Source<'a> {
    /// `text`, which `file` holds.
    pub fn new(text: &'a str, file: &'a str) -> Self {
        let bytes = text.as_bytes();
        let ends_line = |at: usize| match bytes[at] {
            b'\n' => true,
            b'\r' => bytes.get(at + 1) != Some(&b'\n'),
            _ => false,
        };
        let line_starts = std::iter::once(0)
            .chain((0..bytes.len()).filter(|at| ends_line(*at)).map(|at| at + 1))
            .collect();
        Self { file, text, line_starts }
    }

    /// The line, from 1, that holds a byte.
    fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|line_start| *line_start <= at)
    }

    /// A diagnostic at a range of bytes, which may reach over the end of its first line.
    pub fn diagnostic(
        &self,
        span: &Range<usize>,
        message: String,
        help: Option<String>,
    ) -> Diagnostic {
        let start = floor_boundary(self.text, span.start);
        let line = self.line(start);
        let line_start = self.line_starts[line - 1];
        let line_end = self.line_starts.get(line).copied().unwrap_or(self.text.len());
        let source_line = self.text[line_start..line_end].trim_end_matches(['\r', '\n']);
        let marked_end = floor_boundary(self.text, span.end.min(line_end)).max(start);
        let column = self.text[line_start..start].trim_start_matches(BOM).chars().count() + 1;
        Diagnostic {
            file: self.file.to_owned(),
            line,
            column,
            length: self.text[start..marked_end].trim_end().chars().count().max(1),
            source_line: source_line.trim_start_matches(BOM).to_owned(),
            message,
            help,
        }
    }
}

/// The byte-order mark some editors put before a text.
const BOM: char = '\u{feff}';

/// The last character boundary at or before `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    let mut boundary = at.min(text.len());
    while !text.is_char_boundary(boundary) {
        boundary -= 1;
    }
    boundary
}

/// The mistakes found so far in one text.
pub struct Findings<'a> {
    source: Source<'a>,
    kind: &'static str,
    list: Vec<Diagnostic>,
    omitted: usize,
}

impl<'a> Findings<'a> {
    /// Nothing found yet in `text`, which `file` holds and which should be a `kind`, such as
    /// "meter".
    pub fn new(text: &'a str, file: &'a str, kind: &'static str) -> Self {
        Self { source: Source::new(text, file), kind, list: Vec::new(), omitted: 0 }
    }

    /// What the text should be.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The text itself.
    pub fn text(&self) -> &'a str {
        self.source.text
    }

    /// The line, from 1, that holds a byte.
    pub fn line(&self, at: usize) -> usize {
        self.source.line(at)
    }

    /// Notes a mistake at a range of bytes.
    pub fn report(&mut self, span: &Range<usize>, message: impl Into<String>) {
        self.report_with(span, message, None);
    }

    /// Notes a mistake and what would be right.
    pub fn report_help(
        &mut self,
        span: &Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.report_with(span, message, Some(help.into()));
    }

    /// Notes a mistake and, where it is known, what would be right.
    pub fn report_with(
        &mut self,
        span: &Range<usize>,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        if self.list.len() < FINDINGS_MAX {
            self.list.push(self.source.diagnostic(span, message.into(), help));
        } else {
            self.omitted += 1;
        }
    }

    /// `value` if nothing was found, else everything that was.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<T, Diagnostics> {
        if self.list.is_empty() {
            if let Some(value) = value {
                return Ok(value);
            }
            self.report(&(0..0), format!("file cannot be read as a {}", self.kind));
        }
        self.list.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
        Err(Diagnostics { list: self.list, omitted: self.omitted })
    }
}

/// A piece of a file for use in a message: in backquotes, without control characters, not too
/// long.
pub fn quote(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars().take(QUOTE_MAX_CHARS) {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    if text.chars().nth(QUOTE_MAX_CHARS).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_shows_the_line_and_marks_the_words() {
        let text = "a: 1\r\n\u{e4}b:\t\"x\"\rc: 2\n";
        let source = Source::new(text, "m.yaml");
        let at = |needle: &str| {
            let start = text.find(needle).unwrap();
            source.diagnostic(&(start..start + needle.len()), "no".to_owned(), None).to_string()
        };
        for (needle, want) in [
            ("1", "m.yaml:1:4: no\n  |\n1 | a: 1\n  |    ^"),
            ("\"x\"", "m.yaml:2:5: no\n  |\n2 | äb: \"x\"\n  |     ^^^"),
            ("c: 2\n", "m.yaml:3:1: no\n  |\n3 | c: 2\n  | ^^^^"),
        ] {
            assert_eq!(at(needle), want);
        }
        let end = source.diagnostic(&(99..120), "no".to_owned(), Some("help".to_owned()));
        assert_eq!(end.to_string(), "m.yaml:4:1: no\n  = help");
    }

    #[test]
    fn a_long_line_is_cut_around_the_mark() {
        let text = format!("{}here{}", "x".repeat(500), "y".repeat(500));
        let source = Source::new(&text, "m.json");
        let shown = source.diagnostic(&(500..504), "no".to_owned(), None).to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[2], format!("1 | …{}here{}…", "x".repeat(40), "y".repeat(76)));
        assert_eq!(lines[3], format!("  | {}^^^^", " ".repeat(41)));
    }

    #[test]
    fn a_quotation_has_no_control_characters_and_an_end() {
        assert_eq!(quote("a\u{1b}[31m\n"), "`a\\u{1b}[31m\\n`");
        assert_eq!(quote(&"x".repeat(61)), format!("`{}…`", "x".repeat(60)));
    }
}
