//! Where a stream is between its client and a worker.

use tokenbus_protocol::Name;
use tokio::time::Instant;

use super::losses::Blame;
use crate::limits::DEATH_WITHIN;

/// Where a stream is between its client and a worker.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) enum Phase {
    /// The driver is choosing a worker.
    Choosing,
    /// Published; publishes again at `retry`.
    Placing { retry: Instant },
    /// In the waiting room, or waiting for the bus or a worker; looks again at `retry`.
    Waiting { retry: Instant },
    /// A worker runs it.
    Running(Run),
    /// Finished or failed.
    Done,
}

/// An attempt that was published and not answered yet.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct OpenAttempt {
    pub(super) attempt: u32,
    pub(super) target: Option<Name>,
}

/// An attempt that a worker accepted.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Run {
    pub(super) attempt: u32,
    pub(super) worker: Name,
    pub(super) instance: u64,
    pub(super) next_seq: u32,
    pub(super) resumable: bool,
    pub(super) heard: Instant,
    /// When it was accepted; `None` once there was output.
    pub(super) silent_since: Option<Instant>,
    /// The connection to the bus was lost during the run.
    pub(super) bus_was_away: bool,
}

impl Run {
    /// Whether an engine that dies at `now` died of the request, as far as one can tell.
    pub(super) fn is_death(&self, now: Instant) -> bool {
        self.silent_since.is_some_and(|since| now < since + DEATH_WITHIN)
    }

    /// Who is to blame for its loss: nobody if the bus was away.
    pub(super) fn blamed(&self, blame: Blame) -> Blame {
        if self.bus_was_away && blame == Blame::Worker {
            Blame::Nobody
        } else {
            blame
        }
    }
}
