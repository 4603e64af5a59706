//! From one subscription to all streams: frames go to their stream's inbox by number.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;
use uuid::Uuid;

use super::event::Event;
use super::inbox::Inbox;

/// Inboxes by the number of their stream. The numbers are our own, so that nobody can choose them
/// to collide.
pub type Inboxes = FxHashMap<u64, Arc<Inbox>>;

/// The streams of this gateway that are alive.
#[derive(Debug, Default)]
pub struct Streams {
    table: Mutex<Inboxes>,
    last: AtomicU64,
}

impl Streams {
    /// Opens a stream for `call`: a number that was never used before, and its inbox of at most `bound`
    /// bytes.
    pub fn open(&self, call: Uuid, bound: usize) -> (u64, Arc<Inbox>) {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let inbox = Arc::new(Inbox::new(call, bound));
        self.table().insert(number, Arc::clone(&inbox));
        (number, inbox)
    }

    /// The stream has ended; what still comes for it goes nowhere.
    pub fn close(&self, number: u64) {
        self.table().remove(&number);
    }

    /// Lets `deliver` hand out what one message brought: one look-up of the table for all of it.
    pub fn with<T>(&self, deliver: impl FnOnce(&Inboxes) -> T) -> T {
        deliver(&self.table())
    }

    /// The inbox of stream `number`.
    pub fn get(&self, number: u64) -> Option<Arc<Inbox>> {
        self.table().get(&number).cloned()
    }

    /// Gives an event to every stream.
    pub fn broadcast(&self, event: &Event) {
        // Cloned out first: waking a reader may run its code, which may want the table.
        let inboxes: Vec<Arc<Inbox>> = self.table().values().cloned().collect();
        for inbox in inboxes {
            inbox.push(event.clone());
        }
    }

    /// Streams that are alive.
    pub fn len(&self) -> usize {
        self.table().len()
    }

    /// Whether no stream is alive.
    pub fn is_empty(&self) -> bool {
        self.table().is_empty()
    }

    // The table is a plain map: a panic elsewhere cannot leave it half-changed.
    fn table(&self) -> MutexGuard<'_, Inboxes> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
