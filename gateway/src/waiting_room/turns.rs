//! Whose turn it is among the tenants of one class of requests: that of the tenant that was charged the fewest tokens.
//!
//! A tenant is charged for a request when the request gets its turn. A tenant that comes anew starts at the charge of
//! the present turn, so it gains nothing by having been away, and waits for nobody's past. A charge beyond the present
//! turn is remembered while its tenant has nothing waiting, so one large request after the other counts as much as many
//! small ones at once.
//!
//! Clients that leave show how long clients wait. When the first in turn has waited for half as long, its client may well
//! leave before its answer is complete, and so would the next one's: the slots would be busy with what nobody reads. Then
//! the newest goes first. Every eighth turn goes to the oldest, if it has waited longer than any that has left: a client
//! that shows more patience than the others is not passed over for ever.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::ticket::Ticket;
use crate::limits::{CHARGED_TENANTS, PATIENCE_KNOWN};

/// One turn of so many goes to the oldest, if that has outlasted all that left.
const OLDEST_EVERY: u64 = 8;

/// The waiting requests of one class, by tenant. `T` wakes one.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Turns<T> {
    tenants: HashMap<Option<String>, Account<T>>,
    /// Tenants with waiting requests, the next one first.
    next: BTreeSet<Turn>,
    /// Tenants without, of which a charge is remembered.
    away: BTreeSet<Turn>,
    /// The charge of the tenant that had the last turn, before that turn.
    present: u64,
    changes: i64,
    turns: u64,
    /// Of the clients that left.
    leaving: Option<Leaving>,
}

/// How long clients waited that left of late: the shortest time and the longest, and when the last one left.
#[derive(Debug, Clone, Copy)]
struct Leaving {
    shortest: Duration,
    longest: Duration,
    last: Instant,
}

/// A tenant's charge in tokens, when it came to this charge, and the tenant.
type Turn = (u64, i64, Option<String>);

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Account<T> {
    charged: u64,
    since: i64,
    /// In the order of arrival.
    places: BTreeMap<u64, Place<T>>,
}

/// One waiting request.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Place<T> {
    /// Its ticket.
    pub ticket: Arc<Ticket>,
    /// What wakes it.
    pub waker: T,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self {
            tenants: HashMap::new(),
            next: BTreeSet::new(),
            away: BTreeSet::new(),
            present: 0,
            changes: 0,
            turns: 0,
            leaving: None,
        }
    }
}

impl<T> Turns<T> {
    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.next.is_empty()
    }

    /// The request whose turn is next.
    pub(super) fn first(&self, now: Instant) -> Option<&Arc<Ticket>> {
        let (_, _, tenant) = self.next.first()?;
        let (_, place) = self.tenants.get(tenant)?.places.first_key_value()?;
        let waited = now.saturating_duration_since(place.ticket.since);
        let is_useful = |leaving: Leaving| {
            let outlasts = waited > leaving.longest && self.turns.is_multiple_of(OLDEST_EVERY);
            waited < leaving.shortest / 2 || outlasts
        };
        if self.leaving(now).is_none_or(is_useful) {
            return Some(&place.ticket);
        }
        let behind = (self.present.saturating_add(1), i64::MIN, None);
        let newest = self
            .next
            .range(..behind)
            .next_back()
            .map_or(tenant, |(_, _, tenant)| tenant);
        let (_, place) = self.tenants.get(newest)?.places.last_key_value()?;
        Some(&place.ticket)
    }

    /// Requests in it.
    pub(super) fn len(&self) -> usize {
        self.tenants.values().map(|account| account.places.len()).sum()
    }

    /// Requests that have their turn before a new one of `tenant`, if they cost about the same: those that the tenant has
    /// waiting, and of each other tenant as many. `None` while the newest goes first.
    pub(super) fn ahead(&self, tenant: &Option<String>, now: Instant) -> Option<usize> {
        if self.leaving(now).is_some() {
            return None;
        }
        let own = self.tenants.get(tenant).map_or(0, |account| account.places.len());
        let accounts = self.tenants.values();
        Some(accounts.map(|account| account.places.len().min(own)).sum())
    }

    /// Requests that have their turn before a new one of `tenant` if each goes first that came first: of each tenant as
    /// many as its own, and one more of those that are not behind it. Counted up to `enough`.
    pub(super) fn before(&self, tenant: &Option<String>, enough: usize) -> usize {
        let account = self.tenants.get(tenant);
        let own = account.map_or(0, |account| account.places.len());
        let charged = account.map_or(0, |account| account.charged).max(self.present);
        let mut before = 0;
        for (charge, _, other) in &self.next {
            if before >= enough {
                break;
            }
            let places = self.tenants.get(other).map_or(0, |account| account.places.len());
            let rounds = own + usize::from(*charge <= charged && other != tenant);
            before += places.min(rounds);
        }
        before
    }

    /// How long clients wait, if some have left lately.
    fn leaving(&self, now: Instant) -> Option<Leaving> {
        self.leaving.filter(|leaving| now < leaving.last + PATIENCE_KNOWN)
    }

    /// The client of a request that had no turn has left.
    pub(super) fn given_up(&mut self, ticket: &Ticket, now: Instant) -> Option<Place<T>> {
        let waited = now.saturating_duration_since(ticket.since);
        let known = self.leaving(now);
        self.leaving = Some(Leaving {
            shortest: known.map_or(waited, |known| known.shortest.min(waited)),
            longest: known.map_or(waited, |known| known.longest.max(waited)),
            last: now,
        });
        self.leave(ticket)
    }

    /// Adds a request. One that had its turn in vain gets its tokens back.
    pub(super) fn enter(&mut self, place: Place<T>) {
        let tenant = place.ticket.tenant.clone();
        let mut account = self.open(&tenant).unwrap_or_else(|| Account {
            charged: self.present,
            since: 0,
            places: BTreeMap::new(),
        });
        if place.ticket.had_turn {
            account.charged = account.charged.saturating_sub(place.ticket.cost());
            // Before those with the same charge, as it was.
            self.changes += 1;
            account.since = -self.changes;
            // That turn was none: whoever comes now is not behind it.
            self.present = self.present.min(account.charged);
        } else if account.places.is_empty() {
            account.charged = account.charged.max(self.present);
        }
        account.places.insert(place.ticket.order, place);
        self.close(tenant, account);
    }

    /// Takes out a request that does not get a turn.
    pub(super) fn leave(&mut self, ticket: &Ticket) -> Option<Place<T>> {
        let mut account = self.open(&ticket.tenant)?;
        let found = account.places.remove(&ticket.order);
        self.close(ticket.tenant.clone(), account);
        found
    }

    /// Takes out a request that gets its turn, and charges its tenant.
    pub(super) fn take(&mut self, ticket: &Ticket) -> Option<Place<T>> {
        let mut account = self.open(&ticket.tenant)?;
        let found = account.places.remove(&ticket.order);
        if let Some(place) = &found {
            self.present = self.present.max(account.charged);
            account.charged = account.charged.saturating_add(place.ticket.cost());
            self.changes += 1;
            self.turns += 1;
            account.since = self.changes;
        }
        self.close(ticket.tenant.clone(), account);
        found
    }

    /// Takes a tenant's account out, to change it.
    fn open(&mut self, tenant: &Option<String>) -> Option<Account<T>> {
        let account = self.tenants.remove(tenant)?;
        let turn = (account.charged, account.since, tenant.clone());
        if !self.next.remove(&turn) {
            self.away.remove(&turn);
        }
        Some(account)
    }

    fn close(&mut self, tenant: Option<String>, mut account: Account<T>) {
        if account.since == 0 {
            self.changes += 1;
            account.since = self.changes;
        }
        let turn = (account.charged, account.since, tenant.clone());
        if account.places.is_empty() {
            self.away.insert(turn);
        } else {
            self.next.insert(turn);
        }
        self.tenants.insert(tenant, account);
        // A charge that the present turn has reached says nothing more.
        while let Some((charged, _, _)) = self.away.first()
            && (*charged <= self.present || self.away.len() > CHARGED_TENANTS)
            && let Some((_, _, tenant)) = self.away.pop_first()
        {
            self.tenants.remove(&tenant);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "turns_tests.rs"]
mod tests;
