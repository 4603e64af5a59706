//! Aliases, fallbacks and defaults as written, and what a name stands for; pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use tokenbus_api::{ListedModel, check_chat};
use tokenbus_protocol::{Capabilities, Labels, MAX_LABELS, MAX_MODEL_NAME};

use super::aliases::{Draft, Target, Written};
use super::prices::{PriceAt, Prices};
use super::splice::Defaults;
use crate::auth::budget::Price;
use crate::file_watch::toml_line;
use crate::placement::{Policies, Policy, Selector, Tier};

/// Most configured names.
const MAX_MODELS: usize = 10_000;

/// Request members without defaults: what is asked, and the form of the answer, are the client's choice.
const NO_DEFAULTS: [&str; 7] = ["model", "messages", "prompt", "input", "stream", "stream_options", "n"];

/// One table of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default)]
    defaults: BTreeMap<String, toml::Value>,
    #[serde(default)]
    offered_tools: OfferedTools,
    price: Option<Price>,
    #[serde(default)]
    prices: Vec<PriceAt>,
    #[serde(default)]
    require: Labels,
    #[serde(default)]
    tiers: Vec<Tier>,
    #[serde(default)]
    prefer: Vec<Selector>,
    #[serde(default)]
    avoid: Vec<Selector>,
    #[serde(default, deserialize_with = "duration")]
    tier_wait: Option<Duration>,
    /// For the coordinator.
    #[serde(default, rename = "scale")]
    _scale: IgnoredAny,
}

impl Entry {
    /// The order in which requests use the workers of the model `name`; `None` without one of its own.
    fn policy(&self, name: &str) -> Result<Option<Policy>, String> {
        let policy = Policy {
            tiers: self.tiers.clone(),
            prefer: self.prefer.clone(),
            avoid: self.avoid.clone(),
            tier_wait: self.tier_wait,
        };
        if policy.is_empty() {
            return Ok(None);
        }
        if [self.tiers.len(), self.prefer.len(), self.avoid.len()]
            .iter()
            .any(|count| *count > MAX_LABELS)
        {
            return Err(format!(
                "there are more than {MAX_LABELS} tiers, or labels that it prefers or avoids"
            ));
        }
        if !self.targets.is_empty() && self.targets.iter().all(|target| target != name) {
            return Err(
                "tiers, prefer, avoid and tier-wait are for models with workers; an alias has those of its targets"
                    .to_owned(),
            );
        }
        Ok(Some(policy))
    }
}

/// What becomes of tools that are only offered to a model that knows none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum OfferedTools {
    /// The model is asked without them, as llama.cpp does it.
    #[default]
    LeaveOut,
    /// The request is refused.
    Refuse,
}

/// A file with models only.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnFile {
    #[serde(default)]
    models: BTreeMap<String, Entry>,
}

/// A file with other tables too.
#[derive(Debug, Deserialize)]
struct SharedFile {
    #[serde(default)]
    models: BTreeMap<String, Entry>,
}

/// Why a configuration is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelTableError {
    /// The text is not TOML, or not of this form.
    #[error("line {line}: {message}")]
    Toml {
        /// Counted from 1.
        line: usize,
        /// The parser's message.
        message: String,
    },
    /// An invalid model.
    #[error("model {model:?}: {reason}")]
    Model {
        /// The model.
        model: String,
        /// What is invalid.
        reason: String,
    },
    /// Too many models.
    #[error("there are more than {MAX_MODELS} models")]
    TooMany,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The models in the order of trial; at least one.
    pub targets: Vec<Target>,
}

impl Route {
    /// The alias `name` as it is listed beside `models`: with the properties of its first live target, or else of its
    /// first known one.
    pub(super) fn listed(&self, name: &str, models: &[ListedModel]) -> ListedModel {
        let known = |target: &Target| models.iter().find(|model| model.name == target.model);
        let all: Vec<&ListedModel> = self.targets.iter().filter_map(known).collect();
        let model = all.iter().find(|model| model.live).or(all.first());
        ListedModel {
            name: name.to_owned(),
            created: model.map_or(0, |model| model.created),
            context_length: model.and_then(|model| model.context_length),
            capabilities: model.map_or_else(Capabilities::default, |model| model.capabilities),
            live: model.is_some_and(|model| model.live),
        }
    }
}

/// The configured models.
#[derive(Debug, Default)]
pub struct ModelTable {
    routes: HashMap<String, Arc<Route>>,
    /// Names that stand for other models.
    aliases: Vec<String>,
    /// Names whose requests keep their tools, so that a model without tools refuses them.
    strict: HashSet<String>,
    prices: HashMap<String, Prices>,
    policies: Arc<Policies>,
}

impl ModelTable {
    /// Reads a configuration. In a `shared` file, tables other than `models` are ignored.
    ///
    /// # Errors
    /// [`ModelTableError`] names the line or the model.
    pub fn parse(text: &str, shared: bool) -> Result<Self, ModelTableError> {
        let read = if shared {
            toml::from_str::<SharedFile>(text).map(|file| file.models)
        } else {
            toml::from_str::<OwnFile>(text).map(|file| file.models)
        };
        let entries = read.map_err(|error| ModelTableError::Toml {
            line: toml_line(text, &error),
            message: error.message().to_owned(),
        })?;
        Self::new(&entries)
    }

    fn new(entries: &BTreeMap<String, Entry>) -> Result<Self, ModelTableError> {
        if entries.len() > MAX_MODELS {
            return Err(ModelTableError::TooMany);
        }
        let mut draft = Draft::default();
        for (name, entry) in entries {
            let wrong = |reason| ModelTableError::Model {
                model: name.clone(),
                reason,
            };
            named(name).map_err(wrong)?;
            entry
                .targets
                .iter()
                .try_for_each(|target| named(target))
                .map_err(wrong)?;
            let defaults = defaults(&entry.defaults).map_err(wrong)?;
            draft.add(
                name,
                Written {
                    targets: &entry.targets,
                    require: &entry.require,
                    defaults,
                },
            );
        }
        let (mut table, mut policies) = (Self::default(), Policies::new());
        for (name, entry) in entries {
            let wrong = |reason| ModelTableError::Model {
                model: name.clone(),
                reason,
            };
            let targets = draft.targets(name).map_err(wrong)?;
            if let Some(policy) = entry.policy(name).map_err(wrong)? {
                policies.insert(name.clone(), policy);
            }
            if !entry.targets.is_empty() {
                table.aliases.push(name.clone());
            }
            if entry.offered_tools == OfferedTools::Refuse {
                table.strict.insert(name.clone());
            }
            table
                .prices
                .insert(name.clone(), Prices::new(entry.price, entry.prices.clone()));
            table.routes.insert(name.clone(), Arc::new(Route { targets }));
        }
        table.policies = Arc::new(policies);
        Ok(table)
    }

    /// What `name` stands for, if it is configured.
    pub fn route(&self, name: &str) -> Option<Arc<Route>> {
        self.routes.get(name).cloned()
    }

    /// Whether a request for `name` keeps the tools that it offers, whatever the model knows.
    pub fn keeps_offered_tools(&self, name: &str) -> bool {
        self.strict.contains(name)
    }

    /// What the tokens of `name` cost at a worker with these labels, if it has a price there.
    pub fn price(&self, name: &str, labels: &Labels) -> Option<Price> {
        self.prices.get(name)?.at(labels)
    }

    /// In which order requests use the workers of the models that have one of their own.
    pub fn policies(&self) -> Arc<Policies> {
        Arc::clone(&self.policies)
    }

    /// Whether `name` stands for other models.
    pub fn is_alias(&self, name: &str) -> bool {
        self.aliases.iter().any(|alias| alias == name)
    }

    /// The aliases and what they stand for.
    pub fn aliases(&self) -> impl Iterator<Item = (&str, &Route)> {
        let routes = self.aliases.iter().map(|name| (name, self.routes.get(name)));
        routes.filter_map(|(name, route)| Some((name.as_str(), &**route?)))
    }
}

fn named(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_MODEL_NAME {
        return Err(format!(
            "a model's name must have 1 to {MAX_MODEL_NAME} bytes, unlike {name:?}"
        ));
    }
    Ok(())
}

/// The defaults of one model, checked like members of a client's request.
fn defaults(written: &BTreeMap<String, toml::Value>) -> Result<Defaults, String> {
    let mut defaults = Defaults::default();
    for (member, value) in written {
        if NO_DEFAULTS.contains(&member.as_str()) {
            return Err(format!("{member} cannot have a default"));
        }
        defaults.add(member, &json(member, value)?)?;
    }
    let bare = br#"{"model":"m","messages":[{"role":"user","content":""}]}"#;
    let asked = |body: &[u8]| check_chat(body).map_err(|error| error.to_string());
    let full = defaults.fill(bare, "m").map_err(|error| error.to_string())?;
    let (bare, full) = (asked(bare)?, asked(&full)?);
    // A default must not change what the engine needs, which is read from the client's own body.
    if bare.needs != full.needs || bare.not_resumable != full.not_resumable {
        return Err("tools, formats and grammars cannot have defaults".to_owned());
    }
    Ok(defaults)
}

fn duration<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    let read = humantime::parse_duration(&text);
    let wrong = |error| serde::de::Error::custom(format!("{text:?}: {error}; write it like 20ms, 5s or 2m"));
    read.map(Some).map_err(wrong)
}

fn json(member: &str, value: &toml::Value) -> Result<serde_json::Value, String> {
    use serde_json::Value as Json;
    Ok(match value {
        toml::Value::String(text) => Json::from(text.as_str()),
        toml::Value::Integer(number) => Json::from(*number),
        toml::Value::Float(number) if number.is_finite() => Json::from(*number),
        toml::Value::Boolean(flag) => Json::from(*flag),
        toml::Value::Array(items) => {
            let items: Result<Vec<Json>, String> = items.iter().map(|item| json(member, item)).collect();
            Json::from(items?)
        }
        toml::Value::Table(table) => {
            let mut object = serde_json::Map::new();
            for (name, value) in table {
                object.insert(name.clone(), json(member, value)?);
            }
            Json::from(object)
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) => {
            return Err(format!("{member} has no value in JSON"));
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "model_table_tests.rs"]
mod tests;
