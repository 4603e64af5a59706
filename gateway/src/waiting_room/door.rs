//! The door of the waiting room: who is let in, who has to give way, and when they are to come back.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::lines::{Ticket, WaitingRoom};
use super::occupancy::Bounds;
use super::service_rate::{DrainRate, Queue};
use crate::limits::KNOWN_MODELS;

/// The waiting room, and how fast each model's line moves.
#[derive(Debug)]
pub struct Door<T> {
    /// The room.
    pub room: WaitingRoom<T>,
    drains: HashMap<String, DrainRate>,
}

/// A request that waited and had to give way.
#[derive(Debug)]
pub struct Displaced<T> {
    /// What wakes it.
    pub waker: T,
    /// When it should come back.
    pub retry_after: Duration,
}

impl<T> Door<T> {
    /// An empty room.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            room: WaitingRoom::new(bounds),
            drains: HashMap::new(),
        }
    }

    /// Waits at `ticket`'s place; what had to give way is to be told so.
    ///
    /// # Errors
    /// When to come back, where there is no room.
    pub fn enter(&mut self, ticket: &Ticket, waker: T, now: Instant) -> Result<Vec<Displaced<T>>, Duration> {
        let Ok(displaced) = self.room.enter(ticket, waker) else {
            return Err(self.retry_after(ticket, now));
        };
        if self.room.is_roomy()
            && let Some(drain) = self.drains.get_mut(&ticket.model)
        {
            drain.is_roomy();
        }
        let told = displaced.into_iter().map(|(ticket, waker)| Displaced {
            waker,
            retry_after: self.retry_after(&ticket, now),
        });
        Ok(told.collect())
    }

    fn retry_after(&mut self, ticket: &Ticket, now: Instant) -> Duration {
        let queue = Queue {
            waiting: self.room.waiting(&ticket.model),
            tenants: self.room.tenants(),
        };
        let spread = fastrand::f64();
        match self.drain(&ticket.model) {
            Some(drain) => drain.retry_after(queue, &ticket.tenant, now, spread),
            None => DrainRate::default().retry_after(queue, &ticket.tenant, now, spread),
        }
    }

    /// A worker is given a request for `model`.
    pub fn began(&mut self, model: &str, now: Instant) {
        if let Some(drain) = self.drain(model) {
            drain.began(now);
        }
    }

    /// No worker has it any more; `ended` when none will again.
    pub fn over(&mut self, model: &str, since: Instant, ended: bool, now: Instant) {
        if let Some(drain) = self.drain(model) {
            drain.over(since, ended, now);
        }
    }

    fn drain(&mut self, model: &str) -> Option<&mut DrainRate> {
        if !self.drains.contains_key(model) && self.drains.len() < KNOWN_MODELS {
            self.drains.insert(model.to_owned(), DrainRate::default());
        }
        self.drains.get_mut(model)
    }
}
