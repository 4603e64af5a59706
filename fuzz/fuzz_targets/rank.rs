//! The bodies of rerank and score requests: any bytes are checked or refused, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenbus_api::{check_rerank, check_score};
use tokenbus_fuzz::assert_checked;

fuzz_target!(|bytes: &[u8]| {
    assert_checked(bytes, &check_rerank(bytes));
    assert_checked(bytes, &check_score(bytes));
});
