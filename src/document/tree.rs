//! From the text of a YAML or JSON file to a tree of nodes that know their place.
//!
//! Scalars stay the text they were written as, so that `NO` is no boolean and `0.10` no float.
//! Refused, each with its place: aliases, anchors and tags (a file that expands to something
//! larger than itself, or whose types are not visible), directives, several documents, deep
//! nesting, keys that are no texts and keys that stand twice.

use std::collections::BTreeSet;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use super::diagnostic::{Findings, quote};

/// Deepest nesting of lists and mappings.
const DEPTH_MAX: usize = 64;

/// A value of the file and where it stands, in bytes.
#[derive(Debug)]
pub struct Node {
    /// Where it stands.
    pub span: Range<usize>,
    /// What it is.
    pub content: Content,
}

/// What a value is.
#[derive(Debug)]
pub enum Content {
    /// A text; `plain` if it stands without quotes, so that it may mean a number or boolean.
    Scalar {
        /// The text as written, quotes and escapes taken away.
        text: String,
        /// Whether it stands without quotes.
        plain: bool,
    },
    /// Values in order.
    List(Vec<Node>),
    /// Values by key, in order, each key once.
    Mapping(Vec<Entry>),
    /// Something already reported, about which nothing more is to be said.
    Refused,
}

/// One key of a mapping with its value.
#[derive(Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands, in bytes.
    pub key_span: Range<usize>,
    /// Its value.
    pub value: Node,
}

impl Entry {
    /// Where a mistake in the value is to be shown: at the value, or at the key if it has none.
    pub fn value_span(&self) -> &Range<usize> {
        if self.value.span.is_empty() { &self.key_span } else { &self.value.span }
    }
}

impl Node {
    /// Whether this is an empty value, `~` or `null`.
    pub fn is_null(&self) -> bool {
        match &self.content {
            Content::Scalar { text, plain } => *plain && matches!(&**text, "" | "~" | "null"),
            Content::List(_) | Content::Mapping(_) | Content::Refused => false,
        }
    }

    /// What this is, for a message.
    pub fn kind(&self) -> &'static str {
        match &self.content {
            Content::Scalar { .. } if self.is_null() => "nothing",
            Content::Scalar { .. } => "a value",
            Content::List(_) => "a list",
            Content::Mapping(_) => "a mapping",
            Content::Refused => "something unreadable",
        }
    }
}

/// The one document of the text, or nothing after a mistake that leaves no tree.
pub fn read_document(findings: &mut Findings<'_>) -> Option<Node> {
    let options = granit_parser::options! {
        disallow_directives: true,
        emit_unresolved_aliases: true,
        emit_anchor_events: true,
        emit_comments: false,
    };
    let parser = Parser::new_from_str_with_options(findings.text(), options);
    let mut builder = Builder { parser, findings };
    builder.document().ok()
}

/// A mistake was reported after which reading cannot go on.
struct Stopped;

/// Turns the parser's events into nodes.
struct Builder<'a, 'f, 't> {
    parser: Parser<'t, StrInput<'t>>,
    findings: &'a mut Findings<'f>,
}

impl<'t> Builder<'_, '_, 't> {
    fn document(&mut self) -> Result<Node, Stopped> {
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(..), _) => {}
                (Event::StreamEnd | Event::DocumentEnd, _) => {
                    let kind = self.findings.kind();
                    self.findings.report(&(0..0), format!("file holds no {kind}"));
                    return Err(Stopped);
                }
                (event, span) => {
                    let root = self.node(event, &span, 0)?;
                    self.end_of_stream()?;
                    return Ok(root);
                }
            }
        }
    }

    fn end_of_stream(&mut self) -> Result<(), Stopped> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(()),
                (Event::DocumentStart(..), span) => {
                    let help = format!("write each {} to a file of its own", self.findings.kind());
                    self.findings.report_help(&bytes(&span), "file holds a second document", help);
                    return Err(Stopped);
                }
                _ => {}
            }
        }
    }

    /// The next event that is not about an anchor, which is refused.
    fn next(&mut self) -> Result<(Event<'t>, Span), Stopped> {
        loop {
            match self.parser.next_event() {
                Some(Ok((Event::Anchor(..), span))) => {
                    let help = "leave it out and repeat the value where it is needed";
                    self.findings.report_help(&bytes(&span), "anchors are not supported", help);
                }
                Some(Ok(next)) => return Ok(next),
                Some(Err(error)) => {
                    let at = error.marker().byte_offset().unwrap_or(0);
                    self.findings.report(&(at..at + 1), error.info());
                    return Err(Stopped);
                }
                None => return Ok((Event::StreamEnd, Span::default())),
            }
        }
    }

    fn node(&mut self, event: Event<'t>, span: &Span, depth: usize) -> Result<Node, Stopped> {
        let start = bytes(span);
        match event {
            Event::Scalar(text, style, _, tag) => {
                self.refuse_tag(tag.as_deref(), span);
                let plain = style == ScalarStyle::Plain;
                // A value that is not there has a text of the parser's own.
                let text = if start.is_empty() { String::new() } else { text.into_owned() };
                Ok(Node { span: start, content: Content::Scalar { text, plain } })
            }
            Event::SequenceStart(_, _, tag) => {
                self.refuse_tag(tag.as_deref(), span);
                self.refuse_depth(&start, depth)?;
                self.list(start, depth)
            }
            Event::MappingStart(_, _, tag) => {
                self.refuse_tag(tag.as_deref(), span);
                self.refuse_depth(&start, depth)?;
                self.mapping(start, depth)
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                let help = "write the value out, or quote a text that starts with `*`";
                self.findings.report_help(&start, "aliases are not supported", help);
                Ok(Node { span: start, content: Content::Refused })
            }
            _ => {
                self.findings.report(&start, "file is not well formed here");
                Err(Stopped)
            }
        }
    }

    fn list(&mut self, mut place: Range<usize>, depth: usize) -> Result<Node, Stopped> {
        let mut nodes: Vec<Node> = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, span) => {
                    place.end = end_of(&place, nodes.last().map(|node| &node.span), &span);
                    return Ok(Node { span: place, content: Content::List(nodes) });
                }
                (event, span) => nodes.push(self.node(event, &span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, mut place: Range<usize>, depth: usize) -> Result<Node, Stopped> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen = BTreeSet::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                let last = entries.last().map(|entry| entry.value_span());
                place.end = end_of(&place, last, &span);
                return Ok(Node { span: place, content: Content::Mapping(entries) });
            }
            let key = self.node(event, &span, depth + 1)?;
            let (event, span) = self.next()?;
            let value = self.node(event, &span, depth + 1)?;
            let Some(name) = self.key_name(&key) else { continue };
            if seen.insert(name.clone()) {
                entries.push(Entry { key: name, key_span: key.span, value });
            } else {
                let message = format!("duplicate key {}", quote(&name));
                self.findings.report_help(&key.span, message, "it stands above already");
            }
        }
    }

    fn key_name(&mut self, key: &Node) -> Option<String> {
        match &key.content {
            Content::Scalar { text, .. } if !key.is_null() => Some(text.clone()),
            Content::Scalar { .. } | Content::List(_) | Content::Mapping(_) => {
                self.findings.report(&key.span, format!("key is {}, not a text", key.kind()));
                None
            }
            Content::Refused => None,
        }
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, span: &Span) {
        if tag.is_some() {
            let place = span.tag_span().map_or_else(|| bytes(span), |tag| bytes(&tag));
            let help = "quote a value to make it a text";
            self.findings.report_help(&place, "tags are not supported", help);
        }
    }

    fn refuse_depth(&mut self, place: &Range<usize>, depth: usize) -> Result<(), Stopped> {
        if depth < DEPTH_MAX {
            return Ok(());
        }
        let message = format!("nested more than {DEPTH_MAX} levels deep");
        self.findings.report(&(place.start..place.start + 1), message);
        Err(Stopped)
    }
}

/// Where a collection ends: at its bracket, or, if it has none, with its last value.
fn end_of(place: &Range<usize>, last: Option<&Range<usize>>, end: &Span) -> usize {
    let bracket = bytes(end);
    let last = last.map_or(place.end, |last| last.end);
    if bracket.is_empty() { last.max(place.start) } else { bracket.end.max(place.start) }
}

fn bytes(span: &Span) -> Range<usize> {
    span.byte_range().unwrap_or(0..0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree as JSON-like text, plain scalars without quotes.
    fn outline(node: &Node) -> String {
        match &node.content {
            Content::Scalar { text, plain: true } => text.clone(),
            Content::Scalar { text, plain: false } => format!("{text:?}"),
            Content::List(nodes) => {
                format!("[{}]", nodes.iter().map(outline).collect::<Vec<_>>().join(","))
            }
            Content::Mapping(entries) => {
                let texts = entries.iter().map(|e| format!("{}:{}", e.key, outline(&e.value)));
                format!("{{{}}}", texts.collect::<Vec<_>>().join(","))
            }
            Content::Refused => "!".to_owned(),
        }
    }

    fn read(text: &str) -> Result<String, String> {
        let mut findings = Findings::new(text, "m", "meter");
        let tree = read_document(&mut findings).map(|node| outline(&node));
        findings.finish(tree).map_err(|found| {
            let places =
                found.list.iter().map(|d| format!("{}:{} {}", d.line, d.column, d.message));
            places.collect::<Vec<_>>().join("; ")
        })
    }

    #[test]
    fn scalars_stay_as_written() {
        for (text, want) in [
            ("a: NO\nb: 0.10\nc: '0.10'\nd: off", r#"{a:NO,b:0.10,c:"0.10",d:off}"#),
            ("a:\nb: ~\nc: null\nd: ''", r#"{a:,b:~,c:null,d:""}"#),
            ("a: [1, {b: x}]\n", "{a:[1,{b:x}]}"),
            ("a: |\n  two\n  lines\n", r#"{a:"two\nlines\n"}"#),
            ("\u{feff}a: 1", "{a:1}"),
            ("# only\r\na: 1 # comment\r\n", "{a:1}"),
            ("---\na: 1\n...\n", "{a:1}"),
            ("{\n\t\"a\":1,\n\t\"b\": \"\\ud83d\\ude00\\/\"\n}\n", r#"{a:1,b:"😀/"}"#),
            ("a: x: y".trim_end_matches(": y"), "{a:x}"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(want), "{text:?}");
        }
    }

    #[test]
    fn a_long_line_of_json_is_read() {
        let numbers = vec!["1234567890"; 2000].join(",");
        assert!(read(&format!("{{\"a\":[{numbers}],\"b\":{{\"c\":[{numbers}]}}}}")).is_ok());
        assert!(read(&format!("a: [{numbers}]\nb: {{c: [{numbers}]}}\n")).is_ok());
    }

    #[test]
    fn what_hides_or_multiplies_values_is_refused() {
        for (text, want) in [
            ("", "1:1 file holds no meter"),
            ("# nothing\n", "1:1 file holds no meter"),
            ("a: &x 1\nb: *x", "1:4 anchors are not supported; 2:4 aliases are not supported"),
            ("b: *x", "1:4 aliases are not supported"),
            ("a: !!str 1", "1:4 tags are not supported"),
            ("a: 1\n---\na: 2\n", "2:1 file holds a second document"),
            ("a: 1\na: 2\nb: {c: 1, c: 2}", "2:1 duplicate key `a`; 3:11 duplicate key `c`"),
            ("? [a]\n: 1\n", "1:3 key is a list, not a text"),
            ("~: 1\n", "1:1 key is nothing, not a text"),
        ] {
            assert_eq!(read(text), Err(want.to_owned()), "{text:?}");
        }
        let directive = read("%YAML 1.2\n---\na: 1").unwrap_err();
        assert!(directive.starts_with("1:1 "), "{directive}");
        let syntax = read("a: [1,\nb: 2").unwrap_err();
        assert_eq!(syntax, "1:4 unclosed bracket '['");
    }

    #[test]
    fn deep_nesting_is_refused_before_it_costs_anything() {
        for text in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(100_000)] {
            let error = read(&text).unwrap_err();
            assert!(error.contains("nested") || error.contains("1:"), "{error}");
        }
        let deepest = format!("{}1{}", "[".repeat(64), "]".repeat(64));
        assert!(read(&deepest).is_ok());
        let deeper = format!("[{deepest}]");
        assert_eq!(read(&deeper), Err("1:65 nested more than 64 levels deep".to_owned()));
    }
}
