//! Ad-hoc SQL over the events and the answers of meters; reads, never writes.
//!
//! The table `events` shows plain events, a property under its own name; `property('name')` reads
//! any property as text, `number('name')` its exact numeric value; `meter('name', …)` is a table with a meter's answer. A statement sees one
//! version of the lake. No file, setting or other table can be reached, and size is bounded before
//! anything is planned, as texts may come from strangers.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::TableReference;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SQLOptions, SessionContext};
use datafusion::sql::parser::Statement as EngineStatement;
use datafusion::sql::sqlparser::ast::Statement;
use futures::StreamExt;
use futures::stream::BoxStream;

mod arithmetic;
mod events;
mod limits;
mod message;
mod meter;
mod notes;
mod property;
mod statement;
#[cfg(test)]
mod tests;
mod typed;

use crate::engine::{Reach, engine_error};
use crate::error::{Error, Result};
use crate::table::EventsTable;
use crate::usage::Context;
use message::{planning_error, running_error};

/// The name of the table of events.
const EVENTS: &str = "events";

/// The answer to a statement.
pub struct SqlAnswer {
    /// The columns of the rows.
    pub schema: SchemaRef,
    /// The rows, batch by batch, computed as they are taken.
    pub rows: BoxStream<'static, Result<RecordBatch>>,
    /// Version of the events table.
    pub table_version: u64,
    /// What is worth knowing about the answer, a sentence each.
    pub notes: Vec<String>,
}

impl std::fmt::Debug for SqlAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlAnswer")
            .field("schema", &self.schema)
            .field("table_version", &self.table_version)
            .field("notes", &self.notes)
            .finish_non_exhaustive()
    }
}

/// Answers the one statement of `text`, as of version `at` of the events, the newest if none.
///
/// Identifiers keep their case, quoted or not.
///
/// # Errors
/// A statement that does not only read, that is too large or cannot be parsed; names of tables,
/// columns, functions and meters that do not exist; a version that is not there. While rows are
/// taken: values that an operation cannot take, such as a text that is cast to a number.
pub async fn query(context: &Context, text: &str, at: Option<u64>) -> Result<SqlAnswer> {
    let (mut statement, mentioned) = statement::parse(text)?;
    limits::check_statement(&statement)?;
    let columns = property::take_calls(&mut statement)?;
    let calls = meter::take_calls(&mut statement)?;
    let answers: BTreeSet<&str> = calls.iter().map(|call| call.table.as_str()).collect();
    message::check_tables(&statement, &answers)?;
    let snapshot = context.lake.events.snapshot(at).await?;
    let table_version = snapshot.version;
    let table = Arc::new(EventsTable::new(&context.lake.events, snapshot)?);
    let mut session = context.engine.session(Reach::Broad);
    limits::drop_functions(&session);
    session.register_expr_planner(Arc::new(arithmetic::ExactDivision)).map_err(engine_error)?;
    let events = events::view(context, &table, &mentioned, &columns).await?;
    session.register_table(EVENTS, events.view).map_err(engine_error)?;
    let memory =
        MemoryConsumer::new("answers of meters").register(session.task_ctx().memory_pool());
    for call in &calls {
        let answer = meter::answer(context, call, (at, table_version), &memory).await?;
        session
            .register_table(TableReference::bare(call.table.as_str()), answer)
            .map_err(engine_error)?;
    }
    let plan = plan(&session, statement).await?;
    let notes = notes::mixed_columns(&plan, &events.mixed);
    let mut session = context.engine.session(events::reach(&plan));
    session
        .register_function_rewrite(Arc::new(arithmetic::CheckedArithmetic))
        .map_err(engine_error)?;
    let physical = session.state().create_physical_plan(&plan).await.map_err(planning_error)?;
    let schema = physical.schema();
    let rows = context.engine.execute(physical)?.map(move |batch| {
        // The answers of meters live as long as the rows that are made of them.
        let _held = &memory;
        batch.map_err(running_error)
    });
    Ok(SqlAnswer { schema, rows: rows.boxed(), table_version, notes })
}

async fn plan(session: &SessionContext, statement: Statement) -> Result<LogicalPlan> {
    let statement = EngineStatement::Statement(Box::new(statement));
    let plan = session.state().statement_to_plan(statement).await.map_err(planning_error)?;
    // A second wall behind the one that names what is refused.
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(&plan)
        .map_err(|error| Error::invalid("sql only reads").with_source(error))?;
    Ok(plan)
}
