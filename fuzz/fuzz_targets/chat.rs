//! The body of a chat completion request: any bytes are checked or refused, never a panic, and what is
//! accepted keeps its promises.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenbus_api::check_chat;
use tokenbus_api::testing::{MAX_CHOICES, chat_choices};
use tokenbus_fuzz::assert_checked;

fuzz_target!(|bytes: &[u8]| {
    if let Some(choices) = chat_choices(bytes) {
        assert!((1..=MAX_CHOICES).contains(&choices));
    }
    assert_checked(bytes, &check_chat(bytes));
});
