//! The bodies of tokenize and detokenize requests: any bytes are checked or refused, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenbus_api::{check_detokenize, check_tokenize};
use tokenbus_fuzz::assert_checked;

fuzz_target!(|bytes: &[u8]| {
    assert_checked(bytes, &check_tokenize(bytes));
    assert_checked(bytes, &check_detokenize(bytes));
});
