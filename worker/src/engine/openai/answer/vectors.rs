//! Embeddings in the form that the client asked for: numbers, or base64 of them as little-endian 32-bit
//! floats. Some servers answer in one form whatever was asked for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use tokenbus_protocol::{RawJson, RawJsonError, RawObject};

use crate::engine::openai::request::members::parsed;

/// The form of an embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// An array of numbers.
    Floats,
    /// A string.
    Base64,
}

impl Encoding {
    /// What the request asks for; `None` where that is a form of which only its server knows.
    pub(crate) fn of(request: &RawObject) -> Option<Self> {
        let known = |name: &str| {
            request
                .get(name)
                .is_none_or(|raw| matches!(raw.get(), "null" | "\"float32\""))
        };
        // vLLM's other number types.
        if !known("embed_dtype") {
            return None;
        }
        match parsed::<String>(request, "encoding_format").as_deref() {
            None | Some("float") => Some(Self::Floats),
            Some("base64") => Some(Self::Base64),
            Some(_) => None,
        }
    }

    /// The answer in this form; `None` where it is so already.
    pub(crate) fn apply(self, answer: &str) -> Option<String> {
        let object = RawObject::parse(answer.as_bytes()).ok()?;
        let data: Vec<RawObject> = parsed(&object, "data")?;
        let wrong = |entry: &RawObject| self.converted(entry).is_some();
        if !data.iter().any(wrong) {
            return None;
        }
        self.write(object, data).ok().map(|json| json.get().to_owned())
    }

    fn write(self, mut object: RawObject, mut data: Vec<RawObject>) -> Result<RawJson, RawJsonError> {
        for entry in &mut data {
            if let Some(embedding) = self.converted(entry) {
                entry.set("embedding", &embedding)?;
            }
        }
        object.set("data", &data)?;
        object.to_json()
    }

    fn converted(self, entry: &RawObject) -> Option<Box<RawValue>> {
        let embedding = entry.get("embedding")?;
        match self {
            Self::Floats if embedding.get().starts_with('"') => floats(embedding),
            Self::Base64 if embedding.get().starts_with('[') => base64(embedding),
            _ => None,
        }
    }
}

fn floats(text: &RawValue) -> Option<Box<RawValue>> {
    let text: String = serde_json::from_str(text.get()).ok()?;
    let bytes = STANDARD.decode(text).ok()?;
    let (numbers, rest) = bytes.as_chunks::<4>();
    let numbers: Vec<f32> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let whole = rest.is_empty() && numbers.iter().all(|number| number.is_finite());
    whole.then(|| serde_json::value::to_raw_value(&numbers).ok()).flatten()
}

fn base64(numbers: &RawValue) -> Option<Box<RawValue>> {
    // A matrix (a vector for each token) is no array of numbers, and stays.
    let numbers: Vec<f32> = serde_json::from_str(numbers.get()).ok()?;
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    serde_json::value::to_raw_value(&STANDARD.encode(bytes)).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NUMBERS: &str = r#"{"object":"list","data":[{"index":0,"embedding":[0.5,-0.25]}],"model":"m"}"#;
    const TEXT: &str = r#"{"object":"list","data":[{"index":0,"embedding":"AAAAPwAAgL4="}],"model":"m"}"#;

    #[test]
    fn embeddings_come_in_the_form_that_was_asked_for() {
        assert_eq!(Encoding::Base64.apply(NUMBERS).as_deref(), Some(TEXT));
        assert_eq!(Encoding::Floats.apply(TEXT).as_deref(), Some(NUMBERS));
        assert_eq!(Encoding::Floats.apply(NUMBERS), None);
        assert_eq!(Encoding::Base64.apply(TEXT), None);
    }

    #[test]
    fn what_is_no_vector_stays() {
        for odd in [
            r#"{"data":[{"embedding":[[1.0],[2.0]]}]}"#,
            r#"{"data":[{"embedding":{"a":1}}]}"#,
            r#"{"data":[]}"#,
            r#"{"data":7}"#,
            "[]",
        ] {
            assert_eq!(Encoding::Base64.apply(odd), None, "{odd}");
        }
        assert_eq!(Encoding::Floats.apply(r#"{"data":[{"embedding":"no base64!"}]}"#), None);
    }

    #[test]
    fn the_request_says_which_form() {
        let of = |json: &str| Encoding::of(&RawObject::parse(json.as_bytes()).unwrap());
        assert_eq!(of("{}"), Some(Encoding::Floats));
        assert_eq!(of(r#"{"encoding_format":null}"#), Some(Encoding::Floats));
        assert_eq!(of(r#"{"encoding_format":"base64"}"#), Some(Encoding::Base64));
        assert_eq!(of(r#"{"encoding_format":"bytes"}"#), None);
        assert_eq!(of(r#"{"encoding_format":"base64","embed_dtype":"float16"}"#), None);
    }
}
