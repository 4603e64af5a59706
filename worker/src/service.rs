//! Registration with the NATS services protocol, so that `nats micro ls` lists the worker.
//!
//! It is spoken here and not by the NATS client's own service, of which nobody can know when it has ended:
//! a worker that has stopped must not draw questions that it does not answer.

use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

use async_nats::Message;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::select_all;
use serde_json::{Value, json};
use tokenbus_bus::{Bus, BusError, Subscription, take_in_during};
use tokenbus_protocol::{SERVICE_NAME, WorkerState, is_inbox};
use tokio::sync::watch;

use crate::options::Identity;
use crate::report::status::Snapshot;

/// What can be asked.
#[derive(Debug, Clone, Copy)]
enum Verb {
    Ping,
    Info,
    Stats,
}

impl Verb {
    const ALL: [(Self, &'static str); 3] = [(Self::Ping, "PING"), (Self::Info, "INFO"), (Self::Stats, "STATS")];
}

/// Keeps the registration from the time when something is known of the engine until the worker stops. What
/// is answered is of the moment.
pub(crate) async fn register(bus: Bus, identity: Identity, namespace: String, mut snapshot: watch::Receiver<Snapshot>) {
    let mut listening: Vec<(Verb, Subscription)> = Vec::new();
    let id = format!("{}-{:x}", identity.worker, identity.instance);
    loop {
        let now = snapshot.borrow_and_update().clone();
        if now.state == WorkerState::Stopped {
            break;
        }
        if listening.is_empty() && now.state != WorkerState::Starting {
            match listen(&bus, &id).await {
                Ok(subscribers) => listening = subscribers,
                Err(error) => tracing::warn!(%error, "registering as a NATS service failed"),
            }
        }
        let mut questions = select_all(
            listening
                .iter_mut()
                .map(|(verb, subscriber)| subscriber.map(|message| (*verb, message))),
        );
        let (verb, question) = tokio::select! {
            biased;
            changed = snapshot.changed() => if changed.is_err() { break } else { continue },
            Some(asked) = questions.next() => asked,
        };
        drop(questions);
        let reply = reply(verb, &id, &identity, &metadata(&identity, &namespace, &now));
        let subscriptions = listening.iter_mut().map(|(_, subscriber)| subscriber);
        take_in_during(subscriptions, answer(&bus, &question, &reply)).await;
    }
    for (_, mut subscriber) in listening {
        // It fails only for a client that is closed. That the server knows is confirmed by who waits for this.
        let _ = subscriber.unsubscribe().await;
    }
}

/// Listens on the subjects of all services, of this kind, and of this one.
async fn listen(bus: &Bus, id: &str) -> Result<Vec<(Verb, Subscription)>, BusError> {
    let mut subscribers = Vec::new();
    for (verb, name) in Verb::ALL {
        for of in ["", &format!(".{SERVICE_NAME}"), &format!(".{SERVICE_NAME}.{id}")] {
            subscribers.push((verb, bus.subscribe(format!("$SRV.{name}{of}")).await?));
        }
    }
    Ok(subscribers)
}

async fn answer(bus: &Bus, question: &Message, answer: &Value) {
    // Whoever asks must not write through the worker where they may not write themselves.
    let Some(reply) = question.reply.as_ref().filter(|reply| is_inbox(reply)) else {
        return;
    };
    // Counted by the bus; who asked asks again.
    if let Err(error) = bus.publish(reply.to_string(), Bytes::from(answer.to_string())).await {
        tracing::debug!(%error, "a question of the services protocol was not answered");
    }
}

/// As the services protocol wants it (NATS ADR-32).
fn reply(verb: Verb, id: &str, identity: &Identity, metadata: &HashMap<&str, String>) -> Value {
    let mut reply = json!({
        "name": SERVICE_NAME,
        "id": id,
        "version": env!("CARGO_PKG_VERSION"),
        "metadata": metadata,
    });
    let (kind, further) = match verb {
        Verb::Ping => ("ping", json!({})),
        Verb::Info => ("info", json!({ "description": "Generates tokens", "endpoints": [] })),
        Verb::Stats => {
            let started = UNIX_EPOCH + Duration::from_millis(identity.started_at_ms);
            let started = humantime::format_rfc3339_millis(started).to_string();
            ("stats", json!({ "started": started, "endpoints": [] }))
        }
    };
    if let (Some(reply), Value::Object(further)) = (reply.as_object_mut(), further) {
        reply.insert("type".to_owned(), format!("io.nats.micro.v1.{kind}_response").into());
        reply.extend(further);
    }
    reply
}

fn metadata(identity: &Identity, namespace: &str, snapshot: &Snapshot) -> HashMap<&'static str, String> {
    let models: Vec<&str> = snapshot.models.iter().map(|model| model.name.as_str()).collect();
    // In the order of the models: gateways without a coordinator learn from it who can do what.
    let capabilities: Vec<_> = snapshot
        .models
        .iter()
        .map(|model| model.capabilities.features())
        .collect();
    let assumed: Vec<_> = snapshot.models.iter().map(|model| model.capabilities.assumed).collect();
    HashMap::from([
        ("worker", identity.worker.to_string()),
        ("instance", identity.instance.to_string()),
        ("namespace", namespace.to_owned()),
        ("host", identity.host.clone()),
        ("engine", snapshot.engine.to_owned()),
        // JSON, because a model's name may hold any separator.
        ("models", json!(models).to_string()),
        ("capabilities", json!(capabilities).to_string()),
        ("assumed", json!(assumed).to_string()),
        ("labels", json!(identity.labels).to_string()),
        ("tier", identity.tier.to_string()),
        ("slots", snapshot.slots.to_string()),
    ])
}
