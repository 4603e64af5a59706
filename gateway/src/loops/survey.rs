//! Learns the cluster's state without waiting for the next snapshot: at the start, after a reconnect, and while no
//! coordinator publishes.
//!
//! It asks a coordinator for a snapshot. If none answers, it asks the workers through the NATS services protocol. The
//! gateway can then list the models, and tell an unknown model from one without a worker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;
use tokenbus_protocol::{Capabilities, Features, Labels, Name, Subjects};
use tokio::time::Instant;

use super::news;
use crate::shared::Shared;
use tokenbus_bus::clock::unix_seconds;

/// How often to ask workers while there is no coordinator.
const EVERY: Duration = Duration::from_secs(5);

/// How long to wait for answers, in addition to the round trip to NATS.
const ANSWERS: Duration = Duration::from_millis(700);

/// How many answers to read per survey. A larger cluster needs a coordinator.
const MAX_ANSWERS: usize = 10_000;

/// Surveys for as long as the gateway runs.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut link = shared.bus.link();
    let mut measured = 0;
    loop {
        shared.bus.connected().await;
        let epoch = link.borrow_and_update().epoch;
        let fresh = shared.view().is_fresh(Instant::now());
        if !fresh && !ask_coordinator(&shared).await {
            ask_workers(&shared).await;
            shared.view().forget_silent(Instant::now());
            shared.watch.ring();
        }
        // The new connection may lead to a more distant server.
        if std::mem::replace(&mut measured, epoch) != epoch
            && let Err(error) = shared.bus.round_trip().await
        {
            tracing::debug!(%error, "the round trip to NATS was not measured");
        }
        // The wait ends with an event: the time is over, or the connection changed.
        let _ = tokio::time::timeout(EVERY, link.changed()).await;
    }
}

async fn ask_coordinator(shared: &Shared) -> bool {
    let request = shared
        .bus
        .client()
        .request(shared.subjects.capacity_get(), Bytes::new());
    match tokio::time::timeout(ANSWERS + shared.bus.rtt(), request).await {
        Ok(Ok(answer)) => {
            news::take_snapshot(shared, &answer.payload);
            true
        }
        Ok(Err(_)) | Err(_) => false,
    }
}

/// The part of a worker's services answer that is read here.
#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    metadata: HashMap<String, String>,
}

async fn ask_workers(shared: &Shared) {
    let inbox = shared.bus.client().new_inbox();
    let Ok(mut answers) = shared.bus.subscribe(inbox.clone()).await else {
        return;
    };
    let asked = shared
        .bus
        .publish_with_reply(Subjects::service("INFO"), inbox, Bytes::new())
        .await;
    if asked.is_err() {
        return;
    }
    let until = Instant::now() + ANSWERS + shared.bus.rtt();
    for _ in 0..MAX_ANSWERS {
        let Ok(Some(answer)) = tokio::time::timeout_at(until, answers.next()).await else {
            break;
        };
        // A "no responders" answer has no payload and is not a worker.
        if let Ok(info) = serde_json::from_slice::<Info>(&answer.payload) {
            learn(shared, &info);
        }
    }
    let _ = answers.unsubscribe().await;
    shared.view().note_asked();
}

fn learn(shared: &Shared, info: &Info) {
    let get = |key: &str| info.metadata.get(key).map_or("", String::as_str);
    let Ok(worker) = Name::new(get("worker")) else { return };
    if get("namespace") != shared.subjects.namespace().as_str() {
        return;
    }
    let models: Vec<String> = serde_json::from_str(get("models")).unwrap_or_default();
    // Older workers do not announce it, so their features are unknown.
    let capabilities: Vec<Features> = serde_json::from_str(get("capabilities")).unwrap_or_default();
    let assumed: Vec<Features> = serde_json::from_str(get("assumed")).unwrap_or_default();
    // Without them, no request that requires one goes there.
    let labels: Labels = serde_json::from_str(get("labels")).unwrap_or_default();
    let number = |key| get(key).parse().unwrap_or(0);
    let (tier, slots) = (number("tier"), number("slots"));
    for (n, model) in models.iter().enumerate() {
        let mut view = shared.view();
        view.learnt(&worker, model, Instant::now(), unix_seconds());
        view.introduced(&worker, &labels, tier, slots);
        if let Some(features) = capabilities.get(n) {
            let assumed = assumed.get(n).copied().unwrap_or_default().and(*features);
            view.capable(&worker, model, Capabilities::from(*features).assuming(assumed));
        }
    }
}
