//! The store of responses: a JetStream key-value bucket that all gateways of the cluster share.
//!
//! The bucket `{ns}_responses` is created when it is first needed. It drops a response after its time, and the oldest
//! when it is full. Each key begins with the tenant, so a tenant cannot find another's response by its id. A response
//! larger than one message is stored in parts; its own key is written last, so that only complete responses can be
//! found.
//!
//! Beside it are the keys that seal the reasoning which clients carry themselves ([`SealKeys`]).

mod bucket;
mod entry;
mod error;
pub(crate) mod limits;
mod options;
mod seal_keys;
mod seal_ring;

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::kv::Store;
use async_nats::jetstream::stream::DiscardPolicy;
use bytes::Bytes;
use tokenbus_bus::{Bus, WantedStream};
use tokenbus_protocol::{Name, Subjects};
use tokio::time::timeout;

pub(crate) use error::StoreError;
pub(crate) use options::ResponsesOptions;
pub use seal_keys::SealKeys;

use bucket::{Bucket, Open};
use entry::{find, key, remove, write};

/// The stored responses. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ResponsesStore(Option<Arc<Bucket>>);

impl ResponsesStore {
    /// The responses of the cluster `namespace`.
    pub fn new(bus: Bus, namespace: &Name, options: ResponsesOptions) -> Self {
        if options.ttl.is_zero() {
            return Self::absent();
        }
        let name = Subjects::new(namespace.clone()).responses_bucket();
        let wanted = wanted(&name, options);
        Self(Some(Arc::new(Bucket::new(
            bus,
            name,
            wanted,
            "responses are not stored",
        ))))
    }

    /// A store that keeps nothing.
    pub fn absent() -> Self {
        Self(None)
    }

    /// Makes sure that responses can be stored.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot.
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.store().await.map(drop)
    }

    /// The response `id` of `tenant`; `None` if there is none, or no longer.
    ///
    /// # Errors
    /// [`StoreError`] if the bucket cannot be read.
    pub async fn get(&self, tenant: Option<&str>, id: &str) -> Result<Option<Bytes>, StoreError> {
        let Some(key) = key(tenant, id) else { return Ok(None) };
        self.with(|store| {
            let key = key.clone();
            async move { find(&store, &key).await }
        })
        .await
    }

    /// Stores a response.
    ///
    /// # Errors
    /// [`StoreError`] if it was not stored.
    pub async fn put(&self, tenant: Option<&str>, id: &str, response: Bytes) -> Result<(), StoreError> {
        if response.len() > limits::ONE {
            return Err(StoreError::TooLarge(response.len()));
        }
        let key = key(tenant, id).ok_or_else(|| StoreError::Failed(format!("{id:?} is not an id")))?;
        let part = self.part();
        let written = self.with(|store| {
            let (key, response) = (key.clone(), response.clone());
            async move { write(&store, &key, response, part).await }
        });
        let late = || Err(StoreError::Failed("JetStream took too long".to_owned()));
        timeout(limits::KEEP, written).await.unwrap_or_else(|_| late())
    }

    /// Deletes a response. Returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError`] if the bucket cannot be used.
    pub async fn delete(&self, tenant: Option<&str>, id: &str) -> Result<bool, StoreError> {
        let Some(key) = key(tenant, id) else { return Ok(false) };
        self.with(|store| {
            let key = key.clone();
            async move { remove(&store, &key).await }
        })
        .await
    }

    /// Runs `operation`, and runs it again if the bucket had vanished and was created anew.
    async fn with<T, F>(&self, operation: impl Fn(Store) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let before = self.store().await?;
        let result = operation(before.store).await;
        if let (Some(bucket), Err(StoreError::Failed(_))) = (&self.0, &result) {
            bucket.doubt();
            if let Ok(now) = bucket.store().await
                && now.found.mark != before.found.mark
            {
                return operation(now.store).await;
            }
        }
        result
    }

    fn part(&self) -> usize {
        let payload = self.0.as_ref().map_or(usize::MAX, |bucket| bucket.bus.max_payload());
        limits::PART.min((payload / 2).max(1))
    }

    async fn store(&self) -> Result<Open, StoreError> {
        match &self.0 {
            Some(bucket) => bucket.store().await,
            None => Err(StoreError::Absent("it is switched off".to_owned())),
        }
    }
}

/// A key-value bucket as clients create it, except that a full one drops the oldest entries. An operator's bucket keeps
/// its settings, except for the age.
fn wanted(bucket: &str, options: ResponsesOptions) -> WantedStream {
    let mut wanted = WantedStream::bucket(bucket, "Responses that tokenbus keeps for their conversations");
    wanted.config.max_age = options.ttl;
    wanted.config.max_bytes = i64::try_from(options.bytes).unwrap_or(i64::MAX);
    wanted.config.duplicate_window = DUPLICATES.min(options.ttl);
    wanted.config.discard = DiscardPolicy::Old;
    wanted.same_age = true;
    wanted
}

/// How long JetStream recognizes repeated messages. This is its default, which may not exceed a message's age.
const DUPLICATES: Duration = Duration::from_secs(120);
