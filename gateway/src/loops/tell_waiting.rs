//! Tells the coordinators how many requests wait here. Workers do not know, and the number calls for more workers.

use std::sync::Arc;

use bytes::Bytes;
use tokenbus_protocol::{ModelWaiting, Waiting, encode};
use tokio::time::MissedTickBehavior;

use crate::limits::TELL_WAITING;
use crate::shared::Shared;

/// Reports once a second while requests wait, and once more when none do.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(TELL_WAITING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    loop {
        ticks.tick().await;
        let models = shared.waiting_by_model();
        if models.is_empty() && !told || !shared.bus.is_connected() {
            continue;
        }
        let any = !models.is_empty();
        match tell(&shared, models).await {
            Ok(()) => told = any,
            // The next report follows within a second.
            Err(error) => tracing::debug!(%error, "the number of waiting requests was not sent"),
        }
    }
}

async fn tell(shared: &Shared, models: Vec<(String, usize)>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let models = models.into_iter().map(|(model, requests)| ModelWaiting {
        model,
        requests: u32::try_from(requests).unwrap_or(u32::MAX),
    });
    let waiting = Waiting {
        gateway: shared.gateway.clone(),
        models: models.collect(),
    };
    // Without a reply subject, coordinators do not take it for a request.
    let bytes = Bytes::from(encode(&waiting)?);
    shared.bus.publish(shared.subjects.capacity_get(), bytes).await?;
    Ok(())
}
