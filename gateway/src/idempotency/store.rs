//! Which keyed requests are known, pure: what a key means when it comes again, what is kept for how
//! long, and what goes first when room is short.
//!
//! What is kept of a request is opaque here; its bytes are told.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// What one known key costs beside its text and its answer: the entry and its place in two
/// collections, in bytes, generously.
pub const ENTRY: usize = 512;

/// A client's key. Keys of two tenants are never the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Whose.
    pub tenant: Option<String>,
    /// The header's value.
    pub key: String,
}

impl Key {
    fn weight(&self) -> usize {
        ENTRY + self.key.len() + self.tenant.as_ref().map_or(0, String::len)
    }
}

/// What tells one body from another: two hashes under random keys of this process. Only a tenant's
/// own bodies under one key are ever compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u64; 2]);

/// What the store may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Time that an answer is kept after its end.
    pub window: Duration,
    /// Keys, those of running requests included.
    pub entries: usize,
    /// Bytes of answers and keys, those of running requests included.
    pub bytes: usize,
}

/// What is known of a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Look<T> {
    /// Nothing, or nothing any more.
    Unknown,
    /// A request with this body, running or answered.
    Same(T),
    /// A request with another body.
    Other(T),
}

/// The known keys.
#[derive(Debug)]
pub struct Store<T> {
    bounds: Bounds,
    entries: HashMap<Arc<Key>, Entry<T>>,
    /// Answered requests, the oldest first.
    answered: VecDeque<Answered>,
    bytes: usize,
    next: u64,
}

#[derive(Debug)]
struct Entry<T> {
    id: u64,
    body: Fingerprint,
    value: T,
    bytes: usize,
    answered: bool,
}

#[derive(Debug)]
struct Answered {
    key: Arc<Key>,
    id: u64,
    until: Instant,
}

impl<T: Clone> Store<T> {
    /// An empty store.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            entries: HashMap::new(),
            answered: VecDeque::new(),
            bytes: 0,
            next: 0,
        }
    }

    /// What is known of `key` at `now`.
    pub fn look(&mut self, key: &Key, body: Fingerprint, now: Instant) -> Look<T> {
        self.expire(now);
        match self.entries.get(key) {
            None => Look::Unknown,
            Some(entry) if entry.body == body => Look::Same(entry.value.clone()),
            Some(entry) => Look::Other(entry.value.clone()),
        }
    }

    /// A request begins; whatever was known of its key is forgotten. Returns the number of this run,
    /// or `None` when there is no room: everything in the store still runs.
    pub fn begin(&mut self, key: &Arc<Key>, body: Fingerprint, value: T, now: Instant) -> Option<u64> {
        self.expire(now);
        if let Some(old) = self.entries.get(key).filter(|old| old.answered).map(|old| old.id) {
            self.answered.retain(|answered| answered.id != old);
        }
        self.remove(key);
        let bytes = key.weight();
        while self.entries.len() >= self.bounds.entries || self.bytes.saturating_add(bytes) > self.bounds.bytes {
            self.drop_oldest()?;
        }
        self.next += 1;
        let entry = Entry {
            id: self.next,
            body,
            value,
            bytes,
            answered: false,
        };
        self.bytes += bytes;
        self.entries.insert(Arc::clone(key), entry);
        Some(self.next)
    }

    /// The answer of run `id` has grown by `bytes`. Answered requests make room for it, the oldest
    /// first; when that is not enough the run is forgotten, and `false` says so.
    pub fn grow(&mut self, key: &Key, id: u64, bytes: usize) -> bool {
        let Some(entry) = self.run(key, id) else { return false };
        entry.bytes += bytes;
        self.bytes += bytes;
        while self.bytes > self.bounds.bytes {
            if self.drop_oldest().is_none() {
                self.remove(key);
                return false;
            }
        }
        true
    }

    /// Run `id` has its answer: it is kept for the window from `now` on.
    pub fn answered(&mut self, key: &Arc<Key>, id: u64, now: Instant) {
        let until = now + self.bounds.window;
        let Some(entry) = self.run(key, id) else { return };
        entry.answered = true;
        let key = Arc::clone(key);
        self.answered.push_back(Answered { key, id, until });
        self.expire(now);
    }

    /// Run `id` leaves nothing to be repeated.
    pub fn forget(&mut self, key: &Key, id: u64) {
        if self.run(key, id).is_some() {
            self.remove(key);
        }
    }

    /// Keys that are known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The entry of `key` while it is still the run `id`, unanswered.
    fn run(&mut self, key: &Key, id: u64) -> Option<&mut Entry<T>> {
        let entry = self.entries.get_mut(key)?;
        (entry.id == id && !entry.answered).then_some(entry)
    }

    fn expire(&mut self, now: Instant) {
        while self.answered.front().is_some_and(|oldest| oldest.until <= now) {
            self.drop_oldest();
        }
    }

    /// Forgets the request that was answered first; `None` when none was.
    fn drop_oldest(&mut self) -> Option<()> {
        let oldest = self.answered.pop_front()?;
        self.remove(&oldest.key);
        Some(())
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
