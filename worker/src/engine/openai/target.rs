//! What a request is written for and an answer read by: the program at the other end, and the model there.

use super::limits;

/// Which program speaks the OpenAI API there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// llama.cpp's own server.
    LlamaServer,
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// Ollama.
    Ollama,
    /// A provider, or a server that we do not know.
    Unknown,
}

impl ServerKind {
    /// How the models of such a server continue a partial answer. An Ollama model does if its
    /// template says so: see `watch::discover`.
    pub(super) fn continuation(self) -> Continuation {
        match self {
            Self::LlamaServer => Continuation::TrailingAssistant,
            Self::Vllm | Self::Sglang => Continuation::ContinueFinalMessage,
            Self::Ollama | Self::Unknown => Continuation::None,
        }
    }

    /// How its `usage` objects add up.
    pub(super) fn usage_rule(self) -> UsageRule {
        if self == Self::LlamaServer {
            UsageRule::PerChoice
        } else {
            UsageRule::Last
        }
    }

    /// The seed by which it draws choice `index` of a request with `seed` and several choices, where that is known.
    pub(super) fn seed_of_choice(self, seed: u64, index: u32) -> Option<u64> {
        match self {
            Self::Vllm => seed.checked_add(u64::from(index)),
            Self::LlamaServer | Self::Sglang | Self::Ollama | Self::Unknown => None,
        }
    }

    /// Slots where nobody tells.
    pub(super) fn default_slots(self) -> u32 {
        match self {
            Self::LlamaServer => limits::DEFAULT_SLOTS_LLAMA,
            Self::Vllm => limits::DEFAULT_SLOTS_VLLM,
            Self::Sglang => limits::DEFAULT_SLOTS_SGLANG,
            Self::Ollama => limits::DEFAULT_SLOTS_OLLAMA,
            Self::Unknown => limits::DEFAULT_SLOTS_UNKNOWN,
        }
    }

    /// Its name in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LlamaServer => "llama-server",
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::Ollama => "ollama",
            Self::Unknown => "unknown",
        }
    }
}

/// How `usage` objects add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UsageRule {
    /// The last one is for the whole answer.
    Last,
    /// Each is for one choice (llama-server with `n > 1`).
    PerChoice,
}

/// How a server goes on from a partial answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Continuation {
    /// It does not, or nobody knows how.
    None,
    /// A last message of role `assistant` is continued (llama-server, Ollama).
    TrailingAssistant,
    /// The same, when `continue_final_message` says so (vLLM, SGLang).
    ContinueFinalMessage,
}

/// What the body is written for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The model's name at the server.
    pub(super) upstream: String,
    /// Which program the server is.
    pub(super) kind: ServerKind,
    /// Tokens of context, where known.
    pub(super) context: Option<u64>,
    /// How the server continues.
    pub(super) continuation: Continuation,
    /// Whether the model can be told of tools; `None` where nobody knows.
    pub(super) tools: Option<bool>,
    /// Whether the model takes images; `None` where nobody knows.
    pub(super) vision: Option<bool>,
}
