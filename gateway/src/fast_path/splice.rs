//! What the client's side lends a lane: the template of its events, and an outlet to the client's socket.

use std::sync::Arc;
use std::time::Duration;

use tokenbus_api::answer::Template;

/// Where text can leave at once, past the reader.
pub trait Outlet: Send + Sync + std::fmt::Debug {
    /// Sends `events` with `tokens` tokens in them, `gap` after what was sent before. `scratch` is
    /// room to put them together in.
    fn send(&self, events: &[u8], tokens: u64, gap: Duration, scratch: &mut Vec<u8>) -> Sent;
}

/// What became of bytes that were to be sent at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// They left.
    All,
    /// They will leave before anything else, when the reader drives its connection on.
    Kept,
    /// Something else has to leave first; nothing was sent.
    NotNow,
    /// Nothing can be sent any more.
    Broken,
}

/// How a stream's reader lets plain text be treated.
#[derive(Debug, Clone)]
pub struct Splice {
    /// What the text is written into.
    pub template: Arc<Template>,
    /// Where it may leave, past the reader.
    pub outlet: Option<Arc<dyn Outlet>>,
}
