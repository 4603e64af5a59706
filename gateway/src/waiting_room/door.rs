//! The door of the waiting room: who enters, who is displaced, and when refused requests may come back.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::lines::WaitingRoom;
use super::occupancy::Bounds;
use super::service_rate::{Backlog, ServiceRate};
use super::ticket::Ticket;
use crate::limits::{HOPELESS, KNOWN_MODELS, RETRY_AFTER};

/// The waiting room, and how fast each model's requests end.
#[derive(Debug)]
pub(crate) struct Door<T> {
    /// The waiting room.
    pub room: WaitingRoom<T>,
    rates: HashMap<String, ServiceRate>,
}

/// Why a request does not enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotAdmitted {
    /// There is no room.
    Full {
        /// When it should come back.
        retry_after: Duration,
    },
    /// It would wait in vain.
    TooLate {
        /// The expected wait for a slot.
        wait: Duration,
        /// When it should come back.
        retry_after: Duration,
    },
}

/// A waiting request that had to give up its place.
#[derive(Debug)]
pub(crate) struct Displaced<T> {
    /// What wakes it.
    pub waker: T,
    /// When it should come back.
    pub retry_after: Duration,
}

impl<T> Door<T> {
    /// An empty room.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            room: WaitingRoom::new(bounds),
            rates: HashMap::new(),
        }
    }

    /// Enters the room at `ticket`'s place. Returns the displaced requests, which the caller must tell.
    ///
    /// # Errors
    /// [`NotAdmitted`] if the room is full, or if the request cannot wait until it has its turn.
    pub(crate) fn enter(&mut self, ticket: &Ticket, waker: T, now: Instant) -> Result<Vec<Displaced<T>>, NotAdmitted> {
        if let Some(refused) = self.too_late(ticket, now) {
            return Err(refused);
        }
        let Ok(displaced) = self.room.enter(ticket, waker, now) else {
            let retry_after = self.retry_after(ticket, now);
            return Err(NotAdmitted::Full { retry_after });
        };
        if self.room.is_roomy()
            && let Some(rate) = self.rates.get_mut(&ticket.model)
        {
            rate.is_roomy();
        }
        let told = displaced.into_iter().map(|(ticket, waker)| Displaced {
            waker,
            retry_after: self.retry_after(&ticket, now),
        });
        Ok(told.collect())
    }

    /// Whether the limit of a new request ends long before its turn, as far as that is known.
    fn too_late(&mut self, ticket: &Ticket, now: Instant) -> Option<NotAdmitted> {
        let limit = ticket.limit.filter(|_| !ticket.begun)?;
        let ahead = self.room.ahead(ticket, now)?;
        let wait = self.rates.get(&ticket.model)?.wait(ahead)?;
        if limit >= wait.mul_f64(HOPELESS) {
            return None;
        }
        // By then the line is so short that half of the limit suffices, and those who were refused before are back.
        let shorter = wait.saturating_sub(limit / 2).min(*RETRY_AFTER.end());
        let retry_after = self.retry_after(ticket, now).max(shorter);
        Some(NotAdmitted::TooLate { wait, retry_after })
    }

    fn retry_after(&mut self, ticket: &Ticket, now: Instant) -> Duration {
        let backlog = Backlog {
            waiting: self.room.waiting(&ticket.model),
            tenants: self.room.tenants(),
        };
        let spread = fastrand::f64();
        match self.rate(&ticket.model) {
            Some(rate) => rate.retry_after(backlog, &ticket.tenant, now, spread),
            None => ServiceRate::default().retry_after(backlog, &ticket.tenant, now, spread),
        }
    }

    /// A worker is given a request for `model`.
    pub(crate) fn began(&mut self, model: &str, now: Instant) {
        if let Some(rate) = self.rate(model) {
            rate.began(now);
        }
    }

    /// No worker runs it any more; `ended` if none will again.
    pub(crate) fn over(&mut self, model: &str, since: Instant, ended: bool, now: Instant) {
        if let Some(rate) = self.rate(model) {
            rate.over(since, ended, now);
        }
    }

    fn rate(&mut self, model: &str) -> Option<&mut ServiceRate> {
        if !self.rates.contains_key(model) && self.rates.len() < KNOWN_MODELS {
            self.rates.insert(model.to_owned(), ServiceRate::default());
        }
        self.rates.get_mut(model)
    }
}
