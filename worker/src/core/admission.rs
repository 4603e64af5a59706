//! Which request runs, which waits, which is refused: slots, queue, and ids that were seen.
//!
//! Pure: it holds no stream and no engine. At most one attempt of an id is in it at any time, and
//! no more than `slots` hold a slot.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use tokenbus_protocol::RejectReason;
use uuid::Uuid;

use crate::core::recent_keys::Seen;

/// What admission must know of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    /// The request.
    pub(crate) id: Uuid,
    /// Its attempt.
    pub(crate) attempt: u32,
    /// The lowest attempt that its gateway still listens to.
    pub(crate) floor: u32,
    /// Higher is served earlier.
    pub(crate) priority: i32,
    /// Free slots that are kept for other gateways.
    pub(crate) kept: u32,
    /// Why the worker would not take it even with a free slot.
    pub(crate) obstacle: Option<RejectReason>,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has a slot.
    Run,
    /// It waits; the place counts from 1.
    Queue(u32),
    /// It is not taken.
    Reject(RejectReason),
    /// It was cancelled before it came: nobody waits for an answer.
    Forget,
}

/// A verdict, and the older attempt that gives way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The attempt under the same id that must be stopped first.
    pub(crate) stop: Option<u32>,
    /// What becomes of the new one.
    pub(crate) verdict: Verdict,
}

/// What a cancel meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cancelled {
    /// This attempt was here and is out now.
    Out(u32),
    /// Nothing of it is here; should the request come later, it is not run.
    Remembered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Order(Reverse<i32>, u64);

#[derive(Debug, Clone, Copy)]
enum Place {
    Slot,
    Queue(Order),
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    attempt: u32,
    place: Place,
}

/// Slots, queue and memory of one worker.
#[derive(Debug)]
pub(crate) struct Admission {
    slots: u32,
    queue_limit: u32,
    running: u32,
    entries: HashMap<Uuid, Entry>,
    queue: BTreeMap<Order, Uuid>,
    arrivals: u64,
    taken: Seen<(Uuid, u32), ()>,
    /// The newest attempt of each request that ran here to an end.
    ended: Seen<Uuid, u32>,
    cancelled: Seen<Uuid, u32>,
}

impl Admission {
    /// `slots` requests at once and `queue_limit` waiting, with a memory of `seen` requests and
    /// `cancels` cancels.
    pub(crate) fn new(slots: u32, queue_limit: u32, seen: usize, cancels: usize) -> Self {
        Self {
            slots,
            queue_limit,
            running: 0,
            entries: HashMap::new(),
            queue: BTreeMap::new(),
            arrivals: 0,
            taken: Seen::new(seen),
            ended: Seen::new(seen),
            cancelled: Seen::new(cancels),
        }
    }

    /// Sets the number of slots. What runs beyond it goes on.
    pub(crate) fn set_slots(&mut self, slots: u32) {
        self.slots = slots;
    }

    /// Requests with a slot.
    #[cfg(test)]
    pub(crate) fn running(&self) -> u32 {
        self.running
    }

    /// Requests that wait.
    pub(crate) fn queued(&self) -> u32 {
        u32::try_from(self.queue.len()).unwrap_or(u32::MAX)
    }

    /// Slots for which nothing waits here.
    pub(crate) fn free(&self) -> u32 {
        self.slots.saturating_sub(self.running).saturating_sub(self.queued())
    }

    /// Decides about a request. An id that runs here, or ran to an end, is looked at before any
    /// obstacle: its gateway only missed `Accepted`, or has given up on the older attempt.
    pub(crate) fn request(&mut self, ask: &Ask) -> Decision {
        let mut decision = Decision {
            stop: None,
            verdict: Verdict::Reject(RejectReason::Duplicate),
        };
        if self.taken.get(&(ask.id, ask.attempt)).is_some() {
            return decision;
        }
        let mut inherited = None;
        if let Some(entry) = self.entries.get(&ask.id).copied() {
            if entry.attempt >= ask.floor {
                return decision;
            }
            self.remove(ask.id);
            decision.stop = Some(entry.attempt);
            inherited = Some(entry.place);
        } else if self.ended.get(&ask.id).is_some_and(|ended| *ended >= ask.floor) {
            // Published while `Accepted` was awaited, and read behind an answer that was short.
            return decision;
        }
        decision.verdict = if self.cancelled.get(&ask.id).is_some_and(|upto| ask.attempt <= *upto) {
            Verdict::Forget
        } else if let Some(reason) = ask.obstacle {
            Verdict::Reject(reason)
        } else {
            self.place(ask, inherited)
        };
        decision
    }

    // An attempt that replaces another one keeps its place: it is the same request.
    fn place(&mut self, ask: &Ask, inherited: Option<Place>) -> Verdict {
        self.arrivals += 1;
        let last = Order(Reverse(ask.priority), self.arrivals);
        let place = match inherited {
            Some(place) => place,
            None if self.running.saturating_add(ask.kept) < self.slots && self.queue.is_empty() => Place::Slot,
            None if self.queued() < self.queue_limit => Place::Queue(last),
            None => return Verdict::Reject(RejectReason::Busy),
        };
        let attempt = ask.attempt;
        self.entries.insert(ask.id, Entry { attempt, place });
        self.taken.put((ask.id, attempt), (), |(), ()| {});
        match place {
            Place::Slot => {
                self.running += 1;
                Verdict::Run
            }
            Place::Queue(order) => {
                self.queue.insert(order, ask.id);
                let ahead = self.queue.range(..order).count();
                Verdict::Queue(u32::try_from(ahead).unwrap_or(u32::MAX).saturating_add(1))
            }
        }
    }

    /// An attempt has ended, however it did. False when it was out already: a slot is given back
    /// once.
    pub(crate) fn end(&mut self, id: Uuid, attempt: u32) -> bool {
        let here = self.entries.get(&id).is_some_and(|entry| entry.attempt == attempt);
        if here {
            self.remove(id);
            self.ended.put(id, attempt, |old, new| *old = (*old).max(new));
        }
        here
    }

    /// Cancels attempts up to `attempt` of `id`.
    pub(crate) fn cancel(&mut self, id: Uuid, attempt: u32) -> Cancelled {
        self.cancelled.put(id, attempt, |old, new| *old = (*old).max(new));
        match self.entries.get(&id).copied() {
            Some(entry) if entry.attempt <= attempt => {
                self.remove(id);
                Cancelled::Out(entry.attempt)
            }
            _ => Cancelled::Remembered,
        }
    }

    /// Gives a free slot to the first in the queue.
    pub(crate) fn promote(&mut self) -> Option<Uuid> {
        if self.running >= self.slots {
            return None;
        }
        let (_, id) = self.queue.pop_first()?;
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.place = Place::Slot;
            self.running += 1;
        }
        Some(id)
    }

    /// Those that wait, first one first.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.queue.values().copied()
    }

    fn remove(&mut self, id: Uuid) {
        match self.entries.remove(&id).map(|entry| entry.place) {
            Some(Place::Slot) => self.running = self.running.saturating_sub(1),
            Some(Place::Queue(order)) => {
                self.queue.remove(&order);
            }
            None => {}
        }
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
