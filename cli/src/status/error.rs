//! Why there is nothing to show.

use std::io;

use tokenbus_bus::BusError;
use tokenbus_protocol::{DecodeError, EncodeError};

/// Why `status`, `top` or `trace` ended without what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StatusError {
    /// No server answered in time.
    #[error("NATS is not reachable at {servers}{}", because(.reason))]
    Unreachable {
        /// The addresses, without passwords.
        servers: String,
        /// What the client said, if anything.
        reason: String,
    },
    /// The bus refused something.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// No gateway listens.
    #[error("no gateway is there to ask")]
    NoGateway,
    /// No gateway knows the request.
    #[error("no gateway knows the request {0:?}; they keep what ended within the last hour")]
    UnknownRequest(String),
    /// The question cannot be encoded.
    #[error(transparent)]
    Question(#[from] EncodeError),
    /// An answer is not understood: it is of another version.
    #[error("the answer is not understood: {0}")]
    Answer(#[from] DecodeError),
    /// The view cannot be put into JSON.
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The terminal or the pipe does not take it.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

fn because(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    }
}
