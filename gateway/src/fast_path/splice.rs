//! What the client's side lends a lane: the template of its events, and an outlet to the client's socket.

use std::sync::Arc;
use std::time::Duration;

use tokenbus_api::Template;

/// Sends text at once, without its reader.
pub trait Outlet: Send + Sync + std::fmt::Debug {
    /// Sends `events`, which hold `tokens` tokens, `gap` after the ones before. `scratch` is a buffer to frame them in.
    fn send(&self, events: &[u8], tokens: u64, gap: Duration, scratch: &mut Vec<u8>) -> Sent;
}

/// What became of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// They left.
    All,
    /// The wire keeps some of them. They leave before anything else, when the reader drives its connection.
    Kept,
    /// Other bytes must leave first; nothing was sent.
    NotNow,
    /// The connection is broken.
    Broken,
}

/// What a stream's reader lends the lane.
#[derive(Debug, Clone)]
pub struct Splice {
    /// The event that the text is written into.
    pub template: Arc<Template>,
    /// Sends the events without the reader; `None` if the reader sends them.
    pub outlet: Option<Arc<dyn Outlet>>,
}
