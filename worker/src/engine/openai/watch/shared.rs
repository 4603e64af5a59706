//! What the jobs of an engine and its monitor share.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::breaker::{Admission, Breaker, Circuit};
use super::catalog::Catalog;
use crate::engine::openai::manner::{Lessons, Manner, Sent};
use crate::engine::openai::options::Streaming;
use crate::engine::openai::wire::client::Client;

/// The server as the jobs see it.
pub(crate) struct Shared {
    /// Sends requests.
    pub(crate) client: Client,
    catalog: RwLock<Arc<Catalog>>,
    breaker: Mutex<Breaker>,
    streaming: Streaming,
    lessons: Mutex<Lessons>,
    /// Wakes the monitor.
    news: Notify,
    connection_failed: AtomicBool,
    epoch: Instant,
    /// Milliseconds after `epoch`, plus one; 0: never.
    last_output: AtomicU64,
}

impl Shared {
    pub(crate) fn new(client: Client, catalog: Catalog, streaming: Streaming) -> Self {
        Self {
            client,
            catalog: RwLock::new(Arc::new(catalog)),
            breaker: Mutex::new(Breaker::new()),
            streaming,
            lessons: Mutex::new(Lessons::default()),
            news: Notify::new(),
            connection_failed: AtomicBool::new(false),
            epoch: Instant::now(),
            last_output: AtomicU64::new(0),
        }
    }

    /// The models, as known now.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_catalog(&self, catalog: Catalog) {
        *self.catalog.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(catalog);
    }

    /// How to ask the server for its model `upstream`, and the added members that it is known to take.
    pub(crate) fn manner(&self, upstream: &str) -> (Manner, BTreeSet<String>) {
        let (manner, proven) = self.lessons().of(upstream, Instant::now());
        let streaming = self.streaming;
        (Manner { streaming, ..manner }, proven)
    }

    /// The server took a request that was asked in `manner`.
    pub(crate) fn worked(&self, upstream: &str, manner: &Manner, sent: &Sent) {
        if self.lessons().worked(upstream, manner, sent, Instant::now()) {
            let (without, whole) = (&manner.without, manner.whole);
            tracing::info!(model = upstream, ?without, in_one_piece = ?whole, "the engine refuses this: it is asked otherwise from now on");
        }
    }

    fn lessons(&self) -> MutexGuard<'_, Lessons> {
        self.lessons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server has sent output.
    pub(crate) fn output_came(&self) {
        let millis = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.last_output.store(millis + 1, Ordering::Relaxed);
    }

    /// When the server last sent output.
    pub(crate) fn last_output(&self) -> Option<Instant> {
        let millis = self.last_output.load(Ordering::Relaxed).checked_sub(1)?;
        self.epoch.checked_add(Duration::from_millis(millis))
    }

    /// A connection could not be made, or broke.
    pub(crate) fn connection_failed(&self) {
        self.connection_failed.store(true, Ordering::Release);
        self.news.notify_one();
    }

    /// An answer hints that the server is not what it was (its model is gone, it is loading).
    pub(crate) fn look_again(&self) {
        self.news.notify_one();
    }

    /// Waits for one of these.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// Whether a connection has failed since the last call.
    pub(crate) fn take_connection_failed(&self) -> bool {
        self.connection_failed.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn circuit(&self, now: Instant) -> Circuit {
        self.breaker().circuit(now)
    }

    /// Asks the circuit breaker for leave to send; `None` when it is open. The permit must be told
    /// the outcome; dropped without, the request proved nothing.
    pub(crate) fn permit(self: &Arc<Self>, now: Instant) -> Option<Permit> {
        let trial = match self.breaker().admit(now) {
            Admission::Flows => false,
            Admission::Trial => true,
            Admission::Refused => return None,
        };
        Some(Permit {
            shared: self.clone(),
            trial,
            told: false,
        })
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to send one request.
pub(crate) struct Permit {
    shared: Arc<Shared>,
    trial: bool,
    told: bool,
}

impl Permit {
    /// The server behaved as a healthy one does.
    pub(crate) fn success(mut self) {
        self.told = true;
        if self.shared.breaker().success() {
            self.shared.news.notify_one();
        }
    }

    /// The server failed.
    pub(crate) fn failure(mut self, now: Instant) {
        self.told = true;
        if self.shared.breaker().failure(now) {
            self.shared.news.notify_one();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.trial && !self.told {
            self.shared.breaker().abandoned();
        }
    }
}
