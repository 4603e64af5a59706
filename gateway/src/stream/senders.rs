//! Which workers may answer a stream: those that its requests were sent to, and nobody else.
//!
//! A frame's subject tells its worker, because NATS permissions are by subject. A request that was sent to a worker is
//! answered by that worker. Whoever takes a request from the queue subject is not known beforehand. There, the first
//! who tells the request's id is the one: the id is random, and only those who got the request know it.

use tokenbus_protocol::{Body, Frame, Name};
use uuid::Uuid;

use crate::limits::KNOWN_ATTEMPTS;

/// The workers that have, or may have, attempts of one stream.
#[derive(Debug, Default)]
pub(crate) struct Senders {
    /// The newest last.
    attempts: Vec<Sent>,
}

/// An attempt that was published.
#[derive(Debug)]
struct Sent {
    attempt: u32,
    /// The worker that has it; `None` while nobody has shown to have taken it from the queue subject.
    worker: Option<Name>,
}

impl Senders {
    /// `attempt` is sent to `worker`, or to the queue subject.
    pub(crate) fn sent(&mut self, attempt: u32, worker: Option<Name>) {
        if self.attempts.is_empty() {
            self.attempts.reserve_exact(1); // usually the only one
        } else if self.attempts.len() >= KNOWN_ATTEMPTS {
            self.attempts.remove(0);
        }
        self.attempts.push(Sent { attempt, worker });
    }

    /// Whether `frame` of `worker` counts for the stream of `call`. The first who shows to have an attempt from the
    /// queue subject is noted.
    pub(crate) fn admit(&mut self, call: Uuid, worker: &Name, frame: &Frame<'_>) -> bool {
        let Some(sent) = self
            .attempts
            .iter_mut()
            .rev()
            .find(|sent| sent.attempt == frame.attempt)
        else {
            return false;
        };
        let id = match &frame.body {
            Body::Accepted(accepted) => Some(accepted.id),
            Body::Reject(reject) => reject.id,
            _ => None,
        };
        if id.is_some_and(|id| id != call) {
            return false;
        }
        match &sent.worker {
            Some(known) => known == worker,
            None if id.is_some() => {
                sent.worker = Some(worker.clone());
                true
            }
            None => false,
        }
    }

    /// Whether this worker has, or may have, an attempt of the stream: news of it concern the stream.
    pub(crate) fn knows(&self, worker: &Name) -> bool {
        self.attempts.iter().any(|sent| sent.worker.as_ref() == Some(worker))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokenbus_protocol::{Accepted, Alive, Delta, EngineError, ErrorCode, Finish, Reject, RejectReason, Room};

    use super::*;

    const CALL: Uuid = Uuid::from_u128(7);
    const OTHER: Uuid = Uuid::from_u128(8);

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn accepted(id: Uuid) -> Body<'static> {
        Body::Accepted(Accepted {
            id,
            // What a worker says of its name counts for nothing.
            worker: name("a"),
            instance: 1,
            queue_position: 0,
            resumable: true,
        })
    }

    fn reject(id: Option<Uuid>) -> Body<'static> {
        Body::Reject(Reject {
            reason: RejectReason::Unsupported,
            worker: name("a"),
            room: Room::default(),
            message: String::new(),
            retry_after_ms: None,
            id,
        })
    }

    fn others() -> [Body<'static>; 4] {
        let error = EngineError {
            code: ErrorCode::Internal,
            message: String::new(),
            param: None,
            engine_code: None,
            retryable: false,
            retry_after_ms: None,
        };
        [
            Body::Delta(Delta::default()),
            Body::Alive(Alive::default()),
            Body::Finish(Finish::default()),
            Body::Error(error),
        ]
    }

    fn admits(senders: &mut Senders, worker: &str, attempt: u32, body: Body<'static>) -> bool {
        let frame = Frame {
            stream: 1,
            attempt,
            seq: 0,
            body,
        };
        senders.admit(CALL, &name(worker), &frame)
    }

    #[test]
    fn a_request_for_a_worker_is_answered_by_that_worker() {
        let mut senders = Senders::default();
        senders.sent(0, Some(name("a")));
        let all = others()
            .into_iter()
            .chain([accepted(CALL), reject(None), reject(Some(CALL))]);
        for body in all {
            assert!(!admits(&mut senders, "b", 0, body.clone()), "{body:?}");
            assert!(!admits(&mut senders, "a", 1, body.clone()), "{body:?} of no attempt");
            assert!(admits(&mut senders, "a", 0, body.clone()), "{body:?}");
        }
        assert!(!admits(&mut senders, "a", 0, accepted(OTHER)), "another request");
    }

    #[test]
    fn a_request_for_the_queue_is_answered_by_the_first_who_knows_its_id() {
        let mut senders = Senders::default();
        senders.sent(0, None);
        for body in others()
            .into_iter()
            .chain([accepted(OTHER), reject(None), reject(Some(OTHER))])
        {
            assert!(!admits(&mut senders, "b", 0, body.clone()), "{body:?}");
        }
        assert!(!senders.knows(&name("b")));
        assert!(admits(&mut senders, "a", 0, accepted(CALL)));
        assert!(senders.knows(&name("a")));
        for body in others().into_iter().chain([accepted(CALL), reject(Some(CALL))]) {
            assert!(!admits(&mut senders, "b", 0, body.clone()), "{body:?}");
            assert!(admits(&mut senders, "a", 0, body.clone()), "{body:?}");
        }
    }

    #[test]
    fn the_newest_attempts_are_known() {
        let mut senders = Senders::default();
        let last = u32::try_from(KNOWN_ATTEMPTS).unwrap();
        for attempt in 0..=last {
            senders.sent(attempt, Some(name("a")));
        }
        assert!(!admits(&mut senders, "a", 0, accepted(CALL)));
        assert!(admits(&mut senders, "a", 1, accepted(CALL)));
        assert!(admits(&mut senders, "a", last, accepted(CALL)));
        assert_eq!(senders.attempts.len(), KNOWN_ATTEMPTS);
    }
}
