//! What all APIs do with a request's body: they read it, say what is wrong with it and where, and make a [`Checked`]
//! request of it.

mod bounds;
pub(crate) mod cache_salt;
pub(crate) mod content;
pub(crate) mod engine_rules;
mod estimate;
pub(crate) mod fields;
pub(crate) mod member_reader;
pub(crate) mod prompt;

use bytes::Bytes;
use serde::Deserialize;
use tokenbus_protocol::{Features, MAX_MODEL_NAME};

pub(crate) use self::bounds::bound_values;
pub use self::estimate::{PromptEstimate, estimate, estimated_tokens};
use self::fields::Integer;
use crate::answer::Form;
use crate::answer::verbatim::Verbatim;
use crate::limits::MAX_CHOICES;

/// Why an answer that is passed on unchanged is never continued by another engine.
const NOT_TEXT: &str = "its answer is no text that could be continued";

/// A request that has passed its API's check.
#[derive(Debug)]
pub struct Checked {
    /// The model that the client asked for.
    pub model: String,
    /// The form of the answer.
    pub form: Box<dyn Form>,
    /// The body for the engine, where it is not the client's own.
    pub body: Option<Bytes>,
    /// Why no other engine can continue the answer, if so.
    pub not_resumable: Option<&'static str>,
    /// What the engine must be able to do, beside the request's kind.
    pub needs: Features,
    /// What the client asked for and does not get, by its names. The answer's head tells it.
    pub ignored: Vec<String>,
}

impl Checked {
    /// A request without special needs. Its answer can be continued, and the engine gets the client's body.
    pub(crate) fn new(model: String, form: impl Form + 'static) -> Self {
        Self {
            model,
            form: Box::new(form),
            body: None,
            not_resumable: None,
            needs: Features::NONE,
            ignored: Vec::new(),
        }
    }

    /// A request whose answer is passed on as the engine wrote it.
    pub(crate) fn verbatim(model: String) -> Self {
        Self {
            not_resumable: Some(NOT_TEXT),
            ..Self::new(model, Verbatim)
        }
    }
}

/// Why a body is no valid request of its API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not UTF-8, and so not JSON.
    #[error("The body of your request is not valid JSON: it is not UTF-8 (byte {0} is the first wrong one)")]
    NotUtf8(usize),
    /// Not JSON.
    #[error("We could not parse the JSON body of your request: {message} (line {line}, column {column})")]
    Syntax {
        /// The parser's message.
        message: String,
        /// From 1.
        line: usize,
        /// From 1; 0 is the end of the line.
        column: usize,
    },
    /// JSON, but not an object.
    #[error("The body of your request must be a JSON object")]
    NotAnObject,
    /// With the stored items that it refers to, it is larger than this number of bytes.
    #[error("Your request and the stored items that it refers to have more than {0} bytes")]
    TooLarge(usize),
    /// A field is missing or wrong.
    #[error("{message}")]
    Field {
        /// The field's path: `messages[3].content`. `None` means the whole body.
        param: Option<String>,
        /// OpenAI's code for the error.
        code: &'static str,
        /// A sentence that names the path.
        message: String,
    },
}

/// Reads `body`, which must be an object, as `T`.
///
/// # Errors
/// [`RequestError`] says what is wrong and where.
pub(crate) fn parse<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, RequestError> {
    let text = std::str::from_utf8(body).map_err(|error| RequestError::NotUtf8(error.valid_up_to()))?;
    bounds::bound_members(body)?;
    // Paths cost an allocation per member, so only a body with an error is read a second time for its path.
    match serde_json::from_str(text) {
        // Serde takes an array with a value for each member as the object.
        Ok(_) if !text.trim_ascii_start().starts_with('{') => Err(RequestError::NotAnObject),
        Ok(request) => Ok(request),
        Err(error) if error.is_data() => Err(data_error::<T>(text, &error)),
        Err(error) => Err(RequestError::Syntax {
            message: without_position(&error),
            line: error.line(),
            column: error.column(),
        }),
    }
}

fn data_error<'de, T: Deserialize<'de>>(text: &'de str, error: &serde_json::Error) -> RequestError {
    if !text.trim_ascii_start().starts_with('{') {
        return RequestError::NotAnObject;
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let path = match serde_path_to_error::deserialize::<_, T>(&mut json) {
        Ok(_) => None,
        Err(error) => Some(error.path().to_string()).filter(|path| path != "."),
    };
    RequestError::Field {
        message: match &path {
            Some(path) => format!("Invalid value for '{path}': {error}"),
            None => format!("Invalid request: {error}"),
        },
        param: path,
        code: "invalid_type",
    }
}

fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ").and_then(|at| text.split_at_checked(at)) {
        Some((message, _)) => message.to_owned(),
        None => text,
    }
}

/// The field `param` has a value that is not allowed.
pub(crate) fn field(param: impl Into<String>, code: &'static str, what: &str) -> RequestError {
    let param = param.into();
    RequestError::Field {
        message: format!("Invalid value for '{param}': {what}"),
        param: Some(param),
        code,
    }
}

/// The field `param` is missing.
pub(crate) fn missing(param: impl Into<String>) -> RequestError {
    let param = param.into();
    RequestError::Field {
        message: format!("Missing required parameter: '{param}'"),
        param: Some(param),
        code: "missing_required_parameter",
    }
}

/// The model's name, which every API requires.
///
/// # Errors
/// [`RequestError`] when it is missing, empty or too long.
pub(crate) fn model(model: Option<String>) -> Result<String, RequestError> {
    let model = model.ok_or_else(|| missing("model"))?;
    if model.is_empty() {
        return Err(field("model", "invalid_value", "the name of a model is expected"));
    }
    if model.len() > MAX_MODEL_NAME {
        let what = format!("a model's name has at most {MAX_MODEL_NAME} bytes");
        return Err(field("model", "string_above_max_length", &what));
    }
    Ok(model)
}

/// Checks an optional number that must be at least 1.
pub(crate) fn at_least_one(name: &'static str, value: Option<Integer>) -> Result<(), RequestError> {
    match value {
        Some(Integer(value)) if value < 1.0 => Err(field(
            name,
            "integer_below_min_value",
            &format!("an integer of at least 1 is expected, this is {value}"),
        )),
        _ => Ok(()),
    }
}

/// The number of choices that `n` asks for.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(crate) fn choices(n: Option<Integer>) -> Result<u32, RequestError> {
    at_least_one("n", n)?;
    match n {
        None => Ok(1),
        Some(Integer(n)) if n > f64::from(MAX_CHOICES) => {
            let what = format!("an integer of at most {MAX_CHOICES} is expected, this is {n}");
            Err(field("n", "integer_above_max_value", &what))
        }
        // An integer from 1 to 128 by now.
        Some(Integer(n)) => Ok(n as u32),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::{completions, embeddings, rank, tokens};

    type Check = fn(&[u8]) -> Result<Checked, RequestError>;

    const CHECKS: [Check; 6] = [
        completions::check_completion,
        embeddings::check_embeddings,
        rank::check_rerank,
        rank::check_score,
        tokens::check_tokenize,
        tokens::check_detokenize,
    ];

    /// A body with every member that a check reads.
    const VALID: &str = r#"{"model":"m","prompt":["a","\u00e9"],"input":[[1,2],[3]],"query":{"text":"q"},"documents":["a",
{"text":"b"}],"tokens":[1,2],"messages":[{}],"stream":true,"stream_options":{"include_usage":true},"n":2,"best_of":2,
"echo":true,"suffix":"s","logprobs":1,"max_tokens":0,"top_n":1,"dimensions":4,"encoding_format":"base64",
"response_format":{"type":"json_schema"},"stop":"a","seed":1,"logit_bias":{},"user":"u","unknown":[[{}]]}"#;

    fn all(body: &[u8]) {
        for check in CHECKS {
            match check(body) {
                Ok(checked) => assert!(!checked.model.is_empty() && checked.model.len() <= MAX_MODEL_NAME),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }

    #[test]
    fn the_whole_body_passes_everywhere() {
        for check in CHECKS {
            assert!(check(VALID.as_bytes()).is_ok());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_checked_or_refused(body in vec(any::<u8>(), 0..200)) {
            all(&body);
        }

        #[test]
        fn a_valid_body_with_any_byte_changed_is_checked_or_refused(at in 0..VALID.len(), byte: u8, end in 0..VALID.len()) {
            let mut body = VALID.as_bytes().to_vec();
            if let Some(place) = body.get_mut(at) {
                *place = byte;
            }
            all(&body);
            all(body.get(..end).unwrap_or_default());
        }
    }
}
