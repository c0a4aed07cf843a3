//! What is worth knowing about an answer: columns that are text although they hold numbers.

use std::collections::BTreeSet;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Column, ExprSchema};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::utils::merge_schema;

use super::events::column_name;

/// A note for each of the properties `mixed`, which hold numbers and texts, whose column the plan
/// reads.
pub(super) fn mixed_columns(plan: &LogicalPlan, mixed: &BTreeSet<String>) -> Vec<String> {
    if mixed.is_empty() {
        return Vec::new();
    }
    let texts = text_columns(plan);
    let read = mixed.iter().filter(|property| texts.contains(&column_name(property)));
    read.map(|property| {
        format!(
            "column `{}` is text here, as it holds texts beside numbers: number('{}') reads the \
             numbers",
            column_name(property),
            property.replace('\'', "''")
        )
    })
    .collect()
}

/// The names of the columns of tables that hold text and that any part of the plan reads. A name
/// that the statement gave itself belongs to no table.
fn text_columns(plan: &LogicalPlan) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    // The walk itself never fails.
    let _ = plan.apply_with_subqueries(|node| {
        let inputs = merge_schema(&node.inputs());
        let is_text = |column: &Column| {
            inputs.field_from_column(column).is_ok_and(|field| field.data_type().is_string())
        };
        for expr in node.expressions() {
            for column in expr.column_refs() {
                if column.relation.is_some() && is_text(column) {
                    names.insert(column.name.clone());
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    names
}
