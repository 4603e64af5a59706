//! Every bound and time-out of tracing.

use std::time::Duration;

/// Bytes of a text in a span; a longer one is cut.
pub(crate) const TEXT: usize = 256;

/// Spans that may wait for export; more are dropped. The specification's default. A span has at most some 4 KiB.
pub(crate) const QUEUE: usize = 2048;

/// Spans in one export. The specification's default.
pub(crate) const BATCH: usize = 512;

/// Longest time that a span waits for others. The specification's default.
pub(crate) const DELAY: Duration = Duration::from_secs(5);

/// Time for the last export when the process ends: a collector that is away must not hold it up.
pub(crate) const FLUSH: Duration = Duration::from_secs(3);

/// Bytes of a `traceparent`: 55 today, later versions may append.
pub(crate) const PARENT: usize = 128;

/// Time to the first output beyond which a request is traced whatever the sampler decided.
pub const SLOW: Duration = Duration::from_secs(10);
