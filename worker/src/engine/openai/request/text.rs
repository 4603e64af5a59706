//! Text completions: how many prompts a request has, and what servers leave out of them.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokenbus_protocol::{EngineError, RawObject, RequestKind};

use super::members::{number, parsed};
use crate::engine::openai::error;
use crate::engine::openai::target::{ServerKind, Target};

/// A `prompt` as far as it is told apart here.
#[derive(Deserialize)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Other(IgnoredAny),
}

/// Prompts of a request: each has choices of its own. An array of numbers is one.
pub(crate) fn prompts(object: &RawObject) -> u32 {
    let Some(prompt) = object.get("prompt") else { return 1 };
    let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(prompt.get()) else {
        return 1;
    };
    let ids = list.first().is_some_and(|first| !first.get().starts_with(['"', '[']));
    if ids {
        1
    } else {
        u32::try_from(list.len().max(1)).unwrap_or(u32::MAX)
    }
}

/// What the client is to have before the first token of each choice: the prompts, where it asked for
/// them and the server passes over that.
pub(crate) fn echoes(kind: RequestKind, object: &RawObject, target: &Target) -> Result<Vec<String>, EngineError> {
    let asked = kind == RequestKind::Completion && parsed::<bool>(object, "echo") == Some(true);
    if !asked || !passes_over_echo(target.kind) {
        return Ok(Vec::new());
    }
    if object
        .get("logprobs")
        .is_some_and(|raw| !matches!(raw.get(), "null" | "false"))
    {
        let message = "this engine has no log probabilities of an echoed prompt";
        return Err(error::unsupported(message, "echo"));
    }
    let each = usize::try_from(number(object, "n").unwrap_or(1).max(1)).unwrap_or(1);
    let texts = match parsed::<Prompt>(object, "prompt") {
        Some(Prompt::Text(text)) => vec![text],
        Some(Prompt::Texts(texts)) => texts,
        Some(Prompt::Other(_)) | None => {
            return Err(error::unsupported("this engine echoes prompts that are text", "echo"));
        }
    };
    Ok(texts
        .into_iter()
        .flat_map(|text| std::iter::repeat_n(text, each))
        .collect())
}

fn passes_over_echo(kind: ServerKind) -> bool {
    matches!(kind, ServerKind::LlamaServer | ServerKind::Ollama)
}

/// What the server would pass over in silence.
pub(crate) fn refuse_impossible(object: &RawObject, target: &Target) -> Result<(), EngineError> {
    let suffix = parsed::<String>(object, "suffix").is_some_and(|suffix| !suffix.is_empty());
    if suffix && target.kind == ServerKind::LlamaServer {
        return Err(error::unsupported(
            "this engine does not fit text before a suffix",
            "suffix",
        ));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::engine::openai::target::Continuation;

    fn object(json: &str) -> RawObject {
        RawObject::parse(json.as_bytes()).unwrap()
    }

    fn target(kind: ServerKind) -> Target {
        Target {
            upstream: "m".to_owned(),
            kind,
            context: None,
            continuation: Continuation::None,
            tools: None,
            vision: None,
        }
    }

    #[test]
    fn prompts_are_counted() {
        for (prompt, count) in [
            ("\"a\"", 1),
            ("[\"a\",\"b\"]", 2),
            ("[1, 2, 3]", 1),
            ("[[1,2],[3],[4]]", 3),
            ("[]", 1),
            ("null", 1),
        ] {
            assert_eq!(prompts(&object(&format!("{{\"prompt\":{prompt}}}"))), count, "{prompt}");
        }
        assert_eq!(prompts(&object("{}")), 1);
    }

    #[test]
    fn the_prompt_stands_in_for_an_echo_that_the_server_has_not() {
        let echoed = |kind, json: &str| echoes(RequestKind::Completion, &object(json), &target(kind));
        let texts = echoed(ServerKind::LlamaServer, r#"{"prompt":["a","b"],"n":2,"echo":true}"#).unwrap();
        assert_eq!(texts, ["a", "a", "b", "b"]);
        assert_eq!(
            echoed(ServerKind::Ollama, r#"{"prompt":"a","echo":true}"#).unwrap(),
            ["a"]
        );
        for (kind, json) in [
            (ServerKind::Vllm, r#"{"prompt":"a","echo":true}"#),
            (ServerKind::LlamaServer, r#"{"prompt":"a","echo":false}"#),
            (ServerKind::LlamaServer, r#"{"prompt":"a"}"#),
        ] {
            assert!(echoed(kind, json).unwrap().is_empty(), "{json}");
        }
        for json in [
            r#"{"prompt":[1],"echo":true}"#,
            r#"{"prompt":"a","echo":true,"logprobs":0}"#,
        ] {
            assert_eq!(
                echoed(ServerKind::LlamaServer, json).unwrap_err().param.as_deref(),
                Some("echo")
            );
        }
    }

    #[test]
    fn a_suffix_is_refused_where_it_would_be_passed_over() {
        let refused = |kind, json: &str| refuse_impossible(&object(json), &target(kind)).is_err();
        assert!(refused(ServerKind::LlamaServer, r#"{"suffix":"s"}"#));
        assert!(!refused(ServerKind::LlamaServer, r#"{"suffix":""}"#));
        assert!(!refused(ServerKind::LlamaServer, r#"{"suffix":null}"#));
        assert!(!refused(ServerKind::Ollama, r#"{"suffix":"s"}"#));
    }
}
