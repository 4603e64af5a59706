//! API keys: who may ask for what, and how much of it, over all gateways.
//!
//! Pure code decides (`key_table.rs`, `limiter.rs`, `state.rs`, `leaky_bucket.rs`, `estimate.rs`). Loops keep it
//! current: `source/` loads the keys, and `gossip.rs` tells the other gateways. This file has the handle that requests
//! use. See docs/keys.md and docs/limits.md.

pub(crate) mod budget;
pub(crate) mod estimate;
pub(crate) mod gossip;
pub(crate) mod keeper;
pub(crate) mod key_table;
mod leaky_bucket;
pub(crate) mod limiter;
pub(crate) mod limits;
pub(crate) mod pattern;
mod refusal;
pub(crate) mod secret;
pub(crate) mod source;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokenbus_protocol::{Amount, Name};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use budget::{Budget, Price, currency};
use estimate::Estimate;
use key_table::{Key, KeyTable};
use limiter::{Limiter, News, Refusal, RemainingLimits};
use limits::MAX_SECRET;
use secret::KeyHash;
use state::Charge;

use crate::metrics::{Metrics, Tokens};
use tokenbus_bus::clock::unix_seconds;

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
    /// Whether a key has a budget.
    budgeted: watch::Sender<bool>,
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
            budgeted: watch::Sender::default(),
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
        let budgeted = table.keys().any(|key| !key.limits.budgets.is_none());
        let mut known = inner.table.write().unwrap_or_else(PoisonError::into_inner);
        *known = Some(Arc::new(table));
        drop(known);
        inner
            .budgeted
            .send_if_modified(|known| std::mem::replace(known, budgeted) != budgeted);
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
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        limiter.books.at(unix_seconds());
        limiter
    }

    /// Shows the budgets in the metrics.
    fn show_budgets(&self) {
        let Some(table) = self.table() else { return };
        let budgeted = table.keys().filter(|key| !key.limits.budgets.is_none());
        let limiter = self.limiter();
        self.metrics.budget_writes_waiting(limiter.books.waiting());
        self.metrics.budgets(budgeted.flat_map(|key| {
            let spent = limiter.books.spent(&key.name);
            Budget::ALL.into_iter().filter_map(move |budget| {
                let number = |amount: u64| {
                    if budget.is_money() {
                        currency(amount)
                    } else {
                        tokens(amount)
                    }
                };
                let limit = number(key.limits.budgets.limit(budget)?);
                Some((key.name.as_str(), budget.name(), limit, number(budget.of(&spent))))
            })
        }));
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
            used: Amount::default(),
        }
    }

    /// What remains of the key's limits.
    pub fn remaining(&self, now: Instant) -> RemainingLimits {
        let limits = self.key.limits;
        if limits.requests.is_none() && limits.tokens.is_none() && limits.budgets.is_none() {
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
    used: Amount,
}

impl Grant {
    /// The key.
    pub fn key(&self) -> &Key {
        &self.caller.key
    }

    /// Charges the key for the tokens that the request will probably use, at `price`. `estimated` is called only if
    /// tokens or money are limited.
    ///
    /// # Errors
    /// [`Refusal`] says which limit is reached.
    pub fn charge(&mut self, estimated: impl FnOnce() -> Estimate, price: Price, now: Instant) -> Result<(), Refusal> {
        let Caller { key, auth } = &self.caller;
        let (tokens, budgets) = (key.limits.tokens.is_some(), !key.limits.budgets.is_none());
        let Some(charge) = self.charge.as_mut().filter(|_| tokens || budgets) else {
            return Ok(());
        };
        let Estimate { prompt, completion } = estimated();
        let expected = price.of(Tokens {
            prompt,
            completion,
            cached: 0,
        });
        if tokens {
            let charged = auth.limiter().charge(&key.name, charge, expected.tokens, now);
            auth.tell(charged?);
        }
        if budgets {
            let held = auth.limiter().expect(&key.name, charge, expected, now);
            auth.tell(held?);
        }
        Ok(())
    }

    /// Sets what the request has used in total, at `price`.
    pub fn used(&mut self, tokens: Tokens, price: Price) {
        self.used = price.of(tokens);
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let Some(charge) = &self.charge else { return };
        let Caller { key, auth } = &self.caller;
        let now = Instant::now();
        let mut limiter = auth.limiter();
        let mut news = limiter.settle(&key.name, charge, self.used.tokens, now);
        if !key.limits.budgets.is_none() {
            news = news.and(limiter.spend(&key.name, charge, self.used, now));
        }
        drop(limiter);
        auth.tell(news);
    }
}

/// Tokens as a number of the metrics.
#[allow(clippy::cast_precision_loss)] // 15 digits are exact
fn tokens(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
