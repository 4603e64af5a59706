//! The body of a text completion request: any bytes are checked or refused, never a panic, and what is
//! accepted keeps its promises.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenbus_api::check_completion;
use tokenbus_api::testing::completion_choices;
use tokenbus_fuzz::assert_checked;

fuzz_target!(|bytes: &[u8]| {
    if let Some(choices) = completion_choices(bytes) {
        assert!(choices >= 1);
    }
    assert_checked(bytes, &check_completion(bytes));
});
