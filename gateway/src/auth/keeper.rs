//! The loop that writes to the bucket what this gateway's requests have used, and reads what was used at all gateways.
//!
//! An entry is replaced only at the revision that was read before, so no gateway's amount overwrites another's. A write
//! that fails, or is not confirmed, is repeated after its entry was read again.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::kv::{Entry, Store};
use futures_util::StreamExt as _;
use tokenbus_bus::{Bus, FoundStream, StreamError, Streams, backoff};
use tokenbus_protocol::Name;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::budget::books::Write;
use super::budget::bucket::{Stored, read, wanted};
use super::limits::{
    BUDGET_ANSWER, BUDGET_CHECK, BUDGET_COMPLAIN, BUDGET_RETRY, BUDGET_SILENCE, BUDGET_WRITE, BUDGET_WRITES,
};
use super::{Auth, Inner};

/// Keeps the budgets of `auth` and `bucket` at one. When `closing` is cancelled, it writes the rest and ends.
pub(crate) async fn run(auth: Auth, bus: Bus, bucket: String, closing: CancellationToken) {
    let Some(inner) = auth.0 else { return };
    // Where no key has a budget, there is no bucket.
    let mut budgeted = inner.budgeted.subscribe();
    if closing
        .run_until_cancelled(budgeted.wait_for(|budgeted| *budgeted))
        .await
        .is_none()
    {
        return;
    }
    let keeper = Keeper {
        streams: bus.streams(BUDGET_ANSWER),
        inner,
        bucket,
        closing,
    };
    let mut failures = 0;
    let mut complained = None::<Instant>;
    let mut link = bus.link();
    loop {
        let ready = async {
            bus.connected().await;
            link.borrow_and_update();
        };
        if keeper.unless_closing(ready).await.is_none() {
            return;
        }
        let reason = tokio::select! {
            ended = keeper.keep(&mut failures) => match ended {
                Ok(()) => return,
                Err(reason) => reason,
            },
            // The new server may have missed what was written to the old one.
            _ = link.changed() => continue,
        };
        failures += 1;
        let now = Instant::now();
        if complained.is_none_or(|at| now >= at + BUDGET_COMPLAIN) {
            complained = Some(now);
            tracing::warn!(
                bucket = keeper.bucket,
                reason,
                "what keys use of their budgets is not kept"
            );
        }
        let pause = tokio::time::sleep(backoff::jittered(failures, BUDGET_RETRY.0, BUDGET_RETRY.1));
        if keeper.unless_closing(pause).await.is_none() {
            return;
        }
    }
}

struct Keeper {
    inner: Arc<Inner>,
    streams: Streams,
    bucket: String,
    closing: CancellationToken,
}

impl Keeper {
    async fn unless_closing<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.closing.run_until_cancelled(future).await
    }

    /// Reads the bucket, then writes and reads until the end. Resets `failures` once it was read.
    async fn keep(&self, failures: &mut usize) -> Result<(), String> {
        let wanted = wanted(&self.bucket);
        let opened = self
            .unless_closing(self.streams.ensure_bucket(&self.bucket, &wanted))
            .await;
        let (store, found) = match opened {
            None => return Ok(()),
            Some(Ok(opened)) => opened,
            Some(Err(StreamError::Absent(reason))) => {
                // Each gateway counts for itself, and they tell each other.
                self.inner.limiter().books.loaded(false);
                return Err(format!(
                    "there is no JetStream, so it is forgotten with the gateways: {reason}"
                ));
            }
            Some(Err(error)) => return Err(error.to_string()),
        };
        let watch = timeout(BUDGET_ANSWER, store.watch_with_history(">")).await;
        let watch = watch.map_err(|_| "JetStream does not answer".to_owned())?;
        let mut watch = watch.map_err(|error| error.to_string())?;
        self.inner.limiter().books.reopened();
        let mut complete = found.messages == 0;
        while !complete {
            let next = self.unless_closing(timeout(BUDGET_SILENCE, watch.next())).await;
            let Some(next) = next else { return Ok(()) };
            let entry = next.map_err(|_| "the entries do not arrive".to_owned())?;
            let entry = entry.ok_or("the watch ended")?.map_err(|error| error.to_string())?;
            complete = entry.seen_current;
            self.take(&entry);
        }
        self.inner.limiter().books.loaded(true);
        *failures = 0;
        let mut write = ticks(BUDGET_WRITE);
        let mut check = ticks(BUDGET_CHECK);
        loop {
            tokio::select! {
                () = self.closing.cancelled() => {
                    self.write(&store).await;
                    // Another gateway may have written in between.
                    self.write(&store).await;
                    return Ok(());
                }
                entry = watch.next() => self.take(&entry.ok_or("the watch ended")?.map_err(|error| error.to_string())?),
                _ = write.tick() => self.write(&store).await,
                // A watch does not notice that its bucket was deleted.
                _ = check.tick() => self.check(found).await?,
            }
        }
    }

    async fn check(&self, found: FoundStream) -> Result<(), String> {
        self.inner.show_budgets();
        match self.streams.look(&self.bucket).await {
            Ok(now) if now.mark != found.mark => Err("the bucket was made anew".to_owned()),
            Err(StreamError::Gone(_)) => Err("the bucket was deleted".to_owned()),
            // The watch reports by itself when it cannot go on.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn take(&self, entry: &Entry) {
        let Ok(key) = Name::new(entry.key.as_str()) else { return };
        match read(entry) {
            Ok(read) => self.stored(&key, read, entry.revision),
            Err(error) => tracing::error!(%key, %error, "entry of the bucket of budgets cannot be used"),
        }
    }

    fn stored(&self, key: &Name, entry: Option<Stored>, revision: u64) {
        let news = self.inner.limiter().stored(key, entry, revision, Instant::now());
        self.inner.tell(news);
    }

    async fn write(&self, store: &Store) {
        let writes = self.inner.limiter().books.writes();
        let all = futures_util::stream::iter(writes);
        all.for_each_concurrent(BUDGET_WRITES, |write| self.write_one(store, write))
            .await;
    }

    async fn write_one(&self, store: &Store, write: Write) {
        let Write { key, entry, over } = write;
        let Ok(json) = serde_json::to_vec(&entry) else { return };
        let written = timeout(BUDGET_ANSWER, store.update(key.as_str(), json.into(), over)).await;
        if let Ok(Ok(revision)) = written {
            self.stored(&key, Some(entry), revision);
            return;
        }
        // Another gateway was first, or the confirmation is lost: the entry says which.
        match timeout(BUDGET_ANSWER, store.entry(key.as_str())).await {
            Ok(Ok(Some(entry))) => self.take(&entry),
            read => tracing::debug!(%key, ?written, ?read, "what the key has used is not stored yet"),
        }
    }
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
