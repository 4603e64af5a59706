//! Virtual time: whole nanoseconds since the start of a run.

/// A point in virtual time, or a length of it, in nanoseconds.
pub type Nanos = u64;

/// One millisecond.
pub const MILLISECOND: Nanos = 1_000_000;

/// One second.
pub const SECOND: Nanos = 1_000_000_000;

/// `seconds` in nanoseconds; 0 for what is negative or no number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from a float saturates, and a run is hours at most"
)]
pub fn from_seconds(seconds: f64) -> Nanos {
    (seconds * 1e9).round().max(0.0) as Nanos
}

/// `nanos` in seconds.
#[expect(clippy::cast_precision_loss, reason = "a run of hours keeps its microseconds")]
pub fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}
