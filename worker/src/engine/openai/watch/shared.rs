//! What the jobs of an engine and its monitor share.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::breaker::{Admission, Breaker, Circuit};
use super::catalog::Catalog;
use super::pulse::Pulse;
use super::question::{Topic, Verdict};
use crate::engine::openai::limits::LOST_AFTER;
use crate::engine::openai::manner::{Lessons, Manner, Sent};
use crate::engine::openai::options::Streaming;
use crate::engine::openai::wire::client::Client;

/// The server as the jobs see it.
pub(crate) struct Shared {
    /// Sends requests.
    pub(crate) client: Client,
    /// How its streams flow.
    pub(crate) pulse: Pulse,
    catalog: RwLock<Arc<Catalog>>,
    breaker: Mutex<Breaker>,
    streaming: Streaming,
    lessons: Mutex<Lessons>,
    /// Wakes the monitor.
    news: Notify,
    connection_failed: AtomicBool,
    unsaid_told: AtomicBool,
    epoch: Instant,
    /// Milliseconds after `epoch`, plus one; 0: never.
    last_output: AtomicU64,
    /// The same for the first of the probes in a row whose connection was refused.
    refused_since: AtomicU64,
}

impl Shared {
    pub(crate) fn new(client: Client, catalog: Catalog, streaming: Streaming, pulse: Pulse) -> Self {
        Self {
            client,
            pulse,
            catalog: RwLock::new(Arc::new(catalog)),
            breaker: Mutex::new(Breaker::new()),
            streaming,
            lessons: Mutex::new(Lessons::default()),
            news: Notify::new(),
            connection_failed: AtomicBool::new(false),
            unsaid_told: AtomicBool::new(false),
            epoch: Instant::now(),
            last_output: AtomicU64::new(0),
            refused_since: AtomicU64::new(0),
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

    /// The server has sent output at `now`.
    pub(crate) fn output_came(&self, now: Instant) {
        self.last_output.store(self.stamp(now), Ordering::Relaxed);
    }

    /// A probe's connection was refused, or one was made.
    pub(crate) fn refused(&self, refused: bool) {
        let (now, since) = (self.stamp(Instant::now()), &self.refused_since);
        if !refused {
            since.store(0, Ordering::Relaxed);
        } else if since.load(Ordering::Relaxed) == 0 {
            since.store(now, Ordering::Relaxed);
        }
    }

    /// Whether the server's open streams will bring nothing any more: for a while it has taken no connection
    /// and sent no output. vLLM may leave its streams so when it is told to end.
    pub(crate) fn is_lost(&self, now: Instant) -> bool {
        let quiet = |stamp: u64| self.stamp(now).saturating_sub(stamp) >= millis(LOST_AFTER);
        let refused = self.refused_since.load(Ordering::Relaxed);
        refused != 0 && quiet(refused) && quiet(self.last_output.load(Ordering::Relaxed))
    }

    /// `at` as milliseconds after `epoch`, plus one.
    fn stamp(&self, at: Instant) -> u64 {
        millis(at.saturating_duration_since(self.epoch)).saturating_add(1)
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

    /// The server ended an answer with `[DONE]` and no finish reason. This is logged once.
    pub(crate) fn unsaid_finish(&self) {
        if !self.unsaid_told.swap(true, Ordering::Relaxed) {
            tracing::warn!("the engine ends its answers without a finish reason; they count as complete at [DONE]");
        }
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

    /// What the server is to be asked, because it answered many requests with errors of its own.
    pub(crate) fn suspect(&self) -> Option<Topic> {
        self.breaker().suspect().cloned()
    }

    /// It was asked.
    pub(crate) fn asked(&self, verdict: Verdict, now: Instant) {
        if self.breaker().asked(verdict, now) {
            tracing::info!(
                ?verdict,
                "the engine answered many requests with errors of its own, and was asked itself"
            );
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
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

    /// The server answered this request, by its hash, with an error of its own.
    pub(crate) fn failed_on(mut self, request: u64, topic: Topic, now: Instant) {
        self.told = true;
        if self.shared.breaker().failed_on(request, topic, now) {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::engine::Overrides;
    use crate::engine::openai::options::ApiKey;
    use crate::engine::openai::wire::client::Base;
    use crate::engine::openai::wire::credentials::Credentials;

    #[test]
    fn a_server_that_refuses_and_is_silent_is_lost_after_a_while() {
        let credentials = Credentials::load(ApiKey::None).unwrap();
        let client = Client::new(Base::parse("http://h/v1").unwrap(), credentials).unwrap();
        let shared = Shared::new(
            client,
            Catalog::unknown(&[], Overrides::default()),
            Streaming::default(),
            Pulse::new(None, None),
        );
        let (now, later) = (Instant::now(), Instant::now() + LOST_AFTER * 2);
        assert!(!shared.is_lost(later), "it listens");
        shared.refused(true);
        assert!(!shared.is_lost(now), "it may be starting again");
        shared.output_came(Instant::now());
        assert!(!shared.is_lost(now), "its streams flow");
        assert!(shared.is_lost(later));
        shared.refused(false);
        assert!(!shared.is_lost(later));
    }
}
