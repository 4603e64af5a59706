//! What is read of a request before its call: who sends it, its headers, its id and its body.

pub(crate) mod access;
pub(crate) mod body;
pub(crate) mod cors;
pub(crate) mod dialect;
pub(crate) mod headers;
pub(crate) mod request_id;
pub(crate) mod run_off_thread;
