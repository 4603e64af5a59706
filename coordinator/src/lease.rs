//! The leader's lease: one key in a JetStream key-value bucket, taken and renewed by compare-and-set.
//!
//! The bucket `{ns}_coordinator` drops a key two seconds after its last renewal, so the lease is free exactly when
//! the key is absent. An existing bucket (made by an operator, say) keeps its settings; only this age is set, and
//! its replicas are raised. The bucket is kept in memory: a lease that survived a restart of NATS would only delay
//! the next leader.

use std::time::{Duration, Instant};

use async_nats::jetstream::kv::{CreateErrorKind, Operation, Store, UpdateErrorKind};
use async_nats::jetstream::{kv, stream};
use bytes::Bytes;
use tokenbus_bus::{Bus, StreamError, Streams, WantedStream, backoff};
use tokenbus_protocol::{Name, Subjects};
use tokio::sync::watch;

use crate::election::LeaseState;
use crate::limits::{
    JETSTREAM_RETRY_FIRST, JETSTREAM_RETRY_LONGEST, JETSTREAM_TIMEOUT, LEASE, LEASE_CHECK, LEASE_RETRY,
};

const KEY: &str = "leader";

/// Why an operation on the lease failed. JetStream then counts as absent.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("JetStream did not answer within {JETSTREAM_TIMEOUT:?}")]
    Timeout,
    #[error("cannot open the bucket: {0}")]
    Open(#[from] StreamError),
    #[error("cannot take the lease: {0}")]
    Create(kv::CreateError),
    #[error("cannot renew the lease: {0}")]
    Update(kv::UpdateError),
    #[error("cannot read the lease: {0}")]
    Read(#[from] kv::EntryError),
}

/// The result of an attempt to take or renew the lease.
enum Outcome {
    Ours { revision: u64 },
    Taken,
}

/// Holds the lease for as long as it is wanted.
pub(crate) struct LeaseKeeper {
    bus: Bus,
    streams: Streams,
    bucket: String,
    /// The value of the key while this coordinator holds it. It differs from that of any other coordinator, and of
    /// an earlier run of this one.
    mark: Bytes,
    wanted: watch::Receiver<Option<Duration>>,
    lease: watch::Sender<LeaseState>,
    /// The bucket, and when its existence was last checked.
    store: Option<(Store, Instant)>,
    revision: Option<u64>,
    /// Failures of JetStream in a row since the last connection.
    failures: usize,
    /// Whether the log already says that JetStream is away.
    away: bool,
}

impl LeaseKeeper {
    /// A keeper that takes the lease for `me` while `wanted` says how often to renew it. It reports the state of the lease through the
    /// receiver.
    pub(crate) fn new(
        bus: Bus,
        namespace: &Name,
        me: &Name,
        wanted: watch::Receiver<Option<Duration>>,
    ) -> (Self, watch::Receiver<LeaseState>) {
        let (lease, told) = watch::channel(LeaseState::Unknown);
        let keeper = Self {
            streams: bus.streams(JETSTREAM_TIMEOUT),
            bucket: Subjects::new(namespace.clone()).coordinator_bucket(),
            mark: Bytes::from(format!("{me}/{:016x}", fastrand::u64(..))),
            wanted,
            lease,
            store: None,
            revision: None,
            failures: 0,
            away: false,
            bus,
        };
        (keeper, told)
    }

    /// Runs until the sender of `wanted` is gone.
    pub(crate) async fn run(mut self) {
        let mut link = self.bus.link();
        loop {
            let connected = link.borrow_and_update().connected;
            let wanted = *self.wanted.borrow_and_update();
            let pause = if !connected {
                self.forget();
                None
            } else if let Some(renewals) = wanted {
                Some(self.pursue(renewals).await)
            } else {
                self.release().await;
                None
            };
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() { break },
                _ = link.changed() => {
                    // The new server may have JetStream although the old one had not.
                    self.store = None;
                    self.failures = 0;
                }
                () = after(pause) => {}
            }
        }
        self.release().await;
    }

    fn forget(&mut self) {
        self.store = None;
        self.revision = None;
        self.tell(LeaseState::Unknown);
    }

    fn tell(&self, lease: LeaseState) {
        self.lease
            .send_if_modified(|told| std::mem::replace(told, lease) != lease);
    }

    /// Takes or renews the lease once, and returns the pause before the next try; `renewals` is the time between two
    /// renewals.
    async fn pursue(&mut self, renewals: Duration) -> Duration {
        // Counting from here ends the lease earlier for this coordinator than for the server.
        let begun = Instant::now();
        match self.attempt().await {
            Ok(Outcome::Ours { revision }) => {
                self.recovered();
                self.revision = Some(revision);
                self.tell(LeaseState::Held { until: begun + LEASE });
                let next = self.bus.rhythm().after(begun, renewals);
                next.saturating_duration_since(Instant::now())
            }
            Ok(Outcome::Taken) => {
                self.recovered();
                self.revision = None;
                self.tell(LeaseState::Taken);
                LEASE_RETRY
            }
            Err(error) => {
                self.failures += 1;
                if !std::mem::replace(&mut self.away, true) {
                    tracing::warn!(%error, "no lease from JetStream: electing the leader by heartbeats");
                }
                self.store = None;
                self.revision = None;
                self.tell(LeaseState::Absent);
                backoff::jittered(self.failures, JETSTREAM_RETRY_FIRST, JETSTREAM_RETRY_LONGEST)
            }
        }
    }

    fn recovered(&mut self) {
        if std::mem::take(&mut self.away) {
            tracing::info!("JetStream is back: electing the leader by lease");
        }
        self.failures = 0;
    }

    async fn attempt(&mut self) -> Result<Outcome, LeaseError> {
        // The servers may have room for missing replicas by now.
        let known = self.store.clone().filter(|(_, opened)| opened.elapsed() < LEASE_CHECK);
        let store = match known {
            Some((store, _)) => store,
            None => {
                let store = self.open().await?;
                self.store = Some((store.clone(), Instant::now()));
                store
            }
        };
        if let Some(revision) = self.revision {
            match limited(store.update(KEY, self.mark.clone(), revision)).await? {
                Ok(revision) => return Ok(Outcome::Ours { revision }),
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {}
                Err(error) => return Err(LeaseError::Update(error)),
            }
        }
        match limited(store.create(KEY, self.mark.clone())).await? {
            Ok(revision) => Ok(Outcome::Ours { revision }),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => self.who_has_it(&store).await,
            Err(error) => Err(LeaseError::Create(error)),
        }
    }

    /// The key exists: another coordinator's, or our own, the confirmation of which was lost.
    async fn who_has_it(&self, store: &Store) -> Result<Outcome, LeaseError> {
        let entry = limited(store.entry(KEY)).await??;
        Ok(
            match entry.filter(|entry| entry.operation == Operation::Put && entry.value == self.mark) {
                Some(ours) => match limited(store.update(KEY, self.mark.clone(), ours.revision)).await? {
                    Ok(revision) => Outcome::Ours { revision },
                    Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Outcome::Taken,
                    Err(error) => return Err(LeaseError::Update(error)),
                },
                None => Outcome::Taken,
            },
        )
    }

    async fn open(&self) -> Result<Store, LeaseError> {
        let mut wanted = WantedStream::bucket(&self.bucket, "Which coordinator of tokenbus leads");
        wanted.config.max_age = LEASE;
        wanted.config.duplicate_window = LEASE;
        wanted.config.storage = stream::StorageType::Memory;
        wanted.same_age = true;
        Ok(self.streams.ensure_bucket(&self.bucket, &wanted).await?.0)
    }

    async fn release(&mut self) {
        if let (Some((store, _)), Some(revision)) = (&self.store, self.revision.take())
            && let Ok(Err(error)) = limited(store.delete_expect_revision(KEY, Some(revision))).await
        {
            tracing::debug!(%error, "the lease was not given back: it runs out by itself");
        }
        self.tell(LeaseState::Unknown);
    }
}

async fn limited<T>(operation: impl Future<Output = T>) -> Result<T, LeaseError> {
    tokio::time::timeout(JETSTREAM_TIMEOUT, operation)
        .await
        .map_err(|_| LeaseError::Timeout)
}

/// Waits for `pause`, or for ever.
async fn after(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}
