//! The rows of a table of customers and their billing cycles.

use std::collections::BTreeMap;
use std::ops::Range;

use super::billing::{BillingTable, Given, zone_name};
use super::lookup::{Table, column};
use crate::document::{Diagnostics, Findings, quote};
use crate::time::{BillingCycle, BillingHistory, Cycle, Timestamp, parse_bound, parse_zone};

/// The rows of a table of customers and their cycles: CSV text with a header.
///
/// # Errors
/// Every missing column, ragged row, cell that is no anchor, cycle, zone or date, and customer that
/// stands twice, or twice from one date, with `file`, line and column.
pub fn read_billing_rows(
    csv: &str,
    file: &str,
    table: &BillingTable,
) -> Result<BTreeMap<String, BillingHistory>, Diagnostics> {
    let mut findings = Findings::new(csv, file, "billing table");
    let body = csv.trim_start_matches('\u{feff}');
    let place = Table { text: csv, offset: csv.len() - body.len() };
    let mut reader = csv::Reader::from_reader(body.as_bytes());
    let header = match reader.headers() {
        Ok(header) => header.clone(),
        Err(error) => {
            findings.report(&(0..0), format!("table is not readable as CSV: {error}"));
            return findings.finish(None);
        }
    };
    let Some(columns) = Columns::find(&header, table, &mut findings) else {
        return findings.finish(None);
    };
    let mut rows: BTreeMap<String, OfCustomer> = BTreeMap::new();
    let mut zones = BTreeMap::new();
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                place.report(&error, &mut findings);
                continue;
            }
        };
        let mut row =
            Row { record: &record, span: place.span(record.position()), findings: &mut findings };
        let cycle = columns.cycle_of(&mut row, &mut zones);
        let since = cycle.as_ref().and_then(|cycle| columns.since(&mut row, &cycle.zone));
        let customer = row.customer(columns.key, since, &rows);
        if let (Some(customer), Some(cycle), Some(since)) = (customer, cycle, since) {
            rows.entry(customer).or_default().insert(since, (cycle, row.span));
        }
    }
    let mut histories = BTreeMap::new();
    for (customer, cycles) in rows {
        if let Some(history) = history(&customer, cycles, &mut findings) {
            histories.insert(customer, history);
        }
    }
    findings.finish(Some(histories))
}

/// The cycles of a customer, each with its row, by the instant from which it holds.
type OfCustomer = BTreeMap<Timestamp, (BillingCycle, Range<usize>)>;

/// The first cycle holds before its instant as well.
fn history(
    customer: &str,
    cycles: OfCustomer,
    findings: &mut Findings<'_>,
) -> Option<BillingHistory> {
    let mut cycles = cycles.into_iter();
    let (_, (first, _)) = cycles.next()?;
    let (mut later, mut span) = (Vec::new(), None);
    for (since, (cycle, row)) in cycles {
        // One of its own, to be named if it is of another zone.
        if span.is_none() && cycle.zone != first.zone {
            span = Some(row);
        }
        later.push((since, cycle));
    }
    match BillingHistory::new(first, later) {
        Ok(history) => Some(history),
        Err(error) => {
            let message = format!("customer {}: {error}", quote(customer));
            findings.report(&span.unwrap_or(0..0), message);
            None
        }
    }
}

/// Where the parts of a cycle stand in a record.
struct Columns<'t> {
    key: usize,
    anchor: usize,
    from: Option<usize>,
    cycle: Given<Cycle>,
    cycle_column: Option<usize>,
    timezone: &'t Given<String>,
    zone_column: Option<usize>,
}

impl<'t> Columns<'t> {
    fn find(
        header: &csv::StringRecord,
        table: &'t BillingTable,
        findings: &mut Findings<'_>,
    ) -> Option<Self> {
        let key = column(header, &table.key, findings);
        let anchor = column(header, &table.anchor, findings);
        let cycle_column = match &table.cycle {
            Given::Column(name) => Some(column(header, name, findings)?),
            Given::Always(_) => None,
        };
        let zone_column = match &table.timezone {
            Given::Column(name) => Some(column(header, name, findings)?),
            Given::Always(_) => None,
        };
        let from = match &table.from {
            Some(name) => Some(column(header, name, findings)?),
            None => None,
        };
        let (key, anchor) = (key?, anchor?);
        let (cycle, timezone) = (table.cycle.clone(), &table.timezone);
        Some(Self { key, anchor, from, cycle, cycle_column, timezone, zone_column })
    }

    /// From when a row holds, in the zone of its cycle; from the beginning where that is not said.
    fn since(&self, row: &mut Row<'_, '_>, zone: &str) -> Option<Timestamp> {
        match self.from {
            Some(place) if !row.record[place].trim().is_empty() => {
                row.read(place, |text| parse_bound(text.trim(), &parse_zone(zone)?))
            }
            Some(_) | None => Some(Timestamp::MIN),
        }
    }

    /// The cycle of a row; `zones` are the names that were read before.
    fn cycle_of(
        &self,
        row: &mut Row<'_, '_>,
        zones: &mut BTreeMap<String, String>,
    ) -> Option<BillingCycle> {
        let anchor = row.read(self.anchor, str::parse);
        let cycle = match (&self.cycle, self.cycle_column) {
            (Given::Always(cycle), _) => Some(*cycle),
            (Given::Column(_), place) => row.read(place?, str::parse),
        };
        let zone = match (self.timezone, self.zone_column) {
            (Given::Always(zone), _) => Some(zone.clone()),
            (Given::Column(_), place) => {
                let place = place?;
                match zones.get(&row.record[place]) {
                    Some(known) => Some(known.clone()),
                    None => {
                        let zone = row.read(place, zone_name)?;
                        zones.insert(row.record[place].to_owned(), zone.clone());
                        Some(zone)
                    }
                }
            }
        };
        Some(BillingCycle { anchor: anchor?, cycle: cycle?, zone: zone? })
    }
}

/// A record and its place in the text.
struct Row<'r, 't> {
    record: &'r csv::StringRecord,
    span: Range<usize>,
    findings: &'r mut Findings<'t>,
}

impl Row<'_, '_> {
    /// The customer, who must not have a row from that instant already.
    fn customer(
        &mut self,
        place: usize,
        since: Option<Timestamp>,
        rows: &BTreeMap<String, OfCustomer>,
    ) -> Option<String> {
        let customer = &self.record[place];
        let known = rows.get(customer).zip(since).and_then(|(rows, since)| rows.get(&since));
        let message = match known {
            _ if customer.is_empty() => "row names no customer".to_owned(),
            None => return Some(customer.to_owned()),
            Some((_, first)) => format!(
                "customer {} has a row already, in line {}",
                quote(customer),
                self.findings.line(first.start)
            ),
        };
        self.findings.report(&self.cell(place), message);
        None
    }

    fn read<T>(
        &mut self,
        place: usize,
        read: impl Fn(&str) -> crate::error::Result<T>,
    ) -> Option<T> {
        match read(&self.record[place]) {
            Ok(value) => Some(value),
            Err(error) => {
                self.findings.report(&self.cell(place), error.to_string());
                None
            }
        }
    }

    /// The place of a cell as it is written, quotes included.
    fn cell(&self, place: usize) -> Range<usize> {
        let text = &self.findings.text()[self.span.start..];
        let (mut start, mut column, mut quoted) = (0, 0, false);
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                b'"' => quoted = !quoted,
                b',' | b'\n' | b'\r' if quoted => {}
                b',' | b'\n' | b'\r' if column == place => {
                    return self.span.start + start..self.span.start + at;
                }
                b',' => (start, column) = (at + 1, column + 1),
                _ => {}
            }
        }
        self.span.start + start..self.span.end
    }
}
