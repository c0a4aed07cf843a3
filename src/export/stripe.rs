//! Stripe's meter events: what a customer used in a period, as Stripe takes it to bill for it.
//!
//! One event for each customer and period, in the columns of Stripe's bulk import. Its identifier is made
//! of namespace, meter, name of the event, customer and period alone, so that an event that is sent twice is billed once: Stripe refuses
//! an identifier that it has seen (for at least 24 hours). It takes whole numbers that are not negative,
//! and instants of the last 35 days.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::render::hexadecimal;
use crate::schema::CUSTOMER_ID;
use crate::time::Timestamp;
use crate::usage::columns;

/// How meter events are made.
#[derive(Debug, Clone, Default)]
pub struct MeterEvents {
    /// The part of the lake that the usage is of.
    pub namespace: String,
    /// What Stripe calls the meter; its own name if none.
    pub event_name: Option<String>,
    /// Stripe's names of customers, if they are not ours.
    pub customers: Option<BTreeMap<String, String>>,
    /// Whether usage of no customer, which nobody can be billed for, is left out.
    pub leave_unattributed: bool,
}

/// The meter and period that rows are of, where they do not say so themselves.
#[derive(Debug, Clone, Default)]
pub(super) struct Of {
    pub(super) meter: String,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
}

/// The columns of Stripe's bulk import.
pub(super) fn schema() -> SchemaRef {
    let text = |name| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![
        text("identifier"),
        Field::new("timestamp", DataType::Int64, false),
        text("event_name"),
        text("payload_stripe_customer_id"),
        text("payload_value"),
    ]))
}

/// Stripe's names of customers, out of CSV with the columns `customer_id` and `stripe_customer_id`.
///
/// # Errors
/// A line that has not these, a customer that stands twice.
pub fn customers_of_csv(text: &str, name: &str) -> Result<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_reader(text.trim_start_matches('\u{feff}').as_bytes());
    let wrong = |error: csv::Error| Error::invalid(format!("{name}: {error}"));
    let header = reader.headers().map_err(wrong)?.clone();
    let place = |wanted: &str| {
        header.iter().position(|column| column == wanted).ok_or_else(|| {
            Error::invalid(format!(
                "{name} has no column `{wanted}`: it needs `customer_id` and `stripe_customer_id`"
            ))
        })
    };
    let (ours, theirs) = (place("customer_id")?, place("stripe_customer_id")?);
    let mut customers = BTreeMap::new();
    for line in reader.records() {
        let line = line.map_err(wrong)?;
        let number = line.position().map_or(0, csv::Position::line);
        let text = |place: usize| line.get(place).unwrap_or_default().to_owned();
        let (ours, theirs) = (text(ours), text(theirs));
        if ours.is_empty() || theirs.is_empty() {
            return Err(Error::invalid(format!("{name}, line {number}: a customer is empty")));
        }
        if customers.insert(ours.clone(), theirs).is_some() {
            return Err(Error::invalid(format!("{name}, line {number}: `{ours}` stands twice")));
        }
    }
    Ok(customers)
}

impl MeterEvents {
    /// What an export of such events depends on beside what was asked.
    pub(super) fn told(&self) -> BTreeMap<String, String> {
        let mut told = BTreeMap::new();
        if let Some(customers) = &self.customers {
            let mut hasher = Sha256::new();
            for (ours, theirs) in customers {
                hasher.update(serde_json::json!([ours, theirs]).to_string());
            }
            told.insert("customers sha256".to_owned(), hexadecimal(&hasher.finalize()));
        }
        told.insert("leaves unattributed".to_owned(), self.leave_unattributed.to_string());
        told
    }

    /// The events of rows by customer.
    ///
    /// # Errors
    /// A number that is not whole or is negative, a customer that Stripe has no name for, usage of no
    /// customer, a period that has no end.
    pub(super) fn rows(&self, rows: &RecordBatch, of: &Of) -> Result<RecordBatch> {
        let text = |name: &str| rows.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
        let customers = text(CUSTOMER_ID).ok_or_else(|| {
            Error::invalid("meter events are of customers: usage for them has a row per customer")
        })?;
        // Statements of meters without a unit have a column of what is billed, and nothing in it.
        let (billable, values) = (text(columns::BILLABLE), text(columns::VALUE));
        let (meters, starts) = (text(columns::METER), text(columns::WINDOW_START));
        let ends = text(columns::WINDOW_END);
        let cut = rows.column_by_name(columns::PARTIAL).and_then(|column| column.as_boolean_opt());
        let mut events: Vec<Event> = Vec::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            let at = |texts: Option<&StringArray>, otherwise: Option<&String>| {
                let text = texts.filter(|texts| texts.is_valid(row)).map(|texts| texts.value(row));
                text.or(otherwise.map(String::as_str)).map(str::to_owned)
            };
            let meter = at(meters, Some(&of.meter)).unwrap_or_default();
            // Usage of nothing is not billed.
            let Some(number) = at(billable, None).or_else(|| at(values, None)) else { continue };
            let Some(customer) = at(Some(customers), None) else {
                if self.leave_unattributed {
                    continue;
                }
                return Err(Error::invalid(format!(
                    "meter `{meter}`: {number} were used by no customer, for which nobody can be billed: \
                     attribute those events, or leave them out with --leave-unattributed"
                )));
            };
            let period = match starts.is_some() {
                true => (at(starts, None), at(ends, None)),
                false => (of.from.clone(), of.to.clone()),
            };
            if cut.is_some_and(|cut| cut.is_valid(row) && cut.value(row)) {
                return Err(Error::invalid(format!(
                    "meter `{meter}`, customer `{customer}`: the period asked for cuts a window, and the \
                     whole of it would be another event: ask for whole windows"
                )));
            }
            events.push(self.event(&meter, &customer, period, number)?);
        }
        let texts = |text: fn(&Event) -> &str| -> ArrayRef {
            Arc::new(events.iter().map(|event| Some(text(event))).collect::<StringArray>())
        };
        let timestamps: Int64Array = events.iter().map(|event| Some(event.timestamp)).collect();
        let columns = vec![
            texts(|event| &event.identifier),
            Arc::new(timestamps),
            texts(|event| &event.name),
            texts(|event| &event.customer),
            texts(|event| &event.value),
        ];
        RecordBatch::try_new(schema(), columns)
            .map_err(|error| Error::internal("rows of meter events").with_source(error))
    }

    fn event(
        &self,
        meter: &str,
        customer: &str,
        period: (Option<String>, Option<String>),
        value: String,
    ) -> Result<Event> {
        let what = || format!("meter `{meter}`, customer `{customer}`");
        let (Some(from), Some(to)) = period else {
            return Err(Error::invalid(format!(
                "{}: a meter event is of a period with a begin and an end; give --period, or attribute the customer a billing period",
                what()
            )));
        };
        if value.contains('.') {
            return Err(Error::invalid(format!(
                "{}: {value} is not whole, and Stripe takes whole numbers: round it in the unit of the \
                 meter",
                what()
            )));
        }
        if value.starts_with('-') {
            return Err(Error::invalid(format!(
                "{}: {value} is negative, and Stripe refuses it",
                what()
            )));
        }
        let instant = |text: &str| {
            Timestamp::parse_rfc3339(text)
                .map_err(|error| Error::internal(format!("the bound `{text}` {error}")))
        };
        let (from, to) = (instant(&from)?, instant(&to)?);
        let name = self.event_name.clone().unwrap_or_else(|| meter.to_owned());
        let stripe = match &self.customers {
            None => customer.to_owned(),
            Some(known) => known.get(customer).cloned().ok_or_else(|| {
                Error::invalid(format!(
                    "{}: the table of Stripe's customers has no `{customer}`",
                    what()
                ))
            })?,
        };
        Ok(Event {
            identifier: identifier([&self.namespace, meter, &name, customer], from, to)?,
            // The last second of the period.
            timestamp: (to.micros() - 1).div_euclid(1_000_000),
            name,
            customer: stripe,
            value,
        })
    }
}

struct Event {
    identifier: String,
    timestamp: i64,
    name: String,
    customer: String,
    value: String,
}

/// Stripe's identifiers are of at most 100 characters.
fn identifier(of: [&str; 4], from: Timestamp, to: Timestamp) -> Result<String> {
    let bounds = [from.to_string(), to.to_string()];
    let told: Vec<&str> = of.into_iter().chain(bounds.iter().map(String::as_str)).collect();
    let told = serde_json::to_string(&told)
        .map_err(|error| Error::internal("the identifier of an event").with_source(error))?;
    let digits = hexadecimal(&Sha256::digest(told.as_bytes()));
    Ok(format!("meterhouse-{}", digits.get(..40).unwrap_or(&digits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of() -> Of {
        let text = |text: &str| Some(text.to_owned());
        Of {
            meter: "calls".to_owned(),
            from: text("2026-10-01T00:00:00Z"),
            to: text("2026-11-01T00:00:00Z"),
        }
    }

    fn rows(lines: &[(Option<&str>, Option<&str>)]) -> RecordBatch {
        let customers: ArrayRef =
            Arc::new(lines.iter().map(|line| line.0).collect::<StringArray>());
        let values: ArrayRef = Arc::new(lines.iter().map(|line| line.1).collect::<StringArray>());
        RecordBatch::try_from_iter([(CUSTOMER_ID, customers), (columns::VALUE, values)]).unwrap()
    }

    #[test]
    fn an_event_says_who_used_how_much_at_the_end_of_the_period() {
        let known = BTreeMap::from([("acme".to_owned(), "cus_1".to_owned())]);
        let namespace = "default".to_owned();
        let events = MeterEvents { namespace, customers: Some(known), ..MeterEvents::default() };
        let made = events.rows(&rows(&[(Some("acme"), Some("12")), (Some("acme"), None)]), &of());
        let made = made.unwrap();
        let text = |place: usize| made.column(place).as_string::<i32>().value(0).to_owned();
        assert_eq!(made.num_rows(), 1);
        assert_eq!((text(2), text(3), text(4)), ("calls".into(), "cus_1".into(), "12".into()));
        let seconds = made.column(1).as_primitive::<arrow::datatypes::Int64Type>();
        assert_eq!(seconds.value(0), 1_793_491_199); // 2026-10-31T23:59:59Z
        // Others compute it from the text that is documented.
        let told =
            r#"["default","calls","calls","acme","2026-10-01T00:00:00Z","2026-11-01T00:00:00Z"]"#;
        let digits = hexadecimal(&Sha256::digest(told.as_bytes()));
        assert_eq!(text(0), format!("meterhouse-{}", &digits[..40]));
    }

    #[test]
    fn what_stripe_would_refuse_is_refused_with_the_customer() {
        let events = MeterEvents {
            customers: Some(BTreeMap::from([("acme".to_owned(), "cus_1".to_owned())])),
            ..MeterEvents::default()
        };
        for (line, want) in [
            ((Some("acme"), Some("1.5")), "customer `acme`: 1.5 is not whole"),
            ((Some("acme"), Some("-1")), "customer `acme`: -1 is negative"),
            ((Some("globex"), Some("1")), "has no `globex`"),
            ((None, Some("1")), "used by no customer"),
        ] {
            let error = events.rows(&rows(&[line]), &of()).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
        let lenient = MeterEvents { leave_unattributed: true, ..MeterEvents::default() };
        assert_eq!(lenient.rows(&rows(&[(None, Some("1"))]), &of()).unwrap().num_rows(), 0);
        let open = Of { to: None, ..of() };
        let error = events.rows(&rows(&[(Some("acme"), Some("1"))]), &open).unwrap_err();
        assert!(error.to_string().contains("--period"), "{error}");
    }

    #[test]
    fn without_a_unit_the_value_is_billed() {
        let lines = rows(&[(Some("acme"), Some("7"))]);
        let nothing: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>]));
        let columns = [CUSTOMER_ID, columns::VALUE, columns::BILLABLE];
        let cells = [Arc::clone(lines.column(0)), Arc::clone(lines.column(1)), nothing];
        let lines = RecordBatch::try_from_iter(columns.into_iter().zip(cells)).unwrap();
        let made = MeterEvents::default().rows(&lines, &of()).unwrap();
        assert_eq!(made.column(4).as_string::<i32>().value(0), "7");
    }

    #[test]
    fn a_window_that_is_cut_has_no_event() {
        let lines = rows(&[(Some("acme"), Some("7"))]);
        let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
        let cut: ArrayRef = Arc::new(arrow::array::BooleanArray::from(vec![true]));
        let lines = RecordBatch::try_from_iter([
            (columns::WINDOW_START, text("2026-10-20T00:00:00Z")),
            (columns::WINDOW_END, text("2026-11-01T00:00:00Z")),
            (columns::PARTIAL, cut),
            (CUSTOMER_ID, Arc::clone(lines.column(0))),
            (columns::VALUE, Arc::clone(lines.column(1))),
        ])
        .unwrap();
        let error = MeterEvents::default().rows(&lines, &of()).unwrap_err().to_string();
        assert!(error.contains("customer `acme`: the period asked for cuts a window"), "{error}");
    }

    #[test]
    fn customers_are_read_from_csv() {
        let read =
            customers_of_csv("stripe_customer_id,customer_id\ncus_1,acme\n", "c.csv").unwrap();
        assert_eq!(read, BTreeMap::from([("acme".to_owned(), "cus_1".to_owned())]));
        for (text, want) in [
            ("customer_id\nacme\n", "no column `stripe_customer_id`"),
            (
                "customer_id,stripe_customer_id\nacme,cus_1\nacme,cus_2\n",
                "line 3: `acme` stands twice",
            ),
            ("customer_id,stripe_customer_id\nacme,\n", "line 2: a customer is empty"),
        ] {
            let error = customers_of_csv(text, "c.csv").unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
