//! How full the worker is, readable from every task without asking the loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokenbus_protocol::Room;
use tokio::sync::Notify;

/// Slots, running and waiting requests. Counts go up and down where things happen, so that the
/// frame that ends a stream already tells of its free slot.
#[derive(Debug, Default)]
pub(crate) struct Load {
    slots: AtomicU32,
    running: AtomicU32,
    queued: AtomicU32,
    accepting: AtomicBool,
    changed: Notify,
}

impl Load {
    /// Sets what does not change with each request.
    pub(crate) fn set_capacity(&self, slots: u32, accepting: bool) {
        self.slots.store(slots, Ordering::Relaxed);
        self.accepting.store(accepting, Ordering::Relaxed);
    }

    /// Sets the number of waiting requests.
    pub(crate) fn set_queued(&self, queued: u32) {
        if self.queued.swap(queued, Ordering::Relaxed) != queued {
            self.changed.notify_one();
        }
    }

    /// Takes a slot until the returned value is dropped.
    pub(crate) fn occupy(self: &Arc<Self>) -> Slot {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
        Slot(Arc::clone(self))
    }

    /// Requests that it runs at once.
    pub(crate) fn slots(&self) -> u32 {
        self.slots.load(Ordering::Relaxed)
    }

    /// Requests that run.
    pub(crate) fn running(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
    }

    /// Requests that wait.
    pub(crate) fn queued(&self) -> u32 {
        self.queued.load(Ordering::Relaxed)
    }

    /// The room for new requests; none while the worker takes none.
    pub(crate) fn room(&self) -> Room {
        let queued = self.queued();
        let taken = self.running().saturating_add(queued);
        let free = if self.accepting.load(Ordering::Relaxed) {
            self.slots().saturating_sub(taken)
        } else {
            0
        };
        Room { free, queued }
    }

    /// Waits for the next change of running or waiting requests. One task may wait.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// A slot that is taken; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Slot(Arc<Load>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_follows_slots_and_queue() {
        let load = Arc::new(Load::default());
        load.set_capacity(2, true);
        let first = load.occupy();
        let second = load.occupy();
        assert_eq!(load.room(), Room { free: 0, queued: 0 });
        load.set_queued(1);
        drop(first);
        assert_eq!(load.room(), Room { free: 0, queued: 1 }, "the waiting one takes it");
        load.set_queued(0);
        assert_eq!(load.room(), Room { free: 1, queued: 0 });
        drop(second);
        load.set_capacity(2, false);
        assert_eq!(load.room(), Room::default(), "draining");
    }
}
