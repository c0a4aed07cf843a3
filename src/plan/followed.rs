//! Events as stretches of time: what an event says holds from its instant until another event of its
//! series ends it.
//!
//! Whether an event is asked for matters for what it says alone, not for what it ends: so stretches
//! are made before groups and the conditions of a question have their say.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::min_max::min_udaf;
use datafusion::functions_window::expr_fn::lead;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlanBuilder, TableSource, WindowFrame, WindowFrameBound,
    WindowFrameUnits, WindowFunctionDefinition, ident, in_list, lit, when,
};

use super::operand::Operands;
use super::{Built, GroupKey, Resets, UsageQuery, predicate, range, row_condition, windows};
use crate::error::{Error, Result};
use crate::functions;
use crate::functions::series::spans::parts_literal;
use crate::meter::{Aggregation, Field, Levels, Meter, Operand, Operation, Told};
use crate::schema::{INGESTED_AT, ORDINAL, TIMESTAMP};
use crate::time::TimeRange;

/// What an event says, null where it is skipped: a level, by how much one changes, or whether
/// something comes (or goes). With its `timestamp` and [`UNTIL`] it is a stretch.
pub(super) const SAID: &str = "said";
/// Until when that holds; null is for good.
pub(super) const UNTIL: &str = "until";

/// What ends what an event says.
enum Ends {
    Never,
    /// The next event of the series.
    Next,
    /// The next event of the series for which this holds.
    NextThat(Expr),
}

/// What is followed of each event.
struct Follow<'a> {
    said: Expr,
    /// What tells series apart.
    series: Vec<&'a Operand>,
    ends: Ends,
}

/// What is followed of the events of `meter`; nothing of one that follows nothing.
fn follow<'a>(meter: &'a Meter, operands: Operands<'_>) -> Built<Option<Follow<'a>>> {
    Ok(Some(match &meter.aggregation {
        Aggregation::TimeWeighted(Levels { of, told: Told::Change, .. }) => {
            Follow { said: operands.number(of), series: Vec::new(), ends: Ends::Never }
        }
        Aggregation::TimeWeighted(Levels { of, told: Told::Level, per }) => {
            Follow { said: operands.number(of), series: per.iter().collect(), ends: Ends::Next }
        }
        Aggregation::Active(activity) => {
            let value = operands.text(&activity.of);
            let adds = first_of_two(&activity.operation, operands)?;
            let none = lit(ScalarValue::Boolean(None));
            Follow {
                said: when(value.is_null(), none).otherwise(adds)?,
                series: std::iter::once(&activity.of).chain(&activity.per).collect(),
                ends: Ends::Next,
            }
        }
        // A change is a part of the quantity until the quantity is set anew.
        Aggregation::Reported(report) => {
            let sets = first_of_two(&report.operation, operands)?;
            Follow {
                said: when(sets.clone().is_not_null(), operands.number(&report.of)).end()?,
                series: report.per.iter().collect(),
                ends: Ends::NextThat(sets),
            }
        }
        Aggregation::Count
        | Aggregation::CountUnique(_)
        | Aggregation::Sum(_)
        | Aggregation::Min(_)
        | Aggregation::Max(_)
        | Aggregation::Average(_)
        | Aggregation::Latest(_)
        | Aggregation::Earliest(_)
        | Aggregation::Percentile(..)
        | Aggregation::Nested(_) => return Ok(None),
    }))
}

/// The events that are asked for, from the beginning of history to the end of the range, as
/// stretches: `keys`, [`SAID`], `timestamp`, [`UNTIL`].
pub(super) fn followed(
    events: &Arc<dyn TableSource>,
    meter: &Meter,
    keys: &[GroupKey],
    query: &UsageQuery,
    operands: Operands<'_>,
) -> Result<LogicalPlanBuilder> {
    let nothing = || Error::internal("a meter that follows nothing");
    let follow = follow(meter, operands).map_err(defect)?.ok_or_else(nothing)?;
    let ended = !matches!(follow.ends, Ends::Never);
    let condition = row_condition(meter, query, operands, !ended)?;
    let until = TimeRange { from: None, to: query.range.to };
    let scan = range::scan(events, until, operands.facts.days, condition.as_ref())?;
    let asked = match ended {
        true => {
            let customer = query.customer.as_ref().map(|name| operands.customer().eq(lit(name)));
            let asked = predicate::predicate(&query.filter, operands)?;
            conjunction(asked.into_iter().chain(customer))
        }
        false => None,
    };
    stretches(scan, keys, follow, asked, reset_end(query, operands), operands).map_err(defect)
}

/// Where a quantity that is reported at an event begins at nothing again, if it does.
fn reset_end(query: &UsageQuery, operands: Operands<'_>) -> Option<Expr> {
    let Resets { windows, calendars } = query.resets.as_ref()?;
    let calendar = windows::calendar(calendars.as_ref(), operands.customer());
    let arguments = vec![ident(TIMESTAMP), lit(parts_literal(Some(windows))), calendar];
    Some(functions::window_end().call(arguments))
}

fn defect(error: datafusion::error::DataFusionError) -> Error {
    Error::internal("plan usage").with_source(error)
}

fn stretches(
    scan: LogicalPlanBuilder,
    keys: &[GroupKey],
    follow: Follow<'_>,
    asked: Option<Expr>,
    reset: Option<Expr>,
    operands: Operands<'_>,
) -> Built<LogicalPlanBuilder> {
    let never = || lit(ScalarValue::TimestampMicrosecond(None, Some(Arc::from("UTC"))));
    let Follow { said, series, ends } = follow;
    if matches!(ends, Ends::Never) {
        let groups = keys.iter().map(|key| key.expr.clone().alias(&key.name));
        let columns = [said.alias(SAID), ident(TIMESTAMP), never().alias(UNTIL)];
        return scan.project(groups.chain(columns).collect::<Vec<_>>());
    }
    let mut columns = Columns::default();
    let groups: Vec<Expr> =
        keys.iter().map(|key| columns.of(key.expr.clone()).alias(&key.name)).collect();
    let mut partition: Vec<Expr> =
        series.iter().map(|of| columns.of(of_series(of, operands))).collect();
    let ends_others = match &ends {
        Ends::NextThat(sets) => {
            when(sets.clone().and(said.clone().is_not_null()), ident(TIMESTAMP)).end()?
        }
        Ends::Next | Ends::Never => ident(TIMESTAMP),
    };
    // An event that says nothing is none of the series.
    partition.push(columns.of(said.clone().is_null()));
    let [said, ends_others, asked, reset] =
        [said, ends_others, asked.unwrap_or_else(|| lit(true)), reset.unwrap_or_else(never)]
            .map(|expr| columns.of(expr));
    for placed in [TIMESTAMP, INGESTED_AT, ORDINAL] {
        columns.of(ident(placed));
    }
    let rows = scan.project(columns.named())?;
    let order = |ascending| {
        [TIMESTAMP, INGESTED_AT, ORDINAL]
            .map(|name| ident(name).sort(ascending, !ascending))
            .to_vec()
    };
    let next = match ends {
        Ends::Next | Ends::Never => lead(ends_others, Some(1), None)
            .partition_by(partition)
            .order_by(order(true))
            .build()?,
        // The smallest of those behind it. From the last event on, only one is kept at a time.
        Ends::NextThat(_) => {
            let smallest = WindowFunctionDefinition::AggregateUDF(min_udaf());
            let behind = WindowFrame::new_bounds(
                WindowFrameUnits::Rows,
                WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
                WindowFrameBound::Preceding(ScalarValue::UInt64(Some(1))),
            );
            Expr::from(WindowFunction::new(smallest, vec![ends_others]))
                .partition_by(partition)
                .order_by(order(false))
                .window_frame(behind)
                .build()?
        }
    };
    let rows = rows.window(vec![next])?;
    // The engine names the column after the whole expression; it is the last one.
    let next = rows.schema().fields().last().map(|field| field.name().clone());
    let next = ident(next.unwrap_or_default());
    let until = when(reset.clone().lt(next.clone()).is_true(), reset.clone())
        .otherwise(coalesce(vec![next, reset]))?;
    let kept = [said.alias(SAID), ident(TIMESTAMP), until.alias(UNTIL)];
    rows.filter(asked)?.project(groups.into_iter().chain(kept).collect::<Vec<_>>())
}

/// Columns of which no two are the same: of two that are, the engine sorts by the one and asks for the
/// order of the other, and where files are read in two scans it no longer knows that these are equal.
#[derive(Default)]
struct Columns(Vec<Expr>);

impl Columns {
    /// The column that holds this.
    fn of(&mut self, expr: Expr) -> Expr {
        let place = self.0.iter().position(|known| *known == expr).unwrap_or_else(|| {
            self.0.push(expr);
            self.0.len() - 1
        });
        Self::name(place, &self.0[place])
    }

    fn name(place: usize, expr: &Expr) -> Expr {
        match expr {
            Expr::Column(column) => ident(&column.name),
            _ => ident(format!("followed_{place}")),
        }
    }

    /// All of them, under the names that [`Self::of`] gave.
    fn named(&self) -> Vec<Expr> {
        let named = self.0.iter().enumerate().map(|(place, expr)| match expr {
            Expr::Column(_) => expr.clone(),
            _ => expr.clone().alias(format!("followed_{place}")),
        });
        named.collect()
    }
}

/// What tells series apart: who sends what ends it, whoever it is attributed to meanwhile; where
/// nobody is named, whom it is attributed to.
pub(super) fn of_series(of: &Operand, operands: Operands<'_>) -> Expr {
    let sent = operands.as_sent().text(of);
    match of {
        Operand::Field(Field::CustomerId) if !operands.customer.is_empty() => {
            coalesce(vec![sent, operands.customer()])
        }
        _ => sent,
    }
}

/// True where an event does the first thing, false for the second, null where it says neither.
pub(super) fn first_of_two(operation: &Operation, operands: Operands<'_>) -> Built<Expr> {
    let said = operands.text(&operation.of);
    let among = |words: &[String]| {
        in_list(said.clone(), words.iter().map(|word| lit(word.as_str())).collect(), false)
    };
    let [first, second] = &operation.words;
    when(said.clone().is_null(), lit(operation.silent == 0))
        .when(among(first), lit(true))
        .when(among(second), lit(false))
        .end()
}

pub(super) fn names(keys: &[GroupKey]) -> Vec<Expr> {
    keys.iter().map(|key| ident(&key.name)).collect()
}

/// Whether the events of one customer end nothing of another's, and are ended by none: so that they
/// can be read alone.
pub(super) fn per_customer(meter: &Meter) -> bool {
    let customer = Operand::Field(Field::CustomerId);
    // Whom an event is attributed to may change within a series.
    meter.customer.is_empty()
        && match &meter.aggregation {
            Aggregation::TimeWeighted(levels) => levels.per.contains(&customer),
            Aggregation::Active(activity) => {
                activity.of == customer || activity.per.contains(&customer)
            }
            Aggregation::Reported(report) => report.per.contains(&customer),
            _ => true,
        }
}
