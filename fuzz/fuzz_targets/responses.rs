//! The body of a request of the Responses API, for an answer and for the number of its tokens: any bytes are
//! translated or refused, never a panic, and what is translated for an answer is a chat request. No response is
//! kept, so what refers to one is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenbus_api::{KnownResponses, ResponseRequest};
use tokenbus_fuzz::{assert_becomes_chat, assert_checked, assert_error};

fuzz_target!(|bytes: &[u8]| {
    let known = KnownResponses::new();
    if let Err(error) = ResponseRequest::read(bytes).and_then(|create| create.refers_to()) {
        assert_error(bytes, &error);
    }
    let checked = ResponseRequest::read(bytes).and_then(|create| create.translate(&known, true));
    let checked = checked.map(|translated| translated.checked);
    assert_checked(bytes, &checked);
    assert_becomes_chat(&checked);
    assert_checked(
        bytes,
        &ResponseRequest::read(bytes).and_then(|create| create.count(&known)),
    );
});
