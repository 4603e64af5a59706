//! Keys in a JetStream key-value bucket: one entry for each, by its name; JSON. Every gateway watches
//! it, so a key that is revoked is unknown everywhere within moments.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::kv::{self, Entry, Operation, Store};
use futures_util::{FutureExt as _, StreamExt as _};
use tokenbus_bus::{Bus, backoff};

use super::super::Auth;
use super::super::limits::MAX_KEYS;
use super::super::table::{KeyEntry, KeyTable, TableError};
use crate::metrics::Metrics;

/// Time that JetStream has for an answer.
const ANSWER: Duration = Duration::from_secs(2);

/// First and longest pause before a bucket that cannot be read is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Why a bucket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// It is not there and cannot be made: JetStream is off, or its rights or its space are not enough.
    #[error("the bucket {bucket} cannot be opened: {source}")]
    Open {
        /// The bucket.
        bucket: String,
        /// Why.
        source: async_nats::jetstream::context::CreateKeyValueError,
    },
    /// JetStream says nothing.
    #[error("JetStream does not answer within {ANSWER:?}")]
    Timeout,
    /// It cannot be watched.
    #[error("the bucket cannot be watched: {0}")]
    Watch(#[from] kv::WatchError),
    /// How many entries it has cannot be read.
    #[error("the bucket cannot be read: {0}")]
    Status(#[from] kv::StatusError),
    /// The watching broke off.
    #[error("the watch on the bucket broke off: {0}")]
    Watcher(#[from] kv::WatcherError),
    /// The watching ended.
    #[error("the watch on the bucket ended")]
    Ended,
}

/// Opens `bucket`, and makes it where there is none.
///
/// # Errors
/// [`BucketError`].
pub async fn open(bus: &Bus, bucket: &str) -> Result<Store, BucketError> {
    let context = ContextBuilder::new().timeout(ANSWER).build(bus.client().clone());
    let opened = async {
        if let Ok(store) = context.get_key_value(bucket).await {
            return Ok(store);
        }
        let config = kv::Config {
            bucket: bucket.to_owned(),
            description: "API keys of tokenbus".to_owned(),
            history: 1,
            ..kv::Config::default()
        };
        // Whatever the reason was, creating it tells it better.
        let created = context.create_key_value(config).await;
        created.map_err(|source| BucketError::Open {
            bucket: bucket.to_owned(),
            source,
        })
    };
    tokio::time::timeout(ANSWER * 2, opened)
        .await
        .unwrap_or(Err(BucketError::Timeout))
}

/// Keeps `auth` at what stands in `bucket`. While the bucket cannot be read, what was read before
/// stays.
pub async fn follow(auth: Auth, bus: Bus, bucket: String, metrics: Metrics) {
    let mut failures = 0;
    let mut link = bus.link();
    loop {
        bus.connected().await;
        link.borrow_and_update();
        let mut mirror = Mirror::new(&auth, &metrics);
        let session = mirror.watch(&bus, &bucket);
        let ended = tokio::select! {
            ended = session => ended,
            // A new connection may be to a server that has gone on without us.
            _ = link.changed() => continue,
        };
        if mirror.told {
            failures = 0;
        }
        failures += 1;
        if let Err(error) = ended {
            if failures == 1 {
                tracing::warn!(%bucket, %error, "keys are not followed, what was read before stays");
            } else {
                tracing::debug!(%bucket, %error, "keys are not followed");
            }
        }
        tokio::time::sleep(backoff::jittered(failures, RETRY.0, RETRY.1)).await;
    }
}

/// A bucket's entries as they are read.
struct Mirror<'a> {
    auth: &'a Auth,
    metrics: &'a Metrics,
    entries: BTreeMap<String, KeyEntry>,
    /// All that was there at first has been read.
    complete: bool,
    /// The gateway has been told of them.
    told: bool,
}

impl<'a> Mirror<'a> {
    fn new(auth: &'a Auth, metrics: &'a Metrics) -> Self {
        Self {
            auth,
            metrics,
            entries: BTreeMap::new(),
            complete: false,
            told: false,
        }
    }

    async fn watch(&mut self, bus: &Bus, bucket: &str) -> Result<(), BucketError> {
        let store = open(bus, bucket).await?;
        let opened = async {
            let watch = store.watch_with_history(">").await?;
            Ok::<_, BucketError>((watch, store.status().await?.values()))
        };
        let (mut watch, values) = tokio::time::timeout(ANSWER * 2, opened)
            .await
            .unwrap_or(Err(BucketError::Timeout))?;
        if values == 0 {
            self.complete = true;
            self.tell();
        }
        loop {
            let entry = watch.next().await.ok_or(BucketError::Ended)??;
            self.take(&entry);
            // Many changes at once make one new table.
            while let Some(entry) = watch.next().now_or_never() {
                self.take(&entry.ok_or(BucketError::Ended)??);
            }
            if self.complete {
                self.tell();
            }
        }
    }

    fn take(&mut self, entry: &Entry) {
        self.complete |= entry.seen_current;
        let name = entry.key.as_str();
        match entry.operation {
            Operation::Delete | Operation::Purge => {
                self.entries.remove(name);
            }
            Operation::Put => match read(name, &entry.value) {
                Ok(read) if self.entries.len() < MAX_KEYS || self.entries.contains_key(name) => {
                    self.entries.insert(name.to_owned(), read);
                }
                Ok(_) => self.refuse(name, &format!("there are more than {MAX_KEYS} keys")),
                Err(reason) => self.refuse(name, &reason),
            },
        }
    }

    fn refuse(&self, name: &str, reason: &str) {
        self.metrics.reloaded("keys", false);
        tracing::error!(key = name, reason, "entry of the key bucket cannot be used");
    }

    fn tell(&mut self) {
        let table = loop {
            match KeyTable::new(self.entries.clone()) {
                Ok(table) => break table,
                // One of the two is enough, and a key that was revoked since must not live on.
                Err(TableError::Twice(first, second)) => {
                    self.refuse(&second, &format!("it is the same key as {first}"));
                    self.entries.remove(&second);
                }
                Err(error) => {
                    self.metrics.reloaded("keys", false);
                    tracing::error!(%error, "the keys of the bucket cannot be used, what was read before stays");
                    return;
                }
            }
        };
        tracing::info!(keys = table.len(), "keys were read");
        self.metrics.reloaded("keys", true);
        self.auth.set(table);
        self.told = true;
    }
}

/// One entry. Checked alone, so that one that is wrong spoils no other.
fn read(name: &str, value: &[u8]) -> Result<KeyEntry, String> {
    let entry: KeyEntry = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    KeyTable::new([(name.to_owned(), entry.clone())]).map_err(|error| error.to_string())?;
    Ok(entry)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::auth::secret::KeyHash;

    #[test]
    fn an_entry_that_is_wrong_is_refused_alone() {
        let right = format!("{{\"hash\":\"{}\"}}", KeyHash::of(b"a"));
        assert!(read("alice", right.as_bytes()).is_ok());
        assert!(read("al.ice", right.as_bytes()).unwrap_err().contains("al.ice"));
        assert!(read("alice", b"{}").unwrap_err().contains("hash"));
        let priority = right.replace('}', ",\"priority\":5000}");
        assert!(read("alice", priority.as_bytes()).unwrap_err().contains("alice"));
    }
}
