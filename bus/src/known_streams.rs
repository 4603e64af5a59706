//! What one connection remembers of the streams that it has used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The streams that this connection has used, by name. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct KnownStreams(Arc<Mutex<HashMap<String, KnownStream>>>);

#[derive(Debug, Default)]
struct KnownStream {
    mark: Option<i128>,
    /// The log already says that it has too few replicas.
    short: bool,
}

impl KnownStreams {
    /// Notes the mark of the stream `name`. Returns whether the stream had another mark before.
    pub(crate) fn note_mark(&self, name: &str, mark: i128) -> bool {
        let before = self.with(name, |known| known.mark.replace(mark));
        before.is_some_and(|before| before != mark)
    }

    /// Notes whether the stream `name` has too few replicas. Returns what was noted before.
    pub(crate) fn note_short(&self, name: &str, short: bool) -> bool {
        self.with(name, |known| std::mem::replace(&mut known.short, short))
    }

    fn with<R>(&self, name: &str, change: impl FnOnce(&mut KnownStream) -> R) -> R {
        // No change panics halfway, so a poisoned map is intact.
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(streams.entry(name.to_owned()).or_default())
    }
}
