//! The state of the connection.

use std::time::{Duration, Instant};

/// The state of the connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Whether it is up now.
    pub connected: bool,
    /// How often the connection was made. If the number has changed, messages may have been lost.
    pub epoch: u64,
    /// Why there is no connection: what went wrong at each server; empty when connected.
    pub reason: String,
    /// Whether a server that was tried refused the login.
    pub login_refused: bool,
    /// When the present connection was made.
    pub connected_at: Option<Instant>,
}

impl Link {
    /// Whether the connection came back after a loss less than `window` before `now`. Other processes may still be
    /// reconnecting then.
    pub fn is_recovering(&self, now: Instant, window: Duration) -> bool {
        self.epoch > 1 && self.connected_at.is_some_and(|at| now < at + window)
    }
}
