//! The body of a chat completion request: any bytes are checked or refused, never a panic, and what is
//! accepted keeps its promises.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenbus_api::check_chat;
use tokenbus_api::MAX_CHOICES;
use tokenbus_fuzz::assert_checked;

fuzz_target!(|bytes: &[u8]| {
    let view = check_chat(bytes);
    if let Ok(view) = &view {
        assert!((1..=MAX_CHOICES).contains(&view.n));
    }
    assert_checked(bytes, &view.map(Into::into));
});
