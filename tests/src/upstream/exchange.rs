//! One request at an upstream, and what became of it.

use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;
use tokio::sync::watch;

use crate::within;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is being answered.
    Running,
    /// Its answer was handed to the connection whole.
    Complete,
    /// The upstream closed the connection, as its script says.
    Cut,
    /// The other side closed the connection before the answer was whole, at this time.
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
    /// When it had come in whole.
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
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a request is JSON")
    }

    /// What has become of it so far.
    pub fn outcome(&self) -> Outcome {
        *self.outcome.borrow()
    }

    pub(crate) fn ended(&self, outcome: Outcome) {
        self.outcome.send_replace(outcome);
    }

    /// Waits until the other side has closed the connection, and says when.
    ///
    /// # Panics
    /// When the answer was complete instead, or after the deadline.
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
