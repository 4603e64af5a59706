//! Every bound and time-out of API keys and their limits, with its unit and its reason.

use std::time::Duration;

/// Keys of one file or bucket. A table of this size takes some 30 MB.
pub(crate) const MAX_KEYS: usize = 100_000;

/// Largest key file in bytes: [`MAX_KEYS`] entries of some 300 bytes.
pub(crate) const MAX_FILE: u64 = 32 * 1024 * 1024;

/// Longest secret in bytes that is hashed. Ours have 46; those of other services have under 200.
pub(crate) const MAX_SECRET: usize = 512;

/// Model patterns per key.
pub(crate) const MAX_PATTERNS: usize = 1000;

/// Longest time before others hear of consumption, unless it is urgent.
pub(crate) const GOSSIP: Duration = Duration::from_millis(250);

/// Shortest time between two messages of one gateway. At its limit, each request of a key is urgent, and the others
/// need not hear of each one separately.
pub(crate) const GOSSIP_GAP: Duration = Duration::from_millis(10);

/// How often everything that is not idle is sent again, changed or not. It replaces lost messages, and shows that this
/// gateway is alive.
pub(crate) const REFRESH: Duration = Duration::from_secs(2);

/// Silence after which a gateway is gone and its running requests no longer count: three missed refreshes.
pub(crate) const PEER_LOST: Duration = Duration::from_secs(6);

/// Other gateways to remember. Further ones do not count.
pub(crate) const MAX_PEERS: usize = 1000;

/// Counts of one key at one other gateway that are kept, over all keys and gateways: some 100 MB. Further ones do not
/// count.
pub(crate) const MAX_TOLD: usize = 500_000;

/// Keys per message between gateways: with names of 64 bytes, it stays under 64 KiB.
pub(crate) const KEYS_PER_MESSAGE: usize = 400;

/// Assumed completion tokens of a request without a bound: most answers are shorter.
pub(crate) const ASSUMED_COMPLETION: u64 = 512;

/// Largest assumption of completion tokens, whatever bound a request sets: clients that ask for "as much as there is"
/// mostly get a page.
pub(crate) const MAX_ASSUMED_COMPLETION: u64 = 4096;

/// How long keys stay valid that vanished from their bucket without being revoked: long enough to wake somebody who
/// restores a copy, short enough that an operator who wipes the bucket to lock everybody out succeeds.
pub(crate) const KEYS_HOLD: Duration = Duration::from_secs(600);

/// How often to check that the key bucket is still the watched one. A watch does not notice that its bucket was deleted
/// or wiped.
pub(crate) const KEYS_CHECK: Duration = Duration::from_secs(5);

/// How often to check the bucket and its replicas, in units of [`KEYS_CHECK`].
pub(crate) const KEYS_ENSURE: u32 = 12;

/// Silence during the first read of a bucket after which it is opened again: the bucket was emptied meanwhile, or lost
/// its leader.
pub(crate) const KEYS_SILENCE: Duration = Duration::from_secs(10);

/// Pause between two log lines about lost keys.
pub(crate) const KEYS_COMPLAIN: Duration = Duration::from_secs(60);

/// How often what requests have used is written to the bucket of budgets. A gateway that is killed takes with it what
/// it has not written.
pub(crate) const BUDGET_WRITE: Duration = Duration::from_millis(500);

/// Entries of the bucket of budgets that are written at one time.
pub(crate) const BUDGET_WRITES: usize = 32;

/// How long JetStream may take to answer about the bucket of budgets.
pub(crate) const BUDGET_ANSWER: Duration = Duration::from_secs(2);

/// How long an entry of the bucket of budgets is kept: longer than a month.
pub(crate) const BUDGET_KEEP: Duration = Duration::from_secs(40 * 24 * 60 * 60);

/// How often to check that the bucket of budgets is still the watched one, and to show the budgets in the metrics.
pub(crate) const BUDGET_CHECK: Duration = Duration::from_secs(2);

/// Silence during the first read of the bucket of budgets after which it is opened again.
pub(crate) const BUDGET_SILENCE: Duration = Duration::from_secs(10);

/// First and longest pause before the bucket of budgets is tried again.
pub(crate) const BUDGET_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Pause between two log lines about budgets that are not kept.
pub(crate) const BUDGET_COMPLAIN: Duration = Duration::from_secs(60);

/// How long a gateway that stops may take to write the rest.
pub(crate) const BUDGET_LAST: Duration = Duration::from_secs(3);
