//! `property('name')` and `number('name')`: the text and the exact numeric value of any property,
//! wherever it is stored.
//!
//! A call becomes a column of the table `events`, one per function and name, and the calls in the
//! statement become that column's name. A `*` over `events` leaves these columns out.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    ObjectName, Select, SelectItem, SelectItemQualifiedWildcardKind, Statement, TableFactor, Value,
    VisitMut, VisitorMut, WildcardAdditionalOptions,
};

use super::EVENTS;
use super::limits::with_names;
use crate::error::{Error, Result};

/// How a property is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// `property('name')`
    Text,
    /// `number('name')`
    Number,
}

impl Reading {
    const ALL: [Self; 2] = [Self::Text, Self::Number];

    /// The function's name.
    const fn function(self) -> &'static str {
        match self {
            Self::Text => "property",
            Self::Number => "number",
        }
    }
}

/// What a column stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) reading: Reading,
    pub(super) property: String,
}

/// Whether a column of this name stands for a call.
pub(super) fn is_call(column: &str) -> bool {
    Reading::ALL.iter().any(|reading| {
        let rest = column.strip_prefix(reading.function());
        rest.is_some_and(|rest| rest.starts_with("('") && rest.ends_with("')"))
    })
}

/// Puts columns in the place of calls; answers with each column's name and what it stands for.
///
/// # Errors
/// A call whose argument is no literal text.
pub(super) fn take_calls(statement: &mut Statement) -> Result<BTreeMap<String, Call>> {
    let mut calls = Calls::default();
    if let ControlFlow::Break(error) = VisitMut::visit(statement, &mut calls) {
        return Err(error);
    }
    if !calls.columns.is_empty() && !with_names(statement).contains(EVENTS) {
        let names = calls.columns.keys().cloned().collect();
        let _ = VisitMut::visit(statement, &mut Wildcards { hidden: names });
    }
    Ok(calls.columns)
}

#[derive(Default)]
struct Calls {
    columns: BTreeMap<String, Call>,
}

impl VisitorMut for Calls {
    type Break = Error;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let Expr::Function(call) = expr else { return ControlFlow::Continue(()) };
        let Some((reading, mut path)) = called(call) else { return ControlFlow::Continue(()) };
        let function = reading.function();
        let Some(property) = only_text(call) else {
            return ControlFlow::Break(Error::invalid(format!(
                "`{call}`: {function} takes one literal text, such as {function}('bytes')"
            )));
        };
        let column = Ident::with_quote('"', format!("{function}('{property}')"));
        self.columns.insert(column.value.clone(), Call { reading, property });
        path.push(column.clone());
        *expr = match path.len() {
            1 => Expr::Identifier(column),
            _ => Expr::CompoundIdentifier(path),
        };
        ControlFlow::Continue(())
    }
}

/// For a call of one of the functions, which, and the table before the dot, if any.
fn called(call: &Function) -> Option<(Reading, Vec<Ident>)> {
    let mut path: Vec<Ident> =
        call.name.0.iter().map(|part| part.as_ident().cloned()).collect::<Option<_>>()?;
    let name = path.pop()?;
    let reading = Reading::ALL.into_iter().find(|reading| {
        name.quote_style.is_none() && name.value.eq_ignore_ascii_case(reading.function())
    })?;
    Some((reading, path))
}

fn only_text(call: &Function) -> Option<String> {
    let FunctionArguments::List(list) = &call.args else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value)))] = list.args.as_slice()
    else {
        return None;
    };
    let Value::SingleQuotedString(name) = &value.value else { return None };
    let plain = call.filter.is_none()
        && call.over.is_none()
        && call.null_treatment.is_none()
        && call.within_group.is_empty()
        && list.duplicate_treatment.is_none()
        && list.clauses.is_empty();
    plain.then(|| name.clone())
}

/// Leaves hidden columns out of each `*` that stands for the columns of `events`.
struct Wildcards {
    hidden: BTreeSet<String>,
}

impl VisitorMut for Wildcards {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let tables: Vec<Ident> = select
            .from
            .iter()
            .flat_map(|from| {
                std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation))
            })
            .filter_map(events_name)
            .collect();
        for item in &mut select.projection {
            match item {
                // Of two such tables the name of the column would be ambiguous.
                SelectItem::Wildcard(options) if tables.len() == 1 => self.leave_out(options),
                SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::ObjectName(ObjectName(path)),
                    options,
                ) => {
                    let name = path.last().and_then(|part| part.as_ident());
                    if name.is_some_and(|name| tables.iter().any(|t| t.value == name.value)) {
                        self.leave_out(options);
                    }
                }
                SelectItem::Wildcard(_)
                | SelectItem::QualifiedWildcard(..)
                | SelectItem::UnnamedExpr(_)
                | SelectItem::ExprWithAlias { .. }
                | SelectItem::ExprWithAliases { .. } => {}
            }
        }
        ControlFlow::Continue(())
    }
}

impl Wildcards {
    fn leave_out(&self, options: &mut WildcardAdditionalOptions) {
        let mut names = match options.opt_exclude.take() {
            None => Vec::new(),
            Some(ExcludeSelectItem::Single(name)) => vec![name],
            Some(ExcludeSelectItem::Multiple(names)) => names,
        };
        names.extend(self.hidden.iter().map(|name| ObjectName::from(Ident::with_quote('"', name))));
        options.opt_exclude = Some(ExcludeSelectItem::Multiple(names));
    }
}

/// What the table `events` is called there, if that is what stands there.
fn events_name(table: &TableFactor) -> Option<Ident> {
    let TableFactor::Table { name, alias, args: None, .. } = table else { return None };
    let events = name.0.last()?.as_ident().filter(|name| name.value == EVENTS)?;
    Some(alias.as_ref().map_or(events, |alias| &alias.name).clone())
}
