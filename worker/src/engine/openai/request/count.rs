//! Tokens by the engine's own count: how it is asked for, and what each chunk adds to it. Pure.
//!
//! A chunk is not a token: a character of several tokens comes in one chunk when its last token is
//! there, a text that may begin a stop string comes when it turns out not to, and under load an engine
//! sends what several steps have made. What goes on elsewhere is bounded by what was counted here.

use serde::Deserialize;
use serde_json::value::RawValue;
use tokenbus_protocol::RawObject;

use super::members::parsed;
use crate::engine::openai::target::ServerKind;

/// The member of a request that makes llama-server tell its `timings` in each chunk.
pub(crate) const PER_TOKEN: &str = "timings_per_token";

/// Where a chunk tells how many tokens its choice has so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Counting {
    /// Nowhere: a chunk that says something counts as one, unless it lists its tokens.
    #[default]
    Chunks,
    /// In `timings.predicted_n` (llama-server).
    Timings {
        /// The client has not asked for them.
        hidden: bool,
    },
    /// In `usage.completion_tokens` (vLLM, SGLang). A chunk's usage never goes to a client.
    Usage,
}

impl Counting {
    /// How a server of `kind` can tell it in the answer to the request `object`.
    pub(crate) fn of(kind: ServerKind, object: &RawObject) -> Self {
        match kind {
            ServerKind::LlamaServer => Self::Timings {
                hidden: parsed::<bool>(object, PER_TOKEN) != Some(true),
            },
            ServerKind::Vllm | ServerKind::Sglang => Self::Usage,
            ServerKind::Ollama | ServerKind::Unknown => Self::Chunks,
        }
    }

    /// The member of `stream_options` that asks for it.
    pub(crate) fn option(self) -> Option<&'static str> {
        (self == Self::Usage).then_some("continuous_usage_stats")
    }

    /// The object of a chunk that has the count.
    pub(crate) fn counter<'c>(
        self,
        usage: Option<&'c RawValue>,
        timings: Option<&'c RawValue>,
    ) -> Option<&'c RawValue> {
        match self {
            Self::Chunks => None,
            Self::Timings { .. } => timings,
            Self::Usage => usage,
        }
    }

    /// The count in such an object.
    fn read(self, counter: &str) -> Option<u64> {
        #[derive(Deserialize)]
        struct Timings {
            predicted_n: u64,
        }
        #[derive(Deserialize)]
        struct Usage {
            completion_tokens: u64,
        }
        match self {
            Self::Chunks => None,
            Self::Timings { .. } => serde_json::from_str(counter)
                .ok()
                .map(|Timings { predicted_n }| predicted_n),
            Self::Usage => serde_json::from_str(counter)
                .ok()
                .map(|Usage { completion_tokens }| completion_tokens),
        }
    }
}

/// What was counted of one answer.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    counting: Counting,
    /// Tokens told of each choice that has begun, by index.
    told: Vec<(u32, u64)>,
}

impl Counted {
    pub(crate) fn new(counting: Counting) -> Self {
        Self {
            counting,
            told: Vec::new(),
        }
    }

    pub(crate) fn counting(&self) -> Counting {
        self.counting
    }

    /// The tokens of `choice` that a chunk with this `counter` adds to what was told before; `None`
    /// where it has no count. What `says` something is at least one: to the gateway 0 means that
    /// nobody counted.
    pub(crate) fn more(&mut self, choice: u32, counter: &str, says: bool) -> Option<u32> {
        let count = self.counting.read(counter)?;
        let told = match self.told.iter().position(|(index, _)| *index == choice) {
            Some(at) => self.told.get_mut(at)?,
            None => {
                self.told.push((choice, 0));
                self.told.last_mut()?
            }
        };
        let more = count.saturating_sub(told.1).max(u64::from(says));
        told.1 += more;
        Some(u32::try_from(more).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TIMINGS: Counting = Counting::Timings { hidden: true };

    #[test]
    fn each_server_tells_in_its_own_way_and_what_the_client_asked_is_known() {
        let of = |kind, body: &str| Counting::of(kind, &RawObject::parse(body.as_bytes()).unwrap());
        for body in ["{}", r#"{"timings_per_token":false}"#, r#"{"timings_per_token":1}"#] {
            assert_eq!(of(ServerKind::LlamaServer, body), TIMINGS, "{body}");
        }
        let asked = of(ServerKind::LlamaServer, r#"{"timings_per_token":true}"#);
        assert_eq!(asked, Counting::Timings { hidden: false });
        for (kind, counting, option) in [
            (ServerKind::Vllm, Counting::Usage, Some("continuous_usage_stats")),
            (ServerKind::Sglang, Counting::Usage, Some("continuous_usage_stats")),
            (ServerKind::Ollama, Counting::Chunks, None),
            (ServerKind::Unknown, Counting::Chunks, None),
        ] {
            assert_eq!((of(kind, "{}"), of(kind, "{}").option()), (counting, option));
        }
    }

    #[test]
    fn a_chunk_has_what_was_counted_since_the_one_before_it_by_choice() {
        let mut counted = Counted::new(TIMINGS);
        assert_eq!(counted.more(0, r#"{"prompt_n":9,"predicted_n":3}"#, true), Some(3));
        assert_eq!(counted.more(1, r#"{"predicted_n":2}"#, true), Some(2));
        assert_eq!(counted.more(0, r#"{"predicted_n":5}"#, true), Some(2));
        assert_eq!(counted.more(0, r#"{"predicted_n":5}"#, false), Some(0));
        assert_eq!(counted.more(0, "{}", true), None);
        let mut counted = Counted::new(Counting::Usage);
        assert_eq!(counted.more(0, r#"{"completion_tokens":4}"#, true), Some(4));
        assert_eq!(counted.more(0, "null", true), None);
        assert_eq!(Counted::default().more(0, r#"{"predicted_n":3}"#, true), None);
    }

    #[test]
    fn text_is_at_least_one_token_and_what_was_told_too_early_is_not_told_again() {
        let mut counted = Counted::new(TIMINGS);
        let counts = [4, 4, 4, 8, 8].map(|count| counted.more(0, &format!(r#"{{"predicted_n":{count}}}"#), true));
        assert_eq!(counts, [Some(4), Some(1), Some(1), Some(2), Some(1)]);
    }
}
