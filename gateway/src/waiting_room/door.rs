//! The door of the waiting room: who enters, who is displaced, and when refused requests may come back.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::crowd::Crowd;
use super::lines::WaitingRoom;
use super::occupancy::Bounds;
use super::service_rate::{Backlog, ServiceRate};
use super::ticket::Ticket;
use crate::limits::{HOPELESS, KNOWN_MODELS, RETRY_AFTER};

/// The waiting room, how fast each model's requests end, and how long its clients wait.
#[derive(Debug)]
pub(crate) struct Door<T> {
    /// The waiting room.
    pub room: WaitingRoom<T>,
    models: HashMap<String, Pace>,
}

/// What is known of one model's requests.
#[derive(Debug, Default)]
struct Pace {
    /// How fast they end.
    rate: ServiceRate,
    /// How those behave that wait.
    crowd: Crowd,
}

/// Why a request does not enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotAdmitted {
    /// There is no room, or the line is as long as clients wait at present.
    Full {
        /// When it should come back.
        retry_after: Duration,
    },
    /// Like `Full`; but clients that were told so came back too early. It should ask again after a pause, outside the room.
    Later,
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
            models: HashMap::new(),
        }
    }

    /// Enters the room at `ticket`'s place. Returns the displaced requests, which the caller must tell.
    ///
    /// # Errors
    /// [`NotAdmitted`] if there is no place, or if the request cannot wait until it has its turn.
    pub(crate) fn enter(&mut self, ticket: &Ticket, waker: T, now: Instant) -> Result<Vec<Displaced<T>>, NotAdmitted> {
        if let Some(refused) = self.too_late(ticket, now) {
            return Err(refused);
        }
        if self.outlasts_patience(ticket, now) {
            let at_once = self.pace(&ticket.model).is_none_or(|pace| pace.crowd.refuse(now));
            if !at_once && !ticket.paused {
                return Err(NotAdmitted::Later);
            }
            let retry_after = self.retry_after(ticket, now);
            return Err(NotAdmitted::Full { retry_after });
        }
        let Ok(displaced) = self.room.enter(ticket, waker, now) else {
            let retry_after = self.retry_after(ticket, now);
            return Err(NotAdmitted::Full { retry_after });
        };
        if self.room.is_roomy()
            && let Some(pace) = self.models.get_mut(&ticket.model)
            && pace.crowd.patience(now).is_none()
        {
            pace.rate.is_roomy();
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
        let wait = self.models.get(&ticket.model)?.rate.wait(ahead)?;
        if limit >= wait.mul_f64(HOPELESS) {
            return None;
        }
        // By then the line is so short that half of the limit suffices, and those who were refused before are back.
        let shorter = wait.saturating_sub(limit / 2).min(*RETRY_AFTER.end());
        let retry_after = self.retry_after(ticket, now).max(shorter);
        Some(NotAdmitted::TooLate { wait, retry_after })
    }

    /// Whether a new request would wait longer than those do that leave at present: half of their patience, because its
    /// client wants to see the answer too. A wait of one run is never too long, whatever is believed of the crowd, so a
    /// free slot always finds somebody.
    fn outlasts_patience(&mut self, ticket: &Ticket, now: Instant) -> bool {
        if ticket.begun || ticket.limit.is_none() {
            return false;
        }
        let Some(pace) = self.models.get_mut(&ticket.model) else {
            return false;
        };
        let Some(patience) = pace.crowd.patience(now) else {
            return false;
        };
        let within = patience.as_secs_f64() / 2.0 / pace.rate.between(now);
        let enough = (within as usize).max(pace.rate.slots());
        self.room.before(ticket, enough) >= enough
    }

    fn retry_after(&mut self, ticket: &Ticket, now: Instant) -> Duration {
        let backlog = Backlog {
            waiting: self.room.waiting(&ticket.model),
            tenants: self.room.tenants(),
        };
        let spread = fastrand::f64();
        match self.pace(&ticket.model) {
            Some(pace) => pace.rate.retry_after(backlog, &ticket.tenant, now, spread),
            None => ServiceRate::default().retry_after(backlog, &ticket.tenant, now, spread),
        }
    }

    /// A worker is given a request for `model`.
    pub(crate) fn began(&mut self, model: &str, now: Instant) {
        if let Some(pace) = self.pace(model) {
            pace.rate.began(now);
        }
    }

    /// The client of a waiting request has left.
    pub(crate) fn give_up(&mut self, ticket: &Ticket, now: Instant) {
        if self.room.give_up(ticket, now) {
            self.left(ticket, now);
        }
    }

    /// The client of a request that had waited has left without any answer.
    pub(crate) fn left(&mut self, ticket: &Ticket, now: Instant) {
        if let Some(pace) = self.pace(&ticket.model) {
            pace.crowd.left(now.saturating_duration_since(ticket.since), now);
        }
    }

    /// No worker runs it any more; `ended` if none will again.
    pub(crate) fn over(&mut self, model: &str, since: Instant, ended: bool, now: Instant) {
        if let Some(pace) = self.pace(model) {
            pace.rate.over(since, ended, now);
            if ended {
                pace.crowd.answered(now);
            }
        }
    }

    fn pace(&mut self, model: &str) -> Option<&mut Pace> {
        if !self.models.contains_key(model) && self.models.len() < KNOWN_MODELS {
            self.models.insert(model.to_owned(), Pace::default());
        }
        self.models.get_mut(model)
    }
}
