//! Whether a request gives the same answer each time it is asked: then an answer whose worker died can
//! be generated again, and its beginning skipped, on an engine that cannot go on from a part.

use serde::Deserialize;
use tokenbus_protocol::RawObject;

/// Whether an answer to `body` with `n` choices is decided by the request alone, as far as an engine's
/// arithmetic goes. What comes out otherwise is noticed: the beginnings are compared.
pub(crate) fn is_repeatable(body: &RawObject, n: u64) -> bool {
    let greedy = member::<f64>(body, "temperature").is_some_and(|temperature| temperature <= 0.0);
    // Of several choices each has a seed of its own, which the engine derives.
    let seeded = n <= 1 && member::<i64>(body, "seed").is_some_and(|seed| seed >= 0);
    (greedy || seeded) && member::<u64>(body, "best_of").is_none_or(|best| best <= 1)
}

/// As [`is_repeatable`], for the bytes of a whole body.
pub(crate) fn can_be_repeated(body: &[u8]) -> bool {
    let Ok(object) = RawObject::parse(body) else {
        return false;
    };
    is_repeatable(&object, member(&object, "n").unwrap_or(1))
}

fn member<'a, T: Deserialize<'a>>(object: &'a RawObject, name: &str) -> Option<T> {
    object.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok())
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
        ] {
            assert!(!can_be_repeated(body.as_bytes()), "{body}");
        }
    }
}
