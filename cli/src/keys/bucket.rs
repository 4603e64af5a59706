//! Keys in the bucket that all gateways of a cluster share.

use async_nats::jetstream::kv::{CreateErrorKind, Store};
use futures_util::StreamExt as _;
use tokenbus_bus::Bus;
use tokenbus_gateway::auth::source::{KeySource, bucket};
use tokenbus_gateway::auth::table::KeyEntry;
use tokenbus_protocol::Name;
use tokio::time::timeout;

use super::KeysError;
use crate::limits::KEYS_CONNECT;
use crate::shared::{BusArgs, Shared};

/// A bucket of keys, open.
pub(super) struct Bucket {
    name: String,
    store: Store,
}

impl Bucket {
    pub(super) async fn open(bus: &BusArgs, name: Option<&str>) -> Result<Self, KeysError> {
        let Shared {
            bus: options,
            namespace,
        } = bus.shared("tokenbus keys");
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
        let store = bucket::open(&bus, &name).await;
        let store = store.map_err(|error| wrong(error.to_string()))?;
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
        let there = self.store.get(name.as_str()).await;
        if there.map_err(|error| self.wrong(error))?.is_none() {
            return Err(KeysError::Unknown(name.clone()));
        }
        let purged = self.store.purge(name.as_str()).await;
        purged.map_err(|error| self.wrong(error))
    }

    pub(super) async fn list(&self) -> Result<Vec<(String, KeyEntry)>, KeysError> {
        let names = self.store.keys().await.map_err(|error| self.wrong(error))?;
        let names: Vec<_> = names.collect().await;
        let mut keys = Vec::with_capacity(names.len());
        for name in names {
            let name = name.map_err(|error| self.wrong(error))?;
            let value = self.store.get(name.as_str()).await;
            // Revoked at this moment.
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
