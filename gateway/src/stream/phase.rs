//! Where a stream is between its client and a worker.

use tokenbus_protocol::Name;
use tokio::time::Instant;

use super::losses::Blame;

/// Where a stream is between its client and a worker.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) enum Phase {
    /// The driver is choosing.
    Choosing,
    /// Published; the next try at this time.
    Placing { retry: Instant },
    /// In the waiting room, or waiting for the bus or a worker; looks again at this time.
    Waiting { retry: Instant },
    /// A worker has it.
    Running(Run),
    /// Finished or failed.
    Done,
}

/// An attempt that was published and not answered.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Open {
    pub(super) attempt: u32,
    pub(super) target: Option<Name>,
}

/// An attempt that a worker has.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Run {
    pub(super) attempt: u32,
    pub(super) worker: Name,
    pub(super) instance: u64,
    pub(super) next_seq: u32,
    pub(super) resumable: bool,
    pub(super) heard: Instant,
    /// The connection to the bus was lost while it ran.
    pub(super) bus_was_away: bool,
}

impl Run {
    /// Who is to blame for its loss, by what is known of the bus.
    pub(super) fn blamed(&self, blame: Blame) -> Blame {
        if self.bus_was_away && blame == Blame::Worker {
            Blame::Nobody
        } else {
            blame
        }
    }
}
