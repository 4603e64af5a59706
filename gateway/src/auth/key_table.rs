//! The keys that a gateway knows, pure: their written entries, and the table in which a request's key is looked up.

use std::collections::{BTreeMap, HashMap};
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokenbus_protocol::{Labels, Name};

use super::budget::{Budgets, Money};
use super::limits::{MAX_KEYS, MAX_PATTERNS};
use super::pattern::Pattern;
use super::secret::KeyHash;
use crate::file_watch::toml_line;
use crate::http::limits::{MAX_PRIORITY, MAX_TENANT};

/// One key as written: a table of a key file, or the JSON of a bucket entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KeyEntry {
    /// The key's hash.
    pub hash: KeyHash,
    /// The tenant that is charged and takes turns; the key's own name if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The allowed models, by the names that clients use; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<Pattern>>,
    /// Requests per minute, over all gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// Tokens per minute, prompt and completion, over all gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<NonZeroU64>,
    /// Concurrent requests, over all gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<NonZeroU32>,
    /// Tokens a day of the UTC calendar, prompt and completion, over all gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_day: Option<NonZeroU64>,
    /// Tokens a month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_month: Option<NonZeroU64>,
    /// Money a day, by the models' prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_per_day: Option<Money>,
    /// Money a month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_per_month: Option<Money>,
    /// Priority of its requests, and the highest that they may ask for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// Whether it may read `/metrics`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub metrics: bool,
    /// Whether it may see workers, hosts and loads in `/cluster`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cluster: bool,
    /// Whether its requests may have members that steer the inside of an engine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub engine_members: bool,
    /// Labels of the workers that its requests may go to; any worker if there are none.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands a reference
fn is_zero(priority: &i32) -> bool {
    *priority == 0
}

impl KeyEntry {
    /// A key that may ask for all models, and do no more than that.
    pub fn new(hash: KeyHash) -> Self {
        Self {
            hash,
            tenant: None,
            models: None,
            requests_per_minute: None,
            tokens_per_minute: None,
            streams: None,
            tokens_per_day: None,
            tokens_per_month: None,
            cost_per_day: None,
            cost_per_month: None,
            priority: 0,
            metrics: false,
            cluster: false,
            engine_members: false,
            labels: Labels::default(),
        }
    }

    /// Its budgets.
    pub fn budgets(&self) -> Budgets {
        Budgets {
            tokens_day: self.tokens_per_day,
            tokens_month: self.tokens_per_month,
            cost_day: self.cost_per_day,
            cost_month: self.cost_per_month,
        }
    }

    /// Checks the entry.
    ///
    /// # Errors
    /// A sentence that says what is invalid.
    pub fn check(&self) -> Result<(), String> {
        if let Some(tenant) = &self.tenant
            && (tenant.is_empty()
                || tenant.len() > MAX_TENANT
                || !tenant.bytes().all(|byte| (0x20..0x7f).contains(&byte)))
        {
            return Err(format!("tenant must have 1 to {MAX_TENANT} characters of plain ASCII"));
        }
        match &self.models {
            Some(models) if models.is_empty() => {
                return Err("models is empty, so the key could use none: leave it out to allow all".to_owned());
            }
            Some(models) if models.len() > MAX_PATTERNS => {
                return Err(format!("models has more than {MAX_PATTERNS} patterns"));
            }
            _ => {}
        }
        if self.priority.abs() > MAX_PRIORITY {
            return Err(format!("priority must be between -{MAX_PRIORITY} and {MAX_PRIORITY}"));
        }
        Ok(())
    }
}

/// A key file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    #[serde(default)]
    keys: BTreeMap<String, KeyEntry>,
}

/// Why keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyTableError {
    /// The text is not the TOML of a key file.
    #[error("line {line}: {message}")]
    Toml {
        /// Counted from 1.
        line: usize,
        /// The parser's message.
        message: String,
    },
    /// An invalid name.
    #[error("{name:?} is not a key's name: letters, digits, - and _, at most 64")]
    Name {
        /// The name.
        name: String,
    },
    /// An invalid entry.
    #[error("key {name}: {reason}")]
    Entry {
        /// The key's name.
        name: String,
        /// What is invalid.
        reason: String,
    },
    /// One key under two names.
    #[error("the keys {0} and {1} are the same key")]
    Twice(String, String),
    /// Too many keys.
    #[error("there are more than {MAX_KEYS} keys")]
    TooMany,
}

/// What a key may consume, over all gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Requests per minute.
    pub requests: Option<NonZeroU32>,
    /// Tokens per minute.
    pub tokens: Option<NonZeroU64>,
    /// Concurrent requests.
    pub streams: Option<NonZeroU32>,
    /// In a day and in a month.
    pub budgets: Budgets,
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A key as a gateway knows it.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name in logs, metrics and usage records.
    pub name: Name,
    /// Its tenant.
    pub tenant: String,
    models: Option<Vec<Pattern>>,
    /// What it may consume.
    pub limits: Limits,
    /// Priority of its requests, and the highest that they may ask for.
    pub priority: i32,
    /// Whether it may read `/metrics`.
    pub metrics: bool,
    /// Whether it may see workers, hosts and loads in `/cluster`.
    pub cluster: bool,
    /// Whether its requests may have members that steer the inside of an engine.
    pub engine_members: bool,
    /// Labels that every worker must have that gets a request of it.
    pub labels: Labels,
}

impl Key {
    fn new(name: Name, entry: &KeyEntry) -> Self {
        Self {
            tenant: entry.tenant.clone().unwrap_or_else(|| name.as_str().to_owned()),
            models: entry.models.clone(),
            limits: Limits {
                requests: entry.requests_per_minute,
                tokens: entry.tokens_per_minute,
                streams: entry.streams,
                budgets: entry.budgets(),
            },
            priority: entry.priority,
            metrics: entry.metrics,
            cluster: entry.cluster,
            engine_members: entry.engine_members,
            labels: entry.labels.clone(),
            name,
        }
    }

    /// Whether it may ask for `model`, under the name that the client uses.
    pub fn may_use(&self, model: &str) -> bool {
        self.models
            .as_ref()
            .is_none_or(|models| models.iter().any(|pattern| pattern.matches(model)))
    }
}

/// The keys that a gateway knows.
#[derive(Debug, Default)]
pub struct KeyTable {
    by_hash: HashMap<KeyHash, Arc<Key>>,
    by_name: HashMap<String, Arc<Key>>,
}

impl KeyTable {
    /// Reads the text of a key file.
    ///
    /// # Errors
    /// [`KeyTableError`] names the line or the key.
    pub fn parse(text: &str) -> Result<Self, KeyTableError> {
        let file: KeyFile = toml::from_str(text).map_err(|error| KeyTableError::Toml {
            line: toml_line(text, &error),
            message: error.message().to_owned(),
        })?;
        Self::new(file.keys)
    }

    /// Builds the table of these keys.
    ///
    /// # Errors
    /// [`KeyTableError`] names the key.
    pub fn new(entries: impl IntoIterator<Item = (String, KeyEntry)>) -> Result<Self, KeyTableError> {
        let mut table = Self::default();
        for (name, entry) in entries {
            table.add(name, &entry)?;
        }
        Ok(table)
    }

    fn add(&mut self, name: String, entry: &KeyEntry) -> Result<(), KeyTableError> {
        let Ok(known) = Name::new(name.as_str()) else {
            return Err(KeyTableError::Name { name });
        };
        entry.check().map_err(|reason| KeyTableError::Entry { name, reason })?;
        if self.by_hash.len() >= MAX_KEYS {
            return Err(KeyTableError::TooMany);
        }
        let key = Arc::new(Key::new(known.clone(), entry));
        if let Some(other) = self.by_hash.insert(entry.hash, Arc::clone(&key)) {
            return Err(KeyTableError::Twice(other.name.to_string(), known.to_string()));
        }
        self.by_name.insert(known.as_str().to_owned(), key);
        Ok(())
    }

    /// The key with this hash.
    pub fn find(&self, hash: &KeyHash) -> Option<&Arc<Key>> {
        self.by_hash.get(hash)
    }

    /// The key of this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Key>> {
        self.by_name.get(name)
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.by_name.values().map(|key| &**key)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn hash(of: &str) -> String {
        KeyHash::of(of.as_bytes()).to_string()
    }

    #[test]
    fn a_key_file_says_who_may_do_what() {
        let text = format!(
            "[keys.alice]\nhash = \"{}\"\ntenant = \"team a\"\nmodels = [\"gpt-*\", \"m\"]\nrequests-per-minute = 60\n\
             tokens-per-minute = 1000\nstreams = 2\npriority = -5\nmetrics = true\n[keys.bob]\nhash = \"{}\"\n",
            hash("a"),
            hash("b")
        );
        let table = KeyTable::parse(&text).unwrap();
        assert_eq!(table.len(), 2);
        let alice = table.find(&KeyHash::of(b"a")).unwrap();
        assert_eq!((alice.name.as_str(), alice.tenant.as_str()), ("alice", "team a"));
        assert!(alice.may_use("gpt-4o") && alice.may_use("m") && !alice.may_use("llama"));
        assert_eq!(alice.limits.requests, NonZeroU32::new(60));
        assert_eq!(alice.limits.tokens, NonZeroU64::new(1000));
        assert_eq!(alice.limits.streams, NonZeroU32::new(2));
        assert!(alice.metrics && alice.priority == -5);
        let bob = table.named("bob").unwrap();
        assert_eq!(bob.tenant, "bob");
        assert!(bob.may_use("anything") && bob.limits.is_none() && !bob.metrics);
        assert_eq!(table.find(&KeyHash::of(b"c")), None);
        assert!(KeyTable::parse("").unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let entry = |more: &str| format!("\n[keys.alice]\nhash = \"{}\"\n{more}\n", hash("a"));
        for (text, blamed) in [
            ("[keys.alice]\n", "hash"),
            ("[keys.alice]\nhash = \"tb-secret\"\n", "sha256:"),
            ("[key.alice]\n", "key"),
            ("keys = 3", "line 1"),
            ("[keys", "line 1"),
            (&entry("reqests-per-minute = 3"), "reqests-per-minute"),
            (&entry("requests-per-minute = 0"), "line 4"),
            (&entry("requests-per-minute = -1"), "line 4"),
            (&entry("streams = 0"), "line 4"),
            (&entry("models = []"), "alice"),
            (&entry("tenant = \"\""), "tenant"),
            (&entry("tenant = \"ä\""), "tenant"),
            (&entry("priority = 1001"), "priority"),
            (&entry("").replace("alice", "\"a b\""), "a b"),
            (&(entry("") + &entry("").replace("alice", "bob")), "alice and bob"),
        ] {
            let error = KeyTable::parse(text).unwrap_err().to_string();
            assert!(error.contains(blamed) && !error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn an_entry_comes_back_from_json_and_says_no_more_than_it_must() {
        let mut entry = KeyEntry::new(KeyHash::of(b"a"));
        let json = serde_json::to_string(&entry).unwrap();
        assert_eq!(json, format!("{{\"hash\":\"{}\"}}", hash("a")));
        entry.requests_per_minute = NonZeroU32::new(3);
        entry.models = Some(vec![Pattern::new("x*")]);
        let json = serde_json::to_string(&entry).unwrap();
        assert_eq!(serde_json::from_str::<KeyEntry>(&json).unwrap(), entry);
    }
}
