//! Settings of the stream that keeps usage records.

use std::time::Duration;

/// A stream that keeps the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageStream {
    /// Its name. Where there is one of this name, it is used as it is.
    pub name: String,
    /// How long a record is kept.
    pub age: Duration,
    /// Bytes of records that are kept; the oldest go first.
    pub bytes: u64,
}
