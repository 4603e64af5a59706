//! The loops that receive news: snapshots, hints of free slots, the coordinator's events, and deadly requests.

use std::sync::Arc;

use futures_util::StreamExt as _;
use tokenbus_bus::Subscription;
use tokenbus_protocol::{
    Capacity, DeadlyRequest, Event as ClusterEvent, EventKind, FreeHint, Subjects, WorkerNews, decode,
};
use tokio::time::Instant;

use super::liveness::RECONNECT_GRACE;
use crate::shared::Shared;
use tokenbus_bus::clock::unix_seconds;

/// Receives capacity snapshots.
pub(crate) async fn capacity(shared: Arc<Shared>, mut subscription: Subscription) {
    while let Some(message) = subscription.next().await {
        take_snapshot(&shared, &message.payload);
    }
}

/// Applies one snapshot.
pub(crate) fn take_snapshot(shared: &Shared, payload: &[u8]) {
    match decode::<Capacity>(payload) {
        Ok(capacity) => {
            let now = Instant::now();
            let changed = shared.view().snapshot(capacity, now, unix_seconds());
            for (worker, instance) in changed {
                shared.restarted(worker, instance);
            }
            shared.watch.ring();
            shared.wake_all();
        }
        Err(error) => shared.malformed("capacity", &error),
    }
}

/// Receives news of what workers hold, and hints that a full worker has a free slot again.
pub(crate) async fn free(shared: Arc<Shared>, mut subscription: Subscription) {
    while let Some(message) = subscription.next().await {
        let now = Instant::now();
        if let Some(worker) = Subjects::parse_news(&message.subject) {
            match decode::<WorkerNews>(&message.payload) {
                Ok(news) => shared.news(&worker, news, now),
                Err(error) => shared.malformed(&message.subject, &error),
            }
            continue;
        }
        let Some((model, worker)) = Subjects::parse_free(&message.subject) else {
            shared.malformed(&message.subject, &"no such subject");
            continue;
        };
        if shared.waiting(&model) == 0 {
            continue;
        }
        match decode::<FreeHint>(&message.payload) {
            // Permissions are by subject: a worker speaks only of itself.
            Ok(hint) if hint.worker == worker => {
                shared.view().learnt(&worker, &model, now, unix_seconds());
                shared.room(&worker, hint.room, 0, now);
            }
            Ok(_) => shared.malformed(&message.subject, &"it speaks of another worker"),
            Err(error) => shared.malformed(&message.subject, &error),
        }
    }
}

/// Receives the coordinator's events: a lost worker shortens its streams' wait.
pub(crate) async fn events(shared: Arc<Shared>, mut subscription: Subscription) {
    while let Some(message) = subscription.next().await {
        match decode::<ClusterEvent>(&message.payload) {
            Ok(ClusterEvent {
                kind: EventKind::WorkerLost,
                worker: Some(worker),
                ..
            }) => {
                // The coordinator may be the one that is cut off: a worker that was heard a moment ago is not lost. How
                // long a moment is depends on the measured lateness of the worker's link.
                let (heard, late) = {
                    let view = shared.view();
                    (view.heard(&worker), view.lateness(&worker))
                };
                let silent = heard.is_some_and(|at| at.elapsed() > RECONNECT_GRACE + late);
                if silent {
                    shared.lost(&worker);
                }
            }
            Ok(_) => {}
            Err(error) => shared.malformed("event", &error),
        }
    }
}

/// Receives from the other gateways the requests of which engines died.
pub(crate) async fn deadly(shared: Arc<Shared>, mut subscription: Subscription) {
    while let Some(message) = subscription.next().await {
        match decode::<DeadlyRequest>(&message.payload) {
            Ok(told) => shared.hear_deadly(told, Instant::now()),
            Err(error) => shared.malformed("deadly", &error),
        }
    }
}
