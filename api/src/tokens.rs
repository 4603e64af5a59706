//! Checks tokenize and detokenize requests, in the forms of vLLM, SGLang and llama.cpp.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::request::prompt::Prompt;
use crate::request::{self, Checked, RequestError, missing};

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct TokenizeRequest {
    model: Option<String>,
    // The text for vLLM and SGLang.
    prompt: Option<IgnoredAny>,
    // A chat.
    messages: Option<Vec<IgnoredAny>>,
    // The text for llama.cpp.
    content: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct DetokenizeRequest {
    model: Option<String>,
    tokens: Option<Prompt>,
}

/// Checks a tokenize request.
///
/// # Errors
/// [`RequestError`] says what is wrong and where.
pub fn check_tokenize(body: &[u8]) -> Result<Checked, RequestError> {
    let request: TokenizeRequest = request::parse(body)?;
    let model = request::model(request.model)?;
    if request.prompt.is_none() && request.messages.is_none() && request.content.is_none() {
        return Err(missing("prompt"));
    }
    Ok(Checked::verbatim(model))
}

/// Checks a detokenize request.
///
/// # Errors
/// [`RequestError`] says what is wrong and where.
pub fn check_detokenize(body: &[u8]) -> Result<Checked, RequestError> {
    let request: DetokenizeRequest = request::parse(body)?;
    let model = request::model(request.model)?;
    if request.tokens.is_none() {
        return Err(missing("tokens"));
    }
    Ok(Checked::verbatim(model))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_all_engines_pass() {
        for rest in [
            r#""prompt":"a","add_special_tokens":false"#,
            r#""content":"a","with_pieces":true"#,
            r#""messages":[{"role":"user","content":"a"}]"#,
        ] {
            assert!(check_tokenize(format!(r#"{{"model":"m",{rest}}}"#).as_bytes()).is_ok());
        }
        for tokens in ["[]", "[1,2]", "[[1],[2]]"] {
            assert!(check_detokenize(format!(r#"{{"model":"m","tokens":{tokens}}}"#).as_bytes()).is_ok());
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let param = |result: Result<Checked, RequestError>| match result {
            Err(RequestError::Field { param, .. }) => param,
            _ => None,
        };
        assert_eq!(param(check_tokenize(br#"{"model":"m"}"#)).as_deref(), Some("prompt"));
        assert_eq!(param(check_tokenize(br#"{"prompt":"a"}"#)).as_deref(), Some("model"));
        assert_eq!(param(check_detokenize(br#"{"model":"m"}"#)).as_deref(), Some("tokens"));
        assert_eq!(
            check_detokenize(br#"["m",[1]]"#).unwrap_err(),
            RequestError::NotAnObject
        );
        assert_eq!(
            param(check_detokenize(br#"{"model":"m","tokens":["a",1]}"#)).as_deref(),
            Some("tokens")
        );
    }
}
