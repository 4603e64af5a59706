//! The cluster's keys that seal the reasoning which clients carry: one entry of the bucket `{ns}_seal`, which all gateways
//! share.
//!
//! The first request that needs a key makes it. Each write replaces only the revision that was read, so that of several
//! gateways that make a key, one succeeds and the others read it. A gateway that knows keys which the bucket has lost
//! puts them back. The keys are read again once a minute, and when a client hands back what an unknown key has sealed.

use std::sync::{Arc, Mutex, PoisonError};

use async_nats::jetstream::kv::{Operation, Store, UpdateErrorKind};
use bytes::Bytes;
use tokenbus_api::{Seal, SealKey, SealNeed};
use tokenbus_bus::{Bus, WantedStream};
use tokenbus_protocol::{Name, Subjects};
use tokio::time::{Instant, timeout};

use super::bucket::Bucket;
use super::error::{StoreError, failed, limited};
use super::limits;
use super::options::ResponsesOptions;
use super::seal_ring::{SECRET, SealRing};
use tokenbus_bus::clock::unix_seconds;

/// The entry of the keys.
const ENTRY: &str = "keys";

/// The cluster's keys. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SealKeys(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    bucket: Bucket,
    /// Seconds.
    age: u64,
    known: Mutex<Known>,
}

/// The keys as they were read last.
#[derive(Debug, Clone, Default)]
struct Known {
    ring: SealRing,
    keys: Arc<[SealKey]>,
    read: Option<Instant>,
}

impl SealKeys {
    /// The keys of the cluster `namespace`.
    pub fn new(bus: Bus, namespace: &Name, options: ResponsesOptions) -> Self {
        let name = Subjects::new(namespace.clone()).seal_bucket();
        let wanted = wanted(&name);
        Self(Some(Arc::new(Shared {
            bucket: Bucket::new(bus, name, wanted, "reasoning that clients carry is not sealed"),
            age: options.seal_key_age.as_secs(),
            known: Mutex::default(),
        })))
    }

    /// No keys: nothing is sealed.
    #[cfg(any(test, feature = "testing"))]
    pub fn absent() -> Self {
        Self(None)
    }

    /// The seal for a request of `tenant` that needs `need`. Where no key can be had, nothing is sealed.
    ///
    /// # Errors
    /// [`StoreError::Failed`] if the client hands back what an unknown key has sealed, and it cannot be asked for at the
    /// moment.
    pub async fn seal(&self, tenant: Option<&str>, need: &SealNeed) -> Result<Seal, StoreError> {
        let Some(shared) = self.0.as_ref().filter(|_| need.seals || !need.opens.is_empty()) else {
            return Ok(Seal::default());
        };
        let known = shared.look();
        let lacking = need
            .opens
            .iter()
            .any(|id| !known.keys.iter().any(|key| key.id() == *id));
        let due = known.ring.is_due(unix_seconds(), shared.age);
        let old = known.read.is_none_or(|read| read.elapsed() >= limits::CHECK);
        if !(lacking || due || old) {
            return Ok(Seal::new(known.keys, tenant));
        }
        if !(lacking || known.keys.is_empty()) {
            // Other requests go on with the keys that are known.
            shared.known().read = Some(Instant::now());
        }
        match shared.refresh().await {
            Err(error @ StoreError::Failed(_)) if lacking => Err(error),
            Err(error) => {
                tracing::debug!(%error, "the keys that seal reasoning were not read");
                Ok(Seal::new(known.keys, tenant))
            }
            Ok(keys) => Ok(Seal::new(keys, tenant)),
        }
    }
}

impl Shared {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // No code that runs under this lock can leave it half-changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) -> Known {
        self.known().clone()
    }

    /// Reads the keys, and writes what is missing.
    async fn refresh(&self) -> Result<Arc<[SealKey]>, StoreError> {
        let read = async {
            let open = self.bucket.store().await?;
            self.settle(&open.store).await
        };
        let late = || Err(StoreError::Failed("JetStream took too long".to_owned()));
        let settled = timeout(limits::OPERATION, read).await.unwrap_or_else(|_| late());
        if settled.is_err() {
            self.bucket.doubt();
        }
        let ring = settled?;
        let mut known = self.known();
        known.read = Some(Instant::now());
        if known.ring != ring {
            known.keys = ring.keys().into();
            known.ring = ring;
        }
        Ok(Arc::clone(&known.keys))
    }

    /// The keys of the bucket, after what is missing was written.
    async fn settle(&self, store: &Store) -> Result<SealRing, StoreError> {
        for _ in 0..limits::SEAL_TRIES {
            let entry = limited(store.entry(ENTRY)).await?;
            let revision = entry.as_ref().map_or(0, |entry| entry.revision);
            let put = entry.filter(|entry| entry.operation == Operation::Put);
            let stored: SealRing = match &put {
                Some(entry) => serde_json::from_slice(&entry.value).map_err(failed)?,
                None => SealRing::default(),
            };
            let mut ring = stored.clone();
            ring.join(&self.look().ring);
            let now = unix_seconds();
            if ring.is_due(now, self.age) {
                ring.renew(secret()?, now);
            }
            if ring == stored {
                return Ok(ring);
            }
            let bytes = Bytes::from(serde_json::to_vec(&ring).map_err(failed)?);
            match store.update(ENTRY, bytes, revision).await {
                Ok(_) => return Ok(ring),
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(StoreError::Failed("the keys change all the time".to_owned()))
    }
}

fn wanted(bucket: &str) -> WantedStream {
    let mut wanted = WantedStream::bucket(
        bucket,
        "Keys with which tokenbus seals the reasoning that clients carry",
    );
    // A replica that lags behind would not know the newest key.
    wanted.config.allow_direct = false;
    wanted.same_reads = true;
    wanted
}

fn secret() -> Result<[u8; SECRET], StoreError> {
    let mut secret = [0; SECRET];
    getrandom::fill(&mut secret).map_err(failed)?;
    Ok(secret)
}
