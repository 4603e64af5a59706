//! The loop that publishes snapshots, answers and events.
//!
//! It is separate from the loop that watches the workers, so that a blocked bus does not delay statuses.

use std::collections::HashSet;
use std::sync::Arc;

use async_nats::Subject;
use bytes::Bytes;

use tokenbus_bus::Bus;
use tokenbus_protocol::{Capacity, EncodeError, Event, MAX_MESSAGE, Subjects, WorkerState, encode};
use tokio::sync::mpsc;

/// A message to publish.
#[derive(Debug)]
pub(crate) enum Outbound {
    /// The snapshot, for everybody.
    Snapshot(Arc<Capacity>),
    /// The snapshot, for the one who asked.
    Answer(Subject, Arc<Capacity>),
    /// An event.
    Event(Event),
}

/// Publishes messages until all senders are gone.
pub(crate) async fn run(bus: Bus, subjects: Subjects, mut messages: mpsc::Receiver<Outbound>) {
    let mut trimmed_before = false;
    while let Some(message) = messages.recv().await {
        let limit = bus.max_payload().min(MAX_MESSAGE);
        let (subject, payload) = match message {
            Outbound::Event(event) => (subjects.event(), encode(&event).map(|bytes| (bytes, 0))),
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

/// Encodes `capacity` in at most `limit` bytes, and returns how many workers were left out. First the workers with the
/// longest lists of models lose their last ones: nobody's invented names cost others their place. Then workers are left
/// out; those that can take requests are kept longest. A model that is listed counts all its workers.
fn fit(capacity: &Capacity, limit: usize) -> Result<(Vec<u8>, usize), EncodeError> {
    let mut bytes = encode(capacity)?;
    if bytes.len() <= limit {
        return Ok((bytes, 0));
    }
    let all = capacity.workers.len();
    let mut smaller = capacity.clone();
    smaller.lost.clear();
    let longest = capacity.workers.iter().map(|worker| worker.report.models.len()).max();
    let mut keep = longest.unwrap_or(0);
    while bytes.len() > limit && keep > 1 {
        keep /= 2;
        shorten(&mut smaller, keep);
        bytes = encode(&smaller)?;
    }
    if bytes.len() <= limit {
        return Ok((bytes, 0));
    }
    smaller
        .workers
        .sort_by_key(|worker| (worker.report.state != WorkerState::Ready, worker.report.free() == 0));
    while bytes.len() > limit && !smaller.workers.is_empty() {
        let keep = smaller.workers.len() * limit / bytes.len();
        smaller.workers.truncate(keep.min(smaller.workers.len() - 1));
        bytes = encode(&smaller)?;
    }
    while bytes.len() > limit && !smaller.models.is_empty() {
        smaller.models.truncate(smaller.models.len() / 2);
        bytes = encode(&smaller)?;
    }
    Ok((bytes, all - smaller.workers.len()))
}

/// Leaves each worker its first `keep` models, and of the list of models those that a worker still names, or that nobody
/// named anyway.
fn shorten(capacity: &mut Capacity, keep: usize) {
    let mut named = HashSet::new();
    let mut cut = HashSet::new();
    for worker in &mut capacity.workers {
        cut.extend(
            worker
                .report
                .models
                .drain(keep.min(worker.report.models.len())..)
                .map(|info| info.name),
        );
        named.extend(worker.report.models.iter().map(|info| info.name.clone()));
    }
    capacity
        .models
        .retain(|model| named.contains(&model.model) || !cut.contains(&model.model));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use tokenbus_protocol::{Name, decode};

    use super::*;
    use crate::limits::LOST_AFTER;
    use crate::registry::Registry;
    use crate::registry::fixture::{at, info, reporting, status};
    use crate::scaling::Scaling;
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
            let status = reporting(status(&format!("worker-{n:05}"), 1, 1), |report| {
                report.state = state;
                report.active = active;
            });
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
            &mut Scaling::default(),
            stamp,
            at(0.0),
        )
    }

    #[test]
    fn a_snapshot_that_fits_is_left_as_it_is() {
        let capacity = cluster(200);
        let (bytes, left_out) = fit(&capacity, 1024 * 1024).unwrap();
        assert_eq!(left_out, 0);
        assert_eq!(decode::<Capacity>(&bytes).unwrap(), capacity);
    }

    #[test]
    fn one_that_does_not_keeps_its_models_and_the_workers_with_room() {
        let capacity = cluster(10_000);
        let (bytes, left_out) = fit(&capacity, 1024 * 1024).unwrap();
        assert!(bytes.len() <= 1024 * 1024);
        let sent: Capacity = decode(&bytes).unwrap();
        assert_eq!(sent.models, capacity.models);
        assert_eq!(sent.workers.len() + left_out, 10_000);
        assert!(sent.workers.len() > 2000, "{}", sent.workers.len());
        assert!(
            sent.workers
                .iter()
                .take(2000)
                .all(|w| w.report.state == WorkerState::Ready && w.report.active == 0)
        );
    }

    #[test]
    fn workers_with_many_models_lose_them_and_the_others_none() {
        let mut registry = Registry::new(LOST_AFTER);
        registry.observe(status("honest", 1, 1), at(0.0)).unwrap();
        for n in 0..24 {
            let liar = reporting(status(&format!("liar-{n}"), 1, 1), |report| {
                report.models = (0..256)
                    .map(|model| info(&format!("{n}-{model}-{}", "x".repeat(200))))
                    .collect();
            });
            registry.observe(liar, at(0.0)).unwrap();
        }
        let stamp = Stamp {
            coordinator: Name::new("c").unwrap(),
            seq: 1,
            at_ms: 0,
        };
        let waiting = crate::waiting::WaitingAtGateways::default();
        let capacity = fold(&registry, &waiting, &mut Scaling::default(), stamp, at(0.0));
        let (bytes, left_out) = fit(&capacity, 1024 * 1024).unwrap();
        assert!(bytes.len() <= 1024 * 1024);
        assert_eq!(left_out, 0);
        let sent: Capacity = decode(&bytes).unwrap();
        assert!(sent.models.iter().any(|model| model.model == "m"));
        assert!(sent.models.len() > 24 * 32, "{}", sent.models.len());
    }

    #[test]
    fn an_absurd_limit_leaves_no_worker_and_ends() {
        let (_, left_out) = fit(&cluster(10), 10).unwrap();
        assert_eq!(left_out, 10);
    }
}
