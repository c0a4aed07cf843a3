//! Where a command's words and rows go: data to standard output, everything else to standard error.

use std::io::{self, ErrorKind, IsTerminal, Stdout, Write};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};

use super::outcome::Failure;
use crate::error::{Error, Result};
use crate::render::{NUMERIC_TEXT, OutputFormat, Reader, Renderer, harmless};

/// Says something to whoever runs the command, in lines that cannot steer a terminal whatever they
/// quote. Nobody may be listening.
pub(super) fn say(text: &str) {
    let lines: Vec<String> = text.split('\n').map(printable).collect();
    let _ = writeln!(io::stderr(), "{}", lines.join("\n"));
}

/// A text of input or data that cannot steer a terminal.
pub(super) fn printable(text: &str) -> String {
    harmless(text).into_owned()
}

/// Writes a finished text as data; a reader that is gone is fine.
///
/// # Errors
/// An output that fails.
pub(super) fn write_text(text: &str) -> Result<()> {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::unavailable(format!("cannot write the answer: {error}")).with_source(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Refuses what would be garbage on a screen.
///
/// # Errors
/// Parquet when standard output is a terminal.
pub(super) fn check_format(format: OutputFormat) -> Result<(), Failure> {
    if format == OutputFormat::Parquet && io::stdout().is_terminal() {
        return Err(Failure::Arguments(
            "parquet is not for a terminal: send it to a file, such as `-o parquet > usage.parquet`"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Rows on their way to standard output.
///
/// # Errors
/// A schema that the format cannot hold.
pub(super) fn rows(format: OutputFormat, schema: &SchemaRef) -> Result<Renderer<Stdout>> {
    Renderer::new(format, schema, io::stdout())
}

/// Rows that are written as they come. A header without rows is an answer, and an error must not begin
/// with one: it waits for the first row.
pub(super) struct Streamed {
    format: OutputFormat,
    schema: SchemaRef,
    open: Option<Renderer<Stdout>>,
}

impl Streamed {
    /// Rows with this schema.
    pub(super) fn new(format: OutputFormat, schema: SchemaRef) -> Self {
        Self { format, schema, open: None }
    }

    /// Writes some; whether there still is a reader.
    ///
    /// # Errors
    /// An output that fails; a schema that the format cannot hold.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<bool> {
        if batch.num_rows() == 0 {
            return Ok(true);
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(rows(self.format, &self.schema)?),
        };
        Ok(open.write(batch)? == Reader::Present)
    }

    /// Ends them.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(super) fn finish(self) -> Result<()> {
        match self.open {
            Some(open) => finish(open),
            None => write_rows(self.format, &RecordBatch::new_empty(self.schema)),
        }
    }
}

/// Writes rows that are all there.
///
/// # Errors
/// An output that fails.
pub(super) fn write_rows(format: OutputFormat, batch: &RecordBatch) -> Result<()> {
    let mut renderer = rows(format, &batch.schema())?;
    match renderer.write(batch)? {
        Reader::Present => finish(renderer),
        Reader::Gone => Ok(()),
    }
}

/// The rows; a table is told which of its texts are numbers.
///
/// # Errors
/// A defect of ours.
pub(super) fn numeric(
    format: OutputFormat,
    rows: &RecordBatch,
    names: &[&str],
) -> Result<RecordBatch> {
    if format != OutputFormat::Table {
        return Ok(rows.clone());
    }
    let marked = |field: &FieldRef| {
        let mut metadata = field.metadata().clone();
        if names.contains(&field.name().as_str()) {
            metadata.insert(NUMERIC_TEXT.to_owned(), String::new());
        }
        field.as_ref().clone().with_metadata(metadata)
    };
    let fields: Vec<Field> = rows.schema().fields().iter().map(marked).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), rows.columns().to_vec())
        .map_err(|error| Error::internal("marks of numbers").with_source(error))
}

/// Ends rows; a reader that is gone is fine.
///
/// # Errors
/// An output that fails.
pub(super) fn finish(rows: Renderer<Stdout>) -> Result<()> {
    match rows.finish()? {
        Reader::Present | Reader::Gone => Ok(()),
    }
}
