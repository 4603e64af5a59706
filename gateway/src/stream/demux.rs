//! The demultiplexer: finds a stream's inbox by the number in a frame.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;
use tokenbus_protocol::Name;
use uuid::Uuid;

use super::event::Event;
use super::inbox::Inbox;

/// Inboxes by stream number. The gateway assigns the numbers, so nobody can choose them to collide.
pub(crate) type Inboxes = FxHashMap<u64, Arc<Inbox>>;

/// The open streams of this gateway.
#[derive(Debug, Default)]
pub struct Streams {
    table: Mutex<Inboxes>,
    last: AtomicU64,
}

impl Streams {
    /// Opens a stream for `call`: a new number, and an inbox of at most `bound` bytes.
    pub fn open(&self, call: Uuid, bound: usize) -> (u64, Arc<Inbox>) {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let inbox = Arc::new(Inbox::new(call, bound));
        self.table().insert(number, Arc::clone(&inbox));
        (number, inbox)
    }

    /// Closes a stream; frames that still come for it are dropped.
    pub fn close(&self, number: u64) {
        self.table().remove(&number);
    }

    /// Lets `deliver` hand out the frames of one message under one lock of the table.
    pub fn with<T>(&self, deliver: impl FnOnce(&Inboxes) -> T) -> T {
        deliver(&self.table())
    }

    /// The inbox of stream `number`.
    pub fn get(&self, number: u64) -> Option<Arc<Inbox>> {
        self.table().get(&number).cloned()
    }

    /// Gives an event to every stream.
    pub fn broadcast(&self, event: &Event) {
        // Cloned first: waking a reader may run its code, which may lock the table.
        let inboxes: Vec<Arc<Inbox>> = self.table().values().cloned().collect();
        for inbox in inboxes {
            inbox.push(event.clone());
        }
    }

    /// Gives news of `worker` to each stream that it has or may have.
    pub fn broadcast_of(&self, worker: &Name, event: &Event) {
        let inboxes: Vec<Arc<Inbox>> = self.table().values().cloned().collect();
        for inbox in inboxes {
            inbox.push_of(worker, || event.clone());
        }
    }

    /// The number of open streams.
    pub fn len(&self) -> usize {
        self.table().len()
    }

    /// Whether no stream is open.
    #[cfg(any(test, feature = "testing"))]
    pub fn is_empty(&self) -> bool {
        self.table().is_empty()
    }

    // A panic under the lock cannot leave the map half-changed.
    fn table(&self) -> MutexGuard<'_, Inboxes> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
