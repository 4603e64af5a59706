//! The body of a request of the Messages API, for an answer and for the number of its tokens: any bytes are
//! translated or refused, never a panic, and what is translated for an answer is a chat request.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenbus_api::{check_message, check_message_count};
use tokenbus_fuzz::{assert_becomes_chat, assert_checked};

fuzz_target!(|bytes: &[u8]| {
    let checked = check_message(bytes);
    assert_checked(bytes, &checked);
    assert_becomes_chat(&checked);
    assert_checked(bytes, &check_message_count(bytes));
});
