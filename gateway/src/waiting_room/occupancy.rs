//! Who may wait when the room is full: bounds in requests and bytes, in total and per tenant.
//!
//! While there is room, any request may enter. When the room is full, a request may enter if its tenant stays within an
//! even share: the bound divided by the number of waiting tenants, including its own. The tenant that holds most then
//! loses a request: the last arrival of its lowest priority, or its largest body if bytes are short. Beyond its share,
//! a request is refused, unless it goes before another request of its own tenant, which it then displaces.
//!
//! So no tenant can keep another out. While a tenant asks for no more than its share and the room is full, the others
//! together hold more than theirs, so one of them exceeds its share, and is found.
//!
//! Requests that have begun are not counted. There are no more of them than there were slots.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::ticket::Ticket;

/// The bounds of the waiting room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Requests.
    pub requests: usize,
    /// Bytes of their bodies. A larger body may wait if no other request does.
    pub bytes: usize,
}

/// The waiting room is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// The waiting requests that have not begun, by tenant.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Occupancy {
    bounds: Bounds,
    requests: usize,
    bytes: usize,
    tenants: HashMap<Option<String>, Account>,
}

#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
struct Account {
    bytes: usize,
    /// By priority and order of arrival. The first is displaced first.
    waiting: BTreeMap<Rank, Arc<Ticket>>,
    /// By size. The largest is last.
    sizes: BTreeSet<(usize, Reverse<Rank>)>,
}

/// The lowest rank is displaced first.
type Rank = (i32, Reverse<u64>);

fn rank(ticket: &Ticket) -> Rank {
    (ticket.priority, Reverse(ticket.order))
}

impl Occupancy {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            requests: 0,
            bytes: 0,
            tenants: HashMap::new(),
        }
    }

    /// Adds `ticket` and returns the tickets that it displaced, which are removed.
    pub(super) fn enter(&mut self, ticket: &Arc<Ticket>) -> Result<Vec<Arc<Ticket>>, Full> {
        if ticket.begun {
            return Ok(Vec::new());
        }
        let gone = if self.is_within_share(ticket) {
            self.displace(ticket)?
        } else {
            self.behind(ticket)?
        };
        self.requests += 1;
        self.bytes += ticket.bytes;
        let account = self.tenants.entry(ticket.tenant.clone()).or_default();
        account.bytes += ticket.bytes;
        account.sizes.insert((ticket.bytes, Reverse(rank(ticket))));
        account.waiting.insert(rank(ticket), Arc::clone(ticket));
        Ok(gone)
    }

    /// Removes `ticket`. Does nothing if it is not there.
    pub(super) fn leave(&mut self, ticket: &Ticket) {
        let Some(account) = self.tenants.get_mut(&ticket.tenant) else {
            return;
        };
        if account.waiting.remove(&rank(ticket)).is_none() {
            return;
        }
        account.sizes.remove(&(ticket.bytes, Reverse(rank(ticket))));
        account.bytes -= ticket.bytes;
        if account.waiting.is_empty() {
            self.tenants.remove(&ticket.tenant);
        }
        self.requests -= 1;
        self.bytes -= ticket.bytes;
    }

    pub(super) fn tenants(&self) -> usize {
        self.tenants.len()
    }

    pub(super) fn is_roomy(&self) -> bool {
        self.requests <= self.bounds.requests / 4 && self.bytes <= self.bounds.bytes / 4
    }

    /// What would be short if `ticket` joined this many requests and bytes.
    fn short(&self, ticket: &Ticket, requests: usize, bytes: usize) -> Short {
        Short {
            requests: requests >= self.bounds.requests,
            bytes: bytes > 0 && bytes.saturating_add(ticket.bytes) > self.bounds.bytes,
        }
    }

    /// Whether its tenant would stay within its share of what is short.
    fn is_within_share(&self, ticket: &Ticket) -> bool {
        let account = self.tenants.get(&ticket.tenant);
        let tenants = self.tenants.len() + usize::from(account.is_none());
        let (requests, bytes) = account.map_or((0, 0), |account| (account.waiting.len(), account.bytes));
        let short = self.short(ticket, self.requests, self.bytes);
        (!short.requests || requests < self.bounds.requests / tenants)
            && (!short.bytes || bytes.saturating_add(ticket.bytes) <= self.bounds.bytes / tenants)
    }

    /// Removes enough tickets of the tenants that hold most to make room for `ticket`.
    fn displace(&mut self, ticket: &Ticket) -> Result<Vec<Arc<Ticket>>, Full> {
        let mut gone = Vec::new();
        loop {
            let short = self.short(ticket, self.requests, self.bytes);
            let accounts = self.tenants.values();
            let next = if short.requests {
                let fullest = accounts.max_by_key(|account| account.waiting.len());
                fullest.and_then(|account| account.waiting.values().next())
            } else if short.bytes {
                let fullest = accounts.max_by_key(|account| account.bytes);
                fullest.and_then(Account::largest)
            } else {
                return Ok(gone);
            };
            let next = Arc::clone(next.ok_or(Full)?);
            self.leave(&next);
            gone.push(next);
        }
    }

    /// Removes tickets of its own tenant that rank behind `ticket`, if that makes enough room.
    fn behind(&mut self, ticket: &Ticket) -> Result<Vec<Arc<Ticket>>, Full> {
        let (mut requests, mut bytes) = (self.requests, self.bytes);
        let account = self.tenants.get(&ticket.tenant);
        let mut behind = account
            .into_iter()
            .flat_map(|account| account.waiting.range(..rank(ticket)));
        let mut gone = Vec::new();
        while self.short(ticket, requests, bytes).of_anything() {
            let (_, next) = behind.next().ok_or(Full)?;
            requests -= 1;
            bytes -= next.bytes;
            gone.push(Arc::clone(next));
        }
        for one in &gone {
            self.leave(one);
        }
        Ok(gone)
    }
}

impl Account {
    /// The ticket with the largest body; among equals, the first to be displaced.
    fn largest(&self) -> Option<&Arc<Ticket>> {
        let (_, Reverse(rank)) = self.sizes.last()?;
        self.waiting.get(rank)
    }
}

/// What is short.
#[derive(Debug, Clone, Copy)]
struct Short {
    requests: bool,
    bytes: bool,
}

impl Short {
    fn of_anything(self) -> bool {
        self.requests || self.bytes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "occupancy_tests.rs"]
mod tests;
