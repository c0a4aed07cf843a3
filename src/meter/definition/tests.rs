//! What is read of meter files, and what is said about those that are wrong.

use super::super::keys::{AGGREGATIONS, OPERATORS, OUTER, SIMPLE};
use super::super::tests::{count, read};
use super::*;
use crate::time::Window;

/// What is said about a text that is wrong.
fn refusal(text: &str) -> String {
    parse(text, "m.yaml").expect_err(text).to_string()
}

#[test]
fn a_wrong_key_is_shown_with_the_right_one() {
    let text = "meter: m\nagregation: sum\nproperty: bytes\n";
    let want = "\
m.yaml:1:1: missing key `aggregation`
  |
1 | meter: m
  | ^^^^^ one of `count`, `count_unique`, `sum`, `min`, `max`, `average`, `latest`, `earliest`, `percentile`, `time_weighted`, `reported`

m.yaml:2:1: unknown key `agregation`
  |
2 | agregation: sum
  | ^^^^^^^^^^ did you mean `aggregation`?";
    assert_eq!(refusal(text), want);
}

/// Wrong texts, and what is said about each without the source line: place, message, marked
/// part in brackets, help.
fn check(cases: &[(String, &str)]) {
    for (text, want) in cases {
        let found = parse(text, "m.yaml").expect_err(text);
        assert_eq!(short(&found), expand(want), "{text}");
    }
}

#[test]
fn a_file_that_is_no_meter_is_told_with_its_place() {
    check(&[
        (String::new(), "1:1: file holds no meter"),
        ("just text".to_owned(), "1:1: a meter needs a mapping, not a value [j]"),
        ("- a\n- b".to_owned(), "1:1: a meter needs a mapping, not a list [-]"),
        (
            "{}".to_owned(),
            "1:1: missing key `meter` [{] its identifier, such as `meter: \
             requests`\n\
             1:1: missing key `aggregation` [{] one of {aggregations}",
        ),
        (
            "meter: My Meter\naggregation: count".to_owned(),
            "1:8: `My Meter` is no identifier [My Meter] a lower-case letter, \
             then letters, digits, `_` and `-`, at most 63",
        ),
        ("meter:\naggregation: count".to_owned(), "1:1: `meter` needs a text, not nothing [meter]"),
        (count("meter: n"), "3:1: duplicate key `meter` [meter] it stands above already"),
        (count("name:"), "3:1: `name` needs a text, not nothing [name]"),
        (count("event: []"), "3:8: `event` names no event [[]] leave it out to count every event"),
        (
            count("event: [a, b, a, '']"),
            "3:15: event `a` stands twice [a]\n\
             3:18: event name `` has 0 bytes, not 1 to 128 ['']",
        ),
        (count("event:\n  - a\n  - {b: c}"), "5:5: `event` needs a text, not a mapping [{b: c}]"),
        (
            count("dimensions: [d, '', d]"),
            "3:17: a dimension has no name ['']\n\
             3:21: dimension `d` stands twice [d]",
        ),
        (
            count("name: !!str x"),
            "3:7: tags are not supported [!!str] quote a value to make it a text",
        ),
        (
            count("name: &a x\ndescription: *a"),
            "3:7: anchors are not supported [&a] leave it out and repeat the \
             value where it is needed\n\
             4:14: aliases are not supported [*a] write the value out, or quote a \
             text that starts with `*`",
        ),
        (count("<<: {name: x}"), "3:1: unknown key `<<` [<<]"),
    ]);
}

#[test]
fn a_wrong_aggregation_or_operand_is_told_with_its_place() {
    const SUM: &str = "meter: m\naggregation: sum\n";
    check(&[
        (
            "meter: m\naggregation: avg\nproperty: p".to_owned(),
            "2:14: unknown aggregation `avg` [avg] did you mean `average`?",
        ),
        (
            "meter: m\naggregation: magic\nproperty: p".to_owned(),
            "2:14: unknown aggregation `magic` [magic] use one of {aggregations}",
        ),
        (
            "meter: m\naggregation: percentile\nproperty: p".to_owned(),
            "2:14: `percentile` needs a `percentile` [percentile] add `percentile: 95`, or \
             another number up to 100",
        ),
        (
            "meter: m\naggregation: percentile\nproperty: p\npercentile: 100.5".to_owned(),
            "4:13: `percentile` needs a number up to 100, not `100.5` [100.5] with at most 6 \
             digits after the point",
        ),
        (
            "meter: m\naggregation: sum\nproperty: p\npercentile: 95".to_owned(),
            "4:1: `sum` takes no `percentile` [percentile] write `aggregation: percentile`",
        ),
        (
            "meter: m\naggregation: {sum: {max: bytes, per: hour}}".to_owned(),
            "2:14: `aggregation` needs a text, not a mapping [{sum: {max: bytes, per: hour}}]",
        ),
        (
            format!("{SUM}expression: bytes * 'two'"),
            "3:13: `'two'` is no number: an expression computes with numbers [bytes * 'two']",
        ),
        (
            format!("{SUM}property: p\nexpression: p * 2"),
            "4:1: `property` and `expression` cannot stand together [expression] leave one of \
             them out",
        ),
        (
            format!("{SUM}property: p\noperation: o\nreset: month"),
            "4:1: `sum` takes no `operation` [operation] leave it out\n\
             5:1: `sum` takes no `reset` [reset] it belongs to `reported`",
        ),
        (
            format!("{SUM}property: p\nof: level"),
            "4:1: `sum` takes no `of` [of] an aggregation of results has a mapping there, with \
             `aggregation` and `per`",
        ),
        (
            format!("{SUM}of: {{ aggregation: time_weighted, property: p, per: hour }}"),
            "3:20: unknown aggregation `time_weighted` [time_weighted] use one of {simple}",
        ),
        (
            format!("{SUM}of: {{ aggregation: max, property: p, per: [hour, day] }}"),
            "3:50: a result has one window, and this is the second [day]",
        ),
        (
            "meter: m\naggregation: latest\nof: { aggregation: count, per: day }".to_owned(),
            "2:14: `latest` of results is not defined [latest] use one of {outer}",
        ),
        (
            "meter: m\naggregation: max\nproperty: p\nweight: n".to_owned(),
            "4:1: `max` takes no `weight` [weight] `count`, `sum` and `average` take one",
        ),
        (
            "meter: m\naggregation: time_weighted\nproperty: p".to_owned(),
            "1:1: missing key `of` [meter] `level` where each event tells the level, `change` \
             where it tells a difference",
        ),
        (
            "meter: m\naggregation: reported\nproperty: p\noperation: { property: o, set: x, \
             change: [y, x] }\nreset: fortnight"
                .to_owned(),
            "4:12: `x` is both `set` and `change` [{ property: o, set: x, change: [y, x] }]\n\
             5:8: {fortnight} [fortnight]",
        ),
        (
            "meter: m\naggregation: reported\nproperty: p\noperation: o\nreset: billing_period"
                .to_owned(),
            "5:8: the meter has no billing periods [billing_period] say since when, such as \
             `billing: { anchor: 2023-01-31 }`",
        ),
        (
            "meter: m\naggregation: max\nproperty: p\nperiod: { start: s, end: e }".to_owned(),
            "4:1: `max` cannot be prorated [period] only a `sum` can; say `place: start` or \
             `place: end`",
        ),
        (
            SUM.to_owned(),
            "2:14: `sum` needs a `property` or a `field` [sum] add `property: \
             <name of a property>`",
        ),
        (
            format!("{SUM}property: p\nfield: source"),
            "4:1: `property` and `field` cannot stand together [field] leave one \
             of them out",
        ),
        (
            format!("{SUM}property: customer_id"),
            "3:11: `customer_id` is a built-in field, not a property \
             [customer_id] write `field: customer_id`, or `property: \
             property.customer_id` for a property of that name",
        ),
        (format!("{SUM}property: ''"), "3:11: `property` is empty ['']"),
        (format!("{SUM}property: [a, b]"), "3:11: `property` needs a text, not a list [[a, b]]"),
        (
            format!("{SUM}field: customer"),
            "3:8: unknown field `customer` [customer] did you mean `customer_id`?",
        ),
        (
            format!("{SUM}field: bytes"),
            "3:8: unknown field `bytes` [bytes] the fields are {fields}",
        ),
        (
            format!("{SUM}field: resource_id"),
            "3:8: `sum` needs numbers, and `resource_id` is a text [resource_id] \
             only `count_unique` reads built-in fields",
        ),
        (
            "meter: m\naggregation: max\nfield: timestamp".to_owned(),
            "3:8: `max` needs numbers, and `timestamp` is a moment [timestamp] \
             only `count_unique` reads built-in fields",
        ),
        (
            count("property: p"),
            "3:1: `count` takes no `property` [property] it counts events; \
             `count_unique` counts values",
        ),
    ]);
}

#[test]
fn a_condition_that_is_none_is_told_with_its_place() {
    check(&[
        (count("filter: status"), "3:9: a condition needs a mapping, not a value [status]"),
        (count("filter: [[]]"), "3:10: a condition needs a mapping, not a list [[]]"),
        (
            count("filter: {}"),
            "3:9: condition has no `property` or `field` [{}] say what is \
             compared\n\
             3:9: condition has no operator [{}] add one of {operators}",
        ),
        (
            count("filter: {equals: 1}"),
            "3:10: condition has no `property` or `field` [equals] say what is \
             compared",
        ),
        (
            count("filter: {property: p, gte: 1}"),
            "3:23: unknown operator `gte` [gte] did you mean `greater_or_equal`?",
        ),
        (
            count("filter: {proprety: p, equals: 1}"),
            "3:10: unknown key `proprety` [proprety] did you mean `property`?",
        ),
        (
            count("filter:\n  - property: p\n    equals: 1\n    not_equals: 2"),
            "6:5: condition has two operators, `equals` and `not_equals` \
             [not_equals] write a condition for each, in a list",
        ),
        (
            count("filter: {any: [], property: p}"),
            "3:15: `any` needs at least one condition [[]]\n\
             3:19: `property` cannot stand beside `any` [property] make it a \
             condition of its own, in a list",
        ),
        (
            count("filter: {not: [{property: p, exists: true}]}"),
            "3:15: `not` takes one condition [[{property: p, exists: true}]] join \
             several with `all` or `any` inside of it",
        ),
    ]);
}

#[test]
fn a_value_that_cannot_be_compared_is_told_with_its_place() {
    check(&[
        (count("filter: {property: p, in: []}"), "3:27: `in` needs at least one value [[]]"),
        (
            count("filter: {property: p, in: [1, [2]]}"),
            "3:31: `in` needs a value, not a list [[2]]",
        ),
        (
            count("filter: {property: p, equals: null}"),
            "3:31: `equals` needs a value, not nothing [null] an absent value is \
             asked for with `exists: false`",
        ),
        (
            count("filter: {property: p, equals: }"),
            "3:23: `equals` needs a value, not nothing [equals] an absent value \
             is asked for with `exists: false`",
        ),
        (
            count("filter: {property: p, less_than: true}"),
            "3:34: `less_than` needs a number or a text, not `true` [true]",
        ),
        (
            count("filter: {property: p, between: 5}"),
            "3:32: `between` needs two values [5] write them as `[low, high]`, \
             both included",
        ),
        (
            count("filter: {property: p, between: [1, b]}"),
            "3:32: `between` needs two numbers or two texts, not one of each [[1, \
             b]]",
        ),
        (
            count("filter: {property: p, between: [10, 9]}"),
            "3:32: `between` starts above its end [[10, 9]] nothing lies between \
             them, write the lower one first",
        ),
        (
            count("filter: {property: p, exists: 'true'}"),
            "3:31: `exists` needs `true` or `false` ['true']",
        ),
        (
            count("filter: {property: p, contains: [a]}"),
            "3:33: `contains` needs a text, not a list [[a]]",
        ),
        (
            count("filter: {property: p, equals: 1e99}"),
            "3:31: number `1e99` has too many digits [1e99] at most 38 stand \
             before and 38 after the point; quote it if it is a text",
        ),
        (
            count("filter: {field: timestamp, like: 2026%}"),
            "3:28: `like` compares texts, and `timestamp` is a moment [like] \
             compare it with `between`, `greater_or_equal` or `less_than`",
        ),
        (
            count("filter: {field: timestamp, less_than: 2026-10-01}"),
            "3:39: `timestamp` is a moment, and this is none [2026-10-01] write \
             it as `2026-10-01T00:00:00Z`",
        ),
    ]);
}

#[test]
fn a_wrong_lookup_or_unit_is_told_with_its_place() {
    check(&[
        (
            count("lookups: {source: {of: a, file: f.csv, key: k, value: v}}"),
            "3:11: lookup `source` has the name of a built-in field [source] give \
             it another name",
        ),
        (
            count("lookups: {property.x: {of: a, file: /f.csv, key: k, value: v}}"),
            "3:11: lookup `property.x` has the name of a property [property.x] \
             names that start with `property.` are properties\n\
             3:37: `file` needs a relative path, not `/f.csv` [/f.csv] it starts \
             at the meter file's folder",
        ),
        (
            count("lookups:\n  region:\n    of: a\n    fiel: f.csv\n    key: ''\n    value: v"),
            "5:5: missing key `file` [of] a CSV or Parquet file, relative to the meter file, or a \
             `table` of the lake\n\
             6:5: unknown key `fiel` [fiel] did you mean `file`?\n\
             7:10: `key` is empty ['']",
        ),
        (
            count("lookups: {r: {of: a, file: f.csv, table: t, key: k, value: v}}"),
            "3:35: `file` and `table` cannot stand together [table] leave one of them out",
        ),
        (
            count("lookups: {r: {of: a, table: ../t, key: k, value: v}}"),
            "3:29: `../t` is no name of a table [../t] a lower-case letter, then letters, \
             digits, `_` and `-`, at most 63",
        ),
        (
            count("unit: GB"),
            "3:7: `unit` needs a mapping, not a value [GB] write it as `{ name: \
             GB }`",
        ),
        (
            count("unit: {divide_by: 0, multiply_by: x}"),
            "3:8: missing key `name` [divide_by] the unit's name, such as `name: \
             GB`\n\
             3:22: `divide_by` and `multiply_by` cannot stand together \
             [multiply_by] leave one of them out",
        ),
        (
            count("unit: {name: GB, divide_by: 0, round: nearest}"),
            "3:29: `divide_by` needs a number above zero, not `0` [0]\n\
             3:39: unknown round `nearest` [nearest] use one of `up`, `down`, \
             `half_up`, `half_even`, `none`",
        ),
        (
            count("unit: {name: GB, precision: 2}"),
            "3:18: `precision` says nothing without rounding [precision] add \
             `round`, or leave it out",
        ),
        (
            count("unit: {name: GB, round: up, precision: 2.5}"),
            "3:40: `precision` needs a whole number from -38 to 38, not `2.5` \
             [2.5]",
        ),
    ]);
}

/// The words that a want leaves out.
fn expand(want: &str) -> String {
    let list = |words: &[&str]| format!("`{}`", words.join("`, `"));
    want.replace("{aggregations}", &list(&AGGREGATIONS))
        .replace("{simple}", &list(&SIMPLE))
        .replace("{outer}", &list(&OUTER))
        .replace("{fortnight}", &"fortnight".parse::<Window>().unwrap_err().to_string())
        .replace("{operators}", &list(&OPERATORS))
        .replace("{fields}", &list(&Field::ALL.map(Field::as_str)))
}

/// One line for each diagnostic, with the marked part in brackets.
fn short(found: &Diagnostics) -> String {
    let lines = found.list.iter().map(|d| {
        let marked: String = d.source_line.chars().skip(d.column - 1).take(d.length).collect();
        let marked = if marked.is_empty() { marked } else { format!(" [{marked}]") };
        let help = d.help.as_ref().map_or(String::new(), |help| format!(" {help}"));
        format!("{}:{}: {}{marked}{help}", d.line, d.column, d.message)
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn an_unknown_zone_is_refused() {
    let found = refusal(&count("timezone: Europe/Berlinn"));
    assert!(found.starts_with("m.yaml:3:11: "), "{found}");
    assert!(found.contains("Europe/Berlinn"), "{found}");
    assert_eq!(read(&count("timezone: europe/berlin")).timezone.unwrap(), "Europe/Berlin");
}

#[test]
fn a_huge_file_is_refused_and_a_thousand_mistakes_are_summed_up() {
    let huge = format!("meter: m # {}", "x".repeat(FILE_MAX_BYTES));
    assert_eq!(
        refusal(&huge),
        format!("m.yaml:1:1: file of {} bytes is larger than 1048576", huge.len())
    );
    let keys: String = (0..1000).map(|n| format!("x{n}: 1\n")).collect();
    let found = parse(&count(&keys), "m.yaml").unwrap_err();
    assert_eq!((found.list.len(), found.omitted), (100, 900));
    assert!(found.to_string().ends_with("\n\nand 900 more"));
}
