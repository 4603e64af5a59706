//! Aliases, fallbacks and defaults as they are written, and what they mean for a name; pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Deserialize;
use tokenbus_api::chat::check;
use tokenbus_api::models::ListedModel;
use tokenbus_api::request::Checked;
use tokenbus_protocol::{Capabilities, MAX_MODEL_NAME};

use super::splice::Defaults;

/// Names that may be configured.
const MAX_MODELS: usize = 10_000;

/// Models that one request may be tried with.
const MAX_TARGETS: usize = 32;

/// Members of a request that no default can stand for: what is asked and in which form the answer
/// comes is the client's to say.
const NO_DEFAULTS: [&str; 7] = ["model", "messages", "prompt", "input", "stream", "stream_options", "n"];

/// One table of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default)]
    defaults: BTreeMap<String, toml::Value>,
}

/// A file of models only.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnFile {
    #[serde(default)]
    models: BTreeMap<String, Entry>,
}

/// A file in which there is more.
#[derive(Debug, Deserialize)]
struct SharedFile {
    #[serde(default)]
    models: BTreeMap<String, Entry>,
}

/// Why models cannot be configured so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Not TOML, or not of this form.
    #[error("line {line}: {message}")]
    Toml {
        /// From 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A model says what cannot be.
    #[error("model {model:?}: {reason}")]
    Model {
        /// The model.
        model: String,
        /// What is wrong.
        reason: String,
    },
    /// Too many.
    #[error("there are more than {MAX_MODELS} models")]
    TooMany,
}

/// A model that a request may go to.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// By the name that its workers announce.
    pub model: String,
    /// What is filled in where the request does not say.
    pub defaults: Defaults,
}

/// What a name means.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The models, in the order in which they are tried; at least one.
    pub targets: Vec<Target>,
}

impl Route {
    /// The alias `name` of these, as it is listed beside `models`: with what is known of the first
    /// of its models that is live, or else is known.
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

/// What is configured of models.
#[derive(Debug, Default)]
pub struct ModelTable {
    routes: HashMap<String, Arc<Route>>,
    /// Names that stand for other models.
    aliases: Vec<String>,
}

impl ModelTable {
    /// What `text` configures. In a `shared` file, other tables than `models` are passed over.
    ///
    /// # Errors
    /// [`TableError`] names the line or the model.
    pub fn parse(text: &str, shared: bool) -> Result<Self, TableError> {
        let read = if shared {
            toml::from_str::<SharedFile>(text).map(|file| file.models)
        } else {
            toml::from_str::<OwnFile>(text).map(|file| file.models)
        };
        let entries = read.map_err(|error| TableError::Toml {
            line: error
                .span()
                .and_then(|span| text.get(..span.start))
                .map_or(1, |before| before.matches('\n').count() + 1),
            message: error.message().to_owned(),
        })?;
        Self::new(&entries)
    }

    fn new(entries: &BTreeMap<String, Entry>) -> Result<Self, TableError> {
        if entries.len() > MAX_MODELS {
            return Err(TableError::TooMany);
        }
        let mut draft = Draft::default();
        for (name, entry) in entries {
            let wrong = |reason| TableError::Model {
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
            draft.models.insert(name, (&entry.targets, defaults));
        }
        let mut table = Self::default();
        for (name, entry) in entries {
            let targets = draft.targets(name).map_err(|reason| TableError::Model {
                model: name.clone(),
                reason,
            })?;
            if !entry.targets.is_empty() {
                table.aliases.push(name.clone());
            }
            table.routes.insert(name.clone(), Arc::new(Route { targets }));
        }
        Ok(table)
    }

    /// What `name` means, where it means anything special.
    pub fn route(&self, name: &str) -> Option<Arc<Route>> {
        self.routes.get(name).cloned()
    }

    /// Whether `name` stands for other models.
    pub fn is_alias(&self, name: &str) -> bool {
        self.aliases.iter().any(|alias| alias == name)
    }

    /// The names that stand for other models, and for which.
    pub fn aliases(&self) -> impl Iterator<Item = (&str, &Route)> {
        let routes = self.aliases.iter().map(|name| (name, self.routes.get(name)));
        routes.filter_map(|(name, route)| Some((name.as_str(), &**route?)))
    }
}

fn named(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_MODEL_NAME {
        return Err(format!(
            "a model's name has 1 to {MAX_MODEL_NAME} bytes, {name:?} has not"
        ));
    }
    Ok(())
}

/// The defaults of one model, checked as a client's own members would be.
fn defaults(written: &BTreeMap<String, toml::Value>) -> Result<Defaults, String> {
    let mut defaults = Defaults::default();
    for (member, value) in written {
        if NO_DEFAULTS.contains(&member.as_str()) {
            return Err(format!("{member} cannot have a default"));
        }
        defaults.add(member, &json(member, value)?)?;
    }
    let bare = br#"{"model":"m","messages":[{"role":"user","content":""}]}"#;
    let asked = |body: &[u8]| check(body).map(Checked::from).map_err(|error| error.to_string());
    let full = defaults.fill(bare, "m").map_err(|error| error.to_string())?;
    let (bare, full) = (asked(bare)?, asked(&full)?);
    // A default must not make a request another one: what an engine needs for it is found out from
    // what the client sent.
    if bare.needs != full.needs || bare.not_resumable != full.not_resumable {
        return Err("tools, formats and grammars cannot have defaults".to_owned());
    }
    Ok(defaults)
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
        toml::Value::Float(_) | toml::Value::Datetime(_) => return Err(format!("{member} has no value of JSON")),
    })
}

/// What stands in the file, by name, while aliases of aliases are being taken apart.
#[derive(Default)]
struct Draft<'a> {
    models: HashMap<&'a str, (&'a [String], Defaults)>,
}

impl<'a> Draft<'a> {
    fn targets(&self, name: &'a str) -> Result<Vec<Target>, String> {
        let mut found = Vec::new();
        self.collect(name, &Defaults::default(), &mut Vec::new(), &mut found)?;
        Ok(found)
    }

    fn collect(
        &self,
        name: &'a str,
        outer: &Defaults,
        path: &mut Vec<&'a str>,
        found: &mut Vec<Target>,
    ) -> Result<(), String> {
        let real = |defaults: Defaults| Target {
            model: name.to_owned(),
            defaults,
        };
        let add = |target: Target, found: &mut Vec<Target>| {
            if found.iter().any(|known| known.model == target.model) {
                return Ok(());
            }
            if found.len() >= MAX_TARGETS {
                return Err(format!("it stands for more than {MAX_TARGETS} models"));
            }
            found.push(target);
            Ok(())
        };
        let Some((targets, own)) = self.models.get(name) else {
            return add(real(outer.clone()), found);
        };
        let defaults = outer.or(own);
        if targets.is_empty() {
            return add(real(defaults), found);
        }
        if path.contains(&name) {
            return Err(format!("it stands for itself: {} → {name}", path.join(" → ")));
        }
        path.push(name);
        for target in *targets {
            if target == name {
                // Its own name among its models is the model of that name.
                add(real(defaults.clone()), found)?;
            } else {
                self.collect(target, &defaults, path, found)?;
            }
        }
        path.pop();
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "table_tests.rs"]
mod tests;
