//! Exact decimal numbers: from text, to text, and the arithmetic of conversions.
//!
//! [`Number`] is what an event's property holds, in the smallest of three fixed widths; [`Decimal`]
//! has any precision and serves where a few numbers are combined exactly. Nothing here ever passes
//! through a float, and nothing is rounded unless the caller names the rounding.

mod exact;
mod number;
mod parse;
mod text;

pub use exact::{Decimal, RoundingMode, mean_half_even};
pub use number::Number;
pub use parse::{NumberError, canonical_number, parse_number, wide_of_text};
pub use text::{push_scaled, push_scaled_i128, text_of_scaled, text_of_scaled_i128};

/// Fractional digits of [`Number::Fixed`], the scale of the column type decimal(38,18).
pub const FIXED_SCALE: u8 = 18;

/// Fractional digits of [`Number::Wide`], and the most integer or fractional digits kept.
pub const WIDE_SCALE: u8 = 38;
