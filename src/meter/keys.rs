//! The words of the format: keys, operators and names of aggregations.

/// Keys of a meter file.
pub(super) const METER: [&str; 14] = [
    "meter",
    "name",
    "description",
    "event",
    "filter",
    "aggregation",
    "property",
    "field",
    "percentile",
    "dimensions",
    "lookups",
    "unit",
    "timezone",
    "billing",
];

/// Keys of a meter file whose place is kept for aggregations that this version does not have.
pub(super) const METER_RESERVED: [&str; 4] = ["of", "operation", "per", "prorate"];

/// Names of the aggregations.
pub(super) const AGGREGATIONS: [&str; 9] =
    ["count", "count_unique", "sum", "min", "max", "average", "latest", "earliest", "percentile"];

/// Names of aggregations that this version does not have.
pub(super) const AGGREGATIONS_RESERVED: [&str; 1] = ["time_weighted"];

/// Keys that join conditions.
pub(super) const GROUPS: [&str; 3] = ["all", "any", "not"];

/// Keys that say what a condition looks at.
pub(super) const OPERANDS: [&str; 2] = ["property", "field"];

/// Keys that compare, in the order they are documented.
pub(super) const OPERATORS: [&str; 16] = [
    "equals",
    "not_equals",
    "in",
    "not_in",
    "greater_than",
    "greater_or_equal",
    "less_than",
    "less_or_equal",
    "between",
    "contains",
    "not_contains",
    "starts_with",
    "ends_with",
    "like",
    "exists",
    "not_exists",
];

/// Keys of one lookup.
pub(super) const LOOKUP: [&str; 5] = ["of", "file", "key", "value", "otherwise"];

/// Keys of billing cycles.
pub(super) const BILLING: [&str; 6] = ["anchor", "cycle", "timezone", "file", "key", "otherwise"];

/// Keys of one billing cycle.
pub(super) const BILLING_CYCLE: [&str; 3] = ["anchor", "cycle", "timezone"];

/// Keys of something that is the same for all.
pub(super) const CONSTANT: [&str; 1] = ["value"];

/// Keys of a unit.
pub(super) const UNIT: [&str; 6] =
    ["name", "plural", "divide_by", "multiply_by", "round", "precision"];

/// Ways of rounding.
pub(super) const ROUNDINGS: [&str; 5] = ["up", "down", "half_up", "half_even", "none"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{SYNONYMS, nearest};

    #[test]
    fn only_a_close_word_or_a_synonym_is_offered() {
        for (word, want) in [
            ("agregation", Some("aggregation")),
            ("Dimensions", Some("dimensions")),
            ("timezome", Some("timezone")),
            ("evnet", Some("event")),
            ("events", Some("event")),
            ("group-by", Some("dimensions")),
            ("price", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, &METER), want, "{word}");
        }
    }

    #[test]
    fn a_synonym_is_offered_only_where_its_word_is_possible() {
        assert_eq!(nearest("gte", &OPERATORS), Some("greater_or_equal"));
        assert_eq!(nearest("gte", &METER), None);
    }

    #[test]
    fn every_synonym_leads_to_a_word_of_the_format() {
        for (other, ours) in SYNONYMS {
            let known = METER.contains(&ours)
                || AGGREGATIONS.contains(&ours)
                || GROUPS.contains(&ours)
                || OPERATORS.contains(&ours)
                || UNIT.contains(&ours);
            assert!(known, "{other} leads to {ours}");
        }
    }
}
