//! The plan of every meter of the repository, as text: a change of plan is a change to review.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::datasource::{empty::EmptyTable, provider_as_source};
use meterhouse::functions::series::by_calendar::ByCalendar;
use meterhouse::functions::series::spans::Spans;
use meterhouse::meter::{Field as BuiltIn, Meter, Operand, load_folder, parse};
use meterhouse::plan::catalogue::{CatalogueQuery, properties_plan};
use meterhouse::plan::{TableFacts, UsageQuery, Windows, usage_plan};
use meterhouse::schema::{ValueKind, events_schema};
use meterhouse::time::{
    BillingCycle, Calendars, TimeRange, Timestamp, Window, parse_zone, window_starts,
};

/// The columns and facts of the lake that `quickstart` makes.
fn web_requests() -> (Schema, TableFacts) {
    let mut properties = BTreeMap::new();
    for (name, kind) in [
        ("bytes", ValueKind::Integer),
        ("method", ValueKind::Text),
        ("path", ValueKind::Text),
        ("protocol", ValueKind::Text),
        ("referrer_host", ValueKind::Text),
        ("status", ValueKind::Integer),
        ("top", ValueKind::Text),
    ] {
        properties.insert(name.to_owned(), vec![kind]);
    }
    let mut fields: Vec<Field> =
        events_schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    let kinds = |(name, kinds): (&String, &Vec<ValueKind>)| {
        kinds.iter().map(|kind| kind.field(name)).collect::<Vec<_>>()
    };
    fields.extend(properties.iter().flat_map(kinds));
    // 2015-05-17 to 2015-05-20.
    let facts = TableFacts { properties, days: Some((16_572, 16_575)), ..TableFacts::default() };
    (Schema::new(fields), facts)
}

fn plan_text(meters: &[&Meter], query: &UsageQuery) -> String {
    let (schema, facts) = web_requests();
    let table = provider_as_source(Arc::new(EmptyTable::new(Arc::new(schema))));
    usage_plan(&table, meters, query, &facts).unwrap().display_indent().to_string()
}

fn meters() -> Vec<Meter> {
    load_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("queries/meters")).unwrap()
}

#[test]
fn every_meter_of_the_repository_has_its_plan() {
    let by_customer =
        UsageQuery { groups: vec![Operand::Field(BuiltIn::CustomerId)], ..UsageQuery::default() };
    for meter in meters() {
        insta::assert_snapshot!(meter.name.clone(), plan_text(&[&meter], &by_customer));
    }
}

#[test]
fn each_way_of_counting_has_its_plan() {
    let at = |text: &str| Timestamp::parse_rfc3339(text).unwrap();
    let (from, to) = (at("2015-05-17T00:00:00Z"), at("2015-05-21T00:00:00Z"));
    let starts = window_starts(Window::DAY, &parse_zone("UTC").unwrap(), from, to).unwrap();
    let spans = Spans { from: from.micros(), to: to.micros(), windows: Some(starts.clone()) };
    let query = UsageQuery {
        range: TimeRange { from: Some(from), to: Some(to) },
        windows: Some(Windows::Shared(starts.clone())),
        spans: Some(ByCalendar::shared(spans)),
        parts: Some(ByCalendar::shared(starts)),
        groups: vec![Operand::Field(BuiltIn::CustomerId)],
        ..UsageQuery::default()
    };
    for (name, text) in [
        ("latest", "aggregation: latest\nproperty: bytes"),
        ("percentile", "aggregation: percentile\npercentile: 95\nproperty: bytes"),
        ("expression", "aggregation: sum\nexpression: ceil(bytes / 1000) * status"),
        ("weight", "aggregation: average\nproperty: bytes\nweight: status"),
        (
            "nested",
            "aggregation: sum\nof: { aggregation: max, property: bytes, per: [path, hour] }",
        ),
        ("time_weighted", "aggregation: time_weighted\nof: level\nproperty: bytes\nper: path"),
        ("active", "aggregation: count_unique\nproperty: path\noperation: method"),
        (
            "active_by_days",
            "aggregation: count_unique\nproperty: path\noperation: method\nprorate: days",
        ),
        ("reported", "aggregation: reported\nproperty: bytes\noperation: method\nper: path"),
        (
            "prorated",
            "aggregation: sum\nproperty: bytes\nperiod: { start: path, end: top, place: prorate }",
        ),
    ] {
        let text = format!("meter: m\nevent: http_request\n{text}\n");
        let meter = parse(&text, "m.yaml").unwrap_or_else(|found| panic!("{name}: {found}"));
        insta::assert_snapshot!(format!("counting-{name}"), plan_text(&[&meter], &query));
    }
}

#[test]
fn a_windowed_range_that_cuts_days_compares_timestamps_only_there() {
    let at = |text: &str| Timestamp::parse_rfc3339(text).unwrap();
    let (from, to) = (at("2015-05-17T12:00:00Z"), at("2015-05-20T00:00:00Z"));
    let zone = parse_zone("UTC").unwrap();
    let query = UsageQuery {
        range: TimeRange { from: Some(from), to: Some(to) },
        windows: Some(Windows::Shared(window_starts(Window::DAY, &zone, from, to).unwrap())),
        groups: vec![Operand::Property("status".to_owned())],
        ..UsageQuery::default()
    };
    let meters = meters();
    let bandwidth = meters.iter().find(|meter| meter.name == "bandwidth").unwrap();
    insta::assert_snapshot!("cut_days", plan_text(&[bandwidth], &query));
}

#[test]
fn customers_of_different_periods_are_told_by_one_plan() {
    let at = |text: &str| Timestamp::parse_rfc3339(text).unwrap();
    let (from, to) = (at("2015-05-17T00:00:00Z"), at("2015-05-21T00:00:00Z"));
    let periods = |anchor: &str| {
        let zone = "Europe/Berlin".to_owned();
        let (anchor, cycle) = (anchor.parse().unwrap(), "monthly".parse().unwrap());
        BillingCycle { anchor, cycle, zone }.periods(from, to).unwrap()
    };
    let calendars = Calendars {
        starts: vec![periods("2015-01-31"), periods("2015-01-19")],
        of_customer: Arc::new(BTreeMap::from([("ann".to_owned(), 1), ("bob".to_owned(), 0)])),
        otherwise: Some(0),
    };
    let query = UsageQuery {
        windows: Some(Windows::PerCustomer(calendars)),
        groups: vec![Operand::Field(BuiltIn::CustomerId)],
        ..UsageQuery::default()
    };
    let meters = meters();
    let bandwidth = meters.iter().find(|meter| meter.name == "bandwidth").unwrap();
    insta::assert_snapshot!("billing_periods", plan_text(&[bandwidth], &query));
}

#[test]
fn meters_over_one_event_share_a_scan() {
    let meters = meters();
    let pick = |name: &str| meters.iter().find(|meter| meter.name == name).unwrap();
    let text =
        plan_text(&[pick("requests"), pick("bandwidth"), pick("clients")], &UsageQuery::default());
    assert_eq!(text.matches("TableScan").count(), 1, "{text}");
    insta::assert_snapshot!("shared_scan", text);
}

#[test]
fn properties_are_counted_in_one_scan_of_the_columns_that_hold_values() {
    let (schema, mut facts) = web_requests();
    // Statistics say that nothing has a referrer.
    facts.properties.insert("referrer_host".to_owned(), Vec::new());
    let table = provider_as_source(Arc::new(EmptyTable::new(Arc::new(schema))));
    let query = CatalogueQuery { event: Some("http_request".to_owned()), ..Default::default() };
    let plan = properties_plan(&table, &query, &facts).unwrap();
    let text = plan.display_indent().to_string();
    assert_eq!(text.matches("TableScan").count(), 1, "{text}");
    assert!(text.contains("count(events.i_bytes)") && !text.contains("s_bytes"), "{text}");
    assert!(!text.contains("referrer_host"), "{text}");
    assert!(text.contains("event_name = Utf8(\"http_request\")"), "{text}");
}
