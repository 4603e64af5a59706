//! What a model can do: what its server tells, what is assumed where it tells nothing, and what the
//! operator knows better. Pure.

use tokenbus_protocol::{Capabilities, Feature, Features};

use crate::engine::Overrides;
use crate::engine::openai::target::{Continuation, ServerKind};

/// Features that only engines that generate have.
const GENERATED: Features = Features::NONE
    .with(Feature::Tools)
    .with(Feature::JsonSchema)
    .with(Feature::Vision)
    .with(Feature::Audio)
    .with(Feature::Logprobs);

/// Those that few models have. Where nobody tells of them they may be tried, but lists of models do not claim them.
const UNCOMMON: Features = Features::NONE.with(Feature::Vision).with(Feature::Audio);

/// What is told of a model, by its server and then by the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traits {
    can: Features,
    cannot: Features,
    pub(crate) continuation: Continuation,
}

impl Traits {
    /// A model of which its server has told nothing yet but its name.
    pub(crate) fn of(kind: ServerKind, id: &str) -> Self {
        let mut traits = Self {
            can: Features::NONE,
            cannot: Features::NONE,
            continuation: kind.continuation(),
        };
        match kind {
            // Its pages tell the rest.
            ServerKind::LlamaServer => traits.tell(Feature::Tokenize, Some(true)),
            // A provider lists models of all sorts; their names are all there is.
            ServerKind::Unknown => traits.guess(&id.to_ascii_lowercase()),
            ServerKind::Vllm | ServerKind::Sglang | ServerKind::Ollama => {}
        }
        traits
    }

    fn guess(&mut self, id: &str) {
        let ranks = id.contains("rerank");
        if ranks || id.contains("embed") {
            self.generates(false);
            self.tell(Feature::Embeddings, Some(!ranks));
            self.tell(Feature::Rerank, Some(ranks));
        }
    }

    /// Notes what is told of `feature`, if anything.
    pub(crate) fn tell(&mut self, feature: Feature, told: Option<bool>) {
        match told {
            Some(true) => (self.can, self.cannot) = (self.can.with(feature), self.cannot.without(feature)),
            Some(false) => (self.can, self.cannot) = (self.can.without(feature), self.cannot.with(feature)),
            None => {}
        }
    }

    /// Notes whether it generates at all.
    pub(crate) fn generates(&mut self, generates: bool) {
        self.tell(Feature::Chat, Some(generates));
        self.tell(Feature::Completion, Some(generates));
    }

    /// What is told of `feature`.
    pub(crate) fn told(self, feature: Feature) -> Option<bool> {
        match (self.can.has(feature), self.cannot.has(feature)) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    }

    /// The same, with what the operator says.
    pub(crate) fn overruled(mut self, overrides: Overrides) -> Self {
        for feature in Feature::ALL {
            self.tell(*feature, overrides.told(*feature));
        }
        if overrides.told(Feature::Continuation) == Some(false) {
            self.continuation = Continuation::None;
        }
        self
    }

    /// As told to the cluster. What nobody knows counts as possible where engines commonly can: a server
    /// that cannot says so itself, with a better reason than ours. Embeddings and the like count as
    /// impossible until they are told of: a worker joins their subjects by it.
    pub(crate) fn capabilities(self) -> Capabilities {
        let assumed = GENERATED.with(Feature::Chat).with(Feature::Completion);
        let mut features = assumed.or(self.can).minus(self.cannot);
        let generates = features.has(Feature::Chat) || features.has(Feature::Completion);
        if !generates {
            features = features.minus(GENERATED.minus(self.can));
        }
        let continues = generates && self.continuation != Continuation::None;
        let features = features
            .without(Feature::Continuation)
            .with_if(continues, Feature::Continuation);
        Capabilities::from(features).assuming(UNCOMMON.and(features).minus(self.can))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn set(features: &[Feature]) -> Features {
        features.iter().copied().collect()
    }

    #[test]
    fn what_nobody_knows_is_possible_but_for_what_needs_subjects_of_its_own() {
        let can = Traits::of(ServerKind::Vllm, "m").capabilities();
        assert!(can.chat && can.completion && can.tools && can.vision && can.audio && can.json_schema && can.logprobs);
        assert_eq!(can.assumed, set(&[Feature::Vision, Feature::Audio]));
        assert!(can.continuation && !can.embeddings && !can.rerank && !can.score && !can.tokenize);
        assert!(!Traits::of(ServerKind::Unknown, "m").capabilities().continuation);
        assert!(Traits::of(ServerKind::LlamaServer, "m").capabilities().tokenize);
    }

    #[test]
    fn a_providers_models_are_known_by_their_names() {
        let of = |id| Traits::of(ServerKind::Unknown, id).capabilities().features();
        assert_eq!(of("text-embedding-3-small"), Feature::Embeddings.into());
        assert_eq!(of("Org/Big-Reranker-v2"), Feature::Rerank.into());
        assert!(of("gpt-4o").has(Feature::Chat) && !of("gpt-4o").has(Feature::Embeddings));
        let told = Traits::of(ServerKind::Vllm, "text-embedding-3-small").capabilities();
        assert!(told.chat, "vLLM tells it by its routes, not by a name");
    }

    #[test]
    fn a_model_that_generates_nothing_has_none_of_what_generating_needs() {
        let mut traits = Traits::of(ServerKind::Sglang, "m");
        traits.generates(false);
        traits.tell(Feature::Embeddings, Some(true));
        traits.tell(Feature::Vision, Some(true));
        let can = traits.capabilities().features();
        assert_eq!(can, set(&[Feature::Embeddings, Feature::Vision]));
    }

    #[test]
    fn the_operator_has_the_last_word() {
        let mut traits = Traits::of(ServerKind::LlamaServer, "m");
        traits.tell(Feature::Tools, Some(false));
        let overrides = Overrides::new(
            set(&[Feature::Tools, Feature::Embeddings]),
            set(&[Feature::Vision, Feature::Continuation]),
        );
        let traits = traits.overruled(overrides.unwrap());
        assert_eq!(
            (traits.told(Feature::Tools), traits.told(Feature::Vision)),
            (Some(true), Some(false))
        );
        assert_eq!(traits.told(Feature::Audio), None);
        let can = traits.capabilities();
        assert!(can.tools && can.embeddings && !can.vision && !can.continuation && can.chat);
    }
}
