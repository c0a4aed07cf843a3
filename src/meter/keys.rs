//! The words of the format: keys, operators and names of aggregations, with what people write
//! instead of them.

/// Keys of a meter file.
pub(super) const METER: [&str; 12] = [
    "meter",
    "name",
    "description",
    "event",
    "filter",
    "aggregation",
    "property",
    "field",
    "dimensions",
    "lookups",
    "unit",
    "timezone",
];

/// Keys of a meter file whose place is kept for aggregations that this version does not have.
pub(super) const METER_RESERVED: [&str; 5] = ["of", "operation", "per", "percentile", "prorate"];

/// Names of the aggregations.
pub(super) const AGGREGATIONS: [&str; 8] =
    ["count", "count_unique", "sum", "min", "max", "average", "latest", "earliest"];

/// Names of aggregations that this version does not have.
pub(super) const AGGREGATIONS_RESERVED: [&str; 2] = ["percentile", "time_weighted"];

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

/// Keys of a unit.
pub(super) const UNIT: [&str; 6] =
    ["name", "plural", "divide_by", "multiply_by", "round", "precision"];

/// Ways of rounding.
pub(super) const ROUNDINGS: [&str; 5] = ["up", "down", "half_up", "half_even", "none"];

/// What other systems and languages call our words, where the spelling is too far off to be found
/// by distance.
const SYNONYMS: [(&str, &str); 33] = [
    ("avg", "average"),
    ("mean", "average"),
    ("total", "sum"),
    ("maximum", "max"),
    ("minimum", "min"),
    ("last", "latest"),
    ("first", "earliest"),
    ("distinct", "count_unique"),
    ("count_distinct", "count_unique"),
    ("unique", "count_unique"),
    ("unique_count", "count_unique"),
    ("=", "equals"),
    ("==", "equals"),
    ("eq", "equals"),
    ("is", "equals"),
    ("!=", "not_equals"),
    ("<>", "not_equals"),
    ("ne", "not_equals"),
    ("neq", "not_equals"),
    (">", "greater_than"),
    ("gt", "greater_than"),
    (">=", "greater_or_equal"),
    ("gte", "greater_or_equal"),
    ("<", "less_than"),
    ("lt", "less_than"),
    ("<=", "less_or_equal"),
    ("lte", "less_or_equal"),
    ("and", "all"),
    ("or", "any"),
    ("filters", "filter"),
    ("groupby", "dimensions"),
    ("group_by", "dimensions"),
    ("rounding", "round"),
];

/// Longest word for which a near one is looked for, in bytes.
const WORD_MAX_BYTES: usize = 40;

/// The word that was probably meant: a known synonym, or one at most a third of its letters away.
pub(super) fn nearest<'a>(word: &str, words: &[&'a str]) -> Option<&'a str> {
    if word.len() > WORD_MAX_BYTES {
        return None;
    }
    let lower = word.to_lowercase().replace(['-', ' '], "_");
    let synonym = SYNONYMS.iter().find(|(other, _)| *other == lower).map(|(_, ours)| *ours);
    if let Some(found) = words.iter().find(|known| Some(**known) == synonym) {
        return Some(found);
    }
    words
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&lower, known), *known))
        .filter(|(distance, known)| distance * 3 <= known.chars().count().max(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// The help for a wrong word: the nearest right one, or all of them where they are few.
pub(super) fn suggestion(word: &str, words: &[&str]) -> Option<String> {
    match nearest(word, words) {
        Some(near) => Some(format!("did you mean `{near}`?")),
        None if words.len() <= 8 => Some(format!("use one of `{}`", words.join("`, `"))),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
