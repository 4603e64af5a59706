//! The `usage` object of an answer.

use bytes::BytesMut;
use serde::Deserialize;
use tokenbus_protocol::Finish;

use crate::answer::json::push_number;

/// Appends the usage object and returns true, or returns false when the counts are not known.
///
/// The engine's own object goes through as it is, details and all. Where the engine sent none it
/// is made of the counts, but only when both are known: clients with typed parsers take no object
/// with a member missing or null, and a 0 would be a lie.
pub(crate) fn push_usage(finish: &Finish, out: &mut BytesMut) -> bool {
    if let Some(usage) = finish.usage.as_ref().filter(|usage| usage.get().starts_with('{')) {
        out.extend_from_slice(usage.get().as_bytes());
        return true;
    }
    let (Some(prompt), Some(completion)) = (finish.prompt_tokens, finish.completion_tokens) else {
        return false;
    };
    let total = prompt.saturating_add(completion);
    push_number(
        out,
        format_args!(r#"{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{total}}}"#),
    );
    true
}

/// The counts of an answer, for APIs that name them otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Of the prompt, cached ones included.
    pub(crate) prompt: u64,
    /// Of the answer, reasoning included.
    pub(crate) completion: u64,
    /// Of the prompt, those that the engine had cached; where it tells.
    pub(crate) cached: Option<u64>,
    /// Of the answer, those of its reasoning; where the engine tells.
    pub(crate) reasoning: Option<u64>,
}

#[derive(Deserialize, Default)]
struct Usage {
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

impl Usage {
    /// Of the prompt, those that the engine had cached, by any of the names that engines have for it.
    fn cached(&self) -> Option<u64> {
        let details = self.prompt_tokens_details.as_ref();
        details
            .and_then(|details| details.cached_tokens)
            .or(self.prompt_cache_hit_tokens)
    }
}

/// Tokens of the prompt that the engine had in its cache; 0 where it does not say.
pub fn cached_tokens(finish: &Finish) -> u64 {
    let told = finish.usage.as_ref().filter(|usage| usage.get().contains("cache"));
    let usage = told.and_then(|usage| usage.parse::<Usage>().ok());
    usage.and_then(|usage| usage.cached()).unwrap_or(0)
}

impl Counts {
    /// The counts, where both sums are known: by the engine's own object, else by the worker's.
    pub(crate) fn of(finish: &Finish) -> Option<Self> {
        let usage = finish.usage.as_ref().and_then(|json| json.parse::<Usage>().ok());
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
            // A part is not more than the whole, whatever the engine says.
            cached: cached.map(|cached| cached.min(prompt)),
            reasoning: reasoning.map(|reasoning| reasoning.min(completion)),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokenbus_protocol::RawJson;

    use super::*;

    fn usage(finish: &Finish) -> Option<String> {
        let mut out = BytesMut::new();
        push_usage(finish, &mut out).then(|| String::from_utf8(out.to_vec()).unwrap())
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
