//! Tells the coordinators how many requests wait here, which calls for more workers, and what became of streams that left
//! a worker. Workers know neither.

use std::sync::Arc;

use bytes::Bytes;
use tokenbus_protocol::{ModelWaiting, StreamsLeft, Waiting, encode};
use tokio::time::Instant;

use crate::limits::TELL_WAITING;
use crate::shared::Shared;

/// Reports once a second while requests wait or streams have left workers, and once more when there is nothing to tell.
/// Sleeps otherwise.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut told = false;
    loop {
        let has_news = || !shared.waiting_by_model().is_empty() || !shared.left().told(Instant::now()).is_empty();
        shared.tell_waiting.sleep_unless(|| told || has_news()).await;
        let due = shared.bus.rhythm().after(Instant::now().into_std(), TELL_WAITING);
        tokio::time::sleep_until(due.into()).await;
        let models = shared.waiting_by_model();
        let left = shared.left().told(Instant::now());
        let any = !models.is_empty() || !left.is_empty();
        if !any && !told || !shared.bus.is_connected() {
            continue;
        }
        match tell(&shared, models, left).await {
            Ok(()) => told = any,
            // The next report follows within a second.
            Err(error) => tracing::debug!(%error, "the number of waiting requests was not sent"),
        }
    }
}

async fn tell(
    shared: &Shared,
    models: Vec<(String, usize)>,
    left: Vec<StreamsLeft>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let models = models.into_iter().map(|(model, requests)| ModelWaiting {
        model,
        requests: u32::try_from(requests).unwrap_or(u32::MAX),
    });
    let waiting = Waiting {
        gateway: shared.gateway.clone(),
        models: models.collect(),
        left,
    };
    // Without a reply subject, coordinators do not take it for a request.
    let bytes = Bytes::from(encode(&waiting)?);
    shared.bus.publish(shared.subjects.capacity_get(), bytes).await?;
    Ok(())
}
