//! Features that a request may need of an engine, and sets of them.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::wire::wire_enum;

wire_enum! {
    /// A feature that some engines have and others lack. The names are those of the members of [`Capabilities`](crate::Capabilities).
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
    const fn bit(self) -> u64 {
        1 << self as u64
    }
}

/// The lowest bit of a set that is a mark.
const FIRST_MARK: u32 = 16;

/// A set of features. On the wire it is a list of names; names that only a newer version knows are skipped.
///
/// A set also has room for [`Features::MARKS`] marks. They mean something only to the process that sets them, and never
/// travel: a gateway numbers with them the labels that its keys require of workers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features(u64);

impl Features {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// How many marks there are.
    pub const MARKS: u32 = u64::BITS - FIRST_MARK;

    /// The set of one mark, of those below [`Features::MARKS`]; any other is the last one.
    #[must_use]
    pub const fn mark(number: u32) -> Self {
        let last = Self::MARKS - 1;
        Self(1 << (FIRST_MARK + if number < last { number } else { last }))
    }

    /// The marks of this set.
    #[must_use]
    pub const fn marks(self) -> Self {
        Self(self.0 >> FIRST_MARK << FIRST_MARK)
    }

    /// This set without its marks.
    #[must_use]
    pub const fn unmarked(self) -> Self {
        self.minus(self.marks())
    }

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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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
    fn marks_are_apart_from_features_and_do_not_travel() {
        assert!(
            Feature::ALL
                .iter()
                .all(|feature| Features::from(*feature).marks().is_empty())
        );
        let both = Features::from(Feature::Chat).or(Features::mark(3));
        assert_eq!(
            (both.unmarked(), both.marks()),
            (Feature::Chat.into(), Features::mark(3))
        );
        assert_eq!(both.iter().count(), 1);
        assert_eq!(Features::mark(99), Features::mark(Features::MARKS - 1));
        let again: Features = crate::decode(&crate::encode(&both).unwrap()).unwrap();
        assert_eq!(again, Feature::Chat.into());
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
