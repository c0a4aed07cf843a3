//! Instants, ranges and windows of time.
//!
//! An instant is microseconds UTC ([`Timestamp`]); a zone turns it into a calendar and back. Ranges
//! are half-open. What a query's windows are is computed once, for its whole range, as
//! [`WindowStarts`], or as [`Calendars`] where each customer has its own: plain data that a plan carries, so that no row asks a time zone.
//! Nothing here reads a clock.

mod billing;
mod billing_history;
mod billing_period;
mod calendars;
mod civil;
mod epoch;
mod literal;
mod local;
mod period;
mod range;
mod rfc3339;
mod starts;
mod timestamp;
mod window;
mod zone;

pub use billing::{Anchor, BILLING_PERIOD, BillingCycle, Cycle};
pub use billing_history::BillingHistory;
pub use billing_period::BillingPeriod;
pub use calendars::Calendars;
pub use epoch::EpochUnit;
pub use local::format_in_zone;
pub use period::{parse_bound, parse_period};
pub use range::TimeRange;
pub use starts::{WindowStarts, window_starts};
pub use timestamp::{Timestamp, TimestampError};
pub use window::{Window, Windowing};
pub use zone::parse_zone;
