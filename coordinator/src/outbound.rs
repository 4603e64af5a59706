//! The loop that puts snapshots, answers and events on the bus.
//!
//! It is apart from the loop that watches the workers, so that a bus that blocks for a while does
//! not keep statuses waiting.

use async_nats::Subject;
use bytes::Bytes;
use std::sync::Arc;

use tokenbus_bus::Bus;
use tokenbus_protocol::limits::MAX_MESSAGE;
use tokenbus_protocol::{Capacity, Event, Subjects, WorkerState, codec};
use tokio::sync::mpsc;

/// Something to be said.
#[derive(Debug)]
pub(crate) enum Outbound {
    /// The snapshot, to everybody.
    Snapshot(Arc<Capacity>),
    /// The snapshot, to who asked for it.
    Answer(Subject, Arc<Capacity>),
    /// An event.
    Event(Event),
}

/// Publishes what comes until nobody can send any more.
pub(crate) async fn run(bus: Bus, subjects: Subjects, mut messages: mpsc::Receiver<Outbound>) {
    let mut trimmed_before = false;
    while let Some(message) = messages.recv().await {
        let limit = bus.max_payload().min(MAX_MESSAGE);
        let (subject, payload) = match message {
            Outbound::Event(event) => (subjects.event(), codec::encode(&event).map(|bytes| (bytes, 0))),
            Outbound::Snapshot(capacity) => (subjects.capacity(), fit(&capacity, limit)),
            Outbound::Answer(reply, capacity) => (reply.into_string(), fit(&capacity, limit)),
        };
        match payload {
            Ok((bytes, left_out)) => {
                if left_out > 0 && !std::mem::replace(&mut trimmed_before, true) {
                    tracing::warn!(
                        limit,
                        left_out,
                        "the snapshot is larger than NATS's max_payload: it leaves out workers; raise max_payload"
                    );
                }
                if let Err(error) = bus.publish(subject, Bytes::from(bytes)).await {
                    tracing::debug!(%error, "not published");
                }
            }
            Err(error) => tracing::error!(%error, subject, "cannot encode"),
        }
    }
}

/// Encodes `capacity` in at most `limit` bytes, with as many workers as fit, and tells how many
/// were left out. Those that can take requests stay longest. The models always count all workers.
fn fit(capacity: &Capacity, limit: usize) -> Result<(Vec<u8>, usize), codec::EncodeError> {
    let mut bytes = codec::encode(capacity)?;
    if bytes.len() <= limit {
        return Ok((bytes, 0));
    }
    let all = capacity.workers.len();
    let mut smaller = capacity.clone();
    smaller.workers.sort_by_key(|worker| {
        let room = worker.slots.saturating_sub(worker.active).saturating_sub(worker.queued);
        (worker.state != WorkerState::Ready, room == 0)
    });
    while bytes.len() > limit && !smaller.workers.is_empty() {
        let keep = smaller.workers.len() * limit / bytes.len();
        smaller.workers.truncate(keep.min(smaller.workers.len() - 1));
        bytes = codec::encode(&smaller)?;
    }
    Ok((bytes, all - smaller.workers.len()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use tokenbus_protocol::{Name, Status};

    use super::*;
    use crate::demand::Demand;
    use crate::limits::LOST_AFTER;
    use crate::registry::Registry;
    use crate::registry::fixture::{at, status};
    use crate::snapshot::{Stamp, fold};

    fn cluster(workers: u32) -> Capacity {
        let mut registry = Registry::new(LOST_AFTER);
        for n in 0..workers {
            let state = if n % 2 == 0 {
                WorkerState::Draining
            } else {
                WorkerState::Ready
            };
            let active = if n % 4 == 1 { 4 } else { 0 };
            let status = Status {
                state,
                active,
                ..status(&format!("worker-{n:05}"), 1, 1)
            };
            registry.observe(status, at(0.0)).unwrap();
        }
        let stamp = Stamp {
            coordinator: Name::new("c").unwrap(),
            seq: 1,
            at_ms: 0,
        };
        fold(
            &registry,
            &crate::waiting::WaitingAtGateways::default(),
            &mut Demand::default(),
            stamp,
            at(0.0),
        )
    }

    #[test]
    fn a_snapshot_that_fits_is_left_as_it_is() {
        let capacity = cluster(200);
        let (bytes, left_out) = fit(&capacity, 1024 * 1024).unwrap();
        assert_eq!(left_out, 0);
        assert_eq!(codec::decode::<Capacity>(&bytes).unwrap(), capacity);
    }

    #[test]
    fn one_that_does_not_keeps_its_models_and_the_workers_with_room() {
        let capacity = cluster(10_000);
        let (bytes, left_out) = fit(&capacity, 1024 * 1024).unwrap();
        assert!(bytes.len() <= 1024 * 1024);
        let sent: Capacity = codec::decode(&bytes).unwrap();
        assert_eq!(sent.models, capacity.models);
        assert_eq!(sent.workers.len() + left_out, 10_000);
        assert!(sent.workers.len() > 2000, "{}", sent.workers.len());
        assert!(
            sent.workers
                .iter()
                .take(2000)
                .all(|w| w.state == WorkerState::Ready && w.active == 0)
        );
    }

    #[test]
    fn an_absurd_limit_leaves_no_worker_and_ends() {
        let (_, left_out) = fit(&cluster(10), 10).unwrap();
        assert_eq!(left_out, 10);
    }
}
