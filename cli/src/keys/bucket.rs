//! Keys in the JetStream bucket that all gateways of a cluster share.

use async_nats::jetstream::kv::{CreateErrorKind, Store};
use futures_util::StreamExt as _;
use tokenbus_bus::{Bus, StreamError, backoff};
use tokenbus_gateway::{BucketError, KeyEntry, KeySource, open_key_bucket};
use tokenbus_protocol::Name;
use tokio::time::{Instant, timeout};

use super::error::KeysError;
use crate::limits::{KEYS_CONNECT, KEYS_PATIENCE, KEYS_RETRY};
use crate::shared::{BusArgs, KeptArgs, Shared};

/// An open bucket of keys.
pub(super) struct Bucket {
    name: String,
    store: Store,
}

impl Bucket {
    pub(super) async fn open(bus: &BusArgs, kept: &KeptArgs, name: Option<&str>) -> Result<Self, KeysError> {
        let Shared {
            bus: options,
            namespace,
        } = bus.shared("tokenbus keys").keeping(kept);
        let name = KeySource::bucket_name(name, &namespace);
        let wrong = |reason: String| KeysError::Place {
            place: format!("kv:{name}"),
            reason,
        };
        let bus = Bus::connect(&options).await.map_err(|error| wrong(error.to_string()))?;
        if timeout(KEYS_CONNECT, bus.connected()).await.is_err() {
            let (servers, reason) = (options.display_urls(), bus.link().borrow().reason.clone());
            let because = if reason.is_empty() { "" } else { ": " };
            return Err(wrong(format!("NATS is not reachable at {servers}{because}{reason}")));
        }
        // A cluster without JetStream will not have it soon, so do not try again.
        let opening = async || match open_key_bucket(&bus, &name).await {
            Err(BucketError::Open {
                source: StreamError::Absent(reason),
                ..
            }) => Ok(Err(reason)),
            opened => opened.map(Ok),
        };
        let opened = patiently(opening).await.map_err(|error| wrong(error.to_string()))?;
        let (store, _) = opened.map_err(wrong)?;
        Ok(Self { name, store })
    }

    fn wrong(&self, reason: impl std::fmt::Display) -> KeysError {
        KeysError::Place {
            place: format!("kv:{}", self.name),
            reason: reason.to_string(),
        }
    }

    pub(super) async fn add(&self, name: &Name, entry: &KeyEntry) -> Result<(), KeysError> {
        let json = serde_json::to_vec(entry).map_err(|error| self.wrong(error))?;
        match self.store.create(name.as_str(), json.into()).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Err(KeysError::Exists(name.clone())),
            Err(error) => Err(self.wrong(error)),
        }
    }

    pub(super) async fn remove(&self, name: &Name) -> Result<(), KeysError> {
        let there = patiently(async || self.store.get(name.as_str()).await).await;
        if there.map_err(|error| self.wrong(error))?.is_none() {
            return Err(KeysError::Unknown(name.clone()));
        }
        // Deleting twice does no harm.
        let purged = patiently(async || self.store.purge(name.as_str()).await).await;
        purged.map_err(|error| self.wrong(error))
    }

    pub(super) async fn list(&self) -> Result<Vec<(String, KeyEntry)>, KeysError> {
        let names = self.store.keys().await.map_err(|error| self.wrong(error))?;
        let names: Vec<_> = names.collect().await;
        let mut keys = Vec::with_capacity(names.len());
        for name in names {
            let name = name.map_err(|error| self.wrong(error))?;
            let value = self.store.get(name.as_str()).await;
            // Somebody revoked it in the meantime.
            let Some(value) = value.map_err(|error| self.wrong(error))? else {
                continue;
            };
            let entry = serde_json::from_slice(&value);
            let entry = entry.map_err(|error| self.wrong(format!("key {name}: {error}")))?;
            keys.push((name, entry));
        }
        keys.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(keys)
    }
}

/// Repeats `operation` for a time while it fails: after the loss of a server the others choose new leaders within
/// seconds.
async fn patiently<T, E>(operation: impl AsyncFn() -> Result<T, E>) -> Result<T, E> {
    let until = Instant::now() + KEYS_PATIENCE;
    let mut attempt = 0;
    loop {
        let result = operation().await;
        attempt += 1;
        let pause = backoff::jittered(attempt, KEYS_RETRY.0, KEYS_RETRY.1);
        if result.is_ok() || Instant::now() + pause >= until {
            return result;
        }
        tokio::time::sleep(pause).await;
    }
}
