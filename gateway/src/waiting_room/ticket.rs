//! The place of one waiting request.

use tokenbus_protocol::Features;

/// The place of one waiting request. The request keeps it when it was woken in vain, so that it does not lose its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// Order of arrival over all models.
    pub order: u64,
    /// The model.
    pub model: String,
    /// Its line: the needs that some workers of the model lack.
    pub line: Features,
    /// Higher goes first.
    pub priority: i32,
    /// The tenant. Clients that name nobody are one tenant.
    pub tenant: Option<String>,
    /// Bytes of its body, which stays in memory while it waits.
    pub bytes: usize,
    /// A worker has had it before: it goes before all others, and is always admitted.
    pub begun: bool,
}

impl Ticket {
    /// Its level in its line. The lowest goes first.
    pub(super) fn level(&self) -> i64 {
        if self.begun {
            i64::MIN
        } else {
            -i64::from(self.priority)
        }
    }
}
