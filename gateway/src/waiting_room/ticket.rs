//! One waiting request's place.

use tokenbus_protocol::Features;

/// One waiting request's place. Kept across wakes that came to nothing, so that it does not lose
/// its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Order of arrival, over all models.
    pub order: u64,
    /// The model.
    pub model: String,
    /// What it needs that not all workers of the model can do: its line.
    pub line: Features,
    /// Higher is served earlier.
    pub priority: i32,
    /// For whom. Those who name nobody are one tenant.
    pub tenant: Option<String>,
    /// Bytes of its body, which lies in memory while it waits.
    pub bytes: usize,
    /// A worker has had it before: it is served before all that no worker has had, and let in always.
    pub begun: bool,
}

impl Ticket {
    /// Its level in its line; the lowest is served first.
    pub(super) fn level(&self) -> i64 {
        if self.begun {
            i64::MIN
        } else {
            -i64::from(self.priority)
        }
    }
}
