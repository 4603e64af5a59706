//! How models are scaled, as written in `[models."NAME".scale]`. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use tokenbus_protocol::MAX_MODEL_NAME;

use crate::limits::{EXPECTED_START, IDLE_AFTER, MAX_MODELS, SCALE_DOWN_AFTER};

/// How one model is scaled.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct ScaleRule {
    /// Fewest workers. With 0, the last one is stopped when nobody asks for the model.
    pub(crate) min: u32,
    /// Most workers.
    pub(crate) max: u32,
    /// Time to the first token that requests should have; without one, no request should wait for a slot.
    #[serde(deserialize_with = "some_duration")]
    pub(crate) target_ttft: Option<Duration>,
    /// How long the load must be lower before there are fewer workers.
    #[serde(deserialize_with = "duration")]
    pub(crate) down_after: Duration,
    /// Time without a request after which there is no worker, if `min` is 0.
    #[serde(deserialize_with = "duration")]
    pub(crate) idle_after: Duration,
    /// Time from the wish for a first worker until it is ready, until it has been measured.
    #[serde(deserialize_with = "duration")]
    pub(crate) start: Duration,
}

impl Default for ScaleRule {
    fn default() -> Self {
        Self {
            min: 1,
            max: u32::MAX,
            target_ttft: None,
            down_after: SCALE_DOWN_AFTER,
            idle_after: IDLE_AFTER,
            start: EXPECTED_START,
        }
    }
}

/// How the configured models are scaled, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScaleRules(BTreeMap<String, ScaleRule>);

/// Why rules are invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScaleRulesError {
    /// The text is not TOML, or not of this form.
    #[error("{0}")]
    Toml(String),
    /// An invalid model.
    #[error("model {model:?}: {reason}")]
    Model {
        /// The model.
        model: String,
        /// What is invalid.
        reason: &'static str,
    },
    /// Too many models.
    #[error("there are more than {MAX_MODELS} models")]
    TooMany,
}

/// The part of a settings file that is about scaling.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    models: BTreeMap<String, Entry>,
}

/// A model's table. What else stands there is for gateways.
#[derive(Deserialize)]
struct Entry {
    scale: Option<ScaleRule>,
}

impl ScaleRules {
    /// Reads the tables `[models."NAME".scale]` of a settings file or a file of models.
    ///
    /// # Errors
    /// [`ScaleRulesError`] names the line or the model.
    pub fn parse(text: &str) -> Result<Self, ScaleRulesError> {
        let file: File = toml::from_str(text).map_err(|error| ScaleRulesError::Toml(error.to_string()))?;
        let scaled = file.models.into_iter();
        let rules: BTreeMap<String, ScaleRule> =
            scaled.filter_map(|(name, entry)| Some((name, entry.scale?))).collect();
        if rules.len() > MAX_MODELS {
            return Err(ScaleRulesError::TooMany);
        }
        for (name, rule) in &rules {
            let reason = if name.is_empty() || name.len() > MAX_MODEL_NAME {
                "its name is empty or too long"
            } else if rule.max == 0 {
                "max is 0: it could never have a worker"
            } else if rule.min > rule.max {
                "min is greater than max"
            } else {
                continue;
            };
            let model = name.clone();
            return Err(ScaleRulesError::Model { model, reason });
        }
        Ok(Self(rules))
    }

    /// Whether no model is configured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rule of `model`, if it has one.
    pub(crate) fn get(&self, model: &str) -> Option<&ScaleRule> {
        self.0.get(model)
    }

    /// All configured models.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &ScaleRule)> {
        self.0.iter().map(|(name, rule)| (name.as_str(), rule))
    }
}

fn duration<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text)
        .map_err(|error| serde::de::Error::custom(format!("{text:?}: {error}; write it like 20ms, 5s or 2m")))
}

fn some_duration<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rules_stand_among_other_settings() {
        let text = r#"
            nats = "nats://a"
            [models."gpt"]
            targets = ["a"]
            [models."a".defaults]
            temperature = 0.5
            [models."a".scale]
            min = 0
            max = 3
            target-ttft = "2s"
            idle-after = "10m"
            [models."b".scale]
        "#;
        let rules = ScaleRules::parse(text).unwrap();
        assert_eq!(rules.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b"]);
        let expected = ScaleRule {
            min: 0,
            max: 3,
            target_ttft: Some(Duration::from_secs(2)),
            idle_after: Duration::from_secs(600),
            ..ScaleRule::default()
        };
        assert_eq!(rules.get("a"), Some(&expected));
        assert_eq!(rules.get("b"), Some(&ScaleRule::default()));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let of = |rule: &str| {
            ScaleRules::parse(&format!("[models.m.scale]\n{rule}"))
                .unwrap_err()
                .to_string()
        };
        assert!(of("min = 3\nmax = 2").contains("greater"));
        assert!(of("max = 0").contains("never"));
        assert!(of("mni = 3").contains("unknown field"));
        assert!(of("start = \"5\"").contains("5s"));
        assert!(of("min = -1").contains("line 2"));
    }
}
