//! The HTTP edge over real connections, against a core that does what the test says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod aliases;
mod connections;
mod cors;
mod draining;
mod endpoints;
mod foreign;
mod handover;
mod hostile;
mod keys;
mod messages;
mod ollama;
mod openapi;
mod page;
mod paths;
mod refusals;
mod requests;
mod responses;
mod rights;
mod streams;
mod support;
mod usage;
