//! The door of the waiting room: who enters, who is displaced, and when refused requests may come back.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::lines::WaitingRoom;
use super::occupancy::Bounds;
use super::service_rate::{Backlog, ServiceRate};
use super::ticket::Ticket;
use crate::limits::KNOWN_MODELS;

/// The waiting room, and how fast each model's requests end.
#[derive(Debug)]
pub(crate) struct Door<T> {
    /// The waiting room.
    pub room: WaitingRoom<T>,
    rates: HashMap<String, ServiceRate>,
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
    /// When to come back, if the room is full.
    pub(crate) fn enter(&mut self, ticket: &Ticket, waker: T, now: Instant) -> Result<Vec<Displaced<T>>, Duration> {
        let Ok(displaced) = self.room.enter(ticket, waker, now) else {
            return Err(self.retry_after(ticket, now));
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
