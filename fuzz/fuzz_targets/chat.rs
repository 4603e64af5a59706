//! The body of a chat completion request: any bytes are checked or refused, never a panic, and what is
//! accepted keeps its promises.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenbus_api::chat::check;
use tokenbus_api::limits::MAX_CHOICES;
use tokenbus_fuzz::assert_checked;

fuzz_target!(|bytes: &[u8]| {
    let view = check(bytes);
    if let Ok(view) = &view {
        assert!((1..=MAX_CHOICES).contains(&view.n));
    }
    assert_checked(bytes, &view.map(Into::into));
});
