//! The words of the format: keys, operators and names of aggregations.

/// Keys of a meter file.
pub(super) const METER: [&str; 23] = [
    "meter",
    "name",
    "description",
    "event",
    "filter",
    "aggregation",
    "property",
    "field",
    "expression",
    "percentile",
    "weight",
    "of",
    "per",
    "operation",
    "prorate",
    "reset",
    "period",
    "customer",
    "dimensions",
    "lookups",
    "unit",
    "timezone",
    "billing",
];

/// Names of the aggregations.
pub(super) const AGGREGATIONS: [&str; 11] = [
    "count",
    "count_unique",
    "sum",
    "min",
    "max",
    "average",
    "latest",
    "earliest",
    "percentile",
    "time_weighted",
    "reported",
];

/// Names of the aggregations that one event's window is enough for.
pub(super) const SIMPLE: [&str; 9] =
    ["count", "count_unique", "sum", "min", "max", "average", "latest", "earliest", "percentile"];

/// Names of the aggregations of results.
pub(super) const OUTER: [&str; 6] = ["count", "sum", "min", "max", "average", "percentile"];

/// Keys of what the results are that another aggregation reads.
pub(super) const NESTED: [&str; 6] =
    ["aggregation", "property", "field", "expression", "percentile", "per"];

/// Keys of what tells a value that comes from one that goes.
pub(super) const OPERATION_ACTIVE: [&str; 4] = ["property", "field", "add", "remove"];

/// Keys of what tells a value that is set from a change.
pub(super) const OPERATION_REPORTED: [&str; 4] = ["property", "field", "set", "change"];

/// Keys of a period.
pub(super) const PERIOD: [&str; 3] = ["start", "end", "place"];

/// Where the value of an event with a period counts.
pub(super) const PLACINGS: [&str; 3] = ["prorate", "start", "end"];

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
pub(super) const LOOKUP: [&str; 8] =
    ["of", "file", "table", "key", "value", "from", "to", "otherwise"];

/// Keys of billing cycles.
pub(super) const BILLING: [&str; 8] =
    ["anchor", "cycle", "timezone", "file", "table", "key", "from", "otherwise"];

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
