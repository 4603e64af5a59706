//! A bucket that requests need, opened once per connection.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::kv::Store;
use tokenbus_bus::{Bus, FoundStream, StreamError, Streams, WantedStream};
use tokio::time::{Instant, timeout};

use super::error::{StoreError, failed};
use super::limits;

#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) bus: Bus,
    streams: Streams,
    name: String,
    wanted: WantedStream,
    /// What the log says when it cannot be opened.
    without: &'static str,
    opened: Mutex<Opened>,
}

/// The result of opening the bucket on the present connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Opened {
    epoch: u64,
    pub(super) store: Option<Open>,
    failed: Option<(Instant, StoreError)>,
}

/// The open bucket, and when it was last checked.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) store: Store,
    pub(super) found: FoundStream,
    at: Instant,
}

impl Bucket {
    pub(super) fn new(bus: Bus, name: String, wanted: WantedStream, without: &'static str) -> Self {
        Self {
            streams: bus.streams(limits::OPERATION),
            bus,
            name,
            wanted,
            without,
            opened: Mutex::default(),
        }
    }

    pub(super) async fn store(&self) -> Result<Open, StoreError> {
        let link = self.bus.link().borrow().clone();
        if !link.connected {
            return Err(StoreError::Failed("NATS is not reachable".to_owned()));
        }
        let known = self.opened().clone();
        // Another server may have JetStream where this one has not.
        if known.epoch == link.epoch {
            if let Some(open) = known.store.filter(|open| open.at.elapsed() < limits::CHECK) {
                return Ok(open);
            }
            if let Some((_, error)) = known.failed.filter(|(at, error)| at.elapsed() < pause(error)) {
                return Err(error);
            }
        }
        // Several requests may open it at once. They all create the same bucket.
        let opened = self.open().await;
        let mut told = self.opened();
        told.epoch = link.epoch;
        match &opened {
            Ok(open) => {
                told.store = Some(open.clone());
                told.failed = None;
            }
            Err(error) => {
                told.store = None;
                let before = told.failed.replace((Instant::now(), error.clone()));
                if before.is_none() {
                    tracing::info!(%error, bucket = self.name, "{}", self.without);
                }
            }
        }
        opened
    }

    /// What is open may have gone: the next operation opens it anew.
    pub(super) fn doubt(&self) {
        self.opened().store = None;
    }

    fn opened(&self) -> std::sync::MutexGuard<'_, Opened> {
        // No code that runs under this lock can leave it half-changed.
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self) -> Result<Open, StoreError> {
        match timeout(limits::OPEN, self.ensure()).await {
            Ok(open) => open,
            Err(_) => Err(StoreError::Failed("JetStream did not answer".to_owned())),
        }
    }

    async fn ensure(&self) -> Result<Open, StoreError> {
        let opened = self.streams.ensure_bucket(&self.name, &self.wanted).await;
        let absent = |error: StreamError| StoreError::Absent(error.to_string());
        let open = |(store, found)| Open {
            store,
            found,
            at: Instant::now(),
        };
        opened.map(open).map_err(|error| match error {
            StreamError::Silent | StreamError::Gone(_) => failed(error),
            StreamError::Absent(_) | StreamError::NoRoom { .. } | StreamError::Refused { .. } => absent(error),
        })
    }
}

/// How long a bucket that could not be opened is not tried again.
fn pause(error: &StoreError) -> Duration {
    match error {
        StoreError::Absent(_) => limits::RETRY,
        StoreError::Failed(_) | StoreError::TooLarge(_) => limits::RETRY_SOON,
    }
}
