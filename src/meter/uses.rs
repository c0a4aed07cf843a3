//! Which properties a meter reads, and what for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Filter, Meter, Operand, resolve};

/// What a meter reads a property for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It is what is aggregated.
    Value,
    /// It says how much an event counts.
    Weight,
    /// It says what an event does, when, or to which series it belongs.
    Series,
    /// It tells the customer.
    Customer,
    /// A condition asks for it.
    Filter,
    /// A breakdown shows it.
    Dimension,
    /// A lookup maps it.
    Lookup,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value => "value",
            Self::Weight => "weight",
            Self::Series => "series",
            Self::Customer => "customer",
            Self::Filter => "filter",
            Self::Dimension => "dimension",
            Self::Lookup => "lookup",
        })
    }
}

/// Whether events of this name may count for `meter`: all that its `event` says, or every one.
pub fn counts_event(meter: &Meter, event_name: &str) -> bool {
    meter.events.is_empty() || meter.events.iter().any(|name| name == event_name)
}

/// The properties that `meter` reads, by name, each with what for.
pub fn property_uses(meter: &Meter) -> BTreeMap<String, BTreeSet<Role>> {
    let mut uses = Uses { meter, roles: BTreeMap::new() };
    for (place, operand) in meter.aggregation.operands().into_iter().enumerate() {
        // What is aggregated is named first.
        let measured = place == 0 && meter.aggregation.measures();
        uses.note(operand, if measured { Role::Value } else { Role::Series });
    }
    for operand in meter.period.iter().flat_map(|period| [&period.start, &period.end]) {
        uses.note(operand, Role::Series);
    }
    meter.weight.iter().for_each(|operand| uses.note(operand, Role::Weight));
    meter.customer.iter().for_each(|operand| uses.note(operand, Role::Customer));
    uses.filter(&meter.filter);
    for name in &meter.dimensions {
        uses.note(&resolve(name, meter), Role::Dimension);
    }
    // A table is read where it is used; what it maps belongs to the meter in any case.
    for lookup in meter.lookups.values() {
        uses.note(&lookup.source(), Role::Lookup);
    }
    uses.roles
}

struct Uses<'m> {
    meter: &'m Meter,
    roles: BTreeMap<String, BTreeSet<Role>>,
}

impl Uses<'_> {
    fn note(&mut self, operand: &Operand, role: Role) {
        match operand {
            Operand::Property(name) => {
                self.roles.entry(name.clone()).or_default().insert(role);
            }
            Operand::Lookup(name) => {
                if let Some(lookup) = self.meter.lookups.get(name) {
                    self.note(&lookup.source(), role);
                }
            }
            Operand::Expression(expression) => {
                expression.operands().into_iter().for_each(|operand| self.note(operand, role));
            }
            Operand::Field(_) => {}
        }
    }

    fn filter(&mut self, filter: &Filter) {
        match filter {
            Filter::All(parts) | Filter::Any(parts) => {
                parts.iter().for_each(|part| self.filter(part));
            }
            Filter::Not(part) => self.filter(part),
            Filter::Test(test) => self.note(&test.operand, Role::Filter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{bandwidth, count, read};
    use super::*;

    #[test]
    fn every_property_is_named_with_its_roles() {
        let uses = property_uses(&bandwidth());
        let shown: Vec<String> = uses
            .iter()
            .map(|(name, roles)| {
                let roles: Vec<String> = roles.iter().map(Role::to_string).collect();
                format!("{name}: {}", roles.join(", "))
            })
            .collect();
        assert_eq!(
            shown,
            [
                "bytes: value",
                "cache: filter",
                "data_center: dimension, lookup",
                "domain: dimension",
                "status: filter",
            ]
        );
        let fields = read(&count("dimensions: [customer_id, property.source]"));
        assert_eq!(property_uses(&fields).into_keys().collect::<Vec<_>>(), ["source"]);
    }

    #[test]
    fn a_meter_without_events_counts_every_one() {
        assert!(counts_event(&bandwidth(), "transfer"));
        assert!(!counts_event(&bandwidth(), "Transfer"));
        assert!(counts_event(&read(&count("")), "whatever"));
    }
}
