//! The right word for a wrong one.

/// What other systems and languages call the words of our files, where the spelling is too far off
/// to be found by distance.
pub const SYNONYMS: [(&str, &str); 33] = [
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
pub fn nearest<'a>(word: &str, words: &[&'a str]) -> Option<&'a str> {
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
pub fn suggestion(word: &str, words: &[&str]) -> Option<String> {
    match nearest(word, words) {
        Some(near) => Some(format!("did you mean `{near}`?")),
        None if words.len() <= 8 => Some(format!("use one of `{}`", words.join("`, `"))),
        None => None,
    }
}
