//! Metrics by API key, and of the files that configure keys and models.

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::OTHER;

/// Keys with series of their own. Further keys share one series; the usage records have them all.
pub(super) const MAX_KEY_LABELS: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeyLabel {
    key: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    key: Arc<str>,
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BudgetLabels {
    key: Arc<str>,
    budget: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    what: &'static str,
    outcome: &'static str,
}

/// Tokens of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// Tokens of the prompt.
    pub prompt: u64,
    /// Completion tokens delivered.
    pub completion: u64,
    /// Tokens of the prompt that the engine had in its cache.
    pub cached: u64,
}

/// The metrics by key.
#[derive(Debug, Default)]
pub(super) struct KeyFamilies {
    pub(super) known: Gauge,
    requests: Family<KeyLabel, Counter>,
    prompt: Family<KeyLabel, Counter>,
    completion: Family<KeyLabel, Counter>,
    cached: Family<KeyLabel, Counter>,
    limited: Family<LimitLabels, Counter>,
    unauthorized: Family<ReasonLabel, Counter>,
    reloads: Family<ReloadLabels, Counter>,
    usage_published: Counter,
    pub(super) usage_dropped: Counter,
    pub(super) usage_waiting: Gauge,
    pub(super) held: Gauge,
    pub(super) losses: Counter,
    budget_limit: Family<BudgetLabels, Gauge<f64, AtomicU64>>,
    budget_used: Family<BudgetLabels, Gauge<f64, AtomicU64>>,
    budgets_shown: Mutex<HashSet<BudgetLabels>>,
    pub(super) budget_writes: Gauge,
    names: Mutex<HashSet<Arc<str>>>,
}

impl KeyFamilies {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("keys", "API keys that are known", self.known.clone());
        registry.register("key_requests", "Requests by API key", self.requests.clone());
        for (name, help, family) in [
            (
                "key_prompt_tokens",
                "Prompt tokens by API key; estimated where the engine did not tell",
                &self.prompt,
            ),
            (
                "key_completion_tokens",
                "Completion tokens delivered by API key",
                &self.completion,
            ),
            (
                "key_cached_tokens",
                "Prompt tokens from a cache by API key",
                &self.cached,
            ),
        ] {
            registry.register(name, help, family.clone());
        }
        registry.register(
            "key_limited",
            "Requests refused because a limit of their API key was reached",
            self.limited.clone(),
        );
        registry.register(
            "key_budget_limit",
            "Budgets of API keys: tokens, or money in your currency",
            self.budget_limit.clone(),
        );
        registry.register(
            "key_budget_used",
            "What was used of the budgets of API keys at all gateways, in this day or month",
            self.budget_used.clone(),
        );
        registry.register(
            "key_budget_writes_waiting",
            "API keys of which something used waits to be written to the bucket of budgets",
            self.budget_writes.clone(),
        );
        registry.register(
            "unauthorized",
            "Requests refused because they had no API key or a wrong one",
            self.unauthorized.clone(),
        );
        registry.register(
            "reloads",
            "Files and buckets of settings that were read again, by what became of it",
            self.reloads.clone(),
        );
        registry.register("usage_records", "Usage records published", self.usage_published.clone());
        registry.register(
            "usage_records_dropped",
            "Usage records that are lost: the queue was full, or the bus did not take them",
            self.usage_dropped.clone(),
        );
        registry.register(
            "usage_records_waiting",
            "Usage records that wait to be published, or for the stream to confirm them",
            self.usage_waiting.clone(),
        );
        registry.register(
            "keys_held",
            "API keys that vanished without being revoked, and hold for a time",
            self.held.clone(),
        );
        registry.register(
            "key_bucket_losses",
            "Times that the bucket of keys was found empty or made anew, with no key revoked",
            self.losses.clone(),
        );
    }

    fn label(&self, key: &str) -> Arc<str> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(key) {
            return Arc::clone(known);
        }
        if names.len() >= MAX_KEY_LABELS {
            return OTHER.into();
        }
        let name: Arc<str> = key.into();
        names.insert(Arc::clone(&name));
        name
    }

    pub(super) fn used(&self, key: &str, tokens: Tokens) {
        let label = KeyLabel { key: self.label(key) };
        self.requests.get_or_create(&label).inc();
        self.prompt.get_or_create(&label).inc_by(tokens.prompt);
        self.completion.get_or_create(&label).inc_by(tokens.completion);
        self.cached.get_or_create(&label).inc_by(tokens.cached);
    }

    pub(super) fn limited(&self, key: &str, limit: &'static str) {
        let key = self.label(key);
        self.limited.get_or_create(&LimitLabels { key, limit }).inc();
    }

    /// Shows these budgets, and no longer those that are not among them. Keys without series of their own are left out.
    pub(super) fn budgets<'a>(&self, budgets: impl Iterator<Item = (&'a str, &'static str, f64, f64)>) {
        let mut shown = self.budgets_shown.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gone = std::mem::take(&mut *shown);
        for (key, budget, limit, used) in budgets {
            let key = self.label(key);
            if &*key == OTHER {
                continue;
            }
            let labels = BudgetLabels { key, budget };
            self.budget_limit.get_or_create(&labels).set(limit);
            self.budget_used.get_or_create(&labels).set(used);
            gone.remove(&labels);
            shown.insert(labels);
        }
        for labels in gone {
            self.budget_limit.remove(&labels);
            self.budget_used.remove(&labels);
        }
    }

    pub(super) fn unauthorized(&self, reason: &'static str) {
        self.unauthorized.get_or_create(&ReasonLabel { reason }).inc();
    }

    fn reload(&self, what: &'static str, applied: bool) -> Counter {
        let outcome = if applied { "applied" } else { "refused" };
        self.reloads.get_or_create_owned(&ReloadLabels { what, outcome })
    }

    pub(super) fn reloaded(&self, what: &'static str, applied: bool) {
        self.reload(what, applied).inc();
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn reloads(&self, what: &'static str, applied: bool) -> u64 {
        self.reload(what, applied).get()
    }

    pub(super) fn usage_done(&self, published: bool) {
        self.usage_waiting.dec();
        if published {
            self.usage_published.inc();
        } else {
            self.usage_dropped.inc();
        }
    }
}
