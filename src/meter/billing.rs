//! Billing cycles: one for all customers of a meter, or one for each from a table.
//!
//! Reads `billing` of a meter file. Rows are data of their own, which `billing_rows` reads: the
//! definition alone has none.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::keys::{BILLING, BILLING_CYCLE, CONSTANT};
use super::lookup::{TablePlace, table_place};
use crate::document::{Content, Entry, Findings, Keys, filled_text, keys, quote, text};
use crate::time::{Anchor, BillingCycle, BillingHistory, Cycle, parse_zone};

/// Where the billing periods of a meter's customers come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Billing {
    /// All customers have the same periods.
    Shared(BillingCycle),
    /// Each customer has its own.
    PerCustomer(BillingTable),
}

/// A table of customers and their billing cycles.
#[derive(Debug, Clone, PartialEq)]
pub struct BillingTable {
    /// Where the table lies.
    pub table: TablePlace,
    /// The version of a table of the lake, once its rows are read.
    pub number: Option<i64>,
    /// The column of customers.
    pub key: String,
    /// The column of anchors.
    pub anchor: String,
    /// The column of the dates or instants from which rows hold, where customers may have several.
    pub from: Option<String>,
    /// How long periods are.
    pub cycle: Given<Cycle>,
    /// IANA name of the zone of the anchors.
    pub timezone: Given<String>,
    /// The cycle of a customer without a row; without it such a customer has no periods.
    pub otherwise: Option<BillingCycle>,
    /// Whether it is said that customers without a row are not billed: what they use is no oversight.
    pub others_unbilled: bool,
    /// The table, by customer; empty until it is loaded.
    pub rows: Arc<BTreeMap<String, BillingHistory>>,
}

impl BillingTable {
    /// The cycles of a customer, if it has any.
    pub fn cycles_of(&self, customer: Option<&str>) -> Option<BillingHistory> {
        let own = customer.and_then(|customer| self.rows.get(customer)).cloned();
        own.or_else(|| self.otherwise.clone().map(BillingHistory::from))
    }
}

/// A part of a customer's billing cycle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given<T> {
    /// It stands in this column of the table.
    Column(String),
    /// It is the same for all.
    Always(T),
}

/// The billing of a meter file, and the place at which it names its table.
#[derive(Debug)]
pub(super) struct LocatedBilling {
    pub(super) billing: Billing,
    pub(super) file_span: Range<usize>,
}

/// The billing of a `billing` key; anchors without a zone are in `zone`.
pub(super) fn billing(
    entry: &Entry,
    zone: &str,
    findings: &mut Findings<'_>,
) -> Option<LocatedBilling> {
    let keys = keys(&entry.value, entry.value_span(), "`billing`", &BILLING, findings)?;
    if let Some(place) = keys.get("file").or_else(|| keys.get("table")) {
        let table = table(&keys, zone, findings)?;
        let file_span = place.value_span().clone();
        return Some(LocatedBilling { billing: Billing::PerCustomer(table), file_span });
    }
    for entry in ["key", "from", "otherwise"].into_iter().filter_map(|key| keys.get(key)) {
        let message = format!("`{}` needs a table of customers", entry.key);
        findings.report_help(
            &entry.key_span,
            message,
            "add `file: <a CSV file>`, or a `table` of the lake",
        );
    }
    let cycle = cycle(&keys, zone, findings)?;
    Some(LocatedBilling { billing: Billing::Shared(cycle), file_span: 0..0 })
}

/// A cycle that is written out: `anchor`, and `cycle` and `timezone` where they are not the default.
fn cycle(keys: &Keys<'_>, zone: &str, findings: &mut Findings<'_>) -> Option<BillingCycle> {
    let help = "the date on which a period begins, such as `anchor: 2023-01-31`";
    let anchor = keys.require("anchor", help, findings).and_then(|entry| anchor(entry, findings));
    let cycle = keys.get("cycle").map_or(Some(Cycle::MONTHLY), |entry| read_cycle(entry, findings));
    let zone =
        keys.get("timezone").map_or(Some(zone.to_owned()), |entry| read_zone(entry, findings));
    Some(BillingCycle { anchor: anchor?, cycle: cycle?, zone: zone? })
}

fn table(keys: &Keys<'_>, zone: &str, findings: &mut Findings<'_>) -> Option<BillingTable> {
    let place = table_place(keys, findings);
    let mut required = |key: &str, help: &str| {
        let entry = keys.require(key, help, findings)?;
        filled_text(entry, findings)
    };
    let key = required("key", "the column that holds customers");
    let anchor = required("anchor", "the column that holds anchors");
    let from = keys.get("from").map(|entry| filled_text(entry, findings));
    let cycle = match keys.get("cycle") {
        None => Some(Given::Always(Cycle::MONTHLY)),
        Some(entry) => given(entry, read_cycle, findings),
    };
    let timezone = match keys.get("timezone") {
        None => Some(Given::Always(zone.to_owned())),
        Some(entry) => given(entry, read_zone, findings),
    };
    let (others_unbilled, otherwise) = match keys.get("otherwise") {
        None => (false, Some(None)),
        Some(entry) if is_none(entry) => (true, Some(None)),
        Some(entry) => (false, otherwise(entry, zone, findings).map(Some)),
    };
    Some(BillingTable {
        table: place?,
        number: None,
        key: key?,
        anchor: anchor?,
        from: match from {
            Some(column) => Some(column?),
            None => None,
        },
        cycle: cycle?,
        timezone: timezone?,
        otherwise: otherwise?,
        others_unbilled,
        rows: Arc::default(),
    })
}

/// Whether it is said that there is none.
fn is_none(entry: &Entry) -> bool {
    matches!(&entry.value.content, Content::Scalar { text, .. } if text == "none")
}

fn otherwise(entry: &Entry, zone: &str, findings: &mut Findings<'_>) -> Option<BillingCycle> {
    if let Content::Scalar { text, .. } = &entry.value.content {
        let help = "an `anchor` for the customers without a row, or `none` if they are not billed";
        let message = format!("`otherwise` cannot be {}", quote(text));
        findings.report_help(entry.value_span(), message, help);
        return None;
    }
    let place = entry.value_span();
    let keys = keys(&entry.value, place, "`otherwise`", &BILLING_CYCLE, findings)?;
    cycle(&keys, zone, findings)
}

/// A column's name, or `{ value: … }`, the same for all, as in a mapping of records.
fn given<T>(
    entry: &Entry,
    read: impl Fn(&Entry, &mut Findings<'_>) -> Option<T>,
    findings: &mut Findings<'_>,
) -> Option<Given<T>> {
    match &entry.value.content {
        Content::Mapping(_) => {
            let subject = format!("`{}`", entry.key);
            let keys = keys(&entry.value, entry.value_span(), &subject, &CONSTANT, findings)?;
            let value = keys.require("value", "what it is for every customer", findings)?;
            read(value, findings).map(Given::Always)
        }
        Content::Scalar { .. } | Content::List(_) | Content::Refused => {
            filled_text(entry, findings).map(Given::Column)
        }
    }
}

fn anchor(entry: &Entry, findings: &mut Findings<'_>) -> Option<Anchor> {
    reported(entry, findings, str::parse)
}

fn read_cycle(entry: &Entry, findings: &mut Findings<'_>) -> Option<Cycle> {
    reported(entry, findings, str::parse)
}

fn read_zone(entry: &Entry, findings: &mut Findings<'_>) -> Option<String> {
    reported(entry, findings, zone_name)
}

fn reported<T>(
    entry: &Entry,
    findings: &mut Findings<'_>,
    read: impl Fn(&str) -> crate::error::Result<T>,
) -> Option<T> {
    let found = text(entry, findings)?;
    match read(&found) {
        Ok(value) => Some(value),
        Err(error) => {
            findings.report(entry.value_span(), error.to_string());
            None
        }
    }
}

/// The zone's name as the database spells it.
pub(super) fn zone_name(text: &str) -> crate::error::Result<String> {
    parse_zone(text).map(|zone| zone.iana_name().unwrap_or(text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{count, read};
    use super::super::{Meter, describe, parse, read_billing_rows, version};
    use super::*;
    use crate::time::Timestamp;

    const TABLE: &str = "{ file: ../lookups/billing.csv, key: customer, anchor: since, \
                         cycle: cycle, timezone: zone, otherwise: { anchor: 2023-01-01 } }";

    fn meter(billing: &str) -> Meter {
        read(&count(&format!("billing: {billing}\ntimezone: Europe/Berlin")))
    }

    fn shared(anchor: &str, cycle: &str, zone: &str) -> BillingCycle {
        BillingCycle {
            anchor: anchor.parse().unwrap(),
            cycle: cycle.parse().unwrap(),
            zone: zone.to_owned(),
        }
    }

    fn per_customer(billing: &str) -> BillingTable {
        match meter(billing).billing {
            Some(Billing::PerCustomer(table)) => table,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_cycle_for_all_has_the_meters_zone_and_is_monthly_unless_it_says_otherwise() {
        for (written, want) in [
            ("{ anchor: 2023-01-31 }", shared("2023-01-31", "monthly", "Europe/Berlin")),
            (
                "{ anchor: 2023-01-31T06:00, cycle: 30 days, timezone: asia/tokyo }",
                shared("2023-01-31T06:00", "30 days", "Asia/Tokyo"),
            ),
        ] {
            assert_eq!(meter(written).billing, Some(Billing::Shared(want)), "{written}");
        }
        let plain = read(&count("billing: { anchor: 2023-01-31 }"));
        let want = shared("2023-01-31", "monthly", "UTC");
        assert_eq!(plain.billing, Some(Billing::Shared(want)));
    }

    #[test]
    fn a_table_gives_each_customer_a_cycle() {
        let table = per_customer(TABLE);
        assert_eq!(table.otherwise, Some(shared("2023-01-01", "monthly", "Europe/Berlin")));
        let csv = "zone,customer,cycle,since\nAsia/Tokyo,a,annual,2024-02-29\n\
                   utc,\"b,\"\"c\",2 days,2023-01-31T06:00\n";
        let want = BTreeMap::from([
            ("a".to_owned(), shared("2024-02-29", "annual", "Asia/Tokyo").into()),
            ("b,\"c".to_owned(), shared("2023-01-31T06:00", "2 days", "UTC").into()),
        ]);
        assert_eq!(read_billing_rows(csv, "b.csv", &table), Ok(want));

        let constant = per_customer(
            "{ file: b.csv, key: c, anchor: a, cycle: { value: weekly }, timezone: { value: UTC } }",
        );
        assert_eq!(constant.cycle, Given::Always("weekly".parse().unwrap()));
        let want = BTreeMap::from([("x".to_owned(), shared("2024-01-03", "weekly", "UTC").into())]);
        assert_eq!(read_billing_rows("c,a\nx,2024-01-03\n", "b.csv", &constant), Ok(want));
        let default = per_customer("{ file: b.csv, key: c, anchor: a }");
        let want = BTreeMap::from([(
            "x".to_owned(),
            shared("2024-01-03", "monthly", "Europe/Berlin").into(),
        )]);
        assert_eq!(read_billing_rows("c,a\nx,2024-01-03\n", "b.csv", &default), Ok(want));
    }

    #[test]
    fn every_row_that_cannot_be_is_named_with_line_and_column() {
        let csv = "customer,since,cycle,zone\r\na,2023-02-30,monthly,UTC\r\n\
                   \"b,c\",2023-01-31,yearly,Europe/Berln\r\nd,2023-01-31,monthly,UTC\r\n\
                   d,2023-01-31,monthly,UTC\r\n,2023-01-31,monthly,UTC\r\ne,,monthly,UTC\r\nf,x";
        let got = read_billing_rows(csv, "billing.csv", &per_customer(TABLE)).unwrap_err();
        let got: Vec<String> = got
            .list
            .iter()
            .map(|found| format!("{}:{}: {}", found.line, found.column, found.message))
            .collect();
        let want = [
            "2:3: billing anchor `2023-02-30` cannot be: there is no such date",
            "3:18: unknown billing cycle `yearly`: write monthly, quarterly, annual, weekly, or a \
             number of days such as `30 days`",
            "3:25: unknown time zone `Europe/Berln`: did you mean Europe/Berlin?",
            "5:1: customer `d` has a row already, in line 4",
            "6:1: row names no customer",
            "7:3: billing anchor `` cannot be: write a date such as 2023-01-31, or 2023-01-31T06:00",
            "8:1: row has 2 fields, but the header has 4",
        ];
        assert_eq!(got, want);
        let missing = read_billing_rows("customer,since,cycles\n", "b.csv", &per_customer(TABLE));
        let missing = missing.unwrap_err().to_string();
        assert!(
            missing.contains("no column `cycle`") && missing.contains("`cycles`?"),
            "{missing}"
        );
    }

    #[test]
    fn a_customer_may_have_cycles_one_after_the_other() {
        let table = per_customer("{ table: billing, key: c, anchor: a, from: since, timezone: z }");
        assert_eq!(table.table, TablePlace::Lake("billing".to_owned()));
        let csv = "c,a,since,z\nx,2026-05-10,2026-05-10,Asia/Tokyo\nx,2026-01-31,,Asia/Tokyo\n\
                   y,2026-01-01,2026-02-01,UTC\n";
        let rows = read_billing_rows(csv, "b.csv", &table).unwrap();
        let since = Timestamp::parse_rfc3339("2026-05-09T15:00:00Z").unwrap();
        let of = |anchor: &str| shared(anchor, "monthly", "Asia/Tokyo");
        let want = BillingHistory::new(of("2026-01-31"), vec![(since, of("2026-05-10"))]);
        assert_eq!(rows["x"], want.unwrap());
        // The first row holds before, too.
        assert_eq!(rows["y"], shared("2026-01-01", "monthly", "UTC").into());
        let csv = "c,a,since,z\nx,2026-01-31,,UTC\nx,2026-01-30,,UTC\ny,2026-01-31,soon,UTC\n\
                   z,2026-01-31,,UTC\nz,2026-01-31,2026-02-01,Asia/Tokyo\n";
        let wrong = read_billing_rows(csv, "b.csv", &table).unwrap_err().to_string();
        for want in [
            "b.csv:3:1: customer `x` has a row already, in line 2",
            "b.csv:4:14:",
            "b.csv:6:1: customer `z`: billing periods have one zone: UTC until",
        ] {
            assert!(wrong.contains(want), "{want}: {wrong}");
        }
    }

    #[test]
    fn billing_that_cannot_be_is_told_with_its_place() {
        for (written, want) in [
            ("monthly", "3:10: `billing` needs a mapping, not a value"),
            ("{ cycle: monthly }", "3:12: missing key `anchor`"),
            ("{ anchor: 2023-02-30 }", "3:20: billing anchor `2023-02-30` cannot be"),
            ("{ anchor: 2023-01-31, cycle: fortnightly }", "3:39: unknown billing cycle"),
            ("{ anchor: 2023-01-31, timezone: Berlin }", "3:42: unknown time zone `Berlin`"),
            ("{ anchor: 2023-01-31, key: c }", "3:32: `key` needs a table of customers"),
            ("{ table: Billing, key: c, anchor: a }", "3:19: `Billing` is no name of a table"),
            ("{ table: b, file: b.csv, key: c, anchor: a }", "cannot stand together"),
            ("{ anchor: 2023-01-31, ancor: c }", "3:32: unknown key `ancor`"),
            ("{ file: b.csv, anchor: a }", "3:12: missing key `key`"),
            ("{ file: /b.csv, key: c, anchor: a }", "3:18: `file` needs a relative path"),
            ("{ file: b.csv, key: c, anchor: a, cycle: {value: x} }", "unknown billing cycle `x`"),
            ("{ file: b.csv, key: c, anchor: a, cycle: {x: y} }", "unknown key `x`"),
            (
                "{ file: b.csv, key: c, anchor: a, otherwise: { anchor: 2023-06-31 } }",
                "3:65: billing anchor `2023-06-31` cannot be: there is no such date",
            ),
            (
                "{ file: b.csv, key: c, anchor: a, otherwise: never }",
                "`otherwise` cannot be `never`",
            ),
            ("{ file: b.csv, key: c, anchor: a, otherwise: [] }", "`otherwise` needs a mapping"),
        ] {
            let text = count(&format!("billing: {written}"));
            let found = parse(&text, "m.yaml").expect_err(written).to_string();
            assert!(found.contains(want), "{written}: {found}");
        }
    }

    #[test]
    fn billing_is_described_and_part_of_the_version() {
        let shown = describe(&meter("{ anchor: 2023-01-31, timezone: UTC }"));
        assert!(shown.contains("billing      monthly from 2023-01-31 in UTC\n"), "{shown}");
        let shown = describe(&meter(TABLE));
        let want = "billing      by customer to since, cycle and zone in ../lookups/billing.csv, \
                    0 rows, otherwise monthly from 2023-01-01 in Europe/Berlin\n";
        assert!(shown.contains(want), "{shown}");

        let unbilled = TABLE.replace("{ anchor: 2023-01-01 }", "none");
        let shown = describe(&meter(&unbilled));
        assert!(shown.contains("0 rows, others not billed\n"), "{shown}");
        let unsaid = TABLE.replace(", otherwise: { anchor: 2023-01-01 }", "");

        let mut versions: Vec<String> = [
            "{ anchor: 2023-01-31 }",
            "{ anchor: 2023-01-30 }",
            "{ anchor: 2023-01-31, cycle: annual }",
            "{ anchor: 2023-01-31, timezone: UTC }",
            TABLE,
            &TABLE.replace("2023-01-01", "2023-01-02"),
            &unsaid,
            &unbilled,
            &TABLE.replace("file: ../lookups/billing.csv", "table: billing"),
            &TABLE.replace("file: ../lookups/billing.csv", "table: billing, from: since"),
        ]
        .map(|written| version(&meter(written)))
        .into();
        versions.push(version(&read(&count("timezone: Europe/Berlin"))));
        for csv in
            ["a,2023-01-31,monthly,UTC", "a,2023-01-30,monthly,UTC", "b,2023-01-31,monthly,UTC"]
        {
            let mut meter = meter(TABLE);
            let Some(Billing::PerCustomer(table)) = &mut meter.billing else { panic!("{meter:?}") };
            let csv = format!("customer,since,cycle,zone\n{csv}\n");
            table.rows = Arc::new(read_billing_rows(&csv, "b.csv", table).unwrap());
            versions.push(version(&meter));
        }
        let all = versions.len();
        versions.sort();
        versions.dedup();
        assert_eq!(versions.len(), all);
        // Another anchor of the same periods, another place of the same table.
        let same = |one: &str, other: &str| version(&meter(one)) == version(&meter(other));
        assert!(same("{ anchor: 2023-01-31 }", "{ anchor: 2024-03-31, cycle: monthly }"));
        assert!(same(TABLE, &TABLE.replace("billing.csv", "other.csv")));
    }
}
