//! Settings of the stream that keeps usage records.

use std::time::Duration;

/// A stream that stores the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageStream {
    /// Its name. An existing stream of this name is used as it is.
    pub name: String,
    /// How long a record is kept.
    pub age: Duration,
    /// Bytes of stored records; the oldest go first.
    pub bytes: u64,
}
