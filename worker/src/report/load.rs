//! How full the worker is, readable from every task without asking the loop.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokenbus_protocol::Room;
use tokio::sync::Notify;

use crate::report::reading::Readings;

/// Slots, running and waiting requests. Counts go up and down where things happen, so that the
/// frame that ends a stream already tells of its free slot.
#[derive(Debug, Default)]
pub(crate) struct Load {
    slots: AtomicU32,
    running: AtomicU32,
    queued: AtomicU32,
    accepting: AtomicBool,
    /// Free slots go to waiting gateways in turn.
    by_turns: AtomicBool,
    changed: Notify,
    models: Mutex<BTreeMap<String, Arc<Share>>>,
    readings: OnceLock<Arc<Readings>>,
}

/// What one model has of the worker.
#[derive(Debug, Default)]
pub(crate) struct Share {
    running: AtomicU32,
    queued: AtomicU32,
    tokens: AtomicU64,
}

impl Share {
    /// Books completion tokens.
    pub(crate) fn generated(&self, tokens: u64) {
        self.tokens.fetch_add(tokens, Ordering::Relaxed);
    }

    /// Its requests that run.
    pub(crate) fn running(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
    }

    /// Its requests that wait.
    pub(crate) fn queued(&self) -> u32 {
        self.queued.load(Ordering::Relaxed)
    }

    /// Its completion tokens since the start.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }
}

impl Load {
    /// Sets what does not change with each request.
    pub(crate) fn set_capacity(&self, slots: u32, accepting: bool) {
        self.slots.store(slots, Ordering::Relaxed);
        self.accepting.store(accepting, Ordering::Relaxed);
    }

    /// Has its room tell what the engine has to read.
    pub(crate) fn set_readings(&self, readings: &Arc<Readings>) {
        let _ = self.readings.set(Arc::clone(readings));
    }

    /// Sets whether free slots go to waiting gateways in turn. They are then free only for whom they are kept.
    pub(crate) fn set_by_turns(&self, by_turns: bool) {
        self.by_turns.store(by_turns, Ordering::Relaxed);
    }

    /// Sets the number of waiting requests.
    pub(crate) fn set_queued(&self, queued: u32) {
        if self.queued.swap(queued, Ordering::Relaxed) != queued {
            self.changed.notify_one();
        }
    }

    /// Sets the models; those that were there before keep their counts.
    pub(crate) fn set_models<'m>(&self, names: impl Iterator<Item = &'m str>) {
        let mut models = self.models();
        let known = std::mem::take(&mut *models);
        models.extend(names.map(|name| (name.to_owned(), known.get(name).cloned().unwrap_or_default())));
    }

    /// The share of a model. One that the worker does not serve has a share of which nobody hears.
    pub(crate) fn share(&self, model: &str) -> Arc<Share> {
        self.models().get(model).cloned().unwrap_or_default()
    }

    /// The models and their shares, by name.
    pub(crate) fn shares(&self) -> Vec<(String, Arc<Share>)> {
        let models = self.models();
        models
            .iter()
            .map(|(name, share)| (name.clone(), Arc::clone(share)))
            .collect()
    }

    /// Takes a slot for a request of `share`'s model, until the returned value is dropped.
    pub(crate) fn occupy(self: &Arc<Self>, share: &Arc<Share>) -> Place {
        self.running.fetch_add(1, Ordering::Relaxed);
        share.running.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
        Place {
            load: Arc::clone(self),
            share: Arc::clone(share),
            has_slot: true,
        }
    }

    /// Lets a request of `share`'s model wait, until the returned value is dropped.
    pub(crate) fn queue(self: &Arc<Self>, share: &Arc<Share>) -> Place {
        share.queued.fetch_add(1, Ordering::Relaxed);
        Place {
            load: Arc::clone(self),
            share: Arc::clone(share),
            has_slot: false,
        }
    }

    // Nothing panics while it is held.
    fn models(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Share>>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// The room for a gateway for which `kept` slots are kept.
    pub(crate) fn room_with(&self, kept: u32) -> Room {
        let room = self.room();
        let free = if self.by_turns.load(Ordering::Relaxed) {
            room.free.min(kept)
        } else {
            room.free
        };
        Room { free, ..room }
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
        Room {
            free,
            queued,
            pending: self.readings.get().map(|readings| readings.pending()),
        }
    }

    /// Waits for the next change of running or waiting requests. One task may wait.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// A slot that is taken, or a place in the queue; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    load: Arc<Load>,
    share: Arc<Share>,
    has_slot: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.has_slot {
            self.load.running.fetch_sub(1, Ordering::Relaxed);
            self.share.running.fetch_sub(1, Ordering::Relaxed);
        } else {
            self.share.queued.fetch_sub(1, Ordering::Relaxed);
        }
        self.load.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_follows_slots_and_queue() {
        let load = Arc::new(Load::default());
        load.set_capacity(2, true);
        let share = load.share("m");
        let first = load.occupy(&share);
        let second = load.occupy(&share);
        assert_eq!(
            load.room(),
            Room {
                free: 0,
                queued: 0,
                pending: None
            }
        );
        load.set_queued(1);
        drop(first);
        assert_eq!(
            load.room(),
            Room {
                free: 0,
                queued: 1,
                pending: None
            },
            "the waiting one takes it"
        );
        load.set_queued(0);
        assert_eq!(
            load.room(),
            Room {
                free: 1,
                queued: 0,
                pending: None
            }
        );
        drop(second);
        load.set_by_turns(true);
        let free = |kept| load.room_with(kept).free;
        assert_eq!((load.room().free, free(0), free(1), free(9)), (2, 0, 1, 2));
        load.set_capacity(2, false);
        assert_eq!(load.room(), Room::default(), "draining");
    }

    #[test]
    fn each_model_has_its_share_and_together_they_are_the_whole() {
        let load = Arc::new(Load::default());
        load.set_models(["a", "b"].into_iter());
        let (a, b) = (load.share("a"), load.share("b"));
        let places = [load.occupy(&a), load.occupy(&b), load.occupy(&b), load.queue(&a)];
        b.generated(7);
        let told = || -> Vec<_> {
            let shares = load.shares().into_iter();
            shares
                .map(|(name, share)| (name, share.running(), share.queued(), share.tokens()))
                .collect()
        };
        assert_eq!(told(), [("a".to_owned(), 1, 1, 0), ("b".to_owned(), 2, 0, 7)]);
        assert_eq!(load.running(), 3);
        load.set_models(["b", "c"].into_iter());
        assert_eq!(told(), [("b".to_owned(), 2, 0, 7), ("c".to_owned(), 0, 0, 0)]);
        drop(places);
        assert_eq!(told(), [("b".to_owned(), 0, 0, 7), ("c".to_owned(), 0, 0, 0)]);
        assert_eq!((load.running(), load.share("unknown").running()), (0, 0));
    }
}
