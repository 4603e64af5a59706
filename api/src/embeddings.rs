//! Checks an embeddings request.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::request::fields::Integer;
use crate::request::prompt::Prompt;
use crate::request::{self, Checked, RequestError, field, missing};

/// The members that the check reads.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct EmbeddingsRequest {
    model: Option<String>,
    input: Option<Prompt>,
    // Some engines take these in place of `input`.
    messages: Option<IgnoredAny>,
    content: Option<IgnoredAny>,
    #[serde(rename = "encoding_format")]
    _encoding_format: Option<String>,
    #[serde(rename = "dimensions")]
    _dimensions: Option<Integer>,
}

/// Checks an embeddings request.
///
/// # Errors
/// [`RequestError`] says what is wrong and where.
pub fn check_embeddings(body: &[u8]) -> Result<Checked, RequestError> {
    let request: EmbeddingsRequest = request::parse(body)?;
    let model = request::model(request.model)?;
    match request.input {
        None if request.messages.is_none() && request.content.is_none() => return Err(missing("input")),
        Some(Prompt { count: 0, .. }) => return Err(field("input", "empty_array", "at least one input is expected")),
        _ => {}
    }
    Ok(Checked::verbatim(model))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn refused(body: &str) -> (Option<String>, &'static str) {
        match check_embeddings(body.as_bytes()) {
            Err(RequestError::Field { param, code, .. }) => (param, code),
            other => (Some(format!("{other:?}")), ""),
        }
    }

    #[test]
    fn every_form_of_input_passes() {
        for input in [
            r#""a text""#,
            r#"["a","b"]"#,
            "[1,2,3]",
            "[[1,2],[3]]",
            r#""a","encoding_format":"base64","dimensions":0,"user":"u","x":[{}]"#,
        ] {
            let body = format!(r#"{{"model":"m","input":{input}}}"#);
            let checked = check_embeddings(body.as_bytes()).unwrap();
            assert_eq!(checked.model, "m");
            assert!(!checked.form.is_stream() && checked.needs.is_empty() && checked.body.is_none());
            assert!(checked.not_resumable.is_some());
        }
        assert!(
            check_embeddings(br#"{"model":"m","messages":[]}"#).is_ok(),
            "chat embeddings of vLLM"
        );
    }

    #[test]
    fn wrong_input_is_named() {
        let input = Some("input".to_owned());
        assert_eq!(
            refused(r#"{"model":"m"}"#),
            (input.clone(), "missing_required_parameter")
        );
        assert_eq!(refused(r#"{"model":"m","input":null}"#).0, input);
        assert_eq!(refused(r#"{"model":"m","input":[]}"#), (input.clone(), "empty_array"));
        for wrong in ["7", "{}", "[{}]", r#"["a",1]"#, "[1.5]", "[[]]", "[-1]"] {
            let (param, code) = refused(&format!(r#"{{"model":"m","input":{wrong}}}"#));
            assert!(param.unwrap().starts_with("input"), "{wrong}");
            assert_eq!(code, "invalid_type", "{wrong}");
        }
        assert_eq!(refused(r#"{"input":"a"}"#).0, Some("model".to_owned()));
        assert_eq!(check_embeddings(b"[]").unwrap_err(), RequestError::NotAnObject);
    }
}
