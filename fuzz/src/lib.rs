//! What the check of a request promises in every API, for the targets that feed them.

use tokenbus_api::{Checked, RequestError};
use tokenbus_protocol::MAX_MODEL_NAME;

/// Asserts that `checked`, which came of `bytes`, is a request that can be placed or an error that can be told.
///
/// # Panics
/// When it is neither.
pub fn assert_checked(bytes: &[u8], checked: &Result<Checked, RequestError>) {
    match checked {
        Ok(request) => assert!(!request.model.is_empty() && request.model.len() <= MAX_MODEL_NAME),
        Err(error) => assert_error(bytes, error),
    }
}

/// Asserts that `checked`, where it is a request, carries a body that is a chat request for the same model.
///
/// # Panics
/// When it does not.
pub fn assert_becomes_chat(checked: &Result<Checked, RequestError>) {
    let Ok(request) = checked else { return };
    let body = request
        .body
        .as_deref()
        .expect("a translated request has a body of its own");
    let chat = tokenbus_api::check_chat(body).expect("what was translated to is a chat request");
    assert_eq!(chat.model, request.model);
}

/// Asserts that `error` says something, and points into `bytes` where it points at all.
///
/// # Panics
/// When it does not.
pub fn assert_error(bytes: &[u8], error: &RequestError) {
    assert!(!error.to_string().is_empty());
    let located = match error {
        RequestError::NotUtf8(at) => *at < bytes.len(),
        RequestError::Syntax { line, .. } => *line >= 1,
        _ => true,
    };
    assert!(located, "{error:?}");
}
