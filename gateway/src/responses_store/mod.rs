//! Where responses are kept: a key-value bucket in JetStream, which every gateway of the cluster
//! shares.
//!
//! The bucket `{ns}_responses` is made when it is first needed. It forgets a response after its time,
//! and the oldest when it is full. Each response lies under a key that begins with its tenant: an id
//! of another tenant's response is the id of none. What is larger than a message lies in parts; the
//! key itself is written last, so that what can be found is whole.

mod bucket;
mod entry;
mod error;
pub mod limits;
mod options;

use std::sync::Arc;

use async_nats::jetstream::kv::Store;
use bytes::Bytes;
use tokenbus_bus::Bus;
use tokenbus_protocol::Name;
use tokio::time::timeout;

pub use error::StoreError;
pub use options::ResponsesOptions;

use bucket::{Bucket, Open};
use entry::{find, key, remove, write};

/// The kept responses. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ResponsesStore(Option<Arc<Bucket>>);

impl ResponsesStore {
    /// The responses of the cluster `namespace`.
    pub fn new(bus: Bus, namespace: &Name, options: ResponsesOptions) -> Self {
        if options.ttl.is_zero() {
            return Self::absent();
        }
        Self(Some(Arc::new(Bucket::new(bus, namespace, options))))
    }

    /// No place for responses.
    pub fn absent() -> Self {
        Self(None)
    }

    /// Makes sure that there is a place for responses.
    ///
    /// # Errors
    /// [`StoreError`] when there is none.
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.store().await.map(drop)
    }

    /// The response `id` of `tenant`; `None` where there is none, or no longer.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be told.
    pub async fn get(&self, tenant: Option<&str>, id: &str) -> Result<Option<Bytes>, StoreError> {
        let Some(key) = key(tenant, id) else { return Ok(None) };
        self.with(|store| {
            let key = key.clone();
            async move { find(&store, &key).await }
        })
        .await
    }

    /// Keeps a response.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be.
    pub async fn put(&self, tenant: Option<&str>, id: &str, response: Bytes) -> Result<(), StoreError> {
        if response.len() > limits::ONE {
            return Err(StoreError::TooLarge(response.len()));
        }
        let key = key(tenant, id).ok_or_else(|| StoreError::Failed(format!("{id:?} is no id")))?;
        let part = self.part();
        let written = self.with(|store| {
            let (key, response) = (key.clone(), response.clone());
            async move { write(&store, &key, response, part).await }
        });
        let late = || Err(StoreError::Failed("JetStream took too long".to_owned()));
        timeout(limits::KEEP, written).await.unwrap_or_else(|_| late())
    }

    /// Forgets a response. Tells whether there was one.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be told.
    pub async fn delete(&self, tenant: Option<&str>, id: &str) -> Result<bool, StoreError> {
        let Some(key) = key(tenant, id) else { return Ok(false) };
        self.with(|store| {
            let key = key.clone();
            async move { remove(&store, &key).await }
        })
        .await
    }

    /// Does `operation`, and once more where the bucket had vanished and is another one now.
    async fn with<T, F>(&self, operation: impl Fn(Store) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let before = self.store().await?;
        let result = operation(before.store).await;
        if let (Some(bucket), Err(StoreError::Failed(_))) = (&self.0, &result) {
            bucket.opened().store = None;
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
