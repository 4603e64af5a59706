//! The loop that tells the other gateways what was consumed here, and receives what they consumed.

use futures_util::StreamExt as _;
use tokenbus_bus::{Bus, Subscription};
use tokenbus_protocol::{Consumption, decode, encode};
use tokio::time::{Instant, MissedTickBehavior};

use super::Auth;
use super::limiter::Scope;
use super::limits::{GOSSIP, GOSSIP_GAP, REFRESH};

/// Publishes and receives on `subject` while the gateway runs.
pub(crate) async fn run(auth: Auth, bus: Bus, subject: String, mut heard: Subscription) {
    let Some(inner) = &auth.0 else {
        return std::future::pending().await;
    };
    let listen = async {
        while let Some(message) = heard.next().await {
            match decode::<Consumption>(&message.payload) {
                Ok(told) => {
                    let table = inner.table();
                    let limits = |name: &str| {
                        let key = table.as_ref()?.named(name)?;
                        Some((key.name.clone(), key.limits))
                    };
                    let news = inner.limiter().hear(&told, limits, Instant::now());
                    inner.tell(news);
                }
                Err(error) => {
                    bus.metrics().malformed.inc();
                    tracing::warn!(subject = %message.subject, %error, "malformed message");
                }
            }
        }
    };
    let tell = async {
        let hello = inner.limiter().hello();
        // Without a connection, nobody can hear the greeting.
        bus.connected().await;
        publish(&bus, &subject, vec![hello]).await;
        let mut refresh = tokio::time::interval(REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = None;
        loop {
            let scope = tokio::select! {
                _ = refresh.tick() => {
                    inner.limiter().age(Instant::now());
                    Scope::Active
                }
                () = inner.urgent.notified() => Scope::Urgent,
                () = at(due) => Scope::Changed,
                () = inner.changed.notified(), if due.is_none() => {
                    due = Some(Instant::now() + GOSSIP);
                    continue;
                }
            };
            if scope == Scope::Changed {
                due = None;
            }
            let messages = inner.limiter().tell(scope, Instant::now());
            if !messages.is_empty() {
                publish(&bus, &subject, messages).await;
                // The least pause between messages, however much there is to tell.
                tokio::time::sleep(GOSSIP_GAP).await;
            }
        }
    };
    tokio::select! {
        () = listen => {}
        () = tell => {}
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending::<()>().await,
    }
}

async fn publish(bus: &Bus, subject: &str, messages: Vec<Consumption>) {
    for message in messages {
        let sent = match encode(&message) {
            Ok(bytes) => bus.publish(subject.to_owned(), bytes.into()).await,
            Err(error) => {
                tracing::error!(%error, "consumption of keys not encoded");
                continue;
            }
        };
        if let Err(error) = sent {
            // The next message repeats everything in this one.
            tracing::debug!(%error, "consumption of keys not sent");
        }
    }
}
