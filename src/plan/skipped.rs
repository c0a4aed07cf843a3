//! Why an event that matches makes no value, and whether it makes one.
//!
//! What is said here of an event is what the plan of usage does with it; the reasons are told in the
//! order in which they are looked for.

use datafusion::logical_expr::utils::{conjunction, disjunction};
use datafusion::logical_expr::{Expr, cast, in_list, lit, when};

use super::alone::{placed, weight};
use super::followed::first_of_two;
use super::funnel::{code_of, operands_of};
use super::operand::{Operands, TableFacts};
use super::{Built, counted_operand};
use crate::functions::number::wide_type;
use crate::meter::{
    Aggregation, Expression, Function, Meter, Operand, Operation, Period, describe_operand,
};

/// The reasons for which a matching event is skipped, in the order in which they are told; the last
/// is none of the others.
pub fn reasons(meter: &Meter) -> Vec<String> {
    let facts = TableFacts::default();
    let found = causes(meter, operands_of(meter, &facts, None)).unwrap_or_default();
    let found = found.into_iter().map(|cause| cause.why);
    found.chain(["has no value that can be used".to_owned()]).collect()
}

/// 0 for an event that makes the value, else the place of the reason, from 1.
pub(super) fn reason(meter: &Meter, operands: Operands<'_>) -> Built<Expr> {
    let mut told = when(counts(meter, operands)?.is_true(), lit(0_i64));
    let causes = causes(meter, operands)?;
    for (place, cause) in causes.iter().enumerate() {
        told = told.when(cause.when.clone().is_true(), lit(code_of(place + 1)));
    }
    told.otherwise(lit(code_of(causes.len() + 1)))
}

/// Whether an event that matches makes the value, as the plan of usage decides it.
pub(super) fn counts(meter: &Meter, operands: Operands<'_>) -> Built<Expr> {
    let mut all = Vec::new();
    if let Some(period) = &meter.period {
        all.push(placed(period, operands).known);
    }
    if let Some(of) = &meter.weight {
        all.push(weight(of, operands)?.usable);
    }
    match &meter.aggregation {
        Aggregation::TimeWeighted(levels) => all.push(operands.number(&levels.of).is_not_null()),
        Aggregation::Active(activity) => {
            all.push(operands.text(&activity.of).is_not_null());
            all.push(first_of_two(&activity.operation, operands)?.is_not_null());
        }
        Aggregation::Reported(report) => {
            all.push(operands.number(&report.of).is_not_null());
            all.push(first_of_two(&report.operation, operands)?.is_not_null());
        }
        Aggregation::Nested(nested) => {
            all.push(counted_operand(&nested.inner, operands).is_not_null());
        }
        simple => all.push(counted_operand(simple, operands).is_not_null()),
    }
    Ok(conjunction(all).unwrap_or_else(|| lit(true)))
}

/// Why a matching event is skipped.
struct Cause {
    why: String,
    when: Expr,
}

fn absent(operand: &Operand, operands: Operands<'_>) -> Cause {
    let present = disjunction(operands.present(operand)).unwrap_or_else(|| lit(false));
    Cause { why: format!("{} is absent", named(operand)), when: Expr::Not(Box::new(present)) }
}

fn named(operand: &Operand) -> String {
    describe_operand(operand)
}

fn causes(meter: &Meter, operands: Operands<'_>) -> Built<Vec<Cause>> {
    let mut causes = Vec::new();
    if let Some(period) = &meter.period {
        causes.extend(of_period(period, operands));
    }
    if let Some(of) = &meter.weight {
        let present = disjunction(operands.present(of)).unwrap_or_else(|| lit(false));
        let number = operands.number(of);
        causes.push(Cause {
            why: format!("weight {} is no number", named(of)),
            when: present.and(number.clone().is_null()),
        });
        causes.push(Cause {
            why: format!("weight {} is below zero", named(of)),
            when: cast(number, wide_type()).lt(cast(lit(0_i64), wide_type())),
        });
    }
    match &meter.aggregation {
        Aggregation::Active(activity) => {
            causes.push(absent(&activity.of, operands));
            causes.push(unknown_word(&activity.operation, operands));
        }
        Aggregation::Reported(report) => {
            causes.extend(no_number(&report.of, operands));
            causes.push(unknown_word(&report.operation, operands));
        }
        Aggregation::TimeWeighted(levels) => causes.extend(no_number(&levels.of, operands)),
        Aggregation::Nested(nested) => causes.extend(no_value(&nested.inner, operands)),
        simple => causes.extend(no_value(simple, operands)),
    }
    Ok(causes)
}

fn of_period(period: &Period, operands: Operands<'_>) -> Vec<Cause> {
    let mut causes = Vec::new();
    for of in [&period.start, &period.end] {
        causes.push(absent(of, operands));
        let when = operands.instant(of, 0).is_null();
        causes.push(Cause { why: format!("{} is no instant", named(of)), when });
    }
    let [start, end] = [&period.start, &period.end].map(|of| operands.instant(of, 0));
    let why = format!("{} lies behind {}", named(&period.start), named(&period.end));
    causes.push(Cause { why, when: start.gt(end) });
    causes
}

fn unknown_word(operation: &Operation, operands: Operands<'_>) -> Cause {
    let said = operands.text(&operation.of);
    let known = operation.words.iter().flatten().map(|word| lit(word.as_str())).collect();
    let words: Vec<&str> = operation.words.iter().flatten().map(String::as_str).collect();
    Cause {
        why: format!("{} is none of {}", named(&operation.of), words.join(", ")),
        when: said.clone().is_not_null().and(in_list(said, known, true)),
    }
}

/// Why a simple aggregation finds nothing to aggregate.
fn no_value(aggregation: &Aggregation, operands: Operands<'_>) -> Vec<Cause> {
    match aggregation {
        Aggregation::CountUnique(of) => vec![absent(of, operands)],
        other => other.operands().first().map_or(Vec::new(), |of| no_number(of, operands)),
    }
}

fn no_number(of: &Operand, operands: Operands<'_>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let needed = match of {
        Operand::Expression(expression) => needed(expression),
        plain @ (Operand::Property(_) | Operand::Field(_) | Operand::Lookup(_)) => vec![plain],
    };
    for of in needed {
        causes.push(absent(of, operands));
        let when = operands.number(of).is_null();
        causes.push(Cause { why: format!("{} is no number", named(of)), when });
    }
    if let Operand::Expression(expression) = of {
        let why = match chooses(expression) {
            false => format!("{expression} divides by zero"),
            true => format!("{expression} has no number: what it chooses from is absent or none"),
        };
        let when = operands.number(of).is_null();
        causes.push(Cause { why, when });
    }
    causes
}

/// Whether an expression takes what there is of several.
fn chooses(expression: &Expression) -> bool {
    match expression {
        Expression::Number(_) | Expression::Value(_) => false,
        Expression::Negative(of) => chooses(of),
        Expression::Binary(left, _, right) => chooses(left) || chooses(right),
        Expression::Call(function, arguments) => {
            *function == Function::Coalesce || arguments.iter().any(chooses)
        }
    }
}

/// The operands without which an expression has no number.
fn needed(expression: &Expression) -> Vec<&Operand> {
    let mut found = match expression {
        Expression::Number(_) | Expression::Call(Function::Coalesce, _) => Vec::new(),
        Expression::Value(operand) => vec![operand.as_ref()],
        Expression::Negative(of) => needed(of),
        Expression::Binary(left, _, right) => {
            needed(left).into_iter().chain(needed(right)).collect()
        }
        Expression::Call(_, arguments) => arguments.iter().flat_map(needed).collect(),
    };
    found.sort();
    found.dedup();
    found
}
