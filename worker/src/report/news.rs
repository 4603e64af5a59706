//! Tells all gateways what the engine holds, how much it has still to read, and how fast it is. Those that have no
//! stream here would not hear otherwise that others have sent it long prompts.
//!
//! A task of its own: it waits for nothing but NATS.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokenbus_bus::Bus;
use tokenbus_placement::CHANGE_BYTES;
use tokenbus_protocol::{MAX_MESSAGE, WorkerState};
use tokio::sync::watch;

use crate::limits;
use crate::report::reading::Readings;
use crate::report::status::Snapshot;

/// Publishes the news on `subject` once a second while there are any, and sooner after a surprise, until the worker
/// stops.
pub(crate) async fn tell(bus: Bus, subject: String, readings: Arc<Readings>, mut snapshot: watch::Receiver<Snapshot>) {
    let mut last = None;
    let mut last_at = Instant::now();
    loop {
        let due = bus.rhythm().after(Instant::now(), limits::STATUS_EVERY);
        let surprised = tokio::select! {
            stopped = snapshot.wait_for(|snapshot| snapshot.state == WorkerState::Stopped) => {
                let _ = stopped;
                return;
            }
            () = tokio::time::sleep_until(due.into()) => false,
            () = readings.surprise() => true,
        };
        if surprised {
            tokio::time::sleep_until((last_at + limits::NEWS_SOON).into()).await;
        }
        // What is not told now is told when NATS is back.
        if !bus.is_connected() {
            continue;
        }
        let room = bus.max_payload().min(MAX_MESSAGE).saturating_sub(limits::NEWS_OVERHEAD);
        let news = readings.news(room / CHANGE_BYTES, Instant::now());
        if last.as_ref() == Some(&news) && last_at.elapsed() < limits::NEWS_AT_LEAST_EVERY {
            continue;
        }
        match tokenbus_protocol::encode(&news) {
            Ok(bytes) => {
                if let Err(error) = bus.publish(subject.clone(), Bytes::from(bytes)).await {
                    tracing::debug!(%error, "news were not sent");
                }
            }
            Err(error) => tracing::error!(%error, "news cannot be encoded"),
        }
        (last, last_at) = (Some(news), Instant::now());
    }
}
