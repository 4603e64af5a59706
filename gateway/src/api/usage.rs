//! The `usage` object of an answer.

use bytes::BytesMut;
use tokenbus_protocol::Finish;

use serde::Deserialize;

use super::json::push_number;

/// Appends the usage object and returns true, or returns false when the counts are not known.
///
/// The engine's own object goes through as it is, details and all. Where the engine sent none it
/// is made of the counts, but only when both are known: clients with typed parsers take no object
/// with a member missing or null, and a 0 would be a lie.
pub fn push_usage(finish: &Finish, out: &mut BytesMut) -> bool {
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

/// The places where engines tell what they had in their cache.
#[derive(Deserialize)]
struct Cached {
    #[serde(default)]
    prompt_tokens_details: Option<Details>,
    #[serde(default)]
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

/// Tokens of the prompt that the engine had in its cache; 0 where it does not say.
pub fn cached_tokens(finish: &Finish) -> u64 {
    let told = finish.usage.as_ref().filter(|usage| usage.get().contains("cache"));
    let Some(cached) = told.and_then(|usage| usage.parse::<Cached>().ok()) else {
        return 0;
    };
    let details = cached.prompt_tokens_details.and_then(|details| details.cached_tokens);
    details.or(cached.prompt_cache_hit_tokens).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokenbus_protocol::openai::RawJson;

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
}
