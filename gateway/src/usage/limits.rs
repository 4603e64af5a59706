//! Every bound and time-out of the usage records, with its unit and its reason.

use std::time::Duration;

/// Records that wait to be published or confirmed: a minute of a gateway with a thousand requests per second, some 40
/// MB. More are counted and dropped.
pub(crate) const QUEUE: usize = 64 * 1024;

/// How long a record may wait for others, so that many travel to NATS in one write and one wake-up of the server. Nobody
/// waits for a record, and one that is not confirmed may be lost with the gateway anyway. In this time the queue takes
/// three million records a second.
pub(crate) const GATHER: Duration = Duration::from_millis(20);

/// Records that await their confirmation at one time.
pub(crate) const UNCONFIRMED: usize = 256;

/// How long JetStream may take to confirm one record. An unconfirmed record is published again, and the stream
/// recognizes its id.
pub(crate) const CONFIRM: Duration = Duration::from_secs(5);

/// How long JetStream may take to answer about the stream.
pub(crate) const ANSWER: Duration = Duration::from_secs(2);

/// First and longest pause before the stream is tried again.
pub(crate) const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How long the stream recognizes a repeated record. Each one costs the server some memory for this time.
pub(crate) const REPEATS: Duration = Duration::from_secs(120);

/// How often to check that the stream exists and has its replicas, even if nothing is published.
pub(crate) const CHECK: Duration = Duration::from_secs(15);

/// Pause between two log lines about records that cannot be stored.
pub(crate) const COMPLAIN: Duration = Duration::from_secs(30);
