//! Whether a request gives the same answer each time it is asked: then an answer whose worker died can
//! be generated again, and its beginning skipped, where no engine can go on from a part.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::openai::RawObject;

/// Whether the answer to `request` is decided by the request alone, as far as an engine's arithmetic
/// goes. What comes out otherwise is noticed: the beginnings are compared. Answers that have an echo or
/// more than one prompt are not compared, so they are none.
pub fn is_repeatable(request: &RawObject) -> bool {
    let greedy = member::<f64>(request, "temperature").is_some_and(|temperature| temperature <= 0.0);
    // Of several choices each has a seed of its own, which the engine derives.
    let seeded =
        member::<u64>(request, "n").unwrap_or(1) <= 1 && member::<i64>(request, "seed").is_some_and(|seed| seed >= 0);
    let best = member::<u64>(request, "best_of").is_some_and(|best| best > 1);
    let echo = member::<bool>(request, "echo") == Some(true);
    (greedy || seeded) && !best && !echo && !has_several_prompts(request)
}

/// As [`is_repeatable`], for the bytes of a whole body.
pub fn can_be_repeated(body: &[u8]) -> bool {
    RawObject::parse(body).is_ok_and(|request| is_repeatable(&request))
}

/// Whether `prompt` is a list of more than one. A list of numbers is one prompt.
fn has_several_prompts(request: &RawObject) -> bool {
    let prompts = member::<Vec<&RawValue>>(request, "prompt").unwrap_or_default();
    prompts.len() > 1 && prompts.iter().any(|prompt| prompt.get().starts_with(['"', '[']))
}

fn member<'a, T: Deserialize<'a>>(request: &'a RawObject, name: &str) -> Option<T> {
    request.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_and_seeded_requests_can_be_repeated() {
        for body in [
            r#"{"temperature":0}"#,
            r#"{"temperature":0.0,"n":3,"best_of":1}"#,
            r#"{"temperature":1,"seed":7}"#,
            r#"{"seed":0,"n":1}"#,
            r#"{"seed":0,"prompt":[1,2],"echo":false}"#,
            r#"{"seed":0,"prompt":["a"]}"#,
        ] {
            assert!(can_be_repeated(body.as_bytes()), "{body}");
        }
        for body in [
            "{}",
            "[]",
            r#"{"temperature":null,"seed":null}"#,
            r#"{"temperature":0.1}"#,
            r#"{"seed":-1}"#,
            r#"{"seed":7,"n":2}"#,
            r#"{"temperature":0,"best_of":2}"#,
            r#"{"temperature":0,"#,
            r#"{"temperature":0,"echo":true}"#,
            r#"{"temperature":0,"prompt":["a","b"]}"#,
            r#"{"temperature":0,"prompt":[[1],[2]]}"#,
        ] {
            assert!(!can_be_repeated(body.as_bytes()), "{body}");
        }
    }
}
