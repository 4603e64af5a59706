//! The loop that pings silent workers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokenbus_protocol::{Control, Ping, RollCall, encode};
use tokio::time::Instant;

use super::pings::{PING_STREAM, Pings};
use crate::limits;
use crate::shared::Shared;
use crate::stream::event::Event;

/// How often to look for silent workers while there are any to watch. This polls because silence causes no event.
const SILENCE_TICK: Duration = Duration::from_millis(150);

/// How long after a reconnect silence means nothing, so that workers can reconnect too.
pub(super) const RECONNECT_GRACE: Duration = Duration::from_millis(1500);

/// Pings workers that run our streams and are silent. NATS answers "no responders" for a worker whose process or
/// connection is gone; a hanging worker is found by its streams' stall timers. After a reconnect of this gateway, asks
/// each such worker for its streams until it answers. Pings a new worker a few times, to measure its answer time before
/// it gets a request. Without streams and new workers it sleeps.
pub(crate) async fn run(shared: Arc<Shared>, pings: Arc<Pings>) {
    let call = Control::RollCall(RollCall {
        gateway: shared.gateway.clone(),
    });
    let (Ok(ping), Ok(call)) = (encode(&Control::Ping(Ping {})), encode(&call)) else {
        return;
    };
    let (ping, call) = (Bytes::from(ping), Bytes::from(call));
    let mut link = shared.bus.link();
    // Nobody who was not asked can guess it.
    let random = || fastrand::u32(..);
    let mut quiet_until: Option<Instant> = None;
    loop {
        let has_work = || {
            let quiet = quiet_until.is_some_and(|until| Instant::now() < until);
            quiet || shared.roll_call.is_under_way() || shared.view().needs_watching()
        };
        tokio::select! {
            () = shared.watch.sleep_unless(has_work) => if !has_work() { continue },
            // Its sender is the bus, which outlives this loop.
            Ok(()) = link.changed() => link.mark_changed(),
        }
        tokio::time::sleep(SILENCE_TICK).await;
        let now = Instant::now();
        if link.has_changed().unwrap_or(false) {
            let link = link.borrow_and_update().clone();
            if !link.connected {
                shared.streams.broadcast(&Event::LinkLost);
            }
            if link.connected && link.epoch > 1 {
                shared.streams.broadcast(&Event::LinkRestored);
                let serving = shared.view().busy_with_ours();
                shared.roll_call.begin(serving, now + limits::AFTER_RECONNECT);
            }
            quiet_until = Some(now + RECONNECT_GRACE);
        }
        for worker in shared.roll_call.due(now) {
            if let Err(error) = shared.bus.publish(shared.subjects.control(&worker), call.clone()).await {
                tracing::debug!(%error, "roll call not sent");
            }
        }
        if quiet_until.is_some_and(|until| now < until) {
            continue;
        }
        let asked = {
            let (mut view, now) = (shared.view(), Instant::now());
            let mut asked = view.silent(limits::PING_AFTER, now);
            asked.extend(view.unmeasured(limits::MEASURE_AT_ONCE, limits::PING_AFTER, now));
            asked
        };
        for worker in asked {
            let number = random();
            let subject = shared.subjects.control(&worker);
            let answer = shared.subjects.reply(&shared.gateway, PING_STREAM, number);
            pings.add(number, worker);
            if let Err(error) = shared.bus.publish_with_reply(subject, answer, ping.clone()).await {
                tracing::debug!(%error, "ping not sent");
            }
        }
    }
}
