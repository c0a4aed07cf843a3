//! Neighbours of the same group are added up before they are hashed.
//!
//! Sorted rows have the rows of a group together: the states of a customer's hours, for one. A hash table is
//! asked for the place of every row; where only sums of integers are made, a run of neighbours is as good as
//! one row of their sum. What does not fit 64 bits stays as it is, so that no sum is another.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, PrimitiveArray, RecordBatch, StringViewArray, UInt32Array,
};
use arrow::compute::{partition, take};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateInputMode};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::StreamExt;

use crate::functions::sum::ExactSum;

/// Fewest neighbours, on average, that are worth adding up: copying the others costs, too.
const NEIGHBOURS_MIN: usize = 3;

/// Batches without many neighbours after which a partition is not looked at any more.
const BATCHES_TRIED: usize = 16;

/// The plan with neighbours added up below each aggregate that does nothing but add up integers.
pub(super) fn add_up(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let with_runs = plan.transform_up(|plan| {
        let Some(sums) = plan.downcast_ref::<AggregateExec>().and_then(sums_of_integers) else {
            return Ok(Transformed::no(plan));
        };
        let inputs = plan.children().into_iter().map(|input| {
            let (input, sums) = (Arc::clone(input), sums.clone());
            Arc::new(NeighboursExec { input, sums }) as Arc<dyn ExecutionPlan>
        });
        // Rows of the same groups in the same order: all that was decided above holds.
        let keep = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep);
        let inputs = inputs.collect();
        plan.replace_children(inputs, keep).map(Transformed::yes)
    });
    with_runs.map(|plan| plan.data)
}

/// The places of the columns that an aggregate adds up, if all others are keys of its groups.
fn sums_of_integers(aggregate: &AggregateExec) -> Option<Vec<usize>> {
    let groups = aggregate.group_expr();
    if aggregate.mode().input_mode() != AggregateInputMode::Raw
        || groups.is_empty()
        || !groups.is_single()
        || aggregate.filter_expr().iter().any(Option::is_some)
    {
        return None;
    }
    let schema = aggregate.input().schema();
    let keys: Vec<usize> =
        groups.expr().iter().map(|(key, _)| place(key)).collect::<Option<_>>()?;
    let mut sums = Vec::new();
    for function in aggregate.aggr_expr() {
        let [argument] = <[_; 1]>::try_from(function.expressions()).ok()?;
        let column = place(&argument)?;
        let is_sum = function.fun().inner().downcast_ref::<ExactSum>().is_some();
        let is_plain = !function.is_distinct() && function.order_bys().is_empty();
        let is_integer = *schema.field(column).data_type() == DataType::Int64;
        if !is_sum || !is_plain || !is_integer || keys.contains(&column) {
            return None;
        }
        sums.push(column);
    }
    let is_known = |column: &usize| keys.contains(column) || sums.contains(column);
    let are_flat = keys.iter().all(|key| !schema.field(*key).data_type().is_nested());
    let are_all = (0..schema.fields().len()).all(|column| is_known(&column));
    (are_flat && are_all && !sums.is_empty()).then_some(sums)
}

fn place(expression: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    expression.downcast_ref::<Column>().map(Column::index)
}

/// Adds up neighbours; rows keep their order and their columns.
///
/// Only for directly below the aggregate: what the input says of the columns that are added up (their order,
/// that they are constant) is passed on and does not hold, and nobody asks there.
#[derive(Debug)]
struct NeighboursExec {
    input: Arc<dyn ExecutionPlan>,
    /// The columns that are added up; the others are the same throughout a run.
    sums: Vec<usize>,
}

impl DisplayAs for NeighboursExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = self.input.schema();
        let names: Vec<&str> =
            self.sums.iter().map(|sum| schema.field(*sum).name().as_str()).collect();
        write!(f, "NeighboursExec: sums=[{}]", names.join(", "))
    }
}

impl ExecutionPlan for NeighboursExec {
    fn name(&self) -> &'static str {
        "NeighboursExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self { input: children.swap_remove(0), sums: self.sums.clone() }))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
        )
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let sums = self.sums.clone();
        let rows = self.input.execute(partition, context)?;
        let mut tried = 0;
        let rows = rows.map(move |batch| {
            let batch = batch?;
            if tried >= BATCHES_TRIED {
                return Ok(batch);
            }
            let before = batch.num_rows();
            let batch = added_up(batch, &sums)?;
            tried = if batch.num_rows() < before { 0 } else { tried + 1 };
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

/// A row for each run of neighbours, with their sums; the same rows where runs are short or a sum does not fit.
fn added_up(batch: RecordBatch, sums: &[usize]) -> Result<RecordBatch> {
    let keys = (0..batch.num_columns()).filter(|column| !sums.contains(column));
    let keys: Vec<ArrayRef> = keys.map(|column| Arc::clone(batch.column(column))).collect();
    let runs = runs_of(&keys)?;
    if runs.len() * NEIGHBOURS_MIN > batch.num_rows() {
        return Ok(batch);
    }
    let firsts = runs.iter().map(|run| u32::try_from(run.start).ok());
    let Some(firsts) = firsts.collect::<Option<Vec<u32>>>() else { return Ok(batch) };
    let firsts = UInt32Array::from(firsts);
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (place, column) in batch.columns().iter().enumerate() {
        columns.push(match sums.contains(&place) {
            false => take(column, &firsts, None)?,
            true => match sums_of(column.as_primitive(), &runs) {
                Some(sums) => Arc::new(sums) as ArrayRef,
                None => return Ok(batch),
            },
        });
    }
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

/// The rows of each run of the same keys.
fn runs_of(keys: &[ArrayRef]) -> Result<Vec<Range<usize>>> {
    match keys {
        [key] if let Some(texts) = key.as_string_view_opt() => Ok(runs_of_texts(texts)),
        keys => Ok(partition(keys)?.ranges()),
    }
}

/// The same for texts, of which those of one entry of a dictionary are known to be the same without a look at
/// them.
fn runs_of_texts(texts: &StringViewArray) -> Vec<Range<usize>> {
    let (views, are_there) = (texts.views(), texts.nulls());
    let is_there = |row: usize| are_there.is_none_or(|there| there.is_valid(row));
    let is_same = |row: usize| match (is_there(row - 1), is_there(row)) {
        (true, true) => views[row - 1] == views[row] || texts.value(row - 1) == texts.value(row),
        (before, now) => before == now,
    };
    let mut runs = Vec::new();
    let mut start = 0;
    for row in 1..texts.len() {
        if !is_same(row) {
            runs.push(start..row);
            start = row;
        }
    }
    if start < texts.len() {
        runs.push(start..texts.len());
    }
    runs
}

/// The sum of each run, nothing where all of it is nothing; `None` where one does not fit.
fn sums_of(values: &PrimitiveArray<Int64Type>, runs: &[Range<usize>]) -> Option<Int64Array> {
    if values.null_count() == 0 {
        let sum = |run: &Range<usize>| {
            values.values()[run.clone()]
                .iter()
                .try_fold(0_i64, |sum, value| sum.checked_add(*value))
        };
        return runs.iter().map(sum).collect::<Option<Vec<i64>>>().map(Int64Array::from);
    }
    let sum = |run: &Range<usize>| {
        let are_there = run.clone().filter(|row| values.is_valid(*row));
        let mut there = are_there.map(|row| values.value(row));
        let Some(first) = there.next() else { return Some(None) };
        there.try_fold(first, i64::checked_add).map(Some)
    };
    runs.iter().map(sum).collect::<Option<Vec<Option<i64>>>>().map(Int64Array::from)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::datatypes::{Field, Schema};
    use datafusion::logical_expr::AggregateUDF;
    use datafusion::physical_plan::{collect, displayable};
    use datafusion::prelude::{SessionConfig, SessionContext};
    use proptest::prelude::*;

    use super::*;

    /// Rows of a group and two numbers, as a batch.
    fn batch(rows: &[(Option<u8>, Option<i64>, i64)]) -> RecordBatch {
        let names = rows.iter().map(|row| row.0.map(|group| format!("customer-number-{group}")));
        let schema = Schema::new(vec![
            Field::new("value", DataType::Int64, true),
            Field::new("group", DataType::Utf8View, true),
            Field::new("events", DataType::Int64, false),
        ]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>()),
            Arc::new(names.collect::<StringViewArray>()),
            Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>()),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    /// What each group adds up to, row by row: the numbers that are there, if any, and the events.
    fn totals(batch: &RecordBatch) -> BTreeMap<Option<String>, (Option<i128>, i128)> {
        let (values, groups, events) = (
            batch.column(0).as_primitive::<Int64Type>(),
            batch.column(1).as_string_view(),
            batch.column(2).as_primitive::<Int64Type>(),
        );
        let mut totals: BTreeMap<_, (Option<i128>, i128)> = BTreeMap::new();
        for row in 0..batch.num_rows() {
            let group = groups.is_valid(row).then(|| groups.value(row).to_owned());
            let total = totals.entry(group).or_default();
            if values.is_valid(row) {
                *total.0.get_or_insert(0) += i128::from(values.value(row));
            }
            total.1 += i128::from(events.value(row));
        }
        totals
    }

    #[test]
    fn a_run_becomes_one_row() {
        let rows = [1, 1, 1, 2, 2, 2, 2, 1, 1, 1];
        let rows: Vec<_> = rows.iter().map(|group| (Some(*group), Some(5), 1)).collect();
        let before = batch(&rows);
        let after = added_up(before.clone(), &[0, 2]).unwrap();
        assert_eq!((after.num_rows(), totals(&after)), (3, totals(&before)));
        // Short runs are not worth it.
        let short = before.slice(2, 3);
        assert_eq!(added_up(short.clone(), &[0, 2]).unwrap(), short);
        // Nor is a run added up that would not fit.
        let large = batch(&[(None, Some(i64::MAX), 1), (None, Some(1), 1), (None, None, 1)]);
        assert_eq!(added_up(large.clone(), &[0, 2]).unwrap(), large);
        let none = batch(&[(None, None, 1), (None, None, 1), (None, None, 1)]);
        assert_eq!(added_up(none, &[0, 2]).unwrap(), batch(&[(None, None, 3)]));
    }

    /// Whether neighbours are added up for a question in SQL over a table of integers and others.
    async fn adds_up(question: &str) -> bool {
        let session =
            SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
        session.register_udaf(AggregateUDF::from(ExactSum::new()));
        let table = "CREATE TABLE t (a BIGINT, b BIGINT, x DECIMAL(38, 18), g TEXT, h TEXT) AS VALUES \
                     (1, 2, 3, 'g', 'h'), (1, 2, 3, 'g', 'i')";
        session.sql(table).await.unwrap().collect().await.unwrap();
        let planned =
            async || session.sql(question).await.unwrap().create_physical_plan().await.unwrap();
        let rows = collect(planned().await, session.task_ctx()).await.unwrap();
        let plan = add_up(planned().await).unwrap();
        let text = displayable(plan.as_ref()).indent(false).to_string();
        assert_eq!(collect(plan, session.task_ctx()).await.unwrap(), rows, "{question}");
        text.contains("NeighboursExec")
    }

    #[tokio::test]
    async fn they_are_added_up_where_nothing_else_is_asked() {
        for (question, want) in [
            ("SELECT g, exact_sum(a) FROM t GROUP BY g", true),
            ("SELECT g, h, exact_sum(a), exact_sum(b) FROM t GROUP BY g, h ORDER BY g, h", true),
            ("SELECT g, exact_sum(a), exact_sum(a + 0) FROM t GROUP BY g", false),
            ("SELECT g, exact_sum(a), count(b) FROM t GROUP BY g", false),
            ("SELECT g, exact_sum(a), max(b) FROM t GROUP BY g", false),
            ("SELECT g, exact_sum(x) FROM t GROUP BY g", false),
            ("SELECT g, exact_sum(a) FILTER (WHERE b > 1) FROM t GROUP BY g", false),
            ("SELECT g, h, exact_sum(a) FROM t GROUP BY ROLLUP (g, h) ORDER BY g, h", false),
            ("SELECT a, exact_sum(a) FROM t GROUP BY a", false),
            ("SELECT DISTINCT g FROM t", false),
            ("SELECT exact_sum(a) FROM t", false),
        ] {
            assert_eq!(adds_up(question).await, want, "{question}");
        }
    }

    proptest! {
        #[test]
        fn runs_of_texts_are_those_of_any_column(
            places in prop::collection::vec(prop::option::of(0_u32..4), 0..40),
            of_a_dictionary in any::<bool>(),
        ) {
            let names = ["a", "b", "customer-number-1", "customer-number-2"];
            let texts: ArrayRef = match of_a_dictionary {
                true => {
                    let names = StringViewArray::from(names.to_vec());
                    take(&names, &UInt32Array::from(places), None).unwrap()
                }
                false => {
                    let name = |place: &Option<u32>| place.map(|place| names[place as usize]);
                    Arc::new(places.iter().map(name).collect::<StringViewArray>())
                }
            };
            let want = partition(&[Arc::clone(&texts)]).unwrap().ranges();
            prop_assert_eq!(runs_of_texts(texts.as_string_view()), want);
        }

        #[test]
        fn no_sum_is_another(
            runs in prop::collection::vec(
                (prop::option::of(0_u8..3), 1_usize..9, prop::option::of(any::<i64>())),
                0..20,
            ),
            are_small in any::<bool>(),
        ) {
            let rows: Vec<_> = runs
                .iter()
                .flat_map(|(group, times, value)| {
                    let value = value.map(|value| if are_small { value % 1_000 } else { value });
                    vec![(*group, value, 1); *times]
                })
                .collect();
            let before = batch(&rows);
            let after = added_up(before.clone(), &[0, 2]).unwrap();
            prop_assert_eq!(totals(&after), totals(&before));
            let mut groups: Vec<_> = runs.iter().map(|run| run.0).collect();
            groups.dedup();
            if are_small && groups.len() * NEIGHBOURS_MIN <= rows.len() {
                prop_assert_eq!(after.num_rows(), groups.len());
            }
        }
    }
}
