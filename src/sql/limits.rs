//! How large a statement may be: planning takes time that grows with the square of its size and
//! cannot be interrupted, so size is bounded before.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{
    Expr, ObjectName, Query, Statement, Visit, Visitor, visit_relations,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::{Error, Result};

/// Longest text, in bytes.
const TEXT_MAX_BYTES: usize = 256 << 10;
/// Most words and signs.
const TOKENS_MAX: usize = 10_000;
/// Most expressions, parts of expressions included.
const EXPRESSIONS_MAX: usize = 5_000;
/// Longest chain of operators, such as `a OR b OR c`, and deepest nesting of expressions.
const DEPTH_MAX: usize = 150;
/// Most `UNION`, `EXCEPT` and `INTERSECT`.
const SET_OPERATIONS_MAX: usize = 64;
/// Most tables, each `WITH` query taken for its own tables wherever it is named.
const TABLES_MAX: usize = 100;

/// Functions that make values far larger than their arguments, beside memory that is accounted
/// for, or that tell where files lie.
const FUNCTIONS_DROPPED: [&str; 8] = [
    "repeat",
    "lpad",
    "rpad",
    "range",
    "generate_series",
    "array_repeat",
    "array_resize",
    "input_file_name",
];

pub(super) fn check_text(text: &str) -> Result<()> {
    within("the text has", text.len(), "bytes", TEXT_MAX_BYTES)
}

pub(super) fn check_tokens(tokens: &[TokenWithSpan]) -> Result<()> {
    within("the statement has", tokens.len(), "words and signs", TOKENS_MAX)?;
    let operations = tokens.iter().filter(|token| match &token.token {
        Token::Word(word) => {
            let kind = word.keyword;
            matches!(kind, Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS)
        }
        _ => false,
    });
    within("the statement has", operations.count(), "set operations", SET_OPERATIONS_MAX)
}

/// Checks the sizes that show only in the parsed statement.
pub(super) fn check_statement(statement: &Statement) -> Result<()> {
    let mut sizes = Sizes::default();
    let _ = statement.visit(&mut sizes);
    within("the statement has", sizes.expressions, "expressions", EXPRESSIONS_MAX)?;
    within("an expression is", sizes.deepest, "operators deep", DEPTH_MAX)?;
    within("the statement reads", expanded_tables(statement), "tables", TABLES_MAX)
}

/// Takes away the functions that are of more use to an attacker than to a question.
pub(super) fn drop_functions(session: &SessionContext) {
    for name in FUNCTIONS_DROPPED {
        session.deregister_udf(name);
        session.deregister_udtf(name);
    }
}

fn within(what: &str, found: usize, unit: &str, max: usize) -> Result<()> {
    if found <= max {
        return Ok(());
    }
    Err(Error::invalid(format!("sql: {what} {found} {unit}, at most {max} are allowed")))
}

#[derive(Default)]
struct Sizes {
    expressions: usize,
    depth: usize,
    deepest: usize,
}

impl Visitor for Sizes {
    type Break = ();

    fn pre_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
        self.expressions += 1;
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

/// The names that `WITH` queries go by, anywhere in the statement.
pub(super) fn with_names(statement: &Statement) -> BTreeSet<String> {
    WithQueries::of(statement).0.into_iter().map(|(name, _)| name).collect()
}

/// `WITH` queries and the tables that each names.
#[derive(Default)]
struct WithQueries(Vec<(String, Vec<String>)>);

impl WithQueries {
    fn of(statement: &Statement) -> Self {
        let mut found = Self::default();
        let _ = statement.visit(&mut found);
        found
    }
}

impl Visitor for WithQueries {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for with in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.0.push((with.alias.name.value.clone(), tables_named(with.query.as_ref())));
        }
        ControlFlow::Continue(())
    }
}

fn tables_named<V: Visit>(part: &V) -> Vec<String> {
    let mut names = Vec::new();
    let _ = visit_relations(part, |name: &ObjectName| {
        names.push(name.0.last().map(ToString::to_string).unwrap_or_default());
        ControlFlow::<()>::Continue(())
    });
    names
}

/// How many tables the statement reads once every `WITH` query stands where it is named: twenty of
/// them, each naming the one before twice, are a million.
fn expanded_tables(statement: &Statement) -> usize {
    let definitions = WithQueries::of(statement).0;
    let mut weights: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in &definitions {
        for (name, tables) in &definitions {
            // A query that names itself means the table that it hides.
            let sum = tables
                .iter()
                .filter(|table| *table != name)
                .map(|table| weights.get(table.as_str()).copied().unwrap_or(1))
                .fold(usize::from(tables.contains(name)), usize::saturating_add);
            let weight = weights.entry(name).or_insert(1);
            *weight = sum.max(*weight);
        }
    }
    let named = tables_named(statement);
    let weight = |table: &String| weights.get(table.as_str()).copied().unwrap_or(1);
    named.iter().map(weight).fold(0, usize::saturating_add)
}
