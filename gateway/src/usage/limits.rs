//! Every bound and time-out of the usage records, with its unit and its reason.

use std::time::Duration;

/// Records that wait to be published or confirmed: a minute of a gateway that answers a thousand
/// requests a second, in some 40 MB. Beyond it they are counted and gone.
pub const QUEUE: usize = 64 * 1024;

/// Records that wait for their confirmation at once.
pub const UNCONFIRMED: usize = 256;

/// Time that JetStream has to confirm one record. What is not confirmed is published again, and
/// the stream knows its id.
pub const CONFIRM: Duration = Duration::from_secs(5);

/// Time that JetStream has for an answer about the stream.
pub const ANSWER: Duration = Duration::from_secs(2);

/// First and longest pause before the stream is tried again.
pub const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Time within which the stream knows a record that comes again. Each costs the server some memory
/// for so long.
pub const REPEATS: Duration = Duration::from_secs(120);

/// How often it is made sure that the stream is there and has its replicas, also when nothing is
/// published.
pub const CHECK: Duration = Duration::from_secs(15);

/// Pause between two complaints about records that cannot be kept.
pub const COMPLAIN: Duration = Duration::from_secs(30);
