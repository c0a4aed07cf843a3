//! The engine and the naive second answer agree, bit for bit.
//!
//! Random events, meters and questions go through both, on several layouts (one commit or many,
//! memory or spills, properties in columns or in the map) and numbers of threads. What differs
//! between two such ways of asking one question is a defect, whatever the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::datasource::provider_as_source;
use datafusion::physical_plan::ExecutionPlan;
use futures::TryStreamExt;
use meterhouse::clock::Clock;
use meterhouse::engine::{Engine, Limits, Reach};
use meterhouse::error::Result;
use meterhouse::event::EventRules;
use meterhouse::ingest::input::{Input, InputFormat};
use meterhouse::ingest::{Counts, IngestSettings, Summary, ingest};
use meterhouse::lake::location::{Location, Namespace};
use meterhouse::lake::tables::Lake;
use meterhouse::meter::{self, Meter as Definition};
use meterhouse::plan::{UsageQuery, usage_plan};
use meterhouse::table::EventsTable;
use meterhouse::time::Timestamp;
use meterhouse::usage::{Context, UsageRequest, usage};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::naive::answer::{Refused, Row, answer};
use crate::naive::billing::Billing;
use crate::naive::event::{Line, Moment, Property, Sent};
use crate::naive::filter::{Comparison, Filter, Literal};
use crate::naive::generate::{self, NOW};
use crate::naive::intake::{self, Intake};
use crate::naive::meter::{Aggregation, Bound, Meter, Operand, Question};
use crate::naive::window::Window;
use crate::naive::{series, spell};

/// One runtime for all tests: the lake's log needs several threads.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// Most files of one run.
const FILES: usize = 6;

/// A lake in memory with a folder for the rest.
pub(crate) struct Place {
    lake: Lake,
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("memory://agreement-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let location = Location::parse(&name).unwrap();
        let lake = RUNTIME.block_on(Lake::open_or_create(&location, &Namespace::default()));
        Self { lake: lake.unwrap(), folder: tempfile::tempdir().unwrap() }
    }

    /// Ingests `lines` from several files: a commit holds at least what was read in one piece,
    /// and no piece spans two files.
    pub(crate) fn ingest(&self, lines: &[Line], settings: &IngestSettings) -> Summary {
        let files = lines.chunks(lines.len().div_ceil(FILES).max(1)).enumerate();
        let inputs = files.map(|(number, lines)| {
            let name = format!("{number}.ndjson");
            let path = self.folder.path().join(&name);
            let text: Vec<String> = lines.iter().map(|line| spell::line(line) + "\n").collect();
            std::fs::write(&path, text.concat()).unwrap();
            Input::file(name, path, InputFormat::Json)
        });
        self.ingest_inputs(inputs.collect(), settings).unwrap()
    }

    /// Ingests `inputs` at the instant [`NOW`].
    pub(crate) fn ingest_inputs(
        &self,
        inputs: Vec<Input>,
        settings: &IngestSettings,
    ) -> Result<Summary> {
        let run = ingest(
            self.lake.clone(),
            self.folder().join("state"),
            inputs,
            settings.clone(),
            Clock::Fixed(Timestamp::from_micros(NOW)),
            Arc::new(|_| {}),
        );
        RUNTIME.block_on(run)
    }

    /// A folder of its own.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The input of the last run, for messages.
    fn text(&self) -> String {
        let files = (0..FILES).map(|number| self.folder.path().join(format!("{number}.ndjson")));
        files.filter_map(|path| std::fs::read_to_string(path).ok()).collect()
    }

    /// The lake.
    pub(crate) fn lake(&self) -> &Lake {
        &self.lake
    }

    /// Removes the key index, if there is one, so that the next run makes it anew from the stored
    /// events.
    pub(crate) fn forget_keys(&self) {
        let removed = std::fs::remove_dir_all(self.folder().join("state"));
        if let Err(error) = removed {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        }
    }

    /// The rows of the answer.
    pub(crate) fn ask(
        &self,
        meters: &[Meter],
        question: &Question,
        limits: Limits,
    ) -> Result<Vec<Row>> {
        ask(&self.lake, meters, question, limits)
    }

    /// The rows of the answer as of a version.
    pub(crate) fn ask_at(
        &self,
        meters: &[Meter],
        question: &Question,
        version: u64,
    ) -> Result<Vec<Row>> {
        ask_at(&self.lake, meters, question, (limits(2), Some(version)))
    }
}

/// What a lake answers.
pub(crate) fn ask(
    lake: &Lake,
    meters: &[Meter],
    question: &Question,
    limits: Limits,
) -> Result<Vec<Row>> {
    ask_at(lake, meters, question, (limits, None))
}

fn ask_at(
    lake: &Lake,
    meters: &[Meter],
    question: &Question,
    (limits, at): (Limits, Option<u64>),
) -> Result<Vec<Row>> {
    let context = Context {
        lake: lake.clone(),
        engine: Engine::new(&lake.location, limits)?,
        meters: Arc::new(meters.iter().map(definition).collect()),
        clock: Clock::Fixed(Timestamp::from_micros(NOW)),
    };
    let request = UsageRequest { at, ..spell::request(question) };
    let mut rows = Vec::new();
    let mut take = |batch: RecordBatch| {
        rows.extend(rows_of(&batch));
        Ok(true)
    };
    RUNTIME.block_on(usage(&context, &request, &mut take))?;
    Ok(rows)
}

/// The product's meter, read from the text of a file, and its tables from texts of CSV.
pub(crate) fn definition(meter: &Meter) -> Definition {
    let text = spell::meter(meter);
    let mut definition = match meter::parse(&text, "meter.yaml") {
        Ok(definition) => definition,
        Err(diagnostics) => panic!("{diagnostics}\n{text}"),
    };
    let zone = definition.zone();
    for (name, table) in &meter.lookups {
        let csv = spell::lookup_table(table);
        let read = definition.lookups.get_mut(name).unwrap().read(&csv, "table.csv", &zone);
        read.unwrap_or_else(|found| panic!("{found}\n{csv}"));
    }
    if let Some(Billing::PerCustomer { rows, .. }) = &meter.billing
        && let Some(meter::Billing::PerCustomer(table)) = &mut definition.billing
    {
        let csv = spell::billing_table(rows);
        table.rows = Arc::new(meter::read_billing_rows(&csv, "billing.csv", table).unwrap());
    }
    definition
}

pub(crate) fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let text = |column: &dyn Array, row: usize| match column.data_type() {
        _ if column.is_null(row) => None,
        DataType::Utf8 => Some(column.as_string::<i32>().value(row).to_owned()),
        DataType::Boolean => Some(column.as_boolean().value(row).to_string()),
        DataType::Int64 => Some(column.as_primitive::<Int64Type>().value(row).to_string()),
        other => panic!("a column of {other}"),
    };
    let row = |row| batch.columns().iter().map(|column| text(column, row)).collect();
    (0..batch.num_rows()).map(row).collect()
}

pub(crate) fn limits(threads: usize) -> Limits {
    Limits { threads, ..Limits::default() }
}

pub(crate) fn counts(counts: Counts) -> intake::Counts {
    let Counts { read, accepted, duplicate, conflict, rejected } = counts;
    assert_eq!(accepted + duplicate + conflict + rejected, read, "the account does not add up");
    intake::Counts { accepted, duplicate, conflict, rejected }
}

/// Whether both say the same; what the engine refuses, the second answer must refuse.
pub(crate) fn difference(
    want: &Result<Vec<Row>, Refused>,
    have: &Result<Vec<Row>>,
) -> Option<String> {
    let refusal = |text: &str| {
        text.contains("more than 38 integer digits")
            || text.contains("more than 38 digits before or after the point")
            || text.contains("no exact decimal")
    };
    match (want, have) {
        (Ok(want), Ok(have)) if want == have => None,
        (Err(_), Err(have)) if refusal(&have.to_string()) => None,
        (want, have) => Some(format!("want {want:#?}\nhave {have:#?}")),
    }
}

// ---- Random questions ----

/// A question whose range is not empty in the zone of any meter asked.
pub(crate) fn sound(mut question: Question, meters: &[Meter]) -> Question {
    let empty = |meter: &Meter| {
        let zone = jiff::tz::TimeZone::get(question.zone(meter)).unwrap();
        let micros = |bound: &Option<_>| bound.as_ref().map(|bound: &Bound| bound.micros(&zone));
        matches!((micros(&question.from), micros(&question.to)), (Some(a), Some(b)) if a >= b)
    };
    let asked = |meter: &&Meter| question.meters.contains(&meter.name);
    let asked: Vec<&Meter> = meters.iter().filter(asked).collect();
    if meters.iter().any(empty) {
        question.to = None;
    }
    // Means over time have no value over all of history, and windows of periods no end there; nor has
    // what a customer without windows has.
    let own_windows = question.window == Some(Window::BillingPeriod);
    let may_have_none = |meter: &&Meter| {
        own_windows && matches!(meter.billing, Some(Billing::PerCustomer { otherwise: None, .. }))
    };
    let no_window = |meter: &&Meter| question.window.is_none() || may_have_none(meter);
    let needs_ends = |meter: &&Meter| match &meter.aggregation {
        _ if meter.period.is_some() => question.window.is_some(),
        Aggregation::TimeWeighted { .. } | Aggregation::Active { by_days: true, .. } => {
            no_window(meter)
        }
        Aggregation::Reported { reset: Some(_), .. } => no_window(meter),
        _ => false,
    };
    if asked.iter().any(needs_ends) && (question.from.is_none() || question.to.is_none()) {
        let day = |month| Some(Bound::Date(jiff::civil::date(2026, month, 1)));
        (question.from, question.to) = (day(3), day(11));
    }
    let windowed = |meter: &&Meter| series::follows(meter) || meter.period.is_some();
    if asked.iter().any(windowed) {
        // A value for every window that something is carried into: not for every minute of years.
        let is_open = question.from.is_none() || question.to.is_none();
        question.window = question.window.map(|window| match window {
            Window::Minutes(_) | Window::Hours(_) | Window::Day if is_open => Window::Months(1),
            Window::Minutes(_) | Window::Hours(_) => Window::Day,
            longer => longer,
        });
    }
    // Results of days fit into months, those of hours into days.
    let inner = |meter: &&Meter| match &meter.aggregation {
        Aggregation::Nested { window, .. } => *window,
        _ => None,
    };
    let inner: Vec<Window> = asked.iter().filter_map(inner).collect();
    // A meter's own windows and days are those of its zone, and have to fit into those asked.
    let days =
        |meter: &&Meter| matches!(meter.aggregation, Aggregation::Active { by_days: true, .. });
    if !inner.is_empty() || asked.iter().any(days) {
        question.zone = None;
    }
    if !inner.is_empty() {
        let cycles = asked.iter().filter_map(|meter| meter.billing.as_ref());
        let at_midnight = cycles
            .flat_map(|billing| billing.cycles(None))
            .all(|cycles| cycles.begin_at_midnight());
        question.window = question.window.map(|window| match window {
            Window::Months(_) => window,
            Window::BillingPeriod if at_midnight => window,
            Window::Day | Window::Week if !inner.contains(&Window::Day) => window,
            Window::Week => Window::Week,
            _ => Window::Months(1),
        });
    }
    // Short windows of years would be too many rows to be filled twice.
    let long = matches!(
        question.window,
        Some(Window::Day | Window::Week | Window::Months(_) | Window::BillingPeriod)
    );
    if !long || question.top.is_some() {
        question.fill = None;
    }
    let own_periods =
        asked.iter().any(|meter| matches!(meter.billing, Some(Billing::PerCustomer { .. })));
    let customer = "customer_id".to_owned();
    let groups_needed = question.window == Some(Window::BillingPeriod)
        && own_periods
        && question.customer.is_none()
        && !question.groups.contains(&customer);
    // A series of several customers is of no customer's periods.
    let of_several = |meter: &&Meter| match &meter.aggregation {
        Aggregation::Active { per, .. } | Aggregation::Reported { per, .. } => {
            !per.contains(&Operand::Field("customer_id"))
        }
        _ => false,
    };
    match groups_needed {
        true if asked.iter().any(of_several) => question.window = Some(Window::Months(1)),
        true => question.groups.push(customer),
        false => {}
    }
    question
}

/// How events become a lake.
pub(crate) fn settings() -> BoxedStrategy<IngestSettings> {
    (
        prop_oneof![Just(3_000_usize), Just(20_000), Just(512 << 20)],
        prop_oneof![Just(3_u64), Just(10), Just(1_000)],
        prop_oneof![Just(0_usize), Just(2), Just(200), Just(200)],
        1..4_usize,
        any::<bool>(),
    )
        .prop_map(|(memory_bytes, commit_events, property_columns, threads, customer_required)| {
            IngestSettings {
                rules: EventRules { customer_required, ..EventRules::default() },
                memory_bytes,
                commit_events,
                property_columns,
                threads,
                ..IngestSettings::default()
            }
        })
        .boxed()
}

/// So many cases, the same in every run, unless `PROPTEST_CASES` asks for another number: then they
/// are new ones each time.
pub(crate) fn cases(default: u32) -> Config {
    let given = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    Config {
        rng_seed: given.map_or(RngSeed::Fixed(20_261_120), |_| RngSeed::Random),
        cases: given.unwrap_or(default),
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn every_answer_is_that_of_the_second_implementation(
        lines in generate::lines(),
        settings in settings(),
        meters in generate::meters(),
        questions in proptest::collection::vec(generate::question(), 3),
    ) {
        let lines = timed(lines, &meters);
        let place = Place::new();
        let mut intake = Intake::default();
        let required = settings.rules.customer_required;
        let want = intake.receive(&lines, NOW, required);
        prop_assert_eq!(counts(place.ingest(&lines, &settings).counts), want);
        for question in questions {
            check(&place, &intake, &meters, &sound(question, &meters))?;
        }
    }
}

proptest! {
    // Each of these cases makes two lakes, or one lake three times.
    #![proptest_config(cases(24))]

    #[test]
    fn what_comes_again_changes_nothing(
        lines in generate::lines(),
        first in settings(),
        second in settings(),
        meters in generate::meters(),
        question in generate::question(),
    ) {
        let lines = timed(lines, &meters);
        let second = IngestSettings { rules: first.rules, ..second };
        let required = first.rules.customer_required;
        let place = Place::new();
        let mut intake = Intake::default();
        intake.receive(&lines, NOW, required);
        let again = intake.receive(&lines, NOW, required);
        place.ingest(&lines, &first);
        prop_assert_eq!(counts(place.ingest(&lines, &second).counts), again);
        // The index is derived: what is read back from the stored rows knows every event, too.
        place.forget_keys();
        prop_assert_eq!(counts(place.ingest(&lines, &first).counts), again);
        check(&place, &intake, &meters, &sound(question, &meters))?;
    }

    #[test]
    fn billing_periods_and_filled_windows_are_those_of_the_second_implementation(
        lines in generate::lines(),
        meters in generate::meters(),
        question in generate::windowed_question(),
    ) {
        let lines = timed(lines, &meters);
        let meters: Vec<Meter> =
            meters.into_iter().map(|meter| Meter { filter: None, ..meter }).collect();
        let place = Place::new();
        let mut intake = Intake::default();
        intake.receive(&lines, NOW, false);
        let rules = EventRules { customer_required: false, ..EventRules::default() };
        place.ingest(&lines, &IngestSettings { rules, ..IngestSettings::default() });
        check(&place, &intake, &meters, &sound(question, &meters))?;
    }

    #[test]
    fn the_order_of_receipt_decides_ties_of_time_only(
        (lines, shuffled) in generate::lines().prop_flat_map(|lines| {
            // Of one identity the first content stays, so that conflicts depend on the order.
            let lines = without_conflicts(lines);
            (Just(lines.clone()), Just(lines).prop_shuffle())
        }),
        settings in settings(),
        meters in generate::meters(),
        question in generate::question(),
    ) {
        let question = sound(question, &meters);
        let meters: Vec<Meter> = meters.into_iter().map(without_ties).collect();
        let answers = [lines, shuffled].map(|lines| {
            let lines = timed(lines, &meters);
            let place = Place::new();
            place.ingest(&lines, &settings);
            place.ask(&meters, &question, limits(2)).map_err(|error| error.to_string())
        });
        prop_assert_eq!(&answers[0], &answers[1]);
    }
}

fn check(
    place: &Place,
    intake: &Intake,
    meters: &[Meter],
    question: &Question,
) -> Result<(), TestCaseError> {
    let want = answer(&intake.events, meters, question);
    for threads in [1, 2, 7] {
        let have = place.ask(meters, question, limits(threads));
        if let Some(difference) = difference(&want, &have) {
            let files: Vec<String> = meters.iter().map(spell::meter).collect();
            return Err(TestCaseError::fail(format!(
                "{threads} threads, {:#?}\n{}{difference}\nevents: {}",
                spell::request(question),
                files.concat(),
                place.text()
            )));
        }
    }
    Ok(())
}

pub(crate) fn without_conflicts(lines: Vec<Line>) -> Vec<Line> {
    let mut intake = Intake::default();
    let keep = |line: &Line| intake.receive(std::slice::from_ref(line), NOW, false).conflict == 0;
    lines.into_iter().filter(keep).collect()
}

/// The lines as the second answer knows them: an event without a timestamp happens when its batch is
/// received, which is some microseconds after [`NOW`] for every batch but the first. Where one of
/// `meters` measures time, such an event says that it happens at [`NOW`].
pub(crate) fn timed(mut lines: Vec<Line>, meters: &[Meter]) -> Vec<Line> {
    let measures = |meter: &Meter| matches!(meter.aggregation, Aggregation::TimeWeighted { .. });
    if meters.iter().any(measures) {
        for line in &mut lines {
            if let Line::Event(sent) = line {
                sent.timestamp.get_or_insert_with(|| Moment::Instant {
                    micros: NOW,
                    offset_minutes: 0,
                    finer_digits: String::new(),
                });
            }
        }
    }
    lines
}

/// The lines with no two identities at one instant, so that no order of receipt decides anything.
pub(crate) fn untied(mut lines: Vec<Line>) -> Vec<Line> {
    let identity = |sent: &Sent| (sent.source.clone().unwrap_or_default(), sent.key.clone());
    let identities = lines.iter().filter_map(|line| match line {
        Line::Event(sent) => Some(identity(sent)),
        Line::Broken(_) => None,
    });
    let places: BTreeSet<_> = identities.collect();
    let places: BTreeMap<_, i64> = places.into_iter().zip(1..).collect();
    for line in &mut lines {
        if let Line::Event(sent) = line {
            let place = places[&identity(sent)];
            let now = Moment::Instant {
                micros: NOW - 1_000_000,
                offset_minutes: 0,
                finer_digits: String::new(),
            };
            if let Moment::Instant { micros, .. } = sent.timestamp.get_or_insert(now) {
                *micros += place;
            }
        }
    }
    lines
}

/// The meter, or one like it, whose value no order of receipt can change.
pub(crate) fn without_ties(meter: Meter) -> Meter {
    let plain = |aggregation| match aggregation {
        Aggregation::Latest | Aggregation::Earliest => Aggregation::Sum,
        other => other,
    };
    let aggregation = match meter.aggregation {
        Aggregation::TimeWeighted { .. } => {
            Aggregation::TimeWeighted { change: true, per: Vec::new() }
        }
        Aggregation::Reported { .. } => Aggregation::Sum,
        Aggregation::Active { .. } => Aggregation::CountUnique,
        Aggregation::Nested { outer, inner, window, per } => {
            Aggregation::Nested { outer, inner: Box::new(plain(*inner)), window, per }
        }
        other => plain(other),
    };
    Meter { aggregation, ..meter }
}

// ---- What random questions found, or hardly find ----

/// One event with these properties.
fn event(key: &str, properties: &[(&str, Property)]) -> Line {
    let properties =
        properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Line::Event(Sent {
        name: "e".to_owned(),
        key: key.to_owned(),
        customer: Some("c".to_owned()),
        properties,
        ..Sent::default()
    })
}

#[test]
fn meters_that_share_a_scan_may_differ_in_what_they_exclude() {
    let place = Place::new();
    let lines = [
        event("1", &[("a", Property::Text("x".to_owned())), ("n", Property::Number("2".into()))]),
        event("2", &[("a.b", Property::Text("y".to_owned()))]),
    ];
    place.ingest(&lines, &IngestSettings::default());
    let not = Filter::Not(Box::new(Filter::Test(
        Operand::Property("a".to_owned()),
        Comparison::Like("x%".to_owned()),
    )));
    let meters = [
        Meter { filter: Some(not), ..Meter::count("without") },
        Meter {
            aggregation: Aggregation::Sum,
            operand: Some(Operand::Property("n".to_owned())),
            ..Meter::count("all")
        },
    ];
    let names = ["without", "all"].map(str::to_owned).to_vec();
    let question = Question { meters: names, ..Question::total("all") };
    let rows = place.ask(&meters, &question, limits(2)).unwrap();
    let texts: Vec<Vec<&str>> =
        rows.iter().map(|row| row.iter().flatten().map(String::as_str).collect()).collect();
    assert_eq!(texts, [["without", "1", "1", "0"], ["all", "2", "1", "1"]]);
}

#[test]
fn a_text_is_no_boolean_and_a_boolean_has_a_text() {
    let place = Place::new();
    let lines = [
        event("text", &[("flag", Property::Text("true".to_owned()))]),
        event("boolean", &[("flag", Property::Boolean(true))]),
    ];
    place.ingest(&lines, &IngestSettings::default());
    for (name, literal, want) in
        [("a boolean", Literal::Boolean(true), 1), ("a text", Literal::Text("true".to_owned()), 2)]
    {
        let flag = Operand::Property("flag".to_owned());
        let filter = Some(Filter::Test(flag, Comparison::Equals(literal)));
        let meters = [Meter { filter, ..Meter::count("m") }];
        let rows = place.ask(&meters, &Question::total("m"), limits(1)).unwrap();
        assert_eq!(rows[0][0], Some(want.to_string()), "compared with {name}");
    }
}

// ---- A set that does not fit the engine's memory ----

/// Events of the large set.
const LARGE: u32 = 150_000;

/// Threads, and the memory that they get: less than the groups need.
const LITTLE_MEMORY: [(usize, usize); 2] = [(1, 32 << 20), (2, 64 << 20)];

#[test]
fn an_answer_that_spilled_is_that_of_the_second_implementation() {
    let lines: Vec<Line> = (0..LARGE).map(large_line).collect();
    let place = Place::new();
    let mut intake = Intake::default();
    let want = intake.receive(&lines, NOW, true);
    let settings = IngestSettings {
        memory_bytes: 32 << 20,
        commit_events: u64::from(LARGE / 4),
        ..IngestSettings::default()
    };
    let summary = place.ingest(&lines, &settings);
    assert_eq!(counts(summary.counts), want);
    assert!(summary.commits >= 2, "{} commits", summary.commits);

    let property = |name: &str| Some(Operand::Property(name.to_owned()));
    for (name, aggregation, operand) in [
        ("sum", Aggregation::Sum, property("bytes")),
        ("unique", Aggregation::CountUnique, property("user")),
        ("average", Aggregation::Average, property("mixed")),
        ("latest", Aggregation::Latest, property("bytes")),
    ] {
        let events = vec!["transfer".to_owned()];
        let meter = Meter { events, aggregation, operand, ..Meter::count(name) };
        let groups = vec!["customer_id".to_owned()];
        let question = Question { groups, ..Question::total(name) };
        let meters = [meter];
        let want = answer(&intake.events, &meters, &question).unwrap();
        for (threads, memory_bytes) in LITTLE_MEMORY {
            let limits = Limits { memory_bytes, ..limits(threads) };
            // Of two threads one may now and then end before the other needs its part of the memory.
            let mut runs = (0..5).map(|_| spills(&place, &definition(&meters[0]), limits.clone()));
            assert!(runs.any(|spills| spills > 0), "{name} on {threads} threads did not spill");
            let have = place.ask(&meters, &question, limits).unwrap();
            let first = want.iter().zip(&have).find(|(want, have)| want != have);
            assert_eq!(first, None, "{name} on {threads} threads");
            assert_eq!(have.len(), want.len(), "{name} on {threads} threads");
        }
    }
}

/// One event of the large set: nearly every customer is one of its own, in no order.
fn large_line(number: u32) -> Line {
    // A full cycle through 32 bits (Knuth's multiplier), so that neighbours have nothing in common.
    let mixed = number.wrapping_mul(2_654_435_761);
    let text = |text: String| Property::Text(text);
    Line::Event(Sent {
        name: "transfer".to_owned(),
        key: format!("key-{number}"),
        customer: Some(format!("customer-with-a-long-name-{}", mixed % 250_007)),
        timestamp: Some(Moment::Instant {
            micros: NOW - i64::from(mixed % 1_000) * 3_600_000_000,
            offset_minutes: 0,
            finer_digits: String::new(),
        }),
        properties: vec![
            ("bytes".to_owned(), Property::Number((mixed % 10_007).to_string())),
            ("user".to_owned(), text(format!("u{}", mixed % 65_537))),
            ("mixed".to_owned(), Property::Number(format!("{}.{:03}", mixed % 97, mixed % 1_000))),
        ],
        ..Sent::default()
    })
}

/// How often the question for every customer spills.
fn spills(place: &Place, meter: &Definition, limits: Limits) -> usize {
    let run = async {
        let snapshot = place.lake.events.snapshot(None).await?;
        let table = Arc::new(EventsTable::new(&place.lake.events, snapshot)?);
        let facts = table.facts(meterhouse::time::TimeRange::default());
        let query = UsageQuery {
            groups: vec![meter::resolve("customer_id", meter)],
            ..UsageQuery::default()
        };
        let plan = usage_plan(&provider_as_source(table), &[meter], &query, &facts)?;
        let engine = Engine::new(&place.lake.location, limits)?;
        let physical = engine.physical(&plan, Reach::Broad).await?;
        let rows = engine.execute(Arc::clone(&physical))?;
        let batches: Vec<RecordBatch> = rows.try_collect().await.unwrap();
        assert!(!batches.is_empty());
        let spilled: Result<usize> = Ok(spill_count(physical.as_ref()));
        spilled
    };
    RUNTIME.block_on(run).unwrap()
}

fn spill_count(plan: &dyn ExecutionPlan) -> usize {
    let own = plan.metrics().and_then(|metrics| metrics.spill_count()).unwrap_or(0);
    own + plan.children().into_iter().map(|child| spill_count(child.as_ref())).sum::<usize>()
}
