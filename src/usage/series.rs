//! What a question may ask of meters whose events pair up: one that adds and one that removes, one
//! that sets and those that change.
//!
//! A pair is found within its series. A group or condition on something that one of the two need not
//! say would tear pairs apart, and what begins in one group would never end there: such a question is
//! refused, as every answer to it would be wrong.

use crate::error::{Error, Result};
use crate::meter::{
    Activity, Aggregation, Field, Filter, Meter, Operand, Report, describe_operand,
};

/// Checks that groups and conditions leave the series of `meter` whole.
///
/// # Errors
/// Invalid, naming what is asked for and what the series are told apart by.
pub(super) fn check(
    meter: &Meter,
    groups: &[Operand],
    filter: &Filter,
    customer: Option<&String>,
) -> Result<()> {
    let (per, value) = match &meter.aggregation {
        Aggregation::Active(Activity { per, of, .. }) => (per, Some(of)),
        Aggregation::Reported(Report { per, .. }) => (per, None),
        Aggregation::Count
        | Aggregation::CountUnique(_)
        | Aggregation::Sum(_)
        | Aggregation::Min(_)
        | Aggregation::Max(_)
        | Aggregation::Average(_)
        | Aggregation::Latest(_)
        | Aggregation::Earliest(_)
        | Aggregation::Percentile(..)
        | Aggregation::TimeWeighted(_)
        | Aggregation::Nested(_) => return Ok(()),
    };
    if !meter.customer.is_empty() {
        return Err(Error::invalid(format!(
            "meter `{}`: `{}` cannot follow events whose customer is told by `customer`, as what is \
             begun for one customer could end for another: leave `customer` out",
            meter.name,
            meter.aggregation.name()
        )));
    }
    let asked_by_customer = customer.map(|_| Operand::Field(Field::CustomerId));
    let mut asked: Vec<&Operand> = groups.iter().chain(&asked_by_customer).collect();
    filter.operands(&mut asked);
    let told_apart = |operand: &&&Operand| per.contains(operand) || value == Some(**operand);
    let Some(other) = asked.iter().find(|operand| !told_apart(operand)) else { return Ok(()) };
    let series: Vec<String> = per.iter().map(describe_operand).collect();
    let (by, also) = match series.is_empty() {
        true => ("nothing".to_owned(), String::new()),
        false => (series.join(" and "), format!("group by {}, or ", series.join(", "))),
    };
    Err(Error::invalid(format!(
        "meter `{}`: its series are told apart by {by}, and an event that ends one need not say its \
         {}: {also}add that to `per`",
        meter.name,
        describe_operand(other)
    )))
}
