//! Finds out when NATS allows what it refused: after a reconnect, or when the server's permissions were changed.

use std::time::Instant;

use tokio::time::timeout;

use crate::connection::Bus;
use crate::limits;

/// Keeps the refusals of `bus` true.
pub(crate) async fn run(bus: Bus) {
    let (mut link, mut refusals) = (bus.link(), bus.refusals());
    let mut epoch = 0;
    while refusals.wait_for(|refusals| !refusals.is_empty()).await.is_ok() {
        let new = link.wait_for(|link| link.connected && link.epoch != epoch);
        let is_new = timeout(limits::RECHECK_EVERY, new).await.is_ok();
        if is_new {
            epoch = link.borrow().epoch;
            // Without an answer, what was refused again has been heard too.
            let _ = bus.confirm().await;
            bus.change_refusals(|refusals| refusals.forget_before(epoch));
        } else if bus.is_connected() {
            bus.change_refusals(|refusals| refusals.forget_publishes(Instant::now(), limits::REFUSED_PUBLISH));
            if is_allowed_again(&bus).await {
                tracing::info!("NATS allows a subscription that it had refused: reconnecting to have it");
                // The client subscribes to everything again. It fails only for a client that is closed.
                let _ = bus.client().force_reconnect().await;
            }
        }
    }
}

/// Tries each refused subscription for a moment. A request that comes in that moment is lost; its gateway sends it
/// again.
async fn is_allowed_again(bus: &Bus) -> bool {
    let from = Instant::now();
    let refused = bus.refusals().borrow().to_try();
    let mut tried = Vec::with_capacity(refused.len());
    for (subject, queue) in refused {
        let subscribed = match queue {
            Some(queue) => bus.queue_subscribe(subject, &queue).await,
            None => bus.subscribe(subject).await,
        };
        tried.extend(subscribed);
    }
    bus.confirm().await.is_ok() && bus.refusals().borrow().some_older_than(from)
}
