//! One meter over one range, without windows or groups, made ready for whoever looks into it.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use futures::StreamExt;

use super::answer::{Shape, Totals, columns};
use super::request::{Grouping, Resolved, UsageRequest, names_one_customer};
use super::{
    Context, Note, answer_rows, blamed, blamed_of, find_meters, note, question, tables, versions,
};
use crate::engine::Reach;
use crate::error::{Error, Result};
use crate::meter::{Comparison, Filter, Literal, Meter, Test, resolve};
use crate::plan::{TableFacts, UsageQuery};
use crate::table::EventsTable;

/// A group of which alone is asked: its name, and its text; no text is the group of those without.
pub type Group = (String, Option<String>);

/// A question that has one number for an answer.
#[derive(Debug, Clone)]
pub struct Single {
    /// What answers it; its meters have their tables.
    pub context: Context,
    /// The meter.
    pub meter: Meter,
    /// The version of the events.
    pub table: Arc<EventsTable>,
    resolved: Resolved,
}

/// The number, and what usage tells beside it.
#[derive(Debug, Clone)]
pub struct SingleAnswer {
    /// In raw units; exact.
    pub value: Option<String>,
    /// In the meter's unit, if it has one.
    pub converted: Option<String>,
    /// As billed.
    pub billable: Option<String>,
    /// How it came about.
    pub note: Note,
}

impl Single {
    /// The question of `request`, which names one meter, for `groups` alone.
    ///
    /// # Errors
    /// As usage; a version in effect that changes within the range.
    pub async fn of(context: &Context, request: &UsageRequest, groups: &[Group]) -> Result<Self> {
        let request =
            UsageRequest { grouping: Grouping::Total, window: None, top: None, ..request.clone() };
        let versioned = versions::find(context, &request, None).await?;
        let [request] = versioned.requests.as_slice() else {
            return Err(Error::invalid(format!(
                "the version of `{}` changes within the range: ask for each part apart (--from, --to)",
                request.meters.join(", ")
            )));
        };
        let filled = tables::filled(&versioned.context, request).await?;
        let (context, request) = match &filled {
            Some(filled) => (&filled.context, &filled.request),
            None => (&versioned.context, request),
        };
        let meters = find_meters(&context.meters, &request.meters)?;
        let [meter] = meters.as_slice() else {
            return Err(Error::invalid("one meter is explained at a time"));
        };
        let snapshot = context.lake.events.snapshot(request.at).await?;
        let table = Arc::new(EventsTable::new(&context.lake.events, snapshot)?);
        let mut resolved = request.resolve(meter, table.days(), context.clock.now())?;
        let asked = std::mem::take(&mut resolved.query.filter);
        let groups = groups.iter().map(|group| group_filter(group, meter));
        let all: Vec<Filter> =
            std::iter::once(asked).filter(|asked| !asked.is_everything()).chain(groups).collect();
        resolved.query.filter = Filter::All(all);
        Ok(Self { context: context.clone(), meter: (*meter).clone(), table, resolved })
    }

    /// What is asked, with everything relative resolved.
    pub fn query(&self) -> &UsageQuery {
        &self.resolved.query
    }

    /// What statistics tell of what is read.
    pub fn facts(&self) -> TableFacts {
        self.table.facts(self.query().reads(&self.meter))
    }

    /// How much of the data the question is likely to touch.
    pub fn reach(&self) -> Reach {
        match names_one_customer(self.query(), &self.meter) {
            true => Reach::Needle,
            false => Reach::Broad,
        }
    }

    /// An error met while its events were read, with the event that it is about where an expression gave
    /// a number that does not fit.
    pub async fn blamed(&self, error: Error) -> Error {
        let meters = [(&self.meter, self.query())];
        blamed_of(&self.context, &self.table, &meters, &self.facts(), error).await
    }

    /// The answer, the same as that of usage.
    ///
    /// # Errors
    /// As usage.
    pub async fn answer(&self) -> Result<SingleAnswer> {
        self.answer_for(&self.meter).await
    }

    /// The answer if `meter` were in the place of the question's.
    ///
    /// # Errors
    /// As usage.
    pub async fn answer_for(&self, meter: &Meter) -> Result<SingleAnswer> {
        let has_unit = meter.unit.is_some();
        let shape = Shape {
            names_meter: false,
            windowed: false,
            windows_nullable: false,
            partial: false,
            groups: Vec::new(),
            has_unit,
        };
        let asked = vec![(0, meter, self.resolved.clone())];
        let question = question(&self.context, &self.table, asked, None).await?;
        let mut rows = answer_rows(&self.context, &self.table, &question, &shape).await?;
        let (mut totals, mut found) = (Totals::default(), None);
        while let Some(parts) = rows.next().await {
            let parts = match parts {
                Ok(parts) => parts,
                Err(error) => {
                    return Err(blamed(&self.context, &self.table, &question, error).await);
                }
            };
            for (_, (batch, of_batch)) in parts {
                totals.add(of_batch);
                found = Some(batch).filter(|batch| batch.num_rows() > 0).or(found);
            }
        }
        let version = self.table.snapshot().version;
        let note = note((meter, &self.resolved), &question, &totals, version)?;
        let text = |name: &str| found.as_ref().and_then(|row| text_of(row, name));
        Ok(SingleAnswer {
            value: text(columns::VALUE),
            converted: text(columns::CONVERTED),
            billable: text(columns::BILLABLE),
            note,
        })
    }
}

fn text_of(row: &RecordBatch, name: &str) -> Option<String> {
    let column = row.column_by_name(name)?.as_string_opt::<i32>()?;
    column.is_valid(0).then(|| column.value(0).to_owned())
}

/// That an event belongs to a group.
fn group_filter((name, text): &Group, meter: &Meter) -> Filter {
    let comparison = match text {
        Some(text) => Comparison::Equals(Literal::Text(text.clone())),
        None => Comparison::NotExists,
    };
    Filter::Test(Test { operand: resolve(name, meter), comparison })
}
