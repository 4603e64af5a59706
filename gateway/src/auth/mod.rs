//! API keys: who may ask for what, and how much of it, over all gateways.
//!
//! Pure code decides (`key_table.rs`, `limiter.rs`, `state.rs`, `leaky_bucket.rs`, `estimate.rs`). Loops keep it
//! current: `source/` loads the keys, and `gossip.rs` tells the other gateways. This file has the handle that requests
//! use. See docs/keys.md and docs/limits.md.

pub(crate) mod estimate;
mod gossip;
pub(crate) mod key_table;
mod leaky_bucket;
pub(crate) mod limiter;
pub(crate) mod limits;
pub(crate) mod pattern;
pub(crate) mod secret;
pub(crate) mod source;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokenbus_protocol::Name;
use tokio::sync::Notify;
use tokio::time::Instant;

use estimate::Estimate;
pub(crate) use gossip::run as gossip;
use key_table::{Key, KeyTable};
use limiter::{Limiter, News, Refusal, RemainingLimits};
use limits::MAX_SECRET;
use secret::KeyHash;
use state::Charge;

use crate::metrics::Metrics;

/// Whether keys are required, and which exist. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Auth(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    /// `None` until the keys are loaded.
    table: RwLock<Option<Arc<KeyTable>>>,
    /// What is wrong with the keys.
    concern: RwLock<Option<String>>,
    limiter: Mutex<Limiter>,
    /// There is news for the other gateways.
    changed: Notify,
    /// The news is urgent.
    urgent: Notify,
    metrics: Metrics,
}

/// Why a request is not authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthError {
    /// The request has no key.
    NoKey,
    /// No such key exists, or no longer.
    UnknownKey,
    /// The keys are not loaded yet.
    NotReady,
}

impl Auth {
    /// No keys are required.
    pub fn off() -> Self {
        Self(None)
    }

    /// Keys are required at the gateway `me`, and are still to be loaded.
    pub fn on(me: Name, metrics: Metrics) -> Self {
        Self(Some(Arc::new(Inner {
            table: RwLock::default(),
            concern: RwLock::default(),
            limiter: Mutex::new(Limiter::new(me)),
            changed: Notify::new(),
            urgent: Notify::new(),
            metrics,
        })))
    }

    /// Whether keys are required.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether requests can be authenticated by now.
    pub fn is_ready(&self) -> bool {
        self.0.as_ref().is_none_or(|inner| inner.table().is_some())
    }

    /// Replaces the keys. Running requests continue.
    pub fn set(&self, table: KeyTable) {
        let Some(inner) = &self.0 else { return };
        inner.metrics.keys().set(i64::try_from(table.len()).unwrap_or(i64::MAX));
        inner.limiter().retain(|name| table.named(name.as_str()).is_some());
        let mut known = inner.table.write().unwrap_or_else(PoisonError::into_inner);
        *known = Some(Arc::new(table));
    }

    /// Forgets the keys: no request can be authenticated until they are set again.
    pub fn forget(&self) {
        let Some(inner) = &self.0 else { return };
        inner.metrics.keys().set(0);
        *inner.table.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Sets what is wrong with the keys, for the readiness check; `None` if nothing is.
    pub fn set_concern(&self, concern: Option<String>) {
        let Some(inner) = &self.0 else { return };
        *inner.concern.write().unwrap_or_else(PoisonError::into_inner) = concern;
    }

    /// What is wrong with the keys.
    pub fn concern(&self) -> Option<String> {
        let inner = self.0.as_ref()?;
        inner.concern.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finds the caller with the first key of `secrets` that is known; `None` if no keys are required.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn authenticate<'a>(&self, secrets: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<Caller>, AuthError> {
        let Some(inner) = &self.0 else { return Ok(None) };
        let table = inner.table().ok_or(AuthError::NotReady)?;
        let mut error = AuthError::NoKey;
        for secret in secrets {
            let short = secret.len() <= MAX_SECRET;
            if let Some(key) = short.then(|| table.find(&KeyHash::of(secret))).flatten() {
                return Ok(Some(Caller {
                    key: Arc::clone(key),
                    auth: Arc::clone(inner),
                }));
            }
            error = AuthError::UnknownKey;
        }
        Err(error)
    }
}

impl Inner {
    fn table(&self) -> Option<Arc<KeyTable>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    // Each change leaves the counts consistent, so a panic elsewhere does no harm.
    fn limiter(&self) -> MutexGuard<'_, Limiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, news: News) {
        if news.urgent {
            self.urgent.notify_one();
        }
        if news.some {
            self.changed.notify_one();
        }
    }
}

/// An authenticated caller.
#[derive(Debug, Clone)]
pub struct Caller {
    key: Arc<Key>,
    auth: Arc<Inner>,
}

impl Caller {
    /// The caller's key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Admits a request within the key's limits, by what is known before its body is read.
    ///
    /// # Errors
    /// [`Refusal`] says which limit is reached.
    pub fn admit(&self, now: Instant) -> Result<Grant, Refusal> {
        let limits = self.key.limits;
        if limits.is_none() {
            return Ok(self.grant(None));
        }
        let admitted = self.auth.limiter().admit(&self.key.name, limits, now);
        let (charge, news) = admitted?;
        self.auth.tell(news);
        Ok(self.grant(Some(charge)))
    }

    fn grant(&self, charge: Option<Charge>) -> Grant {
        Grant {
            caller: self.clone(),
            charge,
            used: 0,
        }
    }

    /// What remains of the key's limits.
    pub fn remaining(&self, now: Instant) -> RemainingLimits {
        let limits = self.key.limits;
        if limits.requests.is_none() && limits.tokens.is_none() {
            return RemainingLimits::default();
        }
        self.auth.limiter().remaining(&self.key.name, limits, now)
    }
}

/// An admitted request. It counts as running until this is dropped; then its key is charged for what it used.
#[derive(Debug)]
pub struct Grant {
    caller: Caller,
    charge: Option<Charge>,
    used: u64,
}

impl Grant {
    /// The key.
    pub fn key(&self) -> &Key {
        &self.caller.key
    }

    /// Charges the key for the tokens that the request will probably use. `estimated` is called only if tokens are
    /// limited.
    ///
    /// # Errors
    /// [`Refusal`] says which limit is reached.
    pub fn charge(&mut self, estimated: impl FnOnce() -> Estimate, now: Instant) -> Result<(), Refusal> {
        let Caller { key, auth } = &self.caller;
        let Some(charge) = self.charge.as_mut().filter(|_| key.limits.tokens.is_some()) else {
            return Ok(());
        };
        let Estimate { prompt, completion } = estimated();
        let tokens = prompt.saturating_add(completion);
        let charged = auth.limiter().charge(&key.name, charge, tokens, now);
        auth.tell(charged?);
        Ok(())
    }

    /// Sets how many tokens the request has used in total.
    pub fn used(&mut self, tokens: u64) {
        self.used = tokens;
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if let Some(charge) = &self.charge {
            let auth = &self.caller.auth;
            let name = &self.caller.key.name;
            let news = auth.limiter().settle(name, charge, self.used, Instant::now());
            auth.tell(news);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn on(keys: &str) -> Auth {
        let auth = Auth::on(Name::new("g").unwrap(), Metrics::default());
        auth.set(KeyTable::parse(keys).unwrap());
        auth
    }

    fn entry(name: &str, secret: &str, more: &str) -> String {
        format!("[keys.{name}]\nhash = \"{}\"\n{more}\n", KeyHash::of(secret.as_bytes()))
    }

    fn estimate(completion: u64) -> Estimate {
        Estimate { prompt: 0, completion }
    }

    #[test]
    fn nobody_is_asked_where_keys_are_off() {
        let auth = Auth::off();
        assert!(auth.is_ready() && !auth.is_on());
        assert!(matches!(auth.authenticate(None), Ok(None)));
    }

    #[test]
    fn only_whoever_has_a_key_is_known() {
        let auth = Auth::on(Name::new("g").unwrap(), Metrics::default());
        let stranger = |auth: &Auth, secret: Option<&[u8]>| auth.authenticate(secret).map(|_| ()).unwrap_err();
        assert!(!auth.is_ready());
        assert_eq!(stranger(&auth, Some(b"a")), AuthError::NotReady);
        auth.set(KeyTable::parse(&entry("alice", "a", "")).unwrap());
        assert!(auth.is_ready());
        assert_eq!(stranger(&auth, None), AuthError::NoKey);
        for wrong in [&b""[..], b"A", b"aa", &[b'a'; MAX_SECRET + 1]] {
            assert_eq!(stranger(&auth, Some(wrong)), AuthError::UnknownKey);
        }
        for secrets in [
            &[&b"a"[..]][..],
            &[b"stale", b"a"],
            &[b"a", b"stale"],
            &[&[b'a'; MAX_SECRET + 1], b"a"],
        ] {
            let caller = auth.authenticate(secrets.iter().copied()).unwrap().unwrap();
            assert_eq!(caller.key().name.as_str(), "alice");
        }
        auth.set(KeyTable::parse(&entry("bob", "b", "")).unwrap());
        assert_eq!(stranger(&auth, Some(b"a")), AuthError::UnknownKey);
    }

    #[test]
    fn a_request_counts_as_running_until_its_grant_is_dropped() {
        let auth = on(&entry("alice", "a", "streams = 1\ntokens-per-minute = 600"));
        let caller = auth.authenticate([&b"a"[..]]).unwrap().unwrap();
        let now = Instant::now();
        let mut grant = caller.admit(now).unwrap();
        grant.charge(|| estimate(500), now).unwrap();
        assert!(matches!(caller.admit(now), Err(Refusal::Streams { limit: 1 })));
        let remaining = || caller.remaining(Instant::now()).tokens.unwrap().remaining;
        assert!((100..110).contains(&remaining()));
        grant.used(200);
        drop(grant);
        assert!((400..430).contains(&remaining()));
        drop(caller.admit(now).unwrap());
    }

    #[test]
    fn a_key_without_limits_costs_nothing_and_is_told_nothing() {
        let auth = on(&entry("alice", "a", ""));
        let caller = auth.authenticate([&b"a"[..]]).unwrap().unwrap();
        let grants: Vec<Grant> = (0..100)
            .map(|_| {
                let mut grant = caller.admit(Instant::now()).unwrap();
                grant.charge(|| unreachable!(), Instant::now()).unwrap();
                grant
            })
            .collect();
        assert_eq!(caller.remaining(Instant::now()), RemainingLimits::default());
        drop(grants);
        assert!(
            caller.auth.limiter().tell(limiter::Scope::Active, Instant::now())[0]
                .keys
                .is_empty()
        );
    }

    #[test]
    fn requests_that_run_go_on_when_their_key_is_revoked() {
        let auth = on(&entry("alice", "a", "streams = 1"));
        let caller = auth.authenticate([&b"a"[..]]).unwrap().unwrap();
        let grant = caller.admit(Instant::now()).unwrap();
        auth.set(KeyTable::default());
        drop(grant);
        auth.set(KeyTable::parse(&entry("alice", "a", "streams = 1")).unwrap());
        drop(caller.admit(Instant::now()).unwrap());
    }
}
