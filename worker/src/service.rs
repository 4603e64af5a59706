//! Registration with the NATS services protocol, so that `nats micro ls` lists the worker.

use std::collections::HashMap;

use async_nats::service::{Service, ServiceExt as _};
use tokenbus_bus::Bus;
use tokenbus_protocol::WorkerState;
use tokenbus_protocol::subject::SERVICE_NAME;
use tokio::sync::watch;

use crate::options::Identity;
use crate::status::Snapshot;

/// Keeps the registration while the worker lives. A service's metadata is fixed, so it is
/// registered anew when engine or models change.
pub(crate) async fn register(bus: Bus, identity: Identity, namespace: String, mut snapshot: watch::Receiver<Snapshot>) {
    let mut registered: Option<(HashMap<String, String>, Service)> = None;
    loop {
        let now = snapshot.borrow_and_update().clone();
        if now.state == WorkerState::Stopped {
            break;
        }
        let metadata = metadata(&identity, &namespace, &now);
        let known = registered.as_ref().is_some_and(|(old, _)| *old == metadata);
        if !known && now.state != WorkerState::Starting {
            // The new one first: the worker is never missing in the list.
            match start(&bus, metadata.clone()).await {
                Ok(service) => stop(registered.replace((metadata, service))).await,
                Err(error) => tracing::warn!(%error, "registering as a NATS service failed"),
            }
        }
        if snapshot.changed().await.is_err() {
            break;
        }
    }
    stop(registered).await;
}

async fn start(bus: &Bus, metadata: HashMap<String, String>) -> Result<Service, async_nats::Error> {
    bus.client()
        .service_builder()
        .description("Generates tokens")
        .metadata(metadata)
        .start(SERVICE_NAME, env!("CARGO_PKG_VERSION"))
        .await
}

async fn stop(registered: Option<(HashMap<String, String>, Service)>) {
    if let Some((_, service)) = registered
        && let Err(error) = service.stop().await
    {
        tracing::debug!(%error, "stopping the NATS service failed");
    }
}

fn metadata(identity: &Identity, namespace: &str, snapshot: &Snapshot) -> HashMap<String, String> {
    let models: Vec<&str> = snapshot.models.iter().map(|model| model.name.as_str()).collect();
    // In the order of the models: gateways without a coordinator learn from it who can do what.
    let capabilities: Vec<_> = snapshot
        .models
        .iter()
        .map(|model| model.capabilities.features())
        .collect();
    HashMap::from([
        ("worker".to_owned(), identity.worker.to_string()),
        ("instance".to_owned(), identity.instance.to_string()),
        ("namespace".to_owned(), namespace.to_owned()),
        ("host".to_owned(), identity.host.clone()),
        ("engine".to_owned(), snapshot.engine.to_owned()),
        // JSON, because a model's name may hold any separator.
        ("models".to_owned(), serde_json::json!(models).to_string()),
        ("capabilities".to_owned(), serde_json::json!(capabilities).to_string()),
    ])
}
