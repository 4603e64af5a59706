//! Keys in a JetStream key-value bucket: one JSON entry for each, under its name. All gateways watch the bucket, so a
//! revoked key is refused everywhere within moments.
//!
//! A deleted or wiped bucket does not invalidate its keys at once: see `ledger.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::jetstream::kv::{self, Entry, Operation, Store, Watch};
use futures_util::{FutureExt as _, StreamExt as _};
use tokenbus_bus::{Bus, FoundStream, StreamError, Streams, WantedStream, backoff};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::super::Auth;
use super::super::key_table::{KeyEntry, KeyTable, KeyTableError};
use super::super::limits::{KEYS_CHECK, KEYS_COMPLAIN, KEYS_ENSURE, KEYS_HOLD, KEYS_SILENCE, MAX_KEYS};
use super::ledger::Ledger;
use crate::metrics::Metrics;

/// How long JetStream may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// First and longest pause before an unreadable bucket is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Why a bucket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// It does not exist and cannot be created: JetStream is off, or permissions or space are missing.
    #[error("the bucket {bucket} cannot be opened: {source}")]
    Open {
        /// The bucket.
        bucket: String,
        /// The reason.
        source: StreamError,
    },
    /// JetStream does not answer.
    #[error("JetStream does not answer within {ANSWER:?}")]
    Timeout,
    /// It cannot be watched.
    #[error("the bucket cannot be watched: {0}")]
    Watch(#[from] kv::WatchError),
    /// The number of its entries cannot be read.
    #[error("the bucket cannot be read: {0}")]
    Status(#[from] kv::StatusError),
    /// The watch broke off.
    #[error("the watch on the bucket broke off: {0}")]
    Watcher(#[from] kv::WatcherError),
    /// The bucket has more entries than arrive.
    #[error("the bucket's entries do not arrive")]
    Silent,
    /// The watch ended.
    #[error("the watch on the bucket ended")]
    Ended,
    /// The bucket is no longer the watched one.
    #[error("the bucket was deleted, made anew or emptied")]
    Vanished,
}

fn wanted(bucket: &str) -> WantedStream {
    let mut wanted = WantedStream::bucket(bucket, "API keys of tokenbus");
    // A replica that lags behind would not know of a new key.
    wanted.config.allow_direct = false;
    wanted.same_reads = true;
    wanted
}

/// Opens `bucket`, and creates it if there is none.
///
/// # Errors
/// [`BucketError`].
pub async fn open(bus: &Bus, bucket: &str) -> Result<(Store, FoundStream), BucketError> {
    let opened = bus.streams(ANSWER).ensure_bucket(bucket, &wanted(bucket)).await;
    opened.map_err(|source| BucketError::Open {
        bucket: bucket.to_owned(),
        source,
    })
}

/// Keeps `auth` current with `bucket`. While the bucket cannot be read, the keys read before stay valid.
pub(crate) async fn follow(auth: Auth, bus: Bus, bucket: String, metrics: Metrics) {
    let mut follower = Follower::new(auth, &bus, bucket, metrics);
    let mut failures = 0;
    let mut link = bus.link();
    loop {
        bus.connected().await;
        link.borrow_and_update();
        follower.review();
        follower.told = false;
        let ended = tokio::select! {
            ended = follower.watch(&bus) => ended,
            // A new connection may lead to a server that missed the changes.
            _ = link.changed() => continue,
        };
        if follower.told {
            failures = 0;
        }
        failures += 1;
        if let Err(error) = ended {
            let bucket = &follower.bucket;
            if failures == 1 {
                tracing::warn!(%bucket, %error, "the key bucket cannot be read, its last known keys stay valid");
            } else {
                tracing::debug!(%bucket, %error, "the key bucket cannot be read");
            }
            follower.trouble = Some(format!("the key bucket cannot be read: {error}"));
            follower.report_concern();
        }
        tokio::time::sleep(backoff::jittered(failures, RETRY.0, RETRY.1)).await;
    }
}

/// The entries of a bucket while its first read is incomplete.
#[derive(Default)]
struct Loading {
    entries: BTreeMap<String, KeyEntry>,
    revoked: BTreeSet<String>,
    complete: bool,
}

impl Loading {
    /// A key was revoked, or its entry cannot be used: what it was before does not hold.
    fn remove(&mut self, name: &str, ledger: &Ledger) {
        self.entries.remove(name);
        if ledger.has(name) {
            self.revoked.insert(name.to_owned());
        }
    }
}

/// Follows a bucket.
struct Follower {
    auth: Auth,
    streams: Streams,
    bucket: String,
    metrics: Metrics,
    ledger: Ledger,
    /// `auth` has received keys since the bucket was opened.
    told: bool,
    /// Why the bucket is not followed.
    trouble: Option<String>,
    complained: Option<Instant>,
}

impl Follower {
    fn new(auth: Auth, bus: &Bus, bucket: String, metrics: Metrics) -> Self {
        Self {
            auth,
            streams: bus.streams(ANSWER),
            bucket,
            metrics,
            ledger: Ledger::default(),
            told: false,
            trouble: None,
            complained: None,
        }
    }

    async fn watch(&mut self, bus: &Bus) -> Result<(), BucketError> {
        let (store, found) = open(bus, &self.bucket).await?;
        let opened = async {
            let watch = store.watch_with_history(">").await?;
            Ok::<_, BucketError>((watch, store.status().await?.values()))
        };
        let (mut watch, values) = tokio::time::timeout(ANSWER * 2, opened)
            .await
            .unwrap_or(Err(BucketError::Timeout))?;
        let mut loading = Loading {
            complete: values == 0,
            ..Loading::default()
        };
        while !loading.complete {
            let next = tokio::time::timeout(KEYS_SILENCE, watch.next()).await;
            let entry = next.map_err(|_| BucketError::Silent)?.ok_or(BucketError::Ended)??;
            self.load(&entry, &mut loading);
        }
        self.loaded(found, loading);
        let mut check = interval(KEYS_CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.keep_up(found, &mut watch, check).await
    }

    /// Applies each change, and checks that the bucket is still the watched one.
    async fn keep_up(&mut self, found: FoundStream, watch: &mut Watch, mut check: Interval) -> Result<(), BucketError> {
        let mut checks: u32 = 0;
        loop {
            tokio::select! {
                biased;
                entry = watch.next() => {
                    self.take(&entry.ok_or(BucketError::Ended)??);
                    // A burst of changes makes one new table.
                    while let Some(entry) = watch.next().now_or_never() {
                        self.take(&entry.ok_or(BucketError::Ended)??);
                    }
                    self.tell();
                }
                _ = check.tick() => {
                    checks += 1;
                    let seen = if checks.is_multiple_of(KEYS_ENSURE) {
                        self.streams.ensure(&wanted(&self.bucket)).await
                    } else {
                        self.streams.look(&self.bucket).await
                    };
                    match seen {
                        Ok(now) if now.mark != found.mark => return Err(BucketError::Vanished),
                        Ok(now) if now.messages == 0 && self.ledger.len() > 0 => return Err(BucketError::Vanished),
                        Err(StreamError::Gone(_)) => return Err(BucketError::Vanished),
                        // The watch reports by itself when it cannot go on.
                        Ok(_) | Err(_) => {}
                    }
                    self.review();
                }
            }
        }
    }

    /// Takes an entry of the first read.
    fn load(&self, entry: &Entry, loading: &mut Loading) {
        loading.complete |= entry.seen_current;
        let name = entry.key.as_str();
        match entry.operation {
            Operation::Delete | Operation::Purge => loading.remove(name, &self.ledger),
            Operation::Put => {
                let room = loading.entries.len() < MAX_KEYS || loading.entries.contains_key(name);
                match self.read(entry, room) {
                    Some(entry) => {
                        loading.revoked.remove(name);
                        loading.entries.insert(name.to_owned(), entry);
                    }
                    None => loading.remove(name, &self.ledger),
                }
            }
        }
    }

    /// The first read is complete.
    fn loaded(&mut self, found: FoundStream, loading: Loading) {
        let lost = self
            .ledger
            .read(found.mark, loading.entries, &loading.revoked, Instant::now());
        if lost > 0 {
            self.metrics.key_losses().inc();
            self.complained = Some(Instant::now());
            tracing::error!(bucket = self.bucket, lost, hold = ?KEYS_HOLD,
                "API keys have vanished from their bucket without being revoked: it was emptied or made anew. \
                 They hold for a time; bring them back or make new ones");
        }
        self.tell();
    }

    /// Takes a change.
    fn take(&mut self, entry: &Entry) {
        let name = entry.key.as_str();
        match entry.operation {
            Operation::Delete | Operation::Purge => self.ledger.revoke(name),
            Operation::Put => {
                let room = self.ledger.len() < MAX_KEYS || self.ledger.has(name);
                match self.read(entry, room) {
                    Some(entry) => self.ledger.put(name, entry),
                    // What it was meant to say is unknown, but not what it was before.
                    None => self.ledger.revoke(name),
                }
            }
        }
    }

    fn read(&self, entry: &Entry, room: bool) -> Option<KeyEntry> {
        let name = entry.key.as_str();
        match read(name, &entry.value) {
            Ok(read) if room => return Some(read),
            Ok(_) => self.refuse(name, &format!("there are more than {MAX_KEYS} keys")),
            Err(reason) => self.refuse(name, &reason),
        }
        None
    }

    fn refuse(&self, name: &str, reason: &str) {
        self.metrics.reloaded("keys", false);
        tracing::error!(key = name, reason, "entry of the key bucket cannot be used");
    }

    fn tell(&mut self) {
        self.told = true;
        self.trouble = None;
        if self.ledger.is_bereft() {
            self.report_concern();
            return;
        }
        let mut entries = self.ledger.entries();
        let table = loop {
            match KeyTable::new(entries.clone()) {
                Ok(table) => break table,
                // One of the two is enough, and a key revoked since must not stay valid.
                Err(KeyTableError::Twice(first, second)) => {
                    self.refuse(&second, &format!("it is the same key as {first}"));
                    entries.remove(&second);
                }
                Err(error) => {
                    self.metrics.reloaded("keys", false);
                    tracing::error!(%error, "the keys of the bucket cannot be used, the last valid ones stay");
                    return;
                }
            }
        };
        if table.is_empty() {
            tracing::warn!(
                bucket = self.bucket,
                "there is no key: every request is refused until one is created"
            );
        } else {
            tracing::info!(keys = table.len(), "keys were read");
        }
        self.metrics.reloaded("keys", true);
        self.auth.set(table);
        self.report_concern();
    }

    /// Drops keys that were held long enough, and logs again what is wrong.
    fn review(&mut self) {
        let now = Instant::now();
        let lapsed = self.ledger.lapse(now);
        if lapsed > 0 {
            tracing::error!(bucket = self.bucket, lapsed, "API keys that had vanished have expired");
            if self.ledger.is_bereft() {
                self.auth.forget();
            }
            let trouble = self.trouble.take();
            self.tell();
            self.trouble = trouble;
        }
        let overdue = self.complained.is_none_or(|at| now >= at + KEYS_COMPLAIN);
        if let Some(concern) = self.report_concern()
            && self.trouble.is_none()
            && overdue
        {
            self.complained = Some(now);
            tracing::error!(bucket = self.bucket, concern, "API keys are lost");
        }
    }

    /// Reports what is wrong for `/readyz`.
    fn report_concern(&self) -> Option<String> {
        let held = self.ledger.held();
        let count = held.map_or(0, |(count, _)| count);
        self.metrics.keys_held().set(i64::try_from(count).unwrap_or(i64::MAX));
        let bucket = &self.bucket;
        let concern = match held {
            Some((count, until)) => Some(format!(
                "{count} API keys have vanished from the bucket {bucket} without being revoked; they hold for another {} s",
                until.saturating_duration_since(Instant::now()).as_secs()
            )),
            None if self.ledger.is_bereft() => Some(format!(
                "all API keys have vanished from the bucket {bucket} without being revoked, and hold no longer"
            )),
            None => self.trouble.clone(),
        };
        self.auth.set_concern(concern.clone());
        concern
    }
}

/// Reads one entry, by itself, so that an invalid one affects no other.
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
