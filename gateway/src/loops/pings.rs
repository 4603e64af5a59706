//! Pings that await an answer.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokenbus_protocol::Name;
use tokio::time::Instant;

/// Stream number in the reply subjects of pings. No stream has it.
pub(super) const PING_STREAM: u64 = 0;

/// Pings that await an answer, each with its number, its worker and its time.
#[derive(Debug, Default)]
pub(crate) struct Pings(Mutex<VecDeque<(u32, Name, Instant)>>);

/// How many pings to remember. An answer comes within a round trip or not at all.
const PINGS: usize = 1024;

impl Pings {
    fn table(&self) -> MutexGuard<'_, VecDeque<(u32, Name, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, number: u32, worker: Name) {
        let mut table = self.table();
        if table.len() >= PINGS {
            table.pop_front();
        }
        table.push_back((number, worker, Instant::now()));
    }

    /// `worker` answers the ping with `number`: the worker that was pinged, and when. Forgets the ping. Another worker's
    /// answer counts for nothing.
    pub(super) fn answered(&self, number: u32, worker: &Name) -> Option<(Name, Instant)> {
        self.take(|ping, pinged| ping == number && pinged == worker)
    }

    /// NATS knows nobody who could answer the ping with `number`. Forgets the ping.
    pub(super) fn unanswered(&self, number: u32) -> Option<(Name, Instant)> {
        self.take(|ping, _| ping == number)
    }

    fn take(&self, is: impl Fn(u32, &Name) -> bool) -> Option<(Name, Instant)> {
        let mut table = self.table();
        let at = table.iter().position(|(ping, worker, _)| is(*ping, worker))?;
        table.remove(at).map(|(_, worker, at)| (worker, at))
    }
}
