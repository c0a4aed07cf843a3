//! Made-up events, meters and questions, full of the cases that go wrong.
//!
//! Values come from small pools, so that filters hit, groups meet and identities repeat.

use std::collections::BTreeMap;

use jiff::civil::{DateTime, date};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use super::billing::{Billing, Cycle, Cycles, Length};
use super::event::{Line, Moment, Property, Sent};
use super::filter::{Comparison, Filter, Literal};
use super::meter::{
    Aggregation, Bound, Expression, FIELDS, Fill, Lookup, Meter, Operand, Placing, Question, Unit,
};
use super::number::{self, Reading, Round};
use super::spell::has_sql;
use super::window::Window;

/// The instant at which everything is received, in microseconds: 2026-12-01T12:00:00.000Z.
pub(crate) const NOW: i64 = 1_796_126_400_000_000;

const SECOND: i64 = 1_000_000;

/// Property names, plain, odd, and alike but for case or dots.
const NAMES: [&str; 11] = [
    "bytes", "Bytes", "status", "a.b", "größe", "x y", "source", "we\"ird", "flag", "region", "2xx",
];

const ZONES: [&str; 9] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/St_Johns",
    "Africa/Cairo",
    "Asia/Kolkata",
    "Pacific/Chatham",
];

/// Instants, in seconds, around which clocks are set, dates change and years begin.
const TURNS: [i64; 9] = [
    1_774_746_000, // 2026-03-29T01:00:00Z: Berlin
    1_792_890_000, // 2026-10-25T01:00:00Z: Berlin
    1_775_314_800, // 2026-04-04T15:00:00Z: Lord Howe
    1_791_041_400, // 2026-10-03T15:30:00Z: Lord Howe
    1_776_981_600, // 2026-04-23T22:00:00Z: Cairo
    1_793_512_800, // 2026-11-01T06:00:00Z: New York
    1_767_225_600, // 2026-01-01T00:00:00Z
    1_709_164_800, // 2024-02-29T00:00:00Z
    1_796_083_200, // 2026-12-01T00:00:00Z
];

fn text(pool: &'static [&'static str]) -> BoxedStrategy<String> {
    select(pool).prop_map(str::to_owned).boxed()
}

// ---- Events ----

fn json_number() -> BoxedStrategy<String> {
    prop_oneof![
        6 => (-5_i64..20).prop_map(|number| number.to_string()),
        2 => (-50_i64..50, 0..1_000_u16).prop_map(|(whole, rest)| format!("{whole}.{rest:03}")),
        2 => text(&[
            "1.50", "5.0", "1e3", "1E-3", "-0", "-0.0", "0.1", "2.50e+1", "0e99",
            "99999999999999999999", "9223372036854775807", "-9223372036854775808",
            "9223372036854775808", "123456789012345678901234567890.123",
            "0.00000000000000000000000000000000000001",
            "99999999999999999999.999999999999999999",
            "12345678901234567890123456789012345678.12345678901234567890123456789012345678",
        ]),
    ]
    .boxed()
}

/// Texts, numbers among them. No `true` and `false`: whether such a text under an odd name is told
/// from a boolean is not pinned.
fn value_text() -> BoxedStrategy<String> {
    prop_oneof![
        3 => text(&["a", "b", "ab", "5", "9", "10", "200", "-3", "0.5"]),
        1 => text(&[
            "", "A", "05", "1e2", "-0", "1.50", "+5", " 5", "5 ", "1,000", "NaN", "Infinity", "é",
            "e\u{301}", "日本", "%", "_a", "x\ny", "x\\y", "null", "'", "\"", "\u{0}", "😀",
            "999999999999999999999999999999999999999", "99999999999999999999",
            "0.00000000000000000000000000000000000001", "0x10", "١",
        ]),
    ]
    .boxed()
}

fn property() -> BoxedStrategy<Property> {
    prop_oneof![
        6 => json_number().prop_map(Property::Number),
        4 => value_text().prop_map(Property::Text),
        1 => any::<bool>().prop_map(Property::Boolean),
        1 => text(&["[1, 2]", "[]", "[\"a\"]", "[{\"a\":1}]"]).prop_map(Property::Array),
        1 => Just(Property::Null),
        1 => btree_map(text(&["b", "", "c"]), json_number(), 0..3).prop_map(|members| {
            let members = members.into_iter().map(|(name, n)| (name, Property::Number(n)));
            Property::Object(members.collect())
        }),
    ]
    .boxed()
}

/// Properties of one kind per name, as most senders send them, or of any kind.
fn properties() -> BoxedStrategy<Vec<(String, Property)>> {
    let name = prop_oneof![20 => text(&NAMES), 1 => text(&["", "a", "i_x", "properties"])];
    let plain = btree_map(name, property(), 0..10);
    // What is followed over time: small levels, words of operations, and stretches.
    let level = prop_oneof![
        4 => (-9_i64..30).prop_map(|number| Property::Number(number.to_string())),
        2 => (-50_i64..50, 0..1_000_u16)
            .prop_map(|(whole, rest)| Property::Number(format!("{whole}.{rest:03}"))),
        1 => text(&["7", "2.5", "none", ""]).prop_map(Property::Text),
    ];
    let operation = text(&["add", "remove", "SET", "DELTA", "else"]).prop_map(Property::Text);
    let instant = prop_oneof![
        8 => (select(&TURNS), -90_000_i64..200_000).prop_map(|(turn, seconds)| {
            let at = jiff::Timestamp::from_second(turn + seconds).unwrap();
            Property::Text(at.to_string())
        }),
        1 => text(&["yesterday", "2026-02-30T00:00:00Z"]).prop_map(Property::Text),
    ];
    let followed = (
        option::weighted(0.6, level),
        option::weighted(0.7, operation),
        option::weighted(0.4, instant.clone()),
        option::weighted(0.4, instant),
    );
    (plain, followed)
        .prop_map(|(members, (level, operation, start, end))| {
            let followed = [("level", level), ("op", operation), ("ps", start), ("pe", end)];
            let followed =
                followed.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
            members.into_iter().chain(followed).collect::<Vec<_>>()
        })
        .boxed()
}

fn moment() -> BoxedStrategy<Option<Moment>> {
    let near = (select(&TURNS), prop_oneof![-7_200_i64..7_200, -90_000_i64..90_000]);
    let micros = prop_oneof![
        4 => near.prop_map(|(turn, seconds)| (turn + seconds) * SECOND),
        4 => (select(&TURNS), -2_i64..3).prop_map(|(turn, micros)| turn * SECOND + micros),
        1 => (0_i64..1_000).prop_map(|day| (1_700_000_000 + day * 86_399) * SECOND + 123_456),
    ];
    let offset = select(&[0, 0, 60, 120, -300, 345, 630, -210, 825]);
    prop_oneof![
        20 => (micros, offset, text(&["", "", "9", "4999"])).prop_map(
            |(micros, offset_minutes, finer_digits)| {
                // A day and a second ahead of the clock is too far.
                let micros = micros.min(NOW + 86_401 * SECOND);
                Some(Moment::Instant { micros, offset_minutes, finer_digits })
            }
        ),
        2 => Just(None),
    ]
    .boxed()
}

fn customer() -> BoxedStrategy<Option<String>> {
    prop_oneof![
        8 => text(&["c1", "c2", "C1", "7", "ünal"]).prop_map(Some),
        1 => text(&[""]).prop_map(Some),
        1 => Just(None),
    ]
    .boxed()
}

fn sent() -> BoxedStrategy<Sent> {
    let envelope = (
        text(&["transfer", "transfer", "request", "Transfer", "größe"]),
        customer(),
        option::weighted(0.3, text(&["r1", "r2", ""])),
        option::weighted(0.2, text(&["s1", "s2", ""])),
    );
    (envelope, 0..60_u32, moment(), properties())
        .prop_map(|((name, customer, resource, source), key, timestamp, properties)| {
            let key = format!("k{key}");
            Sent { name, key, customer, resource, source, timestamp, properties }
        })
        .boxed()
}

/// What is sent again of an event.
#[derive(Debug, Clone)]
enum Again {
    /// The same.
    Same,
    /// The same, numbers written in another way.
    OtherWriting,
    /// The identity with one more property.
    OtherContent,
    /// The content under another source: another event.
    OtherSource,
}

fn again(sent: &Sent, how: &Again) -> Sent {
    let mut sent = sent.clone();
    match how {
        Again::Same => {}
        Again::OtherWriting => {
            for (_, property) in &mut sent.properties {
                if let Property::Number(text) = property
                    && let Reading::Number(units) = number::read(text)
                {
                    let canonical = number::text(&units, number::DIGITS);
                    *property = match canonical.contains('.') {
                        true => Property::Text(canonical),
                        false => Property::Number(format!("{canonical}.0")),
                    };
                }
            }
        }
        Again::OtherContent => sent.properties.push(("more".to_owned(), Property::Boolean(true))),
        Again::OtherSource => sent.source = Some("elsewhere".to_owned()),
    }
    sent
}

/// An event that breaks a rule, one way or another.
fn broken() -> BoxedStrategy<Line> {
    const TEXTS: [&str; 9] = [
        "{",
        "null",
        "12",
        "nothing",
        r#"{"event_name":"e","idempotency_key":"k","customer_id":"c","bytes":1}"#,
        r#"{"event_name":"e","event_name":"e","idempotency_key":"k","customer_id":"c"}"#,
        r#"{"event_name":"e","idempotency_key":5,"customer_id":"c"}"#,
        r#"{"event_name":"e","idempotency_key":"k","customer_id":"c","properties":[]}"#,
        r#"{"event_name":"e","idempotency_key":"k","customer_id":"c","properties":{"n":01}}"#,
    ];
    let wrong = (sent(), 0..7_usize).prop_map(|(mut sent, wrong)| {
        match wrong {
            0 => sent.name = String::new(),
            1 => sent.key = "k".repeat(256),
            2 => sent.customer = Some("c".repeat(257)),
            3 => sent.timestamp = Some(Moment::NoInstant("yesterday".to_owned())),
            4 => {
                let micros = NOW + 86_400 * SECOND + 1;
                let finer_digits = String::new();
                sent.timestamp = Some(Moment::Instant { micros, offset_minutes: 0, finer_digits });
            }
            5 => {
                let huge = Property::Number("1e39".to_owned());
                sent.properties.push(("huge".to_owned(), huge));
            }
            _ => {
                let inner = Property::Object(vec![("d".to_owned(), Property::Boolean(true))]);
                sent.properties.push(("c.d".to_owned(), Property::Boolean(true)));
                sent.properties.push(("c".to_owned(), inner));
            }
        }
        Line::Event(sent)
    });
    prop_oneof![
        select(&TEXTS).prop_map(|text| Line::Broken(text.to_owned())).boxed(),
        wrong.boxed()
    ]
    .boxed()
}

/// Lines in any order: events, some of them again in one way or another, and broken ones.
pub(crate) fn lines() -> BoxedStrategy<Vec<Line>> {
    let how = prop_oneof![
        3 => Just(Again::Same),
        2 => Just(Again::OtherWriting),
        1 => Just(Again::OtherContent),
        1 => Just(Again::OtherSource),
    ];
    (vec(sent(), 1..50), vec((any::<Index>(), how), 0..12), vec(broken(), 0..4))
        .prop_map(|(events, repeats, broken)| {
            let repeated: Vec<Sent> =
                repeats.iter().map(|(place, how)| again(place.get(&events), how)).collect();
            events.into_iter().chain(repeated).map(Line::Event).chain(broken).collect::<Vec<_>>()
        })
        .prop_shuffle()
        .boxed()
}

// ---- Meters ----

fn property_name() -> BoxedStrategy<String> {
    prop_oneof![12 => text(&NAMES), 1 => text(&["never", "a.c", "more"])].boxed()
}

fn stored_operand() -> BoxedStrategy<Operand> {
    prop_oneof![
        5 => property_name().prop_map(Operand::Property),
        1 => select(&FIELDS[..]).prop_map(Operand::Field),
    ]
    .boxed()
}

fn operand() -> BoxedStrategy<Operand> {
    prop_oneof![
        6 => stored_operand(),
        1 => Just(Operand::Lookup("looked_up".to_owned())),
    ]
    .boxed()
}

fn literal_number() -> BoxedStrategy<Literal> {
    prop_oneof![
        4 => (-5_i64..20).prop_map(|number| Literal::Number(number.to_string())),
        2 => json_number().prop_map(Literal::Number),
    ]
    .boxed()
}

/// A text of a literal: what YAML and SQL can both write.
fn literal_text() -> BoxedStrategy<String> {
    (value_text(), text(&["c1", "transfer", "true", "mapped"]), 0..4_u8)
        .prop_map(|(text, other, which)| if which == 0 { other } else { text })
        .prop_filter("no control characters", |text| !text.contains(['\0', '\n']))
        .boxed()
}

fn ordered_literal() -> BoxedStrategy<Literal> {
    prop_oneof![literal_number(), literal_text().prop_map(Literal::Text)].boxed()
}

fn literal() -> BoxedStrategy<Literal> {
    prop_oneof![
        6 => ordered_literal(),
        1 => any::<bool>().prop_map(Literal::Boolean),
    ]
    .boxed()
}

fn between() -> BoxedStrategy<Comparison> {
    let numbers = (-5_i64..20, 0_i64..200).prop_map(|(low, more)| {
        let number = |number: i64| Literal::Number(number.to_string());
        Comparison::Between(number(low), number(low + more))
    });
    let texts = (literal_text(), literal_text()).prop_map(|(a, b)| {
        Comparison::Between(Literal::Text(a.clone().min(b.clone())), Literal::Text(a.max(b)))
    });
    prop_oneof![numbers, texts].boxed()
}

fn part() -> BoxedStrategy<String> {
    text(&["a", "5", "0", "b", "é", "1", "ru", ".", "x", "日", "-", "c", "transfer"]).boxed()
}

fn comparison() -> BoxedStrategy<Comparison> {
    let list = || vec(literal(), 1..5);
    let pattern = text(&["%a%", "a%", "%5", "_", "%", "_b", "1_", "c_", "x%y", "%0", "__", "%.%"]);
    prop_oneof![
        literal().prop_map(Comparison::Equals),
        literal().prop_map(Comparison::NotEquals),
        list().prop_map(Comparison::In),
        list().prop_map(Comparison::NotIn),
        ordered_literal().prop_map(Comparison::GreaterThan),
        ordered_literal().prop_map(Comparison::GreaterOrEqual),
        ordered_literal().prop_map(Comparison::LessThan),
        ordered_literal().prop_map(Comparison::LessOrEqual),
        between(),
        part().prop_map(Comparison::Contains),
        part().prop_map(Comparison::NotContains),
        part().prop_map(Comparison::StartsWith),
        part().prop_map(Comparison::EndsWith),
        pattern.prop_map(Comparison::Like),
        Just(Comparison::Exists),
        Just(Comparison::NotExists),
    ]
    .boxed()
}

fn filter() -> BoxedStrategy<Filter> {
    let test = (operand(), comparison()).prop_map(|(o, c)| Filter::Test(o, c));
    test.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 1..4).prop_map(Filter::All),
            vec(inner.clone(), 1..4).prop_map(Filter::Any),
            inner.prop_map(|part| Filter::Not(Box::new(part))),
        ]
    })
    .boxed()
}

/// What a meter computes, over what, and what else it says of that.
type Measure = (Aggregation, Option<Operand>, Option<Operand>, Option<(Operand, Operand, Placing)>);

fn named(name: &str) -> Operand {
    Operand::Property(name.to_owned())
}

fn per() -> BoxedStrategy<Vec<Operand>> {
    let operands =
        vec![Operand::Field("customer_id"), Operand::Field("resource_id"), named("region")];
    subsequence(operands, 0..=3).boxed()
}

fn expression() -> BoxedStrategy<Expression> {
    let value = || {
        prop_oneof![
            3 => select(&["level", "bytes", "status", "a.b"])
                .prop_map(|name| Expression::Value(named(name))),
            1 => Just(Expression::Value(Operand::Lookup("looked_up".to_owned()))),
            2 => text(&["2", "0", "0.5", "1000", "1e-3", "3"]).prop_map(Expression::Number),
        ]
    };
    let tree = value().prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            4 => (inner.clone(), select(&['+', '-', '*', '/']), inner.clone())
                .prop_map(|(a, sign, b)| Expression::Binary(Box::new(a), sign, Box::new(b))),
            1 => vec(inner.clone(), 1..3).prop_map(Expression::Coalesce),
            2 => (select(&["-", "abs", "ceil", "floor"]), inner.clone())
                .prop_map(|(function, of)| Expression::Call(function, vec![of])),
            1 => (select(&["greatest", "least"]), vec(inner, 1..4))
                .prop_map(|(function, of)| Expression::Call(function, of)),
        ]
    });
    // An expression that reads nothing is refused.
    let level = || Box::new(Expression::Value(named("level")));
    tree.prop_map(move |tree| Expression::Binary(level(), '+', Box::new(tree))).boxed()
}

fn measure() -> BoxedStrategy<Measure> {
    let plain = || plain_measure();
    let bare = |aggregation, operand| (aggregation, operand, None, None);
    let levels = (any::<bool>(), per()).prop_map(move |(change, per)| {
        let per = if change { Vec::new() } else { per };
        bare(Aggregation::TimeWeighted { change, per }, Some(named("level")))
    });
    let active = (property_name(), per(), any::<bool>()).prop_map(move |(of, per, by_days)| {
        let operation = named("op");
        bare(Aggregation::Active { operation, per, by_days }, Some(Operand::Property(of)))
    });
    let reset = option::of(select(&[
        Window::Minutes(60),
        Window::Day,
        Window::Months(1),
        Window::Months(12),
        Window::BillingPeriod,
    ]));
    let reported = (per(), reset).prop_map(move |(per, reset)| {
        let operation = named("op");
        bare(Aggregation::Reported { operation, per, reset }, Some(named("level")))
    });
    let outer = select(&[
        Aggregation::Count,
        Aggregation::Sum,
        Aggregation::Min,
        Aggregation::Max,
        Aggregation::Average,
        Aggregation::Percentile(75_000),
    ]);
    let inner_window = option::of(select(&[Window::Minutes(60), Window::Day]));
    let nested = (outer, plain(), inner_window, per())
        .prop_filter("per something", |(_, _, window, per)| window.is_some() || !per.is_empty())
        .prop_map(move |(outer, (inner, operand), window, per)| {
            let (outer, inner) = (Box::new(outer), Box::new(inner));
            bare(Aggregation::Nested { outer, inner, window, per }, operand)
        });
    let computed = (plain(), expression()).prop_map(move |((aggregation, operand), expression)| {
        let operand = operand.map(|operand| match aggregation {
            Aggregation::CountUnique => operand,
            _ => Operand::Computed(Box::new(expression)),
        });
        bare(aggregation, operand)
    });
    let weighed = (select(&[Aggregation::Count, Aggregation::Sum, Aggregation::Average])).prop_map(
        |aggregation| {
            let operand = (aggregation != Aggregation::Count).then(|| named("bytes"));
            (aggregation, operand, Some(named("level")), None)
        },
    );
    let placing = select(&[Placing::Start, Placing::End]);
    let placed = (plain(), placing).prop_map(|((aggregation, operand), placing)| {
        (aggregation, operand, None, Some((named("ps"), named("pe"), placing)))
    });
    let prorated = Just((
        Aggregation::Sum,
        Some(named("level")),
        None,
        Some((named("ps"), named("pe"), Placing::Prorate)),
    ));
    prop_oneof![
        8 => plain_measure().prop_map(move |(aggregation, operand)| bare(aggregation, operand)),
        2 => levels,
        2 => active,
        2 => reported,
        2 => nested,
        2 => computed,
        1 => weighed,
        1 => placed,
        1 => prorated,
    ]
    .boxed()
}

fn plain_measure() -> BoxedStrategy<(Aggregation, Option<Operand>)> {
    let numeric = select(&[
        Aggregation::Sum,
        Aggregation::Min,
        Aggregation::Max,
        Aggregation::Average,
        Aggregation::Latest,
        Aggregation::Earliest,
        Aggregation::Percentile(50_000),
        Aggregation::Percentile(99_900),
        Aggregation::Percentile(1),
        Aggregation::Percentile(100_000),
    ]);
    let read = prop_oneof![
        10 => property_name().prop_map(Operand::Property),
        1 => Just(Operand::Lookup("looked_up".to_owned())),
    ];
    prop_oneof![
        1 => Just((Aggregation::Count, None)),
        2 => operand().prop_map(|operand| (Aggregation::CountUnique, Some(operand))),
        8 => (numeric, read).prop_map(|(aggregation, operand)| (aggregation, Some(operand))),
    ]
    .boxed()
}

fn lookup() -> BoxedStrategy<Lookup> {
    let rows = btree_map(
        text(&["5", "a", "c1", "transfer", "", "1.5", "r1", "true"]),
        text(&["mapped", "7", "", "0.5", "a"]),
        0..6,
    );
    let otherwise = option::of(text(&["rest", "1", "é"]));
    // The same rows, each with another value before some instant, and perhaps an end.
    let history = option::weighted(0.4, (select(&TURNS), text(&["earlier", "3"]), any::<bool>()));
    (stored_operand(), rows, history, otherwise)
        .prop_map(|(of, rows, history, otherwise)| {
            let history = history.map(|(turn, earlier, ends)| {
                let (turn, end) = (turn * SECOND, (turn + 86_400) * SECOND);
                let to = if ends { end } else { i64::MAX };
                let of_row = |(key, value): (&String, &String)| {
                    let before = (key.clone(), i64::MIN, turn, earlier.clone());
                    [before, (key.clone(), turn, to, value.clone())]
                };
                rows.iter().flat_map(of_row).collect()
            });
            Lookup { of, rows, history, otherwise }
        })
        .boxed()
}

fn unit() -> BoxedStrategy<Unit> {
    let round = (select(&[Round::Up, Round::Down, Round::HalfUp, Round::HalfEven]), -2..4_i32);
    let factor = text(&["1000", "1000000000", "3", "60", "0.001", "1024", "2.5"]);
    (factor, any::<bool>(), option::weighted(0.9, round))
        .prop_map(|(factor, divides, round)| Unit { factor, divides, round })
        .boxed()
}

fn cycle() -> BoxedStrategy<Cycle> {
    let anchors = [
        "2023-01-31T00:00:00",
        "2024-01-29T00:00:00",
        "2024-02-29T00:00:00",
        "2025-12-30T00:00:00",
        "2025-03-30T02:30:00",
        "2026-01-01T00:00:00",
        "2026-10-25T02:00:00",
    ];
    let length = select(&[
        Length::Months(1),
        Length::Months(1),
        Length::Months(3),
        Length::Months(12),
        Length::Days(7),
        Length::Days(30),
        Length::Days(5),
    ]);
    (select(anchors.to_vec()), length, text(&ZONES))
        .prop_map(|(anchor, length, zone)| Cycle { anchor: anchor.parse().unwrap(), length, zone })
        .boxed()
}

/// Cycles in one zone, mostly one.
fn cycles() -> BoxedStrategy<Cycles> {
    let since = [
        "2026-01-01T00:00:00",
        "2026-03-29T00:00:00",
        "2026-03-31T00:00:00",
        "2026-04-24T00:00:00",
        "2026-10-25T00:00:00",
        "2026-10-25T02:30:00",
    ];
    let since = subsequence(since.to_vec(), 1..=3);
    let later = (since, vec(cycle(), 3)).prop_map(|(since, cycles)| {
        since.into_iter().map(|since| since.parse().unwrap()).zip(cycles).collect()
    });
    let later = prop_oneof![2 => Just(Vec::new()), 1 => later];
    (cycle(), later)
        .prop_map(|(first, mut later): (Cycle, Vec<(DateTime, Cycle)>)| {
            later.iter_mut().for_each(|(_, cycle)| cycle.zone.clone_from(&first.zone));
            Cycles { first, later }
        })
        .boxed()
}

fn billing() -> BoxedStrategy<Billing> {
    let rows = btree_map(text(&["c1", "c2", "C1", "7", "ünal", "nobody"]), cycles(), 0..5);
    let always = || cycle().prop_map(Cycles::from);
    prop_oneof![
        1 => always().prop_map(Billing::Shared),
        3 => (rows, option::of(always()))
            .prop_map(|(rows, otherwise)| Billing::PerCustomer { rows, otherwise }),
    ]
    .boxed()
}

fn meter(name: String, lookups: BTreeMap<String, Lookup>, common: Billing) -> BoxedStrategy<Meter> {
    let billing = prop_oneof![4 => Just(common), 1 => billing()];
    (
        prop_oneof![
            3 => Just(vec!["transfer".to_owned()]),
            1 => subsequence(vec!["transfer", "request", "Transfer"], 0..=3)
                .prop_map(|names| names.into_iter().map(str::to_owned).collect()),
        ],
        option::weighted(0.5, filter()),
        measure(),
        option::weighted(0.2, unit()),
        option::weighted(0.2, text(&ZONES)),
        option::weighted(0.2, any::<bool>()),
        billing,
    )
        .prop_map(move |(events, filter, measure, unit, zone, attributed, billing)| {
            let (name, lookups, billing) = (name.clone(), lookups.clone(), Some(billing));
            let (aggregation, operand, weight, period) = measure;
            // A lookup before or after what the events say, if there is one.
            let field = Operand::Field("customer_id");
            let customer = match (attributed, lookups.is_empty()) {
                (None, _) | (_, true) => Vec::new(),
                (Some(true), _) => vec![Operand::Lookup("looked_up".to_owned()), field],
                (Some(false), _) => vec![field, Operand::Lookup("looked_up".to_owned())],
            };
            Meter {
                name,
                events,
                filter,
                aggregation,
                operand,
                weight,
                period,
                customer,
                lookups,
                unit,
                zone,
                billing,
            }
        })
        .boxed()
}

/// Four meters over the same lookup, so that some can share a scan.
pub(crate) fn meters() -> BoxedStrategy<Vec<Meter>> {
    (option::weighted(0.7, lookup()), billing())
        .prop_flat_map(|(lookup, billing)| {
            let lookups: BTreeMap<String, Lookup> =
                lookup.into_iter().map(|lookup| ("looked_up".to_owned(), lookup)).collect();
            let meter = |number: u8| meter(format!("m{number}"), lookups.clone(), billing.clone());
            (meter(0), meter(1), meter(2), meter(3)).prop_map(|(a, b, c, d)| vec![a, b, c, d])
        })
        .boxed()
}

// ---- Questions ----

fn bound() -> BoxedStrategy<Bound> {
    let days = [
        date(2026, 3, 29),
        date(2026, 10, 25),
        date(2026, 4, 24),
        date(2026, 1, 1),
        date(2024, 2, 29),
        date(2026, 12, 1),
        date(2023, 11, 14),
    ];
    prop_oneof![
        select(days.to_vec()).prop_map(Bound::Date),
        (select(&TURNS), -7_200_i64..7_200)
            .prop_map(|(turn, seconds)| Bound::Instant((turn + seconds) * SECOND)),
        (select(&TURNS), -2_i64..3)
            .prop_map(|(turn, micros)| Bound::Instant(turn * SECOND + micros)),
    ]
    .boxed()
}

fn window() -> BoxedStrategy<Window> {
    select(&[
        Window::Minutes(1),
        Window::Minutes(15),
        Window::Minutes(30),
        Window::Minutes(60),
        Window::Hours(2),
        Window::Hours(6),
        Window::Day,
        Window::Week,
        Window::Months(1),
        Window::Months(2),
        Window::Months(3),
        Window::Months(12),
        Window::BillingPeriod,
        Window::BillingPeriod,
        Window::BillingPeriod,
    ])
    .boxed()
}

fn groups() -> BoxedStrategy<Vec<String>> {
    let names = vec![
        "customer_id",
        "resource_id",
        "event_name",
        "source",
        "property.source",
        "bytes",
        "Bytes",
        "status",
        "a.b",
        "größe",
        "looked_up",
        "never",
    ];
    prop_oneof![
        1 => Just(vec![]),
        2 => Just(vec!["customer_id".to_owned()]),
        4 => subsequence(names, 1..=3)
            .prop_map(|names| names.into_iter().map(str::to_owned).collect::<Vec<_>>()),
    ]
    .boxed()
}

/// A question to some of the meters of [`meters`].
pub(crate) fn question() -> BoxedStrategy<Question> {
    let asked = prop_oneof![
        2 => (0..4_u8).prop_map(|number| vec![format!("m{number}")]),
        1 => subsequence(vec!["m0", "m1", "m2", "m3"], 2..=4).prop_shuffle()
            .prop_map(|names| names.into_iter().map(str::to_owned).collect()),
    ];
    let range = (option::weighted(0.3, bound()), option::weighted(0.3, bound()));
    let narrow = (
        option::weighted(0.1, text(&["c1", "7", "nobody"])),
        option::weighted(0.25, filter().prop_filter("SQL can say it", has_sql)),
        option::weighted(0.2, 1..4_usize),
    );
    let fill = option::weighted(0.3, select(&[Fill::Zero, Fill::Null, Fill::Previous]));
    let windows = (option::weighted(0.6, window()), fill);
    (asked, range, groups(), windows, narrow, option::of(text(&ZONES)))
        .prop_map(|(meters, (from, to), groups, windows, (customer, filter, top), zone)| Question {
            meters,
            from,
            to,
            groups,
            window: windows.0,
            fill: windows.1,
            customer,
            filter,
            zone,
            top,
        })
        .boxed()
}

/// A question for billing periods or long windows, mostly filled, and nothing that leaves most events
/// out.
pub(crate) fn windowed_question() -> BoxedStrategy<Question> {
    let window = prop_oneof![
        4 => Just(Window::BillingPeriod),
        1 => select(&[Window::Week, Window::Months(1), Window::Months(3)]),
    ];
    let fill = option::weighted(0.7, select(&[Fill::Zero, Fill::Null, Fill::Previous]));
    (question(), window, fill)
        .prop_map(|(question, window, fill)| Question {
            window: Some(window),
            fill,
            filter: None,
            top: None,
            ..question
        })
        .boxed()
}
