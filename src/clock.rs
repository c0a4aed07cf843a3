//! The time of day as an argument, so that tests can hold it still.

use crate::time::Timestamp;

/// Where "now" comes from.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    /// The machine's clock.
    System,
    /// Always this instant.
    Fixed(Timestamp),
}

impl Clock {
    /// The present instant, to the microsecond.
    pub fn now(self) -> Timestamp {
        match self {
            Self::System => Timestamp::from_micros(jiff::Timestamp::now().as_microsecond()),
            Self::Fixed(instant) => instant,
        }
    }
}
