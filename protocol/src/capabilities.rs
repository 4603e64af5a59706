//! What an engine can do with a model, as its worker tells the cluster.

use serde::{Deserialize, Serialize};

use crate::feature::{Family, Feature, Features};

/// In the form that serde calls.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn none(features: &Features) -> bool {
    features.is_empty()
}

/// What an engine can do with a model. An absent member means no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)]
pub struct Capabilities {
    /// Chat completions.
    #[serde(default)]
    pub chat: bool,
    /// Text completions.
    #[serde(default)]
    pub completion: bool,
    /// Embeddings.
    #[serde(default)]
    pub embeddings: bool,
    /// Sorting documents by relevance to a query.
    #[serde(default)]
    pub rerank: bool,
    /// Scoring pairs of texts.
    #[serde(default)]
    pub score: bool,
    /// Turning text into token ids and back.
    #[serde(default)]
    pub tokenize: bool,
    /// Tool calls.
    #[serde(default)]
    pub tools: bool,
    /// `response_format: json_schema`.
    #[serde(default)]
    pub json_schema: bool,
    /// Image parts.
    #[serde(default)]
    pub vision: bool,
    /// Audio parts.
    #[serde(default)]
    pub audio: bool,
    /// Log probabilities.
    #[serde(default)]
    pub logprobs: bool,
    /// Continuing an answer from `resume`.
    #[serde(default)]
    pub continuation: bool,
    /// Those of the above that nobody told: the engine may be asked and says so itself if it cannot.
    #[serde(default, skip_serializing_if = "none")]
    pub assumed: Features,
}

impl Capabilities {
    /// The families that an engine with these capabilities serves.
    pub fn families(self) -> impl Iterator<Item = Family> {
        let serves = move |family: &Family| !family.features().and(self.features()).is_empty();
        Family::ALL.into_iter().filter(serves)
    }

    /// These capabilities as a set.
    pub const fn features(self) -> Features {
        Features::NONE
            .with_if(self.chat, Feature::Chat)
            .with_if(self.completion, Feature::Completion)
            .with_if(self.embeddings, Feature::Embeddings)
            .with_if(self.rerank, Feature::Rerank)
            .with_if(self.score, Feature::Score)
            .with_if(self.tokenize, Feature::Tokenize)
            .with_if(self.tools, Feature::Tools)
            .with_if(self.json_schema, Feature::JsonSchema)
            .with_if(self.vision, Feature::Vision)
            .with_if(self.audio, Feature::Audio)
            .with_if(self.logprobs, Feature::Logprobs)
            .with_if(self.continuation, Feature::Continuation)
    }

    /// What the engine is known to do: without what is only assumed.
    pub const fn known(self) -> Features {
        self.features().minus(self.assumed)
    }

    /// These capabilities with `assumed`, which may be tried but is not known.
    #[must_use]
    pub fn assuming(self, assumed: Features) -> Self {
        Self {
            assumed,
            ..self.features().or(assumed).into()
        }
    }

    /// What one of two engines can do. What one of them knows is known.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let known = self.known().or(other.known());
        Self::from(known).assuming(self.assumed.or(other.assumed).minus(known))
    }
}

impl From<Features> for Capabilities {
    fn from(features: Features) -> Self {
        Self {
            chat: features.has(Feature::Chat),
            completion: features.has(Feature::Completion),
            embeddings: features.has(Feature::Embeddings),
            rerank: features.has(Feature::Rerank),
            score: features.has(Feature::Score),
            tokenize: features.has(Feature::Tokenize),
            tools: features.has(Feature::Tools),
            json_schema: features.has(Feature::JsonSchema),
            vision: features.has(Feature::Vision),
            audio: features.has(Feature::Audio),
            logprobs: features.has(Feature::Logprobs),
            continuation: features.has(Feature::Continuation),
            assumed: Features::NONE,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_one_engine_knows_is_no_assumption_of_both() {
        let known = |feature: Feature| Capabilities::from(Features::from(feature));
        let guess = known(Feature::Chat).assuming(Features::from(Feature::Vision).with(Feature::Audio));
        assert!(guess.vision && guess.audio);
        assert_eq!(guess.known().to_string(), "chat");
        let both = guess.or(known(Feature::Vision));
        assert_eq!(
            (both.known().to_string(), both.assumed.to_string()),
            ("chat, vision".into(), "audio".into())
        );
        // An older version sees what may be tried as possible.
        let wire = rmp_serde::to_vec_named(&both).unwrap();
        assert_eq!(rmp_serde::from_slice::<Capabilities>(&wire).unwrap(), both);
    }

    #[test]
    fn every_feature_is_a_capability_and_comes_back() {
        for feature in Feature::ALL
            .iter()
            .copied()
            .filter(|feature| *feature != Feature::Other)
        {
            let capabilities = Capabilities::from(Features::from(feature));
            assert_eq!(capabilities.features(), feature.into());
            let json = serde_json::to_value(capabilities).unwrap();
            assert_eq!(json[feature.as_str()], true, "a member is named as its feature");
            let trues = json.as_object().unwrap().values().filter(|value| **value == true);
            assert_eq!(trues.count(), 1);
        }
    }

    #[test]
    fn an_engine_joins_the_families_that_it_can_serve() {
        let of = |features: &[Feature]| {
            let features: Features = features.iter().copied().collect();
            Capabilities::from(features).families().collect::<Vec<_>>()
        };
        assert_eq!(of(&[Feature::Completion, Feature::Tools]), [Family::Generate]);
        assert_eq!(
            of(&[Feature::Embeddings, Feature::Score]),
            [Family::Embed, Family::Rank]
        );
        assert_eq!(of(&[Feature::Tools, Feature::Vision]), []);
        let tokens: std::collections::BTreeSet<&str> = Family::ALL.map(Family::token).into();
        assert_eq!(tokens.len(), Family::ALL.len());
    }

    #[test]
    fn a_status_of_an_older_peer_has_no_more_than_it_says() {
        let older: Capabilities = serde_json::from_str(r#"{"chat":true,"embeddings":false}"#).unwrap();
        assert_eq!(older.features(), Feature::Chat.into());
    }
}
