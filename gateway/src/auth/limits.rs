//! Every bound and time-out of API keys and their limits, with its unit and its reason.

use std::time::Duration;

/// Keys of one file or bucket. A table of this size takes some 30 MB.
pub const MAX_KEYS: usize = 100_000;

/// Largest key file in bytes: [`MAX_KEYS`] entries of some 300 bytes.
pub const MAX_FILE: u64 = 32 * 1024 * 1024;

/// Longest secret in bytes that is hashed at all. Ours have 46; other services' have under 200.
pub const MAX_SECRET: usize = 512;

/// Patterns of models that one key may have.
pub const MAX_PATTERNS: usize = 1000;

/// Longest time that others do not hear of what was consumed, unless it is urgent.
pub const GOSSIP: Duration = Duration::from_millis(250);

/// Shortest time between two messages of one gateway: a key at its limit makes each request
/// urgent, and the others need not hear of each alone.
pub const GOSSIP_GAP: Duration = Duration::from_millis(10);

/// Time after which everything that is not idle is told again, changed or not: it makes good what
/// was lost, and says that this gateway lives.
pub const REFRESH: Duration = Duration::from_secs(2);

/// Silence after which a gateway is gone and its running requests do not count any more: three
/// missed refreshes.
pub const PEER_LOST: Duration = Duration::from_secs(6);

/// Gateways that are remembered; more than that are not, and count for nothing.
pub const MAX_PEERS: usize = 1000;

/// Keys in one message between gateways: with names of 64 bytes it stays under 64 KiB.
pub const KEYS_PER_MESSAGE: usize = 400;

/// Completion tokens that are assumed of a request that sets no bound: most answers are shorter.
pub const ASSUMED_COMPLETION: u64 = 512;

/// Completion tokens that are assumed at most, whatever bound a request sets: clients that ask for
/// "as much as there is" mostly get a page.
pub const MAX_ASSUMED_COMPLETION: u64 = 4096;

/// Tokens that are assumed for an image, a sound or a file within a request, whatever its bytes.
pub const ASSUMED_ATTACHMENT: u64 = 1000;

/// Bytes of text that are assumed to be one token. English has four; it is settled at the end.
pub const BYTES_PER_TOKEN: u64 = 4;

/// Time for which keys hold that vanished from their bucket without being revoked: long enough for
/// somebody to be woken and to bring a copy back, short enough that whoever wipes the bucket to lock
/// everybody out has it his way.
pub const KEYS_HOLD: Duration = Duration::from_secs(600);

/// How often it is looked whether the bucket of keys is the one that is watched: a watch is not told
/// that its bucket was deleted or wiped.
pub const KEYS_CHECK: Duration = Duration::from_secs(5);

/// How often the bucket is made sure of, with its replicas, in units of [`KEYS_CHECK`].
pub const KEYS_ENSURE: u32 = 12;

/// Silence in the midst of reading a bucket for the first time after which it is opened again: it was
/// emptied meanwhile, or lost its leader.
pub const KEYS_SILENCE: Duration = Duration::from_secs(10);

/// Pause between two complaints about keys that are lost.
pub const KEYS_COMPLAIN: Duration = Duration::from_secs(60);
