//! The model's name in an answer that is one JSON document (embeddings, rerank, …). Such an answer travels as text,
//! in any number of deltas.
//!
//! Only the gateway knows under which name its client asked for the model. Where the engine names the model, the
//! text pauses and an empty delta, the mark, stands for the name.

use crate::frame::{Delta, DeltaExtra};
use crate::openai::RawJson;

/// The chunk that identifies a mark.
const MARK: &str = r#"{"model":null}"#;

/// The mark: the gateway replaces it by the model's name, as a JSON string.
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
