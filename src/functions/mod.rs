//! The DataFusion functions that our plans and SQL use beside the stock ones.
//!
//! Plans name them and carry everything else as literals, so that the same plan runs wherever
//! [`scalar_functions`] and [`aggregate_functions`] are registered. No I/O.

use std::sync::{Arc, LazyLock};

use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

use arithmetic::{Arithmetic, ArithmeticFunction};

pub mod arithmetic;
pub mod average;
pub mod calendar;
pub mod calendar_window;
pub mod checked;
pub mod count_unique;
pub mod latest;
pub mod lookup;
pub mod lookup_at;
mod mean;
pub mod number;
pub mod percentile;
pub mod quotient;
pub mod series;
mod single;
pub mod sum;
pub mod window_start;

/// The exact sum of our plans.
pub fn exact_sum() -> Arc<AggregateUDF> {
    static SHARED: LazyLock<Arc<AggregateUDF>> =
        LazyLock::new(|| Arc::new(sum::ExactSum::new().into()));
    Arc::clone(&SHARED)
}

/// The exact average of our plans.
pub fn exact_avg() -> Arc<AggregateUDF> {
    static SHARED: LazyLock<Arc<AggregateUDF>> =
        LazyLock::new(|| Arc::new(average::ExactAverage::new().into()));
    Arc::clone(&SHARED)
}

/// The value of the latest event.
pub fn latest() -> Arc<AggregateUDF> {
    static SHARED: LazyLock<Arc<AggregateUDF>> =
        LazyLock::new(|| Arc::new(latest::ValueAt::new(latest::End::Latest).into()));
    Arc::clone(&SHARED)
}

/// The value of the earliest event.
pub fn earliest() -> Arc<AggregateUDF> {
    static SHARED: LazyLock<Arc<AggregateUDF>> =
        LazyLock::new(|| Arc::new(latest::ValueAt::new(latest::End::Earliest).into()));
    Arc::clone(&SHARED)
}

/// The value that a share of all values does not exceed.
pub fn percentile() -> Arc<AggregateUDF> {
    static SHARED: LazyLock<Arc<AggregateUDF>> =
        LazyLock::new(|| Arc::new(percentile::Percentile::new().into()));
    Arc::clone(&SHARED)
}

/// The exact number of distinct texts.
pub fn count_unique() -> Arc<AggregateUDF> {
    static SHARED: LazyLock<Arc<AggregateUDF>> =
        LazyLock::new(|| Arc::new(count_unique::CountUnique::new().into()));
    Arc::clone(&SHARED)
}

/// The start of an instant's window.
pub fn window_start() -> Arc<ScalarUDF> {
    static SHARED: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(window_start::WindowStart::new().into()));
    Arc::clone(&SHARED)
}

/// The number of a customer's calendar.
pub fn calendar() -> Arc<ScalarUDF> {
    static SHARED: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(calendar::Calendar::new().into()));
    Arc::clone(&SHARED)
}

/// The start of an instant's window in one of several calendars.
pub fn calendar_window_start() -> Arc<ScalarUDF> {
    static SHARED: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(calendar_window::CalendarWindowStart::new().into()));
    Arc::clone(&SHARED)
}

/// The exact number that a text reads as.
pub fn to_number() -> Arc<ScalarUDF> {
    static SHARED: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(number::ToNumber::new().into()));
    Arc::clone(&SHARED)
}

/// The canonical text of a number.
pub fn canonical_text() -> Arc<ScalarUDF> {
    static SHARED: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(number::CanonicalText::new().into()));
    Arc::clone(&SHARED)
}

/// A text mapped by a table in the plan.
pub fn lookup() -> Arc<ScalarUDF> {
    static SHARED: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(lookup::Lookup::new().into()));
    Arc::clone(&SHARED)
}

/// A text mapped by the row of a table in the plan that holds at an instant.
pub fn lookup_at() -> Arc<ScalarUDF> {
    static SHARED: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(lookup_at::LookupAt::new().into()));
    Arc::clone(&SHARED)
}

/// A chain of `+` and `-` on integers that fails on overflow.
pub fn checked_sum() -> Arc<ScalarUDF> {
    static SHARED: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(checked::Checked::new(checked::Chain::Sum).into()));
    Arc::clone(&SHARED)
}

/// A chain of `*` on integers that fails on overflow.
pub fn checked_product() -> Arc<ScalarUDF> {
    static SHARED: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(checked::Checked::new(checked::Chain::Product).into()));
    Arc::clone(&SHARED)
}

/// The quotient of two exact numbers.
pub fn quotient() -> Arc<ScalarUDF> {
    static SHARED: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(quotient::Quotient::new().into()));
    Arc::clone(&SHARED)
}

/// Exact arithmetic on numbers of any width.
pub fn arithmetic(of: Arithmetic) -> Arc<ScalarUDF> {
    static SHARED: LazyLock<Vec<(Arithmetic, Arc<ScalarUDF>)>> = LazyLock::new(|| {
        let function = |of| (of, Arc::new(ArithmeticFunction::new(of).into()));
        Arithmetic::ALL.map(function).into()
    });
    let known = SHARED.iter().find(|(known, _)| *known == of);
    known.map_or_else(|| Arc::new(ArithmeticFunction::new(of).into()), |(_, f)| Arc::clone(f))
}

/// The instant that a text or timestamp is.
pub fn to_instant() -> Arc<ScalarUDF> {
    static SHARED: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(series::instant::ToInstant::new().into()));
    Arc::clone(&SHARED)
}

/// A value of a stretch of time, cut into windows.
pub fn shares() -> Arc<ScalarUDF> {
    static SHARED: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(series::share::Shares::new().into()));
    Arc::clone(&SHARED)
}

/// A value divided by the length of its window.
pub fn per_length() -> Arc<ScalarUDF> {
    static SHARED: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(series::length::PerLength::new().into()));
    Arc::clone(&SHARED)
}

/// The windows of what an aggregate over time gathered.
pub fn pieces(of: series::pieces::Of) -> Arc<ScalarUDF> {
    use series::pieces::{Of, Pieces};
    static SHARED: LazyLock<[(Of, Arc<ScalarUDF>); 3]> =
        LazyLock::new(|| Of::ALL.map(|of| (of, Arc::new(Pieces::new(of).into()))));
    let known = SHARED.iter().find(|(known, _)| *known == of);
    known.map_or_else(|| Arc::new(Pieces::new(of).into()), |(_, function)| Arc::clone(function))
}

/// The end of the window that holds an instant.
pub fn window_end() -> Arc<ScalarUDF> {
    static SHARED: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(series::window_end::WindowEnd::new().into()));
    Arc::clone(&SHARED)
}

/// The area under a level, for each window.
pub fn area() -> Arc<AggregateUDF> {
    static SHARED: LazyLock<Arc<AggregateUDF>> =
        LazyLock::new(|| Arc::new(series::area::Level::new(series::area::Told::Area).into()));
    Arc::clone(&SHARED)
}

/// A level at the end of each window.
pub fn level() -> Arc<AggregateUDF> {
    static SHARED: LazyLock<Arc<AggregateUDF>> =
        LazyLock::new(|| Arc::new(series::area::Level::new(series::area::Told::Last).into()));
    Arc::clone(&SHARED)
}

/// How many values are there at the end of each window, or on how many days of it.
pub fn present() -> Arc<AggregateUDF> {
    static SHARED: LazyLock<Arc<AggregateUDF>> =
        LazyLock::new(|| Arc::new(series::present::Present::new().into()));
    Arc::clone(&SHARED)
}

/// When something is there.
pub fn presence() -> Arc<AggregateUDF> {
    static SHARED: LazyLock<Arc<AggregateUDF>> =
        LazyLock::new(|| Arc::new(series::presence::Presence::new().into()));
    Arc::clone(&SHARED)
}

/// Every scalar function of ours.
pub fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    let arithmetic = Arithmetic::ALL.map(arithmetic);
    let others = vec![
        window_start(),
        calendar(),
        calendar_window_start(),
        to_number(),
        canonical_text(),
        lookup(),
        lookup_at(),
        checked_sum(),
        checked_product(),
        quotient(),
        to_instant(),
        shares(),
        per_length(),
        window_end(),
    ];
    let all_pieces = series::pieces::Of::ALL.map(pieces);
    others.into_iter().chain(arithmetic).chain(all_pieces).collect()
}

/// Every aggregate function of ours; `sum` and `avg` take the place of the stock ones in SQL.
pub fn aggregate_functions() -> Vec<Arc<AggregateUDF>> {
    vec![
        exact_sum(),
        exact_avg(),
        latest(),
        earliest(),
        count_unique(),
        percentile(),
        area(),
        level(),
        presence(),
        present(),
        Arc::new(sum::ExactSum::for_sql().into()),
        Arc::new(average::ExactAverage::for_sql().into()),
    ]
}
