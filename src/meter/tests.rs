//! Tests of the format as a whole: what is read, what is refused and how that is told.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::unit::{Factor, Rounding};

/// A meter file that uses everything.
pub(super) const BANDWIDTH: &str = "\
meter: bandwidth                      # identifier, unique in its folder
name: Used bandwidth
description: Bytes sent to readers, internal traffic left out
event: transfer                       # or a list; left out: every event
filter:                               # a list means all of them; all / any / not nest
  - { property: status, in: [200, 206] }
  - any:
      - { property: cache, not_exists: true }
      - { property: cache, not_equals: internal }
aggregation: sum
property: bytes                       # or `field: customer_id` for a built-in field
dimensions: [domain, region]          # what a breakdown shows unless the query says otherwise
lookups:
  region: { of: data_center, file: ../lookups/regions.csv, key: data_center, value: region, otherwise: unmapped }
unit: { name: GB, plural: GB, divide_by: 1000000000, round: up, precision: 0 }
timezone: Europe/Berlin
";

/// The same meter as JSON, its keys in another order.
pub(super) const BANDWIDTH_JSON: &str = r#"{
	"timezone": "Europe/Berlin",
	"unit": {"precision": 0, "round": "up", "divide_by": 1000000000, "plural": "GB", "name": "GB"},
	"lookups": {"region": {"otherwise": "unmapped", "value": "region", "key": "data_center",
		"file": "../lookups/regions.csv", "of": "data_center"}},
	"dimensions": ["domain", "region"],
	"property": "bytes", "aggregation": "sum",
	"filter": [
		{"in": [200, 206], "property": "status"},
		{"any": [{"property": "cache", "not_exists": true},
			{"property": "cache", "not_equals": "internal"}]}
	],
	"event": ["transfer"],
	"description": "Bytes sent to readers, internal traffic left out",
	"name": "Used bandwidth", "meter": "bandwidth"
}"#;

pub(super) fn property(name: &str) -> Operand {
    Operand::Property(name.to_owned())
}

pub(super) fn text(value: &str) -> Literal {
    Literal::Text(value.to_owned())
}

pub(super) fn number(value: &str) -> Literal {
    Literal::Number(value.parse().unwrap())
}

pub(super) fn test(operand: Operand, comparison: Comparison) -> Filter {
    Filter::Test(Test { operand, comparison })
}

pub(super) fn bandwidth() -> Meter {
    let region = Lookup {
        of: "data_center".to_owned(),
        table: TablePlace::File("../lookups/regions.csv".to_owned()),
        from: None,
        to: None,
        history: Arc::default(),
        key: "data_center".to_owned(),
        value: "region".to_owned(),
        otherwise: Some("unmapped".to_owned()),
        number: None,
        rows: Arc::default(),
    };
    Meter {
        name: "bandwidth".to_owned(),
        title: Some("Used bandwidth".to_owned()),
        description: Some("Bytes sent to readers, internal traffic left out".to_owned()),
        events: vec!["transfer".to_owned()],
        filter: Filter::All(vec![
            test(property("status"), Comparison::In(vec![number("200"), number("206")])),
            Filter::Any(vec![
                test(property("cache"), Comparison::NotExists),
                test(property("cache"), Comparison::NotEquals(text("internal"))),
            ]),
        ]),
        aggregation: Aggregation::Sum(property("bytes")),
        weight: None,
        period: None,
        customer: Vec::new(),
        dimensions: vec!["domain".to_owned(), "region".to_owned()],
        lookups: BTreeMap::from([("region".to_owned(), region)]),
        unit: Some(Unit {
            name: "GB".to_owned(),
            plural: Some("GB".to_owned()),
            factor: Factor::DivideBy("1000000000".parse().unwrap()),
            round: Rounding::Up,
            precision: 0,
        }),
        timezone: Some("Europe/Berlin".to_owned()),
        billing: None,
    }
}

/// The meter of a text that is right.
pub(super) fn read(text: &str) -> Meter {
    match parse(text, "m.yaml") {
        Ok(meter) => meter,
        Err(found) => panic!("{found}\n\n{text}"),
    }
}

/// The text of a minimal meter with more lines.
pub(super) fn count(more: &str) -> String {
    format!("meter: m\naggregation: count\n{more}\n")
}

/// The filter of a count with this line of `filter`.
pub(super) fn filter_of(condition: &str) -> Filter {
    read(&format!("meter: m\naggregation: count\nfilter: {condition}\n")).filter
}

#[test]
fn a_file_with_everything_is_read_as_yaml_and_as_json() {
    assert_eq!(read(BANDWIDTH), bandwidth());
    assert_eq!(read(&BANDWIDTH.replace('\n', "\r\n")), bandwidth());
    assert_eq!(read(BANDWIDTH_JSON), bandwidth());
}

#[test]
fn two_keys_make_a_meter() {
    let meter = read("meter: requests\naggregation: count");
    assert_eq!(meter.aggregation, Aggregation::Count);
    assert!(meter.filter.is_everything() && meter.events.is_empty());
    assert_eq!((meter.unit, meter.timezone, meter.title), (None, None, None));
}

#[test]
fn every_aggregation_is_read() {
    let operand = || property("tokens");
    for want in [
        Aggregation::CountUnique(operand()),
        Aggregation::Sum(operand()),
        Aggregation::Min(operand()),
        Aggregation::Max(operand()),
        Aggregation::Average(operand()),
        Aggregation::Latest(operand()),
        Aggregation::Earliest(operand()),
    ] {
        let text = format!("meter: m\naggregation: {}\nproperty: tokens", want.name());
        assert_eq!(read(&text).aggregation, want);
    }
    for (text, millionths) in [("95", 95_000_000), ("99.9", 99_900_000), ("0.000001", 1)] {
        let file =
            format!("meter: m\naggregation: percentile\nproperty: tokens\npercentile: {text}");
        let percent = Percent::from_millionths(millionths).unwrap();
        assert_eq!(percent.to_string(), text);
        assert_eq!(read(&file).aggregation, Aggregation::Percentile(operand(), percent));
    }
    let users = read("meter: m\naggregation: count_unique\nfield: customer_id").aggregation;
    assert_eq!(users.operands(), [&Operand::Field(Field::CustomerId)]);
}

#[test]
fn every_operator_is_read() {
    for (written, want) in [
        ("equals: 1", Comparison::Equals(number("1"))),
        ("not_equals: a", Comparison::NotEquals(text("a"))),
        ("in: [1, a]", Comparison::In(vec![number("1"), text("a")])),
        ("in: 1", Comparison::In(vec![number("1")])),
        ("not_in: [true]", Comparison::NotIn(vec![Literal::Boolean(true)])),
        ("greater_than: 9", Comparison::GreaterThan(number("9"))),
        ("greater_or_equal: -0.5", Comparison::GreaterOrEqual(number("-0.5"))),
        ("less_than: 1e3", Comparison::LessThan(number("1000"))),
        ("less_or_equal: m", Comparison::LessOrEqual(text("m"))),
        ("between: [9, 10]", Comparison::Between(number("9"), number("10"))),
        ("between: ['10', '9']", Comparison::Between(text("10"), text("9"))),
        ("contains: 404", Comparison::Contains("404".to_owned())),
        ("not_contains: b", Comparison::NotContains("b".to_owned())),
        ("starts_with: /v1/", Comparison::StartsWith("/v1/".to_owned())),
        ("ends_with: .test", Comparison::EndsWith(".test".to_owned())),
        ("like: 'a%_'", Comparison::Like("a%_".to_owned())),
        ("exists: true", Comparison::Exists),
        ("exists: false", Comparison::NotExists),
        ("not_exists: true", Comparison::NotExists),
        ("not_exists: false", Comparison::Exists),
    ] {
        let got = filter_of(&format!("{{ property: p, {written} }}"));
        assert_eq!(got, test(property("p"), want), "{written}");
    }
}

#[test]
fn a_literal_is_typed_by_how_it_is_written() {
    for (written, want) in [
        ("0.10", number("0.1")),
        ("0.1000000000000000055511151231257827", number("0.1000000000000000055511151231257827")),
        (
            "12345678901234567890123456789012345678",
            number("12345678901234567890123456789012345678"),
        ),
        ("'200'", text("200")),
        ("\"true\"", text("true")),
        ("true", Literal::Boolean(true)),
        ("false", Literal::Boolean(false)),
        ("NO", text("NO")),
        ("no", text("no")),
        ("off", text("off")),
        ("y", text("y")),
        ("True", text("True")),
        ("0x1F", text("0x1F")),
        ("1_000", text("1_000")),
        ("+5", text("+5")),
        (".5", text(".5")),
        (".inf", text(".inf")),
        (".nan", text(".nan")),
        ("2026-10-01", text("2026-10-01")),
        ("12:30:00", text("12:30:00")),
        ("''", text("")),
        ("'null'", text("null")),
    ] {
        let got = filter_of(&format!("{{ property: p, equals: {written} }}"));
        assert_eq!(got, test(property("p"), Comparison::Equals(want)), "{written}");
    }
}

#[test]
fn conditions_nest() {
    let a = || test(property("a"), Comparison::Exists);
    let b = || test(Operand::Field(Field::Source), Comparison::Equals(text("b")));
    let (a_text, b_text) = ("{property: a, exists: true}", "{field: source, equals: b}");
    for (written, want) in [
        (a_text.to_owned(), a()),
        (format!("[{a_text}, {b_text}]"), Filter::All(vec![a(), b()])),
        (format!("{{any: [{a_text}, {b_text}]}}"), Filter::Any(vec![a(), b()])),
        (format!("{{all: {a_text}}}"), Filter::All(vec![a()])),
        (format!("{{not: {a_text}}}"), Filter::Not(Box::new(a()))),
        (
            format!("{{not: {{any: [{a_text}, {{all: [{b_text}]}}]}}}}"),
            Filter::Not(Box::new(Filter::Any(vec![a(), Filter::All(vec![b()])]))),
        ),
        ("[]".to_owned(), Filter::everything()),
    ] {
        assert_eq!(filter_of(&written), want, "{written}");
    }
}

#[test]
fn a_name_means_a_field_a_lookup_or_a_property() {
    let meter = bandwidth();
    for (name, want) in [
        ("customer_id", Operand::Field(Field::CustomerId)),
        ("region", Operand::Lookup("region".to_owned())),
        ("domain", property("domain")),
        ("property.source", property("source")),
        ("property.region", property("region")),
        ("property.property.x", property("property.x")),
        ("property.", property("property.")),
        ("ordinal", property("ordinal")),
        ("", property("")),
    ] {
        assert_eq!(resolve(name, &meter), want, "{name}");
    }
    let lookups = "lookups: {region: {of: source, file: r.csv, key: k, value: v}}";
    let with = |operand: &str| {
        let text =
            format!("meter: m\naggregation: count\n{lookups}\nfilter: {{{operand}, equals: eu}}");
        let meter = read(&text);
        let Filter::Test(test) = meter.filter else { panic!("{operand}") };
        (test.operand, meter.lookups["region"].clone())
    };
    let (operand, lookup) = with("property: region");
    assert_eq!(operand, Operand::Lookup("region".to_owned()));
    assert_eq!((lookup.source(), lookup.fallback()), (Operand::Field(Field::Source), "unmapped"));
    assert_eq!(with("property: property.region").0, property("region"));
    assert_eq!(with("property: property.source").0, property("source"));
    assert_eq!(with("field: source").0, Operand::Field(Field::Source));
}

#[test]
fn a_moment_is_compared_with_moments() {
    let got = filter_of(
        "{ field: timestamp, between: [2026-10-01T00:00:00+02:00, 2026-10-01T00:00:00.5Z] }",
    );
    let want = Comparison::Between(text("2026-09-30T22:00:00Z"), text("2026-10-01T00:00:00.5Z"));
    assert_eq!(got, test(Operand::Field(Field::Timestamp), want));
    // As texts, the first of these would be the greater.
    filter_of("{ field: timestamp, between: [2026-10-01T00:00:00Z, 2026-10-01T00:00:00.5Z] }");
}

#[test]
fn a_unit_is_read() {
    let of =
        |unit: &str| read(&format!("meter: m\naggregation: count\nunit: {unit}")).unit.unwrap();
    let one = of("{ name: request }");
    assert_eq!(one.factor, Factor::MultiplyBy("1".parse().unwrap()));
    assert_eq!((one.plural, one.round, one.precision), (None, Rounding::None, 0));
    let hours =
        of("{ name: hour, plural: hours, divide_by: 3600, round: half_even, precision: 2 }");
    assert_eq!(hours.factor, Factor::DivideBy("3600".parse().unwrap()));
    assert_eq!((hours.round, hours.precision), (Rounding::HalfEven, 2));
    let scaled = of("{ name: x, multiply_by: '0.001', round: down, precision: -2 }");
    assert_eq!(scaled.factor, Factor::MultiplyBy("0.001".parse().unwrap()));
    assert_eq!((scaled.round, scaled.precision), (Rounding::Down, -2));
}

/// Names and values that have broken other programs.
const NAUGHTY: [&str; 22] = [
    "NULL",
    "null",
    "true",
    "-",
    "--",
    "'; drop table events; --",
    "%s%n",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "${jndi:ldap://x}",
    "{{7*7}}",
    "a.b",
    "ﷺ",
    "👩‍👩‍👧‍👦",
    "\u{202e}abc",
    "İ",
    "\u{1}\u{9f}",
    "line\nbreak\r\n",
    "tab\t",
    " leading and trailing ",
    "\\",
    "`backquote`",
];

#[test]
fn naughty_names_and_values_survive() {
    for naughty in NAUGHTY {
        // JSON leaves these controls as they are, YAML wants them escaped.
        let quoted = serde_json::to_string(naughty).unwrap().replace('\u{9f}', "\\u009f");
        let text = format!(
            "meter: m\nname: {quoted}\nevent: {quoted}\naggregation: sum\nproperty: {quoted}\n\
             dimensions: [{quoted}]\nfilter: {{property: {quoted}, equals: {quoted}}}\n"
        );
        let meter = read(&text);
        assert_eq!(meter.aggregation, Aggregation::Sum(property(naughty)));
        assert_eq!(meter.filter, test(property(naughty), Comparison::Equals(self::text(naughty))));
        assert_eq!((&*meter.events[0], &*meter.dimensions[0]), (naughty, naughty));
        assert!(serde_json::from_str::<serde_json::Value>(&normalised(&meter)).is_ok());
        let shown = describe(&meter);
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    }
}

/// The schema for editors and the parser must know the same words.
#[test]
fn the_schema_has_the_words_of_the_parser() {
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../../queries/schema/meter.schema.json")).unwrap();
    let names = |pointer: &str| {
        let mut names: Vec<String> = match schema.pointer(pointer).expect(pointer) {
            serde_json::Value::Object(members) => members.keys().cloned().collect(),
            serde_json::Value::Array(members) => {
                members.iter().map(|member| member.as_str().unwrap().to_owned()).collect()
            }
            other => panic!("{pointer} is {other}"),
        };
        names.sort();
        names
    };
    let sorted = |words: &[&str]| {
        let mut words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        words.sort();
        words
    };
    for (pointer, words) in [
        ("/properties", &keys::METER[..]),
        ("/properties/aggregation/enum", &keys::AGGREGATIONS),
        ("/$defs/field/enum", &Field::ALL.map(Field::as_str)),
        ("/$defs/nested/properties", &keys::NESTED),
        ("/$defs/nested/properties/aggregation/enum", &keys::SIMPLE),
        ("/$defs/operationActive/properties", &keys::OPERATION_ACTIVE),
        ("/$defs/operationReported/properties", &keys::OPERATION_REPORTED),
        ("/$defs/period/properties", &keys::PERIOD),
        ("/$defs/period/properties/place/enum", &keys::PLACINGS),
        ("/$defs/unit/properties", &keys::UNIT),
        ("/$defs/unit/properties/round/enum", &keys::ROUNDINGS),
        ("/$defs/lookup/properties", &keys::LOOKUP),
        ("/$defs/billing/properties", &keys::BILLING),
        ("/$defs/billingCycle/properties", &keys::BILLING_CYCLE),
        ("/$defs/test/properties", &[&keys::OPERANDS[..], &keys::OPERATORS].concat()),
    ] {
        assert_eq!(names(pointer), sorted(words), "{pointer}");
    }
    let groups = schema.pointer("/$defs/condition/anyOf").unwrap().as_array().unwrap();
    let groups = groups.iter().filter_map(|group| group.pointer("/properties")?.as_object());
    let groups: Vec<&str> = groups.flat_map(|group| group.keys()).map(|key| &**key).collect();
    assert_eq!(sorted(&groups), sorted(&keys::GROUPS));
}

proptest! {
    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        let _ = parse(&text, "m.yaml").map_err(|found| found.to_string());
    }

    #[test]
    fn a_mutated_file_is_answered(
        json in any::<bool>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..6, any::<u8>()), 1..8),
    ) {
        let mut bytes = if json { BANDWIDTH_JSON } else { BANDWIDTH }.as_bytes().to_vec();
        for (place, length, byte) in edits {
            let start = place.index(bytes.len());
            let end = (start + length).min(bytes.len());
            bytes.splice(start..end, [byte, b"-{[]}:'\"&*!|>%\n\t ,#?"[usize::from(byte) % 20]]);
        }
        let text = String::from_utf8_lossy(&bytes);
        match parse(&text, "m.yaml") {
            Ok(meter) => prop_assert!(!describe(&meter).is_empty()),
            Err(found) => prop_assert!(found.list.iter().all(|d| d.line > 0 && d.column > 0)),
        }
    }

    #[test]
    fn any_table_is_answered(csv in "[a-c,\"\r\n\u{feff}]{0,40}") {
        let _ = read_rows(&csv, "t.csv", "a", "b").map_err(|found| found.to_string());
    }

    #[test]
    fn a_number_keeps_its_value(digits in "-?[0-9]{1,30}(\\.[0-9]{1,30})?") {
        let got = filter_of(&format!("{{property: p, equals: {digits}}}"));
        prop_assert_eq!(got, test(property("p"), Comparison::Equals(number(&digits))));
    }
}
