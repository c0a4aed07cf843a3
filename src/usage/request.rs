//! What is asked of meters, and what it comes to: bounds, zone, groups and windows resolved.

use jiff::tz::TimeZone;

use super::answer::columns;
use super::conditions::parse_conditions;
use super::fill::Fill;
use super::parts::{self, Parts};
use super::windows::{Asked, ResolvedWindows, one_billing, own_billing};
use crate::error::{Error, Result};
use crate::meter::{Field, Filter, Meter, Operand, resolve};
use crate::plan::UsageQuery;
use crate::time::{BillingPeriod, TimeRange, Timestamp, parse_bound, parse_period, parse_zone};

/// Columns of answers that no group may be called like.
const RESERVED: [&str; 9] = [
    columns::METER,
    columns::WINDOW_START,
    columns::WINDOW_END,
    columns::PARTIAL,
    columns::VALUE,
    columns::CONVERTED,
    columns::BILLABLE,
    columns::EVENTS,
    columns::SKIPPED,
];

/// How an answer is grouped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Grouping {
    /// A row per customer.
    #[default]
    Customer,
    /// Exactly these: properties, built-in fields and lookups, by name.
    By(Vec<String>),
    /// By customer and the meter's own dimensions.
    Breakdown,
    /// No groups.
    Total,
}

/// A question about usage, as a person or program puts it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageRequest {
    /// Names of meters, each perhaps with a version: `name@2e1ab785c667`, `name@published`.
    pub meters: Vec<String>,
    /// A period such as `2026-10`; not together with `from` and `to`.
    pub period: Option<String>,
    /// First instant: a date or RFC 3339.
    pub from: Option<String>,
    /// End, exclusive: a date or RFC 3339.
    pub to: Option<String>,
    /// How to group.
    pub grouping: Grouping,
    /// Length of windows, such as `day` or `billing_period`.
    pub window: Option<String>,
    /// Where billing periods begin, a date; the meter's own `billing` if none.
    pub anchor: Option<String>,
    /// How long billing periods from `anchor` are; monthly if none.
    pub cycle: Option<String>,
    /// What stands in windows without a value: `zero`, `null` or `previous`; no row if none.
    pub fill: Option<String>,
    /// Only this customer.
    pub customer: Option<String>,
    /// Conditions as SQL.
    pub conditions: Option<String>,
    /// IANA zone of periods and windows; the meter's own, or UTC, if none.
    pub timezone: Option<String>,
    /// Version of the events table; the newest if none.
    pub at: Option<u64>,
    /// Only that many rows, of the largest values.
    pub top: Option<usize>,
    /// From the events alone, though there may be rollups.
    pub from_events: bool,
}

/// A request resolved for one meter.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    /// What the meter is called in the answer.
    pub(super) label: String,
    pub(super) zone: TimeZone,
    pub(super) zone_name: String,
    pub(super) group_names: Vec<String>,
    /// Which of the groups is the customer.
    pub(super) customer_place: Option<usize>,
    pub(super) windows: Option<ResolvedWindows>,
    pub(super) fill: Option<Fill>,
    pub(super) query: UsageQuery,
}

/// What a billing period means where customers have periods of their own.
#[derive(Debug, Default)]
pub struct OwnBounds {
    /// The periods, each once, in order.
    pub bounds: Vec<TimeRange>,
    /// Why some customers have none by that name.
    pub wrong: Vec<Error>,
}

impl UsageRequest {
    /// Resolves the request for `meter` over a table with events on `days`, at the time `now`.
    ///
    /// # Errors
    /// A period, zone, window or condition that cannot be read, with the form it should have.
    pub(super) fn resolve(
        &self,
        meter: &Meter,
        days: Option<(i32, i32)>,
        now: Timestamp,
    ) -> Result<Resolved> {
        let zone_name = self.zone_name(meter);
        let zone = parse_zone(zone_name)?;
        let range = self.range_of((meter, zone_name), &zone, now)?;
        let fill = self.fill()?;
        let group_names = self.group_names(meter)?;
        let groups: Vec<Operand> = group_names.iter().map(|name| resolve(name, meter)).collect();
        // What was before a window may still hold in it, events in it or not.
        let beyond = meter.aggregation.carries() || meter.period.is_some();
        let covered = match fill.is_some() || beyond {
            true => reach(range, days),
            false => covered(range, days),
        };
        let asked = Asked {
            request: self,
            meter,
            groups: &groups,
            zone: &zone,
            zone_name,
            range,
            covered: covered.unwrap_or((now, now)),
        };
        let windows = asked.resolve()?;
        let Parts { spans, own, resets } = parts::of(&asked, windows.as_ref())?;
        let filter = match &self.conditions {
            Some(text) => parse_conditions(text, meter)?,
            None => Filter::everything(),
        };
        Ok(Resolved {
            query: UsageQuery {
                range,
                windows: windows.as_ref().map(|resolved| resolved.windows.clone()),
                groups: groups.clone(),
                customer: self.customer.clone(),
                filter,
                top: self.top,
                spans,
                parts: own,
                resets,
            },
            label: meter.name.clone(),
            customer_place: groups
                .iter()
                .position(|group| *group == Operand::Field(Field::CustomerId)),
            windows,
            fill,
            zone_name: zone_name.to_owned(),
            zone,
            group_names,
        })
    }

    fn fill(&self) -> Result<Option<Fill>> {
        let fill: Option<Fill> = self.fill.as_deref().map(str::parse).transpose()?;
        if fill.is_some() && self.window.is_none() {
            return Err(Error::invalid(
                "fill is for the windows in which a group has no value: say which, such as day",
            ));
        }
        if fill.is_some() && self.top.is_some() {
            return Err(Error::invalid(
                "fill and the largest values exclude each other: a window without a value is none \
                 of the largest",
            ));
        }
        Ok(fill)
    }

    /// The billing period that `period` names, if it is one.
    pub(super) fn billing_period(&self) -> Result<Option<BillingPeriod>> {
        Ok(self.period.as_deref().map(BillingPeriod::named).transpose()?.flatten())
    }

    /// The instants that the request asks of `meter`, at the time `now`.
    ///
    /// # Errors
    /// A period, bound or zone that cannot be read; a billing period that the meter does not have.
    pub fn bounds(&self, meter: &Meter, now: Timestamp) -> Result<TimeRange> {
        let zone_name = self.zone_name(meter);
        self.range_of((meter, zone_name), &parse_zone(zone_name)?, now)
    }

    /// The periods of `meter` that a billing period means, by their bounds, where customers have periods
    /// of their own, and what keeps some of them from having one; `None` where all have the same.
    ///
    /// # Errors
    /// A period that cannot be read, a zone that is none.
    pub fn own_bounds(&self, meter: &Meter, now: Timestamp) -> Result<Option<OwnBounds>> {
        let Some(named) = self.billing_period()? else { return Ok(None) };
        let Some(cycles) = own_billing(self, meter, self.zone_name(meter))? else {
            return Ok(None);
        };
        let mut own = OwnBounds::default();
        for cycles in cycles {
            match cycles.all_bounds(named, now) {
                Ok(bounds) => own.bounds.extend(bounds),
                Err(error) => own.wrong.push(error),
            }
        }
        own.bounds.sort_by_key(|range| (range.from, range.to));
        own.bounds.dedup();
        Ok(Some(own))
    }

    /// The IANA name of the zone of periods and windows.
    pub fn zone_name<'a>(&'a self, meter: &'a Meter) -> &'a str {
        self.timezone.as_deref().or(meter.timezone.as_deref()).unwrap_or("UTC")
    }

    /// The IANA name of the zone that the days of the period are of: of billing periods their own.
    ///
    /// # Errors
    /// A billing period that the meter does not have.
    pub fn period_zone(&self, meter: &Meter) -> Result<String> {
        let zone = self.zone_name(meter);
        Ok(match self.billing_period()? {
            Some(_) => one_billing(self, meter, zone)?.zone().to_owned(),
            // As the database spells it.
            None => parse_zone(zone)?.iana_name().unwrap_or(zone).to_owned(),
        })
    }

    /// The instants that are asked of `meter`, whose billing periods may be named.
    fn range_of(
        &self,
        (meter, zone_name): (&Meter, &str),
        zone: &TimeZone,
        now: Timestamp,
    ) -> Result<TimeRange> {
        let named = self.billing_period()?;
        match named {
            Some(_) if self.from.is_some() || self.to.is_some() => self.range(zone, now),
            Some(named) => one_billing(self, meter, zone_name)?.bounds(named, now),
            None => self.range(zone, now),
        }
    }

    /// The instants of `period`, or of `from` and `to`, in `zone`.
    ///
    /// # Errors
    /// A period or bound that cannot be read, both together, a range that is empty.
    pub fn range(&self, zone: &TimeZone, now: Timestamp) -> Result<TimeRange> {
        if let Some(period) = &self.period {
            if self.from.is_some() || self.to.is_some() {
                return Err(Error::invalid("a period stands alone, without --from and --to"));
            }
            return parse_period(period, zone, now);
        }
        let bound =
            |text: &Option<String>| text.as_deref().map(|text| parse_bound(text, zone)).transpose();
        let range = TimeRange { from: bound(&self.from)?, to: bound(&self.to)? };
        if let (Some(from), Some(to)) = (range.from, range.to)
            && range.is_empty()
        {
            return Err(Error::invalid(format!("the range from {from} to {to} is empty")));
        }
        Ok(range)
    }

    fn group_names(&self, meter: &Meter) -> Result<Vec<String>> {
        let customer = Field::CustomerId.as_str().to_owned();
        let names = match &self.grouping {
            Grouping::Customer => vec![customer],
            Grouping::By(names) => names.clone(),
            Grouping::Breakdown => {
                let own = meter.dimensions.iter().filter(|name| **name != customer).cloned();
                std::iter::once(customer.clone()).chain(own).collect()
            }
            Grouping::Total => Vec::new(),
        };
        if let Some(name) = names
            .iter()
            .enumerate()
            .find_map(|(place, name)| names[..place].contains(name).then_some(name))
        {
            return Err(Error::invalid(format!("group `{name}` stands twice")));
        }
        if let Some(name) = names.iter().find(|name| RESERVED.contains(&name.as_str())) {
            return Err(Error::invalid(format!(
                "group `{name}` has the name of a column of the answer; a property of that name is \
                 `property.{name}`"
            )));
        }
        if names.iter().any(String::is_empty) {
            return Err(Error::invalid("a group has an empty name"));
        }
        Ok(names)
    }
}

/// The instants of the range, as far as there are events.
fn covered(range: TimeRange, days: Option<(i32, i32)>) -> Option<(Timestamp, Timestamp)> {
    let (start, end) = instants(days?);
    let from = range.from.map_or(start, |from| from.max(start));
    let to = range.to.map_or(end, |to| to.min(end));
    (from < to).then_some((from, to))
}

/// The instants that windows must cover where each of the range may have rows: the range, and where
/// it is open as far as there are events.
fn reach(range: TimeRange, days: Option<(i32, i32)>) -> Option<(Timestamp, Timestamp)> {
    let events = days.map(instants);
    let from = range.from.or(events.map(|(start, _)| start))?;
    let to = range.to.or(events.map(|(_, end)| end))?;
    (from < to).then_some((from, to))
}

/// From the beginning of the first day to the end of the last.
fn instants((first, last): (i32, i32)) -> (Timestamp, Timestamp) {
    const DAY_MICROS: i64 = 86_400_000_000;
    let start = Timestamp::from_micros(i64::from(first) * DAY_MICROS);
    (start, Timestamp::from_micros((i64::from(last) + 1) * DAY_MICROS))
}

/// Whether two meters with these resolutions can share one scan.
pub(super) fn share_scan(one: (&Meter, &Resolved), other: (&Meter, &Resolved)) -> bool {
    let (a, b) = (&one.1.query, &other.1.query);
    !one.0.stands_alone()
        && !other.0.stands_alone()
        && one.0.events == other.0.events
        && one.0.lookups == other.0.lookups
        && one.0.customer == other.0.customer
        && one.1.group_names == other.1.group_names
        && one.1.zone_name == other.1.zone_name
        && a.groups == b.groups
        && a.filter == b.filter
        && a.range == b.range
        && a.windows == b.windows
}

/// The operands that a query asks the sort key for: one customer is a needle.
pub(super) fn names_one_customer(query: &UsageQuery, meter: &Meter) -> bool {
    fn asks(filter: &Filter) -> bool {
        use crate::meter::Comparison;
        match filter {
            Filter::All(parts) => parts.iter().any(asks),
            Filter::Test(test) => {
                test.operand == Operand::Field(Field::CustomerId)
                    && matches!(test.comparison, Comparison::Equals(_) | Comparison::In(_))
            }
            Filter::Any(_) | Filter::Not(_) => false,
        }
    }
    query.customer.is_some() || asks(&query.filter) || asks(&meter.filter)
}
