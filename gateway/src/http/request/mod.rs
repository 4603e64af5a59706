//! What the gateway reads of a request before it makes a call: the key, the id, the headers, the body.

pub(crate) mod access;
pub(crate) mod body;
pub(crate) mod client_address;
pub(crate) mod coding;
pub(crate) mod cors;
pub(crate) mod dialect;
pub(crate) mod foreign;
pub(crate) mod headers;
pub(crate) mod path;
pub(crate) mod refusals;
pub(crate) mod request_id;
pub(crate) mod run_off_thread;
