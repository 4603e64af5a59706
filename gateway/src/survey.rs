//! Learns what there is without waiting for the next snapshot: at the start, after a reconnect, and
//! while no coordinator publishes any.
//!
//! A coordinator is asked for its snapshot. Where none answers, the workers are asked themselves,
//! through the NATS services protocol: the models can then be listed, and an unknown one be told
//! from one that is only without a worker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;
use tokenbus_protocol::{Features, Name, SERVICE_NAME};
use tokio::time::Instant;

use crate::feed;
use crate::shared::{Shared, unix_seconds};

/// How often workers are asked while no coordinator is there.
const EVERY: Duration = Duration::from_secs(5);

/// How long answers are waited for, beside the time that NATS is away from here.
const ANSWERS: Duration = Duration::from_millis(700);

/// Answers that are read of one survey; more workers than this want a coordinator.
const MAX_ANSWERS: usize = 10_000;

/// Surveys for as long as the gateway runs.
pub async fn run(shared: Arc<Shared>) {
    let mut link = shared.bus.link();
    let mut measured = 0;
    loop {
        shared.bus.connected().await;
        let epoch = link.borrow_and_update().epoch;
        let fresh = shared.view().is_fresh(Instant::now());
        if !fresh && !ask_coordinator(&shared).await {
            ask_workers(&shared).await;
        }
        // Another connection may lead to a server further away.
        if std::mem::replace(&mut measured, epoch) != epoch
            && let Err(error) = shared.bus.round_trip().await
        {
            tracing::debug!(%error, "the way to NATS was not measured");
        }
        // Both ends of the wait are events: time, or a new connection.
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
            feed::take_snapshot(shared, &answer.payload);
            true
        }
        Ok(Err(_)) | Err(_) => false,
    }
}

/// A worker's answer, as the services protocol has it; only what is read of it.
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
        .publish_with_reply(format!("$SRV.INFO.{SERVICE_NAME}"), inbox, Bytes::new())
        .await;
    if asked.is_err() {
        return;
    }
    let until = Instant::now() + ANSWERS + shared.bus.rtt();
    for _ in 0..MAX_ANSWERS {
        let Ok(Some(answer)) = tokio::time::timeout_at(until, answers.next()).await else {
            break;
        };
        // "No responders" has no payload, and is no worker.
        if let Ok(info) = serde_json::from_slice::<Info>(&answer.payload) {
            learn(shared, &info);
        }
    }
    let _ = answers.unsubscribe().await;
}

fn learn(shared: &Shared, info: &Info) {
    let get = |key: &str| info.metadata.get(key).map_or("", String::as_str);
    let Ok(worker) = Name::new(get("worker")) else { return };
    if get("namespace") != shared.subjects.namespace().as_str() {
        return;
    }
    let models: Vec<String> = serde_json::from_str(get("models")).unwrap_or_default();
    // Absent in what older workers say; then nothing is known.
    let capabilities: Vec<Features> = serde_json::from_str(get("capabilities")).unwrap_or_default();
    for (n, model) in models.iter().enumerate() {
        let mut view = shared.view();
        view.learnt(&worker, model, Instant::now(), unix_seconds());
        if let Some(features) = capabilities.get(n) {
            view.capable(&worker, model, *features);
        }
    }
}
