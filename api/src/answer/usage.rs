//! The `usage` object of an answer.

use serde::{Deserialize, Serialize};
use tokenbus_protocol::{Finish, RawJson};

/// The `usage` object of chats and text completions.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Usage<'a> {
    /// The engine's own object, unchanged.
    Engine(&'a RawJson),
    /// Made of the worker's counts.
    Counted {
        prompt_tokens: u64,
        completion_tokens: u64,
        total_tokens: u64,
    },
}

impl<'a> Usage<'a> {
    /// The engine's object, or one made of the counts when both are known. Clients with typed parsers refuse an
    /// object with a missing or null member, and a 0 would be a lie.
    pub(crate) fn of(finish: &'a Finish) -> Option<Self> {
        if let Some(usage) = finish.usage.as_ref().filter(|usage| usage.get().starts_with('{')) {
            return Some(Self::Engine(usage));
        }
        let (prompt_tokens, completion_tokens) = (finish.prompt_tokens?, finish.completion_tokens?);
        Some(Self::Counted {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens.saturating_add(completion_tokens),
        })
    }
}

/// The counts of an answer, for APIs with other names for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Tokens of the prompt, cached ones included.
    pub(crate) prompt: u64,
    /// Tokens of the answer, reasoning included.
    pub(crate) completion: u64,
    /// Tokens of the prompt that the engine had cached, if it says.
    pub(crate) cached: Option<u64>,
    /// Tokens of the answer that were reasoning, if the engine says.
    pub(crate) reasoning: Option<u64>,
}

#[derive(Deserialize, Default)]
struct EngineUsage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(default)]
    prompt_cache_hit_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Deserialize, Default)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

#[derive(Deserialize, Default)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
}

impl EngineUsage {
    /// Cached tokens of the prompt, under any of the names that engines use.
    fn cached(&self) -> Option<u64> {
        let details = self.prompt_tokens_details.as_ref();
        details
            .and_then(|details| details.cached_tokens)
            .or(self.prompt_cache_hit_tokens)
    }
}

/// Tokens of the prompt that the engine had in its cache; 0 when it does not say.
pub fn cached_tokens(finish: &Finish) -> u64 {
    let told = finish.usage.as_ref().filter(|usage| usage.get().contains("cache"));
    let usage = told.and_then(|usage| usage.parse::<EngineUsage>().ok());
    usage.and_then(|usage| usage.cached()).unwrap_or(0)
}

impl Counts {
    /// The engine's counts, or the worker's where the engine's are missing; `None` unless both sums are known.
    pub(crate) fn of(finish: &Finish) -> Option<Self> {
        let usage = finish.usage.as_ref().and_then(|json| json.parse::<EngineUsage>().ok());
        let usage = usage.unwrap_or_default();
        let cached = usage.cached();
        let reasoning = usage
            .completion_tokens_details
            .and_then(|details| details.reasoning_tokens);
        let prompt = usage.prompt_tokens.or(finish.prompt_tokens)?;
        let completion = usage.completion_tokens.or(finish.completion_tokens)?;
        Some(Self {
            prompt,
            completion,
            // A part is at most the whole, whatever the engine says.
            cached: cached.map(|cached| cached.min(prompt)),
            reasoning: reasoning.map(|reasoning| reasoning.min(completion)),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn usage(finish: &Finish) -> Option<String> {
        Usage::of(finish).map(|usage| serde_json::to_string(&usage).unwrap())
    }

    #[test]
    fn the_engines_object_goes_through_unchanged() {
        let text = r#"{"prompt_tokens":3,"total_tokens":5,"completion_tokens":2,"x":{"cached_tokens":1.0}}"#;
        let finish = Finish {
            prompt_tokens: Some(99),
            completion_tokens: Some(99),
            usage: Some(RawJson::new(text).unwrap()),
            ..Finish::default()
        };
        assert_eq!(usage(&finish).unwrap(), text);
    }

    #[test]
    fn counts_stand_in_for_it() {
        let mut finish = Finish {
            prompt_tokens: Some(3),
            completion_tokens: Some(4),
            ..Finish::default()
        };
        let counted = r#"{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}"#;
        assert_eq!(usage(&finish).unwrap(), counted);
        finish.usage = Some(RawJson::new("null").unwrap());
        assert_eq!(usage(&finish).unwrap(), counted);
    }

    #[test]
    fn what_is_not_known_is_not_made_up() {
        for (prompt_tokens, completion_tokens) in [(None, None), (Some(1), None), (None, Some(1))] {
            let finish = Finish {
                prompt_tokens,
                completion_tokens,
                ..Finish::default()
            };
            assert_eq!(usage(&finish), None);
        }
    }

    #[test]
    fn cached_tokens_are_found_where_engines_tell_them() {
        for (usage, cached) in [
            (r#"{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":4}}"#, 4),
            (
                r#"{"prompt_tokens_details":{"cached_tokens":null,"audio_tokens":1}}"#,
                0,
            ),
            (r#"{"prompt_tokens_details":null,"prompt_cache_hit_tokens":7}"#, 7),
            (r#"{"prompt_tokens_details":{"cached_tokens":"x"}}"#, 0),
            (r#"{"prompt_tokens":9}"#, 0),
            ("[]", 0),
        ] {
            let finish = Finish {
                usage: Some(RawJson::new(usage).unwrap()),
                ..Finish::default()
            };
            assert_eq!(cached_tokens(&finish), cached, "{usage}");
        }
        assert_eq!(cached_tokens(&Finish::default()), 0);
    }

    #[test]
    fn counts_are_the_engines_else_the_workers_else_unknown() {
        let usage = r#"{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13,
            "prompt_tokens_details":{"cached_tokens":99},"completion_tokens_details":{"reasoning_tokens":3}}"#;
        let mut finish = Finish {
            prompt_tokens: Some(1),
            completion_tokens: Some(2),
            usage: Some(RawJson::new(usage).unwrap()),
            ..Finish::default()
        };
        let counts = Counts::of(&finish).unwrap();
        assert_eq!((counts.prompt, counts.completion), (9, 4));
        assert_eq!((counts.cached, counts.reasoning), (Some(9), Some(3)));
        finish.usage = Some(RawJson::new(r#"{"prompt_tokens":null,"prompt_tokens_details":null}"#).unwrap());
        let counts = Counts::of(&finish).unwrap();
        assert_eq!((counts.prompt, counts.completion, counts.cached), (1, 2, None));
        finish.completion_tokens = None;
        assert_eq!(Counts::of(&finish), None);
    }
}
