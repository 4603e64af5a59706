//! Where responses are kept: a key-value bucket in JetStream, which every gateway of the cluster
//! shares.
//!
//! The bucket `{ns}_responses` is made when it is first needed. It forgets a response after its time,
//! and the oldest when it is full. Each response lies under a key that begins with its tenant: an id
//! of another tenant's response is the id of none. What is larger than a message lies in parts; the
//! key itself is written last, so that what can be found is whole.

pub mod limits;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::kv::{Operation, Store};
use async_nats::jetstream::stream;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokenbus_bus::{Bus, FoundStream, StreamError, Streams, WantedStream};
use tokenbus_protocol::{Name, encode_model};
use tokio::time::{Instant, timeout};

/// Settings of the kept responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponsesOptions {
    /// Time for which a response is kept; with none, no response is.
    pub ttl: Duration,
    /// Bytes of all of them together.
    pub bytes: u64,
}

impl Default for ResponsesOptions {
    fn default() -> Self {
        Self {
            ttl: limits::TTL,
            bytes: limits::BYTES,
        }
    }
}

/// Why a response could not be kept or found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no place for responses in this cluster.
    #[error("this cluster keeps no responses: {0}")]
    Absent(String),
    /// There is one, and it did not answer as it should.
    #[error("kept responses cannot be reached at the moment: {0}")]
    Failed(String),
    /// Too large to be kept.
    #[error("the response and its conversation have {0} bytes, more than are kept")]
    TooLarge(usize),
}

/// The kept responses. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ResponsesStore(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    bus: Bus,
    streams: Streams,
    bucket: String,
    options: ResponsesOptions,
    opened: Mutex<Opened>,
}

/// What came of opening the bucket on the present connection.
#[derive(Debug, Clone, Default)]
struct Opened {
    epoch: u64,
    store: Option<Open>,
    failed: Option<(Instant, StoreError)>,
}

/// The bucket, and when it was made sure of.
#[derive(Debug, Clone)]
struct Open {
    store: Store,
    found: FoundStream,
    at: Instant,
}

impl ResponsesStore {
    /// The responses of the cluster `namespace`.
    pub fn new(bus: Bus, namespace: &Name, options: ResponsesOptions) -> Self {
        if options.ttl.is_zero() {
            return Self::absent();
        }
        Self(Some(Arc::new(Inner {
            streams: bus.streams(limits::OPERATION),
            bus,
            bucket: format!("{namespace}_responses"),
            options,
            opened: Mutex::default(),
        })))
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
        if let (Some(inner), Err(StoreError::Failed(_))) = (&self.0, &result) {
            inner.opened().store = None;
            if let Ok(now) = inner.store().await
                && now.found.mark != before.found.mark
            {
                return operation(now.store).await;
            }
        }
        result
    }

    fn part(&self) -> usize {
        let payload = self.0.as_ref().map_or(usize::MAX, |inner| inner.bus.max_payload());
        limits::PART.min((payload / 2).max(1))
    }

    async fn store(&self) -> Result<Open, StoreError> {
        match &self.0 {
            Some(inner) => inner.store().await,
            None => Err(StoreError::Absent("it is switched off".to_owned())),
        }
    }
}

impl Inner {
    async fn store(&self) -> Result<Open, StoreError> {
        let link = self.bus.link().borrow().clone();
        if !link.connected {
            return Err(StoreError::Failed(format!("NATS is not reachable: {}", link.reason)));
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
        // Several requests may do so at once: they all make the same bucket.
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
                    tracing::info!(%error, bucket = self.bucket, "responses are not kept");
                }
            }
        }
        opened
    }

    fn opened(&self) -> std::sync::MutexGuard<'_, Opened> {
        // Not held over code that can leave it half-changed.
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self) -> Result<Open, StoreError> {
        match timeout(limits::OPEN, self.bucket()).await {
            Ok(open) => open,
            Err(_) => Err(StoreError::Failed("JetStream did not answer".to_owned())),
        }
    }

    async fn bucket(&self) -> Result<Open, StoreError> {
        let opened = self.streams.ensure_bucket(&self.bucket, &self.wanted()).await;
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

    /// A key-value bucket as clients make one, but for what happens when it is full. An operator's
    /// bucket keeps its settings, but for the age.
    fn wanted(&self) -> WantedStream {
        let mut wanted = WantedStream::bucket(&self.bucket, "Responses that tokenbus keeps for their conversations");
        wanted.config.max_age = self.options.ttl;
        wanted.config.max_bytes = i64::try_from(self.options.bytes).unwrap_or(i64::MAX);
        wanted.config.duplicate_window = DUPLICATES.min(self.options.ttl);
        wanted.config.discard = stream::DiscardPolicy::Old;
        wanted.same_age = true;
        wanted
    }
}

/// For how long a bucket that could not be opened is not tried again.
fn pause(error: &StoreError) -> Duration {
    match error {
        StoreError::Absent(_) => limits::RETRY,
        StoreError::Failed(_) | StoreError::TooLarge(_) => limits::RETRY_SOON,
    }
}

/// For which JetStream remembers what was published: its own default, which may not be longer than
/// a message is kept.
const DUPLICATES: Duration = Duration::from_secs(120);

/// The first byte of what lies under a key: the response itself follows, or the number of its parts
/// and their bytes.
const WHOLE: u8 = 1;
const PARTS: u8 = 2;
const SIZES: usize = 4 + 8;

/// The key of a response. A tenant's name is escaped, so that it cannot reach into another's keys;
/// an id that is none of ours has no key.
fn key(tenant: Option<&str>, id: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if id.is_empty() || id.len() > 128 || !id.bytes().all(plain) {
        return None;
    }
    Some(match tenant {
        None => format!("all.{id}"),
        Some(tenant) => format!("of.{}.{id}", encode_model(tenant)),
    })
}

fn part_key(key: &str, n: u32) -> String {
    format!("{key}.{n}")
}

async fn write(store: &Store, key: &str, response: Bytes, part: usize) -> Result<(), StoreError> {
    let mut head = BytesMut::new();
    if response.len() < part {
        head.put_u8(WHOLE);
        head.extend_from_slice(&response);
    } else {
        let bytes = response.len() as u64;
        let mut rest = response;
        let mut count: u32 = 0;
        while !rest.is_empty() {
            let piece = rest.split_to(part.min(rest.len()));
            limited(store.put(part_key(key, count), piece)).await?;
            count += 1;
        }
        head.put_u8(PARTS);
        head.put_u32(count);
        head.put_u64(bytes);
    }
    limited(store.put(key, head.freeze())).await.map(drop)
}

async fn find(store: &Store, key: &str) -> Result<Option<Bytes>, StoreError> {
    let Some(mut head) = read(store, key).await?.filter(|head| !head.is_empty()) else {
        return Ok(None);
    };
    match head.get_u8() {
        WHOLE => Ok(Some(head)),
        PARTS if head.len() == SIZES => parts(store, key, head.get_u32(), head.get_u64()).await,
        // Written by a version that knows more.
        _ => Ok(None),
    }
}

async fn remove(store: &Store, key: &str) -> Result<bool, StoreError> {
    let Some(mut head) = read(store, key).await? else {
        return Ok(false);
    };
    limited(store.purge(key)).await?;
    // Parts without their head cannot be found: they go because they are of no use to anybody.
    if head.len() == 1 + SIZES && head.get_u8() == PARTS {
        for n in 0..head.get_u32() {
            limited(store.purge(part_key(key, n))).await?;
        }
    }
    Ok(true)
}

async fn parts(store: &Store, key: &str, count: u32, bytes: u64) -> Result<Option<Bytes>, StoreError> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut whole = BytesMut::with_capacity(bytes.min(limits::ONE));
    for n in 0..count {
        match read(store, &part_key(key, n)).await? {
            Some(part) if whole.len() + part.len() <= bytes.min(limits::ONE) => whole.extend_from_slice(&part),
            // The oldest go first: a part may be gone when its head is not yet.
            _ => return Ok(None),
        }
    }
    Ok((whole.len() == bytes).then(|| whole.freeze()))
}

async fn read(store: &Store, key: &str) -> Result<Option<Bytes>, StoreError> {
    let found = limited(store.get(key)).await?;
    let replicas = store.stream.cached_info().config.num_replicas;
    if found.is_some() || replicas < 2 {
        return Ok(found);
    }
    // Any replica may have been asked, also one that does not know of the newest writes: the one
    // that leads does.
    let subject = format!("{}{key}", store.prefix);
    let asked = timeout(
        limits::OPERATION,
        store.stream.get_last_raw_message_by_subject(&subject),
    )
    .await;
    let message = match asked {
        Ok(Ok(message)) => message,
        Ok(Err(error)) if is_not_found(&error) => return Ok(None),
        Ok(Err(error)) => return Err(failed(error)),
        Err(_) => return Err(StoreError::Failed("JetStream did not answer".to_owned())),
    };
    let operation = message.headers.get("KV-Operation").map(|value| value.as_str().parse());
    let there = matches!(operation, None | Some(Ok(Operation::Put)));
    Ok(there.then_some(message.payload))
}

fn is_not_found(error: &stream::LastRawMessageError) -> bool {
    matches!(error.kind(), stream::LastRawMessageErrorKind::NoMessageFound)
}

async fn limited<T, E: std::fmt::Display>(operation: impl Future<Output = Result<T, E>>) -> Result<T, StoreError> {
    match timeout(limits::OPERATION, operation).await {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(StoreError::Failed("JetStream did not answer".to_owned())),
    }
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_of_one_tenant_and_legal() {
        assert_eq!(key(None, "resp_1a").as_deref(), Some("all.resp_1a"));
        assert_eq!(key(Some("a.b>*"), "resp_1a").as_deref(), Some("of.a=2Eb=3E=2A.resp_1a"));
        // No tenant's name makes another's key, nor that of nobody.
        assert_ne!(key(Some("all"), "x"), key(None, "x"));
        for bad in ["", "a.b", "a b", "*", ">", "resp_ä", &"x".repeat(129)] {
            assert_eq!(key(None, bad), None, "{bad}");
        }
    }
}
