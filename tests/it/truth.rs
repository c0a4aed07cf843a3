//! Asks the data sets in `data/` the questions of their `truth.json` and compares to the last digit.
//!
//! The answers there were computed twice without meterhouse, in Python and in DuckDB, from the
//! sources as they were published. Everything goes through the binary: the events are ingested, and
//! each question becomes a meter file and a `usage` command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

/// Names a question may use that are fields of every event; all others are properties.
const FIELDS: [&str; 3] = ["customer_id", "event_name", "resource_id"];

/// Fractional digits of an average.
const AVERAGE_PLACES: u32 = 12;

#[derive(Deserialize)]
struct Truth {
    events: usize,
    meters: Vec<Question>,
}

#[derive(Deserialize)]
struct Question {
    id: String,
    description: String,
    event_name: Option<String>,
    /// Property, operator, literal.
    #[serde(default)]
    filters: Vec<(String, String, Value)>,
    aggregation: String,
    property: Option<String>,
    #[serde(default)]
    group_by: Vec<String>,
    window: Option<String>,
    timezone: String,
    start: Option<String>,
    end: Option<String>,
    rows: usize,
    file: String,
}

/// A row of an answer: the window's local start, the groups (`None` is null), the value.
type Row = (Option<String>, Vec<Option<String>>, String);

/// A CSV record; `None` is an empty field without quotes.
type Record = Vec<Option<String>>;

#[test]
fn web_requests_answers_are_exact() {
    assert_answers("web-requests");
}

#[test]
fn llm_requests_answers_are_exact() {
    assert_answers("llm-requests");
}

fn assert_answers(set: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(set);
    let truth = fs::read_to_string(folder.join("truth.json")).unwrap();
    let truth: Truth = serde_json::from_str(&truth).unwrap();
    let place = Place::new();
    let ingested = place.run(&["ingest", text_of(&folder.join("requests.ndjson.gz"))]);
    let accepted =
        format!("{} accepted, 0 duplicate, 0 conflict, 0 rejected", grouped(truth.events));
    assert!(said(&ingested).contains(&accepted), "{set}: wanted `{accepted}`, {}", said(&ingested));

    let wrong: Vec<_> = truth
        .meters
        .iter()
        .filter_map(|question| {
            let difference = difference(question, &folder, &place)?;
            Some(format!("{} ({}): {difference}", question.id, question.description))
        })
        .collect();
    assert!(wrong.is_empty(), "{set}: {} wrong answers\n{}", wrong.len(), wrong.join("\n"));
}

/// How our answer differs from the right one, if it does.
fn difference(question: &Question, folder: &Path, place: &Place) -> Option<String> {
    let want = right_answer(question, folder);
    assert_eq!(want.len(), question.rows, "{}: rows of its truth file", question.id);
    let have = our_answer(question, place);
    if !have.is_sorted_by(|a, b| (&a.0, &a.1) <= (&b.0, &b.1)) {
        return Some("rows are not in the order of window and groups".into());
    }
    let missing = want.iter().find(|row| !have.contains(row));
    let surplus = have.iter().find(|row| !want.contains(row));
    if missing.is_none() && surplus.is_none() && have.len() == want.len() {
        return None;
    }
    Some(format!(
        "{} rows, wanted {}; first missing {missing:?}, first surplus {surplus:?}",
        have.len(),
        want.len()
    ))
}

// ---- The right answer ----

fn right_answer(question: &Question, folder: &Path) -> Vec<Row> {
    let csv = fs::read_to_string(folder.join(&question.file)).unwrap();
    let (header, records) = parse_csv(&csv);
    let find = |record: &Record, name: &str| {
        let place = header.iter().position(|column| column.as_deref() == Some(name)).unwrap();
        record[place].clone()
    };
    let row = |record: &Record| {
        let window = question.window.as_ref().and_then(|_| find(record, "window_start_local"));
        let group = |name: &String| find(record, name).or_else(|| empty_group(name));
        let groups = question.group_by.iter().map(group).collect();
        let value = if question.aggregation == "avg" {
            average(&find(record, "sum").unwrap(), &find(record, "count").unwrap())
        } else {
            find(record, "value").unwrap()
        };
        (window, groups, value)
    };
    records.iter().map(row).collect()
}

/// What an empty group of the truth files stands for, which write null and empty text alike.
fn empty_group(property: &str) -> Option<String> {
    match property {
        // The root of the site has an empty first path element.
        "top" => Some(String::new()),
        "referrer_host" => None,
        other => panic!("it is not known whether an empty `{other}` is null or an empty text"),
    }
}

/// `sum` ÷ `count`, rounded half-even, without zeros at the end.
fn average(sum: &str, count: &str) -> String {
    let (whole, fraction) = sum.split_once('.').unwrap_or((sum, ""));
    let scale = u32::try_from(fraction.len()).unwrap();
    let unscaled: i128 = format!("{whole}{fraction}").parse().unwrap();
    let dividend = unscaled * 10_i128.pow(AVERAGE_PLACES);
    let divisor = count.parse::<i128>().unwrap() * 10_i128.pow(scale);
    let (quotient, rest) = (dividend.div_euclid(divisor), dividend.rem_euclid(divisor));
    let rounded = match (2 * rest).cmp(&divisor) {
        std::cmp::Ordering::Less => quotient,
        std::cmp::Ordering::Equal => quotient + quotient.rem_euclid(2),
        std::cmp::Ordering::Greater => quotient + 1,
    };
    let one = 10_u128.pow(AVERAGE_PLACES);
    let (whole, fraction) = (rounded.unsigned_abs() / one, rounded.unsigned_abs() % one);
    let sign = if rounded < 0 { "-" } else { "" };
    let text = format!("{sign}{whole}.{fraction:012}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[test]
fn averages_of_the_comparison_round_half_even() {
    for (name, sum, count, want) in [
        ("whole", "160636", "14", "11474"),
        ("below zero", "-1", "3", "-0.333333333333"),
        ("up", "2", "3", "0.666666666667"),
        ("a tie goes to the even digit below", "0.000000000001", "2", "0"),
        ("a tie goes to the even digit above", "0.000000000003", "2", "0.000000000002"),
        ("a tie below zero", "-0.000000000003", "2", "-0.000000000002"),
        ("decimals", "199904.47", "41753", "4.787786985366"),
    ] {
        assert_eq!(average(sum, count), want, "{name}");
    }
}

// ---- Our answer ----

fn our_answer(question: &Question, place: &Place) -> Vec<Row> {
    let file = place.meters().join(format!("{}.yaml", question.id));
    fs::write(file, meter_file(question)).unwrap();
    let arguments = usage_arguments(question);
    let answer = place.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let (header, records) = parse_csv(&String::from_utf8(answer.stdout).unwrap());
    let find = |record: &Record, name: &str| {
        let place = header.iter().position(|column| column.as_deref() == Some(name));
        let place = place.unwrap_or_else(|| panic!("{}: no column `{name}`", question.id));
        record[place].clone()
    };
    let row = |record: &Record| {
        // The truth has no rows for groups without a value.
        let value = find(record, "value")?;
        let start = question.window.as_ref().and_then(|_| find(record, "window_start"));
        let window = start.map(|start| local_minute(&start, &question.timezone));
        Some((window, question.group_by.iter().map(|name| find(record, name)).collect(), value))
    };
    records.iter().filter_map(row).collect()
}

/// The wall clock of an RFC 3339 time, to the minute, as the truth files write it.
fn local_minute(start: &str, zone: &str) -> String {
    let (minute, rest) = start.split_at(16);
    if zone == "UTC" {
        assert!([":00Z", ":00+00:00"].contains(&rest), "window_start `{start}` is not in UTC");
    }
    minute.to_owned()
}

/// The question as a meter definition. JSON scalars are YAML scalars.
fn meter_file(question: &Question) -> String {
    let quoted = |text: &str| Value::from(text).to_string();
    let aggregation = match question.aggregation.as_str() {
        "avg" => "average",
        other => other,
    };
    let mut lines = vec![format!("meter: {}", question.id), format!("aggregation: {aggregation}")];
    if let Some(event) = &question.event_name {
        lines.push(format!("event: {}", quoted(event)));
    }
    if let Some(name) = &question.property {
        lines.push(format!("{}: {}", place_of(name), quoted(name)));
    }
    if !question.filters.is_empty() {
        lines.push("filter:".into());
    }
    for (name, operator, literal) in &question.filters {
        let condition = match (operator.as_str(), literal) {
            ("eq", literal) => format!("equals: {literal}"),
            ("ne", literal) => format!("not_equals: {literal}"),
            ("gt", literal) => format!("greater_than: {literal}"),
            ("gte", literal) => format!("greater_or_equal: {literal}"),
            ("exists", Value::Bool(true)) => "exists: true".into(),
            ("exists", Value::Bool(false)) => "not_exists: true".into(),
            (other, _) => panic!("{}: no filter `{other}`", question.id),
        };
        lines.push(format!("  - {{ {}: {}, {condition} }}", place_of(name), quoted(name)));
    }
    lines.join("\n") + "\n"
}

/// The key under which a meter file names `name`.
fn place_of(name: &str) -> &'static str {
    if FIELDS.contains(&name) { "field" } else { "property" }
}

fn usage_arguments(question: &Question) -> Vec<String> {
    let mut arguments = vec!["usage".to_owned(), question.id.clone()];
    let mut option = |name: &str, value: &str| arguments.extend([name.into(), value.into()]);
    option("-o", "csv");
    if let Some(window) = &question.window {
        option("--window", window);
        option("--tz", &question.timezone);
    }
    if let Some(start) = &question.start {
        option("--from", start);
    }
    if let Some(end) = &question.end {
        option("--to", end);
    }
    if question.group_by.is_empty() {
        arguments.push("--total".into());
    } else {
        option("--by", &question.group_by.join(","));
    }
    arguments
}

// ---- The binary ----

/// A folder with a lake and meters of its own.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.meters()).unwrap();
        place
    }

    fn meters(&self) -> PathBuf {
        self.0.path().join("meters")
    }

    /// Runs the binary there and demands success.
    fn run(&self, arguments: &[&str]) -> Output {
        let output = Command::new(env!("CARGO_BIN_EXE_meterhouse"))
            .current_dir(self.0.path())
            .env_remove("METERHOUSE_STATE")
            .env("METERHOUSE_LAKE", self.0.path().join("lake"))
            .arg("--meters")
            .arg(self.meters())
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}\n{}", output.status, said(&output));
        output
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

fn text_of(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `number` with a comma between thousands.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let head = digits.len() % 3;
    let mut groups = vec![&digits[..head]];
    groups.extend((head..digits.len()).step_by(3).map(|start| &digits[start..start + 3]));
    groups.retain(|group| !group.is_empty());
    groups.join(",")
}

// ---- CSV ----

/// Header and records. Unlike a stock reader it keeps empty fields and quoted empty texts apart.
fn parse_csv(text: &str) -> (Record, Vec<Record>) {
    let mut records = vec![];
    let mut record = vec![];
    let mut rest = text;
    while !rest.is_empty() {
        let (field, after) = parse_field(rest);
        record.push(field);
        let end = after.strip_prefix("\r\n").or_else(|| after.strip_prefix('\n'));
        rest = match (after.strip_prefix(','), end) {
            (Some(next), _) => next,
            (None, Some(next)) => {
                records.push(std::mem::take(&mut record));
                next
            }
            (None, None) => panic!("CSV goes on after a field with {after:?}"),
        };
    }
    assert!(record.is_empty(), "CSV ends within the record {record:?}");
    assert!(!records.is_empty(), "CSV without a header");
    (records.remove(0), records)
}

fn parse_field(text: &str) -> (Option<String>, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', '\r', '\n']).unwrap_or(text.len());
        let field = Some(text[..end].to_owned()).filter(|field| !field.is_empty());
        return (field, &text[end..]);
    };
    let mut field = String::new();
    let mut rest = quoted;
    loop {
        let end = rest.find('"').expect("a quoted field ends with a quote");
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        let Some(next) = rest.strip_prefix('"') else { return (Some(field), rest) };
        field.push('"');
        rest = next;
    }
}

#[test]
fn csv_of_the_comparison_tells_null_from_empty_text() {
    let (header, records) = parse_csv("a,b\n,\"\"\r\n\"x \"\"y\"\"\nz\",\"1,2\"\n");
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(header, [text("a"), text("b")]);
    assert_eq!(records, [[None, text("")], [text("x \"y\"\nz"), text("1,2")]]);
}
