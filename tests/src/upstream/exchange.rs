//! One request at an upstream, and its outcome.

use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;
use tokio::sync::watch;

use crate::wait::within;

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The answer is in progress.
    Running,
    /// The whole answer was handed to the connection.
    Complete,
    /// The upstream closed the connection, as scripted.
    Cut,
    /// The other side closed the connection before the answer was complete, at this time.
    Abandoned(Instant),
}

/// One request at an upstream.
#[derive(Debug)]
pub struct Exchange {
    /// Its path.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, byte for byte.
    pub body: Bytes,
    /// When it had arrived completely.
    pub at: Instant,
    outcome: watch::Sender<Outcome>,
}

impl Exchange {
    pub(crate) fn new(path: String, headers: HeaderMap, body: Bytes) -> Self {
        Self {
            path,
            headers,
            body,
            at: Instant::now(),
            outcome: watch::Sender::new(Outcome::Running),
        }
    }

    /// Its body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a request is JSON")
    }

    /// The outcome so far.
    pub fn outcome(&self) -> Outcome {
        *self.outcome.borrow()
    }

    pub(crate) fn ended(&self, outcome: Outcome) {
        self.outcome.send_replace(outcome);
    }

    /// Waits until the other side closes the connection, and returns when.
    ///
    /// # Panics
    /// When the answer was completed instead, or after the deadline.
    pub async fn abandoned(&self) -> Instant {
        let mut outcome = self.outcome.subscribe();
        let ended = outcome.wait_for(|outcome| *outcome != Outcome::Running);
        let outcome = *within("the connection to the upstream to be closed", ended)
            .await
            .expect("it is ours");
        match outcome {
            Outcome::Abandoned(at) => at,
            other => panic!("the connection to the upstream should have been closed, but: {other:?}"),
        }
    }
}
