//! The windows of a request, resolved for one meter: a calendar's or billing periods.
//!
//! A window is whole by the calendar that it follows, wherever there is data; which of them a bound
//! of the range cuts is known from the request alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::request::UsageRequest;
use crate::error::{Error, Result};
use crate::functions::series::by_calendar::ByCalendar;
use crate::meter::{Billing, BillingTable, Field, Meter, Operand};
use crate::plan::{Resets, Windows};
use crate::time::{
    BILLING_PERIOD, BillingCycle, BillingHistory, Calendars, Cycle, TimeRange, Timestamp, Window,
    WindowStarts, Windowing, parse_zone, window_starts,
};

/// The windows of an answer and what it takes to show them.
#[derive(Debug, Clone)]
pub(super) struct ResolvedWindows {
    pub(super) windows: Windows,
    /// The zone of each calendar; of shared windows, the only one.
    pub(super) zones: Vec<TimeZone>,
    /// Whether a bound of the range cuts a window.
    pub(super) cut: bool,
    /// The starts, within the range, of the shared windows that a bound cuts.
    pub(super) partial: Vec<i64>,
}

/// What a request and a meter say about windows.
pub(super) struct Asked<'a> {
    pub(super) request: &'a UsageRequest,
    pub(super) meter: &'a Meter,
    pub(super) groups: &'a [Operand],
    pub(super) zone: &'a TimeZone,
    pub(super) zone_name: &'a str,
    pub(super) range: TimeRange,
    /// What windows must cover.
    pub(super) covered: (Timestamp, Timestamp),
}

/// Windows of one kind, to be computed for any range.
enum Calendar<'a> {
    Zone(Window, &'a TimeZone),
    Billing(BillingHistory),
}

impl Calendar<'_> {
    fn starts(&self, from: Timestamp, to: Timestamp) -> Result<WindowStarts> {
        match self {
            Self::Zone(window, zone) => window_starts(*window, zone, from, to),
            Self::Billing(cycle) => cycle.periods(from, to),
        }
    }

    /// The start of the window that an instant cuts: one that begins before it and goes on.
    fn cut_by(&self, bound: Option<Timestamp>) -> Result<Option<i64>> {
        let within = bound.filter(|bound| (Timestamp::MIN..=Timestamp::MAX).contains(bound));
        let Some(bound) = within else { return Ok(None) };
        let start = self.starts(bound, bound)?.start_of(bound.micros());
        Ok((start < bound.micros()).then_some(start))
    }
}

impl Asked<'_> {
    /// The windows, if the request has any.
    ///
    /// # Errors
    /// A window, anchor or cycle that cannot be; billing periods of a meter without them; periods
    /// that differ between customers, in an answer that does not tell customers apart.
    pub(super) fn resolve(&self) -> Result<Option<ResolvedWindows>> {
        let windowing: Option<Windowing> =
            self.request.window.as_deref().map(str::parse).transpose()?;
        let anchored = anchored(self.request, self.zone_name)?;
        let named = self.request.billing_period()?;
        if anchored.is_some() && windowing != Some(Windowing::BillingPeriod) && named.is_none() {
            return Err(Error::invalid(format!(
                "an anchor is one of billing periods: add the window `{BILLING_PERIOD}`, or the period \
                 `this-billing-period`, `last-billing-period` or `billing:2026-10`"
            )));
        }
        let resolved = match windowing {
            None => return Ok(None),
            Some(Windowing::Calendar(window)) => {
                self.shared(&Calendar::Zone(window, self.zone), self.zone.clone())
            }
            Some(Windowing::BillingPeriod) => match anchored {
                Some(cycle) => self.shared_billing(cycle.into()),
                None => self.billing_of_meter(),
            },
        };
        resolved.map(Some)
    }

    fn billing_of_meter(&self) -> Result<ResolvedWindows> {
        match billing_of(self.meter)? {
            Billing::Shared(cycle) => self.shared_billing(cycle.clone().into()),
            Billing::PerCustomer(table) => match cycles_of_customer(self.request, table) {
                Some(cycles) => self.shared_billing(cycles),
                None if self.request.customer.is_some() => Ok(without_periods()),
                None => self.per_customer(table),
            },
        }
    }

    fn shared_billing(&self, cycles: BillingHistory) -> Result<ResolvedWindows> {
        let zone = parse_zone(cycles.zone())?;
        self.shared(&Calendar::Billing(cycles), zone)
    }

    fn shared(&self, calendar: &Calendar<'_>, zone: TimeZone) -> Result<ResolvedWindows> {
        let (from, to) = self.covered;
        let starts = calendar.starts(from, to)?;
        let cut_first = calendar.cut_by(self.range.from)?;
        let cut_last = calendar.cut_by(self.range.to)?;
        let shown = |start: i64| self.range.from.map_or(start, |from| from.micros().max(start));
        let mut partial: Vec<i64> = cut_first.into_iter().chain(cut_last).map(shown).collect();
        partial.dedup();
        Ok(ResolvedWindows {
            windows: Windows::Shared(starts),
            zones: vec![zone],
            cut: !partial.is_empty(),
            partial,
        })
    }

    fn per_customer(&self, table: &BillingTable) -> Result<ResolvedWindows> {
        if !self.groups.contains(&Operand::Field(Field::CustomerId)) {
            return Err(Error::invalid(format!(
                "the billing periods of meter `{}` differ between customers, so that a sum over \
                 customers is of no period: group by {} too, or ask for one customer",
                self.meter.name,
                Field::CustomerId
            )));
        }
        let built = Built::of(table, self.covered)?;
        let mut cut = false;
        for cycles in built.cycles {
            let calendar = Calendar::Billing(cycles);
            for bound in [self.range.from, self.range.to] {
                cut |= calendar.cut_by(bound)?.is_some();
            }
        }
        Ok(ResolvedWindows {
            windows: Windows::PerCustomer(built.calendars),
            zones: built.zones,
            cut,
            partial: Vec::new(),
        })
    }
}

/// The billing periods of a meter, which cover `[from, to)`, as something that begins anew with each.
///
/// # Errors
/// A meter without billing periods, and a range that they cannot cover.
pub(super) fn billing_resets(meter: &Meter, (from, to): (Timestamp, Timestamp)) -> Result<Resets> {
    match billing_of(meter)? {
        Billing::Shared(cycle) => {
            let windows = ByCalendar::shared(cycle.periods(from, to)?);
            Ok(Resets { windows, calendars: None })
        }
        Billing::PerCustomer(table) => {
            let calendars = Built::of(table, (from, to))?.calendars;
            // Whoever has no billing periods has all of time.
            let all = [Timestamp::MIN, Timestamp::MAX].map(Timestamp::micros);
            let otherwise = WindowStarts::Boundaries(all.into());
            let windows = ByCalendar { otherwise, of_calendars: calendars.starts.clone() };
            Ok(Resets { windows, calendars: Some(Windows::PerCustomer(calendars)) })
        }
    }
}

/// The cycle that a request itself asks for.
fn anchored(request: &UsageRequest, zone_name: &str) -> Result<Option<BillingCycle>> {
    let cycle: Option<Cycle> = request.cycle.as_deref().map(str::parse).transpose()?;
    match (&request.anchor, cycle) {
        (Some(anchor), cycle) => Ok(Some(BillingCycle {
            anchor: anchor.parse()?,
            cycle: cycle.unwrap_or(Cycle::MONTHLY),
            zone: zone_name.to_owned(),
        })),
        (None, Some(_)) => Err(Error::invalid("a billing cycle needs an anchor: a date")),
        (None, None) => Ok(None),
    }
}

fn billing_of(meter: &Meter) -> Result<&Billing> {
    let missing = || {
        Error::invalid(format!(
            "meter `{}` has no billing periods: give it `billing`, or the question an anchor such as \
             2023-01-31",
            meter.name
        ))
    };
    meter.billing.as_ref().ok_or_else(missing)
}

/// The cycles of the only customer that is asked for.
fn cycles_of_customer(request: &UsageRequest, table: &BillingTable) -> Option<BillingHistory> {
    table.cycles_of(Some(request.customer.as_ref()?))
}

/// The cycles whose periods a request means where it means those of one customer or of all.
///
/// # Errors
/// A meter without billing periods, and one whose customers have different ones where none of them
/// is asked for.
pub(super) fn one_billing(
    request: &UsageRequest,
    meter: &Meter,
    zone_name: &str,
) -> Result<BillingHistory> {
    if let Some(cycle) = anchored(request, zone_name)? {
        return Ok(cycle.into());
    }
    match billing_of(meter)? {
        Billing::Shared(cycle) => Ok(cycle.clone().into()),
        Billing::PerCustomer(table) => {
            match (cycles_of_customer(request, table), &request.customer) {
                (Some(cycles), _) => Ok(cycles),
                (None, Some(customer)) => Err(Error::invalid(format!(
                    "customer `{customer}` has no billing periods: the table of meter `{}` does not have \
                 it, and there is no `otherwise`",
                    meter.name
                ))),
                (None, None) => Err(Error::invalid(format!(
                    "the billing periods of meter `{}` differ between customers: ask for one customer, \
                 or for a range in the window `{BILLING_PERIOD}`",
                    meter.name
                ))),
            }
        }
    }
}

/// The cycles of all customers, each once, where a request may mean periods that differ between them.
///
/// # Errors
/// An anchor or cycle that cannot be.
pub(super) fn own_billing(
    request: &UsageRequest,
    meter: &Meter,
    zone_name: &str,
) -> Result<Option<Vec<BillingHistory>>> {
    if anchored(request, zone_name)?.is_some() || request.customer.is_some() {
        return Ok(None);
    }
    let Some(Billing::PerCustomer(table)) = &meter.billing else { return Ok(None) };
    let otherwise = table.otherwise.clone().map(BillingHistory::from);
    let all = table.rows.values().cloned().chain(otherwise);
    let all = all.map(|cycles| ((cycles.phase(), cycles.zone().to_owned()), cycles));
    Ok(Some(all.collect::<BTreeMap<_, _>>().into_values().collect()))
}

/// The windows of a customer that has no billing periods.
fn without_periods() -> ResolvedWindows {
    let windows = Windows::PerCustomer(Calendars::default());
    ResolvedWindows { windows, zones: Vec::new(), cut: false, partial: Vec::new() }
}

/// The calendars of a table; customers of one phase and zone share one.
struct Built {
    calendars: Calendars,
    /// The zone and the cycles of each calendar.
    zones: Vec<TimeZone>,
    cycles: Vec<BillingHistory>,
}

impl Built {
    fn of(table: &BillingTable, (from, to): (Timestamp, Timestamp)) -> Result<Self> {
        let mut places: BTreeMap<(String, String), usize> = BTreeMap::new();
        let (mut starts, mut zones, mut all) = (Vec::new(), Vec::new(), Vec::new());
        let mut place_of = |cycles: &BillingHistory| {
            let key = (cycles.phase(), cycles.zone().to_owned());
            if let Some(place) = places.get(&key) {
                return Ok(*place);
            }
            let place = starts.len();
            starts.push(cycles.periods(from, to)?);
            zones.push(parse_zone(cycles.zone())?);
            all.push(cycles.clone());
            places.insert(key, place);
            Ok::<_, Error>(place)
        };
        let mut of_customer = BTreeMap::new();
        for (customer, cycles) in table.rows.iter() {
            of_customer.insert(customer.clone(), place_of(cycles)?);
        }
        let otherwise = table.otherwise.clone().map(BillingHistory::from);
        let otherwise = otherwise.as_ref().map(place_of).transpose()?;
        let calendars = Calendars { otherwise, of_customer: Arc::new(of_customer), starts };
        Ok(Self { calendars, zones, cycles: all })
    }
}
