//! Answers that are one JSON document (embeddings, rerank, …). They travel as text, in as many deltas
//! as it takes.
//!
//! Only the gateway knows under which name its client asked for the model. Where the engine names
//! it, the text stops and an empty delta stands for the name; see [`model_mark`].

use super::RawJson;
use crate::frame::{Delta, DeltaExtra};

/// The member of the chunk by which a mark is known.
const MARK: &str = r#"{"model":null}"#;

/// The delta that stands where the gateway puts the model's name, a JSON string.
pub fn model_mark() -> Delta<'static> {
    let chunk = RawJson::new(MARK).ok();
    Delta {
        extra: Some(Box::new(DeltaExtra {
            chunk,
            ..DeltaExtra::default()
        })),
        ..Delta::default()
    }
}

/// Whether `delta` is a [`model_mark`].
pub fn is_model_mark(delta: &Delta<'_>) -> bool {
    let chunk = delta.extra.as_ref().and_then(|extra| extra.chunk.as_ref());
    delta.text.is_empty() && chunk.is_some_and(|chunk| chunk.get() == MARK)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_known_on_the_other_side_of_the_wire() {
        let bytes = crate::encode(&model_mark()).unwrap();
        let read: Delta<'_> = crate::decode(&bytes).unwrap();
        assert!(is_model_mark(&read));
        for other in [
            Delta::default(),
            Delta {
                text: "{\"model\":null}".into(),
                ..Delta::default()
            },
        ] {
            assert!(!is_model_mark(&other));
        }
    }
}
