//! A data file written anew with some of its rows changed, every row in its place.
//!
//! Holds the file as it is stored, the new one as far as it is written, and a batch of decoded rows.
//! Commits nothing, deletes nothing.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::error::Result;
use crate::lake::compact::united;
use crate::lake::layout::layout_for;
use crate::lake::merge::conform;
use crate::lake::reader::{BATCH_ROWS, StoredFile};
use crate::lake::staged::StagedFile;
use crate::lake::table::Table;
use crate::lake::writer::{Layout, ParquetFileWriter};

/// What rewrites files of one table.
#[derive(Debug)]
pub struct Rewriter<'t> {
    /// The table.
    pub table: &'t Table,
    /// What runs the store's calls.
    pub runtime: &'t Handle,
    /// The columns of the table, those that the changes add among them.
    pub schema: SchemaRef,
    /// Columns that the new file has even where the old one has not.
    pub columns: &'t [&'t str],
    /// Memory that decoded rows may take, roughly.
    pub memory_bytes: usize,
}

impl Rewriter<'_> {
    /// Writes the rows of `file`, of the partition `day`, as `change` gives them back: as many, with
    /// the same columns. Blocks, so it is not for threads that serve I/O.
    ///
    /// # Errors
    /// A damaged file, a store that cannot be written, those of `change`.
    pub fn rewrite(
        &self,
        file: &StoredFile,
        day: Option<i32>,
        mut change: impl FnMut(RecordBatch) -> Result<RecordBatch>,
    ) -> Result<Vec<StagedFile>> {
        let at_once = (self.memory_bytes / file.row_bytes()?.max(1)).clamp(1, BATCH_ROWS);
        let rows = file.rows_of(|_| true, None, at_once)?;
        let found = arrow::array::RecordBatchReader::schema(&rows);
        let mut columns: Vec<String> =
            found.fields().iter().map(|field| field.name().clone()).collect();
        columns.extend(self.columns.iter().map(|name| (*name).to_owned()));
        let schema = united(&self.schema, &columns);
        let (mut writer, mut staged) = (None, Vec::new());
        for batch in rows {
            let changed = change(conform(&file.checked(batch)?, &schema)?)?;
            let open = match &mut writer {
                Some(open) => open,
                None => {
                    // No file is named like one that was there before and may be about to go.
                    let stamp = Some(Uuid::new_v4().to_string());
                    let layout = Layout { target_bytes: usize::MAX, stamp, ..layout_for(&changed) };
                    writer.insert(ParquetFileWriter::new(Arc::clone(&schema), &layout, day)?)
                }
            };
            for full in open.write(&changed)? {
                staged.push(self.runtime.block_on(self.table.stage(full))?);
            }
        }
        if let Some(last) = writer.map(ParquetFileWriter::finish).transpose()?.flatten() {
            staged.push(self.runtime.block_on(self.table.stage(last))?);
        }
        Ok(staged)
    }
}
