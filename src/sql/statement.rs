//! Text → one parsed statement that only reads, or the reason why it is refused, by name.
//!
//! The text is cut into words here, before the parser sees it: that bounds what the parser can be
//! made to build, and lets properties be called `top` or `user`, which it would take for its own.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Query, Select, SelectFlavor, SelectItem, SetExpr, Statement, TableFactor, Visit, Visitor,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::limits;
use super::message::lower_first;
use crate::error::{Error, Result};

/// Deepest nesting of parentheses, subqueries and the like.
const NESTING_MAX: usize = 100;

/// Words of other dialects' syntax that the engine has no use for, so that they are names here.
const NAMES: [Keyword; 2] = [Keyword::TOP, Keyword::USER];

/// What a statement may begin with.
const READING: [&str; 9] =
    ["SELECT", "WITH", "VALUES", "TABLE", "FROM", "EXPLAIN", "DESCRIBE", "DESC", "("];

/// What changes data, definitions or files.
const WRITING: [&str; 14] = [
    "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "TRUNCATE", "CREATE", "ALTER", "DROP",
    "COPY", "LOAD", "VACUUM", "OPTIMIZE", "UNLOAD",
];

/// Which columns a statement may be about.
#[derive(Debug)]
pub(super) struct Mentioned {
    words: BTreeSet<String>,
    everything: bool,
}

impl Mentioned {
    /// Whether the statement may be about the column `name`.
    pub(super) fn includes(&self, name: &str) -> bool {
        self.everything || self.words.contains(name)
    }
}

/// The one statement of `text` and the columns it mentions; a semicolon may end it.
///
/// # Errors
/// No or several statements, one that does not only read, one that cannot be parsed or is too large.
pub(super) fn parse(text: &str) -> Result<(Statement, Mentioned)> {
    limits::check_text(text)?;
    let tokens = Tokenizer::new(&GenericDialect {}, text)
        .tokenize_with_location()
        .map_err(|error| Error::invalid(format!("sql: {error}")))?;
    let mut tokens: Vec<TokenWithSpan> =
        tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect();
    check_single(&tokens)?;
    limits::check_tokens(&tokens)?;
    for token in &mut tokens {
        if let Token::Word(word) = &mut token.token
            && NAMES.contains(&word.keyword)
        {
            word.keyword = Keyword::NoKeyword;
        }
    }
    let words = tokens.iter().filter_map(|token| match &token.token {
        Token::Word(word) => Some(word.value.clone()),
        _ => None,
    });
    let words = words.collect();
    let mut parser = Parser::new(&GenericDialect {})
        .with_recursion_limit(NESTING_MAX)
        .with_tokens_with_locations(tokens);
    let mut statements = parser.parse_statements().map_err(unreadable)?;
    let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
        return Err(Error::invalid("sql: one statement at a time"));
    };
    check_reads(&statement)?;
    let everything = mentions_everything(&statement, &words);
    Ok((statement, Mentioned { words, everything }))
}

/// Whether there is a `*`, or another way to mean columns without naming them.
fn mentions_everything(statement: &Statement, words: &BTreeSet<String>) -> bool {
    matches!(statement, Statement::ExplainTable { .. })
        || words
            .iter()
            .any(|word| word.eq_ignore_ascii_case("natural") || word.eq_ignore_ascii_case("table"))
        || statement.visit(&mut Wildcards).is_break()
}

struct Wildcards;

impl Visitor for Wildcards {
    type Break = ();

    /// `events AS e(a, b)` renames columns by their place, so none of them is named.
    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        let alias = match factor {
            TableFactor::Table { alias, .. }
            | TableFactor::Derived { alias, .. }
            | TableFactor::NestedJoin { alias, .. } => alias.as_ref(),
            _ => None,
        };
        match alias.is_some_and(|alias| !alias.columns.is_empty()) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        let wildcard = select.projection.iter().any(|item| {
            matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
        });
        match wildcard || select.flavor != SelectFlavor::Standard {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

fn unreadable(error: ParserError) -> Error {
    Error::invalid(match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
            format!("sql: {}", lower_first(&message))
        }
        ParserError::RecursionLimitExceeded => {
            format!("sql: nested more than {NESTING_MAX} levels deep")
        }
    })
}

/// Refuses several statements and those that do not read by their first words, parsed or not: the
/// parser does not know every statement there is.
fn check_single(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut statements = tokens
        .split(|token| token.token == Token::SemiColon)
        .filter_map(|statement| statement.first())
        .filter(|first| first.token != Token::EOF);
    let Some(first) = statements.next() else {
        return Err(Error::invalid("sql: there is no statement"));
    };
    check_kind(&first.token.to_string())?;
    match statements.next() {
        Some(second) => Err(Error::invalid(format!(
            "sql: one statement at a time; another one begins with `{}`",
            second.token.to_string().to_uppercase()
        ))),
        None => Ok(()),
    }
}

fn check_kind(word: &str) -> Result<()> {
    let word = word.to_uppercase();
    if READING.contains(&word.as_str()) {
        return Ok(());
    }
    if WRITING.contains(&word.as_str()) {
        return Err(Error::invalid(format!("`{word}` writes; sql only reads")));
    }
    Err(Error::invalid(format!(
        "`{word}` is no question; sql takes SELECT, WITH, VALUES, EXPLAIN and DESCRIBE"
    )))
}

/// Refuses what writes inside of a statement that began like a question.
fn check_reads(statement: &Statement) -> Result<()> {
    match statement {
        Statement::Query(_) | Statement::ExplainTable { .. } => {}
        Statement::Explain { statement, .. } => return check_reads(statement),
        other => {
            let text = other.to_string();
            check_kind(text.split_whitespace().next().unwrap_or_default())?;
        }
    }
    match statement.visit(&mut Reads) {
        ControlFlow::Break(refusal) => Err(refusal),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Reads;

impl Visitor for Reads {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        if query.with.as_ref().is_some_and(|with| with.recursive) {
            return ControlFlow::Break(Error::invalid(
                "`WITH RECURSIVE` may never end; sql has no recursion",
            ));
        }
        if !query.locks.is_empty() {
            return ControlFlow::Break(Error::invalid("`FOR UPDATE` locks; sql only reads"));
        }
        match only_reads(&query.body) {
            Ok(()) => ControlFlow::Continue(()),
            Err(refusal) => ControlFlow::Break(refusal),
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Error> {
        match &select.into {
            Some(_) => ControlFlow::Break(Error::invalid("`SELECT INTO` writes; sql only reads")),
            None => ControlFlow::Continue(()),
        }
    }
}

fn only_reads(body: &SetExpr) -> Result<()> {
    match body {
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) | SetExpr::Table(_) => Ok(()),
        SetExpr::Insert(_) => check_kind("INSERT"),
        SetExpr::Update(_) => check_kind("UPDATE"),
        SetExpr::Delete(_) => check_kind("DELETE"),
        SetExpr::Merge(_) => check_kind("MERGE"),
        SetExpr::SetOperation { left, right, .. } => {
            only_reads(left)?;
            only_reads(right)
        }
    }
}
