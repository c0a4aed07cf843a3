//! `meter('name', period => '2026-10', …)`: the answer of a meter as a table.
//!
//! Calls are found in the statement, answered one after the other, and their answers take the
//! calls' places as tables in memory. Without an alias such a table goes by the meter's name.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::datasource::MemTable;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, Statement, TableAlias, TableFactor,
    Value, VisitMut, VisitorMut,
};

use super::message::nearest;
use super::typed;
use crate::engine::engine_error;
use crate::error::{Error, Result};
use crate::usage::{self, Context, Grouping, UsageRequest};

/// The function's name.
pub(super) const METER: &str = "meter";
/// Most different calls of one statement; each reads events.
const CALLS_MAX: usize = 32;

/// What can be said in a call beside the meter's name.
const ARGUMENTS: [&str; 14] = [
    "period",
    "from",
    "to",
    "by",
    "breakdown",
    "total",
    "window",
    "anchor",
    "cycle",
    "fill",
    "customer",
    "where",
    "tz",
    "top",
];

/// What one or several equal calls ask.
#[derive(Debug)]
pub(super) struct MeterCall {
    /// The table that stands for them in the statement.
    pub(super) table: String,
    request: UsageRequest,
}

/// Puts tables in the place of calls.
///
/// # Errors
/// Arguments that are unknown, of the wrong kind or contradict each other; other table functions.
pub(super) fn take_calls(statement: &mut Statement) -> Result<Vec<MeterCall>> {
    let mut calls = Calls(Vec::new());
    match VisitMut::visit(statement, &mut calls) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(calls.0),
    }
}

/// The answer to a call, as of `version` of the events, or of `at`, if the statement is; its memory is
/// taken from `memory`.
///
/// # Errors
/// As [`usage::usage_pinned`]; more rows than there is memory for.
pub(super) async fn answer(
    context: &Context,
    call: &MeterCall,
    (at, version): (Option<u64>, u64),
    memory: &MemoryReservation,
) -> Result<Arc<MemTable>> {
    let request = UsageRequest { at, ..call.request.clone() };
    let mut batches: Vec<RecordBatch> = Vec::new();
    let mut take = |batch: RecordBatch| {
        memory.try_grow(batch.get_array_memory_size()).map_err(engine_error)?;
        batches.push(batch);
        Ok(true)
    };
    Box::pin(usage::usage_pinned(context, &request, Some(version), &mut take)).await?;
    let (schema, batch) = typed::typed(&batches)?;
    let table = MemTable::try_new(schema, vec![vec![batch]]).map_err(engine_error)?;
    Ok(Arc::new(table))
}

struct Calls(Vec<MeterCall>);

impl VisitorMut for Calls {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<Error> {
        match self.replace(table) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Calls {
    fn replace(&mut self, table: &mut TableFactor) -> Result<()> {
        let (called, args, alias) = match table {
            TableFactor::Table { name, args: Some(args), alias, .. } => {
                (name.to_string(), std::mem::take(&mut args.args), alias.take())
            }
            TableFactor::Function { name, args, alias, .. } => {
                (name.to_string(), std::mem::take(args), alias.take())
            }
            TableFactor::TableFunction { expr, .. } => (expr.to_string(), Vec::new(), None),
            _ => return Ok(()),
        };
        if !called.eq_ignore_ascii_case(METER) {
            return Err(Error::invalid(format!(
                "no table function `{called}`; there is meter('name', period => '2026-10')"
            )));
        }
        let request = request(&args)?;
        let meter = request.meters.first().cloned().unwrap_or_default();
        let table_name = self.table_for(request)?;
        let alias = alias.unwrap_or_else(|| TableAlias {
            explicit: true,
            name: Ident::with_quote('"', meter),
            columns: Vec::new(),
            at: None,
        });
        *table = TableFactor::Table {
            name: ObjectName::from(Ident::with_quote('"', table_name)),
            alias: Some(alias),
            args: None,
            with_hints: Vec::new(),
            version: None,
            with_ordinality: false,
            partitions: Vec::new(),
            json_path: None,
            sample: None,
            index_hints: Vec::new(),
        };
        Ok(())
    }

    fn table_for(&mut self, request: UsageRequest) -> Result<String> {
        if let Some(same) = self.0.iter().find(|call| call.request == request) {
            return Ok(same.table.clone());
        }
        if self.0.len() == CALLS_MAX {
            return Err(Error::invalid(format!(
                "sql: the statement asks meters more than {CALLS_MAX} different questions"
            )));
        }
        let table = format!("answer {} of a meter", self.0.len());
        self.0.push(MeterCall { table: table.clone(), request });
        Ok(table)
    }
}

fn request(args: &[FunctionArg]) -> Result<UsageRequest> {
    let mut request = UsageRequest::default();
    let mut groupings: Vec<(&str, Grouping)> = Vec::new();
    for (place, arg) in args.iter().enumerate() {
        let (name, value) = match arg {
            FunctionArg::Unnamed(value) if place == 0 => {
                request.meters = vec![text("the meter's name", value)?];
                continue;
            }
            FunctionArg::Named { name, arg, .. } => (name.value.to_lowercase(), arg),
            FunctionArg::ExprNamed { .. } | FunctionArg::Unnamed(_) => {
                return Err(Error::invalid(format!(
                    "meter: `{arg}` has no name; write one of {} before `=>`",
                    ARGUMENTS.join(", ")
                )));
            }
        };
        match name.as_str() {
            "period" => request.period = Some(text(&name, value)?),
            "from" => request.from = Some(text(&name, value)?),
            "to" => request.to = Some(text(&name, value)?),
            "window" => request.window = Some(text(&name, value)?),
            "anchor" => request.anchor = Some(text(&name, value)?),
            "cycle" => request.cycle = Some(text(&name, value)?),
            "fill" => request.fill = Some(text(&name, value)?),
            "customer" => request.customer = Some(text(&name, value)?),
            "where" => request.conditions = Some(text(&name, value)?),
            "tz" => request.timezone = Some(text(&name, value)?),
            "top" => request.top = Some(whole(&name, value)?),
            "by" => {
                let names = text(&name, value)?;
                let names = names.split(',').map(|name| name.trim().to_owned()).collect();
                groupings.push(("by", Grouping::By(names)));
            }
            "breakdown" if truth(&name, value)? => {
                groupings.push(("breakdown", Grouping::Breakdown));
            }
            "total" if truth(&name, value)? => groupings.push(("total", Grouping::Total)),
            "breakdown" | "total" => {}
            _ => return Err(unknown_argument(&name)),
        }
    }
    if request.meters.is_empty() {
        return Err(Error::invalid("meter: which one? its name comes first: meter('name')"));
    }
    match groupings.as_slice() {
        [] => {}
        [(_, grouping)] => request.grouping = grouping.clone(),
        [(one, _), (other, _), ..] => {
            return Err(Error::invalid(format!("meter: `{one}` and `{other}` exclude each other")));
        }
    }
    Ok(request)
}

fn unknown_argument(name: &str) -> Error {
    if name == "at" {
        return Error::invalid("meter: `at` holds for the whole statement, not for one call");
    }
    let hint = match nearest(name, ARGUMENTS) {
        Some(near) => format!("; did you mean `{near}`?"),
        None => format!("; there are {}", ARGUMENTS.join(", ")),
    };
    Error::invalid(format!("meter: no argument `{name}`{hint}"))
}

fn literal<'a>(name: &str, value: &'a FunctionArgExpr) -> Result<&'a Value> {
    match value {
        FunctionArgExpr::Expr(Expr::Value(literal)) => Ok(&literal.value),
        other => Err(Error::invalid(format!("meter: {name} takes a literal, not `{other}`"))),
    }
}

fn text(name: &str, value: &FunctionArgExpr) -> Result<String> {
    match literal(name, value)? {
        Value::SingleQuotedString(text) => Ok(text.clone()),
        other => Err(Error::invalid(format!("meter: {name} takes a text, not `{other}`"))),
    }
}

fn truth(name: &str, value: &FunctionArgExpr) -> Result<bool> {
    match literal(name, value)? {
        Value::Boolean(truth) => Ok(*truth),
        other => Err(Error::invalid(format!("meter: {name} takes true or false, not `{other}`"))),
    }
}

fn whole(name: &str, value: &FunctionArgExpr) -> Result<usize> {
    let literal = literal(name, value)?;
    let number = match literal {
        Value::Number(number, _) => number.parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| {
        Error::invalid(format!("meter: {name} takes a number of rows, not `{literal}`"))
    })
}
