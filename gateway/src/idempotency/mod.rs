//! Idempotent requests: the same key with the same body gets the same answer, while this gateway
//! holds it. See docs/idempotency.md.
//!
//! `store.rs` and `log.rs` decide (which keys are known; what one call has said), `run.rs` is the loop
//! that drives one keyed call, `recording.rs` is what requests read.

pub mod limits;
pub mod log;
mod recording;
mod run;
pub mod store;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokenbus_api::Identity;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use recording::{Reader, Recording};
pub use run::Run;
pub use store::Key;
use store::{Bounds, Fingerprint, Look, Store};

/// Settings of idempotent requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyOptions {
    /// Time that an answer is kept after its end; with none, only running calls are shared.
    pub window: Duration,
    /// Time for which a keyed call goes on without anybody who waits for it.
    pub linger: Duration,
    /// Keys that are known at a time.
    pub entries: usize,
    /// Bytes of all recorded answers together.
    pub bytes: usize,
    /// Bytes of one recorded answer.
    pub answer: usize,
}

impl Default for IdempotencyOptions {
    fn default() -> Self {
        Self {
            window: limits::WINDOW,
            linger: limits::LINGER,
            entries: limits::ENTRIES,
            bytes: limits::BYTES,
            answer: limits::ANSWER,
        }
    }
}

/// The keyed requests of one gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Idempotency(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: IdempotencyOptions,
    store: Mutex<Store<Arc<Recording>>>,
    hashers: [RandomState; 2],
    closing: CancellationToken,
}

/// A keyed request as it arrives.
#[derive(Debug)]
pub struct Keyed<'a> {
    /// Its key.
    pub key: Key,
    /// Where it was sent to: the same key at another endpoint is another request.
    pub endpoint: &'static str,
    /// Its body.
    pub body: &'a [u8],
    /// How its answer is named if it is the first.
    pub identity: &'a Identity,
    /// How long it waits at most if it is not.
    pub deadline: Instant,
    /// Choices that its API knows.
    pub choices: u32,
    /// Bytes that whoever reads its answer may be behind.
    pub behind: usize,
}

/// What is to be done with a keyed request.
#[derive(Debug)]
pub enum Claim {
    /// It is the first: open its call and start this.
    First(Box<Run>),
    /// It has been asked before: this is its answer, as far as it has come.
    Repeat(Reader),
    /// Its key was used for something else.
    Reused,
    /// Nothing can be kept: all that is known still runs. It is served as if it had no key.
    Crowded,
}

impl Idempotency {
    /// Nothing is known yet. Once `closing` is cancelled, calls that nobody waits for are cancelled
    /// at once: no repeat can come.
    pub fn new(options: IdempotencyOptions, closing: CancellationToken) -> Self {
        let bounds = Bounds {
            window: options.window,
            entries: options.entries,
            bytes: options.bytes,
        };
        Self(Arc::new(Inner {
            options,
            store: Mutex::new(Store::new(bounds)),
            hashers: [RandomState::new(), RandomState::new()],
            closing,
        }))
    }

    /// What to do with a request that arrives at `now`.
    pub fn claim(&self, request: Keyed<'_>, now: Instant) -> Claim {
        let hash = |state: &RandomState| state.hash_one((request.endpoint, request.body));
        let body = Fingerprint(self.0.hashers.each_ref().map(hash));
        let mut store = self.store();
        match store.look(&request.key, body, now) {
            Look::Unknown => {}
            Look::Same(recording) => {
                if let Some(reader) = recording.attach(request.deadline) {
                    return Claim::Repeat(reader);
                }
            }
            Look::Other(recording) => {
                if recording.log().is_repeatable() {
                    return Claim::Reused;
                }
            }
        }
        let bounds = log::Bounds {
            answer: self.0.options.answer,
            window: request.behind,
            choices: request.choices,
        };
        let (recording, first) = Recording::new(request.identity.clone(), bounds);
        let key = Arc::new(request.key);
        let Some(id) = store.begin(&key, body, Arc::clone(&recording), now) else {
            return Claim::Crowded;
        };
        Claim::First(Box::new(Run::new(self.clone(), key, id, recording, first)))
    }

    fn options(&self) -> &IdempotencyOptions {
        &self.0.options
    }

    fn closing(&self) -> &CancellationToken {
        &self.0.closing
    }

    /// The store. A recording's log may be locked while it is held, never the other way round.
    // A panic while the lock is held cannot leave the store half-changed.
    fn store(&self) -> MutexGuard<'_, Store<Arc<Recording>>> {
        self.0.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
