//! Size and replicas of a new stream, and the next try after a refusal. Pure.

use async_nats::jetstream::ErrorCode;

use crate::limits::{SAFE_REPLICAS, SMALLEST_PART, SMALLEST_STREAM};
use crate::replicas::Replicas;

/// Why the servers refused to make a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The stream is larger than the servers can store.
    NoRoom,
    /// There are fewer servers than replicas.
    FewServers,
    /// A stream of this name exists.
    There,
    /// Something else.
    Other,
}

impl Refusal {
    /// Interprets the server's answer. Only its text tells too few servers from too little room.
    pub(super) fn of(code: ErrorCode, text: &str) -> Self {
        match code {
            ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::MEMORY_RESOURCES_EXCEEDED
            | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
            | ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED => Self::NoRoom,
            ErrorCode::CLUSTER_NO_PEERS if text.contains("insufficient storage") => Self::NoRoom,
            ErrorCode::CLUSTER_NO_PEERS | ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED => Self::FewServers,
            ErrorCode::STREAM_NAME_EXIST => Self::There,
            _ => Self::Other,
        }
    }
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Try again with the new size and replicas of the plan.
    Again,
    /// The stream exists already.
    There,
    /// There is nothing left to try.
    GiveUp,
}

/// The tries to make one stream.
#[derive(Debug)]
pub(super) struct Plan {
    replicas: usize,
    fewer: bool,
    bytes: i64,
    wanted: i64,
}

impl Plan {
    /// A plan for a stream of `bytes`; 0 or less means unbounded.
    pub(super) fn new(replicas: Replicas, bytes: i64) -> Self {
        let (replicas, fewer) = match replicas {
            Replicas::Auto => (SAFE_REPLICAS, true),
            Replicas::Exactly(count) => (count, false),
        };
        Self {
            replicas,
            fewer,
            bytes,
            wanted: bytes,
        }
    }

    pub(super) fn replicas(&self) -> usize {
        self.replicas
    }

    pub(super) fn bytes(&self) -> i64 {
        self.bytes
    }

    /// Prefers a smaller stream to fewer replicas, and either to none.
    pub(super) fn after(&mut self, refusal: Refusal) -> Step {
        match refusal {
            Refusal::There => Step::There,
            Refusal::NoRoom if self.bytes / 2 >= SMALLEST_STREAM.max(self.wanted / SMALLEST_PART) => {
                self.bytes /= 2;
                Step::Again
            }
            Refusal::NoRoom | Refusal::FewServers if self.fewer && self.replicas > 1 => {
                self.replicas = 1;
                self.bytes = self.wanted;
                Step::Again
            }
            Refusal::NoRoom | Refusal::FewServers | Refusal::Other => Step::GiveUp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: i64 = 1024 * 1024;

    /// A server that has room for `bytes` and `replicas`, as nats-server answers.
    fn made(replicas: Replicas, wanted: i64, room: i64, servers: usize) -> Option<(usize, i64)> {
        let mut plan = Plan::new(replicas, wanted);
        for _ in 0..100 {
            let refusal = if plan.bytes() > room {
                Refusal::NoRoom
            } else if plan.replicas() > servers {
                Refusal::FewServers
            } else {
                return Some((plan.replicas(), plan.bytes()));
            };
            if plan.after(refusal) == Step::GiveUp {
                return None;
            }
        }
        unreachable!("the plan has no end")
    }

    #[test]
    fn a_stream_has_as_many_replicas_and_as_much_room_as_there_are() {
        let wanted = 1024 * MIB;
        assert_eq!(made(Replicas::Auto, wanted, wanted, 3), Some((3, wanted)));
        assert_eq!(made(Replicas::Auto, wanted, wanted, 1), Some((1, wanted)));
        assert_eq!(made(Replicas::Auto, wanted, 256 * MIB, 3), Some((3, 256 * MIB)));
        assert_eq!(made(Replicas::Auto, wanted, 200 * MIB, 2), Some((1, 128 * MIB)));
        assert_eq!(made(Replicas::Auto, wanted, MIB, 1), None, "too small to be of use");
        assert_eq!(made(Replicas::Exactly(3), wanted, wanted, 1), None);
        assert_eq!(made(Replicas::Exactly(1), wanted, wanted, 3), Some((1, wanted)));
        assert_eq!(made(Replicas::Auto, -1, 0, 1), Some((1, -1)), "without a bound");
    }

    #[test]
    fn what_is_there_or_refused_for_another_reason_is_not_tried_again() {
        let mut plan = Plan::new(Replicas::Auto, 1024 * MIB);
        assert_eq!(plan.after(Refusal::There), Step::There);
        assert_eq!(plan.after(Refusal::Other), Step::GiveUp);
        assert_eq!((plan.replicas(), plan.bytes()), (3, 1024 * MIB));
    }

    #[test]
    fn too_few_servers_and_too_little_room_are_told_apart() {
        let no_peers = ErrorCode::CLUSTER_NO_PEERS;
        let few = "no suitable peers for placement";
        assert_eq!(Refusal::of(no_peers, few), Refusal::FewServers);
        let full = "no suitable peers for placement, insufficient storage";
        assert_eq!(Refusal::of(no_peers, full), Refusal::NoRoom);
        assert_eq!(
            Refusal::of(ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED, ""),
            Refusal::FewServers
        );
        assert_eq!(Refusal::of(ErrorCode::STORAGE_RESOURCES_EXCEEDED, ""), Refusal::NoRoom);
        assert_eq!(Refusal::of(ErrorCode::STREAM_NAME_EXIST, ""), Refusal::There);
        assert_eq!(Refusal::of(ErrorCode::BAD_REQUEST, ""), Refusal::Other);
    }
}
