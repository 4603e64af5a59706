//! Who may wait when the room is full: bounds in requests and bytes, over all and per tenant.
//!
//! While there is room, anybody may take it. When there is none left, a newcomer whose tenant stays
//! within an even share of the room (the bound, by the number of tenants that wait and it) is let
//! in, and the tenant that holds most gives way: with the request of its lowest priority that came
//! last, or, where bytes are short, with its largest body. Beyond its share a newcomer is refused,
//! unless it goes before something of its own tenant, which then gives way.
//!
//! So no tenant is kept out by another: as long as it asks for no more than its share, the others
//! together hold more than theirs whenever there is no room, so that one of them does, and is found.
//!
//! What has begun stands in no account. There is no more of it than there were slots.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::lines::Ticket;

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Requests.
    pub requests: usize,
    /// Bytes of their bodies. A body that is larger than this may wait when no other does.
    pub bytes: usize,
}

/// There is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// What waits and has not begun, by tenant.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Ledger {
    bounds: Bounds,
    requests: usize,
    bytes: usize,
    tenants: HashMap<Option<String>, Account>,
}

#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
struct Account {
    bytes: usize,
    /// By priority and order of arrival; whoever gives way first is first.
    waiting: BTreeMap<Rank, Arc<Ticket>>,
    /// By size; the largest is last.
    sizes: BTreeSet<(usize, Reverse<Rank>)>,
}

/// The lesser, the sooner it gives way.
type Rank = (i32, Reverse<u64>);

fn rank(ticket: &Ticket) -> Rank {
    (ticket.priority, Reverse(ticket.order))
}

impl Ledger {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            requests: 0,
            bytes: 0,
            tenants: HashMap::new(),
        }
    }

    /// Books `ticket`, and returns what gave way to it: it is booked no longer.
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

    /// Takes `ticket` out. Nothing happens when it is not there.
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

    /// Of what there would be too little with `ticket`, and these requests and bytes beside it.
    fn short(&self, ticket: &Ticket, requests: usize, bytes: usize) -> Short {
        Short {
            requests: requests >= self.bounds.requests,
            bytes: bytes > 0 && bytes.saturating_add(ticket.bytes) > self.bounds.bytes,
        }
    }

    /// Whether its tenant would hold no more than its share of what there is too little of.
    fn is_within_share(&self, ticket: &Ticket) -> bool {
        let account = self.tenants.get(&ticket.tenant);
        let tenants = self.tenants.len() + usize::from(account.is_none());
        let (requests, bytes) = account.map_or((0, 0), |account| (account.waiting.len(), account.bytes));
        let short = self.short(ticket, self.requests, self.bytes);
        (!short.requests || requests < self.bounds.requests / tenants)
            && (!short.bytes || bytes.saturating_add(ticket.bytes) <= self.bounds.bytes / tenants)
    }

    /// Takes out what gives way for `ticket` of the tenants that hold most.
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

    /// Takes out what of its own tenant goes behind `ticket` and gives way for it, if that is enough.
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
    /// The largest body; of equals, what gives way first.
    fn largest(&self) -> Option<&Arc<Ticket>> {
        let (_, Reverse(rank)) = self.sizes.last()?;
        self.waiting.get(rank)
    }
}

/// What there is too little of.
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
