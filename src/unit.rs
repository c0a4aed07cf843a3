//! Units: from the raw total to the quantity that is shown and the quantity that is billed.
//!
//! Conversion is exact and rounding happens once, last, from the exact quotient. A unit knows no
//! meter and no prices.

use crate::decimal::{Decimal, RoundingMode};
use crate::error::{Error, Result};

/// Digits shown of a converted quantity whose decimal expansion does not end.
const SHOWN_FRACTION_DIGITS: u32 = 12;

/// Most digits rounding may go to on either side of the point.
const PRECISION_MAX: i32 = 38;

/// How a meter's raw total becomes a quantity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// The unit's name for a quantity of exactly one.
    pub name: String,
    /// The name for every other quantity; without one, `name` serves.
    pub plural: Option<String>,
    /// From raw to converted.
    pub factor: Factor,
    /// How the billable quantity is rounded.
    pub round: Rounding,
    /// Fractional digits of the billable quantity; negative ones round to tens, hundreds and so on.
    pub precision: i32,
}

/// What the raw total is multiplied or divided by; above zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Factor {
    /// Converted = raw × this.
    MultiplyBy(Decimal),
    /// Converted = raw ÷ this.
    DivideBy(Decimal),
}

/// How the billable quantity is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// Away from zero: 0.02 becomes 1 at precision 0.
    Up,
    /// Towards zero.
    Down,
    /// To the nearest, a half away from zero.
    HalfUp,
    /// To the nearest, a half to the even neighbour.
    HalfEven,
    /// Not at all; a quotient without an end is then an error.
    None,
}

/// A raw total in its unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// The exact quantity; where its decimal expansion does not end within 38 fractional digits,
    /// rounded half-even to 12, for show only.
    pub converted: Decimal,
    /// The quantity to bill, rounded once from the exact value.
    pub billable: Decimal,
}

impl Unit {
    /// Whether the definition makes sense: a factor above zero and a precision within ±38.
    ///
    /// # Errors
    ///
    /// Invalid, naming the unit and the value at fault.
    pub fn check(&self) -> Result<()> {
        let (Factor::MultiplyBy(factor) | Factor::DivideBy(factor)) = &self.factor;
        if !factor.is_positive() {
            return Err(Error::invalid(format!(
                "the factor of unit `{}` must be above zero, it is {factor}",
                self.name
            )));
        }
        if self.precision.unsigned_abs() > PRECISION_MAX.unsigned_abs() {
            return Err(Error::invalid(format!(
                "the precision of unit `{}` must lie between -{PRECISION_MAX} and {PRECISION_MAX}, \
                 it is {}",
                self.name, self.precision
            )));
        }
        Ok(())
    }

    /// The raw total in this unit.
    ///
    /// # Errors
    ///
    /// Invalid where the quotient does not end and no rounding is set, and where [`Self::check`]
    /// fails.
    pub fn convert(&self, raw: &Decimal) -> Result<Converted> {
        self.check()?;
        let (dividend, divisor) = match &self.factor {
            Factor::MultiplyBy(factor) => (raw * factor, Decimal::from(1)),
            Factor::DivideBy(factor) => (raw.clone(), factor.clone()),
        };
        let exact = match &self.factor {
            Factor::MultiplyBy(_) => Some(dividend.clone()),
            Factor::DivideBy(_) => dividend.divide_exact(&divisor),
        };
        let billable = match rounding_mode(self.round) {
            Some(mode) => dividend.divide_rounded(&divisor, self.precision, mode),
            None => exact.clone(),
        };
        let shown = exact.or_else(|| dividend.divide_half_even(&divisor, SHOWN_FRACTION_DIGITS));
        // The divisor is above zero, so only a quotient without an end is left as a cause.
        match (shown, billable) {
            (Some(converted), Some(billable)) => Ok(Converted { converted, billable }),
            (_, None) | (None, _) => Err(self.inexact(raw, &divisor)),
        }
    }

    /// The unit's name beside `quantity`: the singular for exactly 1 or -1.
    pub fn label(&self, quantity: &Decimal) -> &str {
        let one = *quantity == Decimal::from(1) || *quantity == Decimal::from(-1);
        match &self.plural {
            Some(plural) if !one => plural,
            Some(_) | None => &self.name,
        }
    }

    fn inexact(&self, raw: &Decimal, divisor: &Decimal) -> Error {
        Error::invalid(format!(
            "{raw} divided by {divisor} has no exact decimal in unit `{}`: set `round` to up, \
             down, half_up or half_even",
            self.name
        ))
    }
}

fn rounding_mode(round: Rounding) -> Option<RoundingMode> {
    match round {
        Rounding::Up => Some(RoundingMode::AwayFromZero),
        Rounding::Down => Some(RoundingMode::TowardsZero),
        Rounding::HalfUp => Some(RoundingMode::HalfUp),
        Rounding::HalfEven => Some(RoundingMode::HalfEven),
        Rounding::None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn unit(factor: Factor, round: Rounding, precision: i32) -> Unit {
        Unit { name: "hour".into(), plural: Some("hours".into()), factor, round, precision }
    }

    #[test]
    fn totals_are_converted_exactly_and_rounded_once() {
        use Factor::{DivideBy, MultiplyBy};
        for (name, raw, factor, round, precision, converted, billable) in [
            (
                "two digits",
                "123.456",
                MultiplyBy(decimal("1")),
                Rounding::HalfUp,
                2,
                "123.456",
                "123.46",
            ),
            (
                "as it is",
                "123.456",
                MultiplyBy(decimal("1")),
                Rounding::None,
                0,
                "123.456",
                "123.456",
            ),
            (
                "hundreds",
                "123.456",
                MultiplyBy(decimal("1")),
                Rounding::HalfEven,
                -2,
                "123.456",
                "100",
            ),
            ("up", "123.456", MultiplyBy(decimal("1")), Rounding::Up, 0, "123.456", "124"),
            ("a little is one", "20000000", DivideBy(decimal("1e9")), Rounding::Up, 0, "0.02", "1"),
            ("nothing is nothing", "0", DivideBy(decimal("1e9")), Rounding::Up, 0, "0", "0"),
            ("down", "1999999999", DivideBy(decimal("1e9")), Rounding::Down, 0, "1.999999999", "1"),
            ("negative up", "-1", DivideBy(decimal("1e9")), Rounding::Up, 0, "-0.000000001", "-1"),
            (
                "no end",
                "1",
                DivideBy(decimal("3600")),
                Rounding::HalfEven,
                6,
                "0.000277777778",
                "0.000278",
            ),
            ("times", "3", MultiplyBy(decimal("0.1")), Rounding::None, 0, "0.3", "0.3"),
        ] {
            let got = unit(factor, round, precision).convert(&decimal(raw)).unwrap();
            assert_eq!(got.converted, decimal(converted), "{name}");
            assert_eq!(got.billable, decimal(billable), "{name}");
        }
    }

    #[test]
    fn billable_is_not_rounded_from_the_rounded_quantity_shown() {
        // 4499999999999999.5 / 9e15 shows as 0.5, yet lies below the half.
        let unit = unit(Factor::DivideBy(decimal("9000000000000001")), Rounding::HalfUp, 0);
        let got = unit.convert(&decimal("4500000000000000")).unwrap();
        assert_eq!(got.converted, decimal("0.5"));
        assert_eq!(got.billable, decimal("0"));
    }

    #[test]
    fn what_cannot_be_converted_says_why() {
        for (name, unit, part) in [
            ("no end", unit(Factor::DivideBy(decimal("3600")), Rounding::None, 0), "set `round`"),
            ("zero", unit(Factor::DivideBy(decimal("0")), Rounding::Up, 0), "above zero, it is 0"),
            ("below", unit(Factor::MultiplyBy(decimal("-2")), Rounding::Up, 0), "it is -2"),
            ("digits", unit(Factor::MultiplyBy(decimal("2")), Rounding::Up, 39), "it is 39"),
            ("least", unit(Factor::MultiplyBy(decimal("2")), Rounding::Up, i32::MIN), "precision"),
        ] {
            let error = unit.convert(&decimal("1")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{name}");
            assert!(error.to_string().contains(part), "{name}: {error}");
        }
    }

    #[test]
    fn labels_are_singular_for_one_only() {
        let mut unit = unit(Factor::MultiplyBy(decimal("1")), Rounding::None, 0);
        for (quantity, want) in [
            ("1", "hour"),
            ("1.0", "hour"),
            ("-1", "hour"),
            ("0", "hours"),
            ("1.5", "hours"),
            ("2", "hours"),
        ] {
            assert_eq!(unit.label(&decimal(quantity)), want, "{quantity}");
        }
        unit.plural = None;
        assert_eq!(unit.label(&decimal("2")), "hour");
    }
}
