//! Whatever bytes come as a chat request are checked or refused, and never panic.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

/// A body with every member that is looked at.
const VALID: &str = r#"{"model":"m","messages":[{"role":"system","content":"s\u00e9"},{"role":"user","name":"u",
"content":[{"type":"text","text":"h\"i"},{"type":"image_url","image_url":{"url":"data:,"}}]},{"role":"assistant",
"content":null,"tool_calls":[]}],"stream":true,"stream_options":{"include_usage":true},"n":2,"max_tokens":5,
"max_completion_tokens":1e2,"temperature":0.5,"top_p":1,"stop":["a","b"],"seed":-7,"logprobs":true,"top_logprobs":3,
"logit_bias":{"5":-1},"tools":[{"type":"function","function":{}}],"tool_choice":"auto","response_format":{"type":"text"},
"unknown":[[[{}]]]}"#;

fn never_panics_and_keeps_its_promises(body: &[u8]) -> Result<(), TestCaseError> {
    match chat_view(body) {
        Ok(view) => {
            prop_assert!(!view.model.is_empty() && view.model.len() <= tokenbus_protocol::MAX_MODEL_NAME);
            prop_assert!((1..=crate::limits::MAX_CHOICES).contains(&view.choices));
        }
        Err(RequestError::NotUtf8(at)) => prop_assert!(std::str::from_utf8(&body[..at]).is_ok() && at < body.len()),
        Err(error) => prop_assert!(!error.to_string().is_empty()),
    }
    Ok(())
}

#[test]
fn the_body_that_is_damaged_below_is_valid() {
    assert_eq!(chat_view(VALID.as_bytes()).unwrap().choices, 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_bytes(body in vec(any::<u8>(), 0..200)) {
        never_panics_and_keeps_its_promises(&body)?;
    }

    /// Nearly valid bytes reach deeper than random ones.
    #[test]
    fn damaged_bodies(
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        moved in option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0usize..30)),
        cut in option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut body = VALID.as_bytes().to_vec();
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        // A piece in another place is still mostly JSON.
        if let Some((from, to, length)) = moved {
            let from = from.index(body.len());
            let piece: Vec<u8> = body[from..body.len().min(from + length)].to_vec();
            let to = to.index(body.len());
            body.splice(to..to, piece);
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        never_panics_and_keeps_its_promises(&body)?;
    }

    /// Any value in any member's place is refused with the member's name or passes.
    #[test]
    fn members_of_other_types(
        member in prop::sample::select(&["model", "messages", "stream", "stream_options", "n", "max_tokens", "stop",
            "seed", "logit_bias", "tools", "tool_choice", "response_format", "temperature"][..]),
        value in prop::sample::select(&["null", "true", "0", "-1", "1e400", "1e308", "0.5", "\"\"", "\"\\ud800\"", "[]",
            "[null]", "[[]]", "[{}]", "{}", "{\"type\":1}", "{\"role\":{}}", "[{\"role\":\"user\",\"content\":[1]}]"][..]),
    ) {
        let body = match member {
            "model" => format!(r#"{{"messages":[{{"role":"user","content":"x"}}],"model":{value}}}"#),
            "messages" => format!(r#"{{"model":"m","messages":{value}}}"#),
            _ => format!(r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],"{member}":{value}}}"#),
        };
        never_panics_and_keeps_its_promises(body.as_bytes())?;
        if let Err(RequestError::Field { param: Some(param), .. }) = chat_view(body.as_bytes()) {
            prop_assert!(param.starts_with(member), "{} for {}", param, body);
        }
    }
}
