//! Features that a request may need of an engine, and sets of them.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::status::Capabilities;
use crate::wire::wire_enum;

wire_enum! {
    /// A feature that some engines have and others lack. The names are those of the members of [`Capabilities`].
    Feature, other = Other, {
        /// Chat completions.
        Chat = "chat",
        /// Text completions.
        Completion = "completion",
        /// Embeddings.
        Embeddings = "embeddings",
        /// Sorting documents by relevance to a query.
        Rerank = "rerank",
        /// Scoring pairs of texts.
        Score = "score",
        /// Turning text into token ids and back.
        Tokenize = "tokenize",
        /// Tool calls.
        Tools = "tools",
        /// `response_format: json_schema`.
        JsonSchema = "json_schema",
        /// Image parts.
        Vision = "vision",
        /// Audio parts, or spoken answers.
        Audio = "audio",
        /// Log probabilities.
        Logprobs = "logprobs",
        /// Continuing an answer from `resume`.
        Continuation = "continuation",
        /// A feature that only a newer version knows. The engine itself must say whether it has it.
        Other = "other",
    }
}

impl Feature {
    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// A set of features. On the wire it is a list of names; names that only a newer version knows are skipped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features(u32);

impl Features {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// This set with `feature`.
    #[must_use]
    pub const fn with(self, feature: Feature) -> Self {
        Self(self.0 | feature.bit())
    }

    /// This set, with `feature` if `needed`.
    #[must_use]
    pub const fn with_if(self, needed: bool, feature: Feature) -> Self {
        if needed { self.with(feature) } else { self }
    }

    /// This set without `feature`.
    #[must_use]
    pub const fn without(self, feature: Feature) -> Self {
        Self(self.0 & !feature.bit())
    }

    /// The features of this set that are not in `other`.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The features in both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The features in either set.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `feature` is in the set.
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & feature.bit() != 0
    }

    /// The number of features.
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The features, in a fixed order.
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.iter().copied().filter(move |feature| self.has(*feature))
    }
}

impl From<Feature> for Features {
    fn from(feature: Feature) -> Self {
        Self::NONE.with(feature)
    }
}

impl FromIterator<Feature> for Features {
    fn from_iter<I: IntoIterator<Item = Feature>>(features: I) -> Self {
        features.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, feature) in self.iter().enumerate() {
            let separator = if n > 0 { ", " } else { "" };
            write!(f, "{separator}{feature}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Serialize for Features {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.iter().collect::<Vec<_>>())
    }
}

impl<'de> Deserialize<'de> for Features {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Features;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of features")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Features, A::Error> {
                let mut features = Features::NONE;
                while let Some(feature) = seq.next_element()? {
                    if feature != Feature::Other {
                        features = features.with(feature);
                    }
                }
                Ok(features)
            }
        }
        d.deserialize_seq(V)
    }
}

/// A family of requests with its own subjects. A worker joins the families that its engine can serve, so that no
/// queue hands it a request that it cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// Chat and text completions.
    Generate,
    /// Embeddings.
    Embed,
    /// Rerank and score.
    Rank,
    /// Tokenize and detokenize.
    Tokens,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 4] = [Self::Generate, Self::Embed, Self::Rank, Self::Tokens];

    /// Its token in subjects.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Generate => "req",
            Self::Embed => "emb",
            Self::Rank => "rank",
            Self::Tokens => "tok",
        }
    }

    /// An engine needs one of these for its worker to join.
    pub const fn features(self) -> Features {
        match self {
            Self::Generate => Features::NONE.with(Feature::Chat).with(Feature::Completion),
            Self::Embed => Features::NONE.with(Feature::Embeddings),
            Self::Rank => Features::NONE.with(Feature::Rerank).with(Feature::Score),
            Self::Tokens => Features::NONE.with(Feature::Tokenize),
        }
    }
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
}

impl Capabilities {
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
    fn sets_are_sets() {
        let some = Features::from_iter([Feature::Tools, Feature::Chat, Feature::Tools]);
        assert_eq!(some.to_string(), "chat, tools");
        assert_eq!(some.minus(Feature::Chat.into()).to_string(), "tools");
        assert_eq!(some.without(Feature::Tools), Feature::Chat.into());
        assert!(some.and(Feature::Vision.into()).is_empty());
        assert!(Features::NONE.or(some).has(Feature::Tools));
        assert_eq!(format!("{some:?}"), "{Chat, Tools}");
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

    #[test]
    fn names_of_a_newer_version_are_passed_over() {
        let bytes = crate::encode(&["tools", "telepathy", "vision"]).unwrap();
        let read: Features = crate::decode(&bytes).unwrap();
        assert_eq!(read, Features::from_iter([Feature::Tools, Feature::Vision]));
        let again: Features = crate::decode(&crate::encode(&read).unwrap()).unwrap();
        assert_eq!(again, read);
    }
}
