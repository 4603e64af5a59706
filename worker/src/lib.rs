//! The engine worker: requests in, token frames out.

pub mod engine;
